# docs/reference.md agrees with the catalog and with the errors in the sources, both
# ways: signatures, defaults, column types, settings and SQLSTATEs.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('reference');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION postalytics_status');
local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres');
chdir $ENV{TESTDIR};

command_ok([ 'test/reference', '--check' ], 'the page is up to date');

# A difference is found, whichever side it is on.
for my $change (
	[ 'a function without a comment', q{CREATE FUNCTION postalytics.f() RETURNS int RETURN 1}, qr/function f has no comment/ ],
	[ 'a function that the page lacks', q{COMMENT ON FUNCTION postalytics.f() IS 'one'}, qr/functions: not named: f/ ],
	[ 'another default', q{DROP FUNCTION postalytics.f();
		CREATE OR REPLACE FUNCTION postalytics.bar(value float8, whole float8, width int DEFAULT 30) RETURNS text LANGUAGE sql RETURN ''},
		qr/^\+- `bar\(.*DEFAULT 30\)/m ],
	[ 'another column', q{ALTER TABLE postalytics.campaigns ADD remark text; COMMENT ON COLUMN postalytics.campaigns.remark IS 'remark'},
		qr/^\+\| `remark` \| `text`/m ])
{
	my ($what, $sql, $expected) = @$change;
	$node->safe_psql('postgres', $sql);
	my ($out, $err) = ('', '');
	ok(!IPC::Run::run([ 'test/reference', '--check' ], '>', \$out, '2>', \$err), "$what makes the check fail");
	like($out . $err, $expected, "$what is named");
}

$node->stop;
done_testing();
