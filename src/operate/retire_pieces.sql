/*
 * retire_pieces.sql
 *		Pieces and rejects that are older than their retention.
 *
 * An index on last_event_at would make every event update all indexes of pieces.
 * Instead the table is read in parts, each in a transaction of its own if the
 * background worker does it, which notifies between two of them.
 */

-- Where the next part of pieces begins.  A dump does not need it.
CREATE TABLE postalytics.retirement_progress (
    next_block bigint NOT NULL
);
ALTER TABLE postalytics.retirement_progress REPLICA IDENTITY FULL;
COMMENT ON TABLE postalytics.retirement_progress IS
    'internal: the block of pieces at which maintain() goes on to look for old ones';
COMMENT ON COLUMN postalytics.retirement_progress.next_block IS 'its number';
INSERT INTO postalytics.retirement_progress VALUES (0);

-- Reads a part of pieces.  Pieces that others have locked, and those with deliveries
-- that still wait, are left for the next time.  more is false once the end of the table
-- is reached, and done is NULL if nothing was retired.  Locks: those of erase_pieces.
CREATE FUNCTION postalytics.retire_pieces(OUT more boolean, OUT done postalytics.maintenance_log)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    blocks CONSTANT bigint := 200;
    max_age CONSTANT interval := postalytics.setting('piece_retention');
    anonymise CONSTANT boolean := postalytics.setting('piece_retention_action') = 'anonymise';
    first_block bigint;
    old record;
    retired bigint := 0;
BEGIN
    more := false;
    IF max_age = '0' THEN
        RETURN;
    END IF;
    SELECT r.next_block
    INTO first_block
    FROM postalytics.retirement_progress AS r
    FOR UPDATE;
    more := (first_block + blocks) * current_setting('block_size')::bigint < pg_relation_size('postalytics.pieces');
    FOR old IN
        SELECT o.account, array_agg(o.piece_id) AS piece_ids
        FROM (
            SELECT p.piece_id, p.account
            FROM postalytics.pieces AS p
            WHERE p.ctid >= format('(%s,0)', first_block)::tid
              AND p.ctid < format('(%s,0)', first_block + blocks)::tid
              AND p.last_event_at < now() - max_age
              AND NOT (anonymise
                       AND num_nonnulls(p.contact_id, p.first_name, p.last_name, p.company, p.email, p.zip, p.fields, p.last_url) = 0)
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
    SET next_block = CASE WHEN more THEN first_block + blocks ELSE 0 END;
    IF retired > 0 THEN
        done := postalytics.log_maintenance(CASE WHEN anonymise THEN 'anonymise' ELSE 'delete' END,
                                            'postalytics.pieces', format('pieces: %s', retired));
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.retire_pieces() IS
    'internal: retire old pieces in a part of the table; whether there are more parts, and what was done';

-- Likewise.
CREATE FUNCTION postalytics.retire_rejects(OUT more boolean, OUT done postalytics.maintenance_log)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    at_once CONSTANT bigint := 10000;
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
                          LIMIT at_once
                          FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS retired = ROW_COUNT;
    more := retired = at_once;
    IF retired > 0 THEN
        done := postalytics.log_maintenance('delete', 'postalytics.rejects', format('rejects: %s', retired));
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.retire_rejects() IS
    'internal: delete some old rejects; whether there are more, and what was done';
