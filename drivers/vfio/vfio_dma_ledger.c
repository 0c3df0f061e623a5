// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page frames that several containers of one address space hold
 *
 * A page that is held by several containers, or several times, is pinned as often but
 * charged once.  The ledger counts the holds of each page frame.  The key is the page
 * frame and never an address: after munmap() and mmap() the same address is another
 * page, and a file that is mapped twice is the same one.
 *
 * A hold can be missing, for want of memory or because it is older than the ledger.
 * Such a hold is alone: it is charged as if there were no ledger.  The charge of a page
 * depends on numbers only, not on whose holds they are:
 *
 *	holds in the ledger / VFIO_DMA_LEDGER_HOLDS, rounded up, + holds that are alone
 *
 * so it makes no difference whose hold is taken out when one ends.  One that ends where
 * the ledger has none was alone.  Nothing has to be undone when memory fails, therefore,
 * a ledger can be filled while pages come and go, and any hold may be the last one.
 *
 * Neighbouring page frames with equal numbers are one run of the store, so that memory
 * in large folios takes next to nothing.
 *
 * Nothing here charges: the caller is told how many pages to charge, or not to.  Nothing
 * here knows containers.
 */

#include <kunit/visibility.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "vfio_dma_gfp.h"
#include "vfio_dma_ledger.h"

#define COUNT_MASK	GENMASK(BITS_PER_LONG - 2, VFIO_XA_DMA_FLAG_BITS)
#define WORD_ONE	(VFIO_DMA_LEDGER_ONE | VFIO_DMA_LEDGER_FLAG)

/**
 * vfio_dma_ledger_alloc() - make an empty ledger
 *
 * Context: Process context, may sleep.
 * Return: the ledger, with one reference; %NULL without memory.
 */
struct vfio_dma_ledger *vfio_dma_ledger_alloc(void)
{
	struct vfio_dma_ledger *ledger = kzalloc_obj(*ledger, VFIO_DMA_GFP);

	if (!ledger)
		return NULL;
	mutex_init(&ledger->lock);
	mutex_init(&ledger->activation);
	vfio_xa_dma_init(&ledger->pages);
	refcount_set(&ledger->refs, 1);
	return ledger;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_ledger_alloc);

/**
 * vfio_dma_ledger_put() - let go of a ledger
 * @ledger: the ledger, or %NULL; the last one who has it frees it
 *
 * Pages that are in it then have been leaked, and stay charged.
 *
 * Context: Process context, may sleep.
 */
void vfio_dma_ledger_put(struct vfio_dma_ledger *ledger)
{
	if (!ledger || !refcount_dec_and_test(&ledger->refs))
		return;
	vfio_xa_dma_destroy(&ledger->pages);
	mutex_destroy(&ledger->activation);
	mutex_destroy(&ledger->lock);
	kfree(ledger);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_ledger_put);

/* One more hold of each page of a run.  Returns how many pages that is to be charged. */
static unsigned long enter_run(struct vfio_dma_ledger *ledger,
			       const struct vfio_xa_dma_run *run)
{
	unsigned long holds = vfio_dma_ledger_holds(run->word);

	lockdep_assert_held(&ledger->lock);

	vfio_xa_dma_change(&ledger->pages, run->first, run->last, COUNT_MASK,
			   (run->word & COUNT_MASK) + VFIO_DMA_LEDGER_ONE);
	return holds % VFIO_DMA_LEDGER_HOLDS ? 0 : run->last - run->first + 1;
}

/* The holds of a page frame; for one page that is less than vfio_xa_dma_next() */
static inline bool next_run(struct vfio_xa_dma *pages, unsigned long first,
			    unsigned long last, struct vfio_xa_dma_run *run)
{
	if (first != last)
		return vfio_xa_dma_next(pages, first, last, run);
	run->first = first;
	run->last = last;
	run->word = vfio_xa_dma_load(pages, first);
	return run->word;
}

/* As vfio_dma_ledger_enter(); with __GFP_NOFAIL nothing stays alone */
static unsigned long enter(struct vfio_dma_ledger *ledger, unsigned long pfn,
			   unsigned long npages, gfp_t gfp)
{
	unsigned long last = pfn + npages - 1, charge = 0, n;
	struct vfio_xa_dma *pages = &ledger->pages;
	struct vfio_xa_dma_run run;
	unsigned long word;
	int ret;

	lockdep_assert_held(&ledger->lock);

	/* A page that others hold, and that is a matter of one step */
	if (npages == 1) {
		word = vfio_xa_dma_add(pages, pfn, VFIO_DMA_LEDGER_ONE, 0);
		if (word)
			return !(vfio_dma_ledger_holds(word) % VFIO_DMA_LEDGER_HOLDS);
	}
	for (;;) {
		if (!next_run(pages, pfn, last, &run))
			run.first = last + 1;
		ret = 0;
		if (run.first > pfn) {
			/* Pages that nobody holds, as most are where memory differs */
			run.last = run.first - 1;
			run.first = pfn;
			n = run.last - pfn + 1;
			ret = vfio_xa_dma_insert(pages, pfn, run.last, WORD_ONE,
						 gfp);
			charge += n;
		} else {
			n = run.last - pfn + 1;
			ret = vfio_xa_dma_cut(pages, pfn, run.last, gfp);
			charge += ret ? n : enter_run(ledger, &run);
		}
		if (unlikely(ret)) {
			/* Memory for the rest would hardly be found either. */
			n = last - run.last;
			charge += n;
			WRITE_ONCE(ledger->alone,
				   ledger->alone + run.last - pfn + 1 + n);
			return charge;
		}
		if (run.last == last)
			return charge;
		pfn = run.last + 1;
		cond_resched();
	}
}

/**
 * vfio_dma_ledger_enter() - pages are held once more
 * @ledger: the ledger
 * @pfn: first page frame
 * @npages: number of pages, not 0
 *
 * A hold that cannot be entered for want of memory is alone, and so are all that follow.
 *
 * Context: Process context, may sleep.  Caller holds the ledger's lock.
 * Return: number of pages that have to be charged for it.
 */
unsigned long vfio_dma_ledger_enter(struct vfio_dma_ledger *ledger,
				    unsigned long pfn, unsigned long npages)
{
	return enter(ledger, pfn, npages, VFIO_DMA_GFP);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_ledger_enter);

/**
 * vfio_dma_ledger_enter_nofail() - vfio_dma_ledger_enter() that finds the memory
 * @ledger: the ledger
 * @pfn: first page frame
 * @npages: number of pages, not 0
 *
 * Context: Process context, may sleep.  Caller holds the ledger's lock.
 * Return: number of pages that have to be charged for it.
 */
unsigned long vfio_dma_ledger_enter_nofail(struct vfio_dma_ledger *ledger,
					   unsigned long pfn,
					   unsigned long npages)
{
	return enter(ledger, pfn, npages, GFP_KERNEL | __GFP_NOFAIL);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_ledger_enter_nofail);

/* One hold less of each page of a run, which is in the store and has been cut out */
static unsigned long leave_run(struct vfio_dma_ledger *ledger,
			       const struct vfio_xa_dma_run *run)
{
	unsigned long holds = vfio_dma_ledger_holds(run->word) - 1;

	lockdep_assert_held(&ledger->lock);

	if (holds)
		vfio_xa_dma_change(&ledger->pages, run->first, run->last,
				   COUNT_MASK,
				   (run->word & COUNT_MASK) - VFIO_DMA_LEDGER_ONE);
	else
		vfio_xa_dma_erase(&ledger->pages, run->first, run->last);
	return holds % VFIO_DMA_LEDGER_HOLDS ? 0 : run->last - run->first + 1;
}

/**
 * vfio_dma_ledger_leave() - pages are held once less
 * @ledger: the ledger
 * @pfn: first page frame
 * @npages: number of pages, not 0
 *
 * To be called before the pages are unpinned: then nobody can have got them for other
 * memory while they are still in the ledger.
 *
 * Context: Process context, may sleep.  Caller holds the ledger's lock.
 * Return: number of pages of which the charge ends, once they are unpinned.
 */
unsigned long vfio_dma_ledger_leave(struct vfio_dma_ledger *ledger,
				    unsigned long pfn, unsigned long npages)
{
	unsigned long last = pfn + npages - 1, uncharge = 0;
	struct vfio_xa_dma *pages = &ledger->pages;
	struct vfio_xa_dma_run run;
	unsigned long word;

	lockdep_assert_held(&ledger->lock);

	/* A page that others hold as well, and that is a matter of one step */
	if (npages == 1) {
		word = vfio_xa_dma_add(pages, pfn, -VFIO_DMA_LEDGER_ONE, WORD_ONE);
		if (word)
			return vfio_dma_ledger_holds(word) % VFIO_DMA_LEDGER_HOLDS == 1;
	}
	for (;;) {
		if (!next_run(pages, pfn, last, &run))
			run.first = last + 1;
		/* A page that nobody else holds, likewise */
		else if (npages == 1 && run.word == WORD_ONE &&
			 vfio_xa_dma_take(pages, pfn, 0))
			return 1;
		/* Holds that are not in the ledger were alone. */
		uncharge += run.first - pfn;
		WRITE_ONCE(ledger->alone, ledger->alone - (run.first - pfn));
		if (run.first > last)
			return uncharge;
		vfio_xa_dma_cut(pages, run.first, run.last,
				GFP_KERNEL | __GFP_NOFAIL);
		uncharge += leave_run(ledger, &run);
		if (run.last == last)
			return uncharge;
		pfn = run.last + 1;
		cond_resched();
	}
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_ledger_leave);

/**
 * vfio_dma_ledger_hold() - hold a page once more if that costs no charge
 * @ledger: the ledger
 * @pfn: the page frame
 *
 * Context: Process context, may sleep.  Caller holds the ledger's lock.
 * Return: true if it is held; false if it would have to be charged, or without memory.
 */
bool vfio_dma_ledger_hold(struct vfio_dma_ledger *ledger, unsigned long pfn)
{
	struct vfio_xa_dma_run run = {
		.first = pfn,
		.last = pfn,
		.word = vfio_xa_dma_load(&ledger->pages, pfn),
	};

	lockdep_assert_held(&ledger->lock);

	if (!(vfio_dma_ledger_holds(run.word) % VFIO_DMA_LEDGER_HOLDS) ||
	    vfio_xa_dma_cut(&ledger->pages, pfn, pfn, VFIO_DMA_GFP))
		return false;
	enter_run(ledger, &run);
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_ledger_hold);

/**
 * vfio_dma_ledger_settle() - wait until what other containers hold has been entered
 * @ledger: the ledger
 *
 * Context: Process context, may sleep.  Caller holds no container's mutex.
 * Return: 0, or -EINTR on a fatal signal.
 */
int vfio_dma_ledger_settle(struct vfio_dma_ledger *ledger)
{
	if (mutex_lock_killable(&ledger->activation))
		return -EINTR;
	mutex_unlock(&ledger->activation);
	return 0;
}
