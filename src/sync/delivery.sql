/*
 * delivery.sql
 *		The table deliveries: the unfinished deliveries of each sync, and a history of
 *		the finished ones.
 *
 * Unfinished deliveries are in one partition, from which they are deleted when they are
 * finished, so that neither its heap nor its indexes grow with the history.  Finished
 * deliveries move to the partition of the day (UTC), which is later dropped as a whole.
 * As with events, the parent has no key, and the partitions of days are created when
 * needed.
 *
 * A lease changes no indexed column, so due_at stays the same during a lease.  An index
 * scan by due_at skips the leased deliveries, which are few.  The due_at of a postponed
 * delivery is set to a later time, and that of a dead delivery to 'infinity'.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TYPE postalytics.delivery_state AS ENUM (
    'waiting', 'leased', 'done', 'dead', 'cancelled', 'superseded', 'discarded'
);
COMMENT ON TYPE postalytics.delivery_state IS
    'state of a delivery; if the lease of a delivery has expired, it is due again, although its state is still leased';

CREATE TYPE postalytics.delivery_error AS (
    attempt integer,
    at timestamptz,
    error text
);
COMMENT ON TYPE postalytics.delivery_error IS
    'error of a failed attempt';
COMMENT ON COLUMN postalytics.delivery_error.attempt IS 'number of the attempt';
COMMENT ON COLUMN postalytics.delivery_error.at IS 'when the attempt failed';
COMMENT ON COLUMN postalytics.delivery_error.error IS 'error that was passed to nack, or "lease expired"';

-- Inlined into the queries that record the failure of an attempt.
CREATE FUNCTION postalytics.with_error(errors postalytics.delivery_error[], attempt integer, at timestamptz, error text)
RETURNS postalytics.delivery_error[]
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
RETURN errors OPERATOR(pg_catalog.||) ROW(attempt, at, error)::postalytics.delivery_error;
COMMENT ON FUNCTION postalytics.with_error(postalytics.delivery_error[], integer, timestamptz, text) IS
    'internal: append an error to the errors of a delivery';

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

-- The fillfactor leaves room in each page for a second, leased version of each row, so
-- that leases need no new index entries.
CREATE TABLE postalytics.deliveries_unfinished
PARTITION OF postalytics.deliveries (
    PRIMARY KEY (delivery_id)
)
FOR VALUES IN (NULL)
WITH (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.05);

-- fetch scans this index.  It includes piece_id, account and is_test, so that fetch,
-- after it has decided on a piece, can skip exactly the other entries of that piece.
CREATE INDEX deliveries_unfinished_due_idx ON postalytics.deliveries_unfinished (sync, due_at, occurred_at, delivery_id)
    INCLUDE (piece_id, account, is_test);
-- fetch finds the other deliveries of a piece by this index.  It includes due_at and
-- delivery_id, so that fetch can skip the entries of deliveries that it knows are
-- finished.
CREATE INDEX deliveries_unfinished_piece_idx ON postalytics.deliveries_unfinished (piece_id, account, sync, occurred_at)
    INCLUDE (due_at, delivery_id);
CREATE INDEX deliveries_unfinished_failed_idx ON postalytics.deliveries_unfinished (sync, failed_at)
    WHERE failed_at IS NOT NULL;

COMMENT ON TABLE postalytics.deliveries IS
    'deliveries, one row per event and sync; after a delivery is finished, its row is kept for the time that the setting history specifies';
COMMENT ON COLUMN postalytics.deliveries.delivery_id IS 'identifier, the same in all attempts: the key for idempotent calls';
COMMENT ON COLUMN postalytics.deliveries.sync IS 'name of the sync';
COMMENT ON COLUMN postalytics.deliveries.piece_id IS 'piece of the event';
COMMENT ON COLUMN postalytics.deliveries.account IS 'account of the event; empty if none was given';
COMMENT ON COLUMN postalytics.deliveries.status IS 'status of the event; NULL for a production error';
COMMENT ON COLUMN postalytics.deliveries.occurred_at IS 'time of the event';
COMMENT ON COLUMN postalytics.deliveries.created_at IS 'when the delivery was created';
COMMENT ON COLUMN postalytics.deliveries.due_at IS 'when the delivery is due: occurred_at plus the sync''s wait, but not before it was created; after a failed attempt, when the next attempt may start; infinity if it is dead';
COMMENT ON COLUMN postalytics.deliveries.state IS 'state of the delivery';
COMMENT ON COLUMN postalytics.deliveries.attempt IS 'number of fetches since it was created, or last redriven or replayed';
COMMENT ON COLUMN postalytics.deliveries.is_test IS 'true if test_sync made it';
COMMENT ON COLUMN postalytics.deliveries.lease_until IS 'when the lease of the worker that fetched it ends';
COMMENT ON COLUMN postalytics.deliveries.leases IS 'internal: the sessions that fetched it, in order; kept when it is redriven or replayed';
COMMENT ON COLUMN postalytics.deliveries.finished_at IS 'when it was finished';
COMMENT ON COLUMN postalytics.deliveries.failed_at IS 'when an attempt last failed';
COMMENT ON COLUMN postalytics.deliveries.errors IS 'errors of failed attempts; see delivery_errors';
COMMENT ON COLUMN postalytics.deliveries.payload IS 'internal: payload of the event if events does not store it';
COMMENT ON COLUMN postalytics.deliveries.reason IS 'why it is dead, as in dead_letters, or why it was discarded';
COMMENT ON TABLE postalytics.deliveries_unfinished IS
    'the deliveries that are waiting, leased or dead';

-- Comments are not inherited.
DO $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT a.attname, pg_catalog.col_description(a.attrelid, a.attnum) AS comment
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = 'postalytics.deliveries'::pg_catalog.regclass
          AND a.attnum > 0
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON COLUMN postalytics.deliveries_unfinished.%I IS %L', each.attname, each.comment);
    END LOOP;
END
$$;

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
    'errors of deliveries, one row per failed attempt';
COMMENT ON COLUMN postalytics.delivery_errors.sync IS 'name of the sync';
COMMENT ON COLUMN postalytics.delivery_errors.delivery_id IS 'id of the delivery';
COMMENT ON COLUMN postalytics.delivery_errors.piece_id IS 'piece of the event';
COMMENT ON COLUMN postalytics.delivery_errors.account IS 'account of the event; empty if none was given';
COMMENT ON COLUMN postalytics.delivery_errors.status IS 'status of the event; NULL for a production error';
COMMENT ON COLUMN postalytics.delivery_errors.state IS 'state of the delivery';
COMMENT ON COLUMN postalytics.delivery_errors.attempt IS 'number of the attempt that failed';
COMMENT ON COLUMN postalytics.delivery_errors.at IS 'when the attempt failed';
COMMENT ON COLUMN postalytics.delivery_errors.error IS 'error that was passed to nack, or "lease expired"';

-- The caller must hold locks on the rows.
CREATE FUNCTION postalytics.finish_deliveries(tids tid[], state text)
RETURNS void
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_finish_deliveries';
COMMENT ON FUNCTION postalytics.finish_deliveries(tid[], text) IS
    'internal: finish locked deliveries, given by their ctids, in the given state';
