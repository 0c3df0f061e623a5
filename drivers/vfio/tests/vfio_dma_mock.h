/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An IOMMU domain that checks what it is told to do, and memory for it to
 * translate to.  Included by KUnit suites; the IOMMU core in between is the
 * real one.
 *
 * The domain keeps the leaves of its IO page table, that is, what it can only
 * unmap as a whole, and the entries that an IOTLB could still hold: leaves that
 * are unmapped and whose invalidation has not been sent.  Everything that no
 * caller may do is an error, counted in mock_errors: an unmap that begins or
 * ends inside of a leaf or meets a hole, mapping what is mapped, a page that
 * somebody unpinned while the device could reach it.
 *
 * A kind of IOMMU with dirty bits has one for each leaf, as hardware has.  It
 * goes when the leaf is unmapped, also if nobody has read it; and when it is
 * cleared, the IOTLB has to learn of it before the next write is recorded.
 */
#ifndef __VFIO_DMA_MOCK_H
#define __VFIO_DMA_MOCK_H

#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/iommu.h>
#include <linux/iova_bitmap.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/maple_tree.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "../vfio_dma_space.h"

/* x86 names with 4 KiB pages: 4 KiB, 2 MiB, 1 GiB */
#define MOCK_PMD_PAGES	BIT(9)
#define MOCK_PUD_PAGES	BIT(18)

/* Page frames that are no memory, for tests without pages to pin */
#define MOCK_PFN	(BIT(39) >> PAGE_SHIFT)

/*
 * A WARN_ONCE() was met, and its message suppressed.  On x86 the trap knows whether it has
 * been met before, elsewhere a variable in front of the trap, so that it counts only once.
 */
#ifdef HAVE_ARCH_BUG_FORMAT_ARGS
#define MOCK_EXPECT_WARNED(test)	KUNIT_EXPECT_EQ(test, KUNIT_SUPPRESSED_WARNING_COUNT(), 1)
#else
#define MOCK_EXPECT_WARNED(test)	KUNIT_EXPECT_LE(test, KUNIT_SUPPRESSED_WARNING_COUNT(), 1)
#endif

/**
 * struct mock_kind - how a kind of IOMMU behaves
 * @name: for the name of the test
 * @pgsizes: its page sizes
 * @unit_is_call: a leaf is what one map_pages() covers, whatever its length
 * @sync_disjoint: an unmap that does not adjoin the last invalidates that first
 * @dirty: it has dirty bits
 * @aperture_end: the last IOVA that it translates, 0 is that of 57 bits
 * @sw_msi: the software chooses where devices send their interrupts to
 */
struct mock_kind {
	const char *name;
	unsigned long pgsizes;
	bool unit_is_call;
	bool sync_disjoint;
	bool dirty;
	u64 aperture_end;
	bool sw_msi;
};

static const struct mock_kind mock_kinds[] = {
	{ "three sizes", PAGE_SIZE | PAGE_SIZE << 9 | PAGE_SIZE << 18 },
	{ "close sizes", PAGE_SIZE | PAGE_SIZE << 4 | PAGE_SIZE << 8,
	  .sync_disjoint = true },
	{ "one size", PAGE_SIZE },
	{ "powers of two", PAGE_MASK },
	{ "calls", PAGE_MASK, .unit_is_call = true },
	{ "calls of sizes", PAGE_SIZE | PAGE_SIZE << 9 | PAGE_SIZE << 18,
	  .unit_is_call = true, .sync_disjoint = true },
	{ "dirty bits", PAGE_SIZE | PAGE_SIZE << 9 | PAGE_SIZE << 18,
	  .dirty = true },
};

/*
 * After the @nth call has failed, which is to be the next? Late ones are all alike,
 * and take long where each access is checked.
 */
static unsigned int mock_next_failure(unsigned int nth)
{
	if (IS_ENABLED(CONFIG_KASAN))
		return nth + (nth < 8 ? 1 : 500);
	return nth + (nth < 16 ? 1 : 150);
}

/**
 * struct mock_leaf - an entry of the IO page table
 * @stale: in &mock_domain.stale once it is unmapped
 * @first: first IOVA page
 * @last: last IOVA page
 * @pfn: page frame that @first translates to
 * @prot: IOMMU_READ, IOMMU_WRITE
 * @cache: IOMMU_CACHE, IOMMU_MMIO
 * @dirty: a device has written to it
 * @clean_unseen: it was dirty, and the IOTLB still takes it for that
 */
struct mock_leaf {
	struct list_head stale;
	unsigned long first;
	unsigned long last;
	unsigned long pfn;
	int prot;
	int cache;
	bool dirty;
	bool clean_unseen;
};

/**
 * struct mock_domain - an IOMMU domain that checks
 * @domain: the domain
 * @kind: how it behaves
 * @leaves: IOVA page to struct mock_leaf
 * @near: the leaf that was looked up last, or %NULL
 * @stale: unmapped leaves that the device may still use
 * @probing: unmapping a part of a leaf is not an error now, but does nothing,
 *	and pages need not be pinned
 * @fail_map: the map_pages() call to fail, 1 is the next, 0 is none
 * @failed_map: it has failed, and does so if it is tried again with __GFP_NOFAIL
 * @no_memory: map_pages() fails unless it is called with __GFP_NOFAIL
 * @fail_unmap: the unmap_pages() call to do nothing, likewise
 * @forget_unmap: unmap_pages() forgets what it is to unmap, and says that it failed:
 *	as virtio-iommu does when it has no memory for the request
 * @fail_track: set_dirty_tracking() fails
 * @fail_read: read_and_clear_dirty() fails, and has read nothing
 * @can_enforce: it can make all transactions of devices coherent
 * @enforced: it does
 * @msi_cookie: where interrupts are mapped, 0 is nowhere
 * @tracking: dirty bits are set
 * @remembers: iova_to_phys() finds what is unmapped until that is synchronised, as an
 *	IOMMU does that walks its own table
 * @busy: an IOVA page that a device writes to all the time, 0 is none
 * @munmap: a page of user memory to take away when dirty bits are read, 0 is none
 * @remap: the read after that one before which another page is there, 0 is none
 * @gone: where the page was that is to come back
 * @nr_map: map_pages() calls so far
 * @nr_unmapped: pages unmapped so far
 * @nr_sync: invalidations so far
 * @nr_lookups: iova_to_phys() calls so far
 */
struct mock_domain {
	struct iommu_domain domain;
	const struct mock_kind *kind;
	struct maple_tree leaves;
	struct mock_leaf *near;
	struct list_head stale;
	bool probing;
	unsigned int fail_map;
	bool failed_map;
	bool no_memory;
	unsigned int fail_unmap;
	bool forget_unmap;
	bool fail_track;
	bool fail_read;
	bool can_enforce;
	bool enforced;
	dma_addr_t msi_cookie;
	bool tracking;
	bool remembers;
	unsigned long busy;
	unsigned long munmap;
	unsigned int remap;
	unsigned long gone;
	unsigned long nr_map;
	unsigned long nr_unmapped;
	unsigned long nr_sync;
	unsigned long nr_lookups;
};

/* One test runs at a time. */
static unsigned int mock_errors;

#define mock_error(fmt, ...)						\
	do {								\
		if (mock_errors++ < 10)					\
			pr_err("mock: " fmt "\n", ##__VA_ARGS__);	\
	} while (0)

static struct mock_domain *to_mock(struct iommu_domain *domain)
{
	return container_of(domain, struct mock_domain, domain);
}

static struct mock_leaf *mock_leaf_at(struct mock_domain *mock,
				      unsigned long index)
{
	struct mock_leaf *leaf = mock->near;

	if (!leaf || index < leaf->first || index > leaf->last) {
		leaf = mtree_load(&mock->leaves, index);
		mock->near = leaf;
	}
	return leaf;
}

/* How often a page is pinned, if it is not part of a compound page. */
static unsigned int mock_pins(unsigned long pfn)
{
	return page_ref_count(pfn_to_page(pfn)) / GUP_PIN_COUNTING_BIAS;
}

/* Whatever a device can reach must be pinned. */
static void mock_check_pinned(const struct mock_domain *mock,
			      const struct mock_leaf *leaf)
{
	unsigned long i, n = leaf->last - leaf->first + 1;

	/* Nor are the first page frames memory, in the tests that use them. */
	if (mock->probing || leaf->pfn >= MOCK_PFN || leaf->pfn < MOCK_PMD_PAGES)
		return;
	for (i = 0; i < n; i++)
		if (!mock_pins(leaf->pfn + i))
			mock_error("IOVA page %lx: unpinned, but not yet out of reach",
				   leaf->first + i);
}

static int mock_add_leaf(struct mock_domain *mock, unsigned long first,
			 unsigned long npages, unsigned long pfn, int prot)
{
	struct mock_leaf *leaf = kmalloc_obj(*leaf, GFP_KERNEL);
	int ret;

	if (!leaf)
		return -ENOMEM;
	leaf->first = first;
	leaf->last = first + npages - 1;
	leaf->pfn = pfn;
	leaf->prot = prot & (IOMMU_READ | IOMMU_WRITE);
	leaf->cache = prot & (IOMMU_CACHE | IOMMU_MMIO);
	leaf->dirty = false;
	leaf->clean_unseen = false;
	ret = mtree_insert_range(&mock->leaves, leaf->first, leaf->last, leaf,
				 GFP_KERNEL);
	if (ret) {
		mock_error("IOVA pages %lx..%lx: mapped over something (%d)",
			   leaf->first, leaf->last, ret);
		kfree(leaf);
	}
	return ret;
}

/* The memory cgroup is charged, and nobody of it killed. */
static void mock_check_gfp(gfp_t gfp)
{
	gfp_t tries = __GFP_RETRY_MAYFAIL | __GFP_NORETRY;
	bool bad;

	if (gfp & __GFP_NOFAIL)
		bad = gfp & (__GFP_ACCOUNT | tries);
	else
		bad = !(gfp & __GFP_ACCOUNT) || !(gfp & tries);
	if (bad)
		mock_error("map with %pGg", &gfp);
}

/* What a map_pages() call returns that fails; -ENOMEM if 0 */
static int mock_map_ret;

/* Called by map_pages() and unmap_pages() if it is set */
static void (*mock_look)(void);

/* Called by iova_to_phys() if it is set */
static void (*mock_look_up)(struct mock_domain *mock);

static int mock_map_pages(struct iommu_domain *domain, unsigned long iova,
			  phys_addr_t paddr, size_t pgsize, size_t pgcount,
			  int prot, gfp_t gfp, size_t *mapped)
{
	struct mock_domain *mock = to_mock(domain);
	unsigned long npages = pgsize >> PAGE_SHIFT;
	bool fail;
	int ret;

	if (gfp & __GFP_NOFAIL)
		fail = mock->failed_map;
	else
		fail = (mock->fail_map && !--mock->fail_map) || mock->no_memory;
	mock->failed_map = fail && !mock->no_memory;
	mock_check_gfp(gfp);
	if (mock_look)
		mock_look();
	mock->nr_map++;
	if (!(pgsize & domain->pgsize_bitmap) ||
	    !IS_ALIGNED(iova | paddr, pgsize)) {
		mock_error("map of %lx at %lx with pages of %zx",
			   (unsigned long)paddr, iova, pgsize);
		return -EINVAL;
	}

	if (mock->kind->unit_is_call) {
		npages *= pgcount;
		pgcount = 1;
	}
	/* A driver may fail halfway, and say how far it came. */
	for (pgcount /= fail ? 2 : 1; pgcount; pgcount--) {
		ret = mock_add_leaf(mock, iova >> PAGE_SHIFT, npages,
				    PHYS_PFN(paddr), prot);
		if (ret)
			return ret;
		iova += npages << PAGE_SHIFT;
		paddr += npages << PAGE_SHIFT;
		*mapped += npages << PAGE_SHIFT;
	}
	return fail ? mock_map_ret ?: -ENOMEM : 0;
}

/* A device writes to a page.  Returns false if it cannot. */
static bool mock_write(struct mock_domain *mock, unsigned long index)
{
	struct mock_leaf *leaf = mock_leaf_at(mock, index);

	if (!leaf || !(leaf->prot & IOMMU_WRITE))
		return false;
	if (leaf->clean_unseen)
		mock_error("IOVA page %lx: a write that is not recorded", index);
	if (mock->tracking)
		leaf->dirty = true;
	return true;
}

/* What happens while something else does: it comes before or after. */
static void mock_write_busy(struct mock_domain *mock)
{
	struct mock_leaf *leaf;

	if (!mock->busy)
		return;
	leaf = mock_leaf_at(mock, mock->busy);
	if (leaf && !leaf->clean_unseen)
		mock_write(mock, mock->busy);
}

static size_t mock_unmap_pages(struct iommu_domain *domain, unsigned long iova,
			       size_t pgsize, size_t pgcount,
			       struct iommu_iotlb_gather *gather)
{
	struct mock_domain *mock = to_mock(domain);
	unsigned long first = iova >> PAGE_SHIFT, pos = first;
	unsigned long last = first + ((pgsize * pgcount) >> PAGE_SHIFT) - 1;
	struct mock_leaf *leaf;
	size_t size;

	mock_write_busy(mock);
	if (mock_look)
		mock_look();
	if (mock->fail_unmap && !--mock->fail_unmap)
		return 0;

	while (pos <= last) {
		leaf = mock_leaf_at(mock, pos);
		if (!leaf || leaf->first != pos || leaf->last > last) {
			if (!mock->probing)
				mock_error("unmap of IOVA pages %lx..%lx: %s at %lx",
					   first, last,
					   !leaf ? "a hole" : "inside of a leaf",
					   leaf && leaf->first == pos ?
					   last + 1 : pos);
			break;
		}
		iova = pos << PAGE_SHIFT;
		pos = leaf->last + 1;
		size = (pos << PAGE_SHIFT) - iova;
		if (mock->kind->sync_disjoint)
			iommu_iotlb_gather_add_page(domain, gather, iova, size);
		else
			iommu_iotlb_gather_add_range(gather, iova, size);
		mtree_erase(&mock->leaves, leaf->first);
		mock->near = NULL;
		list_add_tail(&leaf->stale, &mock->stale);
	}
	mock->nr_unmapped += pos - first;
	if (mock->forget_unmap)
		return 0;
	return (pos - first) << PAGE_SHIFT;
}

static void mock_iotlb_sync(struct iommu_domain *domain,
			    struct iommu_iotlb_gather *gather)
{
	struct mock_domain *mock = to_mock(domain);
	struct mock_leaf *leaf, *tmp;
	unsigned long index = gather->start >> PAGE_SHIFT;

	mock->nr_sync++;
	mt_for_each(&mock->leaves, leaf, index, gather->end >> PAGE_SHIFT)
		leaf->clean_unseen = false;
	list_for_each_entry_safe(leaf, tmp, &mock->stale, stale) {
		mock_check_pinned(mock, leaf);
		if (leaf->first < gather->start >> PAGE_SHIFT ||
		    leaf->last > gather->end >> PAGE_SHIFT)
			continue;
		list_del(&leaf->stale);
		kfree(leaf);
	}
}

static int mock_set_tracking(struct iommu_domain *domain, bool enable)
{
	struct mock_domain *mock = to_mock(domain);

	if (mock->fail_track)
		return -EIO;
	mock->tracking = enable;
	return 0;
}

/* A thread of the process takes a page away, and gives it another. */
static void mock_munmap(struct mock_domain *mock)
{
	if (mock->munmap) {
		vm_munmap(mock->munmap, PAGE_SIZE);
		mock->gone = mock->munmap;
		mock->munmap = 0;
	} else if (mock->gone && mock->remap && !--mock->remap) {
		if (vm_mmap(NULL, mock->gone, PAGE_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0) !=
		    mock->gone)
			mock_error("no page to come back");
		mock->gone = 0;
	}
}

/* As drivers do it, that is, also for what of a leaf is outside of the range. */
static int mock_read_dirty(struct iommu_domain *domain, unsigned long iova,
			   size_t size, unsigned long flags,
			   struct iommu_dirty_bitmap *dirty)
{
	struct mock_domain *mock = to_mock(domain);
	unsigned long index = iova >> PAGE_SHIFT, start;
	unsigned long last = (iova + size - 1) >> PAGE_SHIFT;
	struct mock_leaf *leaf;

	if (mock->fail_read)
		return -EIO;
	mock_write_busy(mock);
	mock_munmap(mock);
	for (; index <= last; index = leaf->last + 1) {
		leaf = mock_leaf_at(mock, index);
		if (!leaf) {
			mock_error("dirty bit of a hole at IOVA page %lx", index);
			return -ENOENT;
		}
		if (!leaf->dirty)
			continue;
		start = leaf->first << PAGE_SHIFT;
		size = (leaf->last - leaf->first + 1) << PAGE_SHIFT;
		if (dirty->bitmap)
			iova_bitmap_set(dirty->bitmap, start, size);
		if (flags & IOMMU_DIRTY_NO_CLEAR)
			continue;
		leaf->dirty = false;
		leaf->clean_unseen = true;
		iommu_iotlb_gather_add_range(dirty->gather, start, size);
	}
	return 0;
}

static const struct iommu_dirty_ops mock_dirty_ops = {
	.set_dirty_tracking	= mock_set_tracking,
	.read_and_clear_dirty	= mock_read_dirty,
};

static phys_addr_t mock_iova_to_phys(struct iommu_domain *domain,
				     dma_addr_t iova)
{
	unsigned long index = iova >> PAGE_SHIFT;
	struct mock_domain *mock = to_mock(domain);
	struct mock_leaf *leaf = mock_leaf_at(mock, index), *stale;

	mock->nr_lookups++;
	if (mock_look_up)
		mock_look_up(mock);
	if (!leaf && mock->remembers)
		list_for_each_entry(stale, &mock->stale, stale)
			if (stale->first <= index && index <= stale->last)
				leaf = stale;
	return leaf ? PFN_PHYS(leaf->pfn + index - leaf->first) +
		      offset_in_page(iova) : 0;
}

static bool mock_enforce_coherency(struct iommu_domain *domain)
{
	struct mock_domain *mock = to_mock(domain);

	mock->enforced = mock->can_enforce;
	return mock->enforced;
}

/* Unmaps nothing: what still is in the page table goes with it. */
static void mock_free(struct iommu_domain *domain)
{
	struct mock_domain *mock = to_mock(domain);
	struct mock_leaf *leaf, *tmp;
	unsigned long index = 0;

	list_for_each_entry_safe(leaf, tmp, &mock->stale, stale) {
		mock_error("IOVA pages %lx..%lx: never invalidated", leaf->first,
			   leaf->last);
		kfree(leaf);
	}
	mt_for_each(&mock->leaves, leaf, index, ULONG_MAX) {
		mock_error("IOVA pages %lx..%lx: mapped to the end", leaf->first,
			   leaf->last);
		kfree(leaf);
	}
	mtree_destroy(&mock->leaves);
	kfree(mock);
}

static const struct iommu_domain_ops mock_domain_ops = {
	.map_pages	= mock_map_pages,
	.unmap_pages	= mock_unmap_pages,
	.iotlb_sync	= mock_iotlb_sync,
	.iova_to_phys	= mock_iova_to_phys,
	.enforce_cache_coherency = mock_enforce_coherency,
	.free		= mock_free,
};

/* A domain to be freed with iommu_domain_free(). */
static struct mock_domain *mock_alloc(const struct mock_kind *kind)
{
	struct mock_domain *mock = kzalloc_obj(*mock, GFP_KERNEL);

	if (!mock)
		return NULL;
	mock->kind = kind;
	mt_init(&mock->leaves);
	INIT_LIST_HEAD(&mock->stale);
	mock->domain.type = IOMMU_DOMAIN_UNMANAGED;
	mock->domain.ops = &mock_domain_ops;
	if (kind->dirty)
		mock->domain.dirty_ops = &mock_dirty_ops;
	mock->domain.pgsize_bitmap = kind->pgsizes;
	mock->domain.geometry.aperture_end = kind->aperture_end ?: BIT_ULL(57) - 1;
	mock->domain.geometry.force_aperture = true;
	return mock;
}

/* Nothing may be reachable any more but what is mapped. */
static void mock_expect_synced(struct kunit *test, struct mock_domain *mock)
{
	KUNIT_EXPECT_TRUE(test, list_empty(&mock->stale));
}

/* All of [@first, @last] translates to what follows @pfn, 0 is nothing. */
static bool mock_translates(struct mock_domain *mock, unsigned long first,
			    unsigned long last, unsigned long pfn, int prot)
{
	struct mock_leaf *leaf;
	unsigned long index;

	if (!pfn) {
		index = first;
		leaf = mt_find(&mock->leaves, &index, last);
		return !leaf;
	}
	for (index = first; index <= last; index = leaf->last + 1) {
		leaf = mock_leaf_at(mock, index);
		if (!leaf || leaf->prot != prot ||
		    leaf->pfn + index - leaf->first != pfn + index - first)
			return false;
	}
	return true;
}

/* The number of pages of the largest leaf in [@first, @last], 0 if none. */
static unsigned long mock_largest_leaf(struct mock_domain *mock,
				       unsigned long first, unsigned long last)
{
	unsigned long index = first, largest = 0;
	struct mock_leaf *leaf;

	mt_for_each(&mock->leaves, leaf, index, last)
		largest = max(largest, leaf->last - leaf->first + 1);
	return largest;
}

/*
 * Memory
 */

/**
 * struct mock_memory - pages whose pins can be counted one by one
 * @test: whose they are
 * @npages: number of pages
 * @pages: the pages in the order of user space; physically they come in blocks
 *	of MAX_ORDER_NR_PAGES
 * @vaddr: where they are in the test's address space
 * @limit: pages that are there, behind them is nothing
 */
struct mock_memory {
	struct kunit *test;
	unsigned long npages;
	struct page **pages;
	unsigned long vaddr;
	unsigned long limit;
};

static int mock_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct mock_memory *memory = file->private_data;
	unsigned long i;
	int ret = 0;

	for (i = 0; i < memory->limit && !ret; i++)
		ret = vm_insert_page(vma, vma->vm_start + (i << PAGE_SHIFT),
				     memory->pages[i]);
	return ret;
}

static const struct file_operations mock_memory_fops = {
	.owner	= THIS_MODULE,
	.mmap	= mock_mmap,
};

static void mock_memory_free(void *data)
{
	struct mock_memory *memory = data;
	unsigned long i, pinned = 0;

	for (i = 0; i < memory->npages; i++) {
		if (!memory->pages[i])
			continue;
		pinned += !!mock_pins(page_to_pfn(memory->pages[i]));
		__free_page(memory->pages[i]);
	}
	/* The suite has compared mock_errors by now. */
	if (pinned)
		KUNIT_FAIL(memory->test, "%lu pages are left pinned", pinned);
	kvfree(memory->pages);
	kfree(memory);
}

/* Pages that are physically contiguous in blocks of 1 << @order. */
static struct mock_memory *mock_memory_alloc(struct kunit *test,
					     unsigned long npages,
					     unsigned int order)
{
	struct mock_memory *memory = kzalloc_obj(*memory, GFP_KERNEL);
	unsigned long i, j;
	struct page *block;

	KUNIT_ASSERT_NOT_NULL(test, memory);
	memory->test = test;
	memory->npages = npages;
	memory->limit = npages;
	memory->pages = kvcalloc(npages, sizeof(*memory->pages), GFP_KERNEL);
	if (!memory->pages)
		memory->npages = 0;
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, mock_memory_free,
							memory), 0);
	KUNIT_ASSERT_NOT_NULL(test, memory->pages);
	for (i = 0; i < npages; i += BIT(order)) {
		block = alloc_pages(GFP_KERNEL | __GFP_ZERO, order);
		KUNIT_ASSERT_NOT_NULL(test, block);
		split_page(block, order);
		for (j = 0; j < BIT(order); j++) {
			if (i + j < npages)
				memory->pages[i + j] = block + j;
			else
				__free_page(block + j);
		}
	}
	return memory;
}

static unsigned long mock_memory_pfn(const struct mock_memory *memory,
				     unsigned long i)
{
	return page_to_pfn(memory->pages[i]);
}

/*
 * Give the test's thread an address space, once.  Not kunit_attach_mm(): nobody
 * drops the reference that kthread_use_mm() takes there, and what each test then
 * leaves, an mm_struct and a page table, lies in another 4 MiB block each time,
 * until no test finds one that is free.
 */
static void mock_attach_mm(struct kunit *test)
{
	struct mm_struct *mm;

	if (current->mm)
		return;
	mm = mm_alloc();
	KUNIT_ASSERT_NOT_NULL(test, mm);
	mm->task_size = TASK_SIZE;
	arch_pick_mmap_layout(mm, &current->signal->rlim[RLIMIT_STACK]);
	kthread_use_mm(mm);
	/* What mm_alloc() gave goes when the thread exits. */
	mmdrop(mm);
}

/* Map a file in the test's own address space; @at an address, or anywhere. */
static unsigned long mock_map_file_at(struct kunit *test, const char *name,
				      const struct file_operations *fops,
				      void *data, unsigned long npages,
				      unsigned long prot, unsigned long at)
{
	struct file *file = anon_inode_getfile(name, fops, data, O_RDWR);
	unsigned long vaddr;

	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	mock_attach_mm(test);
	vaddr = kunit_vm_mmap(test, file, at, npages << PAGE_SHIFT, prot,
			      MAP_SHARED | (at ? MAP_FIXED : 0), 0);
	fput(file);
	KUNIT_ASSERT_NE(test, vaddr, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(vaddr));
	return vaddr;
}

static unsigned long mock_map_file(struct kunit *test, const char *name,
				   const struct file_operations *fops,
				   void *data, unsigned long npages,
				   unsigned long prot)
{
	return mock_map_file_at(test, name, fops, data, npages, prot, 0);
}

/* Make the pages user memory of the test. */
static void mock_memory_map(struct kunit *test, struct mock_memory *memory,
			    unsigned long prot)
{
	memory->vaddr = mock_map_file(test, "[mock memory]", &mock_memory_fops,
				      memory, memory->npages, prot);
}

/* How many pins there are on all of the pages together. */
static unsigned long mock_memory_pins(const struct mock_memory *memory)
{
	unsigned long i, n = 0;

	for (i = 0; i < memory->npages; i++)
		n += mock_pins(mock_memory_pfn(memory, i));
	return n;
}

#endif /* __VFIO_DMA_MOCK_H */
