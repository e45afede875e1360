/*
 * partition.sql
 *		The partitions of events and deliveries.
 */

-- The bounds of a day of deliveries are IN ('2026-11-23'), those of a month of
-- events FROM (...) TO ('2026-12-01 ...').
CREATE FUNCTION postalytics.leaves(parent regclass)
RETURNS TABLE (leaf regclass, ends_at timestamptz)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    SELECT c.oid::regclass,
           COALESCE((regexp_match(b.bound, 'TO \(''([^'']*)''\)'))[1]::timestamptz,
                    (regexp_match(b.bound, 'IN \(''([^'']*)''\)'))[1]::timestamptz + '1 day')
    FROM pg_inherits AS i
    JOIN pg_class AS c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS b (bound)
    WHERE i.inhparent = parent
    ORDER BY 2
$$;
COMMENT ON FUNCTION postalytics.leaves(regclass) IS
    'internal: the leaves of events or deliveries, and when each ends';
