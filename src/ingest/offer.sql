/*
 * offer.sql
 *		offered_events: returns the events of a call to the query that inserts them.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.offered_events()
RETURNS SETOF postalytics.events
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_offered_events';
COMMENT ON FUNCTION postalytics.offered_events() IS
    'internal: returns the events of the running ingest to the query that inserts them';
