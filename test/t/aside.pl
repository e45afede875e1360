# A scan of all entries can end before it reaches a delivery that was put aside and has
# become ready.  The delivery is leased all the same.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use DBI;
use Time::HiRes qw(sleep time);

my $node = PostgreSQL::Test::Cluster->new('aside');
$node->init;
$node->append_conf('postgresql.conf', 'autovacuum = off');
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status;
	SELECT postalytics.ingest((SELECT json_agg(json_build_object('mailId', 'w' || i, 'eventType', 8, 'eventDate', '2026-10-05')) FROM generate_series(1, 5) AS i));
	SELECT postalytics.create_sync('s', ordered => false, unless => '{pURLCompleted}')});

sub session
{
	return DBI->connect('dbi:Pg:' . $node->connstr('postgres') . " user='" . getpwuid($<) . "'", undef, undef, { RaiseError => 1, PrintError => 0 });
}
my ($snapshot, $other, $worker, $admin) = map { session() } 1 .. 4;

# due SECONDS, PIECE, STATUS ...: adds deliveries that came due an hour and so many
# seconds ago, in the order of SECONDS.
my ($base) = $admin->selectrow_array("SELECT now() - interval '1 hour'");
sub due
{
	my ($seconds, $piece, $status) = @_;
	$admin->do(q{INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, status, occurred_at, due_at)
		VALUES ('s', ?, ?, ?::timestamptz + make_interval(secs => ?), ?::timestamptz + make_interval(secs => ?))},
		undef, $piece, $status, $base, $seconds, $base, $seconds);
}
sub fetch
{
	my ($session, $batch, $lease) = @_;
	return map { "$_->[1] $_->[2]" } map { $session->do(q{SELECT postalytics.ack('s', ARRAY[?::bigint])}, undef, $_->[0]) if !$lease; $_ }
	  @{ $session->selectall_arrayref(q{SELECT delivery_id, piece_id, status FROM postalytics.fetch('s', ?, ?)}, undef, $batch, $lease // '1 minute') };
}

# Many dead rows, which an old snapshot keeps, make scans of all entries rare.
$admin->do(q{INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, status, occurred_at, due_at)
	SELECT 's', 'd' || i, 'Mailed', ?::timestamptz, ?::timestamptz + i * interval '1 ms' FROM generate_series(1, 40000) AS i}, undef, $base, $base);
$snapshot->begin_work;
$snapshot->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
$snapshot->do('SELECT FROM postalytics.deliveries_unfinished LIMIT 1');
$admin->do(q{DELETE FROM postalytics.deliveries_unfinished});

# Another worker leases a delivery of the piece p, and dies.
due(60, 'p', 'Mailed');
is_deeply([ fetch($other, 1, '2 seconds') ], ['p Mailed'], 'another worker leases the delivery');
$other->disconnect;

# Meanwhile the worker puts it aside, and passes it.
due(70, 'z1', 'Mailed');
my $full_scan = time;
is_deeply([ fetch($worker, 10) ], ['z1 Mailed'], 'the worker passes it');
sleep 0.2;
due(71, 'z2', 'Mailed');
is_deeply([ fetch($worker, 10) ], ['z2 Mailed'], 'and puts it aside');

# The next scan of all entries, which comes 4 seconds after the first, finds a batch of
# deliveries before it that are to be cancelled.
sleep $full_scan + 5 - time;
due(50 + $_, "w$_", 'Mailed') for 1 .. 5;
is_deeply([ fetch($worker, 5) ], ['p Mailed'], 'the delivery whose lease has expired is leased');
is($admin->selectrow_array(q{SELECT count(*) FROM postalytics.deliveries WHERE state = 'cancelled'}), 5, 'the others are cancelled');

$_->disconnect for $snapshot, $worker, $admin;
$node->stop;
done_testing();
