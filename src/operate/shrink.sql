/*
 * shrink.sql
 *		shrink_deliveries: returns the space of finished deliveries to the system.
 */

-- Rewrites deliveries_unfinished if most of it is empty, as it is after a snapshot
-- that kept many finished deliveries has ended and they were vacuumed.  VACUUM
-- can shorten the heap then, but not the indexes.
--
-- The sizes of rows are rounded up: 600 bytes each, in the heap and the indexes.
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
    before CONSTANT bigint := pg_total_relation_size(relation);
    tuples CONSTANT bigint := pg_stat_get_live_tuples(relation) + pg_stat_get_dead_tuples(relation);
BEGIN
    -- These are known only since the first VACUUM.
    IF pg_stat_get_vacuum_count(relation) + pg_stat_get_autovacuum_count(relation) = 0
       OR before < 16 * 1024 * 1024 + 4 * 600 * tuples
    THEN
        RETURN;
    END IF;
    CLUSTER postalytics.deliveries_unfinished USING deliveries_unfinished_pkey;
    ALTER TABLE postalytics.deliveries_unfinished SET WITHOUT CLUSTER;
    RETURN NEXT postalytics.log_maintenance('shrink', relation::text,
                                            format('bytes: %s, before: %s', pg_total_relation_size(relation), before));
EXCEPTION
    WHEN lock_not_available THEN
        RETURN;
END
$$;
COMMENT ON FUNCTION postalytics.shrink_deliveries() IS
    'internal: rewrite deliveries_unfinished if most of it is empty; what was done';
