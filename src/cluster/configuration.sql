/*
 * configuration.sql
 *		Copies settings, names, syncs and bindings from the front to the slots.
 *
 * The front has the tables of the configuration.  At the end of a transaction that has
 * changed one of them, all slots check the new configuration.  If one refuses it or
 * cannot be reached, the transaction fails.  Otherwise, all slots apply it just before the
 * transaction commits.  If a slot is lost after the check, the transaction still commits,
 * with a warning; cluster_health shows that the slot lags, and maintain() copies the
 * configuration again.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- The configuration that all slots last accepted.  The version is the time of the change, in
-- microseconds since 1970, so that two different configurations never have the same, even
-- if a transaction was rolled back or the front restored.  This table is not dumped.
CREATE TABLE postalytics.cluster_configuration (
    version bigint NOT NULL,
    document json NOT NULL
);
COMMENT ON TABLE postalytics.cluster_configuration IS
    'internal: the configuration that all slots last accepted';
COMMENT ON COLUMN postalytics.cluster_configuration.version IS 'time of the change, in microseconds since 1970';
COMMENT ON COLUMN postalytics.cluster_configuration.document IS 'the configuration, as copy_configuration expects it';

-- The table has one row.
CREATE UNIQUE INDEX cluster_configuration_is_one ON postalytics.cluster_configuration ((true));
ALTER TABLE postalytics.cluster_configuration REPLICA IDENTITY FULL;
ALTER TABLE postalytics.cluster_configuration ENABLE ROW LEVEL SECURITY;

-- When each sync was created, and the argument since of create_sync.
CREATE TABLE postalytics.sync_starts (
    sync text NOT NULL PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    since timestamptz
);
COMMENT ON TABLE postalytics.sync_starts IS
    'internal: when syncs were created, and from when on they have deliveries of stored events';
COMMENT ON COLUMN postalytics.sync_starts.sync IS 'name of the sync';
COMMENT ON COLUMN postalytics.sync_starts.created_at IS 'when it was created';
COMMENT ON COLUMN postalytics.sync_starts.since IS 'argument since of create_sync';
SELECT pg_catalog.pg_extension_config_dump('postalytics.sync_starts', '');
ALTER TABLE postalytics.sync_starts ENABLE ROW LEVEL SECURITY;

-- The limits rate and max_leased apply to all slots together, so each slot gets an equal
-- share, rounded down for max_leased.  If the rate is lower than the number of slots, a
-- slot gets one delivery in a longer period.  Limits that are NULL stay NULL.  Errors: 22023
-- if max_leased is less than the number of slots, or the longer period exceeds 31 days, the
-- maximum of per.
CREATE FUNCTION postalytics.share_of_sync(sync postalytics.syncs, slots integer)
RETURNS postalytics.syncs
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    share postalytics.syncs := sync;
BEGIN
    IF sync.max_leased < slots THEN
        RAISE EXCEPTION 'max_leased of sync "%" must be at least the number of slots, %', sync.name, slots
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'Each slot leases up to its share of max_leased.';
    END IF;
    share.max_leased := sync.max_leased / slots;
    IF sync.rate IS NOT NULL THEN
        share.rate := greatest(sync.rate / slots, 1);
        share.per := greatest(sync.per * (share.rate::double precision * slots / sync.rate), '1 millisecond'::interval);
        IF share.per > '31 days' THEN
            RAISE EXCEPTION 'rate of sync "%" is too low for % slots', sync.name, slots
                USING ERRCODE = 'invalid_parameter_value',
                      DETAIL = 'Each slot leases one delivery in its share of the period, which must not be longer than 31 days.';
        END IF;
    END IF;
    RETURN share;
END
$$;
COMMENT ON FUNCTION postalytics.share_of_sync(postalytics.syncs, integer) IS
    'internal: a sync with the share that each slot has of its limits';

CREATE FUNCTION postalytics.configuration_document()
RETURNS json
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO'
SET intervalstyle = 'postgres'
SET timezone = 'UTC'
AS $$
    SELECT json_build_object(
        'configuration', (SELECT COALESCE(json_agg(c ORDER BY c.name), '[]') FROM postalytics.configuration AS c),
        'field_names', (SELECT COALESCE(json_agg(f ORDER BY f.path COLLATE "C"), '[]') FROM postalytics.field_names AS f),
        'status_names', (SELECT COALESCE(json_agg(t ORDER BY t.spelling COLLATE "C"), '[]') FROM postalytics.status_names AS t),
        'syncs', (SELECT COALESCE(json_agg((to_jsonb(postalytics.share_of_sync(s, (SELECT max(l.slots) FROM postalytics.slots AS l)))
                                            || jsonb_build_object('created_at', b.created_at, 'since', b.since))::json
                                           ORDER BY s.name COLLATE "C"), '[]')
                  FROM postalytics.syncs AS s
                  LEFT JOIN postalytics.sync_starts AS b ON b.sync = s.name),
        'bindings', (SELECT COALESCE(json_agg(json_build_object('role', r.rolname, 'privilege', b.privilege, 'account', b.account, 'sync', b.sync)
                                              ORDER BY r.rolname, b.privilege, b.account, b.sync), '[]')
                     FROM postalytics.bindings AS b
                     JOIN pg_roles AS r ON r.oid = b.role))
$$;
COMMENT ON FUNCTION postalytics.configuration_document() IS
    'internal: the configuration of the front, as copy_configuration expects it';

CREATE FUNCTION postalytics.slots_configuration(front uuid, version bigint, document json, only_check boolean)
RETURNS SETOF integer
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.copy_configuration;
$$;
COMMENT ON FUNCTION postalytics.slots_configuration(uuid, bigint, json, boolean) IS
    'internal: copy_configuration on all slots';

CREATE FUNCTION postalytics.slots_configuration_of(slot integer, front uuid, version bigint, document json)
RETURNS SETOF integer
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON slot;
    SELECT postalytics.copy_configuration(front, version, document, false);
$$;
COMMENT ON FUNCTION postalytics.slots_configuration_of(integer, uuid, bigint, json) IS
    'internal: copy_configuration on one slot';

CREATE FUNCTION postalytics.query_configuration(front uuid, version bigint, document json, only_check boolean)
RETURNS SETOF integer
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_query_slots';
COMMENT ON FUNCTION postalytics.query_configuration(uuid, bigint, json, boolean) IS
    'internal: copy_configuration on all slots, with a time limit';

CREATE FUNCTION postalytics.query_configuration_of(slot integer, front uuid, version bigint, document json)
RETURNS SETOF integer
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_query_slots';
COMMENT ON FUNCTION postalytics.query_configuration_of(integer, uuid, bigint, json) IS
    'internal: copy_configuration on one slot, with a time limit';

-- Copies the accepted configuration to one slot.  The time limit is long because a slot can
-- need long to create a sync with since, or to drop one.  Errors: those of
-- copy_configuration, 08006 if the slot cannot be reached.
CREATE FUNCTION postalytics.copy_to_slot(slot integer)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET postalytics_status.slot_timeout = '1h'
AS $$
    SELECT
    FROM postalytics.cluster_configuration AS c
    CROSS JOIN LATERAL postalytics.query_configuration_of(slot, postalytics.front_id(), c.version, c.document)
$$;
COMMENT ON FUNCTION postalytics.copy_to_slot(integer) IS
    'internal: copy the configuration to a slot';

-- Raises a warning for each slot that fails.
CREATE FUNCTION postalytics.copy_to_each_slot()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target record;
BEGIN
    FOR target IN SELECT s.slot, s.connection FROM postalytics.slots AS s WHERE s.front = postalytics.front_id() ORDER BY s.slot LOOP
        BEGIN
            PERFORM postalytics.copy_to_slot(target.slot);
        EXCEPTION
            WHEN OTHERS THEN
                RAISE WARNING 'could not copy the configuration to slot % (%): %', target.slot, target.connection, SQLERRM
                    USING HINT = 'Call postalytics.maintain() when the slot can be reached.';
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.copy_to_each_slot() IS
    'internal: copy the configuration to the slots, one at a time';

-- A failure only causes warnings, because all slots have accepted the configuration, and
-- some may have applied it already.  configuration.c calls this function.
CREATE FUNCTION postalytics.copy_to_all_slots()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET postalytics_status.slot_timeout = '1h'
AS $$
BEGIN
    BEGIN
        PERFORM
        FROM postalytics.cluster_configuration AS c
        CROSS JOIN LATERAL postalytics.query_configuration(postalytics.front_id(), c.version, c.document, false);
    EXCEPTION
        WHEN OTHERS THEN
            PERFORM postalytics.copy_to_each_slot();
    END;
EXCEPTION
    WHEN query_canceled THEN
        RAISE WARNING 'the configuration may not have been copied to all slots: %', SQLERRM
            USING HINT = 'Call postalytics.maintain().';
END
$$;
COMMENT ON FUNCTION postalytics.copy_to_all_slots() IS
    'internal: copy the configuration to all slots at once';

CREATE FUNCTION postalytics.copy_at_commit()
RETURNS void
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_copy_at_commit';
COMMENT ON FUNCTION postalytics.copy_at_commit() IS
    'internal: call copy_to_all_slots when the transaction commits';

CREATE FUNCTION postalytics.is_staged()
RETURNS boolean
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_is_staged';
COMMENT ON FUNCTION postalytics.is_staged() IS
    'internal: true if the configuration is to be copied when this transaction commits';

-- Checks the configuration on all slots, and schedules its copy for commit.  Does nothing
-- before the cluster is complete, or if nothing has changed.
--
-- Locks: EXCLUSIVE on cluster_configuration, so that changes are copied one after the
-- other.  Errors: 40001 if an older snapshot does not show the latest configuration, and
-- those of the slots, if one refuses the configuration or cannot be reached.
CREATE FUNCTION postalytics.stage_configuration()
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    present postalytics.cluster_configuration;
    new postalytics.cluster_configuration;
BEGIN
    LOCK TABLE postalytics.cluster_configuration IN EXCLUSIVE MODE;
    IF NOT postalytics.is_complete() THEN
        RETURN;
    END IF;
    SELECT c.*
    INTO present
    FROM postalytics.cluster_configuration AS c;
    new.version := greatest(present.version + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
    new.document := postalytics.configuration_document();
    IF present.document::text = new.document::text THEN
        RETURN;
    END IF;
    PERFORM FROM postalytics.query_configuration(postalytics.front_id(), new.version, new.document, true);
    DELETE FROM postalytics.cluster_configuration;
    -- With an older snapshot, a row that is not visible raises 40001.
    INSERT INTO postalytics.cluster_configuration
    SELECT new.*
    ON CONFLICT DO NOTHING;
    PERFORM postalytics.copy_at_commit();
END
$$;
COMMENT ON FUNCTION postalytics.stage_configuration() IS
    'internal: check a changed configuration on all slots, and schedule its copy for commit';

CREATE FUNCTION postalytics.copy_changes()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM postalytics.stage_configuration();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION postalytics.copy_changes() IS
    'internal: trigger function that checks a changed configuration and schedules its copy';

-- A restore fires the triggers as well, but a restored front has no slots yet.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY '{configuration,field_names,status_names,syncs,sync_starts,bindings}'::text[]
    LOOP
        EXECUTE format(
            'CREATE CONSTRAINT TRIGGER copy_changes '
            'AFTER INSERT OR UPDATE OR DELETE ON postalytics.%I '
            'DEFERRABLE INITIALLY DEFERRED '
            'FOR EACH ROW '
            'EXECUTE FUNCTION postalytics.copy_changes()', name);
    END LOOP;
END
$$;
