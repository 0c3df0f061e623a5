/* SPDX-License-Identifier: GPL-2.0-only */
/* Mapping; see vfio_dma_map.c. */
#ifndef _VFIO_DMA_MAP_H
#define _VFIO_DMA_MAP_H

#include <linux/overflow.h>
#include <linux/uaccess.h>

#include <uapi/linux/vfio_type1v3.h>

#include "vfio_dma_cut.h"
#include "vfio_dma_flight.h"

/* READ and WRITE are the same bits for user space and in words. */
static_assert(VFIO_DMA_MAP_FLAG_READ == VFIO_XA_DMA_READ);
static_assert(VFIO_DMA_MAP_FLAG_WRITE == VFIO_XA_DMA_WRITE);

int vfio_dma_map_drops_lock(struct vfio_dma_container *container,
			    const struct vfio_dma_map *maps, unsigned int nr,
			    unsigned long room, struct page **pages);
int vfio_dma_do_map(struct vfio_dma_container *container,
		    const struct vfio_iommu_type1_dma_map *args);

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
