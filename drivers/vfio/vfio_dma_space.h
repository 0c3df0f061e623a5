/* SPDX-License-Identifier: GPL-2.0-only */
/* All IOMMU domains of a container; see vfio_dma_space.c. */
#ifndef _VFIO_DMA_SPACE_H
#define _VFIO_DMA_SPACE_H

#include <linux/list.h>
#include <linux/mutex.h>

#include "vfio_dma_domain.h"

/* Properties of pages, for vfio_dma_space_unmap() */
#define VFIO_DMA_PINNED		BIT(0)
#define VFIO_DMA_MAY_BE_DIRTY		BIT(1)
#define VFIO_DMA_IS_CONTIG	BIT(2)

/* Extents that are unmapped between two IOTLB synchronisations */
#define VFIO_DMA_UNPIN_EXTENTS	256

/**
 * struct vfio_dma_space - IOMMU domains that hold the same translations
 * @lock: the container's mutex, which protects every member and every domain
 * @owner: whose memory is mapped; charged for pages that cannot be unpinned
 * @domains: list of struct vfio_dma_domain; the first answers look-ups
 * @pgsize_bitmap: page sizes that all domains have, none below PAGE_SIZE
 * @superpage: the smallest size of a superpage in any domain, 0 if there is none
 * @kept: unpinned pages that stay charged, as others hold them, since
 *	vfio_dma_space_take_kept()
 * @leaked: an IOMMU driver has failed to unmap pages since the caller cleared this
 * @stuck: an IOMMU driver has failed to undo a map since the caller cleared this
 * @nr_unpin: extents in @unpin
 * @unpin: unmapped extents waiting for the IOTLB before they are unpinned; the
 *	top bit of @npages marks pages to be dirtied
 */
struct vfio_dma_space {
	struct mutex *lock; /* the container's */
	struct vfio_dma_owner *owner;
	struct list_head domains;
	unsigned long pgsize_bitmap;
	unsigned long superpage;
	unsigned long kept;
	bool leaked;
	bool stuck;
	unsigned int nr_unpin;
	struct {
		unsigned long pfn;
		unsigned long npages;
	} *unpin;
};

/* The domain that answers look-ups, of a space that has one */
static inline struct vfio_dma_domain *
vfio_dma_space_first(const struct vfio_dma_space *space)
{
	return list_first_entry(&space->domains, struct vfio_dma_domain, next);
}

/* How many of the pages unpinned since the last call stay charged, for others */
static inline unsigned long vfio_dma_space_take_kept(struct vfio_dma_space *space)
{
	unsigned long kept = space->kept;

	space->kept = 0;
	return kept;
}

int vfio_dma_space_init(struct vfio_dma_space *space, struct mutex *lock,
			struct vfio_dma_owner *owner);
void vfio_dma_space_destroy(struct vfio_dma_space *space);
void vfio_dma_space_add(struct vfio_dma_space *space,
			struct vfio_dma_domain *domain);
void vfio_dma_space_del(struct vfio_dma_space *space,
			struct vfio_dma_domain *domain);
int vfio_dma_space_map(struct vfio_dma_space *space, dma_addr_t iova,
		       const struct vfio_dma_extent *extent, int prot,
		       bool big);
int vfio_dma_space_map_many(struct vfio_dma_space *space, dma_addr_t iova,
			    struct page **pages, unsigned int npages, int prot);
unsigned long vfio_dma_space_unmap(struct vfio_dma_space *space, dma_addr_t iova,
				   unsigned long npages, unsigned int flags);
unsigned long vfio_dma_space_unmap_page(struct vfio_dma_space *space,
					dma_addr_t iova, unsigned long pfn,
					unsigned int flags);
unsigned long vfio_dma_space_unmap_now(struct vfio_dma_space *space,
				       dma_addr_t iova, unsigned long pfn,
				       unsigned int flags);
void vfio_dma_space_flush(struct vfio_dma_space *space);
void vfio_dma_space_forget_lost(struct vfio_dma_space *space);

/* Pages that devices may reach, although they have not been mapped, are never unpinned. */
static inline void vfio_dma_space_stuck(struct vfio_dma_space *space,
					unsigned long npages)
{
	space->stuck = true;
	vfio_dma_leak(space->owner, npages, 0);
}

/**
 * vfio_dma_space_map_pages() - map pinned pages in every domain of a space
 * @space: the space, which has a domain
 * @iova: address to map the first at
 * @pages: the pages
 * @npages: how many, not 0
 * @prot: IOMMU_READ, IOMMU_WRITE, IOMMU_CACHE
 *
 * Superpages are not made of them.  One page in one domain, as most are, is inline: that
 * saves 12 instructions.
 *
 * If it fails the pages are unpinned, or stay pinned for ever where an IOMMU
 * driver failed to undo what it had mapped.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -ENOMEM or what else iommu_map() returns.
 */
static inline int vfio_dma_space_map_pages(struct vfio_dma_space *space,
					   dma_addr_t iova, struct page **pages,
					   unsigned int npages, int prot)
{
	struct vfio_dma_domain *domain = vfio_dma_space_first(space);
	int ret;

	lockdep_assert_held(space->lock);

	if (npages > 1 || !list_is_singular(&space->domains))
		return vfio_dma_space_map_many(space, iova, pages, npages, prot);

	ret = iommu_map(domain->domain, iova, page_to_phys(*pages), PAGE_SIZE,
			prot, VFIO_DMA_GFP);
	if (likely(!ret))
		return 0;
	if (vfio_dma_domain_is_partial(domain, iova, page_to_phys(*pages)))
		vfio_dma_space_stuck(space, 1);
	else
		unpin_user_page(*pages);
	return ret;
}

#endif /* _VFIO_DMA_SPACE_H */
