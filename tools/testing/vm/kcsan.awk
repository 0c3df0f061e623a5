# SPDX-License-Identifier: GPL-2.0-only
#
# Reads the kernel's log of a run under KCSAN, and prints as a test whether this
# project has a part in any of the data races that were found:
# - one side of the race is in its code, whatever the other is; or
# - both sides are in functions that it has called: a lock was missing. Unless they
#   are the locks' own: how those work inside, nobody else's lock protects; or of a
#   page fault: user memory that is not there yet is the memory management's.
# What the kernel does on its own, also on behalf of one of our calls, is counted.
# For what is no fault there is data_race(), and a comment that says why.

{ sub(/\r$/, "") }
{ sub(/^(<[0-9]+>)?\[ *[0-9]+\.[0-9]+\](\[ *[TC][0-9]+\])? /, "") }

/^kcsan: enabled: 1/ { enabled = 1 }
/^kcsan: setup_watchpoints: / { watchpoints = $3 }

/^BUG: KCSAN: / {
	in_report = 1
	report = $0
	ours = calls = frame = 0
	next
}
!in_report { next }
/^==========/ {
	in_report = 0
	total++
	if (!ours && calls < 2)
		next
	gsub(/\n/, "\n# ", report)
	print "# " report
	races++
	next
}
{ report = report "\n" $0 }
/ by (task [0-9]+|interrupt) on cpu / { frame = 1; called = fault = 0; next }
/^$/ { frame = 0 }
# who was interrupted has no part in what the interrupt does
frame && /^ *(asm_|sysvec_|common_interrupt)/ { frame = 0 }
frame && /^ *handle_mm_fault\+/ { fault = 1 }
frame && /\[vfio_(dma|iommu_type1v3|emulated_test|mock_iommu)\]/ {
	if (frame == 1)
		ours = 1
	if (!called++ && !fault && callee !~ /^ *_*(mutex|rwsem|down|up)_/)
		calls++
}
frame { frame++; callee = $0 }

END {
	if (in_report)
		print "# the last report has no end"
	print "TAP version 13"
	print "1..2"
	print "# " watchpoints + 0 " watchpoints"
	print (enabled && watchpoints ? "ok" : "not ok") " 1 kcsan.watches"
	print "# " total + 0 " reports: " races + 0 " of this project, the others of the kernel alone"
	print (races || in_report ? "not ok" : "ok") " 2 kcsan.no_data_race"
	exit races || in_report || !enabled || !watchpoints
}
