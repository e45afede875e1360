/*
 * ack.sql
 *		ack and nack, for workers.  Their settings are those of fetch.
 */

CREATE FUNCTION postalytics.ack(sync text, delivery_ids bigint[], attempts integer[] DEFAULT NULL)
RETURNS bigint
LANGUAGE c
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS 'MODULE_PATHNAME', 'postalytics_ack';
COMMENT ON FUNCTION postalytics.ack(text, bigint[], integer[]) IS
    'these deliveries are done; how many of them were the caller''s to finish';

CREATE FUNCTION postalytics.nack(
    sync text,
    delivery_ids bigint[],
    error text,
    retry_in interval DEFAULT NULL,
    dead boolean DEFAULT false,
    attempts integer[] DEFAULT NULL,
    pause interval DEFAULT NULL)
RETURNS bigint
LANGUAGE c
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS 'MODULE_PATHNAME', 'postalytics_nack';
COMMENT ON FUNCTION postalytics.nack(text, bigint[], text, interval, boolean, integer[], interval) IS
    'these deliveries failed: try again in retry_in, or after ever longer waits, or never (dead); if pause is given, also pause the sync for that long; how many were the caller''s';
