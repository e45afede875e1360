/*
 * metrics.sql
 *		metrics: numbers for monitoring.
 */

-- A session that waits in fetch holds a lock on the extension with objsubid 1
-- (show_waiting in fetch.c).
-- SECURITY DEFINER, because other sessions' times are not visible to everybody.
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
    'the number of sessions that wait in fetch, and the time since the oldest of these statements began';

CREATE VIEW postalytics.metrics
WITH (security_invoker = true) AS
SELECT m.name,
       m.value
FROM postalytics.waiting_fetches() AS w
CROSS JOIN LATERAL (VALUES
    ('waiting_fetches', w.waiting::double precision),
    ('oldest_waiting_fetch_seconds', COALESCE(pg_catalog.date_part('epoch', w.longest), 0))) AS m (name, value);
COMMENT ON VIEW postalytics.metrics IS
    'numbers for monitoring, one row per metric';
COMMENT ON COLUMN postalytics.metrics.name IS 'name of the metric';
COMMENT ON COLUMN postalytics.metrics.value IS 'its current value';
