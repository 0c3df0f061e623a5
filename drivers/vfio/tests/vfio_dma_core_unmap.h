/* SPDX-License-Identifier: GPL-2.0-only */
/* KUnit tests of unmapping what is pinned */
#ifndef _VFIO_DMA_CORE_UNMAP_H
#define _VFIO_DMA_CORE_UNMAP_H

#include "vfio_dma_core_rig.h"

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
	struct mock_memory *memory = mock_memory_alloc(test, 3 * VFIO_DMA_UNPIN_EXTENTS + 7, 0);
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
	KUNIT_EXPECT_EQ(test, t->space.nr_unpin, 0);
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
	vfio_dma_space_unmap(&t->space, BASE << PAGE_SHIFT, 1, VFIO_DMA_PINNED);
	vfio_dma_space_unmap(&t->space, (BASE + 1) << PAGE_SHIFT, 1,
			     VFIO_DMA_PINNED | VFIO_DMA_MAY_BE_DIRTY);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 2);
	vfio_dma_space_flush(&t->space);
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
	struct core_test *t = test->priv;
	struct mock_memory *memory;
	struct mock_domain *mock;

	if (n != VFIO_DMA_CONTIG_PAGES)
		kunit_skip(test, "as many pages as a PMD maps are not to be had in one piece");
	memory = mock_memory_alloc(test, 3 * n, 9);
	mock = core_test_domain(test, test->param_value);
	swap(memory->pages[2 * n + 1], memory->pages[2 * n + 2]);
	mock_memory_map(test, memory, PROT_READ | PROT_WRITE);
	core_pin_map(test, memory, BASE, true);
	core_cut(test, BASE + first, BASE + end);

	mutex_lock(&t->lock);
	nr_lookups = mock->nr_lookups;
	KUNIT_EXPECT_EQ(test, vfio_dma_space_unmap(&t->space, (BASE + first) << PAGE_SHIFT,
						   2 * n - first,
						   VFIO_DMA_PINNED | VFIO_DMA_IS_CONTIG),
			2 * n - first);
	/* which itself looks each page up */
	if (!IS_ENABLED(CONFIG_IOMMU_DEBUG_PAGEALLOC))
		KUNIT_EXPECT_LE(test, mock->nr_lookups - nr_lookups, 4);
	KUNIT_EXPECT_EQ(test, vfio_dma_space_unmap(&t->space, (BASE + 2 * n) << PAGE_SHIFT, 5,
						   VFIO_DMA_PINNED), 5);
	vfio_dma_space_flush(&t->space);
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
	KUNIT_EXPECT_EQ(test, vfio_dma_space_unmap(&t->space, BASE << PAGE_SHIFT, 1,
						   VFIO_DMA_PINNED), 1);
	mock->fail_unmap = 1;
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, vfio_dma_space_unmap(&t->space, (BASE + 1) << PAGE_SHIFT, 2,
							   VFIO_DMA_PINNED), 0);
		MOCK_EXPECT_WARNED(test);
	}
	KUNIT_EXPECT_EQ(test, vfio_dma_space_unmap(&t->space, (BASE + 3) << PAGE_SHIFT, 1,
						   VFIO_DMA_PINNED), 1);
	vfio_dma_space_flush(&t->space);
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
		vfio_dma_space_forget_lost(&t->space);
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
			MOCK_EXPECT_WARNED(test);
		}
		index = BASE;
		leaf = mt_find(&mock->leaves, &index, BASE + npages - 1);
		KUNIT_EXPECT_NOT_NULL(test, leaf);
		KUNIT_EXPECT_EQ(test, core_unmap(test, BASE, npages, true), 0);
		mutex_lock(&t->lock);
		vfio_dma_space_forget_lost(&t->space);
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
		MOCK_EXPECT_WARNED(test);
	}
	core_expect(test, BASE, MOCK_PMD_PAGES, MOCK_PFN, RW);
	/* What it may still translate is left to the end of the domain. */
	core_unmap(test, BASE, MOCK_PMD_PAGES, false);
	core_expect(test, BASE, MOCK_PMD_PAGES, MOCK_PFN, RW);
	mutex_lock(&t->lock);
	vfio_dma_space_forget_lost(&t->space);
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
		KUNIT_EXPECT_EQ(test, vfio_dma_space_unmap(&t->space, BASE << PAGE_SHIFT, 1,
							   VFIO_DMA_PINNED), 0);
		MOCK_EXPECT_WARNED(test);
	}
	vfio_dma_space_flush(&t->space);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 1);
	core_expect(test, BASE, 1, mock_memory_pfn(memory, 0), RW);
	KUNIT_EXPECT_EQ(test, core_unmap(test, BASE, 1, true), 1);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(memory), 0);
}

#endif /* _VFIO_DMA_CORE_UNMAP_H */
