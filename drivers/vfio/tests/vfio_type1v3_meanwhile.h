/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit cases of the container: what changes while a call has dropped the mutex, who owns
 * the memory meanwhile, and what remains of a call that fails.
 *
 * Included by vfio_type1v3_kunit.c, behind all that its cases use.
 */
#ifndef __VFIO_TYPE1V3_MEANWHILE_H
#define __VFIO_TYPE1V3_MEANWHILE_H

#include <linux/completion.h>
#include <linux/kthread.h>
#include <linux/sched/task.h>

/**
 * struct trap - user memory in which something happens when a page is touched first
 * @test: the test; the memory is that of its container
 * @page: which page
 * @device: so many pages at the beginning are device memory
 * @spring: what happens, without any lock
 * @sprung: it has happened
 */
struct trap {
	struct kunit *test;
	unsigned long page;
	unsigned long device;
	void (*spring)(struct kunit *test);
	bool sprung;
};

/* One test runs at a time. */
static struct trap trap;

static vm_fault_t trap_fault(struct vm_fault *vmf)
{
	struct container_test *t = trap.test->priv;

	if (vmf->pgoff == trap.page && !trap.sprung) {
		if (!(vmf->flags & FAULT_FLAG_ALLOW_RETRY))
			return VM_FAULT_SIGBUS;
		trap.sprung = true;
		release_fault_lock(vmf);
		trap.spring(trap.test);
		return VM_FAULT_RETRY;
	}
	vmf->page = t->memory->pages[vmf->pgoff];
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct trap_vm_ops = {
	.fault = trap_fault,
};

static int trap_mmap(struct file *file, struct vm_area_struct *vma)
{
	vma->vm_ops = &trap_vm_ops;
	return 0;
}

static const struct file_operations trap_fops = {
	.owner	= THIS_MODULE,
	.mmap	= trap_mmap,
};

static int trap_device_mmap(struct file *file, struct vm_area_struct *vma)
{
	return remap_pfn_range(vma, vma->vm_start, MOCK_PFN,
			       vma->vm_end - vma->vm_start, vma->vm_page_prot);
}

static const struct file_operations trap_device_fops = {
	.owner	= THIS_MODULE,
	.mmap	= trap_device_mmap,
};

static void trap_set(struct kunit *test, unsigned long page, unsigned long device,
		     void (*spring)(struct kunit *test))
{
	struct container_test *t = test->priv;

	trap = (struct trap) {
		.test = test, .page = page, .device = device, .spring = spring,
	};
	t->memory->vaddr = mock_map_file(test, "[mock trap]", &trap_fops, NULL, WINDOW,
					 PROT_READ | PROT_WRITE);
	if (device)
		mock_map_file_at(test, "[mock device]", &trap_device_fops, NULL, device,
				 PROT_READ | PROT_WRITE, t->memory->vaddr);
}

static unsigned int users_of(struct mm_struct *mm)
{
	return atomic_read(&mm->mm_users);
}

/* Give the container, owned by the caller, to the owner of @mm, which must live. */
static void give_to(struct kunit *test, struct mm_struct *mm)
{
	struct container_test *t = test->priv;
	struct vfio_dma_owner *owner = &t->container->owner;

	KUNIT_ASSERT_PTR_EQ(test, owner->mm, current->mm);
	mm->locked_vm += owner->npages;
	current->mm->locked_vm -= owner->npages;
	mmgrab(mm);
	mmdrop(owner->mm);
	owner->mm = mm;
	t->container->member.mm = mm;
}

/* The other way round: @mm may be gone, and then nothing is charged. */
static void take_back(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_dma_owner *owner = &t->container->owner;

	current->mm->locked_vm += owner->npages;
	owner->mm->locked_vm -= owner->npages;
	mmgrab(current->mm);
	mmdrop(owner->mm);
	owner->mm = current->mm;
	t->container->member.mm = current->mm;
}

/*
 * The last domain goes while the second half of a MAP is pinned, another one comes, and
 * the memory is not what it was: the call begins anew, and knows nothing of it.
 */
static void other_memory(struct kunit *test)
{
	struct container_test *t = test->priv;

	/* Without a domain nothing is translated, and one more comes. */
	container_detach(test, &t->groups[0]);
	swap(t->memory->pages[5], t->memory->pages[1500]);
	mock_memory_map_again(test, t->memory, PROT_READ | PROT_WRITE);
	container_attach(test, &t->groups[0], &mock_kinds[0]);
}

static void map_begins_anew(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned long device;

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	for (device = 0; device <= 8; device += 8) {
		KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0],
						       &mock_kinds[0]), 0);
		trap_set(test, 1300, device, other_memory);
		KUNIT_ASSERT_EQ(test, container_map(test, 0, 1400, 0, RW, false), 0);
		KUNIT_EXPECT_TRUE(test, trap.sprung);
		container_check(test);
		KUNIT_EXPECT_EQ(test, container_unmap(test, 3, 700), 0);
		container_check(test);
		container_unmap_all(test);
		container_detach(test, &t->groups[0]);
	}
}

/* While a page is pinned an IOMMU comes that does not translate its IOVA. */
static void narrower(struct kunit *test)
{
	static const struct mock_kind narrow = {
		.pgsizes = PAGE_SIZE,
		.aperture_end = ((FAR + WINDOW / 2) << PAGE_SHIFT) - 1,
	};
	struct container_test *t = test->priv;

	container_attach(test, &t->groups[1], &narrow);
}

static void map_is_checked_again(struct kunit *test)
{
	struct container_test *t = test->priv;

	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	trap_set(test, 7, 0, narrower);
	KUNIT_EXPECT_EQ(test, container_map(test, WINDOW / 2, 1, 7, RW, false), -EINVAL);
	KUNIT_EXPECT_TRUE(test, trap.sprung);
	KUNIT_EXPECT_TRUE(test, t->groups[1].wanted);
	container_check(test);
	KUNIT_EXPECT_EQ(test, container_map(test, WINDOW / 2 - 1, 1, 7, RW, false), 0);
	container_check(test);
	container_unmap_all(test);
}

/*
 * What cannot be divided is unmapped as a whole, and what a driver has pinned of the rest
 * is leaked: it is known no longer, and not given to anybody else.
 */
static void lost_under_pins(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;
	struct page *page;

	device = kunit_kzalloc(test, sizeof(*device), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, device);
	device->ops = &device_ops;
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	vfio_type1v3_ops.register_device(t->data, device);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 1024, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, pin_one_page(t, 100, &page), 1);

	t->groups[0].domain->fail_map = 1;
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, container_unmap(test, 300, 1), -EIO);
		MOCK_EXPECT_WARNED(test);
	}
	KUNIT_EXPECT_EQ(test, vfio_dma_record_load(&t->container->record, BASE + 100), 0);
	KUNIT_EXPECT_TRUE(test, vfio_xa_dma_empty(&t->container->extpins));
	/* What the driver keeps stays charged. */
	KUNIT_EXPECT_EQ(test, mock_pins(page_to_pfn(page)), 1);
	KUNIT_EXPECT_EQ(test, current->mm->locked_vm, 512 + 1);
	unpin_user_page(page);
	current->mm->locked_vm--;
	container_check(test);
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_unmap_all(test);
}

/* All of the memory has to be faulted in again, as fork() makes of private memory. */
static void come_back(struct kunit *test)
{
	struct container_test *t = test->priv;

	mock_map_file_at(test, "[mock trap]", &trap_fops, NULL, WINDOW,
			 PROT_READ | PROT_WRITE, t->memory->vaddr);
}

/* Pages that are missing once more while others are waited for are waited for again. */
static void pin_missing_again(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_device *device;
	struct page *pages[64];
	unsigned long i;

	device = kunit_kzalloc(test, sizeof(*device), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, device);
	device->ops = &device_ops;
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	vfio_type1v3_ops.register_device(t->data, device);
	trap_set(test, 2 * 60, 0, come_back);
	/* No two of them are waited for together. */
	for (i = 0; i < ARRAY_SIZE(pages); i++)
		KUNIT_ASSERT_EQ(test, container_map(test, i, 1, 2 * i, RW, false), 0);
	KUNIT_ASSERT_EQ(test, vfio_type1v3_ops.pin_pages(t->data, test_group(&t->emulated),
							 BASE << PAGE_SHIFT, ARRAY_SIZE(pages),
							 RW, pages),
			ARRAY_SIZE(pages));
	KUNIT_EXPECT_TRUE(test, trap.sprung);
	for (i = 0; i < ARRAY_SIZE(pages); i++)
		KUNIT_EXPECT_PTR_EQ(test, pages[i], t->memory->pages[2 * i]);
	vfio_type1v3_ops.unpin_pages(t->data, BASE << PAGE_SHIFT, ARRAY_SIZE(pages));
	container_check(test);
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_unmap_all(test);
}

/*
 * Owners
 */

/* Whoever looks after the owner's address space lets go of it again. */
static void attach_keeps_users(struct kunit *test)
{
	struct container_test *t = test->priv;
	unsigned int users;

	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 64, 0, RW, false), 0);
	users = users_of(current->mm);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_EXPECT_EQ(test, users_of(current->mm), users);
	container_detach(test, &t->groups[0]);
	mock_fail_next = 1;
	KUNIT_EXPECT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), -ENOMEM);
	KUNIT_EXPECT_EQ(test, users_of(current->mm), users);
	container_check(test);
	container_unmap_all(test);
}

/* A driver's thread, which is not the owner */
struct stranger {
	struct container_test *t;
	struct completion done;
	struct page *page;
	int pinned, copied;
	u64 data;
};

static int stranger_thread(void *arg)
{
	struct stranger *s = arg;

	s->pinned = pin_one_page(s->t, 3, &s->page);
	if (s->pinned == 1)
		vfio_type1v3_ops.unpin_pages(s->t->data, (BASE + 3) << PAGE_SHIFT, 1);
	s->copied = vfio_type1v3_ops.dma_rw(s->t->data, (BASE + 3) << PAGE_SHIFT, &s->data,
					    sizeof(s->data), true);
	complete(&s->done);
	return 0;
}

static void strangers_keep_users(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct stranger *s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);
	struct task_struct *task;
	struct vfio_device *device;
	unsigned int users;

	KUNIT_ASSERT_NOT_NULL(test, s);
	device = kunit_kzalloc(test, sizeof(*device), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, device);
	device->ops = &device_ops;
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	vfio_type1v3_ops.register_device(t->data, device);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 8, 0, RW, false), 0);

	s->t = t;
	s->data = 0x1234;
	init_completion(&s->done);
	users = users_of(current->mm);
	task = kthread_create(stranger_thread, s, "stranger");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	get_task_struct(task);
	wake_up_process(task);
	wait_for_completion(&s->done);
	kthread_stop(task);
	put_task_struct(task);
	KUNIT_EXPECT_EQ(test, s->pinned, 1);
	KUNIT_EXPECT_PTR_EQ(test, s->page, t->memory->pages[3]);
	KUNIT_EXPECT_EQ(test, s->copied, 0);
	KUNIT_EXPECT_EQ(test, *(u64 *)page_address(t->memory->pages[3]), s->data);
	KUNIT_EXPECT_EQ(test, users_of(current->mm), users);
	vfio_type1v3_ops.unregister_device(t->data, device);
	container_unmap_all(test);
}

/* Nobody's memory can be pinned for a new domain any more. */
static void attach_without_owner(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct mm_struct *mm = mm_alloc();
	int ret;

	KUNIT_ASSERT_NOT_NULL(test, mm);
	container_memory(test, false);
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->emulated, NULL), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 64, 0, RW, false), 0);
	give_to(test, mm);
	mmput(mm);
	t->groups[0].kind = &mock_kinds[0];
	ret = vfio_type1v3_ops.attach_group(t->data, test_group(&t->groups[0]), VFIO_IOMMU);
	KUNIT_EXPECT_EQ(test, ret, -ESRCH);
	if (!ret)
		vfio_type1v3_ops.detach_group(t->data, test_group(&t->groups[0]));
	KUNIT_EXPECT_NULL(test, t->groups[0].domain);
	take_back(test);
	container_check(test);
	container_unmap_all(test);
}

/* The owner does not change while a call of the old one is pinning its memory. */
static void update_vaddr_pinning(struct kunit *test)
{
	struct container_test *t = test->priv;
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.flags = VFIO_DMA_UNMAP_FLAG_VADDR,
		.iova = BASE << PAGE_SHIFT,
		.size = 64 << PAGE_SHIFT,
	};
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_VADDR,
		.iova = BASE << PAGE_SHIFT,
		.size = 64 << PAGE_SHIFT,
	};
	struct mm_struct *mm = mm_alloc();

	KUNIT_ASSERT_NOT_NULL(test, mm);
	container_memory(test, false);
	map.vaddr = t->memory->vaddr;
	KUNIT_ASSERT_EQ(test, container_attach(test, &t->groups[0], &mock_kinds[0]), 0);
	KUNIT_ASSERT_EQ(test, container_map(test, 0, 64, 0, RW, false), 0);
	KUNIT_ASSERT_EQ(test, container_ioctl(test, VFIO_IOMMU_UNMAP_DMA, &unmap,
					      sizeof(unmap)), 0);
	give_to(test, mm);
	t->container->pinning++;
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_MAP_DMA, &map,
					      sizeof(map)), -EPERM);
	KUNIT_EXPECT_PTR_EQ(test, t->container->owner.mm, mm);
	t->container->pinning--;
	KUNIT_EXPECT_EQ(test, container_ioctl(test, VFIO_IOMMU_MAP_DMA, &map,
					      sizeof(map)), 0);
	KUNIT_EXPECT_PTR_EQ(test, t->container->owner.mm, current->mm);
	KUNIT_EXPECT_EQ(test, mm->locked_vm, 0);
	KUNIT_EXPECT_EQ(test, users_of(mm), 1);
	mmput(mm);
	container_check(test);
	container_unmap_all(test);
}

#endif /* __VFIO_TYPE1V3_MEANWHILE_H */
