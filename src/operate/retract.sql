/*
 * retract.sql
 *		retract_event: deletes a wrong event.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- True if the campaign of the event has no other event and no other piece, or if only
-- this event gives the campaign its current name.  A caller that deletes the event must
-- then derive the campaign again.
CREATE FUNCTION postalytics.campaign_depends_on(event postalytics.events)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NOT EXISTS (SELECT
                       FROM postalytics.pieces AS p
                       WHERE (p.campaign_id, p.account) = (event.campaign_id, event.account)
                         AND p.piece_id <> event.piece_id)
           AND NOT EXISTS (SELECT
                           FROM postalytics.events AS e
                           WHERE (e.campaign_id, e.account) = (event.campaign_id, event.account)
                             AND e.event_id <> event.event_id)
        OR EXISTS (SELECT
                   FROM postalytics.campaigns AS c
                   CROSS JOIN LATERAL postalytics.payload_fields(event.payload) AS f
                   WHERE (c.campaign_id, c.account) = (event.campaign_id, event.account)
                     AND (c.name, c.named_on) = (f.campaign_name, (event.occurred_at AT TIME ZONE 'UTC')::date)
                     AND NOT EXISTS (SELECT
                                     FROM postalytics.events AS e
                                     CROSS JOIN LATERAL postalytics.payload_fields(e.payload) AS g
                                     WHERE (e.campaign_id, e.account) = (c.campaign_id, c.account)
                                       AND e.occurred_at >= c.named_on::timestamp AT TIME ZONE 'UTC'
                                       AND e.occurred_at < (c.named_on + 1)::timestamp AT TIME ZONE 'UTC'
                                       AND e.event_id <> event.event_id
                                       AND g.campaign_name = c.name))
$$;
COMMENT ON FUNCTION postalytics.campaign_depends_on(postalytics.events) IS
    'internal: true if the campaign of an event must be derived again when the event is deleted';

-- Derives a campaign again, and deletes it if it has no events.  If the events give no
-- name, but the payload of one of them was not kept, the campaign keeps its old name.
-- Locks: the row of the campaign.  The caller has locked events, so that no event is
-- inserted meanwhile.
CREATE FUNCTION postalytics.rebuild_campaign(campaign_id text, account text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old postalytics.campaigns;
BEGIN
    SELECT c.*
    INTO old
    FROM postalytics.campaigns AS c
    WHERE (c.campaign_id, c.account) = (rebuild_campaign.campaign_id, rebuild_campaign.account)
    FOR UPDATE;
    UPDATE postalytics.campaigns AS c
    SET name = NULL,
        named_on = NULL
    WHERE (c.campaign_id, c.account) = (old.campaign_id, old.account);
    IF postalytics.refold_campaign(campaign_id, account) = 0 THEN
        DELETE FROM postalytics.campaigns AS c
        WHERE (c.campaign_id, c.account) = (old.campaign_id, old.account);
    END IF;
    UPDATE postalytics.campaigns AS c
    SET name = old.name,
        named_on = old.named_on
    WHERE (c.campaign_id, c.account) = (old.campaign_id, old.account)
      AND c.name IS NULL
      AND EXISTS (SELECT
                  FROM postalytics.events AS e
                  WHERE (e.campaign_id, e.account) = (c.campaign_id, c.account)
                    AND e.payload IS NULL);
END
$$;
COMMENT ON FUNCTION postalytics.rebuild_campaign(text, text) IS
    'internal: derive a campaign again from its stored events, and delete it if there are none';

-- Deletes an event with its unfinished deliveries, and derives its piece again.
-- Returns all deliveries of the event.  The caller has locked the existing deliveries.
-- Locks: ROW EXCLUSIVE on events, then those of lock_pieces.  Errors: those of
-- check_not_retired, 42704 if the event no longer exists.
CREATE FUNCTION postalytics.delete_event(event postalytics.events)
RETURNS TABLE (sync text, delivery_id bigint, state postalytics.delivery_state, deleted boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    locked text[];
BEGIN
    LOCK TABLE ONLY postalytics.events IN ROW EXCLUSIVE MODE;
    locked := postalytics.lock_pieces(ARRAY[event.piece_id], event.account);
    PERFORM postalytics.check_not_retired(locked, event.account);
    DELETE FROM postalytics.events AS e
    WHERE (e.piece_id, e.account, e.status, e.occurred_at) = (event.piece_id, event.account, event.status, event.occurred_at);
    IF NOT FOUND THEN
        PERFORM postalytics.raise_undefined_event(event.piece_id, event.status, event.occurred_at);
    END IF;
    RETURN QUERY
    WITH retracted AS (
        DELETE FROM postalytics.deliveries_unfinished AS d
        WHERE (d.piece_id, d.account, d.status, d.occurred_at) = (event.piece_id, event.account, event.status, event.occurred_at)
        RETURNING d.sync, d.delivery_id, d.state
    )
    SELECT r.sync, r.delivery_id, r.state, true
    FROM retracted AS r
    UNION ALL
    SELECT d.sync, d.delivery_id, d.state, false
    FROM postalytics.deliveries AS d
    WHERE (d.piece_id, d.account, d.status, d.occurred_at) = (event.piece_id, event.account, event.status, event.occurred_at)
      AND d.finished_at IS NOT NULL
    ORDER BY 1, 2;
    PERFORM postalytics.refold_pieces(locked, event.account);
END
$$;
COMMENT ON FUNCTION postalytics.delete_event(postalytics.events) IS
    'internal: delete an event, and derive its piece again; returns its deliveries';

-- As delete_event, but also derives the campaign again.  The caller has locked events.
-- A lock timeout limits the wait for rows that other sessions have locked.
CREATE FUNCTION postalytics.delete_event_of_campaign(event postalytics.events)
RETURNS TABLE (sync text, delivery_id bigint, state postalytics.delivery_state, deleted boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
BEGIN
    RETURN QUERY
    SELECT d.*
    FROM postalytics.delete_event(event) AS d;
    PERFORM postalytics.rebuild_campaign(event.campaign_id, event.account);
END
$$;
COMMENT ON FUNCTION postalytics.delete_event_of_campaign(postalytics.events) IS
    'internal: delete an event, and derive its piece and campaign again; returns its deliveries';

CREATE FUNCTION postalytics.raise_undefined_event(piece_id text, status postalytics.mail_status, occurred_at timestamptz)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'event of piece "%" with status % at % does not exist', piece_id, status, occurred_at
        USING ERRCODE = 'undefined_object',
              HINT = 'The events of the piece are in postalytics.events.';
END
$$;
COMMENT ON FUNCTION postalytics.raise_undefined_event(text, postalytics.mail_status, timestamptz) IS
    'internal: raise the error that an event does not exist';

-- Returns a row for each delivery of the event.  Deliveries that are waiting, leased or
-- dead are deleted; finished ones are only returned, because the CRM may have been
-- updated.  If occurred_at has a fraction of a second, an event at the whole second
-- matches as well, because the setting event_precision can cause events to be stored
-- without the fraction.
--
-- Locks: ACCESS SHARE on events; FOR KEY SHARE on all rows of syncs, so that
-- replay_sync does not run meanwhile; the unfinished deliveries of the event in the
-- order of delivery_id; if the campaign has to be derived again, SHARE ROW EXCLUSIVE on
-- events; then those of delete_event.  While the function waits for these locks,
-- writers are not blocked.  Errors: 42704 if there is no such event, those of
-- account_of_pieces and check_not_retired, 55P03 if the campaign has to be derived
-- again and the lock on events is not available within 10 seconds or, after that, a row
-- lock within 1 second, 25001 unless the transaction is READ COMMITTED.
CREATE FUNCTION postalytics.retract_event(
    piece_id text,
    status postalytics.mail_status,
    occurred_at timestamptz,
    account text DEFAULT NULL)
RETURNS TABLE (sync text, delivery_id bigint, state postalytics.delivery_state, deleted boolean)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner text;
    event postalytics.events;
BEGIN
    PERFORM postalytics.check_read_committed('retract_event');
    PERFORM postalytics.check_not_distributed();
    LOCK TABLE ONLY postalytics.events IN ACCESS SHARE MODE;
    owner := postalytics.account_of_pieces(ARRAY[piece_id], account);
    PERFORM postalytics.check_not_retired(ARRAY[piece_id], owner);
    SELECT e.*
    INTO event
    FROM postalytics.events AS e
    WHERE (e.piece_id, e.account, e.status) = (retract_event.piece_id, owner, retract_event.status)
      AND e.occurred_at IN (retract_event.occurred_at, date_trunc('second', retract_event.occurred_at))
    ORDER BY e.occurred_at = retract_event.occurred_at DESC
    LIMIT 1;
    IF NOT FOUND THEN
        PERFORM postalytics.raise_undefined_event(piece_id, status, occurred_at);
    END IF;
    PERFORM
    FROM postalytics.syncs AS s
    ORDER BY s.name
    FOR KEY SHARE;
    PERFORM
    FROM postalytics.deliveries_unfinished AS d
    WHERE (d.piece_id, d.account, d.status, d.occurred_at) = (event.piece_id, event.account, event.status, event.occurred_at)
    ORDER BY d.delivery_id
    FOR UPDATE;
    IF event.campaign_id IS NOT NULL AND postalytics.campaign_depends_on(event) THEN
        PERFORM postalytics.lock_briefly('postalytics.events', 'SHARE ROW EXCLUSIVE');
        RETURN QUERY
        SELECT d.*
        FROM postalytics.delete_event_of_campaign(event) AS d;
    ELSE
        RETURN QUERY
        SELECT d.*
        FROM postalytics.delete_event(event) AS d;
    END IF;
    PERFORM postalytics.audit('retract_event', event.campaign_id, owner, event.status::text);
END
$$;
COMMENT ON FUNCTION postalytics.retract_event(text, postalytics.mail_status, timestamptz, text) IS
    'delete a wrong event and its unfinished deliveries; returns a row for each of its deliveries';
