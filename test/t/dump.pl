# pg_dump in its ways, pg_restore into an empty server, and pg_basebackup: the same
# rows everywhere, nothing told, and everything goes on.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @tables = qw(events pieces campaigns rejects field_names syncs deliveries maintenance_log);

my $old = PostgreSQL::Test::Cluster->new('old');
$old->init(allows_streaming => 1);
$old->start;
$old->safe_psql('postgres', slurp_file("$ENV{TESTDIR}/test/full.sql"));

sub rows
{
	my ($node, $dbname, $table) = @_;
	return $node->safe_psql($dbname, "SET timezone = 'UTC'; SELECT t::text FROM postalytics.$table AS t ORDER BY 1");
}

sub same_rows
{
	my ($node, $dbname, $title) = @_;
	is(rows($node, $dbname, $_), rows($old, 'postgres', $_), "$title: $_") for @tables;
	is($node->safe_psql($dbname, "SELECT last_value FROM postalytics.$_"),
		$old->safe_psql('postgres', "SELECT last_value FROM postalytics.$_"), "$title: $_")
	  for qw(event_id_seq reject_id_seq delivery_id_seq);
	is($node->safe_psql($dbname, 'SELECT count(*) FROM public.mine'),
		$old->safe_psql('postgres', 'SELECT count(*) FROM public.mine'), "$title: a user's view");
	is($node->safe_psql($dbname, "SELECT obj_description('postalytics.events'::regclass), count(*) FROM pg_inherits
		WHERE inhparent = 'postalytics.events'::regclass"),
		$old->safe_psql('postgres', "SELECT obj_description('postalytics.events'::regclass), count(*) FROM pg_inherits
		WHERE inhparent = 'postalytics.events'::regclass"), "$title: months");
}

# The restored server works as the old one does: without a break in its ids.
sub goes_on
{
	my ($node, $dbname, $title) = @_;
	is($node->safe_psql($dbname, q{
		SELECT * FROM postalytics.ingest('[{"ref": 1, "eventDate": "2026-10-06T14:21:09Z", "eventType": 4},
			{"ref": "new", "eventDate": "2027-10-06T14:21:09Z", "eventType": 4}, {"ref": "x"}]')}),
		'2|0|1', "$title: ingest");
	is($node->safe_psql($dbname, q{SELECT count(*), count(DISTINCT event_id) FROM postalytics.events}),
		'5002|5002', "$title: ids go on");
	is($node->safe_psql($dbname, q{SELECT status FROM postalytics.pieces WHERE piece_id = 'new'}),
		'InTransit', "$title: pieces follow");
}

my $dump = PostgreSQL::Test::Utils::tempdir();
command_ok([ 'pg_dump', '-Fc', '-f', "$dump/custom", '-d', $old->connstr('postgres') ], 'pg_dump');
command_ok([ 'pg_dump', '-f', "$dump/plain", '-d', $old->connstr('postgres') ], 'pg_dump, plain');

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
$new->append_conf('postgresql.conf', "log_statement = 'all'");
$new->start;

# A restore notifies nobody.  Who listens for a notification of its own hears
# only that one.
$new->safe_psql('postgres', "CREATE DATABASE restored");
my ($in, $out) = (qq{LISTEN postalytics_all;\n\\echo ready\n}, '');
my $psql = IPC::Run::start([ 'psql', '-XAtq', '-d', $new->connstr('restored') ], '<', \$in, '>', \$out,
	IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
$psql->pump until $out =~ /ready/;
command_ok([ 'pg_restore', '--exit-on-error', '--single-transaction', '-d', $new->connstr('restored'), "$dump/custom" ],
	'pg_restore in a single transaction');
$new->safe_psql('restored', q{NOTIFY postalytics_all, 'own'});
$in .= "SELECT 'done';\n\\q\n";
$psql->finish;
my @heard = $out =~ /with payload "([^"]*)"/g;
is_deeply(\@heard, ['own'], 'nothing is told in a restore');
same_rows($new, 'restored', 'single transaction');

command_ok([ 'pg_restore', '--exit-on-error', '--clean', '--if-exists', '-d', $new->connstr('restored'), "$dump/custom" ],
	'pg_restore --clean over it');
same_rows($new, 'restored', 'clean');
goes_on($new, 'restored', 'clean');

$new->safe_psql('postgres', "CREATE DATABASE plain");
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dump/plain", '-d', $new->connstr('plain') ], 'a plain dump through psql');
same_rows($new, 'plain', 'plain');
goes_on($new, 'plain', 'plain');

# A directory by parallel jobs; the schema first and the data later; and the one
# schema alone, with the extension that it needs.
my @connection = ('-d', $old->connstr('postgres'));
my %ways = (
	directory => [ [ 'pg_dump', '-Fd', '-j2', '-f', "$dump/directory", @connection ],
		[ 'pg_restore', '--exit-on-error', '-j2', '-d', '%s', "$dump/directory" ] ],
	two_steps => [ [ 'pg_dump', '-Fc', '--schema-only', '-f', "$dump/schema", @connection ],
		[ 'pg_dump', '-Fc', '--data-only', '-f', "$dump/data", @connection ],
		[ 'pg_restore', '--exit-on-error', '--single-transaction', '-d', '%s', "$dump/schema" ],
		[ 'pg_restore', '--exit-on-error', '--single-transaction', '-d', '%s', "$dump/data" ] ],
	one_schema => [ [ 'pg_dump', '-Fc', '--schema=postalytics', '--extension=postalytics_status', '-f', "$dump/one", @connection ],
		[ 'pg_restore', '--exit-on-error', '--single-transaction', '-d', '%s', "$dump/one" ] ]);
for my $way (sort keys %ways)
{
	$new->safe_psql('postgres', "CREATE DATABASE $way");
	for my $command (@{ $ways{$way} })
	{
		my @command = map { $_ eq '%s' ? $new->connstr($way) : $_ } @$command;
		command_ok(\@command, "$way: @command[0, 1]");
	}
	$new->safe_psql($way, q{CREATE VIEW public.mine AS SELECT piece_id FROM postalytics.pieces
		WHERE status OPERATOR(postalytics.>>) 'Mailed'}) if $way eq 'one_schema';
	same_rows($new, $way, $way);
	goes_on($new, $way, $way);
}

$old->backup('whole');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($old, 'whole');
$copy->start;
same_rows($copy, 'postgres', 'pg_basebackup');
goes_on($copy, 'postgres', 'pg_basebackup');

$_->stop for $old, $new, $copy;
done_testing();
