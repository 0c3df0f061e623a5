// SPDX-License-Identifier: GPL-2.0-only
/*
 * Emulated devices in a container: pin, unpin, copy, and what becomes of it
 * when memory is remapped or unmapped, and when physical groups come and go.
 * Needs the module vfio_emulated_test.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "type1v3_emulated.h"
#include "type1v3_harness.h"

#define IOVA(page)	(TEST_IOVA + (page) * PAGE)
#define NPAGES		256UL

FIXTURE(emulated) {
	struct container c;
	struct mem mem;
	int dev;
	long locked, pinned;
};

FIXTURE_VARIANT(emulated) { unsigned long type; };
FIXTURE_VARIANT_ADD(emulated, type1v2) { .type = VFIO_TYPE1v2_IOMMU };
FIXTURE_VARIANT_ADD(emulated, type1v3) { .type = VFIO_TYPE1v3_IOMMU };

FIXTURE_SETUP(emulated)
{
	container_init(&self->c);
	self->dev = emulated_open(&self->c, variant->type, 0);
	ASSERT_LE(0, self->dev);
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, NPAGES * PAGE));
	pattern_fill(self->mem.va, self->mem.size, 0);
	self->locked = locked_pages();
	self->pinned = pinned_pages();
	ASSERT_LE(0, self->locked);
	ASSERT_LE(0, self->pinned);
}

FIXTURE_TEARDOWN(emulated)
{
	if (self->dev >= 0)
		close(self->dev);
	container_close(&self->c);
	mem_free(&self->mem);
	/* whatever a test did, nothing is left of it */
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
}

/* Pages charged, and pinned (by the container or by devices), since the start. */
#define EXPECT_PAGES(charged, held) do { \
	struct container_info _info; \
	long _charged = (charged); \
	EXPECT_EQ(_charged, locked_pages() - self->locked); \
	EXPECT_EQ((held), pinned_pages() - self->pinned); \
	if (is_v3(variant->type)) { \
		EXPECT_EQ(0, container_info(&self->c, &_info)); \
		EXPECT_EQ(_charged, (long)_info.own.pinned_pages); \
	} \
} while (0)

/* The first word of a page, as the device sees it through its pin. */
static __u64 peek(int dev, __u64 iova)
{
	__u64 word = 0;

	if (emulated_access(dev, iova, &word, sizeof(word), 0))
		return 0;
	return word;
}

static __u64 word_of(const void *va)
{
	return __atomic_load_n((const __u64 *)va, __ATOMIC_RELAXED);
}

/* How many records of the kernel's log since boot have the text? */
static int count_log(const char *text)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC), n = 0;
	char line[8192];
	ssize_t len;

	if (fd < 0)
		return -1;
	/* EPIPE: records were overwritten, there are more */
	while ((len = read(fd, line, sizeof(line) - 1)) > 0 || errno == EPIPE) {
		if (len < 0)
			continue;
		line[len] = '\0';
		n += strstr(line, text) && !strstr(line, ";vm-");
	}
	close(fd);
	return n;
}

/* A container without a physical group maps without pinning or charging. */
TEST_F(emulated, map_unmap)
{
	struct container_info info;

	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(is_v3(variant->type), info.has_own);
	EXPECT_EQ(-1, info.nranges);
	EXPECT_EQ(~(PAGE - 1), info.pgsizes);
	EXPECT_TRUE(info.has_migration);

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, NPAGES * PAGE, RW));
	EXPECT_PAGES(0, 0);
	EXPECT_EQ(-EEXIST, dma_map(&self->c, IOVA(7), self->mem.va, PAGE, RW));
	/* the interrupt window is of no concern here, nor are wide addresses */
	EXPECT_EQ(0, dma_map(&self->c, MSI_IOVA, self->mem.va, PAGE, RW));
	EXPECT_EQ(0, dma_map(&self->c, 1ULL << 60, self->mem.va, PAGE, RO));
	EXPECT_EQ(NPAGES * PAGE, dma_unmap(&self->c, IOVA(0), NPAGES * PAGE));
	EXPECT_EQ(0, dma_unmap(&self->c, IOVA(0), NPAGES * PAGE));
	EXPECT_EQ(2 * PAGE, dma_unmap_all(&self->c));
	EXPECT_PAGES(0, 0);
}

TEST_F(emulated, unmap_part)
{
	__s64 some = is_v3(variant->type) ? 3 * PAGE : -EINVAL;

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, NPAGES * PAGE, RW));
	EXPECT_EQ(some, dma_unmap(&self->c, IOVA(100), 3 * PAGE));
	EXPECT_EQ(is_v3(variant->type) ? -EINVAL : 1,
		  emulated_pin(self->dev, IOVA(102), 1, PIN_READ, NULL));
	EXPECT_EQ(1, emulated_pin(self->dev, IOVA(103), 1, PIN_READ, NULL));
	EXPECT_EQ(word_of(self->mem.va + 103 * PAGE),
		  peek(self->dev, IOVA(103)));
}

TEST_F(emulated, pin_unpin)
{
	static const char hello[] = "written by the device";
	__u64 pfns[NPAGES], again[3];

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, NPAGES * PAGE, RW));
	ASSERT_EQ(NPAGES, emulated_pin(self->dev, IOVA(0), NPAGES, PIN_RW, pfns));
	EXPECT_PAGES(NPAGES, NPAGES);
	for (unsigned long i = 0; i < NPAGES; i++) {
		EXPECT_NE(0, pfns[i]);
		EXPECT_EQ(word_of(self->mem.va + i * PAGE),
			  peek(self->dev, IOVA(i)));
	}
	EXPECT_EQ(0, emulated_access(self->dev, IOVA(9) + 4090, (void *)hello,
				     sizeof(hello), RW_WRITE));
	EXPECT_STREQ(hello, (char *)self->mem.va + 9 * PAGE + 4090);

	/* once more: the same pages, and nothing more is charged or pinned */
	ASSERT_EQ(3, emulated_pin(self->dev, IOVA(5), 3, PIN_READ, again));
	for (int i = 0; i < 3; i++)
		EXPECT_EQ(pfns[5 + i], again[i]);
	EXPECT_PAGES(NPAGES, NPAGES);
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(5), 3));
	EXPECT_PAGES(NPAGES, NPAGES);
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(0), 6));
	EXPECT_PAGES(NPAGES - 6, NPAGES - 6);
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(6), NPAGES - 6));
	EXPECT_PAGES(0, 0);
	EXPECT_EQ(0, emulated_state(self->dev).pinned);
	EXPECT_EQ(0, emulated_state(self->dev).notified);
}

/* What is not all there, or not allowed, leaves nothing pinned. */
TEST_F(emulated, pin_fails_whole)
{
	const int wrap = is_v3(variant->type) || !type1_is_old() ? -EOVERFLOW :
								    -EINVAL;
	__u8 *hole = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, hole);
	ASSERT_EQ(0, munmap(hole + PAGE, PAGE));

	/* pages 0..9 and 20..29; 30 read only; 31 write only; 40..42 with a hole */
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 10 * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(20), self->mem.va, 10 * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(30), self->mem.va, PAGE, RO));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(31), self->mem.va, PAGE, WO));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(40), hole, 3 * PAGE, RW));

	EXPECT_EQ(-EINVAL, emulated_pin(self->dev, IOVA(10), 1, PIN_READ, NULL));
	EXPECT_EQ(-EINVAL, emulated_pin(self->dev, IOVA(8), 3, PIN_READ, NULL));
	EXPECT_EQ(-EINVAL, emulated_pin(self->dev, IOVA(0), 30, PIN_READ, NULL));
	EXPECT_EQ(-EPERM, emulated_pin(self->dev, IOVA(28), 3, PIN_RW, NULL));
	EXPECT_EQ(-EPERM, emulated_pin(self->dev, IOVA(30), 2, PIN_READ, NULL));
	EXPECT_EQ(-EFAULT, emulated_pin(self->dev, IOVA(40), 3, PIN_READ, NULL));
	EXPECT_EQ(-EINVAL, emulated_pin(self->dev, IOVA(0), 0, PIN_READ, NULL));
	EXPECT_EQ(-E2BIG, emulated_pin(self->dev, IOVA(0), PAGE / 8 + 1,
				       PIN_READ, NULL));
	EXPECT_EQ(wrap, emulated_pin(self->dev, -PAGE, 2, PIN_READ, NULL));
	EXPECT_PAGES(0, 0);

	EXPECT_EQ(11, emulated_pin(self->dev, IOVA(20), 11, PIN_READ, NULL));
	EXPECT_EQ(1, emulated_pin(self->dev, IOVA(31), 1, PIN_WRITE, NULL));
	/* type1v2 charges a page for each IOVA, even if it is the same page */
	EXPECT_PAGES(12, 12);

	/* what failed next to what was pinned before leaves that pinned */
	EXPECT_EQ(-EINVAL, emulated_pin(self->dev, IOVA(30), 3, 0, NULL));
	EXPECT_PAGES(12, 12);
	EXPECT_EQ(14, emulated_state(self->dev).pinned + 2);
	munmap(hole, PAGE);
	munmap(hole + 2 * PAGE, PAGE);
}

/* The page that was pinned first is the page of that IOVA until it is unpinned. */
TEST_F(emulated, pin_remap_pin)
{
	__u64 first, second, third, old = word_of(self->mem.va);

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, PAGE, RW));
	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(0), 1, PIN_RW, &first));

	ASSERT_EQ(self->mem.va, mmap(self->mem.va, PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
				     -1, 0));
	*(__u64 *)self->mem.va = ~old;

	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(0), 1, PIN_RW, &second));
	EXPECT_EQ(first, second);
	EXPECT_PAGES(1, 1);
	EXPECT_EQ(old, peek(self->dev, IOVA(0)));

	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(0), 1));
	EXPECT_PAGES(1, 1);
	EXPECT_EQ(old, peek(self->dev, IOVA(0)));
	EXPECT_EQ(~old, word_of(self->mem.va));

	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(0), 1));
	EXPECT_PAGES(0, 0);

	/* now it is the new page, which nobody has unpinned by mistake */
	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(0), 1, PIN_RW, &third));
	EXPECT_EQ(~old, peek(self->dev, IOVA(0)));
	EXPECT_PAGES(1, 1);
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(0), 1));
	EXPECT_PAGES(0, 0);
}

/* A device that is closed has let go of all. */
TEST_F(emulated, close_unpins)
{
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, NPAGES * PAGE, RW));
	ASSERT_EQ(100, emulated_pin(self->dev, IOVA(7), 100, PIN_RW, NULL));
	EXPECT_PAGES(100, 100);
	close(self->dev);
	self->dev = -1;
	EXPECT_PAGES(0, 0);
}

/* RLIMIT_MEMLOCK counts pins where there is no domain. */
TEST_F(emulated, memlock)
{
	struct rlimit limit = { (self->locked + 10) * PAGE, RLIM_INFINITY };

	ASSERT_EQ(0, drop_ipc_lock());
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, NPAGES * PAGE, RW));
	EXPECT_EQ(-ENOMEM, emulated_pin(self->dev, IOVA(0), 11, PIN_RW, NULL));
	EXPECT_PAGES(0, 0);
	EXPECT_EQ(10, emulated_pin(self->dev, IOVA(0), 10, PIN_RW, NULL));
	EXPECT_EQ(-ENOMEM, emulated_pin(self->dev, IOVA(9), 2, PIN_RW, NULL));
	EXPECT_EQ(10, emulated_pin(self->dev, IOVA(0), 10, PIN_RW, NULL));
	EXPECT_PAGES(10, 10);
}

/* One mapping of 2^62 bytes costs next to nothing. */
TEST_F(emulated, map_huge)
{
	const __u64 size = 1ULL << 62;
	struct container_info info;
	__u64 word;

	/* the user address space is part of it: IOVA n is address n */
	ASSERT_EQ(0, dma_map(&self->c, 0, NULL, size, RW));
	ASSERT_EQ(0, emulated_rw(self->dev, (uintptr_t)self->mem.va + 3 * PAGE,
				 &word, sizeof(word), 0));
	EXPECT_EQ(word_of(self->mem.va + 3 * PAGE), word);
	ASSERT_EQ(1, emulated_pin(self->dev, (uintptr_t)self->mem.va + PAGE, 1,
				  PIN_RW, NULL));
	EXPECT_EQ(word_of(self->mem.va + PAGE),
		  peek(self->dev, (uintptr_t)self->mem.va + PAGE));
	EXPECT_EQ(-EFAULT, emulated_rw(self->dev, size - PAGE, &word,
				       sizeof(word), 0));
	if (is_v3(variant->type)) {
		ASSERT_EQ(0, container_info(&self->c, &info));
		EXPECT_EQ(size / PAGE, info.own.mapped_pages);
		EXPECT_GT(32 * KIB, info.own.store_bytes);
	}
	EXPECT_EQ(size, dma_unmap(&self->c, 0, size));
	EXPECT_EQ(1, emulated_state(self->dev).notified);

	/* and gone with the last group */
	ASSERT_EQ(0, dma_map(&self->c, 0, NULL, size, RW));
	close(self->dev);
	self->dev = -1;
	container_close(&self->c);
}

TEST_F(emulated, dma_rw)
{
	struct mem other;
	__u8 *buf = malloc(NPAGES * PAGE);
	__u64 word = 0;

	ASSERT_NE(NULL, buf);
	ASSERT_EQ(0, mem_alloc(&other, MEM_SHARED, 16 * PAGE));
	pattern_fill(other.va, other.size, 7777);
	/* 0..15 one mapping, 16..31 another elsewhere, then a hole */
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 16 * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(16), other.va, 16 * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(40), self->mem.va + 40 * PAGE,
			     PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(41), self->mem.va + 41 * PAGE,
			     PAGE, RO));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(42), self->mem.va + 42 * PAGE,
			     PAGE, WO));

	for (__u32 flags = 0; flags <= RW_KTHREAD; flags += RW_KTHREAD) {
		TH_LOG("%s", flags ? "from a kernel thread" : "from the owner");
		EXPECT_EQ(0, emulated_rw(self->dev, IOVA(0), buf, 32 * PAGE,
					 flags));
		EXPECT_EQ(0, memcmp(buf, self->mem.va, 16 * PAGE));
		EXPECT_EQ(0, memcmp(buf + 16 * PAGE, other.va, 16 * PAGE));

		/* odd addresses, over the border of two mappings */
		for (int i = 0; i < 300; i++)
			buf[i] = i * 7 + flags;
		EXPECT_EQ(0, emulated_rw(self->dev, IOVA(16) - 123, buf, 300,
					 flags | RW_WRITE));
		EXPECT_EQ(0, memcmp(buf, self->mem.va + 16 * PAGE - 123, 123));
		EXPECT_EQ(0, memcmp(buf + 123, other.va, 177));
		memset(buf, 0, 300);
		EXPECT_EQ(0, emulated_rw(self->dev, IOVA(16) - 123, buf, 300,
					 flags));
		EXPECT_EQ(0, memcmp(buf, self->mem.va + 16 * PAGE - 123, 123));

		/* rights */
		word = 5;
		EXPECT_EQ(-EPERM, emulated_rw(self->dev, IOVA(41), &word, 8,
					      flags | RW_WRITE));
		EXPECT_EQ(-EPERM, emulated_rw(self->dev, IOVA(41) - 4, &word, 8,
					      flags | RW_WRITE));
		EXPECT_EQ(0, emulated_rw(self->dev, IOVA(41), &word, 8, flags));
		EXPECT_EQ(word_of(self->mem.va + 41 * PAGE), word);
		/* what may only be written may not be copied to, either */
		EXPECT_EQ(-EPERM, emulated_rw(self->dev, IOVA(42), &word, 8,
					      flags));
		EXPECT_EQ(-EPERM, emulated_rw(self->dev, IOVA(42), &word, 8,
					      flags | RW_WRITE));

		/* holes */
		EXPECT_EQ(-EINVAL, emulated_rw(self->dev, IOVA(33), &word, 8,
					       flags));
		EXPECT_EQ(-EINVAL, emulated_rw(self->dev, IOVA(32) - 4, &word,
					       8, flags));
		EXPECT_EQ(-EINVAL, emulated_rw(self->dev, IOVA(32) - 4, &word,
					       8, flags | RW_WRITE));
		EXPECT_EQ(-EINVAL, emulated_rw(self->dev, IOVA(0), &word, 0,
					       flags));
		EXPECT_EQ(-EINVAL, emulated_rw(self->dev, -8, &word, 8, flags));
		EXPECT_EQ(is_v3(variant->type) ? -EOVERFLOW : -EINVAL,
			  emulated_rw(self->dev, -8, buf, 16, flags));
	}
	EXPECT_PAGES(0, 0);
	free(buf);
	mem_free(&other);
}

/* Memory that is not there is an error, and memory that faults in is not. */
TEST_F(emulated, dma_rw_faults)
{
	__u8 *va = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	__u64 buf[2 * PAGE / 8] = {};
	__u64 word = 1;

	ASSERT_NE(MAP_FAILED, va);
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), va, 3 * PAGE, RW));

	/* what is in the middle is not there */
	pattern_fill(va, 3 * PAGE, 4711);
	ASSERT_EQ(0, madvise(va + PAGE, PAGE, MADV_DONTNEED));
	EXPECT_EQ(0, emulated_rw(self->dev, IOVA(1) - 100, buf, PAGE + 200, 0));
	EXPECT_EQ(0, memcmp(buf, va + PAGE - 100, PAGE + 200));
	ASSERT_EQ(0, madvise(va + PAGE, PAGE, MADV_DONTNEED));
	pattern_fill(buf, PAGE + 200, 815);
	EXPECT_EQ(0, emulated_rw(self->dev, IOVA(1) - 100, buf, PAGE + 200,
				 RW_WRITE));
	EXPECT_EQ(0, memcmp(buf, va + PAGE - 100, PAGE + 200));

	ASSERT_EQ(0, madvise(va, 2 * PAGE, MADV_DONTNEED));
	ASSERT_EQ(0, munmap(va + 2 * PAGE, PAGE));
	ASSERT_EQ(0, mprotect(va + PAGE, PAGE, PROT_READ));
	EXPECT_EQ(0, emulated_rw(self->dev, IOVA(0), &word, 8, RW_WRITE));
	EXPECT_EQ(1, word_of(va));
	EXPECT_EQ(0, emulated_rw(self->dev, IOVA(1), &word, 8, 0));
	EXPECT_EQ(0, word);
	EXPECT_EQ(-EFAULT, emulated_rw(self->dev, IOVA(1), &word, 8, RW_WRITE));
	EXPECT_EQ(-EFAULT, emulated_rw(self->dev, IOVA(2), &word, 8, 0));
	EXPECT_EQ(-EFAULT, emulated_rw(self->dev, IOVA(2), &word, 8,
				       RW_WRITE | RW_KTHREAD));
	munmap(va, 2 * PAGE);
}

/* Another process copies nothing; a kernel thread on its behalf does. */
TEST_F(emulated, dma_rw_other_process)
{
	int status;
	pid_t pid;

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, PAGE, RW));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		__u64 word = 0;

		if (emulated_rw(self->dev, IOVA(0), &word, 8, 0) != -EFAULT)
			_exit(1);
		if (emulated_rw(self->dev, IOVA(0), &word, 8, RW_KTHREAD))
			_exit(2);
		if (word != word_of(self->mem.va))
			_exit(3);
		/* pins are of the owner's memory, whoever asks */
		__atomic_store_n((__u64 *)self->mem.va, ~word, __ATOMIC_RELAXED);
		if (emulated_pin(self->dev, IOVA(0), 1, PIN_RW, NULL) != 1)
			_exit(4);
		if (peek(self->dev, IOVA(0)) != word)
			_exit(5);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_PAGES(1, 1);
}

/* The owner of the memory is gone, the container is not. */
TEST_F(emulated, owner_exits)
{
	__u64 word;
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (dma_map(&self->c, IOVA(0), self->mem.va, NPAGES * PAGE, RW))
			_exit(1);
		if (emulated_pin(self->dev, IOVA(3), 5, PIN_RW, NULL) != 5)
			_exit(2);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	EXPECT_EQ(self->pinned + 5, pinned_pages());
	EXPECT_EQ(word_of(self->mem.va + 3 * PAGE), peek(self->dev, IOVA(3)));
	EXPECT_EQ(-ENODEV, emulated_pin(self->dev, IOVA(0), 1, PIN_RW, NULL));
	/* what is pinned already can be pinned once more */
	EXPECT_EQ(1, emulated_pin(self->dev, IOVA(3), 1, PIN_RW, NULL));
	EXPECT_EQ(-EPERM, emulated_rw(self->dev, IOVA(0), &word, 8, 0));
	EXPECT_EQ(NPAGES * PAGE, dma_unmap_all(&self->c));
	EXPECT_EQ(self->pinned, pinned_pages());
	/* with nothing mapped, the next one to map is the owner */
	EXPECT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, PAGE, RW));
}

/* Devices are told of an unmap exactly when there are pins in the way. */
TEST_F(emulated, unmap_notifies)
{
	struct vfio_emulated_test_state state;

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 16 * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(16), self->mem.va, 16 * PAGE, RW));
	ASSERT_EQ(2, emulated_pin(self->dev, IOVA(4), 2, PIN_RW, NULL));
	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(5), 1, PIN_RW, NULL));
	EXPECT_PAGES(2, 2);

	EXPECT_EQ(16 * PAGE, dma_unmap(&self->c, IOVA(16), 16 * PAGE));
	EXPECT_EQ(0, emulated_state(self->dev).notified);
	EXPECT_EQ(16 * PAGE, dma_unmap(&self->c, IOVA(0), 16 * PAGE));
	state = emulated_state(self->dev);
	EXPECT_EQ(1, state.notified);
	EXPECT_EQ(0, state.pinned);
	EXPECT_GE(IOVA(4), state.iova);
	EXPECT_LE(IOVA(6), state.iova + state.size);
	EXPECT_PAGES(0, 0);
}

struct unmap_call {
	struct container *c;
	__u64 iova, size;
	__s64 ret;
	atomic_bool done;
};

static void *unmap_thread(void *arg)
{
	struct unmap_call *call = arg;

	call->ret = dma_unmap(call->c, call->iova, call->size);
	call->done = true;
	return NULL;
}

static void wait_notified(int dev, __u64 n)
{
	for (int i = 0; i < 300000 && emulated_state(dev).notified < n; i++)
		usleep(1000);
}

/* UNMAP waits for the release; pins that slip in meanwhile are released, too. */
TEST_F(emulated, pin_while_unmapping)
{
	struct unmap_call call = { &self->c, IOVA(0), 100 * PAGE };
	__u64 word = 0;
	pthread_t thread;
	int ret;

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 100 * PAGE, RW));
	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(50), 1, PIN_RW, NULL));
	ASSERT_EQ(0, emulated_set(self->dev, 0, EMULATED_HOLD));

	ASSERT_EQ(0, pthread_create(&thread, NULL, unmap_thread, &call));
	wait_notified(self->dev, 1);
	EXPECT_EQ(1, emulated_state(self->dev).notified);
	/* still pinned, still readable by the device */
	EXPECT_EQ(word_of(self->mem.va + 50 * PAGE), peek(self->dev, IOVA(50)));
	ret = emulated_pin(self->dev, IOVA(51), 1, PIN_RW, NULL);
	EXPECT_EQ(is_v3(variant->type) ? -EINVAL : 1, ret);
	/* before the pinned page, behind it, and itself */
	EXPECT_EQ(ret, emulated_pin(self->dev, IOVA(10), 1, PIN_RW, NULL));
	EXPECT_EQ(ret, emulated_pin(self->dev, IOVA(99), 1, PIN_RW, NULL));
	EXPECT_EQ(ret, emulated_pin(self->dev, IOVA(50), 1, PIN_RW, NULL));
	/* a copy comes before the unmap */
	EXPECT_EQ(0, emulated_rw(self->dev, IOVA(50), &word, sizeof(word), 0));
	EXPECT_EQ(word_of(self->mem.va + 50 * PAGE), word);
	/* it counts as mapped until it is not */
	EXPECT_EQ(-EEXIST, dma_map(&self->c, IOVA(60), self->mem.va, PAGE, RW));
	EXPECT_FALSE(call.done);
	ASSERT_EQ(0, emulated_set(self->dev, 0, 0));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(100 * PAGE, call.ret);
	EXPECT_EQ(0, emulated_state(self->dev).pinned);
	EXPECT_PAGES(0, 0);
	EXPECT_EQ(-EINVAL, emulated_pin(self->dev, IOVA(50), 1, PIN_RW, NULL));
}

/* A driver that lets go late is asked again. */
TEST_F(emulated, unmap_asks_again)
{
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 16 * PAGE, RW));
	ASSERT_EQ(16, emulated_pin(self->dev, IOVA(0), 16, PIN_RW, NULL));
	ASSERT_EQ(0, emulated_set(self->dev, 4, 0));
	EXPECT_EQ(16 * PAGE, dma_unmap(&self->c, IOVA(0), 16 * PAGE));
	EXPECT_EQ(5, emulated_state(self->dev).notified);
	EXPECT_EQ(0, emulated_state(self->dev).pinned);
	EXPECT_PAGES(0, 0);
}

/*
 * A driver that finds what it has pinned by its first page lets go of all of it when
 * any page is unmapped, and of nothing else. type1v2 unmaps whole mappings only.
 */
TEST_F(emulated, unmap_object)
{
	struct vfio_emulated_test_state state;
	int lost;

	if (!is_v3(variant->type))
		return;
	lost = count_log("a driver keeps pages that are unmapped");
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 100 * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(100), self->mem.va + 100 * PAGE,
			     100 * PAGE, RW));
	ASSERT_EQ(0, emulated_set_objects(self->dev));
	ASSERT_EQ(2, emulated_pin(self->dev, IOVA(88), 2, PIN_RW, NULL));
	ASSERT_EQ(16, emulated_pin(self->dev, IOVA(90), 16, PIN_RW, NULL));
	ASSERT_EQ(4, emulated_pin(self->dev, IOVA(106), 4, PIN_RW, NULL));
	EXPECT_PAGES(22, 22);

	EXPECT_EQ(2 * PAGE, dma_unmap(&self->c, IOVA(101), 2 * PAGE));
	state = emulated_state(self->dev);
	EXPECT_EQ(6, state.pinned);
	/* pages 101 and 102, three times, then 100, 99 .. 90 */
	EXPECT_EQ(14, state.notified);
	EXPECT_EQ(IOVA(90), state.iova);
	EXPECT_EQ(PAGE, state.size);
	EXPECT_PAGES(6, 6);
	EXPECT_EQ(word_of(self->mem.va + 89 * PAGE), peek(self->dev, IOVA(89)));
	EXPECT_EQ(word_of(self->mem.va + 106 * PAGE), peek(self->dev, IOVA(106)));

	/* the last page of one that touches no other */
	EXPECT_EQ(PAGE, dma_unmap(&self->c, IOVA(109), PAGE));
	EXPECT_PAGES(2, 2);
	EXPECT_EQ(197 * PAGE, dma_unmap_all(&self->c));
	EXPECT_PAGES(0, 0);
	EXPECT_EQ(0, emulated_state(self->dev).pinned);
	EXPECT_EQ(lost, count_log("a driver keeps pages that are unmapped"));
}

/* Who unmaps can be killed between two notifications: nothing is unmapped then. */
TEST_F(emulated, unmap_killed)
{
	struct container_info info;
	int status;
	pid_t pid;

	/* type1v2 goes on, and stops the machine in the end */
	if (!is_v3(variant->type))
		return;
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 16 * PAGE, RW));
	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(3), 1, PIN_RW, NULL));
	ASSERT_EQ(0, emulated_set(self->dev, IGNORE_ALL, 1000));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		dma_unmap(&self->c, IOVA(0), 16 * PAGE);
		_exit(0);
	}
	wait_notified(self->dev, 1);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));

	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(16, info.own.mapped_pages);
	EXPECT_EQ(1, emulated_state(self->dev).pinned);
	EXPECT_PAGES(1, 1);
	/* what stays can be pinned */
	EXPECT_EQ(1, emulated_pin(self->dev, IOVA(4), 1, PIN_RW, NULL));
	ASSERT_EQ(0, emulated_set(self->dev, 0, 0));
	EXPECT_EQ(16 * PAGE, dma_unmap(&self->c, IOVA(0), 16 * PAGE));
	EXPECT_PAGES(0, 0);
}

/* Each device that pins is told; the pins of two are counted together. */
TEST_F(emulated, two_devices)
{
	__u64 pfn[2];
	int dev;

	ASSERT_EQ(0, emulated_attach(&self->c, 1));
	dev = container_device(&self->c, emulated_name(1));
	ASSERT_LE(0, dev);
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 16 * PAGE, RW));
	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(1), 1, PIN_RW, &pfn[0]));
	ASSERT_EQ(1, emulated_pin(dev, IOVA(1), 1, PIN_RW, &pfn[1]));
	EXPECT_EQ(pfn[0], pfn[1]);
	EXPECT_PAGES(1, 1);
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(1), 1));
	EXPECT_PAGES(1, 1);
	EXPECT_EQ(word_of(self->mem.va + PAGE), peek(dev, IOVA(1)));
	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(1), 1, PIN_RW, NULL));
	EXPECT_EQ(16 * PAGE, dma_unmap(&self->c, IOVA(0), 16 * PAGE));
	EXPECT_EQ(1, emulated_state(self->dev).notified);
	EXPECT_EQ(1, emulated_state(dev).notified);
	EXPECT_EQ(0, emulated_state(dev).pinned);
	EXPECT_PAGES(0, 0);

	/* one group leaves: the mappings stay for the other */
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 16 * PAGE, RW));
	ASSERT_EQ(2, emulated_pin(self->dev, IOVA(1), 2, PIN_RW, NULL));
	ASSERT_EQ(3, emulated_pin(dev, IOVA(2), 3, PIN_RW, NULL));
	EXPECT_PAGES(4, 4);
	EXPECT_EQ(-EBUSY, container_detach(&self->c, emulated_name(1)));
	close(dev);
	EXPECT_PAGES(2, 2);
	EXPECT_EQ(0, container_detach(&self->c, emulated_name(1)));
	EXPECT_EQ(word_of(self->mem.va + PAGE), peek(self->dev, IOVA(1)));
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(1), 2));
	EXPECT_PAGES(0, 0);
	EXPECT_EQ(16 * PAGE, dma_unmap_all(&self->c));
}

/* With a physical group all is charged once; without it, what is pinned. */
TEST_F(emulated, physical_comes_and_goes)
{
	__u64 pfn[3], again[3];
	const char *bdf;

	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf)
		return;
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, NPAGES * PAGE, RW));
	ASSERT_EQ(3, emulated_pin(self->dev, IOVA(10), 3, PIN_RW, pfn));
	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(11), 1, PIN_RW, NULL));
	EXPECT_PAGES(3, 3);

	ASSERT_EQ(0, container_attach(&self->c, bdf));
	EXPECT_PAGES(NPAGES, NPAGES + 3);
	ASSERT_EQ(3, emulated_pin(self->dev, IOVA(20), 3, PIN_RW, NULL));
	EXPECT_PAGES(NPAGES, NPAGES + 6);
	ASSERT_EQ(3, emulated_pin(self->dev, IOVA(10), 3, PIN_RW, again));
	EXPECT_EQ(0, memcmp(pfn, again, sizeof(pfn)));
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(10), 3));
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(20), 1));
	EXPECT_PAGES(NPAGES, NPAGES + 5);

	/* the last physical one leaves: mappings stay, pinned pages stay charged */
	ASSERT_EQ(0, container_detach(&self->c, bdf));
	EXPECT_PAGES(5, 5);
	EXPECT_EQ(word_of(self->mem.va + 10 * PAGE), peek(self->dev, IOVA(10)));
	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(30), 1, PIN_RW, NULL));
	EXPECT_PAGES(6, 6);
	ASSERT_EQ(0, dma_map(&self->c, MSI_IOVA, self->mem.va, PAGE, RW));
	EXPECT_PAGES(6, 6);

	/* the interrupt window is mapped, so it cannot come back now */
	EXPECT_EQ(-EINVAL, container_attach(&self->c, bdf));
	EXPECT_PAGES(6, 6);
	EXPECT_EQ(PAGE, dma_unmap(&self->c, MSI_IOVA, PAGE));
	ASSERT_EQ(0, container_attach(&self->c, bdf));
	EXPECT_PAGES(NPAGES, NPAGES + 6);

	/* the emulated one leaves: what it had pinned is unpinned, the rest stays */
	close(self->dev);
	self->dev = -1;
	EXPECT_PAGES(NPAGES, NPAGES);
	ASSERT_EQ(0, container_detach(&self->c, emulated_name(0)));
	EXPECT_PAGES(NPAGES, NPAGES);
	EXPECT_EQ(NPAGES * PAGE, dma_unmap_all(&self->c));
	EXPECT_PAGES(0, 0);
}

/*
 * What a device pins is charged with a physical group, too, if the address has other
 * memory than what is mapped. type1v2 does not charge it.
 */
TEST_F(emulated, physical_other_memory)
{
	struct rlimit limit = { (self->locked + NPAGES + 1) * PAGE, RLIM_INFINITY };
	const bool v3 = is_v3(variant->type);
	const char *bdf;
	struct mem mem;

	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf)
		return;
	ASSERT_EQ(0, mem_alloc(&mem, MEM_SHARED, NPAGES * PAGE));
	ASSERT_EQ(0, drop_ipc_lock());
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
	ASSERT_EQ(0, container_attach(&self->c, bdf));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), mem.va, NPAGES * PAGE, RW));
	EXPECT_PAGES(NPAGES, NPAGES);

	/* all of it is the process's other memory now, and half of that is there */
	ASSERT_EQ(mem.va, mmap(mem.va, 20 * PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	pattern_fill(mem.va, 10 * PAGE, 4711);
	EXPECT_EQ(1, emulated_pin(self->dev, IOVA(9), 1, PIN_RW, NULL));
	EXPECT_PAGES(NPAGES + v3, NPAGES + 1);
	EXPECT_EQ(word_of(mem.va + 9 * PAGE), peek(self->dev, IOVA(9)));

	/* that was as much as may be: no other page, there or not */
	if (v3) {
		EXPECT_EQ(-ENOMEM, emulated_pin(self->dev, IOVA(8), 1, PIN_RW, NULL));
		EXPECT_EQ(-ENOMEM, emulated_pin(self->dev, IOVA(8), 3, PIN_RW, NULL));
		EXPECT_EQ(-ENOMEM, emulated_pin(self->dev, IOVA(12), 4, PIN_RW, NULL));
	}
	EXPECT_PAGES(NPAGES + v3, NPAGES + 1);

	/* but what is mapped is charged already, also if it has to be looked for */
	ASSERT_EQ(0, madvise(mem.va + 20 * PAGE, 40 * PAGE, MADV_DONTNEED));
	EXPECT_EQ(20, emulated_pin(self->dev, IOVA(30), 20, PIN_RW, NULL));
	EXPECT_PAGES(NPAGES + v3, NPAGES + 21);
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(30), 20));

	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(9), 1));
	EXPECT_PAGES(NPAGES, NPAGES);
	EXPECT_EQ(1, emulated_pin(self->dev, IOVA(12), 1, PIN_RW, NULL));
	EXPECT_PAGES(NPAGES + v3, NPAGES + 1);
	EXPECT_EQ(NPAGES * PAGE, dma_unmap_all(&self->c));
	EXPECT_PAGES(0, 0);
	mem_free(&mem);
}

/* The same when the physical device is unplugged, and plugged in again. */
TEST_F(emulated, physical_unplugged)
{
	const char *bdf;

	bdf = need_device(_metadata, ENV_BAR);
	if (!bdf)
		return;
	ASSERT_EQ(0, container_attach(&self->c, bdf));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 2 * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(2), self->mem.va + 2 * PAGE,
			     (NPAGES - 2) * PAGE, RW));
	ASSERT_EQ(3, emulated_pin(self->dev, IOVA(10), 3, PIN_RW, NULL));
	EXPECT_PAGES(NPAGES, NPAGES + 3);
	ASSERT_EQ(0, pci_write(bdf, "remove", "1"));
	EXPECT_PAGES(3, 3);
	EXPECT_EQ(word_of(self->mem.va + 10 * PAGE), peek(self->dev, IOVA(10)));
	EXPECT_EQ(2 * PAGE, dma_unmap(&self->c, IOVA(0), 2 * PAGE));
	ASSERT_EQ(2, emulated_pin(self->dev, IOVA(20), 2, PIN_RW, NULL));
	EXPECT_PAGES(5, 5);
	EXPECT_EQ(5, emulated_state(self->dev).pinned);

	ASSERT_EQ(0, pci_rescan_bind(bdf));
	ASSERT_EQ(0, container_attach(&self->c, bdf));
	EXPECT_PAGES(NPAGES - 2, NPAGES - 2 + 5);
	EXPECT_EQ(0, emulated_state(self->dev).notified);
	EXPECT_EQ((NPAGES - 2) * PAGE, dma_unmap_all(&self->c));
	EXPECT_PAGES(0, 0);
}

/* UNMAP with a physical group and pins: notified, and given back both ways. */
TEST_F(emulated, physical_unmap_pinned)
{
	const char *bdf;

	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf)
		return;
	ASSERT_EQ(0, container_attach(&self->c, bdf));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, NPAGES * PAGE, RW));
	ASSERT_EQ(3, emulated_pin(self->dev, IOVA(10), 3, PIN_RW, NULL));
	EXPECT_PAGES(NPAGES, NPAGES + 3);
	EXPECT_EQ(NPAGES * PAGE, dma_unmap(&self->c, IOVA(0), NPAGES * PAGE));
	EXPECT_EQ(1, emulated_state(self->dev).notified);
	EXPECT_PAGES(0, 0);

	/* both kinds of groups, and all leave at once with mappings and pins */
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, NPAGES * PAGE, RW));
	ASSERT_EQ(3, emulated_pin(self->dev, IOVA(10), 3, PIN_RW, NULL));
}

/* An attach that cannot pin what is mapped fails, and changes nothing. */
TEST_F(emulated, physical_attach_fails)
{
	__u8 *va = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct rlimit limit = { (self->locked + 100) * PAGE, RLIM_INFINITY };
	const char *bdf;

	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf)
		return;
	ASSERT_NE(MAP_FAILED, va);
	ASSERT_EQ(0, drop_ipc_lock());
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 16 * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(32), va, 2 * PAGE, RW));
	ASSERT_EQ(2, emulated_pin(self->dev, IOVA(3), 2, PIN_RW, NULL));
	ASSERT_EQ(0, munmap(va + PAGE, PAGE));
	EXPECT_EQ(-EFAULT, container_attach(&self->c, bdf));
	EXPECT_PAGES(2, 2);
	EXPECT_EQ(2 * PAGE, dma_unmap(&self->c, IOVA(32), 2 * PAGE));

	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(64), self->mem.va, 100 * PAGE, RW));
	EXPECT_EQ(-ENOMEM, container_attach(&self->c, bdf));
	EXPECT_PAGES(2, 2);
	EXPECT_EQ(100 * PAGE, dma_unmap(&self->c, IOVA(64), 100 * PAGE));
	EXPECT_EQ(0, container_attach(&self->c, bdf));
	EXPECT_PAGES(16, 18);
	munmap(va, PAGE);
}

/* Unpin of what is not pinned is complained of once, and does no harm. */
TEST_F(emulated, unpin_not_pinned)
{
	const char *text = "unpin of a page that is not pinned";

	expect_warning(is_v3(variant->type) ? text :
		       "WARNING: .*vfio_iommu_type1_unpin_pages\\+0x");

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 16 * PAGE, RW));
	ASSERT_EQ(2, emulated_pin(self->dev, IOVA(4), 2, PIN_RW, NULL));
	/* around what is pinned, far away, over a hole */
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(6), 3));
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(0), 3));
	EXPECT_EQ(0, emulated_unpin(self->dev, 1ULL << 55, 2));
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(15), 2));
	EXPECT_PAGES(2, 2);
	EXPECT_EQ(word_of(self->mem.va + 5 * PAGE), peek(self->dev, IOVA(5)));
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(4), 2));
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(4), 2));
	EXPECT_PAGES(0, 0);
	/* a wrong unpin must not have made a negative count */
	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(4), 1, PIN_RW, NULL));
	EXPECT_PAGES(1, 1);
	EXPECT_EQ(16 * PAGE, dma_unmap_all(&self->c));
	EXPECT_PAGES(0, 0);
	/* once, whoever does it how often since the module was loaded */
	if (is_v3(variant->type))
		EXPECT_EQ(1, count_log(text));
	expect_no_warning();
}

struct race {
	struct container *c;
	struct mem *mem;
	int dev;
	atomic_bool stop;
	long pins, maps;
	const char *failed;
};

static void *race_pin(void *arg)
{
	struct race *race = arg;
	__u64 seed = 1, page;
	int ret;

	while (!race->stop) {
		page = prng(&seed) % 64;
		ret = emulated_pin(race->dev, IOVA(page), 1 + page % 5, PIN_RW,
				   NULL);
		if (ret > 0)
			race->pins++;
		else if (ret != -EINVAL)
			race->failed = "pin";
	}
	return NULL;
}

static void *race_unmap(void *arg)
{
	struct race *race = arg;
	__u64 seed = 2, half;
	__s64 ret;

	while (!race->stop) {
		half = prng(&seed) % 2 * 32;
		ret = dma_unmap(race->c, IOVA(half), 32 * PAGE);
		if (ret && ret != 32 * (__s64)PAGE)
			race->failed = "unmap";
		if (!ret && !dma_map(race->c, IOVA(half),
				     race->mem->va + half * PAGE, 32 * PAGE, RW))
			race->maps++;
	}
	return NULL;
}

/* Pins and unmaps race: no page is lost, and none kept. */
TEST_F(emulated, race)
{
	struct race race = { &self->c, &self->mem, self->dev };
	pthread_t pin, unmap;

	ASSERT_EQ(0, pthread_create(&pin, NULL, race_pin, &race));
	ASSERT_EQ(0, pthread_create(&unmap, NULL, race_unmap, &race));
	sleep(3);
	race.stop = true;
	ASSERT_EQ(0, pthread_join(pin, NULL));
	ASSERT_EQ(0, pthread_join(unmap, NULL));
	EXPECT_EQ(NULL, race.failed);
	EXPECT_LT(0, race.pins);
	EXPECT_LT(0, race.maps);
	dma_unmap_all(&self->c);
	EXPECT_EQ(0, emulated_state(self->dev).pinned);
	EXPECT_PAGES(0, 0);
}

/*
 * A map whose memory is slow to come, because userfaultfd has it wait. With
 * type1v2 everybody else waits as well, so there is nothing to compare with.
 */
FIXTURE(progress) {
	struct container c;
	struct mem mem;
	const char *bdf;
	__u8 *va;
	int uffd;
	pthread_t thread;
	int ret;
	long locked, pinned;
};

/* More than are mapped in one go, so that the range is reserved meanwhile */
#define SLOW_PAGES	16UL

static void *map_thread(void *arg)
{
	struct _test_data_progress *self = arg;

	self->ret = dma_map(&self->c, IOVA(0), self->va, SLOW_PAGES * PAGE, RW);
	return NULL;
}

/* The map has pinned the first half and waits for the second. */
FIXTURE_SETUP(progress)
{
	container_init(&self->c);
	self->bdf = need_device(_metadata, ENV_NVME);
	ASSERT_EQ(0, container_open(&self->c, VFIO_TYPE1v3_IOMMU, self->bdf));
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, NPAGES * PAGE));
	pattern_fill(self->mem.va, self->mem.size, 0);
	self->locked = locked_pages();
	self->pinned = pinned_pages();

	self->va = mmap(NULL, SLOW_PAGES * PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->va);
	memset(self->va, 1, SLOW_PAGES * PAGE / 2);
	self->uffd = uffd_open(self->va, SLOW_PAGES * PAGE);
	ASSERT_LE(0, self->uffd);
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, map_thread, self));
	ASSERT_EQ(0, uffd_wait(self->uffd, self->va + SLOW_PAGES * PAGE / 2));
}

FIXTURE_TEARDOWN(progress)
{
	container_close(&self->c);
	munmap(self->va, SLOW_PAGES * PAGE);
	close(self->uffd);
	mem_free(&self->mem);
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
}

/* Let the memory come, and return what the map does. */
static int finish_map(struct _test_data_progress *self)
{
	int ret = uffd_give(self->uffd, self->va + SLOW_PAGES * PAGE / 2,
			    SLOW_PAGES * PAGE / 2);

	if (ret)
		return ret;
	pthread_join(self->thread, NULL);
	return self->ret;
}

TEST_F(progress, others)
{
	EXPECT_EQ(0, dma_map(&self->c, IOVA(100), self->mem.va, PAGE, RW));
	EXPECT_EQ(-EEXIST, dma_map(&self->c, IOVA(0), self->mem.va, PAGE, RW));
	EXPECT_EQ(-EEXIST, dma_map(&self->c, IOVA(SLOW_PAGES - 1), self->mem.va,
				   2 * PAGE, RW));
	EXPECT_EQ(0, dma_unmap(&self->c, IOVA(0), SLOW_PAGES * PAGE));
	EXPECT_EQ(PAGE, dma_unmap(&self->c, IOVA(0), 200 * PAGE));
	EXPECT_EQ(0, finish_map(self));
	EXPECT_EQ(SLOW_PAGES, locked_pages() - self->locked);
	EXPECT_EQ(SLOW_PAGES, pinned_pages() - self->pinned);
	EXPECT_EQ(SLOW_PAGES * PAGE, dma_unmap_all(&self->c));
}

/* Without a group there is nothing to map for. */
TEST_F(progress, detach)
{
	ASSERT_EQ(0, container_detach(&self->c, self->bdf));
	EXPECT_EQ(-ENODEV, finish_map(self));
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
}

/* An emulated one sees nothing of it until it is there, and needs no pins. */
TEST_F(progress, detach_emulated)
{
	__u64 word = 1;
	int dev;

	ASSERT_EQ(0, emulated_attach(&self->c, 0));
	dev = container_device(&self->c, emulated_name(0));
	ASSERT_LE(0, dev);
	EXPECT_EQ(-EINVAL, emulated_pin(dev, IOVA(0), 1, PIN_RW, NULL));
	EXPECT_EQ(-EINVAL, emulated_rw(dev, IOVA(0), &word, 8, 0));
	ASSERT_EQ(0, container_detach(&self->c, self->bdf));
	EXPECT_EQ(0, finish_map(self));
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
	EXPECT_EQ(0, emulated_rw(dev, IOVA(0), &word, 8, 0));
	EXPECT_EQ(0x0101010101010101ULL, word);
	EXPECT_EQ(1, emulated_pin(dev, IOVA(7), 1, PIN_RW, NULL));
	EXPECT_EQ(1, locked_pages() - self->locked);
	close(dev);
}

/* Gone and back: it is mapped for the new domain. */
TEST_F(progress, attach_again)
{
	ASSERT_EQ(0, emulated_attach(&self->c, 0));
	ASSERT_EQ(0, container_detach(&self->c, self->bdf));
	ASSERT_EQ(0, container_attach(&self->c, self->bdf));
	EXPECT_EQ(0, finish_map(self));
	EXPECT_EQ(SLOW_PAGES, locked_pages() - self->locked);
	EXPECT_EQ(SLOW_PAGES, pinned_pages() - self->pinned);
	EXPECT_EQ(SLOW_PAGES * PAGE, dma_unmap_all(&self->c));
}

/* A batch that waits for the memory of an entry */
struct batch_call {
	struct container *c;
	pthread_t thread;
	struct vfio_iommu_type1v3_batch_entry e[3];
	unsigned int nr;
	__u32 flags;
	int ret;
};

static void *batch_thread(void *arg)
{
	struct batch_call *call = arg;

	call->ret = dma_batch(call->c, call->flags, call->nr, call->e);
	return NULL;
}

/*
 * What an entry has done others see, and can undo, while the next one waits for its
 * memory; and what that one asks for is not reserved before its turn.
 */
TEST_F(progress, batch_in_order)
{
	struct batch_call call = {
		.c = &self->c,
		.nr = 3,
		.flags = VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE,
		.e = {
			{ IOVA(50), SLOW_PAGES * PAGE, (uintptr_t)self->mem.va, RW },
			{ IOVA(100), SLOW_PAGES * PAGE, (uintptr_t)self->va, RW },
			{ IOVA(150), PAGE, (uintptr_t)self->mem.va, RW },
		},
	};

	ASSERT_EQ(0, pthread_create(&call.thread, NULL, batch_thread, &call));
	ASSERT_EQ(0, uffd_wait(self->uffd, self->va + SLOW_PAGES * PAGE / 2));
	EXPECT_EQ(SLOW_PAGES * PAGE, dma_unmap(&self->c, IOVA(50), SLOW_PAGES * PAGE));
	EXPECT_EQ(-EEXIST, dma_map(&self->c, IOVA(100), self->mem.va, PAGE, RW));
	EXPECT_EQ(0, dma_map(&self->c, IOVA(150), self->mem.va, PAGE, RW));
	EXPECT_EQ(0, finish_map(self));
	ASSERT_EQ(0, pthread_join(call.thread, NULL));
	EXPECT_EQ(1, call.ret);
	EXPECT_EQ(0, call.e[0].result);
	EXPECT_EQ(0, call.e[1].result);
	EXPECT_EQ(-EEXIST, call.e[2].result);
	EXPECT_EQ(2 * SLOW_PAGES + 1, locked_pages() - self->locked);
	EXPECT_EQ((2 * SLOW_PAGES + 1) * PAGE, dma_unmap_all(&self->c));
}

/*
 * The last IOMMU leaves in the middle of a batch and comes back.  An entry that was
 * done is mapped for the new domain, the one in progress begins anew, and the rest
 * is checked again.
 */
TEST_F(progress, batch_attach_again)
{
	struct batch_call call = {
		.c = &self->c,
		.nr = 3,
		.e = {
			{ IOVA(50), SLOW_PAGES * PAGE, (uintptr_t)self->mem.va, RW },
			{ IOVA(100), SLOW_PAGES * PAGE, (uintptr_t)self->va, RW },
			{ IOVA(150), PAGE, (uintptr_t)self->mem.va, RW },
		},
	};

	ASSERT_EQ(0, emulated_attach(&self->c, 0));
	ASSERT_EQ(0, pthread_create(&call.thread, NULL, batch_thread, &call));
	ASSERT_EQ(0, uffd_wait(self->uffd, self->va + SLOW_PAGES * PAGE / 2));
	ASSERT_EQ(0, container_detach(&self->c, self->bdf));
	ASSERT_EQ(0, container_attach(&self->c, self->bdf));
	EXPECT_EQ(0, finish_map(self));
	ASSERT_EQ(0, pthread_join(call.thread, NULL));
	EXPECT_EQ(0, call.ret);
	EXPECT_EQ(3 * SLOW_PAGES + 1, locked_pages() - self->locked);
	EXPECT_EQ(3 * SLOW_PAGES + 1, pinned_pages() - self->pinned);
	EXPECT_EQ((3 * SLOW_PAGES + 1) * PAGE, dma_unmap_all(&self->c));
}

/*
 * Entries that were to be mapped as one are not mapped one by one for nobody.  They
 * are only mapped as one if no superpage can be a part of them.
 */
TEST_F(progress, batch_detach)
{
	const __u32 flags = RW | VFIO_DMA_MAP_GRANULE(0);
	__u64 half = SLOW_PAGES * PAGE / 2;
	struct batch_call call = {
		.c = &self->c,
		.nr = 2,
		.e = {
			{ IOVA(100), half, (uintptr_t)self->va, flags },
			{ IOVA(100) + half, half, (uintptr_t)self->va + half, flags },
		},
	};

	ASSERT_EQ(0, pthread_create(&call.thread, NULL, batch_thread, &call));
	ASSERT_EQ(0, uffd_wait(self->uffd, self->va + SLOW_PAGES * PAGE / 2));
	ASSERT_EQ(0, container_detach(&self->c, self->bdf));
	EXPECT_EQ(-ENODEV, finish_map(self));
	ASSERT_EQ(0, pthread_join(call.thread, NULL));
	EXPECT_EQ(1, call.ret);
	EXPECT_EQ(-ENODEV, call.e[0].result);
	EXPECT_EQ(-ECANCELED, call.e[1].result);
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
}

/*
 * While a batch waits for a driver to unpin, another call unmaps a part: what each
 * says it has unmapped is what it has.
 */
struct part_call {
	struct container c;
	int dev;
	__s64 ret;
};

static void *part_thread(void *arg)
{
	struct part_call *call = arg;

	while (!emulated_state(call->dev).notified)
		usleep(1000);
	call->ret = dma_unmap(&call->c, IOVA(101), PAGE);
	emulated_set(call->dev, 0, 0);
	return NULL;
}

TEST(batch_unmap_in_part)
{
	struct vfio_iommu_type1v3_batch_entry e[] = {
		{ .iova = IOVA(100), .size = PAGE, .flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP },
		{ .iova = IOVA(101), .size = PAGE, .flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP },
	};
	struct part_call other;
	pthread_t thread;
	struct mem mem;

	other.dev = emulated_open(&other.c, VFIO_TYPE1v3_IOMMU, 0);
	ASSERT_LE(0, other.dev);
	ASSERT_EQ(0, mem_alloc(&mem, MEM_4K, 2 * PAGE));
	ASSERT_EQ(0, dma_map(&other.c, IOVA(100), mem.va, 2 * PAGE, RW));
	ASSERT_EQ(1, emulated_pin(other.dev, IOVA(100), 1, PIN_RW, NULL));
	ASSERT_EQ(0, emulated_set(other.dev, 0, EMULATED_HOLD));
	ASSERT_EQ(0, pthread_create(&thread, NULL, part_thread, &other));
	EXPECT_EQ(0, dma_batch(&other.c, 0, 2, e));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(PAGE, other.ret);
	EXPECT_EQ(PAGE, e[0].size);
	EXPECT_EQ(0, e[1].size);
	EXPECT_EQ(0, emulated_state(other.dev).pinned);
	close(other.dev);
	container_close(&other.c);
	mem_free(&mem);
}

FIXTURE(stubborn) {
	struct container c;
	struct mem mem;
	int dev;
};

FIXTURE_SETUP(stubborn)
{
	self->dev = emulated_open(&self->c, VFIO_TYPE1v3_IOMMU, 0);
	ASSERT_LE(0, self->dev);
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, 16 * PAGE));
	memset(self->mem.va, 1, self->mem.size);
}

FIXTURE_TEARDOWN(stubborn)
{
	close(self->dev);
	container_close(&self->c);
	mem_free(&self->mem);
}

/*
 * A driver that never lets go. type1v2 stops the machine; type1v3 goes on after
 * a warning, and the pinned page is lost, but stays charged. What the driver then
 * unpins late is not pinned any more.
 */
TEST_F(stubborn, driver_keeps_pins)
{
	const char *bdf = need_device(_metadata, ENV_NVME);
	long locked = locked_pages(), pinned = pinned_pages();

	if (!bdf)
		return;
	expect_warning("a driver keeps pages that are unmapped");
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 16 * PAGE, RW));
	ASSERT_EQ(1, emulated_pin(self->dev, IOVA(3), 1, PIN_RW, NULL));
	ASSERT_EQ(0, emulated_set(self->dev, IGNORE_ALL, 0));
	EXPECT_EQ(16 * PAGE, dma_unmap(&self->c, IOVA(0), 16 * PAGE));
	EXPECT_LE(2, emulated_state(self->dev).notified);
	EXPECT_EQ(1, emulated_state(self->dev).pinned);
	EXPECT_EQ(1, count_log("a driver keeps pages that are unmapped"));
	expect_no_warning();
	EXPECT_EQ(pinned + 1, pinned_pages());

	/* the page is still the driver's to write to, not a new mapping's */
	EXPECT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va + PAGE, 8 * PAGE,
			     RW));
	EXPECT_EQ(0x0101010101010101ULL, peek(self->dev, IOVA(3)));
	allow_warning("unpin of a page that is not pinned");
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(3), 1));
	EXPECT_EQ(8 * PAGE, dma_unmap_all(&self->c));
	EXPECT_EQ(locked + 1, locked_pages());
	EXPECT_EQ(pinned + 1, pinned_pages());

	/* one that is charged as it is mapped for a physical group */
	ASSERT_EQ(0, container_attach(&self->c, bdf));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 16 * PAGE, RW));
	ASSERT_EQ(2, emulated_pin(self->dev, IOVA(5), 2, PIN_RW, NULL));
	EXPECT_EQ(locked + 17, locked_pages());
	EXPECT_EQ(16 * PAGE, dma_unmap(&self->c, IOVA(0), 16 * PAGE));
	EXPECT_EQ(locked + 3, locked_pages());
	EXPECT_EQ(pinned + 3, pinned_pages());
	EXPECT_EQ(0, emulated_unpin(self->dev, IOVA(5), 2));
	expect_no_warning();
}

/*
 * A driver's kernel thread that reaches for memory which user space withholds.
 * Nobody can kill it; it must not have others wait for it with whom it has nothing
 * to do. In type1v2 they all do, so there is nothing to compare with.
 */
#define HELD_PAGES	4U	/* withheld but the first */
#define HELD		IOVA(1000)

struct withheld {
	struct container c;
	struct mem mem;
	__u8 *va;
	int dev, uffd;
};

static int withheld_open(struct withheld *w)
{
	int ret, fd;

	w->dev = emulated_open(&w->c, VFIO_TYPE1v3_IOMMU, 0);
	if (w->dev < 0)
		return w->dev;
	ret = mem_alloc(&w->mem, MEM_4K, NPAGES * PAGE);
	if (ret)
		return ret;
	w->va = mmap(NULL, HELD_PAGES * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w->va == MAP_FAILED)
		return -errno;
	*w->va = 1;
	/*
	 * A process that ends closes its last file descriptor first. A device
	 * waits for its driver's thread: so the memory must have come by then.
	 */
	fd = uffd_open(w->va, HELD_PAGES * PAGE);
	if (fd < 0)
		return fd;
	w->uffd = fcntl(fd, F_DUPFD_CLOEXEC, 512);
	close(fd);
	if (w->uffd < 0)
		return -errno;
	return dma_map(&w->c, HELD, w->va, HELD_PAGES * PAGE, RW);
}

/* Returns when the kernel's thread waits. */
static int withheld_begin(struct withheld *w, __u32 cmd)
{
	__u64 iova = cmd == VFIO_EMULATED_TEST_PIN ? HELD : HELD + PAGE;

	return emulated_background(w->dev, cmd, iova, 2) ?: uffd_wait(w->uffd, w->va + PAGE);
}

/* Lets the memory come. Returns what the driver's call did. */
static __s64 withheld_end(struct withheld *w)
{
	__s64 result = uffd_give(w->uffd, w->va + PAGE, (HELD_PAGES - 1) * PAGE);

	if (result)
		return result;
	while ((result = emulated_state(w->dev).result) == -EINPROGRESS)
		usleep(1000);
	return result;
}

FIXTURE(withheld) {
	struct withheld w;
	long locked, pinned;
};

FIXTURE_VARIANT(withheld) { __u32 cmd; };

FIXTURE_VARIANT_ADD(withheld, pin) { .cmd = VFIO_EMULATED_TEST_PIN };
FIXTURE_VARIANT_ADD(withheld, rw) { .cmd = VFIO_EMULATED_TEST_RW };

FIXTURE_SETUP(withheld)
{
	self->locked = locked_pages();
	self->pinned = pinned_pages();
	ASSERT_EQ(0, withheld_open(&self->w));
	ASSERT_EQ(0, withheld_begin(&self->w, variant->cmd));
}

FIXTURE_TEARDOWN(withheld)
{
	struct withheld *w = &self->w;

	if (w->dev >= 0)
		close(w->dev);
	container_close(&w->c);
	munmap(w->va, HELD_PAGES * PAGE);
	close(w->uffd);
	mem_free(&w->mem);
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
}

TEST_F(withheld, comes)
{
	bool pin = variant->cmd == VFIO_EMULATED_TEST_PIN;

	/* not half of it; but what is about to be pinned counts */
	EXPECT_EQ(pin ? 1 : 0, locked_pages() - self->locked);
	EXPECT_EQ(self->pinned, pinned_pages());
	EXPECT_EQ(pin ? 2 : 0, withheld_end(&self->w));
	EXPECT_EQ(pin ? 2 : 0, emulated_state(self->w.dev).pinned);
	EXPECT_EQ(pin ? 2 : 0, locked_pages() - self->locked);
	EXPECT_EQ(pin ? 2 : 0, pinned_pages() - self->pinned);
	EXPECT_EQ(HELD_PAGES * PAGE, dma_unmap_all(&self->w.c));
}

/* While the rest is waited for, what has come is pinned, and so it is charged. */
TEST_F(withheld, comes_in_part)
{
	const bool pin = variant->cmd == VFIO_EMULATED_TEST_PIN;
	struct withheld *w = &self->w;

	EXPECT_EQ(pin ? 2 : 0, withheld_end(w));
	if (!pin)
		return;
	EXPECT_EQ(0, emulated_unpin(w->dev, HELD, 2));
	ASSERT_EQ(0, madvise(w->va + PAGE, (HELD_PAGES - 1) * PAGE, MADV_DONTNEED));
	ASSERT_EQ(0, emulated_background(w->dev, variant->cmd, HELD, HELD_PAGES));
	ASSERT_EQ(0, uffd_wait(w->uffd, w->va + PAGE));
	EXPECT_EQ(0, uffd_give(w->uffd, w->va + PAGE, PAGE));
	EXPECT_EQ(0, uffd_wait(w->uffd, w->va + 2 * PAGE));
	EXPECT_EQ(HELD_PAGES - 1, locked_pages() - self->locked);
	EXPECT_GE(locked_pages() - self->locked, pinned_pages() - self->pinned);

	EXPECT_EQ(0, uffd_give(w->uffd, w->va + 2 * PAGE, (HELD_PAGES - 2) * PAGE));
	while (emulated_state(w->dev).result == -EINPROGRESS)
		usleep(1000);
	EXPECT_EQ(HELD_PAGES, emulated_state(w->dev).result);
	EXPECT_EQ(HELD_PAGES, locked_pages() - self->locked);
	EXPECT_EQ(HELD_PAGES, pinned_pages() - self->pinned);
}

/* All goes on, and what is waited for can be unmapped: then it is not there. */
TEST_F(withheld, others)
{
	struct container *c = &self->w.c;
	struct container_info info;
	__u64 bits;
	int dev;

	EXPECT_EQ(0, dirty_tracking(c, VFIO_IOMMU_DIRTY_PAGES_FLAG_START));
	EXPECT_EQ(0, dma_map(c, IOVA(0), self->w.mem.va, NPAGES * PAGE, RW));
	EXPECT_EQ(0, container_info(c, &info));
	ASSERT_EQ(0, emulated_attach(c, 1));
	dev = container_device(c, emulated_name(1));
	ASSERT_LE(0, dev);
	EXPECT_EQ(1, emulated_pin(dev, IOVA(0), 1, PIN_RW, NULL));
	EXPECT_EQ(1, emulated_pin(dev, HELD, 1, PIN_RW, NULL));
	EXPECT_EQ(0, dirty_bitmap(c, HELD, HELD_PAGES * PAGE, PAGE, &bits, 8));
	EXPECT_EQ(1, bits);
	EXPECT_EQ(HELD_PAGES * PAGE, dma_unmap(c, HELD, HELD_PAGES * PAGE));
	close(dev);
	EXPECT_EQ(0, container_detach(c, emulated_name(1)));
	EXPECT_EQ(-EINVAL, withheld_end(&self->w));
	EXPECT_EQ(0, emulated_state(self->w.dev).pinned);
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
}

/* The same IOVA, but other memory: it is that which counts. */
TEST_F(withheld, mapped_anew)
{
	bool pin = variant->cmd == VFIO_EMULATED_TEST_PIN;

	EXPECT_EQ(HELD_PAGES * PAGE, dma_unmap(&self->w.c, HELD, HELD_PAGES * PAGE));
	pattern_fill(self->w.mem.va, self->w.mem.size, 1);
	EXPECT_EQ(0, dma_map(&self->w.c, HELD, self->w.mem.va, 2 * PAGE, RW));
	EXPECT_EQ(pin ? 2 : 0, withheld_end(&self->w));
	if (pin)
		EXPECT_EQ(word_of(self->w.mem.va + PAGE),
			  peek(self->w.dev, HELD + PAGE));
}

/* Other memory of another process: that is none of the call's. */
TEST_F(withheld, another_owner)
{
	struct container *c = &self->w.c;
	int status;
	pid_t pid;

	EXPECT_EQ(HELD_PAGES * PAGE, dma_unmap(c, HELD, HELD_PAGES * PAGE));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(!!dma_map(c, HELD, self->w.mem.va, HELD_PAGES * PAGE, RW));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(-EINVAL, withheld_end(&self->w));
	EXPECT_EQ(0, emulated_state(self->w.dev).pinned);
	EXPECT_EQ(HELD_PAGES * PAGE, dma_unmap_all(c));
}

static void *withheld_map(void *arg)
{
	struct withheld *w = arg;

	for (;;) {
		dma_map(&w->c, IOVA(0), w->mem.va, NPAGES * PAGE, RW);
		dma_unmap(&w->c, IOVA(0), NPAGES * PAGE);
	}
	return NULL;
}

static void *withheld_dirty(void *arg)
{
	struct withheld *w = arg;
	__u64 bits;

	for (;;) {
		dirty_tracking(&w->c, VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
		dirty_bitmap(&w->c, IOVA(0), PAGE, PAGE, &bits, 8);
		dirty_tracking(&w->c, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
	}
	return NULL;
}

/* Unmaps what is being waited for, and maps it again */
static void *withheld_unmap(void *arg)
{
	struct withheld *w = arg;

	for (;;) {
		dma_unmap(&w->c, HELD, HELD_PAGES * PAGE);
		dma_map(&w->c, HELD, w->va, HELD_PAGES * PAGE, RW);
	}
	return NULL;
}

/* A process that withholds its own memory can be killed all the same. */
TEST_F(withheld, killed)
{
	void *(*run[])(void *arg) = { withheld_map, withheld_dirty, withheld_unmap };
	struct withheld w;
	pthread_t thread;
	int fd[2], status;
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe2(fd, O_CLOEXEC));
	/* The device and its group can be open but once. */
	EXPECT_LE(0, withheld_end(&self->w));
	close(self->w.dev);
	self->w.dev = -1;
	container_close(&self->w.c);
	EXPECT_EQ(self->pinned, pinned_pages());

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		status = withheld_open(&w) ?: withheld_begin(&w, variant->cmd);
		for (int i = 0; i < 3 && !status; i++)
			status = pthread_create(&thread, NULL, run[i], &w);
		if (status || write(fd[1], "", 1) != 1)
			_exit(1);
		pause();
	}
	close(fd[1]);
	EXPECT_EQ(1, read(fd[0], &c, 1));
	/* long enough for each of them to be somewhere in a call */
	usleep(100000);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_EQ(self->pinned, pinned_pages());
	close(fd[0]);
}

TEST_HARNESS_MAIN
