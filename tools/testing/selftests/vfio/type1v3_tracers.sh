#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# run_type1v3_tests.sh type1v3_tracers.sh
#
# Runs the command lines of the chapter "Eyes inside", as they stand in the document,
# while a program maps, unmaps and fails; each must have seen what that does. Needs
# an NVMe controller, trace-cmd, perf and bpftrace.
set -u

: "${TYPE1V3_NVME0:?run it as run_type1v3_tests.sh type1v3_tracers.sh}"
here=$(cd "$(dirname "$0")" && pwd)
document=$here/../../../../Documentation/driver-api/vfio-type1v3.rst
PATH=$(dirname "${TYPE1V3_TOP:-/}"):$PATH

mapfile -t commands < <(sed -n '/^Eyes inside$/,/^Memory$/s/^        //p' "$document" |
			grep -E '^(cat|trace-cmd|perf|bpftrace|type1v3-top) ')
echo "TAP version 13"
echo "1..${#commands[@]}"

dir=$(mktemp -d)
cd "$dir" || exit 1
ln -s "$(dirname "${TYPE1V3_TOP:-/}")"/*.bt .
"${TYPE1V3_BINDIR:-$here}/type1v3_load" "$TYPE1V3_NVME0" 2>load &
load=$!
trap 'kill $load 2>/dev/null; rm -r "$dir"' EXIT
# until it is at work
for ((i = 0; i < 100; i++)); do
	grep -qs '^unmap [1-9]' /sys/kernel/debug/vfio_type1v3/*/stat && break
	sleep 0.1
done

json_seen() {
	python3 -c '
import json, sys
ours = [c for c in json.load(sys.stdin)["containers"] if c["owner"] == "type1v3_load"]
sys.exit(len(ours) != 1 or not ours[0]["store_bytes"] or
	 not ours[0]["calls"]["map"]["done"])' <output
}

# What tells that a command has seen what the program does
seen() { # COMMAND
	case $1 in
	*record*) ;; # what reads the file tells
	cat*stat) grep -q '^map [1-9]' output ;;
	cat*runs) grep -q '^1 1 6[34]$' output ;;
	type1v3-top*-r*) grep -q '^ *1 .*#' output ;;
	type1v3-top*json*) json_seen ;;
	type1v3-top*prometheus*)
		labels='id="[0-9]+",pid="[0-9]+",owner="type1v3_load",call="map",result="done"'
		grep -Eqx "type1v3_calls_total\{$labels\} [1-9][0-9]*" type1v3.prom ;;
	bpftrace*.bt*) grep -q '^@.*\[type1v3_load' output ;;
	type1v3-top*) grep -q ' type1v3_load ' output ;;
	bpftrace*error*) grep -q 'map_dma, -17]: [1-9]' output ;;
	bpftrace*) grep -q '^@' output ;;
	*) grep -q 'type1v3_map.*iova=' output ;;
	esac
}

failed=0 n=0
for command in "${commands[@]}"; do
	if bash -c "$command" >output 2>errors </dev/null && seen "$command"; then
		echo "ok $((++n)) $command"
	else
		echo "not ok $((++n)) $command"
		tail -n 20 errors output | sed 's/^/# /'
		failed=1
	fi
done
kill -0 $load || { sed 's/^/# /' load; failed=1; }
exit $failed
