// SPDX-License-Identifier: GPL-2.0-only
/*
 * Emulated devices, whose drivers pin pages and copy data
 *
 * Drivers reach user memory with the mutex held, so that an unmap comes before or after,
 * and never wait for it then: a page that is missing is faulted in without the mutex,
 * and with nothing pinned, and the access begins again where it was.
 *
 * No IO page table is changed here.
 */

#include <linux/export.h>
#include <linux/iommu.h>
#include <linux/kthread.h>
#include <linux/overflow.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>

#include "vfio_dma_emulated.h"
#include "vfio_dma_group.h"
#include "vfio_dma_extpin.h"
#include "vfio_type1v3_trace.h"

/* How often memory may be gone again that user space has just provided */
#define FAULT_RETRIES	10

/* After the mutex was dropped: does memory still belong to the same process? */
static int still_owner(const struct vfio_dma_container *container,
		       const struct mm_struct *mm)
{
	lockdep_assert_held(&container->lock);

	if (container->vaddr_invalid)
		return -EBUSY;
	return container->owner.mm == mm ? 0 : -EINVAL;
}

/* Undo what pin_vaddr() did. */
static void unpin_value(struct vfio_dma_container *container,
			unsigned long value, bool dirty)
{
	bool charged = value & VFIO_DMA_EXTPIN_CHARGED &&
		       !WARN_ON_ONCE(!container->owner.mm);
	unsigned long pfn = vfio_dma_extpin_pfn(value), uncharge = 0;

	lockdep_assert_held(&container->lock);

	if (charged)
		uncharge = vfio_dma_unhold(&container->owner, pfn, 1);
	vfio_dma_unpin(pfn, 1, dirty);
	if (charged)
		vfio_dma_give_back(&container->owner, 1, uncharge);
}

/*
 * Enter a page that has been pinned, and is not charged unless @charged.  The charge comes
 * before the entry, or others could find the page known meanwhile.
 */
static int hold_page(struct vfio_dma_owner *owner, unsigned long pfn, bool charged)
{
	int ret = charged ? 0 : vfio_dma_charge(owner, 1);

	if (ret == -ENOMEM && vfio_dma_hold_known(owner, pfn))
		return 0;
	/* Held, and charged for others */
	if (!ret && !vfio_dma_hold(owner, pfn, 1))
		vfio_dma_give_back(owner, 0, 1);
	return ret;
}

/*
 * Pin what is at the address of page @index, charge for it unless that is done, and
 * set @value to its word.  -EAGAIN: that would have to wait for user space, or for a
 * disk.
 */
static int pin_vaddr(struct vfio_dma_container *container, unsigned long index,
		     unsigned long word, unsigned long *value)
{
	unsigned long vaddr = vfio_xa_dma_vaddr(word, index), pfn;
	unsigned long held = VFIO_DMA_NOT_HELD;
	bool has_domain = vfio_dma_has_domain(container);
	struct vfio_dma_owner *owner = &container->owner;
	long charged = !has_domain;
	struct page *page;
	int ret = 0;

	lockdep_assert_held(&container->lock);

	if (charged)
		ret = vfio_dma_charge(owner, 1);
	if (ret == -ENOMEM && owner->ledger) {
		charged = 0;
		ret = vfio_dma_pin_hold(owner, vaddr, word & VFIO_XA_DMA_WRITE,
					false, &held);
	}
	if (ret)
		return ret;
	if (!vfio_dma_pin_present(owner->mm, vaddr, word & VFIO_XA_DMA_WRITE,
				  &page)) {
		vfio_dma_uncharge(owner, charged);
		ret = -EAGAIN;
		goto out_drop;
	}

	pfn = page_to_pfn(page);
	*value = vfio_dma_extpin_word(pfn);
	if (word & VFIO_XA_DMA_WRITE)
		*value |= VFIO_DMA_EXTPIN_WRITE;
	/* The address may have got another page since it was mapped. */
	if (has_domain &&
	    vfio_dma_domain_maps_pfn(vfio_dma_space_first(&container->space),
				     vfio_dma_iova(index), pfn))
		return 0;
	if (held == pfn) {
		/* A held page is entered already, and charged for others. */
		held = VFIO_DMA_NOT_HELD;
		vfio_dma_give_back(owner, -1, 0);
	} else if (held != VFIO_DMA_NOT_HELD) {
		ret = -EAGAIN;
	} else {
		ret = hold_page(owner, pfn, charged);
	}
	if (ret)
		vfio_dma_unpin(pfn, 1, false);
	else
		*value |= VFIO_DMA_EXTPIN_CHARGED;
out_drop:
	vfio_dma_pin_drop(owner, held);
	return ret;
}

/* Pin one page for a driver, if it is there; otherwise it is -EAGAIN. */
static int pin_page(struct vfio_dma_container *container, unsigned long index,
		    int prot, bool alive, struct page **page)
{
	unsigned long word, value;
	int ret;

	lockdep_assert_held(&container->lock);

	word = vfio_dma_record_load(&container->record, index);
	if (!word || word & VFIO_XA_DMA_PENDING ||
	    vfio_dma_extpin_releasing(container, index))
		return -EINVAL;
	if (prot & ~(word & VFIO_DMA_RIGHTS))
		return -EPERM;
	/* The domain has device memory there, and pins are of ordinary pages. */
	if (word & VFIO_XA_DMA_PFNMAP && vfio_dma_has_domain(container))
		return -EINVAL;

	/* Whatever is at the address now, it is this page that is mapped. */
	value = vfio_xa_dma_load(&container->extpins, index);
	if (value) {
		if (!(~value & VFIO_DMA_EXTPIN_COUNT_MASK))
			return -EOVERFLOW;
		vfio_dma_extpin_set(container, index, value,
				    value + VFIO_DMA_EXTPIN_ONE);
		*page = pfn_to_page(vfio_dma_extpin_pfn(value));
		return 0;
	}

	if (!alive)
		return -ENODEV;
	ret = pin_vaddr(container, index, word, &value);
	if (ret)
		return ret;

	ret = vfio_xa_dma_insert(&container->extpins, index, index, value,
				 VFIO_DMA_GFP);
	if (ret)
		unpin_value(container, value, false);
	else
		*page = pfn_to_page(vfio_dma_extpin_pfn(value));
	return ret;
}

/* Unpin a page that the driver has had, or if not @used, has not been told of yet. */
static void unpin_page(struct vfio_dma_container *container,
		       unsigned long index, bool used)
{
	unsigned long more = VFIO_DMA_EXTPIN_COUNT_MASK ^ VFIO_DMA_EXTPIN_ONE;
	unsigned long value;

	lockdep_assert_held(&container->lock);

	value = vfio_xa_dma_take(&container->extpins, index, more);
	if (!value || value & more) {
		value = value ?: vfio_xa_dma_load(&container->extpins, index);
		if (WARN_ONCE(!value,
			      "vfio_iommu_type1v3: unpin of a page that is not pinned\n"))
			return;
		if (value & more) {
			vfio_dma_extpin_set(container, index, value,
					    value - VFIO_DMA_EXTPIN_ONE);
			return;
		}
		vfio_xa_dma_cut(&container->extpins, index, index,
				GFP_KERNEL | __GFP_NOFAIL);
		vfio_xa_dma_erase(&container->extpins, index, index);
	}

	if (used)
		vfio_dma_set_dirty(container, index, index);
	unpin_value(container, value, used && value & VFIO_DMA_EXTPIN_WRITE);
}

static int check_pin_range(dma_addr_t iova, int npage)
{
	dma_addr_t last;

	if (npage <= 0)
		return -EINVAL;
	if (check_add_overflow(iova, ((dma_addr_t)npage << PAGE_SHIFT) - 1,
			       &last))
		return -EOVERFLOW;
	return 0;
}

/*
 * Pin pages for a driver, all or none, without waiting for memory, as the mutex is
 * held: pins that the driver has not been told of yet must not be seen by an
 * unmap, which would ask for them back.  -EAGAIN: page @missing is not there.
 */
static int try_pin(struct vfio_dma_container *container, unsigned long first,
		   int npage, int prot, bool alive, struct page **pages,
		   int *missing)
{
	int ret, i;

	lockdep_assert_held(&container->lock);

	for (i = 0; i < npage; i++) {
		ret = pin_page(container, first + i, prot, alive, &pages[i]);
		if (ret)
			goto err_unpin;
	}
	return 0;

err_unpin:
	*missing = i;
	pages[i] = NULL;
	while (i--) {
		unpin_page(container, first + i, false);
		pages[i] = NULL;
	}
	return ret;
}

/*
 * Wait until the memory from page @first on is there.  Called with the mutex held,
 * returns with it held; it is dropped in between.  Nothing stays pinned.  Pages
 * pinned while the next one is waited for, which can be long, are charged; at the limit
 * one page is waited for, and not pinned.
 */
static int fault_in_pages_drops_lock(struct vfio_dma_container *container,
				     unsigned long first, unsigned long last)
{
	struct vfio_dma_owner owner = container->owner;
	struct mm_struct *mm = owner.mm;
	bool may_be_charged = vfio_dma_has_domain(container) || owner.ledger;
	unsigned long charge, npages, vaddr;
	struct vfio_xa_dma_run run;
	struct vfio_dma_pin pin;
	bool write;
	int ret;

	lockdep_assert_held(&container->lock);

	vfio_dma_record_next(&container->record, first, last, &run);
	npages = vfio_dma_run_pages(&run);
	vaddr = vfio_xa_dma_vaddr(run.word, first);
	write = run.word & VFIO_XA_DMA_WRITE;
	charge = npages - vfio_dma_extpin_count(container, first, run.last);
	/* The container can be somebody else's soon. */
	get_task_struct(owner.task);
	owner.npages = 0;
	owner.ledger = NULL;
	mutex_unlock(&container->lock);

	ret = vfio_dma_charge(&owner, charge);
	if (!ret) {
		vfio_dma_pin_start(&pin, mm, vaddr, npages, write);
		ret = vfio_dma_pin_step(&pin);
		/* Device memory cannot be pinned. */
		if (!ret && !pin.size)
			ret = -EINVAL;
		vfio_dma_pin_finish(&pin);
		vfio_dma_uncharge(&owner, charge);
	} else if (ret == -ENOMEM && may_be_charged) {
		/* The page may be mapped, and charged. */
		ret = vfio_dma_pin_wait(mm, vaddr, write);
	}

	put_task_struct(owner.task);
	mutex_lock(&container->lock);
	return ret ?: still_owner(container, mm);
}

/**
 * vfio_dma_pin_pages() - vfio_pin_pages()
 * @iommu_data: the container
 * @iommu_group: the group of the device
 * @iova: first address
 * @npage: number of pages
 * @prot: IOMMU_READ, IOMMU_WRITE
 * @pages: set to the pages
 *
 * Context: Process context, may sleep for as long as user space needs to provide
 * memory.  Takes and releases the container's mutex.
 * Return: @npage; -EINVAL where nothing is mapped, or device memory is; -EPERM for
 * access that the mapping does not have; -EBUSY during a live update; -ENODEV if the
 * owner is gone; -EOVERFLOW for too many pins of a page; -EFAULT if there is no user
 * memory; -EINTR on a fatal signal; -ENOMEM at a limit or without memory; -EOPNOTSUPP if
 * the record has no addresses.
 */
int vfio_dma_pin_pages(void *iommu_data, struct iommu_group *iommu_group,
		       dma_addr_t iova, int npage, int prot,
		       struct page **pages)
{
	unsigned long first = iova >> PAGE_SHIFT, retries;
	struct vfio_dma_group_domain *domain;
	struct vfio_dma_container *container;
	struct vfio_dma_group *group;
	bool alive = true, foreign = false;
	struct mm_struct *mm;
	int ret, missing;

	ret = check_pin_range(iova, npage);
	if (ret)
		return ret;
	container = vfio_dma_container_of_driver(iommu_data);
	if (!container)
		return -EINVAL;
	if (unlikely(!vfio_dma_record_has_vaddr(&container->record)))
		return -EOPNOTSUPP;

	if (mutex_lock_killable(&container->lock))
		return -EINTR;
	ret = -EBUSY;
	if (WARN_ONCE(container->vaddr_invalid,
		      "vfio_pin_pages() during a live update\n"))
		goto out_unlock;
	/* Somebody has to give the pages back when they are unmapped. */
	ret = -EINVAL;
	mm = container->owner.mm;
	if (list_empty(&container->devices) || !mm)
		goto out_unlock;

	if (mm != current->mm) {
		foreign = mmget_not_zero(mm);
		alive = foreign;
	}
	/* Each page may be missing, and again: fork() takes all of private memory away. */
	retries = (unsigned long)npage * FAULT_RETRIES;
	while ((ret = try_pin(container, first, npage, prot, alive, pages,
			      &missing)) == -EAGAIN) {
		ret = -EFAULT;
		if (retries--)
			ret = fault_in_pages_drops_lock(container,
							first + missing,
							first + npage - 1);
		if (ret)
			break;
	}
	if (ret)
		goto out_unlock;

	group = vfio_dma_find_group(container, iommu_group, &domain);
	if (group)
		group->dirties_unseen = false;
	ret = npage;

out_unlock:
	vfio_dma_count(container, VFIO_DMA_OP_PIN, max(ret, 0), min(ret, 0));
	trace_type1v3_pin(container->id, iova, npage, prot, ret);
	if (ret < 0)
		trace_type1v3_error(container->id, "pin_pages", ret);
	mutex_unlock(&container->lock);
	/* The reference may be the last one: not with the mutex. */
	if (foreign)
		mmput(mm);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_pin_pages, "VFIO_DMA");

/**
 * vfio_dma_unpin_pages() - vfio_unpin_pages()
 * @iommu_data: the container
 * @iova: first address
 * @npage: number of pages
 *
 * Context: Process context, may sleep.  Takes and releases the container's mutex.
 */
void vfio_dma_unpin_pages(void *iommu_data, dma_addr_t iova, int npage)
{
	struct vfio_dma_container *container;
	int i;

	if (WARN_ON(check_pin_range(iova, npage)))
		return;
	container = vfio_dma_container_of_driver(iommu_data);
	if (!container)
		return;

	mutex_lock(&container->lock);
	for (i = 0; i < npage; i++)
		unpin_page(container, (iova >> PAGE_SHIFT) + i, true);
	vfio_dma_count(container, VFIO_DMA_OP_UNPIN, npage, 0);
	trace_type1v3_unpin(container->id, iova, npage);
	mutex_unlock(&container->lock);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_unpin_pages, "VFIO_DMA");

/* Add a device to those that are told of unmaps, or remove it. */
static void list_device(void *iommu_data, struct vfio_device *vdev, bool open)
{
	struct vfio_dma_container *container;

	if (!vdev->ops->dma_unmap)
		return;
	container = vfio_dma_container_get(iommu_data);
	if (!container)
		return;

	mutex_lock(&container->devices_lock);
	mutex_lock(&container->lock);
	if (open)
		list_add(&vdev->iommu_entry, &container->devices);
	else
		list_del(&vdev->iommu_entry);
	mutex_unlock(&container->lock);
	mutex_unlock(&container->devices_lock);
	vfio_dma_container_put(container);
}

/**
 * vfio_dma_register_device() - a device is opened
 * @iommu_data: the container
 * @vdev: the device; nothing is done if it cannot be told of unmaps
 *
 * Context: Process context, may sleep.  Takes and releases both mutexes.
 */
void vfio_dma_register_device(void *iommu_data, struct vfio_device *vdev)
{
	list_device(iommu_data, vdev, true);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_register_device, "VFIO_DMA");

/**
 * vfio_dma_unregister_device() - a device is closed
 * @iommu_data: the container
 * @vdev: the device
 *
 * Context: Process context, may sleep.  Takes and releases both mutexes.
 */
void vfio_dma_unregister_device(void *iommu_data, struct vfio_device *vdev)
{
	list_device(iommu_data, vdev, false);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_unregister_device, "VFIO_DMA");

/* Where the owner has what is at an IOVA, in an address space that is in use */
static void __user *user_address(unsigned long word, dma_addr_t iova)
{
	return (void __user *)vfio_xa_dma_vaddr(word, iova >> PAGE_SHIFT) +
	       (iova & ~PAGE_MASK);
}

/*
 * Copy within a run.  -EAGAIN: the last @missing bytes of it are not there.  Inline
 * it saves 36 instructions of a copy.
 */
static __always_inline int copy_run(struct vfio_dma_container *container,
				    unsigned long word, dma_addr_t iova,
				    void *data, size_t count, bool write,
				    size_t *missing)
{
	void __user *user = user_address(word, iova);
	size_t left;

	lockdep_assert_held(&container->lock);

	if (!word || word & VFIO_XA_DMA_PENDING)
		return -EINVAL;
	if (!(word & VFIO_XA_DMA_READ) ||
	    (write && !(word & VFIO_XA_DMA_WRITE)))
		return -EPERM;

	pagefault_disable();
	left = write ? copy_to_user(user, data, count) :
		       copy_from_user(data, user, count);
	pagefault_enable();
	if (write && left < count)
		vfio_dma_set_dirty(container, iova >> PAGE_SHIFT,
				   (iova + count - left - 1) >> PAGE_SHIFT);
	*missing = left;
	return left ? -EAGAIN : 0;
}

/*
 * Wait until some of the owner's memory is there.  Called with the mutex held,
 * returns with it held; it is dropped in between.
 */
static int fault_in_drops_lock(struct vfio_dma_container *container,
			       void __user *user, size_t count, bool write)
{
	struct mm_struct *mm = container->owner.mm;
	size_t left;

	lockdep_assert_held(&container->lock);

	mutex_unlock(&container->lock);
	left = write ? fault_in_safe_writeable(user, count) :
		       fault_in_readable(user, count);
	mutex_lock(&container->lock);
	return left == count ? -EFAULT : still_owner(container, mm);
}

/*
 * Copy from or to the address space in use, which is the owner's.  Called with the
 * mutex held, returns with it held; it may be dropped in between.
 */
static int copy_drops_lock(struct vfio_dma_container *container,
			   dma_addr_t iova, void *data, size_t count,
			   bool write)
{
	unsigned int retries = FAULT_RETRIES;
	dma_addr_t last = iova + count - 1;
	struct vfio_xa_dma_run run;
	size_t size, missing;
	int ret;

	lockdep_assert_held(&container->lock);

	while (count) {
		if (!vfio_dma_record_next(&container->record, iova >> PAGE_SHIFT,
					  last >> PAGE_SHIFT, &run) ||
		    run.first != iova >> PAGE_SHIFT)
			return -EINVAL;
		size = min(count, (vfio_dma_run_pages(&run) << PAGE_SHIFT) -
			   (iova & ~PAGE_MASK));
		ret = copy_run(container, run.word, iova, data, size, write,
			       &missing);
		if (ret && ret != -EAGAIN)
			return ret;

		size -= missing;
		iova += size;
		data += size;
		count -= size;
		if (size)
			retries = FAULT_RETRIES;
		if (!missing) {
			cond_resched();
			continue;
		}
		if (!retries--)
			return -EFAULT;
		ret = fault_in_drops_lock(container,
					  user_address(run.word, iova), missing,
					  write);
		if (ret)
			return ret;
	}
	return 0;
}

/* A caller that is not the owner must be a kernel thread, to use its address space. */
static int
copy_foreign_drops_lock(struct vfio_dma_container *container, dma_addr_t iova,
			void *data, size_t count, bool write)
{
	struct mm_struct *mm = container->owner.mm;
	int ret = -EFAULT;

	lockdep_assert_held(&container->lock);

	if (!mmget_not_zero(mm))
		return -EPERM;
	if (current->flags & PF_KTHREAD && !current->mm) {
		kthread_use_mm(mm);
		ret = copy_drops_lock(container, iova, data, count, write);
		kthread_unuse_mm(mm);
	}
	/* The reference may be the last one: not with the mutex. */
	mmput_async(mm);
	return ret;
}

/**
 * vfio_dma_copy() - vfio_dma_rw(): copy from or to user memory
 * @iommu_data: the container
 * @iova: first address
 * @data: kernel memory
 * @count: bytes
 * @write: to user memory
 *
 * Context: Process context, may sleep for as long as user space needs to provide
 * memory.  Takes and releases the container's mutex.
 * Return: 0; -EINVAL where nothing is mapped; -EPERM for access that the mapping does
 * not have; -EOVERFLOW; -EBUSY during a live update; -EFAULT if there is no user memory;
 * -EINTR on a fatal signal; -EOPNOTSUPP if the record has no addresses.
 */
int vfio_dma_copy(void *iommu_data, dma_addr_t iova, void *data, size_t count,
		  bool write)
{
	struct vfio_dma_container *container;
	unsigned long word;
	dma_addr_t last;
	size_t missing;
	int ret;

	if (!count)
		return 0;
	if (check_add_overflow(iova, count - 1, &last))
		return -EOVERFLOW;
	container = vfio_dma_container_of_driver(iommu_data);
	if (!container)
		return -EINVAL;
	if (unlikely(!vfio_dma_record_has_vaddr(&container->record)))
		return -EOPNOTSUPP;

	if (mutex_lock_killable(&container->lock))
		return -EINTR;
	ret = -EBUSY;
	if (WARN_ONCE(container->vaddr_invalid,
		      "vfio_dma_rw() during a live update\n"))
		goto out_unlock;
	ret = -EINVAL;
	if (!container->owner.mm)
		goto out_unlock;

	if (container->owner.mm != current->mm) {
		ret = copy_foreign_drops_lock(container, iova, data, count,
					      write);
		goto out_unlock;
	}
	ret = -EAGAIN;
	if (!((iova ^ last) >> PAGE_SHIFT)) {
		/* A page is in one run, whose end need not be found: 190 instructions less */
		word = vfio_dma_record_load(&container->record, iova >> PAGE_SHIFT);
		ret = copy_run(container, word, iova, data, count,
			       write, &missing);
	}
	if (ret == -EAGAIN)
		ret = copy_drops_lock(container, iova, data, count, write);

out_unlock:
	vfio_dma_count(container, VFIO_DMA_OP_RW,
		       ret ? 0 : PFN_UP((iova & ~PAGE_MASK) + count), ret);
	if (ret)
		trace_type1v3_error(container->id, "dma_rw", ret);
	mutex_unlock(&container->lock);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_copy, "VFIO_DMA");
