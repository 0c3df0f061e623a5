/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit cases of a container that has the IO page table as its record.  Included by
 * vfio_type1v3_kunit.c, behind the rig.
 */
#ifndef __VFIO_TYPE1V3_PT_H
#define __VFIO_TYPE1V3_PT_H

/* What needs addresses is refused, and nothing is mapped without an IOMMU. */
static void refused(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.flags = VFIO_DMA_UNMAP_FLAG_VADDR,
		.iova = BASE << PAGE_SHIFT,
		.size = PAGE_SIZE,
	};
	struct page *page;
	u32 data;

	container_memory(test, false);
	KUNIT_EXPECT_EQ(test, container_map(test, 0, 1, 0, RW, false), -ENODEV);
	KUNIT_EXPECT_EQ(test, container_attach(test, &t->emulated, NULL), -EOPNOTSUPP);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_EXPECT_EQ(test, container_attach(test, &t->emulated, NULL), -EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.ioctl(t->data, VFIO_CHECK_EXTENSION,
						     VFIO_UPDATE_VADDR), 0);

	KUNIT_ASSERT_EQ(test, container_map(test, 0, 1, 0, RW, false), 0);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), -EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 1, 0, 0, VFIO_DMA_MAP_FLAG_VADDR),
			-EOPNOTSUPP);
	t->model[0] = (struct model_page) { .user = 0, .prot = RW };
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data, test_group(&t->groups[0]),
							 BASE << PAGE_SHIFT, 1, IOMMU_READ,
							 &page), -EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.dma_rw(t->data, BASE << PAGE_SHIFT, &data,
						      sizeof(data), false), -EOPNOTSUPP);
	container_check(test);
	container_unmap_all(test);
}

/* Device memory that an IOMMU driver fails to undo the map of is not mapped. */
static void device_stuck(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_dma_record *record = &t->container->record;
	unsigned long first = DEVICE_FIRST + 1, i, left = 0, bad = 0;
	struct mock_domain *mock;

	container_memory(test, false);
	device_map(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[2]), 0);
	mock = t->groups[0].domain;
	/* The region has pages, else nothing in it is looked up. */
	KUNIT_ASSERT_EQ(test, container_map(test, DEVICE_FIRST, 1, DEVICE_FIRST, RW, false), 0);
	mock->fail_map = 1;
	mock->fail_unmap = 1;
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, container_map(test, first, 8, first, RW, false), -ENOMEM);
	}
	for (i = first; i < first + 8; i++) {
		left += !!mock_leaf_at(mock, BASE + i);
		bad += vfio_dma_record_load(record, BASE + i) != 0;
	}
	KUNIT_EXPECT_GT(test, left, 0);
	KUNIT_EXPECT_EQ(test, bad, 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_record_npages(record), 1);
	KUNIT_EXPECT_EQ(test, rig_validate(record), 0);
	/* Nothing has been charged or pinned that stays so. */
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 0);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), 0);

	for (i = first; i < first + 8; i++)
		if (mock_leaf_at(mock, BASE + i))
			iommu_unmap(&mock->domain, (BASE + i) << PAGE_SHIFT, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 0, WINDOW), 0);
}

/*
 * A batch unmaps a page twice, behind an IOMMU that remembers what has been unmapped.
 */
static void unmap_twice(struct kunit *test)
{
	static const u8 order[] = { 0, 2, 1, 1, 3, 0, 4 };
	struct vfio_iommu_type1v3_batch_entry entries[ARRAY_SIZE(order)];
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.nr_entries = ARRAY_SIZE(entries),
	};
	struct container_test *t = test->priv;
	void __user *user = t->arg + PAGE_SIZE;
	unsigned long gone = 0, i;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[2]), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 16, 0, RW, true), 0);
	t->groups[0].domain->remembers = true;
	for (i = 0; i < ARRAY_SIZE(order); i++)
		entries[i] = (struct vfio_iommu_type1v3_batch_entry) {
			.iova = (BASE + order[i]) << PAGE_SHIFT,
			.size = PAGE_SIZE,
			.flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP,
		};
	batch.entries = (unsigned long)user;
	KUNIT_ASSERT_EQ(test, copy_to_user(user, entries, sizeof(entries)), 0);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_TYPE1V3_BATCH, &batch,
					      sizeof(batch)), 0);
	KUNIT_ASSERT_EQ(test, copy_from_user(entries, user, sizeof(entries)), 0);
	for (i = 0; i < ARRAY_SIZE(order); i++) {
		KUNIT_EXPECT_EQ(test, entries[i].result, 0);
		KUNIT_EXPECT_EQ(test, entries[i].size,
				gone & BIT(order[i]) ? 0 : PAGE_SIZE);
		gone |= BIT(order[i]);
		t->model[order[i]].prot = 0;
	}
	container_check(test);
	/* Nothing of the rest has been taken for one of them. */
	KUNIT_EXPECT_EQ(test, container_unmap(test, 0, 16), 0);
}

/*
 * A batch unmaps pages of superpages one after the other, behind an IOMMU that remembers:
 * a page that has gone is no part of a superpage with the next.
 */
static void cut_beside_gone(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_pt_open *open = t->container->record.pt->open;
	void __user *user = t->arg + PAGE_SIZE;
	struct vfio_iommu_type1v3_batch_entry entries[3] = {};
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.entries = (unsigned long)user,
		.nr_entries = ARRAY_SIZE(entries),
	};
	unsigned long region = BASE / VFIO_PT_REGION_PAGES, i;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[1]), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 16, 0, RW, false), 0);
	/* Another region takes its place: its pages are known no longer, but looked up. */
	for (i = 0; i < ARRAY_SIZE(entries); i++) {
		entries[i].iova = (BASE + VFIO_PT_OPEN * VFIO_PT_REGION_PAGES + 2 * i)
				  << PAGE_SHIFT;
		entries[i].size = PAGE_SIZE;
		entries[i].vaddr = t->memory->vaddr;
		entries[i].flags = VFIO_DMA_MAP_FLAG_READ;
	}
	KUNIT_ASSERT_EQ(test, copy_to_user(user, entries, sizeof(entries)), 0);
	KUNIT_ASSERT_EQ(test, container_ioctl(test, VFIO_IOMMU_TYPE1V3_BATCH, &batch,
					      sizeof(batch)), 0);
	for (i = 0; i < ARRAY_SIZE(entries); i++) {
		entries[i].vaddr = 0;
		entries[i].flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP;
	}
	KUNIT_ASSERT_EQ(test, copy_to_user(user, entries, sizeof(entries)), 0);
	KUNIT_ASSERT_EQ(test, container_ioctl(test, VFIO_IOMMU_TYPE1V3_BATCH, &batch,
					      sizeof(batch)), 0);
	KUNIT_ASSERT_NE(test, open[region % VFIO_PT_OPEN].region, region);

	t->groups[0].domain->remembers = true;
	for (i = 0; i < ARRAY_SIZE(entries); i++) {
		entries[i].iova = (BASE + 1 + i * 7 % 5) << PAGE_SHIFT;
		t->model[1 + i * 7 % 5].prot = 0;
	}
	KUNIT_ASSERT_EQ(test, copy_to_user(user, entries, sizeof(entries)), 0);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_TYPE1V3_BATCH, &batch,
					      sizeof(batch)), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 0, 16), 0);
}

/*
 * One IOMMU driver of two fails to unmap a page.  It is not mapped, also not when that
 * domain is the one that answers look-ups.
 */
static void ghost_of_second(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_dma_record *record = &t->container->record;
	struct mock_domain *mock;
	unsigned long n;

	container_memory(test, false);
	for (n = 1; n <= 6; n += 5) {
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[2]), 0);
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[3]), 0);
		mock = t->groups[1].domain;
		KUNIT_ASSERT_EQ(test, container_map(test, 0, n + 1, 0, RW, true), 0);
		mock->fail_unmap = 1;
		kunit_warning_suppress(test) {
			KUNIT_EXPECT_EQ(test, container_unmap(test, 0, n), -EIO);
		}
		KUNIT_EXPECT_NOT_NULL(test, mock_leaf_at(mock, BASE));
		container_detach(test, &t->groups[0]);
		KUNIT_EXPECT_EQ(test, vfio_dma_record_load(record, BASE), 0);
		KUNIT_EXPECT_EQ(test, vfio_dma_record_npages(record), 1);
		KUNIT_EXPECT_EQ(test, rig_validate(record), 0);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, n + 1);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(&record->pt->ghosts), n);

		iommu_unmap(&mock->domain, BASE << PAGE_SHIFT, n << PAGE_SHIFT);
		unpin_user_pages(t->memory->pages, n);
		current->mm->locked_vm = 1;
		container_check(test);
		container_unmap_all(test);
		/* No region is left open; ghosts go with the domain that has them. */
		KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(&record->pt->regions));
		KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[2]), 0);
		container_detach(test, &t->groups[1]);
		KUNIT_EXPECT_EQ(test, vfio_dma_record_bytes(record), 0);
		container_detach(test, &t->groups[0]);
	}
}

/*
 * An IO page table that has lost a page takes the record's count with it.  Nothing is
 * left of that when the last domain has gone, nor is it asked any more.
 */
static void drift(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_dma_record *record = &t->container->record;
	struct vfio_xa_dma_run run;
	struct mock_domain *mock;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[2]), 0);
	mock = t->groups[0].domain;
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 8, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 8, 8, 8, IOMMU_READ, false), 0);
	iommu_unmap(&mock->domain, (BASE + 3) << PAGE_SHIFT, PAGE_SIZE);
	kunit_warning_suppress(test) {
		container_detach(test, &t->groups[0]);
	}
	unpin_user_page(t->memory->pages[3]);
	KUNIT_ASSERT_TRUE(test, vfio_dma_record_empty(record));
	KUNIT_EXPECT_EQ(test, vfio_dma_record_load(record, BASE + 3), 0);
	KUNIT_EXPECT_FALSE(test, vfio_dma_record_next(record, 0, VFIO_XA_DMA_LAST_INDEX, &run));
	container_check(test);

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[2]), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 16, 0, RW, false), 0);
	container_check(test);
	container_unmap_all(test);
}

/* What the kernel maps for interrupts is not mapped for the user, however close it is. */
static void msi_beside(struct kunit *test)
{
	static const struct mock_kind kind = {
		"sw msi", PAGE_SIZE, .sw_msi = true,
	};
	struct container_test *t = test->priv;
	struct vfio_dma_record *record = &t->container->record;
	unsigned long msi = MOCK_SW_MSI >> PAGE_SHIFT, npages = MOCK_MSI_SIZE >> PAGE_SHIFT;
	struct vfio_xa_dma_run run;
	struct mock_domain *mock;
	unsigned long i, bad = 0;

	base = msi - 16;
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &kind), 0);
	mock = t->groups[0].domain;
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 16, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 16 + npages, 16, 16, RW, false), 0);
	KUNIT_ASSERT_EQ(test, iommu_map(&mock->domain, MOCK_SW_MSI, PFN_PHYS(MOCK_PFN),
					MOCK_MSI_SIZE, IOMMU_WRITE | IOMMU_MMIO,
					VFIO_DMA_GFP), 0);

	for (i = 0; i < npages; i++)
		bad += vfio_dma_record_load(record, msi + i) != 0;
	KUNIT_EXPECT_EQ(test, bad, 0);
	KUNIT_EXPECT_FALSE(test, vfio_dma_record_next(record, msi, msi + npages - 1, &run));
	KUNIT_EXPECT_EQ(test, vfio_dma_record_npages(record), 32);
	KUNIT_EXPECT_EQ(test, rig_validate(record), 0);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 0, WINDOW), 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_record_npages(record), 0);
	KUNIT_EXPECT_EQ(test, iommu_unmap(&mock->domain, MOCK_SW_MSI, MOCK_MSI_SIZE),
			MOCK_MSI_SIZE);
	container_check(test);
}

/* A domain in which the trial is left is not used: its page would be taken for mapped. */
static void probe_stuck(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, false);
	mock_fail_probe = 2;
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[2]),
				-EIO);
	}
	mock_fail_probe = 0;
	/* That the domain went with it is what the mock complains of. */
	KUNIT_EXPECT_EQ(test, mock_errors, 1);
	mock_errors = 0;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[2]), 0);
	container_check(test);
}

#endif /* __VFIO_TYPE1V3_PT_H */
