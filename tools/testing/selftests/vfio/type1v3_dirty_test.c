// SPDX-License-Identifier: GPL-2.0-only
/*
 * Dirty tracking of a container: which pages are reported, when, in which bits,
 * and what is refused. Needs the module vfio_emulated_test.
 */
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "type1v3_emulated.h"
#include "type1v3_harness.h"
#include "type1v3_mock.h"

#define IOVA(page)	(TEST_IOVA + (page) * PAGE)
#define NPAGES		512UL
#define BYTES		(NPAGES / 8)

#define START		VFIO_IOMMU_DIRTY_PAGES_FLAG_START
#define STOP		VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP
#define GET		VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP

#define PINNED		VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED
#define HARDWARE	VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE
#define OR		VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR

/*
 * Where no emulated device is let in, the device is behind a mock IOMMU with dirty bits
 * and no superpages, so that what it writes to is known to the page as well.
 */
FIXTURE(dirty) {
	struct container c;
	struct mock mock;
	struct mem mem;
	int dev;
	bool was_unsafe;
	long pinned;
};

static bool behind_iommu;	/* a process has one test */

FIXTURE_VARIANT(dirty) { unsigned long type; };
ADD_TYPES(dirty);

static void open_behind_iommu(struct __test_metadata *_metadata, struct _test_data_dirty *self,
			      unsigned long type)
{
	struct vfio_mock_iommu_create config = {
		.pgsizes = PAGE,
		.flags = VFIO_MOCK_IOMMU_DIRTY,
	};
	const char *name;

	self->was_unsafe = mock_allow_unsafe(true);
	ASSERT_EQ(0, mock_create(&self->mock, &config));
	if (!self->mock.tracks)
		SKIP(return, "the kernel has no dirty bits of IOMMUs");
	name = self->mock.name[0];
	ASSERT_EQ(0, container_open(&self->c, type, name));
	EXPECT_EQ(-EOPNOTSUPP, emulated_attach(&self->c, 0));
	self->dev = container_device(&self->c, name);
}

/*
 * All of the memory is mapped, in four mappings: 0..63, 64..127, 128..447, 448..
 * Their borders are borders of words of a bitmap. Elsewhere type1v2 reports
 * pages dirty again that were not written to any more: it forgets to clear bits
 * that it has shifted.
 */
FIXTURE_SETUP(dirty)
{
	static const int border[] = { 0, 64, 128, 448, NPAGES };

	container_init(&self->c);
	mock_init(&self->mock);
	self->dev = -1;
	behind_iommu = !has_vaddr(variant->type);
	if (behind_iommu) {
		open_behind_iommu(_metadata, self, variant->type);
		if (!self->mock.tracks)
			return;
	} else {
		self->dev = emulated_open(&self->c, variant->type, 0);
	}
	ASSERT_LE(0, self->dev);
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, NPAGES * PAGE));
	pattern_fill(self->mem.va, self->mem.size, 0);
	self->pinned = pinned_pages();
	for (int i = 0; i < 4; i++) {
		ASSERT_EQ(0, dma_map(&self->c, IOVA(border[i]),
				     self->mem.va + border[i] * PAGE,
				     (border[i + 1] - border[i]) * PAGE, RW));
	}
}

FIXTURE_TEARDOWN(dirty)
{
	if (self->dev >= 0)
		close(self->dev);
	container_close(&self->c);
	mem_free(&self->mem);
	if (behind_iommu) {
		EXPECT_EQ(0, mock_state(&self->mock).errors);
		mock_destroy(&self->mock);
		mock_allow_unsafe(self->was_unsafe);
	}
	if (self->pinned)
		EXPECT_EQ(self->pinned, pinned_pages());
}

/* What the device writes to and reads from: @flags are RW_* */
static int device_rw(int dev, __u64 iova, void *data, size_t size, __u32 flags)
{
	int ret;

	if (!behind_iommu)
		return emulated_rw(dev, iova, data, size, flags);
	ret = flags & RW_WRITE ? mock_write(dev, iova, data, size) :
				 mock_read(dev, iova, data, size);
	return ret == -ENXIO ? -EINVAL : ret;
}

static int write_page(int dev, unsigned long page, unsigned long npages)
{
	static __u8 data[64 * PAGE];

	return device_rw(dev, IOVA(page), data, npages * PAGE, RW_WRITE);
}

/* Bits of a range of the memory from page @first on, or -1 after an error. */
static int get_bits(struct container *c, unsigned long first,
		    unsigned long npages, __u8 *bits)
{
	memset(bits, 0, BYTES);
	return dirty_bitmap(c, IOVA(first), npages * PAGE, PAGE, bits, BYTES);
}

static bool bit(const __u8 *bits, unsigned long n)
{
	return bits[n / 8] & 1 << n % 8;
}

static int count(const __u8 *bits)
{
	int n = 0;

	for (unsigned long i = 0; i < NPAGES; i++)
		n += bit(bits, i);
	return n;
}

/* Who tells of the device of the fixture */
static __u32 own_source(void)
{
	return behind_iommu ? VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE :
			      VFIO_IOMMU_TYPE1V3_DIRTY_PINNED;
}

TEST_F(dirty, capabilities)
{
	struct vfio_iommu_type1_info_cap_migration migration;
	struct vfio_iommu_type1v3_info_cap_dirty source;

	ASSERT_EQ(0, info_cap(&self->c, VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
			      &migration, sizeof(migration)));
	EXPECT_EQ(1, migration.header.version);
	EXPECT_EQ(0, migration.flags);
	EXPECT_EQ(PAGE, migration.pgsize_bitmap);
	EXPECT_EQ(1ULL << 28, migration.max_dirty_bitmap_size);

	if (!is_v3(variant->type)) {
		EXPECT_EQ(-ENOENT, info_cap(&self->c,
					    VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY,
					    &source, sizeof(source)));
		return;
	}
	ASSERT_EQ(0, info_cap(&self->c, VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY,
			      &source, sizeof(source)));
	EXPECT_EQ(2, source.header.version);
	EXPECT_EQ(PINNED | HARDWARE | OR, source.flags);
	EXPECT_EQ(own_source(), source.source);
}

/* A physical group makes everything dirty, and its going leaves it dirty once. */
TEST_F(dirty, physical)
{
	struct vfio_iommu_type1v3_info_cap_dirty source;
	__u8 bits[BYTES];
	const char *bdf;

	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf)
		return;

	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(0, count(bits));

	ASSERT_EQ(0, container_attach(&self->c, bdf));
	if (is_v3(variant->type)) {
		ASSERT_EQ(0, info_cap(&self->c,
				      VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY,
				      &source, sizeof(source)));
		EXPECT_EQ(VFIO_IOMMU_TYPE1V3_DIRTY_ALL, source.source);
	}
	/* each time anew */
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
		EXPECT_EQ(NPAGES, count(bits));
	}

	/* pins of the emulated device do not make the physical one better */
	if (!behind_iommu)
		ASSERT_EQ(1, emulated_pin(self->dev, IOVA(5), 1, PIN_RW, NULL));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(NPAGES, count(bits));

	ASSERT_EQ(0, container_detach(&self->c, bdf));
	if (is_v3(variant->type)) {
		ASSERT_EQ(0, info_cap(&self->c,
				      VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY,
				      &source, sizeof(source)));
		EXPECT_EQ(own_source(), source.source);
	}
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(NPAGES, count(bits));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(behind_iommu ? 0 : 1, count(bits));
	EXPECT_EQ(!behind_iommu, bit(bits, 5));
}

TEST_F(dirty, start_stop)
{
	__u8 bits[BYTES];

	EXPECT_EQ(-EINVAL, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(0, dirty_tracking(&self->c, STOP));

	/* what was written before nobody knows */
	EXPECT_EQ(0, write_page(self->dev, 3, 1));
	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(0, count(bits));

	/* a second START changes nothing */
	EXPECT_EQ(0, write_page(self->dev, 4, 1));
	EXPECT_EQ(0, dirty_tracking(&self->c, START));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(1, count(bits));
	EXPECT_TRUE(bit(bits, 4));

	/* STOP forgets */
	EXPECT_EQ(0, write_page(self->dev, 5, 1));
	EXPECT_EQ(0, dirty_tracking(&self->c, STOP));
	EXPECT_EQ(-EINVAL, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(0, dirty_tracking(&self->c, STOP));
	EXPECT_EQ(0, dirty_tracking(&self->c, START));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(0, count(bits));
}

/* Exactly the pages that were written to, once. */
TEST_F(dirty, copied)
{
	__u8 bits[BYTES], data[300] = {};

	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	EXPECT_EQ(0, write_page(self->dev, 0, 1));
	EXPECT_EQ(0, write_page(self->dev, 63, 2));
	EXPECT_EQ(0, write_page(self->dev, 120, 20));	/* two mappings */
	EXPECT_EQ(0, device_rw(self->dev, IOVA(200) - 1, data, 2, RW_WRITE));
	EXPECT_EQ(0, device_rw(self->dev, IOVA(300) + 5, data, 300,
			       RW_WRITE | RW_KTHREAD));
	EXPECT_EQ(0, write_page(self->dev, NPAGES - 1, 1));
	/* reading is not writing, nor is what fails */
	EXPECT_EQ(0, device_rw(self->dev, IOVA(400), data, 8, 0));
	EXPECT_EQ(-EINVAL, device_rw(self->dev, IOVA(NPAGES), data, 8,
				     RW_WRITE));

	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	for (unsigned long i = 0; i < NPAGES; i++) {
		bool want = i == 0 || i == 63 || i == 64 ||
			    (i >= 120 && i < 140) || i == 199 || i == 200 ||
			    i == 300 || i == NPAGES - 1;

		EXPECT_EQ(want, bit(bits, i)) TH_LOG("page %lu", i);
	}
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(0, count(bits));
}

/*
 * A copy that fails halfway has written to the first page.  type1v2 does not say
 * so, and what was written is lost to a migration.  DMA does not depend on what the
 * program may do with its memory.
 */
TEST_F(dirty, copied_in_part)
{
	__u64 data[2] = { 1, 2 }, *end = (__u64 *)(self->mem.va + PAGE);
	__u8 bits[BYTES];

	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	ASSERT_EQ(0, mprotect(self->mem.va + PAGE, PAGE, PROT_READ));
	EXPECT_EQ(behind_iommu ? 0 : -EFAULT,
		  device_rw(self->dev, IOVA(1) - 8, data, sizeof(data), RW_WRITE));
	EXPECT_EQ(1, __atomic_load_n(end - 1, __ATOMIC_RELAXED));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(is_v3(variant->type), bit(bits, 0));
	if (behind_iommu)
		EXPECT_TRUE(bit(bits, 1));
}

/* A pinned page is dirty each time, and once more when it is unpinned. */
TEST_F(dirty, pinned)
{
	__u8 bits[BYTES];

	/* nobody who pins is let in, whether it is tracked or not */
	if (behind_iommu) {
		ASSERT_EQ(0, dirty_tracking(&self->c, START));
		EXPECT_EQ(-EOPNOTSUPP, emulated_attach(&self->c, 1));
		ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
		EXPECT_EQ(0, count(bits));
		return;
	}
	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(65), 1, PIN_RW, NULL));
	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	ASSERT_EQ(3, emulated_pin(self->dev, IOVA(127), 3, PIN_READ, NULL));
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
		EXPECT_EQ(4, count(bits));
		EXPECT_TRUE(bit(bits, 65) && bit(bits, 127) && bit(bits, 128) &&
			    bit(bits, 129));
	}
	/* pinned and unpinned between two looks */
	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(300), 1, PIN_RW, NULL));
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(300), 1));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(5, count(bits));
	EXPECT_TRUE(bit(bits, 300));

	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(4, count(bits));
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(65), 1));
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(127), 3));
	/* the device may have written to them until now */
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(4, count(bits));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(0, count(bits));
}

/* Parts of what is mapped. */
TEST_F(dirty, ranges)
{
	const bool v3 = is_v3(variant->type);
	__u8 bits[BYTES];

	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	EXPECT_EQ(0, write_page(self->dev, 63, 2));
	EXPECT_EQ(0, write_page(self->dev, 127, 2));
	EXPECT_EQ(0, write_page(self->dev, 448, 1));

	ASSERT_EQ(0, get_bits(&self->c, 64, 384, bits));
	EXPECT_EQ(3, count(bits));
	EXPECT_TRUE(bit(bits, 0) && bit(bits, 63) && bit(bits, 64));
	/* what was not asked for is dirty still */
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(2, count(bits));
	EXPECT_TRUE(bit(bits, 63) && bit(bits, 448));

	/* nothing is mapped there: nothing is dirty */
	ASSERT_EQ(0, get_bits(&self->c, NPAGES, 1, bits));
	EXPECT_EQ(0, count(bits));
	/* from the middle of a mapping: a part of it, or refused */
	EXPECT_EQ(0, write_page(self->dev, 200, 3));
	EXPECT_EQ(v3 ? 0 : -EINVAL, get_bits(&self->c, 201, 1, bits));
	EXPECT_EQ(v3, count(bits));
	EXPECT_EQ(v3 ? 0 : -EINVAL, get_bits(&self->c, 128, 73, bits));
	EXPECT_EQ(v3, count(bits));
	EXPECT_EQ(v3, bit(bits, 72));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(v3 ? 1 : 3, count(bits));
	EXPECT_TRUE(bit(bits, 202));
}

/* Mappings, and bitmaps, that begin and end in the middle of a word. */
TEST_F(dirty, unaligned)
{
	static const int border[] = { 1003, 1016, 1100, 1456, 1460 };
	const int base = border[0], dirty[] = { 1003, 1015, 1016, 1099, 1100,
						1200, 1455, 1456, 1459 };
	__u8 bits[BYTES], want[BYTES] = {};

	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	for (int i = 0; i < 4; i++) {
		ASSERT_EQ(0, dma_map(&self->c, IOVA(border[i]),
				     self->mem.va + (border[i] - base) * PAGE,
				     (border[i + 1] - border[i]) * PAGE, RW));
	}
	for (int i = 0; i < 9; i++) {
		ASSERT_EQ(0, write_page(self->dev, dirty[i], 1));
		want[(dirty[i] - base) / 8] |= 1 << (dirty[i] - base) % 8;
	}
	ASSERT_EQ(0, get_bits(&self->c, base, 457, bits));
	EXPECT_EQ(0, memcmp(want, bits, BYTES));
	/* nothing is dirty now, but see above */
	ASSERT_EQ(0, get_bits(&self->c, base, 457, bits));
	if (is_v3(variant->type))
		EXPECT_EQ(0, count(bits));

	ASSERT_EQ(0, write_page(self->dev, 1020, 2));
	ASSERT_EQ(0, get_bits(&self->c, 1016, 84, bits));
	EXPECT_TRUE(bit(bits, 4) && bit(bits, 5));
	if (is_v3(variant->type))
		EXPECT_EQ(2, count(bits));
}

/* What is unmapped tells what was dirty in it, and what is mapped anew is clean. */
TEST_F(dirty, unmap)
{
	__u8 bits[BYTES] = {};

	/* not without tracking */
	EXPECT_EQ(-EINVAL, dma_unmap_dirty(&self->c, IOVA(0), NPAGES * PAGE,
					   PAGE, bits, BYTES));
	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	EXPECT_EQ(0, write_page(self->dev, 68, 1));
	EXPECT_EQ(0, write_page(self->dev, 149, 1));
	ASSERT_EQ(behind_iommu ? 0 : 2, behind_iommu ? write_page(self->dev, 118, 2) :
		  emulated_pin(self->dev, IOVA(118), 2, PIN_RW, NULL));
	EXPECT_EQ(384 * PAGE, dma_unmap_dirty(&self->c, IOVA(64), 384 * PAGE,
					      PAGE, bits, BYTES));
	EXPECT_EQ(4, count(bits));
	EXPECT_TRUE(bit(bits, 4) && bit(bits, 54) && bit(bits, 55) &&
		    bit(bits, 85));
	if (!behind_iommu) {
		EXPECT_EQ(1, emulated_state(self->dev).notified);
		EXPECT_EQ(0, emulated_state(self->dev).pinned);
	}
	memset(bits, 0, BYTES);
	EXPECT_EQ(0, dma_unmap_dirty(&self->c, IOVA(64), 384 * PAGE, PAGE, bits,
				     BYTES));
	EXPECT_EQ(0, count(bits));

	EXPECT_EQ(0, write_page(self->dev, 3, 1));
	EXPECT_EQ(64 * PAGE, dma_unmap(&self->c, IOVA(0), 64 * PAGE));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 64 * PAGE, RW));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(0, count(bits));
	EXPECT_EQ(0, write_page(self->dev, 3, 1));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(1, count(bits));
	EXPECT_TRUE(bit(bits, 3));
}

/* With a physical group, what is unmapped was dirty. */
TEST_F(dirty, unmap_physical)
{
	__u8 bits[BYTES] = {};
	const char *bdf;

	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf)
		return;
	ASSERT_EQ(0, container_attach(&self->c, bdf));
	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	EXPECT_EQ(384 * PAGE, dma_unmap_dirty(&self->c, IOVA(64), 384 * PAGE,
					      PAGE, bits, BYTES));
	EXPECT_EQ(384, count(bits));
	EXPECT_FALSE(bit(bits, 384));
	/* a hole is not dirty */
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(NPAGES - 384, count(bits));
	EXPECT_TRUE(bit(bits, 63));
	EXPECT_FALSE(bit(bits, 64));
	EXPECT_FALSE(bit(bits, 447));
	EXPECT_TRUE(bit(bits, 448));
}

/* A bitmap of several pages. */
TEST_F(dirty, large)
{
	const __u64 iova = 1ULL << 40, size = (__u64)PAGE << 21;	/* 256 KiB of bits */
	const __u64 bytes = size / PAGE / 8;
	__u64 pages[] = { 0, 1, 32767, 32768, 65535, 1000000, (size - 1) / PAGE };
	__u8 data = 1, *bits, *want;
	struct mem mem;

	ASSERT_EQ(0, mem_alloc(&mem, MEM_4K, 2 * bytes));
	bits = mem.va;
	want = mem.va + bytes;
	/* every write goes to addresses that are there: the same page at each */
	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	for (unsigned long i = 0; i < 7; i++) {
		ASSERT_EQ(0, dma_map(&self->c, iova + pages[i] * PAGE,
				     self->mem.va, PAGE, RW));
		ASSERT_EQ(0, device_rw(self->dev, iova + pages[i] * PAGE,
				       &data, 1, RW_WRITE));
		want[pages[i] / 8] |= 1 << pages[i] % 8;
	}
	ASSERT_EQ(0, dirty_bitmap(&self->c, iova, size, PAGE, bits, bytes));
	EXPECT_EQ(0, memcmp(bits, want, bytes));
	/* as for unaligned mappings */
	if (is_v3(variant->type)) {
		ASSERT_EQ(0, dirty_bitmap(&self->c, iova, size, PAGE, bits,
					  bytes));
		memset(want, 0, bytes);
		EXPECT_EQ(0, memcmp(bits, want, bytes));
	}
	mem_free(&mem);
}

/* A mapping of more pages than a bitmap can have: type1v2 wants one for all. */
TEST_F(dirty, huge_mapping)
{
	const __u64 size = (__u64)PAGE << 32, iova = 2 * size;
	const int want = is_v3(variant->type) ? 0 : -EINVAL;
	__u8 bits[BYTES] = {}, data = 1;

	/* where all of it is pinned, there is no such mapping: so much memory nobody has */
	if (behind_iommu) {
		ASSERT_EQ(0, dirty_tracking(&self->c, START));
		EXPECT_EQ(-EFAULT, dma_map(&self->c, iova, self->mem.va, size, RW));
		EXPECT_EQ(0, dma_unmap(&self->c, iova, size));
		return;
	}
	ASSERT_EQ(0, dma_map(&self->c, iova, self->mem.va, size, RW));
	EXPECT_EQ(want, dirty_tracking(&self->c, START));
	EXPECT_EQ(size, dma_unmap(&self->c, iova, size));
	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	EXPECT_EQ(want, dma_map(&self->c, iova, self->mem.va, size, RW));
	if (want)
		return;
	EXPECT_EQ(0, device_rw(self->dev, iova + 3 * PAGE, &data, 1, RW_WRITE));
	EXPECT_EQ(0, dirty_bitmap(&self->c, iova, NPAGES * PAGE, PAGE, bits,
				  BYTES));
	EXPECT_EQ(1, count(bits));
	EXPECT_TRUE(bit(bits, 3));
	EXPECT_EQ(size, dma_unmap(&self->c, iova, size));
}

TEST_F(dirty, bad_bitmap)
{
	const int wrap = wrap_errno(variant->type);
	const __u64 size = NPAGES * PAGE;
	__u8 *bits = self->mem.va, *hole;
	struct {
		const char *what;
		int err;
		__u64 iova, size, pgsize;
		void *bits;
		__u64 bytes;
	} calls[] = {
		{ "no size", -EINVAL, IOVA(0), 0, PAGE, bits, BYTES },
		{ "size below a page", -EINVAL, IOVA(0), 8, PAGE, bits, BYTES },
		{ "size unaligned", -EINVAL, IOVA(0), size - 8, PAGE, bits, BYTES },
		{ "iova unaligned", -EINVAL, IOVA(0) + 8, size, PAGE, bits, BYTES },
		{ "page size too large", -EINVAL, IOVA(0), size, 2 * MIB, bits, BYTES },
		{ "page size too large", -EINVAL, IOVA(0), size, 2 * PAGE, bits, BYTES },
		{ "page size too small", -EINVAL, IOVA(0), size, 2048, bits, 2 * BYTES },
		{ "page size no power of 2", -EINVAL, IOVA(0), size, PAGE + 8, bits,
		  512 * BYTES },
		{ "no bitmap", -EINVAL, IOVA(0), size, PAGE, bits, 0 },
		{ "bitmap too short", -EINVAL, IOVA(0), size, PAGE, bits, BYTES - 8 },
		{ "bitmap short by one", -EINVAL, IOVA(0), size, PAGE, bits, BYTES - 1 },
		{ "bitmap too long", -EINVAL, IOVA(0), size, PAGE, bits,
		  (1 << 28) + 8 },
		{ "bitmap too long", -EINVAL, IOVA(0), size, PAGE, bits, -1ULL },
		{ "too many pages", -EINVAL, 0, (__u64)PAGE << 32, PAGE, bits, 1 << 28 },
		{ "too many pages", -EINVAL, 0, 1ULL << 63, PAGE, bits, 1 << 28 },
		{ "bitmap not of the user", -EINVAL, IOVA(0), size, PAGE,
		  (void *)0xffff888000000000, BYTES },
		{ "bitmap not there", -EFAULT, IOVA(0), size, PAGE, NULL, BYTES },
		{ "iova wraps", wrap, -PAGE, 2 * PAGE, PAGE, bits, BYTES },
	};
	__u8 saved[BYTES];

	hole = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, hole);
	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	EXPECT_EQ(0, write_page(self->dev, 3, 1));
	ASSERT_EQ(behind_iommu ? 0 : 2, behind_iommu ? write_page(self->dev, 70, 2) :
		  emulated_pin(self->dev, IOVA(70), 2, PIN_RW, NULL));
	memcpy(saved, bits, BYTES);

	for (unsigned long i = 0; i < ARRAY_SIZE(calls); i++) {
		EXPECT_EQ(calls[i].err,
			  dirty_bitmap(&self->c, calls[i].iova, calls[i].size,
				       calls[i].pgsize, calls[i].bits,
				       calls[i].bytes))
			TH_LOG("GET_BITMAP: %s", calls[i].what);
		/* this one would unmap before it fails */
		if (calls[i].err == -EFAULT)
			continue;
		EXPECT_EQ(calls[i].err,
			  dma_unmap_dirty(&self->c, calls[i].iova,
					  calls[i].size, calls[i].pgsize,
					  calls[i].bits, calls[i].bytes))
			TH_LOG("UNMAP: %s", calls[i].what);
	}
	EXPECT_EQ(-EFAULT, dirty_bitmap(&self->c, IOVA(0), size, PAGE, hole,
					BYTES));
	/* type1v2 looks for the lowest bit of it, and there is none */
	if (is_v3(variant->type)) {
		EXPECT_EQ(-EINVAL, dirty_bitmap(&self->c, IOVA(0), size, 0, bits,
						BYTES));
		EXPECT_EQ(-EINVAL, dma_unmap_dirty(&self->c, IOVA(0), size, 0,
						   bits, BYTES));
	}

	/* nothing was unmapped, nothing released, and page 3 is dirty still */
	if (!behind_iommu)
		EXPECT_EQ(0, emulated_state(self->dev).notified);
	EXPECT_EQ(0, memcmp(saved, bits, BYTES));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, saved));
	EXPECT_EQ(3, count(saved));
	EXPECT_TRUE(bit(saved, 3) && bit(saved, 70) && bit(saved, 71));
	munmap(hole, PAGE);
}

/* An UNMAP whose bitmap cannot be written has unmapped nothing. */
TEST_F(dirty, unmap_fault)
{
	__u8 bits[BYTES];

	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	EXPECT_EQ(0, write_page(self->dev, 3, 1));
	EXPECT_EQ(-EFAULT, dma_unmap_dirty(&self->c, IOVA(0), NPAGES * PAGE,
					   PAGE, NULL, BYTES));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(1, count(bits));
	if (!behind_iommu)
		EXPECT_EQ(1, emulated_pin(self->dev, IOVA(3), 1, PIN_RW, NULL));
	EXPECT_EQ(NPAGES * PAGE, dma_unmap_all(&self->c));
}

TEST_F(dirty, bad_flags)
{
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} get = {
		.dirty.flags = GET,
		.get.iova = IOVA(0),
		.get.size = NPAGES * PAGE,
		.get.bitmap.pgsize = PAGE,
		.get.bitmap.size = BYTES,
		.get.bitmap.data = (void *)self->mem.va,
	};
	struct {
		struct vfio_iommu_type1_dma_unmap unmap;
		struct vfio_bitmap bitmap;
	} unmap = {
		.unmap.iova = IOVA(0),
		.unmap.size = NPAGES * PAGE,
		.bitmap = get.get.bitmap,
	};
	static const __u32 more[] = {
		VFIO_DMA_UNMAP_FLAG_ALL, VFIO_DMA_UNMAP_FLAG_VADDR, 8, 1U << 31,
	};

	EXPECT_EQ(-EINVAL, dirty_tracking(&self->c, START | STOP));
	EXPECT_EQ(-EINVAL, dirty_tracking(&self->c, START | GET));
	EXPECT_EQ(-EINVAL, dirty_tracking(&self->c, 8));
	EXPECT_EQ(-EINVAL, dirty_tracking(&self->c, START | 8));
	EXPECT_EQ(-EINVAL, dirty_tracking(&self->c, -1));

	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	EXPECT_EQ(0, write_page(self->dev, 9, 1));
	for (__u32 argsz = 0; argsz < sizeof(get); argsz += 4) {
		get.dirty.argsz = argsz;
		EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_IOMMU_DIRTY_PAGES, &get));
		EXPECT_EQ(EINVAL, errno);
	}
	for (__u32 argsz = 0; argsz < sizeof(unmap); argsz += 4) {
		unmap.unmap.flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
		unmap.unmap.argsz = argsz;
		EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_IOMMU_UNMAP_DMA, &unmap));
		EXPECT_EQ(EINVAL, errno);
	}
	unmap.unmap.argsz = sizeof(unmap);
	for (int i = 0; i < 4; i++) {
		unmap.unmap.flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP |
				    more[i];
		EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_IOMMU_UNMAP_DMA, &unmap));
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_IOMMU_DIRTY_PAGES, NULL));
	EXPECT_EQ(EFAULT, errno);

	get.dirty.argsz = sizeof(get);
	memset(self->mem.va, 0, BYTES);
	EXPECT_EQ(0, ioctl(self->c.fd, VFIO_IOMMU_DIRTY_PAGES, &get));
	EXPECT_EQ(1, count(self->mem.va));
}

/* One choice at a time, and none that nobody knows. */
TEST_F(dirty, choices)
{
	static const __u32 bad[] = {
		START | PINNED | HARDWARE, START | OR, START | PINNED | OR,
		STOP | PINNED, STOP | OR, PINNED, HARDWARE, OR, GET | PINNED,
		GET | HARDWARE | OR, START | STOP | PINNED, START | 1 << 19,
	};
	static const __u32 choices[] = { START, START | PINNED, START | HARDWARE };
	__u8 bits[BYTES];

	for (unsigned long i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT_EQ(-EINVAL, dirty_tracking(&self->c, bad[i]));
	/* nothing has begun */
	EXPECT_EQ(-EINVAL, get_bits(&self->c, 0, NPAGES, bits));
	for (int i = 0; i < 3; i++) {
		if (!is_v3(variant->type) && i) {
			EXPECT_EQ(-EINVAL, dirty_tracking(&self->c, choices[i]));
			continue;
		}
		ASSERT_EQ(0, dirty_tracking(&self->c, choices[i]));
		EXPECT_EQ(0, write_page(self->dev, 77, 1));
		for (int k = 0; k < 3; k++) {
			int want = k == i ? 0 : is_v3(variant->type) ? -EBUSY : -EINVAL;

			EXPECT_EQ(want, dirty_tracking(&self->c, choices[k]));
		}
		for (unsigned long k = 0; k < ARRAY_SIZE(bad); k++)
			EXPECT_EQ(-EINVAL, dirty_tracking(&self->c, bad[k]));
		/* what was dirty still is, with every choice; DMA is not if pins alone count */
		bool seen = !behind_iommu || !(choices[i] & PINNED);

		ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
		EXPECT_EQ(seen, count(bits));
		EXPECT_EQ(seen, bit(bits, 77));
		ASSERT_EQ(0, dirty_tracking(&self->c, STOP));
	}
}

/* A group behind an IOMMU without dirty bits, and each choice. */
TEST_F(dirty, choices_physical)
{
	struct vfio_iommu_type1v3_info_cap_dirty source;
	__u8 bits[BYTES];
	const char *bdf;

	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf || !is_v3(variant->type))
		return;
	ASSERT_EQ(0, dirty_tracking(&self->c, START | HARDWARE));
	EXPECT_EQ(-EBUSY, container_attach(&self->c, bdf));
	ASSERT_EQ(0, dirty_tracking(&self->c, STOP));
	ASSERT_EQ(0, container_attach(&self->c, bdf));
	EXPECT_EQ(-EOPNOTSUPP, dirty_tracking(&self->c, START | HARDWARE));
	EXPECT_EQ(-EINVAL, get_bits(&self->c, 0, NPAGES, bits));
	ASSERT_EQ(0, info_cap(&self->c, VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY, &source,
			      sizeof(source)));
	EXPECT_EQ(PINNED | OR, source.flags);
	EXPECT_EQ(VFIO_IOMMU_TYPE1V3_DIRTY_ALL, source.source);

	/* what the emulated device does is all that is reported */
	ASSERT_EQ(0, dirty_tracking(&self->c, START | PINNED));
	EXPECT_EQ(0, write_page(self->dev, 5, 1));
	if (!behind_iommu)
		ASSERT_EQ(1, emulated_pin(self->dev, IOVA(70), 1, PIN_RW, NULL));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(behind_iommu ? 0 : 2, count(bits));
	EXPECT_EQ(0, write_page(self->dev, 100, 1));
	memset(bits, 0, BYTES);
	EXPECT_EQ(64 * PAGE, dma_unmap_dirty(&self->c, IOVA(64), 64 * PAGE, PAGE, bits,
					     BYTES));
	EXPECT_EQ(behind_iommu ? 0 : 2, count(bits));
	EXPECT_EQ(!behind_iommu, bit(bits, 6) && bit(bits, 36));
	ASSERT_EQ(0, container_detach(&self->c, bdf));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(0, count(bits));
}

/* With OR, all trackers share one bitmap: bits are added, and none goes. */
TEST_F(dirty, or)
{
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} or = {
		.dirty.argsz = sizeof(or),
		.dirty.flags = GET | OR,
		.get.iova = IOVA(0),
		.get.size = NPAGES * PAGE,
		.get.bitmap.pgsize = PAGE,
		.get.bitmap.size = BYTES,
	};
	__u8 bits[BYTES], want[BYTES];

	or.get.bitmap.data = (void *)bits;
	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	EXPECT_EQ(0, write_page(self->dev, 9, 1));
	if (!is_v3(variant->type)) {
		EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_IOMMU_DIRTY_PAGES, &or));
		EXPECT_EQ(EINVAL, errno);
		return;
	}
	memset(bits, 0xa4, BYTES);
	memcpy(want, bits, BYTES);
	want[9 / 8] |= 1 << 9 % 8;
	ASSERT_EQ(0, ioctl(self->c.fd, VFIO_IOMMU_DIRTY_PAGES, &or));
	EXPECT_EQ(0, memcmp(want, bits, BYTES));
	/* once */
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(0, count(bits));

	/* bits that are not of the range are left alone, also in its last word */
	EXPECT_EQ(0, write_page(self->dev, 64, 64));
	EXPECT_EQ(0, write_page(self->dev, 128, 6));
	or.get.iova = IOVA(64);
	or.get.size = 67 * PAGE;
	or.get.bitmap.size = 16;
	memset(bits, 0x18, BYTES);
	memcpy(want, bits, BYTES);
	memset(want, 0xff, 8);
	want[8] |= 0x7;
	ASSERT_EQ(0, ioctl(self->c.fd, VFIO_IOMMU_DIRTY_PAGES, &or));
	EXPECT_EQ(0, memcmp(want, bits, BYTES));
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(3, count(bits));
	/* nowhere to write to: it is dirty still */
	EXPECT_EQ(0, write_page(self->dev, 3, 1));
	or.get.bitmap.data = NULL;
	EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_IOMMU_DIRTY_PAGES, &or));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(1, count(bits));
}

/* Tracking costs nothing where nothing is dirty, and little where something is. */
TEST_F(dirty, cost)
{
	struct container_info before, peak, after;
	__u8 bits[BYTES];

	/* type1v2 does not tell what it uses */
	if (!is_v3(variant->type))
		return;
	ASSERT_EQ(0, container_info(&self->c, &before));
	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	ASSERT_EQ(0, container_info(&self->c, &after));
	EXPECT_EQ(before.own.store_bytes, after.own.store_bytes);

	/* every other page of 512: what is worst, 16 bytes a page at most */
	for (unsigned long i = 0; i < NPAGES; i += 2)
		ASSERT_EQ(0, write_page(self->dev, i, 1));
	ASSERT_EQ(0, container_info(&self->c, &peak));
	EXPECT_GT(before.own.store_bytes + NPAGES * 16, peak.own.store_bytes);

	/* what is reported takes no space, but for what is kept for the next time */
	ASSERT_EQ(0, get_bits(&self->c, 0, NPAGES, bits));
	EXPECT_EQ(NPAGES / 2, count(bits));
	ASSERT_EQ(0, container_info(&self->c, &after));
	TH_LOG("%llu bytes clean, %llu dirty, %llu clean again",
	       before.own.store_bytes, peak.own.store_bytes,
	       after.own.store_bytes);
	/* what the IOMMU has recorded is nowhere else */
	if (behind_iommu) {
		EXPECT_EQ(before.own.store_bytes, peak.own.store_bytes);
		EXPECT_EQ(before.own.store_bytes, after.own.store_bytes);
		return;
	}
	EXPECT_GT(peak.own.store_bytes / 4 * 3, after.own.store_bytes);
}

TEST_HARNESS_MAIN
