# An INSERT into inbox that is larger than memory stores each event once, in any order,
# and does not block writers of other pieces.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use DBI;

my $node = PostgreSQL::Test::Cluster->new('large');
$node->init;
$node->append_conf('postgresql.conf', "maintenance_work_mem = '8MB'\nautovacuum = off\nlog_min_messages = warning");
$node->start;

sub session
{
	return DBI->connect('dbi:Pg:' . $node->connstr('postgres') . " user='" . getpwuid($<) . "'", undef, undef, { RaiseError => 1, PrintError => 0 });
}
my @sessions = map { session() } 1 .. 2;
my ($first, $writer) = @sessions;
$first->do("CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d')");
$first->do(q{SELECT postalytics.create_sync('some', statuses => '{pURLCompleted}')});

# 250,000 rows, about 90 MB.  A tenth of the events occur twice, and a few are invalid.
$first->do(q{
	CREATE TABLE feed AS
	SELECT i, floor(random() * 20000)::int::text AS piece, (ARRAY['0', '9', '10', '11', '4', '5', '6', '2', '3', '7', '8', 'Teleported'])[1 + floor(random() * 11.001)] AS type,
		   to_char(timestamp '2026-01-15' + floor(random() * 200000) * interval '1 min', 'YYYY-MM-DD HH24:MI') AS at, 'c' || i % 5 AS campaign, 'Name ' || i AS name
	FROM generate_series(1, 225000) AS i;
	INSERT INTO feed SELECT i + 300000, piece, type, at, campaign, 'again' FROM feed WHERE i <= 25000});
my $insert = q{INSERT INTO postalytics.inbox (mail_id, event_type, event_date, campaign_id, first_name) SELECT '%s' || piece, type, at, campaign, name FROM feed ORDER BY %s};

# Check that each event is stored once, in its first version, and that pieces and
# deliveries match the events.
sub check
{
	my ($copy, $how) = @_;
	is($first->selectrow_array(qq{
		SELECT count(*)
		FROM (SELECT DISTINCT ON (piece, status, at) '$copy' || piece AS piece_id, status, at::timestamp AT TIME ZONE 'UTC' AS occurred_at, name
			  FROM feed, postalytics.to_mail_status(type) AS status
			  WHERE status IS NOT NULL
			  ORDER BY piece, status, at, i) AS f
		FULL JOIN (SELECT * FROM postalytics.events WHERE piece_id LIKE '$copy%') AS e USING (piece_id, status, occurred_at)
		WHERE f.piece_id IS NULL OR e.piece_id IS NULL OR f.name <> e.payload ->> 'first_name'}), 0, "$how: each event is stored once, in its first version");
	is($first->selectrow_array(qq{
		SELECT count(*)
		FROM (SELECT piece_id, postalytics.current_status(status, occurred_at) AS status, count(*) FILTER (WHERE status = 'pURLOpened') AS opens
			  FROM postalytics.events WHERE piece_id LIKE '$copy%' GROUP BY 1) AS e
		FULL JOIN (SELECT * FROM postalytics.pieces WHERE piece_id LIKE '$copy%') AS p USING (piece_id)
		WHERE (e.status, e.opens) IS DISTINCT FROM (p.status, p.opens)}), 0, "$how: pieces match their events");
	is($first->selectrow_array(qq{SELECT count(*) - (SELECT count(*) FROM postalytics.events WHERE piece_id LIKE '$copy%' AND status = 'pURLCompleted')
		FROM postalytics.deliveries WHERE piece_id LIKE '$copy%'}), 0, "$how: deliveries match them, too");
}

# Start a psql that runs these commands in the background.
sub start
{
	my %psql = (in => "$_[0]\n\\echo done\n", out => '');
	$psql{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$psql{in}, '>', \$psql{out}, '2>&1',
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$psql{run}->pump_nb;
	return \%psql;
}

# Other calls are not blocked while it runs, nor while its transaction idles afterwards.
$writer->do("SET lock_timeout = '1s'");
my $large = start('BEGIN; ' . sprintf($insert, 'a', 'i') . ';');
my $calls = 0;
sub write_one
{
	$calls++;
	my $month = 1 + $calls % 9;
	$writer->do(qq{SELECT postalytics.ingest('{"mailId": "other $calls", "eventType": 4, "eventDate": "2026-0$month-20", "campaignId": "c1"}')});
	$large->{run}->pump_nb;
}
write_one() until $large->{out} =~ /done/;
write_one() for 1 .. 20;
cmp_ok($calls, '>', 40, "$calls other calls have completed meanwhile");
$large->{in} .= "COMMIT;\n\\q\n";
$large->{run}->finish;
is($large->{out}, "done\n", 'and the large one completes');
check('a', 'large');

# Two statements with the same pieces, in different orders, do not deadlock.
my @two = map { start("SET deadlock_timeout = '100ms'; " . sprintf($insert, 'b', $_) . ";\n\\q") } 'md5(i::text)', 'i';
$_->{run}->finish for @two;
is(join('', map { $_->{out} } @two), '', 'two of them do not deadlock');
is($first->selectrow_array(q{SELECT count(*) FROM (SELECT piece_id, status, occurred_at FROM postalytics.events WHERE piece_id LIKE 'b%' GROUP BY 1, 2, 3 HAVING count(*) > 1) AS d}), 0, 'and no event is stored twice');
is($first->selectrow_array(q{SELECT (SELECT count(*) FROM postalytics.events WHERE piece_id LIKE 'a%') - (SELECT count(*) FROM postalytics.events WHERE piece_id LIKE 'b%')}), 0, 'all are stored');

# If users have added a column to events, the rows are stored by queries.
$first->do('ALTER TABLE postalytics.events ADD note text');
$first->do("SELECT postalytics.configure('keep_payload', 'off')");
$first->do(sprintf($insert, 'c', 'i'));
is($first->selectrow_array(q{SELECT count(*) FROM (SELECT piece_id FROM postalytics.pieces WHERE piece_id LIKE 'c%' AND first_name IS NULL) AS p}), 0, 'by queries, and without payloads: pieces have their recipients');
is($first->selectrow_array(q{SELECT (SELECT count(*) FROM postalytics.events WHERE piece_id LIKE 'a%') - (SELECT count(*) FROM postalytics.events WHERE piece_id LIKE 'c%')}), 0, 'and all events are stored');
is($first->selectrow_array(q{
	SELECT count(*)
	FROM postalytics.pieces AS a JOIN postalytics.pieces AS c ON c.piece_id = 'c' || substr(a.piece_id, 2)
	WHERE a.piece_id LIKE 'a%' AND (a.status, a.status_at, a.first_name, a.campaign_id, a.opens) IS DISTINCT FROM (c.status, c.status_at, c.first_name, c.campaign_id, c.opens)}), 0, 'and pieces are the same');

# An error at the end rolls everything back, and leaves no temporary file.
$first->do('ALTER TABLE postalytics.events DROP note');
ok(!eval { $first->do(sprintf($insert, 'd', 'i') =~ s/FROM feed/FROM (SELECT * FROM feed UNION ALL SELECT 9999999, 'x', (1 \/ (i - i))::text, '', '', '' FROM feed WHERE i = 5) AS feed/r); 1 }, 'a statement that fails');
is($first->selectrow_array(q{SELECT count(*) FROM postalytics.events WHERE piece_id LIKE 'd%'}), 0, 'stores nothing');
is($first->selectrow_array(q{SELECT count(*) FROM pg_ls_tmpdir()}), 0, 'and leaves no file');

$_->disconnect for @sessions;
$node->stop;
done_testing();
