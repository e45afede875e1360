# Two sessions create the same partition.  The second needs it while the first is
# committing, when the catalog already shows the partition but the second session's
# caches do not.  ingest waits for a month of events.  ack does not wait for a day of
# deliveries that is not committing yet, but finishes the delivery without history.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $modules = "$ENV{TESTDIR}/test/slow_commit";
system_or_bail('make', '-s', '-C', $modules, "PG_CONFIG=$ENV{PG_CONFIG}", 'with_llvm=no');

my $node = PostgreSQL::Test::Cluster->new('commit');
$node->init;
$node->start;
$node->safe_psql('postgres', q{CREATE EXTENSION postalytics_status; SELECT postalytics.create_sync('all', ordered => false)});
my $stop = PostgreSQL::Test::Utils::tempdir() . '/stop';

# Start a session that runs the queries passed to ask().
sub start_session
{
	my %session = (asks => '', said => '');
	$session{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$session{asks}, '>', \$session{said}, '2>&1',
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return \%session;
}

sub ask
{
	my ($session, $query) = @_;
	$session->{asks} .= "$query;\n";
	$session->{run}->pump_nb;
}

sub answer
{
	my ($session) = @_;
	$session->{run}->pump until $session->{said} =~ s/^(.*)\n//;
	return $1;
}

# The first session creates the partition and stops while it commits.  The second, whose
# caches are older, must wait for it.
sub meet
{
	my ($leaf, $first, $second, $expected, $how, $waits) = @_;
	my @sessions = (start_session(), start_session());
	ask($sessions[1], $second->(0));
	is(answer($sessions[1]), $expected, "$leaf: the second has its caches filled");
	append_to_file($stop, '');
	ask($sessions[0], "LOAD '$modules/slow_commit'; BEGIN; SET LOCAL slow_commit.file = '$stop'; " . $first . '; COMMIT');
	$node->poll_query_until('postgres', "SELECT to_regclass('postalytics.$leaf') IS NOT NULL") or die;
	ask($sessions[1], $second->(1));
	ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_stat_activity WHERE $waits"), "$leaf: $how");
	unlink $stop or die;
	answer($sessions[0]);
	is(answer($sessions[1]), $expected, "$leaf: and it is done");
	$_->{run}->kill_kill for @sessions;
}

sub event
{
	my ($piece, $date) = @_;
	return qq{postalytics.ingest('{"mailId": "$piece", "eventType": 4, "eventDate": "$date"}')};
}

$node->safe_psql('postgres', 'SELECT ' . event('before', '2026-01-15'));
my @months = ('2026-01-15', '2026-10-06');
meet('events_2026_10', "SELECT postalytics.ensure_partitions('2026-10-01 UTC', '2026-11-01 UTC')",
	sub { 'SELECT inserted FROM ' . event('second', $months[ $_[0] ]) }, '1',
	'the second waits for the first', "wait_event_type = 'Lock'");

# ingest's lock does not conflict with DETACH PARTITION ... CONCURRENTLY.  Here a month
# becomes detached in the middle of a call that has opened it.
my %session = map { $_ => start_session() } qw(holder detacher ingest);
my $large = q{(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 3000) AS i)};
sub three { return "SELECT inserted FROM postalytics.ingest((SELECT json_agg(json_build_object('mailId', p, 'eventType', 4, 'eventDate', '2026-10-11', 'note', $large)) FROM unnest('{a$_[0],b$_[0],c$_[0]}'::text[]) AS p))" }
ask($session{ingest}, three('0'));
is(answer($session{ingest}), '3', 'the month is in the caches');
ask($session{holder}, "BEGIN; SELECT inserted FROM " . event('a1', '2026-10-11'));
answer($session{holder});
ask($session{detacher}, "LOAD '$modules/slow_commit'; SET slow_commit.file = '$stop'; SELECT 1");
answer($session{detacher});
append_to_file($stop, '');
ask($session{detacher}, 'ALTER TABLE postalytics.events DETACH PARTITION postalytics.events_2026_10 CONCURRENTLY');
$node->poll_query_until('postgres', "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = 'postalytics.events_2026_10'::regclass") or die;
ask($session{ingest}, three('1'));
$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'") or die;
unlink $stop or die;
$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype IN ('virtualxid', 'relation')") or die;
ask($session{holder}, 'COMMIT');
is(answer($session{ingest}), '2', 'a call continues with the month that it has opened');
ask($session{detacher}, 'SELECT 2');
is(answer($session{detacher}), '2', 'and then it is detached');
$_->{run}->kill_kill for values %session;
is($node->safe_psql('postgres', 'SELECT count(*) FROM postalytics.events_2026_10'), '7', 'with all of its rows');

my @ids = split /\n/, $node->safe_psql('postgres', "SELECT delivery_id FROM postalytics.fetch('all', lease => '1 hour')");
my $day = $node->safe_psql('postgres', q{SELECT to_char(now() AT TIME ZONE 'UTC', '"deliveries_"YYYY_MM_DD')});
my @queries = ('SELECT min(1) FROM postalytics.deliveries', "SELECT postalytics.ack('all', '{$ids[1]}')");

# While an idle transaction holds an uncommitted partition for the day, an ack does not
# wait, and the delivery that it finishes has no history.
my $maintainer = start_session();
ask($maintainer, 'BEGIN; SELECT count(*) > 0 FROM postalytics.maintain()');
is(answer($maintainer), 't', 'maintain() creates the day, and its transaction idles');
is($node->safe_psql('postgres', "SET lock_timeout = '1s'; SELECT postalytics.ack('all', '{$ids[2]}')"), '1', 'an ack does not wait');
my @left = map { $node->safe_psql('postgres', $_) } (q{SELECT state, count(*) FROM postalytics.deliveries GROUP BY 1 ORDER BY 1},
	q{SELECT detail FROM postalytics.maintenance_log WHERE action = 'no history'});
is_deeply(\@left, [ 'leased|8', 'deliveries finished without history: 1' ], 'the delivery has no history, and maintenance_log says so');
like(slurp_file($node->logfile), qr/could not keep history of 1 finished delivery/, 'as does the server log');
ask($maintainer, "ROLLBACK; SELECT 'rolled back'");
is(answer($maintainer), 'rolled back', 'the partition is gone again');
$maintainer->{run}->kill_kill;

meet($day, "SELECT count(*) FROM postalytics.maintain()", sub { $queries[ $_[0] ] }, '1', 'it waits for that commit', "wait_event_type = 'Lock'");
is($node->safe_psql('postgres', 'SELECT state, count(*) FROM postalytics.deliveries GROUP BY 1 ORDER BY 1'), "leased|7\ndone|1", 'and that delivery has history');

$node->stop;
done_testing();
