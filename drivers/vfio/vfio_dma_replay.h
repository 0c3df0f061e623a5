/* SPDX-License-Identifier: GPL-2.0-only */
/* Domains that come when something is mapped; see vfio_dma_replay.c. */
#ifndef _VFIO_DMA_REPLAY_H
#define _VFIO_DMA_REPLAY_H

#include "vfio_dma_container.h"

int vfio_dma_replay(struct vfio_dma_container *container,
		    struct vfio_dma_domain *domain);
void vfio_dma_clear_domain(struct vfio_dma_container *container,
			   struct vfio_dma_domain *domain);

#endif /* _VFIO_DMA_REPLAY_H */
