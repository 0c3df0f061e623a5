/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit cases of the ledger of page frames, against a plain count of holds.  Included by
 * vfio_dma_core_kunit.c.
 */
#ifndef __VFIO_DMA_CORE_LEDGER_H
#define __VFIO_DMA_CORE_LEDGER_H

#define LEDGER_PAGES	1400UL
#define LEDGER_PFN	(BIT(22) - 200)

/**
 * struct ledger_model - a ledger and what is expected of it
 * @ledger: the ledger
 * @holds: of each page frame from LEDGER_PFN on
 * @charged: what all calls have said together
 */
struct ledger_model {
	struct vfio_dma_ledger *ledger;
	u16 holds[LEDGER_PAGES];
	long charged;
};

/* Allocations that may fail do, one in so many; 0: none */
static unsigned int ledger_fail_one_in;
static struct rnd_state ledger_rnd;

static bool ledger_may_alloc(gfp_t gfp)
{
	if (!ledger_fail_one_in || gfp & __GFP_NOFAIL)
		return true;
	return prandom_u32_state(&ledger_rnd) % ledger_fail_one_in;
}

static struct ledger_model *ledger_model_init(struct kunit *test)
{
	struct ledger_model *m = kunit_kzalloc(test, sizeof(*m), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, m);
	m->ledger = vfio_dma_ledger_alloc();
	KUNIT_ASSERT_NOT_NULL(test, m->ledger);
	prandom_seed_state(&ledger_rnd, 20261130);
	ledger_fail_one_in = 0;
	kunit_activate_static_stub(test, vfio_xa_dma_may_alloc, ledger_may_alloc);
	return m;
}

static void ledger_check(struct kunit *test, struct ledger_model *m, bool all_known)
{
	unsigned long i, entered, bad = 0;
	long alone = 0, charged = 0;

	mutex_lock(&m->ledger->lock);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_validate(&m->ledger->pages), 0);
	for (i = 0; i < LEDGER_PAGES; i++) {
		entered = vfio_dma_ledger_holds(vfio_xa_dma_load(&m->ledger->pages,
								 LEDGER_PFN + i));
		bad += entered > m->holds[i];
		bad += all_known && entered != m->holds[i];
		alone += m->holds[i] - entered;
		charged += DIV_ROUND_UP(entered, VFIO_DMA_LEDGER_HOLDS) +
			   m->holds[i] - entered;
	}
	KUNIT_EXPECT_EQ(test, bad, 0);
	KUNIT_EXPECT_EQ(test, m->ledger->alone, alone);
	KUNIT_EXPECT_EQ(test, m->charged, charged);
	mutex_unlock(&m->ledger->lock);
}

static void ledger_enter(struct ledger_model *m, unsigned long first,
			 unsigned long npages, bool nofail)
{
	unsigned long i;

	mutex_lock(&m->ledger->lock);
	m->charged += nofail ?
		vfio_dma_ledger_enter_nofail(m->ledger, LEDGER_PFN + first, npages) :
		vfio_dma_ledger_enter(m->ledger, LEDGER_PFN + first, npages);
	mutex_unlock(&m->ledger->lock);
	for (i = 0; i < npages; i++)
		m->holds[first + i]++;
}

static void ledger_leave(struct ledger_model *m, unsigned long first,
			 unsigned long npages)
{
	unsigned long i;

	mutex_lock(&m->ledger->lock);
	m->charged -= vfio_dma_ledger_leave(m->ledger, LEDGER_PFN + first, npages);
	mutex_unlock(&m->ledger->lock);
	for (i = 0; i < npages; i++)
		m->holds[first + i]--;
}

static void ledger_model_exit(struct kunit *test, struct ledger_model *m)
{
	unsigned long i;

	for (i = 0; i < LEDGER_PAGES; i++)
		while (m->holds[i])
			ledger_leave(m, i, 1);
	ledger_check(test, m, true);
	KUNIT_EXPECT_EQ(test, m->charged, 0);
	KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(&m->ledger->pages));
	vfio_dma_ledger_put(m->ledger);
	kunit_deactivate_static_stub(test, vfio_xa_dma_may_alloc);
}

/* A page is charged for its first hold, and until its last one ends. */
static void ledger_counts(struct kunit *test)
{
	struct ledger_model *m = ledger_model_init(test);

	ledger_enter(m, 100, 10, false);
	KUNIT_EXPECT_EQ(test, m->charged, 10);
	ledger_enter(m, 95, 10, false);
	KUNIT_EXPECT_EQ(test, m->charged, 15);
	ledger_check(test, m, true);
	ledger_leave(m, 100, 10);
	KUNIT_EXPECT_EQ(test, m->charged, 10);
	ledger_enter(m, 104, 1, false);
	KUNIT_EXPECT_EQ(test, m->charged, 10);
	ledger_leave(m, 104, 1);
	ledger_leave(m, 95, 9);
	KUNIT_EXPECT_EQ(test, m->charged, 1);
	ledger_leave(m, 104, 1);
	KUNIT_EXPECT_EQ(test, m->charged, 0);
	ledger_model_exit(test, m);
}

/* So many holds are charged again that free ones cannot overflow a refcount. */
static void ledger_many_holds(struct kunit *test)
{
	struct ledger_model *m = ledger_model_init(test);
	unsigned int i;

	for (i = 1; i <= 3 * VFIO_DMA_LEDGER_HOLDS + 1; i++) {
		ledger_enter(m, 7, 2, false);
		KUNIT_EXPECT_EQ(test, m->charged,
				2 * DIV_ROUND_UP(i, VFIO_DMA_LEDGER_HOLDS));
	}
	ledger_check(test, m, true);
	while (--i) {
		KUNIT_EXPECT_EQ(test, m->charged,
				2 * DIV_ROUND_UP(i, VFIO_DMA_LEDGER_HOLDS));
		ledger_leave(m, 7, 2);
	}
	ledger_model_exit(test, m);
}

/* What can be held without a charge, and what cannot */
static void ledger_holds(struct kunit *test)
{
	struct ledger_model *m = ledger_model_init(test);
	struct vfio_dma_ledger *ledger = m->ledger;
	unsigned int i;

	ledger_enter(m, 0, 64, false);
	mutex_lock(&ledger->lock);
	KUNIT_EXPECT_FALSE(test, vfio_dma_ledger_hold(ledger, LEDGER_PFN + 64));
	for (i = 1; i < VFIO_DMA_LEDGER_HOLDS; i++) {
		KUNIT_EXPECT_TRUE(test, vfio_dma_ledger_hold(ledger, LEDGER_PFN + 9));
		m->holds[9]++;
	}
	KUNIT_EXPECT_FALSE(test, vfio_dma_ledger_hold(ledger, LEDGER_PFN + 9));
	mutex_unlock(&ledger->lock);
	ledger_check(test, m, true);
	ledger_model_exit(test, m);
}

/* Large folios, and pages that are held as often as their neighbours, are one run. */
static void ledger_small(struct kunit *test)
{
	struct ledger_model *m = ledger_model_init(test);
	size_t bytes;
	unsigned int i;

	ledger_enter(m, 200, 1024, false);
	bytes = vfio_xa_dma_footprint(&m->ledger->pages);
	for (i = 0; i < 1024; i += 8)
		ledger_enter(m, 200 + i, 8, false);
	KUNIT_EXPECT_LE(test, vfio_xa_dma_footprint(&m->ledger->pages), bytes + 512);
	ledger_check(test, m, true);
	ledger_model_exit(test, m);
}

static unsigned int ledger_tries;

static bool ledger_no_memory(gfp_t gfp)
{
	ledger_tries++;
	return false;
}

/* Without memory the rest of an extent is alone, and not tried page by page. */
static void ledger_gives_up(struct kunit *test)
{
	struct ledger_model *m = ledger_model_init(test);
	unsigned int i;

	for (i = 0; i < 40; i++)
		ledger_enter(m, 20 * i, 1, false);
	kunit_activate_static_stub(test, vfio_xa_dma_may_alloc, ledger_no_memory);
	ledger_tries = 0;
	ledger_enter(m, 0, 800, false);
	KUNIT_EXPECT_GT(test, ledger_tries, 0);
	KUNIT_EXPECT_LE(test, ledger_tries, 4);
	KUNIT_EXPECT_GT(test, m->ledger->alone, 0);
	kunit_activate_static_stub(test, vfio_xa_dma_may_alloc, ledger_may_alloc);
	ledger_check(test, m, false);
	ledger_model_exit(test, m);
}

static const unsigned int ledger_memory[] = { 0, 2, 10 };

static void ledger_memory_desc(const unsigned int *one_in, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "one allocation in %u fails", *one_in);
}

KUNIT_ARRAY_PARAM(ledger_memory, ledger_memory, ledger_memory_desc);

/* Any holds in any order, with memory that is to be had or not */
static void ledger_random(struct kunit *test)
{
	struct ledger_model *m = ledger_model_init(test);
	const unsigned int *one_in = test->param_value;
	unsigned long first, npages, i, n;
	unsigned int step;

	ledger_fail_one_in = *one_in;
	for (step = 0; step < 6000; step++) {
		first = prandom_u32_state(&ledger_rnd) % LEDGER_PAGES;
		n = prandom_u32_state(&ledger_rnd) % 4 ? 4 : 700;
		npages = 1 + prandom_u32_state(&ledger_rnd) % n;
		npages = min(npages, LEDGER_PAGES - first);
		if (prandom_u32_state(&ledger_rnd) % 2) {
			ledger_enter(m, first, npages, step % 8 == 0);
		} else {
			for (i = 0; i < npages && m->holds[first + i]; i++)
				;
			if (i)
				ledger_leave(m, first, i);
		}
		if (step % 64 == 0)
			ledger_check(test, m, !*one_in);
		if (step % 256 == 0)
			cond_resched();
	}
	ledger_check(test, m, !*one_in);
	ledger_model_exit(test, m);
}

#endif /* __VFIO_DMA_CORE_LEDGER_H */
