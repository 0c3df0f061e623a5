// SPDX-License-Identifier: GPL-2.0-only
/*
 * type1v3: a VFIO container backend for page-granular DMA mapping
 *
 * The backend speaks the ioctls of vfio_iommu_type1, for programs that map and unmap
 * guest memory page by page.  This file is what user space and VFIO see of it:
 * parameters, arguments of ioctls, capabilities.  The work is done by the
 * engine, vfio_dma_*, which records one packed word per page, or for
 * VFIO_TYPE1v3_PT_IOMMU one per 512 pages, beside the IO page table.
 *
 * Nothing here maps, pins or waits for user memory.
 */

#include <kunit/visibility.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>

#include <uapi/linux/vfio_type1v3.h>

#include "vfio_dma_batch.h"
#include "vfio_dma_container.h"
#include "vfio_dma_debugfs.h"
#include "vfio_dma_dirty.h"
#include "vfio_dma_emulated.h"
#include "vfio_dma_group.h"
#include "vfio_dma_map.h"
#include "vfio_dma_unmap.h"
#include "vfio_type1v3.h"
#include "vfio_type1v3_trace.h"

VISIBLE_IF_KUNIT struct vfio_dma_policy vfio_type1v3_policy;
EXPORT_SYMBOL_IF_KUNIT(vfio_type1v3_policy);

module_param_named(allow_unsafe_interrupts,
		   vfio_type1v3_policy.allow_unsafe_interrupts, bool, 0644);
MODULE_PARM_DESC(allow_unsafe_interrupts,
		 "Accept devices on platforms without interrupt remapping");

module_param_named(disable_hugepages, vfio_type1v3_policy.disable_hugepages,
		   bool, 0644);
MODULE_PARM_DESC(disable_hugepages, "Never use IOMMU superpages");

module_param_named(disable_device_memory,
		   vfio_type1v3_policy.disable_device_memory, bool, 0644);
MODULE_PARM_DESC(disable_device_memory,
		 "Do not map BARs and other memory of devices, which are not pinned and stay mapped when the device is gone");

/* The type that type1's numbers stand for; 0 if they are none of ours */
static unsigned long alias_type1;

static int set_alias(const char *value, const struct kernel_param *param)
{
	bool on = true;
	int ret = 0;

	if (value && sysfs_streq(value, "pt")) {
		WRITE_ONCE(alias_type1, VFIO_TYPE1v3_PT_IOMMU);
		return 0;
	}
	if (value)
		ret = kstrtobool(value, &on);
	if (!ret)
		WRITE_ONCE(alias_type1, on ? VFIO_TYPE1v3_IOMMU : 0);
	return ret;
}

static int get_alias(char *buffer, const struct kernel_param *param)
{
	unsigned long alias = READ_ONCE(alias_type1);
	const char *value = "N";

	if (alias)
		value = alias == VFIO_TYPE1v3_PT_IOMMU ? "pt" : "Y";
	return sysfs_emit(buffer, "%s\n", value);
}

static const struct kernel_param_ops alias_ops = {
	.flags	= KERNEL_PARAM_OPS_FL_NOARG,
	.set	= set_alias,
	.get	= get_alias,
};

module_param_cb(alias_type1, &alias_ops, NULL, 0644);
__MODULE_PARM_TYPE(alias_type1, "bool or pt");
MODULE_PARM_DESC(alias_type1,
		 "Also answer to VFIO_TYPE1_IOMMU and VFIO_TYPE1v2_IOMMU; pt: as VFIO_TYPE1v3_PT_IOMMU");

static_assert(sizeof(struct vfio_iommu_type1v3_info_cap_usage) == 48);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_usage,
		       mapped_pages) == 8);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_usage,
		       pinned_pages) == 16);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_usage,
		       store_bytes) == 24);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_usage,
		       charged_pages) == 32);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_usage,
		       alone_pages) == 40);
static_assert(sizeof(struct vfio_iommu_type1v3_info_cap_dirty) == 16);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_dirty, source) == 8);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_dirty, flags) == 12);
static_assert(sizeof(struct vfio_iommu_type1v3_info_cap_granule) == 16);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_granule,
		       min_order) == 8);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_granule,
		       max_order) == 12);
static_assert(sizeof(struct vfio_iommu_type1v3_batch) == 24);
static_assert(offsetof(struct vfio_iommu_type1v3_batch, entries) == 16);
static_assert(sizeof(struct vfio_iommu_type1v3_batch_entry) == 32);
static_assert(offsetof(struct vfio_iommu_type1v3_batch_entry, flags) == 24);
static_assert(offsetof(struct vfio_iommu_type1v3_batch_entry, result) == 28);

static long vfio_type1v3_check_extension(void *iommu_data, unsigned long arg)
{
	struct vfio_dma_container *container;
	struct vfio_dma_domain *domain;
	long ret;

	switch (arg) {
	case VFIO_TYPE1v3_IOMMU:
	case VFIO_TYPE1v3_PT_IOMMU:
	case VFIO_UNMAP_ALL:
		return 1;
	case VFIO_TYPE1_IOMMU:
	case VFIO_TYPE1v2_IOMMU:
		return !!READ_ONCE(alias_type1);
	case VFIO_DMA_CC_IOMMU:
	case VFIO_UPDATE_VADDR:
		container = iommu_data ? vfio_dma_container_get(iommu_data) : NULL;
		if (!container)
			return 0;
		break;
	default:
		return 0;
	}

	ret = -EINTR;
	if (mutex_lock_killable(&container->lock))
		goto out_put;
	if (arg == VFIO_UPDATE_VADDR) {
		ret = list_empty(&container->emulated) &&
		      vfio_dma_record_has_vaddr(&container->record);
	} else {
		ret = 1;
		list_for_each_entry(domain, &container->space.domains, next)
			ret &= to_group_domain(domain)->coherent;
	}
	mutex_unlock(&container->lock);
out_put:
	vfio_dma_container_put(container);
	return ret;
}

static int vfio_type1v3_add_range_cap(struct vfio_dma_container *container,
				      struct vfio_info_cap *caps)
{
	struct vfio_iommu_type1_info_cap_iova_range *cap;
	struct vfio_info_cap_header *header;

	lockdep_assert_held(&container->lock);

	/* Without a physical group anything is valid. */
	if (!container->ranges)
		return 0;

	header = vfio_info_cap_add(caps, struct_size(cap, iova_ranges,
						     container->nr_ranges),
				   VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 1);
	if (IS_ERR(header))
		return PTR_ERR(header);

	cap = container_of(header, typeof(*cap), header);
	cap->nr_iovas = container->nr_ranges;
	memcpy(cap->iova_ranges, container->ranges,
	       flex_array_size(cap, iova_ranges, container->nr_ranges));
	return 0;
}

static int vfio_type1v3_add_caps(struct vfio_dma_container *container,
				 struct vfio_info_cap *caps)
{
	struct vfio_iommu_type1_info_dma_avail avail = {
		.header.id = VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
		.header.version = 1,
		/* The memory cgroup is the limit. */
		.avail = U32_MAX,
	};
	struct vfio_iommu_type1v3_info_cap_usage usage = {
		.header.id = VFIO_IOMMU_TYPE1V3_INFO_CAP_USAGE,
		.header.version = 2,
		.mapped_pages = vfio_dma_record_npages(&container->record),
		.pinned_pages = vfio_dma_held(container),
		.store_bytes = vfio_dma_record_bytes(&container->record),
		.charged_pages = vfio_dma_charged(container),
		.alone_pages = vfio_dma_alone(container),
	};
	struct vfio_iommu_type1_info_cap_migration migration = {
		.header.id = VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
		.header.version = 1,
		.pgsize_bitmap = vfio_dma_pgsize(container),
		.max_dirty_bitmap_size = VFIO_DMA_BITMAP_BYTES_MAX,
	};
	struct vfio_iommu_type1v3_info_cap_dirty dirty = {
		.header.id = VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY,
		.header.version = 2,
		.source = vfio_dma_dirty_source(container),
		.flags = vfio_dma_dirty_flags(container),
	};
	struct vfio_iommu_type1v3_info_cap_granule granule = {
		.header.id = VFIO_IOMMU_TYPE1V3_INFO_CAP_GRANULE,
		.header.version = 1,
		.min_order = __ffs(container->space.pgsize_bitmap) - PAGE_SHIFT,
		.max_order = VFIO_DMA_MAP_GRANULE_ORDER_MAX,
	};
	int ret;

	lockdep_assert_held(&container->lock);

	ret = vfio_type1v3_add_range_cap(container, caps);
	if (!ret)
		ret = vfio_info_add_capability(caps, &migration.header,
					       sizeof(migration));
	if (!ret)
		ret = vfio_info_add_capability(caps, &dirty.header,
					       sizeof(dirty));
	if (!ret)
		ret = vfio_info_add_capability(caps, &granule.header,
					       sizeof(granule));
	if (!ret)
		ret = vfio_info_add_capability(caps, &avail.header,
					       sizeof(avail));
	if (!ret)
		ret = vfio_info_add_capability(caps, &usage.header,
					       sizeof(usage));
	return ret;
}

static long vfio_type1v3_get_info(struct vfio_dma_container *container,
				  void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_iommu_type1_info, iova_pgsizes);
	struct vfio_info_cap caps = {};
	struct vfio_iommu_type1_info info = {};
	long ret;

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	minsz = min_t(size_t, info.argsz, sizeof(info));

	if (mutex_lock_killable(&container->lock))
		return -EINTR;
	info.flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
	info.iova_pgsizes = container->space.pgsize_bitmap;
	info.cap_offset = 0;
	ret = vfio_type1v3_add_caps(container, &caps);
	mutex_unlock(&container->lock);
	if (ret)
		goto out_free;

	ret = -EFAULT;
	if (info.argsz < sizeof(info) + caps.size) {
		info.argsz = sizeof(info) + caps.size;
	} else {
		vfio_info_cap_shift(&caps, sizeof(info));
		if (copy_to_user(arg + sizeof(info), caps.buf, caps.size))
			goto out_free;
		info.cap_offset = sizeof(info);
	}
	if (!copy_to_user(arg, &info, minsz))
		ret = 0;

out_free:
	kfree(caps.buf);
	return ret;
}

static long vfio_type1v3_map_dma(struct vfio_dma_container *container,
				 void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_iommu_type1_dma_map, size);
	struct vfio_iommu_type1_dma_map map;

	if (copy_from_user(&map, arg, minsz))
		return -EFAULT;
	if (map.argsz < minsz ||
	    map.flags & ~(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE |
			  VFIO_DMA_MAP_FLAG_VADDR | VFIO_DMA_MAP_GRANULE_MASK))
		return -EINVAL;

	return vfio_dma_do_map(container, &map);
}

static long vfio_type1v3_unmap_dma(struct vfio_dma_container *container,
				   void __user *arg)
{
	struct vfio_iommu_type1_dma_unmap __user *user = arg;
	size_t minsz = offsetofend(struct vfio_iommu_type1_dma_unmap, size);
	struct vfio_iommu_type1_dma_unmap unmap;
	struct vfio_bitmap bitmap;
	bool dirty;
	long ret;

	if (copy_from_user(&unmap, arg, minsz))
		return -EFAULT;
	if (unmap.argsz < minsz ||
	    unmap.flags &
	    ~(VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP |
	      VFIO_DMA_UNMAP_FLAG_ALL | VFIO_DMA_UNMAP_FLAG_VADDR))
		return -EINVAL;

	dirty = unmap.flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
	if (dirty) {
		if (unmap.flags != VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP ||
		    unmap.argsz < minsz + sizeof(bitmap))
			return -EINVAL;
		if (copy_from_user(&bitmap, arg + minsz, sizeof(bitmap)))
			return -EFAULT;
	}

	ret = vfio_dma_do_unmap(container, &unmap, dirty ? &bitmap : NULL);
	/* The size unmapped before a failure is told as well. */
	if ((!ret || ret == -EINTR || ret == -EIO) &&
	    put_user(unmap.size, &user->size))
		return -EFAULT;
	return ret;
}

static long vfio_type1v3_dirty_pages(struct vfio_dma_container *container,
				     void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_iommu_type1_dirty_bitmap, flags);
	struct vfio_iommu_type1_dirty_bitmap_get get = {};
	struct vfio_iommu_type1_dirty_bitmap dirty;

	if (copy_from_user(&dirty, arg, minsz))
		return -EFAULT;
	if (dirty.argsz < minsz)
		return -EINVAL;
	if ((dirty.flags & ~VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR) ==
	    VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP) {
		if (dirty.argsz < minsz + sizeof(get))
			return -EINVAL;
		if (copy_from_user(&get, arg + minsz, sizeof(get)))
			return -EFAULT;
	}

	return vfio_dma_do_dirty(container, dirty.flags, &get);
}

static long vfio_type1v3_batch(struct vfio_dma_container *container,
			       void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_iommu_type1v3_batch, entries);
	struct vfio_iommu_type1v3_batch batch;

	if (copy_from_user(&batch, arg, minsz))
		return -EFAULT;
	if (batch.argsz < minsz || batch.__reserved ||
	    batch.flags & ~VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE ||
	    !batch.nr_entries ||
	    batch.nr_entries > VFIO_IOMMU_TYPE1V3_BATCH_MAX)
		return -EINVAL;

	return vfio_dma_do_batch(container, &batch);
}

static long vfio_type1v3_ioctl(void *iommu_data, unsigned int cmd,
			       unsigned long arg)
{
	struct vfio_dma_container *container;
	const char *call;
	long ret;

	if (cmd == VFIO_CHECK_EXTENSION)
		return vfio_type1v3_check_extension(iommu_data, arg);

	container = vfio_dma_container_get(iommu_data);
	if (!container)
		return -EINVAL;

	switch (cmd) {
	case VFIO_IOMMU_GET_INFO:
		call = "get_info";
		ret = vfio_type1v3_get_info(container, (void __user *)arg);
		break;
	case VFIO_IOMMU_MAP_DMA:
		call = "map_dma";
		ret = vfio_type1v3_map_dma(container, (void __user *)arg);
		break;
	case VFIO_IOMMU_UNMAP_DMA:
		call = "unmap_dma";
		ret = vfio_type1v3_unmap_dma(container, (void __user *)arg);
		break;
	case VFIO_IOMMU_TYPE1V3_BATCH:
		call = "batch";
		ret = vfio_type1v3_batch(container, (void __user *)arg);
		break;
	case VFIO_IOMMU_DIRTY_PAGES:
		call = "dirty_pages";
		ret = vfio_type1v3_dirty_pages(container, (void __user *)arg);
		break;
	default:
		call = "unknown";
		ret = -ENOTTY;
	}
	if (ret < 0)
		trace_type1v3_error(container->id, call, ret);

	vfio_dma_container_put(container);
	return ret;
}

static void *vfio_type1v3_open(unsigned long arg)
{
	enum vfio_dma_record_kind kind;
	void *iommu_data;

	if (arg == VFIO_TYPE1_IOMMU || arg == VFIO_TYPE1v2_IOMMU)
		arg = READ_ONCE(alias_type1);
	switch (arg) {
	case VFIO_TYPE1v3_IOMMU:
		kind = VFIO_DMA_RECORD_XA;
		break;
	case VFIO_TYPE1v3_PT_IOMMU:
		kind = VFIO_DMA_RECORD_PT;
		break;
	default:
		return ERR_PTR(-EINVAL);
	}

	iommu_data = vfio_dma_container_open(&vfio_type1v3_policy, THIS_MODULE, kind);
	if (!IS_ERR(iommu_data))
		vfio_dma_debugfs_add(iommu_data);
	return iommu_data;
}

static void vfio_type1v3_release(void *iommu_data)
{
	vfio_dma_debugfs_remove(iommu_data);
	vfio_dma_container_release(iommu_data);
}

VISIBLE_IF_KUNIT const struct vfio_iommu_driver_ops vfio_type1v3_ops = {
	.name			= "vfio-iommu-type1v3",
	.owner			= THIS_MODULE,
	.open			= vfio_type1v3_open,
	.release		= vfio_type1v3_release,
	.ioctl			= vfio_type1v3_ioctl,
	.attach_group		= vfio_dma_attach_group,
	.detach_group		= vfio_dma_detach_group,
	.pin_pages		= vfio_dma_pin_pages,
	.unpin_pages		= vfio_dma_unpin_pages,
	.register_device	= vfio_dma_register_device,
	.unregister_device	= vfio_dma_unregister_device,
	.dma_rw			= vfio_dma_copy,
	.group_iommu_domain	= vfio_dma_group_iommu_domain,
};
EXPORT_SYMBOL_IF_KUNIT(vfio_type1v3_ops);

static int __init vfio_type1v3_init(void)
{
	return vfio_register_iommu_driver(&vfio_type1v3_ops);
}
module_init(vfio_type1v3_init);

static void __exit vfio_type1v3_exit(void)
{
	vfio_unregister_iommu_driver(&vfio_type1v3_ops);
}
module_exit(vfio_type1v3_exit);

MODULE_DESCRIPTION("VFIO container backend for page-granular DMA mapping");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.2");
MODULE_IMPORT_NS("VFIO_DMA");
