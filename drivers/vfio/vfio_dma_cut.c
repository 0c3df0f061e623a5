// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where IOMMU pages end
 *
 * Any page can be unmapped.  No record is kept of what iommu_map() made superpages of:
 * that follows from what was mapped by one call, and from the memory.  START says where a call
 * began, on the first page of a mapping that a superpage may be part of, at each
 * multiple of its granule, and on the page behind it if that was mapped by
 * another call.  Of two neighbours with BIG, the second without START, therefore both
 * were mapped by one call, and nothing of it in between has been unmapped since.
 * START is set only where no IOMMU page spans the border; it goes with its page.
 *
 * A range is unmapped in stretches.  vfio_dma_cut_next_stretch() finds the next;
 * vfio_dma_cut_ends() divides superpages that lie across its ends, after which
 * vfio_dma_space_unmap() takes it out of the IO page tables in one go.  If a superpage
 * cannot be divided all of it has to go, with vfio_dma_cut_unmap().
 *
 * Every function is called with the container's mutex held, which protects the
 * record, the space and the domains.  Nothing here adds pages to the record, or takes any
 * out of it, and containers are not known.
 */

#include <kunit/visibility.h>
#include <linux/iommu.h>
#include <linux/minmax.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "vfio_dma_cut.h"

/* A stretch ends at each multiple of this many pages, 1 GiB: no IOMMU page spans one. */
#define WINDOW			VFIO_DMA_EXTENT_MAX

/**
 * vfio_dma_cut_set_start() - say that no IOMMU page spans a border
 * @record: what is mapped
 * @index: the page behind the border, which is mapped
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0 or -ENOMEM.
 */
int vfio_dma_cut_set_start(struct vfio_dma_record *record, unsigned long index)
{
	return vfio_dma_record_try_change(record, index, index, 0,
					  VFIO_XA_DMA_START);
}

/**
 * vfio_dma_cut_set_starts() - set START as a new mapping with BIG wants it
 * @record: where it has been inserted, and is still PENDING
 * @first: its first page
 * @last: its last page
 * @granule: pages of its granule, a power of two; VFIO_DMA_NO_GRANULE needs no
 *	START in between, as no IOMMU page is larger
 *
 * The page behind it gets START as well, if a superpage may be part of that.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -ENOMEM; -EINTR on a fatal signal.
 */
int vfio_dma_cut_set_starts(struct vfio_dma_record *record, unsigned long first,
			    unsigned long last, unsigned long granule)
{
	unsigned long pos = first, word;
	int ret;

	for (;;) {
		ret = vfio_dma_cut_set_start(record, pos);
		if (ret)
			return ret;
		pos |= granule - 1;
		if (pos >= last || granule == VFIO_DMA_NO_GRANULE)
			break;
		pos++;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}

	if (last == VFIO_XA_DMA_LAST_INDEX)
		return 0;
	word = vfio_dma_record_load(record, last + 1);
	if (!(word & VFIO_XA_DMA_BIG) || word & VFIO_XA_DMA_START)
		return 0;
	return vfio_dma_cut_set_start(record, last + 1);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_cut_set_starts);

/**
 * vfio_dma_cut_map_parts() - map an extent in every domain, with a call for each granule
 * @space: the domains, at least one
 * @first: page to map it at
 * @extent: physical memory, pinned unless it is pfnmap; @extent->npages is set to
 *	the number of pages that are mapped
 * @word: word of the pages
 * @granule: pages of the granule, a power of two
 *
 * The rest of the extent, if it fails, is unpinned, or stays pinned for ever where
 * an IOMMU driver failed to undo what it had mapped.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -ENOMEM or what else iommu_map() returns.
 */
int vfio_dma_cut_map_parts(struct vfio_dma_space *space, unsigned long first,
			   struct vfio_dma_extent *extent, unsigned long word,
			   unsigned long granule)
{
	struct vfio_dma_extent part = *extent;
	unsigned long left = extent->npages;
	int prot, ret;

	/* The word may say what was there when it was pinned before. */
	prot = vfio_dma_cut_iommu_prot(part.mmio ? word | VFIO_XA_DMA_MMIO :
				       word & ~VFIO_XA_DMA_MMIO);
	extent->npages = 0;
	do {
		part.npages = min(left, granule - (first & (granule - 1)));
		left -= part.npages;
		ret = vfio_dma_space_map(space, vfio_dma_iova(first), &part,
					 prot, word & VFIO_XA_DMA_BIG);
		part.pfn += part.npages;
		if (ret)
			break;
		first += part.npages;
		extent->npages += part.npages;
		cond_resched();
	} while (left);
	if (left && !part.pfnmap)
		vfio_dma_unpin(part.pfn, left, false);
	return ret;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_cut_map_parts);

/* Is all of a block mapped with the same rights, and could be one superpage? */
static bool block_is_big(struct vfio_dma_record *record, unsigned long first,
			 unsigned long last, int prot)
{
	const unsigned long kind = VFIO_XA_DMA_PFNMAP | VFIO_XA_DMA_MMIO;
	unsigned long pos = first, memory = vfio_dma_record_load(record, first);
	struct vfio_xa_dma_run run;

	/* A hole at its beginning can be long to be walked over. */
	if (!(memory & VFIO_XA_DMA_BIG))
		return false;
	do {
		if (!vfio_dma_record_next(record, pos, last, &run) ||
		    run.first != pos || !(run.word & VFIO_XA_DMA_BIG) ||
		    run.word & VFIO_XA_DMA_PENDING ||
		    (run.word ^ memory) & kind ||
		    (run.word & VFIO_DMA_RIGHTS) != prot)
			return false;
		/* A START behind the first page of the block is a border within it. */
		if (run.word & VFIO_XA_DMA_START && run.last != first)
			return false;
		pos = run.last + 1;
		cond_resched();
	} while (run.last != last);
	return true;
}

/**
 * vfio_dma_cut_find_block() - find what could be a superpage across a border
 * @record: what is mapped
 * @domain: a domain that it is mapped in
 * @at: page behind the border, for which vfio_dma_cut_border() is not 0
 * @prot: access rights of both
 *
 * If there is a superpage, all smaller blocks around the border look like one,
 * too: so it can be searched from the smallest size on, and ends where the memory
 * does.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: number of pages of the largest block of a page size of the domain that
 * could be a superpage; 0 if there is none.
 */
unsigned long vfio_dma_cut_find_block(struct vfio_dma_record *record,
				      struct vfio_dma_domain *domain,
				      unsigned long at, int prot)
{
	unsigned long sizes = vfio_dma_domain_pgsizes(domain) >> PAGE_SHIFT;
	unsigned long npages, block, found = 0;

	/* The smallest size is that of a page. */
	for (sizes &= sizes - 1; sizes; sizes &= sizes - 1) {
		npages = sizes & -sizes;
		block = round_down(at, npages);
		if (npages > VFIO_DMA_EXTENT_MAX)
			break;
		if (block == at)
			continue;
		/* A look-up for each page is dearer than a look at the runs. */
		if (!block_is_big(record, block, block + npages - 1, prot) ||
		    !vfio_dma_domain_linear(domain, vfio_dma_iova(block), npages))
			break;
		found = npages;
	}
	return found;
}

/*
 * See to it that no superpage lies across the border before page @at.  Should a
 * domain fail to map the rest of a superpage back, [*@first, *@last] grows to
 * take all of the superpage in.
 */
static int cut_border(struct vfio_dma_record *record,
		      struct vfio_dma_space *space, unsigned long at,
		      unsigned long *first, unsigned long *last)
{
	struct vfio_dma_domain *domain;
	unsigned long word, npages, block;
	int prot, ret = 0, err;

	word = vfio_dma_cut_border(record, at);
	if (!word)
		return 0;

	prot = word & VFIO_DMA_RIGHTS;
	list_for_each_entry(domain, &space->domains, next) {
		npages = vfio_dma_cut_find_block(record, domain, at, prot);
		block = npages ? round_down(at, npages) : at;
		/*
		 * A block that has *@first in it as well was divided at both ends
		 * of the range when *@first was looked at.
		 */
		if (!npages || (*first != at && *first > block))
			continue;

		/* The block must not be touched while invalidations are due. */
		vfio_dma_space_flush(space);
		/* Writes until it is unmapped would be lost if it were read. */
		if (domain->tracking && prot & IOMMU_WRITE)
			vfio_dma_record_change_nofail(record, block,
						      block + npages - 1, 0,
						      VFIO_XA_DMA_DIRTY);
		err = vfio_dma_domain_split(domain, vfio_dma_iova(block), npages,
					    vfio_dma_iova(*first), vfio_dma_iova(*last + 1),
					    vfio_dma_cut_iommu_prot(word));
		if (err) {
			*first = min(*first, block);
			*last = max(*last, block + npages - 1);
			ret = err;
		}
	}
	return ret;
}

/*
 * Is it plain that no superpage is across either end of a range?  One across its end has
 * the page before the range in it as well, unless it begins within the range.  That page
 * may look mapped and have gone, but not the other way round.  A large mapping that is
 * unmapped page by page saves 400 instructions of each.
 */
static bool ends_are_free(struct vfio_dma_record *record, struct vfio_dma_space *space,
			  unsigned long first, unsigned long last)
{
	struct vfio_dma_domain *domain;
	unsigned long npages;

	if (first && vfio_dma_record_load(record, first - 1) & VFIO_XA_DMA_BIG)
		return false;
	list_for_each_entry(domain, &space->domains, next) {
		npages = vfio_dma_domain_superpage(domain) >> PAGE_SHIFT;
		if (npages && round_down(last, npages) >= first)
			return false;
	}
	return true;
}

/**
 * vfio_dma_cut_ends() - divide the superpages across the ends of a stretch
 * @record: what is mapped
 * @space: the domains that it is mapped in
 * @first: the first page, which has BIG
 * @last: the last page
 *
 * Divided superpages count as dirty where the IOMMU of a domain tracks.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0 if both ends can be unmapped at; -EIO if an IOMMU driver failed, with
 * [*@first, *@last] grown by all superpages that could not be divided: the caller must
 * unmap the whole with vfio_dma_cut_unmap(), flush, and call vfio_dma_space_forget_lost().
 */
int vfio_dma_cut_ends(struct vfio_dma_record *record, struct vfio_dma_space *space,
		      unsigned long *first, unsigned long *last)
{
	unsigned long was_first, was_last;
	int ret = 0, err;

	if (ends_are_free(record, space, *first, *last))
		return 0;
	/* A record that asks an IOMMU may be told of neighbours that have gone. */
	if (unlikely(!vfio_dma_record_has_vaddr(record)))
		vfio_dma_space_flush(space);
	/* The grown range can end inside of another domain's superpage. */
	do {
		was_first = *first;
		was_last = *last;
		err = cut_border(record, space, was_first, first, last);
		if (!err)
			err = cut_border(record, space, was_last + 1, first,
					 last);
		ret = err ?: ret;
	} while (*first != was_first || *last != was_last);
	return ret;
}

/**
 * vfio_dma_cut_next() - find neighbouring runs that are alike
 * @record: what is mapped
 * @space: the domains that it is mapped in, or none
 * @first: page to begin to look at
 * @last: last page to look at
 * @mask: flags that they must have in common; with START among them a run that
 *	has it begins anew, because an IOMMU page does
 * @stretch: the runs; of the word, only the flags of @mask count
 *
 * As vfio_xa_dma_next(), but neighbouring runs that differ in other flags only are
 * one.
 *
 * A run in IO page tables ends at the end of a window, which no superpage
 * crosses; the rest is not walked, and its size makes no difference.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: false if nothing is mapped of [@first, @last].
 */
bool vfio_dma_cut_next(struct vfio_dma_record *record,
		       const struct vfio_dma_space *space, unsigned long first,
		       unsigned long last, unsigned long mask,
		       struct vfio_xa_dma_run *stretch)
{
	unsigned long start = mask & VFIO_XA_DMA_START;
	struct vfio_xa_dma_run run;

	if (!vfio_dma_record_next(record, first, last, stretch))
		return false;
	mask &= ~VFIO_XA_DMA_START;
	if (stretch->word & start)
		stretch->last = stretch->first;

	if (!list_empty(&space->domains) &&
	    !(stretch->word & VFIO_XA_DMA_PENDING)) {
		last = min(last, stretch->first | (WINDOW - 1));
		stretch->last = min(stretch->last, last);
	}

	while (stretch->last < last &&
	       vfio_dma_record_next(record, stretch->last + 1, last, &run) &&
	       run.first == stretch->last + 1 &&
	       !((run.word ^ stretch->word) & mask) && !(run.word & start)) {
		stretch->last = run.last;
		cond_resched();
	}
	return true;
}

/**
 * vfio_dma_cut_forget_contig() - of blocks that an unmap has broken, forget CONTIG
 * @record: what is mapped
 * @first: first page that was unmapped, with CONTIG
 * @last: last page
 *
 * Pages that are mapped in the hole some day have no CONTIG: with it the others would
 * be runs between them for ever.  Without memory they are.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_cut_forget_contig(struct vfio_dma_record *record,
				unsigned long first, unsigned long last)
{
	const unsigned long mask = VFIO_DMA_CONTIG_PAGES - 1;

	/* Each block as a whole, with its hole: to some records that is less to change. */
	if (first & mask)
		vfio_dma_record_try_change(record, first & ~mask, first | mask,
					   VFIO_XA_DMA_CONTIG, 0);
	if (~last & mask && (!(first & mask) || (first ^ last) & ~mask))
		vfio_dma_record_try_change(record, last & ~mask, last | mask,
					   VFIO_XA_DMA_CONTIG, 0);
}

/**
 * vfio_dma_cut_unmap() - take pages out of the IO page tables, not out of the record
 * @record: what is mapped
 * @space: the domains, at least one
 * @first: the first page
 * @last: the last page; no hole is before it, no superpage across either end
 *
 * vfio_dma_space_flush() must follow.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: number of pages that are, or will be, unpinned.
 */
unsigned long vfio_dma_cut_unmap(struct vfio_dma_record *record,
				 struct vfio_dma_space *space,
				 unsigned long first, unsigned long last)
{
	unsigned long unpinned = 0;
	struct vfio_xa_dma_run run;

	do {
		if (WARN_ON_ONCE(!vfio_dma_cut_next_stretch(record, space,
							    first, last, &run)))
			break;
		unpinned += vfio_dma_space_unmap(space, vfio_dma_iova(run.first),
						 run.last - run.first + 1,
						 vfio_dma_cut_unmap_flags(run.word));
		first = run.last + 1;
	} while (run.last != last);
	return unpinned;
}

/**
 * vfio_dma_cut_clear() - unmap in one domain what others have as well
 * @record: what is mapped
 * @space: the others
 * @domain: a domain that is to be freed, which has all of the range or nothing
 * @first: the first page
 * @last: the last page
 * @pending: of PENDING pages, too
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_cut_clear(struct vfio_dma_record *record,
			const struct vfio_dma_space *space,
			struct vfio_dma_domain *domain, unsigned long first,
			unsigned long last, bool pending)
{
	struct vfio_dma_extent extent;
	struct vfio_xa_dma_run run;

	while (vfio_dma_cut_next_stretch(record, space, first, last, &run)) {
		first = run.first;
		while (first <= run.last &&
		       (pending || !(run.word & VFIO_XA_DMA_PENDING)) &&
		       vfio_dma_domain_lookup(domain, vfio_dma_iova(first),
					      run.last - first + 1,
					      run.word & VFIO_XA_DMA_CONTIG,
					      &extent)) {
			vfio_dma_domain_unmap(domain, vfio_dma_iova(first),
					      extent.npages);
			first += extent.npages;
			cond_resched();
		}
		if (run.last >= last)
			break;
		first = run.last + 1;
	}
}

/**
 * vfio_dma_cut_replay() - map in a new domain what is mapped in the others
 * @record: what is mapped
 * @space: the others, at least one
 * @domain: the new domain
 * @first: the first page
 * @last: the last page
 * @pending: of PENDING pages, too, all of which are mapped then
 *
 * If it fails nothing of the range is mapped in the new domain.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -EINTR on a fatal signal; -ENOMEM or what else iommu_map() returns.
 */
int vfio_dma_cut_replay(struct vfio_dma_record *record, struct vfio_dma_space *space,
			struct vfio_dma_domain *domain, unsigned long first,
			unsigned long last, bool pending)
{
	unsigned long start = first;
	struct vfio_dma_domain *other;
	struct vfio_dma_extent extent;
	struct vfio_xa_dma_run run;
	dma_addr_t iova;
	int ret;

	other = vfio_dma_space_first(space);
	while (vfio_dma_cut_next(record, space, first, last,
				 VFIO_DMA_CUT_STRETCH_FLAGS | VFIO_XA_DMA_START,
				 &run)) {
		first = run.first;
		while (first <= run.last &&
		       (pending || !(run.word & VFIO_XA_DMA_PENDING))) {
			iova = vfio_dma_iova(first);
			ret = -EINVAL;
			if (WARN_ON_ONCE(!vfio_dma_domain_lookup(other, iova,
								 run.last - first + 1,
								 run.word & VFIO_XA_DMA_CONTIG,
								 &extent)))
				goto err_clear;
			ret = vfio_dma_domain_map(domain, iova, &extent,
						  vfio_dma_cut_iommu_prot(run.word),
						  run.word & VFIO_XA_DMA_BIG);
			if (ret)
				goto err_clear;
			first += extent.npages;
			if (fatal_signal_pending(current)) {
				ret = -EINTR;
				goto err_clear;
			}
			cond_resched();
		}
		if (run.last >= last)
			break;
		first = run.last + 1;
	}
	return 0;

err_clear:
	/* Not further: a block with CONTIG can be there with its first part only. */
	if (first > start)
		vfio_dma_cut_clear(record, space, domain, start, first - 1,
				   pending);
	return ret;
}
