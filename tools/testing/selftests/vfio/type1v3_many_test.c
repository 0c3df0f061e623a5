// SPDX-License-Identifier: GPL-2.0-only
/*
 * Calls that have very many pages to walk through let others run meanwhile. That
 * is for the soft lockup detector to see, where the kernel preempts nobody: run
 * with TYPE1V3_MANY=1048576 and sysctl kernel.watchdog_thresh=1.
 */
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "type1v3_harness.h"
#include "type1v3_emulated.h"
#include "type1v3_mock.h"

/* Where the pages are that are mapped, each by itself */
struct pattern {
	unsigned long stride;	/* pages from one to the next */
	bool read_only;		/* every other one is */
	bool device_memory;	/* all are one page, which is not memory */
};

/* no two alike: nothing can be treated as one */
static const struct pattern second = { 2 };
static const struct pattern alternating = { 1, .read_only = true };
static const struct pattern regions = { LEAF / PAGE + 16 };	/* at another place in each */
static const struct pattern aliases = { 1, .device_memory = true };

FIXTURE(many) {
	struct container c;
	struct mock mock;
	struct mem mem;
	const char *bdf;
	int device;
	void *device_memory;
	bool was_unsafe;
	long npages;
	__u64 *bits;
	size_t bytes;
	struct vfio_iommu_type1v3_batch_entry e[VFIO_IOMMU_TYPE1V3_BATCH_MAX];
};

FIXTURE_VARIANT(many) {
	enum { BEHIND_NONE, BEHIND_OWN, BEHIND_MOCK } iommu;
	unsigned long type;
	const struct pattern *pattern;
};

FIXTURE_VARIANT_ADD(many, emulated) { BEHIND_NONE, VFIO_TYPE1v3_IOMMU, &second };
FIXTURE_VARIANT_ADD(many, nvme) { BEHIND_OWN, VFIO_TYPE1v3_IOMMU, &second };
FIXTURE_VARIANT_ADD(many, pt) { BEHIND_OWN, VFIO_TYPE1v3_PT_IOMMU, &second };
/* A mock IOMMU takes less memory for pages far apart than page tables do. */
FIXTURE_VARIANT_ADD(many, pt_alternating)
	{ BEHIND_MOCK, VFIO_TYPE1v3_PT_IOMMU, &alternating };
FIXTURE_VARIANT_ADD(many, pt_regions) { BEHIND_MOCK, VFIO_TYPE1v3_PT_IOMMU, &regions };
FIXTURE_VARIANT_ADD(many, pt_aliases) { BEHIND_MOCK, VFIO_TYPE1v3_PT_IOMMU, &aliases };

static void many_map(struct __test_metadata *_metadata, FIXTURE_DATA(many) * self,
		     const struct pattern *pattern, __u64 base)
{
	const long nr = VFIO_IOMMU_TYPE1V3_BATCH_MAX;

	for (long page = 0; page < self->npages; page += nr) {
		for (long i = 0; i < nr; i++) {
			self->e[i] = (struct vfio_iommu_type1v3_batch_entry) {
				.iova = base + (page + i) * pattern->stride * PAGE,
				.size = PAGE,
				.vaddr = (uintptr_t)self->mem.va +
					 (page + i) * 3 % 512 * PAGE,
				.flags = pattern->read_only && i % 2 ? RO : RW,
			};
			if (!self->device_memory)
				continue;
			self->e[i].vaddr = (uintptr_t)self->device_memory;
			self->e[i].flags = RO;
		}
		ASSERT_EQ(0, dma_batch(&self->c, 0, nr, self->e));
	}
}

FIXTURE_SETUP(many)
{
	struct vfio_mock_iommu_create config = { .pgsizes = PAGE | LEAF };
	const char *many = getenv("TYPE1V3_MANY");

	container_init(&self->c);
	mock_init(&self->mock);
	self->bdf = need_device(_metadata, ENV_NVME);
	if (!self->bdf)
		return;
	self->npages = many ? atol(many) : 16384;
	if (variant->iommu == BEHIND_MOCK) {
		self->was_unsafe = mock_allow_unsafe(true);
		ASSERT_EQ(0, mock_create(&self->mock, &config));
		self->bdf = self->mock.name[0];
	}
	ASSERT_EQ(0, container_open(&self->c, 0, NULL));
	ASSERT_EQ(0, variant->iommu == BEHIND_NONE ? emulated_attach(&self->c, 0) :
		     container_attach(&self->c, self->bdf));
	ASSERT_EQ(0, ioctl(self->c.fd, VFIO_SET_IOMMU, variant->type));
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, 2 * MIB));
	memset(self->mem.va, 1, self->mem.size);
	if (variant->pattern->device_memory) {
		self->device = container_device(&self->c, self->bdf);
		ASSERT_LE(0, self->device);
		self->device_memory = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->device, 0);
		ASSERT_NE(MAP_FAILED, self->device_memory);
	}
	self->bytes = self->npages * variant->pattern->stride / 8;
	self->bits = calloc(1, self->bytes);
	ASSERT_NE(NULL, self->bits);
	many_map(_metadata, self, variant->pattern, TEST_IOVA);
	/* what keeps the group in the container */
	if (self->device_memory) {
		munmap(self->device_memory, PAGE);
		close(self->device);
	}
}

FIXTURE_TEARDOWN(many)
{
	container_close(&self->c);
	if (variant->iommu == BEHIND_MOCK) {
		EXPECT_EQ(0, mock_state(&self->mock).errors);
		EXPECT_EQ(0, mock_state(&self->mock).leaves);
		mock_destroy(&self->mock);
		mock_allow_unsafe(self->was_unsafe);
	}
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
		  dma_unmap(&self->c, TEST_IOVA,
			    self->npages * variant->pattern->stride * PAGE));
}

TEST_F_TIMEOUT(many, close, 1200)
{
	container_close(&self->c);
}

TEST_F_TIMEOUT(many, dirty, 1200)
{
	const unsigned long stride = variant->pattern->stride;
	struct container *c = &self->c;
	__u64 want;

	ASSERT_EQ(0, dirty_tracking(c, VFIO_IOMMU_DIRTY_PAGES_FLAG_START));
	/* a device that writes unseen comes and goes, and all of it is dirty */
	if (variant->iommu == BEHIND_NONE) {
		ASSERT_EQ(0, container_attach(c, self->bdf));
		ASSERT_EQ(0, container_detach(c, self->bdf));
	}
	ASSERT_EQ(0, dirty_bitmap(c, TEST_IOVA, self->npages * stride * PAGE, PAGE,
				  self->bits, self->bytes));
	for (size_t i = 0; i < self->bytes / 8; i++) {
		want = 0;
		for (size_t bit = 0; bit < 64; bit++)
			want |= (__u64)!((i * 64 + bit) % stride) << bit;
		ASSERT_EQ(want, self->bits[i]);
	}
	EXPECT_EQ(0, dirty_tracking(c, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP));
}

TEST_F_TIMEOUT(many, invalidate_vaddr, 1200)
{
	EXPECT_EQ(variant->iommu == BEHIND_NONE ? -EBUSY : has_vaddr(variant->type) ?
		  self->npages * (__s64)PAGE : -EOPNOTSUPP,
		  vaddr_invalidate(&self->c, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL));
}

/*
 * The first map of a second container enters all that the first one holds in a ledger: so
 * much that it takes longer than the detector allows, and each page more often than it is
 * charged once for.
 */
TEST_F_TIMEOUT(many, beside, 2400)
{
	const long holds = 4 * self->npages / 512, charged_for = 64;
	struct container beside;
	long locked;

	if (variant->iommu != BEHIND_OWN || !need_device(_metadata, ENV_NVME2))
		return;
	for (int i = 0; i < 3; i++)
		many_map(_metadata, self, variant->pattern,
			 OTHER_IOVA + 2 * i * self->npages * PAGE);
	locked = locked_pages() - 4 * self->npages;
	container_init(&beside);
	ASSERT_EQ(0, container_open(&beside, VFIO_TYPE1v3_IOMMU, getenv(ENV_NVME2)));
	ASSERT_EQ(0, dma_map(&beside, TEST_IOVA, self->mem.va, PAGE, RW));
	EXPECT_EQ(512 * ((holds + charged_for - 1) / charged_for) + !(holds % charged_for),
		  locked_pages() - locked);
	container_close(&beside);
	EXPECT_EQ(4 * self->npages * (__s64)PAGE, dma_unmap_all(&self->c));
	EXPECT_EQ(locked, locked_pages());
}

TEST_HARNESS_MAIN
