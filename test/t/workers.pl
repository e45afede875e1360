# Three workers nack at random and are killed at random between fetch and ack, and the
# server is killed once.  Every matching event is delivered, no event is delivered twice
# without a recorded reason, and the events of each piece are delivered in order.
use strict;
use warnings;
use DBI;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $pieces = 400;
my $workers = 3;
my $seed = $ENV{SEED} // 20261123;
srand($seed);
note("SEED=$seed");

my $name = "workers_$$";
my $node = PostgreSQL::Test::Cluster->new($name);
$node->init;
$node->append_conf('postgresql.conf', "fsync = on\nlog_min_messages = warning");
$node->start;
# maintain() creates today's partition of deliveries.  Otherwise, the first ack of each
# worker would do so, and on a slow machine one worker can wait too long for another, so
# that a delivery is finished without history.
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d');
	SELECT count(*) FROM postalytics.maintain();
	SELECT postalytics.create_sync('crm', statuses => '{Mailed,InTransit,InLocalArea,ProcessedForDelivery,pURLOpened}', max_attempts => 1000)});

my $dsn = "dbi:Pg:host=" . $node->host . ";port=" . $node->port . ";dbname=postgres";
my $folder = PostgreSQL::Test::Utils::tempdir();
my $log = "$folder/told";

sub connection
{
	return DBI->connect($dsn, getpwuid($<) . '', '', { RaiseError => 1, PrintError => 0 });
}

# Append what a CRM would receive to a file.  A line is written with one call.
sub tell_crm
{
	my ($line) = @_;
	open my $file, '>>', $log or die;
	syswrite $file, "$line\n";
	close $file;
}

# A worker like the one in docs/sync.md, except that by chance it dies before it sends,
# dies between sending and acking, or nacks.  In its first life it dies after it has
# sent its first delivery, so that in every run some deliveries are sent twice.
sub work
{
	my ($number, $first_life) = @_;
	srand($seed + $number + 100 * time);
	my $connection = connection();
	for (;;)
	{
		my $rows = $connection->selectall_arrayref(
			q{SELECT delivery_id, attempt, piece_id, status, extract(epoch FROM occurred_at)::bigint
			  FROM postalytics.fetch('crm', 20, lease => '1 s', max_wait => '200 ms')});
		for my $row (@$rows)
		{
			my $chance = $first_life ? 1 : rand();
			POSIX::_exit(1) if $chance < 0.002;
			if ($chance < 0.1)
			{
				$connection->selectrow_array(q{SELECT postalytics.nack('crm', ARRAY[?::bigint], 'unlucky', retry_in => '50 ms')}, undef, $row->[0]);
				next;
			}
			tell_crm(join ' ', @$row);
			POSIX::_exit(1) if $first_life || $chance < 0.102;
			$connection->selectrow_array(q{SELECT postalytics.ack('crm', ARRAY[?::bigint])}, undef, $row->[0]);
		}
	}
}

my %pids;
sub start_worker
{
	my ($number, $first_life) = @_;
	my $pid = fork();
	if (!$pid)
	{
		eval { work($number, $first_life) };
		POSIX::_exit(2);
	}
	$pids{$pid} = $number;
}

# Start a worker again after it has exited by itself or because of the server.
sub tend
{
	while ((my $pid = waitpid(-1, POSIX::WNOHANG())) > 0)
	{
		start_worker(delete $pids{$pid}) if exists $pids{$pid};
	}
}

# Ingest events meanwhile.  Those of a piece arrive in order.
my $sent = 0;
sub send_some
{
	my ($step) = @_;
	my @events = map { sprintf('{"mailId": %d, "eventType": %d, "eventDate": "2026-10-%02dT00:00:00Z"}', $_, (11, 4, 5, 6, 7)[$step], $step + 5) } 1 .. $pieces;
	my ($inserted) = $node->safe_psql('postgres', "SELECT inserted FROM postalytics.ingest('[" . join(',', @events) . "]')");
	$sent += $inserted;
}

start_worker($_, 1) for 1 .. $workers;
for my $step (0 .. 4)
{
	send_some($step);
	if ($step == 2)
	{
		my $postmaster = $node->{_pid};
		$node->kill9;
		select(undef, undef, undef, 0.05) while kill 0, $postmaster;
		select(undef, undef, undef, 0.05) while `pgrep -f "^postgres: $name:"`;
		$node->start;
	}
	for (1 .. 10)
	{
		kill 'KILL', (keys %pids)[ rand keys %pids ] if rand() < 0.3;
		select(undef, undef, undef, 0.05);
		tend();
	}
}
my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
until ($node->safe_psql('postgres', q{SELECT count(*) FROM postalytics.deliveries_unfinished}) eq '0' || time > $deadline)
{
	select(undef, undef, undef, 0.1);
	tend();
}
my @running = keys %pids;
%pids = ();
kill 'KILL', @running;
waitpid $_, 0 for @running;

is($sent, 5 * $pieces, 'all events are ingested');
is($node->safe_psql('postgres', q{SELECT state, count(*) FROM postalytics.deliveries GROUP BY 1}), "done|$sent", 'every one is acked');

my (%told, %last, @repeated);
my $disorder = 0;
for my $line (split /\n/, slurp_file($log))
{
	my ($id, $attempt, $piece, $status, $occurred_at) = split / /, $line;
	$disorder++ if $occurred_at < ($last{$piece} // 0);
	$last{$piece} = $occurred_at;
	push @repeated, [ "$id $told{$id}", "$id $attempt" ] if $told{$id};
	$told{$id} = $attempt;
}
is(scalar(keys %told), $sent, 'every one was sent');
is($disorder, 0, 'those of a piece in order');
my %reason = map { my ($id, $attempt) = split /\|/; ("$id $attempt" => 1) }
  split /\n/, $node->safe_psql('postgres', q{SELECT delivery_id, attempt FROM postalytics.delivery_errors WHERE error = 'lease expired'});
# A slow worker may send what another has sent meanwhile.  Then its own lease has
# expired.
is(scalar(grep { !$reason{ $_->[0] } && !$reason{ $_->[1] } } @repeated), 0, 'none was sent twice without a reason (' . @repeated . ' twice)');
cmp_ok(scalar(@repeated), '>', 0, 'and some were sent twice, so this was tested');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM postalytics.delivery_errors WHERE error = 'unlucky'}), '>', 50, 'and many failed once');

$node->stop;
done_testing();
