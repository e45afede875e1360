-- Events that cannot be understood are kept with a reason, and can be retried.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SET timezone = 'UTC';
SELECT postalytics.configure('earliest', '3653d');
SELECT postalytics.configure('latest', '36500d');
\set bad `perl -0777 -ne 'print "[", join(",", /"event": (.*) \}/g), "]"' "$PG_ABS_SRCDIR"/test/samples/bad.json`
\set good '{"mailId": 1, "eventDate": "2026-10-06T14:21:09Z", "eventType": 4}'

-- Each invalid event becomes one reject, and valid events in the same call are stored.
SELECT json_array_length(:'bad');
SELECT * FROM ingest(('[' || :'good' || ',' || substr(:'bad', 2))::json);
SELECT reason, payload FROM rejects ORDER BY reject_id;
SELECT piece_id FROM events;

-- A scalar value becomes a reject, too.
TRUNCATE rejects;
SELECT i.*
FROM unnest(ARRAY['"InTransit"', '17', 'true', 'null', '{}', '{"data": "x"}', '{"data": null}']) AS v, ingest(v::json) AS i;
SELECT reason, payload FROM rejects ORDER BY reject_id;

-- Sizes, escapes, nesting and numbers that the database cannot store.
TRUNCATE rejects;
CREATE FUNCTION with_field(field text, value text) RETURNS json LANGUAGE sql
RETURN format('{"mailId": 1, "eventDate": "2026-10-07T14:21:09Z", "eventType": 4, %s: %s}', to_json(field), value)::json;
SELECT * FROM ingest(with_field('mailId', '"' || repeat('9', 256) || '"'));
SELECT * FROM ingest(with_field('campaignId', '"' || repeat('é', 128) || '"'));
SELECT * FROM ingest(with_field('company', '"' || repeat('x', 1001) || '"'));
SELECT * FROM ingest(with_field('url', '"' || repeat('x', 8001) || '"'));
SELECT * FROM ingest(with_field('company', '"half a \ud83d pair"'));
SELECT * FROM ingest(with_field('company', '"a\u0000b"'));
SELECT * FROM ingest(with_field('fields', '{"a": "\u0000"}'));
SELECT * FROM ingest(with_field('fields', '{"a": 1e99999999999}'));
SELECT * FROM ingest(with_field('fields', repeat('[', 100) || repeat(']', 100)));
SELECT * FROM ingest(with_field('fields', '{"a": "' || repeat('x', 65536) || '"}'));
SELECT * FROM ingest(with_field('eventType', '"' || repeat('é', 100) || '"'));
SELECT * FROM ingest('{"mailId": true, "eventDate": "2026-10-06", "eventType": 4, "to": false, "country": true}');
SELECT * FROM ingest('{"mailId": 1, "eventDate": "2026-10-06", "eventType": [4]}');
SELECT * FROM ingest('{"mailId": 1, "eventDate": {"$date": "2026-10-06"}, "eventType": 4}');
SELECT reason FROM rejects ORDER BY reject_id;
-- They are rejected even if only the payload contains them, as no query could read it.
SELECT * FROM ingest(with_field('note', '"a\u0000b"'));
SELECT * FROM ingest(with_field('note', '{"deep": ["half a \ud83d pair"]}'));
SELECT * FROM ingest(with_field('note', '["\\u0000", "\u00e9 \ud83d\ude00"]'));
SELECT reason FROM rejects ORDER BY reject_id DESC LIMIT 2;
SELECT payload ->> 'note' AS note FROM events WHERE payload::text LIKE '%note%';

-- The members data, events and items contain events, unless they are part of an event.  If
-- neither is certain, the whole payload is rejected, so that nothing is lost.
TRUNCATE rejects, events, pieces;
SELECT i.*, v
FROM unnest(ARRAY['{"page": 1, "data": []}',
                  '{"event": "mail.status", "data": {"mailId": 1, "eventDate": "2026-10-06", "eventType": 4}}',
                  '{"mailId": 2, "eventDate": "2026-10-06", "eventType": 4, "items": [{"sku": 7}]}',
                  '{"items": [{"sku": 7}], "mailId": 3, "eventDate": "2026-10-06", "eventType": 4}',
                  '{"reference": "A7", "eventDate": "2026-10-06", "eventType": 4, "items": [{"sku": 7}, {"sku": 8}]}',
                  '{"items": [{"sku": 7}], "reference": "A7", "eventDate": "2026-10-06", "eventType": 4}',
                  '{"reference": "A8", "happened": "Mailed", "data": {"weight": 3}}',
                  '{"reference": "A9", "eventType": 4, "items": []}',
                  '{"page": 2, "data": [{"mailId": 4}, {"mailId": 5}]}']) AS v, ingest(v::json) AS i;
SELECT reason, payload FROM rejects ORDER BY reject_id;
SELECT piece_id FROM events ORDER BY 1;
INSERT INTO field_names VALUES ('reference', 'mail_id');
SELECT * FROM retry_rejects();
SELECT piece_id FROM events ORDER BY 1;
DELETE FROM field_names;

-- A feed with unknown spellings is rejected, and then accepted once they are mapped.
TRUNCATE rejects, events, pieces;
SELECT * FROM ingest('[{"piece": {"ref": "p1"}, "when": "2026-10-06T14:21:09Z", "happened": "In Transit", "person": {"given": "Ann"}},
                       {"piece": {"ref": "p2"}, "when": "2026-10-06T14:21:09Z", "happened": "Mailed"},
                       {"piece": {"ref": "p2"}, "when": "2026-10-06T14:21:09Z", "happened": "Mailed"},
                       {"piece": {"ref": "p3"}, "when": "2026-10-06T14:21:09Z", "happened": "Teleported"}]', 'agency-7');
SELECT * FROM retry_rejects();
INSERT INTO field_names VALUES ('Piece.Ref', 'mail_id');
SELECT * FROM retry_rejects();
SELECT DISTINCT reason FROM rejects;
INSERT INTO field_names VALUES ('happened', 'event_type'), ('when', 'event_date'), ('person_given', 'first_name');
SELECT * FROM retry_rejects();
SELECT piece_id, status, account FROM events ORDER BY 1;
SELECT piece_id, first_name FROM pieces ORDER BY 1;
SELECT account, reason FROM rejects;
-- Retrying the last reject again changes nothing: it has kept its id and got a new reason.
SELECT reject_id AS kept FROM rejects \gset
SELECT * FROM retry_rejects();
SELECT reject_id = :kept AS same FROM rejects;

-- A wrapper that is only partly understood leaves a reject for the rest.
TRUNCATE rejects, events, pieces;
INSERT INTO rejects (reason, payload)
VALUES ('by hand', '{"data": [{"mailId": 9, "eventDate": "2026-10-06", "eventType": 4}, {"mailId": 9}]}');
SELECT * FROM retry_rejects();
SELECT reason, payload FROM rejects;

-- A spelling can be removed within a session.
DELETE FROM field_names;
SELECT * FROM ingest('{"piece": {"ref": "p4"}, "when": "2026-10-06T14:21:09Z", "happened": "Mailed"}');
-- The same holds for one whose transaction is rolled back.
BEGIN;
INSERT INTO field_names VALUES ('ref', 'mail_id'), ('when', 'event_date'), ('happened', 'event_type');
SELECT * FROM ingest('{"ref": "p5", "when": "2026-10-06T14:21:09Z", "happened": "Mailed"}');
ROLLBACK;
SELECT * FROM ingest('{"ref": "p5", "when": "2026-10-06T14:21:09Z", "happened": "Mailed"}');
INSERT INTO field_names VALUES ('a path', 'no such field');
INSERT INTO field_names VALUES ('._- ', 'mail_id');
INSERT INTO field_names VALUES (repeat('x', 64), 'mail_id');
-- A row can replace the built-in meaning of a name.
INSERT INTO field_names VALUES ('status', 'event_type');
SELECT * FROM ingest('{"mailId": "p6", "eventDate": "2026-10-06", "status": "Printed"}');
SELECT piece_id, status FROM events WHERE piece_id = 'p6';

DROP FUNCTION with_field(text, text);
DROP EXTENSION postalytics_status CASCADE;
