# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A guest in a guest, for the demo and the tests with real clients. Sourced on
# this machine, which puts the inner guest together and boots it; and in the
# outer VM, where it goes on from there, because to boot once more in there, on a
# CPU that is emulated twice over, takes minutes.
#
# In a directory of its own: vmlinux, inner.cpio, and NAME.state for every kind
# of machine that was booted; and inner-qemu, the name of a QEMU, if it is not to be
# the first one in $PATH.

nested_dir=$(dirname "${BASH_SOURCE[0]}")

# --- putting it together, on this machine ----------------------------------

# The kernel inside a bzImage, as its header describes the place.
unpack_kernel() { # BZIMAGE
	local sectors offset length

	sectors=$(od -An -tu1 -j $((0x1f1)) -N 1 "$1")
	offset=$(od -An -tu4 -j $((0x248)) -N 4 "$1")
	length=$(od -An -tu4 -j $((0x24c)) -N 4 "$1")
	offset=$(((sectors + 1) * 512 + offset))
	# the last word is the unpacked size, no part of the compressed data
	head -c "$((offset + length - 4))" "$1" | tail -c "+$((offset + 1))" | zstd -dqc
}

# The outer's kernel, and an initramfs with what is needed.
make_inner() { # DIR
	local out=$CACHE/stock root=$1/root release module i

	release=$(cat "$out/release")
	unpack_kernel "$out/vmlinuz" >"$1/vmlinux"
	mkdir -p "$root"/{bin,dev,modules,proc,sys}
	cp "$("$TOP/scripts/fetch.sh" busybox)" "$root/bin/busybox"
	# no more names than that: making them takes time in there
	for i in cat insmod ln mount poweroff readlink reboot rm sleep stty; do
		ln -s busybox "$root/bin/$i"
	done
	i=10
	gcc -Wall -Wextra -O2 -static -o "$root/bin/nested-io" "$nested_dir/nested-io.c"
	install -m 755 "$nested_dir/nested-init" "$root/init"
	while read -r module; do
		i=$((i + 1))
		xz -dcf "$module" >"$root/modules/$i.ko"
		# smaller, and without a signature to be checked
		strip --strip-debug --remove-section=.BTF "$root/modules/$i.ko"
	done < <(for module in virtio_iommu virtio_mem nvme; do
			modprobe -d "$out" -S "$release" --show-depends "$module"
		 done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }')
	(cd "$root" && find . | cpio -o -H newc --quiet) >"$1/inner.cpio"
}

# Random data for a disk, and what it is to be after its part was copied.
make_disk() { # FILE BYTES FROM TO COUNT: FILE, FILE.expected
	head -c "$2" /dev/urandom >"$1"
	cp "$1" "$1.expected"
	dd if="$1" of="$1.expected" conv=notrunc status=none bs=1M iflag=skip_bytes,count_bytes \
		oflag=seek_bytes skip="$3" seek="$4" count="$5"
}

# With the guest's own program: a cryptographic sum would take it minutes.
sum_of() { # DIR FILE
	"$1/root/bin/nested-io" sum "$2" 0 "$(stat -c %s "$2")"
}

# --- running it -------------------------------------------------------------

quiet=
note() { [ -n "$quiet" ] || printf '  %3d s  %s\n' "$SECONDS" "$*"; }
fail() {
	quiet=
	note "FAILED: $*"
	{ tail -n 15 "$fn/console"; cat "$fn/errors"; } 2>/dev/null |
		tr -d '\r' | sed 's/^/         | /' || true
	exit 1
}
exec 9<> <(:)
pause() { read -r -t "$1" -u 9 || true; }	# sleep, without a process

# What takes long in a guest of a guest and is of no use there.
inner_quick="cryptomgr.notests audit=0 tsc=reliable no_timer_check nowatchdog rodata=off"
inner_quick+=" quiet lsm= 8250.nr_uarts=1"
inner_quick+=" initcall_blacklist=jent_mod_init,trace_eval_init,init_kprobe_trace"
inner_quick+=",bpf_tcp_ca_kfunc_init,load_system_certificate_list"

# The kinds of machine. virtio-iommu is before the disk, which stays away until
# the guest has booted: firmware that drives it without a mapping would wait for
# ever. Without boot-bypass all of the guest's memory is never mapped at once. With an
# intel-iommu that the guest does not use, it is mapped for each device on its own.
inner_mib=224
inner_machine() { # viommu|static|vtd: sets $machine and $parameters
	parameters="iommu.strict=1"
	case $1 in
	vtd)
		machine=(-m "$inner_mib" -device "intel-iommu,caching-mode=on")
		parameters="intel_iommu=off"
		;;
	viommu) machine=(-m "$inner_mib" -device "virtio-iommu-pci,boot-bypass=off") ;;
	static)
		machine=(-m "$inner_mib,maxmem=1G" -object "memory-backend-ram,id=ram,size=${inner_mib}M"
			-numa "node,cpus=0,memdev=ram" -numa node
			-object "memory-backend-ram,id=more,size=256M"
			-device "virtio-mem-pci,id=more,memdev=more,node=1,requested-size=0") ;;
	esac
}

# Starts QEMU; $inner_enter, if not empty, is a command that
# executes its arguments.
inner_enter=()
start_inner() { # DIR KIND QEMU-ARGUMENT...
	local dir=$1 qemu machine parameters program=qemu-system-x86_64

	[ ! -e "$dir/inner-qemu" ] || program=$(cat "$dir/inner-qemu")
	inner_machine "$2"
	shift 2
	fn=$(mktemp -d "$dir/qemu.XXXXXX")
	mkfifo "$fn/in" "$fn/monitor.in" "$fn/monitor.out"
	: >"$fn/console"
	# both ends are ours, so that nobody waits for the other to open his
	exec 6<>"$fn/in" 7<>"$fn/monitor.in" 8<>"$fn/monitor.out" 5<"$fn/console"

	# QEMU 7.2 under another TCG garbles the flags of cmpxchg16b: cx16=off.
	# A timer tick costs 2 ms there, of the 4 ms until the next: hence -icount, a
	# clock that follows the guest's instructions, however slow they are.
	# The guest's kernel is the stock one, unpacked, because that is slow too.
	qemu=("$program" -nodefaults -no-user-config -display none -no-reboot
		-machine "q35,sata=off,i8042=off,hpet=off,smbus=off,vmport=off"
		-accel "tcg,thread=single" -icount shift=4 -cpu "qemu64,cx16=off" "${machine[@]}"
		-device "pcie-root-port,id=bay,slot=1" -device "pcie-root-port,id=bay2,slot=2"
		-chardev "pipe,id=monitor,path=$fn/monitor" -mon "chardev=monitor,mode=control"
		-serial stdio -kernel "$dir/vmlinux" -initrd "$dir/inner.cpio"
		-append "console=ttyS0 $parameters panic=-1 nokaslr mitigations=off $inner_quick"
		"$@")
	"${inner_enter[@]}" "${qemu[@]}" <&6 >>"$fn/console" 2>"$fn/errors" &
	qemu_pid=$!
	heard=
	monitor qmp_capabilities
}

# Boots the inner guest as a machine of KIND and keeps its state.
boot_inner() { # DIR KIND
	start_inner "$1" "$2"
	wait_for 120 booted
	monitor migrate-set-capabilities "'capabilities': [{ 'capability': 'events', 'state': true }]"
	monitor migrate "'uri': 'exec:cat >$1/$2.state'"
	await 60 '"status": "completed"'
	monitor quit
	wait "$qemu_pid" || fail "QEMU failed"
	rm -r "$fn"
}

# Goes on where boot_inner() ended.
resume_inner() { # DIR KIND
	start_inner "$1" "$2" -incoming "exec:cat $1/$2.state"
	await 120 '"RESUME"'
}

# Sets $pages. One read of the whole file: in two, its lines could move between.
locked_pages() {
	local status

	IFS= read -r -d '' status <"/proc/$qemu_pid/status" || true
	pages=0
	[[ ! $status =~ VmLck:[[:space:]]*([0-9]+) ]] || pages=$((BASH_REMATCH[1] / 4))
}

order() { echo "$*" >&6; }
monitor() { echo "{ 'execute': '$1', 'arguments': { ${2:-} } }" >&7; }

may_refuse=
hear() { # what QEMU has to say, into $heard
	local line

	while read -r -t 0 -u 8 && IFS= read -r -u 8 line; do
		[[ -n $may_refuse || $line != *'"error"'* ]] || fail "QEMU: $line"
		heard+=$line$'\n'
	done
	kill -0 "$qemu_pid" 2>/dev/null || fail "QEMU ended"
}

# Limits of waiting are what an idle machine needs and some: a busy one may take so
# many times as long. They end what hangs, and decide nothing else.
patience=20

await() { # SECONDS REGEX: until QEMU says it
	local end=$((SECONDS + patience * $1))

	until [[ $heard =~ $2 ]]; do
		[ $SECONDS -lt $end ] || fail "QEMU did not say '$2' in $((patience * $1)) s"
		pause 0.1
		hear
	done
	heard=${heard#*"${BASH_REMATCH[0]}"}
}

between() { :; }	# called now and then while the inner guest works

wait_for() { # SECONDS MESSAGE: until the inner guest says it; $answer is the rest
	local end=$((SECONDS + patience * $1)) life=$((SECONDS + 10)) part line='' pages

	while [ $SECONDS -lt $end ]; do
		while IFS= read -r -u 5 part || { line+=$part; false; }; do
			# the end of a line can come in two parts
			line+=$part
			line=${line%$'\r'}
			case $line in
			"inner: failed"*) fail "inner guest: $line" ;;
			"inner: "*) note "inner guest: ${line#inner: }" ;;
			*"Kernel panic"* | *"Oops"* | *"WARNING: "*) fail "inner guest: $line" ;;
			esac
			if [[ $line == "inner: $2"* ]]; then
				answer=${line#inner: "$2"}
				answer=${answer# }
				return
			fi
			line=
		done
		hear
		locked_pages
		between
		if [ $SECONDS -ge $life ]; then
			life=$((SECONDS + 10))
			note "  waiting for the inner guest to say '$2'; locked pages: $pages"
		fi
		pause 0.1
	done
	fail "the inner guest did not say '$2' in $((patience * $1)) s"
}

# --- which backend, in the outer VM ------------------------------------------

give_to_vfio() { # PCI-ADDRESS
	modprobe vfio-pci
	echo vfio-pci >"/sys/bus/pci/devices/$1/driver_override"
	echo "$1" >/sys/bus/pci/drivers_probe
	[ -e "/sys/bus/pci/drivers/vfio-pci/$1" ] || fail "$1 has no driver"
}

# Sets $users, to none if there is no such module.
refcount() {
	users=none
	[ ! -e "/sys/module/$1/refcnt" ] || read -r users <"/sys/module/$1/refcnt"
}

use_backend() { # type1v2|type1v3|type1v3-pt
	local alias=

	backend=$1
	module=vfio_iommu_type1v3 other=vfio_iommu_type1
	case $backend in
	type1v2) module=vfio_iommu_type1 other=vfio_iommu_type1v3 ;;
	type1v3) alias=1 ;;
	type1v3-pt) alias=pt ;;
	*) fail "what is $backend?" ;;
	esac
	modprobe $module
	# QEMU asks for type1v2 and is to get this
	[ -z "$alias" ] || echo $alias >/sys/module/$module/parameters/alias_type1
	# afterwards, because loading anything of VFIO brings type1 with it
	for _ in {1..1000}; do
		refcount $other
		[ "$users" != none ] || break
		# its last user may be on the way out
		rmmod $other 2>/dev/null || true
		pause 0.2
	done
	[ "$users" = none ] || fail "$other is still there"
	refcount $module
	[ "$users" = 0 ] || fail "$module: not loaded, or in use already"
}

# The proof that it was this backend: the other is not even loaded, and this
# one's module has a user as long as QEMU has the container.
in_use() {
	refcount "$module"
	if [ "$users" = none ] || [ "$users" = 0 ]; then
		fail "the disk is not behind $backend: $module has no user"
	fi
	refcount "$other"
	[ "$users" = none ] || fail "is the disk behind $backend? $other is loaded"
}

given_back() { # until QEMU has let go of the container
	local tries

	for ((tries = 0; tries < 600 * patience; tries++)); do
		refcount "$module"
		[ "$users" != 0 ] || return 0
		pause 0.1
	done
	fail "$module still has a user"
}

# What a process's container says of itself: $mapped and $pinned pages, $bytes of metadata.
# No other backend can.
usage() { # PROCESS
	local held

	held=$("$dir/clients-usage" "$1") || fail "no answer from type1v3: status $?"
	# shellcheck disable=SC2034  # for those that source this
	read -r mapped pinned bytes <<<"$held"
}

pins() { # all that was ever pinned and not unpinned in this machine
	echo 1 >/proc/sys/vm/stat_refresh
	awk '/^nr_foll_pin_acquired/ { n += $2 } /^nr_foll_pin_released/ { n -= $2 }
	     END { printf "%d\n", n }' /proc/vmstat
}
