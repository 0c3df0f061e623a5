/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The rig of the container's KUnit suite: groups behind mock IOMMUs, a container, user
 * memory, and a model of what the container must have.
 */
#ifndef __VFIO_TYPE1V3_RIG_H
#define __VFIO_TYPE1V3_RIG_H

#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/random.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>
#include <uapi/linux/iommufd.h>
#include <uapi/linux/vfio_type1v3.h>

#include "../vfio_dma_cut.h"
#include "../vfio_dma_dirty.h"
#include "../vfio_dma_group.h"
#include "../vfio_dma_iommu.h"
#include "../vfio_dma_ledger.h"
#include "../vfio_dma_map.h"
#include "../vfio_dma_extpin.h"
#include "../vfio_type1v3.h"
#include "vfio_dma_mock.h"

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

/* The unmap_pages() call to fail when a domain is tried out, 0 is none */
static unsigned int mock_fail_probe;

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

static struct iommu_domain *mock_alloc_group(struct iommu_group *group)
{
	return vfio_dma_iommu_alloc_for_device((struct device *)group);
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

static bool mock_domain_probe(struct vfio_dma_domain *domain, dma_addr_t iova)
{
	struct mock_domain *mock = to_mock(domain->domain);
	bool ret;

	mock->probing = true;
	mock->fail_unmap = mock_fail_probe;
	ret = vfio_dma_domain_probe(domain, iova);
	mock->fail_unmap = 0;
	mock->probing = false;
	mock->fail_map = mock_fail_next;
	mock_fail_next = 0;
	return ret;
}

static void mock_groups(struct kunit *test)
{
	kunit_activate_static_stub(test, vfio_dma_iommu_alloc, mock_alloc_group);
	kunit_activate_static_stub(test, vfio_dma_iommu_capable, mock_capable);
	kunit_activate_static_stub(test, vfio_dma_iommu_alloc_flags,
				   mock_paging_domain_alloc);
	kunit_activate_static_stub(test, vfio_dma_iommu_attach, mock_attach_group);
	kunit_activate_static_stub(test, vfio_dma_iommu_detach, mock_detach_group);
	kunit_activate_static_stub(test, vfio_dma_iommu_resv_regions,
				   mock_resv_regions);
	kunit_activate_static_stub(test, vfio_dma_iommu_msi_cookie,
				   mock_msi_cookie);
	kunit_activate_static_stub(test, vfio_dma_iommu_isolated_msi,
				   mock_isolated_msi);
	kunit_activate_static_stub(test, vfio_dma_iommu_probe, mock_domain_probe);
}

#define RW	(IOMMU_READ | IOMMU_WRITE)

/* Where the tests map; a block of every size begins there, as it does at 0. */
#define FAR	(4 * MOCK_PUD_PAGES)
#define BASE	base
static unsigned long base;

#define WINDOW	2048UL

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
 * @policy: the module's parameters, for afterwards
 */
struct container_test {
	void *data;
	struct vfio_dma_container *container;
	struct mock_group groups[2];
	struct mock_group emulated;
	struct mock_memory *memory;
	void __user *arg;
	unsigned long bitmap;
	DECLARE_BITMAP(bits, WINDOW);
	struct model_page model[WINDOW];
	struct rnd_state rnd;
	struct vfio_dma_policy policy;
};

/* Does the record say where user memory is?  Only then can a group have no IOMMU. */
static bool rig_has_vaddr(const struct container_test *t)
{
	return vfio_dma_record_has_vaddr(&t->container->record);
}

static int rig_validate(struct vfio_dma_record *record)
{
	return record->pt ? vfio_pt_record_validate(record->pt) :
			    vfio_xa_dma_validate(&record->xa);
}

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

/* The parameters are those of containers in use as well. */
static void container_restore_policy(void *data)
{
	const struct container_test *t = data;

	vfio_type1v3_policy = t->policy;
}

/* A test with a container of a type */
static int container_init(struct kunit *test, unsigned long type)
{
	struct container_test *t;
	unsigned long vaddr;

	t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t);
	base = FAR;
	mock_errors = 0;
	mock_fail_next = 0;
	mock_fail_probe = 0;
	mock_refuse_dirty = false;
	mock_fail_track = false;
	mock_can_enforce = false;
	mock_look = NULL;
	mock_look_up = NULL;
	t->policy = vfio_type1v3_policy;
	KUNIT_ASSERT_EQ(test, kunit_add_action(test, container_restore_policy, t), 0);
	vfio_type1v3_policy = (struct vfio_dma_policy){};
	mock_groups(test);
	mock_attach_mm(test);
	vaddr = kunit_vm_mmap(test, NULL, 0, ARG_SIZE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_NE(test, vaddr, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(vaddr));
	t->arg = (void __user *)vaddr;
	t->bitmap = ARG_BITMAP;
	t->memory = mock_memory_alloc(test, WINDOW, 10);
	t->data = vfio_type1v3_ops.open(type);
	KUNIT_ASSERT_FALSE(test, IS_ERR(t->data));
	t->container = vfio_dma_container_get(t->data);
	test->priv = t;
	return 0;
}

static int container_test_init(struct kunit *test)
{
	return container_init(test, VFIO_TYPE1v3_IOMMU);
}

static int container_pt_init(struct kunit *test)
{
	return container_init(test, VFIO_TYPE1v3_PT_IOMMU);
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
	KUNIT_EXPECT_TRUE(test, vfio_dma_record_empty(&t->container->record));
	KUNIT_EXPECT_EQ(test, mock_memory_pins(t->memory), 0);
	vfio_type1v3_ops.release(t->data);
	vfio_dma_container_put(t->container);
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
		if (ret && vfio_dma_record_load(&t->container->record, BASE + i))
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
	struct vfio_dma_record *record = &t->container->record;
	unsigned long i, mapped = 0, pins, expected, bad = 0;
	bool has_domain = container_has_domain(t);
	const struct model_page *page;
	struct mock_leaf *leaf = NULL;
	struct mock_domain *mock;
	unsigned int g;
	u16 *count;

	KUNIT_EXPECT_EQ(test, rig_validate(record), 0);
	count = kunit_kcalloc(test, WINDOW, sizeof(*count), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, count);
	for (i = 0; i < WINDOW; i++) {
		page = &t->model[i];
		bad += !page->prot != !vfio_dma_record_load(record, BASE + i);
		mapped += page->prot != 0;
		count[page->user] += page->prot && has_domain;
	}
	KUNIT_EXPECT_EQ(test, bad, 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_record_npages(record), mapped);
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

/* Have user memory consist of what is in @pages by now. */
static void mock_memory_map_again(struct kunit *test, struct mock_memory *memory,
				  unsigned long prot)
{
	mock_map_file_at(test, "[mock memory]", &mock_memory_fops, memory,
			 memory->npages, prot, memory->vaddr);
}

#endif /* __VFIO_TYPE1V3_RIG_H */
