/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit cases of the container: pins, and what else drivers call.  Included by
 * vfio_type1v3_kunit.c, behind the dirty bits.
 */
#ifndef __VFIO_TYPE1V3_DRIVERS_H
#define __VFIO_TYPE1V3_DRIVERS_H

static void ignore_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
}

static const struct vfio_device_ops device_ops = {
	.name		= "mock",
	.dma_unmap	= ignore_dma_unmap,
};

#define PIN_OFTEN	2500UL
#define PIN_DENSE	256UL

static int pin_one_page(struct container_test *t, unsigned long page,
			struct page **pages)
{
	return vfio_type1v3_ops.pin_pages(t->data, test_group(&t->emulated),
					  (BASE + page) << PAGE_SHIFT, 1, RW, pages);
}

/* The number of pins of a page has an end, and pins of several pages none of it. */
static void pin_overflow(struct kunit *test)
{
	const unsigned long max = VFIO_DMA_EXTPIN_COUNT_MASK;
	const unsigned long one = VFIO_DMA_EXTPIN_ONE;
	struct container_test *t = test->priv;
	struct iommu_group *group = test_group(&t->emulated);
	struct vfio_xa_dma *pins = &t->container->extpins;
	dma_addr_t iova = BASE << PAGE_SHIFT;
	struct vfio_device *device;
	struct page *pages[3];
	unsigned long value, i, k, at;

	device = kunit_kzalloc(test, sizeof(*device), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, device);
	device->ops = &device_ops;
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	vfio_type1v3_ops.register_device(t->data, device);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 8, 0, RW, false), 0);

	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data, group, iova, 3,
							 RW, pages), 3);
	/* As many pins of the page in the middle as there can be, less one */
	value = vfio_xa_dma_load(pins, BASE + 1);
	KUNIT_EXPECT_EQ(test, value & max, one);
	vfio_xa_dma_change(pins, BASE + 1, BASE + 1, one, max - one);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data, group, iova, 3,
							 RW, pages), 3);
	KUNIT_EXPECT_PTR_EQ(test, pages[1], t->memory->pages[1]);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(pins, BASE + 1), value | max);

	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data, group, iova, 3,
							 RW, pages), -EOVERFLOW);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data, group,
							 iova + PAGE_SIZE, 1,
							 RW, pages), -EOVERFLOW);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(pins, BASE + 1), value | max);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(pins, BASE) & max, 2 * one);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(pins, BASE + 2) & max, 2 * one);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), 3);

	/* One less, and there is room for one */
	vfio_type1v3_ops.unpin_pages(t->data, iova + PAGE_SIZE, 1);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data, group,
							 iova + PAGE_SIZE, 1,
							 RW, pages), 1);

	vfio_xa_dma_change(pins, BASE + 1, BASE + 1, max, 2 * one);
	vfio_type1v3_ops.unpin_pages(t->data, iova, 3);
	vfio_type1v3_ops.unpin_pages(t->data, iova, 3);
	KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(pins));

	/* Among many, and alone in its block: so that they are kept in other forms */
	KUNIT_ASSERT_EQ(test, container_map(test, 8, 1016, 8, RW, false), 0);
	for (i = 0; i < PIN_DENSE; i++)
		KUNIT_ASSERT_EQ(test, pin_one_page(t, i, pages), 1);
	for (k = 0; k < 2; k++) {
		at = k ? 1000 : 1;
		for (i = 2 - k; i <= PIN_OFTEN; i++) {
			KUNIT_ASSERT_EQ(test, pin_one_page(t, at, pages), 1);
			KUNIT_ASSERT_PTR_EQ(test, pages[0], t->memory->pages[at]);
			KUNIT_ASSERT_EQ(test, vfio_xa_dma_load(pins, BASE + at) & max,
					i * one);
		}
	}
	KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), PIN_DENSE + 1);
	for (k = 0; k < 2; k++)
		for (i = 0; i < PIN_OFTEN; i++)
			vfio_type1v3_ops.unpin_pages(t->data, iova +
						     (k ? 1000 : 1) * PAGE_SIZE, 1);
	for (i = 0; i < PIN_DENSE; i++)
		if (i != 1)
			vfio_type1v3_ops.unpin_pages(t->data, iova + i * PAGE_SIZE, 1);
	KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(pins));

	/* No page frame number has a bit that is for something else. */
	for (i = 0; i < 40; i++) {
		value = vfio_dma_extpin_word(BIT(i));
		KUNIT_EXPECT_EQ(test, vfio_dma_extpin_pfn(value), BIT(i));
		KUNIT_EXPECT_EQ(test, value & (max | VFIO_DMA_EXTPIN_WRITE |
					       VFIO_DMA_EXTPIN_CHARGED), one);
		KUNIT_EXPECT_EQ(test, value & BIT(VFIO_XA_DMA_FLAG_BITS - 1), 0);
	}
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_unmap_all(test);
}

static struct vfio_device *pin_device(struct kunit *test,
				      const struct vfio_device_ops *ops)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;

	device = kunit_kzalloc(test, sizeof(*device), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, device);
	device->ops = ops;
	vfio_type1v3_ops.register_device(t->data, device);
	return device;
}

static int pin_some(struct container_test *t, unsigned long page, int npages, int prot)
{
	struct page *pages[16];

	return vfio_type1v3_ops.pin_pages(t->data, test_group(&t->emulated),
					  (BASE + page) << PAGE_SHIFT, npages, prot,
					  pages);
}

static void unpin_some(struct container_test *t, unsigned long page, int npages)
{
	vfio_type1v3_ops.unpin_pages(t->data, (BASE + page) << PAGE_SHIFT, npages);
}

/*
 * While an unmap waits for a driver, nothing in its range is pinned, whatever other
 * calls do there in the meantime; and so the driver is told once.
 */
static struct kunit *exclude_test;
static unsigned int exclude_told;

static void expect_refused(struct kunit *test, unsigned long page)
{
	struct container_test *t = test->priv;
	int ret = pin_some(t, page, 1, RW);

	KUNIT_EXPECT_EQ(test, ret, -EINVAL);
	if (ret == 1)
		unpin_some(t, page, 1);
}

static void exclude_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
	struct kunit *test = exclude_test;
	struct container_test *t = test->priv;

	exclude_told++;
	KUNIT_EXPECT_EQ(test, iova, (BASE + 48) << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, iova + length, (BASE + 64) << PAGE_SHIFT);
	/* Page 0 of user memory is not there: the bitmap cannot be written. */
	KUNIT_EXPECT_EQ(test, container_bits(test, 0, 16, true, 8), -EFAULT);
	expect_refused(test, 0);
	expect_refused(test, 5);
	expect_refused(test, 48);
	expect_refused(test, 63);
	KUNIT_EXPECT_EQ(test, pin_some(t, 64, 1, RW), 1);
	unpin_some(t, 64, 1);

	unpin_some(t, 48, 1);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 48, 1), 0);
	KUNIT_EXPECT_EQ(test, container_map(test, 48, 1, 100, RW, false), 0);
	expect_refused(test, 48);
}

static const struct vfio_device_ops exclude_device_ops = {
	.name		= "mock",
	.dma_unmap	= exclude_dma_unmap,
};

static void release_excludes(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;
	unsigned int i;

	exclude_test = test;
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	device = pin_device(test, &exclude_device_ops);
	container_track(test);
	for (i = 0; i < 2; i++) {
		exclude_told = 0;
		KUNIT_ASSERT_EQ(test, container_map(test, 0, 65, 0, RW, false), 0);
		KUNIT_ASSERT_EQ(test, pin_some(t, 48, 1, RW), 1);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 0, 64), 0);
		KUNIT_EXPECT_EQ(test, exclude_told, 1);
		KUNIT_EXPECT_FALSE(test, vfio_dma_has_extpins(t->container));
		/* It is over. */
		KUNIT_ASSERT_EQ(test, container_map(test, 48, 1, 48, RW, false), 0);
		KUNIT_EXPECT_EQ(test, pin_some(t, 48, 1, RW), 1);
		unpin_some(t, 48, 1);
		container_check(test);
		container_unmap_all(test);
	}
	vfio_type1v3_ops.unregister_device(t->data, device);
}

/* A device whose driver finds objects of several pages by one of their pages alone */
static struct {
	struct container_test *t;
	unsigned int told;
	unsigned int nr;
	struct {
		unsigned long first, npages, key;
	} objects[8];
} object_device;

static void object_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
	unsigned long first = (iova >> PAGE_SHIFT) - BASE, i = 0;
	unsigned long last = first + (length >> PAGE_SHIFT) - 1;

	object_device.told++;
	while (i < object_device.nr) {
		if (object_device.objects[i].key < first ||
		    object_device.objects[i].key > last) {
			i++;
			continue;
		}
		unpin_some(object_device.t, object_device.objects[i].first,
			   object_device.objects[i].npages);
		object_device.objects[i] = object_device.objects[--object_device.nr];
	}
}

static const struct vfio_device_ops object_device_ops = {
	.name		= "mock",
	.dma_unmap	= object_dma_unmap,
};

static void object_add(struct kunit *test, unsigned long first, unsigned long npages,
		       unsigned long key)
{
	struct container_test *t = test->priv;
	unsigned int i = object_device.nr++;

	KUNIT_ASSERT_EQ(test, pin_some(t, first, npages, RW), npages);
	object_device.objects[i].first = first;
	object_device.objects[i].npages = npages;
	object_device.objects[i].key = key;
}

/* Unmapping a page of an object releases all of it, and no other object. */
static void release_object(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;
	unsigned int domain;

	for (domain = 0; domain < 2; domain++) {
		memset(&object_device, 0, sizeof(object_device));
		object_device.t = t;
		if (!domain)
			container_memory(test, false);
		else
			KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
							       &mock_kinds[0]), 0);
		if (!domain)
			KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL),
					0);
		device = pin_device(test, &object_device_ops);
		/* Three mappings, so that an object lies in several */
		KUNIT_ASSERT_EQ(test, container_map(test, 0, 15, 0, RW, false), 0);
		KUNIT_ASSERT_EQ(test, container_map(test, 15, 10, 115, RW, false), 0);
		KUNIT_ASSERT_EQ(test, container_map(test, 25, 100, 225, RW, false), 0);
		object_add(test, 8, 2, 8);
		object_add(test, 10, 16, 10);
		object_add(test, 26, 4, 26);

		KUNIT_EXPECT_EQ(test, container_unmap(test, 20, 2), 0);
		/* 20 and 21, then 19, 18 .. 10 */
		KUNIT_EXPECT_EQ(test, object_device.told, 13);
		KUNIT_EXPECT_EQ(test, object_device.nr, 2);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(&t->container->extpins), 6);

		/* Two objects that have a page in common, which is pinned twice */
		object_device.told = 0;
		object_add(test, 28, 8, 28);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 29, 1), 0);
		KUNIT_EXPECT_EQ(test, object_device.told, 6);
		KUNIT_EXPECT_EQ(test, object_device.nr, 1);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(&t->container->extpins), 2);

		/* One that is found by its last page, and begins where pages do */
		object_device.told = 0;
		object_add(test, 40, 16, 55);
		object_add(test, 56, 2, 57);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 43, 1), 0);
		KUNIT_EXPECT_EQ(test, object_device.told, 7);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(&t->container->extpins), 2);

		KUNIT_EXPECT_EQ(test, container_unmap(test, 0, WINDOW), 0);
		KUNIT_EXPECT_FALSE(test, vfio_dma_has_extpins(t->container));
		container_check(test);
		vfio_type1v3_ops.unregister_device(t->data, device);
	}
}

static void expect_locked(struct kunit *test, unsigned long npages)
{
	struct container_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, npages);
	KUNIT_EXPECT_EQ(test, vfio_dma_held(t->container), npages);
}

/* Let user page @a be where @b was, and the other way round. */
static void swap_memory(struct kunit *test, unsigned long a, unsigned long b)
{
	struct container_test *t = test->priv;

	swap(t->memory->pages[a], t->memory->pages[b]);
	mock_memory_map_again(test, t->memory, PROT_READ | PROT_WRITE);
}

/*
 * A page that an emulated device pins is charged unless the domains have the same one
 * mapped, and stays that way when domains come and go.
 */
static void pin_other_page(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;
	unsigned int nth;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	device = pin_device(test, &device_ops);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 16, 0, RW, false), 0);
	expect_locked(test, 16);

	swap_memory(test, 3, 1500);
	KUNIT_EXPECT_EQ(test, pin_some(t, 2, 3, RW), 3);
	expect_locked(test, 17);
	KUNIT_EXPECT_EQ(test, mock_pins(mock_memory_pfn(t->memory, 3)), 1);
	KUNIT_EXPECT_EQ(test, mock_pins(mock_memory_pfn(t->memory, 1500)), 1);
	KUNIT_EXPECT_EQ(test, pin_some(t, 3, 1, RW), 1);
	expect_locked(test, 17);
	unpin_some(t, 3, 1);
	expect_locked(test, 17);
	unpin_some(t, 3, 1);
	expect_locked(test, 16);
	KUNIT_EXPECT_EQ(test, pin_some(t, 3, 1, RW), 1);
	expect_locked(test, 17);

	/* A second domain and its departure change nothing. */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[3]), 0);
	expect_locked(test, 17);
	container_detach(test, &t->groups[0]);
	expect_locked(test, 17);
	container_detach(test, &t->groups[1]);
	expect_locked(test, 3);

	/* A new one gets what is there now: the page that is pinned. */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	expect_locked(test, 16);
	container_detach(test, &t->groups[0]);
	expect_locked(test, 3);
	swap_memory(test, 3, 1500);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	expect_locked(test, 17);
	unpin_some(t, 2, 1);
	expect_locked(test, 17);
	container_detach(test, &t->groups[0]);
	expect_locked(test, 2);

	/* One that fails, in any run, charges nothing and forgets no charge. */
	swap_memory(test, 3, 1500);
	KUNIT_ASSERT_EQ(test, container_map(test, 16, 8, 300, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 24, 8, 400, RW, false), 0);
	KUNIT_EXPECT_EQ(test, pin_some(t, 17, 2, RW), 2);
	expect_locked(test, 4);
	for (nth = 1; ; nth++) {
		mock_fail_next = nth;
		if (!container_attach(test, &t->groups[0], &mock_kinds[0]))
			break;
		expect_locked(test, 4);
		KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), 4);
		KUNIT_ASSERT_LT(test, nth, 100);
	}
	mock_fail_next = 0;
	KUNIT_EXPECT_GT(test, nth, 3);
	expect_locked(test, 32);
	container_detach(test, &t->groups[0]);
	expect_locked(test, 4);
	unpin_some(t, 3, 2);
	expect_locked(test, 2);
	unpin_some(t, 17, 2);
	container_check(test);

	/* Device memory has come to where a page is pinned: it cannot be both. */
	KUNIT_EXPECT_EQ(test, pin_some(t, 5, 1, RW), 1);
	pfnmap_at(test, t->memory->vaddr + (5 << PAGE_SHIFT), MOCK_PFN);
	KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]),
			-EINVAL);
	expect_locked(test, 1);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), 1);
	unpin_some(t, 5, 1);
	KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	expect_locked(test, 31);
	KUNIT_EXPECT_EQ(test, pin_some(t, 5, 1, RW), -EINVAL);
	mock_memory_map_again(test, t->memory, PROT_READ | PROT_WRITE);
	KUNIT_EXPECT_EQ(test, pin_some(t, 5, 1, RW), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 0, 32), 0);
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_check(test);
}

/* The last unpin of a page that a device could write to marks it dirty. */
static void unpin_dirties(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;
	unsigned int i, domain;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	device = pin_device(test, &device_ops);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 4, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 4, 4, 4, IOMMU_READ, false), 0);
	for (domain = 0; domain < 2; domain++) {
		/* Of what fails in the end the driver has had nothing. */
		container_dirty_flag(test, VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
		KUNIT_EXPECT_LT(test, pin_some(t, 0, 10, IOMMU_READ), 0);
		for (i = 0; i < 8; i++)
			KUNIT_EXPECT_FALSE(test, vfio_dma_record_load(&t->container->record,
								      BASE + i) &
					   VFIO_XA_DMA_DIRTY);
		container_dirty_flag(test, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
		KUNIT_EXPECT_EQ(test, pin_some(t, 0, 8, IOMMU_READ), 8);
		KUNIT_EXPECT_EQ(test, pin_some(t, 1, 1, IOMMU_READ), 1);
		for (i = 0; i < 8; i++)
			ClearPageDirty(t->memory->pages[i]);
		unpin_some(t, 0, 2);
		unpin_some(t, 2, 6);
		for (i = 0; i < 8; i++)
			KUNIT_EXPECT_EQ(test, PageDirty(t->memory->pages[i]),
					i < 4 && i != 1);
		unpin_some(t, 1, 1);
		KUNIT_EXPECT_TRUE(test, PageDirty(t->memory->pages[1]));
		for (i = 0; i < 8; i++)
			ClearPageDirty(t->memory->pages[i]);
		if (!domain)
			KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
							       &mock_kinds[0]), 0);
	}
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_unmap_all(test);
	for (i = 0; i < 8; i++)
		ClearPageDirty(t->memory->pages[i]);
}

/* A driver that is told of an unmap when an IOMMU of large pages comes */
static struct kunit *attach_test;

static void attach_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
	struct container_test *t = attach_test->priv;
	u64 last = iova + length - 1;
	dma_addr_t pin;

	for (pin = iova; pin < last; pin += PAGE_SIZE)
		if (vfio_xa_dma_load(&t->container->extpins, pin >> PAGE_SHIFT))
			vfio_type1v3_ops.unpin_pages(t->data, pin, 1);
	if (!t->groups[0].wanted)
		KUNIT_EXPECT_EQ(attach_test, container_attach(attach_test,
							      &t->groups[0],
							      &large), 0);
}

static const struct vfio_device_ops attach_device_ops = {
	.name		= "mock",
	.dma_unmap	= attach_dma_unmap,
};

/* What a batch has checked is checked again when domains have come since. */
static void batch_attach(struct kunit *test)
{
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.flags = VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE,
		.nr_entries = 4,
	};
	struct container_test *t = test->priv;
	/* The second and the third continue each other, and are one unit at first. */
	struct vfio_iommu_type1v3_batch_entry entries[4] = {
		{ .size = 16 << PAGE_SHIFT, .flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP },
		{ .size = 16 << PAGE_SHIFT, .flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP },
		{ .size = PAGE_SIZE, .flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP },
		{ .size = PAGE_SIZE, .flags = VFIO_DMA_MAP_FLAG_READ },
	};
	void __user *user = t->arg + PAGE_SIZE;
	struct vfio_device *device;
	struct page *page;

	device = kunit_kzalloc(test, sizeof(*device), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, device);
	device->ops = &attach_device_ops;
	attach_test = test;
	container_memory_aligned(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	vfio_type1v3_ops.register_device(t->data, device);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 64, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, pin_one_page(t, 0, &page), 1);
	KUNIT_ASSERT_EQ(test, pin_one_page(t, 48, &page), 1);

	batch.entries = (unsigned long)user;
	entries[0].iova = BASE << PAGE_SHIFT;
	entries[1].iova = (BASE + 32) << PAGE_SHIFT;
	entries[2].iova = (BASE + 48) << PAGE_SHIFT;
	entries[3].iova = (BASE + 1) << PAGE_SHIFT;
	entries[3].vaddr = t->memory->vaddr;
	KUNIT_ASSERT_EQ(test, copy_to_user(user, entries, sizeof(entries)), 0);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_TYPE1V3_BATCH, &batch,
					      sizeof(batch)), 2);
	KUNIT_ASSERT_EQ(test, copy_from_user(entries, user, sizeof(entries)), 0);
	KUNIT_EXPECT_EQ(test, entries[0].result, 0);
	KUNIT_EXPECT_EQ(test, entries[0].size, 16 << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, entries[1].result, 0);
	KUNIT_EXPECT_EQ(test, entries[1].size, 16 << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, entries[2].result, -EINVAL);
	KUNIT_EXPECT_EQ(test, entries[2].size, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, entries[3].result, -EINVAL);
	memset(t->model, 0, 16 * sizeof(t->model[0]));
	memset(t->model + 32, 0, 16 * sizeof(t->model[0]));
	container_check(test);
	/* What has not been unmapped after all can be pinned again. */
	KUNIT_EXPECT_EQ(test, pin_one_page(t, 48, &page), 1);
	vfio_type1v3_ops.unpin_pages(t->data, (BASE + 48) << PAGE_SHIFT, 1);
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_unmap_all(test);
}

/* The same for an UNMAP: it is too small for the domain that has come. */
static void unmap_attach(struct kunit *test)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = BASE << PAGE_SHIFT,
		.size = 8 << PAGE_SHIFT,
	};
	struct container_test *t = test->priv;
	struct vfio_device *device;

	attach_test = test;
	container_memory_aligned(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	device = pin_device(test, &attach_device_ops);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 64, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, pin_some(t, 3, 1, RW), 1);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), -EINVAL);
	KUNIT_EXPECT_NOT_NULL(test, t->groups[0].domain);
	container_check(test);
	/* What stays can be pinned again. */
	KUNIT_EXPECT_EQ(test, pin_some(t, 3, 1, RW), 1);
	unpin_some(t, 3, 1);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 0, 16), 0);
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_unmap_all(test);
}

/* Allocations of the store that nobody can be told of if they fail */
static unsigned int nofail_allocs;

static bool count_nofail(gfp_t gfp)
{
	nofail_allocs += !!(gfp & (__GFP_NOFAIL | __GFP_HIGH));
	return true;
}

/*
 * The page that completes a block is refused by the IOMMU driver.  To take it back
 * needs no memory, whatever has become one with it; alone, and in a batch.
 */
static void undo_needs_no_memory(struct kunit *test)
{
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.nr_entries = 2,
	};
	struct vfio_iommu_type1v3_batch_entry entries[2] = {};
	struct container_test *t = test->priv;
	void __user *user = t->arg + PAGE_SIZE;
	unsigned int i, pass;
	unsigned long hole;

	container_memory(test, false);
	batch.entries = (unsigned long)user;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	kunit_activate_static_stub(test, vfio_xa_dma_may_alloc, count_nofail);
	/* With so many runs the pages are in slots of their own. */
	for (pass = 0; pass < 4; pass++) {
		for (i = 0; i < (pass & 1) * 150; i++)
			KUNIT_ASSERT_EQ(test, container_map(test, 1024 + 2 * i, 1,
							    1024 + i, RW, false), 0);
		for (hole = 0; hole < 64; hole += 21) {
			if (hole)
				KUNIT_ASSERT_EQ(test, container_map(test, 0, hole, 0,
								    RW, false), 0);
			if (hole < 63)
				KUNIT_ASSERT_EQ(test, container_map(test, hole + 1,
								    63 - hole, hole + 1,
								    RW, false), 0);
			for (i = 0; i < 2; i++) {
				entries[i].iova = (BASE + (i ? 100 : hole)) << PAGE_SHIFT;
				entries[i].vaddr = t->memory->vaddr + (hole << PAGE_SHIFT);
				entries[i].size = PAGE_SIZE;
				entries[i].flags = VFIO_DMA_MAP_FLAG_READ |
						   VFIO_DMA_MAP_FLAG_WRITE;
			}
			KUNIT_ASSERT_EQ(test, copy_to_user(user, entries,
							   sizeof(entries)), 0);
			/* It is tried again another way, which succeeds. */
			nofail_allocs = 0;
			if (pass < 2) {
				t->groups[0].domain->fail_map = 1;
				KUNIT_EXPECT_EQ(test, container_map(test, hole, 1, hole,
								    RW, false), 0);
			} else {
				t->groups[0].domain->fail_map = 1;
				KUNIT_EXPECT_EQ(test,
						container_ioctl(test,
								VFIO_IOMMU_TYPE1V3_BATCH,
								&batch, sizeof(batch)), 0);
				for (i = 0; i < 2; i++)
					t->model[i ? 100 : hole] = (struct model_page) {
						.user = hole, .prot = RW,
					};
			}
			KUNIT_EXPECT_EQ(test, nofail_allocs, 0);
			KUNIT_EXPECT_EQ(test, t->groups[0].domain->fail_map, 0);
			container_check(test);
			container_unmap(test, 0, 1000);
		}
		container_unmap_all(test);
	}
	kunit_deactivate_static_stub(test, vfio_xa_dma_may_alloc);
}

/*
 * Two calls are half done, one beside the other, when one of the domains goes.
 * What makes up a call is done here step by step.
 */
static void detach_in_progress(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_dma_container *container = t->container;
	struct vfio_dma_flight flights[2] = {}, *flight;
	struct vfio_dma_map maps[2] = {}, *map = maps;
	struct vfio_dma_extent extent;
	struct vfio_dma_pin pin;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[3]), 0);

	mutex_lock(&container->lock);
	KUNIT_EXPECT_EQ(test, vfio_dma_become_owner(container), 0);
	for (flight = flights; flight < flights + 2; flight++, map++) {
		map->first = BASE + 16 * (map - maps);
		map->last = map->first + 15;
		map->vaddr = t->memory->vaddr + ((map->first - BASE) << PAGE_SHIFT);
		map->word = vfio_xa_dma_word(map->first, map->vaddr, VFIO_XA_DMA_READ);
		flight->map = map;
		flight->state = VFIO_DMA_PLACING;
		flight->space = &container->space;
		KUNIT_EXPECT_EQ(test, vfio_dma_record_reserve(&container->record,
							      map->first, map->last,
							      map->word), 0);
		list_add_tail(&flight->next, &container->flights);
		vfio_dma_pin_start(&pin, current->mm, map->vaddr, 8, false);
		KUNIT_EXPECT_EQ(test, vfio_dma_pin_step(&pin), 0);
		while (vfio_dma_pin_extent(&pin, &extent)) {
			KUNIT_EXPECT_EQ(test, vfio_dma_cut_map(flight->space,
							       map->first + flight->placed,
							       &extent, map->word,
							       VFIO_DMA_EXTENT_MAX), 0);
			flight->placed += extent.npages;
		}
		vfio_dma_pin_finish(&pin);
		KUNIT_EXPECT_EQ(test, flight->placed, 8);
	}
	mutex_unlock(&container->lock);

	container_detach(test, &t->groups[1]);

	mutex_lock(&container->lock);
	for (flight = flights; flight < flights + 2; flight++) {
		KUNIT_EXPECT_EQ(test, flight->state, VFIO_DMA_PLACING);
		KUNIT_EXPECT_EQ(test, flight->placed, 8);
	}
	vfio_dma_flights_unplace(container);
	for (flight = flights; flight < flights + 2; flight++) {
		KUNIT_EXPECT_EQ(test, flight->state, VFIO_DMA_UNPLACED);
		KUNIT_EXPECT_EQ(test, flight->placed, 0);
		list_del(&flight->next);
		vfio_dma_record_cancel(&container->record, flight->map->first,
				       flight->map->last);
	}
	vfio_dma_put_owner(container);
	mutex_unlock(&container->lock);
	container_check(test);
}

/* A physical group that pins writes only there: not all is dirty any more. */
static void pinned_scope(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;
	struct page *pages[2];
	unsigned int i;

	device = kunit_kzalloc(test, sizeof(*device), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, device);
	device->ops = &device_ops;
	container_memory(test, false);
	for (i = 0; i < 2; i++)
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[i],
						       &mock_kinds[i]), 0);
	vfio_type1v3_ops.register_device(t->data, device);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
	container_track(test);

	/* Each of them has to, and a pin that fails says nothing. */
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data,
							 test_group(&t->groups[0]),
							 (BASE + 7) << PAGE_SHIFT, 2,
							 RW, pages), 2);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data,
							 test_group(&t->groups[1]),
							 (BASE + WINDOW) << PAGE_SHIFT,
							 1, RW, pages), -EINVAL);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_ALL);
	KUNIT_EXPECT_EQ(test, container_bits(test, 0, WINDOW, false, 0), 0);
	container_expect(test, 0, WINDOW);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data,
							 test_group(&t->groups[1]),
							 (BASE + 9) << PAGE_SHIFT, 1,
							 RW, pages), 1);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_PINNED);
	KUNIT_EXPECT_EQ(test, container_bits(test, 0, WINDOW, false, 0), 0);
	container_expect(test, 7, 3);

	/* It has gone, and left nothing dirty that is not pinned. */
	container_detach(test, &t->groups[1]);
	KUNIT_EXPECT_EQ(test, container_bits(test, 0, WINDOW, false, 0), 0);
	container_expect(test, 7, 3);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[1]), 0);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_ALL);

	vfio_type1v3_ops.unpin_pages(t->data, (BASE + 7) << PAGE_SHIFT, 3);
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_unmap_all(test);
}

static void group_iommu_domain(struct kunit *test)
{
	struct iommu_domain *(*op)(void *data, struct iommu_group *group) =
		vfio_type1v3_ops.group_iommu_domain;
	struct container_test *t = test->priv;

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_EXPECT_PTR_EQ(test, op(t->data, test_group(&t->groups[0])),
			    &t->groups[0].domain->domain);
	/* Not in the container, and without an IOMMU */
	KUNIT_EXPECT_EQ(test, PTR_ERR(op(t->data, test_group(&t->groups[1]))), -ENODEV);
	KUNIT_EXPECT_EQ(test, PTR_ERR(op(t->data, test_group(&t->emulated))), -ENODEV);
	KUNIT_EXPECT_EQ(test, PTR_ERR(op(t->data, NULL)), -EINVAL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(op(NULL, test_group(&t->groups[0]))), -EINVAL);

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[2]), 0);
	KUNIT_EXPECT_PTR_EQ(test, op(t->data, test_group(&t->groups[1])),
			    &t->groups[1].domain->domain);
	container_detach(test, &t->groups[0]);
	KUNIT_EXPECT_EQ(test, PTR_ERR(op(t->data, test_group(&t->groups[0]))), -ENODEV);
}

#endif /* __VFIO_TYPE1V3_DRIVERS_H */
