# A call that waits for another transaction keeps no index page pinned.  Otherwise
# VACUUM would wait for the call, and other sessions for VACUUM.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use DBI;
use DBD::Pg;

my $node = PostgreSQL::Test::Cluster->new('pins');
$node->init;
$node->append_conf('postgresql.conf', "autovacuum = off");
$node->start;

sub session
{
	return DBI->connect('dbi:Pg:' . $node->connstr('postgres') . " user='" . getpwuid($<) . "'", undef, undef, { RaiseError => 1, PrintError => 0 });
}
my ($first, $second, $vacuum) = map { session() } 1 .. 3;

# Return a call with the next event of two pieces, which moves them to another campaign.
my $events = 0;
sub ingest
{
	$events++;
	my $date = sprintf '2026-10-06T%02d:%02d:00Z', $events / 60, $events % 60;
	my $event = qq{"eventType": 4, "eventDate": "$date", "campaignId": "c$events"};
	return qq{SELECT postalytics.ingest('[{"mailId": "7", $event}, {"mailId": "8", $event}]')};
}

# Leave dead entries in the index page of those two pieces, of rows on other heap pages.
sub leave_dead
{
	$events++;
	$first->do(qq{SELECT postalytics.ingest((SELECT json_agg(json_build_object('mailId', 1000 + i, 'eventType', 4,
		'eventDate', to_char(timestamp '2026-09-01' + $events * interval '1 min', 'YYYY-MM-DD HH24:MI'), 'campaignId', 'c$events')) FROM generate_series(1, 100) AS i))});
}
$first->do("CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d')");

sub waits
{
	my ($how, $hold) = @_;
	leave_dead() for 1 .. 2;
	$first->do(ingest());
	$first->begin_work;
	$first->do($hold);
	$second->do(ingest(), { pg_async => DBD::Pg::PG_ASYNC() });
	ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"), "$how: ingest waits");
	$vacuum->do("SET statement_timeout = '20s'");
	ok(eval { $vacuum->do('VACUUM (INDEX_CLEANUP ON) postalytics.pieces'); 1 }, "$how: VACUUM does not wait for it") or diag($@);
	ok(eval { $first->do("SET LOCAL lock_timeout = '10s'"); $first->do('ANALYZE postalytics.pieces'); 1 }, "$how: and ANALYZE does not wait for VACUUM") or diag($@);
	$first->rollback;
	$second->pg_result;
}
waits('a piece that is being written', ingest());
waits('a piece that is locked', q{SELECT FROM postalytics.pieces WHERE piece_id = '7' FOR UPDATE});
waits('a piece that is being deleted', q{DELETE FROM postalytics.pieces WHERE piece_id = '7'});

is($first->selectrow_array('SELECT string_agg(piece_id, \',\' ORDER BY piece_id) FROM postalytics.pieces WHERE piece_id < \'1\' OR piece_id > \'2\''), '7,8', 'each piece is stored once');
$_->disconnect for $first, $second, $vacuum;
$node->stop;
done_testing();
