#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# lint.sh: everything that can be said about the sources without running them.
# Sparse and W=1 are part of the builds inside a kernel tree.
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

# every test that the comparison names exists; KUnit's are named by suite and case
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
	return "$status"
}
check 'tests named in the comparison' named_tests

# What it must not judge: compat/ is there to ask for versions; the user space of
# the tests has devices' registers, a fuzzer's names, and stands in for kernel
# headers.
# shellcheck disable=SC2317  # check() calls it
checkpatch() { # IGNORED FILES...
	local ignored=$1 status=0

	shift
	"$tree/scripts/checkpatch.pl" --no-tree --strict --quiet --terse --show-types \
		--no-summary --ignore "$ignored" --file "$@" || status=1
	rm -f .checkpatch-camelcase.*
	return "$status"
}
mapfile -t strict < <(printf '%s\n' "${code[@]}" | grep -E '^(drivers|include)/')
mapfile -t tests < <(printf '%s\n' "${code[@]}" | grep -E '^tools/')
check 'checkpatch drivers include' checkpatch FILE_PATH_CHANGES "${strict[@]}"
check 'checkpatch compat' checkpatch \
	LINUX_VERSION_CODE,CONSTANT_COMPARISON,MACRO_ARG_REUSE,MACRO_ARG_UNUSED \
	compat/compat.h compat/include/vfio.h
check 'checkpatch tools' checkpatch \
	VOLATILE,CAMELCASE,NEW_TYPEDEFS,EXPORT_SYMBOL,MACRO_ARG_REUSE,MACRO_ARG_UNUSED,BIT_MACRO \
	"${tests[@]}"
exit $failed
