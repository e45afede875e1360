# The postmaster, or a single session, gets kill -9 while clients ingest and two workers
# fetch.  Both record which of their calls returned.  Afterwards each event of a
# returned ingest is stored once, no batch is stored in part, pieces match their events,
# every event has its delivery, and acknowledged deliveries stay done.
# CRASHES=n sets the number of rounds, and SEED=n their random choices.
use strict;
use warnings;
use DBI;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $clients = 4;
my $rounds = $ENV{CRASHES} // 4;
my @codes = (11, 4, 5, 6, 2, 3, 7, 8);
my $seed = $ENV{SEED} // 20261123;
srand($seed);
note("SEED=$seed");

# The unique name appears in the titles of the server's processes.
my $name = "crash_$$";
my $node = PostgreSQL::Test::Cluster->new($name);
$node->init;
$node->append_conf('postgresql.conf', "fsync = on\nrestart_after_crash = on");
$node->start;
$node->safe_psql('postgres', q{CREATE EXTENSION postalytics_status; SELECT postalytics.configure('earliest', '36500d'); SELECT postalytics.create_sync('all', ordered => false)});

my $folder = PostgreSQL::Test::Utils::tempdir();
my $dsn = "dbi:Pg:host=" . $node->host . ";port=" . $node->port . ";dbname=postgres";

# Run a client or worker in a new process until its connection breaks.  The process
# records why it ended.
sub start
{
	my ($what, $round, $number) = @_;
	my $pid = fork();
	return $pid if $pid;
	eval { $what->($round, $number) };
	append_to_file("$folder/ended.$round", $@);
	require POSIX;
	POSIX::_exit(0);
}

# Sleep briefly, and die if one of the processes has ended.
sub while_they_run
{
	my ($round) = @_;
	select(undef, undef, undef, 0.05);
	die slurp_file("$folder/ended.$round") if -e "$folder/ended.$round";
}

# A client ingests batches of new events until its connection breaks, and records each
# batch whose call returned.  All clients share the pieces, and each batch is in another
# month than the one before.
sub client
{
	my ($round, $number) = @_;
	open my $log, '>', "$folder/$round.$number" or die;
	$log->autoflush(1);
	my $connection = DBI->connect($dsn, getpwuid($<) . '', '', { RaiseError => 1, PrintError => 0 });
	for (my $batch = 0;; $batch++)
	{
		my @events = map { sprintf('{"mailId": %d, "eventType": %d, "eventDate": "%d-%02d-15T00:%02d:%02d.%06d"}',
			$_ * 7 % 50, $codes[ ($_ + $batch) % @codes ], 2025 - $round, 1 + $batch % 12, $number, $_, $batch) } 1 .. 40;
		my ($inserted) = $connection->selectrow_array('SELECT inserted FROM postalytics.ingest(?)', undef, '[' . join(',', @events) . ']');
		die "batch $batch: $inserted inserted; " . join(', ', @{ $connection->selectcol_arrayref('SELECT DISTINCT reason FROM postalytics.rejects') }) if $inserted != 40;
		print $log "$batch\n";
	}
}

# A worker fetches, acks, and records what it acked.
sub work
{
	my ($round, $number) = @_;
	open my $log, '>', "$folder/acked.$round.$number" or die;
	$log->autoflush(1);
	my $connection = DBI->connect($dsn, getpwuid($<) . '', '', { RaiseError => 1, PrintError => 0 });
	for (;;)
	{
		my $ids = $connection->selectcol_arrayref(q{SELECT delivery_id FROM postalytics.fetch('all', 50, lease => '1 s', max_wait => '100 ms')});
		next unless @$ids;
		$connection->selectrow_array(q{SELECT postalytics.ack('all', ?)}, undef, $ids);
		print $log map { "$_\n" } @$ids;
	}
}

for my $round (1 .. $rounds)
{
	my @pids = map { start(\&work, $round, $_) } 1 .. 2;
	push @pids, map { start(\&client, $round, $_) } 1 .. $clients;
	# Let every process complete a call before the crash.
	for my $log ((map { "acked.$round.$_" } 1 .. 2), map { "$round.$_" } 1 .. $clients)
	{
		while_they_run($round) until -s "$folder/$log";
	}
	select(undef, undef, undef, rand(0.7));
	if ($round % 2)
	{
		my $postmaster = $node->{_pid};
		$node->kill9;
		select(undef, undef, undef, 0.05) while kill 0, $postmaster;
	}
	else
	{
		my $backend;
		until ($backend)
		{
			while_they_run($round);
			$backend = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity
				WHERE query LIKE '%postalytics.ingest%' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1});
		}
		kill 'KILL', $backend;
	}
	waitpid $_, 0 for @pids;
	if ($round % 2)
	{
		# Wait until its sessions have noticed that the postmaster is gone.
		select(undef, undef, undef, 0.05) while `pgrep -f "^postgres: $name:"`;
		$node->start;
	}
	# Do not use psql here: it can exit before it reads its query, which gives a
	# SIGPIPE.
	select(undef, undef, undef, 0.1) while system('pg_isready', '-q', '-h', $node->host, '-p', $node->port) != 0;

	my @acknowledged;
	for my $number (1 .. $clients)
	{
		push @acknowledged, map { "$number/$_" } split /\n/, slurp_file("$folder/$round.$number");
	}
	# The times of a batch's events encode its client (minute) and number
	# (microseconds).
	my %stored = map { split /\|/ } split /\n/, $node->safe_psql('postgres', "
		SELECT extract(minute FROM occurred_at) || '/' || to_char(occurred_at, 'US')::int, count(*)
		FROM postalytics.events WHERE extract(year FROM occurred_at) = 2025 - $round GROUP BY 1");
	is(join(' ', grep { !$stored{$_} } @acknowledged), '', "round $round: each of " . @acknowledged . ' batches whose call returned is stored');
	is(join(' ', grep { $stored{$_} != 40 } keys %stored), '', "round $round: no batch is stored in part or twice");
	cmp_ok(scalar(keys %stored), '<=', @acknowledged + $clients, "round $round: and at most one more per client");
	is($node->safe_psql('postgres', q{
		SELECT count(*)
		FROM postalytics.pieces AS p
		FULL JOIN (SELECT piece_id, postalytics.current_status(status, occurred_at) AS status,
						  count(*) FILTER (WHERE status = 'pURLOpened') AS opens
				   FROM postalytics.events GROUP BY 1) AS e USING (piece_id)
		WHERE (p.status, p.opens) IS DISTINCT FROM (e.status, e.opens::int)}), '0', "round $round: pieces match their events");
	is($node->safe_psql('postgres', q{
		SELECT count(*)
		FROM postalytics.deliveries AS d
		FULL JOIN postalytics.events AS e USING (piece_id, status, occurred_at)
		WHERE d.delivery_id IS NULL OR e.event_id IS NULL}), '0', "round $round: each event has its delivery");
	my $acked = join ',', map { split /\n/, slurp_file($_) } glob "$folder/acked.*";
	is($node->safe_psql('postgres', "SELECT count(*) FROM postalytics.deliveries WHERE delivery_id = ANY ('{$acked}') AND state <> 'done'"),
		'0', "round $round: what was acked stays so");
}
is($node->safe_psql('postgres', q{SELECT * FROM postalytics.ingest('{"mailId": 1, "eventType": 4, "eventDate": "2026-10-06"}')}),
	'1|0|0', 'the next ingest works');

$node->stop;
done_testing();
