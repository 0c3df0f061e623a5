// SPDX-License-Identifier: GPL-2.0-only
/*
 * Calls that have very many pages to walk through let others run meanwhile. That
 * is for the soft lockup detector to see, where the kernel preempts nobody: run
 * with TYPE1V3_MANY=1048576 and sysctl kernel.watchdog_thresh=1.
 */
#include <stdlib.h>
#include <sys/ioctl.h>

#include "type1v3_harness.h"
#include "type1v3_emulated.h"

FIXTURE(many) {
	struct container c;
	struct mem mem;
	long npages;
	__u64 *bits;
	size_t bytes;
	struct vfio_iommu_type1v3_batch_entry e[VFIO_IOMMU_TYPE1V3_BATCH_MAX];
};

FIXTURE_VARIANT(many) {
	bool nvme;
};

FIXTURE_VARIANT_ADD(many, emulated) { false };
FIXTURE_VARIANT_ADD(many, nvme) { true };

/* Every second page, no two alike: nothing can be treated as one. */
static __u64 many_iova(long page)
{
	return TEST_IOVA + 2 * page * PAGE;
}

static void many_map(struct __test_metadata *_metadata, FIXTURE_DATA(many) * self)
{
	const long nr = VFIO_IOMMU_TYPE1V3_BATCH_MAX;

	for (long page = 0; page < self->npages; page += nr) {
		for (long i = 0; i < nr; i++) {
			self->e[i] = (struct vfio_iommu_type1v3_batch_entry) {
				.iova = many_iova(page + i),
				.size = PAGE,
				.vaddr = (uintptr_t)self->mem.va +
					 (page + i) * 3 % 512 * PAGE,
				.flags = RW,
			};
		}
		ASSERT_EQ(0, dma_batch(&self->c, 0, nr, self->e));
	}
}

FIXTURE_SETUP(many)
{
	const char *many = getenv("TYPE1V3_MANY");

	container_init(&self->c);
	if (!need_device(_metadata, ENV_NVME))
		return;
	self->npages = many ? atol(many) : 16384;
	ASSERT_EQ(0, container_open(&self->c, 0, NULL));
	ASSERT_EQ(0, variant->nvme ?
		     container_attach(&self->c, getenv(ENV_NVME)) :
		     emulated_attach(&self->c, 0));
	ASSERT_EQ(0, ioctl(self->c.fd, VFIO_SET_IOMMU, VFIO_TYPE1v3_IOMMU));
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, 2 * MIB));
	memset(self->mem.va, 1, self->mem.size);
	self->bytes = self->npages / 4;
	self->bits = calloc(1, self->bytes);
	ASSERT_NE(NULL, self->bits);
	many_map(_metadata, self);
}

FIXTURE_TEARDOWN(many)
{
	container_close(&self->c);
	mem_free(&self->mem);
	free(self->bits);
}

TEST_F_TIMEOUT(many, unmap_all, 1200)
{
	EXPECT_EQ(self->npages * (__s64)PAGE, dma_unmap_all(&self->c));
}

TEST_F_TIMEOUT(many, unmap_range, 1200)
{
	EXPECT_EQ(self->npages * (__s64)PAGE,
		  dma_unmap(&self->c, TEST_IOVA, 2 * self->npages * PAGE));
}

TEST_F_TIMEOUT(many, close, 1200)
{
	container_close(&self->c);
}

TEST_F_TIMEOUT(many, dirty, 1200)
{
	struct container *c = &self->c;
	__u64 want = variant->nvme ? 0x5555555555555555ULL : 0;

	ASSERT_EQ(0, dirty_tracking(c, VFIO_IOMMU_DIRTY_PAGES_FLAG_START));
	/* a device that writes unseen comes and goes, and all of it is dirty */
	if (!variant->nvme) {
		ASSERT_EQ(0, container_attach(c, getenv(ENV_NVME)));
		ASSERT_EQ(0, container_detach(c, getenv(ENV_NVME)));
		want = 0x5555555555555555ULL;
	}
	ASSERT_EQ(0, dirty_bitmap(c, TEST_IOVA, 2 * self->npages * PAGE, PAGE,
				  self->bits, self->bytes));
	for (size_t i = 0; i < self->bytes / 8; i++)
		ASSERT_EQ(want, self->bits[i]);
	EXPECT_EQ(0, dirty_tracking(c, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP));
}

TEST_F_TIMEOUT(many, invalidate_vaddr, 1200)
{
	EXPECT_EQ(variant->nvme ? self->npages * (__s64)PAGE : -EBUSY,
		  vaddr_invalidate(&self->c, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL));
}

TEST_HARNESS_MAIN
