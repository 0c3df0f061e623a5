/* SPDX-License-Identifier: GPL-2.0-only */
/* Domains and a space for the KUnit tests of the map and unmap core */
#ifndef _VFIO_DMA_CORE_RIG_H
#define _VFIO_DMA_CORE_RIG_H

#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/iommu.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/prandom.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>

#include "../vfio_dma_ledger.h"
#include "../vfio_dma_space.h"
#include "vfio_dma_mock.h"

#define RW	(IOMMU_READ | IOMMU_WRITE)

/* An IOVA page at which a block of every size begins */
#define BASE	(4 * MOCK_PUD_PAGES)

/**
 * struct core_test - a space, the domains of which are mocks
 * @lock: the container's mutex, held all the time
 * @owner: whose memory is mapped, once a test has any
 * @space: the space
 * @domains: its domains
 * @mocks: the same
 * @nr_domains: how many there are
 */
struct core_test {
	struct mutex lock;	/* the backend's */
	struct vfio_dma_owner owner;
	struct vfio_dma_space space;
	struct vfio_dma_domain domains[2];
	struct mock_domain *mocks[2];
	unsigned int nr_domains;
};

static int core_test_init(struct kunit *test)
{
	struct core_test *t;

	t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t);
	test->priv = t;
	mock_errors = 0;
	mutex_init(&t->lock);
	return vfio_dma_space_init(&t->space, &t->lock, &t->owner);
}

static void core_test_exit(struct kunit *test)
{
	struct core_test *t = test->priv;
	unsigned int i;

	if (!t)
		return;
	mutex_lock(&t->lock);
	for (i = 0; i < t->nr_domains; i++) {
		KUNIT_EXPECT_TRUE(test, list_empty(&t->domains[i].lost));
		vfio_dma_space_del(&t->space, &t->domains[i]);
		iommu_domain_free(&t->mocks[i]->domain);
	}
	mutex_unlock(&t->lock);
	vfio_dma_space_destroy(&t->space);
	vfio_dma_owner_clear(&t->owner);
	mutex_destroy(&t->lock);
	KUNIT_EXPECT_EQ(test, mock_errors, 0);
}

/* Add a domain to the space, and find out what it is like. */
static struct mock_domain *core_test_domain(struct kunit *test,
					    const struct mock_kind *kind)
{
	struct core_test *t = test->priv;
	struct vfio_dma_domain *domain = &t->domains[t->nr_domains];
	struct mock_domain *mock = mock_alloc(kind);

	KUNIT_ASSERT_NOT_NULL(test, mock);
	t->mocks[t->nr_domains++] = mock;
	vfio_dma_domain_init(domain, &mock->domain);

	mock->probing = true;
	vfio_dma_domain_probe(domain, 0);
	mock->probing = false;
	KUNIT_EXPECT_TRUE(test, mock_translates(mock, 0, ULONG_MAX, 0, 0));
	mock_expect_synced(test, mock);

	mutex_lock(&t->lock);
	vfio_dma_space_add(&t->space, domain);
	mutex_unlock(&t->lock);
	return mock;
}

static void core_expect(struct kunit *test, unsigned long first,
			unsigned long npages, unsigned long pfn, int prot)
{
	struct core_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < t->nr_domains; i++) {
		KUNIT_EXPECT_TRUE_MSG(test,
				      mock_translates(t->mocks[i], first,
						      first + npages - 1, pfn,
						      prot),
				      "domain %u, IOVA pages %lx..%lx", i,
				      first, first + npages - 1);
		mock_expect_synced(test, t->mocks[i]);
	}
}

static int core_map(struct kunit *test, unsigned long first,
		    unsigned long npages, unsigned long pfn, bool big)
{
	struct core_test *t = test->priv;
	struct vfio_dma_extent extent = {
		.pfn = pfn, .npages = npages, .pfnmap = pfn >= MOCK_PFN,
	};
	int ret;

	mutex_lock(&t->lock);
	ret = vfio_dma_space_map(&t->space, (dma_addr_t)first << PAGE_SHIFT, &extent,
				 RW, big);
	mutex_unlock(&t->lock);
	return ret;
}

static unsigned long core_unmap(struct kunit *test, unsigned long first,
				unsigned long npages, bool pinned)
{
	struct core_test *t = test->priv;
	unsigned long n;

	mutex_lock(&t->lock);
	n = vfio_dma_space_unmap(&t->space, (dma_addr_t)first << PAGE_SHIFT, npages,
				 pinned ? VFIO_DMA_PINNED | VFIO_DMA_MAY_BE_DIRTY : 0);
	vfio_dma_space_flush(&t->space);
	mutex_unlock(&t->lock);
	return n;
}

/* Returns 1 if the block was divided, 0 if it was not one, or an error. */
static int core_split(struct kunit *test, unsigned int i, unsigned long block,
		      unsigned long npages, unsigned long first,
		      unsigned long end)
{
	struct core_test *t = test->priv;
	dma_addr_t iova = (dma_addr_t)block << PAGE_SHIFT;
	int ret = 0;

	mutex_lock(&t->lock);
	if (vfio_dma_domain_linear(&t->domains[i], iova, npages))
		ret = vfio_dma_domain_split(&t->domains[i], iova, npages,
					    (dma_addr_t)first << PAGE_SHIFT,
					    (dma_addr_t)end << PAGE_SHIFT,
					    RW) ?: 1;
	mutex_unlock(&t->lock);
	return ret;
}

/* Divide what lies across the ends of a range, in each domain what is its own. */
static void core_cut(struct kunit *test, unsigned long first, unsigned long end)
{
	struct core_test *t = test->priv;
	unsigned long at, block, npages;
	struct mock_leaf *leaf;
	unsigned int i;

	for (i = 0; i < t->nr_domains; i++) {
		for (at = first; ; at = end) {
			leaf = mock_leaf_at(t->mocks[i], at);
			if (leaf && leaf->first < at) {
				block = leaf->first;
				npages = leaf->last - leaf->first + 1;
				KUNIT_EXPECT_EQ(test, core_split(test, i, block, npages,
								 first, end), 1);
			}
			if (at == end)
				break;
		}
	}
}

KUNIT_ARRAY_PARAM_DESC(kind, mock_kinds, name);

#endif /* _VFIO_DMA_CORE_RIG_H */
