/*
 * metrics.sql
 *		metrics: numbers for monitoring.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- A session that waits in fetch holds a lock on the extension with objsubid 1
-- (show_waiting in fetch.c).  The function is SECURITY DEFINER, because not all roles
-- can see the times of other sessions.
CREATE FUNCTION postalytics.waiting_fetches(OUT waiting bigint, OUT longest interval)
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*), max(clock_timestamp() - a.query_start)
    FROM pg_locks AS l
    JOIN pg_database AS d ON d.oid = l.database
    JOIN pg_extension AS x ON x.oid = l.objid
    JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE d.datname = current_database()
      AND l.classid = 'pg_extension'::regclass
      AND x.extname = 'postalytics_status'
      AND l.objsubid = 1
$$;
COMMENT ON FUNCTION postalytics.waiting_fetches() IS
    'number of sessions that wait in fetch, and time since the start of the oldest statement among them';

-- Considers the other transactions in this database that are prepared, or that have a
-- snapshot or a transaction ID.  Replication slots and standby feedback can hold back
-- VACUUM as well, but have no start time.
CREATE FUNCTION postalytics.oldest_snapshot()
RETURNS interval
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT clock_timestamp() - min(o.since)
    FROM (SELECT a.xact_start AS since
          FROM pg_stat_activity AS a
          WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
            AND a.datname = current_database()
            AND a.backend_type <> 'autovacuum worker'
            AND a.pid <> pg_backend_pid()
          UNION ALL
          SELECT p.prepared
          FROM pg_prepared_xacts AS p
          WHERE p.database = current_database()) AS o
$$;
COMMENT ON FUNCTION postalytics.oldest_snapshot() IS
    'internal: age of the oldest other transaction that may keep VACUUM from removing dead rows; NULL if there is none';

CREATE FUNCTION postalytics.oldest_due(sync text)
RETURNS timestamptz
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT d.due_at
    FROM postalytics.deliveries_unfinished AS d
    WHERE d.sync = oldest_due.sync
      AND d.due_at <= now()
      AND (d.lease_until > now()) IS NOT TRUE
    ORDER BY d.due_at
    LIMIT 1
$$;
COMMENT ON FUNCTION postalytics.oldest_due(text) IS
    'internal: earliest due_at of the deliveries of a sync that are due and not leased; NULL if there are none';

CREATE FUNCTION postalytics.dead_deliveries(sync text)
RETURNS bigint
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*)
    FROM postalytics.deliveries_unfinished AS d
    WHERE d.sync = dead_deliveries.sync
      AND d.due_at = 'infinity'
$$;
COMMENT ON FUNCTION postalytics.dead_deliveries(text) IS
    'internal: number of dead deliveries of a sync';

-- Returns the counts and latencies of each durable sync.  The function is SECURITY
-- DEFINER, because monitors have no privileges on the tables.
CREATE FUNCTION postalytics.sync_metrics()
RETURNS TABLE (name text, labels jsonb, value double precision)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT m.name,
           jsonb_build_object('sync', s.name),
           m.value
    FROM postalytics.syncs AS s
    LEFT JOIN (
        SELECT t.sync,
               sum(t.attempts) AS attempts,
               sum(t.successes) AS successes,
               sum(t.failures) AS failures
        FROM postalytics.tallies AS t
        WHERE t.at > now() - '1 hour'::interval
        GROUP BY t.sync
    ) AS t ON t.sync = s.name
    CROSS JOIN LATERAL (VALUES
        ('attempts_last_hour', COALESCE(t.attempts, 0)::double precision),
        ('successes_last_hour', COALESCE(t.successes, 0)::double precision),
        ('failures_last_hour', COALESCE(t.failures, 0)::double precision),
        ('oldest_due_seconds', CASE WHEN s.enabled THEN COALESCE(date_part('epoch', clock_timestamp() - postalytics.oldest_due(s.name)), 0) ELSE 0 END),
        ('dead_deliveries', postalytics.dead_deliveries(s.name)::double precision),
        ('paused', (EXISTS (SELECT
                            FROM postalytics.pauses AS p
                            WHERE p.sync = s.name
                              AND p.until > now())
                    OR (s.breaker IS NOT NULL
                        AND COALESCE((SELECT b.until > now()
                                      FROM postalytics.breaker_events AS b
                                      WHERE b.sync = s.name
                                      ORDER BY b.at DESC
                                      LIMIT 1), false)))::integer::double precision)) AS m (name, value)
    WHERE s.durable
    UNION ALL
    SELECT 'latency_seconds',
           jsonb_build_object('sync', l.sync, 'quantile', l.quantile),
           l.seconds
    FROM postalytics.sync_latencies(now() - '1 hour'::interval) AS l
    JOIN postalytics.syncs AS s ON s.name = l.sync
    WHERE s.durable
$$;
COMMENT ON FUNCTION postalytics.sync_metrics() IS
    'internal: the metrics of each durable sync';

CREATE FUNCTION postalytics.is_preloaded()
RETURNS boolean
LANGUAGE c
STABLE
AS 'MODULE_PATHNAME', 'postalytics_is_preloaded';
COMMENT ON FUNCTION postalytics.is_preloaded() IS
    'internal: true if the library is preloaded';

CREATE FUNCTION postalytics.worker_expected()
RETURNS boolean
LANGUAGE c
STABLE
AS 'MODULE_PATHNAME', 'postalytics_worker_expected';
COMMENT ON FUNCTION postalytics.worker_expected() IS
    'internal: true if this database should have a background worker';

CREATE FUNCTION postalytics.worker_runs()
RETURNS boolean
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT
                   FROM pg_stat_activity AS a
                   WHERE a.backend_type = 'postalytics_status worker'
                     AND a.datname = current_database())
$$;
COMMENT ON FUNCTION postalytics.worker_runs() IS
    'internal: true if this database has a background worker';

-- Returns no row for a table that another session has locked exclusively, nor for what is
-- left after a second.
CREATE FUNCTION postalytics.table_sizes()
RETURNS TABLE (name text, labels jsonb, bytes bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms'
AS $$
DECLARE
    started_at timestamptz := clock_timestamp();
    each record;
BEGIN
    FOR each IN
        SELECT c.oid, 'table_bytes' AS name, jsonb_build_object('table', c.relname) AS labels
        FROM pg_class AS c
        WHERE c.oid IN ('postalytics.pieces'::regclass, 'postalytics.rejects'::regclass, 'postalytics.deliveries_unfinished'::regclass)
        UNION ALL
        SELECT c.oid, 'month_bytes', jsonb_build_object('month', regexp_replace(c.relname, '^events_(\d{4})_(\d\d)$', '\1-\2'))
        FROM pg_inherits AS i
        JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'postalytics.events'::regclass
    LOOP
        EXIT WHEN clock_timestamp() > started_at + '1 second'::interval;
        BEGIN
            name := each.name;
            labels := each.labels;
            bytes := pg_total_relation_size(each.oid);
            IF bytes IS NOT NULL THEN
                RETURN NEXT;
            END IF;
        EXCEPTION
            WHEN lock_not_available THEN
                CONTINUE;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.table_sizes() IS
    'internal: sizes of the months of events, and of the largest tables, as metrics';

-- The numbers of events and rejects are the last values of the sequences of their ids,
-- which have gaps.
CREATE FUNCTION postalytics.database_metrics()
RETURNS TABLE (name text, labels jsonb, value double precision)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT m.name, '{}'::jsonb, m.value
    FROM postalytics.waiting_fetches() AS w
    CROSS JOIN LATERAL (VALUES
        ('waiting_fetches', w.waiting::double precision),
        ('oldest_waiting_fetch_seconds', COALESCE(date_part('epoch', w.longest), 0)),
        ('dead_rows', pg_stat_get_dead_tuples('postalytics.deliveries_unfinished'::regclass)::double precision),
        ('oldest_snapshot_seconds', COALESCE(date_part('epoch', postalytics.oldest_snapshot()), 0)),
        ('event_ids', COALESCE(pg_sequence_last_value('postalytics.event_id_seq'), 0)::double precision),
        ('reject_ids', COALESCE(pg_sequence_last_value('postalytics.reject_id_seq'), 0)::double precision),
        ('maintenance_failures_last_day', (SELECT count(*)
                                           FROM postalytics.maintenance_log AS l
                                           WHERE l.action = 'failed'
                                             AND l.at > now() - '1 day'::interval)::double precision),
        ('worker_expected', postalytics.worker_expected()::integer::double precision),
        ('worker_running', postalytics.worker_runs()::integer::double precision)) AS m (name, value)
    UNION ALL
    SELECT t.name,
           t.labels,
           t.bytes::double precision
    FROM postalytics.table_sizes() AS t
$$;
COMMENT ON FUNCTION postalytics.database_metrics() IS
    'internal: the metrics of the database as a whole';

CREATE VIEW postalytics.metrics
WITH (security_invoker = true) AS
SELECT s.name,
       s.labels,
       s.value
FROM postalytics.sync_metrics() AS s
UNION ALL
SELECT d.name,
       d.labels,
       d.value
FROM postalytics.database_metrics() AS d;
COMMENT ON VIEW postalytics.metrics IS
    'numbers for monitoring, one row per metric and set of labels';
COMMENT ON COLUMN postalytics.metrics.name IS 'name of the metric';
COMMENT ON COLUMN postalytics.metrics.labels IS 'labels of the metric: the sync and the quantile of a latency, the month, or the table';
COMMENT ON COLUMN postalytics.metrics.value IS 'current value of the metric';
