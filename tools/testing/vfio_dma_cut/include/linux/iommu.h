/* SPDX-License-Identifier: GPL-2.0-only */
/* The IOMMU API, as far as the core uses it; iommu.c answers it. */
#ifndef _CUT_IOMMU_H
#define _CUT_IOMMU_H

#include <linux/bits.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/types.h>

typedef u64 dma_addr_t;

#define IOMMU_READ		BIT(0)
#define IOMMU_WRITE		BIT(1)
#define IOMMU_CACHE		BIT(2)
#define IOMMU_MMIO		BIT(4)
#define IOMMU_DIRTY_NO_CLEAR	BIT(0)

struct iova_bitmap;
struct iommu_domain;

struct iommu_iotlb_gather {
	unsigned long start;
	unsigned long end;
};

struct iommu_dirty_bitmap {
	struct iova_bitmap *bitmap;
	struct iommu_iotlb_gather *gather;
};

struct iommu_dirty_ops {
	int (*set_dirty_tracking)(struct iommu_domain *domain, bool enable);
	int (*read_and_clear_dirty)(struct iommu_domain *domain, unsigned long iova,
				    size_t size, unsigned long flags,
				    struct iommu_dirty_bitmap *dirty);
};

struct iommu_domain {
	unsigned long pgsize_bitmap;
	const struct iommu_dirty_ops *dirty_ops;
};

int iommu_map(struct iommu_domain *domain, unsigned long iova, phys_addr_t phys,
	      size_t size, int prot, gfp_t gfp);
size_t iommu_unmap(struct iommu_domain *domain, unsigned long iova, size_t size);
size_t iommu_unmap_fast(struct iommu_domain *domain, unsigned long iova, size_t size,
			struct iommu_iotlb_gather *gather);
void iommu_iotlb_sync(struct iommu_domain *domain, struct iommu_iotlb_gather *gather);
phys_addr_t iommu_iova_to_phys(struct iommu_domain *domain, dma_addr_t iova);

static inline void iommu_iotlb_gather_init(struct iommu_iotlb_gather *gather)
{
	gather->start = ULONG_MAX;
	gather->end = 0;
}

static inline void iommu_dirty_bitmap_init(struct iommu_dirty_bitmap *dirty,
					   struct iova_bitmap *bitmap,
					   struct iommu_iotlb_gather *gather)
{
	iommu_iotlb_gather_init(gather);
	dirty->bitmap = bitmap;
	dirty->gather = gather;
}

#endif
