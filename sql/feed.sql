-- All spellings of the feed, and feeds of other vendors mapped by rows.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SET TimeZone = 'UTC';
SELECT postalytics.configure('latest', '36500d');

-- Every path of every field in three shapes: nested, flat, and as words.
CREATE TABLE spelling (field text, path text);
INSERT INTO spelling
SELECT s.field, p.path
FROM (VALUES ('mail_id', '{mailId,meta.mailId,piece.mailId}'::text[]),
             ('event_date', '{eventDate,event_date,eventDateTime,eventTimestamp,eventTime,timestamp,date,created_date,CreationDate,dateCreated}'),
             ('event_type', '{eventType,event_type,event,eventName,eventTypeName,type}'),
             ('expected_delivery_date', '{expectedDeliveryDate,expected_delivery_date,meta.expectedDeliveryDate}'),
             ('campaign_id', '{campaignId,campaign_id,meta.campaignId,meta.campaign_id}'),
             ('drop_id', '{dropId,drop_id,meta.dropId,meta.drop_id,campaignDropId,meta.campaign_drop_id}'),
             ('campaign_name', '{campaignName,campaign_name,meta.campaignName,dropName,meta.dropName}'),
             ('contact_id', '{contactId,meta.contactId,to.contactId,to.id,dataId,data_id,meta.dataId,meta.data_id,to.dataId,contactDataId,meta.contactDataId}'),
             ('first_name', '{firstName,first_name,to.firstName,to.first_name}'),
             ('last_name', '{lastName,to.lastName,to.last_name}'),
             ('company', '{company,to.company}'),
             ('email', '{email,to.email,emailAddress,to.emailAddress}'),
             ('city', '{city,to.city,addressCity,to.address_city}'),
             ('state', '{state,to.state,addressState,to.address_state}'),
             ('zip', '{zip,to.zip,zipCode,to.zipCode,postalCode,to.postalCode,addressZip,to.address_zip}'),
             ('country', '{country,to.country,addressCountry,to.address_country}'),
             ('last_url', '{url,meta.url,metadata}'),
             ('fields', '{fields,meta.fields}'),
             ('error_code', '{errorCode,to.errorCode,meta.errorCode}'),
             ('error_description', '{errorDescription,to.errorDescription,meta.errorDescription}'),
             ('address_updated', '{addressUpdated,to.addressUpdated,wasUpdated,to.wasUpdated}'),
             ('address', '{address,to.address,addressStreet,to.address_street}'),
             ('address2', '{address2,to.address2,addressStreet2,to.address_street2}'),
             ('phone', '{phone,to.phone}')) AS s (field, paths)
CROSS JOIN unnest(s.paths) AS p (path);
-- Return the required members except the one under test, with their usual names.
CREATE FUNCTION usual(field text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT '{"mailId": "p", "eventDate": "2026-10-06T14:21:09Z", "eventType": "pURL Opened"}'::jsonb
	    - CASE field WHEN 'mail_id' THEN 'mailId' WHEN 'event_date' THEN 'eventDate' WHEN 'event_type' THEN 'eventType' ELSE '' END
$$;
CREATE FUNCTION value_of(field text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT CASE field WHEN 'mail_id' THEN '"p"' WHEN 'event_date' THEN '"2026-10-06T14:21:09Z"' WHEN 'event_type' THEN '"pURL Opened"'
	                  WHEN 'expected_delivery_date' THEN '"2026-10-09T00:00:00Z"' WHEN 'fields' THEN '{"offer": 1}' WHEN 'address_updated' THEN 'true'
	                  ELSE to_jsonb('the ' || field) END::jsonb
$$;
-- Build to.first_name, "To first_name" and "to_first_name".
CREATE FUNCTION in_shape(shape text, path text, value jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT CASE
	           WHEN shape = 'nested' AND path LIKE '%.%' THEN jsonb_build_object(split_part(path, '.', 1), jsonb_build_object(split_part(path, '.', 2), value))
	           WHEN shape = 'words' THEN jsonb_build_object(initcap(replace(regexp_replace(path, '([a-z])([A-Z])', '\1 \2', 'g'), '.', ' ')), value)
	           ELSE jsonb_build_object(replace(path, '.', '_'), value)
	       END
$$;
CREATE FUNCTION read_back(event jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	result ingest_result;
	got jsonb;
BEGIN
	DELETE FROM events; DELETE FROM pieces; DELETE FROM rejects;
	result := ingest(event::json);
	SELECT jsonb_strip_nulls(to_jsonb(p) || to_jsonb(d) || jsonb_build_object('mail_id', p.piece_id, 'event_date', e.occurred_at, 'event_type', label(e.status),
	                         'expected_delivery_date', p.expected_delivery_at, 'campaign_name', (SELECT c.name FROM campaigns AS c WHERE c.campaign_id = p.campaign_id)))
	INTO got
	FROM pieces AS p JOIN events AS e USING (piece_id, account) CROSS JOIN LATERAL payload_details(e.payload) AS d;
	RETURN got || COALESCE((SELECT jsonb_build_object('reason', r.reason) FROM rejects AS r), '{}');
END
$$;
-- A campaign name is stored only with a campaign id.
SELECT s.field, s.path, h.shape, r.got ->> s.field AS got
FROM spelling AS s
CROSS JOIN (VALUES ('nested'), ('flat'), ('words')) AS h (shape)
CROSS JOIN LATERAL read_back(usual(s.field) || CASE s.field WHEN 'campaign_name' THEN '{"campaignId": 7}'::jsonb ELSE '{}' END
                             || in_shape(h.shape, s.path, value_of(s.field))) AS r (got)
WHERE CASE WHEN s.field IN ('event_date', 'expected_delivery_date')
           THEN (r.got ->> s.field)::timestamptz IS DISTINCT FROM (value_of(s.field) #>> '{}')::timestamptz
           ELSE r.got -> s.field IS DISTINCT FROM value_of(s.field) END;
SELECT count(*), count(DISTINCT field) FROM spelling;
-- If a field has several names, one takes precedence, regardless of their order.
TRUNCATE events, pieces, campaigns;
SELECT ingest('[{"mailId": 1, "dataId": "data", "to": {"id": "to"}, "contactId": "contact", "date": "2020-01-01", "eventDate": "2026-10-06", "type": "x", "eventType": 4},
                {"mailId": 2, "eventType": 4, "type": "x", "eventDate": "2026-10-06", "date": "2020-01-01", "contactId": "contact", "to": {"id": "to"}, "dataId": "data"},
                {"mailId": 3, "eventType": 4, "type": "x", "eventDate": "2026-10-06", "contactId": null, "to": {"id": ""}, "dataId": "data"}]');
SELECT piece_id, contact_id, status, status_at FROM pieces ORDER BY 1;

-- While only the drop of a piece is known, its id serves as campaign id, regardless of the
-- order of events, and whether payloads are kept or not.
TRUNCATE events, pieces, campaigns;
SELECT name FROM create_sync('by_drop', campaigns => '{900}');
CREATE TABLE told (place int, event json);
INSERT INTO told
VALUES (1, '{"mailId": "p", "eventType": 11, "eventDate": "2026-10-05", "meta": {"dropId": 900, "dataId": 31, "campaignId": 77120}}'),
       (2, '{"mailId": "p", "eventType": 4, "eventDate": "2026-10-06", "meta": {"dropId": 900, "dataId": 31}}'),
       (3, '{"mailId": "q", "eventType": 4, "eventDate": "2026-10-06", "meta": {"dropId": 900}}'),
       (4, '{"mailId": "q", "eventType": 5, "eventDate": "2026-10-07", "meta": {"dropId": 901}}'),
       (5, '{"mailId": "r", "eventType": 5, "eventDate": "2026-10-07", "meta": {"campaignId": 77120}}');
SELECT count(ingest(event)) FROM (SELECT event FROM told ORDER BY place) AS t;
SELECT piece_id, campaign_id, drop_id, contact_id FROM pieces ORDER BY 1;
SELECT piece_id, status, campaign_id, drop_id FROM events ORDER BY 1, 2;
SELECT piece_id, status FROM postalytics.fetch('by_drop');
SELECT count(*) FROM deliveries WHERE sync = 'by_drop';
SELECT status, reached FROM funnel('900') WHERE reached > 0;
SELECT count(*) FROM stuck_pieces(campaign => '900', older_than => '0', younger_than => '100000 days');
SELECT replay_sync('by_drop', '-infinity');
CREATE TABLE folded AS SELECT * FROM pieces;
SELECT rebuild_pieces('{p,q,r}');
TABLE folded EXCEPT TABLE pieces;
TRUNCATE events, pieces, campaigns;
SELECT configure('keep_payload', 'off');
SELECT count(ingest(event)) FROM (SELECT event FROM told ORDER BY place DESC) AS t;
SELECT rebuild_pieces('{p,q,r}');
SELECT piece_id, campaign_id, drop_id FROM folded EXCEPT SELECT piece_id, campaign_id, drop_id FROM pieces;
SELECT configure('keep_payload', NULL);
SELECT drop_sync('by_drop');
-- Without a mail id, a drop id and a data id identify the piece.
TRUNCATE events, pieces, campaigns;
SELECT ingest('{"event": "Mailed", "eventDate": "2026-10-06", "dropId": 900, "dataId": 31}');
SELECT piece_id, campaign_id, drop_id, contact_id FROM pieces;
-- A report by state takes one query.
SELECT ingest(json_agg(json_build_object('mailId', 's' || i, 'eventType', 11, 'eventDate', '2026-10-06', 'to', json_build_object('city', 'Portland', 'state', (ARRAY['ME', 'OR'])[1 + i % 2]))))
FROM generate_series(1, 5) AS i;
SELECT state, count(mailed_at) FROM pieces GROUP BY state ORDER BY 1;
-- City and state belong to the recipient, who is taken as a whole from the latest event.
SELECT ingest('[{"mailId": "s1", "eventType": 4, "eventDate": "2026-10-07", "to": {"firstName": "Ann", "city": "Bath"}}]');
SELECT first_name, city, state FROM pieces WHERE piece_id = 's1';

-- Values: ids by value, other ISO 8601 notations, and values that mean no expected date.
TRUNCATE events, pieces, campaigns;
SELECT ingest('[{"mailId": 48, "eventType": 4, "eventDate": "20261006T142109Z"},
                {"mailId": "48 ", "eventType": 4, "eventDate": "2026-10-06T14:21:09,000Z"},
                {"mailId": 48.0, "eventType": 4, "eventDate": "2026-10-06 14:21:09 UTC"},
                {"mailId": 4.8e1, "eventType": 4, "eventDate": "20261006 162109+0200", "expectedDeliveryDate": "N/A"},
                {"mailId": "\t48", "eventType": 4, "eventDate": "2026-10-06T142109gmt", "expectedDeliveryDate": "0000-00-00"}]');
SELECT piece_id, status_at, expected_delivery_at FROM pieces;
CREATE FUNCTION stamped(stamp text) RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN
	TRUNCATE events, pieces;
	PERFORM ingest(json_build_object('mailId', 1, 'eventType', 4, 'eventDate', stamp));
	RETURN (SELECT occurred_at FROM events);
END
$$;
SELECT stamp, stamped(stamp)
FROM unnest(ARRAY['20261006', '20261006T1421', '20261006T142109.487', '20261006T142109,5+0530', '2026-10-06T24:00:00Z', '20261231T240000Z', '2026-10-06T23:59:60Z',
                  '2026-10-06T24:00:01Z', '2026-10-06T24:00:00.5Z', '2026-10-06T12:30:60Z', '2026-10-06T23:59:61Z', '2026106', '20261306', '20261006T', '20261006T1',
                  '20261006T142', '2026-10-06T14:21:09 UTCX', '2026-10-06 UTC', '10/08/2026 11:03:27 PM UTC']) AS s (stamp);

-- Custom fields of flat shapes, by name and by prefix.
TRUNCATE events, pieces, rejects;
INSERT INTO field_names VALUES ('Ref No', 'fields.reference'), ('custom *', 'fields.*'), ('custom secret *', 'fields.*');
SELECT ingest('[{"Mail Id": 1, "Event Type": 4, "Event Date": "2026-10-06", "Ref No": "A1", "Custom Offer": "SPRING26", "custom_crm_person_id": 20931, "Custom Empty": "", "Custom Null": null,
                 "custom": 1, "CUSTOM-flag": true, "Custom Secret Code": "s", "custom email": "no field of the recipient"},
                {"mailId": 2, "eventType": 4, "eventDate": "2026-10-06", "custom": {"offer": "x", "deep": {"er": "caf\u00e9"}, "list": [1, 2]}, "meta": {"fields": {"offer": "own", "a": 1}}},
                {"mailId": 3, "eventType": 4, "eventDate": "2026-10-06", "fields": ["a list"], "Custom Offer": "lost"},
                {"mailId": 4, "eventType": 4, "eventDate": "2026-10-06", "Custom Caf\u00e9 \"q\"": "\u00fc"}]');
SELECT piece_id, fields FROM pieces ORDER BY 1;
SELECT ingest('{"mailId": 5, "eventType": 4, "eventDate": "2026-10-06", "Custom Bad": "a\u0000b"}');
SELECT reason FROM rejects;
SELECT rebuild_pieces('{1,2,3,4}');
SELECT piece_id, fields FROM pieces ORDER BY 1;
-- Rows that field_names refuses, and one that collects every member.
INSERT INTO field_names VALUES ('x *', 'mail_id');
INSERT INTO field_names VALUES ('x', 'fields.*');
INSERT INTO field_names VALUES ('x', 'fields.');
INSERT INTO field_names VALUES ('*', 'fields.*');
SELECT ingest('{"mailId": 6, "eventType": 4, "eventDate": "2026-10-06", "anything": 1, "retryAttempts": 2}');
SELECT fields FROM pieces WHERE piece_id = '6';
DELETE FROM field_names;

-- Statuses mapped by rows, and a list of pieces under a member, as Stannp sends them.
TRUNCATE events, pieces, rejects;
SELECT ingest('{"webhook_id": 42, "event": "mailpiece_status", "created": "2026-10-07 08:00:00", "retries": 0,
                "mailpieces": [{"id": 98765, "status": "dispatched", "dispatched": "2026-10-06 08:00:00"}, {"id": 98766, "status": "delivered", "dispatched": "2026-10-06 08:00:00"},
                               {"id": 98767, "status": "test", "dispatched": "2026-10-06 08:00:00"}, {"id": 98768, "status": "lost", "dispatched": "2026-10-06 08:00:00"}]}');
SELECT reason FROM rejects;
INSERT INTO field_names VALUES ('mailpieces', 'events'), ('id', 'mail_id'), ('status', 'event_type'), ('dispatched', 'event_date');
INSERT INTO status_names VALUES ('Dispatched', 'Mailed'), ('delivered', 'ProcessedForDelivery'), ('test', 'ignore');
SELECT retry_rejects();
SELECT piece_id, status, status_at FROM pieces ORDER BY 1;
SELECT reason FROM rejects;
-- Events that are ignored are neither stored nor rejected, even if they have other errors.
-- A wrapper that contains only such events is not an event.
TRUNCATE rejects;
SELECT ingest('[{"status": "TEST"}, {"mailpieces": [{"id": 1, "status": "test"}]}, {"event": "x", "event_date": "2026-10-06", "mailpieces": [{"status": "test"}]}]');
SELECT count(*) FROM rejects;
-- Rows take precedence over everything, including feed codes.  Invalid rows are refused.
INSERT INTO status_names VALUES ('4', 'Printed'), ('13', 'Mailed');
SELECT ingest('[{"mailId": "c4", "eventType": 4, "eventDate": "2026-10-06"}, {"mailId": "c13", "eventType": "13", "eventDate": "2026-10-06"}]');
SELECT piece_id, status FROM pieces WHERE piece_id LIKE 'c%' ORDER BY 1;
INSERT INTO status_names VALUES ('x', 'Delivered');
INSERT INTO status_names VALUES (' . ', 'Mailed');
DELETE FROM field_names;
DELETE FROM status_names;
SELECT ingest('{"mailId": "c5", "eventType": 13, "eventDate": "2026-10-06"}');

-- Production errors: pieces that were never made.  They change no journey, and are not rejects.
TRUNCATE events, pieces, rejects, campaigns, deliveries;
SELECT name FROM create_sync('errors', errors => true, statuses => '{}', campaigns => '{77120}');
SELECT name FROM create_sync('all', errors => true, latest_only => true);
SELECT name FROM create_sync('events', unless => '{Mailed}');
CREATE TABLE failed (event json);
INSERT INTO failed
VALUES ('{"mailId": "f1", "eventType": "Error", "eventDate": "2026-10-01", "campaignId": 77120, "contactId": 31, "to": {"email": "ann@example.com", "errorCode": "A1", "errorDescription": "No such\u0020street"}}'),
       ('{"mailId": "f1", "eventType": "error ", "eventDate": "2026-10-01"}'),
       ('{"mailId": "f1", "event": "None", "eventDate": "2026-10-02", "campaignId": 77120}'),
       ('{"mailId": "f2", "event": "Mailed", "eventDate": "2026-10-02", "campaignId": 77120}'),
       ('{"mailId": "f2", "event": "none", "eventDate": "2026-10-03", "campaignId": 77120, "errorCode": 7}'),
       ('{"event": "Error", "eventDate": "2026-10-03", "dropId": 900, "dataId": 32}'),
       ('{"event": "Error", "eventDate": "2026-10-03"}'),
       ('{"mailId": "f3", "event": "Error", "eventDate": "9999-01-01"}');
SELECT * FROM ingest((SELECT json_agg(event) FROM failed));
SELECT * FROM ingest((SELECT json_agg(event) FROM failed WHERE event ->> 'mailId' LIKE 'f_'));
SELECT piece_id, account, status, occurred_at, campaign_id, drop_id, contact_id, code, description, payload IS NOT NULL AS payload FROM production_errors ORDER BY 1, 3, 4;
SELECT reason FROM rejects ORDER BY 1;
SELECT piece_id, status FROM pieces;
-- The same through inbox.
TRUNCATE production_errors, deliveries;
INSERT INTO inbox (payload) SELECT event FROM failed WHERE event ->> 'mailId' IN ('f1', 'f2');
SELECT count(*) FROM production_errors;
-- The funnel counts a campaign's production errors, even if none of its pieces was made.
SELECT ingest('{"event": "Error", "eventDate": "2026-10-03", "dropId": 900, "dataId": 32}');
SELECT campaign_id, pieces, mailed, failed, mailed_rate, last_event_at FROM campaign_funnel ORDER BY 1;
SELECT campaign_id, failed FROM campaign_funnel WHERE campaign_id = '900';
SELECT campaign, pieces, responded FROM campaign_progress;
-- Syncs that request production errors.
SELECT sync, piece_id, status, occurred_at FROM deliveries ORDER BY sync, piece_id, occurred_at;
SELECT piece_id, status, label, campaign_id, contact_id, payload ->> 'eventDate' AS event_date FROM postalytics.fetch('errors');
SELECT nack('errors', array_agg(delivery_id), 'no', dead => true) FROM deliveries WHERE sync = 'errors' AND state = 'leased';
SELECT piece_id, campaign_id, drop_id, status, last_error FROM dead_letters;
SELECT redrive('errors', campaigns => '{77120}'), discard('errors', 'none'), replay_sync('errors', '-infinity');
SELECT count(*) FROM deliveries_unfinished WHERE sync = 'errors';
-- With latest_only, production errors neither supersede an event nor are superseded.
CREATE FUNCTION work(sync text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	ids bigint[];
	names text[];
BEGIN
	LOOP
		SELECT array_agg(f.delivery_id), array_agg(concat_ws(' ', f.piece_id, f.label)) INTO ids, names FROM postalytics.fetch(sync, 100, '1 hour') AS f;
		EXIT WHEN ids IS NULL;
		RETURN NEXT names;
		PERFORM ack(sync, ids);
	END LOOP;
END
$$;
SELECT * FROM work('all');
SELECT * FROM work('events');
SELECT state, count(*) FROM deliveries WHERE sync IN ('all', 'events') GROUP BY 1 ORDER BY 1;
SELECT replay_sync('all', '-infinity');
SELECT test_sync('errors') IS NOT NULL AS test;
SELECT drop_sync(name) FROM syncs ORDER BY name;
SELECT create_sync('nothing', statuses => '{}');
-- Another spelling, mapped by a row.
INSERT INTO status_names VALUES ('letter.failed', 'Error'), ('letter.rejected', 'None');
SELECT ingest('[{"mailId": "f9", "event": "letter.failed", "eventDate": "2026-10-01"}, {"mailId": "f9", "event": "letter.rejected", "eventDate": "2026-10-01"}]');
SELECT status FROM production_errors WHERE piece_id = 'f9' ORDER BY 1;
-- Erase a person, drop a campaign, and rename an account.
SELECT * FROM forget(email => 'ann@example.com', anonymise => true) WHERE affected > 0;
SELECT piece_id, contact_id, description, payload FROM production_errors WHERE code = 'A1';
SELECT * FROM forget(contact_id => '32') WHERE affected > 0;
SELECT count(*) FROM production_errors WHERE contact_id = '32';
SELECT ingest('{"mailId": "f9", "event": "Error", "eventDate": "2026-10-01"}', 'acme');
SELECT move_account('', 'acme');
SELECT account, count(*) FROM production_errors GROUP BY 1;
SELECT drop_campaign('77120', 'acme');
SELECT piece_id FROM production_errors ORDER BY 1;
SELECT configure('piece_retention', '1 day');
SELECT count(*) FROM maintain();
SELECT count(*) FROM production_errors;
DROP TABLE failed;
DROP FUNCTION work;

-- A repeated event adds what its first copy lacked, and changes nothing else.
TRUNCATE events, pieces, rejects, campaigns, deliveries, production_errors, told, folded;
SELECT configure('piece_retention', NULL);
SELECT name FROM create_sync('each');
INSERT INTO told
VALUES (1, '{"mailId": "t", "eventType": 7, "eventDate": "2026-10-06", "meta": {"dropId": 900}}'),
       (2, '{"mailId": "t", "eventType": 7, "eventDate": "2026-10-06", "to": {"id": 31, "firstName": "Ann", "city": "Bath"}, "meta": {"campaignId": 77120, "campaignName": "Spring"}}'),
       (3, '{"mailId": "t", "eventType": 7, "eventDate": "2026-10-06", "to": {"firstName": "Bob", "lastName": "\u00fc\"", "country": "US", "zip": "04101"}, "retryAttempts": 2}'),
       (4, '{"mailId": "t", "eventType": 7, "eventDate": "2026-10-06", "expectedDeliveryDate": "2026-10-09T00:00:00Z", "metadata": "https://x.example", "meta": {"fields": {"offer": 1}, "dropId": 901}}'),
       (5, '{"mailId": "u", "eventType": 4, "eventDate": "2026-10-07", "to": {"lastName": "before"}}'),
       (6, '{"mailId": "u", "eventType": 11, "eventDate": "2026-10-06"}'),
       (7, '{"mailId": "u", "eventType": 11, "eventDate": "2026-10-06", "to": {"lastName": "older", "country": "CA"}}');
SELECT place, ingest(event) FROM told ORDER BY place;
SELECT piece_id, campaign_id, drop_id, contact_id, first_name, last_name, city, country, zip, fields, last_url, expected_delivery_at, opens FROM pieces ORDER BY 1;
SELECT piece_id, status, campaign_id, drop_id FROM events ORDER BY 1, 2;
SELECT payload FROM events WHERE piece_id = 't';
SELECT piece_id, status, count(*) FROM deliveries GROUP BY 1, 2 ORDER BY 1, 2;
SELECT campaign_id, name FROM campaigns ORDER BY 1;
-- A rebuild has the same result.
INSERT INTO folded SELECT * FROM pieces;
SELECT rebuild_pieces('{t,u}');
TABLE folded EXCEPT TABLE pieces;
-- An exact repetition writes nothing.
CREATE TABLE versions AS SELECT 'events' AS relation, e.ctid AS place FROM events AS e UNION ALL SELECT 'pieces', p.ctid FROM pieces AS p;
SELECT ingest((SELECT json_agg(event) FROM told));
SELECT v.* FROM versions AS v EXCEPT (SELECT 'events', e.ctid FROM events AS e UNION ALL SELECT 'pieces', p.ctid FROM pieces AS p);
-- The result is the same in one call and through inbox.  Where only a query may write to
-- events, as with a trigger, nothing is added.
TRUNCATE events, pieces, campaigns, deliveries;
SELECT ingest((SELECT json_agg(event ORDER BY place) FROM told));
TABLE folded EXCEPT TABLE pieces;
TRUNCATE events, pieces, campaigns, deliveries;
INSERT INTO inbox (payload) SELECT event FROM told ORDER BY place;
TABLE folded EXCEPT TABLE pieces;
TRUNCATE events, pieces, campaigns, deliveries;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
CREATE TRIGGER nothing BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT place, ingest(event) FROM told ORDER BY place;
SELECT piece_id, campaign_id, drop_id, contact_id, country FROM pieces ORDER BY 1;
DROP TRIGGER nothing ON events;
-- Where copies of an event differ, the first one counts, so the result depends on their order.
TRUNCATE events, pieces, campaigns, deliveries;
SELECT place, ingest(event) FROM told ORDER BY place DESC;
SELECT piece_id, campaign_id, drop_id, contact_id, first_name, last_name, city, country, zip, fields, last_url, expected_delivery_at, opens FROM pieces ORDER BY 1;
DELETE FROM folded;
INSERT INTO folded SELECT * FROM pieces;
SELECT rebuild_pieces('{t,u}');
TABLE folded EXCEPT TABLE pieces;
-- Collected fields are added, too.
INSERT INTO field_names VALUES ('custom *', 'fields.*');
SELECT ingest('{"mailId": "u", "eventType": 11, "eventDate": "2026-10-06", "Custom Offer": "x"}');
SELECT fields FROM pieces WHERE piece_id = 'u';
DELETE FROM field_names;
SELECT rebuild_pieces('{u}');
SELECT fields FROM pieces WHERE piece_id = 'u';
-- Values keep the meaning they had on arrival, even if rows of field_names have changed, and
-- no member is added that would now be read as something else.
TRUNCATE events, pieces, campaigns, deliveries;
INSERT INTO field_names VALUES ('job', 'campaign_id');
SELECT ingest('{"mailId": "w", "eventType": 4, "eventDate": "2026-10-06", "job": "J1"}');
DELETE FROM field_names;
INSERT INTO field_names VALUES ('first_name', 'company'), ('zip', 'contact_id');
SELECT ingest('{"mailId": "w", "eventType": 4, "eventDate": "2026-10-06", "to": {"firstName": "Ann", "country": "US"}}');
SELECT ingest('{"mailId": "w", "eventType": 4, "eventDate": "2026-10-06", "to": {"country": "US"}}');
SELECT ingest('{"mailId": "w", "eventType": 4, "eventDate": "2026-10-06", "to": {"zip": "04101"}}');
DELETE FROM field_names;
SELECT campaign_id, payload FROM events;
SELECT campaign_id, first_name, company, country, contact_id FROM pieces;
-- A date that means none, an empty payload, and a campaign id equal to the drop id.
TRUNCATE events, pieces, campaigns, deliveries;
SELECT ingest('{"mailId": "v", "eventType": 4, "eventDate": "2026-10-06", "expectedDeliveryDate": "0001-01-01T00:00:00", "campaignId": 5, "dropId": 5}');
SELECT ingest('{"mailId": "v", "eventType": 4, "eventDate": "2026-10-06", "expectedDeliveryDate": "2026-10-09", "campaignId": 6, "campaignName": "six", "country": "US"}');
INSERT INTO events (piece_id, status, occurred_at, payload) VALUES ('y', 'Mailed', '2026-10-06', '{ }');
SELECT ingest('{"mailId": "y", "eventType": 11, "eventDate": "2026-10-06", "country": "US"}');
SELECT payload FROM events WHERE piece_id = 'y';
SELECT piece_id, campaign_id, drop_id, country, expected_delivery_at FROM pieces ORDER BY 1;
SELECT campaign_id, name FROM campaigns;
DELETE FROM folded;
INSERT INTO folded SELECT * FROM pieces;
SELECT rebuild_pieces('{v,y}');
TABLE folded EXCEPT TABLE pieces;
SELECT ingest('{"mailId": "u", "eventType": 11, "eventDate": "2026-10-06"}');
-- A repeated event does not restore a person who was erased.
SELECT affected FROM forget(piece_id => 'u', anonymise => true) WHERE relation = 'postalytics.pieces';
SELECT ingest(event) FROM told WHERE place = 7;
SELECT last_name, country FROM pieces WHERE piece_id = 'u';
SELECT drop_sync('each');
DROP TABLE versions;
DROP FUNCTION nothing;

-- A member of a section is never a list of events, and a list is never a section.  So the
-- order of members does not matter, and a rebuild has the same result.
TRUNCATE events, pieces, rejects, campaigns;
INSERT INTO field_names VALUES ('*', 'fields.*');
SELECT ingest('[{"_": {"data": [{"\u00e9": 1}], "x": 5}, "mailId": "m1", "eventDate": "2026-10-06", "eventType": 11},
                {"data": {"id": "C9"}, "mailId": "m2", "eventDate": "2026-10-06", "eventType": 11, "campaignId": "K"},
                {"mailId": "m3", "data": {"id": "C9"}, "eventDate": "2026-10-06", "eventType": 11, "campaignId": "K"}]');
SELECT piece_id, contact_id, fields FROM pieces ORDER BY 1;
INSERT INTO status_names VALUES ('email opened', 'ignore');
SELECT ingest('{"eventType": "Mailed", "eventDate": "2026-10-06", "data": {"type": "Email Opened"}}');
CREATE TABLE before AS SELECT * FROM pieces;
SELECT rebuild_pieces('{m1,m2,m3}');
TABLE before EXCEPT TABLE pieces;
DROP TABLE before;
DELETE FROM field_names;
DELETE FROM status_names;
-- A campaign can be dropped even if it has only production errors, and is dropped as a whole.
TRUNCATE events, pieces, rejects, campaigns;
SELECT name FROM create_sync('errors', errors => true);
SELECT ingest('[{"mailId": "x1", "event": "Error", "eventDate": "2026-10-03", "campaignId": "KE", "campaignName": "Only errors"},
                {"mailId": "x2", "event": "Error", "eventDate": "2026-10-03", "campaignId": "KM"},
                {"mailId": "x3", "event": "Mailed", "eventDate": "2026-10-03", "campaignId": "KM", "dropId": "D1"},
                {"mailId": "x3", "event": "Printed", "eventDate": "2026-10-02", "dropId": "D1"}]');
SELECT campaign_id, campaign_name, failed FROM campaign_funnel ORDER BY 1;
SELECT drop_campaign('KE'), drop_campaign('KM');
SELECT (SELECT count(*) FROM production_errors) AS errors, (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM pieces) AS pieces, (SELECT count(*) FROM deliveries) AS deliveries;
-- A production error that has an unfinished delivery is kept.
SELECT ingest('{"mailId": "x4", "event": "Error", "eventDate": "2026-10-03", "errorDescription": "cannot mail to ann@example.com"}', a) FROM unnest('{one,two}'::text[]) AS a;
SELECT configure('piece_retention', '1 day');
SELECT count(*) FROM maintain();
SELECT account, label, payload IS NOT NULL AS payload FROM postalytics.fetch('errors', 1);
SELECT configure('piece_retention', NULL);
-- If both accounts have the same production error, it is delivered once.
SELECT move_account('one', 'two');
SELECT account, count(*) FROM deliveries GROUP BY 1;
UPDATE production_errors SET payload = NULL;
SELECT affected FROM forget(email => 'ann@example.com') WHERE relation LIKE '%errors';
SELECT drop_sync('errors');

DROP TABLE spelling, told, folded;
DROP FUNCTION usual, value_of, in_shape, read_back, stamped;
DROP EXTENSION postalytics_status CASCADE;
