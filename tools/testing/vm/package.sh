#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# package.sh
#
# Builds the Debian packages as README.md says, and installs, uses and removes
# them as it and the guide say on the distribution with its kernel, in a VM.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"

VM=$TOP/tools/testing/vm
work=$(mktemp -d "$CACHE/package.XXXXXX")
trap 'rm -rf "$work"' EXIT

(cd "$TOP" && bash -exc "$(scripts/readme.sh package-build)")
"$VM/kernel.sh" stock >/dev/null

# What takes minutes in there, it gets in a shorter form: dpkg's thousands of small
# files in one, and for depmod only those of the kernel's modules that matter.
tar -C /var/lib/dpkg -cf "$work/dpkg" info
release=$(cat "$CACHE/stock/release")
mkdir -p "$work/modules/$release"
(cd "$CACHE/stock/lib/modules/$release"
 for module in vfio-pci vfio_iommu_type1 nvme; do
	modprobe -d "$CACHE/stock" -S "$release" --show-depends "$module"
 done | sed -n 's|^insmod .*/\(kernel/[^ ]*\).*|\1|p' | sort -u |
	xargs cp --parents -t "$work/modules/$release" modules.order modules.builtin modules.builtin.modinfo)

truncate -s 1M "$work/disk"
"$VM/boot.sh" -k stock -n -t 7200 \
	-q "-drive if=none,id=d0,format=raw,file=$work/disk -device nvme,serial=d0,drive=d0,addr=10.0" \
	"$VM/package-guest.sh" "$("$TOP/scripts/fetch.sh" stock)" "$work" 0000:00:10.0
