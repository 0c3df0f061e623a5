#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# kcsan.sh [TEST...]
#
# Runs the kselftests that have threads, or those named, on two CPUs of a kernel
# that looks for data races, and then one more: that this project has no part in
# any that were found. TYPE1V3_SECONDS is how long each test of races goes on.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"

VM=$TOP/tools/testing/vm
out=$CACHE/kcsan-out
tests=("$@")
[ $# != 0 ] || tests=(type1v3_race_test type1v3_stream_test
	type1v3_{uapi,limits,memlock,batch,emulated,dirty,vaddr,trace}_test
	type1v3_fault_test 'type1v3_cut_test -t small_pages_flag'
	'type1v3_fuzz --threads 3 --seconds 60' 'type1v3_fuzz --mock --threads 3 --seconds 60')

status=0
TYPE1V3_SECONDS=${TYPE1V3_SECONDS:-15} "$VM/selftests.sh" -c 2 -a KCSAN -o "$out" kcsan vtd "${tests[@]}" || status=$?
awk -f "$VM/kcsan.awk" "$out/console.log" || status=1
exit $status
