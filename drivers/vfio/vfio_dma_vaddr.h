/* SPDX-License-Identifier: GPL-2.0-only */
/* User memory that is taken away and replaced; see vfio_dma_vaddr.c. */
#ifndef _VFIO_DMA_VADDR_H
#define _VFIO_DMA_VADDR_H

#include "vfio_dma_container.h"

unsigned long vfio_dma_count_invalid(struct vfio_dma_container *container,
				     unsigned long first, unsigned long last);
int vfio_dma_invalidate_vaddr(struct vfio_dma_container *container,
			      unsigned long first, unsigned long last,
			      unsigned long *npages);
int vfio_dma_update_vaddr(struct vfio_dma_container *container,
			  unsigned long first, unsigned long last,
			  unsigned long vaddr);

#endif /* _VFIO_DMA_VADDR_H */
