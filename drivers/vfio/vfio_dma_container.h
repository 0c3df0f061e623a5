/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A container, as the files of the engine see it; see vfio_dma_container.c.
 *
 * Calls run down: the personality (vfio_iommu_type1v3.c, which parses ioctls); batch and
 * emulated; group; replay; map; unmap; dirty and vaddr; debugfs; account; flight; extpin
 * and ranges; container; and then what knows no container: cut, the record, space, iommu,
 * domain, pin, member, owner, the ledger, and the store (vfio_xa_dma).
 *
 * Words that files share:
 *
 *	index		IOVA page; a range is [first, last], with an inclusive end
 *	word		what the record says of a page, see vfio_xa_dma.h
 *	run		neighbouring pages with equal words
 *	stretch		neighbouring runs that one iommu_unmap() can take
 *	extent		physically contiguous memory
 *	block		aligned IOVA pages of a page size, which could be a superpage
 *	reserved	in the record, but not mapped yet: PENDING
 *	external pin	of an emulated device, on top of the domains' pins
 *	hold		one pin of a page, by a domain or an emulated device
 *	known		a page whose next hold costs nothing, as the ledger has it
 *	alone		a hold that is not in the ledger, and is charged on its own
 *	kept		a hold that has ended, while others of the page keep the charge
 *	lost		a block that could not be mapped back after it was divided
 *	leaked		mapped no longer, but an IOMMU driver has failed to unmap it: it stays
 *			pinned and charged for ever
 *	stuck		the same of a map that an IOMMU driver has failed to undo
 *	ghost		what is leaked or stuck, to a record that asks the IO page table
 *
 *	_drops_lock	called with the container's mutex, returns with it, and may
 *			have dropped it in between
 *	_nofail		waits for memory, and goes beyond limits if it must
 */
#ifndef _VFIO_DMA_CONTAINER_H
#define _VFIO_DMA_CONTAINER_H

#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/rculist.h>
#include <linux/sched.h>
#include <linux/refcount.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include "vfio_dma_ledger.h"
#include "vfio_dma_member.h"
#include "vfio_dma_owner.h"
#include "vfio_dma_record.h"
#include "vfio_dma_space.h"

struct dentry;
struct iommu_group;
struct module;

/**
 * struct vfio_dma_policy - what an administrator has decided
 * @allow_unsafe_interrupts: accept devices without interrupt remapping
 * @disable_hugepages: no IOMMU page is larger than the smallest
 * @disable_device_memory: memory of devices is not mapped
 *
 * Module parameters, which change at any time.
 */
struct vfio_dma_policy {
	bool allow_unsafe_interrupts;
	bool disable_hugepages;
	bool disable_device_memory;
};

/**
 * struct vfio_dma_group - an IOMMU group in a container
 * @next: in &vfio_dma_group_domain.groups or &vfio_dma_container.emulated
 * @iommu_group: the group
 * @dirties_unseen: its devices write to memory that they have not pinned, and
 *	nobody sees it but perhaps the IOMMU
 *
 * Protected by the container's mutex.
 */
struct vfio_dma_group {
	struct list_head next;
	struct iommu_group *iommu_group;
	bool dirties_unseen;
};

/**
 * struct vfio_dma_group_domain - an IOMMU domain and the groups attached to it
 * @dma: the domain
 * @groups: list of struct vfio_dma_group, not empty
 * @coherent: the domain enforces cache coherency
 *
 * Protected by the container's mutex.
 */
struct vfio_dma_group_domain {
	struct vfio_dma_domain dma;
	struct list_head groups;
	bool coherent;
};

/* Operations counted in debugfs */
enum vfio_dma_op {
	VFIO_DMA_OP_MAP,
	VFIO_DMA_OP_UNMAP,
	VFIO_DMA_OP_BATCH,
	VFIO_DMA_OP_DIRTY,
	VFIO_DMA_OP_VADDR,
	VFIO_DMA_OP_PIN,
	VFIO_DMA_OP_UNPIN,
	VFIO_DMA_OP_RW,
	VFIO_DMA_NR_OPS
};

/**
 * struct vfio_dma_op_count - calls of one kind since the container was opened
 * @done: calls that have succeeded
 * @failed: calls that have failed after their arguments were found good
 * @npages: pages that they have mapped, unmapped, pinned and so on
 */
struct vfio_dma_op_count {
	u64 done;
	u64 failed;
	u64 npages;
};

/**
 * enum vfio_dma_tracking - who is to tell which pages are dirty
 * @VFIO_DMA_TRACK_NONE: nobody, there is no tracking
 * @VFIO_DMA_TRACK_AS_TYPE1: pins, and the IOMMUs; all is dirty if one does not record
 * @VFIO_DMA_TRACK_PINNED: pins alone
 * @VFIO_DMA_TRACK_HARDWARE: pins, and the IOMMUs, all of which record
 */
enum vfio_dma_tracking {
	VFIO_DMA_TRACK_NONE,
	VFIO_DMA_TRACK_AS_TYPE1,
	VFIO_DMA_TRACK_PINNED,
	VFIO_DMA_TRACK_HARDWARE,
};

/**
 * struct vfio_dma_container - a container
 * @lock: the container's mutex
 * @record: what is mapped.  Lock: @lock
 * @space: the IOMMU domains.  Lock: @lock
 * @owner: whose memory is mapped; set while @record is not empty or @pinning.
 *	Lock: @lock; struct vfio_dma_owner says what is read without it
 * @member: among the containers of the owner's address space.  Lock: that of the table
 * @pinning: calls that pin with the mutex dropped.  Lock: @lock
 * @flights: list of struct vfio_dma_flight.  Lock: @lock
 * @epoch: how often groups have come or gone.  Lock: @lock
 * @ranges: valid IOVA ranges, ascending; %NULL if anything is valid.  Lock: @lock
 * @nr_ranges: length of @ranges.  Lock: @lock
 * @emulated: groups without an IOMMU, list of struct vfio_dma_group.  Lock: @lock
 * @devices: open devices that pin pages, list of struct vfio_device.  Lock: either
 *	of @devices_lock and @lock to read, both to write
 * @devices_lock: held while drivers are told of an unmap
 * @extpins: what emulated devices have pinned, VFIO_DMA_EXTPIN_*.  Lock: @lock
 * @releases: list of struct vfio_dma_release, calls that wait for drivers.
 *	Lock: @lock
 * @vaddr_invalid: pages whose user memory is gone until it is updated.  Lock: @lock
 * @dirty_tracking: VFIO_IOMMU_DIRTY_PAGES_FLAG_START was last, and with what choice.
 *	Lock: @lock
 * @counts: what has been done.  Lock: @lock
 * @policy: the personality's parameters.  Lock: none, does not change
 * @module: the personality.  Lock: none, does not change
 * @debugfs: directory of its files.  Lock: none, set before VFIO knows @id
 * @hash: in the table of containers.  Lock: that of the table
 * @id: what VFIO knows the container by.  Lock: none, does not change
 * @users: VFIO itself, and every call that is in progress.  Lock: none, atomic
 * @rcu: for freeing.  Lock: none
 *
 * Lock order: the VFIO core's locks, @devices_lock, the activation mutex of a ledger,
 * @lock, the lock of the table of members, that of a ledger, mmap_lock.
 */
struct vfio_dma_container {
	struct mutex lock;	/* the container's mutex, see above */
	struct vfio_dma_record record;
	struct vfio_dma_space space;
	struct vfio_dma_owner owner;
	struct vfio_dma_member member;
	unsigned int pinning;
	struct list_head flights;
	unsigned long epoch;
	struct vfio_iova_range *ranges;
	unsigned int nr_ranges;
	struct list_head emulated;
	struct list_head devices;
	struct mutex devices_lock;	/* drivers' callbacks */
	struct vfio_xa_dma extpins;
	struct list_head releases;
	unsigned long vaddr_invalid;
	enum vfio_dma_tracking dirty_tracking;
	struct vfio_dma_op_count counts[VFIO_DMA_NR_OPS];
	const struct vfio_dma_policy *policy;
	struct module *module;
	struct dentry *debugfs;
	struct hlist_node hash;
	unsigned long id;
	refcount_t users;
	struct rcu_head rcu;
};

void *vfio_dma_container_open(const struct vfio_dma_policy *policy,
			      struct module *module,
			      enum vfio_dma_record_kind kind);
void vfio_dma_container_release(void *iommu_data);
struct vfio_dma_container *vfio_dma_container_get(void *iommu_data);
void vfio_dma_container_put(struct vfio_dma_container *container);

int __vfio_dma_become_owner(struct vfio_dma_container *container);
void vfio_dma_put_owner(struct vfio_dma_container *container);

/* Numbers are consecutive, so their low bits are as good as a hash. */
#define VFIO_DMA_NR_BUCKETS	64

/* All containers, for vfio_dma_container_find() alone */
extern struct hlist_head vfio_dma_containers[VFIO_DMA_NR_BUCKETS];

/* Within an RCU read side critical section */
static inline struct vfio_dma_container *vfio_dma_container_find(void *iommu_data)
{
	unsigned long id = (unsigned long)iommu_data;
	struct vfio_dma_container *container;

	hlist_for_each_entry_rcu(container,
				 &vfio_dma_containers[id % VFIO_DMA_NR_BUCKETS],
				 hash)
		if (container->id == id)
			break;
	return container;
}

/**
 * vfio_dma_container_of_driver() - the container of a driver's call
 * @iommu_data: what vfio_dma_container_open() returned
 *
 * The driver's device is open, and VFIO lets go of no container with such a device, so
 * that this one stays without a reference.  Inline it saves 8 instructions of each pin,
 * unpin and copy.
 *
 * Context: Any.
 * Return: the container, or %NULL.
 */
static inline struct vfio_dma_container *
vfio_dma_container_of_driver(void *iommu_data)
{
	struct vfio_dma_container *container;

	rcu_read_lock();
	container = vfio_dma_container_find(iommu_data);
	rcu_read_unlock();
	return container;
}

static inline struct vfio_dma_group_domain *
to_group_domain(struct vfio_dma_domain *domain)
{
	return container_of(domain, struct vfio_dma_group_domain, dma);
}

static inline bool
vfio_dma_has_domain(const struct vfio_dma_container *container)
{
	return !list_empty(&container->space.domains);
}

/* The last group takes the right to have anything mapped with it. */
static inline bool vfio_dma_has_group(const struct vfio_dma_container *container)
{
	return vfio_dma_has_domain(container) ||
	       !list_empty(&container->emulated);
}

/**
 * vfio_dma_become_owner() - may the calling process map?
 * @container: the container
 *
 * Only the owner may.  vfio_dma_put_owner() must follow unless something gets mapped.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; 1 if it is the owner now, and vfio_dma_enter_others_drops_lock() must
 * follow; -ENODEV without a group; -EPERM if another process is the owner.
 */
static inline int vfio_dma_become_owner(struct vfio_dma_container *container)
{
	lockdep_assert_held(&container->lock);

	if (likely(container->owner.mm == current->mm &&
		   vfio_dma_has_domain(container)))
		return 0;
	return __vfio_dma_become_owner(container);
}

static inline unsigned long
vfio_dma_pgsize(const struct vfio_dma_container *container)
{
	return container->space.pgsize_bitmap &
	       -container->space.pgsize_bitmap;
}

/* Pages that the container holds.  Calls that pin count without the mutex. */
static inline unsigned long
vfio_dma_held(const struct vfio_dma_container *container)
{
	return container->owner.mm ? READ_ONCE(container->owner.npages) : 0;
}

/* Pages charged to the owner, for all containers that share a ledger with this one */
static inline unsigned long
vfio_dma_charged(const struct vfio_dma_container *container)
{
	const struct vfio_dma_ledger *ledger = container->owner.ledger;

	return ledger ? max(atomic_long_read(&ledger->charged), 0) :
			vfio_dma_held(container);
}

/* Pages that are held by containers with a ledger, but are not in it */
static inline unsigned long
vfio_dma_alone(const struct vfio_dma_container *container)
{
	const struct vfio_dma_ledger *ledger = container->owner.ledger;

	return ledger ? max(READ_ONCE(ledger->alone), 0) : 0;
}

/*
 * Check a range of IOVA that user space gives in bytes; @mask has the bits within the
 * smallest page.  -EINVAL, -EOVERFLOW, or 0 with *@last set to the last address.
 */
static inline int vfio_dma_check_range(u64 iova, u64 size, u64 mask, u64 *last)
{
	if (!size || (iova | size) & mask)
		return -EINVAL;
	return check_add_overflow(iova, size - 1, last) ? -EOVERFLOW : 0;
}

/* Is an IOVA range, in bytes, with an inclusive end, within the valid ranges? */
static inline bool
vfio_dma_iova_valid(const struct vfio_dma_container *container, u64 start,
		    u64 last)
{
	unsigned int i;

	for (i = 0; i < container->nr_ranges; i++)
		if (start >= container->ranges[i].start &&
		    last <= container->ranges[i].end)
			return true;

	return !container->ranges;
}

/* Are the IOMMUs to record which pages are written to? */
static inline bool
vfio_dma_dirty_is_recorded(const struct vfio_dma_container *container)
{
	return container->dirty_tracking == VFIO_DMA_TRACK_AS_TYPE1 ||
	       container->dirty_tracking == VFIO_DMA_TRACK_HARDWARE;
}

static inline void vfio_dma_set_dirty(struct vfio_dma_container *container,
				      unsigned long first, unsigned long last)
{
	if (container->dirty_tracking)
		vfio_dma_record_change_nofail(&container->record, first, last,
					      0, VFIO_XA_DMA_DIRTY);
}

static inline void vfio_dma_count(struct vfio_dma_container *container,
				  enum vfio_dma_op op, unsigned long npages,
				  int ret)
{
	struct vfio_dma_op_count *count = &container->counts[op];

	lockdep_assert_held(&container->lock);
	if (ret)
		count->failed++;
	else
		count->done++;
	count->npages += npages;
}

#endif /* _VFIO_DMA_CONTAINER_H */
