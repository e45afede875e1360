# Attempts to cross account boundaries, each made as the role that would benefit.
# privileges.pl tests what each role may do, and accounts.pl that two accounts do not
# affect each other.
use strict;
use warnings;
use DBI;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('walls');
$node->init;
$node->append_conf('postgresql.conf', "autovacuum_naptime = '1s'\nmax_parallel_workers_per_gather = 2");
$node->start;
$node->safe_psql('postgres', q{
	GRANT CREATE ON SCHEMA public TO PUBLIC;
	CREATE EXTENSION postalytics_status;
	SELECT postalytics.configure('latest', '100 years');
	CREATE ROLE worker LOGIN; CREATE ROLE other LOGIN; CREATE ROLE feed LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE everybody LOGIN; CREATE ROLE manager LOGIN;
	SELECT postalytics.create_sync('mine', accounts => '{a}'), postalytics.create_sync('theirs', accounts => '{b}'), postalytics.create_sync('all');
	SELECT postalytics.grant_sync('worker', 'mine'), postalytics.grant_sync('other', 'theirs'), postalytics.grant_ingest('feed', 'a'),
		postalytics.grant_read('reader', 'a'), postalytics.grant_read('everybody'), postalytics.grant_manage('manager');
	SELECT postalytics.ingest((SELECT json_agg(json_build_object('mailId', i, 'eventType', 4, 'eventDate', '2026-10-06', 'campaignId', 'c', 'campaignName', 'of b',
		'to', json_build_object('firstName', 'Secret'), 'fields', json_build_object('x', i))) FROM generate_series(1, 2000) AS i), 'b')});

sub session
{
	my ($role) = @_;
	return DBI->connect("dbi:Pg:host=" . $node->host . ";port=" . $node->port . ";dbname=postgres", $role, '', { RaiseError => 0, PrintError => 0 });
}
my $me = $node->safe_psql('postgres', 'SELECT current_user');
my %session = map { $_ => session($_) } qw(worker other feed reader everybody manager), $me;
my $superuser = $session{$me};

# Run commands that must succeed.
sub run
{
	my ($role, $commands) = @_;
	$session{$role}->do($commands) or die $session{$role}->errstr;
}

sub refused
{
	my ($role, $query, $error, $title) = @_;
	my $rows = $session{$role}->selectall_arrayref($query);
	like($rows ? 'returned ' . scalar(@$rows) . ' rows' : $session{$role}->errstr, $error, $title);
}
my $denied = qr/permission denied for sync "theirs", or it does not exist/;

# A worker makes other roles run its function: in an index expression, which ANALYZE and
# autovacuum evaluate, and as SECURITY DEFINER.
run('worker', q{
	CREATE TABLE bait (x int);
	CREATE TABLE tried (by text, backend text, result text);
	CREATE FUNCTION note(result text) RETURNS void LANGUAGE sql AS $$
		INSERT INTO public.tried VALUES (current_user, (SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid()), result) $$;
	CREATE FUNCTION spring(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		BEGIN
			PERFORM postalytics.fetch('theirs');
			PERFORM public.note('fetched');
		EXCEPTION WHEN insufficient_privilege THEN
			PERFORM public.note(sqlerrm);
		END;
		RETURN x;
	END $$;
	CREATE INDEX ON bait (spring(x)) WHERE x > 0;
	INSERT INTO bait SELECT -i FROM generate_series(1, 200) AS i;
	ALTER TABLE bait SET (autovacuum_analyze_threshold = 1, autovacuum_analyze_scale_factor = 0, autovacuum_vacuum_insert_threshold = 1);
	CREATE INDEX ON bait (spring(x)) WHERE x < -199});
run($me, 'ANALYZE bait');
run('worker', 'DELETE FROM tried');
run('worker', 'INSERT INTO bait SELECT -i FROM generate_series(1, 300) AS i');
# pg_stat_activity hides the backend type of another role's backend.
ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM public.tried WHERE backend IS NULL"), 'autovacuum evaluates an index expression');
is(join(';', map { @$_ } @{ $superuser->selectall_arrayref("SELECT DISTINCT by || ': ' || result FROM tried") }),
	'worker: permission denied for sync "theirs", or it does not exist', 'which fetches nothing');
run('worker', q{CREATE FUNCTION lure() RETURNS SETOF postalytics.delivery LANGUAGE sql SECURITY DEFINER AS $$ SELECT * FROM postalytics.fetch('theirs') $$});
refused($me, 'SELECT lure()', $denied, 'a SECURITY DEFINER function runs with the privileges of its owner');
run('other', q{CREATE FUNCTION lent() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT count(*) FROM postalytics.fetch('theirs', 1) $$});
is($session{worker}->selectrow_array('SELECT lent()'), 1, 'also if the owner is another worker');
run($me, q{CREATE VIEW opening AS SELECT * FROM postalytics.fetch('theirs'); GRANT SELECT ON opening TO worker});
refused('worker', 'TABLE opening', $denied, 'a view runs its functions as the role that queries it');
run($me, 'SET ROLE worker');
refused($me, "SELECT postalytics.fetch('theirs')", $denied, 'a superuser who has done SET ROLE has the access of that role');
is($superuser->selectrow_array("SELECT count(*) FROM postalytics.fetch('mine')"), 0, 'with its own sync');
run($me, 'RESET ROLE');
run($me, q{PREPARE ask AS SELECT count(*) FROM postalytics.fetch('theirs', 1)});
is($superuser->selectrow_array('EXECUTE ask'), 1, 'a prepared statement');
run($me, 'SET ROLE worker');
refused($me, 'EXECUTE ask', $denied, 'is checked for the role that executes it');
run($me, 'RESET ROLE');

# The privileges of a role are revoked while it has an open session.
is($session{other}->selectrow_array("SELECT count(*) FROM postalytics.fetch('theirs', 1)"), 1, 'an old session fetches');
run($me, "SELECT postalytics.grant_sync('other', 'mine'), postalytics.revoke_sync('other', 'theirs')");
refused('other', "SELECT postalytics.fetch('theirs')", $denied, 'until its privilege is revoked');
run($me, "SELECT postalytics.grant_sync('other', 'theirs'); ALTER ROLE other RENAME TO another");
is($session{other}->selectrow_array("SELECT count(*) FROM postalytics.fetch('theirs', 1)"), 1, 'a role may be renamed');
run($me, 'ALTER ROLE another RENAME TO other');

# The feed of one account cannot change the pieces and campaigns of another by their
# ids.
my $before = $superuser->selectrow_array(q{SELECT md5(string_agg(p::text, ';' ORDER BY p)) FROM postalytics.pieces AS p WHERE account = 'b'});
run('feed', q{SELECT postalytics.ingest('[{"mailId": 1, "eventType": 3, "eventDate": "2026-10-07", "campaignId": "c", "campaignName": "stolen", "account": "b",
	"to": {"firstName": "Mallory"}}]')});
is($superuser->selectrow_array(q{SELECT md5(string_agg(p::text, ';' ORDER BY p)) FROM postalytics.pieces AS p WHERE account = 'b'}), $before, 'pieces are unchanged');
is(join(',', map { "@$_" } @{ $superuser->selectall_arrayref('SELECT account, name FROM postalytics.campaigns ORDER BY 1') }), 'a stolen,b of b', 'and so is the name of a campaign');
refused('feed', "SELECT postalytics.ingest('[]', 'b')", qr/permission denied for account "b"/, 'no argument helps');
refused('feed', "SELECT postalytics.ingest(NULL, 'b')", qr/permission denied for account "b"/, 'nor without events');
run($me, "INSERT INTO postalytics.field_names VALUES ('account', 'account')");
run('feed', q{SELECT postalytics.ingest('[{"mailId": "taught", "eventType": 3, "eventDate": "2026-10-07", "account": "b"}, {"mailId": "taught", "account": "b"}]')});
run('feed', q{INSERT INTO postalytics.inbox (payload) VALUES ('{"mailId": "taught", "eventType": 4, "eventDate": "2026-10-07", "account": "b"}')});
refused($me, "SELECT postalytics.grant_$_('other', '')", qr/cannot bind a role to the empty account/, "cannot bind a role to the empty account ($_)") for 'ingest', 'read';
run($me, q{SELECT postalytics.ingest('[{"mailId": "agency", "eventType": 3, "eventDate": "2026-10-07", "account": "b"}, {"mailId": "agency", "account": "b", "to": {"email": "b@example"}},
	{"mailId": "agency", "to": {"email": "b@example"}}, {"mailId": "agency", "account": 7, "eventType": 3}]')});
is(join(';', map { "@$_" } @{ $superuser->selectall_arrayref("SELECT account, reason FROM postalytics.rejects ORDER BY reject_id") }),
	'a missing event type;b missing event type; missing event type;7 missing event date', 'a reject has the account that its event would have');
is($session{reader}->selectrow_array("SELECT count(*) FROM postalytics.rejects WHERE payload::text LIKE '%b\@example%'"), 0, 'and a reader of another account cannot see it');
run($me, q{UPDATE postalytics.rejects SET payload = (payload::jsonb || '{"eventType": 3, "eventDate": "2026-10-09"}')::json});
is($session{feed}->selectrow_array('SELECT inserted FROM postalytics.retry_rejects()'), 1, 'a bound role retries its own');
is($superuser->selectrow_array('SELECT inserted FROM postalytics.retry_rejects()'), 3, 'and the owner the rest');
is(join(',', map { "@$_" } @{ $superuser->selectall_arrayref("SELECT account, piece_id, count(*) FROM postalytics.events WHERE piece_id IN ('taught', 'agency') GROUP BY 1, 2 ORDER BY 1, 2") }),
	' agency 1,7 agency 1,a taught 3,b agency 2', 'an account in field_names is ignored for a bound role, also when a reject is retried');
run($me, "DELETE FROM postalytics.field_names");

# An error within a statement restores the current user.
$session{feed}->do(q{INSERT INTO postalytics.inbox (mail_id, event_type, event_date, account) VALUES ('x', '4', '2026-10-06', 'a'), ('x', '4', '2026-10-06', 'b')});
is($session{feed}->selectrow_array('SELECT current_user'), 'feed', 'after an error in inbox');
refused('feed', 'TABLE postalytics.pieces', qr/permission denied/, 'and the privileges are those of the caller');
run('feed', q{CREATE FUNCTION peek() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN current_user || (SELECT count(*) FROM postalytics.pieces); EXCEPTION WHEN others THEN RETURN 'nobody'; END $$});
run('feed', q{INSERT INTO postalytics.inbox (mail_id, event_type, event_date) SELECT peek() || i, '4', '2026-10-06' FROM generate_series(1, 3) AS i});
is($superuser->selectrow_array("SELECT count(*) FROM postalytics.events WHERE piece_id LIKE 'nobody%'"), 3, 'expressions in an INSERT on inbox are evaluated as the caller');

# Functions in the queries of a reader of one account see no rows of others.
run('reader', q{CREATE FUNCTION tell(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE NOTICE 'saw %', $2; RETURN true; END $$});
my @seen;
{
	local $SIG{__WARN__} = sub { push @seen, @_ };
	local $session{reader}->{PrintWarn} = 1;
	my ($count) = $session{reader}->selectrow_array(q{SELECT count(*) FROM postalytics.pieces WHERE tell(piece_id, account)});
	cmp_ok($count, '>', 0, 'a reader sees its own rows');
}
is(scalar(grep { /saw b/ } @seen), 0, 'a function in its query sees no other row');
is($session{reader}->selectrow_array("SELECT count(*) FROM postalytics.$_ AS t WHERE t::text LIKE '%Secret%' OR t::text LIKE '%of b%'"), 0, "no row of $_")
  for qw(events pieces campaigns rejects production_errors deliveries deliveries_unfinished delivery_errors campaign_funnel campaign_progress returned_mail syncs sync_health);
refused('reader', 'SELECT * FROM postalytics.events_2026_10', qr/permission denied/, 'nor by a partition');
is($session{reader}->selectrow_array("SELECT count(*) FROM pg_stats WHERE schemaname = 'postalytics' AND tablename IN ('events', 'pieces', 'events_2026_10', 'deliveries_unfinished')"), 0, 'nor by statistics');

# The same holds for parallel queries of a session that has not read its bindings yet.
# PostgreSQL 16 renamed the setting.
my $force_parallel = q{SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')};
my $parallel = session('reader');
$parallel->do("SET $_") for 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0', 'min_parallel_table_scan_size = 0';
$parallel->do($force_parallel);
is($parallel->selectrow_array('SELECT count(*) FILTER (WHERE account <> \'a\') FROM postalytics.pieces'), 0, 'in parallel');
is($parallel->selectrow_array("SELECT count(postalytics.late_after(p)) FROM postalytics.pieces AS p"), 0, 'with a setting that parallel workers read');
is($parallel->selectrow_array("SELECT count(*) FROM postalytics.pieces AS p WHERE postalytics.status_as_of(p.piece_id, '2026-10-01', p.account) IS NOT NULL"), 0, 'and with functions that read tables');
is($parallel->err, undef, 'without an error');
run($me, "SELECT postalytics.grant_read('reader', 'b')");
cmp_ok($parallel->selectrow_array("SELECT count(*) FROM postalytics.pieces WHERE account = 'b'"), '>', 1000, 'a new binding takes effect immediately');
run($me, "SELECT postalytics.revoke_read('reader', 'b')");
is($parallel->selectrow_array("SELECT count(*) FROM postalytics.pieces WHERE account = 'b'"), 0, 'and so does its revocation');
$parallel->disconnect;

# Row-level security does not slow down readers of all accounts: they can use an index
# whose operator is not leakproof.
run($me, "CREATE INDEX pieces_x ON postalytics.pieces ((fields ->> 'x')); ANALYZE postalytics.pieces");
sub explained
{
	my ($role) = @_;
	return join "\n", map { @$_ } @{ $session{$role}->selectall_arrayref(q{EXPLAIN SELECT * FROM postalytics.pieces WHERE fields ->> 'x' = '7'}) };
}
like(explained('everybody'), qr/Scan (using|on) pieces_x/, 'a reader of all accounts gets an index scan');
unlike(explained('everybody'), qr/InitPlan|account/, 'and no condition');
unlike(explained('reader'), qr/pieces_x/, 'a reader of one account does not');
is($session{everybody}->selectrow_array(q{SELECT count(*) FROM postalytics.pieces WHERE fields ->> 'x' = '7'}), 1, 'a reader of all accounts finds the row');
run($me, 'DROP POLICY readers_of_all ON postalytics.pieces');
is($session{everybody}->selectrow_array(q{SELECT count(*) FROM postalytics.pieces WHERE fields ->> 'x' = '7'}), 1, 'also without that policy, as after a restore');
run($me, "SELECT postalytics.grant_read('everybody')");
like(explained('everybody'), qr/pieces_x/, 'which grant_read creates again');
my $holder = session('everybody');
$holder->do('BEGIN');
$holder->selectall_arrayref('SELECT count(*) FROM postalytics.pieces');
my @warnings;
{
	local $SIG{__WARN__} = sub { push @warnings, @_ };
	local $superuser->{PrintWarn} = 1;
	run($me, "SELECT postalytics.grant_read('manager')");
}
like("@warnings", qr/policies for readers of all accounts were not changed/, 'a privilege is granted without the policy while a transaction holds locks');
cmp_ok($session{manager}->selectrow_array('SELECT count(*) FROM postalytics.pieces'), '>', 1000, 'and is effective');
my $error = $superuser->do("SELECT postalytics.revoke_read('everybody')") ? '' : $superuser->errstr;
like($error, qr/could not lock tables to change the policies for readers of all accounts/, 'but no privilege is revoked without it');
cmp_ok($session{everybody}->selectrow_array('SELECT count(*) FROM postalytics.pieces'), '>', 1000, 'it is still effective');
$holder->do('COMMIT');
$holder->disconnect;
run($me, "SELECT postalytics.grant_read('everybody', 'a'), postalytics.revoke_read('manager')");
is($superuser->selectrow_array("SELECT string_agg(DISTINCT rolname, ',') FROM pg_policy, unnest(polroles) AS r JOIN pg_roles AS p ON p.oid = r WHERE polname = 'readers_of_all'"),
	'everybody', 'policies have only the roles that read all accounts');
run($me, "SELECT postalytics.revoke_read('everybody'), postalytics.grant_read('everybody', 'a')");
is($session{everybody}->selectrow_array("SELECT count(*) FROM postalytics.pieces WHERE account <> 'a'"), 0, 'a reader of all accounts becomes a reader of one');
is($superuser->selectrow_array("SELECT count(*) FROM pg_policy WHERE polname = 'readers_of_all'"), 0, 'and no policy is left');
run($me, "SELECT postalytics.grant_read('everybody'); DROP POLICY readers_of_all ON postalytics.events; SELECT postalytics.maintain()");
is($superuser->selectrow_array("SELECT count(*) FROM pg_policy WHERE polname = 'readers_of_all'"), 7, 'maintain creates them again');

# Bindings removed by DROP OWNED are not effective in a role that has the same grants
# through another role.
run($me, q{CREATE ROLE team; CREATE ROLE member LOGIN; SELECT postalytics.grant_ingest('team', 'team'), postalytics.grant_ingest('member', 'secret'); GRANT team TO member});
$session{member} = session('member');
is($session{member}->selectrow_array("SELECT rejected FROM postalytics.ingest('7', 'secret')"), 1, 'a member of a team');
run($me, 'DROP OWNED BY member');
refused('member', "SELECT postalytics.ingest('7', 'secret')", qr/permission denied for account "secret"/, 'has what the team has, after DROP OWNED');
is($session{member}->selectrow_array("SELECT rejected FROM postalytics.ingest('7')"), 1, 'and no more');
run($me, q{CREATE ROLE crew; SELECT postalytics.grant_ingest('crew', 'team'); GRANT crew TO member});
is($session{member}->selectrow_array("SELECT rejected FROM postalytics.ingest('7')"), 1, 'one account through two roles is one');

run($me, q{SELECT postalytics.grant_ingest('member', 'secret'), postalytics.grant_ingest('other', 'kept')});
run('member', 'DROP OWNED BY CURRENT_USER');
refused('member', "SELECT postalytics.ingest('7', 'secret')", qr/permission denied for account "secret"/, 'a role that runs DROP OWNED itself keeps no binding');
run('member', 'DROP OWNED BY CURRENT_ROLE');
is($superuser->selectrow_array("SELECT count(*) FROM postalytics.bindings WHERE account = 'kept'"), 1, 'and other roles keep theirs');
run($me, "SELECT postalytics.revoke_ingest('other')");
run($me, 'CREATE ROLE second SUPERUSER LOGIN');
$session{second} = session('second');
run('second', 'DROP OWNED BY CURRENT_USER');
pass('another superuser runs DROP OWNED');

# Grants change while other sessions read continuously.
my $reader_script = PostgreSQL::Test::Utils::tempdir() . '/read.sql';
append_to_file($reader_script, "SELECT count(*) FROM postalytics.pieces WHERE piece_id = '1';\nSELECT count(*) FROM postalytics.campaigns;\n");
run($me, "SELECT postalytics.grant_read('member')");
my $reading = IPC::Run::start([ 'pgbench', '-n', '-U', 'reader', '-c', '4', '-T', '30', '-f', $reader_script, '-h', $node->host, '-p', $node->port, 'dbname=postgres application_name=steady' ], '>', \my $benched, '2>', \my $bench_errors);
$node->poll_query_until('postgres', "SELECT count(*) = 4 FROM pg_stat_activity WHERE application_name = 'steady'") or die;
run($me, "SELECT postalytics.revoke_read('member')");
is($superuser->selectrow_array("SELECT count(*) FROM pg_policy WHERE polname = 'readers_of_all' AND polroles @> ARRAY['member'::regrole::oid]"), 0, 'a reader of all is revoked beside steady readers');
$reading->signal('INT');
$reading->finish;

# Bindings that parallel queries of a transaction saw are not cached for later ones.
my $slow = session('reader');
$slow->do($_) for map { "SET $_" } 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0', 'min_parallel_table_scan_size = 0';
$slow->do($force_parallel);
my $whose = "SELECT string_agg(DISTINCT account, ',') FROM postalytics.pieces";
$slow->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
$slow->selectrow_array('SELECT 1 FROM pg_class LIMIT 1');
run($me, "SELECT postalytics.revoke_read('reader', 'a'), postalytics.grant_read('reader', 'b')");
is($slow->selectrow_array($whose), 'a', 'a transaction sees the bindings of its snapshot');
$slow->do('COMMIT');
is($slow->selectrow_array($whose), 'b', 'and the next one its own');
run($me, "SELECT postalytics.revoke_read('reader', 'b'), postalytics.grant_read('reader', 'a')");
is($slow->selectrow_array($whose), 'a', 'as does every one');
$slow->disconnect;

# When a sync is changed to another account, its worker no longer gets the deliveries of
# the old one.
run($me, q{SELECT postalytics.create_sync('turned', accounts => '{b}'), postalytics.grant_sync('worker', 'turned'), postalytics.replay_sync('turned', '-infinity')});
run('manager', q{UPDATE postalytics.syncs SET accounts = '{a}' WHERE name = 'turned'});
is($session{worker}->selectrow_array("SELECT count(*) FROM postalytics.fetch('turned', 10)"), 0, 'a worker gets no deliveries of the account that its sync had before');
is($superuser->selectrow_array("SELECT count(*) FROM postalytics.deliveries WHERE sync = 'turned' AND state <> 'cancelled'"), 0, 'they are cancelled');
refused('manager', "UPDATE postalytics.syncs SET name = 'mine' WHERE name = 'theirs'", qr/permission denied for table syncs/, 'a manager cannot rename a sync');
refused('manager', "DELETE FROM postalytics.syncs", qr/permission denied for table syncs/, 'nor delete one without its deliveries');

# The payload of a reject cannot prevent the retry of others, however deep its nesting.
run('feed', q!SELECT postalytics.ingest((repeat('{"data":', 4000) || '1' || repeat('}', 4000))::json)!);
run('feed', q!SELECT postalytics.ingest((repeat('[', 2500) || '{"to":' || repeat('{"x":', 1500) || '1' || repeat('}', 1501) || repeat(']', 2500))::json)!);
is(join(',', map { @$_ } @{ $superuser->selectall_arrayref("SELECT DISTINCT reason FROM postalytics.rejects WHERE reason LIKE '%nested%'") }), 'event is nested more than 100 levels deep', 'nesting has a limit');
run($me, q{DO $$ BEGIN PERFORM postalytics.retry_rejects(); END $$});

# A session works with JIT, whether it used it before the library was loaded or in
# ingest.
my $jit = session('feed');
$jit->do("SET jit_above_cost = 0");
$jit->selectrow_array('SELECT count(*) FROM generate_series(1, 10) AS i WHERE i > 3');
is(join(',', $jit->selectrow_array(q{SELECT inserted, rejected FROM postalytics.ingest('[{"mailId": "jit", "eventType": 4, "eventDate": "2026-10-06"}, 7]')})), '1,1', 'with JIT events and rejects are stored');
is($superuser->selectrow_array(q{SELECT count(*) FROM postalytics.rejects WHERE payload::text = '7' AND reject_id > 0 AND received_at > now() - interval '1 hour' AND account = 'team'}) +
	$superuser->selectrow_array(q{SELECT count(*) FROM postalytics.rejects WHERE payload::text = '7' AND account = 'a'}) > 0, 1, 'under the account of the role');
$jit->disconnect;

# ingest inserts directly into tables with row-level security, for every role.
$superuser->do("SET track_functions = 'all'");
$superuser->selectrow_array(q{SELECT inserted FROM postalytics.ingest('{"mailId": "direct", "eventType": 4, "eventDate": "2026-10-06"}', 'a')});
$superuser->do('SELECT pg_stat_force_next_flush()');
is($superuser->selectrow_array("SELECT COALESCE(sum(calls) FILTER (WHERE funcname = 'events_inserted'), 0) || ' ' || COALESCE(sum(calls) FILTER (WHERE funcname = 'ingest'), 0) FROM pg_stat_user_functions"), '0 1', 'ingest inserts without the trigger');
$superuser->do('ALTER TABLE postalytics.events FORCE ROW LEVEL SECURITY; RESET track_functions');
is($session{feed}->selectrow_array(q{SELECT inserted FROM postalytics.ingest('{"mailId": "forced", "eventType": 4, "eventDate": "2026-10-06"}')}), 1, 'and with a query if row-level security is forced');
run($me, 'ALTER TABLE postalytics.events NO FORCE ROW LEVEL SECURITY');

# A role with all privileges on the tables, except TRIGGER, cannot add anything to them
# that would run as another role.
run($me, q{CREATE ROLE greedy LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES ON ALL TABLES IN SCHEMA postalytics TO greedy; GRANT USAGE ON ALL SEQUENCES IN SCHEMA postalytics TO greedy});
$session{greedy} = session('greedy');
run('greedy', q{CREATE FUNCTION gain(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN EXECUTE 'ALTER ROLE greedy SUPERUSER'; RETURN $1; END $$});
for my $table (qw(events pieces campaigns rejects production_errors deliveries_unfinished syncs bindings configuration field_names status_names events_2026_10))
{
	for my $command ("ALTER TABLE postalytics.$table ALTER account SET DEFAULT gain('x')", "CREATE RULE r AS ON INSERT TO postalytics.$table DO ALSO SELECT gain('x')",
		"CREATE INDEX ON postalytics.$table (gain('x'))", "CREATE POLICY p ON postalytics.$table USING (gain('x') = 'x')", "ALTER TABLE postalytics.$table ADD CHECK (gain('x') = 'x')",
		"ALTER TABLE postalytics.$table ADD x text GENERATED ALWAYS AS (gain('x')) STORED", "ALTER TABLE postalytics.$table DISABLE ROW LEVEL SECURITY",
		"CREATE STATISTICS s ON (gain('x')), (gain('y')) FROM postalytics.$table", "ALTER TABLE postalytics.$table INHERIT public.bait")
	{
		my $done = $session{greedy}->do($command);
		ok(!$done && $session{greedy}->errstr =~ /must be owner of|permission denied/, "$table: " . substr($command, 0, 40)) or diag $session{greedy}->errstr;
	}
}
for my $command ('CREATE CAST (postalytics.mail_status AS int) WITHOUT FUNCTION AS IMPLICIT', "CREATE FUNCTION postalytics.label(text) RETURNS text LANGUAGE sql RETURN 'x'",
	'CREATE OPERATOR postalytics.= (FUNCTION = pg_catalog.int4eq, LEFTARG = int, RIGHTARG = int)', "ALTER TYPE postalytics.mail_status ADD VALUE 'x'", 'CREATE TABLE postalytics.events_2031_01 (x int)',
	"INSERT INTO postalytics.bindings VALUES ('greedy', 'read', NULL, NULL)", "INSERT INTO postalytics.configuration VALUES ('latest', '0')", "INSERT INTO postalytics.field_names VALUES ('account', 'account')",
	"INSERT INTO postalytics.events (piece_id, account, status, occurred_at) VALUES ('1', 'b', 'Mailed', '2026-10-06')", "INSERT INTO postalytics.syncs SELECT * FROM postalytics.syncs")
{
	my $done = $session{greedy}->do($command);
	ok(!$done || $done eq '0E0', substr($command, 0, 60)) or diag "$done rows";
}
is($superuser->selectrow_array("SELECT rolsuper FROM pg_roles WHERE rolname = 'greedy'"), 0, 'it does not become a superuser');

# A role that may not drop the extension learns nothing about its contents by trying.
refused('feed', 'DROP EXTENSION postalytics_status', qr/must be owner of extension/, 'another role gets only this error');
refused('feed', "DROP OWNED BY $me", qr/permission denied to drop objects/, 'likewise');

# Sessions cannot override settings, and a change affects existing sessions.
refused('reader', "SET postalytics_status.$_ = '1'", qr/invalid configuration parameter name|unrecognized/, "$_ is not a parameter")
  for qw(identity keep_payload feed_time_zone earliest latest history retention retention_action premake_months);
my %invalid = (identity => [ 'piece', '' ], event_precision => [ 'minute' ], keep_payload => [ 'true' ], feed_time_zone => [ 'Nowhere/Land', '' ],
	earliest => [ '90', '90 ', '+90', '-1 day', '5001 years', 'soon', '1 day; DROP TABLE x' ], latest => [ '2000 years', '7.5' ], history => [ '1 hour', '-1' ], retention => [ '90', '23 hours' ],
	retention_action => [ 'DROP' ], premake_months => [ '121', '-1', '2.0', '', 'two', '9999999999' ], max_wait => [ '2 days' ]);
for my $name (sort keys %invalid)
{
	my @accepted = grep { $superuser->do('SELECT postalytics.configure(?, ?)', undef, $name, $_) || $superuser->state ne '22023' || $superuser->errstr !~ /HINT:  Allowed values: / } @{ $invalid{$name} };
	is("@accepted", '', "$name: values that are not allowed");
}
refused($me, "SELECT postalytics.configure('speed', 'high')", qr/unrecognized setting "speed"/, 'a setting that does not exist');
refused($me, 'SELECT postalytics.configure(NULL, NULL)', qr/unrecognized setting ""/, 'nor NULL');
run($me, "SELECT postalytics.configure(name, NULL) FROM postalytics.settings; SELECT postalytics.configure(name, value) FROM postalytics.settings");
is($superuser->selectrow_array('SELECT count(*) FROM postalytics.configuration'), 0, 'only values that differ from the default are stored');
run($me, "SELECT postalytics.configure('latest', '100 years'), postalytics.configure('max_wait', '50 milliseconds')");
run($me, "SELECT postalytics.create_sync('idle', statuses => '{Addressed}'), postalytics.grant_sync('worker', 'idle')");
is($session{worker}->selectrow_array("SELECT count(*) FROM postalytics.fetch('idle', max_wait => '1 hour')"), 0, 'fetch waits no longer than the setting allows');
refused('reader', "SELECT postalytics.configure('retention', '1 day')", qr/permission denied for function configure/, 'a reader cannot change a setting');
is($session{feed}->selectrow_array(q{SELECT rejected FROM postalytics.ingest('{"mailId": "far", "eventType": 4, "eventDate": "2050-01-01"}')}), 0, 'an old session');
run('manager', "SELECT postalytics.configure('latest', '1 day')");
is($session{feed}->selectrow_array(q{SELECT rejected FROM postalytics.ingest('{"mailId": "far", "eventType": 5, "eventDate": "2050-01-01"}')}), 1, 'follows a change');

$_->disconnect for values %session;
$node->stop;
done_testing();
