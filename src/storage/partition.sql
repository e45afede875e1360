/*
 * partition.sql
 *		The partitions of events and deliveries, which are called leaves.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- The bound of a leaf of deliveries is a day, such as IN ('2026-11-23').  The bounds of
-- a leaf of events are those of a month, such as FROM (...) TO ('2026-12-01 ...').
CREATE FUNCTION postalytics.leaves(parent regclass)
RETURNS TABLE (leaf regclass, starts_at timestamptz, ends_at timestamptz)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    SELECT c.oid::regclass,
           (regexp_match(b.bound, '(?:FROM|IN) \(''([^'']*)''\)'))[1]::timestamptz,
           COALESCE((regexp_match(b.bound, 'TO \(''([^'']*)''\)'))[1]::timestamptz,
                    (regexp_match(b.bound, 'IN \(''([^'']*)''\)'))[1]::timestamptz + '1 day')
    FROM pg_inherits AS i
    JOIN pg_class AS c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS b (bound)
    WHERE i.inhparent = parent
    ORDER BY 3
$$;
COMMENT ON FUNCTION postalytics.leaves(regclass) IS
    'internal: leaves of events or deliveries, with the start and end of each; a bound that is not a timestamp is NULL';

-- A detached month is an ordinary table, which may have been renamed, so it is
-- recognized by its columns.  A table must be owned by the owner of events or by a
-- superuser, because its triggers would run with the caller's privileges.
CREATE FUNCTION postalytics.detached_months()
RETURNS SETOF regclass
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.oid::regclass
    FROM pg_class AS c
    JOIN pg_class AS e ON e.oid = 'postalytics.events'::regclass
    WHERE c.relnamespace = e.relnamespace
      AND c.relkind = 'r'
      AND NOT c.relispartition
      AND (c.relowner = e.relowner OR (SELECT r.rolsuper FROM pg_roles AS r WHERE r.oid = c.relowner))
      AND NOT EXISTS (SELECT
                      FROM pg_attribute AS a
                      WHERE a.attrelid = e.oid
                        AND a.attname IN ('event_id', 'piece_id', 'account', 'status', 'occurred_at', 'payload')
                        AND NOT EXISTS (SELECT
                                        FROM pg_attribute AS d
                                        WHERE d.attrelid = c.oid
                                          AND (d.attname, d.atttypid) = (a.attname, a.atttypid)))
    ORDER BY c.relname
$$;
COMMENT ON FUNCTION postalytics.detached_months() IS
    'internal: months that were detached from events and are still in the schema';

-- The months that maintain() has dropped or detached.  A late event can cause such a
-- month to be created again.  Without this table, the new month would seem to have all
-- of its events.
CREATE TABLE postalytics.retired_months (
    starts_at timestamptz NOT NULL PRIMARY KEY,
    ends_at timestamptz NOT NULL
);
COMMENT ON TABLE postalytics.retired_months IS
    'months of events that maintain() has dropped or detached';
COMMENT ON COLUMN postalytics.retired_months.starts_at IS 'start of the month';
COMMENT ON COLUMN postalytics.retired_months.ends_at IS 'end of the month, exclusive';

SELECT pg_catalog.pg_extension_config_dump('postalytics.retired_months', '');
