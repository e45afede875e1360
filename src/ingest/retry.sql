/*
 * retry.sql
 *		retry_rejects: the rejects ingested again.
 */

CREATE FUNCTION postalytics.retry_rejects()
RETURNS postalytics.ingest_result
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_retry_rejects';
COMMENT ON FUNCTION postalytics.retry_rejects() IS
    'ingest the rejects again; those understood now leave the table';
