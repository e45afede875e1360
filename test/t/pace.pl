# The workers of a sync together never exceed its rate or max_leased, even if
# transactions stay open or are rolled back.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use DBI;

my $node = PostgreSQL::Test::Cluster->new('pace');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status;
	SELECT postalytics.configure('latest', '36500d');
	SELECT postalytics.create_sync('rated', rate => 50, per => '700 ms');
	SELECT postalytics.create_sync('slow', rate => 5, per => '1 day');
	SELECT postalytics.create_sync('few', max_leased => 20, ordered => false)});

sub session
{
	my $session = DBI->connect('dbi:Pg:' . $node->connstr('postgres') . " user='" . getpwuid($<) . "'", undef, undef, { RaiseError => 1, PrintError => 0 });
	$session->do("SET statement_timeout = '30s'");
	return $session;
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

my $admin = session();
$admin->do(q{SELECT FROM postalytics.ingest((SELECT json_agg(json_build_object('mailId', i, 'eventType', 4, 'eventDate', '2026-10-05'))
	FROM generate_series(1, 2000) AS i))});

# Sixteen sessions share a rate, and one of them idles in its transaction.
my @sessions = map { session() } 1 .. 16;
my $idle = shift @sessions;
$idle->begin_work;
is(scalar fetch($idle, 'rated', 7), 7, 'a worker that idles in its transaction');
my ($empty, $faults) = (0, 0);
for my $round (1 .. 400)
{
	my $session = $sessions[ rand @sessions ];
	my $batch = 1 + int rand 20;
	my @ids = fetch($session, 'rated', $batch);
	if (@ids == 0)
	{
		# These rows are those of all sessions, except the seven that are not committed.
		my ($handed) = $admin->selectrow_array(q{SELECT COALESCE(sum(amount), 0) FROM postalytics.recent_leases WHERE sync = 'rated' AND at > clock_timestamp() - interval '700 ms'});
		$empty++;
		my ($due) = $admin->selectrow_array(q{SELECT extract(epoch FROM postalytics.next_due('rated') - clock_timestamp())});
		$faults++ if $due > 0.7;
		select(undef, undef, undef, $due) if $due > 0;
	}
	else
	{
		ack($session, 'rated', @ids);
	}
}
$idle->commit;
is($faults, 0, 'next_due returns when more may be leased');
cmp_ok($empty, '>', 5, "at times nothing may be leased");
my ($most, $reached, $total) = $admin->selectrow_array(q{
	SELECT max(w.sum), count(*) FILTER (WHERE w.sum = 50), sum(w.amount)
	FROM (SELECT amount, sum(amount) OVER (ORDER BY at RANGE BETWEEN interval '699999 us' PRECEDING AND CURRENT ROW) AS sum
	      FROM postalytics.recent_leases WHERE sync = 'rated') AS w});
is($most, 50, 'in no period is more than the rate leased');
cmp_ok($reached, '>=', $empty, "but exactly the rate, $reached times");
cmp_ok($total, '>', 300, "$total in all");

# Leases that are rolled back count, as the worker may have sent them.
my ($one, $two) = @sessions;
$one->begin_work;
is(scalar fetch($one, 'slow', 3), 3, 'three of five');
is(scalar fetch($two, 'slow', 3), 2, 'leave two to another while the transaction is open');
$one->rollback;
is(scalar fetch($two, 'slow', 3), 0, 'and none after its rollback');
is($two->selectrow_array(q{SELECT postalytics.next_due('slow') > now() + interval '23 hours'}), 1, 'until the period is over');
$admin->do(q{UPDATE postalytics.syncs SET rate = 7 WHERE name = 'slow'});
is(scalar fetch($two, 'slow', 3), 2, 'a higher rate takes effect immediately');
$admin->do(q{UPDATE postalytics.syncs SET rate = NULL WHERE name = 'slow'});
is(scalar fetch($two, 'slow', 30), 30, 'and so does the removal of the rate');

# max_leased limits the number of leases.
$one->begin_work;
my @mine = fetch($one, 'few', 15);
is(scalar @mine, 15, 'fifteen of twenty');
my @rest = fetch($two, 'few', 15);
is(scalar @rest, 5, 'leave five to another');
is(scalar fetch($two, 'few', 15), 0, 'and then none');
is($two->selectrow_array(q{SELECT postalytics.next_due('few') > now() + interval '50 s'}), 1, 'until a lease ends');
ack($two, 'few', @rest[ 0 .. 1 ]);
$two->do("SELECT postalytics.nack('few', ?, 'no')", undef, [ $rest[2] ]);
is(scalar fetch($two, 'few', 15), 3, 'as many as were acked or nacked');
$one->rollback;
is(scalar fetch($two, 'few', 20, '0.2 s'), 15, 'a rollback frees them');
$two->do('SELECT pg_sleep(0.3)');
is(scalar fetch($two, 'few', 20), 15, 'and so does the end of a lease');
$two->begin_work;
ack($two, 'few', $two->selectcol_arrayref('SELECT delivery_id FROM postalytics.in_flight')->@*);
is(scalar fetch($one, 'few', 20), 0, 'an ack frees them when it is committed');
$two->commit;
is(scalar fetch($one, 'few', 30), 20, 'not before');

# A change of max_leased takes effect immediately, whatever was leased before.
ack($one, 'few', $one->selectcol_arrayref('SELECT delivery_id FROM postalytics.in_flight')->@*);
@mine = fetch($one, 'few', 12);
$admin->do("UPDATE postalytics.syncs SET max_leased = NULL WHERE name = 'few'");
push @mine, fetch($one, 'few', 12);
is(scalar @mine, 24, 'without max_leased there is no limit');
$admin->do("UPDATE postalytics.syncs SET max_leased = 20 WHERE name = 'few'");
is(scalar fetch($one, 'few', 12), 0, 'what was leased without it counts');
ack($one, 'few', @mine[ 0 .. 13 ]);
is(scalar fetch($one, 'few', 12), 10, 'until it is acked');
ack($one, 'few', $one->selectcol_arrayref('SELECT delivery_id FROM postalytics.in_flight')->@*);

# An uncommitted maintain() does not block workers, even if leases have expired.
is(scalar fetch($one, 'few', 3, '10 ms'), 3, 'leases that expire');
$one->do('SELECT pg_sleep(0.05)');
$admin->begin_work;
$admin->do('SELECT FROM postalytics.maintain()');
$_->do("SET lock_timeout = '1s'") for $one, $two;
is(scalar fetch($two, 'few', 10), 10, 'are fetched beside maintain()');
ok(eval { $two->do("SELECT postalytics.drop_sync('rated')"); 1 } || $two->state eq '55P03', 'drop_sync does not hang');
$admin->commit;
ack($two, 'few', $two->selectcol_arrayref('SELECT delivery_id FROM postalytics.in_flight')->@*);

# Random steps never exceed max_leased.
my $seed = $ENV{SEED} // time;
srand $seed;
ack($one, 'few', $one->selectcol_arrayref('SELECT delivery_id FROM postalytics.in_flight')->@*);
my ($over, %held) = (0);
$_->do("SET lock_timeout = '20ms'") for @sessions;
for my $round (1 .. 1500)
{
	my $session = $sessions[ rand 6 ];
	my $kind = int rand 8;
	if ($kind < 3) { push @{ $held{$session} }, fetch($session, 'few', 1 + int rand 12, (qw(50ms 1h))[ rand 2 ]) }
	elsif ($kind < 5) { my @ids = splice @{ $held{$session} //= [] }; eval { ack($session, 'few', @ids); 1 } or $session->{AutoCommit} or $session->rollback }
	elsif ($kind == 5) { $session->begin_work if $session->{AutoCommit} }
	elsif (!$session->{AutoCommit}) { $kind == 6 ? $session->commit : $session->rollback }
	$over++ if $admin->selectrow_array("SELECT count(*) FROM postalytics.deliveries_unfinished WHERE sync = 'few' AND lease_until > clock_timestamp()") > 20;
}
$_->{AutoCommit} or $_->commit for @sessions;
is($over, 0, "SEED=$seed: at random, never more than max_leased");

# maintain() removes the rows that no longer limit anything.
$admin->do("UPDATE postalytics.recent_leases SET at = at - interval '1 day 2 hours'; UPDATE postalytics.in_flight SET until = now()");
$admin->do('DELETE FROM postalytics.deliveries_unfinished');
$admin->do('SELECT FROM postalytics.maintain()');
is($admin->selectrow_array('SELECT (SELECT count(*) FROM postalytics.recent_leases) + (SELECT count(*) FROM postalytics.in_flight)'), 0, 'maintain() removes them');

$_->disconnect for $admin, $idle, @sessions;
$node->stop;
done_testing();
