/*
 * check_setup.sql
 *		check_setup: reports what is wrong or risky in this installation.
 *
 * Each check is a function that returns its findings, and no row if all is well.  The
 * severity of a finding is error if data is lost, delayed or visible to the wrong role,
 * warning if that may happen, and notice otherwise.  The checks read the catalogs.  Of
 * the data, they read only samples, and rows that an index finds.
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

CREATE FUNCTION postalytics.library_version()
RETURNS text
LANGUAGE c
STABLE
AS 'MODULE_PATHNAME', 'postalytics_library_version';
COMMENT ON FUNCTION postalytics.library_version() IS
    'version of the library that this session has loaded';

CREATE FUNCTION postalytics.check_server()
RETURNS SETOF postalytics.setup_finding
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'error', 'version',
           format('The library has version %s, and the extension has version %s.', postalytics.library_version(), x.extversion),
           CASE
               WHEN postalytics.is_preloaded()
               THEN 'Restart the server, then run ALTER EXTENSION postalytics_status UPDATE in each database.'
               ELSE 'Reconnect, or run ALTER EXTENSION postalytics_status UPDATE.'
           END
    FROM pg_extension AS x
    WHERE x.extname = 'postalytics_status'
      AND x.extversion <> postalytics.library_version()
    UNION ALL
    SELECT 'error', 'background worker',
           'The library is in shared_preload_libraries, but this database has no background worker.',
           'See worker_status() and the server log. You might need to increase max_worker_processes, or to add the database to postalytics_status.worker_databases.'
    WHERE postalytics.is_preloaded()
      AND NOT pg_is_in_recovery()
      AND NOT EXISTS (SELECT
                      FROM pg_stat_activity AS a
                      WHERE a.backend_type = 'postalytics_status worker'
                        AND a.datname = current_database())
    UNION ALL
    SELECT 'notice', 'background worker',
           'The library is not in shared_preload_libraries, so workers are not notified when a delivery comes due, and transactions that store events call NOTIFY themselves.',
           'Add it to shared_preload_libraries, and restart the server.'
    WHERE NOT postalytics.is_preloaded()
      AND EXISTS (SELECT FROM postalytics.syncs AS s WHERE s.enabled AND s.durable)
    UNION ALL
    SELECT 'notice', 'search_path',
           'No search_path setting of a role or database contains schema postalytics, so sessions that do not set it find neither the functions nor the operators.',
           format('ALTER DATABASE %I SET search_path = "$user", public, postalytics;', current_database())
    WHERE NOT EXISTS (SELECT
                      FROM pg_db_role_setting AS s
                      CROSS JOIN unnest(s.setconfig) AS c (setting)
                      WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
                        AND c.setting LIKE 'search\_path=%postalytics%')
    UNION ALL
    SELECT 'warning', 'old snapshot',
           format('A transaction has kept VACUUM from removing dead rows for %s.', date_trunc('second', o.age)),
           'Find it in pg_stat_activity (xact_start) or pg_prepared_xacts, and end it.'
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
           format('The partition of %s for %s is missing, so maintain() has not run lately.', p.parent, p.period),
           'Call maintain() every day: with the background worker, pg_cron or cron.'
    FROM (
        SELECT 'events' AS parent, to_char(now() AT TIME ZONE 'UTC' + m.months * interval '1 month', 'YYYY-MM') AS period,
               date_trunc('month', now() AT TIME ZONE 'UTC') + m.months * interval '1 month' AS starts_at
        FROM (SELECT LEAST(postalytics.setting('premake_months')::integer, 1)) AS m (months)
        UNION ALL
        SELECT 'deliveries', to_char(now() AT TIME ZONE 'UTC' + interval '1 day', 'YYYY-MM-DD'),
               date_trunc('day', now() AT TIME ZONE 'UTC') + interval '1 day'
        WHERE postalytics.setting('history')::interval > '0'
          AND EXISTS (SELECT FROM postalytics.syncs AS s WHERE s.durable)
    ) AS p
    WHERE EXISTS (SELECT FROM postalytics.events)
      AND NOT EXISTS (SELECT
                      FROM postalytics.leaves(('postalytics.' || p.parent)::regclass) AS l
                      WHERE p.starts_at AT TIME ZONE 'UTC' >= l.starts_at
                        AND p.starts_at AT TIME ZONE 'UTC' < l.ends_at)
    UNION ALL
    SELECT 'error', 'maintenance',
           format('maintain() failed for %s on %s: %s', m.relation, m.at::date, m.detail),
           'See maintenance_log, and remove the cause.'
    FROM (SELECT DISTINCT ON (m.relation) m.relation, m.at, m.action, m.detail
          FROM postalytics.maintenance_log AS m
          WHERE m.at > now() - interval '3 days'
          ORDER BY m.relation, m.at DESC) AS m
    WHERE m.action = 'failed'
    UNION ALL
    SELECT 'warning', 'settings',
           format('Events are accepted for %s, but months are retired after %s: an event that arrives again after that is new.',
                  postalytics.setting('earliest'), postalytics.setting('retention')),
           format('SELECT configure(''earliest'', %L);', postalytics.setting('retention'))
    WHERE postalytics.setting('retention')::interval > '0'
      AND postalytics.setting('earliest')::interval > postalytics.setting('retention')::interval
    UNION ALL
    SELECT 'notice', 'settings',
           'Months of events are retired, but recipients stay in pieces.',
           'Set piece_retention, for example SELECT configure(''piece_retention'', ''3 years'');'
    WHERE postalytics.setting('retention')::interval > '0'
      AND postalytics.setting('piece_retention')::interval = '0'
    UNION ALL
    SELECT 'notice', 'settings',
           'Recipients are removed from old pieces, but rejects, which can name them, are kept.',
           'Set reject_retention, for example SELECT configure(''reject_retention'', ''90 days'');'
    WHERE postalytics.setting('piece_retention')::interval > '0'
      AND postalytics.setting('reject_retention')::interval = '0'
$$;
COMMENT ON FUNCTION postalytics.check_maintenance() IS
    'internal: findings about maintenance and retention';

CREATE FUNCTION postalytics.check_syncs()
RETURNS SETOF postalytics.setup_finding
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'warning', 'sync matches nothing',
           format('No event of campaign "%s" of sync "%s" has arrived.', c.id, s.name),
           'Campaigns are given by their id, which is listed in table campaigns.'
    FROM postalytics.syncs AS s
    CROSS JOIN unnest(s.campaigns) AS c (id)
    WHERE s.enabled
      AND NOT EXISTS (SELECT FROM postalytics.campaigns AS k WHERE k.campaign_id = c.id)
      AND NOT EXISTS (SELECT FROM postalytics.pieces AS p WHERE p.drop_id = c.id)
    UNION ALL
    SELECT 'warning', 'sync matches nothing',
           format('No event of account "%s" of sync "%s" has arrived.', a.account, s.name),
           'The account of an event is that of the role that sends it; see table bindings.'
    FROM postalytics.syncs AS s
    CROSS JOIN unnest(s.accounts) AS a (account)
    WHERE s.enabled
      AND NOT EXISTS (SELECT FROM postalytics.campaigns AS k WHERE k.account = a.account)
      AND NOT EXISTS (SELECT FROM postalytics.pieces AS p WHERE p.account = a.account)
    UNION ALL
    SELECT 'error', 'sync without worker',
           format('Sync "%s" has deliveries that have been due for %s, and no worker has fetched for an hour.', h.name,
                  date_trunc('second', now() - h.oldest_due_at)),
           'Start its worker, or disable or drop the sync.'
    FROM postalytics.sync_health AS h
    WHERE h.enabled
      AND h.paused_until IS NULL
      AND h.oldest_due_at < now() - interval '1 hour'
      AND NOT EXISTS (SELECT
                      FROM postalytics.tallies AS t
                      WHERE t.sync = h.name
                        AND t.at > now() - interval '1 hour'
                        AND t.attempts > 0)
    UNION ALL
    SELECT 'warning', 'dead deliveries',
           format('Sync "%s" has %s dead deliveries.', h.name, h.dead),
           'See dead_letters, remove the cause, then call redrive or discard.'
    FROM postalytics.sync_health AS h
    WHERE h.dead > 0
$$;
COMMENT ON FUNCTION postalytics.check_syncs() IS
    'internal: findings about syncs';

-- Samples the events of the latest months, as create_sync does.
CREATE FUNCTION postalytics.check_payload_accounts()
RETURNS SETOF postalytics.setup_finding
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    leaf regclass;
    stated text[];
BEGIN
    FOR leaf IN
        SELECT l.leaf
        FROM postalytics.leaves('postalytics.events') AS l
        WHERE l.starts_at <= now()
        ORDER BY l.ends_at DESC
        LIMIT 2
    LOOP
        EXECUTE format('SELECT array_agg(DISTINCT a.account)
                        FROM (SELECT e.account, e.payload FROM %s AS e LIMIT 10000) AS e
                        CROSS JOIN LATERAL postalytics.payload_account(e.payload) AS a (account)
                        WHERE e.account = ''''
                          AND a.account <> ''''', leaf)
        INTO stated;
        IF cardinality(stated) > 1 THEN
            RETURN NEXT ROW('warning', 'accounts',
                format('Payloads name %s accounts, such as "%s" and "%s", but their events have no account.', cardinality(stated), stated[1], stated[2]),
                'Bind a role for each client with grant_ingest, pass the account to ingest, or map its path in field_names.')::postalytics.setup_finding;
            RETURN;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.check_payload_accounts() IS
    'internal: a finding if payloads name several accounts that their events do not have';

CREATE FUNCTION postalytics.check_roles()
RETURNS SETOF postalytics.setup_finding
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'error', 'TRIGGER privilege',
           format('Role %s has the privilege TRIGGER on %s, so it can run code as other roles.',
                  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, c.oid::regclass),
           format('REVOKE TRIGGER ON %s FROM %s;', c.oid::regclass,
                  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
    FROM pg_class AS c
    CROSS JOIN LATERAL aclexplode(c.relacl) AS a
    WHERE c.relnamespace = 'postalytics'::regnamespace
      AND a.privilege_type = 'TRIGGER'
      AND a.grantee <> c.relowner
    UNION ALL
    SELECT 'error', 'CREATE privilege',
           format('Role %s can create objects in schema postalytics.', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END),
           format('REVOKE CREATE ON SCHEMA postalytics FROM %s;', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
    FROM pg_namespace AS n
    CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
    WHERE n.nspname = 'postalytics'
      AND a.privilege_type = 'CREATE'
      AND a.grantee <> n.nspowner
    UNION ALL
    SELECT 'error', 'backup role',
           format('Role %I may read all data, but row-level security applies to it, so pg_dump fails under this role.', r.rolname),
           format('ALTER ROLE %I BYPASSRLS;', r.rolname)
    FROM pg_roles AS r
    WHERE r.rolcanlogin
      AND NOT r.rolsuper
      AND NOT r.rolbypassrls
      AND pg_has_role(r.oid, 'pg_read_all_data', 'MEMBER')
    UNION ALL
    SELECT 'warning', 'policies',
           format('The policy readers_of_all of %s does not have the roles that may read all accounts, so their queries are slower.', p.relation),
           'SELECT maintain();'
    FROM postalytics.policy_roles() AS p
    WHERE p.roles <> postalytics.readers_of_all()
    UNION ALL
    SELECT 'notice', 'role without purpose',
           format('Role %I is bound (%s), but it cannot log in and has no members.', r.rolname, string_agg(DISTINCT b.privilege, ', ')),
           format('Grant it to a role that can log in, or revoke its bindings.')
    FROM postalytics.bindings AS b
    JOIN pg_roles AS r ON r.oid = b.role
    WHERE NOT r.rolcanlogin
      AND NOT EXISTS (SELECT FROM pg_auth_members AS m WHERE m.roleid = r.oid)
    GROUP BY r.rolname
    UNION ALL
    SELECT 'warning', 'privilege without binding',
           format('Role %I has the privilege %s on %s without a binding, so it has no effect.', r.rolname, a.privilege_type, o.name),
           format('Call %s for the role.', o.remedy)
    FROM (SELECT 'ingest'::text, 'postalytics.ingest'::text, p.proacl, 'grant_ingest'::text
          FROM pg_proc AS p
          WHERE p.pronamespace = 'postalytics'::regnamespace
            AND p.proname = 'ingest'
          UNION ALL
          SELECT 'read', 'postalytics.pieces', c.relacl, 'grant_read'
          FROM pg_class AS c
          WHERE c.oid = 'postalytics.pieces'::regclass) AS o (privilege, name, acl, remedy)
    CROSS JOIN LATERAL aclexplode(o.acl) AS a
    JOIN pg_roles AS r ON r.oid = a.grantee
    WHERE a.privilege_type IN ('EXECUTE', 'SELECT')
      AND NOT pg_has_role(r.oid, (SELECT c.relowner FROM pg_class AS c WHERE c.oid = 'postalytics.events'::regclass), 'USAGE')
      AND NOT EXISTS (SELECT
                      FROM postalytics.bindings AS b
                      WHERE b.privilege = o.privilege
                        AND EXISTS (SELECT FROM pg_roles AS g WHERE g.oid = b.role)
                        AND pg_has_role(r.oid, b.role, 'USAGE'))
$$;
COMMENT ON FUNCTION postalytics.check_roles() IS
    'internal: findings about roles and privileges';

-- SECURITY DEFINER, because managers have no privileges on the data that is checked.
CREATE FUNCTION postalytics.check_setup()
RETURNS SETOF postalytics.setup_finding
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT f.*
    FROM (
        SELECT * FROM postalytics.check_server()
        UNION ALL
        SELECT * FROM postalytics.check_maintenance()
        UNION ALL
        SELECT * FROM postalytics.check_syncs()
        UNION ALL
        SELECT * FROM postalytics.check_payload_accounts()
        UNION ALL
        SELECT * FROM postalytics.check_roles()
    ) AS f (severity, name, finding, remedy)
    ORDER BY array_position('{error,warning,notice}', f.severity), f.name, f.finding
$$;
COMMENT ON FUNCTION postalytics.check_setup() IS
    'what is wrong or risky in this installation, and what to do about it, most severe first; no row if all is well';
