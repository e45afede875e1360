/*
 * copy_configuration.sql
 *		copy_configuration: applies the settings, names, syncs and bindings of the
 *		front of a cluster to a slot.
 *
 * A document of the configuration is a JSON object with the members configuration,
 * field_names, status_names, syncs and bindings.  Each is an array of rows of the table
 * with that name, except that bindings name roles, and syncs also have the members
 * created_at, which tells a sync from an earlier one of the same name, and since.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- Makes the syncs equal to those of a document.  previous is the document that was
-- applied before, or NULL.  A new sync gets deliveries of stored events if it has since, in
-- the same transaction that creates it.  If only_check is true, deliveries are neither
-- created nor deleted.
CREATE FUNCTION postalytics.copy_syncs(document json, previous json, only_check boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given json;
    wanted postalytics.syncs;
    present postalytics.syncs;
BEGIN
    FOR present IN
        SELECT s.*
        FROM postalytics.syncs AS s
        LEFT JOIN json_array_elements(document -> 'syncs') AS d (sync) ON d.sync ->> 'name' = s.name
        LEFT JOIN json_array_elements(previous -> 'syncs') AS p (sync) ON p.sync ->> 'name' = s.name
        WHERE d.sync IS NULL
           OR p.sync IS NOT NULL AND d.sync ->> 'created_at' IS DISTINCT FROM p.sync ->> 'created_at'
    LOOP
        IF only_check THEN
            DELETE FROM postalytics.syncs AS s WHERE s.name = present.name;
        ELSE
            PERFORM postalytics.drop_sync(present.name);
        END IF;
    END LOOP;
    FOR given IN
        SELECT d.sync
        FROM json_array_elements(document -> 'syncs') AS d (sync)
    LOOP
        wanted := json_populate_record(NULL::postalytics.syncs, given);
        SELECT s.*
        INTO present
        FROM postalytics.syncs AS s
        WHERE s.name = wanted.name;
        IF NOT FOUND THEN
            PERFORM postalytics.create_sync(
                wanted.name, campaigns => wanted.campaigns, accounts => wanted.accounts, statuses => wanted.statuses,
                wait => wanted.wait, unless => wanted.unless, latest_only => wanted.latest_only, ordered => wanted.ordered,
                durable => wanted.durable, max_attempts => wanted.max_attempts, channel => wanted.channel,
                enabled => wanted.enabled, since => CASE WHEN NOT only_check THEN (given ->> 'since')::timestamptz END, notify_events => wanted.notify_events,
                rate => wanted.rate, per => wanted.per, max_leased => wanted.max_leased, breaker => wanted.breaker,
                errors => wanted.errors);
        ELSIF present IS DISTINCT FROM wanted THEN
            UPDATE postalytics.syncs AS s
            SET (channel, enabled, campaigns, accounts, statuses, wait, unless, latest_only, ordered, durable, max_attempts,
                 notify_events, rate, per, max_leased, breaker, errors)
                = (wanted.channel, wanted.enabled, wanted.campaigns, wanted.accounts, wanted.statuses, wanted.wait, wanted.unless,
                   wanted.latest_only, wanted.ordered, wanted.durable, wanted.max_attempts,
                   wanted.notify_events, wanted.rate, wanted.per, wanted.max_leased, wanted.breaker, wanted.errors)
            WHERE s.name = wanted.name;
            IF wanted.enabled AND NOT present.enabled THEN
                PERFORM postalytics.enable_sync(wanted.name);
            END IF;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.copy_syncs(json, json, boolean) IS
    'internal: make the syncs equal to those of the front';

-- Makes the bindings of the roles that exist here equal to those of a document.  Removing a
-- binding for all accounts removes those for single accounts as well, so the missing ones
-- are determined afterwards.
CREATE FUNCTION postalytics.copy_bindings(document json)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT r.rolname AS role, b.privilege, b.account, b.sync
        FROM postalytics.bindings AS b
        JOIN pg_roles AS r ON r.oid = b.role
        EXCEPT
        SELECT d.role, d.privilege, d.account, d.sync
        FROM json_to_recordset(document -> 'bindings') AS d (role name, privilege text, account text, sync text)
    LOOP
        PERFORM postalytics.unbind_role(each.role, each.privilege, each.account, each.sync);
    END LOOP;
    FOR each IN
        SELECT d.role, d.privilege, d.account, d.sync
        FROM json_to_recordset(document -> 'bindings') AS d (role name, privilege text, account text, sync text)
        JOIN pg_roles AS r ON r.rolname = d.role
        EXCEPT
        SELECT r.rolname, b.privilege, b.account, b.sync
        FROM postalytics.bindings AS b
        JOIN pg_roles AS r ON r.oid = b.role
    LOOP
        PERFORM postalytics.bind_role(each.role, each.privilege, each.account, each.sync);
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.copy_bindings(json) IS
    'internal: make the bindings of the roles that exist here equal to those of the front';

-- Makes the settings and the names of fields and statuses equal to those of a document.
CREATE FUNCTION postalytics.copy_names(document json)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT COALESCE(d.name, c.name) AS name, d.value
        FROM json_to_recordset(document -> 'configuration') AS d (name text, value text)
        FULL JOIN postalytics.configuration AS c ON c.name = d.name
        WHERE d.value IS DISTINCT FROM c.value
    LOOP
        PERFORM postalytics.configure(each.name, each.value);
    END LOOP;
    DELETE FROM postalytics.field_names AS f
    WHERE (f.path, f.field) NOT IN (SELECT d.path, d.field
                                    FROM json_to_recordset(document -> 'field_names') AS d (path text, field text));
    INSERT INTO postalytics.field_names (path, field)
    SELECT d.path, d.field
    FROM json_to_recordset(document -> 'field_names') AS d (path text, field text)
    ON CONFLICT DO NOTHING;
    DELETE FROM postalytics.status_names AS t
    WHERE (t.spelling, t.status) NOT IN (SELECT d.spelling, d.status
                                         FROM json_to_recordset(document -> 'status_names') AS d (spelling text, status text));
    INSERT INTO postalytics.status_names (spelling, status)
    SELECT d.spelling, d.status
    FROM json_to_recordset(document -> 'status_names') AS d (spelling text, status text)
    ON CONFLICT DO NOTHING;
END
$$;
COMMENT ON FUNCTION postalytics.copy_names(json) IS
    'internal: make the settings and the names of fields and statuses equal to those of the front';

-- Makes this database a slot of the given front, whose add_slot calls this.  take_over must
-- be true if the slot belongs to another front, or has a configuration: what the front does
-- not have will be dropped, and with syncs their deliveries.  NULL means false.  Locks:
-- the row of slot.  Errors: 55000 if take_over is needed.
CREATE FUNCTION postalytics.claim_slot(front uuid, take_over boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    present postalytics.slot;
BEGIN
    SELECT s.*
    INTO present
    FROM postalytics.slot AS s
    FOR UPDATE;
    IF present.front = claim_slot.front THEN
        RETURN;
    END IF;
    IF take_over IS NOT TRUE AND (present.front IS NOT NULL
                                  OR EXISTS (SELECT FROM postalytics.syncs)
                                  OR EXISTS (SELECT FROM postalytics.bindings)
                                  OR EXISTS (SELECT FROM postalytics.configuration)
                                  OR EXISTS (SELECT FROM postalytics.field_names)
                                  OR EXISTS (SELECT FROM postalytics.status_names)) THEN
        RAISE EXCEPTION 'slot % already has a configuration', present.slot
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'Its settings, names, syncs and bindings would be replaced by those of this front, and deliveries of other syncs deleted.',
                  HINT = 'If that is what you want, call add_slot with take_over => true for each slot.';
    END IF;
    UPDATE postalytics.slot AS s
    SET front = claim_slot.front,
        configuration_version = NULL;
    PERFORM postalytics.audit('claim_slot', NULL, NULL, format('front %s', front));
END
$$;
COMMENT ON FUNCTION postalytics.claim_slot(uuid, boolean) IS
    'internal: make this database a slot of a front';

-- The front first calls this with only_check on all slots, so that a configuration that one
-- slot refuses changes none of them.  Returns 1.  Errors: 55000 if this database is not a slot of this
-- front, and those of configure, create_sync, drop_sync and grant_read.
CREATE FUNCTION postalytics.copy_configuration(front uuid, version bigint, document json, only_check boolean)
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    present postalytics.slot;
BEGIN
    SELECT s.*
    INTO present
    FROM postalytics.slot AS s
    FOR UPDATE;
    IF present.front IS DISTINCT FROM copy_configuration.front THEN
        RAISE EXCEPTION 'database "%" is not a slot of this front', current_database()
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Call add_slot at the front.';
    END IF;
    BEGIN
        PERFORM postalytics.copy_names(document);
        PERFORM postalytics.copy_syncs(document, present.configuration, only_check);
        PERFORM postalytics.copy_bindings(document);
        UPDATE postalytics.slot AS s
        SET configuration_version = version,
            configuration = document;
        IF only_check THEN
            RAISE SQLSTATE 'PX001';    -- undo the changes
        END IF;
    EXCEPTION
        WHEN SQLSTATE 'PX001' THEN
            NULL;
    END;
    RETURN 1;
END
$$;
COMMENT ON FUNCTION postalytics.copy_configuration(uuid, bigint, json, boolean) IS
    'internal: apply the configuration of the front of a cluster, or only check that this is possible';
