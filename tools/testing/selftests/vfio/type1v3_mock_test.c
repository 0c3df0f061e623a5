// SPDX-License-Identifier: GPL-2.0-only
/*
 * Containers on IOMMUs that check every call that they get: other page sizes than
 * x86 has, IOMMUs that unmap whole calls only, several unlike ones in one
 * container, and drivers that fail. Needs the module vfio_mock_iommu.
 */
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "type1v3_emulated.h"
#include "type1v3_harness.h"
#include "type1v3_mock.h"

#define START		VFIO_IOMMU_DIRTY_PAGES_FLAG_START
#define STOP		VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP

#define THREE_SIZES	(4 * KIB | 2 * MIB | GIB)
#define CLOSE_SIZES	(4 * KIB | 64 * KIB | MIB)
#define LARGE_SIZES	(64 * KIB | 2 * MIB)
#define BELOW_SIZES	(KIB | 4 * KIB)
#define POWERS		(~(4 * KIB - 1))

#define CALLS		VFIO_MOCK_IOMMU_CALLS
#define DIRTY		VFIO_MOCK_IOMMU_DIRTY
#define DISJOINT	VFIO_MOCK_IOMMU_DISJOINT
#define COHERENT	VFIO_MOCK_IOMMU_COHERENT

#define SIZE		(4 * MIB)
#define MAX_UNITS	(SIZE / PAGE)

/* The smallest mapping of an IOMMU */
static size_t unit_of(__u64 pgsizes)
{
	size_t unit = pgsizes & -pgsizes;

	return unit < PAGE ? PAGE : unit;
}

/* Nothing is left, nor was anything done that may not be done. */
static void check_end(struct __test_metadata *_metadata, struct mock *m,
		      unsigned long type, __u64 left)
{
	struct vfio_mock_iommu_state state = mock_state(m);

	EXPECT_EQ(0, state.errors);
	EXPECT_EQ(0, state.leaves);
	EXPECT_EQ(0, state.domains);
	/* type1v2 lets go of a domain as a whole, if it is not the last one */
	if (is_v3(type))
		EXPECT_EQ(left, state.left);
}

/*
 * One IOMMU of each kind
 */

FIXTURE(mock) {
	struct container c;
	struct mock m;
	struct mem mem;
	int dev;
	bool was_unsafe;
	long pinned;
	size_t unit;
	__u64 left;
};

FIXTURE_VARIANT(mock) {
	unsigned long type;
	unsigned long pgsizes;
	__u32 flags;
	enum mem_kind kind;
};

ADD_KIND(mock, three, THREE_SIZES, 0, MEM_2M);
ADD_V3_KIND(mock, three_small, THREE_SIZES, 0, MEM_4K);
ADD_KIND(mock, close, CLOSE_SIZES, DISJOINT, MEM_2M);
/* type1v2 warns of IOMMU pages that are larger than the CPU's. */
ADD_V3_KIND(mock, one_16k, 16 * KIB, 0, MEM_2M);
ADD_V3_KIND(mock, one_64k, 64 * KIB, 0, MEM_2M);
ADD_V3_KIND(mock, large, LARGE_SIZES, 0, MEM_2M);
/* smaller than the CPU's, which are the smallest that anybody can map */
ADD_KIND(mock, below, BELOW_SIZES, 0, MEM_2M);
ADD_V3_KIND(mock, below_small, BELOW_SIZES, CALLS, MEM_4K);
/* The type1v2 of 6.12 unmaps a page and means the larger one that it is in. */
ADD_V3_KIND(mock, powers, POWERS, 0, MEM_2M);
/* type1v2 cannot unmap each of its calls as a whole. */
ADD_V3_KIND(mock, calls, POWERS, CALLS, MEM_2M);
ADD_V3_KIND(mock, calls_small, POWERS, CALLS, MEM_4K);
ADD_V3_KIND(mock, calls_of_sizes, THREE_SIZES, CALLS | DISJOINT, MEM_2M);

FIXTURE_SETUP(mock)
{
	struct vfio_mock_iommu_create config = {
		.pgsizes = variant->pgsizes,
		.flags = variant->flags,
	};

	container_init(&self->c);
	mock_init(&self->m);
	self->dev = -1;
	self->was_unsafe = mock_allow_unsafe(true);
	self->unit = unit_of(variant->pgsizes);
	if (!need_mem(_metadata, &self->mem, variant->kind, SIZE))
		return;
	pattern_fill(self->mem.va, SIZE, 0);
	self->pinned = pinned_pages();
	ASSERT_EQ(0, mock_create(&self->m, &config));
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->m.name[0]));
	self->dev = container_device(&self->c, self->m.name[0]);
	ASSERT_LE(0, self->dev);
}

FIXTURE_TEARDOWN(mock)
{
	if (self->dev >= 0)
		close(self->dev);
	container_close(&self->c);
	if (self->m.fd >= 0) {
		check_end(_metadata, &self->m, variant->type, self->left);
		EXPECT_EQ(self->pinned, pinned_pages());
	}
	mock_destroy(&self->m);
	mock_allow_unsafe(self->was_unsafe);
	mem_free(&self->mem);
}

/* Each unit of [0, SIZE) from TEST_IOVA on translates if it is mapped, and no other. */
static void check_dma(struct __test_metadata *_metadata, int dev, struct mem *mem,
		      size_t unit, const bool *mapped)
{
	__u64 want, got;

	for (size_t off = 0; off < SIZE; off += unit) {
		want = *(__u64 *)(mem->va + off + unit - 8);
		got = 0;
		if (!mapped[off / unit]) {
			ASSERT_EQ(-ENXIO, mock_read(dev, TEST_IOVA + off, &got, 8));
			continue;
		}
		ASSERT_EQ(0, mock_read(dev, TEST_IOVA + off + unit - 8, &got, 8))
			TH_LOG("at %#zx", off);
		ASSERT_EQ(want, got);
	}
}

static void set_units(bool *mapped, size_t first, size_t n, bool value)
{
	while (n--)
		mapped[first++] = value;
}

/* Memory is mapped, DMA reads and writes it as far as it may, and not afterwards. */
TEST_F(mock, dma)
{
	const size_t unit = self->unit;
	__u8 *buf = self->mem.va, data[3 * PAGE];
	struct container_info info;
	struct vfio_mock_leaf leaf;
	unsigned long large;

	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(unit, info.pgsizes & -info.pgsizes);
	EXPECT_EQ(-ENXIO, mock_read(self->dev, TEST_IOVA, data, 1));

	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, buf, SIZE / 2, RW));
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + SIZE / 2, buf + SIZE / 2,
			     SIZE / 2 - unit, RO));
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + SIZE - unit, buf + SIZE - unit,
			     unit, WO));
	EXPECT_EQ(SIZE / PAGE, pinned_pages() - self->pinned);

	/* across pages, and across the end of what may be written */
	ASSERT_EQ(0, mock_read(self->dev, TEST_IOVA + 100, data, sizeof(data)));
	EXPECT_EQ(0, memcmp(data, buf + 100, sizeof(data)));
	memset(data, 0x5a, sizeof(data));
	ASSERT_EQ(0, mock_write(self->dev, TEST_IOVA + 2 * PAGE + 10, data,
				sizeof(data)));
	EXPECT_EQ(0, memcmp(data, buf + 2 * PAGE + 10, sizeof(data)));
	EXPECT_EQ(16, pwrite(self->dev, data, 32, TEST_IOVA + SIZE / 2 - 16));
	EXPECT_EQ(-EACCES, mock_write(self->dev, TEST_IOVA + SIZE / 2, data, 8));
	EXPECT_EQ(0, mock_read(self->dev, TEST_IOVA + SIZE / 2, data, 8));
	EXPECT_EQ(-EACCES, mock_read(self->dev, TEST_IOVA + SIZE - unit, data, 8));
	EXPECT_EQ(0, mock_write(self->dev, TEST_IOVA + SIZE - 8, data, 8));
	EXPECT_EQ(-ENXIO, mock_write(self->dev, TEST_IOVA + SIZE, data, 8));

	/* the largest page that fits is used */
	leaf = mock_leaf(self->dev, TEST_IOVA);
	EXPECT_EQ(TEST_IOVA, leaf.iova);
	EXPECT_EQ(VFIO_MOCK_LEAF_READ | VFIO_MOCK_LEAF_WRITE, leaf.prot);
	large = variant->pgsizes & (2 * MIB | MIB) ?: unit;
	EXPECT_LE(variant->kind == MEM_4K ? unit : 1UL << (63 - __builtin_clzl(large)),
		  leaf.size);

	EXPECT_EQ(SIZE, dma_unmap(&self->c, TEST_IOVA, SIZE));
	for (size_t off = 0; off < SIZE; off += unit)
		ASSERT_EQ(-ENXIO, mock_read(self->dev, TEST_IOVA + off, data, 8));
	EXPECT_EQ(0, mock_state(&self->m).leaves);
	EXPECT_EQ(self->pinned, pinned_pages());
}

/* Smaller than the IOMMU's pages is refused, and changes nothing. */
TEST_F(mock, unaligned)
{
	const size_t unit = self->unit;
	struct vfio_mock_iommu_state before;
	__u8 *buf = self->mem.va;

	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, buf, SIZE, RW));
	before = mock_state(&self->m);
	EXPECT_EQ(-EINVAL, dma_map(&self->c, OTHER_IOVA, buf, unit / 2, RW));
	EXPECT_EQ(-EINVAL, dma_map(&self->c, OTHER_IOVA + unit / 2, buf, unit, RW));
	EXPECT_EQ(-EINVAL, dma_unmap(&self->c, TEST_IOVA + unit / 2, unit));
	EXPECT_EQ(-EINVAL, dma_unmap(&self->c, TEST_IOVA, unit / 2));
	EXPECT_EQ(before.mapped, mock_state(&self->m).mapped);
	EXPECT_EQ(before.unmapped, mock_state(&self->m).unmapped);
	EXPECT_EQ(SIZE, dma_unmap_all(&self->c));
}

/* Memory that is in pieces smaller than the IOMMU's pages cannot be mapped. */
TEST_F(mock, scattered)
{
	const size_t unit = self->unit;
	__u64 data;
	__u8 *va;
	int fd;

	if (unit == PAGE)
		return;
	/* the same page again and again, which no page can follow */
	fd = memfd_create("type1v3_mock", MFD_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, PAGE));
	va = mmap(NULL, 2 * unit, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)va);
	for (size_t off = 0; off < 2 * unit; off += PAGE)
		ASSERT_EQ(va + off, mmap(va + off, PAGE, PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_FIXED, fd, 0));
	close(fd);
	EXPECT_EQ(-EINVAL, dma_map(&self->c, TEST_IOVA, va, unit, RW));
	EXPECT_EQ(-EINVAL, dma_map(&self->c, TEST_IOVA, va, 2 * unit, RW));
	EXPECT_EQ(0, mock_state(&self->m).leaves);
	EXPECT_EQ(self->pinned, pinned_pages());
	EXPECT_EQ(-ENXIO, mock_read(self->dev, TEST_IOVA, &data, 8));
	/* the range is free for what is not */
	EXPECT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, unit, RW));
	EXPECT_EQ(unit, dma_unmap(&self->c, TEST_IOVA, unit));
	munmap(va, 2 * unit);
}

/* Any part is unmapped, and mapped again: what translates is what is mapped. */
TEST_F(mock, cuts)
{
	const size_t unit = self->unit, nr = SIZE / unit;
	bool mapped[MAX_UNITS];
	__u64 seed = test_seed();
	size_t first, n, want;

	if (!is_v3(variant->type))
		return;
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, SIZE, RW));
	set_units(mapped, 0, nr, true);
	for (int i = 0; i < 20; i++) {
		first = prng(&seed) % nr;
		n = 1 + prng(&seed) % (i % 3 ? 5 : nr - first);
		if (n > nr - first)
			n = nr - first;
		want = 0;
		for (size_t k = first; k < first + n; k++)
			want += mapped[k];
		ASSERT_EQ(want * unit, dma_unmap(&self->c, TEST_IOVA + first * unit,
						 n * unit));
		set_units(mapped, first, n, false);
		check_dma(_metadata, self->dev, &self->mem, unit, mapped);
		if (i % 2)
			continue;
		/* what one call takes away another gives back, in a mapping of its own */
		ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + first * unit,
				     self->mem.va + first * unit, n * unit, RW));
		set_units(mapped, first, n, true);
		check_dma(_metadata, self->dev, &self->mem, unit, mapped);
	}
	EXPECT_LT(0, dma_unmap_all(&self->c));
	EXPECT_EQ(self->pinned, pinned_pages());
}

/*
 * Neighbours that several calls have mapped are unmapped without each other, though
 * their memory could be one page of the IOMMU.
 */
TEST_F(mock, neighbours)
{
	const size_t part = 512 * KIB;
	struct vfio_mock_iommu_state before, after;
	bool mapped[MAX_UNITS];
	const size_t n = part / self->unit;

	for (size_t off = 0; off < SIZE; off += part)
		ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + off, self->mem.va + off, part,
				     RW));
	set_units(mapped, 0, SIZE / self->unit, true);
	for (size_t off = part; off < SIZE; off += 2 * part) {
		before = mock_state(&self->m);
		EXPECT_EQ(part, dma_unmap(&self->c, TEST_IOVA + off, part));
		after = mock_state(&self->m);
		EXPECT_EQ(part, after.unmapped - before.unmapped);
		EXPECT_EQ(before.mapped, after.mapped);
		set_units(mapped, off / self->unit, n, false);
	}
	check_dma(_metadata, self->dev, &self->mem, self->unit, mapped);
	EXPECT_EQ(SIZE / 2, dma_unmap_all(&self->c));
}

/* With a granule, an unmap takes away what it is asked for and no more. */
TEST_F(mock, granule)
{
	const __u32 flags = RW | VFIO_DMA_MAP_GRANULE(4);
	const size_t granule = 16 * PAGE;
	struct vfio_mock_iommu_state before, after;

	if (!is_v3(variant->type) || self->unit > granule)
		return;
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, SIZE, flags));
	for (size_t off = 0; off < SIZE; off += 3 * granule) {
		EXPECT_GE(granule, mock_leaf(self->dev, TEST_IOVA + off).size);
		before = mock_state(&self->m);
		ASSERT_EQ(granule, dma_unmap(&self->c, TEST_IOVA + off, granule));
		after = mock_state(&self->m);
		ASSERT_EQ(granule, after.unmapped - before.unmapped);
		ASSERT_EQ(before.mapped, after.mapped);
	}
	EXPECT_LT(0, dma_unmap_all(&self->c));
}

/* Each call of map_pages() fails once, in each way; the last one of all does not. */
TEST_F(mock, map_fails)
{
	static const __u32 hows[] = {
		VFIO_MOCK_BREAK_FAIL, VFIO_MOCK_BREAK_HALF, VFIO_MOCK_BREAK_SHORT,
	};
	struct vfio_mock_iommu_break how = {};
	int ret, failed;

	for (int i = 0; i < 3; i++) {
		how.map = hows[i];
		failed = 0;
		for (how.map_at = 1; how.map_at < 10000; how.map_at += how.map_at / 8 + 1) {
			ASSERT_EQ(0, mock_break(&self->m, &how));
			ret = dma_map(&self->c, TEST_IOVA, self->mem.va, SIZE, RW);
			if (mock_state(&self->m).map_at)
				break;
			if (ret) {
				failed++;
				ASSERT_EQ(-ENOMEM, ret) TH_LOG("call %u", how.map_at);
				ASSERT_EQ(0, mock_state(&self->m).leaves);
				ASSERT_EQ(self->pinned, pinned_pages());
				continue;
			}
			/* a call that came short has been continued */
			ASSERT_EQ(SIZE, dma_unmap(&self->c, TEST_IOVA, SIZE));
			ASSERT_EQ(self->pinned, pinned_pages());
		}
		ASSERT_EQ(0, ret);
		EXPECT_LT(how.map_at, 10000);
		if (hows[i] != VFIO_MOCK_BREAK_SHORT)
			EXPECT_LT(0, failed);
		EXPECT_EQ(SIZE, dma_unmap(&self->c, TEST_IOVA, SIZE));
	}
}

/* An unmap that comes short of what it is asked for is continued. */
TEST_F(mock, unmap_is_short)
{
	struct vfio_mock_iommu_break how = { .unmap = VFIO_MOCK_BREAK_SHORT };
	__u64 data;

	for (how.unmap_at = 1; how.unmap_at < 10000;
	     how.unmap_at += how.unmap_at / 8 + 1) {
		ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, SIZE, RW));
		ASSERT_EQ(0, mock_break(&self->m, &how));
		ASSERT_EQ(SIZE, dma_unmap(&self->c, TEST_IOVA, SIZE));
		ASSERT_EQ(0, mock_state(&self->m).leaves);
		ASSERT_EQ(-ENXIO, mock_read(self->dev, TEST_IOVA, &data, 8));
		if (mock_state(&self->m).unmap_at)
			break;
	}
	EXPECT_LT(how.unmap_at, 10000);
	how.unmap_at = 0;
	ASSERT_EQ(0, mock_break(&self->m, &how));
}

/* What the kernel says of a driver that does not unmap */
#define UNMAP_FAILED	"vfio_dma: (undo )?unmapped [0-9]+ bytes"

/*
 * A driver fails to unmap. Whatever the IOMMU can reach stays pinned, DMA to it
 * would be an error otherwise; what is reported as unmapped cannot be reached.
 */
TEST_F(mock, unmap_fails)
{
	static const __u32 hows[] = {
		VFIO_MOCK_BREAK_FAIL, VFIO_MOCK_BREAK_HALF, VFIO_MOCK_BREAK_FORGET,
	};
	const size_t unit = self->unit, first = 3 * unit, size = SIZE - 2 * first;
	struct vfio_mock_iommu_break how = {}, never = {};
	struct vfio_mock_iommu_state before, after;
	int failed = 0, err;
	struct mem mem;
	__u64 data;
	__s64 ret;

	if (!is_v3(variant->type))
		return;
	allow_warning(UNMAP_FAILED);
	for (int i = 0; i < 9; i++) {
		how.unmap = hows[i / 3];
		how.unmap_at = 1 << i % 3;
		/* pages that an IOMMU holds for good are lost, not only to the test */
		if (!need_mem(_metadata, &mem, variant->kind == MEM_4K ? MEM_4K : MEM_THP,
			      SIZE))
			return;
		pattern_fill(mem.va, SIZE, i);
		before = mock_state(&self->m);
		self->pinned = pinned_pages();
		ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, mem.va, SIZE, RW));
		ASSERT_EQ(0, mock_break(&self->m, &how));
		ret = dma_unmap(&self->c, TEST_IOVA + first, size);
		failed += ret == -EIO;
		if (ret != -EIO)
			ASSERT_EQ(size, ret);
		for (size_t off = 0; off < SIZE; off += unit) {
			err = mock_read(self->dev, TEST_IOVA + off, &data, 8);
			if (err != -ENXIO) {
				ASSERT_EQ(0, err);
				ASSERT_EQ(*(__u64 *)(mem.va + off), data);
			}
			if (ret != -EIO)
				ASSERT_EQ(off >= first && off < first + size ? -ENXIO : 0,
					  err) TH_LOG("%d at %#zx", i, off);
		}
		ASSERT_EQ(0, mock_break(&self->m, &never));
		ASSERT_LE(0, dma_unmap_all(&self->c));

		/* as the last group leaves, everything else goes */
		close(self->dev);
		container_close(&self->c);
		after = mock_state(&self->m);
		EXPECT_EQ(0, after.leaves);
		EXPECT_LE((after.left - before.left) / PAGE,
			  pinned_pages() - self->pinned);
		if (ret != -EIO)
			EXPECT_EQ(self->pinned, pinned_pages());
		mem_free(&mem);
		ASSERT_EQ(0, container_open(&self->c, variant->type, self->m.name[0]));
		self->dev = container_device(&self->c, self->m.name[0]);
		ASSERT_LE(0, self->dev);
	}
	EXPECT_LT(0, failed);
	self->pinned = pinned_pages();
	self->left = mock_state(&self->m).left;
	expect_no_warning();
}

/*
 * Two IOMMUs that are not alike
 */

FIXTURE(pair) {
	struct container c;
	struct mock m[2];
	struct mem mem;
	int dev[2];
	bool was_unsafe;
	long pinned;
	size_t unit;
};

FIXTURE_VARIANT(pair) {
	unsigned long type;
	unsigned long pgsizes[2];
	__u32 flags[2];
};

ADD_KIND(pair, close, { THREE_SIZES, CLOSE_SIZES }, { 0, DISJOINT });
ADD_V3_KIND(pair, close_calls, { CLOSE_SIZES, POWERS }, { 0, CALLS });
ADD_V3_KIND(pair, calls_large, { POWERS, LARGE_SIZES }, { CALLS, COHERENT });
ADD_V3_KIND(pair, one_dirty, { 4 * KIB, THREE_SIZES }, { 0, DIRTY });
ADD_V3_KIND(pair, one_64k, { CLOSE_SIZES, 64 * KIB }, { 0, 0 });
ADD_V3_KIND(pair, below_16k, { BELOW_SIZES | 16 * KIB, 16 * KIB }, { DISJOINT, 0 });
ADD_V3_KIND(pair, below_calls, { BELOW_SIZES, POWERS }, { 0, CALLS });

FIXTURE_SETUP(pair)
{
	container_init(&self->c);
	for (int i = 0; i < 2; i++) {
		mock_init(&self->m[i]);
		self->dev[i] = -1;
	}
	self->was_unsafe = mock_allow_unsafe(true);
	if (!need_mem(_metadata, &self->mem, MEM_2M, SIZE))
		return;
	pattern_fill(self->mem.va, SIZE, 0);
	self->pinned = pinned_pages();
	for (int i = 0; i < 2; i++) {
		struct vfio_mock_iommu_create config = {
			.pgsizes = variant->pgsizes[i],
			.flags = variant->flags[i],
			.nr_devices = 2,
		};
		size_t unit = unit_of(config.pgsizes);

		if (self->unit < unit)
			self->unit = unit;
		ASSERT_EQ(0, mock_create(&self->m[i], &config));
	}
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->m[0].name[0]));
	ASSERT_EQ(0, container_attach(&self->c, self->m[1].name[0]));
	for (int i = 0; i < 2; i++) {
		self->dev[i] = container_device(&self->c, self->m[i].name[0]);
		ASSERT_LE(0, self->dev[i]);
	}
}

FIXTURE_TEARDOWN(pair)
{
	for (int i = 0; i < 2; i++)
		if (self->dev[i] >= 0)
			close(self->dev[i]);
	container_close(&self->c);
	for (int i = 0; i < 2; i++) {
		if (self->m[i].fd >= 0) {
			check_end(_metadata, &self->m[i], variant->type, 0);
			EXPECT_EQ(self->pinned, pinned_pages());
		}
		mock_destroy(&self->m[i]);
	}
	mock_allow_unsafe(self->was_unsafe);
	mem_free(&self->mem);
}

/* Take the device of an IOMMU away, with its group. */
static void detach(struct __test_metadata *_metadata, struct _test_data_pair *self,
		   int i)
{
	close(self->dev[i]);
	self->dev[i] = -1;
	ASSERT_EQ(0, container_detach(&self->c, self->m[i].name[0]));
	EXPECT_EQ(0, mock_state(&self->m[i]).leaves);
	EXPECT_EQ(0, mock_state(&self->m[i]).domains);
}

static void attach(struct __test_metadata *_metadata, struct _test_data_pair *self,
		   int i)
{
	ASSERT_EQ(0, container_attach(&self->c, self->m[i].name[0]));
	self->dev[i] = container_device(&self->c, self->m[i].name[0]);
	ASSERT_LE(0, self->dev[i]);
}

/* What is mapped, cut and mapped again is so in both, whoever comes and goes. */
TEST_F(pair, cuts)
{
	const size_t unit = self->unit, nr = SIZE / unit;
	bool mapped[MAX_UNITS];
	__u64 seed = test_seed();
	size_t first, n;

	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, SIZE, RW));
	set_units(mapped, 0, nr, true);
	for (int i = 0; i < 6; i++) {
		for (int k = 0; k < 2; k++)
			check_dma(_metadata, self->dev[k], &self->mem, unit, mapped);
		detach(_metadata, self, i % 2);
		check_dma(_metadata, self->dev[!(i % 2)], &self->mem, unit, mapped);
		if (is_v3(variant->type)) {
			first = prng(&seed) % (nr - 8);
			n = 1 + prng(&seed) % 8;
			ASSERT_LE(0, dma_unmap(&self->c, TEST_IOVA + first * unit,
					       n * unit));
			set_units(mapped, first, n, false);
		}
		attach(_metadata, self, i % 2);
		if (is_v3(variant->type)) {
			for (int k = 0; k < 2; k++)
				check_dma(_metadata, self->dev[k], &self->mem, unit,
					  mapped);
			first = prng(&seed) % (nr - 8);
			ASSERT_LE(0, dma_unmap(&self->c, TEST_IOVA + first * unit,
					       8 * unit));
			ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + first * unit,
					     self->mem.va + first * unit, 8 * unit, RW));
			set_units(mapped, first, 8, true);
		}
	}
	for (int k = 0; k < 2; k++)
		check_dma(_metadata, self->dev[k], &self->mem, unit, mapped);
	EXPECT_LT(0, dma_unmap_all(&self->c));
}

/*
 * Access rights are those of each mapping, page by page, and an IOMMU that comes late has
 * the same.
 */
TEST_F(pair, access)
{
	static const __u32 access[] = { RW, RO, RW, WO, RO };
	const size_t unit = self->unit, nr = SIZE / unit;
	const size_t small = nr / 2 < 200 ? nr / 2 : 200;
	struct vfio_mock_leaf leaf;
	__u32 want;

	/* units one by one, then all that is behind them in one piece */
	for (size_t i = 0; i < small; i++)
		ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + i * unit, self->mem.va + i * unit,
				     unit, access[i % ARRAY_SIZE(access)]));
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + small * unit, self->mem.va + small * unit,
			     SIZE - small * unit, RO));
	for (int round = 0; round < 3; round++) {
		for (int k = 0; k < 2; k++) {
			for (size_t i = 0; i < nr; i++) {
				want = i < small ? access[i % ARRAY_SIZE(access)] : RO;
				leaf = mock_leaf(self->dev[k], TEST_IOVA + i * unit);
				ASSERT_EQ(want, leaf.prot & (VFIO_MOCK_LEAF_READ |
							     VFIO_MOCK_LEAF_WRITE))
					TH_LOG("unit %zu of IOMMU %d, round %d", i, k, round);
			}
		}
		detach(_metadata, self, round % 2);
		attach(_metadata, self, round % 2);
	}
	EXPECT_EQ(SIZE, dma_unmap_all(&self->c));
}

/* Either IOMMU fails to map: nothing is mapped in the other. */
TEST_F(pair, map_fails)
{
	struct vfio_mock_iommu_break how = { .map = VFIO_MOCK_BREAK_HALF };
	int ret = 0;

	for (int i = 0; i < 2; i++) {
		for (how.map_at = 1; how.map_at < 10000; how.map_at += how.map_at / 4 + 1) {
			ASSERT_EQ(0, mock_break(&self->m[i], &how));
			ret = dma_map(&self->c, TEST_IOVA, self->mem.va, SIZE, RW);
			if (!ret)
				break;
			ASSERT_EQ(-ENOMEM, ret);
			for (int k = 0; k < 2; k++)
				ASSERT_EQ(0, mock_state(&self->m[k]).leaves);
			ASSERT_EQ(self->pinned, pinned_pages());
		}
		ASSERT_EQ(0, ret);
		EXPECT_LT(1, how.map_at);
		how.map_at = 0;
		ASSERT_EQ(0, mock_break(&self->m[i], &how));
		ASSERT_EQ(SIZE, dma_unmap(&self->c, TEST_IOVA, SIZE));
	}
}

/* An IOMMU fails when its group is attached: it has nothing then, the other all. */
TEST_F(pair, attach_fails)
{
	struct vfio_mock_iommu_break how = { .map = VFIO_MOCK_BREAK_HALF };
	const size_t unit = self->unit, nr = SIZE / unit;
	bool mapped[MAX_UNITS];
	int ret = 0, failed = 0;

	/* type1v2 unmaps what it has not mapped */
	if (!is_v3(variant->type))
		return;
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, SIZE, RW));
	set_units(mapped, 0, nr, true);
	ASSERT_EQ(unit, dma_unmap(&self->c, TEST_IOVA + 5 * unit, unit));
	mapped[5] = false;
	detach(_metadata, self, 1);
	for (how.map_at = 1; how.map_at < 10000; how.map_at += how.map_at / 4 + 1) {
		ASSERT_EQ(0, mock_break(&self->m[1], &how));
		ret = container_attach(&self->c, self->m[1].name[0]);
		if (mock_state(&self->m[1]).map_at)
			break;
		if (!ret) {
			/* it was the trial that failed */
			ASSERT_EQ(0, container_detach(&self->c, self->m[1].name[0]));
			continue;
		}
		failed++;
		ASSERT_EQ(-ENOMEM, ret);
		ASSERT_EQ(0, mock_state(&self->m[1]).leaves);
		ASSERT_EQ(0, mock_state(&self->m[1]).domains);
	}
	ASSERT_EQ(0, ret);
	EXPECT_LT(0, failed);
	self->dev[1] = container_device(&self->c, self->m[1].name[0]);
	for (int k = 0; k < 2; k++)
		check_dma(_metadata, self->dev[k], &self->mem, unit, mapped);
}

/* Devices of one IOMMU share a domain, which stays until the last one goes. */
TEST_F(pair, share)
{
	__u64 data;
	int dev;

	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, SIZE, RW));
	ASSERT_EQ(0, container_attach(&self->c, self->m[1].name[1]));
	dev = container_device(&self->c, self->m[1].name[1]);
	ASSERT_LE(0, dev);
	EXPECT_EQ(1, mock_state(&self->m[0]).domains);
	EXPECT_EQ(1, mock_state(&self->m[1]).domains);
	EXPECT_EQ(0, mock_read(dev, TEST_IOVA, &data, 8));
	close(self->dev[1]);
	self->dev[1] = -1;
	ASSERT_EQ(0, container_detach(&self->c, self->m[1].name[0]));
	EXPECT_EQ(0, mock_read(dev, TEST_IOVA, &data, 8));
	close(dev);
	ASSERT_EQ(0, container_detach(&self->c, self->m[1].name[1]));
	EXPECT_EQ(0, mock_state(&self->m[1]).domains);
	EXPECT_EQ(0, mock_read(self->dev[0], TEST_IOVA, &data, 8));
}

/* A device is unplugged while its group is in the container. */
TEST_F(pair, unplug)
{
	__u64 data;

	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, SIZE, RW));
	for (int i = 0; i < 2; i++) {
		close(self->dev[i]);
		self->dev[i] = -1;
		ASSERT_EQ(0, mock_unplug(&self->m[i], 0));
		EXPECT_EQ(0, mock_state(&self->m[i]).domains);
		if (!i)
			EXPECT_EQ(0, mock_read(self->dev[1], TEST_IOVA, &data, 8));
	}
	EXPECT_EQ(self->pinned, pinned_pages());
}

/*
 * Addresses
 */

FIXTURE(place) {
	struct container c;
	struct mock m[2];
	struct mem mem;
	int dev;
	bool was_unsafe;
	long pinned;
};

FIXTURE_VARIANT(place) { unsigned long type; };
ADD_TYPES(place);

#define LOW		(16 * MIB)
#define HIGH		(64 * MIB - 1)
#define HOLE		(32 * MIB)

FIXTURE_SETUP(place)
{
	struct vfio_mock_iommu_create config = {
		.pgsizes = THREE_SIZES,
		.aperture = { LOW, HIGH },
		.reserved = { { HOLE, HOLE + PAGE - 1 }, { HOLE + MIB, HOLE + 2 * MIB - 1 } },
	};

	container_init(&self->c);
	self->dev = -1;
	self->was_unsafe = mock_allow_unsafe(true);
	for (int i = 0; i < 2; i++)
		mock_init(&self->m[i]);
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, 4 * MIB));
	pattern_fill(self->mem.va, 4 * MIB, 0);
	self->pinned = pinned_pages();
	ASSERT_EQ(0, mock_create(&self->m[0], &config));
	config.aperture.first = 0;
	config.aperture.last = 48 * MIB - 1;
	config.reserved[0].last = 0;
	config.reserved[0].first = 0;
	ASSERT_EQ(0, mock_create(&self->m[1], &config));
}

FIXTURE_TEARDOWN(place)
{
	if (self->dev >= 0)
		close(self->dev);
	container_close(&self->c);
	for (int i = 0; i < 2; i++) {
		if (self->m[i].fd >= 0)
			check_end(_metadata, &self->m[i], variant->type, 0);
		mock_destroy(&self->m[i]);
	}
	EXPECT_EQ(self->pinned, pinned_pages());
	mock_allow_unsafe(self->was_unsafe);
	mem_free(&self->mem);
}

/* Nothing is mapped where the IOMMU does not translate, and all is where it does. */
TEST_F(place, ranges)
{
	static const struct {
		__u64 iova, size;
		bool valid;
	} maps[] = {
		{ LOW, PAGE, true }, { LOW - PAGE, PAGE, false },
		{ LOW - PAGE, 2 * PAGE, false }, { 0, PAGE, false },
		{ HIGH + 1 - PAGE, PAGE, true }, { HIGH + 1, PAGE, false },
		{ HIGH + 1 - PAGE, 2 * PAGE, false }, { HOLE - PAGE, PAGE, true },
		{ HOLE, PAGE, false }, { HOLE + PAGE, PAGE, true },
		{ HOLE - PAGE, 3 * PAGE, false }, { HOLE + PAGE, MIB - PAGE, true },
		{ HOLE + PAGE, MIB, false }, { HOLE + 2 * MIB, 2 * MIB, true },
		{ HOLE + 2 * MIB - PAGE, PAGE, false },
	};
	struct container_info info;

	ASSERT_EQ(0, container_open(&self->c, variant->type, self->m[0].name[0]));
	ASSERT_EQ(0, container_info(&self->c, &info));
	ASSERT_EQ(3, info.nranges);
	EXPECT_EQ(LOW, info.range[0].start);
	EXPECT_EQ(HOLE - 1, info.range[0].end);
	EXPECT_EQ(HOLE + PAGE, info.range[1].start);
	EXPECT_EQ(HOLE + MIB - 1, info.range[1].end);
	EXPECT_EQ(HOLE + 2 * MIB, info.range[2].start);
	EXPECT_EQ(HIGH, info.range[2].end);
	for (unsigned long i = 0; i < ARRAY_SIZE(maps); i++) {
		EXPECT_EQ(maps[i].valid ? 0 : -EINVAL,
			  dma_map(&self->c, maps[i].iova, self->mem.va, maps[i].size,
				  RW)) TH_LOG("map %lu", i);
		if (maps[i].valid)
			EXPECT_EQ(maps[i].size, dma_unmap(&self->c, maps[i].iova,
							  maps[i].size));
	}
}

/* A group whose IOMMU does not reach what is mapped is refused, and nothing changes. */
TEST_F(place, late)
{
	static const __u64 where[] = { HIGH + 1 - PAGE, 48 * MIB };
	struct container_info info;
	__u64 data;

	ASSERT_EQ(0, container_open(&self->c, variant->type, self->m[0].name[0]));
	self->dev = container_device(&self->c, self->m[0].name[0]);
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, dma_map(&self->c, where[i], self->mem.va, PAGE, RW));
		EXPECT_EQ(-EINVAL, container_attach(&self->c, self->m[1].name[0]));
		EXPECT_EQ(0, mock_state(&self->m[1]).domains);
		ASSERT_EQ(0, container_info(&self->c, &info));
		EXPECT_EQ(3, info.nranges);
		EXPECT_EQ(HIGH, info.range[2].end);
		EXPECT_EQ(0, mock_read(self->dev, where[i], &data, 8));
		EXPECT_EQ(PAGE, dma_unmap(&self->c, where[i], PAGE));
	}
	/* what both reach */
	ASSERT_EQ(0, dma_map(&self->c, 48 * MIB - PAGE, self->mem.va, PAGE, RW));
	EXPECT_EQ(0, container_attach(&self->c, self->m[1].name[0]));
	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(3, info.nranges);
	EXPECT_EQ(48 * MIB - 1, info.range[2].end);
	EXPECT_EQ(-EINVAL, dma_map(&self->c, 48 * MIB, self->mem.va, PAGE, RW));
}

/* An IOMMU that has no page size in common with the others does not join. */
TEST_F(place, nothing_in_common)
{
	struct vfio_mock_iommu_create config = { .pgsizes = 64 * KIB };
	struct container_info info;
	struct mock large;
	__u64 data;

	/* type1v2 takes it, and can map nothing any more */
	if (!is_v3(variant->type))
		return;
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->m[1].name[0]));
	self->dev = container_device(&self->c, self->m[1].name[0]);
	ASSERT_LE(0, self->dev);
	ASSERT_EQ(0, dma_map(&self->c, LOW, self->mem.va, MIB, RW));
	ASSERT_EQ(0, mock_create(&large, &config));
	EXPECT_EQ(-EINVAL, container_attach(&self->c, large.name[0]));
	EXPECT_EQ(0, mock_state(&large).domains);
	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(PAGE, info.pgsizes & -info.pgsizes);
	EXPECT_EQ(0, mock_read(self->dev, LOW, &data, 8));
	EXPECT_EQ(MIB, dma_unmap(&self->c, LOW, MIB));
	mock_destroy(&large);
}

/* IOVA 0 and physical address 0 are addresses like others. */
TEST_F(place, zero)
{
	struct vfio_mock_leaf leaf;
	__u64 data;
	void *low;

	ASSERT_EQ(0, container_open(&self->c, variant->type, self->m[1].name[0]));
	self->dev = container_device(&self->c, self->m[1].name[0]);
	ASSERT_LE(0, self->dev);
	ASSERT_EQ(0, dma_map(&self->c, 0, self->mem.va, MIB, RW));
	EXPECT_EQ(0, mock_read(self->dev, 0, &data, 8));
	EXPECT_EQ(MIB, dma_unmap(&self->c, 0, MIB));
	EXPECT_EQ(-ENXIO, mock_read(self->dev, 0, &data, 8));

	/* type1v2 maps what is behind it instead */
	if (!is_v3(variant->type))
		return;
	low = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, self->dev, 0);
	ASSERT_NE(MAP_FAILED, low);
	ASSERT_EQ(0, dma_map(&self->c, LOW, low, 4 * PAGE, RO));
	leaf = mock_leaf(self->dev, LOW);
	EXPECT_EQ(PAGE, leaf.size);
	EXPECT_EQ(0, leaf.phys);
	EXPECT_EQ(VFIO_MOCK_LEAF_READ, leaf.prot);
	EXPECT_EQ(PAGE, dma_unmap(&self->c, LOW, PAGE));
	EXPECT_EQ(0, mock_leaf(self->dev, LOW).size);
	EXPECT_EQ(PAGE, mock_leaf(self->dev, LOW + PAGE).size);
	EXPECT_EQ(3 * PAGE, dma_unmap(&self->c, LOW, 4 * PAGE));
	munmap(low, 4 * PAGE);
}

/* An IOMMU that does not isolate interrupts is for those who say that they may. */
TEST_F(place, unsafe)
{
	mock_allow_unsafe(false);
	container_init(&self->c);
	EXPECT_EQ(-EPERM, container_open(&self->c, variant->type, self->m[0].name[0]));
	EXPECT_EQ(0, mock_state(&self->m[0]).domains);
	mock_allow_unsafe(true);
	EXPECT_EQ(0, ioctl(self->c.fd, VFIO_SET_IOMMU, variant->type));
}

/*
 * Widths of addresses
 */

FIXTURE(width) {
	struct container c;
	struct mock m[2];	/* of the width, and the narrowest one */
	struct mem mem;
	int dev;
	bool was_unsafe;
	long pinned;
	__u64 last;		/* address */
};

FIXTURE_VARIANT(width) {
	unsigned long type;
	int bits;
};

ADD_KIND(width, 39, 39);
ADD_KIND(width, 48, 48);
ADD_KIND(width, 57, 57);

#define NARROWEST	39

FIXTURE_SETUP(width)
{
	struct vfio_mock_iommu_create config = { .pgsizes = THREE_SIZES };
	const int bits[] = { variant->bits, NARROWEST };

	container_init(&self->c);
	self->dev = -1;
	self->last = (1ULL << variant->bits) - 1;
	self->was_unsafe = mock_allow_unsafe(true);
	for (int i = 0; i < 2; i++)
		mock_init(&self->m[i]);
	if (!need_mem(_metadata, &self->mem, MEM_2M, SIZE))
		return;
	pattern_fill(self->mem.va, SIZE, 0);
	self->pinned = pinned_pages();
	for (int i = 0; i < 2; i++) {
		config.aperture.last = (1ULL << bits[i]) - 1;
		ASSERT_EQ(0, mock_create(&self->m[i], &config));
	}
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->m[0].name[0]));
	self->dev = container_device(&self->c, self->m[0].name[0]);
	ASSERT_LE(0, self->dev);
}

FIXTURE_TEARDOWN(width)
{
	if (self->dev >= 0)
		close(self->dev);
	container_close(&self->c);
	for (int i = 0; i < 2; i++) {
		if (self->m[i].fd >= 0)
			check_end(_metadata, &self->m[i], variant->type, 0);
		mock_destroy(&self->m[i]);
	}
	EXPECT_EQ(self->pinned, pinned_pages());
	mock_allow_unsafe(self->was_unsafe);
	mem_free(&self->mem);
}

/* The last addresses are like others, in a superpage and cut, and there are no more. */
TEST_F(width, ends)
{
	const __u64 top = self->last + 1 - SIZE;
	struct container_info info;
	__u8 *buf = self->mem.va;
	__u64 data;

	ASSERT_EQ(0, container_info(&self->c, &info));
	ASSERT_EQ(1, info.nranges);
	EXPECT_EQ(0, info.range[0].start);
	EXPECT_EQ(self->last, info.range[0].end);

	EXPECT_EQ(-EINVAL, dma_map(&self->c, self->last + 1, buf, PAGE, RW));
	EXPECT_EQ(-EINVAL, dma_map(&self->c, self->last + 1 - PAGE, buf, 2 * PAGE, RW));
	EXPECT_EQ(-EINVAL, dma_map(&self->c, top + PAGE, buf, SIZE, RW));
	EXPECT_EQ(self->pinned, pinned_pages());
	ASSERT_EQ(0, dma_map(&self->c, top, buf, SIZE, RW));
	EXPECT_EQ(2 * MIB, mock_leaf(self->dev, self->last).size);
	EXPECT_EQ(0, mock_read(self->dev, self->last - 7, &data, 8));
	EXPECT_EQ(*(__u64 *)(buf + SIZE - 8), data);
	EXPECT_EQ(-ENXIO, mock_read(self->dev, self->last - 7, &data, 16));
	if (is_v3(variant->type)) {
		EXPECT_EQ(PAGE, dma_unmap(&self->c, self->last + 1 - PAGE, PAGE));
		EXPECT_EQ(-ENXIO, mock_read(self->dev, self->last - 7, &data, 8));
		EXPECT_EQ(0, mock_read(self->dev, self->last - PAGE - 7, &data, 8));
		EXPECT_EQ(0, dma_map(&self->c, self->last + 1 - PAGE, buf + SIZE - PAGE,
				     PAGE, RW));
		EXPECT_EQ(0, mock_read(self->dev, self->last - 7, &data, 8));
		EXPECT_EQ(*(__u64 *)(buf + SIZE - 8), data);
	}
	/* all that there is, from end to end */
	ASSERT_EQ(0, dma_map(&self->c, 0, buf, PAGE, RO));
	EXPECT_EQ(SIZE + PAGE, dma_unmap(&self->c, 0, self->last + 1));
	EXPECT_EQ(0, mock_state(&self->m[0]).leaves);
}

/* A narrower one joins if it reaches all that is mapped; from then on both must. */
TEST_F(width, narrower)
{
	const __u64 edge = 1ULL << NARROWEST;
	struct container_info info;
	bool wider = variant->bits > NARROWEST;

	ASSERT_EQ(0, dma_map(&self->c, edge - PAGE, self->mem.va, PAGE, RW));
	if (wider) {
		ASSERT_EQ(0, dma_map(&self->c, edge, self->mem.va + PAGE, PAGE, RW));
		EXPECT_EQ(-EINVAL, container_attach(&self->c, self->m[1].name[0]));
		EXPECT_EQ(0, mock_state(&self->m[1]).domains);
		ASSERT_EQ(0, container_info(&self->c, &info));
		EXPECT_EQ(self->last, info.range[0].end);
		ASSERT_EQ(PAGE, dma_unmap(&self->c, edge, PAGE));
	}
	ASSERT_EQ(0, container_attach(&self->c, self->m[1].name[0]));
	ASSERT_EQ(0, container_info(&self->c, &info));
	ASSERT_EQ(1, info.nranges);
	EXPECT_EQ(edge - 1, info.range[0].end);
	EXPECT_EQ(-EINVAL, dma_map(&self->c, edge, self->mem.va + PAGE, PAGE, RW));
	/* and without it as before */
	ASSERT_EQ(0, container_detach(&self->c, self->m[1].name[0]));
	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(self->last, info.range[0].end);
	EXPECT_EQ(PAGE, dma_unmap_all(&self->c));
}

/*
 * Dirty bits
 */

FIXTURE(bits) {
	struct container c;
	struct mock m[3];	/* with dirty bits, without, and with */
	struct mem mem;
	int dev;
	bool was_unsafe;
};

#define NPAGES	(SIZE / PAGE)
#define BYTES	(NPAGES / 8)
#define BLOCK	512UL		/* pages of a superpage */

FIXTURE_VARIANT(bits) { unsigned long type; };
ADD_V3_TYPES(bits);

FIXTURE_SETUP(bits)
{
	struct vfio_mock_iommu_create config = {
		.pgsizes = THREE_SIZES,
		.nr_devices = 2,
	};

	container_init(&self->c);
	self->dev = -1;
	self->was_unsafe = mock_allow_unsafe(true);
	for (int i = 0; i < 3; i++)
		mock_init(&self->m[i]);
	if (!need_mem(_metadata, &self->mem, MEM_2M, SIZE))
		return;
	for (int i = 0; i < 3; i++) {
		config.flags = i == 1 ? 0 : DIRTY;
		ASSERT_EQ(0, mock_create(&self->m[i], &config));
		config.pgsizes = CLOSE_SIZES;
	}
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->m[0].name[0]));
	self->dev = container_device(&self->c, self->m[0].name[0]);
	ASSERT_LE(0, self->dev);
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, SIZE / 2, RW));
	/* the second half has small IOMMU pages */
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + SIZE / 2, self->mem.va + SIZE / 2,
			     SIZE / 2, RW | VFIO_DMA_MAP_FLAG_SMALL_PAGES));
}

FIXTURE_TEARDOWN(bits)
{
	if (self->dev >= 0)
		close(self->dev);
	container_close(&self->c);
	for (int i = 0; i < 3; i++) {
		if (self->m[i].fd >= 0)
			check_end(_metadata, &self->m[i], variant->type, 0);
		mock_destroy(&self->m[i]);
	}
	mock_allow_unsafe(self->was_unsafe);
	mem_free(&self->mem);
}

static int source(struct container *c)
{
	struct vfio_iommu_type1v3_info_cap_dirty dirty;
	int ret = info_cap(c, VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY, &dirty,
			   sizeof(dirty));

	return ret ?: (int)dirty.source;
}

/* Number of dirty pages of the memory, or a negative errno; @bits: which. */
static int dirty_pages(struct container *c, __u8 *bits)
{
	int ret, n = 0;

	memset(bits, 0, BYTES);
	ret = dirty_bitmap(c, TEST_IOVA, SIZE, PAGE, bits, BYTES);
	if (ret)
		return ret;
	for (unsigned long i = 0; i < NPAGES; i++)
		n += bits[i / 8] >> i % 8 & 1;
	return n;
}

static bool bit(const __u8 *bits, unsigned long n)
{
	return bits[n / 8] & 1 << n % 8;
}

static int write_page(int dev, unsigned long page)
{
	__u64 data = page;

	return mock_write(dev, TEST_IOVA + page * PAGE + 8, &data, sizeof(data));
}

/* Before tracking, the kernel says what it could do; START is what does it. */
static bool start(struct __test_metadata *_metadata, struct _test_data_bits *self)
{
	const int want = self->m[0].tracks ? VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE :
					     VFIO_IOMMU_TYPE1V3_DIRTY_ALL;
	__u8 bits[BYTES];

	EXPECT_EQ(want, source(&self->c));
	EXPECT_EQ(0, mock_state(&self->m[0]).tracking);
	EXPECT_EQ(0, dirty_tracking(&self->c, START));
	EXPECT_EQ(want, source(&self->c));
	EXPECT_EQ(self->m[0].tracks, mock_state(&self->m[0]).tracking);
	EXPECT_EQ(self->m[0].tracks ? 0 : NPAGES, dirty_pages(&self->c, bits));
	return self->m[0].tracks;
}

/* What a device writes is reported, once; of a superpage, all of it. */
TEST_F(bits, written)
{
	__u8 bits[BYTES];

	EXPECT_EQ(0, write_page(self->dev, 3));
	if (!start(_metadata, self))
		return;
	ASSERT_EQ(2 * MIB, mock_leaf(self->dev, TEST_IOVA).size);
	ASSERT_EQ(PAGE, mock_leaf(self->dev, TEST_IOVA + SIZE / 2).size);
	EXPECT_EQ(0, write_page(self->dev, BLOCK + 7));
	EXPECT_EQ(0, write_page(self->dev, BLOCK + 64));
	ASSERT_EQ(2, dirty_pages(&self->c, bits));
	EXPECT_TRUE(bit(bits, BLOCK + 7) && bit(bits, BLOCK + 64));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
	/* again, which takes that the IOTLB has learnt of the first time */
	EXPECT_EQ(0, write_page(self->dev, BLOCK + 7));
	EXPECT_EQ(0, write_page(self->dev, 100));
	ASSERT_EQ(BLOCK + 1, dirty_pages(&self->c, bits));
	EXPECT_TRUE(bit(bits, 0) && bit(bits, BLOCK - 1) && bit(bits, BLOCK + 7));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));

	/* reading is not writing, and after STOP nothing is recorded */
	EXPECT_EQ(0, mock_read(self->dev, TEST_IOVA, bits, 8));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
	ASSERT_EQ(0, dirty_tracking(&self->c, STOP));
	EXPECT_EQ(0, mock_state(&self->m[0]).tracking);
	EXPECT_EQ(0, write_page(self->dev, 5));
	EXPECT_FALSE(mock_leaf(self->dev, TEST_IOVA).prot & VFIO_MOCK_LEAF_DIRTY);
}

/* A superpage is cut while it is tracked: what it had recorded is kept. */
TEST_F(bits, cut)
{
	__u8 bits[BYTES];

	if (!start(_metadata, self))
		return;
	EXPECT_EQ(0, write_page(self->dev, 100));
	EXPECT_EQ(PAGE, dma_unmap(&self->c, TEST_IOVA + 200 * PAGE, PAGE));
	ASSERT_EQ(BLOCK - 1, dirty_pages(&self->c, bits));
	EXPECT_FALSE(bit(bits, 200));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
	/* its parts are recorded by themselves, whatever their size */
	EXPECT_EQ(0, write_page(self->dev, 199));
	ASSERT_EQ(mock_leaf(self->dev, TEST_IOVA + 199 * PAGE).size / PAGE,
		  dirty_pages(&self->c, bits));
	EXPECT_TRUE(bit(bits, 199));
	EXPECT_FALSE(bit(bits, 200));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
}

/* A part of a superpage is asked for: the rest of it is reported later, once. */
TEST_F(bits, part)
{
	__u8 part[8], bits[BYTES];

	if (!start(_metadata, self))
		return;
	EXPECT_EQ(0, write_page(self->dev, 100));
	memset(part, 0, sizeof(part));
	ASSERT_EQ(0, dirty_bitmap(&self->c, TEST_IOVA + 64 * PAGE, 64 * PAGE, PAGE,
				  part, sizeof(part)));
	for (int i = 0; i < 64; i++)
		EXPECT_TRUE(bit(part, i));
	ASSERT_EQ(BLOCK - 64, dirty_pages(&self->c, bits));
	EXPECT_FALSE(bit(bits, 64) || bit(bits, 127));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
}

/* An unmap tells what was written to, also in a superpage that it cuts. */
TEST_F(bits, unmap)
{
	__u8 bits[BYTES] = {};
	int n = 0;

	if (!start(_metadata, self))
		return;
	EXPECT_EQ(0, write_page(self->dev, BLOCK + 9));
	EXPECT_EQ(0, write_page(self->dev, 500));
	EXPECT_EQ(64 * PAGE, dma_unmap_dirty(&self->c, TEST_IOVA + (BLOCK - 32) * PAGE,
					     64 * PAGE, PAGE, bits, BYTES));
	for (int i = 0; i < 64; i++)
		n += bit(bits, i);
	EXPECT_EQ(33, n);
	EXPECT_TRUE(bit(bits, 0) && bit(bits, 31) && bit(bits, 41));
	ASSERT_EQ(BLOCK - 32, dirty_pages(&self->c, bits));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
}

/* A second device of the IOMMU comes late, and is tracked; it goes, and nothing is lost. */
TEST_F(bits, late)
{
	__u8 bits[BYTES];
	int dev;

	if (!start(_metadata, self))
		return;
	ASSERT_EQ(0, container_attach(&self->c, self->m[0].name[1]));
	dev = container_device(&self->c, self->m[0].name[1]);
	ASSERT_LE(0, dev);
	EXPECT_EQ(VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE, source(&self->c));
	EXPECT_EQ(0, write_page(dev, BLOCK + 1));
	EXPECT_EQ(1, dirty_pages(&self->c, bits));
	EXPECT_EQ(0, write_page(dev, BLOCK + 2));
	close(dev);
	ASSERT_EQ(0, container_detach(&self->c, self->m[0].name[1]));
	/* the page table stays, and with it what it has recorded */
	ASSERT_EQ(1, dirty_pages(&self->c, bits));
	EXPECT_TRUE(bit(bits, BLOCK + 2));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
}

/* A second IOMMU comes late, and is tracked; what it has recorded goes with it. */
TEST_F(bits, second)
{
	__u8 bits[BYTES];
	int dev;

	if (!start(_metadata, self))
		return;
	EXPECT_EQ(0, write_page(self->dev, BLOCK + 1));
	ASSERT_EQ(0, container_attach(&self->c, self->m[2].name[0]));
	dev = container_device(&self->c, self->m[2].name[0]);
	ASSERT_LE(0, dev);
	EXPECT_EQ(VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE, source(&self->c));
	EXPECT_EQ(1, mock_state(&self->m[2]).tracking);
	EXPECT_EQ(1, mock_state(&self->m[2]).domains);
	EXPECT_EQ(0, write_page(dev, BLOCK + 9));
	ASSERT_EQ(2, dirty_pages(&self->c, bits));
	EXPECT_TRUE(bit(bits, BLOCK + 1) && bit(bits, BLOCK + 9));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
	EXPECT_EQ(0, write_page(dev, BLOCK + 10));
	close(dev);
	ASSERT_EQ(0, container_detach(&self->c, self->m[2].name[0]));
	EXPECT_EQ(NPAGES, dirty_pages(&self->c, bits));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
}

/* An IOMMU without dirty bits comes: all is dirty, until it goes, and once more. */
TEST_F(bits, unlike)
{
	__u8 bits[BYTES];

	if (!start(_metadata, self))
		return;
	ASSERT_EQ(0, container_attach(&self->c, self->m[1].name[0]));
	EXPECT_EQ(VFIO_IOMMU_TYPE1V3_DIRTY_ALL, source(&self->c));
	for (int i = 0; i < 2; i++)
		EXPECT_EQ(NPAGES, dirty_pages(&self->c, bits));
	ASSERT_EQ(0, container_detach(&self->c, self->m[1].name[0]));
	EXPECT_EQ(VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE, source(&self->c));
	EXPECT_EQ(NPAGES, dirty_pages(&self->c, bits));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
	EXPECT_EQ(0, write_page(self->dev, BLOCK + 3));
	EXPECT_EQ(1, dirty_pages(&self->c, bits));
}

/* A page table goes with what it has recorded: all that is mapped is dirty, once. */
TEST_F(bits, detach)
{
	__u8 bits[BYTES];
	int dev;

	if (!start(_metadata, self))
		return;
	ASSERT_EQ(0, container_attach(&self->c, self->m[1].name[0]));
	dev = container_device(&self->c, self->m[1].name[0]);
	close(self->dev);
	self->dev = dev;
	ASSERT_EQ(0, container_detach(&self->c, self->m[0].name[0]));
	EXPECT_EQ(NPAGES, dirty_pages(&self->c, bits));
	EXPECT_EQ(VFIO_IOMMU_TYPE1V3_DIRTY_ALL, source(&self->c));
}

/* An IOMMU that fails at START records nothing: all is dirty, and the program is told. */
TEST_F(bits, start_fails)
{
	struct vfio_mock_iommu_break how = { .track = 1 };
	__u8 bits[BYTES];

	if (!self->m[0].tracks)
		return;
	ASSERT_EQ(0, mock_break(&self->m[0], &how));
	EXPECT_EQ(VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE, source(&self->c));
	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	EXPECT_EQ(VFIO_IOMMU_TYPE1V3_DIRTY_ALL, source(&self->c));
	for (int i = 0; i < 2; i++)
		EXPECT_EQ(NPAGES, dirty_pages(&self->c, bits));
	ASSERT_EQ(0, dirty_tracking(&self->c, STOP));
	how.track = 0;
	ASSERT_EQ(0, mock_break(&self->m[0], &how));
	start(_metadata, self);
}

/* Bits that cannot be read count as set, for as long as that is so. */
TEST_F(bits, read_fails)
{
	struct vfio_mock_iommu_break how = { .read = 1 };
	__u8 bits[BYTES];

	if (!start(_metadata, self))
		return;
	EXPECT_EQ(0, write_page(self->dev, 1));
	ASSERT_EQ(0, mock_break(&self->m[0], &how));
	for (int i = 0; i < 2; i++)
		EXPECT_EQ(NPAGES, dirty_pages(&self->c, bits));
	how.read = 0;
	ASSERT_EQ(0, mock_break(&self->m[0], &how));
	/* what was written is not lost */
	EXPECT_LE(BLOCK, dirty_pages(&self->c, bits));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
}

/* The program wants the IOMMUs' bits or none: nobody who has none can join. */
TEST_F(bits, hardware_or_nothing)
{
	struct vfio_iommu_type1v3_info_cap_dirty dirty;
	struct vfio_mock_iommu_break how = { .track = 1 };
	const __u32 flag = VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE;
	__u8 bits[BYTES];

	ASSERT_EQ(0, info_cap(&self->c, VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY, &dirty,
			      sizeof(dirty)));
	EXPECT_EQ(self->m[0].tracks ? flag : 0, dirty.flags & flag);
	if (!self->m[0].tracks) {
		EXPECT_EQ(-EOPNOTSUPP, dirty_tracking(&self->c, START | flag));
		EXPECT_EQ(-EINVAL, dirty_pages(&self->c, bits));
		return;
	}
	/* an IOMMU that fails, and one that cannot: nothing is tracked */
	ASSERT_EQ(0, mock_break(&self->m[0], &how));
	EXPECT_EQ(-EOPNOTSUPP, dirty_tracking(&self->c, START | flag));
	EXPECT_EQ(-EINVAL, dirty_pages(&self->c, bits));
	how.track = 0;
	ASSERT_EQ(0, mock_break(&self->m[0], &how));
	ASSERT_EQ(0, container_attach(&self->c, self->m[1].name[0]));
	EXPECT_EQ(-EOPNOTSUPP, dirty_tracking(&self->c, START | flag));
	EXPECT_EQ(-EINVAL, dirty_pages(&self->c, bits));
	EXPECT_EQ(0, mock_state(&self->m[0]).tracking);
	ASSERT_EQ(0, info_cap(&self->c, VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY, &dirty,
			      sizeof(dirty)));
	EXPECT_EQ(0, dirty.flags & flag);
	ASSERT_EQ(0, container_detach(&self->c, self->m[1].name[0]));

	ASSERT_EQ(0, dirty_tracking(&self->c, START | flag));
	EXPECT_EQ(VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE, source(&self->c));
	EXPECT_EQ(0, write_page(self->dev, BLOCK + 1));
	EXPECT_EQ(-EBUSY, container_attach(&self->c, self->m[1].name[0]));
	EXPECT_EQ(0, mock_state(&self->m[1]).domains);
	EXPECT_EQ(0, container_attach(&self->c, self->m[0].name[1]));
	EXPECT_EQ(1, dirty_pages(&self->c, bits));
	ASSERT_EQ(0, dirty_tracking(&self->c, STOP));
	EXPECT_EQ(0, container_attach(&self->c, self->m[1].name[0]));
}

/* The program knows by other means what devices behind IOMMUs write. */
TEST_F(bits, pins_alone)
{
	__u8 bits[BYTES] = {};

	ASSERT_EQ(0, dirty_tracking(&self->c,
				    START | VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED));
	EXPECT_EQ(VFIO_IOMMU_TYPE1V3_DIRTY_PINNED, source(&self->c));
	EXPECT_EQ(0, mock_state(&self->m[0]).tracking);
	EXPECT_EQ(0, write_page(self->dev, 3));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
	/* nor is it for lack of dirty bits, or because a group has gone */
	ASSERT_EQ(0, container_attach(&self->c, self->m[1].name[0]));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
	ASSERT_EQ(0, container_detach(&self->c, self->m[1].name[0]));
	EXPECT_EQ(0, dirty_pages(&self->c, bits));
	memset(bits, 0, BYTES);
	EXPECT_EQ(8 * PAGE, dma_unmap_dirty(&self->c, TEST_IOVA, 8 * PAGE, PAGE, bits,
					    BYTES));
	EXPECT_EQ(0, bits[0]);
	EXPECT_EQ(0, dirty_pages(&self->c, bits));

	/* another choice takes a STOP first */
	EXPECT_EQ(-EBUSY, dirty_tracking(&self->c, START));
	ASSERT_EQ(0, dirty_tracking(&self->c, STOP));
	ASSERT_EQ(0, dirty_tracking(&self->c, START));
	EXPECT_EQ(self->m[0].tracks ? 0 : NPAGES - 8, dirty_pages(&self->c, bits));
}

static int dirty_or(struct container *c, unsigned long first, unsigned long n,
		    void *bits, size_t bytes)
{
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} u = {
		.dirty.argsz = sizeof(u),
		.dirty.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP |
			       VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR,
		.get.iova = TEST_IOVA + first * PAGE,
		.get.size = n * PAGE,
		.get.bitmap.pgsize = PAGE,
		.get.bitmap.size = bytes,
		.get.bitmap.data = bits,
	};

	return ioctl(c->fd, VFIO_IOMMU_DIRTY_PAGES, &u) ? -errno : 0;
}

/* What other trackers have set stays, and what the IOMMU has recorded is added. */
TEST_F(bits, or)
{
	__u8 bits[BYTES], want[BYTES], other[BYTES];
	__u64 seed = test_seed();

	if (!start(_metadata, self))
		return;
	for (int round = 0; round < 4; round++) {
		/* nothing, everything, and anything is there already */
		for (unsigned long i = 0; i < BYTES; i++)
			other[i] = round == 1 ? 0xff : round ? prng(&seed) : 0;
		memcpy(want, other, BYTES);
		for (int i = 0; i < 20; i++) {
			unsigned long page = BLOCK + prng(&seed) % BLOCK;

			ASSERT_EQ(0, write_page(self->dev, page));
			want[page / 8] |= 1 << page % 8;
		}
		memcpy(bits, other, BYTES);
		ASSERT_EQ(0, dirty_or(&self->c, 0, NPAGES, bits, BYTES));
		EXPECT_EQ(0, memcmp(want, bits, BYTES));
		EXPECT_EQ(0, dirty_pages(&self->c, bits));
	}
	/* bits behind the last one of the range are somebody else's */
	EXPECT_EQ(0, write_page(self->dev, BLOCK + 2));
	memset(bits, 0xa5, BYTES);
	ASSERT_EQ(0, dirty_or(&self->c, BLOCK + 1, 3, bits, 8));
	memset(want, 0xa5, BYTES);
	want[0] |= 1 << 1;
	EXPECT_EQ(0, memcmp(want, bits, BYTES));
}

static int device_log(int dev, __u32 feature, void *data, size_t size)
{
	__u64 buf[16] = {};
	struct vfio_device_feature *arg = (void *)buf;

	arg->argsz = sizeof(*arg) + size;
	arg->flags = feature;
	memcpy(arg->data, data, size);
	return ioctl(dev, VFIO_DEVICE_FEATURE, arg) ? -errno : 0;
}

/*
 * A device with a tracker of its own beside an emulated one, behind an IOMMU that is not
 * asked: both add to one bitmap. Where emulated ones are refused it is alone.
 */
TEST_F(bits, device_log)
{
	struct vfio_device_feature_dma_logging_range range = { TEST_IOVA, SIZE };
	struct vfio_device_feature_dma_logging_control control = {
		.page_size = PAGE,
		.num_ranges = 1,
		.ranges = (uintptr_t)&range,
	};
	struct vfio_device_feature_dma_logging_report report = {
		.iova = TEST_IOVA,
		.length = SIZE,
		.page_size = PAGE,
	};
	const __u32 set = VFIO_DEVICE_FEATURE_SET, get = VFIO_DEVICE_FEATURE_GET;
	__u8 bits[BYTES], data = 1;
	const bool emulated = has_vaddr(variant->type);
	int dev = -1, n = 0;

	if (!self->m[0].tracks)
		return;
	ASSERT_EQ(emulated ? 0 : -EOPNOTSUPP, emulated_attach(&self->c, 0));
	if (emulated) {
		dev = container_device(&self->c, emulated_name(0));
		ASSERT_LE(0, dev);
	}
	EXPECT_EQ(0, write_page(self->dev, 1));
	ASSERT_EQ(0, device_log(self->dev, set | VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
				&control, sizeof(control)));
	ASSERT_EQ(0, dirty_tracking(&self->c,
				    START | VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED));
	for (int round = 0; round < 2; round++) {
		EXPECT_EQ(0, write_page(self->dev, 5 + round));
		if (emulated)
			EXPECT_EQ(0, emulated_rw(dev, TEST_IOVA + (90 + round) * PAGE,
						 &data, 1, RW_WRITE));
		memset(bits, 0, BYTES);
		report.bitmap = (uintptr_t)bits;
		ASSERT_EQ(0, device_log(self->dev,
					get | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
					&report, sizeof(report)));
		ASSERT_EQ(0, dirty_or(&self->c, 0, NPAGES, bits, BYTES));
		n = 0;
		for (unsigned long i = 0; i < NPAGES; i++)
			n += bit(bits, i);
		EXPECT_EQ(emulated ? 2 : 1, n);
		EXPECT_TRUE(bit(bits, 5 + round));
		EXPECT_EQ(emulated, bit(bits, 90 + round));
	}
	EXPECT_EQ(0, device_log(self->dev, set | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
				NULL, 0));
	if (emulated)
		close(dev);
}

TEST_HARNESS_MAIN
