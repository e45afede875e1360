# Two accounts that use the same ids, names and times do not affect each other: whatever
# the order in which their events arrive and the way they are stored, every table, every
# report and every sync shows for each account what it would show if it were alone.
# SEED repeats a run.
use strict;
use warnings;
use DBI;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} // time;
srand($seed);
note "SEED=$seed";

my $node = PostgreSQL::Test::Cluster->new('accounts');
$node->init;
$node->start;
my %db;
for my $name ('a', 'b', 'together')
{
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$db{$name} = DBI->connect("dbi:Pg:host=" . $node->host . ";port=" . $node->port . ";dbname=$name",
		getpwuid($<) . '', '', { RaiseError => 1, PrintError => 0 });
	$db{$name}->do(q{
		SET client_min_messages = warning;
		CREATE EXTENSION postalytics_status;
		SET search_path = public, postalytics;
		SET timezone = 'UTC';
		SELECT configure('latest', '100 years'), ensure_partitions('2026-09-01 UTC', '2026-12-01 UTC');
		SELECT create_sync('ordered'), create_sync('unless', unless => '{ReturnedToSender,pURLCompleted}'),
			create_sync('latest', latest_only => true), create_sync('campaign', campaigns => '{c1}', ordered => false),
			create_sync('of_a', accounts => '{a}'), create_sync('of_b', accounts => '{b}')});
}

# Return a random event of one of a few pieces and campaigns, so that the accounts
# collide in all of them.  Some events are invalid.  With $is_new, no earlier event has
# the same piece, status and time.
my %known;
sub event
{
	my ($is_new) = @_;
	my $json = JSON::PP->new->canonical;
	my $event = { mailId => int rand 12, eventType => int rand 13, eventDate => sprintf('2026-%02d-%02dT0%d:00:00Z', 9 + rand 3, 1 + rand 28, rand 3),
		campaignId => 'c' . int rand 3 };
	my $is_known = $known{"@$event{qw(mailId eventType eventDate)}"}++;
	return event(1) if $is_new && $is_known;
	$event->{campaignName} = 'name ' . int rand 4 if rand() < 0.5;
	$event->{to} = { id => int rand 3, firstName => 'first ' . int rand 9, zip => 10000 + int rand 9, country => rand() < 0.5 ? 'US' : 'CA' } if rand() < 0.5;
	$event->{fields} = { n => int rand 9 } if rand() < 0.3;
	$event->{account} = rand() < 0.5 ? 'a' : 'b' if rand() < 0.3;	# must be ignored
	delete $event->{eventDate} if rand() < 0.05;
	return $json->encode($event);
}

# Store events through ingest, inbox, or the table itself, whose trigger derives the
# rest.
sub bring
{
	my ($db, $account, $way, @events) = @_;
	my $list = '[' . join(',', @events) . ']';
	if ($way < 2)
	{
		$db->do('SELECT ingest(?, ?)', undef, $list, $account);
	}
	elsif ($way == 2)
	{
		$db->do('INSERT INTO inbox (account, payload) SELECT ?, value FROM json_array_elements(?)', undef, $account, $list);
	}
	else
	{
		$db->do(q{INSERT INTO events (piece_id, account, status, occurred_at, campaign_id, payload)
			SELECT DISTINCT ON (1, 3, 4) value ->> 'mailId', ?, to_mail_status(value ->> 'eventType'), (value ->> 'eventDate')::timestamptz, value ->> 'campaignId', value
			FROM json_array_elements(?) WITH ORDINALITY AS j (value, nth)
			WHERE value ->> 'eventDate' IS NOT NULL AND to_mail_status(value ->> 'eventType') IS NOT NULL
			AND NOT EXISTS (SELECT FROM events AS e WHERE (e.piece_id, e.account, e.status, e.occurred_at)
				= (value ->> 'mailId', ?, to_mail_status(value ->> 'eventType'), (value ->> 'eventDate')::timestamptz))
			ORDER BY 1, 3, 4, nth}, undef, $account, $list, $account);
	}
}

# Record by account what the syncs of a database deliver until nothing is due.  Each
# delivery is acknowledged immediately.
my %handed;
sub drain
{
	my ($name) = @_;
	for my $sync (qw(ordered unless latest campaign of_a of_b))
	{
		for (;;)
		{
			my $rows = $db{$name}->selectall_arrayref('SELECT * FROM postalytics.fetch(?, 7)', { Slice => {} }, $sync);
			last if !@$rows;
			for my $row (@$rows)
			{
				my $id = delete $row->{delivery_id};
				push @{ $handed{$name}{ $row->{account} } }, join '|', $sync, map { $_ // '' } @$row{ grep { $_ ne 'due_at' } sort keys %$row };
				$db{$name}->do('SELECT ack(?, ARRAY[?::bigint])', undef, $sync, $id);
			}
		}
	}
}

# Run one schedule three times: each account alone in its own database, and both
# together.
my @rounds = map { [ map { [ (rand() < 0.5 ? 'a' : 'b'), int rand 4, map { event() } 1 .. 1 + rand 25 ] } 1 .. 8 ] } 1 .. 12;
for my $round (@rounds)
{
	for my $call (@$round)
	{
		my ($account, $way, @events) = @$call;
		bring($db{$_}, $account, $way, @events) for $account, 'together';
	}
	drain($_) for 'a', 'b', 'together';
}
$_->do(q{SELECT replay_sync('campaign', '-infinity')}) for values %db;
drain($_) for 'a', 'b', 'together';

my %queries = (
	events => 'SELECT piece_id, account, status, occurred_at, campaign_id, payload::text FROM events',
	pieces => 'SELECT p::text FROM pieces AS p',
	campaigns => 'SELECT c::text FROM campaigns AS c',
	rejects => 'SELECT piece_id, account, reason, payload::text FROM rejects',
	deliveries => 'SELECT sync, piece_id, account, status, occurred_at, state, attempt FROM deliveries',
	journey => "SELECT j.* FROM pieces AS p, journey(p.piece_id, p.account) AS j",
	funnel => "SELECT f.* FROM (SELECT DISTINCT campaign_id FROM campaigns) AS c, funnel(c.campaign_id, '2026-10-15') AS f",
	status_as_of => "SELECT piece_id, account, status_as_of(piece_id, '2026-10-10', account) FROM pieces",
	stuck_pieces => "SELECT piece_id, account, campaign_id, status, usual FROM stuck_pieces(younger_than => NULL)",
	map { $_ => "SELECT v::text FROM $_ AS v" } qw(campaign_funnel campaign_funnel_by_country campaign_progress campaign_responses responses_by_day returned_mail));

# Return the rows of an account, sorted.
sub rows
{
	my ($name, $account, $query) = @_;
	my $has_account = $query =~ /::text FROM (\w+) AS (\w)/;
	my $sql = $has_account ? "$query WHERE $2.account = " . $db{$name}->quote($account) : "SELECT * FROM ($query) AS q WHERE account = " . $db{$name}->quote($account);
	return join "\n", sort map { join '|', map { $_ // '' } @$_ } @{ $db{$name}->selectall_arrayref($sql) };
}

sub same
{
	my ($title) = @_;
	for my $account ('a', 'b')
	{
		for my $query (sort keys %queries)
		{
			my $alone = rows($account, $account, $queries{$query});
			is(rows('together', $account, $queries{$query}), $alone, "$title: $query of $account");
		}
	}
}
same('brought');
cmp_ok(scalar(split /\n/, rows('together', 'a', $queries{$_})), '>', 5, "there are $_ to compare") for qw(events pieces rejects deliveries journey);
is(join("\n", sort @{ $handed{together}{$_} }), join("\n", sort @{ $handed{$_}{$_} }), "$_ gets the same deliveries") for 'a', 'b';
is(join(',', sort keys %{ $handed{together} }), 'a,b', 'there are no deliveries of another account');
is($db{together}->selectrow_array("SELECT count(*) FROM deliveries WHERE sync = 'of_a' AND account <> 'a'"), 0, 'a sync of one account has nothing of the other');

# The campaign of one account is dropped, and its pieces are derived again.
eval { $db{together}->do("SELECT drop_campaign('c1')") };
is($db{together}->state, '21000', 'drop_campaign requires the account if two have the campaign');
is($db{together}->selectrow_array("SELECT drop_campaign('c1', 'a')"), $db{a}->selectrow_array("SELECT drop_campaign('c1')"), 'the campaign of one account is dropped');
same('dropped');

# When an agency gets its second client, the rows that have no account get one, while
# another account has the same pieces.  The result is the same as if they had always had
# that account.
$_->do('SELECT drop_sync(name) FROM syncs') for values %db;
for my $name ('a', 'together')
{
	$db{$name}->do('TRUNCATE events, pieces, campaigns, rejects, deliveries');
	$db{$name}->do(q{SELECT create_sync('s')});
}
for my $round (@rounds)
{
	for my $call (@$round)
	{
		my ($account, $way, @events) = @$call;
		bring($db{together}, $account eq 'a' ? '' : $account, $way, @events);
		bring($db{a}, $account, $way, @events) if $account eq 'a';
	}
}
$db{b}->do('TRUNCATE deliveries');
my ($moved) = $db{together}->selectrow_array("SELECT move_account('', 'a')");
is($moved, $db{a}->selectrow_array('SELECT count(*) FROM events'), 'all of it is moved');
my $count = 0;
for my $query (grep { !/journey/ } sort keys %queries)
{
	is(rows('together', 'a', $queries{$query}), rows('a', 'a', $queries{$query}), "moved: $query");
}
is($db{together}->selectrow_array("SELECT move_account('', 'a')"), 0, 'a second time there is nothing to move');

# Events that arrived meanwhile without an account are merged, including duplicates.
for my $call (map { @$_ } @rounds[ 0 .. 5 ])
{
	my ($account, $way, @events) = @$call;
	my @more = map { event(1) } 1 .. 5;	# merging keeps the fields of both events where two differ
	bring($db{together}, '', 0, @events, @more) if $account eq 'a';
	bring($db{a}, 'a', 0, @events, @more) if $account eq 'a';
}
$db{together}->do("SELECT move_account('', 'a')");
for my $query (qw(pieces campaigns campaign_funnel status_as_of))
{
	is(rows('together', 'a', $queries{$query}), rows('a', 'a', $queries{$query}), "merged: $query");
}
is(rows('together', 'a', 'SELECT account, piece_id, status, occurred_at FROM events'),
	rows('a', 'a', 'SELECT account, piece_id, status, occurred_at FROM events'), 'merged: events');
is($db{together}->selectrow_array("SELECT count(*) FROM pieces WHERE account = ''") + $db{together}->selectrow_array("SELECT count(*) FROM campaigns WHERE account = ''"),
	0, 'no row is left without an account');
# Merging loses nothing that only a payload contained, although payloads are not kept.
# A visit that both accounts have counts once, and is delivered once.
$db{together}->do("SELECT configure('keep_payload', 'off')");
my $visit = q{'[{"mailId": "kept", "eventType": 7, "eventDate": "2026-10-06", "url": "https://x.example/", "to": {"firstName": "Kept", "zip": "04101"}}]'};
$db{together}->do("SELECT ingest($visit), ingest($visit, 'a'), ingest(q) FROM (SELECT '[{\"mailId\": \"kept\", \"eventType\": 11, \"eventDate\": \"2026-10-01\"}]'::json) AS q (q)");
is($db{together}->selectrow_array("SELECT move_account('', 'a')"), 2, 'events without their payloads are moved');
is(join('|', $db{together}->selectrow_array(q{SELECT account, first_name, zip, last_url, status, response, opens,
	(SELECT count(*) FROM events AS e WHERE e.piece_id = p.piece_id), (SELECT count(*) FROM deliveries AS d WHERE d.piece_id = p.piece_id)
	FROM pieces AS p WHERE piece_id = 'kept'})), 'a|Kept|04101|https://x.example/|Mailed|pURLOpened|1|2|2', 'with what their payloads contained');

# Rows of users that refer to merged pieces are neither deleted nor left behind.
$db{together}->do(q{CREATE TABLE call_list (piece text, of text, remark text,
	FOREIGN KEY (piece, of) REFERENCES pieces (piece_id, account) ON DELETE CASCADE ON UPDATE CASCADE);
	ALTER TABLE pieces ADD remark text, ADD serial bigint GENERATED ALWAYS AS IDENTITY;
	SELECT ingest(q), ingest(q, 'a') FROM (SELECT '[{"mailId": "both", "eventType": 11, "eventDate": "2026-10-01"}]'::json) AS q (q);
	SELECT ingest('{"mailId": "one", "eventType": 11, "eventDate": "2026-10-01"}');
	UPDATE pieces SET remark = 'of ' || account WHERE piece_id = 'both';
	INSERT INTO call_list VALUES ('both', 'a', 'new'), ('both', '', 'old'), ('one', '', 'moved')});
eval { $db{together}->do("SELECT move_account('', 'a')") };
is($db{together}->state, '23503', 'a piece that both accounts have is not merged while a row refers to the old one');
like($db{together}->errstr, qr/cannot merge piece "both" because table public.call_list refers to it/, 'which the error names');
$db{together}->do(q{UPDATE call_list SET of = 'a' WHERE (piece, of) = ('both', '')});
{
	my @notices;
	local $SIG{__WARN__} = sub { push @notices, @_ };
	$db{together}->do('SET client_min_messages = notice');
	$db{together}->do("SELECT move_account('', 'a')");
	like(join('', @notices), qr/syncs that deliver events of all accounts: s\n/, 'it names the syncs that are for all accounts');
}
is(join('|', map { @$_ } @{ $db{together}->selectall_arrayref('SELECT piece, of, remark FROM call_list ORDER BY remark') }),
	'one|a|moved|both|a|new|both|a|old', 'the rows of the new account are kept, and those of the old one follow');
is(join('|', $db{together}->selectrow_array("SELECT count(*), max(remark) FROM pieces WHERE piece_id = 'both'")), '1|of a',
	'as does a column that users added');

for (['NULL', "'x'", '22004'], [ "'a'", "'a'", '22023' ], [ "''", "repeat('x', 256)", '22001' ], [ "'a'", "''", '22023' ])
{
	my ($from, $to, $state) = @$_;
	eval { $db{together}->do("SELECT move_account($from, $to)") };
	is($db{together}->state, $state, "move_account($from, $to) is refused");
}

$_->disconnect for values %db;
$node->stop;
done_testing();
