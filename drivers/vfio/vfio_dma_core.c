// SPDX-License-Identifier: GPL-2.0-only
/*
 * The map/unmap core of VFIO container backends
 *
 * A backend decides what may be mapped where and keeps the record of it.  The
 * core does what every mapping needs: charge the owner, pin user memory, enter
 * it into the IOMMU domains, and take all that back in the right order.
 *
 * Mapping.  vfio_dma_charge() first, for the whole request, so that the limit
 * is exact and nothing is pinned in excess of it.  Then steps of
 * vfio_dma_pin_step(), without the backend's mutex, each followed by
 * vfio_dma_map() of the physically contiguous extents it found, with the mutex
 * held.  An extent is mapped by one iommu_map() call: that is what makes
 * superpages.
 *
 * Unmapping.  vfio_dma_unmap() asks the first domain for the physical addresses
 * - they are recorded nowhere else - and unmaps extent by extent in every
 * domain; vfio_dma_unmap_flush() synchronises the IOTLBs and only then unpins:
 * a page is never released while a device can still reach it.
 *
 * Superpages.  iommu_unmap() must not be given a range that begins or ends
 * inside of what the IOMMU took as one page: depending on the driver that
 * unmaps too much, nothing, or makes it walk user memory as a page table.  A
 * backend that wants to unmap at any page calls vfio_dma_domain_split() for
 * every block that may be such a page, before.  A block is taken out as a whole,
 * the IOTLB is synchronised (break before make), and its two sides are mapped
 * back from the same pages, which stay pinned all the time.
 *
 * Unwinding.  An IOMMU driver that unmaps less than it was told to may still
 * reach the pages.  Every path compares the size: such pages stay pinned for
 * ever, and charged, also where a mapping that has failed is undone.
 *
 * Some IOMMUs (virtio-iommu) have no page sizes but remember each iommu_map()
 * call and unmap whole calls only.  vfio_dma_domain_probe() finds that out;
 * such a domain gets one call per block of a page size, and then its blocks are
 * like superpages of the others.
 *
 * Every function that takes a struct vfio_dma_space, or a domain of one, is
 * called with the backend's mutex held.  Lock order: the backend's mutex, then
 * mmap_lock.  Functions that pin or charge may be called without the mutex.
 */

#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/export.h>
#include <linux/highmem.h>
#include <linux/iommu.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "vfio_dma_core.h"

#define VFIO_DMA_BATCH_DIRTY	BIT(BITS_PER_LONG - 1)

/* Single pages that are unpinned with one call */
#define VFIO_DMA_UNPIN_PAGES	32

/* No page frame: nothing is mapped.  Page frame 0 is one like any other. */
#define VFIO_DMA_NO_PFN		ULONG_MAX

/**
 * struct vfio_dma_lost - a block that is mapped no longer, against our will
 * @next: in &vfio_dma_domain.lost
 * @iova: its first address
 * @extent: what it translated to
 * @reachable: the IOMMU may still translate a part of it
 */
struct vfio_dma_lost {
	struct list_head next;
	dma_addr_t iova;
	struct vfio_dma_extent extent;
	bool reachable;
};

/*
 * Owner and locked memory
 */

/**
 * vfio_dma_owner_set() - make the calling process the owner
 * @owner: owner of the backend's mappings, unowned so far
 *
 * Context: Process context with an address space.  Caller holds the backend's
 * mutex.
 */
void vfio_dma_owner_set(struct vfio_dma_owner *owner)
{
	owner->mm = current->mm;
	mmgrab(owner->mm);
	owner->task = get_task_struct(current->group_leader);
	owner->lock_cap = capable(CAP_IPC_LOCK);
	owner->npages = 0;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_owner_set, "VFIO_DMA");

/**
 * vfio_dma_owner_clear() - nobody owns the mappings any more
 * @owner: owner, may be unowned
 *
 * What is still charged is uncharged.
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex and
 * has no mapping and no pinning in progress.
 */
void vfio_dma_owner_clear(struct vfio_dma_owner *owner)
{
	if (!owner->mm)
		return;

	vfio_dma_uncharge(owner, owner->npages);
	put_task_struct(owner->task);
	mmdrop(owner->mm);
	owner->task = NULL;
	owner->mm = NULL;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_owner_clear, "VFIO_DMA");

/**
 * vfio_dma_owner_move() - let the calling process take the mappings over
 * @owner: owner of the mappings
 *
 * All that is charged moves: first it is charged to the new owner, so that a
 * failure changes nothing, then taken from the old one if that still lives.
 *
 * Context: Process context with an address space, may sleep.  Caller holds the
 * backend's mutex and has no pinning in progress.
 * Return: 0; -ENOMEM if the new owner's RLIMIT_MEMLOCK does not allow it;
 * -EINTR on a fatal signal.
 */
int vfio_dma_owner_move(struct vfio_dma_owner *owner)
{
	struct vfio_dma_owner new;
	int ret;

	vfio_dma_owner_set(&new);
	ret = vfio_dma_charge(&new, owner->npages);
	if (ret) {
		vfio_dma_owner_clear(&new);
		return ret;
	}

	vfio_dma_owner_clear(owner);
	*owner = new;
	return 0;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_owner_move, "VFIO_DMA");

/*
 * One at a time: with mmap_lock, or of an address space that is gone with the
 * backend's mutex.  Whoever only wants to know the number reads it without.
 */
static void vfio_dma_count_charge(struct vfio_dma_owner *owner,
				  unsigned long npages)
{
	WRITE_ONCE(owner->npages, owner->npages + npages);
}

/*
 * May the owner exceed its limit?  The caller's own credentials tell, as for
 * mlock(); a driver's thread, and a process that attaches a group, act with those
 * that the owner has now.
 */
static noinline bool vfio_dma_may_exceed(const struct vfio_dma_owner *owner)
{
	const struct cred *cred, *old;
	bool ret;

	if (owner->mm == current->mm && !(current->flags & PF_KTHREAD))
		return capable(CAP_IPC_LOCK);

	/* The task may have got another address space, and other rights with it. */
	if (READ_ONCE(owner->task->mm) != owner->mm)
		return false;
	cred = get_task_cred(owner->task);
	old = override_creds(cred);
	ret = capable(CAP_IPC_LOCK);
	revert_creds(old);
	put_cred(cred);
	return ret;
}

/**
 * vfio_dma_charge() - charge locked memory to the owner
 * @owner: owner of the mappings
 * @npages: number of pages
 *
 * CAP_IPC_LOCK is looked for only where the limit is in the way, and each time: a
 * process that drops it has a limit from then on.
 *
 * Context: Process context, may sleep.  Takes and releases mmap_lock.  The
 * caller is the owner, or keeps the owner's mm_users from dropping to zero.
 * Return: 0; -ENOMEM if RLIMIT_MEMLOCK would be exceeded; -EINTR on a fatal
 * signal.
 */
int vfio_dma_charge(struct vfio_dma_owner *owner, unsigned long npages)
{
	struct mm_struct *mm = owner->mm;
	int ret;

	if (!npages)
		return 0;

	ret = mmap_write_lock_killable(mm);
	if (ret)
		return ret;

	ret = __account_locked_vm(mm, npages, true, owner->task, false);
	if (unlikely(ret)) {
		WRITE_ONCE(owner->lock_cap, vfio_dma_may_exceed(owner));
		if (owner->lock_cap)
			ret = __account_locked_vm(mm, npages, true, owner->task,
						  true);
	}
	if (!ret)
		vfio_dma_count_charge(owner, npages);
	mmap_write_unlock(mm);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_charge, "VFIO_DMA");

/**
 * vfio_dma_uncharge() - take back a charge of locked memory
 * @owner: owner of the mappings, may be another process or gone
 * @npages: number of pages, not more than are charged
 *
 * Context: Process context, may sleep.  Takes and releases mmap_lock.
 */
void vfio_dma_uncharge(struct vfio_dma_owner *owner, unsigned long npages)
{
	struct mm_struct *mm = owner->mm;
	bool foreign = mm != current->mm;

	if (!npages)
		return;

	/* An address space that is being torn down needs no accounting. */
	if (foreign && !mmget_not_zero(mm)) {
		vfio_dma_count_charge(owner, -npages);
		return;
	}

	mmap_write_lock(mm);
	__account_locked_vm(mm, npages, false, owner->task, true);
	vfio_dma_count_charge(owner, -npages);
	mmap_write_unlock(mm);
	/* If it is the last one, what that waits for is no business of ours. */
	if (foreign)
		mmput_async(mm);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_uncharge, "VFIO_DMA");

/**
 * vfio_dma_charge_lost() - charge pages that nobody can unpin any more
 * @owner: owner of the mappings, may be another process or gone
 * @npages: number of pages
 * @charged: how many of them are charged already
 *
 * They stay charged for as long as the address space exists, whatever its limit,
 * and @owner forgets them.
 *
 * Context: Process context, may sleep.  Takes and releases mmap_lock.
 */
void vfio_dma_charge_lost(struct vfio_dma_owner *owner, unsigned long npages,
			  unsigned long charged)
{
	struct mm_struct *mm = owner->mm;

	if (!mmget_not_zero(mm)) {
		vfio_dma_count_charge(owner, -charged);
		return;
	}
	mmap_write_lock(mm);
	__account_locked_vm(mm, npages - charged, true, owner->task, true);
	vfio_dma_count_charge(owner, -charged);
	mmap_write_unlock(mm);
	mmput_async(mm);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_charge_lost, "VFIO_DMA");

/*
 * Pages that an IOMMU may still reach are never unpinned.  @charged of them are
 * charged already; a request that fails gives its own charge back.
 */
static void vfio_dma_leak(struct vfio_dma_owner *owner, unsigned long npages,
			  unsigned long charged)
{
	pr_err_ratelimited("vfio_dma: %lu pages stay pinned: an IOMMU may still reach them\n",
			   npages);
	if (owner->mm)
		vfio_dma_charge_lost(owner, npages, charged);
}

/*
 * Pinning
 */

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
EXPORT_SYMBOL_NS_GPL(vfio_dma_pin_start, "VFIO_DMA");

/* Bytes that one entry of the CPU's page table maps; compat/ may know less */
#ifndef vfio_dma_pfnmap_bytes
#define vfio_dma_pfnmap_bytes(args)	(~(args)->addr_mask + 1)
#endif

static bool vfio_dma_is_mmio(pgprot_t prot)
{
	return pgprot_val(prot) == pgprot_val(pgprot_noncached(prot)) ||
	       pgprot_val(prot) == pgprot_val(pgprot_writecombine(prot)) ||
	       pgprot_val(prot) == pgprot_val(pgprot_device(prot));
}

static int vfio_dma_follow_pfnmap(struct vfio_dma_pin *pin, struct mm_struct *mm,
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
		extent->mmio = vfio_dma_is_mmio(args.pgprot);
	}

	follow_pfnmap_end(&args);
	return ret;
}

static bool vfio_dma_extent_append(struct vfio_dma_extent *extent,
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
static int vfio_dma_pin_pfnmap(struct vfio_dma_pin *pin, struct mm_struct *mm,
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
			ret = vfio_dma_follow_pfnmap(pin, mm, vma, &extent);
		if (ret == -EAGAIN && fatal_signal_pending(current))
			ret = -EINTR;
	} while (ret == -EAGAIN);
	mmap_read_unlock(mm);
	if (ret)
		return ret;

	if (vfio_dma_extent_append(&pin->tail, &extent)) {
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

	if (!n)
		return 0;

	if (mm == current->mm) {
		ret = pin_user_pages_fast(pin->vaddr, n, pin->gup_flags,
					  pin->pages);
	} else {
		/* Who may not unlock it gets no memory that is slow to come. */
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
		return vfio_dma_pin_pfnmap(pin, mm, ret);
	}

	pin->size = ret;
	pin->offset = 0;
	pin->vaddr += ret << PAGE_SHIFT;
	pin->npages -= ret;
	return 0;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_pin_step, "VFIO_DMA");

/* The contiguous ones of @max pages, of which there is at least one */
static void vfio_dma_first_extent(struct page **pages, unsigned int max,
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
		more = vfio_dma_extent_append(&pin->tail, &next);
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
EXPORT_SYMBOL_NS_GPL(vfio_dma_pin_extent, "VFIO_DMA");

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
EXPORT_SYMBOL_NS_GPL(vfio_dma_pin_finish, "VFIO_DMA");

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
EXPORT_SYMBOL_NS_GPL(vfio_dma_pin_now, "VFIO_DMA");

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
EXPORT_SYMBOL_NS_GPL(vfio_dma_pin_present, "VFIO_DMA");

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
EXPORT_SYMBOL_NS_GPL(vfio_dma_count_pinnable, "VFIO_DMA");

/**
 * vfio_dma_unpin() - unpin physically contiguous pages
 * @pfn: first page frame
 * @npages: number of pages
 * @dirty: the device may have written to them
 *
 * Context: Process context, may sleep.
 */
void vfio_dma_unpin(unsigned long pfn, unsigned long npages, bool dirty)
{
	unpin_user_page_range_dirty_lock(pfn_to_page(pfn), npages, dirty);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_unpin, "VFIO_DMA");

/*
 * Domains
 */

/**
 * vfio_dma_domain_pgsizes() - page sizes of a domain
 * @domain: a domain
 *
 * An IOMMU with pages smaller than the CPU's is used with the CPU's.
 *
 * Context: Any.
 * Return: bitmap of page sizes in bytes, none below PAGE_SIZE.
 */
unsigned long vfio_dma_domain_pgsizes(const struct vfio_dma_domain *domain)
{
	unsigned long pgsizes = domain->domain->pgsize_bitmap;

	if (pgsizes & ~PAGE_MASK)
		pgsizes = (pgsizes & PAGE_MASK) | PAGE_SIZE;
	return pgsizes;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_pgsizes, "VFIO_DMA");

/* The second page size: the smallest that is a superpage, 0 if there is none */
static unsigned long vfio_dma_superpage(const struct vfio_dma_domain *domain)
{
	unsigned long pgsizes = vfio_dma_domain_pgsizes(domain);

	pgsizes &= pgsizes - 1;
	return pgsizes & -pgsizes;
}

static void vfio_dma_update_pgsizes(struct vfio_dma_space *space)
{
	struct vfio_dma_domain *domain;

	space->pgsize_bitmap = PAGE_MASK;
	space->superpage = 0;
	list_for_each_entry(domain, &space->domains, next) {
		space->pgsize_bitmap &= vfio_dma_domain_pgsizes(domain);
		space->superpage = min_not_zero(space->superpage,
						vfio_dma_superpage(domain));
	}
}

/**
 * vfio_dma_space_init() - initialise a space without domains
 * @space: the space
 * @lock: the backend's mutex
 * @owner: whose memory is mapped
 *
 * Context: Process context, may sleep.
 * Return: 0 or -ENOMEM.
 */
int vfio_dma_space_init(struct vfio_dma_space *space, struct mutex *lock,
			struct vfio_dma_owner *owner)
{
	space->lock = lock;
	space->owner = owner;
	INIT_LIST_HEAD(&space->domains);
	vfio_dma_update_pgsizes(space);
	space->leaked = false;
	space->nr_batch = 0;
	space->batch = kcalloc(VFIO_DMA_BATCH_EXTENTS, sizeof(*space->batch),
			       VFIO_DMA_GFP);
	return space->batch ? 0 : -ENOMEM;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_space_init, "VFIO_DMA");

/**
 * vfio_dma_space_destroy() - free what a space without domains holds
 * @space: the space
 *
 * Context: Any.
 */
void vfio_dma_space_destroy(struct vfio_dma_space *space)
{
	WARN_ON(!list_empty(&space->domains) || space->nr_batch);
	kfree(space->batch);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_space_destroy, "VFIO_DMA");

/**
 * vfio_dma_domain_init() - initialise what the core knows of a domain
 * @domain: to be initialised
 * @iommu_domain: the IOMMU domain
 *
 * Context: Any.
 */
void vfio_dma_domain_init(struct vfio_dma_domain *domain,
			  struct iommu_domain *iommu_domain)
{
	domain->domain = iommu_domain;
	/* The cautious answer is right everywhere, if not the fastest. */
	domain->unit_is_call = true;
	domain->unsynced = false;
	domain->tracking = false;
	iommu_iotlb_gather_init(&domain->gather);
	INIT_LIST_HEAD(&domain->lost);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_init, "VFIO_DMA");

/*
 * Take back what was mapped, with the IOTLB synchronised.  Returns false if the
 * IOMMU may still reach it.
 */
static bool vfio_dma_domain_undo(struct vfio_dma_domain *domain, dma_addr_t iova,
				 size_t size)
{
	size_t unmapped = iommu_unmap(domain->domain, iova, size);

	return !WARN_ONCE(unmapped != size,
			  "vfio_dma: undo unmapped %zu bytes instead of %zu\n",
			  unmapped, size);
}

/*
 * iommu_map() takes back what it had mapped when it fails, and does not tell if the
 * driver fails at that, too: an IOMMU that allocates memory for either can fail at
 * both for the same reason.
 */
static noinline bool vfio_dma_domain_is_clear(struct vfio_dma_domain *domain,
					      dma_addr_t iova, phys_addr_t phys,
					      size_t size)
{
	unsigned long pgsizes = domain->domain->pgsize_bitmap;
	size_t done, step = min(PAGE_SIZE, pgsizes & -pgsizes);

	/* Other translations are not what this call has left. */
	for (done = step - 1; done < size; done += step) {
		if (WARN_ONCE(iommu_iova_to_phys(domain->domain, iova + done) ==
			      phys + done,
			      "vfio_dma: a map that failed is there\n"))
			return false;
		if (!((done + 1) % SZ_16M))
			cond_resched();
	}
	return true;
}

/**
 * vfio_dma_domain_probe() - find out how a domain unmaps
 * @domain: a domain in which nothing is mapped
 * @iova: an address for the trial; four of the domain's smallest pages from
 *	there on must be valid addresses
 *
 * Maps two pages in one call and unmaps the second.
 *
 * Context: Process context, may sleep.
 */
void vfio_dma_domain_probe(struct vfio_dma_domain *domain, dma_addr_t iova)
{
	size_t size = 1UL << __ffs(vfio_dma_domain_pgsizes(domain));
	unsigned int order = get_order(4 * size);
	struct page *page;
	size_t unmapped;

	page = alloc_pages(VFIO_DMA_GFP | __GFP_ZERO, order);
	if (!page)
		return;

	/*
	 * From the second page on, lest an IOMMU with pages of twice the size
	 * make one of them.
	 */
	iova = ALIGN(iova, 2 * size) + size;
	if (!iommu_map(domain->domain, iova, page_to_phys(page) + size,
		       2 * size, IOMMU_READ | IOMMU_CACHE, VFIO_DMA_GFP)) {
		unmapped = iommu_unmap(domain->domain, iova + size, size);
		domain->unit_is_call = unmapped != size;
		if (unmapped != size)
			size *= 2;
		if (!vfio_dma_domain_undo(domain, iova, size))
			return;
	} else if (!vfio_dma_domain_is_clear(domain, iova,
					     page_to_phys(page) + size,
					     2 * size)) {
		return;
	}
	__free_pages(page, order);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_probe, "VFIO_DMA");

/**
 * vfio_dma_domain_add() - add a domain to a space
 * @space: the space
 * @domain: a domain that already holds all the translations of the space
 *
 * Context: Caller holds the backend's mutex.
 */
void vfio_dma_domain_add(struct vfio_dma_space *space,
			 struct vfio_dma_domain *domain)
{
	lockdep_assert_held(space->lock);

	list_add_tail(&domain->next, &space->domains);
	vfio_dma_update_pgsizes(space);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_add, "VFIO_DMA");

/**
 * vfio_dma_domain_del() - remove a domain from a space
 * @space: the space
 * @domain: one of its domains; what it maps goes with it
 *
 * Context: Caller holds the backend's mutex.
 */
void vfio_dma_domain_del(struct vfio_dma_space *space,
			 struct vfio_dma_domain *domain)
{
	lockdep_assert_held(space->lock);

	list_del(&domain->next);
	vfio_dma_update_pgsizes(space);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_del, "VFIO_DMA");

/*
 * How much of a range the next iommu_map() call of this domain may take.
 *
 * A domain that unmaps whole calls only gets one block of a page size at a
 * time.  What must not become a superpage is cut one small page after each
 * boundary of the second page size, so that no call covers an aligned block.
 */
static size_t vfio_dma_call_size(const struct vfio_dma_domain *domain,
				 dma_addr_t iova, phys_addr_t phys, size_t size,
				 bool big)
{
	unsigned long pgsizes;
	size_t small, second;

	pgsizes = vfio_dma_domain_pgsizes(domain);
	small = pgsizes & -pgsizes;
	second = vfio_dma_superpage(domain);

	if (domain->unit_is_call) {
		if (!big)
			return small;
		/* Not larger than the size, nor than the alignment */
		pgsizes &= GENMASK(__fls(size), 0);
		if (iova | phys)
			pgsizes &= GENMASK(__ffs(iova | phys), 0);
		return 1UL << __fls(pgsizes);
	}

	if (big || !second)
		return size;
	return min(size, second - ((iova - small) & (second - 1)));
}

/*
 * One call.  virtio-iommu without VIRTIO_IOMMU_F_MMIO refuses IOMMU_MMIO, and maps
 * device memory as all of its memory.
 */
static inline int vfio_dma_domain_call(struct vfio_dma_domain *domain,
				       dma_addr_t iova, phys_addr_t phys,
				       size_t size, int prot, gfp_t gfp)
{
	int ret = iommu_map(domain->domain, iova, phys, size, prot, gfp);

	if (unlikely(ret == -EINVAL && prot & IOMMU_MMIO)) {
		prot = (prot & ~IOMMU_MMIO) | IOMMU_CACHE;
		ret = iommu_map(domain->domain, iova, phys, size, prot, gfp);
	}
	return ret;
}

/* Of a page that consists of several of the IOMMU's, a part can be mapped. */
static bool vfio_dma_domain_is_partial(struct vfio_dma_domain *domain,
				       dma_addr_t iova, phys_addr_t phys)
{
	return domain->domain->pgsize_bitmap & ~PAGE_MASK &&
	       !vfio_dma_domain_is_clear(domain, iova, phys, PAGE_SIZE);
}

/* As __vfio_dma_domain_map(), for more than a page */
static noinline int vfio_dma_domain_map_parts(struct vfio_dma_domain *domain,
					      dma_addr_t iova, phys_addr_t phys,
					      size_t size, int prot, bool big,
					      gfp_t gfp, bool *stuck)
{
	size_t done = 0, call;
	int ret;

	while (done < size) {
		call = vfio_dma_call_size(domain, iova + done, phys + done,
					  size - done, big);
		ret = vfio_dma_domain_call(domain, iova + done, phys + done,
					   call, prot, gfp);
		if (ret)
			goto err_unmap;
		done += call;
		if (done < size)
			cond_resched();
	}
	return 0;

err_unmap:
	if (!vfio_dma_domain_is_clear(domain, iova + done, phys + done, call))
		*stuck = true;
	if (done && !vfio_dma_domain_undo(domain, iova, done))
		*stuck = true;
	return ret;
}

/* If it fails, *@stuck is set if the IOMMU may reach a part of it nevertheless. */
static inline int __vfio_dma_domain_map(struct vfio_dma_domain *domain,
					dma_addr_t iova, phys_addr_t phys,
					size_t size, int prot, bool big,
					gfp_t gfp, bool *stuck)
{
	int ret;

	if (size > PAGE_SIZE)
		return vfio_dma_domain_map_parts(domain, iova, phys, size, prot,
						 big, gfp, stuck);
	/* The rule where pages are mapped one by one */
	ret = vfio_dma_domain_call(domain, iova, phys, size, prot, gfp);
	if (unlikely(ret) && vfio_dma_domain_is_partial(domain, iova, phys))
		*stuck = true;
	return ret;
}

/**
 * vfio_dma_domain_map() - map an extent in one domain
 * @domain: a domain in no space; if this fails, it is to be freed
 * @iova: address to map it at
 * @extent: physical memory, pinned for other domains
 * @prot: IOMMU_READ, IOMMU_WRITE; IOMMU_CACHE, or IOMMU_MMIO for device memory
 * @big: superpages may be used
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex.
 * Return: 0; -ENOMEM or what else iommu_map() returns.
 */
int vfio_dma_domain_map(struct vfio_dma_domain *domain, dma_addr_t iova,
			const struct vfio_dma_extent *extent, int prot,
			bool big)
{
	bool stuck = false;	/* until the domain is freed */

	return __vfio_dma_domain_map(domain, iova, PFN_PHYS(extent->pfn),
				     extent->npages << PAGE_SHIFT, prot, big,
				     VFIO_DMA_GFP, &stuck);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_map, "VFIO_DMA");

/**
 * vfio_dma_domain_unmap() - undo vfio_dma_domain_map()
 * @domain: a domain that is to be freed: what an IOMMU driver fails to unmap
 *	goes with it
 * @iova: address of the range
 * @npages: its length; whole extents as they were mapped
 *
 * The IOTLB is synchronised on return.
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex.
 */
void vfio_dma_domain_unmap(struct vfio_dma_domain *domain, dma_addr_t iova,
			   unsigned long npages)
{
	vfio_dma_domain_undo(domain, iova, npages << PAGE_SHIFT);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_unmap, "VFIO_DMA");

/* As __vfio_dma_domain_map(), in every domain or in none */
static __always_inline int
__vfio_dma_map(struct vfio_dma_space *space, dma_addr_t iova,
	       const struct vfio_dma_extent *extent, int prot, bool big,
	       bool *stuck)
{
	struct vfio_dma_domain *domain;
	int ret;

	lockdep_assert_held(space->lock);

	list_for_each_entry(domain, &space->domains, next) {
		ret = __vfio_dma_domain_map(domain, iova, PFN_PHYS(extent->pfn),
					    extent->npages << PAGE_SHIFT, prot,
					    big, VFIO_DMA_GFP, stuck);
		if (ret)
			goto err_unmap;
	}
	return 0;

err_unmap:
	list_for_each_entry_continue_reverse(domain, &space->domains, next)
		if (!vfio_dma_domain_undo(domain, iova,
					  extent->npages << PAGE_SHIFT))
			*stuck = true;
	return ret;
}

/**
 * vfio_dma_map() - map an extent in every domain of a space
 * @space: the space, which has a domain
 * @iova: address to map it at
 * @extent: physical memory, pinned unless it is pfnmap
 * @prot: IOMMU_READ, IOMMU_WRITE; IOMMU_CACHE, or IOMMU_MMIO for device memory
 * @big: superpages may be used
 *
 * If it fails the extent is unpinned, or stays pinned for ever where an IOMMU
 * driver failed to undo what it had mapped.
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex.
 * Return: 0; -ENOMEM or what else iommu_map() returns.
 */
int vfio_dma_map(struct vfio_dma_space *space, dma_addr_t iova,
		 const struct vfio_dma_extent *extent, int prot, bool big)
{
	bool stuck = false;
	int ret;

	ret = __vfio_dma_map(space, iova, extent, prot, big, &stuck);
	if (likely(!ret) || extent->pfnmap)
		return ret;
	if (stuck)
		vfio_dma_leak(space->owner, extent->npages, 0);
	else
		vfio_dma_unpin(extent->pfn, extent->npages, false);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_map, "VFIO_DMA");

static noinline int
vfio_dma_map_extents(struct vfio_dma_space *space, dma_addr_t iova,
		     struct page **pages, unsigned int npages, int prot,
		     bool big)
{
	struct vfio_dma_domain *domain;
	struct vfio_dma_extent extent;
	bool stuck = false;
	unsigned int done;
	int ret;

	for (done = 0; done < npages; done += extent.npages) {
		vfio_dma_first_extent(pages + done, npages - done, &extent);
		ret = __vfio_dma_map(space, iova + ((size_t)done << PAGE_SHIFT),
				     &extent, prot, big, &stuck);
		if (ret)
			goto err_unmap;
	}
	return 0;

err_unmap:
	list_for_each_entry(domain, &space->domains, next)
		if (done && !vfio_dma_domain_undo(domain, iova,
						  (size_t)done << PAGE_SHIFT))
			stuck = true;
	if (stuck)
		vfio_dma_leak(space->owner, npages, 0);
	else
		unpin_user_pages(pages, npages);
	return ret;
}

/**
 * vfio_dma_map_pages() - map pinned pages in every domain of a space
 * @space: the space, which has a domain
 * @iova: address to map the first at
 * @pages: the pages
 * @npages: how many, not 0
 * @prot: IOMMU_READ, IOMMU_WRITE; IOMMU_CACHE, or IOMMU_MMIO for device memory
 * @big: superpages may be used
 *
 * If it fails the pages are unpinned, or stay pinned for ever where an IOMMU
 * driver failed to undo what it had mapped.
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex.
 * Return: 0; -ENOMEM or what else iommu_map() returns.
 */
int vfio_dma_map_pages(struct vfio_dma_space *space, dma_addr_t iova,
		       struct page **pages, unsigned int npages, int prot,
		       bool big)
{
	struct vfio_dma_domain *domain;
	int ret;

	lockdep_assert_held(space->lock);

	/* Mostly it is one page and one domain, with nothing to be undone. */
	if (npages > 1 || !list_is_singular(&space->domains))
		return vfio_dma_map_extents(space, iova, pages, npages, prot,
					    big);

	domain = list_first_entry(&space->domains, struct vfio_dma_domain, next);
	ret = iommu_map(domain->domain, iova, page_to_phys(*pages), PAGE_SIZE,
			prot, VFIO_DMA_GFP);
	if (unlikely(ret) && vfio_dma_domain_is_partial(domain, iova,
							page_to_phys(*pages)))
		vfio_dma_leak(space->owner, 1, 0);
	else if (unlikely(ret))
		unpin_user_page(*pages);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_map_pages, "VFIO_DMA");

static struct vfio_dma_lost *vfio_dma_find_lost(struct vfio_dma_domain *domain,
						dma_addr_t iova,
						unsigned long npages)
{
	dma_addr_t last = iova + (npages << PAGE_SHIFT) - 1;
	struct vfio_dma_lost *lost, *first = NULL;

	list_for_each_entry(lost, &domain->lost, next) {
		dma_addr_t lost_last = lost->iova +
				(lost->extent.npages << PAGE_SHIFT) - 1;

		if (lost->iova <= last && lost_last >= iova &&
		    (!first || lost->iova < first->iova))
			first = lost;
	}
	return first;
}

/*
 * The page frame at a page aligned address, or VFIO_DMA_NO_PFN.  The last byte of
 * the page is looked up: its address is not 0 where the page's is.
 */
static unsigned long vfio_dma_pfn(struct vfio_dma_domain *domain,
				  dma_addr_t iova)
{
	phys_addr_t phys = iommu_iova_to_phys(domain->domain, iova | ~PAGE_MASK);
	struct vfio_dma_lost *lost;

	if (likely(phys))
		return PHYS_PFN(phys);

	lost = vfio_dma_find_lost(domain, iova, 1);
	if (!lost)
		return VFIO_DMA_NO_PFN;
	return lost->extent.pfn + ((iova - lost->iova) >> PAGE_SHIFT);
}

/*
 * How many of the @npages pages from @iova on continue @pfn, the first.  Sets
 * *@next to the page frame of the one that does not, if it has been looked up.
 */
static noinline unsigned long
vfio_dma_count_contig(struct vfio_dma_domain *domain, dma_addr_t iova,
		      unsigned long npages, unsigned long step,
		      unsigned long pfn, unsigned long *next)
{
	unsigned long n = step - ((iova >> PAGE_SHIFT) & (step - 1)), found;

	while (n < npages && (pfn + n) % VFIO_DMA_EXTENT_MAX) {
		found = vfio_dma_pfn(domain, iova + (n << PAGE_SHIFT));
		if (found != pfn + n) {
			*next = found;
			break;
		}
		n += step;
		if (!(n % 4096))
			cond_resched();
	}
	return min(n, npages);
}

/*
 * The contiguous ones of @npages pages that are mapped from @iova on, or 0.
 * *@next is the page frame at @iova, VFIO_DMA_NO_PFN if it is to be looked up, and
 * then the same for the page after them.
 */
static inline unsigned long
__vfio_dma_domain_lookup(struct vfio_dma_domain *domain, dma_addr_t iova,
			 unsigned long npages, bool contig, unsigned long *pfn,
			 unsigned long *next)
{
	*pfn = *next;
	if (*pfn == VFIO_DMA_NO_PFN)
		*pfn = vfio_dma_pfn(domain, iova);
	*next = VFIO_DMA_NO_PFN;
	if (*pfn == VFIO_DMA_NO_PFN)
		return 0;
	if (npages == 1)
		return 1;
	return vfio_dma_count_contig(domain, iova, npages,
				     contig ? VFIO_DMA_CONTIG : 1, *pfn, next);
}

/**
 * vfio_dma_domain_lookup() - what an address translates to
 * @domain: the domain
 * @iova: page aligned address
 * @npages: pages to look at
 * @contig: every aligned block of VFIO_DMA_CONTIG pages is, as far as it is in
 *	the range, known to be contiguous, so that one page of each tells
 * @extent: the physically contiguous memory from @iova on, at most @npages;
 *	pfnmap and mmio are not set
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex.
 * Return: false if nothing is mapped at @iova.
 */
bool vfio_dma_domain_lookup(struct vfio_dma_domain *domain, dma_addr_t iova,
			    unsigned long npages, bool contig,
			    struct vfio_dma_extent *extent)
{
	unsigned long next = VFIO_DMA_NO_PFN;

	extent->npages = __vfio_dma_domain_lookup(domain, iova, npages, contig,
						  &extent->pfn, &next);
	extent->pfnmap = false;
	extent->mmio = false;
	return extent->npages;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_lookup, "VFIO_DMA");

static inline bool __vfio_dma_domain_unmap_fast(struct vfio_dma_domain *domain,
						dma_addr_t iova, size_t size)
{
	size_t unmapped;

	domain->unsynced = true;
	unmapped = iommu_unmap_fast(domain->domain, iova, size, &domain->gather);
	/* Whatever it did, its pages are not safe to release. */
	return !WARN_ONCE(unmapped != size,
			  "vfio_dma: unmapped %zu bytes instead of %zu\n",
			  unmapped, size);
}

/* What is lost already cannot be unmapped, and perhaps not be unpinned either. */
static noinline bool vfio_dma_domain_unmap_rest(struct vfio_dma_domain *domain,
						dma_addr_t iova,
						unsigned long npages)
{
	struct vfio_dma_lost *lost;
	unsigned long n, skip;
	bool safe = true;

	for (; npages; npages -= n, iova += n << PAGE_SHIFT) {
		n = npages;
		skip = 0;
		lost = vfio_dma_find_lost(domain, iova, npages);
		if (lost && lost->iova > iova) {
			n = (lost->iova - iova) >> PAGE_SHIFT;
		} else if (lost) {
			skip = lost->extent.npages -
			       ((iova - lost->iova) >> PAGE_SHIFT);
			n = min(skip, npages);
		}
		if (skip)
			safe &= !lost->reachable;
		else
			safe &= __vfio_dma_domain_unmap_fast(domain, iova,
							     n << PAGE_SHIFT);
	}
	return safe;
}

/* Unmap without synchronising. */
static inline bool vfio_dma_domain_unmap_fast(struct vfio_dma_domain *domain,
					      dma_addr_t iova,
					      unsigned long npages)
{
	if (unlikely(!list_empty(&domain->lost)))
		return vfio_dma_domain_unmap_rest(domain, iova, npages);
	return __vfio_dma_domain_unmap_fast(domain, iova, npages << PAGE_SHIFT);
}

/*
 * Note what is mapped from @iova on to be unpinned, as much as there is room
 * for, and return for how many pages that was.
 */
static unsigned long vfio_dma_batch_fill(struct vfio_dma_space *space,
					 dma_addr_t iova, unsigned long npages,
					 unsigned int flags)
{
	unsigned long dirty = flags & VFIO_DMA_DIRTY ? VFIO_DMA_BATCH_DIRTY : 0;
	struct vfio_dma_domain *first;
	unsigned long n = 0, next = VFIO_DMA_NO_PFN, more;

	first = list_first_entry(&space->domains, struct vfio_dma_domain, next);
	while (n < npages && space->nr_batch < VFIO_DMA_BATCH_EXTENTS) {
		more = __vfio_dma_domain_lookup(first, iova + (n << PAGE_SHIFT),
						npages - n,
						flags & VFIO_DMA_IS_CONTIG,
						&space->batch[space->nr_batch].pfn,
						&next);
		if (!more)
			break;
		space->batch[space->nr_batch++].npages = more | dirty;
		n += more;
	}
	return n;
}

static inline bool vfio_dma_unmap_fast(struct vfio_dma_space *space,
				       dma_addr_t iova, unsigned long npages)
{
	struct vfio_dma_domain *domain;
	bool safe = true;

	list_for_each_entry(domain, &space->domains, next)
		safe &= vfio_dma_domain_unmap_fast(domain, iova, npages);
	return safe;
}

/* vfio_dma_unmap() for one page, which needs no loop */
static noinline unsigned long
vfio_dma_unmap_page(struct vfio_dma_space *space, dma_addr_t iova,
		    unsigned int flags)
{
	unsigned long pfn = VFIO_DMA_NO_PFN;

	if (flags & VFIO_DMA_PINNED) {
		pfn = vfio_dma_pfn(list_first_entry(&space->domains,
						    struct vfio_dma_domain,
						    next), iova);
		if (WARN_ON_ONCE(pfn == VFIO_DMA_NO_PFN))
			return 0;
	}
	if (unlikely(!vfio_dma_unmap_fast(space, iova, 1))) {
		space->leaked = true;
		if (pfn != VFIO_DMA_NO_PFN)
			vfio_dma_leak(space->owner, 1, 1);
		return 0;
	}
	if (pfn == VFIO_DMA_NO_PFN)
		return 0;

	space->batch[space->nr_batch].pfn = pfn;
	space->batch[space->nr_batch].npages = 1 |
		(flags & VFIO_DMA_DIRTY ? VFIO_DMA_BATCH_DIRTY : 0);
	if (++space->nr_batch == VFIO_DMA_BATCH_EXTENTS)
		vfio_dma_unmap_flush(space);
	return 1;
}

static noinline unsigned long
vfio_dma_unmap_extents(struct vfio_dma_space *space, dma_addr_t iova,
		       unsigned long npages, unsigned int flags)
{
	unsigned long unpinned = 0, n;
	unsigned int nr_batch;
	bool safe;

	for (; npages; npages -= n, iova += n << PAGE_SHIFT) {
		nr_batch = space->nr_batch;
		n = npages;
		if (flags & VFIO_DMA_PINNED)
			n = vfio_dma_batch_fill(space, iova, npages, flags);
		if (WARN_ON_ONCE(!n)) {
			n = 1;
			cond_resched();
			continue;
		}

		safe = vfio_dma_unmap_fast(space, iova, n);
		if (unlikely(!safe)) {
			space->nr_batch = nr_batch;
			space->leaked = true;
		}
		if (flags & VFIO_DMA_PINNED && safe)
			unpinned += n;
		else if (flags & VFIO_DMA_PINNED)
			vfio_dma_leak(space->owner, n, n);
		if (space->nr_batch == VFIO_DMA_BATCH_EXTENTS)
			vfio_dma_unmap_flush(space);
	}
	return unpinned;
}

/**
 * vfio_dma_unmap() - unmap a range in every domain and have it unpinned
 * @space: the space, which has a domain
 * @iova: page aligned address
 * @npages: its length in pages; neither end inside of a superpage
 * @flags: what the pages are: VFIO_DMA_PINNED, to be unpinned; VFIO_DMA_DIRTY, to
 *	be marked dirty; VFIO_DMA_IS_CONTIG, see vfio_dma_domain_lookup()
 *
 * Many extents go in one call of the IOMMU driver, which is given neither holes
 * nor parts of leaves.  The pages are unpinned when the batch is full or by
 * vfio_dma_unmap_flush(), which must be called before the mutex is dropped.  Pages
 * that an IOMMU driver fails to unmap stay pinned, and are the owner's no more: the
 * caller does not uncharge them, and @space->leaked is set.
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex.
 * Return: number of pages that are, or will be, unpinned.
 */
unsigned long vfio_dma_unmap(struct vfio_dma_space *space, dma_addr_t iova,
			     unsigned long npages, unsigned int flags)
{
	lockdep_assert_held(space->lock);

	if (npages == 1)
		return vfio_dma_unmap_page(space, iova, flags);
	return vfio_dma_unmap_extents(space, iova, npages, flags);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_unmap, "VFIO_DMA");

/* Unpin many extents; those of one page with few calls */
static noinline void vfio_dma_unpin_batch(struct vfio_dma_space *space)
{
	struct page *pages[VFIO_DMA_UNPIN_PAGES] __uninitialized;
	unsigned int i, n = 0;
	unsigned long npages;
	bool dirty = false;

	for (i = 0; i < space->nr_batch; i++) {
		npages = space->batch[i].npages;
		if (n && (n == ARRAY_SIZE(pages) ||
			  dirty != !!(npages & VFIO_DMA_BATCH_DIRTY))) {
			unpin_user_pages_dirty_lock(pages, n, dirty);
			n = 0;
		}
		dirty = npages & VFIO_DMA_BATCH_DIRTY;
		npages &= ~VFIO_DMA_BATCH_DIRTY;
		if (npages == 1)
			pages[n++] = pfn_to_page(space->batch[i].pfn);
		else
			vfio_dma_unpin(space->batch[i].pfn, npages, dirty);
	}
	if (n)
		unpin_user_pages_dirty_lock(pages, n, dirty);
}

/**
 * vfio_dma_unmap_flush() - synchronise the IOTLBs and unpin what was unmapped
 * @space: the space
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex.
 */
void vfio_dma_unmap_flush(struct vfio_dma_space *space)
{
	struct vfio_dma_domain *domain;
	unsigned long npages;

	lockdep_assert_held(space->lock);

	list_for_each_entry(domain, &space->domains, next) {
		/* Drivers need not fill the gather, so it cannot tell. */
		if (!domain->unsynced)
			continue;
		iommu_iotlb_sync(domain->domain, &domain->gather);
		domain->unsynced = false;
	}

	if (space->nr_batch == 1) {
		npages = space->batch[0].npages;
		vfio_dma_unpin(space->batch[0].pfn,
			       npages & ~VFIO_DMA_BATCH_DIRTY,
			       npages & VFIO_DMA_BATCH_DIRTY);
	} else if (space->nr_batch) {
		vfio_dma_unpin_batch(space);
	}
	space->nr_batch = 0;
	cond_resched();
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_unmap_flush, "VFIO_DMA");

/**
 * vfio_dma_domain_linear() - could a block be one superpage?
 * @domain: the domain
 * @iova: first address of an aligned block of one of the domain's page sizes
 * @npages: size of the block in pages
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex.
 * Return: true if all of it is mapped, to memory that is as aligned and
 * contiguous.
 */
bool vfio_dma_domain_linear(struct vfio_dma_domain *domain, dma_addr_t iova,
			    unsigned long npages)
{
	unsigned long pfn = vfio_dma_pfn(domain, iova), i;

	/* VFIO_DMA_NO_PFN is not aligned either. */
	if (pfn & (npages - 1))
		return false;

	/* The last page first: it most often differs if any does. */
	for (i = npages - 1; i; i--) {
		if (vfio_dma_pfn(domain, iova + (i << PAGE_SHIFT)) != pfn + i)
			return false;
		if (!(i % 4096))
			cond_resched();
	}
	return true;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_linear, "VFIO_DMA");

/**
 * vfio_dma_domain_split() - make sure that no superpage lies across an address
 * @domain: the domain
 * @iova: first address of a block for which vfio_dma_domain_linear() is true, and
 *	that is mapped with the same access rights everywhere
 * @npages: size of the block in pages
 * @first: first address of a range that is to be unmapped
 * @end: the address behind it; @first or @end is inside of the block
 * @prot: what the block is mapped with, as for vfio_dma_domain_map()
 *
 * The block must not be part of a larger one that could be a superpage.  It is
 * unmapped whole and mapped back in parts; what lies in the range, too, because
 * it is simpler to unmap it with the rest of the range.  Both ends of the range
 * have to be known here, because a second call for the same block would make a
 * superpage of what the first has divided.  Device access to the block may fault
 * meanwhile.
 *
 * Source: iommu_unmap() cannot divide what iommu_map() made; break before make
 * is the Arm Architecture Reference Manual's name (D8.16) for the order.
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex and
 * has called vfio_dma_unmap_flush() since the last vfio_dma_unmap().
 * Return: 0; -EIO if the IOMMU driver failed: the caller must unmap the whole
 * block with vfio_dma_unmap() and then call vfio_dma_forget_lost().
 */
int vfio_dma_domain_split(struct vfio_dma_domain *domain, dma_addr_t iova,
			  unsigned long npages, dma_addr_t first,
			  dma_addr_t end, int prot)
{
	size_t size = npages << PAGE_SHIFT, unmapped, part;
	size_t cuts[3] = { size, size, size }, done = 0;
	phys_addr_t phys = PFN_PHYS(vfio_dma_pfn(domain, iova));
	struct vfio_dma_lost *lost;
	bool stuck = false;
	int i, ret;

	/* Offsets in ascending order; an end outside of the block cuts nothing. */
	if (first - iova < size)
		cuts[0] = first - iova;
	if (end - iova < size)
		cuts[1] = end - iova;
	if (cuts[0] == size)
		cuts[0] = 0;

	lost = vfio_dma_kmalloc_nofail(sizeof(*lost));

	unmapped = iommu_unmap(domain->domain, iova, size);
	if (WARN_ONCE(unmapped != size,
		      "vfio_dma: unmapped %zu bytes of a block of %zu\n",
		      unmapped, size)) {
		stuck = true;
		goto err_lost;
	}

	for (i = 0; i < ARRAY_SIZE(cuts); i++) {
		if (cuts[i] <= done)
			continue;
		part = cuts[i] - done;
		ret = __vfio_dma_domain_map(domain, iova + done, phys + done,
					    part, prot, true,
					    VFIO_DMA_GFP_OVER_LIMIT, &stuck);
		if (ret == -ENOMEM && !stuck)
			ret = __vfio_dma_domain_map(domain, iova + done,
						    phys + done, part, prot,
						    true, VFIO_DMA_GFP_LAST,
						    &stuck);
		if (ret)
			goto err_lost;
		done += part;
	}

	kfree(lost);
	return 0;

err_lost:
	if (done && !vfio_dma_domain_undo(domain, iova, done))
		stuck = true;
	lost->reachable = stuck;
	lost->iova = iova;
	lost->extent.pfn = PHYS_PFN(phys);
	lost->extent.npages = npages;
	lost->extent.pfnmap = false;
	list_add(&lost->next, &domain->lost);
	return -EIO;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_split, "VFIO_DMA");

/**
 * vfio_dma_forget_lost() - all that splits lost has been unmapped
 * @space: the space
 *
 * Context: Any.  Caller holds the backend's mutex.
 */
void vfio_dma_forget_lost(struct vfio_dma_space *space)
{
	struct vfio_dma_domain *domain;
	struct vfio_dma_lost *lost, *tmp;

	lockdep_assert_held(space->lock);

	list_for_each_entry(domain, &space->domains, next) {
		list_for_each_entry_safe(lost, tmp, &domain->lost, next) {
			list_del(&lost->next);
			kfree(lost);
		}
	}
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_forget_lost, "VFIO_DMA");

/*
 * Dirty bits of the IO page tables
 *
 * An IOMMU can set a bit in the entry of a page that a device writes to.  A
 * superpage has one bit, which goes with it when it is unmapped or cleared.
 */

/**
 * vfio_dma_domain_can_track() - can the IOMMU tell which pages are written to?
 * @domain: the domain
 *
 * Context: Any.
 * Return: true if it has dirty bits and the kernel has what it takes to read
 * them.
 */
bool vfio_dma_domain_can_track(const struct vfio_dma_domain *domain)
{
	return IS_ENABLED(CONFIG_IOMMUFD_DRIVER) && domain->domain->dirty_ops;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_can_track, "VFIO_DMA");

/**
 * vfio_dma_domain_track() - begin or end to record which pages are written to
 * @domain: the domain
 * @enable: begin; where the domain cannot, or its IOMMU fails, tracking remains
 *	false
 *
 * Bits that have been set before are not cleared.
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex.
 */
void vfio_dma_domain_track(struct vfio_dma_domain *domain, bool enable)
{
	struct iommu_domain *iommu_domain = domain->domain;
	int ret;

	if (!vfio_dma_domain_can_track(domain))
		return;
	ret = iommu_domain->dirty_ops->set_dirty_tracking(iommu_domain, enable);
	/* Bits that it continues to set without need do no harm. */
	domain->tracking = enable && !ret;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_track, "VFIO_DMA");

/**
 * vfio_dma_domain_read_dirty() - read which pages have been written to
 * @domain: a domain that can track
 * @iova: first address of a range without holes
 * @npages: its length in pages
 * @clear: from now on they count as clean
 * @bitmap: where to set bits, or %NULL if only to clear.  A superpage that is in
 *	the range with only a part sets, and clears, all of its bits: the bitmap
 *	must have them.
 *
 * What has been cleared can be recorded again only after
 * vfio_dma_unmap_flush(), which must be called before the mutex is dropped.
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex.
 * Return: 0, or what the IOMMU driver returns: the bits are incomplete.
 */
int vfio_dma_domain_read_dirty(struct vfio_dma_domain *domain, dma_addr_t iova,
			       unsigned long npages, bool clear,
			       struct iova_bitmap *bitmap)
{
	struct iommu_domain *iommu_domain = domain->domain;
	struct iommu_dirty_bitmap dirty = {
		.bitmap = bitmap,
		.gather = &domain->gather,
	};

	if (clear)
		domain->unsynced = true;
	return iommu_domain->dirty_ops->read_and_clear_dirty(iommu_domain, iova,
			npages << PAGE_SHIFT, clear ? 0 : IOMMU_DIRTY_NO_CLEAR,
			&dirty);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_read_dirty, "VFIO_DMA");

/**
 * vfio_dma_domain_take_dirty() - read, without a bitmap, if there is a dirty page
 * @domain: a domain that can track
 * @iova: first address of a range without holes; neither end inside of a
 *	superpage
 * @npages: its length in pages
 * @first: first address of the first dirty page, which may be a superpage
 * @last: last address of the last dirty page
 *
 * All of the range counts as clean from now on.
 *
 * Source: iommu_dirty_bitmap_record() and its counterparts in the drivers add
 * what they clear to the gather, because the IOTLB must learn of it.
 *
 * Context: Process context, may sleep.  Caller holds the backend's mutex.
 * Return: true if something has been, or may have been, written to.
 */
bool vfio_dma_domain_take_dirty(struct vfio_dma_domain *domain, dma_addr_t iova,
				unsigned long npages, dma_addr_t *first,
				dma_addr_t *last)
{
	struct iommu_domain *iommu_domain = domain->domain;
	struct iommu_iotlb_gather gather;
	struct iommu_dirty_bitmap dirty;
	size_t size = npages << PAGE_SHIFT;
	int ret;

	iommu_dirty_bitmap_init(&dirty, NULL, &gather);
	ret = iommu_domain->dirty_ops->read_and_clear_dirty(iommu_domain, iova,
							    size, 0, &dirty);
	*first = ret ? iova : gather.start;
	*last = ret ? iova + size - 1 : gather.end;
	if (gather.end)
		iommu_iotlb_sync(iommu_domain, &gather);
	return *last;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_domain_take_dirty, "VFIO_DMA");

MODULE_DESCRIPTION("VFIO DMA mapping store and core");
MODULE_LICENSE("GPL");
