/*
 * guard.sql
 *		guard_drop: prevents a plain DROP EXTENSION from dropping all events.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.guard_drop()
RETURNS event_trigger
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_guard_drop';
COMMENT ON FUNCTION postalytics.guard_drop() IS
    'internal: event trigger: refuses to drop the extension without CASCADE while it has events, and removes bindings of roles in DROP OWNED';

CREATE EVENT TRIGGER postalytics_guard_drop
ON ddl_command_start
WHEN TAG IN ('DROP EXTENSION', 'DROP OWNED')
EXECUTE FUNCTION postalytics.guard_drop();
COMMENT ON EVENT TRIGGER postalytics_guard_drop IS
    'refuses to drop the extension without CASCADE while there are events';
