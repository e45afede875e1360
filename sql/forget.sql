-- Erasing a person affects nobody else.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SET timezone = 'UTC';
CREATE VIEW found AS
SELECT p.account, p.piece_id, p.first_name, p.status FROM pieces AS p ORDER BY 1, 2;
SELECT create_sync('crm');
-- Ann is known by her contact id, by one address, and earlier by another.  Joanna's
-- address ends like Ann's, and Bob has Ann's contact id in another account.
SELECT ingest('[
	{"mailId": "a1", "eventType": 11, "eventDate": "2026-10-01", "campaignId": "c", "to": {"id": 48, "firstName": "Ann", "email": "ANN@example.com"}, "url": "https://ann.example/"},
	{"mailId": "a2", "eventType": 11, "eventDate": "2026-10-01", "campaignId": "c", "to": {"id": 7, "firstName": "Ann", "email": "ann\u0040example.com"}},
	{"mailId": "a2", "eventType": 4, "eventDate": "2026-10-02", "campaignId": "c", "to": {"id": 7, "firstName": "Ann", "email": "ann@new.example"}},
	{"mailId": "j1", "eventType": 11, "eventDate": "2026-10-01", "campaignId": "c", "to": {"id": 480, "firstName": "Joanna", "email": "joann@example.com"}},
	{"mailId": "n1", "eventType": 11, "eventDate": "2026-10-01", "campaignId": "c", "to": {"id": 4.8e1, "firstName": "Annie"}}]', 'one');
SELECT ingest('{"mailId": "a1", "eventType": 11, "eventDate": "2026-10-01", "to": {"id": 48, "firstName": "Bob", "email": "bob@example.com"}}', 'two');

-- Rejects mention her, too: alone, among other events, and in any member.
SELECT ingest('{"mailId": "a1", "eventType": 11, "eventDate": "x"}', 'one'),
	ingest('{"mailId": "j1", "eventType": 11, "eventDate": "x", "to": {"email": "joann@example.com"}}', 'one'),
	ingest('["Ann <Ann@Example.com>"]', 'one'),
	ingest('{"eventType": 11, "to": {"id": 48}}', 'one'), ingest('{"eventType": 11, "to": {"id": 48}}', 'two'),
	ingest('{"note": "ann@example.com"}', 'two');
SELECT configure('max_rejects', '1');
SELECT ingest('{"batch": 9, "data": [{"mailId": "j1", "eventType": 11}, {"mailId": "j2", "eventType": 4, "eventDate": "2026-10-03"}, {"mailId": "a9", "to": {"email": "ann@example.com"}}, 17]}', 'one');
SELECT account, piece_id, reason, payload FROM rejects ORDER BY reject_id;

SELECT forget();
SELECT forget(email => ' ', contact_id => '');
SELECT forget(contact_id => '48');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT forget(contact_id => '48', account => 'one');
ROLLBACK;

SELECT delivery_id > 0 AS leased, piece_id FROM postalytics.fetch('crm', batch => 1);
SELECT * FROM forget(email => ' Ann@example.com ');
SELECT * FROM forget(email => ' Ann@example.com ', account => 'one');
SELECT * FROM found;
SELECT piece_id, account FROM deliveries ORDER BY 2, 1;
SELECT account, piece_id, reason, payload FROM rejects ORDER BY reject_id;
-- A second call finds nothing.
SELECT * FROM forget(email => 'ann@example.com', account => 'one');
-- The rewritten reject can be retried.  The event that was already stored is a duplicate.
INSERT INTO field_names VALUES ('batch date', 'event_date');
SELECT retry_rejects();
DELETE FROM field_names WHERE path = 'batch date';

-- Whitespace around an address is ignored.
SELECT ingest('{"mailId": "t", "eventType": 11, "eventDate": "2026-10-01", "to": {"email": "\t tim@example.com\n"}}', 'three'), ingest('{"note": "tim@example.com"}', 'three');
SELECT relation, affected FROM forget(email => E'tim@example.com\t') WHERE affected > 0;
-- An address field can contain more than the address.
SELECT ingest('{"mailId": "w", "eventType": 11, "eventDate": "2026-10-01", "to": {"email": "Will <will@example.com>; x@example.com"}}', 'three');
SELECT nack('crm', array_agg(delivery_id), 'seen with Will@example.com') FROM postalytics.fetch('crm') WHERE piece_id = 'j1';
SELECT nack('crm', '{}', 'HTTP 429 for WILL@example.com', pause => '1 us');
SELECT relation, affected FROM forget(email => 'will@example.com', account => 'three') WHERE affected > 0;
SELECT * FROM forget(email => 'will@example.com', account => 'one') WHERE affected > 0;
-- A person who occurs only in rejects.
SELECT ingest('{"note": "zoe@example.com"}', 'three');
SELECT relation, affected FROM forget(email => 'zoe@example.com') WHERE affected > 0;
-- Erase by contact id, in any spelling of the number, in one account.
SELECT relation, affected FROM forget(contact_id => '48', account => 'one') WHERE affected > 0;
SELECT * FROM found;
SELECT account, payload FROM rejects WHERE payload::text LIKE '%48%' ORDER BY 1;

-- Erase by piece, and anonymise only the recipient.
SELECT relation, action, affected FROM forget(piece_id => 'j1', anonymise => true);
SELECT account, piece_id, status, campaign_id, contact_id, first_name, email FROM pieces ORDER BY 1, 2;
SELECT piece_id, campaign_id, status, payload FROM events WHERE account = 'one' ORDER BY 1;
-- An event that arrives again does not restore the recipient, but a new event does.
SELECT ingest('{"mailId": "j1", "eventType": 11, "eventDate": "2026-10-01", "to": {"firstName": "Joanna"}}', 'one');
SELECT first_name FROM pieces WHERE piece_id = 'j1';

-- Detached months are searched, and reported by name.
SELECT ingest('[{"mailId": "d", "eventType": 11, "eventDate": "2026-08-01", "to": {"id": 99, "firstName": "Dora", "email": "dora@example.com"}},
	{"mailId": "d", "eventType": 4, "eventDate": "2026-10-01"},
	{"mailId": "e", "eventType": 11, "eventDate": "2026-08-01", "to": {"id": 98, "firstName": "Eve"}},
	{"mailId": "f", "eventType": 11, "eventDate": "2026-08-02", "to": {"id": 99, "firstName": "Dora"}}]');
ALTER TABLE events DETACH PARTITION events_2026_08;
ALTER TABLE events_2026_08 RENAME TO august;
UPDATE pieces SET contact_id = NULL, email = NULL WHERE account = '';
SELECT * FROM forget(contact_id => '99');
SELECT piece_id, payload #>> '{to,firstName}' AS first_name FROM august;
SELECT * FROM found WHERE account = '';
SELECT * FROM forget(contact_id => '98', anonymise => true);
SELECT piece_id, payload FROM august;

-- A piece whose id contains the contact id gets another id.
TRUNCATE events, pieces, campaigns, rejects, deliveries, august;
SELECT configure('identity', 'contact');
SELECT ingest('[{"mailId": "m", "eventType": 11, "eventDate": "2026-10-01", "campaignId": "c", "to": {"id": 48, "firstName": "Ann"}},
	{"mailId": "m", "eventType": 4, "eventDate": "2026-10-02", "campaignId": "c", "to": {"id": 48, "firstName": "Ann"}},
	{"mailId": "x", "eventType": 4, "eventDate": "2026-10-02"}]');
SELECT * FROM found;
SELECT relation, action, affected FROM forget(contact_id => '48', anonymise => true);
SELECT p.piece_id ~ '^anonymous/[-0-9a-f]{36}$' AS renamed, p.status, count(*) AS events
FROM pieces AS p JOIN events AS e USING (piece_id, account) GROUP BY p.piece_id, p.status ORDER BY 1;
SELECT pieces, mailed, in_transit FROM campaign_funnel;
SELECT action, object, account, detail FROM audit_log WHERE action = 'forget' ORDER BY at;

-- Texts that contain the address, and texts that only look like it.
SELECT t, mentions(to_json(t), '{ann@example.com,NULL,"",none}') FROM unnest(ARRAY['ann@example.com', 'ANN@EXAMPLE.COM', 'joann@example.com', 'ann@example.com.au', 'ann@example.com-x',
	'<ann@example.com>', 'mailto:ann@example.com?x', 'a,ann@example.com;b', 'éann@example.com', 'ann@example', '@', '', 'Mail ann@example.com.', 'ann@example.com_old', 'none',
	'https://x.example/?e=ann%40example.com&a', 'https://x.example/%3Fe%3dann%40example.com', 'joann%40example.com', 'ann%4', E'x\nann@example.com\ty', '"ann@example.com"']) AS t;
SELECT j, mentions(j::json, '{ann@example.com}') FROM unnest(ARRAY['{"a": [{"b": "x"}, 1, {"\u0061nn@example.com": null}]}', '["ann@example.com\u0000"]', '["\ud800 ann@example.com"]', '"\u00e9ann@example.com"',
	'[1, true, null, {}]']) AS j;
SELECT mentions(NULL, '{x@y}'), mentions('"x@y"', NULL);
SELECT is_about('{"contactId": 4.8e1}', 'a', 'a', NULL, '{48}', NULL), is_about('{"mailId": "x"}', 'a', NULL, '{x}', NULL, NULL), is_about('{"x": {"id": 48}, "note": "x"}', 'a', 'a', '{x}', '{48}', NULL),
	is_about('{"mailId": "x"}', 'a', 'b', '{x}', NULL, NULL), is_about(NULL, NULL, NULL, NULL, NULL, NULL);

-- In a feed of many clients, the payload of a reject determines its account.
TRUNCATE rejects;
INSERT INTO field_names VALUES ('client', 'account');
SELECT ingest('[{"client": "a", "mailId": 1, "to": {"email": "una@example.com"}}, {"client": "b", "mailId": 1, "to": {"email": "una@example.com"}}, {"to": {"email": "una@example.com"}}]');
SELECT forget(email => 'una@example.com');
SELECT relation, affected FROM forget(email => 'una@example.com', account => 'a') WHERE affected > 0;
SELECT account, reason, payload FROM rejects;
SELECT relation, affected FROM forget(email => 'una@example.com', account => 'b') WHERE affected > 0;
SELECT relation, affected FROM forget(email => 'una@example.com') WHERE affected > 0;
SELECT count(*) FROM rejects;
DELETE FROM field_names WHERE path = 'client';

-- An address in an unmapped member, or in another person's piece, is only counted.
TRUNCATE events, pieces, campaigns, rejects, deliveries;
SELECT ingest('[{"mailId": "u1", "eventType": 11, "eventDate": "2026-10-01", "customer": {"mail": "una@example.com"}},
	{"mailId": "u2", "eventType": 11, "eventDate": "2026-10-01", "fields": {"friend": "Una@example.com"}}]');
SELECT * FROM forget(email => 'una@example.com') WHERE affected > 0;
INSERT INTO field_names VALUES ('customer.mail', 'email');
SELECT * FROM forget(email => 'una@example.com') WHERE affected > 0;
DELETE FROM field_names WHERE path = 'customer.mail';

-- Payloads that deliveries keep from a retired month are erased.
TRUNCATE events, pieces, campaigns, deliveries;
SELECT ingest('{"mailId": "v1", "eventType": 11, "eventDate": "2019-06-01", "to": {"email": "old@example.com"}}'),
	ingest('{"mailId": "v1", "eventType": 4, "eventDate": "2026-10-02", "to": {"email": "new@example.com"}}');
SELECT configure('retention', '6 years');
SELECT action, relation FROM maintain() WHERE relation LIKE '%events_2019_06';
SELECT relation, affected FROM forget(email => 'old@example.com') WHERE affected > 0;
SELECT count(*) FROM pieces;
SELECT configure('retention', NULL);
-- A reject of more than 100,000 events is erased as a whole.
TRUNCATE rejects;
SELECT ingest(('[' || repeat('0,', 100000) || '{"mailId": "z"}, "zoe@example.com"]')::json), ingest(('[' || repeat('0,', 99998) || '{"mailId": "z"}, "zoe@example.com"]')::json);
SELECT relation, affected FROM forget(email => 'zoe@example.com') WHERE affected > 0;
SELECT reason, json_array_length(payload) FROM rejects;
SELECT ingest(('[' || repeat('0,', 100000) || '{"mailId": "z"}]')::json), ingest(('[' || repeat('0,', 100000) || '{"mailId": "0", "note": "z"}]')::json);
SELECT relation, affected FROM forget(piece_id => 'z') WHERE affected > 0;
SELECT reason, json_array_length(payload) FROM rejects;
-- Text that is not an e-mail address is not searched for in rejects.
SELECT ingest('{"mailId": "none", "eventType": 11, "eventDate": "2026-10-01", "to": {"id": 1, "email": "none"}}'), ingest('{"note": "none"}');
SELECT relation, affected FROM forget(email => 'NONE') WHERE affected > 0;
DROP TABLE august;
DROP EXTENSION postalytics_status CASCADE;
