// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs in arrays
 *
 * An array is a block of kmalloc() with nothing in it but elements, in ascending order of
 * their pages; see struct vfio_xa_dma_elem.  Nothing here knows of slots or nodes.
 */

#include <linux/log2.h>
#include <linux/string.h>
#include <kunit/static_stub.h>
#include <kunit/visibility.h>

#include "vfio_xa_dma_internal.h"

/*
 * The last of @nr runs which begins at or before @index; the first one if all
 * begin after it. Does not look at the first one.
 */
unsigned int vfio_xa_array_find(const struct vfio_xa_dma_elem *a, unsigned int nr,
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
unsigned int vfio_xa_array_find_from(const struct vfio_xa_dma_elem *a,
				     unsigned int nr, unsigned long index)
{
	unsigned int i = vfio_xa_array_find(a, nr, index);

	return run_last(&a[i]) < run_index(index) ? i + 1 : i;
}

#if IS_ENABLED(CONFIG_KUNIT)
/* Every allocation asks here first, so that tests can make it fail. */
bool vfio_xa_dma_may_alloc(gfp_t gfp)
{
	KUNIT_STATIC_STUB_REDIRECT(vfio_xa_dma_may_alloc, gfp);
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_xa_dma_may_alloc);
#endif

struct vfio_xa_dma_elem *vfio_xa_array_alloc(struct vfio_xa_dma *store,
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

void vfio_xa_array_free(struct vfio_xa_dma *store, struct vfio_xa_dma_elem *a,
			unsigned int order)
{
	store->nr_arrays--;
	store->array_bytes -= array_bytes(order);
	kfree(a);
}

/* Add a run as element @at of an array which has room for it. */
void vfio_xa_array_add(struct vfio_xa_dma_elem *a, unsigned int at, u64 pos,
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
void vfio_xa_array_remove(struct vfio_xa_dma_elem *a, unsigned int at, unsigned int n)
{
	u64 size = a->pos & ~RUN_POS_MASK;
	unsigned int nr = array_nr(a);

	if (at + n < nr)
		memmove(a + at, a + at + n, (nr - at - n) * sizeof(*a));
	a->pos = (a->pos & RUN_POS_MASK) | (size - n * RUN_NR_ONE);
}

/*
 * Cut the run of element @i, so that the next element begins at @index. There
 * is room for it if vfio_xa_dma_cut() has been called.
 */
bool vfio_xa_array_cut(struct vfio_xa_dma_elem *a, unsigned int i, unsigned long index)
{
	unsigned long count = run_last(&a[i]) - run_index(index) + 1;

	if (WARN_ON_ONCE(!array_has_room(a, 1)))
		return false;
	a[i].pos -= count;
	vfio_xa_array_add(a, i + 1, run_pos(index, index + count - 1), a[i].word);
	return true;
}

/* Join what can be joined of the runs @i to @j, and with their neighbours. */
void vfio_xa_array_join(struct vfio_xa_dma_elem *a, unsigned int i, unsigned int j)
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
		vfio_xa_array_remove(a, out + 1, j - out);
}

/*
 * Add to the word of one page. Returns the word that it had; 0 if nothing has changed: it
 * is not there, or has the word @unless, or the array would have to be another one.
 */
unsigned long vfio_xa_array_add_word(struct vfio_xa_dma_elem *a, unsigned long index,
				     unsigned long add, unsigned long unless)
{
	unsigned int nr = array_nr(a), i = vfio_xa_array_find(a, nr, index);
	unsigned long offset = run_index(index) - run_first(&a[i]);
	unsigned long count = run_count(&a[i]), word = a[i].word;
	const struct vfio_xa_dma_elem page = {
		.pos = run_pos(index, index),
		.word = word + add,
	};
	bool before, behind;

	if (offset >= count || word == unless)
		return 0;
	before = !offset && i && run_joins(&a[i - 1], &page);
	behind = offset + 1 == count && i + 1 < nr && run_joins(&page, &a[i + 1]);

	if (count == 1) {
		/* What is one run may be a value, and what is few may be smaller. */
		nr -= before + behind;
		if ((before || behind) && (nr == 1 || nr <= 1U << array_order(a) >> 2))
			return 0;
		a[i].word = page.word;
		if (before || behind)
			vfio_xa_array_join(a, i, i);
	} else if (before) {
		a[i - 1].pos++;
		a[i].pos += RUN_MAX - 1;
	} else if (behind) {
		a[i].pos--;
		a[i + 1].pos -= RUN_MAX - 1;
	} else {
		if (!array_has_room(a, !!offset + (offset + 1 < count)))
			return 0;
		if (offset && !vfio_xa_array_cut(a, i++, index))
			return 0;
		if (offset + 1 < count && !vfio_xa_array_cut(a, i, index + 1))
			return 0;
		a[i].word = page.word;
	}
	return word;
}
