// SPDX-License-Identifier: GPL-2.0-only
/*
 * The memory which the store takes for a page: by pattern, after erasing, and a
 * search for the pattern for which it takes most.
 *
 *	memory [SHAPES-TO-SEARCH [SEED]]
 *
 * Prints a line for each test; check.sh makes TAP of it. The same seed finds the same.
 */

#include "harness.h"
#include "../../../drivers/vfio/tests/vfio_xa_dma_patterns.h"

static u64 seed;

static u64 rnd(u64 n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 11) % n;
}

static bool result(bool ok, const char *name, const char *order, double bytes, double goal)
{
	printf("%s - memory: %s, %s: %.3f bytes a page, at most %.3f\n",
	       ok ? "ok" : "not ok", name, order, bytes, goal);
	return ok;
}

static bool table(void)
{
	struct vfio_xa_dma store;
	bool ok = true;
	unsigned int i;
	int order;

	for (i = 0; i < ARRAY_SIZE(patterns); i++) {
		for (order = 0; order < PATTERN_ORDERS; order++) {
			unsigned long milli;

			vfio_xa_dma_init(&store);
			milli = pattern_measure(&store, &patterns[i], order);
			ok &= result(milli && milli <= patterns[i].goal_milli[order] &&
				     vfio_xa_dma_footprint(&store) == harness_bytes() &&
				     !vfio_xa_dma_validate(&store),
				     patterns[i].name, pattern_orders[order],
				     milli / 1000.0, patterns[i].goal_milli[order] / 1000.0);
			vfio_xa_dma_destroy(&store);
		}
	}
	return ok;
}

/*
 * What is left after erasing, at random, from clusters of pages all over the
 * address space: the most bytes a page at any moment.
 */
#define ERASE_PAGES	(1UL << 15)
#define ERASE_LEFT	1024

static bool erase_clusters(unsigned long cluster, unsigned long stride, double goal)
{
	static unsigned long index[ERASE_PAGES];
	struct vfio_xa_dma store;
	double worst = 0, bytes;
	unsigned long i, j, t;
	char name[64];

	vfio_xa_dma_init(&store);
	for (i = 0; i < ERASE_PAGES; i++) {
		index[i] = i / cluster * ((VFIO_XA_DMA_LAST_INDEX + 1) / (ERASE_PAGES / cluster)) +
			   i % cluster * stride;
		if (vfio_xa_dma_insert(&store, index[i], index[i],
				       vfio_xa_dma_word(0, i * 7919 << PAGE_SHIFT,
							VFIO_XA_DMA_READ),
				       GFP_KERNEL_ACCOUNT))
			abort();
	}
	for (i = ERASE_PAGES - 1; i; i--) {
		j = rnd(i + 1);
		t = index[i];
		index[i] = index[j];
		index[j] = t;
	}
	for (i = 0; i < ERASE_PAGES - ERASE_LEFT; i++) {
		if (!vfio_xa_dma_take(&store, index[i], 0)) {
			if (vfio_xa_dma_cut(&store, index[i], index[i],
					    GFP_KERNEL_ACCOUNT))
				abort();
			vfio_xa_dma_erase(&store, index[i], index[i]);
		}
		bytes = (double)vfio_xa_dma_footprint(&store) / vfio_xa_dma_npages(&store);
		if (bytes > worst)
			worst = bytes;
	}
	vfio_xa_dma_destroy(&store);
	snprintf(name, sizeof(name), "clusters of %lu, one page in %lu", cluster, stride);
	return result(worst && worst <= goal, name, "erased at random", worst, goal);
}

static bool erase_all(void)
{
	/* A tenth more than is taken */
	static const struct {
		unsigned long cluster, stride;
		double goal;
	} rows[] = {
		{ 64, 1, 60 }, { 64, 16, 61 }, { 64, 64, 61 },
		{ 512, 1, 65 }, { 512, 16, 74 }, { 512, 64, 76 },
		{ 4096, 1, 84 }, { 4096, 16, 78 }, { 4096, 64, 77 },
		{ ERASE_PAGES, 1, 75 }, { ERASE_PAGES, 16, 75 }, { ERASE_PAGES, 64, 63 },
	};
	unsigned int i;
	bool ok = true;

	for (i = 0; i < ARRAY_SIZE(rows); i++)
		ok &= erase_clusters(rows[i].cluster, rows[i].stride, rows[i].goal);
	return ok;
}

/*
 * The search. A shape is made of pieces of @pages pages each, repeated at up
 * to DIMS scales: @n[i] times at a distance of @stride[i] pages.
 */
#define DIMS		5
#define MIN_PAGES	1024
#define MAX_PAGES	20000
#define WORST_GOAL	63.0
#define LONG		5	/* @words: all different, and none fits into a single */
#define MIXED		6	/* @words: all different, and every other one does */

struct shape {
	unsigned long base;
	unsigned int pages;
	unsigned int n[DIMS];
	unsigned long stride[DIMS];
	unsigned char words;	/* 0 all equal, 1 all different, LONG, MIXED, n: n different */
	unsigned char order;	/* 0 as they come, 1 the other way round, 2 shuffled */
};

static unsigned long shape_pieces(const struct shape *s)
{
	unsigned long n = 1;
	int i;

	for (i = 0; i < DIMS; i++)
		n *= s->n[i];
	return n;
}

/* The most bytes a page, at any moment with MIN_PAGES pages or more. */
static double shape_score(const struct shape *s)
{
	static unsigned long index[MAX_PAGES];
	static unsigned long at[MAX_PAGES];
	unsigned long n = shape_pieces(s), k;
	struct vfio_xa_dma store;
	double worst = 0;
	int i;

	for (k = 0; k < n; k++) {
		unsigned long rest = k;

		index[k] = s->base;
		for (i = 0; i < DIMS; i++) {
			index[k] += rest % s->n[i] * s->stride[i];
			rest /= s->n[i];
		}
		index[k] &= VFIO_XA_DMA_LAST_INDEX;
		at[k] = s->order == 1 ? n - 1 - k : k;
	}
	if (s->order == 2) {
		for (k = n - 1; k; k--) {
			unsigned long j = rnd(k + 1), t = at[k];

			at[k] = at[j];
			at[j] = t;
		}
	}

	vfio_xa_dma_init(&store);
	for (k = 0; k < n; k++) {
		unsigned long first = index[at[k]];
		bool is_long = s->words == LONG || (s->words == MIXED && at[k] % 2);
		unsigned long delta = is_long ? at[k] * 7919 + BIT(62 - PAGE_SHIFT) :
				      s->words == MIXED ||
				      s->words == 1 ? at[k] * 7919 + 1 :
				      s->words ? at[k] % s->words : 0;
		unsigned long word = vfio_xa_dma_word(0, delta << PAGE_SHIFT,
						      VFIO_XA_DMA_READ);

		/* Pieces may meet, which is no matter. */
		if (first > VFIO_XA_DMA_LAST_INDEX - s->pages + 1 ||
		    vfio_xa_dma_insert(&store, first, first + s->pages - 1, word,
				       GFP_KERNEL_ACCOUNT))
			continue;
		if (vfio_xa_dma_npages(&store) >= MIN_PAGES) {
			double bytes = (double)vfio_xa_dma_footprint(&store) /
				       vfio_xa_dma_npages(&store);

			if (bytes > worst)
				worst = bytes;
		}
	}
	vfio_xa_dma_destroy(&store);
	return worst;
}

static void shape_print(const struct shape *s, double score)
{
	int i;

	printf("# %.2f bytes a page: base %#lx, pieces of %u, words %u, order %u:",
	       score, s->base, s->pages, s->words, s->order);
	for (i = 0; i < DIMS; i++)
		if (s->n[i] > 1)
			printf(" %u x %#lx", s->n[i], s->stride[i]);
	printf("\n");
}

static unsigned long random_stride(void)
{
	unsigned long stride = 1UL << (rnd(4) ? rnd(9) * XA_CHUNK_SHIFT : rnd(52));

	switch (rnd(4)) {
	case 0:
		stride += rnd(stride) + 1;
		break;
	case 1:
		stride *= rnd(64) + 1;
		break;
	}
	return stride & VFIO_XA_DMA_LAST_INDEX;
}

static unsigned int random_count(void)
{
	static const unsigned int edges[] = { 1, 2, 3, 5, 9, 17, 33, 65, 129, 257 };

	return rnd(2) ? edges[rnd(ARRAY_SIZE(edges))] : 1 + rnd(16 << rnd(5));
}

static void shape_mutate(struct shape *s)
{
	int i = rnd(DIMS), j = rnd(DIMS);
	unsigned int n;

	switch (rnd(10)) {
	case 0:
		s->base = rnd(2) ? rnd(VFIO_XA_DMA_LAST_INDEX) : rnd(4096);
		break;
	case 1:
		s->pages = rnd(4) ? 1 : 1 + rnd(1 << rnd(12));
		break;
	case 2:
	case 3:
		s->n[i] = random_count();
		break;
	case 4:
		s->n[i] += rnd(5) - 2;
		if (!s->n[i] || s->n[i] > MAX_PAGES)
			s->n[i] = 1;
		break;
	case 5:
	case 6:
		s->stride[i] = random_stride();
		break;
	case 7:
		n = s->n[i];
		s->n[i] = s->n[j];
		s->n[j] = n;
		break;
	case 8:
		s->words = rnd(3) ? 1 : rnd(MIXED + 1);
		break;
	default:
		s->order = rnd(3);
		break;
	}
}

static bool find_worst(unsigned long tries)
{
	/* What is known to be bad: clusters, far from each other. */
	static const struct shape known[] = {
		{ .pages = 1, .words = 1,
		  .n = { 257, 1, 1, 1, 16 }, .stride = { 1, 0, 0, 0, BIT(48) } },
		{ .pages = 1, .words = 1,
		  .n = { 17, 51, 4, 4, 1 }, .stride = { 2, 64, 0x13000, BIT(48), 0 } },
		{ .pages = 1, .words = 1, .base = 0xa25bb2b1c7f19, .order = 1,
		  .n = { 6, 2, 17, 8, 3 },
		  .stride = { BIT(50), 0x70000, 2, 64, 5UL << 48 } },
		{ .pages = 1, .words = LONG,
		  .n = { 17, 33, 4, 1, 1 }, .stride = { 64, 4096, BIT(48), 0, 0 } },
		{ .pages = 1, .words = LONG,
		  .n = { 33, 2, 17, 1, 1 }, .stride = { 4096, BIT(48), 64, 0, 0 } },
	};
	struct shape worst = known[0], here = worst;
	double worst_score = 0, here_score;
	unsigned long idle = 0, left;
	unsigned int k;

	for (k = 0; k < ARRAY_SIZE(known); k++) {
		here_score = shape_score(&known[k]);
		if (here_score > worst_score) {
			worst = known[k];
			worst_score = here_score;
		}
	}
	here = worst;
	here_score = worst_score;

	for (left = tries; left; left--) {
		struct shape next = here;
		double score;
		int i;

		do {
			shape_mutate(&next);
		} while (rnd(2) || shape_pieces(&next) > MAX_PAGES);
		score = shape_score(&next);
		if (score >= here_score) {
			idle = score > here_score ? 0 : idle + 1;
			here = next;
			here_score = score;
		} else {
			idle++;
		}
		if (here_score > worst_score) {
			worst = here;
			worst_score = here_score;
		}
		if (idle < 400)
			continue;

		/* Somewhere else, or back to the worst with some changes. */
		idle = 0;
		if (!rnd(4)) {
			here = worst;
		} else {
			here = (struct shape) { .pages = 1, .words = 1 };
			for (i = 0; i < DIMS; i++) {
				here.n[i] = 1;
				here.stride[i] = random_stride();
			}
			here.n[0] = random_count();
			here.n[1 + rnd(DIMS - 1)] = random_count();
			if (shape_pieces(&here) > MAX_PAGES)
				here = worst;
		}
		here_score = shape_score(&here);
	}
	shape_print(&worst, worst_score);
	printf("# %lu shapes tried\n", tries);
	return result(worst_score && worst_score <= WORST_GOAL,
		      "worst of the search", "1024 pages or more", worst_score, WORST_GOAL);
}

int main(int argc, char **argv)
{
	unsigned long tries = argc > 1 ? strtoul(argv[1], NULL, 0) : 50000;
	bool ok;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	printf("# seed %llu\n", (unsigned long long)seed);
	seed = seed * 0x9e3779b97f4a7c15 | 1;
	ok = table();
	ok &= erase_all();
	ok &= find_worst(tries);
	return !ok;
}
