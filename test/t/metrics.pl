# Metrics of each sync: attempts, successes and failures, latencies, what is due, and
# what prevents the removal of dead rows.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use DBI;

my $node = PostgreSQL::Test::Cluster->new('metrics');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status;
	SELECT postalytics.configure('latest', '36500d');
	SELECT postalytics.create_sync('s', ordered => false);
	SELECT postalytics.create_sync('quiet', statuses => '{pURLCompleted}');
	CREATE ROLE monitor LOGIN;
	SELECT postalytics.grant_monitor('monitor')});

sub session
{
	my ($user) = @_;
	return DBI->connect('dbi:Pg:' . $node->connstr('postgres') . " user='" . ($user // scalar getpwuid($<)) . "'", undef, undef, { RaiseError => 1, PrintError => 0 });
}
my ($admin, $worker, $monitor) = (session(), session(), session('monitor'));

sub metrics
{
	return { map { $_->[0] => $_->[1] } @{ $monitor->selectall_arrayref(q{SELECT name || COALESCE(' ' || (labels ->> 'sync'), '') || COALESCE(' ' || (labels ->> 'quantile'), ''), value FROM postalytics.metrics}) } };
}

sub fetch { return $worker->selectcol_arrayref(q{SELECT delivery_id FROM postalytics.fetch('s', ?)}, undef, $_[0]) }
sub ack { return $worker->do(q{SELECT postalytics.ack('s', ?)}, undef, $_[0]) }

my $metrics = metrics();
is($metrics->{"$_ s"}, 0, "at first $_ are 0") for qw(attempts_last_hour successes_last_hour failures_last_hour oldest_due_seconds);
ok(!exists $metrics->{'latency_seconds s 0.5'}, 'and there are no latencies');

$admin->do(q{SELECT FROM postalytics.ingest((SELECT json_agg(json_build_object('mailId', i, 'eventType', 4, 'eventDate', '2026-10-05'))
	FROM generate_series(1, 1000) AS i))});
$admin->do(q{UPDATE postalytics.deliveries_unfinished SET due_at = now() - interval '1 hour', created_at = now() - CASE WHEN delivery_id <= 96 THEN interval '10 s' ELSE interval '1000 s' END});
cmp_ok(metrics()->{'oldest_due_seconds s'}, '>', 3599, 'the oldest delivery has been due for an hour');
$worker->begin_work;
fetch(100);
$worker->rollback;
ack(fetch(100));
$worker->do(q{SELECT postalytics.nack('s', ?, 'no')}, undef, fetch(10));
$worker->begin_work;
ack(fetch(10));
$worker->rollback;
fetch(5);
$worker->begin_work;
fetch(3);
$worker->do(q{SELECT FROM postalytics.fetch('quiet', max_wait => '60 ms')});	# rolls back the search that finds nothing
$worker->commit;
$metrics = metrics();
is($metrics->{'attempts_last_hour s'}, 118, 'attempts, without those rolled back');
is($metrics->{'successes_last_hour s'}, 100, 'successes, without those rolled back');
is($metrics->{'failures_last_hour s'}, 10, 'failures');
for my $expected ([ '0.5', 10 ], [ '0.95', 10 ], [ '0.99', 1000 ])
{
	my ($quantile, $seconds) = @$expected;
	my $is = $metrics->{"latency_seconds s $quantile"};
	cmp_ok(abs($is - $seconds) / $seconds, '<', 0.2, "quantile $quantile is $seconds seconds, within the width of a bucket");
}
is($metrics->{'attempts_last_hour quiet'}, 0, 'no attempts of another sync');

# A session writes its first counts immediately, and later ones together.
ack(fetch(1)) for 1 .. 40;
cmp_ok($admin->selectrow_array('SELECT count(*) FROM postalytics.tallies'), '<', 30, 'a busy session writes few rows');
is($worker->selectrow_array(q{SELECT count(*) FROM postalytics.deliveries WHERE state = 'done'}), 140, 'for many acks');

# The metrics show what prevents the removal of dead rows.
is(metrics()->{oldest_snapshot_seconds}, 0, 'no snapshot');
my $snapshot = session();
$snapshot->begin_work;
$snapshot->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
$snapshot->do('SELECT');
$admin->do('SELECT pg_sleep(0.1)');
cmp_ok(metrics()->{oldest_snapshot_seconds}, '>', 0.1, 'an old snapshot');
$snapshot->rollback;
is(metrics()->{oldest_snapshot_seconds}, 0, 'and again no snapshot');
# Other sessions may report their dead rows only after VACUUM, and an autoanalyze has a
# snapshot while it runs.
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	$admin->do('VACUUM postalytics.deliveries_unfinished');
	last if metrics()->{dead_rows} < 100;
	select(undef, undef, undef, 0.1);
}
cmp_ok(metrics()->{dead_rows}, '<', 100, 'few dead rows after VACUUM');

# The database as a whole, for members of pg_monitor, who see nothing else.
$admin->do(q{CREATE ROLE prometheus LOGIN; GRANT pg_monitor TO prometheus;
	INSERT INTO postalytics.maintenance_log (action, relation, detail) VALUES ('failed', 'postalytics.events', 'no space');
	SELECT postalytics.nack('s', ARRAY(SELECT delivery_id FROM postalytics.fetch('s', 3)), 'no', dead => true);
	SELECT postalytics.pause_sync('quiet', '1 hour');
	SELECT postalytics.ingest('{"mailId": 1}')});
my $prometheus = session('prometheus');
my %of = map { $_->[0] => $_->[1] } @{ $prometheus->selectall_arrayref(q{SELECT name || COALESCE(' ' || (labels ->> 'sync'), '') || COALESCE(' ' || (labels ->> 'table'), ''), value
	FROM postalytics.metrics WHERE labels ->> 'month' IS NULL}) };
cmp_ok($of{event_ids}, '>=', 1000, 'ids of events');
is($of{reject_ids}, 1, 'ids of rejects');
is($of{maintenance_failures_last_day}, 1, 'failures of maintain()');
is("$of{worker_expected} $of{worker_running}", '0 0', 'no background worker, and none expected');
is($of{'dead_deliveries s'}, 3, 'dead deliveries');
is("$of{'paused s'} $of{'paused quiet'}", '0 1', 'a paused sync');
cmp_ok($of{"table_bytes $_"}, '>', 0, "size of $_") for qw(pieces rejects deliveries_unfinished);
is(join(' ', map { @$_ } @{ $prometheus->selectall_arrayref(q{SELECT labels ->> 'month' FROM postalytics.metrics WHERE name = 'month_bytes'}) }), '2026-10', 'size of each month');
for my $query ('TABLE postalytics.pieces', 'TABLE postalytics.syncs', 'SELECT postalytics.maintain()')
{
	eval { $prometheus->do($query) };
	is($prometheus->state, '42501', "a member of pg_monitor is refused: $query");
}
$prometheus->disconnect;

# maintain() deletes old counts.
$admin->do(q{UPDATE postalytics.tallies SET at = at - interval '61 min'});
is(metrics()->{'attempts_last_hour s'}, 0, 'counts older than an hour are left out');
$admin->do(q{UPDATE postalytics.tallies SET at = at - interval '1 day'; SELECT FROM postalytics.maintain()});
is($admin->selectrow_array('SELECT count(*) FROM postalytics.tallies'), 0, 'maintain() deletes old counts');

# Counts are written by the transaction first, and later, 10 seconds each time, by a
# subtransaction that is rolled back.
$admin->do(q{SELECT FROM postalytics.ingest((SELECT json_agg(json_build_object('mailId', 'x' || i, 'eventType', 4, 'eventDate', '2026-10-05'))
	FROM generate_series(1, 100) AS i))});
my $before = metrics()->{'attempts_last_hour s'};
my $long_lived = session();
my $fetch_one = q{SELECT count(*) FROM postalytics.fetch('s', 1)};
$long_lived->do($fetch_one) for 1 .. 25;
sleep 10;
$long_lived->begin_work;
$long_lived->do($fetch_one);
sleep 10;
$long_lived->do('SAVEPOINT a');
$long_lived->do($fetch_one);
$long_lived->do('ROLLBACK TO a');
$long_lived->commit;
$long_lived->do($fetch_one);
sleep 10;
$long_lived->do($fetch_one);
is(metrics()->{'attempts_last_hour s'} - $before, 28, 'no count is written twice');

$long_lived->disconnect;
$_->disconnect for $admin, $worker, $monitor, $snapshot;
$node->stop;
done_testing();
