// SPDX-License-Identifier: GPL-2.0-only
/*
 * Other flags for pages of the record; see vfio_pt_record.c.
 *
 * Pages of a part of a region become odd, and are odd no more where they have the flags of
 * their region again.  Which pages are mapped does not change here.
 */

#include <kunit/visibility.h>
#include <linux/export.h>
#include <linux/sched.h>

#include "vfio_pt_internal.h"

/* Make odd pages of those of one region that are mapped. */
static int make_odd(struct vfio_pt_record *pt, unsigned long first, unsigned long last,
		    bool nofail)
{
	struct vfio_xa_dma_run run;
	int ret = 0;

	while (first <= last && vfio_pt_record_next(pt, first, last, &run)) {
		first = run.last + 1;
		if (vfio_xa_dma_load(&pt->odd, run.first))
			continue;
		if (nofail)
			vfio_xa_dma_insert(&pt->odd, run.first, run.last, run.word, NOFAIL);
		else
			ret = vfio_xa_dma_insert(&pt->odd, run.first, run.last, run.word,
						 VFIO_DMA_GFP);
		if (ret)
			break;
	}
	return ret;
}

static void change_regions(struct vfio_pt_record *pt, unsigned long first,
			   unsigned long last, unsigned long clear, unsigned long set)
{
	unsigned int i;

	vfio_xa_dma_change(&pt->regions, first, last, clear, set);
	for (i = 0; i < VFIO_PT_OPEN; i++)
		if (pt->open[i].region >= first && pt->open[i].region <= last)
			pt->open[i].word = (pt->open[i].word & ~clear) | set;
}

static int prepare_store(struct vfio_xa_dma *store, unsigned long first, unsigned long last,
			 bool nofail)
{
	if (!nofail)
		return vfio_xa_dma_cut(store, first, last, VFIO_DMA_GFP);
	vfio_xa_dma_cut(store, first, last, NOFAIL);
	return 0;
}

static int change(struct vfio_pt_record *pt, unsigned long first, unsigned long last,
		  unsigned long clear, unsigned long set, bool nofail)
{
	unsigned long pos, end, word;
	int ret = 0;

	for (pos = first; pos <= last; pos = end + 1) {
		bool whole = piece_end(pos, last, &end);

		word = whole ? 0 : load_region(pt, region_of(pos));
		if (count_of(word) && ((word & clear) || (~word & set)))
			ret = make_odd(pt, pos, end, nofail);
		if (!ret)
			ret = prepare_store(&pt->odd, pos, end, nofail);
		if (!ret && whole)
			ret = prepare_store(&pt->regions, region_of(pos), region_of(end), nofail);
		if (ret)
			break;
		vfio_xa_dma_change(&pt->odd, pos, end, clear, set);
		if (whole)
			change_regions(pt, region_of(pos), region_of(end), clear, set);
	}
	return ret;
}

/**
 * vfio_pt_record_change() - change flags of what was reserved with one call
 * @pt: the record
 * @first: its first page
 * @last: its last page
 * @clear: flags to clear, not PENDING nor START
 * @set: flags to set, likewise
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_pt_record_change(struct vfio_pt_record *pt, unsigned long first,
			   unsigned long last, unsigned long clear,
			   unsigned long set)
{
	unsigned long pos, end;

	for (pos = first; pos <= last; pos = end + 1) {
		bool whole = piece_end(pos, last, &end);

		vfio_xa_dma_change(&pt->odd, pos, end, clear, set);
		if (whole)
			vfio_xa_dma_change(&pt->regions, region_of(pos), region_of(end),
					   clear, set);
	}
}

/**
 * vfio_pt_record_try_change() - change flags of any range
 * @pt: the record
 * @first: first page of the range
 * @last: its last page
 * @clear: flags to clear, not PENDING
 * @set: flags to set, likewise; START only for one page
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -ENOMEM, and then some may have been changed.
 */
int vfio_pt_record_try_change(struct vfio_pt_record *pt, unsigned long first,
			      unsigned long last, unsigned long clear,
			      unsigned long set)
{
	return change(pt, first, last, clear, set, false);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_try_change);

/* Odd pages that have the flags of their region take memory for nothing. */
static void prune_odd(struct vfio_pt_record *pt, unsigned long first, unsigned long last)
{
	struct vfio_xa_dma_run run, region;

	while (first <= last && vfio_xa_dma_next_piece(&pt->odd, first, last, &run)) {
		if (!vfio_pt_next_region(pt, region_of(run.first), region_of(run.last), &region))
			return;
		run.last = min(run.last, region_last(region.last << VFIO_PT_REGION_SHIFT));
		if (run.word == (region.word & REGION_FLAGS) &&
		    !vfio_xa_dma_cut(&pt->odd, run.first, run.last, VFIO_DMA_GFP))
			vfio_xa_dma_erase(&pt->odd, run.first, run.last);
		first = run.last + 1;
		cond_resched();
	}
}

/**
 * vfio_pt_record_change_nofail() - vfio_pt_record_try_change() where nobody can be told
 * @pt: the record
 * @first: first page of the range
 * @last: its last page
 * @clear: flags to clear, not PENDING
 * @set: flags to set, likewise; START only for one page
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_pt_record_change_nofail(struct vfio_pt_record *pt, unsigned long first,
				  unsigned long last, unsigned long clear,
				  unsigned long set)
{
	change(pt, first, last, clear, set, true);
	if (!vfio_xa_dma_empty(&pt->odd))
		prune_odd(pt, first, last);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_change_nofail);
