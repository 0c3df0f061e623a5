# SPDX-License-Identifier: GPL-2.0-only
#
# Counts the TAP of one or more tests, one after the other: prints how many
# passed, failed and were skipped. Whatever makes a count worthless is a failure
# of its own: no plan, a plan that was not kept, no test at all.
#   -v skips=FILE   lines of a test's name (a regex), blank, why it may be skipped
#   -v stage=NAME   what those names are looked up with: NAME/name

BEGIN {
	while (skips && (getline line < skips) > 0)
		if (line !~ /^(#|$)/)
			may_skip[++nr_skips] = "^" substr(line, 1, match(line, /[ \t]/) - 1) "$"
}

function problem(text) {
	print "not ok: " text > "/dev/stderr"
	failed++
}

function end_of_test() {
	if (open && plan == "")
		problem(stage ": a test without a plan")
	else if (open && seen != plan)
		problem(stage ": " seen " of " plan " planned tests")
	open = seen = 0
	plan = ""
}

{ sub(/\r$/, "") }
/^(TAP|KTAP) version/ { end_of_test(); open = 1; next }
/^1\.\.[0-9]+/ {
	open = 1
	plan = substr($1, 4) + 0
	if (!plan)
		problem(stage ": a plan of no tests: " $0)
	next
}
/^Bail out!/ { problem(stage ": " $0); open = 0; next }
/^(not )?ok [0-9]+/ {
	open = 1
	seen++
	name = $0
	sub(/^(not )?ok [0-9]+ *(- )?/, "", name)
	skipped = match(name, /[ \t]*# *[Ss][Kk][Ii][Pp]/)
	if (skipped)
		name = substr(name, 1, RSTART - 1)
	if (/^not/) {
		problem(stage ": " name)
	} else if (!skipped) {
		passed++
	} else {
		for (i = 1; i <= nr_skips; i++)
			if ((stage "/" name) ~ may_skip[i])
				break
		if (i > nr_skips)
			problem(stage ": unexpected skip: " $0)
		else
			skip++
	}
}
END {
	end_of_test()
	if (!passed && !failed && !skip)
		problem(stage ": no test at all")
	print passed + 0, failed + 0, skip + 0
}
