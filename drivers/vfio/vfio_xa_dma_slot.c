// SPDX-License-Identifier: GPL-2.0-only
/*
 * Slots and nodes
 *
 * How a slot is found and stored to, and what makes a node of an array that is full, an
 * array of a node that has become sparse, and a value of a block that is one run.
 * Nothing here knows what is inserted or erased.
 */

#include <linux/err.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/string.h>

#include "vfio_xa_dma_internal.h"

/* Arrays of this order are not worth making smaller. */
#define SHRINK_MIN_ORDER	2

/*
 * Called by the XArray when the number of entries of a node has changed: it is
 * new if it has not been seen, and about to be freed if there are none.
 */
void vfio_xa_update_node(struct xa_node *node)
{
	struct vfio_xa_dma *store = container_of(node->array, struct vfio_xa_dma, xa);

	if (!node->count) {
		if (store->near_node == node)
			store->near_node = NULL;
		list_del_init(&node->private_list);
		store->nr_nodes--;
	} else if (list_empty(&node->private_list)) {
		list_add(&node->private_list, &store->nodes);
		store->nr_nodes++;
	}
}

void *vfio_xa_slot_load(struct slot *slot, struct vfio_xa_dma *store,
			unsigned long index)
{
	return __slot_load(slot, store, index);
}

/* Walk on to the next slot up to @last which is not empty. */
void *vfio_xa_slot_next(struct slot *slot, unsigned long last)
{
	struct xa_state xas = slot_state(slot);

	rcu_read_lock();
	slot->entry = slot->node ? xas_find(&xas, last) : NULL;
	rcu_read_unlock();
	if (slot->entry) {
		slot->node = xas.xa_node;
		slot->index = xas.xa_index;
		slot->store->near_node = slot->node;
		slot->store->near_index = slot->index;
	}
	return slot->entry;
}

/* Walk to the first slot from @first to @last which is not empty. */
void *vfio_xa_slot_first(struct slot *slot, struct vfio_xa_dma *store,
			 unsigned long first, unsigned long last)
{
	if (vfio_xa_slot_load(slot, store, first) || (first | slot_mask(slot)) >= last)
		return slot->entry;
	return vfio_xa_slot_next(slot, last);
}

static void slot_store(struct slot *slot, struct xa_state *xas, void *entry)
{
	xas_lock(xas);
	xas_store(xas, entry);
	xas_unlock(xas);
	slot->node = xas_not_node(xas->xa_node) ? NULL : xas->xa_node;
	slot->entry = entry;
}

/* Replace what the slot holds. Never allocates. */
void vfio_xa_slot_replace(struct slot *slot, void *entry)
{
	struct xa_state xas;

	if (entry && slot->node && slot->node->count) {
		node_store(slot->node, node_offset(slot->node, slot->index), entry);
		slot->entry = entry;
		return;
	}
	/* The node may have to be counted, or to go, and levels above it, too. */
	xas = slot_state(slot);
	slot_store(slot, &xas, entry);
}

/* Replace a node which the slot is below by an entry of 1 << @shift pages. */
void vfio_xa_node_replace(struct slot *slot, unsigned int shift, void *entry)
{
	struct xa_state xas = slot_state(slot);

	xas_set_order(&xas, slot->index, shift);
	slot_store(slot, &xas, entry);
}

void vfio_xa_node_to_value(struct slot *slot, unsigned long done)
{
	struct xa_node *node = slot->node;
	unsigned int i;
	void *entry;

	do {
		if (node->shift >= FOLD_MAX_SHIFT ||
		    (slot->index | shift_mask(node->shift + XA_CHUNK_SHIFT)) > done ||
		    !rcu_access_pointer(node->parent))
			return;
		entry = node_slot(node, 0);
		for (i = 1; i < XA_CHUNK_SIZE; i++)
			if (node_slot(node, i) != entry)
				return;
		if (xa_to_value(entry) & (VFIO_XA_DMA_TRANSIENT | SINGLE))
			return;
		vfio_xa_node_replace(slot, node->shift + XA_CHUNK_SHIFT, entry);
		node = slot->node;
	} while (node_may_fold(node));
}

void vfio_xa_array_to_value(struct slot *slot, unsigned long done)
{
	struct vfio_xa_dma_elem *a = slot->entry;

	vfio_xa_slot_replace(slot, xa_mk_value(a->word));
	vfio_xa_array_free(slot->store, a, array_order(a));
	node_fold(slot, done);
}

/* Fold what may fold: an array, or the node of values or pages that the slot is in */
void vfio_xa_slot_fold(struct slot *slot)
{
	if (slot->entry && !xa_is_value(slot->entry))
		array_fold(slot, ULONG_MAX);
	else
		node_fold(slot, ULONG_MAX);
}

/* Have the array of the slot in one of another order. */
static int array_resize(struct slot *slot, unsigned int order, gfp_t gfp)
{
	struct vfio_xa_dma_elem *a = slot->entry, *new;
	unsigned int nr = array_nr(a);

	new = vfio_xa_array_alloc(slot->store, order, gfp);
	if (!new)
		return -ENOMEM;
	memcpy(new, a, nr * sizeof(*a));
	array_set_size(new, nr, order);
	vfio_xa_slot_replace(slot, new);
	vfio_xa_array_free(slot->store, a, array_order(a));
	return 0;
}

/* Give memory back if much of an array is unused. Fails silently. */
void vfio_xa_array_shrink(struct slot *slot)
{
	struct vfio_xa_dma_elem *a = slot->entry;

	if (unlikely(array_nr(a) <= 1U << array_order(a) >> 2 &&
		     array_order(a) > SHRINK_MIN_ORDER))
		array_resize(slot, array_order(a) - 1, GFP_TRY);
}

/*
 * Should the runs of the array rather be in the slots of a node, though it might
 * grow? That is faster where they are in different slots, as most pages in no order are,
 * but dear if a word is too long for a single: where all are, each needs an array there.
 */
static bool array_is_spread(const struct slot *slot)
{
	const struct vfio_xa_dma_elem *a = slot->entry;
	unsigned int shift = slot_shift(slot) - XA_CHUNK_SHIFT, nr = array_nr(a), i, n = 0;

	if (nr < CROWDED_MAX || !node_is_crowded(slot->node))
		return false;
	for (i = 0; i < nr; i++) {
		if (shift && !single_fits(shift, a[i].word))
			return false;
		n += !i || run_first(&a[i]) >> shift != run_first(&a[i - 1]) >> shift;
	}
	return n > CROWDED_SPREAD;
}

/* Make room for @more elements; -ENOSPC if the array would become too large. */
int vfio_xa_array_grow(struct slot *slot, unsigned int more, gfp_t gfp)
{
	unsigned int nr = array_nr(slot->entry) + more;

	if (nr > array_limit(slot_shift(slot)) || array_is_spread(slot))
		return -ENOSPC;
	return array_resize(slot, order_for(nr), gfp);
}

/*
 * Replace the entry of the slot by a node, the slots of which hold @slots.
 *
 * xas_split() makes a node of 64 times the same. Nobody has seen the node, so it
 * is filled here: to have xas_store() do it, slot by slot, would take more time
 * than all else that is done to the pages in it.
 */
int vfio_xa_slot_split(struct slot *slot, void **slots, gfp_t gfp)
{
	struct xa_state xas = slot_state(slot);
	unsigned int shift = slot_shift(slot), count = 0, nr_values = 0, i;
	struct xa_node *node;

	xas.xa_shift = shift - XA_CHUNK_SHIFT;
	if (vfio_xa_dma_may_alloc(gfp))
		xas_split_alloc(&xas, slot->entry, shift, gfp);
	else
		xas_set_err(&xas, -ENOMEM);
	if (xas_error(&xas))
		return xas_error(&xas);

	xas_lock(&xas);
	xas_split(&xas, slot->entry, shift);
	node = xa_to_node(node_slot(slot->node, node_offset(slot->node, slot->index)));
	for (i = 0; i < XA_CHUNK_SIZE; i++) {
		rcu_assign_pointer(node->slots[i], slots[i]);
		count += !!slots[i];
		nr_values += xa_is_value(slots[i]);
	}
	node->count = count;
	node->nr_values = nr_values;
	xas_unlock(&xas);
	return 0;
}

/*
 * Push the runs of an array down by one level, into the slots of a new node. Sets
 * *@deep if a child has got more runs than its limit.
 */
static int array_push_down_once(struct slot *slot, bool *deep, gfp_t gfp)
{
	struct vfio_xa_dma_elem *a = slot->entry, *child;
	unsigned int shift = slot_shift(slot) - XA_CHUNK_SHIFT;
	unsigned long first = 0, mask = shift_mask(shift), last;
	unsigned int nr = array_nr(a), i, j, k, offset;
	void *slots[XA_CHUNK_SIZE] = {};
	unsigned long begin, end;
	int err = -ENOMEM;

	for (i = 0; i < nr; first = last + 1) {
		first = max(run_first(&a[i]) & ~mask, first);
		last = first | mask;
		offset = first >> shift & XA_CHUNK_MASK;
		for (j = i + 1; j < nr && run_first(&a[j]) <= last; j++)
			;
		begin = max(run_first(&a[i]), first);
		end = min(run_last(&a[i]), last);
		if (end - begin == mask) {
			slots[offset] = xa_mk_value(a[i].word);
		} else if (begin == end && j == i + 1 &&
			   single_fits(shift, a[i].word)) {
			slots[offset] = single_entry(begin, a[i].word);
		} else {
			child = vfio_xa_array_alloc(slot->store, order_for(j - i), gfp);
			if (!child)
				goto err_free;
			*deep |= j - i > array_limit(shift);
			for (k = i; k < j; k++) {
				child[k - i].pos = run_pos(max(run_first(&a[k]), first),
							   min(run_last(&a[k]), last));
				child[k - i].word = a[k].word;
			}
			array_set_size(child, j - i, order_for(j - i));
			slots[offset] = child;
		}
		i = run_last(&a[j - 1]) > last ? j - 1 : j;
	}

	err = vfio_xa_slot_split(slot, slots, gfp);
	if (err)
		goto err_free;
	vfio_xa_array_free(slot->store, a, array_order(a));
	return 0;

err_free:
	for (offset = 0; offset < XA_CHUNK_SIZE; offset++)
		if (slots[offset] && !xa_is_value(slots[offset]))
			vfio_xa_array_free(slot->store, slots[offset],
					   array_order(slots[offset]));
	return err;
}

/*
 * There is no room for another run in the array of the slot: have its runs in
 * the slots of a node. The slot must be walked to again.
 */
int vfio_xa_array_push_down(struct slot *slot, gfp_t gfp)
{
	unsigned long first = slot->index & ~slot_mask(slot);
	unsigned long last = slot->index | slot_mask(slot);
	struct vfio_xa_dma *store = slot->store;
	bool deep = false;
	void *entry;
	int err;

	err = array_push_down_once(slot, &deep, gfp);
	if (err || !deep)
		return err;

	entry = vfio_xa_slot_first(slot, store, first, last);
	while (entry) {
		if (xa_is_value(entry) ||
		    array_nr(entry) <= array_limit(slot_shift(slot))) {
			entry = vfio_xa_slot_next(slot, last);
			continue;
		}
		err = array_push_down_once(slot, &deep, gfp);
		if (err)
			return err;
		entry = vfio_xa_slot_first(slot, store, slot->index, last);
	}
	return 0;
}

/* The sum of the runs in the slots of @node; more than @limit if too many. */
static unsigned int node_count_runs(const struct xa_node *node, unsigned int limit)
{
	unsigned int i, nr = 0;

	if (!node->shift)
		return node->count;
	for (i = 0; i < XA_CHUNK_SIZE && nr <= limit; i++) {
		void *entry = node_slot(node, i);

		if (!entry)
			continue;
		if (xa_is_node(entry))
			return limit + 1;
		if (!xa_is_value(entry))
			nr += array_nr(entry);
		else if (1UL << node->shift <= RUN_MAX)
			nr++;
		else
			return limit + 1;
	}
	return nr;
}

/*
 * Is the node which the slot is in so sparse that it should be an array in the
 * slot of its parent? Returns the node which that array is to replace: one
 * above it if that holds nothing else. Sets *@nr to the number of runs.
 */
static struct xa_node *node_is_sparse(const struct slot *slot, unsigned int *nr)
{
	struct xa_node *node = slot->node, *top = node, *parent;
	unsigned int limit;

	if (!node)
		return NULL;
	for (;;) {
		parent = rcu_dereference_raw(top->parent);
		if (!parent || top->shift >= ARRAY_MAX_SHIFT)
			return NULL;
		if (parent->count > 1 || parent->shift >= ARRAY_MAX_SHIFT ||
		    !rcu_access_pointer(parent->parent))
			break;
		top = parent;
	}
	limit = node_sparse_limit(top);
	if (node->count > limit)
		return NULL;
	*nr = node_count_runs(node, limit);
	return *nr <= limit ? top : NULL;
}

/*
 * Something has been erased: if what is left in the node fits well into an array
 * in the parent, make it one. Fails silently.
 */
void vfio_xa_node_collapse(struct slot *slot)
{
	struct vfio_xa_dma_elem *a, *out, *child;
	unsigned long index, mask;
	struct xa_node *node, *top;
	unsigned int nr, i;
	void *entry;

	while ((top = node_is_sparse(slot, &nr))) {
		a = vfio_xa_array_alloc(slot->store, order_for(nr), GFP_TRY);
		if (!a)
			return;

		node = slot->node;
		mask = shift_mask(node->shift);
		index = slot->index & ~shift_mask(node->shift + XA_CHUNK_SHIFT);
		for (i = 0, out = a; i < XA_CHUNK_SIZE; i++, index += mask + 1) {
			entry = node_slot(node, i);
			if (entry_is_single(entry)) {
				out->pos = run_pos(single_index(entry, index),
						   single_index(entry, index));
				out->word = single_word(entry);
				out++;
			} else if (xa_is_value(entry)) {
				out->pos = run_pos(index, index + mask);
				out->word = xa_to_value(entry);
				out++;
			} else if (entry) {
				child = entry;
				memcpy(out, child, array_nr(child) * sizeof(*a));
				out->pos &= RUN_POS_MASK;
				out += array_nr(child);
				vfio_xa_array_free(slot->store, child, array_order(child));
			}
		}
		array_set_size(a, nr, order_for(nr));
		vfio_xa_array_join(a, 0, nr - 1);
		vfio_xa_node_replace(slot, top->shift + XA_CHUNK_SHIFT, a);
		vfio_xa_array_shrink(slot);
	}
}
