#!/usr/bin/awk -f
# SPDX-License-Identifier: GPL-2.0-only
# Of what memory prints, the worst that was found, as lines of a CSV.
/^not ok/ { bad = 1 }
/: worst of the search, / { search = $(NF - 6) }
/, erased at random: / && $(NF - 6) > erased { erased = $(NF - 6) }
END {
	if (bad || !search || !erased)
		exit 1
	printf "worst,bytes,store,%.1f\nerased,bytes,store,%.1f\n", search, erased
}
