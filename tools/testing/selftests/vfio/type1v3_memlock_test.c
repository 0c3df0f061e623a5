// SPDX-License-Identifier: GPL-2.0-only
/*
 * Locked memory of several containers of one process: a page that they hold is charged
 * once, however often and wherever they map it.  Three controllers, a container each.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "type1v3_harness.h"
#include "type1v3_emulated.h"

#define NR		3
#define NPAGES		(4 * MIB / PAGE)
#define IOVA(page)	(TEST_IOVA + (__u64)(page) * PAGE)

/* As VFIO_DMA_LEDGER_HOLDS of the kernel */
#define HOLDS		64

FIXTURE(memlock) {
	struct container c[NR];
	struct mem mem;
	long locked, pinned;
};

static int open_all(struct container *c)
{
	static const char *const env[NR] = { ENV_NVME, ENV_NVME2, ENV_STREAM };
	int ret = 0;

	for (int i = 0; i < NR && !ret; i++)
		ret = container_open(&c[i], VFIO_TYPE1v3_IOMMU, getenv(env[i]));
	return ret;
}

FIXTURE_SETUP(memlock)
{
	for (int i = 0; i < NR; i++)
		container_init(&self->c[i]);
	if (!need_device(_metadata, ENV_NVME) || !need_device(_metadata, ENV_NVME2) ||
	    !need_device(_metadata, ENV_STREAM))
		return;
	ASSERT_EQ(0, open_all(self->c));
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, NPAGES * PAGE));
	memset(self->mem.va, 1, self->mem.size);
	self->locked = locked_pages();
	self->pinned = pinned_pages();
}

FIXTURE_TEARDOWN(memlock)
{
	for (int i = 0; i < NR; i++)
		container_close(&self->c[i]);
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
	mem_free(&self->mem);
}

/* Pages charged, and pages held by all containers together */
#define EXPECT_HELD(_charged, _held) do { \
	EXPECT_EQ((long)(_charged), locked_pages() - self->locked); \
	EXPECT_EQ((long)(_held), pinned_pages() - self->pinned); \
} while (0)

static int set_limit(long npages)
{
	struct rlimit limit = { npages * PAGE, npages * PAGE };

	return setrlimit(RLIMIT_MEMLOCK, &limit) ? -errno : 0;
}

/* Adjacent or scattered, large pages or small: the same memory is charged once. */
TEST_F(memlock, same_memory)
{
	static const int orders[][NR] = {
		{ 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 },
	};

	for (size_t o = 0; o < 6; o++) {
		for (int i = 0; i < NR; i++) {
			ASSERT_EQ(0, dma_map(&self->c[i], IOVA(i), self->mem.va,
					     NPAGES * PAGE, RW));
			EXPECT_HELD(NPAGES, (i + 1) * NPAGES);
		}
		for (int i = 0; i < NR; i++) {
			ASSERT_EQ(NPAGES * (__s64)PAGE,
				  o % 2 ? dma_unmap_all(&self->c[orders[o][i]]) :
				  dma_unmap(&self->c[orders[o][i]], 0,
					    IOVA(3 * NPAGES)));
			EXPECT_HELD(i < NR - 1 ? NPAGES : 0, (NR - 1 - i) * NPAGES);
		}
	}

	/* page by page, each elsewhere */
	for (int i = 0; i < NR; i++)
		for (long page = 0; page < NPAGES; page++)
			ASSERT_EQ(0, dma_map(&self->c[i], IOVA(page * 3 * (i + 1)),
					     self->mem.va + page * PAGE, PAGE, RW));
	EXPECT_HELD(NPAGES, NR * NPAGES);
	/* the last one holds half of it */
	EXPECT_EQ(NPAGES * (__s64)PAGE, dma_unmap_all(&self->c[1]));
	for (long page = 0; page < NPAGES; page += 2)
		ASSERT_EQ((__s64)PAGE, dma_unmap(&self->c[2], IOVA(page * 9), PAGE));
	EXPECT_HELD(NPAGES, NPAGES + NPAGES / 2);
	EXPECT_EQ(NPAGES * (__s64)PAGE, dma_unmap_all(&self->c[0]));
	EXPECT_HELD(NPAGES / 2, NPAGES / 2);
}

/* Containers that are closed with all that they hold, and groups that are detached */
TEST_F(memlock, closed)
{
	for (int i = 0; i < NR; i++)
		ASSERT_EQ(0, dma_map(&self->c[i], IOVA(0), self->mem.va, NPAGES * PAGE, RW));
	container_close(&self->c[0]);
	EXPECT_HELD(NPAGES, 2 * NPAGES);
	ASSERT_EQ(0, container_detach(&self->c[2], getenv(ENV_STREAM)));
	EXPECT_HELD(NPAGES, NPAGES);
	container_close(&self->c[1]);
	EXPECT_HELD(0, 0);
}

/* One page at several addresses: of the process, of devices, of a file */
TEST_F(memlock, aliases)
{
	int fd = memfd_create("aliases", 0);
	__u8 *a, *b;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, NPAGES * PAGE));
	a = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	b = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	ASSERT_NE(MAP_FAILED, a);
	ASSERT_NE(MAP_FAILED, b);

	/* the only container is charged for each hold, until another one comes */
	ASSERT_EQ(0, dma_map(&self->c[0], IOVA(0), a, NPAGES * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c[0], OTHER_IOVA, b, NPAGES * PAGE, RW));
	EXPECT_HELD(2 * NPAGES, 2 * NPAGES);
	ASSERT_EQ(0, dma_map(&self->c[1], IOVA(7), b + PAGE, PAGE, RW));
	EXPECT_HELD(NPAGES, 2 * NPAGES + 1);
	ASSERT_EQ(0, dma_map(&self->c[2], IOVA(9), a, NPAGES * PAGE, RO));
	EXPECT_HELD(NPAGES, 3 * NPAGES + 1);
	ASSERT_EQ(NPAGES * (__s64)PAGE, dma_unmap(&self->c[0], OTHER_IOVA, NPAGES * PAGE));
	ASSERT_EQ(NPAGES * (__s64)PAGE, dma_unmap_all(&self->c[2]));
	EXPECT_HELD(NPAGES, NPAGES + 1);
	ASSERT_EQ(NPAGES * (__s64)PAGE, dma_unmap_all(&self->c[0]));
	EXPECT_HELD(1, 1);
	munmap(a, NPAGES * PAGE);
	munmap(b, NPAGES * PAGE);
}

/* The same address with other memory counts, also at the limit. */
TEST_F(memlock, mapped_again)
{
	__u8 *va = self->mem.va;

	ASSERT_EQ(0, drop_ipc_lock());
	ASSERT_EQ(0, set_limit(self->locked + NPAGES + 8));
	ASSERT_EQ(0, dma_map(&self->c[0], IOVA(0), va, NPAGES * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c[1], IOVA(0), va, NPAGES * PAGE, RW));
	ASSERT_EQ(va, mmap(va, 9 * PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_EQ(-ENOMEM, dma_map(&self->c[2], IOVA(0), va, NPAGES * PAGE, RW));
	EXPECT_HELD(NPAGES, 2 * NPAGES);
	EXPECT_EQ(0, dma_map(&self->c[2], IOVA(1), va + PAGE, (NPAGES - 1) * PAGE, RW));
	EXPECT_HELD(NPAGES + 8, 3 * NPAGES - 1);
	EXPECT_EQ(-ENOMEM, dma_map(&self->c[2], IOVA(0), va, PAGE, RW));
	/* the old pages are nobody else's */
	EXPECT_EQ(NPAGES * (__s64)PAGE, dma_unmap_all(&self->c[1]));
	EXPECT_HELD(NPAGES + 8, 2 * NPAGES - 1);
	EXPECT_EQ(NPAGES * (__s64)PAGE, dma_unmap_all(&self->c[0]));
	EXPECT_HELD(NPAGES - 1, NPAGES - 1);
}

/* What the containers say of themselves, and of each other */
TEST_F(memlock, usage)
{
	struct container_info info;

	ASSERT_EQ(0, dma_map(&self->c[0], IOVA(0), self->mem.va, 20 * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c[0], IOVA(20), self->mem.va, 20 * PAGE, RW));
	ASSERT_EQ(0, container_info(&self->c[0], &info));
	ASSERT_TRUE(info.has_own);
	EXPECT_EQ(2, info.own.header.version);
	EXPECT_EQ(40, info.own.pinned_pages);
	EXPECT_EQ(40, info.own.charged_pages);
	ASSERT_EQ(0, dma_map(&self->c[1], IOVA(0), self->mem.va + 10 * PAGE, 20 * PAGE, RW));
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, container_info(&self->c[i], &info));
		EXPECT_EQ(i ? 20 : 40, info.own.pinned_pages);
		EXPECT_EQ(30, info.own.charged_pages);
		EXPECT_EQ(0, info.own.alone_pages);
	}
	ASSERT_EQ(0, container_info(&self->c[2], &info));
	EXPECT_EQ(0, info.own.charged_pages);
}

/* What one container may just map, others may, too; not one page more. */
TEST_F(memlock, exact)
{
	static const long sizes[] = { 1, 8, 9, 511, 513, NPAGES - 1 };
	__u8 *va = self->mem.va;

	ASSERT_EQ(0, drop_ipc_lock());
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		const long n = sizes[i];

		ASSERT_EQ(0, set_limit(self->locked + n));
		ASSERT_EQ(0, dma_map(&self->c[0], IOVA(0), va, n * PAGE, RW));
		EXPECT_EQ(-ENOMEM, dma_map(&self->c[1], IOVA(0), va, (n + 1) * PAGE, RW));
		EXPECT_EQ(-ENOMEM, dma_map(&self->c[1], IOVA(0), va + n * PAGE, PAGE, RW));
		EXPECT_HELD(n, n);
		EXPECT_EQ(0, dma_map(&self->c[1], IOVA(1), va, n * PAGE, RW));
		EXPECT_EQ(0, dma_map(&self->c[2], IOVA(0), va, n * PAGE, RW));
		EXPECT_HELD(n, NR * n);
		/* the same in the one that had it first */
		EXPECT_EQ(0, dma_map(&self->c[0], OTHER_IOVA, va, n * PAGE, RW));
		EXPECT_HELD(n, (NR + 1) * n);
		for (int c = 0; c < NR; c++)
			dma_unmap_all(&self->c[c]);
		EXPECT_HELD(0, 0);

		/* a page less than is needed, for whoever comes second */
		ASSERT_EQ(0, set_limit(self->locked + n));
		ASSERT_EQ(0, dma_map(&self->c[2], IOVA(0), va + PAGE, n * PAGE, RW));
		EXPECT_EQ(-ENOMEM, dma_map(&self->c[0], IOVA(0), va, (n + 1) * PAGE, RW));
		EXPECT_HELD(n, n);
		ASSERT_EQ(0, set_limit(self->locked + n + 1));
		EXPECT_EQ(0, dma_map(&self->c[0], IOVA(0), va, (n + 1) * PAGE, RW));
		EXPECT_HELD(n + 1, 2 * n + 1);
		for (int c = 0; c < NR; c++)
			dma_unmap_all(&self->c[c]);
		EXPECT_HELD(0, 0);
	}
}

/* So many pins of one page are charged that its refcount cannot overflow. */
TEST_F(memlock, many_pins)
{
	const long n = 100000;

	ASSERT_EQ(0, dma_map(&self->c[0], IOVA(0), self->mem.va, PAGE, RW));
	for (long i = 0; i < n; i++)
		ASSERT_EQ(0, dma_map(&self->c[1], IOVA(i), self->mem.va, PAGE, RW));
	EXPECT_HELD((n + HOLDS) / HOLDS, n + 1);
	EXPECT_EQ(n * (__s64)PAGE, dma_unmap_all(&self->c[1]));
	EXPECT_HELD(1, 1);
}

/* mlock() beside it counts as it does: on its own. */
TEST_F(memlock, mlocked)
{
	ASSERT_EQ(0, dma_map(&self->c[0], IOVA(0), self->mem.va, 16 * PAGE, RW));
	ASSERT_EQ(0, mlock(self->mem.va, 16 * PAGE));
	ASSERT_EQ(0, dma_map(&self->c[1], IOVA(0), self->mem.va, 16 * PAGE, RW));
	EXPECT_HELD(32, 32);
	ASSERT_EQ(0, munlock(self->mem.va, 16 * PAGE));
	EXPECT_HELD(16, 32);
}

/* A child has an address space, and so an account, of its own. */
TEST_F(memlock, forked)
{
	pid_t pid;
	int status;

	ASSERT_EQ(0, dma_map(&self->c[0], IOVA(0), self->mem.va, 64 * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c[1], IOVA(0), self->mem.va, 32 * PAGE, RW));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* nothing is mapped in the third container, so it can be the child's */
		int bad = dma_map(&self->c[2], IOVA(0), self->mem.va, 64 * PAGE, RW) != 0;

		bad |= (locked_pages() != 64) << 1;
		bad |= (dma_map(&self->c[1], IOVA(99), self->mem.va, PAGE, RW) != -EPERM) << 2;
		bad |= (dma_unmap_all(&self->c[2]) != 64 * (__s64)PAGE) << 3;
		bad |= (locked_pages() != 0) << 4;
		_exit(bad);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status));
	EXPECT_HELD(64, 96);
}

/* Memory of a device is not charged, and needs none of the limit. */
TEST_F(memlock, device_memory)
{
	struct vfio_region_info info = {
		.argsz = sizeof(info),
		.index = VFIO_PCI_BAR2_REGION_INDEX,
	};
	const char *bdf = need_device(_metadata, ENV_BAR);
	__u8 *va = self->mem.va;
	int fd;

	if (!bdf)
		return;
	ASSERT_EQ(0, container_attach(&self->c[0], bdf));
	fd = container_device(&self->c[0], bdf);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, &info));
	ASSERT_LE(64 * PAGE, info.size);
	/* memory, memory of a device in the middle, and memory */
	ASSERT_EQ(va + 16 * PAGE, mmap(va + 16 * PAGE, 32 * PAGE, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_FIXED, fd, info.offset));

	ASSERT_EQ(0, drop_ipc_lock());
	ASSERT_EQ(0, set_limit(self->locked + 32));
	ASSERT_EQ(0, dma_map(&self->c[0], IOVA(0), va, 64 * PAGE, RW));
	EXPECT_HELD(32, 32);
	/* it is there when the pages of the first container are entered */
	ASSERT_EQ(0, dma_map(&self->c[1], IOVA(0), va, 64 * PAGE, RW));
	EXPECT_HELD(32, 64);
	ASSERT_EQ(0, dma_map(&self->c[2], IOVA(0), va + 16 * PAGE, 32 * PAGE, RW));
	for (int i = 0; i < 32; i++)
		ASSERT_EQ(0, dma_map(&self->c[2], IOVA(100 + 2 * i), va + (16 + i) * PAGE, PAGE,
				     RW));
	EXPECT_HELD(32, 64);
	EXPECT_EQ(-ENOMEM, dma_map(&self->c[2], IOVA(64), va + 47 * PAGE, 18 * PAGE, RW));
	EXPECT_HELD(32, 64);
	EXPECT_EQ(64 * (__s64)PAGE, dma_unmap_all(&self->c[0]));
	EXPECT_HELD(32, 32);
	EXPECT_EQ(64 * (__s64)PAGE, dma_unmap_all(&self->c[2]));
	EXPECT_EQ(64 * (__s64)PAGE, dma_unmap_all(&self->c[1]));
	EXPECT_HELD(0, 0);
	close(fd);
}

/*
 * exec() gives a process another address space, which holds nothing. Containers that are
 * still open have the memory of the one that is gone, until somebody takes them over.
 */
#define ENV_AFTER_EXEC	"TYPE1V3_AFTER_EXEC"	/* file descriptors, and what to do */

struct kept {
	int fd[NR], memory, update;
};

static int keep_over_exec(struct container *c, const struct kept *kept)
{
	char text[100];

	for (int i = 0; i < NR; i++) {
		fcntl(c[i].fd, F_SETFD, 0);
		for (int k = 0; k < c[i].ngroups; k++)
			fcntl(c[i].group[k].fd, F_SETFD, 0);
	}
	fcntl(kept->memory, F_SETFD, 0);
	snprintf(text, sizeof(text), "%d %d %d %d %d", kept->fd[0], kept->fd[1], kept->fd[2],
		 kept->memory, kept->update);
	return setenv(ENV_AFTER_EXEC, text, 1);
}

/* Returns bits for what has gone wrong. */
static int after_exec(const struct kept *kept)
{
	struct container c[NR];
	int bad = 0;
	__u8 *va;

	va = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, kept->memory, 0);
	bad |= va == MAP_FAILED || drop_ipc_lock() || set_limit(NPAGES);
	bad |= (locked_pages() != 0) << 1;
	for (int i = 0; i < NR; i++) {
		container_init(&c[i]);
		c[i].fd = kept->fd[i];
		bad |= (dma_map(&c[i], OTHER_IOVA, va, PAGE, RW) != -EPERM) << 2;
		if (kept->update)
			bad |= (vaddr_update(&c[i], IOVA(0), va, NPAGES * PAGE) != 0) << 3;
		else
			bad |= (dma_unmap_all(&c[i]) != NPAGES * (__s64)PAGE ||
				dma_map(&c[i], IOVA(0), va, NPAGES * PAGE, RW)) << 4;
		bad |= (locked_pages() != NPAGES) << 5;
	}
	bad |= (dma_map(&c[1], OTHER_IOVA, va + PAGE, PAGE, RW) != 0) << 6;
	for (int i = 0; i < NR; i++) {
		bad |= (locked_pages() != NPAGES) << 5;
		dma_unmap_all(&c[i]);
	}
	return bad | (locked_pages() != 0) << 7;
}

static void __attribute__((constructor)) is_after_exec(void)
{
	const char *text = getenv(ENV_AFTER_EXEC);
	struct kept kept;

	if (!text)
		return;
	if (sscanf(text, "%d %d %d %d %d", &kept.fd[0], &kept.fd[1], &kept.fd[2], &kept.memory,
		   &kept.update) != 5)
		_exit(1);
	_exit(after_exec(&kept));
}

TEST_F(memlock, exec)
{
	struct kept kept = { .memory = memfd_create("memory", MFD_CLOEXEC) };
	int status;
	pid_t pid;
	__u8 *va;

	ASSERT_LE(0, kept.memory);
	ASSERT_EQ(0, ftruncate(kept.memory, NPAGES * PAGE));
	va = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, kept.memory, 0);
	ASSERT_NE(MAP_FAILED, va);
	for (int i = 0; i < NR; i++)
		kept.fd[i] = self->c[i].fd;
	for (kept.update = 0; kept.update < 2; kept.update++) {
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			for (int i = 0; i < NR; i++) {
				if (dma_map(&self->c[i], IOVA(0), va, NPAGES * PAGE, RW))
					_exit(100 + i);
				if (kept.update &&
				    vaddr_invalidate(&self->c[i], 0, 0, VFIO_DMA_UNMAP_FLAG_ALL) !=
				    NPAGES * (__s64)PAGE)
					_exit(110 + i);
			}
			if (!keep_over_exec(self->c, &kept))
				execl("/proc/self/exe", "exec", NULL);
			_exit(120);
		}
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_TRUE(WIFEXITED(status));
		EXPECT_EQ(0, WEXITSTATUS(status)) TH_LOG("update %d", kept.update);
		EXPECT_HELD(0, 0);
	}
	munmap(va, NPAGES * PAGE);
	close(kept.memory);
}

#define THREADS		6
#define SHARED		64
#define ROUNDS		400

struct thread {
	pthread_t id;
	struct container *c;
	__u8 *va;
	__u64 iova, seed;
	int bad;
};

/* Map and unmap up to 4 of few pages, time and again */
static void *thread_main(void *arg)
{
	struct thread *t = arg;

	for (int round = 0; round < ROUNDS && !t->bad; round++) {
		const long first = prng(&t->seed) % (SHARED - 3);
		const long n = 1 + prng(&t->seed) % 4;

		if (dma_map(t->c, t->iova, t->va + first * PAGE, n * PAGE, RW))
			t->bad = 1;
		else if (dma_unmap(t->c, t->iova, n * PAGE) != n * (__s64)PAGE)
			t->bad = 2;
	}
	return NULL;
}

/* Threads in all containers, with the limit for each page once and for what is on its way */
TEST_F(memlock, threads)
{
	struct thread threads[THREADS] = {};

	ASSERT_EQ(0, drop_ipc_lock());
	ASSERT_EQ(0, set_limit(self->locked + SHARED + 4 * THREADS));
	for (int i = 0; i < THREADS; i++) {
		threads[i] = (struct thread) {
			.c = &self->c[i % NR], .va = self->mem.va,
			.iova = IOVA(100 * i), .seed = test_seed() + i,
		};
		ASSERT_EQ(0, pthread_create(&threads[i].id, NULL, thread_main, &threads[i]));
	}
	for (int i = 0; i < THREADS; i++) {
		ASSERT_EQ(0, pthread_join(threads[i].id, NULL));
		EXPECT_EQ(0, threads[i].bad);
	}
	EXPECT_HELD(0, 0);
}

/* Another process takes containers over, and is charged for what they share once. */
TEST_F(memlock, taken_over)
{
	int status, fd = memfd_create("memory", 0), sock[2];
	char word = 0;
	pid_t pid;
	__u8 *va;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, NPAGES * PAGE));
	va = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, va);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	for (int i = 0; i < NR; i++)
		ASSERT_EQ(0, dma_map(&self->c[i], IOVA(0), va, NPAGES * PAGE, RW));
	EXPECT_HELD(NPAGES, NR * NPAGES);
	for (int i = 0; i < NR; i++)
		ASSERT_EQ(NPAGES * (__s64)PAGE,
			  vaddr_invalidate(&self->c[i], 0, 0, VFIO_DMA_UNMAP_FLAG_ALL));

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int bad = drop_ipc_lock() != 0;

		/* a page less than is needed, and then just enough */
		bad |= set_limit(NPAGES - 1) != 0;
		bad |= (vaddr_update(&self->c[0], IOVA(0), va, NPAGES * PAGE) != -ENOMEM) << 1;
		bad |= (locked_pages() != 0) << 2;
		bad |= set_limit(NPAGES) != 0;
		for (int i = 0; i < NR; i++) {
			bad |= (vaddr_update(&self->c[i], IOVA(0), va,
					     NPAGES * PAGE) != 0) << 3;
			bad |= (locked_pages() != NPAGES) << 4;
		}
		bad |= (dma_unmap_all(&self->c[1]) != NPAGES * (__s64)PAGE) << 5;
		bad |= (locked_pages() != NPAGES) << 6;
		if (write(sock[1], &word, 1) != 1 || read(sock[1], &word, 1) != 1)
			bad = 1;
		for (int i = 0; i < NR; i++)
			dma_unmap_all(&self->c[i]);
		bad |= (locked_pages() != 0) << 7;
		_exit(bad);
	}
	ASSERT_EQ(1, read(sock[0], &word, 1));
	EXPECT_HELD(0, 2 * NPAGES);
	ASSERT_EQ(1, write(sock[0], &word, 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status));
	EXPECT_HELD(0, 0);
	munmap(va, NPAGES * PAGE);
	close(fd);
}

#define MOVES		300

/* Become the owner of a container again and again; 1 if that was not to be had once */
static void *move_main(void *arg)
{
	int ret, done = 0, in_vain = 0;
	struct thread *t = arg;

	while (done < MOVES) {
		/*
		 * The other process may have done the first or both. And what it takes
		 * away is known no longer here a moment before the charge ends.
		 */
		vaddr_invalidate(t->c, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL);
		ret = vaddr_update(t->c, t->iova, t->va, SHARED * PAGE);
		in_vain = ret == -ENOMEM ? in_vain + 1 : 0;
		if (in_vain > 100000 || (ret && ret != -EINVAL && ret != -ENOMEM)) {
			t->bad = ret;
			break;
		}
		done += !ret;
	}
	return NULL;
}

/* Threads that take two containers over, each from the other process */
static int move_all(struct container *c, __u8 *va)
{
	struct thread threads[2] = {};
	int bad = 0;

	for (int i = 0; i < 2; i++) {
		threads[i] = (struct thread) { .c = &c[i], .va = va, .iova = IOVA(0) };
		if (pthread_create(&threads[i].id, NULL, move_main, &threads[i]))
			return 1;
	}
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i].id, NULL);
		bad |= threads[i].bad != 0;
	}
	return bad;
}

/* Two processes take the same containers over, at the same time. */
TEST_F(memlock, moved_at_once)
{
	int fd = memfd_create("memory", MFD_CLOEXEC), status, sock[2];
	char word = 0;
	pid_t pid;
	__u8 *va;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, SHARED * PAGE));
	va = mmap(NULL, SHARED * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, va);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	for (int i = 0; i < 2; i++)
		ASSERT_EQ(0, dma_map(&self->c[i], IOVA(0), va, SHARED * PAGE, RW));
	/* so that this process has a ledger all the time */
	ASSERT_EQ(0, dma_map(&self->c[2], IOVA(0), va, PAGE, RW));

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int bad;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* what it holds, with nobody else at work, is charged exactly, and once */
		bad = drop_ipc_lock() || set_limit(SHARED) || move_all(self->c, va);
		if (write(sock[1], &word, 1) != 1 || read(sock[1], &word, 1) != 1)
			bad |= 2;
		bad |= (locked_pages() != 0) << 2;
		_exit(bad);
	}
	EXPECT_EQ(0, move_all(self->c, va));
	ASSERT_EQ(1, read(sock[0], &word, 1));
	for (int i = 0; i < 2; i++) {
		vaddr_invalidate(&self->c[i], 0, 0, VFIO_DMA_UNMAP_FLAG_ALL);
		EXPECT_EQ(0, vaddr_update(&self->c[i], IOVA(0), va, SHARED * PAGE));
	}
	EXPECT_HELD(SHARED, 2 * SHARED + 1);
	ASSERT_EQ(1, write(sock[0], &word, 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status));
	for (int i = 0; i < NR; i++)
		EXPECT_LT(0, dma_unmap_all(&self->c[i]));
	EXPECT_HELD(0, 0);
	munmap(va, SHARED * PAGE);
	close(fd);
}

TEST_HARNESS_MAIN
