/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit cases of the container: calls that fail, and groups that come and go.  Included by
 * vfio_type1v3_kunit.c, behind the cuts.
 */
#ifndef __VFIO_TYPE1V3_ATTACH_H
#define __VFIO_TYPE1V3_ATTACH_H

/* Each of the calls that a MAP makes fails once: nothing is left of it. */
static void map_fails(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int nth, g;
	int ret;

	container_memory(test, true);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[4]), 0);
	for (g = 0; g < 2; g++) {
		for (nth = 1; ; nth = mock_next_failure(nth)) {
			t->groups[g].domain->fail_map = nth;
			ret = container_map(test, 300, 1500, 300, RW, false);
			if (!ret)
				break;
			KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
			container_check(test);
		}
		KUNIT_EXPECT_GT(test, nth, 2);
		t->groups[g].domain->fail_map = 0;
		container_check(test);
		container_unmap_all(test);
	}
}

/* There is no user memory behind a part of the range. */
static void map_hole(struct kunit *test)
{
	struct container_test *t = test->priv;

	t->memory->limit = 1500;
	container_memory(test, true);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_EXPECT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), -EFAULT);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_map(test, 0, 1500, 0, RW, false), 0);
	KUNIT_EXPECT_EQ(test, container_map(test, 1499, 1, 0, RW, false), -EEXIST);
	container_check(test);
}

/* Remapping what an UNMAP has cut fails: the superpage goes as a whole. */
static void unmap_loses(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int nth, g;
	int ret;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], test->param_value), 0);
	for (g = 0; g < 2; g++) {
		for (nth = 1; ; nth = mock_next_failure(nth)) {
			container_map(test, 0, WINDOW, 0, RW, false);
			t->groups[g].domain->fail_map = nth;
			ret = container_unmap(test, 700, 500);
			t->groups[g].domain->fail_map = 0;
			container_check(test);
			if (!ret)
				break;
			KUNIT_EXPECT_EQ(test, ret, -EIO);
			container_unmap_all(test);
		}
		if (g == 0)
			KUNIT_EXPECT_GT(test, nth, 2);
		container_unmap_all(test);
	}
}

/* A domain that cannot take all that is mapped is not attached. */
static void attach_fails(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int nth;
	int ret;

	container_memory(test, true);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 10, 1900, 10, RW, false), 0);
	container_check(test);
	/* The first domain, for which all is pinned */
	for (nth = 1; ; nth = mock_next_failure(nth)) {
		mock_fail_next = nth;
		ret = container_attach(test, &t->groups[0], test->param_value);
		container_check(test);
		if (!ret)
			break;
		KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
	}
	KUNIT_EXPECT_GT(test, nth, 2);
	t->groups[0].domain->fail_map = 0;
	/* Another, which gets the translations of the first */
	for (nth = 1; ; nth = mock_next_failure(nth)) {
		mock_fail_next = nth;
		ret = container_attach(test, &t->groups[1], &mock_kinds[4] ==
				       test->param_value ? &mock_kinds[5] :
				       &mock_kinds[4]);
		container_check(test);
		if (!ret)
			break;
		KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
	}
	KUNIT_EXPECT_GT(test, nth, 2);
	t->groups[1].domain->fail_map = 0;
	container_unmap_all(test);
}

/*
 * Where a granule ends within a block of contiguous memory, a domain that is not
 * attached can have a part of the block.
 */
static void attach_fails_granule(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int nth;
	int ret;

	container_memory(test, true);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[1]), 0);
	KUNIT_ASSERT_EQ(test, container_map_flags(test, 0, WINDOW, 0, RW,
						  VFIO_DMA_MAP_GRANULE(4)), 0);
	for (nth = 1; ; nth = mock_next_failure(nth)) {
		mock_fail_next = nth;
		ret = container_attach(test, &t->groups[1], &mock_kinds[3]);
		container_check(test);
		if (!ret)
			break;
		KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
	}
	KUNIT_EXPECT_GT(test, nth, WINDOW / 16);
	t->groups[1].domain->fail_map = 0;
	container_unmap_all(test);
}

/* VFIO takes what is returned for an errno, or for success. */
static void attach_fails_without_errno(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int g;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 10, 20, 10, RW, false), 0);
	for (g = 0; g < 2; g++) {
		mock_fail_next = 1;
		mock_map_ret = 1;
		KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[g],
						       &mock_kinds[4 + g]), -EIO);
		mock_map_ret = 0;
		container_check(test);
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[g],
						       &mock_kinds[4 + g]), 0);
		container_check(test);
	}
	container_unmap_all(test);
}

/* The same kind of IOMMU, the same domain; the MSI window is not for mapping. */
static void attach_shares(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ,
		.iova = MOCK_MSI_START + MOCK_MSI_SIZE - PAGE_SIZE,
		.size = 2 * PAGE_SIZE,
	};

	container_memory(test, false);
	map.vaddr = t->memory->vaddr;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 5, 10, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[0]), 0);
	KUNIT_EXPECT_PTR_EQ(test, t->groups[0].domain, t->groups[1].domain);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.attach_group(t->data,
							    test_group(&t->groups[0]),
							    VFIO_IOMMU), -EINVAL);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_MAP_DMA, &map,
					      sizeof(map)), -EINVAL);
	container_check(test);
	container_detach(test, &t->groups[0]);
	container_check(test);
	KUNIT_ASSERT_NOT_NULL(test, t->groups[1].domain);
	container_detach(test, &t->groups[1]);
	container_check(test);
}

/*
 * IOMMUs that differ
 */

static long container_coherent(struct kunit *test)
{
	struct container_test *t = test->priv;

	return vfio_type1v3_ops.ioctl(t->data, VFIO_CHECK_EXTENSION,
				      VFIO_DMA_CC_IOMMU);
}

/* Each domain is made coherent that can be; all of them are, or it is said. */
static void coherency(struct kunit *test)
{
	struct container_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.ioctl(NULL, VFIO_CHECK_EXTENSION,
						     VFIO_DMA_CC_IOMMU), 0);
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_EXPECT_EQ(test, container_coherent(test), 1);
	mock_can_enforce = true;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_EXPECT_TRUE(test, t->groups[0].domain->enforced);
	KUNIT_EXPECT_EQ(test, container_coherent(test), 1);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 600, 0, RW, false), 0);

	/* The same IOMMU, but for that: it is not the same domain. */
	mock_can_enforce = false;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[0]), 0);
	KUNIT_EXPECT_PTR_NE(test, t->groups[0].domain, t->groups[1].domain);
	KUNIT_EXPECT_EQ(test, container_coherent(test), 0);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 100, 300), 0);
	container_check(test);
	container_detach(test, &t->groups[0]);
	KUNIT_EXPECT_EQ(test, container_coherent(test), 0);
	mock_can_enforce = true;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	container_check(test);
	container_detach(test, &t->groups[1]);
	KUNIT_EXPECT_EQ(test, container_coherent(test), 1);
	container_check(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[0]), 0);
	KUNIT_EXPECT_PTR_EQ(test, t->groups[0].domain, t->groups[1].domain);
	container_unmap_all(test);
}

/* One page at an IOVA, outside of the window */
static long container_map_at(struct kunit *test, dma_addr_t iova)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ,
		.vaddr = t->memory->vaddr,
		.iova = iova,
		.size = PAGE_SIZE,
	};
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = iova,
		.size = PAGE_SIZE,
	};
	long ret;

	ret = container_ioctl(test, VFIO_IOMMU_MAP_DMA, &map, sizeof(map));
	if (!ret) {
		KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA,
						      &unmap, sizeof(unmap)), 0);
		KUNIT_EXPECT_EQ(test, unmap.size, PAGE_SIZE);
	}
	return ret;
}

/* What the groups reserve cannot be mapped, but for what firmware had reserved. */
static void reserved_regions(struct kunit *test)
{
	static const struct mock_kind sw_msi = {
		.pgsizes = PAGE_SIZE | PAGE_SIZE << 9, .sw_msi = true,
	};
	struct container_test *t = test->priv;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_EXPECT_EQ(test, t->groups[0].domain->msi_cookie, 0);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_RELAXABLE), 0);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_SW_MSI), 0);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_MSI_START), -EINVAL);

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &sw_msi), 0);
	KUNIT_EXPECT_EQ(test, t->groups[1].domain->msi_cookie, MOCK_SW_MSI);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_RELAXABLE), 0);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_SW_MSI), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_SW_MSI + MOCK_MSI_SIZE), 0);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_MSI_START), -EINVAL);

	container_detach(test, &t->groups[0]);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_MSI_START), 0);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_SW_MSI), -EINVAL);
}

/* An IOMMU that translates less: refused while more is mapped, then it counts. */
static void narrow_aperture(struct kunit *test)
{
	static const struct mock_kind narrow = {
		.pgsizes = PAGE_SIZE,
		.aperture_end = ((FAR + WINDOW / 2) << PAGE_SHIFT) - 1,
	};
	struct container_test *t = test->priv;
	unsigned int i;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	/* Alone with emulated devices, and next to another IOMMU */
	for (i = 0; i < 2; i++) {
		KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
		KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[1], &narrow),
				-EINVAL);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_unmap(test, WINDOW / 2, WINDOW / 2), 0);
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &narrow), 0);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_map(test, WINDOW / 2, 1, 0, RW, false),
				-EINVAL);
		KUNIT_EXPECT_EQ(test, container_unmap(test, WINDOW / 2 - 1, 1), 0);
		KUNIT_EXPECT_EQ(test, container_map(test, WINDOW / 2 - 1, 2, 0, RW,
						    false), -EINVAL);
		KUNIT_EXPECT_EQ(test, container_map(test, WINDOW / 2 - 1, 1, 0, RW,
						    false), 0);
		container_detach(test, &t->groups[1]);
		KUNIT_EXPECT_EQ(test, container_map(test, WINDOW / 2, WINDOW / 2, 0, RW,
						    false), 0);
		container_check(test);
		container_unmap_all(test);
		if (!i)
			KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
							       &mock_kinds[0]), 0);
	}
}

/* An IOMMU whose smallest page is of several pages */
static const struct mock_kind large = {
	.pgsizes = PAGE_SIZE << 4 | PAGE_SIZE << 9,
};

/* User addresses have to be aligned to them, too. */
static void container_memory_aligned(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, false);
	t->memory->vaddr = mock_map_file_at(test, "[mock memory]", &mock_memory_fops,
					    t->memory, WINDOW, PROT_READ | PROT_WRITE,
					    ALIGN_DOWN(t->memory->vaddr, PAGE_SIZE << 4));
}

/* All calls are in its pages. */
static void large_pages(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct {
		struct vfio_iommu_type1_info info;
		u8 caps[512];
	} arg = { .info.argsz = sizeof(arg) };
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} get = {
		.dirty.argsz = sizeof(get),
		.dirty.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
		.get.iova = BASE << PAGE_SHIFT,
		.get.size = 64 << PAGE_SHIFT,
		.get.bitmap.pgsize = PAGE_SIZE,
		.get.bitmap.size = sizeof(u64),
		.get.bitmap.data = t->arg + ARG_BITMAP,
	};
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = BASE << PAGE_SHIFT,
		.size = PAGE_SIZE,
	};
	u64 bits;

	container_memory_aligned(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 20, 0, RW, false), 0);
	KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[0], &large), -EINVAL);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 16, 4), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &large), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_GET_INFO, &arg,
					      sizeof(arg)), 0);
	KUNIT_EXPECT_EQ(test, arg.info.iova_pgsizes, large.pgsizes);

	KUNIT_EXPECT_EQ(test, container_map(test, 16, 8, 16, RW, false), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map(test, 24, 16, 24, RW, false), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map(test, 32, 32, 32, RW, false), 0);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), -EINVAL);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 32, 16), 0);
	container_check(test);

	/* A bit is for one of its pages, too. */
	container_track(test);
	container_see(test, &t->groups[0]);
	container_dirty(test, 49, 1);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_DIRTY_PAGES, &get,
					      sizeof(get)), -EINVAL);
	get.get.bitmap.pgsize = PAGE_SIZE << 4;
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_DIRTY_PAGES, &get,
					      sizeof(get)), 0);
	KUNIT_ASSERT_EQ(test, copy_from_user(&bits, t->arg + ARG_BITMAP,
					     sizeof(bits)), 0);
	KUNIT_EXPECT_EQ(test, bits, BIT(3));

	/* Next to others it is still the smallest; without it, theirs is. */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[3]), 0);
	KUNIT_EXPECT_EQ(test, container_map(test, 80, 1, 0, RW, false), -EINVAL);
	container_detach(test, &t->groups[0]);
	KUNIT_EXPECT_EQ(test, container_map(test, 80, 1, 0, RW, false), 0);
	container_check(test);
	container_unmap_all(test);
}

#endif /* __VFIO_TYPE1V3_ATTACH_H */
