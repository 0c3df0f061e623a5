/* SPDX-License-Identifier: GPL-2.0-only */
/* Valid IOVA ranges; see vfio_dma_ranges.c. */
#ifndef _VFIO_DMA_RANGES_H
#define _VFIO_DMA_RANGES_H

#include "vfio_dma_container.h"

struct iommu_domain;

/**
 * struct vfio_dma_ranges - valid IOVA ranges to be
 * @ranges: as &vfio_dma_container.ranges
 * @nr_ranges: as &vfio_dma_container.nr_ranges
 * @sw_msi: one of the new group's regions is for the software to place MSIs in
 * @msi_base: where that is
 * @msi_size: its length in bytes
 */
struct vfio_dma_ranges {
	struct vfio_iova_range *ranges;
	unsigned int nr_ranges;
	bool sw_msi;
	phys_addr_t msi_base;
	size_t msi_size;
};

int vfio_dma_ranges_make(struct vfio_dma_container *container,
			 struct iommu_domain *domain,
			 struct iommu_group *iommu_group,
			 struct vfio_dma_ranges *new);
void vfio_dma_ranges_set(struct vfio_dma_container *container,
			 struct vfio_dma_ranges *new);
bool vfio_dma_ranges_hold(struct vfio_dma_container *container,
			  const struct vfio_dma_ranges *new,
			  unsigned long pgsize);
bool vfio_dma_ranges_probe(const struct vfio_dma_ranges *ranges,
			   const struct vfio_dma_domain *domain,
			   dma_addr_t *iova);

#endif /* _VFIO_DMA_RANGES_H */
