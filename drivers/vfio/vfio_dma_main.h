/* SPDX-License-Identifier: GPL-2.0-only */
/* The module vfio_dma as a whole; see vfio_dma_main.c. */
#ifndef _VFIO_DMA_MAIN_H
#define _VFIO_DMA_MAIN_H

struct dentry;

/* Directory of all containers.  Lock: none, set before there can be one */
extern struct dentry *vfio_dma_debugfs_root;

#endif /* _VFIO_DMA_MAIN_H */
