#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# in-tree.sh TREE
#
# Copies the sources into a kernel source tree and hooks them into its Kconfig
# and Makefile. Run again, it changes only what changed here, so that a build
# does again only what it must.
set -euo pipefail
. "$(dirname "$0")/common.sh"

shopt -s nullglob
tree=${1:?usage: in-tree.sh TREE}
[ -f "$tree/drivers/vfio/vfio_main.c" ] || die "$tree is not a kernel source tree"
list=$tree/drivers/vfio/type1v3.files

{
	cd "$TOP"
	echo "Kconfig drivers/vfio/Kconfig.type1v3"
	echo "drivers/vfio/Makefile drivers/vfio/Makefile.type1v3"
	for file in drivers/vfio/*.[ch] drivers/vfio/tests/{*.[ch],Makefile,.kunitconfig} \
		    include/uapi/linux/*.h; do
		case $file in *.mod.c) continue ;; esac
		echo "$file $file"
	done
} >"$list.new"

# what an earlier run put there and this one does not
if [ -f "$list" ]; then
	while read -r _ to; do
		grep -q " $to\$" "$list.new" || rm -f "${tree:?}/$to"
	done <"$list"
fi
while read -r from to; do
	mkdir -p "$(dirname "$tree/$to")"
	cmp -s "$TOP/$from" "$tree/$to" || cp "$TOP/$from" "$tree/$to"
done <"$list.new"
mv "$list.new" "$list"

hook() { # FILE LINE
	grep -qxF "$2" "$tree/$1" || printf '%s\n' "$2" >>"$tree/$1"
}
hook drivers/vfio/Kconfig 'source "drivers/vfio/Kconfig.type1v3"'
# shellcheck disable=SC2016  # make expands it
hook drivers/vfio/Makefile 'include $(src)/Makefile.type1v3'
