/* SPDX-License-Identifier: GPL-2.0-only */
/* Containers in debugfs; see vfio_dma_debugfs.c. */
#ifndef _VFIO_DMA_DEBUGFS_H
#define _VFIO_DMA_DEBUGFS_H

#include "vfio_dma_container.h"

void vfio_dma_debugfs_add(void *iommu_data);
void vfio_dma_debugfs_remove(void *iommu_data);

#endif /* _VFIO_DMA_DEBUGFS_H */
