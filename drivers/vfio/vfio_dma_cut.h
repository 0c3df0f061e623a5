/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where IOMMU pages end, for backends that record mappings in a vfio_xa_dma store
 * and map and unmap with vfio_dma_core.  Explained at the top of vfio_dma_cut.c.
 */
#ifndef _VFIO_DMA_CUT_H
#define _VFIO_DMA_CUT_H

#include <linux/iommu.h>

#include "vfio_dma_core.h"
#include "vfio_xa_dma.h"

/* What words say of the memory that was there when it was mapped */
#define VFIO_DMA_CUT_MEMORY_FLAGS \
	(VFIO_XA_DMA_PFNMAP | VFIO_XA_DMA_MMIO | VFIO_XA_DMA_CONTIG)

/* What pages have in common that one superpage can hold */
#define VFIO_DMA_CUT_STRETCH_FLAGS \
	(VFIO_XA_DMA_READ | VFIO_XA_DMA_WRITE | VFIO_XA_DMA_BIG | \
	 VFIO_XA_DMA_PENDING | VFIO_DMA_CUT_MEMORY_FLAGS)

/* What pages have in common that one iommu_map() can be for, in the first domain */
#define VFIO_DMA_CUT_CALL_FLAGS \
	(~VFIO_XA_DMA_FLAG_MASK | VFIO_XA_DMA_READ | VFIO_XA_DMA_WRITE | \
	 VFIO_XA_DMA_BIG | VFIO_XA_DMA_PENDING | VFIO_XA_DMA_START)

int vfio_dma_cut_set_start(struct vfio_xa_dma *store, unsigned long index);
int vfio_dma_cut_set_starts(struct vfio_xa_dma *store, unsigned long first,
			    unsigned long last, unsigned long granule);
int vfio_dma_cut_map(struct vfio_dma_space *space, unsigned long first,
		     struct vfio_dma_extent *extent, unsigned long word,
		     unsigned long granule);

unsigned long vfio_dma_cut_find_block(struct vfio_xa_dma *store,
				      struct vfio_dma_domain *domain,
				      unsigned long at, int prot);
int vfio_dma_cut_ends(struct vfio_xa_dma *store, struct vfio_dma_space *space,
		      unsigned long *first, unsigned long *last);
bool vfio_dma_cut_next(struct vfio_xa_dma *store,
		       const struct vfio_dma_space *space, unsigned long first,
		       unsigned long last, unsigned long mask,
		       struct vfio_xa_dma_run *stretch);
unsigned long vfio_dma_cut_unmap(struct vfio_xa_dma *store,
				 struct vfio_dma_space *space,
				 unsigned long first, unsigned long last);

int vfio_dma_cut_replay(struct vfio_xa_dma *store, struct vfio_dma_space *space,
			struct vfio_dma_domain *domain, unsigned long first,
			unsigned long last, bool pending);
void vfio_dma_cut_clear(struct vfio_xa_dma *store,
			const struct vfio_dma_space *space,
			struct vfio_dma_domain *domain, unsigned long first,
			unsigned long last, bool pending);

/**
 * vfio_dma_cut_prot() - access rights of a word
 * @word: the word
 *
 * Context: Any.
 * Return: IOMMU_READ, IOMMU_WRITE or both.
 */
static inline int vfio_dma_cut_prot(unsigned long word)
{
	return (word & VFIO_XA_DMA_READ ? IOMMU_READ : 0) |
	       (word & VFIO_XA_DMA_WRITE ? IOMMU_WRITE : 0);
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
	return vfio_dma_cut_prot(word) |
	       (word & VFIO_XA_DMA_MMIO ? IOMMU_MMIO : IOMMU_CACHE);
}

/**
 * vfio_dma_cut_unmap_flags() - what vfio_dma_unmap() has to know of pages
 * @word: their word
 *
 * Context: Any.
 * Return: flags for vfio_dma_unmap().
 */
static inline unsigned int vfio_dma_cut_unmap_flags(unsigned long word)
{
	return (word & VFIO_XA_DMA_PFNMAP ? 0 : VFIO_DMA_PINNED) |
	       (word & VFIO_XA_DMA_WRITE ? VFIO_DMA_DIRTY : 0) |
	       (word & VFIO_XA_DMA_CONTIG ? VFIO_DMA_IS_CONTIG : 0);
}

/**
 * vfio_dma_cut_next_stretch() - find pages that one iommu_unmap() can take
 * @store: what is mapped
 * @space: the domains that it is mapped in
 * @first: page to begin to look at
 * @last: last page to look at
 * @stretch: the pages; of the word, only VFIO_DMA_CUT_STRETCH_FLAGS count
 *
 * Words can differ in the middle of a superpage, when a part is dirty or has been
 * given other user memory.  Of a superpage all is contiguous, or all lies within a
 * block that is not.
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex.
 * Return: false if nothing is mapped of [@first, @last].
 */
static inline bool vfio_dma_cut_next_stretch(struct vfio_xa_dma *store,
					     const struct vfio_dma_space *space,
					     unsigned long first,
					     unsigned long last,
					     struct vfio_xa_dma_run *stretch)
{
	if (first != last)
		return vfio_dma_cut_next(store, space, first, last,
					 VFIO_DMA_CUT_STRETCH_FLAGS, stretch);

	stretch->first = first;
	stretch->last = last;
	stretch->word = vfio_xa_dma_load(store, first);
	return stretch->word;
}

#endif /* _VFIO_DMA_CUT_H */
