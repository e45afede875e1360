# While an old snapshot keeps VACUUM from removing finished deliveries, a fetch touches
# no more buffers than without the snapshot, and sessions that remember where their scan
# ended miss no delivery.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use DBI;
use List::Util qw(shuffle);

my $node = PostgreSQL::Test::Cluster->new('held');
$node->init;
$node->append_conf('postgresql.conf', "autovacuum = off\nmax_prepared_transactions = 5");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status;
	SELECT postalytics.configure('latest', '36500d');
	SELECT postalytics.configure('history', '0');
	SELECT postalytics.create_sync('w');
	SELECT postalytics.create_sync('any', ordered => false)});

sub session
{
	my $session = DBI->connect('dbi:Pg:' . $node->connstr('postgres') . " user='" . getpwuid($<) . "'", undef, undef, { RaiseError => 1, PrintError => 0 });
	$session->do("SET statement_timeout = '30s'");
	return $session;
}

sub ingest
{
	my ($session, $prefix, $from, $to) = @_;
	$session->do(qq{SELECT FROM postalytics.ingest((SELECT json_agg(json_build_object('mailId', '$prefix' || i, 'eventType', 4, 'eventDate', '2026-10-05'))
		FROM generate_series($from, $to) AS i))});
}

sub fetch
{
	my ($session, $sync, $batch, $lease) = @_;
	return @{ $session->selectcol_arrayref(q{SELECT delivery_id FROM postalytics.fetch(?, ?, ?)}, undef, $sync, $batch, $lease // '1 minute') };
}

sub ack
{
	my ($session, $sync, @ids) = @_;
	return $session->selectrow_array('SELECT postalytics.ack(?, ?)', undef, $sync, \@ids);
}

# Return the number of buffers that a session's third fetch of a hundred touches.
sub cost
{
	my ($session, $sync) = @_;
	my $buffers;
	for (1 .. 3)
	{
		$buffers = 0;
		my $plan = join "\n", map { $_->[0] } @{ $session->selectall_arrayref("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) SELECT * FROM postalytics.fetch('$sync', 100)") };
		my ($line) = $plan =~ /Buffers: shared (.*)/;
		$buffers += $1 while ($line // '') =~ /(?:hit|read)=(\d+)/g;
		like($plan, qr/rows=100\b/, 'a hundred are fetched');
		ack($session, $sync, @{ $session->selectcol_arrayref("SELECT delivery_id FROM postalytics.deliveries_unfinished WHERE sync = ? AND lease_until < now() + interval '2 min'", undef, $sync) });
	}
	return $buffers;
}

my $admin = session();
my $worker = session();
my $other = session();
my %usual;
sub work
{
	my ($session, $sync) = @_;
	for my $round (1 .. 3)
	{
		ack($session, $sync, fetch($session, $sync, 500)) for 1 .. 4;
		$session->do('SELECT pg_sleep(0.11)');
	}
}

# In a short queue, a delivery that a session has repeatedly skipped, and that has
# failed since, is leased in the order of due_at, not before the others.
ingest($admin, 'few', 1, 6);
my ($failed) = fetch($other, 'w', 1, '1 hour');
my @few;
for (1 .. 3)
{
	push @few, fetch($worker, 'w', 1);
	$worker->do('SELECT pg_sleep(0.11)');
}
$other->do(q{SELECT postalytics.nack('w', ARRAY[?::bigint], 'busy', retry_in => '0')}, undef, $failed);
$worker->do('SELECT pg_sleep(0.11)');
push @few, fetch($worker, 'w', 1) for 1 .. 3;
is(join(' ', @few), join(' ', (map { $failed + 2 * $_ } 1 .. 5), $failed), 'short queue: in the order of due_at');
ack($worker, 'w', @few);
$worker->do(q{SELECT postalytics.ack('any', array_agg(delivery_id)) FROM postalytics.fetch('any', 10)});

ingest($admin, 'first', 1, 10000);
for my $sync ('w', 'any')
{
	work($worker, $sync);
	$usual{$sync} = cost($worker, $sync);
}

# From now on a fetch has to skip a delivery that is leased for an hour, the later
# delivery of its piece, one of an idle transaction, and one of a prepared transaction.
my @leased = map { [ $_, fetch($other, $_, 1, '1 hour') ] } 'w', 'any';
my $writer = session();
$writer->begin_work;
ingest($writer, 'late', 1, 1);
$other->do(q{BEGIN;
	INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, account, status, occurred_at, due_at)
	SELECT s, 'prepared', '', 'InTransit', '2026-10-05', postalytics.due_clock()
	FROM unnest('{w,any}'::text[]) AS s;
	PREPARE TRANSACTION 'one'});	# ingest notifies, so it cannot be prepared

my $snapshot = session();
$snapshot->begin_work;
$snapshot->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
$snapshot->do('SELECT');

# Make dead rows.  The worker adds the latest ones itself.
$admin->do(q{WITH made AS (
	INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, account, status, occurred_at, due_at)
	SELECT s, 'dead ' || i % 50000, '', 'InTransit', '2026-10-05', c
	FROM (SELECT postalytics.due_clock() AS c) AS c, unnest('{w,any}'::text[]) AS s, generate_series(1, 200000) AS i
	RETURNING delivery_id)
	SELECT count(*) FROM made});
$admin->do(q{DELETE FROM postalytics.deliveries_unfinished WHERE piece_id LIKE 'dead%'});
ingest($admin, 'second', 1, 20000);
for my $sync ('w', 'any')
{
	# The worker scans past the dead rows, and first skips, then puts aside what it
	# cannot lease.
	work($worker, $sync);
	my $cost = cost($worker, $sync);
	cmp_ok($cost, '<', 1.5 * $usual{$sync}, "$sync: with 200,000 dead rows a fetch touches $cost buffers, without $usual{$sync}");
	$worker->begin_work;
	my @back = fetch($worker, $sync, 100);
	is(ack($worker, $sync, @back), 100, "$sync: an ack");
	$worker->rollback;
	$cost = cost($worker, $sync);
	cmp_ok($cost, '<', 1.5 * $usual{$sync}, "$sync: after it is rolled back, it touches $cost buffers");
	$worker->begin_work;
	ack($worker, $sync, fetch($worker, $sync, 100));
	$worker->do('SAVEPOINT s');
	ack($worker, $sync, fetch($worker, $sync, 100));
	$worker->do('ROLLBACK TO s');
	$worker->commit;
	$cost = cost($worker, $sync);
	cmp_ok($cost, '<', 1.5 * $usual{$sync}, "$sync: after the rollback of a savepoint, it touches $cost buffers");
}

# Every delivery that becomes ready where the scan has already passed is leased.
sub drain
{
	my ($sync) = @_;
	my $count = 0;
	while (my @ids = fetch($worker, $sync, 1000))
	{
		$count += ack($worker, $sync, @ids);
	}
	return $count;
}
drain($_) for 'w', 'any';
is($worker->selectrow_array("SELECT count(*) FROM postalytics.deliveries_unfinished"), 2, 'all except the leased deliveries are finished');
$writer->commit;
is(drain($_), 1, "$_: a delivery that an idle transaction wrote earlier") for 'w', 'any';
$admin->do("COMMIT PREPARED 'one'");
is(drain($_), 1, "$_: a delivery that a prepared transaction wrote earlier") for 'w', 'any';

# A second delivery of the leased one's piece is leased after the first is acked.
my ($piece) = $worker->selectrow_array('SELECT piece_id FROM postalytics.deliveries_unfinished WHERE delivery_id = ?', undef, $leased[0][1]);
$admin->do(qq{SELECT FROM postalytics.ingest('{"mailId": "$piece", "eventType": 5, "eventDate": "2026-10-06"}')});
is(drain('w'), 0, 'w: the second delivery of a piece waits for the leased one');
is(drain('any'), 1, 'any: it does not wait');
is(ack($other, @{ $leased[0] }), 1, 'w: the leased one is finished');
$worker->do('SELECT pg_sleep(0.15)');
is(drain('w'), 1, 'w: then the second one is leased');
is($other->selectrow_array("SELECT postalytics.nack(?, ?, 'no', retry_in => '0')", undef, 'any', [ $leased[1][1] ]), 1, 'any: the leased one is put back');
is(drain('any'), 1, 'any: then it is leased again');

# A delivery that a transaction prepared by the worker itself has put back is leased
# after that transaction commits.
ingest($admin, 'own', 1, 1);
for my $sync ('w', 'any')
{
	my ($id) = fetch($worker, $sync, 1);
	$worker->do('BEGIN');
	$worker->do("SELECT postalytics.nack(?, ?, 'no', retry_in => '0')", undef, $sync, [$id]);
	$worker->do('SELECT pg_sleep(0.02)');
	$worker->do('SELECT postalytics.next_due(?)', undef, $sync);
	$worker->do("PREPARE TRANSACTION 'own'");
	fetch($worker, $sync, 1);
	$worker->do('SELECT pg_sleep(0.15)');
	fetch($worker, $sync, 1);
	$worker->do("COMMIT PREPARED 'own'");
	$worker->do('SELECT pg_sleep(0.15)');
	is(drain($sync), 1, "$sync: a delivery of the worker's own prepared transaction");
}

# Many pieces that are put aside do not delay one that becomes ready.
ingest($admin, 'held', 1, 300);
my @others = fetch($other, 'w', 300, '1 hour');
for (1 .. 3)
{
	fetch($worker, 'w', 1);
	$worker->do('SELECT pg_sleep(0.15)');
}
my ($held_piece) = $admin->selectrow_array('SELECT piece_id FROM postalytics.deliveries_unfinished WHERE delivery_id = ?', undef, $others[-1]);
$admin->do(qq{SELECT FROM postalytics.ingest('{"mailId": "$held_piece", "eventType": 5, "eventDate": "2026-10-07"}')});
ack($other, 'w', $others[-1]);
$worker->do('SELECT pg_sleep(0.4)');
is(scalar fetch($worker, 'w', 1), 1, 'the second delivery of one of 300 pieces');
ack($other, 'w', @others);
drain($_) for 'w', 'any';
$worker->do("SELECT postalytics.ack('w', array_agg(delivery_id)) FROM postalytics.deliveries_unfinished WHERE sync = 'w'");

# Deliveries that the worker's own transaction finished are leased again after its
# rollback, whether the scan found them or they had been put aside.
ingest($admin, 'third', 1, 600);
for my $sync ('w', 'any')
{
	fetch($other, $sync, 100, '0.3 s');
	for (1 .. 2)
	{
		ack($worker, $sync, fetch($worker, $sync, 100));
		$worker->do('SELECT pg_sleep(0.15)');
	}
	$worker->do('SELECT pg_sleep(0.1)');
	for my $end ('ROLLBACK', 'SAVEPOINT s')
	{
		$worker->begin_work;
		$worker->do('SAVEPOINT s') if $end =~ /SAVEPOINT/;
		ack($worker, $sync, fetch($worker, $sync, 100)) for 1 .. 3;
		$worker->do('SELECT pg_sleep(0.12)');
		fetch($worker, $sync, 1);	# removes the deliveries put aside
		$worker->do('ROLLBACK TO s') if $end =~ /SAVEPOINT/;
		$end =~ /SAVEPOINT/ ? $worker->commit : $worker->rollback;
	}
	$worker->do('SELECT pg_sleep(0.8)');	# until it checks the deliveries put aside
	is(drain($sync), 400, "$sync: deliveries fetched, put aside and finished are leased after a rollback");
}

# Random steps in four sessions that all remember a position lose no delivery, and no
# delivery is leased that is finished or leased to another session.
my $seed = $ENV{SEED} // time;
srand $seed;
my @sessions = map { session() } 1 .. 4;
for my $session (@sessions, $worker)
{
	$session->do("SET lock_timeout = '20ms'");
	fetch($session, $_, 1) for 'w', 'any';	# scans past the dead rows
}
my (%held, @faults);
my $made = 0;
my @steps = (
	sub { ingest($_[0], "random", 1 + int rand 300, 300 + int rand 20) if $made++ < 60 },
	(sub {
		my ($session, $sync) = @_;
		my @ids = fetch($session, $sync, 1 + int rand 20, (qw(1s 100ms 1h))[ rand 3 ]);
		push @{ $held{$session}{$sync} }, @ids;
	}) x 4,
	(sub {
		my ($session, $sync) = @_;
		my @ids = splice @{ $held{$session}{$sync} //= [] };
		return if !@ids;
		if (rand() < 0.3)
		{
			$session->do("SELECT postalytics.nack(?, ?, 'no', retry_in => ?)", undef, $sync, \@ids, (qw(0 50ms))[ rand 2 ]);
			return;
		}
		ack($session, $sync, @ids);
	}) x 4,
	sub { my ($session) = @_; $session->begin_work if $session->{AutoCommit} },
	(sub { my ($session) = @_; $session->{AutoCommit} or (rand() < 0.6 ? $session->commit : $session->rollback) }) x 2,
	sub { my ($session) = @_; return if $session->{AutoCommit}; $session->do('SAVEPOINT s'); fetch($session, $_[1], 5); $session->do('ROLLBACK TO s') },
	sub { select(undef, undef, undef, 0.05) });
for my $step (1 .. 2000)
{
	my $session = $sessions[ rand @sessions ];
	next if eval { $steps[ rand @steps ]->($session, ('w', 'any')[ rand 2 ]); 1 };
	push @faults, $@ if $session->state ne '55P03';	# another session has locked the row
	$session->rollback if !$session->{AutoCommit};
}
$_->{AutoCommit} or $_->commit for @sessions;
is(join("\n", @faults), '', 'at random: no errors');
my ($made_rows, $left) = $admin->selectrow_array("SELECT count(*) FILTER (WHERE due_at < 'infinity'), count(*) FROM postalytics.deliveries_unfinished");
note("SEED=$seed: $made_rows of $left are left to do");
$admin->do("UPDATE postalytics.deliveries_unfinished SET lease_until = now() + interval '0.3 s' WHERE lease_until > now()");
$admin->do('SELECT pg_sleep(0.5)');
for (1 .. 40)
{
	drain($_) for 'w', 'any';
	last if !$worker->selectrow_array("SELECT count(*) FROM postalytics.deliveries_unfinished WHERE due_at < 'infinity'");
	$worker->do('SELECT pg_sleep(0.1)');
}
is($worker->selectrow_array("SELECT count(*) FROM postalytics.deliveries_unfinished WHERE due_at < 'infinity'"), 0, 'at random: everything is leased in the end');

# When the snapshot is gone, VACUUM and maintain() return the space.
sub size { return $admin->selectrow_array("SELECT pg_total_relation_size('postalytics.deliveries_unfinished')") }
my $held = size();
cmp_ok($held, '>', 40 * 1024 * 1024, "a table of $held bytes");
is($admin->selectrow_array("SELECT count(*) FROM postalytics.maintain() WHERE action = 'shrink'"), 0, 'is not rewritten while a snapshot needs it');
$snapshot->commit;
$_->disconnect for @sessions;
$admin->do('VACUUM postalytics.deliveries_unfinished');
ingest($admin, 'fourth', 1, 1000);
$other->begin_work;
$other->do('LOCK postalytics.deliveries_unfinished IN ROW SHARE MODE');
is($admin->selectrow_array("SELECT count(*) FROM postalytics.maintain() WHERE action = 'shrink'"), 0, 'nor while it is locked');
$other->rollback;
is($admin->selectrow_array("SELECT count(*) FROM postalytics.maintain() WHERE action = 'shrink'"), 1, 'then it is rewritten');
cmp_ok(size(), '<', 4 * 1024 * 1024, 'so that it is small');
is(drain($_), 1000, "$_: and complete") for 'w', 'any';
is($admin->selectrow_array("SELECT count(*) FROM pg_index WHERE indisclustered AND indrelid = 'postalytics.deliveries_unfinished'::regclass"), 0, 'without an index marked as clustered');
is($admin->selectrow_array("SELECT count(*) FROM postalytics.maintain() WHERE action = 'shrink'"), 0, 'only once');

$_->disconnect for $admin, $worker, $other, $writer, $snapshot;
$node->stop;
done_testing();
