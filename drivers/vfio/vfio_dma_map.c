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
 * Charge, pin and place, for more than a few pages, are in vfio_dma_flight.c: meanwhile
 * groups may come and go.
 *
 * Nothing is unmapped here.
 */

#include <kunit/visibility.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/export.h>
#include <linux/sched/signal.h>

#include "vfio_dma_account.h"
#include "vfio_dma_cut.h"
#include "vfio_dma_map.h"
#include "vfio_dma_ledger.h"
#include "vfio_dma_vaddr.h"
#include "vfio_type1v3_trace.h"

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
 * then they are unpinned.  Inline in both callers it saves 35 instructions of a page.
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
static unsigned long hold_pages(struct vfio_dma_ledger *ledger,
				struct page **pages, unsigned long npages)
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
static unsigned int
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
	if (vfio_dma_flight_too_many_granules(map))
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
	      vfio_dma_flight_fill_drops_lock(container, &flight) : -EINVAL;
	/* iommu_map() hands on what a driver returns. */
	if (WARN_ON_ONCE(ret > 0))
		ret = -EIO;
	if (ret) {
		/* The last attempt was for at most an extent. */
		tried = min(map->last, map->first + flight.placed +
				       VFIO_DMA_EXTENT_MAX - 1);
		vfio_dma_flight_undo(container, &flight);
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

/* Map a range of a single call */
static int map_range_drops_lock(struct vfio_dma_container *container,
				const struct vfio_dma_map *map, unsigned long room)
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
