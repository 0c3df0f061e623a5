/* SPDX-License-Identifier: GPL-2.0-only */
/* How the engine and its records allocate memory, and whom that is charged to. */
#ifndef _VFIO_DMA_GFP_H
#define _VFIO_DMA_GFP_H

#include <linux/gfp.h>
#include <linux/slab.h>

/*
 * How memory is allocated where a failure can be told to user space: charged to
 * the memory cgroup, whose limit is an error then, and not a reason to kill.
 */
#define VFIO_DMA_GFP	(GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/*
 * And where it cannot be told, as in an unmap.  With __GFP_HIGH the memory cgroup is
 * charged beyond its limit, once reclaim has not helped.  __GFP_NOFAIL would have a
 * process of it killed first, so what fails even so is not charged.
 */
#define VFIO_DMA_GFP_OVER_LIMIT	(VFIO_DMA_GFP | __GFP_HIGH)
#define VFIO_DMA_GFP_LAST	(GFP_KERNEL | __GFP_NOFAIL)

static inline void *vfio_dma_kmalloc_nofail(size_t size)
{
	return kmalloc(size, VFIO_DMA_GFP_OVER_LIMIT) ?:
	       kmalloc(size, VFIO_DMA_GFP_LAST);
}

#endif /* _VFIO_DMA_GFP_H */
