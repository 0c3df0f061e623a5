/* SPDX-License-Identifier: GPL-2.0-only */
/* KUnit tests of the owner and its locked memory */
#ifndef _VFIO_DMA_CORE_OWNER_H
#define _VFIO_DMA_CORE_OWNER_H

#include "vfio_dma_core_rig.h"

static unsigned long locked(void)
{
	return current->mm->locked_vm;
}

/* Take CAP_IPC_LOCK from the test's own thread, or give it back. */
static void set_ipc_lock(struct kunit *test, bool on)
{
	struct cred *cred = prepare_creds();

	KUNIT_ASSERT_NOT_NULL(test, cred);
	if (on)
		cap_raise(cred->cap_effective, CAP_IPC_LOCK);
	else
		cap_lower(cred->cap_effective, CAP_IPC_LOCK);
	commit_creds(cred);
	KUNIT_ASSERT_EQ(test, capable(CAP_IPC_LOCK), on);
}

static void charge(struct kunit *test)
{
	struct vfio_dma_owner owner = {};
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;

	mock_attach_mm(test);
	KUNIT_ASSERT_EQ(test, locked(), 0);
	KUNIT_ASSERT_GT(test, limit, 8);
	vfio_dma_owner_clear(&owner);
	vfio_dma_owner_set(&owner);
	KUNIT_EXPECT_PTR_EQ(test, owner.mm, current->mm);

	/* To the limit, and not a page beyond */
	set_ipc_lock(test, false);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 0), 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, limit + 1), -ENOMEM);
	KUNIT_EXPECT_EQ(test, locked(), 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, limit - 3), 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 4), -ENOMEM);
	KUNIT_EXPECT_EQ(test, owner.npages, limit - 3);
	KUNIT_EXPECT_EQ(test, locked(), limit - 3);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 3), 0);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 1), -ENOMEM);
	KUNIT_EXPECT_EQ(test, locked(), limit);

	vfio_dma_uncharge(&owner, 0);
	vfio_dma_uncharge(&owner, limit - 1);
	KUNIT_EXPECT_EQ(test, owner.npages, 1);
	KUNIT_EXPECT_EQ(test, locked(), 1);

	/* Who may lock anything, for as long as that is so */
	set_ipc_lock(test, true);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 2 * limit), 0);
	KUNIT_EXPECT_EQ(test, locked(), 2 * limit + 1);
	set_ipc_lock(test, false);
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 1), -ENOMEM);
	KUNIT_EXPECT_EQ(test, owner.npages, 2 * limit + 1);
	KUNIT_EXPECT_EQ(test, locked(), 2 * limit + 1);
	set_ipc_lock(test, true);

	/* What is still charged goes with the owner. */
	vfio_dma_owner_clear(&owner);
	KUNIT_EXPECT_EQ(test, locked(), 0);
	KUNIT_EXPECT_NULL(test, owner.mm);
}

/* The owner is gone, its address space with it: nothing to give back. */
static void owner_gone(struct kunit *test)
{
	struct vfio_dma_owner owner = {};
	struct mm_struct *mm = mm_alloc();

	KUNIT_ASSERT_NOT_NULL(test, mm);
	mock_attach_mm(test);
	vfio_dma_owner_set(&owner);
	mmdrop(owner.mm);
	mmgrab(mm);
	owner.mm = mm;
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 12), 0);
	mmput(mm);
	vfio_dma_uncharge(&owner, 5);
	KUNIT_EXPECT_EQ(test, owner.npages, 7);
	vfio_dma_owner_clear(&owner);
	KUNIT_EXPECT_EQ(test, locked(), 0);
}

/* Who uncharges another address space lets go of it again. */
static void uncharge_keeps_users(struct kunit *test)
{
	struct vfio_dma_owner owner = {};
	struct mm_struct *mm = mm_alloc();

	KUNIT_ASSERT_NOT_NULL(test, mm);
	mock_attach_mm(test);
	vfio_dma_owner_set(&owner);
	mmdrop(owner.mm);
	mmgrab(mm);
	owner.mm = mm;
	owner.lock_cap = true;
	KUNIT_EXPECT_EQ(test, vfio_dma_charge(&owner, 12), 0);
	vfio_dma_uncharge(&owner, 5);
	KUNIT_EXPECT_EQ(test, mm->locked_vm, 7);
	KUNIT_EXPECT_EQ(test, atomic_read(&mm->mm_users), 1);
	vfio_dma_owner_clear(&owner);
	KUNIT_EXPECT_EQ(test, mm->locked_vm, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&mm->mm_users), 1);
	mmput(mm);
}

#endif /* _VFIO_DMA_CORE_OWNER_H */
