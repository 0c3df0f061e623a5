#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# kernel.sh stock|lean|debug|kcsan
#
# Makes a kernel with the project's modules ready to boot, and prints the
# directory that holds it: vmlinuz, initrd.gz, release, modules/ (what belongs
# at /lib/modules). What did not change since the last time is not built again.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"

VM=$TOP/tools/testing/vm
jobs=-j$(nproc)

# what the first user space of the stock kernel must load to reach its root
initrd_modules="virtio_iommu 9pnet_virtio 9p overlay"

make_initrd() { # OUT RELEASE
	local out=$1 release=$2 root=$1/initrd module i=10

	rm -rf "$root"
	mkdir -p "$root"/{bin,dev,proc,sys,lower,rw,new,modules}
	cp "$("$TOP/scripts/fetch.sh" busybox)" "$root/bin/busybox"
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

stock() {
	local dist release out stamp

	dist=$("$TOP/scripts/fetch.sh" stock)
	release=${dist##*/stock-}
	out=$CACHE/stock
	stamp="$release $(key Kbuild Makefile drivers include compat scripts tools/testing/vm/{init,kernel.sh})"
	if [ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ]; then
		rm -f "$out/stamp"
		mkdir -p "$out/build" "$out/lib"
		ln -sfn "$dist/lib/modules" "$out/lib/modules"
		ln -sfn "$dist/lib/modules" "$out/modules"
		ln -sfn "$dist/boot/vmlinuz-$release" "$out/vmlinuz"
		say "building the modules against the headers of $release"
		"$TOP/scripts/snapshot.sh" "$out/build"
		slowly "$out/build.log" nice make -C "$out/build" "$jobs" \
			KDIR="$dist/usr/src/linux-headers-$release" TYPE1V3_TESTS=1 modules
		rm -rf "$dist/lib/modules/$release/updates"
		mkdir -p "$dist/lib/modules/$release/updates"
		find "$out/build" -name '*.ko' -exec cp {} "$dist/lib/modules/$release/updates/" \;
		depmod -b "$out" "$release"
		make_initrd "$out" "$release"
		echo "$release" >"$out/release"
		echo "$stamp" >"$out/stamp"
	fi
}

# from_source NAME FRAGMENT...: the newest kernel from allnoconfig + fragments
from_source() {
	local name=$1 dist out build stamp release fragment

	shift
	set -- "${@/#/tools/testing/vm/}"
	dist=$("$TOP/scripts/fetch.sh" source)
	out=$CACHE/$name
	build=$dist/build-$name
	stamp="${dist##*/} $(key Kconfig drivers include scripts tools/testing/vm/{init,kernel.sh} "$@")"
	if [ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ]; then
		rm -f "$out/stamp"
		mkdir -p "$out" "$build"
		with_lock tree "$TOP/scripts/in-tree.sh" "$dist/src"
		for fragment; do cat "$TOP/$fragment"; done >"$build/fragment"
		slowly "$out/config.log" make -C "$dist/src" O="$build" \
			KCONFIG_ALLCONFIG="$build/fragment" allnoconfig
		check_config "$build"
		say "building kernel and modules of ${dist##*/} ($name)"
		slowly "$out/build.log" nice make -C "$build" "$jobs" bzImage modules
		release=$(make -s -C "$build" kernelrelease)
		rm -rf "${out:?}/lib"
		slowly "$out/install.log" make -C "$build" INSTALL_MOD_PATH="$out" modules_install
		ln -sfn lib/modules "$out/modules"
		cp "$build/arch/x86/boot/bzImage" "$out/vmlinuz.new"
		mv "$out/vmlinuz.new" "$out/vmlinuz"
		make_initrd "$out" "$release"
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

case ${1:-} in
stock) with_lock vm-stock stock ;;
lean) with_lock vm-lean from_source lean lean.config ;;
debug | kcsan) with_lock "vm-$1" from_source "$1" lean.config "$1.config" ;;
*) die "usage: $0 stock|lean|debug|kcsan" ;;
esac
echo "$CACHE/$1"
