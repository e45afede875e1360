# An idle transaction does not block unrelated sessions, and a function that locks rows
# or tables reads them with a snapshot taken after the lock.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use DBI;

my $node = PostgreSQL::Test::Cluster->new('waits');
$node->init;
$node->append_conf('postgresql.conf', "autovacuum = off\ndeadlock_timeout = '100ms'");
$node->start;

sub session
{
	return DBI->connect('dbi:Pg:' . $node->connstr('postgres') . " user='" . getpwuid($<) . "'", undef, undef, { RaiseError => 1, PrintError => 0 });
}

# Start a psql that runs the queries passed to ask().
sub start
{
	my %psql = (in => '', out => '');
	$psql{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$psql{in}, '>', \$psql{out}, '2>&1',
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return \%psql;
}
sub ask
{
	my ($psql, $query) = @_;
	$psql->{in} .= "$query;\n\\echo done\n";
	$psql->{run}->pump_nb;
}
sub answer
{
	my ($psql) = @_;
	$psql->{run}->pump until $psql->{out} =~ s/^(.*?)done\n//s;
	return $1;
}

my ($one, $two) = (session(), session());
sub event
{
	my ($piece, $date) = @_;
	return qq{SELECT postalytics.ingest('{"mailId": "$piece", "eventType": 4, "eventDate": "$date", "campaignId": "c1"}')};
}
$one->do("CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d'); SELECT postalytics.configure('earliest', '36500d')");
$one->do("SELECT postalytics.create_sync('s')");
$one->do(event("p$_", '2026-10-05')) for 1 .. 20;

# A function that locks and then reads requires a snapshot not older than its lock.
for my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	for my $call ('maintain()', "drop_sync('s')", "replay_sync('s', '2026-10-01')", "drop_campaign('c1')", "create_sync('t', since => '2026-10-01')")
	{
		$one->begin_work;
		$one->do("SET TRANSACTION ISOLATION LEVEL $level");
		eval { $one->do("SELECT postalytics.$call") };
		is($one->state, '25001', "$call is refused in $level");
		$one->rollback;
	}
}
is($one->selectrow_array('SELECT count(*) FROM postalytics.deliveries'), 20, 'and changes nothing');

# drop_sync and create_sync(since) wait for an idle writer, but other writers do not
# wait for them.
$one->begin_work;
$one->do(event('idle', '2026-10-05'));
for my $call ("drop_sync('s')", "create_sync('t', since => '2026-10-01')")
{
	my $waiter = start();
	ask($waiter, "SELECT postalytics.$call");
	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = 'ExclusiveLock'") or die;
	$two->do("SET lock_timeout = '1s'");
	my $done = 0;
	for my $i (1 .. 10)
	{
		$done += $two->do(event('beside ' . length($call) . $i, '2026-10-05'));
	}
	is($done, 10, "$call waits for an idle writer, and others can write");
	like(answer($waiter), qr/could not lock table "postalytics.syncs" within 10 seconds\nDETAIL:  Other transactions hold conflicting locks/, "$call gives up, and says why") if $call =~ /create/;
	$waiter->{run}->kill_kill;
}
$one->rollback;
is($one->selectrow_array("SELECT count(*) FROM postalytics.syncs WHERE name = 's'"), 1, 'a cancelled command has no effect');

# drop_sync locks rows in the same order as ack, whatever their physical order.
$one->do("SELECT count(*) FROM postalytics.fetch('s', 2)");
my $leased = $one->selectcol_arrayref("SELECT delivery_id FROM postalytics.deliveries WHERE state = 'leased' ORDER BY 1");
$one->do("UPDATE postalytics.deliveries_unfinished SET created_at = created_at WHERE delivery_id = $leased->[0]");
$one->begin_work;
$one->do("SELECT FROM postalytics.deliveries_unfinished WHERE delivery_id = $leased->[0] FOR UPDATE");
my ($acker, $dropper) = (start(), start());
ask($acker, "SELECT postalytics.ack('s', '{" . join(',', @$leased) . "}')");
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'") or die;
ask($dropper, "SELECT postalytics.drop_sync('s')");
$node->poll_query_until('postgres', "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock'") or die;
$one->commit;
is(answer($acker), "2\n", 'an ack does not deadlock with drop_sync');
is(answer($dropper), "\n", 'and drop_sync succeeds');
is($one->selectrow_array('SELECT count(*) FROM postalytics.deliveries'), 0, 'and no delivery is left');
$_->{run}->kill_kill for $acker, $dropper;

# maintain() retires days before months, stops at the first partition of a table that it
# cannot lock, and does not wait while it blocks writers of events.
$one->do("SELECT postalytics.create_sync('s')");
$one->do(event("old $_", "2020-0$_-15")) for 1 .. 6;
$one->do("SELECT postalytics.ensure_days(now() - interval '60 days', now() - interval '50 days')");
$one->do("SELECT postalytics.configure('retention', '730d')");
my $days = $one->selectcol_arrayref("SELECT leaf FROM postalytics.leaves_to_retire() WHERE parent = 'postalytics.deliveries'::regclass");
cmp_ok(scalar(@$days), '>=', 10, 'there are days to retire');
$two->begin_work;
$two->do('SELECT count(*) FROM postalytics.deliveries');
my $done = $one->selectall_arrayref('SELECT action, relation, detail FROM postalytics.maintain()');
is(scalar(grep { $_->[0] eq 'failed' } @$done), 1, 'only one of the days that an idle reader has locked is tried');
is((grep { $_->[0] ne 'create' } @$done)[0][1], $days->[0], 'the first one, before the months');
is(scalar(grep { $_->[1] =~ /events_2020/ && $_->[0] eq 'drop' } @$done), 6, 'and the months are retired');
$two->rollback;

# A worker that fetches, and acks while maintain() has days locked, does not deadlock.
$one->do(event('victim', '2026-10-05'));
$one->do(event("older still $_", "2018-0$_-15")) for 1;
my $worker = start();
ask($worker, "SELECT count(*) FROM postalytics.fetch('s', 1)");
answer($worker);
ask($worker, "SELECT postalytics.ack('s', array_agg(delivery_id)) FROM postalytics.deliveries WHERE state = 'leased'");
answer($worker);
my ($free, $held) = @$days[0, 1];
$two->begin_work;
$two->do("LOCK TABLE ONLY $held IN ACCESS SHARE MODE");
ask($worker, "BEGIN; SELECT delivery_id FROM postalytics.fetch('s', 1)");
my ($id) = answer($worker) =~ /(\d+)/;
my $maintainer = start();
ask($maintainer, "SELECT action || ' ' || relation FROM postalytics.maintain()");
$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = '$held'::regclass") or die;
ask($worker, "SELECT postalytics.ack('s', '{$id}')");
my $acked = answer($worker);
is($acked, "1\n", 'an ack does not deadlock with maintain()');
like(answer($maintainer), qr/drop $free\nfailed $held\n/, 'which found a day that it could not drop');
ask($worker, 'COMMIT');
answer($worker);
$two->rollback;
$_->{run}->kill_kill for $worker, $maintainer;
$one->do('SELECT count(*) FROM postalytics.maintain()');

# maintain() does not wait for a reader of a month, or for a worker with one of its
# deliveries.
$one->do(event("older $_", "2019-0$_-15")) for 1 .. 2;
$two->begin_work;
$two->do('SELECT count(*) FROM postalytics.events_2019_01');
$done = $one->selectall_arrayref('SELECT action, relation, detail FROM postalytics.maintain()');
is_deeply([ grep { $_->[1] =~ /2019/ } @$done ], [ [ 'failed', 'postalytics.events_2019_01', 'could not obtain lock on relation "postalytics.events_2019_01"' ] ], 'a reader of the month');
$two->rollback;
$two->begin_work;
$two->do("UPDATE postalytics.deliveries_unfinished SET due_at = now() WHERE piece_id = 'older 1'");
$done = $one->selectall_arrayref('SELECT action, relation, detail FROM postalytics.maintain()');
is_deeply([ grep { $_->[1] =~ /2019/ } @$done ], [ [ 'failed', 'postalytics.events_2019_01', 'could not obtain lock on row in relation "deliveries_unfinished"' ] ], 'a worker with a delivery of the month');
$two->rollback;
$done = $one->selectall_arrayref('SELECT action, relation, detail FROM postalytics.maintain()');
is_deeply([ grep { $_->[1] =~ /2019/ } @$done ], [ map { [ 'drop', "postalytics.events_2019_0$_", 'deliveries still waiting: 1' ] } 1 .. 2 ], 'both months are retired when nobody uses them');
is($one->selectrow_array("SELECT count(*) FROM postalytics.fetch('s', 100) WHERE piece_id LIKE 'old%' AND payload IS NOT NULL"), 7, 'and waiting deliveries keep their payloads');

$_->disconnect for $one, $two;
unlike(slurp_file($node->logfile), qr/deadlock detected/, 'there was no deadlock');
$node->stop;
done_testing();
