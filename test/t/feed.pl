# Lob's webhooks work with the rows that docs/feed.md gives: complete bodies of every
# kind of mail and every type of event.  Then events arrive again with other fields, and
# the pieces are as a rebuild makes them, in any order and grouping.  SEED repeats a
# run.
use strict;
use warnings;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = $ENV{TESTDIR};
my $node = PostgreSQL::Test::Cluster->new('feed');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION postalytics_status');
my ($rows) = slurp_file("$top/docs/feed.md") =~ /^### Another vendor: Lob\n.*?^```sql\n(.*?)^```/ms;
like($rows, qr/INSERT INTO status_names/, 'the page has rows for Lob');
$node->safe_psql('postgres', "SET search_path = postalytics;\n$rows");

# Repeat each body for each type of event, an hour apart.
my @types = qw(created rendered_pdf rendered_thumbnails mailed in_transit in_local_area processed_for_delivery re-routed returned_to_sender viewed delivered failed
	international_exit deleted fax_received);
my @events;
for my $event (@{ decode_json(slurp_file("$top/test/samples/lob.json")) })
{
	my ($kind) = $event->{event_type}{id} =~ /^(\w+)\./;
	push @events, { %$event, id => sprintf('evt_%06x', scalar @events), date_created => sprintf('2026-10-05T%02d:21:09.487Z', $_),
		event_type => { %{ $event->{event_type} }, id => "$kind.$types[$_]" } }
	  for 0 .. $#types;
}
my $bodies = encode_json(\@events);
my $ingest = "SELECT inserted || ',' || duplicates || ',' || rejected FROM postalytics.ingest(\$lob\$$bodies\$lob\$)";
# Five of the fifteen types are ignored, and one is not listed.
is($node->safe_psql('postgres', $ingest), '36,0,4', 'nine types of four kinds are stored');
is($node->safe_psql('postgres', $ingest), '0,36,4', 'once');
is($node->safe_psql('postgres', q{SELECT DISTINCT reason FROM postalytics.rejects ORDER BY 1}), join("\n", map { qq{unknown status "$_.fax_received"} } qw(check letter postcard self_mailer)),
	'an unknown type is a reject');
is($node->safe_psql('postgres', q{
	SELECT string_agg(concat_ws(' ', e.status, to_char(e.occurred_at AT TIME ZONE 'UTC', 'MM-DD HH24:MI:SS.MS')), ',' ORDER BY e.occurred_at)
	FROM postalytics.events AS e WHERE e.piece_id = 'sfm_1b7c33aa'}),
	join(',', map { "$_->[0] 10-05 $_->[1]:21:09.487" } ['MailPieceCreated', '00'], ['Mailed', '03'], ['InTransit', '04'], ['InLocalArea', '05'],
		['ProcessedForDelivery', '06'], ['ReRouted', '07'], ['ReturnedToSender', '08'], ['pURLOpened', '09']), 'a journey');
is($node->safe_psql('postgres', q{
	SELECT DISTINCT concat_ws('|', p.status, p.response, p.campaign_id, p.contact_id, p.last_name, p.company, p.email, p.city, p.state, p.zip, p.country, p.expected_delivery_at::date, p.fields)
	FROM postalytics.pieces AS p}),
	'ReturnedToSender|pURLOpened|cmp_7712|adr_a1|BAO REYES|HARBOUR & VALE DENTAL|bao.reyes@example.com|PORTLAND|ME|04101-4432|UNITED STATES|2026-10-09|{"offer": "SPRING26", "crm_person_id": "20931"}',
	'the recipient of each');
is($node->safe_psql('postgres', 'SELECT count(*) FROM postalytics.pieces'), 4, 'a piece each');
is($node->safe_psql('postgres', q{SELECT string_agg(piece_id || ' ' || status, ',' ORDER BY piece_id) FROM postalytics.production_errors}),
	'chk_0d94e6f1 Error,ltr_8e1f0c2b Error,psc_5f2ad1e0 Error,sfm_1b7c33aa Error', 'and an error each');
$node->safe_psql('postgres', q{INSERT INTO postalytics.status_names SELECT k || '.fax_received', 'ignore' FROM unnest('{postcard,letter,self_mailer,check}'::text[]) AS k});
is($node->safe_psql('postgres', 'SELECT rejected FROM postalytics.retry_rejects(); SELECT count(*) FROM postalytics.rejects'), "0\n0", 'with one more row, no reject is left');

# A webhook and the API report one visit, with and without a fraction of a second.
$node->safe_psql('postgres', 'CREATE DATABASE two_feeds');
$node->safe_psql('two_feeds', q{CREATE EXTENSION postalytics_status; SELECT postalytics.configure('identity', 'contact'), postalytics.configure('event_precision', 'second');
	SELECT postalytics.create_sync('visits', statuses => '{pURLOpened}');
	SELECT postalytics.ingest('{"mailId": 48213377, "eventType": 7, "eventDate": "2026-10-10T18:40:02.487", "to": {"id": 9921734, "firstName": "Dolores"}, "meta": {"campaignId": 77120, "url": "https://x.example"}}')});
my $page = slurp_file("$top/test/samples/api-campaign-events.json");
is($node->safe_psql('two_feeds', "SELECT inserted || ',' || duplicates FROM postalytics.ingest(\$j\$$page\$j\$)"), '4,1', 'the API reports four new events');
is($node->safe_psql('two_feeds', q{SELECT concat_ws('|', p.piece_id, p.first_name, p.opens, p.first_opened_at AT TIME ZONE 'UTC', (SELECT count(*) FROM postalytics.deliveries)) FROM postalytics.pieces AS p}),
	'77120/9921734|Dolores|1|2026-10-10 18:40:02|1', 'one visit, one delivery');

# A few events arrive many times, each time with some of these fields.
my $seed = $ENV{SEED} // time;
srand $seed;
$node->safe_psql('postgres', q{DELETE FROM postalytics.field_names; DELETE FROM postalytics.status_names; SELECT postalytics.create_sync('all');
	TRUNCATE postalytics.events, postalytics.pieces, postalytics.campaigns, postalytics.rejects, postalytics.production_errors});
my %some = (campaignId => [ 1, 2, 3 ], dropId => [ 3, 4 ], campaignName => [ 'one', 'two' ], contactId => [ 5, 6 ], firstName => [ 'Ann', 'Bob' ], city => ['Bath'], zip => [ '04101', '02109' ],
	country => [ 'US', 'CA' ], fields => [ { a => 1 }, { b => 2 } ], url => ['https://x.example'], expectedDeliveryDate => [ '2026-10-09', '0001-01-01', 'N/A', '2026-10-10' ]);
sub telling
{
	my ($run) = @_;
	my ($piece, $day) = (int rand 2, 1 + int rand 2);
	my %event = (mailId => "run $run piece $piece", eventType => (4, 7)[ rand 2 ], eventDate => "2026-10-0$day", map { rand() < 0.3 ? ($_ => $some{$_}[ rand @{ $some{$_} } ]) : () } sort keys %some);
	return encode_json(\%event);
}
my $script = '';
for my $run (1 .. 300)
{
	my @tellings = map { telling($run) } 1 .. 2 + rand 8;
	while (my @call = splice @tellings, 0, 1 + rand 3)
	{
		my $json = '[' . join(',', @call) . ']';
		$script .= rand() < 0.5 ? "SELECT FROM postalytics.ingest(\$j\$$json\$j\$);\n" : "INSERT INTO postalytics.inbox (payload) VALUES (\$j\$$json\$j\$);\n";
	}
}
$node->safe_psql('postgres', $script);
$node->safe_psql('postgres', 'CREATE TABLE before AS TABLE postalytics.pieces; CREATE TABLE named AS TABLE postalytics.campaigns; SELECT postalytics.rebuild_pieces(array_agg(piece_id)) FROM before');
is($node->safe_psql('postgres', 'TABLE before EXCEPT TABLE postalytics.pieces LIMIT 3'), '', "SEED=$seed: pieces are as a rebuild makes them");
is($node->safe_psql('postgres', 'SELECT count(*) FROM before'), $node->safe_psql('postgres', 'SELECT count(*) FROM postalytics.pieces'), 'all of them');
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT piece_id, status, occurred_at FROM postalytics.events EXCEPT ALL SELECT piece_id, status, occurred_at FROM postalytics.deliveries WHERE sync = 'all') AS m}), 0,
	'an event is delivered once');
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT piece_id, opens FROM postalytics.pieces EXCEPT SELECT piece_id, count(*) FILTER (WHERE status = 'pURLOpened')::int FROM postalytics.events GROUP BY 1) AS m}), 0,
	'and a visit counted once');
is($node->safe_psql('postgres', 'SELECT DISTINCT campaign_id FROM postalytics.events WHERE campaign_id IS NOT NULL EXCEPT SELECT campaign_id FROM named'), '', 'every campaign is listed');

$node->stop;
done_testing();
