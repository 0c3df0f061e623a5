#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# boot.sh [OPTIONS] SCRIPT [ARGS...]
#
# Boots a kernel under QEMU with this machine's root file system as its root
# (read-only, a tmpfs on top), runs SCRIPT there as root in the same directory,
# shows its output, and exits with its status. The project's modules are in the
# guest's /lib/modules: modprobe finds them.
#
#   -k KERNEL    stock (the distribution's 6.12), deb13-6.12, deb13-7.2 or deb13-7.3 (Debian
#                13's); lean, debug or kcsan (the newest 7.x, built); arm64 or arm64-16k
#                (Debian 13's for arm64, with a root of that); arm64-64k (the newest, built)
#   -i IOMMU     vtd (default), virtio, amd, none; smmuv3 (default, of arm64)
#   -m MIB       memory, default 2048
#   -c CPUS      default 1
#   -t SECONDS   time-out, default 7200: for what hangs, not for a slow machine
#   -q 'ARGS'    more arguments for QEMU, split at blanks; may be repeated
#   -p 'PARAMS'  more kernel parameters; may be repeated
#   -a REGEX     a kernel message that is no failure; may be repeated
#   -o DIR       keep console.log there
#   -n           do not look whether kernel and modules must be built again
#   -v           show the kernel's console too, on stderr
#
# TYPE1V3_QEMU in the environment selects a QEMU that is not the machine's own:
# 10.0 or 11.1, which scripts/fetch.sh gets.
#
# The run fails without a verdict from the guest (status 125: a panic, a
# power-off; 124: time-out) and on any kernel message of the kinds in $bad that
# was not announced (status 126). SCRIPT announces one before it provokes it, by
# records in the kernel's log, as messages.awk describes. On the debug kernel a
# warning is a panic; SCRIPT clears panic_on_warn meanwhile.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"

VM=$TOP/tools/testing/vm
bad='WARNING:|BUG:|BUG |Oops|KASAN:|KCSAN:|KFENCE:|UBSAN:|kmemleak: leak:|INFO: task|INFO: rcu'
bad+='|rcu:.*stall|soft lockup|possible .* (locking|deadlock|lock)|Kernel panic|general protection'
bad+='|unable to handle|refcount_t:|list_(add|del) corruption|Bad page|Modules linked in'
bad+='|pagealloc: (memory corruption|single bit)|(ODEBUG|detector) disabled'
# DMA that reached nothing: VT-d, AMD-Vi, SMMUv3, virtio-iommu
bad+='|DMAR: .*fault|AMD-Vi: Event|arm-smmu.*: event|virtio_iommu .*fault from EP'

# One processor for every QEMU, so that the same machine runs everywhere: what
# "max" was in QEMU 7.2, without 5 levels of page tables and without fast string
# instructions, of which a clock that counts instructions would count each byte.
cpu=qemu64,phys-bits=40,la57=off,erms=off,3dnow=on,3dnowext=on,abm=on,acpi=on,adx=on,aes=on
cpu+=,arat=on,avx=on,avx2=on,bmi1=on,bmi2=on,clflushopt=on,clwb=on,cr8legacy=on,f16c=on,fma=on
cpu+=,fsgsbase=on,mmxext=on,monitor=on,movbe=on,mpx=on,npt=on,pclmulqdq=on,pdpe1gb=on,pks=on,pku=on
cpu+=,popcnt=on,rdrand=on,rdtscp=on,smap=on,smep=on,ss=on,sse4.1=on,sse4.2=on,sse4a=on,ssse3=on
cpu+=,svme-addr-chk=on,umip=on,vaes=on,vgif=on,xgetbv1=on,xsave=on,xsaveopt=on

usage() { sed -n '/^# boot.sh/,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }

kernel='' iommu='' mib=2048 cpus=1 seconds=7200 keep='' as_is='' verbose='' params=''
extra=() allow=()
while getopts k:i:m:c:t:q:p:a:o:nvh option; do
	case $option in
	k) kernel=$OPTARG ;;
	i) iommu=$OPTARG ;;
	m) mib=$OPTARG ;;
	c) cpus=$OPTARG ;;
	t) seconds=$OPTARG ;;
	q) read -ra words <<<"$OPTARG"; extra+=("${words[@]}") ;;
	p) params+=" $OPTARG" ;;
	a) allow+=("$OPTARG") ;;
	o) keep=$OPTARG ;;
	n) as_is=1 ;;
	v) verbose=1 ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
if [ $# = 0 ] || [ -z "$kernel" ]; then usage; fi

arch=x86_64
case $kernel in arm64*) arch=aarch64 ;; esac
case $arch-${iommu:=$([ $arch = aarch64 ] && echo smmuv3 || echo vtd)} in
aarch64-smmuv3) machine=virt,gic-version=3,iommu=smmuv3 iommu_args=() ;;
aarch64-none) machine=virt,gic-version=3 iommu_args=() ;;
aarch64-*) usage ;;
*) machine=q35 ;;
esac
case $iommu in
smmuv3) ;;
vtd) iommu_args=(-device "intel-iommu,intremap=on,aw-bits=48") ;;
virtio) iommu_args=(-device virtio-iommu-pci) ;;
amd) iommu_args=(-device "amd-iommu,$([ "${TYPE1V3_QEMU:-}" = 11.1 ] && echo dma-remap=on,xtsup=on || echo intremap=on)") ;;
none) iommu_args=() ;;
*) usage ;;
esac

root=/ share='' console_device=ttyS0 busybox=$CACHE/busybox
if [ $arch = aarch64 ]; then
	cpu=max,pauth-impdef=on
	console_device=ttyAMA0
	busybox=/usr/bin/busybox
	root=$("$TOP/scripts/fetch.sh" arm64-root)
	share=" vm.share=$TOP:$CACHE"
	extra+=(-fsdev "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"
		-device "virtio-9p-pci,fsdev=host,mount_tag=host")
fi

use_qemu
dir=$CACHE/$kernel
if [ -z "$as_is" ] || [ ! -e "$dir/release" ]; then
	"$VM/kernel.sh" "$kernel" >/dev/null
fi
run=$(mktemp -d "$CACHE/run.XXXXXX")
trap 'rm -rf "$run"' EXIT
console=$run/console.log
if [ -n "$keep" ]; then
	mkdir -p "$keep"
	console=$(cd "$keep" && pwd)/console.log
fi
: >"$console"

{
	printf 'vm_modules=%q\n' "$(readlink -f "$dir/modules")"
	printf 'vm_busybox=%q\n' "$busybox"
	printf 'vm_kernel=%q vm_iommu=%q vm_cwd=%q\n' "$kernel" "$iommu" "$PWD"
	printf 'vm_qemu=%q\n' "$qemu_dir"
	printf 'vm_command=('
	printf '%q ' "$@"
	printf ')\n'
	cat "$VM/guest.sh"
} >"$run/guest"

# Without multi-threaded TCG, which stalls now and then. Long time-outs inside,
# because nobody knows what else this machine is doing; ours is outside.
boot_params="console=$console_device loglevel=8 panic=-1 oops=panic no_timer_check tsc=reliable"
boot_params+=" intel_iommu=on log_buf_len=4M rcupdate.rcu_cpu_stall_timeout=120 watchdog_thresh=60 printk.devkmsg=on"
# a clock that counts instructions is the same everywhere
if [ $arch = x86_64 ] && [[ " ${extra[*]} " != *" -icount "* ]]; then
	gcc -O2 -o "$run/tsc-khz" "$VM/tsc-khz.c"
	boot_params+=" tsc_early_khz=$("$run/tsc-khz")"
fi
case $kernel in
debug) boot_params+=" panic_on_warn=1 iommu.debug_pagealloc=1 page_owner=on page_poison=1"
	boot_params+=" kmemleak=on" ;;&
debug | kcsan) boot_params+=" sysctl.kernel.hung_task_timeout_secs=600" ;;
esac
qemu=("qemu-system-$arch" -nodefaults -no-user-config -display none -no-reboot
	-machine "$machine" -accel "tcg,thread=single" -cpu "$cpu" -smp "$cpus" -m "$mib"
	"${iommu_args[@]}"
	-fsdev "local,id=root,path=$root,security_model=none,readonly=on,multidevs=remap"
	-device "virtio-9p-pci,fsdev=root,mount_tag=root"
	-chardev "stdio,id=output,signal=off" -chardev "file,id=verdict,path=$run/verdict"
	-device virtio-serial-pci
	-device "virtserialport,chardev=output,name=output"
	-device "virtserialport,chardev=verdict,name=verdict"
	-serial "file:$console"
	-kernel "$dir/vmlinuz" -initrd "$dir/initrd.gz"
	-append "vm.run=$run$share $boot_params$params"
	"${extra[@]}")

if [ -n "$verbose" ]; then
	tail -n +1 -f "$console" >&2 &
	trap 'kill $! 2>/dev/null; rm -rf "$run"' EXIT
fi
# QEMU would close the output port at the end of its input: it gets no end
mkfifo "$run/stdin"
status=0
timeout --foreground -k 5 "$seconds" "${qemu[@]}" <>"$run/stdin" || status=$?

fail() { # STATUS MESSAGE
	say "$2; the kernel's last words:"
	tail -n "${3:-40}" "$console" | tr -d '\r' >&2
	exit "$1"
}

case $status in
0) ;;
124 | 137) fail 124 "time-out after $seconds s" ;;
*) fail 125 "QEMU failed with status $status" ;;
esac
verdict=$(cat "$run/verdict" 2>/dev/null || true)
[[ $verdict =~ ^status\ [0-9]+$ ]] || fail 125 "the guest ended without a verdict"

if ! BAD=$bad ALLOW=$(printf '%s\n' "${allow[@]}") awk -f "$VM/messages.awk" "$console" \
	>"$run/messages" 2>&1; then
	say "unexpected kernel messages, or announcements that were wrong:"
	head -n 20 "$run/messages" >&2
	fail 126 "the kernel complained" 80
fi
exit "${verdict#status }"
