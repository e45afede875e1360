/*
 * delivery.sql
 *		deliveries: what each sync has to deliver, and for a time what was delivered.
 * 
 * Unfinished deliveries are in one leaf, from which they are deleted when they are
 * finished, so that neither its heap nor its indexes grow with the past.  Finished ones
 * move to a leaf for each day (UTC), which is dropped as a whole.  As with events, the
 * parent has no key, and the leaves of days are created when they are needed.
 * 
 * A lease changes no indexed column.  So due_at stays the same during a lease, and an
 * index scan by due_at skips the leased deliveries, of which there are few.  What is
 * postponed gets a later due_at, and what is dead 'infinity'.
 */

CREATE TYPE postalytics.delivery_state AS ENUM (
    'waiting', 'leased', 'done', 'dead', 'cancelled', 'superseded', 'discarded'
);
COMMENT ON TYPE postalytics.delivery_state IS
    'what became of a delivery so far; a lease that has run out is due again, whatever its state says';

CREATE TYPE postalytics.delivery_error AS (
    attempt integer,
    at timestamptz,
    error text
);
COMMENT ON TYPE postalytics.delivery_error IS
    'why an attempt failed';

-- Inlined into the queries that record the failure of an attempt.
CREATE FUNCTION postalytics.with_error(errors postalytics.delivery_error[], attempt integer, at timestamptz, error text)
RETURNS postalytics.delivery_error[]
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
RETURN errors OPERATOR(pg_catalog.||) ROW(attempt, at, error)::postalytics.delivery_error;
COMMENT ON FUNCTION postalytics.with_error(postalytics.delivery_error[], integer, timestamptz, text) IS
    'internal: the errors of a delivery with one more';

CREATE SEQUENCE postalytics.delivery_id_seq;
COMMENT ON SEQUENCE postalytics.delivery_id_seq IS
    'delivery_id of deliveries';

CREATE TABLE postalytics.deliveries (
    delivery_id bigint NOT NULL DEFAULT pg_catalog.nextval('postalytics.delivery_id_seq'),
    sync text COLLATE pg_catalog."C" NOT NULL,
    piece_id text COLLATE pg_catalog."C" NOT NULL,
    account text COLLATE pg_catalog."C" NOT NULL DEFAULT '',
    status postalytics.mail_status,
    occurred_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    due_at timestamptz NOT NULL,
    state postalytics.delivery_state NOT NULL DEFAULT 'waiting',
    attempt integer NOT NULL DEFAULT 0,
    is_test boolean NOT NULL DEFAULT false,
    lease_until timestamptz,
    leases bigint[],
    finished_at timestamptz,
    failed_at timestamptz,
    errors postalytics.delivery_error[],
    payload json,
    reason text
)
PARTITION BY LIST (((finished_at AT TIME ZONE 'UTC')::date));

-- A page has room for the leased version of each of its rows, so that no lease needs new
-- index entries.
CREATE TABLE postalytics.deliveries_unfinished
PARTITION OF postalytics.deliveries (
    PRIMARY KEY (delivery_id)
)
FOR VALUES IN (NULL)
WITH (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.05);

-- What fetch scans; with the piece in it, so that it can pass over the rows of a
-- piece that is dealt with, and over nothing else.
CREATE INDEX deliveries_unfinished_due_idx ON postalytics.deliveries_unfinished (sync, due_at, occurred_at, delivery_id)
    INCLUDE (piece_id, account, is_test);
-- What it finds the other deliveries of a piece by; with due_at in it for the same reason.
CREATE INDEX deliveries_unfinished_piece_idx ON postalytics.deliveries_unfinished (piece_id, account, sync, occurred_at)
    INCLUDE (due_at, delivery_id);
CREATE INDEX deliveries_unfinished_failed_idx ON postalytics.deliveries_unfinished (sync, failed_at)
    WHERE failed_at IS NOT NULL;

COMMENT ON TABLE postalytics.deliveries IS
    'what each sync is owed: an event each, until it is acknowledged, and for a time (history) afterwards';
COMMENT ON TABLE postalytics.deliveries_unfinished IS
    'the deliveries that are waiting, leased or dead';
COMMENT ON COLUMN postalytics.deliveries.delivery_id IS 'stable over all attempts: the key for idempotent calls';
COMMENT ON COLUMN postalytics.deliveries.account IS 'whose event it is; empty where no account was given';
COMMENT ON COLUMN postalytics.deliveries.due_at IS 'occurred_at and the sync''s wait, but not before it was created; after a failed attempt, when the next may start';
COMMENT ON COLUMN postalytics.deliveries.attempt IS 'how often it was fetched';
COMMENT ON COLUMN postalytics.deliveries.lease_until IS 'until when the worker that fetched it has it for itself';
COMMENT ON COLUMN postalytics.deliveries.leases IS 'internal: the sessions that fetched it, in order; kept when it is redriven or replayed';
COMMENT ON COLUMN postalytics.deliveries.failed_at IS 'when an attempt last failed';
COMMENT ON COLUMN postalytics.deliveries.errors IS 'why attempts failed; as rows in delivery_errors';
COMMENT ON COLUMN postalytics.deliveries.reason IS 'why it is dead, as in dead_letters, or why it was discarded';
COMMENT ON COLUMN postalytics.deliveries.payload IS 'internal: the event''s own JSON where events no longer has it';

SELECT pg_catalog.pg_extension_config_dump('postalytics.deliveries', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.deliveries_unfinished', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.delivery_id_seq', '');

CREATE VIEW postalytics.delivery_errors
WITH (security_invoker = true) AS
SELECT d.sync,
       d.delivery_id,
       d.piece_id,
       d.account,
       d.status,
       d.state,
       e.attempt,
       e.at,
       e.error
FROM postalytics.deliveries AS d
CROSS JOIN LATERAL pg_catalog.unnest(d.errors) AS e
WHERE d.failed_at IS NOT NULL;
COMMENT ON VIEW postalytics.delivery_errors IS
    'why deliveries failed: a row an attempt';

-- The rows must be locked.
CREATE FUNCTION postalytics.finish_deliveries(places tid[], state text)
RETURNS void
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_finish_deliveries';
COMMENT ON FUNCTION postalytics.finish_deliveries(tid[], text) IS
    'internal: move locked deliveries, by their ctid, to history in this state';
