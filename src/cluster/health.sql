/*
 * health.sql
 *		cluster_health, and what monitoring sees of all slots.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- Counts the events if they take up less than 100 MB, because the estimate in pg_class is
-- inaccurate for small tables.
CREATE FUNCTION postalytics.slots_state(slot integer, OUT version text, OUT front uuid, OUT configuration_version bigint, OUT events bigint)
RETURNS SETOF record
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON slot;
    SELECT x.extversion::text AS version,
           s.front,
           s.configuration_version,
           CASE
               WHEN t.size < 100 * 1024 * 1024 THEN (SELECT count(*) FROM postalytics.events)
               ELSE t.rows
           END AS events
    FROM postalytics.slot AS s
    CROSS JOIN pg_catalog.pg_extension AS x
    CROSS JOIN (SELECT COALESCE(sum(pg_catalog.pg_relation_size(p.relid)), 0) AS size,
                       COALESCE(sum(c.reltuples) FILTER (WHERE c.reltuples > 0), 0)::bigint AS rows
                FROM pg_catalog.pg_partition_tree('postalytics.events') AS p
                JOIN pg_catalog.pg_class AS c ON c.oid = p.relid) AS t
    WHERE x.extname = 'postalytics_status';
$$;
COMMENT ON FUNCTION postalytics.slots_state(integer) IS
    'internal: state of a slot';

CREATE FUNCTION postalytics.query_state(slot integer, OUT version text, OUT front uuid, OUT configuration_version bigint, OUT events bigint)
RETURNS SETOF record
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_query_slots';
COMMENT ON FUNCTION postalytics.query_state(integer) IS
    'internal: state of a slot, with a time limit';

-- The slots are queried one after the other.  lag is the time since the last change of the
-- configuration if the slot has another version.
CREATE FUNCTION postalytics.slot_states()
RETURNS TABLE (slot integer, host text, reachable boolean, version text, events bigint, lag interval, last_error text)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET postalytics_status.slot_timeout = '3s'
AS $$
DECLARE
    each postalytics.slots;
    state record;
BEGIN
    FOR each IN SELECT s.* FROM postalytics.slots AS s ORDER BY s.slot LOOP
        slot := each.slot;
        host := each.connection;
        reachable := true;
        version := NULL;
        events := NULL;
        lag := NULL;
        last_error := NULL;
        IF each.front <> postalytics.front_id() THEN
            reachable := false;
            last_error := 'the slot belongs to another front';
            RETURN NEXT;
            CONTINUE;
        END IF;
        BEGIN
            SELECT a.*
            INTO state
            FROM postalytics.query_state(each.slot) AS a;
            version := state.version;
            events := state.events;
            SELECT CASE
                       WHEN c.version = state.configuration_version THEN '0'
                       ELSE clock_timestamp() - to_timestamp(c.version / 1000000.0)
                   END
            INTO lag
            FROM postalytics.cluster_configuration AS c;
            IF state.front IS DISTINCT FROM postalytics.front_id() THEN
                last_error := 'the slot belongs to another front';
            END IF;
        EXCEPTION
            WHEN OTHERS THEN
                reachable := false;
                last_error := SQLERRM;
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.slot_states() IS
    'internal: state of each slot';

CREATE VIEW postalytics.cluster_health
WITH (security_invoker = true) AS
SELECT s.slot,
       s.host,
       s.reachable,
       s.version,
       s.events,
       s.lag,
       s.last_error
FROM postalytics.slot_states() AS s;
COMMENT ON VIEW postalytics.cluster_health IS
    'state of each slot; a slot that does not respond within 3 seconds counts as not reachable';
COMMENT ON COLUMN postalytics.cluster_health.slot IS 'number of the slot';
COMMENT ON COLUMN postalytics.cluster_health.host IS 'where the slot is: its connection string, without user and password';
COMMENT ON COLUMN postalytics.cluster_health.reachable IS 'true if the slot responds';
COMMENT ON COLUMN postalytics.cluster_health.version IS 'version of postalytics_status on the slot';
COMMENT ON COLUMN postalytics.cluster_health.events IS 'number of events on the slot; an estimate if they take up more than 100 MB';
COMMENT ON COLUMN postalytics.cluster_health.lag IS 'time since the latest change of the configuration, if the slot has not applied it; otherwise 0; NULL if the slot is not reachable';
COMMENT ON COLUMN postalytics.cluster_health.last_error IS 'why the slot is not reachable, or that it belongs to another front; otherwise NULL';

-- ---- metrics and checks ----

CREATE FUNCTION postalytics.slots_metrics(slot integer)
RETURNS TABLE (name text, labels jsonb, value double precision)
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON slot;
    SELECT m.name, m.labels || pg_catalog.jsonb_build_object('slot', $1) AS labels, m.value
    FROM postalytics.metrics AS m;
$$;
COMMENT ON FUNCTION postalytics.slots_metrics(integer) IS
    'internal: metrics of a slot, with the label slot';

CREATE FUNCTION postalytics.query_metrics(slot integer)
RETURNS TABLE (name text, labels jsonb, value double precision)
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_query_slots';
COMMENT ON FUNCTION postalytics.query_metrics(integer) IS
    'internal: metrics of a slot, with a time limit';

-- A slot that cannot be reached has only the metrics of database_metrics.
CREATE OR REPLACE FUNCTION postalytics.sync_metrics()
RETURNS TABLE (name text, labels jsonb, value double precision)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET postalytics_status.slot_timeout = '3s'
AS $$
DECLARE
    each integer;
BEGIN
    FOR each IN SELECT s.slot FROM postalytics.slots AS s ORDER BY s.slot LOOP
        BEGIN
            RETURN QUERY
            SELECT m.*
            FROM postalytics.query_metrics(each) AS m;
        EXCEPTION
            WHEN OTHERS THEN
                NULL;
        END;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION postalytics.database_metrics()
RETURNS TABLE (name text, labels jsonb, value double precision)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT m.name, jsonb_build_object('slot', h.slot), m.value
    FROM postalytics.cluster_health AS h
    CROSS JOIN LATERAL (VALUES ('slot_reachable', h.reachable::integer::double precision),
                               ('slot_lag_seconds', date_part('epoch', h.lag))) AS m (name, value)
    WHERE m.value IS NOT NULL
$$;

CREATE FUNCTION postalytics.slots_findings()
RETURNS SETOF postalytics.setup_finding
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    SELECT f.severity, f.name, pg_catalog.format('Slot %s: %s', (SELECT s.slot FROM postalytics.slot AS s), f.finding) AS finding, f.remedy
    FROM postalytics.check_setup() AS f;
$$;
COMMENT ON FUNCTION postalytics.slots_findings() IS
    'internal: findings of check_setup of all slots';

CREATE FUNCTION postalytics.query_findings()
RETURNS SETOF postalytics.setup_finding
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_query_slots';
COMMENT ON FUNCTION postalytics.query_findings() IS
    'internal: findings of check_setup of all slots, with a time limit';

CREATE FUNCTION postalytics.check_slots()
RETURNS SETOF postalytics.setup_finding
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN h.last_error IS NULL THEN 'warning' ELSE 'error' END, 'slot',
           CASE
               WHEN h.last_error IS NULL THEN format('Slot %s does not have the latest configuration.', h.slot)
               ELSE format('Slot %s: %s.', h.slot, rtrim(h.last_error, E'.\n'))
           END,
           CASE
               WHEN h.last_error IS NULL THEN 'SELECT postalytics.maintain();'
               WHEN h.last_error = 'the slot belongs to another front' THEN 'Call add_slot with take_over => true for each slot, or drop this front.'
               WHEN NOT postalytics.is_complete() THEN 'Call add_slot for the other slots.'
               ELSE 'Start its server, or call add_slot with its new connection string.'
           END
    FROM postalytics.cluster_health AS h
    WHERE h.last_error IS NOT NULL
       OR h.lag <> '0'
    UNION ALL
    SELECT 'error', 'slot', 'The cluster has no slots.',
           'Call add_slot for each slot, with take_over => true if this front was restored from a dump.'
    WHERE NOT EXISTS (SELECT FROM postalytics.slots)
    UNION ALL
    SELECT 'warning', 'pg_read_all_data',
           format('Role %I can read the foreign tables, and so the data of all accounts.', r.rolname),
           format('REVOKE pg_read_all_data FROM %I;', r.rolname)
    FROM pg_roles AS r
    WHERE NOT r.rolsuper
      AND r.rolname NOT LIKE 'pg\_%'
      AND pg_has_role(r.oid, 'pg_read_all_data', 'USAGE')
$$;
COMMENT ON FUNCTION postalytics.check_slots() IS
    'internal: slots that cannot be reached or lag, and roles that can read them';

CREATE OR REPLACE FUNCTION postalytics.setup_checks()
RETURNS text[]
LANGUAGE sql
IMMUTABLE
RETURN '{check_slots,query_findings,check_roles}'::text[];
