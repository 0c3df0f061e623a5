// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mappings proved by DMA: what a device reads and writes through the container
 * is what is mapped, with type1v2 as the control.
 */
#include <signal.h>
#include <sys/ioctl.h>

#include "type1v3_harness.h"

/* Compare what a device transfers with memory, both ways; at most NVME_MAX_PAGES. */
#define EXPECT_DMA(n, iova, va, npages, seed) do { \
	static __u8 _buf[NVME_MAX_PAGES * PAGE]; \
	__u64 _iova[NVME_MAX_PAGES], _first = (iova), _seed = (seed); \
	struct nvme *_n = (n); \
	size_t _npages = (npages); \
	void *_va = (va); \
	for (size_t _i = 0; _i < _npages; _i++) \
		_iova[_i] = _first + _i * PAGE; \
	pattern_fill(_buf, _npages * PAGE, _seed); \
	EXPECT_EQ(0, nvme_dma_write(_n, _iova, _npages, _buf)); \
	EXPECT_EQ(-1, pattern_check(_va, _npages * PAGE, _seed)); \
	pattern_fill(_va, _npages * PAGE, _seed + 1); \
	EXPECT_EQ(0, nvme_dma_read(_n, _iova, _npages, _buf)); \
	EXPECT_EQ(-1, pattern_check(_buf, _npages * PAGE, _seed + 1)); \
} while (0)

#define EXPECT_FAULT(n, iova, va) do { \
	struct nvme *_n = (n); \
	__u64 _iova = (iova); \
	EXPECT_EQ(PROBE_FAULT, nvme_probe_read(_n, _iova)); \
	EXPECT_EQ(PROBE_FAULT, nvme_probe_write(_n, _iova, (va))); \
} while (0)

FIXTURE(dma) {
	struct container c;
	struct nvme nvme;
	long locked, pinned;
};

FIXTURE_VARIANT(dma) {
	unsigned long type;
};

ADD_TYPES(dma);

FIXTURE_SETUP(dma)
{
	const char *bdf;

	container_init(&self->c);
	nvme_init(&self->nvme);
	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf)
		return;
	ASSERT_EQ(0, container_open(&self->c, variant->type, bdf));
	ASSERT_EQ(0, nvme_open(&self->nvme, &self->c, bdf, NVME_IOVA));
	self->locked = locked_pages();
	self->pinned = pinned_pages();
}

FIXTURE_TEARDOWN(dma)
{
	nvme_close(&self->nvme);
	container_close(&self->c);
}

/* The engine itself: its probes see what is there and what is not. */
TEST_F(dma, probes)
{
	struct mem m;

	ASSERT_EQ(0, mem_alloc(&m, MEM_4K, 4 * PAGE));
	pattern_fill(m.va, m.size, 1);
	EXPECT_FAULT(&self->nvme, TEST_IOVA, m.va);
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, m.va, PAGE, RW));
	EXPECT_EQ(PROBE_OK, nvme_probe_read(&self->nvme, TEST_IOVA));
	EXPECT_EQ(PROBE_OK, nvme_probe_write(&self->nvme, TEST_IOVA, m.va));
	EXPECT_FAULT(&self->nvme, TEST_IOVA + PAGE, m.va + PAGE);
	EXPECT_EQ(-1, pattern_check(m.va, m.size, 1));
	mem_free(&m);
}

/* A device may do to memory what the mapping says, and no more. */
TEST_F(dma, access)
{
	struct nvme *n = &self->nvme;
	__u64 iova = TEST_IOVA;
	__u8 data[PAGE], *va;
	struct mem m;

	ASSERT_EQ(0, mem_alloc(&m, MEM_4K, 2 * MIB));
	va = m.va;
	pattern_fill(va, m.size, 1);

	ASSERT_EQ(0, dma_map(&self->c, iova, va, m.size, RO));
	EXPECT_EQ(PROBE_OK, nvme_probe_read(n, iova));
	EXPECT_EQ(PROBE_FAULT, nvme_probe_write(n, iova, va));
	EXPECT_EQ(0, nvme_dma_read(n, &iova, 1, data));
	EXPECT_EQ(-1, pattern_check(data, PAGE, 1));
	/* whatever the device makes of the fault, memory stays as it is */
	memset(data, 0, PAGE);
	nvme_dma_write(n, &iova, 1, data);
	EXPECT_EQ(-1, pattern_check(va, m.size, 1));
	EXPECT_EQ(m.size, dma_unmap(&self->c, iova, m.size));

	/* not every IOMMU can refuse reads where writes are allowed */
	ASSERT_EQ(0, dma_map(&self->c, iova, va, m.size, WO));
	EXPECT_EQ(PROBE_OK, nvme_probe_write(n, iova, va));
	pattern_fill(data, PAGE, 2);
	EXPECT_EQ(0, nvme_dma_write(n, &iova, 1, data));
	EXPECT_EQ(-1, pattern_check(va, PAGE, 2));
	EXPECT_EQ(m.size, dma_unmap(&self->c, iova, m.size));
	mem_free(&m);
}

/* The same page at several IOVAs, and the same IOVA for one page after another. */
TEST_F(dma, aliases)
{
	struct nvme *n = &self->nvme;
	struct mem m;

	ASSERT_EQ(0, mem_alloc(&m, MEM_4K, 8 * PAGE));
	for (int i = 0; i < 4; i++) {
		ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + i * MIB, m.va, PAGE,
				     RW));
	}
	for (int i = 0; i < 4; i++)
		EXPECT_DMA(n, TEST_IOVA + i * MIB, m.va, 1, i);
	EXPECT_EQ(PAGE, dma_unmap(&self->c, TEST_IOVA + MIB, PAGE));
	EXPECT_FAULT(n, TEST_IOVA + MIB, m.va);
	EXPECT_DMA(n, TEST_IOVA + 2 * MIB, m.va, 1, 9);
	EXPECT_EQ(3 * PAGE, dma_unmap_all(&self->c) - (__s64)n->mem.size);
	ASSERT_EQ(0, nvme_map(n));

	for (int i = 0; i < 8; i++) {
		ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, m.va + i * PAGE, PAGE,
				     RW));
		EXPECT_DMA(n, TEST_IOVA, m.va + i * PAGE, 1, 10 + i);
		ASSERT_EQ(PAGE, dma_unmap(&self->c, TEST_IOVA, PAGE));
	}
	mem_free(&m);
}

static void shuffle(unsigned int *v, unsigned int n, __u64 *seed)
{
	for (unsigned int i = 0; i < n; i++)
		v[i] = i;
	for (unsigned int i = n - 1; i > 0; i--) {
		unsigned int j = prng(seed) % (i + 1), x = v[i];

		v[i] = v[j];
		v[j] = x;
	}
}

/*
 * Pages mapped one by one in random order at scattered IOVAs, as a guest behind
 * a virtual IOMMU does; then every other one unmapped in another order.
 */
TEST_F(dma, scattered)
{
	enum { NPAGES = 4096 };
	static unsigned int order[NPAGES], place[NPAGES];
	static __u8 buf[NVME_MAX_PAGES * PAGE];
	__u64 iova[NVME_MAX_PAGES], seed = 42;
	unsigned int left = NPAGES, i, j;
	struct nvme *n = &self->nvme;
	struct mem m;

	ASSERT_EQ(0, mem_alloc(&m, MEM_4K, NPAGES * PAGE));
	pattern_fill(m.va, m.size, 7);
	shuffle(order, NPAGES, &seed);
	shuffle(place, NPAGES, &seed);

#define IOVA_OF(page)	(TEST_IOVA + place[page] * 3 * PAGE)
#define SEED_OF(page)	(7 + (page) * (PAGE / 8))
	for (i = 0; i < NPAGES; i++) {
		ASSERT_EQ(0, dma_map(&self->c, IOVA_OF(order[i]),
				     m.va + order[i] * PAGE, PAGE, RW));
	}
	EXPECT_EQ(NPAGES, locked_pages() - self->locked);
	EXPECT_EQ(NPAGES, pinned_pages() - self->pinned);

	for (i = 0; i < NPAGES; i += NVME_MAX_PAGES) {
		for (j = 0; j < NVME_MAX_PAGES; j++)
			iova[j] = IOVA_OF(order[i + j]);
		ASSERT_EQ(0, nvme_dma_read(n, iova, NVME_MAX_PAGES, buf));
		for (j = 0; j < NVME_MAX_PAGES; j++) {
			ASSERT_EQ(-1, pattern_check(buf + j * PAGE, PAGE,
						    SEED_OF(order[i + j])));
		}
	}

	shuffle(order, NPAGES, &seed);
	for (i = 0; i < NPAGES; i++) {
		if (order[i] % 2)
			continue;
		ASSERT_EQ(PAGE, dma_unmap(&self->c, IOVA_OF(order[i]), PAGE));
		left--;
		if (left % NVME_MAX_PAGES == 0) {
			EXPECT_FAULT(n, IOVA_OF(order[i]),
				     m.va + order[i] * PAGE);
		}
	}
	EXPECT_EQ(left, locked_pages() - self->locked);
	EXPECT_EQ(left, pinned_pages() - self->pinned);

	/* what stays is written to, page by page of another pattern */
	for (i = 1; i < NPAGES; i += 2 * NVME_MAX_PAGES) {
		for (j = 0; j < NVME_MAX_PAGES; j++) {
			iova[j] = IOVA_OF(i + 2 * j);
			pattern_fill(buf + j * PAGE, PAGE, i + 2 * j);
		}
		ASSERT_EQ(0, nvme_dma_write(n, iova, NVME_MAX_PAGES, buf));
	}
	for (i = 0; i < NPAGES; i++) {
		ASSERT_EQ(-1, pattern_check(m.va + i * PAGE, PAGE,
					    i % 2 ? i : SEED_OF(i)));
	}
	EXPECT_EQ(left * PAGE + n->mem.size, dma_unmap_all(&self->c));
	mem_free(&m);
}

/* More mappings than type1 allows. */
TEST_F_TIMEOUT(dma, many_mappings, 900)
{
	enum { MANY = 70000, MEM_PAGES = 16384 };
	const unsigned int limit = is_v3(variant->type) ? MANY : 65535 - 1;
	struct nvme *n = &self->nvme;
	struct container_info info;
	unsigned int i;
	struct mem m;

	ASSERT_EQ(0, mem_alloc(&m, MEM_4K, MEM_PAGES * PAGE));
	/* every other page, and each with another distance to its memory */
#define MANY_IOVA(i)	(TEST_IOVA + (i) * 2UL * PAGE)
#define MANY_VA(i)	(m.va + (i) * 7UL % MEM_PAGES * PAGE)
	for (i = 0; i < limit; i++) {
		ASSERT_EQ(0, dma_map(&self->c, MANY_IOVA(i), MANY_VA(i), PAGE,
				     RW))
			TH_LOG("mapping %u", i);
	}
	EXPECT_EQ(limit, locked_pages() - self->locked);
	EXPECT_EQ(limit, pinned_pages() - self->pinned);
	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(is_v3(variant->type) ? UINT32_MAX : 0, info.avail);
	if (!is_v3(variant->type)) {
		EXPECT_EQ(-ENOSPC, dma_map(&self->c, MANY_IOVA(i), m.va, PAGE,
					   RW));
	}
	for (i = 0; i < limit; i += limit / 8)
		EXPECT_DMA(n, MANY_IOVA(i), MANY_VA(i), 1, i);
	EXPECT_DMA(n, MANY_IOVA(limit - 1), MANY_VA(limit - 1), 1, 1);
	EXPECT_EQ((limit - 1) * PAGE,
		  dma_unmap(&self->c, MANY_IOVA(1), MANY * 2UL * PAGE));
	EXPECT_FAULT(n, MANY_IOVA(limit - 1), MANY_VA(limit - 1));
	EXPECT_DMA(n, TEST_IOVA, m.va, 1, 3);
	EXPECT_EQ(1, locked_pages() - self->locked);
	EXPECT_EQ(1, pinned_pages() - self->pinned);
	mem_free(&m);
}

/* A mapping outlives the memory's address: the device has the pages. */
TEST_F(dma, memory_unmapped_by_its_owner)
{
	struct nvme *n = &self->nvme;
	__u64 iova = TEST_IOVA;
	__u8 data[PAGE];
	void *again;
	struct mem m;

	ASSERT_EQ(0, mem_alloc(&m, MEM_4K, PAGE));
	pattern_fill(m.va, PAGE, 1);
	ASSERT_EQ(0, dma_map(&self->c, iova, m.va, PAGE, RW));
	ASSERT_EQ(0, munmap(m.va, PAGE));
	again = mmap(m.va, PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ASSERT_EQ(m.va, again);
	pattern_fill(m.va, PAGE, 2);
	EXPECT_EQ(0, nvme_dma_read(n, &iova, 1, data));
	EXPECT_EQ(-1, pattern_check(data, PAGE, 1));
	memset(data, 0, PAGE);
	EXPECT_EQ(0, nvme_dma_write(n, &iova, 1, data));
	EXPECT_EQ(-1, pattern_check(m.va, PAGE, 2));
	EXPECT_EQ(PAGE, dma_unmap(&self->c, iova, PAGE));
	EXPECT_EQ(0, pinned_pages() - self->pinned);
	mem_free(&m);
}

/* Memory that was never touched, and memory that fork() has shared. */
TEST_F(dma, fresh_and_forked_memory)
{
	struct nvme *n = &self->nvme;
	int status;
	pid_t pid;
	struct mem m;

	ASSERT_EQ(0, mem_alloc(&m, MEM_4K, NVME_MAX_PAGES / 2 * PAGE));
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, m.va, 16 * PAGE, RO));
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + MIB, m.va + 16 * PAGE,
			     16 * PAGE, RW));
	EXPECT_DMA(n, TEST_IOVA + MIB, m.va + 16 * PAGE, 16, 1);
	pattern_fill(m.va, 16 * PAGE, 3);
	for (__u64 iova = TEST_IOVA; iova < TEST_IOVA + 16 * PAGE; iova += PAGE) {
		__u8 data[PAGE];

		ASSERT_EQ(0, nvme_dma_read(n, &iova, 1, data));
		ASSERT_EQ(-1, pattern_check(data, PAGE, 3 + (iova - TEST_IOVA) / 8));
	}

	/* written to before: shared copy-on-write with the child */
	pattern_fill(m.va + 32 * PAGE, 32 * PAGE, 4);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		pause();
		_exit(0);
	}
	ASSERT_EQ(0, dma_map(&self->c, OTHER_IOVA, m.va + 32 * PAGE, 32 * PAGE,
			     RW));
	EXPECT_DMA(n, OTHER_IOVA, m.va + 32 * PAGE, 32, 5);
	EXPECT_DMA(n, TEST_IOVA + MIB, m.va + 16 * PAGE, 16, 6);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_DMA(n, OTHER_IOVA, m.va + 32 * PAGE, 32, 7);
	mem_free(&m);
}

/* Every kind of memory. */
FIXTURE(kinds) {
	struct container c;
	struct nvme nvme;
	struct mem mem;
	long locked, pinned;
};

FIXTURE_VARIANT(kinds) {
	unsigned long type;
	enum mem_kind kind;
	size_t size;
};

ADD_KIND(kinds, small, MEM_4K, 4 * LEAF);
ADD_KIND(kinds, thp, MEM_THP, 4 * LEAF);
ADD_KIND(kinds, huge_2m, MEM_2M, 4 * LEAF);
ADD_KIND(kinds, huge_1g, MEM_1G, GIB);
ADD_KIND(kinds, shared, MEM_SHARED, 4 * LEAF);

FIXTURE_SETUP(kinds)
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
	self->locked = locked_pages();
	self->pinned = pinned_pages();
}

FIXTURE_TEARDOWN(kinds)
{
	nvme_close(&self->nvme);
	container_close(&self->c);
	mem_free(&self->mem);
}

static void expect_kind(struct __test_metadata *const _metadata,
			struct nvme *n, __u64 base, struct mem *m)
{
	const size_t npages = m->size / PAGE;
	static __u8 buf[NVME_MAX_PAGES * PAGE];
	static unsigned int page[NVME_MAX_PAGES];
	__u64 iova[NVME_MAX_PAGES], seed = 3;

	/* its ends and its middle */
	EXPECT_DMA(n, base, m->va, NVME_MAX_PAGES, 10);
	EXPECT_DMA(n, base + m->size / 2 - NVME_MAX_PAGES / 2 * PAGE,
		   m->va + m->size / 2 - NVME_MAX_PAGES / 2 * PAGE, NVME_MAX_PAGES, 20);
	EXPECT_DMA(n, base + m->size - NVME_MAX_PAGES * PAGE,
		   m->va + m->size - NVME_MAX_PAGES * PAGE, NVME_MAX_PAGES, 30);

	/* pages all over it, in one transfer, each with data of its own */
	for (int i = 0; i < NVME_MAX_PAGES; i++) {
		size_t step = npages / NVME_MAX_PAGES;

		page[i] = i * step + prng(&seed) % step;
		iova[i] = base + page[i] * PAGE;
		pattern_fill(buf + i * PAGE, PAGE, page[i]);
	}
	EXPECT_EQ(0, nvme_dma_write(n, iova, NVME_MAX_PAGES, buf));
	for (int i = 0; i < NVME_MAX_PAGES; i++)
		EXPECT_EQ(-1, pattern_check(m->va + page[i] * PAGE, PAGE, page[i]));
	memset(buf, 0, sizeof(buf));
	EXPECT_EQ(0, nvme_dma_read(n, iova, NVME_MAX_PAGES, buf));
	for (int i = 0; i < NVME_MAX_PAGES; i++)
		EXPECT_EQ(-1, pattern_check(buf + i * PAGE, PAGE, page[i]));
}

TEST_F_TIMEOUT(kinds, copy, 900)
{
	struct nvme *n = &self->nvme;
	struct mem *m = &self->mem;
	const long npages = m->size / PAGE;

	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, m->va, m->size, RW));
	EXPECT_EQ(npages, locked_pages() - self->locked);
	EXPECT_EQ(npages, pinned_pages() - self->pinned);
	expect_kind(_metadata, n, TEST_IOVA, m);
	EXPECT_FAULT(n, TEST_IOVA - PAGE, m->va);
	EXPECT_FAULT(n, TEST_IOVA + m->size, m->va);

	/* no access to any of it after the unmap */
	pattern_fill(m->va, LEAF, 77);
	EXPECT_EQ(m->size, dma_unmap(&self->c, TEST_IOVA, m->size));
	EXPECT_FAULT(n, TEST_IOVA, m->va);
	EXPECT_FAULT(n, TEST_IOVA + m->size / 2, m->va + m->size / 2);
	EXPECT_FAULT(n, TEST_IOVA + m->size - PAGE, m->va + m->size - PAGE);
	EXPECT_EQ(-1, pattern_check(m->va, LEAF, 77));
	EXPECT_EQ(0, locked_pages() - self->locked);
	EXPECT_EQ(0, pinned_pages() - self->pinned);

	/* where IOVA and memory disagree about alignment */
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + PAGE, m->va, m->size, RW));
	expect_kind(_metadata, n, TEST_IOVA + PAGE, m);
	EXPECT_FAULT(n, TEST_IOVA, m->va);
	EXPECT_FAULT(n, TEST_IOVA + PAGE + m->size, m->va);
	EXPECT_EQ(m->size, dma_unmap(&self->c, TEST_IOVA, m->size + 2 * PAGE));
	EXPECT_EQ(0, locked_pages() - self->locked);
	EXPECT_EQ(0, pinned_pages() - self->pinned);
}

/* Several groups in a container. */
FIXTURE(groups) {
	const char *bdf[2];
	struct container c;
	struct nvme nvme[2];
	struct mem mem;
	long locked, pinned;
};

FIXTURE_VARIANT(groups) {
	unsigned long type;
};

ADD_TYPES(groups);

FIXTURE_SETUP(groups)
{
	container_init(&self->c);
	nvme_init(&self->nvme[0]);
	nvme_init(&self->nvme[1]);
	self->bdf[0] = need_device(_metadata, ENV_NVME);
	if (!self->bdf[0])
		return;
	self->bdf[1] = need_device(_metadata, ENV_NVME2);
	if (!self->bdf[1])
		return;
	self->locked = locked_pages();
	self->pinned = pinned_pages();
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, 4 * MIB));
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->bdf[0]));
	ASSERT_EQ(0, nvme_open(&self->nvme[0], &self->c, self->bdf[0], NVME_IOVA));
}

FIXTURE_TEARDOWN(groups)
{
	nvme_close(&self->nvme[0]);
	nvme_close(&self->nvme[1]);
	container_close(&self->c);
	mem_free(&self->mem);
}

/* A group that comes late finds the mappings; one that leaves spoils nothing. */
TEST_F(groups, late_and_early)
{
	struct nvme *first = &self->nvme[0], *second = &self->nvme[1];
	__u8 *va = self->mem.va;
	struct container *c = &self->c;

	ASSERT_EQ(0, dma_map(c, TEST_IOVA, va, 2 * MIB, RW));
	ASSERT_EQ(0, dma_map(c, OTHER_IOVA, va + 2 * MIB, PAGE, RO));
	EXPECT_EQ(-EBUSY, container_detach(c, self->bdf[0]));

	ASSERT_EQ(0, container_attach(c, self->bdf[1]));
	ASSERT_EQ(0, nvme_open(second, c, self->bdf[1], NVME_IOVA + GIB));
	EXPECT_DMA(second, TEST_IOVA, va, NVME_MAX_PAGES, 1);
	EXPECT_DMA(first, TEST_IOVA, va, NVME_MAX_PAGES, 2);
	EXPECT_EQ(PROBE_OK, nvme_probe_read(second, OTHER_IOVA));
	EXPECT_EQ(PROBE_FAULT, nvme_probe_write(second, OTHER_IOVA, va + 2 * MIB));

	/* changes reach both */
	ASSERT_EQ(0, dma_map(c, TEST_IOVA + GIB, va + 3 * MIB, PAGE, RW));
	EXPECT_DMA(first, TEST_IOVA + GIB, va + 3 * MIB, 1, 3);
	EXPECT_DMA(second, TEST_IOVA + GIB, va + 3 * MIB, 1, 4);
	EXPECT_EQ(PAGE, dma_unmap(c, TEST_IOVA + GIB, PAGE));
	EXPECT_FAULT(first, TEST_IOVA + GIB, va + 3 * MIB);
	EXPECT_FAULT(second, TEST_IOVA + GIB, va + 3 * MIB);

	/* the first leaves, and comes back to find everything again */
	nvme_close(first);
	ASSERT_EQ(0, container_detach(c, self->bdf[0]));
	EXPECT_DMA(second, TEST_IOVA, va, NVME_MAX_PAGES, 5);
	ASSERT_EQ(0, container_attach(c, self->bdf[0]));
	ASSERT_EQ(PAGE, dma_unmap(c, OTHER_IOVA, PAGE));
	ASSERT_EQ(0, nvme_open(first, c, self->bdf[0], NVME_IOVA + 2 * GIB));
	EXPECT_DMA(first, TEST_IOVA, va, NVME_MAX_PAGES, 6);
	EXPECT_DMA(second, TEST_IOVA, va, NVME_MAX_PAGES, 7);
	EXPECT_FAULT(first, OTHER_IOVA, va + 2 * MIB);

	/* with the last one everything goes */
	nvme_close(first);
	nvme_close(second);
	ASSERT_EQ(0, container_detach(c, self->bdf[1]));
	EXPECT_LT(self->locked, locked_pages());
	ASSERT_EQ(0, container_detach(c, self->bdf[0]));
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
}

/* Two containers with the same IOVAs do not know of each other. */
TEST_F(groups, two_containers)
{
	struct nvme *first = &self->nvme[0], *second = &self->nvme[1];
	__u8 *va = self->mem.va;
	struct container other;

	ASSERT_EQ(0, container_open(&other, variant->type, self->bdf[1]));
	ASSERT_EQ(0, nvme_open(second, &other, self->bdf[1], NVME_IOVA));
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, va, MIB, RW));
	EXPECT_FAULT(second, TEST_IOVA, va);
	ASSERT_EQ(0, dma_map(&other, TEST_IOVA, va + 2 * MIB, MIB, RW));
	EXPECT_DMA(first, TEST_IOVA, va, NVME_MAX_PAGES, 1);
	EXPECT_DMA(second, TEST_IOVA, va + 2 * MIB, NVME_MAX_PAGES, 2);
	EXPECT_EQ(-1, pattern_check(va, NVME_MAX_PAGES * PAGE, 2));
	EXPECT_EQ(MIB, dma_unmap(&other, TEST_IOVA, MIB));
	EXPECT_FAULT(second, TEST_IOVA, va + 2 * MIB);
	EXPECT_DMA(first, TEST_IOVA, va, NVME_MAX_PAGES, 3);
	nvme_close(second);
	container_close(&other);
}

/*
 * Memory behind a BAR of another device: neither pinned nor charged, and a
 * device reaches it like any other.
 */
TEST_F(groups, mmio)
{
	struct vfio_region_info info = {
		.argsz = sizeof(info),
		.index = VFIO_PCI_BAR2_REGION_INDEX,
	};
	struct nvme *n = &self->nvme[0];
	long locked, pinned;
	const char *bdf;
	__u8 *bar, *va;
	int fd;

	bdf = need_device(_metadata, ENV_BAR);
	if (!bdf)
		return;
	ASSERT_EQ(0, container_attach(&self->c, bdf));
	fd = container_device(&self->c, bdf);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, &info));
	ASSERT_LE(4 * MIB, info.size);
	bar = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   info.offset);
	ASSERT_NE(MAP_FAILED, bar);

	locked = locked_pages();
	pinned = pinned_pages();
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, bar, info.size, RW));
	EXPECT_EQ(locked, locked_pages());
	EXPECT_EQ(pinned, pinned_pages());
	EXPECT_DMA(n, TEST_IOVA, bar, NVME_MAX_PAGES, 1);
	EXPECT_DMA(n, TEST_IOVA + 2 * MIB - NVME_MAX_PAGES / 2 * PAGE,
		   bar + 2 * MIB - NVME_MAX_PAGES / 2 * PAGE, NVME_MAX_PAGES, 2);
	EXPECT_DMA(n, TEST_IOVA + info.size - NVME_MAX_PAGES * PAGE,
		   bar + info.size - NVME_MAX_PAGES * PAGE, NVME_MAX_PAGES, 3);
	EXPECT_FAULT(n, TEST_IOVA + info.size, bar);

	/* cut out of the middle */
	EXPECT_EQ(is_v3(variant->type) ? 2 * (__s64)PAGE : -EINVAL,
		  dma_unmap(&self->c, TEST_IOVA + MIB, 2 * PAGE));
	if (is_v3(variant->type)) {
		EXPECT_FAULT(n, TEST_IOVA + MIB, bar + MIB);
		EXPECT_FAULT(n, TEST_IOVA + MIB + PAGE, bar + MIB + PAGE);
	}
	EXPECT_DMA(n, TEST_IOVA + MIB - PAGE, bar + MIB - PAGE, 1, 4);
	EXPECT_DMA(n, TEST_IOVA + MIB + 2 * PAGE, bar + MIB + 2 * PAGE, NVME_MAX_PAGES / 2, 5);

	EXPECT_EQ(info.size - (is_v3(variant->type) ? 2 * PAGE : 0),
		  dma_unmap(&self->c, TEST_IOVA, info.size));
	EXPECT_FAULT(n, TEST_IOVA, bar);
	EXPECT_EQ(locked, locked_pages());
	EXPECT_EQ(pinned, pinned_pages());

	/* memory and MMIO next to each other */
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + PAGE, bar, PAGE, RW));
	EXPECT_DMA(n, TEST_IOVA, self->mem.va, 1, 6);
	EXPECT_DMA(n, TEST_IOVA + PAGE, bar, 1, 7);
	EXPECT_EQ(1, locked_pages() - locked);
	EXPECT_EQ(2 * PAGE, dma_unmap(&self->c, TEST_IOVA, 2 * PAGE));
	EXPECT_EQ(locked, locked_pages());

	/* MMIO can be refused, and memory next to it that is asked for with it */
	if (is_v3(variant->type)) {
		va = mmap(self->mem.va + PAGE, PAGE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_FIXED, fd, info.offset);
		EXPECT_EQ(self->mem.va + PAGE, va);
		EXPECT_EQ(0, module_param("vfio_iommu_type1v3",
					  "disable_device_memory", "Y"));
		EXPECT_EQ(-EPERM, dma_map(&self->c, TEST_IOVA, bar, PAGE, RW));
		EXPECT_EQ(-EPERM, dma_map(&self->c, TEST_IOVA, bar, info.size, RW));
		EXPECT_EQ(-EPERM, dma_map(&self->c, TEST_IOVA, self->mem.va,
					  3 * PAGE, RW));
		EXPECT_FAULT(n, TEST_IOVA, bar);
		EXPECT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, PAGE, RW));
		EXPECT_DMA(n, TEST_IOVA, self->mem.va, 1, 8);
		EXPECT_EQ(0, module_param("vfio_iommu_type1v3",
					  "disable_device_memory", "N"));
		EXPECT_EQ(0, dma_map(&self->c, TEST_IOVA + PAGE, bar, PAGE, RW));
		EXPECT_EQ(2 * PAGE, dma_unmap(&self->c, TEST_IOVA, 2 * PAGE));
		EXPECT_EQ(locked, locked_pages());
	}

	munmap(bar, info.size);
	close(fd);
}

/* A process that dies in the middle of DMA gives every page back. */
TEST_F_TIMEOUT(groups, killed_during_dma, 900)
{
	__u64 seed = 5;

	nvme_close(&self->nvme[0]);
	container_close(&self->c);
	for (int i = 0; i < 6; i++) {
		unsigned int us = prng(&seed) % 50000;
		int pipes[2], status;
		char byte;
		pid_t pid;

		ASSERT_EQ(0, pipe(pipes));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			struct nvme *n = &self->nvme[0];
			__u64 iova[16];
			__u8 data[16 * PAGE] = { };

			if (container_open(&self->c, variant->type, self->bdf[0]) ||
			    nvme_open(n, &self->c, self->bdf[0], NVME_IOVA) ||
			    dma_map(&self->c, TEST_IOVA, self->mem.va,
				    self->mem.size, RW))
				_exit(1);
			for (int j = 0; j < 16; j++)
				iova[j] = TEST_IOVA + j * 3 * PAGE;
			if (write(pipes[1], "x", 1) != 1)
				_exit(1);
			while (!nvme_dma_write(n, iova, 16, data))
				;
			_exit(2);
		}
		close(pipes[1]);
		ASSERT_EQ(1, read(pipes[0], &byte, 1));
		close(pipes[0]);
		usleep(us);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_TRUE(WIFSIGNALED(status));
		ASSERT_EQ(self->pinned, pinned_pages());
	}
}

TEST_HARNESS_MAIN
