/*
 * offer.sql
 *		The events of a call, for the query that inserts them.
 */

CREATE FUNCTION postalytics.offered_events()
RETURNS SETOF postalytics.events
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_offered_events';
COMMENT ON FUNCTION postalytics.offered_events() IS
    'internal: the events of the running ingest, for its INSERT';
