// SPDX-License-Identifier: GPL-2.0-only
/*
 * Maps in flight: pages are pinned and placed step by step
 *
 * A map that is more than a few pages, or that could not be done in one go, is reserved in the
 * record and then filled here: charged as a whole, or at a limit step by step; pinned in
 * steps, without the mutex, as that takes as long as user space likes; each step placed in
 * the IO page tables with it.  So is what the first domain gets of that which has been mapped
 * without one, with the mutex held all the time.
 *
 * Meanwhile groups may come and go.  Maps in flight are in &vfio_dma_container.flights: a
 * new domain receives the part that has been placed, and the one that takes the last
 * domain away unpins it.  Undo allocates nothing.
 *
 * Nothing is reserved or committed here, and arguments have been checked.
 */

#include <kunit/visibility.h>
#include <linux/export.h>
#include <linux/sched/signal.h>

#include "vfio_dma_cut.h"
#include "vfio_dma_extpin.h"
#include "vfio_dma_flight.h"
#include "vfio_dma_ledger.h"

/* Granules that one map may have where nothing limits them but memory */
#define GRANULES_MAX	BIT(20)

/* Note in the words of an extent what its memory is like. */
static int note_extent(struct vfio_dma_container *container,
		       const struct vfio_dma_flight *flight,
		       const struct vfio_dma_extent *extent)
{
	const unsigned long kind = VFIO_XA_DMA_PFNMAP | VFIO_XA_DMA_MMIO;
	unsigned long set = (extent->pfnmap ? VFIO_XA_DMA_PFNMAP : 0) |
			    (extent->mmio ? VFIO_XA_DMA_MMIO : 0);
	struct vfio_dma_record *record = &container->record;
	unsigned long first = flight->map->first + flight->placed;
	unsigned long end = first + extent->npages;
	int ret;

	lockdep_assert_held(&container->lock);

	if (set != (flight->map->word & kind)) {
		ret = vfio_dma_record_try_change(record, first, end - 1,
						 kind & ~set, set);
		if (ret)
			return ret;
	}

	/* CONTIG makes unmapping faster, and can be done without. */
	first = round_up(first, VFIO_DMA_CONTIG_PAGES);
	end = round_down(end, VFIO_DMA_CONTIG_PAGES);
	if (first < end)
		vfio_dma_record_try_change(record, first, end - 1, 0,
					   VFIO_XA_DMA_CONTIG);
	return 0;
}

static int check_extent(struct vfio_dma_container *container,
			unsigned long first,
			const struct vfio_dma_extent *extent)
{
	lockdep_assert_held(&container->lock);

	if (!extent->pfnmap)
		return 0;
	if (container->policy->disable_device_memory)
		return -EPERM;
	/* Pins are of ordinary pages, whatever is there by now. */
	return vfio_dma_extpin_count(container, first,
				     first + extent->npages - 1) ? -EINVAL : 0;
}

/* Enter what was placed in the ledger, where the page of @flight->held is already. */
static void hold_extent(struct vfio_dma_container *container,
			struct vfio_dma_flight *flight,
			const struct vfio_dma_extent *extent)
{
	unsigned long charge = 0;

	lockdep_assert_held(&container->lock);

	if (unlikely(extent->pfn == flight->held && extent->npages == 1))
		flight->held = VFIO_DMA_NOT_HELD;
	else
		charge = vfio_dma_hold(&container->owner, extent->pfn,
				       extent->npages);
	flight->credit -= charge;
	flight->known += extent->npages - charge;
}

/*
 * Place pages that have no neighbours in memory, in one domain and without a ledger: of
 * 4 MiB of them each takes 145 instructions less than as an extent.
 */
static int place_singles(struct vfio_dma_container *container,
			 struct vfio_dma_flight *flight,
			 struct vfio_dma_pin *pin)
{
	unsigned long word = flight->map->word, pfn;
	dma_addr_t iova = vfio_dma_iova(flight->map->first + flight->placed);
	int prot = vfio_dma_cut_iommu_prot(word), ret = 0;
	struct page *page;

	lockdep_assert_held(&container->lock);

	if (container->owner.ledger || word & (VFIO_XA_DMA_PFNMAP | VFIO_XA_DMA_MMIO) ||
	    !list_is_singular(&flight->space->domains))
		return 0;
	while (!ret && vfio_dma_pin_single(pin, &pfn)) {
		page = pfn_to_page(pfn);
		ret = vfio_dma_space_map_pages(flight->space, iova, &page, 1, prot);
		if (likely(!ret)) {
			iova += PAGE_SIZE;
			flight->placed++;
			flight->credit--;
		}
	}
	return ret;
}

/* Place all that the last step has pinned; what cannot be placed is unpinned. */
static int place_extents(struct vfio_dma_container *container,
			 struct vfio_dma_flight *flight,
			 struct vfio_dma_pin *pin)
{
	unsigned long word = flight->map->word, granule = flight->map->granule;
	struct vfio_dma_extent extent;
	unsigned long first;
	int ret;

	lockdep_assert_held(&container->lock);

	/* Without BIG no superpage forms, so the granule does not matter. */
	if (!(word & VFIO_XA_DMA_BIG))
		granule = VFIO_DMA_NO_GRANULE;
	while (vfio_dma_pin_extent(pin, &extent)) {
		first = flight->map->first + flight->placed;
		ret = check_extent(container, first, &extent);
		ret = ret ?: note_extent(container, flight, &extent);
		if (ret) {
			if (!extent.pfnmap)
				vfio_dma_unpin(extent.pfn, extent.npages,
					       false);
			return ret;
		}
		ret = vfio_dma_cut_map(flight->space, first, &extent, word,
				       granule);
		flight->placed += extent.npages;
		if (!extent.pfnmap && extent.npages)
			hold_extent(container, flight, &extent);
		ret = ret ?: place_singles(container, flight, pin);
		if (ret)
			return ret;
	}
	return 0;
}

/* Charge for what a pin has and is not charged.  A page that is held needs none. */
static int charge_pinned(struct vfio_dma_container *container,
			 struct vfio_dma_flight *flight,
			 const struct vfio_dma_pin *pin)
{
	long missing = vfio_dma_pin_held(pin) - flight->credit;
	int ret;

	lockdep_assert_held(&container->lock);

	if (flight->held != VFIO_DMA_NOT_HELD)
		missing--;
	if (missing <= 0)
		return 0;
	ret = vfio_dma_charge(&container->owner, missing);
	if (!ret)
		flight->credit += missing;
	return ret;
}

/*
 * Place a step, and charge for more if it takes more than was charged: device memory,
 * or a page that an emulated device had pinned, has become another in the meantime.
 * Pages are charged before they are entered in a ledger, where others find them known.
 * Charges for pages that others hold are given back.
 */
static int place_step(struct vfio_dma_container *container,
		      struct vfio_dma_flight *flight, struct vfio_dma_pin *pin)
{
	unsigned long before = flight->placed, shared = 0, uncharged = 0;
	unsigned long first = flight->map->first;
	long held, surplus;
	int ret;

	lockdep_assert_held(&container->lock);

	if (unlikely(container->owner.ledger)) {
		ret = charge_pinned(container, flight, pin);
		if (ret)
			return ret;
	}
	flight->known = 0;
	ret = place_extents(container, flight, pin);
	if (flight->state == VFIO_DMA_REPLAYING && flight->placed > before)
		shared = vfio_dma_extpin_share(container,
					       vfio_dma_space_first(flight->space),
					       first + before,
					       first + flight->placed - 1,
					       &uncharged);
	flight->credit += uncharged;

	/* Pages in the pin are charged, and not in the ledger. */
	held = vfio_dma_pin_held(pin);
	surplus = clamp(flight->credit - held, 0L, (long)flight->known);
	flight->credit -= surplus;
	vfio_dma_give_back(&container->owner,
			   surplus - (long)flight->known + (shared - uncharged),
			   surplus);
	if (ret || held <= flight->credit)
		return ret;
	held -= flight->credit;
	ret = vfio_dma_charge(&container->owner, held);
	if (!ret)
		flight->credit += held;
	return ret;
}

/*
 * Charge the next step of a map for which there is not enough to charge all at once,
 * and set @pin->max to its pages.  A step ends where a superpage may, and is made smaller
 * until there is enough for it.  The last resort is one page, and if there is not enough
 * for that, one that the ledger knows: that is held.
 *
 * Returns 0 with @pin->max of 0 if pages have to be placed first: then they are in the
 * ledger, and are charged for no longer if others hold them.  Called without the mutex, but
 * for a replay.
 */
static int charge_step(struct vfio_dma_container *container,
		       const struct vfio_dma_flight *flight,
		       struct vfio_dma_pin *pin, unsigned int max, long *credit,
		       unsigned long *held)
{
	bool write = flight->map->word & VFIO_XA_DMA_WRITE;
	unsigned long npages = vfio_dma_map_npages(flight->map);
	unsigned long next = flight->map->first + npages - pin->npages;
	struct vfio_dma_owner *owner = &container->owner;
	unsigned long step, charge;
	int ret;

	for (step = min(pin->npages, max - next % max);; step /= 2) {
		pin->max = step;
		charge = step;
		if (owner->mm == current->mm)
			charge = vfio_dma_count_pinnable(pin->vaddr, step);
		charge += vfio_dma_pin_held(pin);
		charge -= min(charge, max(*credit, 0L));
		ret = vfio_dma_charge(owner, charge);
		if (!ret)
			*credit += charge;
		if (ret != -ENOMEM)
			return ret;
		if (vfio_dma_pin_held(pin)) {
			pin->max = 0;
			return 0;
		}
		if (step == 1)
			break;
	}

	ret = vfio_dma_pin_hold(owner, pin->vaddr, write, true, held);
	/* Device memory is not charged; what else is there, the pin finds out. */
	return ret == -EFAULT ? 0 : ret;
}

/*
 * Has the step pinned the page that is held for it, or none, as it found device memory?
 * Any other page has come to the address meanwhile and is not charged: it is unpinned, and
 * the pin steps back.
 */
static bool is_held(struct vfio_dma_pin *pin, unsigned long held)
{
	if (!pin->size || page_to_pfn(pin->pages[0]) == held)
		return true;
	unpin_user_pages(pin->pages, pin->size);
	pin->vaddr -= (unsigned long)pin->size << PAGE_SHIFT;
	pin->npages += pin->size;
	pin->size = 0;
	return false;
}

/* How often an address may get another page while a known one is looked for there */
#define RESERVE_RETRIES	10

/* As vfio_dma_pin_step(), of a map of which each step is charged on its own; likewise */
static int charge_and_pin_step(struct vfio_dma_container *container,
			       const struct vfio_dma_flight *flight,
			       struct vfio_dma_pin *pin, long *credit,
			       unsigned long *held)
{
	unsigned int max = pin->max, retries = RESERVE_RETRIES;
	long was = *credit;
	int ret;

	do {
		ret = charge_step(container, flight, pin, max, credit, held);
		if (ret || !pin->max)
			break;
		ret = vfio_dma_pin_step(pin);
		if (ret || *credit > was || *credit > 0 ||
		    is_held(pin, *held))
			break;
		vfio_dma_pin_drop(&container->owner, *held);
		*held = VFIO_DMA_NOT_HELD;
		ret = fatal_signal_pending(current) ? -EINTR : -ENOMEM;
	} while (ret == -ENOMEM && retries--);

	/* Nothing is put off for a longer extent while a page is held. */
	if (!pin->max || *held != VFIO_DMA_NOT_HELD)
		pin->flush_tail = true;
	pin->max = max;
	return ret;
}

/*
 * Pin and place all of a map, unless what has been placed goes.  The mutex is dropped
 * for each step, but for that of a replay.
 */
static int pin_and_place_drops_lock(struct vfio_dma_container *container,
				    struct vfio_dma_flight *flight)
{
	unsigned long npages = vfio_dma_map_npages(flight->map);
	bool drop = flight->state != VFIO_DMA_REPLAYING;
	unsigned long held;
	struct vfio_dma_pin pin;
	long before, credit;
	int ret;

	lockdep_assert_held(&container->lock);

	before = flight->credit;
	if (drop)
		mutex_unlock(&container->lock);
	vfio_dma_pin_start(&pin, container->owner.mm, flight->map->vaddr,
			   npages, flight->map->word & VFIO_XA_DMA_WRITE);
	do {
		credit = before;
		held = VFIO_DMA_NOT_HELD;
		if (fatal_signal_pending(current))
			ret = -EINTR;
		else if (unlikely(flight->tight))
			ret = charge_and_pin_step(container, flight, &pin,
						  &credit, &held);
		else
			ret = vfio_dma_pin_step(&pin);
		if (drop)
			mutex_lock(&container->lock);
		flight->credit += credit - before;
		flight->held = held;
		if (flight->state != VFIO_DMA_UNPLACED && !ret)
			ret = place_step(container, flight, &pin);
		if (unlikely(flight->held != VFIO_DMA_NOT_HELD))
			vfio_dma_pin_drop(&container->owner, flight->held);
		if (ret || flight->state == VFIO_DMA_UNPLACED ||
		    flight->placed == npages)
			break;
		before = flight->credit;
		if (drop)
			mutex_unlock(&container->lock);
		cond_resched();
	} while (true);
	vfio_dma_pin_finish(&pin);
	return ret;
}

/**
 * vfio_dma_flight_too_many_granules() - does a map have more granules than are allowed?
 * @map: the range
 *
 * START takes memory for each granule.  Where a charge does not bound that, a number does.
 *
 * Context: Any.
 * Return: true if it is not to be mapped without a charge for all of it.
 */
bool vfio_dma_flight_too_many_granules(const struct vfio_dma_map *map)
{
	return map->word & VFIO_XA_DMA_BIG && map->granule < VFIO_DMA_NO_GRANULE &&
	       (map->last - map->first) / map->granule >= GRANULES_MAX;
}

/*
 * Charge for pages that are about to be pinned, of which @already are charged.
 * Device memory is left out: charged for a moment, it would make other calls fail.
 * Only the owner itself can tell it from other memory.
 *
 * If there is not enough, it may still be enough for what no other container holds:
 * that is found out step by step.  Called without the mutex, but for a replay.
 */
static int charge_flight(struct vfio_dma_container *container,
			 struct vfio_dma_flight *flight, unsigned long already)
{
	unsigned long npages = vfio_dma_map_npages(flight->map);
	struct vfio_dma_owner *owner = &container->owner;
	int ret;

	if (owner->mm == current->mm)
		npages = vfio_dma_count_pinnable(flight->map->vaddr, npages);
	npages -= min(npages, already);
	ret = vfio_dma_charge(owner, npages);
	if (ret == -ENOMEM && READ_ONCE(owner->ledger) &&
	    !vfio_dma_flight_too_many_granules(flight->map)) {
		/* Containers that are about to be entered may hold the same. */
		if (flight->state != VFIO_DMA_REPLAYING)
			ret = vfio_dma_ledger_settle(owner->ledger);
		else
			ret = 0;
		flight->tight = true;
		return ret;
	}
	if (!ret)
		flight->credit = npages;
	return ret;
}

/**
 * vfio_dma_flight_undo() - take back what has been placed
 * @container: the container
 * @flight: the map; nothing of it is placed afterwards
 *
 * Pages that an IOMMU driver fails to give back stay charged, and leave the charge of the map.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_flight_undo(struct vfio_dma_container *container,
			  struct vfio_dma_flight *flight)
{
	unsigned long first = flight->map->first, unpinned, kept;

	lockdep_assert_held(&container->lock);
	if (!flight->placed)
		return;

	unpinned = vfio_dma_cut_unmap(&container->record, flight->space, first,
				      first + flight->placed - 1);
	vfio_dma_space_flush(flight->space);
	kept = vfio_dma_space_take_kept(flight->space);
	flight->credit += unpinned - kept;
	vfio_dma_give_back(&container->owner, kept, 0);
	if (unlikely(flight->space->leaked)) {
		vfio_dma_record_leaked(&container->record, first,
				       first + flight->placed - 1);
		/* An unmap that comes later has not failed. */
		flight->space->leaked = false;
	}
	flight->placed = 0;
}

/**
 * vfio_dma_flights_unplace() - take back what all maps in flight have placed
 * @container: a container, the last domain of which is about to go
 *
 * What these maps have reserved in the record stays.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_flights_unplace(struct vfio_dma_container *container)
{
	struct vfio_dma_flight *flight;

	lockdep_assert_held(&container->lock);

	list_for_each_entry(flight, &container->flights, next) {
		vfio_dma_flight_undo(container, flight);
		flight->state = VFIO_DMA_UNPLACED;
	}
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_flights_unplace);

/**
 * vfio_dma_flight_fill_drops_lock() - charge, pin and place what has been reserved
 * @container: the container
 * @flight: a map that is reserved in the record, and PLACING
 *
 * What has been placed when it fails, the caller takes back.  @flight->credit is what is
 * charged for pages that are not placed, in either case.
 *
 * Context: Process context, may sleep for as long as user space needs to provide
 * memory.  Called with the container's mutex held, returns with it held; it is dropped in
 * between.
 * Return: 0, or an errno as vfio_dma_map_drops_lock(); what a driver returns is handed on.
 */
int vfio_dma_flight_fill_drops_lock(struct vfio_dma_container *container,
				    struct vfio_dma_flight *flight)
{
	const struct vfio_dma_map *map = flight->map;
	int ret;

	lockdep_assert_held(&container->lock);

	/* The container keeps its owner until @pinning is decremented. */
	container->pinning++;
	list_add_tail(&flight->next, &container->flights);
	mutex_unlock(&container->lock);
	ret = charge_flight(container, flight, 0);
	mutex_lock(&container->lock);

	/* Each takes memory, and there can be many: not before the charge. */
	if (!ret && map->word & VFIO_XA_DMA_BIG)
		ret = vfio_dma_cut_set_starts(&container->record, map->first,
					      map->last, map->granule);
	while (!ret) {
		ret = pin_and_place_drops_lock(container, flight);
		if (ret || flight->state != VFIO_DMA_UNPLACED)
			break;
		if (!vfio_dma_has_group(container))
			ret = -ENODEV;
		/* There may be another domain by now, or no need for one. */
		if (!vfio_dma_has_domain(container))
			break;
		flight->state = VFIO_DMA_PLACING;
		/* Charges for known pages were given back: what is left may be too little. */
		flight->tight = container->owner.ledger;
		/* Device memory of the last attempt need not be that now. */
		vfio_dma_record_change(&container->record, map->first,
				       map->last, VFIO_DMA_CUT_MEMORY_FLAGS, 0);
	}

	list_del(&flight->next);
	container->pinning--;
	return ret;
}

/**
 * vfio_dma_flight_replay() - pin and place in the first domain what is mapped without
 * @container: the container
 * @space: the first domain; it is not the container's yet
 * @run: what is mapped, of one iommu_map() call as far as user memory tells
 *
 * If it fails nothing of the run is placed, or pinned for it.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0, or an errno as vfio_dma_map_drops_lock().
 */
int vfio_dma_flight_replay(struct vfio_dma_container *container,
			   struct vfio_dma_space *space,
			   const struct vfio_xa_dma_run *run)
{
	const struct vfio_dma_map map = {
		.first = run->first,
		.last = run->last,
		.vaddr = vfio_xa_dma_vaddr(run->word, run->first),
		/* CONTIG, PFNMAP and MMIO described the memory of an earlier domain. */
		.word = run->word & ~VFIO_DMA_CUT_MEMORY_FLAGS,
		.granule = VFIO_DMA_NO_GRANULE,
	};
	struct vfio_dma_flight flight = {
		.map = &map,
		.state = VFIO_DMA_REPLAYING,
		.space = space,
	};
	struct vfio_dma_record *record = &container->record;
	unsigned long alone = 0, charged = 0, already = 0;
	int ret;

	lockdep_assert_held(&container->lock);

	/*
	 * Pins of emulated devices in the run are charged already, if of the same pages.
	 * In a ledger those are known.
	 */
	if (!container->owner.ledger)
		already = vfio_dma_extpin_count_charged(container, run->first,
							run->last);
	ret = charge_flight(container, &flight, already);
	if (ret)
		return ret;

	vfio_dma_record_change_nofail(record, run->first, run->last,
				      VFIO_DMA_CUT_MEMORY_FLAGS, 0);
	/* Where user memory does not continue, an IOMMU page ends. */
	if (map.word & VFIO_XA_DMA_BIG && !(map.word & VFIO_XA_DMA_START) &&
	    run->first && vfio_dma_record_load(record, run->first - 1))
		ret = vfio_dma_cut_set_start(record, run->first);
	if (!ret)
		ret = pin_and_place_drops_lock(container, &flight);
	if (ret) {
		alone = vfio_dma_extpin_charge_alone(container, run->first,
						     run->last, &charged);
		vfio_dma_flight_undo(container, &flight);
	}
	vfio_dma_give_back(&container->owner, flight.credit - alone,
			   flight.credit - charged);
	return ret;
}
