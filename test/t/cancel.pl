# A large ingest that is cancelled, times out, or runs out of disk space fails with a
# clean error and leaves nothing behind, and the next call works.
use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('cancel');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d');
	SELECT postalytics.create_sync('all');
	CREATE TABLE feed AS
	SELECT json_agg(json_build_object('mailId', i, 'eventType', 4, 'eventDate', timestamp '2026-01-01' + i * interval '2 minutes',
		'campaignId', 'c' || i % 7, 'note', repeat('x', 500))) AS document
	FROM generate_series(1, 200000) AS i});

sub nothing_left
{
	my ($title) = @_;
	is($node->safe_psql('postgres', q{SELECT (SELECT count(*) FROM postalytics.events), (SELECT count(*) FROM postalytics.pieces),
		(SELECT count(*) FROM postalytics.deliveries), (SELECT count(*) FROM postalytics.campaigns), (SELECT count(*) FROM postalytics.rejects)}),
		'0|0|0|0|0', "$title: nothing is left behind");
}

# Cancel it later and later, until a call completes.
my ($cancelled, $timeout) = (0, 20);
for (;; $timeout *= 2)
{
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY sqlstate
		SET statement_timeout = $timeout; SELECT inserted FROM feed, postalytics.ingest(document)");
	last if $status == 0 && $out eq '200000';
	like($err, qr/ERROR:  57014/, "statement_timeout of $timeout ms");
	nothing_left("statement_timeout of $timeout ms");
	$cancelled++;
}
cmp_ok($cancelled, '>', 1, 'it was cancelled in the middle');
is($node->safe_psql('postgres', 'SELECT count(*) FROM postalytics.pieces'), 200000, 'the call that was not cancelled is complete');
$node->safe_psql('postgres', 'TRUNCATE postalytics.events, postalytics.pieces, postalytics.campaigns, postalytics.deliveries');

# Another session cancels it after it has begun to insert.
my ($out, $err) = ('', '');
my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', '\set VERBOSITY sqlstate',
	'-c', 'SELECT inserted FROM feed, postalytics.ingest(document)' ], '>', \$out, '2>', \$err);
$node->poll_query_until('postgres', q{SELECT tuples_processed > 0 FROM pg_stat_progress_copy}, 't');
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_progress_copy});
$session->finish;
like($err, qr/ERROR:  57014/, 'pg_cancel_backend');
nothing_left('pg_cancel_backend');

# The disk is full.  test/run mounts a small one if it can; that requires root.
SKIP:
{
	my $disk = "$ENV{TESTDIR}/small_disk";
	skip 'no small disk: test/run could not mount one', 4 unless -e "$disk/mounted";
	$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$disk/space'") if mkdir "$disk/space";
	$node->safe_psql('postgres', 'DROP EXTENSION postalytics_status CASCADE');
	$node->safe_psql('postgres', q{SET default_tablespace = small; CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d')});
	$node->safe_psql('postgres', q{ALTER DATABASE postgres SET default_tablespace = small});
	append_to_file("$disk/filler", 'x' x (10 * 1024 * 1024));
	my ($status, $inserted, $message) = $node->psql('postgres', "\\set VERBOSITY sqlstate
		SELECT inserted FROM feed, postalytics.ingest(document)");
	like($message, qr/ERROR:  53100/, 'a full disk is an error');
	nothing_left('a full disk');
	# Its partitions remain, with the space of the dead rows, until VACUUM.  As with
	# any table, somebody must free space first.
	unlink "$disk/filler" or die;
	is($node->safe_psql('postgres', q{SELECT * FROM postalytics.ingest('{"mailId": 1, "eventType": 4, "eventDate": "2026-10-06"}')}),
		'1|0|0', 'the next call works once there is space');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM postalytics.pieces'), '1', 'and counts once');
}

$node->stop;
done_testing();
