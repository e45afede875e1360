/*
 * pause.sql
 *		Pauses, during which a sync leases no deliveries.
 *
 * Each pause is a new row, and rows are never updated, so that a worker that is idle in
 * transaction after nack holds no lock for which another pause would wait.  The pause
 * that ends last is in effect.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TABLE postalytics.pauses (
    sync text NOT NULL,
    until timestamptz NOT NULL,
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    reason text
);
-- A table without a primary key needs this if it is in a publication of all tables.
ALTER TABLE postalytics.pauses REPLICA IDENTITY FULL;
CREATE INDEX pauses_sync_until_idx ON postalytics.pauses (sync, until);
COMMENT ON TABLE postalytics.pauses IS
    'pauses of syncs; deleted by resume_sync, and by maintain() a day after they end';
COMMENT ON COLUMN postalytics.pauses.sync IS 'the sync';
COMMENT ON COLUMN postalytics.pauses.until IS 'when the pause ends';
COMMENT ON COLUMN postalytics.pauses.at IS 'when the sync was paused';
COMMENT ON COLUMN postalytics.pauses.reason IS 'error that was passed to nack, or NULL';

SELECT pg_catalog.pg_extension_config_dump('postalytics.pauses', '');

-- Locks: the sync's row.  Errors: 42704 if there is no such sync, 22004 for NULL,
-- 22023 if the duration is not positive and finite, or the sync is not durable.
CREATE FUNCTION postalytics.pause_sync(name text, duration interval)
RETURNS timestamptz
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    pause_end timestamptz := clock_timestamp() + duration;
BEGIN
    IF name IS NULL OR duration IS NULL THEN
        RAISE EXCEPTION 'name and duration must not be NULL'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    PERFORM postalytics.find_sync(name);
    PERFORM postalytics.check_durable(name);
    IF duration <= '0' OR NOT isfinite(pause_end) THEN
        RAISE EXCEPTION 'duration must be positive and finite'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Use resume_sync(name) to end a pause, or disable_sync(name) to turn the sync off.';
    END IF;
    INSERT INTO postalytics.pauses (sync, until)
    VALUES (name, pause_end);
    RETURN pause_end;
END
$$;
COMMENT ON FUNCTION postalytics.pause_sync(text, interval) IS
    'pause a sync, so that fetch returns none of its deliveries, and return when the pause ends';

CREATE FUNCTION postalytics.wake_waiting(sync text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT postalytics.notify_sync(sync, w.waiting)
    FROM (SELECT count(*) AS waiting
          FROM postalytics.deliveries_unfinished AS d
          WHERE d.sync = wake_waiting.sync
            AND d.due_at < 'infinity') AS w
    WHERE w.waiting > 0
$$;
COMMENT ON FUNCTION postalytics.wake_waiting(text) IS
    'internal: notify the workers of a sync if deliveries are waiting';

-- Deletes the pauses of the sync that have not ended, and ends a pause by its breaker.
-- If there was a pause, and the sync is enabled, notifies its workers.  Locks: the
-- sync's row, the rows of its pauses.  Errors: 42704 if there is no such sync.
CREATE FUNCTION postalytics.resume_sync(name text)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs := postalytics.find_sync(name);
    was_paused boolean;
BEGIN
    DELETE FROM postalytics.pauses AS p
    WHERE p.sync = resume_sync.name
      AND p.until > clock_timestamp();
    was_paused := FOUND;
    was_paused := postalytics.end_breaker_pause(name) OR was_paused;
    IF was_paused AND sync.enabled THEN
        PERFORM postalytics.wake_waiting(name);
    END IF;
    RETURN was_paused;
END
$$;
COMMENT ON FUNCTION postalytics.resume_sync(text) IS
    'end the pauses of a sync; true if it was paused';
