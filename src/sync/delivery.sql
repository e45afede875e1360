/*
 * delivery.sql
 *		deliveries: what each sync is still owed, and for a time what it got.
 *
 * What is not finished is in one leaf, from which it is deleted when it is
 * done: so that neither its heap nor its indexes grow with what was.  What is
 * finished moves to a leaf a day (UTC), which is dropped whole.  As with
 * events, the parent has no key, and the leaves of days are made when needed.
 *
 * A lease changes no indexed column.  So due_at stays while one lasts, and an
 * index scan by due_at passes over the leased, of which there are few; what is
 * put off gets a later due_at, and what is dead 'infinity'.
 */

CREATE TYPE postalytics.delivery_state AS ENUM (
    'waiting', 'leased', 'done', 'dead', 'cancelled', 'superseded'
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

CREATE SEQUENCE postalytics.delivery_id_seq;
COMMENT ON SEQUENCE postalytics.delivery_id_seq IS
    'delivery_id of deliveries';

CREATE TABLE postalytics.deliveries (
    delivery_id bigint NOT NULL DEFAULT pg_catalog.nextval('postalytics.delivery_id_seq'),
    sync text COLLATE pg_catalog."C" NOT NULL,
    piece_id text COLLATE pg_catalog."C" NOT NULL,
    status postalytics.mail_status NOT NULL,
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
    payload json
)
PARTITION BY LIST (((finished_at AT TIME ZONE 'UTC')::date));

CREATE TABLE postalytics.deliveries_unfinished
PARTITION OF postalytics.deliveries (
    PRIMARY KEY (delivery_id)
)
FOR VALUES IN (NULL)
WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- What fetch scans; with the piece in it, so that it can pass over the rows of a
-- piece that is dealt with, and over nothing else.
CREATE INDEX deliveries_unfinished_due_idx ON postalytics.deliveries_unfinished (sync, due_at) INCLUDE (piece_id, is_test);
CREATE INDEX deliveries_unfinished_piece_idx ON postalytics.deliveries_unfinished (piece_id, sync, occurred_at);
CREATE INDEX deliveries_unfinished_failed_idx ON postalytics.deliveries_unfinished (sync, failed_at)
    WHERE failed_at IS NOT NULL;

COMMENT ON TABLE postalytics.deliveries IS
    'what each sync is owed: an event each, until it is acknowledged, and for a time (history) afterwards';
COMMENT ON TABLE postalytics.deliveries_unfinished IS
    'the deliveries that are waiting, leased or dead';
COMMENT ON COLUMN postalytics.deliveries.delivery_id IS 'stable over all attempts: the key for idempotent calls';
COMMENT ON COLUMN postalytics.deliveries.due_at IS 'occurred_at and the sync''s wait; after a failed attempt, when the next may start';
COMMENT ON COLUMN postalytics.deliveries.attempt IS 'how often it was fetched';
COMMENT ON COLUMN postalytics.deliveries.lease_until IS 'until when the worker that fetched it has it for itself';
COMMENT ON COLUMN postalytics.deliveries.leases IS 'internal: the session of each attempt';
COMMENT ON COLUMN postalytics.deliveries.failed_at IS 'when an attempt last failed';
COMMENT ON COLUMN postalytics.deliveries.errors IS 'why attempts failed; as rows in delivery_errors';
COMMENT ON COLUMN postalytics.deliveries.payload IS 'internal: the event''s own JSON where events no longer has it';

SELECT pg_catalog.pg_extension_config_dump('postalytics.deliveries', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.deliveries_unfinished', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.delivery_id_seq', '');

CREATE VIEW postalytics.delivery_errors AS
SELECT d.sync,
       d.delivery_id,
       d.piece_id,
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

/* ---- what workers call ---- */

CREATE TYPE postalytics.delivery AS (
    delivery_id bigint,
    attempt integer,
    is_test boolean,
    status postalytics.mail_status,
    label text,
    occurred_at timestamptz,
    due_at timestamptz,
    piece_id text,
    account text,
    campaign_id text,
    campaign_name text,
    contact_id text,
    first_name text,
    last_name text,
    company text,
    email text,
    country text,
    fields jsonb,
    payload json
);
COMMENT ON TYPE postalytics.delivery IS
    'what fetch hands to a worker: all that one call to a CRM needs';

-- The settings keep its plans on the indexes whatever the statistics say: a
-- queue is empty when it is analyzed and full when it matters.
CREATE FUNCTION postalytics.fetch(
    sync text,
    batch integer DEFAULT 100,
    lease interval DEFAULT '1 minute',
    max_wait interval DEFAULT '0')
RETURNS SETOF postalytics.delivery
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS 'MODULE_PATHNAME', 'postalytics_fetch';
COMMENT ON FUNCTION postalytics.fetch(text, integer, interval, interval) IS
    'lease up to batch deliveries that are due to the caller; if there are none, wait for one up to max_wait';

CREATE FUNCTION postalytics.ack(sync text, delivery_ids bigint[], attempts integer[] DEFAULT NULL)
RETURNS bigint
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS 'MODULE_PATHNAME', 'postalytics_ack';
COMMENT ON FUNCTION postalytics.ack(text, bigint[], integer[]) IS
    'these deliveries are done; how many of them were the caller''s to finish';

CREATE FUNCTION postalytics.nack(
    sync text,
    delivery_ids bigint[],
    error text,
    retry_in interval DEFAULT NULL,
    dead boolean DEFAULT false,
    attempts integer[] DEFAULT NULL)
RETURNS bigint
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS 'MODULE_PATHNAME', 'postalytics_nack';
COMMENT ON FUNCTION postalytics.nack(text, bigint[], text, interval, boolean, integer[]) IS
    'these deliveries failed: try again in retry_in, or after ever longer waits, or never (dead); how many were the caller''s';

CREATE FUNCTION postalytics.next_due(sync text)
RETURNS timestamptz
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS 'MODULE_PATHNAME', 'postalytics_next_due';
COMMENT ON FUNCTION postalytics.next_due(text) IS
    'when a worker should fetch again if it hears nothing before; NULL if nothing waits';

/* ---- what people call ---- */

-- Notifies the sync's channel as the arrival of count events does.
CREATE FUNCTION postalytics.wake(sync postalytics.syncs, count bigint)
RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    SELECT pg_catalog.pg_notify((sync).channel,
                                pg_catalog.json_build_object('sync', (sync).name, 'count', count, 'events', '[]'::json)::text);
END;
COMMENT ON FUNCTION postalytics.wake(postalytics.syncs, bigint) IS
    'internal: notify the workers of a sync';

CREATE FUNCTION postalytics.is_for(event postalytics.events, sync postalytics.syncs)
RETURNS boolean
LANGUAGE sql
STABLE
BEGIN ATOMIC
    SELECT ((sync).statuses IS NULL OR (event).status = ANY ((sync).statuses))
       AND ((sync).campaigns IS NULL OR (event).campaign_id = ANY ((sync).campaigns))
       AND ((sync).accounts IS NULL OR (event).account = ANY ((sync).accounts));
END;
COMMENT ON FUNCTION postalytics.is_for(postalytics.events, postalytics.syncs) IS
    'internal: is the sync told of such an event';

-- Days and months count in UTC, whatever the session's time zone.
CREATE FUNCTION postalytics.due_at(occurred_at timestamptz, wait interval)
RETURNS timestamptz
LANGUAGE sql
IMMUTABLE
RETURN (occurred_at AT TIME ZONE 'UTC' + wait) AT TIME ZONE 'UTC';
COMMENT ON FUNCTION postalytics.due_at(timestamptz, interval) IS
    'internal: when the delivery of an event is due';

-- Makes deliveries for stored events that have no unfinished one, and wakes
-- the workers.  The caller sees to it that no other does so for this sync.
CREATE FUNCTION postalytics.owe(sync postalytics.syncs, since timestamptz, until timestamptz)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    made bigint;
BEGIN
    INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, status, occurred_at, due_at)
    SELECT sync.name, e.piece_id, e.status, e.occurred_at, postalytics.due_at(e.occurred_at, sync.wait)
    FROM postalytics.events AS e
    WHERE e.occurred_at >= since
      AND e.occurred_at < until
      AND postalytics.is_for(e, sync)
      AND NOT EXISTS (SELECT
                      FROM postalytics.deliveries_unfinished AS d
                      WHERE (d.sync, d.piece_id, d.status, d.occurred_at) = (sync.name, e.piece_id, e.status, e.occurred_at)
                        AND NOT d.is_test)
    ORDER BY e.occurred_at, e.status;
    GET DIAGNOSTICS made = ROW_COUNT;
    IF made > 0 AND sync.enabled THEN
        PERFORM postalytics.wake(sync, made);
    END IF;
    RETURN made;
END
$$;
COMMENT ON FUNCTION postalytics.owe(postalytics.syncs, timestamptz, timestamptz) IS
    'internal: make deliveries for stored events; how many';

-- The caller has locked the rows that existed when it started.  A lock timeout
-- limits the wait for rows that others have locked since then.
CREATE FUNCTION postalytics.delete_deliveries(sync text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
BEGIN
    DELETE FROM postalytics.deliveries AS d
    WHERE d.sync = delete_deliveries.sync;
END
$$;
COMMENT ON FUNCTION postalytics.delete_deliveries(text) IS
    'internal: delete the deliveries of a sync that is dropped';

-- Locks the sync's row.  Errors: 42704 if there is no such sync, 22004 for NULL,
-- 22023 if until is not after since or the sync has no deliveries, 25001 unless the
-- transaction is READ COMMITTED.
CREATE FUNCTION postalytics.replay_sync(name text, since timestamptz, until timestamptz DEFAULT 'infinity')
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs := postalytics.find_sync(name);
    revived bigint;
BEGIN
    PERFORM postalytics.check_read_committed('replay_sync');
    IF since IS NULL OR until IS NULL THEN
        RAISE EXCEPTION 'since and until must not be NULL'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF until <= since THEN
        RAISE EXCEPTION 'until must be after since'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM postalytics.check_durable(sync);
    UPDATE postalytics.deliveries_unfinished AS d
    SET state = 'waiting',
        attempt = 0,
        leases = NULL,
        due_at = postalytics.due_at(d.occurred_at, sync.wait)
    WHERE d.sync = sync.name
      AND d.due_at = 'infinity'
      AND d.occurred_at >= since
      AND d.occurred_at < until;
    GET DIAGNOSTICS revived = ROW_COUNT;
    IF revived > 0 AND sync.enabled THEN
        PERFORM postalytics.wake(sync, revived);
    END IF;
    RETURN revived + postalytics.owe(sync, since, until);
END
$$;
COMMENT ON FUNCTION postalytics.replay_sync(text, timestamptz, timestamptz) IS
    'deliver again what occurred from since to before until, the dead ones included; how many';

-- Errors: 22023 where the sync has no deliveries.
CREATE FUNCTION postalytics.check_durable(sync postalytics.syncs)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT sync.durable THEN
        RAISE EXCEPTION 'sync "%" is not durable, so it has no deliveries', sync.name
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.check_durable(postalytics.syncs) IS
    'internal: an error if a sync has no deliveries';

-- The sample is the latest event that the sync is for, or else made up.  Locks
-- the sync's row.  Errors: 42704 where there is none, 55000 where it is
-- disabled, 22023 where it has no deliveries.
CREATE FUNCTION postalytics.test_sync(name text)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs := postalytics.find_sync(name);
    sample record;
    made bigint;
BEGIN
    PERFORM postalytics.check_durable(sync);
    IF NOT sync.enabled THEN
        RAISE EXCEPTION 'sync "%" is disabled, so its test would not be handed out', sync.name
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Enable it first: enable_sync(name).';
    END IF;
    SELECT e.piece_id, e.status, e.occurred_at, NULL::json AS payload
    INTO sample
    FROM postalytics.events AS e
    WHERE postalytics.is_for(e, sync)
    ORDER BY e.occurred_at DESC
    LIMIT 1;
    IF NOT FOUND THEN
        SELECT 'test' AS piece_id, s.status, date_trunc('second', now()) AS occurred_at,
               json_build_object('mailId', 'test', 'eventType', postalytics.feed_code(s.status),
                                 'eventDate', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                                 'to', json_build_object('firstName', 'Test', 'lastName', 'Recipient', 'country', 'US'),
                                 'meta', json_build_object('campaignId', COALESCE(sync.campaigns[1], '0'), 'campaignName', 'Test campaign')) AS payload
        INTO sample
        FROM (SELECT COALESCE(sync.statuses[1], 'InTransit') AS status) AS s;
    END IF;
    INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, status, occurred_at, due_at, is_test, payload)
    VALUES (sync.name, sample.piece_id, sample.status, sample.occurred_at, now(), true, sample.payload)
    RETURNING delivery_id
    INTO made;
    PERFORM postalytics.wake(sync, 1);
    RETURN made;
END
$$;
COMMENT ON FUNCTION postalytics.test_sync(text) IS
    'send one sample delivery, marked as a test, the way all go; its delivery_id';

CREATE VIEW postalytics.sync_health AS
SELECT s.name,
       s.enabled,
       d.unleased_due + f.future AS waiting,
       d.unleased_due AS due,
       d.oldest_due_at,
       d.leased,
       x.dead,
       h.done_last_hour,
       e.last_error,
       e.last_error_at
FROM postalytics.syncs AS s
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) FILTER (WHERE u.lease_until > pg_catalog.now()) AS leased,
           pg_catalog.count(*) FILTER (WHERE u.lease_until > pg_catalog.now() IS NOT TRUE) AS unleased_due,
           pg_catalog.min(u.due_at) FILTER (WHERE u.lease_until > pg_catalog.now() IS NOT TRUE) AS oldest_due_at
    FROM postalytics.deliveries_unfinished AS u
    WHERE u.sync = s.name
      AND u.due_at <= pg_catalog.now()
) AS d
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS future
    FROM postalytics.deliveries_unfinished AS u
    WHERE u.sync = s.name
      AND u.due_at > pg_catalog.now()
      AND u.due_at < 'infinity'
) AS f
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS dead
    FROM postalytics.deliveries_unfinished AS u
    WHERE u.sync = s.name
      AND u.due_at = 'infinity'
) AS x
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS done_last_hour
    FROM postalytics.deliveries AS g
    WHERE g.sync = s.name
      AND g.state = 'done'
      AND g.finished_at > pg_catalog.now() - '1 hour'::interval
) AS h
LEFT JOIN LATERAL (
    SELECT g.errors[pg_catalog.cardinality(g.errors)].error AS last_error,
           g.failed_at AS last_error_at
    FROM postalytics.deliveries AS g
    WHERE g.sync = s.name
      AND g.failed_at IS NOT NULL
    ORDER BY g.failed_at DESC
    LIMIT 1
) AS e ON true;
COMMENT ON VIEW postalytics.sync_health IS
    'a row a sync: what waits, what is due, in hand, dead and done, and the last error';
COMMENT ON COLUMN postalytics.sync_health.waiting IS 'not handed out, the due ones included';
COMMENT ON COLUMN postalytics.sync_health.due IS 'not handed out, and their time has come';
COMMENT ON COLUMN postalytics.sync_health.leased IS 'in the hands of workers';
COMMENT ON COLUMN postalytics.sync_health.dead IS 'given up; replay_sync brings them back';
