#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# package.sh
#
# Builds the Debian packages as README.md says, and installs, uses and removes
# them as it says on the distribution with its kernel, in a VM.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/common.sh"

VM=$TOP/tools/testing/vm
disk=$(mktemp "$CACHE/disk.XXXXXX")
trap 'rm -f "$disk"' EXIT
truncate -s 1M "$disk"

"$TOP/scripts/deb.sh"
"$VM/kernel.sh" stock >/dev/null
"$VM/boot.sh" -k stock -n -t 1200 \
	-q "-drive if=none,id=d0,format=raw,file=$disk -device nvme,serial=d0,drive=d0,addr=10.0" \
	"$VM/package-guest.sh" "$("$TOP/scripts/fetch.sh" stock)" 0000:00:10.0
