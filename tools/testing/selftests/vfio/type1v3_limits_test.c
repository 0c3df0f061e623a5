// SPDX-License-Identifier: GPL-2.0-only
/*
 * Locked memory of a type1v3 container: charged to the page, refused to the
 * page, and given back; with type1v2 as the control. And what bounds everything
 * else: the memory cgroup, and signals.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "type1v3_harness.h"
#include "type1v3_emulated.h"
#include "type1v3_mock.h"

FIXTURE(limits) {
	const char *bdf;
	struct container c;
	struct mem mem;
	long locked, pinned;
};

FIXTURE_VARIANT(limits) {
	unsigned long type;
};

ADD_TYPES(limits);

FIXTURE_SETUP(limits)
{
	container_init(&self->c);
	self->bdf = need_device(_metadata, ENV_NVME);
	if (!self->bdf)
		return;
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->bdf));
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, 8 * MIB));
	self->locked = locked_pages();
	self->pinned = pinned_pages();
	ASSERT_LE(0, self->locked);
	ASSERT_LE(0, self->pinned);
}

FIXTURE_TEARDOWN(limits)
{
	container_close(&self->c);
	mem_free(&self->mem);
}

#define EXPECT_LOCKED(npages) do { \
	long _npages = (npages); \
	EXPECT_EQ(_npages, locked_pages() - self->locked); \
	EXPECT_EQ(_npages, pinned_pages() - self->pinned); \
} while (0)

static int set_limit(long npages)
{
	struct rlimit limit = { npages * PAGE, npages * PAGE };

	return setrlimit(RLIMIT_MEMLOCK, &limit) ? -errno : 0;
}

TEST_F(limits, exact)
{
	const long limit = 1024;
	struct container *c = &self->c;
	__u8 *va = self->mem.va;

	ASSERT_EQ(0, drop_ipc_lock());
	ASSERT_EQ(0, set_limit(self->locked + limit));

	/* in one call */
	EXPECT_EQ(-ENOMEM, dma_map(c, TEST_IOVA, va, (limit + 1) * PAGE, RW));
	EXPECT_LOCKED(0);
	EXPECT_EQ(0, dma_map(c, TEST_IOVA, va, limit * PAGE, RW));
	EXPECT_LOCKED(limit);
	EXPECT_EQ(-ENOMEM, dma_map(c, OTHER_IOVA, va, PAGE, RW));
	EXPECT_LOCKED(limit);
	EXPECT_EQ(limit * PAGE, dma_unmap(c, TEST_IOVA, limit * PAGE));
	EXPECT_LOCKED(0);

	/* page by page, and the same page again counts again */
	for (long i = 0; i < limit; i++) {
		ASSERT_EQ(0, dma_map(c, TEST_IOVA + i * PAGE,
				     va + i % 512 * PAGE, PAGE, RW));
	}
	EXPECT_LOCKED(limit);
	EXPECT_EQ(-ENOMEM, dma_map(c, OTHER_IOVA, va, PAGE, RW));
	EXPECT_EQ(PAGE, dma_unmap(c, TEST_IOVA + 7 * PAGE, PAGE));
	EXPECT_EQ(-ENOMEM, dma_map(c, OTHER_IOVA, va, 2 * PAGE, RW));
	EXPECT_EQ(0, dma_map(c, OTHER_IOVA, va, PAGE, RW));
	EXPECT_EQ(-ENOMEM, dma_map(c, TEST_IOVA + 7 * PAGE, va, PAGE, RW));
	EXPECT_LOCKED(limit);

	/* what is refused for another reason is not charged */
	EXPECT_EQ(PAGE, dma_unmap(c, OTHER_IOVA, PAGE));
	EXPECT_EQ(-EEXIST, dma_map(c, TEST_IOVA, va, PAGE, RW));
	EXPECT_EQ(-EFAULT, dma_map(c, OTHER_IOVA, NULL, PAGE, RW));
	EXPECT_LOCKED(limit - 1);
	EXPECT_EQ((limit - 1) * PAGE, dma_unmap_all(c));
	EXPECT_LOCKED(0);
}

/* A limit below what is locked stops MAP, not UNMAP. */
TEST_F(limits, lowered)
{
	struct container *c = &self->c;

	ASSERT_EQ(0, drop_ipc_lock());
	ASSERT_EQ(0, set_limit(self->locked + 64));
	ASSERT_EQ(0, dma_map(c, TEST_IOVA, self->mem.va, 32 * PAGE, RW));
	ASSERT_EQ(0, dma_map(c, OTHER_IOVA, self->mem.va, 32 * PAGE, RW));
	ASSERT_EQ(0, set_limit(0));
	EXPECT_EQ(-ENOMEM, dma_map(c, TEST_IOVA + MIB, self->mem.va, PAGE, RW));
	EXPECT_EQ(32 * PAGE, dma_unmap(c, TEST_IOVA, 32 * PAGE));
	EXPECT_EQ(-ENOMEM, dma_map(c, TEST_IOVA, self->mem.va, PAGE, RW));
	EXPECT_LOCKED(32);
	EXPECT_EQ(32 * PAGE, dma_unmap_all(c));
	EXPECT_LOCKED(0);
}

/* CAP_IPC_LOCK exempts from the limit, not from being counted. */
TEST_F(limits, exempt)
{
	struct container *c = &self->c;

	ASSERT_EQ(0, set_limit(0));
	EXPECT_EQ(0, dma_map(c, TEST_IOVA, self->mem.va, 4 * MIB, RW));
	EXPECT_LOCKED(1024);
	/* and whoever loses it keeps what there is */
	ASSERT_EQ(0, drop_ipc_lock());
	EXPECT_EQ(4 * MIB, dma_unmap(c, TEST_IOVA, 4 * MIB));
	EXPECT_LOCKED(0);
	EXPECT_EQ(-ENOMEM, dma_map(c, TEST_IOVA, self->mem.va, PAGE, RW));
	EXPECT_LOCKED(0);
}

/* Whoever drops it while something is mapped has a limit from then on. */
TEST_F(limits, dropped)
{
	struct container *c = &self->c;
	__u8 *va = self->mem.va;

	ASSERT_EQ(0, set_limit(self->locked + 4));
	for (long i = 0; i < 8; i++)
		ASSERT_EQ(0, dma_map(c, TEST_IOVA + i * PAGE, va, PAGE, RW));
	EXPECT_LOCKED(8);
	ASSERT_EQ(0, drop_ipc_lock());
	EXPECT_EQ(-ENOMEM, dma_map(c, OTHER_IOVA, va, PAGE, RW));
	EXPECT_EQ(-ENOMEM, dma_map(c, OTHER_IOVA, va, MIB, RW));
	EXPECT_LOCKED(8);
	EXPECT_EQ(5 * PAGE, dma_unmap(c, TEST_IOVA, 5 * PAGE));
	EXPECT_EQ(-ENOMEM, dma_map(c, OTHER_IOVA, va, 2 * PAGE, RW));
	EXPECT_EQ(0, dma_map(c, OTHER_IOVA, va, PAGE, RW));
	EXPECT_EQ(-ENOMEM, dma_map(c, TEST_IOVA, va, PAGE, RW));
	EXPECT_LOCKED(4);
}

/* mlock() and the container fill the same account. */
TEST_F(limits, shared_with_mlock)
{
	struct container *c = &self->c;
	__u8 *va = self->mem.va;

	ASSERT_EQ(0, drop_ipc_lock());
	ASSERT_EQ(0, set_limit(self->locked + 64));
	ASSERT_EQ(0, mlock(va, 40 * PAGE));
	EXPECT_EQ(-ENOMEM, dma_map(c, TEST_IOVA, va + MIB, 25 * PAGE, RW));
	EXPECT_EQ(0, dma_map(c, TEST_IOVA, va + MIB, 24 * PAGE, RW));
	EXPECT_EQ(64, locked_pages() - self->locked);
	EXPECT_EQ(-1, mlock(va + 2 * MIB, PAGE));
	ASSERT_EQ(0, munlock(va, 40 * PAGE));
	EXPECT_EQ(0, dma_map(c, OTHER_IOVA, va, 40 * PAGE, RW));
	EXPECT_LOCKED(64);
	EXPECT_EQ(64 * PAGE, dma_unmap_all(c));
	EXPECT_LOCKED(0);
}

/* Whoever unmaps, it is the owner's account that is credited. */
TEST_F(limits, unmapped_by_another)
{
	struct container *c = &self->c;
	int status;
	pid_t pid;

	ASSERT_EQ(0, dma_map(c, TEST_IOVA, self->mem.va, MIB, RW));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		bool ok = dma_unmap(c, TEST_IOVA, MIB) == MIB;

		_exit(!ok || locked_pages());
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_LOCKED(0);
}

/*
 * Mappings of a process that is gone stay until they are unmapped, and nobody
 * else pays for them.
 */
TEST_F(limits, owner_gone)
{
	struct container *c = &self->c;
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(dma_map(c, TEST_IOVA, self->mem.va, MIB, RW) != 0);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	EXPECT_EQ(0, locked_pages() - self->locked);
	EXPECT_EQ(256, pinned_pages() - self->pinned);
	EXPECT_EQ(is_v3(variant->type) ? -EPERM : 0,
		  dma_map(c, OTHER_IOVA, self->mem.va, PAGE, RW));
	EXPECT_EQ(MIB, dma_unmap(c, TEST_IOVA, MIB));
	EXPECT_EQ(is_v3(variant->type) ? 0 : PAGE, dma_unmap_all(c));
	EXPECT_LOCKED(0);
	EXPECT_EQ(0, dma_map(c, OTHER_IOVA, self->mem.va, PAGE, RW));
	EXPECT_LOCKED(1);
}

/* Huge pages count as the small ones they are made of. */
TEST_F(limits, huge)
{
	struct container *c = &self->c;
	struct mem m;

	if (!need_mem(_metadata, &m, MEM_2M, 4 * MIB))
		return;
	ASSERT_EQ(0, drop_ipc_lock());
	ASSERT_EQ(0, set_limit(self->locked + 1023));
	EXPECT_EQ(-ENOMEM, dma_map(c, TEST_IOVA, m.va, 4 * MIB, RW));
	EXPECT_LOCKED(0);
	EXPECT_EQ(0, dma_map(c, TEST_IOVA, m.va, 2 * MIB, RW));
	EXPECT_LOCKED(512);
	/* a part of a huge page may be mapped */
	EXPECT_EQ(0, dma_map(c, OTHER_IOVA, m.va + 2 * MIB, 511 * PAGE, RW));
	EXPECT_LOCKED(1023);
	EXPECT_EQ(4 * MIB - PAGE, dma_unmap_all(c));
	EXPECT_LOCKED(0);
	mem_free(&m);
}

/* Pages cut out of a mapping are credited at once, to the page. */
TEST_F(limits, cut)
{
	struct container *c = &self->c;
	long held = 1024;

	ASSERT_EQ(0, dma_map(c, TEST_IOVA, self->mem.va, 1024 * PAGE, RW));
	for (long i = 0; i < 1024; i += 100) {
		bool v3 = is_v3(variant->type);
		long n = i + 3 > 1024 ? 1024 - i : 3;

		EXPECT_EQ(v3 ? n * (__s64)PAGE : -EINVAL,
			  dma_unmap(c, TEST_IOVA + i * PAGE, 3 * PAGE));
		held -= v3 ? n : 0;
		EXPECT_LOCKED(held);
	}
	EXPECT_EQ(held * PAGE, dma_unmap_all(c));
	EXPECT_LOCKED(0);
}

/*
 * Two containers of the process hold the same memory, whatever their records are: it is
 * charged once, and for as long as one of them holds it. type1v2 charges each.
 */
TEST_F(limits, two_containers)
{
	const unsigned long types[] = {
		variant->type, is_v3(variant->type) ? VFIO_TYPE1v3_IOMMU : variant->type,
	};
	const bool v3 = is_v3(variant->type);
	const char *bdf = need_device(_metadata, ENV_NVME2);
	struct container *c = &self->c, other;
	__u8 *va = self->mem.va;

	if (!bdf)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		ASSERT_EQ(0, container_open(&other, types[i], bdf));
		/* pages 0..511 in one, 88..599 and once more 100..187 in the other */
		ASSERT_EQ(0, dma_map(c, TEST_IOVA, va, 512 * PAGE, RW));
		ASSERT_EQ(0, dma_map(&other, TEST_IOVA + 7 * PAGE, va + 88 * PAGE, 512 * PAGE,
				     RW));
		ASSERT_EQ(0, dma_map(&other, OTHER_IOVA, va + 100 * PAGE, 88 * PAGE, RO));
		EXPECT_EQ(v3 ? 600 : 1112, locked_pages() - self->locked);
		EXPECT_EQ(1112, pinned_pages() - self->pinned);
		if (v3) {
			/* 50..149, of which 88..149 are held still */
			EXPECT_EQ(100 * (__s64)PAGE,
				  dma_unmap(c, TEST_IOVA + 50 * PAGE, 100 * PAGE));
			EXPECT_EQ(562, locked_pages() - self->locked);
			EXPECT_EQ(512 * (__s64)PAGE, dma_unmap(&other, TEST_IOVA, GIB));
			EXPECT_EQ(462, locked_pages() - self->locked);
			EXPECT_EQ(412 + 88, pinned_pages() - self->pinned);
		}
		container_close(&other);
		EXPECT_LOCKED(v3 ? 412 : 512);
		EXPECT_EQ((v3 ? 412 : 512) * (__s64)PAGE, dma_unmap_all(c));
		EXPECT_LOCKED(0);
	}
}

/* VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL tells how many mappings there may still be. */
TEST_F(limits, dma_avail)
{
	struct container *c = &self->c;
	struct container_info info;

	for (int i = 0; i < 10; i++) {
		ASSERT_EQ(0, container_info(c, &info));
		EXPECT_EQ(is_v3(variant->type) ? UINT32_MAX : 65535 - i,
			  info.avail);
		ASSERT_EQ(0, dma_map(c, TEST_IOVA + i * MIB, self->mem.va, PAGE,
				     RW));
	}
	EXPECT_EQ(10 * PAGE, dma_unmap(c, TEST_IOVA, GIB));
	ASSERT_EQ(0, container_info(c, &info));
	EXPECT_EQ(is_v3(variant->type) ? UINT32_MAX : 65535, info.avail);
}

/* One of the threads that share the account */
#define NR_FILLERS	4

struct filler {
	FIXTURE_DATA(limits) * self;
	pthread_t thread;
	__u64 iova;
	long held, refused;
	bool bad;
};

static void *fill(void *arg)
{
	struct filler *f = arg;
	__u8 *va = f->self->mem.va;
	int ret;

	for (;;) {
		ret = dma_map(&f->self->c, f->iova + f->held * PAGE,
			      va + f->held % 512 * PAGE, PAGE, RW);
		if (ret)
			break;
		f->held++;
	}
	f->bad = ret != -ENOMEM;
	return NULL;
}

/* Pieces of up to 64 pages come and go. */
static void *churn(void *arg)
{
	struct filler *f = arg;
	__u64 seed = f->iova;
	long size[32] = {};

	for (int step = 0; step < 2000 && !f->bad; step++) {
		int i = prng(&seed) % ARRAY_SIZE(size);
		long n = 1 + prng(&seed) % 64;
		__u64 iova = f->iova + i * MIB;

		if (size[i]) {
			f->bad = dma_unmap(&f->self->c, iova, MIB) !=
				 size[i] * (__s64)PAGE;
			f->held -= size[i];
			size[i] = 0;
		} else {
			int ret = dma_map(&f->self->c, iova, f->self->mem.va,
					  n * PAGE, RW);

			size[i] = ret ? 0 : n;
			f->held += size[i];
			f->refused += ret == -ENOMEM;
			f->bad = ret && ret != -ENOMEM;
		}
	}
	return NULL;
}

/* Returns the sum of what they hold. */
static long run_fillers(struct __test_metadata *_metadata, FIXTURE_DATA(limits) * self,
			struct filler *f, void *(*function)(void *), long limit)
{
	long held = 0;

	for (int i = 0; i < NR_FILLERS; i++) {
		f[i] = (struct filler) {
			.self = self, .iova = TEST_IOVA + i * GIB,
		};
		EXPECT_EQ(0, pthread_create(&f[i].thread, NULL, function, &f[i]));
	}
	/* never more, not for a moment */
	for (int i = 0; i < 200; i++)
		EXPECT_GE(limit, locked_pages() - self->locked);
	for (int i = 0; i < NR_FILLERS; i++) {
		EXPECT_EQ(0, pthread_join(f[i].thread, NULL));
		EXPECT_FALSE(f[i].bad);
		held += f[i].held;
	}
	return held;
}

/* Threads fill the account together, to the page. */
TEST_F_TIMEOUT(limits, concurrent, 900)
{
	const long limit = 1000;
	struct container *c = &self->c;
	struct filler f[NR_FILLERS];
	long held, refused = 0;

	ASSERT_EQ(0, drop_ipc_lock());
	ASSERT_EQ(0, set_limit(self->locked + limit));

	EXPECT_EQ(limit, run_fillers(_metadata, self, f, fill, limit));
	EXPECT_LOCKED(limit);
	EXPECT_EQ(limit * PAGE, dma_unmap_all(c));
	EXPECT_LOCKED(0);

	held = run_fillers(_metadata, self, f, churn, limit);
	EXPECT_LOCKED(held);
	for (int i = 0; i < NR_FILLERS; i++)
		refused += f[i].refused;
	/* or it was no test of the limit */
	EXPECT_LT(0, refused);

	/* nothing has been counted wrongly on the way */
	while (!dma_map(c, OTHER_IOVA + held * PAGE, self->mem.va, PAGE, RW))
		held++;
	EXPECT_EQ(limit, held);
	EXPECT_LOCKED(limit);
	EXPECT_EQ(limit * PAGE, dma_unmap_all(c));
	EXPECT_LOCKED(0);
}

/*
 * No number of mappings is too large, but all that is spent on them is charged to
 * the memory cgroup of the process that maps: at its limit mapping fails, nobody
 * is killed, and it all comes back.
 */

/* Blocks of one superpage each, that are cut at the limit; below all that fills it */
#define CUT_IOVA	(64 * GIB)
#define CUT_BLOCKS	64
#define CUT_BITS	(CUT_BLOCKS * (2 * MIB / PAGE))

FIXTURE(memcg) {
	struct container c;
	struct nvme nvme;
	struct mock mock;
	struct mem mem, huge;
	void *device_memory;
	bool was_unsafe;
	char dir[64];
	/* with the process in the cgroup, for which a pipe is too much memory */
	struct {
		bool done, go;
		int ret;
		long mapped;
		const char *failed;
		__u64 bits[CUT_BITS / 64];
	} *shared;
	pid_t pid;
};

/*
 * Far enough apart that all that the limit allows for, some 13 bytes of the
 * container's and a byte of an IO page table's for each 512 bytes of IOVA, ends
 * long before the smallest aperture of an IOMMU does.
 */
#define MEMCG_STRIDE	(256 * KIB)
#define MEMCG_PAGES	((NVME_IOVA - TEST_IOVA) / MEMCG_STRIDE)

/* What is mapped page by page, for as long as there is memory for it */
struct pattern {
	__u64 stride;		/* from one page to the next */
	long npages;		/* at most */
	bool read_only;		/* every other page is */
	bool device_memory;	/* all are one page, which is not memory */
	unsigned int bytes[2];	/* of the two records for each page, at most */
	unsigned long max;	/* bytes that the memory cgroup has */
};

static const struct pattern scattered = {
	MEMCG_STRIDE, MEMCG_PAGES, .bytes = { 16, 1 }, .max = 4 * MIB,
};

/*
 * Flags that no two neighbours share; as many regions of 2 MiB as pages, no two alike; and
 * addresses alone
 */
static const struct pattern alternating = {
	PAGE, 1 << 20, .read_only = true, .bytes = { 11, 10 }, .max = 2 * MIB,
};

static const struct pattern regions = {
	2 * MIB + 64 * KIB, (NVME_IOVA - TEST_IOVA) / (3 * MIB), .bytes = { 24, 16 },
	.max = 4 * MIB,
};

static const struct pattern aliases = {
	PAGE, 1 << 20, .device_memory = true, .bytes = { 11, 1 }, .max = 2 * MIB,
};

FIXTURE_VARIANT(memcg) {
	enum { WITH_EMULATED, WITH_NVME, WITH_TABLES } device;
	unsigned long type;
	const struct pattern *pattern;
};

FIXTURE_VARIANT_ADD(memcg, emulated) { WITH_EMULATED, VFIO_TYPE1v3_IOMMU, &scattered };
FIXTURE_VARIANT_ADD(memcg, nvme) { WITH_NVME, VFIO_TYPE1v3_IOMMU, &scattered };
FIXTURE_VARIANT_ADD(memcg, alternating) { WITH_TABLES, VFIO_TYPE1v3_IOMMU, &alternating };
FIXTURE_VARIANT_ADD(memcg, regions) { WITH_TABLES, VFIO_TYPE1v3_IOMMU, &regions };
FIXTURE_VARIANT_ADD(memcg, aliases) { WITH_TABLES, VFIO_TYPE1v3_IOMMU, &aliases };
FIXTURE_VARIANT_ADD(memcg, pt_scattered) { WITH_TABLES, VFIO_TYPE1v3_PT_IOMMU, &scattered };
FIXTURE_VARIANT_ADD(memcg, pt_alternating) { WITH_TABLES, VFIO_TYPE1v3_PT_IOMMU, &alternating };
FIXTURE_VARIANT_ADD(memcg, pt_regions) { WITH_TABLES, VFIO_TYPE1v3_PT_IOMMU, &regions };
FIXTURE_VARIANT_ADD(memcg, pt_aliases) { WITH_TABLES, VFIO_TYPE1v3_PT_IOMMU, &aliases };

/* VT-d and AMD's IOMMU have page tables, which are charged; virtio-iommu has none. */
static bool has_page_tables(void)
{
	static const char class[] = "/sys/class/iommu";
	struct dirent *entry;
	bool found = false;
	DIR *dir = opendir(class);

	while (dir && (entry = readdir(dir)))
		found |= !strncmp(entry->d_name, "dmar", 4) ||
			 !strncmp(entry->d_name, "ivhd", 4);
	if (dir)
		closedir(dir);
	return found;
}

/* What the page tables take for each page of a pattern, at least; as open_with_tables() */
static unsigned int table_bytes(const struct pattern *pattern)
{
	if (!has_page_tables())
		return 64;	/* an entry of a mock IOMMU is an object */
	return pattern->stride < 2 * MIB ? PAGE * pattern->stride / (2 * MIB) : PAGE;
}

static int memcg_write(FIXTURE_DATA(memcg) * self, const char *name, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", self->dir, name);
	return file_write(path, value);
}

/* One number of a file: the one that follows @key, or the first */
static long memcg_read(FIXTURE_DATA(memcg) * self, const char *name, const char *key)
{
	char path[128], line[256];
	long value = -1;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", self->dir, name);
	f = fopen(path, "re");
	if (!f)
		return -1;
	while (value < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			value = atol(line + strlen(key));
	fclose(f);
	return value;
}

/*
 * A device behind an IOMMU with page tables, which are charged; behind a mock IOMMU if
 * there is none.
 */
static int open_with_tables(FIXTURE_DATA(memcg) * self)
{
	struct vfio_mock_iommu_create config = { .pgsizes = PAGE | 2 * MIB };
	const char *bdf = getenv(ENV_NVME);
	int ret = 0;

	if (!has_page_tables()) {
		self->was_unsafe = mock_allow_unsafe(true);
		ret = mock_create(&self->mock, &config);
		bdf = self->mock.name[0];
	}
	return ret ?: container_attach(&self->c, bdf);
}

/* One page that is not memory */
static int open_device_memory(FIXTURE_DATA(memcg) * self)
{
	bool mock = self->mock.fd >= 0;
	const char *bdf = mock ? self->mock.name[0] : getenv(ENV_NVME);
	int ret = nvme_open(&self->nvme, &self->c, bdf, NVME_IOVA);

	if (ret)
		return ret;
	/* the driver's own memory is not wanted */
	dma_unmap_all(&self->c);
	self->device_memory = self->nvme.bar;
	if (mock)
		self->device_memory = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->nvme.fd, 0);
	return self->device_memory == MAP_FAILED ? -errno : 0;
}

FIXTURE_SETUP(memcg)
{
	static const char root[] = "/sys/fs/cgroup";
	char max[32];

	container_init(&self->c);
	nvme_init(&self->nvme);
	mock_init(&self->mock);
	if (variant->device != WITH_EMULATED && !need_device(_metadata, ENV_NVME))
		return;
	if (file_write("/sys/fs/cgroup/cgroup.subtree_control", "+memory"))
		SKIP(return, "no memory controller in %s", root);
	snprintf(self->dir, sizeof(self->dir), "%s/type1v3_limits", root);
	ASSERT_EQ(0, mkdir(self->dir, 0755));
	snprintf(max, sizeof(max), "%lu", variant->pattern->max);
	ASSERT_EQ(0, memcg_write(self, "memory.max", max));

	ASSERT_EQ(0, container_open(&self->c, 0, NULL));
	ASSERT_EQ(0, variant->device == WITH_TABLES ? open_with_tables(self) :
		     variant->device == WITH_NVME ?
		     container_attach(&self->c, getenv(ENV_NVME)) :
		     emulated_attach(&self->c, 0));
	ASSERT_EQ(0, ioctl(self->c.fd, VFIO_SET_IOMMU, variant->type));
	if (variant->pattern->device_memory)
		ASSERT_EQ(0, open_device_memory(self));
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, 2 * MIB));
	memset(self->mem.va, 0, self->mem.size);
	if (!need_mem(_metadata, &self->huge, MEM_2M, 2 * MIB))
		return;
	self->shared = mmap(NULL, sizeof(*self->shared), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->shared);
	memset(self->shared, 0, sizeof(*self->shared));
}

FIXTURE_TEARDOWN(memcg)
{
	nvme_close(&self->nvme);
	container_close(&self->c);
	if (self->mock.fd >= 0) {
		mock_destroy(&self->mock);
		mock_allow_unsafe(self->was_unsafe);
	}
	mem_free(&self->mem);
	mem_free(&self->huge);
	if (self->dir[0])
		EXPECT_EQ(0, rmdir(self->dir));
}

/*
 * In the cgroup, where each new page of the process's own could be one too many.
 * Nothing here does more than call the kernel.
 */
static __u64 cut_iova(long i)
{
	return CUT_IOVA + i * 2 * MIB;
}

/* Map blocks, [@first, @last). */
static const char *map_blocks(FIXTURE_DATA(memcg) * self, long first, long last)
{
	for (long i = first; i < last; i++)
		if (dma_map(&self->c, cut_iova(i), self->huge.va, 2 * MIB, RW))
			return "map";
	return NULL;
}

/* What can take memory and cannot fail for want of it, with blocks [@first, @last) */
static const char *cut_blocks(FIXTURE_DATA(memcg) * self, long first, long last)
{
	struct container *c = &self->c;
	__u64 iova = cut_iova(first), size = (last - first) * 2 * MIB;
	__u64 bytes = size / PAGE / 8;

	if (dirty_tracking(c, VFIO_IOMMU_DIRTY_PAGES_FLAG_START))
		return "START";
	for (long i = first; i < last; i++)
		if (dma_unmap(c, cut_iova(i) + (7 + i) * PAGE, PAGE) != PAGE)
			return "cut";
	if (dirty_bitmap(c, iova, size, PAGE, self->shared->bits, bytes))
		return "GET_BITMAP";
	if (dma_unmap_dirty(c, iova, 2 * MIB, PAGE, self->shared->bits, bytes) !=
	    2 * MIB - PAGE)
		return "unmap with a bitmap";
	if (dirty_tracking(c, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP))
		return "STOP";
	if (dma_unmap(c, iova, size) != (last - first - 1) * (2 * MIB - PAGE))
		return "unmap";
	return NULL;
}

static void map_until_full(FIXTURE_DATA(memcg) * self, const struct pattern *pattern)
{
	void *va = self->device_memory;
	const char *failed;
	long n;
	int ret = 0;

	/* once when there is memory, so that all it touches is there */
	failed = map_blocks(self, 0, 2) ?: cut_blocks(self, 0, 2) ?:
		 map_blocks(self, 0, CUT_BLOCKS);
	for (n = 0; n < pattern->npages && !ret; n++)
		ret = dma_map(&self->c, TEST_IOVA + n * pattern->stride,
			      va ?: self->mem.va + n % 512 * PAGE, PAGE,
			      va || (pattern->read_only && n % 2) ? RO : RW);
	failed = failed ?: cut_blocks(self, 0, CUT_BLOCKS);
	self->shared->ret = ret;
	self->shared->mapped = n - !!ret;
	self->shared->failed = failed;
	__atomic_store_n(&self->shared->done, true, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&self->shared->go, __ATOMIC_ACQUIRE))
		usleep(1000);
	/* and there is room again */
	_exit(dma_map(&self->c, OTHER_IOVA, self->mem.va, PAGE, RW) ? 1 : 0);
}

TEST_F_TIMEOUT(memcg, map_scattered_pages, 600)
{
	const struct pattern *pattern = variant->pattern;
	struct container *c = &self->c;
	const unsigned int table = table_bytes(pattern);
	const unsigned long max = pattern->max;
	const unsigned int record = pattern->bytes[!has_vaddr(variant->type)];
	struct container_info info;
	long bytes = 0, refused = memcg_read(self, "memory.events", "max "), most;
	int status;

	self->pid = fork();
	ASSERT_LE(0, self->pid);
	if (!self->pid) {
		/* the memory is the child's own, and there, before it counts */
		usleep(1);	/* has the linker write to it */
		memset(self->mem.va, 1, self->mem.size);
		memset(self->huge.va, 1, self->huge.size);
		if (!memcg_write(self, "cgroup.procs", "0"))
			map_until_full(self, variant->pattern);
		_exit(3);
	}
	/* the braces: what ends the test is a statement of its own */
	while (!__atomic_load_n(&self->shared->done, __ATOMIC_ACQUIRE)) {
		ASSERT_EQ(0, waitpid(self->pid, &status, WNOHANG))
			TH_LOG("the process that maps did not survive");
	}
	/* the limit was it, not the end of the IOVA space or of the test's patience */
	EXPECT_EQ(-ENOMEM, self->shared->ret);
	/* the string is where the child has it, too */
	EXPECT_EQ(NULL, self->shared->failed)
		TH_LOG("%s", self->shared->failed);
	EXPECT_LE(0, refused);
	EXPECT_LT(refused, memcg_read(self, "memory.events", "max "));
	ASSERT_EQ(0, container_info(c, &info));
	EXPECT_EQ(self->shared->mapped, info.own.mapped_pages);
	if (variant->device == WITH_TABLES) {
		/* a quarter of what the record takes is not charged: see below */
		most = max / table;
		EXPECT_GE(max, table * self->shared->mapped + info.own.store_bytes * 3 / 4);
		EXPECT_LT((max - MIB / 2) / (table * 3 / 2 + record), self->shared->mapped);
	} else if (variant->device == WITH_NVME && has_page_tables()) {
		/* one for each 2 MiB, and nothing else that is as large */
		most = max / PAGE * (2 * MIB / MEMCG_STRIDE);
		EXPECT_LT(most / 10 * 9, self->shared->mapped);
	} else {
		most = max / 12;
		EXPECT_LT(max / 14, self->shared->mapped);
	}
	EXPECT_GT(most, self->shared->mapped);
	EXPECT_EQ(0, memcg_read(self, "memory.events", "oom_kill "));
	TH_LOG("%ld pages under a limit of %lu MiB, for which the record has %llu bytes",
	       self->shared->mapped, max / MIB, info.own.store_bytes);
	EXPECT_GT(self->shared->mapped * record, info.own.store_bytes);
	/* which has the cgroup's pointers in it, and they are not charged */
	EXPECT_GT(2 * max, info.own.store_bytes);

	/* unmapping needs no memory that there is not */
	EXPECT_EQ(self->shared->mapped * (__s64)PAGE, dma_unmap_all(c));
	ASSERT_EQ(0, container_info(c, &info));
	EXPECT_EQ(0, info.own.store_bytes);
	slab_drain(false);
	__atomic_store_n(&self->shared->go, true, __ATOMIC_RELEASE);
	ASSERT_EQ(self->pid, waitpid(self->pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(PAGE, dma_unmap_all(c));

	container_close(c);
	for (int i = 0; i < 30; i++) {
		slab_drain(false);
		bytes = memcg_read(self, "memory.current", "");
		if (bytes < (long)MIB / 2)
			break;
		nanosleep(&(struct timespec){ .tv_sec = 1 }, NULL);
	}
	EXPECT_GT(MIB / 2, bytes);
}

/*
 * Who waits for the container's mutex can be killed, however long another process
 * holds it. Here that is one that waits for the page where its answer goes.
 */
FIXTURE(waiting) {
	struct container c;
	struct mem mem;
	void *bitmap;
	int dev, uffd;
	bool emulated;
	pthread_t thread;
	int ret;
};

static void *hold_mutex(void *arg)
{
	FIXTURE_DATA(waiting) * self = arg;

	self->ret = dirty_bitmap(&self->c, TEST_IOVA, PAGE, PAGE, self->bitmap,
				 sizeof(__u64));
	return NULL;
}

FIXTURE_VARIANT(waiting) {
	void (*call)(FIXTURE_DATA(waiting) * self);
	unsigned long type;	/* or 0, for that with addresses and emulated devices */
};

FIXTURE_SETUP(waiting)
{
	self->emulated = !variant->type;
	self->dev = -1;
	if (self->emulated) {
		self->dev = emulated_open(&self->c, VFIO_TYPE1v3_IOMMU, 0);
		ASSERT_LE(0, self->dev);
	} else {
		container_init(&self->c);
		if (!need_device(_metadata, ENV_NVME) || !need_device(_metadata, ENV_NVME2))
			return;
		ASSERT_EQ(0, container_open(&self->c, variant->type, getenv(ENV_NVME)));
	}
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, PAGE));
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, PAGE, RW));
	ASSERT_EQ(0, dirty_tracking(&self->c, VFIO_IOMMU_DIRTY_PAGES_FLAG_START));

	self->bitmap = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->bitmap);
	self->uffd = uffd_open(self->bitmap, PAGE);
	ASSERT_LE(0, self->uffd);
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, hold_mutex, self));
	ASSERT_EQ(0, uffd_wait(self->uffd, self->bitmap));
}

FIXTURE_TEARDOWN(waiting)
{
	struct container_info info;

	/* The mutex was held all the time, and nothing has happened. */
	EXPECT_EQ(0, uffd_give(self->uffd, self->bitmap, PAGE));
	EXPECT_EQ(0, pthread_join(self->thread, NULL));
	EXPECT_EQ(0, self->ret);
	EXPECT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(1, info.own.mapped_pages);
	if (self->emulated) {
		EXPECT_EQ(0, emulated_state(self->dev).pinned);
		close(self->dev);
	}
	container_close(&self->c);
	close(self->uffd);
	munmap(self->bitmap, PAGE);
	mem_free(&self->mem);
}

static void call_map(FIXTURE_DATA(waiting) * self)
{
	dma_map(&self->c, TEST_IOVA + PAGE, self->mem.va, PAGE, RW);
}

static void call_unmap(FIXTURE_DATA(waiting) * self)
{
	dma_unmap(&self->c, TEST_IOVA, PAGE);
}

static void call_batch(FIXTURE_DATA(waiting) * self)
{
	struct vfio_iommu_type1v3_batch_entry entry = {
		.iova = TEST_IOVA,
		.size = PAGE,
		.flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP,
	};

	dma_batch(&self->c, 0, 1, &entry);
}

static void call_dirty(FIXTURE_DATA(waiting) * self)
{
	dirty_tracking(&self->c, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
}

static void call_info(FIXTURE_DATA(waiting) * self)
{
	struct container_info info;

	container_info(&self->c, &info);
}

static void call_check_extension(FIXTURE_DATA(waiting) * self)
{
	ioctl(self->c.fd, VFIO_CHECK_EXTENSION, VFIO_UPDATE_VADDR);
}

static void call_attach(FIXTURE_DATA(waiting) * self)
{
	if (self->emulated)
		emulated_attach(&self->c, 1);
	else
		container_attach(&self->c, getenv(ENV_NVME2));
}

static void call_pin(FIXTURE_DATA(waiting) * self)
{
	emulated_pin(self->dev, TEST_IOVA, 1, PIN_RW, NULL);
}

static void call_rw(FIXTURE_DATA(waiting) * self)
{
	__u64 data;

	emulated_rw(self->dev, TEST_IOVA, &data, sizeof(data), 0);
}

FIXTURE_VARIANT_ADD(waiting, map) { call_map };
FIXTURE_VARIANT_ADD(waiting, unmap) { call_unmap };
FIXTURE_VARIANT_ADD(waiting, batch) { call_batch };
FIXTURE_VARIANT_ADD(waiting, dirty) { call_dirty };
FIXTURE_VARIANT_ADD(waiting, info) { call_info };
FIXTURE_VARIANT_ADD(waiting, check_extension) { call_check_extension };
FIXTURE_VARIANT_ADD(waiting, attach) { call_attach };
FIXTURE_VARIANT_ADD(waiting, pin) { call_pin };
FIXTURE_VARIANT_ADD(waiting, rw) { call_rw };
FIXTURE_VARIANT_ADD(waiting, pt_map) { call_map, VFIO_TYPE1v3_PT_IOMMU };
FIXTURE_VARIANT_ADD(waiting, pt_unmap) { call_unmap, VFIO_TYPE1v3_PT_IOMMU };
FIXTURE_VARIANT_ADD(waiting, pt_batch) { call_batch, VFIO_TYPE1v3_PT_IOMMU };
FIXTURE_VARIANT_ADD(waiting, pt_dirty) { call_dirty, VFIO_TYPE1v3_PT_IOMMU };
FIXTURE_VARIANT_ADD(waiting, pt_info) { call_info, VFIO_TYPE1v3_PT_IOMMU };
FIXTURE_VARIANT_ADD(waiting, pt_check_extension)
	{ call_check_extension, VFIO_TYPE1v3_PT_IOMMU };
FIXTURE_VARIANT_ADD(waiting, pt_attach) { call_attach, VFIO_TYPE1v3_PT_IOMMU };

TEST_F(waiting, killed)
{
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		variant->call(self);
		_exit(0);
	}
	/* for a lock of the container, not for a page nor for another's lock */
	while (!task_waits_in(pid, " vfio_type1v3_") &&
	       !task_waits_in(pid, " vfio_dma_") &&
	       !waitpid(pid, &status, WNOHANG))
		usleep(1000);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
}

/*
 * Long calls end soon after a fatal signal. That is there before anything is
 * unmapped, while a driver takes its time to unpin a page. How much is done then
 * is known exactly.
 */
FIXTURE(killed) {
	struct container c;
	struct mem mem;
	int dev;
};

/* All of it is one piece of memory again and again, in superpages if possible. */
#define KILLED_BYTES	(4 * GIB)

FIXTURE_SETUP(killed)
{
	const char *bdf;

	container_init(&self->c);
	self->dev = -1;
	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf || !need_mem(_metadata, &self->mem, MEM_2M, 2 * MIB))
		return;
	ASSERT_EQ(0, container_open(&self->c, VFIO_TYPE1v3_IOMMU, bdf));
	for (__u64 off = 0; off < KILLED_BYTES; off += 2 * MIB)
		ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + off, self->mem.va,
				     2 * MIB, RW));
	ASSERT_EQ(0, emulated_attach(&self->c, 0));
	self->dev = container_device(&self->c, emulated_name(0));
	ASSERT_LE(0, self->dev);
	ASSERT_EQ(1, emulated_pin(self->dev, TEST_IOVA + MIB, 1, PIN_RW, NULL));
	ASSERT_EQ(0, emulated_set(self->dev, 0, EMULATED_HOLD));
}

FIXTURE_TEARDOWN(killed)
{
	if (self->dev >= 0)
		close(self->dev);
	container_close(&self->c);
	mem_free(&self->mem);
}

/* Another process unmaps, all or from @iova on, and is killed before anything is. */
static void kill_in_unmap(struct __test_metadata *_metadata, FIXTURE_DATA(killed) * self,
			  __u64 iova, __u64 done)
{
	struct container_info info;
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (iova)
			dma_unmap(&self->c, iova, TEST_IOVA + KILLED_BYTES - iova);
		else
			dma_unmap_all(&self->c);
		_exit(0);
	}
	while (!emulated_state(self->dev).notified && !waitpid(pid, &status, WNOHANG))
		usleep(1000);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	/* the signal is there, and only now does the driver let go */
	ASSERT_EQ(0, emulated_set(self->dev, 0, 0));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ((KILLED_BYTES - done) / PAGE, info.own.mapped_pages);
	EXPECT_EQ(KILLED_BYTES - done, dma_unmap_all(&self->c));
}

TEST_F_TIMEOUT(killed, unmap_all, 900)
{
	kill_in_unmap(_metadata, self, 0, GIB);
}

/* It looks for signals at every multiple of 1 GiB. */
TEST_F_TIMEOUT(killed, unmap_range, 900)
{
	kill_in_unmap(_metadata, self, TEST_IOVA + MIB, GIB - MIB);
}

/*
 * A call is charged for no more than it can get, not even for a moment: other calls
 * could fail for it. Its memory is slow to come, so that the moment lasts.
 */
FIXTURE(doomed) {
	struct container c;
	struct nvme nvme;
	struct mem mem;
	__u8 *slow;		/* DOOMED_PAGES, behind the controller's memory */
	__u64 size;		/* of both */
	int uffd;
	pthread_t thread;
	int ret;
	long locked;
};

/* More than are mapped in one go */
#define DOOMED_PAGES	16UL

FIXTURE_VARIANT(doomed) { unsigned long type; };
ADD_V3_TYPES(doomed);

FIXTURE_SETUP(doomed)
{
	const char *bdf;
	__u8 *va;

	container_init(&self->c);
	nvme_init(&self->nvme);
	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf)
		return;
	/* of a process that has a limit */
	ASSERT_EQ(0, drop_ipc_lock());
	ASSERT_EQ(0, set_limit(GIB / PAGE));
	ASSERT_EQ(0, container_open(&self->c, variant->type, bdf));
	ASSERT_EQ(0, nvme_open(&self->nvme, &self->c, bdf, NVME_IOVA));
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, 16 * PAGE));

	self->size = self->nvme.bar_size + DOOMED_PAGES * PAGE;
	va = mmap(NULL, self->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		  -1, 0);
	ASSERT_NE(MAP_FAILED, va);
	self->slow = va + self->nvme.bar_size;
	self->uffd = uffd_open(self->slow, DOOMED_PAGES * PAGE);
	ASSERT_LE(0, self->uffd);
	self->locked = locked_pages();
}

FIXTURE_TEARDOWN(doomed)
{
	nvme_close(&self->nvme);
	container_close(&self->c);
	munmap(self->slow - (self->size - DOOMED_PAGES * PAGE), self->size);
	close(self->uffd);
	mem_free(&self->mem);
}

/* A call that looks for the memory first never returns. */
TEST_F(doomed, exists)
{
	struct vfio_iommu_type1v3_batch_entry e[3];

	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + 3 * PAGE, self->mem.va, PAGE, RW));
	EXPECT_EQ(-EEXIST, dma_map(&self->c, TEST_IOVA + 3 * PAGE, self->slow, PAGE, RW));
	EXPECT_EQ(-EEXIST, dma_map(&self->c, TEST_IOVA, self->slow, 4 * PAGE, RW));
	EXPECT_EQ(-EEXIST, dma_map(&self->c, TEST_IOVA + 3 * PAGE, self->slow,
				   DOOMED_PAGES * PAGE, RW));

	/* what others have mapped, and what the batch itself has */
	for (int i = 0; i < 3; i++)
		e[i] = (struct vfio_iommu_type1v3_batch_entry) {
			TEST_IOVA + i % 2 * 3 * PAGE, PAGE,
			(uintptr_t)(i ? self->slow : self->mem.va), RW,
		};
	EXPECT_EQ(1, dma_batch(&self->c, 0, 3, e));
	EXPECT_EQ(0, e[0].result);
	EXPECT_EQ(-EEXIST, e[1].result);
	EXPECT_EQ(-ECANCELED, e[2].result);
	EXPECT_EQ(3, dma_batch(&self->c, VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE, 3, e));
	for (int i = 0; i < 3; i++)
		EXPECT_EQ(-EEXIST, e[i].result);
	EXPECT_EQ(2, locked_pages() - self->locked);
}

static void *map_device_memory(void *arg)
{
	FIXTURE_DATA(doomed) * self = arg;

	self->ret = dma_map(&self->c, TEST_IOVA,
			    self->slow - (self->size - DOOMED_PAGES * PAGE), self->size, RW);
	return NULL;
}

TEST_F(doomed, device_memory)
{
	void *at = self->slow - self->nvme.bar_size;

	/* where a driver's memory is does not matter to it */
	ASSERT_EQ(at, mremap((void *)self->nvme.bar, self->nvme.bar_size,
			     self->nvme.bar_size, MREMAP_MAYMOVE | MREMAP_FIXED, at));
	self->nvme.bar = at;
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, map_device_memory, self));
	ASSERT_EQ(0, uffd_wait(self->uffd, self->slow));
	EXPECT_EQ(DOOMED_PAGES, locked_pages() - self->locked);
	EXPECT_EQ(0, uffd_give(self->uffd, self->slow, DOOMED_PAGES * PAGE));
	ASSERT_EQ(0, pthread_join(self->thread, NULL));
	EXPECT_EQ(0, self->ret);
	EXPECT_EQ(DOOMED_PAGES, locked_pages() - self->locked);
	EXPECT_EQ(self->size, dma_unmap(&self->c, TEST_IOVA, self->size));
	EXPECT_EQ(0, locked_pages() - self->locked);
}

TEST_HARNESS_MAIN
