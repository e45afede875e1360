# If max_worker_processes leaves no background worker for this extension, the server log
# says so once, and everything works without one.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('starved');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'postalytics_status'\nmax_logical_replication_workers = 0
max_worker_processes = 1");
$node->start;
$node->safe_psql('postgres', q{CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d'); SELECT postalytics.create_sync('all')});
for my $i (1 .. 30)
{
	$node->safe_psql('postgres', qq{SELECT postalytics.ingest('{"mailId": "$i", "eventType": 4, "eventDate": "2026-10-06"}')});
}
my @said = slurp_file($node->logfile) =~ /could not start background worker of extension/g;
is(scalar(@said), 1, 'thirty sessions write one line of log');

# Without a worker, ingest creates a month itself, and ack a day.
is($node->safe_psql('postgres', 'SELECT count(*) FROM postalytics.events'), '30', 'ingest created a month itself');
is($node->safe_psql('postgres', q{SELECT postalytics.ack('all', array_agg(delivery_id)) FROM postalytics.fetch('all', 10)}), '10', 'an ack succeeds');
is($node->safe_psql('postgres', q{SELECT count(*) FROM postalytics.deliveries WHERE state = 'done'}), '10', 'with its history');

# ingest waits no longer than lock_timeout for a month that an idle transaction created.
my ($in, $out) = (qq{BEGIN; SELECT postalytics.ingest('{"mailId": "a", "eventType": 4, "eventDate": "2026-08-06"}');\n}, '');
my $idle = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>&1');
$idle->pump until $out =~ /1,0,0/;
my ($status, undef, $error) = $node->psql('postgres', qq{SET lock_timeout = '100ms'; SELECT postalytics.ingest('{"mailId": "b", "eventType": 4, "eventDate": "2026-07-06"}')});
like($error, qr/could not create a partition of "postalytics.events" within 100 ms/, 'ingest waits for a month no longer than lock_timeout');
$idle->kill_kill;
$node->stop;
done_testing();
