/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of shapes: what a store is made of, by what it takes. The numbers follow
 * from the description at the top of vfio_xa_dma.c.
 */
#ifndef _VFIO_XA_DMA_SHAPES_H
#define _VFIO_XA_DMA_SHAPES_H

#include "vfio_xa_dma_rig.h"

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
	KUNIT_ASSERT_EQ(test, vfio_xa_dma_cut(&m->store, first, last,
					      GFP_KERNEL_ACCOUNT), 0);
	KUNIT_ASSERT_EQ(test, model_commit_erase(m, first, last, false), 0);
}

static void change(struct kunit *test, unsigned long first, unsigned long last,
		   unsigned long clear, unsigned long set)
{
	struct model *m = test->priv;

	KUNIT_ASSERT_EQ(test, vfio_xa_dma_cut(&m->store, first, last,
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
	if (!HUGE_SLOTS)
		return;
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
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_cut(test_store(test), 64 + 48, 128 + 1,
					      GFP_KERNEL_ACCOUNT), 0);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_cut(test_store(test), 64, 64 + 1,
					      GFP_KERNEL_ACCOUNT), 0);
	expect_shape(test, 1, 2, 2 * ARRAY(2));
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_cut(test_store(test), 64, 64,
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
	const unsigned long base = FAR + BIT(30), nodes = HUGE_SLOTS ? 2 : 1;
	struct vfio_xa_dma_stats before, stats;
	unsigned long i, k, at;

	/* Six levels down, and up again to where it began */
	put(test, base, base, WORD(0));
	expect_shape(test, nodes, 1, ARRAY(0));
	for (i = 1; i < 257; i++)
		put(test, base + i, base + i, WORD(i));
	compare(test);
	for (i = 256; i > 1; i--)
		drop(test, base + i, base + i);
	expect_shape(test, nodes, 1, ARRAY(2));
	clear_all(test);

	/* A range erased at once, from its first block to its last */
	for (i = 0; i < 257; i++)
		put(test, base + i, base + i, WORD(i));
	drop(test, base + 4, base + 256);
	expect_shape(test, nodes, 1, ARRAY(2));
	clear_all(test);
	for (i = 0; i < 257; i++)
		put(test, base + i, base + i, WORD(i));
	drop(test, base, base + 252);
	expect_shape(test, nodes, 1, ARRAY(2));
	clear_all(test);

	/* More fit into an array further up, if there is nothing else on the way. */
	for (i = 0; i < 257; i++)
		put(test, base + i, base + i, WORD(i));
	drop(test, base + 64, base + 256);
	drop(test, base + 63, base + 63);
	expect_shape(test, nodes, 1, ARRAY(6));
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

#endif /* _VFIO_XA_DMA_SHAPES_H */
