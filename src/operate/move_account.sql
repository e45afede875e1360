/*
 * move_account.sql
 *		move_account: moves the data of one account to another.
 */

-- Deletes the events of the old account that the new one also has, and the old
-- account's unfinished deliveries of these events for which the new account has a
-- delivery of the same sync.  Returns, for each piece, the number of these events and
-- of the visits among them, which merging the piece counts twice.
CREATE FUNCTION postalytics.delete_duplicate_events(old text, new text)
RETURNS TABLE (piece_id text, events bigint, opens bigint, completions bigint)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH common AS (
        DELETE FROM postalytics.events AS e
        USING postalytics.events AS n
        WHERE e.account = old
          AND (n.piece_id, n.account, n.status, n.occurred_at) = (e.piece_id, new, e.status, e.occurred_at)
        RETURNING e.piece_id, e.status, e.occurred_at
    ), undelivered AS (
        DELETE FROM postalytics.deliveries_unfinished AS d
        USING common AS c,
              postalytics.deliveries AS n
        WHERE (d.piece_id, d.account, d.status, d.occurred_at) = (c.piece_id, old, c.status, c.occurred_at)
          AND (n.sync, n.piece_id, n.account, n.status, n.occurred_at) = (d.sync, d.piece_id, new, d.status, d.occurred_at)
          AND NOT d.is_test
          AND NOT n.is_test
    )
    SELECT c.piece_id,
           count(*),
           count(*) FILTER (WHERE c.status = 'pURLOpened'),
           count(*) FILTER (WHERE c.status = 'pURLCompleted')
    FROM common AS c
    GROUP BY c.piece_id
$$;
COMMENT ON FUNCTION postalytics.delete_duplicate_events(text, text) IS
    'internal: delete events of the old account that the new one also has, and their duplicate deliveries';

-- A piece that both accounts have is merged.
CREATE FUNCTION postalytics.move_pieces(old text, new text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH old_row AS (
        DELETE FROM postalytics.pieces AS p
        USING postalytics.pieces AS n
        WHERE p.account = old
          AND (n.piece_id, n.account) = (p.piece_id, new)
        RETURNING p.piece_id, p AS piece
    ), new_row AS (
        DELETE FROM postalytics.pieces AS p
        USING postalytics.pieces AS o
        WHERE p.account = new
          AND (o.piece_id, o.account) = (p.piece_id, old)
        RETURNING p.piece_id, p AS piece
    )
    INSERT INTO postalytics.pieces
    SELECT m.*
    FROM old_row AS o
    JOIN new_row AS n ON n.piece_id = o.piece_id
    CROSS JOIN LATERAL postalytics.merge_piece(o.piece, n.piece, false) AS m;
    UPDATE postalytics.pieces AS p
    SET account = new
    WHERE p.account = old
$$;
COMMENT ON FUNCTION postalytics.move_pieces(text, text) IS
    'internal: move the pieces of an account to another';

CREATE FUNCTION postalytics.move_campaigns(old text, new text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH gone AS (
        DELETE FROM postalytics.campaigns AS c
        WHERE c.account = old
        RETURNING c.campaign_id, c.name, c.named_on
    )
    INSERT INTO postalytics.campaigns AS c (campaign_id, account, name, named_on)
    SELECT g.campaign_id, new, g.name, g.named_on
    FROM gone AS g
    ON CONFLICT (campaign_id, account) DO UPDATE
    SET (name, named_on) =
        (SELECT n.name, n.named_on
         FROM postalytics.latest_name(c.name, c.named_on, excluded.name, excluded.named_on) AS n)
$$;
COMMENT ON FUNCTION postalytics.move_campaigns(text, text) IS
    'internal: move the campaigns of an account to another';

CREATE FUNCTION postalytics.move_production_errors(old text, new text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH gone AS (
        DELETE FROM postalytics.production_errors AS e
        USING postalytics.production_errors AS n
        WHERE e.account = old
          AND (n.piece_id, n.account, n.occurred_at) = (e.piece_id, new, e.occurred_at)
        RETURNING e.piece_id, e.occurred_at
    )
    DELETE FROM postalytics.deliveries_unfinished AS d
    USING gone AS g,
          postalytics.deliveries AS n
    WHERE (d.piece_id, d.account, d.occurred_at) = (g.piece_id, old, g.occurred_at)
      AND (n.sync, n.piece_id, n.account, n.occurred_at) = (d.sync, d.piece_id, new, d.occurred_at)
      AND d.status IS NULL
      AND n.status IS NULL
      AND NOT d.is_test
      AND NOT n.is_test;
    UPDATE postalytics.production_errors AS e
    SET account = new
    WHERE e.account = old
$$;
COMMENT ON FUNCTION postalytics.move_production_errors(text, text) IS
    'internal: move the production errors of an account to another, and delete duplicates and their duplicate deliveries';

CREATE FUNCTION postalytics.move_account_references(old text, new text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE postalytics.rejects AS r
    SET account = new
    WHERE r.account = old
      AND (old <> ''
           OR NOT EXISTS (SELECT
                          FROM postalytics.field_names AS f
                          WHERE f.field = 'account'));
    UPDATE postalytics.syncs AS s
    SET accounts = ARRAY(SELECT DISTINCT a FROM unnest(array_replace(s.accounts, old, new)) AS a ORDER BY a)
    WHERE old = ANY (s.accounts);
    DELETE FROM postalytics.bindings AS b
    USING postalytics.bindings AS n
    WHERE b.account = old
      AND (n.role, n.privilege, n.account) = (b.role, b.privilege, new);
    UPDATE postalytics.bindings AS b
    SET account = new
    WHERE b.account = old
$$;
COMMENT ON FUNCTION postalytics.move_account_references(text, text) IS
    'internal: change an account in rejects, syncs and bindings';

-- The caller has locked the existing deliveries, and then events.  A lock timeout
-- limits the wait for rows that other sessions have locked since then.
CREATE FUNCTION postalytics.move_rows(old text, new text)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
DECLARE
    clock timestamptz := postalytics.due_clock();
    common record;
    moved bigint;
BEGIN
    SELECT array_agg(r.piece_id) AS piece_ids,
           array_agg(r.opens) AS opens,
           array_agg(r.completions) AS completions,
           COALESCE(sum(r.events), 0) AS events
    INTO common
    FROM postalytics.delete_duplicate_events(old, new) AS r;
    UPDATE postalytics.events AS e
    SET account = new
    WHERE e.account = old;
    GET DIAGNOSTICS moved = ROW_COUNT;
    PERFORM postalytics.move_production_errors(old, new);
    -- Sessions remember deliveries by account and due_at; see look.c.
    UPDATE postalytics.deliveries_unfinished AS d
    SET account = new,
        due_at = greatest(d.due_at, clock)
    WHERE d.account = old;
    UPDATE postalytics.deliveries AS d
    SET account = new
    WHERE d.account = old;
    PERFORM postalytics.move_pieces(old, new);
    UPDATE postalytics.pieces AS p
    SET opens = p.opens - c.opens,
        completions = p.completions - c.completions
    FROM unnest(common.piece_ids, common.opens, common.completions) AS c (piece_id, opens, completions)
    WHERE (p.piece_id, p.account) = (c.piece_id, new)
      AND c.opens + c.completions > 0;
    PERFORM postalytics.move_campaigns(old, new);
    PERFORM postalytics.move_account_references(old, new);
    RETURN moved + common.events;
END
$$;
COMMENT ON FUNCTION postalytics.move_rows(text, text) IS
    'internal: move everything from one account to another; returns the number of events';

-- Moves events, pieces, campaigns, production errors, rejects, deliveries, syncs and
-- bindings from one account to another, and merges what both have.  Detached months are
-- not changed.  If field_names maps an account, rejects without one are kept, because a
-- retry can assign them to any account.
--
-- Locks: those of lock_bindings; the rows of the syncs that list the account, in the
-- order of name; then its unfinished deliveries, as in redrive and replay_sync; then
-- SHARE ROW EXCLUSIVE on events, until the transaction ends, which blocks the ingest of
-- all accounts.  Writers are not blocked while it waits for any of these.  Errors:
-- 22004 for NULL, 22023 if the two are the same or the new one is empty, 22001 if the
-- new one is too long, 55P03 if the lock on events is not available within 10 seconds
-- or, after that, a row lock within 1 second, 25001 unless the transaction is READ
-- COMMITTED.
CREATE FUNCTION postalytics.move_account(old text, new text)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moved bigint;
BEGIN
    PERFORM postalytics.check_read_committed('move_account');
    PERFORM postalytics.check_not_distributed();
    IF old IS NULL OR new IS NULL THEN
        RAISE EXCEPTION 'account must not be NULL'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF old = new THEN
        RAISE EXCEPTION 'old and new account must differ'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF new = '' THEN
        RAISE EXCEPTION 'new account must not be empty'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF octet_length(new) > 255 THEN
        RAISE EXCEPTION 'account is longer than 255 bytes'
            USING ERRCODE = 'string_data_right_truncation';
    END IF;
    PERFORM postalytics.lock_bindings();
    PERFORM
    FROM postalytics.syncs AS s
    WHERE old = ANY (s.accounts)
    ORDER BY s.name
    FOR UPDATE;
    PERFORM
    FROM postalytics.deliveries_unfinished AS d
    WHERE d.account = old
    ORDER BY d.delivery_id
    FOR UPDATE;
    PERFORM postalytics.lock_briefly('postalytics.events', 'SHARE ROW EXCLUSIVE');
    moved := postalytics.move_rows(old, new);
    PERFORM postalytics.audit('move_account', NULL, old, format('to %L, events: %s', new, moved));
    RETURN moved;
END
$$;
COMMENT ON FUNCTION postalytics.move_account(text, text) IS
    'move everything from one account, which may be '''', to another; returns the number of events';
