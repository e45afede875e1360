/*
 * retire_pieces.sql
 *		retire_pieces, retire_rejects: retire pieces and rejects that are older than
 *		their retention, for maintain() and the background worker.
 *
 * With an index on last_event_at, updates of pieces could not be HOT.  Therefore the
 * table is read without an index, in parts of 200 pages.  The background worker uses a
 * transaction for each part, and sends notifications in between.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- Dumps do not contain the row.  After a restore, maintain() starts at page 0.
CREATE TABLE postalytics.retirement_progress (
    next_page bigint NOT NULL
);
ALTER TABLE postalytics.retirement_progress REPLICA IDENTITY FULL;
COMMENT ON TABLE postalytics.retirement_progress IS
    'internal: one row with the page of pieces at which maintain() continues to search for old pieces';
COMMENT ON COLUMN postalytics.retirement_progress.next_page IS 'page number';
INSERT INTO postalytics.retirement_progress VALUES (0);

-- Calls erase_pieces.  If that fails, for example because of a foreign key, tries each
-- half of the pieces separately, so that all pieces that can be erased are erased.
-- Returns the number of the other pieces, and an error message.
CREATE FUNCTION postalytics.try_erase_pieces(piece_ids text[], account text, anonymise boolean, OUT failed bigint, OUT error text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    half integer := cardinality(piece_ids) / 2;
    rest record;
BEGIN
    failed := 0;
    BEGIN
        PERFORM postalytics.erase_pieces(piece_ids, account, anonymise);
        RETURN;
    EXCEPTION
        WHEN others THEN
            error := SQLERRM;
    END;
    IF half = 0 THEN
        failed := 1;
        RETURN;
    END IF;
    rest := postalytics.try_erase_pieces(piece_ids[1 : half], account, anonymise);
    failed := rest.failed;
    rest := postalytics.try_erase_pieces(piece_ids[half + 1 :], account, anonymise);
    failed := failed + rest.failed;
END
$$;
COMMENT ON FUNCTION postalytics.try_erase_pieces(text[], text, boolean) IS
    'internal: erase those pieces of an account that can be erased; returns the number of the other pieces, and an error message';

-- Locks and returns the old pieces in a range of pages.  Skips pieces that other
-- sessions have locked, pieces with unfinished deliveries, and pieces that are already
-- anonymised.  As in lock_pieces, the settings make the planner look up each piece by
-- index.
CREATE FUNCTION postalytics.old_pieces(first_page bigint, pages bigint, max_age interval, anonymise boolean)
RETURNS TABLE (account text, piece_ids text[])
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
    SELECT o.account, array_agg(o.piece_id)
    FROM (
        SELECT p.piece_id, p.account
        FROM postalytics.pieces AS p
        WHERE p.ctid >= format('(%s,0)', first_page)::tid
          AND p.ctid < format('(%s,0)', first_page + pages)::tid
          AND p.last_event_at < now() - max_age
          AND NOT EXISTS (SELECT
                          FROM postalytics.deliveries_unfinished AS d
                          WHERE (d.piece_id, d.account) = (p.piece_id, p.account))
          AND (NOT anonymise
               OR postalytics.has_recipient(p)
               OR EXISTS (SELECT
                          FROM postalytics.events AS e
                          WHERE (e.piece_id, e.account) = (p.piece_id, p.account)
                            AND e.occurred_at BETWEEN p.first_event_at AND p.last_event_at
                            AND e.payload IS NOT NULL))
        FOR UPDATE OF p SKIP LOCKED
    ) AS o
    GROUP BY o.account
$$;
COMMENT ON FUNCTION postalytics.old_pieces(bigint, bigint, interval, boolean) IS
    'internal: the pieces to retire in a range of pages of the table';

-- Retires the old pieces in the next 200 pages of the table.  more is true if there are
-- pages left; done is the row added to maintenance_log, or NULL if there was nothing to
-- retire.  Locks: the row of retirement_progress, the pieces with SKIP LOCKED, then
-- those of erase_pieces.  Waits up to a second for each lock.
CREATE FUNCTION postalytics.retire_pieces(OUT more boolean, OUT done postalytics.maintenance_log)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
DECLARE
    pages CONSTANT bigint := 200;
    max_age CONSTANT interval := postalytics.setting('piece_retention');
    anonymise CONSTANT boolean := postalytics.setting('piece_retention_action') = 'anonymise';
    first_page bigint;
    old record;
    rest record;
    retired bigint := 0;
    failed bigint := 0;
    error text;
BEGIN
    more := false;
    IF max_age = '0' THEN
        RETURN;
    END IF;
    SELECT r.next_page
    INTO first_page
    FROM postalytics.retirement_progress AS r
    FOR UPDATE;
    more := (first_page + pages) * current_setting('block_size')::bigint < pg_relation_size('postalytics.pieces');
    FOR old IN
        SELECT o.account, o.piece_ids
        FROM postalytics.old_pieces(first_page, pages, max_age, anonymise) AS o
    LOOP
        rest := postalytics.try_erase_pieces(old.piece_ids, old.account, anonymise);
        retired := retired + cardinality(old.piece_ids) - rest.failed;
        failed := failed + rest.failed;
        error := COALESCE(rest.error, error);
    END LOOP;
    UPDATE postalytics.retirement_progress
    SET next_page = CASE WHEN more THEN first_page + pages ELSE 0 END;
    IF retired + failed > 0 THEN
        done := postalytics.log_maintenance(CASE
                                                WHEN failed > 0 THEN 'failed'
                                                WHEN anonymise THEN 'anonymise'
                                                ELSE 'delete'
                                            END, 'postalytics.pieces',
                                            format('pieces: %s', retired)
                                            || CASE WHEN failed > 0 THEN format(', failed: %s (%s)', failed, error) ELSE '' END);
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.retire_pieces() IS
    'internal: retire old pieces in a part of the table; returns whether there are more parts, and what was done';

-- Deletes up to 10,000 old rejects, the oldest first, except those that other sessions
-- have locked.  more is true if there may be more old rejects; done is the row added to
-- maintenance_log, or NULL if there was nothing to delete.
CREATE FUNCTION postalytics.retire_rejects(OUT more boolean, OUT done postalytics.maintenance_log)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch_size CONSTANT bigint := 10000;
    max_age CONSTANT interval := postalytics.setting('reject_retention');
    retired bigint;
BEGIN
    more := false;
    IF max_age = '0' THEN
        RETURN;
    END IF;
    DELETE FROM postalytics.rejects AS r
    WHERE r.reject_id IN (SELECT o.reject_id
                          FROM postalytics.rejects AS o
                          WHERE o.received_at < now() - max_age
                          ORDER BY o.received_at
                          LIMIT batch_size
                          FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS retired = ROW_COUNT;
    more := retired = batch_size;
    IF retired > 0 THEN
        done := postalytics.log_maintenance('delete', 'postalytics.rejects', format('rejects: %s', retired));
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.retire_rejects() IS
    'internal: delete some old rejects; returns whether there may be more, and what was done';
