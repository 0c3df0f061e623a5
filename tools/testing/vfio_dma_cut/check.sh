#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Replay the corpus, fuzz, and make one TAP stream of it.
#
#	check.sh BUILD-DIRECTORY SECONDS SEED
#
# An input which fails is left in the build directory, to be run again.

set -u
build=$1 seconds=$2 seed=$3
n=0 bad=0

result() { # ok|not ok, TEXT
	n=$((n + 1))
	echo "$1 $n - $2"
	[ "$1" = ok ] || bad=1
}

show() { # LOG
	grep -v 'stay pinned' "$1" | sed 's/^/# /' | tail -n 40
}

bytes() { # HEX
	local hex=$1

	for (( ; ${#hex}; )); do
		printf '%b' "\\x${hex:0:2}"
		hex=${hex:2}
	done
}

# Inputs for faults that there have been, each a line of hexadecimal digits
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
while read -r name hex; do
	case $name in ''|'#'*) continue ;; esac
	bytes "$hex" > "$work/$name"
	if [ -s "$work/$name" ] &&
	   "$build/fuzz" "$work/$name" > "$build/$name.log" 2>&1; then
		result ok "corpus: $name"
	else
		show "$build/$name.log"
		result 'not ok' "corpus: $name"
	fi
done < corpus

# Something to begin with, the same each time: it is read as steps, whatever it is
mkdir "$work/seeds"
cp "$work"/[a-z]* "$work/seeds" 2>/dev/null
awk -v seed="$seed" -v dir="$work/seeds" 'BEGIN {
	srand(seed)
	for (i = 1; i <= 32; i++) {
		file = dir "/seed-" i
		for (n = 0; n < i * 8; n++)
			printf "%c", int(rand() * 127) + 1 > file
		close(file)
	}
}'
if "$build/fuzz" -seed="$seed" -max_total_time="$seconds" -max_len=300 -timeout=60 \
		-rss_limit_mb=4096 -artifact_prefix="$build/" -print_final_stats=1 \
		"$work/seeds" > "$build/fuzz.log" 2>&1 &&
   runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/fuzz.log") &&
   [ "${runs:-0}" -gt 50 ]; then
	cover=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$build/fuzz.log" | tail -n 1)
	result ok "fuzzer: $runs runs in $seconds seconds, $cover places reached"
else
	show "$build/fuzz.log"
	result 'not ok' "fuzzer: see $build/fuzz.log"
fi
echo "1..$n"
exit "$bad"
