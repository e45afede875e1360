-- Users may alter tables and types of the extension.  It keeps working, or reports
-- what is wrong.
\set SHOW_CONTEXT never
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SELECT postalytics.configure('latest', '36500d');
SET track_functions = 'all';

-- Ingest an event of a piece, and count merges by the query path, which is slower.
CREATE FUNCTION ingest_one(piece text, code int) RETURNS text
LANGUAGE sql
AS $$
    SELECT ingest(json_build_object('mailId', piece, 'eventType', code, 'eventDate', '2026-10-06'))::text
$$;
CREATE VIEW query_merges AS
SELECT pg_stat_get_xact_function_calls('merge_piece(pieces, pieces, boolean)'::regprocedure) AS calls;

-- Another primary key could make several pieces one row, so it is refused.
SELECT ingest_one('a', 4);
BEGIN;
ALTER TABLE pieces DROP CONSTRAINT pieces_pkey;
SELECT ingest_one('a', 5);
ROLLBACK;
BEGIN;
ALTER TABLE pieces DROP CONSTRAINT pieces_pkey, ADD PRIMARY KEY (opens, piece_id);
SELECT ingest_one('b', 5);
ROLLBACK;
BEGIN;
ALTER TABLE pieces DROP CONSTRAINT pieces_pkey, ADD PRIMARY KEY (piece_id) DEFERRABLE;
SELECT ingest_one('b', 5);
ROLLBACK;
BEGIN;
ALTER TABLE deliveries_unfinished DROP CONSTRAINT deliveries_unfinished_pkey;
SELECT create_sync('s');
SELECT postalytics.fetch('s');
ROLLBACK;

-- While a table has an added column, its rows are written by queries.  Once the
-- column is dropped, they are not.
BEGIN;
ALTER TABLE pieces ADD note text;
ALTER TABLE pieces DROP note;
ALTER TABLE deliveries ADD note text;
ALTER TABLE deliveries DROP note;
ALTER TABLE events ADD note text;
ALTER TABLE events DROP note;
SELECT name FROM create_sync('dropped');
SELECT ingest_one('a', 5), ingest_one('a', 6), ingest_one('c', 6);
SELECT calls FROM query_merges;
SELECT piece_id, status, fields FROM pieces ORDER BY 1;
SELECT piece_id, status FROM postalytics.fetch('dropped') ORDER BY 1;
ROLLBACK;
BEGIN;
ALTER TABLE pieces ADD note text;
SELECT ingest_one('a', 5);
SELECT calls FROM query_merges;
ROLLBACK;

-- A value that a user adds to the enum is not a valid status of an event, and is
-- refused wherever it is used.
ALTER TYPE mail_status ADD VALUE 'Shredded';
SELECT create_sync('shredded', statuses => '{Shredded}');
SELECT create_sync('shredded', unless => '{Shredded}');
SELECT name FROM create_sync('all');
UPDATE syncs SET statuses = '{Mailed,Shredded}';
SELECT ingest_one('d', 4);
INSERT INTO events (piece_id, status, occurred_at) VALUES ('d', 'Shredded', '2026-10-06');
SELECT 'Shredded' >> 'Mailed'::mail_status;

DROP VIEW query_merges;
SET client_min_messages = warning;
DROP EXTENSION postalytics_status CASCADE;
