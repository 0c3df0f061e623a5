// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ABI of a type1v3 container, with type1v2 as the control: what it says it
 * can do, every bad input with its errno and nothing changed, who may map, and
 * when pages are given back. No device is needed but for its group.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/time.h>

#include "type1v3_emulated.h"
#include "type1v3_harness.h"

/* first page that is not user space */
#ifdef __aarch64__
#define USER_TOP	0x10000000000000UL
#else
#define USER_TOP	0x7ffffffff000UL
#endif

/* VFIO_TYPE1_NESTING_IOMMU, which newer headers do not have */
#define NESTING		6

FIXTURE(uapi) {
	const char *bdf;
	struct container c;
	struct mem mem;
	long locked, pinned;
};

FIXTURE_VARIANT(uapi) {
	unsigned long type;
};

ADD_TYPES(uapi);

FIXTURE_SETUP(uapi)
{
	container_init(&self->c);
	self->bdf = need_device(_metadata, ENV_NVME);
	if (!self->bdf)
		return;
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->bdf));
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, 512 * PAGE));
	memset(self->mem.va, 0, self->mem.size);
	self->locked = locked_pages();
	self->pinned = pinned_pages();
	ASSERT_LE(0, self->locked);
	ASSERT_LE(0, self->pinned);
}

FIXTURE_TEARDOWN(uapi)
{
	container_close(&self->c);
	mem_free(&self->mem);
}

/* Pages mapped, locked and pinned since the fixture was set up. */
#define EXPECT_HELD(npages) do { \
	struct container_info _info; \
	long _npages = (npages); \
	EXPECT_EQ(_npages, locked_pages() - self->locked); \
	EXPECT_EQ(_npages, pinned_pages() - self->pinned); \
	if (is_v3(variant->type)) { \
		EXPECT_EQ(0, container_info(&self->c, &_info)); \
		EXPECT_EQ(_npages, (long)_info.own.mapped_pages); \
		EXPECT_EQ(_npages, (long)_info.own.pinned_pages); \
	} \
} while (0)

TEST_F(uapi, check_extension)
{
	bool v3 = is_v3(variant->type);
	int fd = self->c.fd;

	EXPECT_EQ(v3, ioctl(fd, VFIO_CHECK_EXTENSION, VFIO_TYPE1v3_IOMMU));
	EXPECT_EQ(v3, ioctl(fd, VFIO_CHECK_EXTENSION, VFIO_TYPE1v3_PT_IOMMU));
	EXPECT_EQ(!v3, ioctl(fd, VFIO_CHECK_EXTENSION, VFIO_TYPE1_IOMMU));
	EXPECT_EQ(!v3, ioctl(fd, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU));
	EXPECT_EQ(!v3 && type1_is_old(),
		  ioctl(fd, VFIO_CHECK_EXTENSION, NESTING));
	EXPECT_EQ(1, ioctl(fd, VFIO_CHECK_EXTENSION, VFIO_UNMAP_ALL));
	EXPECT_EQ(0, ioctl(fd, VFIO_CHECK_EXTENSION, VFIO_SPAPR_TCE_IOMMU));
	EXPECT_EQ(0, ioctl(fd, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU));
	EXPECT_EQ(0, ioctl(fd, VFIO_CHECK_EXTENSION, 0));
	EXPECT_EQ(0, ioctl(fd, VFIO_CHECK_EXTENSION, -1UL));
}

/* VFIO_UPDATE_VADDR is said to be there exactly when it works. */
TEST_F(uapi, update_vaddr_truth)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.flags = VFIO_DMA_UNMAP_FLAG_VADDR,
		.iova = TEST_IOVA,
		.size = PAGE,
	};
	bool said = ioctl(self->c.fd, VFIO_CHECK_EXTENSION, VFIO_UPDATE_VADDR);
	int ret;

	EXPECT_EQ(has_vaddr(variant->type), said);
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, PAGE, RW));
	ret = ioctl(self->c.fd, VFIO_IOMMU_UNMAP_DMA, &unmap) ? -errno : 0;
	EXPECT_EQ(said ? 0 : -EOPNOTSUPP, ret);
	ret = dma_map(&self->c, TEST_IOVA, self->mem.va, PAGE,
		      VFIO_DMA_MAP_FLAG_VADDR);
	EXPECT_EQ(said ? 0 : -EOPNOTSUPP, ret);
	EXPECT_HELD(1);

	/* of everything, of another range than is mapped, and of none */
	EXPECT_EQ(said ? (__s64)PAGE : -EOPNOTSUPP,
		  vaddr_invalidate(&self->c, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL));
	EXPECT_EQ(said ? 0 : -EOPNOTSUPP,
		  vaddr_update(&self->c, TEST_IOVA, self->mem.va, PAGE));
	EXPECT_EQ(said ? 0 : -EOPNOTSUPP,
		  vaddr_invalidate(&self->c, OTHER_IOVA, PAGE, 0));
	EXPECT_EQ(said ? -ENOENT : -EOPNOTSUPP,
		  vaddr_update(&self->c, OTHER_IOVA, self->mem.va, PAGE));
	/* what no backend knows is EINVAL with each of them */
	unmap.flags |= VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
	ret = ioctl(self->c.fd, VFIO_IOMMU_UNMAP_DMA, &unmap) ? -errno : 0;
	EXPECT_EQ(-EINVAL, ret);
	EXPECT_HELD(1);
	EXPECT_EQ(PAGE, dma_unmap(&self->c, TEST_IOVA, PAGE));
}

/*
 * A group without an IOMMU, as the first one and as another: where the record has no
 * addresses it is refused, and the container is what it was.
 */
TEST_F(uapi, emulated_group)
{
	const int want = has_vaddr(variant->type) ? 0 : -EOPNOTSUPP;
	struct container c;
	int dev;

	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, MIB, RW));
	EXPECT_EQ(want, emulated_attach(&self->c, 0));
	EXPECT_EQ(-EEXIST, dma_map(&self->c, TEST_IOVA, self->mem.va, PAGE, RW));
	if (!want)
		EXPECT_EQ(0, container_detach(&self->c, emulated_name(0)));
	EXPECT_HELD(MIB / PAGE);
	EXPECT_EQ(MIB, dma_unmap(&self->c, TEST_IOVA, MIB));

	dev = emulated_open(&c, variant->type, 1);
	if (want) {
		EXPECT_EQ(want, dev);
		/* nothing was chosen, and another backend can be */
		EXPECT_EQ(-EINVAL, dma_map(&c, TEST_IOVA, self->mem.va, PAGE, RW));
		EXPECT_EQ(0, ioctl(c.fd, VFIO_SET_IOMMU, VFIO_TYPE1v3_IOMMU));
		dev = container_device(&c, emulated_name(1));
	}
	EXPECT_LE(0, dev);
	EXPECT_EQ(0, dma_map(&c, TEST_IOVA, self->mem.va, PAGE, RW));
	close(dev);
	container_close(&c);
}

/*
 * The last group leaves: without an IOMMU there is no record of what was mapped. Another
 * one finds the container empty, whatever it is.
 */
TEST_F(uapi, last_domain)
{
	const char *bdf = need_device(_metadata, ENV_NVME2);
	__u8 *va = self->mem.va;

	if (!bdf)
		return;
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, va, 2 * MIB, RW));
	ASSERT_EQ(0, dma_map(&self->c, OTHER_IOVA, va, PAGE, RO));
	/* a group that stays, so that all of it does */
	ASSERT_EQ(0, container_attach(&self->c, bdf));
	ASSERT_EQ(0, container_detach(&self->c, self->bdf));
	EXPECT_HELD(2 * MIB / PAGE + 1);
	EXPECT_EQ(-EEXIST, dma_map(&self->c, TEST_IOVA + MIB, va, PAGE, RW));
	EXPECT_EQ(PAGE, dma_unmap(&self->c, OTHER_IOVA, GIB));
	ASSERT_EQ(0, container_attach(&self->c, self->bdf));
	ASSERT_EQ(0, container_detach(&self->c, bdf));
	EXPECT_HELD(2 * MIB / PAGE);

	/* and one that does not */
	ASSERT_EQ(0, container_detach(&self->c, self->bdf));
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
	ASSERT_EQ(0, container_attach(&self->c, bdf));
	ASSERT_EQ(0, ioctl(self->c.fd, VFIO_SET_IOMMU, variant->type));
	EXPECT_HELD(0);
	EXPECT_EQ(0, dma_map(&self->c, TEST_IOVA, va, 2 * MIB, RW));
	EXPECT_EQ(0, dma_map(&self->c, OTHER_IOVA, va, PAGE, RO));
	EXPECT_EQ(2 * MIB + PAGE, dma_unmap_all(&self->c));
	EXPECT_HELD(0);
}

/* Which backend a number brings, and that only one is taken. */
TEST_F(uapi, set_iommu)
{
	struct container_info info;
	struct container c;

	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(is_v3(variant->type), info.has_own);
	EXPECT_EQ(is_v3(variant->type), info.has_granule);
	if (info.has_granule) {
		EXPECT_EQ(0, info.granule.min_order);
		EXPECT_EQ(VFIO_DMA_MAP_GRANULE_ORDER_MAX, info.granule.max_order);
	}
	EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_SET_IOMMU, variant->type));
	EXPECT_EQ(EINVAL, errno);

	/* without a group nobody may have a backend */
	EXPECT_EQ(-EINVAL, container_open(&c, variant->type, NULL));
	EXPECT_EQ(1, ioctl(c.fd, VFIO_CHECK_EXTENSION, variant->type));
	EXPECT_EQ(1, ioctl(c.fd, VFIO_CHECK_EXTENSION, VFIO_UNMAP_ALL));
	EXPECT_EQ(0, ioctl(c.fd, VFIO_CHECK_EXTENSION, VFIO_DMA_CC_IOMMU));
	container_close(&c);

	/* a backend comes and goes with the groups, and can be another then */
	ASSERT_EQ(0, container_detach(&self->c, self->bdf));
	ASSERT_EQ(0, container_attach(&self->c, self->bdf));
	EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_SET_IOMMU, VFIO_TYPE1v3_PT_IOMMU + 1));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_EQ(0, ioctl(self->c.fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU));
	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_FALSE(info.has_own);
	ASSERT_EQ(0, container_detach(&self->c, self->bdf));
	ASSERT_EQ(0, container_attach(&self->c, self->bdf));
	EXPECT_EQ(0, ioctl(self->c.fd, VFIO_SET_IOMMU, variant->type));
	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(is_v3(variant->type), info.has_own);
}

TEST_F(uapi, without_backend)
{
	struct container_info info;
	struct container c;

	/* before VFIO_SET_IOMMU */
	ASSERT_EQ(0, container_open(&c, 0, NULL));
	EXPECT_EQ(-EINVAL, dma_map(&c, TEST_IOVA, self->mem.va, PAGE, RW));
	EXPECT_EQ(-EINVAL, dma_unmap(&c, TEST_IOVA, PAGE));
	EXPECT_EQ(-EINVAL, dma_unmap_all(&c));
	EXPECT_EQ(-EINVAL, container_info(&c, &info));
	container_close(&c);

	/* after the last group has left, which takes every mapping along */
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, MIB, RW));
	EXPECT_HELD(MIB / PAGE);
	ASSERT_EQ(0, container_detach(&self->c, self->bdf));
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
	EXPECT_EQ(-EINVAL, dma_map(&self->c, TEST_IOVA, self->mem.va, PAGE, RW));
	EXPECT_EQ(-EINVAL, dma_unmap(&self->c, TEST_IOVA, MIB));
	EXPECT_EQ(-EINVAL, container_info(&self->c, &info));

	/* and a new backend starts empty */
	ASSERT_EQ(0, container_attach(&self->c, self->bdf));
	ASSERT_EQ(0, ioctl(self->c.fd, VFIO_SET_IOMMU, variant->type));
	EXPECT_EQ(0, dma_unmap(&self->c, TEST_IOVA, MIB));
	EXPECT_EQ(0, dma_unmap_all(&self->c));
	EXPECT_HELD(0);
}

TEST_F(uapi, get_info)
{
	struct container_info info;
	struct {
		struct vfio_iommu_type1_info info;
		__u8 room[4096];
	} u;
	__u32 argsz;

	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS, info.flags);
	EXPECT_TRUE(info.pgsizes & PAGE);
	EXPECT_FALSE(info.pgsizes & (PAGE - 1));
	EXPECT_TRUE(info.has_avail);
	EXPECT_EQ(is_v3(variant->type) ? UINT32_MAX : 65535, info.avail);
	EXPECT_EQ(is_v3(variant->type), info.has_own);

	/* ranges in order and apart, none of them over the MSI window */
	ASSERT_LT(0, info.nranges);
	for (int i = 0; i < info.nranges; i++) {
		EXPECT_LT(info.range[i].start, info.range[i].end);
		EXPECT_FALSE(info.range[i].start & (PAGE - 1));
		EXPECT_EQ(PAGE - 1, info.range[i].end & (PAGE - 1));
		if (i)
			EXPECT_LT(info.range[i - 1].end, info.range[i].start - 1);
		EXPECT_TRUE(info.range[i].end < MSI_IOVA ||
			    info.range[i].start >= MSI_IOVA + MIB);
	}

	/* a mapping shows */
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, MIB, RW));
	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(is_v3(variant->type) ? UINT32_MAX : 65534, info.avail);
	if (is_v3(variant->type)) {
		EXPECT_EQ(2, info.own.header.version);
		EXPECT_EQ(MIB / PAGE, info.own.charged_pages);
		EXPECT_EQ(MIB / PAGE, info.own.mapped_pages);
		EXPECT_EQ(MIB / PAGE, info.own.pinned_pages);
		EXPECT_GT(65536, info.own.store_bytes);
	}
	EXPECT_EQ(MIB, dma_unmap(&self->c, TEST_IOVA, MIB));

	/* the room that the caller has */
	for (argsz = 0; argsz < offsetof(struct vfio_iommu_type1_info, cap_offset);
	     argsz++) {
		memset(&u, 0xff, sizeof(u));
		u.info.argsz = argsz;
		EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_IOMMU_GET_INFO, &u));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1U, u.info.flags);
	}

	memset(&u, 0xff, sizeof(u));
	u.info.argsz = offsetof(struct vfio_iommu_type1_info, cap_offset);
	EXPECT_EQ(0, ioctl(self->c.fd, VFIO_IOMMU_GET_INFO, &u));
	EXPECT_EQ(VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS, u.info.flags);
	EXPECT_EQ(info.pgsizes, u.info.iova_pgsizes);
	EXPECT_LT(sizeof(u.info), u.info.argsz);
	EXPECT_EQ(-1U, u.info.cap_offset);

	memset(&u, 0xff, sizeof(u));
	u.info.argsz = sizeof(u.info);
	EXPECT_EQ(0, ioctl(self->c.fd, VFIO_IOMMU_GET_INFO, &u));
	EXPECT_EQ(0, u.info.cap_offset);
	argsz = u.info.argsz;
	EXPECT_LT(sizeof(u.info), argsz);
	EXPECT_EQ(0xff, u.room[0]);

	/* one byte less than asked for: still nothing */
	u.info.argsz = argsz - 1;
	EXPECT_EQ(0, ioctl(self->c.fd, VFIO_IOMMU_GET_INFO, &u));
	EXPECT_EQ(0, u.info.cap_offset);
	EXPECT_EQ(argsz, u.info.argsz);
	EXPECT_EQ(0xff, u.room[0]);

	u.info.argsz = argsz;
	EXPECT_EQ(0, ioctl(self->c.fd, VFIO_IOMMU_GET_INFO, &u));
	EXPECT_EQ(sizeof(u.info), u.info.cap_offset);
	EXPECT_EQ(0xff, ((__u8 *)&u)[argsz]);

	EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_IOMMU_GET_INFO, NULL));
	EXPECT_EQ(EFAULT, errno);
}

/* The MIGRATION capability is there exactly when dirty tracking works. */
TEST_F(uapi, migration_truth)
{
	struct vfio_iommu_type1_dirty_bitmap dirty = {
		.argsz = sizeof(dirty),
		.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
	};
	struct container_info info;
	bool works;

	ASSERT_EQ(0, container_info(&self->c, &info));
	works = !ioctl(self->c.fd, VFIO_IOMMU_DIRTY_PAGES, &dirty);
	EXPECT_EQ(works, info.has_migration);
	EXPECT_TRUE(works);
}

TEST_F(uapi, unknown_ioctl)
{
	EXPECT_EQ(-1, ioctl(self->c.fd, _IO(VFIO_TYPE, VFIO_BASE + 60), 0));
	EXPECT_EQ(ENOTTY, errno);
	EXPECT_EQ(-1, ioctl(self->c.fd, 0, 0));
	EXPECT_EQ(ENOTTY, errno);
}

struct bad_call {
	const char *what;
	int err;
	__u32 argsz, flags;
	__u64 iova, vaddr, size;
};

TEST_F(uapi, bad_map)
{
	const int wrap = wrap_errno(variant->type);
	const __u32 good = sizeof(struct vfio_iommu_type1_dma_map);
	const __u64 iova = TEST_IOVA + GIB, end = -PAGE;
	const __u64 va = (uintptr_t)self->mem.va;
	struct container_info info;
	__u64 ro, none, hole, last;
	bool last_is_max;

	ro = (uintptr_t)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0);
	none = (uintptr_t)mmap(NULL, PAGE, PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* 64 pages, a missing one, 63 more */
	hole = (uintptr_t)mmap(NULL, 128 * PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_EQ(0, munmap((void *)(hole + 64 * PAGE), PAGE));

	ASSERT_EQ(0, container_info(&self->c, &info));
	ASSERT_LT(0, info.nranges);
	last = info.range[info.nranges - 1].end;
	last_is_max = last == UINT64_MAX;

	const struct bad_call calls[] = {
		{ "argsz 0", -EINVAL, 0, RW, iova, va, PAGE },
		{ "argsz short by one", -EINVAL, good - 1, RW, iova, va, PAGE },
		{ "no access at all", -EINVAL, good, 0, iova, va, PAGE },
		{ "unknown flag", -EINVAL, good, RW | 8, iova, va, PAGE },
		{ "unknown flag", -EINVAL, good, RW | 1 << 24, iova, va, PAGE },
		{ "the order of a granule, but no granule", -EINVAL, good, RW | 1 << 30, iova, va,
		  PAGE },
		{ "a granule that does not exist", -EINVAL, good,
		  RW | VFIO_DMA_MAP_GRANULE(VFIO_DMA_MAP_GRANULE_ORDER_MAX + 1), iova, va, PAGE },
		{ "a granule that does not exist", -EINVAL, good, RW | VFIO_DMA_MAP_GRANULE(63),
		  iova, va, PAGE },
		{ "vaddr flag and a granule", -EINVAL, good,
		  VFIO_DMA_MAP_FLAG_VADDR | VFIO_DMA_MAP_GRANULE(9), iova, va, PAGE },
		{ "every flag", -EINVAL, good, -1, iova, va, PAGE },
		{ "vaddr flag and access", -EINVAL, good,
		  RW | VFIO_DMA_MAP_FLAG_VADDR, iova, va, PAGE },
		{ "size 0", -EINVAL, good, RW, iova, va, 0 },
		{ "size 1", -EINVAL, good, RW, iova, va, 1 },
		{ "size below a page", -EINVAL, good, RW, iova, va, PAGE - 1 },
		{ "size unaligned", -EINVAL, good, RW, iova, va, PAGE + 8 },
		{ "iova unaligned", -EINVAL, good, RW, iova + 1, va, PAGE },
		{ "iova unaligned", -EINVAL, good, RW, iova + 2048, va, PAGE },
		{ "vaddr unaligned", -EINVAL, good, RW, iova, va + 1, PAGE },
		{ "vaddr unaligned", -EINVAL, good, RW, iova, va + 2048, PAGE },
		{ "iova wraps", wrap, good, RW, end, va, 2 * PAGE },
		{ "iova wraps", wrap, good, RW, PAGE * 2, va, end },
		{ "vaddr wraps", wrap, good, RW, iova, end, 2 * PAGE },
		{ "vaddr wraps", wrap, good, RW, 0, va, end },
		{ "inside the MSI window", -EINVAL, good, RW, MSI_IOVA, va, PAGE },
		{ "at the MSI window's end", -EINVAL, good, RW,
		  MSI_IOVA + MIB - PAGE, va, 2 * PAGE },
		{ "into the MSI window", -EINVAL, good, RW, MSI_IOVA - PAGE, va,
		  2 * PAGE },
		{ "over the MSI window", -EINVAL, good, RW, MSI_IOVA - PAGE, va,
		  MIB + 2 * PAGE },
		{ "vaddr 0", -EFAULT, good, RW, iova, 0, PAGE },
		{ "vaddr at the top of user space", -EFAULT, good, RW, iova,
		  USER_TOP, PAGE },
		{ "vaddr not canonical", -EFAULT, good, RW, iova, 1UL << 62,
		  PAGE },
		{ "vaddr in the kernel", -EFAULT, good, RW, iova,
		  0xffffffff81000000, PAGE },
		{ "read-only memory", -EFAULT, good, RW, iova, ro, PAGE },
		{ "read-only memory", -EFAULT, good, WO, iova, ro, PAGE },
		{ "memory without access", -EFAULT, good, RO, iova, none, PAGE },
		{ "a hole in the memory", -EFAULT, good, RW, iova, hole,
		  128 * PAGE },
		{ "a hole at the end", -EFAULT, good, RW, iova, hole, 65 * PAGE },
		{ "a hole at the start", -EFAULT, good, RW, iova,
		  hole + 64 * PAGE, 2 * PAGE },
		{ "much more than there is", -EFAULT, good, RW, iova, va, GIB },
		/* six pages are mapped at TEST_IOVA + PAGE below */
		{ "over a mapping", -EEXIST, good, RW, TEST_IOVA + PAGE, va,
		  6 * PAGE },
		{ "over its start", -EEXIST, good, RW, TEST_IOVA, va, 2 * PAGE },
		{ "over its middle", -EEXIST, good, RW, TEST_IOVA + 3 * PAGE, va,
		  PAGE },
		{ "over its end", -EEXIST, good, RW, TEST_IOVA + 6 * PAGE, va,
		  2 * PAGE },
		{ "around it", -EEXIST, good, RW, TEST_IOVA, va, 8 * PAGE },
		{ "over a mapping, bad memory", -EEXIST, good, RW,
		  TEST_IOVA + PAGE, 0, PAGE },
		{ "behind the last range", -EINVAL, good, RW, last + 1, va, PAGE },
		{ "over the end of the last range", -EINVAL, good, RW,
		  last + 1 - PAGE, va, 2 * PAGE },
	};

	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + PAGE, self->mem.va, 6 * PAGE,
			     RW));
	ASSERT_EQ(0, container_info(&self->c, &info));

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		const struct bad_call *bad = &calls[i];
		struct vfio_iommu_type1_dma_map map = {
			.argsz = bad->argsz,
			.flags = bad->flags,
			.iova = bad->iova,
			.vaddr = bad->vaddr,
			.size = bad->size,
		};
		struct container_info after;
		int ret;

		/* there is nothing behind the end of the 64-bit space */
		if (last_is_max && i >= ARRAY_SIZE(calls) - 2)
			continue;

		ret = ioctl(self->c.fd, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
		EXPECT_EQ(bad->err, ret)
			TH_LOG("%s", bad->what);
		EXPECT_EQ(6, locked_pages() - self->locked)
			TH_LOG("%s", bad->what);
		EXPECT_EQ(6, pinned_pages() - self->pinned)
			TH_LOG("%s", bad->what);
		ASSERT_EQ(0, container_info(&self->c, &after));
		EXPECT_EQ(info.avail, after.avail)
			TH_LOG("%s", bad->what);
		EXPECT_EQ(info.own.mapped_pages, after.own.mapped_pages)
			TH_LOG("%s", bad->what);
	}

	EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_IOMMU_MAP_DMA, NULL));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(6 * PAGE, dma_unmap_all(&self->c));
	EXPECT_HELD(0);

	/* nothing of the refused ranges is in the way */
	EXPECT_EQ(0, dma_map(&self->c, iova, self->mem.va, 2 * MIB, RW));
	EXPECT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, 2 * MIB, RW));
	EXPECT_EQ(4 * MIB, dma_unmap_all(&self->c));
}

/* What looks bad and is not. */
TEST_F(uapi, good_map)
{
	struct {
		struct vfio_iommu_type1_dma_map map;
		__u8 more[64];
	} u;
	struct container_info info;
	void *ro;
	__u64 last;

	/* a newer program's larger structure */
	memset(&u, 0xff, sizeof(u));
	u.map.argsz = sizeof(u);
	u.map.flags = RW;
	u.map.vaddr = (uintptr_t)self->mem.va;
	u.map.iova = TEST_IOVA;
	u.map.size = PAGE;
	EXPECT_EQ(0, ioctl(self->c.fd, VFIO_IOMMU_MAP_DMA, &u));

	/* neighbours on both sides */
	EXPECT_EQ(0, dma_map(&self->c, TEST_IOVA - PAGE, self->mem.va, PAGE, RW));
	EXPECT_EQ(0, dma_map(&self->c, TEST_IOVA + PAGE, self->mem.va, PAGE, RW));

	/* read-only memory for a device that reads */
	ro = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	EXPECT_EQ(0, dma_map(&self->c, TEST_IOVA + MIB, ro, PAGE, RO));
	EXPECT_HELD(4);

	/* both ends of every range */
	ASSERT_EQ(0, container_info(&self->c, &info));
	ASSERT_LT(0, info.nranges);
	for (int i = 0; i < info.nranges; i++) {
		EXPECT_EQ(0, dma_map(&self->c, info.range[i].start,
				     self->mem.va, PAGE, RW));
		EXPECT_EQ(PAGE, dma_unmap(&self->c, info.range[i].start, PAGE));

		last = info.range[i].end - PAGE + 1;
		/* this one would stay mapped for ever */
		if (last == -PAGE && !is_v3(variant->type) && type1_is_old())
			continue;
		EXPECT_EQ(0, dma_map(&self->c, last, self->mem.va, PAGE, RW));
		EXPECT_EQ(-EEXIST, dma_map(&self->c, last, self->mem.va, PAGE, RW));
		EXPECT_EQ(PAGE, dma_unmap(&self->c, last, PAGE));
		EXPECT_EQ(0, dma_unmap(&self->c, last, PAGE));
	}
	EXPECT_HELD(4);
	EXPECT_EQ(4 * PAGE, dma_unmap_all(&self->c));
	EXPECT_HELD(0);
}

TEST_F(uapi, bad_unmap)
{
	const int wrap = wrap_errno(variant->type);
	const __u32 good = sizeof(struct vfio_iommu_type1_dma_unmap);
	const __u32 all = VFIO_DMA_UNMAP_FLAG_ALL;
	const __u32 bitmap = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
	const __u64 iova = TEST_IOVA;
	const struct bad_call calls[] = {
		{ "argsz 0", -EINVAL, 0, 0, iova, 0, MIB },
		{ "argsz short by one", -EINVAL, good - 1, 0, iova, 0, MIB },
		{ "unknown flag", -EINVAL, good, 8, iova, 0, MIB },
		{ "unknown flag", -EINVAL, good, 1U << 31, iova, 0, MIB },
		{ "every flag", -EINVAL, good, -1, iova, 0, MIB },
		{ "size 0", -EINVAL, good, 0, iova, 0, 0 },
		{ "size 1", -EINVAL, good, 0, iova, 0, 1 },
		{ "size unaligned", -EINVAL, good, 0, iova, 0, MIB + 1 },
		{ "size unaligned", -EINVAL, good, 0, iova, 0, MIB - 2048 },
		{ "iova unaligned", -EINVAL, good, 0, iova + 1, 0, MIB },
		{ "iova unaligned", -EINVAL, good, 0, iova - 2048, 0, MIB },
		{ "iova wraps", wrap, good, 0, -PAGE, 0, 2 * PAGE },
		{ "iova wraps", wrap, good, 0, iova, 0, -PAGE },
		{ "all, and an iova", -EINVAL, good, all, iova, 0, 0 },
		{ "all, and a size", -EINVAL, good, all, 0, 0, MIB },
		{ "all, and both", -EINVAL, good, all, iova, 0, MIB },
		{ "all, and a bitmap", -EINVAL, good, all | bitmap, 0, 0, 0 },
		{ "bitmap that does not fit", -EINVAL, good, bitmap, iova, 0,
		  MIB },
	};

	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, MIB, RW));
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		const struct bad_call *bad = &calls[i];
		struct vfio_iommu_type1_dma_unmap unmap = {
			.argsz = bad->argsz,
			.flags = bad->flags,
			.iova = bad->iova,
			.size = bad->size,
		};
		int ret;

		ret = ioctl(self->c.fd, VFIO_IOMMU_UNMAP_DMA, &unmap) ? -errno : 0;
		EXPECT_EQ(bad->err, ret)
			TH_LOG("%s", bad->what);
		EXPECT_EQ(bad->size, unmap.size)
			TH_LOG("%s", bad->what);
		EXPECT_EQ(MIB / PAGE, locked_pages() - self->locked)
			TH_LOG("%s", bad->what);
	}
	EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_IOMMU_UNMAP_DMA, NULL));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_HELD(MIB / PAGE);
	EXPECT_EQ(MIB, dma_unmap(&self->c, TEST_IOVA, MIB));
	EXPECT_HELD(0);
}

TEST_F(uapi, unmap)
{
	struct container *c = &self->c;
	__u8 *va = self->mem.va;

	/* nothing */
	EXPECT_EQ(0, dma_unmap(c, TEST_IOVA, PAGE));
	EXPECT_EQ(0, dma_unmap(c, 0, 1UL << 46));
	EXPECT_EQ(0, dma_unmap(c, MSI_IOVA, PAGE));
	EXPECT_EQ(0, dma_unmap_all(c));

	/* page 0 is a page like others */
	EXPECT_EQ(0, dma_map(c, 0, va, PAGE, RW));
	EXPECT_EQ(-EEXIST, dma_map(c, 0, va, PAGE, RW));
	EXPECT_EQ(PAGE, dma_unmap(c, 0, PAGE));
	EXPECT_EQ(0, dma_unmap(c, 0, PAGE));

	/* several mappings and the holes between them in one call */
	EXPECT_EQ(0, dma_map(c, TEST_IOVA, va, 2 * PAGE, RW));
	EXPECT_EQ(0, dma_map(c, TEST_IOVA + 4 * PAGE, va, PAGE, RO));
	EXPECT_EQ(0, dma_map(c, TEST_IOVA + GIB, va, 8 * PAGE, RW));
	EXPECT_EQ(0, dma_map(c, OTHER_IOVA, va, PAGE, RW));
	EXPECT_HELD(12);
	EXPECT_EQ(11 * PAGE, dma_unmap(c, TEST_IOVA - MIB, 2 * GIB));
	EXPECT_HELD(1);
	EXPECT_EQ(0, dma_unmap(c, TEST_IOVA - MIB, 2 * GIB));
	EXPECT_EQ(PAGE, dma_unmap_all(c));
	EXPECT_HELD(0);

	/* one of two that continue each other in IOVA and in memory */
	EXPECT_EQ(0, dma_map(c, TEST_IOVA, va, 2 * PAGE, RW));
	EXPECT_EQ(0, dma_map(c, TEST_IOVA + 2 * PAGE, va + 2 * PAGE, PAGE, RW));
	EXPECT_EQ(2 * PAGE, dma_unmap(c, TEST_IOVA, 2 * PAGE));
	EXPECT_EQ(-EEXIST, dma_map(c, TEST_IOVA + 2 * PAGE, va, PAGE, RW));
	EXPECT_EQ(0, dma_map(c, TEST_IOVA, va, 2 * PAGE, RW));
	EXPECT_EQ(PAGE, dma_unmap(c, TEST_IOVA + 2 * PAGE, PAGE));
	EXPECT_EQ(2 * PAGE, dma_unmap(c, TEST_IOVA, 2 * PAGE));
	EXPECT_HELD(0);
}

/* A range that cuts mappings: type1v2 refuses, type1v3 takes it out. */
TEST_F(uapi, unmap_part)
{
	const struct {
		unsigned int first, count;	/* pages of the range */
		unsigned int mapped;		/* of them mapped */
	} cuts[] = {
		{ 10, 1, 1 },	/* first page */
		{ 25, 1, 1 },	/* last page */
		{ 15, 2, 2 },	/* inside */
		{ 5, 7, 1 },	/* from the hole before, over the first hole */
		{ 20, 18, 11 },	/* to the end, a hole, into the next mapping */
		{ 0, 64, 16 },	/* all that is left */
	};
	struct container *c = &self->c;
	long held = 32;

	/* pages 10..25 and 32..47 */
	ASSERT_EQ(0, dma_map(c, TEST_IOVA + 10 * PAGE, self->mem.va, 16 * PAGE,
			     RW));
	ASSERT_EQ(0, dma_map(c, TEST_IOVA + 32 * PAGE, self->mem.va, 16 * PAGE,
			     RW));
	for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
		__s64 want = cuts[i].mapped * PAGE;

		if (!is_v3(variant->type))
			want = i + 1 < ARRAY_SIZE(cuts) ? -EINVAL : 32 * (__s64)PAGE;
		EXPECT_EQ(want, dma_unmap(c, TEST_IOVA + cuts[i].first * PAGE,
					  cuts[i].count * PAGE))
			TH_LOG("cut %zu", i);
		if (want > 0)
			held -= want / PAGE;
		EXPECT_HELD(held);
	}
	EXPECT_EQ(0, held);
}

static int in_child(int (*fn)(struct container *c, void *arg),
		    struct container *c, void *arg)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(-fn(c, arg));
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return 1;
	return -WEXITSTATUS(status);
}

static int child_map(struct container *c, void *va)
{
	return dma_map(c, OTHER_IOVA, va, PAGE, RW);
}

static int child_unmap(struct container *c, void *va)
{
	return dma_unmap(c, TEST_IOVA, PAGE) == PAGE ? 0 : -EPROTO;
}

static int child_info(struct container *c, void *va)
{
	struct container_info info;

	return container_info(c, &info);
}

/* Only one process maps; unmapping and asking are free. */
TEST_F(uapi, owner)
{
	bool v3 = is_v3(variant->type);
	struct container *c = &self->c;
	void *va = self->mem.va;

	ASSERT_EQ(0, dma_map(c, TEST_IOVA, va, PAGE, RW));
	EXPECT_EQ(v3 ? -EPERM : 0, in_child(child_map, c, va));
	/* the control leaves a mapping behind whose process is gone */
	EXPECT_EQ(v3 ? 0 : PAGE, dma_unmap(c, OTHER_IOVA, PAGE));
	EXPECT_HELD(1);
	EXPECT_EQ(0, in_child(child_info, c, va));
	EXPECT_EQ(0, in_child(child_unmap, c, va));
	EXPECT_HELD(0);

	/* with the last mapping the owner is gone; the next to map is it */
	EXPECT_EQ(0, in_child(child_map, c, va));
	EXPECT_EQ(v3 ? -EPERM : 0, dma_map(c, TEST_IOVA, va, PAGE, RW));
	EXPECT_EQ(v3 ? 0 : PAGE, dma_unmap(c, TEST_IOVA, PAGE));
	EXPECT_EQ(PAGE, dma_unmap(c, OTHER_IOVA, PAGE));
	EXPECT_EQ(0, dma_map(c, TEST_IOVA, va, PAGE, RW));
	EXPECT_HELD(1);
}

static void *thread_map(void *arg)
{
	struct _test_data_uapi *self = arg;

	return (void *)(intptr_t)dma_map(&self->c, OTHER_IOVA, self->mem.va, PAGE,
					 RW);
}

TEST_F(uapi, threads_are_one_owner)
{
	pthread_t thread;
	void *ret;

	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, PAGE, RW));
	ASSERT_EQ(0, pthread_create(&thread, NULL, thread_map, self));
	ASSERT_EQ(0, pthread_join(thread, &ret));
	EXPECT_EQ(NULL, ret);
	EXPECT_HELD(2);
	EXPECT_EQ(2 * PAGE, dma_unmap_all(&self->c));
}

/* A fatal signal ends a long MAP, and nothing of it stays. */
TEST_F_TIMEOUT(uapi, killed_in_map, 900)
{
	const size_t size = 768 * MIB;
	struct mem big;
	int pipes[2], status;
	char byte;
	pid_t pid;

	ASSERT_EQ(0, mem_alloc(&big, MEM_4K, size));
	ASSERT_EQ(0, pipe(pipes));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* untouched memory: every page is a page fault first */
		dma_map(&self->c, TEST_IOVA, big.va, size, RW);
		_exit(write(pipes[1], "x", 1));
	}
	close(pipes[1]);

	do {
		ASSERT_EQ(0, waitpid(pid, &status, WNOHANG));
	} while (pinned_pages() - self->pinned < 2048);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	/* it must have been in the middle, or this tests nothing */
	EXPECT_EQ(0, read(pipes[0], &byte, 1));

	EXPECT_HELD(0);
	EXPECT_EQ(0, dma_unmap_all(&self->c));
	EXPECT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, 2 * MIB, RW));
	EXPECT_HELD(2 * MIB / PAGE);
	mem_free(&big);
}

static atomic_uint alarms;

static void on_alarm(int sig)
{
	alarms++;
}

/* A signal with a handler does not disturb a MAP. */
TEST_F(uapi, signalled_in_map)
{
	struct itimerval every = { { 0, 2000 }, { 0, 2000 } }, never = { };
	struct sigaction action = { .sa_handler = on_alarm };
	struct mem big;

	ASSERT_EQ(0, mem_alloc(&big, MEM_4K, 32 * MIB));
	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &every, NULL));
	EXPECT_EQ(0, dma_map(&self->c, TEST_IOVA, big.va, big.size, RW));
	EXPECT_EQ(big.size, dma_unmap(&self->c, TEST_IOVA, big.size));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &never, NULL));
	EXPECT_LT(0, alarms);
	EXPECT_HELD(0);
	mem_free(&big);
}

/* Closing the container gives back what it held. */
TEST_F(uapi, close_with_mappings)
{
	for (int i = 0; i < 64; i++) {
		ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA + i * LEAF, self->mem.va,
				     (i % 8 + 1) * 16 * PAGE, i % 2 ? RW : RO));
	}
	EXPECT_HELD(64 / 8 * 16 * (1 + 2 + 3 + 4 + 5 + 6 + 7 + 8));
	container_close(&self->c);
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
}

static void map_for_ever(struct container *c, struct mem *mem, __u64 seed)
{
	for (;;) {
		__u64 r = prng(&seed);
		__u64 page = r % 512, npages = (r >> 16) % 64 + 1;
		__u64 from = (r >> 32) % (512 - npages);

		if (r >> 62)
			dma_map(c, TEST_IOVA + page * PAGE, mem->va + from * PAGE,
				npages * PAGE, RW);
		else
			dma_unmap(c, TEST_IOVA + page * PAGE, npages * PAGE);
	}
}

/* Killing the process at any moment gives every page back. */
TEST_F_TIMEOUT(uapi, killed_at_any_moment, 900)
{
	__u64 seed = 1;

	container_close(&self->c);
	for (int i = 0; i < 12; i++) {
		unsigned int us = prng(&seed) % 60000;
		int pipes[2], status;
		char byte;
		pid_t pid;

		ASSERT_EQ(0, pipe(pipes));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			if (container_open(&self->c, variant->type, self->bdf))
				_exit(1);
			if (write(pipes[1], "x", 1) != 1)
				_exit(1);
			map_for_ever(&self->c, &self->mem, i);
		}
		close(pipes[1]);
		ASSERT_EQ(1, read(pipes[0], &byte, 1));
		close(pipes[0]);
		usleep(us);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_TRUE(WIFSIGNALED(status));
		ASSERT_EQ(self->pinned, pinned_pages())
			TH_LOG("round %d, killed after %u us", i, us);
	}
}

/* All backends see the same IOMMU. */
TEST(same_info)
{
	const unsigned long types[] = {
		VFIO_TYPE1v2_IOMMU, VFIO_TYPE1v3_IOMMU, VFIO_TYPE1v3_PT_IOMMU,
	};
	struct container_info info[ARRAY_SIZE(types)];
	int coherent[ARRAY_SIZE(types)];
	const char *bdf;

	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		struct container c;

		ASSERT_EQ(0, container_open(&c, types[i], bdf));
		ASSERT_EQ(0, container_info(&c, &info[i]));
		coherent[i] = ioctl(c.fd, VFIO_CHECK_EXTENSION, VFIO_DMA_CC_IOMMU);
		container_close(&c);
	}
	for (size_t t = 1; t < ARRAY_SIZE(types); t++) {
		EXPECT_EQ(coherent[0], coherent[t]);
		EXPECT_EQ(info[0].pgsizes, info[t].pgsizes);
		ASSERT_EQ(info[0].nranges, info[t].nranges);
		for (int i = 0; i < info[0].nranges; i++) {
			EXPECT_EQ(info[0].range[i].start, info[t].range[i].start);
			EXPECT_EQ(info[0].range[i].end, info[t].range[i].end);
		}
	}
}

/* Only when asked to does type1v3 answer the numbers of type1. */
TEST(alias)
{
	const unsigned long types[] = { VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU };
	const struct {
		const char *value;
		int alias, has_vaddr;
	} values[] = { { "pt", 1, 0 }, { "Y", 1, 1 }, { "N", 0, 0 } };
	struct container nesting;
	const char *bdf;

	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf)
		return;
	for (int v = 0; v < ARRAY_SIZE(values); v++) {
		int alias = values[v].alias;

		ASSERT_EQ(0, module_param("vfio_iommu_type1v3", "alias_type1",
					  values[v].value));
		/* A value that is none changes nothing. */
		EXPECT_NE(0, module_param("vfio_iommu_type1v3", "alias_type1",
					  "ptt"));
		for (int i = 0; i < 2; i++) {
			struct container_info info;
			struct container c;

			/* of the two modules type1v3 was loaded last */
			ASSERT_EQ(0, container_open(&c, types[i], bdf));
			ASSERT_EQ(0, container_info(&c, &info));
			EXPECT_EQ(alias, info.has_own);
			/* which of both records it is */
			if (alias)
				EXPECT_EQ(values[v].has_vaddr,
					  ioctl(c.fd, VFIO_CHECK_EXTENSION,
						VFIO_UPDATE_VADDR));
			container_close(&c);

			ASSERT_EQ(0, container_open(&c, VFIO_TYPE1v3_IOMMU, bdf));
			EXPECT_EQ(alias, ioctl(c.fd, VFIO_CHECK_EXTENSION, types[i]));
			EXPECT_EQ(0, ioctl(c.fd, VFIO_CHECK_EXTENSION, NESTING));
			container_close(&c);
		}
		/* never: the older type1v2 does, and asks these IOMMUs in vain */
		EXPECT_EQ(type1_is_old() ? -EINVAL : -ENODEV,
			  container_open(&nesting, NESTING, bdf));
		container_close(&nesting);
	}
}

/*
 * Unplugging the last device takes every mapping along while the process still
 * has the container and the group open.
 */
TEST_F(uapi, unplug)
{
	struct container_info info;
	struct container c;
	const char *bdf;

	bdf = need_device(_metadata, ENV_BAR);
	if (!bdf)
		return;
	ASSERT_EQ(0, container_open(&c, variant->type, bdf));
	ASSERT_EQ(0, dma_map(&c, TEST_IOVA, self->mem.va, 2 * MIB, RW));
	ASSERT_EQ(2 * MIB / PAGE, locked_pages() - self->locked);
	ASSERT_EQ(0, pci_write(bdf, "remove", "1"));
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
	EXPECT_EQ(-EINVAL, container_info(&c, &info));
	EXPECT_EQ(-EINVAL, dma_map(&c, TEST_IOVA, self->mem.va, PAGE, RW));
	container_close(&c);
	ASSERT_EQ(0, pci_rescan_bind(bdf));
	ASSERT_EQ(0, container_open(&c, variant->type, bdf));
	container_close(&c);
}

static atomic_int unplugger;

static void *thread_unplug(void *bdf)
{
	unplugger = gettid();
	return (void *)(intptr_t)pci_write(bdf, "remove", "1");
}

/* An unplug waits for the device to be closed; mappings stay until then. */
TEST_F(uapi, unplug_in_use)
{
	struct container_info info;
	pthread_t thread;
	struct container c;
	char *bdf;
	void *ret;
	int fd;

	bdf = need_device(_metadata, ENV_BAR);
	if (!bdf)
		return;
	ASSERT_EQ(0, container_open(&c, variant->type, bdf));
	fd = container_device(&c, bdf);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, dma_map(&c, TEST_IOVA, self->mem.va, 2 * MIB, RW));
	unplugger = 0;
	ASSERT_EQ(0, pthread_create(&thread, NULL, thread_unplug, bdf));
	while (!unplugger || !task_waits_in(unplugger, "vfio_unregister_group_dev"))
		usleep(1000);
	EXPECT_EQ(2 * MIB / PAGE, locked_pages() - self->locked);
	EXPECT_EQ(0, dma_map(&c, OTHER_IOVA, self->mem.va, PAGE, RW));
	EXPECT_EQ(PAGE, dma_unmap(&c, OTHER_IOVA, PAGE));
	close(fd);
	ASSERT_EQ(0, pthread_join(thread, &ret));
	EXPECT_EQ(NULL, ret);
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
	EXPECT_EQ(-EINVAL, container_info(&c, &info));
	container_close(&c);
	ASSERT_EQ(0, pci_rescan_bind(bdf));
}

static atomic_uint nr_threads;

static void *thread_map_and_unmap(void *arg)
{
	struct _test_data_uapi *self = arg;
	intptr_t bad = 0;
	__u64 seed;

	seed = test_seed() + ++nr_threads;

	for (int step = 0; step < 3000; step++) {
		__u64 r = prng(&seed), npages = (r >> 16) % 32 + 1;
		__u64 page = r % 256, from = (r >> 32) % (512 - npages);
		__s64 ret;

		if (r >> 63) {
			ret = dma_map(&self->c, TEST_IOVA + page * PAGE,
				      self->mem.va + from * PAGE, npages * PAGE, RW);
			bad += ret && ret != -EEXIST;
		} else {
			ret = dma_unmap(&self->c, TEST_IOVA + page * PAGE,
					npages * PAGE);
			bad += ret < 0 && ret != -EINVAL;
		}
		if (!(r >> 32 & 0xff))
			bad += dma_unmap_all(&self->c) < 0;
	}
	return (void *)bad;
}

/* Threads that map and unmap the same IOVAs at the same time. */
TEST_F(uapi, concurrent)
{
	pthread_t thread[4];
	void *bad;

	for (int i = 0; i < 4; i++) {
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, thread_map_and_unmap,
					    self));
	}
	for (int i = 0; i < 4; i++) {
		ASSERT_EQ(0, pthread_join(thread[i], &bad));
		EXPECT_EQ(NULL, bad);
	}
	EXPECT_LE(0, dma_unmap_all(&self->c));
	EXPECT_HELD(0);
}

TEST_HARNESS_MAIN
