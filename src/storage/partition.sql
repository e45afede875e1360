/*
 * partition.sql
 *		events, partitioned by month, and the making of its months.
 *
 * The parent has no key, index or identity, and only the leaves do: a dump
 * carries the leaves, the extension's script the parent, and keys on both
 * would be made twice in a restore.
 */

CREATE SEQUENCE postalytics.event_id_seq;
COMMENT ON SEQUENCE postalytics.event_id_seq IS
    'event_id of events';

CREATE TABLE postalytics.events (
    event_id bigint NOT NULL DEFAULT pg_catalog.nextval('postalytics.event_id_seq'),
    piece_id text COLLATE pg_catalog."C" NOT NULL,
    status postalytics.mail_status NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    account text,
    campaign_id text,
    payload json
)
PARTITION BY RANGE (occurred_at);

COMMENT ON TABLE postalytics.events IS
    'every event once: this piece, this status, this instant; append-only, a partition a month';
COMMENT ON COLUMN postalytics.events.event_id IS 'grows with arrival, with gaps';
COMMENT ON COLUMN postalytics.events.piece_id IS 'mail id, or campaign/contact (postalytics_status.identity)';
COMMENT ON COLUMN postalytics.events.occurred_at IS 'the feed''s own instant';
COMMENT ON COLUMN postalytics.events.received_at IS 'when the event was stored';
COMMENT ON COLUMN postalytics.events.account IS 'the client''s account: ingest''s argument, or else the feed''s';
COMMENT ON COLUMN postalytics.events.payload IS 'the event as it came; NULL with postalytics_status.keep_payload off';

SELECT pg_catalog.pg_extension_config_dump('postalytics.events', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.event_id_seq', '');

CREATE FUNCTION postalytics.ensure_partitions("from" timestamptz, until timestamptz)
RETURNS integer
LANGUAGE c
STRICT
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_ensure_partitions';
COMMENT ON FUNCTION postalytics.ensure_partitions(timestamptz, timestamptz) IS
    'make the missing months of events from "from" to before until; how many were made';

-- A command that waits for a lock must read what was committed before it got
-- the lock, which only READ COMMITTED does.  Errors: 25001 at another level.
CREATE FUNCTION postalytics.check_read_committed(command text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION '% must run in a READ COMMITTED transaction', command
            USING ERRCODE = 'active_sql_transaction',
                  HINT = 'Use BEGIN ISOLATION LEVEL READ COMMITTED, or call it outside a transaction block.';
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.check_read_committed(text) IS
    'internal: an error unless the transaction is READ COMMITTED';

-- Locks a table until the transaction ends.  A waiting lock request blocks the
-- requests queued behind it, so each attempt waits for only 0.1 seconds, and
-- other sessions can proceed between attempts.  Errors: 55P03 after 10 seconds.
CREATE FUNCTION postalytics.lock_briefly(relation regclass, mode text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms'
AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + '10 s'::interval;
BEGIN
    LOOP
        BEGIN
            EXECUTE format('LOCK TABLE %s IN %s MODE', relation, mode);
            RETURN;
        EXCEPTION
            WHEN lock_not_available THEN
                IF clock_timestamp() >= deadline THEN
                    RAISE EXCEPTION 'could not lock table "%" within 10 seconds', relation
                        USING ERRCODE = 'lock_not_available',
                              DETAIL = 'Other transactions have written to it and have not ended.',
                              HINT = 'Look for idle transactions in pg_stat_activity, and try again.';
                END IF;
        END;
        PERFORM pg_sleep(0.4);
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.lock_briefly(regclass, text) IS
    'internal: lock a table without stopping its writers for longer than a tenth of a second at a time';

CREATE FUNCTION postalytics.check_not_distributed()
RETURNS void
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_check_not_distributed';
COMMENT ON FUNCTION postalytics.check_not_distributed() IS
    'internal: an error if a table of the extension is distributed by Citus';
