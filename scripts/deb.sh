#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# deb.sh [DIR]
#
# Builds the Debian packages from the files that git knows, has lintian look at
# them, and puts them into DIR (default: dist/ here). Errors, warnings and
# hints ("info") of lintian's profile for Debian are failures.
set -euo pipefail
. "$(dirname "$0")/common.sh"

out=${1:-$TOP/dist}
work=$(mktemp -d "$CACHE/deb.XXXXXX")
trap 'rm -rf "$work"' EXIT

cd "$TOP"
version=$(dpkg-parsechangelog -S Version)
grep -qx "PACKAGE_VERSION=\"$version\"" dkms.conf ||
	die "dkms.conf and debian/changelog disagree about the version"
grep -qx "MODULE_VERSION(\"$version\");" drivers/vfio/vfio_iommu_type1v3.c ||
	die "the module and debian/changelog disagree about the version"
mkdir "$work/vfio-type1v3"
git -c safe.directory="$TOP" ls-files -z --cached --others --exclude-standard |
	xargs -0 cp --parents -t "$work/vfio-type1v3"
(cd "$work/vfio-type1v3" && dpkg-buildpackage -us -uc) >"$work/log" 2>&1 ||
	{ tail -n 40 "$work/log" >&2; die "dpkg-buildpackage failed"; }
lintian --allow-root --profile debian --display-info --tag-display-limit 0 \
	--fail-on error,warning,info "$work"/*.changes
mkdir -p "$out"
rm -f "$out"/vfio-type1v3*
cp "$work"/vfio-type1v3*_* "$out"
say "in $out:"
(cd "$out" && ls -1 vfio-type1v3*.deb)
