# Each directory of src/ depends only on those below it, and test/layers detects a
# violation.
use strict;
use warnings;
use File::Temp qw(tempdir);
use Test::More;

my $output = `test/layers`;
is($?, 0, 'no dependency points up') or diag $output;

# Run test/layers on a copy of src/ with one more file, and check what it prints.
sub planted
{
	my ($name, $file, $text, $expected) = @_;
	my $top = tempdir(CLEANUP => 1);
	system('cp', '-r', 'src', $top) == 0 or die "cannot copy src";
	open my $out, '>', "$top/src/$file" or die $!;
	print $out $text;
	close $out;
	if ($file =~ /\.c$/)
	{
		my $object = $file =~ s/\.c$/.o/r;
		system("cc -I$top/src -c -o $top/src/$object $top/src/$file") == 0 or die "cannot compile $file";
	}
	my $found = `test/layers $top`;
	is($? >> 8, 1, "$name fails");
	like($found, qr/^\Q$expected\E$/m, 'and is printed');
}

planted('a call to a directory above', 'base/planted.c',
	"extern void *find_sync(const char *name);\nvoid *planted(void) { return find_sync(\"x\"); }\n",
	'src/base/planted -> src/sync/sync: uses find_sync');
planted('a variable of a directory above', 'storage/planted.c',
	"extern char pieces_columns[];\nchar *planted(void) { return pieces_columns; }\n",
	'src/storage/planted -> src/journey/piece: uses pieces_columns');
planted('an include of a header above', 'feed/planted.c',
	"#if 0\n#include \"ingest/progress.h\"\n#endif\nint planted;\n",
	'src/feed/planted -> src/ingest/progress: includes ingest/progress.h');
planted('a statement about a table above', 'journey/planted.c',
	"const char *planted = \"SELECT FROM postalytics.syncs\";\n",
	'src/journey/planted -> src/sync/sync.sql: names syncs');
planted('SQL that names a function above', 'sync/planted.sql',
	"SELECT postalytics.maintain();\n",
	'src/sync/planted.sql -> src/operate/maintain.sql: names maintain');
planted('a circle within a directory', 'journey/planted.c',
	"extern void journey_add(void);\nvoid planted(void) { journey_add(); }\nvoid open_pieces(void) { }\n",
	'src/journey/journey -> src/journey/planted -> src/journey/journey: a circle');

done_testing();
