/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit cases of the container: several containers of one address space, which are
 * charged together.  Included by vfio_type1v3_kunit.c, behind the rig.
 */
#ifndef __VFIO_TYPE1V3_LEDGER_H
#define __VFIO_TYPE1V3_LEDGER_H

#define NR_MEMBERS	3

/**
 * struct ledger_test - several containers of one address space
 * @members: the containers; the first is the rig's own
 * @rlimit: RLIMIT_MEMLOCK, for afterwards
 */
struct ledger_test {
	struct container_test *members[NR_MEMBERS];
	struct rlimit rlimit;
};

/* From now on, functions of the rig are for this container. */
static void use_member(struct kunit *test, struct ledger_test *l, unsigned int nr)
{
	test->priv = l->members[nr];
}

static struct ledger_test *ledger_test_init(struct kunit *test,
					    const struct mock_kind *kind)
{
	struct container_test *t = test->priv, *other;
	struct ledger_test *l;
	unsigned int i;

	l = kunit_kzalloc(test, sizeof(*l), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, l);
	l->rlimit = current->signal->rlim[RLIMIT_MEMLOCK];
	container_memory(test, true);
	l->members[0] = t;
	for (i = 1; i < NR_MEMBERS; i++) {
		other = kunit_kzalloc(test, sizeof(*other), GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, other);
		other->memory = t->memory;
		other->arg = t->arg;
		other->bitmap = t->bitmap;
		other->data = vfio_type1v3_ops.open(VFIO_TYPE1v3_IOMMU);
		KUNIT_ASSERT_FALSE(test, IS_ERR(other->data));
		other->container = vfio_dma_container_get(other->data);
		l->members[i] = other;
	}
	for (i = 0; kind && i < NR_MEMBERS; i++) {
		use_member(test, l, i);
		KUNIT_ASSERT_EQ(test, container_attach(test, &l->members[i]->groups[0],
						       kind), 0);
	}
	use_member(test, l, 0);
	return l;
}

static void close_member(struct kunit *test, struct ledger_test *l, unsigned int nr)
{
	struct container_test *t = l->members[nr];
	unsigned int i;

	use_member(test, l, nr);
	for (i = 0; i < ARRAY_SIZE(t->groups); i++)
		if (t->groups[i].wanted)
			container_detach(test, &t->groups[i]);
	if (t->emulated.wanted)
		container_detach(test, &t->emulated);
	if (nr) {
		vfio_type1v3_ops.release(t->data);
		vfio_dma_container_put(t->container);
	}
	l->members[nr] = NULL;
}

/* The limit in pages; without CAP_IPC_LOCK, or nothing would keep to it */
static void set_limit(struct kunit *test, unsigned long npages, bool may_exceed)
{
	struct cred *cred = prepare_creds();

	KUNIT_ASSERT_NOT_NULL(test, cred);
	if (may_exceed)
		cap_raise(cred->cap_effective, CAP_IPC_LOCK);
	else
		cap_lower(cred->cap_effective, CAP_IPC_LOCK);
	commit_creds(cred);
	current->signal->rlim[RLIMIT_MEMLOCK].rlim_cur = npages << PAGE_SHIFT;
	current->signal->rlim[RLIMIT_MEMLOCK].rlim_max = npages << PAGE_SHIFT;
}

static void ledger_test_exit(struct kunit *test, struct ledger_test *l)
{
	struct container_test *t = l->members[0];
	unsigned int i;

	for (i = NR_MEMBERS; i--;)
		if (l->members[i])
			close_member(test, l, i);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 0);
	set_limit(test, 0, true);
	current->signal->rlim[RLIMIT_MEMLOCK] = l->rlimit;
	test->priv = t;
}

/* Is charged what all members hold, each page once, and pinned as often as it is held? */
static void ledger_check(struct kunit *test, struct ledger_test *l)
{
	unsigned long i, expected = 0, held, bad = 0;
	struct vfio_dma_ledger *ledger = NULL;
	struct container_test *t;
	unsigned int m;
	u16 *count;

	count = kunit_kcalloc(test, WINDOW, sizeof(*count), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, count);
	for (m = 0; m < NR_MEMBERS; m++) {
		t = l->members[m];
		if (!t || !container_has_domain(t))
			continue;
		for (i = 0, held = 0; i < WINDOW; i++) {
			count[t->model[i].user] += !!t->model[i].prot;
			held += !!t->model[i].prot;
		}
		KUNIT_EXPECT_EQ(test, vfio_dma_held(t->container), held);
		ledger = t->container->owner.ledger ?: ledger;
	}
	for (i = 0; i < WINDOW; i++) {
		expected += DIV_ROUND_UP(count[i], VFIO_DMA_LEDGER_HOLDS);
		bad += mock_pins(mock_memory_pfn(l->members[0]->memory, i)) != count[i];
	}
	kunit_kfree(test, count);
	KUNIT_EXPECT_EQ(test, bad, 0);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, expected);
	if (!ledger)
		return;
	mutex_lock(&ledger->lock);
	KUNIT_EXPECT_EQ(test, vfio_xa_dma_validate(&ledger->pages), 0);
	KUNIT_EXPECT_EQ(test, ledger->alone, 0);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&ledger->charged), expected);
	mutex_unlock(&ledger->lock);
}

static int member_map(struct kunit *test, struct ledger_test *l, unsigned int nr,
		      unsigned long first, unsigned long npages, unsigned long user)
{
	use_member(test, l, nr);
	return container_map(test, first, npages, user, RW, false);
}

static int member_unmap(struct kunit *test, struct ledger_test *l, unsigned int nr,
			unsigned long first, unsigned long npages)
{
	use_member(test, l, nr);
	return container_unmap(test, first, npages);
}

/* Sizes of a map that take each of its ways */
static const unsigned long sizes[] = { 1, 4, 8, 9, 600, WINDOW };

/* The same memory in all containers, which let go of it in each order, in each way */
static void ledger_orders(struct kunit *test)
{
	static const u8 orders[][NR_MEMBERS] = {
		{ 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 },
	};
	struct ledger_test *l = ledger_test_init(test, test->param_value);
	unsigned int i, o, m, nr;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (o = 0; o < ARRAY_SIZE(orders); o++) {
			for (m = 0; m < NR_MEMBERS; m++) {
				KUNIT_ASSERT_EQ(test, member_map(test, l, m, 0, sizes[i], 0), 0);
				ledger_check(test, l);
			}
			for (m = 0; m < NR_MEMBERS; m++) {
				nr = orders[o][m];
				if (o % 2) {
					KUNIT_EXPECT_EQ(test, member_unmap(test, l, nr, 0,
									   WINDOW), 0);
				} else {
					use_member(test, l, nr);
					container_detach(test, &l->members[nr]->groups[0]);
					ledger_check(test, l);
					KUNIT_ASSERT_EQ(test,
							container_attach(test,
									 &l->members[nr]->groups[0],
									 test->param_value), 0);
				}
				ledger_check(test, l);
			}
			KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 0);
		}
	}
	for (m = 0; m < NR_MEMBERS; m++)
		KUNIT_ASSERT_EQ(test, member_map(test, l, m, 0, 100, 0), 0);
	for (m = 0; m < NR_MEMBERS; m++) {
		close_member(test, l, m);
		if (m < NR_MEMBERS - 1)
			KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 100);
	}
	ledger_test_exit(test, l);
}

/* Random maps, unmaps, cuts; each page is charged once, whoever has it last. */
static void ledger_random(struct kunit *test)
{
	struct ledger_test *l = ledger_test_init(test, test->param_value);
	unsigned long first, npages, user;
	struct container_test *t = l->members[0];
	unsigned int step, m, i;

	prandom_seed_state(&t->rnd, 42);
	for (step = 0; step < 1500; step++) {
		m = rnd(t, NR_MEMBERS);
		first = rnd(t, WINDOW);
		npages = 1 + rnd(t, rnd(t, 4) ? 12 : 600);
		npages = min(npages, WINDOW - first);
		user = rnd(t, 2) ? first : rnd(t, WINDOW - npages + 1);
		use_member(test, l, m);
		if (rnd(t, 3)) {
			for (i = 0; i < npages; i++)
				if (l->members[m]->model[first + i].prot)
					break;
			if (i)
				KUNIT_ASSERT_EQ(test, container_map(test, first, i, user, RW,
								    rnd(t, 2)), 0);
		} else {
			KUNIT_ASSERT_EQ(test, container_unmap(test, first, npages), 0);
		}
		if (step % 16 == 0)
			ledger_check(test, l);
	}
	ledger_check(test, l);
	ledger_test_exit(test, l);
}

/* The first container holds memory at several addresses when the second one comes. */
static void ledger_aliases(struct kunit *test)
{
	struct ledger_test *l = ledger_test_init(test, test->param_value);

	KUNIT_ASSERT_EQ(test, member_map(test, l, 0, 0, 40, 0), 0);
	KUNIT_ASSERT_EQ(test, member_map(test, l, 0, 100, 40, 20), 0);
	/* As one container is charged: for each hold */
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 80);
	KUNIT_ASSERT_EQ(test, member_map(test, l, 1, 0, 1, 0), 0);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 60);
	ledger_check(test, l);
	KUNIT_ASSERT_EQ(test, member_map(test, l, 1, 200, 5, 58), 0);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 63);
	KUNIT_EXPECT_EQ(test, member_unmap(test, l, 0, 0, 40), 0);
	ledger_check(test, l);
	ledger_test_exit(test, l);
}

/* After munmap() and mmap() the same address is other memory, and counts. */
static void ledger_remap(struct kunit *test)
{
	struct ledger_test *l = ledger_test_init(test, test->param_value);
	struct mock_memory *memory = l->members[0]->memory;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes) && sizes[i] <= WINDOW / 2; i++) {
		KUNIT_ASSERT_EQ(test, member_map(test, l, 0, 0, sizes[i], 0), 0);
		KUNIT_ASSERT_EQ(test, member_map(test, l, 1, 0, sizes[i], 0), 0);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, sizes[i]);
		swap(memory->pages[0], memory->pages[WINDOW - 1]);
		mock_memory_map_again(test, memory, PROT_READ | PROT_WRITE);
		KUNIT_ASSERT_EQ(test, member_map(test, l, 2, 0, sizes[i], 0), 0);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, sizes[i] + 1);
		KUNIT_EXPECT_EQ(test, member_unmap(test, l, 0, 0, sizes[i]), 0);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, sizes[i] + 1);
		KUNIT_EXPECT_EQ(test, member_unmap(test, l, 1, 0, sizes[i]), 0);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, sizes[i]);
		KUNIT_EXPECT_EQ(test, member_unmap(test, l, 2, 0, sizes[i]), 0);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 0);
	}
	ledger_test_exit(test, l);
}

/* What one container may just map, others may map as well, and not a page more. */
static void ledger_limit(struct kunit *test)
{
	struct ledger_test *l = ledger_test_init(test, test->param_value);
	unsigned long n;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes) && sizes[i] < WINDOW; i++) {
		n = sizes[i];
		set_limit(test, n, false);
		KUNIT_ASSERT_EQ(test, member_map(test, l, 0, 0, n, 0), 0);
		KUNIT_EXPECT_EQ(test, member_map(test, l, 0, n, 1, n), -ENOMEM);
		KUNIT_EXPECT_EQ(test, member_map(test, l, 1, 0, n + 1, 0), -ENOMEM);
		ledger_check(test, l);
		KUNIT_EXPECT_EQ(test, member_map(test, l, 1, 0, 1, n), -ENOMEM);
		KUNIT_EXPECT_EQ(test, member_map(test, l, 1, 3, n, 0), 0);
		ledger_check(test, l);
		KUNIT_EXPECT_EQ(test, member_map(test, l, 2, 0, n, 0), 0);
		KUNIT_EXPECT_EQ(test, member_map(test, l, 2, n, 1, n), -ENOMEM);
		KUNIT_EXPECT_EQ(test, member_map(test, l, 2, n, 1, 0), 0);
		ledger_check(test, l);
		/* With a page more, it is the first one that is new. */
		set_limit(test, n + 1, false);
		KUNIT_EXPECT_EQ(test, member_unmap(test, l, 2, 0, n + 1), 0);
		KUNIT_EXPECT_EQ(test, member_map(test, l, 2, 0, n + 1, 0), 0);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, n + 1);
		KUNIT_EXPECT_EQ(test, member_map(test, l, 0, n, 1, n + 1), -ENOMEM);
		ledger_check(test, l);
		KUNIT_EXPECT_EQ(test, member_unmap(test, l, 0, 0, WINDOW), 0);
		KUNIT_EXPECT_EQ(test, member_unmap(test, l, 1, 0, WINDOW), 0);
		KUNIT_EXPECT_EQ(test, member_unmap(test, l, 2, 0, WINDOW), 0);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 0);
	}
	ledger_test_exit(test, l);
}

/* Free pins of one page are no way to overflow its refcount. */
static void ledger_many_pins(struct kunit *test)
{
	struct ledger_test *l = ledger_test_init(test, test->param_value);
	unsigned long i, max = 3 * VFIO_DMA_LEDGER_HOLDS;

	set_limit(test, 3, false);
	KUNIT_ASSERT_EQ(test, member_map(test, l, 0, 0, 1, 0), 0);
	for (i = 1; i < max; i++)
		KUNIT_ASSERT_EQ(test, member_map(test, l, 1, i, 1, 0), 0);
	ledger_check(test, l);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 3);
	KUNIT_EXPECT_EQ(test, member_map(test, l, 1, max, 1, 0), -ENOMEM);
	KUNIT_EXPECT_EQ(test, member_map(test, l, 2, 0, 1, 1), -ENOMEM);
	ledger_check(test, l);
	KUNIT_EXPECT_EQ(test, member_unmap(test, l, 1, 9, VFIO_DMA_LEDGER_HOLDS), 0);
	KUNIT_EXPECT_EQ(test, member_map(test, l, 2, 0, 1, 1), 0);
	ledger_check(test, l);
	ledger_test_exit(test, l);
}

/* Memory that is mapped without a domain counts when the first domain comes. */
static void ledger_replay(struct kunit *test)
{
	struct ledger_test *l = ledger_test_init(test, NULL);
	unsigned int m;

	for (m = 0; m < NR_MEMBERS; m++) {
		use_member(test, l, m);
		KUNIT_ASSERT_EQ(test, container_attach(test, &l->members[m]->emulated, NULL), 0);
		KUNIT_ASSERT_EQ(test, member_map(test, l, m, 0, 700, 0), 0);
		ledger_check(test, l);
	}
	set_limit(test, 700, false);
	for (m = 0; m < NR_MEMBERS; m++) {
		use_member(test, l, m);
		KUNIT_ASSERT_EQ(test, container_attach(test, &l->members[m]->groups[0],
						       test->param_value), 0);
		ledger_check(test, l);
	}
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 700);
	KUNIT_EXPECT_EQ(test, member_unmap(test, l, 1, 0, 1), 0);
	use_member(test, l, 2);
	container_detach(test, &l->members[2]->groups[0]);
	ledger_check(test, l);
	set_limit(test, 699, false);
	KUNIT_ASSERT_EQ(test, member_unmap(test, l, 0, 0, 1), 0);
	use_member(test, l, 2);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 699);
	KUNIT_EXPECT_EQ(test, container_attach(test, &l->members[2]->groups[0],
					       test->param_value), -ENOMEM);
	ledger_check(test, l);
	ledger_test_exit(test, l);
}

/* Pages that emulated devices pin, with a domain and without, are held as others are. */
static void ledger_emulated(struct kunit *test)
{
	struct ledger_test *l = ledger_test_init(test, NULL);
	struct container_test *a = l->members[0], *b = l->members[1];
	struct vfio_device *device;

	KUNIT_ASSERT_EQ(test, container_attach(test, &a->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, member_map(test, l, 0, 0, 64, 0), 0);
	use_member(test, l, 1);
	KUNIT_ASSERT_EQ(test, container_attach(test, &b->emulated, NULL), 0);
	device = pin_device(test, &device_ops);
	KUNIT_ASSERT_EQ(test, member_map(test, l, 1, 0, 100, 0), 0);

	/* At the limit, pages can be pinned that the other container holds. */
	set_limit(test, 64, false);
	KUNIT_EXPECT_EQ(test, pin_some(b, 3, 2, RW), 2);
	KUNIT_EXPECT_EQ(test, pin_some(b, 64, 1, RW), -ENOMEM);
	KUNIT_EXPECT_EQ(test, pin_some(b, 60, 6, RW), -ENOMEM);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 64);
	set_limit(test, 65, false);
	KUNIT_EXPECT_EQ(test, pin_some(b, 64, 1, RW), 1);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 65);
	KUNIT_EXPECT_EQ(test, vfio_dma_held(b->container), 3);
	/* Whoever lets go of a page first, it is charged for the other. */
	KUNIT_EXPECT_EQ(test, member_unmap(test, l, 0, 0, 4), 0);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 62);
	unpin_some(b, 3, 1);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 61);
	unpin_some(b, 4, 1);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 61);
	KUNIT_EXPECT_EQ(test, pin_some(b, 63, 1, RW), 1);

	/* A domain comes, which holds what is pinned as well; not enough, and enough */
	use_member(test, l, 1);
	set_limit(test, 99, false);
	KUNIT_EXPECT_EQ(test, container_attach(test, &b->groups[0], test->param_value), -ENOMEM);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 61);
	KUNIT_EXPECT_EQ(test, vfio_dma_held(b->container), 2);
	set_limit(test, 100, false);
	KUNIT_EXPECT_EQ(test, container_attach(test, &b->groups[0], test->param_value), 0);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 100);
	KUNIT_EXPECT_EQ(test, vfio_dma_held(b->container), 100);
	KUNIT_EXPECT_EQ(test, pin_some(b, 10, 3, RW), 3);
	/* The page at the address is another one by now, and known, and new. */
	set_limit(test, 100, false);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 100);
	KUNIT_EXPECT_EQ(test, member_unmap(test, l, 0, 4, 60), 0);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 100);

	/* And it goes: what is pinned stays. */
	use_member(test, l, 1);
	container_detach(test, &b->groups[0]);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 5);
	KUNIT_EXPECT_EQ(test, vfio_dma_held(b->container), 5);
	KUNIT_ASSERT_EQ(test, member_map(test, l, 0, 0, 12, 0), 0);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 15);
	unpin_some(b, 10, 3);
	unpin_some(b, 63, 2);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 12);
	KUNIT_EXPECT_EQ(test, vfio_dma_held(b->container), 0);
	use_member(test, l, 1);
	vfio_type1v3_ops.unregister_device(b->data, device);
	ledger_test_exit(test, l);
}

/* Allocations that may fail do, one in so many */
static unsigned int memory_fails;

static bool memory_may_fail(gfp_t gfp)
{
	static unsigned int nr;

	return gfp & (__GFP_NOFAIL | __GFP_HIGH) || !memory_fails || ++nr % memory_fails;
}

/* Without memory for the ledger holds are charged on their own, and none is lost. */
static void ledger_without_memory(struct kunit *test)
{
	struct ledger_test *l = ledger_test_init(test, test->param_value);
	struct container_test *t = l->members[0];
	unsigned long first, held, alone = 0;
	unsigned int step, m;

	kunit_activate_static_stub(test, vfio_xa_dma_may_alloc, memory_may_fail);
	memory_fails = 3;
	prandom_seed_state(&t->rnd, 7);
	for (step = 0; step < 3000; step++) {
		m = rnd(t, NR_MEMBERS);
		/* Pages far apart take memory each. */
		first = 9 * rnd(t, WINDOW / 9);
		use_member(test, l, m);
		if (l->members[m]->model[first].prot)
			KUNIT_EXPECT_EQ(test, container_unmap(test, first, 1), 0);
		else
			container_map(test, first, 1, rnd(t, 2) ? first : 2 * first % 300, RW,
				      false);
		if (l->members[m]->container->owner.ledger)
			alone = max(alone, (unsigned long)
				    READ_ONCE(l->members[m]->container->owner.ledger->alone));
	}
	KUNIT_EXPECT_GT(test, alone, 0);
	memory_fails = 0;
	kunit_deactivate_static_stub(test, vfio_xa_dma_may_alloc);
	for (m = 0, held = 0; m < NR_MEMBERS; m++)
		held += vfio_dma_held(l->members[m]->container);
	KUNIT_EXPECT_LE(test, current->mm->locked_vm, held);
	for (m = 0; m < NR_MEMBERS; m++)
		KUNIT_EXPECT_EQ(test, member_unmap(test, l, m, 0, WINDOW), 0);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 0);
	ledger_test_exit(test, l);
}

static struct ledger_test *looked_at;
static unsigned int uncharged_seen;

/* What is in the ledger is charged, whatever comes next. */
static void look_for_uncharged(void)
{
	struct vfio_dma_ledger *ledger = looked_at->members[0]->container->owner.ledger;
	unsigned long i, expected, holds;

	mutex_lock(&ledger->lock);
	expected = ledger->alone;
	for (i = 0; i < WINDOW; i++) {
		holds = vfio_xa_dma_load(&ledger->pages,
					 mock_memory_pfn(looked_at->members[0]->memory, i));
		expected += DIV_ROUND_UP(vfio_dma_ledger_holds(holds), VFIO_DMA_LEDGER_HOLDS);
	}
	uncharged_seen += expected > atomic_long_read(&ledger->charged);
	mutex_unlock(&ledger->lock);
}

/*
 * A domain comes, and emulated devices have pinned other pages than are there now: none is
 * in the ledger before it is charged, or others could have it for nothing.
 */
static void ledger_charged_first(struct kunit *test)
{
	struct ledger_test *l = ledger_test_init(test, NULL);
	struct container_test *a = l->members[0], *b = l->members[1];
	struct mock_memory *memory = a->memory;
	struct vfio_device *device;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, container_attach(test, &a->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, member_map(test, l, 0, 0, 1, 1000), 0);
	use_member(test, l, 1);
	KUNIT_ASSERT_EQ(test, container_attach(test, &b->emulated, NULL), 0);
	device = pin_device(test, &device_ops);
	KUNIT_ASSERT_EQ(test, member_map(test, l, 1, 0, 100, 0), 0);
	KUNIT_ASSERT_EQ(test, pin_some(b, 0, 8, RW), 8);
	for (i = 0; i < 8; i++)
		swap(memory->pages[i], memory->pages[200 + i]);
	mock_memory_map_again(test, memory, PROT_READ | PROT_WRITE);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 9);

	looked_at = l;
	uncharged_seen = 0;
	mock_look = look_for_uncharged;
	for (i = 101; i < 109; i++) {
		set_limit(test, i, false);
		KUNIT_EXPECT_EQ(test, container_attach(test, &b->groups[0], test->param_value),
				-ENOMEM);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 9);
		KUNIT_EXPECT_EQ(test, vfio_dma_held(b->container), 8);
	}
	set_limit(test, 109, false);
	KUNIT_EXPECT_EQ(test, container_attach(test, &b->groups[0], test->param_value), 0);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 109);
	KUNIT_EXPECT_EQ(test, vfio_dma_held(b->container), 108);
	KUNIT_EXPECT_EQ(test, uncharged_seen, 0);
	mock_look = NULL;
	unpin_some(b, 0, 8);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 101);
	vfio_type1v3_ops.unregister_device(b->data, device);
	ledger_test_exit(test, l);
}

static unsigned long killed_at;

/* The call is killed when it looks up so many addresses. */
static void kill_at_lookup(struct mock_domain *mock)
{
	if (mock->nr_lookups != killed_at)
		return;
	sigaddset(&current->pending.signal, SIGKILL);
	set_tsk_thread_flag(current, TIF_SIGPENDING);
}

static void revive(void)
{
	sigdelset(&current->pending.signal, SIGKILL);
	clear_tsk_thread_flag(current, TIF_SIGPENDING);
}

/*
 * The call is killed that enters the pages of another container: the rest is charged as
 * before, for each hold, and none is lost.
 */
static void ledger_killed(struct kunit *test)
{
	struct ledger_test *l = ledger_test_init(test, test->param_value);
	struct container_test *a = l->members[0];
	const unsigned long n = 20;
	struct vfio_dma_ledger *ledger;
	struct mock_domain *mock;
	unsigned long i, at, expected;

	for (at = 1; at <= 2 * n; at += 3) {
		/* Pages in no order, each at two addresses */
		for (i = 0; i < 2 * n; i++)
			KUNIT_ASSERT_EQ(test, member_map(test, l, 0, 2 * i, 1, 7 * i % n * 3), 0);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 2 * n);
		mock = a->groups[0].domain;
		mock->nr_lookups = 0;
		killed_at = at;
		mock_look_up = kill_at_lookup;
		use_member(test, l, 1);
		container_map(test, 0, 1, 0, RW, false);
		mock_look_up = NULL;
		revive();
		/* At most the one that was being entered */
		KUNIT_EXPECT_EQ(test, mock->nr_lookups, at);

		ledger = a->container->owner.ledger;
		KUNIT_ASSERT_NOT_NULL(test, ledger);
		KUNIT_EXPECT_EQ(test, ledger->alone, 2 * n - (at - 1));
		expected = ledger->alone;
		for (i = 0; i < WINDOW; i++)
			expected += !!vfio_xa_dma_load(&ledger->pages,
						       mock_memory_pfn(a->memory, i));
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, expected);
		KUNIT_EXPECT_EQ(test, vfio_dma_held(a->container), 2 * n);
		/* A third container is charged right beside them. */
		KUNIT_EXPECT_EQ(test, member_map(test, l, 2, 0, 1, 500), 0);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, expected + 1);
		KUNIT_EXPECT_EQ(test, member_unmap(test, l, 2, 0, 1), 0);
		KUNIT_EXPECT_EQ(test, member_unmap(test, l, 1, 0, WINDOW), 0);
		KUNIT_EXPECT_EQ(test, member_unmap(test, l, 0, 0, WINDOW), 0);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 0);
	}
	ledger_test_exit(test, l);
}

static unsigned int joined;

/* While a container is being entered, another one gets the same owner. */
static void join_at_lookup(struct mock_domain *mock)
{
	struct ledger_test *l = looked_at;
	struct container_test *t = l->members[2];
	struct vfio_dma_container *c = t->container;

	if (mock->nr_lookups != killed_at)
		return;
	mock_look_up = NULL;
	mutex_lock_nested(&c->lock, SINGLE_DEPTH_NESTING);
	/* All is entered, or is about to be by who has the activation. */
	joined = vfio_dma_become_owner(c);
	mutex_unlock(&c->lock);
}

static void ledger_joins(struct kunit *test)
{
	struct ledger_test *l = ledger_test_init(test, test->param_value);
	struct container_test *a = l->members[0], *c = l->members[2];
	const unsigned long n = 12;
	struct mock_domain *mock;
	unsigned long i, at;

	looked_at = l;
	for (at = 1; at <= n; at++) {
		for (i = 0; i < n; i++)
			KUNIT_ASSERT_EQ(test, member_map(test, l, 0, 2 * i, 1, i % 5 * 3), 0);
		mock = a->groups[0].domain;
		mock->nr_lookups = 0;
		killed_at = at;
		joined = 0;
		mock_look_up = join_at_lookup;
		KUNIT_EXPECT_EQ(test, member_map(test, l, 1, 0, 1, 0), 0);
		KUNIT_EXPECT_NULL(test, mock_look_up);
		KUNIT_EXPECT_EQ(test, joined, 1);
		KUNIT_EXPECT_PTR_EQ(test, c->container->owner.ledger, a->container->owner.ledger);
		ledger_check(test, l);
		KUNIT_EXPECT_EQ(test, member_map(test, l, 2, 0, 30, 0), 0);
		ledger_check(test, l);
		for (i = 0; i < NR_MEMBERS; i++)
			KUNIT_EXPECT_EQ(test, member_unmap(test, l, i, 0, WINDOW), 0);
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 0);
	}
	ledger_test_exit(test, l);
}

/* At the limit the charge does not bound what each granule takes, so a number does. */
static void ledger_granules(struct kunit *test)
{
	struct ledger_test *l = ledger_test_init(test, &mock_kinds[0]);
	unsigned long footprint;
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_GRANULE(9),
		.vaddr = SZ_1G,
		.iova = BASE << PAGE_SHIFT,
		.size = (u64)(BIT(20) + 1) << 21,
	};

	KUNIT_ASSERT_EQ(test, member_map(test, l, 0, 0, 1, 0), 0);
	KUNIT_ASSERT_EQ(test, member_map(test, l, 1, 0, 1, 0), 0);
	KUNIT_ASSERT_EQ(test, member_unmap(test, l, 1, 0, 1), 0);
	set_limit(test, 1, false);
	use_member(test, l, 1);
	footprint = vfio_dma_record_bytes(&l->members[1]->container->record);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_MAP_DMA, &map, sizeof(map)),
			-ENOMEM);
	KUNIT_EXPECT_EQ(test, vfio_dma_record_bytes(&l->members[1]->container->record), footprint);
	ledger_check(test, l);
	ledger_test_exit(test, l);
}

/* The last domain goes, and keeps pages that emulated devices have pinned as well. */
static void ledger_leak_under_pins(struct kunit *test)
{
	struct ledger_test *l = ledger_test_init(test, NULL);
	struct container_test *a = l->members[0], *b = l->members[1];
	struct vfio_device *device;

	KUNIT_ASSERT_EQ(test, container_attach(test, &a->groups[0], test->param_value), 0);
	KUNIT_ASSERT_EQ(test, member_map(test, l, 0, 0, 4, 0), 0);
	use_member(test, l, 1);
	KUNIT_ASSERT_EQ(test, container_attach(test, &b->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &b->groups[0], test->param_value), 0);
	device = pin_device(test, &device_ops);
	KUNIT_ASSERT_EQ(test, member_map(test, l, 1, 0, 1, 0), 0);
	KUNIT_ASSERT_EQ(test, pin_some(b, 0, 1, RW), 1);
	KUNIT_EXPECT_EQ(test, vfio_dma_held(b->container), 1);
	b->groups[0].domain->fail_unmap = 1;
	kunit_warning_suppress(test) {
		container_detach(test, &b->groups[0]);
	}
	/* The mock says that something is mapped to the end. */
	KUNIT_EXPECT_EQ(test, mock_errors, 1);
	mock_errors = 0;
	KUNIT_EXPECT_EQ(test, vfio_dma_held(b->container), 1);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 4);
	unpin_some(b, 0, 1);
	KUNIT_EXPECT_EQ(test, vfio_dma_held(b->container), 0);
	vfio_type1v3_ops.unregister_device(b->data, device);
	KUNIT_EXPECT_EQ(test, member_unmap(test, l, 0, 0, 4), 0);
	/* What is leaked stays charged. */
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 1);
	KUNIT_EXPECT_EQ(test, mock_pins(mock_memory_pfn(a->memory, 0)), 1);
	unpin_user_page(a->memory->pages[0]);
	current->mm->locked_vm = 0;
	ledger_test_exit(test, l);
}

/* Device memory is not charged, and leaves the known pages before it as they are. */
static void ledger_device_memory(struct kunit *test)
{
	static const unsigned long known[] = { 1, 2, 9, 12, DEVICE_FIRST };
	struct ledger_test *l = ledger_test_init(test, test->param_value);
	struct container_test *t = l->members[1];
	unsigned long i, k, n, user, pfn, bad;
	struct mock_leaf *leaf;

	device_map(test);
	set_limit(test, DEVICE_FIRST, false);
	KUNIT_ASSERT_EQ(test, member_map(test, l, 0, 0, DEVICE_FIRST, 0), 0);
	for (k = 0; k < ARRAY_SIZE(known); k++) {
		user = DEVICE_FIRST - known[k];
		n = known[k] + DEVICE_PAGES;
		KUNIT_ASSERT_EQ(test, member_map(test, l, 1, 0, n, user), 0);
		for (i = 0, bad = 0; i < n; i++) {
			leaf = mock_leaf_at(t->groups[0].domain, BASE + i);
			pfn = i < known[k] ? mock_memory_pfn(t->memory, user + i) :
					     MOCK_PFN + i - known[k];
			bad += !leaf || leaf->pfn + BASE + i - leaf->first != pfn;
			bad += i < known[k] && mock_pins(pfn) != 2;
		}
		KUNIT_EXPECT_EQ(test, bad, 0);
		KUNIT_EXPECT_NULL(test, mock_leaf_at(t->groups[0].domain, BASE + n));
		KUNIT_EXPECT_EQ(test, current->mm->locked_vm, DEVICE_FIRST);
		KUNIT_EXPECT_EQ(test, member_unmap(test, l, 1, 0, n), 0);
		ledger_check(test, l);
	}
	ledger_test_exit(test, l);
}

#endif /* __VFIO_TYPE1V3_LEDGER_H */
