/* SPDX-License-Identifier: GPL-2.0-only */
/* An IOMMU that checks, and pins that are counted. */
#ifndef __MODEL_H
#define __MODEL_H

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/kernel.h>
#include <linux/iommu.h>
#include <linux/slab.h>

/* Page frames from here on are device memory, which nobody pins. */
#define MODEL_DEVICE	BIT(40)

#define MODEL_PIECES	4096

/**
 * struct piece - neighbouring leaves of equal size, physically linear
 * @first: first IOVA page
 * @last: last IOVA page
 * @pfn: what @first translates to
 * @size: pages of each leaf
 * @prot: IOMMU_READ, IOMMU_WRITE
 */
struct piece {
	unsigned long first;
	unsigned long last;
	unsigned long pfn;
	unsigned long size;
	int prot;
};

/**
 * struct table - a domain
 * @domain: what its users see
 * @unit_is_call: a leaf is what one iommu_map() covers, whatever its length
 * @pieces: leaves, ascending
 * @nr: length of @pieces
 * @near: piece that was looked up last
 * @stale: unmapped leaves that the IOTLB may still hold
 * @nr_stale: length of @stale
 * @fail_map: the iommu_map() to fail, 1 is the next, 0 is none
 * @fail_unmap: the iommu_unmap() to come short, likewise
 * @stuck: where iommu_map() fails it does not take back what it has mapped
 * @short_first: first IOVA page of the call that came short
 * @short_last: its last page
 * @nr_map: calls of iommu_map()
 * @nr_unmapped: pages unmapped
 * @back: what has been mapped last, at most 4 calls
 */
struct table {
	struct iommu_domain domain;
	bool unit_is_call;
	struct piece pieces[MODEL_PIECES];
	unsigned int nr;
	unsigned int near;
	struct piece stale[MODEL_PIECES];
	unsigned int nr_stale;
	unsigned int fail_map;
	unsigned int fail_unmap;
	bool stuck;
	unsigned long short_first;
	unsigned long short_last;
	unsigned long nr_map;
	unsigned long nr_unmapped;
	struct piece back[4];
};

/* An IOMMU did not do what it was told: its pages must stay. */
extern bool model_short;

extern unsigned int model_signal;

#define model_fail(fmt, ...)							\
	do {									\
		fprintf(stderr, "%s:%d: " fmt "\n", __FILE__, __LINE__,	\
			##__VA_ARGS__);						\
		abort();							\
	} while (0)

#define model_check(cond, ...)							\
	do {									\
		if (!(cond)) {							\
			fprintf(stderr, "%s: ", #cond);				\
			model_fail("" __VA_ARGS__);				\
		}								\
	} while (0)

/**
 * struct weight - a number of pages that counts more often than those before
 * @at: page frame
 * @add: by how much; negative where it counts less
 */
struct weight {
	unsigned long at;
	long add;
};

struct weights {
	struct weight w[4 * MODEL_PIECES];
	unsigned int nr;
};

void weights_add(struct weights *weights, unsigned long pfn, unsigned long npages,
		 long add);
bool weights_equal(const struct weights *a, const struct weights *b);
bool weights_cover(const struct weights *a, const struct weights *b);

extern struct weights model_pins;
extern struct weights model_must_stay;

void model_pin(unsigned long pfn, unsigned long npages);
void model_reset(void);
void model_add_table(struct table *table);
void model_del_table(struct table *table);

#endif
