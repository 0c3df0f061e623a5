// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unmapping parts of mappings. type1v3 takes any range of pages out, also out
 * of a superpage of the IOMMU: the range faults, the rest works on and no byte
 * of memory changes. type1v2, the control, refuses and all of it works on.
 *
 * A cut done wrong is not only a stale or a missing translation: an IOMMU
 * driver that is asked to unmap a part of a superpage may take the user's page
 * for a page table. Hence memory is compared as a whole after each cut.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "type1v3_harness.h"

/* All that the model below needs to know of a page of IOVA */
#define NOT_MAPPED	-1

#define LEAF_PAGES	((long)(LEAF / PAGE))

FIXTURE(cut) {
	struct container c;
	struct nvme nvme;
	struct mem mem;
	long locked, pinned;
};

FIXTURE_VARIANT(cut) {
	unsigned long type;
	enum mem_kind kind;
	size_t size, leaf;
};

ADD_KIND(cut, small, MEM_4K, 3 * LEAF, LEAF);
ADD_KIND(cut, thp, MEM_THP, 3 * LEAF, LEAF);
ADD_KIND(cut, huge_2m, MEM_2M, 3 * LEAF, LEAF);
ADD_KIND(cut, huge_1g, MEM_1G, GIB, GIB);
ADD_KIND(cut, shared, MEM_SHARED, 3 * LEAF, LEAF);

FIXTURE_SETUP(cut)
{
	const char *bdf;

	container_init(&self->c);
	nvme_init(&self->nvme);
	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf)
		return;
	ASSERT_EQ(0, container_open(&self->c, variant->type, bdf));
	ASSERT_EQ(0, nvme_open(&self->nvme, &self->c, bdf, NVME_IOVA));
	if (!need_mem(_metadata, &self->mem, variant->kind, variant->size))
		return;
	/* tests that use more of a 1 GiB page fill it themselves */
	pattern_fill(self->mem.va, 3 * LEAF, 0);
	self->locked = locked_pages();
	self->pinned = pinned_pages();
}

FIXTURE_TEARDOWN(cut)
{
	nvme_close(&self->nvme);
	container_close(&self->c);
	mem_free(&self->mem);
}

/* What was read is the pattern of these pages of the memory. */
static void expect_pages(struct __test_metadata *_metadata, const __u8 *buf,
			 const long *page, long count)
{
	for (long i = 0; i < count; i++) {
		ASSERT_EQ(-1, pattern_check(buf + i * PAGE, PAGE,
					    page[i] * (PAGE / 8)))
			TH_LOG("not page %ld", page[i]);
	}
}

/* The device reads page @page of the memory at @iova, and finds its pattern. */
static void expect_reads(struct __test_metadata *_metadata, struct nvme *n,
			 __u64 base, const long *page, unsigned int count)
{
	static __u8 buf[NVME_MAX_PAGES * PAGE];
	__u64 iova[NVME_MAX_PAGES];

	ASSERT_GE(NVME_MAX_PAGES, count);
	for (unsigned int i = 0; i < count; i++)
		iova[i] = base + page[i] * PAGE;
	EXPECT_EQ(0, nvme_dma_read(n, iova, count, buf));
	expect_pages(_metadata, buf, page, count);
}

/* The device writes to page @page, there and nowhere else. */
static void expect_write(struct __test_metadata *_metadata, struct nvme *n,
			 __u64 base, struct mem *m, long page)
{
	__u64 iova = base + page * PAGE;
	__u8 *va = m->va + page * PAGE;
	__u8 data[PAGE];

	pattern_fill(data, PAGE, 1UL << 40);
	EXPECT_EQ(0, nvme_dma_write(n, &iova, 1, data));
	EXPECT_EQ(-1, pattern_check(va, PAGE, 1UL << 40))
		TH_LOG("page %ld", page);
	pattern_fill(va, PAGE, page * (PAGE / 8));
}

static void expect_fault(struct __test_metadata *_metadata, struct nvme *n,
			 __u64 base, struct mem *m, long page)
{
	EXPECT_EQ(PROBE_FAULT, nvme_probe_read(n, base + page * PAGE))
		TH_LOG("page %ld", page);
	EXPECT_EQ(PROBE_FAULT, nvme_probe_write(n, base + page * PAGE,
						m->va + page * PAGE))
		TH_LOG("page %ld", page);
}

/* Cut @count pages at @first out of a mapping of all of the memory. */
static void cut_one(struct __test_metadata *_metadata, struct _test_data_cut *self,
		    bool v3, __u64 base, long first, long count)
{
	const long npages = self->mem.size / PAGE;
	struct nvme *n = &self->nvme;
	struct mem *m = &self->mem;
	long near[16], some[NVME_MAX_PAGES];
	unsigned int nnear = 0, nsome = 0;
	__u64 seed = first + 1;
	const __s64 end = first + count;

	/* pages to look at: next to the cut, at the ends, and anywhere */
	const long candidates[] = {
		first - 2, first - 1, end, end + 1, 0, npages - 1,
		first / LEAF_PAGES * LEAF_PAGES,
		end / LEAF_PAGES * LEAF_PAGES + LEAF_PAGES - 1, npages / 2,
	};

	for (size_t i = 0; i < ARRAY_SIZE(candidates); i++) {
		long page = candidates[i];

		if (page >= 0 && page < npages && (page < first || page >= end))
			near[nnear++] = page;
	}
	while (nsome < NVME_MAX_PAGES) {
		long page = prng(&seed) % npages;

		if (page < first || page >= end)
			some[nsome++] = page;
	}

	ASSERT_EQ(0, dma_map(&self->c, base, m->va, m->size, RW));
	/* translations that are cached when the cut comes */
	expect_reads(_metadata, n, base, near, nnear);
	EXPECT_EQ(PROBE_OK, nvme_probe_read(n, base + first * PAGE));
	EXPECT_EQ(PROBE_OK, nvme_probe_read(n, base + (end - 1) * PAGE));

	EXPECT_EQ(v3 ? count * (__s64)PAGE : -EINVAL,
		  dma_unmap(&self->c, base + first * PAGE, count * PAGE));
	EXPECT_EQ(npages - (v3 ? count : 0), locked_pages() - self->locked);
	EXPECT_EQ(npages - (v3 ? count : 0), pinned_pages() - self->pinned);

	if (v3) {
		expect_fault(_metadata, n, base, m, first);
		expect_fault(_metadata, n, base, m, end - 1);
		expect_fault(_metadata, n, base, m, first + count / 2);
	} else {
		EXPECT_EQ(PROBE_OK, nvme_probe_read(n, base + first * PAGE));
		expect_write(_metadata, n, base, m, first);
	}
	expect_reads(_metadata, n, base, near, nnear);
	expect_reads(_metadata, n, base, some, nsome);
	for (unsigned int i = 0; i < nnear; i++)
		expect_write(_metadata, n, base, m, near[i]);

	/* the hole takes another page, which its neighbours do not notice */
	if (v3) {
		struct mem other;

		ASSERT_EQ(0, mem_alloc(&other, MEM_4K, count * PAGE));
		EXPECT_EQ(-EEXIST, dma_map(&self->c, base + (first - !!first) * PAGE,
					   m->va, (count + 1) * PAGE, RW));
		EXPECT_EQ(0, dma_map(&self->c, base + first * PAGE, other.va,
				     count * PAGE, RW));
		for (long i = 0; i < count; i += count > 1 ? count - 1 : 1) {
			__u64 iova = base + (first + i) * PAGE;
			__u8 data[PAGE];

			pattern_fill(data, PAGE, 1UL << 41);
			EXPECT_EQ(0, nvme_dma_write(n, &iova, 1, data));
			EXPECT_EQ(-1, pattern_check(other.va + i * PAGE, PAGE,
						    1UL << 41));
		}
		expect_reads(_metadata, n, base, near, nnear);
		expect_reads(_metadata, n, base, some, nsome);
		mem_free(&other);
	}

	EXPECT_EQ(m->size, dma_unmap(&self->c, base, m->size));
	expect_fault(_metadata, n, base, m, near[0]);
	EXPECT_EQ(-1, pattern_check(m->va, m->size, 0));
	EXPECT_EQ(0, locked_pages() - self->locked);
	EXPECT_EQ(0, pinned_pages() - self->pinned);
}

/* One page of a superpage: the first, one in the middle, the last. */
TEST_F_TIMEOUT(cut, one_page, 900)
{
	const long leaf = variant->leaf / PAGE;
	const bool v3 = is_v3(variant->type);
	/* with small leaves the second, so that both neighbours are superpages */
	const long from = variant->size > variant->leaf ? leaf : 0;

	pattern_fill(self->mem.va, self->mem.size, 0);
	cut_one(_metadata, self, v3, TEST_IOVA, from, 1);
	cut_one(_metadata, self, v3, TEST_IOVA, from + leaf / 2 + 3, 1);
	cut_one(_metadata, self, v3, TEST_IOVA, from + leaf - 1, 1);
}

/* Ranges: within a superpage, over a boundary, a whole one, almost all. */
TEST_F_TIMEOUT(cut, range, 900)
{
	const long npages = variant->size / PAGE;
	const bool v3 = is_v3(variant->type);

	pattern_fill(self->mem.va, self->mem.size, 0);
	cut_one(_metadata, self, v3, TEST_IOVA, LEAF_PAGES - 3, 6);
	cut_one(_metadata, self, v3, TEST_IOVA, LEAF_PAGES - 1, LEAF_PAGES + 2);
	/* comparing all of 1 GiB takes its time */
	if (variant->size > 3 * LEAF)
		return;
	cut_one(_metadata, self, v3, TEST_IOVA, 100, 17);
	cut_one(_metadata, self, v3, TEST_IOVA, LEAF_PAGES, LEAF_PAGES);
	cut_one(_metadata, self, v3, TEST_IOVA, 1, npages - 2);
}

/* IOVA and memory are not aligned alike: no superpages, same result. */
TEST_F_TIMEOUT(cut, unaligned, 900)
{
	const bool v3 = is_v3(variant->type);

	self->mem.size = 3 * LEAF;
	cut_one(_metadata, self, v3, TEST_IOVA + PAGE, 0, 1);
	cut_one(_metadata, self, v3, TEST_IOVA + PAGE, LEAF_PAGES - 1, 1);
	cut_one(_metadata, self, v3, TEST_IOVA + PAGE, LEAF_PAGES - 12, 30);
}

/* What is left of a read-only mapping is read-only. */
TEST_F(cut, read_only)
{
	struct nvme *n = &self->nvme;
	struct mem *m = &self->mem;
	const bool v3 = is_v3(variant->type);
	const long around[] = { 0, 6, 8, LEAF_PAGES - 1, LEAF_PAGES, 2 * LEAF_PAGES - 1 };

	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, m->va, 2 * LEAF, RO));
	EXPECT_EQ(v3 ? (__s64)PAGE : -EINVAL,
		  dma_unmap(&self->c, TEST_IOVA + 7 * PAGE, PAGE));
	expect_reads(_metadata, n, TEST_IOVA, around, ARRAY_SIZE(around));
	for (size_t i = 0; i < ARRAY_SIZE(around); i++) {
		EXPECT_EQ(PROBE_FAULT,
			  nvme_probe_write(n, TEST_IOVA + around[i] * PAGE,
					   m->va + around[i] * PAGE));
	}
	if (v3)
		expect_fault(_metadata, n, TEST_IOVA, m, 7);
	EXPECT_EQ(-1, pattern_check(m->va, 2 * LEAF, 0));
}

/*
 * Random ranges taken out of a mapping and put back at random, against a model
 * of what each page of IOVA holds. Of a page of 1 GiB, which is one superpage to
 * begin with, that is the beginning; the rest must not change.
 */
TEST_F_TIMEOUT(cut, random, 900)
{
	enum { PAGES = 1536 };
	const bool v3 = is_v3(variant->type);
	struct nvme *n = &self->nvme;
	struct mem *m = &self->mem;
	static long model[PAGES];
	long mapped = m->size / PAGE, batch[NVME_MAX_PAGES];
	static __u8 buf[NVME_MAX_PAGES * PAGE];
	__u64 iova[NVME_MAX_PAGES], seed = variant->kind;

	pattern_fill(m->va, m->size, 0);
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, m->va, m->size, RW));
	for (long i = 0; i < PAGES; i++)
		model[i] = i;

	for (int round = 0; round < 60; round++) {
		__u64 r = prng(&seed);
		long count = 1 + (r >> 8) % (r & 1 ? 8 : 300);
		long first = (r >> 32) % (PAGES - count + 1);
		long from = (r >> 48) % (PAGES - count + 1);
		long inside = 0;

		for (long i = first; i < first + count; i++)
			inside += model[i] != NOT_MAPPED;

		if (v3 && r & 2) {
			int want = inside ? -EEXIST : 0;

			ASSERT_EQ(want, dma_map(&self->c, TEST_IOVA + first * PAGE,
						m->va + from * PAGE,
						count * PAGE, RW))
				TH_LOG("round %d", round);
			for (long i = 0; !want && i < count; i++)
				model[first + i] = from + i;
			mapped += want ? 0 : count;
		} else {
			ASSERT_EQ(v3 ? inside * (__s64)PAGE : -EINVAL,
				  dma_unmap(&self->c, TEST_IOVA + first * PAGE,
					    count * PAGE))
				TH_LOG("round %d", round);
			for (long i = first; v3 && i < first + count; i++)
				model[i] = NOT_MAPPED;
			mapped -= v3 ? inside : 0;
		}
		ASSERT_EQ(mapped, locked_pages() - self->locked);

		if (round % 10 != 9)
			continue;
		/* everything that is mapped, and some of what is not */
		ASSERT_EQ(mapped, pinned_pages() - self->pinned);
		for (long i = 0, k = 0; i < PAGES; i++) {
			if (model[i] != NOT_MAPPED) {
				batch[k] = model[i];
				iova[k++] = TEST_IOVA + i * PAGE;
			} else if (i % 97 == 0) {
				EXPECT_EQ(PROBE_FAULT,
					  nvme_probe_read(n, TEST_IOVA + i * PAGE));
			}
			if (k == NVME_MAX_PAGES || (i == PAGES - 1 && k)) {
				ASSERT_EQ(0, nvme_dma_read(n, iova, k, buf));
				expect_pages(_metadata, buf, batch, k);
				k = 0;
			}
		}
		if (m->size == PAGES * PAGE)
			continue;
		for (long i = 0; i < NVME_MAX_PAGES; i++) {
			batch[i] = PAGES + prng(&seed) % (m->size / PAGE - PAGES);
			iova[i] = TEST_IOVA + batch[i] * PAGE;
		}
		ASSERT_EQ(0, nvme_dma_read(n, iova, NVME_MAX_PAGES, buf));
		expect_pages(_metadata, buf, batch, NVME_MAX_PAGES);
	}
	EXPECT_EQ(-1, pattern_check(m->va, m->size, 0));
	EXPECT_EQ(mapped * PAGE + n->mem.size, dma_unmap_all(&self->c));
}

/* Cut with the group attached a second time: the pieces are replayed. */
TEST_F(cut, then_attach)
{
	struct nvme *n = &self->nvme, second;
	const bool v3 = is_v3(variant->type);
	const long around[] = { 0, 6, 9, LEAF_PAGES - 1, LEAF_PAGES, 2 * LEAF_PAGES - 1 };
	struct mem *m = &self->mem;
	const char *bdf;

	bdf = need_device(_metadata, ENV_NVME2);
	if (!bdf)
		return;
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, m->va, 2 * LEAF, RW));
	EXPECT_EQ(v3 ? 2 * (__s64)PAGE : -EINVAL,
		  dma_unmap(&self->c, TEST_IOVA + 7 * PAGE, 2 * PAGE));
	ASSERT_EQ(0, container_attach(&self->c, bdf));
	ASSERT_EQ(0, nvme_open(&second, &self->c, bdf, NVME_IOVA + GIB));
	expect_reads(_metadata, &second, TEST_IOVA, around, ARRAY_SIZE(around));
	if (v3) {
		expect_fault(_metadata, &second, TEST_IOVA, m, 7);
		expect_fault(_metadata, &second, TEST_IOVA, m, 8);
	}
	/* and cut once more, now for both */
	EXPECT_EQ(v3 ? (__s64)PAGE : -EINVAL,
		  dma_unmap(&self->c, TEST_IOVA + 700 * PAGE, PAGE));
	expect_reads(_metadata, &second, TEST_IOVA, around, ARRAY_SIZE(around));
	expect_reads(_metadata, n, TEST_IOVA, around, ARRAY_SIZE(around));
	if (v3) {
		expect_fault(_metadata, &second, TEST_IOVA, m, 700);
		expect_fault(_metadata, n, TEST_IOVA, m, 700);
	}
	EXPECT_EQ(-1, pattern_check(m->va, 2 * LEAF, 0));
	nvme_close(&second);
}

/*
 * Each of many mappings, side by side and of contiguous memory, is unmapped and
 * mapped again: the IOMMU is told just that, and nothing about its neighbours.
 */
TEST_F_TIMEOUT(cut, neighbours, 900)
{
	const __u64 size = LEAF, n = variant->size / size;
	struct iommu_calls calls;
	struct mem *m = &self->mem;
	__u64 at;

	for (__u64 i = 0; i < n; i++)
		ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + i * size, m->va + i * size,
				     size, RW));
	ASSERT_EQ(0, iommu_trace(true));
	for (__u64 i = 0; i < 6; i++) {
		at = (n / 2 + i * 5) % n * size;
		ASSERT_EQ(0, iommu_trace_read(TEST_IOVA, variant->size, &calls));
		ASSERT_EQ(size, dma_unmap(&self->c, TEST_IOVA + at, size));
		ASSERT_EQ(0, iommu_trace_read(TEST_IOVA, variant->size, &calls));
		EXPECT_EQ(size, calls.unmapped);
		EXPECT_EQ(0, calls.mapped);
		ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + at, m->va + at, size, RW));
		ASSERT_EQ(0, iommu_trace_read(TEST_IOVA, variant->size, &calls));
		EXPECT_EQ(0, calls.unmapped);
		EXPECT_EQ(size, calls.mapped);
	}
	EXPECT_EQ(variant->size, dma_unmap(&self->c, TEST_IOVA, variant->size));
	ASSERT_EQ(0, iommu_trace_read(TEST_IOVA, variant->size, &calls));
	EXPECT_EQ(variant->size, calls.unmapped);
	EXPECT_EQ(0, iommu_trace(false));
}

static atomic_bool stop;

/* Take page 7 out and put it back, again and again. */
static void *thread_cut(void *arg)
{
	struct _test_data_cut *self = arg;
	intptr_t bad = 0;

	while (!stop) {
		bad += dma_unmap(&self->c, TEST_IOVA + 7 * PAGE, PAGE) != (__s64)PAGE;
		bad += dma_map(&self->c, TEST_IOVA + 7 * PAGE,
			       self->mem.va + 7 * PAGE, PAGE,
			       RW | VFIO_DMA_MAP_FLAG_SMALL_PAGES) != 0;
	}
	return (void *)bad;
}

/*
 * VFIO_DMA_MAP_FLAG_SMALL_PAGES: cuts do not take the rest away, not for a
 * moment. The device uses the rest while they happen.
 */
TEST_F(cut, small_pages_flag)
{
	struct nvme *n = &self->nvme;
	const long around[] = { 0, 5, 6, 8, 9, 10, 510, 511 };
	struct mem *m = &self->mem;
	pthread_t thread;
	void *bad;
	int ret;

	ret = dma_map(&self->c, TEST_IOVA, m->va, 2 * LEAF,
		      RW | VFIO_DMA_MAP_FLAG_SMALL_PAGES);
	if (!is_v3(variant->type)) {
		EXPECT_EQ(-EINVAL, ret);
		return;
	}
	ASSERT_EQ(0, ret);

	stop = false;
	ASSERT_EQ(0, pthread_create(&thread, NULL, thread_cut, self));
	for (int i = 0; i < 100; i++) {
		expect_reads(_metadata, n, TEST_IOVA, around, ARRAY_SIZE(around));
		expect_write(_metadata, n, TEST_IOVA, m, around[i % 8]);
	}
	stop = true;
	ASSERT_EQ(0, pthread_join(thread, &bad));
	EXPECT_EQ(NULL, bad);

	EXPECT_EQ(2 * PAGE, dma_unmap(&self->c, TEST_IOVA + 7 * PAGE, 2 * PAGE));
	expect_fault(_metadata, n, TEST_IOVA, m, 7);
	expect_fault(_metadata, n, TEST_IOVA, m, 8);
	EXPECT_EQ(2 * LEAF - 2 * PAGE, dma_unmap(&self->c, TEST_IOVA, 2 * LEAF));
	EXPECT_EQ(-1, pattern_check(m->va, 2 * LEAF, 0));
}

TEST_HARNESS_MAIN
