/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit cases of the container: what becomes of the memory that was mapped, and device
 * memory.  Included by vfio_type1v3_kunit.c, behind the rig.
 */
#ifndef __VFIO_TYPE1V3_MEMORY_H
#define __VFIO_TYPE1V3_MEMORY_H

static void clear_dirty(struct container_test *t)
{
	unsigned long i;

	for (i = 0; i < WINDOW; i++)
		ClearPageDirty(t->memory->pages[i]);
}

/* Those are dirty of which the model said so before they were unmapped. */
static void expect_dirty(struct kunit *test, const unsigned long *dirty)
{
	struct container_test *t = test->priv;
	unsigned long i, missed = 0, wrong = 0;

	for (i = 0; i < WINDOW; i++) {
		missed += test_bit(i, dirty) && !PageDirty(t->memory->pages[i]);
		wrong += !test_bit(i, dirty) && PageDirty(t->memory->pages[i]);
	}
	KUNIT_EXPECT_EQ(test, missed, 0);
	KUNIT_EXPECT_EQ(test, wrong, 0);
}

/* Unmap pages of the window that are mapped to as many of user memory. */
static void unmap_dirty(struct kunit *test, unsigned long first, unsigned long npages)
{
	struct container_test *t = test->priv;
	unsigned long *dirty = bitmap_zalloc(WINDOW, GFP_KERNEL), i;

	KUNIT_ASSERT_NOT_NULL(test, dirty);
	for (i = first; i < first + npages; i++)
		if (t->model[i].prot & IOMMU_WRITE)
			__set_bit(t->model[i].user, dirty);
	clear_dirty(t);
	KUNIT_EXPECT_EQ(test, container_unmap(test, first, npages), 0);
	expect_dirty(test, dirty);
	container_check(test);
	bitmap_free(dirty);
}

/* One page, a few, runs, superpages and parts of them, and all kinds at once */
static void unmap_dirties(struct kunit *test)
{
	static const unsigned int sizes[] = { 1, 2, 4, 5, 64, 512, 1024 };
	struct container_test *t = test->priv;
	unsigned int i, prot;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (prot = IOMMU_READ; prot <= RW; prot++) {
			KUNIT_ASSERT_EQ(test, container_map(test, 512, sizes[i], 512,
							    prot, false), 0);
			unmap_dirty(test, 512, sizes[i]);
			KUNIT_ASSERT_EQ(test, container_map(test, 512, sizes[i], 512,
							    prot, true), 0);
			unmap_dirty(test, 512, sizes[i]);
		}
	}

	/* Those of one call are unpinned together. */
	for (i = 0; i < 300; i++)
		KUNIT_ASSERT_EQ(test, container_map(test, i, 1, i * 7 % 300,
						    i % 3 ? RW : IOMMU_READ, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 512, 512, 512, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 1024, 512, 1024, IOMMU_READ, false), 0);
	unmap_dirty(test, 600, 3);
	unmap_dirty(test, 1100, 3);
	unmap_dirty(test, 17, 4);
	unmap_dirty(test, 0, WINDOW);
}

/* A batch unpins what its entries unmap together. */
static void batch_dirties(struct kunit *test)
{
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.nr_entries = 12,
	};
	struct vfio_iommu_type1v3_batch_entry entries[12] = {};
	struct container_test *t = test->priv;
	void __user *user = t->arg + PAGE_SIZE;
	DECLARE_BITMAP(dirty, 64) = {};
	unsigned long *expected;
	unsigned int i;
	int prot;

	expected = bitmap_zalloc(WINDOW, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, expected);
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	for (i = 0; i < batch.nr_entries; i++) {
		prot = i & 1 ? IOMMU_READ : RW;
		KUNIT_ASSERT_EQ(test, container_map(test, 3 * i, 1 + (i & 2), 3 * i,
						    prot, false), 0);
		entries[i].iova = (BASE + 3 * i) << PAGE_SHIFT;
		entries[i].size = (1 + (i & 2)) << PAGE_SHIFT;
		entries[i].flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP;
		if (prot == RW)
			bitmap_set(dirty, 3 * i, 1 + (i & 2));
	}
	bitmap_copy(expected, dirty, 64);
	clear_dirty(t);
	batch.entries = (unsigned long)user;
	KUNIT_ASSERT_EQ(test, copy_to_user(user, entries, sizeof(entries)), 0);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_TYPE1V3_BATCH,
					      &batch, sizeof(batch)), 0);
	expect_dirty(test, expected);
	memset(t->model, 0, sizeof(t->model));
	container_check(test);
	bitmap_free(expected);
}

/* The last domain goes, and what is mapped stays for emulated devices. */
static void detach_dirties(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned long *expected = bitmap_zalloc(WINDOW, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, expected);
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 512, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 512, 1, 512, IOMMU_READ, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 600, 1, 600, RW, false), 0);
	bitmap_set(expected, 0, 512);
	__set_bit(600, expected);
	clear_dirty(t);
	container_detach(test, &t->groups[0]);
	expect_dirty(test, expected);
	container_check(test);
	container_unmap_all(test);
	bitmap_free(expected);
}

/*
 * Device memory
 */

/* As vfio-pci maps a BAR */
static int device_mmap(struct file *file, struct vm_area_struct *vma)
{
	return remap_pfn_range(vma, vma->vm_start, MOCK_PFN,
			       vma->vm_end - vma->vm_start,
			       pgprot_noncached(vma->vm_page_prot));
}

static const struct file_operations device_fops = {
	.owner	= THIS_MODULE,
	.mmap	= device_mmap,
};

/* Where a device's memory is in the window, in place of user memory */
#define DEVICE_FIRST	512UL
#define DEVICE_PAGES	512UL

static void device_map(struct kunit *test)
{
	struct container_test *t = test->priv;

	mock_map_file_at(test, "[mock device]", &device_fops, NULL, DEVICE_PAGES,
			 PROT_READ | PROT_WRITE,
			 t->memory->vaddr + (DEVICE_FIRST << PAGE_SHIFT));
}

/* All that the model has is mapped with @cache where the device's memory is. */
static void expect_cache(struct kunit *test, const struct mock_group *group, int cache)
{
	struct container_test *t = test->priv;
	struct mock_leaf *leaf;
	unsigned long i;
	bool device;

	for (i = 0; i < WINDOW; i++) {
		leaf = mock_leaf_at(group->domain, BASE + i);
		if (!leaf != !t->model[i].prot)
			break;
		if (!leaf)
			continue;
		device = i >= DEVICE_FIRST && i < DEVICE_FIRST + DEVICE_PAGES;
		if (leaf->prot != t->model[i].prot ||
		    leaf->cache != (device ? cache : IOMMU_CACHE))
			break;
		if (device && cache == IOMMU_MMIO &&
		    leaf->pfn + BASE + i - leaf->first != MOCK_PFN + i - DEVICE_FIRST)
			break;
	}
	KUNIT_EXPECT_EQ(test, i, WINDOW);
}

/* It is no memory for the IOMMU either: mapped, replayed, cut and pinned anew. */
static void device_memory(struct kunit *test)
{
	struct container_test *t = test->priv;
	int prot;

	container_memory(test, false);
	device_map(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	for (prot = IOMMU_READ; prot <= RW; prot++) {
		KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, prot, false), 0);
		expect_cache(test, &t->groups[0], IOMMU_MMIO);
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1],
						       &mock_kinds[3]), 0);
		expect_cache(test, &t->groups[1], IOMMU_MMIO);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 600, 1), 0);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 300, 1), 0);
		expect_cache(test, &t->groups[0], IOMMU_MMIO);
		expect_cache(test, &t->groups[1], IOMMU_MMIO);
		container_detach(test, &t->groups[1]);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 0, WINDOW), 0);
	}

	/* One by one, and then what is there is something else for the next domain. */
	KUNIT_ASSERT_EQ(test, container_map(test, DEVICE_FIRST - 1, 1,
					    DEVICE_FIRST - 1, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, DEVICE_FIRST, 1, DEVICE_FIRST, RW,
					    false), 0);
	expect_cache(test, &t->groups[0], IOMMU_MMIO);
	container_detach(test, &t->groups[0]);
	mock_memory_map_again(test, t->memory, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	expect_cache(test, &t->groups[0], IOMMU_CACHE);
	container_detach(test, &t->groups[0]);
	device_map(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	expect_cache(test, &t->groups[0], IOMMU_MMIO);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 0, WINDOW), 0);

	/* And it can be refused, with all that was asked for together with it. */
	vfio_type1v3_policy.disable_device_memory = true;
	KUNIT_EXPECT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), -EPERM);
	KUNIT_EXPECT_EQ(test, container_map(test, DEVICE_FIRST, 1, DEVICE_FIRST, RW,
					    false), -EPERM);
	expect_cache(test, &t->groups[0], IOMMU_MMIO);
	KUNIT_EXPECT_EQ(test, container_map(test, 0, DEVICE_FIRST, 0, RW, false), 0);
	expect_cache(test, &t->groups[0], IOMMU_MMIO);
	vfio_type1v3_policy.disable_device_memory = false;
	KUNIT_EXPECT_EQ(test, container_unmap(test, 0, WINDOW), 0);
	container_check(test);
}

#endif /* __VFIO_TYPE1V3_MEMORY_H */
