/*
 * pace.sql
 *		What paced syncs have handed out.
 *
 * Both tables are written and read while pace.c holds a lock that it releases before the
 * transaction ends, and are read without regard to whether other transactions have
 * committed, so that a worker whose transaction is idle stops no other.  What they say
 * concerns the current leases only, so they are not dumped.
 */

CREATE TABLE postalytics.handouts (
    sync text COLLATE pg_catalog."C" NOT NULL,
    at timestamptz NOT NULL,
    amount integer NOT NULL
);
-- For publications of all tables: it has no primary key.
ALTER TABLE postalytics.handouts REPLICA IDENTITY FULL;
CREATE INDEX handouts_sync_at_idx ON postalytics.handouts (sync, at);
COMMENT ON TABLE postalytics.handouts IS
    'internal: when syncs with a rate handed out deliveries, and how many';

CREATE TABLE postalytics.in_flight (
    delivery_id bigint NOT NULL PRIMARY KEY,
    sync text COLLATE pg_catalog."C" NOT NULL,
    until timestamptz NOT NULL
);
CREATE INDEX in_flight_sync_until_idx ON postalytics.in_flight (sync, until);
COMMENT ON TABLE postalytics.in_flight IS
    'internal: leased deliveries of syncs with max_leased, or that are being tried again after a pause by the breaker, until ack, nack or the end of the lease';

-- Deletes what limits nothing any more, without waiting.
CREATE FUNCTION postalytics.forget_handouts()
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM postalytics.handouts AS h
    WHERE h.ctid = ANY (ARRAY(SELECT o.ctid
                              FROM postalytics.handouts AS o
                              WHERE o.at < now() - '1 hour'::interval
                                           - COALESCE((SELECT s.per FROM postalytics.syncs AS s WHERE s.name = o.sync), '0')
                              FOR UPDATE SKIP LOCKED));
    DELETE FROM postalytics.in_flight AS f
    WHERE f.ctid = ANY (ARRAY(SELECT o.ctid
                              FROM postalytics.in_flight AS o
                              WHERE o.until < now()
                              FOR UPDATE SKIP LOCKED))
$$;
COMMENT ON FUNCTION postalytics.forget_handouts() IS
    'internal: delete old rows of handouts and in_flight';

CREATE FUNCTION postalytics.forget_limits(sync text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM postalytics.pauses AS p
    WHERE p.sync = forget_limits.sync;
    DELETE FROM postalytics.breaker_events AS b
    WHERE b.sync = forget_limits.sync;
    DELETE FROM postalytics.handouts AS h
    WHERE h.sync = forget_limits.sync;
    DELETE FROM postalytics.in_flight AS f
    WHERE f.sync = forget_limits.sync
$$;
COMMENT ON FUNCTION postalytics.forget_limits(text) IS
    'internal: delete what limits a sync that is dropped, or was before';
