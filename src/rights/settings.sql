/*
 * settings.sql
 *		The settings, for SQL.
 */

CREATE FUNCTION postalytics.setting(name text)
RETURNS text
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_setting';
COMMENT ON FUNCTION postalytics.setting(text) IS
    'internal: the value of postalytics_status.name, the library being loaded for it';
