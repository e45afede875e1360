# The notifications that a session receives which only LISTENs, in psql and in a
# program.
use strict;
use warnings;
use DBI;
use Encode qw(encode_utf8);
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('notify');
$node->init;
$node->start;
$node->safe_psql('postgres', "CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d')");

sub connect_to
{
	my ($dbname) = @_;
	return DBI->connect("dbi:Pg:host=" . $node->host . ";port=" . $node->port . ";dbname=$dbname",
		getpwuid($<) . '', '', { RaiseError => 1, PrintError => 0 });
}

my $writer = connect_to('postgres');
my $listener = connect_to('postgres');
$writer->do("SET timezone = 'UTC'");

# Return the notifications received so far, including those of all committed calls.
sub heard
{
	my @heard;
	$listener->ping;
	while (my $notify = $listener->pg_notifies)
	{
		my ($channel, undef, $payload) = @$notify;
		push @heard, [ $channel, JSON::PP->new->decode($payload), length encode_utf8($payload) ];
	}
	@heard = sort { $a->[0] cmp $b->[0] } @heard;
	return @heard;
}

sub event
{
	my ($mail_id, $code, %more) = @_;
	return { mailId => $mail_id, eventType => $code, eventDate => '2026-10-06T14:21:09Z', %more };
}

sub ingest
{
	my ($events, $account) = @_;
	return $writer->selectrow_arrayref('SELECT * FROM postalytics.ingest(?, ?)', undef,
		JSON::PP->new->ascii->encode($events), $account);
}

$writer->do(q{SELECT postalytics.create_sync('all')});
$writer->do(q{SELECT postalytics.create_sync('Sync "of" some', statuses => '{InTransit,Mailed}', channel => 'Some "channel"')});
$writer->do(q{SELECT postalytics.create_sync('campaign', campaigns => '{77120,c2}', accounts => '{a1}')});
$writer->do(q{SELECT postalytics.create_sync('asleep', enabled => false)});
$listener->do(qq{LISTEN "$_"})
  for 'postalytics_all', 'Some ""channel""', 'postalytics_campaign', 'postalytics_asleep';

# An event gives one notification for each matching sync, which lists the event.
ingest(event(1, 4, meta => { campaignId => '9"' }));
my @heard = heard();
is(scalar @heard, 2, 'one notification for each matching sync');
is($heard[0][0], 'Some "channel"', 'on the channel of the sync');
is($heard[1][0], 'postalytics_all', 'or on the one named after it');
my $event = $heard[1][1]{events}[0];
like(delete $event->{event_id}, qr/^\d+$/, 'event_id');
is_deeply($heard[1][1],
	{ sync => 'all', count => 1, events => [ { piece_id => '1', status => 'InTransit', label => 'In Transit',
		occurred_at => '2026-10-06T14:21:09+00:00', account => '', campaign_id => '9"' } ] }, 'payload');
is($heard[0][1]{sync}, 'Sync "of" some', 'names are quoted as JSON');

# Any role can LISTEN, so events of a named account are only counted.  They are listed
# only for a sync that asks for it.
$writer->do(q{SELECT postalytics.create_sync('told', notify_events => true, durable => false)});
$listener->do('LISTEN postalytics_told');
ingest([ event('secret', 4), event('secret', 5) ], 'a"1');
@heard = heard();
is_deeply($heard[1][1], { sync => 'all', count => 2, events => [] }, 'events of an account are counted');
is_deeply([ map { "$_->{account} $_->{piece_id}" } @{ $heard[2][1]{events} } ], [ ('a"1 secret') x 2 ], 'and listed if the sync has notify_events');
ingest([ event('open', 4), event('secret', 6) ]);
ingest(event('secret', 10), 'a"1');
unlike(join(' ', map { JSON::PP->new->encode($_->[1]) } grep { $_->[0] ne 'postalytics_told' } heard()), qr/a\\"1/, 'and are not listed beside events without an account');
$writer->do(q{SELECT postalytics.drop_sync('told')});

# Only events that match a sync's statuses, campaigns and accounts are notified.
ingest(event(2, 5));
is_deeply([ map { $_->[0] } heard() ], ['postalytics_all'], 'status does not match');
ingest(event(3, 5, campaignId => 77120), 'a1');
is_deeply([ map { $_->[0] } heard() ], [ 'postalytics_all', 'postalytics_campaign' ], 'campaign and account match');
ingest(event(4, 5, campaignId => 77120), 'a2');
ingest(event(5, 5, campaignId => 7712), 'a1');
ingest(event(6, 5), 'a1');
is_deeply([ map { $_->[0] } heard() ], [ ('postalytics_all') x 3 ], 'campaign and account must both be present and match');

# Duplicates, rejects and a call that is rolled back send no notification.
ingest([ event(1, 4), event(2, 5), { nonsense => 1 } ]);
is(scalar(@heard = heard()), 0, 'duplicates and rejects are not notified');
$writer->begin_work;
ingest(event(7, 4));
$writer->rollback;
is(scalar(@heard = heard()), 0, 'a rolled-back call is not notified');

# Many events give one notification, which is valid JSON, counts them and lists those
# that fit.
ingest([ map { event("many $_ \x{e9}\x{1F4EE}", 6) } 1 .. 5000 ]);
@heard = heard();
is(scalar @heard, 1, 'one notification for 5000 events');
is($heard[0][1]{count}, 5000, 'which counts them');
cmp_ok($heard[0][2], '<', 8000, 'fits');
cmp_ok(scalar @{ $heard[0][1]{events} }, '>', 20, 'and lists some');

# Events are notified however they are stored.
$writer->do("INSERT INTO postalytics.events (piece_id, status, occurred_at) VALUES ('8', 'Printed', '2026-10-06 UTC')");
$writer->do("INSERT INTO postalytics.inbox (mail_id, event_type, event_date) VALUES ('9', 'Printed', '2026-10-06')");
is_deeply([ map { $_->[1]{events}[0]{piece_id} } heard() ], [ '8', '9' ], 'INSERT and inbox');

# Enabling, disabling and dropping a sync take effect in a session that has it cached.
$writer->do(q{SELECT postalytics.enable_sync('asleep'), postalytics.disable_sync('all')});
ingest(event(10, 5));
is_deeply([ map { $_->[0] } heard() ], ['postalytics_asleep'], 'enabled and disabled');
my $other = connect_to('postgres');
$other->do(q{SELECT postalytics.drop_sync('asleep')});
ingest(event(11, 5));
is(scalar(@heard = heard()), 0, 'dropped by another session');
$writer->do(q{UPDATE postalytics.syncs SET enabled = true, channel = 'moved' WHERE name = 'all'});
$listener->do('LISTEN moved');
ingest(event(12, 5));
is_deeply([ map { $_->[0] } heard() ], ['moved'], 'changed by a plain UPDATE');

# Names of nearly the greatest length work for syncs and channels.
my $long = "\x{1F4EE}" x 15 . "\\'";
$writer->do('SELECT postalytics.create_sync(?, channel => ?)', undef, $long, $long);
$listener->do(qq{LISTEN "$long"});
ingest(event(13, 5));
@heard = grep { $_->[0] ne 'moved' } heard();
is(scalar @heard, 1, 'a sync and a channel of 62 bytes');
is($heard[0][1]{sync}, $long, 'by that name');
$writer->do('SELECT postalytics.drop_sync(?)', undef, $long);

# notify() on a user's table notifies once for each statement, with the keys of its
# rows.
$writer->do(q{
	CREATE TABLE "Odd ""table" (id int, part text, flag boolean, note text, PRIMARY KEY (id, part));
	CREATE TRIGGER i AFTER INSERT ON "Odd ""table" REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION postalytics.notify('own');
	CREATE TRIGGER u AFTER UPDATE ON "Odd ""table" REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION postalytics.notify('own', 'flag', 'id', 'note');
	CREATE TRIGGER d AFTER DELETE ON "Odd ""table" REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION postalytics.notify('own')});
$listener->do('LISTEN own');
$writer->do(q{INSERT INTO "Odd ""table" VALUES (1, 'a"1', true), (2, 'b', NULL)});
$writer->do(q{UPDATE "Odd ""table" SET note = 'x' WHERE id = 1});
$writer->do(q{UPDATE "Odd ""table" SET note = 'x' WHERE false});
$writer->do(q{DELETE FROM "Odd ""table" WHERE id = 2});
my $table = 'public."Odd ""table"';
is_deeply([ map { $_->[1] } heard() ],
	[ { table => $table, operation => 'INSERT', count => 2, keys => [ { id => 1, part => 'a"1' }, { id => 2, part => 'b' } ] },
	  { table => $table, operation => 'UPDATE', count => 1, keys => [ { flag => JSON::PP::true, id => 1, note => 'x' } ] },
	  { table => $table, operation => 'DELETE', count => 1, keys => [ { id => 2, part => 'b' } ] } ],
	'INSERT, UPDATE and DELETE, but not a statement without rows');
$writer->do(q{INSERT INTO "Odd ""table" SELECT i, repeat('\"', 20) FROM generate_series(10, 5000) AS i});
@heard = heard();
is($heard[0][1]{count}, 4991, 'many rows are counted');
cmp_ok($heard[0][2], '<', 8000, 'and fit');
cmp_ok(scalar @{ $heard[0][1]{keys} }, '>', 50, 'and some are listed');

# psql prints the notifications that it received after the next command.
my ($in, $out) = ("LISTEN moved;\n\\echo ready\n", '');
my $psql = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out,
	IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
$psql->pump until $out =~ /ready/;
ingest(event(14, 5));
$in .= "SELECT 'done';\n\\q\n";
$psql->finish;
my ($payload) = $out =~ /Asynchronous notification "moved" with payload "(.*)" received/;
is(decode_json($payload)->{events}[0]{label}, 'In Local Area', 'psql receives it');

$_->disconnect for $writer, $listener, $other;
$node->stop;
done_testing();
