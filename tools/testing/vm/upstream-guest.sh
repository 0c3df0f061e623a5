#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# upstream-guest.sh PCI-ADDRESS TEST...: gives the device to VFIO and runs tests of
# the kernel with it, in the VM
set -u
address=$1 failed=0
shift

modprobe -a vfio-pci vfio_iommu_type1 vfio_iommu_type1v3 iommufd || exit 1
echo 8 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
echo vfio-pci >"/sys/bus/pci/devices/$address/driver_override"
echo "$address" >/sys/bus/pci/drivers_probe
for test; do
	echo "# ${test##*/}"
	"$test" "$address" || failed=1
done
exit $failed
