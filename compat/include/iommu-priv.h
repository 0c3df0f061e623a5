/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the mock IOMMU needs of the kernel's private drivers/iommu/iommu-priv.h, for a
 * build outside a kernel tree.
 */
#ifndef _TYPE1V3_COMPAT_IOMMU_PRIV_H
#define _TYPE1V3_COMPAT_IOMMU_PRIV_H

#include <linux/iommu.h>

void iommu_detach_group_handle(struct iommu_domain *domain, struct iommu_group *group);
int iommu_replace_group_handle(struct iommu_group *group, struct iommu_domain *new_domain,
			       struct iommu_attach_handle *handle);

#endif /* _TYPE1V3_COMPAT_IOMMU_PRIV_H */
