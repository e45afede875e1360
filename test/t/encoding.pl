# In a database whose encoding is not UTF-8, an event with a character that the encoding
# lacks is rejected, and the other events of its batch are stored.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('encoding');
$node->init;
$node->start;

my $feed = '[{"mailId": 1, "eventDate": "2026-10-06", "eventType": 4, "company": "\u2603 snow"},
	{"mailId": 2, "eventDate": "2026-10-06", "eventType": 4, "company": "Aim\u00e9e"},
	{"mailId": 3, "eventDate": "2026-10-06", "eventType": 4, "fields": {"a": "\u2603"}},
	{"mailId": "\ud83d\ude00", "eventDate": "2026-10-06", "eventType": 4},
	{"mai\u2603l": 3, "mailId": 5, "eventDate": "2026-10-06", "eventType": 4, "note": "\u2603", "company": "plain"}]';

# encoding => the pieces stored, except the emoji's
my %expected = (LATIN1 => '2,5', SQL_ASCII => '5', UTF8 => '1,2,3,5');
for my $encoding (sort keys %expected)
{
	my $dbname = lc $encoding;
	$node->safe_psql('postgres', "CREATE DATABASE $dbname ENCODING '$encoding' TEMPLATE template0 LOCALE 'C'");
	$node->safe_psql($dbname, "CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d')");
	my ($inserted, $duplicates, $rejected) =
	  split /\|/, $node->safe_psql($dbname, "SELECT * FROM postalytics.ingest('$feed')");
	is($inserted + $duplicates + $rejected, 5, "$encoding: all five are accounted for");
	is($node->safe_psql($dbname, 'SELECT count(*) FROM postalytics.rejects'), $rejected, "$encoding: what is rejected is kept");
	is($node->safe_psql($dbname, q{SELECT string_agg(DISTINCT piece_id, ',') FROM postalytics.pieces WHERE piece_id < 'A'}),
		$expected{$encoding}, "$encoding: pieces");
}

# A character that the encoding lacks does not break a report that does not show it.
for my $encoding (sort keys %expected)
{
	my $dbname = lc $encoding;
	$node->safe_psql($dbname, q{SELECT postalytics.ingest('[{"mailId": "r1", "eventDate": "2026-10-06", "eventType": 3, "note": "a \u2013 b", "to": {"errorCode": "9X", "city": "\u2603"}},
		{"mailId": "r2", "eventDate": "2026-10-06", "eventType": 2, "to": {"errorCode": "21"}}]')});
	is($node->safe_psql($dbname, q{SELECT piece_id, error_code, city IS NULL FROM postalytics.returned_mail ORDER BY 1}),
		$encoding eq 'UTF8' ? "r1|9X|f\nr2|21|t" : "r1|9X|t\nr2|21|t", "$encoding: returned_mail shows what it can");
}

is($node->safe_psql('latin1', q{SELECT encode(convert_to(company, 'LATIN1'), 'hex') FROM postalytics.pieces WHERE piece_id = '2'}),
	'41696de965', 'LATIN1: escapes are converted');
is($node->safe_psql('utf8', q{SELECT encode(convert_to(piece_id, 'UTF8'), 'hex') FROM postalytics.pieces WHERE piece_id > 'z'}),
	'f09f9880', 'UTF8: a pair of surrogates is one character');

$node->stop;
done_testing();
