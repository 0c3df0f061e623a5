# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The guest's process 1 after the initramfs. boot.sh puts settings in front:
# vm_modules, vm_busybox, vm_cwd, vm_kernel, vm_iommu, vm_qemu and the array
# vm_command.

export PATH=${vm_qemu:+$vm_qemu:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TERM=dumb

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
modules=$(readlink -f /lib)/modules
mkdir -p /run/lock /dev/hugepages "$modules"
mount -t hugetlbfs hugetlbfs /dev/hugepages
ln -snf /proc/self/fd /dev/fd
# without them the power goes, and no verdict is a failure
mount --bind "${vm_modules:?}" "$modules" || "${vm_busybox:?}" poweroff -f
"${vm_busybox:?}" ip link set lo up
hostname "vm-${vm_kernel:?}" 2>/dev/null

port() { # NAME: the device of that virtio-serial port
	local dir

	for dir in /sys/class/virtio-ports/*; do
		[ "$(cat "$dir/name")" != "$1" ] || echo "/dev/${dir##*/}"
	done
}

# they look when told to: the one at the end, the other from now on
kmemleak=/sys/kernel/debug/kmemleak
[ ! -w $kmemleak ] || echo scan=off >$kmemleak
kcsan=/sys/kernel/debug/kcsan
[ ! -w $kcsan ] || echo on >$kcsan

output=$(port output)
verdict=$(port verdict)

# a port can be opened once only, and scripts do open /dev/stdout: hence a pipe
exec {out}> >(exec cat >"$output")
copier=$!
cd "${vm_cwd:?}" || cd /
# shellcheck disable=SC2154
VM_KERNEL=$vm_kernel VM_IOMMU=${vm_iommu:?} setsid "${vm_command[@]}" </dev/null >&$out 2>&1 {out}>&-
status=$?

# what leaked must be in the log before a verdict is given
if [ -w $kmemleak ]; then
	# an object must be some seconds old to be reported; and what one scan found
	# alone may only have been on its way from here to there
	sleep 6
	echo scan >$kmemleak
	echo scan >$kmemleak
	while read -r line; do
		echo "kmemleak: leak: $line" >/dev/kmsg
	done <$kmemleak
fi

if [ -w $kcsan ]; then
	while read -r line; do
		echo "kcsan: $line" >/dev/kmsg
	done <$kcsan
fi

exec {out}>&-
# a process left behind may hold the pipe open: do not wait for ever
for _ in {1..1200}; do
	kill -0 $copier 2>/dev/null || break
	sleep 0.1
done
echo "status $status" >"$verdict"
"$vm_busybox" poweroff -f
