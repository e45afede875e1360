# A cluster of a front and four slots, each a server of its own, compared with one node
# that ingests the same feed.
#
# SEED repeats a run.
use strict;
use warnings;
use DBI;
use IPC::Run;
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} // time;
srand $seed;
note "SEED=$seed";

my $front = PostgreSQL::Test::Cluster->new('front');
$front->init;
$front->append_conf('postgresql.conf', "postalytics_status.fetch_timeout = '1s'");
$front->start;
if ($front->safe_psql('postgres', "SELECT count(*) FROM pg_available_extensions WHERE name = 'plproxy'") eq '0')
{
	$front->stop;
	plan skip_all => 'there is no PL/Proxy for this server';
}

my $slots = 4;
my @slot = map { PostgreSQL::Test::Cluster->new("slot$_") } 0 .. $slots - 1;
for my $node (@slot)
{
	$node->init;
	$node->append_conf('postgresql.conf', 'log_statement = none');
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION postalytics_status');
}

sub place
{
	my ($node) = @_;
	return 'host=' . $node->host . ' port=' . $node->port . ' dbname=postgres';
}

sub one { my ($sql) = @_; return $front->safe_psql('one', $sql) }
sub sql { my ($sql) = @_; return $front->safe_psql('postgres', $sql) }

# Run SQL that must fail, and return the error.
sub fails
{
	my ($node, $sql, %options) = @_;
	my ($result, $out, $err) = $node->psql('postgres', $sql, %options);
	isnt($result, 0, "fails: $sql") or diag $out;
	return $err;
}

# ---- joining ----

$front->safe_psql('postgres', 'CREATE EXTENSION postalytics_cluster CASCADE; CREATE DATABASE one');
$front->safe_psql('one', 'CREATE EXTENSION postalytics_status');
like(fails($front, "SELECT postalytics.ingest('[]')"), qr/cluster is not complete.*It has no slots/s, 'ingest needs slots');
like(fails($front, "SELECT postalytics.add_slot(0, '" . place($slot[0]) . "')"), qr/is not a slot of a cluster/, 'a slot must have joined');
like(fails($slot[0], "SELECT postalytics.join_cluster(0, 3)"), qr/power of two/, 'three slots');
like(fails($slot[0], "SELECT postalytics.join_cluster(4, 4)"), qr/slot must be between 0 and 3/, 'slot 4 of 4');
like(fails($slot[0], "SELECT postalytics.join_cluster(NULL, 4)"), qr/must not be NULL/, 'slot NULL');
$slot[$_]->safe_psql('postgres', "SELECT postalytics.join_cluster(slot => $_, slots => $slots)") for 0 .. $slots - 1;
is($slot[2]->safe_psql('postgres', 'SELECT postalytics.join_cluster(2, 4); SELECT slot, slots FROM postalytics.slot'), "\n2|4", 'joining again changes nothing');
like(fails($front, "SELECT postalytics.add_slot(1, '" . place($slot[0]) . "')"), qr/is slot 0, not slot 1/, 'the wrong slot');
$slot[0]->safe_psql('postgres', "ALTER DATABASE postgres SET datestyle = 'SQL, DMY'");
like(fails($front, "SELECT postalytics.add_slot(0, '" . place($slot[0]) . "')"), qr/has datestyle "SQL, DMY".*ALTER ROLE/s, 'dates that the front would misread');
$slot[0]->safe_psql('postgres', 'ALTER DATABASE postgres RESET datestyle; CREATE DATABASE empty');
like(fails($front, "SELECT postalytics.add_slot(0, '" . place($slot[0]) =~ s/postgres$/empty/r . "')"), qr/is not a slot of a cluster/, 'a database without the extension');
$slot[1]->safe_psql('postgres', "SELECT postalytics.configure('history', '9 days')");
like(fails($front, "SELECT postalytics.add_slot(1, '" . place($slot[1]) . "', take_over => $_)"), qr/slot 1 already has a configuration/, "take_over => $_") for 'false', 'NULL';
$slot[1]->safe_psql('postgres', "SELECT postalytics.configure('history', NULL)");
like(fails($front, "SELECT postalytics.add_slot(0, 'postgresql://host/db')"), qr/invalid connection string/, 'not a list of parameters');
like(fails($front, "SELECT postalytics.add_slot(0, 'host=" . $slot[0]->host . " port=1 dbname=postgres')"), qr/could not reach the slot/, 'nobody listens there');
like(fails($front, "SELECT postalytics.add_slot(0, '" . place($slot[0]) . " client_encoding=UTF8')"), qr/invalid option "client_encoding"/, 'an option that postgres_fdw refuses');
for my $n (0 .. $slots - 1)
{
	sql("SELECT postalytics.add_slot($n, '" . place($slot[$n]) . "')");
	like(fails($front, "SELECT postalytics.ingest('[]')"), qr/@{[ $n + 1 ]} of 4 slots have been added/, 'not yet complete') if $n < 3;
}
is(sql('SELECT slot, reachable, version, events, lag, last_error FROM postalytics.cluster_health'),
	join("\n", map { "$_|t|1.0.0|0|00:00:00|" } 0 .. 3), 'cluster_health');

# ---- the feed ----

my @statuses = qw(0 9 10 11 4 5 6 2 3 7 8);
my @slot_of = split /\n/, one("SELECT postalytics.slot_of(i::text, $slots) FROM generate_series(0, 2999) AS i");

# Return the JSON of an event of a piece.
sub event
{
	my ($piece, $type, $day, %more) = @_;
	my $campaign = $piece % 7;
	return sprintf '{"mailId": %d, "eventType": %s, "eventDate": "2026-%02d-%02dT%02d:%02d:00Z"%s%s, "to": {"firstName": "F%d", "email": "p%d@example.com", "country": "%s"}, "fields": {"n": %d}}',
		$piece, $type, 9 + int($day / 28), 1 + $day % 28, $piece % 24, $piece % 60,
		$campaign == 6 ? '' : sprintf(', "campaignId": "c%d", "campaignName": "Name %d of day %d"', $campaign, $campaign, $day),
		$type eq '3' || $type eq '2' ? ', "errorCode": "X' . $piece . '", "address": "1 Main St"' : '',
		$piece % 90, $piece, $piece % 5 ? 'US' : 'CA', $piece;
}

# Return the journeys of pieces, with errors, rejects and repeats in between.
sub feed
{
	my @events;
	for my $piece (@_)
	{
		my $day = int rand 20;
		for my $type (@statuses)
		{
			last if rand() < 0.12;
			next if rand() < 0.25;
			$day += rand 6;
			push @events, event($piece, $type, $day);
			push @events, $events[-1] if rand() < 0.1;
		}
		push @events, event($piece, '"Error"', $day) if rand() < 0.03;
		push @events, event($piece, '"Teleported"', $day) if rand() < 0.02;
		push @events, '{"eventType": 4, "n": ' . $piece . '}', $piece if rand() < 0.01;
	}
	return shuffle @events;
}

# Return the names of the syncs on each of the nodes.
sub syncs_of { return join ',', map { $_->safe_psql('postgres', "SELECT string_agg(name, ' ' ORDER BY name) FROM postalytics.syncs") } @_ }

sub quoted { my ($json) = @_; $json =~ s/'/''/g; return "'$json'" }

# Ingest events at the front and on the node, and compare the results.
sub ingest_both
{
	my ($title, $account, @events) = @_;
	my @results = (0, 0);
	while (my @call = splice @events, 0, 400)
	{
		my $call = 'SELECT * FROM postalytics.ingest(' . quoted('{"data": [' . join(', ', @call) . ']}') . ", '$account')";
		my @here = (sql($call), one($call));
		is($here[0], $here[1], "$title: the counts of a call");
	}
}

for my $node ([ 'postgres', $front ], [ 'one', $front ])
{
	$node->[1]->safe_psql($node->[0], q{
		SELECT postalytics.configure('latest', '36500d'), postalytics.configure('feed_time_zone', 'America/Chicago');
		INSERT INTO postalytics.status_names VALUES ('Gone', 'ReturnedToSender');
		INSERT INTO postalytics.field_names VALUES ('ref', 'contact_id');
		SELECT postalytics.create_sync('all'), postalytics.create_sync('some', campaigns => '{c1,c2}', statuses => '{Mailed,InTransit}', unless => '{ReturnedToSender}')});
}
is($_->safe_psql('postgres', q{SELECT postalytics.setting('feed_time_zone'), (SELECT string_agg(name, ',' ORDER BY name) FROM postalytics.syncs),
	(SELECT count(*) FROM postalytics.status_names), (SELECT configuration_version > 0 FROM postalytics.slot)}), 'America/Chicago|all,some|1|t', 'each slot has the configuration')
  for @slot;

# Nine of ten pieces are in slot 0, and none in slot 3.
my @skewed = ((grep { $slot_of[$_] == 0 } 0 .. 2000), (grep { $slot_of[$_] == 1 || $slot_of[$_] == 2 } 0 .. 110));
ingest_both('skewed', '', feed(@skewed));
is($slot[3]->safe_psql('postgres', 'SELECT count(*) FROM postalytics.events'), '0', 'a slot is empty');

# What the front must show as the node does, sorted.
my %same = (
	events => 'SELECT piece_id, account, status, occurred_at, campaign_id, drop_id, payload::text FROM postalytics.events',
	pieces => 'SELECT p::text FROM postalytics.pieces AS p',
	campaigns => 'SELECT * FROM postalytics.campaigns',
	rejects => 'SELECT account, piece_id, reason, payload::text FROM postalytics.rejects',
	production_errors => 'SELECT piece_id, account, status, occurred_at, campaign_id, payload::text FROM postalytics.production_errors',
	deliveries => 'SELECT sync, piece_id, account, status, occurred_at, state, attempt, is_test FROM postalytics.deliveries',
	campaign_funnel => "SELECT to_jsonb(f) - '{median_days,p90_days}'::text[] FROM postalytics.campaign_funnel AS f",
	campaign_funnel_by_country => 'SELECT * FROM postalytics.campaign_funnel_by_country',
	campaign_progress => 'SELECT * FROM postalytics.campaign_progress',
	campaign_responses => "SELECT to_jsonb(r) - 'median_days_to_visit' FROM postalytics.campaign_responses AS r",
	responses_by_day => "SET timezone = 'Pacific/Auckland'; SELECT * FROM postalytics.responses_by_day",
	returned_mail => 'SELECT r::text FROM postalytics.returned_mail AS r',
	sync_health => 'SELECT name, enabled, waiting, due, leased, dead, done_last_hour FROM postalytics.sync_health',
	'funnel(c1)' => "SELECT * FROM postalytics.funnel('c1')",
	'funnel(c2) at a time' => "SELECT * FROM postalytics.funnel('c2', '2026-09-20')",
	'stuck_pieces(2 days)' => "SELECT piece_id, status, awaited FROM postalytics.stuck_pieces('2 days', younger_than => NULL)",
	journey => "SELECT p.piece_id, j.* FROM (SELECT DISTINCT e.piece_id FROM postalytics.events AS e WHERE e.piece_id ~ '7\$') AS p CROSS JOIN LATERAL (SELECT * FROM postalytics.journey(p.piece_id, '')) AS j",
	status_as_of => "SELECT piece_id, postalytics.status_as_of(piece_id, '2026-09-25', account) FROM (SELECT DISTINCT piece_id, account FROM postalytics.events WHERE piece_id ~ '3\$') AS p");

sub sorted { return join "\n", sort split /\n/, shift }

sub compare
{
	my ($title) = @_;
	is(sorted(sql($same{$_})), sorted(one($same{$_})), "$title: $_") for sort keys %same;
	my $difference = q{SELECT COALESCE(account, '') || COALESCE(campaign_id, ''), median_days, p90_days FROM postalytics.campaign_funnel
		UNION ALL SELECT account || COALESCE(campaign_id, '') || ' visit', median_days_to_visit, 0 FROM postalytics.campaign_responses ORDER BY 1};
	my @here = map { [ split /\|/, $_, -1 ] } split /\n/, sql($difference);
	my @there = map { [ split /\|/, $_, -1 ] } split /\n/, one($difference);
	is(scalar(@here), scalar(@there), "$title: campaigns with medians");
	my @far = grep { my ($h, $t) = ($here[$_], $there[$_]); grep { ($h->[$_] eq '') != ($t->[$_] eq '') || abs(($h->[$_] || 0) - ($t->[$_] || 0)) > 0.1001 } 1, 2 } 0 .. $#here;
	is(join(', ', map { "@{$here[$_]} and @{$there[$_]}" } @far), '', "$title: medians and percentiles differ by no more than 0.1 days");
	# The usual time is computed from rounded durations, so pieces that are close to it can differ.
	my $stuck = "SELECT piece_id || ' of ' || account FROM postalytics.stuck_pieces(younger_than => NULL)";
	my %here = map { $_ => 1 } split /\n/, sql($stuck);
	my @missing = grep { !delete $here{$_} } split /\n/, one($stuck);
	cmp_ok(@missing + keys %here, '<=', 3, "$title: stuck_pieces");
}
compare('skewed');

# Pieces of two accounts, which have ids in common, in all slots.
ingest_both('account a', 'a', feed(grep { $_ % 3 } 0 .. 400));
ingest_both('account b', 'b', feed(0 .. 300));
compare('accounts');

# The inbox, with COPY and accounts in rows.
my $copy = "COPY postalytics.inbox (mail_id, event_date, event_type, account) FROM stdin;\n"
  . join('', map { "in$_\t2026-10-0" . (1 + $_ % 9) . "\t" . ($_ % 11) . "\t" . (qw(a b), '')[ $_ % 3 ] . "\n" } 0 .. 500) . "\\.\n";
$_->[0]->psql($_->[1], $copy, on_error_die => 1) for [ $front, 'postgres' ], [ $front, 'one' ];
compare('inbox');

# Rejects are retried, wherever their events belong.
my $teach = q{INSERT INTO postalytics.status_names VALUES ('Teleported', 'InTransit'); INSERT INTO postalytics.field_names VALUES ('n', 'mail_id');};
$front->safe_psql($_, $teach) for qw(postgres one);
my $retry = 'SELECT inserted, rejected FROM postalytics.retry_rejects()';
is(sql($retry), one($retry), 'retry_rejects');
delete local $same{rejects};		# the remaining ones have other reasons in part
compare('after a retry');

# One slot for a piece, and one row.
like(sql("EXPLAIN (COSTS OFF) SELECT * FROM postalytics.pieces WHERE piece_id = '17'"), qr/^Foreign Scan on pieces_slot_\d pieces$/, 'one slot for a piece');
like(sql("EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM postalytics.events WHERE piece_id = '17' AND status = 'Mailed'"),
	qr/^Foreign Scan.*Remote SQL:.*piece_id = '17'.*status = 'Mailed'/s, 'conditions are checked on the slot');

# ---- a slot refuses pieces of others ----

my ($foreign) = grep { $slot_of[$_] == 2 } 0 .. 100;
for my $command ("SELECT postalytics.ingest('{\"mailId\": $foreign, \"eventType\": 4, \"eventDate\": \"2026-10-01\"}')",
	"SELECT postalytics.ingest('{\"mailId\": $foreign, \"eventType\": \"Error\", \"eventDate\": \"2026-10-01\"}')",
	"INSERT INTO postalytics.inbox (mail_id, event_type, event_date) VALUES ('$foreign', '4', '2026-10-01')",
	"INSERT INTO postalytics.events (piece_id, status, occurred_at) VALUES ('$foreign', 'Mailed', '2026-10-01')")
{
	like(fails($slot[1], "\\set VERBOSITY verbose\n$command"), qr/22023: piece "$foreign" belongs to slot 2, but this database is slot 1/, 'the right slot is named');
}
like(fails($front, "INSERT INTO postalytics.events (piece_id, status, occurred_at) VALUES ('x', 'Mailed', '2026-10-01')"),
	qr/cannot insert into table "events" at the front/, 'events at the front');
like(fails($slot[1], 'SELECT postalytics.join_cluster(0, 2)'), qr/because it has events/, 'a slot with events stays that slot');

# ---- transaction blocks ----

like(fails($front, "\\set VERBOSITY verbose\nBEGIN; SELECT $_"), qr/0A000: .* cannot run inside a transaction block/, "in a block: $_")
  for "postalytics.ingest('[]')", "postalytics.ack('all', '{1}')", "postalytics.nack('all', '{1}', 'x')", "FROM postalytics.fetch('all')",
  "postalytics.replay_sync('all', '2026-01-01')", 'FROM postalytics.retry_rejects()', 'FROM postalytics.maintain()', "postalytics.add_slot(0, '" . place($slot[0]) . "')";
like(fails($front, "\\set VERBOSITY verbose\nBEGIN; INSERT INTO postalytics.inbox (mail_id) VALUES ('x')"), qr/0A000/, 'in a block: inbox');

is(sql('SELECT count(*) > 0 FROM postalytics.maintain()'), 't', 'maintain');

# A change of the configuration reaches the slots only if the transaction commits.
sql(q{CREATE TABLE late (x integer);
	CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''too late''; END';
	CREATE CONSTRAINT TRIGGER fail_late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()});
my $change = "BEGIN; SELECT postalytics.drop_sync('some'), postalytics.create_sync('new'), postalytics.configure('history', '4 days')";
sql("$change; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK");
like(fails($front, "$change; INSERT INTO late VALUES (1); COMMIT"), qr/too late/, 'a later deferred trigger fails');
like(fails($front, "\\set VERBOSITY verbose\n$change; PREPARE TRANSACTION 'p'"), qr/0A000: cannot PREPARE a transaction that has changed the configuration of a cluster/, 'a change cannot be prepared');
is(join(';', map { $_->safe_psql('postgres', "SELECT string_agg(name, ' ' ORDER BY name) || postalytics.setting('history') FROM postalytics.syncs") } @slot), join(';', ('all some30 days') x 4), 'rolled-back changes do not reach the slots');
is(sql("SELECT count(*) FROM postalytics.cluster_health WHERE lag = '0'"), '4', 'and no slot lags');
# Publications need the old rows.
sql('SET client_min_messages = error; CREATE PUBLICATION everything FOR ALL TABLES');
sql("SELECT postalytics.configure('history', '6 days'), postalytics.configure('history', NULL)");
sql('DROP PUBLICATION everything');
is(sql("SELECT count(*) FROM postalytics.cluster_health WHERE lag = '0'"), '4', 'a publication of all tables');

# What create_sync writes after the row of the sync is copied as well.
sql("BEGIN; SET CONSTRAINTS ALL IMMEDIATE; SELECT postalytics.create_sync('early', since => '2026-01-01'); COMMIT");
my $early = "SELECT count(*) FROM postalytics.deliveries WHERE sync = 'early'";
is(sql($early), sql('SELECT count(*) FROM postalytics.events'), 'a sync has deliveries since a time');
sql("SELECT postalytics.configure('history', '6 days'), postalytics.configure('history', NULL)");
is(sql($early), sql('SELECT count(*) FROM postalytics.events'), 'and keeps them');
sql("SELECT postalytics.drop_sync('early')");
sql("BEGIN; SAVEPOINT s; SELECT postalytics.create_sync('new'); SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO s; SELECT postalytics.create_sync('kept'); SET CONSTRAINTS ALL IMMEDIATE; COMMIT");
is(syncs_of(@slot), join(',', ('all kept some') x 4), 'changes undone by a savepoint do not reach the slots');
# A transaction that has staged nothing, in the end, copies nothing, because its snapshot may
# be older than the configuration.
my $older_snapshot = DBI->connect('dbi:Pg:' . $front->connstr('postgres'), undef, undef, { RaiseError => 1, PrintError => 0, PrintWarn => 0 });
$older_snapshot->do($_) for 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'SAVEPOINT s', "SELECT postalytics.create_sync('new')", 'SET CONSTRAINTS ALL IMMEDIATE', 'ROLLBACK TO s';
sql("SELECT postalytics.create_sync('newer')");
$older_snapshot->do('COMMIT');
is(syncs_of(@slot), join(',', ('all kept newer some') x 4), 'nor does a transaction with an older snapshot copy anything');
$older_snapshot->disconnect;
like(fails($front, "SET default_transaction_isolation = 'repeatable read'; SELECT $_"), qr/must run in a READ COMMITTED transaction/, "with an older snapshot: $_")
  for 'FROM postalytics.maintain()', "postalytics.add_slot(0, '" . place($slot[0]) . "')";
like(fails($front, "DO \$\$ BEGIN PERFORM postalytics.drop_sync('kept'); SET CONSTRAINTS ALL IMMEDIATE; PERFORM $_; RAISE 'failed'; END \$\$"), qr/failed/, "with a change before it: $_")
  for 'postalytics.maintain()', "postalytics.add_slot(0, '" . place($slot[0]) . "')";
is(syncs_of(@slot), join(',', ('all kept newer some') x 4), 'what is staged is not copied at once');

# The commit of postgres_fdw, which can fail, comes before the copy.
$slot[3]->safe_psql('postgres', q{CREATE TABLE late (x integer);
	CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''too late''; END';
	CREATE CONSTRAINT TRIGGER fail_late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()});
sql(sprintf q{CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'postgres');
	CREATE USER MAPPING FOR CURRENT_USER SERVER elsewhere; CREATE FOREIGN TABLE late_elsewhere (x integer) SERVER elsewhere OPTIONS (table_name 'late')}, $slot[3]->host, $slot[3]->port);
like(fails($front, "LOAD 'postalytics_status'; BEGIN; INSERT INTO late_elsewhere VALUES (1); SELECT postalytics.drop_sync('kept'); COMMIT"), qr/too late/, 'the commit of a foreign table fails');
is(syncs_of(@slot), join(',', ('all kept newer some') x 4), 'and nothing has been copied');

# A copy that is canceled may have reached some slots, so the transaction commits.  The slot
# is slow in every second call: the first one checks the configuration.
$slot[2]->safe_psql('postgres', q{CREATE SEQUENCE calls;
	CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF nextval(''public.calls'') % 2 = 0 THEN PERFORM pg_sleep(100); END IF; RETURN NULL; END';
	CREATE TRIGGER slow AFTER UPDATE ON postalytics.slot FOR EACH ROW EXECUTE FUNCTION slow()});
my ($canceled, $nothing, $warning) = ("SELECT postalytics.drop_sync('kept')", '', '');
my $dropping = IPC::Run::start([ 'psql', '-XAtq', '-d', $front->connstr('postgres'), '-c', $canceled ], '>', \$nothing, '2>', \$warning);
$slot[2]->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query = " . quoted($canceled));
$dropping->finish;
like($warning, qr/WARNING:  the configuration may not have been copied to all slots: canceling statement due to user request.*maintain/s, 'a copy is canceled');
is(sql("SELECT count(*) FROM postalytics.syncs WHERE name = 'kept'"), '0', 'and the transaction has committed');
$slot[2]->safe_psql('postgres', 'DROP TRIGGER slow ON postalytics.slot');
sql('SELECT FROM postalytics.maintain()');
is(syncs_of(@slot), join(',', ('all newer some') x 4), 'maintain copies it to all');
sql("SELECT postalytics.drop_sync('newer')");

# ---- a slot is down ----

my $events = sql('SELECT count(*) FROM postalytics.events');
my @pieces = 2000 .. 2200;
my $call = 'SELECT inserted + duplicates FROM postalytics.ingest(' . quoted('[' . join(', ', map { event($_, 4, 3) } @pieces) . ']') . ')';
$slot[2]->stop('immediate');
my $error = fails($front, "\\set VERBOSITY verbose\n$call");
like($error, qr/08006: could not store the events of slot 2 \(host=.*\).*The events of all other slots are stored.*Repeat the whole call/s, 'ingest names the slot that is down');
unlike($error, qr/PL\/Proxy function/, 'without a word of PL/Proxy');
is(sql('SELECT string_agg(slot::text, \',\') FROM postalytics.cluster_health WHERE NOT reachable AND last_error IS NOT NULL'), '2', 'cluster_health');
is(sql("SELECT string_agg((labels ->> 'slot') || ' ' || value, ', ' ORDER BY labels ->> 'slot') FROM postalytics.metrics WHERE name = 'slot_reachable'"), '0 1, 1 1, 2 0, 3 1', 'metrics show it');
like(fails($front, "SELECT postalytics.configure('history', '5 days')"), qr/could not reach the slot/, 'the configuration cannot be changed');
is(sql("SELECT postalytics.setting('history')"), $slot[0]->safe_psql('postgres', "SELECT postalytics.setting('history')"), 'and is not changed anywhere');
my $fetch = "SELECT count(*) FROM postalytics.fetch('all', 20);\n";
my ($result, $out, $err) = $front->psql('postgres', $fetch x 5);
is($out, join("\n", (20) x 5), 'fetch goes on with the other slots');
like($err, qr/WARNING.*skipping slot 2 \(/, 'with a warning');
is(() = $err =~ /WARNING/g, 1, 'which is not repeated for each call');
$slot[2]->start;
is(sql($call), scalar(@pieces), 'the repeated call stores the rest');
is(sql('SELECT count(*) FROM postalytics.events'), $events + @pieces, 'each event is stored exactly once');
sql("SELECT postalytics.configure('history', '5 days')");
is($slot[2]->safe_psql('postgres', "SELECT postalytics.setting('history')"), '5 days', 'the slot takes part again');

# ---- overlapping writers ----

my @calls = map { my $n = $_; 'SELECT postalytics.ingest(' . quoted('[' . join(', ', shuffle map { event($_, 11, 2) } 2300 + $n .. 2360 + $n) . ']') . ");\n" } map { 10 * $_ } 0 .. 12;
my @writers = map {
	my ($in, $out, $err) = (join('', (shuffle @calls) x 2), '', '');
	{ err => \$err, run => IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $front->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \$err) };
} 1 .. 6;
$_->{run}->finish for @writers;
is(join('', map { ${ $_->{err} } } @writers), '', 'six writers with overlapping calls have no error');
is(sql("SELECT count(*), count(DISTINCT piece_id) FROM postalytics.events WHERE piece_id ~ '^2[34]\\d\\d\$' AND account = '' AND status = 'Mailed' AND occurred_at < '2026-09-05'"), '181|181', 'each event is stored once');
is(sql('SELECT count(DISTINCT event_id) - count(*) FROM postalytics.events'), '0', 'ids are unique in the cluster');

# ---- roles at the front ----

sql(q{CREATE ROLE feed LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE worker LOGIN; CREATE ROLE manager LOGIN; CREATE ROLE nobody LOGIN;
	SELECT postalytics.grant_ingest('feed', 'a'), postalytics.grant_read('reader', 'a'), postalytics.grant_manage('manager'), postalytics.grant_sync('worker', 'some')});
sub as { my ($role, $sql) = @_; return $front->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]) }
is(as('feed', "SELECT inserted FROM postalytics.ingest('{\"mailId\": \"of feed\", \"eventType\": 4, \"eventDate\": \"2026-10-01\"}')"), '1', 'a bound role ingests');
is(sql("SELECT account FROM postalytics.events WHERE piece_id = 'of feed'"), 'a', 'for its account');
like(fails($front, "SELECT postalytics.ingest('[]', 'b')", extra_params => [ '-U', 'feed' ]), qr/permission denied for account "b"/, 'and no other');
for my $relation (qw(events pieces campaigns rejects production_errors deliveries dead_letters returned_mail campaign_funnel campaign_funnel_by_country campaign_progress campaign_responses responses_by_day))
{
	is(as('reader', "SELECT string_agg(DISTINCT account, ',') FROM postalytics.$relation WHERE account <> 'a'"), '', "a bound reader of $relation");
}
is(as('reader', "SELECT string_agg(DISTINCT account, ',') FROM postalytics.funnel('c1')"), 'a', 'funnel');
is(as('reader', "SELECT string_agg(DISTINCT account, ',') FROM postalytics.stuck_pieces('1 day', younger_than => NULL)"), 'a', 'stuck_pieces');
is(as('reader', "SELECT count(*) > 0 FROM postalytics.journey('1')"), as('reader', "SELECT count(*) > 0 FROM postalytics.pieces WHERE piece_id = '1'"), 'journey');
like(fails($front, $_, extra_params => [ '-U', 'reader' ]), qr/permission denied/, "refused: $_")
  for 'SELECT * FROM postalytics_slots.pieces_slot_0', 'SELECT * FROM postalytics.slots_campaign_funnel', "SELECT postalytics.slots_funnel('c1', now(), NULL)",
  "SELECT * FROM postalytics.slots_days", "SELECT postalytics.query_metrics(0)", "SELECT postalytics.stage_configuration()";
sql(q{GRANT SELECT ON ALL TABLES IN SCHEMA postalytics TO reader});
is(as('reader', $_), '0', "not even after a GRANT: $_")
  for 'SELECT count(*) FROM postalytics.slots_campaign_funnel', "SELECT count(*) FROM postalytics.slots_days WHERE account <> 'a'", 'SELECT count(*) FROM postalytics.slots_sync_health';
like(fails($front, 'SELECT FROM postalytics_slots.pieces_slot_0', extra_params => [ '-U', 'reader' ]), qr/permission denied for schema postalytics_slots/, 'nor foreign tables');
sql(q{REVOKE SELECT ON ALL TABLES IN SCHEMA postalytics FROM reader; SELECT postalytics.grant_read('reader', 'a')});

# Objects that a role plants in its own schema are not found when the front acts as the owner.
sql(q{CREATE SCHEMA evil; GRANT ALL ON SCHEMA evil TO reader});
as('reader', q{CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''planted''; END';
	CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq)});
my $planted = 'SET search_path = evil, pg_catalog; ';
is(as('reader', "${planted}SELECT count(*) > 0 FROM $_"), 't', "nothing planted is called: $_")
  for "postalytics.read_funnel('c1', 'infinity', NULL)", 'postalytics.responses_by_day', "postalytics.read_stuck_pieces('1 day', NULL, NULL, NULL)", 'postalytics.campaign_funnel';
is(sql(q{SELECT string_agg(p.proname, ', ' ORDER BY p.proname) FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
	WHERE p.pronamespace = 'postalytics'::regnamespace AND l.lanname = 'c' AND p.prosrc ~ '^postalytics_(front|call|read|query)_' AND p.proconfig IS NULL}), '', 'each function that acts as the owner has its own search_path');

# A condition of the user that fails does not show values of other accounts, whatever the
# number of the reader's own accounts.
sql(q{CREATE ROLE reader_of_5 LOGIN; SELECT postalytics.grant_read('reader_of_5', 'none' || i) FROM generate_series(1, 5) AS i; SELECT postalytics.pause_sync('all', '1 hour')});
my @text = split /\n/, sql(q{SELECT a.attrelid::regclass || '.' || quote_ident(a.attname) FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
	WHERE c.relnamespace = 'postalytics'::regnamespace AND c.relkind IN ('p', 'v', 'r') AND a.attnum > 0 AND a.atttypid = 'text'::regtype
	AND has_column_privilege('reader_of_5', a.attrelid, a.attnum, 'SELECT') AND c.relname NOT IN ('statuses', 'inbox')});
cmp_ok(@text, '>', 60, 'columns of text');
my @leaks = grep { my ($relation, $column) = /^(.*)\.(.*)$/; my ($status, $o, $e) = $front->psql('postgres', "SELECT count(*) FROM $relation AS x WHERE decode('00', x.$column) IS NULL", extra_params => [ '-U', 'reader_of_5' ]); $o ne '0' } @text;
is("@leaks", '', 'no value leaks through an error');
sql("SELECT postalytics.resume_sync('all')");

like(fails($front, "SELECT FROM postalytics.fetch('all')", extra_params => [ '-U', 'worker' ]), qr/permission denied for sync "all"/, 'a worker of another sync');
is(as('manager', "SELECT postalytics.pause_sync('all', '1 hour') > now(), postalytics.resume_sync('all')"), 't|t', 'a manager pauses a sync');
is(as('manager', "SELECT count(*) FROM postalytics.cluster_health"), '4', 'and sees the slots');
my $for_all = q{SELECT p.oid::regprocedure FROM pg_proc AS p WHERE p.pronamespace = 'postalytics'::regnamespace AND has_function_privilege('nobody', p.oid, 'EXECUTE')};
is(sorted(sql($for_all)), sorted(one($for_all)), 'PUBLIC may execute what it may on a node');
is(sql("SELECT sum(n) FROM (SELECT count(*) AS n FROM pg_foreign_server AS s, aclexplode(s.srvacl) AS a WHERE a.grantee <> s.srvowner) AS x"), '0', 'nobody may use the servers');

# ---- deliveries ----

# A worker that is killed, and another that goes on.  Each delivery arrives, in the order
# of its piece.
sql("SELECT postalytics.create_sync('queue', campaigns => '{c3}', since => '2026-01-01')");
my $wanted = sql("SELECT count(*) FROM postalytics.events WHERE campaign_id = 'c3'");
is(sql("SELECT waiting FROM postalytics.sync_health WHERE name = 'queue'"), $wanted, 'since makes deliveries on all slots');
my ($in, $from_worker) = ("SELECT count(*) FROM postalytics.fetch('queue', 30, '2 seconds');\n", '');
my $killed = IPC::Run::start([ 'psql', '-XAtq', '-d', $front->connstr('postgres') ], '<', \$in, '>', \$from_worker);
$killed->pump until $from_worker =~ /\n/;
is($from_worker, "30\n", 'a worker fetches');
$killed->kill_kill(grace => 0);
my $worker = DBI->connect('dbi:Pg:' . $front->connstr('postgres'), undef, undef, { RaiseError => 1, PrintWarn => 0, PrintError => 0 });
my (%seen, %last, $disorder);
for (1 .. 200)
{
	my $rows = $worker->selectall_arrayref("SELECT delivery_id, piece_id, account, extract(epoch FROM occurred_at), attempt FROM postalytics.fetch('queue', 100, '1 minute', '4 seconds')");
	last if !@$rows;
	for my $row (@$rows)
	{
		my ($id, $piece, $account, $at) = @$row;
		$seen{$id}++;
		$disorder++ if ($last{"$piece/$account"} // 0) > $at;
		$last{"$piece/$account"} = $at;
	}
	my ($count) = $worker->selectrow_array("SELECT postalytics.ack('queue', ?, ?)", undef, [ map { $_->[0] } @$rows ], [ map { $_->[4] } @$rows ]);
	is($count, scalar(@$rows), 'all are acknowledged') if $count != @$rows;
}
is(scalar(keys %seen), $wanted, 'each delivery arrives');
is(scalar(grep { $_ > 1 } values %seen), 0, 'once, after the lease of the killed worker');
is($disorder, undef, 'in the order of its piece');
is(sql("SELECT waiting, leased, done_last_hour FROM postalytics.sync_health WHERE name = 'queue'"), "0|0|$wanted", 'sync_health adds up');

my ($id) = $worker->selectrow_array("SELECT postalytics.test_sync('queue')");
my ($fetched) = $worker->selectrow_array("SELECT delivery_id FROM postalytics.fetch('queue', 1)");
is($fetched, $id, 'a test delivery');
is($worker->selectrow_array("SELECT postalytics.nack('queue', ARRAY[?::bigint], 'no', dead => true, pause => '1 hour')", undef, $id), 1, 'nack');
is(sql("SELECT last_error, delivery_id = $id FROM postalytics.dead_letters WHERE sync = 'queue'"), 'no|t', 'dead_letters');
is(sql("SELECT dead, paused_until > now() FROM postalytics.sync_health WHERE name = 'queue'"), '1|t', 'the pause holds');
is(join(',', map { $_->safe_psql('postgres', "SELECT count(*) FROM postalytics.pauses WHERE sync = 'queue'") } @slot), '1,1,1,1', 'on every slot');
is(sql("SELECT postalytics.resume_sync('queue'), postalytics.redrive('queue')"), 't|1', 'resume and redrive');
is(sql("SELECT count(*) FROM postalytics.fetch('queue', 10, ack => ARRAY[$id])"), '1', 'ack of what is not leased, and fetch');
is(sql("SELECT postalytics.replay_sync('queue', '2026-01-01')"), $wanted, 'replay_sync counts all slots');
sql("SELECT postalytics.disable_sync('queue')");
is(sql("SELECT count(*) FROM postalytics.fetch('queue')"), '0', 'a disabled sync');
sql("SELECT postalytics.enable_sync('queue')");
is(sql("SELECT count(*) FROM postalytics.fetch('queue', 7)"), '7', 'enabled again');

# Limits are shared.
sql("SELECT postalytics.create_sync('limited', rate => 8, per => '1 day', max_leased => 4, since => '2026-01-01')");
is(sql("SELECT count(*) FROM postalytics.fetch('limited', 100)"), '4', 'max_leased holds for all slots together');
like(fails($front, "SELECT postalytics.create_sync('too few', max_leased => 3)"), qr/must be at least the number of slots, 4/, 'a limit that cannot be shared');
is(sql("SELECT count(*) FROM postalytics.syncs WHERE name = 'too few'"), '0', 'is refused as a whole');

# A slot that hangs delays a fetch by its timeout, and no longer.
my @pids = split /\n/, $slot[1]->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()');
my $postmaster = (split /\n/, slurp_file($slot[1]->data_dir . '/postmaster.pid'))[0];
kill 'STOP', $postmaster, @pids;
($result, $out, $err) = $front->psql('postgres', $fetch x 4, timeout => 120);
my $reachable = sql('SELECT string_agg(reachable::text, \',\' ORDER BY slot) FROM postalytics.cluster_health');
my ($r2, $o2, $e2) = $front->psql('postgres', "SET postalytics_status.command_timeout = '1s';\n\\set VERBOSITY verbose\nSELECT postalytics.replay_sync('all', '2026-01-01')", timeout => 120);
my ($r3, $o3, $e3) = $front->psql('postgres', "SET statement_timeout = '1s';\n\\set VERBOSITY verbose\nSELECT postalytics.replay_sync('all', '2026-01-01')", timeout => 120);
kill 'CONT', $postmaster, @pids;
is($out, join("\n", (20) x 4), 'a slot hangs, and fetch goes on');
like($err, qr/WARNING.*skipping slot 1 .*did not respond within the time limit/, 'with a warning');
is($reachable, 'true,false,true,true', 'cluster_health shows that it is not reachable');
like($e3, qr/ERROR/, 'statement_timeout ends a call');
like($e2, qr/08006: slot did not respond within the time limit/, 'other calls end with an error');

# ---- managers ----

my $ids = "ARRAY(SELECT p.piece_id FROM postalytics.pieces AS p WHERE p.account = '' ORDER BY p.piece_id LIMIT 8)";
my $of_ids = sql("SELECT count(*) FROM postalytics.events WHERE account = '' AND piece_id = ANY ($ids)");
is(sql("SELECT postalytics.rebuild_pieces($ids, '')"), $of_ids, 'rebuild_pieces');
is(sql("SELECT postalytics.rebuild_pieces($ids || NULL, ''), postalytics.rebuild_pieces('{}', '')"), "$of_ids|0", 'of NULL and of no pieces');
my ($p, $status, $at) = split /\|/, sql("SELECT piece_id, status, occurred_at FROM postalytics.events WHERE account = 'b' AND status = 'InTransit' LIMIT 1");
sql("SELECT FROM postalytics.retract_event('$p', '$status', '$at', 'b')");
is(sql("SELECT count(*) FROM postalytics.events WHERE (piece_id, account, status, occurred_at) = ('$p', 'b', '$status', '$at')"), '0', 'retract_event');
my $email = sql("SELECT email FROM postalytics.pieces WHERE account IN ('a', 'b') GROUP BY email HAVING count(DISTINCT account) = 2 ORDER BY email LIMIT 1");
like($email, qr/^p\d+\@example\.com$/, 'a person exists in both accounts');
like(fails($front, "SELECT postalytics.forget(email => '$email')"), qr/exists in more than one account/, 'forget needs the account');
sql("SELECT postalytics.forget(email => '$email', account => '$_')") for 'a', 'b', '';
is(sql("SELECT count(*) FROM postalytics.pieces WHERE email = '$email'"), '0', 'forget');

# forget searches for all names of a person on all slots, as it does on one node.
my $person = q{SELECT postalytics.ingest('[{"mailId": 7000, "eventType": 4, "eventDate": "2026-10-01", "contactId": "k1", "to": {"email": "kim@x.com"}},
	{"mailId": 7001, "eventType": 4, "to": {"email": "kim@x.com"}}, {"mailId": 7002, "eventType": 4, "to": {"email": "kim@x.com"}}, {"mailId": 7003, "eventType": 4, "to": {"email": "kim@x.com"}},
	{"mailId": 7004, "eventType": 4, "to": {"email": "lee@x.com"}}]', 'a')};
for my $call (q{contact_id => 'k1', account => 'a'}, q{email => 'lee@x.com'})
{
	$front->safe_psql($_, $person) for qw(postgres one);
	my $forget = "SELECT relation, action, affected FROM postalytics.forget($call) WHERE affected > 0 AND relation <> 'postalytics.deliveries' ORDER BY 1, 2";
	my $there = one($forget);
	like($there, qr/rejects\|delete\|[123]/, "forget($call) on one node");
	is(sql($forget), $there, 'and at the front');
}
my $of_b = sql("SELECT count(*) FROM postalytics.events WHERE campaign_id = 'c5' AND account = 'b'");
is(sql("SELECT postalytics.drop_campaign('c5', 'b')"), $of_b, 'drop_campaign counts all slots');
is(sql("SELECT count(*) FROM postalytics.events WHERE campaign_id = 'c5' AND account = 'b'"), '0', 'and deletes');
my $moved = sql("SELECT count(*) FROM postalytics.events WHERE account = ''");
is(sql("SET client_min_messages = error; SELECT postalytics.move_account('', 'c')"), $moved, 'move_account counts all slots');
is(sql("SELECT count(*) FROM postalytics.events WHERE account = 'c'"), $moved, 'and moves');
# Bindings are the same on slots that have the roles.
$_->safe_psql('postgres', 'CREATE ROLE reader') for @slot;
sql("SELECT postalytics.revoke_read('reader'); SELECT postalytics.grant_read('reader')");
sql("BEGIN; SELECT postalytics.revoke_read('reader'); SELECT postalytics.grant_read('reader', 'a'), postalytics.grant_read('reader', 'b'); COMMIT");
is(join(';', map { $_->safe_psql('postgres', 'SELECT string_agg(role || account, \',\' ORDER BY account) FROM postalytics.bindings') } @slot), join(';', ('readera,readerb') x 4), 'bindings on the slots');
is(sql("SELECT postalytics.drop_sync('some')") . sql("SELECT count(*) FROM postalytics.deliveries WHERE sync = 'some'"), '0', 'drop_sync');
is(syncs_of(@slot), join(',', ('all limited queue') x 4), 'on every slot');
is(sql("SELECT count(DISTINCT labels ->> 'slot') FROM postalytics.metrics WHERE name = 'event_ids'"), '4', 'metrics of each slot');
sql('CREATE ROLE everything; GRANT pg_read_all_data TO everything');
like(sql('SELECT string_agg(finding, \' \') FROM postalytics.check_setup()'), qr/Role everything can read the foreign tables/, 'check_setup lists roles that can read the foreign tables');
sql('DROP ROLE everything');
is(sql("SELECT string_agg(finding, ', ') FROM postalytics.check_setup() WHERE severity <> 'notice'"), '', 'check_setup reports no warnings');

# A slot that lags takes over the configuration later.
$slot[3]->safe_psql('postgres', 'UPDATE postalytics.slot SET configuration_version = configuration_version - 1');
is(sql("SELECT slot, lag > '0' FROM postalytics.cluster_health WHERE lag <> '0'"), '3|t', 'cluster_health shows a slot that lags');
like(sql("SELECT string_agg(finding, ', ') FROM postalytics.check_setup()"), qr/Slot 3 does not have the latest configuration/, 'and check_setup');
sql('SELECT FROM postalytics.maintain()');
is(sql("SELECT count(*) FROM postalytics.cluster_health WHERE lag <> '0'"), '0', 'maintain copies it');

sql("SELECT postalytics.create_sync('next')");
is(syncs_of(@slot), join(',', ('all limited next queue') x 4), 'and the next change is copied to all');

# A sync that is dropped and created again in one transaction is another sync.
my $old = sql("SELECT count(*) FROM postalytics.deliveries WHERE sync = 'limited'");
cmp_ok($old, '>', 0, 'a sync has deliveries');
sql("BEGIN; SELECT postalytics.drop_sync('limited'); SELECT postalytics.create_sync('limited'); COMMIT");
is(sql("SELECT count(*) FROM postalytics.deliveries WHERE sync = 'limited'"), '0', 'which do not belong to the next one of its name');

# A slot with an error of its own, here a sync that somebody has dropped on it.
$slot[0]->safe_psql('postgres', "SELECT postalytics.drop_sync('all')");
($result, $out, $err) = $front->psql('postgres', "SELECT postalytics.replay_sync('all', '2026-01-01');\n");
($result, $out, $err) = $front->psql('postgres', $fetch);
is($out, '20', 'a sync is missing on a slot, and fetch goes on');
sql("SELECT postalytics.configure('history', '7 days')");
is($slot[0]->safe_psql('postgres', "SELECT count(*) FROM postalytics.syncs WHERE name = 'all'"), '1', 'the next change creates it again');

# ---- a slot moves, while a client ingests ----

# The client repeats each call until it succeeds, as docs/scale.md says.
my $before = sql('SELECT count(*) FROM postalytics.events');
my $folder = PostgreSQL::Test::Utils::tempdir();
my $client = IPC::Run::start([ 'bash', '-c', q{
	for ((n = 1; ; n++)); do
		until psql -XAtqc "SELECT postalytics.ingest('[{\"mailId\": \"moving$n\", \"eventType\": 4, \"eventDate\": \"2026-10-01\"}]', 'c')" >/dev/null 2>>"$1/errors"; do sleep 0.05; done
		echo $n >"$1/stored"
		[ ! -e "$1/stop" ] || exit 0
	done}, 'client', $folder ], init => sub { $ENV{PGHOST} = $front->host; $ENV{PGPORT} = $front->port; $ENV{PGDATABASE} = 'postgres' });
sub stored { return -e "$folder/stored" ? slurp_file("$folder/stored") + 0 : 0 }
# Wait until the client has stored so many events.
sub wait_for { my ($count) = @_; for (1 .. 1800) { return if stored() >= $count; select(undef, undef, undef, 0.1) } die 'the client stores nothing more' }
wait_for(30);
my $dump = "$folder/slot1";
# Nobody may write to the slot from here on.
$slot[1]->safe_psql('postgres', "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()");
$slot[1]->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()");
command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $slot[1]->connstr('postgres') ], 'dump the slot');
my $new = PostgreSQL::Test::Cluster->new('new_place');
$new->init(allows_streaming => 1);
$new->start;
$new->safe_psql('postgres', 'CREATE ROLE reader');
command_ok([ 'pg_restore', '--exit-on-error', '--no-owner', '-d', $new->connstr('postgres'), $dump ], 'restore it elsewhere');
sql("SELECT postalytics.add_slot(1, '" . place($new) . "')");
$slot[1]->stop;
wait_for(stored() + 60);
append_to_file("$folder/stop", '');
$client->finish;
like(slurp_file("$folder/errors"), qr/could not store the events of slot 1 .*cannot execute INSERT in a read-only transaction/, 'writes to the slot that moves are refused');
my $n = stored();
is(sql('SELECT count(*) FROM postalytics.events') - $before, $n, 'each event is stored exactly once');
is(sql("SELECT count(DISTINCT piece_id) FROM postalytics.events WHERE piece_id LIKE 'moving%'"), $n, 'each event of the client is stored');
is(sql('SELECT count(DISTINCT event_id) - count(*) FROM postalytics.events'), '0', 'ids are unique after the restore');
is($new->safe_psql('postgres', 'SELECT slot, slots FROM postalytics.slot'), '1|4', 'it is the same slot');
is(sql("SELECT count(*) FROM postalytics.fetch('all', 10000) AS f WHERE f.delivery_id >> 43 = 1") > 0, 1, 'and its deliveries are fetched');
is(sql("SELECT count(*) FROM postalytics.cluster_health WHERE reachable AND lag = '0'"), '4', 'all slots are reachable and up to date');

# ---- a slot fails over to its standby ----

$new->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($new, 'base', has_streaming => 1);
$standby->start;
sql("SELECT postalytics.add_slot(1, 'host=" . $new->host . ',' . $standby->host . ' port=' . $new->port . ',' . $standby->port . " dbname=postgres target_session_attrs=read-write')");
my $on_slot1 = (grep { $slot_of[$_] == 1 } 2500 .. 2999)[0];
my $to_slot1 = "SELECT inserted + duplicates FROM postalytics.ingest('" . event($on_slot1, 4, 1) . "', 'c')";
is(sql($to_slot1), '1', 'a slot with two addresses');
$new->wait_for_catchup($standby, 'replay');
my $session = DBI->connect('dbi:Pg:' . $front->connstr('postgres'), undef, undef, { RaiseError => 1, PrintError => 0, PrintWarn => 0 });
is($session->selectrow_array($to_slot1), '1', 'a session that is connected to it');
$new->stop('immediate');
$standby->promote;
is($session->selectrow_array($to_slot1), '1', 'finds the standby that was promoted');
is($session->selectrow_array("SELECT count(*) FROM postalytics.pieces WHERE piece_id = '$on_slot1'"), '1', 'also through foreign tables');
$session->disconnect;
$new = $standby;
is($new->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 'f', 'which is the slot now');

my @current = ($slot[0], $new, @slot[ 2, 3 ]);	# the slots as they are now

# ---- a slot that is restored from an older dump ----

my $older = PostgreSQL::Test::Utils::tempdir() . '/older';
command_ok([ 'pg_dump', '-Fc', '-f', $older, '-d', $slot[2]->connstr('postgres') ], 'dump a slot');
sql("SELECT postalytics.create_sync('younger')");
$slot[2]->safe_psql('postgres', 'CREATE DATABASE older');
command_ok([ 'pg_restore', '--exit-on-error', '-d', $slot[2]->connstr('older'), $older ], 'restore the slot');
(my $to_older = place($slot[2])) =~ s/dbname=postgres/dbname=older/;
my $up_to_date = "SELECT count(*) FROM postalytics.cluster_health WHERE reachable AND lag = '0' AND last_error IS NULL";
sql("SELECT postalytics.add_slot(2, '$to_older')");
is($slot[2]->safe_psql('older', "SELECT count(*) FROM postalytics.syncs WHERE name = 'younger'"), '1', 'add_slot copies the configuration to it');
is(sql($up_to_date), '4', 'so that no slot lags');
sql("SELECT postalytics.drop_sync('younger')");
sql("SELECT postalytics.add_slot(2, '" . place($slot[2]) . "')");
is($slot[2]->safe_psql('postgres', "SELECT count(*) FROM postalytics.syncs WHERE name = 'younger'"), '0', 'and to the database that it was restored from');
is(sql($up_to_date), '4', 'again no slot lags');

# ---- dump and restore of the front ----

sub fails_in { my ($database, $call) = @_; my ($result, $out, $err) = $front->psql($database, $call); return $err }

my $front_dump = PostgreSQL::Test::Utils::tempdir() . '/front';
command_ok([ 'pg_dump', '-Fc', '-f', $front_dump, '-d', $front->connstr('postgres') ], 'dump the front');
$front->safe_psql('postgres', 'CREATE DATABASE again');
command_ok([ 'pg_restore', '--exit-on-error', '-d', $front->connstr('again'), $front_dump ], 'restore the front');
is(join(',', map { $_->safe_psql('postgres', 'SELECT count(*) FROM postalytics.syncs') } @current), '4,4,4,4', 'which changes no slot');
is($front->safe_psql('again', 'SELECT count(*) FROM postalytics.events'), sql('SELECT count(*) FROM postalytics.events'), 'it can read the slots');
like(fails_in('again', "SELECT postalytics.ingest('[]')"), qr/cluster is not complete/, 'but not write to them');
like($front->safe_psql('again', "SELECT string_agg(finding, ' ') FROM postalytics.check_setup()"), qr/The cluster has no slots/, 'as check_setup says');
my @place = map { place($_) } @current;
like(fails_in('again', "SELECT postalytics.add_slot(0, '$place[0]')"), qr/slot 0 already has a configuration.*take_over => true/s, 'unless it takes over');
$front->safe_psql('again', "SELECT postalytics.add_slot($_, '$place[$_]', take_over => true)") for 0 .. 3;
is($front->safe_psql('again', $up_to_date), '4', 'then it is connected');
is(syncs_of(@current), join(',', ('all limited next queue') x 4), 'and the slots keep their syncs');
is(sql("SELECT count(*) FROM postalytics.cluster_health WHERE last_error = 'the slot belongs to another front'"), '4', 'the other front has lost them');
is($front->safe_psql('again', "SELECT inserted FROM postalytics.ingest('{\"mailId\": \"after\", \"eventType\": 4, \"eventDate\": \"2026-10-01\"}', 'c')"), '1', 'it ingests');
is($front->safe_psql('again', "SELECT postalytics.configure('history', '6 days')") . $new->safe_psql('postgres', "SELECT postalytics.setting('history')"), '6 days', 'and configures');
like(fails($front, "SELECT postalytics.configure('history', '8 days')"), qr/is not a slot of this front/, 'which the other front cannot do any more');
# A copy of the database is another front.
$front->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE again');
sub history { return join ',', map { $_->safe_psql('postgres', "SELECT postalytics.setting('history')") } @current }
$front->safe_psql('copy', "SELECT postalytics.configure('history', '9 days')");
is(history(), join(',', ('6 days') x 4), 'a copy of the front changes no slot');
like(fails_in('copy', "SELECT postalytics.ingest('[]')"), qr/cluster is not complete.*Its slots belong to another front.*take_over => true/s, 'and ingests nothing');
like($front->safe_psql('copy', "SELECT string_agg(DISTINCT remedy, ' ') FROM postalytics.check_setup() WHERE name = 'slot'"), qr/^Call add_slot with take_over => true for each slot, or drop this front\.$/, 'check_setup says what to do');
is($front->safe_psql('copy', 'SELECT string_agg(DISTINCT last_error, \',\') FROM postalytics.cluster_health'), 'the slot belongs to another front', 'cluster_health says why');

# It takes over the slots, with calls at the same time, and even if its configuration has changed
# without a trigger.
$_->safe_psql('postgres', 'ALTER ROLE reader RENAME TO former_reader') for $front, @current;
sub in_copy { my ($call, $errors) = @_; return IPC::Run::start([ 'psql', '-XAtq', '-d', $front->connstr('copy'), '-c', $call ], '>', \my $nothing, '2>', $errors) }
my @errors = ('', '', '');
$_->finish for map { in_copy("SELECT postalytics.add_slot($_, '$place[$_]', take_over => true)", \$errors[$_]) } 0 .. 2;
is("@errors", '  ', 'it takes over slots');
$slot[0]->safe_psql('postgres', 'CREATE DATABASE two');
$slot[0]->safe_psql('two', 'CREATE EXTENSION postalytics_status; SELECT postalytics.join_cluster(1, 2)');
like(fails_in('copy', "SELECT postalytics.add_slot(1, '" . place($slot[0]) =~ s/postgres$/two/r . "')"), qr/belongs to a cluster of 2 slots, but this cluster has 4/, 'a slot of a cluster of another size');
my $before_it = DBI->connect('dbi:Pg:' . $front->connstr('copy'), undef, undef, { RaiseError => 1, PrintError => 0 });
$before_it->do($_) for 'BEGIN ISOLATION LEVEL REPEATABLE READ', "SELECT postalytics.configure('max_rejects', '900')";

# A change at the same time as the call that completes the cluster waits for it.
my $gate = DBI->connect('dbi:Pg:' . $front->connstr('copy'), undef, undef, { RaiseError => 1, PrintError => 0 });
$gate->do('SELECT pg_advisory_lock(1)');
my $waits = q{SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'copy' AND wait_event = '%s'};
my $last = in_copy("DO \$\$ BEGIN PERFORM postalytics.add_slot(3, '$place[3]', take_over => true); PERFORM pg_advisory_xact_lock(1); END \$\$", \$errors[0]);
$front->poll_query_until('copy', sprintf $waits, 'advisory');
my $meanwhile = in_copy("SELECT postalytics.configure('history', '8 days')", \$errors[1]);
$front->poll_query_until('copy', sprintf $waits, 'relation');
$gate->do('SELECT pg_advisory_unlock(1)');
$_->finish for $last, $meanwhile;
$gate->disconnect;
is("@errors", '  ', 'a change while the last slot is added');
is(history(), join(',', ('8 days') x 4), 'reaches all slots');
is($front->safe_psql('copy', $up_to_date), '4', 'and the slots are those of the copy');

eval { $before_it->do('COMMIT') };
like($@, qr/could not serialize access due to concurrent update/, 'a snapshot from before that cannot change the configuration');
$before_it->disconnect;

# A call for a slot of a complete cluster copies a change without a trigger as well, but does
# not need the other slots.
my $bound = "SELECT string_agg(DISTINCT b.role::regrole::text, ',') FROM postalytics.bindings AS b WHERE b.role::regrole::text LIKE '%reader'";
$_->safe_psql('postgres', 'ALTER ROLE former_reader RENAME TO new_reader') for $front, @current;
$front->safe_psql('copy', "SELECT postalytics.add_slot(0, '$place[0]')");
is(join(',', map { $_->safe_psql('postgres', $bound) } @current), join(',', ('new_reader') x 4), 'add_slot copies the new name of a role');
$_->safe_psql('postgres', 'ALTER ROLE new_reader RENAME TO reader') for $front, @current;
$new->stop;
like(fails_in('copy', "SELECT postalytics.add_slot(0, '$place[0]')"), qr/WARNING:  could not copy the latest configuration: .*could not reach the slot/s, 'or warns');
is($slot[0]->safe_psql('postgres', $bound), 'reader', 'and leaves the slot as it is');
$new->start;
$front->safe_psql('copy', 'SELECT FROM postalytics.maintain()');
is($front->safe_psql('copy', $up_to_date), '4', 'and maintain copies it');
is(join(',', map { $_->safe_psql('postgres', $bound) } @current), join(',', ('reader') x 4), 'to all slots');
$front->safe_psql('copy', 'DROP EXTENSION postalytics_cluster CASCADE');
$front->safe_psql('again', 'DROP EXTENSION postalytics_cluster CASCADE');
$worker->disconnect;

done_testing();
