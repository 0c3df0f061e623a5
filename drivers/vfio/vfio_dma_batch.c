// SPDX-License-Identifier: GPL-2.0-only
/*
 * Many maps and unmaps in one call
 *
 * The entries are done in order, each as if it were a call of its own.  Entries of
 * a kind that follow each other are treated together where that makes no difference
 * to any result: entries that also continue each other, in IOVA and user memory,
 * make one unit, which is pinned, mapped or unmapped as a whole, and units that are
 * small are entered with the mutex held once.  A unit of several entries that
 * cannot be treated as a whole is split, so that each entry gets its own errno.
 *
 * How a range is mapped or unmapped is not decided here.
 */

#include <linux/export.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include <uapi/linux/vfio_type1v3.h>

#include "vfio_dma_batch.h"
#include "vfio_dma_map.h"
#include "vfio_dma_extpin.h"
#include "vfio_dma_unmap.h"
#include "vfio_type1v3_trace.h"

/**
 * struct vfio_dma_batch - a batch being worked off
 * @container: the container
 * @flags: VFIO_IOMMU_TYPE1V3_BATCH_FLAG_*
 * @nr: length of @entries and of @units
 * @entries: the user's entries
 * @units: a unit is at the index of its first entry
 * @pages: room for a page for each entry
 * @failed: entries that have failed
 * @ended: no further entry is to be done
 * @epoch: &vfio_dma_container.epoch when the units were made
 *
 * Local to its caller, needs no lock.
 */
struct vfio_dma_batch {
	struct vfio_dma_container *container;
	u32 flags;
	unsigned int nr;
	struct vfio_iommu_type1v3_batch_entry *entries;
	struct vfio_dma_map *units;
	struct page **pages;
	unsigned int failed;
	bool ended;
	unsigned long epoch;
};

static void fail_entry(struct vfio_dma_batch *batch, unsigned int i, int ret)
{
	/* Pinning has two names for a fatal signal. */
	if (ret == -ERESTARTSYS)
		ret = -EINTR;
	batch->entries[i].result = ret;
	batch->failed++;
	/* A process with a fatal signal is about to die. */
	if (ret == -EINTR ||
	    !(batch->flags & VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE))
		batch->ended = true;
}

static inline int
check_entry(struct vfio_dma_container *container,
	    const struct vfio_iommu_type1v3_batch_entry *entry, u64 mask,
	    struct vfio_dma_map *unit)
{
	u32 access = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
	u64 iova_last;
	int ret;

	lockdep_assert_held(&container->lock);

	if (!(entry->flags & VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP)) {
		if (entry->flags & ~(access | VFIO_DMA_MAP_GRANULE_MASK) ||
		    !(entry->flags & access))
			return -EINVAL;
		return vfio_dma_map_check(container, mask, entry->flags,
					  entry->iova, entry->vaddr,
					  entry->size, unit);
	}

	if (entry->flags != VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP || entry->vaddr)
		return -EINVAL;
	ret = vfio_dma_check_range(entry->iova, entry->size, mask, &iova_last);
	if (ret)
		return ret;
	unit->first = entry->iova >> PAGE_SHIFT;
	unit->last = iova_last >> PAGE_SHIFT;
	/* No mapping has this word. */
	unit->word = 0;
	return 0;
}

/*
 * Make units of the entries from @i on that are well-formed and of one kind, and
 * return where those end.  The result of that entry says whether it is malformed.
 */
static unsigned int make_units(struct vfio_dma_batch *batch,
			       unsigned int i)
{
	struct vfio_iommu_type1v3_batch_entry *entry = &batch->entries[i];
	struct vfio_dma_map *new = &batch->units[i], *unit = NULL;
	u32 kind = entry->flags & VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP;
	u64 mask = vfio_dma_pgsize(batch->container) - 1;

	lockdep_assert_held(&batch->container->lock);

	batch->epoch = batch->container->epoch;
	for (; i < batch->nr; i++, entry++, new++) {
		if ((entry->flags & VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP) != kind)
			break;
		entry->result = check_entry(batch->container, entry, mask, new);
		if (unlikely(entry->result))
			break;
		/* An IOMMU page does not span what two entries map. */
		if (unit && new->first == unit->last + 1 &&
		    new->word == unit->word && !(new->word & VFIO_XA_DMA_BIG)) {
			unit->last = new->last;
			unit->nr_entries++;
		} else {
			unit = new;
			unit->nr_entries = 1;
		}
	}
	return i;
}

/* Make two units of one: its first entry, and what follows that. */
static void split_unit(struct vfio_dma_batch *batch, unsigned int i)
{
	unsigned long npages = batch->entries[i].size >> PAGE_SHIFT;
	struct vfio_dma_map *unit = &batch->units[i], *rest = unit + 1;

	*rest = *unit;
	rest->first += npages;
	rest->vaddr += npages << PAGE_SHIFT;
	rest->nr_entries--;
	unit->last = rest->first - 1;
	unit->nr_entries = 1;
}

/* Make a unit of each entry of one. */
static void split_all(struct vfio_dma_batch *batch, unsigned int i)
{
	while (batch->units[i].nr_entries > 1)
		split_unit(batch, i++);
}

/*
 * Map the entries from @i on, up to @end, or to where the units have to be made
 * anew, because groups have come or gone.  Returns the first that has not been
 * done.
 */
static unsigned int
map_entries_drops_lock(struct vfio_dma_batch *batch, unsigned int i,
		       unsigned int end)
{
	struct vfio_dma_container *container = batch->container;
	unsigned int room = batch->nr;
	int ret;

	lockdep_assert_held(&container->lock);

	while (i < end && !batch->ended && batch->epoch == container->epoch) {
		if (unlikely(fatal_signal_pending(current))) {
			fail_entry(batch, i++, -EINTR);
			break;
		}
		ret = vfio_dma_map_drops_lock(container, &batch->units[i],
					      end - i, room, batch->pages);
		if (ret > 0)
			i += ret;
		else if (batch->units[i].nr_entries == 1)
			fail_entry(batch, i++, ret);
		else
			split_all(batch, i);
		/* Pages pinned behind a failing entry were in vain: retry with one, then more. */
		room = ret < 0 ? 1 : min(2 * room, batch->nr);
		cond_resched();
	}
	vfio_dma_put_owner(container);
	return i;
}

/* Is all of a range mapped, with equal words? */
static bool is_run(struct vfio_dma_container *container, unsigned long first,
		   unsigned long last)
{
	unsigned long pos = first, word;
	struct vfio_xa_dma_run run;

	lockdep_assert_held(&container->lock);

	do {
		if (!vfio_dma_record_next(&container->record, pos, last, &run) ||
		    run.first != pos || run.word & VFIO_XA_DMA_PENDING)
			return false;
		if (pos == first)
			word = run.word;
		if (run.word != word)
			return false;
		pos = run.last + 1;
	} while (run.last < last);
	return true;
}

/*
 * Unmapping a unit has failed after @npages: tell its entries so.  All of it was
 * mapped, and has gone in order.  A signal comes between pages.  An IOMMU driver
 * fails with pages that have gone nevertheless, it is not known which: each entry
 * that has been tried fails.  Returns the first that has not, with which a unit
 * begins.
 */
static unsigned int fail_unmap(struct vfio_dma_batch *batch,
			       unsigned int i, unsigned long npages,
			       int ret)
{
	unsigned long before = ret == -EINTR ? npages : npages - 1;
	unsigned long more;

	while (batch->units[i].nr_entries > 1) {
		split_unit(batch, i);
		more = batch->entries[i].size >> PAGE_SHIFT;
		if (more > before)
			break;
		before -= more;
		npages -= more;
		if (ret == -EIO)
			fail_entry(batch, i, ret);
		i++;
	}
	batch->entries[i].size = (u64)npages << PAGE_SHIFT;
	fail_entry(batch, i, ret);
	return i + 1;
}

/* Units to look back at for one that has gone; to synchronise costs as much. */
#define GONE_SCAN	64

/**
 * struct vfio_dma_gone - what a batch has unmapped since IOMMUs were synchronised
 * @from: the first unit of it
 * @last: the greatest page
 * @many: there are units of more than one page
 * @seen: a bit for each page by itself; pages share bits
 *
 * An IOMMU that is asked what is mapped may remember that until then.  Local to its
 * caller.
 */
struct vfio_dma_gone {
	unsigned int from;
	unsigned long last;
	bool many;
	DECLARE_BITMAP(seen, 1024);
};

/* Out of line, as it is rare: that saves 8 instructions of an entry. */
static noinline bool is_gone(const struct vfio_dma_batch *batch,
			     const struct vfio_dma_gone *gone, unsigned int i)
{
	const struct vfio_dma_map *unit = &batch->units[i], *other;
	unsigned int j;

	if (i - gone->from > GONE_SCAN)
		return true;
	for (j = gone->from; j < i; j += other->nr_entries) {
		other = &batch->units[j];
		if (other->first <= unit->last && other->last >= unit->first)
			return true;
	}
	return false;
}

/*
 * May a part of unit @i have gone already?  Not where units ascend, nor is a page by
 * itself compared with others unless it shares a bit with one: that saves 300
 * instructions of a page where they do not ascend.
 */
static bool may_be_gone(const struct vfio_dma_batch *batch,
			struct vfio_dma_gone *gone, unsigned int i)
{
	const struct vfio_dma_map *unit = &batch->units[i];
	unsigned int bit = (unit->first ^ unit->first >> 10) % 1024;
	bool ascends = unit->first > gone->last, many = unit->first != unit->last;
	bool seen = !many && __test_and_set_bit(bit, gone->seen);

	seen |= many | gone->many;
	gone->many |= many;
	gone->last = max(gone->last, unit->last);
	return seen && !ascends && is_gone(batch, gone, i);
}

/* Unmap the entries from @i on, up to @end.  Returns the first not done. */
static unsigned int
unmap_entries_drops_lock(struct vfio_dma_batch *batch, unsigned int i,
			 unsigned int end)
{
	struct vfio_dma_container *container = batch->container;
	struct vfio_dma_unmap op = {
		.container = container,
		.interruptible = true,
	};
	bool asks_iommu = !vfio_dma_record_has_vaddr(&container->record);
	unsigned long npages, first, last, mask;
	struct vfio_dma_gone gone = { .from = i };
	struct vfio_dma_map *unit;
	int ret;

	lockdep_assert_held(&container->lock);

	while (i < end && !batch->ended) {
		unit = &batch->units[i];
		if (unlikely(fatal_signal_pending(current))) {
			i = fail_unmap(batch, i, 0, -EINTR);
			break;
		}
		first = unit->first;
		last = unit->last;
		if (asks_iommu && unlikely(may_be_gone(batch, &gone, i))) {
			vfio_dma_unmap_finish(&op);
			memset(&gone, 0, sizeof(gone));
			gone.from = i;
			may_be_gone(batch, &gone, i);
		}
		/* Waiting for drivers drops the mutex: others may unmap a part. */
		ret = 0;
		if (vfio_dma_has_extpins(container)) {
			vfio_dma_unmap_finish(&op);
			ret = vfio_dma_extpin_release_drops_lock(container, first,
								 last, true);
		}
		/* Domains may have come since the entries were checked. */
		mask = 0;
		if (unlikely(container->epoch != batch->epoch))
			mask = (vfio_dma_pgsize(container) - 1) >> PAGE_SHIFT;
		/* Only if all of it is mapped is it known what each entry gets. */
		if (unit->nr_entries > 1 && ((first | (last + 1)) & mask ||
					     !is_run(container, first, last)))
			split_unit(batch, i);

		op.npages = 0;
		if (!ret && (first | (unit->last + 1)) & mask)
			ret = -EINVAL;
		if (!ret)
			ret = vfio_dma_unmap_range(&op, first, unit->last);
		npages = op.npages;
		if (likely(!ret)) {
			if (unit->nr_entries == 1)
				batch->entries[i].size = (u64)npages << PAGE_SHIFT;
			i += unit->nr_entries;
			continue;
		}

		if (ret == -EINVAL)
			fail_entry(batch, i++, ret);
		else
			i = fail_unmap(batch, i, npages, ret);
	}
	vfio_dma_unmap_finish(&op);
	return i;
}

static void
trace_entry(unsigned long id, bool unmap, unsigned long npages,
	    const struct vfio_iommu_type1v3_batch_entry *entry)
{
	if (unmap)
		trace_type1v3_unmap(id, entry->iova, entry->size,
				    (u64)npages << PAGE_SHIFT, entry->flags,
				    entry->result);
	else
		trace_type1v3_map(id, entry->iova, entry->size, entry->vaddr,
				  entry->flags, entry->result);
}

/*
 * An entry is counted and traced as the call that it stands for, one that has not
 * been tried is only traced.  The batch itself has not failed, whatever its entries
 * have: the ioctl returns their number.
 */
static void count_batch(struct vfio_dma_batch *batch)
{
	bool trace = trace_type1v3_map_enabled() || trace_type1v3_unmap_enabled();
	const struct vfio_iommu_type1v3_batch_entry *entry = batch->entries;
	const struct vfio_iommu_type1v3_batch_entry *end = entry + batch->nr;
	struct vfio_dma_container *container = batch->container;
	unsigned long npages, maps = 0, unmaps = 0, mapped = 0, unmapped = 0;
	bool unmap;
	int ret;

	for (; entry < end; entry++) {
		unmap = entry->flags & VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP;
		ret = entry->result;
		npages = entry->size >> PAGE_SHIFT;
		if (unlikely(ret)) {
			/* An unmap can fail half-way, and says how far it came. */
			if (!unmap || (ret != -EINTR && ret != -EIO))
				npages = 0;
			if (ret != -ECANCELED)
				vfio_dma_count(container,
					       unmap ? VFIO_DMA_OP_UNMAP :
					       VFIO_DMA_OP_MAP, 0, ret);
		}
		if (unmap) {
			unmaps += !ret;
			unmapped += npages;
		} else {
			maps += !ret;
			mapped += npages;
		}
		if (unlikely(trace))
			trace_entry(container->id, unmap, npages, entry);
	}
	/* Here and not in the loop, they save 5 instructions of an entry. */
	container->counts[VFIO_DMA_OP_MAP].done += maps;
	container->counts[VFIO_DMA_OP_MAP].npages += mapped;
	container->counts[VFIO_DMA_OP_UNMAP].done += unmaps;
	container->counts[VFIO_DMA_OP_UNMAP].npages += unmapped;
	vfio_dma_count(container, VFIO_DMA_OP_BATCH, mapped + unmapped, 0);
	trace_type1v3_batch(container->id, batch->nr, batch->flags,
			    batch->failed);
}

static int work_off(struct vfio_dma_batch *batch)
{
	struct vfio_dma_container *container = batch->container;
	unsigned int i = 0, end;

	if (mutex_lock_killable(&container->lock))
		return -EINTR;

	while (i < batch->nr && !batch->ended) {
		end = make_units(batch, i);
		if (end == i) {
			fail_entry(batch, i, batch->entries[i].result);
			i++;
		} else if (batch->entries[i].flags &
			   VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP) {
			i = unmap_entries_drops_lock(batch, i, end);
		} else {
			i = map_entries_drops_lock(batch, i, end);
		}
		cond_resched();
	}
	while (i < batch->nr)
		batch->entries[i++].result = -ECANCELED;
	count_batch(batch);
	mutex_unlock(&container->lock);
	return 0;
}

/* Batches of up to this many entries need no memory but the stack, for their three arrays. */
#define BATCH_SMALL	8

/**
 * vfio_dma_do_batch() - VFIO_IOMMU_TYPE1V3_BATCH
 * @container: the container
 * @header: the batch, with a flag and a number of entries that are valid
 *
 * Context: Process context, may sleep for as long as user space needs to provide
 * memory.  Takes and releases the container's mutex.
 * Return: number of entries that have failed; -EFAULT if the entries cannot be read, or
 * their results not be written; -ENOMEM; -EINTR on a fatal signal.
 */
long vfio_dma_do_batch(struct vfio_dma_container *container,
		       const struct vfio_iommu_type1v3_batch *header)
{
	struct {
		struct vfio_iommu_type1v3_batch_entry entry;
		struct vfio_dma_map unit;
		struct page *page;
	} small[BATCH_SMALL] __uninitialized;
	struct vfio_dma_batch batch = {
		.container = container,
		.flags = header->flags,
		.nr = header->nr_entries,
	};
	void *room = small;
	long ret = -EFAULT;

	if (batch.nr > ARRAY_SIZE(small))
		room = kvmalloc_array(batch.nr, sizeof(*small), VFIO_DMA_GFP);
	if (!room)
		return -ENOMEM;
	batch.entries = room;
	batch.units = (void *)(batch.entries + batch.nr);
	batch.pages = (void *)(batch.units + batch.nr);

	if (copy_from_user(batch.entries, u64_to_user_ptr(header->entries),
			   batch.nr * sizeof(*batch.entries)))
		goto out_free;

	ret = work_off(&batch);
	if (ret)
		goto out_free;

	ret = batch.failed;
	if (copy_to_user(u64_to_user_ptr(header->entries), batch.entries,
			 batch.nr * sizeof(*batch.entries)))
		ret = -EFAULT;
out_free:
	if (room != small)
		kvfree(room);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_do_batch, "VFIO_DMA");
