#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# vmm-qemu-outer.sh QEMU-DIR PCI-ADDRESS RAM MEM CONVERT QEMU/BACKEND...
#
# The measurements of vmm-qemu.sh, inside the VM. The qtest calls this script again at the
# begin and at the end of each phase, as
#   vmm-qemu-outer.sh --hook FILE CONFIG TEST PHASE begin|end PID
# which remembers or prints
#   result CONFIG TEST PHASE NAME VALUE
# where NAME is map, unmap or batch (ioctls), map-ns and so on (their time, in instructions
# of the one processor), slab and iopt (bytes of metadata and of IO page tables, more than
# at the begin of the test), and locked (KiB, in all); of a phase that unmaps also back, how
# often the IOMMU driver was asked to map, which is what takes part in no unmap but one that
# has taken away more than it was asked for. The test itself says how long a
# phase took, in thousands of instructions: us.
set -euo pipefail

tracing=/sys/kernel/tracing
events=$tracing/events
hist=$events/synthetic/vfio_call/hist
declare -A number=([map]=$((0x3b71)) [unmap]=$((0x3b72)) [batch]=$((0x3b96)))
iommu_map=$events/iommu/map
caches='^(kmalloc|radix_tree_node|vfio)'

# sets $slab and $iopt; "shrink" empties the allocator's caches per processor
weigh() {
	local cache

	sleep 0.2
	for cache in /sys/kernel/slab/{kmalloc-*,radix_tree_node}; do echo 1 >"$cache/shrink"; done
	slab=$(awk -v caches="$caches" \
		'$1 ~ caches { n += $2 * $6 * 4096 / $5 } END { printf "%d", n }' /proc/slabinfo)
	iopt=$(awk '$1 == "nr_iommu_pages" { print $2 * 4096 }' /proc/vmstat)
}

# NAME VALUE of everything that is counted
counters() {
	awk -v map="${number[map]}" -v unmap="${number[unmap]}" -v batch="${number[batch]}" '
		BEGIN { name[map] = "map"; name[unmap] = "unmap"; name[batch] = "batch" }
		match($0, /cmd: *[0-9]+/) {
			cmd = substr($0, RSTART + 4, RLENGTH - 4) + 0
			match($0, /hitcount: *[0-9]+/)
			n[cmd] = substr($0, RSTART + 9, RLENGTH - 9) + 0
			match($0, /lat: *[0-9]+/)
			t[cmd] = substr($0, RSTART + 4, RLENGTH - 4)
		}
		END {
			for (cmd in name) {
				print name[cmd], n[cmd] + 0
				print name[cmd] "-ns", t[cmd] + 0
			}
		}' $hist
}

hook() { # FILE CONFIG TEST PHASE WHEN PID
	local file=$1 config=$2 test=$3 phase=$4 name value locked

	if [ "$5" = begin ]; then
		[[ $phase != unplug* ]] || echo hist:keys=size >$iommu_map/trigger
		if [ "$phase" = start ]; then
			weigh
			echo "$slab $iopt" >"$file.base"
		fi
		counters >"$file.counters"
		return
	fi
	counters | sort >"$file.now"
	while read -r name value; do
		echo "result $config $test $phase $name $value"
	done < <(sort "$file.counters" | join - "$file.now" | awk '{ print $1, $3 - $2 }') >>"$file"
	if [[ $phase == unplug* ]]; then
		echo "result $config $test $phase back $(awk '/Hits:/ { print $2 }' $iommu_map/hist)" >>"$file"
		echo '!hist:keys=size' >$iommu_map/trigger
	fi
	weigh
	read -r name value <"$file.base"
	locked=$(awk '$1 == "VmLck:" { print $2 }' "/proc/$6/status")
	{
		echo "result $config $test $phase slab $((slab - name))"
		echo "result $config $test $phase iopt $((iopt - value))"
		echo "result $config $test $phase locked $locked"
	} >>"$file"
}

if [ "${1:-}" = --hook ]; then
	shift
	hook "$@"
	exit
fi

. "$(dirname "$0")/nested.sh"
from=$1 address=$2 ram=$3 mem=$4 convert=$5
shift 5
fn=$(mktemp -d)

# Both QEMUs, the test and what they need, into memory: files of the host are slow.
copy() { # QEMU-DIR
	local root=$1/../../.. new=/run/vmm lib=usr/lib/x86_64-linux-gnu program file

	dir=$new/src/qemu/out
	mkdir -p $new/{lib64,usr/share/qemu,usr/share/seabios,$lib} "$new/src/qemu"
	cp -r "$1" $dir
	cp -L "$root/lib64/ld-linux-x86-64.so.2" $new/lib64/
	cp -L "$root/usr/share/seabios/bios-256k.bin" $new/usr/share/seabios/
	cp -L "$root/usr/share/qemu/kvmvapic.bin" $new/usr/share/qemu/
	for program in unpatched/qemu patched/qemu patched/test; do
		"$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/$lib" --list "$1/$program"
	done | awk '$2 == "=>" { print $3 }' | sort -u >"$fn/libraries"
	while read -r file; do cp -L "$file" $new/$lib/; done <"$fn/libraries"
}

start_trace() {
	local calls="cmd == ${number[map]} || cmd == ${number[unmap]} || cmd == ${number[batch]}"

	echo 'vfio_call u64 cmd; u64 lat' >$tracing/synthetic_events
	echo "hist:keys=common_pid:cmd=cmd,at=common_timestamp if $calls" \
		>$events/syscalls/sys_enter_ioctl/trigger
	# shellcheck disable=SC2016  # variables of the trigger
	echo 'hist:keys=common_pid:now=common_timestamp-$at,what=$cmd:onmatch(syscalls.sys_enter_ioctl).vfio_call($what,$now)' \
		>$events/syscalls/sys_exit_ioctl/trigger
	echo 'hist:keys=cmd:vals=hitcount,lat:size=128' >$events/synthetic/vfio_call/trigger
}

unload() { # MODULE: its last user may be on the way out
	for _ in {1..1000}; do
		refcount "$1"
		[ "$users" != none ] || return 0
		rmmod "$1" 2>/dev/null || true
		pause 0.2
	done
}

# Loads what CONFIG is about and nothing else
load() { # BACKEND ALIAS
	backend=$1
	module=vfio_iommu_type1 other=vfio_iommu_type1v3
	[ "$1" = type1v2 ] || module=vfio_iommu_type1v3 other=vfio_iommu_type1
	modprobe vfio-pci
	unload vfio_iommu_type1v3
	unload vfio_iommu_type1
	if [ "$1" = type1v2 ]; then
		# the default limit does not allow the pages of the conversion
		modprobe vfio_iommu_type1 dma_entry_limit=4000000
	else
		modprobe vfio_iommu_type1v3 alias_type1="$2"
	fi
	# afterwards, because loading anything of VFIO brings type1 with it
	unload $other
	refcount $other
	[ "$users" = none ] || fail "$other is loaded"
	refcount $module
	[ "$users" = 0 ] || fail "$module is in use"
}

run() { # CONFIG
	local which=${1%/*} alias=0

	[ "$which" = patched ] || alias=1
	load "${1#*/}" $alias
	: >"$fn/results"
	QTEST_VFIO_NVME=$address QTEST_VFIO_RAM_MIB=$ram QTEST_VFIO_MEM_MIB=$mem \
		QTEST_VFIO_CONVERT_MIB=$convert \
		QTEST_VFIO_HOOK="$0 --hook $fn/results $1" \
		QTEST_QEMU_BINARY="$dir/$which/qemu-system-x86_64" \
		"$dir/patched/vfio-type1v3-test" --tap -k 2>&1 | sed -u 's/^/# /' | tee "$fn/output" ||
		return 1
	cat "$fn/results"
	sed -nE "s|^# # ([a-z-]+) ([a-z-]+): ([0-9]+) us,.*|result $1 \1 \2 us \3|p" "$fn/output"
	[ "$(grep -c '^# ok' "$fn/output")" = 4 ] || return 1
	given_back
}

copy "$from"
give_to_vfio "$address"
start_trace
note "$(uname -r); $("$dir/patched/qemu-system-x86_64" --version | head -n 1)"
n=0 failed=0
for config; do
	n=$((n + 1))
	note "--- $config"
	if run "$config"; then
		echo "ok $n - $config"
	else
		failed=1
		echo "not ok $n - $config"
	fi
done
exit $failed
