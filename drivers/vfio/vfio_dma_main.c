// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module vfio_dma: engine and records, as one library
 *
 * What the library is, and its directory in debugfs, in which each container has one.
 * There is nothing to start: a personality calls vfio_dma_container_open().
 */

#include <linux/debugfs.h>
#include <linux/module.h>

#include "vfio_dma_main.h"

struct dentry *vfio_dma_debugfs_root;

static int __init vfio_dma_init(void)
{
	vfio_dma_debugfs_root = debugfs_create_dir("vfio_type1v3", NULL);
	return 0;
}
module_init(vfio_dma_init);

static void __exit vfio_dma_exit(void)
{
	debugfs_remove(vfio_dma_debugfs_root);
}
module_exit(vfio_dma_exit);

MODULE_DESCRIPTION("VFIO DMA mapping engine");
MODULE_LICENSE("GPL");
/* Dirty bits of IO page tables are read into bitmaps of iommufd's kind. */
MODULE_IMPORT_NS("IOMMUFD");
