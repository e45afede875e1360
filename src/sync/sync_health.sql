/*
 * sync_health.sql
 *		sync_health: the state of each sync.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE VIEW postalytics.sync_health
WITH (security_invoker = true) AS
SELECT s.name,
       s.enabled,
       d.unleased_due + f.future AS waiting,
       d.unleased_due AS due,
       d.oldest_due_at,
       d.leased,
       x.dead,
       h.done_last_hour,
       e.last_error,
       e.last_error_at,
       x.dead_by_reason,
       greatest(p.paused_until, b.until) AS paused_until,
       CASE
           WHEN s.breaker IS NULL THEN NULL
           WHEN b.until > pg_catalog.now() THEN 'open'
           WHEN b.trips > 0 THEN 'half-open'
           ELSE 'closed'
       END AS breaker_state,
       b.reason AS breaker_reason
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
    SELECT COALESCE(pg_catalog.sum(r.dead), 0)::bigint AS dead,
           pg_catalog.jsonb_object_agg(r.reason, r.dead) FILTER (WHERE r.reason IS NOT NULL) AS dead_by_reason
    FROM (
        SELECT u.reason,
               pg_catalog.count(*) AS dead
        FROM postalytics.deliveries_unfinished AS u
        WHERE u.sync = s.name
          AND u.due_at = 'infinity'
        GROUP BY u.reason
    ) AS r
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
) AS e ON true
CROSS JOIN LATERAL (
    SELECT pg_catalog.max(z.until) AS paused_until
    FROM postalytics.pauses AS z
    WHERE z.sync = s.name
      AND z.until > pg_catalog.now()
) AS p
LEFT JOIN LATERAL (
    SELECT z.trips,
           CASE WHEN z.until > pg_catalog.now() THEN z.until END AS until,
           CASE WHEN z.trips > 0 THEN z.failures || ' consecutive failures' END AS reason
    FROM postalytics.breaker_events AS z
    WHERE z.sync = s.name
      AND s.breaker IS NOT NULL
    ORDER BY z.at DESC
    LIMIT 1
) AS b ON true;
COMMENT ON VIEW postalytics.sync_health IS
    'state of each sync: its waiting, due, leased, dead and done deliveries, and its last error';
COMMENT ON COLUMN postalytics.sync_health.name IS 'name of the sync';
COMMENT ON COLUMN postalytics.sync_health.enabled IS 'true if the sync is enabled';
COMMENT ON COLUMN postalytics.sync_health.waiting IS 'number of deliveries that are neither leased nor dead, including the due ones';
COMMENT ON COLUMN postalytics.sync_health.due IS 'number of deliveries that are due and not leased';
COMMENT ON COLUMN postalytics.sync_health.oldest_due_at IS 'earliest due_at of the deliveries that are due and not leased';
COMMENT ON COLUMN postalytics.sync_health.leased IS 'number of deliveries that are leased';
COMMENT ON COLUMN postalytics.sync_health.dead IS 'number of deliveries that are dead; see dead_letters';
COMMENT ON COLUMN postalytics.sync_health.done_last_hour IS 'number of deliveries that were acknowledged in the last hour';
COMMENT ON COLUMN postalytics.sync_health.last_error IS 'error of the latest failed attempt';
COMMENT ON COLUMN postalytics.sync_health.last_error_at IS 'time of the latest failed attempt';
COMMENT ON COLUMN postalytics.sync_health.dead_by_reason IS 'the number of dead deliveries by reason; NULL if there are none; see dead_letters';
COMMENT ON COLUMN postalytics.sync_health.paused_until IS 'when the pause of the sync ends, including one by its breaker; NULL if it is not paused';
COMMENT ON COLUMN postalytics.sync_health.breaker_state IS 'closed, open (it pauses the sync) or half-open (one delivery is tried); NULL if the sync has no breaker';
COMMENT ON COLUMN postalytics.sync_health.breaker_reason IS 'why the breaker is not closed; see last_error';
