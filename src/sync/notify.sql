/*
 * notify.sql
 *		notify(), the trigger for the users' own tables.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.notify()
RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_notify';
COMMENT ON FUNCTION postalytics.notify() IS
    'trigger: notify(''channel'', ''key_column'', ...) sends the keys of the rows that a statement changed to a channel';
