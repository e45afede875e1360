/*
 * table.sql
 *		The check that Citus has not distributed the extension's tables.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.check_not_distributed()
RETURNS void
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_check_not_distributed';
COMMENT ON FUNCTION postalytics.check_not_distributed() IS
    'internal: raise an error if Citus has distributed a table of the extension';
