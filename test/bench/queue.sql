/*
 * queue.sql
 *		The lease semantics of the extension, written in SQL on one table, as well
 *		as we can.  Finished deliveries stay in the table, and partial indexes
 *		contain the unfinished ones, so that a lease is a HOT update.  hand.take, the
 *		counterpart of fetch, locks and leases in one statement.
 */

CREATE SCHEMA hand;

CREATE TABLE hand.deliveries (
    delivery_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync text COLLATE "C" NOT NULL,
    piece_id text COLLATE "C" NOT NULL,
    status postalytics.mail_status NOT NULL,
    occurred_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'waiting',
    attempt integer NOT NULL DEFAULT 0,
    lease_until timestamptz,
    leased_by bigint,
    finished_at timestamptz,
    errors jsonb[]
)
WITH (fillfactor = 70);

CREATE INDEX ON hand.deliveries (sync, due_at) WHERE finished_at IS NULL;
CREATE INDEX ON hand.deliveries (piece_id, sync, occurred_at) WHERE finished_at IS NULL;

-- Unlike fetch, does not support the columns unless and latest_only of syncs.
CREATE FUNCTION hand.take(sync text, batch integer, lease interval)
RETURNS SETOF postalytics.delivery
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
BEGIN
    RETURN QUERY
    WITH ready AS (
        SELECT d.delivery_id
        FROM hand.deliveries AS d
        WHERE d.sync = take.sync
          AND d.due_at <= now()
          AND d.finished_at IS NULL
          AND (d.lease_until IS NULL OR d.lease_until <= now())
          AND NOT EXISTS (SELECT
                          FROM hand.deliveries AS e
                          WHERE e.piece_id = d.piece_id
                            AND e.sync = d.sync
                            AND e.finished_at IS NULL
                            AND e.occurred_at <= d.occurred_at
                            AND (e.occurred_at, e.status, e.delivery_id) < (d.occurred_at, d.status, d.delivery_id))
        ORDER BY d.due_at
        LIMIT batch
        FOR UPDATE SKIP LOCKED),
    leased AS (
        UPDATE hand.deliveries AS d
        SET state = 'leased', attempt = d.attempt + 1, lease_until = now() + lease, leased_by = pg_backend_pid()
        FROM ready
        WHERE d.delivery_id = ready.delivery_id
        RETURNING d.*)
    SELECT l.delivery_id, l.attempt, false, l.status, postalytics.label(l.status), l.occurred_at, l.due_at, l.piece_id,
           COALESCE(e.account, p.account), COALESCE(e.campaign_id, p.campaign_id), c.name, p.contact_id,
           p.first_name, p.last_name, p.company, p.email, p.country, p.fields, e.payload
    FROM leased AS l
    LEFT JOIN postalytics.events AS e USING (piece_id, status, occurred_at)
    LEFT JOIN postalytics.pieces AS p USING (piece_id)
    LEFT JOIN postalytics.campaigns AS c ON c.campaign_id = COALESCE(e.campaign_id, p.campaign_id)
    ORDER BY l.due_at, l.delivery_id;
END
$$;

CREATE FUNCTION hand.ack(sync text, delivery_ids bigint[])
RETURNS bigint
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    count bigint;
BEGIN
    WITH mine AS (
        SELECT d.delivery_id
        FROM hand.deliveries AS d
        WHERE d.delivery_id = ANY (delivery_ids)
          AND d.sync = ack.sync
          AND d.state = 'leased'
          AND d.leased_by = pg_backend_pid()
        ORDER BY d.delivery_id
        FOR UPDATE)
    UPDATE hand.deliveries AS d
    SET state = 'done', finished_at = clock_timestamp()
    FROM mine
    WHERE d.delivery_id = mine.delivery_id;
    GET DIAGNOSTICS count = ROW_COUNT;
    RETURN count;
END
$$;

-- The events of the deliveries, and the sync that receives them.
SELECT FROM postalytics.ingest((
    SELECT json_agg(json_build_object(
        'mailId', i % 25000, 'eventType', (ARRAY[11,4,5,6])[1 + i / 25000],
        'eventDate', to_char(timestamp '2026-09-05' + i * interval '20 seconds', 'YYYY-MM-DD HH24:MI:SS'),
        'meta', json_build_object('campaignId', '77120', 'campaignName', 'Spring recall'),
        'to', json_build_object('firstName', 'First ' || i, 'country', 'US'), 'note', repeat('x', 500)))
    FROM generate_series(0, 99999) AS i));
SELECT FROM postalytics.create_sync('s');

-- Makes 100,000 deliveries due in both tables.
CREATE PROCEDURE hand.refill()
LANGUAGE sql
AS $$
    SELECT postalytics.replay_sync('s', '-infinity');
    INSERT INTO hand.deliveries (sync, piece_id, status, occurred_at, due_at)
    SELECT 's', piece_id, status, occurred_at, occurred_at
    FROM postalytics.events
    ORDER BY occurred_at;
$$;

-- Fetches and acks all due deliveries, with a transaction for each hundred.  Returns
-- the time of the slowest fetch.
CREATE PROCEDURE hand.ours(OUT slowest interval)
LANGUAGE plpgsql
AS $$
DECLARE
    ids bigint[];
    began timestamptz;
BEGIN
    slowest := '0';
    LOOP
        began := clock_timestamp();
        SELECT array_agg(f.delivery_id) INTO ids FROM postalytics.fetch('s', 100) AS f;
        slowest := greatest(slowest, clock_timestamp() - began);
        EXIT WHEN ids IS NULL;
        PERFORM postalytics.ack('s', ids);
        COMMIT;
    END LOOP;
END
$$;

CREATE PROCEDURE hand.theirs(OUT slowest interval)
LANGUAGE plpgsql
AS $$
DECLARE
    ids bigint[];
    began timestamptz;
BEGIN
    slowest := '0';
    LOOP
        began := clock_timestamp();
        SELECT array_agg(f.delivery_id) INTO ids FROM hand.take('s', 100, '1 minute') AS f;
        slowest := greatest(slowest, clock_timestamp() - began);
        EXIT WHEN ids IS NULL;
        PERFORM hand.ack('s', ids);
        COMMIT;
    END LOOP;
END
$$;
