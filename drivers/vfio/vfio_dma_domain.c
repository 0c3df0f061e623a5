// SPDX-License-Identifier: GPL-2.0-only
/*
 * One IOMMU domain
 *
 * Superpages.  iommu_unmap() must not be given a range that begins or ends
 * inside of what the IOMMU took as one page: depending on the driver that
 * unmaps too much, nothing, or makes it walk user memory as a page table.  A
 * caller that unmaps at any page calls vfio_dma_domain_split() before, for every
 * block that may be such a page.  A block is taken out as a whole, the IOTLB is
 * synchronised (break before make), and it is mapped back in up to three parts, from
 * the same pages, which stay pinned all the time.
 *
 * Unwinding.  An IOMMU driver that unmaps less than it was told to may still
 * reach the pages.  Every path compares the size: such pages stay pinned for
 * ever, and charged, also where a mapping that has failed is undone.
 *
 * Some IOMMUs (virtio-iommu) have no page sizes but remember each iommu_map()
 * call and unmap whole calls only.  vfio_dma_domain_probe() finds that out;
 * such a domain gets one call per block of a page size, and then its blocks are
 * like superpages of the others.
 *
 * A domain does not know what is recorded of it, nor who owns the memory.
 */

#include <kunit/visibility.h>
#include <linux/iommu.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "vfio_dma_domain.h"

/**
 * struct vfio_dma_lost - a block that could not be mapped back
 * @next: in &vfio_dma_domain.lost
 * @iova: its first address
 * @extent: what it translated to
 * @reachable: the IOMMU may still translate a part of it
 */
struct vfio_dma_lost {
	struct list_head next;
	dma_addr_t iova;
	struct vfio_dma_extent extent;
	bool reachable;
};

/**
 * vfio_dma_domain_pgsizes() - page sizes of a domain
 * @domain: a domain
 *
 * An IOMMU with pages smaller than the CPU's is used with the CPU's.
 *
 * Context: Any.
 * Return: bitmap of page sizes in bytes, none below PAGE_SIZE.
 */
unsigned long vfio_dma_domain_pgsizes(const struct vfio_dma_domain *domain)
{
	unsigned long pgsizes = domain->domain->pgsize_bitmap;

	if (pgsizes & ~PAGE_MASK)
		pgsizes = (pgsizes & PAGE_MASK) | PAGE_SIZE;
	return pgsizes;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_domain_pgsizes);

/**
 * vfio_dma_domain_superpage() - the second page size of a domain
 * @domain: a domain
 *
 * Context: Any.
 * Return: the smallest size of a superpage in bytes, 0 if there is none.
 */
unsigned long vfio_dma_domain_superpage(const struct vfio_dma_domain *domain)
{
	unsigned long pgsizes = vfio_dma_domain_pgsizes(domain);

	pgsizes &= pgsizes - 1;
	return pgsizes & -pgsizes;
}

/**
 * vfio_dma_domain_init() - initialise the engine's part of a domain
 * @domain: to be initialised
 * @iommu_domain: the IOMMU domain
 *
 * Context: Any.
 */
void vfio_dma_domain_init(struct vfio_dma_domain *domain,
			  struct iommu_domain *iommu_domain)
{
	domain->domain = iommu_domain;
	/* The cautious answer is right everywhere, if not the fastest. */
	domain->unit_is_call = true;
	domain->unsynced = false;
	domain->tracking = false;
	iommu_iotlb_gather_init(&domain->gather);
	INIT_LIST_HEAD(&domain->lost);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_domain_init);

/**
 * vfio_dma_domain_undo() - take back what was mapped
 * @domain: a domain
 * @iova: address of the range
 * @size: its length in bytes; whole calls as they were made
 *
 * The IOTLB is synchronised on return.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: false if the IOMMU may still reach it.
 */
bool vfio_dma_domain_undo(struct vfio_dma_domain *domain, dma_addr_t iova,
			  size_t size)
{
	size_t unmapped = iommu_unmap(domain->domain, iova, size);

	return !WARN_ONCE(unmapped != size,
			  "vfio_dma: undo unmapped %zu bytes instead of %zu\n",
			  unmapped, size);
}

/*
 * iommu_map() takes back what it had mapped when it fails, and does not tell if the
 * driver fails at that, too: an IOMMU that allocates memory for either can fail at
 * both for the same reason.
 */
static bool is_clear(struct vfio_dma_domain *domain, dma_addr_t iova,
		     phys_addr_t phys, size_t size)
{
	unsigned long pgsizes = domain->domain->pgsize_bitmap;
	size_t done, step = min(PAGE_SIZE, pgsizes & -pgsizes);

	/* Other translations are not what this call has left. */
	for (done = step - 1; done < size; done += step) {
		if (WARN_ONCE(iommu_iova_to_phys(domain->domain, iova + done) ==
			      phys + done,
			      "vfio_dma: a map that failed is there\n"))
			return false;
		if (!((done + 1) % SZ_16M))
			cond_resched();
	}
	return true;
}

/**
 * vfio_dma_domain_probe() - find out how a domain unmaps
 * @domain: a domain in which nothing is mapped
 * @iova: an address for the trial; four of the domain's smallest pages from
 *	there on must be valid addresses
 *
 * Maps two pages in one call and unmaps the second.
 *
 * Context: Process context, may sleep.
 * Return: false if something of that is still there: the domain is not to be used.
 */
bool vfio_dma_domain_probe(struct vfio_dma_domain *domain, dma_addr_t iova)
{
	size_t size = 1UL << __ffs(vfio_dma_domain_pgsizes(domain));
	unsigned int order = get_order(4 * size);
	struct page *page;
	size_t unmapped;

	page = alloc_pages(VFIO_DMA_GFP | __GFP_ZERO, order);
	if (!page)
		return true;

	/*
	 * From the second page on, lest an IOMMU with pages of twice the size
	 * make one of them.
	 */
	iova = ALIGN(iova, 2 * size) + size;
	if (!iommu_map(domain->domain, iova, page_to_phys(page) + size,
		       2 * size, IOMMU_READ | IOMMU_CACHE, VFIO_DMA_GFP)) {
		unmapped = iommu_unmap(domain->domain, iova + size, size);
		domain->unit_is_call = unmapped != size;
		if (unmapped != size)
			size *= 2;
		if (!vfio_dma_domain_undo(domain, iova, size))
			return false;
	} else if (!is_clear(domain, iova,
			     page_to_phys(page) + size,
			     2 * size)) {
		return false;
	}
	__free_pages(page, order);
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_domain_probe);

/*
 * How much of a range the next iommu_map() call of this domain may take.
 *
 * A domain that unmaps whole calls only gets one block of a page size at a
 * time.  Memory that must not become a superpage is cut one small page after each
 * boundary of the second page size, so that no call covers an aligned block.
 */
static size_t call_size(const struct vfio_dma_domain *domain,
			dma_addr_t iova, phys_addr_t phys, size_t size,
			bool big)
{
	unsigned long pgsizes;
	size_t small, second;

	pgsizes = vfio_dma_domain_pgsizes(domain);
	small = pgsizes & -pgsizes;
	second = vfio_dma_domain_superpage(domain);

	if (domain->unit_is_call) {
		if (!big)
			return small;
		/* Not larger than the size, nor than the alignment */
		pgsizes &= GENMASK(__fls(size), 0);
		if (iova | phys)
			pgsizes &= GENMASK(__ffs(iova | phys), 0);
		return 1UL << __fls(pgsizes);
	}

	if (big || !second)
		return size;
	return min(size, second - ((iova - small) & (second - 1)));
}

/**
 * vfio_dma_domain_is_partial() - has a map of one page that failed left a part?
 * @domain: a domain
 * @iova: address of the page
 * @phys: its memory
 *
 * A page of the CPU can consist of several of the IOMMU's.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: true if the IOMMU may reach a part of it.
 */
bool vfio_dma_domain_is_partial(struct vfio_dma_domain *domain, dma_addr_t iova,
				phys_addr_t phys)
{
	return domain->domain->pgsize_bitmap & ~PAGE_MASK &&
	       !is_clear(domain, iova, phys, PAGE_SIZE);
}

/* As vfio_dma_domain_map_extent(), for more than a page */
int vfio_dma_domain_map_parts(struct vfio_dma_domain *domain, dma_addr_t iova,
			      phys_addr_t phys, size_t size, int prot, bool big,
			      gfp_t gfp, bool *stuck)
{
	size_t done = 0, call;
	int ret;

	while (done < size) {
		call = call_size(domain, iova + done, phys + done,
				 size - done, big);
		ret = vfio_dma_domain_iommu_map(domain, iova + done, phys + done,
						call, prot, gfp);
		if (ret)
			goto err_unmap;
		done += call;
		if (done < size)
			cond_resched();
	}
	return 0;

err_unmap:
	if (!is_clear(domain, iova + done, phys + done, call))
		*stuck = true;
	if (done && !vfio_dma_domain_undo(domain, iova, done))
		*stuck = true;
	return ret;
}

/**
 * vfio_dma_domain_map() - map an extent in one domain
 * @domain: a domain in no space; if this fails, it is to be freed
 * @iova: address to map it at
 * @extent: physical memory, pinned for other domains
 * @prot: IOMMU_READ, IOMMU_WRITE; IOMMU_CACHE, or IOMMU_MMIO for device memory
 * @big: superpages may be used
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -ENOMEM or what else iommu_map() returns.
 */
int vfio_dma_domain_map(struct vfio_dma_domain *domain, dma_addr_t iova,
			const struct vfio_dma_extent *extent, int prot,
			bool big)
{
	bool stuck = false; /* until the domain is freed */

	return vfio_dma_domain_map_extent(domain, iova, PFN_PHYS(extent->pfn),
					  extent->npages << PAGE_SHIFT, prot, big,
					  VFIO_DMA_GFP, &stuck);
}

/**
 * vfio_dma_domain_unmap() - undo vfio_dma_domain_map()
 * @domain: a domain that is to be freed: what an IOMMU driver fails to unmap
 *	goes with it
 * @iova: address of the range
 * @npages: its length; whole extents as they were mapped
 *
 * The IOTLB is synchronised on return.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_domain_unmap(struct vfio_dma_domain *domain, dma_addr_t iova,
			   unsigned long npages)
{
	vfio_dma_domain_undo(domain, iova, npages << PAGE_SHIFT);
}

static struct vfio_dma_lost *find_lost(struct vfio_dma_domain *domain,
				       dma_addr_t iova, unsigned long npages)
{
	dma_addr_t last = iova + (npages << PAGE_SHIFT) - 1;
	struct vfio_dma_lost *lost, *first = NULL;

	list_for_each_entry(lost, &domain->lost, next) {
		dma_addr_t lost_last = lost->iova +
				(lost->extent.npages << PAGE_SHIFT) - 1;

		if (lost->iova <= last && lost_last >= iova &&
		    (!first || lost->iova < first->iova))
			first = lost;
	}
	return first;
}

/* The page frame of a block that was lost, or VFIO_DMA_NO_PFN */
unsigned long vfio_dma_domain_lost_pfn(struct vfio_dma_domain *domain,
				       dma_addr_t iova)
{
	struct vfio_dma_lost *lost = find_lost(domain, iova, 1);

	if (!lost)
		return VFIO_DMA_NO_PFN;
	return lost->extent.pfn + ((iova - lost->iova) >> PAGE_SHIFT);
}

/*
 * How many of the @npages pages from @iova on continue @pfn, the first, as @n are known to.
 * One of @step pages is looked up.  Sets *@next to the page frame of the one that does not,
 * if it has been looked up.
 */
unsigned long
vfio_dma_domain_count_contig(struct vfio_dma_domain *domain, dma_addr_t iova,
			     unsigned long npages, unsigned long n,
			     unsigned long step, unsigned long pfn,
			     unsigned long *next)
{
	unsigned long found;

	while (n < npages && (pfn + n) % VFIO_DMA_EXTENT_MAX) {
		found = vfio_dma_domain_pfn(domain, iova + (n << PAGE_SHIFT));
		if (found != pfn + n) {
			*next = found;
			break;
		}
		n += step;
		if (!(n % 4096))
			cond_resched();
	}
	return min(n, npages);
}

/**
 * vfio_dma_domain_lookup() - what an address translates to
 * @domain: the domain
 * @iova: page aligned address
 * @npages: pages to look at
 * @contig: every aligned block of VFIO_DMA_CONTIG_PAGES pages is, as far as it is in
 *	the range, known to be contiguous, so that one page of each tells
 * @extent: the physically contiguous memory from @iova on, at most @npages;
 *	pfnmap and mmio are not set
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: false if nothing is mapped at @iova.
 */
bool vfio_dma_domain_lookup(struct vfio_dma_domain *domain, dma_addr_t iova,
			    unsigned long npages, bool contig,
			    struct vfio_dma_extent *extent)
{
	unsigned long next = VFIO_DMA_NO_PFN;

	extent->npages = vfio_dma_domain_lookup_next(domain, iova, npages, contig,
						     &extent->pfn, &next);
	extent->pfnmap = false;
	extent->mmio = false;
	return extent->npages;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_domain_lookup);

/* Lost blocks cannot be unmapped again, and perhaps not be unpinned either. */
bool vfio_dma_domain_unmap_around_lost(struct vfio_dma_domain *domain, dma_addr_t iova,
				       unsigned long npages)
{
	struct vfio_dma_lost *lost;
	unsigned long n, skip;
	bool safe = true;

	for (; npages; npages -= n, iova += n << PAGE_SHIFT) {
		n = npages;
		skip = 0;
		lost = find_lost(domain, iova, npages);
		if (lost && lost->iova > iova) {
			n = (lost->iova - iova) >> PAGE_SHIFT;
		} else if (lost) {
			skip = lost->extent.npages -
			       ((iova - lost->iova) >> PAGE_SHIFT);
			n = min(skip, npages);
		}
		if (skip)
			safe &= !lost->reachable;
		else
			safe &= vfio_dma_domain_iommu_unmap(domain, iova,
							    n << PAGE_SHIFT);
	}
	return safe;
}

/**
 * vfio_dma_domain_linear() - could a block be one superpage?
 * @domain: the domain
 * @iova: first address of an aligned block of one of the domain's page sizes
 * @npages: size of the block in pages
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: true if all of it is mapped, to memory that is as aligned and
 * contiguous.
 */
bool vfio_dma_domain_linear(struct vfio_dma_domain *domain, dma_addr_t iova,
			    unsigned long npages)
{
	unsigned long pfn = vfio_dma_domain_pfn(domain, iova), i;

	/* VFIO_DMA_NO_PFN is not aligned either. */
	if (pfn & (npages - 1))
		return false;

	/* The last page first: it most often differs if any does. */
	for (i = npages - 1; i; i--) {
		if (vfio_dma_domain_pfn(domain, iova + (i << PAGE_SHIFT)) != pfn + i)
			return false;
		if (!(i % 4096))
			cond_resched();
	}
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_domain_linear);

/**
 * vfio_dma_domain_split() - make sure that no superpage lies across an address
 * @domain: the domain
 * @iova: first address of a block for which vfio_dma_domain_linear() is true, and
 *	that is mapped with the same access rights everywhere
 * @npages: size of the block in pages
 * @first: first address of a range that is to be unmapped
 * @end: the address behind it; @first or @end is inside of the block
 * @prot: what the block is mapped with, as for vfio_dma_domain_map()
 *
 * The block must not be part of a larger one that could be a superpage.  The block
 * is unmapped whole and mapped back in parts; the part in the range, too, because
 * that is simpler to unmap with the rest of the range.  Both ends of the range
 * have to be known here, because a second call for the same block would make a
 * superpage of what the first has divided.  Device access to the block may fault
 * meanwhile.
 *
 * iommu_unmap() cannot divide what iommu_map() made; break before make
 * is the Arm Architecture Reference Manual's name (D8.16) for the order.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex and
 * has called vfio_dma_space_flush() since the last vfio_dma_space_unmap().
 * Return: 0; -EIO if the IOMMU driver failed: the caller must unmap the whole
 * block with vfio_dma_space_unmap() and then call vfio_dma_space_forget_lost().
 */
int vfio_dma_domain_split(struct vfio_dma_domain *domain, dma_addr_t iova,
			  unsigned long npages, dma_addr_t first,
			  dma_addr_t end, int prot)
{
	size_t size = npages << PAGE_SHIFT, unmapped, part;
	size_t ends[3] = { size, size, size }, done = 0;
	phys_addr_t phys = PFN_PHYS(vfio_dma_domain_pfn(domain, iova));
	struct vfio_dma_lost *lost;
	bool stuck = false;
	int i, ret;

	/* Offsets in ascending order; one outside of the block divides nothing. */
	if (first - iova < size)
		ends[0] = first - iova;
	if (end - iova < size)
		ends[1] = end - iova;
	if (ends[0] == size)
		ends[0] = 0;

	lost = vfio_dma_kmalloc_nofail(sizeof(*lost));

	unmapped = iommu_unmap(domain->domain, iova, size);
	if (WARN_ONCE(unmapped != size,
		      "vfio_dma: unmapped %zu bytes of a block of %zu\n",
		      unmapped, size)) {
		stuck = true;
		goto err_lost;
	}

	for (i = 0; i < ARRAY_SIZE(ends); i++) {
		if (ends[i] <= done)
			continue;
		part = ends[i] - done;
		ret = vfio_dma_domain_map_extent(domain, iova + done, phys + done,
						 part, prot, true,
						 VFIO_DMA_GFP_OVER_LIMIT, &stuck);
		if (ret == -ENOMEM && !stuck)
			ret = vfio_dma_domain_map_extent(domain, iova + done,
							 phys + done, part, prot,
							 true, VFIO_DMA_GFP_LAST,
							 &stuck);
		if (ret)
			goto err_lost;
		done += part;
	}

	kfree(lost);
	return 0;

err_lost:
	if (done && !vfio_dma_domain_undo(domain, iova, done))
		stuck = true;
	lost->reachable = stuck;
	lost->iova = iova;
	lost->extent.pfn = PHYS_PFN(phys);
	lost->extent.npages = npages;
	lost->extent.pfnmap = false;
	list_add(&lost->next, &domain->lost);
	return -EIO;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_domain_split);

/**
 * vfio_dma_domain_forget_lost() - all that splits lost has been unmapped
 * @domain: the domain
 *
 * Context: Any.  Caller holds the container's mutex.
 */
void vfio_dma_domain_forget_lost(struct vfio_dma_domain *domain)
{
	struct vfio_dma_lost *lost, *tmp;

	list_for_each_entry_safe(lost, tmp, &domain->lost, next) {
		list_del(&lost->next);
		kfree(lost);
	}
}

/*
 * Dirty bits of the IO page tables
 *
 * An IOMMU can set a bit in the entry of a page that a device writes to.  A
 * superpage has one bit, which goes with it when it is unmapped or cleared.
 */

/**
 * vfio_dma_domain_can_track() - can the IOMMU tell which pages are written to?
 * @domain: the domain
 *
 * Context: Any.
 * Return: true if it has dirty bits and the kernel has what it takes to read
 * them.
 */
bool vfio_dma_domain_can_track(const struct vfio_dma_domain *domain)
{
	return IS_ENABLED(CONFIG_IOMMUFD_DRIVER) && domain->domain->dirty_ops;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_domain_can_track);

/**
 * vfio_dma_domain_track() - begin or end to record which pages are written to
 * @domain: the domain
 * @enable: begin; where the domain cannot, or its IOMMU fails, tracking remains
 *	false
 *
 * Bits that have been set before are not cleared.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_domain_track(struct vfio_dma_domain *domain, bool enable)
{
	struct iommu_domain *iommu_domain = domain->domain;
	int ret;

	if (!vfio_dma_domain_can_track(domain))
		return;
	ret = iommu_domain->dirty_ops->set_dirty_tracking(iommu_domain, enable);
	/* Bits that it continues to set without need do no harm. */
	domain->tracking = enable && !ret;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_domain_track);

/**
 * vfio_dma_domain_read_dirty() - read which pages have been written to
 * @domain: a domain that can track
 * @iova: first address of a range without holes
 * @npages: its length in pages
 * @clear: from now on they count as clean
 * @bitmap: where to set bits, or %NULL if only to clear.  A superpage that is in
 *	the range with only a part sets, and clears, all of its bits: the bitmap
 *	must have them.
 *
 * Writes to pages whose bits were cleared are recorded again only after
 * vfio_dma_space_flush(), which must be called before the mutex is dropped.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0, or what the IOMMU driver returns: the bits are incomplete.
 */
int vfio_dma_domain_read_dirty(struct vfio_dma_domain *domain, dma_addr_t iova,
			       unsigned long npages, bool clear,
			       struct iova_bitmap *bitmap)
{
	struct iommu_domain *iommu_domain = domain->domain;
	struct iommu_dirty_bitmap dirty = {
		.bitmap = bitmap,
		.gather = &domain->gather,
	};

	if (clear)
		domain->unsynced = true;
	return iommu_domain->dirty_ops->read_and_clear_dirty(iommu_domain, iova,
			npages << PAGE_SHIFT, clear ? 0 : IOMMU_DIRTY_NO_CLEAR,
							     &dirty);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_domain_read_dirty);

/**
 * vfio_dma_domain_take_dirty() - read, without a bitmap, if there is a dirty page
 * @domain: a domain that can track
 * @iova: first address of a range without holes; neither end inside of a
 *	superpage
 * @npages: its length in pages
 * @first: first address of the first dirty page, which may be a superpage
 * @last: last address of the last dirty page
 *
 * All of the range counts as clean from now on.
 *
 * As iommu_dirty_bitmap_record() and its counterparts in the drivers do, what is cleared
 * is added to the gather, because the IOTLB must learn of it.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: true if something has been, or may have been, written to.
 */
bool vfio_dma_domain_take_dirty(struct vfio_dma_domain *domain, dma_addr_t iova,
				unsigned long npages, dma_addr_t *first,
				dma_addr_t *last)
{
	struct iommu_domain *iommu_domain = domain->domain;
	struct iommu_iotlb_gather gather;
	struct iommu_dirty_bitmap dirty;
	size_t size = npages << PAGE_SHIFT;
	int ret;

	iommu_dirty_bitmap_init(&dirty, NULL, &gather);
	ret = iommu_domain->dirty_ops->read_and_clear_dirty(iommu_domain, iova,
							    size, 0, &dirty);
	*first = ret ? iova : gather.start;
	*last = ret ? iova + size - 1 : gather.end;
	if (gather.end)
		iommu_iotlb_sync(iommu_domain, &gather);
	return *last;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_domain_take_dirty);
