-- Limits on what one call may create, and retention.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SET timezone = 'UTC';
SELECT configure('earliest', '100 years');
CREATE FUNCTION event(piece text, month int, more text DEFAULT '') RETURNS text LANGUAGE sql
RETURN format('{"mailId": "%s", "eventType": 4, "eventDate": "%s-%s-05"%s}', piece, 2000 + month / 12, to_char(month % 12 + 1, 'FM00'), more);

-- Invalid values.
SELECT configure('max_months', '0');
SELECT configure('max_call_size', '5 furlongs');
SELECT configure('max_call_size', '2GB');
SELECT configure('max_fields_size', '100');
SELECT configure('max_rejects', '-1');
SELECT configure('piece_retention', '90');
SELECT configure('piece_retention_action', 'drop');
SELECT configure('restore_tested', '2026- 1-06');
SELECT configure('restore_tested', '2026-02-29');
SELECT name, value, allowed FROM settings WHERE name LIKE 'max\_%' OR name LIKE '%\_retention%' ORDER BY 1;

-- One call creates a limited number of months, the latest first.  The next call continues.
SELECT configure('max_new_months', '3');
SELECT ingest(format('[%s]', (SELECT string_agg(event('m', i), ',') FROM generate_series(0, 5) AS i))::json);
SELECT to_char(occurred_at, 'YYYY-MM') FROM events ORDER BY 1;
SELECT left(payload ->> 'eventDate', 7) AS month, reason FROM rejects ORDER BY 1;
SELECT retry_rejects();
SELECT count(*) FROM events;
INSERT INTO inbox (payload) SELECT event('i', i)::json FROM generate_series(20, 25) AS i;
SELECT count(*) FROM events WHERE piece_id = 'i';
-- Existing months do not count.
SELECT ingest(format('[%s]', (SELECT string_agg(event('n', i), ',') FROM generate_series(0, 5) AS i))::json);

-- The total number of months is limited, too, also for managers.
TRUNCATE rejects;
SELECT configure('max_months', '11'), configure('max_new_months', NULL);
SELECT ingest(format('[%s]', (SELECT string_agg(event('a', i), ',') FROM generate_series(40, 45) AS i))::json);
SELECT count(*), reason FROM rejects GROUP BY 2;
SELECT ensure_partitions('2010-01-01', '2010-02-01');
SELECT action, relation, detail FROM maintain() WHERE action = 'failed';
SELECT count(*) FROM leaves('deliveries');
SELECT configure('max_months', NULL);
SELECT ensure_partitions('2010-01-01', '2010-02-01');

-- The size of a call, and of a row of inbox, is limited.
TRUNCATE events, rejects;
SELECT configure('max_call_size', '1kB');
SELECT ingest(event('big', 0, format(', "x": "%s"', repeat('x', 1000)))::json);
INSERT INTO inbox (mail_id, event_type, event_date, url) VALUES ('big', '7', '2000-01-05', repeat('x', 1000));
INSERT INTO inbox (mail_id, event_type, event_date, url) SELECT i, '7', '2000-01-05', repeat('x', 800) FROM generate_series(1, 3) AS i;
SELECT count(*) FROM events;
SELECT configure('max_call_size', NULL);

-- The size of fields is limited.
SELECT configure('max_fields_size', '1kB');
SELECT ingest(event('fields', 0, format(', "fields": {"x": "%s"}', repeat('x', 1016)))::json),
	   ingest(event('fields', 1, format(', "fields": {"x": "%s"}', repeat('x', 1017)))::json);
SELECT reason FROM rejects;
SELECT configure('max_fields_size', NULL);
-- Accepted fields are kept when the limit is lowered later.
SELECT ingest(event('fields', 1, format(', "fields": {"x": "%s"}', repeat('x', 1017)))::json);
SELECT configure('max_fields_size', '1kB');
SELECT rebuild_pieces('{fields}');
SELECT length(fields ->> 'x') FROM pieces WHERE piece_id = 'fields';
SELECT configure('max_fields_size', NULL);

-- The number of campaigns of a call is limited, over all accounts.
TRUNCATE events, rejects;
SELECT configure('max_campaigns', '2');
SELECT ingest(format('[%s]', (SELECT string_agg(event('c' || i, 0, format(', "campaignId": %s', i % 3)), ',') FROM generate_series(0, 8) AS i))::json);
SELECT campaign_id, count(*) FROM events GROUP BY 1 ORDER BY 1;
SELECT count(*), reason FROM rejects GROUP BY 2;
SELECT retry_rejects();
INSERT INTO inbox (account, payload) SELECT i, event('c', 0, ', "campaignId": 1')::json FROM generate_series(1, 3) AS i;
SELECT account, reason FROM rejects;
SELECT configure('max_campaigns', NULL);

-- If a call has more rejects than the limit, its payload is stored once as one reject.
TRUNCATE events, rejects;
SELECT configure('max_rejects', '3');
SELECT ingest(format('[%s, 1, 2, 3]', event('good', 0))::json);
SELECT reason, payload FROM rejects ORDER BY reject_id;
TRUNCATE rejects;
SELECT ingest(format('[%s, 1, 2, 3, 4]', event('better', 0))::json);
SELECT reason, payload FROM rejects ORDER BY reject_id;
-- A statement on inbox stores the excess as one reject for each account, and loses nothing.
TRUNCATE rejects;
INSERT INTO inbox (mail_id, account) SELECT i, 'account ' || i % 2 FROM generate_series(1, 9) AS i;
SELECT account, piece_id, reason, payload FROM rejects ORDER BY reject_id;
INSERT INTO field_names VALUES ('ref', 'event_date');
TRUNCATE rejects;
INSERT INTO inbox (account, payload)
SELECT 'account ' || i % 2, json_build_object('mailId', i, 'eventType', 4, 'ref', '2000-01-0' || i) FROM generate_series(1, 9) AS i;
SELECT account, count(*) FROM events GROUP BY 1 ORDER BY 1;
DELETE FROM field_names WHERE path = 'ref';
INSERT INTO inbox (account, payload)
SELECT 'account ' || i % 2, json_build_object('mailId', 'r' || i, 'eventType', 4, 'ref', '2000-01-0' || i) FROM generate_series(1, 9) AS i;
SELECT account, piece_id, reason FROM rejects ORDER BY reject_id;
INSERT INTO field_names VALUES ('ref', 'event_date');
SELECT retry_rejects();
SELECT account, count(*) FROM events WHERE piece_id LIKE 'r%' GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM rejects;
-- Events whose month cannot be created are included.
SELECT configure('max_new_months', '1'), configure('max_rejects', '2');
INSERT INTO inbox (payload) SELECT event('many', 60 + i)::json FROM generate_series(1, 9) AS i;
SELECT substring(reason FROM '^.*does not exist') AS reason, json_typeof(payload) FROM rejects ORDER BY reject_id;
TRUNCATE rejects;
SELECT configure('max_new_months', NULL), configure('max_rejects', '3');
-- A row that alone exceeds the limit is stored separately as a whole.
INSERT INTO inbox (payload) VALUES ('1'), ('[1, 2, 3, 4]'), ('2'), ('3'), ('4'), ('5');
SELECT reason, payload FROM rejects ORDER BY reject_id;
SELECT configure('max_rejects', NULL);

-- Old rejects and pieces are kept forever unless a retention is set.
UPDATE rejects SET received_at = now() - interval '91 days' WHERE payload::text = '1';
SELECT count(*) FROM maintain() WHERE relation IN ('postalytics.rejects', 'postalytics.pieces');
SELECT configure('reject_retention', '90 days');
SELECT action, relation, detail FROM maintain() WHERE relation = 'postalytics.rejects';
SELECT count(*) FROM rejects;

TRUNCATE events, pieces;
SELECT create_sync('crm', statuses => '{Returned To Sender}');
SELECT ingest('[{"mailId": "old", "eventType": 4, "eventDate": "2001-01-05", "campaignId": "c", "to": {"id": 5, "firstName": "Ann", "country": "US"}},
	{"mailId": "old", "eventType": 7, "eventDate": "2001-01-06", "campaignId": "c", "url": "https://ann.example/"},
	{"mailId": "owed", "eventType": 3, "eventDate": "2001-01-05", "campaignId": "c", "to": {"firstName": "Bob"}}]');
SELECT ingest(json_build_object('mailId', 'new', 'eventType', 4, 'eventDate', now(), 'campaignId', 'c', 'to', '{"firstName": "Cy"}'::json));
SELECT configure('piece_retention', '2 years');
SELECT action, relation, detail FROM maintain() WHERE relation = 'postalytics.pieces';
SELECT piece_id, status, response, first_name, contact_id, country, last_url FROM pieces ORDER BY 1;
SELECT piece_id, status, campaign_id, payload IS NULL AS "no payload" FROM events ORDER BY piece_id, status;
-- A second run has nothing to do.
SELECT action, relation, detail FROM maintain() WHERE relation = 'postalytics.pieces';
-- A piece with an unfinished delivery is skipped.
SELECT ack('crm', array_agg(delivery_id)) FROM postalytics.fetch('crm');
SELECT action, relation, detail FROM maintain() WHERE relation = 'postalytics.pieces';
SELECT campaign_id, pieces, in_transit, purl_opened FROM campaign_funnel;
SELECT configure('piece_retention_action', 'delete');
SELECT action, relation, detail FROM maintain() WHERE relation = 'postalytics.pieces';
SELECT piece_id FROM pieces;
SELECT DISTINCT piece_id FROM events;
SELECT count(*) FROM deliveries;

-- A piece that cannot be deleted does not prevent others from being deleted, and is reported.
SELECT ingest(json_agg(json_build_object('mailId', 'ref ' || i, 'eventType', 11, 'eventDate', '2001-01-05'))) FROM generate_series(1, 9) AS i;
SELECT ack('crm', array_agg(delivery_id)) FROM postalytics.fetch('crm');
CREATE TABLE note (piece_id text, account text DEFAULT '', FOREIGN KEY (piece_id, account) REFERENCES pieces);
INSERT INTO note VALUES ('ref 3'), ('ref 7');
SELECT action, relation, detail FROM maintain() WHERE relation = 'postalytics.pieces';
SELECT piece_id FROM pieces WHERE piece_id LIKE 'ref%' ORDER BY 1;
DROP TABLE note;
-- A piece that has a dead delivery is not deleted either.
SELECT configure('piece_retention', NULL);
SELECT ingest('{"mailId": "dead", "eventType": 3, "eventDate": "2001-01-05", "to": {"firstName": "Dee"}}');
SELECT nack('crm', array_agg(delivery_id), 'no', dead => true) FROM postalytics.fetch('crm');
SELECT configure('piece_retention', '1 year');
SELECT action, relation, detail FROM maintain() WHERE relation = 'postalytics.pieces';
SELECT piece_id, first_name FROM pieces WHERE piece_id ~ 'ref|dead';
-- Payloads are removed even if no known field contains personal data.
SELECT configure('piece_retention_action', NULL), drop_sync('crm');
SELECT ingest('{"mailId": "street", "eventType": 11, "eventDate": "2001-01-05", "to": {"address": "12 Larch Street"}}');
SELECT action, relation, detail FROM maintain() WHERE relation = 'postalytics.pieces';
SELECT payload FROM events WHERE piece_id = 'street';
SELECT action, relation, detail FROM maintain() WHERE relation = 'postalytics.pieces';

-- The audit log has a separate retention, which only the owner can change.
CREATE ROLE regress_manager;
SELECT grant_manage('regress_manager');
SET SESSION AUTHORIZATION regress_manager;
SELECT configure('audit_retention', '1 day');
SELECT configure('max_rejects', '5');
RESET SESSION AUTHORIZATION;
SELECT configure('max_rejects', NULL), revoke_manage('regress_manager');
SELECT login, action, object, detail FROM audit_log WHERE login = 'regress_manager';
DROP ROLE regress_manager;
UPDATE audit_log SET at = now() - interval '366 days' WHERE object = 'max_months';
SELECT count(*) FROM maintain();
SELECT login = session_user AS login, role, action, object, detail FROM audit_log WHERE object !~ '^max_' ORDER BY at;
DROP EXTENSION postalytics_status CASCADE;
