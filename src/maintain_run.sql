/*
 * maintain_run.sql
 *		maintain() itself.  Another one than 0.1.0 has, hence OR REPLACE, as in
 *		grant.sql.
 */

-- Safe to run at any time and twice at once: the second finds the first's lock
-- and does nothing.  A leaf that cannot be had within lock_timeout is left for
-- the next run, which the log says.
CREATE OR REPLACE FUNCTION postalytics.maintain()
RETURNS SETOF postalytics.maintenance_log
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
DECLARE
    retention interval := postalytics.setting('retention')::interval;
    history interval := postalytics.setting('history')::interval;
    old record;
    made integer;
BEGIN
    BEGIN
        LOCK TABLE postalytics.maintenance_log IN SHARE ROW EXCLUSIVE MODE NOWAIT;
    EXCEPTION
        WHEN lock_not_available THEN
            RETURN;
    END;
    DELETE FROM postalytics.maintenance_log AS l
    WHERE l.at < now() - '1 year'::interval;

    FOR old IN
        SELECT l.leaf, l.leaf::text AS name, 'postalytics.events'::regclass AS parent
        FROM postalytics.leaves('postalytics.events') AS l
        WHERE retention > '0'
          AND l.ends_at <= now() - retention
        UNION ALL
        SELECT l.leaf, l.leaf::text, 'postalytics.deliveries'::regclass
        FROM postalytics.leaves('postalytics.deliveries') AS l
        WHERE l.ends_at <= now() - history
    LOOP
        BEGIN
            IF old.parent = 'postalytics.events'::regclass THEN
                RETURN NEXT postalytics.log_maintenance(postalytics.setting('retention_action'), old.name,
                                                        postalytics.retire_month(old.leaf, postalytics.setting('retention_action')));
            ELSE
                EXECUTE format('DROP TABLE %s', old.leaf);
                RETURN NEXT postalytics.log_maintenance('drop', old.name);
            END IF;
        EXCEPTION
            WHEN lock_not_available OR deadlock_detected OR dependent_objects_still_exist THEN
                RETURN NEXT postalytics.log_maintenance('failed', old.name, SQLERRM);
        END;
    END LOOP;

    -- After the retiring, which has the stronger lock: one that grows stronger
    -- would deadlock with writers that need a month.
    made := postalytics.ensure_partitions(now(),
        (date_trunc('month', now() AT TIME ZONE 'UTC')
         + make_interval(months => 1 + postalytics.setting('premake_months')::integer)) AT TIME ZONE 'UTC');
    IF made > 0 THEN
        RETURN NEXT postalytics.log_maintenance('create', 'postalytics.events', format('%s months', made));
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.maintain() IS
    'make the months ahead, retire those beyond retention and the history beyond history; what was done';
