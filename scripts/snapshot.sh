#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# snapshot.sh DIR
#
# Copies what a build outside a kernel tree needs to DIR, leaving alone what is
# the same there already, and what earlier builds made.
set -euo pipefail
. "$(dirname "$0")/common.sh"

mkdir -p "$1"
rsync -rlc --delete --exclude='*.mod.c' --include='*/' --include='*.[ch]' \
	--include=Makefile --include=Kbuild --include=Kconfig --include=check-ops.sh --include=ops.btf --exclude='*' \
	"$TOP"/{Makefile,Kbuild,Kconfig,drivers,include,compat} "$1/"
