// SPDX-License-Identifier: GPL-2.0-only
/*
 * IOMMUs in software, and VFIO devices behind them
 *
 * An IOMMU of this driver is registered with the IOMMU core as a real one is; its IO
 * page tables are trees of entries, "leaves".  The devices are platform devices, each
 * alone in its group, and their read() and write() are DMA: the address is looked up,
 * the permission checked, the dirty bit set, and the memory copied.  Programs make
 * them as they need them; see vfio_mock_iommu.h.
 *
 * The driver checks the one who maps.  The following is an error on every path, and
 * a warning in the kernel's log:
 *
 *  - an unmap that begins or ends inside of a leaf, or meets a hole;
 *  - a map over a leaf, outside of the aperture or over a reserved region;
 *  - memory that is not pinned where a device could reach it, that is, from the map
 *    until the IOTLB has been synchronised after the unmap;
 *  - leaves that are unmapped, but not synchronised, when the domain is freed;
 *  - a domain that is freed while a device uses it;
 *  - dirty bits that are read where nothing is mapped.
 *
 * Backends find out how a domain unmaps by a trial: they map memory of the kernel,
 * which nobody pins, into an empty domain, and unmap a part of it.  This is no error
 * as long as nothing else is mapped, and no program has that memory.
 *
 * Locking: the mutex of an IOMMU protects all that it translates, and which domain
 * its devices use.  It is innermost; nothing but allocations is called with it held.
 */

#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/fwnode.h>
#include <linux/idr.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/property.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <uapi/linux/iommufd.h>

#include "vfio_mock_iommu_private.h"

static DEFINE_IDA(mock_iommu_ida);
static DEFINE_IDA(mock_device_ida);
static struct workqueue_struct *mock_wq;

void vfio_mock_iommu_free(struct kref *kref)
{
	struct mock_iommu *iommu = container_of(kref, struct mock_iommu, kref);

	mutex_destroy(&iommu->control);
	mutex_destroy(&iommu->lock);
	kfree(iommu);
}

/*
 * What the IOMMU core asks
 */

static struct iommu_domain *
mock_domain_alloc_flags(struct device *dev, u32 flags,
			const struct iommu_user_data *user_data)
{
	struct mock_device *device = dev_iommu_priv_get(dev);
	struct iommu_domain *domain;

	if (flags & ~IOMMU_HWPT_ALLOC_DIRTY_TRACKING || user_data)
		return ERR_PTR(-EOPNOTSUPP);
	if (flags && !(device->iommu->config.flags & VFIO_MOCK_IOMMU_DIRTY))
		return ERR_PTR(-EOPNOTSUPP);
	domain = vfio_mock_domain_alloc(dev);
	if (!IS_ERR(domain) && flags)
		domain->dirty_ops = &vfio_mock_dirty_ops;
	return domain;
}

static bool mock_capable(struct device *dev, enum iommu_cap cap)
{
	struct mock_device *device = dev_iommu_priv_get(dev);

	switch (cap) {
	case IOMMU_CAP_CACHE_COHERENCY:
		return true;
	case IOMMU_CAP_DIRTY_TRACKING:
		return device->iommu->config.flags & VFIO_MOCK_IOMMU_DIRTY;
	default:
		return false;
	}
}

static struct iommu_device *mock_probe_device(struct device *dev)
{
	struct mock_device **device = dev_get_platdata(dev);

	dev_iommu_priv_set(dev, *device);
	return &(*device)->iommu->iommu;
}

static void mock_get_resv_regions(struct device *dev, struct list_head *list)
{
	struct mock_device *device = dev_iommu_priv_get(dev);
	struct vfio_mock_iommu_range *range = device->iommu->config.reserved;
	unsigned int n = ARRAY_SIZE(device->iommu->config.reserved);
	struct iommu_resv_region *region;

	for (; n--; range++) {
		if (!range->last)
			continue;
		/* Without the region, maps of it would be blamed on who was not told. */
		region = iommu_alloc_resv_region(range->first,
						 range->last - range->first + 1,
						 0, IOMMU_RESV_RESERVED,
						 GFP_KERNEL | __GFP_NOFAIL);
		if (region)
			list_add_tail(&region->list, list);
	}
}

static const struct iommu_ops mock_iommu_ops = {
	.owner			= THIS_MODULE,
	.capable		= mock_capable,
	.domain_alloc_paging	= vfio_mock_domain_alloc,
	.domain_alloc_paging_flags = mock_domain_alloc_flags,
	.probe_device		= mock_probe_device,
	.device_group		= generic_device_group,
	.get_resv_regions	= mock_get_resv_regions,
	.page_response		= vfio_mock_page_response,
	.blocked_domain		= &vfio_mock_blocked_domain,
	.default_domain		= &vfio_mock_blocked_domain,
	.release_domain		= &vfio_mock_blocked_domain,
	.default_domain_ops	= &vfio_mock_domain_ops,
};

/* A platform device can be made to match any driver by its driver_override. */
bool vfio_mock_is_ours(struct device *dev)
{
	return dev->iommu && dev->iommu->iommu_dev &&
	       dev->iommu->iommu_dev->ops == &mock_iommu_ops;
}

/*
 * What programs ask
 */

/* What iommu_fwspec_init() has allocated of a device that nobody has seen yet */
static void mock_free_fwspec(struct device *dev)
{
	struct dev_iommu *dev_iommu = dev->iommu;

	if (!dev_iommu)
		return;
	dev->iommu = NULL;
	if (dev_iommu->fwspec) {
		fwnode_handle_put(dev_iommu->fwspec->iommu_fwnode);
		kfree(dev_iommu->fwspec);
	}
	kfree(dev_iommu);
}

/*
 * The IOMMU core asserts that its lock is held, for those that work on devices that
 * are there already.  Modules cannot take it.
 */
static int mock_init_fwspec(struct device *dev, struct fwnode_handle *fwnode)
{
	int ret;

	lockdep_off();
	ret = iommu_fwspec_init(dev, fwnode);
	lockdep_on();
	return ret;
}

static void mock_remove_device(struct mock_device *device)
{
	int id = device->pdev->id;

	/* waits until nobody has it open */
	platform_device_unregister(device->pdev);
	ida_free(&mock_device_ida, id);
	xa_destroy(&device->logged);
	kfree(device);
}

static struct mock_device *mock_add_device(struct mock_iommu *iommu)
{
	struct mock_device *device = kzalloc_obj(*device, GFP_KERNEL);
	struct platform_device *pdev;
	int ret, id;

	if (!device)
		return ERR_PTR(-ENOMEM);
	device->iommu = iommu;
	xa_init(&device->logged);
	INIT_LIST_HEAD(&device->waits);
	init_rwsem(&device->armed);
	id = ida_alloc(&mock_device_ida, GFP_KERNEL);
	if (id < 0) {
		ret = id;
		goto err_free;
	}
	ret = -ENOMEM;
	pdev = platform_device_alloc(VFIO_MOCK_DEVICE_NAME, id);
	if (!pdev)
		goto err_free_id;
	device->pdev = pdev;
	ret = platform_device_add_data(pdev, &device, sizeof(device));
	if (ret)
		goto err_put;
	ret = mock_init_fwspec(&pdev->dev, iommu->iommu.fwnode);
	if (ret)
		goto err_put;
	ret = platform_device_add(pdev);
	if (ret)
		goto err_put;
	if (platform_get_drvdata(pdev))
		return device;

	/* A driver that does not want it is no error for who adds it. */
	mock_remove_device(device);
	return ERR_PTR(-ENODEV);

err_put:
	mock_free_fwspec(&pdev->dev);
	platform_device_put(pdev);
err_free_id:
	ida_free(&mock_device_ida, id);
err_free:
	kfree(device);
	return ERR_PTR(ret);
}

static void mock_remove(struct mock_iommu *iommu)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(iommu->devices); i++)
		if (iommu->devices[i])
			mock_remove_device(iommu->devices[i]);
	iommu_device_unregister(&iommu->iommu);
	iommu_device_sysfs_remove(&iommu->iommu);
	fwnode_remove_software_node(iommu->iommu.fwnode);
	iopf_queue_free(iommu->queue);
	ida_free(&mock_iommu_ida, iommu->id);
	kref_put(&iommu->kref, vfio_mock_iommu_free);
}

static void mock_remove_work(struct work_struct *work)
{
	mock_remove(container_of(work, struct mock_iommu, work));
}

static bool mock_config_is_valid(const struct vfio_mock_iommu_create *config)
{
	u64 all = config->aperture.first | (config->aperture.last + 1);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(config->reserved); i++) {
		all |= config->reserved[i].first;
		if (config->reserved[i].last)
			all |= config->reserved[i].last + 1;
		if (config->reserved[i].first > config->reserved[i].last)
			return false;
	}
	return config->pgsizes && !(config->pgsizes % VFIO_MOCK_IOMMU_MIN_PAGE) &&
	       config->aperture.first <= config->aperture.last &&
	       !(all % VFIO_MOCK_IOMMU_PAGE) &&
	       !(config->flags & ~VFIO_MOCK_IOMMU_FLAGS) &&
	       config->nr_devices &&
	       config->nr_devices <= VFIO_MOCK_IOMMU_MAX_DEVICES;
}

static struct mock_iommu *
mock_create(const struct vfio_mock_iommu_create *config)
{
	struct mock_iommu *iommu = kzalloc_obj(*iommu, GFP_KERNEL);
	struct mock_device *device;
	unsigned int i;
	int ret;

	if (!iommu)
		return ERR_PTR(-ENOMEM);
	kref_init(&iommu->kref);
	mutex_init(&iommu->lock);
	mutex_init(&iommu->control);
	INIT_WORK(&iommu->work, mock_remove_work);
	iommu->config = *config;

	if (config->flags & VFIO_MOCK_IOMMU_FAULTS) {
		iommu->queue = iopf_queue_alloc(VFIO_MOCK_IOMMU_NAME);
		if (!iommu->queue) {
			ret = -ENOMEM;
			goto err_put;
		}
	}
	iommu->id = ida_alloc(&mock_iommu_ida, GFP_KERNEL);
	if (iommu->id < 0) {
		ret = iommu->id;
		goto err_queue;
	}
	iommu->iommu.fwnode = fwnode_create_software_node(NULL, NULL);
	if (IS_ERR(iommu->iommu.fwnode)) {
		ret = PTR_ERR(iommu->iommu.fwnode);
		goto err_free_id;
	}
	ret = iommu_device_sysfs_add(&iommu->iommu, NULL, NULL,
				     VFIO_MOCK_IOMMU_NAME "%d", iommu->id);
	if (ret)
		goto err_fwnode;
	ret = iommu_device_register(&iommu->iommu, &mock_iommu_ops, NULL);
	if (ret)
		goto err_sysfs;

	for (i = 0; i < config->nr_devices; i++) {
		device = mock_add_device(iommu);
		if (IS_ERR(device)) {
			mock_remove(iommu);
			return ERR_CAST(device);
		}
		iommu->devices[i] = device;
	}
	return iommu;

err_sysfs:
	iommu_device_sysfs_remove(&iommu->iommu);
err_fwnode:
	fwnode_remove_software_node(iommu->iommu.fwnode);
err_free_id:
	ida_free(&mock_iommu_ida, iommu->id);
err_queue:
	iopf_queue_free(iommu->queue);
err_put:
	kref_put(&iommu->kref, vfio_mock_iommu_free);
	return ERR_PTR(ret);
}

static long mock_ioctl_create(struct file *file, void __user *user)
{
	struct vfio_mock_iommu_create config;
	struct mock_iommu *iommu;
	unsigned int i;

	if (copy_from_user(&config, user, sizeof(config)))
		return -EFAULT;
	if (!mock_config_is_valid(&config))
		return -EINVAL;
	if (config.flags & VFIO_MOCK_IOMMU_FAULTS && !IS_ENABLED(CONFIG_IOMMU_IOPF))
		return -EOPNOTSUPP;
	iommu = mock_create(&config);
	if (IS_ERR(iommu))
		return PTR_ERR(iommu);

	for (i = 0; i < config.nr_devices; i++)
		config.device[i] = iommu->devices[i]->pdev->id;
	config.tracks = IS_ENABLED(CONFIG_IOMMUFD_DRIVER);
	config.faults = IS_ENABLED(CONFIG_IOMMU_IOPF);
	if (copy_to_user(user, &config, sizeof(config))) {
		mock_remove(iommu);
		return -EFAULT;
	}
	/* Another thread may have done the same. */
	if (cmpxchg_release(&file->private_data, NULL, iommu)) {
		mock_remove(iommu);
		return -EBUSY;
	}
	return 0;
}

static long mock_ioctl_break(struct mock_iommu *iommu, void __user *user)
{
	struct vfio_mock_iommu_break arg;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (arg.map > VFIO_MOCK_BREAK_SHORT || arg.unmap > VFIO_MOCK_BREAK_FORGET)
		return -EINVAL;
	mutex_lock(&iommu->lock);
	iommu->break_at = arg;
	iommu->unmap_ends = false;
	mutex_unlock(&iommu->lock);
	return 0;
}

static long mock_ioctl_state(struct mock_iommu *iommu, void __user *user)
{
	struct vfio_mock_iommu_state state;

	mutex_lock(&iommu->lock);
	state = iommu->state;
	state.map_at = iommu->break_at.map_at;
	state.unmap_at = iommu->break_at.unmap_at;
	mutex_unlock(&iommu->lock);
	return copy_to_user(user, &state, sizeof(state)) ? -EFAULT : 0;
}

static long mock_ioctl_unplug(struct mock_iommu *iommu, unsigned long id)
{
	struct mock_device *device;
	unsigned int i;

	guard(mutex)(&iommu->control);
	for (i = 0; i < ARRAY_SIZE(iommu->devices); i++) {
		device = iommu->devices[i];
		if (device && device->pdev->id == id) {
			iommu->devices[i] = NULL;
			mock_remove_device(device);
			return 0;
		}
	}
	return -ENODEV;
}

static long mock_ioctl_plug(struct mock_iommu *iommu)
{
	struct mock_device *device;
	unsigned int i;

	guard(mutex)(&iommu->control);
	for (i = 0; i < ARRAY_SIZE(iommu->devices); i++) {
		if (iommu->devices[i])
			continue;
		device = mock_add_device(iommu);
		if (IS_ERR(device))
			return PTR_ERR(device);
		iommu->devices[i] = device;
		return device->pdev->id;
	}
	return -ENOSPC;
}

static long mock_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	/* Pairs with cmpxchg_release() in mock_ioctl_create(). */
	struct mock_iommu *iommu = smp_load_acquire(&file->private_data);
	void __user *user = (void __user *)arg;

	if (cmd == VFIO_MOCK_IOMMU_CREATE)
		return iommu ? -EBUSY : mock_ioctl_create(file, user);
	if (!iommu)
		return -ENODEV;
	switch (cmd) {
	case VFIO_MOCK_IOMMU_BREAK:
		return mock_ioctl_break(iommu, user);
	case VFIO_MOCK_IOMMU_STATE:
		return mock_ioctl_state(iommu, user);
	case VFIO_MOCK_IOMMU_UNPLUG:
		return mock_ioctl_unplug(iommu, arg);
	case VFIO_MOCK_IOMMU_PLUG:
		return mock_ioctl_plug(iommu);
	default:
		return -ENOTTY;
	}
}

/* A misc device's open() finds the device there. */
static int mock_open(struct inode *inode, struct file *file)
{
	file->private_data = NULL;
	return 0;
}

/*
 * Who closes the file may be about to close the devices, too: it must not wait for
 * that.  The devices hold the module.
 */
static int mock_release(struct inode *inode, struct file *file)
{
	struct mock_iommu *iommu = file->private_data;

	if (iommu)
		queue_work(mock_wq, &iommu->work);
	return 0;
}

static const struct file_operations mock_fops = {
	.owner		= THIS_MODULE,
	.open		= mock_open,
	.release	= mock_release,
	.unlocked_ioctl	= mock_ioctl,
};

static struct miscdevice mock_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= VFIO_MOCK_IOMMU_NAME,
	.fops	= &mock_fops,
	.mode	= 0600,
};

static int __init mock_init(void)
{
	int ret;

	mock_wq = alloc_workqueue(VFIO_MOCK_IOMMU_NAME, WQ_UNBOUND, 0);
	if (!mock_wq)
		return -ENOMEM;
	ret = platform_driver_register(&vfio_mock_driver);
	if (ret)
		goto err_wq;
	ret = misc_register(&mock_misc);
	if (ret)
		goto err_driver;
	return 0;

err_driver:
	platform_driver_unregister(&vfio_mock_driver);
err_wq:
	destroy_workqueue(mock_wq);
	return ret;
}
module_init(mock_init);

static void __exit mock_exit(void)
{
	misc_deregister(&mock_misc);
	destroy_workqueue(mock_wq);
	platform_driver_unregister(&vfio_mock_driver);
}
module_exit(mock_exit);

MODULE_DESCRIPTION("Mock IOMMUs, and VFIO devices behind them, for tests");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("IOMMUFD");
/* handles of groups; see vfio_mock_iommu_fault.c */
MODULE_IMPORT_NS("IOMMUFD_INTERNAL");
