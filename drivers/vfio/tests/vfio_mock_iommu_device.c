// SPDX-License-Identifier: GPL-2.0-only
/*
 * Devices of vfio_mock_iommu: read() and write() are DMA
 */

#include <linux/cleanup.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/iova_bitmap.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>

#include "vfio_mock_iommu_private.h"

/* Bytes that one read() or write() of a device copies through a buffer */
#define MOCK_BUFFER	SZ_64K

/* What mmap() of a device can reach */
#define MOCK_MMAP_LIMIT	SZ_1M

/**
 * struct mock_vfio - what VFIO knows of a device
 * @vdev: what VFIO knows of it
 * @device: the device
 */
struct mock_vfio {
	struct vfio_device vdev;
	struct mock_device *device;
};

/*
 * Copy to or from memory behind one address, neither across a page nor across the end of
 * a leaf.  Returns how much.
 */
static ssize_t mock_dma_page(struct mock_device *device, u64 iova, void *data,
			     size_t size, bool write)
{
	int need = write ? IOMMU_WRITE : IOMMU_READ;
	struct mock_iommu *iommu = device->iommu;
	struct mock_leaf *leaf;
	phys_addr_t phys;
	struct page *page;

	guard(mutex)(&iommu->lock);
	if (device->suspended)
		return -EBUSY;
	leaf = device->domain ? vfio_mock_leaf_at(device->domain, iova) : NULL;
	if (!leaf)
		return -ENXIO;
	if (!(leaf->prot & need))
		return -EACCES;
	phys = leaf->phys + (iova - leaf->first);
	if (!vfio_mock_is_memory(phys, leaf->prot) && (write || !is_zero_pfn(PHYS_PFN(phys))))
		return -EIO;
	if (leaf->trial || !vfio_mock_is_pinned(phys, leaf->prot)) {
		mock_error(iommu, "DMA at IOVA %llx, which is not pinned", iova);
		return -EIO;
	}

	size = min_t(u64, size, leaf->last - iova + 1);
	page = pfn_to_page(PHYS_PFN(phys));
	if (!write) {
		memcpy_from_page(data, page, offset_in_page(phys), size);
		return size;
	}
	/* As the IOTLB believes: a bit that it has seen set is not set again. */
	if (device->domain->tracking && !leaf->clean_unseen)
		leaf->dirty = true;
	memcpy_to_page(page, offset_in_page(phys), data, size);
	/* Not earlier: a report in between would take it for what it will be. */
	if (device->logging)
		xa_store(&device->logged, iova / VFIO_MOCK_IOMMU_PAGE,
			 xa_mk_value(1), GFP_KERNEL | __GFP_NOFAIL);
	return size;
}

/* One page, after its translation has been asked for if that is needed */
static ssize_t mock_dma_or_ask(struct mock_device *device, u64 iova, void *data,
			       size_t size, bool write)
{
	ssize_t ret;
	int err = 0;

	do {
		ret = mock_dma_page(device, iova, data, size, write);
		if (ret != -ENXIO && ret != -EACCES)
			return ret;
		err = vfio_mock_page_request(device, iova, write);
	} while (!err);
	return err == -EINTR ? err : ret;
}

/* How far it came; an error if that is nowhere. */
static ssize_t mock_dma(struct mock_device *device, u64 iova, void *data,
			size_t size, bool write)
{
	size_t done = 0, n;
	ssize_t ret;

	for (; done < size; done += ret) {
		n = min_t(size_t, size - done,
			  VFIO_MOCK_IOMMU_PAGE - (iova + done) % VFIO_MOCK_IOMMU_PAGE);
		ret = mock_dma_or_ask(device, iova + done, data + done, n, write);
		if (ret < 0)
			return done ?: ret;
	}
	return done;
}

static ssize_t mock_vfio_rw(struct vfio_device *vdev, char __user *user,
			    size_t count, loff_t *pos, bool write)
{
	struct mock_vfio *mock = container_of(vdev, struct mock_vfio, vdev);
	size_t left = min_t(size_t, count, MAX_RW_COUNT), n;
	ssize_t ret = 0, done = 0;
	void *data;

	data = kvmalloc(MOCK_BUFFER, GFP_KERNEL);
	if (!data)
		return -ENOMEM;
	for (; left; left -= n) {
		n = min_t(size_t, left, MOCK_BUFFER);
		ret = -EFAULT;
		if (write && copy_from_user(data, user + done, n))
			break;
		ret = mock_dma(mock->device, *pos, data, n, write);
		if (ret < 0)
			break;
		if (!write && copy_to_user(user + done, data, ret)) {
			ret = -EFAULT;
			break;
		}
		*pos += ret;
		done += ret;
		if (ret < n || fatal_signal_pending(current))
			break;
		cond_resched();
	}
	kvfree(data);
	return done ?: ret;
}

static ssize_t mock_vfio_read(struct vfio_device *vdev, char __user *user,
			      size_t count, loff_t *pos)
{
	return mock_vfio_rw(vdev, user, count, pos, false);
}

static ssize_t mock_vfio_write(struct vfio_device *vdev, const char __user *user,
			       size_t count, loff_t *pos)
{
	return mock_vfio_rw(vdev, (char __user *)user, count, pos, true);
}

static int mock_vfio_mmap(struct vfio_device *vdev, struct vm_area_struct *vma)
{
	u64 size = vma->vm_end - vma->vm_start;
	u64 start = (u64)vma->vm_pgoff << PAGE_SHIFT;

	if (start >= MOCK_MMAP_LIMIT || size > MOCK_MMAP_LIMIT - start)
		return -EINVAL;
	/* Nobody writes there: it is the firmware's. */
	if (vma->vm_flags & VM_WRITE)
		return -EPERM;
	vm_flags_clear(vma, VM_MAYWRITE);
	return remap_pfn_range(vma, vma->vm_start, vma->vm_pgoff, size,
			       vma->vm_page_prot);
}

static long mock_vfio_leaf(struct mock_device *device, void __user *user)
{
	struct vfio_mock_leaf arg;
	struct mock_leaf *leaf;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	mutex_lock(&device->iommu->lock);
	leaf = device->domain ? vfio_mock_leaf_at(device->domain, arg.iova) : NULL;
	if (leaf) {
		arg.iova = leaf->first;
		arg.size = vfio_mock_leaf_size(leaf);
		arg.phys = leaf->phys;
		arg.prot = 0;
		if (leaf->prot & IOMMU_READ)
			arg.prot |= VFIO_MOCK_LEAF_READ;
		if (leaf->prot & IOMMU_WRITE)
			arg.prot |= VFIO_MOCK_LEAF_WRITE;
		if (leaf->dirty)
			arg.prot |= VFIO_MOCK_LEAF_DIRTY;
	}
	mutex_unlock(&device->iommu->lock);
	if (!leaf)
		return -ENXIO;
	return copy_to_user(user, &arg, sizeof(arg)) ? -EFAULT : 0;
}

static long mock_vfio_ioctl(struct vfio_device *vdev, unsigned int cmd,
			    unsigned long arg)
{
	struct mock_vfio *mock = container_of(vdev, struct mock_vfio, vdev);

	switch (cmd) {
	case VFIO_MOCK_LEAF:
		return mock_vfio_leaf(mock->device, (void __user *)arg);
	case VFIO_MOCK_FAULTS:
		return vfio_mock_faults_open(vdev, mock->device);
	default:
		return -ENOTTY;
	}
}

static int mock_log_stop(struct vfio_device *vdev)
{
	struct mock_vfio *mock = container_of(vdev, struct mock_vfio, vdev);

	/* DMA that saw @logging has been recorded, so that the next START finds nothing. */
	guard(mutex)(&mock->device->iommu->lock);
	mock->device->logging = false;
	xa_destroy(&mock->device->logged);
	return 0;
}

/* It has room for all that there is, not only for the ranges that are asked for. */
static int mock_log_start(struct vfio_device *vdev, struct rb_root_cached *ranges,
			  u32 nnodes, u64 *page_size)
{
	struct mock_vfio *mock = container_of(vdev, struct mock_vfio, vdev);

	guard(mutex)(&mock->device->iommu->lock);
	if (mock->device->logging)
		return -EINVAL;
	*page_size = VFIO_MOCK_IOMMU_PAGE;
	mock->device->logging = true;
	return 0;
}

static int mock_log_read(struct vfio_device *vdev, unsigned long iova,
			 unsigned long length, struct iova_bitmap *bitmap)
{
	struct mock_vfio *mock = container_of(vdev, struct mock_vfio, vdev);
	unsigned long last = (iova + length - 1) / VFIO_MOCK_IOMMU_PAGE;
	unsigned long index;
	void *entry;

	scoped_guard(mutex, &mock->device->iommu->lock)
		if (!mock->device->logging)
			return -EINVAL;
	xa_for_each_range(&mock->device->logged, index, entry,
			  iova / VFIO_MOCK_IOMMU_PAGE, last) {
		xa_erase(&mock->device->logged, index);
		iova_bitmap_set(bitmap, index * VFIO_MOCK_IOMMU_PAGE,
				VFIO_MOCK_IOMMU_PAGE);
	}
	return 0;
}

static const struct vfio_log_ops mock_log_ops = {
	.log_start		= mock_log_start,
	.log_stop		= mock_log_stop,
	.log_read_and_clear	= mock_log_read,
};

static struct file *mock_set_state(struct vfio_device *vdev,
				   enum vfio_device_mig_state state)
{
	struct mock_vfio *mock = container_of(vdev, struct mock_vfio, vdev);

	if (state != VFIO_DEVICE_STATE_STOP && state != VFIO_DEVICE_STATE_RUNNING)
		return ERR_PTR(-EOPNOTSUPP);
	/* DMA that is under way comes to its end first. */
	guard(mutex)(&mock->device->iommu->lock);
	mock->device->suspended = state == VFIO_DEVICE_STATE_STOP;
	return NULL;
}

static int mock_get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct mock_vfio *mock = container_of(vdev, struct mock_vfio, vdev);

	guard(mutex)(&mock->device->iommu->lock);
	*state = mock->device->suspended ? VFIO_DEVICE_STATE_STOP :
					   VFIO_DEVICE_STATE_RUNNING;
	return 0;
}

static int mock_get_data_size(struct vfio_device *vdev, unsigned long *length)
{
	*length = 0;
	return 0;
}

static const struct vfio_migration_ops mock_mig_ops = {
	.migration_set_state	= mock_set_state,
	.migration_get_state	= mock_get_state,
	.migration_get_data_size = mock_get_data_size,
};

static int mock_vfio_init(struct vfio_device *vdev)
{
	struct mock_vfio *mock = container_of(vdev, struct mock_vfio, vdev);
	struct mock_device **device = dev_get_platdata(vdev->dev);

	mock->device = *device;
	vdev->mig_ops = &mock_mig_ops;
	/* Without it VFIO has no bitmaps. */
	if (IS_ENABLED(CONFIG_IOMMUFD_DRIVER))
		vdev->log_ops = &mock_log_ops;
	return 0;
}

static int mock_vfio_open(struct vfio_device *vdev)
{
	return 0;
}

static void mock_vfio_close(struct vfio_device *vdev)
{
	struct mock_vfio *mock = container_of(vdev, struct mock_vfio, vdev);

	vfio_mock_faults_close(mock->device);
	mock_log_stop(vdev);
	mock_set_state(vdev, VFIO_DEVICE_STATE_RUNNING);
}

static const struct vfio_device_ops mock_vfio_ops = {
	.name		= VFIO_MOCK_DEVICE_NAME,
	.init		= mock_vfio_init,
	.open_device	= mock_vfio_open,
	.close_device	= mock_vfio_close,
	.read		= mock_vfio_read,
	.write		= mock_vfio_write,
	.mmap		= mock_vfio_mmap,
	.ioctl		= mock_vfio_ioctl,
	.bind_iommufd	= vfio_iommufd_physical_bind,
	.unbind_iommufd	= vfio_iommufd_physical_unbind,
	.attach_ioas	= vfio_iommufd_physical_attach_ioas,
	.detach_ioas	= vfio_iommufd_physical_detach_ioas,
};

static int mock_driver_probe(struct platform_device *pdev)
{
	struct mock_vfio *mock;
	int ret;

	if (!vfio_mock_is_ours(&pdev->dev))
		return -ENODEV;
	mock = vfio_alloc_device(mock_vfio, vdev, &pdev->dev, &mock_vfio_ops);
	if (IS_ERR(mock))
		return PTR_ERR(mock);
	ret = vfio_register_group_dev(&mock->vdev);
	if (ret)
		vfio_put_device(&mock->vdev);
	else
		platform_set_drvdata(pdev, mock);
	return ret;
}

static void mock_driver_remove(struct platform_device *pdev)
{
	struct mock_vfio *mock = platform_get_drvdata(pdev);

	vfio_unregister_group_dev(&mock->vdev);
	vfio_put_device(&mock->vdev);
}

struct platform_driver vfio_mock_driver = {
	.probe	= mock_driver_probe,
	.remove	= mock_driver_remove,
	.driver_managed_dma = true,
	.driver	= {
		.name = VFIO_MOCK_DEVICE_NAME,
		.suppress_bind_attrs = true,
		/* who adds a device looks whether it is bound */
		.probe_type = PROBE_FORCE_SYNCHRONOUS,
	},
};
