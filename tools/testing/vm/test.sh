#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# test.sh [STAGE...]
#
# Runs the stages of $stages, or those named (patterns: '*' is all of them, the
# long ones included), and ends in one line
#   N passed, N failed, N skipped
# Two lanes run side by side, because a virtual machine keeps one core busy only.
# What a stage prints is kept in the cache and shown when it fails.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"

VM=$TOP/tools/testing/vm
logs=$CACHE/test-logs
results=$logs/results

# what "make test" runs, and what "make test-all" runs besides
stages="build-lean build-newest in-tree-m in-tree-y lint patches userspace leaves mutants build-stock
	check-ops docs selftests-stock-vtd selftests-stock-virtio tracers demo clients package kunit
	selftests-lean-vtd selftests-lean-virtio fuzz bench build-debug selftests-debug-short"
long_stages="patches-build clients-long clients-dpdk kunit-debug failnth selftests-debug-vtd
	selftests-debug-virtio softlockup build-kcsan kcsan mutants-kunit"
if [ $# != 0 ]; then only=("$@"); else read -ra only -d '' <<<"$stages" || true; fi

source_tree() { echo "$("$TOP/scripts/fetch.sh" source)/src"; }

# --- stages: what each one does -------------------------------------------

no_warnings() { # LOG [ABOUT]
	[ -s "$1" ] || die "there is no log $1 to look for warnings in"
	if grep -E "${2:-}.*(warning|error):" "$1"; then return 1; fi
}

build_stock() {
	"$VM/kernel.sh" stock
	no_warnings "$CACHE/stock/build.log"
}

build_lean() { "$VM/kernel.sh" lean; }

build_debug() { "$VM/kernel.sh" debug; }

# modules that are not instrumented have no data races
build_kcsan() {
	local module

	"$VM/kernel.sh" kcsan
	for module in vfio_dma vfio_iommu_type1v3 vfio_emulated_test; do
		nm "$(modinfo -b "$CACHE/kcsan" -k "$(cat "$CACHE/kcsan/release")" -n "$module")" |
			grep 'U __tsan_' || die "KCSAN does not see what $module does"
	done
}

# the modules outside the tree, but against the newest kernel
build_newest() {
	local tree build=$CACHE/build-newest

	tree=$(source_tree)
	"$TOP/scripts/snapshot.sh" "$build"
	make -C "$build" KDIR="${tree%/src}/build-lean" TYPE1V3_TESTS=1 W=1 modules 2>&1 | tee "$build/log"
	no_warnings "$build/log"
}

# in_tree m|y: W=1 and sparse say nothing about our files; with y it links, too
in_tree() {
	local tree build

	tree=$(source_tree)
	build=${tree%/src}/build-check-$1
	mkdir -p "$build"
	with_lock tree "$TOP/scripts/in-tree.sh" "$tree"
	kunit_config "$1" >"$build/fragment"
	make -s -C "$tree" O="$build" KCONFIG_ALLCONFIG="$build/fragment" allnoconfig
	grep -q "^CONFIG_VFIO_IOMMU_TYPE1V3=$1\$" "$build/.config" || die "$build is not configured"
	# a warning is given once only unless the objects go
	rm -rf "$build/drivers/vfio"
	# the distribution's sparse is too old for this keyword, and for this constant
	nice make -C "$build" -j2 W=1 C=2 \
		CHECK="sparse -D__typeof_unqual__=__typeof__ -D'__builtin_strlen(s)=(sizeof(s)-1)'" \
		drivers/vfio/ 2>&1 | tee "$build/log"
	grep -q 'CHECK  *drivers/vfio/vfio_xa_dma.c' "$build/log"
	no_warnings "$build/log" 'drivers/vfio/(vfio_dma|vfio_xa|[a-z_]*type1v3|tests/)'
	[ "$1" = m ] || nice make -C "$build" -j2 vmlinux
}

check_ops() {
	local release

	release=$(cat "$CACHE/stock/release")
	"$TOP/scripts/check-ops.sh" header "$(source_tree)"
	"$TOP/scripts/check-ops.sh" btf "$CACHE/stock-$release/usr/src/linux-headers-$release/vmlinux" \
		"$CACHE/stock/lib/modules/$release/kernel/drivers/vfio/vfio.ko.xz" \
		"$CACHE/stock/build/drivers/vfio/vfio_iommu_type1v3.ko"
}

# whoever runs the tests need not be known to git
patches() { # --check-text | --check-build
	GIT_AUTHOR_NAME=Tester GIT_AUTHOR_EMAIL=tester@example.org \
		"$TOP/scripts/patches.sh" "$1" "$(source_tree)" "$CACHE/patches"
}

leaves() { make -s -C "$TOP/tools/testing/vfio_dma_cut" KSRC="$(source_tree)" check; }

userspace() { make -s -C "$TOP/tools/testing/vfio_xa_dma" KSRC="$(source_tree)" check; }

# do the tests notice mistakes?
mutants() { "$TOP/tools/testing/mutants/mutants.py" "$1"; }

kunit_modules=(vfio_xa_dma_kunit vfio_dma_core_kunit vfio_type1v3_kunit)
kunit() { # KERNEL
	"$VM/boot.sh" -k "$1" -t 14400 "$VM/kunit.sh" "${kunit_modules[@]}"
}

# A million pages, on a kernel that preempts nobody and whose clock counts
# instructions: nothing may run for two seconds of it without letting others.
softlockup() {
	TYPE1V3_MANY=1048576 "$VM/selftests.sh" -p preempt=none -p watchdog_thresh=1 \
		-q "-icount shift=0,sleep=off" -t 14400 stock vtd type1v3_many_test
}

# --- running and counting -------------------------------------------------

# what a stage printed -> "passed failed skipped"
count_tap() { # NAME
	awk -v stage="$1" -v skips="$VM/expected-skips" -f "$VM/tap.awk" "$logs/$1.log" 2>"$logs/$1.count"
}

# The kernel's own parser judges what KUnit printed, one module after the other,
# because it reads no further than the end of the first. Each module must have
# been judged, and a skip must be one of expected-skips.
count_kunit() { # NAME
	local part module parts judged problems=0
	local log=$logs/$1

	: >"$log.count"
	parts=$(grep -c '^KTAP version' "$log.log") || true
	for ((part = 1; part <= parts; part++)); do
		awk -v part="$part" '/^KTAP version/ { n++ } n == part' "$log.log" >"$log.part"
		# its status is that of the tests; one that dies says nothing at the end
		python3 "$(source_tree)/tools/testing/kunit/kunit.py" parse "$log.part" 2>&1 || true
	done | sed 's/\x1b\[[0-9;]*m//g' >"$log.parsed"
	judged=$(grep -c 'Testing complete' "$log.parsed") || true
	if [ "$parts" != "$judged" ] || [ "$parts" -lt ${#kunit_modules[@]} ]; then
		echo "${#kunit_modules[@]} modules, $parts of them ran, kunit.py judged $judged" >>"$log.count"
		problems=$((problems + 1))
	fi
	for module in "${kunit_modules[@]}"; do
		grep -q "# module: $module\$" "$log.log" || {
			echo "$module did not run" >>"$log.count"
			problems=$((problems + 1))
		}
	done
	grep -E 'FAILED|CRASHED|ERROR|Traceback' "$log.parsed" >>"$log.count" || true
	awk -v stage="$1" -v problems="$problems" -v skips="$VM/expected-skips" '
		BEGIN {
			while ((getline line < skips) > 0)
				if (line !~ /^(#|$)/)
					may_skip[++nr] = "^" substr(line, 1, match(line, /[ \t]/) - 1) "$"
		}
		/\[SKIPPED\]/ {
			for (i = 1; i <= nr; i++)
				if ((stage "/" $NF) ~ may_skip[i])
					next
			print "unexpected skip: " $0 >"/dev/stderr"
			problems++
		}
		/Testing complete/ {
			for (i = 1; i < NF; i++)
				n[$i] += $(i + 1)
		}
		END {
			failed = n["failed:"] + n["crashed:"] + n["errors:"] + problems
			if (!n["passed:"])
				failed++
			print n["passed:"] + 0, failed, n["skipped:"] + 0
		}' "$log.parsed" 2>>"$log.count"
}

wanted() {
	local pattern

	for pattern in "${only[@]}"; do
		# shellcheck disable=SC2053  # a pattern
		[[ $1 != $pattern ]] || return 0
	done
	return 1
}

# stage NAME check|tap|kunit COMMAND...: the command may be a function of ours; it
# runs in a shell of its own, where an error ends it
stage() {
	local name=$1 kind=$2 status=0 start=$SECONDS passed failed skipped

	shift 2
	wanted "$name" || return 0
	say "$name: started"
	slowly "$logs/$name.log" "$VM/test.sh" --run "$@" || status=$?
	case $kind in
	check) passed=$((status == 0)) failed=$((status != 0)) skipped=0 ;;
	*) read -r passed failed skipped < <("count_$kind" "$name") || true ;;
	esac
	# who cannot count has failed, too
	[[ "$passed $failed $skipped" =~ ^[0-9]+\ [0-9]+\ [0-9]+$ ]] || passed=0 failed=1 skipped=0
	# it can fail without any of its tests doing so: a panic, a time-out
	[ "$status" = 0 ] || [ "$failed" != 0 ] || failed=1
	if [ "$failed" != 0 ]; then
		say "$name: FAILED, status $status; the end of $logs/$name.log:"
		{ cat "$logs/$name.count" 2>/dev/null || true
		  tail -n 40 "$logs/$name.log"; } | sed "s|^|$name: |" >&2
	fi
	say "$name: $passed passed, $failed failed, $skipped skipped ($((SECONDS - start)) s)"
	echo "$name $passed $failed $skipped" >>"$results"
	say "$(wc -l <"$results") of $nr_wanted stages are done after $((SECONDS / 60)) minutes"
}

run_selftests() { # KERNEL
	stage "selftests-$1-vtd" tap "$VM/selftests.sh" "$1" vtd
	stage "selftests-$1-virtio" tap "$VM/selftests.sh" "$1" virtio
}

lane_newest() {
	stage build-lean check build_lean
	stage build-newest check build_newest
	stage in-tree-m check in_tree m
	stage in-tree-y check in_tree y
	stage lint check "$TOP/scripts/lint.sh"
	stage patches check patches --check-text
	stage patches-build check patches --check-build
	stage userspace tap userspace
	stage leaves tap leaves
	stage mutants tap mutants userspace
	stage kunit kunit kunit lean
	run_selftests lean
	stage fuzz tap "$VM/selftests.sh" -c 2 lean vtd 'type1v3_fuzz --seconds 50'
	stage bench check "$VM/bench.sh" --short
	stage mutants-kunit tap mutants kunit
	stage kunit-debug kunit kunit debug
	stage failnth tap "$VM/selftests.sh" debug vtd type1v3_failnth_test
	stage selftests-debug-short tap "$VM/selftests.sh" debug vtd type1v3_uapi_test \
		type1v3_batch_test type1v3_emulated_test 'type1v3_failnth_test -v both'
	stage build-kcsan check build_kcsan
	stage kcsan tap "$VM/kcsan.sh"
}

lane_stock() {
	stage build-stock check build_stock
	stage check-ops check check_ops
	stage docs check "$TOP/scripts/docs.sh"
	run_selftests stock
	stage tracers tap "$VM/selftests.sh" stock vtd type1v3_tracers.sh
	stage demo check "$VM/demo.sh"
	stage package check "$VM/package.sh"
	stage clients tap "$VM/clients.sh"
	stage clients-long tap "$VM/clients.sh" hotplug-viommu kill-viommu reboot-static
	stage clients-dpdk tap "$VM/clients-dpdk.sh"
	stage softlockup tap softlockup
	stage build-debug check build_debug
	stage selftests-debug-vtd tap "$VM/selftests.sh" debug vtd
	# what depends on the IOMMU; not by the hundred thousand, each page a request
	stage selftests-debug-virtio tap "$VM/selftests.sh" debug virtio \
		'type1v3_dma_test -T many_mappings -V type1v3_huge_1g' \
		'type1v3_cut_test -V type1v3_huge_1g' \
		type1v3_batch_test type1v3_stream_test type1v3_race_test
}

main() {
	local name total

	for name in "${only[@]}"; do
		compgen -W "$stages $long_stages" >/dev/null -X "!$name" ||
			die "there is no stage $name: $stages $long_stages"
	done
	nr_wanted=0
	for name in $stages $long_stages; do
		! wanted "$name" || nr_wanted=$((nr_wanted + 1))
	done
	rm -rf "$logs"
	mkdir -p "$logs"
	: >"$results"
	# both lanes need it, and one download is enough
	source_tree >/dev/null
	lane_newest &
	lane_stock &
	# shellcheck disable=SC2064  # these jobs
	trap "kill $(jobs -p | tr '\n' ' ') 2>/dev/null; exit 130" INT TERM
	wait
	for name in $stages $long_stages; do
		! wanted "$name" || grep -q "^$name " "$results" || {
			say "$name: did not come to an end"
			echo "$name 0 1 0" >>"$results"
		}
	done
	echo
	awk '{ printf "%-24s %5d passed %3d failed %3d skipped\n", $1, $2, $3, $4 }' "$results"
	total=$(awk '{ p += $2; f += $3; s += $4 }
		     END { printf "%d passed, %d failed, %d skipped", p, f, s; exit !(p && !f) }' "$results") ||
		{ echo "$total"; return 1; }
	echo "$total"
}

if [ "${1:-}" = --run ]; then
	shift
	"$@"
else
	with_lock test main
fi
