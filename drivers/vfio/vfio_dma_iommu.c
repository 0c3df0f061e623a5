// SPDX-License-Identifier: GPL-2.0-only
/*
 * Groups and the domains they are attached to, as the IOMMU core has them
 *
 * KUnit, which has no groups, answers in the place of these functions.  User memory is
 * never mapped here, only pages of the kernel on trial: iommu_map() and its like are
 * called in vfio_dma_domain.[ch] and vfio_dma_space.[ch].
 */

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/iommu.h>

#include <uapi/linux/iommufd.h>

#include "vfio_dma_iommu.h"

VISIBLE_IF_KUNIT bool vfio_dma_iommu_capable(struct device *dev, enum iommu_cap cap)
{
	KUNIT_STATIC_STUB_REDIRECT(vfio_dma_iommu_capable, dev, cap);
	return device_iommu_capable(dev, cap);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_iommu_capable);

VISIBLE_IF_KUNIT struct iommu_domain *
vfio_dma_iommu_alloc_flags(struct device *dev, u32 flags)
{
	KUNIT_STATIC_STUB_REDIRECT(vfio_dma_iommu_alloc_flags, dev, flags);
	return iommu_paging_domain_alloc_flags(dev, flags);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_iommu_alloc_flags);

/* A domain for a device, with dirty bits if it has them */
VISIBLE_IF_KUNIT struct iommu_domain *
vfio_dma_iommu_alloc_for_device(struct device *dev)
{
	struct iommu_domain *domain;
	u32 flags = 0;

	if (IS_ENABLED(CONFIG_IOMMUFD_DRIVER) &&
	    vfio_dma_iommu_capable(dev, IOMMU_CAP_DIRTY_TRACKING))
		flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
	domain = vfio_dma_iommu_alloc_flags(dev, flags);
	if (flags && domain == ERR_PTR(-EOPNOTSUPP))
		domain = vfio_dma_iommu_alloc_flags(dev, 0);
	return domain;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_iommu_alloc_for_device);

static int alloc_for_device(struct device *dev, void *data)
{
	struct iommu_domain **domain = data;

	*domain = vfio_dma_iommu_alloc_for_device(dev);
	return 1; /* one device speaks for its group */
}

/* A domain for a group; %NULL if it has no device */
struct iommu_domain *vfio_dma_iommu_alloc(struct iommu_group *group)
{
	struct iommu_domain *domain = NULL;

	KUNIT_STATIC_STUB_REDIRECT(vfio_dma_iommu_alloc, group);
	iommu_group_for_each_dev(group, &domain, alloc_for_device);
	return domain;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_iommu_alloc);

int vfio_dma_iommu_attach(struct iommu_domain *domain, struct iommu_group *group)
{
	KUNIT_STATIC_STUB_REDIRECT(vfio_dma_iommu_attach, domain, group);
	return iommu_attach_group(domain, group);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_iommu_attach);

void vfio_dma_iommu_detach(struct iommu_domain *domain, struct iommu_group *group)
{
	KUNIT_STATIC_STUB_REDIRECT(vfio_dma_iommu_detach, domain, group);
	iommu_detach_group(domain, group);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_iommu_detach);

int vfio_dma_iommu_resv_regions(struct iommu_group *group, struct list_head *regions)
{
	KUNIT_STATIC_STUB_REDIRECT(vfio_dma_iommu_resv_regions, group, regions);
	return iommu_get_group_resv_regions(group, regions);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_iommu_resv_regions);

int vfio_dma_iommu_msi_cookie(struct iommu_domain *domain, dma_addr_t base)
{
	KUNIT_STATIC_STUB_REDIRECT(vfio_dma_iommu_msi_cookie, domain, base);
	return iommu_get_msi_cookie(domain, base);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_iommu_msi_cookie);

bool vfio_dma_iommu_isolated_msi(struct iommu_group *group)
{
	KUNIT_STATIC_STUB_REDIRECT(vfio_dma_iommu_isolated_msi, group);
	return iommu_group_has_isolated_msi(group);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_iommu_isolated_msi);

bool vfio_dma_iommu_probe(struct vfio_dma_domain *domain, dma_addr_t iova)
{
	KUNIT_STATIC_STUB_REDIRECT(vfio_dma_iommu_probe, domain, iova);
	return vfio_dma_domain_probe(domain, iova);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_iommu_probe);
