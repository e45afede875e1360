# demo/load: a sample campaign in a database that is used, and its removal.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('demo');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE crm');
$node->safe_psql('crm', <<'SQL');
CREATE EXTENSION postalytics_status;
SELECT postalytics.ingest('{"mailId": 48000001, "eventType": 11, "eventDate": "2026-10-05", "meta": {"campaignId": "77120"}}');
SELECT postalytics.create_sync('crm');
SQL

my $load = "$ENV{TESTDIR}/demo/load";
my @load = ($load, '-n', '200', $node->connstr('crm'));

command_fails_like(\@load, qr/these syncs would deliver the sample: 'crm'/, 'nothing is loaded if a sync would deliver it');
is($node->safe_psql('crm', 'SELECT count(*) FROM postalytics.events'), 1, 'the data is as it was');

$node->safe_psql('crm', q{UPDATE postalytics.syncs SET accounts = '{}' || ARRAY['']});
command_like(\@load, qr/^\d+ inserted, \d+ duplicates, 0 rejected$/m, 'the sample is loaded');
is($node->safe_psql('crm', q{SELECT campaign_id, account, campaign_name, pieces FROM postalytics.campaign_funnel WHERE campaign_id = 'sample'}),
	'sample|sample|Sample campaign|200', 'it is marked as a sample');
is($node->safe_psql('crm', q{SELECT count(*) FROM postalytics.deliveries WHERE account = 'sample'}), 0, 'no delivery is created for it');
is($node->safe_psql('crm', q{SELECT account, status FROM postalytics.pieces WHERE piece_id = '48000001' ORDER BY account LIMIT 1}),
	'|Mailed', 'a piece with the id of a sample piece is left alone');

command_fails_like(\@load, qr/the sample is loaded already/, 'it is not loaded twice');
$node->safe_psql('crm', q{CREATE ROLE sender LOGIN; SELECT postalytics.grant_ingest('sender'); SELECT postalytics.grant_read('sender', 'x')});
command_fails_like([ $load, $node->connstr('crm') . ' user=sender' ], qr/may not see all syncs/, 'a role that does not see all syncs cannot load it');
cmp_ok($node->safe_psql('crm', q{SELECT postalytics.drop_campaign('sample', 'sample')}), '>', 200, 'one call removes it');
is($node->safe_psql('crm', 'SELECT count(*), min(piece_id), min(account) FROM postalytics.pieces'), '1|48000001|', 'the other data is left');
is($node->safe_psql('crm', q{SELECT (SELECT count(*) FROM postalytics.events) + (SELECT count(*) FROM postalytics.campaigns)}), 2,
	'with its events and campaign');

$node->stop;
done_testing();
