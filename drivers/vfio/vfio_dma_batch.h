/* SPDX-License-Identifier: GPL-2.0-only */
/* Many maps and unmaps in one call; see vfio_dma_batch.c. */
#ifndef _VFIO_DMA_BATCH_H
#define _VFIO_DMA_BATCH_H

#include "vfio_dma_container.h"

struct vfio_iommu_type1v3_batch;

long vfio_dma_do_batch(struct vfio_dma_container *container,
		       const struct vfio_iommu_type1v3_batch *header);

#endif /* _VFIO_DMA_BATCH_H */
