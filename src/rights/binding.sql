/*
 * binding.sql
 *		The bindings of roles to privileges, accounts and syncs.
 *
 * GRANTs determine which functions and tables a role may use, and a binding determines
 * for which account or sync the role may use them.  Functions for managers and monitors
 * need only a GRANT.  The functions in grant.sql add and remove GRANTs and bindings
 * together.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- A dump contains only the bindings of roles that exist.  A role that was dropped would
-- be written as an OID, which can belong to another role in a new cluster.
CREATE TABLE postalytics.bindings (
    role pg_catalog.regrole NOT NULL,
    privilege text NOT NULL
        CHECK (privilege OPERATOR(pg_catalog.=) ANY ('{ingest,read,sync,manage,monitor}'::text[])),
    account text
        CHECK (account IS NULL OR privilege OPERATOR(pg_catalog.=) ANY ('{ingest,read}'::text[])),
    sync text
        CHECK ((sync IS NOT NULL) OPERATOR(pg_catalog.=) (privilege OPERATOR(pg_catalog.=) 'sync'::text)),
    UNIQUE NULLS NOT DISTINCT (role, privilege, account, sync)
);
COMMENT ON TABLE postalytics.bindings IS
    'privileges of roles, and the account or sync to which each privilege applies; see grant_ingest, grant_read, grant_sync, grant_manage and grant_monitor';
COMMENT ON COLUMN postalytics.bindings.role IS 'the role; its members have its bindings';
COMMENT ON COLUMN postalytics.bindings.privilege IS 'ingest, read, sync, manage or monitor';
COMMENT ON COLUMN postalytics.bindings.account IS 'account, for ingest and read; NULL for all accounts';
COMMENT ON COLUMN postalytics.bindings.sync IS 'sync, for the privilege sync';

SELECT pg_catalog.pg_extension_config_dump('postalytics.bindings',
    'WHERE role::pg_catalog.oid IN (SELECT oid FROM pg_catalog.pg_roles)');

-- A publication FOR ALL TABLES includes this table.  As there is no primary key, UPDATE
-- and DELETE would then fail without another replica identity.
ALTER TABLE postalytics.bindings REPLICA IDENTITY FULL;

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.bindings
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();
ALTER TABLE postalytics.bindings ENABLE ALWAYS TRIGGER configuration_changed;

CREATE FUNCTION postalytics.reads_all()
RETURNS boolean
LANGUAGE c
STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_reads_all';
COMMENT ON FUNCTION postalytics.reads_all() IS
    'true if the current user may read the data of all accounts';

CREATE FUNCTION postalytics.readable_accounts()
RETURNS text[]
LANGUAGE c
STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_readable_accounts';
COMMENT ON FUNCTION postalytics.readable_accounts() IS
    'the accounts to which the current user is bound as a reader';

-- Policies at the front of a cluster call this.  postgres_fdw sends the conditions of
-- policies and of the query to a slot in one WHERE clause, and the planner there evaluates
-- cheaper conditions first.  The cost makes this the first, so that errors of other
-- conditions cannot reveal rows of other accounts.
CREATE FUNCTION postalytics.may_see(value text, sees_all boolean, visible text[])
RETURNS boolean
LANGUAGE c
IMMUTABLE PARALLEL SAFE LEAKPROOF
COST 0.0001
AS 'MODULE_PATHNAME', 'postalytics_may_see';
COMMENT ON FUNCTION postalytics.may_see(text, boolean, text[]) IS
    'internal: true if sees_all is true or the value is one of visible';

CREATE FUNCTION postalytics.is_manager()
RETURNS boolean
LANGUAGE c
STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_is_manager';
COMMENT ON FUNCTION postalytics.is_manager() IS
    'true if the current user may manage syncs and settings';
