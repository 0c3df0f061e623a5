/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Inside of the record that asks the IO page table; the design is described in
 * vfio_pt_record.c.
 *
 *	vfio_pt_record.c	maps and unmaps
 *	vfio_pt_change.c	other flags
 *	vfio_pt_debug.c		statistics, validation
 *	vfio_pt_region.c	words of regions, and what is mapped
 *
 * Calls run down this list.  Functions here that are on the path of each page are inline.
 *
 * Every function is called with the container's mutex held.
 */
#ifndef _VFIO_PT_INTERNAL_H
#define _VFIO_PT_INTERNAL_H

#include <linux/bitmap.h>
#include <linux/minmax.h>
#include <linux/sizes.h>

#include "vfio_dma_gfp.h"
#include "vfio_pt_record.h"

/* For what must not fail: the store charges it, beyond the limit if need be. */
#define NOFAIL			(GFP_KERNEL | __GFP_NOFAIL)

/* Where there is another way without memory: no reclaim */
#define NOWAIT			(GFP_NOWAIT | __GFP_ACCOUNT | __GFP_NOWARN)

#define NO_REGION		ULONG_MAX

#define COUNT_SHIFT		VFIO_XA_DMA_FLAG_BITS
#define COUNT_BITS		(VFIO_PT_REGION_SHIFT + 1)
#define COUNT_MASK		GENMASK(CHUNKS_SHIFT - 1, COUNT_SHIFT)

#define CHUNK_SHIFT		VFIO_PT_CHUNK_SHIFT
#define NR_CHUNKS		(VFIO_PT_REGION_PAGES >> CHUNK_SHIFT)
#define CHUNKS_SHIFT		(COUNT_SHIFT + COUNT_BITS)
#define CHUNKS_MASK		GENMASK(CHUNKS_SHIFT + NR_CHUNKS - 1, CHUNKS_SHIFT)

#define FULL			(VFIO_PT_REGION_PAGES << COUNT_SHIFT | CHUNKS_MASK)

/* All chunks of a region, in &vfio_pt_open.known */
#define ALL_CHUNKS		GENMASK(NR_CHUNKS - 1, 0)

/* Pages that are looked up to extend a run */
#define RUN_LOOKUPS		64

/* Flags that a region can have */
#define REGION_FLAGS \
	(VFIO_XA_DMA_READ | VFIO_XA_DMA_WRITE | VFIO_XA_DMA_DIRTY | VFIO_XA_DMA_BIG | \
	 VFIO_XA_DMA_PFNMAP | VFIO_XA_DMA_MMIO | VFIO_XA_DMA_CONTIG)

/* Of regions only: a page of it is reserved.  No page has this flag. */
#define HELD			VFIO_XA_DMA_VADDR_INVALID

/* The word of a region that is open.  None has START otherwise. */
#define STALE			(VFIO_XA_DMA_PENDING | VFIO_XA_DMA_START)

/* A word of the store has to leave room for the place of a page of 64. */
static_assert(CHUNKS_SHIFT + NR_CHUNKS < BITS_PER_LONG - 7);
static_assert(VFIO_PT_CHUNK_BYTES <= SZ_1M);
static_assert(NR_CHUNKS < BITS_PER_LONG);

/* CONTIG is a flag of regions, and says the same of each block. */
static_assert(!(512 % VFIO_PT_REGION_PAGES));

static inline unsigned long region_of(unsigned long index)
{
	return index >> VFIO_PT_REGION_SHIFT;
}

/* The number of a page in its region */
static inline unsigned int page_of(unsigned long index)
{
	return index & (VFIO_PT_REGION_PAGES - 1);
}

static inline unsigned long region_last(unsigned long index)
{
	return index | (VFIO_PT_REGION_PAGES - 1);
}

static inline unsigned long count_of(unsigned long word)
{
	return (word & COUNT_MASK) >> COUNT_SHIFT;
}

static inline bool is_full(unsigned long word)
{
	return count_of(word) == VFIO_PT_REGION_PAGES;
}

static inline bool is_stale(unsigned long word)
{
	return (word & STALE) == STALE;
}

/* The bits of the chunks that pages of one region are in */
static inline unsigned long chunk_bits(unsigned long first, unsigned long last)
{
	return GENMASK(CHUNKS_SHIFT + (page_of(last) >> CHUNK_SHIFT),
		       CHUNKS_SHIFT + (page_of(first) >> CHUNK_SHIFT));
}

static inline unsigned long chunk_bit(unsigned long index)
{
	return BIT(CHUNKS_SHIFT) << (page_of(index) >> CHUNK_SHIFT);
}

/*
 * The end of the first piece of [@pos, @last]: all regions that are wholly in it, or what
 * is in the region of @pos.  Returns whether it is the former.
 */
static inline bool piece_end(unsigned long pos, unsigned long last,
			     unsigned long *end)
{
	bool whole = !(pos & (VFIO_PT_REGION_PAGES - 1)) &&
		     last - pos >= VFIO_PT_REGION_PAGES - 1;

	*end = whole ? round_down(last + 1, VFIO_PT_REGION_PAGES) - 1 :
		       min(last, region_last(pos));
	return whole;
}

struct vfio_pt_open *
vfio_pt_open_slow(struct vfio_pt_record *pt, unsigned long region, gfp_t gfp);
struct vfio_pt_open *vfio_pt_open_nofail(struct vfio_pt_record *pt,
					 unsigned long region);
void vfio_pt_close(struct vfio_pt_record *pt, unsigned long first,
		   unsigned long last);
void vfio_pt_close_all(struct vfio_pt_record *pt);
void vfio_pt_close_empty(struct vfio_pt_record *pt);
void vfio_pt_region_remove(struct vfio_pt_open *open, unsigned long first,
			   unsigned long last);
void vfio_pt_unhold(struct vfio_pt_record *pt, struct vfio_pt_open *open);
void vfio_pt_look_open(struct vfio_pt_record *pt, struct vfio_xa_dma_run *run);
bool vfio_pt_next_region(struct vfio_pt_record *pt, unsigned long first,
			 unsigned long last, struct vfio_xa_dma_run *run);
bool vfio_pt_is_anywhere(struct vfio_pt_record *pt, unsigned long index);
bool vfio_pt_is_mapped(struct vfio_pt_record *pt, unsigned long word,
		       unsigned long index);
bool vfio_pt_find_mapped(struct vfio_pt_record *pt, unsigned long word,
			 unsigned long first, unsigned long last,
			 unsigned long *found);

static inline struct vfio_pt_open *place_of(struct vfio_pt_record *pt,
					    unsigned long region)
{
	return &pt->open[region % VFIO_PT_OPEN];
}

/* The word of a region, 0 if there is none */
static inline unsigned long load_region(struct vfio_pt_record *pt, unsigned long region)
{
	const struct vfio_pt_open *open = place_of(pt, region);

	if (open->region == region)
		return open->word;
	return vfio_xa_dma_load(&pt->regions, region);
}

/* Open a region, to change its word without memory; %NULL if there is none for it. */
static inline struct vfio_pt_open *
open_region(struct vfio_pt_record *pt, unsigned long region, gfp_t gfp)
{
	struct vfio_pt_open *open = place_of(pt, region);

	if (likely(open->region == region))
		return open;
	return vfio_pt_open_slow(pt, region, gfp);
}

static inline void region_add(struct vfio_pt_open *open, unsigned long first,
			      unsigned long last)
{
	open->word += (last - first + 1) << COUNT_SHIFT;
	open->word |= chunk_bits(first, last);
	bitmap_set(open->pages, page_of(first), last - first + 1);
}

/* Where the last page has gone, nothing is mapped in any chunk. */
static inline void region_count_down(struct vfio_pt_open *open, unsigned long npages)
{
	open->word -= npages << COUNT_SHIFT;
	if (unlikely(!(open->word & COUNT_MASK))) {
		open->word &= HELD;
		open->known = ALL_CHUNKS;
	}
}

/* Does an open region know whether a page is mapped? */
static inline bool is_known(const struct vfio_pt_open *open, unsigned long index)
{
	return open->known & BIT(page_of(index) >> CHUNK_SHIFT);
}

/* The page frame of a page that is not odd, or VFIO_DMA_NO_PFN */
static inline unsigned long lookup(struct vfio_pt_record *pt, unsigned long index)
{
	if (unlikely(!vfio_xa_dma_empty(&pt->ghosts)) &&
	    vfio_xa_dma_load(&pt->ghosts, index))
		return VFIO_DMA_NO_PFN;
	if (unlikely(list_empty(&pt->space->domains)))
		return VFIO_DMA_NO_PFN;
	return vfio_dma_domain_pfn(vfio_dma_space_first(pt->space),
				   (dma_addr_t)index << PAGE_SHIFT);
}

#endif /* _VFIO_PT_INTERNAL_H */
