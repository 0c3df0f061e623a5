// SPDX-License-Identifier: GPL-2.0-only
/*
 * vfio_pt_record - the IO page table as the record of what is mapped
 *
 * A page that is mapped has an entry in the IO page table of each domain anyway.  The
 * IOMMU API tells what an address translates to, but neither with which rights, nor
 * where the next mapped address is.  A word for each region of VFIO_PT_REGION_PAGES
 * pages is kept beside it therefore:
 *
 *	bits	from FLAG_BITS + 10	a bit for each chunk in which a page may be mapped
 *		from FLAG_BITS		number of pages that are mapped
 *		below			flags that its pages have, unless they are odd
 *
 * Words of regions are kept in a vfio_xa_dma, in which equal neighbours are one run.
 * A region without pages has no word, and needs no look-up; nor does a full one.
 *
 * Odd pages have other flags than their region.  A second vfio_xa_dma has their words, and
 * those of all reserved pages, with PENDING: a map in flight has placed some of these in the
 * IO page table, and nobody knows how many.  The words of odd pages have no delta, as user
 * addresses are not recorded; a run of equal words does not say that its memory is
 * contiguous.
 *
 * The order that callers keep to: an entry goes from the IO page table before its page is
 * erased here, and a page is entered here before it is mapped there.  In between nobody
 * looks, as all of it happens with the mutex held.  No IO page table is changed here.
 *
 * What cannot fail
 * ----------------
 * A word with a TRANSIENT flag is changed and erased without memory.  The word of a
 * region that is about to change is taken out of the store, which has a placeholder
 * instead (STALE), and put into a place for open regions.  Closing it needs no memory
 * therefore, whenever that is.  The first page of a region, and the last one, need no
 * place: the store gets the word, or loses it, in one step.  What has been stored so can
 * be taken back without memory until enter_end().  Regions that a map in flight is to
 * fill are HELD: their words in the store have PENDING, also when they are closed.  The
 * regions that a map in flight fills wholly are in the store only, count no page until
 * commit, and have the flags of its pages, as far as those are equal all over a region.
 *
 * Look-ups
 * --------
 * An open region has a bit for each of its pages beside its word.  The bits are right in
 * chunks in which nothing was mapped when the region was opened, in full regions and in
 * regions that have been empty since; elsewhere the IO page table is asked, a page at a
 * time.  Closing a region forgets the bits: there are VFIO_PT_OPEN times 64 bytes of them
 * in all, however much is mapped.
 *
 * Most IOMMU drivers walk the table in memory, which is right as soon as iommu_unmap_fast()
 * returns.  Drivers that have the IOMMU walk it (arm-smmu where it can translate for the CPU)
 * may find what has been unmapped until the IOTLB is synchronised.  Synchronising before each
 * look-up would be a synchronisation for each page of all batches.  So it is those who look
 * at what may have been unmapped before that who have it synchronised first: a batch that
 * may unmap a page twice, and a cut, which looks at the neighbours of what goes.
 *
 * Ghosts are pages that an IOMMU driver has failed to unmap, of whichever domain: any of
 * them can be the first one later.
 */

#include <kunit/visibility.h>
#include <linux/export.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "vfio_pt_internal.h"

/*
 * Maps in flight
 */

/* Reserved pages of [@first, @last] go; regions do not count them. */
static void unreserve_pieces(struct vfio_pt_record *pt, unsigned long first, unsigned long last)
{
	struct vfio_pt_open *open;
	unsigned long pos, end;

	for (pos = first; pos <= last; pos = end + 1) {
		if (piece_end(pos, last, &end)) {
			vfio_xa_dma_erase(&pt->odd, pos, end);
			vfio_xa_dma_erase(&pt->regions, region_of(pos), region_of(end));
			continue;
		}
		vfio_xa_dma_erase(&pt->odd, pos, end);
		/* The region is held, or has been open before. */
		open = open_region(pt, region_of(pos), VFIO_DMA_GFP);
		if (!WARN_ON_ONCE(!open))
			vfio_pt_unhold(pt, open);
	}
}

static int reserve_piece(struct vfio_pt_record *pt, unsigned long first,
			 unsigned long last, bool whole, unsigned long flags)
{
	struct vfio_pt_open *open;
	int ret;

	if (whole) {
		/* Open regions of the piece have no pages any more. */
		vfio_pt_close(pt, region_of(first), region_of(last));
		ret = vfio_xa_dma_insert(&pt->regions, region_of(first), region_of(last),
					 (flags & REGION_FLAGS) | HELD |
					 VFIO_XA_DMA_PENDING, VFIO_DMA_GFP);
	} else {
		open = open_region(pt, region_of(first), VFIO_DMA_GFP);
		ret = open ? 0 : -ENOMEM;
		if (open)
			open->word |= HELD;
	}
	if (ret)
		return ret;

	/* A piece is a run of its own: it is committed without memory. */
	ret = vfio_xa_dma_insert(&pt->odd, first, last, flags | VFIO_XA_DMA_PENDING,
				 VFIO_DMA_GFP);
	if (ret && whole)
		vfio_xa_dma_erase(&pt->regions, region_of(first), region_of(last));
	else if (ret)
		vfio_pt_unhold(pt, open);
	return ret;
}

/**
 * vfio_pt_record_reserve() - reserve a range
 * @pt: the record
 * @first: its first page
 * @last: its last page
 * @word: flags; a delta is ignored
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -EEXIST if a page of it is there; -ENOMEM.
 */
int vfio_pt_record_reserve(struct vfio_pt_record *pt, unsigned long first,
			   unsigned long last, unsigned long word)
{
	struct vfio_xa_dma_run run;
	unsigned long pos, end;
	int ret;

	if (vfio_pt_record_next(pt, first, last, &run))
		return -EEXIST;
	for (pos = first; pos <= last; pos = end + 1) {
		bool whole = piece_end(pos, last, &end);

		ret = reserve_piece(pt, pos, end, whole, word & VFIO_XA_DMA_FLAG_MASK);
		if (ret) {
			if (pos > first)
				unreserve_pieces(pt, first, pos - 1);
			if (!pt->npages)
				vfio_pt_close_all(pt);
			return ret;
		}
	}
	pt->npages += last - first + 1;
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_reserve);

/* Reserved pages that have the flags of their region are odd no more. */
static void settle_odd(struct vfio_pt_record *pt, unsigned long first, unsigned long last)
{
	struct vfio_xa_dma_run run, region;

	while (first <= last && vfio_xa_dma_next(&pt->odd, first, last, &run)) {
		/*
		 * The whole run of regions, not a piece: pages can be erased without memory
		 * where their run ends, or where the words of regions change.
		 */
		if (WARN_ON_ONCE(!vfio_xa_dma_next(&pt->regions, region_of(run.first),
						   region_of(run.last), &region)))
			return;
		vfio_pt_look_open(pt, &region);
		run.last = min(run.last, region_last(region.last << VFIO_PT_REGION_SHIFT));
		if ((run.word & ~VFIO_XA_DMA_PENDING) == (region.word & REGION_FLAGS))
			vfio_xa_dma_erase(&pt->odd, run.first, run.last);
		else
			vfio_xa_dma_change(&pt->odd, run.first, run.last,
					   VFIO_XA_DMA_PENDING, 0);
		first = run.last + 1;
		cond_resched();
	}
}

/* The flags of the last run of a range of odd pages */
static unsigned long last_flags(struct vfio_pt_record *pt, unsigned long first,
				unsigned long last)
{
	unsigned long flags = 0;
	struct vfio_xa_dma_run run;

	while (first <= last && vfio_xa_dma_next(&pt->odd, first, last, &run)) {
		flags = run.word & REGION_FLAGS;
		first = run.last + 1;
	}
	return flags;
}

/* Pages that are mapped again are ghosts no more. */
static void lay_ghosts(struct vfio_pt_record *pt, unsigned long first, unsigned long last)
{
	if (likely(vfio_xa_dma_empty(&pt->ghosts)))
		return;
	vfio_xa_dma_cut(&pt->ghosts, first, last, NOFAIL);
	vfio_xa_dma_erase(&pt->ghosts, first, last);
}

/**
 * vfio_pt_record_commit() - all that was reserved is mapped
 * @pt: the record
 * @first: first page of what was reserved with one call
 * @last: its last page
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_pt_record_commit(struct vfio_pt_record *pt, unsigned long first,
			   unsigned long last)
{
	struct vfio_pt_open *open;
	unsigned long pos, end;

	for (pos = first; pos <= last; pos = end + 1) {
		if (piece_end(pos, last, &end)) {
			settle_odd(pt, pos, end);
			vfio_xa_dma_change(&pt->regions, region_of(pos), region_of(end),
					   HELD | VFIO_XA_DMA_PENDING, FULL);
			continue;
		}
		/* A held region opens without memory. */
		open = open_region(pt, region_of(pos), VFIO_DMA_GFP);
		if (WARN_ON_ONCE(!open))
			return;
		if (!count_of(open->word))
			open->word = HELD | last_flags(pt, pos, end);
		settle_odd(pt, pos, end);
		region_add(open, pos, end);
		vfio_pt_unhold(pt, open);
	}
	lay_ghosts(pt, first, last);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_commit);

/**
 * vfio_pt_record_cancel() - what was reserved is not there any more
 * @pt: the record
 * @first: first page of what was reserved with one call
 * @last: its last page
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_pt_record_cancel(struct vfio_pt_record *pt, unsigned long first,
			   unsigned long last)
{
	unreserve_pieces(pt, first, last);
	pt->npages -= last - first + 1;
	if (unlikely(!pt->npages))
		vfio_pt_close_all(pt);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_cancel);

/*
 * Maps in one go
 */

/*
 * What region_add() is to make of the flags of a region that pages with some flags come
 * to.  Returns 1 if these are odd, and then they are PENDING.
 */
static inline int enter_flags(struct vfio_pt_record *pt, struct vfio_pt_open *open,
			      unsigned long first, unsigned long last,
			      unsigned long flags)
{
	int ret;

	if (!(open->word & COUNT_MASK)) {
		open->word = (open->word & HELD) | flags;
		return 0;
	}
	if (likely((open->word & REGION_FLAGS) == flags))
		return 0;
	ret = vfio_xa_dma_insert(&pt->odd, first, last, flags | VFIO_XA_DMA_PENDING,
				 VFIO_DMA_GFP);
	return ret ?: 1;
}

/* As enter_flags(), of pages of one region, none of which is odd; -EEXIST */
static int enter_piece(struct vfio_pt_record *pt, unsigned long first,
		       unsigned long last, unsigned long flags)
{
	struct vfio_pt_open *open;
	unsigned long found;
	int ret;

	open = open_region(pt, region_of(first), VFIO_DMA_GFP);
	if (!open)
		return -ENOMEM;
	if (open->word & chunk_bits(first, last) &&
	    vfio_pt_find_mapped(pt, open->word, first, last, &found))
		return -EEXIST;
	ret = enter_flags(pt, open, first, last, flags);
	if (ret >= 0)
		region_add(open, first, last);
	return ret;
}

/*
 * The first page of a region that is not open: its word is stored as it is, since pages
 * that are far apart would open a region each.  -EEXIST if the region has a word.
 */
static int enter_first(struct vfio_pt_record *pt, unsigned long index,
		       unsigned long flags)
{
	unsigned long region = region_of(index);

	return vfio_xa_dma_reserve(&pt->regions, region, region,
				   flags | BIT(COUNT_SHIFT) | chunk_bit(index),
				   VFIO_DMA_GFP);
}

static void leave_pieces(struct vfio_pt_record *pt, unsigned long first, unsigned long last)
{
	struct vfio_pt_open *open;
	unsigned long pos, end;

	if (!vfio_xa_dma_empty(&pt->odd))
		vfio_xa_dma_erase(&pt->odd, first, last);
	/* One of enter_first() */
	if (place_of(pt, region_of(first))->region != region_of(first)) {
		vfio_xa_dma_erase(&pt->regions, region_of(first), region_of(first));
		return;
	}
	for (pos = first; pos <= last; pos = end + 1) {
		end = min(last, region_last(pos));
		/* Regions of one call are few enough to be open all. */
		open = open_region(pt, region_of(pos), VFIO_DMA_GFP);
		if (!WARN_ON_ONCE(!open))
			vfio_pt_region_remove(open, pos, end);
	}
}

/* As enter_piece(), of one page or of several regions; 1 also for enter_first() */
static int enter_pieces(struct vfio_pt_record *pt, unsigned long first,
			unsigned long last, unsigned long flags)
{
	unsigned long pos, end;
	int ret, is_open = 0;

	if (first == last && place_of(pt, region_of(first))->region != region_of(first)) {
		ret = enter_first(pt, first, flags);
		if (ret != -EEXIST)
			return ret;
	}
	if (WARN_ON_ONCE(region_of(last) - region_of(first) >= VFIO_PT_OPEN))
		return -ENOMEM;
	for (pos = first; pos <= last; pos = end + 1) {
		end = min(last, region_last(pos));
		ret = enter_piece(pt, pos, end, flags);
		if (ret < 0) {
			if (pos > first)
				leave_pieces(pt, first, pos - 1);
			return ret;
		}
		is_open |= ret;
	}
	return is_open;
}

/* Out of line: inline it would cost a map of one page 18 instructions. */
static noinline int enter_slow(struct vfio_pt_record *pt, unsigned long first,
			       unsigned long last, unsigned long flags)
{
	struct vfio_xa_dma_run run;
	int ret;

	/* Odd, or reserved */
	if (!vfio_xa_dma_empty(&pt->odd) &&
	    vfio_xa_dma_next_piece(&pt->odd, first, last, &run))
		return -EEXIST;
	ret = enter_pieces(pt, first, last, flags);
	if (ret < 0) {
		if (!pt->npages)
			vfio_pt_close_all(pt);
		return ret;
	}
	pt->npages += last - first + 1;
	return ret | !vfio_xa_dma_empty(&pt->ghosts);
}

/* Are pages with some flags in an open region neither odd, nor ghosts, nor its first? */
static inline bool is_usual(const struct vfio_pt_record *pt,
			    const struct vfio_pt_open *open, unsigned long flags)
{
	/* A region without pages has no flags. */
	return (open->word & REGION_FLAGS) == flags &&
	       vfio_xa_dma_empty(&pt->odd) && vfio_xa_dma_empty(&pt->ghosts);
}

/**
 * vfio_pt_record_enter() - enter a range that is mapped before the mutex is dropped
 * @pt: the record
 * @first: its first page
 * @last: its last page, fewer than VFIO_PT_OPEN regions away
 * @word: flags, without BIG; a delta is ignored
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0, or 1 if vfio_pt_record_enter_end() must follow; either way
 * vfio_pt_record_enter_cancel() can, instead.  -EEXIST if a page of it is there; -ENOMEM.
 */
int vfio_pt_record_enter(struct vfio_pt_record *pt, unsigned long first,
			 unsigned long last, unsigned long word)
{
	struct vfio_pt_open *open = place_of(pt, region_of(first));
	unsigned long flags = word & REGION_FLAGS;

	/* One more page of a region: inline, it saves the look for everything else. */
	if (unlikely(first != last || open->region != region_of(first) ||
		     !is_known(open, first) || !is_usual(pt, open, flags)))
		return enter_slow(pt, first, last, flags);
	if (__test_and_set_bit(page_of(first), open->pages))
		return -EEXIST;
	open->word = (open->word + BIT(COUNT_SHIFT)) | chunk_bit(first);
	pt->npages++;
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_enter);

/**
 * vfio_pt_record_enter_end() - what was entered is mapped
 * @pt: the record
 * @first: first page of what was entered with one call
 * @last: its last page
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_pt_record_enter_end(struct vfio_pt_record *pt, unsigned long first,
			      unsigned long last)
{
	unsigned long region = region_of(first);

	vfio_xa_dma_change(&pt->odd, first, last, VFIO_XA_DMA_PENDING, 0);
	/* One of enter_first() */
	if (place_of(pt, region)->region != region)
		vfio_xa_dma_commit(&pt->regions, region, region);
	lay_ghosts(pt, first, last);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_enter_end);

/**
 * vfio_pt_record_enter_cancel() - what was entered is not mapped
 * @pt: the record
 * @first: first page of what was entered with the last call
 * @last: its last page
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_pt_record_enter_cancel(struct vfio_pt_record *pt, unsigned long first,
				 unsigned long last)
{
	leave_pieces(pt, first, last);
	pt->npages -= last - first + 1;
	if (unlikely(!pt->npages))
		vfio_pt_close_all(pt);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_enter_cancel);

/*
 * Unmapping
 */

/**
 * vfio_pt_record_prepare_nofail() - allocate what vfio_pt_record_erase() may take
 * @pt: the record
 * @first: first page of a range without holes
 * @last: its last page
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_pt_record_prepare_nofail(struct vfio_pt_record *pt, unsigned long first,
				   unsigned long last)
{
	unsigned long pos, end, whole_first = 1, whole_last = 0;
	struct vfio_pt_open *open;

	if (!vfio_xa_dma_empty(&pt->odd))
		vfio_xa_dma_cut(&pt->odd, first, last, NOFAIL);
	for (pos = first; pos <= last; pos = end + 1) {
		if (piece_end(pos, last, &end)) {
			whole_first = region_of(pos);
			whole_last = region_of(end);
			continue;
		}
		/* The other end may need its place; HELD closes it without memory. */
		open = vfio_pt_open_nofail(pt, region_of(pos));
		if (!WARN_ON_ONCE(!open))
			open->word |= HELD;
	}
	/* A cut holds until the store is changed, so it is last. */
	if (whole_first <= whole_last) {
		vfio_pt_close(pt, whole_first, whole_last);
		vfio_xa_dma_cut(&pt->regions, whole_first, whole_last, NOFAIL);
	}
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_prepare_nofail);

/**
 * vfio_pt_record_erase() - forget a range of pages
 * @pt: the record
 * @first: first page of a range that has been prepared
 * @last: its last page
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_pt_record_erase(struct vfio_pt_record *pt, unsigned long first,
			  unsigned long last)
{
	unsigned long pos, end;
	struct vfio_pt_open *open;

	if (!vfio_xa_dma_empty(&pt->odd))
		vfio_xa_dma_erase(&pt->odd, first, last);
	for (pos = first; pos <= last; pos = end + 1)
		if (piece_end(pos, last, &end))
			vfio_xa_dma_erase(&pt->regions, region_of(pos), region_of(end));
	for (pos = first; pos <= last; pos = end + 1) {
		if (piece_end(pos, last, &end))
			continue;
		open = open_region(pt, region_of(pos), VFIO_DMA_GFP);
		if (WARN_ON_ONCE(!open))
			continue;
		vfio_pt_region_remove(open, pos, end);
		vfio_pt_unhold(pt, open);
	}
	pt->npages -= last - first + 1;
	if (unlikely(!pt->npages))
		vfio_pt_close_all(pt);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_erase);

/* One page less in the record as a whole */
static inline void count_taken(struct vfio_pt_record *pt)
{
	pt->npages--;
	if (unlikely(!pt->npages))
		vfio_pt_close_all(pt);
}

/* Take the only page of a region that is not open.  A held region stays. */
static bool take_last(struct vfio_pt_record *pt, unsigned long region,
		      unsigned long word)
{
	if (word & VFIO_XA_DMA_PENDING)
		return false;
	if (vfio_xa_dma_take(&pt->regions, region, 0))
		return true;
	if (vfio_xa_dma_cut(&pt->regions, region, region, NOWAIT))
		return false;
	vfio_xa_dma_erase(&pt->regions, region, region);
	return true;
}

/*
 * Take a page of a region that is not open.  Where pages of many regions go in any order,
 * it would be closed again before its next page goes; a second page in succession opens it.
 * A full one is opened with all of its pages known: where all go in order, that saves two
 * look-ups of each in the IO page table.
 */
static bool take_closed(struct vfio_pt_record *pt, unsigned long region,
			unsigned long word)
{
	if (count_of(word) == 1)
		return take_last(pt, region, word);
	if (is_full(word) || place_of(pt, region)->region == NO_REGION ||
	    pt->near == region)
		return false;
	if (!(word & VFIO_XA_DMA_PENDING) &&
	    vfio_xa_dma_cut(&pt->regions, region, region, NOWAIT))
		return false;
	vfio_xa_dma_change(&pt->regions, region, region, ~0UL,
			   word - BIT(COUNT_SHIFT));
	pt->near = region;
	return true;
}

/*
 * vfio_pt_record_take() if the region does not know its pages, or some are odd.  Out of
 * line: inline it would cost an unmap of one page 12 instructions.
 */
static noinline unsigned long take_slow(struct vfio_pt_record *pt, unsigned long index,
					unsigned long unless, unsigned long *pfn)
{
	unsigned long region = region_of(index), word, odd = 0;
	struct vfio_pt_open *open;

	word = load_region(pt, region);
	if (!count_of(word))
		return 0;
	if (!vfio_xa_dma_empty(&pt->odd))
		odd = vfio_xa_dma_load(&pt->odd, index);
	if (odd) {
		open = open_region(pt, region, NOWAIT);
		if (!open || odd & unless || !vfio_xa_dma_take(&pt->odd, index, 0))
			return 0;
		goto out;
	}

	if (word & unless & REGION_FLAGS)
		return 0;
	open = place_of(pt, region);
	if (open->region == region && is_known(open, index)) {
		if (!test_bit(page_of(index), open->pages))
			return 0;
	} else if (!is_full(word)) {
		if (!(word & chunk_bit(index)))
			return 0;
		*pfn = lookup(pt, index);
		if (*pfn == VFIO_DMA_NO_PFN)
			return 0;
	}
	if (open->region != region) {
		if (take_closed(pt, region, word)) {
			count_taken(pt);
			return word & REGION_FLAGS;
		}
		open = open_region(pt, region, NOWAIT);
		if (!open)
			return 0;
	}
out:
	vfio_pt_region_remove(open, index, index);
	count_taken(pt);
	return odd ?: word & REGION_FLAGS;
}

/**
 * vfio_pt_record_take() - take a mapped page out
 * @pt: the record
 * @index: IOVA page
 * @unless: VFIO_XA_DMA_* flags; a page that has one of them stays.  PENDING among them,
 *	unless the caller knows that the page has been mapped
 * @pfn: set to its page frame, or VFIO_DMA_NO_PFN if that has not been looked up
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: its flags, also if it stays for @unless; 0 if there is none, it stays, or that
 * takes memory that is not to be had.
 */
unsigned long vfio_pt_record_take(struct vfio_pt_record *pt, unsigned long index,
				  unsigned long unless, unsigned long *pfn)
{
	struct vfio_pt_open *open = place_of(pt, region_of(index));
	unsigned long flags;

	*pfn = VFIO_DMA_NO_PFN;
	if (unlikely(open->region != region_of(index) || !is_known(open, index) ||
		     !vfio_xa_dma_empty(&pt->odd)))
		return take_slow(pt, index, unless, pfn);
	flags = open->word & REGION_FLAGS;
	if (unlikely(flags & unless))
		return test_bit(page_of(index), open->pages) ? flags : 0;
	if (!__test_and_clear_bit(page_of(index), open->pages))
		return 0;
	region_count_down(open, 1);
	count_taken(pt);
	return flags;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_take);

/**
 * vfio_pt_record_leaked() - an IOMMU driver has failed to unmap what has been erased
 * @pt: the record
 * @first: first page of a range that was mapped
 * @last: its last page
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_pt_record_leaked(struct vfio_pt_record *pt, unsigned long first,
			   unsigned long last)
{
	unsigned long pos;

	/* An IOMMU that looks for itself can still find unmapped pages. */
	vfio_dma_space_flush(pt->space);
	for (pos = first; pos <= last; pos++) {
		if (!vfio_xa_dma_load(&pt->ghosts, pos) && vfio_pt_is_anywhere(pt, pos))
			vfio_xa_dma_insert(&pt->ghosts, pos, pos,
					   VFIO_XA_DMA_READ, NOFAIL);
		cond_resched();
	}
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_leaked);

/* Odd pages but those that are reserved go.  Returns how many are reserved. */
static unsigned long reset_odd(struct vfio_pt_record *pt)
{
	unsigned long first = 0, reserved = 0;
	struct vfio_xa_dma_run run;

	while (vfio_xa_dma_next(&pt->odd, first, VFIO_XA_DMA_LAST_INDEX, &run)) {
		if (run.word & VFIO_XA_DMA_PENDING) {
			reserved += run.last - run.first + 1;
		} else {
			vfio_xa_dma_cut(&pt->odd, run.first, run.last, NOFAIL);
			vfio_xa_dma_erase(&pt->odd, run.first, run.last);
		}
		if (run.last == VFIO_XA_DMA_LAST_INDEX)
			break;
		first = run.last + 1;
		cond_resched();
	}
	return reserved;
}

/* Regions without mapped pages go; regions that are to be filled stay. */
static void reset_regions(struct vfio_pt_record *pt)
{
	const unsigned long end = region_of(VFIO_XA_DMA_LAST_INDEX);
	struct vfio_xa_dma_run run;
	unsigned long first = 0, i;

	for (i = 0; i < VFIO_PT_OPEN; i++)
		if (count_of(pt->open[i].word))
			pt->open[i].word &= HELD;
	vfio_pt_close_all(pt);
	while (vfio_xa_dma_next(&pt->regions, first, end, &run)) {
		/* Held regions have PENDING, and are changed without memory. */
		if (!(run.word & HELD)) {
			vfio_xa_dma_cut(&pt->regions, run.first, run.last, NOFAIL);
			vfio_xa_dma_erase(&pt->regions, run.first, run.last);
		} else if (count_of(run.word)) {
			vfio_xa_dma_change(&pt->regions, run.first, run.last, ~0UL,
					   HELD | VFIO_XA_DMA_PENDING);
		}
		if (run.last == end)
			break;
		first = run.last + 1;
		cond_resched();
	}
}

/**
 * vfio_pt_record_reset() - nothing is mapped, as there is no domain any more
 * @pt: the record, all of which has been unmapped
 *
 * Pages left nevertheless, because an IOMMU driver and the record do not agree about
 * them, would be looked up in a domain that is gone.  Reserved pages stay.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_pt_record_reset(struct vfio_pt_record *pt)
{
	unsigned long reserved = reset_odd(pt);

	WARN_ON_ONCE(pt->npages != reserved);
	pt->npages = reserved;
	reset_regions(pt);
	vfio_xa_dma_erase(&pt->ghosts, 0, VFIO_XA_DMA_LAST_INDEX);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_reset);

/**
 * vfio_pt_record_forget_ghosts() - a domain has gone, and what it could not unmap
 * @pt: the record
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_pt_record_forget_ghosts(struct vfio_pt_record *pt)
{
	struct vfio_xa_dma_run run;
	unsigned long first = 0;

	while (vfio_xa_dma_next_piece(&pt->ghosts, first, VFIO_XA_DMA_LAST_INDEX, &run)) {
		if (!vfio_pt_is_anywhere(pt, run.first)) {
			vfio_xa_dma_cut(&pt->ghosts, run.first, run.first, NOFAIL);
			vfio_xa_dma_erase(&pt->ghosts, run.first, run.first);
		}
		if (run.first == VFIO_XA_DMA_LAST_INDEX)
			break;
		first = run.first + 1;
		cond_resched();
	}
}

/*
 * The record as a whole
 */

/**
 * vfio_pt_record_alloc() - make an empty record
 * @space: the domains
 *
 * Context: Process context, may sleep.
 * Return: the record, or %NULL without memory.
 */
struct vfio_pt_record *vfio_pt_record_alloc(struct vfio_dma_space *space)
{
	struct vfio_pt_record *pt = kzalloc_obj(*pt, VFIO_DMA_GFP);
	unsigned int i;

	if (!pt)
		return NULL;
	pt->space = space;
	vfio_xa_dma_init(&pt->regions);
	vfio_xa_dma_init(&pt->odd);
	vfio_xa_dma_init(&pt->ghosts);
	for (i = 0; i < VFIO_PT_OPEN; i++)
		pt->open[i].region = NO_REGION;
	return pt;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_alloc);

/**
 * vfio_pt_record_free() - free a record
 * @pt: the record
 *
 * Context: Process context, may sleep.
 */
void vfio_pt_record_free(struct vfio_pt_record *pt)
{
	vfio_xa_dma_destroy(&pt->regions);
	vfio_xa_dma_destroy(&pt->odd);
	vfio_xa_dma_destroy(&pt->ghosts);
	kfree(pt);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_pt_record_free);
