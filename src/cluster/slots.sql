/*
 * slots.sql
 *		The slots of a cluster, as the front knows them.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- The table is not dumped, so a restored front has another id.
CREATE TABLE postalytics.front (
    id uuid NOT NULL
);
COMMENT ON TABLE postalytics.front IS
    'internal: the stored part of the id of this front';
COMMENT ON COLUMN postalytics.front.id IS 'random value, set by CREATE EXTENSION';
CREATE UNIQUE INDEX front_is_one ON postalytics.front ((true));
ALTER TABLE postalytics.front ENABLE ROW LEVEL SECURITY;
INSERT INTO postalytics.front (id)
SELECT pg_catalog.gen_random_uuid();

CREATE FUNCTION postalytics.front_id()
RETURNS uuid
LANGUAGE c
STABLE
AS 'MODULE_PATHNAME', 'postalytics_id_of_front';
COMMENT ON FUNCTION postalytics.front_id() IS
    'internal: identifies this front to its slots, so that they apply the configuration of no other';

-- The foreign tables are in a schema that only the owner may use, because row-level
-- security does not apply to them.
CREATE SCHEMA postalytics_slots;
COMMENT ON SCHEMA postalytics_slots IS
    'the foreign tables of the front of a cluster';

-- The connection string has no user and no password.  They are in user mappings.  The
-- table is not dumped, so a restored front does nothing to the slots before add_slot is
-- called again.
CREATE TABLE postalytics.slots (
    slot integer NOT NULL PRIMARY KEY,
    slots integer NOT NULL,
    connection text NOT NULL,
    front uuid NOT NULL
);
COMMENT ON TABLE postalytics.slots IS
    'the slots of the cluster; add_slot changes them';
COMMENT ON COLUMN postalytics.slots.slot IS 'number of the slot, from 0 to slots - 1';
COMMENT ON COLUMN postalytics.slots.slots IS 'number of slots in the cluster';
COMMENT ON COLUMN postalytics.slots.connection IS 'connection string, without user and password';
COMMENT ON COLUMN postalytics.slots.front IS 'id of the front to which the slot was added; another one in a copy of that front, and after pg_upgrade';

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.slots
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();
ALTER TABLE postalytics.slots ENABLE ALWAYS TRIGGER configuration_changed;

CREATE FUNCTION postalytics.is_complete()
RETURNS boolean
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_is_complete';
COMMENT ON FUNCTION postalytics.is_complete() IS
    'internal: true if all slots have been added';

CREATE FUNCTION postalytics.check_no_block(function text)
RETURNS void
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'postalytics_check_no_block';
COMMENT ON FUNCTION postalytics.check_no_block(text) IS
    'internal: raise an error in a transaction block, in which the named function cannot run';

CREATE FUNCTION postalytics.split_events(
    document json,
    account text DEFAULT NULL,
    OUT slot integer,
    OUT payload json,
    OUT events bigint,
    OUT rejects bigint,
    OUT reason text)
RETURNS SETOF record
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_split_events';
COMMENT ON FUNCTION postalytics.split_events(json, text) IS
    'the events of a payload, as ingest reads them, by slot: the events as a JSON array, the numbers of events that are accepted and rejected, and the reason of the first reject';
