/*
 * retire_pieces.sql
 *		maintain() and the background worker retire pieces and rejects that are older
 *		than their retention.
 *
 * An index on last_event_at would cost every event an update of all indexes of pieces,
 * so the table is read in parts instead.  The background worker uses a transaction for
 * each part, and sends notifications in between.
 */

-- Where the next part of pieces begins.  A dump does not contain it.
CREATE TABLE postalytics.retirement_progress (
    next_page bigint NOT NULL
);
ALTER TABLE postalytics.retirement_progress REPLICA IDENTITY FULL;
COMMENT ON TABLE postalytics.retirement_progress IS
    'internal: the page of pieces at which maintain() continues to look for old pieces';
COMMENT ON COLUMN postalytics.retirement_progress.next_page IS 'page number';
INSERT INTO postalytics.retirement_progress VALUES (0);

-- Reads the next 200 pages of pieces.  Skips pieces that others have locked, and those
-- with waiting or leased deliveries.  more: there are pages left; done: NULL if nothing
-- was retired.  Locks: the row of retirement_progress, the pieces with SKIP LOCKED, then
-- those of erase_pieces.
CREATE FUNCTION postalytics.retire_pieces(OUT more boolean, OUT done postalytics.maintenance_log)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    pages CONSTANT bigint := 200;
    max_age CONSTANT interval := postalytics.setting('piece_retention');
    anonymise CONSTANT boolean := postalytics.setting('piece_retention_action') = 'anonymise';
    first_page bigint;
    old record;
    retired bigint := 0;
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
        SELECT o.account, array_agg(o.piece_id) AS piece_ids
        FROM (
            SELECT p.piece_id, p.account
            FROM postalytics.pieces AS p
            WHERE p.ctid >= format('(%s,0)', first_page)::tid
              AND p.ctid < format('(%s,0)', first_page + pages)::tid
              AND p.last_event_at < now() - max_age
              AND (NOT anonymise OR postalytics.has_recipient(p))
              AND NOT EXISTS (SELECT
                              FROM postalytics.deliveries_unfinished AS d
                              WHERE (d.piece_id, d.account) = (p.piece_id, p.account)
                                AND d.due_at < 'infinity')
            FOR UPDATE OF p SKIP LOCKED
        ) AS o
        GROUP BY o.account
    LOOP
        PERFORM postalytics.erase_pieces(old.piece_ids, old.account, anonymise);
        retired := retired + cardinality(old.piece_ids);
    END LOOP;
    UPDATE postalytics.retirement_progress
    SET next_page = CASE WHEN more THEN first_page + pages ELSE 0 END;
    IF retired > 0 THEN
        done := postalytics.log_maintenance(CASE WHEN anonymise THEN 'anonymise' ELSE 'delete' END,
                                            'postalytics.pieces', format('pieces: %s', retired));
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.retire_pieces() IS
    'internal: retire old pieces in a part of the table; whether there are more parts, and what was done';

-- Deletes up to 10,000 old rejects, the oldest first, except those that others have
-- locked.  more: there may be others; done: as for retire_pieces.
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
    'internal: delete some old rejects; whether there are more, and what was done';
