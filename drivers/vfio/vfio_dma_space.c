// SPDX-License-Identifier: GPL-2.0-only
/*
 * All IOMMU domains of a container, which hold the same translations
 *
 * An extent is mapped in every domain or in none.  Unmapping asks the first domain
 * for the physical addresses - they are recorded nowhere else - and unmaps extent
 * by extent in every domain; vfio_dma_space_flush() synchronises the IOTLBs and
 * only then unpins: a page is never released while a device can still reach it.
 *
 * Every function is called with the container's mutex held.
 */

#include <kunit/visibility.h>
#include <linux/iommu.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "vfio_dma_ledger.h"
#include "vfio_dma_space.h"

#define VFIO_DMA_UNPIN_DIRTY	BIT(BITS_PER_LONG - 1)

/* Single pages that are unpinned with one call */
#define VFIO_DMA_UNPIN_PAGES	32

static void update_pgsizes(struct vfio_dma_space *space)
{
	struct vfio_dma_domain *domain;

	space->pgsize_bitmap = PAGE_MASK;
	space->superpage = 0;
	list_for_each_entry(domain, &space->domains, next) {
		space->pgsize_bitmap &= vfio_dma_domain_pgsizes(domain);
		space->superpage = min_not_zero(space->superpage,
						vfio_dma_domain_superpage(domain));
	}
}

/**
 * vfio_dma_space_init() - initialise a space without domains
 * @space: the space
 * @lock: the container's mutex
 * @owner: whose memory is mapped
 *
 * Context: Process context, may sleep.
 * Return: 0 or -ENOMEM.
 */
int vfio_dma_space_init(struct vfio_dma_space *space, struct mutex *lock,
			struct vfio_dma_owner *owner)
{
	space->lock = lock;
	space->owner = owner;
	INIT_LIST_HEAD(&space->domains);
	update_pgsizes(space);
	space->kept = 0;
	space->leaked = false;
	space->stuck = false;
	space->nr_unpin = 0;
	space->unpin = kcalloc(VFIO_DMA_UNPIN_EXTENTS, sizeof(*space->unpin),
			       VFIO_DMA_GFP);
	return space->unpin ? 0 : -ENOMEM;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_space_init);

/**
 * vfio_dma_space_destroy() - free what a space without domains holds
 * @space: the space
 *
 * Context: Any.
 */
void vfio_dma_space_destroy(struct vfio_dma_space *space)
{
	WARN_ON(!list_empty(&space->domains) || space->nr_unpin);
	kfree(space->unpin);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_space_destroy);

/**
 * vfio_dma_space_add() - add a domain to a space
 * @space: the space
 * @domain: a domain that already holds all the translations of the space
 *
 * Context: Caller holds the container's mutex.
 */
void vfio_dma_space_add(struct vfio_dma_space *space,
			struct vfio_dma_domain *domain)
{
	lockdep_assert_held(space->lock);

	list_add_tail(&domain->next, &space->domains);
	update_pgsizes(space);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_space_add);

/**
 * vfio_dma_space_del() - remove a domain from a space
 * @space: the space
 * @domain: one of its domains; what it maps goes with it
 *
 * Context: Caller holds the container's mutex.
 */
void vfio_dma_space_del(struct vfio_dma_space *space,
			struct vfio_dma_domain *domain)
{
	lockdep_assert_held(space->lock);

	list_del(&domain->next);
	update_pgsizes(space);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_space_del);

/*
 * As vfio_dma_domain_map_extent(), in every domain or in none.  Inline in both callers it
 * saves 18 instructions of an extent.
 */
static __always_inline int map_extent(struct vfio_dma_space *space,
				      dma_addr_t iova,
				      const struct vfio_dma_extent *extent,
				      int prot, bool big, bool *stuck)
{
	struct vfio_dma_domain *domain;
	int ret;

	lockdep_assert_held(space->lock);

	list_for_each_entry(domain, &space->domains, next) {
		ret = vfio_dma_domain_map_extent(domain, iova,
						 PFN_PHYS(extent->pfn),
						 extent->npages << PAGE_SHIFT,
						 prot, big, VFIO_DMA_GFP, stuck);
		if (ret)
			goto err_unmap;
	}
	return 0;

err_unmap:
	list_for_each_entry_continue_reverse(domain, &space->domains, next)
		if (!vfio_dma_domain_undo(domain, iova,
					  extent->npages << PAGE_SHIFT))
			*stuck = true;
	return ret;
}

/**
 * vfio_dma_space_map() - map an extent in every domain of a space
 * @space: the space, which has a domain
 * @iova: address to map it at
 * @extent: physical memory, pinned unless it is pfnmap
 * @prot: IOMMU_READ, IOMMU_WRITE; IOMMU_CACHE, or IOMMU_MMIO for device memory
 * @big: superpages may be used
 *
 * If it fails the extent is unpinned, or stays pinned for ever where an IOMMU
 * driver failed to undo what it had mapped.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -ENOMEM or what else iommu_map() returns.
 */
int vfio_dma_space_map(struct vfio_dma_space *space, dma_addr_t iova,
		       const struct vfio_dma_extent *extent, int prot, bool big)
{
	bool stuck = false;
	int ret;

	ret = map_extent(space, iova, extent, prot, big, &stuck);
	if (likely(!ret))
		return 0;
	/* Nothing of device memory is pinned, but it can be there as well. */
	if (stuck && extent->pfnmap)
		space->stuck = true;
	else if (stuck)
		vfio_dma_space_stuck(space, extent->npages);
	else if (!extent->pfnmap)
		vfio_dma_unpin(extent->pfn, extent->npages, false);
	return ret;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_space_map);

/* As vfio_dma_space_map_pages(), for several of them, or several domains */
int vfio_dma_space_map_many(struct vfio_dma_space *space, dma_addr_t iova,
			    struct page **pages, unsigned int npages, int prot)
{
	struct vfio_dma_domain *domain;
	struct vfio_dma_extent extent;
	bool stuck = false;
	unsigned int done;
	int ret;

	for (done = 0; done < npages; done += extent.npages) {
		vfio_dma_first_extent(pages + done, npages - done, &extent);
		ret = map_extent(space, iova + ((size_t)done << PAGE_SHIFT),
				 &extent, prot, false, &stuck);
		if (ret)
			goto err_unmap;
	}
	return 0;

err_unmap:
	list_for_each_entry(domain, &space->domains, next)
		if (done && !vfio_dma_domain_undo(domain, iova,
						  (size_t)done << PAGE_SHIFT))
			stuck = true;
	if (stuck)
		vfio_dma_space_stuck(space, npages);
	else
		unpin_user_pages(pages, npages);
	return ret;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_space_map_many);

/*
 * Note what is mapped from @iova on to be unpinned, as much as there is room
 * for, and return for how many pages that was.
 */
static unsigned long unpin_fill(struct vfio_dma_space *space, dma_addr_t iova,
				unsigned long npages, unsigned int flags)
{
	unsigned long dirty = flags & VFIO_DMA_MAY_BE_DIRTY ? VFIO_DMA_UNPIN_DIRTY : 0;
	struct vfio_dma_domain *first;
	unsigned long n = 0, next = VFIO_DMA_NO_PFN, more;

	lockdep_assert_held(space->lock);

	first = vfio_dma_space_first(space);
	while (n < npages && space->nr_unpin < VFIO_DMA_UNPIN_EXTENTS) {
		more = vfio_dma_domain_lookup_next(first, iova + (n << PAGE_SHIFT),
						   npages - n,
						   flags & VFIO_DMA_IS_CONTIG,
						   &space->unpin[space->nr_unpin].pfn,
						   &next);
		if (!more)
			break;
		space->unpin[space->nr_unpin++].npages = more | dirty;
		n += more;
	}
	return n;
}

static inline bool unmap_fast(struct vfio_dma_space *space, dma_addr_t iova,
			      unsigned long npages)
{
	struct vfio_dma_domain *domain;
	bool safe = true;

	lockdep_assert_held(space->lock);

	list_for_each_entry(domain, &space->domains, next)
		safe &= vfio_dma_domain_unmap_fast(domain, iova, npages);
	return safe;
}

/**
 * vfio_dma_space_unmap_page() - vfio_dma_space_unmap() for one page
 * @space: the space, which has a domain
 * @iova: page aligned address
 * @pfn: its page frame, or VFIO_DMA_NO_PFN if that has not been looked up
 * @flags: as for vfio_dma_space_unmap()
 *
 * One page needs no loop over extents.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: number of pages that are, or will be, unpinned.
 */
unsigned long vfio_dma_space_unmap_page(struct vfio_dma_space *space,
					dma_addr_t iova, unsigned long pfn,
					unsigned int flags)
{
	lockdep_assert_held(space->lock);

	if (!(flags & VFIO_DMA_PINNED)) {
		pfn = VFIO_DMA_NO_PFN;
	} else if (likely(pfn == VFIO_DMA_NO_PFN)) {
		pfn = vfio_dma_domain_pfn(vfio_dma_space_first(space), iova);
		if (WARN_ON_ONCE(pfn == VFIO_DMA_NO_PFN))
			return 0;
	}
	if (unlikely(!unmap_fast(space, iova, 1))) {
		space->leaked = true;
		if (pfn != VFIO_DMA_NO_PFN)
			vfio_dma_leak(space->owner, 1, 1);
		return 0;
	}
	if (pfn == VFIO_DMA_NO_PFN)
		return 0;

	space->unpin[space->nr_unpin].pfn = pfn;
	space->unpin[space->nr_unpin].npages = 1 |
		(flags & VFIO_DMA_MAY_BE_DIRTY ? VFIO_DMA_UNPIN_DIRTY : 0);
	if (++space->nr_unpin == VFIO_DMA_UNPIN_EXTENTS)
		vfio_dma_space_flush(space);
	return 1;
}

/* Out of line: inline they would cost an unmap of one page 28 instructions. */
static noinline unsigned long
unmap_extents(struct vfio_dma_space *space, dma_addr_t iova,
	      unsigned long npages, unsigned int flags)
{
	unsigned long unpinned = 0, n;
	unsigned int nr_unpin;
	bool safe;

	lockdep_assert_held(space->lock);

	for (; npages; npages -= n, iova += n << PAGE_SHIFT) {
		nr_unpin = space->nr_unpin;
		n = npages;
		if (flags & VFIO_DMA_PINNED)
			n = unpin_fill(space, iova, npages, flags);
		if (WARN_ON_ONCE(!n)) {
			n = 1;
			cond_resched();
			continue;
		}

		safe = unmap_fast(space, iova, n);
		if (unlikely(!safe)) {
			space->nr_unpin = nr_unpin;
			space->leaked = true;
		}
		if (flags & VFIO_DMA_PINNED && safe)
			unpinned += n;
		else if (flags & VFIO_DMA_PINNED)
			vfio_dma_leak(space->owner, n, n);
		if (space->nr_unpin == VFIO_DMA_UNPIN_EXTENTS)
			vfio_dma_space_flush(space);
	}
	return unpinned;
}

/**
 * vfio_dma_space_unmap() - unmap a range in every domain and have it unpinned
 * @space: the space, which has a domain
 * @iova: page aligned address
 * @npages: its length in pages; neither end inside of a superpage
 * @flags: what the pages are: VFIO_DMA_PINNED, to be unpinned; VFIO_DMA_MAY_BE_DIRTY, to
 *	be marked dirty; VFIO_DMA_IS_CONTIG, see vfio_dma_domain_lookup()
 *
 * Many extents go in one call of the IOMMU driver, which is given neither holes
 * nor parts of leaves.  The pages are unpinned when the batch is full or by
 * vfio_dma_space_flush(), which must be called before the mutex is dropped.  Pages
 * that an IOMMU driver fails to unmap stay pinned, and are the owner's no more: the
 * caller does not uncharge them, and @space->leaked is set.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: number of pages that are, or will be, unpinned.
 */
unsigned long vfio_dma_space_unmap(struct vfio_dma_space *space, dma_addr_t iova,
				   unsigned long npages, unsigned int flags)
{
	lockdep_assert_held(space->lock);

	if (npages == 1)
		return vfio_dma_space_unmap_page(space, iova, VFIO_DMA_NO_PFN,
						 flags);
	return unmap_extents(space, iova, npages, flags);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_space_unmap);

/* Each extent can be 2^18 pages, and others wait for the ledger. */
static void leave_ledger(struct vfio_dma_space *space, unsigned long pfn,
			 unsigned long npages)
{
	struct vfio_dma_ledger *ledger = space->owner->ledger;

	mutex_lock(&ledger->lock);
	space->kept += npages - vfio_dma_ledger_leave(ledger, pfn, npages);
	mutex_unlock(&ledger->lock);
}

static void leave_ledger_all(struct vfio_dma_space *space)
{
	unsigned int i;

	for (i = 0; i < space->nr_unpin; i++)
		leave_ledger(space, space->unpin[i].pfn,
			     space->unpin[i].npages & ~VFIO_DMA_UNPIN_DIRTY);
}

/* Unpin many extents; those of one page that are alike with few calls */
static void unpin_all(struct vfio_dma_space *space)
{
	struct page *pages[VFIO_DMA_UNPIN_PAGES] __uninitialized;
	unsigned long single = 0, npages, pfn;
	unsigned int i, n = 0;

	lockdep_assert_held(space->lock);

	for (i = 0; i < space->nr_unpin; i++) {
		npages = space->unpin[i].npages;
		pfn = space->unpin[i].pfn;
		if (unlikely(npages != single || n == ARRAY_SIZE(pages))) {
			if (n)
				unpin_user_pages_dirty_lock(pages, n,
							    single & VFIO_DMA_UNPIN_DIRTY);
			n = 0;
			single = npages;
		}
		if ((npages & ~VFIO_DMA_UNPIN_DIRTY) == 1)
			pages[n++] = pfn_to_page(pfn);
		else
			vfio_dma_unpin(pfn, npages & ~VFIO_DMA_UNPIN_DIRTY,
				       npages & VFIO_DMA_UNPIN_DIRTY);
	}
	if (n)
		unpin_user_pages_dirty_lock(pages, n, single & VFIO_DMA_UNPIN_DIRTY);
}

/**
 * vfio_dma_space_flush() - synchronise the IOTLBs and unpin what was unmapped
 * @space: the space
 *
 * Pages that other containers of the owner hold stay charged: @space->kept says how many.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_space_flush(struct vfio_dma_space *space)
{
	struct vfio_dma_domain *domain;
	unsigned long npages;

	lockdep_assert_held(space->lock);

	list_for_each_entry(domain, &space->domains, next) {
		/* Drivers need not fill the gather, so it cannot tell. */
		if (!domain->unsynced)
			continue;
		iommu_iotlb_sync(domain->domain, &domain->gather);
		domain->unsynced = false;
	}

	if (unlikely(space->owner->ledger) && space->nr_unpin)
		leave_ledger_all(space);
	/* One extent needs no list of pages: that saves 60 instructions. */
	if (space->nr_unpin == 1) {
		npages = space->unpin[0].npages;
		vfio_dma_unpin(space->unpin[0].pfn,
			       npages & ~VFIO_DMA_UNPIN_DIRTY,
			       npages & VFIO_DMA_UNPIN_DIRTY);
	} else if (space->nr_unpin) {
		unpin_all(space);
	}
	space->nr_unpin = 0;
	cond_resched();
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_space_flush);

/**
 * vfio_dma_space_unmap_now() - vfio_dma_space_unmap_page() and vfio_dma_space_flush()
 * @space: the space, which has a domain, and nothing to be flushed
 * @iova: page aligned address
 * @pfn: its page frame, or VFIO_DMA_NO_PFN if that has not been looked up
 * @flags: as for vfio_dma_space_unmap()
 *
 * In one domain, without a list of what is to be unpinned.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: number of pages that have been unpinned.
 */
unsigned long vfio_dma_space_unmap_now(struct vfio_dma_space *space,
				       dma_addr_t iova, unsigned long pfn,
				       unsigned int flags)
{
	struct vfio_dma_domain *domain = vfio_dma_space_first(space);
	unsigned long npages;

	lockdep_assert_held(space->lock);

	if (unlikely(!list_is_singular(&space->domains) ||
		     !(flags & VFIO_DMA_PINNED)))
		goto by_list;
	if (pfn == VFIO_DMA_NO_PFN)
		pfn = vfio_dma_domain_pfn(domain, iova);
	if (unlikely(pfn == VFIO_DMA_NO_PFN))
		goto by_list;
	if (unlikely(!vfio_dma_domain_unmap_fast(domain, iova, 1))) {
		space->leaked = true;
		vfio_dma_leak(space->owner, 1, 1);
		vfio_dma_space_flush(space);
		return 0;
	}
	iommu_iotlb_sync(domain->domain, &domain->gather);
	domain->unsynced = false;
	if (unlikely(space->owner->ledger))
		leave_ledger(space, pfn, 1);
	vfio_dma_unpin_page(pfn, flags & VFIO_DMA_MAY_BE_DIRTY);
	cond_resched();
	return 1;

by_list:
	npages = vfio_dma_space_unmap_page(space, iova, pfn, flags);
	vfio_dma_space_flush(space);
	return npages;
}

/**
 * vfio_dma_space_forget_lost() - all that splits lost has been unmapped
 * @space: the space
 *
 * Context: Any.  Caller holds the container's mutex.
 */
void vfio_dma_space_forget_lost(struct vfio_dma_space *space)
{
	struct vfio_dma_domain *domain;

	lockdep_assert_held(space->lock);

	list_for_each_entry(domain, &space->domains, next)
		vfio_dma_domain_forget_lost(domain);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_space_forget_lost);
