/*
 * setup.sql
 *		The role of the exporter.  It can read numbers, and the names of syncs and
 *		months, and no data.
 */
CREATE ROLE prometheus LOGIN;
GRANT pg_monitor TO prometheus;
ALTER ROLE prometheus SET statement_timeout = '10s';
