# Runs the queries of docs/marketer.md, and those of docs/operate.md about the feed, on a
# generated campaign, and compares their results with the counts of the generator.
use strict;
use warnings;
use DBI;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = $ENV{TESTDIR};
my $folder = PostgreSQL::Test::Utils::tempdir();
my $node = PostgreSQL::Test::Cluster->new('reports');
$node->init;
$node->start;
my $db = DBI->connect("dbi:Pg:host=" . $node->host . ";port=" . $node->port . ";dbname=postgres",
	getpwuid($<) . '', '', { RaiseError => 1, AutoCommit => 1 });
$db->do("SET search_path = public, postalytics; SET timezone = 'UTC'; CREATE EXTENSION postalytics_status;
	CREATE TABLE person (id int PRIMARY KEY, name text)");

# Use one transaction, so that now() is the time for which the generator counted.
$db->begin_work;
my ($now, $start) = $db->selectrow_array("SELECT extract(epoch FROM now()), (now() - interval '18 days')::date");
my $then = int($now) - 11 * 86400;

# Return the generator's counts as of a time.
sub generator_counts
{
	my ($as_of) = @_;
	my @command = ("$top/demo/generate", '--pieces', 6000, '--start', $start, '--quiet', '--as-of', $as_of, '--summary', "$folder/summary");
	IPC::Run::run(\@command, '>', "$folder/feed") or die "the generator failed";
	return { map { split /\t/ } split /\n/, slurp_file("$folder/summary") };
}

my $made_then = generator_counts($then);
my $made = generator_counts($now);
$db->do("SELECT configure('latest', '3650d')");
my $ingest = $db->prepare('SELECT * FROM ingest(?)');
my @sums = (0, 0, 0);
for my $line (split /\n/, slurp_file("$folder/feed"))
{
	$ingest->execute($line);
	my @row = $ingest->fetchrow_array;
	$sums[$_] += $row[$_] for 0 .. 2;
}
is_deeply(\@sums, [ $made->{events}, $made->{duplicates}, 0 ], 'all generated events are stored');

# Choose a piece, and read the queries from the page.
my ($piece) = $db->selectrow_array("SELECT piece_id FROM pieces WHERE status = 'ProcessedForDelivery' AND response IS NOT NULL
	AND in_transit_at IS NULL AND re_routed_at IS NULL ORDER BY 1 LIMIT 1");
my @questions;
for my $question (map { /^SELECT [^;]*/mg } map { slurp_file("$top/docs/$_.md") =~ /^```sql\n(.*?)^```$/msg } qw(marketer operate))
{
	$question =~ s/48213377/$piece/g;
	$question =~ s/'[^']*\@harbourvale.example'/"'p" . (9_900_000 + $piece - 48_000_000) . "\@harbourvale.example'"/e;
	$question =~ s/'2026-10-06 00:00 UTC'/to_timestamp($then)/;
	push @questions, $question;
}
cmp_ok(scalar(@questions), '>=', 20, 'there are queries');

# Run the only query that contains $words, and return its rows as hashes.
sub ask
{
	my ($words) = @_;
	my @matching = grep { index($_, $words) >= 0 } @questions;
	is(scalar(@matching), 1, "one query contains: $words");
	return $db->selectall_arrayref($matching[0], { Slice => {} });
}

# Return the generator's values for single pieces under a heading.
sub of_pieces
{
	my ($heading) = @_;
	return { map { /^\Q$heading\E\.(\d+)$/ ? ($1 => $made->{$_}) : () } keys %$made };
}

my @names = qw(MailPieceCreated Addressed Printed Mailed InTransit InLocalArea ProcessedForDelivery ReRouted ReturnedToSender
	pURLOpened pURLCompleted);
my %label = map { @$_ } @{ $db->selectall_arrayref('SELECT label, status FROM statuses') };

for (@{ ask("funnel('77120')") })
{
	my $status = $label{ $_->{label} };
	is("$_->{reached} $_->{at}", ($made->{"reached.$status"} // 0) . ' ' . ($made->{"status.$status"} // 0), "$status: pieces that reached it, and that are at it now");
	is($_->{rate} + 0, sprintf('%.4f', ($made->{"reached.$status"} // 0) / $made->{pieces}) + 0, "$status: rate");
	is(length($_->{bar}), int(20 * ($made->{"reached.$status"} // 0) / $made->{pieces} + 0.999), "$status: bar")
	  if ($made->{"reached.$status"} // 0) / $made->{pieces} > 0.98;
}
my %stood = map { $label{ $_->{label} } => "$_->{reached} $_->{at}" } @{ ask('as_of =>') };
for (grep { $made_then->{"then.reached.$_"} } @names)
{
	is($stood{$_}, $made_then->{"then.reached.$_"} . ' ' . ($made_then->{"then.status.$_"} // 0), "$_: pieces that had reached it, and that were at it then");
}
cmp_ok($made_then->{'then.status.InTransit'}, '>', 0, 'some were in transit then');

my ($all) = @{ $db->selectall_arrayref('SELECT * FROM campaign_funnel', { Slice => {} }) };
my %column = (MailPieceCreated => 'mail_piece_created', InTransit => 'in_transit', InLocalArea => 'in_local_area',
	ProcessedForDelivery => 'processed_for_delivery', ReRouted => 're_routed', ReturnedToSender => 'returned_to_sender',
	pURLOpened => 'purl_opened', pURLCompleted => 'purl_completed');
for (@names)
{
	my $column = $column{$_} // lc $_;
	my $of = $column =~ /purl/ ? $made->{'reached.Mailed'} : $made->{'reached.US.Mailed'};
	is($all->{$column}, $made->{"reached.$_"}, "campaign_funnel: $column");
	is($all->{"at_$column"}, $made->{"status.$_"} // 0, "campaign_funnel: at_$column") unless $column =~ /purl/;
	is($all->{"${column}_rate"} + 0, sprintf('%.4f', $made->{"reached.$_"} / $of) + 0, "campaign_funnel: ${column}_rate")
	  unless $column =~ /^(mail_piece_created|addressed|printed|mailed)$/;
}
is($all->{responded}, $made->{visitors}, 'campaign_funnel: responded');
is($all->{mailed_rate} + 0, $made->{'reached.Mailed'} / $made->{pieces}, 'campaign_funnel: mailed_rate');
is(ask('responded, responded_rate FROM campaign_funnel')->[0]->{responded_rate} + 0,
	sprintf('%.4f', $made->{visitors} / $made->{'reached.Mailed'}) + 0, 'responded_rate');
for (@{ ask('campaign_funnel_by_country') })
{
	my $us = $_->{country} eq 'US';
	is($_->{pieces}, $made->{"pieces.$_->{country}"}, "$_->{country}: pieces");
	is($_->{mailed}, $made->{"reached.$_->{country}.Mailed"}, "$_->{country}: mailed");
	is($_->{responded_rate} + 0, sprintf('%.4f', $made->{"reached.$_->{country}.pURLOpened"} / $_->{mailed}) + 0, "$_->{country}: responded");
	is($_->{in_transit_rate}, $us ? sprintf('%.4f', $made->{'reached.US.InTransit'} / $made->{'reached.US.Mailed'}) : undef,
		"$_->{country}: in_transit_rate");
}
my ($days) = @{ ask('median_days, p90_days') };
is("$days->{median_days} $days->{p90_days}", "$made->{median_days} $made->{p90_days}", 'days from mailed to processed');
my ($progress) = @{ ask('campaign_progress') };
is("$progress->{pieces} $progress->{returned} $progress->{completed}",
	"$made->{pieces} $made->{'status.ReturnedToSender'} $made->{'reached.pURLCompleted'}", 'campaign_progress');

my $stuck = ask('stuck_pieces()');
is(scalar(@$stuck), $made->{stuck}, 'stuck pieces');
is_deeply({ map { $_->{piece_id} => $_->{status} } @$stuck }, of_pieces('stuck'), 'which pieces, and their statuses');
cmp_ok($made->{stuck}, '>', 10, 'there are some');
is(scalar(@{ ask("stuck_pieces('10 days'") }), $made->{stuck_10_days}, 'stuck for ten days');
my ($impossible) = $db->selectrow_array(q{SELECT count(*) FROM stuck_pieces('1 second') WHERE status IN ('ProcessedForDelivery', 'ReturnedToSender')
	OR (country = 'CA' AND status = 'Mailed')});
is($impossible, 0, 'and none of them is complete');

my ($responses) = @{ ask('campaign_responses') };
is(join(' ', @$responses{qw(visitors completers not_completed median_days_to_visit)}),
	"$made->{visitors} $made->{'reached.pURLCompleted'} $made->{not_completed} $made->{median_days_to_visit}", 'responses');
is(join(' ', $db->selectrow_array('SELECT visits, completions FROM campaign_responses')),
	"$made->{'visits.pURLOpened'} $made->{'visits.pURLCompleted'}", 'visits');
for (@{ ask('responses_by_day') })
{
	is("$_->{visits} $_->{completions}", ($made->{"day.pURLOpened.$_->{day}"} // 0) . ' ' . ($made->{"day.pURLCompleted.$_->{day}"} // 0), $_->{day});
}
is(scalar(@{ ask("response = 'pURLOpened'") }), $made->{not_completed}, 'visitors who did not complete');

my $returned = ask("status = 'ReturnedToSender'");
is(scalar(@$returned), $made->{'status.ReturnedToSender'}, 'returned mail');
is_deeply({ map { $_->{piece_id} => $_->{error_code} } @$returned }, of_pieces('returned'), 'which pieces, and their error codes');
is(scalar(grep { $_->{address} eq '14 Wharf Street' } @$returned), scalar(@$returned), 'with the wrong address');
my $rerouted = ask("status = 'ReRouted'");
is_deeply({ map { $_->{piece_id} => $_->{address} } @$rerouted }, of_pieces('re-routed'), 're-routed mail, including pieces returned later, with the new addresses');
is(scalar(grep { $_->{error_code} eq 'COA' && $_->{address_updated} } @$rerouted), $made->{'reached.ReRouted'}, 'with the code of a new address');

is(ask('WHERE email =')->[0]->{piece_id}, $piece, "a person's piece");
my $journey = ask('FROM journey(');
is(join(' ', map { $_->{note} // '' } grep { $_->{label} eq 'In Transit' } @$journey), 'not reported', 'a gap in the journey');
is(scalar(grep { defined $_->{occurred_at} } @$journey), $db->selectrow_array('SELECT count(*) FROM events WHERE piece_id = ?', undef, $piece),
	'and every event');
my ($status_then) = $db->selectrow_array("SELECT current_status(status, occurred_at) FROM events WHERE piece_id = ? AND occurred_at <= to_timestamp($then)",
	undef, $piece);
is(ask('status_as_of')->[0]->{status_as_of}, $status_then, 'its status then');
like(ask('estimated_delivery(p)')->[0]->{estimated_delivery}, qr/^\["/, 'its window');
is(scalar(@{ ask('status >>=') }),
	$made->{'status.US.Mailed'} + ($made->{'status.InTransit'} // 0) + ($made->{'status.InLocalArea'} // 0) + ($made->{'status.ReRouted'} // 0),
	'on their way');
is(ask('GROUP BY 1 ORDER BY 1')->[0]->{count}, $made->{events}, 'events by hour');
is(ask('FROM rejects')->[0]->{rejects_of_a_day}, 0, 'no rejects');
cmp_ok(scalar(@{ ask('pg_partition_tree') }), '>=', 1, 'months');

# A piece is late if it misses the expected date from the feed.
$db->do(q{SELECT ingest('[{"mailId": "late", "eventDate": "2026-10-01", "eventType": 11, "expectedDeliveryDate": "2026-10-05", "to": {"country": "US"}},
	{"mailId": "late", "eventDate": "2026-10-06T04:00:01", "eventType": 6},
	{"mailId": "overdue", "eventDate": "2026-10-01", "eventType": 4, "expectedDeliveryDate": "2026-10-05", "to": {"country": "US"}},
	{"mailId": "in time", "eventDate": "2026-10-05T23:00", "eventType": 6, "expectedDeliveryDate": "2026-10-05", "to": {"country": "US"}}]')});
my $notes = $db->prepare("SELECT string_agg(label || ': ' || note, ', ' ORDER BY status) FROM journey(?)");
my %notes = map { $_ => $db->selectrow_array($notes, undef, $_) } 'late', 'overdue', 'in time';
is($notes{late}, 'Mail Piece Created: not reported, In Transit: not reported, In Local Area: not reported, Processed for Delivery: late', 'late');
is($notes{overdue}, 'Mail Piece Created: not reported, Mailed: not reported, In Local Area: awaited, late, Processed for Delivery: awaited, late', 'overdue');
unlike($notes{'in time'}, qr/late/, 'in time');
# After its events are retired, the journey still shows what was reported.
$db->do("DELETE FROM events WHERE piece_id = 'late'");
is($db->selectrow_array($notes, undef, 'late'), $notes{late}, 'retired');
is($db->selectrow_array("SELECT count(*) FROM journey('late') WHERE occurred_at IS NOT NULL"), 2, 'the times stored in the piece are shown');
is($db->selectrow_array("SELECT status_as_of('late', now())"), 'ProcessedForDelivery', 'and so is its status');

# Pieces can be joined to a CRM's table through a column of the mailing list.
$db->do("INSERT INTO person SELECT 9900000 + i, 'Person ' || i FROM generate_series(0, 5999) AS i");
is(scalar(@{ $db->selectall_arrayref("SELECT FROM person AS r JOIN pieces AS p ON p.fields ->> 'crm_person_id' = r.id::text
	WHERE p.response IS NOT NULL") }), $made->{visitors}, 'contacts that responded');

$db->rollback;
$db->disconnect;
$node->stop;
done_testing();
