# Runs the commands of docs/scale.md in order, as a reader would type them, and compares
# their results with those shown.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('scale');
$node->init;
$node->start;
if ($node->safe_psql('postgres', "SELECT count(*) FROM pg_available_extensions WHERE name = 'plproxy'") eq '0')
{
	$node->stop;
	plan skip_all => 'there is no PL/Proxy for this server';
}

# The page's role must give its password.
my $me = $node->safe_psql('postgres', 'SELECT current_user');
my $hba = $node->data_dir . '/pg_hba.conf';
my $rules = slurp_file($hba);
unlink $hba;
append_to_file($hba, "local all crm_front scram-sha-256\n$rules");
$node->reload;
my ($host, $port) = ($node->host, $node->port);

# A database with events, which has no cluster.
$node->safe_psql('postgres', 'CREATE DATABASE old_crm');
$node->safe_psql('old_crm', q{CREATE EXTENSION postalytics_status;
	SELECT postalytics.ingest((SELECT json_agg(json_build_object('mailId', 'old' || i, 'eventType', 5, 'eventDate', '2026-10-07', 'campaignId', 'spring'))
		FROM generate_series(1, 500) AS i), 'client')});

# Remove what only psql's layout determines.
sub tidy
{
	my ($text) = @_;
	$text =~ s/^\(\d+ rows?\)$//mg;
	$text =~ s/[ \t]+$//mg;
	$text =~ s/\n+/\n/g;
	$text =~ s/-+/-/g;
	$text =~ s/ +/ /g;
	return $text;
}

local %ENV = (%ENV, PGHOST => $host, PGPORT => $port);
my $text = slurp_file("$ENV{TESTDIR}/docs/scale.md");
my ($result, $place) = ('', '');
while ($text =~ /^ *```(\w+)\n(.*?)^ *```$/msg)
{
	my ($kind, $block, $start) = ($1, $2, $-[0]);
	my $line = 'line ' . (1 + substr($text, 0, $start) =~ tr/\n//);
	if ($kind eq 'text')
	{
		is(tidy($result), tidy($block), "$line: the result is as shown");
		next;
	}
	$block =~ s/^ +//mg if $kind eq 'sh';
	# The server is not on localhost, and restores are run by another superuser.
	$block =~ s/GRANT postgres/GRANT $me/;
	$block =~ s/host=localhost/host=$host port=$port/g;
	my ($out, $err) = ('', '');
	my @command = $kind eq 'sql' ? ([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-d', 'crm' ], '<', \$block) : ([ 'bash', '-ec', "set -o pipefail\n$block" ]);
	ok(IPC::Run::run(@command, '>', \$out, '2>', \$err), "$line: the commands succeed") or diag $err;
	unlike($err, qr/ERROR/, "$line: without an error") or diag $err;
	$result = $out;
}
is($node->safe_psql('crm', "SELECT count(*), count(DISTINCT tableoid) FROM postalytics.events WHERE account = 'client'"), '500|4', 'the old events are in all slots');
is($node->safe_psql('crm', 'SELECT string_agg(host, \', \') FROM postalytics.cluster_health WHERE host LIKE \'%moved%\' AND reachable'),
	"host='$host' port='$port' dbname='crm_3_moved'", 'and a slot has moved');
is($node->safe_psql('crm', "SELECT count(*) FROM pg_foreign_server WHERE srvoptions::text ~ 'change me'"), '0', 'the password is in no server option');

# A role with a binding reads through the connection with the password.
$node->safe_psql('crm', q{CREATE ROLE reader LOGIN; SELECT postalytics.grant_read('reader', 'client')});
is($node->safe_psql('crm', 'SELECT count(*), min(account) FROM postalytics.pieces', extra_params => [ '-U', 'reader' ]), '500|client', 'a bound role reads');
is($node->safe_psql('crm', q{SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NOT NULL}, extra_params => [ '-U', 'reader' ]), '0', 'and sees no password');

# The page describes all that only the front has, or lacks.
my $public = q{SELECT p.proname FROM pg_proc AS p WHERE p.pronamespace = 'postalytics'::regnamespace AND COALESCE(obj_description(p.oid, 'pg_proc'), '') NOT LIKE 'internal:%'
	UNION SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'postalytics'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND c.relname !~ '^events_' AND COALESCE(obj_description(c.oid, 'pg_class'), '') NOT LIKE 'internal:%'};
my %known = map { $_ => 1 } split /\n/, $node->safe_psql('old_crm', $public);
my @own = grep { !$known{$_} } split /\n/, $node->safe_psql('crm', $public);
is(join(' ', sort @own), 'add_slot cluster_health slots split_events', 'what only the front has');
my %front = map { $_ => 1 } split /\n/, $node->safe_psql('crm', $public);
is(join(' ', sort grep { !$front{$_} } keys %known), 'join_cluster retired_months slot', 'what the front lacks');
like($text, qr/^- `$_\b/m, "the page describes $_") for @own;
for (split /\n/, $node->safe_psql('crm', q{SELECT '| `' || attname || '` | `' || format_type(atttypid, atttypmod) || '` |' FROM pg_attribute WHERE attrelid = 'postalytics.cluster_health'::regclass AND attnum > 0}))
{
	like($text, qr/^\Q$_\E/m, "the page has: $_");
}

$node->stop;
done_testing();
