/*
 * cache.sql
 *		The trigger function of tables that sessions keep in memory.
 */

CREATE FUNCTION postalytics.configuration_changed()
RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_configuration_changed';
COMMENT ON FUNCTION postalytics.configuration_changed() IS
    'internal: trigger function that makes every session read the table again';
