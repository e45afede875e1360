# Many sessions ingest batches that overlap in pieces, events and new months, without a
# deadlock or an error, and each event counts once.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('concurrent');
$node->init;
$node->append_conf('postgresql.conf', "deadlock_timeout = '20ms'\nlog_lock_waits = off");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d');
	SELECT postalytics.create_sync('all');
	CREATE TABLE result (inserted bigint, duplicates bigint, rejected bigint);
	CREATE FUNCTION batch(size int) RETURNS json LANGUAGE sql VOLATILE AS $$
		SELECT json_agg(json_build_object('mailId', floor(random() * 300), 'eventType', (ARRAY[0, 9, 10, 11, 4, 5, 6, 2, 3, 7, 8])[1 + floor(random() * 11)],
			'eventDate', to_char(timestamp '2026-01-15' + floor(random() * 24) * interval '1 month', 'YYYY-MM-DD'),
			'campaignId', floor(random() * 3), 'campaignName', 'c'))
		FROM generate_series(1, size)
	$$;
});
my $script = PostgreSQL::Test::Utils::tempdir() . '/batch.sql';
append_to_file($script, "INSERT INTO result SELECT i.* FROM batch(100) AS b, postalytics.ingest(b) AS i;\n");

command_ok([ 'pgbench', '-n', '-c', '16', '-j', '2', '-t', '60', '-M', 'prepared', '-f', $script,
	'-h', $node->host, '-p', $node->port, 'postgres' ], '16 sessions of 60 batches');
# Autovacuum cancels itself when a session needs its table, with a harmless error.
is(join('', grep { /ERROR|deadlock|PANIC|FATAL/ && !/canceling autovacuum task/ } split /^/, slurp_file($node->logfile)),
	'', 'no error is logged');
is($node->safe_psql('postgres', 'SELECT sum(inserted + duplicates + rejected), sum(rejected) FROM result'),
	'96000|0', 'every event is accounted for');
is($node->safe_psql('postgres', 'SELECT count(*) = (SELECT sum(inserted) FROM result) FROM postalytics.events'),
	't', 'the inserted events are stored');
is($node->safe_psql('postgres', q{
	SELECT count(*)
	FROM postalytics.pieces AS p
	FULL JOIN (SELECT piece_id, postalytics.current_status(status, occurred_at) AS status,
					  count(*) FILTER (WHERE status = 'pURLOpened') AS opens
			   FROM postalytics.events GROUP BY 1) AS e USING (piece_id)
	WHERE (p.status, p.opens) IS DISTINCT FROM (e.status, e.opens::int)}),
	'0', 'pieces match their events');
is($node->safe_psql('postgres', 'SELECT count(*) FROM postalytics.campaigns'), '3', 'campaigns');

# New sessions read the list of months while others create months.
append_to_file("$script.new", q{SELECT postalytics.ingest(json_build_object('mailId', :client_id, 'eventType', 4,
	'eventDate', to_char(timestamp '2030-01-15' + nextval('turn') / 8 * interval '1 month', 'YYYY-MM-DD')));
});
$node->safe_psql('postgres', 'CREATE SEQUENCE turn');
command_ok([ 'pgbench', '-n', '-C', '-c', '8', '-j', '2', '-t', '60', '-f', "$script.new",
	'-h', $node->host, '-p', $node->port, 'postgres' ], '480 new sessions in 60 new months');
is($node->safe_psql('postgres', 'SELECT count(*) FROM postalytics.rejects'), '0', 'have none of them rejected');

# Workers waiting in fetch do not block maintenance, and are notified of new events from
# any session.
$node->safe_psql('postgres', q{
	SELECT postalytics.drop_sync('all');
	SELECT postalytics.create_sync('waited_for', latest_only => true, unless => '{ReturnedToSender}');
	CREATE TABLE postalytics.deliveries_2020_01_01 PARTITION OF postalytics.deliveries FOR VALUES IN ('2020-01-01')});
my @waiting = map {
	my %fetch = (out => '');
	$fetch{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'),
		'-c', "SELECT piece_id FROM postalytics.fetch('waited_for', batch => 1, max_wait => '1 hour')" ], '>', \$fetch{out});
	\%fetch
} 1 .. 3;
$node->poll_query_until('postgres', "SELECT count(*) = 3 FROM pg_stat_activity WHERE wait_event = 'Extension' AND query LIKE '%waited_for%'") or die;
# A monitor sees them, although it cannot see the times of other sessions.
$node->safe_psql('postgres', "CREATE ROLE monitor LOGIN; SELECT postalytics.grant_monitor('monitor')");
my $metrics = "SELECT name, value > 0 FROM postalytics.metrics WHERE name LIKE '%waiting%' ORDER BY 1";
is($node->safe_psql('postgres', $metrics, extra_params => [ '-U', 'monitor' ]), "oldest_waiting_fetch_seconds|t\nwaiting_fetches|t", 'a monitor sees that fetches wait');
is($node->safe_psql('postgres', "SELECT value FROM postalytics.metrics WHERE name = 'waiting_fetches'"), '3', 'and how many');
$node->safe_psql('postgres', "SELECT postalytics.configure('retention', '1d')");
is($node->safe_psql('postgres', "SELECT count(*) FILTER (WHERE action = 'failed'), count(*) FILTER (WHERE relation LIKE '%.deliveries_%'), count(*) > 5
	FROM postalytics.maintain() WHERE action <> 'create'"), '0|1|t', 'months and days are dropped while fetches wait');
$node->safe_psql('postgres', q{SELECT postalytics.ingest('[{"mailId": "w1", "eventDate": "2026-10-06", "eventType": 4}, {"mailId": "w2", "eventDate": "2026-10-06", "eventType": 4},
	{"mailId": "w3", "eventDate": "2026-10-06", "eventType": 4}]')});
$_->{run}->finish for @waiting;
is(join('', sort map { $_->{out} } @waiting), "w1\nw2\nw3\n", 'and then get a delivery each');
is($node->safe_psql('postgres', $metrics), "oldest_waiting_fetch_seconds|f\nwaiting_fetches|f", 'and wait no longer');
# A session that continues its transaction after fetch no longer counts as waiting.
is($node->safe_psql('postgres', "BEGIN; SELECT FROM postalytics.fetch('waited_for', max_wait => '60 ms'); $metrics"), "oldest_waiting_fetch_seconds|f\nwaiting_fetches|f", 'nor does one whose max_wait is over');
# fetch does not wait for longer than the setting allows.
is($node->safe_psql('postgres', "SELECT postalytics.configure('max_wait', '50 ms'); SET statement_timeout = '100s'; SELECT count(*) FROM postalytics.fetch('waited_for', max_wait => '1 hour')"), "\n0", 'max_wait limits the argument');

$node->stop;
done_testing();
