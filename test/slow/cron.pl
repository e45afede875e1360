# Runs maintain() with pg_cron as docs/operate.md shows, but every minute instead of every
# night.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('cron');
$node->init;
my $share = `$ENV{PG_CONFIG} --sharedir`;
chomp $share;
plan skip_all => 'pg_cron is not installed for this server version' unless -f "$share/extension/pg_cron.control";

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_cron'\ncron.database_name = 'postgres'\ncron.use_background_workers = on");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION postalytics_status');
my ($commands) = slurp_file("$ENV{TESTDIR}/docs/operate.md") =~ /^```psql\n(CREATE EXTENSION pg_cron.*?)^```$/ms;
is($commands =~ s/17 3 \* \* \*/* * * * */, 1, 'the page has a schedule');
$node->safe_psql('postgres', $commands);
ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM cron.job_run_details WHERE status = 'succeeded'"), 'the job succeeds');
is($node->safe_psql('postgres', "SELECT count(*) > 0 FROM postalytics.maintenance_log WHERE action = 'create'"), 't', 'and has created months');

$node->stop;
done_testing();
