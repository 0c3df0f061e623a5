// SPDX-License-Identifier: GPL-2.0-only
/* What lib/xarray.c and the store need of a kernel. */

#include <assert.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include <kunit/static_stub.h>
#include "radix-tree.h"

struct shim_slab shim_slab;
void *shim_static_stub;
struct kmem_cache *radix_tree_node_cachep;

static bool may_alloc(gfp_t gfp)
{
	/* A process is killed for what is charged and must not fail. */
	if (!(gfp & __GFP_ACCOUNT) != !!(gfp & __GFP_NOFAIL))
		shim_slab.nr_uncharged++;
	if (shim_slab.only_nofail && !(gfp & __GFP_NOFAIL))
		return false;
	if (!(gfp & __GFP_DIRECT_RECLAIM))
		return !shim_slab.nowait_fails;
	shim_slab.nr_calls++;
	return (gfp & __GFP_NOFAIL) || !shim_slab.fail_nth || --shim_slab.fail_nth;
}

static size_t kmalloc_size(size_t size)
{
	size_t round;

	if (size > 64 && size <= 96)
		return 96;
	if (size > 128 && size <= 192)
		return 192;
	for (round = 8; round < size; round *= 2)
		;
	return round;
}

/* The size is kept in front, at the price of the alignment. */
void *kmalloc(size_t size, gfp_t gfp)
{
	size_t *p;

	if (!may_alloc(gfp))
		return NULL;
	p = malloc(size + 2 * sizeof(*p));
	assert(p);
	p[0] = kmalloc_size(size);
	shim_slab.nr_objects++;
	shim_slab.bytes += p[0];
	return p + 2;
}

void kfree(const void *object)
{
	size_t *p = (size_t *)object - 2;

	if (!object)
		return;
	shim_slab.nr_objects--;
	shim_slab.bytes -= p[0];
	free(p);
}

void *kmem_cache_alloc_lru(struct kmem_cache *cache, struct list_lru *lru, gfp_t gfp)
{
	struct xa_node *node;

	if (!may_alloc(gfp))
		return NULL;
	node = calloc(1, sizeof(*node));
	assert(node);
	INIT_LIST_HEAD(&node->private_list);
	shim_slab.nr_nodes++;
	return node;
}

void radix_tree_node_rcu_free(struct rcu_head *head)
{
	shim_slab.nr_nodes--;
	free(container_of(head, struct xa_node, rcu_head));
}
