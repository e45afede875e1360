/*
 * tally.sql
 *		Counts of attempts, acknowledgements and failures, and of latencies.
 *
 * Sessions insert rows with their counts (tally.c).  maintain() deletes the rows after
 * a day.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TABLE postalytics.tallies (
    sync text COLLATE pg_catalog."C" NOT NULL,
    at timestamptz NOT NULL,
    attempts integer NOT NULL,
    successes integer NOT NULL,
    failures integer NOT NULL,
    buckets smallint[] NOT NULL,
    counts integer[] NOT NULL
);
-- A table without a primary key needs this if it is in a publication of all tables.
ALTER TABLE postalytics.tallies REPLICA IDENTITY FULL;
CREATE INDEX tallies_at_idx ON postalytics.tallies (at);
COMMENT ON TABLE postalytics.tallies IS
    'internal: attempts, successes and failures that sessions have counted; see metrics';
COMMENT ON COLUMN postalytics.tallies.sync IS 'name of the sync';
COMMENT ON COLUMN postalytics.tallies.at IS 'when the session wrote its counts';
COMMENT ON COLUMN postalytics.tallies.attempts IS 'deliveries leased';
COMMENT ON COLUMN postalytics.tallies.successes IS 'deliveries acknowledged';
COMMENT ON COLUMN postalytics.tallies.failures IS 'deliveries failed';
COMMENT ON COLUMN postalytics.tallies.buckets IS 'latencies: 4 times the base-2 logarithm of the milliseconds, rounded down';
COMMENT ON COLUMN postalytics.tallies.counts IS 'the number of successes in each of the buckets';

-- Returns the 0.5, 0.95 and 0.99 quantiles for each sync, including dropped syncs.  A
-- sync for which no successes were written after since has no rows.
CREATE FUNCTION postalytics.sync_latencies(since timestamptz)
RETURNS TABLE (sync text, quantile double precision, seconds double precision)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH histogram AS (
        SELECT t.sync,
               b.bucket,
               sum(sum(b.count)) OVER (PARTITION BY t.sync ORDER BY b.bucket) AS upto,
               sum(sum(b.count)) OVER (PARTITION BY t.sync) AS total
        FROM postalytics.tallies AS t
        CROSS JOIN LATERAL unnest(t.buckets, t.counts) AS b (bucket, count)
        WHERE t.at > since
        GROUP BY t.sync, b.bucket
    )
    SELECT h.sync,
           q.quantile,
           power(2, (min(h.bucket) + 0.5) / 4) / 1000
    FROM histogram AS h
    CROSS JOIN unnest(ARRAY[0.5, 0.95, 0.99]) AS q (quantile)
    WHERE h.upto >= q.quantile * h.total
    GROUP BY h.sync, q.quantile
$$;
COMMENT ON FUNCTION postalytics.sync_latencies(timestamptz) IS
    'internal: for each sync, quantiles of the time from the creation of a delivery to its acknowledgement, from the counts written since a time';
