// SPDX-License-Identifier: GPL-2.0-only
/*
 * Domains that come when something is mapped
 *
 * A new domain receives what the others have, maps in flight included.  The first
 * one has nobody to receive it from: there all is pinned that has been mapped so far.
 *
 * Nothing here knows groups.
 */

#include <linux/iommu.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>

#include "vfio_dma_cut.h"
#include "vfio_dma_flight.h"
#include "vfio_dma_map.h"
#include "vfio_dma_replay.h"
#include "vfio_dma_unmap.h"

/**
 * vfio_dma_clear_domain() - unmap everything in a domain that others have, too
 * @container: the container
 * @domain: a domain that is about to be freed
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_clear_domain(struct vfio_dma_container *container,
			   struct vfio_dma_domain *domain)
{
	struct vfio_dma_flight *flight;

	lockdep_assert_held(&container->lock);

	vfio_dma_cut_clear(&container->record, &container->space, domain, 0,
			   VFIO_XA_DMA_LAST_INDEX, false);
	list_for_each_entry(flight, &container->flights, next)
		if (flight->placed)
			vfio_dma_cut_clear(&container->record, &container->space,
					   domain, flight->map->first,
					   vfio_dma_flight_last(flight), true);
}

/*
 * Pin and map in the first domain all that has been mapped without one.  No
 * call is in progress that has mapped anything.
 */
static int first_domain(struct vfio_dma_container *container,
			struct vfio_dma_domain *domain)
{
	struct mm_struct *mm = container->owner.mm;
	struct vfio_dma_space space;
	struct vfio_xa_dma_run run;
	unsigned long first = 0;
	int ret;

	lockdep_assert_held(&container->lock);

	if (!mm)
		return 0;
	if (!mmget_not_zero(mm))
		return -ESRCH;

	ret = vfio_dma_space_init(&space, &container->lock, &container->owner);
	if (ret)
		goto out_mmput;
	vfio_dma_space_add(&space, domain);

	while (vfio_dma_cut_next(&container->record, &container->space, first,
				 VFIO_XA_DMA_LAST_INDEX,
				 VFIO_DMA_CUT_CALL_FLAGS, &run)) {
		if (!(run.word & VFIO_XA_DMA_PENDING))
			ret = vfio_dma_flight_replay(container, &space, &run);
		if (ret && run.first)
			vfio_dma_unplace_upto(container, &space, run.first - 1);
		if (ret || run.last == VFIO_XA_DMA_LAST_INDEX)
			break;
		first = run.last + 1;
		cond_resched();
	}

	vfio_dma_space_del(&space, domain);
	vfio_dma_space_destroy(&space);
out_mmput:
	mmput_async(mm);
	return ret;
}

/**
 * vfio_dma_replay() - give a new domain all the translations of the others
 * @container: the container
 * @domain: the new domain, which is not the container's yet
 *
 * The first domain gets what has been mapped without one, which is pinned for it.  On
 * failure nothing is mapped in it, or pinned for it.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -ESRCH if the owner is gone; -EIO if an IOMMU driver failed without an
 * errno; or an errno as vfio_dma_flight_replay() or vfio_dma_cut_replay().
 */
int vfio_dma_replay(struct vfio_dma_container *container,
		    struct vfio_dma_domain *domain)
{
	struct vfio_dma_flight *flight;
	int ret;

	lockdep_assert_held(&container->lock);

	if (!vfio_dma_has_domain(container)) {
		ret = first_domain(container, domain);
		return ret > 0 ? -EIO : ret;
	}

	ret = vfio_dma_cut_replay(&container->record, &container->space, domain,
				  0, VFIO_XA_DMA_LAST_INDEX, false);
	list_for_each_entry(flight, &container->flights, next) {
		if (ret)
			break;
		if (flight->placed)
			ret = vfio_dma_cut_replay(&container->record,
						  &container->space, domain,
						  flight->map->first,
						  vfio_dma_flight_last(flight),
						  true);
	}
	if (ret)
		vfio_dma_clear_domain(container, domain);
	/* iommu_map() hands on what a driver returns. */
	return ret > 0 ? -EIO : ret;
}
