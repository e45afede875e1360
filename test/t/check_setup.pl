# check_setup: each finding is reported when its cause is there, with a remedy that
# removes it, and a good installation has none.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('check_setup');
$node->init;
$node->append_conf('postgresql.conf', 'autovacuum = off');
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE crm');
$node->safe_psql('crm', q{
	CREATE EXTENSION postalytics_status;
	ALTER DATABASE crm SET search_path = "$user", public, postalytics});
$node->safe_psql('crm', q{
	SELECT ingest('{"mailId": 1, "eventType": 11, "eventDate": "2026-10-05", "meta": {"campaignId": "77120"}}');
	CREATE ROLE feeder LOGIN; SELECT grant_ingest('feeder');
	CREATE ROLE manager LOGIN; SELECT grant_manage('manager');
	CREATE ROLE reader LOGIN; SELECT grant_read('reader');
	CREATE ROLE client LOGIN; SELECT grant_read('client', 'acme');
	SELECT maintain()});

sub findings { return $node->safe_psql('crm', 'SELECT severity, name, finding FROM postalytics.check_setup()', extra_params => $_[0] // []) }
is(findings(), '', 'a good installation has no findings');

# Each has a cause, the findings, and the remedy.
my $sync_notice = 'notice|background worker|The library is not in shared_preload_libraries';
for my $case (
	[ q{UPDATE pg_extension SET extversion = '0.9.9' WHERE extname = 'postalytics_status'},
		qr/^error\|version\|The library has version 1\.0\.0, and the extension has version 0\.9\.9\.$/,
		q{UPDATE pg_extension SET extversion = '1.0.0' WHERE extname = 'postalytics_status'} ],
	[ 'ALTER DATABASE crm RESET search_path', qr/^notice\|search_path\|/, 'ALTER DATABASE crm SET search_path = "$user", public, postalytics' ],
	[ q{ALTER FUNCTION postalytics.oldest_snapshot() RENAME TO real_snapshot;
		CREATE FUNCTION postalytics.oldest_snapshot() RETURNS interval RETURN interval '2 hours'},
		qr/^warning\|old snapshot\|A transaction has kept VACUUM from removing dead rows for 02:00:00\.$/,
		q{DROP FUNCTION postalytics.oldest_snapshot(); ALTER FUNCTION postalytics.real_snapshot() RENAME TO oldest_snapshot} ],
	[ q{DO $$ BEGIN EXECUTE format('DROP TABLE postalytics.events_%s', to_char(now() AT TIME ZONE 'UTC' + interval '1 month', 'YYYY_MM')); END $$},
		qr/^warning\|maintenance\|The partition of events for \d{4}-\d\d is missing, so maintain\(\) has not run lately\.$/, 'SELECT maintain()' ],
	[ q{INSERT INTO maintenance_log (action, relation, detail) VALUES ('failed', 'postalytics.events', 'no space')},
		qr/^error\|maintenance\|maintain\(\) failed for postalytics\.events on \S+: no space$/,
		q{INSERT INTO maintenance_log (action, relation, detail) VALUES ('create', 'postalytics.events', 'partitions: 1')} ],
	[ q{SELECT configure('retention', '2 years'), configure('piece_retention', '3 years'), configure('reject_retention', '90 days')},
		qr/^warning\|settings\|Events are accepted for 10 years, but months are retired after 2 years/, q{SELECT configure('earliest', '2 years')} ],
	[ q{SELECT configure('piece_retention', NULL)}, qr/^notice\|settings\|Months of events are retired, but recipients stay in pieces\.$/,
		q{SELECT configure('piece_retention', '3 years')} ],
	[ q{SELECT configure('reject_retention', NULL)}, qr/^notice\|settings\|Recipients are removed from old pieces, but rejects/,
		q{SELECT configure(name, NULL) FROM settings WHERE value <> "default"} ],
	[ q{SELECT create_sync('c', campaigns => '{none}', durable => false)}, qr/^warning\|sync matches nothing\|No event of campaign "none" of sync "c" has arrived\.$/, q{SELECT drop_sync('c')} ],
	[ q{SELECT create_sync('a', accounts => '{none}', durable => false)}, qr/^warning\|sync matches nothing\|No event of account "none" of sync "a" has arrived\.$/, q{SELECT drop_sync('a')} ],
	[ q{SELECT create_sync('w', since => '2026-01-01'); SELECT maintain(); UPDATE deliveries_unfinished SET due_at = now() - interval '2 hours'},
		qr/^error\|sync without worker\|Sync "w" has deliveries that have been due for 02:00:\d\d, and no worker has fetched for an hour\.\n\Q$sync_notice\E[^\n]*$/,
		q{SELECT FROM postalytics.fetch('w'); SELECT drop_sync('w')} ],
	[ q{SELECT create_sync('d', since => '2026-01-01'); SELECT maintain(); SELECT nack('d', array_agg(delivery_id), 'no', dead => true) FROM postalytics.fetch('d')},
		qr/^warning\|dead deliveries\|Sync "d" has 1 dead deliveries\.\n\Q$sync_notice\E[^\n]*$/, q{SELECT discard('d', 'test'); SELECT drop_sync('d')} ],
	[ q{SELECT ingest(format('{"mailId": "x%s", "eventType": 11, "eventDate": "%s", "meta": {"accountId": "a%s"}}', i, now(), i)::json) FROM generate_series(1, 2) AS i},
		qr/^warning\|accounts\|Payloads name 2 accounts, such as "a1" and "a2", but their events have no account\.$/, q{DELETE FROM events WHERE piece_id LIKE 'x%'} ],
	[ 'GRANT TRIGGER ON pieces TO reader', qr/^error\|TRIGGER privilege\|Role reader has the privilege TRIGGER on postalytics\.pieces/, 'REVOKE TRIGGER ON postalytics.pieces FROM reader' ],
	[ 'GRANT CREATE ON SCHEMA postalytics TO PUBLIC', qr/^error\|CREATE privilege\|Role PUBLIC can create objects/, 'REVOKE CREATE ON SCHEMA postalytics FROM PUBLIC' ],
	[ 'CREATE ROLE dumper LOGIN; GRANT pg_read_all_data TO dumper', qr/^error\|backup role\|Role dumper may read all data/, 'ALTER ROLE dumper BYPASSRLS' ],
	[ 'DROP POLICY readers_of_all ON pieces', qr/^warning\|policies\|The policy readers_of_all of postalytics\.pieces/, 'SELECT maintain()' ],
	[ q{CREATE ROLE nobody; SELECT grant_monitor('nobody')}, qr/^notice\|role without purpose\|Role nobody is bound \(monitor\)/, 'GRANT nobody TO reader' ],
	[ 'CREATE ROLE direct LOGIN; GRANT SELECT ON pieces TO direct', qr/^warning\|privilege without binding\|Role direct has the privilege SELECT on postalytics\.pieces/, 'REVOKE SELECT ON postalytics.pieces FROM direct' ])
{
	my ($cause, $expected, $cure) = @$case;
	my ($name) = "$expected" =~ /\\\|([^\\]*)\\\|/;
	$node->safe_psql('crm', $cause);
	like(findings(), $expected, "$name: found, and nothing else");
	is($node->safe_psql('crm', 'SELECT count(*) FROM postalytics.check_setup() WHERE remedy IS NULL'), 0, "$name: there is a remedy");
	$node->safe_psql('crm', $cure);
	is(findings(), '', "$name: the remedy removes it");
}

# The background worker.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'postalytics_status'\npostalytics_status.worker_databases = 'none'");
$node->restart;
like(findings(), qr/^error\|background worker\|The library is in shared_preload_libraries, but this database has no background worker\.$/, 'the background worker is missing');
$node->append_conf('postgresql.conf', "postalytics_status.worker_databases = '*'");
$node->restart;
ok($node->poll_query_until('crm', 'SELECT running FROM worker_status()'), 'the background worker runs');
is(findings(), '', 'and that is well');

# Managers may call it, others may not.
is(findings([ '-U', 'manager' ]), '', 'a manager may call it');
my ($status, undef, $error) = $node->psql('crm', 'SELECT postalytics.check_setup()', extra_params => [ '-U', 'reader' ]);
like($error, qr/permission denied for function check_setup/, 'a reader may not');

$node->stop;
done_testing();
