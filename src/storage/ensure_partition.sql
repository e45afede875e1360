/*
 * ensure_partition.sql
 *		Creates partitions that do not exist yet.
 */

CREATE FUNCTION postalytics.ensure_partitions("from" timestamptz, until timestamptz)
RETURNS integer
LANGUAGE c
STRICT
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_ensure_partitions';
COMMENT ON FUNCTION postalytics.ensure_partitions(timestamptz, timestamptz) IS
    'make the missing months of events from "from" to before until; how many were made';

CREATE FUNCTION postalytics.ensure_days("from" timestamptz, until timestamptz)
RETURNS integer
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_ensure_days';
COMMENT ON FUNCTION postalytics.ensure_days(timestamptz, timestamptz) IS
    'internal: make the missing days of deliveries from "from" to before until; how many were made';
