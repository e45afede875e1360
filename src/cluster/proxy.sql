/*
 * proxy.sql
 *		The functions of postalytics_status that the front passes to the slots.
 *
 * A PL/Proxy function slots_NAME calls NAME on the slots.  Only the owner may execute
 * it.  Users call functions in C that check their privileges first (front_call.c,
 * front_ingest.c and front_queue.c).
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- ---- functions for managers ----

-- Each is replaced with a function of the same signature that calls slots_NAME, which
-- runs NAME where the second column says.
DO $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT p.proname AS name,
               pg_get_function_arguments(p.oid) AS arguments,
               pg_get_function_identity_arguments(p.oid) AS types,
               pg_get_function_result(p.oid) AS result,
               f.place
        FROM (VALUES
            ('replay_sync', 'ALL'),
            ('redrive', 'ALL'),
            ('discard', 'ALL'),
            ('pause_sync', 'ALL'),
            ('resume_sync', 'ALL'),
            ('test_sync', '0'),
            ('ensure_partitions', 'ALL'),
            ('retract_event', 'postalytics.slot_of_piece(piece_id)')) AS f (name, place)
        JOIN pg_proc AS p ON p.proname = f.name AND p.pronamespace = 'postalytics'::regnamespace
    LOOP
        EXECUTE format('CREATE FUNCTION postalytics.%I(%s) RETURNS %s LANGUAGE plproxy AS %L',
                       'slots_' || each.name, each.arguments,
                       CASE WHEN each.result ~ '^(SETOF|TABLE)' THEN each.result ELSE 'SETOF ' || each.result END,
                       format('CLUSTER ''postalytics''; RUN ON %s; TARGET postalytics.%s;', each.place, each.name));
        EXECUTE format('COMMENT ON FUNCTION postalytics.%I(%s) IS %L', 'slots_' || each.name, each.types,
                       'internal: ' || each.name || ' on the slots');
        EXECUTE format('CREATE OR REPLACE FUNCTION postalytics.%I(%s) RETURNS %s LANGUAGE c SET search_path = pg_catalog, pg_temp AS ''MODULE_PATHNAME'', ''postalytics_call_slots''',
                       each.name, each.arguments, each.result);
    END LOOP;
END
$$;

CREATE FUNCTION postalytics.slot_of_piece(piece_id text)
RETURNS integer
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.slot_of(COALESCE(piece_id, ''), (SELECT s.slots FROM postalytics.slots AS s LIMIT 1))
$$;
COMMENT ON FUNCTION postalytics.slot_of_piece(text) IS
    'internal: slot of a piece in this cluster';

-- ---- ingest ----

CREATE FUNCTION postalytics.slots_ingest(slots integer[], payloads postalytics.payloads, accounts text[], fixed boolean[])
RETURNS SETOF postalytics.ingest_result
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    SPLIT slots, payloads, accounts, fixed;
    RUN ON slots;
    SELECT r.inserted, r.duplicates, r.rejected FROM postalytics.ingest_parts(payloads, accounts, fixed) AS r;
$$;
COMMENT ON FUNCTION postalytics.slots_ingest(integer[], postalytics.payloads, text[], boolean[]) IS
    'internal: ingest payloads, each on its slot and with its account';

CREATE OR REPLACE FUNCTION postalytics.ingest(payload json, account text DEFAULT NULL)
RETURNS postalytics.ingest_result
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_front_ingest';

CREATE OR REPLACE FUNCTION postalytics.inbox_insert()
RETURNS trigger
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_front_inbox';

-- ---- deliveries ----

CREATE FUNCTION postalytics.slots_fetch(slot integer, sync text, batch integer, lease interval)
RETURNS SETOF postalytics.delivery
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON slot;
    SELECT d.* FROM postalytics.fetch(sync, batch, lease) AS d;
$$;
COMMENT ON FUNCTION postalytics.slots_fetch(integer, text, integer, interval) IS
    'internal: fetch from one slot';

CREATE FUNCTION postalytics.slots_ack(sync text, slots integer[], delivery_ids bigint[], attempts integer[], by_attempt boolean)
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    SPLIT slots, delivery_ids, attempts;
    RUN ON slots;
    SELECT postalytics.ack(sync, delivery_ids, CASE WHEN by_attempt THEN attempts END);
$$;
COMMENT ON FUNCTION postalytics.slots_ack(text, integer[], bigint[], integer[], boolean) IS
    'internal: ack deliveries, each on its slot';

CREATE FUNCTION postalytics.slots_nack(
    sync text,
    slots integer[],
    delivery_ids bigint[],
    attempts integer[],
    by_attempt boolean,
    error text,
    retry_in interval,
    dead boolean)
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    SPLIT slots, delivery_ids, attempts;
    RUN ON slots;
    SELECT postalytics.nack(sync, delivery_ids, error, retry_in, dead, CASE WHEN by_attempt THEN attempts END);
$$;
COMMENT ON FUNCTION postalytics.slots_nack(text, integer[], bigint[], integer[], boolean, text, interval, boolean) IS
    'internal: nack deliveries, each on its slot';

CREATE FUNCTION postalytics.slots_pause_by_nack(sync text, pause interval, error text)
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    SELECT postalytics.nack(sync, '{}', error, NULL, false, NULL, pause);
$$;
COMMENT ON FUNCTION postalytics.slots_pause_by_nack(text, interval, text) IS
    'internal: pause a sync on all slots, as nack does';

CREATE FUNCTION postalytics.slots_next_due(sync text)
RETURNS SETOF timestamptz
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.next_due;
$$;
COMMENT ON FUNCTION postalytics.slots_next_due(text) IS
    'internal: next_due of all slots';

DO $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT p.proname AS name,
               pg_get_function_arguments(p.oid) AS arguments,
               pg_get_function_result(p.oid) AS result
        FROM pg_proc AS p
        WHERE p.proname IN ('fetch', 'ack', 'nack', 'next_due')
          AND p.pronamespace = 'postalytics'::regnamespace
    LOOP
        EXECUTE format('CREATE OR REPLACE FUNCTION postalytics.%I(%s) RETURNS %s LANGUAGE c SET search_path = pg_catalog, pg_temp AS ''MODULE_PATHNAME'', %L',
                       each.name, each.arguments, each.result, 'postalytics_front_' || each.name);
    END LOOP;
END
$$;
