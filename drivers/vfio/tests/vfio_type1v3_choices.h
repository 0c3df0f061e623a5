/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit cases of the container: what a program chooses at START, each choice with an IOMMU
 * that records and with one that does not.  Included by vfio_type1v3_kunit.c, behind the
 * dirty bits.
 *
 * All IOMMU pages here are small, so that each bit is one page's.
 */
#ifndef __VFIO_TYPE1V3_CHOICES_H
#define __VFIO_TYPE1V3_CHOICES_H

#define START	VFIO_IOMMU_DIRTY_PAGES_FLAG_START
#define STOP	VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP
#define PINNED	VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED
#define HARDWARE VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE

static const struct mock_kind unseen_kind = { .pgsizes = PAGE_SIZE };
static const struct mock_kind seen_kind = { .pgsizes = PAGE_SIZE, .dirty = true };

/* Neither shares a domain with those */
static const struct mock_kind other_unseen_kind = {
	.pgsizes = PAGE_SIZE, .sync_disjoint = true,
};

static const struct mock_kind other_seen_kind = {
	.pgsizes = PAGE_SIZE, .sync_disjoint = true, .dirty = true,
};

static const struct choice {
	const char *name;
	u32 flag;
	bool records;		/* the IOMMU of the first group */
} choices[] = {
	{ "as type1, recorded", 0, true }, { "as type1, unseen", 0, false },
	{ "pins, recorded", PINNED, true }, { "pins, unseen", PINNED, false },
	{ "IOMMUs, recorded", HARDWARE, true }, { "IOMMUs, unseen", HARDWARE, false },
};

KUNIT_ARRAY_PARAM_DESC(choice, choices, name);

static int dirty_call(struct kunit *test, u32 flags)
{
	struct vfio_iommu_type1_dirty_bitmap dirty = {
		.argsz = sizeof(dirty),
		.flags = flags,
	};

	return container_ioctl(test, VFIO_IOMMU_DIRTY_PAGES, &dirty, sizeof(dirty));
}

/* One group, all of the window mapped; false if this choice cannot be made. */
static bool choice_begin(struct kunit *test, const struct choice *choice)
{
	const struct mock_kind *kind = choice->records ? &seen_kind : &unseen_kind;
	bool refused = choice->flag == HARDWARE && !choice->records;
	struct container_test *t = test->priv;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], kind), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
	KUNIT_EXPECT_EQ(test, dirty_call(test, START | choice->flag),
			refused ? -EOPNOTSUPP : 0);
	KUNIT_EXPECT_EQ(test, t->groups[0].domain->tracking,
			choice->records && choice->flag != PINNED);
	if (refused) {
		/* Nothing is tracked. */
		KUNIT_EXPECT_EQ(test, container_bits(test, 0, WINDOW, false, 0), -EINVAL);
		container_unmap_all(test);
	}
	return !refused;
}

static void choice_end(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, dirty_call(test, STOP), 0);
	container_unmap_all(test);
}

/* These pages are dirty, and no others; or all that are mapped, if the answer is that. */
static void choice_expect(struct kunit *test, bool all, unsigned long mapped,
			  const unsigned long *pages, unsigned int nr)
{
	struct container_test *t = test->priv;
	unsigned int i;

	KUNIT_EXPECT_EQ(test, container_bits(test, 0, WINDOW, false, 0), 0);
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW), all ? mapped : nr);
	for (i = 0; i < nr; i++)
		KUNIT_EXPECT_TRUE_MSG(test, test_bit(pages[i], t->bits), "page %lu",
				      pages[i]);
}

#define EXPECT_DIRTY(test, all, mapped, ...)				\
	choice_expect(test, all, mapped,					\
		     (const unsigned long[]){ __VA_ARGS__ },		\
		     sizeof((const unsigned long[]){ __VA_ARGS__ }) /	\
		     sizeof(unsigned long))

#define EXPECT_CLEAN(test, all, mapped)	choice_expect(test, all, mapped, NULL, 0)

/* What a device writes, and what the kernel writes for an emulated one */
static void choice_reports(struct kunit *test)
{
	const struct choice *choice = test->param_value;
	struct container_test *t = test->priv;
	bool all = !choice->flag && !choice->records;

	if (!choice_begin(test, choice))
		return;
	expect_source(test, choice->flag == PINNED ? VFIO_IOMMU_TYPE1V3_DIRTY_PINNED :
		      all ? VFIO_IOMMU_TYPE1V3_DIRTY_ALL :
			    VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE);
	EXPECT_CLEAN(test, all, WINDOW);
	container_write(test, &t->groups[0], 5, 1);
	container_dirty(test, 700, 1);
	if (choice->flag == PINNED)
		EXPECT_DIRTY(test, all, WINDOW, 700);
	else
		EXPECT_DIRTY(test, all, WINDOW, 5, 700);
	EXPECT_CLEAN(test, all, WINDOW);

	/* The same choice once more is none; another one has to wait for STOP. */
	container_dirty(test, 800, 1);
	KUNIT_EXPECT_EQ(test, dirty_call(test, START | choice->flag), 0);
	KUNIT_EXPECT_EQ(test, dirty_call(test, START | (choice->flag == PINNED ? 0 : PINNED)),
			-EBUSY);
	KUNIT_EXPECT_EQ(test, dirty_call(test, START | (choice->flag == HARDWARE ? 0 :
							HARDWARE)), -EBUSY);
	KUNIT_EXPECT_EQ(test, dirty_call(test, START | PINNED | HARDWARE), -EINVAL);
	KUNIT_EXPECT_EQ(test, dirty_call(test, STOP | PINNED), -EINVAL);
	KUNIT_EXPECT_EQ(test, dirty_call(test, PINNED), -EINVAL);
	EXPECT_DIRTY(test, all, WINDOW, 800);
	KUNIT_EXPECT_EQ(test, dirty_call(test, STOP), 0);
	KUNIT_EXPECT_FALSE(test, t->groups[0].domain->tracking);
	KUNIT_EXPECT_EQ(test, dirty_call(test, START | PINNED), 0);
	EXPECT_CLEAN(test, false, WINDOW);
	choice_end(test);
}

/* Groups come and go while the choice is in force. */
static void choice_groups(struct kunit *test)
{
	const struct choice *choice = test->param_value;
	struct container_test *t = test->priv;
	bool all = !choice->flag && !choice->records;
	bool pinned = choice->flag == PINNED;

	if (!choice_begin(test, choice))
		return;
	/* One that records does so, unless nobody is to know. */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &other_seen_kind), 0);
	KUNIT_EXPECT_EQ(test, t->groups[1].domain->tracking, !pinned);
	container_write(test, &t->groups[1], 9, 1);
	if (pinned)
		EXPECT_CLEAN(test, false, WINDOW);
	else
		EXPECT_DIRTY(test, all, WINDOW, 9);
	/* It goes with what it has recorded. */
	container_write(test, &t->groups[1], 10, 1);
	container_detach(test, &t->groups[1]);
	EXPECT_CLEAN(test, !pinned, WINDOW);
	EXPECT_CLEAN(test, all, WINDOW);

	/* One that does not breaks a promise, or makes the answer worse. */
	KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[1], &other_unseen_kind),
			choice->flag == HARDWARE ? -EBUSY : 0);
	if (choice->flag == HARDWARE) {
		container_write(test, &t->groups[0], 11, 1);
		EXPECT_DIRTY(test, false, WINDOW, 11);
		choice_end(test);
		return;
	}
	EXPECT_CLEAN(test, !pinned, WINDOW);
	container_detach(test, &t->groups[1]);
	EXPECT_CLEAN(test, !pinned, WINDOW);
	EXPECT_CLEAN(test, all, WINDOW);

	/* And the last one, which leaves an emulated device behind */
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	container_detach(test, &t->groups[0]);
	EXPECT_CLEAN(test, !pinned, WINDOW);
	EXPECT_CLEAN(test, false, WINDOW);
	choice_end(test);
}

/* An unmap tells by the same choice. */
static void choice_unmap(struct kunit *test)
{
	const struct choice *choice = test->param_value;
	struct container_test *t = test->priv;
	bool all = !choice->flag && !choice->records;
	bool pinned = choice->flag == PINNED;

	if (!choice_begin(test, choice))
		return;
	container_write(test, &t->groups[0], 5, 1);
	container_write(test, &t->groups[0], 200, 1);
	container_dirty(test, 7, 1);
	container_dirty(test, 300, 1);
	KUNIT_EXPECT_EQ(test, container_bits(test, 4, 96, true, 0), 0);
	memset(t->model + 4, 0, 96 * sizeof(*t->model));
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->bits, WINDOW), all ? 96 : pinned ? 1 : 2);
	KUNIT_EXPECT_EQ(test, test_bit(1, t->bits), !pinned);
	KUNIT_EXPECT_TRUE(test, test_bit(3, t->bits));
	if (pinned)
		EXPECT_DIRTY(test, all, WINDOW - 96, 300);
	else
		EXPECT_DIRTY(test, all, WINDOW - 96, 200, 300);
	EXPECT_CLEAN(test, all, WINDOW - 96);
	choice_end(test);
}

/* Bits that are set stay set, and nothing else is different. */
static void choice_or(struct kunit *test)
{
	const struct choice *choice = test->param_value;
	struct container_test *t = test->priv;
	bool all = !choice->flag && !choice->records;
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} get = {
		.dirty.argsz = sizeof(get),
		.dirty.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP |
			       VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR,
		.get.iova = BASE << PAGE_SHIFT,
		.get.size = 100 << PAGE_SHIFT,
		.get.bitmap.pgsize = PAGE_SIZE,
		.get.bitmap.size = VFIO_DMA_BITMAP_BYTES(100),
		.get.bitmap.data = (void __user *)(t->arg + t->bitmap),
	};
	DECLARE_BITMAP(bits, 128) = {};
	DECLARE_BITMAP(want, 128) = {};

	if (!choice_begin(test, choice))
		return;
	container_write(test, &t->groups[0], 5, 1);
	container_dirty(test, 7, 1);
	/* The last one is behind the end. */
	__set_bit(6, bits);
	__set_bit(7, bits);
	__set_bit(110, bits);
	bitmap_copy(want, bits, 128);
	__set_bit(7, want);
	if (choice->flag != PINNED)
		__set_bit(5, want);
	if (all)
		bitmap_set(want, 0, 100);
	KUNIT_ASSERT_EQ(test, copy_to_user(t->arg + t->bitmap, bits, sizeof(bits)), 0);
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_DIRTY_PAGES, &get,
					      sizeof(get)), 0);
	KUNIT_ASSERT_EQ(test, copy_from_user(bits, t->arg + t->bitmap, sizeof(bits)), 0);
	KUNIT_EXPECT_TRUE(test, bitmap_equal(want, bits, 128));
	EXPECT_CLEAN(test, all, WINDOW);

	/* No part of an unmap, nor of START */
	KUNIT_EXPECT_EQ(test, dirty_call(test, START | VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR),
			-EINVAL);
	get.dirty.flags |= choice->flag ?: HARDWARE;
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_DIRTY_PAGES, &get,
					      sizeof(get)), -EINVAL);
	choice_end(test);
}

/* An IOMMU that could record fails to begin: a promise is not made, or the answer is all. */
static void choice_start_fails(struct kunit *test)
{
	struct container_test *t = test->priv;

	mock_fail_track = true;
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &seen_kind), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[1], &other_seen_kind), 0);
	t->groups[0].domain->fail_track = false;
	KUNIT_ASSERT_EQ(test, container_map(test, 0, WINDOW, 0, RW, false), 0);
	KUNIT_EXPECT_EQ(test, dirty_call(test, START | HARDWARE), -EOPNOTSUPP);
	KUNIT_EXPECT_FALSE(test, t->groups[0].domain->tracking);
	KUNIT_EXPECT_EQ(test, container_bits(test, 0, WINDOW, false, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, dirty_call(test, START), 0);
	expect_source(test, VFIO_IOMMU_TYPE1V3_DIRTY_ALL);
	EXPECT_CLEAN(test, true, WINDOW);
	KUNIT_EXPECT_EQ(test, dirty_call(test, STOP), 0);
	t->groups[1].domain->fail_track = false;
	KUNIT_EXPECT_EQ(test, dirty_call(test, START | HARDWARE), 0);
	EXPECT_CLEAN(test, false, WINDOW);
	choice_end(test);
}

#undef START
#undef STOP
#undef PINNED
#undef HARDWARE

#endif /* __VFIO_TYPE1V3_CHOICES_H */
