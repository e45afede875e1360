/*
 * join_cluster.sql
 *		join_cluster: makes the database a slot of a cluster.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- The database must be empty, because events that it already has could belong to other
-- slots, and their ids are not in the range of the slot.  A cluster of one slot has all
-- pieces and all ids, so any database can join it.
--
-- Locks: SHARE on events until the transaction ends.  Errors: 22004 for NULL, 22023 for
-- numbers that are not allowed, 55000 if the database is another slot or is not empty,
-- 25001 unless the transaction is READ COMMITTED, 55P03 if the lock is not available
-- within 10 seconds.
CREATE FUNCTION postalytics.join_cluster(slot integer, slots integer)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    present postalytics.slot;
    first_id CONSTANT bigint := postalytics.first_id_of_slot(slot);
BEGIN
    IF slot IS NULL OR slots IS NULL THEN
        RAISE EXCEPTION 'slot and slots must not be NULL'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF slots NOT BETWEEN 1 AND 1024 OR slots & (slots - 1) <> 0 THEN
        RAISE EXCEPTION 'number of slots must be a power of two between 1 and 1024'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF slot NOT BETWEEN 0 AND slots - 1 THEN
        RAISE EXCEPTION 'slot must be between 0 and %', slots - 1
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM postalytics.check_read_committed('join_cluster');
    PERFORM postalytics.lock_briefly('postalytics.events', 'SHARE');
    SELECT s.*
    INTO present
    FROM postalytics.slot AS s;
    IF (present.slot, present.slots) = (join_cluster.slot, join_cluster.slots) THEN
        RETURN;
    END IF;
    IF slots > 1 AND (EXISTS (SELECT FROM postalytics.events)
                      OR EXISTS (SELECT FROM postalytics.pieces)
                      OR EXISTS (SELECT FROM postalytics.production_errors)
                      OR EXISTS (SELECT FROM postalytics.rejects)
                      OR EXISTS (SELECT FROM postalytics.deliveries)) THEN
        RAISE EXCEPTION 'cannot make the database slot % of % because it has events', slot, slots
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Use an empty database, and ingest the events at the front of the cluster.';
    END IF;
    DELETE FROM postalytics.slot;
    INSERT INTO postalytics.slot (slot, slots)
    VALUES (join_cluster.slot, join_cluster.slots);
    -- The database may have been another slot before.
    IF slots > 1 THEN
        PERFORM setval('postalytics.event_id_seq', greatest(first_id, 1), slot > 0),
                setval('postalytics.delivery_id_seq', greatest(first_id, 1), slot > 0),
                setval('postalytics.reject_id_seq', greatest(first_id, 1), slot > 0);
    END IF;
    PERFORM postalytics.audit('join_cluster', NULL, NULL, format('slot %s of %s', slot, slots));
END
$$;
COMMENT ON FUNCTION postalytics.join_cluster(integer, integer) IS
    'make this database a slot of a cluster: it accepts only the pieces of this slot, and its ids differ from those of other slots';
