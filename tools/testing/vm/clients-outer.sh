#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# clients-outer.sh DIR "BYTES FROM TO COUNT" SUM SUM-COPIED ADDRESS-A ADDRESS-B CASE...
#
# The tests with a real client, inside the outer VM. For each CASE the
# distribution's QEMU goes on with the inner guest of DIR over type1v3, with one
# or both of the NVMe disks a and b at those PCI addresses. A disk of BYTES has
# the checksum SUM until COUNT of them were copied from offset FROM to TO.
# Afterwards nothing may be left of it. QEMU stays for the next case with the same
# kind of machine, because it takes long to start. A TAP line for every case goes
# to stdout, and what the disks must hold now: "# disk a SUM".
set -euo pipefail
. "$(dirname "$0")/nested.sh"

dir=$1 job=$2 copied=$4
declare -A address=([a]=$5 [b]=$6) bay=([a]=bay [b]=bay2) sum=([a]=$3 [b]=$3)
shift 6
cgroup=/sys/fs/cgroup/client

# --- steps -------------------------------------------------------------------

kind=
start() { # KIND
	[ -z "$kind" ] || [ "$kind" = "$1" ] || quit
	[ "$kind" != "$1" ] || return 0
	use_backend type1v3
	mkdir "$cgroup"
	resume_inner "$dir" "$1"
	kind=$1
}

quit() {
	monitor quit
	wait "$qemu_pid" || fail "QEMU failed"
	ended
}

# QEMU is no more, and nothing may be left of it in the kernel.
ended() {
	local slab=0 try

	kind=
	nothing_left
	# besides the names of files, which the memory cgroup pays for as well, less
	# than metadata for a thousand pages of a guest takes. 8 to 10 KB are usual.
	for try in {1..200}; do
		echo 3 >/proc/sys/vm/drop_caches
		slab=$(awk '$1 == "slab" { print $2 }' "$cgroup/memory.stat")
		[ "$slab" -gt 16384 ] || break
		pause 0.5
	done
	note "slab memory that is left of QEMU's, tried $try times: $slab bytes"
	[ "$slab" -le 16384 ] || fail "$slab bytes of slab memory are left"
	rmdir "$cgroup"
}

device_add() { # DISK
	monitor device_add "'driver': 'vfio-pci', 'host': '${address[$1]}', 'id': '$1', 'bus': '${bay[$1]}'"
}

plug() { # DISK
	device_add "$1"
	order "plug $1"
	wait_for 120 "ready $1"
	proven
}

detach() { # DISK: the guest is asked to let go of it, and does
	monitor device_del "'id': '$1'"
	await 120 $'DEVICE_DELETED[^\n]*"device": "'"$1\""
}

gone() { # DISK: for the guest, too
	order "gone $1"
	wait_for 60 "gone $1"
}

unplug() { # DISK
	detach "$1"
	gone "$1"
}

run() { # DISK [NODE]: read it all, and copy a part
	order "run $1 $job ${2:-}"
	wait_for 300 checksum
	[ "$answer" = "${sum[$1]}" ] || fail "$1 reads as $answer, not as ${sum[$1]}"
	wait_for 120 written
	sum[$1]=$copied
	proven
}

busy() { # DISK [NODE]: I/O from now on, until idle or an error
	order "busy $1 ${job%% *} ${2:-}"
	wait_for 120 "busy $1"
}

stopped() { # DISK stopped|lost: as told, or by an error; whatever was read was right
	wait_for 120 "$2 $1 after"
	[ "${answer##*: }" = "${sum[$1]}" ] || fail "$1 read as ${answer##*: }, not as ${sum[$1]}"
}

idle() { # DISK: no error so far
	order "idle $1"
	stopped "$1" stopped
}

resize() { # MIB: what virtio-mem has plugged in
	local bytes=$(($1 << 20))

	note "virtio-mem: $1 MiB"
	monitor qom-set "'path': '/machine/peripheral/more', 'property': 'requested-size', 'value': $bytes"
	await 120 $'MEMORY_DEVICE_SIZE_CHANGE[^\n]*'"\"size\": ${bytes}[,}]"
	order "memory 1 $(($1 << 10))"
	wait_for 120 "memory 1 $(($1 << 10))"
}

proven() { in_use; usage "$qemu_pid"; }

# A QEMU that is not the distribution's is one that maps in batches.
batches() {
	local calls

	[ -e "$dir/inner-qemu" ] || return 0
	calls=$(awk '{ n[$1] += $2 } END { print n["map"] + 0, n["unmap"] + 0, n["batch"] + 0 }' \
		/sys/kernel/debug/vfio_type1v3/*/stat)
	note "maps, unmaps, and batches that they came in: $calls"
	[ "${calls##* }" != 0 ] || fail "there was no batch"
}

# Right now MIB of memory are pinned for good, besides firmware.
static() { # MIB
	proven
	locked_pages
	note "mapped $mapped, pinned $pinned, locked $pages pages; $bytes bytes of metadata"
	[ "$pinned" = "$pages" ] || fail "$pinned pages pinned, $pages locked"
	((pinned >= $1 << 8 && pinned <= ($1 + 4) << 8)) || fail "$pinned pages pinned with $1 MiB"
}

# The container is gone, and with it every pin.
nothing_left() {
	local now pages=0

	given_back
	now=$(pins)
	[ "$now" = "$pins_before" ] || fail "$((now - pins_before)) pins are left"
	! kill -0 "$qemu_pid" 2>/dev/null || locked_pages
	[ "$pages" = 0 ] || fail "$pages pages are still locked"
}

# --- the cases ----------------------------------------------------------------

# Without alias_type1 it does not answer, and the proof notices who does.
case_alias() {
	use_backend type1v3
	mkdir "$cgroup"
	echo 0 >/sys/module/$module/parameters/alias_type1
	start_inner "$dir" static -S
	await 60 '"return"'
	may_refuse=1
	device_add a
	await 60 $'"error"[^\n]*'
	note "alone: ${BASH_REMATCH[0]}"
	may_refuse=
	modprobe "$other"
	device_add a
	await 60 '"return"'
	! (in_use) >"$fn/proof" || fail "in_use() is satisfied with $other"
	grep -q "$module has no user" "$fn/proof"
	! (usage "$qemu_pid") >"$fn/proof" || fail "usage() is satisfied with $other"
	grep -q "status 3" "$fn/proof"
	quit
	rmmod "$module"
}

# All of the guest's memory is mapped, and with virtio-mem it comes and goes,
# under I/O that goes there.
case_memory() { # KIND
	local before

	start "$1"
	plug a
	static $inner_mib
	before=$pinned
	resize 64
	static $((inner_mib + 64))
	[ $((pinned - before)) = $((64 << 8)) ] || fail "$((pinned - before)) pages for 64 MiB"
	run a 1
	busy a 1
	resize 192
	static $((inner_mib + 192))
	resize 96
	static $((inner_mib + 96))
	idle a
	resize 0
	static $inner_mib
	[ "$pinned" = "$before" ] || fail "$pinned pages pinned, $before before"
	run a
	unplug a
	nothing_left
}

# b comes and goes while I/O runs on a, and a goes while I/O runs on it.
case_hotplug() { # KIND
	start "$1"
	plug a
	busy a
	plug b
	run b
	batches
	unplug b
	idle a
	busy a
	detach a
	stopped a lost
	gone a
	nothing_left
	plug a
	run a
	unplug a
	nothing_left
}

# Killed with I/O under way.
case_kill() { # KIND
	start "$1"
	plug a
	[ "$1" != static ] || resize 64
	busy a
	for _ in {1..100}; do
		proven
		[ "$mapped" = 0 ] || break
	done
	[ "$mapped" != 0 ] || fail "nothing is mapped"
	note "killing QEMU: $mapped pages mapped, $pinned pinned"
	kill -9 "$qemu_pid"
	wait "$qemu_pid" 2>/dev/null || true
	ended
}

# Both devices have all of the guest's memory mapped, and the limit is for it once.
case_memlock() { # KIND
	local enter=("${inner_enter[@]}") limit=$((inner_mib + 64)) answer

	[ -z "$kind" ] || quit
	inner_enter+=(prlimit "--memlock=$((limit << 20))" setpriv --bounding-set=-ipc_lock
		--inh-caps=-ipc_lock)

	# the control
	use_backend type1v2
	mkdir "$cgroup"
	resume_inner "$dir" "$1"
	kind=$1
	device_add a
	await 120 '"return"'
	in_use
	locked_pages
	note "type1v2, one device, limit $((limit << 8)) pages: locked $pages pages"
	((pages >= inner_mib << 8 && pages <= limit << 8)) || fail "$pages pages are locked"
	may_refuse=1
	device_add b
	await 120 $'"error"[^\n]*'
	note "type1v2, two devices: ${BASH_REMATCH[0]}"
	may_refuse=
	grep -q "VFIO_MAP_DMA failed: Cannot allocate memory" "$fn/errors" ||
		fail "type1v2 has failed for another reason"
	quit

	start "$1"
	plug a
	[ "$answer" = static ] || fail "the guest uses its IOMMU: $answer"
	plug b
	run a
	run b
	locked_pages
	note "two devices, limit $((limit << 8)) pages: locked $pages pages"
	((pages >= inner_mib << 8 && pages <= (inner_mib + 4) << 8)) ||
		fail "$pages pages are locked"
	unplug a
	run b
	unplug b
	nothing_left
	quit
	inner_enter=("${enter[@]}")
}

# A reset under way: all that the device did is over, and begins anew.
case_reboot() { # KIND
	start "$1"
	plug a
	run a
	busy a
	monitor set-action "'reboot': 'reset'"
	order reboot
	wait_for 900 booted
	order "plug a"
	wait_for 300 "ready a"
	proven
	run a
	quit
}

# --- the order in which things happen --------------------------------------------

echo +memory >/sys/fs/cgroup/cgroup.subtree_control
# shellcheck disable=SC2016
inner_enter=(bash -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$cgroup")
for item in "${address[@]}"; do give_to_vfio "$item"; done
pins_before=$(pins)
n=0 current=
trap '[ -z "$current" ] || echo "not ok $n - $current"' EXIT
for current; do
	n=$((n + 1))
	note "--- $current"
	"case_${current%%-*}" "${current#*-}"
	echo "ok $n - $current"
done
current=
[ -z "$kind" ] || quit
for item in "${!sum[@]}"; do echo "# disk $item ${sum[$item]}"; done
