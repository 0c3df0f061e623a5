// SPDX-License-Identifier: GPL-2.0-only
/*
 * vfio_xa_dma - a compact store of DMA mappings, one word per IOVA page
 *
 * What is stored
 * --------------
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
 * many others in the same node it need not get as large: array_is_spread().
 *
 * A new run goes into an array in the empty slot which its page is found in,
 * whatever the level: a new node is only made when an array must be pushed
 * down or the tree must grow at the root. An array which is full is pushed down
 * by one level. What is stored in page slots does not go back to an array before
 * it has become much smaller (node_collapse()), and the same holds for each
 * level, so that a page which is mapped and unmapped time and again does not
 * move the others each time.
 *
 * Where all of a block has become one run, its array or node becomes a value:
 * array_fold() and node_fold(). This goes up to blocks of 4096 pages. Larger
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
 * both ends of a range is allocated by vfio_xa_dma_prepare(): blocks of one
 * word are divided until an array with enough room holds the place of the cut.
 * The cut itself is made by vfio_xa_dma_erase() and vfio_xa_dma_change(), which
 * never need memory. They try to allocate where that would free more (a smaller
 * array for a larger one, an array for a node), and do without if they must.
 *
 * A run with a TRANSIENT flag is never joined with another, nor is a block of
 * it folded: so it ends where it was inserted, or where it was cut when the
 * flag was set, and no preparation is needed to erase just that range. It may be
 * divided, when an array is pushed down; that does no harm. An insert of a range
 * which takes several slots makes use of this: it is inserted as PENDING and
 * published when all is there, or else erased again.
 *
 * For a page on its own that is dear: it would be added to an array only to be joined
 * with a neighbour there. vfio_xa_dma_insert_begin() joins it at once, but does not fold.
 * What has been joined leaves room in the array to be cut again, so that this needs no
 * memory either, as long as nothing else has changed.
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

#include <linux/bitops.h>
#include <linux/err.h>
#include <linux/export.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/log2.h>
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

/* Up to this many index bits, nodes are folded, and cut blocks become arrays. */
#define FOLD_MAX_SHIFT		(2 * XA_CHUNK_SHIFT)

/*
 * A value is that of one page in a block of 64 if it has this flag, which no word has.
 * Which page it is takes the place of the highest bits of the word: those are copies of
 * its sign, unless IOVA and user memory are more than 2^45 pages apart. A word which is
 * longer than that has to be in an array.
 */
#define SINGLE			BIT(VFIO_XA_DMA_FLAG_BITS - 1)
#define SINGLE_SHIFT		(BITS_PER_LONG - 1 - XA_CHUNK_SHIFT)
#define SINGLE_MASK		(BIT(SINGLE_SHIFT) - 1)

/*
 * Memory which the slab allocator spends on a node, and on an object beside
 * its size: the pointer to the memory cgroup which it is charged to.
 */
#define CHARGE_BYTES		sizeof(void *)
#define NODE_SLAB		(4 * PAGE_SIZE)
#define NODE_BYTES		(NODE_SLAB / (NODE_SLAB / sizeof(struct xa_node)) + \
				 CHARGE_BYTES)

/* For what may fail, and frees more than it allocates. */
#define GFP_TRY			(GFP_NOWAIT | __GFP_ACCOUNT | __GFP_NOWARN)

/*
 * What must not fail. With __GFP_HIGH a memory cgroup is charged beyond its limit,
 * once reclaim has not helped; __GFP_NOFAIL would have a process of it killed first,
 * so only what the machine has no memory for is allocated with that, and not charged.
 */
#define GFP_OVER_LIMIT		(GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | \
				 __GFP_NOWARN | __GFP_HIGH)
#define GFP_LAST		(GFP_KERNEL | __GFP_NOFAIL)

static_assert(sizeof(struct vfio_xa_dma_elem) == 16);
static_assert(BITS_PER_LONG == 64);
static_assert(ARRAY_MAX_SHIFT % XA_CHUNK_SHIFT == 0);
static_assert(VFIO_XA_DMA_FLAGS < SINGLE);

/* Arrays of this order are not worth making smaller. */
#define SHRINK_MIN_ORDER	2

/*
 * An array in a node of more than half of its slots is pushed down when it has this many
 * runs, if they are spread over more than so many slots. With so few it is one again.
 */
#define CROWDED_MAX		16
#define CROWDED_SPREAD		12
#define CROWDED_SPARSE		6

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

static inline bool run_joins(const struct vfio_xa_dma_elem *e,
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

	/* Much is done in ascending order. */
	if (nr > 1 && a[nr - 1].pos <= pos)
		return nr - 1;
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

/* Can a page of this word be a single in a slot which covers 1 << @shift pages? */
static bool single_fits(unsigned int shift, unsigned long word)
{
	return shift == XA_CHUNK_SHIFT &&
	       ((word + BIT(SINGLE_SHIFT - 1)) & LONG_MAX) <= SINGLE_MASK;
}

static void *single_entry(unsigned long index, unsigned long word)
{
	return xa_mk_value((word & SINGLE_MASK) | SINGLE |
			   (index & XA_CHUNK_MASK) << SINGLE_SHIFT);
}

static bool entry_is_single(const void *entry)
{
	return xa_is_value(entry) && xa_to_value(entry) & SINGLE;
}

/* The page of a single, in the block which @index is in. */
static unsigned long single_index(const void *entry, unsigned long index)
{
	return (index & ~XA_CHUNK_MASK) | xa_to_value(entry) >> SINGLE_SHIFT;
}

static unsigned long single_word(const void *entry)
{
	long word = xa_to_value(entry) << (BITS_PER_LONG - SINGLE_SHIFT);

	return (word >> (BITS_PER_LONG - SINGLE_SHIFT)) & LONG_MAX & ~SINGLE;
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
	if (a) {
		store->nr_arrays++;
		store->array_bytes += array_bytes(order);
	}
	return a;
}

static void array_free(struct vfio_xa_dma *store, struct vfio_xa_dma_elem *a,
		       unsigned int order)
{
	store->nr_arrays--;
	store->array_bytes -= array_bytes(order);
	kfree(a);
}

/*
 * Called by the XArray when the number of entries of a node has changed: it is
 * new if it has not been seen, and about to be freed if there are none.
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

/**
 * struct slot - a place in the tree
 * @store: the store
 * @node: the node which the slot is in; NULL if it is the root of the XArray,
 *	or if the tree does not reach @index
 * @index: a page in the block which the slot covers
 * @entry: what the slot holds, never a node
 *
 * Good until the store is changed otherwise than through it.
 */
struct slot {
	struct vfio_xa_dma *store;
	struct xa_node *node;
	unsigned long index;
	void *entry;
};

static unsigned long shift_mask(unsigned int shift)
{
	return (1UL << shift) - 1;
}

/* How many index bits the slot covers. */
static unsigned int slot_shift(const struct slot *slot)
{
	return slot->node ? slot->node->shift : 0;
}

static unsigned long slot_mask(const struct slot *slot)
{
	return shift_mask(slot_shift(slot));
}

static void *node_slot(const struct xa_node *node, unsigned int offset)
{
	return rcu_dereference_raw(node->slots[offset]);
}

static unsigned int node_offset(const struct xa_node *node, unsigned long index)
{
	return (index >> node->shift) & XA_CHUNK_MASK;
}

/* Is @index not in the same node as @near? */
static bool node_is_far(const struct xa_node *node, unsigned long near,
			unsigned long index)
{
	return (near ^ index) >> node->shift >> XA_CHUNK_SHIFT;
}

/* Walk to the slot which covers @index. */
static __always_inline void *__slot_load(struct slot *slot, struct vfio_xa_dma *store,
					 unsigned long index)
{
	struct xa_node *node = store->near_node;
	void *entry;

	slot->store = store;
	slot->index = index;
	while (node && node_is_far(node, store->near_index, index))
		node = rcu_dereference_raw(node->parent);
	if (!node) {
		entry = rcu_dereference_raw(store->xa.xa_head);
		node = xa_is_node(entry) ? xa_to_node(entry) : NULL;
		if (!node || node_is_far(node, 0, index)) {
			slot->node = NULL;
			slot->entry = node || index ? NULL : entry;
			return slot->entry;
		}
	}
	entry = node_slot(node, node_offset(node, index));
	while (xa_is_node(entry)) {
		node = xa_to_node(entry);
		entry = node_slot(node, node_offset(node, index));
	}
	store->near_node = node;
	store->near_index = index;
	slot->node = node;
	slot->entry = entry;
	return entry;
}

static noinline void *slot_load(struct slot *slot, struct vfio_xa_dma *store,
				unsigned long index)
{
	return __slot_load(slot, store, index);
}

/* An XArray state which is at the slot, to store to it. */
static struct xa_state slot_state(const struct slot *slot)
{
	XA_STATE(xas, &slot->store->xa, slot->index);

	xas_set_update(&xas, store_update_node);
	if (slot->node) {
		xas.xa_node = slot->node;
		xas.xa_shift = slot->node->shift;
		xas.xa_offset = node_offset(slot->node, slot->index);
	}
	return xas;
}

/* Walk on to the next slot up to @last which is not empty. */
static void *slot_next(struct slot *slot, unsigned long last)
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
static void *slot_first(struct slot *slot, struct vfio_xa_dma *store,
			unsigned long first, unsigned long last)
{
	if (slot_load(slot, store, first) || (first | slot_mask(slot)) >= last)
		return slot->entry;
	return slot_next(slot, last);
}

static void slot_store(struct slot *slot, struct xa_state *xas, void *entry)
{
	xas_lock(xas);
	xas_store(xas, entry);
	xas_unlock(xas);
	slot->node = xas_not_node(xas->xa_node) ? NULL : xas->xa_node;
	slot->entry = entry;
}

/*
 * Store to a slot of a node that has an entry before and afterwards. Neither the old entry
 * nor the new one is a node, so nothing outside the node changes. The slot is written
 * directly for two reasons. Correctness: xas_store() can shrink the tree at the root, which
 * frees the node that the caller's struct slot points to, in the middle of a walk over its
 * slots. Cost: xas_store() takes ten times as long to find out that nothing else changes.
 */
static void node_store(struct xa_node *node, unsigned int offset, void *entry)
{
	void *old = node_slot(node, offset);

	rcu_assign_pointer(node->slots[offset], entry);
	node->count += !!entry - !!old;
	node->nr_values += xa_is_value(entry) - xa_is_value(old);
}

/* Replace what the slot holds. Never allocates. */
static void slot_replace(struct slot *slot, void *entry)
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
static void node_replace(struct slot *slot, unsigned int shift, void *entry)
{
	struct xa_state xas = slot_state(slot);

	xas_set_order(&xas, slot->index, shift);
	slot_store(slot, &xas, entry);
}

/* Is a node full of values, and worth a look whether they all are the same? */
static bool node_may_fold(const struct xa_node *node)
{
	return node && node->nr_values == XA_CHUNK_SIZE &&
	       node_slot(node, 0) == node_slot(node, XA_CHUNK_MASK);
}

static noinline void __node_fold(struct slot *slot, unsigned long done)
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
		node_replace(slot, node->shift + XA_CHUNK_SHIFT, entry);
		node = slot->node;
	} while (node_may_fold(node));
}

/*
 * A node full of one and the same word becomes an entry of its parent; but not
 * one which goes beyond @done, where there may be a cut which is still needed.
 */
static void node_fold(struct slot *slot, unsigned long done)
{
	if (node_may_fold(slot->node))
		__node_fold(slot, done);
}

static noinline void __array_fold(struct slot *slot, unsigned long done)
{
	struct vfio_xa_dma_elem *a = slot->entry;

	slot_replace(slot, xa_mk_value(a->word));
	array_free(slot->store, a, array_order(a));
	node_fold(slot, done);
}

/* Is an array one run, which covers all of the block? */
static inline bool array_may_fold(const struct slot *slot)
{
	return run_count(slot->entry) > slot_mask(slot);
}

/* If so, it becomes a value. */
static inline bool array_fold(struct slot *slot, unsigned long done)
{
	if (!array_may_fold(slot))
		return false;
	__array_fold(slot, done);
	return true;
}

/* What has been found to fold perhaps: an array, or the node of values or pages */
static noinline void slot_fold(struct slot *slot)
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

	new = array_alloc(slot->store, order, gfp);
	if (!new)
		return -ENOMEM;
	memcpy(new, a, nr * sizeof(*a));
	array_set_size(new, nr, order);
	slot_replace(slot, new);
	array_free(slot->store, a, array_order(a));
	return 0;
}

/* Give memory back if much of an array is unused. Fails silently. */
static void array_shrink(struct slot *slot)
{
	struct vfio_xa_dma_elem *a = slot->entry;

	if (unlikely(array_nr(a) <= 1U << array_order(a) >> 2 &&
		     array_order(a) > SHRINK_MIN_ORDER))
		array_resize(slot, array_order(a) - 1, GFP_TRY);
}

/*
 * Many share what the node costs which the slot is in, so that one more below it comes
 * cheap. Slots which cover more than FOLD_MAX_SHIFT are not for single pages.
 */
static bool node_is_crowded(const struct xa_node *node)
{
	return node->shift <= FOLD_MAX_SHIFT && node->count > XA_CHUNK_SIZE / 2;
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
static int array_grow(struct slot *slot, unsigned int more, gfp_t gfp)
{
	unsigned int nr = array_nr(slot->entry) + more;

	if (nr > array_limit(slot_shift(slot)) || array_is_spread(slot))
		return -ENOSPC;
	return array_resize(slot, order_for(nr), gfp);
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

/* Join what can be joined of the runs @i to @j, and with their neighbours. */
static void array_join(struct vfio_xa_dma_elem *a, unsigned int i, unsigned int j)
{
	unsigned int k, out;

	out = i ? i - 1 : 0;
	j = min(j + 1, array_nr(a) - 1);
	for (k = out + 1; k <= j; k++) {
		if (run_joins(&a[out], &a[k]))
			a[out].pos += run_count(&a[k]);
		else if (++out != k)
			a[out] = a[k];
	}
	if (out < j)
		array_remove(a, out + 1, j - out);
}

/*
 * Replace the entry of the slot by a node, the slots of which hold @slots.
 *
 * xas_split() makes a node of 64 times the same. Nobody has seen the node, so it
 * is filled here: to have xas_store() do it, slot by slot, would take more time
 * than all else that is done to the pages in it.
 */
static int slot_split(struct slot *slot, void **slots, gfp_t gfp)
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
			child = array_alloc(slot->store, order_for(j - i), gfp);
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

	err = slot_split(slot, slots, gfp);
	if (err)
		goto err_free;
	array_free(slot->store, a, array_order(a));
	return 0;

err_free:
	for (offset = 0; offset < XA_CHUNK_SIZE; offset++)
		if (slots[offset] && !xa_is_value(slots[offset]))
			array_free(slot->store, slots[offset],
				   array_order(slots[offset]));
	return err;
}

/*
 * There is no room for another run in the array of the slot: have its runs in
 * the slots of a node. The slot must be walked to again.
 */
static int array_push_down(struct slot *slot, gfp_t gfp)
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

	entry = slot_first(slot, store, first, last);
	while (entry) {
		if (xa_is_value(entry) ||
		    array_nr(entry) <= array_limit(slot_shift(slot))) {
			entry = slot_next(slot, last);
			continue;
		}
		err = array_push_down_once(slot, &deep, gfp);
		if (err)
			return err;
		entry = slot_first(slot, store, slot->index, last);
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

/* Is there nothing but the node in its parent? */
static bool node_is_alone(const struct xa_node *node)
{
	const struct xa_node *parent = rcu_dereference_raw(node->parent);

	return parent && parent->count == 1;
}

/*
 * With so many entries, or less, a node may become an array again, and with no more
 * than one the next erase empties it.
 */
static inline unsigned int node_sparse_limit(const struct xa_node *node)
{
	const struct xa_node *parent = rcu_dereference_raw(node->parent);

	if (!parent)
		return 1;
	if (node_is_crowded(parent))
		return CROWDED_SPARSE;
	return array_limit(parent->shift) / 2;
}

/* A node in which there are too many to even think of it. */
static inline bool node_is_dense(const struct xa_node *node)
{
	return node && node->count > node_sparse_limit(node) && !node_is_alone(node);
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
static void node_collapse(struct slot *slot)
{
	struct vfio_xa_dma_elem *a, *out, *child;
	unsigned long index, mask;
	struct xa_node *node, *top;
	unsigned int nr, i;
	void *entry;

	while ((top = node_is_sparse(slot, &nr))) {
		a = array_alloc(slot->store, order_for(nr), GFP_TRY);
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
				array_free(slot->store, child, array_order(child));
			}
		}
		array_set_size(a, nr, order_for(nr));
		array_join(a, 0, nr - 1);
		node_replace(slot, top->shift + XA_CHUNK_SHIFT, a);
		array_shrink(slot);
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
		a = array_alloc(slot->store, 0, gfp);
		if (!a)
			return -ENOMEM;
		a->pos = run_pos(first, last);
		a->word = word;
		entry = a;
	}

	if (slot->node && slot->node->shift == shift) {
		slot_replace(slot, entry);
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
		array_free(slot->store, a, 0);
	/* The XArray leaves nodes behind, the lowest one empty: free them. */
	slot_load(slot, slot->store, first);
	if (slot->node && !slot->node->count) {
		slot_replace(slot, xa_mk_value(word));
		slot_replace(slot, NULL);
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
	unsigned int nr = array_nr(a), at = array_find(a, nr, last);
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
			array_join(a, at, at);
		return array_may_fold(slot);
	}
	if (at < nr && run_joins(&new, &a[at])) {
		a[at].pos -= (run_count(&new) << RUN_COUNT_BITS) - run_count(&new);
		return array_may_fold(slot);
	}
	if (!array_has_room(a, 1)) {
		err = array_grow(slot, 1, gfp);
		if (err)
			return err;
	}
	array_add(slot->entry, at, new.pos, word);
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
	a = array_alloc(slot->store, !joins, gfp);
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
	slot_replace(slot, a);
	return array_may_fold(slot);
}

/*
 * Insert as many of the pages [pos, last] as there are in one slot, or one
 * node of page slots. What is not all of [first, last] is inserted as PENDING,
 * so that it does not join what is there and can be undone. Returns 1 if the slot
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
	entry = slot_load(slot, store, pos);
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
			err = array_push_down(slot, gfp);
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
		slot_replace(slot, NULL);
		slot->store->nr_pages--;
		return;
	}
	if (last - slot->index == XA_CHUNK_MASK) {
		slot->store->nr_pages -= node->count;
		node_replace(slot, XA_CHUNK_SHIFT, NULL);
		return;
	}
	for (index = slot->index; index <= last; index++) {
		if (!node_slot(node, index & XA_CHUNK_MASK))
			continue;
		slot->store->nr_pages--;
		if (node->count == 1) {
			slot->index = index;
			slot_replace(slot, NULL);
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
	slot_replace(slot, single_entry(run_first(a), a->word));
	array_free(slot->store, a, array_order(a));
	return true;
}

/* Returns true if the node may have become sparse. */
static bool erase_array(struct slot *slot, unsigned long last)
{
	struct vfio_xa_dma_elem *a = slot->entry;
	unsigned int nr = array_nr(a), i = array_find_from(a, nr, slot->index), k, n;
	unsigned long count;

	n = array_count_to(a, i, last);
	if (!n)
		return false;
	if (run_first(&a[i]) < run_index(slot->index)) {
		/* Keep what is before. */
		if (run_last(&a[i]) > run_index(last) && !array_cut(a, i, last + 1))
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
		slot_replace(slot, NULL);
		array_free(slot->store, a, array_order(a));
		return true;
	}
	if (!n)
		return false;
	array_remove(a, i, n);
	if (array_to_single(slot))
		return false;
	array_shrink(slot);
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
		slot_replace(slot, NULL);
	} else if (slot_within(slot, last)) {
		slot->store->nr_pages -= slot_mask(slot) + 1;
		slot_replace(slot, NULL);
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

	while (slot_first(&slot, store, first, last)) {
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

/* With @open, vfio_xa_dma_insert_end() follows if it returns 1. */
static int insert_range(struct vfio_xa_dma *store, unsigned long first,
			unsigned long last, unsigned long word, bool open, gfp_t gfp)
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
	if (pos == first) {
		if (ret <= 0 || open)
			return ret;
		slot_fold(&slot);
		return 0;
	}
	if (ret < 0) {
		vfio_xa_dma_erase(store, first, pos - 1);
		return ret;
	}
	if (open)
		return 1;
	if (!(word & VFIO_XA_DMA_TRANSIENT))
		vfio_xa_dma_change(store, first, last, VFIO_XA_DMA_PENDING, 0);
	return 0;
}

/* Insert into an empty slot which covers 64 pages. */
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
	struct slot slot __uninitialized;
	int ret;

	ret = insert_near(&slot, store, first, last, word, gfp);
	if (ret == -ENOSPC)
		return insert_range(store, first, last, word, false, gfp);
	if (ret <= 0)
		return ret;
	slot_fold(&slot);
	return 0;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_insert, "VFIO_DMA");

/**
 * vfio_xa_dma_insert_begin() - Store the word of pages that may have to go again
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 * @word: what to store, without a TRANSIENT flag
 * @gfp: how to allocate; nodes are charged to the memory cgroup in any case
 *
 * As vfio_xa_dma_insert(), but vfio_xa_dma_erase() of just this range needs no
 * vfio_xa_dma_prepare(), nor any memory, if nothing else changes the store
 * between. It joins what is there, as for one page that is cheaper than to be PENDING:
 * a run that is cut where it was joined has room for that. But no block is folded.
 *
 * Context: Caller holds the lock of the store. May sleep, if @gfp allows it.
 * Return: 0; 1: the same, but unless it is erased vfio_xa_dma_insert_end() must
 * follow; -EEXIST if one of the pages is present, in whatever state; -ENOMEM.
 */
int vfio_xa_dma_insert_begin(struct vfio_xa_dma *store, unsigned long first,
			     unsigned long last, unsigned long word, gfp_t gfp)
{
	struct slot slot __uninitialized;
	int ret;

	ret = insert_near(&slot, store, first, last, word, gfp);
	if (ret == -ENOSPC)
		ret = insert_range(store, first, last, word, true, gfp);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_insert_begin, "VFIO_DMA");

/**
 * vfio_xa_dma_insert_end() - What vfio_xa_dma_insert_begin() stored is to stay
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 *
 * Context: Caller holds the lock of the store. May sleep. Cannot fail; may
 * try to allocate, to free more than that, and does without if it must.
 */
void vfio_xa_dma_insert_end(struct vfio_xa_dma *store, unsigned long first,
			    unsigned long last)
{
	struct slot slot;

	if (vfio_xa_dma_load(store, first) & VFIO_XA_DMA_PENDING) {
		vfio_xa_dma_change(store, first, last, VFIO_XA_DMA_PENDING, 0);
	} else {
		slot_load(&slot, store, first);
		slot_fold(&slot);
	}
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_insert_end, "VFIO_DMA");

/* How many cuts does it take for runs to end before @first and at @last? */
static unsigned int array_cuts(const struct vfio_xa_dma_elem *a, unsigned long first,
			       unsigned long last)
{
	unsigned int nr = array_nr(a), i = array_find_from(a, nr, first), cuts;

	if (i == nr)
		return 0;
	cuts = run_first(&a[i]) < run_index(first);
	if (run_last(&a[i]) < run_index(last))
		i = array_find(a, nr, last);
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
		return slot_split(slot, slots, gfp);
	}

	count = min(1UL << shift, RUN_MAX);
	nr = (1UL << shift) / count;
	order = order_for(nr + cuts);
	a = array_alloc(slot->store, order, gfp);
	if (!a)
		return -ENOMEM;
	first = slot->index & ~shift_mask(shift);
	for (i = 0; i < nr; i++, first += count) {
		a[i].pos = run_pos(first, first + count - 1);
		a[i].word = xa_to_value(slot->entry);
	}
	array_set_size(a, nr, order);
	slot_replace(slot, a);
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
		entry = slot_load(&slot, store, at);
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
			err = array_grow(&slot, cuts, gfp);
			if (err != -ENOSPC)
				return err;
			err = array_push_down(&slot, gfp);
		}
		if (err)
			return err;
	}
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
	struct slot slot;
	unsigned long end;
	void *entry;
	int err;

	entry = slot_load(&slot, store, first);
	if (last <= (first | slot_mask(&slot)) &&
	    (!entry || !slot_shift(&slot) || entry_is_single(entry) ||
	     (!xa_is_value(entry) && (array_has_room(entry, 2) ||
	      array_has_room(entry, array_cuts(entry, first, last))))))
		return 0;

	err = prepare_slot(store, first, first, last, &end, gfp);
	if (!err && end < last)
		err = prepare_slot(store, last, 0, last, &end, gfp);
	return err;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_prepare, "VFIO_DMA");

/* The XArray charges nodes in any case, unless it is told not to. */
static void set_account(struct vfio_xa_dma *store, bool account)
{
	if (account)
		store->xa.xa_flags |= XA_FLAGS_ACCOUNT;
	else
		store->xa.xa_flags &= ~XA_FLAGS_ACCOUNT;
}

/**
 * vfio_xa_dma_prepare_nofail() - vfio_xa_dma_prepare() where nobody can be told
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 *
 * The memory cgroup is charged, if need be beyond its limit, and nobody is killed
 * for it.
 *
 * Context: Caller holds the lock of the store. May sleep.
 */
void vfio_xa_dma_prepare_nofail(struct vfio_xa_dma *store, unsigned long first,
				unsigned long last)
{
	if (likely(!vfio_xa_dma_prepare(store, first, last, GFP_OVER_LIMIT)))
		return;
	set_account(store, false);
	vfio_xa_dma_prepare(store, first, last, GFP_LAST);
	set_account(store, true);
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_prepare_nofail, "VFIO_DMA");

/**
 * vfio_xa_dma_insert_nofail() - vfio_xa_dma_insert() where nobody can be told
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 * @word: their word; none of them is present
 *
 * Context: As vfio_xa_dma_prepare_nofail().
 */
void vfio_xa_dma_insert_nofail(struct vfio_xa_dma *store, unsigned long first,
			       unsigned long last, unsigned long word)
{
	if (likely(!vfio_xa_dma_insert(store, first, last, word, GFP_OVER_LIMIT)))
		return;
	set_account(store, false);
	vfio_xa_dma_insert(store, first, last, word, GFP_LAST);
	set_account(store, true);
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_insert_nofail, "VFIO_DMA");

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
	struct slot slot;

	if (slot_load(&slot, store, first) && last <= slot_end(&slot, last)) {
		if (erase_slot(&slot, last) && !node_is_dense(slot.node))
			node_collapse(&slot);
		return;
	}

	erase_range(store, first, last);
	/* Nodes of which something is left can only be at the two ends. */
	slot_load(&slot, store, first);
	node_collapse(&slot);
	slot_load(&slot, store, last);
	node_collapse(&slot);
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_erase, "VFIO_DMA");

/* vfio_xa_dma_take() in an array */
static noinline unsigned long array_take(struct vfio_xa_dma *store,
					 struct vfio_xa_dma_elem *a,
					 unsigned long index, unsigned long unless)
{
	unsigned int i = array_find(a, array_nr(a), index);
	unsigned long offset = run_index(index) - run_first(&a[i]), word = a[i].word;

	if (offset >= run_count(&a[i]) || word & unless)
		return 0;
	if (run_count(&a[i]) == 1) {
		/* Where erase_array() would look whether it should be smaller */
		if (array_nr(a) == 1 || is_power_of_2(array_nr(a) - 1))
			return 0;
		array_remove(a, i, 1);
	} else if (!offset) {
		a[i].pos += RUN_MAX - 1;
	} else if (offset + 1 == run_count(&a[i])) {
		a[i].pos--;
	} else {
		if (!array_has_room(a, 1))
			return 0;
		array_cut(a, i, index + 1);
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
 * Does what vfio_xa_dma_load(), vfio_xa_dma_prepare() and vfio_xa_dma_erase() do
 * together, with one walk, where no memory is allocated or freed for it. That is
 * so for most pages, and where it is not those three are needed.
 *
 * Context: Caller holds the lock of the store.
 * Return: the word that the page had; 0 if nothing has changed.
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
		return 0;
	node_store(slot.node, node_offset(slot.node, index), NULL);
	store->nr_pages--;
	return word;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_take, "VFIO_DMA");

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
	unsigned int i = array_find_from(a, array_nr(a), slot->index), k;
	unsigned int n = array_count_to(a, i, last);

	if (!n)
		return;
	if (run_first(&a[i]) < run_index(slot->index)) {
		if (!array_cut(a, i, slot->index))
			return;
		i++;
	}
	if (run_last(&a[i + n - 1]) > run_index(last) &&
	    !array_cut(a, i + n - 1, last + 1))
		return;
	for (k = i; k < i + n; k++)
		a[k].word = (a[k].word & ~clear) | set;
	if (set & VFIO_XA_DMA_TRANSIENT)
		return;
	array_join(a, i, i + n - 1);
	if (!array_fold(slot, done))
		array_shrink(slot);
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
			slot_replace(slot, single_entry(index, word));
	} else if (slot_within(slot, last)) {
		slot_replace(slot, word_change(slot->entry, clear, set));
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
	struct slot slot;
	unsigned long end;

	while (slot_first(&slot, store, first, last)) {
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
	i = array_find_from(a, array_nr(a), index);
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
			if (!slot_load(slot, slot->store, run->last + 1))
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
	struct slot slot;
	void *entry;

	entry = slot_first(&slot, store, first, last);
	while (entry && !slot_run(&slot, slot.index, run))
		entry = slot_next(&slot, last);
	if (!entry || run->first > last)
		return false;

	run_extend(&slot, last, run);
	run->first = max(run->first, first);
	run->last = min(run->last, last);
	return true;
}
EXPORT_SYMBOL_NS_GPL(vfio_xa_dma_next, "VFIO_DMA");

/**
 * vfio_xa_dma_get_stats() - Memory which a store takes, by kind
 * @store: the store
 * @stats: filled in
 *
 * Takes the same time however large the store is.
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
