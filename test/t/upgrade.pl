# ALTER EXTENSION UPDATE from each earlier release gives the same objects as a fresh
# installation, and keeps all data and grants.  Afterwards ingest works.  The objects of
# the front of a cluster are compared as well, if there is PL/Proxy.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = $ENV{TESTDIR};
my $node = PostgreSQL::Test::Cluster->new('upgrade');
$node->init;
$node->start;

my $objects = slurp_file("$top/test/objects.sql");

$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', 'CREATE EXTENSION postalytics_status');
my $fresh = $node->safe_psql('fresh', $objects);
cmp_ok(scalar(() = $fresh =~ /^(function|view|table) /mg), '>', 60, 'there are objects to compare');

my @released = sort glob("$top/releases/postalytics_status--*.sql");
note 'nothing has been released yet, so there is nothing to update from' if !@released;
my ($current) = $node->safe_psql('fresh', "SELECT extversion FROM pg_extension WHERE extname = 'postalytics_status'");
my @rows = map { "SELECT t::text FROM postalytics.$_ AS t ORDER BY 1" }
  qw(events pieces campaigns rejects production_errors field_names status_names syncs pauses breaker_events in_flight deliveries maintenance_log audit_log retired_months);

# True if the objects of an updated extension are those of a fresh one.
sub same_objects
{
	my ($updated, $fresh, $name) = @_;
	ok($updated eq $fresh, $name) and return;
	my %fresh = map { $_ => 1 } split /\n/, $fresh;
	my %updated = map { $_ => 1 } split /\n/, $updated;
	diag("updated only: $_") for grep { !$fresh{$_} } sort keys %updated;
	diag("fresh only: $_") for grep { !$updated{$_} } sort keys %fresh;
}

for my $version (map { /--([0-9.]+)\.sql$/ && $1 ne $current ? $1 : () } @released)
{
	my $database = "from_$version";
	$node->safe_psql('postgres', qq{CREATE DATABASE "$database"});
	$node->safe_psql($database, "CREATE EXTENSION postalytics_status VERSION '$version'");
	(my $full = slurp_file("$top/test/full.sql")) =~ s/^CREATE EXTENSION.*//m;
	$node->safe_psql($database, "$full; CREATE ROLE \"r$version\"; SELECT postalytics.grant_sync('r$version', 'all')");
	my $before = join "\n", map { $node->safe_psql($database, $_) } @rows;
	$node->safe_psql($database, 'ALTER EXTENSION postalytics_status UPDATE');
	my $granted = $node->safe_psql($database, "SELECT has_function_privilege('r$version', 'postalytics.next_due(text)', 'EXECUTE')");
	is($granted, 't', "$version: grants are kept");
	is(join("\n", map { $node->safe_psql($database, $_) } @rows), $before, "$version: rows are kept");
	is($node->safe_psql($database, q{DO $$ BEGIN PERFORM postalytics.configure('latest', '36500d'); END $$;
		SELECT * FROM postalytics.ingest('[{"mailId": "new", "eventDate": "2027-10-06", "eventType": 4}, {"mailId": 1}]')}),
		'1|0|1', "$version: ingest works");
	$node->safe_psql($database, "DROP OWNED BY \"r$version\"");
	same_objects($node->safe_psql($database, $objects), $fresh, "$version: the objects are those of a fresh installation");
}

if ($node->safe_psql('postgres', "SELECT count(*) FROM pg_available_extensions WHERE name = 'plproxy'") eq '1')
{
	$node->safe_psql('postgres', 'CREATE DATABASE front');
	$node->safe_psql('front', 'CREATE EXTENSION postalytics_cluster CASCADE');
	my $front = $node->safe_psql('front', $objects);
	like($front, qr/^function postalytics\.add_slot/m, 'there are objects of a front');
	for my $version (map { /--([0-9.]+)\.sql$/ && $1 ne $current ? $1 : () } glob("$top/releases/postalytics_cluster--*.sql"))
	{
		$node->safe_psql('postgres', qq{CREATE DATABASE "front_$version"});
		$node->safe_psql("front_$version", "CREATE EXTENSION postalytics_cluster VERSION '$version' CASCADE; ALTER EXTENSION postalytics_cluster UPDATE");
		same_objects($node->safe_psql("front_$version", $objects), $front, "$version: the objects of the front");
	}
}

$node->stop;
done_testing();
