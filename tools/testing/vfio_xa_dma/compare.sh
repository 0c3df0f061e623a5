#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Run compare in callgrind and print what it has counted as a table.
#
#	compare.sh BUILD-DIRECTORY

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

awk -F '|' '
	FILENAME ~ /bytes$/ {
		if (!seen[$1]++)
			pattern[n++] = $1
		value[$1, $2, $3] = $4
		next
	}
	{ value[$1, $2, $3] = $5 / $4 }
	END {
		split("store xarray maple", tree, " ")
		printf "%-24s %-7s %8s %8s %8s %8s %8s\n", "pattern", "tree", "bytes",
			"insert", "look up", "erase", "change"
		for (i = 0; i < n; i++) {
			for (t = 1; t <= 3; t++) {
				printf "%-24s %-7s %8.2f", pattern[i], tree[t],
					value[pattern[i], tree[t], "bytes"]
				split("fill,load,empty,out and back", what, ",")
				for (w = 1; w <= 4; w++)
					printf " %8.0f", value[pattern[i], tree[t], what[w]] - \
						value[pattern[i], "nothing", what[w]]
				printf "\n"
			}
		}
	}
' "$out/bytes" "$out/counts"
