#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# check-ops.sh header TREE
# check-ops.sh btf VMLINUX VFIO_MODULE OUR_MODULE
#
# Compares compat/include/vfio.h, with which the modules are built outside a
# kernel tree, with the kernel's own declaration: either the text with that of
# a source tree, or the types in a module so built with those in the kernel's
# vfio module, where no source is at hand.
set -euo pipefail
. "$(dirname "$0")/common.sh"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# what the compiler sees: no comments, one blank, one member a line
declarations() { # FILE
	gcc -fpreprocessed -dD -E -P "$1" | tr -s '\n\t ' ' ' |
		grep -oE '(struct vfio_iommu_driver_ops|enum vfio_group_type) \{[^}]*\}|[a-z]+ vfio_(un)?register_iommu_driver\([^)]*\)' |
		sed 's/[;{]/&\n/g'
}

types() { # OUT, VMLINUX, MODULE
	local type module=$3

	if [ "${module%.xz}" != "$module" ]; then
		xz -dc "$module" >"$1.ko"
		module=$1.ko
	fi
	for type in vfio_iommu_driver_ops vfio_group_type; do
		pahole --btf_base "$2" -C $type "$module"
	done >"$1"
}

case ${1:-} in
header)
	declarations "$TOP/compat/include/vfio.h" >"$tmp/ours"
	declarations "$2/drivers/vfio/vfio.h" >"$tmp/kernel"
	;;
btf)
	types "$tmp/ours" "$2" "$4"
	types "$tmp/kernel" "$2" "$3"
	;;
*)
	die "usage: check-ops.sh header TREE | btf VMLINUX VFIO_MODULE OUR_MODULE"
	;;
esac
# nothing found is not the same thing twice
for word in vfio_iommu_driver_ops attach_group dma_rw VFIO_EMULATED_IOMMU; do
	grep -q "$word" "$tmp/kernel" || die "no $word in the kernel's declaration"
done
diff -u "$tmp/kernel" "$tmp/ours" || die "compat/include/vfio.h is not what the kernel has"
