# Runs the commands of README.md and the pages in docs/ in order, as a reader would type
# them, and compares their results with those shown.
use strict;
use warnings;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = $ENV{TESTDIR};
my @blocks;
my @pages = ('README.md', map { "docs/$_.md" } qw(marketer sync feed faq operate));
for my $page (@pages)
{
	my $text = slurp_file("$top/$page");
	while ($text =~ /^```(\w+)\n(.*?)^```$/msg)
	{
		my ($kind, $block, $start) = ($1, $2, $-[0]);
		push @blocks, { kind => $kind, text => $block, line => "$page:" . (1 + substr($text, 0, $start) =~ tr/\n//) };
	}
}
cmp_ok(scalar(grep { $_->{kind} eq 'sql' } @blocks), '>', 15, 'there are commands to run');

my $node = PostgreSQL::Test::Cluster->new('readme');
$node->init;
$node->start;
$node->safe_psql('postgres', "CREATE DATABASE crm ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0");
$ENV{PGCLIENTENCODING} = 'UTF8';

# All SQL runs in one session.  A mark precedes the result of each block.
my $script = "\\set ON_ERROR_STOP 1\n\\pset footer off\nSET timezone = 'UTC';\n";
for my $block (grep { $_->{kind} eq 'sql' } @blocks)
{
	$script .= "\\echo <<$block->{line}>>\n$block->{text}";
}
my ($out, $err) = ('', '');
my $folder = PostgreSQL::Test::Utils::tempdir();
append_to_file("$folder/feed.jsonl", join('', map { tr/\n/ /r . "\n" } map { slurp_file("$top/test/samples/$_.json") } qw(webhook late-and-twice)));
IPC::Run::run([ 'psql', '-Xq', '-d', $node->connstr('crm') . ' options=-cclient_min_messages=warning' ],
	'<', \$script, '>', \$out, '2>', \$err, init => sub { chdir $folder });
is($err, '', 'no SQL command fails');
my %result = $out =~ /<<(\S+:\d+)>>\n(.*?)(?=<<\S+:\d+>>\n|\z)/gs;

# Remove what only psql's layout determines: trailing and repeated blanks, empty lines,
# and the lengths of rules.  Notifications are compared separately.
sub tidy
{
	my ($text) = @_;
	$text =~ s/^Asynchronous notification.*\n//mg;
	$text =~ s/[ \t]+$//mg;
	$text =~ s/\n+/\n/g;
	$text =~ s/-+/-/g;
	$text =~ s/ +/ /g;
	return $text;
}

for my $i (1 .. $#blocks)
{
	my ($before, $block) = @blocks[ $i - 1, $i ];
	if ($block->{kind} eq 'text')
	{
		is(tidy($result{ $before->{line} }), tidy($block->{text}), "$before->{line}: the result is as shown");
	}
	elsif ($block->{kind} eq 'json')
	{
		my ($payload) = $result{ $before->{line} } =~ /with payload "(.*)" received/;
		my ($heard, $shown) = map { decode_json($_) } $payload, $block->{text};
		is_deeply($heard, $shown, "$before->{line}: the payload is as shown");
	}
}

# No other page has commands, except the one of scale.pl.
for my $page (glob("$top/docs/*.md $top/DEVELOPERS.md"))
{
	my $name = substr($page, length($top) + 1);
	next if grep { $_ eq $name } @pages, 'docs/scale.md';
	unlike(slurp_file($page), qr/^```(sql|sh|python|ini)$/m, "$name has no commands that are not run");
}

# The workers in Python deliver events that arrive while they listen.  That of README.md
# prints deliveries until it is killed; that of docs/sync.md, which is the one in
# examples/, passes them to a command and exits on SIGTERM.
my $example = slurp_file('examples/worker/worker.py');
is(scalar(grep { $_->{kind} eq 'python' && $_->{text} eq $example } @blocks), 1, 'docs/sync.md has the worker in examples/');
for my $block (grep { $_->{kind} eq 'python' } @blocks)
{
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'crm');
	my ($delivered, $id) = (PostgreSQL::Test::Utils::tempdir() . '/delivered', 0);
	my @arguments = $block->{text} eq $example ? ('crm_activity', 'sh', '-c', "cat >>$delivered") : ();
	append_to_file($delivered, '');
	my $worker = IPC::Run::start([ '/usr/bin/python3', '-c', $block->{text}, @arguments ], '>>', $delivered,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	until (slurp_file($delivered) =~ /\Q$block->{line}\E #\d/)
	{
		$id++;
		$node->safe_psql('crm', qq{SELECT postalytics.ingest('{"mailId": "$block->{line} #$id", "eventDate": "2026-10-06", "eventType": 4}', 'first client')});
		$worker->pump_nb;
		select(undef, undef, undef, 0.1);
	}
	pass("$block->{line}: the worker delivers");
	$worker->signal('TERM');
	$worker->finish;
	is($worker->full_result(0), @arguments ? 0 : 15, "$block->{line}: and exits");
}

# Shell commands run in the extension's source directory.  The test replaces sudo and
# the installation directory.
my %environment = (PGHOST => $node->host, PGPORT => $node->port, DESTDIR => PostgreSQL::Test::Utils::tempdir(),
	with_llvm => 'no');
for my $block (grep { $_->{kind} eq 'sh' } @blocks)
{
	local %ENV = (%ENV, %environment);
	delete local $ENV{MAKEFLAGS};
	my $output = '';
	my $ran = IPC::Run::run([ 'bash', '-ec', "sudo() { \"\$@\"; }\ncd '$top'\n$block->{text}" ], '>', \$output, '2>&1');
	ok($ran, "$block->{line}: the shell commands succeed") or diag($output);
}
is($node->safe_psql('crm_restored', 'SELECT count(*) FROM postalytics.events'),
	$node->safe_psql('crm', 'SELECT count(*) FROM postalytics.events'), 'the dumped events are restored');

# test/packages and test/containers run the blocks marked bash.  Blocks marked psql need something that the pages do not create: here a detached month.
# test/slow/cron.pl runs the one for pg_cron.  The last one uninstalls the extension.
$node->safe_psql('crm_restored', "SELECT postalytics.ensure_partitions('2024-10-01 UTC', '2024-11-01 UTC')");
$node->safe_psql('crm_restored', 'ALTER TABLE postalytics.events DETACH PARTITION postalytics.events_2024_10');
for my $block (grep { $_->{kind} eq 'psql' && $_->{text} !~ /pg_cron/ } @blocks)
{
	my ($status, $out, $error) = $node->psql('crm_restored', "SET search_path = public, postalytics; SET client_min_messages = warning; $block->{text}");
	is("$status $error", '0 ', "$block->{line}: the commands succeed");
}
is($node->safe_psql('crm_restored', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'postalytics'}), 0, 'and nothing of the extension is left');
is(join(' ', map { $_->{kind} } grep { $_->{kind} !~ /^(sql|text|json|sh|bash|python|ini|psql)$/ } @blocks), 'console',
	'only the command that needs a key of the API is not run; the test of examples/backfill runs it');

# The settings shown are accepted by the server, and start the worker.
$node->append_conf('postgresql.conf', $_->{text}) for grep { $_->{kind} eq 'ini' } @blocks;
$node->restart;
ok($node->poll_query_until('crm', 'SELECT running FROM postalytics.worker_status()'), 'with the settings shown a worker runs');

$node->stop;
done_testing();
