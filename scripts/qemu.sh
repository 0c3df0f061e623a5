#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# qemu.sh [--header|--check]
#
# Builds QEMU from the source package of Debian 13 twice, in a root of that distribution
# (in-root.sh), and prints where it is: a directory with
#   unpatched/qemu-system-x86_64	as it is, but for patches of virtio-mem for tests
#   patched/qemu-system-x86_64	with the series in tools/vmm/qemu/patches
#   patched/vfio-type1v3-test	the qtest that comes with the series
# The configuration is minimal. Nothing is built again that has been built from the same
# source and patches.
#
# With --check it only compares the vfio_type1v3.h that the series adds with
# include/uapi/linux; --header puts that one into the series.
set -euo pipefail
. "$(dirname "$0")/common.sh"

patches=$TOP/tools/vmm/qemu/patches
# shellcheck disable=SC2016  # for the shell in there
# in the root file system; /src/qemu has what was built of it
build='set -e
cd /src/qemu
if [ ! -e tree/configure ] || [ ! -d orig ]; then
	rm -rf orig new tree build
	dpkg-source -x qemu_*.dsc orig
	cp -a orig new
	mv new tree
fi
# the files of the series, as they are after some of its patches; those that are so
# already are not written again, and not built again
want() { # PATCH...
	rm -rf want
	mkdir want
	(cd orig && cp --parents $(ls -d $files 2>/dev/null) ../want)
	for one; do (cd want && patch -s -p1 --no-backup-if-mismatch <../"$one"); done
	for file in $files; do
		if [ ! -e want/$file ]; then
			rm -f tree/$file
		elif ! cmp -s want/$file tree/$file; then
			mkdir -p $(dirname tree/$file)
			cp want/$file tree/$file
		fi
	done
}
make() { (cd build && nice ninja "$@"); }
# those that an earlier series changed as well
files=$({ cat changed 2>/dev/null || true; sed -n "s|^+++ b/||p" series/*.patch; } | sort -u)
echo "$files" >changed
mkdir -p out.new/unpatched out.new/patched
if [ ! -e build/build.ninja ] || [ ! -e unpatched/qemu ] || ! cmp -s unpatched/0001 series/0001-*; then
	want series/0001-*
	if [ ! -e build/build.ninja ]; then
		rm -rf build
		mkdir build
		(cd build && ../tree/configure --target-list=x86_64-softmmu --without-default-features \
			--enable-tcg --enable-virtfs --enable-attr --disable-install-blobs --disable-debug-info \
			--enable-trace-backends=log)
	fi
	make qemu-system-x86_64
	rm -rf unpatched
	mkdir unpatched
	cp build/qemu-system-x86_64 unpatched/qemu
	cp series/0001-* unpatched/0001
fi
cp unpatched/qemu out.new/unpatched/qemu
want series/*.patch
make qemu-system-x86_64 tests/qtest/vfio-type1v3-test
cp build/qemu-system-x86_64 out.new/patched/qemu
cp build/tests/qtest/vfio-type1v3-test out.new/patched/test
'

program() { # FILE BINARY ARGUMENTS: a script that runs BINARY with the libraries of the root
	cat >"$1" <<-END
		#!/bin/sh
		here=\$(dirname "\$(readlink -f "\$0")")
		root=\$here/../../../..
		exec "\$root/lib64/ld-linux-x86-64.so.2" \\
			--library-path "\$root/usr/lib/x86_64-linux-gnu" "\$here/$2" $3 "\$@"
	END
	chmod +x "$1"
}

# The vfio_type1v3.h that the series adds
header=$TOP/include/uapi/linux/vfio_type1v3.h
added_header() {
	awk '/^diff --git/ { here = / b\/linux-headers\/linux\/vfio_type1v3.h$/; next }
	     here && /^-- $/ { here = 0 }
	     here && /^\+/ && !/^\+\+\+ / { print substr($0, 2) }' "$patches"/*.patch
}

code() { gcc -fpreprocessed -dD -E -P -x c -; }

# but for comments
check_header() {
	added_header | code | cmp - <(code <"$header") ||
		die "the series adds another vfio_type1v3.h than include/uapi/linux has: scripts/qemu.sh --header"
}

# What is around the header stays, but for the numbers of lines and git's.
put_header() {
	local patch=("$patches"/0002-*.patch) lines id

	lines=$(wc -l <"$header")
	id=$(git hash-object "$header" | cut -c 1-8)
	{
		sed '/^@@/,$d' "${patch[0]}" |
			sed -E "s/(vfio_type1v3.h \|) +[0-9]+ /\1 $lines /; s/ [0-9]+ insertions/ $lines insertions/
				s/^(index 0+\.\.)[0-9a-f]+/\1$id/"
		echo "@@ -0,0 +1,$lines @@"
		sed 's/^/+/' "$header"
		sed -n '/^-- $/,$p' "${patch[0]}"
	} >"$CACHE/header.patch"
	cat "$CACHE/header.patch" >"${patch[0]}"
	rm "$CACHE/header.patch"
}

build() {
	local dir id one

	check_header
	dir=$("$TOP/scripts/fetch.sh" vmm-qemu)
	id=$(cat "$patches"/*.patch "$TOP/scripts/qemu.sh" | sha256sum | cut -c 1-64)
	if [ "$(cat "$dir/out/id" 2>/dev/null)" != "$id" ]; then
		rm -rf "$dir/series" "$dir/out.new"
		mkdir -p "$dir/series"
		cp "$patches"/*.patch "$dir/series/"
		say "building QEMU (some minutes)"
		slowly "$dir/log" "$TOP/scripts/in-root.sh" -r vmm-root bash -c "$build"
		for one in unpatched patched; do
			# shellcheck disable=SC2016  # for the script
			program "$dir/out.new/$one/qemu-system-x86_64" qemu \
				'-L "$root/usr/share/qemu" -L "$root/usr/share/seabios"'
		done
		program "$dir/out.new/patched/vfio-type1v3-test" test ''
		echo "$id" >"$dir/out.new/id"
		rm -rf "$dir/out"
		mv "$dir/out.new" "$dir/out"
	fi
	echo "$dir/out"
}

case ${1:-} in
'') with_lock qemu-build build ;;
--check) check_header ;;
--header) put_header && check_header ;;
*) sed -n '/^# qemu.sh/,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
