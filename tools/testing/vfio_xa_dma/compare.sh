#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Run compare in callgrind and print what it has counted as a table, or as the lines
# "case,measure,tree,figure" of a CSV.
#
#	compare.sh BUILD-DIRECTORY [csv]

set -eu
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

valgrind --tool=callgrind --callgrind-out-file="$out/profile.%p" \
	"$1/compare" > "$out/bytes" 2> "$out/log" || { cat "$out/log" >&2; exit 1; }

# One file a dump: what it is of, and how many instructions.
for profile in "$out"/profile.*.*; do
	sed -n -e 's/^desc: Trigger: Client Request: //p' -e 's/^\(summary\|totals\): //p' \
		"$profile" | paste -s -d '|'
done > "$out/counts"

awk -v csv="${2:-}" -F '|' '
	FILENAME ~ /bytes$/ {
		if (!seen[$1]++)
			pattern[n++] = $1
		value[$1, $2, $3] = $4
		next
	}
	{ value[$1, $2, $3] = $5 / $4 }
	function cost(i, t, operation) {
		return value[pattern[i], tree[t], operation] - value[pattern[i], "nothing", operation]
	}
	# as bench.csv names the patterns
	function short(name) {
		sub(/linear, upwards/, "linear-up", name)
		sub(/each page different/, "different", name)
		sub(/random half, different/, "half", name)
		sub(/^one in /, "1-in-", name)
		sub(/, different$/, "", name)
		return name
	}
	END {
		split("store xarray maple", tree, " ")
		split("fill,load,empty,out and back", operation, ",")
		split("insert,lookup,erase,change", measure, ",")
		for (i = 0; i < n && csv; i++) {
			for (t = 1; t <= 3; t++) {
				print short(pattern[i]) ",bytes," tree[t] "," \
					value[pattern[i], tree[t], "bytes"]
				for (w = 1; w <= 4; w++)
					printf "%s,%s,%s,%.0f\n", short(pattern[i]), measure[w],
						tree[t], cost(i, t, operation[w])
			}
		}
		if (csv)
			exit
		printf "%-24s %-7s %8s %8s %8s %8s %8s\n", "pattern", "tree", "bytes",
			"insert", "look up", "erase", "change"
		for (i = 0; i < n; i++) {
			for (t = 1; t <= 3; t++) {
				printf "%-24s %-7s %8.2f", pattern[i], tree[t],
					value[pattern[i], tree[t], "bytes"]
				for (w = 1; w <= 4; w++)
					printf " %8.0f", cost(i, t, operation[w])
				printf "\n"
			}
		}
	}
' "$out/bytes" "$out/counts"
