# Compares random steps of the queue with a simple model of it in Perl: the deliveries
# that each fetch leases, their order, and what becomes of every delivery.
#
# A second run has dead rows that a snapshot keeps.  Sessions then remember where their
# scan ended, and may find some deliveries a little later than others.  So the model
# only gives the deliveries that may be leased, and in the end those that must have
# been.
#
# The model has no clock.  A lease or a wait is either an hour, so that it does not end,
# or ends immediately.  The order of due_at is that of the steps.
#
# SEED repeats a run, and STEPS sets the number of steps.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use DBI;
use List::Util qw(min);

my $seed = $ENV{SEED} // time;
my $steps = $ENV{STEPS} // 700;
srand $seed;

my $node = PostgreSQL::Test::Cluster->new('model');
$node->init;
$node->append_conf('postgresql.conf', 'autovacuum = off');
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status;
	SELECT postalytics.configure('latest', '36500d');
	SELECT postalytics.create_sync('ordered', max_attempts => 3);
	SELECT postalytics.create_sync('any', ordered => false, max_attempts => 3);
	SELECT postalytics.create_sync('few', ordered => false, max_leased => 4, max_attempts => 3);
	SELECT postalytics.create_sync('rated', ordered => false, rate => 60, per => '1 day', max_attempts => 3);
	SELECT postalytics.create_sync('fragile', ordered => false, breaker => 5, max_attempts => 100);
	SELECT postalytics.create_sync('unless', unless => '{ReturnedToSender}', max_attempts => 3)});

my @syncs = qw(ordered any few rated fragile unless);
my %rule = (
	ordered => { ordered => 1 }, any => {}, few => { max_leased => 4 }, rated => { rate => 60 },
	fragile => { breaker => 5 }, unless => { ordered => 1, unless => 1 });

# A delivery has: id, sync, piece, at (of the event), status, due (the step that set it,
# "never" for in an hour, or "dead"), leased (undef, or the step), attempt, counted
# (true if its lease counts towards max_leased), reason (if dead).  A rollback restores
# a copy.
my ($step, %queue, %done, %returned, %paused, %failures, %tripped, %handed, $late, $is_loose);
my %by_itself;		# deliveries that fetches may finish by themselves, in the loose run
my @order = qw(MailPieceCreated Printed Mailed InTransit InLocalArea ProcessedForDelivery ReturnedToSender);
my %rank = map { $order[$_] => $_ } 0 .. $#order;

sub session
{
	my $session = DBI->connect('dbi:Pg:' . $node->connstr('postgres') . " user='" . getpwuid($<) . "'", undef, undef, { RaiseError => 1, PrintError => 0 });
	$session->do("SET statement_timeout = '30s'");
	return $session;
}
my ($admin, @sessions) = map { session() } 0 .. 3;

sub is_before { my ($a, $b) = @_; return $a->{at} <=> $b->{at} || $rank{ $a->{status} } <=> $rank{ $b->{status} } || $a->{id} <=> $b->{id} }
sub is_due { my ($delivery) = @_; return $delivery->{due} =~ /^\d/ }
sub finish { my ($delivery, $state) = @_; delete $queue{ $delivery->{id} }; $done{ $delivery->{id} } = $state }

# Return the deliveries that a fetch leases according to the model.
sub model_fetch
{
	my ($sync, $batch, $is_short) = @_;
	my $rule = $rule{$sync};
	my @handed;
	my $again;
	return () if $paused{$sync} || ($tripped{$sync} // '') eq 'open';
	do
	{
		my $allowed = $batch;
		$allowed = min($allowed, $rule->{rate} - ($handed{$sync} // 0)) if $rule->{rate};
		my $most = $tripped{$sync} ? 1 : $rule->{max_leased};
		$allowed = min($allowed, $most - grep { $_->{sync} eq $sync && $_->{leased} && $_->{counted} } values %queue) if $most;
		my ($found, $postponed, %seen) = (0, 0);
		for my $row (my @rows = sort { $a->{due} <=> $b->{due} || $a->{at} <=> $b->{at} || $a->{id} <=> $b->{id} } grep { $_->{sync} eq $sync && is_due($_) } values %queue)
		{
			last if $found >= $allowed;
			my $head = $row;
			next if !$queue{ $row->{id} } || !is_due($row) || $row->{leased};
			if ($rule->{ordered})
			{
				next if $seen{ $row->{piece} }++;
				my @piece = grep { $_->{sync} eq $sync && $_->{piece} eq $row->{piece} && $_->{due} ne 'dead' } values %queue;
				($head) = sort { is_before($a, $b) } @piece;
				if (!is_due($head))
				{
					for (grep { is_due($_) && !$_->{leased} } @piece) { $_->{due} = 'never'; $found++; $postponed++ }
					next;
				}
				next if $head->{leased};
			}
			$found++;
			if ($head->{attempt} >= ($sync eq 'fragile' ? 100 : 3)) { $head->{due} = 'dead'; $head->{reason} = 'lease_expired'; delete $head->{leased} }
			elsif ($rule->{unless} && $returned{ $row->{piece} }) { finish($head, 'cancelled') }
			else { push @handed, $head }
		}
		$again = !@handed && $allowed > 0 && ($found > $postponed || $found >= $batch);
		for (@handed)
		{
			$_->{attempt}++;
			$_->{leased} = $step if !$is_short;
				$_->{counted} = $most ? 1 : 0;
		}
		$handed{$sync} += @handed;
	} while ($again);
	return sort { $a->{due} <=> $b->{due} || $a->{at} <=> $b->{at} || $a->{id} <=> $b->{id} } @handed;
}

# Finish the deliveries that a fetch finishes by itself, and return those that it may
# lease.
sub may_be_handed
{
	my ($sync) = @_;
	my $rule = $rule{$sync};
	my %heads;
	for my $row (my @rows = sort { is_before($a, $b) } grep { $_->{sync} eq $sync && $_->{due} ne 'dead' } values %queue)
	{
		my $key = $rule->{ordered} ? $row->{piece} : $row->{id};
		next if $heads{$key};
		my $is_free = is_due($row) && !$row->{leased};
		$by_itself{ $row->{id} } = { %$row } if $is_free;
		if ($is_free && $row->{attempt} >= ($sync eq 'fragile' ? 100 : 3)) { $row->{due} = 'dead'; $row->{reason} = 'lease_expired' }
		elsif ($is_free && $rule->{unless} && $returned{ $row->{piece} }) { finish($row, 'cancelled') }
		else { $heads{$key} = $row }
	}
	return grep { is_due($_) && !$_->{leased} } values %heads;
}

# Return how many deliveries a fetch may lease.
sub model_allows
{
	my ($sync, $batch) = @_;
	return 0 if $paused{$sync} || ($tripped{$sync} // '') eq 'open';
	$batch = min($batch, $rule{$sync}{rate} - ($handed{$sync} // 0)) if $rule{$sync}{rate};
	my $most = $tripped{$sync} ? 1 : $rule{$sync}{max_leased};
	$batch = min($batch, $most - grep { $_->{sync} eq $sync && $_->{leased} && $_->{counted} } values %queue) if $most;
	return $batch;
}

# Fetch, and check only that the model allows the result.
sub loose_fetch
{
	my ($session, $sync, $batch, $is_short) = @_;
	my $allowed = model_allows($sync, $batch);
	my %may = map { $_->{id} => 1 } $allowed > 0 ? may_be_handed($sync) : ();
	my @ids = @{ $session->selectcol_arrayref('SELECT delivery_id FROM postalytics.fetch(?, ?, ?)', undef, $sync, $batch, $is_short ? '1 us' : '1 hour') };
	return "loose fetch of $batch from $sync: (@ids), in the model $allowed of (@{[ sort { $a <=> $b } keys %may ]})" if @ids > $allowed || grep { !$may{$_} } @ids;
	for (@ids)
	{
		$queue{$_}{attempt}++;
		$queue{$_}{leased} = $step if !$is_short;
		$queue{$_}{counted} = $tripped{$sync} || $rule{$sync}{max_leased} ? 1 : 0;
	}
	$handed{$sync} += @ids;
	return;
}

sub copy_of { my ($from) = @_; return { map { $_ => ref $from->{$_} ? { %{ $from->{$_} } } : $from->{$_} } keys %$from } }

# ---- the steps ----

my $last_id = 0;
my $at = 0;

# Add the server's new deliveries to the model, with the ids that the server assigned.
sub new_deliveries
{
	my ($session) = @_;
	my $rows = $session->selectall_arrayref('SELECT delivery_id, sync, piece_id, status, extract(epoch FROM occurred_at) AS at FROM postalytics.deliveries_unfinished WHERE delivery_id > ?', { Slice => {} }, $last_id);
	for my $row (@$rows)
	{
		$queue{ $row->{delivery_id} } = { id => $row->{delivery_id}, sync => $row->{sync}, piece => $row->{piece_id}, status => $row->{status}, at => $row->{at}, due => $step, attempt => 0 };
		$last_id = $row->{delivery_id} if $row->{delivery_id} > $last_id;
	}
}

my %steps = (
	ingest => [ 6, sub {
		my ($session) = @_;
		return if keys %queue > ($is_loose ? 1000 : 120);	# sessions of a short queue do not remember a position
		my @events = map { my $piece = 'p' . int rand 30; my $status = rand() < 0.02 ? 'ReturnedToSender' : $order[ 1 + rand(@order - 2) ];
			$returned{$piece} = 1 if $status eq 'ReturnedToSender';
			sprintf '{"mailId": "%s", "eventType": "%s", "eventDate": "2026-10-%02dT%02d:%02d:%02dZ"}', $piece, $status, 1 + rand 5, rand 24, rand 60, rand 60 } 1 .. 1 + rand 3;
		$session->do('SELECT FROM postalytics.ingest(?)', undef, '[' . join(',', @events) . ']');
		new_deliveries($session);
	} ],
	fetch => [ 14, sub {
		my ($session, $sync) = @_;
		my ($batch, $is_short) = (1 + int rand 6, rand() < 0.2);
		return loose_fetch($session, $sync, $batch, $is_short) if $is_loose;
		my $lease = $is_short ? '1 us' : '1 hour';
		my @model = map { $_->{id} } model_fetch($sync, $batch, $is_short);
		my $server = sub { return join ' ', @{ $session->selectcol_arrayref('SELECT delivery_id FROM postalytics.fetch(?, ?, ?)', undef, $sync, $batch, $lease) } };
		my $autocommit = $session->{AutoCommit};
		$session->begin_work if $autocommit;
		$session->do('SAVEPOINT one');
		my $handed = $server->();
		if ($handed ne "@model")
		{
			# The session may check the deliveries put aside a little later.
			$session->do('ROLLBACK TO one; SELECT pg_sleep(0.4)');
			$handed{$sync} += () = $handed =~ /\d+/g;
			$late++;
			$handed = $server->();
		}
		$session->commit if $autocommit;
		return "fetch of $batch from $sync: ($handed), in the model (@model)" if $handed ne "@model";
	} ],
	ack => [ 8, sub {
		my ($session, $sync) = @_;
		my @mine = grep { $_->{sync} eq $sync && $_->{leased} && rand() < 0.5 } values %queue;
		return if !@mine;
		my $count = $session->selectrow_array('SELECT postalytics.ack(?, ?, ?)', undef, $sync, [ map { $_->{id} } @mine ], [ map { $_->{attempt} } @mine ]);
		finish($_, 'done') for @mine;
		if ($rule{$sync}{breaker}) { $failures{$sync} = 0; delete $tripped{$sync} }
		return "ack of " . @mine . ": $count" if $count != @mine;
	} ],
	nack => [ 5, sub {
		my ($session, $sync) = @_;
		my @mine = grep { $_->{sync} eq $sync && $_->{leased} && rand() < 0.5 } values %queue;
		return if !@mine;
		my ($retry, $dead) = (rand() < 0.7 ? '0' : '1 hour', rand() < 0.1);
		my $count = $session->selectrow_array("SELECT postalytics.nack(?, ?, 'no', retry_in => ?, dead => ?, attempts => ?)", undef, $sync, [ map { $_->{id} } @mine ], $retry, $dead ? 1 : 0, [ map { $_->{attempt} } @mine ]);
		for (@mine)
		{
			my $last = $_->{attempt} >= ($sync eq 'fragile' ? 100 : 3);
			delete $_->{leased};
			$_->{due} = $dead || $last ? 'dead' : $retry eq '0' ? $step : 'never';
			$_->{reason} = $dead ? 'refused' : 'max_attempts' if $dead || $last;
		}
		if ($rule{$sync}{breaker} && ($tripped{$sync} // '') ne 'open')
		{
			$failures{$sync} += @mine;
			$tripped{$sync} = 'open' if $tripped{$sync} || $failures{$sync} >= $rule{$sync}{breaker};
		}
		return "nack of " . @mine . ": $count" if $count != @mine;
	} ],
	redrive => [ 1, sub {
		my ($session, $sync) = @_;
		my $reason = (qw(refused max_attempts lease_expired))[ rand($is_loose ? 2 : 3) ];
		my @dead = grep { $_->{sync} eq $sync && $_->{due} eq 'dead' && $_->{reason} eq $reason } values %queue;
		my $count = $session->selectrow_array('SELECT postalytics.redrive(?, reasons => ?)', undef, $sync, [$reason]);
		for (@dead) { $_->{due} = $step; $_->{attempt} = 0 }
		return "redrive of " . @dead . ": $count" if $count != @dead;
	} ],
	discard => [ 1, sub {
		my ($session, $sync) = @_;
		my $reason = (qw(refused max_attempts lease_expired))[ rand($is_loose ? 2 : 3) ];
		my @dead = grep { $_->{sync} eq $sync && $_->{due} eq 'dead' && $_->{reason} eq $reason } values %queue;
		my $count = $session->selectrow_array("SELECT postalytics.discard(?, 'gone', reasons => ?)", undef, $sync, [$reason]);
		finish($_, 'discarded') for @dead;
		return "discard of " . @dead . ": $count" if $count != @dead;
	} ],
	pause => [ 1, sub { my ($session, $sync) = @_; $session->do("SELECT postalytics.pause_sync(?, '1 hour')", undef, $sync); $paused{$sync} = 1; return } ],
	resume => [ 2, sub {
		my ($session, $sync) = @_;
		$session->do('SELECT postalytics.resume_sync(?)', undef, $sync);
		delete $paused{$sync};
		$tripped{$sync} = 'half-open' if $tripped{$sync};
		return;
	} ],
	rate => [ 1, sub {
		my ($session) = @_;
		$rule{rated}{rate} += 20;
		$session->do("UPDATE postalytics.syncs SET rate = ? WHERE name = 'rated'", undef, $rule{rated}{rate});
		return;
	} ]);
my @lot = map { ($_) x $steps{$_}[0] } sort keys %steps;

# Fetch and ack everything that may be leased.
sub drain
{
	my $worker = $sessions[0];
	$step++;
	$rule{rated}{rate} = 1000000;
	$worker->do("UPDATE postalytics.syncs SET rate = 1000000, per = '1 day' WHERE name = 'rated'");
	for my $sync (@syncs)
	{
		$steps{resume}[1]->($worker, $sync);
		for (my $idle = 0; $idle < 6;)
		{
			loose_fetch($worker, $sync, 1000, 0);
			$worker->do('SELECT postalytics.ack(?, ?, ?)', undef, $sync, [ map { $_->{id} } @$_ ], [ map { $_->{attempt} } @$_ ])
			  for [ grep { $_->{sync} eq $sync && $_->{leased} } values %queue ];
			my @leased = grep { $_->{sync} eq $sync && $_->{leased} } values %queue;
			finish($_, 'done') for @leased;
			delete $tripped{$sync};
			next if @leased;
			$idle++;
			$worker->do('SELECT pg_sleep(0.25)');	# allow a millisecond for each delivery put aside
		}
		is(join(' ', map { $_->{id} } may_be_handed($sync)), '', "$sync: nothing is left that may be leased");
	}
}

# In the loose run, a session may find a delivery late that it finishes by itself.  If an
# earlier delivery of the piece was added and nacked meanwhile, both wait.
sub restore_late
{
	my $waiting = $admin->selectcol_arrayref("SELECT delivery_id FROM postalytics.deliveries_unfinished WHERE (lease_until IS NULL OR lease_until <= now()) AND due_at > now() + interval '1 min' AND due_at < 'infinity'");
	for my $row (grep { defined } @by_itself{@$waiting})
	{
		my $now = $queue{ $row->{id} };
		next if $now ? ($now->{reason} // '') ne 'lease_expired' : ($done{ $row->{id} } // '') ne 'cancelled';
		next if !grep { $_->{sync} eq $row->{sync} && $_->{piece} eq $row->{piece} && $_->{due} eq 'never' && is_before($_, $row) } values %queue;
		delete $done{ $row->{id} };
		$queue{ $row->{id} } = { %$row, due => 'never' };
	}
}

sub run
{
	my ($name) = @_;
	my $fault;
	for (1 .. $steps)
	{
		$step++;
		my $session = $sessions[ rand @sessions ];
		my $kind = $lot[ rand @lot ];
		my $sync = $syncs[ rand @syncs ];
		my $rolls_back = $kind ne 'rate' && rand() < 0.1;
		my ($before, @limits) = (copy_of(\%queue), map { copy_of($_) } \%done, \%returned, \%paused, \%failures, \%tripped);
		if ($rolls_back) { $session->begin_work }
		$fault = $steps{$kind}[1]->($session, $sync);
		if ($rolls_back)
		{
			# Leases that were rolled back still count towards the rate.
			$session->rollback;
			%queue = %$before;
			$_->[0]->%* = $_->[1]->%* for [ \%done, $limits[0] ], [ \%returned, $limits[1] ], [ \%paused, $limits[2] ], [ \%failures, $limits[3] ], [ \%tripped, $limits[4] ];
		}
		if (($fault // '') =~ /: /) { $fault = "SEED=$seed, step $step, $kind" . ($rolls_back ? ' (rolled back)' : '') . ": $fault"; last }
		undef $fault;
	}
	drain() if $is_loose && !defined $fault;
	restore_late() if $is_loose;
	note("$late fetches were a little late") if $late;
	is($fault, undef, "$name: each step matches the model");
	my $waits = sub { my ($row) = @_; return $is_loose ? $row =~ s/due|never/waiting/r : $row };
	my $server = join "\n", map { $waits->($_) } map { join ' ', map { $_ // '' } @$_ } @{ $admin->selectall_arrayref(q{
		SELECT delivery_id, attempt, CASE WHEN due_at = 'infinity' THEN 'dead ' || reason WHEN due_at > now() + interval '1 min' THEN 'never' ELSE 'due' END,
		       CASE WHEN lease_until > now() THEN 'leased' END
		FROM postalytics.deliveries_unfinished WHERE piece_id LIKE 'p%' ORDER BY delivery_id}) };
	my $model = join "\n", map { $waits->($_) } map { join ' ', $_->{id}, $_->{attempt}, $_->{due} eq 'dead' ? "dead $_->{reason}" : $_->{due} eq 'never' ? 'never' : 'due', $_->{leased} ? 'leased' : '' }
	  sort { $a->{id} <=> $b->{id} } values %queue;
	is($server, $model, "$name: the unfinished deliveries match the model");
	is_deeply({ map { $_->[0] => $_->[1] } @{ $admin->selectall_arrayref('SELECT delivery_id, state FROM postalytics.deliveries WHERE finished_at IS NOT NULL') } }, \%done, "$name: and so does the history");
}

run('no dead rows');
my $snapshot = session();
$snapshot->begin_work;
$snapshot->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
$snapshot->do('SELECT');
$admin->do(q{WITH made AS (
	INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, account, status, occurred_at, due_at)
	SELECT s, 'dead ' || i, '', 'InTransit', '2026-10-05', c
	FROM (SELECT postalytics.due_clock() AS c) AS c, unnest('{ordered,any,few,rated,fragile,unless}'::text[]) AS s, generate_series(1, 30000) AS i
	RETURNING delivery_id)
	SELECT count(*) FROM made});
$admin->do(q{DELETE FROM postalytics.deliveries_unfinished WHERE piece_id LIKE 'dead%'});
$last_id = $admin->selectrow_array('SELECT last_value FROM postalytics.delivery_id_seq');
$is_loose = 1;
run('with dead rows');

$_->disconnect for $admin, $snapshot, @sessions;
$node->stop;
done_testing();
