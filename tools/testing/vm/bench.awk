# SPDX-License-Identifier: GPL-2.0-only
#
# Makes tables of what type1v3_bench prints.
#
#   -v data=DIR        write DIR/memory.dat and DIR/time.dat for gnuplot, too
#   -v ratios=1        instead, print the ratios type1v3 / type1v2 as CSV
#   -v reference=FILE  instead, fail when such a ratio exceeds that in FILE by
#                      more than a tenth
#   -v again=FILE      instead, fail when a figure differs by more than 2 % from
#                      that of another run, which is in FILE

BEGIN {
	FS = OFS = ","
	n = split("type1v2 iommufd compat type1v3 type1v3-pt", backends, " ")
	nmeasures = split("map unmap pin unpin read write memory", measures, " ")
}

/^#/ { next }

{
	if (!($1 in seen)) {
		seen[$1]
		cases[++ncases] = $1
	}
	value[$1, $2, $3] = $4
}

function ratio(c, measure, of) {
	return ratio_of(c, measure, "type1v3", of)
}

function ratio_of(c, measure, is, of) {
	# memory of a byte a page or less has no ratio that means anything
	if (!((c, measure, of) in value) || !((c, measure, is) in value) ||
	    (measure == "memory" && value[c, measure, of] < 1))
		return "-"
	return sprintf("%.3f", value[c, measure, is] / value[c, measure, of])
}

function table(title, which, format,    i, j, k, m, nm, c, line, any) {
	nm = split(which, m, " ")
	printf "\n%s\n\n%-24s %-6s", title, "", ""
	for (k = 1; k <= n; k++)
		printf " %10s", backends[k]
	print "   v3/v2 v3/iommufd   pt/v2"
	for (i = 1; i <= ncases; i++) {
		c = cases[i]
		for (j = 1; j <= nm; j++) {
			line = sprintf("%-24s %-6s", c, m[j] == "memory" ? "" : m[j])
			any = 0
			for (k = 1; k <= n; k++) {
				if ((c, m[j], backends[k]) in value) {
					line = line sprintf(" %10" format, value[c, m[j], backends[k]])
					any = 1
				} else {
					line = line sprintf(" %10s", "n/a")
				}
			}
			if (any)
				printf "%s %7s %10s %7s\n", line, ratio(c, m[j], "type1v2"),
					ratio(c, m[j], "iommufd"),
					ratio_of(c, m[j], "type1v3-pt", "type1v2")
		}
	}
}

# By more than 2 %, and not only by half an instruction, or a tenth of a byte
function differs(was, is, measure,    slack) {
	slack = 0.02 * was + (measure == "memory" ? 0.1 : 0.5)
	return is - was > slack || was - is > slack
}

function compare(file,    key, checked, bad) {
	while ((getline <file) > 0) {
		key = $1 SUBSEP $2 SUBSEP $3
		checked++
		if (!(key in value)) {
			printf "%s %s %s: not measured again\n", $1, $2, $3
			bad++
		} else if (differs($4, value[key], $2)) {
			printf "%s %s %s: %s in one run and %s in another\n",
				$1, $2, $3, $4, value[key]
			bad++
		}
	}
	printf "%d figures of two runs compared, %d differ by more than 2 %%\n", checked, bad
	return !checked || bad
}

function columns(c, measure, file,    k) {
	for (k = 1; k <= n; k++) {
		if ((c, measure, backends[k]) in value)
			printf " %s", value[c, measure, backends[k]] >file
		else
			printf " -" >file
	}
}

function write_data(    i, k, c, pages) {
	for (i = 1; i <= ncases; i++) {
		c = cases[i]
		pages = 0
		if (c == "different")
			pages = 1
		else if (c == "half")
			pages = 2
		else if (c ~ /^1-in-/)
			pages = substr(c, 6)
		if (pages) {
			printf "%s", pages >(data "/memory.dat")
			columns(c, "memory", data "/memory.dat")
			print "" >(data "/memory.dat")
		}
		if (!((c, "unmap", "type1v3") in value))
			continue
		printf "%s", c >(data "/time.dat")
		columns(c, "map", data "/time.dat")
		columns(c, "unmap", data "/time.dat")
		print "" >(data "/time.dat")
	}
}

END {
	if (!ncases) {
		print "no figures" >"/dev/stderr"
		exit 1
	}
	if (again)
		exit compare(again)
	if (ratios || reference) {
		for (i = 1; i <= ncases; i++) {
			for (j = 1; j <= nmeasures; j++) {
				r = ratio(cases[i], measures[j], "type1v2")
				if (r == "-")
					continue
				now[cases[i], measures[j]] = r
				if (ratios)
					print cases[i], measures[j], r
			}
		}
		if (ratios)
			exit
		while ((getline <reference) > 0) {
			if (/^#/)
				continue
			checked++
			if (!(($1, $2) in now)) {
				printf "%s %s: no longer measured\n", $1, $2
				bad = 1
			} else if (now[$1, $2] > 1.1 * $3 + 0.005) {
				printf "%s %s: type1v3 / type1v2 was %s and is %s\n",
					$1, $2, $3, now[$1, $2]
				bad = 1
			}
		}
		printf "%d ratios compared with the reference: %s\n", checked,
			bad || !checked ? "WORSE" : "none is worse"
		exit bad || !checked
	}
	table("Instructions per page", "map unmap", ".0f")
	table("Instructions per call of an emulated device's driver, one page",
		"pin unpin read write", ".0f")
	table("Kernel memory, bytes per page", "memory", ".2f")
	if (data)
		write_data()
}
