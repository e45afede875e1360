/*
 * shrink.sql
 *		shrink_deliveries: returns the space of finished deliveries to the system.
 */

-- Rewrites deliveries_unfinished if most of it is empty, as it is after a snapshot
-- that kept many finished deliveries has ended and they were vacuumed.  VACUUM
-- can shorten the heap then, but not the indexes.
--
-- A row takes at least 600 bytes in the heap and the indexes; how large the rows are is
-- estimated from a thousand.  What is stored out of line is not considered.
-- CLUSTER runs in a transaction, unlike VACUUM FULL, and keeps what other
-- snapshots can still see.  The mark that it leaves on the index would be dumped.
--
-- Locks: ACCESS EXCLUSIVE on deliveries_unfinished while it is rewritten, for which
-- it waits a tenth of a second.
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
    -- These are known only since the first VACUUM.
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
    'internal: rewrite deliveries_unfinished if most of it is empty; what was done';
