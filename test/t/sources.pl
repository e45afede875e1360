# META.json is complete, the other files that contain the version agree with it, and each
# source file has a copyright notice.
use strict;
use warnings;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = $ENV{TESTDIR};
my $meta = decode_json(slurp_file("$top/META.json"));
my $version = $meta->{version};
like($version, qr/^\d+\.\d+\.\d+$/, 'META.json has a version');
for my $extension (qw(postalytics_status postalytics_cluster))
{
	my $provided = $meta->{provides}{$extension};
	is($provided->{version}, $version, "$extension in META.json has it");
	ok(-f "$top/$provided->{$_}", "META.json: the $_ of $extension exists") for qw(file docfile);
	like(slurp_file("$top/$extension.control"), qr/^default_version = '\Q$version\E'$/m, "the control file of $extension has the version");
}
for my $member (qw(name abstract maintainer license))
{
	ok($meta->{$member}, "META.json has the $member");
}
is($meta->{'meta-spec'}{version}, '1.0.0', 'META.json names its specification');
like(slurp_file("$top/CHANGELOG.md"), qr/\A[^[]*(?:\[[^]]*\]\([^)]*\)[^[]*)*## \[\Q$version\E\] - (?:unreleased|\d{4}-\d\d-\d\d)$/m, 'CHANGELOG.md begins with it');
like(slurp_file("$top/debian/changelog"), qr/\Apostalytics-status \(\Q$version\E\) /, 'as does debian/changelog');
my ($major) = split /\./, $version;
like(slurp_file("$top/src/base/extension.h"), qr/^#define EXTENSION_INTERFACE $major$/m, 'the number of the interface is the major version');

for my $file (glob "$top/src/*.[ch] $top/src/*/*.[ch] $top/src/*/*.sql")
{
	like(slurp_file($file), qr{\A/\*\n(?: \*.*\n)* \* Copyright \(c\) \d{4}, the postalytics_status developers\n}, substr($file, length($top) + 1) . ' names the copyright');
}

done_testing();
