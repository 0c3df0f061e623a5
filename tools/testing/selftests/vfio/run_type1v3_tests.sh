#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# run_type1v3_tests.sh [TEST...]
#
# Runs the type1v3 selftests, all or those named, as root on a machine with an
# IOMMU and devices that nobody needs: the contents of NVMe disks are lost. A
# TEST may have arguments: 'NAME ARGS'.
# Each test's TAP goes to stdout. The status is 0 when none of them failed.
#
#   TYPE1V3_MODDIR  directory with the modules; without it modprobe finds them
#   TYPE1V3_BINDIR  directory with the tests; without it this script's own
#   TYPE1V3_TOP     the program type1v3-top; without it, where a kernel tree has it
#   TYPE1V3_SHORT   not empty: leave out what takes its time and depends on the second
#                   record, but neither on the kernel nor on the IOMMU
#
# Devices wanted: three NVMe controllers, and an ivshmem-plain for memory behind
# a BAR, each in a group of its own; and an edu device that no IOMMU is in front
# of. Tests that need one that is missing are skipped. The third controller, if
# it is an emulated one, must be of a kind that has written all data of a command
# when it starts the next (QEMU's null-co).
set -u

here=$(cd "$(dirname "$0")" && pwd)
bindir=${TYPE1V3_BINDIR:-$here}
tests=("$@")
[ $# -gt 0 ] || tests=(type1v3_uapi_test type1v3_limits_test type1v3_memlock_test type1v3_many_test
	type1v3_dma_test type1v3_cut_test type1v3_batch_test type1v3_emulated_test
	type1v3_dirty_test type1v3_vaddr_test type1v3_trace_test type1v3_compare_test
	type1v3_stream_test type1v3_race_test)
# Lockdep finds fault with type1, once, and is silent from then on: no control there,
# nor where only races are looked for
excluded=()
if [ -e /proc/lockdep ] || [ -e /sys/kernel/debug/kcsan ]; then
	for kind in '' _small _thp _huge_2m _huge_1g _shared; do
		excluded+=(-V "type1v2$kind")
	done
fi

short=()
if [ -n "${TYPE1V3_SHORT:-}" ]; then
	for variant in physical_pt last_group_pt pt {,pt_}{alternating,regions,aliases}; do
		short+=(-V "$variant")
	done
fi

die() {
	echo "Bail out! $*"
	exit 1
}

load() { # MODULE: load it unless it is there
	[ ! -d "/sys/module/$1" ] || return 0
	if [ -n "${TYPE1V3_MODDIR:-}" ] && [ -e "$TYPE1V3_MODDIR/$1.ko" ]; then
		insmod "$TYPE1V3_MODDIR/$1.ko" || die "cannot load $1"
	else
		modprobe -q "$1" || die "cannot load $1"
	fi
}

load vfio_pci
load vfio_iommu_type1
[ -d /sys/module/vfio_iommu_type1v3 ] || load vfio_dma
load vfio_iommu_type1v3
load vfio_emulated_test
load vfio_mock_iommu
# where the processor and the kernel have it
modprobe -qa kvm_intel kvm_amd

# VT-d remaps interrupts; AMD's IOMMU may not, as the others
case $(echo /sys/class/iommu/*) in
*/dmar*)
	# mock IOMMUs are the same behind any other: once is enough
	[ $# -gt 0 ] || tests+=(type1v3_mock_test type1v3_fault_test type1v3_trackers_test
		'type1v3_fuzz --mock --ops 2000'
		'type1v3_on_mock three-dirty,calls type1v3_race_test -f held')
	;;
*)
	for module in vfio_iommu_type1 vfio_iommu_type1v3; do
		echo Y >"/sys/module/$module/parameters/allow_unsafe_interrupts" ||
			die "cannot allow unsafe interrupts"
	done
	;;
esac

bind() { # BDF: give the device to vfio-pci
	local dir=/sys/bus/pci/devices/$1

	echo vfio-pci >"$dir/driver_override"
	if [ "$(basename "$(readlink "$dir/driver")")" != vfio-pci ]; then
		[ ! -e "$dir/driver" ] || echo "$1" >"$dir/driver/unbind"
		echo "$1" >/sys/bus/pci/drivers_probe
	fi
	[ "$(basename "$(readlink "$dir/driver")")" = vfio-pci ] ||
		die "cannot bind $1 to vfio-pci: is it behind an IOMMU?"
}

nvme=()
for dir in /sys/bus/pci/devices/*; do
	read -r class <"$dir/class"
	read -r vendor <"$dir/vendor"
	read -r device <"$dir/device"
	case $class$vendor$device in
	0x010802*) nvme+=("${dir##*/}") ;;
	*0x1af40x1110) export TYPE1V3_BAR=${dir##*/} ;;
	*0x12340x11e8) [ -e "$dir/iommu_group" ] || export TYPE1V3_NOIOMMU=${dir##*/} ;;
	esac
done
[ ${#nvme[@]} -lt 1 ] || export TYPE1V3_NVME0=${nvme[0]}
[ ${#nvme[@]} -lt 2 ] || export TYPE1V3_NVME1=${nvme[1]}
[ ${#nvme[@]} -lt 3 ] || export TYPE1V3_NVME2=${nvme[2]}
for bdf in "${nvme[@]}" ${TYPE1V3_BAR:-}; do
	bind "$bdf"
done

# pages of a PMD can be had at run time, one of 1 GiB hardly: see hugepages= on the
# kernel's command line
pmd_size=$(cat /sys/kernel/mm/transparent_hugepage/hpage_pmd_size)
pages=/sys/kernel/mm/hugepages/hugepages-$((pmd_size >> 10))kB
[ ! -d "$pages" ] || echo 16 >"$pages/nr_hugepages"

top=$here/../../../vfio/type1v3-top
[ -n "${TYPE1V3_TOP:-}" ] || [ ! -x "$top" ] || export TYPE1V3_TOP=$top

# passes on what a test prints, and sets $plan when it has one
while_running() {
	local line

	while IFS= read -r line || [ -n "$line" ]; do
		printf '%s\n' "$line"
		[[ ! $line =~ ^1\.\.[1-9] ]] || plan=1
	done
}

# so that $plan is this shell's
shopt -s lastpipe
failed=0
for test in "${tests[@]}"; do
	echo "# $test"
	read -ra words <<<"$test"
	dir=$bindir options=()
	case ${words[0]} in
	*.sh) dir=$here ;;
	*_test) options=("${excluded[@]}" "${short[@]}") ;;
	esac
	if [ "${words[0]}" = type1v3_mock_test ] && [ ${#short[@]} != 0 ]; then
		for variant in $("$dir/type1v3_mock_test" -l |
				 grep -o '\btype1v3_pt[a-z0-9_]*' | sort -u); do
			options+=(-V "$variant")
		done
	fi
	# in front, because the first option that fits a case counts
	plan=
	"$dir/${words[0]}" "${options[@]}" "${words[@]:1}" | while_running
	status=${PIPESTATUS[0]}
	# who has no plan has tested nothing, whatever the status is
	[ -n "$plan" ] || {
		echo "Bail out! $test has no plan"
		failed=1
	}
	# 4: everything was skipped
	[ "$status" = 0 ] || [ "$status" = 4 ] || {
		echo "# $test ended with status $status"
		failed=1
	}
done
exit $failed
