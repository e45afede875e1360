/*
 * pace.sql
 *		recent_leases and in_flight: the deliveries that paced syncs (pace.c) have
 *		leased.
 *
 * fetch reads both tables, and inserts into them, while it holds a lock that it
 * releases before its transaction ends (turn.c), so that a worker that is idle in
 * transaction does not block others.  Therefore fetch must see uncommitted rows.  It
 * reads recent_leases with SnapshotAny, so that the rows of aborted transactions count
 * until VACUUM removes them.  It reads in_flight with a dirty snapshot: uncommitted
 * rows count, the rows of aborted transactions do not, and a deleted row counts until
 * the deletion commits.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TABLE postalytics.recent_leases (
    sync text COLLATE pg_catalog."C" NOT NULL,
    at timestamptz NOT NULL,
    amount integer NOT NULL
)
-- VACUUM must be rare: it removes the rows of aborted transactions, which must count.
WITH (autovacuum_vacuum_threshold = 100000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_insert_threshold = -1);
-- A table without a primary key needs this if it is in a publication of all tables.
ALTER TABLE postalytics.recent_leases REPLICA IDENTITY FULL;
CREATE INDEX recent_leases_sync_at_idx ON postalytics.recent_leases (sync, at);
COMMENT ON TABLE postalytics.recent_leases IS
    'internal: when syncs with a rate leased deliveries, and how many';
COMMENT ON COLUMN postalytics.recent_leases.sync IS 'name of the sync';
COMMENT ON COLUMN postalytics.recent_leases.at IS 'when deliveries were leased';
COMMENT ON COLUMN postalytics.recent_leases.amount IS 'number of deliveries';

CREATE TABLE postalytics.in_flight (
    delivery_id bigint NOT NULL PRIMARY KEY,
    sync text COLLATE pg_catalog."C" NOT NULL,
    until timestamptz NOT NULL
);
CREATE INDEX in_flight_sync_until_idx ON postalytics.in_flight (sync, until);
COMMENT ON TABLE postalytics.in_flight IS
    'internal: deliveries leased by syncs with max_leased or a half-open breaker, until ack, nack or the end of the lease';
COMMENT ON COLUMN postalytics.in_flight.delivery_id IS 'id of the delivery';
COMMENT ON COLUMN postalytics.in_flight.sync IS 'name of the sync';
COMMENT ON COLUMN postalytics.in_flight.until IS 'end of the lease';

SELECT pg_catalog.pg_extension_config_dump('postalytics.in_flight', '');

-- Deletes rows that no longer limit anything, without waiting.  Keeps the rows of
-- in_flight whose deliveries are unfinished, because fetch or ack may change these rows
-- and would wait for this transaction.
CREATE FUNCTION postalytics.forget_recent_leases()
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM postalytics.recent_leases AS h
    WHERE h.ctid = ANY (ARRAY(SELECT o.ctid
                              FROM postalytics.recent_leases AS o
                              WHERE o.at < now() - '1 hour'::interval
                                           - COALESCE((SELECT s.per FROM postalytics.syncs AS s WHERE s.name = o.sync), '0')
                              FOR UPDATE SKIP LOCKED));
    DELETE FROM postalytics.in_flight AS f
    WHERE f.ctid = ANY (ARRAY(SELECT o.ctid
                              FROM postalytics.in_flight AS o
                              WHERE o.until < now()
                                AND NOT EXISTS (SELECT
                                                FROM postalytics.deliveries_unfinished AS d
                                                WHERE d.delivery_id = o.delivery_id)
                              FOR UPDATE SKIP LOCKED))
$$;
COMMENT ON FUNCTION postalytics.forget_recent_leases() IS
    'internal: delete old rows of recent_leases and in_flight';

-- Keeps the rows of recent_leases, because another sync of this name has the same CRM,
-- and so the same rate.  Waits for other transactions for up to a second.
CREATE FUNCTION postalytics.forget_limits(sync text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
    DELETE FROM postalytics.pauses AS p
    WHERE p.sync = forget_limits.sync;
    DELETE FROM postalytics.breaker_events AS b
    WHERE b.sync = forget_limits.sync;
    DELETE FROM postalytics.in_flight AS f
    WHERE f.sync = forget_limits.sync
$$;
COMMENT ON FUNCTION postalytics.forget_limits(text) IS
    'internal: delete the pauses, breaker states and leases of a dropped sync';

-- Sessions write in_flight only for syncs with max_leased or a half-open breaker.  So
-- when max_leased or breaker changes, the rows of the sync are deleted, and are rebuilt
-- if max_leased is set.
CREATE FUNCTION postalytics.limits_changed()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
BEGIN
    DELETE FROM postalytics.in_flight AS f
    WHERE f.sync = new.name;
    IF new.max_leased IS NOT NULL THEN
        INSERT INTO postalytics.in_flight (delivery_id, sync, until)
        SELECT d.delivery_id, d.sync, d.lease_until
        FROM postalytics.deliveries_unfinished AS d
        WHERE d.sync = new.name
          AND d.lease_until > clock_timestamp()
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION postalytics.limits_changed() IS
    'internal: trigger on syncs that brings in_flight up to date';

CREATE TRIGGER limits_changed
AFTER UPDATE OF max_leased, breaker ON postalytics.syncs
FOR EACH ROW
WHEN (old.max_leased IS DISTINCT FROM new.max_leased OR old.breaker IS DISTINCT FROM new.breaker)
EXECUTE FUNCTION postalytics.limits_changed();
