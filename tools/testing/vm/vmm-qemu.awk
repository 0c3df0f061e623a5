# SPDX-License-Identifier: GPL-2.0-only
#
# awk -v mem=MIB -v convert=MIB -v configs="CONFIG..." -f vmm-qemu.awk OUTPUT
#
# What vmm-qemu-outer.sh printed, as a table in reStructuredText. Then what must differ
# between the configurations, and what must not: a line for each that does, and status 1.

$1 == "result" {
	key = $3 " " $4
	if (!(key in seen)) {
		seen[key] = 1
		order[++nr] = key
	}
	v[$2, key, $5] = $6
}

function get(config, key, name) {
	if (!((config, key, name) in v)) {
		wrong(config ": " key " has no " name)
		return -1
	}
	return v[config, key, name]
}

function wrong(text) {
	print "WRONG: " text
	bad = 1
}

function is(config, key, name, expected,	got) {
	if (!(config in have))
		return
	got = get(config, key, name)
	if (got != expected)
		wrong(config ": " key ": " name " is " got ", not " expected)
}

function below(config, key, name, limit,	got) {
	if (!(config in have))
		return
	got = get(config, key, name)
	if (got >= limit)
		wrong(config ": " key ": " name " is " got ", not below " limit)
}

function line(char,	i) {
	printf "%s", dup("=", 26)
	for (i = 1; i <= n; i++)
		printf "  %s", dup("=", 18)
	print ""
}

function dup(char, times,	s) {
	while (times--)
		s = s char
	return s
}

function row(text, key, what,	i) {
	printf "%-26s", text
	for (i = 1; i <= n; i++)
		printf "  %18s", cell(config[i], key, what)
	print ""
}

function cell(config, key, what) {
	if (what == "calls")
		return (v[config, key, "map"] + 0) " / " (v[config, key, "unmap"] + 0) " / " \
			(v[config, key, "batch"] + 0)
	if (what == "in")
		return sprintf("%.1f", (v[config, key, "map-ns"] + v[config, key, "unmap-ns"] + \
					v[config, key, "batch-ns"]) / 1e6)
	if (what == "all")
		return sprintf("%.0f", v[config, key, "us"] / 1e3)
	if (what == "locked")
		return sprintf("%.0f", v[config, key, "locked"] / 1024)
	return sprintf("%.0f", v[config, key, what] / 1024)
}

END {
	n = split(configs, config, " ")
	for (i = 1; i <= n; i++)
		have[config[i]] = 1
	line()
	printf "%-26s", "phase"
	for (i = 1; i <= n; i++)
		printf i < n ? "  %-18s" : "  %s", config[i]
	print ""
	line()
	for (i = 1; i <= nr; i++) {
		key = order[i]
		row("**" key "**", key, "calls")
		row("M instructions in them", key, "in")
		row("M instructions in all", key, "all")
		row("metadata, KiB", key, "slab")
		row("IO page tables, KiB", key, "iopt")
		row("VmLck, MiB", key, "locked")
	}
	line()

	new = "patched/type1v3"
	pages = convert * 256
	# one call for what is mapped at the start, and for each request
	is(new, "ram start", "map", 0)
	is(new, "virtio-mem plug", "map", 1)
	is(new, "virtio-mem replug", "map", mem / 32 + 1)
	is(new, "conversion plug", "map", pages < 32768 ? 1 : pages / 32768)
	is(new, "virtio-iommu kicks", "map", 0)
	is(new, "virtio-iommu kicks", "unmap", 0)
	is(new, "virtio-iommu kicks", "batch", 32)
	for (i = 1; i <= n; i++) {
		if (config[i] == new)
			continue
		is(config[i], "virtio-mem plug", "map", mem / 2)
		is(config[i], "conversion plug", "map", pages)
		is(config[i], "virtio-iommu kicks", "map", 2048)
		is(config[i], "virtio-iommu kicks", "unmap", 2048)
	}
	for (i = 1; i <= nr; i++) {
		# no translation has gone that was not to go
		for (j = 1; j <= n; j++)
			if (order[i] ~ / unplug/)
				is(config[j], order[i], "back", 0)
		# a word for each page at most, in nodes of 64, and what else is in use
		if (order[i] ~ /^virtio-mem|conversion plug/)
			below(new, order[i], "slab", 1024 * 1024)
		else if (order[i] ~ /^conversion/)
			below(new, order[i], "slab", pages * 10 + 1024 * 1024)
		for (j = 1; j <= n; j++) {
			is(config[j], order[i], "locked", v[config[1], order[i], "locked"])
			# without type1v3 nothing is done otherwise
			if (config[j] ~ /type1v2/ && "unpatched/type1v2" in have) {
				is(config[j], order[i], "map", v["unpatched/type1v2", order[i], "map"])
				is(config[j], order[i], "unmap", v["unpatched/type1v2", order[i], "unmap"])
				is(config[j], order[i], "batch", 0)
			}
		}
	}
	exit bad
}
