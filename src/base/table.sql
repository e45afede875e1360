/*
 * table.sql
 *		The check that tables are as the extension made them.
 */

CREATE FUNCTION postalytics.check_not_distributed()
RETURNS void
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_check_not_distributed';
COMMENT ON FUNCTION postalytics.check_not_distributed() IS
    'internal: an error if a table of the extension is distributed by Citus';
