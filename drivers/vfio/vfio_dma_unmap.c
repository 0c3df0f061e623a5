// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unmapping
 *
 * A range is unmapped stretch by stretch: superpages across its ends are divided, which
 * may widen it; then the record is prepared, so that nothing can fail any more; the
 * pages go from the IO page tables, and then from the record.  Many ranges share one
 * synchronisation of the IOTLBs, after which pages are unpinned and uncharged:
 * vfio_dma_unmap_finish().
 *
 * Reservations of other calls are never touched: those calls count as later.  Nothing here
 * pins, or waits for user memory, but for that of a dirty bitmap.
 */

#include <linux/export.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include <uapi/linux/vfio_type1v3.h>

#include "vfio_dma_cut.h"
#include "vfio_dma_dirty.h"
#include "vfio_dma_extpin.h"
#include "vfio_dma_unmap.h"
#include "vfio_dma_vaddr.h"
#include "vfio_type1v3_trace.h"

/* Pages that are unmapped one by one; of more it is better to look for runs */
#define FEW	4

/*
 * Unmap a stretch that no superpage lies across an end of, or with @ret not 0 as much around
 * it as must go: [@first, @last], to which @run is set.
 */
static int unmap_divided(struct vfio_dma_unmap *unmap, struct vfio_xa_dma_run *run,
			 unsigned long first, unsigned long last, int ret)
{
	struct vfio_dma_container *container = unmap->container;
	struct vfio_dma_record *record = &container->record;
	struct vfio_dma_space *space = &container->space;
	bool has_domain = vfio_dma_has_domain(container);

	lockdep_assert_held(&unmap->container->lock);

	vfio_dma_record_prepare_nofail(record, first, last);

	if (has_domain && !ret)
		unmap->unpinned +=
			vfio_dma_space_unmap(space, vfio_dma_iova(first),
					     last - first + 1,
					     vfio_dma_cut_unmap_flags(run->word));
	if (ret) {
		unmap->unpinned +=
			vfio_dma_cut_unmap(record, space, first, last);
		vfio_dma_space_flush(space);
		vfio_dma_space_forget_lost(space);
		/* Pages added to the stretch may be in use by emulated devices. */
		vfio_dma_extpin_leak(container, first, last);
	}
	if (unlikely(space->leaked))
		vfio_dma_record_leaked(record, first, last);

	if (container->vaddr_invalid)
		container->vaddr_invalid -= vfio_dma_count_invalid(container,
								   first, last);
	vfio_dma_record_erase(record, first, last);
	if (unlikely(run->word & VFIO_XA_DMA_CONTIG))
		vfio_dma_cut_forget_contig(record, first, last);
	run->first = first;
	run->last = last;
	unmap->npages += last - first + 1;
	return ret;
}

/* See to it that a stretch can be unmapped, which may make it larger. */
static int divide_ends(struct vfio_dma_unmap *unmap, unsigned long word,
		       unsigned long *first, unsigned long *last)
{
	struct vfio_dma_container *container = unmap->container;

	lockdep_assert_held(&container->lock);

	if (!vfio_dma_has_domain(container) || !(word & VFIO_XA_DMA_BIG))
		return 0;
	return vfio_dma_cut_ends(&container->record, &container->space, first, last);
}

/* Unmap a stretch, or as much around it as must go, to which @run is set. */
static int unmap_stretch(struct vfio_dma_unmap *unmap, struct vfio_xa_dma_run *run)
{
	unsigned long first = run->first, last = run->last;
	int ret = divide_ends(unmap, run->word, &first, &last);

	return unmap_divided(unmap, run, first, last, ret);
}

/*
 * Take a page out of the record that takes more than one step, because it may be part of a
 * superpage or, with a @word of 0, for another reason.  Returns its word; 0 if there was
 * none, or if it is unmapped, as that took more.
 */
static unsigned long take_divided(struct vfio_dma_unmap *unmap, unsigned long index,
				  unsigned long word, unsigned long *pfn, int *ret)
{
	struct vfio_dma_record *record = &unmap->container->record;
	unsigned long first = index, last = index;
	struct vfio_xa_dma_run run = {
		.first = index,
		.last = index,
		.word = word ?: vfio_dma_record_load(record, index),
	};

	lockdep_assert_held(&unmap->container->lock);

	if (!run.word || run.word & VFIO_XA_DMA_PENDING)
		return 0;
	*ret = divide_ends(unmap, run.word, &first, &last);
	word = 0;
	if (!*ret && (run.word & VFIO_DMA_RECORD_STAYS) == VFIO_XA_DMA_BIG)
		word = vfio_dma_record_take(record, index, 0, pfn);
	if (!word)
		*ret = unmap_divided(unmap, &run, first, last, *ret);
	return word;
}

/*
 * Out of line, as unmap_few() and in vfio_dma_space.c all but a page on its own: that
 * saves 28 instructions of an unmap of one page.
 */
static noinline int unmap_stretches(struct vfio_dma_unmap *unmap,
				    unsigned long first, unsigned long last)
{
	struct vfio_dma_container *container = unmap->container;
	struct vfio_xa_dma_run run;
	int ret = 0;

	lockdep_assert_held(&unmap->container->lock);

	while (vfio_dma_cut_next_stretch(&container->record, &container->space,
					 first, last, &run)) {
		if (!(run.word & VFIO_XA_DMA_PENDING))
			ret = unmap_stretch(unmap, &run);
		if (ret || run.last >= last)
			break;
		first = run.last + 1;
		if (unmap->interruptible && fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		cond_resched();
	}
	return ret;
}

/* Pages that are in the record no more go from the IO page tables. */
static inline void unmap_taken(struct vfio_dma_unmap *unmap,
			       unsigned long first, unsigned long npages,
			       unsigned int flags)
{
	struct vfio_dma_container *container = unmap->container;

	lockdep_assert_held(&container->lock);

	if (vfio_dma_has_domain(container))
		unmap->unpinned += vfio_dma_space_unmap(&container->space,
							vfio_dma_iova(first),
							npages, flags);
}

/*
 * Unmap the first of a few pages, one by one in the record but not in the IO page
 * tables, and return the first that is not mapped or takes more than that.  It saves 25
 * instructions of an unmap of some pages, and 70 to 140 where the IO page table is the
 * record.
 */
static noinline unsigned long unmap_few(struct vfio_dma_unmap *unmap,
					unsigned long first, unsigned long last)
{
	unsigned long start = first, word, pfn;
	unsigned int flags = 0, next;

	lockdep_assert_held(&unmap->container->lock);

	do {
		word = first > last ? 0 :
		       vfio_dma_record_take(&unmap->container->record, first,
					    VFIO_DMA_RECORD_STAYS, &pfn);
		if (word & VFIO_DMA_RECORD_STAYS)
			word = 0;
		next = vfio_dma_cut_unmap_flags(word);
		if (first > start && (!word || next != flags)) {
			unmap_taken(unmap, start, first - start, flags);
			if (unlikely(flags & VFIO_DMA_IS_CONTIG))
				vfio_dma_cut_forget_contig(&unmap->container->record,
							   start, first - 1);
			start = first;
		}
		flags = next;
	} while (word && ++first);
	return first;
}

/**
 * vfio_dma_unmap_range() - unmap all that is mapped of a range
 * @unmap: operation; vfio_dma_unmap_finish() must follow before the container's
 *	mutex is dropped
 * @first: first page of the range, in which nothing is pinned by emulated devices
 * @last: its last page
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -EINTR on a fatal signal, after some of it; -EIO if an IOMMU driver
 * failed: pages that it may still reach are leaked.
 */
int vfio_dma_unmap_range(struct vfio_dma_unmap *unmap, unsigned long first,
			 unsigned long last)
{
	struct vfio_dma_container *container = unmap->container;
	unsigned long next = first, word, pfn;
	int ret = 0;

	lockdep_assert_held(&container->lock);
	WARN_ON_ONCE(vfio_dma_extpin_count(container, first, last));

	/* A page is one run: 65 instructions less for an entry of a batch */
	if (first == last) {
		word = vfio_dma_record_take(&container->record, first,
					    VFIO_DMA_RECORD_STAYS, &pfn);
		if (word && !(word & VFIO_DMA_RECORD_STAYS)) {
			if (unlikely(word & VFIO_XA_DMA_CONTIG))
				vfio_dma_cut_forget_contig(&container->record,
							   first, first);
			if (vfio_dma_has_domain(container))
				unmap->unpinned +=
					vfio_dma_space_unmap_page(&container->space,
								  vfio_dma_iova(first), pfn,
								  vfio_dma_cut_unmap_flags(word));
			next++;
		}
	} else if (last - first < FEW && container->space.pgsize_bitmap & PAGE_SIZE) {
		/* An IOMMU page of several pages is not divided, as this may do. */
		next = unmap_few(unmap, first, last);
	}
	unmap->npages += next - first;
	if (next <= last)
		ret = unmap_stretches(unmap, next, last);
	/* Leaked pages are mapped no longer, but an IOMMU may still reach them. */
	if (unlikely(container->space.leaked)) {
		if (next > first)
			vfio_dma_record_leaked(&container->record, first,
					       next - 1);
		container->space.leaked = false;
		ret = ret ?: -EIO;
	}
	return ret;
}

/*
 * What has been unpinned is given back to the owner.  Inline it saves 15 instructions of an
 * unmap of one page.
 */
static __always_inline void give_back_unpinned(struct vfio_dma_unmap *unmap)
{
	struct vfio_dma_container *container = unmap->container;

	lockdep_assert_held(&container->lock);

	if (unlikely(container->space.kept))
		vfio_dma_give_back(&container->owner, unmap->unpinned,
				   unmap->unpinned -
				   vfio_dma_space_take_kept(&container->space));
	else
		vfio_dma_uncharge(&container->owner, unmap->unpinned);
	unmap->unpinned = 0;
	vfio_dma_put_owner(container);
}

/**
 * vfio_dma_unmap_finish() - synchronise, and give the pages back to the owner
 * @unmap: operation; it can be used again
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_unmap_finish(struct vfio_dma_unmap *unmap)
{
	vfio_dma_space_flush(&unmap->container->space);
	give_back_unpinned(unmap);
}

/*
 * vfio_dma_unmap_range() and vfio_dma_unmap_finish() of one page, as most calls unmap:
 * inline, and synchronised and unpinned at once, it takes 112 instructions less.
 */
static __always_inline int unmap_page(struct vfio_dma_unmap *unmap,
				      unsigned long index)
{
	struct vfio_dma_container *container = unmap->container;
	struct vfio_dma_space *space = &container->space;
	unsigned long word, pfn;
	int ret = 0;

	lockdep_assert_held(&container->lock);
	WARN_ON_ONCE(vfio_dma_extpin_count(container, index, index));

	word = vfio_dma_record_take(&container->record, index,
				    VFIO_DMA_RECORD_STAYS, &pfn);
	/* A large mapping that is unmapped page by page saves 1,000 instructions of each. */
	if (unlikely(!word || word & VFIO_DMA_RECORD_STAYS))
		word = take_divided(unmap, index, word, &pfn, &ret);
	if (likely(word)) {
		unmap->npages = 1;
		if (unlikely(word & VFIO_XA_DMA_CONTIG))
			vfio_dma_cut_forget_contig(&container->record, index, index);
		if (vfio_dma_has_domain(container))
			unmap->unpinned =
				vfio_dma_space_unmap_now(space, vfio_dma_iova(index), pfn,
							 vfio_dma_cut_unmap_flags(word));
	} else {
		vfio_dma_space_flush(space);
	}
	/* As in vfio_dma_unmap_range() */
	if (unlikely(space->leaked)) {
		if (word)
			vfio_dma_record_leaked(&container->record, index, index);
		space->leaked = false;
		ret = ret ?: -EIO;
	}
	give_back_unpinned(unmap);
	return ret;
}

/**
 * vfio_dma_unmap_all() - unmap everything
 * @container: a container whose last group has gone, and with it the right to have
 *	anything mapped
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_unmap_all(struct vfio_dma_container *container)
{
	struct vfio_dma_unmap unmap = { .container = container };

	while (vfio_dma_unmap_range(&unmap, 0, VFIO_XA_DMA_LAST_INDEX))
		;
	vfio_dma_record_reset(&container->record);
	vfio_dma_unmap_finish(&unmap);
}

/**
 * vfio_dma_unplace_upto() - keep mappings, but not in domains
 * @container: the container
 * @space: domains that have all mappings up to page @last
 * @last: last page
 *
 * Only what emulated devices have pinned remains pinned, and charged.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_unplace_upto(struct vfio_dma_container *container,
			   struct vfio_dma_space *space, unsigned long last)
{
	unsigned long unpinned = 0, first = 0, shared, charged, kept;
	struct vfio_xa_dma_run run;

	lockdep_assert_held(&container->lock);

	while (vfio_dma_cut_next_stretch(&container->record, &container->space,
					 first, last, &run)) {
		if (!(run.word & VFIO_XA_DMA_PENDING))
			unpinned += vfio_dma_cut_unmap(&container->record,
						       space, run.first,
						       run.last);
		if (run.last == last)
			break;
		first = run.last + 1;
		cond_resched();
	}
	/*
	 * Pins of emulated devices had the charge of the domains.  There can be more of
	 * them than pages that are unpinned: an IOMMU driver that fails keeps some.
	 */
	shared = vfio_dma_extpin_charge_alone(container, 0, last, &charged);
	vfio_dma_space_flush(space);
	space->leaked = false;
	kept = vfio_dma_space_take_kept(space);
	vfio_dma_give_back(&container->owner, unpinned - shared,
			   unpinned - kept - charged);
}

/* Check what is asked for; with the mutex, each time after it was dropped. */
static inline int check_unmap(struct vfio_dma_container *container,
			      const struct vfio_iommu_type1_dma_unmap *args,
			      const struct vfio_bitmap *bitmap, u64 *last)
{
	u64 mask = vfio_dma_pgsize(container) - 1;
	int ret;

	lockdep_assert_held(&container->lock);

	if (args->flags & VFIO_DMA_UNMAP_FLAG_VADDR) {
		if (!vfio_dma_record_has_vaddr(&container->record))
			return -EOPNOTSUPP;
		/* Emulated devices reach memory by vaddr at any time. */
		if (!list_empty(&container->emulated))
			return -EBUSY;
	}

	if (args->flags & VFIO_DMA_UNMAP_FLAG_ALL) {
		*last = U64_MAX;
		return args->iova || args->size ? -EINVAL : 0;
	}
	ret = vfio_dma_check_range(args->iova, args->size, mask, last);
	if (ret || !bitmap)
		return ret;
	if (!container->dirty_tracking)
		return -EINVAL;
	return vfio_dma_check_bitmap(container, bitmap, args->size);
}

/**
 * vfio_dma_do_unmap() - VFIO_IOMMU_UNMAP_DMA
 * @container: the container
 * @args: arguments with flags that are known; its size is set to the number of
 *	bytes that were unmapped
 * @bitmap: where to write which pages are dirty, or %NULL
 *
 * Context: Process context, may sleep.  Takes and releases the container's mutex.
 * Return: 0; -EINVAL, -EOVERFLOW or -EBUSY for what may not be asked; -EOPNOTSUPP for
 * VFIO_DMA_UNMAP_FLAG_VADDR if the record has no addresses; -EINTR on a fatal signal,
 * after some of it; -EFAULT if @bitmap is not there; -EIO if an IOMMU driver failed.
 */
int vfio_dma_do_unmap(struct vfio_dma_container *container,
		      struct vfio_iommu_type1_dma_unmap *args,
		      const struct vfio_bitmap *bitmap)
{
	struct vfio_dma_unmap unmap = {
		.container = container,
		.interruptible = true,
	};
	u64 iova_last, size = args->size;
	unsigned long first, last;
	int ret;

	if (mutex_lock_killable(&container->lock)) {
		args->size = 0;
		return -EINTR;
	}

	ret = check_unmap(container, args, bitmap, &iova_last);
	if (ret)
		goto out_unlock;
	first = args->iova >> PAGE_SHIFT;
	last = iova_last >> PAGE_SHIFT;

	if (args->flags & VFIO_DMA_UNMAP_FLAG_VADDR) {
		ret = vfio_dma_invalidate_vaddr(container, first, last,
						&unmap.npages);
		vfio_dma_count(container, VFIO_DMA_OP_VADDR, unmap.npages, ret);
		goto out_size;
	}

	if (vfio_dma_has_extpins(container)) {
		ret = vfio_dma_extpin_release_drops_lock(container, first, last,
							 true);
		ret = ret ?: check_unmap(container, args, bitmap, &iova_last);
	}
	if (bitmap && !ret)
		ret = vfio_dma_report_dirty(container, first, last, 0,
					    bitmap->data);
	if (ret)
		goto out_size;

	if (first == last) {
		ret = unmap_page(&unmap, first);
	} else {
		ret = vfio_dma_unmap_range(&unmap, first, last);
		vfio_dma_unmap_finish(&unmap);
	}
	vfio_dma_count(container, VFIO_DMA_OP_UNMAP, unmap.npages, ret);
out_size:
	args->size = (u64)unmap.npages << PAGE_SHIFT;
out_unlock:
	if (trace_type1v3_unmap_enabled())
		trace_type1v3_unmap(container->id, args->iova, size,
				    (u64)unmap.npages << PAGE_SHIFT,
				    args->flags, ret);
	mutex_unlock(&container->lock);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_do_unmap, "VFIO_DMA");
