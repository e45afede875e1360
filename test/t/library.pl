# The files of a new version are installed while sessions ingest events and process
# deliveries: with and without the library in shared_preload_libraries, there is no error
# before ALTER EXTENSION, and none after it.  A library that is too old for an update
# script, or has another interface, is refused with a clear error.
use strict;
use warnings;
use File::Copy;
use File::Find;
use File::Path;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tmp = PostgreSQL::Test::Utils::tempdir();
my $pg_config = $ENV{PG_CONFIG};
chomp(my ($libdir, $sharedir) = (`$pg_config --pkglibdir`, `$pg_config --sharedir`));

# Each server of this test has files of its own, which not every server can be told.
my $config = $ENV{TEMP_CONFIG} ? slurp_file($ENV{TEMP_CONFIG}) : '';
my ($parameter, $below, $also) = $config =~ /^extension_control_path/m ? ('extension_control_path', $sharedir, ':$system') :
  $config =~ /^extension_destdir/m ? ('extension_destdir', '', '') :
  plan skip_all => 'this server has neither extension_control_path nor extension_destdir';

# Build the next version, with the object files of this one.
system('bash', '-ec', q{mkdir "$2"; cd "$1"; cp -pr Makefile META.json CHANGELOG.md *.control debian src "$2"
	[ ! -d releases ] || cp -pr releases "$2"; mkdir "$2/test"; cp test/release test/next_version "$2/test"
	cd "$2"; unset MAKELEVEL MAKEFLAGS; test/next_version; make -s PG_CONFIG="$3" with_llvm=no COPT=-Werror DESTDIR="$2/stage" all install >make.log 2>&1 || { cat make.log; exit 1; }},
	'build', $ENV{TESTDIR}, "$tmp/next", $pg_config) == 0
  or die 'cannot build the next version';
my $current = current_version("$ENV{TESTDIR}/META.json");
my $next = current_version("$tmp/next/META.json");
note "from $current to $next";

sub current_version { return slurp_file($_[0]) =~ /^   "version": "(.*?)"/m ? $1 : die "no version in $_[0]" }

# Put the files of a stage where a server finds them, one by one, each with a rename, as
# a package manager does.
sub put_files
{
	my ($from, $to) = @_;
	find(sub {
		return if !-f;
		my $file = "$to/" . substr($File::Find::name, length $from);
		mkpath($file =~ s{/[^/]*$}{}r);
		copy($_, "$file.new") or die "cannot copy to $file: $!";
		rename("$file.new", $file) or die "cannot rename $file: $!";
	}, $from);
}

sub new_server
{
	my ($name, @conf) = @_;
	put_files("$ENV{TESTDIR}/stage", "$tmp/$name");
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init;
	$node->append_conf('postgresql.conf', join '', map { "$_\n" } "dynamic_library_path = '$tmp/$name$libdir:\$libdir'", "$parameter = '$tmp/$name$below$also'", @conf);
	$node->start;
	$node->safe_psql('postgres', q{CREATE EXTENSION postalytics_status; SELECT postalytics.create_sync('crm')});
	return $node;
}

# Sessions that ingest, and one that processes deliveries, until stop is called.
my %statements = (
	ingest => q{SELECT postalytics.ingest(format('[{"mailId": "%1$s", "eventType": 4, "eventDate": "%2$s"}, {"mailId": "%1$s", "eventType": 3, "eventDate": "%2$s"}]',
		random(), now())::json) \g /dev/null},
	inbox => q{INSERT INTO postalytics.inbox (payload) VALUES (json_build_object('mailId', random(), 'eventType', 4, 'eventDate', now()));},
	work => q{SELECT COALESCE(array_agg(delivery_id), '{}') AS ids FROM postalytics.fetch('crm', 10) \gset
		SELECT postalytics.ack('crm', :'ids') \g /dev/null},
	report => q{SELECT FROM postalytics.campaign_funnel \g /dev/null});
sub start_sessions
{
	my ($node, $name) = @_;
	return map {
		my %session = (name => "$name, $_", stop => "$tmp/stop_$name", err => '');
		unlink $session{stop};
		$session{run} = IPC::Run::start([ 'bash', '-c', 'while [ ! -e "$1" ]; do echo "$2" || exit; sleep 0.01; done', 'loop', $session{stop}, $statements{$_} ],
			'|', [ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') ], '2>', \$session{err});
		\%session;
	} sort keys %statements;
}
sub stop_sessions
{
	for my $session (@_)
	{
		append_to_file($session->{stop}, '');
		$session->{run}->finish;
		is($session->{err}, '', "$session->{name}: no error");
	}
}

# Wait until events have been stored, and deliveries processed, since now.
sub goes_on
{
	my ($node, $title) = @_;
	my ($events, $done) = map { "(SELECT count(*) FROM postalytics.$_)" } 'events', q{deliveries WHERE state = 'done'};
	my $before = $node->safe_psql('postgres', "SELECT $events, $done");
	my @wanted = map { $_ + 5 } split /\|/, $before;
	ok($node->poll_query_until('postgres', "SELECT $events >= $wanted[0] AND $done >= $wanted[1]"), $title);
}
sub finding { return $_[0]->safe_psql('postgres', q{SELECT severity, finding, remedy FROM postalytics.check_setup() WHERE name = 'version'}) }
sub extension_version { return $_[0]->safe_psql('postgres', q{SELECT extversion FROM pg_extension WHERE extname = 'postalytics_status'}) }
my $update = 'ALTER EXTENSION postalytics_status UPDATE';
my $too_old = qr/ERROR:  library version \Q$current\E is too old for version \Q$next\E of extension "postalytics_status"\nHINT:  If the library is in shared_preload_libraries, restart the server; otherwise reconnect\./;

# Without preloading, old sessions keep the old library, and new sessions load the new one.
my $plain = new_server('plain');
my @old = start_sessions($plain, 'old');
my $in = "LOAD 'postalytics_status';\n";
my ($out, $err) = ('', '');
my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $plain->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \$err);
sub ask
{
	my ($sql) = @_;
	($out, $err) = ('', '');
	$in .= "$sql;\n\\echo done\n\\warn done\n";
	$session->pump until $out =~ /done\n/ && $err =~ /done\n/;
	return ($out . $err) =~ s/done\n//gr;
}
ask('SELECT 1');
goes_on($plain, 'sessions work before the files are replaced');
put_files("$tmp/next/stage", "$tmp/plain");
my @new = start_sessions($plain, 'new');
goes_on($plain, 'and afterwards');
is(ask('SELECT postalytics.library_version()'), "$current\n", 'an old session keeps its library');
is(finding($plain), "notice|The library has version $next, and the extension has version $current.|$update;", 'check_setup in a new session');
like(ask($update), $too_old, 'an old session cannot update the extension');
is(extension_version($plain), $current, 'and has changed nothing');
$plain->safe_psql('postgres', $update);
is($plain->safe_psql('postgres', 'SELECT postalytics.made_up(), max(made_up) FROM postalytics.pieces'), '17|', 'a new session can');
goes_on($plain, 'both libraries work with the new version');
is(finding($plain), '', 'check_setup in a new session reports nothing');
like(ask(q{SELECT severity, finding, remedy FROM postalytics.check_setup() WHERE name = 'version'}),
	qr/^warning\|The library has version \Q$current\E, and the extension has version \Q$next\E\.\|Reconnect\./, 'and in an old one says reconnect');
stop_sessions(@old, @new);

# The old library in a session, and an extension for another interface.
$plain->safe_psql('postgres', q{UPDATE pg_proc SET prosrc = 'postalytics_interface_999' WHERE oid = 'postalytics.interface'::regproc});
for my $call ("SELECT postalytics.ingest('[]')", q{SELECT postalytics.fetch('crm')}, "INSERT INTO postalytics.inbox (payload) VALUES ('{}')", "SELECT postalytics.setting('latest')")
{
	my ($status, $output, $error) = $plain->psql('postgres', $call);
	like($error, qr/ERROR:  library version \Q$next\E does not support interface 999 of extension "postalytics_status"\nDETAIL:  It supports only interface \d+\.\nHINT:  If the library/, "$call: another interface");
}
$plain->safe_psql('postgres', 'CREATE EXTENSION pgcrypto; DROP EXTENSION pgcrypto') if -f "$sharedir/extension/pgcrypto.control";
$plain->safe_psql('postgres', 'CREATE ROLE somebody; DROP OWNED BY somebody; DROP EXTENSION postalytics_status CASCADE');
pass('the extension, and others, can be dropped');
$in .= "\\q\n";
$session->finish;
$plain->stop;

# With preloading, all sessions keep the old library until the server is restarted.
my $preloaded = new_server('preloaded', "shared_preload_libraries = 'postalytics_status'", 'postalytics_status.notify_interval = 10');
my $worker = q{SELECT running AND notifications > %s FROM postalytics.worker_status()};
@old = start_sessions($preloaded, 'preloaded');
goes_on($preloaded, 'preloaded: before the files are replaced');
put_files("$tmp/next/stage", "$tmp/preloaded");
goes_on($preloaded, 'preloaded: and afterwards');
is(finding($preloaded), '', 'preloaded: versions agree until the restart');
my ($status, $output, $error) = $preloaded->psql('postgres', $update);
like($error, $too_old, 'preloaded: the extension cannot be updated before the restart');
is(extension_version($preloaded), $current, 'preloaded: and nothing has changed');
($status, $output, $error) = $preloaded->psql('template1', 'CREATE EXTENSION postalytics_status');
like($error, $too_old, 'preloaded: nor can the new version be installed');
stop_sessions(@old);
$preloaded->restart;
ok($preloaded->poll_query_until('postgres', sprintf $worker, -1), 'preloaded: the new worker runs with the old version');
@new = start_sessions($preloaded, 'restarted');
goes_on($preloaded, 'preloaded: as do sessions');
is(finding($preloaded), "notice|The library has version $next, and the extension has version $current.|$update;", 'preloaded: check_setup');
my $pid = $preloaded->safe_psql('postgres', 'SELECT pid FROM postalytics.worker_status()');
$preloaded->safe_psql('postgres', $update);
goes_on($preloaded, 'preloaded: sessions continue after the update');
my $notified = $preloaded->safe_psql('postgres', 'SELECT notifications FROM postalytics.worker_status()');
ok($preloaded->poll_query_until('postgres', sprintf $worker, $notified), 'preloaded: as does the worker');
is($preloaded->safe_psql('postgres', 'SELECT pid FROM postalytics.worker_status()'), $pid, 'preloaded: which is the same process');
is(finding($preloaded), '', 'preloaded: check_setup reports nothing');
stop_sessions(@new);
$preloaded->stop;
my @errors = grep { /(ERROR|FATAL|PANIC):/ && !/\Q$current\E is too old for version|due to administrator command/ } split /\n/, slurp_file($preloaded->logfile);
is("@errors", '', 'preloaded: no other error in the server log');

done_testing();
