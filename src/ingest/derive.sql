/*
 * derive.sql
 *		The statement trigger on events, on which everything derived hangs.
 *		A restore fills the leaves, not events, so it does not fire there.
 */

CREATE FUNCTION postalytics.events_inserted()
RETURNS trigger
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_events_inserted';
COMMENT ON FUNCTION postalytics.events_inserted() IS
    'trigger: brings pieces, campaigns and syncs up to new events';

CREATE TRIGGER events_inserted
AFTER INSERT ON postalytics.events
REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.events_inserted();
