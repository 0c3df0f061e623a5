/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One IOMMU domain; see vfio_dma_domain.c.
 *
 * The functions at the end are on the path of every page that is mapped or
 * unmapped: inline they save 20 to 30 instructions a page.
 */
#ifndef _VFIO_DMA_DOMAIN_H
#define _VFIO_DMA_DOMAIN_H

#include <linux/iommu.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/mm.h>

#include "vfio_dma_pin.h"

struct iova_bitmap;

/* No page frame: nothing is mapped.  Page frame 0 is one like any other. */
#define VFIO_DMA_NO_PFN		ULONG_MAX

/**
 * struct vfio_dma_domain - one IOMMU domain of a space
 * @next: in &vfio_dma_space.domains
 * @domain: the domain
 * @unit_is_call: this IOMMU unmaps only what whole iommu_map() calls made
 * @unsynced: something has been unmapped, or marked clean, since the last IOTLB
 *	synchronisation
 * @tracking: the IOMMU records which pages are written to
 * @gather: what has changed since that synchronisation
 * @lost: blocks that vfio_dma_domain_split() could not map back (struct
 *	vfio_dma_lost)
 */
struct vfio_dma_domain {
	struct list_head next;
	struct iommu_domain *domain;
	bool unit_is_call;
	bool unsynced;
	bool tracking;
	struct iommu_iotlb_gather gather;
	struct list_head lost;
};

/*
 * Pages of a block that one entry of a CPU's page table can map: of such blocks
 * the record remembers that each was part of one extent.  A region of the record that asks
 * the IO page table is not larger, also where such an entry maps less (s390, ppc64).
 */
#define VFIO_DMA_CONTIG_PAGES		MAX(PMD_SIZE >> PAGE_SHIFT, 512)

void vfio_dma_domain_init(struct vfio_dma_domain *domain,
			  struct iommu_domain *iommu_domain);
bool vfio_dma_domain_probe(struct vfio_dma_domain *domain, dma_addr_t iova);
unsigned long vfio_dma_domain_pgsizes(const struct vfio_dma_domain *domain);
unsigned long vfio_dma_domain_superpage(const struct vfio_dma_domain *domain);

int vfio_dma_domain_map(struct vfio_dma_domain *domain, dma_addr_t iova,
			const struct vfio_dma_extent *extent, int prot,
			bool big);
void vfio_dma_domain_unmap(struct vfio_dma_domain *domain, dma_addr_t iova,
			   unsigned long npages);
bool vfio_dma_domain_undo(struct vfio_dma_domain *domain, dma_addr_t iova,
			  size_t size);
bool vfio_dma_domain_is_partial(struct vfio_dma_domain *domain, dma_addr_t iova,
				phys_addr_t phys);
int vfio_dma_domain_map_parts(struct vfio_dma_domain *domain, dma_addr_t iova,
			      phys_addr_t phys, size_t size, int prot, bool big,
			      gfp_t gfp, bool *stuck);

bool vfio_dma_domain_lookup(struct vfio_dma_domain *domain, dma_addr_t iova,
			    unsigned long npages, bool contig,
			    struct vfio_dma_extent *extent);
bool vfio_dma_domain_linear(struct vfio_dma_domain *domain, dma_addr_t iova,
			    unsigned long npages);
unsigned long vfio_dma_domain_lost_pfn(struct vfio_dma_domain *domain,
				       dma_addr_t iova);
unsigned long
vfio_dma_domain_count_contig(struct vfio_dma_domain *domain, dma_addr_t iova,
			     unsigned long npages, unsigned long n,
			     unsigned long step, unsigned long pfn,
			     unsigned long *next);
bool vfio_dma_domain_unmap_around_lost(struct vfio_dma_domain *domain,
				       dma_addr_t iova, unsigned long npages);

int vfio_dma_domain_split(struct vfio_dma_domain *domain, dma_addr_t iova,
			  unsigned long npages, dma_addr_t first,
			  dma_addr_t end, int prot);
void vfio_dma_domain_forget_lost(struct vfio_dma_domain *domain);

bool vfio_dma_domain_can_track(const struct vfio_dma_domain *domain);
void vfio_dma_domain_track(struct vfio_dma_domain *domain, bool enable);
int vfio_dma_domain_read_dirty(struct vfio_dma_domain *domain, dma_addr_t iova,
			       unsigned long npages, bool clear,
			       struct iova_bitmap *bitmap);
bool vfio_dma_domain_take_dirty(struct vfio_dma_domain *domain, dma_addr_t iova,
				unsigned long npages, dma_addr_t *first,
				dma_addr_t *last);

/*
 * One iommu_map() call.  virtio-iommu without VIRTIO_IOMMU_F_MMIO refuses IOMMU_MMIO, and maps
 * device memory as all of its memory.
 */
static inline int vfio_dma_domain_iommu_map(struct vfio_dma_domain *domain,
					    dma_addr_t iova, phys_addr_t phys,
					    size_t size, int prot, gfp_t gfp)
{
	int ret = iommu_map(domain->domain, iova, phys, size, prot, gfp);

	if (unlikely(ret == -EINVAL && prot & IOMMU_MMIO)) {
		prot = (prot & ~IOMMU_MMIO) | IOMMU_CACHE;
		ret = iommu_map(domain->domain, iova, phys, size, prot, gfp);
	}
	return ret;
}

/* Map one extent in one domain.  *@stuck is set if that fails and the IOMMU may reach a part. */
static inline int vfio_dma_domain_map_extent(struct vfio_dma_domain *domain,
					     dma_addr_t iova, phys_addr_t phys,
					     size_t size, int prot, bool big,
					     gfp_t gfp, bool *stuck)
{
	int ret;

	if (size > PAGE_SIZE)
		return vfio_dma_domain_map_parts(domain, iova, phys, size, prot,
						 big, gfp, stuck);
	/* The usual case where pages are mapped one by one */
	ret = vfio_dma_domain_iommu_map(domain, iova, phys, size, prot, gfp);
	if (unlikely(ret) && vfio_dma_domain_is_partial(domain, iova, phys))
		*stuck = true;
	return ret;
}

/*
 * The page frame at a page aligned address, or VFIO_DMA_NO_PFN.  The last byte of
 * the page is looked up: its address is not 0 where the page's is.
 */
static inline unsigned long vfio_dma_domain_pfn(struct vfio_dma_domain *domain,
						dma_addr_t iova)
{
	phys_addr_t phys = iommu_iova_to_phys(domain->domain, iova | ~PAGE_MASK);

	if (likely(phys))
		return PHYS_PFN(phys);
	return vfio_dma_domain_lost_pfn(domain, iova);
}

/* Does a page aligned address translate to a certain page? */
static inline bool vfio_dma_domain_maps_pfn(struct vfio_dma_domain *domain,
					    dma_addr_t iova, unsigned long pfn)
{
	return vfio_dma_domain_pfn(domain, iova) == pfn;
}

/*
 * The contiguous ones of @npages pages that are mapped from @iova on, or 0.
 * *@next is the page frame at @iova, VFIO_DMA_NO_PFN if it is to be looked up, and
 * then the same for the page after them.
 */
static inline unsigned long
vfio_dma_domain_lookup_next(struct vfio_dma_domain *domain, dma_addr_t iova,
			    unsigned long npages, bool contig,
			    unsigned long *pfn, unsigned long *next)
{
	unsigned long step, n;

	*pfn = *next;
	if (*pfn == VFIO_DMA_NO_PFN)
		*pfn = vfio_dma_domain_pfn(domain, iova);
	*next = VFIO_DMA_NO_PFN;
	if (*pfn == VFIO_DMA_NO_PFN)
		return 0;
	if (npages == 1)
		return 1;
	if (contig) {
		step = VFIO_DMA_CONTIG_PAGES;
		n = step - (iova >> PAGE_SHIFT) % step;
	} else {
		/* The next page, here: of scattered memory each takes 37 instructions less. */
		step = 1;
		n = 2;
		*next = vfio_dma_domain_pfn(domain, iova + PAGE_SIZE);
		if (*next != *pfn + 1 || !(*next % VFIO_DMA_EXTENT_MAX))
			return 1;
		*next = VFIO_DMA_NO_PFN;
	}
	return vfio_dma_domain_count_contig(domain, iova, npages, n, step, *pfn, next);
}

static inline bool vfio_dma_domain_iommu_unmap(struct vfio_dma_domain *domain,
					       dma_addr_t iova, size_t size)
{
	size_t unmapped;

	domain->unsynced = true;
	unmapped = iommu_unmap_fast(domain->domain, iova, size, &domain->gather);
	/* Whatever it did, its pages are not safe to release. */
	return !WARN_ONCE(unmapped != size,
			  "vfio_dma: unmapped %zu bytes instead of %zu\n",
			  unmapped, size);
}

/* Unmap without synchronising. */
static inline bool vfio_dma_domain_unmap_fast(struct vfio_dma_domain *domain,
					      dma_addr_t iova,
					      unsigned long npages)
{
	if (unlikely(!list_empty(&domain->lost)))
		return vfio_dma_domain_unmap_around_lost(domain, iova, npages);
	return vfio_dma_domain_iommu_unmap(domain, iova, npages << PAGE_SHIFT);
}

#endif /* _VFIO_DMA_DOMAIN_H */
