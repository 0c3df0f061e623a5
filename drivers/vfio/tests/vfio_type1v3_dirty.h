/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit cases of the container: dirty bits of IOMMUs.  Included by vfio_type1v3_kunit.c,
 * behind the cuts.
 */
#ifndef __VFIO_TYPE1V3_DIRTY_H
#define __VFIO_TYPE1V3_DIRTY_H

static const struct mock_kind dirty_kinds[] = {
	{ "three sizes", PAGE_SIZE | PAGE_SIZE << 9 | PAGE_SIZE << 18,
	  .dirty = true },
	{ "close sizes", PAGE_SIZE | PAGE_SIZE << 4 | PAGE_SIZE << 8,
	  .sync_disjoint = true, .dirty = true },
	{ "one size", PAGE_SIZE, .dirty = true },
	{ "calls of sizes", PAGE_SIZE | PAGE_SIZE << 9, .unit_is_call = true,
	  .dirty = true },
};

KUNIT_ARRAY_PARAM_DESC(dirty_kind, dirty_kinds, name);

/* One more IOMMU, which shares no domain with those */
static const struct mock_kind other_dirty = {
	.pgsizes = PAGE_SIZE | PAGE_SIZE << 4 | PAGE_SIZE << 8, .dirty = true,
};

/* GET_INFO says where dirty pages are known from. */
static void expect_source(struct kunit *test, u32 source)
{
	struct {
		struct vfio_iommu_type1_info info;
		u8 caps[512];
	} arg = { .info.argsz = sizeof(arg) };
	struct vfio_iommu_type1v3_info_cap_dirty *cap;
	u32 offset;

	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_GET_INFO, &arg,
					      sizeof(arg)), 0);
	for (offset = arg.info.cap_offset; offset; offset = cap->header.next) {
		cap = (void *)&arg + offset;
		if (cap->header.id == VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY)
			break;
	}
	KUNIT_ASSERT_NE(test, offset, 0);
	KUNIT_EXPECT_EQ(test, cap->source, source);
}

/* A device of the group writes to pages. */
static void container_write(struct kunit *test, struct mock_group *group,
			    unsigned long first, unsigned long npages)
{
	struct container_test *t = test->priv;

	for (; npages; npages--, first++)
		if (mock_write(group->domain, BASE + first))
			t->model[first].written = true;
}

/*
 * GET_BITMAP of a part of the window, or UNMAP with a bitmap, to @data or to the
 * usual place if that is 0.  Nothing around the bitmap may change.
 */
static int container_bits(struct kunit *test, unsigned long first,
			  unsigned long npages, bool unmap, u64 data)
{
	struct container_test *t = test->priv;
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} get = {
		.dirty.argsz = sizeof(get),
		.dirty.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
		.get.iova = (BASE + first) << PAGE_SHIFT,
		.get.size = npages << PAGE_SHIFT,
		.get.bitmap.pgsize = PAGE_SIZE,
	};
	struct {
		struct vfio_iommu_type1_dma_unmap unmap;
		struct vfio_bitmap bitmap;
	} arg = {
		.unmap.argsz = sizeof(arg),
		.unmap.flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
		.unmap.iova = get.get.iova,
		.unmap.size = get.get.size,
	};
	size_t bytes = VFIO_DMA_BITMAP_BYTES(npages);
	u8 __user *user = t->arg + t->bitmap;
	u8 *area = kunit_kmalloc(test, bytes + 2 * ARG_GUARD, GFP_KERNEL);
	unsigned long i;
	int ret;

	KUNIT_ASSERT_NOT_NULL(test, area);
	memset(area, 0xa5, bytes + 2 * ARG_GUARD);
	memset(area + ARG_GUARD, 0x5a, bytes);
	KUNIT_ASSERT_EQ(test, copy_to_user(user - ARG_GUARD, area,
					   bytes + 2 * ARG_GUARD), 0);
	get.get.bitmap.data = data ? (void __user *)data : (void __user *)user;
	get.get.bitmap.size = bytes;
	arg.bitmap = get.get.bitmap;
	if (unmap)
		ret = container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &arg, sizeof(arg));
	else
		ret = container_ioctl(test, VFIO_IOMMU_DIRTY_PAGES, &get, sizeof(get));
	KUNIT_ASSERT_EQ(test, copy_from_user(area, user - ARG_GUARD,
					     bytes + 2 * ARG_GUARD), 0);
	for (i = 0; i < ARG_GUARD; i++) {
		KUNIT_EXPECT_EQ(test, area[i], 0xa5);
		KUNIT_EXPECT_EQ(test, area[ARG_GUARD + bytes + i], 0xa5);
	}
	bitmap_zero(t->bits, WINDOW);
	if (!ret)
		memcpy(t->bits, area + ARG_GUARD, bytes);
	kunit_kfree(test, area);
	return ret;
}

/* All that has been written to is reported, and only what is mapped. */
static void container_get(struct kunit *test, unsigned long first,
			  unsigned long npages, bool unmap)
{
	struct container_test *t = test->priv;
	unsigned long i, missed = 0, wrong = 0;
	struct model_page *page;
	struct mock_domain *mock;

	for (i = 0; i < ARRAY_SIZE(t->groups); i++) {
		mock = t->groups[i].domain;
		if (mock && mock->busy)
			container_write(test, &t->groups[i], mock->busy - BASE, 1);
	}
	KUNIT_EXPECT_EQ(test, container_bits(test, first, npages, unmap, 0), 0);
	for (i = 0; i < npages; i++) {
		page = &t->model[first + i];
		missed += page->prot && page->written && !test_bit(i, t->bits);
		wrong += !page->prot && test_bit(i, t->bits);
		page->written = false;
		if (unmap)
			page->prot = 0;
	}
	for (; i < WINDOW; i++)
		wrong += test_bit(i, t->bits);
	KUNIT_EXPECT_EQ(test, missed, 0);
	KUNIT_EXPECT_EQ(test, wrong, 0);
	container_check(test);
}

/* What container_get() got is dirty in [@first, @first + @npages), or all of it is. */
static void container_expect(struct kunit *test, unsigned long first,
			     unsigned long npages)
{
	struct container_test *t = test->priv;
	unsigned long n = npages;

	if (npages)
		KUNIT_EXPECT_EQ(test, find_next_zero_bit(t->bits, first + n, first),
				first + n);
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW), npages);
}

/* How many pages a page is in one superpage with */
static unsigned long container_leaf(struct kunit *test, unsigned long index,
				    unsigned long *first)
{
	struct container_test *t = test->priv;
	struct mock_leaf *leaf = mock_leaf_at(t->groups[0].domain, BASE + index);

	KUNIT_ASSERT_NOT_NULL(test, leaf);
	*first = leaf->first - BASE;
	return leaf->last - leaf->first + 1;
}

/* A container with one group and all of the window mapped, and tracking */
static struct mock_domain *container_hardware(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
					       test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_track(test);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	return t->groups[0].domain;
}

static void hardware_bits(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock = container_hardware(test);
	unsigned long first, npages, bytes;
	unsigned int i;

	bytes = vfio_dma_record_bytes(&t->container->record);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);
	/* Each time anew, which takes an IOTLB that knows */
	for (i = 0; i < 3; i++) {
		container_write(test, &t->groups[0], 700, 1);
		container_get(test, 0, WINDOW, false);
		npages = container_leaf(test, 700, &first);
		container_expect(test, first, npages);
		container_get(test, 0, WINDOW, false);
		container_expect(test, 0, 0);
	}
	/* It takes nothing of the store. */
	KUNIT_EXPECT_EQ(test, vfio_dma_record_bytes(&t->container->record), bytes);

	/* A second START changes nothing. */
	container_write(test, &t->groups[0], 0, 1);
	container_track(test);
	container_get(test, 0, WINDOW, false);
	npages = container_leaf(test, 0, &first);
	container_expect(test, 0, npages);

	/* What emulated devices write comes on top. */
	container_write(test, &t->groups[0], 0, 1);
	container_dirty(test, WINDOW - 1, 1);
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_TRUE(test, test_bit(WINDOW - 1, t->bits));
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW), npages + 1);

	/* STOP forgets, and what is written then nobody knows. */
	container_write(test, &t->groups[0], 20, 1);
	container_dirty_flag(test, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
	KUNIT_EXPECT_FALSE(test, mock->tracking);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_write(test, &t->groups[0], 300, 1);
	container_track(test);
	KUNIT_EXPECT_TRUE(test, mock->tracking);
	KUNIT_EXPECT_EQ(test, container_bits(test, 0, WINDOW, false, 0), 0);
	container_expect(test, 0, 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_record_bytes(&t->container->record), bytes);
	container_unmap_all(test);
}

/* Ranges that begin and end inside of superpages: the others' bits remain. */
static void hardware_borders(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock = container_hardware(test);
	unsigned long first, npages;

	container_write(test, &t->groups[0], 50, 1);
	npages = container_leaf(test, 50, &first);
	/* Also those in the middle of which the range begins, or is */
	container_get(test, 53, 800, false);
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW),
			npages > 1 ? first + npages - 53 : 0);
	container_get(test, 49, 2, false);
	container_expect(test, npages > 1 ? 0 : 1, min(npages, 2UL));
	/* One that has nothing to do with the border is another's to report. */
	container_write(test, &t->groups[0], 1700, 1);
	container_get(test, 0, 49, false);
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW),
			npages > 1 ? 49 - first : 0);
	if (npages > 52) {
		container_get(test, 51, 2, false);
		container_expect(test, 0, 2);
	}
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_TRUE(test, test_bit(1700, t->bits));
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);

	/* With a device that writes all the time */
	mock->busy = BASE + 1000;
	container_get(test, 1001, 900, false);
	container_get(test, 100, 900, false);
	container_get(test, 1000, 1, false);
	container_expect(test, 0, 1);
	mock->busy = 0;
	container_get(test, 0, WINDOW, false);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);
	container_unmap_all(test);
}

/* There is nothing below the block of IOVA 0. */
static void hardware_borders_at_0(struct kunit *test)
{
	base = 0;
	hardware_borders(test);
}

/* A superpage is divided: what was written to the rest of it is not forgotten. */
static void hardware_cut(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock = container_hardware(test);

	container_write(test, &t->groups[0], 5, 1);
	container_write(test, &t->groups[0], 1030, 1);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 300, 750), 0);
	container_get(test, 0, WINDOW, false);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);

	/* A device writes when nobody reads its bit any more. */
	mock->busy = BASE + 1800;
	KUNIT_EXPECT_EQ(test, container_unmap(test, 1801, 2), 0);
	mock->busy = 0;
	t->model[1800].written = true;
	container_get(test, 0, WINDOW, false);

	/* The parts go on being tracked. */
	container_write(test, &t->groups[0], 1800, 1);
	container_write(test, &t->groups[0], 299, 1);
	container_get(test, 0, WINDOW, false);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);
	container_unmap_all(test);
}

static void hardware_unmap(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_hardware(test);
	container_write(test, &t->groups[0], 5, 1);
	container_write(test, &t->groups[0], 600, 1);
	container_write(test, &t->groups[0], 700, 1);
	container_write(test, &t->groups[0], 1700, 1);
	container_get(test, 512, 100, true);
	KUNIT_EXPECT_TRUE(test, test_bit(600 - 512, t->bits));
	container_get(test, 1, 511, true);
	KUNIT_EXPECT_TRUE(test, test_bit(4, t->bits));
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_TRUE(test, test_bit(700, t->bits));
	KUNIT_EXPECT_TRUE(test, test_bit(1700, t->bits));
	/* Mapped anew it is clean. */
	KUNIT_ASSERT_EQ(test, container_map(test, 1, 611, 1, RW, false), 0);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);
	container_get(test, 0, WINDOW, true);
	container_expect(test, 0, 0);
	container_check(test);
}

/* Device memory: can be written to as user memory, but not be pinned. */
static int pfnmap_mmap(struct file *file, struct vm_area_struct *vma)
{
	return remap_pfn_range(vma, vma->vm_start,
			       (unsigned long)file->private_data,
			       vma->vm_end - vma->vm_start, vma->vm_page_prot);
}

static const struct file_operations pfnmap_fops = {
	.owner	= THIS_MODULE,
	.mmap	= pfnmap_mmap,
};

static void pfnmap_at(struct kunit *test, unsigned long vaddr, unsigned long pfn)
{
	struct file *file = anon_inode_getfile("[mock device]", &pfnmap_fops,
					       (void *)pfn, O_RDWR);

	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	KUNIT_ASSERT_EQ(test, kunit_vm_mmap(test, file, vaddr, PAGE_SIZE,
					    PROT_READ | PROT_WRITE,
					    MAP_SHARED | MAP_FIXED, 0), vaddr);
	fput(file);
}

/* Two pages of user memory, of which the second is a device's */
static unsigned long pfnmap_behind(struct kunit *test, struct page *page)
{
	unsigned long vaddr = kunit_vm_mmap(test, NULL, 0, 2 * PAGE_SIZE,
					    PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, 0);

	pfnmap_at(test, vaddr + PAGE_SIZE, page_to_pfn(page));
	return vaddr;
}

/* A bitmap that cannot be written, and an IOMMU that cannot be read */
static void hardware_fails(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock = container_hardware(test);
	struct page *page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	unsigned long vaddr;
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, page);
	vaddr = pfnmap_behind(test, page);
	container_write(test, &t->groups[0], 5, 1);
	container_write(test, &t->groups[0], 1700, 1);
	/* There is none, there is a device, and there is one at its end. */
	for (i = 0; i < 2; i++) {
		KUNIT_EXPECT_EQ(test, container_bits(test, 3, 1800, i, PAGE_SIZE),
				-EFAULT);
		KUNIT_EXPECT_EQ(test, container_bits(test, 3, 1800, i,
						     vaddr + PAGE_SIZE), -EFAULT);
		KUNIT_EXPECT_EQ(test, container_bits(test, 3, 1800, i,
						     vaddr + PAGE_SIZE - 16), -EFAULT);
		container_check(test);
	}
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_FALSE(test, test_bit(1000, t->bits));

	/* It goes when the bits have been read: they can be anywhere. */
	container_write(test, &t->groups[0], 5, 1);
	mock->munmap = vaddr;
	KUNIT_EXPECT_EQ(test, container_bits(test, 1, 1800, false, vaddr), -EFAULT);
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_TRUE(test, test_bit(1000, t->bits));
	KUNIT_EXPECT_FALSE(test, test_bit(WINDOW - 1, t->bits));
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);

	mock->fail_read = true;
	container_write(test, &t->groups[0], 5, 1);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, WINDOW);
	mock->fail_read = false;
	container_get(test, 0, WINDOW, false);
	container_unmap_all(test);
	vm_munmap(vaddr, 2 * PAGE_SIZE);
	__free_page(page);
}

/* A bitmap need not be aligned, and what fills up its last word has no pages. */
static void hardware_unaligned(struct kunit *test)
{
	static const unsigned int npages[] = { 1, 8, 9, 63, 64, 65, 100, WINDOW };
	struct container_test *t = test->priv;
	unsigned int i, offset;

	container_hardware(test);
	for (i = 0; i < ARRAY_SIZE(npages); i++) {
		for (offset = 1; offset <= 9; offset++) {
			t->bitmap = 2 * PAGE_SIZE - offset;
			if (npages[i] == WINDOW)
				t->bitmap -= 128;
			container_write(test, &t->groups[0], offset, 1);
			container_write(test, &t->groups[0], npages[i] - 1, 1);
			container_get(test, 0, npages[i], false);
			KUNIT_EXPECT_TRUE(test, test_bit(npages[i] - 1, t->bits));
			container_get(test, 0, WINDOW, false);
		}
	}
	t->bitmap = ARG_BITMAP;
	container_unmap_all(test);
}

/* The range is read in windows that end where no bit need begin a byte. */
static void hardware_windows(struct kunit *test)
{
	const unsigned int border = 1003;
	struct container_test *t = test->priv;
	unsigned int first;

	base = FAR + MOCK_PUD_PAGES - border;
	container_hardware(test);
	container_get(test, 0, WINDOW, false);
	for (first = 0; first < 9; first++) {
		container_write(test, &t->groups[0], 12, 1);
		container_write(test, &t->groups[0], border - 1, 2);
		container_write(test, &t->groups[0], WINDOW - 1, 1);
		container_dirty(test, border - 2, 1);
		container_dirty(test, border + 1, 1);
		container_get(test, first, WINDOW - first, false);
		/* User memory is contiguous, but not as aligned as that. */
		KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW), 6);
		container_get(test, 0, WINDOW, false);
		container_expect(test, 0, 0);
	}
	container_unmap_all(test);
}

/* Map, or get the dirty bitmap of, what is outside of the window. */
static void far_map(struct kunit *test, unsigned long index)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = t->memory->vaddr,
		.iova = (BASE + index) << PAGE_SHIFT,
		.size = PAGE_SIZE,
	};

	KUNIT_ASSERT_EQ(test, container_ioctl(test, VFIO_IOMMU_MAP_DMA, &map,
					      sizeof(map)), 0);
}

static int far_get(struct kunit *test, unsigned long npages, unsigned long vaddr)
{
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} get = {
		.dirty.argsz = sizeof(get),
		.dirty.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
		.get.iova = BASE << PAGE_SHIFT,
		.get.size = npages << PAGE_SHIFT,
		.get.bitmap.pgsize = PAGE_SIZE,
		.get.bitmap.size = VFIO_DMA_BITMAP_BYTES(npages),
		.get.bitmap.data = (void __user *)vaddr,
	};

	return container_ioctl(test, VFIO_IOMMU_DIRTY_PAGES, &get, sizeof(get));
}

/*
 * A bitmap of more than 2 MiB loses a page, and has another before the call ends.
 * What an IOMMU has recorded is reported then, or by the next call.
 */
static void hardware_large(struct kunit *test)
{
	/* Pages that are written to, with a few GiB between them and most of 64 */
	static const unsigned long pages[] = {
		0, 5000, 65 * MOCK_PUD_PAGES, 66 * MOCK_PUD_PAGES + 7,
	};
	/* Whose bits' page goes when the first one's are read, and when it is back */
	static const struct { unsigned int gone, remap; } cases[] = {
		{ 2, 0 }, { 2, 2 }, { 2, 3 }, { 0, 1 }, { 0, 2 }, { 3, 1 }, { 3, 3 },
	};
	const unsigned long npages = 67 * MOCK_PUD_PAGES;
	const size_t bytes = VFIO_DMA_BITMAP_BYTES(npages);
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.flags = VFIO_DMA_UNMAP_FLAG_ALL,
	};
	struct container_test *t = test->priv;
	unsigned int i, k, found;
	struct mock_domain *mock;
	unsigned long vaddr, at;
	u8 byte;
	int ret;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	mock = t->groups[0].domain;
	vaddr = kunit_vm_mmap(test, NULL, 0, bytes, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_NE(test, vaddr, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(vaddr));
	for (k = 0; k < ARRAY_SIZE(pages); k++)
		far_map(test, pages[k]);
	container_track(test);

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		for (k = 0; k < ARRAY_SIZE(pages); k++)
			KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + pages[k]));
		at = vaddr + pages[cases[i].gone] / BITS_PER_BYTE;
		at &= PAGE_MASK;
		mock->munmap = at;
		mock->remap = cases[i].remap;
		found = 0;
		do {
			ret = far_get(test, npages, vaddr);
			if (ret) {
				KUNIT_ASSERT_EQ(test, ret, -EFAULT);
				at = kunit_vm_mmap(test, NULL, at, PAGE_SIZE,
						   PROT_READ | PROT_WRITE,
						   MAP_PRIVATE | MAP_ANONYMOUS |
						   MAP_FIXED, 0);
				mock->gone = 0;
				continue;
			}
			for (k = 0; k < ARRAY_SIZE(pages); k++) {
				byte = 0;
				KUNIT_EXPECT_EQ(test, get_user(byte, (u8 __user *)vaddr +
							pages[k] / BITS_PER_BYTE), 0);
				found += !!(byte & BIT(pages[k] % BITS_PER_BYTE));
			}
		} while (ret);
		KUNIT_EXPECT_EQ_MSG(test, found, ARRAY_SIZE(pages), "case %u", i);
	}
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), 0);
}

/* Domains come and go while writes are tracked. */
static void hardware_domains(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_hardware(test);
	/* One that does not track: everything, until it has gone */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[0]), 0);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_ALL);
	container_write(test, &t->groups[0], 5, 1);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, WINDOW);
	/* Or until it turns out to write only to what it has pinned */
	container_see(test, &t->groups[1]);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_get(test, 0, WINDOW, false);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);
	container_detach(test, &t->groups[1]);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[0]), 0);
	container_detach(test, &t->groups[1]);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, WINDOW);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);

	/* One that tracks is made to; and both are asked. */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &other_dirty), 0);
	KUNIT_EXPECT_TRUE(test, t->groups[1].domain->tracking);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_write(test, &t->groups[0], 5, 1);
	container_write(test, &t->groups[1], 1700, 1);
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_FALSE(test, test_bit(1000, t->bits));
	container_write(test, &t->groups[1], 1700, 1);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 1690, 5), 0);
	container_get(test, 1, 1699, false);
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_FALSE(test, test_bit(1000, t->bits));
	/* It goes, and its IO page table with it. */
	container_write(test, &t->groups[1], 1700, 1);
	container_detach(test, &t->groups[1]);
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW), WINDOW - 5);

	/* One that fails to */
	mock_fail_track = true;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &other_dirty), 0);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_ALL);
	container_write(test, &t->groups[1], 1700, 1);
	container_get(test, 0, WINDOW, false);
	/* It may do better next time. */
	container_dirty_flag(test, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_track(test);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_ALL);
	container_dirty_flag(test, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
	t->groups[1].domain->fail_track = false;
	container_track(test);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_unmap_all(test);
}

/* Groups behind one IOMMU: its bits remain when one of them goes. */
static void hardware_shared(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned long first, npages;

	container_hardware(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1],
					       test->param_value), 0);
	KUNIT_EXPECT_PTR_EQ(test, t->groups[0].domain, t->groups[1].domain);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_write(test, &t->groups[1], 700, 1);
	npages = container_leaf(test, 700, &first);
	container_detach(test, &t->groups[1]);
	container_get(test, 0, WINDOW, false);
	container_expect(test, first, npages);

	/* Without the bits it is another domain. */
	mock_refuse_dirty = true;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1],
					       test->param_value), 0);
	KUNIT_EXPECT_PTR_NE(test, t->groups[0].domain, t->groups[1].domain);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_ALL);
	container_detach(test, &t->groups[1]);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_unmap_all(test);
}

/*
 * A domain that failed to record was no matter to a group that only pins.  A group that
 * writes unseen does not share it where the IOMMUs' bits were asked for.
 */
static void hardware_promise(struct kunit *test)
{
	struct container_test *t = test->priv;

	mock_fail_track = true;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
					       test->param_value), 0);
	container_see(test, &t->groups[0]);
	container_dirty_flag(test, VFIO_IOMMU_DIRTY_PAGES_FLAG_START |
			     VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_PINNED);

	KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[1],
					       test->param_value), -EBUSY);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_PINNED);
	mock_fail_track = false;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1],
					       test->param_value), 0);
	KUNIT_EXPECT_PTR_NE(test, t->groups[0].domain, t->groups[1].domain);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
}

#endif /* __VFIO_TYPE1V3_DIRTY_H */
