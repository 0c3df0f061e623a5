#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dpdk.sh
#
# Applies the patch of tools/vmm/dpdk to the DPDK of Debian 12 and compiles the file
# that it changes as DPDK does, to see whether it still fits. Prints where the object
# is. Nothing else of DPDK is built.
set -euo pipefail
. "$(dirname "$0")/common.sh"

patches=$TOP/tools/vmm/dpdk
# shellcheck disable=SC2016  # for the shell in the root
build='set -e
cd /src/dpdk
rm -rf tree build
dpkg-source -x dpdk_*.dsc tree
for one in series/*.patch; do (cd tree && patch -s -p1 --fuzz=0 <../"$one"); done
# of the libraries only those that eal needs: all that can be left out are
meson setup build tree -Dplatform=generic -Denable_drivers=bus/pci -Dtests=false -Denable_docs=false \
	-Dexamples= -Ddeveloper_mode=disabled -Ddisable_libs="*" -Ddisable_apps="*"
nice ninja -C build lib/librte_eal.a.p/eal_linux_eal_vfio.c.o
'

build() {
	local dir id object

	dir=$("$TOP/scripts/fetch.sh" vmm-dpdk)
	object=$dir/build/lib/librte_eal.a.p/eal_linux_eal_vfio.c.o
	id=$(cat "$patches"/*.patch "$TOP/scripts/dpdk.sh" | sha256sum | cut -c 1-64)
	if [ "$(cat "$dir/id" 2>/dev/null)" != "$id" ]; then
		rm -rf "$dir/series" "$dir/id"
		mkdir "$dir/series"
		cp "$patches"/*.patch "$dir/series/"
		say "compiling eal_vfio.c of DPDK"
		slowly "$dir/log" "$TOP/scripts/in-root.sh" -r vmm-root bash -c "$build"
		! grep -A 3 'eal_vfio.*warning:' "$dir/log" || die "it does not build without warnings"
		grep -q 'Type 1v3' "$object" || die "what was built does not know type1v3"
		echo "$id" >"$dir/id"
	fi
	echo "$object"
}

with_lock dpdk-build build
