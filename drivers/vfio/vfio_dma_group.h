/* SPDX-License-Identifier: GPL-2.0-only */
/* Groups that come and go; see vfio_dma_group.c. */
#ifndef _VFIO_DMA_GROUP_H
#define _VFIO_DMA_GROUP_H

#include "vfio.h"
#include "vfio_dma_container.h"

struct vfio_dma_group *
vfio_dma_find_group(struct vfio_dma_container *container,
		    struct iommu_group *iommu_group,
		    struct vfio_dma_group_domain **domain);
int vfio_dma_attach_group(void *iommu_data, struct iommu_group *iommu_group,
			  enum vfio_group_type type);
void vfio_dma_detach_group(void *iommu_data, struct iommu_group *iommu_group);
struct iommu_domain *
vfio_dma_group_iommu_domain(void *iommu_data, struct iommu_group *iommu_group);

#endif /* _VFIO_DMA_GROUP_H */
