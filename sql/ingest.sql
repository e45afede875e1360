-- Every shape of the feed, and the rows derived from it.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SET timezone = 'UTC';
SELECT postalytics.configure('earliest', '36500d');
SELECT postalytics.configure('latest', '36500d');
\set webhook `cat "$PG_ABS_SRCDIR"/test/samples/webhook.json`
\set api `cat "$PG_ABS_SRCDIR"/test/samples/api-campaign-events.json`
\set zapier `cat "$PG_ABS_SRCDIR"/test/samples/zapier.json`
\set canada `cat "$PG_ABS_SRCDIR"/test/samples/canada.json`
\set late `cat "$PG_ABS_SRCDIR"/test/samples/late-and-twice.json`

SELECT * FROM ingest(:'webhook');
SELECT * FROM ingest(:'api');
SELECT * FROM ingest(:'zapier');
SELECT * FROM ingest(:'canada');
SELECT * FROM ingest(:'late');

SELECT piece_id, status, occurred_at, account, campaign_id, payload IS NOT NULL AS payload
FROM events
ORDER BY piece_id, occurred_at, status;

SELECT piece_id, status, status_at, response, opens, completions, last_url
FROM pieces
ORDER BY piece_id;
SELECT piece_id, account, campaign_id, contact_id, country, first_name, last_name, company, email, zip, fields
FROM pieces
ORDER BY piece_id;
SELECT piece_id, mailed_at, in_transit_at, processed_for_delivery_at, re_routed_at, expected_delivery_at
FROM pieces
ORDER BY piece_id;
SELECT * FROM campaigns ORDER BY campaign_id;

-- Repeated payloads contain only duplicates, and change nothing.
CREATE TABLE before AS SELECT * FROM pieces;
SELECT * FROM ingest(:'webhook');
SELECT * FROM ingest(:'late');
SELECT count(*) AS changed
FROM (SELECT p::text FROM pieces AS p EXCEPT SELECT b::text FROM before AS b) AS c;
DROP TABLE before;

-- With identity 'contact', the webhook and the API page yield the same piece.
TRUNCATE events, pieces, campaigns;
SELECT postalytics.configure('identity', 'contact');
SELECT * FROM ingest(:'webhook');
SELECT * FROM ingest(:'api');
SELECT piece_id, status, response, first_name, country, in_transit_at, mailed_at FROM pieces;
SELECT postalytics.configure('identity', 'mail');

-- Wrappers can be nested.  An object that identifies a piece is an event in any case.
TRUNCATE events, pieces;
SELECT postalytics.configure('identity', NULL);
CREATE FUNCTION one(id text, more text DEFAULT '') RETURNS text LANGUAGE sql
RETURN format('{"mailId": %s, "eventDate": "2026-10-06T14:21:09Z", "eventType": 4%s}', id, more);
SELECT shape, i.*
FROM (VALUES (one('1')),
             ('[' || one('2') || ',' || one('3') || ']'),
             ('{"data": ' || one('4') || '}'),
             ('{"Events": [' || one('5') || ']}'),
             ('{"pageNumber": 1, "items": [' || one('6') || '], "more": {"data": 7}}'),
             ('{"data": {"events": [{"data": ' || one('7') || '}, ' || one('8') || ']}}'),
             ('[{"data": [' || one('9') || ']}, {"items": [' || one('10') || ']}]'),
             (one('11', ', "data": [' || one('12') || ']')),
             ('{"items": [' || one('13') || ', "x"], "mailId": 14, "eventDate": "2026-10-06T14:21:09Z", "eventType": 4}'),
             ('[]'), ('{"data": []}'), (NULL)) AS s (shape),
     ingest(shape::json) AS i;
SELECT array_agg(piece_id ORDER BY length(piece_id), piece_id) FROM events;

-- Names in any spelling, and sections by path.  Of repeated names, the last non-empty one wins.
TRUNCATE events, pieces;
SELECT * FROM ingest('{"MAIL_ID": "a", "event-date": "2026-10-06T14:21:09Z", "Event Type": "in transit",
                       "To": {"First Name": "Ann", "last_name": "O''Hara", "e-mail": "a@b.example"},
                       "from": {"firstName": "Not Ann", "company": "Not hers"},
                       "to.company": "Vale", "\u0063ountry": "U\u0053",
                       "meta": {"campaign_id": 7, "fields": {"firstName": "Nor hers", "mailId": 9, "n": [1, {"x": null}]}}}');
SELECT piece_id, first_name, last_name, company, email, country, campaign_id, fields FROM pieces;
SELECT * FROM ingest('{"mailId": "", "mailId": null, "mailId": "b", "mailId": "", "eventDate": "2026-10-06T14:21:09Z",
                       "eventType": 4, "eventType": 5, "status": 11, "statusDescription": "Printed"}');
SELECT piece_id, status FROM events WHERE piece_id = 'b';

-- Timestamps.  Those without an offset are in feed_time_zone.
CREATE FUNCTION stamped(stamp text) RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE events, pieces, rejects;
    PERFORM ingest(json_build_object('mailId', 1, 'eventType', 4, 'eventDate', stamp));
    RETURN (SELECT occurred_at FROM events);
END
$$;
SELECT stamp, stamped(stamp)
FROM unnest(ARRAY['2026-10-06T14:21:09Z', '2026-10-06t14:21:09z', '2026-10-06 14:21:09', '2026-10-06 14:21',
                  '2026-10-06T14:21:09.487', '2026-10-06T14:21:09.4879996', '2026-10-06T14:21:09.9999999Z',
                  '2026-10-06T14:21:09+02:00', '2026-10-06 14:21:09 -0530', '2026-10-06T14:21:09+02',
                  '10/08/2026 11:03:27 AM', '10/08/2026 11:03:27 PM', '1/2/2026 12:00:00 AM', '1/2/2026 12:30 pm',
                  '10/08/2026 23:03:27', '10/08/2026', '2026-10-06', ' 2026-10-06 ', '2024-02-29T00:00:00Z',
                  '2026-13-01', '2026-02-29', '2026-10-32', '2026-10-06T24:00:00', '2026-10-06T14:60:00',
                  '2026-10-06T14', '2026-10-06T14:21:09+', '2026-10-06T14:21:09+1', '2026-10-06T14:21:09.',
                  '2026-10-06T14:21:09 EST', '13:00 PM', '1/2/2026 13:00 PM', '1/2/2026 0:00 AM', '1/2/2026 1:00 XM',
                  '10/08/26', '1791295200', 'yesterday', 'now', 'infinity', '2026-1-1', 'T', '2026-10-06TZ']) AS s (stamp);
SELECT postalytics.configure('feed_time_zone', 'America/New_York');
SELECT stamp, stamped(stamp)
FROM unnest(ARRAY['2026-10-06T14:21:09', '2026-10-06T14:21:09Z', '2026-12-06T14:21:09', '2026-03-08T02:30:00']) AS s (stamp);
SELECT postalytics.configure('feed_time_zone', 'Nowhere/Land');
SELECT postalytics.configure('feed_time_zone', NULL);

-- However far back the setting reaches, dates start with the year 1.
SELECT postalytics.configure('earliest', '1490000d');
SELECT stamp, stamped(stamp)
FROM unnest(ARRAY['0001-01-01T00:00:00Z', '0001-01-01T00:00:00+05:00', '0000-12-31']) AS s (stamp);
SELECT postalytics.configure('earliest', '36500d');

-- The date that .NET uses for "none" counts as no expected date.
TRUNCATE events, pieces, rejects;
SELECT * FROM ingest('[{"mailId": 1, "eventDate": "2026-10-06", "eventType": 4, "expectedDeliveryDate": "2026-10-09T00:00:00"},
                       {"mailId": 2, "eventDate": "2026-10-06", "eventType": 4, "expectedDeliveryDate": "0001-01-01T00:00:00"},
                       {"mailId": 3, "eventDate": "2026-10-06", "eventType": 4, "expectedDeliveryDate": ""},
                       {"mailId": 4, "eventDate": "2026-10-06", "eventType": 4, "expectedDeliveryDate": "soon"}]');
SELECT piece_id, expected_delivery_at FROM pieces ORDER BY 1;
SELECT reason FROM rejects;

-- The caller determines the account.  An account in an event counts only if the owner has
-- mapped its path, and the caller has not passed an account.
TRUNCATE events, pieces, campaigns, rejects;
SELECT * FROM ingest(:'webhook', 'agency-7');
SELECT * FROM ingest('{"mailId": 5, "eventDate": "2026-10-06", "eventType": 4, "meta": {"accountId": 12}}', '');
SELECT * FROM ingest('{"mailId": 5}', 'agency-8');
INSERT INTO field_names VALUES ('meta.accountId', 'account');
SELECT * FROM ingest('{"mailId": 5, "eventDate": "2026-10-06", "eventType": 4, "meta": {"accountId": 12}}');
SELECT * FROM ingest('{"mailId": 6, "eventDate": "2026-10-06", "eventType": 4, "meta": {"accountId": 12}}', 'agency-7');
SELECT * FROM ingest(json_build_object('mailId', 7, 'eventDate', '2026-10-06', 'eventType', 4, 'meta', json_build_object('accountId', repeat('x', 256))));
SELECT * FROM ingest(json_build_object('mailId', 7, 'eventDate', '2026-10-06', 'eventType', 4, 'meta', json_build_object('accountId', repeat('x', 256))), 'agency-7');
DELETE FROM field_names;
SELECT account, count(*) FROM events GROUP BY 1 ORDER BY 1;
SELECT account, reason FROM rejects;
SELECT * FROM ingest('[]', repeat('x', 256));

-- With precision 'second', two feeds of different precision yield one event, both before
-- and after the year 2000.
TRUNCATE events, pieces;
SELECT postalytics.configure('event_precision', 'second');
SELECT * FROM ingest('[{"mailId": 5, "eventDate": "2026-10-06T14:21:09.987Z", "eventType": 7}, {"mailId": 5, "eventDate": "2026-10-06T14:21:09Z", "eventType": 7},
                       {"mailId": 5, "eventDate": "1999-10-06T14:21:09.5Z", "eventType": 7}, {"mailId": 5, "eventDate": "1999-10-06T14:21:09Z", "eventType": 7}]');
SELECT occurred_at FROM events ORDER BY 1;
SELECT opens, first_opened_at FROM pieces;
SELECT postalytics.configure('event_precision', NULL);

-- Payloads need not be kept.  The recipient is stored in any case.
TRUNCATE events, pieces;
SELECT postalytics.configure('keep_payload', 'off');
SELECT * FROM ingest(:'webhook');
SELECT e.payload, p.first_name, p.expected_delivery_at FROM events AS e JOIN pieces AS p USING (piece_id);
SELECT postalytics.configure('keep_payload', NULL);

-- Invalid JSON is an error, and nothing is stored.
SELECT * FROM ingest('{"mailId": 1, ');
SELECT ingest(('[' || one('77') || ', {]')::json);
SELECT count(*) FROM events WHERE piece_id = '77';

-- Only ingest can read the events that it offers to its query.
SELECT * FROM offered_events();

DROP FUNCTION one(text, text), stamped(text);
DROP EXTENSION postalytics_status CASCADE;
