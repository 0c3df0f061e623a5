#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# demo-outer.sh DIR HELD BYTES FROM TO COUNT BACKEND=PCI-ADDRESS...
#
# The demo, inside the outer VM. The distribution's QEMU goes on with the inner
# guest of DIR. Then, for each BACKEND (type1v2, type1v3 or type1v3-pt), with that VFIO
# container backend only: the NVMe disk at PCI-ADDRESS is plugged into the inner
# guest, which reads its BYTES, copies COUNT of them from offset FROM to TO, and
# gives the disk back. What was seen goes to stdout:
#   result BACKEND NAME VALUE
set -euo pipefail
. "$(dirname "$0")/nested.sh"

dir=$1
held=$2
job="$3 $4 $5 $6"
shift 6
cgroup=/sys/fs/cgroup/demo
full_speed=1000000000000
tracing=/sys/kernel/tracing
ioctls=$tracing/events/syscalls/sys_enter_ioctl
map_cmd=$((0x3b71)) unmap_cmd=$((0x3b72))	# VFIO_IOMMU_MAP_DMA, VFIO_IOMMU_UNMAP_DMA
counter="hist:keys=cmd if cmd == $map_cmd || cmd == $unmap_cmd"
caches='^(kmalloc|radix_tree_node|vfio)'

result() { echo "result $backend $1 $2"; }

# What is measured ---------------------------------------------------------

# Stops QEMU, and with it every map and unmap, and puts a mark with the slab
# bytes of this moment into the trace. "shrink" empties the allocator's caches
# per processor, whose objects all count as in use. No process is started
# here: what it leaves behind would be weighed too.
sample() {
	local cache fd info shrink=() bytes=0 slabs line field events=

	echo 1 >$cgroup/cgroup.freeze
	until [[ $events == *"frozen 1"* ]]; do
		pause 0.02
		IFS= read -r -d '' events <$cgroup/cgroup.events || true
	done
	# what was freed a moment ago goes after a grace period
	pause 0.5
	# everything open before the first shrink: opening takes objects too
	exec {info}</proc/slabinfo
	for cache in /sys/kernel/slab/{kmalloc-*,radix_tree_node}; do
		exec {fd}>"$cache/shrink"
		shrink+=("$fd")
	done
	for fd in "${shrink[@]}"; do echo 1 >&"$fd"; done
	mapfile -t slabs <&"$info"
	for fd in "$info" "${shrink[@]}"; do exec {fd}>&-; done
	for line in "${slabs[@]}"; do
		[[ $line =~ $caches ]] || continue
		# name, objects in use, objects, their size, objects and pages per slab
		read -ra field <<<"$line"
		bytes=$((bytes + field[1] * field[5] * 4096 / field[4]))
	done
	locked_pages
	echo "demo-sample pages=$pages slab=$bytes" >$tracing/trace_marker
	in_use
	echo 0 >$cgroup/cgroup.freeze
}

start_trace() {
	echo 0 >$tracing/tracing_on
	echo 16384 >$tracing/buffer_size_kb
	echo >$tracing/trace
	echo 1 >$tracing/events/iommu/map/enable
	echo 1 >$tracing/events/iommu/unmap/enable
	echo "$counter" >$ioctls/trigger
	echo 1 >$tracing/tracing_on
}

stop_trace() {
	echo 0 >$tracing/tracing_on
	cat $ioctls/hist >"$fn/hist"
	echo "!$counter" >$ioctls/trigger
	echo 0 >$tracing/events/iommu/enable
	awk '/^overrun|^dropped/ && $NF { exit 1 }' $tracing/per_cpu/cpu*/stats ||
		fail "the trace buffer was too small"
}

ioctls_of() { awk -v cmd="$1" '$3 == cmd { print $NF }' "$fn/hist"; }

# A command for the monitor of the machine that this is
outer() { # COMMAND [ARGUMENTS]
	local line=

	echo "{ 'execute': '$1', 'arguments': { ${2:-} } }" >&"$outer"
	until [[ $line == *'"return"'* ]]; do
		IFS= read -r -t 60 -u "$outer" line || fail "no answer to $1"
		[[ $line != *'"error"'* ]] || fail "the machine: $line"
	done
}

# At one byte a second the first read is done at once, and each one after it waits
# for as many seconds as the first had bytes.
read_speed() { # BYTES: a second
	outer block_set_io_throttle "'device': '$backend', 'bps': 0, 'bps_rd': $1, 'bps_wr': 0,
		'iops': 0, 'iops_rd': 0, 'iops_wr': 0"
}

# Until so many pages are locked, which are all that the held reads map.
plateau() { # PAGES
	local end=$((SECONDS + patience * 60)) life=$((SECONDS + 10))

	until locked_pages; [ "$pages" = "$1" ]; do
		hear
		if [ $SECONDS -ge $end ]; then
			grep 'map: IOMMU:' $tracing/trace | tail -n 5
			fail "$pages pages are locked while the disk is held, not $1"
		fi
		if [ $SECONDS -ge $life ]; then
			life=$((SECONDS + 10))
			note "  $pages of $1 pages are locked"
		fi
		pause 0.1
	done
}

# From the trace: the most pages mapped at once, and what was mapped at the first
# sample more than at the second, with the slab bytes that went with it.
evaluate() {
	local maps unmaps

	maps=$(ioctls_of $map_cmd)
	unmaps=$(ioctls_of $unmap_cmd)
	result maps "${maps:-0}"
	result unmaps "${unmaps:-0}"
	awk -v backend="$backend" '
		/ map: IOMMU:/ {
			sub(/.* size=/, "")
			bytes += $1
			if (bytes > peak)
				peak = bytes
		}
		/ unmap: IOMMU:/ {
			sub(/.* unmapped_size=/, "")
			bytes -= $1
		}
		/demo-sample/ {
			sub(/.* slab=/, "")
			if (!n++) {
				more = bytes
				slab = $1
			} else {
				more -= bytes
				slab -= $1
			}
		}
		END {
			print "result", backend, "peak", peak / 4096
			print "result", backend, "left", bytes / 4096
			print "result", backend, "sampled", more / 4096
			print "result", backend, "slab", slab + 0
		}' $tracing/trace
	[ -z "$recorder" ] || sed -nE "s/.* ([0-9.]+): (map|unmap): .*iova=0x0*([0-9a-f]+) .*size=([0-9]+)\$/$backend \1 \2 \3 \4/p" \
		$tracing/trace >"$recorder"
}

pass() { # ADDRESS BACKEND
	use_backend "$2"
	start_trace
	note "$backend: plugging the NVMe disk at $1 into the inner guest"
	monitor device_add "'driver': 'vfio-pci', 'host': '$1', 'id': '$backend', 'bus': 'bay'"
	order "plug $backend"
	wait_for 120 "ready $backend"
	[ "$answer" = DMA ] || fail "the inner guest maps '$answer', not strictly"
	in_use
	# What is made at the first use is there when the pages are weighed. No more
	# than a page: where the held reads are mapped must not depend on it.
	order "touch $backend 4096"
	wait_for 120 "touched $backend"
	read_speed 1
	order "touch $backend 4096"
	wait_for 60 "touched $backend"
	locked_pages
	order "touch $backend $((held * 4096))"
	plateau $((pages + held))
	note "$backend: the disk is held: $pages pages locked"
	sample
	read_speed $full_speed
	wait_for 120 "touched $backend"
	sample

	order "run $backend $job"
	wait_for 300 checksum
	result checksum "${answer%% *}"
	wait_for 120 written
	in_use
	order "unplug $backend"
	wait_for 60 unbound
	monitor device_del "'id': '$backend'"
	given_back
	stop_trace
	note "$backend: done; reading the trace"
	evaluate
}

# The order in which things happen ---------------------------------------------

for item; do give_to_vfio "${item#*=}"; done

recorder=
for item in /sys/class/virtio-ports/*; do
	[ "$(cat "$item/name")" != trace ] || recorder=/dev/${item##*/}
done
for item in /sys/class/virtio-ports/*; do
	[ "$(cat "$item/name")" != monitor ] || exec {outer}<>"/dev/${item##*/}"
done
outer qmp_capabilities
note "outer VM: $(uname -r); $(qemu-system-x86_64 --version | head -n 1)"
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir "$cgroup"
echo 1 >$tracing/options/event-fork
# a shell of its own moves there first, so that every thread is in it
# shellcheck disable=SC2016
inner_enter=(bash -c 'echo $$ >"$0/cgroup.procs"; echo $$ >"$1/set_event_pid"; shift; exec "$@"'
	"$cgroup" "$tracing")
note "the inner guest goes on: its CPU is emulated twice over"
resume_inner "$dir" viommu
# one slab at most to hide free objects in, instead of several
for item in /sys/kernel/slab/{kmalloc-*,radix_tree_node}/cpu_partial; do
	echo 0 >"$item"
done
for item; do pass "${item#*=}" "${item%%=*}"; done
order off
wait $qemu_pid || fail "QEMU failed"
note "the inner guest is off"
