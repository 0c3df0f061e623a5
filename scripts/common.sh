# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by the project's scripts: where things are, and how to say things.

# shellcheck disable=SC2034  # used by those that source this
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=${TYPE1V3_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/type1v3}
mkdir -p "$CACHE"

say() { printf '%s [%s] %s\n' "$(date +%H:%M:%S)" "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# with_lock NAME COMMAND...: only one holder of NAME on this machine at a time
with_lock() {
	local fd lock="$CACHE/$1.lock"

	shift
	exec {fd}>"$lock"
	flock -n "$fd" || { say "waiting for $lock"; flock "$fd"; }
	# the lock is not inherited, so that nothing left behind can hold it
	"$@" {fd}>&-
	exec {fd}>&-
}

# slowly LOG COMMAND...: output goes to LOG; a line now and then shows life
slowly() {
	local log=$1 pid rc=0 start=$SECONDS

	shift
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	while kill -0 $pid 2>/dev/null; do
		sleep 1
		(((SECONDS - start) % 20)) ||
			say "$((SECONDS - start)) s: $(tail -n 1 "$log" | cut -c 1-100)"
	done
	wait $pid || rc=$?
	[ $rc = 0 ] || { tail -n 40 "$log" >&2; say "failed: $* (see $log)"; }
	return $rc
}

# Puts the QEMU of $TYPE1V3_QEMU in front of $PATH. Sets $qemu_dir to where it is,
# to nothing for the distribution's.
use_qemu() {
	local version

	qemu_dir=
	[ -n "${TYPE1V3_QEMU:-}" ] || return 0
	version=$(command -v qemu-system-x86_64 || true)
	if [ "${version%/*}" = "$CACHE/qemu-$TYPE1V3_QEMU/bin" ]; then
		qemu_dir=${version%/*}
		return
	fi
	version=$(qemu-system-x86_64 --version 2>/dev/null | sed -n '1s/^QEMU emulator version \([0-9]*\.[0-9]*\).*/\1/p')
	[ "$version" != "$TYPE1V3_QEMU" ] || return 0
	qemu_dir=$("$TOP/scripts/fetch.sh" "qemu-$TYPE1V3_QEMU") || die "there is no QEMU $TYPE1V3_QEMU"
	PATH=$qemu_dir:$PATH
}

# kunit_config m|y: options of a kernel with everything of ours, tests included
kunit_config() {
	sed -E "s/^(CONFIG_(KUNIT|VFIO|VFIO_IOMMU_TYPE1V3|.*_KUNIT_TEST))=y/\1=$1/" \
		"$TOP/drivers/vfio/tests/.kunitconfig"
	printf '%s\n' CONFIG_64BIT=y CONFIG_SMP=y CONFIG_MODULES=y
}
