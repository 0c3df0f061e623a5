/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vfio_xa_dma - a compact store of DMA mappings, one word per IOVA page
 *
 * The design is described at the top of vfio_xa_dma.c.
 *
 * An index is an IOVA page number (IOVA >> PAGE_SHIFT). Ranges are written
 * [first, last]; @last is inclusive, so that the last page of the address
 * space needs no special case.
 *
 * Locking: the store has no lock of its own to offer. Every function, the
 * ones which only read included, must be called under one lock which belongs
 * to the owner of the store and which allows sleeping (a mutex).
 */
#ifndef __VFIO_XA_DMA_H
#define __VFIO_XA_DMA_H

#include <linux/bits.h>
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/types.h>
#include <linux/xarray.h>

/*
 * The word: delta << VFIO_XA_DMA_FLAG_BITS | flags, BITS_PER_LONG - 1 bits.
 *
 * delta is the difference between the page numbers of the virtual address and
 * of the IOVA, modulo the size of the address space, so that all the pages of
 * a linear mapping have the same word: cutting a mapping in two, or joining
 * two, rewrites nothing.
 *
 * A valid word is never 0: it says READ or WRITE, or one of the states. The highest
 * flag bit is not for words: the store needs it.
 */
#define VFIO_XA_DMA_FLAG_BITS		(PAGE_SHIFT - 1)
#define VFIO_XA_DMA_FLAG_MASK		(BIT(VFIO_XA_DMA_FLAG_BITS) - 1)
#define VFIO_XA_DMA_LAST_INDEX		(ULONG_MAX >> PAGE_SHIFT)

#define VFIO_XA_DMA_READ		BIT(0)	/* device may read */
#define VFIO_XA_DMA_WRITE		BIT(1)	/* device may write */
#define VFIO_XA_DMA_VADDR_INVALID	BIT(2)	/* vaddr taken away, to be replaced */
#define VFIO_XA_DMA_DIRTY		BIT(3)	/* written to, and not yet reported */
#define VFIO_XA_DMA_BIG			BIT(4)	/* may be part of a superpage */
#define VFIO_XA_DMA_PFNMAP		BIT(5)	/* not pinned, not charged */
#define VFIO_XA_DMA_PENDING		BIT(6)	/* reserved, not mapped yet */
#define VFIO_XA_DMA_MMIO		BIT(7)	/* PFNMAP that no cache may hold */
#define VFIO_XA_DMA_CONTIG		BIT(8)	/* of a physically contiguous block */
#define VFIO_XA_DMA_START		BIT(9)	/* no IOMMU page spans its beginning */

#define VFIO_XA_DMA_FLAGS		(BIT(10) - 1)	/* all of them */

/* A word with this flag is never joined with an equal neighbour. */
#define VFIO_XA_DMA_TRANSIENT		VFIO_XA_DMA_PENDING

/**
 * vfio_xa_dma_word() - Make the word of a mapped page
 * @index: IOVA page number
 * @vaddr: virtual address of that page, in bytes
 * @flags: VFIO_XA_DMA_* flags
 *
 * Context: Any context.
 * Return: the word, the same one for every page of a linear mapping.
 */
static inline unsigned long vfio_xa_dma_word(unsigned long index,
					     unsigned long vaddr,
					     unsigned long flags)
{
	unsigned long delta = (vaddr >> PAGE_SHIFT) - index;

	return (delta << PAGE_SHIFT >> 1) | flags;
}

/**
 * vfio_xa_dma_vaddr() - The virtual address of a mapped page
 * @word: word of the page
 * @index: IOVA page number
 *
 * Context: Any context.
 * Return: virtual address of the page, in bytes.
 */
static inline unsigned long vfio_xa_dma_vaddr(unsigned long word,
					      unsigned long index)
{
	return ((word >> VFIO_XA_DMA_FLAG_BITS) + index) << PAGE_SHIFT;
}

/**
 * struct vfio_xa_dma - a store of DMA mappings
 * @xa: IOVA page number to slot; see vfio_xa_dma.c for what a slot holds
 * @nodes: list of the nodes of @xa, through xa_node.private_list
 * @nr_nodes: length of @nodes
 * @nr_arrays: number of arrays of runs which slots point to
 * @array_bytes: bytes of all of them, with what the memory cgroup spends on each
 * @nr_pages: number of pages present, in whatever state
 * @near_node: node which was walked to last, NULL if it has been freed
 * @near_index: an index which is in @near_node
 *
 * All of it is protected by the caller's lock. @xa.xa_lock is taken inside,
 * where the XArray asks for it, and protects nothing.
 */
struct vfio_xa_dma {
	struct xarray		xa;
	struct list_head	nodes;
	unsigned long		nr_nodes;
	unsigned long		nr_arrays;
	unsigned long		array_bytes;
	unsigned long		nr_pages;
	struct xa_node		*near_node;
	unsigned long		near_index;
};

/**
 * struct vfio_xa_dma_run - neighbouring pages with equal words
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 * @word: the word of each of them
 */
struct vfio_xa_dma_run {
	unsigned long first;
	unsigned long last;
	unsigned long word;
};

void vfio_xa_dma_init(struct vfio_xa_dma *store);
void vfio_xa_dma_destroy(struct vfio_xa_dma *store);

int vfio_xa_dma_reserve(struct vfio_xa_dma *store, unsigned long first,
			unsigned long last, unsigned long word, gfp_t gfp);
void vfio_xa_dma_commit(struct vfio_xa_dma *store, unsigned long first,
			unsigned long last);
int vfio_xa_dma_cut(struct vfio_xa_dma *store, unsigned long first,
		    unsigned long last, gfp_t gfp);
void vfio_xa_dma_erase(struct vfio_xa_dma *store, unsigned long first,
		       unsigned long last);
unsigned long vfio_xa_dma_add(struct vfio_xa_dma *store, unsigned long index,
			      unsigned long add, unsigned long unless);
unsigned long vfio_xa_dma_take(struct vfio_xa_dma *store, unsigned long index,
			       unsigned long unless);
void vfio_xa_dma_change(struct vfio_xa_dma *store, unsigned long first,
			unsigned long last, unsigned long clear,
			unsigned long set);

unsigned long vfio_xa_dma_load(struct vfio_xa_dma *store, unsigned long index);
bool vfio_xa_dma_next(struct vfio_xa_dma *store, unsigned long first,
		      unsigned long last, struct vfio_xa_dma_run *run);
bool vfio_xa_dma_next_piece(struct vfio_xa_dma *store, unsigned long first,
			    unsigned long last, struct vfio_xa_dma_run *run);

/**
 * vfio_xa_dma_insert() - Store the word of a range of pages
 * @store: the store
 * @first: IOVA page number of the first page
 * @last: IOVA page number of the last page, inclusive
 * @word: what to store
 * @gfp: how to allocate
 *
 * vfio_xa_dma_reserve() and vfio_xa_dma_commit() in one.
 *
 * Context: Caller holds the lock of the store. May sleep.
 * Return: 0; -EEXIST or -ENOMEM as vfio_xa_dma_reserve().
 */
static inline int vfio_xa_dma_insert(struct vfio_xa_dma *store,
				     unsigned long first, unsigned long last,
				     unsigned long word, gfp_t gfp)
{
	int ret = vfio_xa_dma_reserve(store, first, last, word, gfp);

	if (ret <= 0)
		return ret;
	vfio_xa_dma_commit(store, first, last);
	return 0;
}

/**
 * struct vfio_xa_dma_stats - memory which a store takes, by kind
 * @nodes: number of nodes of the tree
 * @node_bytes: bytes which they take
 * @arrays: number of arrays of runs
 * @array_bytes: bytes which they take
 *
 * Bytes are what the slab allocator spends, and there are no others.
 */
struct vfio_xa_dma_stats {
	unsigned long nodes;
	unsigned long node_bytes;
	unsigned long arrays;
	unsigned long array_bytes;
};

void vfio_xa_dma_get_stats(const struct vfio_xa_dma *store,
			   struct vfio_xa_dma_stats *stats);
int vfio_xa_dma_validate(struct vfio_xa_dma *store);

/**
 * vfio_xa_dma_footprint() - Memory which a store takes
 * @store: the store
 *
 * Context: Caller holds the lock of the store.
 * Return: number of bytes beside @store itself.
 */
static inline size_t vfio_xa_dma_footprint(const struct vfio_xa_dma *store)
{
	struct vfio_xa_dma_stats stats;

	vfio_xa_dma_get_stats(store, &stats);
	return stats.node_bytes + stats.array_bytes;
}

/**
 * vfio_xa_dma_empty() - Is nothing mapped?
 * @store: the store
 *
 * Context: Caller holds the lock of the store.
 * Return: true if no page is present, in whatever state.
 */
static inline bool vfio_xa_dma_empty(const struct vfio_xa_dma *store)
{
	return !store->nr_pages;
}

/**
 * vfio_xa_dma_npages() - How many pages are mapped?
 * @store: the store
 *
 * Context: Caller holds the lock of the store.
 * Return: number of pages present, in whatever state.
 */
static inline unsigned long vfio_xa_dma_npages(const struct vfio_xa_dma *store)
{
	return store->nr_pages;
}

#if IS_ENABLED(CONFIG_KUNIT)
bool vfio_xa_dma_may_alloc(gfp_t gfp);
#endif

#endif /* __VFIO_XA_DMA_H */
