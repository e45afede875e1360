/*
 * retry.sql
 *		retry_rejects: ingests the rejects again.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.retry_rejects()
RETURNS postalytics.ingest_result
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_retry_rejects';
COMMENT ON FUNCTION postalytics.retry_rejects() IS
    'ingest again the rejects of the accounts for which the caller may ingest, and delete the rejects that are now accepted';
