/* SPDX-License-Identifier: GPL-2.0-only */
/* The model of the KUnit suite, with the allocator of shim.c. */
#ifndef __HARNESS_H
#define __HARNESS_H

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/slab.h>
#include <linux/xarray.h>

static unsigned long harness_calls, harness_forbidden;

/* The XArray tries without waiting first, which must fail for this to be seen. */
static void model_fail_nth(unsigned int n)
{
	shim_slab.fail_nth = n;
	shim_slab.nowait_fails = n;
}

static unsigned int model_fail_left(void)
{
	return shim_slab.fail_nth;
}

static void model_forbid(bool on)
{
	if (on)
		harness_calls = shim_slab.nr_calls;
	else if (shim_slab.nowait_fails)
		harness_forbidden = shim_slab.nr_calls - harness_calls;
	shim_slab.nowait_fails = on;
}

static void model_only_nofail(bool on)
{
	shim_slab.only_nofail = on;
}

static unsigned long model_forbidden(void)
{
	return harness_forbidden;
}

struct model;
static int model_extra_check(struct model *m);

#include "../../../drivers/vfio/tests/vfio_xa_dma_model.h"

/* What the kernel's allocator would spend: see vfio_xa_dma_footprint(). */
static size_t harness_bytes(void)
{
	const size_t slab = PAGE_SHIFT < 14 ? SZ_16K : PAGE_SIZE;

	return shim_slab.nr_nodes * (slab / (slab / sizeof(struct xa_node)) + 8) +
	       shim_slab.bytes + shim_slab.nr_objects * 8;
}

static int model_extra_check(struct model *m)
{
	struct vfio_xa_dma_stats stats;

	if (!model_expect(vfio_xa_dma_footprint(&m->store) == harness_bytes()))
		return -EINVAL;
	vfio_xa_dma_get_stats(&m->store, &stats);
	if (!model_expect(stats.nodes == shim_slab.nr_nodes &&
			  stats.arrays == shim_slab.nr_objects &&
			  stats.array_bytes == shim_slab.bytes + shim_slab.nr_objects * 8))
		return -EINVAL;
	if (!model_expect(!shim_slab.nr_uncharged))
		return -EINVAL;
	return 0;
}

#endif
