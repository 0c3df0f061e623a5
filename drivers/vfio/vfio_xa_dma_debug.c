// SPDX-License-Identifier: GPL-2.0-only
/*
 * Statistics of a store, and its validation: neither changes anything.
 */

#include <linux/export.h>
#include <linux/list.h>
#include <linux/sched.h>

#include "vfio_xa_dma_internal.h"

/**
 * vfio_xa_dma_get_stats() - Memory which a store takes, by kind
 * @store: the store
 * @stats: filled in
 *
 * Counts what the slab allocator spends: sizes rounded up as it does, and the
 * pointer to the memory cgroup of each object. Takes the same time however large the
 * store is.
 *
 * Context: Caller holds the lock of the store.
 */
void vfio_xa_dma_get_stats(const struct vfio_xa_dma *store,
			   struct vfio_xa_dma_stats *stats)
{
	stats->nodes = store->nr_nodes;
	stats->node_bytes = store->nr_nodes * NODE_BYTES;
	stats->arrays = store->nr_arrays;
	stats->array_bytes = store->array_bytes;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_get_stats, "VFIO_DMA");

#define validate(store, cond)						\
	({								\
		bool __ok = (cond);					\
									\
		if (!__ok)						\
			pr_err("vfio_xa_dma %p: line %d: not true: %s\n",	\
			       store, __LINE__, #cond);			\
		__ok;							\
	})

/* Sums that a validation finds, to be compared with those of the store. */
struct store_sums {
	unsigned long nr_nodes;
	unsigned long nr_arrays;
	unsigned long array_bytes;
	unsigned long nr_pages;
};

static bool array_validate(struct vfio_xa_dma *store, const struct vfio_xa_dma_elem *a,
			   unsigned int shift, unsigned long base, struct store_sums *sums)
{
	unsigned int nr = array_nr(a), i;

	if (!validate(store, shift && shift <= ARRAY_MAX_SHIFT) ||
	    !validate(store, nr <= 1U << array_order(a)) ||
	    !validate(store, nr <= array_limit(ARRAY_MAX_SHIFT)) ||
	    !validate(store, run_first(a) >= run_index(base)) ||
	    !validate(store, run_last(&a[nr - 1]) <= run_index(base | shift_mask(shift))))
		return false;
	for (i = 0; i < nr; i++) {
		if (!validate(store, a[i].word && a[i].word <= LONG_MAX) ||
		    !validate(store, !i || !(a[i].pos & ~RUN_POS_MASK)) ||
		    !validate(store, !i || run_last(&a[i - 1]) < run_first(&a[i])))
			return false;
		sums->nr_pages += run_count(&a[i]);
	}
	sums->nr_arrays++;
	sums->array_bytes += array_bytes(array_order(a));
	return true;
}

static bool node_validate(struct vfio_xa_dma *store, struct xa_node *node,
			  struct store_sums *sums)
{
	unsigned int i, count = 0, nr_values = 0;
	struct xa_node *parent;
	unsigned long base = 0;
	void *entry;

	if (!validate(store, node->array == &store->xa) ||
	    !validate(store, node->shift % XA_CHUNK_SHIFT == 0))
		return false;

	entry = xa_mk_node(node);
	for (parent = node; parent; ) {
		struct xa_node *child = parent;

		parent = rcu_dereference_raw(child->parent);
		if (!validate(store, entry == (parent ?
					       node_slot(parent, child->offset) :
					       rcu_dereference_raw(store->xa.xa_head))) ||
		    !validate(store, !parent ||
			      parent->shift == child->shift + XA_CHUNK_SHIFT))
			return false;
		if (parent) {
			base |= (unsigned long)child->offset << parent->shift;
			entry = xa_mk_node(parent);
		}
	}

	sums->nr_nodes++;
	for (i = 0; i < XA_CHUNK_SIZE; i++) {
		entry = node_slot(node, i);
		if (!entry)
			continue;
		count++;
		if (xa_is_value(entry)) {
			nr_values++;
			if (entry_is_single(entry)) {
				sums->nr_pages++;
				if (!validate(store, node->shift == XA_CHUNK_SHIFT) ||
				    !validate(store, single_word(entry)))
					return false;
				continue;
			}
			sums->nr_pages += 1UL << node->shift;
			if (!validate(store, entry != xa_mk_value(0)))
				return false;
		} else if (xa_is_node(entry)) {
			if (!validate(store, node->shift) ||
			    !validate(store, !list_empty(&xa_to_node(entry)->private_list)))
				return false;
		} else if (!validate(store, !xa_is_internal(entry)) ||
			   !array_validate(store, entry, node->shift,
					   base | (unsigned long)i << node->shift, sums)) {
			return false;
		}
	}
	return validate(store, count) && validate(store, count == node->count) &&
	       validate(store, nr_values == node->nr_values);
}

/**
 * vfio_xa_dma_validate() - Check that a store is what it should be
 * @store: the store
 *
 * Walks the whole of it and recounts what it keeps count of. For tests: takes
 * as long as the store is large.
 *
 * Context: Caller holds the lock of the store. May sleep.
 * Return: 0, or -EUCLEAN after saying on the console what is wrong.
 */
int vfio_xa_dma_validate(struct vfio_xa_dma *store)
{
	struct store_sums sums = {};
	struct xa_node *node;
	void *head;

	head = rcu_dereference_raw(store->xa.xa_head);
	if (xa_is_value(head))
		sums.nr_pages = 1;
	else if (!validate(store, !head || xa_is_node(head)) ||
		 !validate(store, !head || !list_empty(&xa_to_node(head)->private_list)))
		return -EUCLEAN;

	list_for_each_entry(node, &store->nodes, private_list) {
		if (!node_validate(store, node, &sums))
			return -EUCLEAN;
		cond_resched();
	}
	if (!validate(store, sums.nr_nodes == store->nr_nodes) ||
	    !validate(store, sums.nr_arrays == store->nr_arrays) ||
	    !validate(store, sums.array_bytes == store->array_bytes) ||
	    !validate(store, sums.nr_pages == store->nr_pages))
		return -EUCLEAN;
	return 0;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_validate, "VFIO_DMA");
