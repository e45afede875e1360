-- Pieces and campaigns are kept up to date regardless of how rows are inserted into events.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SET timezone = 'America/New_York';
SELECT postalytics.configure('earliest', '36500d');
SELECT postalytics.configure('latest', '36500d');

-- A plain INSERT requires that the month exists.  ingest creates it.
INSERT INTO events (piece_id, status, occurred_at) VALUES ('1', 'Mailed', '2026-09-30 23:59 UTC');
SELECT ensure_partitions('2026-09-30 23:59 UTC', '2026-10-01 00:00 UTC');
SELECT ensure_partitions('2026-09-01 UTC', '2026-12-01 UTC');
SELECT ensure_partitions('2026-09-01 UTC', '2026-12-01 UTC');
SELECT ensure_partitions('2026-09-01 UTC', '2026-09-01 UTC');
SELECT ensure_partitions('-infinity', '2026-09-01 UTC');
SELECT ensure_partitions('2026-09-01 UTC', 'infinity');
SELECT ensure_partitions(NULL, '2026-09-01 UTC');
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid)
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'events'::regclass
ORDER BY 1;

-- INSERT and COPY in any order, with duplicates within a statement and between statements.
INSERT INTO events (piece_id, status, occurred_at, account, campaign_id, payload)
VALUES ('b', 'InTransit', '2026-10-02 UTC', '', 'c1', '{"to": {"id": 7, "firstName": "Bea", "country": "US"}, "meta": {"campaignName": "One"}}'),
       ('a', 'pURLOpened', '2026-10-05 UTC', '', NULL, '{"metadata": "https://a.example/", "expectedDeliveryDate": "2026-10-09"}'),
       ('b', 'Mailed', '2026-10-01 UTC', '', 'c1', '{"to": {"firstName": "Not yet Bea"}}'),
       ('a', 'Mailed', '2026-10-01 UTC', '', 'c2', NULL),
       ('a', 'InTransit', '2026-10-02 UTC', 'a1', 'c1', NULL);
COPY events (piece_id, status, occurred_at, payload) FROM stdin;
b	ReturnedToSender	2026-10-20 00:00+00	[1]
a	pURLCompleted	2026-10-06 00:00+00	{"url": "https://a.example/done", "company": "A"}
\.
INSERT INTO events (piece_id, status, occurred_at)
VALUES ('a', 'Mailed', '2026-10-01 UTC')
ON CONFLICT DO NOTHING;
INSERT INTO events (piece_id, status, occurred_at) VALUES ('a', 'Mailed', '2026-10-01 UTC');
INSERT INTO events (piece_id, status, occurred_at) SELECT 'none', 'Mailed', now() WHERE false;
SELECT piece_id, account, campaign_id, contact_id, country, first_name, company, status, response,
       opens, completions, last_url, expected_delivery_at, first_event_at, last_event_at
FROM pieces
ORDER BY piece_id, account;
SELECT * FROM campaigns ORDER BY 1, 2;

-- A campaign is renamed by an event with a later time, not by one that arrives late.
SELECT inserted FROM ingest('{"mailId": 1, "campaignId": "c1", "campaignName": "Two", "eventDate": "2026-10-03", "eventType": 4}');
SELECT inserted FROM ingest('{"mailId": 1, "campaignId": "c1", "campaignName": "Old", "eventDate": "2026-09-03", "eventType": 11}');
SELECT inserted FROM ingest('{"mailId": 1, "campaignId": "c2", "eventDate": "2026-10-04", "eventType": 5}', 'a2');
SELECT campaign_id, account, name FROM campaigns ORDER BY 1, 2;

-- A detached partition, or another table with its name, causes only the events of its
-- month to be rejected.
ALTER TABLE events DETACH PARTITION events_2026_11;
SELECT * FROM ingest('[{"mailId": 1, "eventDate": "2026-11-03", "eventType": 4}, {"mailId": 1, "eventDate": "2026-10-03", "eventType": 5},
                       {"mailId": 1, "eventDate": "2026-11-04", "eventType": 6}, {"mailId": 1, "eventDate": "2026-11-05"}]');
INSERT INTO inbox (mail_id, event_date, event_type) VALUES ('1', '2026-11-06', '7');
SELECT reason, payload FROM rejects ORDER BY reject_id;
SELECT ensure_partitions('2026-11-01 UTC', '2026-12-01 UTC');
SELECT * FROM retry_rejects();
ALTER TABLE events_2026_11 RENAME TO kept_2026_11;
SELECT * FROM retry_rejects();
SELECT status, occurred_at FROM events WHERE piece_id = '1' AND occurred_at > '2026-11-01' ORDER BY 2;
DROP TABLE kept_2026_11;

-- A partition created by hand replaces the months that it covers: here, a quarter.
CREATE TABLE events_2031_q1 PARTITION OF events (PRIMARY KEY (piece_id, status, occurred_at)) FOR VALUES FROM ('2031-01-01 UTC') TO ('2031-04-01 UTC');
SELECT * FROM ingest('[{"mailId": 1, "eventDate": "2031-01-03", "eventType": 4}, {"mailId": 1, "eventDate": "2031-03-03", "eventType": 5}]');
SELECT ensure_partitions('2031-01-01 UTC', '2031-05-01 UTC');
SELECT tableoid::regclass, status FROM events WHERE occurred_at > '2031-01-01' ORDER BY 2;
DROP TABLE events_2031_q1, events_2031_04;

-- Missing months are created, many at once, regardless of the session's time zone.
SELECT inserted FROM ingest((SELECT json_agg(json_build_object('mailId', i, 'eventDate', timestamp '2020-01-31 23:59:59' + i * interval '1 month', 'eventType', 4))
                             FROM generate_series(0, 24) AS i));
SELECT reason FROM rejects WHERE payload ->> 'eventDate' < '2023';
SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass;

-- ingest can be called inside an INSERT into events, but not in a read-only transaction.
CREATE FUNCTION during() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ingest('{"mailId": 1, "eventDate": "2027-11-03", "eventType": 4}');
    RETURN 'x';
END
$$;
INSERT INTO events (piece_id, status, occurred_at) SELECT during(), 'Mailed', '2026-10-01 UTC';
BEGIN READ ONLY;
SELECT ingest('{"mailId": 1, "eventDate": "2028-11-03", "eventType": 4}');
ROLLBACK;

-- The trigger function works only on table events.  Invalid marks of a piece are an error.
CREATE TABLE other (x int);
CREATE TRIGGER t AFTER INSERT ON other FOR EACH STATEMENT EXECUTE FUNCTION events_inserted();
INSERT INTO other VALUES (1);
BEGIN;
INSERT INTO pieces (piece_id, opens, completions, first_event_at, last_event_at, marks)
VALUES ('by hand', 0, 0, now(), now(), '\x01'), ('too far', 0, 0, now(), now(), decode(repeat('03', 17 + 24), 'hex'));
SAVEPOINT a;
SELECT ingest('{"mailId": "by hand", "eventDate": "2026-10-03", "eventType": 4}');
ROLLBACK TO a;
SELECT ingest('{"mailId": "too far", "eventDate": "2026-10-03", "eventType": 4}');
ROLLBACK;
DROP TABLE other;

-- The extension continues to work if users add columns with defaults.
BEGIN;
ALTER TABLE events ADD COLUMN note text DEFAULT 'noted';
ALTER TABLE pieces ADD COLUMN owner text DEFAULT 'nobody';
ALTER TABLE campaigns ADD COLUMN budget numeric;
ALTER TABLE rejects ADD COLUMN seen boolean DEFAULT false;
ALTER TABLE deliveries ADD COLUMN cost numeric;
SELECT name FROM create_sync('columns');
SELECT ingest('[{"mailId": "added", "eventDate": "2026-10-03", "eventType": 4}, {"mailId": "added"}]');
SELECT ingest('{"mailId": "added", "eventDate": "2026-10-04", "eventType": 5, "meta": {"campaignId": 1}}');
INSERT INTO inbox (mail_id, event_date, event_type) VALUES ('added', '2026-10-05', '6');
SELECT e.status, e.note, p.status, p.owner FROM events AS e JOIN pieces AS p USING (piece_id) WHERE piece_id = 'added' ORDER BY occurred_at;
SELECT reason, seen FROM rejects WHERE payload ->> 'mailId' = 'added';
SELECT status FROM postalytics.fetch('columns');
ROLLBACK;
-- Users may add a unique index or a check constraint to a partition.
BEGIN;
SELECT ingest('{"mailId": "leaf", "eventDate": "2026-10-03", "eventType": 4}');
CREATE UNIQUE INDEX ON events_2026_10 (piece_id) WHERE piece_id = 'leaf';
SELECT ingest('[{"mailId": "leaf", "eventDate": "2026-10-04", "eventType": 5}, {"mailId": "leaf2", "eventDate": "2026-10-04", "eventType": 5}]');
ALTER TABLE events_2026_10 ADD CHECK (piece_id <> 'leaf3');
SELECT ingest('{"mailId": "leaf4", "eventDate": "2026-10-04", "eventType": 5}');
\set VERBOSITY terse
SELECT ingest('{"mailId": "leaf3", "eventDate": "2026-10-04", "eventType": 5}');
\set VERBOSITY default
ROLLBACK;
-- A partition created by hand may have its columns in another order.
BEGIN;
CREATE TABLE shuffled (payload json, drop_id text, campaign_id text, status mail_status NOT NULL, occurred_at timestamptz NOT NULL, account text COLLATE "C" NOT NULL,
    piece_id text COLLATE "C" NOT NULL, event_id bigint NOT NULL, received_at timestamptz NOT NULL, PRIMARY KEY (piece_id, account, status, occurred_at));
ALTER TABLE events ATTACH PARTITION shuffled FOR VALUES FROM ('2032-01-01 UTC') TO ('2032-02-01 UTC');
SELECT ingest('[{"mailId": "shuffled", "eventDate": "2032-01-03", "eventType": 4}, {"mailId": "shuffled", "eventDate": "2032-01-03", "eventType": 4}]');
SELECT piece_id, status, campaign_id, payload FROM shuffled;
SELECT status FROM pieces WHERE piece_id = 'shuffled';
ROLLBACK;
-- Constraints that users add to the extension's columns are enforced.  A column whose
-- name or type was changed is reported, and is not misread.
\set VERBOSITY terse
BEGIN;
ALTER TABLE pieces ADD CHECK (email LIKE '%@%');
SAVEPOINT a;
SELECT ingest('{"mailId": "checked", "eventDate": "2026-10-03", "eventType": 4, "email": "nowhere"}');
ROLLBACK TO a;
DELETE FROM pieces WHERE country IS NULL;
ALTER TABLE pieces ALTER country SET NOT NULL;
SAVEPOINT a;
SELECT ingest('{"mailId": "no country", "eventDate": "2026-10-03", "eventType": 4}');
ROLLBACK TO a;
SELECT ingest('{"mailId": "has one", "eventDate": "2026-10-03", "eventType": 4, "country": "US"}');
ALTER TABLE events ALTER campaign_id SET NOT NULL;
ROLLBACK;
BEGIN;
DELETE FROM events WHERE campaign_id IS NULL;
ALTER TABLE events ALTER campaign_id SET NOT NULL;
SELECT ingest('{"mailId": "no campaign", "eventDate": "2026-10-03", "eventType": 4}');
ROLLBACK;
BEGIN;
ALTER TABLE pieces ALTER zip TYPE integer USING NULL;
SELECT ingest('{"mailId": "zip", "eventDate": "2026-10-03", "eventType": 4, "email": "a@b", "zip": "04101"}');
ROLLBACK;
BEGIN;
ALTER TABLE rejects RENAME reason TO why;
SELECT ingest('{"mailId": "why"}');
ROLLBACK;
BEGIN;
ALTER TABLE campaigns ALTER named_on TYPE timestamp;
SELECT ingest('{"mailId": "moved", "eventDate": "2026-10-03", "eventType": 4, "campaignId": 9, "account": "7"}');
ROLLBACK;
BEGIN;
ALTER TABLE events RENAME account TO client;
INSERT INTO events (piece_id, status, occurred_at) VALUES ('renamed', 'Mailed', '2026-10-03');
ROLLBACK;
BEGIN;
ALTER TABLE deliveries ALTER created_at TYPE timestamp;
SELECT name FROM create_sync('altered');
SELECT ingest('{"mailId": "attempt", "eventDate": "2026-10-03", "eventType": 4}');
ROLLBACK;
\set VERBOSITY default
-- With the trigger disabled, nothing is derived.
BEGIN;
ALTER TABLE events DISABLE TRIGGER events_inserted;
SELECT ingest('{"mailId": "disabled", "eventDate": "2026-10-04", "eventType": 5}');
SELECT count(*) FROM pieces WHERE piece_id = 'disabled';
ROLLBACK;
DROP FUNCTION during();

-- DROP EXTENSION requires CASCADE while there are events.  After DROP and CREATE in one
-- session, the session does not use anything cached from the old extension.
INSERT INTO field_names VALUES ('old', 'mail_id');
SELECT create_sync('old');
DROP EXTENSION postalytics_status;
DROP OWNED BY CURRENT_USER;
SET client_min_messages = warning;
DROP EXTENSION postalytics_status CASCADE;
CREATE EXTENSION postalytics_status;
SELECT * FROM ingest('[{"mailId": 1, "eventDate": "2026-10-03", "eventType": 4}, {"old": 1, "eventDate": "2026-10-03", "eventType": 4}]');
SELECT status, status << 'InLocalArea' AS before, status::text FROM pieces;
SELECT current_status(status, occurred_at) FROM events;
BEGIN;
DROP EXTENSION postalytics_status CASCADE;
CREATE EXTENSION postalytics_status;
SELECT inserted FROM ingest('{"mailId": 2, "eventDate": "2026-10-03", "eventType": 4}');
ROLLBACK;
SELECT inserted FROM ingest('{"mailId": 2, "eventDate": "2026-10-03", "eventType": 4}');
SELECT count(*) FROM pieces WHERE status >> 'Mailed';
DROP EXTENSION postalytics_status CASCADE;
