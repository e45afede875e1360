# Two sessions make one leaf: the second meets the first in the middle of its
# commit, when the leaf is seen in the catalog but the caches do not know it yet.
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

# A session, which is given its queries one after another.
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

# The first makes the leaf and stops while it commits; the second, whose caches
# are from before, must wait for it.
sub meet
{
	my ($leaf, $first, $second, $expected) = @_;
	my @sessions = (start_session(), start_session());
	ask($sessions[1], $second->(0));
	is(answer($sessions[1]), $expected, "$leaf: the second has its caches filled");
	append_to_file($stop, '');
	ask($sessions[0], "LOAD '$modules/slow_commit'; BEGIN; SET LOCAL slow_commit.file = '$stop'; " . $first . '; COMMIT');
	$node->poll_query_until('postgres', "SELECT to_regclass('postalytics.$leaf') IS NOT NULL") or die;
	ask($sessions[1], $second->(1));
	ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = 'ShareUpdateExclusiveLock'"),
		"$leaf: it waits for who is making it");
	unlink $stop or die;
	is(join(' ', map { answer($_) } @sessions), "$expected $expected", "$leaf: and both are done");
	$_->{run}->kill_kill for @sessions;
}

sub event
{
	my ($piece, $date) = @_;
	return qq{postalytics.ingest('{"mailId": "$piece", "eventType": 4, "eventDate": "$date"}')};
}

$node->safe_psql('postgres', 'SELECT ' . event('before', '2026-01-15'));
my @months = ('2026-01-15', '2026-10-06');
meet('events_2026_10', 'SELECT inserted FROM ' . event('first', $months[1]), sub { 'SELECT inserted FROM ' . event('second', $months[ $_[0] ]) }, '1');

my @ids = split /\n/, $node->safe_psql('postgres', "SELECT delivery_id FROM postalytics.fetch('all', lease => '1 hour')");
my $day = $node->safe_psql('postgres', q{SELECT to_char(now() AT TIME ZONE 'UTC', '"deliveries_"YYYY_MM_DD')});
my @queries = ('SELECT min(1) FROM postalytics.deliveries', "SELECT postalytics.ack('all', '{$ids[1]}')");
meet($day, "SELECT postalytics.ack('all', '{$ids[0]}')", sub { $queries[ $_[0] ] }, '1');
is($node->safe_psql('postgres', 'SELECT state, count(*) FROM postalytics.deliveries GROUP BY 1 ORDER BY 1'), "leased|2\ndone|2", 'all is as they left it');

$node->stop;
done_testing();
