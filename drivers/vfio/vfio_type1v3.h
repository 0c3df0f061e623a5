/* SPDX-License-Identifier: GPL-2.0-only */
/* The personality type1v3, for KUnit. */
#ifndef _VFIO_TYPE1V3_H
#define _VFIO_TYPE1V3_H

#include "vfio.h"
#include "vfio_dma_container.h"

#if IS_ENABLED(CONFIG_KUNIT)
extern const struct vfio_iommu_driver_ops vfio_type1v3_ops;
extern struct vfio_dma_policy vfio_type1v3_policy;
#endif

#endif /* _VFIO_TYPE1V3_H */
