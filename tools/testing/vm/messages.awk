# SPDX-License-Identifier: GPL-2.0-only
#
# Reads the kernel's log of a run and prints the messages that nobody announced,
# and the announcements that were wrong. The status is 1 if there are any.
#   BAD in the environment     a regular expression of the messages that matter
#   ALLOW in the environment   those that may come at any time, one a line
#
# A test announces a message by records of its own in the log (/dev/kmsg):
#   vm-expect: REGEX   from here on; it must come, or the run fails
#   vm-may: REGEX      from here on it may come
#   vm-end: REGEX      the end of the newest window of that REGEX
# A WARN of the kernel is several lines, from "cut here" to its backtrace. It was
# announced if one of those before "Modules linked in" was.

function problem(text) {
	print text
	problems++
}

# Text of a warning that no announcement is about: one that fits is too wide
function check(regex) {
	if (regex == "" || "" ~ regex)
		problem("an announcement of nothing: '" regex "'")
	else if ("WARNING: CPU: 0 PID: 1 at drivers/vfio/other.c:1 other+0x1/0x2 [vfio_iommu_type1v3]" ~ regex ||
		 "WARNING: drivers/vfio/other.c:1 at other+0x1/0x2 [vfio_dma], CPU#0: other/1" ~ regex ||
		 "Modules linked in: vfio_iommu_type1v3" ~ regex)
		problem("an announcement of every warning: '" regex "'")
}

function announce(regex, must) {
	check(regex)
	window[++nr] = regex
	needed[nr] = must
	end[nr] = ""
}

function close_window(regex,    i) {
	for (i = nr; i; i--) {
		if (window[i] == regex && end[i] == "") {
			end[i] = now
			return
		}
	}
	problem("the end of what was not announced: '" regex "'")
}

# An interrupt may be late with what it has to say: a second is allowed
function announced(line,    i, any) {
	for (i = 1; i <= nr; i++) {
		if ((end[i] == "" || now <= end[i] + 1) && line ~ window[i]) {
			seen[i]++
			any = 1
		}
	}
	return any
}

BEGIN {
	bad = ENVIRON["BAD"]
	if (bad == "")
		problem("no message is bad")
	n = split(ENVIRON["ALLOW"], allow, "\n")
	for (i = 1; i <= n; i++)
		if (allow[i] != "")
			announce(allow[i], 0)
}

{ sub(/\r$/, "") }
match($0, /\[ *[0-9]+\.[0-9]+\]/) {
	now = substr($0, RSTART + 1, RLENGTH - 2) + 0
}
match($0, /vm-(expect|may|end): ?/) {
	regex = substr($0, RSTART + RLENGTH)
	if (/vm-end: ?/)
		close_window(regex)
	else
		announce(regex, /vm-expect: ?/)
	next
}
/------------\[ cut here \]------------/ { header = 1; excused = 0; next }
header && announced($0) { excused = 1 }
/Modules linked in/ {
	if (!excused)
		problem($0)
	header = excused = 0
	next
}
$0 ~ bad && !announced($0) {
	# judged when its header is complete
	if (header && /WARNING: / && excused)
		next
	problem($0)
}
END {
	for (i = 1; i <= nr; i++) {
		if (needed[i] && !seen[i])
			problem("announced, and did not come: '" window[i] "'")
		if (needed[i] && end[i] == "")
			problem("an announcement without an end: '" window[i] "'")
	}
	exit problems > 0
}
