/*
 * ingest.sql
 *		ingest: events from JSON.
 */

CREATE TYPE postalytics.ingest_result AS (
    inserted bigint,
    duplicates bigint,
    rejected bigint
);
COMMENT ON TYPE postalytics.ingest_result IS
    'what became of the events of a call: the three add up to the events offered, without those ignored because of status_names';

CREATE FUNCTION postalytics.ingest(payload json, account text DEFAULT NULL)
RETURNS postalytics.ingest_result
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_ingest';
COMMENT ON FUNCTION postalytics.ingest(json, text) IS
    'store an event, or an array of them, wrapped in data, events or items or not';
