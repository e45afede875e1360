/*
 * setup.sql
 *		The role of the exporter.  It can read numbers, and no data.
 */
CREATE ROLE prometheus LOGIN;
GRANT pg_monitor TO prometheus;
