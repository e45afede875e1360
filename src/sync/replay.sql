/*
 * replay.sql
 *		Functions that create deliveries of stored events, and test deliveries.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- Writes deliveries for stored production errors, as make_deliveries does for events.
CREATE FUNCTION postalytics.make_error_deliveries(sync postalytics.syncs, since timestamptz, until timestamptz, clock timestamptz)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    made bigint;
BEGIN
    INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, account, occurred_at, due_at)
    SELECT sync.name, e.piece_id, e.account, e.occurred_at, postalytics.due_at(e.occurred_at, sync.wait, clock)
    FROM postalytics.production_errors AS e
    WHERE sync.errors
      AND e.occurred_at >= since
      AND e.occurred_at < until
      AND (sync.campaigns IS NULL OR e.campaign_id = ANY (sync.campaigns) OR e.drop_id = ANY (sync.campaigns))
      AND (sync.accounts IS NULL OR e.account = ANY (sync.accounts))
      AND NOT EXISTS (SELECT
                      FROM postalytics.deliveries_unfinished AS d
                      WHERE (d.sync, d.piece_id, d.account, d.occurred_at)
                            = (sync.name, e.piece_id, e.account, e.occurred_at)
                        AND d.status IS NULL
                        AND NOT d.is_test)
    ORDER BY e.occurred_at;
    GET DIAGNOSTICS made = ROW_COUNT;
    RETURN made;
END
$$;
COMMENT ON FUNCTION postalytics.make_error_deliveries(postalytics.syncs, timestamptz, timestamptz, timestamptz) IS
    'internal: make deliveries for stored production errors, and return their number';

-- Writes deliveries for stored events and production errors that have no unfinished
-- delivery, and notifies the workers if the sync is enabled.  The caller must prevent
-- other sessions from calling this for the same sync.
CREATE FUNCTION postalytics.make_deliveries(sync postalytics.syncs, since timestamptz, until timestamptz)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    clock timestamptz := postalytics.due_clock();
    made bigint;
BEGIN
    INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, account, status, occurred_at, due_at)
    SELECT sync.name, e.piece_id, e.account, e.status, e.occurred_at, postalytics.due_at(e.occurred_at, sync.wait, clock)
    FROM postalytics.events AS e
    WHERE e.occurred_at >= since
      AND e.occurred_at < until
      AND postalytics.is_for(sync.name, e.status, e.campaign_id, e.drop_id, e.account)
      AND NOT EXISTS (SELECT
                      FROM postalytics.deliveries_unfinished AS d
                      WHERE (d.sync, d.piece_id, d.account, d.status, d.occurred_at)
                            = (sync.name, e.piece_id, e.account, e.status, e.occurred_at)
                        AND NOT d.is_test)
    ORDER BY e.occurred_at, e.status;
    GET DIAGNOSTICS made = ROW_COUNT;
    made := made + postalytics.make_error_deliveries(sync, since, until, clock);
    IF made > 0 AND sync.enabled THEN
        PERFORM postalytics.notify_sync(sync.name, made);
    END IF;
    RETURN made;
END
$$;
COMMENT ON FUNCTION postalytics.make_deliveries(postalytics.syncs, timestamptz, timestamptz) IS
    'internal: make deliveries for stored events, and return their number';

-- Raises error 22023 unless until is after since.  Accepts NULL for either argument.
CREATE FUNCTION postalytics.check_period(since timestamptz, until timestamptz)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF until <= since THEN
        RAISE EXCEPTION '"until" must be after "since"'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.check_period(timestamptz, timestamptz) IS
    'internal: raise an error unless a period ends after it begins';

-- Locks the sync's row.  Errors: 42704 if there is no such sync, 22004 for NULL,
-- 22023 if until is not after since or the sync has no deliveries, 25001 unless the
-- transaction is READ COMMITTED.
CREATE FUNCTION postalytics.replay_sync(name text, since timestamptz, until timestamptz DEFAULT 'infinity')
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs := postalytics.find_sync(name);
    clock timestamptz := postalytics.due_clock();
    revived bigint;
BEGIN
    PERFORM postalytics.check_read_committed('replay_sync');
    IF since IS NULL OR until IS NULL THEN
        RAISE EXCEPTION 'since and until must not be NULL'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    PERFORM postalytics.check_period(since, until);
    PERFORM postalytics.check_durable(sync.name);
    UPDATE postalytics.deliveries_unfinished AS d
    SET state = 'waiting',
        attempt = 0,
        reason = NULL,
        due_at = postalytics.due_at(d.occurred_at, sync.wait, clock)
    WHERE d.sync = sync.name
      AND d.due_at = 'infinity'
      AND d.occurred_at >= since
      AND d.occurred_at < until;
    GET DIAGNOSTICS revived = ROW_COUNT;
    IF revived > 0 AND sync.enabled THEN
        PERFORM postalytics.notify_sync(sync.name, revived);
    END IF;
    RETURN revived + postalytics.make_deliveries(sync, since, until);
END
$$;
COMMENT ON FUNCTION postalytics.replay_sync(text, timestamptz, timestamptz) IS
    'deliver again the events that occurred at or after since and before until, including dead deliveries, and return their number';

-- The sample is the latest event that the sync is for, or an invented event if there
-- is none.  Locks the sync's row.  Errors: 42704 if there is no such sync, 55000 if
-- the sync is disabled, 22023 if it has no deliveries.
CREATE FUNCTION postalytics.test_sync(name text)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs := postalytics.find_sync(name);
    sample record;
    made bigint;
BEGIN
    PERFORM postalytics.check_durable(sync.name);
    IF NOT sync.enabled THEN
        RAISE EXCEPTION 'cannot test sync "%" because it is disabled', sync.name
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Enable it with enable_sync(name).';
    END IF;
    SELECT e.piece_id, e.account, e.status, e.occurred_at, NULL::json AS payload
    INTO sample
    FROM postalytics.events AS e
    WHERE postalytics.is_for(sync.name, e.status, e.campaign_id, e.drop_id, e.account)
    ORDER BY e.occurred_at DESC
    LIMIT 1;
    IF NOT FOUND THEN
        SELECT 'test' AS piece_id, COALESCE(sync.accounts[1], '') AS account, s.status, date_trunc('second', now()) AS occurred_at,
               json_build_object('mailId', 'test', 'eventType', postalytics.feed_code(s.status),
                                 'eventDate', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                                 'to', json_build_object('firstName', 'Test', 'lastName', 'Recipient', 'country', 'US'),
                                 'meta', json_build_object('campaignId', COALESCE(sync.campaigns[1], '0'), 'campaignName', 'Test campaign')) AS payload
        INTO sample
        FROM (SELECT COALESCE(sync.statuses[1], 'InTransit'::postalytics.mail_status) AS status) AS s;
    END IF;
    INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, account, status, occurred_at, due_at, is_test, payload)
    VALUES (sync.name, sample.piece_id, sample.account, sample.status, sample.occurred_at, postalytics.due_clock(), true, sample.payload)
    RETURNING delivery_id
    INTO made;
    PERFORM postalytics.notify_sync(sync.name, 1);
    RETURN made;
END
$$;
COMMENT ON FUNCTION postalytics.test_sync(text) IS
    'create a sample delivery, marked as a test, and return its delivery_id';
