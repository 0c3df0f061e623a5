#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# fetch.sh stock|source|busybox|qemu-10.0|qemu-11.1
#
# Puts into the cache what the tests boot and build, and prints where it is.
# Everything comes as a Debian package through apt, and nothing is installed:
#   stock    the distribution's 6.12 kernel: image, modules and headers
#   source   the newest linux-source-7.x, unpacked
#   busybox  a static busybox
#   qemu-*   a directory for $PATH with a QEMU newer than the distribution's
set -euo pipefail
. "$(dirname "$0")/common.sh"

# All that apt keeps about a suite which the machine's own configuration does
# not have stays in the cache. The archive is the one the machine uses.
apt_state=$CACHE/apt
isolated=(-o Dir::State="$apt_state/state" -o Dir::State::status="$apt_state/status"
	  -o Dir::Cache="$apt_state/cache" -o Dir::Etc::sourcelist="$apt_state/sources.list"
	  -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root -o Acquire::Languages=none)

isolated_update() { # SUITE...
	local uri suite
	local key=/usr/share/keyrings/debian-archive-keyring.gpg

	# shellcheck disable=SC2016  # the format is for apt-get to expand
	uri=$(apt-get indextargets --format '$(CREATED_BY) $(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)' |
	      awk -v c="$(. /etc/os-release; echo "$VERSION_CODENAME")" \
		  '$1 == "Packages" && $2 == "Debian" && $3 == "main" && $4 == c { print $5; exit }')
	[ -n "$uri" ] || die "apt knows no Debian archive: run 'apt-get update' first"
	mkdir -p "$apt_state"/{state/lists/partial,cache/archives/partial}
	: >"$apt_state/status"
	for suite; do echo "deb [signed-by=$key] $uri $suite main"; done >"$apt_state/sources.list"
	say "reading the package lists of $* (kept in the cache)"
	apt-get "${isolated[@]}" -qq update >&2
}

# download DIR APT-OPTIONS... -- PACKAGE...
download() {
	local dir=$1 opts=()

	shift
	while [ "$1" != -- ]; do opts+=("$1"); shift; done
	shift
	rm -rf "$dir"
	mkdir -p "$dir"
	say "downloading $*"
	(cd "$dir" && apt-get "${opts[@]}" -o APT::Sandbox::User=root -qq download "$@" >&2)
}

depends() { # PACKAGE PATTERN: the first dependency of PACKAGE like PATTERN
	apt-cache depends --no-recommends --no-suggests "$1" 2>/dev/null |
		sed -n "s/^ *|\{0,1\}Depends: \($2\)$/\1/p" | head -n 1
}

fetch_stock() {
	local image release dir tmp deb

	image=$(depends linux-image-6.12-amd64 'linux-image-6\.12\..*-amd64')
	[ -n "$image" ] || die "apt knows no linux-image-6.12-amd64: run 'apt-get update' first"
	release=${image#linux-image-}
	dir=$CACHE/stock-$release
	if [ ! -d "$dir" ]; then
		tmp=$CACHE/tmp.stock
		download "$tmp/debs" -- "$image" "linux-headers-$release" \
			"linux-headers-${release%-amd64}-common" "linux-kbuild-${release%-amd64}"
		for deb in "$tmp"/debs/*.deb; do
			say "unpacking ${deb##*/}"
			dpkg-deb -x "$deb" "$tmp/root"
		done
		# the header package names its other half by an absolute path
		sed -i "s|/usr/src/|$dir/usr/src/|" "$tmp/root/usr/src/linux-headers-$release/Makefile"
		for deb in build source; do
			ln -sfn "../../..$(readlink "$tmp/root/lib/modules/$release/$deb")" \
				"$tmp/root/lib/modules/$release/$deb"
		done
		mv "$tmp/root" "$dir"
		rm -rf "$tmp"
	fi
	echo "$dir"
}

fetch_source() {
	local package version dir tmp

	# a tree that is there is kept: TYPE1V3_REFRESH=1 looks for a newer one
	if [ -z "${TYPE1V3_REFRESH:-}" ]; then
		dir=$(find "$CACHE" -maxdepth 1 -name 'linux-7.*' | sort -V | tail -n 1)
		[ -z "$dir" ] || { echo "$dir"; return; }
	fi
	isolated_update trixie-backports
	package=$(apt-cache "${isolated[@]}" search -n '^linux-source-7\.[0-9]+$' |
		  cut -d ' ' -f 1 | sort -V | tail -n 1)
	[ -n "$package" ] || die "no linux-source-7.x found"
	version=$(apt-cache "${isolated[@]}" show "$package" | sed -n 's/^Version: \([^-]*\).*/\1/p' |
		  sort -V | tail -n 1)
	dir=$CACHE/linux-$version
	if [ ! -d "$dir" ]; then
		tmp=$CACHE/tmp.source
		download "$tmp/debs" "${isolated[@]}" -- "$package"
		say "unpacking ${package} ${version} (about a minute)"
		mkdir -p "$tmp/tree/src"
		dpkg-deb --fsys-tarfile "$tmp"/debs/*.deb |
			tar -xO "./usr/src/$package.tar.xz" |
			tar -xJ -C "$tmp/tree/src" --strip-components=1
		mv "$tmp/tree" "$dir"
		rm -rf "$tmp"
	fi
	echo "$dir"
}

fetch_busybox() {
	local tmp=$CACHE/tmp.busybox

	if [ ! -x "$CACHE/busybox" ]; then
		download "$tmp" -- busybox-static
		dpkg-deb -x "$tmp"/*.deb "$tmp/root"
		cp "$(find "$tmp/root" -type f -name busybox -perm -100 | head -n 1)" "$CACHE/busybox"
		rm -rf "$tmp"
	fi
	echo "$CACHE/busybox"
}

# With all that it depends on, the C library too: it runs by that one's loader.
fetch_qemu() { # VERSION SUITE...
	local dir=$CACHE/qemu-$1 tmp=$CACHE/tmp.qemu-$1 version deb

	if [ ! -d "$dir" ]; then
		isolated_update "${@:2}"
		rm -rf "$tmp"
		mkdir -p "$tmp/root/bin" "$tmp/debs/partial"
		version=$(apt-cache "${isolated[@]}" madison qemu-system-x86 |
			  sed -n "s/^[^|]*| *\([^ |]*:$1[^ |]*\) .*/\1/p" | head -n 1)
		[ -n "$version" ] || die "${*:2} have no QEMU $1"
		say "downloading QEMU $version and what it depends on"
		apt-get "${isolated[@]}" -o Dir::Cache::archives="$tmp/debs" -qq -y --download-only \
			--no-install-recommends install "qemu-system-x86=$version" ${3:+-t "$3"} >&2
		for deb in "$tmp"/debs/*.deb; do dpkg-deb -x "$deb" "$tmp/root"; done
		cat >"$tmp/root/bin/qemu-system-x86_64" <<-'END'
			#!/bin/sh
			root=$(dirname "$(dirname "$(readlink -f "$0")")")
			lib=$root/usr/lib/x86_64-linux-gnu
			export QEMU_MODULE_DIR="$lib/qemu"
			exec "$lib/ld-linux-x86-64.so.2" --library-path "$lib:$lib/pulseaudio" \
				"$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu" \
				-L "$root/usr/share/seabios" "$@"
		END
		chmod +x "$tmp/root/bin/qemu-system-x86_64"
		rm -rf "$tmp/root"/usr/share/{doc,man,locale}
		mv "$tmp/root" "$dir"
		rm -rf "$tmp"
	fi
	echo "$dir/bin"
}

case ${1:-} in
qemu-10.0) with_lock fetch-source fetch_qemu 10.0 trixie ;;
qemu-11.1) with_lock fetch-source fetch_qemu 11.1 trixie trixie-backports ;;
stock | source | busybox) with_lock "fetch-$1" "fetch_$1" ;;
*) die "usage: $0 stock|source|busybox|qemu-10.0|qemu-11.1" ;;
esac
