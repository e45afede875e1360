# The install script refuses or ignores objects planted earlier by other roles, and
# default privileges and settings change neither the extension's objects nor the
# partitions that ingest creates.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('install');
$node->init;
$node->start;
my $objects = slurp_file("$ENV{TESTDIR}/test/objects.sql");
my $event = q{SELECT inserted FROM postalytics.ingest(json_build_object('mailId', 1, 'eventType', 4, 'eventDate', '2026-11-06'))};

sub database
{
	my ($name, $sql) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, $sql) if $sql;
}
sub install
{
	my ($dbname, @more) = @_;
	my ($status, $out, $err) = $node->psql($dbname, 'CREATE EXTENSION postalytics_status', @more);
	return $status == 0 ? 'installed' : $err =~ /ERROR:  (.*)/ ? $1 : $err;
}

database('clean', 'CREATE EXTENSION postalytics_status');
my $clean = $node->safe_psql('clean', $objects);
cmp_ok(scalar(() = $clean =~ /^(function|view|table) /mg), '>', 100, 'there are objects to compare');

# The owner of the database is not a superuser.
$node->safe_psql('postgres', 'CREATE ROLE landlord LOGIN; CREATE DATABASE rented OWNER landlord');
is(install('rented', extra_params => [ '-U', 'landlord' ]), 'permission denied to create extension "postalytics_status"', 'a database owner cannot install it');

# The schema exists before the installation.
$node->safe_psql('rented', q{CREATE SCHEMA postalytics}, extra_params => [ '-U', 'landlord' ]);
is(install('rented'), 'schema "postalytics" is owned by role "landlord", which is not a superuser', 'nor create the schema');
$node->safe_psql('rented', q{CREATE FUNCTION postalytics.label(text) RETURNS text LANGUAGE sql RETURN 'planted'}, extra_params => [ '-U', 'landlord' ]);
is(install('rented'), 'schema "postalytics" is not empty', 'nor put something into it');
for my $planted ('CREATE TABLE postalytics.pieces (x int)', "CREATE TYPE postalytics.mail_status AS ENUM ('x')", 'CREATE DOMAIN postalytics.text AS int',
	'CREATE OPERATOR postalytics.= (FUNCTION = pg_catalog.int4eq, LEFTARG = int, RIGHTARG = int)', 'CREATE COLLATION postalytics.c (locale = "C")')
{
	my $name = 'planted_' . lc((split ' ', $planted)[1]);
	database($name, "CREATE SCHEMA postalytics; $planted");
	is(install($name), 'schema "postalytics" is not empty', "$planted is refused");
}
database('shared', 'CREATE SCHEMA postalytics; GRANT CREATE ON SCHEMA postalytics TO landlord');
is(install('shared'), 'other roles may create objects in schema "postalytics"', 'a schema in which other roles may create objects is refused');
$node->safe_psql('shared', 'REVOKE CREATE ON SCHEMA postalytics FROM landlord; GRANT USAGE ON SCHEMA postalytics TO landlord');
is(install('shared'), 'installed', 'an empty schema is accepted');
$node->safe_psql('postgres', 'CREATE ROLE elder SUPERUSER LOGIN');
database('inherited', 'CREATE SCHEMA postalytics; ALTER SCHEMA postalytics OWNER TO elder');
is(install('inherited'), 'installed', 'and one of another superuser, as a restore creates it');
is($node->safe_psql('inherited', $objects), $clean, 'with the same objects');

# Plant objects that match better than the server's own, in public and in the
# installer's temporary schema, with both first in search_path.
my $traps = join '', map { my ($left, $right) = @$_; qq{
	CREATE FUNCTION public.trap($left, $right) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.caught VALUES (current_query()); RETURN false; END';
	} . join('', map { "CREATE OPERATOR public.$_ (FUNCTION = public.trap, LEFTARG = $left, RIGHTARG = $right);\n" } qw(= <> < > <= >= || + - * / << <@ ~)) }
	[ 'text', 'text' ], [ 'int', 'int' ], [ 'timestamptz', 'timestamptz' ], [ 'interval', 'interval' ], [ 'date', 'int' ], [ 'anyenum', 'anyenum' ], [ 'oid', 'oid' ],
	[ 'name', 'text' ], [ 'text[]', 'text[]' ], [ 'double precision', 'double precision' ], [ 'bigint', 'bigint' ], [ 'numeric', 'numeric' ];
my $functions = join '', map { my ($name, $arguments, $result) = @$_; qq{
	CREATE FUNCTION public.$name($arguments) RETURNS $result LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.caught VALUES (current_query()); RETURN NULL; END';} }
	[ 'now', '', 'timestamptz' ], [ 'format', 'text, text', 'text' ], [ 'count', 'text', 'bigint' ], [ 'nextval', 'text', 'bigint' ], [ 'octet_length', 'text', 'int' ],
	[ 'cardinality', 'text[]', 'int' ], [ 'round', 'numeric, int', 'numeric' ], [ 'unnest', 'text[]', 'text' ], [ 'coalesce', 'text, text', 'text' ];
my $prepared = qq{
	CREATE TABLE public.caught (what text);
	GRANT INSERT, SELECT ON public.caught TO PUBLIC;
	$traps $functions
	CREATE TYPE public.trojan AS (x int);
	CREATE FUNCTION public.to_text(public.trojan) RETURNS text LANGUAGE sql RETURN 'trojan';
	CREATE CAST (public.trojan AS text) WITH FUNCTION public.to_text(public.trojan) AS IMPLICIT;
	CREATE CAST (text AS public.trojan) WITH INOUT AS IMPLICIT};
my $temporary = q{
	SET search_path = public, pg_temp, pg_catalog;
	CREATE TEMP TABLE pg_class (x int); CREATE TEMP TABLE pg_proc (x int); CREATE TEMP TABLE pg_extension (x int); CREATE TEMP TABLE pg_namespace (x int);
	CREATE TEMP TABLE events (x int); CREATE TEMP TABLE pieces (x int); CREATE TEMP TABLE bindings (x int);
	CREATE DOMAIN pg_temp.regclass AS text; CREATE DOMAIN pg_temp.regprocedure AS text; CREATE DOMAIN pg_temp.interval AS text; CREATE DOMAIN pg_temp.text AS int4;
	};
database('trapped', $prepared);
$node->safe_psql('trapped', "$temporary CREATE EXTENSION postalytics_status;
	SELECT postalytics.create_sync('s', accounts => '{a}'), postalytics.configure('retention', '20 years');
	SELECT postalytics.grant_ingest('landlord', 'a'), postalytics.grant_read('landlord', 'a'), postalytics.grant_sync('landlord', 's'), postalytics.grant_manage('landlord')");
is($node->safe_psql('trapped', "SELECT string_agg(what, ';') FROM public.caught"), '', 'nothing planted is called in the installation');
$node->safe_psql('trapped', "$temporary
	$event; SELECT * FROM postalytics.fetch('s'); SELECT postalytics.next_due('s'), postalytics.nack('s', '{1}', 'x'), postalytics.ack('s', '{1}');
	SELECT postalytics.journey('1'), postalytics.status_as_of('1', '2020-01-01'); SELECT * FROM postalytics.stuck_pieces();
	SELECT postalytics.late_after(p), postalytics.estimated_delivery(p), postalytics.is_tracked(p), postalytics.reached_at(p, 'Mailed') FROM postalytics.pieces AS p;
	SELECT postalytics.replay_sync('s', '-infinity'), postalytics.test_sync('s'), postalytics.drop_sync('s');
	TABLE postalytics.campaign_progress; TABLE postalytics.returned_mail; TABLE postalytics.sync_health; TABLE postalytics.settings;
	SELECT postalytics.maintain(); SELECT postalytics.retry_rejects()", extra_params => [ '-U', 'landlord' ]);
$node->safe_psql('trapped', "$temporary
	SELECT postalytics.move_account('a', 'b'); SELECT postalytics.ingest('{\"mailId\": 9, \"eventType\": 4, \"eventDate\": \"2026-10-06\", \"campaignId\": \"c\"}', 'a');
	SELECT postalytics.drop_campaign('c'), postalytics.revoke_read('landlord'), postalytics.revoke_manage('landlord'), postalytics.configure('retention', NULL)");
is($node->safe_psql('trapped', "SELECT string_agg(what, ';') FROM public.caught"), '', 'nor in use, by the owner or by others');
database('trapped_again', $prepared);
$node->safe_psql('trapped_again', "$temporary CREATE EXTENSION postalytics_status");
is($node->safe_psql('trapped_again', $objects), $clean, 'the objects are those of a clean installation');

# Default privileges of the installer and of the schema have no effect.
my $me = $node->safe_psql('postgres', 'SELECT current_user');
database('generous', join ';', map { ("ALTER DEFAULT PRIVILEGES $_ GRANT ALL ON TABLES TO landlord, PUBLIC", "ALTER DEFAULT PRIVILEGES $_ GRANT ALL ON SEQUENCES TO landlord, PUBLIC",
	"ALTER DEFAULT PRIVILEGES $_ GRANT ALL ON FUNCTIONS TO landlord, PUBLIC") } '', 'IN SCHEMA public');
is(install('generous'), 'installed', 'where default privileges grant everything');
is($node->safe_psql('generous', $objects), $clean, 'nothing is granted');
is($node->safe_psql('generous', "ALTER DEFAULT PRIVILEGES IN SCHEMA postalytics GRANT ALL ON TABLES TO landlord; $event"), '1', 'a month is created');
my $leaves = q{SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE i.inhparent = 'postalytics.events'::regclass};
my $leaf = $node->safe_psql('generous', $leaves);
my ($status, $out, $err) = $node->psql('generous', "SELECT FROM postalytics.$leaf", extra_params => [ '-U', 'landlord' ]);
like($err, qr/permission denied for table $leaf/, 'which no other role can read');

# The database's settings for tablespace, access method and row security have no effect.
my $folder = PostgreSQL::Test::Utils::tempdir();
mkdir "$folder/$_" for 'aside', 'chosen';
$node->safe_psql('postgres', "CREATE TABLESPACE $_ LOCATION '$folder/$_'") for 'aside', 'chosen';
database('aside', 'CREATE EXTENSION postalytics_status; CREATE ACCESS METHOD pile TYPE TABLE HANDLER heap_tableam_handler');
$node->safe_psql('aside', "ALTER DATABASE aside SET default_tablespace = aside; ALTER DATABASE aside SET default_table_access_method = pile; ALTER DATABASE aside SET row_security = off");
$node->safe_psql('aside', "SELECT postalytics.grant_ingest('landlord')");
is($node->safe_psql('aside', $event, extra_params => [ '-U', 'landlord' ]), '1', 'with other defaults events are ingested');
is($node->safe_psql('aside', "SELECT reltablespace = 0, amname FROM pg_class AS c JOIN pg_am AS a ON a.oid = relam WHERE relname = '$leaf'"), 't|heap', 'the partition is created in the tablespace of its parent');
is($node->safe_psql('aside', "SELECT count(*) FROM pg_class WHERE reltablespace <> 0 AND relnamespace = 'postalytics'::regnamespace"), '0', 'with its indexes');
is($node->safe_psql('aside', "ALTER TABLE postalytics.events SET TABLESPACE chosen;
	SELECT postalytics.ensure_partitions('2020-01-01', '2020-01-02');
	SELECT spcname FROM pg_class AS c JOIN pg_tablespace AS t ON t.oid = c.reltablespace WHERE relname = 'events_2020_01'"), "1\nchosen", 'which can be changed');

$node->stop;
done_testing();
