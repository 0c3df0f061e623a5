/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit cases of vfio_pt_record: against a plain model, with allocations that fail, on an
 * IO page table that is an xarray; and the memory that it takes.  Included by
 * vfio_type1v3_kunit.c, behind the rig.
 */
#ifndef __VFIO_PT_RECORD_TEST_H
#define __VFIO_PT_RECORD_TEST_H

/*
 * Two parts of the model are so far apart that their regions have the same places when
 * they are open.
 */
#define PT_PART		(4 * VFIO_PT_REGION_PAGES)
#define PT_PAGES	(2 * PT_PART)
#define PT_BASE		0x40000UL
#define PT_FAR		(VFIO_PT_OPEN * VFIO_PT_REGION_PAGES)
#define PT_FLIGHTS	4

/**
 * struct pt_test - a record and its model
 * @domain: answers what is in @table
 * @table: the IO page table: pages by IOVA page
 * @space: has the domain
 * @dma: the domain, as the space has it
 * @owner: nobody
 * @lock: held all the time
 * @pt: the record
 * @model: flags of pages
 * @flights: ranges that are reserved, as pages of the model; @last is 0 if there is none
 * @rnd: random numbers
 * @fail: one allocation in so many fails, if not 0
 */
struct pt_test {
	struct iommu_domain domain;
	struct xarray table;
	struct vfio_dma_space space;
	struct vfio_dma_domain dma;
	struct vfio_dma_owner owner;
	struct mutex lock; /* held all the time */
	struct vfio_pt_record *pt;
	u16 model[PT_PAGES];
	struct { unsigned long first, last; } flights[PT_FLIGHTS];
	struct rnd_state rnd;
	unsigned int fail;
};

static unsigned long pt_pfn(unsigned long index)
{
	return index * 3 + 1;
}

static phys_addr_t pt_iova_to_phys(struct iommu_domain *domain, dma_addr_t iova)
{
	struct pt_test *t = container_of(domain, struct pt_test, domain);
	unsigned long index = iova >> PAGE_SHIFT;

	if (!xa_load(&t->table, index))
		return 0;
	return PFN_PHYS(pt_pfn(index)) | offset_in_page(iova);
}

static const struct iommu_domain_ops pt_ops = { .iova_to_phys = pt_iova_to_phys };

/* The IOVA page of a page of the model */
static unsigned long pt_index(unsigned long i)
{
	return PT_BASE + i + (i < PT_PART ? 0 : PT_FAR - PT_PART);
}

static void pt_place(struct kunit *test, unsigned long first, unsigned long last)
{
	struct pt_test *t = test->priv;
	unsigned long i;

	for (i = first; i <= last; i++)
		KUNIT_ASSERT_FALSE(test, xa_is_err(xa_store(&t->table, i, xa_mk_value(1),
							    GFP_KERNEL)));
}

static void pt_unplace(struct pt_test *t, unsigned long first, unsigned long last)
{
	for (; first <= last; first++)
		xa_erase(&t->table, first);
}

static int pt_test_init(struct kunit *test)
{
	struct pt_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, t);
	mutex_init(&t->lock);
	mutex_lock(&t->lock);
	xa_init(&t->table);
	t->domain.type = IOMMU_DOMAIN_UNMANAGED;
	t->domain.ops = &pt_ops;
	t->domain.pgsize_bitmap = PAGE_SIZE;
	KUNIT_ASSERT_EQ(test, vfio_dma_space_init(&t->space, &t->lock, &t->owner), 0);
	vfio_dma_domain_init(&t->dma, &t->domain);
	vfio_dma_space_add(&t->space, &t->dma);
	t->pt = vfio_pt_record_alloc(&t->space);
	KUNIT_ASSERT_NOT_NULL(test, t->pt);
	test->priv = t;
	return 0;
}

static void pt_test_exit(struct kunit *test)
{
	struct pt_test *t = test->priv;

	if (!t)
		return;
	vfio_pt_record_free(t->pt);
	xa_destroy(&t->table);
	vfio_dma_space_del(&t->space, &t->dma);
	vfio_dma_space_destroy(&t->space);
	mutex_unlock(&t->lock);
	mutex_destroy(&t->lock);
}

static unsigned long pt_rnd(struct pt_test *t, unsigned long below)
{
	return prandom_u32_state(&t->rnd) % below;
}

static bool pt_may_alloc(gfp_t gfp)
{
	struct pt_test *t = kunit_get_current_test()->priv;

	/* What must not fail is tried twice, and gets its memory then. */
	if (gfp & __GFP_NOFAIL)
		return true;
	return !t->fail || pt_rnd(t, t->fail);
}

/* What the model has, and walk and look-up find */
static void pt_check(struct kunit *test)
{
	struct pt_test *t = test->priv;
	struct vfio_xa_dma_run run;
	unsigned long i, first = 0, bad = 0, n = 0;
	u16 *found;

	found = kvcalloc(PT_PAGES, sizeof(*found), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, found);
	while (vfio_pt_record_next(t->pt, first, VFIO_XA_DMA_LAST_INDEX, &run)) {
		for (i = 0; i < PT_PAGES; i++)
			if (pt_index(i) >= run.first && pt_index(i) <= run.last)
				found[i] = run.word;
		first = run.last + 1;
	}
	for (i = 0; i < PT_PAGES; i++) {
		n += t->model[i] != 0;
		bad += found[i] != t->model[i];
		if (!pt_rnd(t, 8))
			bad += vfio_pt_record_load(t->pt, pt_index(i)) != t->model[i];
	}
	KUNIT_EXPECT_EQ(test, bad, 0);
	KUNIT_EXPECT_EQ(test, t->pt->npages, n);
	KUNIT_EXPECT_EQ(test, vfio_pt_record_validate(t->pt), 0);
	kvfree(found);
}

/* A range of one part, which both begin and end where regions do now and then */
static void pt_range(struct pt_test *t, unsigned long *first, unsigned long *last)
{
	static const unsigned int sizes[] = { 1, 1, 3, 16, 100, 512, 513, 1024, 2048 };
	unsigned long n = sizes[pt_rnd(t, ARRAY_SIZE(sizes))], part = pt_rnd(t, 2) * PT_PART;
	unsigned long at = pt_rnd(t, PT_PART);

	if (pt_rnd(t, 2))
		at = round_down(at, VFIO_PT_REGION_PAGES);
	*first = part + at;
	*last = part + min(at + n, PT_PART) - 1;
}

static bool pt_is_free(struct pt_test *t, unsigned long first, unsigned long last)
{
	for (; first <= last; first++)
		if (t->model[first])
			return false;
	return true;
}

static void pt_set(struct pt_test *t, unsigned long first, unsigned long last, u16 clear,
		   u16 set)
{
	for (; first <= last; first++)
		if (t->model[first])
			t->model[first] = (t->model[first] & ~clear) | set;
}

static u16 pt_flags(struct pt_test *t)
{
	return (pt_rnd(t, 5) ? VFIO_XA_DMA_READ | VFIO_XA_DMA_WRITE : VFIO_XA_DMA_READ) |
	       (pt_rnd(t, 9) ? 0 : VFIO_XA_DMA_PFNMAP);
}

static void pt_reserve(struct kunit *test, unsigned int f)
{
	struct pt_test *t = test->priv;
	u16 flags = pt_flags(t) | (pt_rnd(t, 2) ? VFIO_XA_DMA_BIG : 0);
	unsigned long first, last, mid, i;
	bool is_free;
	int ret;

	pt_range(t, &first, &last);
	is_free = pt_is_free(t, first, last);
	ret = vfio_pt_record_reserve(t->pt, pt_index(first), pt_index(last),
				     vfio_xa_dma_word(first, SZ_1G, flags));
	if (ret) {
		if (!t->fail || !is_free)
			KUNIT_EXPECT_EQ(test, ret, is_free ? 0 : -EEXIST);
		return;
	}
	KUNIT_EXPECT_TRUE(test, is_free);
	for (i = first; i <= last; i++)
		t->model[i] = flags | VFIO_XA_DMA_PENDING;
	t->flights[f].first = first;
	t->flights[f].last = last;

	/* Its beginning, and what the memory of a part of it is like */
	if (!vfio_pt_record_try_change(t->pt, pt_index(first), pt_index(first), 0,
				       VFIO_XA_DMA_START))
		t->model[first] |= VFIO_XA_DMA_START;
	i = first + pt_rnd(t, last - first + 1);
	mid = i + pt_rnd(t, last - i + 1);
	ret = vfio_pt_record_try_change(t->pt, pt_index(i), pt_index(mid), 0,
					VFIO_XA_DMA_CONTIG);
	if (!ret) {
		pt_set(t, i, mid, 0, VFIO_XA_DMA_CONTIG);
	} else {
		/* Some of it perhaps: nobody uses what could not be noted. */
		for (; i <= mid; i++)
			if (vfio_pt_record_load(t->pt, pt_index(i)) & VFIO_XA_DMA_CONTIG)
				t->model[i] |= VFIO_XA_DMA_CONTIG;
	}
	/* Some are placed: that must not be seen. */
	pt_place(test, pt_index(first), pt_index(first + (last - first) / 2));
}

static void pt_land(struct kunit *test, unsigned int f, bool commit)
{
	struct pt_test *t = test->priv;
	unsigned long first = t->flights[f].first, last = t->flights[f].last, i;

	if (commit) {
		pt_place(test, pt_index(first), pt_index(last));
		vfio_pt_record_commit(t->pt, pt_index(first), pt_index(last));
		pt_set(t, first, last, VFIO_XA_DMA_PENDING, 0);
	} else {
		pt_unplace(t, pt_index(first), pt_index(last));
		vfio_pt_record_cancel(t->pt, pt_index(first), pt_index(last));
		for (i = first; i <= last; i++)
			t->model[i] = 0;
	}
	t->flights[f].last = 0;
}

static void pt_enter(struct kunit *test)
{
	struct pt_test *t = test->priv;
	unsigned long first, last, i;
	u16 flags = pt_flags(t);
	bool is_free;
	int ret;

	pt_range(t, &first, &last);
	is_free = pt_is_free(t, first, last);
	ret = vfio_pt_record_enter(t->pt, pt_index(first), pt_index(last), flags);
	if (ret < 0) {
		if (!t->fail || !is_free)
			KUNIT_EXPECT_EQ(test, ret, is_free ? 0 : -EEXIST);
		return;
	}
	KUNIT_EXPECT_TRUE(test, is_free);
	if (!pt_rnd(t, 4)) {
		vfio_pt_record_enter_cancel(t->pt, pt_index(first), pt_index(last));
		return;
	}
	pt_place(test, pt_index(first), pt_index(last));
	if (ret)
		vfio_pt_record_enter_end(t->pt, pt_index(first), pt_index(last));
	for (i = first; i <= last; i++)
		t->model[i] = flags;
}

static void pt_take(struct kunit *test)
{
	struct pt_test *t = test->priv;
	unsigned long unless = VFIO_XA_DMA_PENDING;
	unsigned long first, last, pfn, word;

	if (pt_rnd(t, 2))
		unless |= VFIO_XA_DMA_BIG;
	pt_range(t, &first, &last);
	word = vfio_pt_record_take(t->pt, pt_index(first), unless, &pfn);
	if (!word) {
		/* An odd page can take memory to be cut out, which is not for take(). */
		if (!t->fail && !vfio_xa_dma_load(&t->pt->odd, pt_index(first)))
			KUNIT_EXPECT_TRUE(test, !t->model[first] ||
					  t->model[first] & unless);
		return;
	}
	KUNIT_EXPECT_EQ(test, word, t->model[first]);
	if (word & unless)
		return;
	if (pfn != VFIO_DMA_NO_PFN)
		KUNIT_EXPECT_EQ(test, pfn, pt_pfn(pt_index(first)));
	pt_unplace(t, pt_index(first), pt_index(first));
	t->model[first] = 0;
}

/* What is mapped of a range goes, hole by hole. */
static void pt_erase(struct kunit *test)
{
	struct pt_test *t = test->priv;
	unsigned long first, last, end;

	pt_range(t, &first, &last);
	for (; first <= last; first = end + 1) {
		end = first;
		if (!t->model[first] || t->model[first] & VFIO_XA_DMA_PENDING)
			continue;
		while (end < last && t->model[end + 1] &&
		       !(t->model[end + 1] & VFIO_XA_DMA_PENDING))
			end++;
		vfio_pt_record_prepare_nofail(t->pt, pt_index(first), pt_index(end));
		pt_unplace(t, pt_index(first), pt_index(end));
		vfio_pt_record_erase(t->pt, pt_index(first), pt_index(end));
		memset(t->model + first, 0, (end - first + 1) * sizeof(*t->model));
	}
}

static void pt_change(struct kunit *test)
{
	struct pt_test *t = test->priv;
	bool set = pt_rnd(t, 2);
	unsigned long first, last;

	if (!pt_rnd(t, 4)) {
		vfio_pt_record_change_nofail(t->pt, 0, VFIO_XA_DMA_LAST_INDEX,
					     set ? 0 : VFIO_XA_DMA_DIRTY,
					     set ? VFIO_XA_DMA_DIRTY : 0);
		pt_set(t, 0, PT_PAGES - 1, set ? 0 : VFIO_XA_DMA_DIRTY,
		       set ? VFIO_XA_DMA_DIRTY : 0);
		return;
	}
	pt_range(t, &first, &last);
	vfio_pt_record_change_nofail(t->pt, pt_index(first), pt_index(last),
				     set ? 0 : VFIO_XA_DMA_DIRTY,
				     set ? VFIO_XA_DMA_DIRTY : 0);
	pt_set(t, first, last, set ? 0 : VFIO_XA_DMA_DIRTY, set ? VFIO_XA_DMA_DIRTY : 0);
}

/* Everything at random; in every other round one allocation in three fails. */
static void pt_model(struct kunit *test)
{
	struct pt_test *t = test->priv;
	unsigned int round, i, f;

	prandom_seed_state(&t->rnd, seed ?: get_random_u64());
	kunit_activate_static_stub(test, vfio_xa_dma_may_alloc, pt_may_alloc);
	for (round = 0; round < 12 && !test->status; round++) {
		for (i = 0; i < 60; i++) {
			t->fail = round % 2 ? 3 : 0;
			f = pt_rnd(t, PT_FLIGHTS);
			switch (pt_rnd(t, 8)) {
			case 0 ... 1:
				if (t->flights[f].last)
					pt_land(test, f, pt_rnd(t, 3));
				else
					pt_reserve(test, f);
				break;
			case 2 ... 3:
				pt_enter(test);
				break;
			case 4:
				pt_take(test);
				break;
			case 5:
				pt_erase(test);
				break;
			default:
				pt_change(test);
			}
			t->fail = 0;
			if (i % 4 == 3)
				pt_check(test);
			if (test->status)
				kunit_info(test, "round %u step %u\n", round, i);
			if (test->status)
				return;
		}
	}
	kunit_deactivate_static_stub(test, vfio_xa_dma_may_alloc);
}

/* Map a page, or try to, and perhaps take it back. */
static void pt_enter_page(struct kunit *test, unsigned long i, u16 flags)
{
	struct pt_test *t = test->priv;
	bool is_free = !t->model[i];
	int ret;

	ret = vfio_pt_record_enter(t->pt, pt_index(i), pt_index(i), flags);
	if (ret < 0) {
		if (!t->fail || !is_free)
			KUNIT_EXPECT_EQ(test, ret, is_free ? 0 : -EEXIST);
		return;
	}
	KUNIT_EXPECT_TRUE(test, is_free);
	if (!pt_rnd(t, 4)) {
		t->fail = 1;
		vfio_pt_record_enter_cancel(t->pt, pt_index(i), pt_index(i));
		return;
	}
	pt_place(test, pt_index(i), pt_index(i));
	if (ret)
		vfio_pt_record_enter_end(t->pt, pt_index(i), pt_index(i));
	t->model[i] = flags;
}

static void pt_take_page(struct kunit *test, unsigned long i)
{
	struct pt_test *t = test->priv;
	unsigned long word, pfn;

	word = vfio_pt_record_take(t->pt, pt_index(i), VFIO_XA_DMA_PENDING, &pfn);
	if (pfn != VFIO_DMA_NO_PFN)
		KUNIT_EXPECT_EQ(test, pfn, pt_pfn(pt_index(i)));
	if (word || !t->model[i])
		KUNIT_EXPECT_EQ(test, word, t->model[i]);
	if (!word && t->model[i])
		vfio_pt_record_prepare_nofail(t->pt, pt_index(i), pt_index(i));
	pt_unplace(t, pt_index(i), pt_index(i));
	if (!word && t->model[i])
		vfio_pt_record_erase(t->pt, pt_index(i), pt_index(i));
	t->model[i] = 0;
}

/*
 * Pages that come and go one by one, until regions are full and empty, in regions that
 * have the same places when they are open; with one allocation in three failing, and in
 * some rounds with odd pages.
 */
static void pt_pages(struct kunit *test)
{
	struct pt_test *t = test->priv;
	unsigned long i, step, span;
	unsigned int round;
	bool fill;

	prandom_seed_state(&t->rnd, seed ?: get_random_u64());
	kunit_activate_static_stub(test, vfio_xa_dma_may_alloc, pt_may_alloc);
	for (round = 0; round < 24 && !test->status; round++) {
		fill = round % 2 == 0;
		span = round % 3 ? VFIO_PT_REGION_PAGES : 40;
		for (step = 0; step < 8 * span && !test->status; step++) {
			i = pt_rnd(t, 2) * PT_PART + pt_rnd(t, 2) * VFIO_PT_REGION_PAGES +
			    pt_rnd(t, span);
			t->fail = round % 4 > 1 ? 3 : 0;
			if (pt_rnd(t, 8) ? fill : !fill)
				pt_enter_page(test, i, round % 8 < 6 || pt_rnd(t, 9) ?
						       RW : IOMMU_READ);
			else
				pt_take_page(test, i);
			t->fail = 0;
			if (!pt_rnd(t, 4))
				KUNIT_EXPECT_EQ(test, t->model[i],
						vfio_pt_record_load(t->pt, pt_index(i)));
		}
		for (i = 0; i < PT_PAGES; i++)
			if (round % 6 == 5)
				pt_take_page(test, i);
		pt_check(test);
	}
	kunit_deactivate_static_stub(test, vfio_xa_dma_may_alloc);
}

/* The ends of a range have the same place for an open region, and one memory for both. */
static void pt_far_ends(struct kunit *test)
{
	struct pt_test *t = test->priv;
	unsigned long first = PT_BASE + 100, last = PT_BASE + PT_FAR + 200, odd;

	prandom_seed_state(&t->rnd, 1);
	KUNIT_ASSERT_EQ(test, vfio_pt_record_reserve(t->pt, first, last, RW), 0);
	pt_place(test, first, last);
	vfio_pt_record_commit(t->pt, first, last);
	KUNIT_EXPECT_EQ(test, vfio_pt_record_validate(t->pt), 0);
	for (odd = 0; odd < 2; odd++) {
		unsigned long a = first + 10 * (1 + odd), z = last - 10 * (1 + odd);

		kunit_activate_static_stub(test, vfio_xa_dma_may_alloc, pt_may_alloc);
		if (odd)
			vfio_pt_record_change_nofail(t->pt, a, z, 0, VFIO_XA_DMA_DIRTY);
		t->fail = 1;
		vfio_pt_record_prepare_nofail(t->pt, a, z);
		pt_unplace(t, a, z);
		vfio_pt_record_erase(t->pt, a, z);
		t->fail = 0;
		kunit_deactivate_static_stub(test, vfio_xa_dma_may_alloc);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_validate(t->pt), 0);
		KUNIT_EXPECT_EQ(test, t->pt->npages, 20 * (1 + odd));
		KUNIT_ASSERT_EQ(test, vfio_pt_record_reserve(t->pt, a, z, RW), 0);
		pt_place(test, a, z);
		vfio_pt_record_commit(t->pt, a, z);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_validate(t->pt), 0);
	}
}

/*
 * Maps of many regions with equal words.  The store of regions has these in pieces of
 * another size than the store of pages has the pages.
 */
static void pt_large(struct kunit *test)
{
	static const unsigned long offsets[] = { 0, VFIO_PT_REGION_PAGES, 7 };
	const unsigned long npages = 4096 * VFIO_PT_REGION_PAGES;
	struct pt_test *t = test->priv;
	struct vfio_xa_dma_run run;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		unsigned long first = 64 * npages + offsets[i];
		unsigned long whole = round_up(first, VFIO_PT_REGION_PAGES);
		unsigned long last = first + npages - 1;
		unsigned long whole_last = round_down(last + 1, VFIO_PT_REGION_PAGES) - 1;

		KUNIT_ASSERT_EQ(test, vfio_pt_record_reserve(t->pt, first, last, RW), 0);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_load(t->pt, whole), RW | VFIO_XA_DMA_PENDING);
		if (whole > first)
			pt_place(test, first, whole - 1);
		if (whole_last < last)
			pt_place(test, whole_last + 1, last);
		vfio_pt_record_commit(t->pt, first, last);
		KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(&t->pt->odd));
		KUNIT_ASSERT_TRUE(test, vfio_pt_record_next(t->pt, whole, whole_last, &run));
		KUNIT_EXPECT_EQ(test, run.first, whole);
		KUNIT_EXPECT_EQ(test, run.last, whole_last);
		KUNIT_EXPECT_EQ(test, run.word, RW);
		vfio_pt_record_prepare_nofail(t->pt, first, last);
		if (whole > first)
			pt_unplace(t, first, whole - 1);
		if (whole_last < last)
			pt_unplace(t, whole_last + 1, last);
		vfio_pt_record_erase(t->pt, first, last);
		KUNIT_EXPECT_EQ(test, t->pt->npages, 0);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_bytes(t->pt), 0);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_validate(t->pt), 0);
	}
}

/* One allocation fails, that which @fail counts down to. */
static bool pt_may_alloc_but_one(gfp_t gfp)
{
	struct pt_test *t = kunit_get_current_test()->priv;

	if (gfp & __GFP_NOFAIL)
		return true;
	return !t->fail || --t->fail;
}

/* A map that fails, or is taken back, leaves no memory behind that was not there. */
static void pt_leaves_nothing(struct kunit *test)
{
	const unsigned long first = PT_BASE + 100, last = PT_BASE + 3 * VFIO_PT_REGION_PAGES;
	struct pt_test *t = test->priv;
	unsigned int i, nth, failed;
	size_t before;
	int ret;

	/* with an empty record; then beside a page that stays */
	for (i = 0; i < 4; i++) {
		failed = 0;
		if (i == 2) {
			KUNIT_ASSERT_EQ(test, vfio_pt_record_enter(t->pt, 1, 1, RW), 0);
			pt_place(test, 1, 1);
		}
		before = vfio_pt_record_bytes(t->pt);
		for (nth = 1; nth < 100; nth++) {
			kunit_activate_static_stub(test, vfio_xa_dma_may_alloc,
						   pt_may_alloc_but_one);
			t->fail = nth;
			if (i % 2)
				ret = vfio_pt_record_enter(t->pt, first, last, RW);
			else
				ret = vfio_pt_record_reserve(t->pt, first, last, RW);
			failed += ret == -ENOMEM;
			if (ret >= 0 && i % 2)
				vfio_pt_record_enter_cancel(t->pt, first, last);
			else if (ret >= 0)
				vfio_pt_record_cancel(t->pt, first, last);
			ret = t->fail;
			t->fail = 0;
			kunit_deactivate_static_stub(test, vfio_xa_dma_may_alloc);
			if (i < 2)
				KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(&t->pt->regions));
			KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(&t->pt->odd));
			KUNIT_EXPECT_EQ(test, vfio_pt_record_bytes(t->pt), before);
			KUNIT_EXPECT_EQ(test, vfio_pt_record_validate(t->pt), 0);
			if (ret)
				break;
		}
		KUNIT_EXPECT_LT(test, nth, 100);
		/* beside others there may be room */
		if (i < 2)
			KUNIT_EXPECT_GT(test, failed, 0);
	}
}

/* What an IOMMU driver has failed to unmap is not there, until it is mapped again. */
static void pt_ghosts(struct kunit *test)
{
	struct pt_test *t = test->priv;
	unsigned long pfn;

	KUNIT_ASSERT_EQ(test, vfio_pt_record_enter(t->pt, PT_BASE, PT_BASE + 9, RW), 0);
	pt_place(test, PT_BASE, PT_BASE + 9);
	KUNIT_EXPECT_EQ(test, vfio_pt_record_take(t->pt, PT_BASE + 3, VFIO_XA_DMA_PENDING,
						  &pfn), RW);
	vfio_pt_record_leaked(t->pt, PT_BASE + 3, PT_BASE + 3);
	KUNIT_EXPECT_EQ(test, vfio_pt_record_load(t->pt, PT_BASE + 3), 0);
	KUNIT_EXPECT_EQ(test, vfio_pt_record_take(t->pt, PT_BASE + 3, VFIO_XA_DMA_PENDING,
						  &pfn), 0);
	KUNIT_EXPECT_EQ(test, vfio_pt_record_validate(t->pt), 0);
	KUNIT_EXPECT_EQ(test, vfio_pt_record_enter(t->pt, PT_BASE + 3, PT_BASE + 3, RW), 1);
	vfio_pt_record_enter_end(t->pt, PT_BASE + 3, PT_BASE + 3);
	KUNIT_EXPECT_EQ(test, vfio_pt_record_load(t->pt, PT_BASE + 3), RW);
	KUNIT_EXPECT_EQ(test, vfio_pt_record_validate(t->pt), 0);
}

/* A reset leaves what is reserved, in whatever regions, and that can be committed. */
static void pt_reset(struct kunit *test)
{
	const unsigned long first = PT_BASE + 10, last = PT_BASE + PT_PART + 10;
	struct pt_test *t = test->priv;
	struct vfio_xa_dma_run run;
	unsigned int i;

	for (i = 0; i < 2; i++) {
		KUNIT_ASSERT_EQ(test, vfio_pt_record_enter(t->pt, PT_BASE, PT_BASE + 4, RW), 0);
		pt_place(test, PT_BASE, PT_BASE + 4);
		KUNIT_ASSERT_EQ(test, vfio_pt_record_enter(t->pt, PT_BASE + 5, PT_BASE + 9,
							   IOMMU_READ), 1);
		pt_place(test, PT_BASE + 5, PT_BASE + 9);
		vfio_pt_record_enter_end(t->pt, PT_BASE + 5, PT_BASE + 9);
		KUNIT_ASSERT_EQ(test, vfio_pt_record_reserve(t->pt, first, last, RW), 0);
		/* With the first region open, and not */
		if (i) {
			KUNIT_ASSERT_EQ(test, vfio_pt_record_enter(t->pt, PT_BASE + PT_FAR,
								   PT_BASE + PT_FAR, RW), 0);
			pt_place(test, PT_BASE + PT_FAR, PT_BASE + PT_FAR);
		}
		kunit_warning_suppress(test) {
			vfio_pt_record_reset(t->pt);
		}
		KUNIT_EXPECT_EQ(test, t->pt->npages, last - first + 1);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_load(t->pt, PT_BASE), 0);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_load(t->pt, PT_BASE + 5), 0);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_load(t->pt, PT_BASE + PT_FAR), 0);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_validate(t->pt), 0);

		pt_unplace(t, PT_BASE, PT_BASE + 9);
		pt_unplace(t, PT_BASE + PT_FAR, PT_BASE + PT_FAR);
		pt_place(test, first, last);
		vfio_pt_record_commit(t->pt, first, last);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_load(t->pt, first), RW);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_load(t->pt, last), RW);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_validate(t->pt), 0);
		vfio_pt_record_prepare_nofail(t->pt, first, last);
		pt_unplace(t, first, last);
		vfio_pt_record_erase(t->pt, first, last);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_validate(t->pt), 0);
		KUNIT_EXPECT_FALSE(test, vfio_pt_record_next(t->pt, 0, VFIO_XA_DMA_LAST_INDEX,
							     &run));
	}
}

/**
 * struct pt_pattern - pages that are mapped one by one, at random places
 * @name: what it is called
 * @stride: one page in so many
 * @npages: how many, or half of that
 * @half: leave every other page out
 * @read_only: every other page is for reading
 * @milli: the most memory it may take, bytes a page times 1000: a tenth more than it takes
 */
struct pt_pattern {
	const char *name;
	unsigned long stride;
	unsigned long npages;
	bool half;
	bool read_only;
	unsigned long milli;
};

static const struct pt_pattern pt_patterns[] = {
	{ "dense", 1, 1 << 15, false, false, 55 },
	{ "random half", 1, 1 << 15, true, false, 100 },
	{ "one in 16", 16, 1 << 13, false, false, 480 },
	{ "one in 64", 64, 1 << 13, false, false, 1440 },
	{ "one in 512", 512, 1 << 13, false, false, 10500 },
	{ "one in 4096", 4096, 1 << 13, false, false, 20100 },
	/* What is worst, of these */
	{ "every other for reading", 1, 1 << 15, false, true, 10500 },
	{ "one in 64, every other for reading", 64, 1 << 13, false, true, 11900 },
	{ "one in 300, every other for reading", 300, 1 << 13, false, true, 18000 },
	{ "one in 512, every other for reading", 512, 1 << 13, false, true, 10500 },
	{ "one in 2^15", 1 << 15, 1 << 12, false, false, 14600 },
	{ "one in 2^18", 1 << 18, 1 << 12, false, false, 20200 },
	{ "one in 2^24", 1 << 24, 1 << 12, false, false, 22800 },
};

KUNIT_ARRAY_PARAM_DESC(pt_pattern, pt_patterns, name);

static unsigned long pt_hash(unsigned long i)
{
	return (i + 1) * 0x9e3779b97f4a7c15 >> 20;
}

/* In ascending order, and shuffled */
static void pt_memory(struct kunit *test)
{
	const struct pt_pattern *p = test->param_value;
	struct pt_test *t = test->priv;
	unsigned long k, i, index, first, milli;
	struct vfio_xa_dma_run run;
	int shuffled, ret;

	for (shuffled = 0; shuffled < 2; shuffled++) {
		for (k = 0; k < p->npages; k++) {
			i = shuffled ? (k * 0x9e3779b1 + 12345) & (p->npages - 1) : k;
			if (p->half && pt_hash(i) & 1)
				continue;
			index = PT_BASE * 16 + i * p->stride + pt_hash(i) % p->stride;
			ret = vfio_pt_record_enter(t->pt, index, index,
						   p->read_only && i % 2 ? IOMMU_READ : RW);
			KUNIT_ASSERT_GE(test, ret, 0);
			pt_place(test, index, index);
			if (ret)
				vfio_pt_record_enter_end(t->pt, index, index);
			cond_resched();
		}
		milli = vfio_pt_record_bytes(t->pt) * 1000 / t->pt->npages;
		kunit_info(test, "%s: %lu.%03lu bytes a page\n",
			   shuffled ? "shuffled" : "ascending", milli / 1000, milli % 1000);
		/* Shorter regions, which larger pages have, are more words. */
		KUNIT_EXPECT_LE(test, milli, p->milli << (9 - VFIO_PT_REGION_SHIFT));

		for (first = 0; vfio_pt_record_next(t->pt, first, VFIO_XA_DMA_LAST_INDEX, &run);
		     first = run.last + 1) {
			vfio_pt_record_prepare_nofail(t->pt, run.first, run.last);
			pt_unplace(t, run.first, run.last);
			vfio_pt_record_erase(t->pt, run.first, run.last);
			cond_resched();
		}
		KUNIT_EXPECT_EQ(test, t->pt->npages, 0);
		KUNIT_EXPECT_EQ(test, vfio_pt_record_validate(t->pt), 0);
	}
}

static struct kunit_case pt_cases[] = {
	KUNIT_CASE(pt_ghosts),
	KUNIT_CASE(pt_model),
	KUNIT_CASE(pt_pages),
	KUNIT_CASE(pt_far_ends),
	KUNIT_CASE(pt_leaves_nothing),
	KUNIT_CASE(pt_large),
	KUNIT_CASE(pt_reset),
	KUNIT_CASE_PARAM(pt_memory, pt_pattern_gen_params),
	{}
};

static struct kunit_suite pt_suite = {
	.name		= "vfio_pt_record",
	.init		= pt_test_init,
	.exit		= pt_test_exit,
	.test_cases	= pt_cases,
};

#endif /* __VFIO_PT_RECORD_TEST_H */
