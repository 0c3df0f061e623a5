#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# kunit.sh MODULE...: loads KUnit modules in the guest and prints the results
set -u
modprobe kunit
for module; do
	modprobe "$module" || exit 1
	dmesg | grep -q "# module: $module\$" || { echo "$module ran no test"; exit 1; }
	modprobe -r "$module" || exit 1
done
dmesg --notime | sed -n '/KTAP version 1/,$p'
