// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the record takes, and whether it is right; see vfio_pt_record.c.
 *
 * Nothing changes but that open regions without pages are closed.
 */

#include <kunit/visibility.h>
#include <linux/export.h>
#include <linux/sched.h>

#include "vfio_pt_internal.h"

/**
 * vfio_pt_record_stats() - memory that a record takes, by kind
 * @pt: the record
 * @stats: filled in
 *
 * Context: Caller holds the container's mutex.
 */
void vfio_pt_record_stats(struct vfio_pt_record *pt, struct vfio_xa_dma_stats *stats)
{
	const struct vfio_xa_dma *stores[] = { &pt->regions, &pt->odd, &pt->ghosts };
	struct vfio_xa_dma_stats one;
	unsigned int i;

	vfio_pt_close_empty(pt);
	*stats = (struct vfio_xa_dma_stats){};
	for (i = 0; i < ARRAY_SIZE(stores); i++) {
		vfio_xa_dma_get_stats(stores[i], &one);
		stats->nodes += one.nodes;
		stats->node_bytes += one.node_bytes;
		stats->arrays += one.arrays;
		stats->array_bytes += one.array_bytes;
	}
}

/**
 * vfio_pt_record_bytes() - how much memory do mappings take?
 * @pt: the record
 *
 * Context: Caller holds the container's mutex.
 * Return: bytes, IO page tables not included.
 */
size_t vfio_pt_record_bytes(struct vfio_pt_record *pt)
{
	vfio_pt_close_empty(pt);
	return vfio_xa_dma_footprint(&pt->regions) + vfio_xa_dma_footprint(&pt->odd) +
	       vfio_xa_dma_footprint(&pt->ghosts);
}
EXPORT_SYMBOL_NS_GPL(vfio_pt_record_bytes, "VFIO_DMA");

/* Is all true that is said of one region? */
static bool region_is_valid(struct vfio_pt_record *pt, unsigned long region,
			    unsigned long word, unsigned long *nr)
{
	unsigned long pos = region << VFIO_PT_REGION_SHIFT, last = region_last(pos);
	const struct vfio_pt_open *open = place_of(pt, region);
	unsigned long mapped = 0, reserved = 0, odd;
	bool is_open = open->region == region, is;

	for (; pos <= last; pos++) {
		odd = vfio_xa_dma_load(&pt->odd, pos);
		if (odd & VFIO_XA_DMA_PENDING)
			reserved++;
		/* In other chunks there can be what the kernel has mapped. */
		is = odd ? !(odd & VFIO_XA_DMA_PENDING) :
			   count_of(word) && word & chunk_bit(pos) &&
			   lookup(pt, pos) != VFIO_DMA_NO_PFN;
		mapped += is;
		if (is && !(word & chunk_bit(pos)))
			return false;
		if (is_open && is_known(open, pos) &&
		    is != test_bit(page_of(pos), open->pages))
			return false;
	}
	*nr += mapped + reserved;
	return mapped == count_of(word) && !reserved == !(word & HELD);
}

/**
 * vfio_pt_record_validate() - look for mistakes
 * @pt: the record; nobody is between entering a page and mapping it
 *
 * Every page of every region is looked up: this is for tests.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0, or -EINVAL if something is wrong.
 */
int vfio_pt_record_validate(struct vfio_pt_record *pt)
{
	unsigned long first = 0, nr = 0, i;
	struct vfio_xa_dma_run run;

	if (vfio_xa_dma_validate(&pt->regions) || vfio_xa_dma_validate(&pt->odd) ||
	    vfio_xa_dma_validate(&pt->ghosts))
		return -EINVAL;
	for (i = 0; i < VFIO_PT_OPEN; i++)
		if (pt->open[i].region != NO_REGION &&
		    !is_stale(vfio_xa_dma_load(&pt->regions, pt->open[i].region)))
			return -EINVAL;
	while (vfio_pt_next_region(pt, first, region_of(VFIO_XA_DMA_LAST_INDEX), &run)) {
		for (i = run.first; i <= run.last; i++) {
			if (!region_is_valid(pt, i, run.word, &nr))
				return -EINVAL;
			cond_resched();
		}
		if (run.last == region_of(VFIO_XA_DMA_LAST_INDEX))
			break;
		first = run.last + 1;
	}
	return nr == pt->npages ? 0 : -EINVAL;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_validate);
