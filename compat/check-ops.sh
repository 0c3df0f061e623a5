#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# check-ops.sh KDIR [MODULES]	the kernel that the modules are to be built for
# check-ops.sh header TREE	a kernel's source tree
# check-ops.sh module MODULE [BASE]	a module that was built with compat/include/vfio.h
#
# Compares compat/include/vfio.h, a copy of a declaration that no header package
# has and that nothing checks when a module is loaded, with the kernel: with the
# text in its source if KDIR has that, else with the types (BTF) in its vfio
# module, which compat/ops.btf has as they must be. MODULES is where its modules
# are, without it /lib/modules/<release>; $VMLINUX may name the kernel itself. A
# build stops where the declaration is another one, and where there is nothing to
# compare with unless UNCHECKED is set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

die() {
	printf 'type1v3: %s\n' "$@" >&2
	exit 1
}

cannot() { # REASON
	if [ -n "${UNCHECKED:-}" ]; then
		printf 'type1v3: not compared with Linux %s, because UNCHECKED is set: %s\n' "$release" "$1" >&2
		exit 0
	fi
	die "cannot compare compat/include/vfio.h with Linux $release: $1" \
		"if they differ, the modules crash it: 'make UNCHECKED=1' builds them all the same"
}

differs() { # WHAT
	die "compat/include/vfio.h is not what $1 has: the modules would crash it"
}

# no comments, one blank, one member a line
declarations() { # FILE
	sed -zE 's:/\*([^*]|\*+[^*/])*\*+/: :g; s://[^\n]*: :g' "$1" | tr -s '\n\t ' ' ' |
		grep -oE '(struct vfio_iommu_driver_ops|enum vfio_group_type) \{[^}]*\}|[a-z]+ vfio_(un)?register_iommu_driver\([^)]*\)' |
		sed 's/[;{]/&\n/g'
}

header() { # FILE NAME
	declarations "$here/include/vfio.h" >"$tmp/ours"
	declarations "$1" >"$tmp/kernel"
	# nothing found is not the same thing twice
	for word in vfio_iommu_driver_ops attach_group dma_rw VFIO_EMULATED_IOMMU vfio_register; do
		grep -q "$word" "$tmp/kernel" || die "no $word in $1"
	done
	diff -u "$tmp/kernel" "$tmp/ours" || differs "$2"
}

unpack() { # FILE: to stdout
	case $1 in
	*.xz) xz -dc "$1" ;;
	*.zst) zstd -qdc "$1" ;;
	*.gz) gzip -dc "$1" ;;
	*) cat "$1" ;;
	esac
}

# the ELF file inside of a compressed kernel image, if that is what it has
unpack_image() { # FILE
	local magic program at

	while read -r magic program; do
		while read -r at; do
			# a decompressor complains about what follows the kernel
			# shellcheck disable=SC2086  # a command and its option
			tail -c "+$((at + 1))" "$1" | $program 2>/dev/null >"$tmp/vmlinux" || true
			[ "$(head -c 4 "$tmp/vmlinux")" != $'\x7fELF' ] || return 0
		done < <(LC_ALL=C grep -aboP "$magic" "$1" | LC_ALL=C cut -d : -f 1 | head -n 20)
	done <<-'END'
		\x28\xb5\x2f\xfd zstd -qdc
		\x1f\x8b\x08 gzip -dc
		\xfd7zXZ\x00 xz -dc
	END
	return 1
}

# the types of the kernel itself, without which those of a module cannot be read
find_base() {
	local image

	if [ -n "${VMLINUX:-}" ]; then
		[ -r "$VMLINUX" ] || cannot "\$VMLINUX is $VMLINUX, which cannot be read"
		base=$VMLINUX
	elif [ -r "$kdir/vmlinux" ]; then
		base=$kdir/vmlinux
	elif [ "$release" = "$(uname -r)" ] && [ -r /sys/kernel/btf/vmlinux ]; then
		base=/sys/kernel/btf/vmlinux
	else
		for image in "$modules/vmlinuz" "/boot/vmlinuz-$release"; do
			[ -r "$image" ] || continue
			if unpack_image "$image"; then
				base=$tmp/vmlinux
				return
			fi
		done
		cannot "its BTF is neither in $kdir/vmlinux nor in an image that can be unpacked, nor is it running"
	fi
}

# the program that prints types: $tmp/btf [-b BASE] FILE
make_btf() {
	local cc name

	for name in "${HOSTCC:-gcc}" gcc cc clang gcc-15 gcc-14 gcc-13 gcc-12; do
		# it may be a command with options
		read -ra cc <<<"$name"
		! command -v "${cc[0]}" >/dev/null || break
	done
	"${cc[@]}" -O2 -o "$tmp/btf" "$here/btf.c" 2>"$tmp/error" ||
		die "compat/btf.c, which reads the kernel's types, cannot be compiled with '${cc[*]}':" \
			"$(head -n 5 "$tmp/error")"
}

case ${1:-} in
header)
	header "${2:?a source tree}/drivers/vfio/vfio.h" "$2"
	exit
	;;
module)
	# it only calls the functions: BTF does not have them
	if [ -n "${3:-}" ]; then set -- "$1" "$2" -b "$3"; fi
	make_btf
	"$tmp/btf" "${@:3}" "${2:?a module}" >"$tmp/ours"
	grep -v 'vfio_.*register_iommu_driver' "$here/ops.btf" | diff -u "$tmp/ours" - ||
		die "compat/ops.btf is not what compat/include/vfio.h declares"
	exit
	;;
'')
	die "usage: check-ops.sh KDIR [MODULES] | header TREE | module MODULE"
	;;
esac

kdir=$1
[ -d "$kdir" ] || die "there is no $kdir: are the kernel's headers installed?"
for file in "$kdir/drivers/vfio/vfio.h" "$kdir/source/drivers/vfio/vfio.h"; do
	if [ -e "$file" ]; then
		header "$file" "$kdir"
		exit
	fi
done
release=$(cat "$kdir/include/config/kernel.release" 2>/dev/null) ||
	release=$(sed -n 's/^#define UTS_RELEASE "\(.*\)"/\1/p' "$kdir/include/generated/utsrelease.h" 2>/dev/null) ||
	release=''
[ -n "$release" ] || die "$kdir does not say which kernel it is for"
modules=${2:-/lib/modules/$release}
base=''
find_base
module=$(find "$modules/kernel/drivers/vfio/" -maxdepth 1 -name 'vfio.ko*' 2>/dev/null | head -n 1) || true
if [ -n "$module" ]; then
	unpack "$module" >"$tmp/vfio.ko" || cannot "$module cannot be unpacked"
	options=(-b "$base" "$tmp/vfio.ko")
else
	# it may be built in
	options=("$base")
fi
make_btf
"$tmp/btf" "${options[@]}" >"$tmp/kernel" 2>"$tmp/error" || cannot "$(tail -n 1 "$tmp/error")"
diff -u "$tmp/kernel" "$here/ops.btf" || differs "Linux $release"
