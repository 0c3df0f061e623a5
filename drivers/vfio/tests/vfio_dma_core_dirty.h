/* SPDX-License-Identifier: GPL-2.0-only */
/* KUnit tests of dirty bits */
#ifndef _VFIO_DMA_CORE_DIRTY_H
#define _VFIO_DMA_CORE_DIRTY_H

#include "vfio_dma_core_unmap.h"

static const struct mock_kind dirty_kind = {
	.pgsizes = PAGE_SIZE | PAGE_SIZE << 9, .dirty = true,
};

/* Pages that have been written to, from the first to the last, as from BASE on */
static void core_take(struct kunit *test, unsigned long first,
		      unsigned long npages, long expected_first,
		      long expected_last)
{
	struct core_test *t = test->priv;
	dma_addr_t from, to;
	bool dirty;

	mutex_lock(&t->lock);
	dirty = vfio_dma_domain_take_dirty(&t->domains[0],
					   (BASE + first) << PAGE_SHIFT, npages,
					   &from, &to);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_EQ(test, dirty, expected_first >= 0);
	if (!dirty)
		return;
	KUNIT_EXPECT_EQ(test, (from >> PAGE_SHIFT) - BASE, expected_first);
	KUNIT_EXPECT_EQ(test, (to >> PAGE_SHIFT) - BASE, expected_last);
}

static void track_take(struct kunit *test)
{
	struct core_test *t = test->priv;
	struct mock_domain *mock = core_test_domain(test, &dirty_kind);

	KUNIT_EXPECT_TRUE(test, vfio_dma_domain_can_track(&t->domains[0]));
	KUNIT_EXPECT_EQ(test, core_map(test, BASE, 1024, MOCK_PFN, true), 0);
	KUNIT_EXPECT_EQ(test, core_map(test, BASE + 1024, 64, MOCK_PFN + 1, false), 0);
	KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 3));
	mutex_lock(&t->lock);
	vfio_dma_domain_track(&t->domains[0], true);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_TRUE(test, t->domains[0].tracking);
	core_take(test, 0, 1088, -1, -1);

	/* A superpage as a whole, once each time, and not the other one */
	KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 3));
	core_take(test, 512, 576, -1, -1);
	core_take(test, 0, 512, 0, 511);
	core_take(test, 0, 512, -1, -1);
	KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 3));
	KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 1030));
	core_take(test, 512, 576, 1030, 1030);
	core_take(test, 0, 1088, 0, 511);

	/* All that lies between them, too, if there are several */
	KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 1030));
	KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 1050));
	core_take(test, 1024, 64, 1030, 1050);

	/* An IOMMU that does not answer says that all is dirty. */
	mock->fail_read = true;
	core_take(test, 16, 16, 16, 31);
	mock->fail_read = false;

	mutex_lock(&t->lock);
	vfio_dma_domain_track(&t->domains[0], false);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_FALSE(test, t->domains[0].tracking);
	KUNIT_EXPECT_FALSE(test, mock->tracking);
	core_unmap(test, BASE, 1088, false);
}

/* Read, and perhaps clear, 1,024 pages from BASE on. */
static int core_read(struct kunit *test, bool clear)
{
	struct core_test *t = test->priv;
	int ret;

	mutex_lock(&t->lock);
	ret = vfio_dma_domain_read_dirty(&t->domains[0], BASE << PAGE_SHIFT,
					 1024, clear, NULL);
	vfio_dma_space_flush(&t->space);
	mutex_unlock(&t->lock);
	return ret;
}

/* Reading leaves the bits, or clears them with the next flush. */
static void track_read(struct kunit *test)
{
	struct core_test *t = test->priv;
	struct mock_domain *mock = core_test_domain(test, &dirty_kind);
	unsigned long nr_sync;
	unsigned int i;

	KUNIT_EXPECT_EQ(test, core_map(test, BASE, 1024, MOCK_PFN, true), 0);
	mutex_lock(&t->lock);
	vfio_dma_domain_track(&t->domains[0], true);
	mutex_unlock(&t->lock);
	for (i = 0; i < 2; i++) {
		KUNIT_EXPECT_TRUE(test, mock_write(mock, BASE + 700));
		nr_sync = mock->nr_sync;
		KUNIT_EXPECT_EQ(test, core_read(test, i), 0);
		KUNIT_EXPECT_EQ(test, mock->nr_sync - nr_sync, i);
		KUNIT_EXPECT_EQ(test, mock_leaf_at(mock, BASE + 700)->dirty, !i);
	}
	mock->fail_read = true;
	KUNIT_EXPECT_EQ(test, core_read(test, true), -EIO);
	core_unmap(test, BASE, 1024, false);
}

static void track_not(struct kunit *test)
{
	struct core_test *t = test->priv;
	struct mock_domain *mock = core_test_domain(test, &dirty_kind);

	core_test_domain(test, &mock_kinds[0]);
	KUNIT_EXPECT_FALSE(test, vfio_dma_domain_can_track(&t->domains[1]));
	mock->fail_track = true;
	mutex_lock(&t->lock);
	vfio_dma_domain_track(&t->domains[0], true);
	vfio_dma_domain_track(&t->domains[1], true);
	mutex_unlock(&t->lock);
	KUNIT_EXPECT_FALSE(test, t->domains[0].tracking);
	KUNIT_EXPECT_FALSE(test, t->domains[1].tracking);
}

#endif /* _VFIO_DMA_CORE_DIRTY_H */
