# The cost of a fetch depends on its batch, and not on when its plans were made, on the
# statistics, or on the number of waiting deliveries.  The cost is counted in buffers,
# in sessions that stay open while the queue fills.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use DBI;

my $node = PostgreSQL::Test::Cluster->new('fetch_cost');
$node->init;
$node->append_conf('postgresql.conf', "autovacuum = off");
$node->start;

sub session
{
	my ($database) = @_;
	return DBI->connect('dbi:Pg:' . $node->connstr($database) . " user='" . getpwuid($<) . "'", undef, undef, { RaiseError => 1, PrintError => 0 });
}

# Return the number of buffers that a query touches, and of the rows that it returns.
sub cost
{
	my ($session, $query) = @_;
	my $plan = join "\n", map { $_->[0] } @{ $session->selectall_arrayref("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) $query") };
	my ($rows) = $plan =~ /rows=(\d+)/;
	my $buffers = 0;
	my ($line) = $plan =~ /Buffers: shared (.*)/;
	$buffers += $1 while ($line // '') =~ /(?:hit|read)=(\d+)/g;
	return ($buffers, $rows);
}

# Ingest two events for each of $pieces pieces.  The pieces are a second apart.
sub fill
{
	my ($session, $pieces, $prefix) = @_;
	$session->do(qq{SELECT postalytics.ingest((SELECT json_agg(json_build_object('mailId', '$prefix' || i, 'eventType', t,
		'eventDate', to_char(timestamp '2026-10-05' + (i % 40000) * interval '1 s' + t * interval '1 hour', 'YYYY-MM-DD HH24:MI:SS'),
		'meta', json_build_object('campaignId', 'c' || i % 7), 'to', json_build_object('firstName', 'F' || i)))
		FROM generate_series(1, $pieces) AS i, generate_series(4, 5) AS t))});
}

my $fetch = q{SELECT * FROM postalytics.fetch('w', 100)};

# 1. In each database a session makes its plans in a different situation.  Then 20,000
# deliveries arrive, and its fetch costs as much as in a new session.
my %made = (
	'planned on empty' => sub { },
	'analyzed while empty' => sub { $_[0]->do('ANALYZE') },
	'vacuumed while empty' => sub { $_[0]->do('VACUUM ANALYZE') },
	'a sync of another shape first' => sub {
		$_[0]->do(q{SELECT postalytics.create_sync('other', ordered => false, latest_only => true, unless => '{pURLCompleted}', statuses => '{Mailed}')});
		$_[0]->do(q{SELECT * FROM postalytics.fetch('other')});
	},
	'not planned before' => undef,
);
my %after = (
	'' => [],
	', then analyzed full' => ['ANALYZE'],
	', after VACUUM FULL' => [ 'VACUUM FULL postalytics.deliveries_unfinished', 'VACUUM FULL postalytics.pieces' ],
	', with reltuples 0' => ["UPDATE pg_class SET reltuples = 0, relpages = 0 WHERE relnamespace = 'postalytics'::regnamespace"],
	', with reltuples 10000000' => ["UPDATE pg_class SET reltuples = 10000000 WHERE relnamespace = 'postalytics'::regnamespace AND relkind IN ('r', 'i')"],
);
my ($usual, $usual_ack);
for my $how ('not planned before', grep { $_ ne 'not planned before' } sort keys %made)
{
	(my $database = $how) =~ s/\W/_/g;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	my $session = session($database);
	$session->do("CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d')");
	$session->do(q{SELECT postalytics.create_sync('w')});
	if ($made{$how})
	{
		$made{$how}->($session);
		$session->do($fetch) for 1 .. 7;
		$session->do(q{SELECT postalytics.ack('w', '{1}'), postalytics.nack('w', '{1}', 'none')});
	}
	fill(session($database), 10000, 'p');
	for my $then (sort keys %after)
	{
		$session->do($_) for @{ $after{$then} };
		my $ids = $session->selectcol_arrayref($fetch);	# fill the caches
		my ($buffers, $rows) = cost($session, $fetch);
		$usual //= $buffers;
		is($rows, 100, "$how$then: a fetch gives a hundred");
		cmp_ok($buffers, '<', 1.5 * $usual, "$how$then: it touches $buffers buffers, the first $usual");
		my ($ack) = cost($session, "SELECT postalytics.ack('w', '{" . join(',', @$ids) . "}')");
		$usual_ack //= $ack;
		cmp_ok($ack, '<', 1.5 * $usual_ack, "$how$then: an ack of them touches $ack, the first $usual_ack");
	}
}
cmp_ok($usual, '<', 100 * 40, 'and none touches more than 40 buffers a row');

# 2. One piece with 8,000 due visits does not slow down the other pieces of its ordered
# sync.
$node->safe_psql('postgres', 'CREATE DATABASE visits');
my $session = session('visits');
$session->do("CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d')");
$session->do(q{SELECT postalytics.create_sync('w')});
my %per_row;
for my $visits (0, 8000)
{
	$session->do('TRUNCATE postalytics.deliveries_unfinished');
	$session->do(qq{SELECT postalytics.ingest((SELECT json_agg(json_build_object('mailId', 'visited', 'eventType', 7,
		'eventDate', to_char(timestamp '2026-10-01' + i * interval '10 s', 'YYYY-MM-DD HH24:MI:SS')))
		FROM generate_series(1, $visits) AS i))}) if $visits;
	fill($session, 1000, "with_$visits");
	$session->do('VACUUM ANALYZE postalytics.deliveries_unfinished');
	$session = session('visits');	# begins with a full scan
	$session->do(q{SELECT * FROM postalytics.fetch('w', 200)});
	$session->do(q{SELECT pg_sleep(1.1)});	# until the next full scan is due
	my ($buffers, $rows) = cost($session, $fetch);
	is($rows, 100, "$visits visits to one URL: a fetch gives a hundred");
	$per_row{$visits} = $buffers / 100;
}
cmp_ok($per_row{8000}, '<', 1.5 * $per_row{0}, "8,000 visits to one URL cost each row of a fetch $per_row{8000} buffers, none $per_row{0}");

# When the first delivery of a piece is put off, those behind it are put off once.
$session->do('TRUNCATE postalytics.deliveries_unfinished');
$session->do(qq{SELECT postalytics.ingest((SELECT json_agg(json_build_object('mailId', 'put off', 'eventType', 7,
	'eventDate', to_char(timestamp '2026-09-01' + i * interval '10 s', 'YYYY-MM-DD HH24:MI:SS')))
	FROM generate_series(1, 3000) AS i))});
$session->do(q{SELECT postalytics.nack('w', array_agg(delivery_id), 'busy', retry_in => '1 hour') FROM postalytics.fetch('w', 1)});
my ($once, $none) = cost($session, $fetch);
is($none, 0, 'the first delivery was put off: nothing to fetch');
cmp_ok($once, '<', 3000 * 40, "the 2,999 behind it are put off, for $once buffers");
my ($again) = cost($session, $fetch);
cmp_ok($again, '<', 1000, "and the next fetch touches $again buffers");

# Superseding the earlier visits of one piece has a cost proportional to their number.
$session->do('TRUNCATE postalytics.deliveries_unfinished');
$session->do(q{UPDATE postalytics.syncs SET enabled = false; SELECT postalytics.create_sync('l', latest_only => true)});
my %per_visit;
for my $visits (1000, 8000)
{
	$session->do(qq{SELECT postalytics.ingest((SELECT json_agg(json_build_object('mailId', 'latest of $visits', 'eventType', 7,
		'eventDate', to_char(timestamp '2026-10-01' + i * interval '10 s', 'YYYY-MM-DD HH24:MI:SS')))
		FROM generate_series(1, $visits) AS i))});
	$session->do(q{SELECT pg_sleep(1.1)});	# until the next full scan is due
	my ($buffers, $rows) = cost($session, q{SELECT * FROM postalytics.fetch('l', 100)});
	is($rows, 1, "latest_only, $visits visits to one URL: one is leased");
	is($session->selectrow_array(q{SELECT count(*) FROM postalytics.deliveries WHERE piece_id = ? AND state = 'superseded'}, undef, "latest of $visits"),
		$visits - 1, 'and the others are superseded');
	$per_visit{$visits} = $buffers / $visits;
}
cmp_ok($per_visit{8000}, '<', 1.5 * $per_visit{1000}, "each visit of 8,000 costs $per_visit{8000} buffers, of 1,000 $per_visit{1000}");
$session->do(q{UPDATE postalytics.syncs SET enabled = name = 'w'});

# 3. An ack of some rows does not wait for a fetch of others.
$session->do('TRUNCATE postalytics.deliveries_unfinished');
fill($session, 1000, 'others');
my ($one, $two) = (session('visits'), session('visits'));
my $mine = $two->selectcol_arrayref($fetch);
$one->begin_work;
is(scalar @{ $one->selectcol_arrayref($fetch) }, 100, 'a fetch in a transaction that idles');
$two->do("SET lock_timeout = '1ms'");
is($two->selectrow_array("SELECT postalytics.ack('w', ?)", undef, $mine), 100, 'does not block an ack of other rows');
$one->rollback;

$_->disconnect for $session, $one, $two;
$node->stop;
done_testing();
