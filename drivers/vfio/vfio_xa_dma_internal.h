/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Inside of the store of DMA mappings; the design is described in vfio_xa_dma.c.
 *
 *	vfio_xa_dma.c		the operations
 *	vfio_xa_dma_slot.c	slots and nodes, and how arrays become nodes and back
 *	vfio_xa_dma_array.c	runs in arrays
 *	vfio_xa_dma_debug.c	statistics, validation
 *
 * Calls run down this list.  Functions here that are on the path of each page are inline.
 */
#ifndef _VFIO_XA_DMA_INTERNAL_H
#define _VFIO_XA_DMA_INTERNAL_H

#include <linux/bitops.h>
#include <linux/minmax.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/xarray.h>

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
 * The number of the page takes the place of the highest bits of the word: those are copies of
 * its sign, unless IOVA and user memory are more than 2^45 pages apart. A word which is
 * longer than that has to be in an array.
 */
#define SINGLE			BIT(VFIO_XA_DMA_FLAG_BITS - 1)
#define SINGLE_SHIFT		(BITS_PER_LONG - 1 - XA_CHUNK_SHIFT)
#define SINGLE_MASK		(BIT(SINGLE_SHIFT) - 1)

/*
 * Memory which the slab allocator spends on a node, and on an object beside
 * its size: the pointer to the memory cgroup which it is charged to. A slab of
 * nodes is 16 KiB, or a page where pages are larger.
 */
#define CHARGE_BYTES		sizeof(void *)
#define NODE_SLAB		(PAGE_SHIFT < 14 ? SZ_16K : PAGE_SIZE)
#define NODE_BYTES		(NODE_SLAB / (NODE_SLAB / sizeof(struct xa_node)) + \
				 CHARGE_BYTES)

/* For what may fail, and frees more than it allocates. */
#define GFP_TRY			(GFP_NOWAIT | __GFP_ACCOUNT | __GFP_NOWARN)

/*
 * For what must not fail. With __GFP_HIGH a memory cgroup is charged beyond its limit,
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

/*
 * An array in a node of more than half of its slots is pushed down when it has this many
 * runs, if they are spread over more than so many slots. With so few it is one again.
 */
#define CROWDED_MAX		16
#define CROWDED_SPREAD		12
#define CROWDED_SPARSE		6

/* How many runs an array in a slot which covers 1 << @shift pages may hold. */
static inline unsigned int array_limit(unsigned int shift)
{
	return 32 << min(shift / XA_CHUNK_SHIFT - 1, 3U);
}

static inline unsigned int array_nr(const struct vfio_xa_dma_elem *a)
{
	return (a->pos >> RUN_NR_SHIFT) + 1;
}

static inline unsigned int array_order(const struct vfio_xa_dma_elem *a)
{
	return (a->pos >> RUN_ORDER_SHIFT) & RUN_ORDER_MASK;
}

static inline bool array_has_room(const struct vfio_xa_dma_elem *a, unsigned int more)
{
	return array_nr(a) + more <= 1U << array_order(a);
}

static inline void array_set_size(struct vfio_xa_dma_elem *a, unsigned int nr,
				  unsigned int order)
{
	a->pos = (a->pos & RUN_POS_MASK) | (u64)order << RUN_ORDER_SHIFT |
		 (u64)(nr - 1) << RUN_NR_SHIFT;
}

/* The order of the least capacity for @nr elements. */
static inline unsigned int order_for(unsigned int nr)
{
	return fls(nr - 1);
}

static inline unsigned long array_bytes(unsigned int order)
{
	return (sizeof(struct vfio_xa_dma_elem) << order) + CHARGE_BYTES;
}

/* Positions: the RUN_INDEX_BITS low bits of an index. */
static inline unsigned long run_index(unsigned long index)
{
	return index & RUN_INDEX_MASK;
}

static inline u64 run_pos(unsigned long first, unsigned long last)
{
	return run_index(first) << RUN_COUNT_BITS | (last - first);
}

static inline unsigned long run_first(const struct vfio_xa_dma_elem *e)
{
	return (e->pos & RUN_POS_MASK) >> RUN_COUNT_BITS;
}

static inline unsigned long run_count(const struct vfio_xa_dma_elem *e)
{
	return (e->pos & RUN_COUNT_MASK) + 1;
}

static inline unsigned long run_last(const struct vfio_xa_dma_elem *e)
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

/* Can a page of this word be a single in a slot which covers 1 << @shift pages? */
static inline bool single_fits(unsigned int shift, unsigned long word)
{
	return shift == XA_CHUNK_SHIFT &&
	       ((word + BIT(SINGLE_SHIFT - 1)) & LONG_MAX) <= SINGLE_MASK;
}

static inline void *single_entry(unsigned long index, unsigned long word)
{
	return xa_mk_value((word & SINGLE_MASK) | SINGLE |
			   (index & XA_CHUNK_MASK) << SINGLE_SHIFT);
}

static inline bool entry_is_single(const void *entry)
{
	return xa_is_value(entry) && xa_to_value(entry) & SINGLE;
}

/* The page of a single, in the block which @index is in. */
static inline unsigned long single_index(const void *entry, unsigned long index)
{
	return (index & ~XA_CHUNK_MASK) | xa_to_value(entry) >> SINGLE_SHIFT;
}

static inline unsigned long single_word(const void *entry)
{
	long word = xa_to_value(entry) << (BITS_PER_LONG - SINGLE_SHIFT);

	return (word >> (BITS_PER_LONG - SINGLE_SHIFT)) & LONG_MAX & ~SINGLE;
}

#if !IS_ENABLED(CONFIG_KUNIT)
static inline bool vfio_xa_dma_may_alloc(gfp_t gfp)
{
	return true;
}
#endif

struct vfio_xa_dma_elem *vfio_xa_array_alloc(struct vfio_xa_dma *store,
					     unsigned int order, gfp_t gfp);
void vfio_xa_array_free(struct vfio_xa_dma *store, struct vfio_xa_dma_elem *a,
			unsigned int order);
unsigned int vfio_xa_array_find(const struct vfio_xa_dma_elem *a, unsigned int nr,
				unsigned long index);
unsigned int vfio_xa_array_find_from(const struct vfio_xa_dma_elem *a,
				     unsigned int nr, unsigned long index);
void vfio_xa_array_add(struct vfio_xa_dma_elem *a, unsigned int at, u64 pos,
		       unsigned long word);
void vfio_xa_array_remove(struct vfio_xa_dma_elem *a, unsigned int at, unsigned int n);
bool vfio_xa_array_cut(struct vfio_xa_dma_elem *a, unsigned int i, unsigned long index);
void vfio_xa_array_join(struct vfio_xa_dma_elem *a, unsigned int i, unsigned int j);
unsigned long vfio_xa_array_add_word(struct vfio_xa_dma_elem *a, unsigned long index,
				     unsigned long add, unsigned long unless);

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

void vfio_xa_update_node(struct xa_node *node);
void *vfio_xa_slot_load(struct slot *slot, struct vfio_xa_dma *store,
			unsigned long index);
void *vfio_xa_slot_next(struct slot *slot, unsigned long last);
void *vfio_xa_slot_first(struct slot *slot, struct vfio_xa_dma *store,
			 unsigned long first, unsigned long last);
void vfio_xa_slot_replace(struct slot *slot, void *entry);
void vfio_xa_node_replace(struct slot *slot, unsigned int shift, void *entry);
void vfio_xa_node_to_value(struct slot *slot, unsigned long done);
void vfio_xa_array_to_value(struct slot *slot, unsigned long done);
void vfio_xa_slot_fold(struct slot *slot);
void vfio_xa_array_shrink(struct slot *slot);
int vfio_xa_array_grow(struct slot *slot, unsigned int more, gfp_t gfp);
int vfio_xa_slot_split(struct slot *slot, void **slots, gfp_t gfp);
int vfio_xa_array_push_down(struct slot *slot, gfp_t gfp);
void vfio_xa_node_collapse(struct slot *slot);

static inline unsigned long shift_mask(unsigned int shift)
{
	return (1UL << shift) - 1;
}

/* How many index bits the slot covers. */
static inline unsigned int slot_shift(const struct slot *slot)
{
	return slot->node ? slot->node->shift : 0;
}

static inline unsigned long slot_mask(const struct slot *slot)
{
	return shift_mask(slot_shift(slot));
}

static inline void *node_slot(const struct xa_node *node, unsigned int offset)
{
	return rcu_dereference_raw(node->slots[offset]);
}

static inline unsigned int node_offset(const struct xa_node *node, unsigned long index)
{
	return (index >> node->shift) & XA_CHUNK_MASK;
}

/* Is @index not in the same node as @near? */
static inline bool node_is_far(const struct xa_node *node, unsigned long near,
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

/* An XArray state which is at the slot, to store to it. */
static inline struct xa_state slot_state(const struct slot *slot)
{
	XA_STATE(xas, &slot->store->xa, slot->index);

	xas_set_update(&xas, vfio_xa_update_node);
	if (slot->node) {
		xas.xa_node = slot->node;
		xas.xa_shift = slot->node->shift;
		xas.xa_offset = node_offset(slot->node, slot->index);
	}
	return xas;
}

/*
 * Store to a slot of a node that has an entry before and afterwards. Neither the old entry
 * nor the new one is a node, so nothing outside the node changes. The slot is written
 * directly for two reasons. Correctness: xas_store() can shrink the tree at the root, which
 * frees the node that the caller's struct slot points to, in the middle of a walk over its
 * slots. Cost: xas_store() takes ten times as long to find out that nothing else changes.
 */
static inline void node_store(struct xa_node *node, unsigned int offset, void *entry)
{
	void *old = node_slot(node, offset);

	rcu_assign_pointer(node->slots[offset], entry);
	node->count += !!entry - !!old;
	node->nr_values += xa_is_value(entry) - xa_is_value(old);
}

/* Is a node full of values, and worth a look whether they all are the same? */
static inline bool node_may_fold(const struct xa_node *node)
{
	return node && node->nr_values == XA_CHUNK_SIZE &&
	       node_slot(node, 0) == node_slot(node, XA_CHUNK_MASK);
}

/*
 * A node full of one and the same word becomes an entry of its parent; but not
 * one which goes beyond @done, where there may be a cut which is still needed.
 */
static inline void node_fold(struct slot *slot, unsigned long done)
{
	if (node_may_fold(slot->node))
		vfio_xa_node_to_value(slot, done);
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
	vfio_xa_array_to_value(slot, done);
	return true;
}

/*
 * Many share what the node costs which the slot is in, so that one more below it comes
 * cheap. Slots which cover more than FOLD_MAX_SHIFT are not for single pages.
 */
static inline bool node_is_crowded(const struct xa_node *node)
{
	return node->shift <= FOLD_MAX_SHIFT && node->count > XA_CHUNK_SIZE / 2;
}

/* Is there nothing but the node in its parent? */
static inline bool node_is_alone(const struct xa_node *node)
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

#endif /* _VFIO_XA_DMA_INTERNAL_H */
