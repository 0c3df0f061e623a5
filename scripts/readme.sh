#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# readme.sh NAME
#
# Prints the commands of README.md or of the guide for authors of VMMs that stand
# below '<!-- run: NAME -->' or '.. run: NAME', so that what the tests run is what
# a reader is told to type.
set -euo pipefail
. "$(dirname "$0")/common.sh"

commands=$(awk -v name="${1:?usage: readme.sh NAME}" '
	$0 == "<!-- run: " name " -->" || $0 == ".. run: " name { here = 1; next }
	here && /^    / { sub(/^ +/, ""); print; any = 1; next }
	here && any { exit }' "$TOP/README.md" "$TOP"/Documentation/userspace-api/*.rst)
[ -n "$commands" ] || die "there is nothing to run under the name $1"
echo "$commands"
