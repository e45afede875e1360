# A role that may only ingest, for one account, sends as many months, campaigns, rejects
# and fields as it can.  Calls and readers of another account must continue, and no
# shared resource may be exhausted.
# FLOOD sets the number of seconds, for example 600 for a manual run.
use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{FLOOD} // 60;

my $node = PostgreSQL::Test::Cluster->new('flood');
$node->init;
$node->append_conf('postgresql.conf', "max_wal_size = '4GB'\nautovacuum_naptime = '5s'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status;
	CREATE ROLE hostile LOGIN; CREATE ROLE feeder LOGIN; CREATE ROLE reader LOGIN;
	SELECT postalytics.grant_ingest('hostile', 'evil'), postalytics.grant_ingest('feeder', 'good'), postalytics.grant_read('reader', 'good');
	SELECT postalytics.create_sync('crm', accounts => '{good}');
	-- Stands in for clients that make up their own events.
	CREATE SCHEMA client; GRANT ALL ON SCHEMA client TO PUBLIC;
	CREATE FUNCTION client.events(size int, more text, first_day date DEFAULT current_date - 3650) RETURNS json LANGUAGE sql VOLATILE AS $$
		SELECT ('[' || string_agg(format('{"mailId": "e%s", "eventType": 11, "eventDate": "%s"%s}', floor(random() * 1e9), first_day + floor(random() * (current_date - first_day))::int, format(more, floor(random() * 1e12))), ',') || ']')::json
		FROM generate_series(1, size)
	$$});

my $folder = PostgreSQL::Test::Utils::tempdir();
my @server = ('-h', $node->host, '-p', $node->port);

# Start clients of a role, each of which runs these scripts in random order.
sub clients
{
	my ($role, $clients, $seconds, %scripts) = @_;
	my @files;
	for my $name (sort keys %scripts)
	{
		append_to_file("$folder/$role.$name.sql", "$scripts{$name}\n") if !-e "$folder/$role.$name.sql";
		push @files, '-f', "$folder/$role.$name.sql";
	}
	my %run = (out => '', err => '', role => $role);
	$run{handle} = IPC::Run::start([ 'pgbench', '-n', '-c', $clients, '-T', $seconds, '-U', $role, @files, @server, 'postgres' ], '>', \$run{out}, '2>', \$run{err});
	return \%run;
}

sub transactions
{
	my ($run) = @_;
	ok($run->{handle}->finish, "$run->{role}: no call fails") or diag($run->{err});
	return $run->{out} =~ /number of transactions actually processed: (\d+)/ ? $1 : 0;
}
my @good = ('feeder', 2, $seconds, ingest => q{SELECT postalytics.ingest(client.events(10, ', "campaignId": "c"', current_date - 30));});
my @reads = ('reader', 2, $seconds,
	lookup => q{SELECT count(*) FROM postalytics.events WHERE piece_id = 'e1';},
	journey => q{SELECT count(*) FROM postalytics.journey('e1');},
	all => q{SELECT count(*) FROM postalytics.events;});

# Return the planning time and the number of locks of a lookup in a new session.
sub lookup
{
	my $plan = $node->safe_psql('postgres', q{EXPLAIN (ANALYZE, SUMMARY) SELECT * FROM postalytics.events WHERE piece_id = 'e1'});
	my ($locks) = $node->safe_psql('postgres', q{BEGIN; SELECT FROM postalytics.events WHERE piece_id = 'e1'; SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()}) =~ /(\d+)\s*\z/;
	return ($plan =~ /Planning Time: ([\d.]+)/, $locks);
}
$node->safe_psql('postgres', q{SELECT postalytics.ingest(client.events(1000, ', "campaignId": "c"', current_date - 30), 'good')});
my ($planning, $locks) = lookup();
note("before: a lookup is planned in $planning ms and takes $locks locks");

# Check how much space one call of each kind uses.
sub size { return $node->safe_psql('postgres', "SELECT pg_total_relation_size('postalytics.$_[0]')"); }
my $before = size('rejects');
my $zeros = 1_000_000;
is($node->safe_psql('postgres', "SELECT rejected FROM postalytics.ingest(('[' || repeat('0,', $zeros) || '0]')::json, 'evil')"), $zeros + 1, '2 MB of zeros are a million rejects');
cmp_ok(size('rejects') - $before, '<', 2 * $zeros, 'but use no more space than the call');
$before = size('rejects');
$node->safe_psql('postgres', "INSERT INTO postalytics.inbox (account, mail_id) SELECT 'evil', 0 FROM generate_series(1, $zeros)");
cmp_ok(size('rejects') - $before, '<', 2 * $zeros, 'and the same for as many rows of a statement');
is($node->safe_psql('postgres', "SELECT sum((regexp_match(reason, '^(\\d+) events'))[1]::int) + count(*) FILTER (WHERE reason NOT LIKE '% events rejected%') FROM postalytics.rejects"),
	2 * $zeros + 1, 'all of them are counted');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM postalytics.rejects'), '<', 1010, 'in few rows');

my %flood = (
	months => q{SELECT postalytics.ingest(client.events(1000, ''));},
	campaigns => q{SELECT postalytics.ingest(client.events(20000, ', "campaignId": "%s"', current_date));},
	rejects => q{SELECT postalytics.ingest(('[' || repeat('0,', 200000) || '0]')::json);},
	rows => q{INSERT INTO postalytics.inbox (mail_id) SELECT 0 FROM generate_series(1, 100000);},
	fields => q{SELECT postalytics.ingest(format('[{"mailId": 1, "eventType": 11, "eventDate": "%s", "fields": {"x": "%s"}}]', current_date, repeat('x', 1000000))::json);},
	retry => q{SELECT postalytics.retry_rejects();});
my $alone = transactions(clients(@good[ 0, 1 ], 5, @good[ 3, 4 ]));
my $hostile = clients('hostile', 6, $seconds, %flood);
my @others = (clients(@good), clients(@reads));
my ($most, $capacity) = (0, $node->safe_psql('postgres', q{SELECT current_setting('max_locks_per_transaction')::int * current_setting('max_connections')::int * 2}));
while ($hostile->{handle}->pumpable)
{
	$_->{handle}->pumpable && $_->{handle}->pump_nb for $hostile, @others;
	my $held = $node->safe_psql('postgres', 'SELECT count(*) FROM pg_locks WHERE NOT fastpath');
	$most = $held if $held > $most;
	select(undef, undef, undef, 0.5);
}
transactions($hostile);
my @done = map { transactions($_) } @others;
cmp_ok($_, '>', 0, 'calls of the other account succeed') for @done;
note(sprintf "the other account: %.0f calls a second alone, %.0f beside the flood; %.0f reads a second", $alone / 5, $done[0] / $seconds, $done[1] / $seconds);

# The role's events are all within ten years, which limits the number of months.
my $months = $node->safe_psql('postgres', "SELECT count(*) FROM postalytics.leaves('postalytics.events')");
cmp_ok($months, '<=', 122, "$months months");
cmp_ok($most, '<', $capacity, "at most $most locks of $capacity");
($planning, $locks) = lookup();
note("after: a lookup is planned in $planning ms and takes $locks locks");
cmp_ok($locks, '<=', 2 * $months + 10, 'a lookup locks the months and their keys, and nothing else');
is(join('', grep { /ERROR|PANIC|FATAL/ && !/canceling autovacuum task/ } split /^/, slurp_file($node->logfile)), '', 'no error is logged');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT campaign_id) FROM postalytics.campaigns WHERE account = 'good'}), '1', 'nothing was stored under another account');
note('rejects: ', $node->safe_psql('postgres', q{SELECT count(*) || ' rows, ' || pg_size_pretty(pg_total_relation_size('postalytics.rejects')) FROM postalytics.rejects}),
	', events: ', $node->safe_psql('postgres', q{SELECT count(*) FROM postalytics.events}), ', campaigns: ', $node->safe_psql('postgres', q{SELECT count(*) FROM postalytics.campaigns}));

$node->stop;
done_testing();
