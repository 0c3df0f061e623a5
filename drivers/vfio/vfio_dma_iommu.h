/* SPDX-License-Identifier: GPL-2.0-only */
/* Groups and the domains they are attached to; see vfio_dma_iommu.c. */
#ifndef _VFIO_DMA_IOMMU_H
#define _VFIO_DMA_IOMMU_H

#include <linux/iommu.h>

#include "vfio_dma_domain.h"

struct iommu_domain *vfio_dma_iommu_alloc(struct iommu_group *group);
int vfio_dma_iommu_attach(struct iommu_domain *domain,
			  struct iommu_group *group);
void vfio_dma_iommu_detach(struct iommu_domain *domain,
			   struct iommu_group *group);
int vfio_dma_iommu_resv_regions(struct iommu_group *group,
				struct list_head *regions);
int vfio_dma_iommu_msi_cookie(struct iommu_domain *domain, dma_addr_t base);
bool vfio_dma_iommu_isolated_msi(struct iommu_group *group);
bool vfio_dma_iommu_probe(struct vfio_dma_domain *domain, dma_addr_t iova);

#if IS_ENABLED(CONFIG_KUNIT)
bool vfio_dma_iommu_capable(struct device *dev, enum iommu_cap cap);
struct iommu_domain *vfio_dma_iommu_alloc_flags(struct device *dev, u32 flags);
struct iommu_domain *vfio_dma_iommu_alloc_for_device(struct device *dev);
#endif

#endif /* _VFIO_DMA_IOMMU_H */
