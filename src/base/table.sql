/*
 * table.sql
 *		The check that Citus has not distributed the extension's tables.
 */

CREATE FUNCTION postalytics.check_not_distributed()
RETURNS void
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_check_not_distributed';
COMMENT ON FUNCTION postalytics.check_not_distributed() IS
    'internal: raise an error if Citus has distributed a table of the extension';
