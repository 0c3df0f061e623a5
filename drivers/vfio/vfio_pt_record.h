/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The IO page table as the record of what is mapped; see vfio_pt_record.c.
 *
 * Every function but alloc() and free() is called with the container's mutex held.
 */
#ifndef _VFIO_PT_RECORD_H
#define _VFIO_PT_RECORD_H

#include <linux/bitmap.h>
#include <linux/types.h>

#include "vfio_dma_space.h"
#include "vfio_xa_dma.h"

/* Pages of a region, for which there is one word; a word has room for its chunks */
#define VFIO_PT_REGION_SHIFT	(PAGE_SHIFT < 16 ? 9 : 8)
#define VFIO_PT_REGION_PAGES	BIT(VFIO_PT_REGION_SHIFT)

/*
 * Pages of a chunk.  Nothing is looked up in one in which nothing has been mapped, and so
 * the kernel's own translations for MSIs, in a window of 1 MiB, are never seen.
 */
#define VFIO_PT_CHUNK_SHIFT	4
#define VFIO_PT_CHUNK_BYTES	(PAGE_SIZE << VFIO_PT_CHUNK_SHIFT)

/* Regions that are open at a time */
#define VFIO_PT_OPEN		64

/**
 * struct vfio_pt_open - a region whose word is being changed
 * @region: its number, ULONG_MAX if there is none
 * @word: its word; the store of regions has a placeholder
 * @known: a bit for each chunk of which @pages says which pages are mapped
 * @pages: a bit for each page that is mapped, odd or not.  In other chunks some of the
 *	bits are missing
 */
struct vfio_pt_open {
	unsigned long region;
	unsigned long word;
	unsigned long known;
	DECLARE_BITMAP(pages, VFIO_PT_REGION_PAGES);
};

/**
 * struct vfio_pt_record - what a container has mapped, without a word for each page
 * @space: the domains; the first one's IO page table is asked which pages are mapped
 * @regions: a word for each region with mapped or reserved pages
 * @odd: words of pages that have other flags than their region, and of reserved pages
 * @ghosts: pages that are not mapped, although the IO page table says so
 * @npages: pages mapped or reserved
 * @near: region that a page has been taken out of last without opening it
 * @open: the regions that have been changed last.  A region can only be in the place that
 *	its number modulo VFIO_PT_OPEN says; the region that was there is closed for it, so
 *	that its word is in @regions again
 *
 * Protected by the container's mutex.
 */
struct vfio_pt_record {
	struct vfio_dma_space *space;
	struct vfio_xa_dma regions;
	struct vfio_xa_dma odd;
	struct vfio_xa_dma ghosts;
	unsigned long npages;
	unsigned long near;
	struct vfio_pt_open open[VFIO_PT_OPEN];
};

struct vfio_pt_record *vfio_pt_record_alloc(struct vfio_dma_space *space);
void vfio_pt_record_free(struct vfio_pt_record *pt);

int vfio_pt_record_reserve(struct vfio_pt_record *pt, unsigned long first,
			   unsigned long last, unsigned long word);
void vfio_pt_record_commit(struct vfio_pt_record *pt, unsigned long first,
			   unsigned long last);
void vfio_pt_record_cancel(struct vfio_pt_record *pt, unsigned long first,
			   unsigned long last);
int vfio_pt_record_enter(struct vfio_pt_record *pt, unsigned long first,
			 unsigned long last, unsigned long word);
void vfio_pt_record_enter_end(struct vfio_pt_record *pt, unsigned long first,
			      unsigned long last);
void vfio_pt_record_enter_cancel(struct vfio_pt_record *pt, unsigned long first,
				 unsigned long last);

unsigned long vfio_pt_record_load(struct vfio_pt_record *pt, unsigned long index);
bool vfio_pt_record_next(struct vfio_pt_record *pt, unsigned long first,
			 unsigned long last, struct vfio_xa_dma_run *run);

void vfio_pt_record_prepare_nofail(struct vfio_pt_record *pt, unsigned long first,
				   unsigned long last);
void vfio_pt_record_erase(struct vfio_pt_record *pt, unsigned long first,
			  unsigned long last);
unsigned long vfio_pt_record_take(struct vfio_pt_record *pt, unsigned long index,
				  unsigned long unless, unsigned long *pfn);
void vfio_pt_record_leaked(struct vfio_pt_record *pt, unsigned long first,
			   unsigned long last);
void vfio_pt_record_reset(struct vfio_pt_record *pt);
void vfio_pt_record_forget_ghosts(struct vfio_pt_record *pt);

void vfio_pt_record_change(struct vfio_pt_record *pt, unsigned long first,
			   unsigned long last, unsigned long clear,
			   unsigned long set);
int vfio_pt_record_try_change(struct vfio_pt_record *pt, unsigned long first,
			      unsigned long last, unsigned long clear,
			      unsigned long set);
void vfio_pt_record_change_nofail(struct vfio_pt_record *pt, unsigned long first,
				  unsigned long last, unsigned long clear,
				  unsigned long set);

void vfio_pt_record_stats(struct vfio_pt_record *pt, struct vfio_xa_dma_stats *stats);
size_t vfio_pt_record_bytes(struct vfio_pt_record *pt);
int vfio_pt_record_validate(struct vfio_pt_record *pt);

#endif /* _VFIO_PT_RECORD_H */
