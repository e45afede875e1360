# The background worker notifies of due deliveries, misses none of them after any
# process has died, and does not block other sessions.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The unique name appears in the titles of the server's processes.
my $name = "worker_$$";
my $node = PostgreSQL::Test::Cluster->new($name);
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "max_worker_processes = 20\nshared_preload_libraries = 'postalytics_status'\nmax_prepared_transactions = 2
restart_after_crash = on\npostalytics_status.maintenance_interval = 0");
$node->start;

# The extension does not exist yet, and most databases never have it.
$node->safe_psql('postgres', join("\n", map { "CREATE DATABASE without_$_;" } 1 .. 100));
my $workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'postalytics_status worker'";
is($node->safe_psql('postgres', $workers), '0', 'no extension, no worker');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'postalytics_status launcher'"), '1', 'but there is a launcher');
$node->safe_psql('postgres', "CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d'); SELECT postalytics.create_sync('all')");

sub runs
{
	my ($dbname, $title) = @_;
	ok($node->poll_query_until($dbname, 'SELECT running FROM postalytics.worker_status()'), $title);
}
runs('postgres', 'CREATE EXTENSION starts a worker');
ok($node->poll_query_until('postgres', $workers, '1'), 'and only one');

# The launcher checks the other databases once.  After that they cost nothing: they have
# no transactions, and the launcher uses no CPU time.
sub cost
{
	my $pid = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'postalytics_status launcher'");
	my @stat = split / /, slurp_file("/proc/$pid/stat") =~ s/.*\) //sr;
	return join ' ', $stat[11] + $stat[12], $node->safe_psql('postgres', "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname LIKE 'without%'");
}
my ($cost, $before) = (cost(), '');
for (1 .. 30)
{
	last if $cost eq $before;
	$before = $cost;
	sleep 3;
	$cost = cost();
}
is($cost, $before, 'a hundred databases without the extension cost nothing in three seconds');

# An idle worker sleeps, and rarely wakes up except to check every ten seconds.
sub wake_ups
{
	my $pid = $node->safe_psql('postgres', 'SELECT pid FROM postalytics.worker_status()');
	return (slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s*(\d+)/m)[0];
}
my $wake_ups = wake_ups();
sleep 10;
$wake_ups = wake_ups() - $wake_ups;
cmp_ok($wake_ups, '<', 30, "an idle worker woke up $wake_ups times in ten seconds");

# A session that listens, and the channel, count and events of each notification that it
# has received.
my ($listener, $in, $out, @heard);

sub listen_to
{
	($in, $out) = ("LISTEN postalytics_$_[0];\n\\echo ready\n", '');
	$listener = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \my $err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$listener->pump until $out =~ /ready/;
	@heard = ();
}

sub hear
{
	my $mark = 'mark' . rand;
	$in .= "SELECT '$mark';\n";
	$listener->pump until $out =~ /$mark/;
	while ($out =~ s/"(\w+)" with payload "\{"sync": "[^"]*", "count": (\d+), "events": \[(.*?)\]\}"//)
	{
		push @heard, { channel => $1, count => $2, shown => $3 };
	}
}

# Listen until the notifications have counted $count events, or until the timeout of the
# test.  Return the number counted.
sub hear_of
{
	my ($count) = @_;
	my $sum;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		hear();
		$sum = 0;
		$sum += $_->{count} for @heard;
		last if $sum >= $count;
		select(undef, undef, undef, 0.1);
	}
	return $sum;
}

sub event
{
	my ($piece, %also) = @_;
	my $at = $also{at} // "'2026-10-06'";
	return qq{SELECT postalytics.ingest(json_build_object('mailId', '$piece', 'eventType', 4, 'eventDate', $at));};
}

listen_to('all');
$node->safe_psql('postgres', join("\n", map { event("many $_") } 1 .. 300));
is(hear_of(300), 300, 'every event is notified');
cmp_ok(scalar(@heard), '<', 100, 'in far fewer notifications: ' . scalar(@heard));

@heard = ();
$node->safe_psql('postgres', 'BEGIN; ' . event('undone') . ' ROLLBACK');
$node->safe_psql('postgres', 'BEGIN; SAVEPOINT a; ' . event('undone') . ' ROLLBACK TO a; SAVEPOINT b; ' . event('kept') . ' RELEASE b; COMMIT');
is(hear_of(1), 1, 'events rolled back, by a transaction or to a savepoint, are not notified');
my ($status, undef, $err) = $node->psql('postgres', 'BEGIN; ' . event('prepared') . " PREPARE TRANSACTION 'x'");
like($err, qr/cannot PREPARE a transaction that has written deliveries of a sync/, 'as with NOTIFY, PREPARE TRANSACTION is refused');

# For a sync without deliveries the writer itself notifies, and lists the events.
$node->safe_psql('postgres', "SELECT postalytics.create_sync('fleeting', durable => false, channel => 'postalytics_fleeting')");
$in .= "LISTEN postalytics_fleeting;\n";
hear();
@heard = ();
$node->safe_psql('postgres', event('shown'));
hear_of(2);
is_deeply([ map { $_->{shown} =~ /"shown"/ ? 1 : 0 } sort { $a->{channel} cmp $b->{channel} } @heard ], [ 0, 1 ], 'the events of a sync that is not durable are listed');
$node->safe_psql('postgres', "SELECT postalytics.drop_sync('fleeting')");

# The worker notifies of a delivery when it becomes due, in the order of due_at and not
# of arrival.
$node->safe_psql('postgres', "SELECT postalytics.disable_sync('all'); SELECT postalytics.create_sync('later', wait => '1 day')");
$in .= "UNLISTEN *; LISTEN postalytics_later;\n";
hear();
@heard = ();
my $at = "to_char((now() - interval '1 day' + interval '%s') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
$node->safe_psql('postgres', event('hour', at => sprintf($at, '1 hour')) . event('six', at => sprintf($at, '6 s')) . event('three', at => sprintf($at, '3 s')));
is(hear_of(5), 5, 'three on arrival, and two when they are due');
is($node->safe_psql('postgres', "SELECT count(*) FROM postalytics.fetch('later')"), '2', 'and then they can be fetched');
@heard = ();
$node->safe_psql('postgres', "SELECT postalytics.nack('later', array_agg(delivery_id), 'busy', retry_in => '2 s') FROM postalytics.deliveries WHERE state = 'leased'");
is(hear_of(2), 2, 'and deliveries put off are notified when they are due again');
$node->safe_psql('postgres', "SELECT postalytics.drop_sync('later'); SELECT postalytics.enable_sync('all')");

# However the worker is terminated, it is restarted and notifies of all due deliveries.
$in .= "UNLISTEN *; LISTEN postalytics_all;\n";
hear();
@heard = ();
my $pid = $node->safe_psql('postgres', 'SELECT pid FROM postalytics.worker_status()');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$node->safe_psql('postgres', event("while $_")) for 1 .. 20;
runs('postgres', 'a terminated worker is restarted');
cmp_ok(hear_of(20), '>=', 20, 'nothing is missed');
isnt($node->safe_psql('postgres', 'SELECT pid FROM postalytics.worker_status()'), $pid, 'it is another process');

for my $victim (qw(worker writer postmaster))
{
	my ($writer_in, $writer_out) = ('', '');
	my $writer = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$writer_in, '>', \$writer_out, '2>', \my $ignored);
	$writer_in = "SELECT pg_backend_pid();\n";
	$writer->pump until $writer_out =~ /(\d+)/;
	my %pid = (writer => $1, worker => $node->safe_psql('postgres', 'SELECT pid FROM postalytics.worker_status()'));
	$writer_in .= join("\n", map { event("$victim $_") } 1 .. 2000) . "\n";
	$writer->pump until $writer_out =~ /\(1,0,0\)/;
	my $postmaster = $node->{_pid};
	if ($victim eq 'postmaster')
	{
		$node->kill9;
		select(undef, undef, undef, 0.05) while kill(0, $postmaster) || `pgrep -f "^postgres: $name:"`;
	}
	else { kill 'KILL', $pid{$victim}; }
	eval { $writer->kill_kill; $listener->kill_kill; };
	if ($victim eq 'postmaster') { $node->start; }
	else
	{
		# Do not use psql here: it can exit before it reads its query, which gives a
		# SIGPIPE.
		select(undef, undef, undef, 0.1) while system('pg_isready', '-q', '-h', $node->host, '-p', $node->port) != 0;
		$node->poll_query_until('postgres', 'SELECT 1', '1') or die;
	}
	listen_to('all');
	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'postalytics_status worker'");
	# The worker may have notified before we listened, so make it start again.
	my $due = $node->safe_psql('postgres', "SELECT due FROM postalytics.sync_health WHERE name = 'all'");
	$node->safe_psql('postgres', 'SELECT pg_terminate_backend(pid) FROM postalytics.worker_status()');
	cmp_ok($due, '>', 0, "kill -9 of the $victim: deliveries are due");
	cmp_ok(hear_of($due), '>=', $due, "and notified");
}

# The worker also notifies more syncs than it can remember by name.
$node->safe_psql('postgres', "SELECT postalytics.create_sync('many' || i) FROM generate_series(1, 70) AS i");
$in .= join('', map { "LISTEN postalytics_many$_;\n" } 1 .. 70);
hear();
@heard = ();
$node->safe_psql('postgres', event('for many'));
my %told;
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	hear();
	%told = map { $_->{channel} => $_->{count} } grep { $_->{channel} =~ /many/ } @heard;
	last if keys %told == 70;
	select(undef, undef, undef, 0.1);
}
is(scalar(grep { $_ == 1 } values %told), 70, 'seventy syncs at once');
$node->safe_psql('postgres', "SELECT postalytics.drop_sync('many' || i) FROM generate_series(1, 70) AS i");

# A new launcher does not start a second worker.  First wait for the worker terminated
# above.
$node->poll_query_until('postgres', 'SELECT running FROM postalytics.worker_status()') or die;
$pid = $node->safe_psql('postgres', 'SELECT pid FROM postalytics.worker_status()');
my $launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'postalytics_status launcher'";
my $old = $node->safe_psql('postgres', $launcher);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($old)");
ok($node->poll_query_until('postgres', "SELECT running AND pid <> $pid FROM postalytics.worker_status()"), 'after the launcher is terminated, a new worker is started');
isnt($node->safe_psql('postgres', $launcher), $old, 'by another launcher');
# A second worker exits immediately, but may be visible before that.
ok($node->poll_query_until('postgres', $workers, '1'), 'and only one remains');

# A delivery that nack puts off to a time before its commit is notified, although the
# worker has searched after that time.
$node->safe_psql('postgres', "SELECT postalytics.disable_sync('all'); SELECT postalytics.create_sync('nacked', statuses => '{InTransit}'); SELECT postalytics.create_sync('other', statuses => '{Printed}')");
$in .= "UNLISTEN *; LISTEN postalytics_nacked; LISTEN postalytics_other;\n";
hear();
@heard = ();
$node->safe_psql('postgres', event('nacked'));
hear_of(1);
my $nacked = $node->safe_psql('postgres', "SELECT delivery_id FROM postalytics.fetch('nacked', lease => '1 hour')");
@heard = ();
my ($nack_in, $nack_out) = ("BEGIN; SELECT postalytics.nack('nacked', '{$nacked}', 'busy', retry_in => '0');\n", '');
my $nack = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$nack_in, '>', \$nack_out, '2>&1');
$nack->pump until $nack_out =~ /1/;
$node->safe_psql('postgres', q{SELECT postalytics.ingest('{"mailId": "other", "eventType": 10, "eventDate": "2026-10-06"}')});
hear_of(1);
@heard = ();
$nack_in .= "COMMIT;\n\\q\n";
$nack->finish;
is(hear_of(1), 1, 'a delivery whose nack commits late is notified');
is($heard[0]{channel}, 'postalytics_nacked', 'on its channel');
$node->safe_psql('postgres', "SELECT postalytics.drop_sync('nacked'); SELECT postalytics.drop_sync('other'); SELECT postalytics.enable_sync('all')");

# Only a command of the database's owner stops its worker.
runs('postgres', 'the worker is running');
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN');
$pid = $node->safe_psql('postgres', 'SELECT pid FROM postalytics.worker_status()');
for ('DROP DATABASE postgres', 'ALTER DATABASE postgres RENAME TO mine', 'CREATE DATABASE mine TEMPLATE postgres')
{
	my ($status) = $node->psql('template1', $_, extra_params => [ '-U', 'nobody' ]);
	isnt($status, 0, "another role fails to: $_");
}
is($node->safe_psql('postgres', 'SELECT pid FROM postalytics.worker_status()'), $pid, 'and the worker continues');

# If the owner's command is cancelled while it waits, the worker is started again.
$pid = $node->safe_psql('postgres', 'SELECT pid FROM postalytics.worker_status()');
kill 'STOP', $pid;
my ($owner_in, $owner_out) = ("SET statement_timeout = '100ms'; ALTER DATABASE postgres RENAME TO mine;\n\\echo done\n", '');
my $owner = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('template1') ], '<', \$owner_in, '>', \$owner_out, '2>&1');
$owner->pump until $owner_out =~ /done/;
kill 'CONT', $pid;
ok($node->poll_query_until('postgres', "SELECT running AND pid <> $pid FROM postalytics.worker_status()"), 'the worker is started again after a cancelled command');
$owner->kill_kill;

# Commands that need exclusive access to a database succeed, and then its worker is
# started again.
runs('postgres', 'the worker runs');
my $admin = sub { $node->safe_psql('template1', $_[0]) };
$listener->kill_kill;
$admin->('CREATE DATABASE copied TEMPLATE postgres');
runs('copied', 'a database created from one with the extension has a worker');
runs('postgres', 'and its template has a worker again');
$admin->('ALTER DATABASE copied RENAME TO renamed');
runs('renamed', 'and so has a renamed database');
$admin->('DROP DATABASE renamed');
is($node->safe_psql('postgres', $workers), '1', 'a dropped database has none');
$node->safe_psql('postgres', 'DROP EXTENSION postalytics_status CASCADE');
ok($node->poll_query_until('postgres', $workers, '0'), 'without the extension there is none');
$node->safe_psql('postgres', "CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d'); SELECT postalytics.create_sync('all')");
runs('postgres', 'and there is one again with it');

# A worker that exits because of a DROP EXTENSION that commits late is not started
# repeatedly afterwards.
$node->append_conf('postgresql.conf', 'log_min_messages = debug1');
$node->reload;
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION postalytics_status CASCADE; SELECT pg_sleep(11); COMMIT');
ok($node->poll_query_until('postgres', $workers, '0'), 'without the extension there is none');
sleep 2;
my $logged = -s $node->logfile;
sleep 8;
unlike(slurp_file($node->logfile, $logged), qr/registering background worker "postalytics_status worker"/, 'and none is started');
$node->append_conf('postgresql.conf', 'log_min_messages = warning');
$node->reload;
$node->safe_psql('postgres', "CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d'); SELECT postalytics.create_sync('all')");
runs('postgres', 'until it is created again');

# After a server start all databases get their worker soon, not only two a minute.
for (1 .. 5)
{
	$node->safe_psql('template1', "CREATE DATABASE with_$_");
	$node->safe_psql("with_$_", 'CREATE EXTENSION postalytics_status');
}
$node->restart;
for (1 .. 300)
{
	last if $node->safe_psql('postgres', $workers) == 6;
	select(undef, undef, undef, 0.1);
}
is($node->safe_psql('postgres', $workers), '6', 'six databases have a worker each');
$node->safe_psql('template1', "DROP DATABASE with_$_") for 1 .. 5;

# Only the databases in worker_databases have a worker.
$node->append_conf('postgresql.conf', "postalytics_status.worker_databases = 'without_1'");
$node->reload;
ok($node->poll_query_until('postgres', $workers, '0'), 'a database that is not listed has none');
$node->append_conf('postgresql.conf', "postalytics_status.worker_databases = 'postgres, without_1'");
$node->reload;
$node->safe_psql('postgres', event('poke'));
runs('postgres', 'one that is listed has one');

# The worker calls maintain(), and its errors are reported.
$node->append_conf('postgresql.conf', "postalytics_status.maintenance_interval = 1");
$node->reload;
ok($node->poll_query_until('postgres', 'SELECT last_maintenance_at IS NOT NULL FROM postalytics.worker_status()'), 'maintain() is called');
cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM postalytics.maintenance_log WHERE action = 'create'"), '>', 0, 'and creates months');
# Old pieces are retired in parts, and rejects in batches.
$node->safe_psql('postgres', q{
	SELECT postalytics.ingest(json_agg(json_build_object('mailId', 'old ' || i, 'eventType', 11, 'eventDate', '2026-01-05', 'to', json_build_object('firstName', repeat('x', 500))))) FROM generate_series(1, 5000) AS i;
	INSERT INTO postalytics.rejects (received_at, reason, payload) SELECT now() - interval '1 year', 'x', 'null' FROM generate_series(1, 10001);
	SELECT postalytics.drop_sync('all');
	SELECT postalytics.configure('piece_retention', '30 days'), postalytics.configure('reject_retention', '30 days')});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 5000 FROM postalytics.pieces WHERE piece_id LIKE 'old%' AND first_name IS NULL}), 'old pieces lose their recipients');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM postalytics.rejects}), 'and old rejects are deleted');
is($node->safe_psql('postgres', q{SELECT sum(substring(detail FROM '\d+')::int), count(*) > 1 FROM postalytics.maintenance_log WHERE relation = 'postalytics.rejects'}), '10001|t', 'in batches');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM postalytics.maintenance_log WHERE relation = 'postalytics.pieces'}), '>', 1, 'as the pieces were');
is($node->safe_psql('postgres', q{SELECT count(*) FROM postalytics.events WHERE piece_id LIKE 'old%' AND payload IS NOT NULL}), '0', 'their events have no payload');
$node->safe_psql('postgres', q{SELECT postalytics.create_sync('all')});

$node->safe_psql('postgres', q{
	CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no more tables'; END $$;
	CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION refuse()});
$node->safe_psql('postgres', "SELECT postalytics.configure('premake_months', '9')");
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(pid) FROM postalytics.worker_status()');
ok($node->poll_query_until('postgres', "SELECT last_error = 'no more tables' FROM postalytics.worker_status()"), 'worker_status shows its last error');
is($node->safe_psql('postgres', "SELECT action, relation, detail FROM postalytics.maintenance_log WHERE action = 'failed' LIMIT 1"),
	'failed|maintain|no more tables', 'and so does maintenance_log');
is($node->safe_psql('postgres', 'SELECT running FROM postalytics.worker_status()'), 't', 'and the worker continues');
$node->safe_psql('postgres', 'DROP EVENT TRIGGER refuse');

# A standby has no worker until it is promoted.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'postalytics%'"), '0', 'a standby has neither launcher nor worker');
$standby->promote;
ok($standby->poll_query_until('postgres', 'SELECT running FROM postalytics.worker_status()'), 'a promoted one has both');

$_->stop for $standby, $node;
# The server log has a line for each start and stop of the worker, and for what it removed.
my $log = slurp_file($node->logfile);
cmp_ok(scalar(() = $log =~ /LOG:  background worker of extension "postalytics_status" started in database with OID \d+$/mg), '>', 1, 'starts are logged');
cmp_ok(scalar(() = $log =~ /LOG:  background worker of extension "postalytics_status" stopped in database with OID \d+$/mg), '>', 1, 'and stops');
like($log, qr/LOG:  maintain\(\) performed "anonymise" on relation "postalytics\.pieces"\n.*DETAIL:  pieces: \d+$/m, 'and what maintain() removed, with counts');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP:/, 'there is no PANIC or failed assertion in the log');
done_testing();
