/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit cases of the container: unmapping at any page, neighbours, granules.  Included by
 * vfio_type1v3_kunit.c, behind the rig.
 */
#ifndef __VFIO_TYPE1V3_CUT_H
#define __VFIO_TYPE1V3_CUT_H

/* In superpages, and across them: at the first, a middle and the last page */
static void cut(struct kunit *test)
{
	static const struct {
		unsigned long first, npages;
	} cuts[] = {
		{ 0, 1 }, { 511, 1 }, { 512, 1 }, { 255, 1 }, { 1023, 1 },
		{ 509, 6 }, { 0, 512 }, { 1, 1022 }, { 100, 700 }, { 700, 200 },
		{ 256, 256 }, { 250, 12 }, { 768, 300 }, { 1020, 8 },
		{ 13, WINDOW - 26 }, { 0, WINDOW },
	};
	struct container_test *t = test->priv;
	unsigned int i;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	for (i = 0; i < ARRAY_SIZE(cuts); i++) {
		KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_unmap(test, cuts[i].first, cuts[i].npages), 0);
		container_check(test);
		/* And what is left, again at another place */
		KUNIT_EXPECT_EQ(test, container_unmap(test, cuts[i].first / 2, 1), 0);
		container_check(test);
		container_unmap_all(test);
	}
}

/* One page after the other, from a superpage */
static void cut_each_page(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned long i;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 1024, 0, RW, false), 0);
	for (i = 0; i < 1024; i++) {
		KUNIT_EXPECT_EQ(test, container_unmap(test, i * 389 % 1024, 1), 0);
		if (!(i % 64))
			container_check(test);
	}
	container_check(test);
}

/* Allocations of the store, as of a domain with no_memory */
static bool only_nofail(gfp_t gfp)
{
	if (!(gfp & __GFP_NOFAIL))
		return false;
	if (gfp & (__GFP_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NORETRY))
		mock_error("allocation with %pGg", &gfp);
	return true;
}

/* Neither the memory cgroup nor the machine has any: what is mapped can be cut. */
static void cut_without_memory(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, true);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
	t->groups[0].domain->no_memory = true;
	kunit_activate_static_stub(test, vfio_xa_dma_may_alloc, only_nofail);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 300, 750), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 7, 1), 0);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 1500, 3), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_map(test, 7, 1, 7, RW, false), -ENOMEM);
	container_check(test);
	container_unmap_all(test);
	kunit_deactivate_static_stub(test, vfio_xa_dma_may_alloc);
}

/*
 * Map device memory, which is not pinned, so that only the pinning is left out:
 * contiguous memory of that size is not to be had.
 */
static void map_device(struct kunit *test, unsigned long first,
		       unsigned long npages, unsigned long pfn,
		       unsigned long granule)
{
	struct container_test *t = test->priv;
	struct vfio_dma_container *container = t->container;
	unsigned long vaddr = SZ_1G + ((pfn - MOCK_PFN) << PAGE_SHIFT);
	unsigned long last = BASE + first + npages - 1, word, n;
	struct vfio_dma_extent extent;

	mutex_lock(&container->lock);
	if (!container->owner.mm)
		vfio_dma_owner_set(&container->owner);
	first += BASE;
	word = vfio_xa_dma_word(first, vaddr, VFIO_XA_DMA_READ | VFIO_XA_DMA_WRITE |
				VFIO_XA_DMA_PFNMAP | VFIO_XA_DMA_MMIO);
	if (vfio_dma_covers_superpage(container, vfio_dma_iova(first),
				      npages << PAGE_SHIFT, granule))
		word |= VFIO_XA_DMA_BIG;
	KUNIT_EXPECT_EQ(test, vfio_dma_record_reserve(&container->record, first, last,
						      word), 0);
	if (word & VFIO_XA_DMA_BIG)
		KUNIT_EXPECT_EQ(test, vfio_dma_cut_set_starts(&container->record, first,
							      last, granule), 0);
	for (; first <= last; first += n, pfn += n) {
		n = min(last - first + 1, VFIO_DMA_EXTENT_MAX - pfn % VFIO_DMA_EXTENT_MAX);
		extent = (struct vfio_dma_extent) {
			.pfn = pfn, .npages = n, .pfnmap = true, .mmio = true,
		};
		KUNIT_EXPECT_EQ(test, vfio_dma_cut_map(&container->space, first, &extent,
						       word, granule), 0);
	}
	vfio_dma_record_commit(&container->record, last - npages + 1, last);
	mutex_unlock(&container->lock);
}

static void map_pud(struct kunit *test)
{
	struct container_test *t = test->priv;

	if (MOCK_PUD_PAGES > VFIO_DMA_EXTENT_MAX)
		kunit_skip(test, "IOMMU pages are no larger than 1 GiB");
	map_device(test, 0, MOCK_PUD_PAGES, MOCK_PFN, VFIO_DMA_EXTENT_MAX);
	KUNIT_EXPECT_EQ(test, mock_largest_leaf(t->groups[0].domain, 0, ULONG_MAX),
			MOCK_PUD_PAGES);
}

static void cut_pud_range(struct kunit *test, unsigned long first,
			  unsigned long npages)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock = t->groups[0].domain;
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = (BASE + first) << PAGE_SHIFT,
		.size = npages << PAGE_SHIFT,
	};

	map_pud(test);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), 0);
	KUNIT_EXPECT_EQ(test, unmap.size, npages << PAGE_SHIFT);
	KUNIT_EXPECT_TRUE(test, mock_translates(mock, BASE + first,
						BASE + first + npages - 1, 0, 0));
	if (first)
		KUNIT_EXPECT_TRUE(test, mock_translates(mock, BASE, BASE + first - 1,
							MOCK_PFN, RW));
	first += npages;
	if (first < MOCK_PUD_PAGES)
		KUNIT_EXPECT_TRUE(test, mock_translates(mock, BASE + first,
							BASE + MOCK_PUD_PAGES - 1,
							MOCK_PFN + first, RW));
	mock_expect_synced(test, mock);

	unmap.iova = 0;
	unmap.size = 0;
	unmap.flags = VFIO_DMA_UNMAP_FLAG_ALL;
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), 0);
	KUNIT_EXPECT_EQ(test, unmap.size, (MOCK_PUD_PAGES - npages) << PAGE_SHIFT);
	container_check(test);
}

static void cut_pud(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	cut_pud_range(test, 0, 1);
	cut_pud_range(test, 509, 6);
	cut_pud_range(test, 1000, MOCK_PUD_PAGES - 1001);
}

/* Once a page of it is gone nobody asks for each of the others where it is. */
static void cut_pud_again(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = (BASE + 7) << PAGE_SHIFT,
		.size = PAGE_SIZE,
	};
	unsigned long nr_lookups, i;

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	map_pud(test);
	for (i = 0; i < 8; i++, unmap.iova += 1001 << PAGE_SHIFT) {
		nr_lookups = t->groups[0].domain->nr_lookups;
		KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA,
						      &unmap, sizeof(unmap)), 0);
		KUNIT_EXPECT_EQ(test, unmap.size, PAGE_SIZE);
		if (i)
			KUNIT_EXPECT_LE(test, t->groups[0].domain->nr_lookups -
					nr_lookups, 4 * MOCK_PMD_PAGES);
	}
	unmap.iova = 0;
	unmap.size = 0;
	unmap.flags = VFIO_DMA_UNMAP_FLAG_ALL;
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), 0);
	container_check(test);
}

/* Domains with other page sizes side by side, in either order */
static void cut_two_domains(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int i;

	container_memory(test, true);
	for (i = 0; i < 2; i++) {
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[i],
						       &mock_kinds[0]), 0);
		KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
		/* Late, so that what is there is replayed */
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[!i],
						       test->param_value), 0);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 700, 1), 0);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 17, 600), 0);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 1050, 900), 0);
		container_check(test);
		container_detach(test, &t->groups[0]);
		container_check(test);
		container_detach(test, &t->groups[1]);
		container_check(test);
	}
}

/* What asks for small pages has them, also in a domain that comes later. */
static void small_pages(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 512, 0, RW, true), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 512, 512, 512, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 1024, 1024, 1024, RW, true), 0);
	KUNIT_EXPECT_EQ(test, mock_largest_leaf(t->groups[0].domain, 0, ULONG_MAX), 512);
	container_check(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], test->param_value), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 300, 400), 0);
	container_check(test);
	container_unmap_all(test);
}

/*
 * What an unmap must not touch
 */

/**
 * struct mock_touched - what was done to a domain since then
 * @mock: the domain
 * @nr_map: map_pages() calls by then
 * @nr_unmapped: pages unmapped by then
 */
struct mock_touched {
	struct mock_domain *mock;
	unsigned long nr_map;
	unsigned long nr_unmapped;
};

static struct mock_touched mock_touch(struct mock_domain *mock)
{
	return (struct mock_touched) { mock, mock->nr_map, mock->nr_unmapped };
}

/* Nothing was mapped, and @npages pages and no others were unmapped. */
static void expect_unmapped(struct kunit *test, const struct mock_touched *then,
			    unsigned long npages)
{
	KUNIT_EXPECT_EQ(test, then->mock->nr_map, then->nr_map);
	KUNIT_EXPECT_EQ(test, then->mock->nr_unmapped - then->nr_unmapped, npages);
}

/* Neighbours that happen to be contiguous, each mapped by a call of its own */
static void neighbours(struct kunit *test)
{
	static const unsigned long sizes[] = { 512, 2, 16, 256, 1024, 1 };
	struct container_test *t = test->priv;
	struct mock_touched then;
	unsigned long n, at, i;
	unsigned int s, late;

	container_memory(test, false);
	for (late = 0; late < 2; late++) {
		struct mock_group *group = &t->groups[late];

		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
						       test->param_value), 0);
		for (s = 0; s < ARRAY_SIZE(sizes); s++) {
			n = sizes[s];
			for (i = 0; i < 2048 / n && i < 64; i++)
				KUNIT_ASSERT_EQ(test, container_map(test, i * n, n, i * n,
								    RW, false), 0);
			/* A domain that is given all of it at once */
			if (late)
				KUNIT_ASSERT_EQ(test, container_attach(test, group,
								       &mock_kinds[3]), 0);
			/* Each of them goes, and is mapped again. */
			for (i = 0; i < 2048 / n && i < 64; i++) {
				at = (i * 5 % min(64, 2048 / n)) * n;
				then = mock_touch(group->domain);
				KUNIT_EXPECT_EQ(test, container_unmap(test, at, n), 0);
				expect_unmapped(test, &then, n);
				if (!(i % 8))
					container_check(test);
				KUNIT_EXPECT_EQ(test, container_map(test, at, n, at, RW,
								    false), 0);
			}
			container_check(test);
			container_unmap_all(test);
			if (late)
				container_detach(test, group);
		}
		container_detach(test, &t->groups[0]);
	}
}

/* Entries of a batch that continue each other are mappings of their own as well. */
static void neighbours_batch(struct kunit *test)
{
	static const unsigned long sizes[] = { 512, 16, 2, 256 };
	struct vfio_iommu_type1v3_batch_entry entries[4] = {};
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.nr_entries = ARRAY_SIZE(entries),
	};
	struct container_test *t = test->priv;
	void __user *user = t->arg + PAGE_SIZE;
	struct mock_touched then;
	unsigned long n, i, k;
	unsigned int s;

	batch.entries = (unsigned long)user;
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	for (s = 0; s < ARRAY_SIZE(sizes); s++) {
		n = sizes[s];
		for (i = 0; i < ARRAY_SIZE(entries); i++) {
			entries[i].iova = (BASE + i * n) << PAGE_SHIFT;
			entries[i].size = n << PAGE_SHIFT;
			entries[i].vaddr = t->memory->vaddr + ((i * n) << PAGE_SHIFT);
			entries[i].flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
			for (k = i * n; k < (i + 1) * n; k++)
				t->model[k] = (struct model_page) { .user = k, .prot = RW };
		}
		KUNIT_ASSERT_EQ(test, copy_to_user(user, entries, sizeof(entries)), 0);
		KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_TYPE1V3_BATCH, &batch,
						      sizeof(batch)), 0);
		container_check(test);
		for (i = 0; i < ARRAY_SIZE(entries); i++) {
			then = mock_touch(t->groups[0].domain);
			KUNIT_EXPECT_EQ(test, container_unmap(test, (i + 1) % 4 * n, n), 0);
			expect_unmapped(test, &then, n);
		}
		container_check(test);
	}
}

/*
 * An IOMMU fails to map the rest of a request, and to unmap what it has of it: that
 * stays pinned and charged, and nothing else does.
 */
static void map_stuck(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock;
	unsigned long i;

	/* Three extents, the second of which is not mapped */
	swap(t->memory->pages[5], t->memory->pages[1500]);
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[2]), 0);
	mock = t->groups[0].domain;
	mock->fail_map = 2;
	mock->fail_unmap = 1;
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, container_map(test, 0, 16, 0, RW, false), -ENOMEM);
	}
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 5);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), 5);
	KUNIT_EXPECT_TRUE(test, vfio_dma_record_empty(&t->container->record));
	/* The failure was the map's. */
	KUNIT_ASSERT_EQ(test, container_map(test, 600, 1, 600, RW, false), 0);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 600, 1), 0);

	for (i = 0; i < 16; i++)
		if (mock_leaf_at(mock, BASE + i))
			iommu_unmap(&mock->domain, (BASE + i) << PAGE_SHIFT, PAGE_SIZE);
	for (i = 0; i < WINDOW; i++)
		while (mock_pins(mock_memory_pfn(t->memory, i)))
			unpin_user_page(t->memory->pages[i]);
	current->mm->locked_vm = 0;
}

/* An IOMMU fails to unmap what is to be unmapped: that stays pinned and charged. */
static void unmap_stuck(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock;
	unsigned long n;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[2]), 0);
	mock = t->groups[0].domain;
	for (n = 1; n <= 16; n += 15) {
		KUNIT_ASSERT_EQ(test, container_map(test, 0, n, 0, RW, false), 0);
		mock->fail_unmap = 1;
		kunit_warning_suppress(test) {
			KUNIT_EXPECT_EQ(test, container_unmap(test, 0, n), -EIO);
		}
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, n);
		KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), n);
		/* Also when nobody owns the container any more */
		KUNIT_EXPECT_NULL(test, t->container->owner.mm);

		iommu_unmap(&mock->domain, BASE << PAGE_SHIFT, n << PAGE_SHIFT);
		unpin_user_pages(t->memory->pages, n);
		current->mm->locked_vm = 0;
		container_check(test);
	}
}

/* Which of several entries an IOMMU fails at is not known: none of them says that it is done. */
static void batch_stuck(struct kunit *test)
{
	struct vfio_iommu_type1v3_batch_entry entries[3] = {};
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.nr_entries = ARRAY_SIZE(entries),
	};
	struct container_test *t = test->priv;
	void __user *user = t->arg + PAGE_SIZE;
	struct mock_domain *mock;
	unsigned long n, i, stuck;

	batch.entries = (unsigned long)user;
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[2]), 0);
	mock = t->groups[0].domain;
	for (n = 1; n <= 16; n += 15) {
		KUNIT_ASSERT_EQ(test, container_map(test, 0, 3 * n, 0, RW, false), 0);
		for (i = 0; i < ARRAY_SIZE(entries); i++)
			entries[i] = (struct vfio_iommu_type1v3_batch_entry) {
				.iova = (BASE + i * n) << PAGE_SHIFT,
				.size = n << PAGE_SHIFT,
				.flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP,
			};
		KUNIT_ASSERT_EQ(test, copy_to_user(user, entries, sizeof(entries)), 0);
		mock->fail_unmap = 1;
		kunit_warning_suppress(test) {
			KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_TYPE1V3_BATCH,
							      &batch, sizeof(batch)), 3);
		}
		KUNIT_ASSERT_EQ(test, copy_from_user(entries, user, sizeof(entries)), 0);
		for (i = 0; i < ARRAY_SIZE(entries); i++) {
			KUNIT_EXPECT_EQ(test, entries[i].result, -EIO);
			KUNIT_EXPECT_EQ(test, entries[i].size, n << PAGE_SHIFT);
		}
		/* The pages that the IOMMU failed at, whichever */
		for (i = 0, stuck = 0; i < 3 * n; i++) {
			if (!mock_leaf_at(mock, BASE + i))
				continue;
			KUNIT_EXPECT_EQ(test, mock_pins(mock_memory_pfn(t->memory, i)), 1);
			iommu_unmap(&mock->domain, (BASE + i) << PAGE_SHIFT, PAGE_SIZE);
			unpin_user_page(t->memory->pages[i]);
			stuck++;
		}
		KUNIT_EXPECT_NE(test, stuck, 0);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, stuck);
		current->mm->locked_vm = 0;
		memset(t->model, 0, sizeof(t->model));
		container_check(test);
	}
}

/* A cut in one of two neighbours divides blocks of that one only. */
static void cut_beside(struct kunit *test)
{
	static const unsigned long sizes[] = { 512, 16, 256, 1024 };
	struct container_test *t = test->priv;
	struct mock_touched then;
	unsigned int s, right;
	unsigned long n;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	for (s = 0; s < ARRAY_SIZE(sizes); s++) {
		n = sizes[s];
		for (right = 0; right < 2; right++) {
			KUNIT_ASSERT_EQ(test, container_map(test, 0, n, 0, RW, false), 0);
			KUNIT_ASSERT_EQ(test, container_map(test, n, n, n, RW, false), 0);
			then = mock_touch(t->groups[0].domain);
			KUNIT_EXPECT_EQ(test, container_unmap(test, right * n + 5, 2), 0);
			/* All of a block, and then the pages themselves */
			KUNIT_EXPECT_LE(test, then.mock->nr_unmapped - then.nr_unmapped,
					n + 2);
			container_check(test);
			container_unmap_all(test);
		}
	}
}

/* 512 mappings that could be one superpage of the third size */
static void neighbours_pud(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned long i, n = MOCK_PMD_PAGES, nr_lookups;
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = (BASE + 7 * MOCK_PMD_PAGES) << PAGE_SHIFT,
		.size = MOCK_PMD_PAGES << PAGE_SHIFT,
	};
	struct mock_touched then;

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	for (i = 0; i < MOCK_PUD_PAGES; i += n)
		map_device(test, i, n, MOCK_PFN + i, VFIO_DMA_EXTENT_MAX);
	for (i = 0; i < 3; i++) {
		then = mock_touch(t->groups[0].domain);
		nr_lookups = t->groups[0].domain->nr_lookups;
		KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
						      sizeof(unmap)), 0);
		expect_unmapped(test, &then, n);
		KUNIT_EXPECT_LE(test, t->groups[0].domain->nr_lookups - nr_lookups, 8);
		map_device(test, 7 * n, n, MOCK_PFN + 7 * n, VFIO_DMA_EXTENT_MAX);
	}
	unmap = (struct vfio_iommu_type1_dma_unmap) {
		.argsz = sizeof(unmap),
		.flags = VFIO_DMA_UNMAP_FLAG_ALL,
	};
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), 0);
	container_check(test);
}

/* Where contiguous blocks end, inside of what could be a superpage */
static void hole_mapped_again(struct kunit *test)
{
	static const unsigned long holes[] = { 256, 16, 512, 3 };
	struct container_test *t = test->priv;
	unsigned int h, way;

	container_memory(test, false);
	for (h = 0; h < ARRAY_SIZE(holes); h++) {
		for (way = 0; way < 4; way++) {
			if (rig_has_vaddr(t))
				KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated,
								       NULL), 0);
			KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
							       test->param_value), 0);
			KUNIT_ASSERT_EQ(test, container_map(test, 0, 1024, 0, RW, false), 0);
			KUNIT_EXPECT_EQ(test, container_unmap(test, 0, holes[h]), 0);
			KUNIT_ASSERT_EQ(test, container_map(test, 0, holes[h], 0, RW, false), 0);
			KUNIT_EXPECT_EQ(test, container_unmap(test, 1023, 1), 0);
			container_check(test);
			switch (way) {
			case 0:	/* the last domain leaves */
				container_detach(test, &t->groups[0]);
				break;
			case 1:	/* one of two */
				KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1],
								       &mock_kinds[3]), 0);
				container_check(test);
				container_detach(test, &t->groups[0]);
				break;
			case 2:	/* a cut is lost */
				t->groups[0].domain->fail_map = 1;
				container_unmap(test, holes[h] / 2 + 512, 1);
				t->groups[0].domain->fail_map = 0;
				break;
			default:
				KUNIT_EXPECT_EQ(test, container_unmap(test, 5, 600), 0);
			}
			container_check(test);
			container_unmap_all(test);
			if (t->groups[0].wanted)
				container_detach(test, &t->groups[0]);
			if (t->groups[1].wanted)
				container_detach(test, &t->groups[1]);
			if (t->emulated.wanted)
				container_detach(test, &t->emulated);
		}
	}
}

/*
 * An IOMMU unmaps half of a block that is to be divided: all of the block goes, in the
 * other domain as well, stays pinned and charged, and the caller hears of it.
 */
static void split_stuck(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock;
	unsigned long i;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[3]), 0);
	mock = t->groups[0].domain;
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 512, 0, RW, false), 0);
	mock->forget_unmap = true;
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, container_unmap(test, 100, 1), -EIO);
	}
	mock->forget_unmap = false;
	KUNIT_EXPECT_TRUE(test, mock_translates(t->groups[1].domain, BASE, BASE + 511, 0, 0));
	KUNIT_EXPECT_TRUE(test, vfio_dma_record_empty(&t->container->record));
	KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), 512);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 512);
	for (i = 0; i < 512; i++)
		unpin_user_page(t->memory->pages[i]);
	current->mm->locked_vm = 0;
	container_check(test);
}

/* Multiples of the granule are unmapped, and nothing else is touched. */
static void granule(struct kunit *test)
{
	static const unsigned int orders[] = { 0, 1, 3, 4, 8, 9, 10, 18, 51 };
	struct container_test *t = test->priv;
	unsigned long g, first, npages, mapped, k;
	struct mock_touched then[2];
	unsigned int i, d, late, step;
	u32 flags;

	prandom_seed_state(&t->rnd, 1);
	container_memory(test, false);
	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		g = min(BIT(orders[i]), WINDOW);
		flags = VFIO_DMA_MAP_GRANULE(orders[i]);
		/* Nothing is mapped without a domain where there is no address. */
		for (late = rig_has_vaddr(t) ? 0 : 1; late < 3; late++) {
			/* Without a domain at first; with another one later; both */
			if (late != 1 && rig_has_vaddr(t))
				KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated,
								       NULL), 0);
			if (late)
				KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
								       test->param_value), 0);
			KUNIT_ASSERT_EQ(test, container_map_flags(test, 0, WINDOW, 0, RW,
								  flags), 0);
			if (!late)
				KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
								       test->param_value), 0);
			KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1],
							       &mock_kinds[3]), 0);
			container_check(test);
			for (d = 0; d < 2; d++)
				KUNIT_EXPECT_LE(test, mock_largest_leaf(t->groups[d].domain, 0,
									ULONG_MAX), g);
			/* With powers of two the granule is the size itself. */
			if (!late || t->groups[0].kind == &mock_kinds[3])
				KUNIT_EXPECT_GE(test, mock_largest_leaf(t->groups[1].domain, 0,
									ULONG_MAX), min(g, 1024UL));
			for (step = 0; step < 24; step++) {
				first = rnd(t, WINDOW) & ~(g - 1);
				npages = min(WINDOW - first, g * (1 + rnd(t, 1 + 64 / g)));
				for (d = 0; d < 2; d++)
					then[d] = mock_touch(t->groups[d].domain);
				for (k = first, mapped = 0; k < first + npages; k++)
					mapped += t->model[k].prot != 0;
				KUNIT_EXPECT_EQ(test, container_unmap(test, first, npages), 0);
				for (d = 0; d < 2; d++)
					expect_unmapped(test, &then[d], mapped);
				if (step % 3 == 1)
					continue;
				KUNIT_EXPECT_EQ(test, container_map_flags(test, first, npages,
									  first, RW, flags), 0);
			}
			container_check(test);
			/* And between the multiples */
			KUNIT_EXPECT_EQ(test, container_unmap(test, 77, 901), 0);
			container_check(test);
			container_unmap_all(test);
			container_detach(test, &t->groups[0]);
			container_detach(test, &t->groups[1]);
			if (t->emulated.wanted)
				container_detach(test, &t->emulated);
		}
	}
}

static void granule_refused(struct kunit *test)
{
	static const struct mock_kind large = { "", PAGE_SIZE << 2 | PAGE_SIZE << 9 };
	struct container_test *t = test->priv;
	unsigned long page;
	u32 flags;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	flags = VFIO_DMA_MAP_GRANULE(VFIO_DMA_MAP_GRANULE_ORDER_MAX + 1);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, 0, RW, flags), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, 0, RW,
						  VFIO_DMA_MAP_GRANULE(63)), -EINVAL);
	/* An order without the bit that says that there is one */
	flags = VFIO_DMA_MAP_GRANULE(9) & ~VFIO_DMA_MAP_GRANULE(0);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, 0, RW, flags), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, 0, 0, VFIO_DMA_MAP_FLAG_VADDR |
						  VFIO_DMA_MAP_GRANULE(9)), -EINVAL);
	container_check(test);
	container_detach(test, &t->groups[0]);

	/* Smaller than the smallest page of the IOMMU, to which the address is aligned */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &large), 0);
	page = -(t->memory->vaddr >> PAGE_SHIFT) % 4;
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, page, RW,
						  VFIO_DMA_MAP_GRANULE(1)), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, page, RW,
						  VFIO_DMA_MAP_GRANULE(0)), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, page, RW,
						  VFIO_DMA_MAP_GRANULE(2)), 0);
	container_check(test);
	container_unmap_all(test);
}

/*
 * Words that differ inside of a superpage
 */

static void container_dirty_flag(struct kunit *test, u32 flag)
{
	struct vfio_iommu_type1_dirty_bitmap dirty = {
		.argsz = sizeof(dirty),
		.flags = flag,
	};

	KUNIT_ASSERT_EQ(test, container_ioctl(test, VFIO_IOMMU_DIRTY_PAGES, &dirty,
					      sizeof(dirty)), 0);
}

static void container_track(struct kunit *test)
{
	container_dirty_flag(test, VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
}

/* The group counts as one that writes only to what it has pinned. */
static void container_see(struct kunit *test, struct mock_group *group)
{
	struct container_test *t = test->priv;
	struct vfio_dma_group_domain *domain;

	mutex_lock(&t->container->lock);
	vfio_dma_find_group(t->container, test_group(group),
			    &domain)->dirties_unseen = false;
	mutex_unlock(&t->container->lock);
}

/* An emulated device writes to a page that is mapped. */
static void container_dirty(struct kunit *test, unsigned long first,
			    unsigned long npages)
{
	struct container_test *t = test->priv;
	dma_addr_t iova;
	u64 data = 42;
	int ret;

	for (; npages; npages--, first++) {
		if (t->model[first].prot != RW)
			continue;
		iova = (BASE + first) << PAGE_SHIFT;
		ret = vfio_type1v3_ops.dma_rw(t->data, iova, &data,
					      sizeof(data), true);
		KUNIT_EXPECT_EQ(test, ret, 0);
		t->model[first].written = true;
	}
}

static void unmap_divided_word(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	container_track(test);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
	container_dirty(test, 7, 1);
	container_dirty(test, 510, 4);
	container_dirty(test, 1500, 100);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 512, 1), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 1510, 10), 0);
	container_check(test);
	container_unmap_all(test);
}

/* All domains go, or one of two, while a part of a superpage is dirty. */
static void detach_divided_word(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[3]), 0);
	container_see(test, &t->groups[0]);
	container_see(test, &t->groups[1]);

	container_track(test);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
	container_dirty(test, 7, 1);
	container_dirty(test, 510, 4);
	container_check(test);
	container_detach(test, &t->groups[0]);
	container_check(test);
	container_detach(test, &t->groups[1]);
	container_check(test);

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	container_check(test);
	container_unmap_all(test);
}

/*
 * What was one block when it was pinned need not be that when it is pinned anew,
 * for the next domain.
 */
static void contig_is_forgotten(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int i;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	for (i = 0; i < 2; i++) {
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
						       test->param_value), 0);
		if (!i)
			KUNIT_ASSERT_EQ(test, container_map(test, 0, 1024, 0, RW, false), 0);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 3, 1), 0);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 500 + i, 300), 0);
		container_check(test);

		container_detach(test, &t->groups[0]);
		container_check(test);
		swap(t->memory->pages[5 + i], t->memory->pages[1500 + i]);
		mock_memory_map_again(test, t->memory, PROT_READ | PROT_WRITE);
	}
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	container_unmap_all(test);
}

/*
 * Pages of a range that was mapped at once go and come back one by one, as those of a
 * confidential guest do: in the end they are one run again.
 */
static void pages_come_back(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_xa_dma_run run;
	unsigned long i, page;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 1024, 0, RW, true), 0);
	KUNIT_EXPECT_TRUE(test, vfio_dma_record_load(&t->container->record, BASE + 600) &
			  VFIO_XA_DMA_CONTIG);
	for (i = 0; i < 900; i++) {
		page = i * 387 % 1024;
		KUNIT_ASSERT_EQ(test, container_unmap(test, page, 1), 0);
		/* Two are taken in one go. */
		if (i % 8 == 7)
			container_unmap(test, page ^ 1, 3);
	}
	container_check(test);
	for (i = 0; i < 1024; i++) {
		page = i * 387 % 1024;
		if (!t->model[page].prot)
			KUNIT_ASSERT_EQ(test, container_map(test, page, 1, page, RW, true), 0);
	}
	container_check(test);
	KUNIT_ASSERT_TRUE(test, vfio_dma_record_next(&t->container->record, BASE,
						     BASE + 1023, &run));
	KUNIT_EXPECT_EQ(test, run.first, BASE);
	KUNIT_EXPECT_EQ(test, run.last, BASE + 1023);
	container_unmap_all(test);
}

/* The address of a part of a superpage is updated: another word there */
static void update_vaddr(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.flags = VFIO_DMA_UNMAP_FLAG_VADDR,
		.iova = (BASE + 100) << PAGE_SHIFT,
		.size = 300 << PAGE_SHIFT,
	};
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_VADDR,
		.vaddr = t->memory->vaddr,
		.iova = (BASE + 100) << PAGE_SHIFT,
		.size = 200 << PAGE_SHIFT,
	};

	container_memory(test, false);
	map.vaddr = t->memory->vaddr + (1024 << PAGE_SHIFT);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 1024, 0, RW, false), 0);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_MAP_DMA, &map,
					      sizeof(map)), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 150, 30), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 350, 300), 0);
	container_check(test);
	container_unmap_all(test);
}

#endif /* __VFIO_TYPE1V3_CUT_H */
