-- inbox is for tools that can only insert into tables.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SET timezone = 'UTC';
SELECT postalytics.configure('earliest', '36500d');
SELECT postalytics.configure('latest', '36500d');

INSERT INTO inbox (mail_id, event_date, event_type, first_name, account)
VALUES ('1', '10/08/2026 11:03:27 AM', 'Processed For Delivery', 'Dol"ores', 'agency-7');
INSERT INTO inbox (campaign_id, contact_id, event_date, event_type, url)
VALUES ('77120', '9921734', '2026-10-08', '7', 'https://spring.example/');
INSERT INTO inbox (payload, account)
VALUES ('[{"mailId": 2, "eventDate": "2026-10-06", "eventType": 4}, {"mailId": 3}]', 'agency-8');
-- If other columns are set, the payload is kept as a field, but not read.
INSERT INTO inbox (mail_id, event_date, event_type, payload)
VALUES ('4', '2026-10-08', 'Mailed', '{"mailId": 5}');
INSERT INTO inbox DEFAULT VALUES;
INSERT INTO inbox (mail_id) SELECT 'none' WHERE false;
SELECT piece_id, status, account FROM events ORDER BY piece_id, status;
SELECT piece_id, first_name, last_url FROM pieces ORDER BY piece_id;
SELECT account, reason, payload FROM rejects ORDER BY reject_id;
SELECT * FROM inbox;

-- COPY, whose rows are processed together.
COPY inbox (mail_id, event_date, event_type) FROM stdin;
7	2026-10-06T10:00:00	11
7	2026-10-06T10:00:00	Mailed
6	2026-10-06T11:00:00	In Transit
6	tomorrow	In Transit
\.
SELECT piece_id, status FROM events WHERE piece_id IN ('6', '7') ORDER BY piece_id;
SELECT reason, payload FROM rejects ORDER BY reject_id DESC LIMIT 1;

-- Nested statements and failed statements do not affect other statements.
CREATE FUNCTION nested(id text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO postalytics.inbox (mail_id, event_date, event_type) VALUES (id || ' inner', '2026-10-06', '4');
    BEGIN
        INSERT INTO postalytics.inbox (mail_id, event_date, event_type)
        VALUES ('never', '2026-10-06', '4'), ((1 / (length(id) - 1))::text, '2026-10-06', '4');
    EXCEPTION WHEN division_by_zero THEN
        NULL;
    END;
    RETURN id;
END
$$;
INSERT INTO inbox (mail_id, event_date, event_type)
SELECT nested(id), '2026-10-06', '4' FROM unnest(ARRAY['x', 'y']) AS id;
SELECT piece_id FROM events WHERE piece_id ~ '[a-z]' ORDER BY 1;
WITH a AS (INSERT INTO inbox (mail_id, event_date, event_type) VALUES ('cte 1', '2026-10-06', '4') RETURNING mail_id),
     b AS (INSERT INTO inbox (mail_id, event_date, event_type) VALUES ('cte 2', '2026-10-06', '4') RETURNING mail_id)
SELECT * FROM a, b;
SELECT count(*) FROM events WHERE piece_id LIKE 'cte%';
INSERT INTO inbox (mail_id, event_date, event_type, account) VALUES ('1', '2026-10-06', '4', repeat('x', 256));
INSERT INTO inbox (payload, account) VALUES ('{"mailId": 1}', repeat('x', 256));
SELECT length(account), reason, length(payload::text) FROM rejects ORDER BY reject_id DESC LIMIT 2;
UPDATE inbox SET mail_id = '1';

-- More rows than are kept in memory, inserted by a role with no other privileges.
CREATE ROLE regress_postalytics_zapier;
GRANT INSERT ON inbox TO regress_postalytics_zapier;
SET ROLE regress_postalytics_zapier;
INSERT INTO inbox (mail_id) VALUES ('1');
RESET ROLE;
SELECT grant_ingest('regress_postalytics_zapier');
SET ROLE regress_postalytics_zapier;
SELECT ingest('[]');
SELECT count(*) FROM events;
INSERT INTO inbox (mail_id, event_date, event_type, company)
SELECT i % 40000, to_char(timestamp '2026-10-01' + i * interval '1 second', 'YYYY-MM-DD HH24:MI:SS'), 'pURL Opened', repeat('x', 900)
FROM generate_series(1, 80000) AS i;
RESET ROLE;
SELECT count(*) AS pieces, sum(opens) AS opens, min(opens), max(opens) FROM pieces WHERE company IS NOT NULL;

-- The trigger functions work only on table inbox.
CREATE TABLE other (payload json);
CREATE TRIGGER t BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION inbox_row();
INSERT INTO other VALUES (NULL);
DROP TABLE other;

DROP FUNCTION nested(text);
DROP EXTENSION postalytics_status CASCADE;
DROP ROLE regress_postalytics_zapier;
