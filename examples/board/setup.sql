/*
 * setup.sql
 *		Creates what the board needs: a role that can read and call three functions, and a
 *		sync that only sends notifications.  With -v account=5510, the board shows only this
 *		account.  Can be run again, by a superuser.
 */
\if :{?account}
\else
	\set account ''
\endif
SELECT format('CREATE ROLE %I %s', n.role, n.option)
FROM (VALUES ('board', 'LOGIN'), ('board_owner', 'NOLOGIN')) AS n (role, option)
WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = n.role)
\gexec
SELECT postalytics.revoke_read('board');
SELECT postalytics.grant_read('board', NULLIF(:'account', '')), postalytics.grant_manage('board_owner');
SELECT
FROM postalytics.create_sync('board', durable => false)
WHERE NOT EXISTS (SELECT FROM postalytics.syncs AS s WHERE s.name = 'board');

-- The buttons of the page.  The functions run as board_owner, so that the role of the board
-- can do nothing else to a sync.
SELECT 'CREATE SCHEMA board AUTHORIZATION board_owner'
WHERE NOT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = 'board')
\gexec
SET ROLE board_owner;
CREATE OR REPLACE FUNCTION board.pause(sync text)
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT FROM postalytics.pause_sync(sync, '1 hour')
$$;
CREATE OR REPLACE FUNCTION board.resume(sync text)
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT FROM postalytics.resume_sync(sync)
$$;
CREATE OR REPLACE FUNCTION board.redrive(sync text)
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT FROM postalytics.redrive(sync)
$$;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA board FROM PUBLIC;
GRANT USAGE ON SCHEMA board TO board;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA board TO board;
RESET ROLE;
