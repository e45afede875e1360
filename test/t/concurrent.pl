# Many sessions at once, with batches that overlap in pieces, events and new
# months: no deadlock, no error, and each event counts once.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('concurrent');
$node->init;
$node->append_conf('postgresql.conf', "deadlock_timeout = '20ms'\npostalytics_status.latest = '36500d'\nlog_lock_waits = off");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status;
	SELECT postalytics.create_sync('all');
	CREATE TABLE result (inserted bigint, duplicates bigint, rejected bigint);
	CREATE FUNCTION batch(size int) RETURNS json LANGUAGE sql VOLATILE AS $$
		SELECT json_agg(json_build_object('mailId', floor(random() * 300), 'eventType', (ARRAY[0, 9, 10, 11, 4, 5, 6, 2, 3, 7, 8])[1 + floor(random() * 11)],
			'eventDate', to_char(timestamp '2026-01-15' + floor(random() * 24) * interval '1 month', 'YYYY-MM-DD'),
			'campaignId', floor(random() * 3), 'campaignName', 'c'))
		FROM generate_series(1, size)
	$$;
});
my $script = PostgreSQL::Test::Utils::tempdir() . '/batch.sql';
append_to_file($script, "INSERT INTO result SELECT i.* FROM batch(100) AS b, postalytics.ingest(b) AS i;\n");

command_ok([ 'pgbench', '-n', '-c', '16', '-j', '2', '-t', '60', '-M', 'prepared', '-f', $script,
	'-h', $node->host, '-p', $node->port, 'postgres' ], '16 sessions of 60 batches');
unlike(slurp_file($node->logfile), qr/ERROR|deadlock|PANIC|FATAL/, 'no error is logged');
is($node->safe_psql('postgres', 'SELECT sum(inserted + duplicates + rejected), sum(rejected) FROM result'),
	'96000|0', 'every event is accounted for');
is($node->safe_psql('postgres', 'SELECT count(*) = (SELECT sum(inserted) FROM result) FROM postalytics.events'),
	't', 'what was inserted is there');
is($node->safe_psql('postgres', q{
	SELECT count(*)
	FROM postalytics.pieces AS p
	FULL JOIN (SELECT piece_id, postalytics.current_status(status, occurred_at) AS status,
					  count(*) FILTER (WHERE status = 'pURLOpened') AS opens
			   FROM postalytics.events GROUP BY 1) AS e USING (piece_id)
	WHERE (p.status, p.opens) IS DISTINCT FROM (e.status, e.opens::int)}),
	'0', 'pieces are what their events make them');
is($node->safe_psql('postgres', 'SELECT count(*) FROM postalytics.campaigns'), '3', 'campaigns');

$node->stop;
done_testing();
