# A breaker pauses a sync after consecutive failures, then tries one delivery at a time,
# and closes after a success, whatever the workers' transactions do.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use DBI;

my $node = PostgreSQL::Test::Cluster->new('breaker');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status;
	SELECT postalytics.configure('latest', '36500d');
	SELECT postalytics.create_sync('b', breaker => 20, ordered => false)});

sub session
{
	my $session = DBI->connect('dbi:Pg:' . $node->connstr('postgres') . " user='" . getpwuid($<) . "'", undef, undef, { RaiseError => 1, PrintError => 0 });
	$session->do("SET statement_timeout = '30s'");
	return $session;
}

sub fetch
{
	my ($session, $batch) = @_;
	return $session->selectcol_arrayref(q{SELECT delivery_id FROM postalytics.fetch('b', ?)}, undef, $batch);
}

sub nack
{
	my ($session, $ids) = @_;
	return $session->selectrow_array(q{SELECT postalytics.nack('b', ?, 'HTTP 503', retry_in => '0')}, undef, $ids);
}

sub ack
{
	my ($session, $ids) = @_;
	return $session->selectrow_array(q{SELECT postalytics.ack('b', ?)}, undef, $ids);
}

my ($admin, $one, $two, $idle) = map { session() } 1 .. 4;
sub health { return join ' ', map { $_ // '-' } $admin->selectrow_array(q{SELECT breaker_state, breaker_reason, round(extract(epoch FROM paused_until - now()) / 10) FROM postalytics.sync_health WHERE name = 'b'}) }

# Make the current pause end now.
sub end_pause { $admin->do(q{UPDATE postalytics.breaker_events SET until = now() WHERE until > now()}) }

$admin->do(q{SELECT FROM postalytics.ingest((SELECT json_agg(json_build_object('mailId', i, 'eventType', 4, 'eventDate', '2026-10-05'))
	FROM generate_series(1, 500) AS i))});
is(health(), 'closed - -', 'at first it is closed');
nack($one, fetch($one, 19));
is(health(), 'closed - -', 'nineteen failures do not open it');
ack($two, fetch($two, 1));
nack($one, fetch($one, 19));
is(health(), 'closed - -', 'nor do nineteen after a success');

# The failure of an idle session counts before it commits.
my $early = fetch($two, 5);
$idle->begin_work;
nack($idle, fetch($idle, 1));
is(scalar @{ fetch($one, 5) }, 0, 'the twentieth failure opens it before its commit');
$idle->commit;
is(health(), 'open 20 consecutive failures 3', 'for 30 seconds');
is(scalar @{ fetch($one, 5) }, 0, 'nothing is leased');
is($one->selectrow_array(q{SELECT postalytics.next_due('b') = paused_until FROM postalytics.sync_health WHERE name = 'b'}), 1, 'until its pause ends');
nack($two, [ @$early[ 0 .. 2 ] ]);
is(health(), 'open 20 consecutive failures 3', 'failures of deliveries fetched earlier do not count');

my @seconds = (60, 120, 240, 480, 960, 1920, 3600, 3600);
for my $pause (@seconds)
{
	end_pause();
	$idle->begin_work;
	my $try = fetch($idle, 10);
	is(scalar @$try, 1, 'half-open: one is tried');
	is(scalar @{ fetch($one, 10) }, 0, 'by one worker at a time');
	nack($idle, $try);
	$idle->commit;
	my $tens = $pause / 10;
	like(health(), qr/^open \d+ consecutive failures $tens\z/, "it fails: a pause of $pause seconds");
}
is($admin->selectrow_array(q{SELECT postalytics.resume_sync('b')}), 1, 'resume_sync ends the pause');
like(health(), qr/^half-open \d+ consecutive failures -$/, 'and it is half-open');
my $try = fetch($one, 10);
is(scalar @$try, 1, 'so that one is tried');
is(ack($one, $try), 1, 'which succeeds');
is(health(), 'closed - -', 'and closes it');
is(scalar @{ fetch($one, 10) }, 10, 'so that a whole batch is leased');
is(scalar @{ fetch($two, 10) }, 10, 'by any worker');

# resume_sync ends a pause whose nack has not committed.
$idle->begin_work;
nack($idle, fetch($idle, 40));
is(scalar @{ fetch($one, 10) }, 0, 'paused by a nack that is not committed');
is($admin->selectrow_array(q{SELECT postalytics.resume_sync('b')}), 1, 'and resumed');
$try = fetch($one, 10);
is(scalar @$try, 1, 'so that one is tried');
is(ack($one, $try), 1, 'with success');
$idle->commit;
is(health(), 'closed - -', 'the success counts, because it came last');

# A nack that is rolled back has no effect.
$idle->begin_work;
nack($idle, fetch($idle, 40));
like(health(), qr/^closed/, 'others do not see it yet');
$idle->rollback;
is(scalar @{ fetch($one, 10) }, 10, 'and it is not paused after the rollback');

# Each change is a line in the server log.
my $log = slurp_file($node->logfile);
my @lines = $log =~ /LOG:  circuit breaker of sync "b" (.*)/g;
is(scalar(grep { /^opened after \d+ (failure|consecutive failures)$/ } @lines), 1 + @seconds + 2, 'each pause is logged');
is(scalar(grep { /^closed after a success$/ } @lines), 2, 'and each closing');

# The breaker's state is dropped with its sync.
$admin->do(q{SELECT postalytics.drop_sync('b')});
is($admin->selectrow_array('SELECT (SELECT count(*) FROM postalytics.breaker_events) + (SELECT count(*) FROM postalytics.in_flight)'), 0, 'drop_sync');

$_->disconnect for $admin, $one, $two, $idle;
$node->stop;
done_testing();
