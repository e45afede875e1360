-- What cannot be understood is kept with its reason, and can be tried again.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SET timezone = 'UTC';
SELECT postalytics.configure('earliest', '3653d');
SELECT postalytics.configure('latest', '36500d');
\set bad `perl -0777 -ne 'print "[", join(",", /"event": (.*) \}/g), "]"' "$PG_ABS_SRCDIR"/test/samples/bad.json`
\set good '{"mailId": 1, "eventDate": "2026-10-06T14:21:09Z", "eventType": 4}'

-- One reject each, and good neighbours are stored.
SELECT json_array_length(:'bad');
SELECT * FROM ingest(('[' || :'good' || ',' || substr(:'bad', 2))::json);
SELECT reason, payload FROM rejects ORDER BY reject_id;
SELECT piece_id FROM events;

-- A single value is a reject as well.
TRUNCATE rejects;
SELECT i.*
FROM unnest(ARRAY['"InTransit"', '17', 'true', 'null', '{}', '{"data": "x"}', '{"data": null}']) AS v, ingest(v::json) AS i;
SELECT reason, payload FROM rejects ORDER BY reject_id;

-- Sizes, escapes, nesting and numbers that the database cannot hold.
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
-- Nor may it be where only the payload holds it: no query could read that.
SELECT * FROM ingest(with_field('note', '"a\u0000b"'));
SELECT * FROM ingest(with_field('note', '{"deep": ["half a \ud83d pair"]}'));
SELECT * FROM ingest(with_field('note', '["\\u0000", "\u00e9 \ud83d\ude00"]'));
SELECT reason FROM rejects ORDER BY reject_id DESC LIMIT 2;
SELECT payload ->> 'note' AS note FROM events WHERE payload::text LIKE '%note%';

-- Under data, events and items are events, but for an event's own part of such a
-- name; of what is neither for sure nothing is lost.
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

-- A feed with spellings unheard of: rejected whole; taught; taken in whole.
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
-- Nothing more to do for the last of them, which keeps its place and got a new reason.
SELECT reject_id AS kept FROM rejects \gset
SELECT * FROM retry_rejects();
SELECT reject_id = :kept AS same FROM rejects;

-- A wrapper that is understood only in part leaves what is still wrong.
TRUNCATE rejects, events, pieces;
INSERT INTO rejects (reason, payload)
VALUES ('by hand', '{"data": [{"mailId": 9, "eventDate": "2026-10-06", "eventType": 4}, {"mailId": 9}]}');
SELECT * FROM retry_rejects();
SELECT reason, payload FROM rejects;

-- A spelling can be taken back, in the middle of a session.
DELETE FROM field_names;
SELECT * FROM ingest('{"piece": {"ref": "p4"}, "when": "2026-10-06T14:21:09Z", "happened": "Mailed"}');
-- So can one that was never committed.
BEGIN;
INSERT INTO field_names VALUES ('ref', 'mail_id'), ('when', 'event_date'), ('happened', 'event_type');
SELECT * FROM ingest('{"ref": "p5", "when": "2026-10-06T14:21:09Z", "happened": "Mailed"}');
ROLLBACK;
SELECT * FROM ingest('{"ref": "p5", "when": "2026-10-06T14:21:09Z", "happened": "Mailed"}');
INSERT INTO field_names VALUES ('a path', 'no such field');
INSERT INTO field_names VALUES ('._- ', 'mail_id');
INSERT INTO field_names VALUES (repeat('x', 64), 'mail_id');
-- The built-in meaning of a name can be replaced.
INSERT INTO field_names VALUES ('status', 'event_type');
SELECT * FROM ingest('{"mailId": "p6", "eventDate": "2026-10-06", "status": "Printed"}');
SELECT piece_id, status FROM events WHERE piece_id = 'p6';

DROP FUNCTION with_field(text, text);
DROP EXTENSION postalytics_status CASCADE;
