/* SPDX-License-Identifier: GPL-2.0-only */
/* Emulated devices; see vfio_dma_emulated.c. */
#ifndef _VFIO_DMA_EMULATED_H
#define _VFIO_DMA_EMULATED_H

#include "vfio_dma_container.h"

int vfio_dma_pin_pages(void *iommu_data, struct iommu_group *iommu_group,
		       dma_addr_t iova, int npage, int prot,
		       struct page **pages);
void vfio_dma_unpin_pages(void *iommu_data, dma_addr_t iova, int npage);
void vfio_dma_register_device(void *iommu_data, struct vfio_device *vdev);
void vfio_dma_unregister_device(void *iommu_data, struct vfio_device *vdev);
int vfio_dma_copy(void *iommu_data, dma_addr_t iova, void *data, size_t count,
		  bool write);

#endif /* _VFIO_DMA_EMULATED_H */
