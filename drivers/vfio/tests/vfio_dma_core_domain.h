/* SPDX-License-Identifier: GPL-2.0-only */
/* KUnit tests of domains and spaces: map, unmap and cut */
#ifndef _VFIO_DMA_CORE_DOMAIN_H
#define _VFIO_DMA_CORE_DOMAIN_H

#include "vfio_dma_core_rig.h"

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
	vfio_dma_space_add(space, &t->domains[0]);
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
	vfio_dma_space_del(space, &t->domains[0]);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_EQ(test, space->pgsize_bitmap, PAGE_MASK);
	KUNIT_EXPECT_EQ(test, space->superpage, PAGE_SIZE << 1);

	/* Pages larger than the CPU's */
	mock->domain.pgsize_bitmap = large.pgsizes;
	mutex_lock(&t->lock);
	vfio_dma_space_add(space, &t->domains[0]);
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
				ret = vfio_dma_space_map_pages(&t->space, BASE << PAGE_SHIFT,
							       first, npages, RW);
			else
				ret = vfio_dma_space_map(&t->space, BASE << PAGE_SHIFT,
							 &extent, RW, false);
			KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
			MOCK_EXPECT_WARNED(test);
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
	KUNIT_EXPECT_EQ(test, vfio_dma_space_map_pages(&t->space, BASE << PAGE_SHIFT, pages,
						       npages, RW), -ENOMEM);
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
	KUNIT_ASSERT_EQ(test, vfio_dma_space_map(&t->space, BASE << PAGE_SHIFT, &extent,
						 RW, true), 0);

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

#endif /* _VFIO_DMA_CORE_DOMAIN_H */
