// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the store costs, beside the XArray with an entry for each page and a
 * maple tree of runs: memory a page, and instructions to insert, to look up
 * and to erase a page.
 *
 * To be run by compare.sh, in callgrind, which counts the instructions.
 */

#include <valgrind/callgrind.h>

#include "harness.h"

#include <linux/maple_tree.h>

#include "../../../drivers/vfio/tests/vfio_xa_dma_patterns.h"

#define NPAGES	(1 << 14)

static struct vfio_xa_dma store;
static struct xarray xa;
static struct maple_tree mt;

/* What counting costs, to be subtracted. */
static void nothing_insert(unsigned long index, unsigned long word)
{
}

static void nothing_erase(unsigned long index)
{
}

static unsigned long nothing_load(unsigned long index)
{
	return 1;
}

static void store_insert(unsigned long index, unsigned long word)
{
	if (vfio_xa_dma_insert(&store, index, index, word, GFP_KERNEL_ACCOUNT))
		abort();
}

static void store_erase(unsigned long index)
{
	if (vfio_xa_dma_take(&store, index, 0))
		return;
	if (vfio_xa_dma_cut(&store, index, index, GFP_KERNEL_ACCOUNT))
		abort();
	vfio_xa_dma_erase(&store, index, index);
}

static unsigned long store_load(unsigned long index)
{
	return vfio_xa_dma_load(&store, index);
}

static void xarray_insert(unsigned long index, unsigned long word)
{
	if (xa_store(&xa, index, xa_mk_value(word), GFP_KERNEL_ACCOUNT))
		abort();
}

static void xarray_erase(unsigned long index)
{
	xa_erase(&xa, index);
}

static unsigned long xarray_load(unsigned long index)
{
	return xa_to_value(xa_load(&xa, index));
}

/* The maple tree stores ranges, but does not join equal neighbours itself. */
static void maple_insert(unsigned long index, unsigned long word)
{
	MA_STATE(mas, &mt, index, index);
	unsigned long first = index, last = index;
	void *entry = xa_mk_value(word);

	mas_lock(&mas);
	if (index) {
		mas_set(&mas, index - 1);
		if (mas_walk(&mas) == entry)
			first = mas.index;
	}
	mas_set(&mas, index + 1);
	if (mas_walk(&mas) == entry)
		last = mas.last;
	mas_set_range(&mas, first, last);
	if (mas_store_gfp(&mas, entry, GFP_KERNEL_ACCOUNT))
		abort();
	mas_unlock(&mas);
}

static void maple_erase(unsigned long index)
{
	MA_STATE(mas, &mt, index, index);

	mas_lock(&mas);
	if (mas_store_gfp(&mas, NULL, GFP_KERNEL_ACCOUNT))
		abort();
	mas_unlock(&mas);
}

static unsigned long maple_load(unsigned long index)
{
	return xa_to_value(mtree_load(&mt, index));
}

static const struct tree {
	const char *name;
	void (*insert)(unsigned long index, unsigned long word);
	void (*erase)(unsigned long index);
	unsigned long (*load)(unsigned long index);
} trees[] = {
	{ "nothing", nothing_insert, nothing_erase, nothing_load },
	{ "store",   store_insert,   store_erase,   store_load },
	{ "xarray",  xarray_insert,  xarray_erase,  xarray_load },
	{ "maple",   maple_insert,   maple_erase,   maple_load },
};

/* In shuffled order, but for the first one. */
static const struct pattern compared[] = {
	{ "linear, upwards",        1,    NPAGES, false, false },
	{ "linear",                 1,    NPAGES, false, false },
	{ "each page different",    1,    NPAGES, false, true },
	{ "random half, different", 1,    NPAGES, true,  true },
	{ "one in 16, different",   16,   NPAGES, false, true },
	{ "one in 64, different",   64,   NPAGES, false, true },
	{ "one in 512, different",  512,  NPAGES, false, true },
	{ "one in 4096, different", 4096, NPAGES, false, true },
};

static unsigned long indexes[NPAGES], words[NPAGES];

static void count(const struct pattern *p, const struct tree *t, const char *what,
		  unsigned long n)
{
	char text[128];

	snprintf(text, sizeof(text), "%s|%s|%s|%lu", p->name, t->name, what, n);
	CALLGRIND_DUMP_STATS_AT(text);
	CALLGRIND_ZERO_STATS;
}

static void compare(const struct pattern *p, const struct tree *t)
{
	const unsigned long base = 0x100000;
	unsigned long before = harness_bytes(), n = 0, i, j;

	for (i = 0; i < p->npages; i++) {
		j = p == &compared[0] ? i : pattern_shuffle(i, p->npages);
		if (p->half && (j * 0x9e3779b97f4a7c15) >> 63)
			continue;
		indexes[n] = base + j * p->stride;
		words[n++] = vfio_xa_dma_word(0, (p->different ? j * 7919 : 1) << PAGE_SHIFT,
					      VFIO_XA_DMA_READ);
	}

	CALLGRIND_ZERO_STATS;
	for (i = 0; i < n; i++)
		t->insert(indexes[i], words[i]);
	count(p, t, "fill", n);
	printf("%s|%s|bytes|%.2f\n", p->name, t->name,
	       (double)(harness_bytes() - before) / n);

	CALLGRIND_ZERO_STATS;
	for (i = 0; i < n; i++)
		if (!t->load(indexes[i]))
			abort();
	count(p, t, "load", n);

	/* One page taken out and put back, here and there. */
	CALLGRIND_ZERO_STATS;
	for (i = 0; i < n; i += 3) {
		t->erase(indexes[i]);
		t->insert(indexes[i], words[i]);
	}
	count(p, t, "out and back", (n + 2) / 3);

	CALLGRIND_ZERO_STATS;
	for (i = 0; i < n; i++)
		t->erase(indexes[i]);
	count(p, t, "empty", n);
}

int main(void)
{
	unsigned int i, j;

	vfio_xa_dma_init(&store);
	xa_init_flags(&xa, XA_FLAGS_ACCOUNT);
	mt_init(&mt);
	for (i = 0; i < ARRAY_SIZE(compared); i++)
		for (j = 0; j < ARRAY_SIZE(trees); j++)
			compare(&compared[i], &trees[j]);
	return 0;
}
