/* SPDX-License-Identifier: GPL-2.0-only */
/* What containers of one address space hold is charged once; see vfio_dma_account.c. */
#ifndef _VFIO_DMA_ACCOUNT_H
#define _VFIO_DMA_ACCOUNT_H

#include "vfio_dma_container.h"

void vfio_dma_enter_others_drops_lock(struct vfio_dma_container *container);
void vfio_dma_prepare_move_drops_lock(struct vfio_dma_container *container);
int vfio_dma_move(struct vfio_dma_container *container);

#endif /* _VFIO_DMA_ACCOUNT_H */
