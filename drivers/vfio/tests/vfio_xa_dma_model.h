/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A model of the store of DMA mappings, and a program of random steps which
 * are done to both and compared after each.
 *
 * Included by the KUnit suite and by the programs in tools/testing/vfio_xa_dma,
 * which say how allocations are made to fail:
 *
 *	model_fail_nth(n)	the nth allocation from now on fails, 0: none
 *	model_fail_left()	0 if that one has failed
 *	model_forbid(on)	no allocation succeeds, and one which is not
 *				opportunistic is an error
 *	model_forbidden()	how many such errors there were
 *	model_only_nofail(on)	no allocation succeeds but those with __GFP_NOFAIL
 *	model_extra_check(t)	what else there is to check after a step
 *
 * The model is an array of segments in order. It is the list of what was asked
 * for, cut where that was, and knows nothing of blocks or of joining.
 */
#ifndef __VFIO_XA_DMA_MODEL_H
#define __VFIO_XA_DMA_MODEL_H

#include "../vfio_xa_dma.h"

#define MODEL_SEGMENTS	4096
#define MODEL_HELD	8

/* A range which is PENDING: it needs no prepare. */
struct model_held {
	unsigned long first, last, flag;
};

struct model {
	struct vfio_xa_dma store;
	unsigned int nr;
	unsigned int nr_held;
	struct model_held held[MODEL_HELD];
	unsigned long next_delta;

	/* Where random numbers come from: a file, or a seed. */
	const u8 *data, *end;
	u64 seed;

	struct vfio_xa_dma_run seg[MODEL_SEGMENTS];
};

#define model_expect(cond)						\
	({								\
		bool __ok = (cond);					\
									\
		if (!__ok)						\
			pr_err("model: line %d: not true: %s\n", __LINE__, #cond); \
		__ok;							\
	})

static inline bool model_done(const struct model *m)
{
	return m->data && m->data == m->end;
}

static u8 model_byte(struct model *m)
{
	if (m->data)
		return m->data < m->end ? *m->data++ : 0;
	m->seed ^= m->seed << 13;
	m->seed ^= m->seed >> 7;
	m->seed ^= m->seed << 17;
	return m->seed >> 32;
}

/* Operations on the model. */

/* The first segment which ends at or after @index. */
static unsigned int model_find(const struct model *m, unsigned long index)
{
	unsigned int lo = 0, hi = m->nr;

	while (lo < hi) {
		unsigned int mid = (lo + hi) / 2;

		if (m->seg[mid].last < index)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Make a segment begin at @index if one covers it. */
static void model_cut(struct model *m, unsigned long index)
{
	unsigned int i = model_find(m, index);

	if (i == m->nr || m->seg[i].first >= index)
		return;
	memmove(&m->seg[i + 1], &m->seg[i], (m->nr - i) * sizeof(m->seg[0]));
	m->nr++;
	m->seg[i].last = index - 1;
	m->seg[i + 1].first = index;
}

static void model_cut_out(struct model *m, unsigned long first, unsigned long last)
{
	model_cut(m, first);
	if (last < VFIO_XA_DMA_LAST_INDEX)
		model_cut(m, last + 1);
}

static bool model_overlaps(const struct model *m, unsigned long first,
			   unsigned long last)
{
	unsigned int i = model_find(m, first);

	return i < m->nr && m->seg[i].first <= last;
}

static void model_insert(struct model *m, unsigned long first, unsigned long last,
			 unsigned long word)
{
	unsigned int i = model_find(m, first);

	memmove(&m->seg[i + 1], &m->seg[i], (m->nr - i) * sizeof(m->seg[0]));
	m->nr++;
	m->seg[i] = (struct vfio_xa_dma_run) { first, last, word };
}

static void model_erase(struct model *m, unsigned long first, unsigned long last)
{
	unsigned int i, j;

	model_cut_out(m, first, last);
	i = model_find(m, first);
	for (j = i; j < m->nr && m->seg[j].last <= last; j++)
		;
	memmove(&m->seg[i], &m->seg[j], (m->nr - j) * sizeof(m->seg[0]));
	m->nr -= j - i;
}

static void model_change(struct model *m, unsigned long first, unsigned long last,
			 unsigned long clear, unsigned long set)
{
	unsigned int i;

	model_cut_out(m, first, last);
	for (i = model_find(m, first); i < m->nr && m->seg[i].last <= last; i++)
		m->seg[i].word = (m->seg[i].word & ~clear) | set;
}

/* The pages with equal words around segment @i: sets *@run, returns the next. */
static unsigned int model_run(const struct model *m, unsigned int i,
			      struct vfio_xa_dma_run *run)
{
	*run = m->seg[i];
	for (i++; i < m->nr && m->seg[i].first == run->last + 1 &&
	     m->seg[i].word == run->word; i++)
		run->last = m->seg[i].last;
	return i;
}

/* Does any page of the range belong to somebody who counts on it? */
static bool model_is_held(const struct model *m, unsigned long first,
			  unsigned long last)
{
	unsigned int i;

	for (i = 0; i < m->nr_held; i++)
		if (m->held[i].first <= last && m->held[i].last >= first)
			return true;
	return false;
}

/* The comparison. */

static bool model_same(const struct vfio_xa_dma_run *a, const struct vfio_xa_dma_run *b)
{
	return a->first == b->first && a->last == b->last && a->word == b->word;
}

static int model_compare_at(struct model *m, unsigned long index)
{
	struct vfio_xa_dma_run run, got;
	unsigned int i = model_find(m, index);
	bool present = i < m->nr && m->seg[i].first <= index;

	if (!model_expect(vfio_xa_dma_load(&m->store, index) == (present ? m->seg[i].word : 0)))
		return -EINVAL;
	if (!present)
		return 0;
	if (!model_expect(vfio_xa_dma_next(&m->store, index, VFIO_XA_DMA_LAST_INDEX, &got)))
		return -EINVAL;
	model_run(m, i, &run);
	run.first = index;
	if (!model_expect(model_same(&run, &got)))
		return -EINVAL;
	return 0;
}

/* Does vfio_xa_dma_load() find what it should, at @index and beside it? */
static bool model_load_around(struct model *m, unsigned long index)
{
	unsigned long i, word;
	unsigned int at;

	for (i = index - 1; i != index + 2; i++) {
		if (i > VFIO_XA_DMA_LAST_INDEX)
			continue;
		at = model_find(m, i);
		word = at < m->nr && m->seg[at].first <= i ? m->seg[at].word : 0;
		if (!model_expect(vfio_xa_dma_load(&m->store, i) == word))
			return false;
	}
	return true;
}

/* Look pages up at both ends of a run, and where blocks begin and end in it. */
static bool model_load_run(struct model *m, const struct vfio_xa_dma_run *run)
{
	static const u8 orders[] = { 6, 10, 12 };
	unsigned int i;

	if (!model_load_around(m, run->first) || !model_load_around(m, run->last))
		return false;
	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		unsigned long mask = BIT(orders[i]) - 1;

		if (run->last - run->first > mask &&
		    (!model_load_around(m, (run->first | mask) + 1) ||
		     !model_load_around(m, run->last & ~mask)))
			return false;
	}
	return true;
}

static int model_compare(struct model *m)
{
	struct vfio_xa_dma_run run, got;
	unsigned long npages = 0, index = 0;
	struct vfio_xa_dma_stats stats;
	unsigned int i = 0;

	if (!model_expect(!vfio_xa_dma_validate(&m->store)))
		return -EINVAL;
	vfio_xa_dma_get_stats(&m->store, &stats);
	if (!model_expect(stats.node_bytes + stats.array_bytes ==
			  vfio_xa_dma_footprint(&m->store)))
		return -EINVAL;
	if (!model_expect(!stats.nodes == !stats.node_bytes &&
			  !stats.arrays == !stats.array_bytes))
		return -EINVAL;
	while (i < m->nr) {
		i = model_run(m, i, &run);
		npages += run.last - run.first + 1;
		if (!model_expect(vfio_xa_dma_next(&m->store, index, VFIO_XA_DMA_LAST_INDEX,
						   &got)))
			return -EINVAL;
		if (!model_expect(model_same(&run, &got)) || !model_load_run(m, &run))
			return -EINVAL;
		/* And with nothing else in the range than its first page */
		if (!model_expect(vfio_xa_dma_next(&m->store, index, run.first, &got) &&
				  got.first == run.first && got.last == run.first))
			return -EINVAL;
		index = run.last + 1;
	}
	if (!model_expect(index > VFIO_XA_DMA_LAST_INDEX ||
			  !vfio_xa_dma_next(&m->store, index, VFIO_XA_DMA_LAST_INDEX, &got)))
		return -EINVAL;
	if (!model_expect(vfio_xa_dma_npages(&m->store) == npages))
		return -EINVAL;
	if (!model_expect(vfio_xa_dma_empty(&m->store) == !npages))
		return -EINVAL;
	if (!model_expect(npages || !vfio_xa_dma_footprint(&m->store)))
		return -EINVAL;
	return model_extra_check(m);
}

/* What the steps are made of. */

/* An interesting place: the edge of a segment, or near that of a block. */
static unsigned long model_index(struct model *m)
{
	static const u8 orders[] = { 0, 6, 9, 12, 18, 24, 30, 36, 42, 48, 52 };
	u8 how = model_byte(m), arg = model_byte(m);
	unsigned long index;

	if (m->nr && how & 0x80) {
		const struct vfio_xa_dma_run *seg = &m->seg[(how & 0x7f) * 31 % m->nr];

		index = arg & 0x80 ? seg->last : seg->first;
		if (arg & 0x40)
			index += arg & 0x3f;
		else
			index -= arg & 0x3f;
	} else {
		unsigned int order = orders[how % ARRAY_SIZE(orders)];

		index = order ? 1UL << order : 0;
		if (how & 0x40)
			index -= arg;
		else
			index += (unsigned long)arg << (how / ARRAY_SIZE(orders) % 3 * 4);
	}
	return index & VFIO_XA_DMA_LAST_INDEX;
}

static void model_range(struct model *m, unsigned long *first, unsigned long *last)
{
	u8 how = model_byte(m);
	unsigned long more;

	*first = model_index(m);
	if (how < 0x60)			/* one page */
		more = 0;
	else if (how < 0xa0)		/* a few */
		more = how & 0x3f;
	else if (how < 0xe0)		/* a power of two of them, or one off */
		more = (1UL << (model_byte(m) % 44)) - 1 + (how % 4 == 1) - (how % 4 == 2);
	else				/* a whole block */
		more = BIT((how & 7) * 6) - 1;
	if (how >= 0xe0 && how & 8)
		*first &= ~more;
	*last = more > VFIO_XA_DMA_LAST_INDEX - *first ? VFIO_XA_DMA_LAST_INDEX : *first + more;
}

static unsigned long model_word(struct model *m)
{
	static const unsigned long flags[] = {
		VFIO_XA_DMA_READ,
		VFIO_XA_DMA_READ | VFIO_XA_DMA_WRITE,
		VFIO_XA_DMA_READ | VFIO_XA_DMA_DIRTY,
		VFIO_XA_DMA_WRITE | VFIO_XA_DMA_BIG,
	};
	u8 b = model_byte(m);
	unsigned long delta = b & 3;

	if (b & 4)
		delta = ++m->next_delta;
	if (b & 8)
		delta = -delta;
	/* Too long to be the word of a single */
	if ((b & 0x30) == 0x30)
		delta += BIT(62 - PAGE_SHIFT);
	return vfio_xa_dma_word(0, delta << PAGE_SHIFT, flags[b >> 6]);
}

/*
 * The commits: they must not fail, and if @forbid is set no allocation succeeds,
 * so that nothing becomes smaller.
 */

static int model_commit_erase(struct model *m, unsigned long first, unsigned long last,
			      bool forbid)
{
	model_forbid(forbid);
	vfio_xa_dma_erase(&m->store, first, last);
	model_forbid(false);
	if (!model_expect(!model_forbidden()))
		return -EINVAL;
	model_erase(m, first, last);
	return 0;
}

static int model_commit_change(struct model *m, unsigned long first, unsigned long last,
			       unsigned long clear, unsigned long set, bool forbid)
{
	model_forbid(forbid);
	vfio_xa_dma_change(&m->store, first, last, clear, set);
	model_forbid(false);
	if (!model_expect(!model_forbidden()))
		return -EINVAL;
	model_change(m, first, last, clear, set);
	return 0;
}

/*
 * See that a range can be cut out. Sets *@done to false if that has failed as it should.
 * What must not fail does not, though everything else that is allocated does.
 */
static int model_prepare(struct model *m, unsigned long first, unsigned long last,
			 unsigned int fail, bool nofail, bool *done)
{
	bool failed;
	int err;

	*done = true;
	if (nofail) {
		model_only_nofail(true);
		vfio_xa_dma_cut(&m->store, first, last, GFP_KERNEL | __GFP_NOFAIL);
		model_only_nofail(false);
		return 0;
	}
	model_fail_nth(fail);
	err = vfio_xa_dma_cut(&m->store, first, last, GFP_KERNEL_ACCOUNT);
	failed = fail && !model_fail_left();
	model_fail_nth(0);
	*done = !err;
	if (!model_expect(err == (failed ? -ENOMEM : 0)))
		return -EINVAL;
	return 0;
}

/* The steps. */

static int model_do_insert(struct model *m, unsigned long first, unsigned long last,
			   unsigned long word, unsigned int fail)
{
	bool failed;
	int err;

	if (m->nr > MODEL_SEGMENTS / 2)
		return 0;
	model_fail_nth(fail);
	err = vfio_xa_dma_insert(&m->store, first, last, word, GFP_KERNEL_ACCOUNT);
	failed = fail && !model_fail_left();
	model_fail_nth(0);
	if (model_overlaps(m, first, last)) {
		if (!model_expect(err == -EEXIST))
			return -EINVAL;
		return 0;
	}
	if (!model_expect(err == (failed ? -ENOMEM : 0)))
		return -EINVAL;
	if (failed)
		return 0;
	model_insert(m, first, last, word);
	if (word & VFIO_XA_DMA_PENDING)
		m->held[m->nr_held++] = (struct model_held) { first, last,
							      VFIO_XA_DMA_PENDING };
	return 0;
}

/* Insert, and then keep it or not: neither needs memory. */
static int model_do_insert_begin(struct model *m, unsigned long first, unsigned long last,
				 unsigned long word, unsigned int fail, bool keep)
{
	bool failed;
	int ret;

	if (m->nr > MODEL_SEGMENTS / 2)
		return 0;
	model_fail_nth(fail);
	ret = vfio_xa_dma_reserve(&m->store, first, last, word, GFP_KERNEL_ACCOUNT);
	failed = fail && !model_fail_left();
	model_fail_nth(0);
	if (model_overlaps(m, first, last)) {
		if (!model_expect(ret == -EEXIST))
			return -EINVAL;
		return 0;
	}
	if (!model_expect(failed ? ret == -ENOMEM : !ret || ret == 1))
		return -EINVAL;
	if (failed)
		return 0;
	model_forbid(true);
	if (!keep)
		vfio_xa_dma_erase(&m->store, first, last);
	else if (ret)
		vfio_xa_dma_commit(&m->store, first, last);
	model_forbid(false);
	if (!model_expect(!model_forbidden()))
		return -EINVAL;
	if (keep)
		model_insert(m, first, last, word);
	return 0;
}

static int model_step_insert(struct model *m, unsigned int fail)
{
	unsigned long first, last, word;
	u8 how;

	model_range(m, &first, &last);
	word = model_word(m);
	how = model_byte(m);
	if (how & 2)
		return model_do_insert_begin(m, first, last, word, fail, how & 4);
	if (how & 1 && m->nr_held < MODEL_HELD)
		word |= VFIO_XA_DMA_PENDING;
	return model_do_insert(m, first, last, word, fail);
}

/* More of the same after a segment, or all that is missing up to the next. */
static int model_step_grow(struct model *m, unsigned int fail)
{
	unsigned int i = model_byte(m) * 31;
	unsigned long first, last, gap, word;
	u8 how = model_byte(m);

	if (m->nr < 2)
		return 0;
	i %= m->nr - 1;
	first = m->seg[i].last + 1;
	gap = m->seg[i + 1].first - first;
	if (!gap)
		return 0;
	last = first + min(gap, how & 0x80 ? 1UL + (how & 0x3f) : 4096UL) - 1;
	word = m->seg[i].word & ~VFIO_XA_DMA_TRANSIENT;
	if (how & 0x40)
		return model_do_insert_begin(m, first, last, word, fail, how & 1);
	return model_do_insert(m, first, last, word, fail);
}

/* Pages at a distance, with equal words or not. */
static int model_step_stride(struct model *m)
{
	unsigned long index = model_index(m), word = model_word(m);
	u8 shape = model_byte(m), n = model_byte(m) & 0x7f;
	unsigned long stride = 1UL << (shape & 0x10 ? shape & 3 : shape % 16 * 3);
	int err;

	stride += shape >> 7;
	for (; n && index <= VFIO_XA_DMA_LAST_INDEX - stride; n--, index += stride) {
		err = model_do_insert(m, index, index, word, 0);
		if (err)
			return err;
		if (shape & 0x20)
			word = vfio_xa_dma_word(0, ++m->next_delta << PAGE_SHIFT,
						VFIO_XA_DMA_READ);
	}
	return 0;
}

/* Must return the word that the page has, or leave it, and never allocates. */
static int model_do_take(struct model *m, unsigned long index, unsigned long unless)
{
	unsigned int i = model_find(m, index);
	unsigned long word = 0, got;

	if (i < m->nr && m->seg[i].first <= index)
		word = m->seg[i].word;
	model_forbid(true);
	got = vfio_xa_dma_take(&m->store, index, unless);
	model_forbid(false);
	if (!model_expect(!model_forbidden()) ||
	    !model_expect(!got || got == word))
		return -EINVAL;
	if (got && !(word & unless))
		model_erase(m, index, index);
	return 0;
}

/* Likewise the word that the page had, of which a page more is then added or taken away. */
static int model_do_add(struct model *m, unsigned long index, bool less, bool unless)
{
	unsigned long word = 0, got, add = BIT(VFIO_XA_DMA_FLAG_BITS);
	unsigned int i = model_find(m, index);

	if (i < m->nr && m->seg[i].first <= index)
		word = m->seg[i].word;
	/* A carry would make another word of it. */
	if (word >> VFIO_XA_DMA_FLAG_BITS > BIT(40) || (less && word < add))
		return 0;
	if (less)
		add = -add;
	model_forbid(true);
	got = vfio_xa_dma_add(&m->store, index, add, unless ? word : 0);
	model_forbid(false);
	if (!model_expect(!model_forbidden()) ||
	    !model_expect(!got || (got == word && !unless)))
		return -EINVAL;
	if (got)
		model_change(m, index, index, LONG_MAX, word + add);
	return 0;
}

static int model_step_erase(struct model *m, unsigned int fail)
{
	unsigned long first, last;
	bool done;
	u8 how;
	int err;

	model_range(m, &first, &last);
	how = model_byte(m);
	if (model_is_held(m, first, last) || m->nr > MODEL_SEGMENTS / 2)
		return 0;
	if (how & 2)
		return model_do_take(m, how & 4 ? first : last, how & 8 ? VFIO_XA_DMA_WRITE : 0);
	err = model_prepare(m, first, last, fail, how & 0x10, &done);
	if (err || !done)
		return err;
	return model_commit_erase(m, first, last, how & 1);
}

/* Segments in order, but some of them are kept. */
static int model_step_erase_segments(struct model *m)
{
	unsigned int i = model_byte(m) * 31, n = model_byte(m);
	u8 how = model_byte(m);
	unsigned long first, last;
	int err;

	for (i = m->nr ? i % m->nr : 0; n && i < m->nr; n--) {
		first = m->seg[i].first;
		last = how & 2 ? first : m->seg[i].last;
		if (model_is_held(m, first, last) || m->nr > MODEL_SEGMENTS / 2 ||
		    n % 8 <= how >> 5) {
			i++;
			continue;
		}
		model_fail_nth(how & 4 ? 1 : 0);
		vfio_xa_dma_cut(&m->store, first, last, GFP_KERNEL | __GFP_NOFAIL);
		model_fail_nth(0);
		err = model_commit_erase(m, first, last, how & 1);
		if (err)
			return err;
	}
	return 0;
}

static int model_step_change(struct model *m, unsigned int fail)
{
	static const unsigned long flags[] = {
		VFIO_XA_DMA_VADDR_INVALID, VFIO_XA_DMA_BIG,
		VFIO_XA_DMA_WRITE, VFIO_XA_DMA_PENDING,
	};
	unsigned long first, last, flag;
	bool done;
	u8 how;
	int err;

	model_range(m, &first, &last);
	how = model_byte(m);
	flag = flags[how & 3];
	if (flag == VFIO_XA_DMA_PENDING) {
		/* Holes would not be held. */
		unsigned int i = model_find(m, first);

		if (!model_overlaps(m, first, last))
			return 0;
		first = max(first, m->seg[i].first);
		last = min(last, m->seg[i].last);
	}
	if (model_is_held(m, first, last) || m->nr > MODEL_SEGMENTS / 2 ||
	    m->nr_held == MODEL_HELD)
		return 0;
	if (how & 0x20)
		return model_do_add(m, how & 4 ? first : last, how & 8, (how & 0xc0) == 0xc0);
	err = model_prepare(m, first, last, fail, how & 0x10, &done);
	if (err || !done)
		return err;
	if (flag == VFIO_XA_DMA_PENDING)
		m->held[m->nr_held++] = (struct model_held) { first, last, flag };
	else if (how & 4)
		return model_commit_change(m, first, last, flag, VFIO_XA_DMA_READ, how & 8);
	return model_commit_change(m, first, last, 0, flag, how & 8);
}

/*
 * A checkerboard of @flag in the block around @index: 64 squares of @square pages. It is set
 * in every other square, and then taken away in the first @until squares: what was of two
 * words becomes one again, up to there.
 */
static int model_do_checkerboard(struct model *m, unsigned long index, unsigned long square,
				 unsigned long flag, unsigned int until, bool forbid)
{
	unsigned long base = index & ~(64 * square - 1), first, last;
	bool clear, done;
	unsigned int i;
	int err;

	for (i = 0; i <= 64; i += 2) {
		clear = i == 64;
		first = clear ? base : base + i * square;
		last = first + (clear ? until : 1) * square - 1;
		if (m->nr > MODEL_SEGMENTS / 2 || model_is_held(m, first, last))
			return 0;
		err = model_prepare(m, first, last, 0, true, &done);
		if (!err)
			err = model_commit_change(m, first, last, clear ? flag : 0,
						  clear ? 0 : flag, forbid);
		if (err)
			return err;
	}
	return 0;
}

static int model_step_checkerboard(struct model *m)
{
	static const u8 orders[] = { 0, 4, 6, 6, 10, 12 };
	unsigned long index = model_index(m), word = model_word(m), square, base;
	u8 how = model_byte(m), until = model_byte(m);
	int err = 0;

	square = BIT(orders[how % ARRAY_SIZE(orders)]);
	base = index & ~(64 * square - 1);
	if (how & 0x20 && !model_overlaps(m, base, base + 64 * square - 1))
		err = model_do_insert(m, base, base + 64 * square - 1, word, 0);
	return err ?: model_do_checkerboard(m, index, square, how & 0x80 ?
					    VFIO_XA_DMA_BIG : VFIO_XA_DMA_VADDR_INVALID,
					    until % 64 + 1, how & 0x40);
}

/* Let go of what is PENDING, one way or the other. */
static int model_step_release(struct model *m)
{
	u8 how = model_byte(m);
	unsigned int i = how;
	struct model_held held;

	if (!m->nr_held)
		return 0;
	i %= 2 * m->nr_held;
	held = m->held[i / 2];
	m->nr_held--;
	m->held[i / 2] = m->held[m->nr_held];
	if (i & 1)
		return model_commit_erase(m, held.first, held.last, how & 0x80);
	return model_commit_change(m, held.first, held.last, held.flag, 0, how & 0x80);
}

static int model_step_lookup(struct model *m)
{
	unsigned long first, last;
	struct vfio_xa_dma_run got, run;
	unsigned int i;
	bool any;
	int err;

	model_range(m, &first, &last);
	err = model_compare_at(m, first);
	if (!err)
		err = model_compare_at(m, last);
	if (err)
		return err;

	any = model_overlaps(m, first, last);
	if (!model_expect(vfio_xa_dma_next(&m->store, first, last, &got) == any))
		return -EINVAL;
	if (!any)
		return 0;
	i = model_find(m, first);
	model_run(m, i, &run);
	run.first = max(run.first, first);
	run.last = min(run.last, last);
	if (!model_expect(model_same(&run, &got)))
		return -EINVAL;
	return 0;
}

static int model_step(struct model *m)
{
	u8 op = model_byte(m);
	unsigned int fail = op & 0x80 ? 1 + (op >> 4 & 7) * (op & 0x40 ? 3 : 1) : 0;
	int err;

	switch (op & 0xf) {
	case 0 ... 2:
		err = model_step_insert(m, fail);
		break;
	case 3:
		err = model_step_grow(m, fail);
		break;
	case 4:
		err = model_step_stride(m);
		break;
	case 5 ... 7:
		err = model_step_erase(m, fail);
		break;
	case 8:
		err = model_step_erase_segments(m);
		break;
	case 9 ... 10:
		err = model_step_change(m, fail);
		break;
	case 11 ... 12:
		err = model_step_release(m);
		break;
	case 13:
		err = fail ? model_step_checkerboard(m) : model_step_release(m);
		break;
	case 14:
		err = model_step_grow(m, 0);
		break;
	default:
		err = model_step_lookup(m);
		break;
	}
	return err ?: model_compare(m);
}

/*
 * The XArray takes levels away at the root when nothing but the first slot is left, down
 * to a single page, which random steps hardly ever come to: not the last step may be that
 * of the page slots, and they must not become an array.
 */
static int model_shrink_root_once(struct model *m, bool more)
{
	const unsigned long word = vfio_xa_dma_word(0, 0, VFIO_XA_DMA_READ);
	unsigned long i;
	int err = 0;

	for (i = 0; i < 40 && !err; i++)
		err = model_do_insert(m, i, i, vfio_xa_dma_word(0, i << (PAGE_SHIFT + 1),
								VFIO_XA_DMA_READ), 0);
	if (!err)
		err = model_do_insert(m, 1UL << 30, 1UL << 30, word, 0);
	for (i = 39; i && !err; i--) {
		err = model_commit_erase(m, i, i, true);
		if (!err)
			err = model_compare(m);
	}
	if (!err)
		err = model_commit_erase(m, 1UL << 30, 1UL << 30, true);
	if (!err && !model_load_around(m, 0))
		err = -EINVAL;
	if (!err)
		err = model_compare(m);
	if (!err && !model_expect(!vfio_xa_dma_footprint(&m->store)))
		err = -EINVAL;
	if (!err)
		err = model_compare_at(m, 0);
	if (!err)
		err = model_commit_change(m, 0, 100, 0, VFIO_XA_DMA_WRITE, true);
	if (!err)
		err = model_compare(m);
	if (!err && more) {
		err = model_do_insert(m, 5, 7, word, 0);
		if (!err)
			err = model_compare(m);
		if (!err)
			err = model_commit_erase(m, 5, 7, true);
	}
	if (!err)
		err = model_commit_erase(m, 0, 0, true);
	return err ?: model_compare(m);
}

static int model_shrink_root(struct model *m)
{
	return model_shrink_root_once(m, false) ?: model_shrink_root_once(m, true);
}

static void model_init(struct model *m, u64 seed, const u8 *data, size_t size)
{
	memset(m, 0, sizeof(*m));
	vfio_xa_dma_init(&m->store);
	m->seed = seed * 0x9e3779b97f4a7c15 | 1;
	m->data = data;
	m->end = data ? data + size : NULL;
}

static int model_fini(struct model *m)
{
	vfio_xa_dma_destroy(&m->store);
	m->nr = 0;
	return model_compare(m);
}

#endif /* __VFIO_XA_DMA_MODEL_H */
