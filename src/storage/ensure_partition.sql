/*
 * ensure_partition.sql
 *		Creates partitions that do not exist yet.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.ensure_partitions("from" timestamptz, until timestamptz)
RETURNS integer
LANGUAGE c
STRICT
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_ensure_partitions';
COMMENT ON FUNCTION postalytics.ensure_partitions(timestamptz, timestamptz) IS
    'create the missing months of events at or after "from" and before until, and return their number';

CREATE FUNCTION postalytics.ensure_days("from" timestamptz, until timestamptz)
RETURNS integer
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_ensure_days';
COMMENT ON FUNCTION postalytics.ensure_days(timestamptz, timestamptz) IS
    'internal: create the missing days of deliveries at or after "from" and before until, and return their number';
