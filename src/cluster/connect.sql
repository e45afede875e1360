/*
 * connect.sql
 *		add_slot: connects the front to a slot.
 *
 * The servers, user mappings and foreign tables are not members of the extension, so a
 * dump contains them.  The server postalytics is the cluster of PL/Proxy, and
 * postalytics_slot_N is slot N for postgres_fdw.  A restored front has them, but no rows in
 * slots, so it is not complete before add_slot has been called for each slot.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- The relations of a slot that have a foreign table at the front.  The foreign table is a
-- partition of parent, with this key, or inherits from parent if key is NULL.
CREATE FUNCTION postalytics.distributed_relations()
RETURNS TABLE (relation name, parent name, key text)
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.relation, r.relation, r.key
    FROM (VALUES
        ('events'::name, 'HASH (piece_id)'),
        ('pieces', 'HASH (piece_id)'),
        ('production_errors', 'HASH (piece_id)'),
        ('deliveries', 'HASH (piece_id)'),
        ('deliveries_unfinished', 'HASH (piece_id)'),
        ('dead_letters', 'HASH (piece_id)'),
        ('delivery_errors', 'HASH (piece_id)'),
        ('returned_mail', 'HASH (piece_id)'),
        ('rejects', 'RANGE (reject_id)'),
        ('pauses', NULL),
        ('breaker_events', NULL),
        ('maintenance_log', NULL)) AS r (relation, key)
    UNION ALL
    SELECT r.relation, ('slots_' || r.relation)::name, NULL
    FROM unnest('{campaigns,campaign_funnel,campaign_funnel_by_country,campaign_responses,day_counts,sync_health}'::name[]) AS r (relation)
$$;
COMMENT ON FUNCTION postalytics.distributed_relations() IS
    'internal: the relations of a slot that have a foreign table at the front';

-- Errors: 22023 if the text is not a connection string of parameters such as host=db1.
CREATE FUNCTION postalytics.connection_options(connection text)
RETURNS TABLE (name text, value text)
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF connection !~ '^(\s*\w+\s*=\s*(''([^''\\]|\\.)*''|[^''\s]\S*)(\s+|$))+$' THEN
        RAISE EXCEPTION 'invalid connection string'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Write parameters such as: host=db1 dbname=crm_0 user=crm_front.';
    END IF;
    RETURN QUERY
    SELECT m.option[1],
           CASE
               WHEN m.option[2] LIKE '''%' THEN regexp_replace(substr(m.option[2], 2, length(m.option[2]) - 2), '\\(.)', '\1', 'g')
               ELSE m.option[2]
           END
    FROM regexp_matches(connection, '(\w+)\s*=\s*(''(?:[^''\\]|\\.)*''|\S+)', 'g') AS m (option);
END
$$;
COMMENT ON FUNCTION postalytics.connection_options(text) IS
    'internal: the parameters of a connection string';

CREATE FUNCTION postalytics.connection_string(options text[])
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format('%s=''%s''', split_part(o.option, '=', 1),
                             replace(replace(substr(o.option, strpos(o.option, '=') + 1), '\', '\\'), '''', '\''')), ' ')
    FROM unnest(options) AS o (option)
$$;
COMMENT ON FUNCTION postalytics.connection_string(text[]) IS
    'internal: the connection string with these options, each as name=value';

CREATE FUNCTION postalytics.slots_identity(connection text, OUT slot integer, OUT slots integer, OUT version text, OUT database text, OUT encoding text, OUT datestyle text, OUT statement_timeout text)
RETURNS SETOF record
LANGUAGE plproxy
AS $$
    CONNECT connection;
    SELECT s.slot, s.slots, x.extversion::text AS version, pg_catalog.current_database()::text AS database,
           pg_catalog.getdatabaseencoding()::text AS encoding, pg_catalog.current_setting('datestyle') AS datestyle,
           pg_catalog.current_setting('statement_timeout') AS statement_timeout
    FROM pg_catalog.pg_extension AS x
    LEFT JOIN postalytics.slot AS s ON true
    WHERE x.extname = 'postalytics_status';
$$;
COMMENT ON FUNCTION postalytics.slots_identity(text) IS
    'internal: the slot to which a connection string leads';

CREATE FUNCTION postalytics.query_identity(connection text, OUT slot integer, OUT slots integer, OUT version text, OUT database text, OUT encoding text, OUT datestyle text, OUT statement_timeout text)
RETURNS SETOF record
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_query_slot';
COMMENT ON FUNCTION postalytics.query_identity(text) IS
    'internal: the slot to which a connection string leads, with a time limit';

CREATE FUNCTION postalytics.slots_claim(connection text, front uuid, take_over boolean)
RETURNS SETOF integer
LANGUAGE plproxy
AS $$
    CONNECT connection;
    SELECT 1 FROM postalytics.claim_slot(front, take_over) AS c;
$$;
COMMENT ON FUNCTION postalytics.slots_claim(text, uuid, boolean) IS
    'internal: claim_slot on the slot to which a connection string leads';

CREATE FUNCTION postalytics.query_claim(connection text, front uuid, take_over boolean)
RETURNS SETOF integer
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_query_slot';
COMMENT ON FUNCTION postalytics.query_claim(text, uuid, boolean) IS
    'internal: claim_slot on the slot to which a connection string leads, with a time limit';

CREATE FUNCTION postalytics.server_options(server name)
RETURNS TABLE (name text, value text)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT o.option_name, o.option_value
    FROM pg_foreign_server AS s
    CROSS JOIN LATERAL pg_options_to_table(s.srvoptions) AS o
    WHERE s.srvname = server
$$;
COMMENT ON FUNCTION postalytics.server_options(name) IS
    'internal: options of a foreign server';

-- Makes the options of a foreign server equal to these, creating the server if needed.
CREATE FUNCTION postalytics.set_server(server name, wrapper name, names text[], settings text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changes text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_foreign_server AS s WHERE s.srvname = server) THEN
        EXECUTE format('CREATE SERVER %I FOREIGN DATA WRAPPER %I OPTIONS (%s)', server, wrapper,
                       (SELECT string_agg(format('%I %L', n.name, n.value), ', ') FROM unnest(names, settings) AS n (name, value)));
        RETURN;
    END IF;
    SELECT string_agg(CASE
                          WHEN n.name IS NULL THEN format('DROP %I', o.name)
                          ELSE format('%s %I %L', CASE WHEN o.name IS NULL THEN 'ADD' ELSE 'SET' END, n.name, n.value)
                      END, ', ')
    INTO changes
    FROM unnest(names, settings) AS n (name, value)
    FULL JOIN postalytics.server_options(server) AS o ON o.name = n.name
    WHERE o.value IS DISTINCT FROM n.value;
    IF changes IS NOT NULL THEN
        EXECUTE format('ALTER SERVER %I OPTIONS (%s)', server, changes);
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.set_server(name, name, text[], text[]) IS
    'internal: create a foreign server, or change its options';

CREATE FUNCTION postalytics.set_user(server name, role text, options text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_user_mappings AS m WHERE m.srvname = server) THEN
        EXECUTE format('DROP USER MAPPING FOR %s SERVER %I', role, server);
    END IF;
    EXECUTE format('CREATE USER MAPPING FOR %s SERVER %I OPTIONS (%s)', role, server, options);
END
$$;
COMMENT ON FUNCTION postalytics.set_user(name, text, text) IS
    'internal: set the user mapping of a foreign server';

CREATE FUNCTION postalytics.create_foreign_tables(slot integer, slots integer)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT d.relation, d.parent, d.key
        FROM postalytics.distributed_relations() AS d
        WHERE to_regclass(format('postalytics_slots.%I', d.relation || '_slot_' || create_foreign_tables.slot)) IS NULL
    LOOP
        EXECUTE format('CREATE FOREIGN TABLE postalytics_slots.%I %s SERVER %I OPTIONS (schema_name ''postalytics'', table_name %L)',
                       each.relation || '_slot_' || slot,
                       CASE
                           WHEN each.key IS NULL THEN format('() INHERITS (postalytics.%I)', each.parent)
                           WHEN each.key LIKE 'HASH%' THEN
                               format('PARTITION OF postalytics.%I FOR VALUES WITH (MODULUS %s, REMAINDER %s)', each.parent, slots, slot)
                           ELSE
                               format('PARTITION OF postalytics.%I FOR VALUES FROM (%s) TO (%s)', each.parent,
                                      postalytics.first_id_of_slot(slot), postalytics.first_id_of_slot(slot + 1))
                       END,
                       'postalytics_slot_' || slot, each.relation);
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.create_foreign_tables(integer, integer) IS
    'internal: create the foreign tables of a slot that do not exist yet';

-- Checks that a connection leads to a slot that this cluster can have, and returns the number
-- of slots in the cluster.  role is the user of the connection.  Errors: those of add_slot,
-- except 0A000, 25001, 42501 and 22004.
CREATE FUNCTION postalytics.check_slot(slot integer, conninfo text, role text)
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own_version CONSTANT text := (SELECT x.extversion FROM pg_extension AS x WHERE x.extname = 'postalytics_cluster');
    -- A restored front and a copy have partitions before they have slots.
    all_slots CONSTANT integer := (SELECT max(substring(pg_get_expr(c.relpartbound, c.oid) FROM 'modulus (\d+)')::integer)
                                   FROM pg_inherits AS i
                                   JOIN pg_class AS c ON c.oid = i.inhrelid
                                   WHERE i.inhparent = 'postalytics.pieces'::regclass);
    found record;
BEGIN
    BEGIN
        SELECT i.*
        INTO found
        FROM postalytics.query_identity(conninfo) AS i;
    EXCEPTION
        WHEN undefined_table THEN
            SELECT NULL::integer AS slot    -- the database does not have the extension
            INTO found;
    END;
    IF found.slot IS NULL THEN
        RAISE EXCEPTION 'the database of the connection is not a slot of a cluster'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Create extension postalytics_status in it, and call join_cluster.';
    END IF;
    IF found.slot <> check_slot.slot THEN
        RAISE EXCEPTION 'database "%" is slot %, not slot %', found.database, found.slot, slot
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF all_slots <> found.slots THEN
        RAISE EXCEPTION 'database "%" belongs to a cluster of % slots, but this cluster has %', found.database, found.slots, all_slots
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- PL/Proxy reads results as text, and does not notice that a slot has canceled a call.
    IF found.datestyle NOT LIKE 'ISO%' OR found.statement_timeout <> '0' THEN
        RAISE EXCEPTION 'database "%" has datestyle "%" and statement_timeout "%" for role "%"', found.database, found.datestyle,
                        found.statement_timeout, role
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('In the database of the slot: ALTER ROLE %I SET datestyle = ''ISO''; ALTER ROLE %I SET statement_timeout = 0.', role, role);
    END IF;
    -- The slot of a piece is a hash of the bytes of its id.
    IF found.encoding <> getdatabaseencoding() THEN
        RAISE EXCEPTION 'database "%" has encoding %, but the front has %', found.database, found.encoding, getdatabaseencoding()
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF split_part(found.version, '.', 1) <> split_part(own_version, '.', 1) THEN
        RAISE EXCEPTION 'extension postalytics_status has version % in database "%", but the front has version %', found.version, found.database, own_version
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Update the extension in the database or at the front; both need the same major version.';
    END IF;
    RETURN found.slots;
END
$$;
COMMENT ON FUNCTION postalytics.check_slot(integer, text, text) IS
    'internal: check the database of a slot before the front connects to it';

-- Copies the configuration to a slot of a complete cluster, unless the slot has it.  A slot
-- that has moved may be restored from an older dump.  If the configuration has changed
-- without a trigger, for example because a role was renamed, all slots need the change.  If
-- another slot cannot be reached, this one gets what all slots last accepted.
CREATE FUNCTION postalytics.copy_to_moved_slot(slot integer)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    BEGIN
        PERFORM postalytics.stage_configuration();
    EXCEPTION
        WHEN OTHERS THEN
            RAISE WARNING 'could not copy the latest configuration: %', SQLERRM
                USING HINT = 'Call postalytics.maintain() when all slots can be reached.';
    END;
    IF NOT postalytics.is_staged()
       AND (SELECT s.configuration_version FROM postalytics.query_state(slot) AS s)
           IS DISTINCT FROM (SELECT c.version FROM postalytics.cluster_configuration AS c) THEN
        PERFORM postalytics.copy_to_slot(slot);
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.copy_to_moved_slot(integer) IS
    'internal: copy the configuration to a slot of a complete cluster';

-- Connects the front to a slot, or changes the connection of a slot that has moved.  The
-- database must have joined the cluster as this slot.  user defaults to session_user; this
-- role needs the privileges of the owner of postalytics_status in the slot's database.  The
-- user and password of the last call are used for all slots.  The last slot completes the
-- cluster.  take_over is explained at claim_slot (copy_configuration.sql).
--
-- Locks: SHARE ROW EXCLUSIVE on slots, then ACCESS EXCLUSIVE on the partitioned tables at the
-- first call for a slot, then those of stage_configuration.
-- Errors: 0A000 in a transaction block, 25001 unless the transaction is READ COMMITTED, 42501
-- unless the owner calls it, 22004 for NULL, 22023 for a connection string that is not valid
-- or leads to another slot, 55000 if the database is not a slot, belongs to another front, or
-- has another version, encoding, datestyle or a statement_timeout, 08006 if there is no
-- connection.
CREATE FUNCTION postalytics.add_slot(slot integer, connection text, take_over boolean DEFAULT false)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    options CONSTANT text[] := ARRAY(SELECT o.name || '=' || o.value
                                     FROM postalytics.connection_options(connection) AS o
                                     WHERE o.name NOT IN ('user', 'password'));
    role CONSTANT text := COALESCE((SELECT o.value FROM postalytics.connection_options(connection) AS o WHERE o.name = 'user'), session_user);
    password CONSTANT text := (SELECT o.value FROM postalytics.connection_options(connection) AS o WHERE o.name = 'password');
    credentials CONSTANT text := format('"user" %L', role) || CASE WHEN password IS NULL THEN '' ELSE format(', password %L', password) END;
    conninfo CONSTANT text := postalytics.connection_string(options || ('user=' || role) || CASE WHEN password IS NOT NULL THEN ARRAY['password=' || password] END);
    all_slots integer;
BEGIN
    PERFORM postalytics.check_no_block('add_slot');
    PERFORM postalytics.check_read_committed('add_slot');
    IF slot IS NULL OR connection IS NULL THEN
        RAISE EXCEPTION 'slot and connection must not be NULL'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF NOT EXISTS (SELECT
                   FROM pg_class AS c
                   JOIN pg_roles AS r ON r.oid = c.relowner
                   WHERE c.oid = 'postalytics.slots'::regclass
                     AND r.rolname = current_user) THEN
        RAISE EXCEPTION 'must be owner of extension postalytics_cluster'
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Use SET ROLE.';
    END IF;
    LOCK TABLE postalytics.slots IN SHARE ROW EXCLUSIVE MODE;
    all_slots := postalytics.check_slot(slot, conninfo, role);
    -- What a copy has inherited was added to another front.
    DELETE FROM postalytics.slots AS s
    WHERE s.front <> postalytics.front_id();
    IF FOUND THEN
        DELETE FROM postalytics.cluster_configuration;
    END IF;
    PERFORM FROM postalytics.query_claim(conninfo, postalytics.front_id(), take_over);
    PERFORM postalytics.set_server('postalytics_slot_' || slot, 'postgres_fdw',
                                   ARRAY(SELECT split_part(p.option, '=', 1) FROM unnest(options) AS p (option)) || '{async_capable,fetch_size,extensions}',
                                   ARRAY(SELECT substr(p.option, strpos(p.option, '=') + 1) FROM unnest(options) AS p (option)) || '{true,10000,postalytics_cluster}');
    PERFORM postalytics.set_user('postalytics_slot_' || slot, 'PUBLIC',
                                 credentials || CASE WHEN password IS NULL THEN ', password_required ''false''' ELSE '' END);
    PERFORM postalytics.create_foreign_tables(slot, all_slots);
    INSERT INTO postalytics.slots AS s (slot, slots, connection, front)
    VALUES (add_slot.slot, all_slots, postalytics.connection_string(options), postalytics.front_id())
    ON CONFLICT ON CONSTRAINT slots_pkey DO UPDATE
    SET connection = excluded.connection;
    PERFORM postalytics.audit('add_slot', slot::text, NULL, postalytics.connection_string(options));
    IF (SELECT count(*) FROM postalytics.slots) = all_slots THEN
        PERFORM postalytics.set_server('postalytics', 'plproxy',
                                       ARRAY(SELECT 'p' || s.slot FROM postalytics.slots AS s ORDER BY s.slot),
                                       ARRAY(SELECT s.connection FROM postalytics.slots AS s ORDER BY s.slot));
        PERFORM postalytics.set_user('postalytics', 'CURRENT_USER', credentials);
        IF NOT EXISTS (SELECT FROM postalytics.cluster_configuration) THEN
            PERFORM postalytics.stage_configuration();
        ELSE
            PERFORM postalytics.copy_to_moved_slot(slot);
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.add_slot(integer, text, boolean) IS
    'connect the front to a slot of the cluster, or change the connection of a slot that has moved';
