// SPDX-License-Identifier: GPL-2.0-only
/* The kernel's maple tree, on the allocator of shim.c. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <linux/bug.h>
#include <linux/kernel.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#define __init
#define kmem_cache_create(name, size, args, flags)	NULL
#define kfree_rcu(node, member)				kfree(node)

/* A node and the memory which is set aside for an operation. */
struct kmem_cache_args {
	unsigned int align;
	unsigned int sheaf_capacity;
};

struct slab_sheaf {
	unsigned int size, capacity;
	void *objects[128];
};

/* Nodes have types in the low bits of their addresses. */
static void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t gfp)
{
	void *p;

	if (posix_memalign(&p, 256, 256))
		abort();
	shim_slab.nr_objects++;
	shim_slab.bytes += 256;
	return p;
}

static void node_free(void *p)
{
	shim_slab.nr_objects--;
	shim_slab.bytes -= 256;
	free(p);
}

#define kfree(p)	node_free(p)

static void kmem_cache_free_bulk(struct kmem_cache *cache, size_t n, void **p)
{
	while (n--)
		node_free(p[n]);
}

static int kmem_cache_refill_sheaf(struct kmem_cache *cache, gfp_t gfp,
				   struct slab_sheaf **sheaf, unsigned int size)
{
	assert(size <= 128);
	while ((*sheaf)->size < size)
		(*sheaf)->objects[(*sheaf)->size++] = kmem_cache_alloc(cache, gfp);
	return 0;
}

static struct slab_sheaf *kmem_cache_prefill_sheaf(struct kmem_cache *cache, gfp_t gfp,
						   unsigned int size)
{
	static struct slab_sheaf one;
	struct slab_sheaf *sheaf = &one;

	kmem_cache_refill_sheaf(cache, gfp, &sheaf, size);
	return sheaf;
}

static void kmem_cache_return_sheaf(struct kmem_cache *cache, gfp_t gfp,
				    struct slab_sheaf *sheaf)
{
	kmem_cache_free_bulk(cache, sheaf->size, sheaf->objects);
	sheaf->size = 0;
}

static void *kmem_cache_alloc_from_sheaf(struct kmem_cache *cache, gfp_t gfp,
					 struct slab_sheaf *sheaf)
{
	assert(sheaf->size);
	return sheaf->objects[--sheaf->size];
}

static unsigned int kmem_cache_sheaf_size(struct slab_sheaf *sheaf)
{
	return sheaf->size;
}

#include "maple_tree.c"
