#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Run the tests and make one TAP stream of what they print.
#
#	check.sh BUILD-DIRECTORY SHAPES SECONDS SEED PROGRAM...

set -u
build=$1 shapes=$2 seconds=$3 seed=$4
shift 4

# A fuzzer which has found something leaves it behind, to be run again.
fuzz()
{
	corpus=$(mktemp -d) || return 1
	# Something to begin with, read as steps, whatever it is; the same for each SEED.
	for i in $(seq 32); do
		seq "$seed" $((seed + i * 100)) | gzip -n | tail -c $((i * 8)) > "$corpus/seed-$i"
	done
	if "$build/fuzz" -seed="$seed" -max_total_time="$seconds" -max_len=400 -timeout=60 \
			-rss_limit_mb=4096 -artifact_prefix="$build/" \
			-print_final_stats=1 "$corpus" > "$build/fuzz.log" 2>&1 &&
	   runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/fuzz.log") &&
	   [ "${runs:-0}" -gt 50 ]; then
		echo "ok - fuzzer: $runs runs in $seconds seconds"
	else
		sed 's/^/# /' "$build/fuzz.log" | tail -n 40
		echo "not ok - fuzzer: see $build/fuzz.log"
	fi
	rm -rf "$corpus"
}

# A program which fails without having said so is a failure as well.
run()
{
	"$@" 2>&1 || echo "not ok - $1: exit status $?"
}

{
	for program; do
		case $program in
		cases) run "$build/cases" ;;
		model) run "$build/model" "$seed" ;;
		memory) run "$build/memory" "$shapes" "$seed" ;;
		fuzz) fuzz ;;
		*) echo "not ok - there is no program $program" ;;
		esac
	done
} | awk '
	/^ok - /	{ n++; sub(/^ok/, "ok " n) }
	/^not ok - /	{ n++; bad++; sub(/^not ok/, "not ok " n) }
	!/^(ok|not ok|#)/ { sub(/^/, "# ") }
	{ print; fflush() }
	END { print "1.." n + 0; exit !n || bad }
'
