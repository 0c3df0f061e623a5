#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# clients.sh [CASE...]
#
# What an unmodified QEMU does with VFIO, over type1v3 (alias_type1=1): in a VM
# with VT-d and the distribution's kernel it passes NVMe disks through to an inner
# guest. The cases:
#   alias                       without alias_type1 it is not type1v3, and the
#                               proof that the others rely on notices
#   memory-static               all of the guest's memory mapped at once; virtio-mem
#                               grows and shrinks under I/O
#   hotplug-static              a disk comes and goes while I/O runs on another,
#                               and goes while I/O runs on itself
#   kill-static                 QEMU is killed under I/O
# and the long ones, which run only when they are named:
#   hotplug-viommu, kill-viommu
#   reboot-static               the guest reboots with the disk and goes on
#   memlock-vtd                 two disks, a container each, with a limit of locked memory
#                               for the guest's memory once: type1v2 fails, as the control
# -static: without an IOMMU; -viommu: behind virtio-iommu with strict mapping; -vtd: with an
# intel-iommu that the guest does not turn on.
# TYPE1V3_INNER_QEMU in the environment is another QEMU to pass the disks through, in
# which the case alias would fail if it asks for type1v3 by its own number.
# What is read and written is compared, and after each case nothing may be
# pinned, charged or in use.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"
. "$(dirname "$0")/nested.sh"

VM=$TOP/tools/testing/vm
MIB=$((1 << 20))
job="$((16 * MIB)) $((2 * MIB)) $((10 * MIB)) $((2 * MIB))"

case ${1:-} in
-*) sed -n '/^# clients.sh/,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
'') set -- alias memory-static hotplug-static kill-static ;;
esac

work=$(mktemp -d "$CACHE/clients.XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

use_qemu
"$VM/kernel.sh" stock >/dev/null
[ -z "${TYPE1V3_INNER_QEMU:-}" ] || echo "$TYPE1V3_INNER_QEMU" >"$work/inner-qemu"
make_inner "$work"
for kind in static viommu vtd; do
	[[ "$* " != *-"$kind "* ]] || boot_inner "$work" "$kind"
done
gcc -Wall -Wextra -O2 -static -I "$TOP/include/uapi" -o "$work/clients-usage" "$VM/clients-usage.c"
# shellcheck disable=SC2086  # several numbers
make_disk "$work/data" $job
disks=() addresses=() slot=10
for disk in a b; do
	cp "$work/data" "$work/$disk.img"
	disks+=(-q "-drive id=$disk,if=none,format=raw,file=$work/$disk.img"
		-q "-device nvme,serial=$disk,drive=$disk,addr=$slot.0")
	addresses+=("0000:00:$slot.0")
	slot=$((slot + 1))
done

echo "TAP version 13"
echo "1..$(($# + 1))"
"$VM/boot.sh" -k stock -n -t 14400 -p mitigations=off "${disks[@]}" "$VM/clients-outer.sh" "$work" \
	"$job" "$(sum_of "$work" "$work/data")" "$(sum_of "$work" "$work/data.expected")" \
	"${addresses[@]}" "$@" | tee "$work/output"

for disk in a b; do
	grep -qx "# disk $disk $(sum_of "$work" "$work/$disk.img")" "$work/output" ||
		{ echo "not ok $(($# + 1)) - disks"; exit 1; }
done
echo "ok $(($# + 1)) - disks"
