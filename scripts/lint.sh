#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# lint.sh: what can be said about the sources without building them. 'make lint'
# also builds them inside a kernel tree with W=1 and sparse (test.sh, in-tree-m).
set -euo pipefail
. "$(dirname "$0")/common.sh"

tree=$("$TOP/scripts/fetch.sh" source)/src
cd "$TOP"
mapfile -t files < <(git -c safe.directory="$TOP" ls-files --cached --others --exclude-standard)
mapfile -t code < <(printf '%s\n' "${files[@]}" | grep -E '\.[ch]$')
mapfile -t kernel < <(printf '%s\n' "${code[@]}" | grep -E '^(drivers|include|compat)/')
mapfile -t scripts < <(grep -lE '^#!/bin/bash|shellcheck shell=' "${files[@]}" 2>/dev/null)
failed=0

check() { # NAME COMMAND...
	say "$1"
	shift
	"$@" || { failed=1; say "^^^ not clean"; }
}

check shellcheck shellcheck -x "${scripts[@]}"
check codespell codespell --skip LICENSE "${files[@]}"
check kernel-doc "$tree/scripts/kernel-doc" -none -Wall -Werror "${kernel[@]}"

# every test that the comparison names exists, and each row has one; KUnit's are
# named by suite and case
# shellcheck disable=SC2317  # check() calls it
named_tests() {
	local page=Documentation/driver-api/vfio-type1v3-comparison.rst test status=0

	while read -r test; do
		grep -qE "TEST_F[A-Z_]*\(${test/./, *}[,)]" \
			tools/testing/selftests/vfio/type1v3_*.c ||
			{ echo "there is no test $test"; status=1; }
	done < <(grep -oE '\b[a-z_]+\.[a-z_]+\b' "$page" | grep -vE '\.(c|h|sh|rst)$')
	while read -r test; do
		grep -qE "KUNIT_CASE[A-Z_]*\(${test}[,)]" drivers/vfio/tests/*_kunit.c ||
			{ echo "there is no KUnit case $test"; status=1; }
	done < <(awk '/KUnit: / { on = 1 } /^   \* / || !NF { on = 0 } on' "$page" |
			grep -oE '\b[a-z]+_[a-z_]+\b' | grep -vE '^vfio_')
	awk 'function end() {
		if (row != "" && test == "") {
			print "no test:" row
			bad = 1
		}
		row = ""
	     }
	     /^   \* - / { end(); row = $0; test = "" }
	     /^     -/ { test = $2 }
	     !NF { end() }
	     END { end(); exit bad }' "$page" || status=1
	return "$status"
}
check 'tests named in the comparison' named_tests

# every function that the documents name exists, here or in the kernel; a name that
# begins with '_' is the end of one
# shellcheck disable=SC2016,SC2317  # quotes of rst; check() calls it
named_functions() {
	local name status=0 functions

	functions=$(cat "${kernel[@]}" "$tree"/lib/xarray.c "$tree"/drivers/vfio/*.[ch] \
			"$tree"/include/linux/{iommu,mm,mman,syscalls,vfio,xarray}.h "$tree"/mm/gup.c |
			grep -oE '\b[a-z0-9_]+\(' | sort -u)
	while read -r name; do
		grep -qE "^${name/#_/.*_}\($" <<<"$functions" ||
			{ echo "there is no function $name"; status=1; }
	done < <(grep -ohE '``[a-z0-9_]+\(\)``' Documentation/driver-api/*.rst \
			Documentation/userspace-api/vfio-type1v3.rst | tr -d '`()' | sort -u)
	return "$status"
}
check 'functions named in the documents' named_functions

# what README.md says of the cost is what bench.sh holds the code against
# shellcheck disable=SC2317  # check() calls it
figures() {
	awk -F '|' '
		BEGIN {
			of["map / unmap one 4 KiB page, linear"] = "linear"
			of["the same, every page different"] = "different"
			of["one page in 64"] = "1-in-64"
			of["batches of 256 entries, linear"] = "linear-batch-256"
			of["batches of 256 entries, every page different"] = "different-batch-256"
			of["64 MiB in one ioctl, 4 KiB pages"] = "64M-small"
			of["64 MiB in one ioctl, THP"] = "64M-huge"
			of["one page, when 16 k are mapped"] = "filled-16k"
		}
		function compare(name, measure, n, base,	expected) {
			expected = reference[name "," measure] * base
			if (n > expected * 1.1 + 1 || n < expected * 0.9 - 1) {
				printf "README.md: %s, %s: %d, but the reference says %d\n",
				       name, measure, n, expected
				wrong = 1
			}
		}
		NR == FNR {
			split($0, field, ",")
			reference[field[1] "," field[2]] = field[3]
			next
		}
		{
			row = $2
			gsub(/^ +| +$/, "", row)
			if (!(row in of))
				next
			name = of[row]
			gsub(/,/, "", $3)
			gsub(/,/, "", $5)
			split($3, type1v2, "/")
			split($5, type1v3, "/")
			# a batch is compared with single pages
			if (sub(/-batch.*/, "", name))
				split(alone[name], type1v2, "/")
			else
				alone[name] = $3
			name = of[row]
			compare(name, "map", type1v3[1], type1v2[1])
			compare(name, "unmap", type1v3[2], type1v2[2])
			delete of[row]
		}
		END {
			for (name in of) {
				print "README.md has no row: " name
				wrong = 1
			}
			exit wrong
		}' tools/testing/vm/bench-reference.csv README.md
}
check 'figures of README.md' figures

# messages.awk passes a log with a warning that is announced, and none of the logs
# where that or the warning is otherwise
# shellcheck disable=SC2016  # sed's
# shellcheck disable=SC2317  # check() calls it
announcements() {
	local status=0 edit good='[1.0] vm-expect: not pinned
[1.1] ------------[ cut here ]------------
[1.1] vfio: a page that is not pinned
[1.1] WARNING: drivers/vfio/x.c:1 at x+0x1/0x2 [vfio], CPU#0: x/1
[1.1] Modules linked in: vfio
[1.2] vm-end: not pinned'

	judge() { BAD='WARNING:|Modules linked in' ALLOW='' awk -f tools/testing/vm/messages.awk 2>&1; }
	judge <<<"$good" || status=1
	for edit in '/not pinned$/s/that is not/that was/' '/cut here/,/linked/d' '/vm-end/d' \
		's/vm-expect: .*/vm-expect: /' 's/vm-expect: .*/vm-expect: a(b/' \
		's/vm-\(.*\): .*/vm-\1: WARNING: .*vfio/' '1d' '$d;s/^.1\.1/[9.1/;2i [1.0] vm-end: not pinned'; do
		! sed "$edit" <<<"$good" | judge >/dev/null ||
			{ echo "messages.awk does not mind: $edit"; status=1; }
	done
	return "$status"
}
check 'announcements of kernel messages' announcements

# What it must not judge: compat/ is there to ask for versions; what is compiled in
# user space has a fuzzer's names, and stands in for kernel headers.
# shellcheck disable=SC2317  # check() calls it
checkpatch() { # IGNORED FILES...
	local ignored=$1 status=0

	shift
	"$tree/scripts/checkpatch.pl" --no-tree --strict --quiet --terse --show-types \
		--no-summary --ignore "$ignored" --file "$@" || status=1
	rm -f .checkpatch-camelcase.*
	return "$status"
}
mapfile -t strict < <(printf '%s\n' "${code[@]}" | grep -E '^(drivers|include|tools/testing/selftests)/')
mapfile -t tests < <(printf '%s\n' "${code[@]}" | grep -vE '^(drivers|include|compat|tools/testing/selftests)/')
check 'checkpatch drivers include selftests' checkpatch FILE_PATH_CHANGES "${strict[@]}"
check 'checkpatch compat' checkpatch \
	LINUX_VERSION_CODE,CONSTANT_COMPARISON,MACRO_ARG_REUSE,MACRO_ARG_UNUSED \
	compat/compat.h compat/include/vfio.h
check 'checkpatch of other tools' checkpatch \
	CAMELCASE,NEW_TYPEDEFS,EXPORT_SYMBOL,MACRO_ARG_UNUSED,MACRO_ARG_REUSE,MACRO_ARG_PRECEDENCE,BIT_MACRO,MACRO_WITH_FLOW_CONTROL \
	"${tests[@]}"
exit $failed
