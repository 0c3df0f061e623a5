// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the store of DMA mappings
 *
 * The random tests print the seed which they begin with. To have others:
 * modprobe vfio_xa_dma_kunit seed=<seed>, or seed=0 for one that nobody chose.
 */

#include "vfio_xa_dma_rig.h"
#include "vfio_xa_dma_shapes.h"

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
	/* Slabs that are filled in part; each is one page at least. */
	const long pages = 4 * PAGE_SIZE, slack = max_t(long, pages, SZ_128K);
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
		KUNIT_EXPECT_GE(test, spent, said - said / 9 - slack);
		KUNIT_EXPECT_LE(test, spent, said + said / 50 + slack);
		vfio_xa_dma_destroy(&m->store);
		vfio_xa_dma_destroy(&other);
	}
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
			KUNIT_ASSERT_EQ(test, vfio_xa_dma_cut(store, indexes[i], indexes[i],
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
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_cut(store, indexes[i], indexes[i],
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
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_cut(store, 7, LAST, GFP_KERNEL_ACCOUNT), 0);
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
	/* It says so if it is for its flags that a page stays. */
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, 19, VFIO_XA_DMA_READ), WORD(1));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, 19, 0), WORD(1));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, 10, 0), WORD(1));
	expect_run(test, 11, 18, WORD(1));
	/* An array of two elements has no room for a third. */
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_take(store, 15, 0), 0);
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_cut(store, 15, 15, GFP_KERNEL_ACCOUNT), 0);
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

/* The word of a page is added to in one step where that takes no memory, and only then. */
static void test_add(struct kunit *test)
{
	const unsigned long one = BIT(VFIO_XA_DMA_FLAG_BITS);
	struct model *m = test->priv;
	struct vfio_xa_dma *store = &m->store;
	unsigned long i;
	size_t bytes;

	/* A run in an array, page by page: from its front, from its end, and all of it */
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, 10, 19, WORD(1), GFP_KERNEL_ACCOUNT), 0);
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, 40, 40, WORD(9), GFP_KERNEL_ACCOUNT), 0);
	/* An array of two elements has no room for a third. */
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 10, one, 0), 0);
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_cut(store, 12, 12, GFP_KERNEL_ACCOUNT), 0);
	bytes = vfio_xa_dma_footprint(store);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 9, one, 0), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 20, one, 0), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 41, one, 0), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 10, one, WORD(1)), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 10, one, WORD(2)), WORD(1));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 11, one, 0), WORD(1));
	expect_run(test, 10, 11, WORD(2));
	expect_run(test, 12, 19, WORD(1));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 11, -one, 0), WORD(2));
	expect_run(test, 10, 10, WORD(2));
	expect_run(test, 11, 19, WORD(1));
	/* Three elements of four have room for one more, but not for two. */
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 15, one, 0), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 19, one, 0), WORD(1));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 18, one, 0), WORD(1));
	expect_run(test, 18, 19, WORD(2));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 15, one, 0), 0);
	for (i = 11; i < 17; i++)
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, i, one, 0), WORD(1));
	expect_run(test, 10, 16, WORD(2));
	/* The last one joins both sides. */
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 17, one, 0), WORD(1));
	expect_run(test, 10, 19, WORD(2));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(store), 11);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_footprint(store), bytes);
	/* Two would be one, and that is for vfio_xa_dma_change() to make smaller. */
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, 20, 20, WORD(1), GFP_KERNEL_ACCOUNT), 0);
	vfio_xa_dma_erase(store, 40, 40);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 20, one, 0), 0);
	vfio_xa_dma_erase(store, 0, 63);
	KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(store));

	/* Pages of a node, which become a value when all are alike, and that is not one step. */
	for (i = 0; i < 128; i++)
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_insert(store, i, i, WORD(i % 64 + 1),
							 GFP_KERNEL_ACCOUNT), 0);
	bytes = vfio_xa_dma_footprint(store);
	for (i = 0; i < 64; i++)
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, i, one * (99 - i), 0), WORD(i + 1));
	expect_run(test, 0, 63, WORD(100));
	KUNIT_EXPECT_LT(test, vfio_xa_dma_footprint(store), bytes);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_add(store, 5, one, 0), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_npages(store), 128);
}

/* Blocks of 64 pages with one page each, and what becomes of them. */
static void test_single(struct kunit *test)
{
	const unsigned long words[] = {
		/* the first two fit, signed as they are; the others do not */
		WORD(SINGLE_DELTA - 1), WORD(-SINGLE_DELTA), WORD(SINGLE_DELTA),
		WORD(-SINGLE_DELTA - 1), WORD(SINGLE_DELTA << 5),
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
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_take(store, page, VFIO_XA_DMA_READ), WORD(i));
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_load(store, page), WORD(i));
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
		KUNIT_ASSERT_EQ(test, vfio_xa_dma_cut(store, i, i, GFP_KERNEL_ACCOUNT), 0);
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
		{ BIT(30), BIT(12), 600 }, { FAR, BIT(36), 300 },
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
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_cut(&m->store, rows[k].first, rows[k].last,
						      GFP_KERNEL_ACCOUNT | __GFP_NOFAIL), 0);
		model_only_nofail(false);
		KUNIT_EXPECT_EQ(test, model_commit_erase(m, rows[k].first, rows[k].last, true), 0);
		/* It is asked for within the limits first. */
		nr_allocs = 0;
		nr_refused = 0;
		model_only_nofail(true);
		KUNIT_EXPECT_EQ(test, vfio_xa_dma_reserve(&m->store, rows[k].first,
							  rows[k].last, WORD(7777),
							  GFP_KERNEL | __GFP_NOFAIL) < 0, 0);
		model_only_nofail(false);
		KUNIT_EXPECT_TRUE(test, !nr_allocs || nr_refused);
		vfio_xa_dma_commit(&m->store, rows[k].first, rows[k].last);
		vfio_xa_dma_erase(&m->store, rows[k].first, rows[k].last);
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
				err = vfio_xa_dma_cut(&m->store, c->first, c->last,
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
	KUNIT_CASE(test_add),
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
