// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mapping
 *
 * A range goes through one pipeline, whoever asks for it: a single call, a batch, or
 * the first domain that comes to a container in which something is mapped.
 *
 *	check	vfio_dma_map_check()
 *	reserve	pages are PENDING in the record, which refuses any other map of them
 *	charge	the whole range, before anything of it is pinned
 *	pin	in steps, without the mutex, as that takes as long as user space likes
 *	place	each step in the IO page tables, with the mutex
 *	commit	PENDING goes from all of the range at once
 *
 * A few pages take a shorter way first, map_now_drops_lock(): they are charged and
 * pinned, and then entered in the record and the IO page tables in one go.  If any of
 * that fails, none of the pages is changed; map_slowly_drops_lock() reports the errno.
 *
 * Meanwhile groups may come and go.  Maps in flight are in &vfio_dma_container.flights: a
 * new domain receives the part that has been placed, and the one that takes the last
 * domain away unpins it.  Undo allocates nothing.
 *
 * Nothing is unmapped here but what a map that fails has placed.
 */

#include <kunit/visibility.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/export.h>
#include <linux/sched/signal.h>

#include "vfio_dma_account.h"
#include "vfio_dma_cut.h"
#include "vfio_dma_map.h"
#include "vfio_dma_extpin.h"
#include "vfio_dma_ledger.h"
#include "vfio_dma_vaddr.h"
#include "vfio_type1v3_trace.h"

/* Granules that one map may have where nothing limits them but memory */
#define GRANULES_MAX	BIT(20)

/* Is a range within the valid ranges? */
static inline bool is_valid_range(const struct vfio_dma_container *container,
				  unsigned long first, unsigned long last)
{
	lockdep_assert_held(&container->lock);

	return vfio_dma_iova_valid(container, vfio_dma_iova(first),
				   vfio_dma_iova(last) | ~PAGE_MASK);
}

/*
 * May a range be charged for?  Not if a page of it is mapped, being mapped, or not
 * to be had: the call must fail, and for as long as it is charged others could fail
 * at the limit.  An owner with CAP_IPC_LOCK has no limit, so nobody can fail at it:
 * that saves the look-up.
 */
static inline bool may_charge(struct vfio_dma_container *container,
			      const struct vfio_dma_map *map)
{
	struct vfio_xa_dma_run run;

	lockdep_assert_held(&container->lock);

	if (READ_ONCE(container->owner.lock_cap) &&
	    cap_raised(current_cap(), CAP_IPC_LOCK))
		return true;
	if (!is_valid_range(container, map->first, map->last))
		return false;
	if (map->first == map->last)
		return !vfio_dma_record_load(&container->record, map->first);
	return !vfio_dma_record_next(&container->record, map->first, map->last,
				     &run);
}

/* A record that asks the IO page tables must not take what is left there for mapped. */
static void note_stuck(struct vfio_dma_container *container,
		       struct vfio_dma_space *space,
		       unsigned long first, unsigned long last)
{
	lockdep_assert_held(&container->lock);

	if (likely(!space->stuck))
		return;
	space->stuck = false;
	vfio_dma_record_leaked(&container->record, first, last);
}

/*
 * Enter @npages pinned pages into the record and the IO page tables, or into neither:
 * then they are unpinned.
 */
static __always_inline int enter_pages(struct vfio_dma_container *container,
				       unsigned long first, unsigned long npages,
				       unsigned long word, struct page **pages)
{
	struct vfio_dma_record *record = &container->record;
	unsigned long last = first + npages - 1;
	int ret, is_open = -EINVAL;

	lockdep_assert_held(&container->lock);

	if (!is_valid_range(container, first, last))
		goto err_unpin;
	is_open = vfio_dma_record_enter(record, first, last, word);
	if (unlikely(is_open < 0))
		goto err_unpin;

	ret = vfio_dma_space_map_pages(&container->space, vfio_dma_iova(first),
				       pages, npages,
				       (word & VFIO_DMA_RIGHTS) | IOMMU_CACHE);
	if (unlikely(ret)) {
		vfio_dma_record_enter_cancel(record, first, last);
		note_stuck(container, &container->space, first, last);
	} else if (unlikely(is_open)) {
		vfio_dma_record_enter_end(record, first, last);
	}
	return ret;

err_unpin:
	unpin_user_pages(pages, npages);
	return is_open;
}

/*
 * Enter pages that have been mapped in the ledger.  Returns how many are charged for
 * others already.
 */
static noinline unsigned long hold_pages(struct vfio_dma_ledger *ledger,
					 struct page **pages,
					 unsigned long npages)
{
	unsigned long known = npages, done;
	struct vfio_dma_extent extent;

	mutex_lock(&ledger->lock);
	for (done = 0; done < npages; done += extent.npages) {
		vfio_dma_first_extent(pages + done, npages - done, &extent);
		known -= vfio_dma_ledger_enter(ledger, extent.pfn, extent.npages);
	}
	mutex_unlock(&ledger->lock);
	return known;
}

/*
 * Map the first of several ranges in one go, those that cannot have superpages and
 * have at most @room pages together, for which there is room in @pages: nobody sees
 * a state between not mapped and mapped.
 *
 * Ends at the first range that cannot be mapped so, and returns how many entries are
 * before it.  Ranges from there on are untouched.
 */
static __always_inline unsigned int
map_now_drops_lock(struct vfio_dma_container *container,
		   const struct vfio_dma_map *maps, unsigned int nr,
		   unsigned long room, struct page **pages)
{
	unsigned long pinned = 0, entered = 0, mapped = 0, npages = 0, more, known = 0;
	const struct vfio_dma_map *map, *end = maps + nr;
	unsigned long epoch = container->epoch;

	lockdep_assert_held(&container->lock);

	for (map = maps; map < end; map += map->nr_entries) {
		more = vfio_dma_map_npages(map);
		/* BIG needs START, which is set while pages are reserved. */
		if (more > room - npages || map->word & VFIO_XA_DMA_BIG ||
		    !may_charge(container, map))
			break;
		npages += more;
	}
	if (!npages)
		return 0;

	container->pinning++;
	mutex_unlock(&container->lock);

	if (vfio_dma_charge(&container->owner, npages))
		npages = 0;
	for (map = maps; pinned < npages; map += map->nr_entries) {
		more = vfio_dma_map_npages(map);
		if (!vfio_dma_pin_now(map->vaddr, more,
				      map->word & VFIO_XA_DMA_WRITE,
				      pages + pinned))
			break;
		pinned += more;
		if (pinned < npages && fatal_signal_pending(current))
			break;
	}

	mutex_lock(&container->lock);
	container->pinning--;
	map = maps;
	if (likely(container->epoch == epoch)) {
		for (; mapped < pinned; map += map->nr_entries) {
			/* enter_pages() unpins what it fails to enter. */
			entered += vfio_dma_map_npages(map);
			if (enter_pages(container, map->first, entered - mapped, map->word,
					pages + mapped))
				break;
			mapped = entered;
		}
	}
	if (unlikely(entered < pinned))
		unpin_user_pages(pages + entered, pinned - entered);
	if (unlikely(container->owner.ledger) && mapped)
		known = hold_pages(container->owner.ledger, pages, mapped);
	if (unlikely(mapped < npages || known))
		vfio_dma_give_back(&container->owner, npages - mapped,
				   npages - mapped + known);
	return map - maps;
}

/*
 * As map_now_drops_lock(), for one page of a single call, as most are.  Without loops and
 * arrays it takes 107 instructions less.  Returns whether the page is mapped.
 */
static __always_inline bool
map_page_drops_lock(struct vfio_dma_container *container,
		    const struct vfio_dma_map *map)
{
	unsigned long epoch = container->epoch, first = map->first, known = 0;
	unsigned long vaddr = map->vaddr, word = map->word;
	struct page *page __uninitialized;
	bool pinned = false, mapped = false;
	int ret;

	lockdep_assert_held(&container->lock);

	if (word & VFIO_XA_DMA_BIG || !may_charge(container, map))
		return false;

	container->pinning++;
	mutex_unlock(&container->lock);
	ret = vfio_dma_charge(&container->owner, 1);
	if (likely(!ret))
		pinned = vfio_dma_pin_now(vaddr, 1, word & VFIO_XA_DMA_WRITE,
					  &page);
	mutex_lock(&container->lock);
	container->pinning--;
	if (unlikely(ret))
		return false;

	if (likely(pinned && container->epoch == epoch))
		mapped = !enter_pages(container, first, 1, word, &page);
	else if (pinned)
		unpin_user_page(page);
	if (unlikely(container->owner.ledger) && mapped)
		known = hold_pages(container->owner.ledger, &page, 1);
	if (unlikely(!mapped || known))
		vfio_dma_give_back(&container->owner, !mapped, !mapped + known);
	return mapped;
}

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

/* Enter what was placed in the ledger, where the page of @flight->reserved is already. */
static void hold_extent(struct vfio_dma_container *container,
			struct vfio_dma_flight *flight,
			const struct vfio_dma_extent *extent)
{
	unsigned long charge = 0;

	lockdep_assert_held(&container->lock);

	if (unlikely(extent->pfn == flight->reserved && extent->npages == 1))
		flight->reserved = VFIO_DMA_NOT_RESERVED;
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

/* Charge for what a pin has and is not charged.  A page that is reserved needs none. */
static int charge_pinned(struct vfio_dma_container *container,
			 struct vfio_dma_flight *flight,
			 const struct vfio_dma_pin *pin)
{
	long missing = vfio_dma_pin_held(pin) - flight->credit;
	int ret;

	lockdep_assert_held(&container->lock);

	if (flight->reserved != VFIO_DMA_NOT_RESERVED)
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
 * for that, one that the ledger knows: that is reserved.
 *
 * Returns 0 with @pin->max of 0 if pages have to be placed first: then they are in the
 * ledger, and are charged for no longer if others hold them.  Called without the mutex, but
 * for a replay.
 */
static int charge_step(struct vfio_dma_container *container,
		       const struct vfio_dma_flight *flight,
		       struct vfio_dma_pin *pin, unsigned int max, long *credit,
		       unsigned long *reserved)
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

	ret = vfio_dma_pin_reserve(owner, pin->vaddr, write, true, reserved);
	/* Device memory is not charged; what else is there, the pin finds out. */
	return ret == -EFAULT ? 0 : ret;
}

/*
 * Has the step pinned the page that is reserved for it, or none, as it found device memory?
 * Any other page has come to the address meanwhile and is not charged: it is unpinned, and
 * the pin steps back.
 */
static bool is_reserved(struct vfio_dma_pin *pin, unsigned long reserved)
{
	if (!pin->size || page_to_pfn(pin->pages[0]) == reserved)
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
			       unsigned long *reserved)
{
	unsigned int max = pin->max, retries = RESERVE_RETRIES;
	long was = *credit;
	int ret;

	do {
		ret = charge_step(container, flight, pin, max, credit, reserved);
		if (ret || !pin->max)
			break;
		ret = vfio_dma_pin_step(pin);
		if (ret || *credit > was || *credit > 0 ||
		    is_reserved(pin, *reserved))
			break;
		vfio_dma_pin_unreserve(&container->owner, *reserved);
		*reserved = VFIO_DMA_NOT_RESERVED;
		ret = fatal_signal_pending(current) ? -EINTR : -ENOMEM;
	} while (ret == -ENOMEM && retries--);

	/* A reserved page is not held back for a longer extent. */
	if (!pin->max || *reserved != VFIO_DMA_NOT_RESERVED)
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
	unsigned long reserved;
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
		reserved = VFIO_DMA_NOT_RESERVED;
		if (fatal_signal_pending(current))
			ret = -EINTR;
		else if (unlikely(flight->tight))
			ret = charge_and_pin_step(container, flight, &pin,
						  &credit, &reserved);
		else
			ret = vfio_dma_pin_step(&pin);
		if (drop)
			mutex_lock(&container->lock);
		flight->credit += credit - before;
		flight->reserved = reserved;
		if (flight->state != VFIO_DMA_UNPLACED && !ret)
			ret = place_step(container, flight, &pin);
		if (unlikely(flight->reserved != VFIO_DMA_NOT_RESERVED))
			vfio_dma_pin_unreserve(&container->owner,
					       flight->reserved);
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

/* Where a charge does not bound what START takes for each granule, a number does. */
static bool too_many_granules(const struct vfio_dma_map *map)
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
	    !too_many_granules(flight->map)) {
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

/*
 * Take back what has been placed.  Pages that an IOMMU driver fails to give back stay
 * charged, and leave the charge of the map.
 */
static void undo_flight(struct vfio_dma_container *container,
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
 * vfio_dma_unplace_maps() - take back what maps in flight have placed
 * @container: a container, the last domain of which is about to go
 *
 * What these maps have reserved in the record stays.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_unplace_maps(struct vfio_dma_container *container)
{
	struct vfio_dma_flight *flight;

	lockdep_assert_held(&container->lock);

	list_for_each_entry(flight, &container->flights, next) {
		undo_flight(container, flight);
		flight->state = VFIO_DMA_UNPLACED;
	}
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_unplace_maps);

/* Charge, pin and place what has been reserved. */
static int fill_drops_lock(struct vfio_dma_container *container,
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

/* Domains may have come since the arguments were checked. */
static bool fits_pgsize(const struct vfio_dma_container *container,
			const struct vfio_dma_map *map)
{
	unsigned long mask = (vfio_dma_pgsize(container) >> PAGE_SHIFT) - 1;

	lockdep_assert_held(&container->lock);

	return !((map->first | (map->last + 1) | map->vaddr >> PAGE_SHIFT) &
		 mask) && map->granule > mask;
}

/* Without a domain nothing is pinned, and every IOVA is valid. */
static int map_without_domain(struct vfio_dma_container *container,
			      const struct vfio_dma_map *map)
{
	struct vfio_dma_record *record = &container->record;
	int ret;

	lockdep_assert_held(&container->lock);

	if (!(map->word & VFIO_XA_DMA_BIG))
		return vfio_dma_record_insert(record, map->first, map->last,
					      map->word);
	if (too_many_granules(map))
		return -ENOMEM;

	/* START is set before the words can join others. */
	ret = vfio_dma_record_reserve(record, map->first, map->last, map->word);
	if (ret)
		return ret;
	ret = vfio_dma_cut_set_starts(record, map->first, map->last,
				      map->granule);
	if (ret)
		vfio_dma_record_cancel(record, map->first, map->last);
	else
		vfio_dma_record_commit(record, map->first, map->last);
	return ret;
}

/* Map a range, whatever it takes. */
static int map_slowly_drops_lock(struct vfio_dma_container *container,
				 const struct vfio_dma_map *map)
{
	struct vfio_dma_flight flight = {
		.map = map,
		.state = VFIO_DMA_PLACING,
		.space = &container->space,
	};
	struct vfio_dma_record *record = &container->record;
	unsigned long tried;
	int ret;

	lockdep_assert_held(&container->lock);

	if (!fits_pgsize(container, map))
		return -EINVAL;
	if (!vfio_dma_has_domain(container))
		return map_without_domain(container, map);

	ret = vfio_dma_record_reserve(record, map->first, map->last, map->word);
	if (ret)
		return ret;
	ret = is_valid_range(container, map->first, map->last) ?
	      fill_drops_lock(container, &flight) : -EINVAL;
	/* iommu_map() hands on what a driver returns. */
	if (WARN_ON_ONCE(ret > 0))
		ret = -EIO;
	if (ret) {
		/* The last attempt was for at most an extent. */
		tried = min(map->last, map->first + flight.placed +
				       VFIO_DMA_EXTENT_MAX - 1);
		undo_flight(container, &flight);
		vfio_dma_record_cancel(record, map->first, map->last);
		note_stuck(container, flight.space, map->first, tried);
	} else {
		vfio_dma_record_commit(record, map->first, map->last);
	}
	/* Below 0 if more stays charged for leaked pages than the map had been charged */
	vfio_dma_give_back(&container->owner, flight.credit, flight.credit);
	return ret;
}

/**
 * vfio_dma_map_drops_lock() - map the first of several ranges
 * @container: the container
 * @maps: ranges that have been checked; each is where its first entry is
 * @nr: number of entries, not 0
 * @room: pages that may be pinned together; 0 if that has been tried
 * @pages: room for so many
 *
 * The caller becomes the owner, and calls vfio_dma_put_owner() if that fails.
 *
 * Context: Process context, may sleep for as long as user space needs to provide
 * memory.  Called with the container's mutex held, returns with it held; it may be
 * dropped in between.
 * Return: number of entries that are mapped, not 0.  An errno if the first range
 * cannot be: -ENODEV without a group; -EPERM for another process than the owner, or
 * for device memory that is not allowed; -EEXIST if a page of it is mapped; -EINVAL
 * outside of the valid ranges; -ENOMEM at a limit or without memory; -EFAULT if there
 * is no user memory; -EINTR on a fatal signal; or what else iommu_map() returns.
 */
int vfio_dma_map_drops_lock(struct vfio_dma_container *container,
			    const struct vfio_dma_map *maps, unsigned int nr,
			    unsigned long room, struct page **pages)
{
	unsigned int done;
	int ret;

	lockdep_assert_held(&container->lock);

	ret = vfio_dma_become_owner(container);
	if (unlikely(ret > 0)) {
		vfio_dma_enter_others_drops_lock(container);
		/* The mutex was dropped: the last group may be gone. */
		ret = vfio_dma_become_owner(container);
	}
	if (ret < 0)
		return ret;
	if (vfio_dma_has_domain(container)) {
		done = map_now_drops_lock(container, maps, nr, room, pages);
		if (likely(done))
			return done;
		/* The mutex was dropped: the last group may be gone. */
		ret = vfio_dma_become_owner(container);
	}
	if (ret >= 0)
		ret = map_slowly_drops_lock(container, maps);
	return ret ?: maps->nr_entries;
}

/**
 * vfio_dma_map_replay() - pin and place in the first domain what is mapped without
 * @container: the container
 * @space: the first domain; it is not the container's yet
 * @run: what is mapped, of one iommu_map() call as far as user memory tells
 *
 * If it fails nothing of the run is placed, or pinned for it.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0, or an errno as vfio_dma_map_drops_lock().
 */
int vfio_dma_map_replay(struct vfio_dma_container *container,
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
		undo_flight(container, &flight);
	}
	vfio_dma_give_back(&container->owner, flight.credit - alone,
			   flight.credit - charged);
	return ret;
}

/* Map a range of a single call.  Out of line, as one page needs no array. */
static noinline int map_range_drops_lock(struct vfio_dma_container *container,
					 const struct vfio_dma_map *map,
					 unsigned long room)
{
	struct page *pages[VFIO_DMA_PIN_INLINE] __uninitialized;
	int ret;

	lockdep_assert_held(&container->lock);

	ret = vfio_dma_map_drops_lock(container, map, 1,
				      min(room, ARRAY_SIZE(pages)), pages);
	if (unlikely(ret < 0))
		vfio_dma_put_owner(container);
	return min(ret, 0);
}

/**
 * vfio_dma_do_map() - VFIO_IOMMU_MAP_DMA
 * @container: the container
 * @args: arguments with flags that are known
 *
 * Context: Process context, may sleep for as long as user space needs to provide
 * memory.  Takes and releases the container's mutex.
 * Return: 0, or an errno as vfio_dma_map_check(), vfio_dma_map_drops_lock() or, with
 * VFIO_DMA_MAP_FLAG_VADDR, vfio_dma_update_vaddr(): -EOPNOTSUPP if the record has no
 * addresses.
 */
int vfio_dma_do_map(struct vfio_dma_container *container,
		    const struct vfio_iommu_type1_dma_map *args)
{
	bool update = args->flags & VFIO_DMA_MAP_FLAG_VADDR;
	struct vfio_dma_map map __uninitialized;
	enum vfio_dma_op op = VFIO_DMA_OP_MAP;
	unsigned long room = VFIO_DMA_PIN_INLINE;
	int ret;

	/* An address is updated, or a range mapped with some access. */
	if (args->flags & (VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE) ?
	    update : !update || args->flags & VFIO_DMA_MAP_GRANULE_MASK)
		return -EINVAL;
	if (unlikely(update && !vfio_dma_record_has_vaddr(&container->record)))
		return -EOPNOTSUPP;

	if (mutex_lock_killable(&container->lock))
		return -EINTR;

	if (unlikely(update && container->owner.mm &&
		     container->owner.mm != current->mm))
		vfio_dma_prepare_move_drops_lock(container);
	map.nr_entries = 1;
	ret = vfio_dma_map_check(container, vfio_dma_pgsize(container) - 1,
				 args->flags, args->iova, args->vaddr,
				 args->size, &map);
	if (ret)
		goto out_unlock;

	if (update) {
		op = VFIO_DMA_OP_VADDR;
		ret = vfio_dma_update_vaddr(container, map.first, map.last,
					    map.vaddr);
	} else {
		if (map.first == map.last &&
		    likely(container->owner.mm == current->mm &&
			   vfio_dma_has_domain(container))) {
			if (map_page_drops_lock(container, &map))
				goto out_count;
			room = 0;
		}
		ret = map_range_drops_lock(container, &map, room);
	}
out_count:
	vfio_dma_count(container, op, ret ? 0 : args->size >> PAGE_SHIFT, ret);
out_unlock:
	if (trace_type1v3_map_enabled())
		trace_type1v3_map(container->id, args->iova, args->size,
				  args->vaddr, args->flags, ret);
	mutex_unlock(&container->lock);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_do_map, "VFIO_DMA");
