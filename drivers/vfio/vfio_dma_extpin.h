/* SPDX-License-Identifier: GPL-2.0-only */
/* Pages that emulated devices have pinned; see vfio_dma_extpin.c. */
#ifndef _VFIO_DMA_EXTPIN_H
#define _VFIO_DMA_EXTPIN_H

#include <linux/bits.h>

#include "vfio_dma_container.h"

/*
 * A page that emulated devices have pinned, as a word of a store: 40 bits of its page
 * frame number, number of pins, whether the page may have been written to, and whether
 * it is charged on its own: it is not while the domains have the same page mapped.
 * The highest flag bit is the store's, so the low bits of the number are below it.
 */
#define VFIO_DMA_EXTPIN_WRITE		BIT(0)
#define VFIO_DMA_EXTPIN_CHARGED		BIT(1)
#define VFIO_DMA_EXTPIN_LOW_SHIFT		2
#define VFIO_DMA_EXTPIN_LOW_BITS \
	(VFIO_XA_DMA_FLAG_BITS - 1 - VFIO_DMA_EXTPIN_LOW_SHIFT)
#define VFIO_DMA_EXTPIN_LOW_MASK		(BIT(VFIO_DMA_EXTPIN_LOW_BITS) - 1)
#define VFIO_DMA_EXTPIN_ONE		BIT(VFIO_XA_DMA_FLAG_BITS)
#define VFIO_DMA_EXTPIN_COUNT_BITS	20
#define VFIO_DMA_EXTPIN_HIGH_SHIFT \
	(VFIO_XA_DMA_FLAG_BITS + VFIO_DMA_EXTPIN_COUNT_BITS)
#define VFIO_DMA_EXTPIN_COUNT_MASK \
	GENMASK(VFIO_DMA_EXTPIN_HIGH_SHIFT - 1, VFIO_XA_DMA_FLAG_BITS)

static inline unsigned long vfio_dma_extpin_word(unsigned long pfn)
{
	return pfn >> VFIO_DMA_EXTPIN_LOW_BITS << VFIO_DMA_EXTPIN_HIGH_SHIFT |
	       (pfn & VFIO_DMA_EXTPIN_LOW_MASK) << VFIO_DMA_EXTPIN_LOW_SHIFT |
	       VFIO_DMA_EXTPIN_ONE;
}

static inline unsigned long vfio_dma_extpin_pfn(unsigned long word)
{
	return word >> VFIO_DMA_EXTPIN_HIGH_SHIFT << VFIO_DMA_EXTPIN_LOW_BITS |
	       (word >> VFIO_DMA_EXTPIN_LOW_SHIFT & VFIO_DMA_EXTPIN_LOW_MASK);
}

/* Has an emulated device pinned anything? */
static inline bool vfio_dma_has_extpins(const struct vfio_dma_container *container)
{
	return !vfio_xa_dma_empty(&container->extpins);
}

unsigned long __vfio_dma_extpin_count(struct vfio_dma_container *container,
				      unsigned long first, unsigned long last,
				      bool charged);
void vfio_dma_extpin_set(struct vfio_dma_container *container,
			 unsigned long index, unsigned long from,
			 unsigned long to);
unsigned long vfio_dma_extpin_charge_alone(struct vfio_dma_container *container,
					   unsigned long first,
					   unsigned long last,
					   unsigned long *charge);
unsigned long vfio_dma_extpin_share(struct vfio_dma_container *container,
				    struct vfio_dma_domain *domain,
				    unsigned long first, unsigned long last,
				    unsigned long *uncharged);
void vfio_dma_extpin_leak(struct vfio_dma_container *container,
			  unsigned long first, unsigned long last);
bool __vfio_dma_extpin_releasing(const struct vfio_dma_container *container,
				 unsigned long index);
int vfio_dma_extpin_release_drops_lock(struct vfio_dma_container *container,
				       unsigned long first, unsigned long last,
				       bool interruptible);

/**
 * vfio_dma_extpin_releasing() - are the pins of a page being released?
 * @container: the container
 * @index: the page
 *
 * Nothing is pinned anew in a range whose pins are being released.
 *
 * Context: Caller holds the container's mutex.
 * Return: true if a call of vfio_dma_extpin_release_drops_lock() is not done with it.
 */
static inline bool
vfio_dma_extpin_releasing(const struct vfio_dma_container *container,
			  unsigned long index)
{
	return !list_empty(&container->releases) &&
	       __vfio_dma_extpin_releasing(container, index);
}

/* Pages of a range that are pinned */
static inline unsigned long
vfio_dma_extpin_count(struct vfio_dma_container *container, unsigned long first,
		      unsigned long last)
{
	if (!vfio_dma_has_extpins(container))
		return 0;
	return __vfio_dma_extpin_count(container, first, last, false);
}

/* Pins of a range that are charged on their own */
static inline unsigned long
vfio_dma_extpin_count_charged(struct vfio_dma_container *container,
			      unsigned long first, unsigned long last)
{
	if (!vfio_dma_has_extpins(container))
		return 0;
	return __vfio_dma_extpin_count(container, first, last, true);
}

#endif /* _VFIO_DMA_EXTPIN_H */
