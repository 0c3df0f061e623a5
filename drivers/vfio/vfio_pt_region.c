// SPDX-License-Identifier: GPL-2.0-only
/*
 * Words of regions, and what they say is mapped; see vfio_pt_record.c.
 *
 * A region that is being changed is open: its word is in one of a few places, beside it
 * is which of its pages are mapped, as far as that is known, and the store has a
 * placeholder.  IO page tables are read here, and never changed.
 */

#include <kunit/visibility.h>
#include <linux/export.h>
#include <linux/sched.h>

#include "vfio_pt_internal.h"

/*
 * Open regions
 */

static void close_region(struct vfio_pt_record *pt, struct vfio_pt_open *open)
{
	unsigned long word = open->word;

	if (open->region == NO_REGION)
		return;
	if (word & HELD)
		word |= VFIO_XA_DMA_PENDING;
	if (word & (COUNT_MASK | HELD))
		vfio_xa_dma_change(&pt->regions, open->region, open->region, ~0UL,
				   word);
	else
		vfio_xa_dma_erase(&pt->regions, open->region, open->region);
	open->region = NO_REGION;
}

/* Close those of a range of regions. */
void vfio_pt_close(struct vfio_pt_record *pt, unsigned long first,
		   unsigned long last)
{
	unsigned int i;

	for (i = 0; i < VFIO_PT_OPEN; i++)
		if (pt->open[i].region >= first && pt->open[i].region <= last)
			close_region(pt, &pt->open[i]);
}

/* Nothing is mapped or reserved: what is open takes memory for nothing. */
void vfio_pt_close_all(struct vfio_pt_record *pt)
{
	vfio_pt_close(pt, 0, region_of(VFIO_XA_DMA_LAST_INDEX));
}

/*
 * Open regions whose last page has gone keep their place in the store, for the next one.
 * Whoever asks for the memory that a record takes gets it without them.
 */
void vfio_pt_close_empty(struct vfio_pt_record *pt)
{
	unsigned int i;

	for (i = 0; i < VFIO_PT_OPEN; i++)
		if (!(pt->open[i].word & (COUNT_MASK | HELD)))
			close_region(pt, &pt->open[i]);
}

struct vfio_pt_open *
vfio_pt_open_slow(struct vfio_pt_record *pt, unsigned long region, gfp_t gfp)
{
	struct vfio_pt_open *open = place_of(pt, region);
	unsigned long word = vfio_xa_dma_load(&pt->regions, region);

	if (!word) {
		if (vfio_xa_dma_insert(&pt->regions, region, region, STALE, gfp))
			return NULL;
	} else {
		if (!(word & VFIO_XA_DMA_PENDING) &&
		    vfio_xa_dma_cut(&pt->regions, region, region, gfp))
			return NULL;
		vfio_xa_dma_change(&pt->regions, region, region, ~0UL, STALE);
	}
	close_region(pt, open);
	open->region = region;
	open->word = word & ~VFIO_XA_DMA_PENDING;
	/* Nothing is mapped in chunks that the word has no bit for. */
	open->known = ~(word >> CHUNKS_SHIFT) & ALL_CHUNKS;
	bitmap_zero(open->pages, VFIO_PT_REGION_PAGES);
	return open;
}

/* Open a region that has a word; %NULL if it has none, which is a bug. */
struct vfio_pt_open *vfio_pt_open_nofail(struct vfio_pt_record *pt,
					 unsigned long region)
{
	if (place_of(pt, region)->region != region &&
	    !(vfio_xa_dma_load(&pt->regions, region) & VFIO_XA_DMA_PENDING))
		vfio_xa_dma_cut(&pt->regions, region, region, NOFAIL);
	return open_region(pt, region, VFIO_DMA_GFP);
}

void vfio_pt_region_remove(struct vfio_pt_open *open, unsigned long first,
			   unsigned long last)
{
	/* All of a full region is mapped. */
	if (is_full(open->word)) {
		bitmap_fill(open->pages, VFIO_PT_REGION_PAGES);
		open->known = ALL_CHUNKS;
	}
	bitmap_clear(open->pages, page_of(first), last - first + 1);
	region_count_down(open, last - first + 1);
}

/* Is a page of a region reserved, by whatever map? */
static bool has_reserved(struct vfio_pt_record *pt, unsigned long region)
{
	unsigned long pos = region << VFIO_PT_REGION_SHIFT, last = region_last(pos);
	struct vfio_xa_dma_run run;

	while (vfio_xa_dma_next(&pt->odd, pos, last, &run)) {
		if (run.word & VFIO_XA_DMA_PENDING)
			return true;
		if (run.last == last)
			break;
		pos = run.last + 1;
	}
	return false;
}

void vfio_pt_unhold(struct vfio_pt_record *pt, struct vfio_pt_open *open)
{
	if (open->word & HELD && !has_reserved(pt, open->region))
		open->word &= ~HELD;
}

/* A region that is open has its word in another place, and is a run of its own. */
void vfio_pt_look_open(struct vfio_pt_record *pt, struct vfio_xa_dma_run *run)
{
	if (is_stale(run->word)) {
		run->last = run->first;
		run->word = place_of(pt, run->first)->word;
	}
}

/*
 * A piece of the first run of equal words of regions in a range: walks that look at one
 * region only would go over all of the run each time.
 */
bool vfio_pt_next_region(struct vfio_pt_record *pt, unsigned long first,
			 unsigned long last, struct vfio_xa_dma_run *run)
{
	if (!vfio_xa_dma_next_piece(&pt->regions, first, last, run))
		return false;
	vfio_pt_look_open(pt, run);
	return true;
}

/*
 * What is mapped
 */

/* Does a page translate in any domain?  One that comes to be the first would say so. */
bool vfio_pt_is_anywhere(struct vfio_pt_record *pt, unsigned long index)
{
	struct vfio_dma_domain *domain;

	list_for_each_entry(domain, &pt->space->domains, next)
		if (vfio_dma_domain_pfn(domain, (dma_addr_t)index << PAGE_SHIFT) !=
		    VFIO_DMA_NO_PFN)
			return true;
	return false;
}

/* Is a page mapped that is in a region with some word, and not odd? */
bool vfio_pt_is_mapped(struct vfio_pt_record *pt, unsigned long word, unsigned long index)
{
	const struct vfio_pt_open *open = place_of(pt, region_of(index));

	if (is_full(word))
		return true;
	if (!(word & chunk_bit(index)))
		return false;
	if (open->region == region_of(index) && is_known(open, index))
		return test_bit(page_of(index), open->pages);
	return lookup(pt, index) != VFIO_DMA_NO_PFN;
}

/* The first page of [@first, @last], all in one region without odd pages, that is mapped */
bool vfio_pt_find_mapped(struct vfio_pt_record *pt, unsigned long word,
			 unsigned long first, unsigned long last, unsigned long *found)
{
	unsigned long pos = first;

	if (!count_of(word))
		return false;
	while (pos <= last) {
		if (vfio_pt_is_mapped(pt, word, pos)) {
			*found = pos;
			return true;
		}
		if (word & chunk_bit(pos))
			pos++;
		else
			pos = (pos | (BIT(CHUNK_SHIFT) - 1)) + 1;
	}
	return false;
}

/**
 * vfio_pt_record_load() - look a page up
 * @pt: the record
 * @index: IOVA page
 *
 * Context: Process context.  Caller holds the container's mutex.
 * Return: its flags, PENDING among them if it is reserved; 0 if it is neither.
 */
unsigned long vfio_pt_record_load(struct vfio_pt_record *pt, unsigned long index)
{
	unsigned long word = load_region(pt, region_of(index)), odd;

	if (!word)
		return 0;
	if (!vfio_xa_dma_empty(&pt->odd)) {
		odd = vfio_xa_dma_load(&pt->odd, index);
		if (odd)
			return odd;
	}
	return count_of(word) && vfio_pt_is_mapped(pt, word, index) ? word & REGION_FLAGS : 0;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_load);

/*
 * Extend a run of pages that are not odd, up to @last at most, of regions that begin with
 * those of @region.  Returns whether it may go on behind them.  A run does not extend
 * further than is cheap to find out: whoever looks at the first page of it only should
 * not wait for all the others.
 */
static bool extend_run(struct vfio_pt_record *pt, const struct vfio_xa_dma_run *region,
		       unsigned long last, struct vfio_xa_dma_run *run)
{
	unsigned long pos = run->last, word = region->word;
	unsigned long end = min(last, region_last(pos)), limit = pos + RUN_LOOKUPS;

	if (is_full(word)) {
		run->last = min(last, region_last(region->last << VFIO_PT_REGION_SHIFT));
		return run->last < last;
	}
	end = min(end, limit);
	while (pos < end && vfio_pt_is_mapped(pt, word, pos + 1))
		pos++;
	run->last = pos;
	return false;
}

/**
 * vfio_pt_record_next() - find the first run in a range of pages
 * @pt: the record
 * @first: first page of the range
 * @last: its last page
 * @run: set to the first run of pages with equal flags, as far as it lies in the range.
 *	Its neighbours may be equal, too, and its memory need not be contiguous
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: true if there is one.
 */
bool vfio_pt_record_next(struct vfio_pt_record *pt, unsigned long first,
			 unsigned long last, struct vfio_xa_dma_run *run)
{
	struct vfio_xa_dma_run odd, region;
	unsigned long end, start;
	bool has_odd, more;

	has_odd = !vfio_xa_dma_empty(&pt->odd) &&
		  vfio_xa_dma_next_piece(&pt->odd, first, last, &odd);

	while (vfio_pt_next_region(pt, region_of(first), region_of(last), &region)) {
		first = max(first, region.first << VFIO_PT_REGION_SHIFT);
		if (has_odd && odd.first <= first)
			break;
		end = has_odd ? odd.first - 1 : last;
		end = min(end, region_last(region.last << VFIO_PT_REGION_SHIFT));
		/* Only a full or an empty one is looked at together with others. */
		if (count_of(region.word) && !is_full(region.word))
			end = min(end, region_last(first));
		if (vfio_pt_find_mapped(pt, region.word, first, end, &start))
			goto found;
		if (end == last)
			return false;
		first = end + 1;
		if (has_odd && odd.first == first)
			break;
		cond_resched();
	}
	if (has_odd)
		*run = odd;
	return has_odd;

found:
	run->first = start;
	run->last = start;
	run->word = region.word & REGION_FLAGS;
	end = has_odd ? odd.first - 1 : last;
	more = extend_run(pt, &region, end, run);
	while (more && vfio_pt_next_region(pt, region_of(run->last + 1), region_of(end), &region) &&
	       region.first == region_of(run->last + 1) &&
	       (region.word & REGION_FLAGS) == run->word &&
	       vfio_pt_find_mapped(pt, region.word, run->last + 1, run->last + 1, &start)) {
		run->last = start;
		more = extend_run(pt, &region, end, run);
		cond_resched();
	}
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_next);
