// SPDX-License-Identifier: GPL-2.0-only
/*
 * vfio_xa_dma - a compact store of DMA mappings, one word per IOVA page
 */

#include <linux/bitops.h>
#include <linux/err.h>
#include <linux/export.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/xarray.h>
#include <kunit/static_stub.h>
#include <kunit/visibility.h>

#include "vfio_xa_dma.h"

#ifndef CONFIG_XARRAY_MULTI
#error "the store keeps multi-index entries: CONFIG_XARRAY_MULTI is needed"
#endif

/**
 * struct vfio_xa_dma_elem - a run of pages in an array of runs
 * @pos: where it is, and in the first element of an array also how large that
 *	array is; see below
 * @word: the word of each of the pages
 *
 * From the low bits of @pos: number of pages less one, RUN_INDEX_BITS low bits
 * of the index of the first page. In the first element of an array: order of
 * the capacity of the array, number of elements less one. Elsewhere zero.
 */
struct vfio_xa_dma_elem {
	u64 pos;
	unsigned long word;
};

#define RUN_COUNT_BITS		10
#define RUN_INDEX_BITS		42
#define RUN_ORDER_BITS		4
#define RUN_ORDER_SHIFT		(RUN_COUNT_BITS + RUN_INDEX_BITS)
#define RUN_NR_SHIFT		(RUN_ORDER_SHIFT + RUN_ORDER_BITS)
#define RUN_NR_ONE		BIT_ULL(RUN_NR_SHIFT)

#define RUN_MAX			BIT(RUN_COUNT_BITS)	/* pages of one run */
#define RUN_COUNT_MASK		(RUN_MAX - 1)
#define RUN_INDEX_MASK		(BIT(RUN_INDEX_BITS) - 1)
#define RUN_POS_MASK		(BIT(RUN_ORDER_SHIFT) - 1)
#define RUN_ORDER_MASK		(BIT(RUN_ORDER_BITS) - 1)

/* Arrays are only found in slots which cover at most this many index bits. */
#define ARRAY_MAX_SHIFT		RUN_INDEX_BITS

/* Blocks of one word are made of smaller ones up to this many index bits. */
#define ARRAY_FULL_SHIFT	(2 * XA_CHUNK_SHIFT)

/*
 * Memory which the slab allocator spends on a node, and on an object beside
 * its size: the pointer to the memory cgroup which it is charged to.
 */
#define CHARGE_BYTES		sizeof(void *)
#define NODE_SLAB		(4 * PAGE_SIZE)
#define NODE_BYTES		(NODE_SLAB / (NODE_SLAB / sizeof(struct xa_node)) + \
				 CHARGE_BYTES)

static_assert(sizeof(struct vfio_xa_dma_elem) == 16);
static_assert(BITS_PER_LONG == 64);
static_assert(ARRAY_MAX_SHIFT % XA_CHUNK_SHIFT == 0);

/* How many runs an array in a slot which covers 1 << @shift pages may hold. */
static unsigned int array_limit(unsigned int shift)
{
	return 32 << min(shift / XA_CHUNK_SHIFT - 1, 3U);
}

static unsigned int array_nr(const struct vfio_xa_dma_elem *a)
{
	return (a->pos >> RUN_NR_SHIFT) + 1;
}

static unsigned int array_order(const struct vfio_xa_dma_elem *a)
{
	return (a->pos >> RUN_ORDER_SHIFT) & RUN_ORDER_MASK;
}

static bool array_has_room(const struct vfio_xa_dma_elem *a, unsigned int more)
{
	return array_nr(a) + more <= 1U << array_order(a);
}

static void array_set_size(struct vfio_xa_dma_elem *a, unsigned int nr,
			   unsigned int order)
{
	a->pos = (a->pos & RUN_POS_MASK) | (u64)order << RUN_ORDER_SHIFT |
		 (u64)(nr - 1) << RUN_NR_SHIFT;
}

/* The order of the least capacity for @nr elements. */
static unsigned int order_for(unsigned int nr)
{
	return fls(nr - 1);
}

static unsigned long array_bytes(unsigned int order)
{
	return (sizeof(struct vfio_xa_dma_elem) << order) + CHARGE_BYTES;
}

/* Positions: the RUN_INDEX_BITS low bits of an index. */
static unsigned long run_index(unsigned long index)
{
	return index & RUN_INDEX_MASK;
}

static u64 run_pos(unsigned long first, unsigned long last)
{
	return run_index(first) << RUN_COUNT_BITS | (last - first);
}

static unsigned long run_first(const struct vfio_xa_dma_elem *e)
{
	return (e->pos & RUN_POS_MASK) >> RUN_COUNT_BITS;
}

static unsigned long run_count(const struct vfio_xa_dma_elem *e)
{
	return (e->pos & RUN_COUNT_MASK) + 1;
}

static unsigned long run_last(const struct vfio_xa_dma_elem *e)
{
	return run_first(e) + (e->pos & RUN_COUNT_MASK);
}

static bool run_joins(const struct vfio_xa_dma_elem *e,
		      const struct vfio_xa_dma_elem *next)
{
	return e->word == next->word && !(e->word & VFIO_XA_DMA_TRANSIENT) &&
	       run_last(e) + 1 == run_first(next) &&
	       run_count(e) + run_count(next) <= RUN_MAX;
}

/*
 * The last of @nr runs which begins at or before @index; the first one if all
 * begin after it. Does not look at the first one.
 */
static unsigned int array_find(const struct vfio_xa_dma_elem *a, unsigned int nr,
			       unsigned long index)
{
	u64 pos = run_index(index) << RUN_COUNT_BITS | RUN_COUNT_MASK;
	unsigned int i = 0;

	while (nr > 1) {
		unsigned int half = nr / 2;

		if (a[i + half].pos <= pos)
			i += half;
		nr -= half;
	}
	return i;
}

/* The first of @nr runs which ends at or after @index; @nr if there is none. */
static unsigned int array_find_from(const struct vfio_xa_dma_elem *a,
				    unsigned int nr, unsigned long index)
{
	unsigned int i = array_find(a, nr, index);

	return run_last(&a[i]) < run_index(index) ? i + 1 : i;
}

/* Every allocation asks here first, so that tests can make it fail. */
VISIBLE_IF_KUNIT bool vfio_xa_dma_may_alloc(gfp_t gfp)
{
	KUNIT_STATIC_STUB_REDIRECT(vfio_xa_dma_may_alloc, gfp);
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_xa_dma_may_alloc);

static struct vfio_xa_dma_elem *array_alloc(struct vfio_xa_dma *store,
					    unsigned int order, gfp_t gfp)
{
	struct vfio_xa_dma_elem *a = NULL;

	if (vfio_xa_dma_may_alloc(gfp))
		a = kmalloc(sizeof(*a) << order, gfp);
	if (a)
		store->array_bytes += array_bytes(order);
	return a;
}

static void array_free(struct vfio_xa_dma *store, struct vfio_xa_dma_elem *a,
		       unsigned int order)
{
	store->array_bytes -= array_bytes(order);
	kfree(a);
}

/*
 * Called by the XArray for each node which has got its first entry, or lost
 * its last.
 */
static void store_update_node(struct xa_node *node)
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

static inline struct xa_state store_state(struct vfio_xa_dma *store,
					  unsigned long index)
{
	XA_STATE(xas, &store->xa, index);

	xas_set_update(&xas, store_update_node);
	return xas;
}

/* Forget where @xas is and what it was used for. */
static void slot_goto(struct xa_state *xas, unsigned long index)
{
	xas_set_order(xas, index, 0);
}

/* How many index bits the slot covers which @xas has found an entry in. */
static unsigned int slot_shift(const struct xa_state *xas)
{
	return xas->xa_node ? xas->xa_node->shift : 0;
}

static unsigned long shift_mask(unsigned int shift)
{
	return (1UL << shift) - 1;
}

static void *node_slot(const struct xa_node *node, unsigned int offset)
{
	return rcu_dereference_raw(node->slots[offset]);
}

/* Remember the node which @xas has come to, for the next walk to start at. */
static void slot_found(struct vfio_xa_dma *store, const struct xa_state *xas)
{
	if (xas_not_node(xas->xa_node))
		return;
	store->near_node = xas->xa_node;
	store->near_index = xas->xa_index;
}

/* Walk to the slot which holds the index of @xas. */
static void *slot_load(struct vfio_xa_dma *store, struct xa_state *xas)
{
	struct xa_node *node = store->near_node;
	void *entry;

	if (node && !((xas->xa_index ^ store->near_index) >> XA_CHUNK_SHIFT >> node->shift)) {
		xas->xa_node = node;
		xas->xa_offset = (xas->xa_index >> node->shift) & XA_CHUNK_MASK;
		entry = node_slot(node, xas->xa_offset);
		if (!xa_is_node(entry))
			return entry;
	} else {
		xas->xa_node = XAS_RESTART;
	}
	rcu_read_lock();
	entry = xas_load(xas);
	rcu_read_unlock();
	slot_found(store, xas);
	return entry;
}

/* Walk on to the next slot which is not empty. */
static void *slot_next(struct vfio_xa_dma *store, struct xa_state *xas,
		       unsigned long last)
{
	void *entry;

	rcu_read_lock();
	entry = xas_find(xas, last);
	rcu_read_unlock();
	slot_found(store, xas);
	return entry;
}

/* Walk to the first slot from the index of @xas on which is not empty. */
static void *slot_first(struct vfio_xa_dma *store, struct xa_state *xas,
			unsigned long last)
{
	void *entry = slot_load(store, xas);

	if (entry || xas_not_node(xas->xa_node) ||
	    (xas->xa_index | shift_mask(xas->xa_node->shift)) >= last)
		return entry;
	return slot_next(store, xas, last);
}

/* Replace what the slot holds. Never allocates. */
static void slot_replace(struct xa_state *xas, void *entry)
{
	xas->xa_shift = slot_shift(xas);
	xas_lock(xas);
	xas_store(xas, entry);
	xas_unlock(xas);
}

/* Replace a node, of which @xas is in a slot, by an entry of its parent. */
static void node_replace(struct xa_state *xas, unsigned int shift, void *entry)
{
	xas_set_order(xas, xas->xa_index, shift);
	xas_lock(xas);
	xas_store(xas, entry);
	xas_unlock(xas);
}

/*
 * A node full of one and the same word becomes an entry of its parent; but not
 * one which goes beyond @done, where there may be a cut which is still needed.
 */
static void node_fold(struct xa_state *xas, unsigned long done)
{
	for (;;) {
		struct xa_node *node = xas->xa_node;
		unsigned int i;
		void *entry;

		if (xas_not_node(node) || node->nr_values != XA_CHUNK_SIZE ||
		    node->shift >= ARRAY_FULL_SHIFT)
			return;
		if ((xas->xa_index | shift_mask(node->shift + XA_CHUNK_SHIFT)) > done)
			return;

		entry = node_slot(node, 0);
		for (i = 1; i < XA_CHUNK_SIZE; i++)
			if (node_slot(node, i) != entry)
				break;
		if (i < XA_CHUNK_SIZE || xa_to_value(entry) & VFIO_XA_DMA_TRANSIENT ||
		    !rcu_access_pointer(node->parent))
			return;
		node_replace(xas, node->shift + XA_CHUNK_SHIFT, entry);
	}
}

/* Do the runs cover the whole block, with one word? */
static bool array_is_full(const struct vfio_xa_dma_elem *a, unsigned int nr,
			  unsigned int shift)
{
	unsigned int i;

	if (shift > ARRAY_FULL_SHIFT || run_first(a) & shift_mask(shift) ||
	    (run_last(&a[nr - 1]) & shift_mask(shift)) != shift_mask(shift) ||
	    a->word & VFIO_XA_DMA_TRANSIENT)
		return false;
	for (i = 1; i < nr; i++)
		if (a[i].word != a->word || run_last(&a[i - 1]) + 1 != run_first(&a[i]))
			return false;
	return true;
}

/* Fold an array into a value if it has become one. */
static bool array_fold(struct vfio_xa_dma *store, struct xa_state *xas,
		       struct vfio_xa_dma_elem *a, unsigned long done)
{
	if (!array_is_full(a, array_nr(a), slot_shift(xas)))
		return false;
	slot_replace(xas, xa_mk_value(a->word));
	array_free(store, a, array_order(a));
	node_fold(xas, done);
	return true;
}

/* Give memory back if much of an array is unused. Fails silently. */
static inline void array_shrink(struct vfio_xa_dma *store, struct xa_state *xas,
			 struct vfio_xa_dma_elem *a)
{
	unsigned int nr = array_nr(a), order = array_order(a);
	struct vfio_xa_dma_elem *less;

	if (likely(nr > 1U << order >> 2))
		return;
	less = array_alloc(store, order - 1, GFP_NOWAIT | __GFP_ACCOUNT | __GFP_NOWARN);
	if (!less)
		return;
	memcpy(less, a, nr * sizeof(*a));
	array_set_size(less, nr, order - 1);
	slot_replace(xas, less);
	array_free(store, a, order);
}

/* Add a run as element @at of an array which has room for it. */
static void array_add(struct vfio_xa_dma_elem *a, unsigned int at, u64 pos,
		      unsigned long word)
{
	u64 size = a->pos & ~RUN_POS_MASK;
	unsigned int nr = array_nr(a);

	a->pos &= RUN_POS_MASK;
	if (at < nr)
		memmove(a + at + 1, a + at, (nr - at) * sizeof(*a));
	a[at].pos = pos;
	a[at].word = word;
	a->pos |= size + RUN_NR_ONE;
}

/* Remove @n elements from element @at on. Some must be left. */
static void array_remove(struct vfio_xa_dma_elem *a, unsigned int at, unsigned int n)
{
	u64 size = a->pos & ~RUN_POS_MASK;
	unsigned int nr = array_nr(a);

	if (at + n < nr)
		memmove(a + at, a + at + n, (nr - at - n) * sizeof(*a));
	a->pos = (a->pos & RUN_POS_MASK) | (size - n * RUN_NR_ONE);
}

/*
 * Cut the run of element @i, so that the next element begins at @index. There
 * is room for it if vfio_xa_dma_prepare() has been called.
 */
static bool array_cut(struct vfio_xa_dma_elem *a, unsigned int i, unsigned long index)
{
	unsigned long count = run_last(&a[i]) - run_index(index) + 1;

	if (WARN_ON_ONCE(!array_has_room(a, 1)))
		return false;
	a[i].pos -= count;
	array_add(a, i + 1, run_pos(index, index + count - 1), a[i].word);
	return true;
}

/*
 * Make room for @more elements in the array which the slot of @xas holds.
 * Returns the array, which has moved; -ENOSPC if it would become too large.
 */
static struct vfio_xa_dma_elem *
array_grow(struct vfio_xa_dma *store, struct xa_state *xas,
	   struct vfio_xa_dma_elem *a, unsigned int more, gfp_t gfp)
{
	unsigned int nr = array_nr(a), order = array_order(a);
	struct vfio_xa_dma_elem *new;

	if (nr + more > array_limit(slot_shift(xas)))
		return ERR_PTR(-ENOSPC);
	new = array_alloc(store, order_for(nr + more), gfp);
	if (!new)
		return ERR_PTR(-ENOMEM);
	memcpy(new, a, nr * sizeof(*a));
	array_set_size(new, nr, order_for(nr + more));
	slot_replace(xas, new);
	array_free(store, a, order);
	return new;
}

/* Join what can be joined of the runs @i to @j, and with their neighbours. */
static void array_join(struct vfio_xa_dma_elem *a, unsigned int i, unsigned int j)
{
	unsigned int nr = array_nr(a), k, out;

	out = i ? i - 1 : 0;
	j = min(j + 1, nr - 1);
	for (k = out + 1; k <= j; k++) {
		if (run_joins(&a[out], &a[k]))
			a[out].pos += run_count(&a[k]);
		else
			a[++out] = a[k];
	}
	if (out < j)
		array_remove(a, out + 1, j - out);
}

/*
 * Replace the entry of the slot which @xas is in by a node, the slots of which
 * are to hold @slots. Leaves @xas to be walked again.
 */
static int slot_split(struct xa_state *xas, void **slots, gfp_t gfp)
{
	unsigned int shift = slot_shift(xas), i, n;
	unsigned long index = xas->xa_index;
	unsigned long base = index & ~shift_mask(shift);
	void *fill = NULL;

	for (i = 0; !fill; i++)
		fill = slots[i];

	xas->xa_shift = shift - XA_CHUNK_SHIFT;
	if (vfio_xa_dma_may_alloc(gfp))
		xas_split_alloc(xas, fill, shift, gfp);
	else
		xas_set_err(xas, -ENOMEM);
	if (xas_error(xas))
		return xas_error(xas);

	xas_lock(xas);
	xas_split(xas, fill, shift);
	xas_set_order(xas, base, shift - XA_CHUNK_SHIFT);
	xas_load(xas);
	for (i = 0; i < XA_CHUNK_SIZE; i += n) {
		n = 1;
		if (slots[i] == fill)
			continue;
		if (!slots[i])
			while (i + n < XA_CHUNK_SIZE && !slots[i + n])
				n++;
		xas->xa_index = base + ((unsigned long)i << xas->xa_shift);
		xas->xa_offset = i;
		xas->xa_sibs = n - 1;
		xas_store(xas, slots[i]);
	}
	xas_unlock(xas);
	slot_goto(xas, index);
	return 0;
}

/*
 * Push the runs of an array down by one level, into the slots of a new node.
 * A child may get more runs than its limit. Leaves @xas to be walked again.
 */
static int array_push_down_once(struct vfio_xa_dma *store, struct xa_state *xas,
				struct vfio_xa_dma_elem *a, gfp_t gfp)
{
	unsigned int shift = slot_shift(xas) - XA_CHUNK_SHIFT;
	unsigned int nr = array_nr(a), i = 0, j, k, slot;
	unsigned long first, last;
	void *slots[XA_CHUNK_SIZE] = {};
	struct vfio_xa_dma_elem *child;
	int err = -ENOMEM;

	first = run_first(a) & ~shift_mask(shift + XA_CHUNK_SHIFT);
	for (slot = 0; slot < XA_CHUNK_SIZE; slot++, first = last + 1) {
		last = first | shift_mask(shift);
		for (j = i; j < nr && run_first(&a[j]) <= last; j++)
			;
		if (i == j)
			continue;
		if (run_first(&a[i]) <= first && run_last(&a[i]) >= last) {
			slots[slot] = xa_mk_value(a[i].word);
		} else {
			child = array_alloc(store, order_for(j - i), gfp);
			if (!child)
				goto err_free;
			for (k = i; k < j; k++) {
				child[k - i].pos = run_pos(max(run_first(&a[k]), first),
							   min(run_last(&a[k]), last));
				child[k - i].word = a[k].word;
			}
			array_set_size(child, j - i, order_for(j - i));
			slots[slot] = child;
		}
		i = run_last(&a[j - 1]) > last ? j - 1 : j;
	}

	err = slot_split(xas, slots, gfp);
	if (err)
		goto err_free;
	array_free(store, a, array_order(a));
	return 0;

err_free:
	for (slot = 0; slot < XA_CHUNK_SIZE; slot++)
		if (slots[slot] && !xa_is_value(slots[slot]))
			array_free(store, slots[slot], array_order(slots[slot]));
	return err;
}

/*
 * The array in the slot of @xas has no room for another run: make its runs
 * those of the slots of a node. Leaves @xas to be walked again.
 */
static int array_push_down(struct vfio_xa_dma *store, struct xa_state *xas,
			   struct vfio_xa_dma_elem *a, gfp_t gfp)
{
	unsigned int shift = slot_shift(xas);
	unsigned long index = xas->xa_index;
	unsigned long last = index | shift_mask(shift);
	bool deep = array_nr(a) > array_limit(shift - XA_CHUNK_SHIFT);
	void *entry;
	int err;

	err = array_push_down_once(store, xas, a, gfp);
	if (err || !deep)
		return err;

	slot_goto(xas, index & ~shift_mask(shift));
	entry = slot_first(store, xas, last);
	while (entry) {
		if (xa_is_value(entry) ||
		    array_nr(entry) <= array_limit(slot_shift(xas))) {
			entry = slot_next(store, xas, last);
			continue;
		}
		err = array_push_down_once(store, xas, entry, gfp);
		if (err)
			return err;
		entry = slot_first(store, xas, last);
	}
	slot_goto(xas, index);
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
 * Is the node in which @xas is so sparse that it should be an array in the
 * slot of its parent? Returns the node which that array is to replace: one
 * above it if that holds nothing else. Sets *@nr to the number of runs.
 */
static struct xa_node *node_is_sparse(const struct xa_state *xas, unsigned int *nr)
{
	struct xa_node *node = xas->xa_node, *top = node, *parent;
	unsigned int limit;

	if (xas_not_node(node))
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
	limit = array_limit(top->shift + XA_CHUNK_SHIFT);
	limit = top->shift ? limit / 2 : limit / 4 * 3;
	if (node->count > limit)
		return NULL;
	*nr = node_count_runs(node, limit);
	return *nr <= limit ? top : NULL;
}

/*
 * A slot of the node in which @xas is has become empty: if what is left of it
 * fits well into an array in the parent, make it one. Fails silently.
 */
static void node_collapse(struct vfio_xa_dma *store, struct xa_state *xas)
{
	struct vfio_xa_dma_elem *a, *out, *child;
	unsigned long index, mask;
	struct xa_node *node, *top;
	unsigned int nr, i;
	void *entry;

	while ((top = node_is_sparse(xas, &nr))) {
		a = array_alloc(store, order_for(nr),
				GFP_NOWAIT | __GFP_ACCOUNT | __GFP_NOWARN);
		if (!a)
			return;

		node = xas->xa_node;
		mask = shift_mask(node->shift);
		index = xas->xa_index & ~(mask << XA_CHUNK_SHIFT | XA_CHUNK_MASK);
		for (i = 0, out = a; i < XA_CHUNK_SIZE; i++, index += mask + 1) {
			entry = node_slot(node, i);
			if (xa_is_value(entry)) {
				out->pos = run_pos(index, index + mask);
				out->word = xa_to_value(entry);
				out++;
			} else if (entry) {
				child = entry;
				memcpy(out, child, array_nr(child) * sizeof(*a));
				out->pos &= RUN_POS_MASK;
				out += array_nr(child);
				array_free(store, child, array_order(child));
			}
		}
		array_set_size(a, nr, order_for(nr));
		array_join(a, 0, nr - 1);
		node_replace(xas, top->shift + XA_CHUNK_SHIFT, a);
		array_shrink(store, xas, a);
	}
}

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

/* Insert into the empty slot at @xas, or where there is no slot yet. */
static int insert_slot(struct vfio_xa_dma *store, struct xa_state *xas,
		       unsigned int shift, unsigned long first, unsigned long last,
		       unsigned long word, gfp_t gfp)
{
	bool grows = xas_not_node(xas->xa_node) || xas->xa_node->shift > shift;
	struct vfio_xa_dma_elem *a = NULL;
	void *entry;

	if (last - first == shift_mask(shift)) {
		entry = xa_mk_value(word);
	} else {
		entry = a = array_alloc(store, 0, gfp);
		if (!a)
			return -ENOMEM;
		a->pos = run_pos(first, last);
		a->word = word;
	}

	xas->xa_shift = shift;
	if (grows && !vfio_xa_dma_may_alloc(gfp)) {
		xas_set_err(xas, -ENOMEM);
	} else {
		do {
			xas_lock(xas);
			xas_store(xas, entry);
			xas_unlock(xas);
		} while (xas_nomem(xas, gfp));
	}
	if (likely(!xas_error(xas))) {
		if (!a)
			node_fold(xas, ULONG_MAX);
		return 0;
	}

	if (a)
		array_free(store, a, 0);
	/* The XArray leaves nodes behind, the lowest one empty: free them. */
	slot_goto(xas, first);
	slot_load(store, xas);
	if (!xas_not_node(xas->xa_node) && !xas->xa_node->count) {
		slot_replace(xas, xa_mk_value(word));
		slot_replace(xas, NULL);
	}
	return -ENOMEM;
}

/* Insert [pos, *last] into page slots of one node. */
static int insert_pages(struct xa_state *xas, unsigned long first, unsigned long last,
			unsigned long word)
{
	struct xa_node *node = xas->xa_node;
	unsigned long index;

	for (index = first + 1; index <= last; index++)
		if (node_slot(node, index & XA_CHUNK_MASK))
			return -EEXIST;
	xas_lock(xas);
	for (index = first; index <= last; index++) {
		xas->xa_index = index;
		xas->xa_offset = index & XA_CHUNK_MASK;
		xas_store(xas, xa_mk_value(word));
	}
	xas_unlock(xas);
	node_fold(xas, ULONG_MAX);
	return 0;
}

/* Insert into an array; -ENOSPC if it has to be pushed down first. */
static int insert_array(struct vfio_xa_dma *store, struct xa_state *xas,
			struct vfio_xa_dma_elem *a, unsigned long first,
			unsigned long last, unsigned long word, gfp_t gfp)
{
	const struct vfio_xa_dma_elem new = { .pos = run_pos(first, last), .word = word };
	unsigned int nr = array_nr(a);
	unsigned int at = array_find(a, nr, last);

	/* @at: the first run which follows the new one */
	if (run_first(&a[at]) <= run_index(last)) {
		if (run_last(&a[at]) >= run_index(first))
			return -EEXIST;
		at++;
	}
	if (last - first >= RUN_MAX)
		return -ENOSPC;

	if (at && run_joins(&a[at - 1], &new)) {
		a[at - 1].pos += run_count(&new);
		if (at < nr && run_joins(&a[at - 1], &a[at]))
			array_join(a, at, at);
		array_fold(store, xas, a, ULONG_MAX);
		return 0;
	}
	if (at < nr && run_joins(&new, &a[at])) {
		a[at].pos -= (run_count(&new) << RUN_COUNT_BITS) - run_count(&new);
		array_fold(store, xas, a, ULONG_MAX);
		return 0;
	}
	if (!array_has_room(a, 1)) {
		a = array_grow(store, xas, a, 1, gfp);
		if (IS_ERR(a))
			return PTR_ERR(a);
	}
	array_add(a, at, new.pos, word);
	return 0;
}

/*
 * Insert as many of the pages [pos, last] as there are in one slot, or one
 * node of page slots. What is not all of [first, last] is inserted as PENDING,
 * so that it does not join what is there and can be undone.
 */
static int insert_some(struct vfio_xa_dma *store, unsigned long first,
		       unsigned long pos, unsigned long last, unsigned long word,
		       unsigned long *end, gfp_t gfp)
{
	struct xa_state xas = store_state(store, pos);
	unsigned int shift;
	void *entry;
	bool pages;
	int err;

	do {
		entry = slot_load(store, &xas);
		if (xa_is_value(entry))
			return -EEXIST;

		pages = false;
		if (entry) {
			shift = slot_shift(&xas);
		} else if (xas_not_node(xas.xa_node)) {
			shift = insert_shift(root_shift(store, pos), pos, last);
		} else {
			shift = slot_shift(&xas);
			pages = !shift;
			shift = insert_shift(shift, pos, last);
		}
		*end = min(pos | shift_mask(pages ? XA_CHUNK_SHIFT : shift), last);
		if ((pos > first || *end < last) && !(word & VFIO_XA_DMA_TRANSIENT))
			word |= VFIO_XA_DMA_PENDING;

		if (entry)
			err = insert_array(store, &xas, entry, pos, *end, word, gfp);
		else if (pages)
			err = insert_pages(&xas, pos, *end, word);
		else
			err = insert_slot(store, &xas, shift, pos, *end, word, gfp);
		if (err == -ENOSPC) {
			err = array_push_down(store, &xas, entry, gfp);
			if (!err)
				err = -EAGAIN;
		}
	} while (err == -EAGAIN);

	if (!err)
		store->nr_pages += *end - pos + 1;
	return err;
}

/* Does an entry which is to be changed as a whole lie within [first, last]? */
static bool slot_within(const struct xa_state *xas, unsigned long last)
{
	unsigned long mask = shift_mask(slot_shift(xas));

	return !WARN_ON_ONCE(xas->xa_index & mask || (xas->xa_index | mask) > last);
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

static void erase_pages(struct vfio_xa_dma *store, struct xa_state *xas,
			unsigned long last)
{
	struct xa_node *node = xas->xa_node;
	unsigned long index = xas->xa_index;

	if (!node) {
		slot_replace(xas, NULL);
		store->nr_pages--;
		return;
	}
	if (last - index == XA_CHUNK_MASK) {
		store->nr_pages -= node->count;
		node_replace(xas, XA_CHUNK_SHIFT, NULL);
		return;
	}
	xas_lock(xas);
	for (; index <= last && xas->xa_node == node; index++) {
		if (!node_slot(node, index & XA_CHUNK_MASK))
			continue;
		xas->xa_index = index;
		xas->xa_offset = index & XA_CHUNK_MASK;
		xas_store(xas, NULL);
		store->nr_pages--;
	}
	xas_unlock(xas);
}

/* Returns true if the slot has become empty. */
static bool erase_array(struct vfio_xa_dma *store, struct xa_state *xas,
			struct vfio_xa_dma_elem *a, unsigned long first,
			unsigned long last)
{
	unsigned int i = array_find_from(a, array_nr(a), first), k;
	unsigned int n = array_count_to(a, i, last);
	unsigned long count;

	if (!n)
		return false;
	if (run_first(&a[i]) < run_index(first)) {
		/* Keep what is before. */
		if (run_last(&a[i]) > run_index(last) && !array_cut(a, i, last + 1))
			return false;
		count = run_last(&a[i]) - run_index(first) + 1;
		a[i].pos -= count;
		store->nr_pages -= count;
		i++;
		n--;
	}
	if (n && run_last(&a[i + n - 1]) > run_index(last)) {
		/* Keep what is after. */
		n--;
		count = run_index(last) - run_first(&a[i + n]) + 1;
		a[i + n].pos += (count << RUN_COUNT_BITS) - count;
		store->nr_pages -= count;
	}
	for (k = i; k < i + n; k++)
		store->nr_pages -= run_count(&a[k]);
	if (n == array_nr(a)) {
		slot_replace(xas, NULL);
		array_free(store, a, array_order(a));
		return true;
	}
	if (n) {
		array_remove(a, i, n);
		array_shrink(store, xas, a);
	}
	return false;
}

static void erase_range(struct vfio_xa_dma *store, unsigned long first,
			unsigned long last, bool collapse)
{
	struct xa_state xas = store_state(store, first);
	unsigned long end;
	unsigned int shift;
	void *entry;
	bool empty;

	while ((entry = slot_first(store, &xas, last))) {
		shift = slot_shift(&xas);
		end = min(xas.xa_index | shift_mask(shift ?: XA_CHUNK_SHIFT), last);
		empty = true;
		if (!shift) {
			erase_pages(store, &xas, end);
		} else if (!xa_is_value(entry)) {
			empty = erase_array(store, &xas, entry, xas.xa_index, end);
		} else if (slot_within(&xas, last)) {
			store->nr_pages -= shift_mask(shift) + 1;
			slot_replace(&xas, NULL);
		}
		if (end == last) {
			if (empty && collapse)
				node_collapse(store, &xas);
			break;
		}
		slot_goto(&xas, end + 1);
		cond_resched();
	}

	/* The node around @last has been seen to, unless there was a hole. */
	if (!collapse || (entry && !((first ^ last) >> XA_CHUNK_SHIFT)))
		return;
	slot_goto(&xas, first);
	slot_load(store, &xas);
	node_collapse(store, &xas);
	slot_goto(&xas, last);
	slot_load(store, &xas);
	node_collapse(store, &xas);
}

/**
 * vfio_xa_dma_destroy() - Erase all there is in a store
 * @store: the store; empty and usable afterwards
 *
 * Context: Caller holds the lock of the store, or is its last user. May sleep.
 */
void vfio_xa_dma_destroy(struct vfio_xa_dma *store)
{
	erase_range(store, 0, VFIO_XA_DMA_LAST_INDEX, false);
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_destroy, "VFIO_DMA");

/**
 * vfio_xa_dma_insert() - Store the word of a range of pages
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 * @word: what to store, see vfio_xa_dma_word()
 * @gfp: how to allocate; nodes are charged to the memory cgroup in any case
 *
 * All or nothing. If @word has a TRANSIENT flag, vfio_xa_dma_erase() and
 * vfio_xa_dma_change() of just this range need no vfio_xa_dma_prepare().
 *
 * Context: Caller holds the lock of the store. May sleep, if @gfp allows it.
 * Return: 0; -EEXIST if one of the pages is present, in whatever state;
 * -ENOMEM.
 */
int vfio_xa_dma_insert(struct vfio_xa_dma *store, unsigned long first,
		       unsigned long last, unsigned long word, gfp_t gfp)
{
	unsigned long pos = first, end;
	struct vfio_xa_dma_run run;
	int err;

	/* Pages which are not in one slot, nor in one node? */
	if ((first ^ last) >> XA_CHUNK_SHIFT &&
	    vfio_xa_dma_next(store, first, last, &run))
		return -EEXIST;

	for (;;) {
		err = insert_some(store, first, pos, last, word, &end, gfp);
		if (err || end == last)
			break;
		pos = end + 1;
		cond_resched();
	}
	if (likely(pos == first))
		return err;
	if (err)
		erase_range(store, first, pos - 1, true);
	else if (!(word & VFIO_XA_DMA_TRANSIENT))
		vfio_xa_dma_change(store, first, last, VFIO_XA_DMA_PENDING, 0);
	return err;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_insert, "VFIO_DMA");

/* Does a run of an array cover both @index and the page before it? */
static bool array_is_across(const struct vfio_xa_dma_elem *a, unsigned long index)
{
	unsigned int i = array_find(a, array_nr(a), index);

	return run_first(&a[i]) < run_index(index) && run_last(&a[i]) >= run_index(index);
}

/*
 * Make a block of one word an array with room for @cuts cuts, or a node full
 * of smaller blocks. Leaves @xas to be walked again.
 */
static int prepare_value(struct vfio_xa_dma *store, struct xa_state *xas, void *entry,
			 unsigned int cuts, gfp_t gfp)
{
	unsigned int shift = slot_shift(xas), order, nr, i;
	void *slots[XA_CHUNK_SIZE];
	struct vfio_xa_dma_elem *a;
	unsigned long first;

	if (shift > ARRAY_FULL_SHIFT) {
		for (i = 0; i < XA_CHUNK_SIZE; i++)
			slots[i] = entry;
		return slot_split(xas, slots, gfp);
	}

	nr = DIV_ROUND_UP(1U << shift, RUN_MAX);
	order = order_for(nr + cuts);
	a = array_alloc(store, order, gfp);
	if (!a)
		return -ENOMEM;
	first = xas->xa_index & ~shift_mask(shift);
	for (i = 0; i < nr; i++, first += RUN_MAX) {
		a[i].pos = run_pos(first, first + (min(1UL << shift, RUN_MAX) - 1));
		a[i].word = xa_to_value(entry);
	}
	array_set_size(a, nr, order);
	slot_replace(xas, a);
	slot_goto(xas, xas->xa_index);
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
	struct xa_state xas = store_state(store, at);
	struct vfio_xa_dma_elem *a;
	unsigned int cuts;
	void *entry;
	int err;

again:
	entry = slot_load(store, &xas);
	*end = at;
	if (!entry || !slot_shift(&xas))
		return 0;
	*end |= shift_mask(slot_shift(&xas));
	cuts = (first > (at & ~shift_mask(slot_shift(&xas)))) + (last < *end);
	if (!cuts)
		return 0;

	if (xa_is_value(entry)) {
		err = prepare_value(store, &xas, entry, cuts, gfp);
	} else {
		a = entry;
		if (array_has_room(a, cuts))
			return 0;
		cuts = 0;
		if (first > (at & ~shift_mask(slot_shift(&xas))))
			cuts += array_is_across(a, first);
		if (last < *end)
			cuts += array_is_across(a, last + 1);
		if (array_has_room(a, cuts))
			return 0;
		a = array_grow(store, &xas, a, cuts, gfp);
		err = PTR_ERR_OR_ZERO(a);
		if (err != -ENOSPC)
			return err;
		err = array_push_down(store, &xas, entry, gfp);
	}
	if (!err)
		goto again;
	return err;
}

/**
 * vfio_xa_dma_prepare() - Allocate what it takes to cut out a range of pages
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 * @gfp: how to allocate; nodes are charged to the memory cgroup in any case
 *
 * After this, vfio_xa_dma_erase() or vfio_xa_dma_change() of just this range
 * will find all it needs, if nothing else changes the store between.
 *
 * Context: Caller holds the lock of the store. May sleep, if @gfp allows it.
 * Return: 0, or -ENOMEM, and then nothing has changed that can be seen.
 */
int vfio_xa_dma_prepare(struct vfio_xa_dma *store, unsigned long first,
			unsigned long last, gfp_t gfp)
{
	unsigned long end;
	int err;

	err = prepare_slot(store, first, first, last, &end, gfp);
	if (!err && end < last)
		err = prepare_slot(store, last, 0, last, &end, gfp);
	return err;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_prepare, "VFIO_DMA");

/**
 * vfio_xa_dma_erase() - Forget a range of pages
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 *
 * Pages which are not present are skipped. A range which does not end where
 * runs end needs vfio_xa_dma_prepare().
 *
 * Context: Caller holds the lock of the store. May sleep. Cannot fail; may
 * try to allocate, to free more than that, and does without if it must.
 */
void vfio_xa_dma_erase(struct vfio_xa_dma *store, unsigned long first,
		       unsigned long last)
{
	erase_range(store, first, last, true);
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_erase, "VFIO_DMA");

static void *word_change(void *entry, unsigned long clear, unsigned long set)
{
	return xa_mk_value((xa_to_value(entry) & ~clear) | set);
}

static void change_pages(struct xa_state *xas, unsigned long last, unsigned long clear,
			 unsigned long set, unsigned long done)
{
	struct xa_node *node = xas->xa_node;
	unsigned long index;
	void *entry;

	xas_lock(xas);
	for (index = xas->xa_index; index <= last; index++) {
		entry = node_slot(node, index & XA_CHUNK_MASK);
		if (!entry)
			continue;
		xas->xa_index = index;
		xas->xa_offset = index & XA_CHUNK_MASK;
		xas_store(xas, word_change(entry, clear, set));
	}
	xas_unlock(xas);
	node_fold(xas, done);
}

static void change_array(struct vfio_xa_dma *store, struct xa_state *xas,
			 struct vfio_xa_dma_elem *a, unsigned long first,
			 unsigned long last, unsigned long clear, unsigned long set,
			 unsigned long done)
{
	unsigned int i = array_find_from(a, array_nr(a), first), k;
	unsigned int n = array_count_to(a, i, last);

	if (n && run_first(&a[i]) < run_index(first)) {
		if (!array_cut(a, i, first))
			return;
		i++;
	}
	if (n && run_last(&a[i + n - 1]) > run_index(last) &&
	    !array_cut(a, i + n - 1, last + 1))
		return;
	if (!n)
		return;
	for (k = i; k < i + n; k++)
		a[k].word = (a[k].word & ~clear) | set;
	if (set & VFIO_XA_DMA_TRANSIENT)
		return;
	array_join(a, i, i + n - 1);
	if (!array_fold(store, xas, a, done))
		array_shrink(store, xas, a);
}

/**
 * vfio_xa_dma_change() - Change the flags of a range of pages
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 * @clear: VFIO_XA_DMA_* flags to clear
 * @set: VFIO_XA_DMA_* flags to set
 *
 * Pages which are not present are skipped. A range which does not end where
 * runs end needs vfio_xa_dma_prepare(). When this sets a TRANSIENT flag, the
 * range needs none afterwards, as long as the flag stays set.
 *
 * Context: Caller holds the lock of the store. May sleep. Cannot fail; may
 * try to allocate, to free more than that, and does without if it must.
 */
void vfio_xa_dma_change(struct vfio_xa_dma *store, unsigned long first,
			unsigned long last, unsigned long clear,
			unsigned long set)
{
	struct xa_state xas = store_state(store, first);
	unsigned long end, done;
	unsigned int shift;
	void *entry;

	while ((entry = slot_first(store, &xas, last))) {
		shift = slot_shift(&xas);
		end = min(xas.xa_index | shift_mask(shift ?: XA_CHUNK_SHIFT), last);
		done = end < last ? end : ULONG_MAX;
		if (!shift && xas.xa_node) {
			change_pages(&xas, end, clear, set, done);
		} else if (!xa_is_value(entry)) {
			change_array(store, &xas, entry, xas.xa_index, end, clear, set,
				     done);
		} else if (slot_within(&xas, last)) {
			slot_replace(&xas, word_change(entry, clear, set));
			node_fold(&xas, done);
		}
		if (end == last)
			return;
		slot_goto(&xas, end + 1);
		cond_resched();
	}
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_change, "VFIO_DMA");

/* The first run in the slot of @xas which does not end before @index. */
static bool slot_run(const struct xa_state *xas, void *entry, unsigned long index,
		     struct vfio_xa_dma_run *run)
{
	unsigned long mask = shift_mask(slot_shift(xas));
	struct vfio_xa_dma_elem *a = entry;
	unsigned int i;

	run->first = index & ~mask;
	if (xa_is_value(entry)) {
		run->last = index | mask;
		run->word = xa_to_value(entry);
		return true;
	}
	i = array_find_from(a, array_nr(a), index);
	if (i == array_nr(a))
		return false;
	run->first += run_first(&a[i]) & mask;
	run->last = run->first + run_count(&a[i]) - 1;
	run->word = a[i].word;
	return true;
}

/* Extend @run, the end of which is in the slot of @xas, up to @last or beyond. */
static void run_extend(struct xa_state *xas, void *entry, unsigned long last,
		       struct vfio_xa_dma_run *run)
{
	struct vfio_xa_dma_run next;

	while (run->last < last) {
		if ((run->last & shift_mask(slot_shift(xas))) ==
		    shift_mask(slot_shift(xas))) {
			xas->xa_index = run->last;
			rcu_read_lock();
			entry = xas_next(xas);
			rcu_read_unlock();
			if (!entry)
				return;
			cond_resched();
		}
		if (!slot_run(xas, entry, run->last + 1, &next) ||
		    next.first != run->last + 1 || next.word != run->word)
			return;
		run->last = next.last;
	}
}

/* Extend @run, the beginning of which is in the slot of @xas, backwards. */
static void run_extend_back(struct xa_state *xas, void *entry,
			    struct vfio_xa_dma_run *run)
{
	struct vfio_xa_dma_run prev;

	while (run->first) {
		if (!(run->first & shift_mask(slot_shift(xas)))) {
			xas->xa_index = run->first;
			rcu_read_lock();
			entry = xas_prev(xas);
			rcu_read_unlock();
			if (!entry)
				return;
			cond_resched();
		}
		if (!slot_run(xas, entry, run->first - 1, &prev) ||
		    prev.last != run->first - 1 || prev.word != run->word)
			return;
		run->first = prev.first;
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
	XA_STATE(xas, &store->xa, index);
	struct vfio_xa_dma_elem *a;
	unsigned int i;
	void *entry;

	entry = slot_load(store, &xas);
	if (xa_is_value(entry))
		return xa_to_value(entry);
	if (!entry)
		return 0;
	a = entry;
	i = array_find(a, array_nr(a), index);
	if (run_index(index) - run_first(&a[i]) >= run_count(&a[i]))
		return 0;
	return a[i].word;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_load, "VFIO_DMA");

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
	XA_STATE(xas, &store->xa, first);
	void *entry;

	entry = slot_first(store, &xas, last);
	while (entry && !slot_run(&xas, entry, xas.xa_index, run))
		entry = slot_next(store, &xas, last);
	if (!entry)
		return false;

	if (run->first > last)
		return false;
	run_extend(&xas, entry, last, run);
	run->first = max(run->first, first);
	run->last = min(run->last, last);
	return true;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_next, "VFIO_DMA");

/**
 * vfio_xa_dma_run_at() - Find the run which a page is part of
 * @store: the store
 * @index: IOVA page number
 * @run: set to all the neighbouring pages with the same word as that page;
 *	undefined if it is not present
 *
 * Context: Caller holds the lock of the store. May sleep.
 * Return: true if the page is present.
 */
bool vfio_xa_dma_run_at(struct vfio_xa_dma *store, unsigned long index,
			struct vfio_xa_dma_run *run)
{
	XA_STATE(xas, &store->xa, index);
	void *entry;

	entry = slot_load(store, &xas);
	if (!entry || !slot_run(&xas, entry, index, run) || run->first > index)
		return false;

	run_extend_back(&xas, entry, run);
	xas_set(&xas, run->last);
	entry = slot_load(store, &xas);
	run_extend(&xas, entry, VFIO_XA_DMA_LAST_INDEX, run);
	return true;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_run_at, "VFIO_DMA");

/**
 * vfio_xa_dma_footprint() - Memory which a store takes
 * @store: the store
 *
 * Counts what the slab allocator spends: sizes rounded up as it does, and the
 * pointer to the memory cgroup of each object.
 *
 * Context: Caller holds the lock of the store.
 * Return: number of bytes beside @store itself.
 */
size_t vfio_xa_dma_footprint(struct vfio_xa_dma *store)
{
	return store->nr_nodes * NODE_BYTES + store->array_bytes;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_footprint, "VFIO_DMA");

#define validate(store, cond)						\
	({								\
		bool __ok = (cond);					\
									\
		if (!__ok)						\
			pr_err("vfio_xa_dma %p: line %d: not true: %s\n",	\
			       store, __LINE__, #cond);			\
		__ok;							\
	})

/* What a validation finds, to be compared with what the store has counted. */
struct store_sums {
	unsigned long nr_nodes;
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
	    !validate(store, sums.array_bytes == store->array_bytes) ||
	    !validate(store, sums.nr_pages == store->nr_pages))
		return -EUCLEAN;
	return 0;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_validate, "VFIO_DMA");
