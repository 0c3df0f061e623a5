// SPDX-License-Identifier: GPL-2.0-only
/*
 * Locked memory of a type1v3 container: charged to the page, refused to the
 * page, and given back; with type1v2 as the control.
 */
#include <signal.h>
#include <sys/resource.h>

#include "type1v3_harness.h"

FIXTURE(limits) {
	const char *bdf;
	struct container c;
	struct mem mem;
	long locked, pinned;
};

FIXTURE_VARIANT(limits) {
	unsigned long type;
};

FIXTURE_VARIANT_ADD(limits, type1v2) { VFIO_TYPE1v2_IOMMU };
FIXTURE_VARIANT_ADD(limits, type1v3) { VFIO_TYPE1v3_IOMMU };

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

TEST_HARNESS_MAIN
