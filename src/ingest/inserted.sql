/*
 * inserted.sql
 *		The statement trigger on events, which updates everything derived from them.
 *
 * A restore inserts into the partitions of events and not into events itself, so
 * the trigger does not fire.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.events_inserted()
RETURNS trigger
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_events_inserted';
COMMENT ON FUNCTION postalytics.events_inserted() IS
    'internal: trigger: derives pieces, campaigns and deliveries from new events';

CREATE TRIGGER events_inserted
AFTER INSERT ON postalytics.events
REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.events_inserted();
