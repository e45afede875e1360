/*
 * retract.sql
 *		retract_event: takes a wrong event back.
 */

-- True if, without this event, its campaign would have no event or piece left, or
-- would lose its current name.  The caller must then derive the campaign again.
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

-- Returns a row for each delivery of the event.  Deliveries that are waiting, leased or
-- dead are deleted; finished ones are only returned, because the CRM may have been
-- updated.
--
-- Locks: FOR KEY SHARE on all rows of syncs, against replay_sync; SHARE ROW EXCLUSIVE on events if the
-- campaign has to be derived again; the unfinished deliveries of the event in the order
-- of delivery_id; then those of lock_pieces.  Errors: 42704 if there is no such event,
-- those of account_of_pieces, lock_pieces and check_not_retired, 25001 unless the
-- transaction is READ COMMITTED.
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
    at timestamptz := CASE postalytics.setting('event_precision')
                          WHEN 'second' THEN date_trunc('second', occurred_at)
                          ELSE occurred_at
                      END;
    event postalytics.events;
    refolds_campaign boolean;
BEGIN
    PERFORM postalytics.check_read_committed('retract_event');
    PERFORM postalytics.check_not_distributed();
    owner := postalytics.account_of_pieces(ARRAY[piece_id], account);
    PERFORM postalytics.check_not_retired(ARRAY[piece_id], owner);
    SELECT e.*
    INTO event
    FROM postalytics.events AS e
    WHERE (e.piece_id, e.account, e.status, e.occurred_at) = (retract_event.piece_id, owner, retract_event.status, at);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'event % of piece "%" at % does not exist', status, piece_id, at
            USING ERRCODE = 'undefined_object',
                  HINT = 'The events of the piece are in postalytics.events; the time must match exactly.';
    END IF;
    PERFORM
    FROM postalytics.syncs AS s
    ORDER BY s.name
    FOR KEY SHARE;
    refolds_campaign := event.campaign_id IS NOT NULL AND postalytics.campaign_depends_on(event);
    IF refolds_campaign THEN
        PERFORM postalytics.lock_briefly('postalytics.events', 'SHARE ROW EXCLUSIVE');
    END IF;
    PERFORM
    FROM postalytics.deliveries_unfinished AS d
    WHERE (d.piece_id, d.account, d.status, d.occurred_at) = (event.piece_id, event.account, event.status, at)
    ORDER BY d.delivery_id
    FOR UPDATE;
    PERFORM postalytics.lock_pieces(ARRAY[event.piece_id], owner);
    DELETE FROM postalytics.events AS e
    WHERE (e.piece_id, e.account, e.status, e.occurred_at) = (event.piece_id, owner, event.status, at);
    RETURN QUERY
    WITH retracted AS (
        DELETE FROM postalytics.deliveries_unfinished AS d
        WHERE (d.piece_id, d.account, d.status, d.occurred_at) = (event.piece_id, owner, event.status, at)
        RETURNING d.sync, d.delivery_id, d.state
    )
    SELECT r.sync, r.delivery_id, r.state, true
    FROM retracted AS r
    UNION ALL
    SELECT d.sync, d.delivery_id, d.state, false
    FROM postalytics.deliveries AS d
    WHERE (d.piece_id, d.account, d.status, d.occurred_at) = (event.piece_id, owner, event.status, at)
      AND d.finished_at IS NOT NULL
    ORDER BY 1, 2;
    PERFORM postalytics.refold_pieces(ARRAY[event.piece_id], owner);
    IF refolds_campaign THEN
        PERFORM postalytics.refold_campaign(event.campaign_id, owner);
    END IF;
    PERFORM postalytics.audit('retract_event', event.campaign_id, owner, event.status::text);
END
$$;
COMMENT ON FUNCTION postalytics.retract_event(text, postalytics.mail_status, timestamptz, text) IS
    'take a wrong event back, with its deliveries that are not finished; returns a row for each of its deliveries';
