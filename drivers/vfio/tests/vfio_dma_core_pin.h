/* SPDX-License-Identifier: GPL-2.0-only */
/* KUnit tests of pinning */
#ifndef _VFIO_DMA_CORE_PIN_H
#define _VFIO_DMA_CORE_PIN_H

#include "vfio_dma_core_rig.h"

static const unsigned int pin_orders[] = { 9, 0 };

static void pin_get_desc(const unsigned int *order, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "order %u", *order);
}

KUNIT_ARRAY_PARAM(pin_order, pin_orders, pin_get_desc);

/* The next extent, as the engine takes it */
static bool pin_take(struct vfio_dma_pin *pin, struct vfio_dma_extent *extent)
{
	*extent = (struct vfio_dma_extent){ .npages = 1 };
	return vfio_dma_pin_single(pin, &extent->pfn) || vfio_dma_pin_extent(pin, extent);
}

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
		while (pin_take(&pin, &extent)) {
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

#endif /* _VFIO_DMA_CORE_PIN_H */
