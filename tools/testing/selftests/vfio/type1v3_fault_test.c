// SPDX-License-Identifier: GPL-2.0-only
/*
 * Devices whose misses wait for a page: programs that map on fault, with nothing but the
 * container's own calls, and programs that do not. Needs the module vfio_mock_iommu, and a
 * kernel with CONFIG_IOMMU_IOPF.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "type1v3_harness.h"
#include "type1v3_mock.h"

#define NPAGES		256UL
#define SIZE		(NPAGES * PAGE)

#define SUCCESS		VFIO_MOCK_RESPONSE_SUCCESS
#define INVALID		VFIO_MOCK_RESPONSE_INVALID
#define FAILURE		VFIO_MOCK_RESPONSE_FAILURE

#define READ		VFIO_MOCK_LEAF_READ
#define WRITE		VFIO_MOCK_LEAF_WRITE

/* Two devices behind an IOMMU, the first one in a container */
FIXTURE(fault) {
	struct container c;
	struct mock m;
	struct mem mem;
	int dev, fd;
	bool was_unsafe;
	long pinned;
};

FIXTURE_VARIANT(fault) { unsigned long type; __u32 flags; };

FIXTURE_VARIANT_ADD(fault, type1v2) { VFIO_TYPE1v2_IOMMU, 0 };
FIXTURE_VARIANT_ADD(fault, type1v3) { VFIO_TYPE1v3_IOMMU, 0 };
FIXTURE_VARIANT_ADD(fault, type1v3_dirty) { VFIO_TYPE1v3_IOMMU, VFIO_MOCK_IOMMU_DIRTY };
FIXTURE_VARIANT_ADD(fault, type1v3_pt) { VFIO_TYPE1v3_PT_IOMMU, 0 };

FIXTURE_SETUP(fault)
{
	struct vfio_mock_iommu_create config = {
		.pgsizes = PAGE | 2 * MIB,
		.flags = variant->flags | VFIO_MOCK_IOMMU_FAULTS,
		.nr_devices = 2,
	};
	int ret;

	container_init(&self->c);
	mock_init(&self->m);
	self->dev = -1;
	self->fd = -1;
	self->was_unsafe = mock_allow_unsafe(true);
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_SHARED, SIZE));
	pattern_fill(self->mem.va, SIZE, 0);
	self->pinned = pinned_pages();
	ret = mock_create(&self->m, &config);
	if (ret == -EOPNOTSUPP)
		SKIP(return, "the kernel is built without page requests");
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->m.name[0]));
	self->dev = container_device(&self->c, self->m.name[0]);
	ASSERT_LE(0, self->dev);
	self->fd = mock_faults(self->dev);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(fault)
{
	struct vfio_mock_iommu_state state;

	if (self->dev >= 0)
		close(self->dev);
	if (self->fd >= 0)
		close(self->fd);
	container_close(&self->c);
	if (self->m.fd >= 0) {
		state = mock_state(&self->m);
		EXPECT_EQ(0, state.errors);
		EXPECT_EQ(0, state.leaves);
		EXPECT_EQ(0, state.domains);
		EXPECT_EQ(self->pinned, pinned_pages());
	}
	mock_destroy(&self->m);
	mock_allow_unsafe(self->was_unsafe);
	mem_free(&self->mem);
}

static __u64 iova_of(unsigned long page) { return TEST_IOVA + page * PAGE; }

static int map_page(struct container *c, struct mem *mem, __u64 iova, __u32 flags)
{
	return dma_map(c, iova, mem->va + (iova - TEST_IOVA), PAGE, flags);
}

/* Answers what a device asks, in a thread of its own, until it is closed. */
struct server {
	pthread_t thread;
	int fd;
	struct container *c;
	struct mem *mem;
	int code;		/* all answers; what is not SUCCESS maps nothing */
	int maps_at;		/* the request that is mapped; earlier ones find nothing */
	int asked, wrong;	/* requests; those of what the device does not use */
	int writes;		/* requests that are to write */
};

static void *serve(void *arg)
{
	struct server *s = arg;
	struct vfio_mock_fault f;
	int ret = 0;

	while (mock_fault(s->fd, &f) > 0) {
		s->asked++;
		s->writes += f.prot == WRITE;
		s->wrong += f.iova % PAGE || f.iova < TEST_IOVA || f.iova >= iova_of(NPAGES);
		if (s->code == SUCCESS && s->asked >= s->maps_at) {
			/* the page may be there, and not be enough */
			if (f.prot == WRITE)
				s->wrong += dma_unmap(s->c, f.iova, PAGE) < 0;
			ret = map_page(s->c, s->mem, f.iova, f.prot == WRITE ? RW : RO);
		}
		s->wrong += ret || mock_answer(s->fd, f.id, s->code);
	}
	return NULL;
}

/* The container tells nobody of a miss, and the program need not map ahead. */
TEST_F(fault, map)
{
	struct server s = { .fd = self->fd, .c = &self->c, .mem = &self->mem };
	__u64 value, got;

	ASSERT_EQ(0, pthread_create(&s.thread, NULL, serve, &s));
	for (unsigned long i = 0; i < NPAGES; i += 3) {
		ASSERT_EQ(0, mock_read(self->dev, iova_of(i) + 8, &got, sizeof(got)));
		ASSERT_EQ(0, memcmp(&got, self->mem.va + i * PAGE + 8, sizeof(got)));
	}
	EXPECT_EQ((NPAGES + 2) / 3, s.asked);
	EXPECT_EQ((NPAGES + 2) / 3, mock_state(&self->m).leaves);

	/* what is mapped is not asked for; what it does not allow is */
	for (unsigned long i = 0; i < NPAGES; i += 3)
		ASSERT_EQ(0, mock_read(self->dev, iova_of(i), &got, sizeof(got)));
	EXPECT_EQ((NPAGES + 2) / 3, s.asked);
	value = 0x5a5a5a5a;
	ASSERT_EQ(0, mock_write(self->dev, iova_of(6), &value, sizeof(value)));
	EXPECT_EQ((NPAGES + 2) / 3 + 1, s.asked);
	EXPECT_EQ(1, s.writes);
	EXPECT_EQ(0, memcmp(&value, self->mem.va + 6 * PAGE, sizeof(value)));

	/* what is unmapped is asked for again */
	ASSERT_EQ(PAGE, dma_unmap(&self->c, iova_of(9), PAGE));
	ASSERT_EQ(0, mock_read(self->dev, iova_of(9), &got, sizeof(got)));
	EXPECT_EQ((NPAGES + 2) / 3 + 2, s.asked);

	close(self->dev);
	self->dev = -1;
	pthread_join(s.thread, NULL);
	EXPECT_EQ(0, s.wrong);
}

/* One access of many pages, some of which are there */
TEST_F(fault, across)
{
	struct server s = { .fd = self->fd, .c = &self->c, .mem = &self->mem };
	struct mem data;

	ASSERT_EQ(0, mem_alloc(&data, MEM_4K, SIZE));
	for (unsigned long i = 0; i < NPAGES; i += 5)
		ASSERT_EQ(0, map_page(&self->c, &self->mem, iova_of(i), RW));
	ASSERT_EQ(0, pthread_create(&s.thread, NULL, serve, &s));
	EXPECT_EQ(0, mock_read(self->dev, TEST_IOVA, data.va, SIZE));
	EXPECT_EQ(0, memcmp(data.va, self->mem.va, SIZE));
	EXPECT_EQ(NPAGES - (NPAGES + 4) / 5, s.asked);
	close(self->dev);
	self->dev = -1;
	pthread_join(s.thread, NULL);
	EXPECT_EQ(0, s.wrong);
	mem_free(&data);
}

/* An answer that is no: the access ends where the page is missing. */
TEST_F(fault, refused)
{
	struct server s = { .fd = self->fd };
	__u8 data[2 * PAGE];

	ASSERT_EQ(0, map_page(&self->c, &self->mem, iova_of(0), RO));
	s.code = INVALID;
	ASSERT_EQ(0, pthread_create(&s.thread, NULL, serve, &s));
	EXPECT_EQ(-1, pread(self->dev, data, 8, iova_of(1)));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(1, s.asked);
	EXPECT_EQ(PAGE, pread(self->dev, data, 2 * PAGE, iova_of(0)));
	EXPECT_EQ(0, memcmp(data, self->mem.va, PAGE));
	EXPECT_EQ(2, s.asked);
	EXPECT_EQ(0, s.writes);
	EXPECT_EQ(-1, pwrite(self->dev, data, 8, iova_of(0)));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(1, s.writes);
	s.code = FAILURE;
	EXPECT_EQ(-1, pread(self->dev, data, 8, iova_of(1)));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(4, s.asked);
	EXPECT_EQ(1, mock_state(&self->m).leaves);
	close(self->dev);
	self->dev = -1;
	pthread_join(s.thread, NULL);
	EXPECT_EQ(0, s.wrong);
}

/* Success that maps nothing does not let the access through: it asks again. */
TEST_F(fault, again)
{
	struct server s = { .fd = self->fd, .c = &self->c, .mem = &self->mem, .maps_at = 7 };
	__u64 got;

	ASSERT_EQ(0, pthread_create(&s.thread, NULL, serve, &s));
	ASSERT_EQ(0, mock_read(self->dev, iova_of(1), &got, sizeof(got)));
	EXPECT_EQ(7, s.asked);
	EXPECT_EQ(0, memcmp(&got, self->mem.va + PAGE, sizeof(got)));
	close(self->dev);
	self->dev = -1;
	pthread_join(s.thread, NULL);
	EXPECT_EQ(0, s.wrong);
}

/* One access in a process of its own, which has the device, and not @fd */
static pid_t reader(int dev, int fd, __u64 iova)
{
	pid_t pid = fork();
	__u64 got;

	if (pid)
		return pid;
	close(fd);
	_exit(mock_read(dev, iova, &got, sizeof(got)) ? 1 : 0);
}

static bool hung_up(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1 && p.revents & POLLHUP;
}

/*
 * The device is closed while an access waits: the process that has it open is killed.
 * Nothing waits any more, and device, group and container are as good as new.
 */
TEST_F(fault, closed)
{
	struct vfio_mock_fault f[2];
	__u64 got;
	pid_t pid;
	int fd;

	pid = reader(self->dev, self->fd, iova_of(3));
	ASSERT_LT(0, pid);
	close(self->dev);
	/* one request has been read, the other not */
	ASSERT_EQ(1, mock_fault(self->fd, &f[0]));
	EXPECT_EQ(iova_of(3), f[0].iova);
	EXPECT_EQ(READ, f[0].prot);
	EXPECT_FALSE(hung_up(self->fd));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	EXPECT_EQ(0, mock_fault(self->fd, &f[1]));
	EXPECT_TRUE(hung_up(self->fd));
	EXPECT_EQ(-ENOENT, mock_answer(self->fd, f[0].id, SUCCESS));

	/* the container still has the group, and the device its translations */
	self->dev = container_device(&self->c, self->m.name[0]);
	ASSERT_LE(0, self->dev);
	EXPECT_EQ(-ENXIO, mock_read(self->dev, iova_of(3), &got, sizeof(got)));
	ASSERT_EQ(0, map_page(&self->c, &self->mem, iova_of(3), RW));
	EXPECT_EQ(0, mock_read(self->dev, iova_of(3), &got, sizeof(got)));
	EXPECT_EQ(0, memcmp(&got, self->mem.va + 3 * PAGE, sizeof(got)));
	fd = mock_faults(self->dev);
	ASSERT_LE(0, fd);
	close(fd);
	close(self->dev);
	self->dev = -1;

	/* and the group can go, and come back */
	ASSERT_EQ(0, container_attach(&self->c, self->m.name[1]));
	ASSERT_EQ(0, container_detach(&self->c, self->m.name[0]));
	ASSERT_EQ(0, container_attach(&self->c, self->m.name[0]));
	self->dev = container_device(&self->c, self->m.name[0]);
	ASSERT_LE(0, self->dev);
	EXPECT_EQ(0, mock_read(self->dev, iova_of(3), &got, sizeof(got)));
}

/* The device is closed with requests that nobody has read. */
TEST_F(fault, closed_unread)
{
	struct pollfd p = { .fd = self->fd, .events = POLLIN };
	struct vfio_mock_fault f;
	pid_t pid[3];

	for (int i = 0; i < 3; i++) {
		pid[i] = reader(self->dev, self->fd, iova_of(i));
		ASSERT_LT(0, pid[i]);
	}
	close(self->dev);
	self->dev = -1;
	ASSERT_EQ(1, poll(&p, 1, -1));
	for (int i = 0; i < 3; i++) {
		ASSERT_EQ(0, kill(pid[i], SIGKILL));
		ASSERT_EQ(pid[i], waitpid(pid[i], NULL, 0));
	}
	EXPECT_EQ(0, mock_fault(self->fd, &f));
}

/* Nobody answers any more: what waits fails, and so does what misses afterwards. */
TEST_F(fault, unanswered)
{
	struct vfio_mock_fault f;
	__u64 got;
	int status;
	pid_t pid;

	pid = reader(self->dev, self->fd, iova_of(3));
	ASSERT_LT(0, pid);
	ASSERT_EQ(1, mock_fault(self->fd, &f));
	EXPECT_EQ(-EBUSY, mock_faults(self->dev));
	close(self->fd);
	self->fd = -1;
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(1, WEXITSTATUS(status));
	EXPECT_EQ(-ENXIO, mock_read(self->dev, iova_of(3), &got, sizeof(got)));

	/* somebody else answers */
	self->fd = mock_faults(self->dev);
	ASSERT_LE(0, self->fd);
	pid = reader(self->dev, self->fd, iova_of(4));
	ASSERT_LT(0, pid);
	ASSERT_EQ(1, mock_fault(self->fd, &f));
	EXPECT_EQ(iova_of(4), f.iova);
	ASSERT_EQ(0, map_page(&self->c, &self->mem, f.iova, RW));
	EXPECT_EQ(-ENOENT, mock_answer(self->fd, f.id + 1, SUCCESS));
	EXPECT_EQ(-EINVAL, mock_answer(self->fd, f.id, FAILURE + 1));
	EXPECT_EQ(0, mock_answer(self->fd, f.id, SUCCESS));
	EXPECT_EQ(-ENOENT, mock_answer(self->fd, f.id, SUCCESS));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status));
}

/* Two devices of one domain: each has its own requests, and one mapping serves both. */
TEST_F(fault, two)
{
	struct vfio_mock_fault f[2];
	int fd, dev, status;
	pid_t pid[2];

	ASSERT_EQ(0, container_attach(&self->c, self->m.name[1]));
	EXPECT_EQ(1, mock_state(&self->m).domains);
	dev = container_device(&self->c, self->m.name[1]);
	ASSERT_LE(0, dev);
	fd = mock_faults(dev);
	ASSERT_LE(0, fd);
	pid[0] = reader(self->dev, self->fd, iova_of(1));
	ASSERT_LT(0, pid[0]);
	pid[1] = reader(dev, fd, iova_of(2));
	ASSERT_LT(0, pid[1]);
	ASSERT_EQ(1, mock_fault(fd, &f[1]));
	ASSERT_EQ(1, mock_fault(self->fd, &f[0]));
	EXPECT_EQ(iova_of(1), f[0].iova);
	EXPECT_EQ(iova_of(2), f[1].iova);
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, SIZE, RW));
	EXPECT_EQ(0, mock_answer(fd, f[1].id, SUCCESS));
	EXPECT_EQ(0, mock_answer(self->fd, f[0].id, SUCCESS));
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(pid[i], waitpid(pid[i], &status, 0));
		EXPECT_TRUE(WIFEXITED(status) && !WEXITSTATUS(status));
	}
	close(dev);
	close(fd);
}

/* An IOMMU whose devices make no requests */
TEST_F(fault, none)
{
	struct vfio_mock_iommu_create config = { .pgsizes = PAGE };
	struct container c;
	struct mock m;
	__u64 got;
	int dev;

	ASSERT_EQ(0, mock_create(&m, &config));
	ASSERT_EQ(0, container_open(&c, variant->type, m.name[0]));
	dev = container_device(&c, m.name[0]);
	ASSERT_LE(0, dev);
	EXPECT_EQ(-EOPNOTSUPP, mock_faults(dev));
	EXPECT_EQ(-ENXIO, mock_read(dev, TEST_IOVA, &got, sizeof(got)));
	close(dev);
	container_close(&c);
	mock_destroy(&m);
}

/*
 * Several threads do DMA, several map on fault, and one unmaps all the time
 */

#define NR_DMA		4
#define NR_SERVERS	2
#define NR_ROUNDS	8

struct pager {
	int fd;
	struct container *c;
	struct mem *mem;
	int asked, wrong;
	bool *stop;
	__u64 seed;
};

/* A page that another one has mapped is there. */
static void *pager(void *arg)
{
	struct pager *p = arg;
	struct vfio_mock_fault f;
	int ret;

	while (mock_fault(p->fd, &f) > 0) {
		__atomic_fetch_add(&p->asked, 1, __ATOMIC_RELAXED);
		ret = map_page(p->c, p->mem, f.iova, RW);
		p->wrong += ret && ret != -EEXIST;
		p->wrong += mock_answer(p->fd, f.id, SUCCESS) != 0;
	}
	return NULL;
}

static void *evictor(void *arg)
{
	struct pager *p = arg;
	__s64 ret;

	while (!__atomic_load_n(p->stop, __ATOMIC_RELAXED)) {
		ret = dma_unmap(p->c, iova_of(prng(&p->seed) % NPAGES), PAGE);
		p->wrong += ret != 0 && ret != PAGE;
	}
	return NULL;
}

struct writer {
	pthread_t thread;
	int dev, nr, failed;
	__u64 seed;
};

static __u64 value_of(int nr, int round, unsigned long page)
{
	return (__u64)nr << 48 | (__u64)round << 32 | page;
}

/* Each has one word of each page, in an order of its own; it is what it last wrote. */
static void *writer(void *arg)
{
	struct writer *w = arg;
	unsigned long first, page;
	__u64 value, got, iova;

	for (int round = 0; round < NR_ROUNDS; round++) {
		first = prng(&w->seed) % NPAGES;
		for (unsigned long i = 0; i < NPAGES; i++) {
			page = (first + i * (2 * w->nr + 1)) % NPAGES;
			iova = iova_of(page) + w->nr * sizeof(value);
			if (round) {
				w->failed += mock_read(w->dev, iova, &got, sizeof(got)) != 0;
				w->failed += got != value_of(w->nr, round - 1, page);
			}
			value = value_of(w->nr, round, page);
			w->failed += mock_write(w->dev, iova, &value, sizeof(value)) != 0;
		}
	}
	return NULL;
}

TEST_F(fault, threads)
{
	pthread_t servers[NR_SERVERS], evicts;
	struct writer w[NR_DMA] = {};
	struct pager p = { .fd = self->fd, .c = &self->c, .mem = &self->mem };
	struct pager e = { .c = &self->c };
	bool stop = false;
	__u64 got;

	e.stop = &stop;
	e.seed = test_seed();
	for (int i = 0; i < NR_SERVERS; i++)
		ASSERT_EQ(0, pthread_create(&servers[i], NULL, pager, &p));
	ASSERT_EQ(0, pthread_create(&evicts, NULL, evictor, &e));
	for (int i = 0; i < NR_DMA; i++) {
		w[i].dev = self->dev;
		w[i].nr = i;
		w[i].seed = test_seed() + i;
		ASSERT_EQ(0, pthread_create(&w[i].thread, NULL, writer, &w[i]));
	}
	for (int i = 0; i < NR_DMA; i++) {
		pthread_join(w[i].thread, NULL);
		EXPECT_EQ(0, w[i].failed);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(evicts, NULL);
	close(self->dev);
	self->dev = -1;
	for (int i = 0; i < NR_SERVERS; i++)
		pthread_join(servers[i], NULL);
	EXPECT_LE(NPAGES, p.asked);
	EXPECT_EQ(0, p.wrong);
	EXPECT_EQ(0, e.wrong);
	for (int i = 0; i < NR_DMA; i++)
		for (unsigned long page = 0; page < NPAGES; page++) {
			memcpy(&got, self->mem.va + page * PAGE + i * sizeof(got), sizeof(got));
			ASSERT_EQ(value_of(i, NR_ROUNDS - 1, page), got);
		}
}

TEST_HARNESS_MAIN
