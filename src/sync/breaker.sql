/*
 * breaker.sql
 *		breaker_events: states of the circuit breakers of syncs.
 *
 * The latest row of a sync is in effect.  A change of state inserts a new row and
 * updates none, so that a worker that is idle in transaction after nack holds no lock
 * for which another worker would wait.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TABLE postalytics.breaker_events (
    sync text COLLATE pg_catalog."C" NOT NULL,
    at timestamptz NOT NULL,
    failures integer NOT NULL,
    trips integer NOT NULL,
    until timestamptz
);
-- A table without a primary key needs this if it is in a publication of all tables.
ALTER TABLE postalytics.breaker_events REPLICA IDENTITY FULL;
CREATE INDEX breaker_events_sync_at_idx ON postalytics.breaker_events (sync, at);
COMMENT ON TABLE postalytics.breaker_events IS
    'states of circuit breakers: the latest row of a sync is in effect; maintain() deletes rows after a day, which closes the breaker';
COMMENT ON COLUMN postalytics.breaker_events.sync IS 'the sync';
COMMENT ON COLUMN postalytics.breaker_events.at IS 'when the state changed';
COMMENT ON COLUMN postalytics.breaker_events.failures IS 'failures since the last success';
COMMENT ON COLUMN postalytics.breaker_events.trips IS 'number of pauses since the last success; 0 if the breaker is closed';
COMMENT ON COLUMN postalytics.breaker_events.until IS 'end of the pause; NULL if the breaker is closed';

SELECT pg_catalog.pg_extension_config_dump('postalytics.breaker_events', '');

CREATE FUNCTION postalytics.end_breaker_pause(sync text)
RETURNS boolean
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_end_breaker_pause';
COMMENT ON FUNCTION postalytics.end_breaker_pause(text) IS
    'internal: end the pause that the breaker of a sync has begun; true if there was such a pause';
