/*
 * move_account.sql
 *		move_account: the data of one account given to another.
 */

-- The pieces of an account, which the caller has locked.  A piece that the other
-- account has too is merged with it, and made again from its events if the two
-- accounts have an event in common.
CREATE FUNCTION postalytics.move_pieces(old text, new text, piece_ids text[])
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moved bigint;
    removed bigint;
    twice text[];
BEGIN
    WITH gone AS (
        DELETE FROM postalytics.events AS e
        USING postalytics.events AS o
        WHERE e.piece_id = ANY (piece_ids)
          AND e.account = old
          AND (o.piece_id, o.account, o.status, o.occurred_at) = (e.piece_id, new, e.status, e.occurred_at)
        RETURNING e.piece_id
    )
    SELECT count(*), array_agg(DISTINCT g.piece_id)
    INTO removed, twice
    FROM gone AS g;
    UPDATE postalytics.events AS e
    SET account = new
    WHERE e.piece_id = ANY (piece_ids)
      AND e.account = old;
    GET DIAGNOSTICS moved = ROW_COUNT;
    UPDATE postalytics.deliveries AS d
    SET account = new
    WHERE d.piece_id = ANY (piece_ids)
      AND d.account = old;
    WITH old_row AS (
        DELETE FROM postalytics.pieces AS p
        USING postalytics.pieces AS n
        WHERE p.piece_id = ANY (piece_ids)
          AND p.account = old
          AND (n.piece_id, n.account) = (p.piece_id, new)
        RETURNING p.piece_id, p AS piece
    ), new_row AS (
        DELETE FROM postalytics.pieces AS p
        USING postalytics.pieces AS o
        WHERE p.piece_id = ANY (piece_ids)
          AND p.account = new
          AND (o.piece_id, o.account) = (p.piece_id, old)
        RETURNING p.piece_id, p AS piece
    )
    INSERT INTO postalytics.pieces
    SELECT m.*
    FROM old_row AS o
    JOIN new_row AS n ON n.piece_id = o.piece_id
    CROSS JOIN LATERAL postalytics.merge_piece(o.piece, n.piece) AS m;
    UPDATE postalytics.pieces AS p
    SET account = new
    WHERE p.piece_id = ANY (piece_ids)
      AND p.account = old;
    IF twice IS NOT NULL THEN
        PERFORM postalytics.refold_pieces(twice, new);
    END IF;
    RETURN moved + removed;
END
$$;
COMMENT ON FUNCTION postalytics.move_pieces(text, text, text[]) IS
    'internal: give pieces of an account to another, with their events and deliveries; how many events';

-- Names the account of everything that has it: events, pieces, campaigns, rejects,
-- deliveries, syncs and bindings.  What the new account has already is kept, and
-- merged.  Months that were detached are not changed.
--
-- Writers of the old account may go on.  What they commit meanwhile stays with
-- the old account, so let them name the new one first, or call this again.
--
-- Locks: the rows of pieces of the old account, in the order of their key, until
-- the transaction ends.  Errors: 22004 for NULL, 22023 if the two are the same,
-- 22001 if the new one is too long, 25001 unless the transaction is READ COMMITTED.
CREATE FUNCTION postalytics.move_account(old text, new text)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch text[];
    moved bigint := 0;
    last text COLLATE pg_catalog."C" := '';
BEGIN
    PERFORM postalytics.check_read_committed('move_account');
    PERFORM postalytics.check_not_distributed();
    IF old IS NULL OR new IS NULL THEN
        RAISE EXCEPTION 'account must not be NULL'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF old = new THEN
        RAISE EXCEPTION 'the old and the new account must differ'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF octet_length(new) > 255 THEN
        RAISE EXCEPTION 'account is longer than 255 bytes'
            USING ERRCODE = 'string_data_right_truncation';
    END IF;
    LOOP
        batch := ARRAY(SELECT p.piece_id
                       FROM postalytics.pieces AS p
                       WHERE p.account = old
                         AND p.piece_id > last
                       ORDER BY p.piece_id
                       LIMIT 10000
                       FOR UPDATE);
        EXIT WHEN cardinality(batch) = 0;
        moved := moved + postalytics.move_pieces(old, new, batch);
        last := batch[cardinality(batch)];
    END LOOP;
    INSERT INTO postalytics.campaigns AS c (campaign_id, account, name, named_on)
    SELECT o.campaign_id, new, o.name, o.named_on
    FROM postalytics.campaigns AS o
    WHERE o.account = old
    ORDER BY o.campaign_id
    ON CONFLICT ON CONSTRAINT campaigns_pkey DO UPDATE
    SET (name, named_on) =
        (SELECT n.name, n.named_on
         FROM postalytics.latest_name(c.name, c.named_on, excluded.name, excluded.named_on) AS n);
    DELETE FROM postalytics.campaigns AS c
    WHERE c.account = old
      AND NOT EXISTS (SELECT
                      FROM postalytics.pieces AS p
                      WHERE p.account = old);
    UPDATE postalytics.rejects AS r
    SET account = new
    WHERE r.account = old;
    UPDATE postalytics.syncs AS s
    SET accounts = ARRAY(SELECT DISTINCT a FROM unnest(array_replace(s.accounts, old, new)) AS a ORDER BY a)
    WHERE old = ANY (s.accounts);
    DELETE FROM postalytics.bindings AS b
    USING postalytics.bindings AS o
    WHERE b.account = old
      AND (o.role, o.privilege, o.account) = (b.role, b.privilege, new);
    UPDATE postalytics.bindings AS b
    SET account = new
    WHERE b.account = old;
    RETURN moved;
END
$$;
COMMENT ON FUNCTION postalytics.move_account(text, text) IS
    'give everything of an account to another, as a name to what came without one; how many events';
