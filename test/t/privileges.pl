# Every object of the extension by every role, as the table in the README has it:
# each cell is tried, and what the table does not name is tried as "everything
# else".
use strict;
use warnings;
use DBI;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The table: names or "everything else", then a column a role.
my (@roles, %may);
for (split /\n/, slurp_file("$ENV{TESTDIR}/README.md"))
{
	next unless /^\| (.+) \|$/;
	my ($objects, @cells) = split / \| /, $1;
	@roles = @cells if $objects eq 'object';
	next unless @roles && @cells == @roles && $objects ne 'object';
	my @names = $objects =~ /`(\w+)`/g;
	push @names, 'everything else' if $objects =~ /everything else/;
	@{ $may{$_} }{@roles} = @cells for @names;
}
is_deeply(\@roles, [ 'PUBLIC', 'ingest', 'read', 'sync', 'owner' ], 'the table is there');

my $node = PostgreSQL::Test::Cluster->new('privileges');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status;
	SELECT postalytics.configure('latest', '36500d');
	CREATE ROLE "PUBLIC"; CREATE ROLE ingest; CREATE ROLE read; CREATE ROLE sync; CREATE ROLE owner SUPERUSER;
	SELECT postalytics.create_sync('own');
	SELECT postalytics.create_sync('another');
	SELECT postalytics.grant_ingest('ingest'), postalytics.grant_read('read'), postalytics.grant_sync('sync', 'own');
	SELECT postalytics.ingest('{"mailId": 1, "eventType": 4, "eventDate": "2026-10-06"}')});
my $connection = DBI->connect("dbi:Pg:host=" . $node->host . ";port=" . $node->port . ";dbname=postgres",
	getpwuid($<) . '', '', { RaiseError => 0, PrintError => 0, AutoCommit => 1 });

# May the role do it?  Whatever else is wrong with the command, it may.
sub may
{
	my ($role, $command, $denied) = @_;
	$connection->do($_) for 'BEGIN', qq{SET LOCAL ROLE "$role"};
	my $done = $connection->do($command);
	my $error = $done ? '' : $connection->errstr;
	$connection->do('ROLLBACK');
	return $error !~ $denied;
}

my %attempts = (
	SELECT => 'SELECT FROM %s',
	INSERT => 'INSERT INTO %s DEFAULT VALUES',
	UPDATE => 'UPDATE %s SET %s = NULL WHERE false',
	DELETE => 'DELETE FROM %s WHERE false',
	TRUNCATE => 'TRUNCATE %s');
my $member = q{pg_depend AS d WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'postalytics_status')};

sub expected
{
	my ($name, $role, $privilege) = @_;
	return (($may{$name} // $may{'everything else'})->{$role} // '') =~ /$privilege|all/ ? 1 : 0;
}

# Tables, views and sequences; and a leaf, which is a table of its own.
my $relations = $connection->selectall_arrayref(qq{
	SELECT c.relname, c.relkind, (SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = 1)
	FROM pg_class AS c
	WHERE c.relnamespace = 'postalytics'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
	ORDER BY 1});
my %seen;
for (@$relations)
{
	my ($name, $kind, $column) = @$_;
	$seen{$name} = 1;
	for my $role (@roles)
	{
		my @wrong;
		for my $privilege ($kind eq 'S' ? 'SELECT' : sort keys %attempts)
		{
			next if $kind eq 'v' && $privilege !~ ($name eq 'inbox' ? qr/SELECT|INSERT/ : qr/SELECT/);
			my $command = sprintf $attempts{$privilege}, "postalytics.$name", $column;
			push @wrong, $privilege
			  if may($role, $command, qr/^ERROR:  permission denied for (table|view|sequence) $name/) != expected($name, $role, $privilege);
		}
		is("@wrong", '', "$role: $name");
	}
}

# Functions, called with a NULL for each argument.
my $functions = $connection->selectall_arrayref(qq{
	SELECT p.proname, p.oid::regprocedure, p.prokind,
		   (SELECT string_agg(CASE WHEN a = 'internal'::regtype THEN 'NULL' ELSE 'NULL::' || a::regtype END, ', ') FROM unnest(p.proargtypes) AS a)
	FROM pg_proc AS p
	WHERE p.oid IN (SELECT d.objid FROM $member AND d.classid = 'pg_proc'::regclass)
	ORDER BY 2});
for (@$functions)
{
	my ($name, $signature, $kind, $arguments) = @$_;
	$seen{$name} = 1;
	my @wrong = grep {
		my ($allowed) = $connection->selectrow_array('SELECT has_function_privilege(?, ?, ?)', undef, $_, $signature, 'EXECUTE');
		$allowed = may($_, "SELECT postalytics.$name(" . ($arguments // '') . ')', qr/permission denied for (function|aggregate) $name/) if $allowed;
		($allowed ? 1 : 0) != expected($name, $_, 'EXECUTE')
	} @roles;
	is("@wrong", '', "EXECUTE on $signature");
}
is(join(' ', grep { !$seen{$_} && $_ ne 'everything else' && $_ ne 'mail_status' } sort keys %may), '', 'the table names nothing that is not there');

# The worker of one sync, and what it is refused.
my $denied = qr/permission denied for sync "another"/;
ok(may('sync', "SELECT postalytics.fetch('own')", qr/./), 'a worker fetches from its own sync');
ok(!may('sync', $_, $denied), "and is refused $_")
  for "SELECT postalytics.fetch('another')", "SELECT postalytics.ack('another', '{1}')",
  "SELECT postalytics.nack('another', '{1}', 'x')", "SELECT postalytics.next_due('another')";
ok(may('sync', "SELECT * FROM postalytics.ingest('{}')", qr/^$/) && !may('sync', "SELECT * FROM postalytics.ingest('{}')", qr/permission denied/),
	'and brings no events');

# An error inside of fetch leaves its caller who he was, and his session as it was,
# be it caught or not.
$connection->do('ALTER ROLE sync LOGIN');
my ($status, $said, $complaint) = $node->psql('postgres', q{
	CREATE TEMP TABLE before (x int);
	DO $$ BEGIN
		INSERT INTO before VALUES (1);
		PERFORM postalytics.fetch('own', lease => '-1 s', max_wait => '1 s');
	EXCEPTION WHEN others THEN
		INSERT INTO before VALUES (2);
		RAISE NOTICE '% for % with %', sqlerrm, current_user, current_setting('search_path');
	END $$;
	SELECT string_agg(x::text, ',') FROM before;
	SELECT postalytics.fetch('own', lease => '-1 s', max_wait => '1 s');
	SELECT current_user}, on_error_stop => 0, extra_params => [ '-U', 'sync' ]);
is($said, "2\nsync", 'an error in fetch takes back what was done since the handler began, and the session goes on');
like($complaint, qr/lease must not be negative for sync with "\$user", public/, 'and who catches it is who he was');
$connection->do('CREATE ROLE colleague; GRANT sync TO colleague');
ok(may('colleague', "SELECT postalytics.fetch('own')", qr/./), 'who has its rights may too');
$connection->do("SELECT postalytics.revoke_sync('sync', 'own')");
ok(!may('sync', "SELECT postalytics.fetch('own')", qr/permission denied for sync "own"/), 'until they are revoked');

$connection->disconnect;
$node->stop;
done_testing();
