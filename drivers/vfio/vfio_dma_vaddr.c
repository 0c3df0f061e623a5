// SPDX-License-Identifier: GPL-2.0-only
/*
 * The live update of a VMM: user memory is taken away and replaced
 *
 * Pages stay pinned and mapped all the time; only the addresses that the record has
 * for them are invalid in between, and another process may provide new ones.  Nothing
 * here touches an IOMMU.
 */

#include <linux/sched/task.h>

#include "vfio_dma_account.h"
#include "vfio_dma_vaddr.h"
#include "vfio_type1v3_trace.h"

/**
 * vfio_dma_count_invalid() - count pages without user memory
 * @container: the container
 * @first: first page of a range
 * @last: its last page
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: number of mapped pages whose user memory was taken away.
 */
unsigned long vfio_dma_count_invalid(struct vfio_dma_container *container,
				     unsigned long first, unsigned long last)
{
	struct vfio_xa_dma_run run;
	unsigned long n = 0;

	lockdep_assert_held(&container->lock);
	vfio_dma_record_for_each(&container->record, &run, first, last)
		if (run.word & VFIO_XA_DMA_VADDR_INVALID)
			n += vfio_dma_run_pages(&run);
	return n;
}

/**
 * vfio_dma_invalidate_vaddr() - take the user memory of a range away
 * @container: the container
 * @first: first page of the range
 * @last: its last page
 * @npages: set to the number of pages
 *
 * Pages of the range stay pinned and mapped.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -EINVAL if that of a page was taken away before.
 */
int vfio_dma_invalidate_vaddr(struct vfio_dma_container *container,
			      unsigned long first, unsigned long last,
			      unsigned long *npages)
{
	struct vfio_xa_dma_run run;

	lockdep_assert_held(&container->lock);

	*npages = 0;
	if (vfio_dma_count_invalid(container, first, last))
		return -EINVAL;

	vfio_dma_record_for_each_mapped(&container->record, &run, first, last) {
		vfio_dma_record_change_nofail(&container->record, run.first,
					      run.last, 0,
					      VFIO_XA_DMA_VADDR_INVALID);
		*npages += vfio_dma_run_pages(&run);
	}
	container->vaddr_invalid += *npages;
	return 0;
}

/* Is all of a range mapped, and without user memory? */
static int check_invalid(struct vfio_dma_container *container,
			 unsigned long first, unsigned long last)
{
	unsigned long pos = first;
	struct vfio_xa_dma_run run;

	lockdep_assert_held(&container->lock);

	vfio_dma_record_for_each(&container->record, &run, first, last) {
		if (run.first != pos || !(run.word & VFIO_XA_DMA_VADDR_INVALID))
			return -EINVAL;
		pos = run.last + 1;
	}
	if (pos == first)
		return -ENOENT;
	return pos == last + 1 ? 0 : -EINVAL;
}

/* Another process provides the memory: it becomes the owner. */
static int move_owner(struct vfio_dma_container *container)
{
	pid_t from = task_tgid_nr(container->owner.task);
	int ret;

	lockdep_assert_held(&container->lock);

	/* The old owner keeps what is not wholly taken over. */
	if (container->vaddr_invalid !=
	    vfio_dma_record_npages(&container->record) || container->pinning)
		return -EPERM;
	ret = vfio_dma_move(container);
	if (!ret)
		trace_type1v3_owner(container->id, from, task_tgid_nr(current),
				    container->owner.npages);
	return ret;
}

/**
 * vfio_dma_update_vaddr() - give a range other user memory
 * @container: the container
 * @first: first page of the range, all of which was taken away
 * @last: its last page
 * @vaddr: the user memory, in the calling process, page aligned
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -ENOENT if nothing is mapped; -EINVAL if not all of it is, or if it has
 * user memory; -EPERM if the caller is not the owner and cannot take all over;
 * -ENOMEM if the caller's RLIMIT_MEMLOCK does not allow it; -EINTR on a fatal
 * signal.
 */
int vfio_dma_update_vaddr(struct vfio_dma_container *container,
			  unsigned long first, unsigned long last,
			  unsigned long vaddr)
{
	struct vfio_dma_record *record = &container->record;
	struct vfio_xa_dma_run run;
	int ret;

	lockdep_assert_held(&container->lock);

	ret = check_invalid(container, first, last);
	if (!ret && container->owner.mm != current->mm)
		ret = move_owner(container);
	if (ret)
		return ret;

	container->vaddr_invalid -= last - first + 1;
	vfio_dma_record_for_each(record, &run, first, last) {
		run.word &= VFIO_XA_DMA_FLAG_MASK & ~VFIO_XA_DMA_VADDR_INVALID;
		vfio_dma_record_replace_nofail(record, run.first, run.last,
					       vfio_xa_dma_word(first, vaddr,
								run.word));
	}
	return 0;
}
