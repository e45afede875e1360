# The formats of pg_dump, pg_restore into an empty server, and pg_basebackup all give
# the same rows, send no notifications, and leave a database that works.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @tables = qw(events pieces campaigns rejects production_errors field_names status_names syncs pauses breaker_events in_flight deliveries maintenance_log audit_log retired_months configuration bindings contact_links pending_links slot);

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

# The restored database works as the old one does, and its ids continue.
sub goes_on
{
	my ($node, $dbname, $title) = @_;
	is($node->safe_psql($dbname, q{
		SELECT * FROM postalytics.ingest('[{"ref": 1, "eventDate": "2026-10-06T14:21:09Z", "eventType": 4},
			{"ref": "new", "eventDate": "2027-10-06T14:21:09Z", "eventType": 4}, {"ref": "x"}]')}),
		'2|0|1', "$title: ingest");
	is($node->safe_psql($dbname, q{SELECT count(*), count(DISTINCT event_id) FROM postalytics.events}),
		'5022|5022', "$title: ids continue");
	is($node->safe_psql($dbname, q{SELECT status FROM postalytics.pieces WHERE piece_id = 'new'}),
		'InTransit', "$title: pieces follow");
	is($node->safe_psql($dbname, q{SELECT count(*) FROM postalytics.pending_links}), $title eq 'one_schema' ? '3' : '0',
		"$title: contacts are written if they were restored");
}

my $dump = PostgreSQL::Test::Utils::tempdir();
command_ok([ 'pg_dump', '-Fc', '-f', "$dump/custom", '-d', $old->connstr('postgres') ], 'pg_dump');
command_ok([ 'pg_dump', '-f', "$dump/plain", '-d', $old->connstr('postgres') ], 'pg_dump, plain');

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
$new->append_conf('postgresql.conf', "log_statement = 'all'");
$new->start;

# A restore sends no notifications: the session receives only the one sent explicitly.
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
is_deeply(\@heard, ['own'], 'a restore sends no notifications');
same_rows($new, 'restored', 'single transaction');

command_ok([ 'pg_restore', '--exit-on-error', '--clean', '--if-exists', '-d', $new->connstr('restored'), "$dump/custom" ],
	'pg_restore --clean over it');
same_rows($new, 'restored', 'clean');
goes_on($new, 'restored', 'clean');

$new->safe_psql('postgres', "CREATE DATABASE plain");
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dump/plain", '-d', $new->connstr('plain') ], 'a plain dump through psql');
same_rows($new, 'plain', 'plain');
goes_on($new, 'plain', 'plain');

# Restore a directory in parallel, the schema first and the data later, and only the one
# schema with the extension that it needs.
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

# Roles, settings, bindings, grants and refusals are restored by another superuser into
# an empty cluster whose roles have other OIDs.  A dropped role left its OID in a
# binding, and in the new cluster that is the OID of another role.
$old->safe_psql('postgres', q{
	CREATE ROLE feed LOGIN; CREATE ROLE "Reader's" LOGIN; CREATE ROLE all_reader LOGIN; CREATE ROLE worker LOGIN; CREATE ROLE manager LOGIN; CREATE ROLE monitor LOGIN; CREATE ROLE gone LOGIN;
	SELECT postalytics.grant_ingest('feed', 'agency'), postalytics.grant_read('Reader''s', 'agency'), postalytics.grant_read('all_reader'), postalytics.grant_sync('worker', 'all'),
		postalytics.grant_manage('manager'), postalytics.grant_monitor('monitor'), postalytics.grant_read('gone');
	REVOKE ALL ON ALL TABLES IN SCHEMA postalytics FROM gone; REVOKE ALL ON ALL FUNCTIONS IN SCHEMA postalytics FROM gone;
	GRANT SELECT ON postalytics.maintenance_log TO worker;
	DROP POLICY readers_of_all ON postalytics.events; DROP POLICY readers_of_all ON postalytics.pieces; DROP POLICY readers_of_all ON postalytics.campaigns;
	DROP POLICY readers_of_all ON postalytics.rejects; DROP POLICY readers_of_all ON postalytics.production_errors; DROP POLICY readers_of_all ON postalytics.deliveries; DROP POLICY readers_of_all ON postalytics.deliveries_unfinished;
	DROP ROLE gone});
my $number = $old->safe_psql('postgres', 'SELECT max(role::oid) FROM postalytics.bindings WHERE role NOT IN (SELECT oid FROM pg_roles)');
like($number, qr/^\d+$/, 'a binding of a dropped role is left');
command_ok([ 'pg_dumpall', '--roles-only', '-f', "$dump/roles", '-d', $old->connstr('postgres') ], 'pg_dumpall of roles');
command_ok([ 'pg_dump', '-Fc', '-f', "$dump/whole", '-d', $old->connstr('postgres') ], 'pg_dump');
my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->start;
my $next = $number - $other->safe_psql('postgres', 'CREATE ROLE first; SELECT oid FROM pg_roles WHERE rolname = current_role OR rolname = \'first\' ORDER BY oid DESC LIMIT 1');
$other->safe_psql('postgres', join(';', map { "CREATE ROLE filler_$_" } 1 .. $next)) if $next > 0 && $next < 5000;
$other->psql('postgres', slurp_file("$dump/roles"), on_error_stop => 0);	# one role exists already
$other->safe_psql('postgres', 'CREATE ROLE restorer SUPERUSER LOGIN; CREATE DATABASE restored');
is($other->safe_psql('postgres', "SELECT count(*) FROM pg_roles WHERE oid = $number"), '1', 'its OID is that of another role there');
command_ok([ 'pg_restore', '--exit-on-error', '-U', 'restorer', '-d', $other->connstr('restored'), "$dump/whole" ], 'pg_restore as another superuser');

# Compare roles by name, and leave out grantors.
my %same = (
	(map { $_ => "SELECT t::text FROM postalytics.$_ AS t ORDER BY 1" } grep { $_ ne 'bindings' } @tables),
	bindings => 'SELECT r.rolname, b.privilege, b.account, b.sync FROM postalytics.bindings AS b JOIN pg_roles AS r ON r.oid = b.role ORDER BY 1, 2, 3, 4',
	settings => 'SELECT * FROM postalytics.settings ORDER BY 1',
	grants => q{SELECT o.name, pg_get_userbyid(a.grantee), a.privilege_type
		FROM (SELECT c.oid::regclass::text AS name, c.relacl AS acl FROM pg_class AS c WHERE c.relnamespace = 'postalytics'::regnamespace
			UNION ALL SELECT p.oid::regprocedure::text, p.proacl FROM pg_proc AS p WHERE p.pronamespace = 'postalytics'::regnamespace) AS o,
			aclexplode(o.acl) AS a
		WHERE pg_get_userbyid(a.grantee) NOT IN (SELECT rolname FROM pg_roles WHERE rolsuper)
		ORDER BY 1, 2, 3},
	policies => "SELECT tablename, policyname, cmd, qual FROM pg_policies WHERE schemaname = 'postalytics' ORDER BY 1, 2");
for my $what (sort keys %same)
{
	is($other->safe_psql('restored', "SET timezone = 'UTC'; $same{$what}"), $old->safe_psql('postgres', "SET timezone = 'UTC'; $same{$what}"), "elsewhere: $what");
}
is($other->safe_psql('restored', 'SELECT count(*) FROM postalytics.bindings WHERE role NOT IN (SELECT oid FROM pg_roles)'), '0', 'nobody inherits the binding of the dropped role');
my $event = q{'{"ref": 1, "eventType": 4, "eventDate": "2026-10-06"}'};
my @calls = ("SELECT count(*), count(DISTINCT account) FROM postalytics.pieces", "SELECT count(*) FROM postalytics.rejects", "SELECT count(*) FROM postalytics.syncs",
	"SELECT sum(pieces) FROM postalytics.campaign_funnel", "SELECT * FROM postalytics.ingest($event, 'agency')", "SELECT * FROM postalytics.ingest($event, 'other')",
	"SELECT * FROM postalytics.retry_rejects()", "SELECT count(*) FROM postalytics.fetch('all', 3)", "SELECT postalytics.fetch('some')", "SELECT postalytics.fetch('none')",
	"SELECT name FROM postalytics.create_sync('new')", "SELECT postalytics.configure('latest', '50 years')", "SELECT count(*) FROM postalytics.settings", "SELECT count(*) FROM postalytics.bindings WHERE role IN (SELECT oid FROM pg_roles)",
	"SELECT count(*) FROM postalytics.maintenance_log", "SELECT postalytics.drop_campaign('c0')", "UPDATE postalytics.syncs SET enabled = true", "SELECT postalytics.status_as_of('1', 'infinity')");
for my $role ('feed', "Reader's", 'all_reader', 'worker', 'manager', 'monitor')
{
	my @answers = map {
		my ($node, $dbname) = @$_;
		[ map { my ($status, $out, $err) = $node->psql($dbname, "BEGIN; $_; ROLLBACK", extra_params => [ '-U', $role ]); [ $_, $out, $err =~ /(ERROR:.*)/ ] } @calls ]
	} [ $old, 'postgres' ], [ $other, 'restored' ];
	is_deeply($answers[1], $answers[0], "elsewhere: what $role is allowed and refused");
}
goes_on($other, 'restored', 'elsewhere');
is($other->safe_psql('restored', q{SELECT postalytics.maintain(); SELECT count(*) FROM pg_policies WHERE policyname = 'readers_of_all' AND roles = '{all_reader}'}) =~ s/.*\n//sr, '7', 'maintain creates the policies that a dump leaves out');

# In parallel, the bindings may be restored before the syncs.
$old->safe_psql('postgres', "SELECT count(postalytics.create_sync('sync' || i)) FROM generate_series(1, 2000) AS i; CREATE DATABASE parallel; SELECT postalytics.grant_sync('worker', 'sync2000')");
command_ok([ 'pg_dump', '-Fd', '-f', "$dump/parallel", '-d', $old->connstr('postgres') ], 'pg_dump with many syncs');
command_ok([ 'pg_restore', '--exit-on-error', '-j4', '-d', $old->connstr('parallel'), "$dump/parallel" ], 'pg_restore --jobs');
same_rows($old, 'parallel', 'parallel');
$old->safe_psql('postgres', q{SELECT count(postalytics.drop_sync('sync' || i)) FROM generate_series(1, 2000) AS i});
is($old->safe_psql('postgres', q{SELECT count(*) FROM postalytics.bindings WHERE sync = 'sync2000'}), '0', 'a binding is deleted with its sync');

$_->stop for $old, $new, $copy, $other;
done_testing();
