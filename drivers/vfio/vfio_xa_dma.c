// SPDX-License-Identifier: GPL-2.0-only
/*
 * vfio_xa_dma - a compact store of DMA mappings, one word per IOVA page
 *
 * The store knows no IOMMU, pins nothing and takes no lock: a word means something to its
 * user only.
 *
 * Words
 * -----
 * A word for each IOVA page which is mapped: where its virtual address is,
 * relative to the IOVA, and flags. Neighbouring pages with the same word are a
 * run, and iteration yields runs; the store does not remember in which calls a
 * run was inserted. A range can be inserted, erased or changed at any page.
 *
 * A VMM may map a large guest in a few ranges, or any number of its pages one
 * by one, in any order and with any distance, and should not pay much for
 * either: an XArray with an entry for each page takes 9 bytes a page when the
 * pages are dense, but 600 when they are far apart.
 *
 * The structure
 * -------------
 * An XArray indexed by page. A node has XA_CHUNK_SIZE (64) slots, and a slot
 * of a node with shift s covers a block of 1 << s pages, aligned to that. A
 * slot holds one of:
 *
 *	nothing		no page of the block is present;
 *	a value		the whole block is one run, this is its word;
 *	a single	a value which has the word of one page of 64, the only one
 *			that is present, and says which one it is;
 *	a pointer	to an array of the runs in the block, in order;
 *	a node		if the runs are too many for an array, and then all
 *			of them are in the slots below.
 *
 * A slot which covers one page holds nothing or a value. Values and pointers
 * are multi-index entries, the orders of which are multiples of XA_CHUNK_SHIFT,
 * so that there never are sibling entries.
 *
 *	shift 12	|    value   |  nothing   |  pointer   |    node    |
 *			   4096 pages                   v            v
 *	array				 { first, count, word } ...
 *	shift 6						| value | single | ...
 *							   64 pages
 *
 * An element of an array is 16 bytes and arrays have the sizes of kmalloc()
 * which are powers of two, with nothing beside the elements: how many there
 * are is kept in bits which the first element does not need. array_limit()
 * says how large an array may get. The closer the block is to the root the
 * more, as what a node costs there has to be shared by all that is below it: a
 * few pages in each of many places far apart take a path of nodes each. Next to
 * many others in the same node it need not get as large: vfio_xa_array_grow().
 *
 * A new run goes into an array in the empty slot which its page is found in,
 * whatever the level: a new node is only made when an array must be pushed
 * down or the tree must grow at the root. An array which is full is pushed down
 * by one level. Page slots do not go back to an array before
 * they have become much fewer (vfio_xa_node_collapse()), and the same holds for each
 * level, so that a page which is mapped and unmapped time and again does not
 * move the others each time.
 *
 * Where all of a block has become one run, its array or node becomes a value:
 * array_fold() and node_fold(), in blocks of up to 4096 pages. Larger
 * blocks are values only if they were inserted as such: to fold them would save
 * next to nothing, and cost much when the next page of them is erased. For the
 * same reason a run in an array has at most RUN_MAX pages, and blocks larger than
 * that remain arrays of a few runs. Cutting a large block makes nodes on the way
 * down, but none below 4096 pages, where an array of a few runs does.
 *
 * What cannot fail
 * ----------------
 * Inserting allocates, and so does cutting a block, to erase a part of it. As
 * nothing may fail once the IOMMU has been touched, whatever it takes to cut at
 * both ends of a range is allocated by vfio_xa_dma_cut(): blocks of one
 * word are divided until an array with enough room holds the place of the cut.
 * The cut itself is made by vfio_xa_dma_erase() and vfio_xa_dma_change(), which
 * never need memory. Both try to allocate where that would free more (a smaller
 * array for a larger one, an array for a node), and do without if they must.
 *
 * A run with a TRANSIENT flag is never joined with another, nor is a block of
 * it folded: so it ends where it was inserted, or where it was cut when the
 * flag was set, and no preparation is needed to erase just that range. The run may be
 * divided, when an array is pushed down; that does no harm. An insert of a range
 * which takes several slots makes use of this: it is inserted as PENDING and
 * published when all is there, or else erased again.
 *
 * For a page on its own that is dear: it would be added to an array only to be joined
 * with a neighbour there. vfio_xa_dma_reserve() joins it at once, but does not fold.
 * A joined run leaves room in the array to be cut again, so that taking it back needs
 * no memory either, as long as nothing else has changed.
 *
 * How it is walked
 * ----------------
 * The caller's lock keeps everybody out, so nodes are read without more ado. The
 * XArray's own lock is taken to store entries, since it insists. The node which
 * was found last is remembered: mostly the next operation is close by, often on
 * the very same page. Changes within an array do not concern the XArray at all,
 * and an entry of a node that stays is written to its slot: node_store().
 *
 * Numbers: the store counts the memory it takes, and the pages in it. Nodes are
 * counted with the callback which the XArray makes for a node when the number
 * of its entries has changed; xa_node.private_list tells which are counted.
 */

#include <linux/err.h>
#include <linux/export.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/sched.h>
#include <linux/string.h>

#include "vfio_xa_dma_internal.h"

/**
 * vfio_xa_dma_init() - Make an empty store
 * @store: the store
 *
 * Context: Any context.
 */
void vfio_xa_dma_init(struct vfio_xa_dma *store)
{
	memset(store, 0, sizeof(*store));
	xa_init_flags(&store->xa, XA_FLAGS_ACCOUNT);
	INIT_LIST_HEAD(&store->nodes);
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_init, "VFIO_DMA");

/*
 * The pages [first, last] are to be stored in an empty slot which covers
 * 1 << @shift pages, or in the nodes to be made below it: the largest slot of
 * which a value or an array of one run can hold those in it.
 */
static unsigned int insert_shift(unsigned int shift, unsigned long first,
				 unsigned long last)
{
	for (;; shift -= XA_CHUNK_SHIFT) {
		unsigned long mask = shift_mask(shift);

		if (!(first & mask) && (first | mask) <= last)
			return shift;
		if (shift && shift <= ARRAY_MAX_SHIFT &&
		    min(first | mask, last) - first < RUN_MAX)
			return shift;
	}
}

/* The shift of the node at the root which it takes to reach @index. */
static unsigned int root_shift(struct vfio_xa_dma *store, unsigned long index)
{
	unsigned int shift = xa_empty(&store->xa) ? XA_CHUNK_SHIFT : 0;

	while (index >> shift >> XA_CHUNK_SHIFT)
		shift += XA_CHUNK_SHIFT;
	return shift;
}

/*
 * Insert all of a block, or some of it as an array, where there is nothing. Returns 1
 * if its node may fold now.
 */
static int insert_slot(struct slot *slot, unsigned int shift, unsigned long first,
		       unsigned long last, unsigned long word, gfp_t gfp)
{
	struct vfio_xa_dma_elem *a = NULL;
	struct xa_state xas;
	void *entry;

	if (last - first == shift_mask(shift)) {
		entry = xa_mk_value(word);
	} else if (first == last && single_fits(shift, word)) {
		entry = single_entry(first, word);
	} else {
		a = vfio_xa_array_alloc(slot->store, 0, gfp);
		if (!a)
			return -ENOMEM;
		a->pos = run_pos(first, last);
		a->word = word;
		entry = a;
	}

	if (slot->node && slot->node->shift == shift) {
		vfio_xa_slot_replace(slot, entry);
		return !a && node_may_fold(slot->node);
	}

	xas = slot_state(slot);
	xas.xa_shift = shift;
	if (!vfio_xa_dma_may_alloc(gfp)) {
		xas_set_err(&xas, -ENOMEM);
	} else {
		do {
			xas_lock(&xas);
			xas_store(&xas, entry);
			xas_unlock(&xas);
		} while (xas_nomem(&xas, gfp));
	}
	if (likely(!xas_error(&xas))) {
		slot->node = xas.xa_node;
		slot->entry = entry;
		return !a && node_may_fold(slot->node);
	}

	if (a)
		vfio_xa_array_free(slot->store, a, 0);
	/* The XArray leaves nodes behind, the lowest one empty: free them. */
	vfio_xa_slot_load(slot, slot->store, first);
	if (slot->node && !slot->node->count) {
		vfio_xa_slot_replace(slot, xa_mk_value(word));
		vfio_xa_slot_replace(slot, NULL);
	}
	return -ENOMEM;
}

/* Insert into page slots of one node. Returns 1 if these may fold now. */
static int insert_pages(struct slot *slot, unsigned long last, unsigned long word)
{
	struct xa_node *node = slot->node;
	unsigned long index;

	for (index = slot->index + 1; index <= last; index++)
		if (node_slot(node, index & XA_CHUNK_MASK))
			return -EEXIST;

	for (index = slot->index; index <= last; index++)
		node_store(node, index & XA_CHUNK_MASK, xa_mk_value(word));
	return node_may_fold(node);
}

/*
 * Insert into an array; -ENOSPC if it has to be pushed down first. Returns 1 if it
 * can be folded now.
 */
static int insert_array(struct slot *slot, unsigned long last, unsigned long word,
			gfp_t gfp)
{
	struct vfio_xa_dma_elem *a = slot->entry;
	const struct vfio_xa_dma_elem new = {
		.pos = run_pos(slot->index, last),
		.word = word,
	};
	unsigned int nr = array_nr(a), at = vfio_xa_array_find(a, nr, last);
	int err;

	/* @at: the first run which follows the new one */
	if (run_first(&a[at]) <= run_index(last)) {
		if (run_last(&a[at]) >= run_index(slot->index))
			return -EEXIST;
		at++;
	}
	if (last - slot->index >= RUN_MAX)
		return -ENOSPC;

	if (at && run_joins(&a[at - 1], &new)) {
		a[at - 1].pos += run_count(&new);
		if (at < nr && run_joins(&a[at - 1], &a[at]))
			vfio_xa_array_join(a, at, at);
		return array_may_fold(slot);
	}
	if (at < nr && run_joins(&new, &a[at])) {
		a[at].pos -= (run_count(&new) << RUN_COUNT_BITS) - run_count(&new);
		return array_may_fold(slot);
	}
	if (!array_has_room(a, 1)) {
		err = vfio_xa_array_grow(slot, 1, gfp);
		if (err)
			return err;
	}
	vfio_xa_array_add(slot->entry, at, new.pos, word);
	return 0;
}

/* Insert where there is one page: they become an array. Returns 1 if it can be folded now. */
static int insert_to_single(struct slot *slot, unsigned long last, unsigned long word,
			    gfp_t gfp)
{
	unsigned long first = slot->index, old = single_index(slot->entry, first);
	unsigned long old_word = single_word(slot->entry);
	struct vfio_xa_dma_elem *a;
	bool joins;

	if (old >= first && old <= last)
		return -EEXIST;
	joins = word == old_word && !(word & VFIO_XA_DMA_TRANSIENT) &&
		(old + 1 == first || last + 1 == old);
	a = vfio_xa_array_alloc(slot->store, !joins, gfp);
	if (!a)
		return -ENOMEM;
	if (joins) {
		a->pos = run_pos(min(old, first), max(old, last));
		a->word = word;
	} else {
		a[old > first].pos = run_pos(old, old);
		a[old > first].word = old_word;
		a[old < first].pos = run_pos(first, last);
		a[old < first].word = word;
		array_set_size(a, 2, 1);
	}
	vfio_xa_slot_replace(slot, a);
	return array_may_fold(slot);
}

/*
 * Insert as many of the pages [pos, last] as there are in one slot, or one
 * node of page slots. A part of [first, last] is inserted as PENDING, so that it
 * joins nothing and can be undone. Returns 1 if the slot
 * may fold now.
 */
static int insert_some(struct slot *slot, struct vfio_xa_dma *store,
		       unsigned long first, unsigned long pos, unsigned long last,
		       unsigned long word, unsigned long *end, gfp_t gfp)
{
	unsigned int shift;
	void *entry;
	bool pages;
	int err;

again:
	entry = vfio_xa_slot_load(slot, store, pos);
	if (xa_is_value(entry) && !entry_is_single(entry))
		return -EEXIST;
	shift = slot->node ? slot->node->shift : root_shift(store, pos);
	pages = !shift && slot->node;
	if (pages)
		*end = min(pos | XA_CHUNK_MASK, last);
	else if (!entry)
		shift = insert_shift(shift, pos, last);
	if (!pages)
		*end = min(pos | shift_mask(shift), last);
	if ((pos > first || *end < last) && !(word & VFIO_XA_DMA_TRANSIENT))
		word |= VFIO_XA_DMA_PENDING;

	if (pages) {
		err = insert_pages(slot, *end, word);
	} else if (!entry) {
		err = insert_slot(slot, shift, pos, *end, word, gfp);
	} else if (xa_is_value(entry)) {
		err = insert_to_single(slot, *end, word, gfp);
	} else {
		err = insert_array(slot, *end, word, gfp);
		if (err == -ENOSPC) {
			err = vfio_xa_array_push_down(slot, gfp);
			if (!err)
				goto again;
		}
	}
	if (err >= 0)
		store->nr_pages += *end - pos + 1;
	return err;
}

/* Does an entry which is to be changed as a whole lie within [index, last]? */
static bool slot_within(const struct slot *slot, unsigned long last)
{
	unsigned long mask = slot_mask(slot);

	return !WARN_ON_ONCE(slot->index & mask || (slot->index | mask) > last);
}

/* How many runs from element @i on begin at or before @last. */
static unsigned int array_count_to(const struct vfio_xa_dma_elem *a, unsigned int i,
				   unsigned long last)
{
	unsigned int nr = array_nr(a), j;

	for (j = i; j < nr && run_first(&a[j]) <= run_index(last); j++)
		;
	return j - i;
}

static void erase_pages(struct slot *slot, unsigned long last)
{
	struct xa_node *node = slot->node;
	unsigned long index;

	if (!node) {
		vfio_xa_slot_replace(slot, NULL);
		slot->store->nr_pages--;
		return;
	}
	if (last - slot->index == XA_CHUNK_MASK) {
		slot->store->nr_pages -= node->count;
		vfio_xa_node_replace(slot, XA_CHUNK_SHIFT, NULL);
		return;
	}
	for (index = slot->index; index <= last; index++) {
		if (!node_slot(node, index & XA_CHUNK_MASK))
			continue;
		slot->store->nr_pages--;
		if (node->count == 1) {
			slot->index = index;
			vfio_xa_slot_replace(slot, NULL);
			return;
		}
		node_store(node, index & XA_CHUNK_MASK, NULL);
	}
}

/* An array in which there is no more than one page needs not be one. */
static bool array_to_single(struct slot *slot)
{
	struct vfio_xa_dma_elem *a = slot->entry;

	if (array_nr(a) > 1 || run_count(a) > 1 || !single_fits(slot_shift(slot), a->word))
		return false;
	vfio_xa_slot_replace(slot, single_entry(run_first(a), a->word));
	vfio_xa_array_free(slot->store, a, array_order(a));
	return true;
}

/* Returns true if the node may have become sparse. */
static bool erase_array(struct slot *slot, unsigned long last)
{
	struct vfio_xa_dma_elem *a = slot->entry;
	unsigned int nr = array_nr(a), i = vfio_xa_array_find_from(a, nr, slot->index), k, n;
	unsigned long count;

	n = array_count_to(a, i, last);
	if (!n)
		return false;
	if (run_first(&a[i]) < run_index(slot->index)) {
		/* Keep what is before. */
		if (run_last(&a[i]) > run_index(last) && !vfio_xa_array_cut(a, i, last + 1))
			return false;
		count = run_last(&a[i]) - run_index(slot->index) + 1;
		a[i].pos -= count;
		slot->store->nr_pages -= count;
		i++;
		n--;
	}
	if (n && run_last(&a[i + n - 1]) > run_index(last)) {
		/* Keep what is after. */
		n--;
		count = run_index(last) - run_first(&a[i + n]) + 1;
		a[i + n].pos += (count << RUN_COUNT_BITS) - count;
		slot->store->nr_pages -= count;
	}
	for (k = i; k < i + n; k++)
		slot->store->nr_pages -= run_count(&a[k]);
	if (n == array_nr(a)) {
		vfio_xa_slot_replace(slot, NULL);
		vfio_xa_array_free(slot->store, a, array_order(a));
		return true;
	}
	if (!n)
		return false;
	vfio_xa_array_remove(a, i, n);
	if (array_to_single(slot))
		return false;
	vfio_xa_array_shrink(slot);
	/* Not each time; but a path of nodes for a few runs should not stay. */
	return is_power_of_2(array_nr(slot->entry)) && node_is_alone(slot->node);
}

/* Erase the pages up to @last. Returns true if the node may have become sparse. */
static bool erase_slot(struct slot *slot, unsigned long last)
{
	unsigned long index;

	if (!slot_shift(slot)) {
		erase_pages(slot, last);
		return true;
	}
	if (!xa_is_value(slot->entry))
		return erase_array(slot, last);
	if (entry_is_single(slot->entry)) {
		index = single_index(slot->entry, slot->index);
		if (index < slot->index || index > last)
			return false;
		slot->store->nr_pages--;
		vfio_xa_slot_replace(slot, NULL);
	} else if (slot_within(slot, last)) {
		slot->store->nr_pages -= slot_mask(slot) + 1;
		vfio_xa_slot_replace(slot, NULL);
	}
	return true;
}

/* The last page which is done with the slot, and with all of its page slots. */
static unsigned long slot_end(const struct slot *slot, unsigned long last)
{
	return min(slot->index | (slot_mask(slot) ?: XA_CHUNK_MASK), last);
}

static void erase_range(struct vfio_xa_dma *store, unsigned long first,
			unsigned long last)
{
	struct slot slot;
	unsigned long end;

	while (vfio_xa_slot_first(&slot, store, first, last)) {
		end = slot_end(&slot, last);
		erase_slot(&slot, end);
		if (end == last)
			break;
		first = end + 1;
		cond_resched();
	}
}

/**
 * vfio_xa_dma_destroy() - Erase all there is in a store
 * @store: the store; empty and usable afterwards
 *
 * Context: Caller holds the lock of the store, or is its last user. May sleep.
 */
void vfio_xa_dma_destroy(struct vfio_xa_dma *store)
{
	erase_range(store, 0, VFIO_XA_DMA_LAST_INDEX);
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_destroy, "VFIO_DMA");

/* Returns 1 if vfio_xa_dma_commit() must follow. */
static int insert_range(struct vfio_xa_dma *store, unsigned long first,
			unsigned long last, unsigned long word, gfp_t gfp)
{
	unsigned long pos = first, end;
	struct vfio_xa_dma_run run;
	struct slot slot;
	int ret;

	if (vfio_xa_dma_next(store, first, last, &run))
		return -EEXIST;

	for (;;) {
		ret = insert_some(&slot, store, first, pos, last, word, &end, gfp);
		if (ret < 0 || end == last)
			break;
		pos = end + 1;
		cond_resched();
	}
	if (pos == first)
		return ret;
	if (ret >= 0)
		return 1;
	vfio_xa_dma_erase(store, first, pos - 1);
	return ret;
}

/*
 * Insert into an empty slot which covers 64 pages. This and insert_near(), inline, save
 * 20 instructions of a map where pages differ.
 */
static __always_inline int insert_single(struct slot *slot, unsigned long last,
					 unsigned long word, gfp_t gfp)
{
	if (slot->index != last || !single_fits(XA_CHUNK_SHIFT, word))
		return insert_slot(slot, XA_CHUNK_SHIFT, slot->index, last, word, gfp);
	node_store(slot->node, node_offset(slot->node, last), single_entry(last, word));
	return 0;
}

/*
 * Insert where something is already in the one slot or node that it takes; if there
 * is not, or no room, -ENOSPC. Returns 1 if it may fold now.
 */
static __always_inline int insert_near(struct slot *slot, struct vfio_xa_dma *store,
				       unsigned long first, unsigned long last,
				       unsigned long word, gfp_t gfp)
{
	void *entry;
	int ret;

	if ((first ^ last) >> XA_CHUNK_SHIFT)
		return -ENOSPC;
	entry = __slot_load(slot, store, first);
	if (entry_is_single(entry))
		ret = insert_to_single(slot, last, word, gfp);
	else if (xa_is_value(entry))
		return -EEXIST;
	else if (entry)
		ret = insert_array(slot, last, word, gfp);
	else if (!slot->node || slot->node->shift > XA_CHUNK_SHIFT)
		return -ENOSPC;
	else if (!slot->node->shift)
		ret = insert_pages(slot, last, word);
	else
		ret = insert_single(slot, last, word, gfp);
	if (ret >= 0)
		store->nr_pages += last - first + 1;
	return ret;
}

static int reserve_range(struct vfio_xa_dma *store, unsigned long first,
			 unsigned long last, unsigned long word, gfp_t gfp)
{
	struct slot slot __uninitialized;
	int ret;

	ret = insert_near(&slot, store, first, last, word, gfp);
	if (ret == -ENOSPC)
		ret = insert_range(store, first, last, word, gfp);
	/* TRANSIENT words neither join nor fold. */
	if (unlikely(ret > 0) && word & VFIO_XA_DMA_TRANSIENT)
		ret = 0;
	return ret;
}

/* The XArray charges nodes in any case, unless it is told not to. */
static void set_account(struct vfio_xa_dma *store, bool account)
{
	if (account)
		store->xa.xa_flags |= XA_FLAGS_ACCOUNT;
	else
		store->xa.xa_flags &= ~XA_FLAGS_ACCOUNT;
}

static int reserve_nofail(struct vfio_xa_dma *store, unsigned long first,
			  unsigned long last, unsigned long word)
{
	int ret = reserve_range(store, first, last, word, GFP_OVER_LIMIT);

	if (likely(ret != -ENOMEM))
		return ret;
	set_account(store, false);
	ret = reserve_range(store, first, last, word, GFP_LAST);
	set_account(store, true);
	return ret;
}

/**
 * vfio_xa_dma_reserve() - Store the word of a range of pages, which may have to go again
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 * @word: what to store, see vfio_xa_dma_word()
 * @gfp: how to allocate; nodes are charged to the memory cgroup in any case. With
 *	__GFP_NOFAIL the memory cgroup is charged, if need be beyond its limit, and
 *	nobody is killed for it.
 *
 * All or nothing. vfio_xa_dma_commit() makes the range permanent;
 * vfio_xa_dma_erase() of just this range takes it back, without memory, if nothing else
 * has changed the store in between. A run of it joins what is there, as for one page that
 * is cheaper than to be PENDING: a run that is cut where it was joined has room for
 * that. But no block is folded. If @word has a TRANSIENT flag the range can be erased
 * or changed without memory whatever else has happened.
 *
 * Context: Caller holds the lock of the store. May sleep, if @gfp allows it.
 * Return: 0 if vfio_xa_dma_commit() has nothing to do; 1 if it has; -EEXIST if one of
 * the pages is present, in whatever state; -ENOMEM.
 */
int vfio_xa_dma_reserve(struct vfio_xa_dma *store, unsigned long first,
			unsigned long last, unsigned long word, gfp_t gfp)
{
	if (unlikely(gfp & __GFP_NOFAIL))
		return reserve_nofail(store, first, last, word);
	return reserve_range(store, first, last, word, gfp);
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_reserve, "VFIO_DMA");

/**
 * vfio_xa_dma_commit() - What vfio_xa_dma_reserve() has stored stays
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 *
 * Needed where vfio_xa_dma_reserve() has returned 1.
 *
 * Context: Caller holds the lock of the store. May sleep. Cannot fail; may
 * try to allocate, to free more than that, and does without if it must.
 */
void vfio_xa_dma_commit(struct vfio_xa_dma *store, unsigned long first,
			unsigned long last)
{
	struct slot slot;

	if (vfio_xa_dma_load(store, first) & VFIO_XA_DMA_PENDING) {
		vfio_xa_dma_change(store, first, last, VFIO_XA_DMA_PENDING, 0);
	} else {
		vfio_xa_slot_load(&slot, store, first);
		vfio_xa_slot_fold(&slot);
	}
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_commit, "VFIO_DMA");

/* How many cuts does it take for runs to end before @first and at @last? */
static unsigned int array_cuts(const struct vfio_xa_dma_elem *a, unsigned long first,
			       unsigned long last)
{
	unsigned int nr = array_nr(a), i = vfio_xa_array_find_from(a, nr, first), cuts;

	if (i == nr)
		return 0;
	cuts = run_first(&a[i]) < run_index(first);
	if (run_last(&a[i]) < run_index(last))
		i = vfio_xa_array_find(a, nr, last);
	return cuts + (run_first(&a[i]) <= run_index(last) &&
		       run_last(&a[i]) > run_index(last));
}

/*
 * Make a block of one word an array with room for @cuts cuts, or a node full
 * of smaller blocks. The slot must be walked to again.
 */
static int prepare_value(struct slot *slot, unsigned int cuts, gfp_t gfp)
{
	unsigned int shift = slot_shift(slot), order, nr, i;
	void *slots[XA_CHUNK_SIZE];
	struct vfio_xa_dma_elem *a;
	unsigned long first, count;

	if (shift > FOLD_MAX_SHIFT) {
		for (i = 0; i < XA_CHUNK_SIZE; i++)
			slots[i] = slot->entry;
		return vfio_xa_slot_split(slot, slots, gfp);
	}

	count = min(1UL << shift, RUN_MAX);
	nr = (1UL << shift) / count;
	order = order_for(nr + cuts);
	a = vfio_xa_array_alloc(slot->store, order, gfp);
	if (!a)
		return -ENOMEM;
	first = slot->index & ~shift_mask(shift);
	for (i = 0; i < nr; i++, first += count) {
		a[i].pos = run_pos(first, first + count - 1);
		a[i].word = xa_to_value(slot->entry);
	}
	array_set_size(a, nr, order);
	vfio_xa_slot_replace(slot, a);
	return 0;
}

/*
 * See that the slot which @at is in can be cut before @first and after @last,
 * as far as these lie in it. Sets *@end to the last page of the slot.
 */
static int prepare_slot(struct vfio_xa_dma *store, unsigned long at,
			unsigned long first, unsigned long last,
			unsigned long *end, gfp_t gfp)
{
	unsigned long begin;
	unsigned int cuts;
	struct slot slot;
	void *entry;
	int err;

	for (;;) {
		entry = vfio_xa_slot_load(&slot, store, at);
		begin = at & ~slot_mask(&slot);
		*end = at | slot_mask(&slot);
		cuts = (first > begin) + (last < *end);
		if (!entry || !cuts)
			return 0;

		if (entry_is_single(entry))
			return 0;
		if (xa_is_value(entry)) {
			err = prepare_value(&slot, cuts, gfp);
		} else {
			cuts = array_cuts(entry, max(first, begin), min(last, *end));
			if (array_has_room(entry, cuts))
				return 0;
			err = vfio_xa_array_grow(&slot, cuts, gfp);
			if (err != -ENOSPC)
				return err;
			err = vfio_xa_array_push_down(&slot, gfp);
		}
		if (err)
			return err;
	}
}

/* Both ends of a range, which may lie in the same slot */
static int prepare_ends(struct vfio_xa_dma *store, unsigned long first,
			unsigned long last, gfp_t gfp)
{
	unsigned long end;
	int err;

	err = prepare_slot(store, first, first, last, &end, gfp);
	if (!err && end < last)
		err = prepare_slot(store, last, 0, last, &end, gfp);
	return err;
}

/**
 * vfio_xa_dma_cut() - Allocate what it takes to cut out a range of pages
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 * @gfp: how to allocate, as for vfio_xa_dma_reserve(); nobody needs to look at the
 *	result with __GFP_NOFAIL
 *
 * After this, vfio_xa_dma_erase() or vfio_xa_dma_change() of just this range
 * will find all it needs, if nothing else changes the store between.
 *
 * Context: Caller holds the lock of the store. May sleep, if @gfp allows it.
 * Return: 0, or -ENOMEM, and then nothing has changed that can be seen.
 */
int vfio_xa_dma_cut(struct vfio_xa_dma *store, unsigned long first,
		    unsigned long last, gfp_t gfp)
{
	struct slot slot;
	void *entry;
	int err;

	entry = vfio_xa_slot_load(&slot, store, first);
	if (last <= (first | slot_mask(&slot)) &&
	    (!entry || !slot_shift(&slot) || entry_is_single(entry) ||
	     (!xa_is_value(entry) && (array_has_room(entry, 2) ||
	      array_has_room(entry, array_cuts(entry, first, last))))))
		return 0;

	if (likely(!(gfp & __GFP_NOFAIL)))
		return prepare_ends(store, first, last, gfp);

	err = prepare_ends(store, first, last, GFP_OVER_LIMIT);
	if (unlikely(err)) {
		set_account(store, false);
		err = prepare_ends(store, first, last, GFP_LAST);
		set_account(store, true);
	}
	return err;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_cut, "VFIO_DMA");

/**
 * vfio_xa_dma_erase() - Forget a range of pages
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 *
 * Pages which are not present are skipped. A range which does not end where
 * runs end needs vfio_xa_dma_cut().
 *
 * Context: Caller holds the lock of the store. May sleep. Cannot fail; may
 * try to allocate, to free more than that, and does without if it must.
 */
void vfio_xa_dma_erase(struct vfio_xa_dma *store, unsigned long first,
		       unsigned long last)
{
	struct slot slot;

	if (vfio_xa_slot_load(&slot, store, first) && last <= slot_end(&slot, last)) {
		if (erase_slot(&slot, last) && !node_is_dense(slot.node))
			vfio_xa_node_collapse(&slot);
		return;
	}

	erase_range(store, first, last);
	/* Nodes of which something is left can only be at the two ends. */
	vfio_xa_slot_load(&slot, store, first);
	vfio_xa_node_collapse(&slot);
	vfio_xa_slot_load(&slot, store, last);
	vfio_xa_node_collapse(&slot);
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_erase, "VFIO_DMA");

/*
 * vfio_xa_dma_take() in an array.  Out of line: inline it would cost an unmap of any other
 * page 15 instructions.
 */
static noinline unsigned long array_take(struct vfio_xa_dma *store,
					 struct vfio_xa_dma_elem *a,
					 unsigned long index, unsigned long unless)
{
	unsigned int i = vfio_xa_array_find(a, array_nr(a), index);
	unsigned long offset = run_index(index) - run_first(&a[i]), word = a[i].word;

	if (offset >= run_count(&a[i]))
		return 0;
	if (word & unless)
		return word;
	if (run_count(&a[i]) == 1) {
		/* Where erase_array() would look whether it should be smaller */
		if (array_nr(a) == 1 || is_power_of_2(array_nr(a) - 1))
			return 0;
		vfio_xa_array_remove(a, i, 1);
	} else if (!offset) {
		a[i].pos += RUN_MAX - 1;
	} else if (offset + 1 == run_count(&a[i])) {
		a[i].pos--;
	} else {
		if (!array_has_room(a, 1))
			return 0;
		vfio_xa_array_cut(a, i, index + 1);
		a[i].pos--;
	}
	store->nr_pages--;
	return word;
}

/**
 * vfio_xa_dma_take() - Forget one page, if that is a matter of one step
 * @store: the store
 * @index: IOVA page number
 * @unless: VFIO_XA_DMA_* flags; a page that has one of them stays
 *
 * Does what vfio_xa_dma_load(), vfio_xa_dma_cut() and vfio_xa_dma_erase() do
 * together, with one walk, where no memory is allocated or freed for it, as for
 * most pages. Elsewhere those three are needed.
 *
 * Context: Caller holds the lock of the store.
 * Return: the word that the page had, or with one of @unless still has; 0 if nothing has
 * changed.
 */
unsigned long vfio_xa_dma_take(struct vfio_xa_dma *store, unsigned long index,
			       unsigned long unless)
{
	struct slot slot __uninitialized;
	unsigned long word;
	void *entry;

	entry = __slot_load(&slot, store, index);
	if (!xa_is_value(entry))
		return entry ? array_take(store, entry, index, unless) : 0;
	if (!node_is_dense(slot.node))
		return 0;

	word = xa_to_value(entry);
	if (slot.node->shift) {
		if (!(word & SINGLE) || single_index(entry, index) != index)
			return 0;
		word = single_word(entry);
	}
	if (word & unless)
		return word;
	node_store(slot.node, node_offset(slot.node, index), NULL);
	store->nr_pages--;
	return word;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_take, "VFIO_DMA");

/**
 * vfio_xa_dma_add() - Add to the word of one page, if that is a matter of one step
 * @store: the store
 * @index: IOVA page number
 * @add: what to add, so that neither the flags change nor the length of the word:
 *	whether the highest bits are copies of its sign
 * @unless: a page with this word stays as it is; 0: none does
 *
 * Does what vfio_xa_dma_load(), vfio_xa_dma_cut() and vfio_xa_dma_change() do together,
 * with one walk, where no memory is allocated for it, as for most pages. Elsewhere
 * those three are needed.
 *
 * Context: Caller holds the lock of the store.
 * Return: the word that the page had; 0 if nothing has changed.
 */
unsigned long vfio_xa_dma_add(struct vfio_xa_dma *store, unsigned long index,
			      unsigned long add, unsigned long unless)
{
	struct slot slot __uninitialized;
	unsigned long word;
	void *entry;

	entry = __slot_load(&slot, store, index);
	if (!xa_is_value(entry))
		return entry ? vfio_xa_array_add_word(entry, index, add, unless) : 0;
	if (!slot.node)
		return 0;

	if (!slot.node->shift) {
		word = xa_to_value(entry);
		entry = xa_mk_value(word + add);
	} else if (entry_is_single(entry) && single_index(entry, index) == index) {
		word = single_word(entry);
		entry = single_entry(index, word + add);
	} else {
		return 0;
	}
	if (word == unless)
		return 0;
	node_store(slot.node, node_offset(slot.node, index), entry);
	if (!slot.node->shift)
		node_fold(&slot, ULONG_MAX);
	return word;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_add, "VFIO_DMA");

static void *word_change(void *entry, unsigned long clear, unsigned long set)
{
	return xa_mk_value((xa_to_value(entry) & ~clear) | set);
}

static void change_pages(struct slot *slot, unsigned long last, unsigned long clear,
			 unsigned long set, unsigned long done)
{
	unsigned long index;
	void *entry;

	for (index = slot->index; index <= last; index++) {
		entry = node_slot(slot->node, index & XA_CHUNK_MASK);
		if (entry)
			node_store(slot->node, index & XA_CHUNK_MASK,
				   word_change(entry, clear, set));
	}
	node_fold(slot, done);
}

static void change_array(struct slot *slot, unsigned long last, unsigned long clear,
			 unsigned long set, unsigned long done)
{
	struct vfio_xa_dma_elem *a = slot->entry;
	unsigned int i = vfio_xa_array_find_from(a, array_nr(a), slot->index), k;
	unsigned int n = array_count_to(a, i, last);

	if (!n)
		return;
	if (run_first(&a[i]) < run_index(slot->index)) {
		if (!vfio_xa_array_cut(a, i, slot->index))
			return;
		i++;
	}
	if (run_last(&a[i + n - 1]) > run_index(last) &&
	    !vfio_xa_array_cut(a, i + n - 1, last + 1))
		return;
	for (k = i; k < i + n; k++)
		a[k].word = (a[k].word & ~clear) | set;
	if (set & VFIO_XA_DMA_TRANSIENT)
		return;
	vfio_xa_array_join(a, i, i + n - 1);
	if (!array_fold(slot, done))
		vfio_xa_array_shrink(slot);
}

static void change_slot(struct slot *slot, unsigned long last, unsigned long clear,
			unsigned long set, unsigned long done)
{
	unsigned long index, word;

	if (!slot_shift(slot) && slot->node) {
		change_pages(slot, last, clear, set, done);
	} else if (!xa_is_value(slot->entry)) {
		change_array(slot, last, clear, set, done);
	} else if (entry_is_single(slot->entry)) {
		index = single_index(slot->entry, slot->index);
		/* The high bits of the entry are not those of the word. */
		word = (single_word(slot->entry) & ~clear) | set;
		if (index >= slot->index && index <= last)
			vfio_xa_slot_replace(slot, single_entry(index, word));
	} else if (slot_within(slot, last)) {
		vfio_xa_slot_replace(slot, word_change(slot->entry, clear, set));
		node_fold(slot, done);
	}
}

/**
 * vfio_xa_dma_change() - Change the flags of a range of pages
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 * @clear: VFIO_XA_DMA_* flags to clear, or any bits that leave the word its length:
 *	whether the highest ones are copies of its sign must not change
 * @set: bits to set, likewise
 *
 * Pages which are not present are skipped. A range which does not end where
 * runs end needs vfio_xa_dma_cut(). When this sets a TRANSIENT flag, the
 * range needs none afterwards, as long as the flag stays set.
 *
 * Context: Caller holds the lock of the store. May sleep. Cannot fail; may
 * try to allocate, to free more than that, and does without if it must.
 */
void vfio_xa_dma_change(struct vfio_xa_dma *store, unsigned long first,
			unsigned long last, unsigned long clear,
			unsigned long set)
{
	struct slot slot;
	unsigned long end;

	while (vfio_xa_slot_first(&slot, store, first, last)) {
		end = slot_end(&slot, last);
		change_slot(&slot, end, clear, set, end < last ? end : ULONG_MAX);
		if (end == last)
			return;
		first = end + 1;
		cond_resched();
	}
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_change, "VFIO_DMA");

/* The first run in the slot which does not end before @index. */
static bool slot_run(const struct slot *slot, unsigned long index,
		     struct vfio_xa_dma_run *run)
{
	const struct vfio_xa_dma_elem *a = slot->entry;
	unsigned long mask = slot_mask(slot);
	unsigned int i;

	run->first = index & ~mask;
	if (entry_is_single(slot->entry)) {
		run->first = single_index(slot->entry, index);
		run->last = run->first;
		run->word = single_word(slot->entry);
		return run->first >= index;
	}
	if (xa_is_value(slot->entry)) {
		run->last = index | mask;
		run->word = xa_to_value(slot->entry);
		return true;
	}
	i = vfio_xa_array_find_from(a, array_nr(a), index);
	if (i == array_nr(a))
		return false;
	run->first += run_first(&a[i]) & mask;
	run->last = run->first + run_count(&a[i]) - 1;
	run->word = a[i].word;
	return true;
}

/* Extend @run, the end of which is in the slot, up to @last or beyond. */
static void run_extend(struct slot *slot, unsigned long last,
		       struct vfio_xa_dma_run *run)
{
	struct vfio_xa_dma_run next;

	while (run->last < last) {
		if (!(~run->last & slot_mask(slot))) {
			if (!vfio_xa_slot_load(slot, slot->store, run->last + 1))
				return;
			cond_resched();
		}
		if (!slot_run(slot, run->last + 1, &next) ||
		    next.first != run->last + 1 || next.word != run->word)
			return;
		run->last = next.last;
	}
}

/**
 * vfio_xa_dma_load() - Look a page up
 * @store: the store
 * @index: IOVA page number
 *
 * Context: Caller holds the lock of the store.
 * Return: the word of the page, or 0 if it is not present.
 */
unsigned long vfio_xa_dma_load(struct vfio_xa_dma *store, unsigned long index)
{
	const struct vfio_xa_dma_elem *a;
	struct slot slot;
	unsigned int i;

	a = __slot_load(&slot, store, index);
	if (entry_is_single(a))
		return single_index(a, index) == index ? single_word(a) : 0;
	if (xa_is_value(a))
		return xa_to_value(a);
	if (!a)
		return 0;
	i = vfio_xa_array_find(a, array_nr(a), index);
	if (run_index(index) - run_first(&a[i]) >= run_count(&a[i]))
		return 0;
	return a[i].word;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_load, "VFIO_DMA");

/* The first run in a range, as much of it as is in one slot */
static inline bool find_run(struct slot *slot, struct vfio_xa_dma *store,
			    unsigned long first, unsigned long last,
			    struct vfio_xa_dma_run *run)
{
	void *entry;

	entry = vfio_xa_slot_first(slot, store, first, last);
	while (entry && !slot_run(slot, slot->index, run))
		entry = vfio_xa_slot_next(slot, last);
	return entry && run->first <= last;
}

static inline void clip_run(struct vfio_xa_dma_run *run, unsigned long first,
			    unsigned long last)
{
	run->first = max(run->first, first);
	run->last = min(run->last, last);
}

/**
 * vfio_xa_dma_next_piece() - Find the first piece of a run in a range of pages
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 * @run: set to a part of the run that vfio_xa_dma_next() finds, which begins where that
 *	begins; undefined if there is none
 *
 * Takes the same time however long the run is.
 *
 * Context: Caller holds the lock of the store. May sleep.
 * Return: true if there is one.
 */
bool vfio_xa_dma_next_piece(struct vfio_xa_dma *store, unsigned long first,
			    unsigned long last, struct vfio_xa_dma_run *run)
{
	struct slot slot;

	if (!find_run(&slot, store, first, last, run))
		return false;
	clip_run(run, first, last);
	return true;
}

/**
 * vfio_xa_dma_next() - Find the first run in a range of pages
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 * @run: set to the first run of pages with equal words, as much of it as lies
 *	in the range; undefined if there is none
 *
 * To iterate, go on with @run->last + 1.
 *
 * Context: Caller holds the lock of the store. May sleep.
 * Return: true if there is one.
 */
bool vfio_xa_dma_next(struct vfio_xa_dma *store, unsigned long first,
		      unsigned long last, struct vfio_xa_dma_run *run)
{
	struct slot slot;

	if (!find_run(&slot, store, first, last, run))
		return false;
	run_extend(&slot, last, run);
	clip_run(run, first, last);
	return true;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_next, "VFIO_DMA");
