# pg_dump, and pg_restore into an empty server: the same rows everywhere, nothing
# told, and everything goes on.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @tables = qw(events pieces campaigns rejects field_names syncs deliveries maintenance_log);

my $old = PostgreSQL::Test::Cluster->new('old');
$old->init;
$old->start;
$old->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status;
	SET postalytics_status.latest = '36500d';
	SELECT postalytics.create_sync('all');
	SELECT postalytics.create_sync('some', campaigns => '{c0}', statuses => '{Mailed}', enabled => false);
	INSERT INTO postalytics.field_names VALUES ('ref', 'mail_id');
	SELECT postalytics.ingest((SELECT json_agg(json_build_object(
		'ref', i % 500, 'eventType', feed_code, 'campaignId', 'c' || i % 3, 'campaignName', 'Name ' || i % 3,
		'to', json_build_object('firstName', 'First ' || i, 'country', 'US'), 'fields', json_build_object('i', i),
		'eventDate', to_char(timestamp '2026-09-01' + i * interval '20 minutes', 'YYYY-MM-DD HH24:MI:SS')))
		FROM generate_series(1, 5000) AS i
		JOIN (SELECT feed_code, row_number() OVER () AS n FROM postalytics.statuses) AS s ON s.n = 1 + i % 11));
	SELECT postalytics.ingest('[{"mailId": 1}, 17]', 'agency');
	SELECT postalytics.ack('all', array_agg(delivery_id)) FROM postalytics.fetch('all', 50);
	SELECT postalytics.nack('all', array_agg(delivery_id), 'HTTP "503"') FROM postalytics.fetch('all', 50);
	SELECT count(*) FROM postalytics.fetch('all', 50);
	SELECT count(*) FROM postalytics.maintain();
	CREATE VIEW public.mine AS SELECT piece_id FROM postalytics.pieces WHERE status OPERATOR(postalytics.>>) 'Mailed';
});

sub rows
{
	my ($node, $dbname, $table) = @_;
	return $node->safe_psql($dbname, "SET timezone = 'UTC'; SELECT t::text FROM postalytics.$table AS t ORDER BY 1");
}

sub same_rows
{
	my ($node, $dbname, $title) = @_;
	is(rows($node, $dbname, $_), rows($old, 'postgres', $_), "$title: $_") for @tables;
	is($node->safe_psql($dbname, "SELECT last_value FROM postalytics.$_"),
		$old->safe_psql('postgres', "SELECT last_value FROM postalytics.$_"), "$title: $_")
	  for qw(event_id_seq reject_id_seq delivery_id_seq);
	is($node->safe_psql($dbname, 'SELECT count(*) FROM public.mine'),
		$old->safe_psql('postgres', 'SELECT count(*) FROM public.mine'), "$title: a user's view");
	is($node->safe_psql($dbname, "SELECT obj_description('postalytics.events'::regclass), count(*) FROM pg_inherits
		WHERE inhparent = 'postalytics.events'::regclass"),
		$old->safe_psql('postgres', "SELECT obj_description('postalytics.events'::regclass), count(*) FROM pg_inherits
		WHERE inhparent = 'postalytics.events'::regclass"), "$title: months");
}

# The restored server works as the old one does: without a break in its ids.
sub goes_on
{
	my ($node, $dbname, $title) = @_;
	is($node->safe_psql($dbname, q{
		SET postalytics_status.latest = '36500d';
		SELECT * FROM postalytics.ingest('[{"ref": 1, "eventDate": "2026-10-06T14:21:09Z", "eventType": 4},
			{"ref": "new", "eventDate": "2027-10-06T14:21:09Z", "eventType": 4}, {"ref": "x"}]')}),
		'2|0|1', "$title: ingest");
	is($node->safe_psql($dbname, q{SELECT count(*), count(DISTINCT event_id) FROM postalytics.events}),
		'5002|5002', "$title: ids go on");
	is($node->safe_psql($dbname, q{SELECT status FROM postalytics.pieces WHERE piece_id = 'new'}),
		'InTransit', "$title: pieces follow");
}

my $dump = PostgreSQL::Test::Utils::tempdir();
command_ok([ 'pg_dump', '-Fc', '-f', "$dump/custom", '-d', $old->connstr('postgres') ], 'pg_dump');
command_ok([ 'pg_dump', '-f', "$dump/plain", '-d', $old->connstr('postgres') ], 'pg_dump, plain');

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
$new->append_conf('postgresql.conf', "log_statement = 'all'");
$new->start;

# A restore notifies nobody.  Who listens for a notification of its own hears
# only that one.
$new->safe_psql('postgres', "CREATE DATABASE restored");
my ($in, $out) = (qq{LISTEN postalytics_all;\n\\echo ready\n}, '');
my $psql = IPC::Run::start([ 'psql', '-XAtq', '-d', $new->connstr('restored') ], '<', \$in, '>', \$out,
	IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
$psql->pump until $out =~ /ready/;
command_ok([ 'pg_restore', '--exit-on-error', '--single-transaction', '-d', $new->connstr('restored'), "$dump/custom" ],
	'pg_restore in a single transaction');
$new->safe_psql('restored', q{NOTIFY postalytics_all, 'own'});
$in .= "SELECT 'done';\n\\q\n";
$psql->finish;
my @heard = $out =~ /with payload "([^"]*)"/g;
is_deeply(\@heard, ['own'], 'nothing is told in a restore');
same_rows($new, 'restored', 'single transaction');

command_ok([ 'pg_restore', '--exit-on-error', '--clean', '--if-exists', '-d', $new->connstr('restored'), "$dump/custom" ],
	'pg_restore --clean over it');
same_rows($new, 'restored', 'clean');
goes_on($new, 'restored', 'clean');

$new->safe_psql('postgres', "CREATE DATABASE plain");
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dump/plain", '-d', $new->connstr('plain') ], 'a plain dump through psql');
same_rows($new, 'plain', 'plain');
goes_on($new, 'plain', 'plain');

$_->stop for $old, $new;
done_testing();
