-- Statuses, their names, and how they are read.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;

SELECT * FROM statuses;

-- Any spelling of the feed, or a feed code.  The result is NULL for anything else.
SELECT spelling, to_mail_status(spelling)
FROM unnest(ARRAY['InTransit', 'In Transit', 'in-transit', ' IN_TRANSIT ', 'purl Completed',
                  'Mail Piece Created', 'Created', 'Return to Sender', 'ReturnedToSender',
                  'Re-Routed', '4', ' 11 ', '0']) AS s (spelling);
SELECT spelling, to_mail_status(spelling)
FROM unnest(ARRAY['Teleported', '', ' ', '-', '1', '12', '04', '-4', '+4', '4.0', '4 4', '1 1',
                  'InTransitX', 'In', 'OK', '200', NULL]) AS s (spelling);

-- Every status can be read from its name, its label and its code.
SELECT count(*)
FROM statuses
WHERE to_mail_status(status::text) = status
  AND to_mail_status(label) = status
  AND to_mail_status(upper(label)) = status
  AND to_mail_status(feed_code::text) = status;

SELECT country, applies_in('InTransit', country) AS in_transit, applies_in('Mailed', country) AS mailed
FROM unnest(ARRAY['US', 'usa', 'United States', 'CA', 'Canada', 'can', 'MX', '', NULL]) AS c (country);

-- The order is partial, but the declared order of the enum is total.
SELECT 'Mailed'::mail_status << 'InTransit' AS before,
       'InTransit'::mail_status >> 'Mailed' AS after,
       'Mailed'::mail_status << 'Mailed' AS itself,
       'Mailed'::mail_status <<= 'Mailed' AS or_itself,
       'ReRouted'::mail_status << 'InTransit' AS rerouted,
       'InTransit'::mail_status << 'ReRouted' AS to_rerouted,
       comparable('ReRouted', 'InTransit'),
       'InTransit'::mail_status < 'ReRouted' AS declared;
SELECT NULL::mail_status << 'Mailed' AS strict;

-- The rule of current_status, case by case.
SELECT name, current_status(status, at)
FROM (VALUES
    ('furthest', 'InTransit'::mail_status, '2026-10-01'::timestamptz),
    ('furthest', 'Mailed', '2026-10-02'),
    ('responses do not count', 'Mailed', '2026-10-01'),
    ('responses do not count', 'pURLCompleted', '2026-10-02'),
    ('only responses', 'pURLOpened', '2026-10-02'),
    ('re-routed', 'ProcessedForDelivery', '2026-10-01'),
    ('re-routed', 'ReRouted', '2026-10-02'),
    ('re-routed, moving again', 'ProcessedForDelivery', '2026-10-01'),
    ('re-routed, moving again', 'ReRouted', '2026-10-02'),
    ('re-routed, moving again', 'InTransit', '2026-10-03'),
    ('at the time of the re-route', 'InTransit', '2026-10-02'),
    ('at the time of the re-route', 'ReRouted', '2026-10-02'),
    ('returned', 'ReturnedToSender', '2026-10-01'),
    ('returned', 'ProcessedForDelivery', '2026-10-02'),
    ('NULLs', NULL, '2026-10-02'),
    ('NULLs', 'Mailed', NULL),
    ('-infinity', 'Mailed', '-infinity')) AS e (name, status, at)
GROUP BY name
ORDER BY name;
SELECT current_status(NULL, NULL) AS of_nothing;

-- current_status as a parallel aggregate.
CREATE TABLE many AS
SELECT i % 100 AS piece, (enum_range(NULL::mail_status))[1 + i % 11] AS status,
       '2026-01-01'::timestamptz + i * interval '1 second' AS at
FROM generate_series(1, 20000) AS i;
ANALYZE many;
CREATE TABLE serial AS SELECT piece, current_status(status, at) AS status FROM many GROUP BY piece;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
EXPLAIN (COSTS OFF) SELECT piece, current_status(status, at) FROM many GROUP BY piece;
SELECT count(*) AS differences
FROM (SELECT piece, current_status(status, at) AS status FROM many GROUP BY piece) AS p
JOIN serial USING (piece)
WHERE p.status IS DISTINCT FROM serial.status;

-- Every object has a comment.
SELECT p.oid::regprocedure AS without_comment
FROM pg_proc AS p
WHERE p.pronamespace = 'postalytics'::regnamespace
  AND obj_description(p.oid, 'pg_proc') IS NULL
UNION ALL
SELECT c.oid::regclass::oid
FROM pg_class AS c
WHERE c.relnamespace = 'postalytics'::regnamespace
  AND c.relkind IN ('r', 'p', 'v', 'S')
  AND obj_description(c.oid, 'pg_class') IS NULL
UNION ALL
SELECT t.oid
FROM pg_type AS t
WHERE t.typnamespace = 'postalytics'::regnamespace
  AND t.typtype IN ('c', 'e')
  AND NOT EXISTS (SELECT FROM pg_class WHERE oid = t.typrelid AND relkind <> 'c')
  AND obj_description(t.oid, 'pg_type') IS NULL;

DROP TABLE many, serial;
DROP EXTENSION postalytics_status;
