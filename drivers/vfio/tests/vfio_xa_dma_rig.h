/* SPDX-License-Identifier: GPL-2.0-only */
/* A store and its model for the KUnit tests of the store; allocations fail when asked to */
#ifndef _VFIO_XA_DMA_RIG_H
#define _VFIO_XA_DMA_RIG_H

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
static unsigned long nr_refused;

static bool fake_may_alloc(gfp_t gfp)
{
	nr_allocs++;
	if (only_nofail && !(gfp & __GFP_NOFAIL)) {
		nr_refused++;
		return false;
	}
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

/* The distance at which a single no longer fits: 63 bits, less its flags, place and sign */
#define SINGLE_DELTA	BIT(BITS_PER_LONG - XA_CHUNK_SHIFT - 2 - VFIO_XA_DMA_FLAG_BITS)

/* Slots of 2^48 pages are too large for an array; with 64 KiB pages there are none. */
#define HUGE_SLOTS	(PAGE_SHIFT < 16)
#define FAR		BIT(HUGE_SLOTS ? 48 : 42)

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

#endif /* _VFIO_XA_DMA_RIG_H */
