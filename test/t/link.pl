# link_contacts beside the CRM's own transactions: ingest neither waits nor fails, no
# status is lost, and one event costs as little in an old session as in a new one.
use strict;
use warnings;
use DBI;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('link');
$node->init;
$node->append_conf('postgresql.conf', "deadlock_timeout = '20ms'\nautovacuum = off");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION postalytics_status; SELECT postalytics.configure('latest', '36500d');
	CREATE ROLE crm LOGIN; CREATE SCHEMA crm AUTHORIZATION crm;
	SELECT postalytics.grant_read('crm');
	SET ROLE crm;
	CREATE TABLE crm.contact (id integer PRIMARY KEY, email text, mail_status text, mail_status_at timestamptz);
	CREATE INDEX ON crm.contact (lower(email));
	RESET ROLE;
	SELECT postalytics.link_contacts('crm.contact', 'crm_id', email_column => 'email')});

sub connection
{
	my $dsn = 'dbi:Pg:host=' . $node->host . ';port=' . $node->port . ';dbname=postgres';
	return DBI->connect($dsn, getpwuid($<) . '', '', { RaiseError => 1, PrintError => 0 });
}

sub event
{
	my ($piece, $type, $day, $contact) = @_;
	return sprintf '{"mailId": "%s", "eventType": %d, "eventDate": "2026-10-%02d", "meta": {"fields": {"crm_id": "%s"}}}', $piece, $type, $day, $contact;
}

sub rows
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

# A session that has been open since there were no contacts.  Its plan must use the index
# when there are many, whether or not they were analyzed.
my $old = connection();
my $ingest = $old->prepare('SELECT inserted FROM postalytics.ingest(?)');
sub ingest
{
	$ingest->execute('[' . join(',', @_) . ']');
	return ($ingest->fetchrow_array)[0];
}
ingest(event("early$_", 4, 1, $_)) for 1 .. 8;
rows(q{INSERT INTO crm.contact (id, email) SELECT i, 'c' || i || '@x.example' FROM generate_series(1, 50000) AS i;
	SELECT count(*) FROM postalytics.ingest((SELECT json_agg(json_build_object('mailId', 'p' || i, 'eventType', 4, 'eventDate', '2026-10-02',
		'meta', json_build_object('fields', json_build_object('crm_id', i)))) FROM generate_series(1, 20000) AS i))});
is(rows(q{SELECT count(*) FROM crm.contact WHERE mail_status = 'In Transit'}), '20000', 'all contacts of a large call are written');
for my $state ('not analyzed', 'analyzed')
{
	for (['by id', event("x$state", 5, 3, 77)], ['by address', qq({"mailId": "y$state", "eventType": 5, "eventDate": "2026-10-03", "to": {"email": "C78\@x.example"}})])
	{
		my ($how, $event) = @$_;
		$old->begin_work;
		my $read = q{SELECT pg_stat_get_xact_tuples_returned('crm.contact'::regclass) + pg_stat_get_xact_tuples_returned('postalytics.pieces'::regclass)
			+ pg_stat_get_xact_tuples_fetched('crm.contact'::regclass)};
		is(ingest($event), 1, "an event $how, $state");
		cmp_ok($old->selectrow_array($read), '<', 50, 'reads few rows');
		$old->commit;
	}
	rows('ANALYZE');
}
is(rows(q{SELECT string_agg(mail_status, ',' ORDER BY id) FROM crm.contact WHERE id IN (77, 78)}), 'In Local Area,In Local Area', 'and is written');

# The CRM has locked a contact.  The others are written, and this one with the next call.
my $crm = connection();
$crm->do('SET ROLE crm');
$crm->begin_work;
$crm->do('UPDATE crm.contact SET email = NULL WHERE id = 1');
$old->do("SET lock_timeout = '1ms'");
is(ingest(event('a', 6, 4, 1), event('b', 6, 4, 2)), 2, 'ingest while a contact is locked');
is(rows(q{SELECT mail_status FROM crm.contact WHERE id = 2}), 'Processed for Delivery', 'writes the others');
is(rows(q{SELECT piece_id FROM postalytics.pending_links}), 'a', 'and that one is pending');
is(ingest(event('c', 6, 4, 3)), 1, 'another call');
is(rows(q{SELECT piece_id FROM postalytics.pending_links}), 'a', 'leaves it pending');
$crm->commit;
is(ingest(event('c', 5, 3, 3)), 1, 'a call after it is unlocked');
is(rows(q{SELECT mail_status FROM crm.contact WHERE id = 1}), 'Processed for Delivery', 'writes it');
is(rows(q{SELECT count(*) FROM postalytics.pending_links}), '0', 'and nothing is pending');

# The table is locked, or a trigger of the contacts waits for a lock.
$crm->begin_work;
$crm->do('LOCK TABLE crm.contact');
is(ingest(event('a', 3, 5, 1)), 1, 'ingest while all contacts are locked');
is(rows(q{SELECT piece_id FROM postalytics.pending_links}), 'a', 'the piece is pending');
$crm->commit;
$crm->do(q{CREATE TABLE crm.counter (n integer)});
$crm->do(q{INSERT INTO crm.counter VALUES (0)});
$crm->do(q{CREATE FUNCTION crm.count() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE counter SET n = n + 1; RETURN NEW; END'});
$crm->do(q{CREATE TRIGGER count BEFORE UPDATE ON crm.contact FOR EACH ROW EXECUTE FUNCTION crm.count()});
$crm->begin_work;
$crm->do('UPDATE crm.counter SET n = 1');
is(ingest(event('b', 3, 5, 2)), 1, 'ingest while a trigger waits');
is(rows(q{SELECT string_agg(piece_id, ',' ORDER BY piece_id) FROM postalytics.pending_links}), 'a,b', 'both pieces are pending');
$crm->commit;
like(slurp_file($node->logfile), qr/LOG:  could not write the status of pieces into relation "crm\.contact": could not obtain lock on relation "crm\.contact"/, 'the reason is logged');
is(rows(q{SELECT count(*) FROM postalytics.check_setup() WHERE name = 'contacts'}), '0', 'check_setup does not complain yet');
like(rows(q{UPDATE postalytics.pending_links SET since = since - interval '2 hours';
	SELECT finding FROM postalytics.check_setup() WHERE name = 'contacts'}),
	qr/^Pieces are pending for contacts crm\.contact: 2; the oldest since .*: error 55P03; see the server log\.$/, 'but after an hour');
rows('SELECT count(*) FROM postalytics.maintain()');
is(rows(q{SELECT count(*) FROM postalytics.pending_links}), '0', 'maintain() writes them');
is(rows(q{SELECT string_agg(mail_status, ',' ORDER BY id) FROM crm.contact WHERE id IN (1, 2)}), 'Returned To Sender,Returned To Sender', 'the contacts have their status');
$crm->do('DROP TRIGGER count ON crm.contact');

# In a transaction whose snapshot is older than a change of the contact.
$old->do('RESET lock_timeout');
$old->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
$old->do('SELECT 1 FROM crm.contact LIMIT 1');
$crm->do('UPDATE crm.contact SET email = NULL WHERE id = 4');
is(ingest(event('d', 6, 6, 4)), 1, 'ingest in REPEATABLE READ');
$old->do('COMMIT');
is(rows(q{SELECT piece_id FROM postalytics.pending_links}), 'd', 'the piece is pending');

# Nor does it fail because another transaction has written a pending piece meanwhile.
rows(q{UPDATE postalytics.pending_links SET failed_at = '-infinity'});
$old->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
$old->do('SELECT 1 FROM postalytics.pending_links LIMIT 1');
is(rows('SELECT postalytics.retry_links()'), '1', 'a pending piece is written');
is(ingest(event('d2', 6, 6, 8)), 1, 'ingest with an older snapshot');
$old->do('COMMIT');

# A piece that is tried again while it gets a new status is not forgotten.  The trigger
# makes retry_links() wait, with the contact locked, until the status is there.
$crm->do(q{CREATE FUNCTION crm.wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END'});
$crm->do(q{ALTER FUNCTION crm.wait() SET lock_timeout = 0});
$crm->do(q{CREATE TRIGGER wait BEFORE UPDATE ON crm.contact FOR EACH ROW EXECUTE FUNCTION crm.wait()});
ingest(event('r', 11, 8, 9));
$crm->do('ALTER TABLE crm.contact DISABLE TRIGGER wait');
$crm->do('UPDATE crm.contact SET mail_status = NULL, mail_status_at = NULL WHERE id = 9');
$crm->do('ALTER TABLE crm.contact ENABLE TRIGGER wait');
rows(q{INSERT INTO postalytics.pending_links (contacts, piece_id, account, failed_at) VALUES ('crm.contact', 'r', '', '-infinity')});
$crm->do('SELECT pg_advisory_lock(1)');
my $retry = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SELECT postalytics.retry_links()' ], '>', \my $retried);
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%retry_links%'});
is(ingest(event('r', 4, 9, 9)), 1, 'ingest while the piece is tried again');
is(rows(q{SELECT count(*) FROM postalytics.pending_links WHERE piece_id = 'r'}), '2', 'it is pending twice');
$crm->do('SELECT pg_advisory_unlock(1)');
$retry->finish;
rows('SELECT postalytics.retry_links()');
is(rows(q{SELECT mail_status FROM crm.contact WHERE id = 9}), 'In Transit', 'and its new status is written');
$crm->do('DROP TRIGGER wait ON crm.contact');

# A call that is canceled while a trigger sleeps leaves nothing behind.
$crm->do(q{CREATE FUNCTION crm.sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN NEW; END'});
$crm->do(q{CREATE TRIGGER sleep BEFORE UPDATE ON crm.contact FOR EACH ROW EXECUTE FUNCTION crm.sleep()});
$old->do("SET statement_timeout = '200ms'");
eval { ingest(event('e', 6, 6, 5)) };
is($old->state, '57014', 'ingest is canceled');
$old->do('RESET statement_timeout');
is(rows(q{SELECT count(*) FROM postalytics.pieces WHERE piece_id = 'e'}), '0', 'and stores nothing');
$crm->do('DROP TRIGGER sleep ON crm.contact');

# A constraint trigger that would run at commit, as the user who ingests, is refused.
$crm->do(q{CREATE FUNCTION crm.late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN EXECUTE 'CREATE TABLE crm.by_' || current_user || '()'; RETURN NULL; END$$});
$crm->do(q{CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON crm.contact DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION crm.late()});
is(ingest(event('f', 6, 7, 6)), 1, 'ingest with a deferred trigger');
is(rows(q{SELECT count(*) FROM pg_class WHERE relname LIKE 'by\_%'}), '0', 'which does not run');
is(rows(q{SELECT string_agg(piece_id, ',' ORDER BY piece_id) FROM postalytics.pending_links}), 'f', 'the piece is pending');
$crm->do('DROP TRIGGER late ON crm.contact');
is(ingest(event('g', 6, 7, 7)), 1, 'the next call');
is(rows(q{SELECT count(*) FROM postalytics.pending_links}), '1', 'does not try at once what has failed');
is(rows(q{UPDATE postalytics.pending_links SET failed_at = failed_at - interval '2 minutes'; SELECT postalytics.unlink_contacts('none')}), 'f', 'two minutes later');
is(ingest(event('g', 3, 8, 7)), 1, 'a call');
is(rows(q{SELECT count(*) FROM postalytics.pending_links}), '0', 'writes it');

# link_contacts waits for transactions that began to store events before it; later ones
# wait for link_contacts.
rows(q{SELECT postalytics.unlink_contacts('crm.contact')});
$old->begin_work;
is(ingest(event('h', 11, 8, 10)), 1, 'ingest without a link');
my $link = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', q{SELECT postalytics.link_contacts('crm.contact', 'crm_id', email_column => 'email')} ], '>', \my $linked);
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'relation' AND query LIKE '%link_contacts%' OR wait_event = 'PgSleep' AND query LIKE '%link_contacts%'});
$old->commit;
$link->finish;
is(rows(q{SELECT mail_status FROM crm.contact WHERE id = 10}), 'Mailed', 'link_contacts waits for it, and writes its status');

# Many sessions ingest for the same contacts in any order, and the CRM changes them, too.
my $folder = PostgreSQL::Test::Utils::tempdir();
append_to_file("$folder/ingest.sql", q{SELECT count(*) FROM postalytics.ingest((SELECT json_agg(json_build_object('mailId', 'm' || floor(random() * 500),
	'eventType', (ARRAY[11, 4, 5, 6])[1 + floor(random() * 4)], 'eventDate', timestamp '2026-11-01' + floor(random() * 20) * interval '1 day',
	'meta', json_build_object('fields', json_build_object('crm_id', 101 + floor(random() * 20))))) FROM generate_series(1, 20)));
});
append_to_file("$folder/crm.sql", q{BEGIN;
UPDATE crm.contact SET email = 'x' WHERE id = 101 + floor(random() * 20);
UPDATE crm.contact SET email = 'y' WHERE id = 121;
END;
});
command_ok([ 'pgbench', '-n', '-c', '6', '-j', '2', '-t', '50', '-f', "$folder/ingest.sql", '-f', "$folder/crm.sql",
	'-h', $node->host, '-p', $node->port, 'postgres' ], 'six sessions');
rows('SELECT count(*) FROM postalytics.maintain()');
is(rows(q{SELECT count(*) FROM postalytics.pending_links}), '0', 'nothing is pending in the end');
is(rows(q{SELECT count(*) FROM crm.contact AS c
	JOIN (SELECT DISTINCT ON (fields ->> 'crm_id') (fields ->> 'crm_id')::integer AS id, postalytics.label(status) AS status, status_at
		  FROM postalytics.pieces WHERE piece_id LIKE 'm%' ORDER BY fields ->> 'crm_id', status_at DESC) AS p USING (id)
	WHERE c.mail_status_at < p.status_at}), '0', 'no contact has an earlier status than its newest piece');
unlike(slurp_file($node->logfile), qr/deadlock|PANIC|TRAP|was terminated/, 'no deadlock');
is(rows(q{SELECT postalytics.link_contacts('crm.contact', 'crm_id', email_column => 'email') >= 0}), 't', 'they can be linked again');

undef $ingest;		# before the server is stopped, on which it would be deallocated
$old->disconnect;
$node->stop;
done_testing();
