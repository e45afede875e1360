-- With Citus, whose catalog is imitated here: the extension does not write to any of
-- its tables that is distributed.
\set SHOW_CONTEXT never
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SELECT postalytics.configure('latest', '36500d');
SELECT name FROM create_sync('s');
SELECT ingest('{"mailId": 1, "eventType": 4, "eventDate": "2026-10-06"}');
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char");
CREATE TABLE other (a int);
INSERT INTO pg_dist_partition VALUES ('other', 'h');
SELECT ingest('{"mailId": 2, "eventType": 4, "eventDate": "2026-10-06"}');

CREATE PROCEDURE distribute(relation regclass) LANGUAGE sql
AS $$ DELETE FROM pg_dist_partition; INSERT INTO pg_dist_partition VALUES (relation, 'h') $$;
CALL distribute('pieces');
SELECT ingest('{"mailId": 3, "eventType": 4, "eventDate": "2026-10-06"}');
SELECT ingest('[]');
INSERT INTO events (piece_id, status, occurred_at) VALUES ('3', 'InTransit', '2026-10-06');
INSERT INTO inbox (mail_id, event_type, event_date) VALUES ('3', '4', '2026-10-06');
CALL distribute('events');
SELECT ingest('{"mailId": 3, "eventType": 4, "eventDate": "2026-10-06"}');
INSERT INTO events (piece_id, status, occurred_at) VALUES ('3', 'InTransit', '2026-10-06');
CALL distribute('campaigns');
SELECT ingest('{"mailId": 3, "eventType": 4, "eventDate": "2026-10-06", "campaignId": 1}');
CALL distribute('rejects');
SELECT ingest('{"mailId": 3}');
CALL distribute('deliveries_unfinished');
SELECT ingest('{"mailId": 3, "eventType": 4, "eventDate": "2026-10-06"}');
SELECT postalytics.fetch('s');
SELECT ack('s', '{1}');
SELECT nack('s', '{1}', 'no');
SELECT replay_sync('s', '2026-10-01');
SELECT test_sync('s');
SELECT create_sync('t');
SELECT drop_sync('s');
SELECT maintain();
SELECT retry_rejects();
CALL distribute('pieces');
SELECT drop_campaign('1');
SELECT piece_id FROM pieces ORDER BY 1;

-- The trigger function works only on table events.
CREATE TABLE shard (LIKE events);
CREATE TRIGGER events_inserted
AFTER INSERT ON shard
REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.events_inserted();
INSERT INTO shard SELECT * FROM events LIMIT 1;

DROP TABLE pg_catalog.pg_dist_partition, other, shard;
DROP PROCEDURE distribute;
SET client_min_messages = warning;
DROP EXTENSION postalytics_status CASCADE;
