/*
 * maintain.sql
 *		Housekeeping: partitions made ahead, old months and old history retired,
 *		campaigns dropped.
 */

CREATE TABLE postalytics.maintenance_log (
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    action text NOT NULL,
    relation text NOT NULL,
    detail text
);
CREATE INDEX maintenance_log_at_idx ON postalytics.maintenance_log (at);
COMMENT ON TABLE postalytics.maintenance_log IS
    'what maintain() did: a row for each partition that it created, dropped, detached or had to leave; kept for a year';

SELECT pg_catalog.pg_extension_config_dump('postalytics.maintenance_log', '');

CREATE FUNCTION postalytics.setting(name text)
RETURNS text
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_setting';
COMMENT ON FUNCTION postalytics.setting(text) IS
    'internal: the value of postalytics_status.name, the library being loaded for it';

CREATE FUNCTION postalytics.log_maintenance(action text, relation text, detail text DEFAULT NULL)
RETURNS postalytics.maintenance_log
LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO postalytics.maintenance_log (action, relation, detail)
    VALUES (action, relation, detail)
    RETURNING *;
END;
COMMENT ON FUNCTION postalytics.log_maintenance(text, text, text) IS
    'internal: record what maintain() did';

CREATE FUNCTION postalytics.ensure_days("from" timestamptz, until timestamptz)
RETURNS integer
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_ensure_days';
COMMENT ON FUNCTION postalytics.ensure_days(timestamptz, timestamptz) IS
    'internal: make the missing days of deliveries from "from" to before until; how many were made';

-- The leaves of a partitioned table with the time at which each ends; a day's
-- leaf of deliveries is IN ('2026-11-23'), a month's of events
-- FROM (...) TO ('2026-12-01 ...').
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

-- Days come before months: a session that has locked events must not wait for
-- another lock.
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
    'internal: the leaves beyond retention and history, in the order in which they are retired';

-- Copies the payload to deliveries that still wait for events of a month.  Does
-- not wait for rows that others have locked: skips them if skip is true, and
-- fails with 55P03 otherwise.
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
                        JOIN %s AS e ON (e.piece_id, e.status, e.occurred_at) = (d.piece_id, d.status, d.occurred_at)
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
    'internal: copy the payloads of a month''s events to the deliveries that still wait for them';

-- Locks: ACCESS EXCLUSIVE on events, for which it waits up to lock_timeout, then
-- on the leaf, and rows of deliveries, for which it does not wait: it fails with
-- 55P03 if they are not available at once.  A caller that has locked deliveries
-- must not queue for events: a worker has locked events before it needs
-- deliveries.
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
    IF retention_action = 'drop' THEN
        EXECUTE format('DROP TABLE %s', leaf);
    ELSE
        EXECUTE format('ALTER TABLE postalytics.events DETACH PARTITION %s', leaf);
    END IF;
    RETURN format('%s deliveries still wait', carried);
END
$$;
COMMENT ON FUNCTION postalytics.retire_month(regclass, text, boolean) IS
    'internal: drop or detach a month of events';

-- A leaf whose lock cannot be had, or on which something depends, is left for
-- the next run, which the log says.
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
BEGIN
    PERFORM postalytics.check_read_committed('maintain');
    BEGIN
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
    RETURN postalytics.log_maintenance(action, name, detail);
END
$$;
COMMENT ON FUNCTION postalytics.retire_leaf(regclass, regclass, boolean) IS
    'internal: retire one leaf; what was done';

CREATE FUNCTION postalytics.make_ahead()
RETURNS SETOF postalytics.maintenance_log
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
DECLARE
    made integer;
BEGIN
    made := postalytics.ensure_partitions(now(),
        (date_trunc('month', now() AT TIME ZONE 'UTC')
         + make_interval(months => 1 + postalytics.setting('premake_months')::integer)) AT TIME ZONE 'UTC');
    IF made > 0 THEN
        RETURN NEXT postalytics.log_maintenance('create', 'postalytics.events', format('partitions: %s', made));
    END IF;
    IF postalytics.setting('history')::interval > '0' THEN
        made := postalytics.ensure_days(now(), now() + '3 days'::interval);
        IF made > 0 THEN
            RETURN NEXT postalytics.log_maintenance('create', 'postalytics.deliveries', format('partitions: %s', made));
        END IF;
    END IF;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN NEXT postalytics.log_maintenance('failed', 'postalytics.events', SQLERRM);
END
$$;
COMMENT ON FUNCTION postalytics.make_ahead() IS
    'internal: make the months and days ahead; what was done';

-- Does not wait: false if another maintain() has not ended yet.
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
    RETURN true;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN false;
END
$$;
COMMENT ON FUNCTION postalytics.begin_maintenance() IS
    'internal: true if no other maintain() is running';

-- Safe to run at any time.  If another maintain() is running, it does nothing.
-- For each table it retires leaves until the first that it cannot retire,
-- because a lock is not available within a second or an object depends on the
-- leaf.  Locks are held until the transaction ends; the background worker uses
-- a transaction for each leaf instead.  Errors: 25001 unless the transaction is
-- READ COMMITTED.
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
BEGIN
    IF NOT postalytics.begin_maintenance() THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT m.* FROM postalytics.make_ahead() AS m;
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
END
$$;
COMMENT ON FUNCTION postalytics.maintain() IS
    'make the partitions ahead, retire months beyond retention and history beyond history; what was done';

CREATE FUNCTION postalytics.refold_pieces(piece_ids text[])
RETURNS bigint
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_refold_pieces';
COMMENT ON FUNCTION postalytics.refold_pieces(text[]) IS
    'internal: make the rows of pieces again from the events that are stored; how many events';

CREATE FUNCTION postalytics.pieces_of_campaign(campaign_id text, naming text[])
RETURNS text[]
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(a.piece_id ORDER BY a.piece_id)
    FROM (
        SELECT p.piece_id
        FROM postalytics.pieces AS p
        WHERE p.campaign_id = pieces_of_campaign.campaign_id
        UNION
        SELECT unnest(naming)
    ) AS a
$$;
COMMENT ON FUNCTION postalytics.pieces_of_campaign(text, text[]) IS
    'internal: the pieces of a campaign and those whose events name it';

-- The caller has locked events, and the deliveries that existed before.  A lock
-- timeout limits the wait for rows that others have locked since then.
CREATE FUNCTION postalytics.delete_campaign(campaign_id text, affected text[])
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
DECLARE
    deleted bigint;
BEGIN
    WITH gone AS (
        DELETE FROM postalytics.events AS e
        USING unnest(affected) AS a (piece_id)
        LEFT JOIN postalytics.pieces AS p ON p.piece_id = a.piece_id
        WHERE e.piece_id = a.piece_id
          AND (e.campaign_id = delete_campaign.campaign_id
               OR e.campaign_id IS NULL AND p.campaign_id = delete_campaign.campaign_id)
        RETURNING e.piece_id, e.status, e.occurred_at
    ), undelivered AS (
        DELETE FROM postalytics.deliveries AS d
        USING gone AS g
        WHERE (d.piece_id, d.status, d.occurred_at) = (g.piece_id, g.status, g.occurred_at)
    )
    SELECT count(*)
    INTO deleted
    FROM gone;
    PERFORM postalytics.refold_pieces(affected);
    DELETE FROM postalytics.deliveries AS d
    USING unnest(affected) AS a (piece_id)
    WHERE d.piece_id = a.piece_id
      AND NOT EXISTS (SELECT
                      FROM postalytics.pieces AS p
                      WHERE p.piece_id = a.piece_id);
    DELETE FROM postalytics.campaigns AS c
    WHERE c.campaign_id = delete_campaign.campaign_id;
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION postalytics.delete_campaign(text, text[]) IS
    'internal: delete a campaign whose pieces are given; how many events';

-- An event belongs to a campaign if it names the campaign, or if it names none
-- and its piece belongs to it.  A piece that has events of another campaign is
-- kept, and derived again from those.
--
-- Locks: the unfinished deliveries of these pieces, then SHARE ROW EXCLUSIVE on
-- events, until the transaction ends.  Writers are not blocked while it waits
-- for either.  Errors: 42704 if there is no such campaign, 55P03 if the lock on
-- events is not available within 10 seconds, or then a row within one, 25001
-- unless the transaction is READ COMMITTED.
CREATE FUNCTION postalytics.drop_campaign(campaign_id text)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    naming text[];
BEGIN
    PERFORM postalytics.check_read_committed('drop_campaign');
    PERFORM postalytics.check_not_distributed();
    IF NOT EXISTS (SELECT
                   FROM postalytics.campaigns AS c
                   WHERE c.campaign_id = drop_campaign.campaign_id) THEN
        RAISE EXCEPTION 'campaign "%" does not exist', campaign_id
            USING ERRCODE = 'undefined_object',
                  HINT = 'Campaign ids are in postalytics.campaigns.';
    END IF;
    -- This reads all events, so it comes before the locks.
    SELECT array_agg(DISTINCT e.piece_id)
    INTO naming
    FROM postalytics.events AS e
    WHERE e.campaign_id = drop_campaign.campaign_id;
    PERFORM
    FROM postalytics.deliveries_unfinished AS d
    WHERE d.piece_id = ANY (postalytics.pieces_of_campaign(campaign_id, naming))
    ORDER BY d.delivery_id
    FOR UPDATE;
    PERFORM postalytics.lock_briefly('postalytics.events', 'SHARE ROW EXCLUSIVE');
    RETURN postalytics.delete_campaign(campaign_id, postalytics.pieces_of_campaign(campaign_id, naming));
END
$$;
COMMENT ON FUNCTION postalytics.drop_campaign(text) IS
    'forget a campaign: its events, pieces, recipients and deliveries; how many events';
