/*
 * ingest.sql
 *		ingest: stores events given as JSON.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TYPE postalytics.ingest_result AS (
    inserted bigint,
    duplicates bigint,
    rejected bigint
);
COMMENT ON TYPE postalytics.ingest_result IS
    'numbers of inserted, duplicate and rejected events of a call; events ignored because of status_names are not counted';
COMMENT ON COLUMN postalytics.ingest_result.inserted IS 'number of new events and production errors';
COMMENT ON COLUMN postalytics.ingest_result.duplicates IS 'number of events and production errors that were stored before, including earlier in the same call';
COMMENT ON COLUMN postalytics.ingest_result.rejected IS 'number of events that were rejected';

CREATE FUNCTION postalytics.ingest(payload json, account text DEFAULT NULL)
RETURNS postalytics.ingest_result
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_ingest';
COMMENT ON FUNCTION postalytics.ingest(json, text) IS
    'store an event or an array of events, optionally wrapped in data, events or items';

CREATE FUNCTION postalytics.ingest_parts(payloads json[], accounts text[], fixed boolean[])
RETURNS postalytics.ingest_result
LANGUAGE c
STRICT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_ingest_parts';
COMMENT ON FUNCTION postalytics.ingest_parts(json[], text[], boolean[]) IS
    'internal: ingest several payloads, each with its account, as a single call; used by the front of a cluster';
