#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# deps.sh demo|deb|docs|test|test-all|qemu|bench
#
# Installs the Debian packages that are needed for that and missing, and says
# which. It changes no package source. Elsewhere than on Debian it prints what is
# missing and stops.
set -euo pipefail
. "$(dirname "$0")/common.sh"

# a program (or file), and the package that has it
demo="
/usr/bin/gcc			gcc
/usr/bin/gcc-12			gcc-12
/usr/include/stdio.h		libc6-dev
/usr/include/linux/vfio.h	linux-libc-dev
/usr/bin/make			make
/usr/bin/pahole			dwarves
/usr/bin/cpio			cpio
/usr/bin/rsync			rsync
/usr/bin/xz			xz-utils
/usr/bin/zstd			zstd
/usr/bin/setsid			util-linux
/usr/sbin/modprobe		kmod
/usr/bin/qemu-system-x86_64	qemu-system-x86
"
deb="
/usr/bin/git			git
/usr/bin/gcc			gcc
/usr/include/linux/vfio.h	linux-libc-dev
/usr/include/stdio.h		libc6-dev
/usr/bin/make			make
/usr/bin/openssl		openssl
/usr/bin/dpkg-buildpackage	dpkg-dev
/usr/share/build-essential	build-essential
/usr/bin/dh			debhelper
/usr/bin/dh_dkms		dh-dkms
/usr/sbin/dkms			dkms
/usr/bin/lintian		lintian
/usr/bin/rst2html5		python3-docutils
"
docs="
/usr/bin/make			make
/usr/bin/dot			graphviz
/usr/bin/sphinx-build		python3-sphinx
/usr/lib/python3/dist-packages/yaml	python3-yaml
/usr/bin/xz			xz-utils
/usr/share/keyrings/debian-archive-keyring.gpg	debian-archive-keyring
"
test="$demo$docs$deb
/usr/bin/bc			bc
/usr/bin/bison			bison
/usr/bin/flex			flex
/usr/include/libelf.h		libelf-dev
/usr/include/openssl/ssl.h	libssl-dev
/usr/bin/clang			clang
/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer*	libclang-rt-dev
/usr/bin/perl			perl
/usr/bin/python3		python3
/usr/bin/git			git
/usr/bin/sparse			sparse
/usr/bin/shellcheck		shellcheck
/usr/bin/codespell		codespell
/usr/share/keyrings/debian-archive-keyring.gpg	debian-archive-keyring
/usr/bin/qemu-system-aarch64	qemu-system-arm
/usr/bin/trace-cmd		trace-cmd
/usr/bin/perf			linux-perf
/usr/bin/bpftrace		bpftrace
"
qemu="
/usr/bin/gcc			gcc
/usr/share/keyrings/debian-archive-keyring.gpg	debian-archive-keyring
"
test_all="$test$qemu
/usr/bin/aarch64-linux-gnu-gcc	gcc-aarch64-linux-gnu
/usr/include/uuid/uuid.h	uuid-dev
/usr/bin/dpdk-testpmd		dpdk-dev
/usr/lib/*/librte_net_e1000.so.*	librte-net-e1000-23
/usr/bin/rpmbuild		rpm
/usr/bin/rpmlint		rpmlint
/usr/bin/nix-instantiate	nix-bin
"
bench="$test
/usr/bin/gnuplot		gnuplot-nox
/usr/sbin/mkfs.ext4		e2fsprogs
/usr/bin/valgrind		valgrind
"

case ${1:-} in
demo) needs=$demo ;;
deb) needs=$deb ;;
docs) needs=$docs ;;
test) needs=$test ;;
test-all) needs=$test_all ;;
qemu) needs=$qemu ;;
bench) needs=$bench ;;
*) die "usage: deps.sh demo|deb|docs|test|test-all|qemu|bench" ;;
esac
[ "$1" = deb ] || [ "$1" = docs ] || [ "$(uname -m)" = x86_64 ] ||
	die "the virtual machines need an x86_64 host"
missing=$(while read -r file package; do
		[ -z "$file" ] || compgen -G "$file" >/dev/null || echo "$package"
	  done <<<"$needs" | sort -u | tr '\n' ' ')
lists=$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' 2>/dev/null | head -n 1)

distribution=" $(. /etc/os-release && echo "$ID${ID_LIKE:+ $ID_LIKE}") "
if [ "$1" = deb ] && [[ $distribution != *' debian '* ]]; then
	die "packages for Debian are made on Debian; elsewhere 'dkms add .' does without (see README.md)"
elif [ "$1" != deb ] && [[ $distribution != ' debian '* ]]; then
	[ -z "$missing" ] || die "this is not Debian: please install what these packages hold: $missing"
	die "this is not Debian: the kernels to test come as Debian packages"
fi
[ -n "$missing" ] || [ -z "$lists" ] || exit 0

root=()
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || die "as root: apt-get update; apt-get install $missing"
	root=(sudo)
fi
say "apt-get update"
"${root[@]}" apt-get -qq update
[ -n "$missing" ] || exit 0
say "apt-get install --no-install-recommends $missing"
# shellcheck disable=SC2086  # a list
"${root[@]}" env DEBIAN_FRONTEND=noninteractive \
	apt-get -qq -y install --no-install-recommends $missing </dev/null
