/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The record: what a container has mapped
 *
 * The engine knows no other way to the record than this header.  Behind it is the
 * page-granular xarray (vfio_xa_dma), or else the IO page table (vfio_pt_record), chosen
 * when the container is opened.  The former is inline and costs a predicted branch.
 * Both offer the same, in the same flags and runs:
 *
 *	reserve, commit, cancel		a map, before and after its pages are pinned
 *	enter, enter_end, enter_cancel	the same without a state in between
 *	insert				a mapping that is in no domain
 *	next, load			what is mapped, in runs of equal words
 *	prepare, then erase		what cannot fail any more
 *	change, try_change		other flags
 *	replace				another word for a range
 *	take				erase of one page, where that needs no memory
 *	leaked				what is mapped no longer, but could not be unmapped
 *	domain_gone			one domain less that could not unmap
 *	reset				nothing is mapped, as there is no domain
 *	npages, bytes, stats		how much there is
 *
 * The IO page table knows no user addresses: its words have no delta, and a run of equal
 * words does not say that memory is contiguous.  Neither insert and replace are for it, nor
 * is anything that reaches memory by vaddr: vfio_dma_record_has_vaddr().
 *
 * Reserved pages are never joined with neighbours before commit(), and cancel() needs
 * no memory; nor does it after enter().  prepare() holds for one range, until the next
 * change of the record.
 *
 * Reserved pages refuse any other mapping, and have the flag PENDING, which only
 * those who walk all that is there have to know: "mapped" leaves them out.
 *
 * Every function but init(), destroy() and has_vaddr() is called with the container's
 * mutex held.
 */
#ifndef _VFIO_DMA_RECORD_H
#define _VFIO_DMA_RECORD_H

#include <linux/iommu.h>
#include <linux/sched.h>

#include "vfio_dma_gfp.h"
#include "vfio_pt_record.h"
#include "vfio_xa_dma.h"

/* READ and WRITE are the same bits in words and for the IOMMU. */
static_assert(VFIO_XA_DMA_READ == IOMMU_READ);
static_assert(VFIO_XA_DMA_WRITE == IOMMU_WRITE);

/* Access rights of a word, or of flags of user space, for the IOMMU */
#define VFIO_DMA_RIGHTS		(IOMMU_READ | IOMMU_WRITE)

/**
 * enum vfio_dma_record_kind - what a container records its mappings in
 * @VFIO_DMA_RECORD_XA: an xarray with a word for each page
 * @VFIO_DMA_RECORD_PT: the IO page table
 */
enum vfio_dma_record_kind {
	VFIO_DMA_RECORD_XA,
	VFIO_DMA_RECORD_PT,
};

/**
 * struct vfio_dma_record - what a container has mapped
 * @xa: a word for each page
 * @pt: the record to be used in its place, or %NULL
 *
 * Protected by the container's mutex; @pt does not change.
 */
struct vfio_dma_record {
	struct vfio_xa_dma xa;
	struct vfio_pt_record *pt;
};

static inline dma_addr_t vfio_dma_iova(unsigned long index)
{
	return (dma_addr_t)index << PAGE_SHIFT;
}

static inline unsigned long vfio_dma_run_pages(const struct vfio_xa_dma_run *run)
{
	return run->last - run->first + 1;
}

static inline bool vfio_dma_record_next(struct vfio_dma_record *record,
					unsigned long first, unsigned long last,
					struct vfio_xa_dma_run *run)
{
	if (unlikely(record->pt))
		return vfio_pt_record_next(record->pt, first, last, run);
	return vfio_xa_dma_next(&record->xa, first, last, run);
}

/**
 * struct vfio_dma_walk - a walk over the runs of a record, or of a store
 * @record: the record, or %NULL
 * @store: the store, if it is not a record
 * @run: the run that it is at
 * @last: the last page of the walk
 * @skip: runs with one of these flags are left out
 * @more: it is at a run
 */
struct vfio_dma_walk {
	struct vfio_dma_record *record;
	struct vfio_xa_dma *store;
	struct vfio_xa_dma_run *run;
	unsigned long last;
	unsigned long skip;
	bool more;
};

static inline void vfio_dma_walk_find(struct vfio_dma_walk *walk, unsigned long first)
{
	if (walk->record)
		walk->more = vfio_dma_record_next(walk->record, first, walk->last,
						  walk->run);
	else
		walk->more = vfio_xa_dma_next(walk->store, first, walk->last,
					      walk->run);
}

static inline void vfio_dma_walk_next(struct vfio_dma_walk *walk)
{
	struct vfio_xa_dma_run *run = walk->run;

	do {
		walk->more = run->last < walk->last;
		if (!walk->more)
			break;
		cond_resched();
		vfio_dma_walk_find(walk, run->last + 1);
	} while (walk->more && run->word & walk->skip);
}

static inline struct vfio_dma_walk
vfio_dma_walk_begin(struct vfio_dma_record *record, struct vfio_xa_dma *store,
		    struct vfio_xa_dma_run *run, unsigned long first,
		    unsigned long last, unsigned long skip)
{
	struct vfio_dma_walk walk = {
		.record = record,
		.store = store,
		.run = run,
		.last = last,
		.skip = skip,
	};

	vfio_dma_walk_find(&walk, first);
	if (walk.more && run->word & skip)
		vfio_dma_walk_next(&walk);
	return walk;
}

/*
 * Each run of a store in [first, last].  The body may change what has been walked,
 * and run->last: the walk goes on behind it.
 */
#define vfio_dma_for_each_run(store, run, first, last)			\
	for (struct vfio_dma_walk __walk =				\
	     vfio_dma_walk_begin(NULL, store, run, first, last, 0);	\
	     __walk.more; vfio_dma_walk_next(&__walk))

/* Each run of a record, reserved ones included */
#define vfio_dma_record_for_each(record, run, first, last)		\
	for (struct vfio_dma_walk __walk =				\
	     vfio_dma_walk_begin(record, NULL, run, first, last, 0);	\
	     __walk.more; vfio_dma_walk_next(&__walk))

/* Each run of a record that is mapped */
#define vfio_dma_record_for_each_mapped(record, run, first, last)	\
	for (struct vfio_dma_walk __walk =				\
	     vfio_dma_walk_begin(record, NULL, run, first, last,	\
				 VFIO_XA_DMA_PENDING);			\
	     __walk.more; vfio_dma_walk_next(&__walk))

/* 0 or -ENOMEM; @space: the domains that it is mapped in */
static inline int vfio_dma_record_init(struct vfio_dma_record *record,
				       enum vfio_dma_record_kind kind,
				       struct vfio_dma_space *space)
{
	vfio_xa_dma_init(&record->xa);
	record->pt = NULL;
	if (kind == VFIO_DMA_RECORD_XA)
		return 0;
	record->pt = vfio_pt_record_alloc(space);
	return record->pt ? 0 : -ENOMEM;
}

static inline void vfio_dma_record_destroy(struct vfio_dma_record *record)
{
	if (record->pt)
		vfio_pt_record_free(record->pt);
	vfio_xa_dma_destroy(&record->xa);
}

/* Do its words say where user memory is? */
static inline bool vfio_dma_record_has_vaddr(const struct vfio_dma_record *record)
{
	return !record->pt;
}

/* Can a range that the kernel maps for itself be told from what the user has mapped? */
static inline bool vfio_dma_record_tells_apart(const struct vfio_dma_record *record,
					       u64 iova, u64 size)
{
	return !record->pt || IS_ALIGNED(iova | size, VFIO_PT_CHUNK_BYTES);
}

/* Reserve a range: -EEXIST if a page of it is there, -ENOMEM */
static inline int vfio_dma_record_reserve(struct vfio_dma_record *record,
					  unsigned long first,
					  unsigned long last,
					  unsigned long word)
{
	if (unlikely(record->pt))
		return vfio_pt_record_reserve(record->pt, first, last, word);
	return vfio_xa_dma_insert(&record->xa, first, last,
				  word | VFIO_XA_DMA_PENDING, VFIO_DMA_GFP);
}

/* Reserve and commit in one: the same errnos */
static inline int vfio_dma_record_insert(struct vfio_dma_record *record,
					 unsigned long first,
					 unsigned long last,
					 unsigned long word)
{
	if (WARN_ON_ONCE(record->pt))
		return -EOPNOTSUPP;
	return vfio_xa_dma_insert(&record->xa, first, last, word, VFIO_DMA_GFP);
}

/*
 * Enter a range that is mapped before the mutex is dropped, or cancelled.  Returns an
 * errno as reserve(); 1 if enter_end() must follow; else 0.
 */
static inline int vfio_dma_record_enter(struct vfio_dma_record *record,
					unsigned long first, unsigned long last,
					unsigned long word)
{
	if (unlikely(record->pt))
		return vfio_pt_record_enter(record->pt, first, last, word);
	return vfio_xa_dma_reserve(&record->xa, first, last, word,
				   VFIO_DMA_GFP);
}

static inline void vfio_dma_record_enter_end(struct vfio_dma_record *record,
					     unsigned long first,
					     unsigned long last)
{
	if (unlikely(record->pt)) {
		vfio_pt_record_enter_end(record->pt, first, last);
		return;
	}
	vfio_xa_dma_commit(&record->xa, first, last);
}

/* Entered pages go again, without memory. */
static inline void vfio_dma_record_enter_cancel(struct vfio_dma_record *record,
						unsigned long first,
						unsigned long last)
{
	if (unlikely(record->pt)) {
		vfio_pt_record_enter_cancel(record->pt, first, last);
		return;
	}
	vfio_xa_dma_erase(&record->xa, first, last);
}

/* All that was reserved is mapped. */
static inline void vfio_dma_record_commit(struct vfio_dma_record *record,
					  unsigned long first,
					  unsigned long last)
{
	if (unlikely(record->pt)) {
		vfio_pt_record_commit(record->pt, first, last);
		return;
	}
	vfio_xa_dma_change(&record->xa, first, last, VFIO_XA_DMA_PENDING, 0);
}

/* Reserved pages go again, without memory. */
static inline void vfio_dma_record_cancel(struct vfio_dma_record *record,
					  unsigned long first,
					  unsigned long last)
{
	if (unlikely(record->pt)) {
		vfio_pt_record_cancel(record->pt, first, last);
		return;
	}
	vfio_xa_dma_erase(&record->xa, first, last);
}

static inline unsigned long vfio_dma_record_load(struct vfio_dma_record *record,
						 unsigned long index)
{
	if (unlikely(record->pt))
		return vfio_pt_record_load(record->pt, index);
	return vfio_xa_dma_load(&record->xa, index);
}

/* Allocate what erase() of a range may take. */
static inline void
vfio_dma_record_prepare_nofail(struct vfio_dma_record *record,
			       unsigned long first, unsigned long last)
{
	if (unlikely(record->pt)) {
		vfio_pt_record_prepare_nofail(record->pt, first, last);
		return;
	}
	vfio_xa_dma_cut(&record->xa, first, last, GFP_KERNEL | __GFP_NOFAIL);
}

static inline void vfio_dma_record_erase(struct vfio_dma_record *record,
					 unsigned long first,
					 unsigned long last)
{
	if (unlikely(record->pt)) {
		vfio_pt_record_erase(record->pt, first, last);
		return;
	}
	vfio_xa_dma_erase(&record->xa, first, last);
}

/* Change flags of what was reserved with one call, or is a run of its own. */
static inline void vfio_dma_record_change(struct vfio_dma_record *record,
					  unsigned long first,
					  unsigned long last,
					  unsigned long clear,
					  unsigned long set)
{
	if (unlikely(record->pt)) {
		vfio_pt_record_change(record->pt, first, last, clear, set);
		return;
	}
	vfio_xa_dma_change(&record->xa, first, last, clear, set);
}

/* Change flags of any range: 0 or -ENOMEM, and then of some of it perhaps. */
static inline int vfio_dma_record_try_change(struct vfio_dma_record *record,
					     unsigned long first,
					     unsigned long last,
					     unsigned long clear,
					     unsigned long set)
{
	int ret;

	if (unlikely(record->pt))
		return vfio_pt_record_try_change(record->pt, first, last, clear, set);
	ret = vfio_xa_dma_cut(&record->xa, first, last, VFIO_DMA_GFP);
	if (!ret)
		vfio_xa_dma_change(&record->xa, first, last, clear, set);
	return ret;
}

/* Change flags of any range. */
static inline void
vfio_dma_record_change_nofail(struct vfio_dma_record *record,
			      unsigned long first, unsigned long last,
			      unsigned long clear, unsigned long set)
{
	if (unlikely(record->pt)) {
		vfio_pt_record_change_nofail(record->pt, first, last, clear,
					     set);
		return;
	}
	vfio_xa_dma_cut(&record->xa, first, last, GFP_KERNEL | __GFP_NOFAIL);
	vfio_xa_dma_change(&record->xa, first, last, clear, set);
}

/* Give a range of mapped pages another word. */
static inline void
vfio_dma_record_replace_nofail(struct vfio_dma_record *record,
			       unsigned long first, unsigned long last,
			       unsigned long word)
{
	if (WARN_ON_ONCE(record->pt))
		return;
	vfio_xa_dma_cut(&record->xa, first, last, GFP_KERNEL | __GFP_NOFAIL);
	vfio_xa_dma_erase(&record->xa, first, last);
	vfio_xa_dma_insert(&record->xa, first, last, word,
			   GFP_KERNEL | __GFP_NOFAIL);
}

/* A page with one of these takes more than vfio_dma_record_take(). */
#define VFIO_DMA_RECORD_STAYS \
	(VFIO_XA_DMA_PENDING | VFIO_XA_DMA_BIG | VFIO_XA_DMA_VADDR_INVALID)

/*
 * Forget a mapped page, if that is a matter of one step and needs no memory, and unless it
 * has one of the flags @unless.
 *
 * Returns its word, with one of @unless also if it stays.  0: nothing has changed, and the
 * caller does what there is to do with load(), prepare() and erase().
 *
 * The record may have looked the page up for it: *@pfn is its page frame then, and
 * VFIO_DMA_NO_PFN otherwise.
 */
static inline unsigned long vfio_dma_record_take(struct vfio_dma_record *record,
						 unsigned long index,
						 unsigned long unless,
						 unsigned long *pfn)
{
	if (unlikely(record->pt))
		return vfio_pt_record_take(record->pt, index, unless, pfn);
	*pfn = VFIO_DMA_NO_PFN;
	return vfio_xa_dma_take(&record->xa, index, unless);
}

/* An IOMMU driver has failed to unmap of a range that is erased, or is about to be. */
static inline void vfio_dma_record_leaked(struct vfio_dma_record *record,
					  unsigned long first,
					  unsigned long last)
{
	if (record->pt)
		vfio_pt_record_leaked(record->pt, first, last);
}

/* A domain has gone from the space, and with it what its driver had failed to unmap. */
static inline void vfio_dma_record_domain_gone(struct vfio_dma_record *record)
{
	if (record->pt)
		vfio_pt_record_forget_ghosts(record->pt);
}

/* The last domain is about to go, and all has been unmapped. */
static inline void vfio_dma_record_reset(struct vfio_dma_record *record)
{
	if (record->pt)
		vfio_pt_record_reset(record->pt);
}

static inline bool vfio_dma_record_empty(const struct vfio_dma_record *record)
{
	if (unlikely(record->pt))
		return !record->pt->npages;
	return vfio_xa_dma_empty(&record->xa);
}

/* Pages, reserved ones included */
static inline unsigned long
vfio_dma_record_npages(const struct vfio_dma_record *record)
{
	if (unlikely(record->pt))
		return record->pt->npages;
	return vfio_xa_dma_npages(&record->xa);
}

static inline void vfio_dma_record_stats(const struct vfio_dma_record *record,
					 struct vfio_xa_dma_stats *stats)
{
	if (unlikely(record->pt)) {
		vfio_pt_record_stats(record->pt, stats);
		return;
	}
	vfio_xa_dma_get_stats(&record->xa, stats);
}

static inline size_t vfio_dma_record_bytes(struct vfio_dma_record *record)
{
	if (unlikely(record->pt))
		return vfio_pt_record_bytes(record->pt);
	return vfio_xa_dma_footprint(&record->xa);
}

#endif /* _VFIO_DMA_RECORD_H */
