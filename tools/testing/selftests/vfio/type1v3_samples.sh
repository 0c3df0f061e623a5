#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# type1v3_samples.sh GUIDE [trackers]
#
# Prints the program that the guide for authors of VMMs consists of: the blocks of C
# below '.. sample' and '.. sample main', in order. With "trackers", without main(): the
# functions below '.. sample' and '.. sample trackers', for the test that calls them.
set -eu
# the licence of this file is that of the program
sed -n 's|^# \(SPDX.*\)|// \1|p' "$0"
echo '/* The program of "Using type1v3 containers", taken from that document. */'
awk -v wanted="${2:-main}" '
	/^\.\. sample( |$)/ { here = NF == 2 || $3 == wanted; next }
	here == 1 && /^\.\. code-block:: c$/ { here = 2; blocks++; blank = lines > 0; next }
	here == 2 && /^$/ { blank++; next }
	here == 2 && /^        / {
		if (blank && lines)
			print ""
		blank = 0
		lines++
		sub(/^        /, "")
		indent = ""
		while (sub(/^        /, ""))
			indent = indent "\t"
		print indent $0
		next
	}
	/^[^ ]/ { here = 0 }
	END {
		if (!lines) {
			print "there is no sample" >"/dev/stderr"
			exit 1
		}
	}' "${1:?usage: type1v3_samples.sh GUIDE [trackers]}"
