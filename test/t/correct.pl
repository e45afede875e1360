# Ingesting events and retracting some of them must leave every table as if only the
# others had been ingested, in any order, and also while ingest, rebuild_pieces and
# workers run concurrently.  SEED repeats a run.
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

my $node = PostgreSQL::Test::Cluster->new('correct');
$node->init;
$node->append_conf('postgresql.conf', "deadlock_timeout = '100ms'");
$node->start;

sub connection
{
	my ($name) = @_;
	my $db = DBI->connect("dbi:Pg:host=" . $node->host . ";port=" . $node->port . ";dbname=$name",
		getpwuid($<) . '', '', { RaiseError => 1, PrintError => 0 });
	$db->do('SET client_min_messages = warning; SET search_path = public, postalytics; SET timezone = UTC');
	return $db;
}
my %db;
for my $name ('corrected', 'rest')
{
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$db{$name} = connection($name);
	$db{$name}->do(q{CREATE EXTENSION postalytics_status;
		SELECT configure('latest', '100 years'), ensure_partitions('2026-09-01 UTC', '2026-12-01 UTC');
		SELECT create_sync('all'), create_sync('mailed', statuses => '{Mailed}', latest_only => true)});
}

# Return a random event of one of a few pieces and campaigns.  No two events have the
# same piece, status and time.
my $json = JSON::PP->new->canonical;
my %known;
sub event
{
	my ($pieces) = @_;
	for (;;)
	{
		my $event = { mailId => int rand $pieces, eventType => (0, 2 .. 11)[ int rand 11 ],
			eventDate => sprintf('2026-%02d-%02dT0%d:00:00Z', 9 + rand 3, 1 + rand 28, rand 6), campaignId => 'c' . int rand 3 };
		delete $event->{campaignId} if rand() < 0.2;
		next if $known{"@$event{qw(mailId eventType eventDate)}"}++;
		$event->{campaignName} = 'name ' . int rand 4 if rand() < 0.5;
		$event->{to} = { id => int rand 3, firstName => 'first ' . int rand 9, zip => 10000 + int rand 9, country => rand() < 0.5 ? 'US' : 'CA' } if rand() < 0.5;
		$event->{fields} = { n => int rand 9 } if rand() < 0.3;
		$event->{url} = 'https://x.example/' . int rand 9 if rand() < 0.3;
		return $event;
	}
}

sub ingest
{
	my ($db, @events) = @_;
	$db->do('SELECT ingest(?)', undef, $json->encode(\@events)) if @events;
}

sub retract
{
	my ($db, $event) = @_;
	return scalar @{ $db->selectall_arrayref('SELECT * FROM retract_event(?::text, to_mail_status(?::text), ?)', undef, @$event{qw(mailId eventType eventDate)}) };
}

my @queries = ('SELECT piece_id, account, status, occurred_at, campaign_id, payload::text FROM events', 'SELECT p::text FROM pieces AS p',
	'SELECT c::text FROM campaigns AS c', 'SELECT sync, piece_id, status, occurred_at FROM deliveries_unfinished');

sub rows
{
	my ($db, $query) = @_;
	return join "\n", sort map { join '|', map { $_ // '' } @$_ } @{ $db->selectall_arrayref($query) };
}

sub same
{
	my ($title) = @_;
	is(rows($db{corrected}, $_), rows($db{rest}, $_), "$title: $_") for @queries;
	cmp_ok(scalar(split /\n/, rows($db{rest}, $_)), '>', 2, 'there is something to compare') for @queries;
}

# Run the calls one after another.
my (@stored, $retracted);
for my $round (1 .. 30)
{
	my @events = map { event(10) } 1 .. 1 + rand 15;
	ingest($db{corrected}, @events);
	push @stored, @events;
	for (1 .. rand 10)
	{
		last if !@stored;
		retract($db{corrected}, splice @stored, rand @stored, 1);
		$retracted++;
	}
	$db{corrected}->do('SELECT rebuild_pieces(array_agg(piece_id)) FROM pieces WHERE random() < 0.3');
}
ingest($db{rest}, @stored);
cmp_ok($retracted, '>', 50, "$retracted events were retracted");
same('one after the other');
$db{corrected}->do('SELECT rebuild_pieces(array_agg(piece_id)) FROM pieces');
same('rebuilt');

# If payloads are not kept, what the columns of events contain is derived.
$db{corrected}->do(q{SELECT configure('keep_payload', 'off')});
ingest($db{corrected}, { mailId => 'bare', eventType => 11, eventDate => '2026-10-01', campaignId => 'bare', campaignName => 'Bare' },
	{ mailId => 'bare', eventType => 7, eventDate => '2026-10-02', campaignId => 'bare' });
retract($db{corrected}, { mailId => 'bare', eventType => 11, eventDate => '2026-10-01' });
is(rows($db{corrected}, q{SELECT status, response, opens, campaign_id FROM pieces WHERE piece_id = 'bare'}), '|pURLOpened|1|bare', 'a piece without payloads');
is(rows($db{corrected}, q{SELECT name FROM campaigns WHERE campaign_id = 'bare'}), 'Bare', 'its campaign keeps its name');
retract($db{corrected}, { mailId => 'bare', eventType => 7, eventDate => '2026-10-02' });
is(rows($db{corrected}, q{SELECT count(*) FROM campaigns WHERE campaign_id = 'bare'}), '0', 'as long as an event names it');
$db{corrected}->do(q{SELECT configure('keep_payload', NULL)});

# Concurrently, writers ingest events of shared pieces, each event once, a worker leases
# repeatedly, pieces are rebuilt, and events are retracted.
%known = ();
$_->do('TRUNCATE events, pieces, campaigns, deliveries') for values %db;
my @batches = map { [ map { event(40) } 1 .. 20 ] } 1 .. 160;
my $folder = PostgreSQL::Test::Utils::tempdir();
sub child
{
	my ($name, $work) = @_;
	my $pid = fork // die;
	return $pid if $pid;
	$_->{InactiveDestroy} = 1 for values %db;
	eval { $work->(connection('corrected')) };
	append_to_file("$folder/errors", "$name: $@") if $@;
	POSIX::_exit(0);
}
require POSIX;
my @children;
for my $writer (0 .. 3)
{
	push @children, child('writer', sub { my ($db) = @_; ingest($db, @{ $batches[$_] }) for grep { $_ % 4 == $writer } 0 .. $#batches });
}
push @children, child('worker', sub { my ($db) = @_; $db->do(q{SELECT FROM postalytics.fetch('all', 50, lease => '0')}) for 1 .. 60 });
push @children, child('rebuilder', sub { my ($db) = @_; $db->do('SELECT rebuild_pieces(array_agg(piece_id)) FROM pieces WHERE random() < 0.2') for 1 .. 60 });
my @gone = map { splice @$_, 0, 3 } @batches;	# the writers have their own copies
my @left = @gone;
for (my $tries = 0; @left && $tries < 100_000; $tries++)
{
	my $event = shift @left;
	eval { retract($db{corrected}, $event) };
	next if !$@;
	push @left, $event;
	if ($db{corrected}->state ne '42704')
	{
		append_to_file("$folder/errors", "retract: $@");
		last;
	}
}
waitpid $_, 0 for @children;
is(-e "$folder/errors" ? slurp_file("$folder/errors") : '', '', 'no error and no deadlock');
is(scalar(@left), 0, 'all of ' . @gone . ' events are retracted');
ingest($db{rest}, map { @$_ } @batches);
same('concurrent with ingest');

$_->disconnect for values %db;
$node->stop;
done_testing();
