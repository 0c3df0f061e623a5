// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages that emulated devices have pinned
 *
 * Pins are in a store of their own, a word for each page.  Pages that are mapped are
 * pinned for a domain as well, and charged once; a page that the domains do not have,
 * or have no more, is charged here.
 *
 * Pages have to be unpinned before they are unmapped, and only the drivers of the
 * devices can do that: they are asked with the container's mutex dropped.  This file
 * never unpins a page itself.
 */

#include <linux/sched/signal.h>

#include "vfio_dma_extpin.h"

/* Pages that drivers are asked for at a time, from 1 GiB to 1 GiB */
#define RELEASE_WINDOW	VFIO_DMA_EXTENT_MAX

/* How often a driver is asked to let go of pages that are to be unmapped */
#define RELEASE_RETRIES	10

/**
 * struct vfio_dma_release - a range that drivers are asked to unpin
 * @next: in &vfio_dma_container.releases
 * @first: first IOVA page
 * @last: last IOVA page
 * @interruptible: the caller gives up when it is killed
 *
 * Protected by the container's mutex.
 */
struct vfio_dma_release {
	struct list_head next;
	unsigned long first;
	unsigned long last;
	bool interruptible;
};

/* Pinned pages; with @charged only those that are charged on their own */
unsigned long __vfio_dma_extpin_count(struct vfio_dma_container *container,
				      unsigned long first, unsigned long last,
				      bool charged)
{
	struct vfio_xa_dma_run run;
	unsigned long n = 0;

	lockdep_assert_held(&container->lock);
	vfio_dma_for_each_run(&container->extpins, &run, first, last)
		if (!charged || run.word & VFIO_DMA_EXTPIN_CHARGED)
			n += vfio_dma_run_pages(&run);
	return n;
}

/**
 * vfio_dma_extpin_set() - replace what is known of a page that is pinned
 * @container: the container
 * @index: the page
 * @from: bits to clear
 * @to: bits to set then; @from and @to may be the old value and the new one
 *
 * Pins of one page at several addresses can be equal, and a run.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_extpin_set(struct vfio_dma_container *container,
			 unsigned long index, unsigned long from,
			 unsigned long to)
{
	lockdep_assert_held(&container->lock);

	vfio_xa_dma_cut(&container->extpins, index, index,
			GFP_KERNEL | __GFP_NOFAIL);
	vfio_xa_dma_change(&container->extpins, index, index, from, to);
}

/**
 * vfio_dma_extpin_charge_alone() - pages are charged on their own from now on
 * @container: the container
 * @first: first page of a range
 * @last: its last page
 * @charge: set to the number of pages that have to be charged for it
 *
 * Without a domain every page that is pinned is charged on its own.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: number of pages that were charged as a domain's until now.
 */
unsigned long vfio_dma_extpin_charge_alone(struct vfio_dma_container *container,
					   unsigned long first,
					   unsigned long last,
					   unsigned long *charge)
{
	struct vfio_xa_dma_run run;
	unsigned long n = 0, i;

	lockdep_assert_held(&container->lock);

	*charge = 0;
	if (!vfio_dma_has_extpins(container))
		return 0;
	vfio_dma_for_each_run(&container->extpins, &run, first, last) {
		if (run.word & VFIO_DMA_EXTPIN_CHARGED)
			continue;
		n += vfio_dma_run_pages(&run);
		/* Each page of a run is a hold of the same page frame. */
		for (i = run.first; i <= run.last; i++)
			*charge += vfio_dma_hold_nofail(&container->owner,
							vfio_dma_extpin_pfn(run.word));
	}
	if (!n)
		return 0;
	vfio_xa_dma_cut(&container->extpins, first, last,
			GFP_KERNEL | __GFP_NOFAIL);
	vfio_xa_dma_change(&container->extpins, first, last, 0,
			   VFIO_DMA_EXTPIN_CHARGED);
	return n;
}

/**
 * vfio_dma_extpin_share() - have pinned pages charged as pages of a domain
 * @container: the container
 * @domain: a domain that has just got [@first, @last]
 * @first: first page of the range
 * @last: its last page
 * @uncharged: set to the number of pages whose charge is the caller's now: those that no
 *	other container holds
 *
 * Where the domain has the page that is pinned it is charged for that from now on.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: number of pages that are not charged on their own any more.
 */
unsigned long vfio_dma_extpin_share(struct vfio_dma_container *container,
				    struct vfio_dma_domain *domain,
				    unsigned long first, unsigned long last,
				    unsigned long *uncharged)
{
	struct vfio_xa_dma_run run;
	unsigned long index, pfn, n = 0;

	lockdep_assert_held(&container->lock);
	*uncharged = 0;
	if (!vfio_dma_has_extpins(container))
		return 0;
	vfio_dma_for_each_run(&container->extpins, &run, first, last) {
		pfn = vfio_dma_extpin_pfn(run.word);
		for (index = run.first; index <= run.last; index++) {
			if (!vfio_dma_domain_maps_pfn(domain,
						      vfio_dma_iova(index), pfn))
				continue;
			vfio_dma_extpin_set(container, index,
					    VFIO_DMA_EXTPIN_CHARGED, 0);
			*uncharged += vfio_dma_unhold(&container->owner, pfn, 1);
			n++;
		}
	}
	return n;
}

/**
 * vfio_dma_extpin_leak() - forget pins of pages that are unmapped nevertheless
 * @container: the container
 * @first: first page of a range
 * @last: its last page
 *
 * Pages that a driver still uses can only be leaked, and stay charged.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_extpin_leak(struct vfio_dma_container *container,
			  unsigned long first, unsigned long last)
{
	unsigned long npages;

	lockdep_assert_held(&container->lock);

	npages = vfio_dma_extpin_count(container, first, last);
	if (!WARN_ONCE(npages,
		       "vfio_iommu_type1v3: a driver keeps pages that are unmapped\n"))
		return;
	vfio_dma_charge_lost(&container->owner, npages,
			     vfio_dma_extpin_count_charged(container, first, last));
	vfio_xa_dma_cut(&container->extpins, first, last,
			GFP_KERNEL | __GFP_NOFAIL);
	vfio_xa_dma_erase(&container->extpins, first, last);
}

/* As vfio_dma_extpin_releasing() */
bool __vfio_dma_extpin_releasing(const struct vfio_dma_container *container,
				 unsigned long index)
{
	const struct vfio_dma_release *release;

	lockdep_assert_held(&container->lock);
	list_for_each_entry(release, &container->releases, next)
		if (index >= release->first && index <= release->last)
			return true;
	return false;
}

/* Is a page still pinned that drivers were asked to unpin, and the caller alive? */
static bool must_ask(const struct vfio_dma_release *release,
		     struct vfio_dma_container *container, unsigned long index)
{
	lockdep_assert_held(&container->lock);

	return vfio_xa_dma_load(&container->extpins, index) &&
	       !(release->interruptible && fatal_signal_pending(current));
}

/* Have all drivers unpin what they have pinned of [@first, @last]. */
static void notify_drops_lock(struct vfio_dma_container *container,
			      unsigned long first, unsigned long last)
{
	struct vfio_device *device;

	lockdep_assert_held(&container->lock);

	mutex_unlock(&container->lock);
	mutex_lock(&container->devices_lock);
	list_for_each_entry(device, &container->devices, iommu_entry)
		device->ops->dma_unmap(device, vfio_dma_iova(first),
				       (u64)(last - first + 1) << PAGE_SHIFT);
	mutex_unlock(&container->devices_lock);
	cond_resched();
	mutex_lock(&container->lock);
}

/* The last of the pinned pages that follow page @index without a gap */
static unsigned long last_pin(struct vfio_dma_container *container,
			      unsigned long index)
{
	unsigned long end = index | (RELEASE_WINDOW - 1);
	struct vfio_xa_dma_run run;

	lockdep_assert_held(&container->lock);

	while (index < end &&
	       vfio_xa_dma_next(&container->extpins, index + 1, end, &run) &&
	       run.first == index + 1) {
		index = run.last;
		cond_resched();
	}
	return index;
}

/*
 * Have page @index unpinned, and of what follows it in the range as much as a
 * window holds.
 *
 * A driver may keep an object of several pages that it finds by the first one
 * alone, which need not be in the range.  If the page is still pinned, drivers
 * are told of its neighbours to the left, one by one as long as these are pinned:
 * no other object goes but those that begin between the first page of this one
 * and @index.  Then they are told of all that is pinned around it.
 */
static void release_page_drops_lock(struct vfio_dma_container *container,
				    const struct vfio_dma_release *release,
				    unsigned long index)
{
	unsigned int retries = RELEASE_RETRIES - 1, patience = 3;
	unsigned long first = index, last, bound;
	struct vfio_xa_dma_run run;

	lockdep_assert_held(&container->lock);

	/* A pinned page is mapped. */
	if (WARN_ON_ONCE(!vfio_dma_record_next(&container->record, index,
					       release->last, &run)))
		return;
	last = min(run.last, index | (RELEASE_WINDOW - 1));
	/* A driver may have to be asked again, and others are not to pay for it. */
	do {
		notify_drops_lock(container, index, last);
	} while (must_ask(release, container, index) && --patience);

	bound = index - min(index, RELEASE_WINDOW);
	while (must_ask(release, container, index) && first > bound &&
	       vfio_xa_dma_load(&container->extpins, first - 1)) {
		first--;
		notify_drops_lock(container, first, first);
	}

	while (must_ask(release, container, index) && retries--)
		notify_drops_lock(container, first,
				  max(last, last_pin(container, index)));
}

/**
 * vfio_dma_extpin_release_drops_lock() - have a range unpinned by the drivers
 * @container: the container
 * @first: first page of the range
 * @last: its last page
 * @interruptible: give up when the caller is about to die
 *
 * No new pins are made in the meantime, so that there is an end to it.  Pages that a
 * driver keeps in spite of being asked are leaked.
 *
 * Context: Process context, may sleep.  Called with the container's mutex held,
 * returns with it held; it is dropped in between.
 * Return: 0 if nothing of the range is pinned; -EINTR if @interruptible and the
 * caller is about to die.
 */
int vfio_dma_extpin_release_drops_lock(struct vfio_dma_container *container,
				       unsigned long first, unsigned long last,
				       bool interruptible)
{
	struct vfio_dma_release release = {
		.first = first,
		.last = last,
		.interruptible = interruptible,
	};
	struct vfio_xa_dma_run run;
	int ret = 0;

	lockdep_assert_held(&container->lock);

	list_add(&release.next, &container->releases);
	while (vfio_dma_has_extpins(container) &&
	       vfio_xa_dma_next(&container->extpins, first, last, &run)) {
		if (interruptible && fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		first = run.first;
		release_page_drops_lock(container, &release, first);
		if (must_ask(&release, container, first))
			vfio_dma_extpin_leak(container, first, first);
	}
	list_del(&release.next);
	return ret;
}
