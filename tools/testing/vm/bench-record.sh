#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# bench-record.sh
#
# Makes traces/block-strict.trace and block-lazy.trace, which bench.sh replays:
# every map and unmap that a guest behind virtio-iommu asks for while it makes a
# file system on its NVMe disk, copies files there, and reads them again, four
# at a time. The guest's tracepoints iommu:map and iommu:unmap see each request
# on its way to virtio-iommu. strict: what is unmapped is used again at once;
# lazy: only after a while, so that more of the IOVA space is in use.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"

VM=$TOP/tools/testing/vm
files=/usr/include/linux	# what is copied: many small files, and a few larger ones

in_guest() { # TYPE
	local disk=/dev/nvme0n1 tracing=/sys/kernel/tracing type

	type=$(cat /sys/block/nvme0n1/device/device/iommu_group/type)
	[ "$type" = "$1" ] || die "the disk is mapped $type, not $1"
	echo 16384 >$tracing/buffer_size_kb
	echo 1 >$tracing/events/iommu/map/enable
	echo 1 >$tracing/events/iommu/unmap/enable

	mkfs.ext4 -q $disk
	mount $disk /mnt
	cp -r $files /mnt
	sync
	echo 3 >/proc/sys/vm/drop_caches
	find /mnt -type f -print0 | xargs -0 -P 4 -n 8 cat >/dev/null
	umount /mnt

	echo 0 >$tracing/tracing_on
	awk '/^(overrun|dropped)/ && $NF { exit 1 }' $tracing/per_cpu/cpu0/stats ||
		die "the trace buffer was too small"
	cat $tracing/trace
}

# Numbers of pages are hexadecimal. What the driver has mapped before, or keeps,
# is left out: all that is mapped gets unmapped, in whole.
# shellcheck disable=SC2016
filter='
function number(hex,    i, n) {
	for (i = 1; i <= length(hex); i++)
		n = 16 * n + index("0123456789abcdef", substr(hex, i, 1)) - 1
	return n
}
function page_of(field) { # iova=0x0000000012345000
	sub(/.*=0x0*/, "", field)
	sub(/000$/, "", field)
	return field
}
function size_of(field) {
	sub(/.*=/, "", field)
	return field / 4096
}
/ (map|unmap): IOMMU: / {
	for (i = 1; $i != "IOMMU:"; i++)
		;
	first = number(page_of($(i + 1)))
	if ($(i - 1) == "map:") {
		npages = size_of($(i + 5))
		line[++n] = "map " page_of($(i + 1)) " " page_of($(i + 4)) " " npages
		for (j = 0; j < npages; j++)
			mapped[first + j] = n
		next
	}
	npages = size_of($(i + 4))
	for (j = 0; j < npages && (first + j) in mapped; j++) {
		keep[mapped[first + j]]
		delete mapped[first + j]
	}
	if (j == npages) {
		line[++n] = "unmap " page_of($(i + 1)) " " npages
		keep[n]
	}
}
END {
	for (i = 1; i <= n; i++)
		if (i in keep)
			print line[i]
}'

record() { # NAME TYPE STRICT
	local out=$VM/traces/$1.trace disk

	disk=$(mktemp "$CACHE/disk.XXXXXX")
	truncate -s 128M "$disk"
	"$VM/boot.sh" -k lean -i virtio -m 512 -p "iommu.strict=$3" \
		-q "-drive if=none,id=d,format=raw,file=$disk -device nvme,serial=d,drive=d" \
		"$VM/bench-record.sh" --guest "$2" >"$disk.trace"
	{
		echo "# SPDX-License-Identifier: GPL-2.0-only"
		echo "# Made by bench-record.sh with Linux $(cat "$CACHE/lean/release"), iommu.strict=$3:"
		echo "# map IOVA-PAGE GUEST-PAGE PAGES, unmap IOVA-PAGE PAGES; the first two hexadecimal"
		awk "$filter" "$disk.trace"
	} >"$out.new"
	rm "$disk" "$disk.trace"
	mv "$out.new" "$out"
	say "$out: $(grep -c ^map "$out") maps, $(grep -c ^unmap "$out") unmaps"
}

if [ "${1:-}" = --guest ]; then
	in_guest "$2"
else
	mkdir -p "$VM/traces"
	record block-strict DMA 1
	record block-lazy DMA-FQ 0
fi
