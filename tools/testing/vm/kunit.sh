#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# kunit.sh MODULE...: loads KUnit modules in the guest and prints the results.
# Tests that are over leave no address space behind; what some hundred leave
# would break up the blocks of memory that the next ones need.
set -u
page_tables() { awk '/^PageTables:/ { print $2 }' /proc/meminfo; }

modprobe kunit
before=$(page_tables)
for module; do
	modprobe "$module" || exit 1
	dmesg | grep -q "# module: $module\$" || { echo "$module ran no test"; exit 1; }
	modprobe -r "$module" || exit 1
done
dmesg --notime | sed -n '/KTAP version 1/,$p'
left=$(($(page_tables) - before))
[ $left -lt 400 ] || { echo "$left KiB of page tables are left"; exit 1; }
