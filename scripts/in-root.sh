#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# in-root.sh [-r ROOT] COMMAND...
#
# Runs COMMAND in a root of Debian 13 that fetch.sh makes: "root" (the default), where
# its compilers and the programs of its kernels' header packages run, or "vmm-root".
# The cache and the sources are there under their own names.
set -euo pipefail
. "$(dirname "$0")/common.sh"

name=root
if [ "${1:-}" = -r ]; then
	name=${2:?a root}
	shift 2
fi
root=$("$TOP/scripts/fetch.sh" "$name")
user=()
# without root's rights, those of a namespace
[ "$(id -u)" = 0 ] || user=(--map-root-user)
# shellcheck disable=SC2016  # the inner shell expands it
exec unshare --mount "${user[@]}" bash -euc '
	root=$1 cache=$2 top=$3 cwd=$PWD
	shift 3
	mkdir -p "$root/dev" "$root/proc" "$root/tmp"
	mount -t tmpfs tmpfs "$root/tmp"
	for dir in /dev /proc "$cache" "$top"; do
		mkdir -p "$root$dir"
		mount --rbind "$dir" "$root$dir"
	done
	exec env -i HOME=/root PATH=/usr/sbin:/usr/bin LC_ALL=C ${UNCHECKED:+UNCHECKED=$UNCHECKED} \
		${ANY_KERNEL:+ANY_KERNEL=$ANY_KERNEL} \
		chroot "$root" bash -euc "cd \"\$1\"; shift; exec \"\$@\"" in-root "$cwd" "$@"
' in-root "$root" "$CACHE" "$TOP" "$@"
