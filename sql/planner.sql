-- A comparison in the partial order with a constant becomes a test for membership, which
-- indexes, statistics and partition pruning can use.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;

CREATE TABLE letters (id int, status mail_status);
INSERT INTO letters
SELECT i, CASE WHEN i % 100 = 0 THEN 'MailPieceCreated' ELSE 'ProcessedForDelivery' END::mail_status
FROM generate_series(1, 20000) AS i;
CREATE INDEX ON letters (status);
ANALYZE letters;

EXPLAIN (COSTS OFF) SELECT * FROM letters WHERE status << 'Mailed';
EXPLAIN (COSTS OFF) SELECT * FROM letters WHERE 'Mailed' >> status;
EXPLAIN (COSTS OFF) SELECT * FROM letters WHERE status <<= 'Addressed';
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT * FROM letters WHERE status << 'Printed';
EXPLAIN (COSTS OFF) SELECT * FROM letters WHERE status >>= 'pURLOpened';
EXPLAIN (COSTS OFF) SELECT * FROM letters WHERE comparable(status, 'ReRouted');
RESET enable_seqscan;
RESET enable_bitmapscan;
-- Nothing follows pURLCompleted.  It is not simplified: an empty list is not NULL for NULL.
EXPLAIN (COSTS OFF) SELECT * FROM letters WHERE status >> 'pURLCompleted';
SELECT count(*) FROM letters WHERE status << NULL;
EXPLAIN (COSTS OFF) SELECT * FROM letters AS a JOIN letters AS b ON a.status << b.status WHERE a.id = b.id;

-- The result is the same, simplified or not, for all pairs and all operators.
CREATE TABLE pairs AS
SELECT a.status AS a, b.status AS b
FROM statuses AS a, statuses AS b;
INSERT INTO pairs SELECT NULL, status FROM statuses;
DO $$
DECLARE
    operator text;
    constant mail_status;
    same boolean;
BEGIN
    FOREACH operator IN ARRAY ARRAY['<<', '>>', '<<=', '>>='] LOOP
        FOR constant IN SELECT status FROM statuses LOOP
            EXECUTE format('SELECT bool_and((a %1$s b) IS NOT DISTINCT FROM (a %1$s %2$L)
                                        AND (b %1$s a) IS NOT DISTINCT FROM (%2$L %1$s a))
                            FROM pairs WHERE b = %2$L', operator, constant) INTO same;
            IF NOT same THEN
                RAISE 'a % % differs', operator, constant;
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- The planner's row estimate comes from the column's statistics.
CREATE FUNCTION guess(query text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan;
    RETURN plan -> 0 -> 'Plan' ->> 'Plan Rows';
END
$$;
SELECT guess('SELECT * FROM letters WHERE status << ''Mailed''') BETWEEN 150 AND 250 AS few,
       guess('SELECT * FROM letters WHERE status >> ''Mailed''') > 19000 AS nearly_all;

DROP FUNCTION guess(text);
DROP TABLE letters, pairs;
DROP EXTENSION postalytics_status;
