#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# kunit-guest.sh DIRECTORY
#
# Runs in the guest: the file DIRECTORY/plan has a line for each run,
#   NAME MODULES-DIRECTORY KUNIT-MODULE SUITE.CASE
# Prints a line with each name, and then what KUnit says.
set -u
filter=/sys/module/kunit/parameters/filter_glob

modprobe kunit
# what ours depend on stays
# without the end of a line, which would be part of it
printf none >$filter
for module in vfio_dma_core_kunit vfio_type1v3_kunit; do
	modprobe $module || exit 1
	rmmod $module
done
rmmod vfio_iommu_type1v3 vfio_dma || exit 1

while read -r name modules module glob; do
	echo "== $name"
	dmesg --clear
	printf %s "$glob" >$filter
	insmod "$modules/vfio_dma.ko" && modprobe vfio_iommu_type1v3 &&
		insmod "$modules/$module.ko"
	dmesg --notime
	# what a mutant leaves may not let go of it: another boot
	rmmod "$module" vfio_iommu_type1v3 vfio_dma || exit 1
done <"$1/plan"
echo "== end"
