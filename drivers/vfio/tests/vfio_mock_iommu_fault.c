// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page requests of vfio_mock_iommu: a miss waits for an answer
 *
 * A device whose program asks for it reports each miss of its DMA to the kernel
 * (iommu_report_device_fault()), as IOMMU drivers do with page requests of PCI devices, and
 * the access waits for the page response.  The handler is the domain's: it gives the request
 * to the program, on a file descriptor, and the program's answer to the kernel.
 *
 * The kernel finds a handler only in a group that was attached with a handle
 * (iommu_attach_group_handle()), and containers attach without one.  The handle is
 * therefore put beside the container's domain when the program asks for page requests.  It
 * is gone again when the last file of the device is closed, since the container that lets
 * go of the group does not know of it, and the IOMMU core warns of handles that are left.
 *
 * Locking: @armed of a device (read: a request is on its way to the handler), then the
 * kernel's locks of groups and faults, or the lock of &struct mock_faults and then the
 * kernel's locks of faults; the IOMMU's lock is innermost.
 */

#include <linux/anon_inodes.h>
#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/iommu.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/platform_device.h>
#include <linux/poll.h>
#include <linux/rwsem.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>
#include <linux/wait.h>

#include "iommu-priv.h"
#include "vfio_mock_iommu_private.h"

/**
 * struct mock_faults - the file descriptor on which a program answers page requests
 * @kref: the file, and the device until it is closed
 * @handle: where the kernel finds the handler
 * @lock: protects the members below it
 * @asked: struct iopf_group of requests that the program has not read
 * @read: those that it has read, and not answered
 * @ended: the file or the device is closed: requests are answered INVALID
 * @wait: readers of the file
 */
struct mock_faults {
	struct kref kref;
	struct iommu_attach_handle handle;
	struct mutex lock;	/* the members up to @ended */
	struct list_head asked;
	struct list_head read;
	bool ended;
	wait_queue_head_t wait;
};

/**
 * struct mock_wait - an access that waits for a page response
 * @node: in &mock_device.waits
 * @id: number of the request
 * @code: the answer
 * @done: it has come
 */
struct mock_wait {
	struct list_head node;
	u32 id;
	u32 code;
	struct completion done;
};

static_assert(VFIO_MOCK_RESPONSE_SUCCESS == IOMMU_PAGE_RESP_SUCCESS);
static_assert(VFIO_MOCK_RESPONSE_INVALID == IOMMU_PAGE_RESP_INVALID);
static_assert(VFIO_MOCK_RESPONSE_FAILURE == IOMMU_PAGE_RESP_FAILURE);

/*
 * The device's side
 */

/* An access that was killed does not wait any more: nobody misses the answer. */
void vfio_mock_page_response(struct device *dev, struct iopf_fault *fault,
			     struct iommu_page_response *response)
{
	struct mock_device *device = dev_iommu_priv_get(dev);
	struct mock_wait *wait;

	guard(mutex)(&device->iommu->lock);
	list_for_each_entry(wait, &device->waits, node) {
		if (wait->id != response->grpid)
			continue;
		wait->code = response->code;
		complete(&wait->done);
		return;
	}
}

/**
 * vfio_mock_page_request() - Ask for a page, and wait for the answer
 * @device: the device
 * @iova: address that it has no translation for, or one that forbids the access
 * @write: it is to write there
 *
 * Return: 0 if the access is to be tried again, -EINTR if the task has been killed, -ENXIO
 * if nobody answers or the answer is no.
 */
int vfio_mock_page_request(struct mock_device *device, u64 iova, bool write)
{
	struct iopf_fault fault = {
		.fault.type = IOMMU_FAULT_PAGE_REQ,
		.fault.prm.flags = IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE,
		.fault.prm.perm = write ? IOMMU_FAULT_PERM_WRITE : IOMMU_FAULT_PERM_READ,
		.fault.prm.addr = ALIGN_DOWN(iova, VFIO_MOCK_IOMMU_PAGE),
	};
	struct mock_wait wait = {};
	int ret;

	init_completion(&wait.done);
	scoped_guard(rwsem_read, &device->armed) {
		if (!device->faults)
			return -ENXIO;
		scoped_guard(mutex, &device->iommu->lock) {
			wait.id = ++device->last_request;
			list_add(&wait.node, &device->waits);
		}
		fault.fault.prm.grpid = wait.id;
		/* Whatever it returns, there is a response. */
		iommu_report_device_fault(&device->pdev->dev, &fault);
	}
	ret = wait_for_completion_killable(&wait.done);
	scoped_guard(mutex, &device->iommu->lock)
		list_del(&wait.node);
	if (ret || fatal_signal_pending(current))
		return -EINTR;
	return wait.code == IOMMU_PAGE_RESP_SUCCESS ? 0 : -ENXIO;
}

/*
 * The handler, and the file on which it asks
 */

static void mock_faults_free(struct kref *kref)
{
	struct mock_faults *faults = container_of(kref, struct mock_faults, kref);

	mutex_destroy(&faults->lock);
	kfree(faults);
}

static void mock_answer(struct iopf_group *group, u32 code)
{
	iopf_group_response(group, code);
	iopf_free_group(group);
}

/* A handler that returns an error is answered for with FAILURE. */
int vfio_mock_fault_handler(struct iopf_group *group)
{
	struct mock_faults *faults =
		container_of(group->attach_handle, struct mock_faults, handle);

	guard(mutex)(&faults->lock);
	if (faults->ended) {
		mock_answer(group, IOMMU_PAGE_RESP_INVALID);
		return 0;
	}
	list_add_tail(&group->node, &faults->asked);
	wake_up_all(&faults->wait);
	return 0;
}

/* Nobody waits in vain: not even a task that was killed leaves its request behind. */
static void mock_faults_end(struct mock_faults *faults)
{
	struct iopf_group *group, *next;

	guard(mutex)(&faults->lock);
	faults->ended = true;
	list_splice_init(&faults->read, &faults->asked);
	list_for_each_entry_safe(group, next, &faults->asked, node) {
		list_del(&group->node);
		mock_answer(group, IOMMU_PAGE_RESP_INVALID);
	}
	wake_up_all(&faults->wait);
}

/* Returns 0 at the end, -EAGAIN if nothing is asked now. */
static ssize_t mock_faults_next(struct mock_faults *faults, char __user *user)
{
	struct vfio_mock_fault fault = {};
	struct iommu_fault_page_request *prm;
	struct iopf_group *group;

	guard(mutex)(&faults->lock);
	group = list_first_entry_or_null(&faults->asked, struct iopf_group, node);
	if (!group)
		return faults->ended ? 0 : -EAGAIN;
	prm = &group->last_fault.fault.prm;
	fault.iova = prm->addr;
	fault.id = prm->grpid;
	fault.prot = prm->perm & IOMMU_FAULT_PERM_WRITE ? VFIO_MOCK_LEAF_WRITE :
							  VFIO_MOCK_LEAF_READ;
	if (copy_to_user(user, &fault, sizeof(fault)))
		return -EFAULT;
	list_move_tail(&group->node, &faults->read);
	return sizeof(fault);
}

static ssize_t mock_faults_read(struct file *file, char __user *user, size_t count,
				loff_t *pos)
{
	struct mock_faults *faults = file->private_data;
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	ssize_t ret;

	if (count < sizeof(struct vfio_mock_fault))
		return -EINVAL;
	/* The look takes a mutex, so that it is made while the task is running. */
	add_wait_queue(&faults->wait, &wait);
	for (;;) {
		ret = mock_faults_next(faults, user);
		if (ret != -EAGAIN || file->f_flags & O_NONBLOCK)
			break;
		if (signal_pending(current)) {
			ret = -ERESTARTSYS;
			break;
		}
		wait_woken(&wait, TASK_INTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT);
	}
	remove_wait_queue(&faults->wait, &wait);
	return ret;
}

static ssize_t mock_faults_write(struct file *file, const char __user *user,
				 size_t count, loff_t *pos)
{
	struct mock_faults *faults = file->private_data;
	struct vfio_mock_response response;
	struct iopf_group *group;

	if (count != sizeof(response))
		return -EINVAL;
	if (copy_from_user(&response, user, sizeof(response)))
		return -EFAULT;
	if (response.code > VFIO_MOCK_RESPONSE_FAILURE)
		return -EINVAL;

	/* The device is not closed before the answer has been given: both take the lock. */
	guard(mutex)(&faults->lock);
	list_for_each_entry(group, &faults->read, node) {
		if (group->last_fault.fault.prm.grpid != response.id)
			continue;
		list_del(&group->node);
		mock_answer(group, response.code);
		return sizeof(response);
	}
	return -ENOENT;
}

static __poll_t mock_faults_poll(struct file *file, struct poll_table_struct *table)
{
	struct mock_faults *faults = file->private_data;
	__poll_t mask = EPOLLOUT | EPOLLWRNORM;

	poll_wait(file, &faults->wait, table);
	guard(mutex)(&faults->lock);
	if (!list_empty(&faults->asked))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (faults->ended)
		mask |= EPOLLIN | EPOLLHUP;
	return mask;
}

static int mock_faults_release(struct inode *inode, struct file *file)
{
	struct mock_faults *faults = file->private_data;

	mock_faults_end(faults);
	kref_put(&faults->kref, mock_faults_free);
	return 0;
}

static const struct file_operations mock_faults_fops = {
	.owner		= THIS_MODULE,
	.read		= mock_faults_read,
	.write		= mock_faults_write,
	.poll		= mock_faults_poll,
	.release	= mock_faults_release,
};

/*
 * From VFIO_MOCK_FAULTS until the device is closed
 */

/* What the device's DMA goes to; it stays attached while the device is open. */
static struct iommu_domain *mock_open_domain(struct mock_device *device)
{
	guard(mutex)(&device->iommu->lock);
	return device->domain ? &device->domain->domain : NULL;
}

/* Under the lock: what was asked on it has been answered, too. */
static bool mock_faults_ended(struct mock_faults *faults)
{
	guard(mutex)(&faults->lock);
	return faults->ended;
}

/* Requests of @device go to @faults from now on. */
static int mock_arm(struct mock_device *device, struct mock_faults *faults)
{
	struct iommu_domain *domain = mock_open_domain(device);
	struct iopf_queue *queue = device->iommu->queue;
	struct device *dev = &device->pdev->dev;
	struct mock_faults *old = device->faults;
	int ret;

	lockdep_assert_held_write(&device->armed);
	if (!domain)
		return -ENXIO;
	if (old && !mock_faults_ended(old))
		return -EBUSY;
	if (!old) {
		ret = iopf_queue_add_device(queue, dev);
		if (ret)
			return ret;
	}
	ret = iommu_replace_group_handle(dev->iommu_group, domain, &faults->handle);
	if (ret) {
		if (!old)
			iopf_queue_remove_device(queue, dev);
		return ret;
	}
	kref_get(&faults->kref);
	device->faults = faults;
	if (old)
		kref_put(&old->kref, mock_faults_free);
	return 0;
}

/**
 * vfio_mock_faults_open() - A device's misses become page requests
 * @vdev: what VFIO knows of the device
 * @device: the device
 *
 * Return: a file descriptor, or a negative errno.
 */
int vfio_mock_faults_open(struct vfio_device *vdev, struct mock_device *device)
{
	struct mock_faults *faults;
	struct file *file;
	int fd, ret;

	if (!device->iommu->queue)
		return -EOPNOTSUPP;
	/* Behind iommufd, the handle of the group is iommufd's. */
	if (vfio_iommufd_device_ictx(vdev))
		return -EBUSY;
	faults = kzalloc_obj(*faults, GFP_KERNEL_ACCOUNT);
	if (!faults)
		return -ENOMEM;
	kref_init(&faults->kref);
	mutex_init(&faults->lock);
	INIT_LIST_HEAD(&faults->asked);
	INIT_LIST_HEAD(&faults->read);
	init_waitqueue_head(&faults->wait);

	fd = get_unused_fd_flags(O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		kref_put(&faults->kref, mock_faults_free);
		return fd;
	}
	file = anon_inode_getfile("[vfio_mock_faults]", &mock_faults_fops, faults, O_RDWR);
	if (IS_ERR(file)) {
		kref_put(&faults->kref, mock_faults_free);
		put_unused_fd(fd);
		return PTR_ERR(file);
	}
	/* From here on, the file has the reference. */
	scoped_guard(rwsem_write, &device->armed)
		ret = mock_arm(device, faults);
	if (ret) {
		fput(file);
		put_unused_fd(fd);
		return ret;
	}
	fd_install(fd, file);
	return fd;
}

/**
 * vfio_mock_faults_close() - A device is closed
 * @device: the device, which does no DMA any more
 *
 * The container has the group attached still.  The handle goes only with the domain, which
 * is therefore detached, and attached again without a handle, as the container knows it.
 */
void vfio_mock_faults_close(struct mock_device *device)
{
	struct device *dev = &device->pdev->dev;
	struct mock_faults *faults;
	struct iommu_domain *domain;

	scoped_guard(rwsem_write, &device->armed) {
		faults = device->faults;
		device->faults = NULL;
	}
	if (!faults)
		return;
	mock_faults_end(faults);
	domain = mock_open_domain(device);
	iommu_detach_group_handle(domain, dev->iommu_group);
	/* It was attached, and this IOMMU does not refuse what it had. */
	WARN_ON(iommu_attach_group(domain, dev->iommu_group));
	iopf_queue_remove_device(device->iommu->queue, dev);
	kref_put(&faults->kref, mock_faults_free);
}
