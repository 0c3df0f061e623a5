/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Included in front of every file in a build outside a kernel tree: what the
 * sources, written for the newest kernel, need on the others. Only the ends of
 * the range are numbers. In between, what a kernel's headers have decides, since
 * distributions take parts of newer kernels into older ones: Kbuild looks for
 * names in them and defines TYPE1V3_NO_* for those that it does not find.
 *
 * compat/include/vfio.h is a copy of a declaration that header packages do not
 * ship and that nothing checks at load time: compat/check-ops.sh compares it
 * with the kernel before each build.
 */
#ifndef _TYPE1V3_COMPAT_H
#define _TYPE1V3_COMPAT_H

#include <linux/export.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0)
#error "type1v3 needs Linux 6.12 or a newer one"
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 4, 0) && !defined(TYPE1V3_ANY_KERNEL)
#error "type1v3 is not known to work with Linux newer than 7.3: 'make ANY_KERNEL=1' tries"
#endif

#ifndef CONFIG_XARRAY_MULTI
#error "type1v3 needs a kernel with CONFIG_XARRAY_MULTI"
#endif

/*
 * Symbol namespaces are strings since 6.13. As the sources use these macros they
 * mean the same everywhere, also where the kernel's would quote the string again.
 */
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
#ifdef TYPE1V3_NO_DOMAIN_FLAGS
#define iommu_paging_domain_alloc_flags(dev, flags) \
	((void)(flags), iommu_paging_domain_alloc(dev))
#endif

/* follow_pfnmap_start() does not tell the size of the entry that it found. */
#ifdef TYPE1V3_NO_PFNMAP_SIZE
#define vfio_dma_pfnmap_bytes(args)	PAGE_SIZE
#endif

/* What an IOMMU driver of a test is told less */
#ifdef TYPE1V3_NO_ATTACH_OLD
#define mock_attach_dev(domain, dev, old)	mock_attach_dev(domain, dev)
#define mock_block_dev(domain, dev, old)	mock_block_dev(domain, dev)
#endif
#ifdef TYPE1V3_NO_PAGING_FLAGS
#define mock_domain_alloc_flags(dev, flags, data) \
	mock_domain_alloc_flags(dev, flags, struct iommu_domain *parent, data)
#define domain_alloc_paging_flags		domain_alloc_user
#endif

#endif /* _TYPE1V3_COMPAT_H */
