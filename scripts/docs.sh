#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# docs.sh: builds the project's documents with the kernel's Sphinx configuration
# and extensions, as HTML; any warning is an error. The tree that it makes for
# that has our files where a kernel tree would have them, and of the kernel
# nothing but its tools: building all of its documents would take an hour.
set -euo pipefail
. "$(dirname "$0")/common.sh"

source=$("$TOP/scripts/fetch.sh" source)/src
tree=$CACHE/docs
log=$CACHE/docs.log

make_tree() {
	local from to

	rm -rf "$tree"
	mkdir -p "$tree/Documentation" "$tree/tools"
	ln -s "$source"/{Makefile,MAINTAINERS,arch,scripts} "$tree/"
	ln -s "$source"/tools/{docs,lib,net} "$tree/tools/"
	ln -s "$source"/Documentation/{Makefile,conf.py,docutils.conf,images,sphinx,sphinx-static} \
		"$tree/Documentation/"
	"$TOP/scripts/in-tree.sh" -l | while read -r from to; do
		install -D -m 644 "$TOP/$from" "$tree/$to"
	done
	printf '%s\n' type1v3 ======= '' '.. toctree::' '   :glob:' '' '   */*' \
		>"$tree/Documentation/index.rst"
}

build() {
	make_tree
	make -C "$tree" htmldocs SPHINXOPTS='-W --keep-going'
}

with_lock docs slowly "$log" build
say "the documents are in $tree/Documentation/output/index.html"
