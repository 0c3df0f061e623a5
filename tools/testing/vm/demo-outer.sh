#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# demo-outer.sh DIR BYTES FROM TO COUNT BACKEND=PCI-ADDRESS...
#
# The demo, inside the outer VM. Starts the distribution's QEMU with the inner
# guest of DIR. Then, for each BACKEND (type1v2 or type1v3), with that VFIO
# container backend only: the NVMe disk at PCI-ADDRESS is plugged into the inner
# guest, which reads its BYTES, copies COUNT of them from offset FROM to TO, and
# gives the disk back. What was seen goes to stdout:
#   result BACKEND NAME VALUE
set -euo pipefail

dir=$1
job="$2 $3 $4 $5"
shift 5
fn=$(mktemp -d)
cgroup=/sys/fs/cgroup/demo
tracing=/sys/kernel/tracing
ioctls=$tracing/events/syscalls/sys_enter_ioctl
map_cmd=$((0x3b71)) unmap_cmd=$((0x3b72))	# VFIO_IOMMU_MAP_DMA, VFIO_IOMMU_UNMAP_DMA
counter="hist:keys=cmd if cmd == $map_cmd || cmd == $unmap_cmd"
caches='^(kmalloc|radix_tree_node|vfio)'

say() { printf '  %3d s  %s\n' "$SECONDS" "$*"; }
die() {
	say "FAILED: $*"
	{ tail -n 15 "$fn/console"; cat "$fn/errors"; } 2>/dev/null |
		tr -d '\r' | sed 's/^/         | /' || true
	exit 1
}
pause() { read -r -t "$1" -u 9 || true; }	# sleep, without a process
result() { echo "result $backend $1 $2"; }

# The inner guest ---------------------------------------------------------

start_qemu() {
	mkfifo "$fn/in" "$fn/monitor.in" "$fn/monitor.out" "$fn/nothing"
	: >"$fn/console"
	# both ends are ours, so that nobody waits for the other to open his
	exec 6<>"$fn/in" 7<>"$fn/monitor.in" 8<>"$fn/monitor.out" 9<>"$fn/nothing" 5<"$fn/console"
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	mkdir "$cgroup"
	echo 1 >$tracing/options/event-fork

	# virtio-iommu before the disk, which stays away until the guest has
	# booted: firmware that drives it without a mapping would wait for ever.
	# Without boot-bypass all of the guest's memory is never mapped at once.
	# QEMU 7.2 under another TCG garbles the flags of cmpxchg16b: cx16=off.
	# A timer tick costs 2 ms here, of the 4 ms until the next: hence -icount, a
	# clock that follows the guest's instructions, however slow they are.
	# The guest's kernel is the stock one, unpacked, because that is slow too.
	local qemu=(qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot
		-machine "q35,sata=off,i8042=off,hpet=off,smbus=off,vmport=off"
		-accel "tcg,thread=single" -icount shift=4 -cpu "qemu64,cx16=off" -m 224
		-device "virtio-iommu-pci,boot-bypass=off"
		-device "pcie-root-port,id=bay,slot=1"
		-chardev "pipe,id=monitor,path=$fn/monitor" -mon "chardev=monitor,mode=control"
		-serial stdio -kernel "$dir/vmlinux" -initrd "$dir/inner.cpio"
		-append "console=ttyS0 iommu.strict=1 panic=-1 nokaslr mitigations=off $inner_quick")

	# a shell of its own moves there first, so that every thread is in it
	# shellcheck disable=SC2016
	bash -c 'echo $$ >"$0/cgroup.procs"; echo $$ >"$1/set_event_pid"; shift; exec "$@"' \
		"$cgroup" "$tracing" "${qemu[@]}" <&6 >>"$fn/console" 2>"$fn/errors" &
	qemu_pid=$!
	monitor qmp_capabilities ''
}

# What takes long in a guest of a guest and is of no use there.
inner_quick="cryptomgr.notests audit=0 tsc=reliable no_timer_check nowatchdog rodata=off"
inner_quick+=" quiet lsm= 8250.nr_uarts=1"
inner_quick+=" initcall_blacklist=jent_mod_init,trace_eval_init,init_kprobe_trace"
inner_quick+=",bpf_tcp_ca_kfunc_init,load_system_certificate_list"

wait_for() { # SECONDS MESSAGE: until the inner guest says it; $answer is the rest
	local end=$((SECONDS + $1)) life=$((SECONDS + 10)) part line='' pages

	while [ $SECONDS -lt $end ]; do
		while IFS= read -r -u 5 part || { line+=$part; false; }; do
			line+=${part%$'\r'}
			case $line in
			"demo: failed"*) die "inner guest: $line" ;;
			"demo: "*) say "inner guest: ${line#demo: }" ;;
			*"Kernel panic"* | *"Oops"* | *"WARNING: "*) die "inner guest: $line" ;;
			esac
			if [[ $line == "demo: $2"* ]]; then
				answer=${line#demo: "$2"}
				answer=${answer# }
				return
			fi
			line=
		done
		kill -0 $qemu_pid 2>/dev/null || die "QEMU ended"
		while read -r -t 0 -u 8 && IFS= read -r -u 8 part; do
			[[ $part != *'"error"'* ]] || die "QEMU: $part"
		done
		locked_pages
		if [ -n "${sampling:-}" ] && [ "$pages" -gt $((sampled + sampled / 16)) ]; then
			sample
		fi
		if [ $SECONDS -ge $life ]; then
			life=$((SECONDS + 10))
			if [ -n "${sampling:-}" ]; then
				say "  pages mapped for DMA just now: $pages"
			else
				say "  waiting for the inner guest to say '$2'"
			fi
		fi
		pause 0.1
	done
	die "the inner guest did not say '$2' in $1 s"
}

order() { echo "$*" >&6; }
monitor() { echo "{ 'execute': '$1', 'arguments': { $2 } }" >&7; }

# What is measured ---------------------------------------------------------

# Sets $pages. One read of the whole file: in two, its lines could move between.
locked_pages() {
	local status

	IFS= read -r -d '' status <"/proc/$qemu_pid/status" || true
	pages=0
	[[ ! $status =~ VmLck:[[:space:]]*([0-9]+) ]] || pages=$((BASH_REMATCH[1] / 4))
}

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
	[ "$pages" -le "$sampled" ] || sampled=$pages
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
		die "the trace buffer was too small"
}

ioctls_of() { awk -v cmd="$1" '$3 == cmd { print $NF }' "$fn/hist"; }

# From the trace: the most pages mapped at once, and, where most were mapped of
# the samples, the slab bytes that came with them since the first sample.
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
			pages = bytes / 4096
			if (!n++) {
				first = pages
				before = $1
			} else if (pages - first > most) {
				most = pages - first
				slab = $1 - before
			}
		}
		END {
			print "result", backend, "peak", peak / 4096
			print "result", backend, "left", bytes / 4096
			print "result", backend, "sampled", most + 0
			print "result", backend, "slab", slab + 0
		}' $tracing/trace
	[ -z "$recorder" ] || sed -nE "s/.* ([0-9.]+): (map|unmap): .*iova=0x0*([0-9a-f]+) .*size=([0-9]+)\$/$backend \1 \2 \3 \4/p" \
		$tracing/trace >"$recorder"
}

# The backends ---------------------------------------------------------------

# Sets $users, to none if there is no such module.
refcount() {
	users=none
	[ ! -e "/sys/module/$1/refcnt" ] || read -r users <"/sys/module/$1/refcnt"
}

use_backend() {
	case $backend in
	type1v2) module=vfio_iommu_type1 other=vfio_iommu_type1v3 ;;
	type1v3) module=vfio_iommu_type1v3 other=vfio_iommu_type1 ;;
	*) die "what is $backend?" ;;
	esac
	if [ "$backend" = type1v3 ]; then
		# QEMU asks for type1v2 and is to get this
		modprobe vfio_iommu_type1v3 alias_type1=1
	else
		modprobe vfio_iommu_type1
	fi
	# afterwards, because loading anything of VFIO brings type1 with it
	for _ in {1..50}; do
		refcount $other
		[ "$users" != none ] || break
		# its last user may be on the way out
		rmmod $other 2>/dev/null || true
		pause 0.2
	done
	[ "$users" = none ] || die "$other is still there"
	refcount $module
	[ "$users" = 0 ] || die "$module: not loaded, or in use already"
}

# The proof that it was this backend: the other is not even loaded, and this
# one's module has a user as long as QEMU has the container.
in_use() {
	refcount "$module"
	if [ "$users" = none ] || [ "$users" = 0 ]; then
		die "the disk is not behind $backend: $module has no user"
	fi
	refcount "$other"
	[ "$users" = none ] || die "is the disk behind $backend? $other is loaded"
}

pass() { # ADDRESS
	local tries

	use_backend
	sampled=0
	start_trace
	say "$backend: plugging the NVMe disk at $1 into the inner guest"
	monitor device_add "'driver': 'vfio-pci', 'host': '$1', 'id': '$backend', 'bus': 'bay'"
	order plug
	wait_for 120 ready
	[ "$answer" = DMA ] || die "the inner guest maps '$answer', not strictly"
	in_use
	sample

	sampling=1
	order "run $job"
	wait_for 300 checksum
	result checksum "${answer%% *}"
	sampling=
	wait_for 120 written
	in_use
	order unplug
	wait_for 60 unbound
	monitor device_del "'id': '$backend'"
	for ((tries = 0; tries < 600; tries++)); do
		refcount "$module"
		[ "$users" != 0 ] || break
		pause 0.1
	done
	[ "$users" = 0 ] || die "QEMU did not give the disk back"
	stop_trace
	say "$backend: done; reading the trace"
	evaluate
}

# The order in which things happen ---------------------------------------------

modprobe vfio-pci
for item in "$@"; do
	echo vfio-pci >"/sys/bus/pci/devices/${item#*=}/driver_override"
	echo "${item#*=}" >/sys/bus/pci/drivers_probe
	[ -e "/sys/bus/pci/drivers/vfio-pci/${item#*=}" ] || die "${item#*=} has no driver"
done

recorder=
for item in /sys/class/virtio-ports/*; do
	[ "$(cat "$item/name")" != trace ] || recorder=/dev/${item##*/}
done
say "outer VM: $(uname -r); $(qemu-system-x86_64 --version | head -n 1)"
start_qemu
# one slab at most to hide free objects in, instead of several
for item in /sys/kernel/slab/{kmalloc-*,radix_tree_node}/cpu_partial; do
	echo 0 >"$item"
done
say "starting the inner guest: its CPU is emulated twice over"
wait_for 420 booted
for item; do
	backend=${item%%=*}
	pass "${item#*=}"
done
order off
wait $qemu_pid || die "QEMU failed"
say "the inner guest is off"
