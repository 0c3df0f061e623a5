/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit cases of the container: everything, at random.  Included by vfio_type1v3_kunit.c,
 * behind the dirty bits.
 */
#ifndef __VFIO_TYPE1V3_RANDOM_H
#define __VFIO_TYPE1V3_RANDOM_H

static ulong seed = 1;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "where the random tests begin, 0 is somewhere else each time");

/* The more there is to walk, the longer each takes */
static uint steps = IS_ENABLED(CONFIG_KASAN) ? 150 : 500;
module_param(steps, uint, 0444);
MODULE_PARM_DESC(steps, "how many steps a random test does for each kind of IOMMU");

static void rnd_range(struct container_test *t, unsigned long *first,
		      unsigned long *npages)
{
	static const u16 sizes[] = { 1, 1, 2, 7, 16, 64, 256, 512, 1024 };
	unsigned long n = sizes[rnd(t, ARRAY_SIZE(sizes))];

	*first = rnd(t, WINDOW);
	if (rnd(t, 2))
		*first = round_down(*first, n);
	if (!rnd(t, 4))
		n = 1 + rnd(t, 2 * n);
	*npages = min(n, WINDOW - *first);
}

/* Have one of the next calls to one of the domains fail, or none. */
static struct mock_domain *rnd_failure(struct container_test *t)
{
	struct mock_domain *mock = t->groups[rnd(t, 2)].domain;

	if (!mock || rnd(t, 6))
		return NULL;
	mock->fail_map = 1 + rnd(t, 8);
	return mock;
}

static void rnd_map(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned long first, npages, user, i;
	int prot = rnd(t, 4) ? RW : IOMMU_READ, expected = 0;
	u32 order = rnd(t, 12), flags = 0;
	struct mock_domain *mock;
	bool big;

	rnd_range(t, &first, &npages);
	user = rnd(t, 4) ? first : rnd(t, WINDOW);
	user = min(user, WINDOW - npages);
	for (i = 0; i < npages; i++)
		if (t->model[first + i].prot)
			expected = -EEXIST;
	if (!rnd(t, 3))
		flags = VFIO_DMA_MAP_GRANULE(order);
	else
		order = 51;
	big = vfio_dma_covers_superpage(t->container, (BASE + first) << PAGE_SHIFT,
					npages << PAGE_SHIFT, BIT(order));
	mock = expected ? NULL : rnd_failure(t);
	i = container_map_flags(test, first, npages, user, prot, flags);
	/*
	 * A few pages that are in no superpage are tried twice, and the second try is
	 * not to fail.
	 */
	if (mock && !mock->fail_map && (npages > VFIO_DMA_PIN_INLINE || big))
		expected = -ENOMEM;
	if (mock)
		mock->fail_map = 0;
	KUNIT_EXPECT_EQ(test, (int)i, expected);
}

static void rnd_unmap(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_domain *mock = rnd_failure(t);
	unsigned long first, npages;
	int ret, expected = 0;

	rnd_range(t, &first, &npages);
	ret = container_unmap(test, first, npages);
	if (mock && !mock->fail_map)
		expected = -EIO;
	if (mock)
		mock->fail_map = 0;
	KUNIT_EXPECT_EQ(test, ret, expected);
}

static void rnd_groups(struct kunit *test, const struct mock_kind *kind)
{
	struct container_test *t = test->priv;
	unsigned int g = rnd(t, 2);
	struct mock_group *group = &t->groups[g];

	if (group->wanted) {
		container_detach(test, group);
		return;
	}
	mock_fail_next = rnd(t, 3) ? 0 : 1 + rnd(t, 10);
	/* The other one, as in the beginning */
	container_attach(test, group, g ? &mock_kinds[rnd(t, ARRAY_SIZE(mock_kinds))] : kind);
	if (group->domain)
		group->domain->fail_map = 0;
}

/* A device writes; or what is dirty is asked for, or unmapped with its bitmap. */
static void rnd_dirty(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mock_group *group = &t->groups[rnd(t, 2)];
	unsigned long first, npages;

	rnd_range(t, &first, &npages);
	switch (rnd(t, 4)) {
	case 0 ... 1:
		if (group->domain)
			container_write(test, group, first, min(npages, 4UL));
		break;
	case 2:
		if (group->domain && rnd(t, 2)) {
			group->domain->busy = BASE + rnd(t, WINDOW);
			container_write(test, group, group->domain->busy - BASE, 1);
		} else if (group->domain) {
			group->domain->busy = 0;
		}
		break;
	default:
		container_get(test, first, npages, !rnd(t, 4));
	}
}

static void random_steps(struct kunit *test)
{
	const struct mock_kind *kind = test->param_value;
	struct container_test *t = test->priv;
	u64 start = seed ?: get_random_u64();
	unsigned long first, npages;
	unsigned int i, errors;

	kunit_info(test, "seed=%llu\n", start);
	prandom_seed_state(&t->rnd, start);
	container_memory(test, true);
	if (rnd(t, 2) && rig_has_vaddr(t))
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], kind), 0);
	container_track(test);

	for (i = 0; i < steps; i++) {
		errors = mock_errors;
		switch (rnd(t, 16)) {
		case 0 ... 6:
			if (container_has_domain(t) || t->emulated.wanted)
				rnd_map(test);
			break;
		case 7 ... 12:
			rnd_unmap(test);
			break;
		case 13:
			rnd_range(t, &first, &npages);
			if (rig_has_vaddr(t))
				container_dirty(test, first, min(npages, 16UL));
			break;
		case 14:
			rnd_dirty(test);
			break;
		default:
			rnd_groups(test, kind);
		}
		container_check(test);
		KUNIT_ASSERT_EQ_MSG(test, mock_errors, errors, "step %u, seed=%llu",
				    i, start);
		KUNIT_ASSERT_EQ_MSG(test, test->status, KUNIT_SUCCESS,
				    "step %u, seed=%llu", i, start);
		cond_resched();
	}
	container_unmap_all(test);
}

/*
 * Cuts of leaves of every size, at random
 */

#define CUT_WINDOW	(3 * MOCK_PUD_PAGES)

/**
 * struct cut_test - device memory that is mapped in a window of CUT_WINDOW pages
 * @nr: length of @run
 * @npages: pages in all of them
 * @run: IOVA pages in the window, and what they translate to; in no order
 */
struct cut_test {
	unsigned int nr;
	unsigned long npages;
	struct cut_run {
		unsigned long first, last, pfn;
	} run[1024];
};

static void cut_add(struct cut_test *c, unsigned long first, unsigned long last,
		    unsigned long pfn)
{
	c->run[c->nr++] = (struct cut_run) { first, last, pfn };
	c->npages += last - first + 1;
}

static bool cut_overlaps(const struct cut_test *c, unsigned long first,
			 unsigned long last)
{
	unsigned int i;

	for (i = 0; i < c->nr; i++)
		if (c->run[i].first <= last && first <= c->run[i].last)
			return true;
	return false;
}

static void cut_remove(struct cut_test *c, unsigned long first, unsigned long last)
{
	unsigned int i;

	for (i = 0; i < c->nr; i++) {
		struct cut_run run = c->run[i];

		if (run.first > last || first > run.last)
			continue;
		c->npages -= run.last - run.first + 1;
		c->run[i--] = c->run[--c->nr];
		if (run.first < first)
			cut_add(c, run.first, first - 1, run.pfn);
		if (run.last > last)
			cut_add(c, last + 1, run.last, run.pfn + last + 1 - run.first);
	}
}

/* How much to map or to unmap, and where; the more there is the better aligned. */
static void cut_range(struct container_test *t, const struct cut_test *c,
		      unsigned long largest, unsigned long *first,
		      unsigned long *npages)
{
	static const u32 sizes[] = {
		1, 1, 3, 16, 511, MOCK_PMD_PAGES, MOCK_PMD_PAGES,
		17 * MOCK_PMD_PAGES, MOCK_PUD_PAGES / 2, MOCK_PUD_PAGES,
		MOCK_PUD_PAGES,
	};
	unsigned long n = min_t(unsigned long, largest, sizes[rnd(t, ARRAY_SIZE(sizes))]);
	const struct cut_run *run;

	*first = rnd(t, CUT_WINDOW);
	/* At the borders of what is there, or around them */
	if (c->nr && rnd(t, 2)) {
		run = &c->run[rnd(t, c->nr)];
		*first = rnd(t, 2) ? run->first : run->last + 1;
		*first -= min(*first, rnd(t, 3));
	}
	if (n >= MOCK_PMD_PAGES && rnd(t, 4))
		*first = round_down(*first, n & -n);
	*first = min(*first, CUT_WINDOW - 1);
	*npages = min(n, CUT_WINDOW - *first);
}

static void cut_map(struct kunit *test, struct cut_test *c, unsigned long largest)
{
	struct container_test *t = test->priv;
	unsigned long first, npages, shift = 0, granule = VFIO_DMA_EXTENT_MAX;

	cut_range(t, c, largest, &first, &npages);
	if (cut_overlaps(c, first, first + npages - 1) ||
	    c->nr > ARRAY_SIZE(c->run) / 2)
		return;
	/* Memory that is aligned as the IOVA is, or less than that */
	if (rnd(t, 2))
		shift = npages < 4096 ? rnd(t, 2 * MOCK_PMD_PAGES) :
					rnd(t, 4) * MOCK_PMD_PAGES;
	if (!rnd(t, 3))
		granule = BIT(rnd(t, 19));
	map_device(test, first, npages, MOCK_PFN + first + shift, granule);
	cut_add(c, first, first + npages - 1, MOCK_PFN + first + shift);
}

/* Unmap a part.  Where mapping the rest back fails, the superpage goes with it. */
static void cut_unmap(struct kunit *test, struct cut_test *c)
{
	struct container_test *t = test->priv;
	struct vfio_dma_record *record = &t->container->record;
	struct mock_domain *mock = rnd_failure(t);
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof(unmap) };
	unsigned long first, last, npages, pos, before = c->npages;
	struct vfio_xa_dma_run run;
	int ret, expected = 0;

	cut_range(t, c, CUT_WINDOW, &first, &npages);
	unmap.iova = (BASE + first) << PAGE_SHIFT;
	unmap.size = npages << PAGE_SHIFT;
	ret = container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap, sizeof(unmap));
	if (mock && !mock->fail_map)
		expected = -EIO;
	if (mock)
		mock->fail_map = 0;
	KUNIT_EXPECT_EQ(test, ret, expected);

	last = first + npages - 1;
	if (ret) {
		/*
		 * It has ended at the superpage that was lost, of which nothing is
		 * there any more; what is behind it is still there.
		 */
		last = round_up(last + 1, MOCK_PUD_PAGES) - 1;
		pos = round_down(first, MOCK_PUD_PAGES);
		while (pos < first && vfio_dma_record_next(record, BASE + pos,
							   BASE + first - 1, &run))
			pos = run.last + 1 - BASE;
		first = pos;
		if (vfio_dma_record_next(record, BASE + first, BASE + last, &run))
			last = run.first - 1 - BASE;
	}
	cut_remove(c, first, last);
	KUNIT_EXPECT_EQ(test, unmap.size, (before - c->npages) << PAGE_SHIFT);
}

static void cut_check(struct kunit *test, const struct cut_test *c)
{
	struct container_test *t = test->priv;
	unsigned long index, npages;
	struct mock_domain *mock;
	struct mock_leaf *leaf;
	unsigned int g, i;

	KUNIT_EXPECT_EQ(test, rig_validate(&t->container->record), 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_record_npages(&t->container->record), c->npages);
	for (g = 0; g < ARRAY_SIZE(t->groups); g++) {
		mock = t->groups[g].domain;
		if (!mock)
			continue;
		mock_expect_synced(test, mock);
		for (i = 0; i < c->nr; i++)
			if (!mock_translates(mock, BASE + c->run[i].first,
					     BASE + c->run[i].last, c->run[i].pfn, RW))
				break;
		KUNIT_EXPECT_EQ_MSG(test, i, c->nr, "group %u, IOVA pages %lx..%lx", g,
				    BASE + c->run[i].first, BASE + c->run[i].last);
		/* That is all there is. */
		index = 0;
		npages = 0;
		mt_for_each(&mock->leaves, leaf, index, ULONG_MAX)
			npages += leaf->last - leaf->first + 1;
		KUNIT_EXPECT_EQ(test, npages, c->npages);
	}
}

static void random_cuts(struct kunit *test)
{
	const struct mock_kind *kind = test->param_value;
	struct container_test *t = test->priv;
	u64 start = seed ?: get_random_u64();
	unsigned int i, errors, others = 0;
	unsigned long largest = MOCK_PUD_PAGES;
	struct cut_test *c;

	c = kunit_kzalloc(test, sizeof(*c), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, c);
	kunit_info(test, "seed=%llu\n", start);
	prandom_seed_state(&t->rnd, start);
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], kind), 0);
	/* So many leaves take long, and are all the same. */
	if (kind->pgsizes == PAGE_SIZE)
		largest = MOCK_PMD_PAGES;

	for (i = 0; i < steps; i++) {
		errors = mock_errors;
		if (rnd(t, 2)) {
			cut_map(test, c, largest);
		} else if (rnd(t, 32)) {
			cut_unmap(test, c);
		} else if (t->groups[1].wanted) {
			container_detach(test, &t->groups[1]);
		} else if (others++ < 4) {
			container_attach(test, &t->groups[1], &mock_kinds[0]);
			KUNIT_EXPECT_TRUE(test, t->groups[1].wanted);
		}
		cut_check(test, c);
		KUNIT_ASSERT_EQ_MSG(test, mock_errors, errors, "step %u, seed=%llu",
				    i, start);
		KUNIT_ASSERT_EQ_MSG(test, test->status, KUNIT_SUCCESS,
				    "step %u, seed=%llu", i, start);
		cond_resched();
	}
}

#endif /* __VFIO_TYPE1V3_RANDOM_H */
