-- A piece and its deliveries are functions of the set of its events.  The order of the
-- events, their batches, repetitions, and the way in which they are stored must not
-- matter.  Each generated journey is stored several times under different names, and
-- all copies must be equal.
BEGIN;
SET search_path = public, postalytics;
SELECT postalytics.configure('earliest', '36500d');
SELECT postalytics.configure('latest', '36500d');
INSERT INTO field_names VALUES ('meta.accountId', 'account');
SELECT plan(18);
SELECT setseed(0.20261123);

DO $$
BEGIN
    PERFORM create_sync('every');
    PERFORM create_sync('some', statuses => '{Mailed,ReRouted,pURLOpened}', campaigns => '{1}', accounts => '{1}', wait => '2 days');
END
$$;

-- 1500 journeys of 1 to 12 events, with so few different times that there are ties.
-- Each journey has one account or none.  The other fields of an event are present at
-- random.
CREATE TEMP TABLE generated AS
SELECT journey, n, status, at,
       jsonb_strip_nulls(jsonb_build_object(
           'eventType', feed_code(status),
           'eventDate', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'),
           'expectedDeliveryDate', CASE WHEN random() < 0.5 THEN '2026-10-' || 10 + n END,
           'to', jsonb_build_object('id', CASE WHEN random() < 0.8 THEN 'contact ' || n % 3 END,
                                    'firstName', CASE WHEN random() < 0.4 THEN 'First ' || n END,
                                    'company', CASE WHEN random() < 0.4 THEN 'Company ' || n END,
                                    'country', CASE WHEN random() < 0.5 THEN (ARRAY['US', 'CA'])[1 + n % 2] END),
           'meta', jsonb_build_object('campaignId', CASE WHEN random() < 0.8 THEN n % 2 END,
                                      'accountId', CASE WHEN journey % 3 > 0 THEN journey % 2 END,
                                      'url', CASE WHEN random() < 0.7 THEN 'https://visit.example/' || n END,
                                      'fields', CASE WHEN random() < 0.3 THEN jsonb_build_object('n', n) END))) AS body
FROM (SELECT DISTINCT ON (journey, status, at) journey, n, status, at
      FROM (SELECT journey, n,
                   (enum_range(NULL::mail_status))[1 + floor(random() * 11)] AS status,
                   '2026-09-25 UTC'::timestamptz + floor(random() * 8) * interval '36 hours' AS at
            FROM (SELECT journey, 1 + floor(random() * 12)::int AS length FROM generate_series(1, 1500) AS journey) AS j,
                 generate_series(1, length) AS n) AS e
      ORDER BY journey, status, at, n) AS e;

CREATE FUNCTION pg_temp.named(body jsonb, piece text) RETURNS jsonb LANGUAGE sql
RETURN body || jsonb_build_object('mailId', piece);

-- Copy 0 of each journey is ingested in order, in one call.
SELECT is(i.inserted, (SELECT count(*) FROM generated), 'sorted: all events are inserted')
FROM ingest((SELECT json_agg(pg_temp.named(body, journey || '.0') ORDER BY journey, at, status) FROM generated)) AS i;

-- Copies 1 to 5 are ingested in random order, in batches of 1 to 60, with some events
-- twice.
CREATE TEMP TABLE offered AS
SELECT row_number() OVER (ORDER BY random()) AS place, body
FROM (SELECT pg_temp.named(g.body, g.journey || '.' || copy) AS body
      FROM generated AS g, generate_series(1, 5) AS copy, generate_series(1, CASE WHEN random() < 0.1 THEN 2 ELSE 1 END)) AS o;

DO $$
DECLARE
    done bigint := 0;
    size int;
    result postalytics.ingest_result;
    inserted bigint := 0;
    duplicates bigint := 0;
BEGIN
    WHILE done < (SELECT count(*) FROM offered) LOOP
        size := 1 + floor(random() * 60);
        result := postalytics.ingest((SELECT json_agg(body ORDER BY place) FROM offered WHERE place > done AND place <= done + size));
        inserted := inserted + result.inserted;
        duplicates := duplicates + result.duplicates;
        done := done + size;
    END LOOP;
    CREATE TEMP TABLE shuffled AS SELECT inserted, duplicates;
END
$$;
SELECT is(inserted, 5 * (SELECT count(*) FROM generated), 'shuffled: each event is inserted once') FROM shuffled;
SELECT is(inserted + duplicates, (SELECT count(*) FROM offered), 'shuffled: the rest are duplicates') FROM shuffled;

-- Copy 6 is stored by a plain INSERT and copy 7 through inbox, with one statement each.
INSERT INTO events (piece_id, status, occurred_at, account, campaign_id, payload)
SELECT journey || '.6', status, at, COALESCE(body -> 'meta' ->> 'accountId', ''), body -> 'meta' ->> 'campaignId', body
FROM generated
ORDER BY random();
INSERT INTO inbox (payload)
SELECT pg_temp.named(body, journey || '.7')
FROM generated
ORDER BY random();

-- Copies 8 to 10 are ingested in two calls each, while users' triggers or constraints
-- on events, pieces or deliveries prevent ingest from inserting rows directly.
CREATE FUNCTION pg_temp.count_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO statements VALUES (TG_TABLE_NAME || ' ' || TG_OP);
    RETURN NULL;
END
$$;
CREATE TEMP TABLE statements (statement text);
CREATE PROCEDURE pg_temp.ingest_halves(copy int) LANGUAGE sql AS $$
    SELECT ingest(json_agg(pg_temp.named(body, journey || '.' || copy) ORDER BY random())) FROM generated WHERE n % 2 = 0;
    SELECT ingest(json_agg(pg_temp.named(body, journey || '.' || copy) ORDER BY random())) FROM generated WHERE n % 2 = 1;
$$;
CREATE TRIGGER counted AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.count_statement();
CALL pg_temp.ingest_halves(8);
CREATE TRIGGER counted AFTER INSERT OR UPDATE ON pieces FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.count_statement();
CREATE TRIGGER counted AFTER INSERT ON deliveries_unfinished FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.count_statement();
CALL pg_temp.ingest_halves(9);
DROP TRIGGER counted ON events;
ALTER TABLE pieces ADD CHECK (opens >= 0);
CALL pg_temp.ingest_halves(10);
DROP TRIGGER counted ON pieces;
DROP TRIGGER counted ON deliveries_unfinished;
SELECT bag_eq('SELECT statement, count(*) FROM statements GROUP BY 1',
              $$VALUES ('events INSERT', 4::bigint), ('pieces INSERT', 4), ('pieces UPDATE', 4), ('deliveries_unfinished INSERT', 4)$$, 'users'' own triggers fire');

CREATE TEMP TABLE copies AS
SELECT split_part(piece_id, '.', 1)::int AS journey, split_part(piece_id, '.', 2)::int AS copy, to_jsonb(p) - 'piece_id' AS row
FROM pieces AS p;
SELECT is(count(*), 11 * 1500::bigint, 'every copy of every journey is a piece') FROM copies;
SELECT is_empty('SELECT c.journey, c.copy, c.row, o.row FROM copies AS c JOIN copies AS o USING (journey)
                 WHERE o.copy = 0 AND c.row <> o.row', 'all copies of a journey are equal');

CREATE TEMP TABLE told AS
SELECT split_part(piece_id, '.', 1)::int AS journey, split_part(piece_id, '.', 2)::int AS copy, sync, status, occurred_at, state
FROM deliveries;
SELECT bag_eq('SELECT sync, count(*) FROM told WHERE copy = 0 GROUP BY sync',
                  $$SELECT text 'every', count(*) FROM generated
                    UNION ALL
                    SELECT 'some', count(*) FROM generated
                    WHERE status IN ('Mailed', 'ReRouted', 'pURLOpened') AND body -> 'meta' ->> 'campaignId' = '1' AND body -> 'meta' ->> 'accountId' = '1'$$,
                  'there are deliveries of exactly the events that match');
SELECT is_empty('SELECT journey, sync, status, occurred_at, state FROM told GROUP BY 1, 2, 3, 4, 5 HAVING count(DISTINCT copy) <> 11 OR count(*) <> 11',
                'and those of all copies are equal');

-- The status of a piece equals that of the aggregate, and that of a simple
-- implementation of the rule.
CREATE FUNCTION pg_temp.plain_status(piece text) RETURNS mail_status LANGUAGE plpgsql AS $$
DECLARE
    rerouted timestamptz;
    candidate mail_status;
BEGIN
    IF EXISTS (SELECT FROM events WHERE piece_id = piece AND status = 'ReturnedToSender') THEN
        RETURN 'ReturnedToSender';
    END IF;
    SELECT max(occurred_at) INTO rerouted FROM events WHERE piece_id = piece AND status = 'ReRouted';
    FOREACH candidate IN ARRAY ARRAY['ProcessedForDelivery', 'InLocalArea', 'InTransit', 'Mailed',
                                     'Printed', 'Addressed', 'MailPieceCreated']::mail_status[] LOOP
        IF EXISTS (SELECT FROM events WHERE piece_id = piece AND status = candidate
                   AND (rerouted IS NULL OR occurred_at >= rerouted)) THEN
            RETURN candidate;
        END IF;
    END LOOP;
    RETURN CASE WHEN rerouted IS NOT NULL THEN 'ReRouted' END;
END
$$;
SELECT is_empty('SELECT p.piece_id, p.status, e.status
                 FROM pieces AS p
                 JOIN (SELECT piece_id, current_status(status, occurred_at) AS status FROM events GROUP BY 1) AS e USING (piece_id)
                 WHERE p.status IS DISTINCT FROM e.status', 'the status of pieces equals current_status');
SELECT is_empty('SELECT piece_id, status FROM pieces
                 WHERE piece_id LIKE ''%.0'' AND status IS DISTINCT FROM pg_temp.plain_status(piece_id)',
                'and the simple implementation of the rule');
SELECT cmp_ok(count(DISTINCT status), '>=', 9::bigint, 'every status occurs') FROM pieces;
SELECT is_empty('SELECT piece_id FROM pieces AS p
                 WHERE (opens, completions, first_event_at, last_event_at, mailed_at, first_opened_at) IS DISTINCT FROM
                       (SELECT (count(*) FILTER (WHERE status = ''pURLOpened'')::int, count(*) FILTER (WHERE status = ''pURLCompleted'')::int,
                                min(occurred_at), max(occurred_at),
                                min(occurred_at) FILTER (WHERE status = ''Mailed''),
                                min(occurred_at) FILTER (WHERE status = ''pURLOpened''))
                        FROM events AS e WHERE e.piece_id = p.piece_id)
                 AND piece_id LIKE ''%.0''', 'counts and times match the events');
SELECT is_empty('SELECT piece_id FROM pieces AS p
                 WHERE piece_id LIKE ''%.0''
                 AND (SELECT row (payload -> ''to'' ->> ''firstName'', payload -> ''to'' ->> ''company'')
                      FROM events AS e
                      WHERE e.piece_id = p.piece_id
                      AND COALESCE(payload -> ''to'' ->> ''firstName'', payload -> ''to'' ->> ''company'') IS NOT NULL
                      ORDER BY occurred_at DESC, status DESC LIMIT 1) IS DISTINCT FROM row (first_name, company)
                 AND (first_name, company) IS DISTINCT FROM (NULL, NULL)', 'the recipient is that of the latest event that names one');
SELECT is_empty('SELECT piece_id FROM pieces AS p
                 WHERE piece_id LIKE ''%.0''
                 AND last_url IS DISTINCT FROM
                     (SELECT payload -> ''meta'' ->> ''url'' FROM events AS e
                      WHERE e.piece_id = p.piece_id AND track(status) = ''response'' AND payload -> ''meta'' ->> ''url'' IS NOT NULL
                      ORDER BY occurred_at DESC, status DESC LIMIT 1)', 'the URL is that of the latest visit that has one');

-- When everything is ingested again, there are only duplicates, and nothing changes.
CREATE TEMP TABLE before AS SELECT * FROM pieces;
SELECT is((i.inserted, i.duplicates), (0::bigint, (SELECT count(*) FROM offered)), 'again: duplicates only')
FROM ingest((SELECT json_agg(body) FROM offered)) AS i;
SELECT set_eq('SELECT p::text FROM pieces AS p', 'SELECT b::text FROM before AS b', 'again: pieces are as before');

-- For some sets of four events, try all orders and all divisions into batches.
CREATE TEMP TABLE sets AS
SELECT journey, array_agg(body ORDER BY n) AS bodies
FROM (SELECT journey, n, body, row_number() OVER (PARTITION BY journey ORDER BY n) AS r FROM generated) AS g
WHERE r <= 4
GROUP BY journey
HAVING count(*) = 4
ORDER BY journey
LIMIT 12;
DO $$
DECLARE
    s record;
    p int[];
    cut int;
    batch json[];
    piece text;
BEGIN
    FOR s IN SELECT * FROM sets LOOP
        FOR p IN SELECT ARRAY[a, b, c, d] FROM generate_series(1, 4) AS a, generate_series(1, 4) AS b, generate_series(1, 4) AS c,
                 generate_series(1, 4) AS d WHERE a NOT IN (b, c, d) AND b NOT IN (c, d) AND c <> d LOOP
            FOR cut IN 0..7 LOOP
                piece := format('s%s.%s.%s', s.journey, array_to_string(p, ''), cut);
                batch := '{}';
                FOR i IN 1..4 LOOP
                    batch := batch || pg_temp.named(s.bodies[p[i]], piece)::json;
                    IF i = 4 OR cut & (1 << (i - 1)) <> 0 THEN
                        PERFORM postalytics.ingest(array_to_json(batch));
                        batch := '{}';
                    END IF;
                END LOOP;
            END LOOP;
        END LOOP;
    END LOOP;
END
$$;
SELECT is(count(*), 12 * 24 * 8::bigint, 'every order and division is a piece') FROM pieces WHERE piece_id LIKE 's%';
SELECT is(count(DISTINCT (split_part(piece_id, '.', 1), to_jsonb(p) - 'piece_id')), 12::bigint, 'and those of one set are equal')
FROM pieces AS p
WHERE piece_id LIKE 's%';

SELECT * FROM finish();
ROLLBACK;
