#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# upstream.sh
#
# The kernel's own VFIO selftests, with type1v3 as one more of their IOMMU modes
# (in-tree.sh adds it), on the newest kernel behind VT-d. type1v2 and the other
# modes are the control. The device is an edu: libvfio maps every BAR that it can,
# and fails where one is smaller than a page. It has no driver in libvfio, so those
# tests are left out that need one to do DMA.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"

VM=$TOP/tools/testing/vm
tests=(vfio_dma_mapping_test vfio_dma_mapping_mmio_test vfio_pci_device_init_perf_test)
tree=$("$TOP/scripts/fetch.sh" source)/src
out=$CACHE/upstream

build() {
	with_lock tree "$TOP/scripts/in-tree.sh" "$tree"
	rm -rf "${out:?}/bin"
	mkdir -p "$out/bin"
	make -s -C "$tree" O="$out/headers" ARCH=x86 INSTALL_HDR_PATH="$out/usr" headers_install
	make -C "$tree/tools/testing/selftests/vfio" OUTPUT="$out/bin" \
		KHDR_INCLUDES="-isystem $out/usr/include" "${tests[@]/#/$out/bin/}"
}
with_lock upstream slowly "$CACHE/upstream.log" build

# by the clock of instructions, since each test has 30 seconds, in which a slow machine
# does not clear a page of 1 GiB
"$VM/boot.sh" -k lean -i vtd -m 4096 -p "hugepagesz=1G hugepages=1" \
	-q "-icount shift=0,sleep=off" -q "-device edu,addr=10.0" \
	"$VM/upstream-guest.sh" 0000:00:10.0 "${tests[@]/#/$out/bin/}"
