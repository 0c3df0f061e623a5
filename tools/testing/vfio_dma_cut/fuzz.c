// SPDX-License-Identifier: GPL-2.0-only
/*
 * A coverage-guided fuzzer of leaves: its input is read as mappings and unmappings,
 * as domains that come and go, and as failures of IOMMUs, of allocations, and by
 * signals.
 *
 * Store, cuts and core are the real ones.  The loops of the container around them
 * are short and repeated here, with the same calls in the same order; a function
 * that does so names the one that it follows.
 */

#include <linux/log2.h>
#include <linux/sched/signal.h>

#include "model.h"
#include "../../../drivers/vfio/vfio_dma_space.h"
#include "../../../drivers/vfio/vfio_dma_cut.h"
#include "../../../drivers/vfio/vfio_xa_dma.h"

/* Which kind of memory a virtual page is in: the upper bits of its number */
#define AREA_SHIFT	32
#define AREA_LINEAR	0	/* page frames from 0 on */
#define AREA_SWAPPED	1	/* units change places with their neighbours */
#define AREA_SINGLE	2	/* nothing is contiguous */
#define AREA_DEVICE	3	/* not pinned */

/* What the words of its pages say */
#define DEVICE		(VFIO_XA_DMA_PFNMAP | VFIO_XA_DMA_MMIO)

#define MAX_REFS	64
#define MAX_SLICES	1024

static const struct kind {
	unsigned long pgsizes;
	bool unit_is_call;
	unsigned int mid, coarse;	/* orders of sizes that borders are tried at */
} kinds[] = {
	{ PAGE_SIZE | PAGE_SIZE << 4 | PAGE_SIZE << 8, false, 4, 8 },
	{ PAGE_MASK, false, 3, 6 },
	{ PAGE_SIZE, false, 3, 6 },
	{ PAGE_MASK, true, 3, 6 },
	{ PAGE_SIZE | PAGE_SIZE << 4 | PAGE_SIZE << 8, true, 4, 8 },
	{ PAGE_SIZE | PAGE_SIZE << 9 | PAGE_SIZE << 18, false, 9, 18 },
	{ PAGE_SIZE | PAGE_SIZE << 9 | PAGE_SIZE << 18, true, 9, 10 },
	{ PAGE_SIZE | PAGE_SIZE << 9, false, 9, 11 },
};

/**
 * struct ref - what must be mapped
 * @first: first IOVA page
 * @last: last IOVA page
 * @vpage: virtual page of @first
 * @word: flags that matter: READ, WRITE, BIG, PENDING
 * @granule: pages of the granule
 * @id: which call has mapped it
 */
struct ref {
	unsigned long first;
	unsigned long last;
	unsigned long vpage;
	unsigned long word;
	unsigned long granule;
	unsigned int id;
};

/* A call in progress: struct vfio_dma_flight and its map */
struct pending {
	bool used;
	struct ref ref;
	unsigned long word;
	unsigned long mapped;
};

static struct {
	const u8 *data;
	size_t size;
	struct vfio_dma_record record;
	struct vfio_dma_space space;
	struct vfio_dma_owner owner;
	struct mutex lock;	/* held all the time */
	struct {
		bool used;
		const struct kind *kind;
		struct vfio_dma_domain dma;
		struct table table;
	} domains[2];
	unsigned long base;
	unsigned int mid, coarse;
	struct ref refs[MAX_REFS + 4];
	unsigned int nr_refs;
	unsigned int last_id;
	struct ref taken;	/* what was unmapped last */
	struct pending pending;
	bool armed;
} f;

static u8 next_byte(void)
{
	if (!f.size)
		return 0;
	f.size--;
	return *f.data++;
}

static bool has_domain(void)
{
	return !list_empty(&f.space.domains);
}

/*
 * Memory
 */

static unsigned long vpage_pfn(unsigned long vpage)
{
	unsigned long area = vpage >> AREA_SHIFT, off = vpage & (BIT(AREA_SHIFT) - 1);

	switch (area) {
	case AREA_LINEAR:
		return off;
	case AREA_SWAPPED:
		return area << AREA_SHIFT | (off ^ BIT(f.mid));
	case AREA_SINGLE:
		return area << AREA_SHIFT | off * 2;
	default:
		return MODEL_DEVICE + off;
	}
}

/* Contiguous pages from a page on, as vfio_dma_pin_extent() would find them */
static void first_extent(unsigned long vpage, unsigned long npages,
			 struct vfio_dma_extent *extent)
{
	unsigned long area = vpage >> AREA_SHIFT, max = VFIO_DMA_EXTENT_MAX;

	if (area == AREA_SWAPPED)
		max = BIT(f.mid);
	else if (area == AREA_SINGLE)
		max = 1;
	extent->pfn = vpage_pfn(vpage);
	extent->npages = min(npages, max - extent->pfn % max);
	extent->pfnmap = area == AREA_DEVICE;
	extent->mmio = extent->pfnmap;
}

/*
 * What must be mapped
 */

static void ref_remove(unsigned int i)
{
	memmove(f.refs + i, f.refs + i + 1, (--f.nr_refs - i) * sizeof(*f.refs));
}

static void ref_insert(struct ref ref)
{
	unsigned int i = 0;

	while (i < f.nr_refs && f.refs[i].first < ref.first)
		i++;
	assert(f.nr_refs < ARRAY_SIZE(f.refs));
	memmove(f.refs + i + 1, f.refs + i, (f.nr_refs++ - i) * sizeof(*f.refs));
	f.refs[i] = ref;
}

static struct ref *ref_at(unsigned long index)
{
	unsigned int i;

	for (i = 0; i < f.nr_refs; i++)
		if (f.refs[i].first <= index && f.refs[i].last >= index)
			return &f.refs[i];
	return NULL;
}

static bool ref_overlaps(unsigned long first, unsigned long last)
{
	unsigned int i;

	for (i = 0; i < f.nr_refs; i++)
		if (f.refs[i].first <= last && f.refs[i].last >= first)
			return true;
	return false;
}

static void ref_erase(unsigned long first, unsigned long last)
{
	unsigned int i;

	for (i = 0; i < f.nr_refs; i++) {
		struct ref ref = f.refs[i], tail = ref;

		if (ref.last < first || ref.first > last)
			continue;
		f.taken = ref;
		f.taken.first = max(first, ref.first);
		f.taken.last = min(last, ref.last);
		f.taken.vpage += f.taken.first - ref.first;
		ref_remove(i--);
		if (ref.last > last) {
			tail.vpage += last + 1 - ref.first;
			tail.first = last + 1;
			ref_insert(tail);
			i++;
		}
		if (ref.first < first) {
			ref.last = first - 1;
			ref_insert(ref);
			i++;
		}
	}
}

/* Pages that an unmap of a range takes, which are not those of calls in progress */
static unsigned long ref_count(unsigned long first, unsigned long last)
{
	unsigned long n = 0;
	unsigned int i;

	for (i = 0; i < f.nr_refs; i++)
		if (f.refs[i].first <= last && f.refs[i].last >= first &&
		    !(f.refs[i].word & VFIO_XA_DMA_PENDING))
			n += min(last, f.refs[i].last) - max(first, f.refs[i].first) + 1;
	return n;
}

/* Is it promised that an unmap can begin or end before page @index? */
static bool is_border(unsigned long index)
{
	const struct ref *before, *behind;

	if (!index || index > VFIO_XA_DMA_LAST_INDEX)
		return true;
	before = ref_at(index - 1);
	behind = ref_at(index);
	if (!before || !behind || before->id != behind->id)
		return true;
	return !(index & (behind->granule - 1)) || !(behind->word & VFIO_XA_DMA_BIG);
}

/*
 * Checks
 */

static void check_store(void)
{
	struct vfio_xa_dma_run run;
	unsigned long first = 0, last, word;
	const struct ref *ref;
	unsigned int i = 0;

	while (vfio_xa_dma_next(&f.record.xa, first, VFIO_XA_DMA_LAST_INDEX, &run)) {
		while (run.first <= run.last) {
			ref = &f.refs[i];
			model_check(i < f.nr_refs && run.first >= ref->first &&
				    run.first <= ref->last, "at %lx", run.first);
			last = min(run.last, ref->last);
			word = run.word & (VFIO_XA_DMA_READ | VFIO_XA_DMA_WRITE |
					   VFIO_XA_DMA_BIG | VFIO_XA_DMA_PENDING);
			model_check(word == ref->word, "at %lx", run.first);
			model_check(vfio_xa_dma_vaddr(run.word, run.first) >> PAGE_SHIFT ==
				    ref->vpage + run.first - ref->first, "at %lx",
				    run.first);
			/* All of it has been seen when its last page has. */
			if (last == ref->last)
				i++;
			run.first = last + 1;
		}
		if (run.last == VFIO_XA_DMA_LAST_INDEX)
			break;
		first = run.last + 1;
	}
	model_check(i == f.nr_refs);
	for (i = 0, last = 0; i < f.nr_refs; i++)
		last += f.refs[i].last - f.refs[i].first + 1;
	model_check(vfio_xa_dma_npages(&f.record.xa) == last);
}

/* What of a mapping is, or is to be, in the IO page tables */
static bool ref_mapped(const struct ref *ref, unsigned long *last)
{
	*last = ref->last;
	if (!(ref->word & VFIO_XA_DMA_PENDING))
		return true;
	*last = ref->first + f.pending.mapped - 1;
	return f.pending.mapped;
}

static void check_table(const struct table *table)
{
	unsigned long pos, last, end, n;
	struct vfio_dma_extent extent;
	const struct piece *piece = table->pieces, *stop = piece + table->nr;
	const struct ref *ref;
	unsigned int i;

	model_check(!table->nr_stale, "not synchronised");
	for (i = 0; i < f.nr_refs; i++) {
		ref = &f.refs[i];
		if (!ref_mapped(ref, &last))
			continue;
		for (pos = ref->first; pos <= last; pos += n) {
			model_check(piece < stop && piece->first <= pos &&
				    piece->last >= pos, "%lx is not mapped", pos);
			first_extent(ref->vpage + pos - ref->first, last - pos + 1,
				     &extent);
			end = min(piece->last, pos + extent.npages - 1);
			n = end - pos + 1;
			model_check(piece->pfn + pos - piece->first == extent.pfn,
				    "%lx is mapped to something else", pos);
			model_check(piece->prot == (int)(ref->word & VFIO_DMA_RIGHTS), "at %lx",
				    pos);
			/* No leaf is in two mappings or extents. */
			model_check(!((pos - piece->first) % piece->size) &&
				    !((end + 1 - piece->first) % piece->size),
				    "a leaf across %lx or %lx", pos, end + 1);
			/* The first and the last leaf tell, as all have one size. */
			model_check(!(ref->word & VFIO_XA_DMA_BIG) ||
				    (piece->size <= ref->granule &&
				     !((pos ^ (pos + piece->size - 1)) &
				       ~(ref->granule - 1))),
				    "a leaf across the granule at %lx", pos);
			if (end == piece->last)
				piece++;
		}
	}
	model_check(piece == stop, "%lx is mapped", piece->first);
}

/* Every page is pinned once for each IOVA. */
static void check_pins(void)
{
	static struct weights want;
	struct vfio_dma_extent extent;
	unsigned long pos, last;
	unsigned int i;

	want.nr = 0;
	for (i = 0; i < f.nr_refs && has_domain(); i++) {
		if (!ref_mapped(&f.refs[i], &last))
			continue;
		for (pos = f.refs[i].first; pos <= last; pos += extent.npages) {
			first_extent(f.refs[i].vpage + pos - f.refs[i].first,
				     last - pos + 1, &extent);
			weights_add(&want, extent.pfn, extent.npages, 1);
		}
	}
	model_check(weights_equal(&want, &model_pins), "pages pinned too often or not");
}

/* Whatever an IOMMU could not be made to forget is pinned. */
static void check_leaked(void)
{
	static struct weights have;
	unsigned int i, j;

	model_check(weights_cover(&model_pins, &model_must_stay), "unpinned");
	for (i = 0; i < ARRAY_SIZE(f.domains); i++) {
		const struct table *table = &f.domains[i].table;

		have.nr = 0;
		if (!f.domains[i].used)
			continue;
		for (j = 0; j < table->nr; j++)
			weights_add(&have, table->pieces[j].pfn,
				    table->pieces[j].last - table->pieces[j].first + 1, 1);
		model_check(weights_cover(&model_pins, &have),
			    "a page that is mapped is unpinned");
	}
}

static void check(void)
{
	unsigned int i;

	model_check(!f.space.nr_unpin);
	if (model_short) {
		check_leaked();
		return;
	}
	check_store();
	check_pins();
	for (i = 0; i < ARRAY_SIZE(f.domains); i++)
		if (f.domains[i].used)
			check_table(&f.domains[i].table);
}

/*
 * The container
 */

/* note_extent() */
static int note_extent(unsigned long first, unsigned long word,
		       const struct vfio_dma_extent *extent)
{
	unsigned long set = extent->pfnmap ? DEVICE : 0;
	unsigned long end = first + extent->npages;
	int ret;

	if (set != (word & DEVICE)) {
		ret = vfio_xa_dma_cut(&f.record.xa, first, end - 1, VFIO_DMA_GFP);
		if (ret)
			return ret;
		vfio_xa_dma_change(&f.record.xa, first, end - 1, DEVICE & ~set,
				   set);
	}
	first = round_up(first, VFIO_DMA_CONTIG_PAGES);
	end = round_down(end, VFIO_DMA_CONTIG_PAGES);
	if (first < end && !vfio_xa_dma_cut(&f.record.xa, first, end - 1, VFIO_DMA_GFP))
		vfio_xa_dma_change(&f.record.xa, first, end - 1, 0, VFIO_XA_DMA_CONTIG);
	return 0;
}

/* place_extents(), of at most @extents extents */
static int map_extents(struct vfio_dma_space *space, const struct ref *ref,
		       unsigned long *mapped, unsigned long word,
		       unsigned long granule, unsigned int extents)
{
	unsigned long npages = ref->last - ref->first + 1;
	struct vfio_dma_extent extent;
	int ret = 0;

	if (!(word & VFIO_XA_DMA_BIG))
		granule = VFIO_DMA_EXTENT_MAX;
	while (!ret && *mapped < npages && extents--) {
		first_extent(ref->vpage + *mapped, npages - *mapped, &extent);
		if (!extent.pfnmap)
			model_pin(extent.pfn, extent.npages);
		ret = note_extent(ref->first + *mapped, word, &extent);
		if (ret) {
			if (!extent.pfnmap)
				vfio_dma_unpin(extent.pfn, extent.npages, false);
			break;
		}
		ret = vfio_dma_cut_map(space, ref->first + *mapped, &extent, word,
				       granule);
		*mapped += extent.npages;
	}
	return ret;
}

/* undo() */
static void unmap_map(struct vfio_dma_space *space, unsigned long first,
		      unsigned long mapped)
{
	if (!mapped)
		return;
	vfio_dma_cut_unmap(&f.record, space, first, first + mapped - 1);
	vfio_dma_space_flush(space);
}

/* vfio_dma_record_reserve() */
static int reserve(const struct ref *ref, unsigned long word)
{
	unsigned long state = has_domain() ? VFIO_XA_DMA_PENDING : 0;
	unsigned long pending = word & VFIO_XA_DMA_BIG ? VFIO_XA_DMA_PENDING : state;
	int ret;

	ret = vfio_xa_dma_insert(&f.record.xa, ref->first, ref->last, word | pending,
				 VFIO_DMA_GFP);
	model_check((ret == -EEXIST) == ref_overlaps(ref->first, ref->last));
	if (ret || !pending)
		return ret;
	if (word & VFIO_XA_DMA_BIG)
		ret = vfio_dma_cut_set_starts(&f.record, ref->first, ref->last,
					      ref->granule);
	if (ret)
		vfio_xa_dma_erase(&f.record.xa, ref->first, ref->last);
	else if (!state)
		vfio_xa_dma_change(&f.record.xa, ref->first, ref->last,
				   VFIO_XA_DMA_PENDING, 0);
	return ret;
}

/* vfio_dma_covers_superpage() */
static bool covers_superpage(const struct ref *ref)
{
	unsigned long superpage = f.space.superpage >> PAGE_SHIFT;
	unsigned long npages = ref->last - ref->first + 1;

	if (!has_domain())
		return npages > 1 && ref->granule > 1;
	if (!superpage || npages < superpage || superpage > ref->granule)
		return false;
	return npages - superpage >= (-ref->first & (superpage - 1));
}

/* map_slowly_drops_lock(), the end, and what comes before it if it is resumed */
static void finish(bool undo, unsigned int extents)
{
	struct pending *p = &f.pending;
	const struct ref *ref = &p->ref;
	unsigned long npages = ref->last - ref->first + 1;
	int ret = undo ? -EINTR : 0;

	if (!ret && has_domain()) {
		/* If what was mapped went with the last domain, it begins anew. */
		if (!p->mapped)
			vfio_xa_dma_change(&f.record.xa, ref->first, ref->last,
					   VFIO_DMA_CUT_MEMORY_FLAGS, 0);
		ret = map_extents(&f.space, ref, &p->mapped, p->word, ref->granule,
				  extents);
		if (!ret && p->mapped < npages)
			return;
	}
	if (ret) {
		if (has_domain())
			unmap_map(&f.space, ref->first, p->mapped);
		vfio_xa_dma_erase(&f.record.xa, ref->first, ref->last);
		ref_erase(ref->first, ref->last);
	} else {
		vfio_xa_dma_change(&f.record.xa, ref->first, ref->last,
				   VFIO_XA_DMA_PENDING, 0);
		ref_at(ref->first)->word &= ~VFIO_XA_DMA_PENDING;
	}
	p->used = false;
}

/* enter(): a few pages, without reserving them first */
static bool map_small(const struct ref *ref, unsigned long word)
{
	unsigned int i, npages = ref->last - ref->first + 1;
	struct page *pages[VFIO_DMA_PIN_INLINE];
	int ret, is_open;

	is_open = vfio_xa_dma_reserve(&f.record.xa, ref->first, ref->last, word,
				      VFIO_DMA_GFP);
	model_check((is_open == -EEXIST) == ref_overlaps(ref->first, ref->last));
	if (is_open < 0)
		return false;
	for (i = 0; i < npages; i++) {
		pages[i] = pfn_to_page(vpage_pfn(ref->vpage + i));
		model_pin(page_to_pfn(pages[i]), 1);
	}
	ret = vfio_dma_space_map_pages(&f.space, (dma_addr_t)ref->first << PAGE_SHIFT, pages,
				       npages, vfio_dma_cut_iommu_prot(word));
	if (ret)
		vfio_xa_dma_erase(&f.record.xa, ref->first, ref->last);
	if (is_open)
		vfio_xa_dma_commit(&f.record.xa, ref->first, ref->last);
	return !ret;
}

static unsigned long get_pages(void)
{
	unsigned long mid = BIT(f.mid), coarse = BIT(f.coarse);
	const unsigned long fine[] = { 0, 0, 0, 1, 2, mid / 2, mid - 1, coarse / 2 };
	u8 a = next_byte(), b = next_byte();

	return (a & 3) * coarse + (a >> 2 & 7) * mid + fine[b & 7] + (a >> 5) * (b >> 6);
}

/* vfio_dma_do_map() */
static void map(struct ref ref, bool may_be_big, unsigned int extents)
{
	unsigned long npages = ref.last - ref.first + 1, word;

	ref.id = ++f.last_id;
	if (may_be_big && covers_superpage(&ref))
		ref.word |= VFIO_XA_DMA_BIG;
	word = vfio_xa_dma_word(ref.first, ref.vpage << PAGE_SHIFT, ref.word);

	if (npages <= VFIO_DMA_PIN_INLINE && has_domain() &&
	    ref.vpage >> AREA_SHIFT != AREA_DEVICE && !(word & VFIO_XA_DMA_BIG)) {
		if (map_small(&ref, word))
			ref_insert(ref);
		return;
	}
	if (f.pending.used || reserve(&ref, word))
		return;
	if (!has_domain()) {
		ref_insert(ref);
		return;
	}
	ref.word |= VFIO_XA_DMA_PENDING;
	f.pending = (struct pending) { .used = true, .ref = ref, .word = word };
	ref_insert(ref);
	finish(false, extents);
}

static void do_map(u8 how)
{
	unsigned long max = 8UL << f.coarse, npages, word = VFIO_XA_DMA_READ;
	const u8 orders[] = { 0, 1, f.mid - 1, f.mid, f.mid + 1, f.coarse - 1, f.coarse };
	const unsigned long deltas[] = { 0, 0, 0, BIT(f.coarse), BIT(f.mid), 1, 2, 3 };
	struct ref ref = { .granule = VFIO_DMA_EXTENT_MAX };
	unsigned long area, delta;
	u8 a, b;

	if (f.nr_refs >= MAX_REFS / 2)
		return;
	ref.first = get_pages();
	npages = get_pages() ?: 1;
	a = next_byte();
	b = next_byte();
	area = a & 3;
	if (a & 4)
		area = AREA_LINEAR;
	if (a & 8)
		word |= VFIO_XA_DMA_WRITE;
	if (b & 7)
		ref.granule = BIT(orders[(b & 7) - 1]);
	/* Often the memory is as far from the IOVA as that of neighbours is. */
	delta = deltas[b >> 3 & 7];
	if (area == AREA_SINGLE)
		npages = min(npages, 64UL);
	if (area == AREA_SWAPPED)
		npages = min(npages, BIT(f.mid) * 64);
	while (npages / ref.granule > MAX_SLICES)
		ref.granule *= 2;
	if (ref.first + npages > max)
		npages = max - ref.first;

	ref.vpage = area << AREA_SHIFT | (ref.first + delta);
	ref.first += f.base;
	ref.last = ref.first + npages - 1;
	ref.word = word;
	map(ref, !(a & 16), how & 1 && b >> 6 ? b >> 6 : UINT_MAX);
}

/* Fill a hole as it was. */
static void do_remap(void)
{
	struct ref ref = f.taken;

	if (!ref.word || f.nr_refs >= MAX_REFS / 2)
		return;
	ref.word &= VFIO_XA_DMA_READ | VFIO_XA_DMA_WRITE;
	map(ref, true, UINT_MAX);
}

/* unmap_stretch() */
static int unmap_run(struct vfio_xa_dma_run *run)
{
	unsigned long first = run->first, last = run->last;
	int ret = 0;

	if (has_domain() && run->word & VFIO_XA_DMA_BIG)
		ret = vfio_dma_cut_ends(&f.record, &f.space, &first, &last);
	vfio_xa_dma_cut(&f.record.xa, first, last, GFP_KERNEL | __GFP_NOFAIL);
	if (has_domain() && !ret)
		vfio_dma_space_unmap(&f.space, (dma_addr_t)first << PAGE_SHIFT,
				     last - first + 1, vfio_dma_cut_unmap_flags(run->word));
	if (ret) {
		vfio_dma_cut_unmap(&f.record, &f.space, first, last);
		vfio_dma_space_flush(&f.space);
		vfio_dma_space_forget_lost(&f.space);
	}
	vfio_xa_dma_erase(&f.record.xa, first, last);
	run->first = first;
	run->last = last;
	ref_erase(first, last);
	return ret;
}

/* vfio_dma_unmap_range() */
static int unmap_range(unsigned long first, unsigned long last)
{
	struct vfio_xa_dma_run run;
	unsigned long word;
	int ret = 0;

	if (first == last) {
		word = vfio_xa_dma_take(&f.record.xa, first, VFIO_DMA_RECORD_STAYS);
		if (word && !(word & VFIO_DMA_RECORD_STAYS)) {
			if (has_domain())
				vfio_dma_space_unmap(&f.space, (dma_addr_t)first << PAGE_SHIFT,
						     1, vfio_dma_cut_unmap_flags(word));
			ref_erase(first, first);
			return 0;
		}
	}
	while (vfio_dma_cut_next_stretch(&f.record, &f.space, first, last, &run)) {
		if (!(run.word & VFIO_XA_DMA_PENDING))
			ret = unmap_run(&run);
		if (run.last >= last || ret)
			break;
		first = run.last + 1;
	}
	return ret;
}

static void do_unmap(u8 how)
{
	unsigned long first, last, want, calls[2], unmapped[2], pos;
	bool hitless;
	unsigned int i, j;
	int ret;

	if (how & 1 && f.nr_refs) {
		const struct ref *ref = &f.refs[next_byte() % f.nr_refs];

		first = ref->first;
		last = ref->last;
	} else {
		first = f.base + get_pages();
		last = first + (get_pages() ?: 1) - 1;
		last = min(last, VFIO_XA_DMA_LAST_INDEX);
		if (how & 2 && f.nr_refs) {
			u8 a = next_byte();
			const struct ref *ref = &f.refs[a % f.nr_refs];

			first = ref->first + (a & 64 ? 1 : 0);
			last = max(first, a & 128 ? ref->last : last);
		}
	}

	hitless = !f.armed && is_border(first) && is_border(last + 1);
	want = ref_count(first, last);
	for (i = 0; i < 2; i++) {
		calls[i] = f.domains[i].table.nr_map;
		unmapped[i] = f.domains[i].table.nr_unmapped;
	}
	ret = unmap_range(first, last);
	vfio_dma_space_flush(&f.space);
	model_check(!ret || f.armed);
	if (model_short)
		return;

	for (i = 0; i < 2; i++) {
		const struct table *table = &f.domains[i].table;

		if (!f.domains[i].used)
			continue;
		model_check(!hitless || table->nr_map == calls[i],
			    "a border that was promised is cut");
		model_check(!hitless || table->nr_unmapped == unmapped[i] + want,
			    "%lu pages instead of %lu", table->nr_unmapped - unmapped[i],
			    want);
		/* What was divided has lost its dirty bit. */
		for (j = 0; f.domains[i].dma.tracking &&
		     j < min_t(unsigned long, table->nr_map - calls[i], 4); j++) {
			pos = table->back[(table->nr_map - 1 - j) % 4].first;
			if (vfio_xa_dma_load(&f.record.xa, pos) & VFIO_XA_DMA_WRITE)
				model_check(vfio_xa_dma_load(&f.record.xa, pos) &
					    VFIO_XA_DMA_DIRTY, "at %lx", pos);
		}
	}
	if (ret)
		return;
	for (i = 0; i < f.nr_refs; i++)
		model_check(f.refs[i].word & VFIO_XA_DMA_PENDING ||
			    f.refs[i].first > last || f.refs[i].last < first);
}

/* vfio_dma_flight_replay() */
static int pin_run(struct vfio_dma_space *space, const struct vfio_xa_dma_run *run)
{
	struct ref ref = {
		.first = run->first, .last = run->last,
		.vpage = vfio_xa_dma_vaddr(run->word, run->first) >> PAGE_SHIFT,
	};
	unsigned long clear = VFIO_DMA_CUT_MEMORY_FLAGS, mapped = 0;
	unsigned long word = run->word & ~clear;
	int ret;

	vfio_xa_dma_cut(&f.record.xa, run->first, run->last, GFP_KERNEL | __GFP_NOFAIL);
	vfio_xa_dma_change(&f.record.xa, run->first, run->last, clear, 0);
	if (word & VFIO_XA_DMA_BIG && !(word & VFIO_XA_DMA_START) && run->first &&
	    vfio_xa_dma_load(&f.record.xa, run->first - 1)) {
		ret = vfio_dma_cut_set_start(&f.record, run->first);
		if (ret)
			return ret;
	}
	ret = map_extents(space, &ref, &mapped, word, VFIO_DMA_EXTENT_MAX, UINT_MAX);
	if (!ret && cut_signal())
		ret = -EINTR;
	if (ret)
		unmap_map(space, run->first, mapped);
	return ret;
}

/* vfio_dma_unplace_upto() */
static void unpin_upto(struct vfio_dma_space *space, unsigned long last)
{
	struct vfio_xa_dma_run run;
	unsigned long first = 0;

	while (vfio_dma_cut_next_stretch(&f.record, &f.space, first, last, &run)) {
		if (!(run.word & VFIO_XA_DMA_PENDING))
			vfio_dma_cut_unmap(&f.record, space, run.first, run.last);
		if (run.last == last)
			break;
		first = run.last + 1;
	}
	vfio_dma_space_flush(space);
}

/* first_domain() */
static int first_domain(struct vfio_dma_domain *domain)
{
	struct vfio_dma_space space;
	struct vfio_xa_dma_run run;
	unsigned long first = 0;
	int ret;

	ret = vfio_dma_space_init(&space, &f.lock, &f.owner);
	if (ret)
		return ret;
	vfio_dma_space_add(&space, domain);
	while (vfio_dma_cut_next(&f.record, &f.space, first, VFIO_XA_DMA_LAST_INDEX,
				 VFIO_DMA_CUT_CALL_FLAGS, &run)) {
		if (!(run.word & VFIO_XA_DMA_PENDING))
			ret = pin_run(&space, &run);
		if (ret && run.first)
			unpin_upto(&space, run.first - 1);
		if (ret || run.last == VFIO_XA_DMA_LAST_INDEX)
			break;
		first = run.last + 1;
	}
	vfio_dma_space_del(&space, domain);
	vfio_dma_space_destroy(&space);
	return ret;
}

/* vfio_dma_clear_domain() */
static void clear_domain(struct vfio_dma_domain *domain)
{
	const struct pending *p = &f.pending;

	vfio_dma_cut_clear(&f.record, &f.space, domain, 0, VFIO_XA_DMA_LAST_INDEX, false);
	if (p->used && p->mapped)
		vfio_dma_cut_clear(&f.record, &f.space, domain, p->ref.first,
				   p->ref.first + p->mapped - 1, true);
}

/* vfio_dma_replay() */
static int replay(struct vfio_dma_domain *domain)
{
	const struct pending *p = &f.pending;
	int ret;

	if (!has_domain())
		return first_domain(domain);
	ret = vfio_dma_cut_replay(&f.record, &f.space, domain, 0, VFIO_XA_DMA_LAST_INDEX,
				  false);
	if (!ret && p->used && p->mapped)
		ret = vfio_dma_cut_replay(&f.record, &f.space, domain, p->ref.first,
					  p->ref.first + p->mapped - 1, true);
	if (ret)
		clear_domain(domain);
	return ret;
}

/* A domain that is to be freed has nothing left. */
static void free_domain(unsigned int i)
{
	struct table *table = &f.domains[i].table;

	model_check(model_short || (!table->nr && !table->nr_stale),
		    "%u pieces left", table->nr);
	model_check(model_short || list_empty(&f.domains[i].dma.lost));
	model_del_table(table);
	f.domains[i].used = false;
}

static void do_attach(unsigned int i)
{
	struct vfio_dma_domain *domain = &f.domains[i].dma;
	struct table *table = &f.domains[i].table;
	unsigned int fail_map = table->fail_map, fail_unmap = table->fail_unmap;
	int ret;

	table->domain.pgsize_bitmap = f.domains[i].kind->pgsizes;
	table->unit_is_call = f.domains[i].kind->unit_is_call;
	table->fail_map = fail_map;
	table->fail_unmap = fail_unmap;
	vfio_dma_domain_init(domain, &table->domain);
	/* What vfio_dma_domain_probe() would find out */
	domain->unit_is_call = table->unit_is_call;
	model_add_table(table);
	f.domains[i].used = true;

	ret = replay(domain);
	model_check(!ret || f.armed);
	if (ret)
		free_domain(i);
	else
		vfio_dma_space_add(&f.space, domain);
}

/* vfio_dma_detach_group() */
static void do_detach(unsigned int i)
{
	struct vfio_dma_domain *domain = &f.domains[i].dma;

	if (list_is_singular(&f.space.domains)) {
		if (f.pending.used)
			unmap_map(&f.space, f.pending.ref.first, f.pending.mapped);
		f.pending.mapped = 0;
		unpin_upto(&f.space, VFIO_XA_DMA_LAST_INDEX);
	} else {
		clear_domain(domain);
	}
	vfio_dma_space_del(&f.space, domain);
	free_domain(i);
}

static void do_arm(u8 how)
{
	u8 a = next_byte(), nth = 1 + (a >> 4);
	struct table *table = &f.domains[a & 1].table;

	switch (a >> 1 & 7) {
	case 0:
		table->fail_unmap = nth;
		break;
	case 1:
		table->fail_map = nth;
		table->fail_unmap = how & 1;
		break;
	case 2:
		table->fail_map = nth;
		table->stuck = how & 1;
		break;
	case 3:
		model_signal = nth;
		break;
	case 4:
		shim_slab.fail_nth = nth;
		shim_slab.nowait_fails = nth;
		break;
	default:
		table->fail_map = nth;
	}
	f.armed = true;
}

static void disarm(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(f.domains); i++) {
		f.domains[i].table.fail_map = 0;
		f.domains[i].table.fail_unmap = 0;
		f.domains[i].table.stuck = false;
	}
	model_signal = 0;
	shim_slab.fail_nth = 0;
	shim_slab.nowait_fails = false;
	f.armed = false;
}

/* Flags that have nothing to do with leaves, in words in the middle of them */
static void do_flags(u8 how)
{
	unsigned long first = f.base + get_pages(), last;
	unsigned long flag = how & 1 ? VFIO_XA_DMA_DIRTY : VFIO_XA_DMA_VADDR_INVALID;
	struct vfio_xa_dma_run run;
	u8 a = next_byte();

	last = min(first + a, VFIO_XA_DMA_LAST_INDEX);
	if (!vfio_xa_dma_next(&f.record.xa, first, last, &run))
		return;
	vfio_xa_dma_cut(&f.record.xa, first, last, GFP_KERNEL | __GFP_NOFAIL);
	vfio_xa_dma_change(&f.record.xa, first, last, a & 1 ? flag : 0, a & 1 ? 0 : flag);
}

static void step(u8 op)
{
	u8 how = op >> 4;
	unsigned int i = how & 1;

	switch (op & 15) {
	case 0 ... 3:
		do_map(how);
		break;
	case 4:
		do_remap();
		break;
	case 5 ... 9:
		do_unmap(how);
		break;
	case 10 ... 11:
		if (f.domains[i].used)
			do_detach(i);
		else
			do_attach(i);
		break;
	case 12 ... 13:
		do_arm(how);
		return;
	case 14:
		do_flags(how);
		break;
	default:
		if (f.pending.used)
			finish(how & 1, how >> 2 ?: UINT_MAX);
		else if (f.domains[i].used)
			f.domains[i].dma.tracking = !f.domains[i].dma.tracking;
	}
	check();
	disarm();
}

static void fini(void)
{
	unsigned int i;

	disarm();
	if (!model_short) {
		model_check(!vfio_xa_dma_validate(&f.record.xa));
		if (f.pending.used)
			finish(true, 0);
		unmap_range(0, VFIO_XA_DMA_LAST_INDEX);
		vfio_dma_space_flush(&f.space);
		check();
		model_check(vfio_xa_dma_empty(&f.record.xa));
	}
	vfio_dma_space_forget_lost(&f.space);
	for (i = 0; i < ARRAY_SIZE(f.domains); i++) {
		if (!f.domains[i].used)
			continue;
		vfio_dma_space_del(&f.space, &f.domains[i].dma);
		free_domain(i);
	}
	vfio_xa_dma_destroy(&f.record.xa);
	vfio_dma_space_destroy(&f.space);
	model_check(!shim_slab.nr_objects && !shim_slab.nr_nodes, "memory is left");
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct task_struct task;
	unsigned int i;
	u8 config;

	current = &task;
	model_reset();
	f.data = data;
	f.size = size;
	f.nr_refs = 0;
	f.last_id = 0;
	f.taken.word = 0;
	f.pending.used = false;
	f.armed = false;
	f.lock.locked = true;

	config = next_byte();
	for (i = 0; i < ARRAY_SIZE(f.domains); i++) {
		f.domains[i].used = false;
		f.domains[i].kind = &kinds[config >> 3 * i & 7];
		f.domains[i].table.nr = 0;
		f.domains[i].table.near = 0;
		f.domains[i].table.nr_stale = 0;
	}
	f.mid = f.domains[0].kind->mid;
	f.coarse = f.domains[0].kind->coarse;
	/* The first addresses, the last, or some in between */
	f.base = 0;
	if (config >> 6 & 1)
		f.base = BIT(36);
	if (config >> 6 == 3)
		f.base = VFIO_XA_DMA_LAST_INDEX + 1 - (8UL << f.coarse);

	vfio_xa_dma_init(&f.record.xa);
	if (vfio_dma_space_init(&f.space, &f.lock, &f.owner))
		abort();
	do_attach(0);
	while (f.size && !model_short)
		step(next_byte());
	fini();
	return 0;
}
