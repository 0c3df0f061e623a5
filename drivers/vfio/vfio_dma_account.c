// SPDX-License-Identifier: GPL-2.0-only
/*
 * What containers of one address space hold is charged once
 *
 * The only container of an address space has no ledger, and is charged for all that it
 * holds.  When another one gets the same owner, both get a ledger (vfio_dma_member.c).  The
 * holds of the first one are entered then, before the other one maps: with the mutex of the
 * first, and without that of the other, so that no two containers wait for each other.
 *
 * A container that could not be entered, because the caller was killed or because there
 * was no memory for a ledger, is charged on its own for what it holds, as it was before.
 * The next container that comes tries again.  After a failure halfway, the remaining
 * holds are alone in the ledger.
 *
 * A map or unmap enters its own pages: here it is done only for all that a container holds,
 * when another one comes or its owner changes.  Nothing is pinned, mapped or unmapped here.
 */

#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include "vfio_dma_account.h"
#include "vfio_dma_extpin.h"
#include "vfio_dma_flight.h"
#include "vfio_dma_ledger.h"
#include "vfio_type1v3_trace.h"

/**
 * struct hold_walk - what is done with each extent that a container holds
 * @act: does it; anything but 0 ends the walk, and is returned.  %NULL: pages are counted
 * @ledger: for which it is done
 * @owner: who is charged for it
 * @known: pages that need no charge
 * @npages: pages so far
 * @last: pages after which the walk ends, and returns 1
 *
 * Local to its caller, who holds the container's mutex all the time.
 */
struct hold_walk {
	int (*act)(struct hold_walk *walk, unsigned long pfn,
		   unsigned long npages);
	struct vfio_dma_ledger *ledger;
	struct vfio_dma_owner *owner;
	unsigned long known;
	unsigned long npages;
	unsigned long last;
};

static int walk_extent(struct hold_walk *walk, unsigned long pfn, unsigned long npages)
{
	int ret;

	if (walk->npages == walk->last)
		return 1;
	npages = min(npages, walk->last - walk->npages);
	ret = walk->act(walk, pfn, npages);
	if (!ret)
		walk->npages += npages;
	cond_resched();
	return ret;
}

/* Extents in IO page tables, of the runs of a range */
static int walk_range(struct vfio_dma_container *container,
		      unsigned long first, unsigned long last, bool pending,
		      struct hold_walk *walk)
{
	struct vfio_dma_domain *domain = vfio_dma_space_first(&container->space);
	struct vfio_dma_extent extent;
	struct vfio_xa_dma_run run;
	unsigned long index;
	int ret;

	lockdep_assert_held(&container->lock);

	vfio_dma_record_for_each(&container->record, &run, first, last) {
		if (!!(run.word & VFIO_XA_DMA_PENDING) != pending ||
		    run.word & VFIO_XA_DMA_PFNMAP)
			continue;
		if (!walk->act) {
			walk->npages += vfio_dma_run_pages(&run);
			cond_resched();
			continue;
		}
		for (index = run.first; index <= run.last; index += extent.npages) {
			if (WARN_ON_ONCE(!vfio_dma_domain_lookup(domain,
								 vfio_dma_iova(index),
								 run.last - index + 1,
								 run.word & VFIO_XA_DMA_CONTIG,
								 &extent)))
				break;
			ret = walk_extent(walk, extent.pfn, extent.npages);
			if (ret)
				return ret;
		}
	}
	return 0;
}

/* All that a container holds: each time the same extents in the same order */
static int walk_holds(struct vfio_dma_container *container, struct hold_walk *walk)
{
	struct vfio_dma_flight *flight;
	struct vfio_xa_dma_run run;
	unsigned long index;
	int ret = 0;

	lockdep_assert_held(&container->lock);

	vfio_dma_for_each_run(&container->extpins, &run, 0, VFIO_XA_DMA_LAST_INDEX) {
		if (!(run.word & VFIO_DMA_EXTPIN_CHARGED))
			continue;
		if (!walk->act) {
			walk->npages += vfio_dma_run_pages(&run);
			cond_resched();
			continue;
		}
		for (index = run.first; index <= run.last; index++) {
			ret = walk_extent(walk, vfio_dma_extpin_pfn(run.word), 1);
			if (ret)
				return ret;
		}
	}
	if (!vfio_dma_has_domain(container))
		return 0;

	ret = walk_range(container, 0, VFIO_XA_DMA_LAST_INDEX, false, walk);
	list_for_each_entry(flight, &container->flights, next) {
		if (ret)
			break;
		if (flight->placed)
			ret = walk_range(container, flight->map->first,
					 vfio_dma_flight_last(flight), true, walk);
	}
	return ret;
}

static int enter_extent(struct hold_walk *walk, unsigned long pfn,
			unsigned long npages)
{
	struct vfio_dma_ledger *ledger = walk->ledger;
	unsigned long charge;
	long alone;

	if (fatal_signal_pending(current))
		return -EINTR;
	mutex_lock(&ledger->lock);
	alone = ledger->alone;
	charge = vfio_dma_ledger_enter(ledger, pfn, npages);
	/* Without memory this is the last extent. */
	if (unlikely(ledger->alone != alone))
		walk->last = walk->npages + npages;
	mutex_unlock(&ledger->lock);
	walk->known += npages - charge;
	return 0;
}

static int leave_extent(struct hold_walk *walk, unsigned long pfn,
			unsigned long npages)
{
	walk->known += npages - __vfio_dma_unhold(walk->ledger, pfn, npages);
	return 0;
}

/* Enter all that a container holds in the ledger of its address space. */
static void enter_container(struct vfio_dma_container *container,
			    struct vfio_dma_ledger *ledger)
{
	struct hold_walk walk = {
		.act = enter_extent,
		.ledger = ledger,
		.last = ULONG_MAX,
	};
	struct hold_walk all = {};

	lockdep_assert_held(&container->lock);

	/* The owner may have changed, or another call been faster. */
	if (!vfio_dma_member_lacks(&container->member, ledger))
		return;

	vfio_dma_owner_set_ledger(&container->owner, ledger);
	if (walk_holds(container, &walk)) {
		/* The rest is charged for each hold. */
		walk_holds(container, &all);
		mutex_lock(&ledger->lock);
		WRITE_ONCE(ledger->alone,
			   ledger->alone + all.npages - walk.npages);
		mutex_unlock(&ledger->lock);
	}
	vfio_dma_give_back(&container->owner, 0, walk.known);
	/* Containers that join meanwhile wait; @activation excludes a second entry. */
	vfio_dma_member_set_entered(&container->member);
	trace_type1v3_ledger(container->id, walk.npages, walk.known,
			     READ_ONCE(ledger->alone));
}

static bool try_get(struct vfio_dma_container *container)
{
	return refcount_inc_not_zero(&container->users);
}

/* Enter what all containers of the calling process hold. */
static void activate_ledger(struct vfio_dma_ledger *ledger)
{
	struct vfio_dma_container *other;
	int ret;

	if (mutex_lock_killable(&ledger->activation))
		return;
	while ((other = vfio_dma_member_get_lacking(ledger, current->mm, try_get))) {
		ret = mutex_lock_killable(&other->lock);
		if (!ret) {
			enter_container(other, ledger);
			mutex_unlock(&other->lock);
		}
		vfio_dma_container_put(other);
		if (ret)
			break;
	}
	mutex_unlock(&ledger->activation);
}

/**
 * vfio_dma_enter_others_drops_lock() - enter what other containers hold
 * @container: a container that the calling process has just become the owner of
 *
 * If the caller is killed meanwhile they are charged on their own.
 *
 * Context: Process context, may sleep.  Called with the container's mutex held, returns
 * with it held; it is dropped in between.
 */
void vfio_dma_enter_others_drops_lock(struct vfio_dma_container *container)
{
	lockdep_assert_held(&container->lock);

	/* The owner, and the ledger with it, stay until that is undone. */
	container->pinning++;
	mutex_unlock(&container->lock);
	activate_ledger(container->owner.ledger);
	mutex_lock(&container->lock);
	container->pinning--;
}

/**
 * vfio_dma_prepare_move_drops_lock() - another process may take a container over
 * @container: a container with another owner
 *
 * Holds of the calling process's other containers are entered in a ledger.
 *
 * Context: Process context, may sleep.  Called with the container's mutex held, returns
 * with it held; it is dropped in between.
 */
void vfio_dma_prepare_move_drops_lock(struct vfio_dma_container *container)
{
	struct vfio_dma_ledger *ledger;
	bool others;

	lockdep_assert_held(&container->lock);

	ledger = vfio_dma_member_add(NULL, current->mm, &others);
	if (!ledger)
		return;
	mutex_unlock(&container->lock);
	activate_ledger(ledger);
	vfio_dma_ledger_put(ledger);
	mutex_lock(&container->lock);
}

/*
 * Enter pages that are pinned already for a new owner, and charge for those that its
 * other containers do not hold.  Towards the limit, fewer pages are charged at a time; at
 * last a single one, and a known page needs no charge.
 */
static int take_extent(struct hold_walk *walk, unsigned long pfn,
		       unsigned long npages)
{
	struct vfio_dma_owner *owner = walk->owner;
	unsigned long done = 0, step = npages;
	int ret = 0;

	while (done < npages) {
		cond_resched();
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		/* The size that the limit allowed last is a good guess. */
		step = min(step, npages - done);
		ret = vfio_dma_charge(owner, step);
		if (ret == -ENOMEM && step > 1) {
			step /= 2;
			continue;
		}
		if (!ret) {
			vfio_dma_give_back(owner, 0, step -
					   vfio_dma_hold(owner, pfn + done, step));
			done += step;
			step *= 2;
			continue;
		}
		if (ret != -ENOMEM || !vfio_dma_hold_known(owner, pfn + done))
			break;
		done++;
		ret = 0;
	}
	/* The walk has counted none of the extent yet. */
	if (ret && done)
		vfio_dma_give_back(owner, done,
				   vfio_dma_unhold(owner, pfn, done));
	return ret;
}

/* Take all that a container holds away from one of two owners. */
static void leave_all(struct vfio_dma_container *container,
		      struct vfio_dma_owner *owner, unsigned long npages)
{
	struct hold_walk walk = {
		.act = leave_extent,
		.ledger = owner->ledger,
		.last = npages,
	};

	lockdep_assert_held(&container->lock);

	if (owner->ledger)
		walk_holds(container, &walk);
	vfio_dma_give_back(owner, npages, npages - walk.known);
}

/**
 * vfio_dma_move() - let the calling process take the mappings over
 * @container: the container
 *
 * All that is charged moves: first it is charged to the new owner, so that a failure
 * changes nothing.  Pages that other containers of the new owner hold are not charged
 * again if vfio_dma_prepare_move_drops_lock() has entered it.
 *
 * Context: Process context with an address space, may sleep.  Caller holds the
 * container's mutex, and has no pinning in progress.
 * Return: 0; -ENOMEM if the new owner's RLIMIT_MEMLOCK does not allow it; -EINTR on a
 * fatal signal.
 */
int vfio_dma_move(struct vfio_dma_container *container)
{
	struct vfio_dma_member member = { .container = container };
	unsigned long npages = container->owner.npages;
	struct vfio_dma_ledger *ledger;
	struct vfio_dma_owner new;
	struct hold_walk walk = {
		.act = take_extent,
		.owner = &new,
		.last = ULONG_MAX,
	};
	bool others;
	int ret;

	lockdep_assert_held(&container->lock);

	vfio_dma_owner_set(&new);
	/* From here on, whoever comes is in the same ledger, or gives one to all. */
	ledger = vfio_dma_member_add(&member, new.mm, &others);
	new.ledger = ledger;
	if (ledger)
		ret = walk_holds(container, &walk);
	else
		ret = vfio_dma_charge(&new, npages);
	if (ret) {
		leave_all(container, &new, walk.npages);
		vfio_dma_owner_clear(&new);
		vfio_dma_ledger_put(vfio_dma_member_remove(&member));
		return ret;
	}

	leave_all(container, &container->owner, npages);
	vfio_dma_member_quit(&container->member, &container->owner);
	vfio_dma_owner_clear(&container->owner);
	container->owner = new;
	vfio_dma_member_move(&member, &container->member);
	return 0;
}
