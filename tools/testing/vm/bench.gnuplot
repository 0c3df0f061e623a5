# SPDX-License-Identifier: GPL-2.0-only
# gnuplot -e "dir='DIR'" bench.gnuplot: draws DIR/memory.dat and DIR/time.dat
set terminal svg size 800,480 background rgb 'white'
set datafile missing '-'
set grid
set key outside top center horizontal

set output dir.'/memory.svg'
set title 'Kernel memory per page mapped, no two pages with the same vaddr - IOVA'
set xlabel 'one page mapped in ...'
set ylabel 'bytes'
set logscale x 2
set logscale y
set yrange [0.01:1000]
set xrange [0.8:5000]
set xtics (1, 2, 16, 64, 512, 4096)
plot for [i = 2:6] dir.'/memory.dat' using 1:i with linespoints lw 2 pt 7 ps 0.7 dt 1 + (i == 4) \
	title word('type1v2 iommufd iommufd-compat type1v3 type1v3-pt', i - 1)

reset
set terminal svg size 1000,520 background rgb 'white'
set datafile missing '-'
set grid y
set key outside top center horizontal
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.8 border -1
set boxwidth 0.9
set xtics rotate by -40 scale 0
set ylabel 'instructions per page'
set yrange [0:*]
do for [op = 0:1] {
	set output dir.'/'.(op ? 'unmap' : 'map').'.svg'
	set title (op ? 'Unmap' : 'Map').': one 4 KiB page with each ioctl'
	plot for [i = 2:6] sprintf("<grep -vE '^[0-9]+M-|-batch|^block-|^coiommu|^confidential' %s/time.dat", dir) \
		using (column(i + 5 * op)):xtic(1) \
		title word('type1v2 iommufd iommufd-compat type1v3 type1v3-pt', i - 1)

	set output dir.'/'.(op ? 'unmap' : 'map').'-whole.svg'
	set title (op ? 'Unmap' : 'Map').': all with one ioctl'
	plot for [i = 2:6] sprintf("<grep -E '^[0-9]+M-' %s/time.dat | grep -v by-page", dir) \
		using (column(i + 5 * op)):xtic(1) \
		title word('type1v2 iommufd iommufd-compat type1v3 type1v3-pt', i - 1)
}

set output dir.'/batch.svg'
set title 'Map (full) and unmap (dashed) in batches of type1v3'
set style data linespoints
set xtics norotate
set xlabel 'entries with each ioctl'
plot for [op = 0:1] for [c in 'huge linear 1-in-64 different'] \
	sprintf("<sed -n 's/^%s-batch-//p' %s/time.dat", c, dir) \
	using 0:(column(5 + 5 * op)):xtic(1) lw 2 pt 7 ps 0.7 dt op + 1 \
	lc strstrt('huge    linear  1-in-64 different', c) / 8 + 1 \
	title op ? '' : c
unset xlabel
set style data histograms
set xtics rotate by -40 scale 0

set output dir.'/replay.svg'
set title 'Map and unmap: replays (-batch: type1v3 in batches, the others as before)'
plot for [i = 2:6] sprintf("<grep -E '^(block-|coiommu|confidential)' %s/time.dat", dir) \
	using (column(i) + column(i + 5)):xtic(1) \
	title word('type1v2 iommufd iommufd-compat type1v3 type1v3-pt', i - 1)
