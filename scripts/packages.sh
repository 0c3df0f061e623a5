#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# packages.sh [DIR]
#
# The packages for distributions other than Debian, from the files that git knows,
# as far as Debian has the tools for that: RPMs are built, looked at by rpmlint and
# put into DIR (default: dist/ here); what the PKGBUILD installs is looked at; the
# expression for Nix is parsed.
set -euo pipefail
. "$(dirname "$0")/common.sh"

out=${1:-$TOP/dist}
work=$(mktemp -d "$CACHE/packages.XXXXXX")
trap 'rm -rf "$work"' EXIT

cd "$TOP"
version=$(sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)
name=vfio-type1v3-$version
for file in "packaging/rpm/vfio-type1v3.spec:^Version: *$version$" \
	    "packaging/arch/PKGBUILD:^pkgver=$version$" \
	    "packaging/nix/default.nix:version = \"$version-"; do
	grep -q "${file#*:}" "${file%%:*}" || die "${file%%:*} and debian/changelog disagree about the version"
done
mkdir -p "$work/$name" "$out"
git -c safe.directory="$TOP" ls-files -z --cached --others --exclude-standard |
	xargs -0 cp --parents -t "$work/$name"
tar -C "$work" -czf "$work/$name.tar.gz" "$name"

say "rpmbuild, rpmlint"
rpmbuild -bb --define "_topdir $work/rpm" --define "_sourcedir $work" \
	packaging/rpm/vfio-type1v3.spec >"$work/log" 2>&1 ||
	{ tail -n 30 "$work/log" >&2; die "rpmbuild failed"; }
rpmlint --ignore-unused-rpmlintrc -r packaging/rpm/rpmlintrc packaging/rpm/vfio-type1v3.spec \
	"$work"/rpm/RPMS/noarch/*.rpm
cp "$work"/rpm/RPMS/noarch/*.rpm "$out"
rpm -qlp "$work"/rpm/RPMS/noarch/vfio-type1v3-dkms-*.rpm >"$work/files"
for file in dkms.conf Makefile Kbuild compat/check-ops.sh compat/ops.btf drivers/vfio/vfio_xa_dma.c; do
	grep -qx "/usr/src/$name/$file" "$work/files" ||
		die "$file is not in the package for DKMS"
done

say "package() of the PKGBUILD"
# shellcheck disable=SC2016  # for the inner shell
bash -euc '. packaging/arch/PKGBUILD; pkgdir=$1/pkg; cd "$1"; package' packages.sh "$work"
for file in "src/$name/dkms.conf" "src/$name/compat/check-ops.sh" include/linux/vfio_type1v3.h bin/type1v3-top; do
	[ -e "$work/pkg/usr/$file" ] || die "$file is not in the package for Arch Linux"
done

say "nix-instantiate --parse"
nix-instantiate --parse packaging/nix/default.nix >/dev/null
say "in $out:"
(cd "$out" && ls -1 vfio-type1v3*.rpm)
