# A hot standby runs reports, and refuses ingest with the server's own error.  After its
# promotion it accepts events.  Logical replication copies events and pieces to a second
# server with the extension, where nothing is derived or delivered again.
use strict;
use warnings;
use DBI;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $event = sub { sprintf '{"mailId": "%s", "eventType": %d, "eventDate": "2026-%02d-06T00:00:00Z", "campaignId": "c", "firstName": "F"}', @_ };
my $ingest = sub { "SELECT * FROM postalytics.ingest('[" . join(',', @_) . "]')" };

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 'logical');
$primary->start;
$primary->safe_psql('postgres', q{CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d'); SELECT postalytics.create_sync('crm')});
$primary->safe_psql('postgres', $ingest->($event->('a', 11, 10), $event->('a', 4, 11), $event->('b', 11, 10)));
$primary->backup('copy');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;
$primary->safe_psql('postgres', $ingest->($event->('c', 7, 10)));
$primary->wait_for_catchup($standby);
my $report = q{SELECT p.piece_id, p.status, p.response, postalytics.reached_at(p, 'Mailed') IS NOT NULL,
		(SELECT postalytics.current_status(e.status, e.occurred_at) FROM postalytics.events AS e WHERE e.piece_id = p.piece_id)
	FROM postalytics.pieces AS p ORDER BY 1};
is($standby->safe_psql('postgres', $report), "a|InTransit||t|InTransit\nb|Mailed||t|Mailed\nc||pURLOpened|f|", 'a standby answers');
is($standby->safe_psql('postgres', q{SELECT name, waiting FROM postalytics.sync_health}), 'crm|4', 'and shows the state of syncs');
for (
	[ 'ingest', $ingest->($event->('d', 4, 10)) ],
	[ 'ingest into a new month', $ingest->($event->('d', 4, 12)) ],
	[ 'fetch', q{SELECT postalytics.fetch('crm')} ],
	[ 'maintain', q{SELECT postalytics.maintain()} ])
{
	my ($title, $query) = @$_;
	my ($status, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY sqlstate\n$query");
	like($err, qr/ERROR:  25006/, "$title is refused on a standby");
}

# A parallel query reads a role's bindings with its snapshot.  On a standby, a
# transaction can end without a change of the xmin of snapshots.
my $account_event = sub { "SELECT postalytics.ingest('" . $event->($_[0], 11, 10) . "', '$_[0]')" };
$primary->safe_psql('postgres', "CREATE ROLE reader LOGIN; SELECT postalytics.grant_read('reader', 'first'); " . join('; ', map { $account_event->($_) } qw(first second)));
my $binder = DBI->connect('dbi:Pg:' . $primary->connstr('postgres'), undef, undef, { RaiseError => 1, PrintError => 0 });
$binder->do("BEGIN; SELECT postalytics.revoke_read('reader'), postalytics.grant_read('reader', 'second')");
$primary->safe_psql('postgres', 'CREATE TABLE later (); CHECKPOINT');
$primary->wait_for_catchup($standby);
# PostgreSQL 16 renamed the setting.
my $force_parallel = q{SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')};
my $reader = DBI->connect('dbi:Pg:' . $standby->connstr('postgres'), 'reader', undef, { RaiseError => 1, PrintError => 0 });
$reader->do("SET $_") for 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0', 'min_parallel_table_scan_size = 0';
$reader->do($force_parallel);
my $whose = "SELECT string_agg(DISTINCT account, ',') FROM postalytics.pieces";
$reader->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
is($reader->selectrow_array($whose), 'first', 'a reader on a standby');
$binder->do('COMMIT');
$primary->wait_for_catchup($standby);
is($reader->selectrow_array($whose), 'first', 'reads the same account throughout a transaction');
$reader->do('COMMIT');
is($reader->selectrow_array($whose), 'second', 'and the newly granted one after it');
$_->disconnect for $binder, $reader;
$primary->safe_psql('postgres', "SELECT postalytics.revoke_read('reader')");
$primary->wait_for_catchup($standby);
$standby->promote;
is($standby->safe_psql('postgres', $ingest->($event->('d', 4, 12))), '1|0|0', 'after promotion it accepts events');
is($standby->safe_psql('postgres', q{SELECT count(*), count(DISTINCT event_id) FROM postalytics.events}), '7|7', 'its ids continue');
$standby->stop;

my $second = PostgreSQL::Test::Cluster->new('second');
$second->init;
$second->start;
$second->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status;
	SELECT postalytics.configure('latest', '36500d');
	SELECT postalytics.create_sync('echo');
	SELECT postalytics.ensure_partitions('2026-10-01 UTC', '2027-01-01 UTC')});
$primary->safe_psql('postgres', q{
	CREATE PUBLICATION crm FOR TABLE postalytics.events, postalytics.pieces, postalytics.campaigns WITH (publish_via_partition_root)});
my $source = $primary->connstr . ' dbname=postgres';
$second->safe_psql('postgres', "CREATE SUBSCRIPTION crm CONNECTION '$source' PUBLICATION crm");
$second->wait_for_subscription_sync($primary, 'crm');
$primary->safe_psql('postgres', $ingest->($event->('a', 5, 12), $event->('e', 11, 12)));
$primary->wait_for_catchup('crm');
for my $table (qw(events pieces campaigns))
{
	my $rows = "SET timezone = 'UTC'; SELECT t::text FROM postalytics.$table AS t ORDER BY 1";
	is($second->safe_psql('postgres', $rows), $primary->safe_psql('postgres', $rows), "replicated: $table");
}
is($second->safe_psql('postgres', 'SELECT count(*) FROM postalytics.deliveries'), '0', 'nothing is delivered again');

$_->stop for $second, $primary;
done_testing();
