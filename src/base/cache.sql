/*
 * cache.sql
 *		The trigger function of tables that sessions keep in memory.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.configuration_changed()
RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_configuration_changed';
COMMENT ON FUNCTION postalytics.configuration_changed() IS
    'internal: trigger function that makes every session read the table again';
