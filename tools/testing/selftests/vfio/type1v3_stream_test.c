// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages and the device that writes to them. A controller writes zeroes to a
 * window of IOVAs all the time, while pages come into the window and go. What it
 * does to a page that is mapped shows that it is at work; a page that has left
 * the window, or never was in it, must not change: neither when it belongs to
 * the process again, nor when it has been freed and is somebody else's. So
 * translations are gone, in the IOTLB too, before a page is let go, and not
 * before a call has been asked to take them away.
 *
 * type1v2, the control, unmaps whole mappings only.
 *
 * TYPE1V3_SECONDS in the environment: how long each test goes on, default 5.
 */
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include "type1v3_harness.h"

#define WINDOW		64UL
#define IOVA(page)	(TEST_IOVA + (page) * PAGE)
#define GRAVES		64
#define MAX_PAGES	16
#define HUGE_PAGES	1024UL

struct grave {
	__u8 *va;
	size_t size;
	__u64 seed;
};

FIXTURE(stream) {
	struct container c;
	struct nvme nvme;
	long locked, pinned;
	pthread_t thread;
	bool running, stop;
	int error;
	unsigned long done;	/* commands */
	unsigned long window;	/* pages that are written to */
	__u8 *va;		/* of the window, where each write is looked at */
	unsigned long granule;	/* pages that come and go together */
	bool *away;		/* of each granule */
	unsigned long lost;	/* pages whose writes have not arrived */
	struct grave grave[GRAVES];
	__u64 rng;
};

FIXTURE_VARIANT(stream) { unsigned long type; };
ADD_TYPES(stream);

static void *stream_thread(void *arg)
{
	struct _test_data_stream *self = arg;
	__u64 rng = 7, iova[2];

	while (!__atomic_load_n(&self->stop, __ATOMIC_RELAXED) && !self->error) {
		iova[0] = IOVA(prng(&rng) % self->window);
		iova[1] = IOVA(prng(&rng) % self->window);
		self->error = nvme_stream(&self->nvme, iova);
		__atomic_fetch_add(&self->done, 1, __ATOMIC_RELAXED);
	}
	self->error = self->error ?: nvme_stream_end(&self->nvme);
	return NULL;
}

static bool is_zero(const __u8 *va, size_t size)
{
	for (size_t i = 0; i < size; i += 8) {
		if (__atomic_load_n((const __u64 *)(va + i), __ATOMIC_RELAXED))
			return false;
	}
	return true;
}

/*
 * As stream_thread(), but each write is to arrive: in pages that stay, between
 * those that come and go.
 */
static void *arrive_thread(void *arg)
{
	enum { N = 32 };
	struct _test_data_stream *self = arg;
	static __u8 nothing[N * PAGE];
	unsigned long page[N], i;
	__u64 rng = 7, iova[N];

	while (!__atomic_load_n(&self->stop, __ATOMIC_ACQUIRE) && !self->error) {
		for (i = 0; i < N; i++) {
			do {
				page[i] = prng(&rng) % self->window;
			} while (__atomic_load_n(&self->away[page[i] / self->granule],
						 __ATOMIC_ACQUIRE));
			iova[i] = IOVA(page[i]);
			memset(self->va + page[i] * PAGE, 0x5a, PAGE);
		}
		self->error = nvme_dma_write(&self->nvme, iova, N, nothing);
		for (i = 0; i < N && !self->error; i++)
			self->lost += !is_zero(self->va + page[i] * PAGE, PAGE);
		__atomic_fetch_add(&self->done, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void stream_start(struct __test_metadata *_metadata, struct _test_data_stream *self,
			 unsigned long window)
{
	self->window = window;
	self->stop = false;
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, stream_thread, self));
	self->running = true;
}

static void stream_stop(struct _test_data_stream *self)
{
	if (!self->running)
		return;
	__atomic_store_n(&self->stop, true, __ATOMIC_RELAXED);
	pthread_join(self->thread, NULL);
	self->running = false;
}

/* Until the device has begun and ended so many commands */
static bool wait_commands(struct _test_data_stream *self, unsigned long n)
{
	unsigned long end = __atomic_load_n(&self->done, __ATOMIC_RELAXED) + n;

	while (__atomic_load_n(&self->done, __ATOMIC_RELAXED) < end) {
		if (__atomic_load_n(&self->error, __ATOMIC_RELAXED))
			return false;
		sched_yield();
	}
	return true;
}

/* The device reaches all of this: it turns to zeroes. */
static bool wait_zero(struct _test_data_stream *self, const __u8 *va, size_t size)
{
	for (int i = 0; i < 1000; i++) {
		if (is_zero(va, size))
			return true;
		if (!wait_commands(self, 20))
			return false;
	}
	return false;
}

static bool time_left(time_t start)
{
	const char *seconds = getenv("TYPE1V3_SECONDS");

	return time(NULL) < start + (seconds ? atoi(seconds) : 5);
}

FIXTURE_SETUP(stream)
{
	const char *bdf;

	container_init(&self->c);
	nvme_init(&self->nvme);
	bdf = need_device(_metadata, ENV_STREAM);
	if (!bdf)
		return;
	self->locked = locked_pages();
	self->pinned = pinned_pages();
	ASSERT_EQ(0, container_open(&self->c, variant->type, bdf));
	ASSERT_EQ(0, nvme_open(&self->nvme, &self->c, bdf, NVME_IOVA));
	self->rng = test_seed();
	TH_LOG("seed %llu", self->rng);
}

FIXTURE_TEARDOWN(stream)
{
	stream_stop(self);
	EXPECT_EQ(0, self->error);
	nvme_close(&self->nvme);
	container_close(&self->c);
	for (int i = 0; i < GRAVES; i++)
		munmap(self->grave[i].va, self->grave[i].size);
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
}

static __u8 *fresh(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
}

/* What the device must leave alone from now on */
static void bury(struct __test_metadata *_metadata, struct _test_data_stream *self, __u8 *va,
		 size_t size)
{
	struct grave *g = &self->grave[prng(&self->rng) % GRAVES];

	if (g->va) {
		ASSERT_EQ(-1, pattern_check(g->va, g->size, g->seed));
		munmap(g->va, g->size);
	}
	*g = (struct grave){ va, size, prng(&self->rng) };
	pattern_fill(va, size, g->seed);
}

static void see_graves(struct __test_metadata *_metadata, struct _test_data_stream *self)
{
	for (int i = 0; i < GRAVES; i++) {
		struct grave *g = &self->grave[i];

		if (g->va)
			ASSERT_EQ(-1, pattern_check(g->va, g->size, g->seed));
	}
}

/* Pages that are mapped, unmapped, and then the process's own, or freed */
TEST_F_TIMEOUT(stream, unmap, 3600)
{
	unsigned long first, n, rounds;
	time_t start = time(NULL);
	__u8 *va, *other;

	stream_start(_metadata, self, WINDOW);
	for (rounds = 0; rounds < 20 || time_left(start); rounds++) {
		n = 1 + prng(&self->rng) % MAX_PAGES;
		first = prng(&self->rng) % (WINDOW - n + 1);
		va = fresh(n * PAGE);
		ASSERT_NE(MAP_FAILED, va);
		pattern_fill(va, n * PAGE, rounds);
		ASSERT_EQ(0, dma_map(&self->c, IOVA(first), va, n * PAGE, RW));
		ASSERT_TRUE(wait_zero(self, va, n * PAGE));

		switch (prng(&self->rng) % 3) {
		case 0:
			/* the process keeps the page */
			ASSERT_EQ(n * PAGE, dma_unmap(&self->c, IOVA(first), n * PAGE));
			bury(_metadata, self, va, n * PAGE);
			break;
		case 1:
			/* it is freed at once, and likely to be given out again */
			ASSERT_EQ(n * PAGE, dma_unmap(&self->c, IOVA(first), n * PAGE));
			ASSERT_EQ(0, munmap(va, n * PAGE));
			va = fresh(n * PAGE);
			ASSERT_NE(MAP_FAILED, va);
			bury(_metadata, self, va, n * PAGE);
			break;
		default:
			/*
			 * The process has other memory there, and the device still
			 * what it had; nobody else gets that before the unmap.
			 */
			ASSERT_EQ(0, munmap(va, n * PAGE));
			other = fresh(n * PAGE);
			ASSERT_NE(MAP_FAILED, other);
			bury(_metadata, self, other, n * PAGE);
			ASSERT_TRUE(wait_commands(self, WINDOW));
			ASSERT_EQ(n * PAGE, dma_unmap(&self->c, IOVA(first), n * PAGE));
			other = fresh(n * PAGE);
			ASSERT_NE(MAP_FAILED, other);
			bury(_metadata, self, other, n * PAGE);
		}
		ASSERT_TRUE(wait_commands(self, WINDOW / 2));
		see_graves(_metadata, self);
	}
	stream_stop(self);
	see_graves(_metadata, self);
	TH_LOG("%lu rounds, %lu commands", rounds, self->done);
}

/*
 * Pages cut out of a superpage, while the device writes to all of it. The rest
 * is reached again and again; what was cut out is not, nor what is freed.
 */
TEST_F_TIMEOUT(stream, cut, 3600)
{
	const bool v3 = is_v3(variant->type);
	unsigned long first, n, rounds;
	time_t start = time(NULL);
	struct mem m;

	stream_start(_metadata, self, HUGE_PAGES);
	for (rounds = 0; rounds < 3 || time_left(start); rounds++) {
		if (!need_mem(_metadata, &m, MEM_THP, HUGE_PAGES * PAGE))
			return;
		pattern_fill(m.va, m.size, rounds);
		ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, m.va, m.size, RW));
		ASSERT_TRUE(wait_commands(self, HUGE_PAGES));

		n = 1 + prng(&self->rng) % MAX_PAGES;
		first = prng(&self->rng) % (HUGE_PAGES - n + 1);
		ASSERT_EQ(v3 ? (__s64)(n * PAGE) : -EINVAL,
			  dma_unmap(&self->c, IOVA(first), n * PAGE));
		if (v3)
			pattern_fill(m.va + first * PAGE, n * PAGE, ~rounds);
		/* what was written and lost while it was cut comes again */
		ASSERT_TRUE(wait_zero(self, m.va, first * PAGE));
		ASSERT_TRUE(wait_zero(self, m.va + (first + n) * PAGE,
				      m.size - (first + n) * PAGE));
		if (v3)
			ASSERT_EQ(-1, pattern_check(m.va + first * PAGE, n * PAGE,
						    ~rounds));
		ASSERT_EQ(m.size - (v3 ? n * PAGE : 0),
			  dma_unmap(&self->c, TEST_IOVA, m.size));
		pattern_fill(m.va, m.size, rounds);
		ASSERT_TRUE(wait_commands(self, WINDOW));
		ASSERT_EQ(-1, pattern_check(m.va, m.size, rounds));
		mem_free(&m);
	}
	stream_stop(self);
	TH_LOG("%lu rounds, %lu commands", rounds, self->done);
}

/*
 * Multiples of the granule come and go in a range that was one superpage, while
 * the device writes to all that stays: each write arrives, and the IOMMU is told
 * nothing but what it was asked for.
 */
static void granule(struct __test_metadata *_metadata, struct _test_data_stream *self,
		    struct mem *m, unsigned int order, unsigned long max)
{
	const __u32 flags = RW | VFIO_DMA_MAP_GRANULE(order);
	const unsigned long granule = 1UL << order, nr = m->size / PAGE / granule;
	unsigned long first, n, rounds;
	time_t start = time(NULL);
	struct iommu_calls calls;
	__u64 iova, size;

	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, m->va, m->size, flags));
	self->va = m->va;
	self->window = m->size / PAGE;
	self->granule = granule;
	self->away = calloc(nr, sizeof(*self->away));
	ASSERT_NE(NULL, self->away);
	self->stop = false;
	self->lost = 0;
	ASSERT_EQ(0, iommu_trace(true));
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, arrive_thread, self));
	self->running = true;
	for (rounds = 0; rounds < 30 || time_left(start); rounds++) {
		n = 1 + prng(&self->rng) % max;
		first = prng(&self->rng) % (nr - n + 1);
		iova = IOVA(first * granule);
		size = n * granule * PAGE;
		for (unsigned long i = 0; i < n; i++)
			__atomic_store_n(&self->away[first + i], true, __ATOMIC_RELEASE);
		/* what is under way may have been sent there, the next is not */
		ASSERT_TRUE(wait_commands(self, 2));

		ASSERT_EQ(0, iommu_trace_read(TEST_IOVA, m->size, &calls));
		ASSERT_EQ(size, dma_unmap(&self->c, iova, size));
		ASSERT_EQ(0, iommu_trace_read(TEST_IOVA, m->size, &calls));
		ASSERT_EQ(size, calls.unmapped);
		ASSERT_EQ(0, calls.mapped);
		ASSERT_EQ(0, dma_map(&self->c, iova, m->va + (iova - TEST_IOVA), size, flags));
		ASSERT_EQ(0, iommu_trace_read(TEST_IOVA, m->size, &calls));
		ASSERT_EQ(size, calls.mapped);
		ASSERT_EQ(0, calls.unmapped);
		for (unsigned long i = 0; i < n; i++)
			__atomic_store_n(&self->away[first + i], false, __ATOMIC_RELEASE);
	}
	stream_stop(self);
	EXPECT_EQ(0, self->lost);
	EXPECT_EQ(0, iommu_trace(false));
	EXPECT_EQ(m->size, dma_unmap(&self->c, TEST_IOVA, m->size));
	free(self->away);
	TH_LOG("order %u: %lu rounds, %lu commands", order, rounds, self->done);
}

TEST_F_TIMEOUT(stream, granule, 3600)
{
	struct mem m;

	if (!need_mem(_metadata, &m, MEM_1G, GIB))
		return;
	if (!is_v3(variant->type)) {
		EXPECT_EQ(-EINVAL, dma_map(&self->c, TEST_IOVA, m.va, m.size,
					   RW | VFIO_DMA_MAP_GRANULE(9)));
		mem_free(&m);
		return;
	}
	granule(_metadata, self, &m, 9, 4);
	granule(_metadata, self, &m, 0, 64);
	mem_free(&m);
}

TEST_HARNESS_MAIN
