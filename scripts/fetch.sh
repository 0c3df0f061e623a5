#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# fetch.sh stock|source|busybox|qemu-10.0|qemu-11.1|root|arm64-root
# fetch.sh deb13-6.12|deb13-7.2|deb13-7.3|arm64|arm64-16k
# fetch.sh types-6.16|types-6.17|types-6.18
# fetch.sh vmm-root|vmm-qemu|vmm-dpdk
#
# Puts into the cache what the tests boot and build, and prints where it is.
# Everything comes as a Debian package through apt, and nothing is installed:
#   stock    the distribution's 6.12 kernel: image, modules and headers
#   source   the newest linux-source-7.x, unpacked
#   busybox  a static busybox
#   qemu-*   a directory for $PATH with a QEMU newer than the distribution's
#   root     Debian 13's compilers for amd64 and arm64, and what a build of modules
#            needs besides, to be run by in-root.sh
#   deb13-*  a kernel of Debian 13 or its backports: image, modules and headers
#   arm64*   the same for arm64, with pages of 4 or 16 KiB, the newest one
#   arm64-root  what a virtual machine of arm64 needs of user space
#   types-*  an image and its vfio module, of kernels whose headers are gone
#   vmm-root what builds QEMU and DPDK, Debian 13's, for in-root.sh
#   vmm-*    in there, the source package: QEMU of Debian 13, DPDK of Debian 12
set -euo pipefail
. "$(dirname "$0")/common.sh"

# All that apt keeps about a suite which the machine's own configuration does
# not have stays in the cache, NAME by NAME. The archive is the one the machine uses.
isolated=()
isolate() { # NAME ARCHITECTURE...
	local arch

	apt_state=$CACHE/$1
	shift
	isolated=(-o Dir::State="$apt_state/state" -o Dir::State::status="$apt_state/status"
		  -o Dir::Cache="$apt_state/cache" -o Dir::Etc::sourcelist="$apt_state/sources.list"
		  -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root -o Acquire::Languages=none
		  -o APT::Architecture="$1")
	for arch; do isolated+=(-o APT::Architectures::="$arch"); done
}
isolate apt "$(dpkg --print-architecture)"

isolated_update() { # SUITE...; with $isolated_sources their sources, too
	local uri suite
	local key=/usr/share/keyrings/debian-archive-keyring.gpg

	# shellcheck disable=SC2016  # the format is for apt-get to expand
	uri=$(apt-get indextargets --format '$(CREATED_BY) $(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)' |
	      awk -v c="$(. /etc/os-release; echo "$VERSION_CODENAME")" \
		  '$1 == "Packages" && $2 == "Debian" && $3 == "main" && $4 == c { print $5; exit }')
	[ -n "$uri" ] || die "apt knows no Debian archive: run 'apt-get update' first"
	mkdir -p "$apt_state"/{state/lists/partial,cache/archives/partial}
	: >"$apt_state/status"
	for suite; do
		echo "deb [signed-by=$key] $uri $suite main"
		[ -z "${isolated_sources:-}" ] || echo "deb-src [signed-by=$key] $uri $suite main"
	done >"$apt_state/sources.list"
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

# Packages with all that they depend on, unpacked and not configured, into a root
# that nothing is installed in: what a compiler or a shell needs is there.
fetch_packages() { # DIR PACKAGE...
	local dir=$1 tmp=$CACHE/tmp.packages deb

	shift
	rm -rf "$tmp"
	mkdir -p "$tmp/root" "$tmp/debs/partial"
	say "downloading $* and what they depend on"
	apt-get "${isolated[@]}" -o Dir::Cache::archives="$tmp/debs" -qq -y --download-only \
		--no-install-recommends install "$@" >&2
	# the directories that are links first
	dpkg-deb -x "$(find "$tmp/debs" -name 'base-files_*.deb')" "$tmp/root"
	for deb in "$tmp"/debs/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$tmp/root"
	done
	# what the packages' scripts would do
	ln -sf dash "$tmp/root/usr/bin/sh"
	[ ! -e "$tmp/root/usr/bin/gcc" ] || ln -sf gcc "$tmp/root/usr/bin/cc"
	[ ! -e "$tmp/root/usr/bin/mawk" ] || ln -sf mawk "$tmp/root/usr/bin/awk"
	[ ! -d "$tmp/root/usr/share/ca-certificates" ] ||
		find "$tmp/root/usr/share/ca-certificates" -name '*.crt' -exec cat {} + \
			>"$tmp/root/etc/ssl/certs/ca-certificates.crt"
	mv "$tmp/root" "$dir"
	rm -rf "$tmp"
}

# what a shell script needs; and besides, what a build does
shell_packages="base-files bash dash coreutils findutils grep sed mawk"

fetch_root() {
	local dir=$CACHE/deb13-root

	if [ ! -d "$dir" ]; then
		isolate apt-deb13 amd64 arm64
		isolated_update trixie trixie-backports
		# shellcheck disable=SC2086  # a list
		fetch_packages "$dir" $shell_packages diffutils gzip xz-utils zstd make gcc \
			gcc-14 libc6-dev pahole perl-base libelf1t64 libssl3t64 \
			kmod gcc-14-aarch64-linux-gnu libc6-dev-arm64-cross
	fi
	echo "$dir"
}

fetch_arm64_root() {
	local dir=$CACHE/arm64-root

	if [ ! -d "$dir" ]; then
		isolate apt-arm64 arm64
		isolated_update trixie trixie-backports
		# shellcheck disable=SC2086  # a list
		fetch_packages "$dir" $shell_packages util-linux mount hostname kmod \
			busybox-static python3-minimal
	fi
	echo "$dir"
}

fetch_vmm_root() {
	local dir=$CACHE/vmm-root

	if [ ! -d "$dir" ]; then
		isolate apt-vmm amd64
		isolated_update trixie
		# shellcheck disable=SC2086  # a list
		fetch_packages "$dir" $shell_packages diffutils debianutils gzip xz-utils bzip2 tar \
			patch perl dpkg-dev ca-certificates gcc libc6-dev make bison flex ninja-build meson pkgconf \
			python3 python3-venv python3-pycotap python3-pyelftools libglib2.0-dev \
			libpixman-1-dev zlib1g-dev libattr1-dev libfdt-dev seabios qemu-system-data
	fi
	echo "$dir"
}

fetch_vmm_source() { # PACKAGE SUITE
	local dir tmp isolated_sources=1

	dir=$(fetch_vmm_root)/src/$1
	tmp=$dir.new
	if [ ! -d "$dir" ]; then
		isolate "apt-vmm-$1" amd64
		isolated_update "$2"
		rm -rf "$tmp"
		mkdir -p "$tmp"
		say "downloading the source package $1"
		(cd "$tmp" && apt-get "${isolated[@]}" -qq source --download-only "$1" >&2)
		mv "$tmp" "$dir"
	fi
	echo "$dir"
}

# newest PATTERN: the newest package whose name matches
newest() {
	apt-cache "${isolated[@]}" pkgnames | grep -E "^($1)\$" | sort -V | tail -n 1
}

# The release is in the name of the directory: $CACHE/NAME-RELEASE.
fetch_kernel() { # NAME VERSION ARCHITECTURE FLAVOUR
	local name=$1 version=${2/./\\.} arch=$3 flavour=$4 dir release deb tmp=$CACHE/tmp.kernel packages

	if [ -z "${TYPE1V3_REFRESH:-}" ]; then
		dir=$(find "$CACHE" -maxdepth 1 -name "$name-$2.*" | sort -V | tail -n 1)
		[ -z "$dir" ] || { echo "$dir"; return; }
	fi
	isolate apt-deb13 amd64 arm64
	isolated_update trixie trixie-backports
	release=$(newest "linux-headers-$version\.[0-9]+\+deb13(\.[0-9]+)?-$flavour(:$arch)?")
	[ -n "$release" ] || die "Debian 13 has no headers of Linux $2 for $flavour"
	release=${release#linux-headers-} release=${release%:*}
	dir=$CACHE/$name-$release
	if [ ! -d "$dir" ]; then
		packages=("linux-headers-$release:$arch" "linux-headers-${release%-"$flavour"}-common"
			  "linux-kbuild-${release%-"$flavour"}")
		# the image is in its package, or what that depends on
		if [ -n "$(newest "linux-modules-${release//+/\\+}(:$arch)?")" ]; then
			packages+=("linux-modules-$release:$arch" "linux-binary-$release:$arch"
				   "linux-base-$release:$arch")
		else
			packages+=("linux-image-$release:$arch")
		fi
		rm -rf "$tmp"
		download "$tmp/debs" "${isolated[@]}" -- "${packages[@]}"
		mkdir "$tmp/root"
		for deb in "$tmp"/debs/*.deb; do
			say "unpacking ${deb##*/}"
			dpkg-deb -x "$deb" "$tmp/root"
		done
		# the header package names its other half by an absolute path
		sed -i "s|/usr/src/|$dir/usr/src/|" "$tmp/root/usr/src/linux-headers-$release/Makefile"
		[ -e "$tmp/root/usr/lib/modules/$release/vmlinuz" ] ||
			cp "$tmp/root/boot/vmlinuz-$release" "$tmp/root/usr/lib/modules/$release/vmlinuz"
		echo "$release" >"$tmp/root/release"
		mv "$tmp/root" "$dir"
		rm -rf "$tmp"
	fi
	echo "$dir"
}

# Image and vfio module only: for kernels whose headers the archive has no more.
fetch_types() { # VERSION
	local dir=$CACHE/types-$1 image tmp=$CACHE/tmp.types release

	if [ ! -d "$dir" ]; then
		isolate apt-deb13 amd64 arm64
		isolated_update trixie trixie-backports
		image=$(newest "linux-image-${1/./\\.}\.[0-9]+\+deb13(\.[0-9]+)?-amd64")
		[ -n "$image" ] || die "Debian 13 has no image of Linux $1"
		release=${image#linux-image-}
		download "$tmp" "${isolated[@]}" -- "$image"
		mkdir -p "$tmp/root/kdir/include/config"
		dpkg-deb --fsys-tarfile "$tmp"/*.deb | tar -x -C "$tmp/root" --wildcards \
			"./boot/vmlinuz-$release" '*/drivers/vfio/vfio.ko*'
		# as if there were headers
		echo "$release" >"$tmp/root/kdir/include/config/kernel.release"
		mv "$tmp/root/boot/vmlinuz-$release" "$tmp/root/usr/lib/modules/$release/vmlinuz"
		mv "$tmp/root" "$dir"
		rm -rf "$tmp"
	fi
	echo "$dir"
}

case ${1:-} in
qemu-10.0) with_lock fetch-source fetch_qemu 10.0 trixie ;;
qemu-11.1) with_lock fetch-source fetch_qemu 11.1 trixie trixie-backports ;;
root) with_lock fetch-deb13 fetch_root ;;
arm64-root) with_lock fetch-deb13 fetch_arm64_root ;;
deb13-*) with_lock fetch-deb13 fetch_kernel deb13 "${1#deb13-}" amd64 amd64 ;;
arm64 | arm64-16k) with_lock fetch-deb13 fetch_kernel "$1" 7.3 arm64 "$1" ;;
vmm-root) with_lock fetch-vmm fetch_vmm_root ;;
vmm-qemu) with_lock fetch-vmm fetch_vmm_source qemu trixie ;;
# the version whose packages clients-dpdk.sh runs
vmm-dpdk) with_lock fetch-vmm fetch_vmm_source dpdk bookworm ;;
types-*) with_lock fetch-deb13 fetch_types "${1#types-}" ;;
stock | source | busybox) with_lock "fetch-$1" "fetch_$1" ;;
*) sed -n '/^# fetch.sh/,/^#$/s/^# //p' "$0" >&2; exit 2 ;;
esac
