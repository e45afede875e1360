/*
 * rebuild.sql
 *		rebuild_pieces: derives pieces again from their stored events.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- Returns account if it is not NULL.  Otherwise, returns the only account in which the
-- pieces exist, or '' if they do not exist.  Errors: 21000 if they exist in more than
-- one account.
CREATE FUNCTION postalytics.account_of_pieces(piece_ids text[], account text)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    accounts text[];
BEGIN
    IF account IS NOT NULL THEN
        RETURN account;
    END IF;
    SELECT array_agg(a.account)
    INTO accounts
    FROM (
        SELECT p.account
        FROM postalytics.pieces AS p
        WHERE p.piece_id = ANY (piece_ids)
        UNION
        SELECT e.account
        FROM postalytics.events AS e
        WHERE e.piece_id = ANY (piece_ids)
    ) AS a;
    IF cardinality(accounts) > 1 THEN
        RAISE EXCEPTION 'pieces exist in more than one account'
            USING ERRCODE = 'cardinality_violation',
                  HINT = 'Specify the account as an argument.';
    END IF;
    RETURN COALESCE(accounts[1], '');
END
$$;
COMMENT ON FUNCTION postalytics.account_of_pieces(text[], text) IS
    'internal: the account of pieces; an error if they exist in more than one account';

-- Locks the rows of pieces in key order, until the transaction ends, and returns the
-- ids of the pieces.  If a piece has events but no row, a row is inserted first.  Its
-- column marks is that of a piece without events (the short form in piece.c), which
-- refold_pieces replaces.  If a piece that has events is not returned, a concurrent
-- ingest has inserted it meanwhile, and its row is up to date.
--
-- The settings make the planner look up each piece by index, regardless of the
-- estimated size of the tables.
CREATE FUNCTION postalytics.lock_pieces(piece_ids text[], account text)
RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
BEGIN
    INSERT INTO postalytics.pieces (piece_id, account, opens, completions, first_event_at, last_event_at, marks)
    SELECT DISTINCT e.piece_id, e.account, 0, 0, 'infinity'::timestamptz, '-infinity'::timestamptz, '\xffffffffff'::bytea
    FROM postalytics.events AS e
    WHERE e.piece_id = ANY (piece_ids)
      AND e.account = lock_pieces.account
      AND NOT EXISTS (SELECT
                      FROM postalytics.pieces AS p
                      WHERE (p.piece_id, p.account) = (e.piece_id, e.account))
    ORDER BY e.piece_id
    ON CONFLICT DO NOTHING;
    RETURN ARRAY(SELECT p.piece_id
                 FROM postalytics.pieces AS p
                 WHERE p.piece_id = ANY (piece_ids)
                   AND p.account = lock_pieces.account
                 ORDER BY p.piece_id
                 FOR UPDATE);
END
$$;
COMMENT ON FUNCTION postalytics.lock_pieces(text[], text) IS
    'internal: lock the rows of an account''s pieces, and return their ids';

-- A piece cannot be derived again if some of its events are in a month that was dropped
-- or detached.  This is the case if a time in the row of the piece is in such a month
-- and no stored event has that time, or if a detached month has events of the piece.
-- The caller has locked events, so that no month is retired meanwhile.  Errors: 22023
-- if there is such a piece.
CREATE FUNCTION postalytics.check_not_retired(piece_ids text[], account text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    retired record;
    detached regclass;
BEGIN
    SELECT p.piece_id, to_char(min(t.at) AT TIME ZONE 'UTC', 'YYYY-MM') AS month
    INTO retired
    FROM postalytics.pieces AS p
    CROSS JOIN LATERAL unnest(ARRAY[p.first_event_at, p.last_event_at]
                              || ARRAY(SELECT postalytics.reached_at(p, s)
                                       FROM unnest(enum_range(NULL::postalytics.mail_status)) AS s)) AS t (at)
    WHERE p.piece_id = ANY (piece_ids)
      AND p.account = check_not_retired.account
      AND isfinite(t.at)
      AND (NOT EXISTS (SELECT
                       FROM postalytics.leaves('postalytics.events') AS l
                       WHERE t.at >= COALESCE(l.starts_at, '-infinity')
                         AND t.at < COALESCE(l.ends_at, 'infinity'))
           OR EXISTS (SELECT
                      FROM postalytics.retired_months AS m
                      WHERE t.at >= m.starts_at
                        AND t.at < m.ends_at)
              AND NOT EXISTS (SELECT
                              FROM postalytics.events AS e
                              WHERE (e.piece_id, e.account, e.occurred_at) = (p.piece_id, p.account, t.at)))
    GROUP BY p.piece_id
    ORDER BY p.piece_id
    LIMIT 1;
    IF FOUND THEN
        PERFORM postalytics.raise_retired(retired.piece_id, retired.month);
    END IF;
    FOR detached IN SELECT postalytics.detached_months() LOOP
        EXECUTE format('SELECT e.piece_id, to_char(e.occurred_at AT TIME ZONE ''UTC'', ''YYYY-MM'') AS month
                        FROM %s AS e
                        WHERE e.piece_id = ANY ($1)
                          AND e.account = $2
                        LIMIT 1', detached)
        INTO retired
        USING piece_ids, account;
        IF retired.piece_id IS NOT NULL THEN
            PERFORM postalytics.raise_retired(retired.piece_id, retired.month);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.check_not_retired(text[], text) IS
    'internal: raise an error if a piece had events in a retired month';

CREATE FUNCTION postalytics.raise_retired(piece_id text, month text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'piece "%" has events in month %, which was retired', piece_id, month
        USING ERRCODE = 'invalid_parameter_value',
              DETAIL = 'The piece cannot be derived from the remaining events.',
              HINT = 'If the month was detached, attach it to postalytics.events again.';
END
$$;
COMMENT ON FUNCTION postalytics.raise_retired(text, text) IS
    'internal: raise the error that a piece had events in a retired month';

-- Processes the pieces in batches, in key order, and does not block the ingest of other
-- pieces.  A piece without events is deleted.  Data that came only from payloads that
-- were not kept is not changed.  If piece_ids is NULL, there are no pieces to derive,
-- because array_agg returns NULL for no rows.
--
-- Locks: ACCESS SHARE on events, then those of lock_pieces.  Errors: those of
-- account_of_pieces and check_not_retired, 25001 unless the transaction is READ
-- COMMITTED.
CREATE FUNCTION postalytics.rebuild_pieces(piece_ids text[], account text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch_size CONSTANT integer := 1000;
    owner text;
    ids text[];
    locked text[];
    events bigint := 0;
BEGIN
    PERFORM postalytics.check_read_committed('rebuild_pieces');
    PERFORM postalytics.check_not_distributed();
    LOCK TABLE ONLY postalytics.events IN ACCESS SHARE MODE;
    owner := postalytics.account_of_pieces(piece_ids, account);
    ids := ARRAY(SELECT DISTINCT p.piece_id COLLATE "C" FROM unnest(piece_ids) AS p (piece_id) WHERE p.piece_id IS NOT NULL ORDER BY 1);
    FOR i IN 1 .. cardinality(ids) BY batch_size LOOP
        locked := postalytics.lock_pieces(ids[i : i + batch_size - 1], owner);
        PERFORM postalytics.check_not_retired(locked, owner);
        events := events + postalytics.refold_pieces(locked, owner);
    END LOOP;
    RETURN events;
END
$$;
COMMENT ON FUNCTION postalytics.rebuild_pieces(text[], text) IS
    'derive pieces again from their stored events, after the events were changed manually; returns the number of events';
