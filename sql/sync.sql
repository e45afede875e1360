-- Syncs: the settings that determine which events are notified, and on which channel.
\set SHOW_CONTEXT never
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;

SELECT * FROM create_sync('all');
SELECT * FROM create_sync('transit', statuses => '{InTransit,InLocalArea}', channel => 'Transit "quoted"');
SELECT * FROM create_sync('spring', campaigns => '{77120,77121}', accounts => '{a1}');
SELECT * FROM create_sync('asleep', enabled => false);
SELECT create_sync('all');
SELECT create_sync('');
SELECT create_sync(NULL);
SELECT create_sync(repeat('x', 64), channel => 'c');
SELECT create_sync(repeat('x', 53));
SELECT channel FROM create_sync(repeat('x', 53), channel => 'c');
SELECT create_sync('none', campaigns => '{}');
SELECT create_sync('null', accounts => '{NULL}');
SELECT create_sync('rate', rate => 0);
SELECT create_sync('rate', max_leased => -1);
SELECT create_sync('rate', breaker => 0);
SELECT create_sync('rate', rate => 1, per => '0');
SELECT create_sync('rate', rate => 1, per => '1 year');
SELECT create_sync('rate', rate => 1, per => NULL);
SELECT create_sync('rate', rate => 1, durable => false);
SELECT drop_sync(repeat('x', 53));
SELECT drop_sync('nobody');
SELECT enable_sync('nobody');
SELECT disable_sync('nobody');
SELECT drop_sync(NULL);
SELECT enable_sync(NULL);
SELECT disable_sync(NULL);
SELECT replay_sync(NULL, '2026-10-01');
SELECT test_sync(NULL);
SELECT grant_sync(current_user::name, NULL);

-- An account that only payloads name does not become the account of their events.  A sync
-- for that account would get nothing, so a NOTICE is raised.
SELECT inserted FROM ingest('{"mailId": 1, "eventDate": "2026-10-06", "eventType": 4, "meta": {"accountId": "a9"}}');
SELECT name FROM create_sync('vain', accounts => '{a8,a9}');
SELECT inserted FROM ingest('{"mailId": 1, "eventDate": "2026-10-06", "eventType": 4}', 'a8');
SELECT name FROM create_sync('not_vain', accounts => '{a8}');
SELECT drop_sync('vain'), drop_sync('not_vain');
TRUNCATE events, pieces, deliveries;

-- The checks on syncs do not prevent a role with UPDATE privilege from changing them.
CREATE ROLE regress_postalytics_admin;
GRANT SELECT, UPDATE ON syncs TO regress_postalytics_admin;
SET ROLE regress_postalytics_admin;
UPDATE syncs SET statuses = '{Mailed}' WHERE name = 'spring';
RESET ROLE;
SELECT grant_manage('regress_postalytics_admin');
SET ROLE regress_postalytics_admin;
UPDATE syncs SET statuses = '{Mailed}' WHERE name = 'spring';
RESET ROLE;
SELECT statuses FROM syncs WHERE name = 'spring';
DROP OWNED BY regress_postalytics_admin;
DROP ROLE regress_postalytics_admin;

-- test/t/notify.pl tests the notifications, because psql would print process IDs.
SELECT name, enabled FROM syncs ORDER BY 1;
SELECT disable_sync('all');
SELECT enable_sync('asleep');
SELECT name, enabled FROM syncs ORDER BY 1;
DROP EXTENSION postalytics_status;
