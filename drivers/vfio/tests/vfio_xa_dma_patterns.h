/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The patterns of which the memory is measured, with the most it may be.
 *
 * Included by the KUnit suite and by the programs in tools/testing/vfio_xa_dma.
 */
#ifndef __VFIO_XA_DMA_PATTERNS_H
#define __VFIO_XA_DMA_PATTERNS_H

#include "../vfio_xa_dma.h"

enum { PATTERN_UP, PATTERN_DOWN, PATTERN_SHUFFLED, PATTERN_PUBLISHED, PATTERN_ORDERS };

/**
 * struct pattern - a way to map pages
 * @name: what it is called
 * @stride: distance of the pages
 * @npages: how many pages there are, or half of that
 * @half: leave every other page out, at random
 * @different: every page has a delta of its own
 * @goal_milli: the most memory it may take, in each of the orders: bytes a page, times
 *	1000; a tenth more than it takes, so that whatever takes more is noticed
 */
struct pattern {
	const char *name;
	unsigned long stride;
	unsigned long npages;
	bool half;
	bool different;
	unsigned long goal_milli[PATTERN_ORDERS];
};

static const struct pattern patterns[] = {
	{ "linear",                 1,    1 << 16, false, false, { 27, 27, 20, 44 } },
	{ "each page different",    1,    1 << 15, false, true,  { 9500, 9500, 9500, 9500 } },
	{ "random half, different", 1,    1 << 15, true,  true,  { 19800, 19800, 20000, 19800 } },
	{ "one in 16, different",   16,   1 << 14, false, true,  { 22400, 22400, 22400, 22400 } },
	{ "one in 64, different",   64,   1 << 14, false, true,  { 14100, 14100, 10300, 14100 } },
	{ "one in 512, different",  512,  1 << 14, false, true,  { 20000, 20000, 20000, 20000 } },
	{ "one in 4096, different", 4096, 1 << 14, false, true,  { 17900, 17900, 17900, 17900 } },
};

static const char * const pattern_orders[] = {
	[PATTERN_UP]		= "upwards",
	[PATTERN_DOWN]		= "downwards",
	[PATTERN_SHUFFLED]	= "shuffled",
	[PATTERN_PUBLISHED]	= "PENDING, then published",
};

/* A permutation of [0, n), n a power of two. */
static unsigned long pattern_shuffle(unsigned long i, unsigned long n)
{
	i = (i * 0x9e3779b1 + 12345) & (n - 1);
	i ^= i >> 7;
	return (i * 0x85ebca6b + 54321) & (n - 1);
}

/*
 * Fill an empty store. Returns the bytes a page, times 1000, or 0 if an insert
 * has failed.
 */
static unsigned long pattern_measure(struct vfio_xa_dma *store, const struct pattern *p,
				     int order)
{
	const unsigned long base = 0x100000;	/* IOVA 4 GiB */
	unsigned long k, i, index, word;

	for (k = 0; k < p->npages; k++) {
		i = k;
		if (order == PATTERN_DOWN)
			i = p->npages - 1 - k;
		else if (order == PATTERN_SHUFFLED)
			i = pattern_shuffle(k, p->npages);
		if (p->half && (i * 0x9e3779b97f4a7c15) >> 63)
			continue;
		index = base + i * p->stride;
		word = vfio_xa_dma_word(0, (p->different ? i * 7919 : 1) << PAGE_SHIFT,
					VFIO_XA_DMA_READ | VFIO_XA_DMA_WRITE);
		if (order == PATTERN_PUBLISHED)
			word |= VFIO_XA_DMA_PENDING;
		if (vfio_xa_dma_insert(store, index, index, word, GFP_KERNEL_ACCOUNT))
			return 0;
		if (order == PATTERN_PUBLISHED)
			vfio_xa_dma_change(store, index, index, VFIO_XA_DMA_PENDING, 0);
	}
	return (unsigned long)vfio_xa_dma_footprint(store) * 1000 /
	       vfio_xa_dma_npages(store);
}

#endif /* __VFIO_XA_DMA_PATTERNS_H */
