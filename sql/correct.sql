-- Corrections: deriving pieces again, and retracting events.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SET timezone = 'UTC';
CREATE VIEW state AS
SELECT piece_id, account, status, status_at, response, opens, contact_id, first_name, campaign_id, first_event_at, last_event_at FROM pieces;
SELECT create_sync('crm'), create_sync('fast', statuses => '{Mailed}');
SELECT ingest('[
	{"mailId": "p", "eventType": 10, "eventDate": "2026-10-01", "campaignId": "c", "campaignName": "Autumn", "to": {"id": 48, "firstName": "Ann"}},
	{"mailId": "p", "eventType": 11, "eventDate": "2026-10-03"},
	{"mailId": "p", "eventType": 3, "eventDate": "2026-10-09", "to": {"id": 49, "firstName": "Bob"}},
	{"mailId": "p", "eventType": 7, "eventDate": "2026-10-05"},
	{"mailId": "p", "eventType": 7, "eventDate": "2026-10-06"},
	{"mailId": "q", "eventType": 11, "eventDate": "2026-10-03", "campaignId": "c", "campaignName": "Spring"}]');
SELECT * FROM state ORDER BY 1;

-- Retracting an event deletes its deliveries, waiting or leased.
SELECT piece_id, status FROM postalytics.fetch('crm', batch => 1);
SELECT * FROM retract_event('p', 'Printed', '2026-10-01');
SELECT * FROM state WHERE piece_id = 'p';
SELECT * FROM campaigns;
-- A delivery that is done is reported, because the CRM has already received it.
SELECT ack('fast', array_agg(delivery_id)) FROM postalytics.fetch('fast');
SELECT sync, state, deleted FROM retract_event('p', 'Mailed', '2026-10-03 02:00+02');
SELECT sync, state FROM deliveries WHERE piece_id = 'p' AND status = 'Mailed';
-- Retract a return, a visit, and then the last event.
SELECT deleted FROM retract_event('p', 'ReturnedToSender', '2026-10-09');
SELECT * FROM state WHERE piece_id = 'p';
SELECT deleted FROM retract_event('p', 'pURLOpened', '2026-10-06');
SELECT * FROM state WHERE piece_id = 'p';
SELECT deleted FROM retract_event('p', 'pURLOpened', '2026-10-05');
SELECT * FROM state WHERE piece_id = 'p';
-- A retracted event can arrive again.
SELECT ingest('{"mailId": "p", "eventType": 7, "eventDate": "2026-10-05"}');
SELECT * FROM state WHERE piece_id = 'p';
-- The campaign's name comes from the remaining events, and is removed with the last of them.
SELECT ingest('{"mailId": "r", "eventType": 11, "eventDate": "2026-10-04", "campaignId": "c", "campaignName": "Winter"}');
SELECT name, named_on FROM campaigns;
SELECT deleted FROM retract_event('r', 'Mailed', '2026-10-04');
SELECT name, named_on FROM campaigns;
SELECT deleted FROM retract_event('q', 'Mailed', '2026-10-03');
SELECT name, named_on FROM campaigns;

-- Errors.
SELECT retract_event('p', 'Mailed', '2026-10-03');
SELECT retract_event('nothing', 'Mailed', '2026-10-03');
SELECT retract_event(NULL, NULL, NULL);
SELECT ingest('{"mailId": "p", "eventType": 7, "eventDate": "2026-10-05"}', 'acme');
SELECT retract_event('p', 'pURLOpened', '2026-10-05');
SELECT rebuild_pieces('{p}');
SELECT deleted FROM retract_event('p', 'pURLOpened', '2026-10-05', 'acme');
SELECT rebuild_pieces(NULL);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT rebuild_pieces('{p}');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT retract_event('p', 'pURLOpened', '2026-10-05');
ROLLBACK;

-- Times are truncated to whole seconds.
SELECT configure('event_precision', 'second');
SELECT ingest('{"mailId": "s", "eventType": 11, "eventDate": "2026-10-03T01:02:03.456Z"}');
SELECT deleted FROM retract_event('s', 'Mailed', '2026-10-03 01:02:03.456');
SELECT configure('event_precision', NULL);

-- A piece is derived from the remaining events after events are deleted or changed by hand.
TRUNCATE events, pieces, campaigns, deliveries;
SELECT ingest('[
	{"mailId": "p", "eventType": 10, "eventDate": "2026-10-01", "campaignId": "c", "to": {"id": 48, "firstName": "Ann"}},
	{"mailId": "p", "eventType": 7, "eventDate": "2026-10-05"}, {"mailId": "p", "eventType": 7, "eventDate": "2026-10-06"},
	{"mailId": "q", "eventType": 11, "eventDate": "2026-10-03"}, {"mailId": "r", "eventType": 11, "eventDate": "2026-10-03"}]');
-- Users' tables may reference pieces, and users may have triggers on pieces.
CREATE TABLE note (piece_id text, account text DEFAULT '', FOREIGN KEY (piece_id, account) REFERENCES pieces ON DELETE CASCADE);
INSERT INTO note VALUES ('p'), ('q');
CREATE TABLE heard (piece_id text, action text, status mail_status, opens int);
CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	INSERT INTO public.heard SELECT COALESCE(new.piece_id, old.piece_id), tg_op, new.status, new.opens; RETURN NULL; END $$;
CREATE TRIGGER hear AFTER INSERT OR UPDATE OR DELETE ON pieces FOR EACH ROW EXECUTE FUNCTION hear();
DELETE FROM events WHERE status = 'pURLOpened' AND occurred_at = '2026-10-06';
DELETE FROM events WHERE piece_id = 'q';
UPDATE events SET occurred_at = '2026-10-02' WHERE piece_id = 'r';
SELECT rebuild_pieces('{r,p,q,nothing,NULL,p}');
SELECT * FROM state ORDER BY 1;
SELECT * FROM note;
SELECT * FROM heard ORDER BY 1;
DROP TRIGGER hear ON pieces;
-- Without a trigger, rows are not written by queries.  Users' columns keep their values.
ALTER TABLE pieces ADD COLUMN remark text;
UPDATE pieces SET remark = 'call him' WHERE piece_id = 'p';
UPDATE pieces SET opens = 99, status = NULL WHERE piece_id = 'p';
SELECT rebuild_pieces('{p}');
SELECT opens, status, remark FROM pieces WHERE piece_id = 'p';
ALTER TABLE pieces DROP COLUMN remark;
UPDATE pieces SET opens = 99, status = NULL WHERE piece_id = 'p';
SELECT rebuild_pieces('{p}');
SELECT opens, status FROM pieces WHERE piece_id = 'p';
-- A deleted row is restored.  Rebuilding twice has the same result.
DELETE FROM pieces WHERE piece_id = 'r';
SELECT rebuild_pieces('{r}'), rebuild_pieces('{r}');
SELECT * FROM state WHERE piece_id = 'r';
-- Many pieces are rebuilt in batches.
SELECT ingest(json_agg(json_build_object('mailId', 'm' || i, 'eventType', 11, 'eventDate', '2026-10-03'))) FROM generate_series(1, 2500) AS i;
UPDATE pieces SET status = 'Printed' WHERE piece_id LIKE 'm%';
SELECT rebuild_pieces(array_agg(piece_id ORDER BY random())) FROM pieces WHERE piece_id LIKE 'm%';
SELECT status, count(*) FROM pieces WHERE piece_id LIKE 'm%' GROUP BY 1;

-- A piece with events in a retired month is not rebuilt, so nothing is lost.
SELECT ingest('[{"mailId": "old", "eventType": 11, "eventDate": "2026-07-30"}, {"mailId": "old", "eventType": 7, "eventDate": "2026-10-02"},
	{"mailId": "old", "eventType": 4, "eventDate": "2026-08-03"}]');
ALTER TABLE events DETACH PARTITION events_2026_07;
SELECT rebuild_pieces('{p,old}');
SELECT retract_event('old', 'InTransit', '2026-08-03');
-- This holds for every month, even if the piece's row does not show the event.
ALTER TABLE events ATTACH PARTITION events_2026_07 FOR VALUES FROM ('2026-07-01') TO ('2026-08-01');
SELECT ingest('{"mailId": "old", "eventType": 7, "eventDate": "2026-09-30"}');
SELECT ingest('{"mailId": "old", "eventType": 7, "eventDate": "2026-08-30"}');
ALTER TABLE events DETACH PARTITION events_2026_09;
SELECT rebuild_pieces('{old}');
DROP TABLE events_2026_09;
SELECT rebuild_pieces('{old}');
-- It also holds if a late event has created the month again.
SELECT ingest('[{"mailId": "late", "eventType": 11, "eventDate": "2019-06-30", "to": {"firstName": "Moe"}}, {"mailId": "late", "eventType": 4, "eventDate": "2026-10-02"}]');
SELECT configure('retention', '6 years');
SELECT action, relation FROM maintain() WHERE relation LIKE '%events_2019_0%';
SELECT configure('retention', NULL);
SELECT ingest('{"mailId": "later", "eventType": 11, "eventDate": "2019-06-29"}');
SELECT rebuild_pieces('{late}');
SELECT retract_event('late', 'InTransit', '2026-10-02');
SELECT deleted FROM retract_event('later', 'Mailed', '2019-06-29');

-- Values from payloads that were not kept stay in the piece.
SELECT configure('keep_payload', 'off');
SELECT ingest('[{"mailId": "k", "eventType": 11, "eventDate": "2026-10-01", "campaignId": "k", "campaignName": "Kept", "to": {"firstName": "Kim", "country": "US"}},
	{"mailId": "k", "eventType": 3, "eventDate": "2026-10-02", "campaignId": "k"}]');
SELECT deleted FROM retract_event('k', 'ReturnedToSender', '2026-10-02');
SELECT status, first_name, country, campaign_id, (SELECT name FROM campaigns WHERE campaign_id = 'k') FROM pieces WHERE piece_id = 'k';
SELECT configure('keep_payload', NULL);
SELECT ingest('{"mailId": "k", "eventType": 4, "eventDate": "2026-10-03", "to": {"firstName": "Kit"}}');
SELECT deleted FROM retract_event('k', 'InTransit', '2026-10-03');
SELECT status, first_name, country FROM pieces WHERE piece_id = 'k';
-- They also stay if a query writes the rows.
CREATE TRIGGER hear AFTER INSERT OR UPDATE OR DELETE ON pieces FOR EACH ROW EXECUTE FUNCTION hear();
SELECT rebuild_pieces('{k}');
SELECT status, first_name, country FROM pieces WHERE piece_id = 'k';
DROP TRIGGER hear ON pieces;
-- A correction does not restore a recipient who was removed.
SELECT ingest('[{"mailId": "x", "eventType": 11, "eventDate": "2026-10-01", "to": {"firstName": "Xi", "country": "US"}}, {"mailId": "x", "eventType": 4, "eventDate": "2026-10-02"}]');
SELECT sum(affected) FROM forget(piece_id => 'x', anonymise => true);
SELECT deleted FROM retract_event('x', 'InTransit', '2026-10-02');
SELECT status, first_name, country FROM pieces WHERE piece_id = 'x';
-- A time stored before event_precision was set to whole seconds can be retracted.
SELECT ingest('{"mailId": "f", "eventType": 11, "eventDate": "2026-10-03T01:02:03.456Z"}');
SELECT configure('event_precision', 'second');
SELECT deleted FROM retract_event('f', 'Mailed', '2026-10-03 01:02:03.456');
SELECT configure('event_precision', NULL);
SELECT login = session_user AS login, action, object, account, detail FROM audit_log WHERE action NOT IN ('configure', 'forget') ORDER BY at;
DROP EXTENSION postalytics_status CASCADE;
