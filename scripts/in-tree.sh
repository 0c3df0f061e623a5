#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# in-tree.sh TREE      copies the sources into a kernel source tree and hooks
#                      them into its Kconfig, Makefiles and indexes of documents
# in-tree.sh -u TREE   takes all of that out again
# in-tree.sh -k TREE   does the hooks only, those of what is in the tree
# in-tree.sh -l        prints what goes where: FROM TO, a line each
#
# Run again, it changes only what changed here, so that a build does again only
# what it must.
set -euo pipefail
. "$(dirname "$0")/common.sh"

shopt -s nullglob

files() {
	local file

	cd "$TOP"
	echo "Kconfig drivers/vfio/Kconfig.type1v3"
	echo "drivers/vfio/Makefile drivers/vfio/Makefile.type1v3"
	# of directories that the kernel has, the selftests', only what is ours
	for file in drivers/vfio/*.[ch] drivers/vfio/tests/{*.[ch],Makefile,.kunitconfig} \
		    include/uapi/linux/*.h Documentation/*/*.rst \
		    Documentation/ABI/testing/* tools/vfio/* \
		    tools/testing/selftests/vfio/{*type1v3*.sh,type1v3*.[ch],type1v3*.mk}; do
		case $file in *.mod.c) continue ;; esac
		echo "$file $file"
	done
}

# FILE@LINE@FOR@AFTER: the line to be in a file of the tree if FOR exists, after
# another one or (without AFTER) at the end
hooks() {
	local file line index='' after='' lib=tools/testing/selftests/vfio/lib

	printf '%s@%s@%s@\n' drivers/vfio/Kconfig 'source "drivers/vfio/Kconfig.type1v3"' \
		drivers/vfio/Kconfig.type1v3
	# shellcheck disable=SC2016  # make expands it
	printf '%s@%s@%s@\n' drivers/vfio/Makefile 'include $(src)/Makefile.type1v3' \
		drivers/vfio/Makefile.type1v3
	printf '%s@%s@%s@\n' tools/testing/selftests/vfio/Makefile 'include type1v3.mk' \
		tools/testing/selftests/vfio/type1v3.mk
	# the mode of the kernel's own selftests, in those kernels that have it
	while IFS=@ read -r file line after; do
		printf '%s@%s@%s@%s\n' "$file" "$line" tools/testing/selftests/vfio/type1v3.mk "$after"
	done <<-END
		$lib/include/libvfio/iommu.h@#define MODE_VFIO_TYPE1V3_IOMMU "vfio_type1v3_iommu"@#define MODE_VFIO_TYPE1V2_IOMMU "vfio_type1v2_iommu"
		$lib/include/libvfio/iommu.h@FIXTURE_VARIANT_ADD_IOMMU_MODE(vfio_type1v3_iommu, ##__VA_ARGS__); \\@FIXTURE_VARIANT_ADD_IOMMU_MODE(vfio_type1v2_iommu, ##__VA_ARGS__); \\
		$lib/iommu.c@#include <linux/vfio_type1v3.h>@#include <linux/vfio.h>
		$lib/iommu.c@	{ MODE_VFIO_TYPE1V3_IOMMU, "/dev/vfio/vfio", VFIO_TYPE1v3_IOMMU },@static const struct iommu_mode iommu_modes[] = {
		${lib%/lib}/vfio_dma_mapping_mmio_test.c@	    !strcmp(iommu->mode->name, MODE_VFIO_TYPE1V3_IOMMU) ||@	if (!strcmp(iommu->mode->name, MODE_VFIO_TYPE1V2_IOMMU) ||
	END
	after=''
	cd "$TOP"
	for file in $(printf '%s\n' Documentation/*/*.rst | sed 's/\.rst$//' | LC_ALL=C sort); do
		[ "$index" = "${file%/*}/index.rst" ] || after=''
		index=${file%/*}/index.rst
		case $index in
		Documentation/driver-api/*) : "${after:=   vfio}" ;;
		Documentation/userspace-api/*) : "${after:=   iommufd}" ;;
		esac
		printf '%s@   %s@%s@%s\n' "$index" "${file##*/}" "$file.rst" "$after"
		after="   ${file##*/}"
	done
}

install() { # TREE
	local from to list=$1/drivers/vfio/type1v3.files

	files >"$list.new"
	# what an earlier run put there and this one does not
	if [ -f "$list" ]; then
		while read -r _ to; do
			grep -q " $to\$" "$list.new" || rm -f "${1:?}/$to"
		done <"$list"
	fi
	while read -r from to; do
		mkdir -p "$(dirname "$1/$to")"
		cmp -s "$TOP/$from" "$1/$to" || cp "$TOP/$from" "$1/$to"
	done <"$list.new"
	mv "$list.new" "$list"
	hook_up "$1"
}

hook_up() { # TREE
	local file line needs after

	hooks | while IFS=@ read -r file line needs after; do
		case $file in
		tools/testing/selftests/*.[ch]) [ -e "$1/$file" ] || continue ;;
		esac
		[ ! -e "$1/$needs" ] || grep -qxF "$line" "$1/$file" || hook "$1/$file" "$line" "$after"
	done
}

hook() { # FILE LINE AFTER
	if [ -z "$3" ]; then
		printf '%s\n' "$2" >>"$1"
	else
		grep -qxF "$3" "$1" || die "$1 has no line '$3'"
		LINE=$2 AFTER=$3 awk '
			{ print }
			$0 == ENVIRON["AFTER"] && !done { print ENVIRON["LINE"]; done = 1 }' "$1" >"$1.new"
		mv "$1.new" "$1"
	fi
}

uninstall() { # TREE
	local file line to list=$1/drivers/vfio/type1v3.files

	[ -f "$list" ] || return 0
	while read -r _ to; do rm -f "${1:?}/$to"; done <"$list"
	hooks | while IFS=@ read -r file line _; do
		[ -e "$1/$file" ] || continue
		grep -vxF "$line" "$1/$file" >"$1/$file.new"
		mv "$1/$file.new" "$1/$file"
	done
	rm "$list"
	rmdir --ignore-fail-on-non-empty "$1"/{drivers/vfio/tests,tools/vfio} 2>/dev/null || true
}

what=install
case ${1:-} in
-l) files; exit ;;
-u) what=uninstall; shift ;;
-k) what=hook_up; shift ;;
esac
tree=${1:?usage: in-tree.sh [-u | -k] TREE | -l}
[ -f "$tree/drivers/vfio/Kconfig" ] || die "$tree is not a kernel source tree"
$what "$tree"
