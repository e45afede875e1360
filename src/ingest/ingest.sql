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

CREATE TYPE postalytics.payloads;

CREATE FUNCTION postalytics.payloads_in(cstring)
RETURNS postalytics.payloads
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_payloads_in';
COMMENT ON FUNCTION postalytics.payloads_in(cstring) IS
    'internal: input function of payloads';

CREATE FUNCTION postalytics.payloads_out(postalytics.payloads)
RETURNS cstring
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_payloads_out';
COMMENT ON FUNCTION postalytics.payloads_out(postalytics.payloads) IS
    'internal: output function of payloads';

-- PL/Proxy takes a type with elements for an array.  The subscripting function is not for
-- elements of variable length, and is only there because CREATE TYPE requires one.
CREATE TYPE postalytics.payloads (
    INPUT = postalytics.payloads_in,
    OUTPUT = postalytics.payloads_out,
    INTERNALLENGTH = VARIABLE,
    STORAGE = extended,
    ELEMENT = text,
    SUBSCRIPT = pg_catalog.raw_array_subscript_handler
);
COMMENT ON TYPE postalytics.payloads IS
    'internal: an array of JSON texts that the front of a cluster sends to a slot';

CREATE FUNCTION postalytics.ingest_parts(payloads postalytics.payloads, accounts text[], fixed boolean[])
RETURNS postalytics.ingest_result
LANGUAGE c
STRICT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_ingest_parts';
COMMENT ON FUNCTION postalytics.ingest_parts(postalytics.payloads, text[], boolean[]) IS
    'internal: ingest several payloads, each with its account, as a single call; used by the front of a cluster';
