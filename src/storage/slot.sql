/*
 * slot.sql
 *		slot: which slot this database is in a cluster.
 *
 * A database that belongs to no cluster has no row.  join_cluster, in
 * operate/join_cluster.sql, sets the row.  A dump contains it, as it contains the
 * sequences of ids, so a restored slot is the same slot.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TABLE postalytics.slot (
    slot integer NOT NULL,
    slots integer NOT NULL
        CHECK (slots BETWEEN 1 AND 1024 AND slots OPERATOR(pg_catalog.&) (slots OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog.=) 0),
    front uuid,
    configuration_version bigint,
    configuration json,
    CHECK (slot >= 0 AND slot < slots)
);
-- There is at most one row.
CREATE UNIQUE INDEX slot_single_row ON postalytics.slot ((true));
-- A table without a primary key needs this if it is in a publication of all tables.
ALTER TABLE postalytics.slot REPLICA IDENTITY FULL;
COMMENT ON TABLE postalytics.slot IS
    'which slot of a cluster this database is; empty if it is in no cluster; see join_cluster';
COMMENT ON COLUMN postalytics.slot.slot IS 'number of the slot, from 0 to slots - 1';
COMMENT ON COLUMN postalytics.slot.slots IS 'number of slots in the cluster';
COMMENT ON COLUMN postalytics.slot.front IS 'the front whose configuration this slot applies; NULL until add_slot is called at the front';
COMMENT ON COLUMN postalytics.slot.configuration_version IS 'version of the configuration that this slot has applied';
COMMENT ON COLUMN postalytics.slot.configuration IS 'internal: the configuration that this slot has applied';

SELECT pg_catalog.pg_extension_config_dump('postalytics.slot', '');
ALTER TABLE postalytics.slot ENABLE ROW LEVEL SECURITY;

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.slot
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();
ALTER TABLE postalytics.slot ENABLE ALWAYS TRIGGER configuration_changed;

-- The ids of a slot begin here, so that the ids of 1024 slots are below 2^53 and can be
-- read as numbers in every language.  front_queue.c finds the slot of an id in this way.
CREATE FUNCTION postalytics.first_id_of_slot(slot integer)
RETURNS bigint
LANGUAGE sql
IMMUTABLE STRICT PARALLEL SAFE
RETURN slot::bigint OPERATOR(pg_catalog.<<) 43;
COMMENT ON FUNCTION postalytics.first_id_of_slot(integer) IS
    'internal: the lower end of the range of ids that a slot assigns';

CREATE FUNCTION postalytics.slot_of(piece_id text, slots integer)
RETURNS integer
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_slot_of';
COMMENT ON FUNCTION postalytics.slot_of(text, integer) IS
    'slot of a piece in a cluster with this number of slots';
