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
stages="build-lean build-newest in-tree-m in-tree-y lint patches userspace userspace-pages leaves mutants build-stock
	build-7.2 selftests-arm64-short check-ops docs selftests-stock-vtd selftests-stock-virtio tracers demo clients package kunit
	selftests-lean-vtd selftests-lean-virtio fuzz bench build-debug selftests-debug-short"
long_stages="patches-build clients-long clients-memlock clients-dpdk vmm-qemu vmm-qemu-guest kunit-debug failnth
	selftests-debug-vtd selftests-debug-virtio softlockup build-kcsan kcsan mutants-kunit races-mock soak-mock fuzz-pt
	check-types selftests-7.2 selftests-7.3 selftests-6.12-deb13 selftests-arm64
	selftests-arm64-16k selftests-amd packages-other vmm-dpdk
	kunit-arm64-64k upstream-selftests"
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
	for module in vfio_dma vfio_iommu_type1v3 vfio_emulated_test vfio_mock_iommu; do
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

# The modules against the headers of a kernel of Debian 13, in its own root
build_deb13() { # VERSION
	"$VM/kernel.sh" -m "deb13-$1"
	no_warnings "$CACHE/deb13-$1/build.log"
}

# The copy of VFIO's declaration is what the kernels have, whose builds look for
# themselves, and a build notices another one.
check_ops() {
	local release copy=$CACHE/check-ops kernel stock

	release=$(cat "$CACHE/stock/release")
	stock=$CACHE/stock-$release
	kernel=("$stock/usr/src/linux-headers-$release" "$stock/lib/modules/$release")
	"$TOP/compat/check-ops.sh" header "$(source_tree)"
	"$TOP/compat/check-ops.sh" module "$CACHE/stock/build/drivers/vfio/vfio_iommu_type1v3.ko" \
		"${kernel[0]}/vmlinux"
	"$TOP/compat/check-ops.sh" "${kernel[@]}"
	# once more with the kernel's types from its image
	types_only "$stock/boot/vmlinuz-$release" "${kernel[1]}" "$release"
	"$TOP/compat/check-ops.sh" "$copy/kdir" "$copy/modules"

	HOSTCC='clang -Wall' VMLINUX=${kernel[0]}/vmlinux \
		"$TOP/compat/check-ops.sh" "$copy/kdir" "$copy/modules"
	newer_types "${kernel[0]}/vmlinux" "${kernel[1]}"

	say "kernels and copies that are not to pass"
	fails 'cannot be compiled with' env HOSTCC=false "$TOP/compat/check-ops.sh" "${kernel[@]}"
	fails 'VMLINUX is /nowhere' env VMLINUX=/nowhere "$TOP/compat/check-ops.sh" "${kernel[@]}"
	cp -r "$TOP/compat" "$copy/compat"
	sed -i '/unregister_device/d' "$copy/compat/ops.btf"
	fails 'would crash it' "$copy/compat/check-ops.sh" "${kernel[@]}"
	fails 'ops.btf is not what' "$copy/compat/check-ops.sh" module \
		"$CACHE/stock/build/drivers/vfio/vfio_iommu_type1v3.ko" "${kernel[0]}/vmlinux"
	sed -i 's/int npage, int prot/int npage, long prot/' "$copy/compat/include/vfio.h"
	fails 'would crash it' "$copy/compat/check-ops.sh" header "$(source_tree)"
	rm "$copy/modules/vmlinuz"
	fails 'cannot compare .*UNCHECKED=1' "$TOP/compat/check-ops.sh" "$copy/kdir" "$copy/modules"
	UNCHECKED=1 "$TOP/compat/check-ops.sh" "$copy/kdir" "$copy/modules"
	fails 'no .*: are the kernel.s headers' "$TOP/compat/check-ops.sh" "$copy/nothing"
}

# As a kernel whose headers have no vmlinux, with its image beside its modules
types_only() { # IMAGE MODULES RELEASE
	rm -rf "$copy"
	mkdir -p "$copy"/{kdir/include/config,modules/kernel/drivers/vfio}
	echo "$3" >"$copy/kdir/include/config/kernel.release"
	cp "$2"/kernel/drivers/vfio/vfio.ko* "$copy/modules/kernel/drivers/vfio/"
	cp "$1" "$copy/modules/vmlinuz"
}

# BTF as newer kernels may have it: more members than 65535, and kinds that nobody
# knows, with the layout that says how long they are. Without that it is refused.
newer_types() { # VMLINUX MODULES
	local dir=$copy/newer

	mkdir "$dir"
	xz -dc "$2/kernel/drivers/vfio/vfio.ko.xz" >"$dir/vfio.ko" 2>/dev/null ||
		cp "$2/kernel/drivers/vfio/vfio.ko" "$dir/"
	objcopy -O binary --only-section=.BTF --set-section-flags .BTF=alloc "$dir/vfio.ko" "$dir/raw"
	python3 - "$dir" <<-'END'
		import struct, sys
		dir = sys.argv[1] + "/"
		raw = open(dir + "raw", "rb").read()
		_, _, _, size, type_off, type_len, str_off, str_len = struct.unpack_from("<HBB5I", raw)
		types = raw[size + type_off:][:type_len]
		strings = raw[size + str_off:][:str_len]
		many = struct.pack("<3I", 0, 6 << 24 | 70000, 4) + bytes(8 * 70000)
		strange = struct.pack("<3I", 0, 77 << 24 | 3, 0) + bytes(4 + 3 * 8)
		layout = bytes(4 * 77) + struct.pack("<BBH", 4, 8, 0)
		types += many + strange
		for name, layout in (("long", layout), ("short", b"")):
		    open(dir + name, "wb").write(
		        struct.pack("<HBB7I", 0xeb9f, 1, 0, 32, 0, len(types), len(types), len(strings),
		                    len(types) + len(strings), len(layout)) + types + strings + layout)
	END
	gcc -Wall -Wextra -Werror -g -fsanitize=address,undefined -fno-sanitize-recover=all \
		-o "$dir/btf" "$TOP/compat/btf.c"
	export ASAN_OPTIONS=detect_leaks=0
	"$dir/btf" -b "$1" "$dir/long" | diff - "$TOP/compat/ops.btf"
	fails 'a kind that this program does not know' "$dir/btf" -b "$1" "$dir/short"
	head -c 1000 "$dir/long" >"$dir/cut"
	fails 'no BTF that this program can read' "$dir/btf" -b "$1" "$dir/cut"
}

fails() { # MESSAGE COMMAND...
	local message=$1 output

	shift
	if output=$("$@" 2>&1); then die "this passed: $*"; fi
	tr '\n' ' ' <<<"$output" | grep -q "$message" || die "this did not say '$message': $*: $output"
}

# kernels that are in the range, but in no archive with headers
check_types() {
	local version dir release

	for version in 6.16 6.17 6.18; do
		dir=$("$TOP/scripts/fetch.sh" "types-$version")
		release=$(cat "$dir/kdir/include/config/kernel.release")
		"$TOP/compat/check-ops.sh" "$dir/kdir" "$dir/usr/lib/modules/$release"
		say "$release has what compat/include/vfio.h declares"
	done
}

# whoever runs the tests need not be known to git
patches() { # --check-text | --check-build
	GIT_AUTHOR_NAME=Tester GIT_AUTHOR_EMAIL=tester@example.org \
		"$TOP/scripts/patches.sh" "$1" "$(source_tree)" "$CACHE/patches"
}

leaves() { make -s -C "$TOP/tools/testing/vfio_dma_cut" KSRC="$(source_tree)" check; }

# the store with pages of 16 and of 64 KiB: its cases, under sanitizers
userspace_pages() {
	local shift

	for shift in 14 16; do
		echo "TAP version 13"
		make -s -C "$TOP/tools/testing/vfio_xa_dma" KSRC="$(source_tree)" PAGE_SHIFT=$shift \
			O="$CACHE/xa-pages-$shift" CHECKS=cases check
	done
}

userspace() { make -s -C "$TOP/tools/testing/vfio_xa_dma" KSRC="$(source_tree)" check; }

# do the tests notice mistakes?
mutants() { "$TOP/tools/testing/mutants/mutants.py" "$1"; }

kunit_modules=(vfio_xa_dma_kunit vfio_dma_core_kunit vfio_type1v3_kunit)
kunit() { # KERNEL
	local mib=2048

	# what the tests allocate are pages, some of them 1024 neighbours
	case $1 in *-64k) mib=8192 ;; esac
	"$VM/boot.sh" -k "$1" -m $mib -t 14400 "$VM/kunit.sh" "${kunit_modules[@]}"
}

# A million pages, on a kernel that preempts nobody and whose clock counts
# instructions: nothing may run for two seconds of it without letting others.
softlockup() {
	TYPE1V3_MANY=1048576 "$VM/selftests.sh" -p preempt=none -p watchdog_thresh=1 \
		-q "-icount shift=0,sleep=off" -t 14400 stock vtd type1v3_many_test
}

# what a guest does with its disk, in a QEMU that uses granules and batches
vmm_qemu_guest() {
	local qemu

	qemu=$("$TOP/scripts/qemu.sh")
	TYPE1V3_INNER_QEMU=$qemu/patched/qemu-system-x86_64 \
		"$VM/clients.sh" memory-static hotplug-viommu kill-viommu
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

# in full behind one IOMMU of the newest kernel
run_selftests() { # KERNEL
	local short=1

	[ "$1" != lean ] || short=
	TYPE1V3_SHORT=$short stage "selftests-$1-vtd" tap "$VM/selftests.sh" "$1" vtd
	TYPE1V3_SHORT=1 stage "selftests-$1-virtio" tap "$VM/selftests.sh" "$1" virtio
}

# Debian's kernels, what differs from one to the other: calls, DMA, superpages, pins, dirty bits
run_debian() { # STAGE KERNEL IOMMU
	stage "$1" tap "$VM/selftests.sh" "$2" "$3" type1v3_uapi_test type1v3_dma_test \
		type1v3_cut_test type1v3_batch_test type1v3_emulated_test type1v3_dirty_test
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
	stage userspace-pages tap userspace_pages
	stage leaves tap leaves
	stage mutants tap mutants userspace
	stage kunit kunit kunit lean
	run_selftests lean
	stage fuzz tap "$VM/selftests.sh" -c 2 lean vtd 'type1v3_fuzz --seconds 40' \
		'type1v3_fuzz --mock --seconds 20' 'type1v3_fuzz --mock --pt --seconds 20'
	stage bench check "$VM/bench.sh" --short
	stage mutants-kunit tap mutants kunit
	stage kunit-debug kunit kunit debug
	stage failnth tap "$VM/selftests.sh" debug vtd type1v3_failnth_test \
		'type1v3_on_mock three-dirty,close-dirty type1v3_failnth_test' \
		'type1v3_on_mock calls-of-sizes-dirty,below type1v3_failnth_test -v both'
	stage selftests-debug-short tap "$VM/selftests.sh" debug vtd type1v3_uapi_test \
		type1v3_batch_test type1v3_emulated_test 'type1v3_failnth_test -v both' \
		'type1v3_failnth_test -r failnth.nvme_pt.batch -r failnth.nvme_pt.cut' \
		'type1v3_on_mock close-dirty,calls type1v3_failnth_test -v nvme -t attach' \
		'type1v3_fuzz --mock --threads 1 --ops 500 --round 500'
	stage races-mock tap "$VM/selftests.sh" -c 2 lean vtd \
		'type1v3_on_mock three-dirty,close-dirty type1v3_race_test' \
		'type1v3_on_mock calls,below type1v3_race_test'
	stage soak-mock tap "$VM/selftests.sh" -c 2 lean vtd 'type1v3_fuzz --mock --soak --seconds 600'
	stage fuzz-pt tap "$VM/selftests.sh" -c 2 lean vtd 'type1v3_fuzz --pt --seconds 240' \
		'type1v3_fuzz --mock --pt --seconds 240' 'type1v3_fuzz --pt --soak --seconds 240' \
		'type1v3_fuzz --mock --pt --soak --seconds 240'
	stage build-kcsan check build_kcsan
	stage kcsan tap "$VM/kcsan.sh"
}

lane_stock() {
	stage build-stock check build_stock
	stage build-7.2 check build_deb13 7.2
	stage selftests-arm64-short tap "$VM/selftests.sh" arm64 smmuv3 type1v3_dma_test type1v3_batch_test
	stage check-ops check check_ops
	stage docs check "$TOP/scripts/docs.sh"
	run_selftests stock
	stage tracers tap "$VM/selftests.sh" stock vtd type1v3_tracers.sh
	stage demo check "$VM/demo.sh"
	stage package check "$VM/package.sh"
	stage clients tap "$VM/clients.sh"
	stage clients-long tap "$VM/clients.sh" hotplug-viommu kill-viommu reboot-static
	stage clients-memlock tap "$VM/clients.sh" memlock-vtd
	stage clients-dpdk tap "$VM/clients-dpdk.sh"
	stage vmm-qemu tap "$VM/vmm-qemu.sh"
	stage vmm-qemu-guest tap vmm_qemu_guest
	stage vmm-dpdk check "$TOP/scripts/dpdk.sh"
	stage softlockup tap softlockup
	stage check-types check check_types
	run_debian selftests-7.2 deb13-7.2 vtd
	run_debian selftests-7.3 deb13-7.3 vtd
	run_debian selftests-6.12-deb13 deb13-6.12 vtd
	run_debian selftests-arm64 arm64 smmuv3
	run_debian selftests-arm64-16k arm64-16k smmuv3
	stage kunit-arm64-64k kunit kunit arm64-64k
	stage upstream-selftests tap "$VM/upstream.sh"
	stage packages-other check "$TOP/scripts/packages.sh" "$CACHE/packages"
	# an AMD-Vi that translates devices' DMA came with QEMU 11
	TYPE1V3_QEMU=11.1 stage selftests-amd tap "$VM/selftests.sh" lean amd \
		type1v3_dma_test type1v3_cut_test type1v3_stream_test
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
