/* SPDX-License-Identifier: GPL-2.0-only */
/* Pinning of user memory, in extents; see vfio_dma_pin.c. */
#ifndef _VFIO_DMA_PIN_H
#define _VFIO_DMA_PIN_H

#include <linux/mm.h>
#include <linux/mm_types.h>
#include <linux/sizes.h>

#include "vfio_dma_gfp.h"
#include "vfio_dma_owner.h"

/*
 * An extent does not cross a multiple of this many pages of physical memory, and
 * so no superpage is larger than that.  The limit bounds the work between two looks
 * for a fatal signal.
 */
#define VFIO_DMA_EXTENT_MAX	(SZ_1G >> PAGE_SHIFT)

/**
 * struct vfio_dma_extent - physically contiguous memory
 * @pfn: first page frame
 * @npages: length in pages
 * @pfnmap: a VM_PFNMAP mapping (device memory): neither pinned nor charged
 * @mmio: the CPU maps it uncached or write-combining, so it is no memory for the
 *	IOMMU either
 */
struct vfio_dma_extent {
	unsigned long pfn;
	unsigned long npages;
	bool pfnmap;
	bool mmio;
};

/* Pages that a pin holds without allocating memory for their pointers */
#define VFIO_DMA_PIN_INLINE	8

/**
 * struct vfio_dma_pin - state of pinning a range of user memory step by step
 * @mm: whose memory
 * @vaddr: address of the next page to pin
 * @npages: pages left to pin
 * @gup_flags: FOLL_LONGTERM, FOLL_WRITE
 * @pages: pages pinned by the last step
 * @max: room in @pages
 * @size: pages valid in @pages; 0 if the last step found device memory
 * @offset: first page in @pages that is not yet part of @tail
 * @flush_tail: the next page cannot extend @tail
 * @tail: extent that the next page may still extend
 * @inline_pages: @pages of a small request
 *
 * Local to its caller, needs no lock.
 */
struct vfio_dma_pin {
	struct mm_struct *mm;
	unsigned long vaddr;
	unsigned long npages;
	unsigned int gup_flags;
	struct page **pages;
	unsigned int max;
	unsigned int size;
	unsigned int offset;
	bool flush_tail;
	struct vfio_dma_extent tail;
	struct page *inline_pages[VFIO_DMA_PIN_INLINE];
};

void vfio_dma_pin_start(struct vfio_dma_pin *pin, struct mm_struct *mm,
			unsigned long vaddr, unsigned long npages, bool write);
int vfio_dma_pin_step(struct vfio_dma_pin *pin);

/**
 * vfio_dma_pin_single() - take a page that the next page does not continue
 * @pin: state
 * @pfn: set to its page frame; from now on the caller unpins it
 *
 * What vfio_dma_pin_extent() does of the extents that most scattered memory consists of,
 * where it is simple.
 *
 * Context: Any.
 * Return: true if there was one; false if it takes vfio_dma_pin_extent().
 */
static inline bool vfio_dma_pin_single(struct vfio_dma_pin *pin, unsigned long *pfn)
{
	unsigned long next;

	if (pin->tail.npages != 1 || pin->tail.pfnmap || pin->offset >= pin->size)
		return false;
	next = page_to_pfn(pin->pages[pin->offset]);
	*pfn = pin->tail.pfn;
	if (next == *pfn + 1)
		return false;
	pin->tail.pfn = next;
	pin->offset++;
	return true;
}

/**
 * vfio_dma_pin_held() - pages that are pinned and not taken yet
 * @pin: state
 *
 * Context: Any.
 * Return: their number, device memory not included.
 */
static inline unsigned long vfio_dma_pin_held(const struct vfio_dma_pin *pin)
{
	return (pin->tail.pfnmap ? 0 : pin->tail.npages) + pin->size - pin->offset;
}

bool vfio_dma_pin_extent(struct vfio_dma_pin *pin,
			 struct vfio_dma_extent *extent);
void vfio_dma_pin_finish(struct vfio_dma_pin *pin);
void vfio_dma_first_extent(struct page **pages, unsigned int max,
			   struct vfio_dma_extent *extent);
bool vfio_dma_pin_now(unsigned long vaddr, unsigned int npages, bool write,
		      struct page **pages);
bool vfio_dma_pin_present(struct mm_struct *mm, unsigned long vaddr, bool write,
			  struct page **page);

int vfio_dma_pin_wait(struct mm_struct *mm, unsigned long vaddr, bool write);

/* Not a page frame */
#define VFIO_DMA_NOT_HELD	ULONG_MAX

int vfio_dma_pin_hold(struct vfio_dma_owner *owner, unsigned long vaddr,
		      bool write, bool wait, unsigned long *pfn);
void vfio_dma_pin_drop(struct vfio_dma_owner *owner, unsigned long pfn);

unsigned long vfio_dma_count_pinnable(unsigned long vaddr,
				      unsigned long npages);

/**
 * vfio_dma_unpin_page() - unpin one page
 * @pfn: its page frame
 * @dirty: the device may have written to it
 *
 * A page that is dirty already needs no look for the other pages of its folio.
 *
 * Context: Process context, may sleep.
 */
static inline void vfio_dma_unpin_page(unsigned long pfn, bool dirty)
{
	struct page *page = pfn_to_page(pfn);

	if (dirty && unlikely(!folio_test_dirty(page_folio(page))))
		unpin_user_page_range_dirty_lock(page, 1, true);
	else
		unpin_user_page(page);
}

/**
 * vfio_dma_unpin() - unpin physically contiguous pages
 * @pfn: first page frame
 * @npages: number of pages
 * @dirty: the device may have written to them
 *
 * Context: Process context, may sleep.
 */
static inline void vfio_dma_unpin(unsigned long pfn, unsigned long npages,
				  bool dirty)
{
	unpin_user_page_range_dirty_lock(pfn_to_page(pfn), npages, dirty);
}

#endif /* _VFIO_DMA_PIN_H */
