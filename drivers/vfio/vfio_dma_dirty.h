/* SPDX-License-Identifier: GPL-2.0-only */
/* Dirty tracking; see vfio_dma_dirty.c. */
#ifndef _VFIO_DMA_DIRTY_H
#define _VFIO_DMA_DIRTY_H

#include "vfio_dma_container.h"

struct vfio_bitmap;
struct vfio_iommu_type1_dirty_bitmap_get;

/* As type1: bits of a user's dirty bitmap, and its size in bytes */
#define VFIO_DMA_BITMAP_BITS_MAX	((u64)INT_MAX)
#define VFIO_DMA_BITMAP_BYTES(bits) \
	(ALIGN(bits, BITS_PER_TYPE(u64)) / BITS_PER_BYTE)
#define VFIO_DMA_BITMAP_BYTES_MAX \
	VFIO_DMA_BITMAP_BYTES(VFIO_DMA_BITMAP_BITS_MAX)

/* How to report dirty pages: what the IOMMUs have recorded is clean from now on */
#define VFIO_DMA_REPORT_CLEAR	BIT(0)
/* Bits of the bitmap that are set stay set */
#define VFIO_DMA_REPORT_OR	BIT(1)

u32 vfio_dma_dirty_source(struct vfio_dma_container *container);
u32 vfio_dma_dirty_flags(struct vfio_dma_container *container);
int vfio_dma_check_bitmap(struct vfio_dma_container *container,
			  const struct vfio_bitmap *bitmap, u64 size);
int vfio_dma_report_dirty(struct vfio_dma_container *container,
			  unsigned long first, unsigned long last, u32 how,
			  u64 __user *data);
int vfio_dma_do_dirty(struct vfio_dma_container *container, u32 flags,
		      const struct vfio_iommu_type1_dirty_bitmap_get *get);

#endif /* _VFIO_DMA_DIRTY_H */
