/*
 * check_setup.sql
 *		check_setup: reports what is wrong or risky in this installation.
 *
 * Each check is a function that returns its findings, and no row if all is well.  The
 * severity of a finding is error if data is lost, delayed or visible to the wrong role,
 * warning if that may happen, and notice otherwise.  Of the data, the checks read only
 * samples and index entries.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TYPE postalytics.setup_finding AS (
    severity text,
    name text,
    finding text,
    remedy text
);
COMMENT ON TYPE postalytics.setup_finding IS
    'something that is wrong or risky in this installation';
COMMENT ON COLUMN postalytics.setup_finding.severity IS 'error, warning or notice';
COMMENT ON COLUMN postalytics.setup_finding.name IS 'name of the check';
COMMENT ON COLUMN postalytics.setup_finding.finding IS 'what was found';
COMMENT ON COLUMN postalytics.setup_finding.remedy IS 'what to do about it';

CREATE FUNCTION postalytics.check_server()
RETURNS SETOF postalytics.setup_finding
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN v.is_other_series THEN 'error' WHEN v.library_is_older THEN 'warning' ELSE 'notice' END, 'version',
           format('The library has version %s, and the extension has version %s.', postalytics.library_version(), v.extension),
           CASE
               WHEN NOT v.library_is_older
               THEN 'ALTER EXTENSION postalytics_status UPDATE;'
               WHEN postalytics.is_preloaded()
               THEN 'Restart the server. If the versions still differ, install the files of the version that the extension has.'
               ELSE 'Reconnect. If the versions still differ, install the files of the version that the extension has.'
           END
    FROM (SELECT x.extversion AS extension,
                 split_part(x.extversion, '.', 1) <> split_part(postalytics.library_version(), '.', 1) AS is_other_series,
                 string_to_array(postalytics.library_version(), '.')::integer[] < string_to_array(x.extversion, '.')::integer[] AS library_is_older
          FROM pg_extension AS x
          WHERE x.extname = 'postalytics_status') AS v
    WHERE v.extension <> postalytics.library_version()
    UNION ALL
    SELECT 'error', 'background worker',
           'The library is in shared_preload_libraries, but this database has no background worker.',
           'See worker_status() and the server log. You might need to increase max_worker_processes.'
    WHERE postalytics.worker_expected()
      AND NOT postalytics.worker_runs()
    UNION ALL
    SELECT 'notice', 'background worker',
           'The library is not in shared_preload_libraries, so workers are not notified when a delivery comes due, and transactions that store events call NOTIFY themselves.',
           'Add it to shared_preload_libraries, and restart the server.'
    WHERE NOT postalytics.is_preloaded()
      AND EXISTS (SELECT FROM postalytics.syncs AS s WHERE s.enabled AND s.durable)
    UNION ALL
    SELECT 'notice', 'search_path',
           'The search_path of your role in this database does not contain schema postalytics.',
           format('If you do not want to qualify all names: ALTER %s SET search_path = %s;',
                  CASE WHEN s.source LIKE '%user%' THEN format('ROLE %I', session_user) ELSE format('DATABASE %I', current_database()) END,
                  concat_ws(', ', NULLIF(s.reset_val, ''), 'postalytics'))
    FROM pg_settings AS s
    WHERE s.name = 'search_path'
      AND s.reset_val !~ '(^|[ ,"])postalytics($|[ ,"])'
    UNION ALL
    SELECT 'warning', 'old snapshot',
           format('A transaction has kept VACUUM from removing dead rows for %s.', date_trunc('second', o.age)),
           'Find it in pg_stat_activity (xact_start) or pg_prepared_xacts. Unless it is a dump or a report that has to take so long, end it.'
    FROM postalytics.oldest_snapshot() AS o (age)
    WHERE o.age > '1 hour'
$$;
COMMENT ON FUNCTION postalytics.check_server() IS
    'internal: findings about the server and the database';

-- maintain() creates the partitions of the coming months and days, so a missing one shows
-- that it does not run.
CREATE FUNCTION postalytics.check_maintenance()
RETURNS SETOF postalytics.setup_finding
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'warning', 'maintenance',
           format('The partition of %s for %s is missing, so maintain() has not run lately, or never.', p.parent, p.period),
           'Call maintain() every day: with the background worker, pg_cron or cron.'
    FROM (
        SELECT 'events' AS parent, to_char(m.starts_at, 'YYYY-MM') AS period, m.starts_at
        FROM (SELECT date_trunc('month', now() AT TIME ZONE 'UTC')
                     + (LEAST(postalytics.setting('premake_months')::integer, 2) - 1) * interval '1 month') AS m (starts_at)
        WHERE postalytics.setting('premake_months')::integer >= 1
        UNION ALL
        SELECT 'deliveries', to_char(d.starts_at, 'YYYY-MM-DD'), d.starts_at
        FROM (SELECT date_trunc('day', now() AT TIME ZONE 'UTC') + interval '1 day') AS d (starts_at)
        WHERE postalytics.setting('history')::interval > '0'
          AND EXISTS (SELECT FROM postalytics.syncs AS s WHERE s.durable)
    ) AS p
    WHERE pg_sequence_last_value('postalytics.event_id_seq') IS NOT NULL
      AND NOT EXISTS (SELECT
                      FROM postalytics.leaves(('postalytics.' || p.parent)::regclass) AS l
                      WHERE p.starts_at AT TIME ZONE 'UTC' >= l.starts_at
                        AND p.starts_at AT TIME ZONE 'UTC' < l.ends_at)
    UNION ALL
    SELECT 'warning', 'maintenance',
           format('maintain() failed for %s at %s: %s', m.relation, date_trunc('second', m.at), m.detail),
           'Remove the cause. The finding disappears a day after the last failure.'
    FROM (SELECT DISTINCT ON (m.relation) m.relation, m.at, m.action, m.detail
          FROM postalytics.maintenance_log AS m
          WHERE m.at > now() - interval '1 day'
          ORDER BY m.relation, m.at DESC) AS m
    WHERE m.action = 'failed'
    UNION ALL
    SELECT 'warning', 'settings',
           format('Events are accepted for %s, but months are retired after %s: an event that is sent again after that is stored again.',
                  postalytics.setting('earliest'), postalytics.setting('retention')),
           format('SELECT postalytics.configure(''earliest'', %L);', postalytics.setting('retention'))
    WHERE postalytics.setting('retention')::interval > '0'
      AND now() - postalytics.setting('earliest')::interval < now() - postalytics.setting('retention')::interval - interval '1 day'
    UNION ALL
    SELECT 'notice', 'settings',
           'Months of events are retired, but data about recipients is kept in pieces.',
           'Set piece_retention, for example SELECT postalytics.configure(''piece_retention'', ''3 years'');'
    WHERE postalytics.setting('retention')::interval > '0'
      AND postalytics.setting('piece_retention')::interval = '0'
    UNION ALL
    SELECT 'notice', 'settings',
           'Recipients are removed from old pieces, but rejects, which can name them, are kept.',
           'Set reject_retention, for example SELECT postalytics.configure(''reject_retention'', ''90 days'');'
    WHERE postalytics.setting('piece_retention')::interval > '0'
      AND postalytics.setting('reject_retention')::interval = '0'
    UNION ALL
    SELECT 'notice', 'backup',
           CASE t.tested
               WHEN 'never'
               THEN 'No test of restoring a backup has been recorded.'
               ELSE format('The last recorded test of restoring a backup was on %s.', t.tested)
           END,
           'Restore a backup into an empty cluster, then run SELECT postalytics.configure(''restore_tested'', to_char(now(), ''YYYY-MM-DD''));'
    FROM postalytics.setting('restore_tested') AS t (tested)
    WHERE CASE t.tested
              WHEN 'never'
              THEN true
              ELSE t.tested::date NOT BETWEEN now() - interval '1 year' AND now() + interval '1 day'
          END
      AND pg_sequence_last_value('postalytics.event_id_seq') IS NOT NULL
      AND EXISTS (SELECT
                  FROM postalytics.leaves('postalytics.events') AS l
                  WHERE l.ends_at < now() - interval '30 days')
$$;
COMMENT ON FUNCTION postalytics.check_maintenance() IS
    'internal: findings about maintenance, retention and backups';

-- A sync has no worker if a delivery has been due, and nothing has been leased, for an
-- hour in which the sync was neither paused nor limited by its rate.
CREATE FUNCTION postalytics.check_syncs()
RETURNS SETOF postalytics.setup_finding
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'warning', 'sync matches nothing',
           format('No stored event belongs to campaign "%s", to which sync "%s" is restricted.', c.id, s.name),
           'Campaigns are given by their id, which is listed in table campaigns.'
    FROM postalytics.syncs AS s
    CROSS JOIN unnest(s.campaigns) AS c (id)
    WHERE s.enabled
      AND NOT EXISTS (SELECT
                      FROM postalytics.campaigns AS k
                      WHERE k.campaign_id = c.id
                        AND (s.accounts IS NULL OR k.account = ANY (s.accounts)))
      AND NOT EXISTS (SELECT
                      FROM postalytics.pieces AS p
                      WHERE p.drop_id = c.id
                        AND (s.accounts IS NULL OR p.account = ANY (s.accounts)))
    UNION ALL
    SELECT 'notice', 'sync matches nothing',
           format('No stored campaign belongs to account "%s", to which sync "%s" is restricted.', a.account, s.name),
           'The account of an event is that of the role that sends it; see table bindings.'
    FROM postalytics.syncs AS s
    CROSS JOIN unnest(s.accounts) AS a (account)
    WHERE s.enabled
      AND NOT EXISTS (SELECT FROM postalytics.campaigns AS k WHERE k.account = a.account)
    UNION ALL
    SELECT 'error', 'sync without worker',
           format('A delivery of sync "%s" has been due for %s, and none has been leased for an hour.', s.name,
                  date_trunc('second', now() - d.due_at)),
           'Start its worker, or disable or drop the sync.'
    FROM postalytics.syncs AS s
    CROSS JOIN LATERAL postalytics.oldest_due(s.name) AS d (due_at)
    WHERE s.enabled
      AND (s.rate IS NULL OR s.per <= '1 hour')
      AND NOT EXISTS (SELECT
                      FROM postalytics.in_flight AS f
                      WHERE f.sync = s.name
                        AND f.until > now())
      AND NOT EXISTS (SELECT
                      FROM postalytics.audit_log AS l
                      WHERE l.action = 'enable_sync'
                        AND l.object = s.name
                        AND l.at > now() - interval '1 hour')
      AND d.due_at < now() - interval '1 hour'
      AND NOT EXISTS (SELECT
                      FROM postalytics.pauses AS p
                      WHERE p.sync = s.name
                        AND p.until > now() - interval '1 hour')
      AND NOT EXISTS (SELECT
                      FROM postalytics.breaker_events AS b
                      WHERE b.sync = s.name
                        AND b.until > now() - interval '1 hour')
      AND NOT EXISTS (SELECT
                      FROM postalytics.tallies AS t
                      WHERE t.sync = s.name
                        AND t.at > now() - interval '1 hour'
                        AND t.attempts > 0)
    UNION ALL
    SELECT 'warning', 'dead deliveries',
           format('Dead deliveries of sync "%s": %s.', s.name, d.dead),
           'See dead_letters, remove the cause, then call redrive or discard.'
    FROM postalytics.syncs AS s
    CROSS JOIN LATERAL postalytics.dead_deliveries(s.name) AS d (dead)
    WHERE d.dead > 0
$$;
COMMENT ON FUNCTION postalytics.check_syncs() IS
    'internal: findings about syncs';

CREATE FUNCTION postalytics.check_contacts()
RETURNS SETOF postalytics.setup_finding
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'error', 'contacts',
           format('Pieces are pending for contacts %s: %s; the oldest since %s%s.', p.contacts, p.pieces, date_trunc('second', p.since),
                  (SELECT format(': %s', l.detail)
                   FROM postalytics.maintenance_log AS l
                   WHERE l.relation = p.contacts
                     AND l.action = 'not linked'
                     AND l.at > now() - interval '1 day'
                   ORDER BY l.at DESC
                   LIMIT 1)),
           'Remove the cause; the next ingest or maintain() then writes them. Or call unlink_contacts().'
    FROM (SELECT p.contacts, count(DISTINCT (p.piece_id, p.account)) AS pieces, min(p.since) AS since
          FROM postalytics.pending_links AS p
          GROUP BY p.contacts) AS p
    WHERE p.since < now() - interval '1 hour'
$$;
COMMENT ON FUNCTION postalytics.check_contacts() IS
    'internal: findings about linked contacts';

-- Samples the events of the latest months, as create_sync does.  The accounts are not
-- named, because managers may not read payloads.
CREATE FUNCTION postalytics.check_payload_accounts()
RETURNS SETOF postalytics.setup_finding
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    leaf regclass;
    named text[];
    all_named text[] := '{}';
BEGIN
    FOR leaf IN
        SELECT l.leaf
        FROM postalytics.leaves('postalytics.events') AS l
        WHERE l.starts_at <= now()
        ORDER BY l.ends_at DESC
        LIMIT 4
    LOOP
        EXECUTE format('SELECT array_agg(DISTINCT a.account)
                        FROM (SELECT e.account, e.payload FROM %s AS e LIMIT 10000) AS e
                        CROSS JOIN LATERAL postalytics.payload_account(e.payload) AS a (account)
                        WHERE e.account = ''''
                          AND a.account <> ''''', leaf)
        INTO named;
        all_named := ARRAY(SELECT unnest(all_named) UNION SELECT unnest(named));
    END LOOP;
    IF cardinality(all_named) > 1 THEN
        RETURN NEXT ROW('warning', 'accounts',
            format('Payloads of events that have no account name %s different accounts.', cardinality(all_named)),
            'Bind a role for each client with grant_ingest, pass the account to ingest, or map its path in field_names.')::postalytics.setup_finding;
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.check_payload_accounts() IS
    'internal: a finding if payloads name several accounts that their events do not have';

-- Splits what sql_privileges returns into the privileges on single objects, without those
-- on columns.
CREATE FUNCTION postalytics.object_privileges(kind text)
RETURNS TABLE (privilege text, catalog regclass, object oid)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT w.word[1],
           CASE WHEN l.list LIKE 'FUNCTION%' THEN 'pg_proc'::regclass ELSE 'pg_class'::regclass END,
           CASE WHEN l.list LIKE 'FUNCTION%' THEN to_regprocedure(o.name[1])::oid ELSE to_regclass(o.name[1])::oid END
    FROM postalytics.sql_privileges(kind) AS p (privilege)
    CROSS JOIN LATERAL (SELECT split_part(p.privilege, ' ON ', 1), substr(p.privilege, strpos(p.privilege, ' ON ') + 4)) AS l (privileges, list)
    CROSS JOIN LATERAL regexp_matches(l.privileges, '(\w+)\s*(\([^)]*\))?', 'g') AS w (word)
    CROSS JOIN LATERAL regexp_matches(l.list, 'postalytics\.\w+\s*(?:\([^()]*\))?', 'g') AS o (name)
    WHERE w.word[2] IS NULL
$$;
COMMENT ON FUNCTION postalytics.object_privileges(text) IS
    'internal: the privileges on single objects that a kind of binding, PUBLIC or pg_monitor includes';

-- The privileges on objects of the extension and on partitions, except those of their
-- owner, of superusers, and those that a binding of the role explains.  A role with
-- BYPASSRLS, such as one that dumps the database, may read.
CREATE FUNCTION postalytics.unexplained_privileges()
RETURNS TABLE (grantee text, privilege text, object text)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH members AS (
        SELECT d.classid, d.objid
        FROM pg_depend AS d
        JOIN pg_extension AS x ON x.oid = d.refobjid
        WHERE x.extname = 'postalytics_status'
          AND d.refclassid = 'pg_extension'::regclass
          AND d.deptype = 'e'
        UNION
        SELECT 'pg_class'::regclass, i.inhrelid
        FROM pg_inherits AS i
        WHERE i.inhparent IN ('postalytics.events'::regclass, 'postalytics.deliveries'::regclass)
    ), granted AS MATERIALIZED (
        SELECT DISTINCT o.catalog, o.oid, o.name, a.grantee, a.privilege_type AS privilege
        FROM (SELECT 'pg_proc'::regclass AS catalog, p.oid, p.proname::text AS name, COALESCE(p.proacl, acldefault('f', p.proowner)) AS acl, p.proowner AS owner
              FROM pg_proc AS p
              JOIN members AS m ON (m.classid, m.objid) = ('pg_proc'::regclass, p.oid)
              UNION ALL
              SELECT 'pg_class'::regclass, c.oid, c.relname::text, c.relacl, c.relowner
              FROM pg_class AS c
              JOIN members AS m ON (m.classid, m.objid) = ('pg_class'::regclass, c.oid)
              UNION ALL
              SELECT 'pg_namespace'::regclass, n.oid, n.nspname::text, n.nspacl, n.nspowner
              FROM pg_namespace AS n
              WHERE n.nspname = 'postalytics') AS o
        CROSS JOIN LATERAL aclexplode(o.acl) AS a
        WHERE a.grantee <> o.owner
          AND NOT (o.catalog = 'pg_namespace'::regclass AND a.privilege_type = 'USAGE')
    ), kinds AS (
        SELECT g.grantee, k.kind
        FROM (SELECT DISTINCT g.grantee FROM granted AS g) AS g
        CROSS JOIN LATERAL (
            SELECT b.kind
            FROM postalytics.binding_kinds(g.grantee) AS b
            UNION
            SELECT 'PUBLIC'
            WHERE g.grantee = 0
            UNION
            SELECT 'pg_monitor'
            WHERE g.grantee = 'pg_monitor'::regrole
        ) AS k
    ), explained AS MATERIALIZED (
        SELECT k.kind, p.privilege, p.catalog, p.object
        FROM (SELECT DISTINCT k.kind FROM kinds AS k) AS k
        CROSS JOIN LATERAL postalytics.object_privileges(k.kind) AS p
    )
    SELECT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(COALESCE(r.rolname::text, g.grantee::text)) END, g.privilege, quote_ident(g.name)
    FROM granted AS g
    LEFT JOIN pg_roles AS r ON r.oid = g.grantee
    WHERE NOT COALESCE(r.rolsuper, false)
      AND NOT (COALESCE(r.rolbypassrls, false) AND g.privilege = 'SELECT')
      AND NOT EXISTS (SELECT
                      FROM kinds AS k
                      JOIN explained AS e ON e.kind = k.kind
                      WHERE k.grantee = g.grantee
                        AND (e.privilege, e.catalog, e.object) = (g.privilege, g.catalog, g.oid))
$$;
COMMENT ON FUNCTION postalytics.unexplained_privileges() IS
    'internal: privileges on objects of the extension that no binding explains';

CREATE FUNCTION postalytics.check_roles()
RETURNS SETOF postalytics.setup_finding
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH secured AS (
        SELECT unnest(postalytics.account_tables()
                      || ARRAY['postalytics.bindings', 'postalytics.audit_log', 'postalytics.configuration', 'postalytics.field_names',
                               'postalytics.status_names', 'postalytics.syncs', 'postalytics.pauses', 'postalytics.breaker_events']::regclass[]) AS relation
    )
    SELECT CASE
               WHEN bool_or(u.privilege IN ('EXECUTE', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER', 'CREATE')) THEN 'error'
               WHEN bool_or(u.privilege = 'SELECT') THEN 'warning'
               ELSE 'notice'
           END,
           'privilege',
           format('Role %s has privileges that no binding explains: %s on %s.', u.grantee, string_agg(DISTINCT u.privilege, ', '),
                  min(u.object) || CASE WHEN count(DISTINCT u.object) > 1 THEN format(' and %s other objects', count(DISTINCT u.object) - 1) ELSE '' END),
           CASE
               WHEN bool_or(u.privilege IN ('TRIGGER', 'TRUNCATE', 'CREATE'))
               THEN 'Revoke them: a role with TRIGGER runs code as other roles, and TRUNCATE deletes the data of all accounts.'
               ELSE 'Revoke them, and use the grant functions of the extension: functions for managers check no binding, and without a binding no row of an account can be read.'
           END
    FROM postalytics.unexplained_privileges() AS u
    GROUP BY u.grantee
    UNION ALL
    SELECT 'error', 'policies',
           format('Row-level security of table %s is disabled.', c.oid::regclass),
           format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY;', c.oid::regclass)
    FROM pg_class AS c
    WHERE c.oid IN (SELECT t.relation FROM secured AS t)
      AND NOT c.relrowsecurity
    UNION ALL
    SELECT 'error', 'policies',
           format('Table %s has another policy, %I, which can show rows of all accounts.', p.polrelid::regclass, p.polname),
           format('DROP POLICY %I ON %s;', p.polname, p.polrelid::regclass)
    FROM pg_policy AS p
    WHERE p.polrelid IN (SELECT t.relation FROM secured AS t)
      AND p.polpermissive
      AND p.polname NOT IN ('readers', 'managers', 'readers_of_all')
    UNION ALL
    SELECT 'error', 'policies',
           format('Policy readers of table %s is missing, so readers see no rows.', t.relation),
           'Compare the table with one of a new database, and create the policy again.'
    FROM unnest(postalytics.account_tables()) AS t (relation)
    WHERE NOT EXISTS (SELECT FROM pg_policy AS p WHERE (p.polrelid, p.polname) = (t.relation, 'readers'))
    UNION ALL
    SELECT 'error', 'policies',
           format('Role %s can read all accounts without a binding.', CASE x.role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.role)) END),
           'SELECT postalytics.maintain();'
    FROM (SELECT DISTINCT u.role
          FROM postalytics.policy_roles() AS p
          CROSS JOIN unnest(p.roles) AS u (role)
          WHERE u.role <> ALL (postalytics.readers_of_all())) AS x
    UNION ALL
    SELECT 'warning', 'policies',
           'Policies for roles that may read all accounts are missing, as after a restore, so queries of these roles are slower.',
           'SELECT postalytics.maintain();'
    WHERE EXISTS (SELECT
                  FROM postalytics.policy_roles() AS p
                  WHERE NOT postalytics.readers_of_all() <@ p.roles)
    UNION ALL
    SELECT 'notice', 'backup role',
           format('Role %I is a member of pg_read_all_data, but row-level security applies to it, so pg_dump fails under this role.', r.rolname),
           format('If the role runs pg_dump: ALTER ROLE %I BYPASSRLS; it can then read all accounts. Otherwise, nothing.', r.rolname)
    FROM pg_roles AS r
    WHERE r.rolcanlogin
      AND NOT r.rolsuper
      AND NOT r.rolbypassrls
      AND pg_has_role(r.oid, 'pg_read_all_data', 'USAGE')
      AND has_database_privilege(r.oid, current_database(), 'CONNECT')
    UNION ALL
    SELECT 'notice', 'unused role',
           format('Role %I has bindings, but it cannot log in and has no members.', r.rolname),
           'Grant it to a role that can log in, or revoke its bindings.'
    FROM (SELECT DISTINCT b.role
          FROM postalytics.bindings AS b) AS b
    JOIN pg_roles AS r ON r.oid = b.role
    WHERE NOT r.rolcanlogin
      AND NOT EXISTS (SELECT FROM pg_auth_members AS m WHERE m.roleid = r.oid)
    UNION ALL
    SELECT 'warning', 'dropped role',
           format('A role with bindings, whose OID was %s, was dropped. Another role can get this OID.', b.role::oid),
           format('DELETE FROM postalytics.bindings WHERE role = %s;', b.role::oid)
    FROM (SELECT DISTINCT b.role
          FROM postalytics.bindings AS b) AS b
    WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.oid = b.role)
$$;
COMMENT ON FUNCTION postalytics.check_roles() IS
    'internal: findings about roles and privileges';

CREATE FUNCTION postalytics.setup_checks()
RETURNS text[]
LANGUAGE sql
IMMUTABLE
RETURN '{check_server,check_maintenance,check_syncs,check_contacts,check_payload_accounts,check_roles}'::text[];
COMMENT ON FUNCTION postalytics.setup_checks() IS
    'internal: names of the functions that check_setup calls';

-- A check that fails, for example because a table is locked, does not prevent the others.
-- SECURITY DEFINER, because managers have no privileges on the data that is checked.
CREATE FUNCTION postalytics.check_setup()
RETURNS SETOF postalytics.setup_finding
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
DECLARE
    each text;
    findings postalytics.setup_finding[] := '{}';
    found postalytics.setup_finding[];
BEGIN
    FOREACH each IN ARRAY postalytics.setup_checks() LOOP
        BEGIN
            EXECUTE format('SELECT array_agg(f) FROM postalytics.%I() AS f', each) INTO found;
            findings := findings || found;
        EXCEPTION
            WHEN OTHERS THEN
                findings := findings || ROW('warning', each, format('The check failed: %s.', SQLERRM),
                                            'Call check_setup again later.')::postalytics.setup_finding;
        END;
    END LOOP;
    RETURN QUERY
    SELECT f.*
    FROM unnest(findings) AS f
    ORDER BY array_position('{error,warning,notice}', f.severity), f.name, f.finding;
END
$$;
COMMENT ON FUNCTION postalytics.check_setup() IS
    'report what is wrong or risky in this installation, and what to do about it, most severe first; returns no row if all is well';
