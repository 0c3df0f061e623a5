#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# readme.sh NAME
#
# Prints the commands of README.md that stand below '<!-- run: NAME -->', so
# that what the tests run is what a reader is told to type.
set -euo pipefail
. "$(dirname "$0")/common.sh"

commands=$(awk -v mark="<!-- run: ${1:?usage: readme.sh NAME} -->" '
	$0 == mark { here = 1; next }
	here && /^    / { print substr($0, 5); any = 1; next }
	here && any { exit }' "$TOP/README.md")
[ -n "$commands" ] || die "README.md has nothing to run under the name $1"
echo "$commands"
