/*
 * grant.sql
 *		Who may do what.
 *
 * PUBLIC has the vocabulary of the lifecycle, and no more.  Every other
 * privilege is a grant of the server and a row of bindings together.  Most
 * functions check the binding in C; for the tables that hold the accounts' data
 * it is a policy.
 *
 * This file names objects of all rooms, and comes last in the script.
 */

-- ---- the tables that hold the data of accounts ----

-- syncs are not among them: a sync is not of an account, but for some.
CREATE FUNCTION postalytics.account_tables()
RETURNS regclass[]
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY['postalytics.events', 'postalytics.pieces', 'postalytics.campaigns', 'postalytics.rejects',
                 'postalytics.deliveries', 'postalytics.deliveries_unfinished']::regclass[]
$$;
COMMENT ON FUNCTION postalytics.account_tables() IS
    'internal: the tables that have a policy for readers';

-- The subqueries are evaluated once a query, and not for each row.
DO $$
DECLARE
    each regclass;
BEGIN
    FOREACH each IN ARRAY postalytics.account_tables() LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', each);
        EXECUTE format('CREATE POLICY readers ON %s
                        FOR SELECT
                        USING ((SELECT postalytics.reads_all())
                               OR account OPERATOR(pg_catalog.=) ANY ((SELECT postalytics.readable_accounts())::text[]))',
                       each);
    END LOOP;
END
$$;

-- Nor does a general grant open what decides who may do what.
ALTER TABLE postalytics.bindings ENABLE ROW LEVEL SECURITY;
CREATE POLICY managers ON postalytics.bindings
    FOR SELECT
    USING ((SELECT postalytics.is_manager()));
ALTER TABLE postalytics.configuration ENABLE ROW LEVEL SECURITY;
ALTER TABLE postalytics.field_names ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON postalytics.field_names
    FOR SELECT
    USING ((SELECT postalytics.reads_all()));
CREATE POLICY managers ON postalytics.field_names
    USING ((SELECT postalytics.is_manager()));
ALTER TABLE postalytics.syncs ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON postalytics.syncs
    FOR SELECT
    USING ((SELECT postalytics.reads_all())
           OR accounts OPERATOR(pg_catalog.<@) (SELECT postalytics.readable_accounts())::text[]);
CREATE POLICY managers ON postalytics.syncs
    USING ((SELECT postalytics.is_manager()));

-- A role that reads all gets a policy without a condition, which the planner
-- removes: a condition would keep it from using an index whose operator is not
-- leakproof.  A dump does not contain this policy, so after a restore such
-- queries are slower until grant_read or maintain is called.
CREATE FUNCTION postalytics.unbound_readers()
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
COMMENT ON FUNCTION postalytics.unbound_readers() IS
    'internal: the roles that are bound as readers of all accounts';

-- The roles of the policy of each table, none where there is no such policy.
CREATE FUNCTION postalytics.policy_roles()
RETURNS TABLE (relation regclass, roles oid[])
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.relation, ARRAY(SELECT r.role FROM unnest(p.polroles) AS r (role) ORDER BY 1)
    FROM unnest(postalytics.account_tables()) AS t (relation)
    LEFT JOIN pg_policy AS p ON p.polrelid = t.relation AND p.polname = 'unbound_readers'
$$;
COMMENT ON FUNCTION postalytics.policy_roles() IS
    'internal: the roles that have the policy for readers of all accounts';

-- Releases what it has locked before it waits, so that nobody waits for this while
-- it waits for somebody else.
CREATE FUNCTION postalytics.lock_account_tables(patience interval)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + patience;
    each regclass;
BEGIN
    LOOP
        BEGIN
            FOREACH each IN ARRAY postalytics.account_tables() LOOP
                EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE NOWAIT', each);
            END LOOP;
            RETURN true;
        EXCEPTION
            WHEN lock_not_available THEN
                IF clock_timestamp() >= deadline THEN
                    RETURN false;
                END IF;
        END;
        PERFORM pg_sleep(0.05);
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.lock_account_tables(interval) IS
    'internal: lock the tables that have a policy for readers, at once or not at all; true if it did';

-- Locks: ACCESS EXCLUSIVE on the tables, if a policy must change.  If they are not
-- available in time, a role that has read all until now must not go on, so that
-- is error 55P03; a new one can do without the policy.
CREATE FUNCTION postalytics.renew_policies(patience interval)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted oid[] := postalytics.unbound_readers();
    each regclass;
BEGIN
    IF NOT EXISTS (SELECT FROM postalytics.policy_roles() AS p WHERE p.roles <> wanted) THEN
        RETURN;
    END IF;
    IF NOT postalytics.lock_account_tables(patience) THEN
        IF EXISTS (SELECT FROM postalytics.policy_roles() AS p WHERE NOT p.roles <@ wanted) THEN
            RAISE EXCEPTION 'could not change the policies for readers of all accounts within %', patience
                USING ERRCODE = 'lock_not_available',
                      DETAIL = 'Other transactions, or autovacuum, use the tables.',
                      HINT = 'Look for them in pg_stat_activity, and try again.';
        END IF;
        RAISE WARNING 'policies for readers of all accounts were not changed, since other transactions use the tables'
            USING HINT = 'The grants are in effect.  Queries of such roles may be slower until maintain or grant_read is called.';
        RETURN;
    END IF;
    FOREACH each IN ARRAY postalytics.account_tables() LOOP
        IF EXISTS (SELECT FROM postalytics.policy_roles() AS p WHERE p.relation = each AND p.roles <> '{}') THEN
            EXECUTE format('DROP POLICY unbound_readers ON %s', each);
        END IF;
        IF wanted <> '{}' THEN
            EXECUTE format('CREATE POLICY unbound_readers ON %s FOR SELECT TO %s USING (true)', each,
                           (SELECT string_agg(quote_ident(pg_get_userbyid(w)), ', ') FROM unnest(wanted) AS w));
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.renew_policies(interval) IS
    'internal: make the policy for roles that read the data of all accounts';

-- ---- privileges ----

CREATE FUNCTION postalytics.privileges(kind text)
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
                      postalytics.syncs, postalytics.deliveries, postalytics.deliveries_unfinished,
                      postalytics.delivery_errors, postalytics.sync_health,
                      postalytics.campaign_funnel, postalytics.campaign_funnel_by_country,
                      postalytics.campaign_progress, postalytics.campaign_responses,
                      postalytics.responses_by_day, postalytics.returned_mail'),
        ('read', 'EXECUTE ON FUNCTION
                      postalytics.reached_at(postalytics.pieces, postalytics.mail_status),
                      postalytics.was_sent(postalytics.pieces),
                      postalytics.was_scanned(postalytics.pieces),
                      postalytics.is_tracked(postalytics.pieces),
                      postalytics.late_from(postalytics.pieces),
                      postalytics.expected_day(timestamptz),
                      postalytics.setting(text),
                      postalytics.payload_details(json),
                      postalytics.funnel(text, timestamptz, text),
                      postalytics.journey(text, text),
                      postalytics.status_as_of(text, timestamptz, text),
                      postalytics.raise_several_accounts(text),
                      postalytics.stuck_pieces(interval, text, interval, text),
                      postalytics.delivery_window(timestamptz, text),
                      postalytics.estimated_delivery(postalytics.pieces),
                      postalytics.federal_holidays(integer),
                      postalytics.is_delivery_day(date),
                      postalytics.zip_time_zone(text),
                      postalytics.bar(double precision, double precision, integer),
                      postalytics.rate(bigint, bigint)'),
        ('read all', 'SELECT ON postalytics.field_names, postalytics.settings, postalytics.maintenance_log'),
        ('read all', 'EXECUTE ON FUNCTION postalytics.known_settings(), postalytics.worker_status()'),
        ('sync', 'EXECUTE ON FUNCTION
                      postalytics.fetch(text, integer, interval, interval),
                      postalytics.ack(text, bigint[], integer[]),
                      postalytics.nack(text, bigint[], text, interval, boolean, integer[]),
                      postalytics.next_due(text)'),
        ('manage', 'SELECT, INSERT, UPDATE, DELETE ON postalytics.field_names'),
        ('manage', 'SELECT, UPDATE (channel, enabled, campaigns, accounts, statuses, wait, unless, latest_only, ordered,
                                    durable, max_attempts, notify_events) ON postalytics.syncs'),
        ('manage', 'SELECT ON postalytics.settings, postalytics.bindings, postalytics.maintenance_log'),
        ('manage', 'EXECUTE ON FUNCTION
                      postalytics.create_sync(text, text[], text[], text[], interval, text[], boolean, boolean, boolean,
                                              integer, text, boolean, timestamptz, boolean),
                      postalytics.enable_sync(text), postalytics.disable_sync(text), postalytics.drop_sync(text),
                      postalytics.test_sync(text), postalytics.replay_sync(text, timestamptz, timestamptz),
                      postalytics.retry_rejects(), postalytics.configure(text, text),
                      postalytics.setting(text), postalytics.known_settings(),
                      postalytics.maintain(), postalytics.ensure_partitions(timestamptz, timestamptz),
                      postalytics.worker_status()'),
        ('monitor', 'SELECT ON postalytics.settings, postalytics.maintenance_log'),
        ('monitor', 'EXECUTE ON FUNCTION postalytics.setting(text), postalytics.known_settings(), postalytics.worker_status()')
    ) AS p (kind, privilege)
    WHERE p.kind = privileges.kind
$$;
COMMENT ON FUNCTION postalytics.privileges(text) IS
    'internal: the grants of the server that belong to a kind of binding';

-- Without an account, read has more.
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

-- Grants the privileges of the bindings that a role has, and revokes those of a
-- kind that it has lost.
CREATE FUNCTION postalytics.renew_grants(role oid, lost text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    each text;
BEGIN
    FOR each IN SELECT p FROM unnest(lost) AS k, postalytics.privileges(k) AS p LOOP
        EXECUTE format('REVOKE %s FROM %I', each, pg_get_userbyid(role));
    END LOOP;
    FOR each IN SELECT p FROM postalytics.binding_kinds(role) AS k, postalytics.privileges(k.kind) AS p LOOP
        EXECUTE format('GRANT %s TO %I', each, pg_get_userbyid(role));
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.renew_grants(oid, text[]) IS
    'internal: make a role''s grants fit its bindings';

-- Errors: 22004 for NULL, 0LP01 for PUBLIC, 42704 if there is no such role.
CREATE FUNCTION postalytics.role_to_bind(role name)
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
                  HINT = 'Create a role, and grant it to those who need it.';
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
COMMENT ON FUNCTION postalytics.role_to_bind(name) IS
    'internal: the role of that name, or an error';

-- Bindings of roles that were dropped, and those whose grants were revoked by hand,
-- are removed first, so that they do not revive.
--
-- Locks: SHARE ROW EXCLUSIVE on bindings, so that these functions run one after the
-- other.  Errors: those of role_to_bind and renew_policies, 22001 for an account
-- that is too long.
CREATE FUNCTION postalytics.bind(role name, privilege text, account text, sync text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bound oid := postalytics.role_to_bind(role);
BEGIN
    PERFORM postalytics.check_not_distributed();
    LOCK TABLE postalytics.bindings IN SHARE ROW EXCLUSIVE MODE;
    IF octet_length(account) > 255 THEN
        RAISE EXCEPTION 'account is longer than 255 bytes'
            USING ERRCODE = 'string_data_right_truncation';
    END IF;
    -- What has no account may be anybody's.
    IF account = '' THEN
        RAISE EXCEPTION 'a role cannot be bound to the empty account'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Leave the account out to bind the role to all, or give one a name: move_account(old, new).';
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
    VALUES (bound, bind.privilege, bind.account, bind.sync)
    ON CONFLICT DO NOTHING;
    PERFORM postalytics.renew_grants(bound, '{}');
    PERFORM postalytics.renew_policies('10 s');
    IF account IS NOT NULL AND EXISTS (SELECT
                                       FROM postalytics.bindings AS b
                                       WHERE b.role = bound
                                         AND b.privilege = bind.privilege
                                         AND b.account IS NULL) THEN
        RAISE NOTICE 'role "%" is still bound to all accounts', role
            USING HINT = format('To restrict it, call revoke_%s(%L) first.', privilege, role);
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.bind(name, text, text, text) IS
    'internal: bind a role, and grant what belongs to it';

CREATE FUNCTION postalytics.unbind(role name, privilege text, account text, sync text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bound oid := postalytics.role_to_bind(role);
    kinds text[];
BEGIN
    LOCK TABLE postalytics.bindings IN SHARE ROW EXCLUSIVE MODE;
    kinds := ARRAY(SELECT k.kind FROM postalytics.binding_kinds(bound) AS k);
    DELETE FROM postalytics.bindings AS b
    WHERE b.role = bound
      AND b.privilege = unbind.privilege
      AND (unbind.account IS NULL OR b.account = unbind.account)
      AND (unbind.sync IS NULL OR b.sync = unbind.sync);
    PERFORM postalytics.renew_grants(bound, ARRAY(SELECT unnest(kinds)
                                                  EXCEPT
                                                  SELECT k.kind FROM postalytics.binding_kinds(bound) AS k));
    PERFORM postalytics.renew_policies('10 s');
END
$$;
COMMENT ON FUNCTION postalytics.unbind(name, text, text, text) IS
    'internal: remove bindings of a role, and revoke what belongs to them';

-- ---- what the owner calls ----

-- The errors of all of them are those of role_to_bind.
CREATE FUNCTION postalytics.grant_ingest(role name, account text DEFAULT NULL)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.bind(role, 'ingest', account, NULL)
$$;
COMMENT ON FUNCTION postalytics.grant_ingest(name, text) IS
    'let a role bring events, of an account or of all, and see nothing';

CREATE FUNCTION postalytics.revoke_ingest(role name, account text DEFAULT NULL)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.unbind(role, 'ingest', account, NULL)
$$;
COMMENT ON FUNCTION postalytics.revoke_ingest(name, text) IS
    'take back what grant_ingest gave a role, for an account or altogether';

CREATE FUNCTION postalytics.grant_read(role name, account text DEFAULT NULL)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.bind(role, 'read', account, NULL)
$$;
COMMENT ON FUNCTION postalytics.grant_read(name, text) IS
    'let a role read the data of an account, or all, and change nothing';

CREATE FUNCTION postalytics.revoke_read(role name, account text DEFAULT NULL)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.unbind(role, 'read', account, NULL)
$$;
COMMENT ON FUNCTION postalytics.revoke_read(name, text) IS
    'take back what grant_read gave a role, for an account or altogether';

-- Errors: also 42704 if there is no such sync.
CREATE FUNCTION postalytics.grant_sync(role name, sync text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT
                   FROM postalytics.syncs AS s
                   WHERE s.name = sync) THEN
        PERFORM postalytics.raise_undefined_sync(sync);
    END IF;
    PERFORM postalytics.bind(role, 'sync', NULL, sync);
END
$$;
COMMENT ON FUNCTION postalytics.grant_sync(name, text) IS
    'let a role fetch, ack and nack the deliveries of one sync, and see nothing else';

CREATE FUNCTION postalytics.revoke_sync(role name, sync text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.unbind(role, 'sync', NULL, COALESCE(sync, ''))
$$;
COMMENT ON FUNCTION postalytics.revoke_sync(name, text) IS
    'take a sync from a role that grant_sync gave it to';

CREATE FUNCTION postalytics.grant_manage(role name)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.bind(role, 'manage', NULL, NULL)
$$;
COMMENT ON FUNCTION postalytics.grant_manage(name) IS
    'let a role manage syncs, settings, names of fields, rejects and partitions, of all accounts';

CREATE FUNCTION postalytics.revoke_manage(role name)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.unbind(role, 'manage', NULL, NULL)
$$;
COMMENT ON FUNCTION postalytics.revoke_manage(name) IS
    'take back what grant_manage gave a role';

CREATE FUNCTION postalytics.grant_monitor(role name)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.bind(role, 'monitor', NULL, NULL)
$$;
COMMENT ON FUNCTION postalytics.grant_monitor(name) IS
    'let a role see the settings, the background worker and what maintain() did, and no data';

CREATE FUNCTION postalytics.revoke_monitor(role name)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.unbind(role, 'monitor', NULL, NULL)
$$;
COMMENT ON FUNCTION postalytics.revoke_monitor(name) IS
    'take back what grant_monitor gave a role';

-- ---- the privileges that the script itself leaves ----

-- Whatever the default privileges of whoever runs the script have given away.
DO $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT 'FUNCTION ' || p.oid::regprocedure AS object, p.proacl AS acl, p.proowner AS owner
        FROM pg_depend AS d
        JOIN pg_extension AS x ON x.oid = d.refobjid
        JOIN pg_proc AS p ON p.oid = d.objid
        WHERE x.extname = 'postalytics_status'
          AND d.deptype = 'e'
          AND d.refclassid = 'pg_extension'::regclass
          AND d.classid = 'pg_proc'::regclass
        UNION ALL
        SELECT 'TABLE ' || c.oid::regclass, c.relacl, c.relowner
        FROM pg_depend AS d
        JOIN pg_extension AS x ON x.oid = d.refobjid
        JOIN pg_class AS c ON c.oid = d.objid
        WHERE x.extname = 'postalytics_status'
          AND d.deptype = 'e'
          AND d.refclassid = 'pg_extension'::regclass
          AND d.classid = 'pg_class'::regclass
          AND c.relkind IN ('r', 'p', 'v', 'S')
    LOOP
        PERFORM postalytics.revoke_all(each.object, each.acl, each.owner);
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA postalytics TO PUBLIC;
GRANT SELECT ON postalytics.statuses TO PUBLIC;
GRANT EXECUTE ON FUNCTION
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
    postalytics.current_status(postalytics.mail_status, timestamptz)
TO PUBLIC;

-- For the checks of syncs, and for the policies, which are evaluated as the
-- current user.
GRANT EXECUTE ON FUNCTION
    postalytics.are_known_statuses(postalytics.mail_status[]),
    postalytics.reads_all(),
    postalytics.readable_accounts(),
    postalytics.is_manager()
TO PUBLIC;
