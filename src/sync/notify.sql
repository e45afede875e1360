/*
 * notify.sql
 *		notify(), the trigger for the users' own tables.
 */

CREATE FUNCTION postalytics.notify()
RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_notify';
COMMENT ON FUNCTION postalytics.notify() IS
    'trigger: notify(''channel'', ''key_column'', ...) tells a channel which rows of a table changed, once a statement';
