/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Included in front of every file in a build outside a kernel tree: what the
 * sources, written for the newest kernel, need on the others. This is the only
 * place that asks for the kernel's version.
 *
 * compat/include/vfio.h is a copy of a declaration that header packages do not
 * ship and that nothing checks at load time. A kernel is therefore accepted
 * here only when scripts/check-ops.sh has compared the copy with that kernel.
 */
#ifndef _TYPE1V3_COMPAT_H
#define _TYPE1V3_COMPAT_H

#include <linux/export.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/version.h>

#define TYPE1V3_KERNEL_IS(major, minor) \
	(LINUX_VERSION_CODE >= KERNEL_VERSION(major, minor, 0) && \
	 LINUX_VERSION_CODE < KERNEL_VERSION(major, (minor) + 1, 0))

#if !TYPE1V3_KERNEL_IS(6, 12) && !TYPE1V3_KERNEL_IS(7, 3)
#error "type1v3 is not known to work with this kernel version outside its tree"
#endif

#ifndef CONFIG_XARRAY_MULTI
#error "type1v3 needs a kernel with CONFIG_XARRAY_MULTI"
#endif

#if TYPE1V3_KERNEL_IS(6, 12)

/* Symbol namespaces became strings in 6.13. */
#undef EXPORT_SYMBOL_NS_GPL
#define EXPORT_SYMBOL_NS_GPL(sym, ns)	__EXPORT_SYMBOL(sym, "GPL", ns)
#undef MODULE_IMPORT_NS
#define MODULE_IMPORT_NS(ns)		MODULE_INFO(import_ns, ns)

/* Typed allocation came with 7.0, and to 6.12 in the middle of its life. */
#ifndef kzalloc_obj
#define kzalloc_obj(obj, gfp)		kzalloc(sizeof(obj), gfp)
#define kmalloc_obj(obj, gfp)		kmalloc(sizeof(obj), gfp)
#endif

/* Domains with dirty bits cannot be asked for. */
#define iommu_paging_domain_alloc_flags(dev, flags) \
	((void)(flags), iommu_paging_domain_alloc(dev))

/* follow_pfnmap_start() does not tell the size of the entry that it found. */
#define vfio_dma_pfnmap_bytes(args)	PAGE_SIZE

#endif /* 6.12 */

#endif /* _TYPE1V3_COMPAT_H */
