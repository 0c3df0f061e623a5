#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# package-guest.sh DISTRIBUTION BDF
#
# In the VM: what a host is to find when it installs the packages, and when it
# removes them. DISTRIBUTION is where the kernel's packages are unpacked, BDF a
# device for vfio-pci.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"

dist=$1 bdf=$2
release=$(uname -r)
cd "$TOP"

# Everything but what every installation changes: logs, apt's and dpkg's own
# records, and the key that dkms makes when it is used for the first time.
listing() {
	find /etc /usr /var -xdev -path /var/log -prune -o -path /var/cache -prune -o \
		-path /var/lib/apt -prune -o -path '/var/lib/dkms/mok.*' -o \
		-path '/var/lib/dpkg/*-old' -o -printf '%y %p\n' | LC_ALL=C sort
}

# the commands of README.md, shown and run
run() { # NAME
	local commands

	commands=$("$TOP/scripts/readme.sh" "$1")
	say "README.md, $1"
	bash -exc "$commands"
}

type1v3_answers() { # [-2]
	"/run/type1v3_example" "$@" "/dev/vfio/$group" | tee /run/example
	grep -qx 'type1v3 answers' /run/example
}

# A machine whose kernel and headers come from their packages, and which has
# never seen the modules.
rm -rf "/lib/modules/$release/updates"
for dir in "$dist"/usr/src/linux-* "$dist"/usr/lib/linux-kbuild-*; do
	mkdir -p "${dir#"$dist"}"
	mount --bind "$dir" "${dir#"$dist"}"
done
ln -sfn "/usr/src/linux-headers-$release" "/lib/modules/$release/build"
depmod
listing >/run/before

run package-install
dkms status
dkms status -m vfio-type1v3 -k "$release" | grep -q installed
for module in vfio_dma vfio_iommu_type1v3; do
	[[ $(modinfo -n $module) == */updates/dkms/* ]] || die "$module is not the one of the package"
	[ "$(modinfo -F signer $module)" = 'DKMS module signing key' ] || die "$module is not signed"
done
[ -d /sys/module/vfio_iommu_type1v3 ] || die "the module is not loaded"

modprobe vfio-pci
echo vfio-pci >"/sys/bus/pci/devices/$bdf/driver_override"
echo "$bdf" >"/sys/bus/pci/devices/$bdf/driver/unbind" || true
echo "$bdf" >/sys/bus/pci/drivers_probe
group=$(basename "$(readlink "/sys/bus/pci/devices/$bdf/iommu_group")")

say "a program built with the installed header"
gcc -o /run/type1v3_example /usr/share/doc/vfio-type1v3-dev/examples/type1v3_example.c
type1v3_answers
if type1v3_answers -2; then die "type1v3 answers where nobody asked it to"; fi

say "loaded as the sample for modprobe.d describes"
modprobe -r vfio_pci vfio_iommu_type1v3 vfio_iommu_type1 vfio
sed '/^#\(softdep\|options .*alias_type1\)/s/^#//' \
	/usr/share/doc/vfio-type1v3-dkms/examples/vfio-type1v3.conf >/etc/modprobe.d/vfio-type1v3.conf
modprobe vfio-pci
echo "$bdf" >/sys/bus/pci/drivers_probe
type1v3_answers -2
modprobe -r vfio_pci vfio_iommu_type1v3 vfio_iommu_type1 vfio
rm /etc/modprobe.d/vfio-type1v3.conf

run package-remove
if modprobe -qn vfio_iommu_type1v3; then die "the module can still be found"; fi
listing >/run/after
diff /run/before /run/after || die "this is what an installation leaves behind"
say "removed without a trace"
