# Erases a person, who is in every table of three accounts, from one of them.  Nothing
# about the person may be left in that account, in a dump or a detached month, and the
# other accounts must not change.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('forget');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status;
	SELECT postalytics.configure('max_rejects', '2');
	SELECT postalytics.create_sync('crm'), postalytics.create_sync('late', wait => '1 year'), postalytics.create_sync('failing', max_attempts => 1)});

# The data to search for.  The email address, in any spelling, is the same in all
# accounts.  The other values contain the account, so that each line shows its account.
my @accounts = ('acme', 'bolt', 'core');
sub recipient
{
	my ($account) = @_;
	return qq{"to": {"id": "contact of $account", "firstName": "Philippa $account", "lastName": "Featherstone $account", "company": "Works of $account",
		"email": "Philippa.F\@example.com", "address": "12 Larch Street $account", "city": "Town of $account", "zip": "04101"},
		"url": "https://pf.example/?a=$account", "meta": {"campaignId": "c", "fields": {"nickname": "Pip of $account"}}} =~ s/\s+/ /gr;
}
my $months = "ARRAY['2018-07-03', '2018-08-03', '2026-09-03', '2026-10-03']";
for my $account (@accounts)
{
	my $to = recipient($account);
	$node->safe_psql('postgres', qq{
		SELECT postalytics.ingest(json_agg(format('{"mailId": "piece of $account", "eventType": %s, "eventDate": "%s", %s}', type, day, '$to')::json), '$account')
		FROM unnest($months, ARRAY[10, 11, 3, 7]) AS e (day, type);
		SELECT postalytics.ingest('{"mailId": "second of $account", "eventType": 11, "eventDate": "2018-07-05", $to}', '$account');
		SELECT postalytics.ingest('{"mailId": "neighbour of $account", "eventType": 11, "eventDate": "2018-07-05", "to": {"firstName": "Neighbour", "email": "a.philippa.f\@example.com"}}', '$account');
		-- rejects: an event, a value that is no event, a whole call, rows of a
		-- statement
		SELECT postalytics.ingest('{"mailId": "piece of $account", "eventType": 99, "eventDate": "2018-07-05", $to}', '$account');
		SELECT postalytics.ingest('"Philippa $account <philippa.f\@example.com>, 12 Larch Street $account"', '$account');
		SELECT postalytics.ingest('{"data": [{"eventType": 11, $to}, {"mailId": "neighbour of $account", "eventType": 4, "eventDate": "2018-07-06"}, 1, 2]}', '$account');
		INSERT INTO postalytics.inbox (account, mail_id, email, first_name)
		SELECT '$account', 'row ' || i, CASE WHEN i = 5 THEN 'PHILIPPA.F\@EXAMPLE.COM' END, CASE WHEN i = 5 THEN 'Philippa $account' END FROM generate_series(1, 6) AS i});
}
# Some deliveries are done, some are dead with a worker's error message, some are
# leased, and some are waiting with the payload of a retired month.
$node->safe_psql('postgres', q{
	SELECT postalytics.nack(sync, array_agg(delivery_id), 'no contact Philippa.F@example.com of ' || account, retry_in => '0')
	FROM unnest(ARRAY['crm', 'failing']) AS sync, postalytics.fetch(sync) WHERE email ~ '^P' GROUP BY sync, account;
	SELECT postalytics.ack('crm', array_agg(delivery_id)) FROM postalytics.fetch('crm') WHERE email ~ '^P';
	SELECT count(*) FROM postalytics.fetch('crm', lease => '1 hour');
	SELECT postalytics.configure('retention', '7 years'), postalytics.configure('retention_action', 'detach')});
$node->safe_psql('postgres', 'SELECT postalytics.maintain()');
is($node->safe_psql('postgres', 'SELECT string_agg(m::text, $$ $$) FROM postalytics.detached_months() AS m'),
	'postalytics.events_2018_07 postalytics.events_2018_08', 'two months are detached');
$node->safe_psql('postgres', q{
	CREATE TABLE archive AS SELECT * FROM postalytics.events_2018_08 WHERE false;
	SELECT postalytics.configure('retention', NULL)});

# Count by table the lines of a dump that show the person of an account: those whose
# values contain the account, or that have the address and the account in two columns.
sub found
{
	my ($account) = @_;
	my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
	$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'a dump');
	my $table = '';
	my %found;
	for (split /\n/, slurp_file($dump))
	{
		$table = $1 if /^COPY (\S+)/;
		my $is_person = /(Philippa|Featherstone|Works of|Larch Street|Town of|Pip of|pf\.example\/\?a=)\s?.*$account/ || (/(?<!a\.)philippa\.f\@example\.com/i && /\b$account\b/);
		$found{ $table =~ s/_\d{4}.*//r }++ if $is_person;
	}
	return \%found;
}

my %before = map { $_ => found($_) } @accounts;
is_deeply($before{bolt}, $before{acme}, 'the person is in all accounts equally');
is_deeply([ sort keys %{ $before{bolt} } ], [ map { "postalytics.$_" } qw(deliveries deliveries_unfinished events pieces rejects) ], 'and in every table that holds recipients')
  or note explain \%before;

# Meanwhile another session has ingested other pieces and keeps its transaction open.
my $open = $node->background_psql('postgres');
$open->query_safe(q{BEGIN; SELECT postalytics.ingest('{"mailId": "other", "eventType": 11, "eventDate": "2026-10-05"}', 'bolt')});
my $done = $node->safe_psql('postgres', q{SET lock_timeout = '10s'; SELECT relation, affected FROM postalytics.forget(email => 'philippa.f@example.com', account => 'bolt')});
is($done, "postalytics.rejects|4
postalytics.production_errors|0
postalytics.deliveries|15
postalytics.events|2
postalytics.events_2018_07|2
postalytics.events_2018_08|1
postalytics.pieces|2", 'the result lists what was erased, including detached months');
$open->query_safe('COMMIT');
$open->quit;

is_deeply(found('bolt'), {}, 'nothing is left of the person in one account');
is_deeply(found($_), $before{$_}, "nothing has changed in $_") for 'acme', 'core';
is($node->safe_psql('postgres', q{SELECT count(*) FROM postalytics.pieces WHERE account = 'bolt'}), '2', 'nor have the other pieces of the same account');
is($node->safe_psql('postgres', q{SELECT count(*), bool_or(r.payload::text ~ 'row 5') FROM postalytics.rejects AS r WHERE account = 'bolt' AND r.payload::text LIKE '%row%'}),
	'3|f', 'the other rows of a statement are still rejects');
is($node->safe_psql('postgres', q{SELECT sum(affected) FROM postalytics.forget(email => 'philippa.f@example.com', account => 'bolt')}), '0', 'a second call finds nothing');
is($node->safe_psql('postgres', q{SELECT count(*) FROM postalytics.audit_log AS a WHERE a::text ~* 'philippa|larch|piece of'}), '0', 'the audit log does not name the person');

# With anonymise, only the recipient is erased, and the counts stay.
my $counts = q{SELECT campaign_id, pieces, mailed, returned_to_sender, purl_opened FROM postalytics.campaign_funnel WHERE account = 'acme'};
my $counted = $node->safe_psql('postgres', $counts);
$node->safe_psql('postgres', q{SELECT postalytics.forget(email => 'philippa.f@example.com', account => 'acme', anonymise => true)});
is_deeply(found('acme'), {}, 'nothing is left of the recipient in another account');
is_deeply(found('core'), $before{core}, 'and nothing has changed in the third');
is($node->safe_psql('postgres', $counts), $counted, "but the counts are the same: $counted");

$node->stop;
done_testing();
