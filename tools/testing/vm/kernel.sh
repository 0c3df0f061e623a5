#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# kernel.sh stock|deb13-6.12|deb13-7.2|deb13-7.3|arm64|arm64-16k
# kernel.sh lean|debug|kcsan|arm64-64k
# kernel.sh -m KERNEL
#
# Makes a kernel with the project's modules ready to boot, and prints the
# directory that holds it: vmlinuz, initrd.gz, release, modules/ (what belongs
# at /lib/modules). What did not change since the last time is not built again.
# With -m it only builds the modules, where the kernel comes as a package.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"

VM=$TOP/tools/testing/vm
jobs=-j$(nproc)

# what the first user space of a distribution's kernel must load to reach its root
initrd_modules="virtio_iommu 9pnet_virtio 9p overlay"

make_initrd() { # OUT RELEASE BUSYBOX
	local out=$1 release=$2 root=$1/initrd module i=10

	rm -rf "$root"
	mkdir -p "$root"/{bin,dev,proc,sys,lower,rw,new,modules}
	cp "$3" "$root/bin/busybox"
	cp "$VM/init" "$root/init"
	chmod +x "$root/init"
	# the name's number is the order of loading
	while read -r module; do
		i=$((i + 1))
		xz -dcf "$module" >"$root/modules/$i.ko"
	done < <(for module in $initrd_modules; do
			modprobe -d "$out" -S "$release" --show-depends "$module" 2>/dev/null
		 done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }')
	(cd "$root" && find . | cpio -o -H newc --quiet) | gzip -1 >"$out/initrd.gz.new"
	mv "$out/initrd.gz.new" "$out/initrd.gz"
	rm -rf "$root"
}

# a number that changes when anything does that a kernel is made from
key() { # FILES...
	(cd "$TOP" && find "$@" -type f \( -name '*.[chS]' -o -name 'K*' -o -name 'Makefile*' \
		-o -name '*.config' -o -name '*.sh' -o -name init \) -print0 |
		sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-16)
}

# The kernel of a package. Debian 12's is built here, Debian 13's in its own root.
packaged() { # NAME
	local dist release out stamp modules busybox in_root=()

	dist=$("$TOP/scripts/fetch.sh" "$1")
	out=$CACHE/$1
	if [ "$1" = stock ]; then
		release=${dist##*/stock-}
		modules=$dist/lib/modules
		ln -sfn "../../../boot/vmlinuz-$release" "$modules/$release/vmlinuz"
	else
		release=$(cat "$dist/release")
		modules=$dist/usr/lib/modules
		in_root=("$TOP/scripts/in-root.sh")
	fi
	case $1 in
	arm64*) busybox=$("$TOP/scripts/fetch.sh" arm64-root)/usr/bin/busybox ;;
	*) busybox=$("$TOP/scripts/fetch.sh" busybox) ;;
	esac
	stamp="$release $(key Kbuild Makefile drivers include compat scripts tools/testing/vm/{init,kernel.sh})"
	if [ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ]; then
		rm -f "$out/stamp"
		mkdir -p "$out/build" "$out/lib"
		ln -sfn "$modules" "$out/lib/modules"
		ln -sfn "$modules" "$out/modules"
		ln -sfn "$modules/$release/vmlinuz" "$out/vmlinuz"
		say "building the modules against the headers of $release"
		"$TOP/scripts/snapshot.sh" "$out/build"
		slowly "$out/build.log" nice "${in_root[@]}" make -C "$out/build" "$jobs" \
			KDIR="$dist/usr/src/linux-headers-$release" KERNEL_MODULES="$modules/$release" \
			TYPE1V3_TESTS=1 modules
		[ -z "$modules_only" ] || return 0
		rm -rf "${modules:?}/$release/updates"
		mkdir -p "$modules/$release/updates"
		find "$out/build" -name '*.ko' -exec cp {} "$modules/$release/updates/" \;
		depmod -b "$out" "$release"
		make_initrd "$out" "$release" "$busybox"
		echo "$release" >"$out/release"
		echo "$stamp" >"$out/stamp"
	fi
}

# from_source NAME FRAGMENT...: the newest kernel from allnoconfig + fragments
from_source() {
	local name=$1 dist out build stamp release fragment
	local cross=() image=arch/x86/boot/bzImage busybox=busybox

	shift
	set -- "${@/#/tools/testing/vm/}"
	dist=$("$TOP/scripts/fetch.sh" source)
	out=$CACHE/$name
	build=$dist/build-$name
	case $name in
	arm64*)
		cross=(ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-)
		image=arch/arm64/boot/Image
		busybox=arm64-root
		;;
	esac
	stamp="${dist##*/} $(key Kconfig drivers include scripts tools/testing/vm/{init,kernel.sh} "$@")"
	if [ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ]; then
		rm -f "$out/stamp"
		mkdir -p "$out" "$build"
		with_lock tree "$TOP/scripts/in-tree.sh" "$dist/src"
		for fragment; do cat "$TOP/$fragment"; done >"$build/fragment"
		slowly "$out/config.log" make -C "$dist/src" O="$build" "${cross[@]}" \
			KCONFIG_ALLCONFIG="$build/fragment" allnoconfig
		check_config "$build"
		say "building kernel and modules of ${dist##*/} ($name)"
		slowly "$out/build.log" nice make -C "$build" "$jobs" "${cross[@]}" "${image##*/}" modules
		release=$(make -s -C "$build" "${cross[@]}" kernelrelease)
		rm -rf "${out:?}/lib"
		slowly "$out/install.log" make -C "$build" "${cross[@]}" \
			INSTALL_MOD_PATH="$out" modules_install
		ln -sfn lib/modules "$out/modules"
		cp "$build/$image" "$out/vmlinuz.new"
		mv "$out/vmlinuz.new" "$out/vmlinuz"
		busybox=$("$TOP/scripts/fetch.sh" "$busybox")
		[ -f "$busybox" ] || busybox+=/usr/bin/busybox
		make_initrd "$out" "$release" "$busybox"
		echo "$release" >"$out/release"
		echo "$stamp" >"$out/stamp"
	fi
}

# an option of the fragments that did not make it into .config is a mistake there
check_config() { # BUILD
	local missing

	missing=$(grep -E '^CONFIG_' "$1/fragment" | grep -vxFf "$1/.config"
		sed -n 's/^# \(CONFIG_[A-Z0-9_]*\) is not set/^\1=/p' "$1/fragment" |
			grep -f - "$1/.config") || true
	[ -z "$missing" ] || die "the configuration is not what the fragments ask for: ${missing//$'\n'/, }"
}

modules_only=''
if [ "${1:-}" = -m ]; then
	modules_only=1
	shift
fi
case ${1:-} in
stock | deb13-* | arm64 | arm64-16k) with_lock "vm-$1" packaged "$1" ;;
lean) with_lock vm-lean from_source lean lean.config ;;
arm64-64k) with_lock vm-arm64-64k from_source arm64-64k arm64-64k.config ;;
debug | kcsan) with_lock "vm-$1" from_source "$1" lean.config "$1.config" ;;
*) sed -n '/^# kernel.sh/,/^#$/s/^# //p' "$0" >&2; exit 2 ;;
esac
echo "$CACHE/$1"
