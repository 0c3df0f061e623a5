#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# bench-guest.sh PROGRAM [ARGS...]
#
# In the virtual machine: prepares it, and runs PROGRAM ARGS with the PCI address
# of the one device behind it, outside of the root memory cgroup.
set -euo pipefail

modprobe vfio_pci
modprobe vfio_iommu_type1
# a million mappings, one for each page
echo 4294967295 >/sys/module/vfio_iommu_type1/parameters/dma_entry_limit
modprobe vfio_iommu_type1v3
modprobe vfio_emulated_test

device=$(grep -l '^0x11e8$' /sys/bus/pci/devices/*/device)
bdf=$(basename "${device%/device}")
echo vfio-pci >"/sys/bus/pci/devices/$bdf/driver_override"
echo "$bdf" >/sys/bus/pci/drivers_probe

cgroup=/sys/fs/cgroup/bench
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir "$cgroup"
echo $$ >"$cgroup/cgroup.procs"
ulimit -l unlimited
# profile.py wants to know what is where
[ "${2:-}" != -l ] || grep -E ' [tTwW] ' /proc/kallsyms
exec "$@" "$bdf"
