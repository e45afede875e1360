/*
 * settings.sql
 *		The settings of this database.
 *
 * configure(), which changes them, is in operate/configure.sql.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TABLE postalytics.configuration (
    name text COLLATE pg_catalog."C" NOT NULL PRIMARY KEY,
    value text NOT NULL
);
COMMENT ON TABLE postalytics.configuration IS
    'the settings that differ from their default; see the view settings and configure()';
COMMENT ON COLUMN postalytics.configuration.name IS 'name of the setting';
COMMENT ON COLUMN postalytics.configuration.value IS 'value of the setting';

SELECT pg_catalog.pg_extension_config_dump('postalytics.configuration', '');

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.configuration
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();
ALTER TABLE postalytics.configuration ENABLE ALWAYS TRIGGER configuration_changed;

CREATE FUNCTION postalytics.setting(name text)
RETURNS text
LANGUAGE c
STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_setting';
COMMENT ON FUNCTION postalytics.setting(text) IS
    'current value of a setting';

CREATE FUNCTION postalytics.check_setting(name text, value text)
RETURNS boolean
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_check_setting';
COMMENT ON FUNCTION postalytics.check_setting(text, text) IS
    'internal: raise an error if a setting does not allow a value; true if the value differs from the default';

CREATE FUNCTION postalytics.known_settings(
    OUT name text,
    OUT "default" text,
    OUT allowed text,
    OUT description text)
RETURNS SETOF record
LANGUAGE c
ROWS 22
AS 'MODULE_PATHNAME', 'postalytics_known_settings';
COMMENT ON FUNCTION postalytics.known_settings() IS
    'internal: names, defaults, allowed values and descriptions of all settings';

CREATE VIEW postalytics.settings
WITH (security_invoker = true) AS
SELECT k.name,
       postalytics.setting(k.name) AS value,
       k."default",
       k.allowed,
       k.description
FROM postalytics.known_settings() AS k;
COMMENT ON VIEW postalytics.settings IS
    'the settings of this database; configure() changes them';
COMMENT ON COLUMN postalytics.settings.name IS 'name of the setting';
COMMENT ON COLUMN postalytics.settings.value IS 'current value';
COMMENT ON COLUMN postalytics.settings."default" IS 'default value';
COMMENT ON COLUMN postalytics.settings.allowed IS 'allowed values';
COMMENT ON COLUMN postalytics.settings.description IS 'description of the setting';
