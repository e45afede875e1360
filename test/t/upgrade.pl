# ALTER EXTENSION UPDATE from each earlier release: object by object what a fresh
# install makes, with all data kept and everything going on.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = $ENV{TESTDIR};
my $node = PostgreSQL::Test::Cluster->new('upgrade');
$node->init;
$node->start;

# A line an object of the extension, with all that can be said of it; grants in
# an order of their own, for theirs is that of their making.
my $objects = q{
	SET search_path = '';
	SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0),
		   COALESCE(pg_catalog.obj_description(d.objid, d.classid::pg_catalog.regclass::text), ''),
		   COALESCE((SELECT pg_catalog.pg_get_functiondef(p.oid) FROM pg_catalog.pg_proc AS p
					 WHERE p.oid = d.objid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.prokind <> 'a'), ''),
		   COALESCE((SELECT pg_catalog.row_to_json(a)::text FROM pg_catalog.pg_aggregate AS a
					 WHERE a.aggfnoid = d.objid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass), ''),
		   COALESCE((SELECT pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class AS c
					 WHERE c.oid = d.objid AND c.relkind = 'v' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass), ''),
		   (SELECT pg_catalog.string_agg(acl::text, ',' ORDER BY acl::text) FROM (
				SELECT pg_catalog.unnest(c.relacl) FROM pg_catalog.pg_class AS c
				WHERE c.oid = d.objid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
				UNION ALL SELECT pg_catalog.unnest(p.proacl) FROM pg_catalog.pg_proc AS p
				WHERE p.oid = d.objid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
				UNION ALL SELECT pg_catalog.unnest(t.typacl) FROM pg_catalog.pg_type AS t
				WHERE t.oid = d.objid AND d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass) AS a (acl)),
		   (SELECT pg_catalog.string_agg(acl::text, ',' ORDER BY acl::text)
			FROM pg_catalog.pg_init_privs AS i, pg_catalog.unnest(i.initprivs) AS acl
			WHERE i.objoid = d.objid AND i.classoid = d.classid),
		   (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
						a.attstorage, a.attcollation::pg_catalog.regcollation, pg_catalog.pg_get_expr(f.adbin, f.adrelid),
						pg_catalog.col_description(a.attrelid, a.attnum)), E'\n' ORDER BY a.attnum)
			FROM pg_catalog.pg_attribute AS a LEFT JOIN pg_catalog.pg_attrdef AS f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
			WHERE a.attrelid = d.objid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped),
		   (SELECT pg_catalog.string_agg(pg_catalog.pg_get_indexdef(i.indexrelid), E'\n' ORDER BY i.indexrelid::pg_catalog.regclass::text)
			FROM pg_catalog.pg_index AS i WHERE i.indrelid = d.objid),
		   (SELECT pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(c.oid), E'\n' ORDER BY c.conname)
			FROM pg_catalog.pg_constraint AS c WHERE c.conrelid = d.objid AND c.contype <> 'n'),
		   (SELECT pg_catalog.string_agg(pg_catalog.pg_get_triggerdef(t.oid), E'\n' ORDER BY t.tgname)
			FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = d.objid AND NOT t.tgisinternal),
		   (SELECT c.reloptions::text FROM pg_catalog.pg_class AS c WHERE c.oid = d.objid),
		   (SELECT pg_catalog.array_position(x.extconfig, d.objid) IS NOT NULL FROM pg_catalog.pg_extension AS x WHERE x.oid = d.refobjid)
	FROM pg_catalog.pg_depend AS d
	WHERE d.deptype = 'e'
	  AND d.refobjid = (SELECT oid FROM pg_catalog.pg_extension WHERE extname = 'postalytics_status')
	ORDER BY 1};

$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', 'CREATE EXTENSION postalytics_status');
my $fresh = $node->safe_psql('fresh', $objects);
cmp_ok(scalar(() = $fresh =~ /^(function|view|table) /mg), '>', 60, 'there are objects to compare');

my @released = sort glob("$top/releases/postalytics_status--*.sql");
note 'nothing has been released yet, so there is nothing to update from' if !@released;
my ($current) = $node->safe_psql('fresh', "SELECT extversion FROM pg_extension WHERE extname = 'postalytics_status'");
my @rows = map { "SELECT t::text FROM postalytics.$_ AS t ORDER BY 1" }
  qw(events pieces campaigns rejects field_names syncs deliveries maintenance_log);

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
	is($node->safe_psql($database, q{SELECT postalytics.configure('latest', '36500d');
		SELECT * FROM postalytics.ingest('[{"mailId": "new", "eventDate": "2027-10-06", "eventType": 4}, {"mailId": 1}]')}),
		'1|0|1', "$version: ingest goes on");
	$node->safe_psql($database, "DROP OWNED BY \"r$version\"");
	my $updated = $node->safe_psql($database, $objects);
	ok($updated eq $fresh, "$version: the update makes what a fresh install makes")
	  or do {
		my %fresh = map { $_ => 1 } split /\n/, $fresh;
		my %updated = map { $_ => 1 } split /\n/, $updated;
		diag("updated only: $_") for grep { !$fresh{$_} } sort keys %updated;
		diag("fresh only: $_") for grep { !$updated{$_} } sort keys %fresh;
	  };
}

$node->stop;
done_testing();
