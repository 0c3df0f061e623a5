/* SPDX-License-Identifier: GPL-2.0-only */
/* Whose memory is mapped, and what of it is charged; see vfio_dma_owner.c. */
#ifndef _VFIO_DMA_OWNER_H
#define _VFIO_DMA_OWNER_H

#include <linux/types.h>

struct mm_struct;
struct task_struct;
struct vfio_dma_ledger;

/**
 * struct vfio_dma_owner - the one address space whose memory is mapped
 * @mm: address space (mmgrab()ed), %NULL while nobody owns the mappings.  Lock: the
 *	container's mutex; stays while @npages are held or a call pins
 * @task: its thread group leader, whose RLIMIT_MEMLOCK applies.  Lock: as @mm
 * @lock_cap: it had CAP_IPC_LOCK when that was asked last: a hint that it does not
 *	meet the limit.  Lock: @mm's mmap_lock for writing; read without
 * @npages: pages that it holds or is about to, of which each hold counts; without a
 *	ledger they are all charged to @mm's locked_vm.  Lock: @mm's mmap_lock for
 *	writing, or the container's mutex when the address space is gone; read without
 * @ledger: where pages are entered that other containers may hold as well; %NULL for
 *	the only container of @mm, whose pages are charged for each hold.  Lock: set under
 *	the container's mutex, and @mm's mmap_lock for writing once pages are held or a
 *	call pins; stays as long as @mm does
 *
 * The account of a container: charged for, before they are pinned, are pages that it is about
 * to hold.  It outlives the process, whose memory stays mapped until it is unmapped.
 */
struct vfio_dma_owner {
	struct mm_struct *mm;
	struct task_struct *task;
	bool lock_cap;
	unsigned long npages;
	struct vfio_dma_ledger *ledger;
};

void vfio_dma_owner_set(struct vfio_dma_owner *owner);
void vfio_dma_owner_clear(struct vfio_dma_owner *owner);
int vfio_dma_charge(struct vfio_dma_owner *owner, unsigned long npages);
void vfio_dma_uncharge(struct vfio_dma_owner *owner, unsigned long npages);
void vfio_dma_give_back(struct vfio_dma_owner *owner, long held, long charged);
void vfio_dma_owner_set_ledger(struct vfio_dma_owner *owner,
			       struct vfio_dma_ledger *ledger);
void vfio_dma_charge_lost(struct vfio_dma_owner *owner, unsigned long npages,
			  unsigned long charged);
void vfio_dma_leak(struct vfio_dma_owner *owner, unsigned long npages,
		   unsigned long charged);

unsigned long __vfio_dma_hold(struct vfio_dma_ledger *ledger, unsigned long pfn,
			      unsigned long npages);
unsigned long __vfio_dma_unhold(struct vfio_dma_ledger *ledger,
				unsigned long pfn, unsigned long npages);
bool vfio_dma_hold_known(struct vfio_dma_owner *owner, unsigned long pfn);
unsigned long vfio_dma_hold_nofail(struct vfio_dma_owner *owner, unsigned long pfn);

/**
 * vfio_dma_hold() - enter pinned pages in the owner's ledger, if it has one
 * @owner: owner of the mappings
 * @pfn: first page frame
 * @npages: number of pages, not 0
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: number of pages that have to be charged.
 */
static inline unsigned long vfio_dma_hold(const struct vfio_dma_owner *owner,
					  unsigned long pfn,
					  unsigned long npages)
{
	if (likely(!owner->ledger))
		return npages;
	return __vfio_dma_hold(owner->ledger, pfn, npages);
}

/**
 * vfio_dma_unhold() - take pages out of the owner's ledger, if it has one
 * @owner: owner of the mappings
 * @pfn: first page frame
 * @npages: number of pages, not 0
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex, and unpins
 * the pages afterwards.
 * Return: number of pages that are charged no longer once they are unpinned.
 */
static inline unsigned long vfio_dma_unhold(const struct vfio_dma_owner *owner,
					    unsigned long pfn,
					    unsigned long npages)
{
	if (likely(!owner->ledger))
		return npages;
	return __vfio_dma_unhold(owner->ledger, pfn, npages);
}

#endif /* _VFIO_DMA_OWNER_H */
