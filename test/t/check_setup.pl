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
	SELECT ingest('{"mailId": 1, "eventType": 11, "eventDate": "2025-10-05", "meta": {"campaignId": "77120"}}');
	SELECT configure('restore_tested', to_char(now(), 'YYYY-MM-DD'));
	CREATE ROLE feeder LOGIN; SELECT grant_ingest('feeder');
	CREATE ROLE manager LOGIN; SELECT grant_manage('manager');
	CREATE ROLE reader LOGIN; SELECT grant_read('reader');
	CREATE ROLE client LOGIN; SELECT grant_read('client', 'acme');
	SELECT maintain()});

sub findings { return $node->safe_psql('crm', 'SELECT severity, name, finding FROM postalytics.check_setup()', extra_params => $_[0] // []) }
is(findings(), '', 'a good installation has no findings');

my $version = $node->safe_psql('crm', 'SELECT postalytics.library_version()');
my ($major) = split /\./, $version;

# Each has a cause, the findings, and the remedy.
my $sync_notice = 'notice|background worker|The library is not in shared_preload_libraries';
for my $case (
	(map {
		my ($severity, $other) = @$_;
		[ qq{UPDATE pg_extension SET extversion = '$other' WHERE extname = 'postalytics_status'},
			qr/^$severity\|version\|The library has version \Q$version\E, and the extension has version \Q$other\E\.$/,
			qq{UPDATE pg_extension SET extversion = '$version' WHERE extname = 'postalytics_status'} ]
	} [ notice => "$major.-1.0" ], [ warning => "$major.999.0" ], [ error => ($major + 1) . '.0.0' ]),
	[ 'ALTER DATABASE crm RESET search_path', qr/^notice\|search_path\|/, 'ALTER DATABASE crm SET search_path = "$user", public, postalytics' ],
	[ q{CREATE TABLE saved AS SELECT pg_get_functiondef('postalytics.oldest_snapshot'::regproc) AS definition;
		CREATE OR REPLACE FUNCTION postalytics.oldest_snapshot() RETURNS interval LANGUAGE sql AS $$ SELECT interval '2 hours' $$},
		qr/^warning\|old snapshot\|A transaction has kept VACUUM from removing dead rows for 02:00:00\.$/,
		q{DO $$ BEGIN EXECUTE (SELECT definition FROM saved); END $$} ],
	[ q{DO $$ BEGIN EXECUTE format('DROP TABLE postalytics.events_%s', to_char(now() AT TIME ZONE 'UTC' + interval '1 month', 'YYYY_MM')); END $$},
		qr/^warning\|maintenance\|The partition of events for \d{4}-\d\d is missing, so maintain\(\) has not run lately, or never\.$/, 'SELECT maintain()' ],
	[ q{INSERT INTO maintenance_log (action, relation, detail) VALUES ('failed', 'postalytics.events', 'no space')},
		qr/^warning\|maintenance\|maintain\(\) failed for postalytics\.events at [^:]+:\d\d:\S+: no space$/,
		q{INSERT INTO maintenance_log (action, relation, detail) VALUES ('create', 'postalytics.events', 'partitions: 1')} ],
	[ q{SELECT configure('retention', '2 years'), configure('piece_retention', '3 years'), configure('reject_retention', '90 days')},
		qr/^warning\|settings\|Events are accepted for 10 years, but months are retired after 2 years/, q{SELECT configure('earliest', '2 years')} ],
	[ q{SELECT configure('piece_retention', NULL)}, qr/^notice\|settings\|Months of events are retired, but data about recipients is kept in pieces\.$/,
		q{SELECT configure('piece_retention', '3 years')} ],
	[ q{SELECT configure('reject_retention', NULL)}, qr/^notice\|settings\|Recipients are removed from old pieces, but rejects/,
		q{SELECT configure(name, NULL) FROM settings WHERE value <> "default"; SELECT configure('restore_tested', to_char(now(), 'YYYY-MM-DD'))} ],
	[ q{SELECT configure('restore_tested', NULL)}, qr/^notice\|backup\|No test of restoring a backup has been recorded\.$/, q{SELECT configure('restore_tested', to_char(now(), 'YYYY-MM-DD'))} ],
	[ q{SELECT configure('restore_tested', to_char(now() - interval '367 days', 'YYYY-MM-DD'))}, qr/^notice\|backup\|The last recorded test of restoring a backup was on \d{4}-\d\d-\d\d\.$/,
		q{SELECT configure('restore_tested', to_char(now(), 'YYYY-MM-DD'))} ],
	[ q{SELECT create_sync('c', campaigns => '{none}', durable => false)}, qr/^warning\|sync matches nothing\|No stored event belongs to campaign "none", to which sync "c" is restricted\.$/, q{SELECT drop_sync('c')} ],
	[ q{SELECT create_sync('a', accounts => '{none}', durable => false)}, qr/^notice\|sync matches nothing\|No stored campaign belongs to account "none", to which sync "a" is restricted\.$/, q{SELECT drop_sync('a')} ],
	[ q{SELECT create_sync('w', since => '2025-01-01'); SELECT maintain(); UPDATE deliveries_unfinished SET due_at = now() - interval '2 hours'},
		qr/^error\|sync without worker\|A delivery of sync "w" has been due for 02:00:\d\d, and none has been leased for an hour\.\n\Q$sync_notice\E[^\n]*$/,
		q{SELECT FROM postalytics.fetch('w'); SELECT drop_sync('w')} ],
	[ q{SELECT create_sync('d', since => '2025-01-01'); SELECT maintain(); SELECT nack('d', array_agg(delivery_id), 'no', dead => true) FROM postalytics.fetch('d')},
		qr/^warning\|dead deliveries\|Dead deliveries of sync "d": 1\.\n\Q$sync_notice\E[^\n]*$/, q{SELECT discard('d', 'test'); SELECT drop_sync('d')} ],
	[ q{SELECT ingest(format('{"mailId": "x%s", "eventType": 11, "eventDate": "%s", "meta": {"accountId": "a%s"}}', i, now(), i)::json) FROM generate_series(1, 2) AS i},
		qr/^warning\|accounts\|Payloads of events that have no account name 2 different accounts\.$/, q{DELETE FROM events WHERE piece_id LIKE 'x%'} ],
	[ 'GRANT TRIGGER ON pieces TO reader', qr/^error\|privilege\|Role reader has privileges that no binding explains: TRIGGER on pieces\.$/, 'REVOKE TRIGGER ON postalytics.pieces FROM reader' ],
	[ 'GRANT TRUNCATE ON pieces TO PUBLIC', qr/^error\|privilege\|Role PUBLIC has privileges that no binding explains: TRUNCATE on pieces\.$/, 'REVOKE TRUNCATE ON postalytics.pieces FROM PUBLIC' ],
	[ 'GRANT CREATE ON SCHEMA postalytics TO PUBLIC', qr/^error\|privilege\|Role PUBLIC has privileges that no binding explains: CREATE on postalytics\.$/, 'REVOKE CREATE ON SCHEMA postalytics FROM PUBLIC' ],
	[ 'GRANT EXECUTE ON FUNCTION configure(text, text), maintain() TO PUBLIC', qr/^error\|privilege\|Role PUBLIC has privileges that no binding explains: EXECUTE on configure and 1 other objects\.$/,
		'REVOKE EXECUTE ON FUNCTION postalytics.configure(text, text), postalytics.maintain() FROM PUBLIC' ],
	[ 'GRANT EXECUTE ON FUNCTION configure(text, text) TO client', qr/^error\|privilege\|Role client has privileges that no binding explains: EXECUTE on configure\.$/,
		'REVOKE EXECUTE ON FUNCTION postalytics.configure(text, text) FROM client' ],
	[ 'CREATE ROLE direct LOGIN; GRANT SELECT ON pieces TO direct', qr/^warning\|privilege\|Role direct has privileges that no binding explains: SELECT on pieces\.$/,
		'ALTER ROLE direct BYPASSRLS' ],
	[ 'CREATE ROLE dumper LOGIN; GRANT pg_read_all_data TO dumper', qr/^notice\|backup role\|Role dumper is a member of pg_read_all_data/, 'ALTER ROLE dumper BYPASSRLS' ],
	[ q{CREATE FUNCTION postalytics."odd(name"() RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT EXECUTE ON FUNCTION postalytics."odd(name"() TO client; GRANT USAGE ON SEQUENCE event_id_seq TO client},
		qr/^notice\|privilege\|Role client has privileges that no binding explains: USAGE on event_id_seq\.$/,
		q{DROP FUNCTION postalytics."odd(name"(); REVOKE USAGE ON SEQUENCE postalytics.event_id_seq FROM client} ],
	[ 'GRANT ALL ON ALL TABLES IN SCHEMA postalytics TO client', qr/^error\|privilege\|Role client has privileges that no binding explains: DELETE, INSERT,( MAINTAIN,)? REFERENCES, SELECT, TRIGGER, TRUNCATE, UPDATE on audit_log and \d+ other objects\.$/,
		q{REVOKE ALL ON ALL TABLES IN SCHEMA postalytics FROM client; SELECT grant_read('client', 'acme')} ],
	[ 'ALTER TABLE pieces DISABLE ROW LEVEL SECURITY', qr/^error\|policies\|Row-level security of table postalytics\.pieces is disabled\.$/, 'ALTER TABLE postalytics.pieces ENABLE ROW LEVEL SECURITY' ],
	[ 'CREATE POLICY everybody ON pieces FOR SELECT USING (true)', qr/^error\|policies\|Table postalytics\.pieces has another policy, everybody,/, 'DROP POLICY everybody ON postalytics.pieces' ],
	[ 'DROP POLICY readers_of_all ON pieces', qr/^warning\|policies\|Policies for roles that may read all accounts are missing/, 'SELECT maintain()' ],
	[ q{DELETE FROM bindings WHERE role = 'reader'::regrole; REVOKE ALL ON ALL TABLES IN SCHEMA postalytics FROM reader; REVOKE ALL ON ALL FUNCTIONS IN SCHEMA postalytics FROM reader},
		qr/^error\|policies\|Role reader can read all accounts without a binding\.$/, 'SELECT maintain()' ],
	[ q{CREATE ROLE nobody; SELECT grant_monitor('nobody')}, qr/^notice\|unused role\|Role nobody has bindings/, 'GRANT nobody TO reader' ],
	[ q{CREATE ROLE gone; SELECT grant_read('gone', 'acme'); ALTER TABLE bindings DISABLE TRIGGER configuration_changed; ALTER EVENT TRIGGER postalytics_guard_drop DISABLE;
		DROP OWNED BY gone; DROP ROLE gone; ALTER EVENT TRIGGER postalytics_guard_drop ENABLE; ALTER TABLE bindings ENABLE ALWAYS TRIGGER configuration_changed},
		qr/^warning\|dropped role\|A role with bindings, whose OID was \d+, was dropped/, 'DELETE FROM postalytics.bindings WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.oid = role)' ],
	[ q{ALTER FUNCTION postalytics.check_syncs() RENAME TO real_check; CREATE FUNCTION postalytics.check_syncs() RETURNS SETOF postalytics.setup_finding LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$;
		GRANT TRIGGER ON pieces TO reader},
		qr/^error\|privilege\|[^\n]*\nwarning\|check_syncs\|The check failed: broken\.$/,
		q{DROP FUNCTION postalytics.check_syncs(); ALTER FUNCTION postalytics.real_check() RENAME TO check_syncs; REVOKE TRIGGER ON postalytics.pieces FROM reader} ])
{
	my ($cause, $expected, $cure) = @$case;
	my ($name) = "$expected" =~ /\\\|([^\\]*)\\\|/;
	$node->safe_psql('crm', $cause);
	like(findings(), $expected, "$name: found, and nothing else");
	is($node->safe_psql('crm', 'SELECT count(*) FROM postalytics.check_setup() WHERE remedy IS NULL'), 0, "$name: there is a remedy");
	$node->safe_psql('crm', $cure);
	is(findings(), '', "$name: the remedy removes it");
}

# What is locked is reported, and does not keep monitoring waiting.
{
	my ($in, $out) = ("BEGIN; LOCK TABLE postalytics.events_2025_10, postalytics.rejects IN ACCESS EXCLUSIVE MODE; SELECT 'locked';\n", '');
	my $locker = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('crm') ], '<', \$in, '>', \$out, '2>&1', IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$locker->pump until $out =~ /locked/;
	like(findings(), qr/^warning\|check_payload_accounts\|The check failed: canceling statement due to lock timeout\.$/m, 'a check that meets a lock is reported');
	is($node->safe_psql('crm', q{SELECT count(*) > 8, count(*) FILTER (WHERE labels ->> 'month' = '2025-10' OR labels ->> 'table' = 'rejects') FROM metrics}), 't|0', 'and metrics leave out what is locked');
	$locker->kill_kill;
}

# Other healthy installations.
$node->safe_psql('crm', q{SELECT configure('history', '0'), configure('premake_months', '0'), create_sync('later', wait => '3 days', enabled => false)});
is(findings(), '', 'a disabled sync, no history, no months in advance');
$node->safe_psql('crm', q{SELECT configure(name, NULL) FROM settings WHERE value <> "default"; SELECT configure('restore_tested', to_char(now(), 'YYYY-MM-DD')), drop_sync('later'); SELECT maintain()});

# The background worker.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'postalytics_status'\npostalytics_status.worker_databases = 'none'");
$node->restart;
is(findings(), '', 'a database that is to have no background worker');
$node->append_conf('postgresql.conf', "postalytics_status.worker_databases = 'crm'\nmax_worker_processes = 1");
$node->restart;
like(findings(), qr/^error\|background worker\|The library is in shared_preload_libraries, but this database has no background worker\.$/, 'the background worker is missing');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
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
