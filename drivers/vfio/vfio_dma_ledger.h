/* SPDX-License-Identifier: GPL-2.0-only */
/* Page frames that several containers of one address space hold; see vfio_dma_ledger.c. */
#ifndef _VFIO_DMA_LEDGER_H
#define _VFIO_DMA_LEDGER_H

#include <linux/atomic.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/types.h>

#include "vfio_xa_dma.h"

/* Holds of a page for which it is charged once, lest free pins overflow its refcount */
#define VFIO_DMA_LEDGER_HOLDS	64

/* A page frame's word: how many hold it */
#define VFIO_DMA_LEDGER_FLAG	VFIO_XA_DMA_READ
#define VFIO_DMA_LEDGER_ONE	BIT(VFIO_XA_DMA_FLAG_BITS)

/**
 * struct vfio_dma_ledger - what the containers of one address space hold
 * @lock: protects @pages and @alone
 * @pages: a word for each page frame that is held: VFIO_DMA_LEDGER_*
 * @alone: holds that are not in @pages, each charged on its own; it can be below 0
 *	while pages are being entered
 * @charged: pages charged for all containers that enter their pages.  Lock: none, atomic
 * @activation: held while what other containers hold is entered, by one call at a time
 * @refs: containers that belong to it, and calls that use it
 *
 * Lock order: @activation, a container's mutex, @lock, mmap_lock.
 */
struct vfio_dma_ledger {
	struct mutex lock;	/* the ledger's */
	struct vfio_xa_dma pages;
	long alone;
	atomic_long_t charged;
	struct mutex activation;	/* taken before containers' mutexes */
	refcount_t refs;
};

struct vfio_dma_ledger *vfio_dma_ledger_alloc(void);
void vfio_dma_ledger_put(struct vfio_dma_ledger *ledger);
unsigned long vfio_dma_ledger_enter(struct vfio_dma_ledger *ledger,
				    unsigned long pfn, unsigned long npages);
unsigned long vfio_dma_ledger_enter_nofail(struct vfio_dma_ledger *ledger,
					   unsigned long pfn,
					   unsigned long npages);
unsigned long vfio_dma_ledger_leave(struct vfio_dma_ledger *ledger,
				    unsigned long pfn, unsigned long npages);
bool vfio_dma_ledger_hold(struct vfio_dma_ledger *ledger, unsigned long pfn);

int vfio_dma_ledger_settle(struct vfio_dma_ledger *ledger);

static inline unsigned long vfio_dma_ledger_holds(unsigned long word)
{
	return word >> VFIO_XA_DMA_FLAG_BITS;
}

#endif /* _VFIO_DMA_LEDGER_H */
