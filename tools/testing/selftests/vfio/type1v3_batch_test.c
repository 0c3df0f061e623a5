// SPDX-License-Identifier: GPL-2.0-only
/*
 * VFIO_IOMMU_TYPE1V3_BATCH: maps and unmaps of many ranges in one call, with the
 * same single calls as the control.
 */
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "type1v3_harness.h"

#define NPAGES	64

FIXTURE(batch) {
	struct container c;
	struct nvme nvme;
	struct mem mem;
	long locked, pinned;
	struct vfio_iommu_type1v3_batch_entry e[VFIO_IOMMU_TYPE1V3_BATCH_MAX];
};

FIXTURE_VARIANT(batch) { unsigned long type; };
ADD_V3_TYPES(batch);

FIXTURE_SETUP(batch)
{
	const char *bdf;

	container_init(&self->c);
	nvme_init(&self->nvme);
	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf)
		return;
	ASSERT_EQ(0, container_open(&self->c, variant->type, bdf));
	ASSERT_EQ(0, nvme_open(&self->nvme, &self->c, bdf, NVME_IOVA));
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K,
			       VFIO_IOMMU_TYPE1V3_BATCH_MAX * PAGE));
	self->locked = locked_pages();
	self->pinned = pinned_pages();
}

FIXTURE_TEARDOWN(batch)
{
	nvme_close(&self->nvme);
	container_close(&self->c);
	mem_free(&self->mem);
}

#define EXPECT_LOCKED(npages) do { \
	long _npages = (npages); \
	EXPECT_EQ(_npages, locked_pages() - self->locked); \
	EXPECT_EQ(_npages, pinned_pages() - self->pinned); \
} while (0)

static void set_map(struct vfio_iommu_type1v3_batch_entry *e, __u64 iova,
		    void *va, __u64 size, __u32 flags)
{
	*e = (struct vfio_iommu_type1v3_batch_entry) {
		.iova = iova, .size = size, .vaddr = (uintptr_t)va,
		.flags = flags, .result = 1,
	};
}

static void set_unmap(struct vfio_iommu_type1v3_batch_entry *e, __u64 iova,
		      __u64 size)
{
	*e = (struct vfio_iommu_type1v3_batch_entry) {
		.iova = iova, .size = size,
		.flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP, .result = 1,
	};
}

/* Page i of the memory has the pattern of seed i. */
static void expect_page(struct __test_metadata *_metadata, struct nvme *n,
			__u64 iova, long i)
{
	__u8 data[PAGE];

	ASSERT_EQ(0, nvme_dma_read(n, &iova, 1, data));
	EXPECT_EQ(-1, pattern_check(data, PAGE, i * (PAGE / 8)));
}

TEST_F(batch, adjacent)
{
	const __u32 nr = VFIO_IOMMU_TYPE1V3_BATCH_MAX;

	pattern_fill(self->mem.va, self->mem.size, 0);
	for (__u32 i = 0; i < nr; i++)
		set_map(&self->e[i], TEST_IOVA + i * PAGE,
			self->mem.va + i * PAGE, PAGE, RW);
	ASSERT_EQ(0, dma_batch(&self->c, 0, nr, self->e));
	for (__u32 i = 0; i < nr; i++)
		ASSERT_EQ(0, self->e[i].result);
	EXPECT_LOCKED(nr);
	for (__u32 i = 0; i < nr; i += 97)
		expect_page(_metadata, &self->nvme, TEST_IOVA + i * PAGE, i);

	/* single calls find what the batch has made, and the reverse */
	EXPECT_EQ(-EEXIST, dma_map(&self->c, TEST_IOVA + 5 * PAGE,
				   self->mem.va, PAGE, RW));
	EXPECT_EQ(PAGE, dma_unmap(&self->c, TEST_IOVA + 5 * PAGE, PAGE));

	for (__u32 i = 0; i < nr; i++)
		set_unmap(&self->e[i], TEST_IOVA + i * PAGE, PAGE);
	ASSERT_EQ(0, dma_batch(&self->c, 0, nr, self->e));
	for (__u32 i = 0; i < nr; i++) {
		ASSERT_EQ(0, self->e[i].result);
		ASSERT_EQ(i == 5 ? 0 : PAGE, self->e[i].size);
	}
	EXPECT_LOCKED(0);
	EXPECT_EQ(PROBE_FAULT, nvme_probe_read(&self->nvme, TEST_IOVA));
}

TEST_F(batch, scattered)
{
	__u32 page[NPAGES];

	pattern_fill(self->mem.va, self->mem.size, 0);
	for (__u32 i = 0; i < NPAGES; i++) {
		page[i] = i * 7 % NPAGES;
		set_map(&self->e[i], TEST_IOVA + i * 4096UL * PAGE,
			self->mem.va + page[i] * PAGE, PAGE, RW);
	}
	ASSERT_EQ(0, dma_batch(&self->c, 0, NPAGES, self->e));
	EXPECT_LOCKED(NPAGES);
	for (__u32 i = 0; i < NPAGES; i++)
		expect_page(_metadata, &self->nvme,
			    TEST_IOVA + i * 4096UL * PAGE, page[i]);
	for (__u32 i = 0; i < NPAGES; i++)
		set_unmap(&self->e[i], TEST_IOVA + i * 4096UL * PAGE, PAGE);
	ASSERT_EQ(0, dma_batch(&self->c, 0, NPAGES, self->e));
	EXPECT_LOCKED(0);
	for (__u32 i = 0; i < NPAGES; i++)
		ASSERT_EQ(PAGE, self->e[i].size);
}

/* In order: what is unmapped first can be mapped anew by the same batch. */
TEST_F(batch, in_order)
{
	pattern_fill(self->mem.va, self->mem.size, 0);
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, 8 * PAGE, RW));
	set_unmap(&self->e[0], TEST_IOVA + 2 * PAGE, PAGE);
	set_map(&self->e[1], TEST_IOVA + 2 * PAGE, self->mem.va + 20 * PAGE,
		PAGE, RW);
	set_unmap(&self->e[2], TEST_IOVA + 3 * PAGE, 2 * PAGE);
	set_map(&self->e[3], TEST_IOVA + 4 * PAGE, self->mem.va + 21 * PAGE,
		PAGE, RO);
	ASSERT_EQ(0, dma_batch(&self->c, 0, 4, self->e));
	expect_page(_metadata, &self->nvme, TEST_IOVA + 1 * PAGE, 1);
	expect_page(_metadata, &self->nvme, TEST_IOVA + 2 * PAGE, 20);
	EXPECT_EQ(PROBE_FAULT, nvme_probe_read(&self->nvme,
					       TEST_IOVA + 3 * PAGE));
	expect_page(_metadata, &self->nvme, TEST_IOVA + 4 * PAGE, 21);
	EXPECT_LOCKED(7);
}

/* A failure in the middle of entries that continue each other */
TEST_F(batch, first_error_ends)
{
	for (int i = 0; i < 8; i++)
		set_map(&self->e[i], TEST_IOVA + i * PAGE,
			self->mem.va + i * PAGE, PAGE, RW);
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + 3 * PAGE, self->mem.va,
			     PAGE, RW));
	EXPECT_EQ(1, dma_batch(&self->c, 0, 8, self->e));
	for (int i = 0; i < 8; i++)
		EXPECT_EQ(i < 3 ? 0 : i == 3 ? -EEXIST : -ECANCELED,
			  self->e[i].result);
	EXPECT_LOCKED(4);

	/* going on maps what is missing, and says what was there */
	EXPECT_EQ(4, dma_batch(&self->c, VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE, 8,
			       self->e));
	for (int i = 0; i < 8; i++)
		EXPECT_EQ(i < 4 ? -EEXIST : 0, self->e[i].result);
	EXPECT_LOCKED(8);
}

/* What fails has not taken its range, neither for the next entry nor for others. */
TEST_F(batch, after_a_failure)
{
	const __u32 go_on = VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE;
	__u8 *hole = self->mem.va + 50 * PAGE;

	ASSERT_EQ(0, munmap(hole, PAGE));
	/* with few pages, and with so many that they are not mapped in one go */
	for (long n = 1; n <= 64; n *= 64) {
		set_map(&self->e[0], TEST_IOVA, hole - n / 2 * PAGE, n * PAGE, RW);
		set_map(&self->e[1], TEST_IOVA, self->mem.va + 100 * PAGE, n * PAGE, RW);
		set_map(&self->e[2], TEST_IOVA, self->mem.va + 200 * PAGE, n * PAGE, RW);
		EXPECT_EQ(2, dma_batch(&self->c, go_on, 3, self->e));
		EXPECT_EQ(-EFAULT, self->e[0].result);
		EXPECT_EQ(0, self->e[1].result);
		EXPECT_EQ(-EEXIST, self->e[2].result);
		EXPECT_LOCKED(n);
		EXPECT_EQ(n * PAGE, dma_unmap(&self->c, TEST_IOVA, n * PAGE));

		EXPECT_EQ(1, dma_batch(&self->c, 0, 3, self->e));
		EXPECT_EQ(-EFAULT, self->e[0].result);
		EXPECT_EQ(-ECANCELED, self->e[1].result);
		EXPECT_EQ(-ECANCELED, self->e[2].result);
		EXPECT_LOCKED(0);
	}
}

/*
 * Entries that continue each other are treated as one, until one in the middle fails:
 * that one has its errno, and those around it are done.
 */
TEST_F(batch, middle_of_a_unit)
{
	const __u32 nr = VFIO_IOMMU_TYPE1V3_BATCH_MAX;

	pattern_fill(self->mem.va, self->mem.size, 0);
	ASSERT_EQ(0, mprotect(self->mem.va + 700 * PAGE, PAGE, PROT_READ));
	ASSERT_EQ(0, munmap(self->mem.va + 300 * PAGE, PAGE));
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + 900 * PAGE, self->mem.va, PAGE, RO));
	for (__u32 flags = 0; flags <= VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE; flags++) {
		for (__u32 i = 0; i < nr; i++)
			set_map(&self->e[i], TEST_IOVA + i * PAGE,
				self->mem.va + i * PAGE, PAGE, RW);
		EXPECT_EQ(flags ? 3 : 1, dma_batch(&self->c, flags, nr, self->e));
		for (__u32 i = 0; i < nr; i++) {
			int expected = i == 300 || i == 700 ? -EFAULT :
				       i == 900 ? -EEXIST : 0;

			if (i > 300 && !flags)
				expected = -ECANCELED;
			ASSERT_EQ(expected, self->e[i].result) TH_LOG("entry %u", i);
		}
		EXPECT_LOCKED(flags ? nr - 2 : 301);
		expect_page(_metadata, &self->nvme, TEST_IOVA + 299 * PAGE, 299);
		if (flags)
			expect_page(_metadata, &self->nvme, TEST_IOVA + 1023 * PAGE, 1023);

		for (__u32 i = 0; i < nr; i++)
			set_unmap(&self->e[i], TEST_IOVA + i * PAGE, PAGE);
		EXPECT_EQ(0, dma_batch(&self->c, 0, 900, self->e));
		EXPECT_EQ(0, dma_batch(&self->c, 0, nr - 901, self->e + 901));
		for (__u32 i = 0; i < nr; i++) {
			bool was = i != 300 && i != 700 && (flags || i < 300);

			if (i == 900)
				continue;
			ASSERT_EQ(was ? PAGE : 0, self->e[i].size);
		}
		EXPECT_LOCKED(1);
	}
}

/* Malformed entries fail as any other, and are no reason not to do the others. */
TEST_F(batch, malformed_in_the_middle)
{
	for (__u32 flags = 0; flags <= VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE; flags++) {
		const int rest = flags ? 0 : -ECANCELED;

		for (int i = 0; i < 8; i++)
			set_map(&self->e[i], TEST_IOVA + i * PAGE,
				self->mem.va + i * PAGE, PAGE, RW);
		self->e[3].size++;
		self->e[4].flags |= 1U << 17;
		self->e[5].iova = -PAGE;
		self->e[5].size = 2 * PAGE;
		EXPECT_EQ(flags ? 3 : 1, dma_batch(&self->c, flags, 8, self->e));
		for (int i = 0; i < 3; i++)
			EXPECT_EQ(0, self->e[i].result);
		EXPECT_EQ(-EINVAL, self->e[3].result);
		EXPECT_EQ(rest ?: -EINVAL, self->e[4].result);
		EXPECT_EQ(rest ?: -EOVERFLOW, self->e[5].result);
		EXPECT_EQ(rest, self->e[6].result);
		EXPECT_EQ(rest, self->e[7].result);
		EXPECT_LOCKED(flags ? 5 : 3);

		for (int i = 0; i < 8; i++)
			set_unmap(&self->e[i], TEST_IOVA + i * PAGE, PAGE);
		self->e[1].vaddr = PAGE;
		EXPECT_EQ(1, dma_batch(&self->c, flags, 8, self->e));
		EXPECT_EQ(0, self->e[0].result);
		EXPECT_EQ(-EINVAL, self->e[1].result);
		EXPECT_EQ(PAGE, self->e[1].size);
		for (int i = 2; i < 8; i++) {
			EXPECT_EQ(rest, self->e[i].result);
			EXPECT_EQ(flags && i > 2 && i < 6 ? 0 : PAGE, self->e[i].size);
		}
		EXPECT_LOCKED(flags ? 1 : 2);
		EXPECT_EQ(flags ? PAGE : 2 * PAGE, dma_unmap(&self->c, TEST_IOVA, 8 * PAGE));
	}
}

/* The last of the errors of the call, and the only one that comes after the fact */
TEST_F(batch, results_not_writable)
{
	struct vfio_iommu_type1v3_batch_entry *e;

	e = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, e);
	set_map(&e[0], TEST_IOVA, self->mem.va, PAGE, RW);
	set_map(&e[1], TEST_IOVA + MIB, self->mem.va + PAGE, PAGE, RW);
	ASSERT_EQ(0, mprotect(e, PAGE, PROT_READ));
	EXPECT_EQ(-EFAULT, dma_batch(&self->c, 0, 2, e));
	EXPECT_EQ(1, e[0].result);
	EXPECT_LOCKED(2);
	EXPECT_EQ(PAGE, dma_unmap(&self->c, TEST_IOVA, PAGE));
	EXPECT_EQ(PAGE, dma_unmap(&self->c, TEST_IOVA + MIB, PAGE));
	munmap(e, PAGE);
}

/* The limit is exact in a batch, too. */
TEST_F(batch, memlock)
{
	struct rlimit limit;

	/* whose first mapping it is decides: let that be the next one */
	ASSERT_LT(0, dma_unmap_all(&self->c));
	self->locked = locked_pages();
	self->pinned = pinned_pages();
	ASSERT_EQ(0, drop_ipc_lock());
	limit.rlim_cur = (self->locked + 5) * PAGE;
	limit.rlim_max = limit.rlim_cur;
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
	for (int i = 0; i < 8; i++)
		set_map(&self->e[i], TEST_IOVA + i * PAGE,
			self->mem.va + i * PAGE, PAGE, RW);
	EXPECT_EQ(1, dma_batch(&self->c, 0, 8, self->e));
	for (int i = 0; i < 8; i++)
		EXPECT_EQ(i < 5 ? 0 : i == 5 ? -ENOMEM : -ECANCELED,
			  self->e[i].result);
	EXPECT_LOCKED(5);

	/* device memory is not charged */
	ASSERT_EQ(5 * PAGE, dma_unmap_all(&self->c));
	ASSERT_LE(PAGE, self->nvme.bar_size);
	set_map(&self->e[4], TEST_IOVA + 4 * PAGE, self->nvme.bar,
		self->nvme.bar_size, RW);
	EXPECT_EQ(0, dma_batch(&self->c, 0, 5, self->e));
	EXPECT_LOCKED(4);
	EXPECT_EQ(4 * PAGE + self->nvme.bar_size, dma_unmap_all(&self->c));
	EXPECT_LOCKED(0);
}

TEST_F(batch, bad_input)
{
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch), .nr_entries = 1,
		.entries = (uintptr_t)self->e,
	}, bad;
	const struct {
		struct vfio_iommu_type1v3_batch_entry e;
		int err;
	} entries[] = {
		{ { TEST_IOVA, 0, 0, RW }, EINVAL },
		{ { TEST_IOVA, PAGE, 0, 0 }, EINVAL },
		{ { TEST_IOVA, PAGE, 0, RW | 1 << 17 }, EINVAL },
		{ { TEST_IOVA, PAGE, 0, RW | 1 << 20 }, EINVAL },
		{ { TEST_IOVA + 1, PAGE, 0, RW }, EINVAL },
		{ { TEST_IOVA, PAGE + 1, 0, RW }, EINVAL },
		{ { -PAGE, 2 * PAGE, 0, RW }, EOVERFLOW },
		{ { TEST_IOVA, 2 * PAGE, -PAGE, RW }, EOVERFLOW },
		{ { TEST_IOVA, PAGE, 0, RW | VFIO_DMA_MAP_FLAG_VADDR }, EINVAL },
		{ { MSI_IOVA, PAGE, 0, RW }, EINVAL },
		{ { TEST_IOVA, PAGE, PAGE,
		    VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP }, EINVAL },
		{ { TEST_IOVA, PAGE, 0,
		    RW | VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP }, EINVAL },
		{ { TEST_IOVA, PAGE, 0,
		    1 << 17 | VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP }, EINVAL },
		{ { TEST_IOVA, 0, 0, VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP }, EINVAL },
		{ { -PAGE, 2 * PAGE, 0, VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP }, EOVERFLOW },
	};

#define EXPECT_BAD(err, field, value) do { \
	bad = batch; \
	bad.field = (value); \
	EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_IOMMU_TYPE1V3_BATCH, &bad)); \
	EXPECT_EQ((err), errno); \
} while (0)
	set_map(&self->e[0], TEST_IOVA, self->mem.va, PAGE, RW);
	EXPECT_BAD(EINVAL, argsz, sizeof(batch) - 1);
	for (int i = 1; i < 32; i++)
		EXPECT_BAD(EINVAL, flags, 1U << i);
	EXPECT_BAD(EINVAL, flags, VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE | 1 << 1);
	EXPECT_BAD(EINVAL, __reserved, 1);
	EXPECT_BAD(EINVAL, nr_entries, 0);
	EXPECT_BAD(EINVAL, nr_entries, VFIO_IOMMU_TYPE1V3_BATCH_MAX + 1);
	EXPECT_BAD(EINVAL, nr_entries, ~0U);
	EXPECT_BAD(EFAULT, entries, 0);
	EXPECT_BAD(EFAULT, entries, ~0UL - 8);
	EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_IOMMU_TYPE1V3_BATCH, NULL));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(1, self->e[0].result);

	/* one bad entry, and the good ones before and after it */
	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		set_map(&self->e[0], TEST_IOVA + MIB, self->mem.va, PAGE, RW);
		self->e[1] = entries[i].e;
		if (!self->e[1].vaddr &&
		    !(self->e[1].flags & VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP))
			self->e[1].vaddr = (uintptr_t)self->mem.va;
		set_unmap(&self->e[2], TEST_IOVA + MIB, PAGE);
		EXPECT_EQ(1, dma_batch(&self->c, VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE,
				       3, self->e)) {
			TH_LOG("entry %zu", i);
		}
		EXPECT_EQ(0, self->e[0].result);
		EXPECT_EQ(-entries[i].err, self->e[1].result);
		EXPECT_EQ(entries[i].e.size, self->e[1].size);
		EXPECT_EQ(0, self->e[2].result);
		EXPECT_EQ(PAGE, self->e[2].size);
	}
	EXPECT_LOCKED(0);
}

TEST_HARNESS_MAIN
