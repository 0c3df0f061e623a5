/* SPDX-License-Identifier: GPL-2.0-only */
/* Unmapping; see vfio_dma_unmap.c. */
#ifndef _VFIO_DMA_UNMAP_H
#define _VFIO_DMA_UNMAP_H

#include "vfio_dma_container.h"

struct vfio_bitmap;
struct vfio_iommu_type1_dma_unmap;

/**
 * struct vfio_dma_unmap - ranges being unmapped
 * @container: the container
 * @interruptible: end when the caller is about to die
 * @npages: pages unmapped so far
 * @unpinned: pages that are, or will be, unpinned, and are to be uncharged
 *
 * Initialised with its first two members, it takes any number of ranges, and then
 * vfio_dma_unmap_finish(), before the container's mutex is dropped.  Local to its
 * caller.
 */
struct vfio_dma_unmap {
	struct vfio_dma_container *container;
	bool interruptible;
	unsigned long npages;
	unsigned long unpinned;
};

int vfio_dma_unmap_range(struct vfio_dma_unmap *unmap, unsigned long first,
			 unsigned long last);
void vfio_dma_unmap_finish(struct vfio_dma_unmap *unmap);
void vfio_dma_unmap_all(struct vfio_dma_container *container);
void vfio_dma_unplace_upto(struct vfio_dma_container *container,
			   struct vfio_dma_space *space, unsigned long last);
int vfio_dma_do_unmap(struct vfio_dma_container *container,
		      struct vfio_iommu_type1_dma_unmap *args,
		      const struct vfio_bitmap *bitmap);

#endif /* _VFIO_DMA_UNMAP_H */
