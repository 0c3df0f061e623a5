// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the map and unmap core of VFIO container backends, on IOMMU
 * domains that check every call.
 */

#include <kunit/test.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/iommu.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>

#include "../vfio_dma_core.h"
#include "vfio_dma_mock.h"

#define RW	(IOMMU_READ | IOMMU_WRITE)

/* An IOVA page at which a block of every size begins */
#define BASE	(4 * MOCK_PUD_PAGES)

/**
 * struct core_test - a space, the domains of which are mocks
 * @lock: the backend's mutex, held all the time
 * @owner: whose memory is mapped, once a test has any
 * @space: the space
 * @domains: its domains
 * @mocks: the same
 * @nr_domains: how many there are
 */
struct core_test {
	struct mutex lock;	/* the backend's */
	struct vfio_dma_owner owner;
	struct vfio_dma_space space;
	struct vfio_dma_domain domains[2];
	struct mock_domain *mocks[2];
	unsigned int nr_domains;
};

static int core_test_init(struct kunit *test)
{
	struct core_test *t;

	t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t);
	test->priv = t;
	mock_errors = 0;
	mutex_init(&t->lock);
	return vfio_dma_space_init(&t->space, &t->lock, &t->owner);
}

static void core_test_exit(struct kunit *test)
{
	struct core_test *t = test->priv;
	unsigned int i;

	if (!t)
		return;
	mutex_lock(&t->lock);
	for (i = 0; i < t->nr_domains; i++) {
		KUNIT_EXPECT_TRUE(test, list_empty(&t->domains[i].lost));
		vfio_dma_domain_del(&t->space, &t->domains[i]);
		iommu_domain_free(&t->mocks[i]->domain);
	}
	mutex_unlock(&t->lock);
	vfio_dma_space_destroy(&t->space);
	vfio_dma_owner_clear(&t->owner);
	mutex_destroy(&t->lock);
	KUNIT_EXPECT_EQ(test, mock_errors, 0);
}

/* Add a domain to the space, and find out what it is like. */
static struct mock_domain *core_test_domain(struct kunit *test,
					    const struct mock_kind *kind)
{
	struct core_test *t = test->priv;
	struct vfio_dma_domain *domain = &t->domains[t->nr_domains];
	struct mock_domain *mock = mock_alloc(kind);

	KUNIT_ASSERT_NOT_NULL(test, mock);
	t->mocks[t->nr_domains++] = mock;
	vfio_dma_domain_init(domain, &mock->domain);

	mock->probing = true;
	vfio_dma_domain_probe(domain, 0);
	mock->probing = false;
	KUNIT_EXPECT_TRUE(test, mock_translates(mock, 0, ULONG_MAX, 0, 0));
	mock_expect_synced(test, mock);

	mutex_lock(&t->lock);
	vfio_dma_domain_add(&t->space, domain);
	mutex_unlock(&t->lock);
	return mock;
}

static void core_expect(struct kunit *test, unsigned long first,
			unsigned long npages, unsigned long pfn, int prot)
{
	struct core_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < t->nr_domains; i++) {
		KUNIT_EXPECT_TRUE_MSG(test,
				      mock_translates(t->mocks[i], first,
						      first + npages - 1, pfn,
						      prot),
				      "domain %u, IOVA pages %lx..%lx", i,
				      first, first + npages - 1);
		mock_expect_synced(test, t->mocks[i]);
	}
}

static int core_map(struct kunit *test, unsigned long first,
		    unsigned long npages, unsigned long pfn, bool big)
{
	struct core_test *t = test->priv;
	struct vfio_dma_extent extent = {
		.pfn = pfn, .npages = npages, .pfnmap = pfn >= MOCK_PFN,
	};
	int ret;

	mutex_lock(&t->lock);
	ret = vfio_dma_map(&t->space, (dma_addr_t)first << PAGE_SHIFT, &extent,
			   RW, big);
	mutex_unlock(&t->lock);
	return ret;
}

static unsigned long core_unmap(struct kunit *test, unsigned long first,
				unsigned long npages, bool pinned)
{
	struct core_test *t = test->priv;
	unsigned long n;

	mutex_lock(&t->lock);
	n = vfio_dma_unmap(&t->space, (dma_addr_t)first << PAGE_SHIFT, npages,
			   pinned ? VFIO_DMA_PINNED | VFIO_DMA_DIRTY : 0);
	vfio_dma_unmap_flush(&t->space);
	mutex_unlock(&t->lock);
	return n;
}

/* Returns 1 if the block was divided, 0 if it was not one, or an error. */
static int core_split(struct kunit *test, unsigned int i, unsigned long block,
		      unsigned long npages, unsigned long first,
		      unsigned long end)
{
	struct core_test *t = test->priv;
	dma_addr_t iova = (dma_addr_t)block << PAGE_SHIFT;
	int ret = 0;

	mutex_lock(&t->lock);
	if (vfio_dma_domain_linear(&t->domains[i], iova, npages))
		ret = vfio_dma_domain_split(&t->domains[i], iova, npages,
					    (dma_addr_t)first << PAGE_SHIFT,
					    (dma_addr_t)end << PAGE_SHIFT,
					    RW) ?: 1;
	mutex_unlock(&t->lock);
	return ret;
}

/* Divide what lies across the ends of a range, in each domain what is its own. */
static void core_cut(struct kunit *test, unsigned long first, unsigned long end)
{
	struct core_test *t = test->priv;
	unsigned long at, block, npages;
	struct mock_leaf *leaf;
	unsigned int i;

	for (i = 0; i < t->nr_domains; i++) {
		for (at = first; ; at = end) {
			leaf = mock_leaf_at(t->mocks[i], at);
			if (leaf && leaf->first < at) {
				block = leaf->first;
				npages = leaf->last - leaf->first + 1;
				KUNIT_EXPECT_EQ(test, core_split(test, i, block, npages,
								 first, end), 1);
			}
			if (at == end)
				break;
		}
	}
}

KUNIT_ARRAY_PARAM_DESC(kind, mock_kinds, name);

/*
 * The mock itself
 */

/* Everything that it is there to notice, it notices. */
static void mock_notices(struct kunit *test)
{
	struct mock_domain *mock = core_test_domain(test, &mock_kinds[0]);
	struct iommu_iotlb_gather gather;
	struct mock_memory *memory;
	unsigned long pfn;
	struct page *page;

	KUNIT_ASSERT_EQ(test, core_map(test, BASE, MOCK_PMD_PAGES, MOCK_PFN, true), 0);
	KUNIT_EXPECT_EQ(test, mock_errors, 0);

	/* Inside of a leaf: its beginning, its end, both */
	iommu_unmap(&mock->domain, BASE << PAGE_SHIFT, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, mock_errors, 1);
	iommu_unmap(&mock->domain, (BASE + MOCK_PMD_PAGES - 1) << PAGE_SHIFT, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, mock_errors, 2);
	iommu_unmap(&mock->domain, (BASE + 1) << PAGE_SHIFT, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, mock_errors, 3);
	core_expect(test, BASE, MOCK_PMD_PAGES, MOCK_PFN, RW);

	/* A hole before it, a hole behind it */
	iommu_unmap(&mock->domain, (BASE - 1) << PAGE_SHIFT, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, mock_errors, 4);
	iommu_unmap(&mock->domain, BASE << PAGE_SHIFT,
		    (MOCK_PMD_PAGES + 1) << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, mock_errors, 5);
	core_expect(test, BASE, MOCK_PMD_PAGES, 0, 0);

	/* Mapping what is mapped */
	KUNIT_ASSERT_EQ(test, core_map(test, BASE, 1, MOCK_PFN, true), 0);
	KUNIT_EXPECT_NE(test, core_map(test, BASE, 1, MOCK_PFN, true), 0);
	KUNIT_EXPECT_EQ(test, mock_errors, 6);
	core_unmap(test, BASE, 1, false);

	/* A page unpinned before the IOTLB is synchronised */
	memory = mock_memory_alloc(test, 1, 0);
	pfn = mock_memory_pfn(memory, 0);
	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, pin_user_pages_fast(memory->vaddr, 1, FOLL_WRITE, &page), 1);
	KUNIT_ASSERT_EQ(test, core_map(test, BASE, 1, pfn, true), 0);
	iommu_iotlb_gather_init(&gather);
	iommu_unmap_fast(&mock->domain, BASE << PAGE_SHIFT, PAGE_SIZE, &gather);
	KUNIT_EXPECT_FALSE(test, list_empty(&mock->stale));
	unpin_user_page(page);
	KUNIT_EXPECT_EQ(test, mock_errors, 6);
	iommu_iotlb_sync(&mock->domain, &gather);
	KUNIT_EXPECT_EQ(test, mock_errors, 7);
	mock_expect_synced(test, mock);

	mock_errors = 0;
}

/*
 * Domains and spaces
 */

static void probe(struct kunit *test)
{
	const struct mock_kind *kind = test->param_value;
	struct mock_domain *mock = core_test_domain(test, kind);
	struct core_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, t->domains[0].unit_is_call, kind->unit_is_call);

	/* Whatever goes wrong, the cautious answer, and nothing left behind */
	t->domains[0].unit_is_call = true;
	mock->fail_map = 1;
	mock->probing = true;
	vfio_dma_domain_probe(&t->domains[0], 0);
	mock->probing = false;
	KUNIT_EXPECT_TRUE(test, t->domains[0].unit_is_call);
	core_expect(test, 0, BASE, 0, 0);
}

static void page_sizes(struct kunit *test)
{
	static const struct mock_kind sub = { "", SZ_512 | SZ_1K | PAGE_SIZE << 3 };
	static const struct mock_kind large = { "", PAGE_SIZE << 2 | PAGE_SIZE << 9 };
	struct core_test *t = test->priv;
	struct vfio_dma_space *space = &t->space;
	struct mock_domain *mock;

	/* Without a domain, any */
	KUNIT_EXPECT_EQ(test, space->pgsize_bitmap, PAGE_MASK);
	KUNIT_EXPECT_EQ(test, space->superpage, 0);

	/* Pages smaller than the CPU's are as good as the CPU's. */
	mock = mock_alloc(&sub);
	KUNIT_ASSERT_NOT_NULL(test, mock);
	t->mocks[0] = mock;
	vfio_dma_domain_init(&t->domains[0], &mock->domain);
	mutex_lock(&t->lock);
	vfio_dma_domain_add(space, &t->domains[0]);
	mutex_unlock(&t->lock);
	t->nr_domains = 1;
	KUNIT_EXPECT_EQ(test, vfio_dma_domain_pgsizes(&t->domains[0]),
			PAGE_SIZE | PAGE_SIZE << 3);
	KUNIT_EXPECT_EQ(test, space->pgsize_bitmap, PAGE_SIZE | PAGE_SIZE << 3);
	KUNIT_EXPECT_EQ(test, space->superpage, PAGE_SIZE << 3);

	/* What all have; the smallest superpage that any has */
	core_test_domain(test, &mock_kinds[3]);
	KUNIT_EXPECT_EQ(test, space->pgsize_bitmap, PAGE_SIZE | PAGE_SIZE << 3);
	KUNIT_EXPECT_EQ(test, space->superpage, PAGE_SIZE << 1);

	mutex_lock(&t->lock);
	vfio_dma_domain_del(space, &t->domains[0]);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_EQ(test, space->pgsize_bitmap, PAGE_MASK);
	KUNIT_EXPECT_EQ(test, space->superpage, PAGE_SIZE << 1);

	/* Pages larger than the CPU's */
	mock->domain.pgsize_bitmap = large.pgsizes;
	mutex_lock(&t->lock);
	vfio_dma_domain_add(space, &t->domains[0]);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_EQ(test, space->pgsize_bitmap, large.pgsizes);
	KUNIT_EXPECT_EQ(test, space->superpage, PAGE_SIZE << 1);
}

/*
 * Mapping
 */

/* Offsets and lengths around what could be a superpage */
static const struct {
	unsigned long offset, pfn_offset, npages;
} shapes[] = {
	{ 0, 0, 1 },
	{ 3, 5, 1 },
	{ 0, 0, 16 },
	{ 1, 1, 511 },
	{ 0, 0, 512 },
	{ 0, 1, 512 },
	{ 1, 0, 1024 },
	{ 511, 511, 514 },
	{ 256, 256, 1024 },
	{ 256, 0, 1537 },
	{ 0, 0, 2048 },
	{ 12, 12, 2000 },
	{ 15, 7, 1301 },
};

static void map_extent(struct kunit *test)
{
	const struct mock_kind *kind = test->param_value;
	unsigned long second = kind->pgsizes & (kind->pgsizes - 1), first, pfn;
	struct mock_domain *mock = core_test_domain(test, kind);
	unsigned int i, big;

	second = (second & -second) >> PAGE_SHIFT;
	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		for (big = 0; big < 2; big++) {
			unsigned long npages = shapes[i].npages, largest;

			first = BASE + shapes[i].offset;
			pfn = MOCK_PFN + shapes[i].pfn_offset;
			KUNIT_ASSERT_EQ(test, core_map(test, first, npages, pfn, big), 0);
			core_expect(test, first, npages, pfn, RW);
			core_expect(test, first - 2048, 2048, 0, 0);
			core_expect(test, first + npages, 2048, 0, 0);

			largest = mock_largest_leaf(mock, 0, ULONG_MAX);
			if (!big && kind->unit_is_call)
				KUNIT_EXPECT_EQ(test, largest, 1);
			else if (!big && second)
				KUNIT_EXPECT_LT(test, largest, second);
			else if (second == MOCK_PMD_PAGES && npages == 2048)
				KUNIT_EXPECT_EQ(test, largest, second);

			KUNIT_EXPECT_EQ(test, core_unmap(test, first, npages, false), 0);
			core_expect(test, first, npages, 0, 0);
		}
	}
}

/* Without superpages any page can be unmapped without more ado. */
static void small_unmaps_anywhere(struct kunit *test)
{
	unsigned long first = BASE + 300, npages = 1100, i;

	core_test_domain(test, test->param_value);
	KUNIT_ASSERT_EQ(test, core_map(test, first, npages, MOCK_PFN + 300, false), 0);
	for (i = 0; i < npages; i += 3) {
		core_unmap(test, first + i, 1, false);
		core_expect(test, first + i, 1, 0, 0);
		if (i + 2 < npages)
			core_expect(test, first + i + 1, 2, MOCK_PFN + 301 + i, RW);
	}
	for (i = 0; i < npages; i += 3) {
		if (i + 1 < npages)
			core_unmap(test, first + i + 1, min(2, npages - i - 1), false);
	}
	core_expect(test, first, npages, 0, 0);
}

/* If one call fails, none of the domains has anything of it. */
static void map_fails(struct kunit *test)
{
	unsigned long first = BASE + 700, npages = 1000;
	struct core_test *t = test->priv;
	unsigned int victim, big, nth;
	int ret;

	core_test_domain(test, test->param_value);
	core_test_domain(test, &mock_kinds[4]);
	for (big = 0; big < 2; big++) {
		for (victim = 0; victim < 2; victim++) {
			nth = 0;
			do {
				nth = mock_next_failure(nth);
				t->mocks[victim]->fail_map = nth;
				ret = core_map(test, first, npages,
					       MOCK_PFN + 700 % 512, big);
				if (ret) {
					KUNIT_ASSERT_EQ(test, ret, -ENOMEM);
					core_expect(test, 0, 2 * BASE, 0, 0);
				}
			} while (ret);
			KUNIT_EXPECT_GT(test, nth, 1);
			t->mocks[victim]->fail_map = 0;
			core_expect(test, first, npages, MOCK_PFN + 700 % 512, RW);
			core_unmap(test, first, npages, false);
			core_expect(test, 0, 2 * BASE, 0, 0);
		}
	}
}

/*
 * An IOMMU fails to map, and then to unmap as well: a device may still reach the
 * pages that are to be unpinned.
 */
static void map_fails_stuck(struct kunit *test)
{
	static const unsigned long npages = 8;
	struct core_test *t = test->priv;
	struct page *pages[8], **first;
	struct mock_memory *memory;
	unsigned long locked_vm, i;
	struct mock_domain *mock;
	unsigned int way;
	int ret;

	mock = core_test_domain(test, test->param_value);
	core_test_domain(test, &mock_kinds[2]);
	memory = mock_memory_alloc(test, npages, 3);
	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);
	vfio_dma_owner_set(&t->owner);
	/* One extent, or one for each page */
	for (way = 0; way < 2; way++) {
		struct vfio_dma_extent extent = {
			.pfn = mock_memory_pfn(memory, 0), .npages = npages,
		};

		KUNIT_ASSERT_EQ(test, pin_user_pages_fast(memory->vaddr, npages,
							  FOLL_WRITE, pages), npages);
		for (i = 0; way && i < npages / 2; i++)
			swap(pages[i], pages[npages - 1 - i]);
		locked_vm = current->mm->locked_vm;
		/* The second domain is the one that fails to map. */
		t->mocks[1]->fail_map = 1 + way;
		mock->fail_unmap = 1;
		mutex_lock(&t->lock);
		kunit_warning_suppress(test) {
			first = pages;
			if (way)
				ret = vfio_dma_map_pages(&t->space, BASE << PAGE_SHIFT,
							 first, npages, RW, false);
			else
				ret = vfio_dma_map(&t->space, BASE << PAGE_SHIFT,
						   &extent, RW, false);
			KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
			KUNIT_EXPECT_EQ(test, KUNIT_SUPPRESSED_WARNING_COUNT(), 1);
		}
		mutex_unlock(&t->lock);
		/* All of it, or the page that the other domain did not take */
		KUNIT_EXPECT_FALSE(test, mock_translates(mock, BASE + way, BASE + way, 0, 0));
		KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), npages);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, locked_vm + npages);
		KUNIT_EXPECT_EQ(test, t->owner.npages, 0);

		/* Here it is known what it has kept. */
		iommu_unmap(&mock->domain, (BASE + way) << PAGE_SHIFT,
			    (way ? 1 : npages) << PAGE_SHIFT);
		unpin_user_pages(pages, npages);
		current->mm->locked_vm -= npages;
	}

	/* An undo that works leaves nothing. */
	KUNIT_ASSERT_EQ(test, pin_user_pages_fast(memory->vaddr, npages, FOLL_WRITE,
						  pages), npages);
	t->mocks[1]->fail_map = 1;
	mutex_lock(&t->lock);
	KUNIT_EXPECT_EQ(test, vfio_dma_map_pages(&t->space, BASE << PAGE_SHIFT, pages,
						 npages, RW, false), -ENOMEM);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);
	core_expect(test, 0, 2 * BASE, 0, 0);
}

/* Page frame 0 is an address like any other. */
static void pfn_zero(struct kunit *test)
{
	struct vfio_dma_extent extent;
	struct core_test *t = test->priv;
	struct mock_domain *mock;
	unsigned long n = MOCK_PMD_PAGES;

	mock = core_test_domain(test, test->param_value);
	mutex_lock(&t->lock);
	extent = (struct vfio_dma_extent) { .pfn = 0, .npages = n, .pfnmap = true };
	KUNIT_ASSERT_EQ(test, vfio_dma_map(&t->space, BASE << PAGE_SHIFT, &extent, RW, true), 0);

	KUNIT_EXPECT_FALSE(test, vfio_dma_domain_lookup(&t->domains[0], (BASE - 1) << PAGE_SHIFT,
							1, false, &extent));
	KUNIT_EXPECT_TRUE(test, vfio_dma_domain_lookup(&t->domains[0], BASE << PAGE_SHIFT,
						       n + 1, false, &extent));
	KUNIT_EXPECT_EQ(test, extent.pfn, 0);
	KUNIT_EXPECT_EQ(test, extent.npages, n);
	KUNIT_EXPECT_TRUE(test, vfio_dma_domain_linear(&t->domains[0], BASE << PAGE_SHIFT, n));
	mutex_unlock(&t->lock);

	core_cut(test, BASE + 3, BASE + 5);
	core_unmap(test, BASE + 3, 2, false);
	KUNIT_EXPECT_NOT_NULL(test, mock_leaf_at(mock, BASE));
	core_expect(test, BASE + 5, n - 5, 5, RW);
	core_unmap(test, BASE, 3, false);
	core_unmap(test, BASE + 5, n - 5, false);
	core_expect(test, BASE, n, 0, 0);
}

/*
 * Cuts
 */

/* All pages of the block that remain translate, and no leaf is across a border. */
static void cut(struct kunit *test, unsigned long npages, unsigned long first,
		unsigned long end)
{
	struct core_test *t = test->priv;
	unsigned long pfn = MOCK_PFN, i;

	KUNIT_ASSERT_EQ(test, core_map(test, BASE, npages, pfn, true), 0);
	if (t->mocks[0]->kind->pgsizes & (npages << PAGE_SHIFT))
		KUNIT_EXPECT_EQ(test, mock_largest_leaf(t->mocks[0], 0, ULONG_MAX),
				npages);
	for (i = 0; i < t->nr_domains; i++)
		KUNIT_EXPECT_EQ(test, core_split(test, i, BASE, npages,
						 BASE + first, BASE + end), 1);
	core_expect(test, BASE, npages, pfn, RW);

	/* The mock complains if a leaf is left across. */
	core_unmap(test, BASE + first, end - first, false);
	core_expect(test, BASE + first, end - first, 0, 0);
	if (first) {
		core_expect(test, BASE, first, pfn, RW);
		core_unmap(test, BASE, first, false);
	}
	if (end < npages) {
		core_expect(test, BASE + end, npages - end, pfn + end, RW);
		core_unmap(test, BASE + end, npages - end, false);
	}
	core_expect(test, 0, 2 * BASE, 0, 0);
}

static void cut_pmd(struct kunit *test)
{
	core_test_domain(test, test->param_value);
	cut(test, MOCK_PMD_PAGES, 0, 1);
	cut(test, MOCK_PMD_PAGES, 255, 256);
	cut(test, MOCK_PMD_PAGES, MOCK_PMD_PAGES - 1, MOCK_PMD_PAGES);
	cut(test, MOCK_PMD_PAGES, 0, 256);
	cut(test, MOCK_PMD_PAGES, 1, MOCK_PMD_PAGES - 1);
	cut(test, MOCK_PMD_PAGES, 17, 400);
}

static void cut_pud(struct kunit *test)
{
	core_test_domain(test, &mock_kinds[0]);
	cut(test, MOCK_PUD_PAGES, 0, 1);
	cut(test, MOCK_PUD_PAGES, MOCK_PUD_PAGES / 2 + 77, MOCK_PUD_PAGES / 2 + 78);
	cut(test, MOCK_PUD_PAGES, MOCK_PUD_PAGES - 1, MOCK_PUD_PAGES);
	/* Several pages over a border of a smaller size */
	cut(test, MOCK_PUD_PAGES, 509, 515);
}

static void cut_pud_calls(struct kunit *test)
{
	core_test_domain(test, &mock_kinds[5]);
	cut(test, MOCK_PUD_PAGES, 509, MOCK_PUD_PAGES - 3);
}

/* Only one end of the range is inside of the block. */
static void cut_one_end(struct kunit *test)
{
	unsigned long n = MOCK_PMD_PAGES;

	core_test_domain(test, test->param_value);
	KUNIT_ASSERT_EQ(test, core_map(test, BASE, 3 * n, MOCK_PFN, true), 0);
	core_cut(test, BASE + 100, BASE + 2 * n + 7);
	core_expect(test, BASE, 3 * n, MOCK_PFN, RW);
	core_unmap(test, BASE + 100, 2 * n - 93, false);
	core_expect(test, BASE, 100, MOCK_PFN, RW);
	core_expect(test, BASE + 100, 2 * n - 93, 0, 0);
	core_expect(test, BASE + 2 * n + 7, n - 7, MOCK_PFN + 2 * n + 7, RW);
	core_unmap(test, BASE, 100, false);
	core_unmap(test, BASE + 2 * n + 7, n - 7, false);
}

/* What is not one block of memory is not touched. */
static void cut_not_linear(struct kunit *test)
{
	struct mock_domain *mock = core_test_domain(test, test->param_value);
	unsigned long n = MOCK_PMD_PAGES, nr_map, nr_sync;

	/* Another page in the middle, at the end; not aligned physically */
	KUNIT_ASSERT_EQ(test, core_map(test, BASE, 256, MOCK_PFN, true), 0);
	KUNIT_ASSERT_EQ(test, core_map(test, BASE + 256, 1, MOCK_PFN, true), 0);
	KUNIT_ASSERT_EQ(test, core_map(test, BASE + 257, 255, MOCK_PFN + 257, true), 0);
	KUNIT_ASSERT_EQ(test, core_map(test, BASE + n, n - 1, MOCK_PFN, true), 0);
	KUNIT_ASSERT_EQ(test, core_map(test, BASE + 2 * n - 1, 1, MOCK_PFN, true), 0);
	KUNIT_ASSERT_EQ(test, core_map(test, BASE + 2 * n, n, MOCK_PFN + 1, true), 0);
	nr_map = mock->nr_map;
	nr_sync = mock->nr_sync;
	KUNIT_EXPECT_EQ(test, core_split(test, 0, BASE, n, BASE + 1, BASE + 2), 0);
	KUNIT_EXPECT_EQ(test, core_split(test, 0, BASE + n, n, BASE + n + 1,
					 BASE + n + 2), 0);
	KUNIT_EXPECT_EQ(test, core_split(test, 0, BASE + 2 * n, n,
					 BASE + 2 * n + 1, BASE + 2 * n + 2), 0);
	KUNIT_EXPECT_EQ(test, mock->nr_map, nr_map);
	KUNIT_EXPECT_EQ(test, mock->nr_sync, nr_sync);
	core_unmap(test, BASE, 256, false);
	core_unmap(test, BASE + 256, 1, false);
	core_unmap(test, BASE + 257, 255, false);
	core_unmap(test, BASE + n, n - 1, false);
	core_unmap(test, BASE + 2 * n - 1, 1, false);
	core_unmap(test, BASE + 2 * n, n, false);
}

/*
 * Pinning
 */

static const unsigned int pin_orders[] = { 9, 0 };

static void pin_get_desc(const unsigned int *order, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "order %u", *order);
}

KUNIT_ARRAY_PARAM(pin_order, pin_orders, pin_get_desc);

/*
 * Pin all that is there.  Checks that the extents are the pages in order and,
 * if @count is not NULL, counts them.  Returns the pages taken, all of which are
 * left pinned.
 */
static unsigned long pin_all(struct kunit *test, struct mock_memory *memory,
			     unsigned long npages, unsigned int max_steps,
			     unsigned int *count, int *ret)
{
	struct vfio_dma_extent extent;
	unsigned long done = 0, i;
	struct vfio_dma_pin pin;
	unsigned int steps = 0;

	if (count)
		*count = 0;
	*ret = 0;
	vfio_dma_pin_start(&pin, current->mm, memory->vaddr, npages, true);
	while (done < npages && steps++ < max_steps) {
		*ret = vfio_dma_pin_step(&pin);
		if (*ret)
			break;
		while (vfio_dma_pin_extent(&pin, &extent)) {
			KUNIT_EXPECT_FALSE(test, extent.pfnmap);
			KUNIT_ASSERT_LE(test, done + extent.npages, npages);
			for (i = 0; i < extent.npages; i++)
				if (extent.pfn + i != mock_memory_pfn(memory, done + i))
					break;
			KUNIT_EXPECT_EQ(test, i, extent.npages);
			done += extent.npages;
			if (count)
				(*count)++;
		}
	}
	vfio_dma_pin_finish(&pin);
	/* What was not taken is not pinned any more. */
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), done);
	for (i = 0; i < done; i++)
		vfio_dma_unpin(mock_memory_pfn(memory, i), 1, false);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);
	return done;
}

static void pin_extents(struct kunit *test)
{
	const unsigned int *order = test->param_value;
	struct mock_memory *memory = mock_memory_alloc(test, 2048, *order);
	unsigned int count, expected = 1;
	unsigned long i;
	int ret;

	/* Every second pair of pages changes places. */
	for (i = 0; !*order && i < memory->npages; i += 4)
		swap(memory->pages[i], memory->pages[i + 1]);
	for (i = 1; i < memory->npages; i++)
		expected += mock_memory_pfn(memory, i) !=
			    mock_memory_pfn(memory, i - 1) + 1;
	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);

	/* Contiguous pages are one extent, however many steps they took. */
	KUNIT_EXPECT_EQ(test, pin_all(test, memory, 2048, UINT_MAX, &count, &ret), 2048);
	KUNIT_EXPECT_EQ(test, ret, 0);
	KUNIT_EXPECT_EQ(test, count, expected);

	KUNIT_EXPECT_EQ(test, pin_all(test, memory, 1, UINT_MAX, NULL, &ret), 1);
	KUNIT_EXPECT_EQ(test, pin_all(test, memory, VFIO_DMA_PIN_INLINE, UINT_MAX,
				      NULL, &ret), VFIO_DMA_PIN_INLINE);
	KUNIT_EXPECT_EQ(test, pin_all(test, memory, VFIO_DMA_PIN_INLINE + 1,
				      UINT_MAX, NULL, &ret), VFIO_DMA_PIN_INLINE + 1);

	/* Given up after each step */
	for (i = 0; i < 5; i++)
		pin_all(test, memory, 2048, i, NULL, &ret);
}

/* User memory ends in the middle of the range. */
static void pin_hole(struct kunit *test)
{
	struct mock_memory *memory = mock_memory_alloc(test, 1024, 9);
	unsigned long done;
	int ret;

	memory->limit = 700;
	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);
	done = pin_all(test, memory, 1024, UINT_MAX, NULL, &ret);
	KUNIT_EXPECT_EQ(test, ret, -EFAULT);
	KUNIT_EXPECT_LE(test, done, 700);
	KUNIT_EXPECT_EQ(test, pin_all(test, memory, 700, UINT_MAX, NULL, &ret), 700);
	KUNIT_EXPECT_EQ(test, ret, 0);
}

static void pin_read_only(struct kunit *test)
{
	struct mock_memory *memory = mock_memory_alloc(test, 16, 4);
	struct vfio_dma_extent extent;
	struct vfio_dma_pin pin;
	int ret;

	mock_memory_map(test, memory, PROT_READ);
	KUNIT_EXPECT_EQ(test, pin_all(test, memory, 16, UINT_MAX, NULL, &ret), 0);
	KUNIT_EXPECT_EQ(test, ret, -EFAULT);

	vfio_dma_pin_start(&pin, current->mm, memory->vaddr, 16, false);
	KUNIT_EXPECT_EQ(test, vfio_dma_pin_step(&pin), 0);
	KUNIT_ASSERT_TRUE(test, vfio_dma_pin_extent(&pin, &extent));
	KUNIT_EXPECT_EQ(test, extent.pfn, mock_memory_pfn(memory, 0));
	KUNIT_EXPECT_EQ(test, extent.npages, 16);
	KUNIT_EXPECT_FALSE(test, vfio_dma_pin_extent(&pin, &extent));
	vfio_dma_pin_finish(&pin);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 16);
	vfio_dma_unpin(mock_memory_pfn(memory, 0), 16, false);
}

/* A file system that must know of each write before it happens */
static vm_fault_t mock_page_mkwrite(struct vm_fault *vmf)
{
	lock_page(vmf->page);
	return VM_FAULT_LOCKED;
}

static const struct vm_operations_struct mock_file_vm_ops = {
	.page_mkwrite = mock_page_mkwrite,
};

static int mock_file_mmap(struct file *file, struct vm_area_struct *vma)
{
	vma->vm_ops = &mock_file_vm_ops;
	return mock_mmap(file, vma);
}

static const struct file_operations mock_file_fops = {
	.owner	= THIS_MODULE,
	.mmap	= mock_file_mmap,
};

/* Pins last: no device writes to a file that is written back without its knowledge. */
static void pin_longterm(struct kunit *test)
{
	struct mock_memory *memory = mock_memory_alloc(test, 16, 4);
	struct page *page;
	int ret;

	memory->vaddr = mock_map_file(test, "[mock file]", &mock_file_fops, memory, 16,
				      PROT_READ | PROT_WRITE);
	KUNIT_EXPECT_EQ(test, pin_all(test, memory, 16, UINT_MAX, NULL, &ret), 0);
	KUNIT_EXPECT_EQ(test, ret, -EFAULT);
	KUNIT_EXPECT_FALSE(test, vfio_dma_pin_now(memory->vaddr, 1, true, &page));
	KUNIT_EXPECT_FALSE(test, vfio_dma_pin_present(current->mm, memory->vaddr, true,
						      &page));
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);

	/* What it reads is of no concern. */
	KUNIT_ASSERT_TRUE(test, vfio_dma_pin_now(memory->vaddr, 1, false, &page));
	vfio_dma_unpin(page_to_pfn(page), 1, false);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);
}

/* Device memory of 8 pages: its page frame is what the file says. */
static int mock_pfnmap_mmap(struct file *file, struct vm_area_struct *vma)
{
	return remap_pfn_range(vma, vma->vm_start,
			       *(unsigned long *)file->private_data,
			       vma->vm_end - vma->vm_start, vma->vm_page_prot);
}

static const struct file_operations mock_pfnmap_fops = {
	.owner	= THIS_MODULE,
	.mmap	= mock_pfnmap_mmap,
};

static void pin_pfnmap(struct kunit *test)
{
	struct mock_memory *memory = mock_memory_alloc(test, 8, 3);
	unsigned long pfn = MOCK_PFN, ram = mock_memory_pfn(memory, 0);
	struct vfio_dma_extent extent;
	struct vfio_dma_pin pin;
	unsigned long vaddr;

	vaddr = mock_map_file(test, "[mock device]", &mock_pfnmap_fops, &pfn, 8,
			      PROT_READ | PROT_WRITE);
	KUNIT_EXPECT_EQ(test, vfio_dma_count_pinnable(vaddr, 8), 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_count_pinnable(vaddr + 3 * PAGE_SIZE, 2), 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_count_pinnable(vaddr - 3 * PAGE_SIZE, 5) +
			vfio_dma_count_pinnable(vaddr + 6 * PAGE_SIZE, 3), 3 + 1);

	vfio_dma_pin_start(&pin, current->mm, vaddr, 8, true);
	while (pin.npages) {
		KUNIT_ASSERT_EQ(test, vfio_dma_pin_step(&pin), 0);
		if (pin.npages)
			KUNIT_EXPECT_FALSE(test, vfio_dma_pin_extent(&pin, &extent));
	}
	KUNIT_ASSERT_TRUE(test, vfio_dma_pin_extent(&pin, &extent));
	KUNIT_EXPECT_EQ(test, extent.pfn, MOCK_PFN);
	KUNIT_EXPECT_EQ(test, extent.npages, 8);
	KUNIT_EXPECT_TRUE(test, extent.pfnmap);
	vfio_dma_pin_finish(&pin);

	/* A device may not write to what the process may only read. */
	vaddr = mock_map_file(test, "[mock device]", &mock_pfnmap_fops, &pfn, 8,
			      PROT_READ);
	vfio_dma_pin_start(&pin, current->mm, vaddr, 1, true);
	KUNIT_EXPECT_EQ(test, vfio_dma_pin_step(&pin), -EFAULT);
	vfio_dma_pin_finish(&pin);
	vfio_dma_pin_start(&pin, current->mm, vaddr, 1, false);
	KUNIT_EXPECT_EQ(test, vfio_dma_pin_step(&pin), 0);
	KUNIT_EXPECT_TRUE(test, vfio_dma_pin_extent(&pin, &extent));
	vfio_dma_pin_finish(&pin);

	/* Ordinary memory must be pinned, and this way cannot be. */
	vaddr = mock_map_file(test, "[mock device]", &mock_pfnmap_fops, &ram, 8,
			      PROT_READ | PROT_WRITE);
	vfio_dma_pin_start(&pin, current->mm, vaddr, 8, true);
	KUNIT_EXPECT_EQ(test, vfio_dma_pin_step(&pin), -EFAULT);
	vfio_dma_pin_finish(&pin);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);
}

/* Memory and device memory side by side: extents do not mix. */
static void pin_mixed(struct kunit *test)
{
	struct mock_memory *memory = mock_memory_alloc(test, 8, 3);
	unsigned long pfn = MOCK_PFN, done = 0, npages, ordinary = 0, device = 0;
	struct vfio_dma_extent extent;
	struct vfio_dma_pin pin;
	struct file *file;
	unsigned long vaddr;

	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);
	/* In place of pages 2 to 4 */
	file = anon_inode_getfile("[mock device]", &mock_pfnmap_fops, &pfn, O_RDWR);
	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	vaddr = vm_mmap(file, memory->vaddr + 2 * PAGE_SIZE, 3 * PAGE_SIZE,
			PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, 0);
	fput(file);
	KUNIT_ASSERT_EQ(test, vaddr, memory->vaddr + 2 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, vfio_dma_count_pinnable(memory->vaddr, 8), 5);
	KUNIT_EXPECT_EQ(test, vfio_dma_count_pinnable(memory->vaddr + PAGE_SIZE, 3), 1);

	for (npages = 1; npages <= 8; npages++) {
		done = 0;
		ordinary = 0;
		device = 0;
		vfio_dma_pin_start(&pin, current->mm, memory->vaddr, npages, true);
		while (done < npages) {
			KUNIT_ASSERT_EQ(test, vfio_dma_pin_step(&pin), 0);
			while (vfio_dma_pin_extent(&pin, &extent)) {
				KUNIT_EXPECT_EQ(test, extent.pfnmap,
						done >= 2 && done < 5);
				KUNIT_EXPECT_EQ(test, extent.pfn, extent.pfnmap ? MOCK_PFN :
						mock_memory_pfn(memory, done));
				if (extent.pfnmap)
					device += extent.npages;
				else
					ordinary += extent.npages;
				if (!extent.pfnmap)
					vfio_dma_unpin(extent.pfn, extent.npages, false);
				done += extent.npages;
			}
		}
		vfio_dma_pin_finish(&pin);
		KUNIT_EXPECT_EQ(test, device, clamp(npages, 2UL, 5UL) - 2);
		KUNIT_EXPECT_EQ(test, ordinary + device, npages);
		KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);
	}
}

/*
 * Unmapping what is pinned
 */

/* Pin a page for each IOVA page and map them, extent by extent. */
static void core_pin_map(struct kunit *test, struct mock_memory *memory,
			 unsigned long first, bool big)
{
	struct vfio_dma_extent extent;
	unsigned long done = 0;
	struct vfio_dma_pin pin;

	vfio_dma_pin_start(&pin, current->mm, memory->vaddr, memory->npages, true);
	while (done < memory->npages) {
		KUNIT_ASSERT_EQ(test, vfio_dma_pin_step(&pin), 0);
		while (vfio_dma_pin_extent(&pin, &extent)) {
			KUNIT_ASSERT_EQ(test, core_map(test, first + done,
						       extent.npages, extent.pfn,
						       big), 0);
			done += extent.npages;
		}
	}
	vfio_dma_pin_finish(&pin);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), memory->npages);
}

/* Each page an extent of its own, and more of them than a batch holds */
static void unmap_batches(struct kunit *test)
{
	struct mock_domain *mock = core_test_domain(test, test->param_value);
	struct mock_memory *memory = mock_memory_alloc(test, 3 * VFIO_DMA_BATCH_EXTENTS + 7, 0);
	struct core_test *t = test->priv;
	unsigned long i, nr_sync;

	for (i = 0; i + 1 < memory->npages; i += 2)
		swap(memory->pages[i], memory->pages[i + 1]);
	for (i = 0; i + 2 < memory->npages; i++)
		if (mock_memory_pfn(memory, i) + 1 == mock_memory_pfn(memory, i + 1))
			swap(memory->pages[i + 1], memory->pages[i + 2]);
	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);
	core_pin_map(test, memory, BASE, false);

	nr_sync = mock->nr_sync;
	KUNIT_EXPECT_EQ(test, core_unmap(test, BASE, memory->npages, true), memory->npages);
	core_expect(test, BASE, memory->npages, 0, 0);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);
	KUNIT_EXPECT_EQ(test, t->space.nr_batch, 0);
	if (!mock->kind->sync_disjoint)
		KUNIT_EXPECT_LE(test, mock->nr_sync - nr_sync, 4);

	/* What is not pinned is not unpinned. */
	core_pin_map(test, memory, BASE, false);
	KUNIT_EXPECT_EQ(test, core_unmap(test, BASE, memory->npages, false), 0);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), memory->npages);
	for (i = 0; i < memory->npages; i++)
		vfio_dma_unpin(mock_memory_pfn(memory, i), 1, false);
}

static void unmap_dirties(struct kunit *test)
{
	struct mock_memory *memory = mock_memory_alloc(test, 2, 1);
	struct core_test *t = test->priv;
	unsigned int i;

	core_test_domain(test, &mock_kinds[0]);
	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);
	core_pin_map(test, memory, BASE, false);
	for (i = 0; i < 2; i++)
		ClearPageDirty(memory->pages[i]);
	mutex_lock(&t->lock);
	vfio_dma_unmap(&t->space, BASE << PAGE_SHIFT, 1, VFIO_DMA_PINNED);
	vfio_dma_unmap(&t->space, (BASE + 1) << PAGE_SHIFT, 1,
		       VFIO_DMA_PINNED | VFIO_DMA_DIRTY);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 2);
	vfio_dma_unmap_flush(&t->space);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);
	KUNIT_EXPECT_FALSE(test, PageDirty(memory->pages[0]));
	KUNIT_EXPECT_TRUE(test, PageDirty(memory->pages[1]));
	ClearPageDirty(memory->pages[1]);
}

/* One look-up for each block that is known to be contiguous */
static void unmap_contig(struct kunit *test)
{
	unsigned long n = MOCK_PMD_PAGES, first = 3, end = 2 * n + 5, i, nr_lookups;
	struct mock_memory *memory = mock_memory_alloc(test, 3 * n, 9);
	struct mock_domain *mock = core_test_domain(test, test->param_value);
	struct core_test *t = test->priv;

	KUNIT_ASSERT_EQ(test, VFIO_DMA_CONTIG, n);
	swap(memory->pages[2 * n + 1], memory->pages[2 * n + 2]);
	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);
	core_pin_map(test, memory, BASE, true);
	core_cut(test, BASE + first, BASE + end);

	mutex_lock(&t->lock);
	nr_lookups = mock->nr_lookups;
	KUNIT_EXPECT_EQ(test, vfio_dma_unmap(&t->space, (BASE + first) << PAGE_SHIFT,
					     2 * n - first, VFIO_DMA_PINNED | VFIO_DMA_IS_CONTIG),
			2 * n - first);
	/* which itself looks each page up */
	if (!IS_ENABLED(CONFIG_IOMMU_DEBUG_PAGEALLOC))
		KUNIT_EXPECT_LE(test, mock->nr_lookups - nr_lookups, 4);
	KUNIT_EXPECT_EQ(test, vfio_dma_unmap(&t->space, (BASE + 2 * n) << PAGE_SHIFT, 5,
					     VFIO_DMA_PINNED), 5);
	vfio_dma_unmap_flush(&t->space);
	mutex_unlock(&t->lock);

	for (i = 0; i < memory->npages; i++)
		if (mock_pins(mock_memory_pfn(memory, i)) != (i < first || i >= end))
			break;
	KUNIT_EXPECT_EQ(test, i, memory->npages);
	core_unmap(test, BASE, first, true);
	core_unmap(test, BASE + end, memory->npages - end, true);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);
	core_expect(test, BASE, memory->npages, 0, 0);
}

/* A driver that does not do as it is told: the pages could still be in use. */
static void unmap_short(struct kunit *test)
{
	struct mock_domain *mock = core_test_domain(test, &mock_kinds[0]);
	struct mock_memory *memory = mock_memory_alloc(test, 4, 2);
	struct core_test *t = test->priv;
	unsigned long i;

	/* Extents of one page */
	swap(memory->pages[0], memory->pages[1]);
	swap(memory->pages[2], memory->pages[3]);
	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);
	core_pin_map(test, memory, BASE, false);
	/* What is in the batch already, and what comes after, is not concerned. */
	mutex_lock(&t->lock);
	KUNIT_EXPECT_EQ(test, vfio_dma_unmap(&t->space, BASE << PAGE_SHIFT, 1, VFIO_DMA_PINNED), 1);
	mock->fail_unmap = 1;
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, vfio_dma_unmap(&t->space, (BASE + 1) << PAGE_SHIFT, 2,
						     VFIO_DMA_PINNED), 0);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_EQ(test, vfio_dma_unmap(&t->space, (BASE + 3) << PAGE_SHIFT, 1,
					     VFIO_DMA_PINNED), 1);
	vfio_dma_unmap_flush(&t->space);
	mutex_unlock(&t->lock);
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_EQ(test, mock_pins(mock_memory_pfn(memory, i)), i == 1 || i == 2);
	core_expect(test, BASE + 1, 1, mock_memory_pfn(memory, 1), RW);
	core_expect(test, BASE + 2, 1, mock_memory_pfn(memory, 2), RW);
	KUNIT_EXPECT_EQ(test, core_unmap(test, BASE + 1, 2, true), 2);
	core_expect(test, BASE, 4, 0, 0);
}

/* The rest of a divided block cannot be mapped back. */
static void cut_lost(struct kunit *test)
{
	struct mock_domain *mock = core_test_domain(test, test->param_value);
	struct mock_memory *memory = mock_memory_alloc(test, 2 * MOCK_PMD_PAGES, 10);
	unsigned long first = BASE + MOCK_PMD_PAGES + 3, npages = memory->npages;
	unsigned long block, n, pfn, nth;
	struct core_test *t = test->priv;
	struct vfio_dma_extent extent;
	struct mock_leaf *leaf;
	int ret;

	core_test_domain(test, &mock_kinds[0]);
	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);
	pfn = mock_memory_pfn(memory, 0);

	for (nth = 1; ; nth = mock_next_failure(nth)) {
		core_pin_map(test, memory, BASE, true);
		leaf = mock_leaf_at(mock, first);
		KUNIT_ASSERT_NOT_NULL(test, leaf);
		n = max(leaf->last - leaf->first + 1, MOCK_PMD_PAGES);
		block = round_down(first, n);
		mock->fail_map = nth;
		ret = core_split(test, 0, block, n, first, first + 2);
		if (ret == 1)
			break;
		KUNIT_ASSERT_EQ(test, ret, -EIO);

		/* It is known what it was until it is unmapped. */
		KUNIT_EXPECT_TRUE(test, mock_translates(mock, block, block + n - 1, 0, 0));
		if (block > BASE)
			KUNIT_EXPECT_TRUE(test, mock_translates(mock, BASE, block - 1, pfn, RW));
		mutex_lock(&t->lock);
		KUNIT_EXPECT_TRUE(test, vfio_dma_domain_lookup(&t->domains[0],
							       (dma_addr_t)BASE << PAGE_SHIFT,
							       npages, false, &extent));
		KUNIT_EXPECT_EQ(test, extent.pfn, pfn);
		KUNIT_EXPECT_EQ(test, extent.npages, npages);
		mutex_unlock(&t->lock);
		KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), npages);

		/* All of the pages, and none of them twice */
		KUNIT_EXPECT_EQ(test, core_unmap(test, BASE, npages, true), npages);
		mutex_lock(&t->lock);
		vfio_dma_forget_lost(&t->space);
		mutex_unlock(&t->lock);
		KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);
		core_expect(test, 0, 2 * BASE, 0, 0);
	}
	KUNIT_EXPECT_GT(test, nth, 3);
	mock->fail_map = 0;
	core_cut(test, first, first + 2);
	core_unmap(test, first, 2, true);
	core_unmap(test, BASE, first - BASE, true);
	core_unmap(test, first + 2, BASE + npages - first - 2, true);
	core_expect(test, 0, 2 * BASE, 0, 0);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);
}

/* A part of the rest can be mapped back, but neither all nor none of it. */
static void cut_stuck(struct kunit *test)
{
	struct mock_domain *mock = core_test_domain(test, &mock_kinds[0]);
	struct mock_memory *memory = mock_memory_alloc(test, MOCK_PMD_PAGES, 9);
	unsigned long npages = memory->npages, i, nth, index;
	struct core_test *t = test->priv;
	struct mock_leaf *leaf;

	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);
	/*
	 * The first part is mapped.  Of the second, half is; then that half stays, as
	 * the IOMMU core is not told to unmap it, or the first part does.
	 */
	for (nth = 2; nth <= 3; nth++) {
		core_pin_map(test, memory, BASE, true);
		KUNIT_ASSERT_EQ(test, mock_largest_leaf(mock, 0, ULONG_MAX), npages);
		mock->fail_map = 2;
		mock->fail_unmap = nth;
		kunit_warning_suppress(test) {
			KUNIT_EXPECT_EQ(test, core_split(test, 0, BASE, npages, BASE + 7,
							 BASE + 9), -EIO);
			KUNIT_EXPECT_EQ(test, KUNIT_SUPPRESSED_WARNING_COUNT(), 1);
		}
		index = BASE;
		leaf = mt_find(&mock->leaves, &index, BASE + npages - 1);
		KUNIT_EXPECT_NOT_NULL(test, leaf);
		KUNIT_EXPECT_EQ(test, core_unmap(test, BASE, npages, true), 0);
		mutex_lock(&t->lock);
		vfio_dma_forget_lost(&t->space);
		mutex_unlock(&t->lock);
		KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), npages);

		index = BASE;
		mt_for_each(&mock->leaves, leaf, index, BASE + npages - 1)
			iommu_unmap(&mock->domain, leaf->first << PAGE_SHIFT,
				    (leaf->last - leaf->first + 1) << PAGE_SHIFT);
		for (i = 0; i < npages; i++)
			vfio_dma_unpin(mock_memory_pfn(memory, i), 1, false);
		core_expect(test, 0, 2 * BASE, 0, 0);
	}
}

/* The driver does not even unmap the block that is to be divided. */
static void cut_short(struct kunit *test)
{
	struct mock_domain *mock = core_test_domain(test, &mock_kinds[0]);
	struct core_test *t = test->priv;

	KUNIT_ASSERT_EQ(test, core_map(test, BASE, MOCK_PMD_PAGES, MOCK_PFN, true), 0);
	mock->fail_unmap = 1;
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, core_split(test, 0, BASE, MOCK_PMD_PAGES,
						 BASE + 1, BASE + 2), -EIO);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	core_expect(test, BASE, MOCK_PMD_PAGES, MOCK_PFN, RW);
	/* What it may still translate is left to the end of the domain. */
	core_unmap(test, BASE, MOCK_PMD_PAGES, false);
	core_expect(test, BASE, MOCK_PMD_PAGES, MOCK_PFN, RW);
	mutex_lock(&t->lock);
	vfio_dma_forget_lost(&t->space);
	mutex_unlock(&t->lock);
	iommu_unmap(&mock->domain, BASE << PAGE_SHIFT, MOCK_PMD_PAGES << PAGE_SHIFT);
}

/* Domains with other page sizes, each cut where its own leaves are */
static void two_domains(struct kunit *test)
{
	struct mock_memory *memory = mock_memory_alloc(test, 2 * MOCK_PMD_PAGES, 10);
	struct mock_domain *mock;

	mock = core_test_domain(test, &mock_kinds[0]);
	core_test_domain(test, test->param_value);
	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);
	core_pin_map(test, memory, BASE, true);
	KUNIT_EXPECT_EQ(test, mock_largest_leaf(mock, 0, ULONG_MAX), MOCK_PMD_PAGES);
	core_expect(test, BASE, 2 * MOCK_PMD_PAGES, mock_memory_pfn(memory, 0), RW);

	core_cut(test, BASE + 19, BASE + 20);
	KUNIT_EXPECT_EQ(test, core_unmap(test, BASE + 19, 1, true), 1);
	core_expect(test, BASE + 19, 1, 0, 0);
	KUNIT_EXPECT_EQ(test, core_unmap(test, BASE, 19, true), 19);
	KUNIT_EXPECT_EQ(test, core_unmap(test, BASE + 20, 2 * MOCK_PMD_PAGES - 20, true),
			2 * MOCK_PMD_PAGES - 20);
	core_expect(test, 0, 2 * BASE, 0, 0);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);
}

/*
 * Owner and locked memory
 */

static unsigned long locked(void)
{
	return current->mm->locked_vm;
}

/* Take CAP_IPC_LOCK from the test's own thread, or give it back. */
static void set_ipc_lock(struct kunit *test, bool on)
{
	struct cred *cred = prepare_creds();

	KUNIT_ASSERT_NOT_NULL(test, cred);
	if (on)
		cap_raise(cred->cap_effective, CAP_IPC_LOCK);
	else
		cap_lower(cred->cap_effective, CAP_IPC_LOCK);
	commit_creds(cred);
	KUNIT_ASSERT_EQ(test, capable(CAP_IPC_LOCK), on);
}

static void charge(struct kunit *test)
{
	struct vfio_dma_owner owner = {};
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;

	KUNIT_ASSERT_EQ(test, kunit_attach_mm(), 0);
	KUNIT_ASSERT_EQ(test, locked(), 0);
	KUNIT_ASSERT_GT(test, limit, 8);
	vfio_dma_owner_clear(&owner);
	vfio_dma_owner_set(&owner);
	KUNIT_EXPECT_PTR_EQ(test, owner.mm, current->mm);

	/* To the limit, and not a page beyond */
	set_ipc_lock(test, false);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 0), 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, limit + 1), -ENOMEM);
	KUNIT_EXPECT_EQ(test, locked(), 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, limit - 3), 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 4), -ENOMEM);
	KUNIT_EXPECT_EQ(test, owner.npages, limit - 3);
	KUNIT_EXPECT_EQ(test, locked(), limit - 3);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 3), 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 1), -ENOMEM);
	KUNIT_EXPECT_EQ(test, locked(), limit);

	vfio_dma_uncharge(&owner, 0);
	vfio_dma_uncharge(&owner, limit - 1);
	KUNIT_EXPECT_EQ(test, owner.npages, 1);
	KUNIT_EXPECT_EQ(test, locked(), 1);

	/* Who may lock anything, for as long as that is so */
	set_ipc_lock(test, true);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 2 * limit), 0);
	KUNIT_EXPECT_EQ(test, locked(), 2 * limit + 1);
	set_ipc_lock(test, false);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 1), -ENOMEM);
	KUNIT_EXPECT_EQ(test, owner.npages, 2 * limit + 1);
	KUNIT_EXPECT_EQ(test, locked(), 2 * limit + 1);
	set_ipc_lock(test, true);

	/* What is still charged goes with the owner. */
	vfio_dma_owner_clear(&owner);
	KUNIT_EXPECT_EQ(test, locked(), 0);
	KUNIT_EXPECT_NULL(test, owner.mm);
}

/* Another process took what is mapped over. */
static void owner_moves(struct kunit *test)
{
	struct vfio_dma_owner owner = {};
	struct mm_struct *mm = mm_alloc();

	KUNIT_ASSERT_NOT_NULL(test, mm);
	KUNIT_ASSERT_EQ(test, kunit_attach_mm(), 0);
	vfio_dma_owner_set(&owner);
	mmdrop(owner.mm);
	mmgrab(mm);
	owner.mm = mm;
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 12), 0);
	KUNIT_EXPECT_EQ(test, mm->locked_vm, 12);

	KUNIT_EXPECT_EQ(test, vfio_dma_owner_move(&owner), 0);
	KUNIT_EXPECT_PTR_EQ(test, owner.mm, current->mm);
	KUNIT_EXPECT_EQ(test, owner.npages, 12);
	KUNIT_EXPECT_EQ(test, locked(), 12);
	KUNIT_EXPECT_EQ(test, mm->locked_vm, 0);
	vfio_dma_owner_clear(&owner);
	KUNIT_EXPECT_EQ(test, locked(), 0);
	mmput(mm);
}

/* The owner is gone, its address space with it: nothing to give back. */
static void owner_gone(struct kunit *test)
{
	struct vfio_dma_owner owner = {};
	struct mm_struct *mm = mm_alloc();

	KUNIT_ASSERT_NOT_NULL(test, mm);
	KUNIT_ASSERT_EQ(test, kunit_attach_mm(), 0);
	vfio_dma_owner_set(&owner);
	mmdrop(owner.mm);
	mmgrab(mm);
	owner.mm = mm;
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 12), 0);
	mmput(mm);
	vfio_dma_uncharge(&owner, 5);
	KUNIT_EXPECT_EQ(test, owner.npages, 7);
	vfio_dma_owner_clear(&owner);
	KUNIT_EXPECT_EQ(test, locked(), 0);
}

/*
 * Dirty bits
 */

static const struct mock_kind dirty_kind = {
	.pgsizes = PAGE_SIZE | PAGE_SIZE << 9, .dirty = true,
};

/* Pages that have been written to, from the first to the last, as from BASE on */
static void core_take(struct kunit *test, unsigned long first,
		      unsigned long npages, long expected_first,
		      long expected_last)
{
	struct core_test *t = test->priv;
	dma_addr_t from, to;
	bool dirty;

	mutex_lock(&t->lock);
	dirty = vfio_dma_domain_take_dirty(&t->domains[0],
					   (BASE + first) << PAGE_SHIFT, npages,
					   &from, &to);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_EQ(test, dirty, expected_first >= 0);
	if (!dirty)
		return;
	KUNIT_EXPECT_EQ(test, (from >> PAGE_SHIFT) - BASE, expected_first);
	KUNIT_EXPECT_EQ(test, (to >> PAGE_SHIFT) - BASE, expected_last);
}

static void track_take(struct kunit *test)
{
	struct core_test *t = test->priv;
	struct mock_domain *mock = core_test_domain(test, &dirty_kind);

	KUNIT_EXPECT_TRUE(test, vfio_dma_domain_can_track(&t->domains[0]));
	KUNIT_EXPECT_EQ(test, core_map(test, BASE, 1024, MOCK_PFN, true), 0);
	KUNIT_EXPECT_EQ(test, core_map(test, BASE + 1024, 64, MOCK_PFN + 1, false), 0);
	KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 3));
	mutex_lock(&t->lock);
	vfio_dma_domain_track(&t->domains[0], true);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_TRUE(test, t->domains[0].tracking);
	core_take(test, 0, 1088, -1, -1);

	/* A superpage as a whole, once each time, and not the other one */
	KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 3));
	core_take(test, 512, 576, -1, -1);
	core_take(test, 0, 512, 0, 511);
	core_take(test, 0, 512, -1, -1);
	KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 3));
	KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 1030));
	core_take(test, 512, 576, 1030, 1030);
	core_take(test, 0, 1088, 0, 511);

	/* All that lies between them, too, if there are several */
	KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 1030));
	KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 1050));
	core_take(test, 1024, 64, 1030, 1050);

	/* An IOMMU that does not answer says that all is dirty. */
	mock->fail_read = true;
	core_take(test, 16, 16, 16, 31);
	mock->fail_read = false;

	mutex_lock(&t->lock);
	vfio_dma_domain_track(&t->domains[0], false);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_FALSE(test, t->domains[0].tracking);
	KUNIT_EXPECT_FALSE(test, mock->tracking);
	core_unmap(test, BASE, 1088, false);
}

/* Read, and perhaps clear, 1,024 pages from BASE on. */
static int core_read(struct kunit *test, bool clear)
{
	struct core_test *t = test->priv;
	int ret;

	mutex_lock(&t->lock);
	ret = vfio_dma_domain_read_dirty(&t->domains[0], BASE << PAGE_SHIFT,
					 1024, clear, NULL);
	vfio_dma_unmap_flush(&t->space);
	mutex_unlock(&t->lock);
	return ret;
}

/* Reading leaves the bits, or clears them with the next flush. */
static void track_read(struct kunit *test)
{
	struct core_test *t = test->priv;
	struct mock_domain *mock = core_test_domain(test, &dirty_kind);
	unsigned long nr_sync;
	unsigned int i;

	KUNIT_EXPECT_EQ(test, core_map(test, BASE, 1024, MOCK_PFN, true), 0);
	mutex_lock(&t->lock);
	vfio_dma_domain_track(&t->domains[0], true);
	mutex_unlock(&t->lock);
	for (i = 0; i < 2; i++) {
		KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 700));
		nr_sync = mock->nr_sync;
		KUNIT_EXPECT_EQ(test, core_read(test, i), 0);
		KUNIT_EXPECT_EQ(test, mock->nr_sync - nr_sync, i);
		KUNIT_EXPECT_EQ(test, mock_leaf_at(mock, BASE + 700)->dirty, !i);
	}
	mock->fail_read = true;
	KUNIT_EXPECT_EQ(test, core_read(test, true), -EIO);
	core_unmap(test, BASE, 1024, false);
}

static void track_not(struct kunit *test)
{
	struct core_test *t = test->priv;
	struct mock_domain *mock = core_test_domain(test, &dirty_kind);

	core_test_domain(test, &mock_kinds[0]);
	KUNIT_EXPECT_FALSE(test, vfio_dma_domain_can_track(&t->domains[1]));
	mock->fail_track = true;
	mutex_lock(&t->lock);
	vfio_dma_domain_track(&t->domains[0], true);
	vfio_dma_domain_track(&t->domains[1], true);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_FALSE(test, t->domains[0].tracking);
	KUNIT_EXPECT_FALSE(test, t->domains[1].tracking);
}

/* A single page that the driver does not unmap is not unpinned, now or later. */
static void unmap_page_short(struct kunit *test)
{
	struct mock_domain *mock = core_test_domain(test, &mock_kinds[0]);
	struct mock_memory *memory = mock_memory_alloc(test, 1, 0);
	struct core_test *t = test->priv;

	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);
	core_pin_map(test, memory, BASE, false);
	mutex_lock(&t->lock);
	mock->fail_unmap = 1;
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, vfio_dma_unmap(&t->space, BASE << PAGE_SHIFT, 1,
						     VFIO_DMA_PINNED), 0);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	vfio_dma_unmap_flush(&t->space);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 1);
	core_expect(test, BASE, 1, mock_memory_pfn(memory, 0), RW);
	KUNIT_EXPECT_EQ(test, core_unmap(test, BASE, 1, true), 1);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);
}

/* Who uncharges another address space lets go of it again. */
static void uncharge_keeps_users(struct kunit *test)
{
	struct vfio_dma_owner owner = {};
	struct mm_struct *mm = mm_alloc();

	KUNIT_ASSERT_NOT_NULL(test, mm);
	KUNIT_ASSERT_EQ(test, kunit_attach_mm(), 0);
	vfio_dma_owner_set(&owner);
	mmdrop(owner.mm);
	mmgrab(mm);
	owner.mm = mm;
	owner.lock_cap = true;
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 12), 0);
	vfio_dma_uncharge(&owner, 5);
	KUNIT_EXPECT_EQ(test, mm->locked_vm, 7);
	KUNIT_EXPECT_EQ(test, atomic_read(&mm->mm_users), 1);
	vfio_dma_owner_clear(&owner);
	KUNIT_EXPECT_EQ(test, mm->locked_vm, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&mm->mm_users), 1);
	mmput(mm);
}

static struct kunit_case core_cases[] = {
	KUNIT_CASE(mock_notices),
	KUNIT_CASE_PARAM(probe, kind_gen_params),
	KUNIT_CASE(page_sizes),
	KUNIT_CASE_PARAM(map_extent, kind_gen_params),
	KUNIT_CASE_PARAM(small_unmaps_anywhere, kind_gen_params),
	KUNIT_CASE_PARAM(map_fails, kind_gen_params),
	KUNIT_CASE_PARAM(map_fails_stuck, kind_gen_params),
	KUNIT_CASE_PARAM(pfn_zero, kind_gen_params),
	KUNIT_CASE_PARAM(cut_pmd, kind_gen_params),
	KUNIT_CASE_SLOW(cut_pud),
	KUNIT_CASE_SLOW(cut_pud_calls),
	KUNIT_CASE_PARAM(cut_one_end, kind_gen_params),
	KUNIT_CASE_PARAM(cut_not_linear, kind_gen_params),
	KUNIT_CASE_PARAM(cut_lost, kind_gen_params),
	KUNIT_CASE(cut_short),
	KUNIT_CASE(cut_stuck),
	KUNIT_CASE_PARAM(two_domains, kind_gen_params),
	KUNIT_CASE_PARAM(pin_extents, pin_order_gen_params),
	KUNIT_CASE(pin_hole),
	KUNIT_CASE(pin_read_only),
	KUNIT_CASE(pin_longterm),
	KUNIT_CASE(pin_pfnmap),
	KUNIT_CASE(pin_mixed),
	KUNIT_CASE_PARAM(unmap_batches, kind_gen_params),
	KUNIT_CASE(unmap_dirties),
	KUNIT_CASE_PARAM(unmap_contig, kind_gen_params),
	KUNIT_CASE(unmap_short),
	KUNIT_CASE(charge),
	KUNIT_CASE(owner_moves),
	KUNIT_CASE(owner_gone),
	KUNIT_CASE(track_take),
	KUNIT_CASE(track_read),
	KUNIT_CASE(track_not),
	KUNIT_CASE(unmap_page_short),
	KUNIT_CASE(uncharge_keeps_users),
	{}
};

static struct kunit_suite core_suite = {
	.name		= "vfio_dma_core",
	.init		= core_test_init,
	.exit		= core_test_exit,
	.test_cases	= core_cases,
};

kunit_test_suite(core_suite);

MODULE_DESCRIPTION("KUnit tests of the VFIO map and unmap core");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_IMPORT_NS("VFIO_DMA");
MODULE_IMPORT_NS("IOMMUFD");
