# 32 sessions run overlapping batches in overlapping months, single events, reports and
# workers, concurrently with maintain(), pg_dump, VACUUM and ANALYZE.  There is no
# deadlock and no error, and every event is accounted for.
# SOAK sets the number of seconds: 120 by default, and less in .ci/run.
use strict;
use warnings;
use DBI;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{SOAK} // 120;

my $node = PostgreSQL::Test::Cluster->new('soak');
$node->init;
$node->append_conf('postgresql.conf', "max_connections = 60\ndeadlock_timeout = '100ms'\nmax_wal_size = '4GB'
log_lock_waits = off\nautovacuum_naptime = '5s'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d'), postalytics.configure('max_months', '100000');
	SELECT postalytics.create_sync('all');
	SELECT postalytics.create_sync('some', statuses => '{Mailed,InTransit}', unless => '{ReturnedToSender}', latest_only => true);
	SELECT postalytics.create_sync('paced', rate => 300, per => '1 s', max_leased => 60, ordered => false);
	SELECT postalytics.create_sync('fragile', breaker => 50, statuses => '{Printed}');
	CREATE TABLE result (inserted bigint, duplicates bigint, rejected bigint, sent bigint);
	CREATE FUNCTION batch(size int) RETURNS json LANGUAGE sql VOLATILE AS $$
		SELECT json_agg(json_build_object('mailId', floor(random() * 3000), 'eventType', (ARRAY[0, 9, 10, 11, 4, 5, 6, 2, 3, 7, 8, 1])[1 + floor(random() * 12)],
			'eventDate', to_char(timestamp '2024-01-15' + floor(random() * 36) * interval '1 month' + floor(random() * 20) * interval '1 minute', 'YYYY-MM-DD HH24:MI:SS'),
			'campaignId', floor(random() * 20), 'campaignName', 'c', 'to', json_build_object('firstName', md5(random()::text))))
		FROM generate_series(1, size)
	$$});

my $folder = PostgreSQL::Test::Utils::tempdir();
my %scripts = (
	'batch@10' => 'INSERT INTO result SELECT i.*, 100 FROM batch(100) AS b, postalytics.ingest(b) AS i;',
	'single@10' => 'INSERT INTO result SELECT i.*, 1 FROM batch(1) AS b, postalytics.ingest(b) AS i;',
	'report@3' => "SELECT status, count(*) FROM postalytics.pieces GROUP BY 1;
SELECT postalytics.current_status(status, occurred_at) FROM postalytics.events GROUP BY piece_id LIMIT 1;
SELECT * FROM postalytics.sync_health;
SELECT * FROM postalytics.campaign_funnel;
SELECT * FROM postalytics.stuck_pieces();",
	'paced@3' => "BEGIN; SELECT FROM postalytics.fetch('paced', 40, '5 s'); SELECT pg_sleep(random() / 50); COMMIT;
SELECT postalytics.ack('paced', array_agg(delivery_id)) FROM postalytics.fetch('paced', 40);
BEGIN; SELECT postalytics.nack('fragile', array_agg(delivery_id), 'busy', retry_in => '0') FROM postalytics.fetch('fragile', 20); ROLLBACK;
SELECT postalytics.nack('fragile', array_agg(delivery_id), 'busy', retry_in => '0') FROM postalytics.fetch('fragile', 1);
SELECT postalytics.ack('fragile', array_agg(delivery_id)) FROM postalytics.fetch('fragile', 20);
SELECT * FROM postalytics.metrics;",
	'work@5' => "SELECT postalytics.ack('all', array_agg(delivery_id)) FROM postalytics.fetch('all', 200);
SELECT postalytics.nack('some', array_agg(delivery_id), 'busy', retry_in => '1 s') FROM postalytics.fetch('some', 20);
SELECT postalytics.ack('some', array_agg(delivery_id)) FROM postalytics.fetch('some', 200);");
my @files;
for my $script (sort keys %scripts)
{
	my ($name, $weight) = split /@/, $script;
	append_to_file("$folder/$name.sql", "$scripts{$script}\n");
	push @files, '-f', "$folder/$name.sql\@$weight";
}
my @server = ('-h', $node->host, '-p', $node->port);
my ($out, $err) = ('', '');
my $clients = IPC::Run::start([ 'pgbench', '-n', '-c', '32', '-j', '2', '-T', $seconds, @files, @server, 'postgres' ], '>', \$out, '2>', \$err);

# Run maintenance repeatedly until the clients are done.
my ($turns, $bad) = (0, 0);
# In every second round, hold a snapshot that keeps dead rows.
my $snapshot = DBI->connect('dbi:Pg:' . $node->connstr('postgres') . " user='" . getpwuid($<) . "'", undef, undef, { RaiseError => 1, PrintError => 0 });
while ($clients->pumpable)
{
	$clients->pump_nb;
	$node->safe_psql('postgres', $_)
	  for 'SELECT count(*) FROM postalytics.maintain()', 'VACUUM', 'ANALYZE',
	  "SET lock_timeout = '5s'; SELECT postalytics.ensure_partitions(timestamptz '2027-01-01 UTC' + $turns * interval '1 month', timestamptz '2027-02-01 UTC' + $turns * interval '1 month')";
	$bad++ unless run_log([ 'pg_dump', '-Fc', '-f', "$folder/dump", '-d', $node->connstr('postgres') ]);
	$snapshot->do($turns % 2 ? 'COMMIT' : 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM postalytics.syncs');
	$turns++;
}
$snapshot->disconnect;
ok($clients->finish, '32 sessions succeed') or diag($err);
note("$turns turns of maintain, VACUUM, ANALYZE and pg_dump; ", $out =~ /(number of transactions actually processed: \d+)/);
is($bad, 0, 'every pg_dump succeeded');
# Autovacuum cancels itself when a session needs its table, with a harmless error.  Here
# VACUUM and the creation of months need it.
is(join('', grep { /ERROR|deadlock|PANIC|FATAL/ && !/canceling autovacuum task/ } split /^/, slurp_file($node->logfile)),
	'', 'no error is logged');
is($node->safe_psql('postgres', 'SELECT sum(sent) = sum(inserted + duplicates + rejected) FROM result'), 't', 'every event is accounted for');
is($node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM postalytics.events) = sum(inserted), (SELECT count(*) FROM postalytics.rejects) = sum(rejected) FROM result'),
	't|t', 'the inserted events and the rejects are stored');
is($node->safe_psql('postgres', q{
	SELECT count(*)
	FROM postalytics.pieces AS p
	FULL JOIN (SELECT piece_id, postalytics.current_status(status, occurred_at) AS status,
					  count(*) FILTER (WHERE status = 'pURLOpened') AS opens
			   FROM postalytics.events GROUP BY 1) AS e USING (piece_id)
	WHERE (p.status, p.opens) IS DISTINCT FROM (e.status, e.opens::int)}),
	'0', 'pieces match their events');
is($node->safe_psql('postgres', q{
	SELECT count(*)
	FROM postalytics.events AS e
	LEFT JOIN postalytics.deliveries AS d ON d.sync = 'all' AND (d.piece_id, d.status, d.occurred_at) = (e.piece_id, e.status, e.occurred_at)
	WHERE d.delivery_id IS NULL}), '0', 'every event has its delivery');

is($node->safe_psql('postgres', q{
	SELECT COALESCE(max(w.sum), 0) <= 300
	FROM (SELECT sum(amount) OVER (ORDER BY at RANGE BETWEEN interval '999999 us' PRECEDING AND CURRENT ROW) AS sum
	      FROM postalytics.recent_leases WHERE sync = 'paced') AS w}), 't', 'no more than the rate was leased');
is($node->safe_psql('postgres', q{SELECT leased <= 60 FROM postalytics.sync_health WHERE name = 'paced'}), 't', 'no more than max_leased are leased');
cmp_ok($node->safe_psql('postgres', q{SELECT value FROM postalytics.metrics WHERE name = 'successes_last_hour' AND labels ->> 'sync' = 'paced'}), '>', 0, 'the paced sync made progress');

# When the limits are removed, everything is leased and finished in the end.
$node->safe_psql('postgres', q{
	UPDATE postalytics.syncs SET rate = NULL, max_leased = NULL, breaker = NULL;
	UPDATE postalytics.deliveries_unfinished SET due_at = postalytics.due_clock() WHERE due_at < 'infinity';
	UPDATE postalytics.deliveries_unfinished SET lease_until = now() WHERE lease_until > now()});
for my $sync ('all', 'some', 'paced', 'fragile')
{
	$node->safe_psql('postgres', qq{
		DO \$\$
		DECLARE ids bigint[]; idle int := 0;
		BEGIN
			WHILE idle < 5 LOOP
				SELECT array_agg(delivery_id) INTO ids FROM postalytics.fetch('$sync', 10000);
				PERFORM postalytics.ack('$sync', ids);
				COMMIT;
				IF ids IS NULL THEN idle := idle + 1; PERFORM pg_sleep(0.5); END IF;
			END LOOP;
		END \$\$});
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM postalytics.deliveries_unfinished WHERE due_at < 'infinity'}), '0', 'in the end everything is finished');

$node->stop;
done_testing();
