// SPDX-License-Identifier: GPL-2.0-only
/*
 * Dirty tracking
 *
 * A page is known to be dirty by a flag of its word, which is set when
 * vfio_dma_rw() writes to it, when a driver unpins it, and when a group goes
 * that could write to it unseen; and it counts as dirty while it is pinned.
 *
 * Groups that write unseen may be behind IOMMUs that record it: then the bits of
 * their IO page tables come on top.  Otherwise all that is mapped is dirty.
 * A bit of an IO page table stands for a superpage as a whole, and goes with it: a superpage
 * that is divided, and one across an end of the range that is asked for, has
 * the flag set in its words.
 *
 * A program can choose to do without the IOMMUs, because the devices behind them tell
 * it, or do not run; or to have no less than their bits.
 *
 * Nothing is allocated when tracking begins, and no page is unpinned here.
 */

#include <linux/bitmap.h>
#include <linux/export.h>
#include <linux/highmem.h>
#include <linux/iova_bitmap.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include <uapi/linux/vfio_type1v3.h>

#include "vfio_dma_cut.h"
#include "vfio_dma_dirty.h"
#include "vfio_dma_extpin.h"
#include "vfio_type1v3_trace.h"

/*
 * Pages whose dirty bits are read at a time, from 1 GiB to 1 GiB, where no superpage
 * lies across; and user pages that a bitmap of them can be in.
 */
#define DIRTY_WINDOW	VFIO_DMA_EXTENT_MAX
#define DIRTY_PAGES \
	(DIV_ROUND_UP(DIRTY_WINDOW / BITS_PER_BYTE + 1, PAGE_SIZE) + 1)

/* Requests of VFIO_IOMMU_DIRTY_PAGES that type1 does not know */
#define START_PINNED	(VFIO_IOMMU_DIRTY_PAGES_FLAG_START | \
			 VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED)
#define START_HARDWARE	(VFIO_IOMMU_DIRTY_PAGES_FLAG_START | \
			 VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE)
#define GET_BITMAP_OR	(VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP | \
			 VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR)

/**
 * struct user_bitmap - a user's dirty bitmap
 * @data: its first byte
 * @first: IOVA page that its first bit is for
 * @shift: a bit is for 1 << @shift pages
 * @keep: bits that are set stay set
 * @room: kernel memory of PAGE_SIZE
 */
struct user_bitmap {
	u8 __user *data;
	unsigned long first;
	unsigned int shift;
	bool keep;
	unsigned long *room;
};

/* As vfio_dma_dirty_source(), whoever was asked; @recorded: the IOMMUs do, or could */
static u32 groups_source(struct vfio_dma_container *container, bool recorded)
{
	u32 source = VFIO_IOMMU_TYPE1V3_DIRTY_PINNED;
	struct vfio_dma_group *group;
	struct vfio_dma_group_domain *domain;
	struct vfio_dma_domain *d;

	lockdep_assert_held(&container->lock);

	list_for_each_entry(d, &container->space.domains, next) {
		domain = container_of(d, struct vfio_dma_group_domain, dma);
		list_for_each_entry(group, &domain->groups, next) {
			if (!group->dirties_unseen)
				continue;
			if (recorded ? !d->tracking :
			    !vfio_dma_domain_can_track(d))
				return VFIO_IOMMU_TYPE1V3_DIRTY_ALL;
			source = VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE;
		}
	}
	return source;
}

/**
 * vfio_dma_dirty_source() - who tells, or would tell, which pages are dirty
 * @container: the container
 *
 * Context: Caller holds the container's mutex.
 * Return: VFIO_IOMMU_TYPE1V3_DIRTY_*.
 */
u32 vfio_dma_dirty_source(struct vfio_dma_container *container)
{
	bool recorded = vfio_dma_dirty_is_recorded(container);

	if (container->dirty_tracking == VFIO_DMA_TRACK_PINNED)
		return VFIO_IOMMU_TYPE1V3_DIRTY_PINNED;
	return groups_source(container, recorded);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_dirty_source, "VFIO_DMA");

/**
 * vfio_dma_dirty_flags() - what VFIO_IOMMU_DIRTY_PAGES can be asked for
 * @container: the container
 *
 * Context: Caller holds the container's mutex.
 * Return: VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_*.
 */
u32 vfio_dma_dirty_flags(struct vfio_dma_container *container)
{
	u32 flags = VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED |
		    VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR;

	if (groups_source(container, false) != VFIO_IOMMU_TYPE1V3_DIRTY_ALL)
		flags |= VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE;
	return flags;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_dirty_flags, "VFIO_DMA");

/*
 * Take the dirty bit of a block that could be a superpage, across the border
 * before page @at, to the words of its pages.  Returns false if there is no such
 * block.
 */
static bool take_block(struct vfio_dma_container *container,
		       struct vfio_dma_domain *domain, unsigned long at,
		       struct vfio_xa_dma_run *block)
{
	unsigned long npages = 0, word;
	dma_addr_t first, last;

	lockdep_assert_held(&container->lock);

	word = vfio_dma_cut_border(&container->record, at);
	if (word & VFIO_XA_DMA_WRITE)
		npages = vfio_dma_cut_find_block(&container->record, domain, at,
						 word & VFIO_DMA_RIGHTS);
	if (!npages)
		return false;

	block->first = round_down(at, npages);
	block->last = block->first + npages - 1;
	if (vfio_dma_domain_take_dirty(domain, vfio_dma_iova(block->first),
				       npages, &first, &last))
		vfio_dma_set_dirty(container, first >> PAGE_SHIFT,
				   last >> PAGE_SHIFT);
	return true;
}

/* Read, or only clear, what the IOMMU of a domain has recorded of a range. */
static void read_domain(struct vfio_dma_container *container,
			struct vfio_dma_domain *domain, unsigned long first,
			unsigned long last, bool clear,
			struct iova_bitmap *bitmap)
{
	struct vfio_xa_dma_run run, block;

	lockdep_assert_held(&container->lock);

	/* The bitmap has no room for what lies outside of the range. */
	if (take_block(container, domain, first, &block))
		first = block.last + 1;
	if (first <= last && take_block(container, domain, last + 1, &block)) {
		/* Nothing is below a block that begins at IOVA 0. */
		if (block.first <= first)
			return;
		last = block.first - 1;
	}

	while (first <= last &&
	       vfio_dma_cut_next_stretch(&container->record, &container->space,
					 first, last, &run)) {
		/* A stretch may be longer than one page of this domain: that costs only time. */
		if (!(run.word & VFIO_XA_DMA_PENDING) &&
		    run.word & VFIO_XA_DMA_WRITE &&
		    vfio_dma_domain_read_dirty(domain, vfio_dma_iova(run.first),
					       vfio_dma_run_pages(&run), clear,
					       bitmap))
			vfio_dma_set_dirty(container, run.first, run.last);
		if (run.last >= last)
			break;
		first = run.last + 1;
		cond_resched();
	}
}

static void start_domains(struct vfio_dma_container *container)
{
	struct vfio_dma_domain *domain;

	lockdep_assert_held(&container->lock);

	list_for_each_entry(domain, &container->space.domains, next) {
		if (vfio_dma_domain_can_track(domain))
			read_domain(container, domain, 0,
				    VFIO_XA_DMA_LAST_INDEX, true, NULL);
		vfio_dma_domain_track(domain, true);
	}
	vfio_dma_space_flush(&container->space);
}

static void stop_tracking(struct vfio_dma_container *container)
{
	struct vfio_dma_domain *domain;

	lockdep_assert_held(&container->lock);

	list_for_each_entry(domain, &container->space.domains, next)
		if (domain->tracking)
			vfio_dma_domain_track(domain, false);
	container->dirty_tracking = VFIO_DMA_TRACK_NONE;
	vfio_dma_record_change_nofail(&container->record, 0, VFIO_XA_DMA_LAST_INDEX,
				      VFIO_XA_DMA_DIRTY, 0);
}

/* Begin to track: nothing is dirty, and nothing is allocated. */
static int start_tracking(struct vfio_dma_container *container,
			  enum vfio_dma_tracking choice)
{
	lockdep_assert_held(&container->lock);

	if (container->dirty_tracking)
		return container->dirty_tracking == choice ? 0 : -EBUSY;
	if (choice == VFIO_DMA_TRACK_HARDWARE &&
	    groups_source(container, false) == VFIO_IOMMU_TYPE1V3_DIRTY_ALL)
		return -EOPNOTSUPP;

	if (choice != VFIO_DMA_TRACK_PINNED)
		start_domains(container);
	container->dirty_tracking = choice;
	/* Starting fails where an IOMMU driver does. */
	if (choice == VFIO_DMA_TRACK_HARDWARE &&
	    vfio_dma_dirty_source(container) == VFIO_IOMMU_TYPE1V3_DIRTY_ALL) {
		stop_tracking(container);
		return -EOPNOTSUPP;
	}
	return 0;
}

/* Where the bit of page @index is */
static u8 __user *bitmap_byte(const struct user_bitmap *bitmap,
			      unsigned long index)
{
	return bitmap->data +
	       ((index - bitmap->first) >> bitmap->shift) / BITS_PER_BYTE;
}

/* Write zeros, in steps after which there is a look for a fatal signal. */
static int clear_bitmap(u8 __user *data, size_t bytes)
{
	size_t n;

	for (; bytes; bytes -= n, data += n) {
		n = min(bytes, PAGE_SIZE - offset_in_page(data));
		if (clear_user(data, n))
			return -EFAULT;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

static void set_bits(unsigned long *bitmap, unsigned long first,
		     unsigned int shift, const struct vfio_xa_dma_run *run)
{
	unsigned long lo = (run->first - first) >> shift;
	unsigned long hi = (run->last - first) >> shift;

	bitmap_set(bitmap, lo, hi - lo + 1);
}

/* Add dirty pages of [@first, @last] to at most PAGE_SIZE bytes of bits. */
static void fill_bitmap(struct vfio_dma_container *container,
			unsigned long first, unsigned long last,
			unsigned int shift, bool all, unsigned long *bitmap)
{
	struct vfio_xa_dma_run run;

	lockdep_assert_held(&container->lock);

	vfio_dma_record_for_each_mapped(&container->record, &run, first, last)
		if (all || run.word & VFIO_XA_DMA_DIRTY)
			set_bits(bitmap, first, shift, &run);

	if (!vfio_dma_has_extpins(container))
		return;
	vfio_dma_for_each_run(&container->extpins, &run, first, last)
		set_bits(bitmap, first, shift, &run);
}

/*
 * Write the bits of [@first, @last], of which the first one begins a byte: those
 * that the words say, and on top those that @pages hold, the pages of user memory
 * from the one with that byte on, unless that is %NULL.
 */
static int write_bits(struct vfio_dma_container *container,
		      const struct user_bitmap *bitmap, unsigned long first,
		      unsigned long last, bool all, struct page **pages)
{
	unsigned long step = PAGE_SIZE * BITS_PER_BYTE << bitmap->shift;
	u8 __user *data = bitmap_byte(bitmap, first);
	size_t offset = offset_in_page(data), bits, bytes, done, n;
	unsigned long chunk_last;

	lockdep_assert_held(&container->lock);

	for (;; first += step, offset += bytes, data += bytes) {
		chunk_last = min(last, first + step - 1);
		bits = ((chunk_last - first) >> bitmap->shift) + 1;
		/* The bits that fill up the last word are 0, or have been cleared. */
		bytes = pages ? DIV_ROUND_UP(bits, BITS_PER_BYTE) :
				VFIO_DMA_BITMAP_BYTES(bits);
		memset(bitmap->room, 0, bytes);
		if (bitmap->keep && !pages &&
		    copy_from_user(bitmap->room, data, bytes))
			return -EFAULT;
		for (done = 0; pages && done < bytes; done += n) {
			n = min(bytes - done,
				PAGE_SIZE - offset_in_page(offset + done));
			memcpy_from_page((char *)bitmap->room + done,
					 pages[(offset + done) >> PAGE_SHIFT],
					 offset_in_page(offset + done), n);
		}
		fill_bitmap(container, first, chunk_last, bitmap->shift, all,
			    bitmap->room);
		if (copy_to_user(data, bitmap->room, bytes))
			return -EFAULT;
		if (chunk_last == last)
			return 0;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
}

/*
 * Set a bit through @bitmap: does that change @page, that is, has the bitmap pinned this
 * very page?  The bit is put back to what it was.
 */
static bool try_bit(struct iova_bitmap *bitmap, unsigned long index,
		    struct page *page, size_t offset, unsigned int bit)
{
	u8 *byte = kmap_local_page(page) + offset;
	u8 was = READ_ONCE(*byte) & BIT(bit);
	bool ret;

	WRITE_ONCE(*byte, *byte & ~BIT(bit));
	iova_bitmap_set(bitmap, vfio_dma_iova(index), PAGE_SIZE);
	ret = READ_ONCE(*byte) & BIT(bit);
	WRITE_ONCE(*byte, (*byte & ~BIT(bit)) | was);
	kunmap_local(byte);
	return ret;
}

/*
 * Write the bits of [@first, @last], which is within a window: what the IOMMUs have
 * recorded, and the words.  The bitmap has been cleared, unless its bits are kept,
 * but may share a byte with the window before.  *@read: what has been recorded may be
 * known no more.
 *
 * An iova_bitmap pins user memory when a bit is set, keeps it until another part is
 * needed, and says nothing if it fails; meanwhile the IOMMU forgets the bit.  All
 * of the window's user memory is therefore pinned here, before, and an iova_bitmap that can
 * reach the last bit and then the first needs no other part.  The bits are read from
 * the pages that are pinned: what user space does to the address loses none.
 */
static int report_window(struct vfio_dma_container *container,
			 const struct user_bitmap *bitmap, unsigned long first,
			 unsigned long last, bool clear, bool *read)
{
	u8 __user *data = bitmap_byte(bitmap, first);
	u8 __user *end = bitmap_byte(bitmap, last);
	size_t offset = offset_in_page(data), end_offset;
	unsigned int first_bit, last_bit, nr, pinned;
	struct page *pages[DIRTY_PAGES];
	struct iova_bitmap *hw_bitmap;
	struct vfio_dma_domain *domain;
	unsigned long start;
	int ret;

	lockdep_assert_held(&container->lock);

	first_bit = ((first - bitmap->first) >> bitmap->shift) % BITS_PER_BYTE;
	last_bit = ((last - bitmap->first) >> bitmap->shift) % BITS_PER_BYTE;
	end_offset = offset + (end - data);
	start = first - ((unsigned long)first_bit << bitmap->shift);
	nr = (end_offset >> PAGE_SHIFT) + 1;

	hw_bitmap = iova_bitmap_alloc(vfio_dma_iova(start),
				      (last - start + 1) << PAGE_SHIFT,
				      PAGE_SIZE << bitmap->shift,
				      (u64 __user *)data);
	if (IS_ERR(hw_bitmap))
		return PTR_ERR(hw_bitmap);

	ret = pin_user_pages_fast((unsigned long)data & PAGE_MASK, nr,
				  FOLL_WRITE, pages);
	pinned = max(ret, 0);
	ret = fatal_signal_pending(current) ? -EINTR : -EFAULT;
	if (pinned < nr ||
	    !try_bit(hw_bitmap, last, pages[nr - 1], offset_in_page(end_offset),
		     last_bit) ||
	    !try_bit(hw_bitmap, first, pages[0], offset, first_bit))
		goto out_unpin;

	*read = clear;
	list_for_each_entry(domain, &container->space.domains, next)
		if (domain->tracking)
			read_domain(container, domain, first, last, clear,
				    hw_bitmap);
	vfio_dma_space_flush(&container->space);
	ret = write_bits(container, bitmap, start, last, false, pages);

out_unpin:
	iova_bitmap_free(hw_bitmap);
	unpin_user_pages(pages, pinned);
	return ret;
}

/*
 * Write what the IOMMUs have recorded, and the words; see vfio_dma_report_dirty().  Nothing
 * mapped, nothing to read: windows begin where something is.
 */
static int report_hardware(struct vfio_dma_container *container,
			   const struct user_bitmap *bitmap, unsigned long last,
			   bool clear)
{
	unsigned long first = bitmap->first, pos = first, window_last;
	struct vfio_xa_dma_run run;
	bool read = false;
	size_t bits;
	int ret;

	lockdep_assert_held(&container->lock);

	bits = ((last - first) >> bitmap->shift) + 1;
	ret = bitmap->keep ? 0 : clear_bitmap(bitmap->data,
					      VFIO_DMA_BITMAP_BYTES(bits));
	while (!ret &&
	       vfio_dma_record_next(&container->record, pos, last, &run)) {
		window_last = min(last, run.first | (DIRTY_WINDOW - 1));
		ret = report_window(container, bitmap, run.first, window_last,
				    clear, &read);
		if (!ret && window_last < last && fatal_signal_pending(current))
			ret = -EINTR;
		/* Bits that were read, and cleared, are known nowhere else any more. */
		if (ret && read)
			vfio_dma_set_dirty(container, first, window_last);
		if (window_last == last)
			break;
		pos = window_last + 1;
		cond_resched();
	}
	return ret;
}

/**
 * vfio_dma_report_dirty() - write the dirty bitmap of a range
 * @container: the container, which tracks
 * @first: first page of the range
 * @last: its last page
 * @how: VFIO_DMA_REPORT_*; what fails has cleared nothing
 * @data: where to; vfio_dma_check_bitmap() has been asked
 *
 * Context: Process context, may sleep, also for user space to provide memory.
 * Caller holds the container's mutex.
 * Return: 0; -EFAULT if there is no memory at @data; -EINTR on a fatal signal;
 * -ENOMEM.
 */
int vfio_dma_report_dirty(struct vfio_dma_container *container,
			  unsigned long first, unsigned long last, u32 how,
			  u64 __user *data)
{
	u32 source = vfio_dma_dirty_source(container);
	struct user_bitmap bitmap = {
		.data = (u8 __user *)data,
		.first = first,
		.shift = __ffs(container->space.pgsize_bitmap) - PAGE_SHIFT,
		.keep = how & VFIO_DMA_REPORT_OR,
	};
	int ret;

	lockdep_assert_held(&container->lock);

	/* An unmap must not fail for want of memory. */
	bitmap.room = vfio_dma_kmalloc_nofail(PAGE_SIZE);
	if (source == VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE)
		ret = report_hardware(container, &bitmap, last,
				      how & VFIO_DMA_REPORT_CLEAR);
	else
		ret = write_bits(container, &bitmap, first, last,
				 source == VFIO_IOMMU_TYPE1V3_DIRTY_ALL, NULL);
	kfree(bitmap.room);
	return ret;
}

/**
 * vfio_dma_check_bitmap() - is a user's dirty bitmap what it has to be?
 * @container: the container
 * @bitmap: the bitmap
 * @size: bytes of IOVA that it is for
 *
 * Context: Caller holds the container's mutex.
 * Return: 0 or -EINVAL.
 */
int vfio_dma_check_bitmap(struct vfio_dma_container *container,
			  const struct vfio_bitmap *bitmap, u64 size)
{
	u64 pgsize = vfio_dma_pgsize(container);
	u64 bits = size / pgsize;

	if (bitmap->pgsize != pgsize || !bitmap->size ||
	    bitmap->size > VFIO_DMA_BITMAP_BYTES_MAX ||
	    bits > VFIO_DMA_BITMAP_BITS_MAX ||
	    bitmap->size < VFIO_DMA_BITMAP_BYTES(bits) ||
	    !access_ok((void __user *)bitmap->data, bitmap->size))
		return -EINVAL;
	return 0;
}

static int get_bitmap(struct vfio_dma_container *container,
		      const struct vfio_iommu_type1_dirty_bitmap_get *get,
		      u32 how)
{
	unsigned long first = get->iova >> PAGE_SHIFT, last;
	u64 iova_last;
	int ret;

	lockdep_assert_held(&container->lock);

	ret = vfio_dma_check_range(get->iova, get->size, 0, &iova_last);
	if (ret)
		return ret;
	last = iova_last >> PAGE_SHIFT;

	if (!container->dirty_tracking ||
	    (get->iova | get->size) & (vfio_dma_pgsize(container) - 1) ||
	    vfio_dma_check_bitmap(container, &get->bitmap, get->size))
		return -EINVAL;

	ret = vfio_dma_report_dirty(container, first, last,
				    how | VFIO_DMA_REPORT_CLEAR,
				    get->bitmap.data);
	if (!ret)
		vfio_dma_record_change_nofail(&container->record, first, last,
					      VFIO_XA_DMA_DIRTY, 0);
	return ret;
}

/**
 * vfio_dma_do_dirty() - VFIO_IOMMU_DIRTY_PAGES
 * @container: the container
 * @flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_*, and with them VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_*
 * @get: the range and its bitmap, of 0 bytes unless @flags asks for a bitmap
 *
 * Context: Process context, may sleep, also for user space to provide memory.
 * Takes and releases the container's mutex.
 * Return: 0; -EINVAL or -EOVERFLOW for what may not be asked; -EBUSY if another choice is
 * in force; -EOPNOTSUPP if it cannot be; -EFAULT if the bitmap is
 * not there; -EINTR on a fatal signal; -ENOMEM.
 */
int vfio_dma_do_dirty(struct vfio_dma_container *container, u32 flags,
		      const struct vfio_iommu_type1_dirty_bitmap_get *get)
{
	int ret = 0;

	if (mutex_lock_killable(&container->lock))
		return -EINTR;
	switch (flags) {
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
		ret = start_tracking(container, VFIO_DMA_TRACK_AS_TYPE1);
		break;
	case START_PINNED:
		ret = start_tracking(container, VFIO_DMA_TRACK_PINNED);
		break;
	case START_HARDWARE:
		ret = start_tracking(container, VFIO_DMA_TRACK_HARDWARE);
		break;
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
		stop_tracking(container);
		break;
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP:
		ret = get_bitmap(container, get, 0);
		break;
	case GET_BITMAP_OR:
		ret = get_bitmap(container, get, VFIO_DMA_REPORT_OR);
		break;
	default:
		ret = -EINVAL;
	}
	vfio_dma_count(container, VFIO_DMA_OP_DIRTY,
		       ret ? 0 : get->size >> PAGE_SHIFT, ret);
	trace_type1v3_dirty(container->id, flags, get->iova, get->size, ret);
	mutex_unlock(&container->lock);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_do_dirty, "VFIO_DMA");
