/*
 * maintain.sql
 *		Housekeeping: months made ahead, old months and old history retired,
 *		campaigns forgotten.
 */

CREATE TABLE postalytics.maintenance_log (
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    action text NOT NULL,
    relation text NOT NULL,
    detail text
);
CREATE INDEX maintenance_log_at_idx ON postalytics.maintenance_log (at);
COMMENT ON TABLE postalytics.maintenance_log IS
    'what maintain() did: a row a leaf that it made, dropped, detached or had to leave; kept for a year';

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
    'internal: note what maintain() did';

-- The leaves of a partitioned table with the instant at which each ends; a
-- day's leaf of deliveries is IN ('2026-11-23'), a month's of events
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

-- Deliveries that still wait for events of a month carry their payload from
-- then on.  Locks: ACCESS EXCLUSIVE on events, no longer than lock_timeout for
-- each leaf, and until the transaction ends.
CREATE FUNCTION postalytics.retire_month(leaf regclass, retention_action text)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    carried bigint;
BEGIN
    LOCK TABLE ONLY postalytics.events IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('UPDATE postalytics.deliveries_unfinished AS d
                    SET payload = e.payload
                    FROM %s AS e
                    WHERE (d.piece_id, d.status, d.occurred_at) = (e.piece_id, e.status, e.occurred_at)
                      AND e.payload IS NOT NULL',
                   leaf);
    GET DIAGNOSTICS carried = ROW_COUNT;
    IF retention_action = 'drop' THEN
        EXECUTE format('DROP TABLE %s', leaf);
    ELSE
        EXECUTE format('ALTER TABLE postalytics.events DETACH PARTITION %s', leaf);
    END IF;
    RETURN format('%s deliveries still wait', carried);
END
$$;
COMMENT ON FUNCTION postalytics.retire_month(regclass, text) IS
    'internal: drop or detach a month of events';

-- Keeps writers of events waiting until the transaction ends: SHARE ROW
-- EXCLUSIVE on events.  Errors: 42704 where there is no such campaign.
CREATE FUNCTION postalytics.drop_campaign(campaign_id text)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    dropped bigint;
BEGIN
    LOCK TABLE postalytics.events IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM postalytics.deliveries AS d
    USING postalytics.pieces AS p
    WHERE p.campaign_id = drop_campaign.campaign_id
      AND d.piece_id = p.piece_id;
    DELETE FROM postalytics.events AS e
    USING postalytics.pieces AS p
    WHERE p.campaign_id = drop_campaign.campaign_id
      AND e.piece_id = p.piece_id;
    GET DIAGNOSTICS dropped = ROW_COUNT;
    DELETE FROM postalytics.pieces AS p
    WHERE p.campaign_id = drop_campaign.campaign_id;
    DELETE FROM postalytics.campaigns AS c
    WHERE c.campaign_id = drop_campaign.campaign_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'campaign "%" does not exist', campaign_id
            USING ERRCODE = 'undefined_object',
                  HINT = 'Their ids are in postalytics.campaigns.';
    END IF;
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION postalytics.drop_campaign(text) IS
    'forget a campaign: its events, pieces, recipients and deliveries; how many events';

-- Safe to run at any time and twice at once: the second finds the first's lock
-- and does nothing.  A leaf that cannot be had within lock_timeout is left for
-- the next run, which the log says.
CREATE FUNCTION postalytics.maintain()
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
