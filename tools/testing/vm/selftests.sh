#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# selftests.sh [OPTIONS] KERNEL IOMMU [TEST...]
#
# Boots KERNEL behind IOMMU with the devices that the kselftests want, and runs
# them, all or those named, there. A TEST may have arguments: 'NAME ARGS'. OPTIONS
# are those of boot.sh that take a value.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"

usage='usage: selftests.sh [OPTIONS] KERNEL IOMMU [TEST...]'
options=()
while getopts c:t:p:q:a:o: option; do
	[ "$option" != '?' ] || die "$usage"
	options+=("-$option" "$OPTARG")
done
shift $((OPTIND - 1))
kernel=${1:?$usage}
iommu=${2:?$usage}
shift 2
# for what hangs, not for a machine that is slow
seconds=14400
dir=$TOP/tools/testing/selftests/vfio
bin=$CACHE/selftests

# A device that no IOMMU is in front of; QEMU's machine of arm64 has no such place.
bypass=(-q "-device pxb-pcie,id=bypass,bus_nr=128,bypass_iommu=on"
	-q "-device pcie-root-port,id=bare,bus=bypass,chassis=9 -device edu,bus=bare")
compile=(make)
case $kernel in
arm64*)
	bin=$CACHE/selftests-$kernel
	bypass=()
	compile=("$TOP/scripts/in-root.sh" make
		CC="aarch64-linux-gnu-gcc-14 -DTYPE1V3_PAGE_KIB=$([ "$kernel" = arm64-16k ] && echo 16 || echo 4)")
	;;
esac

build() {
	mkdir -p "$bin"
	"${compile[@]}" -s -C "$dir" KSRC="$("$TOP/scripts/fetch.sh" source)/src" OUTPUT="$bin"
}
with_lock selftests build >&2

disks=$(mktemp -d "$CACHE/disks.XXXXXX")
trap 'rm -rf "$disks"' EXIT
truncate -s 64M "$disks"/{0,1}
"$TOP/tools/testing/vm/boot.sh" -k "$kernel" -i "$iommu" -m 4096 -t "$seconds" \
	-p "hugepagesz=1G hugepages=1" \
	-q "-drive if=none,id=d0,format=raw,file=$disks/0 -device nvme,serial=d0,drive=d0" \
	-q "-drive if=none,id=d1,format=raw,file=$disks/1 -device nvme,serial=d1,drive=d1" \
	-q "-drive if=none,id=d2,driver=null-co,size=64M,read-zeroes=on" \
	-q "-device nvme,serial=d2,drive=d2" \
	-q "-object memory-backend-ram,id=bar,size=16M,share=on -device ivshmem-plain,memdev=bar" \
	"${bypass[@]}" "${options[@]}" env TYPE1V3_BINDIR="$bin" TYPE1V3_SECONDS="${TYPE1V3_SECONDS:-5}" \
	TYPE1V3_SEED="${TYPE1V3_SEED:-1}" TYPE1V3_MANY="${TYPE1V3_MANY:-16384}" \
	TYPE1V3_SHORT="${TYPE1V3_SHORT:-}" "$dir/run_type1v3_tests.sh" "$@"
