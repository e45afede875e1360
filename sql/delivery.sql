-- Deliveries: how workers fetch them, and which states they go through.
\set SHOW_CONTEXT never
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SELECT postalytics.configure('latest', '36500d');
SET timezone = 'UTC';

-- Ingest events of a piece, given as words "code@day" with days of October 2026.
CREATE FUNCTION events_of(piece text, events text) RETURNS ingest_result
LANGUAGE sql
AS $$
    SELECT ingest(json_agg(json_build_object(
               'mailId', piece, 'eventType', split_part(e, '@', 1),
               'eventDate', '2026-10-' || split_part(e, '@', 2) || 'T00:00:00Z',
               'meta', json_build_object('campaignId', '77120', 'campaignName', 'Spring recall'),
               'to', json_build_object('firstName', 'Dolores'), 'fields', json_build_object('crm', 17))))
    FROM string_to_table(events, ' ') AS e
$$;
-- Fetch deliveries and return them on one line.
CREATE FUNCTION fetched(sync text, batch int DEFAULT 100, lease interval DEFAULT '1 minute') RETURNS text
LANGUAGE sql
AS $$
    SELECT string_agg(format('%s:%s/%s', piece_id, status, attempt), ' ' ORDER BY due_at, occurred_at, piece_id COLLATE "C", status)
    FROM postalytics.fetch(sync, batch, lease)
$$;
-- Acknowledge all leased deliveries of a sync.
CREATE FUNCTION ack_all(sync text) RETURNS bigint
LANGUAGE sql
AS $$
    SELECT ack(ack_all.sync, array_agg(delivery_id)) FROM deliveries AS d WHERE d.sync = ack_all.sync AND state = 'leased'
$$;

-- The row contains everything that a call to a CRM needs.
SELECT name, wait, unless, latest_only, ordered, durable, max_attempts FROM create_sync('crm');
SELECT events_of('p1', '11@05 4@06 5@07');
SELECT events_of('p2', '4@06');
\x
SELECT delivery_id, attempt, is_test, status, label, occurred_at, due_at BETWEEN now() - interval '1 min' AND now() AS is_due, piece_id, account, campaign_id,
       campaign_name, contact_id, first_name, last_name, company, email, country, fields, payload
FROM postalytics.fetch('crm', batch => 1);
\x

-- The deliveries of a piece are leased in order, one at a time, and none twice.
SELECT fetched('crm');
SELECT fetched('crm');
SELECT next_due('crm') > now() AS a_lease_ends;
SELECT ack('crm', ARRAY[1, 1, NULL, 99]), ack('crm', ARRAY[1]), ack('crm', NULL), ack('crm', '{}');
SELECT next_due('crm') < now() AS ready;
SELECT fetched('crm');
SELECT ack_all('crm');
SELECT fetched('crm');
SELECT ack_all('crm');
SELECT fetched('crm'), next_due('crm');
SELECT delivery_id, piece_id, status, state, attempt, finished_at IS NOT NULL AS finished FROM deliveries ORDER BY 1;

-- A failed delivery is retried with growing delays, then dead.  Later ones of its piece wait.
SELECT name FROM create_sync('fails', max_attempts => 3);
SELECT events_of('p3', '11@05 4@06');
SELECT fetched('fails');
SELECT nack('fails', '{5}', 'HTTP 503', retry_in => '1 hour'), nack('fails', '{5}', 'again'), ack('fails', '{5}');
SELECT fetched('fails');
SELECT delivery_id, state, attempt, date_trunc('hour', due_at - now() + '5 min') AS due_in FROM deliveries WHERE sync = 'fails' ORDER BY 1;
UPDATE deliveries SET due_at = now() - interval '1 s' WHERE sync = 'fails';
SELECT fetched('fails');
SELECT nack('fails', '{5}', 'HTTP 503');
SELECT due_at - now() BETWEEN '7 s' AND '13 s' AS second_wait FROM deliveries WHERE delivery_id = 5;
UPDATE deliveries SET due_at = now() - interval '1 s' WHERE sync = 'fails';
SELECT fetched('fails');
SELECT nack('fails', '{5}', 'HTTP 500');
SELECT fetched('fails');
SELECT nack('fails', '{7}', repeat('HTTP 404 ', 1000), dead => true);
SELECT name, waiting, due, oldest_due_at < now() AS has_oldest, leased, dead, done_last_hour, left(last_error, 10) AS last_error FROM sync_health ORDER BY 1;
SELECT sync, delivery_id, state, attempt, left(error, 12) AS error, length(error) FROM delivery_errors ORDER BY delivery_id, attempt;
SELECT next_due('fails');
SELECT replay_sync('fails', '2026-10-06', '2026-10-07');
SELECT fetched('fails');
SELECT replay_sync('fails', '2026-10-01');

-- An expired lease is recorded, and the next fetch leases the delivery again.  After the
-- last attempt the delivery is dead.
SELECT name FROM create_sync('expires', max_attempts => 2);
SELECT events_of('p4', '11@05');
SELECT fetched('expires', lease => '0');
SELECT ack('expires', ARRAY[(SELECT max(delivery_id) FROM deliveries)], '{2}');
SELECT fetched('expires', lease => '0');
SELECT fetched('expires');
SELECT state, attempt, errors[1].error, errors[2].attempt FROM deliveries WHERE sync = 'expires';

-- latest_only: a delivery is superseded by a later one of its piece.
SELECT name FROM create_sync('latest', latest_only => true, wait => '1 day');
SELECT events_of('p5', '11@05 4@06 5@07');
SELECT fetched('latest'), ack_all('latest');
SELECT events_of('p5', '10@04');
SELECT fetched('latest');
SELECT status, state FROM deliveries WHERE sync = 'latest' ORDER BY occurred_at;

-- A failed delivery that waits for its retry is superseded too: a later one does not wait
-- for it, but waits for one that is leased.
SELECT name FROM create_sync('overtakes', latest_only => true);
SELECT events_of('p15', '11@02');
SELECT fetched('overtakes');
SELECT events_of('p15', '4@03');
SELECT fetched('overtakes');
SELECT nack('overtakes', array_agg(delivery_id), 'busy', retry_in => '1 hour') FROM deliveries WHERE sync = 'overtakes' AND state = 'leased';
SELECT next_due('overtakes') < now() AS ready;
SELECT fetched('overtakes');
UPDATE deliveries SET due_at = now() WHERE sync = 'overtakes' AND state = 'waiting';
SELECT fetched('overtakes'), ack_all('overtakes');
SELECT status, state FROM deliveries WHERE sync = 'overtakes' ORDER BY occurred_at;
SELECT drop_sync('overtakes');

-- Of two events with the same time, the one further in the lifecycle is the later.  A lease
-- survives a change to ordered, even if an earlier delivery of its piece is postponed.
SELECT name FROM create_sync('same_time', latest_only => true);
SELECT events_of('p16', '11@02 4@02');
SELECT fetched('same_time'), ack_all('same_time');
SELECT status, state FROM deliveries WHERE sync = 'same_time' ORDER BY status;
UPDATE syncs SET latest_only = false, ordered = false WHERE name = 'same_time';
SELECT events_of('p17', '11@03 4@04');
SELECT fetched('same_time');
SELECT nack('same_time', array_agg(delivery_id), 'busy', retry_in => '1 hour') FROM deliveries WHERE sync = 'same_time' AND state = 'leased' AND status = 'Mailed';
UPDATE syncs SET ordered = true WHERE name = 'same_time';
SELECT fetched('same_time'), (SELECT due_at < now() FROM deliveries WHERE sync = 'same_time' AND state = 'leased') AS still_due;
SELECT drop_sync('same_time');

-- Deliveries have the payload even if the month of the event is itself partitioned, or
-- has no primary key.
CREATE TABLE events_2025_01 (LIKE postalytics.events) PARTITION BY HASH (piece_id);
CREATE TABLE events_2025_01_0 PARTITION OF events_2025_01 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
ALTER TABLE events_2025_01 ADD PRIMARY KEY (piece_id, status, occurred_at);
ALTER TABLE postalytics.events ATTACH PARTITION events_2025_01 FOR VALUES FROM ('2025-01-01') TO ('2025-02-01');
CREATE TABLE events_2025_02 (LIKE postalytics.events);
ALTER TABLE postalytics.events ATTACH PARTITION events_2025_02 FOR VALUES FROM ('2025-02-01') TO ('2025-03-01');
SELECT name FROM create_sync('odd');
SELECT * FROM ingest('[{"mailId": "odd1", "eventType": 4, "eventDate": "2025-01-06"}, {"mailId": "odd2", "eventType": 4, "eventDate": "2025-02-06"},
    {"mailId": "odd3", "eventType": 4, "eventDate": "2025-02-07"}]');
SELECT piece_id, payload ->> 'mailId' AS mail_id FROM postalytics.fetch('odd') ORDER BY 1;
SELECT drop_sync('odd');
DROP TABLE events_2025_01, events_2025_02;
DELETE FROM pieces WHERE piece_id LIKE 'odd%';

-- unless: a delivery is due two days after the piece arrives, unless the goal URL was reached.
SELECT name FROM create_sync('follow_up', statuses => '{ProcessedForDelivery}', wait => '2 days', unless => '{pURLCompleted,ReturnedToSender}');
SELECT events_of('p6', '6@06'), events_of('p7', '6@06'), events_of('p8', '6@06');
SELECT events_of('p7', '7@07 8@07'), events_of('p8', '3@09');
SELECT fetched('follow_up');
SELECT piece_id, state FROM deliveries WHERE sync = 'follow_up' ORDER BY 1;

-- Without ordered, all deliveries of a piece are leased at once.
SELECT name FROM create_sync('any', ordered => false, statuses => '{Mailed,InTransit,pURLOpened}');
SELECT events_of('p9', '11@05 4@06');
SELECT fetched('any');

-- A disabled sync gets and leases no deliveries.  Once enabled, it continues with earlier ones.
SELECT events_of('p9', '7@07');
SELECT disable_sync('any');
SELECT events_of('p9', '7@08');
SELECT fetched('any'), next_due('any');
SELECT test_sync('any');
SELECT enable_sync('any');
SELECT fetched('any'), next_due('any') > now();

-- since creates deliveries from stored events.  A replay skips those that are unfinished.
SELECT name FROM create_sync('since', statuses => '{Mailed}', since => '2026-10-05', wait => '1 hour');
SELECT fetched('since'), ack_all('since');
SELECT replay_sync('since', '2026-10-05', '2026-10-06'), replay_sync('since', '2026-10-05', '2026-10-06');
SELECT fetched('since', 2);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT create_sync('repeatable', since => '2026-10-05');
ROLLBACK;

-- A test is delivered like an event, using a stored event or else a made-up one.
SELECT name FROM create_sync('tested', statuses => '{ProcessedForDelivery}', campaigns => '{77120}', wait => '1 day');
SELECT name FROM create_sync('none', statuses => '{ReRouted}');
SELECT test_sync('tested') IS NOT NULL AS tested, test_sync('none') IS NOT NULL AS none;
SELECT is_test, status, campaign_name, first_name FROM postalytics.fetch('tested');
SELECT is_test, status, piece_id, payload -> 'to' ->> 'firstName' AS first_name FROM postalytics.fetch('none');
SELECT ack_all('tested');
-- A test delivery can become dead like any other.
SELECT name FROM create_sync('dies', max_attempts => 1, statuses => '{ReRouted}');
SELECT test_sync('dies') IS NOT NULL AS tested;
SELECT fetched('dies', lease => '0') IS NOT NULL AS once, fetched('dies') AS twice;
SELECT name, due, dead, last_error FROM sync_health WHERE name = 'dies';

-- Deliveries that wait for an event of a dropped month are kept.
SELECT name FROM create_sync('late', statuses => '{Printed}');
SELECT ingest('{"mailId": "old", "eventType": 10, "eventDate": "2020-01-15", "note": "still here"}');
SELECT postalytics.configure('retention', '1000d');
SELECT action, relation, detail FROM maintain() WHERE action <> 'create';
SELECT action, relation FROM maintain();
SELECT piece_id, status, payload ->> 'note' AS note FROM postalytics.fetch('late');
-- A detached month remains as a table, and late events for it are rejected.
SELECT ingest('{"mailId": "old", "eventType": 11, "eventDate": "2020-02-15"}');
SELECT postalytics.configure('retention_action', 'detach');
SELECT action, relation, detail FROM maintain();
SELECT action, relation, detail FROM maintain();
SELECT piece_id, status FROM events_2020_02;
SELECT ingest('[{"mailId": "old", "eventType": 4, "eventDate": "2020-02-16"}, {"mailId": "old", "eventType": 11, "eventDate": "2026-10-16"}]');
SELECT reason FROM rejects;
SELECT postalytics.configure('retention_action', NULL);
SELECT postalytics.configure('retention', NULL);

-- History is dropped by day.  Without history, finished deliveries are deleted.
SELECT postalytics.configure('history', '0');
SELECT ack_all('late');
SELECT count(*) FROM deliveries WHERE sync = 'late';
CREATE TABLE deliveries_2020_01_01 PARTITION OF deliveries FOR VALUES IN ('2020-01-01');
SELECT postalytics.configure('history', '30d');
SELECT action, relation FROM maintain();
SELECT postalytics.configure('history', NULL);

-- A campaign's history can be dropped, including its waiting deliveries.
SELECT name FROM create_sync('dropped');
SELECT events_of('p10', '11@05');
SELECT drop_campaign('77120') > 10 AS dropped;
SELECT drop_campaign('77120');
SELECT fetched('dropped'), (SELECT count(*) FROM pieces), (SELECT count(*) FROM deliveries WHERE piece_id LIKE 'p%');
-- A delivery is still leased if its event and piece were deleted, with the remaining values.
SELECT events_of('p11', '11@05');
DELETE FROM events;
DELETE FROM pieces;
SELECT piece_id, status, occurred_at, campaign_id, first_name, payload FROM postalytics.fetch('dropped');

-- Dropping a sync deletes its deliveries, leased or not.
SELECT drop_sync('dropped');
SELECT ack('dropped', '{1}');
SELECT count(*) FROM deliveries WHERE sync = 'dropped';

-- A fetch that waits returns what becomes due in the meantime.
SELECT name FROM create_sync('waits');
SELECT events_of('p12', '11@05');
UPDATE deliveries SET due_at = clock_timestamp() + interval '200 ms' WHERE sync = 'waits';
SELECT piece_id FROM postalytics.fetch('waits', max_wait => '1 hour');
SELECT piece_id FROM postalytics.fetch('waits', max_wait => '60 ms');
-- It does not wait while it holds locks on rows that it has only cancelled.
SELECT name FROM create_sync('cancels', statuses => '{Mailed}', unless => '{ReturnedToSender}');
SELECT events_of('p15', '3@06'), events_of('p15', '11@05');
SELECT piece_id FROM postalytics.fetch('cancels', max_wait => '1 hour');
SELECT state FROM deliveries WHERE sync = 'cancels';

-- A session that works through a backlog continues where it stopped, yet misses no
-- delivery that was added before that position.
SELECT name FROM create_sync('backlog', ordered => false);
SELECT events_of('p13', '11@05 4@06 5@07 6@08');
SELECT fetched('backlog', 2);
SELECT events_of('p14', '11@01');
SELECT fetched('backlog', 1), fetched('backlog', 2), fetched('backlog');

-- fetch can acknowledge the deliveries that the worker has finished.  Then it does not wait,
-- because the acknowledgments are not committed yet.
SELECT name FROM create_sync('loops');
SELECT events_of('p20', '11@05 4@06');
CREATE TEMP TABLE held AS SELECT delivery_id FROM postalytics.fetch('loops');
SELECT status, attempt FROM postalytics.fetch('loops', max_wait => '1 hour', ack => ARRAY(SELECT delivery_id FROM held) || ARRAY[99999, NULL]);
SELECT fetched('loops'), (SELECT count(*) FROM deliveries WHERE sync = 'loops' AND state = 'done') AS done;
SELECT piece_id FROM postalytics.fetch('loops', max_wait => '1 hour', ack => ARRAY(SELECT delivery_id FROM deliveries WHERE sync = 'loops' AND state = 'leased'));
SELECT piece_id FROM postalytics.fetch('loops', ack => '{}');
SELECT count(*) FROM deliveries WHERE sync = 'loops' AND state = 'done';
DROP TABLE held;

-- Dead letters: why they are dead, and how to redrive or discard them.
SELECT name FROM create_sync('letters', max_attempts => 1);
SELECT events_of('p21', '11@05'), events_of('p22', '11@05'), events_of('p23', '4@05'), events_of('p24', '11@05');
SELECT fetched('letters', lease => '0');
SELECT nack('letters', (SELECT array_agg(delivery_id) FROM deliveries_unfinished WHERE sync = 'letters' AND piece_id = 'p21'), 'HTTP 404', dead => true);
SELECT nack('letters', (SELECT array_agg(delivery_id) FROM deliveries_unfinished WHERE sync = 'letters' AND piece_id = 'p22'), 'HTTP 503');
SELECT fetched('letters');
SELECT sync, reason, piece_id, account, campaign_id, contact_id, status, attempts, last_error, since <= now() AS since FROM dead_letters WHERE sync = 'letters' ORDER BY piece_id;
SELECT dead, dead_by_reason FROM sync_health WHERE name = 'letters';
SELECT redrive('letters', campaigns => '{1}'), redrive('letters', until => '2020-01-01'), redrive('letters', accounts => '{b}');
SELECT redrive('letters', reasons => '{max_attempts,lease_expired}', statuses => '{mailed}', campaigns => '{77120}', since => '2020-01-01');
SELECT fetched('letters'), ack_all('letters');
SELECT reason, piece_id FROM dead_letters WHERE sync = 'letters' ORDER BY piece_id;
SELECT discard('letters', reason => 'contact deleted', reasons => '{refused}'), discard('letters', reason => 'contact deleted', reasons => '{refused}');
SELECT redrive('letters');
SELECT dead, dead_by_reason FROM sync_health WHERE name = 'letters';
SELECT piece_id, state, attempt, reason FROM deliveries WHERE sync = 'letters' ORDER BY piece_id;
SELECT action, object, detail FROM audit_log WHERE action = 'discard';
-- Without history, discarded deliveries are deleted.
SELECT postalytics.configure('history', '0');
SELECT fetched('letters'), nack('letters', (SELECT array_agg(delivery_id) FROM deliveries_unfinished WHERE sync = 'letters'), 'no', dead => true);
SELECT discard('letters', 'of no use'), (SELECT count(*) FROM deliveries WHERE sync = 'letters' AND reason = 'of no use');
SELECT postalytics.configure('history', NULL);

-- A paused sync leases nothing, and next_due returns the end of the pause.  Of several
-- pauses, the one that ends last counts.
SELECT name FROM create_sync('pauses');
SELECT events_of('p25', '11@05'), events_of('p26', '11@05');
SELECT pause_sync('pauses', '1 hour') - now() BETWEEN '59 min' AND '61 min' AS an_hour;
SELECT fetched('pauses'), next_due('pauses') - now() BETWEEN '59 min' AND '61 min' AS in_an_hour;
SELECT pause_sync('pauses', '1 minute') < next_due('pauses') AS the_longer_counts;
SELECT name, due, leased, paused_until - now() BETWEEN '59 min' AND '61 min' AS an_hour FROM sync_health WHERE name IN ('pauses', 'letters') ORDER BY name;
SELECT resume_sync('pauses'), resume_sync('pauses'), next_due('pauses') < now() AS ready;
SELECT fetched('pauses', 1);
-- nack can pause the sync, for example after HTTP 429.  Leased deliveries can be finished.
SELECT nack('pauses', NULL, 'HTTP 429', pause => '1 hour');
SELECT fetched('pauses'), ack_all('pauses');
SELECT sync, reason FROM pauses;
SELECT paused_until IS NOT NULL AS paused FROM sync_health WHERE name = 'pauses';
-- A pause that ended more than a day ago is deleted.
UPDATE pauses SET until = now() - interval '2 days';
SELECT fetched('pauses'), nack('pauses', array_agg(delivery_id), 'HTTP 500', retry_in => '1 hour', pause => '0') FROM deliveries WHERE sync = 'pauses' AND state = 'leased';
SELECT fetched('pauses'), nack('pauses', array_agg(delivery_id), 'HTTP 500', retry_in => '1 hour', pause => '0') FROM deliveries WHERE sync = 'pauses' AND state = 'leased';
SELECT paused_until FROM sync_health WHERE name = 'pauses';
SELECT FROM maintain();
SELECT pause_sync('pauses', '1 hour') > now() AS paused;
SELECT count(*) AS pauses FROM pauses;
SELECT drop_sync('pauses');
SELECT count(*) AS pauses FROM pauses;

-- Errors.
SELECT pause_sync('letters', '0');
SELECT pause_sync('letters', '-1 s');
SELECT pause_sync('letters', NULL);
SELECT pause_sync('nobody', '1 s');
SELECT resume_sync('nobody');
SELECT nack('letters', '{}', 'e', pause => '-1 s');
SELECT name FROM create_sync('told', durable => false);
SELECT redrive('letters', reasons => '{}');
SELECT redrive('letters', statuses => '{lost}');
SELECT redrive('letters', since => '2026-10-02', until => '2026-10-02');
SELECT redrive('nobody');
SELECT redrive('told');
SELECT discard('letters', NULL);
SELECT discard('letters', '');
SELECT postalytics.fetch('told');
SELECT ack('told', '{1}');
SELECT next_due('told');
SELECT test_sync('told');
SELECT replay_sync('told', '2026-10-01');
SELECT create_sync('x', durable => false, wait => '1 day');
SELECT create_sync('x', durable => false, since => '2026-10-01');
SELECT create_sync('x', wait => '-1 day');
SELECT create_sync('x', wait => '200 years');
SELECT create_sync('x', max_attempts => 0);
SELECT create_sync('x', unless => '{}');
SELECT create_sync('x', ordered => NULL);
SELECT postalytics.fetch('nobody');
SELECT postalytics.fetch(NULL);
SELECT postalytics.fetch('waits', batch => 0);
SELECT postalytics.fetch('waits', batch => NULL);
SELECT postalytics.fetch('waits', lease => '-1 s');
SELECT postalytics.fetch('waits', max_wait => '-1 s');
SELECT nack('waits', '{1}', 'e', retry_in => '-1 s');
SELECT nack('nobody', '{1}', 'e');
SELECT ack('waits', '{1,2}', attempts => '{1}');
SELECT replay_sync('waits', '2026-10-02', '2026-10-02');
SELECT replay_sync('waits', NULL);

DROP FUNCTION events_of, fetched, ack_all;
DROP TABLE events_2020_02;
DROP EXTENSION postalytics_status CASCADE;
