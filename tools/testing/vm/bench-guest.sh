#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# bench-guest.sh PROGRAM [ARGS...]
#
# In the virtual machine: prepares it, and runs PROGRAM ARGS with the PCI address
# of the first device behind it, outside of the root memory cgroup. Those of the others
# are TYPE1V3_BENCH_2 and so on in the environment.
set -euo pipefail

modprobe vfio_pci
modprobe vfio_iommu_type1
# a million mappings, one for each page
echo 4294967295 >/sys/module/vfio_iommu_type1/parameters/dma_entry_limit
modprobe vfio_iommu_type1v3
modprobe vfio_emulated_test

bdf='' n=1
while read -r device; do
	device=$(basename "${device%/device}")
	echo vfio-pci >"/sys/bus/pci/devices/$device/driver_override"
	echo "$device" >/sys/bus/pci/drivers_probe
	[ $n = 1 ] || export "TYPE1V3_BENCH_$n=$device"
	[ $n != 1 ] || bdf=$device
	n=$((n + 1))
done < <(grep -l '^0x11e8$' /sys/bus/pci/devices/*/device)

cgroup=/sys/fs/cgroup/bench
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir "$cgroup"
echo $$ >"$cgroup/cgroup.procs"
ulimit -l unlimited
# profile.py wants to know what is where
[ "${2:-}" != -l ] || grep -E ' [tTwW] ' /proc/kallsyms
exec "$@" "$bdf"
