#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# clients-dpdk.sh
#
# What an unmodified DPDK does with VFIO, over type1v3 (alias_type1=1): in a VM
# with VT-d and the distribution's kernel, dpdk-testpmd drives two network cards
# that a wire connects, and sends packets round and round. Afterwards nothing may
# be left pinned or in use.
set -euo pipefail
cards=(0000:00:10.0 0000:00:11.0)

if [ -z "${VM_KERNEL:-}" ]; then
	. "$(dirname "$0")/../../../scripts/common.sh"
	work=$(mktemp -d "$CACHE/dpdk.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	gcc -Wall -Wextra -O2 -static -I "$TOP/include/uapi" -o "$work/clients-usage" \
		"$TOP/tools/testing/vm/clients-usage.c"
	"$TOP/tools/testing/vm/boot.sh" -k stock -c 2 -p mitigations=off \
		-q "-netdev hubport,hubid=1,id=n0 -device e1000e,netdev=n0,addr=10.0" \
		-q "-netdev hubport,hubid=1,id=n1 -device e1000e,netdev=n1,addr=11.0" \
		"$TOP/tools/testing/vm/clients-dpdk.sh" "$work"
	exit
fi

. "$(dirname "$0")/nested.sh"
dir=$1
fn=$(mktemp -d)
mkfifo "$fn/in"
exec 6<>"$fn/in"

echo "TAP version 13"
echo "1..1"
for card in "${cards[@]}"; do give_to_vfio "$card"; done
use_backend type1v3
before=$(pins)
echo 48 >/proc/sys/vm/nr_hugepages
dpdk-testpmd -l 0,1 -a "${cards[0]}" -a "${cards[1]}" --iova-mode=va -- -i --nb-cores=1 \
	--total-num-mbufs=4096 --forward-mode=io <&6 >"$fn/console" 2>"$fn/errors" &
client=$!

until grep -q 'testpmd> ' "$fn/console"; do
	kill -0 $client || fail "dpdk-testpmd ended"
	pause 0.5
done
in_use
usage $client
note "mapped $mapped, pinned $pinned pages; $bytes bytes of metadata"
[ "$mapped" != 0 ] || fail "nothing is mapped"
echo "start tx_first" >&6
pause 3
# what it prints it keeps to itself until the end
echo "stop" >&6
echo "quit" >&6
wait $client || fail "dpdk-testpmd failed"
sed -n '/Forward statistics/,$p' "$fn/console"
awk '/Forward statistics for port/ { port = $6 }
     /Accumulated/ { port = "" }
     /RX-packets:/ && port != "" { n[port] = $2 }
     END { exit !(n[0] > 100 && n[1] > 100) }' "$fn/console" || fail "packets got lost"
given_back
now=$(pins)
[ "$now" = "$before" ] || fail "$((now - before)) pins are left"
echo "ok 1 - dpdk-testpmd"
