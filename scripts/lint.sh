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
check codespell codespell -L crate,inout --skip 'LICENSE,*.patch' "${files[@]}"
check kernel-doc "$tree/scripts/kernel-doc" -none -Wall -Werror "${kernel[@]}"

# the kselftests that have a variant for the second record
# shellcheck disable=SC2317  # named_tests() calls it
tests_of_both() {
	local file

	for file in tools/testing/selftests/vfio/type1v3_*_test.c; do
		awk '
			/^ADD_(V3_)?(TYPES|KIND)\(/ { split($0, part, /[(,)]/); both[part[2]] }
			/^\tFIXTURE_VARIANT_ADD\(|^FIXTURE_VARIANT_ADD\(/ { split($0, part, /[(,]/); fixture = part[2] }
			/VFIO_TYPE1v3_PT_IOMMU/ { both[fixture] }
			/^TEST\(/ { split($0, part, /[()]/); name = part[2] }
			/VFIO_TYPE1v3_PT_IOMMU/ && name != "" { print name }
			/^}/ { name = "" }
			/^TEST_F/ { split($0, part, /[(,) ]+/); if (part[2] in both) print part[2] "." part[3] }
		' "$file"
	done
}

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
	# the column of the second record: one of the tests runs on it, or it refuses
	# what the row is about; KUnit tests what does not depend on the record
	awk '
		FNR == NR { on_both[$1]; next }
		function end(   i, n, test, some) {
			sub(/KUnit: .*/, "", tests)
			n = split(tests, test, /[, ]+/)
			for (i = 1; i <= n; i++)
				some = some || test[i] in on_both
			if (cell == 5 && cells[3] ~ /^(same|wider|other)$/ && tests ~ /[a-z]/ && !some) {
				print "no test of both records:" row
				bad = 1
			}
			cell = 0
			tests = ""
		}
		/^   \* - / { end(); row = $0; cell = 1 }
		/^     -/ { cells[++cell] = $2 }
		cell == 5 { sub(/^     - /, ""); tests = tests " " $0 }
		!NF { end() }
		END { end(); exit bad }' <(tests_of_both) "$page" || status=1
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

# A file may include what is below it only; those of a store or record with a private header
# are one.  tsort tells of a circle.
# shellcheck disable=SC2016,SC2317  # awk's; check() calls it
layers() {
	local circle

	circle=$(awk '
		function unit(name) {
			sub(/.*\//, "", name)
			sub(/\.[ch]$/, "", name)
			sub(/^vfio_pt_.*/, "vfio_pt", name)
			sub(/^vfio_xa_dma.*/, "vfio_xa_dma", name)
			return name
		}
		/^#include "vfio_/ {
			split($0, part, "\"")
			if (unit(FILENAME) != unit(part[2]))
				print unit(FILENAME), unit(part[2])
		}' drivers/vfio/vfio_*.[ch] | tsort 2>&1 >/dev/null)
	[ -z "$circle" ] || { echo "files include each other:"; echo "$circle"; return 1; }
}
check 'layers of the files' layers

# every figure of a document is what the CSV of the benchmark says
check 'figures of the documents' scripts/figures.py --check

# QEMU's copy of the interface is the interface
check "QEMU's header" scripts/qemu.sh --check

# whatever a program can use has its kernel-doc
# shellcheck disable=SC2016,SC2317  # awk's; check() calls it
documented() {
	awk '
		/^ \* (define |struct )?[A-Za-z0-9_]+(\(\))? - / {
			sub(/^ \* (define |struct )?/, "")
			sub(/[( ].*/, "")
			known[$0]
		}
		/^#define VFIO_/ {
			sub(/\(.*/, "", $2)
			if (!($2 in known)) {
				print FILENAME ": " $2 " has no kernel-doc"
				bad = 1
			}
		}
		END { exit bad }' include/uapi/linux/vfio_type1v3.h
}
check 'kernel-doc of the interface' documented

# Documentation/ABI is as the kernel's parser wants it, and has every name of debugfs
# shellcheck disable=SC2317  # check() calls it
abi() {
	local name status=0 wrong

	wrong=$("$tree/tools/docs/get_abi.py" --dir Documentation/ABI validate 2>&1)
	[ -z "$wrong" ] || { echo "$wrong"; status=1; }
	while read -r name; do
		grep -qE "(^		|, )$name(,| |\$)" Documentation/ABI/testing/debugfs-vfio-type1v3 ||
			{ echo "Documentation/ABI does not have $name"; status=1; }
	done < <(sed -nE '/op_names/,/^}/s/\[[A-Z_0-9]*\] *= "([a-z]*)",?/\n\1\n/gp
			s/.*seq_(printf|puts)\(m, "([a-z_]+) .*/\2/p' drivers/vfio/vfio_dma_debugfs.c |
			grep -xE '[a-z_]+' | sort -u)
	return "$status"
}
check 'ABI of debugfs' abi

# type1v3-top and its manual explain every column
# shellcheck disable=SC2016,SC2317  # sed's; check() calls it
columns() {
	local name status=0 explained

	explained=$(tools/vfio/type1v3-top --help)
	while read -r name; do
		grep -qE "^  .*\\b$name( |\$)" <<<"$explained" ||
			{ echo "type1v3-top --help does not explain $name"; status=1; }
		grep -qE "^\\.B (.* )?$name( |\$)" debian/type1v3-top.8 ||
			{ echo "the manual of type1v3-top does not explain $name"; status=1; }
	done < <(sed -n '/names = (/,/("ERR",)/p' tools/vfio/type1v3-top | grep -oE '"[A-Z1-9/s]+"' |
			tr -d '"' | grep -v '^\(MAPS\|UNMAPS\|PINS\)$')
	return "$status"
}
check 'columns of type1v3-top' columns

# shellcheck disable=SC2317  # check() calls it
guide_program() {
	local program

	program=$(mktemp "${TMPDIR:-/tmp}/XXXXXX.c")
	sh tools/testing/selftests/vfio/type1v3_samples.sh \
		Documentation/userspace-api/vfio-type1v3.rst >"$program" &&
		"$tree/scripts/checkpatch.pl" --no-tree --strict --quiet --terse --show-types \
			--no-summary --file "$program"
}
check 'checkpatch of the program in the guide' guide_program

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
# user space has a fuzzer's names, and stands in for kernel headers; a macro that is a list
# of definitions is not a statement.
# shellcheck disable=SC2317  # check() calls it
checkpatch() { # IGNORED FILES...
	local ignored=$1 status=0

	shift
	"$tree/scripts/checkpatch.pl" --no-tree --strict --quiet --terse --show-types \
		--no-summary --ignore "$ignored" --file "$@" || status=1
	rm -f .checkpatch-camelcase.*
	return "$status"
}
harness=tools/testing/selftests/vfio/type1v3_harness.h
mapfile -t strict < <(printf '%s\n' "${code[@]}" | grep -E '^(drivers|include|tools/testing/selftests)/' |
	grep -vF "$harness")
mapfile -t tests < <(printf '%s\n' "${code[@]}" | grep -vE '^(drivers|include|compat|tools/testing/selftests)/')
check 'checkpatch drivers include selftests' checkpatch FILE_PATH_CHANGES "${strict[@]}"
check 'checkpatch of the lists of variants' checkpatch \
	MULTISTATEMENT_MACRO_USE_DO_WHILE,MACRO_ARG_REUSE "$harness"
check 'checkpatch compat' checkpatch \
	LINUX_VERSION_CODE,CONSTANT_COMPARISON,MACRO_ARG_REUSE,MACRO_ARG_UNUSED \
	compat/compat.h compat/include/vfio.h compat/include/iommu-priv.h
check 'checkpatch of the program that reads BTF' checkpatch \
	PREFER_KERNEL_TYPES,PREFER_DEFINED_ATTRIBUTE_MACRO,EMBEDDED_FUNCTION_NAME,BIT_MACRO,CAMELCASE compat/btf.c
check 'checkpatch of other tools' checkpatch \
	CAMELCASE,NEW_TYPEDEFS,EXPORT_SYMBOL,MACRO_ARG_UNUSED,MACRO_ARG_REUSE,MACRO_ARG_PRECEDENCE,BIT_MACRO,MACRO_WITH_FLOW_CONTROL \
	"${tests[@]}"
exit $failed
