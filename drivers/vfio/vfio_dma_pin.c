// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pinning of user memory
 *
 * A range is pinned in steps, which need no lock and may take as long as user
 * space likes.  Each is followed by taking the physically contiguous extents that
 * it has found: an extent is mapped by one iommu_map() call, and that is what makes
 * superpages.  Device memory has no pages to pin, and its extents say so.
 *
 * Nothing here charges, or knows of IOVAs.
 */

#include <kunit/visibility.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "vfio_dma_ledger.h"
#include "vfio_dma_pin.h"

/**
 * vfio_dma_pin_start() - prepare to pin a range of the owner's memory
 * @pin: state to initialise; vfio_dma_pin_finish() must follow
 * @mm: the owner's address space; if it is not the caller's own, the caller
 *	keeps its mm_users from dropping to zero
 * @vaddr: page aligned address of the range
 * @npages: its length in pages, not 0
 * @write: the device will write to it
 *
 * Context: Process context, may sleep.
 */
void vfio_dma_pin_start(struct vfio_dma_pin *pin, struct mm_struct *mm,
			unsigned long vaddr, unsigned long npages, bool write)
{
	pin->mm = mm;
	pin->vaddr = vaddr;
	pin->npages = npages;
	pin->gup_flags = FOLL_LONGTERM | (write ? FOLL_WRITE : 0);
	pin->size = 0;
	pin->offset = 0;
	pin->flush_tail = false;
	pin->tail.npages = 0;

	if (npages > VFIO_DMA_PIN_INLINE) {
		pin->pages = (struct page **)__get_free_page(VFIO_DMA_GFP);
		pin->max = PAGE_SIZE / sizeof(*pin->pages);
		if (pin->pages)
			return;
	}

	/* Without the memory for more it only takes more steps. */
	pin->pages = pin->inline_pages;
	pin->max = VFIO_DMA_PIN_INLINE;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_pin_start);

/* Bytes that one entry of the CPU's page table maps; compat/ may know less */
#ifndef vfio_dma_pfnmap_bytes
#define vfio_dma_pfnmap_bytes(args)	(~(args)->addr_mask + 1)
#endif

static bool is_mmio(pgprot_t prot)
{
	return pgprot_val(prot) == pgprot_val(pgprot_noncached(prot)) ||
	       pgprot_val(prot) == pgprot_val(pgprot_writecombine(prot)) ||
	       pgprot_val(prot) == pgprot_val(pgprot_device(prot));
}

static int follow_pfnmap(struct vfio_dma_pin *pin, struct mm_struct *mm,
			 struct vm_area_struct *vma,
			 struct vfio_dma_extent *extent)
{
	struct follow_pfnmap_args args = { .vma = vma, .address = pin->vaddr };
	bool write = pin->gup_flags & FOLL_WRITE;
	unsigned long entry;
	int ret;

	ret = follow_pfnmap_start(&args);
	if (ret) {
		bool unlocked = false;

		ret = fixup_user_fault(mm, pin->vaddr, FAULT_FLAG_REMOTE |
				       (write ? FAULT_FLAG_WRITE : 0),
				       &unlocked);
		if (ret)
			return ret;
		if (unlocked)
			return -EAGAIN;

		ret = follow_pfnmap_start(&args);
		if (ret)
			return ret;
	}

	/*
	 * A frame with an ordinary page behind it can be freed and given to
	 * somebody else at any time, as nothing pins it.
	 */
	if ((write && !args.writable) ||
	    (pfn_valid(args.pfn) && !PageReserved(pfn_to_page(args.pfn)))) {
		ret = -EFAULT;
	} else {
		entry = vfio_dma_pfnmap_bytes(&args) >> PAGE_SHIFT;
		extent->pfn = args.pfn;
		extent->npages = min(entry - (args.pfn & (entry - 1)),
				     pin->npages);
		extent->npages = min3(extent->npages,
				      (vma->vm_end - pin->vaddr) >> PAGE_SHIFT,
				      VFIO_DMA_EXTENT_MAX -
				      args.pfn % VFIO_DMA_EXTENT_MAX);
		extent->pfnmap = true;
		extent->mmio = is_mmio(args.pgprot);
	}

	follow_pfnmap_end(&args);
	return ret;
}

static bool append_extent(struct vfio_dma_extent *extent,
			  const struct vfio_dma_extent *next)
{
	if (!extent->npages)
		*extent = *next;
	else if (extent->pfn + extent->npages == next->pfn &&
		 next->pfn % VFIO_DMA_EXTENT_MAX &&
		 extent->pfnmap == next->pfnmap && extent->mmio == next->mmio)
		extent->npages += next->npages;
	else
		return false;
	return true;
}

/*
 * Device memory has no pages to put into pin->pages; it goes to the tail
 * directly, or nowhere if the tail is something else: the tail is handed out
 * first and the next step comes here again.
 */
static int pin_pfnmap(struct vfio_dma_pin *pin, struct mm_struct *mm,
		      int err)
{
	struct vfio_dma_extent extent = {};
	struct vm_area_struct *vma;
	int ret;

	mmap_read_lock(mm);
	do {
		ret = err;
		vma = vma_lookup(mm, pin->vaddr);
		if (vma && vma->vm_flags & VM_PFNMAP)
			ret = follow_pfnmap(pin, mm, vma, &extent);
		if (ret == -EAGAIN && fatal_signal_pending(current))
			ret = -EINTR;
	} while (ret == -EAGAIN);
	mmap_read_unlock(mm);
	if (ret)
		return ret;

	if (append_extent(&pin->tail, &extent)) {
		pin->vaddr += extent.npages << PAGE_SHIFT;
		pin->npages -= extent.npages;
	} else {
		pin->flush_tail = true;
	}
	return 0;
}

/**
 * vfio_dma_pin_step() - pin some more of the range
 * @pin: state; all extents of the last step have been taken
 *
 * Context: Process context, may sleep for as long as user space needs to
 * provide a page.  Takes and releases mmap_lock.
 * Return: 0; -EFAULT if there is no memory, or none that may be written to, at
 * the address, or it is a VM_PFNMAP mapping of ordinary pages; -EINTR or
 * -ERESTARTSYS on a fatal signal; -ENOMEM or what else get_user_pages() returns.
 */
int vfio_dma_pin_step(struct vfio_dma_pin *pin)
{
	struct mm_struct *mm = pin->mm;
	unsigned long n = min_t(unsigned long, pin->npages, pin->max);
	int locked = 1;
	long ret;

	/* Nothing is left of the last step; device memory adds no pages. */
	pin->size = 0;
	pin->offset = 0;
	if (!n)
		return 0;

	if (mm == current->mm) {
		ret = pin_user_pages_fast(pin->vaddr, n, pin->gup_flags,
					  pin->pages);
	} else {
		/* With &locked it may drop mmap_lock to wait for memory that is slow to come. */
		mmap_read_lock(mm);
		ret = pin_user_pages_remote(mm, pin->vaddr, n, pin->gup_flags,
					    pin->pages, &locked);
		if (locked)
			mmap_read_unlock(mm);
	}
	if (ret <= 0) {
		/* Nothing is there, also where the address range ends. */
		if (!ret || ret == -EOVERFLOW)
			ret = -EFAULT;
		return pin_pfnmap(pin, mm, ret);
	}

	pin->size = ret;
	pin->vaddr += ret << PAGE_SHIFT;
	pin->npages -= ret;
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_pin_step);

/**
 * vfio_dma_first_extent() - find the pages that are physically contiguous
 * @pages: pinned pages
 * @max: how many there are, not 0
 * @extent: set to the first of them
 *
 * Context: Any.
 */
void vfio_dma_first_extent(struct page **pages, unsigned int max,
			   struct vfio_dma_extent *extent)
{
	unsigned int n = 1;

	extent->pfn = page_to_pfn(pages[0]);
	while (n < max && page_to_pfn(pages[n]) == extent->pfn + n &&
	       (extent->pfn + n) % VFIO_DMA_EXTENT_MAX)
		n++;
	extent->npages = n;
	extent->pfnmap = false;
	extent->mmio = false;
}

/**
 * vfio_dma_pin_extent() - take the next extent of what is pinned
 * @pin: state
 * @extent: the extent; from now on the caller unpins it, unless it is pfnmap
 *
 * An extent that the next step could make longer is held back.
 *
 * Context: Any.
 * Return: true if there was one; false if it takes another step, or if all of
 * the range has been taken.
 */
bool vfio_dma_pin_extent(struct vfio_dma_pin *pin,
			 struct vfio_dma_extent *extent)
{
	struct vfio_dma_extent next;
	bool more;

	while (pin->offset < pin->size) {
		vfio_dma_first_extent(pin->pages + pin->offset,
				      pin->size - pin->offset, &next);
		more = append_extent(&pin->tail, &next);
		pin->offset += next.npages;
		if (!more) {
			*extent = pin->tail;
			pin->tail = next;
			return true;
		}
	}

	if (!pin->tail.npages || (pin->npages && !pin->flush_tail))
		return false;

	*extent = pin->tail;
	pin->tail.npages = 0;
	pin->flush_tail = false;
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_pin_extent);

/**
 * vfio_dma_pin_finish() - unpin what has not been taken and free the state
 * @pin: state
 *
 * Context: Process context, may sleep.
 */
void vfio_dma_pin_finish(struct vfio_dma_pin *pin)
{
	if (pin->tail.npages && !pin->tail.pfnmap)
		vfio_dma_unpin(pin->tail.pfn, pin->tail.npages, false);
	if (pin->offset < pin->size)
		unpin_user_pages(pin->pages + pin->offset,
				 pin->size - pin->offset);
	if (pin->pages != pin->inline_pages)
		free_page((unsigned long)pin->pages);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_pin_finish);

/**
 * vfio_dma_pin_now() - pin a few pages of the calling process in one go
 * @vaddr: page aligned address of the first
 * @npages: number of pages, not 0
 * @write: the device will write to them
 * @pages: set to the pages, which the caller unpins
 *
 * For requests so small that it does not pay to pin them step by step.
 *
 * Context: Process context, may sleep for as long as user space needs to
 * provide a page.  Takes and releases mmap_lock.
 * Return: true if all of them are pinned; false if none is, for whatever reason:
 * vfio_dma_pin_step() finds it out, and knows device memory as well.
 */
bool vfio_dma_pin_now(unsigned long vaddr, unsigned int npages, bool write,
		      struct page **pages)
{
	int n = pin_user_pages_fast(vaddr, npages, FOLL_LONGTERM |
				    (write ? FOLL_WRITE : 0), pages);

	if (likely(n == npages))
		return true;
	if (n > 0)
		unpin_user_pages(pages, n);
	return false;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_pin_now);

/**
 * vfio_dma_pin_present() - pin a page if nobody has to be waited for
 * @mm: whose memory; if it is not the caller's own, the caller keeps its mm_users
 *	from dropping to zero
 * @vaddr: page aligned address
 * @write: the device will write to it
 * @page: set to the page, which the caller unpins
 *
 * Context: Process context, may sleep, but not for user space to provide the
 * page; for its migration, if it is not where it may be pinned.  Takes and
 * releases mmap_lock.
 * Return: true if it is pinned; false if it is not there, or not so that it can
 * be pinned: vfio_dma_pin_step() finds it out, or changes it.
 */
bool vfio_dma_pin_present(struct mm_struct *mm, unsigned long vaddr, bool write,
			  struct page **page)
{
	unsigned int gup_flags = FOLL_LONGTERM | FOLL_NOFAULT |
				 (write ? FOLL_WRITE : 0);
	long n;

	if (likely(mm == current->mm))
		return pin_user_pages_fast(vaddr, 1, gup_flags, page) == 1;

	mmap_read_lock(mm);
	n = pin_user_pages_remote(mm, vaddr, 1, gup_flags, page, NULL);
	mmap_read_unlock(mm);
	return n == 1;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_pin_present);

/**
 * vfio_dma_count_pinnable() - how much of a range is not device memory
 * @vaddr: page aligned address of the range in the calling process
 * @npages: its length in pages
 *
 * Device memory is not charged; this tells how much to charge for a range that
 * contains some.  The answer can be outdated at once.
 *
 * Context: Process context, may sleep.  Takes and releases mmap_lock.
 * Return: number of pages outside of VM_PFNMAP mappings.
 */
unsigned long vfio_dma_count_pinnable(unsigned long vaddr, unsigned long npages)
{
	unsigned long last = vaddr + (npages << PAGE_SHIFT) - 1;
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	unsigned long start, end;

	mmap_read_lock(mm);
	for (vma = find_vma(mm, vaddr); vma && vma->vm_start <= last;
	     vma = find_vma(mm, vma->vm_end)) {
		if (vma->vm_flags & VM_PFNMAP) {
			start = max(vma->vm_start, vaddr);
			end = min(vma->vm_end - 1, last);
			npages -= (end - start + 1) >> PAGE_SHIFT;
		}
		if (vma->vm_end > last)
			break;
	}
	mmap_read_unlock(mm);
	return npages;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_count_pinnable);

/* Get a page, without a pin.  Returns 1, or an errno. */
static long get_one(struct mm_struct *mm, unsigned long vaddr,
		    unsigned int gup_flags, struct page **page)
{
	int locked = 1;
	long n;

	if (mm == current->mm) {
		n = get_user_pages_fast(vaddr, 1, gup_flags, page);
	} else {
		if (mmap_read_lock_killable(mm))
			return -EINTR;
		n = get_user_pages_remote(mm, vaddr, 1, gup_flags, page,
					  &locked);
		if (locked)
			mmap_read_unlock(mm);
	}
	return n ?: -EFAULT;
}

/**
 * vfio_dma_pin_wait() - wait for a page, and pin nothing
 * @mm: whose memory, with a reference to its mm_users
 * @vaddr: page aligned address
 * @write: a device will write to it
 *
 * Context: Process context, may sleep for as long as user space needs to provide the
 * page.  Takes and releases mmap_lock.
 * Return: 0; -EINVAL for device memory; -EINTR on a fatal signal; -EFAULT or what else
 * get_user_pages() returns.
 */
int vfio_dma_pin_wait(struct mm_struct *mm, unsigned long vaddr, bool write)
{
	struct vm_area_struct *vma;
	struct page *page;
	bool pfnmap;
	long n;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	vma = vma_lookup(mm, vaddr);
	pfnmap = vma && vma->vm_flags & VM_PFNMAP;
	mmap_read_unlock(mm);
	if (pfnmap)
		return -EINVAL;

	n = get_one(mm, vaddr, write ? FOLL_WRITE : 0, &page);
	if (n < 0)
		return n;
	put_page(page);
	return 0;
}

/**
 * vfio_dma_pin_hold() - see to it that what is at an address needs no charge
 * @owner: the owner; if it is not the calling process, the caller keeps its mm_users from
 *	dropping to zero
 * @vaddr: page aligned address
 * @write: the device will write to it
 * @wait: for as long as user space needs to provide the page
 * @pfn: set to the page frame
 *
 * For pages that are about to be pinned at the limit.  A page that the ledger knows is
 * held once more until vfio_dma_pin_drop(), so that to enter it needs no charge
 * meanwhile, whoever else lets go of it.  The address can get another page at any time:
 * the caller compares what it has pinned.
 *
 * Context: Process context, may sleep.  Takes and releases mmap_lock and the ledger's
 * lock.
 * Return: 0; -ENOMEM if it must be charged; -EAGAIN if it is not there without @wait;
 * -EFAULT or what else get_user_pages() returns if it is not there at all.
 */
int vfio_dma_pin_hold(struct vfio_dma_owner *owner, unsigned long vaddr,
		      bool write, bool wait, unsigned long *pfn)
{
	unsigned int gup_flags = (write ? FOLL_WRITE : 0) |
				 (wait ? 0 : FOLL_NOFAULT);
	struct vfio_dma_ledger *ledger = READ_ONCE(owner->ledger);
	struct mm_struct *mm = owner->mm;
	struct page *page;
	bool known;
	long n;

	*pfn = VFIO_DMA_NOT_HELD;
	if (!ledger)
		return -ENOMEM;

	n = get_one(mm, vaddr, gup_flags, &page);
	if (n < 0)
		return wait ? n : -EAGAIN;

	/* Of pages in the ledger nobody changes what is at a page frame. */
	mutex_lock(&ledger->lock);
	known = vfio_dma_ledger_hold(ledger, page_to_pfn(page));
	mutex_unlock(&ledger->lock);
	if (known)
		*pfn = page_to_pfn(page);
	put_page(page);
	return known ? 0 : -ENOMEM;
}

/**
 * vfio_dma_pin_drop() - undo vfio_dma_pin_hold()
 * @owner: the owner
 * @pfn: what that has set, or VFIO_DMA_NOT_HELD
 *
 * Context: Process context, may sleep.  Takes and releases mmap_lock and the ledger's
 * lock.
 */
void vfio_dma_pin_drop(struct vfio_dma_owner *owner, unsigned long pfn)
{
	if (pfn != VFIO_DMA_NOT_HELD)
		vfio_dma_give_back(owner, 0, __vfio_dma_unhold(owner->ledger, pfn, 1));
}
