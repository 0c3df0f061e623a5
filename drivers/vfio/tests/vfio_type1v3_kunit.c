// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the type1v3 container, on IOMMU domains that check every call.
 *
 * The container is the real one, compiled into this module, but its groups are
 * not: what it asks the IOMMU core about groups is answered here.  It is used
 * through the operations that VFIO uses, with arguments in user memory.
 *
 * The random tests print the seed which they begin with.  To have others:
 * modprobe vfio_type1v3_kunit seed=<seed>, or seed=0 for one that nobody chose.
 */

/* The tracepoints are those of the module under its own name only. */
#define NOTRACE

#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/random.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>
#include <uapi/linux/iommufd.h>

#include "vfio_dma_mock.h"

/*
 * Groups
 */

/**
 * struct mock_group - an IOMMU group of one device
 * @kind: how its IOMMU behaves
 * @domain: what it is attached to, or %NULL
 * @wanted: the container has it
 */
struct mock_group {
	const struct mock_kind *kind;
	struct mock_domain *domain;
	bool wanted;
};

#define MOCK_MSI_START	0xfee00000
#define MOCK_MSI_SIZE	SZ_1M
#define MOCK_SW_MSI	0x08000000
#define MOCK_RELAXABLE	0x000a0000

/* The map_pages() call to fail in the next domain that is made, 0 is none */
static unsigned int mock_fail_next;

/* No domain with dirty bits is to be had, although the IOMMU has them. */
static bool mock_refuse_dirty;

/* New domains fail to track */
static bool mock_fail_track;

/* New domains can enforce coherency */
static bool mock_can_enforce;

static struct mock_group *mock_group(struct iommu_group *group)
{
	return (struct mock_group *)group;
}

static int mock_group_devices(struct iommu_group *group, void *data,
			      int (*fn)(struct device *dev, void *data))
{
	return fn((struct device *)group, data);
}

static bool mock_capable(struct device *dev, enum iommu_cap cap)
{
	struct mock_group *group = (struct mock_group *)dev;

	return cap == IOMMU_CAP_DIRTY_TRACKING && group->kind->dirty;
}

static struct iommu_domain *mock_paging_domain_alloc(struct device *dev, u32 flags)
{
	struct mock_group *group = (struct mock_group *)dev;
	struct mock_domain *mock;

	if (flags && mock_refuse_dirty)
		return ERR_PTR(-EOPNOTSUPP);
	mock = mock_alloc(group->kind);
	if (mock && !(flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING))
		mock->domain.dirty_ops = NULL;
	if (mock)
		mock->fail_track = mock_fail_track;
	if (mock)
		mock->can_enforce = mock_can_enforce;
	return mock ? &mock->domain : ERR_PTR(-ENOMEM);
}

static int mock_attach_group(struct iommu_domain *domain,
			     struct iommu_group *group)
{
	struct mock_domain *mock = to_mock(domain);

	/* Only groups behind the same IOMMU can share a domain. */
	if (mock->kind != mock_group(group)->kind)
		return -EINVAL;
	if (mock_group(group)->domain)
		mock_error("a group is attached twice");
	mock_group(group)->domain = mock;
	return 0;
}

static void mock_detach_group(struct iommu_domain *domain,
			      struct iommu_group *group)
{
	if (mock_group(group)->domain != to_mock(domain))
		mock_error("a group is detached from a domain that it does not have");
	mock_group(group)->domain = NULL;
}

/* Add a region to a list that is in order. */
static int mock_add_region(struct list_head *head, phys_addr_t start,
			   size_t size, enum iommu_resv_type type)
{
	struct iommu_resv_region *region, *next;

	region = iommu_alloc_resv_region(start, size, 0, type, GFP_KERNEL);
	if (!region)
		return -ENOMEM;
	list_for_each_entry(next, head, list)
		if (next->start >= start)
			break;
	list_add_tail(&region->list, &next->list);
	return 0;
}

static int mock_resv_regions(struct iommu_group *group, struct list_head *head)
{
	int ret;

	ret = mock_add_region(head, MOCK_RELAXABLE, SZ_64K,
			      IOMMU_RESV_DIRECT_RELAXABLE);
	if (ret)
		return ret;
	if (mock_group(group)->kind->sw_msi)
		return mock_add_region(head, MOCK_SW_MSI, MOCK_MSI_SIZE,
				       IOMMU_RESV_SW_MSI);
	return mock_add_region(head, MOCK_MSI_START, MOCK_MSI_SIZE,
			       IOMMU_RESV_MSI);
}

static int mock_msi_cookie(struct iommu_domain *domain, dma_addr_t base)
{
	to_mock(domain)->msi_cookie = base;
	return 0;
}

static bool mock_isolated_msi(struct iommu_group *group)
{
	return true;
}

static void mock_domain_probe(struct vfio_dma_domain *domain, dma_addr_t iova)
{
	struct mock_domain *mock = to_mock(domain->domain);

	mock->probing = true;
	vfio_dma_domain_probe(domain, iova);
	mock->probing = false;
	mock->fail_map = mock_fail_next;
	mock_fail_next = 0;
}

#define iommu_group_for_each_dev	mock_group_devices
#define iommu_paging_domain_alloc_flags	mock_paging_domain_alloc
#define device_iommu_capable		mock_capable
#define iommu_attach_group		mock_attach_group
#define iommu_detach_group		mock_detach_group
#define iommu_get_group_resv_regions	mock_resv_regions
#define iommu_get_msi_cookie		mock_msi_cookie
#define iommu_group_has_isolated_msi	mock_isolated_msi
#define vfio_dma_domain_probe		mock_domain_probe

/* VFIO is not to know of this one. */
#undef module_init
#undef module_exit
#define module_init(fn)	static int (*const mock_init)(void) __maybe_unused = fn
#define module_exit(fn)	static void (*const mock_exit)(void) __maybe_unused = fn

#include "../vfio_iommu_type1v3.c"

#define RW	(IOMMU_READ | IOMMU_WRITE)

/* Where the tests map; a block of every size begins there, as it does at 0. */
#define FAR	(4 * MOCK_PUD_PAGES)
#define BASE	base
static unsigned long base;

#define WINDOW	2048UL

static ulong seed = 1;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "where the random tests begin, 0 is somewhere else each time");

/* The more there is to walk, the longer each takes */
static uint steps = IS_ENABLED(CONFIG_KASAN) ? 150 : 500;
module_param(steps, uint, 0444);
MODULE_PARM_DESC(steps, "how many steps a random test does for each kind of IOMMU");

/**
 * struct model_page - what an IOVA page is mapped to
 * @user: page of user memory
 * @prot: IOMMU_READ, IOMMU_WRITE; 0 if it is not mapped
 * @small: it must not be in a superpage
 * @written: since tracking began, or it was reported last
 */
struct model_page {
	unsigned int user;
	u8 prot;
	bool small;
	bool written;
};

/* Where a test's dirty bitmaps are in @arg: across the border of two pages */
#define ARG_SIZE	(3 * PAGE_SIZE)
#define ARG_BITMAP	(2 * PAGE_SIZE - 64)
#define ARG_GUARD	32

/**
 * struct container_test - a container and what is expected of it
 * @data: what VFIO gives to the operations
 * @container: the container
 * @groups: groups to attach
 * @emulated: a group without an IOMMU
 * @memory: user memory, of WINDOW pages
 * @arg: user memory for arguments, of ARG_SIZE
 * @bitmap: where the dirty bitmap is in @arg, ARG_BITMAP unless a test wants it
 *	elsewhere
 * @bits: the last dirty bitmap
 * @model: IOVA pages from BASE on
 * @rnd: random numbers
 */
struct container_test {
	void *data;
	struct vfio_type1v3 *container;
	struct mock_group groups[2];
	struct mock_group emulated;
	struct mock_memory *memory;
	void __user *arg;
	unsigned long bitmap;
	DECLARE_BITMAP(bits, WINDOW);
	struct model_page model[WINDOW];
	struct rnd_state rnd;
};

static struct iommu_group *test_group(struct mock_group *group)
{
	return (struct iommu_group *)group;
}

static int container_attach(struct kunit *test, struct mock_group *group,
			    const struct mock_kind *kind)
{
	struct container_test *t = test->priv;
	int ret;

	group->kind = kind;
	ret = vfio_type1v3_ops.attach_group(t->data, test_group(group),
					    group == &t->emulated ?
					    VFIO_EMULATED_IOMMU : VFIO_IOMMU);
	group->wanted = !ret;
	if (ret || group == &t->emulated)
		KUNIT_EXPECT_NULL(test, group->domain);
	else
		KUNIT_ASSERT_NOT_NULL(test, group->domain);
	return ret;
}

static bool container_has_domain(const struct container_test *t)
{
	return t->groups[0].wanted || t->groups[1].wanted;
}

static void container_detach(struct kunit *test, struct mock_group *group)
{
	struct container_test *t = test->priv;

	group->wanted = false;
	vfio_type1v3_ops.detach_group(t->data, test_group(group));
	KUNIT_EXPECT_NULL(test, group->domain);
	if (!container_has_domain(t) && !t->emulated.wanted)
		memset(t->model, 0, sizeof(t->model));
}

static int container_test_init(struct kunit *test)
{
	struct container_test *t;
	unsigned long vaddr;

	t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t);
	base = FAR;
	mock_errors = 0;
	mock_fail_next = 0;
	mock_refuse_dirty = false;
	mock_fail_track = false;
	mock_can_enforce = false;
	disable_device_memory = false;
	vaddr = kunit_vm_mmap(test, NULL, 0, ARG_SIZE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_NE(test, vaddr, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(vaddr));
	t->arg = (void __user *)vaddr;
	t->bitmap = ARG_BITMAP;
	t->memory = mock_memory_alloc(test, WINDOW, 10);
	t->data = vfio_type1v3_ops.open(VFIO_TYPE1v3_IOMMU);
	KUNIT_ASSERT_FALSE(test, IS_ERR(t->data));
	t->container = vfio_type1v3_get(t->data);
	test->priv = t;
	return 0;
}

static void container_test_exit(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int i;

	if (!t)
		return;
	for (i = 0; i < ARRAY_SIZE(t->groups); i++)
		if (t->groups[i].wanted)
			container_detach(test, &t->groups[i]);
	if (t->emulated.wanted)
		container_detach(test, &t->emulated);
	KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(&t->container->store));
	KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), 0);
	vfio_type1v3_ops.release(t->data);
	vfio_type1v3_put(t->container);
	KUNIT_EXPECT_EQ(test, mock_errors, 0);
}

static long container_ioctl(struct kunit *test, unsigned int cmd, void *arg,
			    size_t size)
{
	struct container_test *t = test->priv;
	long ret;

	KUNIT_ASSERT_EQ(test, copy_to_user(t->arg, arg, size), 0);
	ret = vfio_type1v3_ops.ioctl(t->data, cmd, (unsigned long)t->arg);
	KUNIT_ASSERT_EQ(test, copy_from_user(arg, t->arg, size), 0);
	return ret;
}

/* Map pages of the window to pages of user memory. */
static int container_map_flags(struct kunit *test, unsigned long first,
			       unsigned long npages, unsigned long user,
			       int prot, u32 flags)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = (prot & IOMMU_READ ? VFIO_DMA_MAP_FLAG_READ : 0) |
			 (prot & IOMMU_WRITE ? VFIO_DMA_MAP_FLAG_WRITE : 0) |
			 flags,
		.vaddr = t->memory->vaddr + (user << PAGE_SHIFT),
		.iova = (BASE + first) << PAGE_SHIFT,
		.size = npages << PAGE_SHIFT,
	};
	unsigned long i;
	long ret;

	ret = container_ioctl(test, VFIO_IOMMU_MAP_DMA, &map, sizeof(map));
	for (i = 0; i < npages && !ret; i++)
		t->model[first + i] = (struct model_page) {
			.user = user + i, .prot = prot,
			.small = flags == VFIO_DMA_MAP_FLAG_SMALL_PAGES,
		};
	return ret;
}

static int container_map(struct kunit *test, unsigned long first,
			 unsigned long npages, unsigned long user, int prot,
			 bool small)
{
	return container_map_flags(test, first, npages, user, prot,
				   small ? VFIO_DMA_MAP_FLAG_SMALL_PAGES : 0);
}

/* Unmap pages of the window; what happened to them is in the store if it fails. */
static int container_unmap(struct kunit *test, unsigned long first,
			   unsigned long npages)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = (BASE + first) << PAGE_SHIFT,
		.size = npages << PAGE_SHIFT,
	};
	unsigned long i, gone = 0;
	bool inside;
	long ret;

	ret = container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap, sizeof(unmap));
	for (i = 0; i < WINDOW; i++) {
		inside = i >= first && i < first + npages;
		if (!t->model[i].prot || (!ret && !inside))
			continue;
		if (ret && vfio_xa_dma_load(&t->container->store, BASE + i))
			continue;
		t->model[i].prot = 0;
		gone++;
	}
	KUNIT_EXPECT_EQ(test, unmap.size, gone << PAGE_SHIFT);
	return ret;
}

/* Is everything as the model says? */
static void container_check(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_xa_dma *store = &t->container->store;
	unsigned long i, mapped = 0, pins, expected, bad = 0;
	bool has_domain = container_has_domain(t);
	const struct model_page *page;
	struct mock_leaf *leaf = NULL;
	struct mock_domain *mock;
	unsigned int g;
	u16 *count;

	KUNIT_EXPECT_EQ(test, vfio_xa_dma_validate(store), 0);
	count = kunit_kcalloc(test, WINDOW, sizeof(*count), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, count);
	for (i = 0; i < WINDOW; i++) {
		page = &t->model[i];
		bad += !page->prot != !vfio_xa_dma_load(store, BASE + i);
		mapped += page->prot != 0;
		count[page->user] += page->prot && has_domain;
	}
	KUNIT_EXPECT_EQ(test, bad, 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(store), mapped);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, has_domain ? mapped : 0);

	for (i = 0, pins = 0, expected = 0; i < WINDOW; i++) {
		pins = mock_pins(mock_memory_pfn(t->memory, i));
		expected = count[i];
		if (pins != expected)
			break;
	}
	KUNIT_EXPECT_EQ_MSG(test, pins, expected, "pins of user page %lu", i);
	kunit_kfree(test, count);

	for (g = 0; g < ARRAY_SIZE(t->groups); g++) {
		mock = t->groups[g].domain;
		if (!mock)
			continue;
		mock_expect_synced(test, mock);
		if (BASE)
			KUNIT_EXPECT_TRUE(test, mock_translates(mock, 0, BASE - 1,
								0, 0));
		KUNIT_EXPECT_TRUE(test, mock_translates(mock, BASE + WINDOW,
							ULONG_MAX, 0, 0));
		for (i = 0; i < WINDOW; i++) {
			page = &t->model[i];
			leaf = mock_leaf_at(mock, BASE + i);
			if (!leaf != !page->prot)
				break;
			if (!leaf)
				continue;
			if (leaf->prot != page->prot || leaf->cache != IOMMU_CACHE ||
			    leaf->pfn + BASE + i - leaf->first !=
			    mock_memory_pfn(t->memory, page->user))
				break;
			/* No superpage, and no unit of several pages */
			if (page->small && leaf->first != leaf->last)
				break;
		}
		KUNIT_EXPECT_EQ_MSG(test, i, WINDOW, "group %u, IOVA page %lx: %s",
				    g, BASE + i, leaf ? "something else" : "nothing");
	}
}

static void container_unmap_all(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, container_unmap(test, 0, WINDOW), 0);
	container_check(test);
}

static unsigned long rnd(struct container_test *t, unsigned long below)
{
	return prandom_u32_state(&t->rnd) % below;
}

KUNIT_ARRAY_PARAM_DESC(kind, mock_kinds, name);

/* The memory of a test: contiguous, or in pieces that are smaller and smaller */
static void container_memory(struct kunit *test, bool pieces)
{
	struct container_test *t = test->priv;
	struct page **pages = t->memory->pages;
	unsigned long i, half = WINDOW / 2;

	for (i = half; pieces && i < half + half / 2; i++)
		if (i % 128 < 64)
			swap(pages[i], pages[i + 64]);
	for (; pieces && i < WINDOW; i += 2)
		swap(pages[i], pages[i + 1]);
	mock_memory_map(test, t->memory, PROT_READ | PROT_WRITE);
}

/*
 * Cuts
 */

/* In superpages, and across them: at the first, a middle and the last page */
static void cut(struct kunit *test)
{
	static const struct {
		unsigned long first, npages;
	} cuts[] = {
		{ 0, 1 }, { 511, 1 }, { 512, 1 }, { 255, 1 }, { 1023, 1 },
		{ 509, 6 }, { 0, 512 }, { 1, 1022 }, { 100, 700 }, { 700, 200 },
		{ 256, 256 }, { 250, 12 }, { 768, 300 }, { 1020, 8 },
		{ 13, WINDOW - 26 }, { 0, WINDOW },
	};
	struct container_test *t = test->priv;
	unsigned int i;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	for (i = 0; i < ARRAY_SIZE(cuts); i++) {
		KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_unmap(test, cuts[i].first, cuts[i].npages), 0);
		container_check(test);
		/* And what is left, again at another place */
		KUNIT_EXPECT_EQ(test, container_unmap(test, cuts[i].first / 2, 1), 0);
		container_check(test);
		container_unmap_all(test);
	}
}

/* One page after the other, from a superpage */
static void cut_each_page(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned long i;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 1024, 0, RW, false), 0);
	for (i = 0; i < 1024; i++) {
		KUNIT_EXPECT_EQ(test, container_unmap(test, i * 389 % 1024, 1), 0);
		if (!(i % 64))
			container_check(test);
	}
	container_check(test);
}

/* Have user memory consist of what is in @pages by now. */
static void mock_memory_map_again(struct kunit *test, struct mock_memory *memory,
				  unsigned long prot)
{
	mock_map_file_at(test, "[mock memory]", &mock_memory_fops, memory,
			 memory->npages, prot, memory->vaddr);
}

/* Allocations of the store, as of a domain with no_memory */
static bool only_nofail(gfp_t gfp)
{
	if (!(gfp & __GFP_NOFAIL))
		return false;
	if (gfp & (__GFP_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NORETRY))
		mock_error("allocation with %pGg", &gfp);
	return true;
}

/* Neither the memory cgroup nor the machine has any: what is mapped can be cut. */
static void cut_without_memory(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, true);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
	t->groups[0].domain->no_memory = true;
	kunit_activate_static_stub(test, vfio_xa_dma_may_alloc, only_nofail);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 300, 750), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 7, 1), 0);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 1500, 3), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_map(test, 7, 1, 7, RW, false), -ENOMEM);
	container_check(test);
	container_unmap_all(test);
	kunit_deactivate_static_stub(test, vfio_xa_dma_may_alloc);
}

/*
 * Pages that a device may have written to are dirty when they are unmapped
 */

static void clear_dirty(struct container_test *t)
{
	unsigned long i;

	for (i = 0; i < WINDOW; i++)
		ClearPageDirty(t->memory->pages[i]);
}

/* Those are dirty of which the model said so before they were unmapped. */
static void expect_dirty(struct kunit *test, const unsigned long *dirty)
{
	struct container_test *t = test->priv;
	unsigned long i, missed = 0, wrong = 0;

	for (i = 0; i < WINDOW; i++) {
		missed += test_bit(i, dirty) && !PageDirty(t->memory->pages[i]);
		wrong += !test_bit(i, dirty) && PageDirty(t->memory->pages[i]);
	}
	KUNIT_EXPECT_EQ(test, missed, 0);
	KUNIT_EXPECT_EQ(test, wrong, 0);
}

/* Unmap pages of the window that are mapped to as many of user memory. */
static void unmap_dirty(struct kunit *test, unsigned long first, unsigned long npages)
{
	struct container_test *t = test->priv;
	unsigned long *dirty = bitmap_zalloc(WINDOW, GFP_KERNEL), i;

	KUNIT_ASSERT_NOT_NULL(test, dirty);
	for (i = first; i < first + npages; i++)
		if (t->model[i].prot & IOMMU_WRITE)
			__set_bit(t->model[i].user, dirty);
	clear_dirty(t);
	KUNIT_EXPECT_EQ(test, container_unmap(test, first, npages), 0);
	expect_dirty(test, dirty);
	container_check(test);
	bitmap_free(dirty);
}

/* One page, a few, runs, superpages and parts of them, and all kinds at once */
static void unmap_dirties(struct kunit *test)
{
	static const unsigned int sizes[] = { 1, 2, 4, 5, 64, 512, 1024 };
	struct container_test *t = test->priv;
	unsigned int i, prot;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (prot = IOMMU_READ; prot <= RW; prot++) {
			KUNIT_ASSERT_EQ(test, container_map(test, 512, sizes[i], 512,
							    prot, false), 0);
			unmap_dirty(test, 512, sizes[i]);
			KUNIT_ASSERT_EQ(test, container_map(test, 512, sizes[i], 512,
							    prot, true), 0);
			unmap_dirty(test, 512, sizes[i]);
		}
	}

	/* Those of one call are unpinned together. */
	for (i = 0; i < 300; i++)
		KUNIT_ASSERT_EQ(test, container_map(test, i, 1, i * 7 % 300,
						    i % 3 ? RW : IOMMU_READ, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 512, 512, 512, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 1024, 512, 1024, IOMMU_READ, false), 0);
	unmap_dirty(test, 600, 3);
	unmap_dirty(test, 1100, 3);
	unmap_dirty(test, 17, 4);
	unmap_dirty(test, 0, WINDOW);
}

/* A batch unpins what its entries unmap together. */
static void batch_dirties(struct kunit *test)
{
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.nr_entries = 12,
	};
	struct vfio_iommu_type1v3_batch_entry entries[12] = {};
	struct container_test *t = test->priv;
	void __user *user = t->arg + PAGE_SIZE;
	DECLARE_BITMAP(dirty, 64) = {};
	unsigned long *expected;
	unsigned int i;
	int prot;

	expected = bitmap_zalloc(WINDOW, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, expected);
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	for (i = 0; i < batch.nr_entries; i++) {
		prot = i & 1 ? IOMMU_READ : RW;
		KUNIT_ASSERT_EQ(test, container_map(test, 3 * i, 1 + (i & 2), 3 * i,
						    prot, false), 0);
		entries[i].iova = (BASE + 3 * i) << PAGE_SHIFT;
		entries[i].size = (1 + (i & 2)) << PAGE_SHIFT;
		entries[i].flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP;
		if (prot == RW)
			bitmap_set(dirty, 3 * i, 1 + (i & 2));
	}
	bitmap_copy(expected, dirty, 64);
	clear_dirty(t);
	batch.entries = (unsigned long)user;
	KUNIT_ASSERT_EQ(test, copy_to_user(user, entries, sizeof(entries)), 0);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_TYPE1V3_BATCH,
					      &batch, sizeof(batch)), 0);
	expect_dirty(test, expected);
	memset(t->model, 0, sizeof(t->model));
	container_check(test);
	bitmap_free(expected);
}

/* The last domain goes, and what is mapped stays for emulated devices. */
static void detach_dirties(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned long *expected = bitmap_zalloc(WINDOW, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, expected);
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 512, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 512, 1, 512, IOMMU_READ, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 600, 1, 600, RW, false), 0);
	bitmap_set(expected, 0, 512);
	__set_bit(600, expected);
	clear_dirty(t);
	container_detach(test, &t->groups[0]);
	expect_dirty(test, expected);
	container_check(test);
	container_unmap_all(test);
	bitmap_free(expected);
}

/*
 * Device memory
 */

/* As vfio-pci maps a BAR */
static int device_mmap(struct file *file, struct vm_area_struct *vma)
{
	return remap_pfn_range(vma, vma->vm_start, MOCK_PFN,
			       vma->vm_end - vma->vm_start,
			       pgprot_noncached(vma->vm_page_prot));
}

static const struct file_operations device_fops = {
	.owner	= THIS_MODULE,
	.mmap	= device_mmap,
};

/* Where a device's memory is in the window, in place of user memory */
#define DEVICE_FIRST	512UL
#define DEVICE_PAGES	512UL

static void device_map(struct kunit *test)
{
	struct container_test *t = test->priv;

	mock_map_file_at(test, "[mock device]", &device_fops, NULL, DEVICE_PAGES,
			 PROT_READ | PROT_WRITE,
			 t->memory->vaddr + (DEVICE_FIRST << PAGE_SHIFT));
}

/* All that the model has is mapped with @cache where the device's memory is. */
static void expect_cache(struct kunit *test, const struct mock_group *group, int cache)
{
	struct container_test *t = test->priv;
	struct mock_leaf *leaf;
	unsigned long i;
	bool device;

	for (i = 0; i < WINDOW; i++) {
		leaf = mock_leaf_at(group->domain, BASE + i);
		if (!leaf != !t->model[i].prot)
			break;
		if (!leaf)
			continue;
		device = i >= DEVICE_FIRST && i < DEVICE_FIRST + DEVICE_PAGES;
		if (leaf->prot != t->model[i].prot ||
		    leaf->cache != (device ? cache : IOMMU_CACHE))
			break;
		if (device && cache == IOMMU_MMIO &&
		    leaf->pfn + BASE + i - leaf->first != MOCK_PFN + i - DEVICE_FIRST)
			break;
	}
	KUNIT_EXPECT_EQ(test, i, WINDOW);
}

/* It is no memory for the IOMMU either: mapped, replayed, cut and pinned anew. */
static void device_memory(struct kunit *test)
{
	struct container_test *t = test->priv;
	int prot;

	container_memory(test, false);
	device_map(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	for (prot = IOMMU_READ; prot <= RW; prot++) {
		KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, prot, false), 0);
		expect_cache(test, &t->groups[0], IOMMU_MMIO);
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1],
						       &mock_kinds[3]), 0);
		expect_cache(test, &t->groups[1], IOMMU_MMIO);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 600, 1), 0);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 300, 1), 0);
		expect_cache(test, &t->groups[0], IOMMU_MMIO);
		expect_cache(test, &t->groups[1], IOMMU_MMIO);
		container_detach(test, &t->groups[1]);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 0, WINDOW), 0);
	}

	/* One by one, and then what is there is something else for the next domain. */
	KUNIT_ASSERT_EQ(test, container_map(test, DEVICE_FIRST - 1, 1,
					    DEVICE_FIRST - 1, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, DEVICE_FIRST, 1, DEVICE_FIRST, RW,
					    false), 0);
	expect_cache(test, &t->groups[0], IOMMU_MMIO);
	container_detach(test, &t->groups[0]);
	mock_memory_map_again(test, t->memory, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	expect_cache(test, &t->groups[0], IOMMU_CACHE);
	container_detach(test, &t->groups[0]);
	device_map(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	expect_cache(test, &t->groups[0], IOMMU_MMIO);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 0, WINDOW), 0);

	/* And it can be refused, with all that was asked for together with it. */
	disable_device_memory = true;
	KUNIT_EXPECT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), -EPERM);
	KUNIT_EXPECT_EQ(test, container_map(test, DEVICE_FIRST, 1, DEVICE_FIRST, RW,
					    false), -EPERM);
	expect_cache(test, &t->groups[0], IOMMU_MMIO);
	KUNIT_EXPECT_EQ(test, container_map(test, 0, DEVICE_FIRST, 0, RW, false), 0);
	expect_cache(test, &t->groups[0], IOMMU_MMIO);
	disable_device_memory = false;
	KUNIT_EXPECT_EQ(test, container_unmap(test, 0, WINDOW), 0);
	container_check(test);
}

/*
 * Map device memory, which is not pinned, so that only the pinning is left out:
 * contiguous memory of that size is not to be had.
 */
static void map_device(struct kunit *test, unsigned long first,
		       unsigned long npages, unsigned long pfn,
		       unsigned long granule)
{
	struct container_test *t = test->priv;
	struct vfio_type1v3 *container = t->container;
	struct vfio_type1v3_map map = { .first = BASE + first };
	struct vfio_type1v3_request request = {
		.first = BASE + first,
		.last = BASE + first + npages - 1,
		.vaddr = SZ_1G + ((pfn - MOCK_PFN) << PAGE_SHIFT),
		.granule = granule,
	};
	struct vfio_dma_extent extent;
	unsigned long pinned = 0, n;

	mutex_lock(&container->lock);
	if (!container->owner.mm)
		vfio_dma_owner_set(&container->owner);
	request.word = vfio_xa_dma_word(request.first, request.vaddr,
					VFIO_XA_DMA_READ | VFIO_XA_DMA_WRITE |
					VFIO_XA_DMA_PFNMAP | VFIO_XA_DMA_MMIO);
	if (vfio_type1v3_covers_superpage(container, vfio_type1v3_iova(request.first),
					  npages << PAGE_SHIFT, granule))
		request.word |= VFIO_XA_DMA_BIG;
	KUNIT_EXPECT_EQ(test, vfio_type1v3_reserve(container, &request), 0);
	if (request.word & VFIO_XA_DMA_BIG)
		KUNIT_EXPECT_EQ(test, vfio_dma_cut_set_starts(&container->store,
							      request.first, request.last,
							      granule), 0);
	for (; npages; npages -= n, pfn += n) {
		n = min(npages, VFIO_DMA_EXTENT_MAX - pfn % VFIO_DMA_EXTENT_MAX);
		extent = (struct vfio_dma_extent) {
			.pfn = pfn, .npages = n, .pfnmap = true, .mmio = true,
		};
		KUNIT_EXPECT_EQ(test, vfio_type1v3_map_extent(&container->space, &map,
							      &extent, request.word,
							      granule, &pinned), 0);
	}
	vfio_xa_dma_change(&container->store, request.first, request.last,
			   VFIO_XA_DMA_PENDING, 0);
	mutex_unlock(&container->lock);
}

static void map_pud(struct kunit *test)
{
	struct container_test *t = test->priv;

	map_device(test, 0, MOCK_PUD_PAGES, MOCK_PFN, VFIO_DMA_EXTENT_MAX);
	KUNIT_EXPECT_EQ(test, mock_largest_leaf(t->groups[0].domain, 0, ULONG_MAX),
			MOCK_PUD_PAGES);
}

static void cut_pud_range(struct kunit *test, unsigned long first,
			  unsigned long npages)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock = t->groups[0].domain;
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = (BASE + first) << PAGE_SHIFT,
		.size = npages << PAGE_SHIFT,
	};

	map_pud(test);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), 0);
	KUNIT_EXPECT_EQ(test, unmap.size, npages << PAGE_SHIFT);
	KUNIT_EXPECT_TRUE(test, mock_translates(mock, BASE + first,
						BASE + first + npages - 1, 0, 0));
	if (first)
		KUNIT_EXPECT_TRUE(test, mock_translates(mock, BASE, BASE + first - 1,
							MOCK_PFN, RW));
	first += npages;
	if (first < MOCK_PUD_PAGES)
		KUNIT_EXPECT_TRUE(test, mock_translates(mock, BASE + first,
							BASE + MOCK_PUD_PAGES - 1,
							MOCK_PFN + first, RW));
	mock_expect_synced(test, mock);

	unmap.iova = 0;
	unmap.size = 0;
	unmap.flags = VFIO_DMA_UNMAP_FLAG_ALL;
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), 0);
	KUNIT_EXPECT_EQ(test, unmap.size, (MOCK_PUD_PAGES - npages) << PAGE_SHIFT);
	container_check(test);
}

static void cut_pud(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	cut_pud_range(test, 0, 1);
	cut_pud_range(test, 509, 6);
	cut_pud_range(test, 1000, MOCK_PUD_PAGES - 1001);
}

/* Once a page of it is gone nobody asks for each of the others where it is. */
static void cut_pud_again(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = (BASE + 7) << PAGE_SHIFT,
		.size = PAGE_SIZE,
	};
	unsigned long nr_lookups, i;

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	map_pud(test);
	for (i = 0; i < 8; i++, unmap.iova += 1001 << PAGE_SHIFT) {
		nr_lookups = t->groups[0].domain->nr_lookups;
		KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA,
						      &unmap, sizeof(unmap)), 0);
		KUNIT_EXPECT_EQ(test, unmap.size, PAGE_SIZE);
		if (i)
			KUNIT_EXPECT_LE(test, t->groups[0].domain->nr_lookups -
					nr_lookups, 4 * MOCK_PMD_PAGES);
	}
	unmap.iova = 0;
	unmap.size = 0;
	unmap.flags = VFIO_DMA_UNMAP_FLAG_ALL;
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), 0);
	container_check(test);
}

/* Domains with other page sizes side by side, in either order */
static void cut_two_domains(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int i;

	container_memory(test, true);
	for (i = 0; i < 2; i++) {
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[i],
						       &mock_kinds[0]), 0);
		KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
		/* Late, so that what is there is replayed */
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[!i],
						       test->param_value), 0);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 700, 1), 0);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 17, 600), 0);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 1050, 900), 0);
		container_check(test);
		container_detach(test, &t->groups[0]);
		container_check(test);
		container_detach(test, &t->groups[1]);
		container_check(test);
	}
}

/* What asks for small pages has them, also in a domain that comes later. */
static void small_pages(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 512, 0, RW, true), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 512, 512, 512, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 1024, 1024, 1024, RW, true), 0);
	KUNIT_EXPECT_EQ(test, mock_largest_leaf(t->groups[0].domain, 0, ULONG_MAX), 512);
	container_check(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], test->param_value), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 300, 400), 0);
	container_check(test);
	container_unmap_all(test);
}

/*
 * What an unmap must not touch
 */

/**
 * struct mock_touched - what was done to a domain since then
 * @mock: the domain
 * @nr_map: map_pages() calls by then
 * @nr_unmapped: pages unmapped by then
 */
struct mock_touched {
	struct mock_domain *mock;
	unsigned long nr_map;
	unsigned long nr_unmapped;
};

static struct mock_touched mock_touch(struct mock_domain *mock)
{
	return (struct mock_touched) { mock, mock->nr_map, mock->nr_unmapped };
}

/* Nothing was mapped, and @npages pages and no others were unmapped. */
static void expect_unmapped(struct kunit *test, const struct mock_touched *then,
			    unsigned long npages)
{
	KUNIT_EXPECT_EQ(test, then->mock->nr_map, then->nr_map);
	KUNIT_EXPECT_EQ(test, then->mock->nr_unmapped - then->nr_unmapped, npages);
}

/* Neighbours that happen to be contiguous, each mapped by a call of its own */
static void neighbours(struct kunit *test)
{
	static const unsigned long sizes[] = { 512, 2, 16, 256, 1024, 1 };
	struct container_test *t = test->priv;
	struct mock_touched then;
	unsigned long n, at, i;
	unsigned int s, late;

	container_memory(test, false);
	for (late = 0; late < 2; late++) {
		struct mock_group *group = &t->groups[late];

		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
						       test->param_value), 0);
		for (s = 0; s < ARRAY_SIZE(sizes); s++) {
			n = sizes[s];
			for (i = 0; i < 2048 / n && i < 64; i++)
				KUNIT_ASSERT_EQ(test, container_map(test, i * n, n, i * n,
								    RW, false), 0);
			/* A domain that is given all of it at once */
			if (late)
				KUNIT_ASSERT_EQ(test, container_attach(test, group,
								       &mock_kinds[3]), 0);
			/* Each of them goes, and is mapped again. */
			for (i = 0; i < 2048 / n && i < 64; i++) {
				at = (i * 5 % min(64, 2048 / n)) * n;
				then = mock_touch(group->domain);
				KUNIT_EXPECT_EQ(test, container_unmap(test, at, n), 0);
				expect_unmapped(test, &then, n);
				if (!(i % 8))
					container_check(test);
				KUNIT_EXPECT_EQ(test, container_map(test, at, n, at, RW,
								    false), 0);
			}
			container_check(test);
			container_unmap_all(test);
			if (late)
				container_detach(test, group);
		}
		container_detach(test, &t->groups[0]);
	}
}

/* Entries of a batch that continue each other are mappings of their own as well. */
static void neighbours_batch(struct kunit *test)
{
	static const unsigned long sizes[] = { 512, 16, 2, 256 };
	struct vfio_iommu_type1v3_batch_entry entries[4] = {};
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.nr_entries = ARRAY_SIZE(entries),
	};
	struct container_test *t = test->priv;
	void __user *user = t->arg + PAGE_SIZE;
	struct mock_touched then;
	unsigned long n, i, k;
	unsigned int s;

	batch.entries = (unsigned long)user;
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	for (s = 0; s < ARRAY_SIZE(sizes); s++) {
		n = sizes[s];
		for (i = 0; i < ARRAY_SIZE(entries); i++) {
			entries[i].iova = (BASE + i * n) << PAGE_SHIFT;
			entries[i].size = n << PAGE_SHIFT;
			entries[i].vaddr = t->memory->vaddr + ((i * n) << PAGE_SHIFT);
			entries[i].flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
			for (k = i * n; k < (i + 1) * n; k++)
				t->model[k] = (struct model_page) { .user = k, .prot = RW };
		}
		KUNIT_ASSERT_EQ(test, copy_to_user(user, entries, sizeof(entries)), 0);
		KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_TYPE1V3_BATCH, &batch,
						      sizeof(batch)), 0);
		container_check(test);
		for (i = 0; i < ARRAY_SIZE(entries); i++) {
			then = mock_touch(t->groups[0].domain);
			KUNIT_EXPECT_EQ(test, container_unmap(test, (i + 1) % 4 * n, n), 0);
			expect_unmapped(test, &then, n);
		}
		container_check(test);
	}
}

/*
 * An IOMMU fails to map the rest of a request, and to unmap what it has of it: that
 * stays pinned and charged, and nothing else does.
 */
static void map_stuck(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock;
	unsigned long i;

	/* Three extents, the second of which is not mapped */
	swap(t->memory->pages[5], t->memory->pages[1500]);
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[2]), 0);
	mock = t->groups[0].domain;
	mock->fail_map = 2;
	mock->fail_unmap = 1;
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, container_map(test, 0, 16, 0, RW, false), -ENOMEM);
	}
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 5);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), 5);
	KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(&t->container->store));

	for (i = 0; i < 16; i++)
		if (mock_leaf_at(mock, BASE + i))
			iommu_unmap(&mock->domain, (BASE + i) << PAGE_SHIFT, PAGE_SIZE);
	for (i = 0; i < WINDOW; i++)
		while (mock_pins(mock_memory_pfn(t->memory, i)))
			unpin_user_page(t->memory->pages[i]);
	current->mm->locked_vm = 0;
}

/* An IOMMU fails to unmap what is to be unmapped: that stays pinned and charged. */
static void unmap_stuck(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock;
	unsigned long n;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[2]), 0);
	mock = t->groups[0].domain;
	for (n = 1; n <= 16; n += 15) {
		KUNIT_ASSERT_EQ(test, container_map(test, 0, n, 0, RW, false), 0);
		mock->fail_unmap = 1;
		kunit_warning_suppress(test) {
			KUNIT_EXPECT_EQ(test, container_unmap(test, 0, n), -EIO);
		}
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, n);
		KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), n);
		/* Also when nobody owns the container any more */
		KUNIT_EXPECT_NULL(test, t->container->owner.mm);

		iommu_unmap(&mock->domain, BASE << PAGE_SHIFT, n << PAGE_SHIFT);
		unpin_user_pages(t->memory->pages, n);
		current->mm->locked_vm = 0;
		container_check(test);
	}
}

/* A cut in one of two neighbours divides blocks of that one only. */
static void cut_beside(struct kunit *test)
{
	static const unsigned long sizes[] = { 512, 16, 256, 1024 };
	struct container_test *t = test->priv;
	struct mock_touched then;
	unsigned int s, right;
	unsigned long n;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	for (s = 0; s < ARRAY_SIZE(sizes); s++) {
		n = sizes[s];
		for (right = 0; right < 2; right++) {
			KUNIT_ASSERT_EQ(test, container_map(test, 0, n, 0, RW, false), 0);
			KUNIT_ASSERT_EQ(test, container_map(test, n, n, n, RW, false), 0);
			then = mock_touch(t->groups[0].domain);
			KUNIT_EXPECT_EQ(test, container_unmap(test, right * n + 5, 2), 0);
			/* All of a block, and then the pages themselves */
			KUNIT_EXPECT_LE(test, then.mock->nr_unmapped - then.nr_unmapped,
					n + 2);
			container_check(test);
			container_unmap_all(test);
		}
	}
}

/* 512 mappings that could be one superpage of the third size */
static void neighbours_pud(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned long i, n = MOCK_PMD_PAGES, nr_lookups;
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = (BASE + 7 * MOCK_PMD_PAGES) << PAGE_SHIFT,
		.size = MOCK_PMD_PAGES << PAGE_SHIFT,
	};
	struct mock_touched then;

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	for (i = 0; i < MOCK_PUD_PAGES; i += n)
		map_device(test, i, n, MOCK_PFN + i, VFIO_DMA_EXTENT_MAX);
	for (i = 0; i < 3; i++) {
		then = mock_touch(t->groups[0].domain);
		nr_lookups = t->groups[0].domain->nr_lookups;
		KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
						      sizeof(unmap)), 0);
		expect_unmapped(test, &then, n);
		KUNIT_EXPECT_LE(test, t->groups[0].domain->nr_lookups - nr_lookups, 8);
		map_device(test, 7 * n, n, MOCK_PFN + 7 * n, VFIO_DMA_EXTENT_MAX);
	}
	unmap = (struct vfio_iommu_type1_dma_unmap) {
		.argsz = sizeof(unmap),
		.flags = VFIO_DMA_UNMAP_FLAG_ALL,
	};
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), 0);
	container_check(test);
}

/* Where contiguous blocks end, inside of what could be a superpage */
static void hole_mapped_again(struct kunit *test)
{
	static const unsigned long holes[] = { 256, 16, 512, 3 };
	struct container_test *t = test->priv;
	unsigned int h, way;

	container_memory(test, false);
	for (h = 0; h < ARRAY_SIZE(holes); h++) {
		for (way = 0; way < 4; way++) {
			KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
			KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
							       test->param_value), 0);
			KUNIT_ASSERT_EQ(test, container_map(test, 0, 1024, 0, RW, false), 0);
			KUNIT_EXPECT_EQ(test, container_unmap(test, 0, holes[h]), 0);
			KUNIT_ASSERT_EQ(test, container_map(test, 0, holes[h], 0, RW, false), 0);
			KUNIT_EXPECT_EQ(test, container_unmap(test, 1023, 1), 0);
			container_check(test);
			switch (way) {
			case 0:	/* the last domain leaves */
				container_detach(test, &t->groups[0]);
				break;
			case 1:	/* one of two */
				KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1],
								       &mock_kinds[3]), 0);
				container_check(test);
				container_detach(test, &t->groups[0]);
				break;
			case 2:	/* a cut is lost */
				t->groups[0].domain->fail_map = 1;
				container_unmap(test, holes[h] / 2 + 512, 1);
				t->groups[0].domain->fail_map = 0;
				break;
			default:
				KUNIT_EXPECT_EQ(test, container_unmap(test, 5, 600), 0);
			}
			container_check(test);
			container_unmap_all(test);
			if (t->groups[0].wanted)
				container_detach(test, &t->groups[0]);
			if (t->groups[1].wanted)
				container_detach(test, &t->groups[1]);
			container_detach(test, &t->emulated);
		}
	}
}

/*
 * An IOMMU unmaps half of a block that is to be divided: all of the block goes, in the
 * other domain as well, stays pinned and charged, and the caller hears of it.
 */
static void split_stuck(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock;
	unsigned long i;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[3]), 0);
	mock = t->groups[0].domain;
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 512, 0, RW, false), 0);
	mock->forget_unmap = true;
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, container_unmap(test, 100, 1), -EIO);
	}
	mock->forget_unmap = false;
	KUNIT_EXPECT_TRUE(test, mock_translates(t->groups[1].domain, BASE, BASE + 511, 0, 0));
	KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(&t->container->store));
	KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), 512);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 512);
	for (i = 0; i < 512; i++)
		unpin_user_page(t->memory->pages[i]);
	current->mm->locked_vm = 0;
	container_check(test);
}

/* Multiples of the granule are unmapped, and nothing else is touched. */
static void granule(struct kunit *test)
{
	static const unsigned int orders[] = { 0, 1, 3, 4, 8, 9, 10, 18, 51 };
	struct container_test *t = test->priv;
	unsigned long g, first, npages, mapped, k;
	struct mock_touched then[2];
	unsigned int i, d, late, step;
	u32 flags;

	prandom_seed_state(&t->rnd, 1);
	container_memory(test, false);
	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		g = min(BIT(orders[i]), WINDOW);
		flags = VFIO_DMA_MAP_GRANULE(orders[i]);
		for (late = 0; late < 3; late++) {
			/* Without a domain at first; with another one later; both */
			if (late != 1)
				KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated,
								       NULL), 0);
			if (late)
				KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
								       test->param_value), 0);
			KUNIT_ASSERT_EQ(test, container_map_flags(test, 0, WINDOW, 0, RW,
								  flags), 0);
			if (!late)
				KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
								       test->param_value), 0);
			KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1],
							       &mock_kinds[3]), 0);
			container_check(test);
			for (d = 0; d < 2; d++)
				KUNIT_EXPECT_LE(test, mock_largest_leaf(t->groups[d].domain, 0,
									ULONG_MAX), g);
			/* With powers of two the granule is the size itself. */
			if (!late || t->groups[0].kind == &mock_kinds[3])
				KUNIT_EXPECT_GE(test, mock_largest_leaf(t->groups[1].domain, 0,
									ULONG_MAX), min(g, 1024UL));
			for (step = 0; step < 24; step++) {
				first = rnd(t, WINDOW) & ~(g - 1);
				npages = min(WINDOW - first, g * (1 + rnd(t, 1 + 64 / g)));
				for (d = 0; d < 2; d++)
					then[d] = mock_touch(t->groups[d].domain);
				for (k = first, mapped = 0; k < first + npages; k++)
					mapped += t->model[k].prot != 0;
				KUNIT_EXPECT_EQ(test, container_unmap(test, first, npages), 0);
				for (d = 0; d < 2; d++)
					expect_unmapped(test, &then[d], mapped);
				if (step % 3 == 1)
					continue;
				KUNIT_EXPECT_EQ(test, container_map_flags(test, first, npages,
									  first, RW, flags), 0);
			}
			container_check(test);
			/* And between the multiples */
			KUNIT_EXPECT_EQ(test, container_unmap(test, 77, 901), 0);
			container_check(test);
			container_unmap_all(test);
			container_detach(test, &t->groups[0]);
			container_detach(test, &t->groups[1]);
			if (t->emulated.wanted)
				container_detach(test, &t->emulated);
		}
	}
}

static void granule_refused(struct kunit *test)
{
	static const struct mock_kind large = { "", PAGE_SIZE << 2 | PAGE_SIZE << 9 };
	struct container_test *t = test->priv;
	u32 flags;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	flags = VFIO_DMA_MAP_GRANULE(VFIO_DMA_MAP_GRANULE_ORDER_MAX + 1);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, 0, RW, flags), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, 0, RW,
						  VFIO_DMA_MAP_GRANULE(63)), -EINVAL);
	/* An order without the bit that says that there is one */
	flags = VFIO_DMA_MAP_GRANULE(9) & ~VFIO_DMA_MAP_GRANULE(0);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, 0, RW, flags), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, 0, 0, VFIO_DMA_MAP_FLAG_VADDR |
						  VFIO_DMA_MAP_GRANULE(9)), -EINVAL);
	container_check(test);
	container_detach(test, &t->groups[0]);

	/* Smaller than the smallest page of the IOMMU */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &large), 0);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, 0, RW,
						  VFIO_DMA_MAP_GRANULE(1)), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, 0, RW,
						  VFIO_DMA_MAP_GRANULE(0)), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map_flags(test, 0, 4, 0, RW,
						  VFIO_DMA_MAP_GRANULE(2)), 0);
	container_check(test);
	container_unmap_all(test);
}

/*
 * Words that differ inside of a superpage
 */

static void container_dirty_flag(struct kunit *test, u32 flag)
{
	struct vfio_iommu_type1_dirty_bitmap dirty = {
		.argsz = sizeof(dirty),
		.flags = flag,
	};

	KUNIT_ASSERT_EQ(test, container_ioctl(test, VFIO_IOMMU_DIRTY_PAGES, &dirty,
					      sizeof(dirty)), 0);
}

static void container_track(struct kunit *test)
{
	container_dirty_flag(test, VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
}

/* The group counts as one that writes only to what it has pinned. */
static void container_see(struct kunit *test, struct mock_group *group)
{
	struct container_test *t = test->priv;
	struct vfio_type1v3_domain *domain;

	vfio_type1v3_find_group(t->container, test_group(group),
				&domain)->dirties_unseen = false;
}

/* An emulated device writes to a page that is mapped. */
static void container_dirty(struct kunit *test, unsigned long first,
			    unsigned long npages)
{
	struct container_test *t = test->priv;
	dma_addr_t iova;
	u64 data = 42;
	int ret;

	for (; npages; npages--, first++) {
		if (t->model[first].prot != RW)
			continue;
		iova = (BASE + first) << PAGE_SHIFT;
		ret = vfio_type1v3_ops.dma_rw(t->data, iova, &data,
					      sizeof(data), true);
		KUNIT_EXPECT_EQ(test, ret, 0);
		t->model[first].written = true;
	}
}

static void unmap_divided_word(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	container_track(test);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
	container_dirty(test, 7, 1);
	container_dirty(test, 510, 4);
	container_dirty(test, 1500, 100);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 512, 1), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 1510, 10), 0);
	container_check(test);
	container_unmap_all(test);
}

/* All domains go, or one of two, while a part of a superpage is dirty. */
static void detach_divided_word(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[3]), 0);
	container_see(test, &t->groups[0]);
	container_see(test, &t->groups[1]);

	container_track(test);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
	container_dirty(test, 7, 1);
	container_dirty(test, 510, 4);
	container_check(test);
	container_detach(test, &t->groups[0]);
	container_check(test);
	container_detach(test, &t->groups[1]);
	container_check(test);

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	container_check(test);
	container_unmap_all(test);
}

/*
 * What was one block when it was pinned need not be that when it is pinned anew,
 * for the next domain.
 */
static void contig_is_forgotten(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int i;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	for (i = 0; i < 2; i++) {
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
						       test->param_value), 0);
		if (!i)
			KUNIT_ASSERT_EQ(test, container_map(test, 0, 1024, 0, RW, false), 0);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 3, 1), 0);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 500 + i, 300), 0);
		container_check(test);

		container_detach(test, &t->groups[0]);
		container_check(test);
		swap(t->memory->pages[5 + i], t->memory->pages[1500 + i]);
		mock_memory_map_again(test, t->memory, PROT_READ | PROT_WRITE);
	}
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	container_unmap_all(test);
}

/* The address of a part of a superpage is updated: another word there */
static void update_vaddr(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.flags = VFIO_DMA_UNMAP_FLAG_VADDR,
		.iova = (BASE + 100) << PAGE_SHIFT,
		.size = 300 << PAGE_SHIFT,
	};
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_VADDR,
		.vaddr = t->memory->vaddr,
		.iova = (BASE + 100) << PAGE_SHIFT,
		.size = 200 << PAGE_SHIFT,
	};

	container_memory(test, false);
	map.vaddr = t->memory->vaddr + (1024 << PAGE_SHIFT);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 1024, 0, RW, false), 0);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_MAP_DMA, &map,
					      sizeof(map)), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 150, 30), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 350, 300), 0);
	container_check(test);
	container_unmap_all(test);
}

/*
 * Failures
 */

/* Each of the calls that a MAP makes fails once: nothing is left of it. */
static void map_fails(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int nth, g;
	int ret;

	container_memory(test, true);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[4]), 0);
	for (g = 0; g < 2; g++) {
		for (nth = 1; ; nth = mock_next_failure(nth)) {
			t->groups[g].domain->fail_map = nth;
			ret = container_map(test, 300, 1500, 300, RW, false);
			if (!ret)
				break;
			KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
			container_check(test);
		}
		KUNIT_EXPECT_GT(test, nth, 2);
		t->groups[g].domain->fail_map = 0;
		container_check(test);
		container_unmap_all(test);
	}
}

/* There is no user memory behind a part of the range. */
static void map_hole(struct kunit *test)
{
	struct container_test *t = test->priv;

	t->memory->limit = 1500;
	container_memory(test, true);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	KUNIT_EXPECT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), -EFAULT);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_map(test, 0, 1500, 0, RW, false), 0);
	KUNIT_EXPECT_EQ(test, container_map(test, 1499, 1, 0, RW, false), -EEXIST);
	container_check(test);
}

/* Remapping what an UNMAP has cut fails: the superpage goes as a whole. */
static void unmap_loses(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int nth, g;
	int ret;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], test->param_value), 0);
	for (g = 0; g < 2; g++) {
		for (nth = 1; ; nth = mock_next_failure(nth)) {
			container_map(test, 0, WINDOW, 0, RW, false);
			t->groups[g].domain->fail_map = nth;
			ret = container_unmap(test, 700, 500);
			t->groups[g].domain->fail_map = 0;
			container_check(test);
			if (!ret)
				break;
			KUNIT_EXPECT_EQ(test, ret, -EIO);
			container_unmap_all(test);
		}
		if (g == 0)
			KUNIT_EXPECT_GT(test, nth, 2);
		container_unmap_all(test);
	}
}

/* A domain that cannot take all that is mapped is not attached. */
static void attach_fails(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int nth;
	int ret;

	container_memory(test, true);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 10, 1900, 10, RW, false), 0);
	container_check(test);
	/* The first domain, for which all is pinned */
	for (nth = 1; ; nth = mock_next_failure(nth)) {
		mock_fail_next = nth;
		ret = container_attach(test, &t->groups[0], test->param_value);
		container_check(test);
		if (!ret)
			break;
		KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
	}
	KUNIT_EXPECT_GT(test, nth, 2);
	t->groups[0].domain->fail_map = 0;
	/* Another, which gets the translations of the first */
	for (nth = 1; ; nth = mock_next_failure(nth)) {
		mock_fail_next = nth;
		ret = container_attach(test, &t->groups[1], &mock_kinds[4] ==
				       test->param_value ? &mock_kinds[5] :
				       &mock_kinds[4]);
		container_check(test);
		if (!ret)
			break;
		KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
	}
	KUNIT_EXPECT_GT(test, nth, 2);
	t->groups[1].domain->fail_map = 0;
	container_unmap_all(test);
}

/*
 * Where a granule ends within a block of contiguous memory, a domain that is not
 * attached can have a part of the block.
 */
static void attach_fails_granule(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int nth;
	int ret;

	container_memory(test, true);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[1]), 0);
	KUNIT_ASSERT_EQ(test, container_map_flags(test, 0, WINDOW, 0, RW,
						  VFIO_DMA_MAP_GRANULE(4)), 0);
	for (nth = 1; ; nth = mock_next_failure(nth)) {
		mock_fail_next = nth;
		ret = container_attach(test, &t->groups[1], &mock_kinds[3]);
		container_check(test);
		if (!ret)
			break;
		KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
	}
	KUNIT_EXPECT_GT(test, nth, WINDOW / 16);
	t->groups[1].domain->fail_map = 0;
	container_unmap_all(test);
}

/* The same kind of IOMMU, the same domain; the MSI window is not for mapping. */
static void attach_shares(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ,
		.iova = MOCK_MSI_START + MOCK_MSI_SIZE - PAGE_SIZE,
		.size = 2 * PAGE_SIZE,
	};

	container_memory(test, false);
	map.vaddr = t->memory->vaddr;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 5, 10, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[0]), 0);
	KUNIT_EXPECT_PTR_EQ(test, t->groups[0].domain, t->groups[1].domain);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.attach_group(t->data,
							    test_group(&t->groups[0]),
							    VFIO_IOMMU), -EINVAL);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_MAP_DMA, &map,
					      sizeof(map)), -EINVAL);
	container_check(test);
	container_detach(test, &t->groups[0]);
	container_check(test);
	KUNIT_ASSERT_NOT_NULL(test, t->groups[1].domain);
	container_detach(test, &t->groups[1]);
	container_check(test);
}

/*
 * IOMMUs that differ
 */

static long container_coherent(struct kunit *test)
{
	struct container_test *t = test->priv;

	return vfio_type1v3_ops.ioctl(t->data, VFIO_CHECK_EXTENSION,
				      VFIO_DMA_CC_IOMMU);
}

/* Each domain is made coherent that can be; all of them are, or it is said. */
static void coherency(struct kunit *test)
{
	struct container_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.ioctl(NULL, VFIO_CHECK_EXTENSION,
						     VFIO_DMA_CC_IOMMU), 0);
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_EXPECT_EQ(test, container_coherent(test), 1);
	mock_can_enforce = true;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_EXPECT_TRUE(test, t->groups[0].domain->enforced);
	KUNIT_EXPECT_EQ(test, container_coherent(test), 1);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 600, 0, RW, false), 0);

	/* The same IOMMU, but for that: it is not the same domain. */
	mock_can_enforce = false;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[0]), 0);
	KUNIT_EXPECT_PTR_NE(test, t->groups[0].domain, t->groups[1].domain);
	KUNIT_EXPECT_EQ(test, container_coherent(test), 0);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 100, 300), 0);
	container_check(test);
	container_detach(test, &t->groups[0]);
	KUNIT_EXPECT_EQ(test, container_coherent(test), 0);
	mock_can_enforce = true;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	container_check(test);
	container_detach(test, &t->groups[1]);
	KUNIT_EXPECT_EQ(test, container_coherent(test), 1);
	container_check(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[0]), 0);
	KUNIT_EXPECT_PTR_EQ(test, t->groups[0].domain, t->groups[1].domain);
	container_unmap_all(test);
}

/* One page at an IOVA, outside of the window */
static long container_map_at(struct kunit *test, dma_addr_t iova)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ,
		.vaddr = t->memory->vaddr,
		.iova = iova,
		.size = PAGE_SIZE,
	};
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = iova,
		.size = PAGE_SIZE,
	};
	long ret;

	ret = container_ioctl(test, VFIO_IOMMU_MAP_DMA, &map, sizeof(map));
	if (!ret) {
		KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA,
						      &unmap, sizeof(unmap)), 0);
		KUNIT_EXPECT_EQ(test, unmap.size, PAGE_SIZE);
	}
	return ret;
}

/* What the groups reserve cannot be mapped, but for what firmware had reserved. */
static void reserved_regions(struct kunit *test)
{
	static const struct mock_kind sw_msi = {
		.pgsizes = PAGE_SIZE | PAGE_SIZE << 9, .sw_msi = true,
	};
	struct container_test *t = test->priv;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_EXPECT_EQ(test, t->groups[0].domain->msi_cookie, 0);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_RELAXABLE), 0);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_SW_MSI), 0);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_MSI_START), -EINVAL);

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &sw_msi), 0);
	KUNIT_EXPECT_EQ(test, t->groups[1].domain->msi_cookie, MOCK_SW_MSI);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_RELAXABLE), 0);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_SW_MSI), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_SW_MSI + MOCK_MSI_SIZE), 0);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_MSI_START), -EINVAL);

	container_detach(test, &t->groups[0]);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_MSI_START), 0);
	KUNIT_EXPECT_EQ(test, container_map_at(test, MOCK_SW_MSI), -EINVAL);
}

/* An IOMMU that translates less: refused while more is mapped, then it counts. */
static void narrow_aperture(struct kunit *test)
{
	static const struct mock_kind narrow = {
		.pgsizes = PAGE_SIZE,
		.aperture_end = ((FAR + WINDOW / 2) << PAGE_SHIFT) - 1,
	};
	struct container_test *t = test->priv;
	unsigned int i;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	/* Alone with emulated devices, and next to another IOMMU */
	for (i = 0; i < 2; i++) {
		KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
		KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[1], &narrow),
				-EINVAL);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_unmap(test, WINDOW / 2, WINDOW / 2), 0);
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &narrow), 0);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_map(test, WINDOW / 2, 1, 0, RW, false),
				-EINVAL);
		KUNIT_EXPECT_EQ(test, container_unmap(test, WINDOW / 2 - 1, 1), 0);
		KUNIT_EXPECT_EQ(test, container_map(test, WINDOW / 2 - 1, 2, 0, RW,
						    false), -EINVAL);
		KUNIT_EXPECT_EQ(test, container_map(test, WINDOW / 2 - 1, 1, 0, RW,
						    false), 0);
		container_detach(test, &t->groups[1]);
		KUNIT_EXPECT_EQ(test, container_map(test, WINDOW / 2, WINDOW / 2, 0, RW,
						    false), 0);
		container_check(test);
		container_unmap_all(test);
		if (!i)
			KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
							       &mock_kinds[0]), 0);
	}
}

/* An IOMMU whose smallest page is of several pages */
static const struct mock_kind large = {
	.pgsizes = PAGE_SIZE << 4 | PAGE_SIZE << 9,
};

/* User addresses have to be aligned to them, too. */
static void container_memory_aligned(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, false);
	t->memory->vaddr = mock_map_file_at(test, "[mock memory]", &mock_memory_fops,
					    t->memory, WINDOW, PROT_READ | PROT_WRITE,
					    ALIGN_DOWN(t->memory->vaddr, PAGE_SIZE << 4));
}

/* All calls are in its pages. */
static void large_pages(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct {
		struct vfio_iommu_type1_info info;
		u8 caps[512];
	} arg = { .info.argsz = sizeof(arg) };
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} get = {
		.dirty.argsz = sizeof(get),
		.dirty.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
		.get.iova = BASE << PAGE_SHIFT,
		.get.size = 64 << PAGE_SHIFT,
		.get.bitmap.pgsize = PAGE_SIZE,
		.get.bitmap.size = sizeof(u64),
		.get.bitmap.data = t->arg + ARG_BITMAP,
	};
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = BASE << PAGE_SHIFT,
		.size = PAGE_SIZE,
	};
	u64 bits;

	container_memory_aligned(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 20, 0, RW, false), 0);
	KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[0], &large), -EINVAL);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 16, 4), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &large), 0);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_GET_INFO, &arg,
					      sizeof(arg)), 0);
	KUNIT_EXPECT_EQ(test, arg.info.iova_pgsizes, large.pgsizes);

	KUNIT_EXPECT_EQ(test, container_map(test, 16, 8, 16, RW, false), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map(test, 24, 16, 24, RW, false), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_map(test, 32, 32, 32, RW, false), 0);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), -EINVAL);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 32, 16), 0);
	container_check(test);

	/* A bit is for one of its pages, too. */
	container_track(test);
	container_see(test, &t->groups[0]);
	container_dirty(test, 49, 1);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_DIRTY_PAGES, &get,
					      sizeof(get)), -EINVAL);
	get.get.bitmap.pgsize = PAGE_SIZE << 4;
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_DIRTY_PAGES, &get,
					      sizeof(get)), 0);
	KUNIT_ASSERT_EQ(test, copy_from_user(&bits, t->arg + ARG_BITMAP,
					     sizeof(bits)), 0);
	KUNIT_EXPECT_EQ(test, bits, BIT(3));

	/* Next to others it is still the smallest; without it, theirs is. */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[3]), 0);
	KUNIT_EXPECT_EQ(test, container_map(test, 80, 1, 0, RW, false), -EINVAL);
	container_detach(test, &t->groups[0]);
	KUNIT_EXPECT_EQ(test, container_map(test, 80, 1, 0, RW, false), 0);
	container_check(test);
	container_unmap_all(test);
}

/*
 * Dirty bits of IOMMUs
 */

static const struct mock_kind dirty_kinds[] = {
	{ "three sizes", PAGE_SIZE | PAGE_SIZE << 9 | PAGE_SIZE << 18,
	  .dirty = true },
	{ "close sizes", PAGE_SIZE | PAGE_SIZE << 4 | PAGE_SIZE << 8,
	  .sync_disjoint = true, .dirty = true },
	{ "one size", PAGE_SIZE, .dirty = true },
	{ "calls of sizes", PAGE_SIZE | PAGE_SIZE << 9, .unit_is_call = true,
	  .dirty = true },
};

KUNIT_ARRAY_PARAM_DESC(dirty_kind, dirty_kinds, name);

/* One more IOMMU, which shares no domain with those */
static const struct mock_kind other_dirty = {
	.pgsizes = PAGE_SIZE | PAGE_SIZE << 4 | PAGE_SIZE << 8, .dirty = true,
};

/* GET_INFO says where dirty pages are known from. */
static void expect_source(struct kunit *test, u32 source)
{
	struct {
		struct vfio_iommu_type1_info info;
		u8 caps[512];
	} arg = { .info.argsz = sizeof(arg) };
	struct vfio_iommu_type1v3_info_cap_dirty *cap;
	u32 offset;

	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_GET_INFO, &arg,
					      sizeof(arg)), 0);
	for (offset = arg.info.cap_offset; offset; offset = cap->header.next) {
		cap = (void *)&arg + offset;
		if (cap->header.id == VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY)
			break;
	}
	KUNIT_ASSERT_NE(test, offset, 0);
	KUNIT_EXPECT_EQ(test, cap->source, source);
}

/* A device of the group writes to pages. */
static void container_write(struct kunit *test, struct mock_group *group,
			    unsigned long first, unsigned long npages)
{
	struct container_test *t = test->priv;

	for (; npages; npages--, first++)
		if (mock_write(group->domain, BASE + first))
			t->model[first].written = true;
}

/*
 * GET_BITMAP of a part of the window, or UNMAP with a bitmap, to @data or to the
 * usual place if that is 0.  Nothing around the bitmap may change.
 */
static int container_bits(struct kunit *test, unsigned long first,
			  unsigned long npages, bool unmap, u64 data)
{
	struct container_test *t = test->priv;
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} get = {
		.dirty.argsz = sizeof(get),
		.dirty.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
		.get.iova = (BASE + first) << PAGE_SHIFT,
		.get.size = npages << PAGE_SHIFT,
		.get.bitmap.pgsize = PAGE_SIZE,
	};
	struct {
		struct vfio_iommu_type1_dma_unmap unmap;
		struct vfio_bitmap bitmap;
	} arg = {
		.unmap.argsz = sizeof(arg),
		.unmap.flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
		.unmap.iova = get.get.iova,
		.unmap.size = get.get.size,
	};
	size_t bytes = VFIO_TYPE1V3_BITMAP_BYTES(npages);
	u8 __user *user = t->arg + t->bitmap;
	u8 *area = kunit_kmalloc(test, bytes + 2 * ARG_GUARD, GFP_KERNEL);
	unsigned long i;
	int ret;

	KUNIT_ASSERT_NOT_NULL(test, area);
	memset(area, 0xa5, bytes + 2 * ARG_GUARD);
	memset(area + ARG_GUARD, 0x5a, bytes);
	KUNIT_ASSERT_EQ(test, copy_to_user(user - ARG_GUARD, area,
					   bytes + 2 * ARG_GUARD), 0);
	get.get.bitmap.data = data ? (void __user *)data : (void __user *)user;
	get.get.bitmap.size = bytes;
	arg.bitmap = get.get.bitmap;
	if (unmap)
		ret = container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &arg, sizeof(arg));
	else
		ret = container_ioctl(test, VFIO_IOMMU_DIRTY_PAGES, &get, sizeof(get));
	KUNIT_ASSERT_EQ(test, copy_from_user(area, user - ARG_GUARD,
					     bytes + 2 * ARG_GUARD), 0);
	for (i = 0; i < ARG_GUARD; i++) {
		KUNIT_EXPECT_EQ(test, area[i], 0xa5);
		KUNIT_EXPECT_EQ(test, area[ARG_GUARD + bytes + i], 0xa5);
	}
	bitmap_zero(t->bits, WINDOW);
	if (!ret)
		memcpy(t->bits, area + ARG_GUARD, bytes);
	kunit_kfree(test, area);
	return ret;
}

/* All that has been written to is reported, and only what is mapped. */
static void container_get(struct kunit *test, unsigned long first,
			  unsigned long npages, bool unmap)
{
	struct container_test *t = test->priv;
	unsigned long i, missed = 0, wrong = 0;
	struct model_page *page;
	struct mock_domain *mock;

	for (i = 0; i < ARRAY_SIZE(t->groups); i++) {
		mock = t->groups[i].domain;
		if (mock && mock->busy)
			container_write(test, &t->groups[i], mock->busy - BASE, 1);
	}
	KUNIT_EXPECT_EQ(test, container_bits(test, first, npages, unmap, 0), 0);
	for (i = 0; i < npages; i++) {
		page = &t->model[first + i];
		missed += page->prot && page->written && !test_bit(i, t->bits);
		wrong += !page->prot && test_bit(i, t->bits);
		page->written = false;
		if (unmap)
			page->prot = 0;
	}
	for (; i < WINDOW; i++)
		wrong += test_bit(i, t->bits);
	KUNIT_EXPECT_EQ(test, missed, 0);
	KUNIT_EXPECT_EQ(test, wrong, 0);
	container_check(test);
}

/* What container_get() got is dirty in [@first, @first + @npages), or all of it is. */
static void container_expect(struct kunit *test, unsigned long first,
			     unsigned long npages)
{
	struct container_test *t = test->priv;
	unsigned long n = npages;

	if (npages)
		KUNIT_EXPECT_EQ(test, find_next_zero_bit(t->bits, first + n, first),
				first + n);
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW), npages);
}

/* How many pages a page is in one superpage with */
static unsigned long container_leaf(struct kunit *test, unsigned long index,
				    unsigned long *first)
{
	struct container_test *t = test->priv;
	struct mock_leaf *leaf = mock_leaf_at(t->groups[0].domain, BASE + index);

	KUNIT_ASSERT_NOT_NULL(test, leaf);
	*first = leaf->first - BASE;
	return leaf->last - leaf->first + 1;
}

/* A container with one group and all of the window mapped, and tracking */
static struct mock_domain *container_hardware(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
					       test->param_value), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_track(test);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	return t->groups[0].domain;
}

static void hardware_bits(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock = container_hardware(test);
	unsigned long first, npages, bytes;
	unsigned int i;

	bytes = vfio_xa_dma_footprint(&t->container->store);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);
	/* Each time anew, which takes an IOTLB that knows */
	for (i = 0; i < 3; i++) {
		container_write(test, &t->groups[0], 700, 1);
		container_get(test, 0, WINDOW, false);
		npages = container_leaf(test, 700, &first);
		container_expect(test, first, npages);
		container_get(test, 0, WINDOW, false);
		container_expect(test, 0, 0);
	}
	/* It takes nothing of the store. */
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_footprint(&t->container->store), bytes);

	/* A second START changes nothing. */
	container_write(test, &t->groups[0], 0, 1);
	container_track(test);
	container_get(test, 0, WINDOW, false);
	npages = container_leaf(test, 0, &first);
	container_expect(test, 0, npages);

	/* What emulated devices write comes on top. */
	container_write(test, &t->groups[0], 0, 1);
	container_dirty(test, WINDOW - 1, 1);
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_TRUE(test, test_bit(WINDOW - 1, t->bits));
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW), npages + 1);

	/* STOP forgets, and what is written then nobody knows. */
	container_write(test, &t->groups[0], 20, 1);
	container_dirty_flag(test, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
	KUNIT_EXPECT_FALSE(test, mock->tracking);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_write(test, &t->groups[0], 300, 1);
	container_track(test);
	KUNIT_EXPECT_TRUE(test, mock->tracking);
	KUNIT_EXPECT_EQ(test, container_bits(test, 0, WINDOW, false, 0), 0);
	container_expect(test, 0, 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_footprint(&t->container->store), bytes);
	container_unmap_all(test);
}

/* Ranges that begin and end inside of superpages: the others' bits remain. */
static void hardware_borders(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock = container_hardware(test);
	unsigned long first, npages;

	container_write(test, &t->groups[0], 50, 1);
	npages = container_leaf(test, 50, &first);
	/* Also those in the middle of which the range begins, or is */
	container_get(test, 53, 800, false);
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW),
			npages > 1 ? first + npages - 53 : 0);
	container_get(test, 49, 2, false);
	container_expect(test, npages > 1 ? 0 : 1, min(npages, 2UL));
	/* One that has nothing to do with the border is another's to report. */
	container_write(test, &t->groups[0], 1700, 1);
	container_get(test, 0, 49, false);
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW),
			npages > 1 ? 49 - first : 0);
	if (npages > 52) {
		container_get(test, 51, 2, false);
		container_expect(test, 0, 2);
	}
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_TRUE(test, test_bit(1700, t->bits));
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);

	/* With a device that writes all the time */
	mock->busy = BASE + 1000;
	container_get(test, 1001, 900, false);
	container_get(test, 100, 900, false);
	container_get(test, 1000, 1, false);
	container_expect(test, 0, 1);
	mock->busy = 0;
	container_get(test, 0, WINDOW, false);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);
	container_unmap_all(test);
}

/* There is nothing below the block of IOVA 0. */
static void hardware_borders_at_0(struct kunit *test)
{
	base = 0;
	hardware_borders(test);
}

/* A superpage is divided: what was written to the rest of it is not forgotten. */
static void hardware_cut(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock = container_hardware(test);

	container_write(test, &t->groups[0], 5, 1);
	container_write(test, &t->groups[0], 1030, 1);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 300, 750), 0);
	container_get(test, 0, WINDOW, false);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);

	/* A device writes when nobody reads its bit any more. */
	mock->busy = BASE + 1800;
	KUNIT_EXPECT_EQ(test, container_unmap(test, 1801, 2), 0);
	mock->busy = 0;
	t->model[1800].written = true;
	container_get(test, 0, WINDOW, false);

	/* The parts go on being tracked. */
	container_write(test, &t->groups[0], 1800, 1);
	container_write(test, &t->groups[0], 299, 1);
	container_get(test, 0, WINDOW, false);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);
	container_unmap_all(test);
}

static void hardware_unmap(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_hardware(test);
	container_write(test, &t->groups[0], 5, 1);
	container_write(test, &t->groups[0], 600, 1);
	container_write(test, &t->groups[0], 700, 1);
	container_write(test, &t->groups[0], 1700, 1);
	container_get(test, 512, 100, true);
	KUNIT_EXPECT_TRUE(test, test_bit(600 - 512, t->bits));
	container_get(test, 1, 511, true);
	KUNIT_EXPECT_TRUE(test, test_bit(4, t->bits));
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_TRUE(test, test_bit(700, t->bits));
	KUNIT_EXPECT_TRUE(test, test_bit(1700, t->bits));
	/* Mapped anew it is clean. */
	KUNIT_ASSERT_EQ(test, container_map(test, 1, 611, 1, RW, false), 0);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);
	container_get(test, 0, WINDOW, true);
	container_expect(test, 0, 0);
	container_check(test);
}

/* Device memory: can be written to as user memory, but not be pinned. */
static int pfnmap_mmap(struct file *file, struct vm_area_struct *vma)
{
	return remap_pfn_range(vma, vma->vm_start,
			       (unsigned long)file->private_data,
			       vma->vm_end - vma->vm_start, vma->vm_page_prot);
}

static const struct file_operations pfnmap_fops = {
	.owner	= THIS_MODULE,
	.mmap	= pfnmap_mmap,
};

static void pfnmap_at(struct kunit *test, unsigned long vaddr, unsigned long pfn)
{
	struct file *file = anon_inode_getfile("[mock device]", &pfnmap_fops,
					       (void *)pfn, O_RDWR);

	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	KUNIT_ASSERT_EQ(test, kunit_vm_mmap(test, file, vaddr, PAGE_SIZE,
					    PROT_READ | PROT_WRITE,
					    MAP_SHARED | MAP_FIXED, 0), vaddr);
	fput(file);
}

/* Two pages of user memory, of which the second is a device's */
static unsigned long pfnmap_behind(struct kunit *test, struct page *page)
{
	unsigned long vaddr = kunit_vm_mmap(test, NULL, 0, 2 * PAGE_SIZE,
					    PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, 0);

	pfnmap_at(test, vaddr + PAGE_SIZE, page_to_pfn(page));
	return vaddr;
}

/* A bitmap that cannot be written, and an IOMMU that cannot be read */
static void hardware_fails(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock = container_hardware(test);
	struct page *page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	unsigned long vaddr;
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, page);
	vaddr = pfnmap_behind(test, page);
	container_write(test, &t->groups[0], 5, 1);
	container_write(test, &t->groups[0], 1700, 1);
	/* There is none, there is a device, and there is one at its end. */
	for (i = 0; i < 2; i++) {
		KUNIT_EXPECT_EQ(test, container_bits(test, 3, 1800, i, PAGE_SIZE),
				-EFAULT);
		KUNIT_EXPECT_EQ(test, container_bits(test, 3, 1800, i,
						     vaddr + PAGE_SIZE), -EFAULT);
		KUNIT_EXPECT_EQ(test, container_bits(test, 3, 1800, i,
						     vaddr + PAGE_SIZE - 16), -EFAULT);
		container_check(test);
	}
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_FALSE(test, test_bit(1000, t->bits));

	/* It goes when the bits have been read: they can be anywhere. */
	container_write(test, &t->groups[0], 5, 1);
	mock->munmap = vaddr;
	KUNIT_EXPECT_EQ(test, container_bits(test, 1, 1800, false, vaddr), -EFAULT);
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_TRUE(test, test_bit(1000, t->bits));
	KUNIT_EXPECT_FALSE(test, test_bit(WINDOW - 1, t->bits));
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);

	mock->fail_read = true;
	container_write(test, &t->groups[0], 5, 1);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, WINDOW);
	mock->fail_read = false;
	container_get(test, 0, WINDOW, false);
	container_unmap_all(test);
	vm_munmap(vaddr, 2 * PAGE_SIZE);
	__free_page(page);
}

/* A bitmap need not be aligned, and what fills up its last word has no pages. */
static void hardware_unaligned(struct kunit *test)
{
	static const unsigned int npages[] = { 1, 8, 9, 63, 64, 65, 100, WINDOW };
	struct container_test *t = test->priv;
	unsigned int i, offset;

	container_hardware(test);
	for (i = 0; i < ARRAY_SIZE(npages); i++) {
		for (offset = 1; offset <= 9; offset++) {
			t->bitmap = 2 * PAGE_SIZE - offset;
			if (npages[i] == WINDOW)
				t->bitmap -= 128;
			container_write(test, &t->groups[0], offset, 1);
			container_write(test, &t->groups[0], npages[i] - 1, 1);
			container_get(test, 0, npages[i], false);
			KUNIT_EXPECT_TRUE(test, test_bit(npages[i] - 1, t->bits));
			container_get(test, 0, WINDOW, false);
		}
	}
	t->bitmap = ARG_BITMAP;
	container_unmap_all(test);
}

/* The range is read in windows that end where no bit need begin a byte. */
static void hardware_windows(struct kunit *test)
{
	const unsigned int border = 1003;
	struct container_test *t = test->priv;
	unsigned int first;

	base = FAR + MOCK_PUD_PAGES - border;
	container_hardware(test);
	container_get(test, 0, WINDOW, false);
	for (first = 0; first < 9; first++) {
		container_write(test, &t->groups[0], 12, 1);
		container_write(test, &t->groups[0], border - 1, 2);
		container_write(test, &t->groups[0], WINDOW - 1, 1);
		container_dirty(test, border - 2, 1);
		container_dirty(test, border + 1, 1);
		container_get(test, first, WINDOW - first, false);
		/* User memory is contiguous, but not as aligned as that. */
		KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW), 6);
		container_get(test, 0, WINDOW, false);
		container_expect(test, 0, 0);
	}
	container_unmap_all(test);
}

/* Map, or get the dirty bitmap of, what is outside of the window. */
static void far_map(struct kunit *test, unsigned long index)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = t->memory->vaddr,
		.iova = (BASE + index) << PAGE_SHIFT,
		.size = PAGE_SIZE,
	};

	KUNIT_ASSERT_EQ(test, container_ioctl(test, VFIO_IOMMU_MAP_DMA, &map,
					      sizeof(map)), 0);
}

static int far_get(struct kunit *test, unsigned long npages, unsigned long vaddr)
{
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} get = {
		.dirty.argsz = sizeof(get),
		.dirty.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
		.get.iova = BASE << PAGE_SHIFT,
		.get.size = npages << PAGE_SHIFT,
		.get.bitmap.pgsize = PAGE_SIZE,
		.get.bitmap.size = VFIO_TYPE1V3_BITMAP_BYTES(npages),
		.get.bitmap.data = (void __user *)vaddr,
	};

	return container_ioctl(test, VFIO_IOMMU_DIRTY_PAGES, &get, sizeof(get));
}

/*
 * A bitmap of more than 2 MiB loses a page, and has another before the call ends.
 * What an IOMMU has recorded is reported then, or by the next call.
 */
static void hardware_large(struct kunit *test)
{
	/* Pages that are written to, with a few GiB between them and most of 64 */
	static const unsigned long pages[] = {
		0, 5000, 65 * MOCK_PUD_PAGES, 66 * MOCK_PUD_PAGES + 7,
	};
	/* Whose bits' page goes when the first one's are read, and when it is back */
	static const struct { unsigned int gone, remap; } cases[] = {
		{ 2, 0 }, { 2, 2 }, { 2, 3 }, { 0, 1 }, { 0, 2 }, { 3, 1 }, { 3, 3 },
	};
	const unsigned long npages = 67 * MOCK_PUD_PAGES;
	const size_t bytes = VFIO_TYPE1V3_BITMAP_BYTES(npages);
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.flags = VFIO_DMA_UNMAP_FLAG_ALL,
	};
	struct container_test *t = test->priv;
	unsigned int i, k, found;
	struct mock_domain *mock;
	unsigned long vaddr, at;
	u8 byte;
	int ret;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], test->param_value), 0);
	mock = t->groups[0].domain;
	vaddr = kunit_vm_mmap(test, NULL, 0, bytes, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_NE(test, vaddr, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(vaddr));
	for (k = 0; k < ARRAY_SIZE(pages); k++)
		far_map(test, pages[k]);
	container_track(test);

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		for (k = 0; k < ARRAY_SIZE(pages); k++)
			KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + pages[k]));
		at = vaddr + pages[cases[i].gone] / BITS_PER_BYTE;
		at &= PAGE_MASK;
		mock->munmap = at;
		mock->remap = cases[i].remap;
		found = 0;
		do {
			ret = far_get(test, npages, vaddr);
			if (ret) {
				KUNIT_ASSERT_EQ(test, ret, -EFAULT);
				at = kunit_vm_mmap(test, NULL, at, PAGE_SIZE,
						   PROT_READ | PROT_WRITE,
						   MAP_PRIVATE | MAP_ANONYMOUS |
						   MAP_FIXED, 0);
				mock->gone = 0;
				continue;
			}
			for (k = 0; k < ARRAY_SIZE(pages); k++) {
				byte = 0;
				KUNIT_EXPECT_EQ(test, get_user(byte, (u8 __user *)vaddr +
							pages[k] / BITS_PER_BYTE), 0);
				found += !!(byte & BIT(pages[k] % BITS_PER_BYTE));
			}
		} while (ret);
		KUNIT_EXPECT_EQ_MSG(test, found, ARRAY_SIZE(pages), "case %u", i);
	}
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), 0);
}

/* Domains come and go while writes are tracked. */
static void hardware_domains(struct kunit *test)
{
	struct container_test *t = test->priv;

	container_hardware(test);
	/* One that does not track: everything, until it has gone */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[0]), 0);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_ALL);
	container_write(test, &t->groups[0], 5, 1);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, WINDOW);
	/* Or until it turns out to write only to what it has pinned */
	container_see(test, &t->groups[1]);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_get(test, 0, WINDOW, false);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);
	container_detach(test, &t->groups[1]);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[0]), 0);
	container_detach(test, &t->groups[1]);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, WINDOW);
	container_get(test, 0, WINDOW, false);
	container_expect(test, 0, 0);

	/* One that tracks is made to; and both are asked. */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &other_dirty), 0);
	KUNIT_EXPECT_TRUE(test, t->groups[1].domain->tracking);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_write(test, &t->groups[0], 5, 1);
	container_write(test, &t->groups[1], 1700, 1);
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_FALSE(test, test_bit(1000, t->bits));
	container_write(test, &t->groups[1], 1700, 1);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 1690, 5), 0);
	container_get(test, 1, 1699, false);
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_FALSE(test, test_bit(1000, t->bits));
	/* It goes, and its IO page table with it. */
	container_write(test, &t->groups[1], 1700, 1);
	container_detach(test, &t->groups[1]);
	container_get(test, 0, WINDOW, false);
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW), WINDOW - 5);

	/* One that fails to */
	mock_fail_track = true;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &other_dirty), 0);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_ALL);
	container_write(test, &t->groups[1], 1700, 1);
	container_get(test, 0, WINDOW, false);
	/* It may do better next time. */
	container_dirty_flag(test, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_track(test);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_ALL);
	container_dirty_flag(test, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
	t->groups[1].domain->fail_track = false;
	container_track(test);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_unmap_all(test);
}

/* Groups behind one IOMMU: its bits remain when one of them goes. */
static void hardware_shared(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned long first, npages;

	container_hardware(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1],
					       test->param_value), 0);
	KUNIT_EXPECT_PTR_EQ(test, t->groups[0].domain, t->groups[1].domain);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_write(test, &t->groups[1], 700, 1);
	npages = container_leaf(test, 700, &first);
	container_detach(test, &t->groups[1]);
	container_get(test, 0, WINDOW, false);
	container_expect(test, first, npages);

	/* Without the bits it is another domain. */
	mock_refuse_dirty = true;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1],
					       test->param_value), 0);
	KUNIT_EXPECT_PTR_NE(test, t->groups[0].domain, t->groups[1].domain);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_ALL);
	container_detach(test, &t->groups[1]);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	container_unmap_all(test);
}

/*
 * Pins and what else drivers call
 */

static void ignore_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
}

static const struct vfio_device_ops device_ops = {
	.name		= "mock",
	.dma_unmap	= ignore_dma_unmap,
};

#define PIN_OFTEN	2500UL
#define PIN_DENSE	256UL

static int pin_one_page(struct container_test *t, unsigned long page,
			struct page **pages)
{
	return vfio_type1v3_ops.pin_pages(t->data, test_group(&t->emulated),
					  (BASE + page) << PAGE_SHIFT, 1, RW, pages);
}

/* The number of pins of a page has an end, and pins of several pages none of it. */
static void pin_overflow(struct kunit *test)
{
	const unsigned long max = VFIO_TYPE1V3_PIN_COUNT_MASK;
	const unsigned long one = VFIO_TYPE1V3_PIN_ONE;
	struct container_test *t = test->priv;
	struct iommu_group *group = test_group(&t->emulated);
	struct vfio_xa_dma *pins = &t->container->pins;
	dma_addr_t iova = BASE << PAGE_SHIFT;
	struct vfio_device *device;
	struct page *pages[3];
	unsigned long value, i, k, at;

	device = kunit_kzalloc(test, sizeof(*device), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, device);
	device->ops = &device_ops;
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	vfio_type1v3_ops.register_device(t->data, device);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 8, 0, RW, false), 0);

	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data, group, iova, 3,
							 RW, pages), 3);
	/* As many pins of the page in the middle as there can be, less one */
	value = vfio_xa_dma_load(pins, BASE + 1);
	KUNIT_EXPECT_EQ(test, value & max, one);
	vfio_xa_dma_change(pins, BASE + 1, BASE + 1, one, max - one);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data, group, iova, 3,
							 RW, pages), 3);
	KUNIT_EXPECT_PTR_EQ(test, pages[1], t->memory->pages[1]);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(pins, BASE + 1), value | max);

	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data, group, iova, 3,
							 RW, pages), -EOVERFLOW);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data, group,
							 iova + PAGE_SIZE, 1,
							 RW, pages), -EOVERFLOW);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(pins, BASE + 1), value | max);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(pins, BASE) & max, 2 * one);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(pins, BASE + 2) & max, 2 * one);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), 3);

	/* One less, and there is room for one */
	vfio_type1v3_ops.unpin_pages(t->data, iova + PAGE_SIZE, 1);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data, group,
							 iova + PAGE_SIZE, 1,
							 RW, pages), 1);

	vfio_xa_dma_change(pins, BASE + 1, BASE + 1, max, 2 * one);
	vfio_type1v3_ops.unpin_pages(t->data, iova, 3);
	vfio_type1v3_ops.unpin_pages(t->data, iova, 3);
	KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(pins));

	/* Among many, and alone in its block: so that they are kept in other forms */
	KUNIT_ASSERT_EQ(test, container_map(test, 8, 1016, 8, RW, false), 0);
	for (i = 0; i < PIN_DENSE; i++)
		KUNIT_ASSERT_EQ(test, pin_one_page(t, i, pages), 1);
	for (k = 0; k < 2; k++) {
		at = k ? 1000 : 1;
		for (i = 2 - k; i <= PIN_OFTEN; i++) {
			KUNIT_ASSERT_EQ(test, pin_one_page(t, at, pages), 1);
			KUNIT_ASSERT_PTR_EQ(test, pages[0], t->memory->pages[at]);
			KUNIT_ASSERT_EQ(test, vfio_xa_dma_load(pins, BASE + at) & max,
					i * one);
		}
	}
	KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), PIN_DENSE + 1);
	for (k = 0; k < 2; k++)
		for (i = 0; i < PIN_OFTEN; i++)
			vfio_type1v3_ops.unpin_pages(t->data, iova +
						     (k ? 1000 : 1) * PAGE_SIZE, 1);
	for (i = 0; i < PIN_DENSE; i++)
		if (i != 1)
			vfio_type1v3_ops.unpin_pages(t->data, iova + i * PAGE_SIZE, 1);
	KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(pins));

	/* No page frame number has a bit that is for something else. */
	for (i = 0; i < 40; i++) {
		value = vfio_type1v3_pin_word(BIT(i));
		KUNIT_EXPECT_EQ(test, vfio_type1v3_pin_pfn(value), BIT(i));
		KUNIT_EXPECT_EQ(test, value & (max | VFIO_TYPE1V3_PIN_WRITE |
					       VFIO_TYPE1V3_PIN_CHARGED), one);
		KUNIT_EXPECT_EQ(test, value & BIT(VFIO_XA_DMA_FLAG_BITS - 1), 0);
	}
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_unmap_all(test);
}

static struct vfio_device *pin_device(struct kunit *test,
				      const struct vfio_device_ops *ops)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;

	device = kunit_kzalloc(test, sizeof(*device), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, device);
	device->ops = ops;
	vfio_type1v3_ops.register_device(t->data, device);
	return device;
}

static int pin_some(struct container_test *t, unsigned long page, int npages, int prot)
{
	struct page *pages[16];

	return vfio_type1v3_ops.pin_pages(t->data, test_group(&t->emulated),
					  (BASE + page) << PAGE_SHIFT, npages, prot,
					  pages);
}

static void unpin_some(struct container_test *t, unsigned long page, int npages)
{
	vfio_type1v3_ops.unpin_pages(t->data, (BASE + page) << PAGE_SHIFT, npages);
}

/*
 * While an unmap waits for a driver, nothing in its range is pinned, whatever other
 * calls do there in the meantime; and so the driver is told once.
 */
static struct kunit *exclude_test;
static unsigned int exclude_told;

static void expect_refused(struct kunit *test, unsigned long page)
{
	struct container_test *t = test->priv;
	int ret = pin_some(t, page, 1, RW);

	KUNIT_EXPECT_EQ(test, ret, -EINVAL);
	if (ret == 1)
		unpin_some(t, page, 1);
}

static void exclude_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
	struct kunit *test = exclude_test;
	struct container_test *t = test->priv;

	exclude_told++;
	KUNIT_EXPECT_EQ(test, iova, (BASE + 48) << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, iova + length, (BASE + 64) << PAGE_SHIFT);
	/* Page 0 of user memory is not there: the bitmap cannot be written. */
	KUNIT_EXPECT_EQ(test, container_bits(test, 0, 16, true, 8), -EFAULT);
	expect_refused(test, 0);
	expect_refused(test, 5);
	expect_refused(test, 48);
	expect_refused(test, 63);
	KUNIT_EXPECT_EQ(test, pin_some(t, 64, 1, RW), 1);
	unpin_some(t, 64, 1);

	unpin_some(t, 48, 1);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 48, 1), 0);
	KUNIT_EXPECT_EQ(test, container_map(test, 48, 1, 100, RW, false), 0);
	expect_refused(test, 48);
}

static const struct vfio_device_ops exclude_device_ops = {
	.name		= "mock",
	.dma_unmap	= exclude_dma_unmap,
};

static void release_excludes(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;
	unsigned int i;

	exclude_test = test;
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	device = pin_device(test, &exclude_device_ops);
	container_track(test);
	for (i = 0; i < 2; i++) {
		exclude_told = 0;
		KUNIT_ASSERT_EQ(test, container_map(test, 0, 65, 0, RW, false), 0);
		KUNIT_ASSERT_EQ(test, pin_some(t, 48, 1, RW), 1);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 0, 64), 0);
		KUNIT_EXPECT_EQ(test, exclude_told, 1);
		KUNIT_EXPECT_FALSE(test, vfio_type1v3_has_pins(t->container));
		/* It is over. */
		KUNIT_ASSERT_EQ(test, container_map(test, 48, 1, 48, RW, false), 0);
		KUNIT_EXPECT_EQ(test, pin_some(t, 48, 1, RW), 1);
		unpin_some(t, 48, 1);
		container_check(test);
		container_unmap_all(test);
	}
	vfio_type1v3_ops.unregister_device(t->data, device);
}

/* A device whose driver finds objects of several pages by one of their pages alone */
static struct {
	struct container_test *t;
	unsigned int told;
	unsigned int nr;
	struct {
		unsigned long first, npages, key;
	} objects[8];
} object_device;

static void object_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
	unsigned long first = (iova >> PAGE_SHIFT) - BASE, i = 0;
	unsigned long last = first + (length >> PAGE_SHIFT) - 1;

	object_device.told++;
	while (i < object_device.nr) {
		if (object_device.objects[i].key < first ||
		    object_device.objects[i].key > last) {
			i++;
			continue;
		}
		unpin_some(object_device.t, object_device.objects[i].first,
			   object_device.objects[i].npages);
		object_device.objects[i] = object_device.objects[--object_device.nr];
	}
}

static const struct vfio_device_ops object_device_ops = {
	.name		= "mock",
	.dma_unmap	= object_dma_unmap,
};

static void object_add(struct kunit *test, unsigned long first, unsigned long npages,
		       unsigned long key)
{
	struct container_test *t = test->priv;
	unsigned int i = object_device.nr++;

	KUNIT_ASSERT_EQ(test, pin_some(t, first, npages, RW), npages);
	object_device.objects[i].first = first;
	object_device.objects[i].npages = npages;
	object_device.objects[i].key = key;
}

/* Unmapping a page of an object releases all of it, and no other object. */
static void release_object(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;
	unsigned int domain;

	for (domain = 0; domain < 2; domain++) {
		memset(&object_device, 0, sizeof(object_device));
		object_device.t = t;
		if (!domain)
			container_memory(test, false);
		else
			KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
							       &mock_kinds[0]), 0);
		if (!domain)
			KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL),
					0);
		device = pin_device(test, &object_device_ops);
		/* Three mappings, so that an object lies in several */
		KUNIT_ASSERT_EQ(test, container_map(test, 0, 15, 0, RW, false), 0);
		KUNIT_ASSERT_EQ(test, container_map(test, 15, 10, 115, RW, false), 0);
		KUNIT_ASSERT_EQ(test, container_map(test, 25, 100, 225, RW, false), 0);
		object_add(test, 8, 2, 8);
		object_add(test, 10, 16, 10);
		object_add(test, 26, 4, 26);

		KUNIT_EXPECT_EQ(test, container_unmap(test, 20, 2), 0);
		/* 20 and 21, then 19, 18 .. 10 */
		KUNIT_EXPECT_EQ(test, object_device.told, 13);
		KUNIT_EXPECT_EQ(test, object_device.nr, 2);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(&t->container->pins), 6);

		/* Two objects that have a page in common, which is pinned twice */
		object_device.told = 0;
		object_add(test, 28, 8, 28);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 29, 1), 0);
		KUNIT_EXPECT_EQ(test, object_device.told, 6);
		KUNIT_EXPECT_EQ(test, object_device.nr, 1);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(&t->container->pins), 2);

		/* One that is found by its last page, and begins where pages do */
		object_device.told = 0;
		object_add(test, 40, 16, 55);
		object_add(test, 56, 2, 57);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 43, 1), 0);
		KUNIT_EXPECT_EQ(test, object_device.told, 7);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(&t->container->pins), 2);

		KUNIT_EXPECT_EQ(test, container_unmap(test, 0, WINDOW), 0);
		KUNIT_EXPECT_FALSE(test, vfio_type1v3_has_pins(t->container));
		container_check(test);
		vfio_type1v3_ops.unregister_device(t->data, device);
	}
}

static void expect_locked(struct kunit *test, unsigned long npages)
{
	struct container_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, npages);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_pinned(t->container), npages);
}

/* Let user page @a be where @b was, and the other way round. */
static void swap_memory(struct kunit *test, unsigned long a, unsigned long b)
{
	struct container_test *t = test->priv;

	swap(t->memory->pages[a], t->memory->pages[b]);
	mock_memory_map_again(test, t->memory, PROT_READ | PROT_WRITE);
}

/*
 * A page that an emulated device pins is charged unless the domains have the same one
 * mapped, and stays that way when domains come and go.
 */
static void pin_other_page(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;
	unsigned int nth;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	device = pin_device(test, &device_ops);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 16, 0, RW, false), 0);
	expect_locked(test, 16);

	swap_memory(test, 3, 1500);
	KUNIT_EXPECT_EQ(test, pin_some(t, 2, 3, RW), 3);
	expect_locked(test, 17);
	KUNIT_EXPECT_EQ(test, mock_pins(mock_memory_pfn(t->memory, 3)), 1);
	KUNIT_EXPECT_EQ(test, mock_pins(mock_memory_pfn(t->memory, 1500)), 1);
	KUNIT_EXPECT_EQ(test, pin_some(t, 3, 1, RW), 1);
	expect_locked(test, 17);
	unpin_some(t, 3, 1);
	expect_locked(test, 17);
	unpin_some(t, 3, 1);
	expect_locked(test, 16);
	KUNIT_EXPECT_EQ(test, pin_some(t, 3, 1, RW), 1);
	expect_locked(test, 17);

	/* A second domain and its departure change nothing. */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[3]), 0);
	expect_locked(test, 17);
	container_detach(test, &t->groups[0]);
	expect_locked(test, 17);
	container_detach(test, &t->groups[1]);
	expect_locked(test, 3);

	/* A new one gets what is there now: the page that is pinned. */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	expect_locked(test, 16);
	container_detach(test, &t->groups[0]);
	expect_locked(test, 3);
	swap_memory(test, 3, 1500);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	expect_locked(test, 17);
	unpin_some(t, 2, 1);
	expect_locked(test, 17);
	container_detach(test, &t->groups[0]);
	expect_locked(test, 2);

	/* One that fails, in any run, charges nothing and forgets no charge. */
	swap_memory(test, 3, 1500);
	KUNIT_ASSERT_EQ(test, container_map(test, 16, 8, 300, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 24, 8, 400, RW, false), 0);
	KUNIT_EXPECT_EQ(test, pin_some(t, 17, 2, RW), 2);
	expect_locked(test, 4);
	for (nth = 1; ; nth++) {
		mock_fail_next = nth;
		if (!container_attach(test, &t->groups[0], &mock_kinds[0]))
			break;
		expect_locked(test, 4);
		KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), 4);
		KUNIT_ASSERT_LT(test, nth, 100);
	}
	mock_fail_next = 0;
	KUNIT_EXPECT_GT(test, nth, 3);
	expect_locked(test, 32);
	container_detach(test, &t->groups[0]);
	expect_locked(test, 4);
	unpin_some(t, 3, 2);
	expect_locked(test, 2);
	unpin_some(t, 17, 2);
	container_check(test);

	/* Device memory has come to where a page is pinned: it cannot be both. */
	KUNIT_EXPECT_EQ(test, pin_some(t, 5, 1, RW), 1);
	pfnmap_at(test, t->memory->vaddr + (5 << PAGE_SHIFT), MOCK_PFN);
	KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]),
			-EINVAL);
	expect_locked(test, 1);
	KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), 1);
	unpin_some(t, 5, 1);
	KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	expect_locked(test, 31);
	KUNIT_EXPECT_EQ(test, pin_some(t, 5, 1, RW), -EINVAL);
	mock_memory_map_again(test, t->memory, PROT_READ | PROT_WRITE);
	KUNIT_EXPECT_EQ(test, pin_some(t, 5, 1, RW), -EINVAL);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 0, 32), 0);
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_check(test);
}

/* The last unpin of a page that a device could write to marks it dirty. */
static void unpin_dirties(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;
	unsigned int i, domain;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	device = pin_device(test, &device_ops);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 4, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 4, 4, 4, IOMMU_READ, false), 0);
	for (domain = 0; domain < 2; domain++) {
		KUNIT_EXPECT_EQ(test, pin_some(t, 0, 8, IOMMU_READ), 8);
		KUNIT_EXPECT_EQ(test, pin_some(t, 1, 1, IOMMU_READ), 1);
		for (i = 0; i < 8; i++)
			ClearPageDirty(t->memory->pages[i]);
		unpin_some(t, 0, 2);
		unpin_some(t, 2, 6);
		for (i = 0; i < 8; i++)
			KUNIT_EXPECT_EQ(test, PageDirty(t->memory->pages[i]),
					i < 4 && i != 1);
		unpin_some(t, 1, 1);
		KUNIT_EXPECT_TRUE(test, PageDirty(t->memory->pages[1]));
		for (i = 0; i < 8; i++)
			ClearPageDirty(t->memory->pages[i]);
		if (!domain)
			KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
							       &mock_kinds[0]), 0);
	}
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_unmap_all(test);
	for (i = 0; i < 8; i++)
		ClearPageDirty(t->memory->pages[i]);
}

/* A driver that is told of an unmap when an IOMMU of large pages comes */
static struct kunit *attach_test;

static void attach_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
	struct container_test *t = attach_test->priv;
	u64 last = iova + length - 1;
	dma_addr_t pin;

	for (pin = iova; pin < last; pin += PAGE_SIZE)
		if (vfio_xa_dma_load(&t->container->pins, pin >> PAGE_SHIFT))
			vfio_type1v3_ops.unpin_pages(t->data, pin, 1);
	if (!t->groups[0].wanted)
		KUNIT_EXPECT_EQ(attach_test, container_attach(attach_test,
							      &t->groups[0],
							      &large), 0);
}

static const struct vfio_device_ops attach_device_ops = {
	.name		= "mock",
	.dma_unmap	= attach_dma_unmap,
};

/* What a batch has checked is checked again when domains have come since. */
static void batch_attach(struct kunit *test)
{
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.flags = VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE,
		.nr_entries = 4,
	};
	struct container_test *t = test->priv;
	/* The second and the third continue each other, and are one unit at first. */
	struct vfio_iommu_type1v3_batch_entry entries[4] = {
		{ .size = 16 << PAGE_SHIFT, .flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP },
		{ .size = 16 << PAGE_SHIFT, .flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP },
		{ .size = PAGE_SIZE, .flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP },
		{ .size = PAGE_SIZE, .flags = VFIO_DMA_MAP_FLAG_READ },
	};
	void __user *user = t->arg + PAGE_SIZE;
	struct vfio_device *device;
	struct page *page;

	device = kunit_kzalloc(test, sizeof(*device), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, device);
	device->ops = &attach_device_ops;
	attach_test = test;
	container_memory_aligned(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	vfio_type1v3_ops.register_device(t->data, device);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 64, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, pin_one_page(t, 0, &page), 1);
	KUNIT_ASSERT_EQ(test, pin_one_page(t, 48, &page), 1);

	batch.entries = (unsigned long)user;
	entries[0].iova = BASE << PAGE_SHIFT;
	entries[1].iova = (BASE + 32) << PAGE_SHIFT;
	entries[2].iova = (BASE + 48) << PAGE_SHIFT;
	entries[3].iova = (BASE + 1) << PAGE_SHIFT;
	entries[3].vaddr = t->memory->vaddr;
	KUNIT_ASSERT_EQ(test, copy_to_user(user, entries, sizeof(entries)), 0);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_TYPE1V3_BATCH, &batch,
					      sizeof(batch)), 2);
	KUNIT_ASSERT_EQ(test, copy_from_user(entries, user, sizeof(entries)), 0);
	KUNIT_EXPECT_EQ(test, entries[0].result, 0);
	KUNIT_EXPECT_EQ(test, entries[0].size, 16 << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, entries[1].result, 0);
	KUNIT_EXPECT_EQ(test, entries[1].size, 16 << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, entries[2].result, -EINVAL);
	KUNIT_EXPECT_EQ(test, entries[2].size, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, entries[3].result, -EINVAL);
	memset(t->model, 0, 16 * sizeof(t->model[0]));
	memset(t->model + 32, 0, 16 * sizeof(t->model[0]));
	container_check(test);
	/* What has not been unmapped after all can be pinned again. */
	KUNIT_EXPECT_EQ(test, pin_one_page(t, 48, &page), 1);
	vfio_type1v3_ops.unpin_pages(t->data, (BASE + 48) << PAGE_SHIFT, 1);
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_unmap_all(test);
}

/* The same for an UNMAP: it is too small for the domain that has come. */
static void unmap_attach(struct kunit *test)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = BASE << PAGE_SHIFT,
		.size = 8 << PAGE_SHIFT,
	};
	struct container_test *t = test->priv;
	struct vfio_device *device;

	attach_test = test;
	container_memory_aligned(test);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	device = pin_device(test, &attach_device_ops);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 64, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, pin_some(t, 3, 1, RW), 1);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), -EINVAL);
	KUNIT_EXPECT_NOT_NULL(test, t->groups[0].domain);
	container_check(test);
	/* What stays can be pinned again. */
	KUNIT_EXPECT_EQ(test, pin_some(t, 3, 1, RW), 1);
	unpin_some(t, 3, 1);
	KUNIT_EXPECT_EQ(test, container_unmap(test, 0, 16), 0);
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_unmap_all(test);
}

/* Allocations of the store that nobody can be told of if they fail */
static unsigned int nofail_allocs;

static bool count_nofail(gfp_t gfp)
{
	nofail_allocs += !!(gfp & (__GFP_NOFAIL | __GFP_HIGH));
	return true;
}

/*
 * The page that completes a block is refused by the IOMMU driver.  To take it back
 * needs no memory, whatever has become one with it; alone, and in a batch.
 */
static void undo_needs_no_memory(struct kunit *test)
{
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.nr_entries = 2,
	};
	struct vfio_iommu_type1v3_batch_entry entries[2] = {};
	struct container_test *t = test->priv;
	void __user *user = t->arg + PAGE_SIZE;
	unsigned int i, pass;
	unsigned long hole;

	container_memory(test, false);
	batch.entries = (unsigned long)user;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	kunit_activate_static_stub(test, vfio_xa_dma_may_alloc, count_nofail);
	/* With so many runs the pages are in slots of their own. */
	for (pass = 0; pass < 4; pass++) {
		for (i = 0; i < (pass & 1) * 150; i++)
			KUNIT_ASSERT_EQ(test, container_map(test, 1024 + 2 * i, 1,
							    1024 + i, RW, false), 0);
		for (hole = 0; hole < 64; hole += 21) {
			if (hole)
				KUNIT_ASSERT_EQ(test, container_map(test, 0, hole, 0,
								    RW, false), 0);
			if (hole < 63)
				KUNIT_ASSERT_EQ(test, container_map(test, hole + 1,
								    63 - hole, hole + 1,
								    RW, false), 0);
			for (i = 0; i < 2; i++) {
				entries[i].iova = (BASE + (i ? 100 : hole)) << PAGE_SHIFT;
				entries[i].vaddr = t->memory->vaddr + (hole << PAGE_SHIFT);
				entries[i].size = PAGE_SIZE;
				entries[i].flags = VFIO_DMA_MAP_FLAG_READ |
						   VFIO_DMA_MAP_FLAG_WRITE;
			}
			KUNIT_ASSERT_EQ(test, copy_to_user(user, entries,
							   sizeof(entries)), 0);
			/* It is tried again another way, which succeeds. */
			nofail_allocs = 0;
			if (pass < 2) {
				t->groups[0].domain->fail_map = 1;
				KUNIT_EXPECT_EQ(test, container_map(test, hole, 1, hole,
								    RW, false), 0);
			} else {
				t->groups[0].domain->fail_map = 1;
				KUNIT_EXPECT_EQ(test,
						container_ioctl(test,
								VFIO_IOMMU_TYPE1V3_BATCH,
								&batch, sizeof(batch)), 0);
				for (i = 0; i < 2; i++)
					t->model[i ? 100 : hole] = (struct model_page) {
						.user = hole, .prot = RW,
					};
			}
			KUNIT_EXPECT_EQ(test, nofail_allocs, 0);
			KUNIT_EXPECT_EQ(test, t->groups[0].domain->fail_map, 0);
			container_check(test);
			container_unmap(test, 0, 1000);
		}
		container_unmap_all(test);
	}
	kunit_deactivate_static_stub(test, vfio_xa_dma_may_alloc);
}

/*
 * Two calls are half done, one beside the other, when one of the domains goes.
 * What makes up a call is done here step by step.
 */
static void detach_in_progress(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_type1v3 *container = t->container;
	struct vfio_type1v3_request request = { .granule = VFIO_DMA_EXTENT_MAX };
	struct vfio_type1v3_map maps[2] = {};
	unsigned long pinned = 0;
	struct vfio_dma_pin pin;
	unsigned int i;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[3]), 0);

	mutex_lock(&container->lock);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_become_owner(container), 0);
	for (i = 0; i < 2; i++) {
		request.first = BASE + 16 * i;
		request.last = request.first + 15;
		request.vaddr = t->memory->vaddr + (16 * i << PAGE_SHIFT);
		request.word = vfio_xa_dma_word(request.first, request.vaddr,
						VFIO_XA_DMA_READ);
		KUNIT_EXPECT_EQ(test, vfio_type1v3_reserve(container, &request), 0);
		maps[i].first = request.first;
		list_add_tail(&maps[i].next, &container->maps);
		vfio_dma_pin_start(&pin, current->mm, request.vaddr, 8, false);
		KUNIT_EXPECT_EQ(test, vfio_dma_pin_step(&pin), 0);
		KUNIT_EXPECT_EQ(test, vfio_type1v3_map_extents(container,
							       &container->space,
							       &maps[i], &pin,
							       request.word,
							       VFIO_DMA_EXTENT_MAX,
							       &pinned), 0);
		vfio_dma_pin_finish(&pin);
	}
	KUNIT_EXPECT_EQ(test, pinned, 16);
	mutex_unlock(&container->lock);

	container_detach(test, &t->groups[1]);

	mutex_lock(&container->lock);
	for (i = 0; i < 2; i++) {
		KUNIT_EXPECT_EQ(test, maps[i].mapped, 8);
		vfio_type1v3_unmap_map(container, &container->space, &maps[i]);
		list_del(&maps[i].next);
		vfio_xa_dma_erase(&container->store, BASE + 16 * i,
				  BASE + 16 * i + 15);
	}
	vfio_type1v3_put_owner(container);
	mutex_unlock(&container->lock);
	container_check(test);
}

/* A physical group that pins writes only there: not all is dirty any more. */
static void pinned_scope(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;
	struct page *pages[2];
	unsigned int i;

	device = kunit_kzalloc(test, sizeof(*device), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, device);
	device->ops = &device_ops;
	container_memory(test, false);
	for (i = 0; i < 2; i++)
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[i],
						       &mock_kinds[i]), 0);
	vfio_type1v3_ops.register_device(t->data, device);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
	container_track(test);

	/* Each of them has to, and a pin that fails says nothing. */
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data,
							 test_group(&t->groups[0]),
							 (BASE + 7) << PAGE_SHIFT, 2,
							 RW, pages), 2);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data,
							 test_group(&t->groups[1]),
							 (BASE + WINDOW) << PAGE_SHIFT,
							 1, RW, pages), -EINVAL);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_ALL);
	KUNIT_EXPECT_EQ(test, container_bits(test, 0, WINDOW, false, 0), 0);
	container_expect(test, 0, WINDOW);
	KUNIT_EXPECT_EQ(test, vfio_type1v3_ops.pin_pages(t->data,
							 test_group(&t->groups[1]),
							 (BASE + 9) << PAGE_SHIFT, 1,
							 RW, pages), 1);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_PINNED);
	KUNIT_EXPECT_EQ(test, container_bits(test, 0, WINDOW, false, 0), 0);
	container_expect(test, 7, 3);

	/* It has gone, and left nothing dirty that is not pinned. */
	container_detach(test, &t->groups[1]);
	KUNIT_EXPECT_EQ(test, container_bits(test, 0, WINDOW, false, 0), 0);
	container_expect(test, 7, 3);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[1]), 0);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_ALL);

	vfio_type1v3_ops.unpin_pages(t->data, (BASE + 7) << PAGE_SHIFT, 3);
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_unmap_all(test);
}

static void group_iommu_domain(struct kunit *test)
{
	struct iommu_domain *(*op)(void *data, struct iommu_group *group) =
		vfio_type1v3_ops.group_iommu_domain;
	struct container_test *t = test->priv;

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_EXPECT_PTR_EQ(test, op(t->data, test_group(&t->groups[0])),
			    &t->groups[0].domain->domain);
	/* Not in the container, and without an IOMMU */
	KUNIT_EXPECT_EQ(test, PTR_ERR(op(t->data, test_group(&t->groups[1]))), -ENODEV);
	KUNIT_EXPECT_EQ(test, PTR_ERR(op(t->data, test_group(&t->emulated))), -ENODEV);
	KUNIT_EXPECT_EQ(test, PTR_ERR(op(t->data, NULL)), -EINVAL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(op(NULL, test_group(&t->groups[0]))), -EINVAL);

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &mock_kinds[2]), 0);
	KUNIT_EXPECT_PTR_EQ(test, op(t->data, test_group(&t->groups[1])),
			    &t->groups[1].domain->domain);
	container_detach(test, &t->groups[0]);
	KUNIT_EXPECT_EQ(test, PTR_ERR(op(t->data, test_group(&t->groups[0]))), -ENODEV);
}

/*
 * Everything, at random
 */

static void rnd_range(struct container_test *t, unsigned long *first,
		      unsigned long *npages)
{
	static const u16 sizes[] = { 1, 1, 2, 7, 16, 64, 256, 512, 1024 };
	unsigned long n = sizes[rnd(t, ARRAY_SIZE(sizes))];

	*first = rnd(t, WINDOW);
	if (rnd(t, 2))
		*first = round_down(*first, n);
	if (!rnd(t, 4))
		n = 1 + rnd(t, 2 * n);
	*npages = min(n, WINDOW - *first);
}

/* Have one of the next calls to one of the domains fail, or none. */
static struct mock_domain *rnd_failure(struct container_test *t)
{
	struct mock_domain *mock = t->groups[rnd(t, 2)].domain;

	if (!mock || rnd(t, 6))
		return NULL;
	mock->fail_map = 1 + rnd(t, 8);
	return mock;
}

static void rnd_map(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned long first, npages, user, i;
	int prot = rnd(t, 4) ? RW : IOMMU_READ, expected = 0;
	u32 order = rnd(t, 12), flags = 0;
	struct mock_domain *mock;
	bool big;

	rnd_range(t, &first, &npages);
	user = rnd(t, 4) ? first : rnd(t, WINDOW);
	user = min(user, WINDOW - npages);
	for (i = 0; i < npages; i++)
		if (t->model[first + i].prot)
			expected = -EEXIST;
	if (!rnd(t, 3))
		flags = VFIO_DMA_MAP_GRANULE(order);
	else
		order = 51;
	big = vfio_type1v3_covers_superpage(t->container, (BASE + first) << PAGE_SHIFT,
					    npages << PAGE_SHIFT, BIT(order));
	mock = expected ? NULL : rnd_failure(t);
	i = container_map_flags(test, first, npages, user, prot, flags);
	/*
	 * A few pages that are in no superpage are tried twice, and the second try is
	 * not to fail.
	 */
	if (mock && !mock->fail_map && (npages > VFIO_DMA_PIN_INLINE || big))
		expected = -ENOMEM;
	if (mock)
		mock->fail_map = 0;
	KUNIT_EXPECT_EQ(test, (int)i, expected);
}

static void rnd_unmap(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock = rnd_failure(t);
	unsigned long first, npages;
	int ret, expected = 0;

	rnd_range(t, &first, &npages);
	ret = container_unmap(test, first, npages);
	if (mock && !mock->fail_map)
		expected = -EIO;
	if (mock)
		mock->fail_map = 0;
	KUNIT_EXPECT_EQ(test, ret, expected);
}

static void rnd_groups(struct kunit *test, const struct mock_kind *kind)
{
	struct container_test *t = test->priv;
	unsigned int g = rnd(t, 2);
	struct mock_group *group = &t->groups[g];

	if (group->wanted) {
		container_detach(test, group);
		return;
	}
	mock_fail_next = rnd(t, 3) ? 0 : 1 + rnd(t, 10);
	/* The other one, as in the beginning */
	container_attach(test, group, g ? &mock_kinds[rnd(t, ARRAY_SIZE(mock_kinds))] : kind);
	if (group->domain)
		group->domain->fail_map = 0;
}

/* A device writes; or what is dirty is asked for, or unmapped with its bitmap. */
static void rnd_dirty(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_group *group = &t->groups[rnd(t, 2)];
	unsigned long first, npages;

	rnd_range(t, &first, &npages);
	switch (rnd(t, 4)) {
	case 0 ... 1:
		if (group->domain)
			container_write(test, group, first, min(npages, 4UL));
		break;
	case 2:
		if (group->domain && rnd(t, 2)) {
			group->domain->busy = BASE + rnd(t, WINDOW);
			container_write(test, group, group->domain->busy - BASE, 1);
		} else if (group->domain) {
			group->domain->busy = 0;
		}
		break;
	default:
		container_get(test, first, npages, !rnd(t, 4));
	}
}

static void random_steps(struct kunit *test)
{
	const struct mock_kind *kind = test->param_value;
	struct container_test *t = test->priv;
	u64 start = seed ?: get_random_u64();
	unsigned long first, npages;
	unsigned int i, errors;

	kunit_info(test, "seed=%llu\n", start);
	prandom_seed_state(&t->rnd, start);
	container_memory(test, true);
	if (rnd(t, 2))
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], kind), 0);
	container_track(test);

	for (i = 0; i < steps; i++) {
		errors = mock_errors;
		switch (rnd(t, 16)) {
		case 0 ... 6:
			if (container_has_domain(t) || t->emulated.wanted)
				rnd_map(test);
			break;
		case 7 ... 12:
			rnd_unmap(test);
			break;
		case 13:
			rnd_range(t, &first, &npages);
			container_dirty(test, first, min(npages, 16UL));
			break;
		case 14:
			rnd_dirty(test);
			break;
		default:
			rnd_groups(test, kind);
		}
		container_check(test);
		KUNIT_ASSERT_EQ_MSG(test, mock_errors, errors, "step %u, seed=%llu",
				    i, start);
		KUNIT_ASSERT_EQ_MSG(test, test->status, KUNIT_SUCCESS,
				    "step %u, seed=%llu", i, start);
		cond_resched();
	}
	container_unmap_all(test);
}

/*
 * Cuts of leaves of every size, at random
 */

#define CUT_WINDOW	(3 * MOCK_PUD_PAGES)

/**
 * struct cut_test - device memory that is mapped in a window of CUT_WINDOW pages
 * @nr: length of @run
 * @npages: pages in all of them
 * @run: IOVA pages in the window, and what they translate to; in no order
 */
struct cut_test {
	unsigned int nr;
	unsigned long npages;
	struct cut_run {
		unsigned long first, last, pfn;
	} run[1024];
};

static void cut_add(struct cut_test *c, unsigned long first, unsigned long last,
		    unsigned long pfn)
{
	c->run[c->nr++] = (struct cut_run) { first, last, pfn };
	c->npages += last - first + 1;
}

static bool cut_overlaps(const struct cut_test *c, unsigned long first,
			 unsigned long last)
{
	unsigned int i;

	for (i = 0; i < c->nr; i++)
		if (c->run[i].first <= last && first <= c->run[i].last)
			return true;
	return false;
}

static void cut_remove(struct cut_test *c, unsigned long first, unsigned long last)
{
	unsigned int i;

	for (i = 0; i < c->nr; i++) {
		struct cut_run run = c->run[i];

		if (run.first > last || first > run.last)
			continue;
		c->npages -= run.last - run.first + 1;
		c->run[i--] = c->run[--c->nr];
		if (run.first < first)
			cut_add(c, run.first, first - 1, run.pfn);
		if (run.last > last)
			cut_add(c, last + 1, run.last, run.pfn + last + 1 - run.first);
	}
}

/* How much to map or to unmap, and where; the more there is the better aligned. */
static void cut_range(struct container_test *t, const struct cut_test *c,
		      unsigned long largest, unsigned long *first,
		      unsigned long *npages)
{
	static const u32 sizes[] = {
		1, 1, 3, 16, 511, MOCK_PMD_PAGES, MOCK_PMD_PAGES,
		17 * MOCK_PMD_PAGES, MOCK_PUD_PAGES / 2, MOCK_PUD_PAGES,
		MOCK_PUD_PAGES,
	};
	unsigned long n = min_t(unsigned long, largest, sizes[rnd(t, ARRAY_SIZE(sizes))]);
	const struct cut_run *run;

	*first = rnd(t, CUT_WINDOW);
	/* At the borders of what is there, or around them */
	if (c->nr && rnd(t, 2)) {
		run = &c->run[rnd(t, c->nr)];
		*first = rnd(t, 2) ? run->first : run->last + 1;
		*first -= min(*first, rnd(t, 3));
	}
	if (n >= MOCK_PMD_PAGES && rnd(t, 4))
		*first = round_down(*first, n & -n);
	*first = min(*first, CUT_WINDOW - 1);
	*npages = min(n, CUT_WINDOW - *first);
}

static void cut_map(struct kunit *test, struct cut_test *c, unsigned long largest)
{
	struct container_test *t = test->priv;
	unsigned long first, npages, shift = 0, granule = VFIO_DMA_EXTENT_MAX;

	cut_range(t, c, largest, &first, &npages);
	if (cut_overlaps(c, first, first + npages - 1) ||
	    c->nr > ARRAY_SIZE(c->run) / 2)
		return;
	/* Memory that is aligned as the IOVA is, or less than that */
	if (rnd(t, 2))
		shift = npages < 4096 ? rnd(t, 2 * MOCK_PMD_PAGES) :
					rnd(t, 4) * MOCK_PMD_PAGES;
	if (!rnd(t, 3))
		granule = BIT(rnd(t, 19));
	map_device(test, first, npages, MOCK_PFN + first + shift, granule);
	cut_add(c, first, first + npages - 1, MOCK_PFN + first + shift);
}

/* Unmap a part.  Where mapping the rest back fails, the superpage goes with it. */
static void cut_unmap(struct kunit *test, struct cut_test *c)
{
	struct container_test *t = test->priv;
	struct vfio_xa_dma *store = &t->container->store;
	struct mock_domain *mock = rnd_failure(t);
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof(unmap) };
	unsigned long first, last, npages, pos, before = c->npages;
	struct vfio_xa_dma_run run;
	int ret, expected = 0;

	cut_range(t, c, CUT_WINDOW, &first, &npages);
	unmap.iova = (BASE + first) << PAGE_SHIFT;
	unmap.size = npages << PAGE_SHIFT;
	ret = container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap, sizeof(unmap));
	if (mock && !mock->fail_map)
		expected = -EIO;
	if (mock)
		mock->fail_map = 0;
	KUNIT_EXPECT_EQ(test, ret, expected);

	last = first + npages - 1;
	if (ret) {
		/*
		 * It has ended at the superpage that was lost, of which nothing is
		 * there any more; what is behind it is still there.
		 */
		last = round_up(last + 1, MOCK_PUD_PAGES) - 1;
		pos = round_down(first, MOCK_PUD_PAGES);
		while (pos < first && vfio_xa_dma_next(store, BASE + pos,
						       BASE + first - 1, &run))
			pos = run.last + 1 - BASE;
		first = pos;
		if (vfio_xa_dma_next(store, BASE + first, BASE + last, &run))
			last = run.first - 1 - BASE;
	}
	cut_remove(c, first, last);
	KUNIT_EXPECT_EQ(test, unmap.size, (before - c->npages) << PAGE_SHIFT);
}

static void cut_check(struct kunit *test, const struct cut_test *c)
{
	struct container_test *t = test->priv;
	unsigned long index, npages;
	struct mock_domain *mock;
	struct mock_leaf *leaf;
	unsigned int g, i;

	KUNIT_EXPECT_EQ(test, vfio_xa_dma_validate(&t->container->store), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(&t->container->store), c->npages);
	for (g = 0; g < ARRAY_SIZE(t->groups); g++) {
		mock = t->groups[g].domain;
		if (!mock)
			continue;
		mock_expect_synced(test, mock);
		for (i = 0; i < c->nr; i++)
			if (!mock_translates(mock, BASE + c->run[i].first,
					     BASE + c->run[i].last, c->run[i].pfn, RW))
				break;
		KUNIT_EXPECT_EQ_MSG(test, i, c->nr, "group %u, IOVA pages %lx..%lx", g,
				    BASE + c->run[i].first, BASE + c->run[i].last);
		/* That is all there is. */
		index = 0;
		npages = 0;
		mt_for_each(&mock->leaves, leaf, index, ULONG_MAX)
			npages += leaf->last - leaf->first + 1;
		KUNIT_EXPECT_EQ(test, npages, c->npages);
	}
}

static void random_cuts(struct kunit *test)
{
	const struct mock_kind *kind = test->param_value;
	struct container_test *t = test->priv;
	u64 start = seed ?: get_random_u64();
	unsigned int i, errors, others = 0;
	unsigned long largest = MOCK_PUD_PAGES;
	struct cut_test *c;

	c = kunit_kzalloc(test, sizeof(*c), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, c);
	kunit_info(test, "seed=%llu\n", start);
	prandom_seed_state(&t->rnd, start);
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], kind), 0);
	/* So many leaves take long, and are all the same. */
	if (kind->pgsizes == PAGE_SIZE)
		largest = MOCK_PMD_PAGES;

	for (i = 0; i < steps; i++) {
		errors = mock_errors;
		if (rnd(t, 2)) {
			cut_map(test, c, largest);
		} else if (rnd(t, 32)) {
			cut_unmap(test, c);
		} else if (t->groups[1].wanted) {
			container_detach(test, &t->groups[1]);
		} else if (others++ < 4) {
			container_attach(test, &t->groups[1], &mock_kinds[0]);
			KUNIT_EXPECT_TRUE(test, t->groups[1].wanted);
		}
		cut_check(test, c);
		KUNIT_ASSERT_EQ_MSG(test, mock_errors, errors, "step %u, seed=%llu",
				    i, start);
		KUNIT_ASSERT_EQ_MSG(test, test->status, KUNIT_SUCCESS,
				    "step %u, seed=%llu", i, start);
		cond_resched();
	}
}

#include "vfio_type1v3_meanwhile.h"

static struct kunit_case container_cases[] = {
	KUNIT_CASE_PARAM(cut, kind_gen_params),
	KUNIT_CASE_PARAM(cut_each_page, kind_gen_params),
	KUNIT_CASE_PARAM(cut_without_memory, kind_gen_params),
	KUNIT_CASE_PARAM(unmap_dirties, kind_gen_params),
	KUNIT_CASE_PARAM(batch_dirties, kind_gen_params),
	KUNIT_CASE_PARAM(detach_dirties, kind_gen_params),
	KUNIT_CASE_PARAM(device_memory, kind_gen_params),
	KUNIT_CASE_SLOW(cut_pud),
	KUNIT_CASE_SLOW(cut_pud_again),
	KUNIT_CASE_PARAM(cut_two_domains, kind_gen_params),
	KUNIT_CASE_PARAM(small_pages, kind_gen_params),
	KUNIT_CASE_PARAM(neighbours, kind_gen_params),
	KUNIT_CASE_PARAM(neighbours_batch, kind_gen_params),
	KUNIT_CASE(map_stuck),
	KUNIT_CASE(unmap_stuck),
	KUNIT_CASE(split_stuck),
	KUNIT_CASE_PARAM(cut_beside, kind_gen_params),
	KUNIT_CASE_SLOW(neighbours_pud),
	KUNIT_CASE_PARAM(hole_mapped_again, kind_gen_params),
	KUNIT_CASE_PARAM(granule, kind_gen_params),
	KUNIT_CASE(granule_refused),
	KUNIT_CASE_PARAM(unmap_divided_word, kind_gen_params),
	KUNIT_CASE_PARAM(detach_divided_word, kind_gen_params),
	KUNIT_CASE_PARAM(contig_is_forgotten, kind_gen_params),
	KUNIT_CASE_PARAM(update_vaddr, kind_gen_params),
	KUNIT_CASE_PARAM(map_fails, kind_gen_params),
	KUNIT_CASE_PARAM(map_hole, kind_gen_params),
	KUNIT_CASE_PARAM(unmap_loses, kind_gen_params),
	KUNIT_CASE_PARAM(attach_fails, kind_gen_params),
	KUNIT_CASE(attach_fails_granule),
	KUNIT_CASE(attach_shares),
	KUNIT_CASE(coherency),
	KUNIT_CASE(reserved_regions),
	KUNIT_CASE(narrow_aperture),
	KUNIT_CASE(large_pages),
	KUNIT_CASE_PARAM(hardware_bits, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_borders, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_borders_at_0, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_cut, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_unmap, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_fails, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_unaligned, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_windows, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_large, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_domains, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_shared, dirty_kind_gen_params),
	KUNIT_CASE(pin_overflow),
	KUNIT_CASE(release_excludes),
	KUNIT_CASE(release_object),
	KUNIT_CASE(pin_other_page),
	KUNIT_CASE(unpin_dirties),
	KUNIT_CASE(batch_attach),
	KUNIT_CASE(unmap_attach),
	KUNIT_CASE(undo_needs_no_memory),
	KUNIT_CASE(detach_in_progress),
	KUNIT_CASE(pinned_scope),
	KUNIT_CASE(group_iommu_domain),
	KUNIT_CASE_PARAM(random_steps, kind_gen_params),
	KUNIT_CASE_PARAM(random_cuts, kind_gen_params),
	KUNIT_CASE(map_begins_anew),
	KUNIT_CASE(map_is_checked_again),
	KUNIT_CASE(lost_under_pins),
	KUNIT_CASE(attach_keeps_users),
	KUNIT_CASE(strangers_keep_users),
	KUNIT_CASE(attach_without_owner),
	KUNIT_CASE(update_vaddr_pinning),
	{}
};

static struct kunit_suite container_suite = {
	.name		= "vfio_iommu_type1v3",
	.init		= container_test_init,
	.exit		= container_test_exit,
	.test_cases	= container_cases,
};

kunit_test_suite(container_suite);

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
