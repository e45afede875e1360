/*
 * ack.sql
 *		ack and nack, for workers.  fetch.sql explains their settings.
 *
 * Copyright (c) 2026, the postalytics_status developers
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
    'finish deliveries that are leased to the caller, and return their number';

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
    'record that deliveries leased to the caller failed, and return their number: they are retried after retry_in (by default, after increasing waits), or never if dead is true; pause also pauses the sync for that long';
