// SPDX-License-Identifier: GPL-2.0-only
/*
 * The owner of a container, and its locked memory
 *
 * All mappings of a container are of one address space.  Memory is charged to it
 * before it is pinned, for a whole request, so that RLIMIT_MEMLOCK is exact and
 * nothing is ever pinned in excess of it; device memory is never charged.
 *
 * Containers of one address space that hold the same page are charged for it once: they
 * enter their pages in its ledger.  The pages held by a container and the pages charged
 * differ then, and each function that charges or gives back counts both.
 *
 * Functions that charge may be called with the container's mutex or without; they
 * take mmap_lock inside of it.  Nothing is pinned here, and what is mapped is not known.
 */

#include <kunit/visibility.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include "vfio_dma_ledger.h"
#include "vfio_dma_owner.h"

/**
 * vfio_dma_owner_set() - make the calling process the owner
 * @owner: owner of the container's mappings, unowned so far
 *
 * Context: Process context with an address space.  Caller holds the
 * container's mutex.
 */
void vfio_dma_owner_set(struct vfio_dma_owner *owner)
{
	owner->mm = current->mm;
	mmgrab(owner->mm);
	owner->task = get_task_struct(current->group_leader);
	owner->lock_cap = capable(CAP_IPC_LOCK);
	owner->npages = 0;
	owner->ledger = NULL;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_owner_set);

/**
 * vfio_dma_owner_clear() - nobody owns the mappings any more
 * @owner: owner, may be unowned
 *
 * Pages that are still charged are uncharged.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex and
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
	owner->ledger = NULL;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_owner_clear);

/*
 * One at a time: with mmap_lock, or of an address space that is gone with the
 * container's mutex.  Readers of the number need neither.
 */
static void count_charge(struct vfio_dma_owner *owner, long held,
			 long charged)
{
	struct vfio_dma_ledger *ledger = owner->ledger;

	WRITE_ONCE(owner->npages, owner->npages + held);
	if (unlikely(ledger))
		atomic_long_add(charged, &ledger->charged);
}

/*
 * May the owner exceed its limit?  The caller's own credentials tell, as for
 * mlock(); a driver's thread, and a process that attaches a group, act with those
 * that the owner has now.
 */
static bool may_exceed(const struct vfio_dma_owner *owner)
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
		WRITE_ONCE(owner->lock_cap, may_exceed(owner));
		if (owner->lock_cap)
			ret = __account_locked_vm(mm, npages, true, owner->task,
						  true);
	}
	if (!ret)
		count_charge(owner, npages, npages);
	mmap_write_unlock(mm);
	return ret;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_charge);

/*
 * As vfio_dma_give_back(); inline, as for both numbers alike it saves 10 instructions of
 * an unmap
 */
static __always_inline void give_back_pages(struct vfio_dma_owner *owner, long held,
					    long charged, bool alike)
{
	struct mm_struct *mm = owner->mm;
	bool foreign = mm != current->mm;

	if (!(held | charged))
		return;

	/* An address space that is being torn down needs no accounting. */
	if (foreign && !mmget_not_zero(mm)) {
		count_charge(owner, -held, -charged);
		return;
	}

	mmap_write_lock(mm);
	if (alike || charged > 0)
		__account_locked_vm(mm, charged, false, owner->task, true);
	else if (charged)
		__account_locked_vm(mm, -charged, true, owner->task, true);
	count_charge(owner, -held, -charged);
	mmap_write_unlock(mm);
	/* If it is the last one, what that waits for is no business of ours. */
	if (foreign)
		mmput_async(mm);
}

/**
 * vfio_dma_uncharge() - take back a charge of locked memory
 * @owner: owner of the mappings, may be another process or gone
 * @npages: number of pages, not more than are charged
 *
 * Context: Process context, may sleep.  Takes and releases mmap_lock.
 */
void vfio_dma_uncharge(struct vfio_dma_owner *owner, unsigned long npages)
{
	give_back_pages(owner, npages, npages, true);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_uncharge);

/**
 * vfio_dma_give_back() - pages are held, or charged, no longer
 * @owner: owner of the mappings, may be another process or gone
 * @held: pages that the container holds no longer
 * @charged: pages that are charged no longer
 *
 * The two differ by pages that other containers hold.  Either can be below 0: pages are
 * held that are charged already, or cannot be given back at once, whatever the limit.
 *
 * Context: Process context, may sleep.  Takes and releases mmap_lock.
 */
void vfio_dma_give_back(struct vfio_dma_owner *owner, long held, long charged)
{
	give_back_pages(owner, held, charged, false);
}

/**
 * vfio_dma_owner_set_ledger() - from now on, pages are entered in a ledger
 * @owner: owner of the mappings, whose mm_users do not drop to zero
 * @ledger: the ledger of its address space
 *
 * All holds of the container are charged.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.  Takes and
 * releases mmap_lock.
 */
void vfio_dma_owner_set_ledger(struct vfio_dma_owner *owner,
			       struct vfio_dma_ledger *ledger)
{
	mmap_write_lock(owner->mm);
	WRITE_ONCE(owner->ledger, ledger);
	atomic_long_add(owner->npages, &ledger->charged);
	mmap_write_unlock(owner->mm);
}

/* Out of line, as vfio_dma_hold() and vfio_dma_unhold() of most owners need none. */
unsigned long __vfio_dma_hold(struct vfio_dma_ledger *ledger, unsigned long pfn,
			      unsigned long npages)
{
	unsigned long charge;

	mutex_lock(&ledger->lock);
	charge = vfio_dma_ledger_enter(ledger, pfn, npages);
	mutex_unlock(&ledger->lock);
	return charge;
}

unsigned long __vfio_dma_unhold(struct vfio_dma_ledger *ledger,
				unsigned long pfn, unsigned long npages)
{
	unsigned long uncharge;

	mutex_lock(&ledger->lock);
	uncharge = vfio_dma_ledger_leave(ledger, pfn, npages);
	mutex_unlock(&ledger->lock);
	return uncharge;
}

/**
 * vfio_dma_hold_known() - hold a page for which others are charged already
 * @owner: owner of the mappings
 * @pfn: the page frame
 *
 * Context: Process context, may sleep.  Takes and releases the ledger's lock and mmap_lock.
 * Return: true if it is held, and counted, without a charge; false if it must be charged.
 */
bool vfio_dma_hold_known(struct vfio_dma_owner *owner, unsigned long pfn)
{
	struct vfio_dma_ledger *ledger = owner->ledger;
	bool known;

	if (!ledger)
		return false;
	mutex_lock(&ledger->lock);
	known = vfio_dma_ledger_hold(ledger, pfn);
	mutex_unlock(&ledger->lock);
	if (known)
		vfio_dma_give_back(owner, -1, 0);
	return known;
}

/**
 * vfio_dma_hold_nofail() - vfio_dma_hold() of a page, in the ledger at any rate
 * @owner: owner of the mappings
 * @pfn: the page frame
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.  Takes and
 * releases the ledger's lock.
 * Return: number of pages that have to be charged: 0 or 1.
 */
unsigned long vfio_dma_hold_nofail(struct vfio_dma_owner *owner, unsigned long pfn)
{
	struct vfio_dma_ledger *ledger = owner->ledger;
	unsigned long charge;

	if (!ledger)
		return 1;
	mutex_lock(&ledger->lock);
	charge = vfio_dma_ledger_enter_nofail(ledger, pfn, 1);
	mutex_unlock(&ledger->lock);
	return charge;
}

/**
 * vfio_dma_charge_lost() - charge pages that nobody can unpin any more
 * @owner: owner of the mappings, may be another process or gone
 * @npages: number of pages
 * @charged: how many of them are charged already
 *
 * The pages stay charged for as long as the address space exists, whatever its
 * limit, and @owner forgets them.  In the ledger they stay held.
 *
 * Context: Process context, may sleep.  Takes and releases mmap_lock.
 */
void vfio_dma_charge_lost(struct vfio_dma_owner *owner, unsigned long npages,
			  unsigned long charged)
{
	struct mm_struct *mm = owner->mm;

	if (!mmget_not_zero(mm)) {
		count_charge(owner, -charged, 0);
		return;
	}
	mmap_write_lock(mm);
	__account_locked_vm(mm, npages - charged, true, owner->task, true);
	count_charge(owner, -charged, npages - charged);
	mmap_write_unlock(mm);
	mmput_async(mm);
}

/**
 * vfio_dma_leak() - keep pages pinned that an IOMMU may still reach
 * @owner: owner of the mappings, may be unowned or gone
 * @npages: number of pages
 * @charged: how many of them are charged already; a request that fails gives its
 *	own charge back
 *
 * Context: Process context, may sleep.  Takes and releases mmap_lock.
 */
void vfio_dma_leak(struct vfio_dma_owner *owner, unsigned long npages,
		   unsigned long charged)
{
	pr_err_ratelimited("vfio_dma: %lu pages stay pinned: an IOMMU may still reach them\n",
			   npages);
	if (owner->mm)
		vfio_dma_charge_lost(owner, npages, charged);
}
