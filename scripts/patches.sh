#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# patches.sh [--check | --check-text | --check-build] TREE [DIR]
#
# Writes a series for 'git am' into DIR (default: patches/ here) that puts the
# sources into the kernel that TREE has. Each scripts/patches/NN-*.msg is a patch:
# the files that it adds, of those that in-tree.sh knows, and its message. What
# they need in Kconfig, Makefiles, indexes of documents and MAINTAINERS comes with
# them. Author and sign-off are those of whoever runs this, as git knows them.
#
# --check-text also applies the series, looks whether the sources come out of it,
# and has checkpatch judge each patch; --check-build applies it as well, and builds
# drivers/vfio after each patch with W=1, and in the end the selftests; --check does
# all of that.
set -euo pipefail
. "$(dirname "$0")/common.sh"

check=''
case ${1:-} in --check*) check=$1; shift ;; esac
tree=$(cd "${1:?usage: patches.sh [--check | --check-text | --check-build] TREE [DIR]}" && pwd -P)
mkdir -p "${2:-$TOP/patches}"
out=$(cd "${2:-$TOP/patches}" && pwd)
name=${GIT_AUTHOR_NAME:-$(git config user.name || true)}
email=${GIT_AUTHOR_EMAIL:-$(git config user.email || true)}
if [ -z "$name" ] || [ -z "$email" ]; then
	die "git config has no user.name or user.email: who signs this off?"
fi

work=$(mktemp -d "$CACHE/patches.XXXXXX")
trap 'rm -rf "$work"' EXIT
# a repository of the files that change, and these as they were
new=$work/linux base=$work/base
cd "$TOP"

# --- the kernel's own files ---------------------------------------------------

changed=(MAINTAINERS drivers/vfio/{Kconfig,Makefile} Documentation/{driver,userspace}-api/index.rst
	 tools/testing/selftests/vfio/{Makefile,lib/iommu.c,lib/include/libvfio/iommu.h}
	 tools/testing/selftests/vfio/vfio_dma_mapping_mmio_test.c)

# The rules of a Makefile of ours, without the objects that have no source yet.
rules() { # FILE
	awk -v dir="$new/${1%/*}/" '
		function is_there(object) {
			if (sub(/\/$/, "/Makefile", object))
				return !system("test -e " dir object)
			sub(/\.o$/, "", object)
			return (object in composite) || !system("test -e " dir object ".c")
		}
		/^CFLAGS_/ {
			object = $1
			sub(/^CFLAGS_/, "", object)
			if (is_there(object))
				print
		}
		/^obj-|^[a-z0-9_]+-y / {
			line = ""
			for (i = 3; i <= NF; i++) {
				if (is_there($i))
					line = line " " $i
			}
			if (line != "") {
				print $1, $2 line
				sub(/-y$/, "", $1)
				composite[$1]
			}
		}' "$1"
}

# The paragraphs of our Kconfig whose symbols the Makefiles know by now.
options() {
	# what names a directory says nothing about what is in it
	find "$new/drivers/vfio" -name Makefile -exec sed -n '/\/$/!s/.*(\(CONFIG_.*\)).*/\1/p' {} + | awk '
		NR == FNR { known[$0]; next }
		/^config / { wanted = ("CONFIG_" $2) in known }
		NR != FNR && wanted' - Kconfig
}

# Our section of MAINTAINERS, in its place, with those of its files that are there.
maintainers() {
	while IFS= read -r line; do
		[[ $line != F:* ]] || compgen -G "$new/${line#F:?}" >/dev/null || continue
		printf '%s\n' "$line"
		[[ $line != VFIO* ]] || printf 'M:\t%s\n' "$name <$email>"
	done <scripts/patches/MAINTAINERS >"$work/section"
	awk -v file="$work/section" -v title="$(head -n 1 "$work/section")" '
		/^VFIO / && $0 > title && !done {
			while ((getline line <file) > 0)
				print line
			print ""
			done = 1
		}
		{ print }' "$base/MAINTAINERS"
}

adapt() {
	local dir=drivers/vfio

	{ cat "$base/$dir/Makefile"; echo; rules $dir/Makefile; } >"$new/$dir/Makefile"
	if [ -d "$new/$dir/tests" ]; then
		{ head -n 1 $dir/tests/Makefile; rules $dir/tests/Makefile; } >"$new/$dir/tests/Makefile"
		# its own directory may be what makes it known
		{ cat "$base/$dir/Makefile"; echo; rules $dir/Makefile; } >"$new/$dir/Makefile"
	fi
	{ cat "$base/$dir/Kconfig"; echo; options; } | cat -s | sed '$ { /^$/d }' >"$new/$dir/Kconfig"
	maintainers >"$new/MAINTAINERS"
	scripts/in-tree.sh -k "$new"
}

# --- the series ---------------------------------------------------------------

# The rows of the tables of README.md below this heading.
table() { # HEADING
	awk -v heading="## $1" '
		/^## / { here = $0 == heading }
		here && /^\|/ && !/^\|[-|]*$/ { gsub(/^\| *| *\|$/, ""); print }' README.md |
		column -t -s '|' -o '  ' | sed 's/ *$//; s/^/  /'
}

commit() { # GIT-OPTIONS...
	git -C "$new" add -A -f
	git -C "$new" commit -q "$@"
}

write_series() {
	local part file globs line

	mkdir "$new"
	for file in "${changed[@]}" drivers/vfio/type1v3.files; do
		[ ! -e "$tree/$file" ] || (cd "$tree" && cp --parents "$file" "$new")
	done
	# our sources may be in the tree already
	scripts/in-tree.sh -u "$new"
	cp -r "$new" "$base"
	git init -q -b type1v3 "$new"
	git -C "$new" config user.name "$name"
	git -C "$new" config user.email "$email"
	commit -m "Linux $release"

	# what goes elsewhere is what adapt() makes pieces of
	scripts/in-tree.sh -l | awk '$1 == $2 { print $1 }' >"$work/left"
	for part in scripts/patches/[0-9]*.msg; do
		read -ra globs < <(sed -n '1s/^Files: //p' "$part")
		# shellcheck disable=SC2068  # patterns
		printf '%s\n' ${globs[@]} | grep -xFf "$work/left" >"$work/these" || die "$part: no files"
		grep -vxFf "$work/these" "$work/left" >"$work/others" || true
		mv "$work/others" "$work/left"
		xargs cp --parents -t "$new" <"$work/these"
		adapt
		commit -s -F <(sed 1,2d "$part")
	done
	[ ! -s "$work/left" ] || die "in no patch: $(tr '\n' ' ' <"$work/left")"

	while IFS= read -r line; do
		if [[ $line =~ ^@README:\ (.*)@$ ]]; then
			table "${BASH_REMATCH[1]}" | grep . || die "README.md: no table below ${BASH_REMATCH[1]}"
		else
			printf '%s\n' "${line//@RELEASE@/$release}"
		fi
	done <scripts/patches/cover.txt >"$work/cover"
	git -C "$new" config branch.type1v3.description "$(cat "$work/cover")"
	rm -f "$out"/*.patch
	git -C "$new" format-patch -q --cover-letter --cover-from-description=subject \
		-o "$out" "$(git -C "$new" rev-list --max-parents=0 HEAD)"
}

# --- whether it is any good -----------------------------------------------------

# Our files in the series are the sources, and nothing else changed.
check_result() { # TREE
	local file dir=drivers/vfio

	scripts/in-tree.sh -l | awk '$1 == $2 { print $1 }' | sort >"$work/ours"
	diff -u "$work/ours" <(git -C "$1" diff --name-only --diff-filter=A "$first" | sort) || return 1
	diff -u <(printf '%s\n' "${changed[@]}" | sort) \
		<(git -C "$1" diff --name-only --diff-filter=a "$first" | sort) || return 1
	while read -r file; do
		# a Makefile of ours is written anew, without comments
		case $file in
		*/Makefile) diff -u <(grep '^[^#]' "$file") <(grep '^[^#]' "$1/$file") || return 1 ;;
		*) cmp "$file" "$1/$file" || return 1 ;;
		esac
	done <"$work/ours"
	# what is said there in files of their own, the kernel's files say at their ends
	diff -u <(sed -n '/^config/,$p' Kconfig) <(sed -n '/^config VFIO_DMA_CORE/,$p' "$1/$dir/Kconfig") ||
		return 1
	diff -u <(grep '^[^#]' $dir/Makefile) <(sed "1,$(wc -l <"$base/$dir/Makefile")d; /^$/d" "$1/$dir/Makefile") ||
		return 1
	! diff -r -x .git "$base" "$1" | grep '^<'
}

check_series() {
	local first patches=("$out"/*.patch)

	first=$(git -C "$new" rev-list --max-parents=0 HEAD)
	say "git am"
	git clone -q "$new" "$work/am"
	git -C "$work/am" reset -q --hard "$first"
	git -C "$work/am" config user.name "$name"
	git -C "$work/am" config user.email "$email"
	git -C "$work/am" am -q "${patches[@]:1}"
	check_result "$work/am" || die "the series does not give the sources"

	if [ "$check" != --check-build ]; then
		say "checkpatch"
		# programs are to be executed, whatever their names end in; lint.sh judges macros,
		# and knows the header with the lists of variants
		(cd "$tree" && scripts/checkpatch.pl --strict --quiet --show-types --no-summary \
			--ignore EXECUTE_PERMISSIONS,MULTISTATEMENT_MACRO_USE_DO_WHILE,MACRO_ARG_REUSE \
			"${patches[@]:1}") ||
			die "checkpatch complains"
	fi
	[ "$check" = --check-text ] || build_series "$first"
}

build_series() { # FIRST
	local dir=$CACHE/patches-tree build=$CACHE/build-patches first=$1 commit

	# another name for the same files; cp and tar replace what changes
	rm -rf "$dir"
	cp -al "$tree" "$dir"
	scripts/in-tree.sh -u "$dir"
	cp --remove-destination -rT "$base" "$dir"
	mkdir -p "$build"
	rm -rf "$build/drivers/vfio"
	kunit_config m >"$build/fragment"
	for commit in $(git -C "$new" rev-list --reverse "$first..HEAD"); do
		say "building $(git -C "$new" log -1 --format=%s "$commit")"
		git -C "$new" diff-tree -r --no-commit-id --name-only "$commit" |
			xargs git -C "$new" archive "$commit" | tar -x -C "$dir"
		make -s -C "$dir" O="$build" KCONFIG_ALLCONFIG="$build/fragment" allnoconfig
		nice make -C "$build" -j"$(nproc)" W=1 drivers/vfio/ >"$build/log" 2>&1 ||
			{ tail -n 30 "$build/log" >&2; die "it does not build"; }
		if grep -E 'drivers/vfio/[^ ]*(vfio_dma|vfio_xa|type1v3|tests/).*(warning|error):' "$build/log"; then
			die "it does not build without warnings"
		fi
	done
	[ -e "$build/drivers/vfio/vfio_iommu_type1v3.o" ] || die "nothing was built"
	say "building the selftests"
	rm -rf "$build/selftests"
	mkdir "$build/selftests"
	make -s -C "$dir" O="$build" INSTALL_HDR_PATH="$build/headers" headers_install
	make -C "$dir/tools/testing/selftests/vfio" OUTPUT="$build/selftests" \
		KHDR_INCLUDES="-isystem $build/headers/include" >"$build/log" 2>&1 ||
		{ tail -n 30 "$build/log" >&2; die "they do not build"; }
	[ -x "$build/selftests/type1v3_uapi_test" ] || die "ours were not built"
	rm -rf "$dir"
}

release=$(make -s -C "$tree" kernelversion)
write_series
[ -z "$check" ] || check_series
say "$(find "$out" -name '*.patch' | wc -l) files in $out"
