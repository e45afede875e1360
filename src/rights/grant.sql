/*
 * grant.sql
 *		Privileges: the policies, and the functions that grant and revoke.
 *
 * PUBLIC may use the lifecycle functions and the functions that policies call.  Every
 * other privilege consists of GRANTs and a row of bindings.  Functions that work on the
 * data of an account or a sync check the binding in C.  Policies check the binding when
 * a query reads a table.
 *
 * This file comes last in the script, because it refers to objects of all parts of the
 * extension.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- ---- policies ----

DO $$
DECLARE
    each regclass;
BEGIN
    FOREACH each IN ARRAY postalytics.account_tables() LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', each);
        EXECUTE format('CREATE POLICY readers ON %s FOR SELECT USING (%s)', each, postalytics.reader_condition());
    END LOOP;
END
$$;

-- Row-level security also protects the configuration tables from GRANT ... ON ALL
-- TABLES.
ALTER TABLE postalytics.bindings ENABLE ROW LEVEL SECURITY;
CREATE POLICY managers ON postalytics.bindings
    FOR SELECT
    USING ((SELECT postalytics.is_manager()));
ALTER TABLE postalytics.audit_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY managers ON postalytics.audit_log
    FOR SELECT
    USING ((SELECT postalytics.is_manager()));
ALTER TABLE postalytics.configuration ENABLE ROW LEVEL SECURITY;
ALTER TABLE postalytics.field_names ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON postalytics.field_names
    FOR SELECT
    USING ((SELECT postalytics.reads_all()));
CREATE POLICY managers ON postalytics.field_names
    USING ((SELECT postalytics.is_manager()));
ALTER TABLE postalytics.status_names ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON postalytics.status_names
    FOR SELECT
    USING ((SELECT postalytics.reads_all()));
CREATE POLICY managers ON postalytics.status_names
    USING ((SELECT postalytics.is_manager()));
ALTER TABLE postalytics.syncs ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON postalytics.syncs
    FOR SELECT
    USING ((SELECT postalytics.reads_all())
           OR accounts OPERATOR(pg_catalog.<@) (SELECT postalytics.readable_accounts())::text[]);
CREATE POLICY managers ON postalytics.syncs
    USING ((SELECT postalytics.is_manager()));
ALTER TABLE postalytics.contact_links ENABLE ROW LEVEL SECURITY;
CREATE POLICY managers ON postalytics.contact_links
    FOR SELECT
    USING ((SELECT postalytics.is_manager()));
ALTER TABLE postalytics.pending_links ENABLE ROW LEVEL SECURITY;
CREATE POLICY managers ON postalytics.pending_links
    FOR SELECT
    USING ((SELECT postalytics.is_manager()));
-- A role sees the pauses and breaker events of the syncs that it can see.
ALTER TABLE postalytics.pauses ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON postalytics.pauses
    FOR SELECT
    USING (postalytics.may_see(sync, false, ARRAY(SELECT s.name FROM postalytics.syncs AS s)));
ALTER TABLE postalytics.breaker_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON postalytics.breaker_events
    FOR SELECT
    USING (postalytics.may_see(sync, false, ARRAY(SELECT s.name FROM postalytics.syncs AS s)));

-- Roles that may read all accounts get the policy readers_of_all.  Its condition is
-- always true, so the planner removes the conditions of all policies.  A remaining
-- condition would prevent index scans with operators that are not leakproof.  A dump
-- does not contain this policy, so grant_read and maintain create it again.
CREATE FUNCTION postalytics.readers_of_all()
RETURNS oid[]
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(SELECT b.role::oid
                 FROM postalytics.bindings AS b
                 JOIN pg_roles AS r ON r.oid = b.role
                 WHERE b.privilege = 'read'
                   AND b.account IS NULL
                 ORDER BY 1)
$$;
COMMENT ON FUNCTION postalytics.readers_of_all() IS
    'internal: the roles that may read all accounts';

-- Returns the roles of policy readers_of_all for each account table, or no roles for a
-- table that does not have this policy.
CREATE FUNCTION postalytics.policy_roles()
RETURNS TABLE (relation regclass, roles oid[])
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.relation, ARRAY(SELECT r.role FROM unnest(p.polroles) AS r (role) ORDER BY 1)
    FROM unnest(postalytics.account_tables()) AS t (relation)
    LEFT JOIN pg_policy AS p ON p.polrelid = t.relation AND p.polname = 'readers_of_all'
$$;
COMMENT ON FUNCTION postalytics.policy_roles() IS
    'internal: the account tables, and the roles of policy readers_of_all of each';

-- Each attempt waits up to 0.1 seconds for each table.  All locks are released before
-- the next attempt, so that other sessions can proceed.
CREATE FUNCTION postalytics.try_lock_account_tables(patience interval)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms'
AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + patience;
    each regclass;
BEGIN
    LOOP
        BEGIN
            FOREACH each IN ARRAY postalytics.account_tables() LOOP
                EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', each);
            END LOOP;
            RETURN true;
        EXCEPTION
            WHEN lock_not_available THEN
                IF clock_timestamp() >= deadline THEN
                    RETURN false;
                END IF;
        END;
        PERFORM pg_sleep(0.4);
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.try_lock_account_tables(interval) IS
    'internal: try to lock all account tables for the given time; true if all of them were locked';

-- Locks: ACCESS EXCLUSIVE on the account tables if a policy must change.  Errors:
-- 55P03 if the tables cannot be locked in time and a policy must lose a role.  If
-- policies must only gain roles, a warning is raised instead.
CREATE FUNCTION postalytics.update_policies(patience interval)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted oid[] := postalytics.readers_of_all();
    each regclass;
BEGIN
    IF NOT EXISTS (SELECT FROM postalytics.policy_roles() AS p WHERE p.roles <> wanted) THEN
        RETURN;
    END IF;
    IF NOT postalytics.try_lock_account_tables(patience) THEN
        IF EXISTS (SELECT FROM postalytics.policy_roles() AS p WHERE NOT p.roles <@ wanted) THEN
            RAISE EXCEPTION 'could not lock tables to change the policies for readers of all accounts'
                USING ERRCODE = 'lock_not_available',
                      DETAIL = 'Other sessions hold conflicting locks.',
                      HINT = 'Try again after these sessions have released them. They are listed in pg_locks.';
        END IF;
        RAISE WARNING 'policies for readers of all accounts were not changed because the tables are locked'
            USING DETAIL = 'The privileges are in effect, but queries by roles that read all accounts might be slower.',
                  HINT = 'Call maintain() or grant_read() again later.';
        RETURN;
    END IF;
    FOREACH each IN ARRAY postalytics.account_tables() LOOP
        IF EXISTS (SELECT FROM postalytics.policy_roles() AS p WHERE p.relation = each AND p.roles <> '{}') THEN
            EXECUTE format('DROP POLICY readers_of_all ON %s', each);
        END IF;
        IF wanted <> '{}' THEN
            EXECUTE format('CREATE POLICY readers_of_all ON %s FOR SELECT TO %s USING (true)', each,
                           (SELECT string_agg(quote_ident(pg_get_userbyid(w)), ', ') FROM unnest(wanted) AS w));
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.update_policies(interval) IS
    'internal: update the policies for readers of all accounts';

-- ---- privileges ----

CREATE FUNCTION postalytics.sql_privileges(kind text)
RETURNS SETOF text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.privilege
    FROM (VALUES
        ('ingest', 'EXECUTE ON FUNCTION postalytics.ingest(json, text), postalytics.retry_rejects()'),
        ('ingest', 'INSERT ON postalytics.inbox'),
        ('read', 'SELECT ON postalytics.events, postalytics.pieces, postalytics.campaigns, postalytics.rejects,
                      postalytics.production_errors, postalytics.syncs, postalytics.deliveries, postalytics.deliveries_unfinished,
                      postalytics.delivery_errors, postalytics.dead_letters, postalytics.pauses, postalytics.breaker_events, postalytics.sync_health,
                      postalytics.campaign_funnel, postalytics.campaign_funnel_by_country,
                      postalytics.campaign_progress, postalytics.campaign_responses,
                      postalytics.responses_by_day, postalytics.returned_mail'),
        ('read', 'EXECUTE ON FUNCTION
                      postalytics.reached_at(postalytics.pieces, postalytics.mail_status),
                      postalytics.was_sent(postalytics.pieces),
                      postalytics.was_scanned(postalytics.pieces),
                      postalytics.is_tracked(postalytics.pieces),
                      postalytics.late_after(postalytics.pieces),
                      postalytics.expected_day(timestamptz),
                      postalytics.setting(text),
                      postalytics.payload_details(json),
                      postalytics.funnel(text, timestamptz, text),
                      postalytics.journey(text, text),
                      postalytics.status_as_of(text, timestamptz, text),
                      postalytics.raise_several_accounts(text),
                      postalytics.stuck_pieces(interval, text, interval, text),
                      postalytics.stuck_pieces_by(interval, text, interval, text, jsonb),
                      postalytics.left_at(postalytics.pieces, postalytics.mail_status),
                      postalytics.delivery_window(timestamptz, text),
                      postalytics.estimated_delivery(postalytics.pieces),
                      postalytics.federal_holidays(integer),
                      postalytics.is_delivery_day(date),
                      postalytics.zip_time_zone(text),
                      postalytics.bar(double precision, double precision, integer),
                      postalytics.rate(bigint, bigint)'),
        ('read all', 'SELECT ON postalytics.field_names, postalytics.status_names, postalytics.settings, postalytics.maintenance_log, postalytics.metrics'),
        ('read all', 'EXECUTE ON FUNCTION postalytics.known_settings(), postalytics.worker_status(), postalytics.waiting_fetches(), postalytics.oldest_snapshot(), postalytics.sync_metrics(), postalytics.database_metrics()'),
        ('sync', 'EXECUTE ON FUNCTION
                      postalytics.fetch(text, integer, interval, interval, bigint[]),
                      postalytics.ack(text, bigint[], integer[]),
                      postalytics.nack(text, bigint[], text, interval, boolean, integer[], interval),
                      postalytics.next_due(text), postalytics.disable_sync(text)'),
        ('manage', 'SELECT, INSERT, UPDATE, DELETE ON postalytics.field_names, postalytics.status_names'),
        ('manage', 'SELECT, UPDATE (channel, enabled, campaigns, accounts, statuses, wait, unless, latest_only, ordered,
                                    durable, max_attempts, notify_events, rate, per, max_leased, breaker, errors) ON postalytics.syncs'),
        ('manage', 'SELECT ON postalytics.settings, postalytics.bindings, postalytics.maintenance_log, postalytics.audit_log,
                        postalytics.metrics, postalytics.contact_links, postalytics.pending_links'),
        ('manage', 'EXECUTE ON FUNCTION
                      postalytics.create_sync(text, text[], text[], text[], interval, text[], boolean, boolean, boolean,
                                              integer, text, boolean, timestamptz, boolean, integer, interval, integer,
                                              integer, boolean),
                      postalytics.enable_sync(text), postalytics.disable_sync(text), postalytics.drop_sync(text),
                      postalytics.pause_sync(text, interval), postalytics.resume_sync(text),
                      postalytics.test_sync(text), postalytics.replay_sync(text, timestamptz, timestamptz),
                      postalytics.redrive(text, text[], text[], text[], text[], timestamptz, timestamptz),
                      postalytics.discard(text, text, text[], text[], text[], text[], timestamptz, timestamptz),
                      postalytics.link_contacts(regclass, text, name, name, name, name), postalytics.unlink_contacts(text),
                      postalytics.retry_rejects(), postalytics.configure(text, text),
                      postalytics.setting(text), postalytics.known_settings(),
                      postalytics.maintain(), postalytics.ensure_partitions(timestamptz, timestamptz), postalytics.check_setup(),
                      postalytics.worker_status(), postalytics.waiting_fetches(), postalytics.oldest_snapshot(), postalytics.sync_metrics(), postalytics.database_metrics(),
                      postalytics.rebuild_pieces(text[], text),
                      postalytics.retract_event(text, postalytics.mail_status, timestamptz, text),
                      postalytics.forget(text, text, text, text, boolean),
                      postalytics.drop_campaign(text, text)'),
        ('monitor', 'SELECT ON postalytics.settings, postalytics.maintenance_log, postalytics.metrics'),
        ('monitor', 'EXECUTE ON FUNCTION postalytics.setting(text), postalytics.known_settings(), postalytics.worker_status(),
                      postalytics.waiting_fetches(), postalytics.oldest_snapshot(), postalytics.sync_metrics(), postalytics.database_metrics()'),
        ('PUBLIC', 'SELECT ON postalytics.statuses'),
        ('PUBLIC', 'EXECUTE ON FUNCTION
                      postalytics.precedes(postalytics.mail_status, postalytics.mail_status),
                      postalytics.follows(postalytics.mail_status, postalytics.mail_status),
                      postalytics.precedes_or_equals(postalytics.mail_status, postalytics.mail_status),
                      postalytics.follows_or_equals(postalytics.mail_status, postalytics.mail_status),
                      postalytics.comparable(postalytics.mail_status, postalytics.mail_status),
                      postalytics.label(postalytics.mail_status),
                      postalytics.track(postalytics.mail_status),
                      postalytics.feed_code(postalytics.mail_status),
                      postalytics.is_terminal(postalytics.mail_status),
                      postalytics.is_repeatable(postalytics.mail_status),
                      postalytics.applies_in(postalytics.mail_status, text),
                      postalytics.to_mail_status(text),
                      postalytics.current_status_accum(internal, postalytics.mail_status, timestamptz),
                      postalytics.current_status_combine(internal, internal),
                      postalytics.current_status_serialize(internal),
                      postalytics.current_status_deserialize(bytea, internal),
                      postalytics.current_status_final(internal),
                      postalytics.current_status(postalytics.mail_status, timestamptz)'),
        -- The CHECK constraints of syncs and the policies call these as the current user.
        ('PUBLIC', 'EXECUTE ON FUNCTION
                      postalytics.are_known_statuses(postalytics.mail_status[]),
                      postalytics.reads_all(),
                      postalytics.readable_accounts(),
                      postalytics.may_see(text, boolean, text[]),
                      postalytics.is_manager()'),
        -- A trigger on a table of the caller's own.  It only sends notifications, which every
        -- role can do.
        ('PUBLIC', 'EXECUTE ON FUNCTION postalytics.notify()'),
        -- Numbers, and the names of syncs and months, for monitoring systems.
        ('pg_monitor', 'SELECT ON postalytics.metrics'),
        ('pg_monitor', 'EXECUTE ON FUNCTION postalytics.waiting_fetches(), postalytics.oldest_snapshot(),
                      postalytics.sync_metrics(), postalytics.database_metrics()')
    ) AS p (kind, privilege)
    WHERE p.kind = $1
$$;
COMMENT ON FUNCTION postalytics.sql_privileges(text) IS
    'internal: the SQL privileges that a kind of binding, PUBLIC or pg_monitor includes';

-- A binding with privilege read and no account is of kind read and also of kind read
-- all, which includes further privileges.
CREATE FUNCTION postalytics.binding_kinds(role oid)
RETURNS TABLE (kind text)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT b.privilege
    FROM postalytics.bindings AS b
    WHERE b.role = binding_kinds.role
    UNION
    SELECT 'read all'
    FROM postalytics.bindings AS b
    WHERE b.role = binding_kinds.role
      AND b.privilege = 'read'
      AND b.account IS NULL
$$;
COMMENT ON FUNCTION postalytics.binding_kinds(oid) IS
    'internal: the kinds of bindings that a role has';

-- Revokes the privileges of the kinds of bindings that a role has lost, and grants the
-- privileges of the bindings that the role still has.
CREATE FUNCTION postalytics.update_grants(role oid, lost text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    each text;
BEGIN
    FOR each IN SELECT p FROM unnest(lost) AS k, postalytics.sql_privileges(k) AS p LOOP
        EXECUTE format('REVOKE %s FROM %I', each, pg_get_userbyid(role));
    END LOOP;
    FOR each IN SELECT p FROM postalytics.binding_kinds(role) AS k, postalytics.sql_privileges(k.kind) AS p LOOP
        EXECUTE format('GRANT %s TO %I', each, pg_get_userbyid(role));
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.update_grants(oid, text[]) IS
    'internal: make the grants of a role match its bindings';

-- Errors: 22004 for NULL, 0LP01 for PUBLIC, 42704 if there is no such role.
CREATE FUNCTION postalytics.role_oid(role name)
RETURNS oid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bound oid;
BEGIN
    IF role IS NULL THEN
        RAISE EXCEPTION 'role must not be NULL'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF role = 'public' THEN
        RAISE EXCEPTION 'PUBLIC cannot be bound to accounts or syncs'
            USING ERRCODE = 'invalid_grant_operation',
                  HINT = 'Create a role, and grant it to the roles that need it.';
    END IF;
    SELECT r.oid
    INTO bound
    FROM pg_roles AS r
    WHERE r.rolname = role;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'role "%" does not exist', role
            USING ERRCODE = 'undefined_object';
    END IF;
    RETURN bound;
END
$$;
COMMENT ON FUNCTION postalytics.role_oid(name) IS
    'internal: OID of the named role; error if it does not exist or is PUBLIC';

-- Serializes changes of bindings, and the removal of syncs, to which bindings refer.
-- Neither lock conflicts with writers of events.
CREATE FUNCTION postalytics.lock_bindings()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    LOCK TABLE postalytics.syncs IN SHARE UPDATE EXCLUSIVE MODE;
    LOCK TABLE postalytics.bindings IN SHARE ROW EXCLUSIVE MODE;
END
$$;
COMMENT ON FUNCTION postalytics.lock_bindings() IS
    'internal: lock syncs and bindings for a change of bindings';

-- First deletes bindings of dropped roles.  Also deletes bindings of this role if their
-- grants were revoked with REVOKE, so that this call does not grant them again.
--
-- Locks: those of lock_bindings.  Errors: those of role_oid and update_policies, 22001
-- for an account that is too long.
CREATE FUNCTION postalytics.bind_role(role name, privilege text, account text, sync text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bound oid := postalytics.role_oid(role);
BEGIN
    PERFORM postalytics.check_not_distributed();
    PERFORM postalytics.lock_bindings();
    IF octet_length(account) > 255 THEN
        RAISE EXCEPTION 'account is longer than 255 bytes'
            USING ERRCODE = 'string_data_right_truncation';
    END IF;
    -- Data without an account can belong to any client.
    IF account = '' THEN
        RAISE EXCEPTION 'cannot bind a role to the empty account'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Omit the account to bind the role to all accounts, or assign the data to an account with move_account first.';
    END IF;
    DELETE FROM postalytics.bindings AS b
    WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.oid = b.role)
       OR b.role = bound
      AND NOT EXISTS (SELECT
                      FROM pg_proc AS p
                      CROSS JOIN aclexplode(p.proacl) AS a
                      WHERE a.grantee = bound
                        AND p.oid = CASE b.privilege
                                        WHEN 'ingest' THEN 'postalytics.ingest(json, text)'
                                        WHEN 'read' THEN 'postalytics.journey(text, text)'
                                        WHEN 'sync' THEN 'postalytics.next_due(text)'
                                        WHEN 'manage' THEN 'postalytics.configure(text, text)'
                                        ELSE 'postalytics.worker_status()'
                                    END::regprocedure);
    INSERT INTO postalytics.bindings (role, privilege, account, sync)
    VALUES (bound, bind_role.privilege, bind_role.account, bind_role.sync)
    ON CONFLICT DO NOTHING;
    PERFORM postalytics.update_grants(bound, '{}');
    PERFORM postalytics.update_policies('10 s');
    PERFORM postalytics.audit('grant_' || privilege, role, account, 'sync ' || sync);
    IF account IS NOT NULL AND EXISTS (SELECT
                                       FROM postalytics.bindings AS b
                                       WHERE b.role = bound
                                         AND b.privilege = bind_role.privilege
                                         AND b.account IS NULL) THEN
        RAISE NOTICE 'role "%" is still bound to all accounts', role
            USING HINT = format('To restrict it to this account, call revoke_%s(%L), then grant_%s(%L, %L).', privilege, role, privilege, role, account);
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.bind_role(name, text, text, text) IS
    'internal: add a binding of a role, and grant the privileges that the binding includes';

CREATE FUNCTION postalytics.unbind_role(role name, privilege text, account text, sync text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bound oid := postalytics.role_oid(role);
    kinds text[];
BEGIN
    PERFORM postalytics.lock_bindings();
    kinds := ARRAY(SELECT k.kind FROM postalytics.binding_kinds(bound) AS k);
    DELETE FROM postalytics.bindings AS b
    WHERE b.role = bound
      AND b.privilege = unbind_role.privilege
      AND (unbind_role.account IS NULL OR b.account = unbind_role.account)
      AND (unbind_role.sync IS NULL OR b.sync = unbind_role.sync);
    PERFORM postalytics.update_grants(bound, ARRAY(SELECT unnest(kinds)
                                                  EXCEPT
                                                  SELECT k.kind FROM postalytics.binding_kinds(bound) AS k));
    PERFORM postalytics.update_policies('10 s');
    PERFORM postalytics.audit('revoke_' || privilege, role, account, 'sync ' || sync);
END
$$;
COMMENT ON FUNCTION postalytics.unbind_role(name, text, text, text) IS
    'internal: remove bindings of a role, and revoke the privileges that only they included';

-- ---- functions for the owner ----

-- The functions in this section raise the errors of bind_role or unbind_role.

CREATE FUNCTION postalytics.grant_ingest(role name, account text DEFAULT NULL)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.bind_role(role, 'ingest', account, NULL)
$$;
COMMENT ON FUNCTION postalytics.grant_ingest(name, text) IS
    'let a role ingest events of one account, or of all accounts, without reading data';

CREATE FUNCTION postalytics.revoke_ingest(role name, account text DEFAULT NULL)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.unbind_role(role, 'ingest', account, NULL)
$$;
COMMENT ON FUNCTION postalytics.revoke_ingest(name, text) IS
    'revoke what grant_ingest granted to a role, for one account or for all accounts';

CREATE FUNCTION postalytics.grant_read(role name, account text DEFAULT NULL)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.bind_role(role, 'read', account, NULL)
$$;
COMMENT ON FUNCTION postalytics.grant_read(name, text) IS
    'let a role read the data of one account, or of all accounts';

CREATE FUNCTION postalytics.revoke_read(role name, account text DEFAULT NULL)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.unbind_role(role, 'read', account, NULL)
$$;
COMMENT ON FUNCTION postalytics.revoke_read(name, text) IS
    'revoke what grant_read granted to a role, for one account or for all accounts';

-- Errors: those of bind_role, 42704 if there is no such sync.
CREATE FUNCTION postalytics.grant_sync(role name, sync text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Take the locks of bind_role now, so that the sync cannot be dropped meanwhile.
    PERFORM postalytics.lock_bindings();
    IF NOT EXISTS (SELECT
                   FROM postalytics.syncs AS s
                   WHERE s.name = sync) THEN
        PERFORM postalytics.raise_undefined_sync(sync);
    END IF;
    PERFORM postalytics.bind_role(role, 'sync', NULL, sync);
END
$$;
COMMENT ON FUNCTION postalytics.grant_sync(name, text) IS
    'let a role fetch, ack and nack the deliveries of one sync and disable the sync, and see nothing else';

CREATE FUNCTION postalytics.revoke_sync(role name, sync text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.unbind_role(role, 'sync', NULL, COALESCE(sync, ''))
$$;
COMMENT ON FUNCTION postalytics.revoke_sync(name, text) IS
    'revoke what grant_sync granted to a role, for one sync';

CREATE FUNCTION postalytics.grant_manage(role name)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.bind_role(role, 'manage', NULL, NULL)
$$;
COMMENT ON FUNCTION postalytics.grant_manage(name) IS
    'let a role manage syncs, settings, field names, rejects and partitions, correct and erase data, and drop campaigns, of all accounts';

CREATE FUNCTION postalytics.revoke_manage(role name)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.unbind_role(role, 'manage', NULL, NULL)
$$;
COMMENT ON FUNCTION postalytics.revoke_manage(name) IS
    'revoke what grant_manage granted to a role';

CREATE FUNCTION postalytics.grant_monitor(role name)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.bind_role(role, 'monitor', NULL, NULL)
$$;
COMMENT ON FUNCTION postalytics.grant_monitor(name) IS
    'let a role see settings, metrics, worker status and the maintenance log, but no data';

CREATE FUNCTION postalytics.revoke_monitor(role name)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.unbind_role(role, 'monitor', NULL, NULL)
$$;
COMMENT ON FUNCTION postalytics.revoke_monitor(name) IS
    'revoke what grant_monitor granted to a role';

-- ---- privileges after installation ----

-- Revokes what the default privileges of the installing role have granted.
DO $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT 'FUNCTION ' || p.oid::regprocedure AS object, p.proacl AS acl, p.proowner AS owner
        FROM pg_depend AS d
        JOIN pg_extension AS x ON x.oid = d.refobjid
        JOIN pg_proc AS p ON p.oid = d.objid
        WHERE x.extname IN ('postalytics_status', 'postalytics_cluster')
          AND d.deptype = 'e'
          AND d.refclassid = 'pg_extension'::regclass
          AND d.classid = 'pg_proc'::regclass
        UNION ALL
        SELECT 'TABLE ' || c.oid::regclass, c.relacl, c.relowner
        FROM pg_depend AS d
        JOIN pg_extension AS x ON x.oid = d.refobjid
        JOIN pg_class AS c ON c.oid = d.objid
        WHERE x.extname IN ('postalytics_status', 'postalytics_cluster')
          AND d.deptype = 'e'
          AND d.refclassid = 'pg_extension'::regclass
          AND d.classid = 'pg_class'::regclass
          AND c.relkind IN ('r', 'p', 'v', 'S')
    LOOP
        PERFORM postalytics.revoke_all_privileges(each.object, each.acl, each.owner);
    END LOOP;
END
$$;

-- The privileges that PUBLIC and pg_monitor have.
GRANT USAGE ON SCHEMA postalytics TO PUBLIC;
DO $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT k.kind, p.privilege
        FROM unnest('{PUBLIC,pg_monitor}'::text[]) AS k (kind)
        CROSS JOIN postalytics.sql_privileges(k.kind) AS p (privilege)
    LOOP
        EXECUTE pg_catalog.format('GRANT %s TO %s', each.privilege, each.kind);
    END LOOP;
END
$$;
