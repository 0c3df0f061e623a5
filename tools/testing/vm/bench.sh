#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# bench.sh [--short] [--repeat] [--refresh] [--document] [-n] [-o DIR]
#
# Measures what mapping costs on type1v2, iommufd and type1v3, in one machine
# whose clock counts instructions, and prints tables. DIR (bench-out in the
# cache) gets bench.csv, the tables and charts. With --short it takes about two
# minutes, draws nothing, and fails when type1v3 has become worse in relation to
# type1v2 by more than a tenth of what bench-reference.csv says. With -n the
# kernel and the modules are not built again.
#
#   --repeat    measure twice, and fail when a figure differs by more than 2 %
#   --refresh   with --short: what is measured becomes the reference
#   --document  figures, tables and charts replace those in Documentation/bench, with
#               what the store takes in userspace and a demonstration besides; and the
#               figures of all documents become what these say
#
# bench.sh --profile BACKEND:CASE[:BATCH] [-n] [-o DIR]
#
# Writes to DIR/profile-BACKEND-CASE[-BATCH].txt where the instructions of mapping
# and unmapping go. CASE is one of single pages, such as linear; with BATCH, up to
# 256, so many in one ioctl. Or it is shared-linear or shared-different: another
# container holds the same pages. Or it is 4M-small, 4M-scattered or 4M-huge: 4 MiB with
# one ioctl, with -by-page unmapped page by page. Or it is filled-256k: a container has as
# many pages already. Or it is emulated: pages are pinned, unpinned, read and written by
# the driver of an emulated device.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"

VM=$TOP/tools/testing/vm
SELFTESTS=$TOP/tools/testing/selftests/vfio
DOCUMENTS=$TOP/Documentation/bench
out=$CACHE/bench-out
short='' repeat='' refresh='' document='' profile='' as_is=()
while [ $# != 0 ]; do
	case $1 in
	--short) short=1 ;;
	--repeat) repeat=1 ;;
	--refresh) refresh=1 ;;
	--document) document=1 ;;
	--profile) profile=${2:?}; shift ;;
	-n) as_is=(-n) ;;
	-o) out=${2:?}; shift ;;
	*) sed -n '/^# bench.sh/,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
	shift
done
[ -z "$refresh" ] || [ -n "$short" ] || die "the reference is that of the short form: --short --refresh"
[ -z "$document" ] || [ -z "$short" ] || die "the documentation has the long form: no --short"
mkdir -p "$out"

bin=$CACHE/bench
build() {
	local tree

	tree=$("$TOP/scripts/fetch.sh" source)
	mkdir -p "$bin/build"
	# iommufd is newer than the distribution's headers
	make -s -C "$tree/src" O="$bin/build" INSTALL_HDR_PATH="$bin/headers" headers_install
	gcc -std=gnu11 -O2 -Wall -Werror -D_GNU_SOURCE= -I"$TOP/include/uapi" \
		-isystem "$bin/headers/include" -o "$bin/type1v3_bench" "$SELFTESTS"/type1v3_{bench,lib,emulated}.c
}
with_lock bench build >&2

# With the same random numbers in each run, for addresses and for free lists.
boot() { # MIB SECONDS OPTIONS... -- BENCH-ARGS...
	local mib=$1 seconds=$2 options=()

	shift 2
	while [ "$1" != -- ]; do options+=("$1"); shift; done
	shift
	"$VM/boot.sh" "${as_is[@]}" -k lean -m "$mib" -t "$seconds" -q "-icount shift=0,sleep=off" \
		-q "-device edu -device edu -device edu -device edu" -q "-seed 1" -p norandmaps \
		"${options[@]}" "$VM/bench-guest.sh" "$bin/type1v3_bench" "$@"
}

if [ -n "$profile" ]; then
	IFS=: read -r backend case batch <<<"$profile"
	name=$out/profile-${profile//:/-}.txt
	run=$(mktemp -d "$CACHE/profile.XXXXXX")
	trap 'rm -rf "$run"' EXIT
	# the machine ends when there is enough of a trace, which boot.sh cannot know
	boot 2048 300 -p nokaslr -q "-qmp unix:$run/qmp,server,nowait -D $run/trace" \
		-- -l "$backend" -c "${case:-linear}" -b "${batch:-1}" >"$run/output" 2>"$run/errors" &
	python3 "$VM/profile.py" "$run" >"$name" || {
		cat "$run/errors" >&2
		die "no profile"
	}
	wait || true
	say "see $name"
	exit 0
fi

# CSV goes to the file, and a sign of life to the terminal
measure() { # FILE
	if [ -n "$short" ]; then
		boot 2048 14400 -- -s -t "$VM/traces"
	else
		boot 4096 36000 -- -t "$VM/traces"
	fi | tee "$1.new" | awk -F , '$1 != last { print last = $1 >"/dev/stderr" }'
	grep -E '^[^,]+,[a-z]+,[^,]+,[0-9.-]+\r?$' "$1.new" | tr -d '\r' >"$1"
	rm "$1.new"
}

csv=$out/bench.csv
measure "$csv"
awk -v ratios=1 -f "$VM/bench.awk" "$csv" >"$out/ratios.csv"
awk -v data="$out" -f "$VM/bench.awk" "$csv" | tee "$out/bench.txt"
if [ -n "$repeat" ]; then
	measure "$out/again.csv"
	awk -v again="$out/again.csv" -f "$VM/bench.awk" "$csv"
fi
if [ -n "$refresh" ]; then
	{
		echo "# SPDX-License-Identifier: GPL-2.0-only"
		echo "# case, measure, type1v3 / type1v2: made by bench.sh --short --refresh"
		cat "$out/ratios.csv"
	} >"$VM/bench-reference.csv"
	say "$VM/bench-reference.csv is new"
elif [ -n "$short" ]; then
	awk -v reference="$VM/bench-reference.csv" -f "$VM/bench.awk" "$csv"
else
	gnuplot -e "dir='$out'" "$VM/bench.gnuplot"
	say "tables and charts are in $out"
fi
if [ -n "$document" ]; then
	tree=$("$TOP/scripts/fetch.sh" source)
	say "the store in userspace"
	make -s -C "$TOP/tools/testing/vfio_xa_dma" KSRC="$tree/src" O="$CACHE/bench/store" \
		figures >"$out/store.csv"
	# the table, without the marks of its notes
	"$VM/demo.sh" | tee /dev/stderr | awk '
		/^ +type1v2 +type1v3 +type1v3-pt$/ { here = 1 }
		!NF { here = 0 }
		here { sub(/ \[1\]/, "    "); print }' >"$out/demo.txt"
	[ -s "$out/demo.txt" ] || die "the demonstration has no table"
	# before the first of its files is written
	commit=$(git -c safe.directory="$TOP" -C "$TOP" describe --always --dirty --abbrev=12)
	{
		echo "# commit $commit," \
			"Linux $(cat "$CACHE/lean/release"), $(use_qemu; qemu-system-x86_64 --version | sed -n '1s/ emulator version / /; 1s/ (.*//p')"
		cat "$csv" "$out/store.csv"
	} >"$DOCUMENTS/bench.csv"
	cp "$out"/bench.txt "$out"/demo.txt "$out"/*.svg "$DOCUMENTS"
	"$TOP/scripts/figures.py"
	say "and in $DOCUMENTS and the documents"
fi
