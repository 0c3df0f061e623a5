/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _CUT_SLAB_H
#define _CUT_SLAB_H

#include_next <linux/slab.h>
#include <string.h>

static inline void *kcalloc(size_t n, size_t size, gfp_t gfp)
{
	void *p = kmalloc(n * size, gfp);

	return p ? memset(p, 0, n * size) : NULL;
}

#define kzalloc_obj(object, gfp)	kcalloc(1, sizeof(object), gfp)
#define kmalloc_obj(object, gfp)	kmalloc(sizeof(object), gfp)

#endif
