#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# demo.sh [-1] [-r DIR]
#
# The project's main job on something real. A VM with VT-d and three NVMe disks of
# random data runs the distribution's kernel with the project's modules. In it
# the distribution's QEMU, unmodified, passes a disk through to an inner guest
# behind virtio-iommu, which maps strictly, page by page: it reads the disk,
# and copies a part of it to another place. A disk over type1v2, one over type1v3,
# and one over type1v3 with the IO page table as its record; a table compares them. The
# kernel's memory is weighed while the outer VM's machine holds the disk: all that the
# guest reads at once is mapped then, the same pages in each run.
#
#   -1      type1v2 only
#   -r DIR  keep all maps and unmaps in DIR/trace, a line each:
#           backend, seconds, map or unmap, IOVA (hexadecimal), bytes
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"
. "$(dirname "$0")/nested.sh"

VM=$TOP/tools/testing/vm
MIB=$((1 << 20))
disk_bytes=$((32 * MIB)) copy_from=$((4 * MIB)) copy_to=$((20 * MIB)) copy_bytes=$((4 * MIB))

held_pages=4096		# what nested-io reads at once
# what a backend weighs at most: one part in so many of type1v2
declare -A parts=([type1v2]=1 [type1v3]=9 [type1v3-pt]=100)
backends=(type1v2 type1v3 type1v3-pt) record=''
while getopts 1r:h option; do
	case $option in
	1) backends=(type1v2) ;;
	r) mkdir -p "$OPTARG" && record=$(cd "$OPTARG" && pwd) ;;
	*) sed -n '/^# demo.sh/,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
done

work=$(mktemp -d "$CACHE/demo.XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

# What was measured of backend $1 under the name $2.
result() { awk -v b="$1" -v n="$2" '$1 == "result" && $2 == b && $3 == n { print $4 }' "$work/output"; }

use_qemu
say "preparing the stock kernel with the modules"
"$VM/kernel.sh" stock >/dev/null
say "preparing $((disk_bytes / MIB)) MiB disks of random data"
make_disk "$work/data" $disk_bytes $copy_from $copy_to $copy_bytes
say "booting the inner guest, whose state the outer VM gets"
make_inner "$work"
boot_inner "$work" viommu
arguments=() disks=() slot=10
for backend in "${backends[@]}"; do
	cp "$work/data" "$work/$backend.img"
	disks+=(-q "-drive id=$backend,if=none,format=raw,file=$work/$backend.img,throttling.bps-read=1000000000000"
		-q "-device nvme,serial=$backend,drive=$backend,addr=$slot.0")
	arguments+=("$backend=0000:00:$slot.0")
	slot=$((slot + 1))
done

# the outer VM can speak to the monitor of its own machine, to hold a disk
disks+=(-q "-chardev socket,id=monitor,path=$work/monitor,server=on,wait=off"
	-q "-mon chardev=monitor,mode=control"
	-q "-chardev socket,id=to-monitor,path=$work/monitor"
	-q "-device virtserialport,chardev=to-monitor,name=monitor")

if [ -n "$record" ]; then
	disks+=(-q "-chardev file,id=trace,path=$record/trace"
		-q "-device virtserialport,chardev=trace,name=trace")
fi

say "booting the outer VM"
set +e
"$VM/boot.sh" -k stock -n -t 7200 -p mitigations=off "${disks[@]}" "$VM/demo-outer.sh" "$work" \
	"$held_pages" "$disk_bytes" "$copy_from" "$copy_to" "$copy_bytes" "${arguments[@]}" |
	tee "$work/output" | grep --line-buffered -v '^result '
status=${PIPESTATUS[0]}
set -e
if [ "$status" != 0 ]; then
	echo "demo: FAILED: the outer VM ended with status $status"
	exit 1
fi

failures=()
check() { # BACKEND MESSAGE CONDITION...: $verdict is ok or WRONG
	local backend=$1 message=$2

	shift 2
	verdict=ok
	"$@" || { verdict=WRONG; failures+=("$backend: $message"); }
}

row() { # TEXT NAME: one measured value of every backend
	printf '%-46s' "$1"
	for backend in "${backends[@]}"; do printf '%12s' "$(result "$backend" "$2")"; done
	echo
}

judged() { # TEXT CHECK: ok or not, for every backend
	printf '%-46s' "$1"
	for backend in "${backends[@]}"; do
		check "$backend" "$1" "$2" "$backend"
		printf '%12s' "$verdict"
	done
	echo
}

read_ok() { [ "$(result "$1" checksum)" = "$(sum_of "$work" "$work/data")" ]; }
write_ok() { cmp -s "$work/$1.img" "$work/data.expected"; }
# every page of the disk a map of its own, and none of them forgotten
strict() { [ "$(result "$1" maps)" -ge $((disk_bytes / 4096)) ] && [ "$(result "$1" left)" = 0 ]; }
held_ok() { [ "$(result "$1" sampled)" = $held_pages ]; }
per_page() { awk -v p=$held_pages -v s="$(result "$1" slab)" 'BEGIN { printf "%.2f", s / p }'; }
light() { [ "$(($(result "$1" slab) * parts[$1]))" -le "$(result type1v2 slab)" ]; }

cat <<END

A guest reads its NVMe disk ($((disk_bytes / MIB)) MiB) and copies $((copy_bytes / MIB)) MiB of it, behind
virtio-iommu with strict mapping; $(qemu-system-x86_64 --version | sed -n 's/ version / /; 1p')

END
printf '%-46s' ''
printf '%12s' "${backends[@]}"
echo
row 'maps (VFIO_IOMMU_MAP_DMA calls)' maps
row 'unmaps (VFIO_IOMMU_UNMAP_DMA calls)' unmaps
row 'most 4 KiB pages mapped at once (iommu trace)' peak
row 'pages mapped when metadata was weighed [1]' sampled
row 'slab bytes that went with them [1]' slab
printf '%-46s' 'metadata, bytes per mapped page [1]'
for backend in "${backends[@]}"; do printf '%12s' "$(per_page "$backend")"; done
echo
judged "the pages that are held are those weighed" held_ok
judged "at most 1, 1/${parts[type1v3]}, 1/${parts[type1v3-pt]} of type1v2's metadata" light
judged 'page by page, all of them given back' strict
judged 'checksum of what the guest read' read_ok
judged 'the disk after the guest wrote' write_ok
cat <<END

[1] what the kernel's slab memory (kmalloc-*, radix_tree_node: objects in use,
    with the allocator's rounding) shrinks by from a disk that holds a read of
    $held_pages pages to the idle disk, QEMU stopped at both; the IO page table is
    not in it. Below zero, the few pages of the idle disk, which are far apart,
    take more than those of the read.

END
if [ ${#failures[@]} != 0 ]; then
	printf 'demo: FAILED: %s\n' "${failures[@]}"
	exit 1
fi
echo "demo: PASSED: ${backends[*]}: everything read and written is right"
