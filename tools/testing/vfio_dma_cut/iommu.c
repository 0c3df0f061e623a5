// SPDX-License-Identifier: GPL-2.0-only
/*
 * An IOMMU that checks what it is told to do.  Nobody may unmap from, or to, the
 * inside of a leaf, unmap a hole, map what is mapped, or unpin what an IOTLB may
 * still hold.
 */

#include <linux/sched/signal.h>

#include "model.h"

bool model_short;
unsigned int model_signal;
struct weights model_pins, model_must_stay;
struct task_struct *current;

static struct table *tables[4];

static struct table *to_table(struct iommu_domain *domain)
{
	return container_of(domain, struct table, domain);
}

void cut_warn(const char *file, int line, const char *what)
{
	if (!model_short)
		model_fail("%s:%d: warning: %s", file, line, what);
}

bool cut_signal(void)
{
	return model_signal && !--model_signal;
}

/*
 * Numbers of pages
 */

static void weight_add(struct weights *weights, unsigned long at, long add)
{
	unsigned int lo = 0, hi = weights->nr, mid;
	struct weight *w = weights->w;

	while (lo < hi) {
		mid = (lo + hi) / 2;
		if (w[mid].at < at)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < weights->nr && w[lo].at == at) {
		w[lo].add += add;
		if (!w[lo].add)
			memmove(w + lo, w + lo + 1, (--weights->nr - lo) * sizeof(*w));
		return;
	}
	assert(weights->nr < ARRAY_SIZE(weights->w));
	memmove(w + lo + 1, w + lo, (weights->nr++ - lo) * sizeof(*w));
	w[lo] = (struct weight) { .at = at, .add = add };
}

void weights_add(struct weights *weights, unsigned long pfn, unsigned long npages,
		 long add)
{
	if (pfn >= MODEL_DEVICE)
		return;
	weight_add(weights, pfn, add);
	weight_add(weights, pfn + npages, -add);
}

bool weights_equal(const struct weights *a, const struct weights *b)
{
	unsigned int i;

	if (a->nr != b->nr)
		return false;
	for (i = 0; i < a->nr; i++)
		if (a->w[i].at != b->w[i].at || a->w[i].add != b->w[i].add)
			return false;
	return true;
}

/* Does every page count in @a at least as often as in @b? */
bool weights_cover(const struct weights *a, const struct weights *b)
{
	unsigned int i = 0, j = 0;
	unsigned long at;
	long more = 0;

	while (i < a->nr || j < b->nr) {
		at = min(i < a->nr ? a->w[i].at : ULONG_MAX,
			 j < b->nr ? b->w[j].at : ULONG_MAX);
		if (i < a->nr && a->w[i].at == at)
			more += a->w[i++].add;
		if (j < b->nr && b->w[j].at == at)
			more -= b->w[j++].add;
		if (more < 0)
			return false;
	}
	return true;
}

void model_pin(unsigned long pfn, unsigned long npages)
{
	weights_add(&model_pins, pfn, npages, 1);
}

void cut_unpin(unsigned long pfn, unsigned long npages)
{
	static struct weights none;
	const struct piece *stale;
	unsigned int i, j;

	model_check(pfn < MODEL_DEVICE, "unpin of device memory");
	for (i = 0; i < ARRAY_SIZE(tables); i++) {
		for (j = 0; tables[i] && j < tables[i]->nr_stale; j++) {
			stale = &tables[i]->stale[j];
			model_check(stale->pfn >= pfn + npages ||
				    stale->pfn + (stale->last - stale->first) < pfn,
				    "page frame %lx is unpinned before the sync", pfn);
		}
	}
	weights_add(&model_pins, pfn, npages, -1);
	model_check(weights_cover(&model_pins, &none), "page frame %lx is not pinned",
		    pfn);
}

/*
 * Leaves
 */

/* The first piece that ends at or behind a page */
static unsigned int find_piece(struct table *table, unsigned long index)
{
	unsigned int lo = 0, hi = table->nr, mid = table->near;

	if (mid < hi && table->pieces[mid].first <= index &&
	    table->pieces[mid].last >= index)
		return mid;
	while (lo < hi) {
		mid = (lo + hi) / 2;
		if (table->pieces[mid].last < index)
			lo = mid + 1;
		else
			hi = mid;
	}
	table->near = lo;
	return lo;
}

static void insert_piece(struct table *table, unsigned int at, struct piece piece)
{
	assert(table->nr < MODEL_PIECES);
	memmove(table->pieces + at + 1, table->pieces + at,
		(table->nr++ - at) * sizeof(piece));
	table->pieces[at] = piece;
}

static void add_leaves(struct table *table, struct piece piece)
{
	unsigned int at = find_piece(table, piece.first);
	struct piece *prev = at ? &table->pieces[at - 1] : NULL;

	if (prev && prev->last + 1 == piece.first && prev->size == piece.size &&
	    prev->prot == piece.prot &&
	    prev->pfn + (piece.first - prev->first) == piece.pfn)
		prev->last = piece.last;
	else
		insert_piece(table, at, piece);
}

/* Take out what is within one piece, from leaf to leaf. */
static void take_leaves(struct table *table, unsigned int at, unsigned long first,
			unsigned long last, bool stale)
{
	struct piece *piece = &table->pieces[at], taken = *piece, tail = *piece;
	unsigned long from, to;

	taken.first = first;
	taken.last = last;
	taken.pfn += first - piece->first;
	/* A call that does unmap what one before had left makes amends for it. */
	from = max(first, table->short_first);
	to = min(last, table->short_last);
	if (model_short && from <= to)
		weights_add(&model_must_stay, taken.pfn + from - first, to - from + 1, -1);
	if (stale) {
		assert(table->nr_stale < MODEL_PIECES);
		table->stale[table->nr_stale++] = taken;
	}
	if (first > piece->first && last < piece->last) {
		tail.pfn += last + 1 - piece->first;
		tail.first = last + 1;
		piece->last = first - 1;
		insert_piece(table, at + 1, tail);
	} else if (first > piece->first) {
		piece->last = first - 1;
	} else if (last < piece->last) {
		piece->pfn += last + 1 - piece->first;
		piece->first = last + 1;
	} else {
		memmove(piece, piece + 1, (--table->nr - at) * sizeof(*piece));
	}
	table->near = 0;
}

/* Unmap at most @leaves leaves; returns how many pages that were. */
static unsigned long unmap_leaves(struct table *table, unsigned long first,
				  unsigned long npages, unsigned long leaves,
				  bool stale)
{
	unsigned long pos = first, last = first + npages - 1, end;
	struct piece *piece;
	unsigned int at;

	while (pos <= last && leaves) {
		at = find_piece(table, pos);
		piece = &table->pieces[at];
		if (at == table->nr || piece->first > pos) {
			model_check(model_short, "unmapping %lx..%lx: a hole at %lx", first,
				    last, pos);
			break;
		}
		end = min(piece->last, last);
		if ((pos - piece->first) % piece->size ||
		    (end + 1 - piece->first) % piece->size) {
			model_check(model_short, "unmapping %lx..%lx: inside of a leaf", first,
				    last);
			break;
		}
		if ((end + 1 - pos) / piece->size > leaves)
			end = pos + leaves * piece->size - 1;
		leaves -= (end + 1 - pos) / piece->size;
		take_leaves(table, at, pos, end, stale);
		if (end == last) {
			pos = end + 1;
			break;
		}
		pos = end + 1;
	}
	table->nr_unmapped += pos - first;
	return pos - first;
}

/* Which page size a driver would use, and how often until a larger one fits */
static unsigned long leaf_size(const struct table *table, unsigned long index,
			       unsigned long pfn, unsigned long npages,
			       unsigned long *count)
{
	unsigned long sizes = table->domain.pgsize_bitmap >> PAGE_SHIFT, size, fits, next;

	if (table->unit_is_call) {
		*count = 1;
		return npages;
	}
	fits = sizes & (BIT(__fls(npages)) * 2 - 1);
	if (index | pfn)
		fits &= BIT(__ffs(index | pfn)) * 2 - 1;
	assert(fits);
	size = BIT(__fls(fits));
	*count = npages / size;
	sizes &= ~(size * 2 - 1);
	if (sizes) {
		next = sizes & -sizes;
		if (!((index ^ pfn) & (next - 1)) &&
		    npages >= next - (index & (next - 1)) + next)
			*count = (next - (index & (next - 1))) / size;
	}
	return size;
}

int iommu_map(struct iommu_domain *domain, unsigned long iova, phys_addr_t phys,
	      size_t size, int prot, gfp_t gfp)
{
	struct table *table = to_table(domain);
	unsigned long first = iova >> PAGE_SHIFT, index = first;
	unsigned long pfn = phys >> PAGE_SHIFT, npages = size >> PAGE_SHIFT, unit, count;
	bool fail = table->fail_map && !--table->fail_map;
	unsigned int at = find_piece(table, index);

	model_check(size && !((iova | phys | size) & ~PAGE_MASK), "map of nothing");
	if (at < table->nr && table->pieces[at].first <= index + npages - 1) {
		model_check(model_short, "map %lx..%lx: something is there", index,
			    index + npages - 1);
		return -EEXIST;
	}
	table->back[table->nr_map++ % ARRAY_SIZE(table->back)] = (struct piece) {
		.first = first, .last = first + npages - 1,
	};
	if (fail)
		npages /= 2;
	while (npages) {
		unit = leaf_size(table, index, pfn, npages, &count);
		add_leaves(table, (struct piece) {
			.first = index, .last = index + unit * count - 1, .pfn = pfn,
			.size = unit, .prot = prot & (IOMMU_READ | IOMMU_WRITE),
		});
		index += unit * count;
		pfn += unit * count;
		npages -= unit * count;
	}
	if (!fail)
		return 0;
	table->nr_map--;
	if (table->stuck && index > first)
		model_short = true;
	else if (index > first)
		unmap_leaves(table, first, index - first, ULONG_MAX, false);
	return -ENOMEM;
}

static size_t unmap_call(struct iommu_domain *domain, unsigned long iova, size_t size,
			 bool stale)
{
	struct table *table = to_table(domain);
	unsigned long first = iova >> PAGE_SHIFT, npages = size >> PAGE_SHIFT;
	unsigned long leaves = ULONG_MAX, pos, end;
	const struct piece *piece;
	bool fail = table->fail_unmap && !--table->fail_unmap;
	unsigned int at;

	if (fail && !model_short) {
		/* Whatever it does not unmap, none of it may be unpinned. */
		for (pos = first; pos <= first + npages - 1; pos = end + 1) {
			at = find_piece(table, pos);
			piece = &table->pieces[at];
			if (at == table->nr || piece->first > pos)
				break;
			end = min(piece->last, first + npages - 1);
			weights_add(&model_must_stay, piece->pfn + pos - piece->first,
				    end + 1 - pos, 1);
			if (end == first + npages - 1)
				break;
		}
		at = find_piece(table, first);
		leaves = at < table->nr && table->pieces[at].size < npages;
	}
	npages = unmap_leaves(table, first, npages, leaves, stale);
	if (fail && !model_short) {
		table->short_first = first;
		table->short_last = first + (size >> PAGE_SHIFT) - 1;
		model_short = true;
	}
	return npages << PAGE_SHIFT;
}

size_t iommu_unmap(struct iommu_domain *domain, unsigned long iova, size_t size)
{
	return unmap_call(domain, iova, size, false);
}

size_t iommu_unmap_fast(struct iommu_domain *domain, unsigned long iova, size_t size,
			struct iommu_iotlb_gather *gather)
{
	gather->start = min(gather->start, iova);
	gather->end = max(gather->end, iova + size - 1);
	return unmap_call(domain, iova, size, true);
}

void iommu_iotlb_sync(struct iommu_domain *domain, struct iommu_iotlb_gather *gather)
{
	struct table *table = to_table(domain);
	unsigned int i, n = 0;

	for (i = 0; i < table->nr_stale; i++)
		if (table->stale[i].first < gather->start >> PAGE_SHIFT ||
		    table->stale[i].last > gather->end >> PAGE_SHIFT)
			table->stale[n++] = table->stale[i];
	table->nr_stale = n;
	iommu_iotlb_gather_init(gather);
}

phys_addr_t iommu_iova_to_phys(struct iommu_domain *domain, dma_addr_t iova)
{
	struct table *table = to_table(domain);
	unsigned long index = iova >> PAGE_SHIFT;
	unsigned int at = find_piece(table, index);
	const struct piece *piece = &table->pieces[at];

	if (at == table->nr || piece->first > index)
		return 0;
	return PFN_PHYS(piece->pfn + index - piece->first) | (iova & ~PAGE_MASK);
}

void model_add_table(struct table *table)
{
	unsigned int i;

	table->short_first = 1;
	table->short_last = 0;

	for (i = 0; tables[i]; i++)
		;
	tables[i] = table;
}

void model_del_table(struct table *table)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(tables); i++)
		if (tables[i] == table)
			tables[i] = NULL;
}

void model_reset(void)
{
	memset(tables, 0, sizeof(tables));
	model_pins.nr = 0;
	model_must_stay.nr = 0;
	model_short = false;
	model_signal = 0;
}
