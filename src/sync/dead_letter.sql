/*
 * dead_letter.sql
 *		Dead deliveries: the view dead_letters, and the functions redrive and discard.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE VIEW postalytics.dead_letters
WITH (security_invoker = true) AS
SELECT d.sync,
       d.delivery_id,
       d.reason,
       d.piece_id,
       d.account,
       COALESCE(e.campaign_id, p.campaign_id) AS campaign_id,
       COALESCE(e.drop_id, p.drop_id) AS drop_id,
       p.contact_id,
       d.status,
       d.occurred_at,
       d.attempt AS attempts,
       d.errors[pg_catalog.cardinality(d.errors)].error AS last_error,
       d.failed_at AS since
FROM postalytics.deliveries_unfinished AS d
LEFT JOIN LATERAL (
    SELECT v.campaign_id, v.drop_id
    FROM postalytics.events AS v
    WHERE v.piece_id = d.piece_id
      AND v.account = d.account
      AND v.status = d.status
      AND v.occurred_at = d.occurred_at
    UNION ALL
    SELECT x.campaign_id, x.drop_id
    FROM postalytics.production_errors AS x
    WHERE x.piece_id = d.piece_id
      AND x.account = d.account
      AND x.occurred_at = d.occurred_at
      AND d.status IS NULL
    LIMIT 1
) AS e ON true
LEFT JOIN postalytics.pieces AS p ON p.piece_id = d.piece_id AND p.account = d.account
WHERE d.due_at = 'infinity';
COMMENT ON VIEW postalytics.dead_letters IS
    'deliveries that were given up, until they are redriven, replayed or discarded';
COMMENT ON COLUMN postalytics.dead_letters.sync IS 'name of the sync';
COMMENT ON COLUMN postalytics.dead_letters.delivery_id IS 'id of the delivery';
COMMENT ON COLUMN postalytics.dead_letters.reason IS 'refused: nack with dead => true; max_attempts: the last attempt failed; lease_expired: the lease of the last attempt expired';
COMMENT ON COLUMN postalytics.dead_letters.piece_id IS 'piece of the event';
COMMENT ON COLUMN postalytics.dead_letters.account IS 'account of the event; empty if none was given';
COMMENT ON COLUMN postalytics.dead_letters.campaign_id IS 'campaign of the event, or of the piece if the event names none or is no longer stored';
COMMENT ON COLUMN postalytics.dead_letters.drop_id IS 'drop of the event, or of the piece';
COMMENT ON COLUMN postalytics.dead_letters.contact_id IS 'contact of the piece';
COMMENT ON COLUMN postalytics.dead_letters.status IS 'status of the event; NULL for a production error';
COMMENT ON COLUMN postalytics.dead_letters.occurred_at IS 'time of the event';
COMMENT ON COLUMN postalytics.dead_letters.attempts IS 'number of fetches since the delivery was created, or last redriven or replayed';
COMMENT ON COLUMN postalytics.dead_letters.last_error IS 'why the last attempt failed';
COMMENT ON COLUMN postalytics.dead_letters.since IS 'when the delivery was given up';

-- Locks the dead deliveries that match all filters, in the order of delivery_id.  The
-- caller has locked the sync's row.  A filter that is NULL matches every delivery.
-- since (inclusive) and until (exclusive) refer to the time at which a delivery was
-- given up.  Errors: those of check_durable, check_period and to_mail_statuses, 22023
-- for an empty list.
CREATE FUNCTION postalytics.lock_dead(
    sync text,
    reasons text[],
    statuses text[],
    campaigns text[],
    accounts text[],
    since timestamptz,
    until timestamptz)
RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known postalytics.mail_status[] := postalytics.to_mail_statuses(statuses);
    dead bigint[];
BEGIN
    IF 0 IN (cardinality(reasons), cardinality(statuses), cardinality(campaigns), cardinality(accounts)) THEN
        RAISE EXCEPTION 'lists of reasons, statuses, campaigns and accounts must not be empty'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Omit a list to match all.';
    END IF;
    PERFORM postalytics.check_period(since, until);
    PERFORM postalytics.check_durable(sync);
    SELECT array_agg(d.delivery_id)
    INTO dead
    FROM (SELECT u.delivery_id
          FROM postalytics.deliveries_unfinished AS u
          WHERE u.due_at = 'infinity'
            AND (accounts IS NULL OR u.account = ANY (accounts))
            AND u.delivery_id IN (SELECT l.delivery_id
                                  FROM postalytics.dead_letters AS l
                                  WHERE l.sync = lock_dead.sync
                                    AND (reasons IS NULL OR l.reason = ANY (reasons))
                                    AND (known IS NULL OR l.status = ANY (known))
                                    AND (campaigns IS NULL OR l.campaign_id = ANY (campaigns) OR l.drop_id = ANY (campaigns))
                                    AND (accounts IS NULL OR l.account = ANY (accounts))
                                    AND (lock_dead.since IS NULL OR l.since >= lock_dead.since)
                                    AND (until IS NULL OR l.since < until))
          ORDER BY u.delivery_id
          FOR UPDATE OF u) AS d;
    RETURN COALESCE(dead, '{}');
END
$$;
COMMENT ON FUNCTION postalytics.lock_dead(text, text[], text[], text[], text[], timestamptz, timestamptz) IS
    'internal: lock the dead deliveries of a sync that match, and return their ids';

-- Makes the matching dead deliveries due at once, and resets their number of attempts
-- to 0.  Their errors are kept.  Locks: the sync's row, and the locks of lock_dead.
-- Errors: those of lock_dead, 42704 if there is no such sync, 25001 unless the
-- transaction is READ COMMITTED.
CREATE FUNCTION postalytics.redrive(
    sync text,
    reasons text[] DEFAULT NULL,
    statuses text[] DEFAULT NULL,
    campaigns text[] DEFAULT NULL,
    accounts text[] DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target postalytics.syncs := postalytics.find_sync(sync);
    clock timestamptz := postalytics.due_clock();
    dead bigint[];
BEGIN
    PERFORM postalytics.check_read_committed('redrive');
    dead := postalytics.lock_dead(sync, reasons, statuses, campaigns, accounts, since, until);
    UPDATE postalytics.deliveries_unfinished AS d
    SET state = 'waiting',
        attempt = 0,
        reason = NULL,
        due_at = clock
    WHERE d.delivery_id = ANY (dead);
    IF cardinality(dead) > 0 AND target.enabled THEN
        PERFORM postalytics.notify_sync(sync, cardinality(dead));
    END IF;
    RETURN cardinality(dead);
END
$$;
COMMENT ON FUNCTION postalytics.redrive(text, text[], text[], text[], text[], timestamptz, timestamptz) IS
    'make the dead deliveries of a sync that match the filters due again, and return their number';

-- Finishes the matching dead deliveries in the state discarded.  If there are any, the
-- call is recorded in audit_log, with the reason and the number of deliveries, but
-- without their ids.  Locks: those of redrive.  Errors: those of redrive, 22004 if the
-- reason is NULL, 22023 if it is empty.
CREATE FUNCTION postalytics.discard(
    sync text,
    reason text,
    reasons text[] DEFAULT NULL,
    statuses text[] DEFAULT NULL,
    campaigns text[] DEFAULT NULL,
    accounts text[] DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    dead bigint[];
    tids tid[];
BEGIN
    IF discard.reason IS NULL THEN
        RAISE EXCEPTION 'reason must not be NULL'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF discard.reason = '' THEN
        RAISE EXCEPTION 'reason must not be empty'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM postalytics.check_read_committed('discard');
    PERFORM postalytics.find_sync(sync);
    dead := postalytics.lock_dead(sync, reasons, statuses, campaigns, accounts, since, until);
    WITH discarded AS (
        UPDATE postalytics.deliveries_unfinished AS d
        SET reason = left(discard.reason, 2000)
        WHERE d.delivery_id = ANY (dead)
        RETURNING d.ctid)
    SELECT array_agg(d.ctid)
    INTO tids
    FROM discarded AS d;
    IF tids IS NOT NULL THEN
        PERFORM postalytics.finish_deliveries(tids, 'discarded');
        PERFORM postalytics.audit('discard', sync, NULL, format('deliveries: %s, reason: %s', cardinality(tids), left(discard.reason, 2000)));
    END IF;
    RETURN COALESCE(cardinality(tids), 0);
END
$$;
COMMENT ON FUNCTION postalytics.discard(text, text, text[], text[], text[], text[], timestamptz, timestamptz) IS
    'finish the dead deliveries of a sync that match the filters without delivering them, and return their number';
