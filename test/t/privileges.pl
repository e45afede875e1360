# Checks the table of privileges in docs/operate.md for every object of the extension
# and every kind of role.  A session of the role tries each cell, with the data of two
# accounts.  Objects that the table does not name are tried as "everything else".
use strict;
use warnings;
use DBI;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The table has object names, or "everything else", and then a column for each role.
my (@roles, %may);
for (split /\n/, slurp_file("$ENV{TESTDIR}/docs/operate.md"))
{
	next unless /^\| (.+) \|$/;
	my ($objects, @cells) = split / \| /, $1;
	@roles = @cells if $objects eq 'object';
	next unless @roles && @cells == @roles && $objects ne 'object';
	my @names = $objects =~ /`(\w+)`/g;
	push @names, 'everything else' if $objects =~ /everything else/;
	@{ $may{$_} }{@roles} = @cells for @names;
}
is(join('|', @roles), 'PUBLIC|ingest|ingest, bound|read|read, bound|sync|manage|monitor|owner', 'the table has these roles');

my $node = PostgreSQL::Test::Cluster->new('privileges');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	GRANT CREATE ON SCHEMA public TO PUBLIC;
	CREATE EXTENSION postalytics_status;
	SELECT postalytics.configure('latest', '100 years');
	CREATE ROLE "PUBLIC" LOGIN; CREATE ROLE ingest LOGIN; CREATE ROLE "ingest, bound" LOGIN; CREATE ROLE read LOGIN;
	CREATE ROLE "read, bound" LOGIN; CREATE ROLE sync LOGIN; CREATE ROLE manage LOGIN; CREATE ROLE monitor LOGIN; CREATE ROLE owner LOGIN SUPERUSER;
	SELECT postalytics.grant_ingest('ingest'), postalytics.grant_ingest('ingest, bound', 'a'),
		postalytics.grant_read('read'), postalytics.grant_read('read, bound', 'a');
	SELECT postalytics.create_sync('own', accounts => '{a}'), postalytics.create_sync('another', accounts => '{b}'),
		postalytics.create_sync('both'), postalytics.create_sync('shared', accounts => '{a,b}');
	SELECT postalytics.grant_sync('sync', 'own'), postalytics.grant_manage('manage'), postalytics.grant_monitor('monitor')});

# Give each account a returned piece, a visit, a reject, deliveries that are done and
# failed, a production error, and a piece whose contact is pending.  Also add a field name
# and a status name.
sub fill
{
	$node->safe_psql('postgres', qq{
		SELECT postalytics.ingest('[{"mailId": 1, "eventType": 3, "eventDate": "2026-10-06", "campaignId": "c", "campaignName": "C", "country": "US"},
			{"mailId": 2, "eventType": 11, "eventDate": "2026-10-06", "campaignId": "c"},
			{"mailId": 2, "eventType": 7, "eventDate": "2026-10-08", "campaignId": "c"},
			{"mailId": 4, "eventType": 11, "eventDate": "2026-10-06", "campaignId": "c"}, {"mailId": 3},
			{"mailId": 5, "eventType": "Error", "eventDate": "2026-10-06"}]', '$_')}) for 'a', 'b';
	$node->safe_psql('postgres', q{
		SELECT postalytics.nack('both', array_agg(delivery_id), 'x') FROM postalytics.fetch('both', 4);
		SELECT postalytics.nack('shared', array_agg(delivery_id), 'x', dead => true) FROM postalytics.fetch('shared', 6);
		SELECT postalytics.ack(s, array_agg(delivery_id)) FROM unnest('{own,another}'::text[]) AS s, postalytics.fetch(s, 1) GROUP BY s;
		INSERT INTO postalytics.field_names VALUES ('ref', 'mail_id');
		INSERT INTO postalytics.status_names VALUES ('sent', 'Mailed');
		SELECT postalytics.maintain();
		INSERT INTO postalytics.pending_links (contacts, piece_id, account, failed_at) VALUES ('no.contacts', '1', 'a', '-infinity'), ('no.contacts', '1', 'b', '-infinity')});
}
fill();

my %session;
for (@roles)
{
	$session{$_} = DBI->connect("dbi:Pg:host=" . $node->host . ";port=" . $node->port . ";dbname=postgres",
		$_, '', { RaiseError => 0, PrintError => 0, AutoCommit => 1 }) or die $DBI::errstr;
	$session{$_}->do('SET timezone = UTC');
}

# Run a command as a role, and roll it back.  Return its error and its result.
sub try
{
	my ($role, $command) = @_;
	my $db = $session{$role};
	$db->do('BEGIN');
	my $rows = $command =~ /^(SELECT|TABLE)/ ? $db->selectcol_arrayref($command) : $db->do($command);
	my $error = defined $rows ? '' : $db->errstr;
	$db->do('ROLLBACK');
	return ($error, ref $rows ? $rows : []);
}

sub cell
{
	my ($name, $role) = @_;
	return ($may{$name} // $may{'everything else'})->{$role} // '';
}

sub expected
{
	my ($name, $role, $privilege) = @_;
	return cell($name, $role) =~ /\b$privilege\b|^all$/ ? 1 : 0;
}

my $owner = $session{owner};
my $member = q{pg_depend AS d WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'postalytics_status')};

# Try tables, including partitions, views and sequences.
my $relations = $owner->selectall_arrayref(q{
	SELECT c.relname, c.relkind, (SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = 1),
		EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'account')
	FROM pg_class AS c
	WHERE c.relnamespace = 'postalytics'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
	ORDER BY 1});
my %attempts = (
	SELECT => 'SELECT count(*) FROM postalytics.%1$s',
	INSERT => 'INSERT INTO postalytics.%1$s DEFAULT VALUES',
	UPDATE => 'UPDATE postalytics.%1$s SET %2$s = %2$s',
	DELETE => 'DELETE FROM postalytics.%1$s',
	TRUNCATE => 'TRUNCATE postalytics.%1$s',
	TRIGGER => 'CREATE TRIGGER planted AFTER INSERT ON postalytics.%1$s FOR EACH STATEMENT EXECUTE FUNCTION suppress_redundant_updates_trigger()',
	REFERENCES => 'CREATE TABLE public.t (x text REFERENCES postalytics.%1$s)');
my %seen;
for (@$relations)
{
	my ($name, $kind, $column, $has_account) = @$_;
	$seen{$name} = 1;
	for my $role (@roles)
	{
		my @wrong;
		for my $privilege ($kind eq 'S' ? 'SELECT' : sort keys %attempts)
		{
			next if $privilege eq 'REFERENCES' && $name !~ /^(pieces|campaigns|syncs|rejects|production_errors|deliveries_unfinished|configuration|events_\d+_\d+)$/;
			next if $kind eq 'v' && $privilege !~ ($name eq 'inbox' ? qr/SELECT|INSERT/ : qr/SELECT/);
			my ($error) = try($role, sprintf $attempts{$privilege}, $name, $name eq 'syncs' ? 'enabled' : $column);
			push @wrong, "$privilege: $error" if ($error !~ /^ERROR:  permission denied for (table|view|sequence) $name/) != expected($name, $role, $privilege);
		}
		is("@wrong", '', "$role: $name");
		next unless expected($name, $role, 'SELECT') && $has_account && $name !~ /^(inbox|bindings|audit_log)$|_\d{4}/;
		my ($error, $accounts) = try($role, "SELECT DISTINCT account FROM postalytics.$name ORDER BY 1");
		is($error . join(',', @$accounts), cell($name, $role) =~ /own/ ? 'a' : 'a,b', "$role: accounts in $name");
	}
}
is(join(',', @{ (try('read, bound', 'SELECT name FROM postalytics.syncs ORDER BY 1'))[1] }), 'own', "a bound reader's syncs");
is(join(',', @{ (try('read, bound', 'SELECT name FROM postalytics.sync_health ORDER BY 1'))[1] }), 'own', 'and their health');

# Try functions, with NULLs as arguments that the planner cannot simplify to constants.
my $functions = $owner->selectall_arrayref(qq{
	SELECT p.proname, p.oid::regprocedure,
		   (SELECT string_agg(CASE WHEN a = 'internal'::regtype THEN 'NULL' ELSE format('CASE WHEN i < 1 THEN NULL::%s END', a::regtype) END, ', ') FROM unnest(p.proargtypes) AS a)
	FROM pg_proc AS p
	WHERE p.oid IN (SELECT d.objid FROM $member AND d.classid = 'pg_proc'::regclass)
	ORDER BY 2});
for (@$functions)
{
	my ($name, $signature, $arguments) = @$_;
	$seen{$name} = 1;
	my @wrong;
	for my $role (@roles)
	{
		my ($error) = try($role, "SELECT postalytics.$name(" . ($arguments // '') . ') FROM generate_series(1, 1) AS i');
		my $allowed = $error !~ /permission denied for (function|aggregate) $name/;
		($allowed) = $owner->selectrow_array('SELECT has_function_privilege(?, ?, ?)', undef, $role, $signature, 'EXECUTE')
		  if $signature =~ /internal/ || $error =~ /functions can only be called as triggers/;
		push @wrong, $role if ($allowed ? 1 : 0) != expected($name, $role, 'EXECUTE');
	}
	is("@wrong", '', "EXECUTE on $signature");
}
is(join(' ', grep { !$seen{$_} && $_ ne 'everything else' && $_ ne 'mail_status' } sort keys %may), '', 'the table names only existing objects');

# Check what a function returns to a role, or the first line of its error.
sub answers
{
	my ($role, $query, $expected, $title) = @_;
	my ($error, $rows) = try($role, $query);
	is($error =~ s/\n.*//sr . join(',', @$rows), $expected, $title);
}
my $event = q{'{"mailId": 1, "eventType": 3, "eventDate": "2026-10-06"}'};
my $ambiguous = 'ERROR:  piece "1" exists in more than one account';
for ([ 'read', 'a,b' ], [ 'read, bound', 'a' ])
{
	my ($role, $accounts) = @$_;
	answers($role, "SELECT DISTINCT account FROM $_ ORDER BY 1", $accounts, "$role: $_")
	  for "postalytics.journey('1')", "postalytics.funnel('c')", "postalytics.stuck_pieces('1 second', younger_than => NULL)";
	answers($role, "SELECT postalytics.status_as_of('1', 'infinity')", $role eq 'read' ? $ambiguous : 'ReturnedToSender', "$role: status_as_of");
	answers($role, "SELECT postalytics.status_as_of('1', 'infinity', 'b')", $role eq 'read' ? 'ReturnedToSender' : '', "$role: status_as_of, of b");
	answers($role, "SELECT count(*) FROM postalytics.journey('1', 'b')", $role eq 'read' ? 1 : 0, "$role: journey, of b");
}
is((try('read', "SELECT postalytics.status_as_of('1', 'infinity')"))[0] =~ /HINT:  Specify the account/ ? 'hint' : '', 'hint', 'and a hint');
answers('ingest', "SELECT inserted FROM postalytics.ingest($event)", '1', 'an event without an account gets no account');
answers('ingest', "SELECT inserted FROM postalytics.ingest($event, '$_')", '0', "the same event of $_ is a duplicate") for 'a', 'b';
answers('ingest, bound', "SELECT inserted FROM postalytics.ingest($event$_)", '0', "a bound role ingests for its own account ($_)") for '', ", 'a'", ", ''";
answers('manage', "UPDATE postalytics.syncs SET name = 'x'", 'ERROR:  permission denied for table syncs', 'a manager cannot rename a sync');
answers('ingest, bound', "SELECT postalytics.ingest($event, 'b')", 'ERROR:  permission denied for account "b"', 'and for no other');
answers('ingest, bound', "INSERT INTO postalytics.inbox (mail_id, account) VALUES ('1', 'a'), ('1', 'b')", 'ERROR:  permission denied for account "b"', 'nor by inbox');
answers('ingest, bound', 'SELECT rejected FROM postalytics.retry_rejects()', '1', 'it retries its own rejects');
answers('ingest', 'SELECT rejected FROM postalytics.retry_rejects()', '2', 'a role that is not bound retries all');
answers('manage', 'SELECT rejected FROM postalytics.retry_rejects()', '2', 'and so does a manager');
answers('manage', "SELECT postalytics.grant_read('manage')", 'ERROR:  permission denied for function grant_read', 'a manager cannot grant privileges');
my $denied = 'ERROR:  permission denied for sync "%s", or it does not exist';
for my $sync ('another', 'nowhere')
{
	answers('sync', $_, sprintf($denied, $sync), "a worker: $_")
	  for map { sprintf $_, $sync } "SELECT postalytics.fetch('%s')", "SELECT postalytics.ack('%s', '{1}')",
	  "SELECT postalytics.nack('%s', '{1}', 'x')", "SELECT postalytics.next_due('%s')",
  "SELECT postalytics.disable_sync('%s')";
}
answers('sync', "SELECT DISTINCT account FROM postalytics.fetch('own')", 'a', 'it fetches from its own sync');
answers('sync', "SELECT postalytics.disable_sync('own')", '', 'it disables its own sync');
answers('sync', "SELECT postalytics.enable_sync('own')", 'ERROR:  permission denied for function enable_sync', 'which it cannot enable again');
answers('manage', 'SELECT postalytics.enable_sync(name), postalytics.disable_sync(name), postalytics.enable_sync(name) FROM postalytics.syncs', ',,,', 'a manager disables and enables every sync');
answers('owner', "SELECT postalytics.fetch('nowhere')", 'ERROR:  sync "nowhere" does not exist', 'the owner gets a more specific error');
answers('owner', "SELECT DISTINCT account FROM postalytics.fetch('shared') ORDER BY 1", 'a,b', 'and is not bound to an account');
$owner->do(q{GRANT EXECUTE ON FUNCTION postalytics.fetch TO manage});
answers('manage', "SELECT postalytics.fetch('nowhere')", 'ERROR:  sync "nowhere" does not exist', 'as does a manager');
answers('manage', "SELECT postalytics.fetch('own')", 'ERROR:  permission denied for sync "own"', 'who cannot fetch');

# Privileges granted without a binding give no access.
$owner->do(q{CREATE ROLE plain LOGIN; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA postalytics TO plain; GRANT SELECT ON ALL TABLES IN SCHEMA postalytics TO plain});
$session{plain} = DBI->connect("dbi:Pg:host=" . $node->host . ";port=" . $node->port . ";dbname=postgres", 'plain', '', { RaiseError => 0, PrintError => 0 });
answers('plain', "SELECT count(*) FROM postalytics.$_", '0', "no rows of $_ without a binding")
  for qw(events events_2026_10 pieces campaigns rejects production_errors deliveries deliveries_unfinished syncs campaign_funnel sync_health bindings configuration field_names status_names);
answers('plain', "SELECT postalytics.ingest($event)", 'ERROR:  permission denied to ingest events', 'no ingest');
answers('plain', "SELECT postalytics.retry_rejects()", 'ERROR:  permission denied to ingest events', 'no retry');
answers('plain', "SELECT postalytics.fetch('own')", sprintf($denied, 'own'), 'no fetch');

# A member of a role has its bindings, a role can have several, and all can be revoked.
$owner->do(q{CREATE ROLE colleague LOGIN; GRANT sync, "read, bound", "ingest, bound" TO colleague});
$session{colleague} = DBI->connect("dbi:Pg:host=" . $node->host . ";port=" . $node->port . ";dbname=postgres", 'colleague', '', { RaiseError => 0, PrintError => 0 });
answers('colleague', "SELECT DISTINCT account FROM postalytics.fetch('own')", 'a', 'a member fetches');
answers('colleague', "SELECT DISTINCT account FROM postalytics.pieces", 'a', 'and reads');
$owner->do(q{SELECT postalytics.grant_ingest('ingest, bound', 'b')});
answers('colleague', "SELECT postalytics.ingest($event)", 'ERROR:  account must be specified', 'a role with several accounts must name one');
answers('colleague', "SELECT duplicates FROM postalytics.ingest($event, 'b')", '1', 'and can name one');
answers('colleague', "SELECT postalytics.ingest($event, 'c')", 'ERROR:  permission denied for account "c"', 'but only one of its own');
$owner->do(q{SELECT postalytics.revoke_ingest('ingest, bound', 'a'), postalytics.revoke_sync('sync', 'own'), postalytics.revoke_read('read, bound', 'a'),
	postalytics.revoke_read('read')});
answers('colleague', "SELECT duplicates FROM postalytics.ingest($event)", '1', 'after one of two accounts is revoked, the other is the default');
answers('colleague', "SELECT postalytics.fetch('own')", 'ERROR:  permission denied for function fetch', 'the sync is revoked');
answers('colleague', "SELECT FROM postalytics.pieces", 'ERROR:  permission denied for table pieces', 'and so is reading');
answers('read', "SELECT FROM postalytics.pieces", 'ERROR:  permission denied for table pieces', 'also of all accounts');
answers('manage', "SELECT name FROM postalytics.syncs WHERE name = 'own'", 'own', 'a privilege that another grant also gives is kept');

# Some roles, accounts and syncs cannot be bound.
for ([ "grant_ingest('public')", '0LP01' ], [ "grant_read('public', 'a')", '0LP01' ], [ "grant_sync('public', 'own')", '0LP01' ],
	[ 'grant_manage(NULL)', '22004' ], [ "grant_monitor('nobody')", '42704' ], [ "grant_sync('sync', 'nowhere')", '42704' ],
	[ "grant_ingest('sync', repeat('x', 256))", '22001' ], [ "grant_ingest('sync', '')", '22023' ], [ "revoke_manage('public')", '0LP01' ])
{
	my ($call, $state) = @$_;
	$owner->do("SELECT postalytics.$call");
	is($owner->state, $state, "$call is refused");
}

# A role that lost its grants by DROP OWNED does not get them back with its next grant.
$owner->do($_) for "SELECT postalytics.grant_sync('sync', 'own')", 'DROP OWNED BY sync', "SELECT postalytics.grant_sync('sync', 'another')";
is($owner->selectrow_array(q{SELECT string_agg(sync, ',') FROM postalytics.bindings WHERE role = 'sync'::regrole}), 'another', 'old bindings are not restored');
$owner->do(q{SELECT postalytics.drop_sync('another'), postalytics.create_sync('another')});
is($owner->selectrow_array(q{SELECT count(*) FROM postalytics.bindings WHERE role = 'sync'::regrole}), 0, 'nor with a sync of the same name');
$session{$_}->disconnect for 'monitor', 'sync';
$owner->do($_) for 'DROP OWNED BY monitor', 'DROP ROLE monitor', "SELECT postalytics.grant_read('read')";
is($owner->selectrow_array(q{SELECT count(*) FROM postalytics.bindings WHERE role NOT IN (SELECT oid FROM pg_roles)}), 0, 'bindings of dropped roles are removed');

# An error in fetch restores the current user and search_path, whether or not it is
# caught.
$owner->do(q{SELECT postalytics.grant_sync('sync', 'own')});
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
is($said, "2\nsync", 'an error in fetch rolls back the block of its handler, and the session continues');
like($complaint, qr/lease must not be negative for sync with "\$user", public/, 'and the handler runs as the original user');

$_->disconnect for values %session;
$node->stop;
done_testing();
