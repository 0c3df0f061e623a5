// SPDX-License-Identifier: GPL-2.0-only
/*
 * IO page tables of vfio_mock_iommu, and what is checked of them
 */

#include <linux/cleanup.h>
#include <linux/iova_bitmap.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "vfio_mock_iommu_private.h"

/* Leaves that a driver maps before another task gets its turn */
#define MOCK_RESCHED	4096

static struct mock_domain *to_mock_domain(struct iommu_domain *domain)
{
	return container_of(domain, struct mock_domain, domain);
}

/*
 * Leaves
 */

static int mock_leaf_cmp_range(struct rb_node *a, const struct rb_node *b)
{
	const struct mock_leaf *leaf = rb_entry(a, struct mock_leaf, node);
	const struct mock_leaf *other = rb_entry(b, struct mock_leaf, node);

	if (leaf->last < other->first)
		return -1;
	return leaf->first > other->last;
}

/* The first leaf that ends at @iova or behind it, %NULL if there is none. */
static struct mock_leaf *mock_leaf_from(struct mock_domain *domain, u64 iova)
{
	struct rb_node *node = domain->leaves.rb_node;
	struct mock_leaf *leaf, *found = NULL;

	while (node) {
		leaf = rb_entry(node, struct mock_leaf, node);
		if (leaf->last < iova) {
			node = node->rb_right;
		} else {
			found = leaf;
			node = node->rb_left;
		}
	}
	return found;
}

struct mock_leaf *vfio_mock_leaf_at(struct mock_domain *domain, u64 iova)
{
	struct mock_leaf *leaf = mock_leaf_from(domain, iova);

	return leaf && leaf->first <= iova ? leaf : NULL;
}

static struct mock_leaf *mock_leaf_next(struct mock_leaf *leaf)
{
	return rb_entry_safe(rb_next(&leaf->node), struct mock_leaf, node);
}

u64 vfio_mock_leaf_size(const struct mock_leaf *leaf)
{
	return leaf->last - leaf->first + 1;
}

/* Memory that a program can have, not device memory nor a page that is always there. */
bool vfio_mock_is_memory(phys_addr_t phys, int prot)
{
	unsigned long pfn = PHYS_PFN(phys);

	return !(prot & IOMMU_MMIO) && pfn_valid(pfn) && !is_zero_pfn(pfn) &&
	       !PageReserved(pfn_to_page(pfn));
}

/* Pins of others hide one that is missing: this sees most mistakes, not all. */
bool vfio_mock_is_pinned(phys_addr_t phys, int prot)
{
	return !vfio_mock_is_memory(phys, prot) ||
	       folio_maybe_dma_pinned(page_folio(pfn_to_page(PHYS_PFN(phys))));
}

/*
 * Memory of a program, as far as it can be told.  For a trial such memory is none to take:
 * a map of it that is not pinned is a mistake, in an empty domain, too.
 */
static bool mock_is_users(phys_addr_t phys)
{
	struct folio *folio = page_folio(pfn_to_page(PHYS_PFN(phys)));

	return !folio_test_slab(folio) && (folio_test_anon(folio) || folio->mapping);
}

static void mock_check_pinned(struct mock_domain *domain,
			      const struct mock_leaf *leaf)
{
	u64 offset;

	if (leaf->trial)
		return;
	for (offset = 0; offset < vfio_mock_leaf_size(leaf); offset += PAGE_SIZE) {
		if (!vfio_mock_is_pinned(leaf->phys + offset, leaf->prot)) {
			mock_error(domain->iommu,
				   "IOVA %llx is unpinned, but not yet out of reach",
				   leaf->first + offset);
			return;
		}
	}
}

static int mock_add_leaf(struct mock_domain *domain, u64 iova, u64 size,
			 phys_addr_t phys, int prot, gfp_t gfp)
{
	struct mock_iommu *iommu = domain->iommu;
	struct mock_leaf *leaf;

	leaf = kzalloc_obj(*leaf, gfp & ~(__GFP_ZERO | __GFP_HIGHMEM));
	if (!leaf)
		return -ENOMEM;
	leaf->first = iova;
	leaf->last = iova + size - 1;
	leaf->phys = phys;
	leaf->prot = prot & (IOMMU_READ | IOMMU_WRITE | IOMMU_MMIO);
	leaf->trial = !vfio_mock_is_pinned(phys, prot);
	if (rb_find_add(&leaf->node, &domain->leaves, mock_leaf_cmp_range)) {
		mock_error(iommu, "map of IOVA %llx..%llx over something",
			   leaf->first, leaf->last);
		kfree(leaf);
		return -EEXIST;
	}

	domain->nr_leaves++;
	domain->nr_trials += leaf->trial;
	if (leaf->trial && (domain->nr_trials != domain->nr_leaves || mock_is_users(phys)))
		mock_error(iommu, "map of IOVA %llx..%llx, which is not pinned",
			   leaf->first, leaf->last);
	else if (domain->nr_trials && !leaf->trial)
		mock_error(iommu, "map of IOVA %llx..%llx during a trial",
			   leaf->first, leaf->last);
	/* Of a trial, all of a leaf is alike; of memory, each page has its pin. */
	mock_check_pinned(domain, leaf);
	iommu->state.leaves++;
	iommu->state.mapped += size;
	return 0;
}

static void mock_del_leaf(struct mock_domain *domain, struct mock_leaf *leaf)
{
	rb_erase(&leaf->node, &domain->leaves);
	domain->nr_leaves--;
	domain->nr_trials -= leaf->trial;
	domain->iommu->state.leaves--;
	domain->iommu->state.unmapped += vfio_mock_leaf_size(leaf);
}

/*
 * Domains
 */

/* Nobody may map where the IOMMU does not translate. */
static void mock_check_valid(struct mock_iommu *iommu, u64 first, u64 last)
{
	const struct vfio_mock_iommu_create *config = &iommu->config;
	unsigned int i;

	if (first < config->aperture.first || last > config->aperture.last)
		mock_error(iommu, "map of IOVA %llx..%llx outside of the aperture",
			   first, last);
	for (i = 0; i < ARRAY_SIZE(config->reserved); i++)
		if (config->reserved[i].last &&
		    first <= config->reserved[i].last &&
		    last >= config->reserved[i].first)
			mock_error(iommu, "map of IOVA %llx..%llx, which is reserved",
				   first, last);
}

/* Is this the call that is to fail?  @at counts down to it. */
static bool mock_breaks(u32 *at)
{
	return *at && !--*at;
}

static int mock_map_pages(struct iommu_domain *iommu_domain, unsigned long iova,
			  phys_addr_t phys, size_t pgsize, size_t pgcount,
			  int prot, gfp_t gfp, size_t *mapped)
{
	struct mock_domain *domain = to_mock_domain(iommu_domain);
	struct mock_iommu *iommu = domain->iommu;
	bool breaks, calls = iommu->config.flags & VFIO_MOCK_IOMMU_CALLS;
	size_t i, n = calls ? 1 : pgcount;
	u64 size = calls ? pgsize * pgcount : pgsize;
	int ret = 0;

	guard(mutex)(&iommu->lock);
	iommu->state.maps++;
	if (!(pgsize & iommu->config.pgsizes) ||
	    !IS_ALIGNED(iova | phys, pgsize)) {
		mock_error(iommu, "map of %llx at IOVA %lx with pages of %zx",
			   (u64)phys, iova, pgsize);
		return -EINVAL;
	}
	mock_check_valid(iommu, iova, iova + pgsize * pgcount - 1);

	/* Who must not fail does not. */
	breaks = !(gfp & __GFP_NOFAIL) && mock_breaks(&iommu->break_at.map_at);
	if (breaks) {
		if (iommu->break_at.map == VFIO_MOCK_BREAK_FAIL)
			return -ENOMEM;
		if (iommu->break_at.map == VFIO_MOCK_BREAK_HALF)
			ret = -ENOMEM;
		if (n > 1 || ret)
			n /= 2;
	}
	for (i = 0; i < n; i++) {
		int err = mock_add_leaf(domain, iova + i * size, size,
					phys + i * size, prot, gfp);

		if (err)
			return err;
		*mapped += size;
		if (!((i + 1) % MOCK_RESCHED))
			cond_resched();
	}
	return ret;
}

static size_t mock_unmap_pages(struct iommu_domain *iommu_domain,
			       unsigned long iova, size_t pgsize,
			       size_t pgcount, struct iommu_iotlb_gather *gather)
{
	struct mock_domain *domain = to_mock_domain(iommu_domain);
	struct mock_iommu *iommu = domain->iommu;
	u64 pos = iova, last = iova + pgsize * pgcount - 1, stop = 0;
	struct mock_leaf *leaf;
	int how = -1;

	guard(mutex)(&iommu->lock);
	iommu->state.unmaps++;
	if (iommu->unmap_ends) {
		iommu->unmap_ends = false;
		return 0;
	}
	if (mock_breaks(&iommu->break_at.unmap_at)) {
		how = iommu->break_at.unmap;
		if (how == VFIO_MOCK_BREAK_FAIL)
			return 0;
		if (how == VFIO_MOCK_BREAK_HALF || how == VFIO_MOCK_BREAK_SHORT)
			stop = iova + pgsize * pgcount / 2;
	}

	while (pos <= last) {
		leaf = vfio_mock_leaf_at(domain, pos);
		/* Where a leaf has no halves, short is all and half is nothing. */
		if (stop && leaf && leaf->last >= stop &&
		    (how == VFIO_MOCK_BREAK_HALF || pos != iova))
			break;
		/* Of a trial, more may be unmapped than was asked for. */
		if (!leaf || leaf->first != pos ||
		    (leaf->last > last && !leaf->trial)) {
			if (!leaf || !leaf->trial)
				mock_error(iommu,
					   "unmap of IOVA %lx..%llx meets %s at %llx",
					   iova, last,
					   leaf ? "the inside of a leaf" : "a hole",
					   leaf && leaf->first == pos ?
					   last + 1 : pos);
			break;
		}
		if (iommu->config.flags & VFIO_MOCK_IOMMU_DISJOINT) {
			/* This may call mock_iotlb_sync(). */
			mutex_unlock(&iommu->lock);
			iommu_iotlb_gather_add_page(iommu_domain, gather, pos,
						    vfio_mock_leaf_size(leaf));
			mutex_lock(&iommu->lock);
		} else {
			iommu_iotlb_gather_add_range(gather, pos,
						     vfio_mock_leaf_size(leaf));
		}
		mock_del_leaf(domain, leaf);
		list_add_tail(&leaf->stale, &domain->stale);
		pos = leaf->last + 1;
		if (!pos)
			break;
	}
	if (how == VFIO_MOCK_BREAK_FORGET)
		return 0;
	iommu->unmap_ends = how == VFIO_MOCK_BREAK_HALF && pos != iova;
	return pos - iova;
}

/* The devices cannot reach leaves of [@first, @last] any more that are unmapped. */
static void mock_sync(struct mock_domain *domain, u64 first, u64 last)
{
	struct mock_iommu *iommu = domain->iommu;
	struct mock_leaf *leaf, *tmp;

	guard(mutex)(&iommu->lock);
	iommu->state.syncs++;
	for (leaf = mock_leaf_from(domain, first); leaf && leaf->first <= last;
	     leaf = mock_leaf_next(leaf))
		leaf->clean_unseen = false;
	list_for_each_entry_safe(leaf, tmp, &domain->stale, stale) {
		mock_check_pinned(domain, leaf);
		if (leaf->first < first || leaf->last > last)
			continue;
		list_del(&leaf->stale);
		kfree(leaf);
	}
}

static void mock_iotlb_sync(struct iommu_domain *iommu_domain,
			    struct iommu_iotlb_gather *gather)
{
	mock_sync(to_mock_domain(iommu_domain), gather->start, gather->end);
}

static void mock_flush_iotlb_all(struct iommu_domain *iommu_domain)
{
	mock_sync(to_mock_domain(iommu_domain), 0, U64_MAX);
}

static phys_addr_t mock_iova_to_phys(struct iommu_domain *iommu_domain,
				     dma_addr_t iova)
{
	struct mock_domain *domain = to_mock_domain(iommu_domain);
	struct mock_leaf *leaf;

	guard(mutex)(&domain->iommu->lock);
	leaf = vfio_mock_leaf_at(domain, iova);
	return leaf ? leaf->phys + (iova - leaf->first) : 0;
}

static bool mock_enforce_coherency(struct iommu_domain *iommu_domain)
{
	return to_mock_domain(iommu_domain)->iommu->config.flags &
	       VFIO_MOCK_IOMMU_COHERENT;
}

static int mock_set_tracking(struct iommu_domain *iommu_domain, bool enable)
{
	struct mock_domain *domain = to_mock_domain(iommu_domain);
	struct mock_iommu *iommu = domain->iommu;

	guard(mutex)(&iommu->lock);
	if (iommu->break_at.track)
		return -EIO;
	iommu->state.tracking += enable - domain->tracking;
	domain->tracking = enable;
	return 0;
}

/* As hardware drivers: also for what of a leaf is outside of the range. */
static int mock_read_dirty(struct iommu_domain *iommu_domain, unsigned long iova,
			   size_t size, unsigned long flags,
			   struct iommu_dirty_bitmap *dirty)
{
	struct mock_domain *domain = to_mock_domain(iommu_domain);
	struct mock_iommu *iommu = domain->iommu;
	u64 pos = iova, last = iova + size - 1;
	struct mock_leaf *leaf;

	guard(mutex)(&iommu->lock);
	if (iommu->break_at.read)
		return -EIO;
	for (; pos <= last && pos; pos = leaf->last + 1) {
		leaf = vfio_mock_leaf_at(domain, pos);
		if (!leaf) {
			mock_error(iommu, "dirty bit of a hole at IOVA %llx", pos);
			return -ENOENT;
		}
		if (!leaf->dirty)
			continue;
		iommu_dirty_bitmap_record(dirty, leaf->first,
					  vfio_mock_leaf_size(leaf));
		if (flags & IOMMU_DIRTY_NO_CLEAR)
			continue;
		leaf->dirty = false;
		leaf->clean_unseen = true;
	}
	return 0;
}

const struct iommu_dirty_ops vfio_mock_dirty_ops = {
	.set_dirty_tracking	= mock_set_tracking,
	.read_and_clear_dirty	= mock_read_dirty,
};

static void mock_domain_free(struct iommu_domain *iommu_domain)
{
	struct mock_domain *domain = to_mock_domain(iommu_domain);
	struct mock_iommu *iommu = domain->iommu;
	struct mock_leaf *leaf, *tmp;

	mutex_lock(&iommu->lock);
	if (domain->nr_devices)
		mock_error(iommu, "domain freed that %u devices use",
			   domain->nr_devices);
	list_for_each_entry_safe(leaf, tmp, &domain->stale, stale) {
		mock_error(iommu, "IOVA %llx..%llx: IOTLB never synchronised",
			   leaf->first, leaf->last);
		kfree(leaf);
	}
	/* Not an error: type1 lets go of a domain as a whole. */
	while ((leaf = mock_leaf_from(domain, 0))) {
		mock_check_pinned(domain, leaf);
		iommu->state.left += vfio_mock_leaf_size(leaf);
		mock_del_leaf(domain, leaf);
		kfree(leaf);
	}
	iommu->state.tracking -= domain->tracking;
	iommu->state.domains--;
	mutex_unlock(&iommu->lock);
	kfree(domain);
	kref_put(&iommu->kref, vfio_mock_iommu_free);
	module_put(THIS_MODULE);
}

static void mock_use_domain(struct mock_device *device, struct mock_domain *domain)
{
	guard(mutex)(&device->iommu->lock);
	if (device->domain)
		device->domain->nr_devices--;
	device->domain = domain;
	if (domain)
		domain->nr_devices++;
}

/* One domain can serve all devices of one IOMMU, and no others. */
static int mock_attach_dev(struct iommu_domain *iommu_domain,
			   struct device *dev, struct iommu_domain *old)
{
	struct mock_device *device = dev_iommu_priv_get(dev);
	struct mock_domain *domain = to_mock_domain(iommu_domain);

	if (domain->iommu != device->iommu)
		return -EINVAL;
	mock_use_domain(device, domain);
	return 0;
}

static int mock_block_dev(struct iommu_domain *iommu_domain,
			  struct device *dev, struct iommu_domain *old)
{
	mock_use_domain(dev_iommu_priv_get(dev), NULL);
	return 0;
}

const struct iommu_domain_ops vfio_mock_domain_ops = {
	.attach_dev	= mock_attach_dev,
	.map_pages	= mock_map_pages,
	.unmap_pages	= mock_unmap_pages,
	.flush_iotlb_all	= mock_flush_iotlb_all,
	.iotlb_sync	= mock_iotlb_sync,
	.iova_to_phys	= mock_iova_to_phys,
	.enforce_cache_coherency = mock_enforce_coherency,
	.free		= mock_domain_free,
};

struct iommu_domain vfio_mock_blocked_domain = {
	.type	= IOMMU_DOMAIN_BLOCKED,
	.ops	= &(const struct iommu_domain_ops) {
		.attach_dev	= mock_block_dev,
	},
};

struct iommu_domain *vfio_mock_domain_alloc(struct device *dev)
{
	struct mock_device *device = dev_iommu_priv_get(dev);
	struct mock_iommu *iommu = device->iommu;
	struct mock_domain *domain = kzalloc_obj(*domain, GFP_KERNEL);

	if (!domain)
		return ERR_PTR(-ENOMEM);
	/* A domain may be there for longer than its devices, which hold the module now. */
	__module_get(THIS_MODULE);
	kref_get(&iommu->kref);
	domain->iommu = iommu;
	domain->leaves = RB_ROOT;
	INIT_LIST_HEAD(&domain->stale);
	domain->domain.pgsize_bitmap = iommu->config.pgsizes;
	domain->domain.geometry.aperture_start = iommu->config.aperture.first;
	domain->domain.geometry.aperture_end = iommu->config.aperture.last;
	domain->domain.geometry.force_aperture = true;
	if (iommu->queue)
		domain->domain.iopf_handler = vfio_mock_fault_handler;
	mutex_lock(&iommu->lock);
	iommu->state.domains++;
	mutex_unlock(&iommu->lock);
	return &domain->domain;
}
