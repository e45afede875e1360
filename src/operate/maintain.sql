/*
 * maintain.sql
 *		maintain: creates partitions in advance, and retires old data.
 *
 * A leaf is a partition of events or deliveries.  Leaves of events contain a month, and
 * leaves of deliveries the finished deliveries of a day.  To retire a leaf is to drop
 * it or, if it is a month and retention_action is detach, to detach it.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- Leaves of deliveries come before leaves of events, because a session that has locked
-- events must not wait for another lock.
CREATE FUNCTION postalytics.leaves_to_retire()
RETURNS TABLE (leaf regclass, parent regclass)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT d.leaf, d.parent
    FROM (
        SELECT 1, l.ends_at, l.leaf, 'postalytics.deliveries'::regclass
        FROM postalytics.leaves('postalytics.deliveries') AS l
        WHERE l.ends_at <= now() - postalytics.setting('history')::interval
        UNION ALL
        SELECT 2, l.ends_at, l.leaf, 'postalytics.events'::regclass
        FROM postalytics.leaves('postalytics.events') AS l
        WHERE postalytics.setting('retention')::interval > '0'
          AND l.ends_at <= now() - postalytics.setting('retention')::interval
    ) AS d (place, ends_at, leaf, parent)
    ORDER BY d.place, d.ends_at
$$;
COMMENT ON FUNCTION postalytics.leaves_to_retire() IS
    'internal: the leaves that are older than the settings retention and history, in the order in which they are retired';

-- Does not wait for rows that other sessions have locked.  If skip is true, skips these
-- rows, and otherwise fails with error 55P03.
CREATE FUNCTION postalytics.carry_payloads(leaf regclass, skip boolean)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    carried bigint;
BEGIN
    EXECUTE format('WITH owed AS (
                        SELECT d.delivery_id, e.payload
                        FROM postalytics.deliveries_unfinished AS d
                        JOIN %s AS e ON (e.piece_id, e.account, e.status, e.occurred_at)
                                          = (d.piece_id, d.account, d.status, d.occurred_at)
                        WHERE d.payload IS NULL
                          AND e.payload IS NOT NULL
                        ORDER BY d.delivery_id
                        FOR NO KEY UPDATE OF d %s
                    )
                    UPDATE postalytics.deliveries_unfinished AS d
                    SET payload = o.payload
                    FROM owed AS o
                    WHERE d.delivery_id = o.delivery_id',
                   leaf, CASE WHEN skip THEN 'SKIP LOCKED' ELSE 'NOWAIT' END);
    GET DIAGNOSTICS carried = ROW_COUNT;
    RETURN carried;
END
$$;
COMMENT ON FUNCTION postalytics.carry_payloads(regclass, boolean) IS
    'internal: copy the payloads of a month''s events to their unfinished deliveries';

-- Locks: ACCESS EXCLUSIVE on events, then, without waiting, ACCESS EXCLUSIVE on the
-- leaf and the rows of deliveries.  If may_queue is true, waits up to lock_timeout for
-- the lock on events, and otherwise tries for a second without entering the lock queue.
-- A caller that has locked deliveries must not queue for the lock on events, because a
-- worker locks events before deliveries.  Errors: 55P03 if a lock is not available.
CREATE FUNCTION postalytics.retire_month(leaf regclass, retention_action text, may_queue boolean)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    carried bigint;
BEGIN
    IF may_queue THEN
        LOCK TABLE ONLY postalytics.events IN ACCESS EXCLUSIVE MODE;
    ELSE
        FOR attempt IN 1 .. 20 LOOP
            BEGIN
                LOCK TABLE ONLY postalytics.events IN ACCESS EXCLUSIVE MODE NOWAIT;
                EXIT;
            EXCEPTION
                WHEN lock_not_available THEN
                    IF attempt = 20 THEN
                        RAISE;
                    END IF;
            END;
            PERFORM pg_sleep(0.05);
        END LOOP;
    END IF;
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE NOWAIT', leaf);
    carried := postalytics.carry_payloads(leaf, false);
    INSERT INTO postalytics.retired_months AS r (starts_at, ends_at)
    SELECT COALESCE(l.starts_at, '-infinity'), COALESCE(l.ends_at, 'infinity')
    FROM postalytics.leaves('postalytics.events') AS l
    WHERE l.leaf = retire_month.leaf
    ON CONFLICT DO NOTHING;
    IF retention_action = 'drop' THEN
        EXECUTE format('DROP TABLE %s', leaf);
    ELSE
        EXECUTE format('ALTER TABLE postalytics.events DETACH PARTITION %s', leaf);
    END IF;
    RETURN format('deliveries still waiting: %s', carried);
END
$$;
COMMENT ON FUNCTION postalytics.retire_month(regclass, text, boolean) IS
    'internal: drop or detach a month of events';

-- A leaf that cannot be locked, or on which an object depends, is left for the next
-- run, and the failure is logged.
CREATE FUNCTION postalytics.retire_leaf(leaf regclass, parent regclass, may_queue boolean)
RETURNS postalytics.maintenance_log
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
DECLARE
    name text := leaf::text;
    action text := 'drop';
    detail text;
    amount text;
BEGIN
    PERFORM postalytics.check_read_committed('maintain');
    BEGIN
        amount := format('rows: about %s, bytes: %s', (SELECT greatest(c.reltuples, 0)::bigint FROM pg_class AS c WHERE c.oid = leaf), pg_total_relation_size(leaf));
        IF parent = 'postalytics.events'::regclass THEN
            action := postalytics.setting('retention_action');
            detail := postalytics.retire_month(leaf, action, may_queue);
        ELSE
            EXECUTE format('DROP TABLE %s', leaf);
        END IF;
    EXCEPTION
        WHEN lock_not_available OR deadlock_detected OR dependent_objects_still_exist THEN
            action := 'failed';
            detail := SQLERRM;
    END;
    RETURN postalytics.log_maintenance(action, name, detail, amount);
END
$$;
COMMENT ON FUNCTION postalytics.retire_leaf(regclass, regclass, boolean) IS
    'internal: retire one leaf; returns the row added to maintenance_log';

CREATE FUNCTION postalytics.create_partitions_ahead()
RETURNS SETOF postalytics.maintenance_log
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
DECLARE
    made integer := 0;
BEGIN
    BEGIN
        made := postalytics.ensure_partitions(now(),
            (date_trunc('month', now() AT TIME ZONE 'UTC')
             + make_interval(months => 1 + postalytics.setting('premake_months')::integer)) AT TIME ZONE 'UTC');
    EXCEPTION
        WHEN configuration_limit_exceeded THEN
            RETURN NEXT postalytics.log_maintenance('failed', 'postalytics.events', SQLERRM);
    END;
    IF made > 0 THEN
        RETURN NEXT postalytics.log_maintenance('create', 'postalytics.events', format('partitions: %s', made));
    END IF;
    IF postalytics.setting('history')::interval > '0' THEN
        made := postalytics.ensure_days(now(), now() + '3 days'::interval);
        IF made > 0 THEN
            RETURN NEXT postalytics.log_maintenance('create', 'postalytics.deliveries', format('partitions: %s', made));
        END IF;
    END IF;
    BEGIN
        PERFORM postalytics.update_policies('0');
    EXCEPTION
        WHEN lock_not_available THEN
            RETURN NEXT postalytics.log_maintenance('failed', 'policies', SQLERRM);
    END;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN NEXT postalytics.log_maintenance('failed', 'postalytics.events', SQLERRM);
END
$$;
COMMENT ON FUNCTION postalytics.create_partitions_ahead() IS
    'internal: create months and days in advance; returns what was done';

-- Skips rows that other sessions have locked.
CREATE FUNCTION postalytics.delete_day_old_rows(relation regclass, since name)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('DELETE FROM %1$s AS r
                    WHERE r.ctid = ANY (ARRAY(SELECT o.ctid
                                              FROM %1$s AS o
                                              WHERE o.%2$I < now() - ''1 day''::interval
                                              FOR UPDATE SKIP LOCKED))', relation, since);
END
$$;
COMMENT ON FUNCTION postalytics.delete_day_old_rows(regclass, name) IS
    'internal: delete the rows of a table whose column since is more than a day in the past';

-- Deletes old rows of maintenance_log, audit_log, production_errors, tallies and the
-- tables that limit syncs.  Returns false if a lock is not available, which means that
-- another maintain() has not ended.  Locks: SHARE UPDATE EXCLUSIVE on maintenance_log,
-- without waiting, until the transaction ends.  Errors: 25001 unless the transaction is
-- READ COMMITTED.
CREATE FUNCTION postalytics.begin_maintenance()
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM postalytics.check_read_committed('maintain');
    PERFORM postalytics.check_not_distributed();
    -- This mode conflicts with itself, but not with writers of the log.
    LOCK TABLE postalytics.maintenance_log IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
    DELETE FROM postalytics.maintenance_log AS l
    WHERE l.at < now() - '1 year'::interval;
    DELETE FROM postalytics.audit_log AS l
    WHERE l.at < now() - NULLIF(postalytics.setting('audit_retention')::interval, '0');
    DELETE FROM postalytics.production_errors AS e
    WHERE e.occurred_at < now() - NULLIF(postalytics.setting('piece_retention')::interval, '0')
      AND NOT EXISTS (SELECT
                      FROM postalytics.deliveries_unfinished AS d
                      WHERE (d.piece_id, d.account, d.occurred_at) = (e.piece_id, e.account, e.occurred_at)
                        AND d.status IS NULL);
    PERFORM postalytics.delete_day_old_rows('postalytics.pauses', 'until');
    PERFORM postalytics.delete_day_old_rows('postalytics.breaker_events', 'at');
    PERFORM postalytics.delete_day_old_rows('postalytics.tallies', 'at');
    PERFORM postalytics.forget_recent_leases();
    RETURN true;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN false;
END
$$;
COMMENT ON FUNCTION postalytics.begin_maintenance() IS
    'internal: delete old rows of small tables; false if another maintain() is running';

-- The function can be called at any time.  It does nothing if another maintain() is
-- running.  In each table, it retires leaves until the first that it cannot retire,
-- because a lock is not available within a second or an object depends on the leaf.
-- One call reads up to 500 parts of pieces (retire_pieces), and deletes up to 50
-- batches of rejects (retire_rejects).  The next call continues from there.  Locks are
-- held until the transaction ends.  The background worker instead uses a transaction
-- for each leaf, part and batch, and processes all of them.  Errors: 25001 unless the
-- transaction is READ COMMITTED.
CREATE FUNCTION postalytics.maintain()
RETURNS SETOF postalytics.maintenance_log
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old record;
    done postalytics.maintenance_log;
    busy regclass;
    has_dropped_days boolean := false;
    part record;
BEGIN
    IF NOT postalytics.begin_maintenance() THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT m.* FROM postalytics.create_partitions_ahead() AS m;
    FOR old IN
        SELECT l.leaf, l.parent
        FROM postalytics.leaves_to_retire() AS l
    LOOP
        IF old.parent IS DISTINCT FROM busy THEN
            done := postalytics.retire_leaf(old.leaf, old.parent, NOT has_dropped_days);
            RETURN NEXT done;
            IF done.action = 'failed' THEN
                busy := old.parent;
            ELSIF old.parent = 'postalytics.deliveries'::regclass THEN
                has_dropped_days := true;
            END IF;
        END IF;
    END LOOP;
    FOR i IN 1 .. 500 LOOP
        part := postalytics.retire_pieces();
        IF part.done IS NOT NULL THEN
            RETURN NEXT part.done;
        END IF;
        EXIT WHEN NOT part.more;
    END LOOP;
    FOR i IN 1 .. 50 LOOP
        part := postalytics.retire_rejects();
        IF part.done IS NOT NULL THEN
            RETURN NEXT part.done;
        END IF;
        EXIT WHEN NOT part.more;
    END LOOP;
    PERFORM postalytics.retry_links();
    RETURN QUERY SELECT s.* FROM postalytics.shrink_deliveries() AS s;
END
$$;
COMMENT ON FUNCTION postalytics.maintain() IS
    'create partitions in advance, retire what is older than the settings retention, history, piece_retention and reject_retention allow, write the status of pending pieces into linked contacts, and shrink deliveries_unfinished; returns what was done';
