// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the store of DMA mappings
 *
 * The random tests print the seed which they begin with. To have others:
 * modprobe vfio_xa_dma_kunit seed=<seed>, or seed=0 for one that nobody chose.
 */

#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/vmstat.h>

#include "../vfio_xa_dma.h"

static ulong seed = 1;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "where the random tests begin, 0 is somewhere else each time");

static uint steps = 400;
module_param(steps, uint, 0444);
MODULE_PARM_DESC(steps, "how many steps each random test does");

/* How allocations are made to fail. One test runs at a time. */
static unsigned int fail_nth;
static bool forbid;
static bool only_nofail;
static unsigned long nr_forbidden;
static unsigned long nr_allocs;

static bool fake_may_alloc(gfp_t gfp)
{
	nr_allocs++;
	if (only_nofail && !(gfp & __GFP_NOFAIL))
		return false;
	if (forbid) {
		if (gfpflags_allow_blocking(gfp))
			nr_forbidden++;
		return false;
	}
	if (!gfpflags_allow_blocking(gfp) || gfp & __GFP_NOFAIL || !fail_nth)
		return true;
	return --fail_nth;
}

static void model_fail_nth(unsigned int n)
{
	fail_nth = n;
}

static unsigned int model_fail_left(void)
{
	return fail_nth;
}

static void model_forbid(bool on)
{
	forbid = on;
	if (on)
		nr_forbidden = 0;
}

static void model_only_nofail(bool on)
{
	only_nofail = on;
}

static unsigned long model_forbidden(void)
{
	return nr_forbidden;
}

struct model;

/* Slab accounting is looked at by a test of its own. */
static int model_extra_check(struct model *m)
{
	return 0;
}

#include "vfio_xa_dma_model.h"
#include "vfio_xa_dma_patterns.h"

#define WORD(delta)	vfio_xa_dma_word(0, (unsigned long)(delta) << PAGE_SHIFT,	\
					 VFIO_XA_DMA_READ | VFIO_XA_DMA_WRITE)
#define LAST		VFIO_XA_DMA_LAST_INDEX

static int xa_dma_test_init(struct kunit *test)
{
	struct model *m;

	m = kunit_kzalloc(test, sizeof(*m), GFP_KERNEL);
	if (!m)
		return -ENOMEM;
	model_init(m, 0, NULL, 0);
	model_fail_nth(0);
	model_forbid(false);
	model_only_nofail(false);
	kunit_activate_static_stub(test, vfio_xa_dma_may_alloc, fake_may_alloc);
	test->priv = m;
	return 0;
}

static void xa_dma_test_exit(struct kunit *test)
{
	struct model *m = test->priv;

	if (!m)
		return;
	model_fail_nth(0);
	model_forbid(false);
	model_only_nofail(false);
	KUNIT_EXPECT_EQ(test, model_fini(m), 0);
}

/* Random steps, compared with the model after each. */
static void test_random(struct kunit *test)
{
	u64 start = seed ?: get_random_u32();
	struct model *m = test->priv;
	unsigned int round, i;

	kunit_info(test, "seed=%llu", start);
	KUNIT_ASSERT_EQ(test, model_shrink_root(m), 0);
	for (round = 0; round < 8; round++) {
		model_init(m, start + round, NULL, 0);
		for (i = 0; i < steps; i++) {
			KUNIT_ASSERT_EQ_MSG(test, model_step(m), 0,
					    "seed=%llu, round %u, step %u",
					    start, round, i);
			cond_resched();
		}
		KUNIT_ASSERT_EQ(test, model_fini(m), 0);
	}
}

/* The table of memory per page. */
static void test_memory(struct kunit *test)
{
	struct model *m = test->priv;
	unsigned long milli;
	unsigned int i;
	int order;

	for (i = 0; i < ARRAY_SIZE(patterns); i++) {
		for (order = 0; order < PATTERN_ORDERS; order++) {
			milli = pattern_measure(&m->store, &patterns[i], order);
			kunit_info(test, "%s, %s: %lu.%03lu bytes a page, at most %lu.%03lu",
				   patterns[i].name, pattern_orders[order],
				   milli / 1000, milli % 1000,
				   patterns[i].goal_milli[order] / 1000,
				   patterns[i].goal_milli[order] % 1000);
			KUNIT_EXPECT_GT(test, milli, 0);
			KUNIT_EXPECT_LE(test, milli, patterns[i].goal_milli[order]);
			KUNIT_EXPECT_EQ(test, vfio_xa_dma_validate(&m->store), 0);
			vfio_xa_dma_destroy(&m->store);
			KUNIT_EXPECT_EQ(test, vfio_xa_dma_footprint(&m->store), 0);
			cond_resched();
		}
	}
}

static long slab_bytes(void)
{
	rcu_barrier();
	return (global_node_page_state_pages(NR_SLAB_RECLAIMABLE_B) +
		global_node_page_state_pages(NR_SLAB_UNRECLAIMABLE_B)) * (long)PAGE_SIZE;
}

/*
 * What the slab allocator says has been spent on a store, against what the
 * store says. Another store is filled before, to use up what is free in slabs
 * which are there already. It may be less, as objects are only charged in a
 * memory cgroup, and that is a ninth of the smaller ones. It may not be more,
 * but for counters which lag behind.
 */
static void test_slab(struct kunit *test)
{
	static const struct pattern large[] = {
		{ "each page different", 1, 1 << 19, false, true },
		{ "one in 16, different", 16, 1 << 18, false, true },
		{ "one in 64, different", 64, 1 << 18, false, true },
	};
	struct model *m = test->priv;
	struct vfio_xa_dma other;
	unsigned int i;

	if (IS_ENABLED(CONFIG_KASAN))
		kunit_skip(test, "KASAN holds freed memory back, and adds to objects");

	for (i = 0; i < ARRAY_SIZE(large); i++) {
		long before, spent, said;

		vfio_xa_dma_init(&other);
		KUNIT_EXPECT_GT(test, pattern_measure(&other, &large[i], PATTERN_UP), 0);
		before = slab_bytes();
		KUNIT_EXPECT_GT(test, pattern_measure(&m->store, &large[i], PATTERN_UP), 0);
		spent = slab_bytes() - before;
		said = vfio_xa_dma_footprint(&m->store);
		kunit_info(test, "%s: footprint %ld, slab accounting %ld bytes",
			   large[i].name, said, spent);
		KUNIT_EXPECT_GE(test, spent, said - said / 9 - (long)SZ_128K);
		KUNIT_EXPECT_LE(test, spent, said + said / 50 + (long)SZ_128K);
		vfio_xa_dma_destroy(&m->store);
		vfio_xa_dma_destroy(&other);
	}
}

/* Is the store, from @first to @last, one run of @word? */
static void expect_run(struct kunit *test, unsigned long first, unsigned long last,
		       unsigned long word)
{
	struct model *m = test->priv;
	struct vfio_xa_dma_run run;

	KUNIT_EXPECT_TRUE(test, vfio_xa_dma_next(&m->store, first, LAST, &run));
	KUNIT_EXPECT_EQ(test, run.first, first);
	KUNIT_EXPECT_EQ(test, run.last, last);
	KUNIT_EXPECT_EQ(test, run.word, word);
	if (first)
		KUNIT_EXPECT_NE(test, vfio_xa_dma_load(&m->store, first - 1), word);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_validate(&m->store), 0);
}

/* The ends of the address spaces, and all there is between them. */
static void test_limits(struct kunit *test)
{
	struct model *m = test->priv;
	struct vfio_xa_dma *store = &m->store;
	struct vfio_xa_dma_run run;
	unsigned long tops[] = { TASK_SIZE_MAX - PAGE_SIZE, -(1UL << PAGE_SHIFT), 0 };
	unsigned long indexes[] = { 0, 1, LAST / 2, LAST - 1, LAST }, word;
	unsigned int i, j;

	/* Every combination of an IOVA and a virtual address comes back. */
	for (i = 0; i < ARRAY_SIZE(indexes); i++) {
		for (j = 0; j < ARRAY_SIZE(tops); j++) {
			word = vfio_xa_dma_word(indexes[i], tops[j],
						VFIO_XA_DMA_FLAGS);
			KUNIT_EXPECT_EQ(test, vfio_xa_dma_vaddr(word, indexes[i]), tops[j]);
			KUNIT_EXPECT_EQ(test, word & VFIO_XA_DMA_FLAG_MASK,
					VFIO_XA_DMA_FLAGS);
			KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, indexes[i], indexes[i],
								 word, GFP_KERNEL_ACCOUNT), 0);
			KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(store, indexes[i]), word);
			KUNIT_EXPECT_EQ(test, vfio_xa_dma_insert(store, indexes[i], indexes[i],
								 word, GFP_KERNEL_ACCOUNT),
					-EEXIST);
			KUNIT_ASSERT_EQ(test, vfio_xa_dma_prepare(store, indexes[i], indexes[i],
								  GFP_KERNEL_ACCOUNT), 0);
			vfio_xa_dma_erase(store, indexes[i], indexes[i]);
			KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(store));
			KUNIT_EXPECT_EQ(test, vfio_xa_dma_footprint(store), 0);
		}
	}

	/* Both ends at once: they are not neighbours. */
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, LAST, LAST, WORD(1),
						 GFP_KERNEL_ACCOUNT), 0);
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, 0, 0, WORD(1), GFP_KERNEL_ACCOUNT), 0);
	expect_run(test, 0, 0, WORD(1));
	expect_run(test, LAST, LAST, WORD(1));
	KUNIT_EXPECT_TRUE(test, vfio_xa_dma_next(store, 1, LAST, &run));
	KUNIT_EXPECT_EQ(test, run.first, LAST);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_insert(store, 0, LAST, WORD(2), GFP_KERNEL_ACCOUNT),
			-EEXIST);
	vfio_xa_dma_erase(store, 0, LAST);

	/* The whole of the space in one, which takes a few levels and no more. */
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, 0, LAST, WORD(2),
						 GFP_KERNEL_ACCOUNT), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(store), LAST + 1);
	KUNIT_EXPECT_LT(test, vfio_xa_dma_footprint(store), 16 * 1024);
	expect_run(test, 0, LAST, WORD(2));

	/* A hole in it, at both ends and in the middle, and filled again. */
	for (i = 0; i < ARRAY_SIZE(indexes); i++) {
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_prepare(store, indexes[i], indexes[i],
							  GFP_KERNEL_ACCOUNT), 0);
		vfio_xa_dma_erase(store, indexes[i], indexes[i]);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(store, indexes[i]), 0);
		KUNIT_EXPECT_FALSE(test, vfio_xa_dma_next(store, indexes[i], indexes[i], &run));
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(store), LAST);
		KUNIT_EXPECT_LT(test, vfio_xa_dma_footprint(store), 64 * 1024);
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, indexes[i], indexes[i], WORD(2),
							 GFP_KERNEL_ACCOUNT), 0);
		expect_run(test, 0, LAST, WORD(2));
	}

	/* Flags of all of it, and of half. */
	vfio_xa_dma_change(store, 0, LAST, 0, VFIO_XA_DMA_BIG);
	expect_run(test, 0, LAST, WORD(2) | VFIO_XA_DMA_BIG);
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_prepare(store, 7, LAST, GFP_KERNEL_ACCOUNT), 0);
	vfio_xa_dma_change(store, 7, LAST, VFIO_XA_DMA_BIG, 0);
	expect_run(test, 0, 6, WORD(2) | VFIO_XA_DMA_BIG);
	expect_run(test, 7, LAST, WORD(2));
}

/* A page is taken in one step where that frees nothing, and only then. */
static void test_take(struct kunit *test)
{
	struct model *m = test->priv;
	struct vfio_xa_dma *store = &m->store;
	unsigned long i;

	/* Of a run in an array: its last page, its first, one in its middle. */
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, 10, 19, WORD(1), GFP_KERNEL_ACCOUNT), 0);
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, 30, 30, WORD(2), GFP_KERNEL_ACCOUNT), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, 9, 0), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, 20, 0), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, 19, VFIO_XA_DMA_READ), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, 19, 0), WORD(1));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, 10, 0), WORD(1));
	expect_run(test, 11, 18, WORD(1));
	/* An array of two elements has no room for a third. */
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, 15, 0), 0);
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_prepare(store, 15, 15, GFP_KERNEL_ACCOUNT), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, 15, 0), WORD(1));
	expect_run(test, 11, 14, WORD(1));
	expect_run(test, 16, 18, WORD(1));
	expect_run(test, 30, 30, WORD(2));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(store), 8);
	vfio_xa_dma_erase(store, 0, 63);

	/* The last one of an array frees it. */
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, 10, 10, WORD(1), GFP_KERNEL_ACCOUNT), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, 10, 0), 0);
	vfio_xa_dma_erase(store, 10, 10);

	/* Pages of a node, as long as it is dense; never of a folded block. */
	for (i = 0; i < 128; i++)
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, i, i, WORD(i % 64),
							 GFP_KERNEL_ACCOUNT), 0);
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, 128, 191, WORD(1), GFP_KERNEL_ACCOUNT), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, 150, 0), 0);
	for (i = 0; i < 64 && vfio_xa_dma_take(store, i, 0) == WORD(i); i++)
		;
	KUNIT_EXPECT_GT(test, i, 16);
	KUNIT_EXPECT_LT(test, i, 64);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(store, i), WORD(i));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(store), 192 - i);
}

/* Blocks of 64 pages with one page each, and what becomes of them. */
static void test_single(struct kunit *test)
{
	const unsigned long words[] = {
		/* the first two fit, signed as they are; the others do not */
		WORD(BIT(45) - 1), WORD(-BIT(45)), WORD(BIT(45)), WORD(-BIT(45) - 1), WORD(BIT(50)),
	};
	struct model *m = test->priv;
	struct vfio_xa_dma *store = &m->store;
	unsigned long i, page, word;
	size_t bytes;

	for (i = 0; i < 4096; i++)
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, i * 64 + i % 64, i * 64 + i % 64,
							 WORD(i), GFP_KERNEL_ACCOUNT), 0);
	bytes = vfio_xa_dma_footprint(store);
	KUNIT_EXPECT_LT(test, bytes, 16 * 4096);
	/* The first blocks are pushed down last, if at all. */
	for (i = 2048; i < 4096; i++) {
		page = i * 64 + i % 64;
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_load(store, page), WORD(i));
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_load(store, page ^ 1), 0);
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_take(store, page ^ 1, 0), 0);
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_take(store, page, VFIO_XA_DMA_READ), 0);
	}
	for (i = 2048; i < 2048 + ARRAY_SIZE(words); i++) {
		page = i * 64 + i % 64;
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_insert(store, page, page, WORD(1),
							 GFP_KERNEL_ACCOUNT), -EEXIST);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_insert(store, page & ~63UL, page | 63, WORD(1),
							 GFP_KERNEL_ACCOUNT), -EEXIST);

		/* Another one, before or behind it, comes and goes. */
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, page ^ 32, page ^ 32, WORD(1),
							 GFP_KERNEL_ACCOUNT), 0);
		expect_run(test, page, page, WORD(i));
		expect_run(test, page ^ 32, page ^ 32, WORD(1));
		KUNIT_EXPECT_GT(test, vfio_xa_dma_footprint(store), bytes);
		vfio_xa_dma_erase(store, page ^ 32, page ^ 32);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_footprint(store), bytes);

		/* One that joins it, and is cut off again */
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, page + 1, page + 1, WORD(i),
							 GFP_KERNEL_ACCOUNT), 0);
		expect_run(test, page, page + 1, WORD(i));
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, page + 1, 0), WORD(i));

		vfio_xa_dma_change(store, page, page, 0, VFIO_XA_DMA_DIRTY);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(store, page), WORD(i) | VFIO_XA_DMA_DIRTY);
		vfio_xa_dma_change(store, page + 1, page + 1, VFIO_XA_DMA_DIRTY, 0);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(store, page), WORD(i) | VFIO_XA_DMA_DIRTY);
		vfio_xa_dma_erase(store, page, page);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(store, page), 0);

		KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, page, page, words[i - 2048],
							 GFP_KERNEL_ACCOUNT), 0);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(store, page), words[i - 2048]);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_footprint(store),
				bytes + (i < 2050 ? 0 : 16 + sizeof(void *)));
		/* All of a word is replaced, as that of a pinned page is. */
		word = words[i - 2048] ^ BIT(VFIO_XA_DMA_FLAG_BITS);
		vfio_xa_dma_change(store, page, page, words[i - 2048], word);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(store, page), word);
		vfio_xa_dma_erase(store, page, page);
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, page, page, WORD(i),
							 GFP_KERNEL_ACCOUNT), 0);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_footprint(store), bytes);
	}
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_validate(store), 0);

	/* 64 times the same in the same place is no block of 4096 pages. */
	vfio_xa_dma_destroy(store);
	for (i = 0; i < 4096; i++)
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, i * 64 + 5, i * 64 + 5, WORD(1),
							 GFP_KERNEL_ACCOUNT), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(store), 4096);
	expect_run(test, 3000 * 64 + 5, 3000 * 64 + 5, WORD(1));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_load(store, 3000 * 64 + 6), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_validate(store), 0);
}

/* Equal words are joined, but not PENDING ones, whoever they belong to. */
static void test_transient(struct kunit *test)
{
	const unsigned long pending = WORD(1) | VFIO_XA_DMA_PENDING;
	struct model *m = test->priv;
	struct vfio_xa_dma *store = &m->store;
	unsigned long i;

	/* Three neighbours, published and undone without memory. */
	for (i = 0; i < 3; i++)
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, 64 * i + 5, 64 * i + 68, pending,
							 GFP_KERNEL_ACCOUNT), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_insert(store, 100, 100, WORD(2), GFP_KERNEL_ACCOUNT),
			-EEXIST);
	model_forbid(true);
	vfio_xa_dma_erase(store, 69, 132);
	vfio_xa_dma_change(store, 5, 68, VFIO_XA_DMA_PENDING, 0);
	vfio_xa_dma_change(store, 133, 196, VFIO_XA_DMA_PENDING, 0);
	model_forbid(false);
	KUNIT_EXPECT_EQ(test, model_forbidden(), 0);
	expect_run(test, 5, 68, WORD(1));
	expect_run(test, 133, 196, WORD(1));

	/* A page of a large block, taken out and back many times. */
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, 1UL << 20, (2UL << 20) - 1, WORD(3),
						 GFP_KERNEL_ACCOUNT), 0);
	for (i = (1UL << 20) + 4090; i < (1UL << 20) + 4100; i++) {
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_prepare(store, i, i, GFP_KERNEL_ACCOUNT), 0);
		model_forbid(true);
		vfio_xa_dma_change(store, i, i, 0, VFIO_XA_DMA_PENDING);
		expect_run(test, i, i, WORD(3) | VFIO_XA_DMA_PENDING);
		vfio_xa_dma_erase(store, i, i);
		model_forbid(false);
		KUNIT_EXPECT_EQ(test, model_forbidden(), 0);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(store), (1UL << 20) + 127);
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, i, i, WORD(3),
							 GFP_KERNEL_ACCOUNT), 0);
		expect_run(test, 1UL << 20, (2UL << 20) - 1, WORD(3));
	}
}

/*
 * Shapes: what a store is made of, by what it takes. The numbers follow from the
 * description at the top of vfio_xa_dma.c.
 */

#define ARRAY(order)	((16UL << (order)) + sizeof(void *))

static struct vfio_xa_dma *test_store(struct kunit *test)
{
	struct model *m = test->priv;

	return &m->store;
}

static void __expect_shape(struct kunit *test, int line, unsigned long nodes,
			   unsigned long arrays, unsigned long bytes)
{
	struct vfio_xa_dma_stats stats;

	vfio_xa_dma_get_stats(test_store(test), &stats);
	KUNIT_EXPECT_EQ_MSG(test, stats.nodes, nodes, "line %d", line);
	KUNIT_EXPECT_EQ_MSG(test, stats.arrays, arrays, "line %d", line);
	KUNIT_EXPECT_EQ_MSG(test, stats.array_bytes, bytes, "line %d", line);
	KUNIT_EXPECT_EQ(test, !stats.nodes, !stats.node_bytes);
	KUNIT_EXPECT_EQ(test, stats.node_bytes + stats.array_bytes,
			vfio_xa_dma_footprint(test_store(test)));
}

#define expect_shape(test, nodes, arrays, bytes)	\
	__expect_shape(test, __LINE__, nodes, arrays, bytes)

static void put(struct kunit *test, unsigned long first, unsigned long last,
		unsigned long word)
{
	struct model *m = test->priv;

	KUNIT_ASSERT_FALSE(test, model_overlaps(m, first, last));
	KUNIT_ASSERT_EQ(test, model_do_insert(m, first, last, word, 0), 0);
	m->nr_held = 0;
}

/* Erased, as who unmaps does it: at once if that is possible */
static void drop(struct kunit *test, unsigned long first, unsigned long last)
{
	struct model *m = test->priv;

	if (first == last && vfio_xa_dma_take(&m->store, first, 0)) {
		model_erase(m, first, last);
		return;
	}
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_prepare(&m->store, first, last,
						  GFP_KERNEL_ACCOUNT), 0);
	KUNIT_ASSERT_EQ(test, model_commit_erase(m, first, last, false), 0);
}

static void change(struct kunit *test, unsigned long first, unsigned long last,
		   unsigned long clear, unsigned long set)
{
	struct model *m = test->priv;

	KUNIT_ASSERT_EQ(test, vfio_xa_dma_prepare(&m->store, first, last,
						  GFP_KERNEL_ACCOUNT), 0);
	KUNIT_ASSERT_EQ(test, model_commit_change(m, first, last, clear, set, false), 0);
}

static void compare(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, model_compare(test->priv), 0);
}

static void clear_all(struct kunit *test)
{
	compare(test);
	KUNIT_ASSERT_EQ(test, model_fini(test->priv), 0);
	expect_shape(test, 0, 0, 0);
}

/* A few pages, in the smallest forms */
static void test_shape_few(struct kunit *test)
{
	unsigned long i;

	/* A single; the next is one in the same node */
	put(test, 5, 5, WORD(1));
	expect_shape(test, 1, 0, 0);
	put(test, 70, 70, WORD(2));
	expect_shape(test, 1, 0, 0);
	/* Two runs in a block are an array, one run is one of one element */
	put(test, 8, 8, WORD(3));
	expect_shape(test, 1, 1, ARRAY(1));
	put(test, 71, 71, WORD(2));
	expect_shape(test, 1, 2, ARRAY(1) + ARRAY(0));
	drop(test, 8, 8);
	expect_shape(test, 1, 1, ARRAY(0));
	/* Two pages of a run are no single, a page in front of it joins. */
	put(test, 69, 69, WORD(2));
	drop(test, 71, 71);
	expect_shape(test, 1, 1, ARRAY(0));
	drop(test, 70, 70);
	compare(test);
	drop(test, 69, 69);
	expect_shape(test, 1, 0, 0);
	put(test, 4, 4, WORD(1));
	expect_shape(test, 1, 1, ARRAY(0));
	drop(test, 4, 5);
	expect_shape(test, 0, 0, 0);

	/* One that is PENDING does not join, and is no array less for it. */
	put(test, 5, 5, WORD(1) | VFIO_XA_DMA_PENDING);
	put(test, 6, 6, WORD(1) | VFIO_XA_DMA_PENDING);
	expect_shape(test, 1, 1, ARRAY(1));
	clear_all(test);

	/* The second of two is erased before the first, and the first before the second. */
	put(test, 5, 5, WORD(1));
	put(test, 9, 9, WORD(2));
	drop(test, 5, 5);
	expect_shape(test, 1, 0, 0);
	put(test, 5, 5, WORD(1));
	drop(test, 9, 9);
	expect_shape(test, 1, 0, 0);
	/* A change of neighbours leaves a single alone, and so does an erase. */
	change(test, 0, 4, VFIO_XA_DMA_WRITE, VFIO_XA_DMA_DIRTY);
	change(test, 6, 63, VFIO_XA_DMA_WRITE, VFIO_XA_DMA_DIRTY);
	drop(test, 0, 4);
	drop(test, 6, 63);
	compare(test);
	change(test, 0, 63, VFIO_XA_DMA_WRITE, VFIO_XA_DMA_DIRTY);
	expect_shape(test, 1, 0, 0);
	clear_all(test);

	/* Small arrays keep the room that they have had. */
	for (i = 0; i < 4; i++)
		put(test, 8 * i, 8 * i + 1, WORD(i));
	expect_shape(test, 1, 1, ARRAY(2));
	drop(test, 8, 63);
	expect_shape(test, 1, 1, ARRAY(2));
	clear_all(test);

	/* Runs whose words change become one with what is before them and behind them. */
	for (i = 0; i < 4; i++)
		put(test, 8 * i, 8 * i + 7, WORD(1) | (i == 1 ? VFIO_XA_DMA_BIG : 0) |
		    (i == 2 ? VFIO_XA_DMA_DIRTY : 0));
	put(test, 40, 40, WORD(2));
	put(test, 50, 50, WORD(2));
	expect_shape(test, 1, 1, ARRAY(3));
	change(test, 8, 23, VFIO_XA_DMA_BIG | VFIO_XA_DMA_DIRTY, 0);
	for (i = 0; i < 5; i++)
		put(test, 52 + 2 * i, 52 + 2 * i, WORD(2));
	expect_shape(test, 1, 1, ARRAY(3));
	clear_all(test);

	/* Of 16 runs that become one, half of the room is given back. */
	for (i = 0; i < 16; i++)
		put(test, 2 * i, 2 * i + 1, WORD(1) | (i & 1 ? VFIO_XA_DMA_BIG : 0));
	expect_shape(test, 1, 1, ARRAY(4));
	change(test, 0, 31, VFIO_XA_DMA_BIG, 0);
	expect_shape(test, 1, 1, ARRAY(3));
	clear_all(test);

	/* Not on other levels */
	put(test, BIT(12), BIT(12), WORD(1));
	expect_shape(test, 1, 1, ARRAY(0));
	clear_all(test);
}

/* Ranges, and on which level they are stored */
static void test_shape_ranges(struct kunit *test)
{
	unsigned long i;

	/* So many pages are one run, from the page after the root's first block on */
	put(test, BIT(18), BIT(18) + 1023, WORD(1));
	expect_shape(test, 1, 1, ARRAY(0));
	clear_all(test);
	put(test, BIT(18) + 1, BIT(18) + 1023, WORD(1));
	expect_shape(test, 1, 1, ARRAY(0));
	clear_all(test);
	/* One more are 16 blocks and a single, two levels below */
	put(test, BIT(18), BIT(18) + 1024, WORD(1));
	expect_shape(test, 3, 0, 0);
	clear_all(test);
	/* Also where there is an array already */
	put(test, BIT(19) - 1, BIT(19) - 1, WORD(2));
	put(test, BIT(18), BIT(18) + 1024, WORD(1));
	clear_all(test);
	/* Whole blocks are values. */
	put(test, BIT(18), BIT(18) + 4095, WORD(1));
	expect_shape(test, 2, 0, 0);
	clear_all(test);
	put(test, BIT(18), BIT(18) + BIT(18) - 1, WORD(1));
	expect_shape(test, 1, 0, 0);
	clear_all(test);
	put(test, BIT(18), BIT(18) + BIT(19) - 1, WORD(1));
	expect_shape(test, 1, 0, 0);
	clear_all(test);

	/* Arrays are not in slots that are larger than an index in them. */
	put(test, BIT(42), BIT(42), WORD(1));
	expect_shape(test, 1, 1, ARRAY(0));
	clear_all(test);
	put(test, BIT(48), BIT(48), WORD(1));
	expect_shape(test, 2, 1, ARRAY(0));
	put(test, BIT(48) + BIT(42), BIT(48) + BIT(42), WORD(1));
	expect_shape(test, 2, 2, 2 * ARRAY(0));
	drop(test, BIT(48), BIT(48));
	expect_shape(test, 2, 1, ARRAY(0));
	clear_all(test);

	/* To cut a value takes an array with room for the cuts, and no node. */
	put(test, 64, 127, WORD(1));
	drop(test, 127, 127);
	expect_shape(test, 1, 1, ARRAY(1));
	put(test, 128, 191, WORD(1));
	drop(test, 150, 150);
	expect_shape(test, 1, 2, ARRAY(1) + ARRAY(2));
	clear_all(test);
	/* Also at its first page, in a range that begins where nothing is */
	put(test, 128, 191, WORD(1));
	drop(test, 100, 128);
	expect_run(test, 129, 191, WORD(1));
	clear_all(test);
	put(test, BIT(18), BIT(18) + 4095, WORD(1));
	drop(test, BIT(18) + 100, BIT(18) + 100);
	expect_shape(test, 2, 1, ARRAY(3));
	clear_all(test);

	/* Where runs end anyway no room is needed. */
	for (i = 0; i < 8; i++)
		put(test, 64 + 16 * i, 64 + 16 * i + 1, WORD(i));
	expect_shape(test, 1, 2, 2 * ARRAY(2));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_prepare(test_store(test), 64 + 48, 128 + 1,
						  GFP_KERNEL_ACCOUNT), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_prepare(test_store(test), 64, 64 + 1,
						  GFP_KERNEL_ACCOUNT), 0);
	expect_shape(test, 1, 2, 2 * ARRAY(2));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_prepare(test_store(test), 64, 64,
						  GFP_KERNEL_ACCOUNT), 0);
	expect_shape(test, 1, 2, ARRAY(2) + ARRAY(3));
	clear_all(test);

	/* Runs in an array are of 1024 pages at most, and joined up to that. */
	put(test, BIT(18), BIT(18) + 499, WORD(1));
	put(test, BIT(18) + 500, BIT(18) + 1023, WORD(1));
	expect_shape(test, 1, 1, ARRAY(0));
	put(test, BIT(18) + 1024, BIT(18) + 1024, WORD(1));
	expect_shape(test, 1, 1, ARRAY(1));
	put(test, BIT(18) + 1025, BIT(18) + 2047, WORD(1));
	expect_shape(test, 1, 1, ARRAY(1));
	put(test, BIT(18) + 3072, BIT(18) + 4095, WORD(2));
	expect_shape(test, 1, 1, ARRAY(2));
	clear_all(test);
}

/* How many runs an array holds, on each level, and what follows when it is full */
static void test_shape_limits(struct kunit *test)
{
	static const struct {
		unsigned int shift, limit;
	} levels[] = {
		{ 6, 32 }, { 12, 64 }, { 18, 128 }, { 24, 256 }, { 30, 256 }, { 42, 256 },
	};
	unsigned long base, i, n, order;
	struct vfio_xa_dma_stats stats;

	for (n = 0; n < ARRAY_SIZE(levels); n++) {
		base = BIT(levels[n].shift);
		for (i = 0; i < levels[n].limit; i++) {
			put(test, base + i, base + i, WORD(i));
			order = fls_long(i);
			if (levels[n].shift == 6 && !i)
				expect_shape(test, 1, 0, 0);
			else
				expect_shape(test, 1, 1, ARRAY(order));
		}
		put(test, base + i, base + i, WORD(i));
		vfio_xa_dma_get_stats(test_store(test), &stats);
		KUNIT_EXPECT_GT(test, stats.nodes, 1UL);
		compare(test);
		if (levels[n].shift == 6) {
			expect_shape(test, 2, 0, 0);
			/* 33 page slots; 16 become an array again */
			for (; i > 15; i--) {
				expect_shape(test, 2, 0, 0);
				drop(test, base + i, base + i);
			}
			expect_shape(test, 1, 1, ARRAY(4));
			compare(test);
			/* This array becomes smaller when only a quarter of it is used. */
			for (; i > 3; i--) {
				expect_shape(test, 1, 1, ARRAY(4));
				drop(test, base + i, base + i);
			}
			expect_shape(test, 1, 1, ARRAY(3));
			drop(test, base + 3, base + 3);
			expect_shape(test, 1, 1, ARRAY(3));
			drop(test, base + 2, base + 2);
			expect_shape(test, 1, 1, ARRAY(2));
			drop(test, base + 1, base + 1);
			expect_shape(test, 1, 0, 0);
		}
		clear_all(test);
	}
}

/* What becomes of the runs of an array that is pushed down */
static void test_shape_push_down(struct kunit *test)
{
	unsigned long i;

	/* A block, a run across two, two pages in one, and one page in each of the others */
	put(test, 4096, 4096 + 63, WORD(99));
	put(test, 4096 + 100, 4096 + 130, WORD(98));
	put(test, 4096 + 132, 4096 + 132, WORD(97));
	for (i = 3; i < 64; i++)
		put(test, 4096 + i * 64 + i, 4096 + i * 64 + i, WORD(i));
	expect_shape(test, 1, 1, ARRAY(6));
	put(test, 4096 + 3 * 64 + 7, 4096 + 3 * 64 + 7, WORD(96));
	expect_shape(test, 2, 3, ARRAY(0) + 2 * ARRAY(1));
	compare(test);
	clear_all(test);
}

/* Page slots of which all but one go, or that are in the way of a range */
static void test_pages(struct kunit *test)
{
	unsigned long i, k;

	for (k = 0; k < 2; k++) {
		for (i = 0; i < 64; i++)
			put(test, 4096 + i, 4096 + i, WORD(i));
		put(test, 4096 + 64, 4096 + 64, WORD(1));
		drop(test, 4096 + 30, 4096 + 30);
		drop(test, 4096 + 40, 4096 + 42);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_insert(test_store(test), 4096 + 30, 4096 + 31,
							 WORD(1), GFP_KERNEL_ACCOUNT), -EEXIST);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_insert(test_store(test), 4096 + 40, 4096 + 43,
							 WORD(1), GFP_KERNEL_ACCOUNT), -EEXIST);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_insert(test_store(test), 4096 + 29, 4096 + 30,
							 WORD(1), GFP_KERNEL_ACCOUNT), -EEXIST);
		compare(test);
		put(test, 4096 + 40, 4096 + 42, WORD(1));
		compare(test);
		drop(test, 4096 + k, 4096 + 62 + k);
		compare(test);
		clear_all(test);
	}
}

/* Sparse nodes become arrays, and paths of nodes go. */
static void test_shape_collapse(struct kunit *test)
{
	const unsigned long base = BIT(48) + BIT(30);
	struct vfio_xa_dma_stats before, stats;
	unsigned long i, k, at;

	/* Six levels down, and up again to where it began */
	put(test, base, base, WORD(0));
	expect_shape(test, 2, 1, ARRAY(0));
	for (i = 1; i < 257; i++)
		put(test, base + i, base + i, WORD(i));
	compare(test);
	for (i = 256; i > 1; i--)
		drop(test, base + i, base + i);
	expect_shape(test, 2, 1, ARRAY(2));
	clear_all(test);

	/* A range erased at once, from its first block to its last */
	for (i = 0; i < 257; i++)
		put(test, base + i, base + i, WORD(i));
	drop(test, base + 4, base + 256);
	expect_shape(test, 2, 1, ARRAY(2));
	clear_all(test);
	for (i = 0; i < 257; i++)
		put(test, base + i, base + i, WORD(i));
	drop(test, base, base + 252);
	expect_shape(test, 2, 1, ARRAY(2));
	clear_all(test);

	/* More fit into an array further up, if there is nothing else on the way. */
	for (i = 0; i < 257; i++)
		put(test, base + i, base + i, WORD(i));
	drop(test, base + 64, base + 256);
	drop(test, base + 63, base + 63);
	expect_shape(test, 2, 1, ARRAY(6));
	clear_all(test);

	/* 40 blocks, of which one has 33 pages: among so many it stays until there are 5. */
	for (i = 0; i < 39; i++)
		put(test, i * 64, i * 64, WORD(i));
	for (i = 0; i < 33; i++)
		put(test, 63 * 64 + i, 63 * 64 + i, WORD(i));
	expect_shape(test, 2, 0, 0);
	for (i = 33; i > 5; i--) {
		expect_shape(test, 2, 0, 0);
		drop(test, 63 * 64 + i - 1, 63 * 64 + i - 1);
	}
	expect_shape(test, 1, 1, ARRAY(3));
	compare(test);
	/* There 16 runs are too many for an array, if they are in more than 12 slots. */
	for (i = 5; i < 16; i++)
		put(test, 63 * 64 + i, 63 * 64 + i, WORD(i));
	expect_shape(test, 1, 1, ARRAY(4));
	put(test, 63 * 64 + 16, 63 * 64 + 16, WORD(16));
	expect_shape(test, 2, 0, 0);
	clear_all(test);

	/* The same with blocks of 4096 pages: two of 64 pages are few, 13 are not. */
	for (k = 2; k <= 13; k++) {
		for (i = 0; i < 40; i++)
			put(test, i * 4096, i * 4096, WORD(i));
		for (i = 0; i < 16; i++)
			put(test, 63 * 4096 + 64 * (i % k) + i / k,
			    63 * 4096 + 64 * (i % k) + i / k, WORD(i));
		vfio_xa_dma_get_stats(test_store(test), &before);
		put(test, BIT(18) - 1, BIT(18) - 1, WORD(16));
		vfio_xa_dma_get_stats(test_store(test), &stats);
		KUNIT_EXPECT_EQ(test, stats.nodes, before.nodes + (k > 12));
		clear_all(test);
	}

	/* Not if the blocks are larger */
	for (i = 1; i < 41; i++)
		put(test, i * BIT(18), i * BIT(18), WORD(i));
	for (i = 0; i < 129; i++)
		put(test, BIT(24) - BIT(18) + i * 2031, BIT(24) - BIT(18) + i * 2031, WORD(i));
	vfio_xa_dma_get_stats(test_store(test), &stats);
	KUNIT_EXPECT_GT(test, stats.nodes, 1UL);
	for (i = 0; i < 110; i++)
		drop(test, BIT(24) - BIT(18) + i * 2031, BIT(24) - BIT(18) + i * 2031);
	vfio_xa_dma_get_stats(test_store(test), &stats);
	KUNIT_EXPECT_EQ(test, stats.nodes, 1UL);
	clear_all(test);

	/* An array on its own, three levels down, goes up when it is small enough. */
	for (i = 0; i < 257; i++) {
		at = BIT(36) + (i < 200 ? 0 : BIT(24)) + i * 1000;
		put(test, at, at, WORD(i));
	}
	vfio_xa_dma_get_stats(test_store(test), &stats);
	KUNIT_EXPECT_EQ(test, stats.nodes, 3UL);
	drop(test, BIT(36) + BIT(24), BIT(36) + BIT(30) - 1);
	for (i = 199; i >= 128; i--) {
		vfio_xa_dma_get_stats(test_store(test), &stats);
		KUNIT_EXPECT_EQ(test, stats.nodes, 3UL);
		drop(test, BIT(36) + i * 1000, BIT(36) + i * 1000);
	}
	expect_shape(test, 1, 1, ARRAY(7));
	clear_all(test);

	/* Values, an array and a single in a node that collapses: the values are joined. */
	for (i = 0; i < 65; i++)
		put(test, 4096 + i * 31, 4096 + i * 31 + 7, WORD(i));
	for (i = 32; i < 62; i++)
		put(test, 4096 + i * 64, 4096 + i * 64 + 63, WORD(1));
	compare(test);
	drop(test, 4096, 4096 + 64 * 31 - 1);
	compare(test);
	expect_shape(test, 1, 1, ARRAY(4));
	clear_all(test);
}

/* 64 pages in page slots, all of @word */
static void put_pages(struct kunit *test, unsigned long base, unsigned long word)
{
	unsigned long i;

	for (i = 0; i < 64; i++)
		put(test, base + i, base + i, WORD(2 * i + 1));
	for (i = 0; i < 64; i++)
		change(test, base + i, base + i, WORD(127), word);
}

/* In which order the pages of a block come, and how */
static const struct {
	unsigned long first, step;
	bool begin;
} fold_orders[] = {
	{ 0, 1, false }, { 63, 63, false }, { 5, 11, false },
	{ 0, 1, true }, { 63, 63, true }, { 5, 11, true },
};

/* A block of one word is a value, however it has come about, up to 4096 pages. */
static void test_fold(struct kunit *test)
{
	struct model *m = test->priv;
	unsigned long i, k, n, page, first;

	for (k = 0; k < ARRAY_SIZE(fold_orders); k++) {
		for (n = 0; n < 2; n++) {
			/* In an array; in page slots, as there have been many words */
			put(test, 4095, 4095, WORD(9));
			for (i = 0; n && i < 64; i++)
				put(test, 64 + i, 64 + i, WORD(i + 5));
			for (i = 0; n && i < 40; i++)
				drop(test, 64 + (i + 7) % 64, 64 + (i + 7) % 64);
			for (i = 0; n && i < 64; i++)
				change(test, 64 + i, 64 + i, WORD(127) & ~WORD(0), WORD(1));
			for (i = 0; i < 64; i++) {
				page = 64 + (fold_orders[k].first + i * fold_orders[k].step) % 64;
				if (model_overlaps(m, page, page))
					continue;
				KUNIT_ASSERT_EQ(test, fold_orders[k].begin ?
						model_do_insert_begin(m, page, page,
								      WORD(1), 0, true) :
						model_do_insert(m, page, page, WORD(1), 0), 0);
				compare(test);
			}
			expect_run(test, 64, 127, WORD(1));
			expect_shape(test, 1, 0, 0);
			clear_all(test);
		}
	}

	/* One page, and the 63 before it or behind it */
	for (k = 0; k < 2; k++) {
		put(test, k ? 127 : 64, k ? 127 : 64, WORD(1));
		put(test, k ? 64 : 65, k ? 126 : 127, WORD(1));
		expect_shape(test, 1, 0, 0);
		clear_all(test);
	}

	/* The last block of 64, where the others are: one in a node that there is. */
	for (i = 0; i < 64; i++)
		if (i != 5 && i != 7)
			put(test, 4096 + i * 64, 4096 + i * 64 + 63, WORD(1));
	put_pages(test, 4096 + 5 * 64, WORD(1));
	KUNIT_EXPECT_EQ(test, model_do_insert_begin(m, 4096 + 7 * 64, 4096 + 7 * 64 + 63,
						    WORD(1), 0, true), 0);
	expect_shape(test, 1, 0, 0);
	drop(test, 4096 + 7 * 64, 4096 + 7 * 64 + 63);
	put(test, 4096 + 7 * 64, 4096 + 7 * 64 + 63, WORD(1));
	compare(test);
	clear_all(test);
	for (i = 0; i < 64; i++)
		if (i != 5 && i != 7)
			put(test, 4096 + i * 64, 4096 + i * 64 + 63, WORD(1));
	put_pages(test, 4096 + 5 * 64, WORD(1));
	put(test, 4096 + 7 * 64, 4096 + 7 * 64 + 63, WORD(1));
	expect_shape(test, 1, 0, 0);
	clear_all(test);

	/* All pages of a block but one are alike, wherever that is. */
	for (k = 1; k < 64; k++) {
		for (i = 0; i < 64; i++)
			put(test, 4096 + i, 4096 + i, WORD(i + 2));
		put(test, 4096 + 64, 4096 + 64, WORD(1));
		for (i = 0; i < 64; i++)
			if (i != k)
				change(test, 4096 + i, 4096 + i, WORD(127) & ~WORD(0), WORD(1));
		compare(test);
		clear_all(test);
	}

	/* 64 values of 4096 pages remain 64, as do the 64 of those above them. */
	for (i = 0; i < 64; i++)
		put(test, BIT(18) + i * 4096, BIT(18) + i * 4096 + 4095, WORD(1));
	expect_shape(test, 2, 0, 0);
	clear_all(test);

	/* Page by page: 4096 of them are four runs in an array, which are left at that. */
	for (first = BIT(18); first < BIT(18) + 4096 * 3; first++)
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(&m->store, first ^ 63, first ^ 63,
							 WORD(1), GFP_KERNEL_ACCOUNT), 0);
	expect_shape(test, 1, 1, ARRAY(4));
	/* Larger blocks are not folded. */
	for (; first < 2 * BIT(18); first += 4096)
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(&m->store, first, first + 4095,
							 WORD(1), GFP_KERNEL_ACCOUNT), 0);
	expect_shape(test, 2, 3, 3 * ARRAY(2));
	vfio_xa_dma_destroy(&m->store);
}

/* The flags of a block become equal from one end to the other, or not quite. */
static void test_checkerboard(struct kunit *test)
{
	static const unsigned long squares[] = { 1, 16, 64, 1024, 4096 };
	struct model *m = test->priv;
	unsigned long base, until, k;

	for (k = 0; k < ARRAY_SIZE(squares); k++) {
		base = 64 * squares[k] * 3;
		for (until = 1; until <= 64; until += until == 3 ? 29 : until >= 32 ? 7 : 1) {
			put(test, base, base + 64 * squares[k] - 1, WORD(1));
			KUNIT_ASSERT_EQ(test, model_do_checkerboard(m, base, squares[k],
								    VFIO_XA_DMA_BIG, until,
								    until & 1), 0);
			compare(test);
			/* And the rest, in pieces that end in the middle of squares */
			change(test, base, base + 33 * squares[k] + squares[k] / 2,
			       VFIO_XA_DMA_BIG, 0);
			compare(test);
			change(test, base + 32 * squares[k], base + 64 * squares[k] - 1,
			       VFIO_XA_DMA_BIG, 0);
			expect_run(test, base, base + 64 * squares[k] - 1, WORD(1));
			clear_all(test);
		}
	}
}

/*
 * The first block of 4096 pages becomes like all others while the range that is changed
 * goes on: it must not be folded with what is still to be changed.
 */
static void test_fold_done(struct kunit *test)
{
	static const unsigned long lasts[] = { 63, 64, 127, 130, 4031, 4095, 4096, 8191 };
	const unsigned long base = 2 * BIT(12), big = VFIO_XA_DMA_BIG;
	unsigned long i, k, kind;

	for (kind = 0; kind < 4; kind++) {
		for (k = 0; k < ARRAY_SIZE(lasts); k++) {
			put(test, base + 4096, base + 8191, WORD(1));
			for (i = 1; i < 64; i++)
				if (i != 5)
					put(test, base + i * 64, base + i * 64 + 63, WORD(1));
			/* So many runs that the blocks are in slots of a node */
			put_pages(test, base + 5 * 64, WORD(1) | VFIO_XA_DMA_DIRTY);
			switch (kind) {
			case 0:
				put_pages(test, base, WORD(1));
				for (i = 0; i < 64; i += 2)
					change(test, base + i, base + i, 0, big);
				break;
			case 1:
				put(test, base, base + 31, WORD(1) | big);
				put(test, base + 32, base + 63, WORD(1));
				break;
			case 2:
				put(test, base, base + 63, WORD(1) | big);
				break;
			default:
				for (i = 0; i < 64; i++)
					put(test, base + i, base + i,
					    WORD(1) | VFIO_XA_DMA_PENDING);
				break;
			}
			change(test, base + 5 * 64, base + 6 * 64 - 1, VFIO_XA_DMA_DIRTY, 0);
			compare(test);
			change(test, base, base + lasts[k], big | VFIO_XA_DMA_PENDING, 0);
			compare(test);
			if (lasts[k] == 4096)
				expect_shape(test, 1, 1, ARRAY(3));
			else
				expect_shape(test, 1, 0, 0);
			expect_run(test, base, base + 8191, WORD(1));
			clear_all(test);
		}
	}
}

/* Pages that are PENDING, each on its own, do not become a block: each can be undone. */
static void test_fold_pending(struct kunit *test)
{
	struct model *m = test->priv;
	unsigned long i;

	put_pages(test, 4096, WORD(1));
	put(test, 4096 + 64, 4096 + 64, WORD(1));
	for (i = 0; i < 64; i++)
		change(test, 4096 + i, 4096 + i, 0, VFIO_XA_DMA_PENDING);
	compare(test);
	for (i = 0; i < 64; i += 3)
		KUNIT_ASSERT_EQ(test, model_commit_erase(m, 4096 + i, 4096 + i, true), 0);
	for (i = 1; i < 64; i += 3)
		KUNIT_ASSERT_EQ(test, model_commit_change(m, 4096 + i, 4096 + i,
							  VFIO_XA_DMA_PENDING, 0, true), 0);
	clear_all(test);
}

/* The ends of runs of the greatest length, at which searches begin and end */
static void test_find(struct kunit *test)
{
	const unsigned long base = BIT(24);
	unsigned long i, k;

	for (k = 1; k < 20; k++) {
		for (i = 0; i < k; i++)
			put(test, base + i * 2048, base + i * 2048 + 1023, WORD(1));
		compare(test);
		for (i = 0; i < k; i++) {
			/* Nobody can get in beside a run, and nobody over its ends. */
			KUNIT_EXPECT_EQ(test, vfio_xa_dma_insert(test_store(test),
								 base + i * 2048 + 1023,
								 base + i * 2048 + 1024,
								 WORD(2), GFP_KERNEL_ACCOUNT),
					-EEXIST);
			if (i)
				KUNIT_EXPECT_EQ(test, vfio_xa_dma_insert(test_store(test),
									 base + i * 2048 - 1,
									 base + i * 2048,
									 WORD(2),
									 GFP_KERNEL_ACCOUNT),
						-EEXIST);
			KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(test_store(test),
							       base + i * 2048 + 1024, 0), 0);
		}
		drop(test, base + (k - 1) * 2048, base + (k - 1) * 2048);
		compare(test);
		clear_all(test);
	}
}

/*
 * A page that comes and goes, at every number of pages there can be: nothing is moved for
 * it, that is, nothing is allocated, unless it is the first or the second of its block.
 */
static void test_hysteresis(struct kunit *test)
{
	static const struct {
		unsigned long base, stride, npages;
	} rows[] = {
		{ 0, 1, 128 }, { BIT(18), 1, 300 }, { 0, 64, 200 }, { BIT(24), 64, 300 },
		{ BIT(30), BIT(12), 600 }, { BIT(48), BIT(36), 300 },
	};
	unsigned long i, k, n, at, most;

	for (k = 0; k < ARRAY_SIZE(rows); k++) {
		for (n = 0; n < 2 * rows[k].npages; n++) {
			/* Up, and down again */
			i = n < rows[k].npages ? n : 2 * rows[k].npages - n - 1;
			at = rows[k].base + i * rows[k].stride;
			if (n < rows[k].npages) {
				put(test, at, at, WORD(i));
				drop(test, at, at);
				put(test, at, at, WORD(i));
			} else {
				drop(test, at, at);
				put(test, at, at, WORD(i));
				drop(test, at, at);
			}
			/* The same page again, from now on it has a place. */
			nr_allocs = 0;
			if (n < rows[k].npages) {
				drop(test, at, at);
				put(test, at, at, WORD(i));
			} else {
				put(test, at, at, WORD(i));
				drop(test, at, at);
			}
			/* First in a block of 64 slots, second in a block of 64 pages */
			most = i % 64 ? rows[k].stride == 1 && i % 64 == 1 : 2;
			KUNIT_EXPECT_LE_MSG(test, nr_allocs, most, "row %lu, step %lu", k, n);
		}
		clear_all(test);
	}
}

/* What must not fail gets its memory when nothing else does. */
static void test_nofail(struct kunit *test)
{
	static const struct {
		unsigned long stride, npages, first, last;
	} rows[] = {
		/* a value of 64 pages, of 4096, of all */
		{ 0, 64, 5, 6 }, { 0, 4096, 1000, 3000 }, { 0, LAST, LAST / 3, LAST / 2 },
		/* arrays that are full: of runs of 2 pages, to be pushed down or not */
		{ 4, 2, 1, 1 }, { 4, 8, 1, 1 }, { 4, 16, 1, 61 }, { 4, 64, 1, 1 },
		{ 4, 128, 1, 509 }, { 64, 64, 1, 1 }, { 64, 128, 1, 64 }, { 4096, 256, 1, 1 },
	};
	struct model *m = test->priv;
	unsigned long i, k, stride;

	for (k = 0; k < ARRAY_SIZE(rows); k++) {
		stride = rows[k].stride;
		if (!stride)
			put(test, 0, rows[k].npages - 1, WORD(1));
		for (i = 0; stride && i < rows[k].npages; i++)
			put(test, i * stride, i * stride + 1, WORD(i));
		model_only_nofail(true);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_prepare(&m->store, rows[k].first, rows[k].last,
							  GFP_KERNEL_ACCOUNT | __GFP_NOFAIL), 0);
		model_only_nofail(false);
		KUNIT_EXPECT_EQ(test, model_commit_erase(m, rows[k].first, rows[k].last, true), 0);
		clear_all(test);
	}
}

/* What is done with each allocation failing in turn. */
struct fail_case {
	const char *name;
	unsigned long stride, npages;	/* what is there before */
	unsigned long first, last;
	bool cut;			/* prepare, or insert */
};

static const struct fail_case fail_cases[] = {
	{ "first page",			0, 0, 1234567, 1234567, false },
	{ "last page of the space",	0, 0, LAST, LAST, false },
	{ "beside another page",	1 << 20, 1, 1, 1, false },
	{ "more runs in an array",	2, 16, 33, 33, false },
	{ "array to page slots",	2, 32, 1, 1, false },
	{ "array to smaller arrays",	64, 64, 1, 1, false },
	{ "array at the top",		1UL << 40, 256, 1, 1, false },
	{ "range across many levels",	0, 0, 4095, (1UL << 40) + 7, false },
	{ "range beside another",	1UL << 44, 2, 1, (1UL << 43) + 7, false },
	{ "whole space cut",		0, LAST, LAST / 3, LAST / 2, true },
	{ "16 MiB cut",			0, 1 << 12, 77, 78, true },
	{ "256 KiB cut",		0, 64, 13, 13, true },
	{ "end cut",			0, 64, 0, 13, true },
};

static void fail_setup(struct kunit *test, const struct fail_case *c)
{
	struct model *m = test->priv;
	unsigned long i;

	model_init(m, 0, NULL, 0);
	if (!c->stride && c->npages)
		KUNIT_ASSERT_EQ(test, model_do_insert(m, 0, c->npages - 1, WORD(1), 0), 0);
	for (i = 0; c->stride && i < c->npages; i++)
		KUNIT_ASSERT_EQ(test, model_do_insert(m, i * c->stride, i * c->stride,
						      WORD(i * 3), 0), 0);
	KUNIT_ASSERT_EQ(test, model_compare(m), 0);
}

static void test_enomem(struct kunit *test)
{
	struct model *m = test->priv;
	unsigned int i, nth;
	int err;

	for (i = 0; i < ARRAY_SIZE(fail_cases); i++) {
		const struct fail_case *c = &fail_cases[i];

		/* Until none is left to fail. */
		for (nth = 1, err = -ENOMEM; err; nth++) {
			KUNIT_ASSERT_LT(test, nth, 200);
			fail_setup(test, c);
			model_fail_nth(nth);
			if (c->cut)
				err = vfio_xa_dma_prepare(&m->store, c->first, c->last,
							  GFP_KERNEL_ACCOUNT);
			else
				err = vfio_xa_dma_insert(&m->store, c->first, c->last,
							 WORD(~0UL), GFP_KERNEL_ACCOUNT);
			KUNIT_EXPECT_EQ(test, err, model_fail_left() ? 0 : -ENOMEM);
			model_fail_nth(0);
			if (!err && c->cut)
				KUNIT_EXPECT_EQ(test, 0, model_commit_erase(m, c->first,
									    c->last, true));
			else if (!err)
				model_insert(m, c->first, c->last, WORD(~0UL));
			KUNIT_EXPECT_EQ(test, model_compare(m), 0);
			KUNIT_EXPECT_EQ(test, model_fini(m), 0);
		}
		kunit_info(test, "%s: %u allocations", c->name, nth - 2);
		KUNIT_EXPECT_GT_MSG(test, nth, 2, "%s: nothing has failed", c->name);
	}
}

static struct kunit_case xa_dma_cases[] = {
	KUNIT_CASE(test_limits),
	KUNIT_CASE(test_take),
	KUNIT_CASE(test_single),
	KUNIT_CASE(test_transient),
	KUNIT_CASE(test_shape_few),
	KUNIT_CASE(test_shape_ranges),
	KUNIT_CASE(test_shape_limits),
	KUNIT_CASE(test_shape_push_down),
	KUNIT_CASE(test_pages),
	KUNIT_CASE(test_shape_collapse),
	KUNIT_CASE(test_fold),
	KUNIT_CASE(test_fold_done),
	KUNIT_CASE(test_fold_pending),
	KUNIT_CASE(test_checkerboard),
	KUNIT_CASE(test_find),
	KUNIT_CASE(test_hysteresis),
	KUNIT_CASE(test_nofail),
	KUNIT_CASE(test_enomem),
	KUNIT_CASE_SLOW(test_memory),
	KUNIT_CASE_SLOW(test_slab),
	KUNIT_CASE_SLOW(test_random),
	{}
};

static struct kunit_suite xa_dma_suite = {
	.name = "vfio_xa_dma",
	.init = xa_dma_test_init,
	.exit = xa_dma_test_exit,
	.test_cases = xa_dma_cases,
};

kunit_test_suite(xa_dma_suite);

MODULE_IMPORT_NS("VFIO_DMA");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_DESCRIPTION("KUnit tests of the store of DMA mappings");
MODULE_LICENSE("GPL");
