/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where IOMMU pages end: what is between the record and the domains.  Explained at the
 * top of vfio_dma_cut.c.
 */
#ifndef _VFIO_DMA_CUT_H
#define _VFIO_DMA_CUT_H

#include <linux/iommu.h>

#include "vfio_dma_record.h"
#include "vfio_dma_space.h"

/* The granule of a map that asks for none: no IOMMU page is larger */
#define VFIO_DMA_NO_GRANULE	VFIO_DMA_EXTENT_MAX

/* Flags that describe the memory that was there when it was mapped */
#define VFIO_DMA_CUT_MEMORY_FLAGS \
	(VFIO_XA_DMA_PFNMAP | VFIO_XA_DMA_MMIO | VFIO_XA_DMA_CONTIG)

/* Flags that pages of one superpage have in common */
#define VFIO_DMA_CUT_STRETCH_FLAGS \
	(VFIO_XA_DMA_READ | VFIO_XA_DMA_WRITE | VFIO_XA_DMA_BIG | \
	 VFIO_XA_DMA_PENDING | VFIO_DMA_CUT_MEMORY_FLAGS)

/* Flags that pages of one iommu_map() call in the first domain have in common */
#define VFIO_DMA_CUT_CALL_FLAGS \
	(~VFIO_XA_DMA_FLAG_MASK | VFIO_XA_DMA_READ | VFIO_XA_DMA_WRITE | \
	 VFIO_XA_DMA_BIG | VFIO_XA_DMA_PENDING | VFIO_XA_DMA_START)

int vfio_dma_cut_set_start(struct vfio_dma_record *record, unsigned long index);
int vfio_dma_cut_set_starts(struct vfio_dma_record *record, unsigned long first,
			    unsigned long last, unsigned long granule);
int vfio_dma_cut_map_parts(struct vfio_dma_space *space, unsigned long first,
			   struct vfio_dma_extent *extent, unsigned long word,
			   unsigned long granule);

unsigned long vfio_dma_cut_find_block(struct vfio_dma_record *record,
				      struct vfio_dma_domain *domain,
				      unsigned long at, int prot);
int vfio_dma_cut_ends(struct vfio_dma_record *record, struct vfio_dma_space *space,
		      unsigned long *first, unsigned long *last);
bool vfio_dma_cut_next(struct vfio_dma_record *record,
		       const struct vfio_dma_space *space, unsigned long first,
		       unsigned long last, unsigned long mask,
		       struct vfio_xa_dma_run *stretch);
void vfio_dma_cut_forget_contig(struct vfio_dma_record *record,
				unsigned long first, unsigned long last);
unsigned long vfio_dma_cut_unmap(struct vfio_dma_record *record,
				 struct vfio_dma_space *space,
				 unsigned long first, unsigned long last);

int vfio_dma_cut_replay(struct vfio_dma_record *record, struct vfio_dma_space *space,
			struct vfio_dma_domain *domain, unsigned long first,
			unsigned long last, bool pending);
void vfio_dma_cut_clear(struct vfio_dma_record *record,
			const struct vfio_dma_space *space,
			struct vfio_dma_domain *domain, unsigned long first,
			unsigned long last, bool pending);

/**
 * vfio_dma_cut_border() - can an IOMMU page span a border?
 * @record: what is mapped
 * @at: page behind the border
 *
 * Context: Caller holds the container's mutex.
 * Return: what the words of the pages beside the border have in common; 0 if no IOMMU
 * page can be on both sides of it.
 */
static inline unsigned long vfio_dma_cut_border(struct vfio_dma_record *record,
						unsigned long at)
{
	unsigned long before, behind;

	if (!at || at > VFIO_XA_DMA_LAST_INDEX)
		return 0;
	before = vfio_dma_record_load(record, at - 1);
	if (!(before & VFIO_XA_DMA_BIG))
		return 0;
	behind = vfio_dma_record_load(record, at);
	if (!(behind & VFIO_XA_DMA_BIG) || behind & VFIO_XA_DMA_START)
		return 0;
	return before & behind;
}

/**
 * vfio_dma_cut_iommu_prot() - with what a page is entered into IO page tables
 * @word: its word
 *
 * Memory that the CPU does not cache is none that caches are kept coherent with; with
 * AMD's memory encryption it has no C-bit.
 *
 * Context: Any.
 * Return: flags for iommu_map().
 */
static inline int vfio_dma_cut_iommu_prot(unsigned long word)
{
	return (word & VFIO_DMA_RIGHTS) |
	       (word & VFIO_XA_DMA_MMIO ? IOMMU_MMIO : IOMMU_CACHE);
}

/**
 * vfio_dma_cut_map() - map an extent in every domain, with a call for each granule
 * @space: the domains, at least one
 * @first: page to map it at
 * @extent: physical memory, pinned unless it is pfnmap; @extent->npages is set to
 *	the number of pages that are mapped
 * @word: word of the pages
 * @granule: pages of the granule, a power of two
 *
 * One page, as most extents are where memory is scattered, saves 60 instructions here.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -ENOMEM or what else iommu_map() returns: the rest of the extent is
 * unpinned, or stays pinned for ever where an IOMMU driver failed to undo what it had
 * mapped.
 */
static inline int vfio_dma_cut_map(struct vfio_dma_space *space,
				   unsigned long first,
				   struct vfio_dma_extent *extent,
				   unsigned long word, unsigned long granule)
{
	int ret;

	if (extent->npages > 1 || extent->mmio)
		return vfio_dma_cut_map_parts(space, first, extent, word,
					      granule);
	ret = vfio_dma_space_map(space, vfio_dma_iova(first), extent,
				 (word & VFIO_DMA_RIGHTS) | IOMMU_CACHE,
				 word & VFIO_XA_DMA_BIG);
	if (unlikely(ret))
		extent->npages = 0;
	return ret;
}

/**
 * vfio_dma_cut_unmap_flags() - what vfio_dma_space_unmap() has to know of pages
 * @word: their word
 *
 * Context: Any.
 * Return: flags for vfio_dma_space_unmap().
 */
static inline unsigned int vfio_dma_cut_unmap_flags(unsigned long word)
{
	return (word & VFIO_XA_DMA_PFNMAP ? 0 : VFIO_DMA_PINNED) |
	       (word & VFIO_XA_DMA_WRITE ? VFIO_DMA_MAY_BE_DIRTY : 0) |
	       (word & VFIO_XA_DMA_CONTIG ? VFIO_DMA_IS_CONTIG : 0);
}

/**
 * vfio_dma_cut_next_stretch() - find pages that one iommu_unmap() can take
 * @record: what is mapped
 * @space: the domains that it is mapped in
 * @first: page to begin to look at
 * @last: last page to look at
 * @stretch: the pages; of the word, only VFIO_DMA_CUT_STRETCH_FLAGS count
 *
 * Words can differ in the middle of a superpage, when a part is dirty or has been
 * given other user memory.  Of a superpage all is contiguous, or all lies within a
 * block that is not.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: false if nothing is mapped of [@first, @last].
 */
static inline bool vfio_dma_cut_next_stretch(struct vfio_dma_record *record,
					     const struct vfio_dma_space *space,
					     unsigned long first,
					     unsigned long last,
					     struct vfio_xa_dma_run *stretch)
{
	return vfio_dma_cut_next(record, space, first, last,
				 VFIO_DMA_CUT_STRETCH_FLAGS, stretch);
}

#endif /* _VFIO_DMA_CUT_H */
