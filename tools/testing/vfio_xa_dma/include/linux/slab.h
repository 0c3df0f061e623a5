/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An allocator which counts what the kernel's would spend, and which fails
 * when it is told to.
 */
#ifndef _SHIM_SLAB_H
#define _SHIM_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/gfp.h>
#include <linux/types.h>

#define SLAB_PANIC		0
#define SLAB_RECLAIM_ACCOUNT	0

struct kmem_cache;
struct list_lru;

/**
 * struct shim_slab - state of the allocator
 * @nr_nodes: XArray nodes allocated
 * @nr_objects: objects of kmalloc() allocated
 * @bytes: bytes of them, rounded up to the sizes which kmalloc() has
 * @nr_uncharged: allocations which were not charged to the memory cgroup, and must
 *	be, or were, and must not be
 * @nowait_fails: GFP_NOWAIT gets nothing
 * @only_nofail: what may fail fails
 * @fail_nth: the allocation to fail, 1 is the next one, 0 is none
 * @nr_calls: allocations asked for, other than opportunistic ones
 */
extern struct shim_slab {
	unsigned long nr_nodes;
	unsigned long nr_objects;
	unsigned long bytes;
	unsigned long nr_uncharged;
	bool nowait_fails;
	bool only_nofail;
	unsigned int fail_nth;
	unsigned long nr_calls;
} shim_slab;

void *kmalloc(size_t size, gfp_t gfp);
void *kmem_cache_alloc_lru(struct kmem_cache *cache, struct list_lru *lru, gfp_t gfp);
void kfree(const void *p);

#define kmalloc_array(n, size, gfp)	kmalloc((n) * (size), gfp)

#endif
