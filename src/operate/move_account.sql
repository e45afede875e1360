/*
 * move_account.sql
 *		move_account: moves the data of one account to another.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- Deletes the events of the old account that the new account also has.  Also deletes
-- the unfinished deliveries of these events if the new account has a delivery of the
-- same event for the same sync.  Returns, for each piece, the number of deleted events,
-- and the numbers of visits among them, which merge_piece will count twice.
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
    'internal: delete the events of the old account that the new account also has, and duplicate deliveries of these events';

-- Errors: 23503 if a foreign key refers to a piece of the old account that the new
-- account also has.  Merging the piece deletes its row in the old account, and ON
-- DELETE CASCADE could delete users' rows with it.
CREATE FUNCTION postalytics.check_piece_references(old text, new text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reference record;
    piece_id text;
BEGIN
    FOR reference IN
        SELECT c.conrelid::regclass AS relation,
               max(r.attname) FILTER (WHERE p.attname = 'piece_id') AS piece_column,
               max(r.attname) FILTER (WHERE p.attname = 'account') AS account_column
        FROM pg_constraint AS c
        CROSS JOIN unnest(c.conkey, c.confkey) AS k (referring, referred)
        JOIN pg_attribute AS r ON (r.attrelid, r.attnum) = (c.conrelid, k.referring)
        JOIN pg_attribute AS p ON (p.attrelid, p.attnum) = (c.confrelid, k.referred)
        WHERE c.contype = 'f'
          AND c.confrelid = 'postalytics.pieces'::regclass
          AND c.conparentid = 0
        GROUP BY c.oid
    LOOP
        EXECUTE format('SELECT o.piece_id
                        FROM postalytics.pieces AS o
                        JOIN postalytics.pieces AS n ON (n.piece_id, n.account) = (o.piece_id, $2)
                        WHERE o.account = $1
                          AND EXISTS (SELECT
                                      FROM %1$s AS r
                                      WHERE (r.%2$I::text, r.%3$I::text) = (o.piece_id, $1))
                        ORDER BY o.piece_id
                        LIMIT 1', reference.relation, reference.piece_column, reference.account_column)
        INTO piece_id
        USING old, new;
        IF piece_id IS NOT NULL THEN
            RAISE EXCEPTION 'cannot merge piece "%" because table % refers to it', piece_id, reference.relation
                USING ERRCODE = 'foreign_key_violation',
                      DETAIL = format('Both account "%s" and account "%s" have the piece.', old, new),
                      HINT = format('Change column "%s" of the rows that refer to such pieces to "%s", and try again.',
                                    reference.account_column, new);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.check_piece_references(text, text) IS
    'internal: raise an error if a foreign key refers to a piece of the old account that the new account also has';

-- A piece that both accounts have is merged into the row of the new account.  That row
-- is updated in place, because foreign keys may refer to it.  Locks: first the rows of
-- the old account that are merged, so that no reference to them can be added.
CREATE FUNCTION postalytics.move_pieces(old text, new text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    columns text;
BEGIN
    PERFORM
    FROM postalytics.pieces AS o
    WHERE o.account = old
      AND EXISTS (SELECT
                  FROM postalytics.pieces AS n
                  WHERE (n.piece_id, n.account) = (o.piece_id, new))
    ORDER BY o.piece_id
    FOR UPDATE;
    IF FOUND THEN
        PERFORM postalytics.check_piece_references(old, new);
        SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
        INTO columns
        FROM pg_attribute AS a
        WHERE a.attrelid = 'postalytics.pieces'::regclass
          AND a.attnum > 0
          AND NOT a.attisdropped
          AND a.attgenerated = ''
          AND a.attidentity <> 'a'
          AND a.attname NOT IN ('piece_id', 'account');
        EXECUTE format('UPDATE postalytics.pieces AS n
                        SET (%1$s) = (SELECT %1$s FROM postalytics.merge_piece(o, n, false))
                        FROM postalytics.pieces AS o
                        WHERE (o.account, n.account) = ($1, $2)
                          AND o.piece_id = n.piece_id', columns)
        USING old, new;
        DELETE FROM postalytics.pieces AS o
        USING postalytics.pieces AS n
        WHERE o.account = old
          AND (n.piece_id, n.account) = (o.piece_id, new);
    END IF;
    UPDATE postalytics.pieces AS p
    SET account = new
    WHERE p.account = old;
END
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

-- If accounts in payloads count, a reject without an account may belong to any.
CREATE FUNCTION postalytics.move_rejects(old text, new text)
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
                          WHERE f.field = 'account'))
$$;
COMMENT ON FUNCTION postalytics.move_rejects(text, text) IS
    'internal: move the rejects of an account to another';

CREATE FUNCTION postalytics.move_account_references(old text, new text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
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
    'internal: change an account in syncs and bindings';

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
    -- Sessions remember deliveries by account and due_at (place.c, aside.c).  A due_at
    -- that is not before clock makes them find the moved deliveries.
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
    PERFORM postalytics.move_rejects(old, new);
    PERFORM postalytics.move_account_references(old, new);
    RETURN moved + common.events;
END
$$;
COMMENT ON FUNCTION postalytics.move_rows(text, text) IS
    'internal: move everything from one account to another; returns the number of events';

-- Data that has no account belongs to the first client.  Once there is a second client,
-- syncs and roles that are for all accounts would mix the data of both clients.
CREATE FUNCTION postalytics.check_all_accounts()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names text;
BEGIN
    SELECT string_agg(quote_ident(s.name), ', ' ORDER BY s.name)
    INTO names
    FROM postalytics.syncs AS s
    WHERE s.accounts IS NULL;
    IF names IS NOT NULL THEN
        RAISE NOTICE 'syncs that deliver events of all accounts: %', names
            USING HINT = 'If they are for one client, set "accounts" in their rows of postalytics.syncs.';
    END IF;
    SELECT string_agg(DISTINCT b.role::text, ', ')
    INTO names
    FROM postalytics.bindings AS b
    WHERE b.privilege IN ('ingest', 'read')
      AND b.account IS NULL;
    IF names IS NOT NULL THEN
        RAISE NOTICE 'roles that are bound to all accounts: %', names
            USING HINT = 'If they are for one client, revoke their binding and grant it for an account.';
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.check_all_accounts() IS
    'internal: raise notices for syncs and roles that are for all accounts';

-- Moves events, pieces, campaigns, production errors, rejects, deliveries, syncs and
-- bindings from one account to another, and merges data that both accounts have.
-- Detached months are not changed.  If field_names maps an account, rejects without an
-- account are not moved, because a retry can assign them to any account.
--
-- Locks: those of lock_bindings; the rows of the syncs that list the old account, in
-- the order of name; then the unfinished deliveries of the old account, in the same
-- order as redrive and replay_sync; then SHARE ROW EXCLUSIVE on events, until the
-- transaction ends, which blocks the ingest of all accounts.  While the function waits
-- for these locks, writers are not blocked.  Errors: 22004 for NULL, 22023 if the
-- accounts are the same or the new account is empty, 22001 if the new account is too
-- long, those of check_piece_references, 55P03 if the lock on events is not available
-- within 10 seconds or, after that, a row lock within 1 second, 25001 unless the
-- transaction is READ COMMITTED.
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
    IF old = '' THEN
        PERFORM postalytics.check_all_accounts();
    END IF;
    RETURN moved;
END
$$;
COMMENT ON FUNCTION postalytics.move_account(text, text) IS
    'move everything from one account, which may be '''', to another; returns the number of events';
