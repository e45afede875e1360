/*
 * setup.sql
 *		The role of the exporter.  It can read numbers, and the names of syncs and
 *		months, and no data.  Can be run again.
 */
SELECT 'CREATE ROLE prometheus LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = 'prometheus')
\gexec
GRANT pg_monitor TO prometheus;
ALTER ROLE prometheus SET statement_timeout = '10s';
