#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# package-guest.sh DISTRIBUTION DIR DEVICE
#
# In the VM: what a host is to find when it installs the packages, and when it
# removes them. DISTRIBUTION is where the kernel's packages are unpacked, DIR has
# modules/ of the kernel and an archive of /var/lib/dpkg/info, DEVICE is for
# vfio-pci.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"

dist=$1 dir=$2 device=$3
export DEBIAN_FRONTEND=noninteractive
release=$(uname -r)
modules=$(readlink -f /lib)/modules
cd "$TOP"

# What is written below DIR from now on goes to a place of its own, and what it has
# had can be seen in another. LOWER is what it has had besides.
watch() { # DIR [LOWER]
	local at=/run/watch${1//\//-}

	mkdir -p "$at"/{before,upper,work}
	mount --bind "$1" "$at/before"
	mount -t overlay -o "lowerdir=${2:+$2:}$at/before,upperdir=$at/upper,workdir=$at/work" overlay "$1"
}

# What is new, gone or other than before, except for what every installation
# changes: logs, caches, apt's and dpkg's own records, and the key that dkms makes
# when it is used for the first time.
changed() { # DIR
	local file at=/run/watch${1//\//-}

	(cd "$at/upper" && find . -mindepth 1 -printf '%P\n') | while read -r file; do
		case $1/$file in
		/var/log/* | /var/cache/* | /var/lib/apt/* | /var/lib/dpkg/* | /var/lib/dkms/mok.*) continue ;;
		esac
		if [ ! -e "$1/$file" ] && [ ! -L "$1/$file" ]; then
			echo "gone: $1/$file"
		elif [ ! -e "$at/before/$file" ] && [ ! -L "$at/before/$file" ]; then
			echo "new: $1/$file"
		elif [ -f "$1/$file" ] && ! cmp -s "$1/$file" "$at/before/$file"; then
			echo "other: $1/$file"
		fi
	done
}

# the commands of the documents, with our device instead of theirs, shown and run
run() { # NAME
	local commands

	commands=$("$TOP/scripts/readme.sh" "$1")
	commands=${commands//0000:03:00.0/$device}
	say "$1"
	bash -exc "$commands"
}

type1v3_answers() { # [-2]
	"/run/type1v3_example" "$@" "/dev/vfio/$group" | tee /run/example
	grep -qx 'type1v3 answers' /run/example
}

unload() { modprobe -r vfio_pci vfio_iommu_type1v3 vfio_iommu_type1 vfio; }

# A machine whose kernel and headers come from their packages, and which has
# never seen the modules.
mount --bind "$dir/modules" "$modules"
ln -sn "/usr/src/linux-headers-$release" "$modules/$release/build"
depmod
mkdir -p /run/var/lib/dpkg
tar -C /run/var/lib/dpkg -xf "$dir/dpkg"
watch /etc
watch "$modules"
mount --move "$modules" /mnt
watch /usr "$dist/usr"
mount --move /mnt "$modules"
watch /var /run/var

run package-install
dkms status
dkms status -m vfio-type1v3 -k "$release" | grep -q installed
for module in vfio_dma vfio_iommu_type1v3; do
	[[ $(modinfo -n $module) == */updates/dkms/* ]] || die "$module is not the one of the package"
	[ "$(modinfo -F signer $module)" = 'DKMS module signing key' ] || die "$module is not signed"
done
[ -d /sys/module/vfio_iommu_type1v3 ] || die "the module is not loaded"

say "the program of the guide, built with the installed header"
modprobe vfio-pci
echo vfio-pci >"/sys/bus/pci/devices/$device/driver_override"
echo "$device" >/sys/bus/pci/drivers_probe
group=$(basename "$(readlink "/sys/bus/pci/devices/$device/iommu_group")")
gcc -Wall -Wextra -Werror -o /run/type1v3_example /usr/share/doc/vfio-type1v3-dev/examples/type1v3_example.c
type1v3_answers
if type1v3_answers -2; then die "type1v3 answers where nobody asked it to"; fi
unload

run guide-alias
run vmms-device
type1v3_answers -2
echo 0 >/sys/module/vfio_iommu_type1v3/parameters/alias_type1
if type1v3_answers -2; then die "type1v3 answers after it was told not to"; fi
run guide-alias-later
type1v3_answers -2
unload

run package-alias
# as after the next boot
unload
run package-use | tee /run/top
grep -q 'containers: 1 .*mapped: ' /run/top
grep -q ' qemu-system-x86 ' /run/top
kill "$(pidof qemu-system-x86_64)"
# pidof does not find it any more when it is about to close its files
until (: <>"/dev/vfio/$group") 2>/dev/null; do sleep 0.1; done
type1v3_answers -2
unload

run package-remove
if modprobe -qn vfio_iommu_type1v3; then die "the module can still be found"; fi
say "what is left"
left=$(for tree in /etc /usr "$modules" /var; do changed "$tree"; done)
[ -z "$left" ] || die "this is what an installation leaves behind:"$'\n'"$left"
# it was seen that there was something
[ -d /run/watch-usr/upper/src ] || die "the installation was not watched"
say "removed without a trace"
