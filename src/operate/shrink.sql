/*
 * shrink.sql
 *		shrink_deliveries: returns unused space of deliveries_unfinished to the
 *		operating system.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- Rewrites deliveries_unfinished if it is larger than 16 MB plus four times the
-- estimated size of its rows, as it can be after a long-lived snapshot has ended.
-- Plain VACUUM can truncate the heap, but does not shrink the indexes.
--
-- The estimate is at least 600 bytes per row, including index entries, and uses the
-- average size of the first thousand rows.  TOAST is ignored.  The function uses
-- CLUSTER, because VACUUM FULL cannot run in a transaction block.  It then clears
-- indisclustered, which pg_dump would otherwise reproduce.
--
-- Returns the row added to maintenance_log, or no row if the table was not rewritten.
--
-- Locks: ACCESS EXCLUSIVE on deliveries_unfinished.  Does nothing if the lock is not
-- granted within 100 ms.
CREATE FUNCTION postalytics.shrink_deliveries()
RETURNS SETOF postalytics.maintenance_log
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms'
AS $$
DECLARE
    relation CONSTANT regclass := 'postalytics.deliveries_unfinished';
    before CONSTANT bigint := pg_relation_size(relation) + pg_indexes_size(relation);
    after bigint;
    row_size double precision;
    tuples CONSTANT bigint := pg_stat_get_live_tuples(relation) + pg_stat_get_dead_tuples(relation);
BEGIN
    -- The tuple counts are reliable only after the first VACUUM.
    IF pg_stat_get_vacuum_count(relation) + pg_stat_get_autovacuum_count(relation) = 0
       OR before < 16 * 1024 * 1024 + 4 * 600 * tuples
    THEN
        RETURN;
    END IF;
    SELECT avg(pg_column_size(d))
    INTO row_size
    FROM (SELECT u.*
          FROM postalytics.deliveries_unfinished AS u
          ORDER BY u.delivery_id
          LIMIT 1000) AS d;
    IF before < 16 * 1024 * 1024 + 4 * (300 + 3 * COALESCE(row_size, 0)) * tuples THEN
        RETURN;
    END IF;
    CLUSTER postalytics.deliveries_unfinished USING deliveries_unfinished_pkey;
    ALTER TABLE postalytics.deliveries_unfinished SET WITHOUT CLUSTER;
    after := pg_relation_size(relation) + pg_indexes_size(relation);
    RETURN NEXT postalytics.log_maintenance('shrink', relation::text, format('bytes: %s, before: %s', after, before));
EXCEPTION
    WHEN lock_not_available OR object_in_use OR deadlock_detected THEN
        RETURN;
END
$$;
COMMENT ON FUNCTION postalytics.shrink_deliveries() IS
    'internal: rewrite deliveries_unfinished if most of it is empty; returns what was done';
