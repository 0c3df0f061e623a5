/* SPDX-License-Identifier: GPL-2.0-only */
/* Which containers an address space has; see vfio_dma_member.c. */
#ifndef _VFIO_DMA_MEMBER_H
#define _VFIO_DMA_MEMBER_H

#include <linux/types.h>

struct mm_struct;
struct vfio_dma_container;
struct vfio_dma_ledger;
struct vfio_dma_owner;

/**
 * struct vfio_dma_member - a container as one of those of an address space
 * @next: in the table of containers that have an owner
 * @container: the container
 * @mm: the address space
 * @ledger: of the address space, with a reference; %NULL while there was only one
 *	container, or no memory for it
 * @entered: what the container holds is in @ledger
 *
 * Protected by the lock of the table; @container does not change.
 */
struct vfio_dma_member {
	struct hlist_node next;
	struct vfio_dma_container *container;
	const struct mm_struct *mm;
	struct vfio_dma_ledger *ledger;
	bool entered;
};

struct vfio_dma_ledger *vfio_dma_member_add(struct vfio_dma_member *member,
					    const struct mm_struct *mm, bool *others);
int vfio_dma_member_join(struct vfio_dma_member *member, struct vfio_dma_owner *owner);
struct vfio_dma_ledger *vfio_dma_member_remove(struct vfio_dma_member *member);
void vfio_dma_member_quit(struct vfio_dma_member *member, struct vfio_dma_owner *owner);
void vfio_dma_member_move(struct vfio_dma_member *from, struct vfio_dma_member *to);

bool vfio_dma_member_lacks(const struct vfio_dma_member *member,
			   const struct vfio_dma_ledger *ledger);
void vfio_dma_member_set_entered(struct vfio_dma_member *member);
struct vfio_dma_container *
vfio_dma_member_get_lacking(const struct vfio_dma_ledger *ledger,
			    const struct mm_struct *mm,
			    bool (*get)(struct vfio_dma_container *container));
bool vfio_dma_member_is_alone(const struct vfio_dma_member *member);

#endif /* _VFIO_DMA_MEMBER_H */
