-- Unexpected input: numbers, blanks, envelopes, very many events, and missing
-- values.
\set SHOW_CONTEXT never
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SELECT postalytics.configure('latest', '36500d');
SET timezone = 'UTC';

-- Build an event of a piece, with additional members.
CREATE FUNCTION event(piece text, day int, more json DEFAULT '{}') RETURNS jsonb
LANGUAGE sql
AS $$
    SELECT jsonb_build_object('mailId', piece, 'eventType', 4, 'eventDate', '2026-10-' || to_char(day, 'FM00')) || more::jsonb
$$;

-- A number that numeric cannot represent rejects its own event only.
SELECT * FROM ingest('[{"mailId": "n1", "eventType": 4, "eventDate": "2026-10-01", "fields": {"x": 1e-9223372036854775808}},
    {"mailId": "n2", "eventType": 4, "eventDate": "2026-10-01", "fields": {"x": 1e9223372036854775807}},
    {"mailId": "n3", "eventType": 4, "eventDate": "2026-10-01", "fields": {"x": 1E+99999999999999999999999}},
    {"mailId": "n4", "eventType": 4, "eventDate": "2026-10-01", "fields": {"x": 1e-0000000000000000000003}},
    {"mailId": "n5", "eventType": 4, "eventDate": "2026-10-01", "fields": {"x": -0.00}}]');
SELECT piece_id, fields FROM pieces ORDER BY 1;
SELECT piece_id, reason FROM rejects ORDER BY 1;

-- Ids are trimmed, numbers are compared by value, and a blank counts as missing.
TRUNCATE rejects;
SELECT * FROM ingest('[{"mailId": 48, "eventType": 4, "eventDate": "2026-10-01"},
    {"mailId": "48 ", "eventType": 4, "eventDate": "2026-10-02"},
    {"mailId": 48.0, "eventType": 4, "eventDate": "2026-10-03"},
    {"mailId": 4.8e1, "eventType": 4, "eventDate": "2026-10-04"},
    {"mailId": "\t48\u0020", "eventType": 4, "eventDate": "2026-10-05"},
    {"mailId": 48.50, "eventType": 4, "eventDate": "2026-10-05"},
    {"mailId": " ", "eventType": 4, "eventDate": "2026-10-05"},
    {"mailId": "\t\u0020", "eventType": 4, "eventDate": "2026-10-05"},
    {"mailId": 1e400, "eventType": 4, "eventDate": "2026-10-05"},
    {"mailId": " ", "campaignId": 7.0, "to": {"id": " a1 "}, "eventType": 4, "eventDate": "2026-10-05"}]');
SELECT piece_id, count(*) FROM events WHERE piece_id NOT LIKE 'n%' GROUP BY 1 ORDER BY 1;
SELECT piece_id, campaign_id, contact_id FROM pieces WHERE contact_id IS NOT NULL;
SELECT piece_id, reason FROM rejects ORDER BY reject_id;

-- The date and type of an envelope are not those of the events inside it.
TRUNCATE rejects;
SELECT * FROM ingest('{"event": "mail.status", "eventDate": "2026-10-06", "data": [
    {"mailId": "e1", "eventType": 4, "eventDate": "2026-10-01"},
    {"mailId": "e2", "eventType": 4, "eventDate": "2026-10-02"},
    {"mailId": "e3", "eventType": "Teleported", "eventDate": "2026-10-02"}]}');
SELECT * FROM ingest('{"data": [{"mailId": "e4", "eventType": 4, "eventDate": "2026-10-01"}], "eventDate": "2026-10-06", "event": "mail.status"}');
SELECT piece_id FROM pieces WHERE piece_id LIKE 'e%' ORDER BY 1;
SELECT piece_id, reason, payload FROM rejects;

-- Empty fields count as missing, and do not replace those of an earlier event.
SELECT inserted FROM ingest(json_build_array(event('f', 1, '{"fields": {"crm": 17}}'), event('f', 2, '{"fields": {}}'),
    event('f', 3, '{"fields": [ ]}'), event('f', 4, '{"fields": null}')));
SELECT fields FROM pieces WHERE piece_id = 'f';

-- A value too long for a B-tree can be stored with the index that docs/marketer.md advises.
CREATE INDEX ON pieces USING hash ((fields ->> 'crm_person_id'));
SELECT * FROM ingest(json_build_array(event('long', 1, json_build_object('fields', json_build_object('crm_person_id',
    (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 400) AS i)))), event('short', 1, '{"fields": {"crm_person_id": 17}}')));
SELECT piece_id FROM pieces WHERE fields ->> 'crm_person_id' = '17' AND piece_id = 'short';

-- A ZIP code that arrives without a name is stored, and does not remove the name.
SELECT inserted FROM ingest(json_build_array(event('z', 1, '{"to": {"firstName": "Kai", "zip": "96813"}}'), event('z', 2, '{"to": {"zip": "96701"}}'),
    event('z', 3, '{"to": {"firstName": "Keone"}}')));
SELECT first_name, zip FROM pieces WHERE piece_id = 'z';
SELECT inserted FROM ingest(json_build_array(event('zip', 7, '{"eventType": 6, "to": {"zip": "96701"}}')));
SELECT estimated_delivery(p) FROM pieces AS p WHERE piece_id = 'zip';

-- A million zeros become one reject.
TRUNCATE rejects;
SELECT * FROM ingest(('[' || repeat('0,', 1000000) || '{"mailId": "after", "eventType": 4, "eventDate": "2026-10-01"}]')::json, 'flood');
SELECT account, piece_id, reason, length(payload::text) FROM rejects;
SELECT * FROM retry_rejects();
SELECT account, reason FROM rejects;
TRUNCATE rejects;
SELECT * FROM ingest(('[' || repeat('0,', 999) || '0]')::json);
SELECT reason, count(*) FROM rejects GROUP BY 1;
TRUNCATE rejects;
SELECT * FROM ingest(('[' || repeat('0,', 1000) || '0]')::json);
SELECT reason, count(*) FROM rejects GROUP BY 1;
SELECT * FROM retry_rejects();
SELECT reason, count(*) FROM rejects GROUP BY 1;

-- A reject names its piece even if no json operator can read the payload.
TRUNCATE rejects;
SELECT * FROM ingest('[{"mailId": "r1", "eventType": 4, "eventDate": "2026-10-01", "note": "\u0000"}, {"mailId": "r2"}, {"mailId": "\u0000"}, {}]');
SELECT piece_id, reason FROM rejects ORDER BY reject_id;

-- Time zones with leap seconds are refused, as PostgreSQL refuses them.  Some systems
-- do not have such time zones.
DO $$
BEGIN
    PERFORM postalytics.configure('feed_time_zone', 'right/America/New_York');
    RAISE NOTICE 'feed_time_zone takes it';
EXCEPTION
    WHEN invalid_parameter_value THEN
        RAISE NOTICE 'feed_time_zone does not take it';
END
$$;
DO $$
BEGIN
    PERFORM postalytics.delivery_window('2026-10-06', 'right/America/New_York');
    RAISE NOTICE 'delivery_window takes it';
EXCEPTION
    WHEN invalid_parameter_value THEN
        RAISE NOTICE 'delivery_window does not take it';
END
$$;

-- The feed's error codes and addresses are read in every spelling.  Invalid values are NULL.
SELECT d.*
FROM (VALUES ('{"to": {"errorCode": "9X", "errorDescription": "Moved", "addressUpdated": true, "address": "1 Main St", "address2": "Apt 2", "city": "Lemmon", "state": "SD", "zip": "57638"}}'),
             ('{"To": {"ErrorCode": "9X", "wasUpdated": false}}'),
             ('{"to_error_code": "9X", "To Address Updated": "Yes", "To City": "Lemmon"}'),
             ('{"errorCode": 21, "errorDescription": "a\u0000", "address": {"line": 1}, "was_updated": 1}'),
             ('{"To Error Code": "caf\u00e9 \"x\"", "addressUpdated": null, "state": ""}'),
             ('17')) AS p (payload)
CROSS JOIN payload_details(p.payload::json) AS d;
INSERT INTO field_names VALUES ('recipient.town', 'city');
SELECT city FROM payload_details('{"recipient": {"town": "Lemmon"}}');

-- A campaign has the name from its latest day, regardless of the order of arrival.
CREATE TABLE named (n int, campaign text, body json);
INSERT INTO named
SELECT n, p.campaign, event('named ' || n || p.campaign, d.day, json_build_object('campaignId', p.campaign, 'campaignName', d.name))
FROM (VALUES (1, 1, 'X'), (2, 10, 'X'), (3, 5, 'Y'), (4, 10, 'W')) AS d (n, day, name)
CROSS JOIN (SELECT string_agg(i::text, '') AS campaign, array_agg(i) AS places
            FROM generate_series(1, 24) AS permutation,
                 LATERAL (SELECT i FROM (SELECT i, md5(i || '/' || permutation) AS h FROM generate_series(1, 4) AS i) AS s ORDER BY h) AS o
            GROUP BY permutation) AS p;
DO $$
DECLARE
    id text;
    place int;
BEGIN
    FOR id IN SELECT DISTINCT n.campaign FROM named AS n LOOP
        FOR place IN 1 .. 4 LOOP
            PERFORM postalytics.ingest(n.body) FROM named AS n WHERE n.campaign = id AND n.n = substr(id, place, 1)::int;
        END LOOP;
    END LOOP;
END
$$;
SELECT name, named_on, count(*) > 5 AS many FROM campaigns WHERE campaign_id ~ '^[1-4]{4}$' GROUP BY 1, 2;

-- Dropping a campaign deletes its events, but no events of other campaigns.
SELECT inserted FROM ingest(json_build_array(event('moved', 1, '{"campaignId": "K1", "to": {"firstName": "Old"}}'),
    event('moved', 2, '{"campaignId": "K2", "eventType": 5}'), event('stayed', 1, '{"campaignId": "K1"}'),
    event('stayed', 2, '{"eventType": 5}'), event('only', 2, '{"campaignId": "K2"}')));
SELECT name FROM create_sync('k', since => '2026-10-01', campaigns => '{K1,K2}');
SELECT drop_campaign('K1');
SELECT piece_id, campaign_id, status, first_name, in_transit_at FROM pieces WHERE piece_id IN ('moved', 'stayed', 'only') ORDER BY 1;
SELECT piece_id, campaign_id, status FROM events WHERE piece_id IN ('moved', 'stayed', 'only') ORDER BY 1;
SELECT piece_id, status FROM deliveries WHERE sync = 'k' ORDER BY 1;
SELECT drop_campaign('K1');
SELECT drop_campaign('K2');
SELECT count(*) FROM pieces WHERE piece_id IN ('moved', 'stayed', 'only');

-- A campaign name instead of an id matches nothing.  A label works like its status.
SELECT inserted FROM ingest(json_build_array(event('spring', 1, '{"campaignId": "77120", "campaignName": "Spring recall"}')));
SELECT name FROM create_sync('by_name', campaigns => '{Spring recall,77120}');
SELECT name, statuses, unless FROM create_sync('labels', statuses => '{In Transit,Return to Sender,6}', unless => '{purl completed}');
SELECT name, statuses FROM create_sync('typed', statuses => ARRAY['Mailed', 'InTransit']::mail_status[]);
SELECT create_sync('typo', statuses => '{In Transit,Deliverd}');
SELECT create_sync('typed');

-- Pieces are sorted in byte order.  If one id is a prefix of another, the text after
-- the prefix is not compared.
SELECT inserted FROM ingest('[{"mailId": "beginning!", "eventType": 4, "eventDate": "2026-10-01"}, {"mailId": "beginning", "eventType": 4, "eventDate": "2026-10-01"},
    {"mailId": "beginning#", "eventType": 4, "eventDate": "2026-10-01"}]');
SELECT piece_id FROM events WHERE piece_id LIKE 'beginning%' ORDER BY event_id;

-- Paths that the table's constraint refuses are ignored if the table contains them anyway.
DO $$
DECLARE
    name name;
BEGIN
    FOR name IN SELECT c.conname FROM pg_constraint AS c WHERE c.conrelid = 'postalytics.field_names'::regclass AND c.contype = 'c' LOOP
        EXECUTE format('ALTER TABLE postalytics.field_names DROP CONSTRAINT %I', name);
    END LOOP;
END
$$;
INSERT INTO field_names VALUES ('', 'mail_id'), (' .-_', 'mail_id'), (repeat('x', 63), 'mail_id'), (repeat('y', 64), 'mail_id'), (repeat('z', 100000), 'mail_id'), ('nothing', 'no field');
SELECT i.*
FROM (VALUES (''), ('.'), (repeat('x', 63)), (repeat('y', 64)), (repeat('z', 100000)), ('nothing')) AS n (name),
     ingest(json_build_object(n.name, 'named', 'eventType', 4, 'eventDate', '2026-10-02')) AS i;
SELECT count(*) FROM pieces WHERE piece_id = 'named';

SET client_min_messages = warning;
DROP TABLE named;
DROP FUNCTION event;
DROP EXTENSION postalytics_status CASCADE;
