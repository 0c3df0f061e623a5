/* SPDX-License-Identifier: GPL-2.0-only */
/* Mapping; see vfio_dma_map.c. */
#ifndef _VFIO_DMA_MAP_H
#define _VFIO_DMA_MAP_H

#include <linux/overflow.h>
#include <linux/uaccess.h>

#include <uapi/linux/vfio_type1v3.h>

#include "vfio_dma_container.h"
#include "vfio_dma_cut.h"

/* READ and WRITE are the same bits for user space and in words. */
static_assert(VFIO_DMA_MAP_FLAG_READ == VFIO_XA_DMA_READ);
static_assert(VFIO_DMA_MAP_FLAG_WRITE == VFIO_XA_DMA_WRITE);

/**
 * struct vfio_dma_map - a range to be mapped
 * @first: first IOVA page
 * @last: last IOVA page
 * @vaddr: user memory
 * @word: the word that all of its pages will have, START aside
 * @granule: pages of the largest IOMMU page; no IOMMU page spans a multiple
 * @nr_entries: entries of a batch that are treated as one
 *
 * In a batch there is an array of as many as there are entries, of which only those
 * are valid that are where the first entry of a range is: the next is @nr_entries on.
 *
 * Belongs to its caller, and does not change when pages are pinned.
 */
struct vfio_dma_map {
	unsigned long first;
	unsigned long last;
	unsigned long vaddr;
	unsigned long word;
	unsigned long granule;
	unsigned int nr_entries;
};

/**
 * enum vfio_dma_flight_state - where a map in flight is
 * @VFIO_DMA_PLACING: reserved in the record, and in &vfio_dma_container.flights: its
 *	pages are being pinned without the mutex, and placed in the IO page tables with it
 * @VFIO_DMA_UNPLACED: as before, but what had been placed went with the last domain
 * @VFIO_DMA_REPLAYING: mapped in the record, and being placed in the first domain, with
 *	the mutex held all the time
 */
enum vfio_dma_flight_state {
	VFIO_DMA_PLACING,
	VFIO_DMA_UNPLACED,
	VFIO_DMA_REPLAYING,
};

/**
 * struct vfio_dma_flight - a map whose pages are pinned step by step
 * @next: in &vfio_dma_container.flights
 * @map: the range
 * @state: where it is
 * @space: domains that it is placed in
 * @placed: pages from the first one on that are pinned and in the IO page tables
 * @known: those of the last step that other holds are charged for
 * @credit: pages charged for it and not placed yet; below 0 if it has placed more
 * @reserved: page frame that the ledger holds for the step that is placed, or
 *	VFIO_DMA_NOT_RESERVED
 * @tight: each step is charged on its own, as there is not enough for all at once
 *
 * Protected by the container's mutex.
 */
struct vfio_dma_flight {
	struct list_head next;
	const struct vfio_dma_map *map;
	enum vfio_dma_flight_state state;
	struct vfio_dma_space *space;
	unsigned long placed;
	unsigned long known;
	long credit;
	unsigned long reserved;
	bool tight;
};

int vfio_dma_map_drops_lock(struct vfio_dma_container *container,
			    const struct vfio_dma_map *maps, unsigned int nr,
			    unsigned long room, struct page **pages);
int vfio_dma_map_replay(struct vfio_dma_container *container,
			struct vfio_dma_space *space,
			const struct vfio_xa_dma_run *run);
void vfio_dma_unplace_maps(struct vfio_dma_container *container);
int vfio_dma_do_map(struct vfio_dma_container *container,
		    const struct vfio_iommu_type1_dma_map *args);

static inline unsigned long vfio_dma_map_npages(const struct vfio_dma_map *map)
{
	return map->last - map->first + 1;
}

/*
 * Does a range contain an aligned block that some IOMMU could make a superpage of
 * at most @granule pages?
 */
static inline bool
vfio_dma_covers_superpage(const struct vfio_dma_container *container, u64 iova,
			  u64 size, unsigned long granule)
{
	u64 superpage = container->space.superpage;

	/* As most are.  Without a domain, or any superpage, it is 0. */
	if (size < superpage)
		return false;
	if (!vfio_dma_has_domain(container))
		return size > PAGE_SIZE && granule > 1;
	if (!superpage || superpage >> PAGE_SHIFT > granule)
		return false;
	return size - superpage >= (-iova & (superpage - 1));
}

/*
 * The granule that flags ask for, in pages; 0 if there is none such.  Without one
 * it is the largest page that any IOMMU is given.
 */
static inline unsigned long
vfio_dma_granule(const struct vfio_dma_container *container, u32 flags)
{
	unsigned int order = VFIO_DMA_MAP_GRANULE_ORDER(flags);

	if (!(flags & VFIO_DMA_MAP_GRANULE_MASK))
		return VFIO_DMA_NO_GRANULE;
	if (!(flags & VFIO_DMA_MAP_GRANULE(0)) ||
	    order > VFIO_DMA_MAP_GRANULE_ORDER_MAX ||
	    order < __ffs(container->space.pgsize_bitmap) - PAGE_SHIFT)
		return 0;
	return min(BIT(order), VFIO_DMA_NO_GRANULE);
}

/**
 * vfio_dma_map_check() - check the arguments of a map
 * @container: the container
 * @mask: bits of an address within the smallest IOMMU page
 * @flags: VFIO_DMA_MAP_FLAG_* and granule
 * @iova: first address, in bytes
 * @vaddr: user memory
 * @size: bytes
 * @map: set to what they say, but for @nr_entries
 *
 * Inline, because a batch of adjacent entries does little else: that saves 4 % of it.
 *
 * Context: Caller holds the container's mutex.
 * Return: 0; -EINVAL or -EOVERFLOW.
 */
static __always_inline int
vfio_dma_map_check(struct vfio_dma_container *container, u64 mask, u32 flags,
		   u64 iova, u64 vaddr, u64 size, struct vfio_dma_map *map)
{
	u64 iova_last, vaddr_last;
	unsigned long word;

	if (!size)
		return -EINVAL;
	if (check_add_overflow(iova, size - 1, &iova_last) ||
	    check_add_overflow(vaddr, size - 1, &vaddr_last))
		return -EOVERFLOW;
	if ((iova | vaddr | size) & mask)
		return -EINVAL;

	word = flags & VFIO_DMA_RIGHTS;
	map->granule = vfio_dma_granule(container, flags);
	if (!map->granule)
		return -EINVAL;
	if (vfio_dma_covers_superpage(container, iova, size, map->granule) &&
	    !container->policy->disable_hugepages)
		word |= VFIO_XA_DMA_BIG;

	map->first = iova >> PAGE_SHIFT;
	map->last = iova_last >> PAGE_SHIFT;
	map->vaddr = untagged_addr(vaddr);
	map->word = vfio_xa_dma_word(map->first, map->vaddr, word);
	return 0;
}

#endif /* _VFIO_DMA_MAP_H */
