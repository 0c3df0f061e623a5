// SPDX-License-Identifier: GPL-2.0-only
/*
 * type1v3: a VFIO container backend for page-granular DMA mapping
 *
 * It speaks the ioctls of vfio_iommu_type1, for programs that map and unmap
 * guest memory page by page.  The record of what is mapped is one packed word
 * per page in a vfio_xa_dma store; pinning and the IOMMU are the business of
 * vfio_dma_core.  This file is what lies between them and the ioctls: groups,
 * domains, valid IOVA ranges, and the order in which things happen.
 *
 * All mappings of a container belong to one address space, the owner, which is
 * why a word needs no pointer to it.
 *
 * User memory is pinned without the mutex, as that may take as long as user
 * space likes.  A few pages are pinned first, and then entered into the store
 * and the IO page tables in one go: vfio_type1v3_map_now().  Whatever stands in
 * the way of that, and whatever is larger, is mapped in three stages.  With the
 * mutex held the range is reserved with PENDING words, which refuse any other
 * mapping of it and which nobody else looks behind.  Every batch of pinned pages
 * goes into the IO page tables with the mutex held.  At last PENDING is taken off
 * all of the range at once.  What was reserved is undone without allocating
 * anything.
 *
 * Meanwhile groups may come and go.  Calls that have not finished are on
 * &vfio_type1v3.maps: a new domain receives the part they have mapped, and the
 * one that takes the last domain away unpins it.  Pages that have only been
 * pinned are let go, and the call begins anew, if &vfio_type1v3.epoch says that
 * there was a change.
 */

#include <linux/cred.h>
#include <linux/debugfs.h>
#include <linux/hashtable.h>
#include <linux/iommu.h>
#include <linux/iova_bitmap.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/pagemap.h>
#include <linux/refcount.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string_helpers.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>

#include <uapi/linux/iommufd.h>
#include <uapi/linux/vfio_type1v3.h>

#include "vfio.h"
#include "vfio_dma_core.h"
#include "vfio_dma_cut.h"
#include "vfio_xa_dma.h"

#define CREATE_TRACE_POINTS
#include "vfio_type1v3_trace.h"

static bool allow_unsafe_interrupts;
module_param(allow_unsafe_interrupts, bool, 0644);
MODULE_PARM_DESC(allow_unsafe_interrupts,
		 "Accept devices on platforms without interrupt remapping");

static bool disable_hugepages;
module_param(disable_hugepages, bool, 0644);
MODULE_PARM_DESC(disable_hugepages, "Never use IOMMU superpages");

static bool disable_device_memory;
module_param(disable_device_memory, bool, 0644);
MODULE_PARM_DESC(disable_device_memory,
		 "Do not map BARs and other memory of devices, which are not pinned and stay mapped when the device is gone");

static bool alias_type1;
module_param(alias_type1, bool, 0644);
MODULE_PARM_DESC(alias_type1,
		 "Also answer to VFIO_TYPE1_IOMMU and VFIO_TYPE1v2_IOMMU");

/* Pages that are unmapped before looking for a fatal signal, from 1 GiB to 1 GiB */
#define VFIO_TYPE1V3_UNMAP_WINDOW	VFIO_DMA_EXTENT_MAX

/* Granules that one map may have where nothing limits them but memory */
#define VFIO_TYPE1V3_GRANULES_MAX	BIT(20)

/* Pages that are unmapped one by one; of more it is better to look for runs */
#define VFIO_TYPE1V3_FEW		4

/* As type1: bits of a user's dirty bitmap, and its size in bytes */
#define VFIO_TYPE1V3_BITMAP_BITS_MAX	((u64)INT_MAX)
#define VFIO_TYPE1V3_BITMAP_BYTES(bits)	(ALIGN(bits, BITS_PER_TYPE(u64)) / BITS_PER_BYTE)
#define VFIO_TYPE1V3_BITMAP_BYTES_MAX \
	VFIO_TYPE1V3_BITMAP_BYTES(VFIO_TYPE1V3_BITMAP_BITS_MAX)

/*
 * Pages whose dirty bits are read at a time, from 1 GiB to 1 GiB, where no superpage
 * lies across; and user pages that a bitmap of them can be in.
 */
#define VFIO_TYPE1V3_DIRTY_WINDOW	VFIO_DMA_EXTENT_MAX
#define VFIO_TYPE1V3_DIRTY_PAGES \
	(DIV_ROUND_UP(VFIO_TYPE1V3_DIRTY_WINDOW / BITS_PER_BYTE + 1, PAGE_SIZE) + 1)

/* How often a driver is asked to let go of pages that are to be unmapped */
#define VFIO_TYPE1V3_RELEASE_RETRIES	10

/*
 * A page that emulated devices have pinned, as a word of a store: 40 bits of its page
 * frame number, number of pins, whether the page may have been written to, and whether
 * it is charged on its own: it is not while the domains have the same page mapped.
 * The highest flag bit is the store's, so the low bits of the number are below it.
 */
#define VFIO_TYPE1V3_PIN_WRITE		BIT(0)
#define VFIO_TYPE1V3_PIN_CHARGED	BIT(1)
#define VFIO_TYPE1V3_PIN_LOW_SHIFT	2
#define VFIO_TYPE1V3_PIN_LOW_BITS \
	(VFIO_XA_DMA_FLAG_BITS - 1 - VFIO_TYPE1V3_PIN_LOW_SHIFT)
#define VFIO_TYPE1V3_PIN_LOW_MASK	(BIT(VFIO_TYPE1V3_PIN_LOW_BITS) - 1)
#define VFIO_TYPE1V3_PIN_ONE		BIT(VFIO_XA_DMA_FLAG_BITS)
#define VFIO_TYPE1V3_PIN_COUNT_BITS	20
#define VFIO_TYPE1V3_PIN_HIGH_SHIFT \
	(VFIO_XA_DMA_FLAG_BITS + VFIO_TYPE1V3_PIN_COUNT_BITS)
#define VFIO_TYPE1V3_PIN_COUNT_MASK \
	GENMASK(VFIO_TYPE1V3_PIN_HIGH_SHIFT - 1, VFIO_XA_DMA_FLAG_BITS)

/**
 * struct vfio_type1v3_group - an IOMMU group in a container
 * @next: in &vfio_type1v3_domain.groups or &vfio_type1v3.emulated
 * @iommu_group: the group
 * @dirties_unseen: its devices write to memory that they have not pinned, and
 *	nobody sees it but perhaps the IOMMU
 */
struct vfio_type1v3_group {
	struct list_head next;
	struct iommu_group *iommu_group;
	bool dirties_unseen;
};

/**
 * struct vfio_type1v3_domain - an IOMMU domain and the groups attached to it
 * @dma: what the core knows of it
 * @groups: list of struct vfio_type1v3_group, not empty
 * @coherent: the domain enforces cache coherency
 */
struct vfio_type1v3_domain {
	struct vfio_dma_domain dma;
	struct list_head groups;
	bool coherent;
};

/**
 * struct vfio_type1v3_map - a VFIO_IOMMU_MAP_DMA that has not finished
 * @next: in &vfio_type1v3.maps
 * @first: first IOVA page
 * @mapped: pages from @first on that are pinned and in the IO page tables
 * @pinned: those of them that are not device memory
 * @charged: pages charged for the call
 * @lost: what had been mapped went with the last domain
 */
struct vfio_type1v3_map {
	struct list_head next;
	unsigned long first;
	unsigned long mapped;
	unsigned long pinned;
	unsigned long charged;
	bool lost;
};

/**
 * struct vfio_type1v3_release - a range that drivers are asked to unpin
 * @next: in &vfio_type1v3.releases
 * @first: first IOVA page
 * @last: last IOVA page
 * @interruptible: the caller gives up when it is killed
 */
struct vfio_type1v3_release {
	struct list_head next;
	unsigned long first;
	unsigned long last;
	bool interruptible;
};

/**
 * struct vfio_type1v3_bitmap - a user's dirty bitmap
 * @data: its first byte
 * @first: IOVA page that its first bit is for
 * @shift: a bit is for 1 << @shift pages
 * @room: kernel memory of PAGE_SIZE
 */
struct vfio_type1v3_bitmap {
	u8 __user *data;
	unsigned long first;
	unsigned int shift;
	unsigned long *room;
};

/* What is counted, for debugfs */
enum vfio_type1v3_op {
	VFIO_TYPE1V3_OP_MAP,
	VFIO_TYPE1V3_OP_UNMAP,
	VFIO_TYPE1V3_OP_BATCH,
	VFIO_TYPE1V3_OP_DIRTY,
	VFIO_TYPE1V3_OP_VADDR,
	VFIO_TYPE1V3_OP_PIN,
	VFIO_TYPE1V3_OP_UNPIN,
	VFIO_TYPE1V3_OP_RW,
	VFIO_TYPE1V3_NR_OPS
};

/**
 * struct vfio_type1v3_count - calls of one kind since the container was opened
 * @done: calls that have succeeded
 * @failed: calls that have not
 * @npages: pages that they have mapped, unmapped, pinned and so on
 */
struct vfio_type1v3_count {
	u64 done;
	u64 failed;
	u64 npages;
};

/**
 * struct vfio_type1v3 - a container
 * @lock: protects everything but @devices_lock and what follows @counts
 * @store: what is mapped
 * @space: the IOMMU domains
 * @owner: whose memory is mapped; set while @store is not empty or @pinning
 * @pinning: calls that pin with the mutex dropped
 * @maps: list of struct vfio_type1v3_map, for those that map in several steps
 * @epoch: how often groups have come or gone
 * @ranges: valid IOVA ranges, ascending; %NULL if anything is valid
 * @nr_ranges: length of @ranges
 * @emulated: groups without an IOMMU, list of struct vfio_type1v3_group
 * @devices_lock: held while drivers are told of an unmap
 * @devices: open devices that pin pages, list of struct vfio_device; changes
 *	with @devices_lock and @lock held
 * @pins: what emulated devices have pinned, VFIO_TYPE1V3_PIN_*
 * @releases: list of struct vfio_type1v3_release, of calls that wait for drivers
 * @vaddr_invalid: pages whose user memory is gone until it is updated
 * @dirty_tracking: VFIO_IOMMU_DIRTY_PAGES_FLAG_START was last
 * @counts: what has been done
 * @debugfs: directory of its files
 * @hash: in vfio_type1v3_containers
 * @id: what VFIO knows the container by
 * @users: VFIO itself, and every call that is in progress
 * @rcu: for freeing
 *
 * Lock order: the VFIO core's locks, @devices_lock, @lock, mmap_lock.
 */
struct vfio_type1v3 {
	struct mutex lock;	/* everything, see above */
	struct vfio_xa_dma store;
	struct vfio_dma_space space;
	struct vfio_dma_owner owner;
	unsigned int pinning;
	struct list_head maps;
	unsigned long epoch;
	struct vfio_iova_range *ranges;
	unsigned int nr_ranges;
	struct list_head emulated;
	struct mutex devices_lock;	/* drivers' callbacks */
	struct list_head devices;
	struct vfio_xa_dma pins;
	struct list_head releases;
	unsigned long vaddr_invalid;
	bool dirty_tracking;
	struct vfio_type1v3_count counts[VFIO_TYPE1V3_NR_OPS];
	struct dentry *debugfs;
	struct hlist_node hash;
	unsigned long id;
	refcount_t users;
	struct rcu_head rcu;
};

/*
 * VFIO calls ->ioctl() without a lock against ->release(), which another
 * thread causes by removing the last group.  So what VFIO is given is not a
 * pointer but a number to look the container up by: a call that comes too late
 * finds nothing.  No number is used twice.
 */
static DEFINE_HASHTABLE(vfio_type1v3_containers, 6);
static DEFINE_SPINLOCK(vfio_type1v3_containers_lock);
static unsigned long vfio_type1v3_last_id;

static struct vfio_type1v3 *vfio_type1v3_find(void *iommu_data)
{
	unsigned long id = (unsigned long)iommu_data;
	struct vfio_type1v3 *container;

	hash_for_each_possible_rcu(vfio_type1v3_containers, container, hash, id)
		if (container->id == id)
			break;
	return container;
}

static struct vfio_type1v3 *vfio_type1v3_get(void *iommu_data)
{
	struct vfio_type1v3 *container;

	rcu_read_lock();
	container = vfio_type1v3_find(iommu_data);
	if (container && !refcount_inc_not_zero(&container->users))
		container = NULL;
	rcu_read_unlock();
	return container;
}

/*
 * The container of a driver's call.  Its device is open, and VFIO lets go of no
 * container with such a device, so this one stays without a reference.
 */
static struct vfio_type1v3 *vfio_type1v3_of_driver(void *iommu_data)
{
	struct vfio_type1v3 *container;

	rcu_read_lock();
	container = vfio_type1v3_find(iommu_data);
	rcu_read_unlock();
	return container;
}

static void vfio_type1v3_put(struct vfio_type1v3 *container)
{
	if (!refcount_dec_and_test(&container->users))
		return;

	vfio_xa_dma_destroy(&container->pins);
	vfio_xa_dma_destroy(&container->store);
	vfio_dma_owner_clear(&container->owner);
	vfio_dma_space_destroy(&container->space);
	mutex_destroy(&container->devices_lock);
	mutex_destroy(&container->lock);
	kfree_rcu(container, rcu);
	/*
	 * VFIO's own reference went with ->release(), a late call has none.  It
	 * returns from here through code that the module may be gone with, as any
	 * call may that VFIO has not made yet when ->release() runs.
	 */
	module_put(THIS_MODULE);
}

/*
 * Look-ups
 */

static bool vfio_type1v3_has_domain(const struct vfio_type1v3 *container)
{
	return !list_empty(&container->space.domains);
}

/* The last one takes the right to have anything mapped with it. */
static bool vfio_type1v3_has_group(const struct vfio_type1v3 *container)
{
	return vfio_type1v3_has_domain(container) ||
	       !list_empty(&container->emulated);
}

static unsigned long vfio_type1v3_pgsize(const struct vfio_type1v3 *container)
{
	return container->space.pgsize_bitmap &
	       -container->space.pgsize_bitmap;
}

static dma_addr_t vfio_type1v3_iova(unsigned long index)
{
	return (dma_addr_t)index << PAGE_SHIFT;
}

static unsigned long vfio_type1v3_run_pages(const struct vfio_xa_dma_run *run)
{
	return run->last - run->first + 1;
}

/* Pages charged to the owner.  Calls that pin charge for it without the mutex. */
static unsigned long vfio_type1v3_pinned(const struct vfio_type1v3 *container)
{
	return container->owner.mm ? READ_ONCE(container->owner.npages) : 0;
}

static void vfio_type1v3_count(struct vfio_type1v3 *container,
			       enum vfio_type1v3_op op, unsigned long npages,
			       int ret)
{
	struct vfio_type1v3_count *count = &container->counts[op];

	lockdep_assert_held(&container->lock);
	if (ret)
		count->failed++;
	else
		count->done++;
	count->npages += npages;
}

static bool vfio_type1v3_iova_valid(const struct vfio_type1v3 *container,
				    u64 start, u64 last)
{
	unsigned int i;

	for (i = 0; i < container->nr_ranges; i++)
		if (start >= container->ranges[i].start &&
		    last <= container->ranges[i].end)
			return true;

	return !container->ranges;
}

/* Has an emulated device pinned anything? */
static bool vfio_type1v3_has_pins(const struct vfio_type1v3 *container)
{
	return !vfio_xa_dma_empty(&container->pins);
}

static unsigned long vfio_type1v3_pin_word(unsigned long pfn)
{
	return pfn >> VFIO_TYPE1V3_PIN_LOW_BITS << VFIO_TYPE1V3_PIN_HIGH_SHIFT |
	       (pfn & VFIO_TYPE1V3_PIN_LOW_MASK) << VFIO_TYPE1V3_PIN_LOW_SHIFT |
	       VFIO_TYPE1V3_PIN_ONE;
}

static unsigned long vfio_type1v3_pin_pfn(unsigned long word)
{
	return word >> VFIO_TYPE1V3_PIN_HIGH_SHIFT << VFIO_TYPE1V3_PIN_LOW_BITS |
	       (word >> VFIO_TYPE1V3_PIN_LOW_SHIFT & VFIO_TYPE1V3_PIN_LOW_MASK);
}

/* Replace what is known of a page that is pinned. */
static void vfio_type1v3_set_pin(struct vfio_type1v3 *container,
				 unsigned long index, unsigned long from,
				 unsigned long to)
{
	/* Pins of one page at several addresses can be equal, and a run. */
	vfio_xa_dma_prepare_nofail(&container->pins, index, index);
	vfio_xa_dma_change(&container->pins, index, index, from, to);
}

/* Count pinned pages; with @charged those only that are charged on their own. */
static noinline unsigned long
__vfio_type1v3_count_pins(struct vfio_type1v3 *container, unsigned long first,
			  unsigned long last, bool charged)
{
	struct vfio_xa_dma_run run;
	unsigned long n = 0;

	while (vfio_xa_dma_next(&container->pins, first, last, &run)) {
		if (!charged || run.word & VFIO_TYPE1V3_PIN_CHARGED)
			n += vfio_type1v3_run_pages(&run);
		if (run.last >= last)
			break;
		first = run.last + 1;
		cond_resched();
	}
	return n;
}

static inline unsigned long
vfio_type1v3_count_pins(struct vfio_type1v3 *container, unsigned long first,
			unsigned long last)
{
	if (!vfio_type1v3_has_pins(container))
		return 0;
	return __vfio_type1v3_count_pins(container, first, last, false);
}

static inline unsigned long
vfio_type1v3_count_charged_pins(struct vfio_type1v3 *container,
				unsigned long first, unsigned long last)
{
	if (!vfio_type1v3_has_pins(container))
		return 0;
	return __vfio_type1v3_count_pins(container, first, last, true);
}

/* Change flags of pages that are not known to be a run of their own. */
static void vfio_type1v3_change(struct vfio_type1v3 *container,
				unsigned long first, unsigned long last,
				unsigned long clear, unsigned long set)
{
	vfio_xa_dma_prepare_nofail(&container->store, first, last);
	vfio_xa_dma_change(&container->store, first, last, clear, set);
}

static void vfio_type1v3_set_dirty(struct vfio_type1v3 *container,
				   unsigned long first, unsigned long last)
{
	if (container->dirty_tracking)
		vfio_type1v3_change(container, first, last, 0,
				    VFIO_XA_DMA_DIRTY);
}

/* Nobody owns a container without mappings, so the next one to map can be anybody. */
static void vfio_type1v3_put_owner(struct vfio_type1v3 *container)
{
	struct vfio_dma_owner *owner = &container->owner;

	if (!vfio_xa_dma_empty(&container->store) || container->pinning ||
	    !owner->mm)
		return;
	if (trace_type1v3_owner_enabled())
		trace_type1v3_owner(container->id, task_tgid_nr(owner->task), 0,
				    owner->npages);
	vfio_dma_owner_clear(owner);
}

/*
 * Unmapping
 */

/*
 * Forget pins of pages that are unmapped nevertheless.  What a driver still uses
 * can only be leaked, and stays charged.
 */
static void vfio_type1v3_leak_pins(struct vfio_type1v3 *container,
				   unsigned long first, unsigned long last)
{
	unsigned long npages = vfio_type1v3_count_pins(container, first, last);

	if (!WARN_ONCE(npages,
		       "vfio_iommu_type1v3: a driver keeps pages that are unmapped\n"))
		return;
	vfio_dma_charge_lost(&container->owner, npages,
			     vfio_type1v3_count_charged_pins(container, first,
							     last));
	vfio_xa_dma_prepare_nofail(&container->pins, first, last);
	vfio_xa_dma_erase(&container->pins, first, last);
}

static unsigned long vfio_type1v3_count_invalid(struct vfio_type1v3 *container,
						unsigned long first,
						unsigned long last)
{
	struct vfio_xa_dma_run run;
	unsigned long n = 0;

	while (vfio_xa_dma_next(&container->store, first, last, &run)) {
		if (run.word & VFIO_XA_DMA_VADDR_INVALID)
			n += vfio_type1v3_run_pages(&run);
		if (run.last >= last)
			break;
		first = run.last + 1;
		cond_resched();
	}
	return n;
}

/* Unmap a stretch, or as much around it as must go.  Counts pages and unpinned. */
static int vfio_type1v3_unmap_run(struct vfio_type1v3 *container,
				  struct vfio_xa_dma_run *run,
				  unsigned long *npages,
				  unsigned long *unpinned)
{
	bool has_domain = vfio_type1v3_has_domain(container);
	unsigned long first = run->first, last = run->last;
	int ret = 0;

	if (has_domain && run->word & VFIO_XA_DMA_BIG)
		ret = vfio_dma_cut_ends(&container->store, &container->space,
					&first, &last);

	vfio_xa_dma_prepare_nofail(&container->store, first, last);

	if (has_domain && !ret)
		*unpinned += vfio_dma_unmap(&container->space,
					    vfio_type1v3_iova(first),
					    last - first + 1,
					    vfio_dma_cut_unmap_flags(run->word));
	if (ret) {
		*unpinned += vfio_dma_cut_unmap(&container->store,
						&container->space, first, last);
		vfio_dma_unmap_flush(&container->space);
		vfio_dma_forget_lost(&container->space);
		/* What has been added may be in use by emulated devices. */
		vfio_type1v3_leak_pins(container, first, last);
	}

	if (container->vaddr_invalid)
		container->vaddr_invalid -=
			vfio_type1v3_count_invalid(container, first, last);
	vfio_xa_dma_erase(&container->store, first, last);
	run->first = first;
	run->last = last;
	*npages += last - first + 1;
	return ret;
}

/* Nothing is pinned anew in a range whose pins are being released. */
static bool vfio_type1v3_is_releasing(const struct vfio_type1v3 *container,
				      unsigned long index)
{
	const struct vfio_type1v3_release *release;

	list_for_each_entry(release, &container->releases, next)
		if (index >= release->first && index <= release->last)
			return true;
	return false;
}

/* Is a page still pinned that drivers were asked to unpin, and the caller alive? */
static bool vfio_type1v3_must_ask(const struct vfio_type1v3_release *release,
				  struct vfio_type1v3 *container,
				  unsigned long index)
{
	return vfio_xa_dma_load(&container->pins, index) &&
	       !(release->interruptible && fatal_signal_pending(current));
}

/*
 * Have all drivers unpin what they have pinned of [@first, @last].  Called with
 * the mutex held, returns with it held; it is dropped in between.
 */
static void vfio_type1v3_notify(struct vfio_type1v3 *container,
				unsigned long first, unsigned long last)
{
	struct vfio_device *device;

	mutex_unlock(&container->lock);
	mutex_lock(&container->devices_lock);
	list_for_each_entry(device, &container->devices, iommu_entry)
		device->ops->dma_unmap(device, vfio_type1v3_iova(first),
				       (u64)(last - first + 1) << PAGE_SHIFT);
	mutex_unlock(&container->devices_lock);
	cond_resched();
	mutex_lock(&container->lock);
}

/* The last of the pinned pages that follow page @index without a gap */
static unsigned long vfio_type1v3_last_pin(struct vfio_type1v3 *container,
					   unsigned long index)
{
	unsigned long end = index | (VFIO_TYPE1V3_UNMAP_WINDOW - 1);
	struct vfio_xa_dma_run run;

	while (index < end &&
	       vfio_xa_dma_next(&container->pins, index + 1, end, &run) &&
	       run.first == index + 1) {
		index = run.last;
		cond_resched();
	}
	return index;
}

/*
 * Have page @index unpinned, and of what follows it in the range as much as a
 * window holds.  Called with the mutex held, returns with it held; it is dropped
 * in between.
 *
 * A driver may keep an object of several pages that it finds by the first one
 * alone, which need not be in the range.  So if the page is still pinned, drivers
 * are told of its neighbours to the left, one by one as long as these are pinned:
 * no other object goes but those that begin between the first page of this one
 * and @index.  Then they are told of all that is pinned around it.
 */
static void vfio_type1v3_release_page(struct vfio_type1v3 *container,
				      const struct vfio_type1v3_release *release,
				      unsigned long index)
{
	unsigned int retries = VFIO_TYPE1V3_RELEASE_RETRIES - 1, patience = 3;
	unsigned long first = index, last, bound;
	struct vfio_xa_dma_run run;

	/* A pinned page is mapped. */
	if (WARN_ON_ONCE(!vfio_xa_dma_next(&container->store, index,
					   release->last, &run)))
		return;
	last = min(run.last, index | (VFIO_TYPE1V3_UNMAP_WINDOW - 1));
	/* A driver may have to be asked again, and others are not to pay for it. */
	do {
		vfio_type1v3_notify(container, index, last);
	} while (vfio_type1v3_must_ask(release, container, index) && --patience);

	bound = index - min(index, VFIO_TYPE1V3_UNMAP_WINDOW);
	while (vfio_type1v3_must_ask(release, container, index) &&
	       first > bound &&
	       vfio_xa_dma_load(&container->pins, first - 1)) {
		first--;
		vfio_type1v3_notify(container, first, first);
	}

	while (vfio_type1v3_must_ask(release, container, index) && retries--)
		vfio_type1v3_notify(container, first,
				    max(last, vfio_type1v3_last_pin(container,
								    index)));
}

/*
 * Have the drivers of emulated devices unpin what they have pinned of
 * [@first, @last].  The mutex is dropped while they do.  No new pins are made in
 * the meantime, so that there is an end to it, and there are none left when it
 * returns 0; -EINTR if @interruptible and the caller is about to die.
 */
static int vfio_type1v3_release_pins(struct vfio_type1v3 *container,
				     unsigned long first, unsigned long last,
				     bool interruptible)
{
	struct vfio_type1v3_release release = {
		.first = first,
		.last = last,
		.interruptible = interruptible,
	};
	struct vfio_xa_dma_run run;
	int ret = 0;

	list_add(&release.next, &container->releases);
	while (vfio_type1v3_has_pins(container) &&
	       vfio_xa_dma_next(&container->pins, first, last, &run)) {
		if (interruptible && fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		first = run.first;
		vfio_type1v3_release_page(container, &release, first);
		if (vfio_type1v3_must_ask(&release, container, first))
			vfio_type1v3_leak_pins(container, first, first);
	}
	list_del(&release.next);
	return ret;
}

static noinline int vfio_type1v3_unmap_runs(struct vfio_type1v3 *container,
					    unsigned long first,
					    unsigned long last,
					    bool interruptible,
					    unsigned long *npages,
					    unsigned long *unpinned)
{
	struct vfio_xa_dma_run run;
	int ret = 0;

	while (vfio_dma_cut_next_stretch(&container->store, &container->space,
					 first, last, &run)) {
		if (!(run.word & VFIO_XA_DMA_PENDING))
			ret = vfio_type1v3_unmap_run(container, &run, npages,
						     unpinned);
		if (run.last >= last)
			break;
		first = run.last + 1;
		if (!ret && interruptible && fatal_signal_pending(current))
			ret = -EINTR;
		if (ret)
			break;
		cond_resched();
	}
	return ret;
}

/* Take a page out of the store, if there is nothing else to know of it. */
static inline unsigned long vfio_type1v3_take(struct vfio_type1v3 *container,
					      unsigned long index)
{
	return vfio_xa_dma_take(&container->store, index,
				VFIO_XA_DMA_PENDING | VFIO_XA_DMA_BIG |
				VFIO_XA_DMA_VADDR_INVALID);
}

/* Returns how many pages are, or will be, unpinned. */
static inline unsigned long vfio_type1v3_unmap_taken(struct vfio_type1v3 *container,
						     unsigned long first,
						     unsigned long npages,
						     unsigned int flags)
{
	if (!vfio_type1v3_has_domain(container))
		return 0;
	return vfio_dma_unmap(&container->space, vfio_type1v3_iova(first),
			      npages, flags);
}

/*
 * Unmap the first of a few pages, one by one in the store but not in the IO page
 * tables, and return the first that is not mapped or takes more than that.
 */
static noinline unsigned long
vfio_type1v3_unmap_few(struct vfio_type1v3 *container, unsigned long first,
		       unsigned long last, unsigned long *unpinned)
{
	unsigned long start = first, word;
	unsigned int flags = 0, next;

	do {
		word = first > last ? 0 : vfio_type1v3_take(container, first);
		next = vfio_dma_cut_unmap_flags(word);
		if (first > start && (!word || next != flags)) {
			*unpinned += vfio_type1v3_unmap_taken(container, start,
							      first - start,
							      flags);
			start = first;
		}
		flags = next;
	} while (word && ++first);
	return first;
}

/*
 * Unmap all that is mapped of [@first, @last], and add it to @npages and to
 * @unpinned.  What other calls are about to map is not: those calls count as
 * later than this one.  vfio_type1v3_unmap_finish() must follow before the mutex
 * is dropped.
 */
static inline int vfio_type1v3_unmap_range(struct vfio_type1v3 *container,
					   unsigned long first,
					   unsigned long last,
					   bool interruptible,
					   unsigned long *npages,
					   unsigned long *unpinned)
{
	unsigned long next = first, word;
	int ret = 0;

	lockdep_assert_held(&container->lock);
	WARN_ON_ONCE(vfio_type1v3_count_pins(container, first, last));

	if (first == last) {
		word = vfio_type1v3_take(container, first);
		if (word) {
			*unpinned += vfio_type1v3_unmap_taken(container, first, 1,
					vfio_dma_cut_unmap_flags(word));
			next++;
		}
	} else if (last - first < VFIO_TYPE1V3_FEW) {
		next = vfio_type1v3_unmap_few(container, first, last, unpinned);
	}
	*npages += next - first;
	if (next <= last)
		ret = vfio_type1v3_unmap_runs(container, next, last,
					      interruptible, npages, unpinned);
	/* What it has failed to unmap is mapped no longer, but can be reached. */
	if (unlikely(container->space.leaked)) {
		container->space.leaked = false;
		ret = ret ?: -EIO;
	}
	return ret;
}

/* Now that the IOTLBs are synchronised the pages are the owner's again. */
static void vfio_type1v3_unmap_finish(struct vfio_type1v3 *container,
				      unsigned long unpinned)
{
	vfio_dma_unmap_flush(&container->space);
	vfio_dma_uncharge(&container->owner, unpinned);
	vfio_type1v3_put_owner(container);
}

/*
 * Take back what a call in progress has mapped so far.  Its charge is without what
 * an IOMMU driver fails to give back.
 */
static void vfio_type1v3_unmap_map(struct vfio_type1v3 *container,
				   struct vfio_dma_space *space,
				   struct vfio_type1v3_map *map)
{
	unsigned long unpinned;

	if (!map->mapped)
		return;

	unpinned = vfio_dma_cut_unmap(&container->store, space, map->first,
				      map->first + map->mapped - 1);
	vfio_dma_unmap_flush(space);
	map->charged -= min(map->charged, map->pinned - unpinned);
	map->mapped = 0;
	map->pinned = 0;
}

/* The last group has gone, and with it the right to have anything mapped. */
static void vfio_type1v3_unmap_all(struct vfio_type1v3 *container)
{
	unsigned long npages = 0, unpinned = 0;
	int ret;

	do {
		ret = vfio_type1v3_unmap_range(container, 0,
					       VFIO_XA_DMA_LAST_INDEX, false,
					       &npages, &unpinned);
	} while (ret);
	vfio_type1v3_unmap_finish(container, unpinned);
}

/* Without a domain every page that is pinned is charged on its own. */
static void vfio_type1v3_set_charged(struct vfio_type1v3 *container,
				     unsigned long first, unsigned long last)
{
	vfio_xa_dma_prepare_nofail(&container->pins, first, last);
	vfio_xa_dma_change(&container->pins, first, last, 0,
			   VFIO_TYPE1V3_PIN_CHARGED);
}

/*
 * Keep the mappings up to page @last, but not in the domains of @space: only
 * what emulated devices have pinned remains pinned, and charged.
 */
static void vfio_type1v3_unpin_upto(struct vfio_type1v3 *container,
				    struct vfio_dma_space *space,
				    unsigned long last)
{
	unsigned long unpinned = 0, first = 0, extra;
	struct vfio_xa_dma_run run;

	while (vfio_dma_cut_next_stretch(&container->store, &container->space,
					 first, last, &run)) {
		if (!(run.word & VFIO_XA_DMA_PENDING))
			unpinned += vfio_dma_cut_unmap(&container->store, space,
						       run.first, run.last);
		if (run.last == last)
			break;
		first = run.last + 1;
	}
	vfio_dma_unmap_flush(space);
	extra = vfio_type1v3_count_pins(container, 0, last) -
		vfio_type1v3_count_charged_pins(container, 0, last);
	vfio_dma_uncharge(&container->owner, unpinned - min(unpinned, extra));
	if (extra)
		vfio_type1v3_set_charged(container, 0, last);
}

/* Calls in progress lose what they have mapped, but not what they reserved. */
static void vfio_type1v3_lose_maps(struct vfio_type1v3 *container)
{
	struct vfio_type1v3_map *map;

	list_for_each_entry(map, &container->maps, next) {
		vfio_type1v3_unmap_map(container, &container->space, map);
		map->lost = true;
	}
}

/*
 * Dirty tracking
 *
 * A page is known to be dirty by a flag of its word, which is set when
 * vfio_dma_rw() writes to it, when a driver unpins it, and when a group goes
 * that could write to it unseen; and it counts as dirty while it is pinned.
 *
 * Groups that write unseen may be behind IOMMUs that record it: then the bits of
 * their IO page tables come on top.  Otherwise all that is mapped is dirty.
 * Such a bit stands for a superpage as a whole, and goes with it: a superpage
 * that is divided, and one across an end of the range that is asked for, has
 * the flag set in its words.
 */

/* Who answers, or would answer if tracking were started: VFIO_IOMMU_TYPE1V3_DIRTY_* */
static u32 vfio_type1v3_dirty_source(struct vfio_type1v3 *container)
{
	u32 source = VFIO_IOMMU_TYPE1V3_DIRTY_PINNED;
	struct vfio_type1v3_group *group;
	struct vfio_type1v3_domain *domain;
	struct vfio_dma_domain *d;

	list_for_each_entry(d, &container->space.domains, next) {
		domain = container_of(d, struct vfio_type1v3_domain, dma);
		list_for_each_entry(group, &domain->groups, next) {
			if (!group->dirties_unseen)
				continue;
			if (container->dirty_tracking ? !d->tracking :
			    !vfio_dma_domain_can_track(d))
				return VFIO_IOMMU_TYPE1V3_DIRTY_ALL;
			source = VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE;
		}
	}
	return source;
}

/*
 * Take the dirty bit of a block that could be a superpage, across the border
 * before page @at, to the words of its pages.  Returns false if there is no such
 * block.
 */
static bool vfio_type1v3_take_block(struct vfio_type1v3 *container,
				    struct vfio_dma_domain *domain,
				    unsigned long at,
				    struct vfio_xa_dma_run *block)
{
	unsigned long npages = 0, word;
	dma_addr_t first, last;

	if (!at || at > VFIO_XA_DMA_LAST_INDEX)
		return false;
	word = vfio_xa_dma_load(&container->store, at - 1) &
	       vfio_xa_dma_load(&container->store, at);
	if (word & VFIO_XA_DMA_BIG && word & VFIO_XA_DMA_WRITE)
		npages = vfio_dma_cut_find_block(&container->store, domain, at,
						 vfio_dma_cut_prot(word));
	if (!npages)
		return false;

	block->first = round_down(at, npages);
	block->last = block->first + npages - 1;
	if (vfio_dma_domain_take_dirty(domain, vfio_type1v3_iova(block->first),
				       npages, &first, &last))
		vfio_type1v3_set_dirty(container, first >> PAGE_SHIFT,
				       last >> PAGE_SHIFT);
	return true;
}

/* Read, or only clear, what the IOMMU of a domain has recorded of a range. */
static void vfio_type1v3_read_domain(struct vfio_type1v3 *container,
				     struct vfio_dma_domain *domain,
				     unsigned long first, unsigned long last,
				     bool clear, struct iova_bitmap *bitmap)
{
	struct vfio_xa_dma_run run, block;

	/* The bitmap has no room for what lies outside of the range. */
	if (vfio_type1v3_take_block(container, domain, first, &block))
		first = block.last + 1;
	if (first <= last &&
	    vfio_type1v3_take_block(container, domain, last + 1, &block)) {
		/* Nothing is below a block that begins at IOVA 0. */
		if (block.first <= first)
			return;
		last = block.first - 1;
	}

	while (first <= last &&
	       vfio_dma_cut_next_stretch(&container->store, &container->space,
					 first, last, &run)) {
		/* Perhaps it is more; what is too much is only a cost. */
		if (!(run.word & VFIO_XA_DMA_PENDING) &&
		    run.word & VFIO_XA_DMA_WRITE &&
		    vfio_dma_domain_read_dirty(domain,
					       vfio_type1v3_iova(run.first),
					       vfio_type1v3_run_pages(&run),
					       clear, bitmap))
			vfio_type1v3_set_dirty(container, run.first, run.last);
		if (run.last >= last)
			break;
		first = run.last + 1;
		cond_resched();
	}
}

/* Begin to track: nothing is dirty, and nothing is allocated. */
static void vfio_type1v3_start_tracking(struct vfio_type1v3 *container)
{
	struct vfio_dma_domain *domain;

	if (container->dirty_tracking)
		return;

	list_for_each_entry(domain, &container->space.domains, next) {
		if (vfio_dma_domain_can_track(domain))
			vfio_type1v3_read_domain(container, domain, 0,
						 VFIO_XA_DMA_LAST_INDEX, true,
						 NULL);
		vfio_dma_domain_track(domain, true);
	}
	vfio_dma_unmap_flush(&container->space);
	container->dirty_tracking = true;
}

static void vfio_type1v3_stop_tracking(struct vfio_type1v3 *container)
{
	struct vfio_dma_domain *domain;

	list_for_each_entry(domain, &container->space.domains, next)
		if (domain->tracking)
			vfio_dma_domain_track(domain, false);
	container->dirty_tracking = false;
	vfio_type1v3_change(container, 0, VFIO_XA_DMA_LAST_INDEX,
			    VFIO_XA_DMA_DIRTY, 0);
}

/* Where the bit of page @index is */
static u8 __user *vfio_type1v3_bitmap_byte(const struct vfio_type1v3_bitmap *bitmap,
					   unsigned long index)
{
	return bitmap->data +
	       ((index - bitmap->first) >> bitmap->shift) / BITS_PER_BYTE;
}

/* Write zeros, in steps after which there is a look for a fatal signal. */
static int vfio_type1v3_clear_bitmap(u8 __user *data, size_t bytes)
{
	size_t n;

	for (; bytes; bytes -= n, data += n) {
		n = min(bytes, PAGE_SIZE - offset_in_page(data));
		if (clear_user(data, n))
			return -EFAULT;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

/* Add dirty pages of [@first, @last] to at most PAGE_SIZE bytes of bits. */
static void vfio_type1v3_fill_bitmap(struct vfio_type1v3 *container,
				     unsigned long first, unsigned long last,
				     unsigned int shift, bool all,
				     unsigned long *bitmap)
{
	unsigned long pos = first, lo, hi;
	struct vfio_xa_dma_run run;

	while (vfio_xa_dma_next(&container->store, pos, last, &run)) {
		if ((all || run.word & VFIO_XA_DMA_DIRTY) &&
		    !(run.word & VFIO_XA_DMA_PENDING)) {
			lo = (run.first - first) >> shift;
			hi = (run.last - first) >> shift;
			bitmap_set(bitmap, lo, hi - lo + 1);
		}
		if (run.last >= last)
			break;
		pos = run.last + 1;
	}

	if (!vfio_type1v3_has_pins(container))
		return;
	for (pos = first; vfio_xa_dma_next(&container->pins, pos, last, &run);
	     pos = run.last + 1) {
		lo = (run.first - first) >> shift;
		hi = (run.last - first) >> shift;
		bitmap_set(bitmap, lo, hi - lo + 1);
		if (run.last >= last)
			break;
	}
}

/*
 * Write the bits of [@first, @last], of which the first one begins a byte: those
 * that the words say, and on top those that @pages hold, the pages of user memory
 * from the one with that byte on, unless that is %NULL.
 */
static int vfio_type1v3_write_bits(struct vfio_type1v3 *container,
				   const struct vfio_type1v3_bitmap *bitmap,
				   unsigned long first, unsigned long last,
				   bool all, struct page **pages)
{
	unsigned long step = PAGE_SIZE * BITS_PER_BYTE << bitmap->shift;
	u8 __user *data = vfio_type1v3_bitmap_byte(bitmap, first);
	size_t offset = offset_in_page(data), bits, bytes, done, n;
	unsigned long chunk_last;

	for (;; first += step, offset += bytes, data += bytes) {
		chunk_last = min(last, first + step - 1);
		bits = ((chunk_last - first) >> bitmap->shift) + 1;
		/* The bits that fill up the last word are 0, or have been cleared. */
		bytes = pages ? DIV_ROUND_UP(bits, BITS_PER_BYTE) :
				VFIO_TYPE1V3_BITMAP_BYTES(bits);
		memset(bitmap->room, 0, bytes);
		for (done = 0; pages && done < bytes; done += n) {
			n = min(bytes - done,
				PAGE_SIZE - offset_in_page(offset + done));
			memcpy_from_page((char *)bitmap->room + done,
					 pages[(offset + done) >> PAGE_SHIFT],
					 offset_in_page(offset + done), n);
		}
		vfio_type1v3_fill_bitmap(container, first, chunk_last,
					 bitmap->shift, all, bitmap->room);
		if (copy_to_user(data, bitmap->room, bytes))
			return -EFAULT;
		if (chunk_last == last)
			return 0;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
}

/* Set a bit through @bitmap.  Does that change the page in which it has to be? */
static bool vfio_type1v3_try_bit(struct iova_bitmap *bitmap, unsigned long index,
				 struct page *page, size_t offset,
				 unsigned int bit)
{
	u8 *byte = kmap_local_page(page) + offset;
	bool ret;

	iova_bitmap_set(bitmap, vfio_type1v3_iova(index), PAGE_SIZE);
	ret = READ_ONCE(*byte) & BIT(bit);
	WRITE_ONCE(*byte, *byte & ~BIT(bit));
	kunmap_local(byte);
	return ret;
}

/*
 * Write the bits of [@first, @last], which is within a window: what the IOMMUs have
 * recorded, and the words.  The bitmap has been cleared, but may share a byte with
 * the window before.  *@read: what has been recorded may be known no more.
 *
 * An iova_bitmap pins user memory when a bit is set, keeps it until another part is
 * needed, and says nothing if it fails; meanwhile the IOMMU forgets the bit.  So all
 * of the window's user memory is pinned here, before, and an iova_bitmap that can
 * reach the last bit and then the first needs no other part.  The bits are read from
 * the pages that are pinned: what user space does to the address loses none.
 */
static int vfio_type1v3_report_window(struct vfio_type1v3 *container,
				      const struct vfio_type1v3_bitmap *bitmap,
				      unsigned long first, unsigned long last,
				      bool clear, bool *read)
{
	u8 __user *data = vfio_type1v3_bitmap_byte(bitmap, first);
	u8 __user *end = vfio_type1v3_bitmap_byte(bitmap, last);
	size_t offset = offset_in_page(data), end_offset;
	unsigned int first_bit, last_bit, nr, pinned;
	struct page *pages[VFIO_TYPE1V3_DIRTY_PAGES];
	struct iova_bitmap *hw_bitmap;
	struct vfio_dma_domain *domain;
	unsigned long start;
	int ret;

	first_bit = ((first - bitmap->first) >> bitmap->shift) % BITS_PER_BYTE;
	last_bit = ((last - bitmap->first) >> bitmap->shift) % BITS_PER_BYTE;
	end_offset = offset + (end - data);
	start = first - ((unsigned long)first_bit << bitmap->shift);
	nr = (end_offset >> PAGE_SHIFT) + 1;

	hw_bitmap = iova_bitmap_alloc(vfio_type1v3_iova(start),
				      (last - start + 1) << PAGE_SHIFT,
				      PAGE_SIZE << bitmap->shift,
				      (u64 __user *)data);
	if (IS_ERR(hw_bitmap))
		return PTR_ERR(hw_bitmap);

	ret = pin_user_pages_fast((unsigned long)data & PAGE_MASK, nr,
				  FOLL_WRITE, pages);
	pinned = max(ret, 0);
	ret = fatal_signal_pending(current) ? -EINTR : -EFAULT;
	if (pinned < nr ||
	    !vfio_type1v3_try_bit(hw_bitmap, last, pages[nr - 1],
				  offset_in_page(end_offset), last_bit) ||
	    !vfio_type1v3_try_bit(hw_bitmap, first, pages[0], offset, first_bit))
		goto out_unpin;

	*read = clear;
	list_for_each_entry(domain, &container->space.domains, next)
		if (domain->tracking)
			vfio_type1v3_read_domain(container, domain, first, last,
						 clear, hw_bitmap);
	vfio_dma_unmap_flush(&container->space);
	ret = vfio_type1v3_write_bits(container, bitmap, start, last, false,
				      pages);

out_unpin:
	iova_bitmap_free(hw_bitmap);
	unpin_user_pages(pages, pinned);
	return ret;
}

/*
 * Write what the IOMMUs have recorded, and the words; see report_dirty().  Nothing
 * mapped, nothing to read: windows begin where something is.
 */
static int vfio_type1v3_report_hardware(struct vfio_type1v3 *container,
					const struct vfio_type1v3_bitmap *bitmap,
					unsigned long last, bool clear)
{
	unsigned long first = bitmap->first, pos = first, window_last;
	struct vfio_xa_dma_run run;
	bool read = false;
	size_t bits;
	int ret;

	bits = ((last - first) >> bitmap->shift) + 1;
	ret = vfio_type1v3_clear_bitmap(bitmap->data,
					VFIO_TYPE1V3_BITMAP_BYTES(bits));
	while (!ret && vfio_xa_dma_next(&container->store, pos, last, &run)) {
		window_last = min(last, run.first |
				  (VFIO_TYPE1V3_DIRTY_WINDOW - 1));
		ret = vfio_type1v3_report_window(container, bitmap, run.first,
						 window_last, clear, &read);
		if (!ret && window_last < last && fatal_signal_pending(current))
			ret = -EINTR;
		/* What has been read is not known any more. */
		if (ret && read)
			vfio_type1v3_set_dirty(container, first, window_last);
		if (window_last == last)
			break;
		pos = window_last + 1;
		cond_resched();
	}
	return ret;
}

/*
 * Write the dirty bitmap of a range that the caller has checked.  @clear: what
 * the IOMMUs have recorded is clean from now on, unless this fails.
 */
static int vfio_type1v3_report_dirty(struct vfio_type1v3 *container,
				     unsigned long first, unsigned long last,
				     bool clear, u64 __user *data)
{
	u32 source = vfio_type1v3_dirty_source(container);
	struct vfio_type1v3_bitmap bitmap = {
		.data = (u8 __user *)data,
		.first = first,
		.shift = __ffs(container->space.pgsize_bitmap) - PAGE_SHIFT,
	};
	int ret;

	/* An unmap must not fail for want of memory. */
	bitmap.room = vfio_dma_kmalloc_nofail(PAGE_SIZE);
	if (source == VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE)
		ret = vfio_type1v3_report_hardware(container, &bitmap, last,
						   clear);
	else
		ret = vfio_type1v3_write_bits(container, &bitmap, first, last,
					      source == VFIO_IOMMU_TYPE1V3_DIRTY_ALL,
					      NULL);
	kfree(bitmap.room);
	return ret;
}

/* Is a user's bitmap for @size bytes of IOVA what it has to be? */
static int vfio_type1v3_check_bitmap(struct vfio_type1v3 *container,
				     const struct vfio_bitmap *bitmap, u64 size)
{
	u64 pgsize = vfio_type1v3_pgsize(container);
	u64 bits = size / pgsize;

	if (bitmap->pgsize != pgsize || !bitmap->size ||
	    bitmap->size > VFIO_TYPE1V3_BITMAP_BYTES_MAX ||
	    bits > VFIO_TYPE1V3_BITMAP_BITS_MAX ||
	    bitmap->size < VFIO_TYPE1V3_BITMAP_BYTES(bits) ||
	    !access_ok((void __user *)bitmap->data, bitmap->size))
		return -EINVAL;
	return 0;
}

/* Take the user memory of a range away; its pages stay pinned and mapped. */
static int vfio_type1v3_invalidate_vaddr(struct vfio_type1v3 *container,
					 unsigned long first,
					 unsigned long last,
					 unsigned long *npages)
{
	struct vfio_xa_dma_run run;
	unsigned long pos = first;

	*npages = 0;
	if (vfio_type1v3_count_invalid(container, first, last))
		return -EINVAL;

	while (vfio_xa_dma_next(&container->store, pos, last, &run)) {
		if (!(run.word & VFIO_XA_DMA_PENDING)) {
			vfio_type1v3_change(container, run.first, run.last, 0,
					    VFIO_XA_DMA_VADDR_INVALID);
			*npages += vfio_type1v3_run_pages(&run);
		}
		if (run.last >= last)
			break;
		pos = run.last + 1;
		cond_resched();
	}
	container->vaddr_invalid += *npages;
	return 0;
}

/* Check what is asked for; with the mutex, each time after it was dropped. */
static inline int
vfio_type1v3_check_unmap(struct vfio_type1v3 *container,
			 const struct vfio_iommu_type1_dma_unmap *unmap,
			 const struct vfio_bitmap *bitmap, u64 *last)
{
	u64 mask = vfio_type1v3_pgsize(container) - 1;

	/* Emulated devices reach memory by vaddr at any time. */
	if (unmap->flags & VFIO_DMA_UNMAP_FLAG_VADDR &&
	    !list_empty(&container->emulated))
		return -EBUSY;

	if (unmap->flags & VFIO_DMA_UNMAP_FLAG_ALL) {
		*last = U64_MAX;
		return unmap->iova || unmap->size ? -EINVAL : 0;
	}
	if (!unmap->size || (unmap->iova | unmap->size) & mask)
		return -EINVAL;
	if (check_add_overflow(unmap->iova, unmap->size - 1, last))
		return -EOVERFLOW;

	if (!bitmap)
		return 0;
	if (!container->dirty_tracking)
		return -EINVAL;
	return vfio_type1v3_check_bitmap(container, bitmap, unmap->size);
}

static int vfio_type1v3_do_unmap(struct vfio_type1v3 *container,
				 struct vfio_iommu_type1_dma_unmap *unmap,
				 const struct vfio_bitmap *bitmap)
{
	unsigned long npages = 0, unpinned = 0, first, last;
	u64 iova_last, size = unmap->size;
	int ret;

	if (mutex_lock_killable(&container->lock)) {
		unmap->size = 0;
		return -EINTR;
	}

	ret = vfio_type1v3_check_unmap(container, unmap, bitmap, &iova_last);
	if (ret)
		goto out_unlock;
	first = unmap->iova >> PAGE_SHIFT;
	last = iova_last >> PAGE_SHIFT;

	if (unmap->flags & VFIO_DMA_UNMAP_FLAG_VADDR) {
		ret = vfio_type1v3_invalidate_vaddr(container, first, last,
						    &npages);
		vfio_type1v3_count(container, VFIO_TYPE1V3_OP_VADDR, npages,
				   ret);
		goto out_size;
	}

	if (vfio_type1v3_has_pins(container)) {
		ret = vfio_type1v3_release_pins(container, first, last, true);
		ret = ret ?: vfio_type1v3_check_unmap(container, unmap, bitmap,
						      &iova_last);
	}
	if (bitmap && !ret)
		ret = vfio_type1v3_report_dirty(container, first, last, false,
						bitmap->data);
	if (ret)
		goto out_size;

	ret = vfio_type1v3_unmap_range(container, first, last, true, &npages,
				       &unpinned);
	vfio_type1v3_unmap_finish(container, unpinned);
	vfio_type1v3_count(container, VFIO_TYPE1V3_OP_UNMAP, npages, ret);
out_size:
	unmap->size = (u64)npages << PAGE_SHIFT;
out_unlock:
	if (trace_type1v3_unmap_enabled())
		trace_type1v3_unmap(container->id, unmap->iova, size,
				    (u64)npages << PAGE_SHIFT, unmap->flags,
				    ret);
	mutex_unlock(&container->lock);
	return ret;
}

/*
 * Mapping
 */

/**
 * struct vfio_type1v3_request - a range to be mapped
 * @first: first IOVA page
 * @last: last IOVA page
 * @vaddr: user memory
 * @word: the word that all of its pages will have, START aside
 * @granule: pages of the largest IOMMU page; no IOMMU page spans a multiple
 */
struct vfio_type1v3_request {
	unsigned long first;
	unsigned long last;
	unsigned long vaddr;
	unsigned long word;
	unsigned long granule;
};

/**
 * struct vfio_type1v3_unit - entries of a batch that are treated as one
 * @request: what they ask for together
 * @nr_entries: how many they are
 *
 * In an array of units each is where its first entry is in the batch.
 */
struct vfio_type1v3_unit {
	struct vfio_type1v3_request request;
	unsigned int nr_entries;
};

static unsigned long
vfio_type1v3_request_pages(const struct vfio_type1v3_request *request)
{
	return request->last - request->first + 1;
}

/*
 * Does a range contain an aligned block that some IOMMU could make a superpage of
 * at most @granule pages?
 */
static bool vfio_type1v3_covers_superpage(const struct vfio_type1v3 *container,
					  u64 iova, u64 size,
					  unsigned long granule)
{
	u64 superpage = container->space.superpage;

	if (!vfio_type1v3_has_domain(container))
		return size > PAGE_SIZE && granule > 1;
	if (!superpage || size < superpage || superpage >> PAGE_SHIFT > granule)
		return false;
	return size - superpage >= (-iova & (superpage - 1));
}

/*
 * The granule that flags ask for, in pages; 0 if there is none such.  Without one
 * it is the largest page that any IOMMU is given.
 */
static inline unsigned long
vfio_type1v3_granule(const struct vfio_type1v3 *container, u32 flags)
{
	unsigned int order = VFIO_DMA_MAP_GRANULE_ORDER(flags);

	if (!(flags & VFIO_DMA_MAP_GRANULE_MASK))
		return VFIO_DMA_EXTENT_MAX;
	if (!(flags & VFIO_DMA_MAP_GRANULE(0)) ||
	    order > VFIO_DMA_MAP_GRANULE_ORDER_MAX ||
	    order < __ffs(container->space.pgsize_bitmap) - PAGE_SHIFT)
		return 0;
	return min(BIT(order), VFIO_DMA_EXTENT_MAX);
}

/* Note in the words of an extent what its memory is like. */
static int vfio_type1v3_note_extent(struct vfio_type1v3 *container,
				    unsigned long first, unsigned long word,
				    const struct vfio_dma_extent *extent)
{
	const unsigned long kind = VFIO_XA_DMA_PFNMAP | VFIO_XA_DMA_MMIO;
	unsigned long set = (extent->pfnmap ? VFIO_XA_DMA_PFNMAP : 0) |
			    (extent->mmio ? VFIO_XA_DMA_MMIO : 0);
	unsigned long end = first + extent->npages;
	int ret;

	if (set != (word & kind)) {
		ret = vfio_xa_dma_prepare(&container->store, first, end - 1,
					  VFIO_DMA_GFP);
		if (ret)
			return ret;
		vfio_xa_dma_change(&container->store, first, end - 1,
				   kind & ~set, set);
	}

	/* That makes unmapping faster, and can be done without. */
	first = round_up(first, VFIO_DMA_CONTIG);
	end = round_down(end, VFIO_DMA_CONTIG);
	if (first < end && !vfio_xa_dma_prepare(&container->store, first, end - 1,
						VFIO_DMA_GFP))
		vfio_xa_dma_change(&container->store, first, end - 1, 0,
				   VFIO_XA_DMA_CONTIG);
	return 0;
}

static int vfio_type1v3_check_extent(struct vfio_type1v3 *container,
				     unsigned long first,
				     const struct vfio_dma_extent *extent)
{
	if (!extent->pfnmap)
		return 0;
	if (disable_device_memory)
		return -EPERM;
	/* Pins are of ordinary pages, whatever is there by now. */
	return vfio_type1v3_count_pins(container, first,
				       first + extent->npages - 1) ? -EINVAL : 0;
}

/* Map an extent as far as it goes; what is not mapped is unpinned. */
static inline int
vfio_type1v3_map_extent(struct vfio_dma_space *space,
			struct vfio_type1v3_map *map,
			struct vfio_dma_extent *extent, unsigned long word,
			unsigned long granule, unsigned long *pinned)
{
	unsigned long first = map->first + map->mapped;
	int ret;

	if (extent->npages == 1 && !extent->mmio) {
		/* Most are like that where memory is scattered. */
		ret = vfio_dma_map(space, vfio_type1v3_iova(first), extent,
				   vfio_dma_cut_prot(word) | IOMMU_CACHE,
				   word & VFIO_XA_DMA_BIG);
		if (unlikely(ret))
			return ret;
	} else {
		ret = vfio_dma_cut_map(space, first, extent, word, granule);
	}
	map->mapped += extent->npages;
	if (!extent->pfnmap)
		*pinned += extent->npages;
	return ret;
}

/*
 * Enter all that the last step has pinned.  @pinned counts what is now pinned
 * for good, device memory not included.
 */
static int vfio_type1v3_map_extents(struct vfio_type1v3 *container,
				    struct vfio_dma_space *space,
				    struct vfio_type1v3_map *map,
				    struct vfio_dma_pin *pin,
				    unsigned long word, unsigned long granule,
				    unsigned long *pinned)
{
	struct vfio_dma_extent extent;
	unsigned long first;
	int ret;

	/* What is never part of a superpage needs no limit. */
	if (!(word & VFIO_XA_DMA_BIG))
		granule = VFIO_DMA_EXTENT_MAX;
	while (vfio_dma_pin_extent(pin, &extent)) {
		first = map->first + map->mapped;
		ret = vfio_type1v3_check_extent(container, first, &extent);
		ret = ret ?: vfio_type1v3_note_extent(container, first, word,
						      &extent);
		if (ret) {
			if (!extent.pfnmap)
				vfio_dma_unpin(extent.pfn, extent.npages,
					       false);
			return ret;
		}
		ret = vfio_type1v3_map_extent(space, map, &extent, word, granule,
					      pinned);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * Charge for pages that are about to be pinned, of which @extra are charged
 * already.  Device memory is left out: charged for a moment, it would make other
 * calls fail.  Only the owner itself can tell it from other memory.
 */
static int vfio_type1v3_charge(struct vfio_type1v3 *container,
			       unsigned long vaddr, unsigned long npages,
			       unsigned long extra, unsigned long *charged)
{
	if (container->owner.mm == current->mm)
		npages = vfio_dma_count_pinnable(vaddr, npages);
	*charged = npages - min(npages, extra);
	return vfio_dma_charge(&container->owner, *charged);
}

/*
 * Pin and map what has been reserved.  It stays reserved, and @map a call in
 * progress: vfio_type1v3_finish_map() must follow.  Called with the mutex held,
 * returns with it held; it is dropped in between.
 */
static int vfio_type1v3_pin_map(struct vfio_type1v3 *container,
				const struct vfio_type1v3_request *request,
				struct vfio_type1v3_map *map)
{
	unsigned long first = request->first, last = request->last;
	unsigned long vaddr = request->vaddr, word = request->word;
	unsigned long npages = last - first + 1;
	unsigned long held;
	struct vfio_dma_pin pin;
	int ret;

	*map = (struct vfio_type1v3_map) {
		.first = first,
		.lost = !vfio_type1v3_has_domain(container),
	};
	container->pinning++;
	list_add_tail(&map->next, &container->maps);
	mutex_unlock(&container->lock);

	ret = vfio_type1v3_charge(container, vaddr, npages, 0, &map->charged);
	if (ret) {
		mutex_lock(&container->lock);
		map->charged = 0;
		return ret;
	}
	/* Each takes memory, and there can be many: not before the charge. */
	if (word & VFIO_XA_DMA_BIG) {
		mutex_lock(&container->lock);
		ret = vfio_dma_cut_set_starts(&container->store, first, last,
					      request->granule);
		if (ret)
			return ret;
		mutex_unlock(&container->lock);
	}

again:
	map->pinned = 0;
	vfio_dma_pin_start(&pin, container->owner.mm, vaddr, npages,
			   word & VFIO_XA_DMA_WRITE);
	for (;;) {
		ret = vfio_dma_pin_step(&pin);
		mutex_lock(&container->lock);
		if (map->lost)
			break;
		if (!ret)
			ret = vfio_type1v3_map_extents(container,
						       &container->space, map,
						       &pin, word,
						       request->granule,
						       &map->pinned);
		/* Device memory has become something else in the meantime. */
		held = map->pinned + vfio_dma_pin_held(&pin);
		if (!ret && held > map->charged) {
			ret = vfio_dma_charge(&container->owner,
					      held - map->charged);
			if (!ret)
				map->charged = held;
		}
		if (ret || map->mapped == npages)
			break;
		mutex_unlock(&container->lock);

		cond_resched();
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			mutex_lock(&container->lock);
			break;
		}
	}
	vfio_dma_pin_finish(&pin);

	if (map->lost && !ret) {
		/* There may be another domain by now, or no need for one. */
		if (vfio_type1v3_has_domain(container)) {
			map->lost = false;
			/* What was device memory need not be that now. */
			vfio_xa_dma_change(&container->store, first, last,
					   VFIO_DMA_CUT_MEMORY_FLAGS, 0);
			mutex_unlock(&container->lock);
			goto again;
		}
		if (!vfio_type1v3_has_group(container))
			ret = -ENODEV;
	}
	return ret;
}

/* Publish what a call has mapped, or, if it fails with @ret, erase it. */
static void vfio_type1v3_finish_map(struct vfio_type1v3 *container,
				    const struct vfio_type1v3_request *request,
				    struct vfio_type1v3_map *map, int ret)
{
	unsigned long first = request->first, last = request->last;

	list_del(&map->next);
	container->pinning--;
	if (ret) {
		vfio_type1v3_unmap_map(container, &container->space, map);
		vfio_xa_dma_erase(&container->store, first, last);
	} else {
		vfio_xa_dma_change(&container->store, first, last,
				   VFIO_XA_DMA_PENDING, 0);
	}
	if (ret || map->lost)
		map->pinned = 0;
	vfio_dma_uncharge(&container->owner, map->charged - map->pinned);
}

static int vfio_type1v3_map_reserved(struct vfio_type1v3 *container,
				     const struct vfio_type1v3_request *request)
{
	struct vfio_type1v3_map map;
	int ret;

	ret = vfio_type1v3_pin_map(container, request, &map);
	vfio_type1v3_finish_map(container, request, &map, ret);
	return ret;
}

/* Give [@first, @last], whose user memory is gone, other user memory. */
static int vfio_type1v3_update_vaddr(struct vfio_type1v3 *container,
				     const struct vfio_type1v3_request *request)
{
	unsigned long first = request->first, last = request->last;
	unsigned long pos = first;
	struct vfio_xa_dma_run run;
	pid_t from;
	int ret;

	/* All of the range must be mapped, and invalid. */
	if (!vfio_xa_dma_next(&container->store, first, last, &run))
		return -ENOENT;
	while (run.first == pos && run.word & VFIO_XA_DMA_VADDR_INVALID) {
		pos = run.last + 1;
		if (run.last == last)
			break;
		if (!vfio_xa_dma_next(&container->store, pos, last, &run))
			return -EINVAL;
		cond_resched();
	}
	if (pos != last + 1)
		return -EINVAL;

	if (container->owner.mm != current->mm) {
		/* The old owner keeps what is not wholly taken over. */
		if (container->vaddr_invalid !=
		    vfio_xa_dma_npages(&container->store) ||
		    container->pinning)
			return -EPERM;
		from = task_tgid_nr(container->owner.task);
		ret = vfio_dma_owner_move(&container->owner);
		if (ret)
			return ret;
		trace_type1v3_owner(container->id, from, task_tgid_nr(current),
				    container->owner.npages);
	}

	container->vaddr_invalid -= last - first + 1;
	for (pos = first; ; pos = run.last + 1) {
		if (WARN_ON_ONCE(!vfio_xa_dma_next(&container->store, pos, last,
						   &run)))
			break;
		vfio_xa_dma_prepare_nofail(&container->store, run.first, run.last);
		vfio_xa_dma_erase(&container->store, run.first, run.last);
		run.word &= VFIO_XA_DMA_FLAG_MASK & ~VFIO_XA_DMA_VADDR_INVALID;
		vfio_xa_dma_insert_nofail(&container->store, run.first, run.last,
					  vfio_xa_dma_word(first, request->vaddr,
							   run.word));
		if (run.last == last)
			break;
		cond_resched();
	}
	return 0;
}

/* Check the arguments of a mapping, and make a request of them. */
static __always_inline int
vfio_type1v3_make_request(struct vfio_type1v3 *container, u64 mask, u32 flags,
			  u64 iova, u64 vaddr, u64 size,
			  struct vfio_type1v3_request *request)
{
	u64 iova_last, vaddr_last;
	unsigned long word = 0;

	if (!size)
		return -EINVAL;
	if (check_add_overflow(iova, size - 1, &iova_last) ||
	    check_add_overflow(vaddr, size - 1, &vaddr_last))
		return -EOVERFLOW;
	if ((iova | vaddr | size) & mask)
		return -EINVAL;

	if (flags & VFIO_DMA_MAP_FLAG_READ)
		word |= VFIO_XA_DMA_READ;
	if (flags & VFIO_DMA_MAP_FLAG_WRITE)
		word |= VFIO_XA_DMA_WRITE;
	request->granule = vfio_type1v3_granule(container, flags);
	if (!request->granule)
		return -EINVAL;
	if (!disable_hugepages &&
	    vfio_type1v3_covers_superpage(container, iova, size,
					  request->granule))
		word |= VFIO_XA_DMA_BIG;

	request->first = iova >> PAGE_SHIFT;
	request->last = iova_last >> PAGE_SHIFT;
	request->vaddr = untagged_addr(vaddr);
	request->word = vfio_xa_dma_word(request->first, request->vaddr, word);
	return 0;
}

/* Only the owner may map.  vfio_type1v3_put_owner() must follow. */
static int vfio_type1v3_become_owner(struct vfio_type1v3 *container)
{
	if (!vfio_type1v3_has_group(container))
		return -ENODEV;
	if (!container->owner.mm) {
		vfio_dma_owner_set(&container->owner);
		trace_type1v3_owner(container->id, 0, task_tgid_nr(current), 0);
	} else if (container->owner.mm != current->mm) {
		return -EPERM;
	}
	return 0;
}

/*
 * Enter a request into the store.  With a domain that only reserves the range:
 * vfio_type1v3_map_reserved() must follow.  Without one nothing is pinned, every IOVA
 * is valid, and there is nothing left to do.
 */
static int vfio_type1v3_reserve(struct vfio_type1v3 *container,
				const struct vfio_type1v3_request *request)
{
	unsigned long mask = (vfio_type1v3_pgsize(container) >> PAGE_SHIFT) - 1;
	unsigned long state = vfio_type1v3_has_domain(container) ?
			      VFIO_XA_DMA_PENDING : 0;
	unsigned long pending = state;
	int ret;

	/* Domains may have come since the request was checked. */
	if ((request->first | (request->last + 1) |
	     request->vaddr >> PAGE_SHIFT) & mask || request->granule <= mask)
		return -EINVAL;

	/*
	 * START is set before the words can join others.  Nothing is charged
	 * here, so there is a limit.
	 */
	if (!state && request->word & VFIO_XA_DMA_BIG) {
		pending = VFIO_XA_DMA_PENDING;
		if (request->granule < VFIO_DMA_EXTENT_MAX &&
		    (request->last - request->first) / request->granule >=
		    VFIO_TYPE1V3_GRANULES_MAX)
			return -ENOMEM;
	}
	ret = vfio_xa_dma_insert(&container->store, request->first,
				 request->last, request->word | pending,
				 VFIO_DMA_GFP);
	if (ret || !pending)
		return ret;

	if (state && !vfio_type1v3_iova_valid(container,
					      vfio_type1v3_iova(request->first),
					      vfio_type1v3_iova(request->last) |
					      ~PAGE_MASK))
		ret = -EINVAL;
	else if (!state)
		ret = vfio_dma_cut_set_starts(&container->store, request->first,
					      request->last, request->granule);
	if (ret)
		vfio_xa_dma_erase(&container->store, request->first,
				  request->last);
	else if (!state)
		vfio_xa_dma_change(&container->store, request->first,
				   request->last, VFIO_XA_DMA_PENDING, 0);
	return ret;
}

/*
 * May a range be charged for?  Not if a page of it is mapped, being mapped, or not
 * to be had: the call must fail, and for as long as it is charged others could fail
 * at the limit.
 * With CAP_IPC_LOCK nobody can, which saves the look-up.
 */
static inline bool
vfio_type1v3_may_charge(struct vfio_type1v3 *container,
			const struct vfio_type1v3_request *request)
{
	struct vfio_xa_dma_run run;

	if (READ_ONCE(container->owner.lock_cap) &&
	    cap_raised(current_cap(), CAP_IPC_LOCK))
		return true;
	if (!vfio_type1v3_iova_valid(container, vfio_type1v3_iova(request->first),
				     vfio_type1v3_iova(request->last) |
				     ~PAGE_MASK))
		return false;
	if (request->first == request->last)
		return !vfio_xa_dma_load(&container->store, request->first);
	return !vfio_xa_dma_next(&container->store, request->first,
				 request->last, &run);
}

/*
 * Enter what is pinned into the store and the IO page tables, or into neither:
 * then it is unpinned.
 */
static int vfio_type1v3_enter(struct vfio_type1v3 *container,
			      const struct vfio_type1v3_request *request,
			      struct page **pages)
{
	dma_addr_t iova = vfio_type1v3_iova(request->first);
	int ret, is_open = -EINVAL;

	if (!vfio_type1v3_iova_valid(container, iova,
				     vfio_type1v3_iova(request->last) |
				     ~PAGE_MASK))
		goto err_unpin;
	is_open = vfio_xa_dma_insert_begin(&container->store, request->first,
					   request->last, request->word,
					   VFIO_DMA_GFP);
	if (is_open < 0)
		goto err_unpin;

	ret = vfio_dma_map_pages(&container->space, iova, pages,
				 vfio_type1v3_request_pages(request),
				 vfio_dma_cut_iommu_prot(request->word),
				 request->word & VFIO_XA_DMA_BIG);
	if (unlikely(ret))
		vfio_xa_dma_erase(&container->store, request->first,
				  request->last);
	else if (unlikely(is_open))
		vfio_xa_dma_insert_end(&container->store, request->first,
				       request->last);
	return ret;

err_unpin:
	unpin_user_pages(pages, vfio_type1v3_request_pages(request));
	return is_open;
}

/*
 * Map units of @npages pages together, for which there is room in @pages, in one
 * go: nobody sees a state between not mapped and mapped.  The caller has asked
 * vfio_type1v3_may_charge() for each.
 *
 * Ends at the first unit that cannot be mapped so, and returns where that is.  It
 * and those that follow are untouched; vfio_type1v3_map_one() tells why it cannot,
 * or can do it.
 *
 * Called with the mutex held and a domain, returns with it held; it is dropped
 * in between.
 */
static unsigned int vfio_type1v3_map_now(struct vfio_type1v3 *container,
					 const struct vfio_type1v3_unit *units,
					 unsigned long npages,
					 struct page **pages)
{
	const struct vfio_type1v3_unit *unit;
	unsigned long epoch = container->epoch;
	unsigned long pinned = 0, entered = 0, mapped = 0;

	container->pinning++;
	mutex_unlock(&container->lock);

	if (vfio_dma_charge(&container->owner, npages))
		npages = 0;
	for (unit = units; pinned < npages; unit += unit->nr_entries) {
		if (!vfio_dma_pin_now(unit->request.vaddr,
				      vfio_type1v3_request_pages(&unit->request),
				      unit->request.word & VFIO_XA_DMA_WRITE,
				      pages + pinned))
			break;
		pinned += vfio_type1v3_request_pages(&unit->request);
		if (pinned < npages && fatal_signal_pending(current))
			break;
	}

	mutex_lock(&container->lock);
	container->pinning--;
	unit = units;
	if (likely(container->epoch == epoch)) {
		for (; mapped < pinned; unit += unit->nr_entries) {
			entered += vfio_type1v3_request_pages(&unit->request);
			if (vfio_type1v3_enter(container, &unit->request,
					       pages + mapped))
				break;
			mapped = entered;
		}
	}
	if (unlikely(entered < pinned))
		unpin_user_pages(pages + entered, pinned - entered);
	if (unlikely(mapped < npages))
		vfio_dma_uncharge(&container->owner, npages - mapped);
	return unit - units;
}

/* Map a range, whatever it takes.  May drop the mutex in between. */
static int vfio_type1v3_map_one(struct vfio_type1v3 *container,
				const struct vfio_type1v3_request *request)
{
	int ret;

	ret = vfio_type1v3_reserve(container, request);
	if (!ret && vfio_type1v3_has_domain(container))
		ret = vfio_type1v3_map_reserved(container, request);
	return ret;
}

static int vfio_type1v3_do_map(struct vfio_type1v3 *container,
			       const struct vfio_iommu_type1_dma_map *map)
{
	struct page *pages[VFIO_DMA_PIN_INLINE];
	bool update = map->flags & VFIO_DMA_MAP_FLAG_VADDR;
	struct vfio_type1v3_unit unit = { .nr_entries = 1 };
	unsigned long npages;
	int ret;

	/* An address is updated, or a range mapped with some access. */
	if (map->flags & (VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE) ?
	    update : !update || map->flags & VFIO_DMA_MAP_GRANULE_MASK)
		return -EINVAL;

	if (mutex_lock_killable(&container->lock))
		return -EINTR;

	ret = vfio_type1v3_make_request(container,
					vfio_type1v3_pgsize(container) - 1,
					map->flags, map->iova, map->vaddr,
					map->size, &unit.request);
	if (ret)
		goto out_unlock;

	if (update) {
		ret = vfio_type1v3_update_vaddr(container, &unit.request);
		vfio_type1v3_count(container, VFIO_TYPE1V3_OP_VADDR,
				   ret ? 0 : map->size >> PAGE_SHIFT, ret);
		goto out_unlock;
	}

	ret = vfio_type1v3_become_owner(container);
	if (ret)
		goto out_unlock;
	npages = vfio_type1v3_request_pages(&unit.request);
	/* START is set on pages that are reserved. */
	if (npages <= VFIO_DMA_PIN_INLINE && vfio_type1v3_has_domain(container) &&
	    !(unit.request.word & VFIO_XA_DMA_BIG) &&
	    vfio_type1v3_may_charge(container, &unit.request)) {
		if (vfio_type1v3_map_now(container, &unit, npages, pages))
			goto out_count;
		/* The mutex was dropped. */
		ret = vfio_type1v3_become_owner(container);
	}
	if (!ret)
		ret = vfio_type1v3_map_one(container, &unit.request);
	vfio_type1v3_put_owner(container);
out_count:
	vfio_type1v3_count(container, VFIO_TYPE1V3_OP_MAP,
			   ret ? 0 : map->size >> PAGE_SHIFT, ret);
out_unlock:
	if (trace_type1v3_map_enabled())
		trace_type1v3_map(container->id, map->iova, map->size,
				  map->vaddr, map->flags, ret);
	mutex_unlock(&container->lock);
	return ret;
}

/*
 * Groups and domains
 */

static struct vfio_type1v3_domain *
vfio_type1v3_domain(struct vfio_dma_domain *domain)
{
	return container_of(domain, struct vfio_type1v3_domain, dma);
}

static struct vfio_type1v3_group *
vfio_type1v3_find_group(struct vfio_type1v3 *container,
			struct iommu_group *iommu_group,
			struct vfio_type1v3_domain **domain)
{
	struct vfio_type1v3_group *group;
	struct vfio_dma_domain *d;

	list_for_each_entry(d, &container->space.domains, next) {
		*domain = vfio_type1v3_domain(d);
		list_for_each_entry(group, &(*domain)->groups, next)
			if (group->iommu_group == iommu_group)
				return group;
	}

	*domain = NULL;
	list_for_each_entry(group, &container->emulated, next)
		if (group->iommu_group == iommu_group)
			return group;
	return NULL;
}

static void vfio_type1v3_free_regions(struct list_head *regions)
{
	struct iommu_resv_region *region, *tmp;

	list_for_each_entry_safe(region, tmp, regions, list)
		kfree(region);
}

/**
 * struct vfio_type1v3_ranges - valid IOVA ranges to be
 * @ranges: as &vfio_type1v3.ranges
 * @nr_ranges: as &vfio_type1v3.nr_ranges
 * @sw_msi: one of the new group's regions is for the software to place MSIs in
 * @msi_base: where that is
 */
struct vfio_type1v3_ranges {
	struct vfio_iova_range *ranges;
	unsigned int nr_ranges;
	bool sw_msi;
	phys_addr_t msi_base;
};

static void vfio_type1v3_find_sw_msi(struct vfio_type1v3_ranges *new,
				     struct list_head *regions)
{
	struct iommu_resv_region *region;

	list_for_each_entry(region, regions, list) {
		/* A hardware MSI region makes the other one unnecessary. */
		if (region->type == IOMMU_RESV_MSI) {
			new->sw_msi = false;
			return;
		}
		if (region->type == IOMMU_RESV_SW_MSI) {
			new->sw_msi = true;
			new->msi_base = region->start;
		}
	}
}

/*
 * The ranges that are valid with the domains and groups of the container and,
 * if @domain is not NULL, with that domain and the group: what every domain can
 * translate, less the reserved regions of every group.
 */
static int vfio_type1v3_make_ranges(struct vfio_type1v3 *container,
				    struct iommu_domain *domain,
				    struct iommu_group *iommu_group,
				    struct vfio_type1v3_ranges *new)
{
	struct iommu_resv_region *region;
	struct vfio_type1v3_group *group;
	u64 start = 0, end = U64_MAX;
	struct vfio_dma_domain *d;
	unsigned int n = 1;
	LIST_HEAD(regions);
	int ret = 0;

	*new = (struct vfio_type1v3_ranges){};
	if (domain) {
		start = domain->geometry.aperture_start;
		end = domain->geometry.aperture_end;
		ret = iommu_get_group_resv_regions(iommu_group, &regions);
		vfio_type1v3_find_sw_msi(new, &regions);
	}
	list_for_each_entry(d, &container->space.domains, next) {
		start = max(start, d->domain->geometry.aperture_start);
		end = min(end, d->domain->geometry.aperture_end);
		list_for_each_entry(group, &vfio_type1v3_domain(d)->groups,
				    next) {
			if (ret)
				goto out_free;
			ret = iommu_get_group_resv_regions(group->iommu_group,
							   &regions);
		}
	}
	if (ret)
		goto out_free;

	list_for_each_entry(region, &regions, list)
		n++;
	new->ranges = kvcalloc(n, sizeof(*new->ranges), VFIO_DMA_GFP);
	if (!new->ranges) {
		ret = -ENOMEM;
		goto out_free;
	}

	/* The regions are sorted by their start. */
	n = 0;
	list_for_each_entry(region, &regions, list) {
		u64 last = region->start + region->length - 1;

		/* Regions the firmware needs only until an OS takes over */
		if (region->type == IOMMU_RESV_DIRECT_RELAXABLE ||
		    !region->length || last < start)
			continue;
		if (start > end || region->start > end)
			break;
		if (region->start > start) {
			new->ranges[n].start = start;
			new->ranges[n++].end = region->start - 1;
		}
		start = last + 1;
		if (!start)
			goto out_free;
	}
	if (start <= end) {
		new->ranges[n].start = start;
		new->ranges[n++].end = end;
	}

out_free:
	new->nr_ranges = n;
	if (!ret && !n)
		ret = -EINVAL;
	if (ret)
		kvfree(new->ranges);
	vfio_type1v3_free_regions(&regions);
	return ret;
}

static void vfio_type1v3_set_ranges(struct vfio_type1v3 *container,
				    struct vfio_type1v3_ranges *new)
{
	kvfree(container->ranges);
	container->ranges = new->ranges;
	container->nr_ranges = new->nr_ranges;
}

/* Is all that is mapped, or about to be, within these ranges and this page size? */
static bool vfio_type1v3_mappings_fit(struct vfio_type1v3 *container,
				      const struct vfio_type1v3_ranges *new,
				      unsigned long pgsize)
{
	unsigned long mask = (pgsize >> PAGE_SHIFT) - 1, first = 0;
	struct vfio_xa_dma *store = &container->store;
	struct vfio_xa_dma_run run;
	unsigned int i;

	for (i = 0; i < new->nr_ranges; i++) {
		const struct vfio_iova_range *range = &new->ranges[i];

		if (range->start >> PAGE_SHIFT > first ||
		    range->start & ~PAGE_MASK) {
			if (vfio_xa_dma_next(store, first, (range->start - 1) >>
					     PAGE_SHIFT, &run))
				return false;
		}
		if (range->end == U64_MAX)
			break;
		first = (range->end + 1) >> PAGE_SHIFT;
	}
	if (i == new->nr_ranges &&
	    vfio_xa_dma_next(store, first, VFIO_XA_DMA_LAST_INDEX, &run))
		return false;

	/* The IOMMU's smallest page may be larger than the others'. */
	first = 0;
	while (mask && vfio_xa_dma_next(store, first, VFIO_XA_DMA_LAST_INDEX,
					&run)) {
		if ((run.first & mask && !vfio_xa_dma_load(store,
							   run.first - 1)) ||
		    (~run.last & mask && !vfio_xa_dma_load(store,
							   run.last + 1)))
			return false;
		if (run.last == VFIO_XA_DMA_LAST_INDEX)
			break;
		first = run.last + 1;
		cond_resched();
	}
	return true;
}

/* Unmap everything in a domain that is about to be freed; others have it, too. */
static void vfio_type1v3_clear_domain(struct vfio_type1v3 *container,
				      struct vfio_dma_domain *domain)
{
	struct vfio_type1v3_map *map;

	vfio_dma_cut_clear(&container->store, &container->space, domain, 0,
			   VFIO_XA_DMA_LAST_INDEX, false);
	list_for_each_entry(map, &container->maps, next)
		if (map->mapped)
			vfio_dma_cut_clear(&container->store, &container->space,
					   domain, map->first,
					   map->first + map->mapped - 1, true);
}

static bool vfio_type1v3_maps_pfn(struct vfio_dma_domain *domain,
				  unsigned long index, unsigned long pfn)
{
	struct vfio_dma_extent extent;

	return vfio_dma_domain_lookup(domain, vfio_type1v3_iova(index), 1, false,
				      &extent) &&
	       extent.pfn == pfn;
}

/*
 * Pages of [@first, @last] that emulated devices have pinned, and of which a domain
 * has the same page mapped: from now on that is what they are charged for.
 */
static unsigned long vfio_type1v3_share_charge(struct vfio_type1v3 *container,
					       struct vfio_dma_domain *domain,
					       unsigned long first,
					       unsigned long last)
{
	struct vfio_xa_dma_run run;
	unsigned long index, n = 0;

	if (!vfio_type1v3_has_pins(container))
		return 0;
	while (vfio_xa_dma_next(&container->pins, first, last, &run)) {
		for (index = run.first; index <= run.last; index++) {
			if (!vfio_type1v3_maps_pfn(domain, index,
						   vfio_type1v3_pin_pfn(run.word)))
				continue;
			vfio_type1v3_set_pin(container, index,
					     VFIO_TYPE1V3_PIN_CHARGED, 0);
			n++;
		}
		if (run.last >= last)
			break;
		first = run.last + 1;
		cond_resched();
	}
	return n;
}

/* Pin and map in the first domain pages that have been mapped without one. */
static int vfio_type1v3_pin_run(struct vfio_type1v3 *container,
				struct vfio_dma_space *space,
				const struct vfio_xa_dma_run *run)
{
	unsigned long vaddr = vfio_xa_dma_vaddr(run->word, run->first);
	unsigned long npages = vfio_type1v3_run_pages(run);
	struct vfio_dma_domain *domain =
		list_first_entry(&space->domains, struct vfio_dma_domain, next);
	unsigned long extra, pos, held, shared = 0, word = run->word;
	struct vfio_type1v3_map map = { .first = run->first };
	struct vfio_dma_pin pin;
	int ret;

	/* What emulated devices have pinned of it is charged, if it is the same. */
	extra = vfio_type1v3_count_charged_pins(container, run->first, run->last);
	ret = vfio_type1v3_charge(container, vaddr, npages, extra, &map.charged);
	if (ret)
		return ret;

	/* They say how the memory was that another domain had. */
	word &= ~VFIO_DMA_CUT_MEMORY_FLAGS;
	vfio_type1v3_change(container, run->first, run->last,
			    VFIO_DMA_CUT_MEMORY_FLAGS, 0);
	/* Where user memory does not continue, an IOMMU page ends. */
	if (word & VFIO_XA_DMA_BIG && !(word & VFIO_XA_DMA_START) && run->first &&
	    vfio_xa_dma_load(&container->store, run->first - 1)) {
		ret = vfio_dma_cut_set_start(&container->store, run->first);
		if (ret)
			goto out_uncharge;
	}

	vfio_dma_pin_start(&pin, container->owner.mm, vaddr, npages,
			   word & VFIO_XA_DMA_WRITE);
	do {
		pos = map.mapped;
		ret = vfio_dma_pin_step(&pin);
		if (!ret)
			ret = vfio_type1v3_map_extents(container, space, &map,
						       &pin, word,
						       VFIO_DMA_EXTENT_MAX,
						       &map.pinned);
		if (map.mapped > pos)
			shared += vfio_type1v3_share_charge(container, domain,
							    map.first + pos,
							    map.first + map.mapped - 1);
		/* Device memory or a pinned page has become another in the meantime. */
		held = map.pinned + vfio_dma_pin_held(&pin) - shared;
		if (!ret && held > map.charged) {
			ret = vfio_dma_charge(&container->owner,
					      held - map.charged);
			if (!ret)
				map.charged = held;
		}
		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
		cond_resched();
	} while (!ret && map.mapped < npages);
	vfio_dma_pin_finish(&pin);

	if (ret)
		vfio_type1v3_unmap_map(container, space, &map);
out_uncharge:
	if (ret) {
		if (shared)
			vfio_type1v3_set_charged(container, run->first,
						 run->last);
		shared = 0;
	}
	vfio_dma_uncharge(&container->owner, map.charged + shared - map.pinned);
	return ret;
}

/*
 * Pin and map in the first domain all that has been mapped without one.  No
 * call is in progress that has mapped anything.
 */
static int vfio_type1v3_first_domain(struct vfio_type1v3 *container,
				     struct vfio_dma_domain *domain)
{
	struct mm_struct *mm = container->owner.mm;
	struct vfio_dma_space space;
	struct vfio_xa_dma_run run;
	unsigned long first = 0;
	int ret;

	if (!mm)
		return 0;
	if (!mmget_not_zero(mm))
		return -ESRCH;

	ret = vfio_dma_space_init(&space, &container->lock, &container->owner);
	if (ret)
		goto out_mmput;
	vfio_dma_domain_add(&space, domain);

	while (vfio_dma_cut_next(&container->store, &container->space, first,
				 VFIO_XA_DMA_LAST_INDEX, VFIO_DMA_CUT_CALL_FLAGS,
				 &run)) {
		if (!(run.word & VFIO_XA_DMA_PENDING))
			ret = vfio_type1v3_pin_run(container, &space, &run);
		if (ret && run.first)
			vfio_type1v3_unpin_upto(container, &space,
						run.first - 1);
		if (ret || run.last == VFIO_XA_DMA_LAST_INDEX)
			break;
		first = run.last + 1;
	}

	vfio_dma_domain_del(&space, domain);
	vfio_dma_space_destroy(&space);
out_mmput:
	mmput_async(mm);
	return ret;
}

/*
 * Give a new domain all the translations of the others.  On failure nothing is
 * mapped in it, or pinned for it.
 */
static int vfio_type1v3_replay(struct vfio_type1v3 *container,
			       struct vfio_dma_domain *domain)
{
	struct vfio_type1v3_map *map;
	unsigned long last;
	int ret;

	if (!vfio_type1v3_has_domain(container))
		return vfio_type1v3_first_domain(container, domain);

	ret = vfio_dma_cut_replay(&container->store, &container->space, domain,
				  0, VFIO_XA_DMA_LAST_INDEX, false);
	list_for_each_entry(map, &container->maps, next) {
		if (ret)
			break;
		last = map->first + map->mapped - 1;
		if (map->mapped)
			ret = vfio_dma_cut_replay(&container->store,
						  &container->space, domain,
						  map->first, last, true);
	}
	if (ret)
		vfio_type1v3_clear_domain(container, domain);
	return ret;
}

/* Somewhere to try a fresh domain out; false if there is no room. */
static bool vfio_type1v3_probe_iova(const struct vfio_type1v3_ranges *ranges,
				    const struct vfio_dma_domain *domain,
				    dma_addr_t *iova)
{
	unsigned long sizes = vfio_dma_domain_pgsizes(domain);
	u64 room = 4 * (sizes & -sizes), start, end;
	unsigned int i;

	for (i = 0; i < ranges->nr_ranges; i++) {
		start = ranges->ranges[i].start;
		end = ranges->ranges[i].end;
		if (end - start >= 2 * room) {
			*iova = ALIGN(start, room);
			return true;
		}
	}
	return false;
}

static int vfio_type1v3_alloc_iommu_domain(struct device *dev, void *data)
{
	struct iommu_domain **domain = data;
	u32 flags = 0;

	if (IS_ENABLED(CONFIG_IOMMUFD_DRIVER) &&
	    device_iommu_capable(dev, IOMMU_CAP_DIRTY_TRACKING))
		flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
	*domain = iommu_paging_domain_alloc_flags(dev, flags);
	if (flags && *domain == ERR_PTR(-EOPNOTSUPP))
		*domain = iommu_paging_domain_alloc_flags(dev, 0);
	return 1; /* one device speaks for its group */
}

/* Move the group to a domain of the same kind, if there is one. */
static struct vfio_type1v3_domain *
vfio_type1v3_share_domain(struct vfio_type1v3 *container,
			  struct vfio_type1v3_domain *domain,
			  struct iommu_group *iommu_group, int *ret)
{
	struct vfio_dma_domain *d;

	*ret = 0;
	list_for_each_entry(d, &container->space.domains, next) {
		if (d->domain->ops != domain->dma.domain->ops ||
		    d->domain->dirty_ops != domain->dma.domain->dirty_ops ||
		    vfio_type1v3_domain(d)->coherent != domain->coherent)
			continue;

		iommu_detach_group(domain->dma.domain, iommu_group);
		if (!iommu_attach_group(d->domain, iommu_group))
			return vfio_type1v3_domain(d);
		*ret = iommu_attach_group(domain->dma.domain, iommu_group);
		if (*ret)
			return NULL;
	}
	return NULL;
}

static int vfio_type1v3_do_attach(struct vfio_type1v3 *container,
				  struct iommu_group *iommu_group)
{
	struct vfio_type1v3_domain *domain, *shared;
	struct iommu_domain *iommu_domain = NULL;
	struct vfio_type1v3_ranges ranges;
	struct vfio_type1v3_group *group;
	unsigned long pgsizes;
	dma_addr_t iova;
	int ret;

	group = kzalloc_obj(*group, VFIO_DMA_GFP);
	domain = kzalloc_obj(*domain, VFIO_DMA_GFP);
	ret = -ENOMEM;
	if (!group || !domain)
		goto err_free;

	group->iommu_group = iommu_group;
	group->dirties_unseen = true;
	INIT_LIST_HEAD(&domain->groups);
	iommu_group_for_each_dev(iommu_group, &iommu_domain,
				 vfio_type1v3_alloc_iommu_domain);
	ret = -ENODEV;
	if (!iommu_domain)
		goto err_free;
	ret = PTR_ERR_OR_ZERO(iommu_domain);
	if (ret)
		goto err_free;
	vfio_dma_domain_init(&domain->dma, iommu_domain);

	ret = iommu_attach_group(iommu_domain, iommu_group);
	if (ret)
		goto err_free_domain;

	ret = vfio_type1v3_make_ranges(container, iommu_domain, iommu_group,
				       &ranges);
	if (ret)
		goto err_detach;

	ret = -EINVAL;
	pgsizes = container->space.pgsize_bitmap &
		  vfio_dma_domain_pgsizes(&domain->dma);
	if (!pgsizes || !vfio_type1v3_mappings_fit(container, &ranges,
						   pgsizes & -pgsizes))
		goto err_ranges;

	ret = -EPERM;
	if (!allow_unsafe_interrupts &&
	    !iommu_group_has_isolated_msi(iommu_group)) {
		pr_warn("vfio_iommu_type1v3: no interrupt remapping; the module parameter allow_unsafe_interrupts overrides this check\n");
		goto err_ranges;
	}

	/* No-snoop transactions of a device bypass what KVM knows of caches. */
	if (iommu_domain->ops->enforce_cache_coherency)
		domain->coherent =
			iommu_domain->ops->enforce_cache_coherency(iommu_domain);

	shared = vfio_type1v3_share_domain(container, domain, iommu_group,
					   &ret);
	if (shared) {
		list_add(&group->next, &shared->groups);
		vfio_type1v3_set_ranges(container, &ranges);
		iommu_domain_free(iommu_domain);
		kfree(domain);
		return 0;
	}
	if (ret) {
		kvfree(ranges.ranges);
		goto err_free_domain;
	}

	/* Nothing can be written to yet. */
	if (container->dirty_tracking)
		vfio_dma_domain_track(&domain->dma, true);

	if (vfio_type1v3_probe_iova(&ranges, &domain->dma, &iova))
		vfio_dma_domain_probe(&domain->dma, iova);

	if (ranges.sw_msi) {
		ret = iommu_get_msi_cookie(iommu_domain, ranges.msi_base);
		if (ret && ret != -ENODEV)
			goto err_ranges;
	}

	ret = vfio_type1v3_replay(container, &domain->dma);
	if (ret)
		goto err_ranges;

	list_add(&group->next, &domain->groups);
	vfio_dma_domain_add(&container->space, &domain->dma);
	vfio_type1v3_set_ranges(container, &ranges);
	return 0;

err_ranges:
	kvfree(ranges.ranges);
err_detach:
	iommu_detach_group(iommu_domain, iommu_group);
err_free_domain:
	iommu_domain_free(iommu_domain);
err_free:
	kfree(domain);
	kfree(group);
	return ret;
}

/* An emulated device has no IOMMU and writes only where it has pinned. */
static int vfio_type1v3_attach_emulated(struct vfio_type1v3 *container,
					struct iommu_group *iommu_group)
{
	struct vfio_type1v3_group *group;

	group = kzalloc_obj(*group, VFIO_DMA_GFP);
	if (!group)
		return -ENOMEM;

	group->iommu_group = iommu_group;
	list_add(&group->next, &container->emulated);
	return 0;
}

static void vfio_type1v3_do_detach(struct vfio_type1v3 *container,
				   struct iommu_group *iommu_group)
{
	struct vfio_type1v3_ranges ranges = {};
	struct vfio_type1v3_domain *domain;
	struct vfio_type1v3_group *group;
	bool last_domain = false, last_group;

	group = vfio_type1v3_find_group(container, iommu_group, &domain);
	if (WARN_ON_ONCE(!group))
		return;

	if (domain)
		last_domain = list_is_singular(&domain->groups) &&
			      list_is_singular(&container->space.domains);
	last_group = domain ? last_domain && list_empty(&container->emulated) :
		     list_is_singular(&container->emulated) &&
		     !vfio_type1v3_has_domain(container);

	/* This drops the mutex, so it is first; VFIO holds other groups off. */
	if (last_group)
		vfio_type1v3_release_pins(container, 0, VFIO_XA_DMA_LAST_INDEX,
					  false);

	if (domain)
		iommu_detach_group(domain->dma.domain, iommu_group);

	/*
	 * What its devices may have written to is known only if the IOMMU has
	 * recorded it, in an IO page table that stays.
	 */
	if (group->dirties_unseen &&
	    (!domain->dma.tracking || list_is_singular(&domain->groups)))
		vfio_type1v3_set_dirty(container, 0, VFIO_XA_DMA_LAST_INDEX);
	list_del(&group->next);
	kfree(group);

	if (last_domain)
		vfio_type1v3_lose_maps(container);
	/* A group is what gives the right to have anything mapped. */
	if (last_group)
		vfio_type1v3_unmap_all(container);
	else if (last_domain)
		vfio_type1v3_unpin_upto(container, &container->space,
					VFIO_XA_DMA_LAST_INDEX);

	if (!domain)
		return;

	if (list_empty(&domain->groups)) {
		if (!last_domain)
			vfio_type1v3_clear_domain(container, &domain->dma);
		vfio_dma_domain_del(&container->space, &domain->dma);
		iommu_domain_free(domain->dma.domain);
		kfree(domain);
	}

	/* Ranges that are narrower than they need to be do no harm. */
	if (!vfio_type1v3_has_domain(container) ||
	    !vfio_type1v3_make_ranges(container, NULL, NULL, &ranges))
		vfio_type1v3_set_ranges(container, &ranges);
}

/*
 * Ioctls
 */

static_assert(sizeof(struct vfio_iommu_type1v3_info_cap_usage) == 32);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_usage,
		       mapped_pages) == 8);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_usage,
		       pinned_pages) == 16);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_usage,
		       store_bytes) == 24);
static_assert(sizeof(struct vfio_iommu_type1v3_info_cap_dirty) == 16);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_dirty, source) == 8);
static_assert(sizeof(struct vfio_iommu_type1v3_info_cap_granule) == 16);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_granule,
		       min_order) == 8);
static_assert(offsetof(struct vfio_iommu_type1v3_info_cap_granule,
		       max_order) == 12);
static_assert(sizeof(struct vfio_iommu_type1v3_batch) == 24);
static_assert(offsetof(struct vfio_iommu_type1v3_batch, entries) == 16);
static_assert(sizeof(struct vfio_iommu_type1v3_batch_entry) == 32);
static_assert(offsetof(struct vfio_iommu_type1v3_batch_entry, flags) == 24);
static_assert(offsetof(struct vfio_iommu_type1v3_batch_entry, result) == 28);

static long vfio_type1v3_check_extension(void *iommu_data, unsigned long arg)
{
	struct vfio_type1v3 *container;
	struct vfio_dma_domain *domain;
	long ret;

	switch (arg) {
	case VFIO_TYPE1v3_IOMMU:
	case VFIO_UNMAP_ALL:
		return 1;
	case VFIO_TYPE1_IOMMU:
	case VFIO_TYPE1v2_IOMMU:
		return alias_type1;
	case VFIO_DMA_CC_IOMMU:
	case VFIO_UPDATE_VADDR:
		container = iommu_data ? vfio_type1v3_get(iommu_data) : NULL;
		if (!container)
			return 0;
		break;
	default:
		return 0;
	}

	ret = -EINTR;
	if (mutex_lock_killable(&container->lock))
		goto out_put;
	if (arg == VFIO_UPDATE_VADDR) {
		ret = list_empty(&container->emulated);
	} else {
		ret = 1;
		list_for_each_entry(domain, &container->space.domains, next)
			ret &= vfio_type1v3_domain(domain)->coherent;
	}
	mutex_unlock(&container->lock);
out_put:
	vfio_type1v3_put(container);
	return ret;
}

static int vfio_type1v3_add_range_cap(struct vfio_type1v3 *container,
				      struct vfio_info_cap *caps)
{
	struct vfio_iommu_type1_info_cap_iova_range *cap;
	struct vfio_info_cap_header *header;

	/* Without a physical group anything is valid. */
	if (!container->ranges)
		return 0;

	header = vfio_info_cap_add(caps, struct_size(cap, iova_ranges,
						     container->nr_ranges),
				   VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 1);
	if (IS_ERR(header))
		return PTR_ERR(header);

	cap = container_of(header, typeof(*cap), header);
	cap->nr_iovas = container->nr_ranges;
	memcpy(cap->iova_ranges, container->ranges,
	       flex_array_size(cap, iova_ranges, container->nr_ranges));
	return 0;
}

static int vfio_type1v3_add_caps(struct vfio_type1v3 *container,
				 struct vfio_info_cap *caps)
{
	struct vfio_iommu_type1_info_dma_avail avail = {
		.header.id = VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
		.header.version = 1,
		/* The memory cgroup is the limit. */
		.avail = U32_MAX,
	};
	struct vfio_iommu_type1v3_info_cap_usage usage = {
		.header.id = VFIO_IOMMU_TYPE1V3_INFO_CAP_USAGE,
		.header.version = 1,
		.mapped_pages = vfio_xa_dma_npages(&container->store),
		.pinned_pages = vfio_type1v3_pinned(container),
		.store_bytes = vfio_xa_dma_footprint(&container->store),
	};
	struct vfio_iommu_type1_info_cap_migration migration = {
		.header.id = VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
		.header.version = 1,
		.pgsize_bitmap = vfio_type1v3_pgsize(container),
		.max_dirty_bitmap_size = VFIO_TYPE1V3_BITMAP_BYTES_MAX,
	};
	struct vfio_iommu_type1v3_info_cap_dirty dirty = {
		.header.id = VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY,
		.header.version = 1,
		.source = vfio_type1v3_dirty_source(container),
	};
	struct vfio_iommu_type1v3_info_cap_granule granule = {
		.header.id = VFIO_IOMMU_TYPE1V3_INFO_CAP_GRANULE,
		.header.version = 1,
		.min_order = __ffs(container->space.pgsize_bitmap) - PAGE_SHIFT,
		.max_order = VFIO_DMA_MAP_GRANULE_ORDER_MAX,
	};
	int ret;

	ret = vfio_type1v3_add_range_cap(container, caps);
	if (!ret)
		ret = vfio_info_add_capability(caps, &migration.header,
					       sizeof(migration));
	if (!ret)
		ret = vfio_info_add_capability(caps, &dirty.header,
					       sizeof(dirty));
	if (!ret)
		ret = vfio_info_add_capability(caps, &granule.header,
					       sizeof(granule));
	if (!ret)
		ret = vfio_info_add_capability(caps, &avail.header,
					       sizeof(avail));
	if (!ret)
		ret = vfio_info_add_capability(caps, &usage.header,
					       sizeof(usage));
	return ret;
}

static long vfio_type1v3_get_info(struct vfio_type1v3 *container,
				  void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_iommu_type1_info, iova_pgsizes);
	struct vfio_info_cap caps = {};
	struct vfio_iommu_type1_info info = {};
	long ret;

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	minsz = min_t(size_t, info.argsz, sizeof(info));

	if (mutex_lock_killable(&container->lock))
		return -EINTR;
	info.flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
	info.iova_pgsizes = container->space.pgsize_bitmap;
	info.cap_offset = 0;
	ret = vfio_type1v3_add_caps(container, &caps);
	mutex_unlock(&container->lock);
	if (ret)
		goto out_free;

	ret = -EFAULT;
	if (info.argsz < sizeof(info) + caps.size) {
		info.argsz = sizeof(info) + caps.size;
	} else {
		vfio_info_cap_shift(&caps, sizeof(info));
		if (copy_to_user(arg + sizeof(info), caps.buf, caps.size))
			goto out_free;
		info.cap_offset = sizeof(info);
	}
	if (!copy_to_user(arg, &info, minsz))
		ret = 0;

out_free:
	kfree(caps.buf);
	return ret;
}

static long vfio_type1v3_map_dma(struct vfio_type1v3 *container,
				 void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_iommu_type1_dma_map, size);
	struct vfio_iommu_type1_dma_map map;

	if (copy_from_user(&map, arg, minsz))
		return -EFAULT;
	if (map.argsz < minsz ||
	    map.flags & ~(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE |
			  VFIO_DMA_MAP_FLAG_VADDR | VFIO_DMA_MAP_GRANULE_MASK))
		return -EINVAL;

	return vfio_type1v3_do_map(container, &map);
}

static long vfio_type1v3_unmap_dma(struct vfio_type1v3 *container,
				   void __user *arg)
{
	struct vfio_iommu_type1_dma_unmap __user *user = arg;
	size_t minsz = offsetofend(struct vfio_iommu_type1_dma_unmap, size);
	struct vfio_iommu_type1_dma_unmap unmap;
	struct vfio_bitmap bitmap;
	bool dirty;
	long ret;

	if (copy_from_user(&unmap, arg, minsz))
		return -EFAULT;
	if (unmap.argsz < minsz ||
	    unmap.flags & ~(VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP |
			    VFIO_DMA_UNMAP_FLAG_ALL |
			    VFIO_DMA_UNMAP_FLAG_VADDR))
		return -EINVAL;

	dirty = unmap.flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
	if (dirty) {
		if (unmap.flags != VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP ||
		    unmap.argsz < minsz + sizeof(bitmap))
			return -EINVAL;
		if (copy_from_user(&bitmap, arg + minsz, sizeof(bitmap)))
			return -EFAULT;
	}

	ret = vfio_type1v3_do_unmap(container, &unmap, dirty ? &bitmap : NULL);
	/* What has been unmapped before a failure is told as well. */
	if ((!ret || ret == -EINTR || ret == -EIO) &&
	    put_user(unmap.size, &user->size))
		return -EFAULT;
	return ret;
}

/*
 * Batches
 *
 * The entries are done in order, each as if it were a call of its own.  Entries of
 * a kind that follow each other are treated together where that makes no difference
 * to any result: entries that also continue each other, in IOVA and user memory,
 * make one unit, which is pinned, mapped or unmapped as a whole, and units that are
 * small are entered with the mutex held once.  A unit of several entries that
 * cannot be treated as a whole is split, so that each entry gets its own errno.
 */

/**
 * struct vfio_type1v3_batch - a batch being worked off
 * @container: the container
 * @flags: VFIO_IOMMU_TYPE1V3_BATCH_FLAG_*
 * @nr: length of @entries and of @units
 * @entries: the user's entries
 * @units: a unit is at the index of its first entry
 * @pages: room for a page for each entry
 * @failed: entries that have failed
 * @ended: no further entry is to be done
 * @epoch: &vfio_type1v3.epoch when the units were made
 *
 * Local to its caller, needs no lock.
 */
struct vfio_type1v3_batch {
	struct vfio_type1v3 *container;
	u32 flags;
	unsigned int nr;
	struct vfio_iommu_type1v3_batch_entry *entries;
	struct vfio_type1v3_unit *units;
	struct page **pages;
	unsigned int failed;
	bool ended;
	unsigned long epoch;
};

static void vfio_type1v3_fail_entry(struct vfio_type1v3_batch *batch,
				    unsigned int i, int ret)
{
	/* Pinning has two names for a fatal signal. */
	if (ret == -ERESTARTSYS)
		ret = -EINTR;
	batch->entries[i].result = ret;
	batch->failed++;
	/* A process with a fatal signal is about to die. */
	if (ret == -EINTR ||
	    !(batch->flags & VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE))
		batch->ended = true;
}

static inline int
vfio_type1v3_check_entry(struct vfio_type1v3 *container,
			 const struct vfio_iommu_type1v3_batch_entry *entry,
			 u64 mask, struct vfio_type1v3_request *request)
{
	u32 access = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
	u64 iova_last;

	if (!(entry->flags & VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP)) {
		if (entry->flags & ~(access | VFIO_DMA_MAP_GRANULE_MASK) ||
		    !(entry->flags & access))
			return -EINVAL;
		return vfio_type1v3_make_request(container, mask, entry->flags,
						 entry->iova, entry->vaddr,
						 entry->size, request);
	}

	if (entry->flags != VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP || entry->vaddr ||
	    !entry->size)
		return -EINVAL;
	if ((entry->iova | entry->size) & mask)
		return -EINVAL;
	if (check_add_overflow(entry->iova, entry->size - 1, &iova_last))
		return -EOVERFLOW;
	request->first = entry->iova >> PAGE_SHIFT;
	request->last = iova_last >> PAGE_SHIFT;
	/* No mapping has this word. */
	request->word = 0;
	return 0;
}

/*
 * Make units of the entries from @i on that are well-formed and of one kind, and
 * return where those end.  The result of that entry says whether it is malformed.
 */
static noinline unsigned int
vfio_type1v3_make_units(struct vfio_type1v3_batch *batch, unsigned int i)
{
	struct vfio_iommu_type1v3_batch_entry *entry = &batch->entries[i];
	struct vfio_type1v3_unit *new = &batch->units[i], *unit = NULL;
	u32 kind = entry->flags & VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP;
	u64 mask = vfio_type1v3_pgsize(batch->container) - 1;

	batch->epoch = batch->container->epoch;
	for (; i < batch->nr; i++, entry++, new++) {
		if ((entry->flags & VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP) != kind)
			break;
		entry->result = vfio_type1v3_check_entry(batch->container, entry,
							 mask, &new->request);
		if (unlikely(entry->result))
			break;
		/* An IOMMU page does not span what two entries map. */
		if (unit && new->request.first == unit->request.last + 1 &&
		    new->request.word == unit->request.word &&
		    !(new->request.word & VFIO_XA_DMA_BIG)) {
			unit->request.last = new->request.last;
			unit->nr_entries++;
		} else {
			unit = new;
			unit->nr_entries = 1;
		}
	}
	return i;
}

/* Make two units of one: its first entry, and what follows that. */
static void vfio_type1v3_split_unit(struct vfio_type1v3_batch *batch,
				    unsigned int i)
{
	unsigned long npages = batch->entries[i].size >> PAGE_SHIFT;
	struct vfio_type1v3_unit *unit = &batch->units[i], *rest = unit + 1;

	*rest = *unit;
	rest->request.first += npages;
	rest->request.vaddr += npages << PAGE_SHIFT;
	rest->nr_entries--;
	unit->request.last = rest->request.first - 1;
	unit->nr_entries = 1;
}

/* Make a unit of each entry of one. */
static void vfio_type1v3_split_all(struct vfio_type1v3_batch *batch,
				   unsigned int i)
{
	while (batch->units[i].nr_entries > 1)
		vfio_type1v3_split_unit(batch, i++);
}

/*
 * Map the first of the units in [@first, @end) in one go, as many as may be
 * charged for and have not more than @room pages together.  Returns how many entries that were.
 */
static unsigned int vfio_type1v3_batch_map_now(struct vfio_type1v3_batch *batch,
					       unsigned int first,
					       unsigned int end,
					       unsigned long room)
{
	struct vfio_type1v3 *container = batch->container;
	const struct vfio_type1v3_unit *unit;
	unsigned long npages = 0, more;
	unsigned int i;

	for (i = first; i < end; i += unit->nr_entries) {
		unit = &batch->units[i];
		more = vfio_type1v3_request_pages(&unit->request);
		if (more > room - npages ||
		    unit->request.word & VFIO_XA_DMA_BIG ||
		    !vfio_type1v3_may_charge(container, &unit->request))
			break;
		npages += more;
	}
	if (!npages)
		return 0;
	return vfio_type1v3_map_now(container, &batch->units[first], npages,
				    batch->pages);
}

/*
 * Map the entries from @i on, up to @end, or to where the units have to be made
 * anew, because groups have come or gone.  Returns the first that has not been
 * done.
 */
static noinline unsigned int
vfio_type1v3_batch_map(struct vfio_type1v3_batch *batch, unsigned int i,
		       unsigned int end)
{
	struct vfio_type1v3 *container = batch->container;
	unsigned int done, room = batch->nr;
	struct vfio_type1v3_unit *unit;
	int ret;

	while (i < end && !batch->ended && batch->epoch == container->epoch) {
		if (unlikely(fatal_signal_pending(current))) {
			vfio_type1v3_fail_entry(batch, i++, -EINTR);
			break;
		}
		ret = vfio_type1v3_become_owner(container);
		done = 0;
		if (!ret && vfio_type1v3_has_domain(container))
			done = vfio_type1v3_batch_map_now(batch, i, end, room);
		i += done;
		if (!done) {
			unit = &batch->units[i];
			/* The mutex may have been dropped. */
			ret = vfio_type1v3_become_owner(container) ?:
			      vfio_type1v3_map_one(container, &unit->request);
			if (!ret)
				i += unit->nr_entries;
			else if (unit->nr_entries == 1)
				vfio_type1v3_fail_entry(batch, i++, ret);
			else
				vfio_type1v3_split_all(batch, i);
		}
		/* Units after one that fails have been pinned in vain. */
		room = ret ? 1 : min(2 * room, batch->nr);
		cond_resched();
	}
	vfio_type1v3_put_owner(container);
	return i;
}

/* Is all of a range one run that is mapped? */
static bool vfio_type1v3_is_run(struct vfio_type1v3 *container,
				unsigned long first, unsigned long last)
{
	struct vfio_xa_dma_run run;

	return vfio_xa_dma_next(&container->store, first, last, &run) &&
	       run.first == first && run.last == last &&
	       !(run.word & VFIO_XA_DMA_PENDING);
}

/*
 * Unmapping a unit has failed after @npages: tell its entries so.  All of it was
 * mapped, and has gone in order.  A signal comes between pages; an IOMMU driver
 * fails with pages that have gone nevertheless.  Returns the first entry that has
 * not been tried, with which a unit begins.
 */
static noinline unsigned int
vfio_type1v3_fail_unmap(struct vfio_type1v3_batch *batch, unsigned int i,
			unsigned long npages, int ret)
{
	unsigned long before = ret == -EINTR ? npages : npages - 1;
	unsigned long more;

	while (batch->units[i].nr_entries > 1) {
		vfio_type1v3_split_unit(batch, i);
		more = batch->entries[i].size >> PAGE_SHIFT;
		if (more > before)
			break;
		before -= more;
		npages -= more;
		i++;
	}
	batch->entries[i].size = (u64)npages << PAGE_SHIFT;
	vfio_type1v3_fail_entry(batch, i, ret);
	return i + 1;
}

/* Unmap the entries from @i on, up to @end.  Returns the first not done. */
static noinline unsigned int
vfio_type1v3_batch_unmap(struct vfio_type1v3_batch *batch, unsigned int i,
			 unsigned int end)
{
	struct vfio_type1v3 *container = batch->container;
	unsigned long unpinned = 0, npages, first, last, mask;
	struct vfio_type1v3_unit *unit;
	int ret;

	while (i < end && !batch->ended) {
		unit = &batch->units[i];
		if (unlikely(fatal_signal_pending(current))) {
			i = vfio_type1v3_fail_unmap(batch, i, 0, -EINTR);
			break;
		}
		first = unit->request.first;
		last = unit->request.last;
		/* This drops the mutex: others may unmap a part. */
		ret = 0;
		if (vfio_type1v3_has_pins(container)) {
			vfio_type1v3_unmap_finish(container, unpinned);
			unpinned = 0;
			ret = vfio_type1v3_release_pins(container, first, last,
							true);
		}
		/* Domains may have come since the entries were checked. */
		mask = 0;
		if (unlikely(container->epoch != batch->epoch))
			mask = (vfio_type1v3_pgsize(container) - 1) >> PAGE_SHIFT;
		/* Only if all of it is mapped is it known what each entry gets. */
		if (unit->nr_entries > 1 &&
		    ((first | (last + 1)) & mask ||
		     !vfio_type1v3_is_run(container, first, last)))
			vfio_type1v3_split_unit(batch, i);

		npages = 0;
		if (!ret && (first | (unit->request.last + 1)) & mask)
			ret = -EINVAL;
		if (!ret)
			ret = vfio_type1v3_unmap_range(container, first,
						       unit->request.last, true,
						       &npages, &unpinned);
		if (likely(!ret)) {
			if (unit->nr_entries == 1)
				batch->entries[i].size = (u64)npages << PAGE_SHIFT;
			i += unit->nr_entries;
			continue;
		}

		if (ret == -EINVAL)
			vfio_type1v3_fail_entry(batch, i++, ret);
		else
			i = vfio_type1v3_fail_unmap(batch, i, npages, ret);
	}
	vfio_type1v3_unmap_finish(container, unpinned);
	return i;
}

static noinline void
vfio_type1v3_trace_entry(unsigned long id, bool unmap, unsigned long npages,
			 const struct vfio_iommu_type1v3_batch_entry *entry)
{
	if (unmap)
		trace_type1v3_unmap(id, entry->iova, entry->size,
				    (u64)npages << PAGE_SHIFT, entry->flags,
				    entry->result);
	else
		trace_type1v3_map(id, entry->iova, entry->size, entry->vaddr,
				  entry->flags, entry->result);
}

/*
 * An entry is counted and traced as the call that it stands for, one that has not
 * been tried is only traced.  A batch has failed if none of its entries was done.
 */
static noinline void vfio_type1v3_count_batch(struct vfio_type1v3_batch *batch)
{
	bool trace = trace_type1v3_map_enabled() || trace_type1v3_unmap_enabled();
	const struct vfio_iommu_type1v3_batch_entry *entry = batch->entries;
	const struct vfio_iommu_type1v3_batch_entry *end = entry + batch->nr;
	struct vfio_type1v3 *container = batch->container;
	unsigned long npages, sum = 0;
	bool unmap, any = false;
	int ret;

	for (; entry < end; entry++) {
		unmap = entry->flags & VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP;
		ret = entry->result;
		npages = entry->size >> PAGE_SHIFT;
		/* An unmap can fail half-way, and says how far it came. */
		if (ret && !(unmap && (ret == -EINTR || ret == -EIO)))
			npages = 0;
		if (ret != -ECANCELED)
			vfio_type1v3_count(container,
					   unmap ? VFIO_TYPE1V3_OP_UNMAP :
						   VFIO_TYPE1V3_OP_MAP,
					   npages, ret);
		if (unlikely(trace))
			vfio_type1v3_trace_entry(container->id, unmap, npages,
						 entry);
		sum += npages;
		any |= !ret;
	}
	vfio_type1v3_count(container, VFIO_TYPE1V3_OP_BATCH, sum, !any);
	trace_type1v3_batch(container->id, batch->nr, batch->flags,
			    batch->failed);
}

static int vfio_type1v3_do_batch(struct vfio_type1v3_batch *batch)
{
	struct vfio_type1v3 *container = batch->container;
	unsigned int i = 0, end;

	if (mutex_lock_killable(&container->lock))
		return -EINTR;

	while (i < batch->nr && !batch->ended) {
		end = vfio_type1v3_make_units(batch, i);
		if (end == i) {
			vfio_type1v3_fail_entry(batch, i,
						batch->entries[i].result);
			i++;
		} else if (batch->entries[i].flags &
			   VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP) {
			i = vfio_type1v3_batch_unmap(batch, i, end);
		} else {
			i = vfio_type1v3_batch_map(batch, i, end);
		}
		cond_resched();
	}
	while (i < batch->nr)
		batch->entries[i++].result = -ECANCELED;
	vfio_type1v3_count_batch(batch);
	mutex_unlock(&container->lock);
	return 0;
}

/* Batches of up to this many entries need no memory but the stack. */
#define VFIO_TYPE1V3_BATCH_SMALL	8

/* Returns how many entries have failed, or an errno if nothing was done. */
static noinline_for_stack long
vfio_type1v3_batch(struct vfio_type1v3 *container, void __user *arg)
{
	struct {
		struct vfio_iommu_type1v3_batch_entry entry;
		struct vfio_type1v3_unit unit;
		struct page *page;
	} small[VFIO_TYPE1V3_BATCH_SMALL] __uninitialized;
	size_t minsz = offsetofend(struct vfio_iommu_type1v3_batch, entries);
	struct vfio_type1v3_batch batch = { .container = container };
	struct vfio_iommu_type1v3_batch header;
	void *room = small;
	long ret = -EFAULT;

	if (copy_from_user(&header, arg, minsz))
		return -EFAULT;
	if (header.argsz < minsz || header.__reserved ||
	    header.flags & ~VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE ||
	    !header.nr_entries ||
	    header.nr_entries > VFIO_IOMMU_TYPE1V3_BATCH_MAX)
		return -EINVAL;

	batch.flags = header.flags;
	batch.nr = header.nr_entries;
	if (batch.nr > ARRAY_SIZE(small))
		room = kvmalloc_array(batch.nr, sizeof(*small), VFIO_DMA_GFP);
	if (!room)
		return -ENOMEM;
	batch.entries = room;
	batch.units = (void *)(batch.entries + batch.nr);
	batch.pages = (void *)(batch.units + batch.nr);

	if (copy_from_user(batch.entries, u64_to_user_ptr(header.entries),
			   batch.nr * sizeof(*batch.entries)))
		goto out_free;

	ret = vfio_type1v3_do_batch(&batch);
	if (ret)
		goto out_free;

	ret = batch.failed;
	if (copy_to_user(u64_to_user_ptr(header.entries), batch.entries,
			 batch.nr * sizeof(*batch.entries)))
		ret = -EFAULT;
out_free:
	if (room != small)
		kvfree(room);
	return ret;
}

static int vfio_type1v3_get_bitmap(struct vfio_type1v3 *container,
				   struct vfio_iommu_type1_dirty_bitmap_get *get)
{
	unsigned long first = get->iova >> PAGE_SHIFT, last;
	u64 iova_last;
	int ret;

	if (!get->size)
		return -EINVAL;
	if (check_add_overflow(get->iova, get->size - 1, &iova_last))
		return -EOVERFLOW;
	last = iova_last >> PAGE_SHIFT;

	if (!container->dirty_tracking ||
	    (get->iova | get->size) & (vfio_type1v3_pgsize(container) - 1) ||
	    vfio_type1v3_check_bitmap(container, &get->bitmap, get->size))
		return -EINVAL;

	ret = vfio_type1v3_report_dirty(container, first, last, true,
					get->bitmap.data);
	if (!ret)
		vfio_type1v3_change(container, first, last, VFIO_XA_DMA_DIRTY,
				    0);
	return ret;
}

static long vfio_type1v3_dirty_pages(struct vfio_type1v3 *container,
				     void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_iommu_type1_dirty_bitmap, flags);
	struct vfio_iommu_type1_dirty_bitmap_get get = {};
	struct vfio_iommu_type1_dirty_bitmap dirty;
	long ret = 0;

	if (copy_from_user(&dirty, arg, minsz))
		return -EFAULT;
	if (dirty.argsz < minsz)
		return -EINVAL;
	if (dirty.flags == VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP) {
		if (dirty.argsz < minsz + sizeof(get))
			return -EINVAL;
		if (copy_from_user(&get, arg + minsz, sizeof(get)))
			return -EFAULT;
	}

	if (mutex_lock_killable(&container->lock))
		return -EINTR;
	switch (dirty.flags) {
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
		vfio_type1v3_start_tracking(container);
		break;
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
		vfio_type1v3_stop_tracking(container);
		break;
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP:
		ret = vfio_type1v3_get_bitmap(container, &get);
		break;
	default:
		ret = -EINVAL;
	}
	vfio_type1v3_count(container, VFIO_TYPE1V3_OP_DIRTY,
			   ret ? 0 : get.size >> PAGE_SHIFT, ret);
	trace_type1v3_dirty(container->id, dirty.flags, get.iova, get.size,
			    ret);
	mutex_unlock(&container->lock);
	return ret;
}

static long vfio_type1v3_ioctl(void *iommu_data, unsigned int cmd,
			       unsigned long arg)
{
	struct vfio_type1v3 *container;
	const char *call;
	long ret;

	if (cmd == VFIO_CHECK_EXTENSION)
		return vfio_type1v3_check_extension(iommu_data, arg);

	container = vfio_type1v3_get(iommu_data);
	if (!container)
		return -EINVAL;

	switch (cmd) {
	case VFIO_IOMMU_GET_INFO:
		call = "get_info";
		ret = vfio_type1v3_get_info(container, (void __user *)arg);
		break;
	case VFIO_IOMMU_MAP_DMA:
		call = "map_dma";
		ret = vfio_type1v3_map_dma(container, (void __user *)arg);
		break;
	case VFIO_IOMMU_UNMAP_DMA:
		call = "unmap_dma";
		ret = vfio_type1v3_unmap_dma(container, (void __user *)arg);
		break;
	case VFIO_IOMMU_TYPE1V3_BATCH:
		call = "batch";
		ret = vfio_type1v3_batch(container, (void __user *)arg);
		break;
	case VFIO_IOMMU_DIRTY_PAGES:
		call = "dirty_pages";
		ret = vfio_type1v3_dirty_pages(container, (void __user *)arg);
		break;
	default:
		call = "unknown";
		ret = -ENOTTY;
	}
	if (ret < 0)
		trace_type1v3_error(container->id, call, ret);

	vfio_type1v3_put(container);
	return ret;
}

/*
 * Emulated devices
 *
 * Their drivers reach user memory with the mutex held, so that an unmap comes
 * before or after.  So they do not wait for it then: what is not there is waited
 * for without the mutex, and without anything to show for it, and then it begins
 * anew where it was.
 */

/* How often memory may be gone again that user space has just provided */
#define VFIO_TYPE1V3_FAULT_RETRIES	10

/* After the mutex was dropped: does memory still belong to the same process? */
static int vfio_type1v3_still_owner(const struct vfio_type1v3 *container,
				    const struct mm_struct *mm)
{
	if (container->vaddr_invalid)
		return -EBUSY;
	return container->owner.mm == mm ? 0 : -EINVAL;
}

/* Undo what vfio_type1v3_pin_vaddr() did. */
static void vfio_type1v3_unpin_value(struct vfio_type1v3 *container,
				     unsigned long value, bool dirty)
{
	vfio_dma_unpin(vfio_type1v3_pin_pfn(value), 1, dirty);
	if (value & VFIO_TYPE1V3_PIN_CHARGED &&
	    !WARN_ON_ONCE(!container->owner.mm))
		vfio_dma_uncharge(&container->owner, 1);
}

/*
 * Pin what is at the address of page @index, charge for it unless that is done, and
 * set @value to its word.  -EAGAIN: that would have to wait for user space, or for a
 * disk.
 */
static int vfio_type1v3_pin_vaddr(struct vfio_type1v3 *container,
				  unsigned long index, unsigned long word,
				  unsigned long *value)
{
	bool has_domain = vfio_type1v3_has_domain(container);
	struct vfio_dma_owner *owner = &container->owner;
	struct page *page;
	int ret = 0;

	if (!has_domain)
		ret = vfio_dma_charge(owner, 1);
	if (ret)
		return ret;
	if (!vfio_dma_pin_present(owner->mm, vfio_xa_dma_vaddr(word, index),
				  word & VFIO_XA_DMA_WRITE, &page)) {
		vfio_dma_uncharge(owner, !has_domain);
		return -EAGAIN;
	}

	*value = vfio_type1v3_pin_word(page_to_pfn(page));
	if (word & VFIO_XA_DMA_WRITE)
		*value |= VFIO_TYPE1V3_PIN_WRITE;
	/* The address may have got another page since it was mapped. */
	if (has_domain &&
	    vfio_type1v3_maps_pfn(list_first_entry(&container->space.domains,
						   struct vfio_dma_domain, next),
				  index, page_to_pfn(page)))
		return 0;
	if (has_domain)
		ret = vfio_dma_charge(owner, 1);
	if (ret)
		vfio_dma_unpin(page_to_pfn(page), 1, false);
	else
		*value |= VFIO_TYPE1V3_PIN_CHARGED;
	return ret;
}

/* Pin one page for a driver, if it is there; otherwise it is -EAGAIN. */
static int vfio_type1v3_pin_page(struct vfio_type1v3 *container,
				 unsigned long index, int prot, bool alive,
				 struct page **page)
{
	unsigned long word, value;
	int ret;

	word = vfio_xa_dma_load(&container->store, index);
	if (!word || word & VFIO_XA_DMA_PENDING ||
	    vfio_type1v3_is_releasing(container, index))
		return -EINVAL;
	if (prot & ~vfio_dma_cut_prot(word))
		return -EPERM;
	/* The domain has device memory there, and pins are of ordinary pages. */
	if (word & VFIO_XA_DMA_PFNMAP && vfio_type1v3_has_domain(container))
		return -EINVAL;

	/* Whatever is at the address now, it is this page that is mapped. */
	value = vfio_xa_dma_load(&container->pins, index);
	if (value) {
		if (!(~value & VFIO_TYPE1V3_PIN_COUNT_MASK))
			return -EOVERFLOW;
		vfio_type1v3_set_pin(container, index, value,
				     value + VFIO_TYPE1V3_PIN_ONE);
		*page = pfn_to_page(vfio_type1v3_pin_pfn(value));
		return 0;
	}

	if (!alive)
		return -ENODEV;
	ret = vfio_type1v3_pin_vaddr(container, index, word, &value);
	if (ret)
		return ret;

	ret = vfio_xa_dma_insert(&container->pins, index, index, value,
				 VFIO_DMA_GFP);
	if (ret)
		vfio_type1v3_unpin_value(container, value, false);
	else
		*page = pfn_to_page(vfio_type1v3_pin_pfn(value));
	return ret;
}

static void vfio_type1v3_unpin_page(struct vfio_type1v3 *container,
				    unsigned long index)
{
	unsigned long more = VFIO_TYPE1V3_PIN_COUNT_MASK ^ VFIO_TYPE1V3_PIN_ONE;
	unsigned long value = vfio_xa_dma_take(&container->pins, index, more);

	if (!value) {
		value = vfio_xa_dma_load(&container->pins, index);
		if (WARN_ONCE(!value,
			      "vfio_iommu_type1v3: unpin of a page that is not pinned\n"))
			return;
		if (value & more) {
			vfio_type1v3_set_pin(container, index, value,
					     value - VFIO_TYPE1V3_PIN_ONE);
			return;
		}
		vfio_xa_dma_prepare_nofail(&container->pins, index, index);
		vfio_xa_dma_erase(&container->pins, index, index);
	}

	vfio_type1v3_set_dirty(container, index, index);
	vfio_type1v3_unpin_value(container, value,
				 value & VFIO_TYPE1V3_PIN_WRITE);
}

static int vfio_type1v3_check_pin_range(dma_addr_t iova, int npage)
{
	dma_addr_t last;

	if (npage <= 0)
		return -EINVAL;
	if (check_add_overflow(iova, ((dma_addr_t)npage << PAGE_SHIFT) - 1,
			       &last))
		return -EOVERFLOW;
	return 0;
}

/*
 * Pin pages for a driver, all or none.  It does not wait for memory, as it holds
 * the mutex: pins that the driver has not been told of yet must not be seen by an
 * unmap, which would ask for them back.  -EAGAIN: page @missing is not there.
 */
static int vfio_type1v3_try_pin(struct vfio_type1v3 *container,
				unsigned long first, int npage, int prot,
				bool alive, struct page **pages, int *missing)
{
	int ret, i;

	for (i = 0; i < npage; i++) {
		ret = vfio_type1v3_pin_page(container, first + i, prot, alive,
					    &pages[i]);
		if (ret)
			goto err_unpin;
	}
	return 0;

err_unpin:
	*missing = i;
	pages[i] = NULL;
	while (i--) {
		vfio_type1v3_unpin_page(container, first + i);
		pages[i] = NULL;
	}
	return ret;
}

/*
 * Wait until the memory from page @first on is there.  Called with the mutex held,
 * returns with it held; it is dropped in between.  Nothing stays pinned.  What is
 * pinned while the next page is waited for, which can be long, is charged.
 */
static int vfio_type1v3_fault_in_pages(struct vfio_type1v3 *container,
				       unsigned long first, unsigned long last)
{
	struct vfio_dma_owner owner = container->owner;
	struct mm_struct *mm = owner.mm;
	bool has_domain = vfio_type1v3_has_domain(container);
	unsigned long charge, npages;
	struct vfio_xa_dma_run run;
	struct vfio_dma_pin pin;
	int ret;

	vfio_xa_dma_next(&container->store, first, last, &run);
	npages = vfio_type1v3_run_pages(&run);
	charge = npages - vfio_type1v3_count_pins(container, first, run.last);
	/* The container can be somebody else's soon. */
	get_task_struct(owner.task);
	owner.npages = 0;
	mutex_unlock(&container->lock);

	ret = vfio_dma_charge(&owner, charge);
	/* It may be what a domain has mapped, and charged.  Nothing waits with one. */
	if (ret == -ENOMEM && has_domain) {
		charge = 0;
		npages = 1;
		ret = 0;
	}
	if (ret)
		goto out_lock;
	vfio_dma_pin_start(&pin, mm, vfio_xa_dma_vaddr(run.word, first), npages,
			   run.word & VFIO_XA_DMA_WRITE);
	ret = vfio_dma_pin_step(&pin);
	/* It is device memory. */
	if (!ret && !pin.size)
		ret = -EINVAL;
	vfio_dma_pin_finish(&pin);
	vfio_dma_uncharge(&owner, charge);

out_lock:
	put_task_struct(owner.task);
	mutex_lock(&container->lock);
	return ret ?: vfio_type1v3_still_owner(container, mm);
}

static int vfio_type1v3_pin_pages(void *iommu_data,
				  struct iommu_group *iommu_group,
				  dma_addr_t iova, int npage, int prot,
				  struct page **pages)
{
	unsigned long first = iova >> PAGE_SHIFT, retries;
	struct vfio_type1v3_domain *domain;
	struct vfio_type1v3 *container;
	struct vfio_type1v3_group *group;
	bool alive = true, foreign = false;
	struct mm_struct *mm;
	int ret, missing;

	ret = vfio_type1v3_check_pin_range(iova, npage);
	if (ret)
		return ret;
	container = vfio_type1v3_of_driver(iommu_data);
	if (!container)
		return -EINVAL;

	if (mutex_lock_killable(&container->lock))
		return -EINTR;
	ret = -EBUSY;
	if (WARN_ONCE(container->vaddr_invalid,
		      "vfio_pin_pages() during a live update\n"))
		goto out_unlock;
	/* Somebody has to give the pages back when they are unmapped. */
	ret = -EINVAL;
	mm = container->owner.mm;
	if (list_empty(&container->devices) || !mm)
		goto out_unlock;

	if (mm != current->mm) {
		foreign = mmget_not_zero(mm);
		alive = foreign;
	}
	/* Each page may be missing, and a few of them again. */
	retries = npage + VFIO_TYPE1V3_FAULT_RETRIES;
	while ((ret = vfio_type1v3_try_pin(container, first, npage, prot, alive,
					   pages, &missing)) == -EAGAIN) {
		ret = -EFAULT;
		if (retries--)
			ret = vfio_type1v3_fault_in_pages(container,
							  first + missing,
							  first + npage - 1);
		if (ret)
			break;
	}
	if (ret)
		goto out_unlock;

	group = vfio_type1v3_find_group(container, iommu_group, &domain);
	if (group)
		group->dirties_unseen = false;
	ret = npage;

out_unlock:
	vfio_type1v3_count(container, VFIO_TYPE1V3_OP_PIN, max(ret, 0),
			   min(ret, 0));
	trace_type1v3_pin(container->id, iova, npage, prot, ret);
	if (ret < 0)
		trace_type1v3_error(container->id, "pin_pages", ret);
	mutex_unlock(&container->lock);
	/* It may be the last one: not with the mutex. */
	if (foreign)
		mmput(mm);
	return ret;
}

static void vfio_type1v3_unpin_pages(void *iommu_data, dma_addr_t iova,
				     int npage)
{
	struct vfio_type1v3 *container;
	int i;

	if (WARN_ON(vfio_type1v3_check_pin_range(iova, npage)))
		return;
	container = vfio_type1v3_of_driver(iommu_data);
	if (!container)
		return;

	mutex_lock(&container->lock);
	for (i = 0; i < npage; i++)
		vfio_type1v3_unpin_page(container, (iova >> PAGE_SHIFT) + i);
	vfio_type1v3_count(container, VFIO_TYPE1V3_OP_UNPIN, npage, 0);
	trace_type1v3_unpin(container->id, iova, npage);
	mutex_unlock(&container->lock);
}

static void vfio_type1v3_register_device(void *iommu_data,
					 struct vfio_device *vdev)
{
	struct vfio_type1v3 *container;

	if (!vdev->ops->dma_unmap)
		return;
	container = vfio_type1v3_get(iommu_data);
	if (!container)
		return;

	mutex_lock(&container->devices_lock);
	mutex_lock(&container->lock);
	list_add(&vdev->iommu_entry, &container->devices);
	mutex_unlock(&container->lock);
	mutex_unlock(&container->devices_lock);
	vfio_type1v3_put(container);
}

static void vfio_type1v3_unregister_device(void *iommu_data,
					   struct vfio_device *vdev)
{
	struct vfio_type1v3 *container;

	if (!vdev->ops->dma_unmap)
		return;
	container = vfio_type1v3_get(iommu_data);
	if (!container)
		return;

	mutex_lock(&container->devices_lock);
	mutex_lock(&container->lock);
	list_del(&vdev->iommu_entry);
	mutex_unlock(&container->lock);
	mutex_unlock(&container->devices_lock);
	vfio_type1v3_put(container);
}

/* Where the owner has what is at an IOVA, in an address space that is in use */
static void __user *vfio_type1v3_user(unsigned long word, dma_addr_t iova)
{
	return (void __user *)vfio_xa_dma_vaddr(word, iova >> PAGE_SHIFT) +
	       (iova & ~PAGE_MASK);
}

/*
 * Copy within a run.  -EAGAIN: the last @missing bytes of it are not there.
 */
static __always_inline int
vfio_type1v3_copy_run(struct vfio_type1v3 *container, unsigned long word,
		      dma_addr_t iova, void *data, size_t count, bool write,
		      size_t *missing)
{
	void __user *user = vfio_type1v3_user(word, iova);
	size_t left;

	if (!word || word & VFIO_XA_DMA_PENDING)
		return -EINVAL;
	if (!(word & VFIO_XA_DMA_READ) ||
	    (write && !(word & VFIO_XA_DMA_WRITE)))
		return -EPERM;

	pagefault_disable();
	left = write ? copy_to_user(user, data, count) :
		       copy_from_user(data, user, count);
	pagefault_enable();
	if (write && left < count)
		vfio_type1v3_set_dirty(container, iova >> PAGE_SHIFT,
				       (iova + count - left - 1) >> PAGE_SHIFT);
	*missing = left;
	return left ? -EAGAIN : 0;
}

/*
 * Wait until some of the owner's memory is there.  Called with the mutex held,
 * returns with it held; it is dropped in between.
 */
static int vfio_type1v3_fault_in(struct vfio_type1v3 *container,
				 void __user *user, size_t count, bool write)
{
	struct mm_struct *mm = container->owner.mm;
	size_t left;

	mutex_unlock(&container->lock);
	left = write ? fault_in_safe_writeable(user, count) :
		       fault_in_readable(user, count);
	mutex_lock(&container->lock);
	return left == count ? -EFAULT :
			       vfio_type1v3_still_owner(container, mm);
}

/*
 * Copy from or to the address space in use, which is the owner's.  Called with the
 * mutex held, returns with it held; it may be dropped in between.
 */
static noinline int vfio_type1v3_copy(struct vfio_type1v3 *container,
				      dma_addr_t iova, void *data,
				      size_t count, bool write)
{
	unsigned int retries = VFIO_TYPE1V3_FAULT_RETRIES;
	dma_addr_t last = iova + count - 1;
	struct vfio_xa_dma_run run;
	size_t size, missing;
	int ret;

	while (count) {
		if (!vfio_xa_dma_next(&container->store, iova >> PAGE_SHIFT,
				      last >> PAGE_SHIFT, &run) ||
		    run.first != iova >> PAGE_SHIFT)
			return -EINVAL;
		size = min(count, (vfio_type1v3_run_pages(&run) << PAGE_SHIFT) -
				  (iova & ~PAGE_MASK));
		ret = vfio_type1v3_copy_run(container, run.word, iova, data,
					    size, write, &missing);
		if (ret && ret != -EAGAIN)
			return ret;

		size -= missing;
		iova += size;
		data += size;
		count -= size;
		if (size)
			retries = VFIO_TYPE1V3_FAULT_RETRIES;
		if (!missing) {
			cond_resched();
			continue;
		}
		if (!retries--)
			return -EFAULT;
		ret = vfio_type1v3_fault_in(container,
					    vfio_type1v3_user(run.word, iova),
					    missing, write);
		if (ret)
			return ret;
	}
	return 0;
}

/* What is not the owner must be a kernel thread, to use its address space. */
static noinline int vfio_type1v3_copy_foreign(struct vfio_type1v3 *container,
					      dma_addr_t iova, void *data,
					      size_t count, bool write)
{
	struct mm_struct *mm = container->owner.mm;
	int ret = -EFAULT;

	if (!mmget_not_zero(mm))
		return -EPERM;
	if (current->flags & PF_KTHREAD && !current->mm) {
		kthread_use_mm(mm);
		ret = vfio_type1v3_copy(container, iova, data, count, write);
		kthread_unuse_mm(mm);
	}
	/* It may be the last user of it: not with the mutex. */
	mmput_async(mm);
	return ret;
}

static int vfio_type1v3_dma_rw(void *iommu_data, dma_addr_t iova, void *data,
			       size_t count, bool write)
{
	struct vfio_type1v3 *container;
	unsigned long word;
	dma_addr_t last;
	size_t missing;
	int ret;

	if (!count)
		return 0;
	if (check_add_overflow(iova, count - 1, &last))
		return -EOVERFLOW;
	container = vfio_type1v3_of_driver(iommu_data);
	if (!container)
		return -EINVAL;

	if (mutex_lock_killable(&container->lock))
		return -EINTR;
	ret = -EBUSY;
	if (WARN_ONCE(container->vaddr_invalid,
		      "vfio_dma_rw() during a live update\n"))
		goto out_unlock;
	ret = -EINVAL;
	if (!container->owner.mm)
		goto out_unlock;

	if (container->owner.mm != current->mm) {
		ret = vfio_type1v3_copy_foreign(container, iova, data, count,
						write);
		goto out_unlock;
	}
	ret = -EAGAIN;
	if (!((iova ^ last) >> PAGE_SHIFT)) {
		/* As most calls are, and one page is one run */
		word = vfio_xa_dma_load(&container->store, iova >> PAGE_SHIFT);
		ret = vfio_type1v3_copy_run(container, word, iova, data, count,
					    write, &missing);
	}
	if (ret == -EAGAIN)
		ret = vfio_type1v3_copy(container, iova, data, count, write);

out_unlock:
	vfio_type1v3_count(container, VFIO_TYPE1V3_OP_RW,
			   ret ? 0 : PFN_UP((iova & ~PAGE_MASK) + count), ret);
	if (ret)
		trace_type1v3_error(container->id, "dma_rw", ret);
	mutex_unlock(&container->lock);
	return ret;
}

/*
 * debugfs: vfio_type1v3/<number of the container>/
 */

static struct dentry *vfio_type1v3_debugfs;

static const char * const vfio_type1v3_op_names[] = {
	[VFIO_TYPE1V3_OP_MAP]	= "map",
	[VFIO_TYPE1V3_OP_UNMAP]	= "unmap",
	[VFIO_TYPE1V3_OP_BATCH]	= "batch",
	[VFIO_TYPE1V3_OP_DIRTY]	= "dirty",
	[VFIO_TYPE1V3_OP_VADDR]	= "vaddr",
	[VFIO_TYPE1V3_OP_PIN]	= "pin",
	[VFIO_TYPE1V3_OP_UNPIN]	= "unpin",
	[VFIO_TYPE1V3_OP_RW]	= "rw",
};

static void vfio_type1v3_show_owner(struct seq_file *m,
				    const struct vfio_dma_owner *owner)
{
	char comm[TASK_COMM_LEN];

	if (!owner->mm) {
		seq_puts(m, "owner 0\n");
		return;
	}
	get_task_comm(comm, owner->task);
	seq_printf(m, "owner %d ", task_tgid_nr(owner->task));
	/* A process chooses its name: it must not look like other lines. */
	seq_escape_str(m, comm, ESCAPE_ANY_NP, NULL);
	seq_putc(m, '\n');
}

static void vfio_type1v3_show_groups(struct seq_file *m,
				     const struct list_head *groups)
{
	struct vfio_type1v3_group *group;

	list_for_each_entry(group, groups, next)
		seq_printf(m, " %d", iommu_group_id(group->iommu_group));
	seq_putc(m, '\n');
}

static int vfio_type1v3_stat_show(struct seq_file *m, void *unused)
{
	struct vfio_type1v3 *container = m->private;
	const struct vfio_type1v3_count *count;
	struct vfio_xa_dma_stats stats;
	struct vfio_dma_domain *domain;
	unsigned int i;

	/* It is held while user space provides memory for a dirty bitmap. */
	if (mutex_lock_interruptible(&container->lock))
		return -ERESTARTSYS;

	vfio_type1v3_show_owner(m, &container->owner);
	list_for_each_entry(domain, &container->space.domains, next) {
		seq_printf(m, "domain %#lx groups",
			   vfio_dma_domain_pgsizes(domain));
		vfio_type1v3_show_groups(m,
					 &vfio_type1v3_domain(domain)->groups);
	}
	if (!list_empty(&container->emulated)) {
		seq_puts(m, "emulated groups");
		vfio_type1v3_show_groups(m, &container->emulated);
	}

	vfio_xa_dma_get_stats(&container->store, &stats);
	seq_printf(m, "mapped_pages %lu\n",
		   vfio_xa_dma_npages(&container->store));
	seq_printf(m, "pinned_pages %lu\n", vfio_type1v3_pinned(container));
	seq_printf(m, "device_pages %lu\n",
		   vfio_xa_dma_npages(&container->pins));
	seq_printf(m, "device_bytes %zu\n",
		   vfio_xa_dma_footprint(&container->pins));
	seq_printf(m, "invalid_pages %lu\n", container->vaddr_invalid);
	seq_printf(m, "dirty_tracking %d\n", container->dirty_tracking);
	seq_printf(m, "store_bytes %zu\n",
		   vfio_xa_dma_footprint(&container->store));
	seq_printf(m, "nodes %lu %lu\n", stats.nodes, stats.node_bytes);
	seq_printf(m, "arrays %lu %lu\n", stats.arrays, stats.array_bytes);
	for (i = 0; i < VFIO_TYPE1V3_NR_OPS; i++) {
		count = &container->counts[i];
		seq_printf(m, "%s %llu %llu %llu\n", vfio_type1v3_op_names[i],
			   count->done, count->failed, count->npages);
	}

	mutex_unlock(&container->lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(vfio_type1v3_stat);

/* Runs that are counted before others may have the mutex */
#define VFIO_TYPE1V3_RUNS_STEP	1024

/*
 * How many runs there are of each length, from one power of two to the next.
 * What changes while they are counted may be counted before or after.
 */
static int vfio_type1v3_runs_show(struct seq_file *m, void *unused)
{
	unsigned long runs[BITS_PER_LONG - PAGE_SHIFT + 1] = {};
	struct vfio_type1v3 *container = m->private;
	struct vfio_xa_dma_run run;
	unsigned long first = 0;
	unsigned int i;
	bool more;

	do {
		if (mutex_lock_interruptible(&container->lock))
			return -ERESTARTSYS;
		for (i = 0; i < VFIO_TYPE1V3_RUNS_STEP; i++) {
			more = vfio_xa_dma_next(&container->store, first,
						VFIO_XA_DMA_LAST_INDEX, &run);
			if (!more)
				break;
			runs[ilog2(vfio_type1v3_run_pages(&run))]++;
			more = run.last != VFIO_XA_DMA_LAST_INDEX;
			if (!more)
				break;
			first = run.last + 1;
		}
		mutex_unlock(&container->lock);
		/* A mutex that nobody holds is taken without a look for one. */
		if (signal_pending(current))
			return -ERESTARTSYS;
		cond_resched();
	} while (more);

	for (i = 0; i < ARRAY_SIZE(runs); i++)
		if (runs[i])
			seq_printf(m, "%lu %lu %lu\n", BIT(i),
				   BIT(i) + (BIT(i) - 1), runs[i]);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(vfio_type1v3_runs);

static void vfio_type1v3_debugfs_add(struct vfio_type1v3 *container)
{
	char name[21];

	/* Without module_init() there is no place for it. */
	if (!vfio_type1v3_debugfs)
		return;
	snprintf(name, sizeof(name), "%lu", container->id);
	container->debugfs = debugfs_create_dir(name, vfio_type1v3_debugfs);
	debugfs_create_file("stat", 0400, container->debugfs, container,
			    &vfio_type1v3_stat_fops);
	debugfs_create_file("runs", 0400, container->debugfs, container,
			    &vfio_type1v3_runs_fops);
}

/*
 * What VFIO calls
 */

static void *vfio_type1v3_open(unsigned long arg)
{
	struct vfio_type1v3 *container;
	int ret;

	if (arg != VFIO_TYPE1v3_IOMMU &&
	    !(alias_type1 && (arg == VFIO_TYPE1_IOMMU ||
			      arg == VFIO_TYPE1v2_IOMMU)))
		return ERR_PTR(-EINVAL);

	container = kzalloc_obj(*container, VFIO_DMA_GFP);
	if (!container)
		return ERR_PTR(-ENOMEM);

	mutex_init(&container->lock);
	mutex_init(&container->devices_lock);
	refcount_set(&container->users, 1);
	INIT_LIST_HEAD(&container->maps);
	INIT_LIST_HEAD(&container->emulated);
	INIT_LIST_HEAD(&container->devices);
	INIT_LIST_HEAD(&container->releases);
	vfio_xa_dma_init(&container->pins);
	vfio_xa_dma_init(&container->store);
	ret = vfio_dma_space_init(&container->space, &container->lock,
				  &container->owner);
	if (ret)
		goto err_free;

	__module_get(THIS_MODULE);
	spin_lock(&vfio_type1v3_containers_lock);
	container->id = ++vfio_type1v3_last_id;
	hash_add_rcu(vfio_type1v3_containers, &container->hash, container->id);
	spin_unlock(&vfio_type1v3_containers_lock);
	vfio_type1v3_debugfs_add(container);
	return (void *)container->id;

err_free:
	mutex_destroy(&container->devices_lock);
	mutex_destroy(&container->lock);
	kfree(container);
	return ERR_PTR(ret);
}

static void vfio_type1v3_release(void *iommu_data)
{
	struct vfio_type1v3 *container;

	container = vfio_type1v3_get(iommu_data);
	if (WARN_ON_ONCE(!container))
		return;
	spin_lock(&vfio_type1v3_containers_lock);
	hash_del_rcu(&container->hash);
	spin_unlock(&vfio_type1v3_containers_lock);

	/* Waits for those who are reading, and they may for the mutex. */
	debugfs_remove(container->debugfs);

	mutex_lock(&container->lock);
	WARN_ON_ONCE(vfio_type1v3_has_group(container));
	mutex_unlock(&container->lock);

	vfio_type1v3_put(container);
	/* VFIO's own */
	vfio_type1v3_put(container);
}

static int vfio_type1v3_attach_group(void *iommu_data,
				     struct iommu_group *iommu_group,
				     enum vfio_group_type type)
{
	struct vfio_type1v3 *container = vfio_type1v3_get(iommu_data);
	struct vfio_type1v3_domain *domain;
	int ret;

	if (!container)
		return -EINVAL;

	ret = -EINTR;
	if (mutex_lock_killable(&container->lock))
		goto out_put;
	/* It could need the user memory that is gone for the moment. */
	if (container->vaddr_invalid)
		ret = -EBUSY;
	else if (vfio_type1v3_find_group(container, iommu_group, &domain))
		ret = -EINVAL;
	else if (type == VFIO_EMULATED_IOMMU)
		ret = vfio_type1v3_attach_emulated(container, iommu_group);
	else
		ret = vfio_type1v3_do_attach(container, iommu_group);
	container->epoch++;
	trace_type1v3_attach(container->id, iommu_group, ret);
	if (ret)
		trace_type1v3_error(container->id, "attach_group", ret);
	mutex_unlock(&container->lock);
out_put:
	vfio_type1v3_put(container);
	return ret;
}

static void vfio_type1v3_detach_group(void *iommu_data,
				      struct iommu_group *iommu_group)
{
	struct vfio_type1v3 *container = vfio_type1v3_get(iommu_data);

	if (!container)
		return;

	mutex_lock(&container->lock);
	vfio_type1v3_do_detach(container, iommu_group);
	container->epoch++;
	trace_type1v3_detach(container->id, iommu_group, 0);
	mutex_unlock(&container->lock);
	vfio_type1v3_put(container);
}

static struct iommu_domain *
vfio_type1v3_group_iommu_domain(void *iommu_data,
				struct iommu_group *iommu_group)
{
	struct iommu_domain *iommu_domain = ERR_PTR(-ENODEV);
	struct vfio_type1v3_domain *domain;
	struct vfio_type1v3 *container;

	if (!iommu_data || !iommu_group)
		return ERR_PTR(-EINVAL);

	container = vfio_type1v3_get(iommu_data);
	if (!container)
		return ERR_PTR(-EINVAL);

	mutex_lock(&container->lock);
	if (vfio_type1v3_find_group(container, iommu_group, &domain) && domain)
		iommu_domain = domain->dma.domain;
	mutex_unlock(&container->lock);
	vfio_type1v3_put(container);
	return iommu_domain;
}

static const struct vfio_iommu_driver_ops vfio_type1v3_ops = {
	.name			= "vfio-iommu-type1v3",
	.owner			= THIS_MODULE,
	.open			= vfio_type1v3_open,
	.release		= vfio_type1v3_release,
	.ioctl			= vfio_type1v3_ioctl,
	.attach_group		= vfio_type1v3_attach_group,
	.detach_group		= vfio_type1v3_detach_group,
	.pin_pages		= vfio_type1v3_pin_pages,
	.unpin_pages		= vfio_type1v3_unpin_pages,
	.register_device	= vfio_type1v3_register_device,
	.unregister_device	= vfio_type1v3_unregister_device,
	.dma_rw			= vfio_type1v3_dma_rw,
	.group_iommu_domain	= vfio_type1v3_group_iommu_domain,
};

static int __init vfio_type1v3_init(void)
{
	int ret;

	vfio_type1v3_debugfs = debugfs_create_dir("vfio_type1v3", NULL);
	ret = vfio_register_iommu_driver(&vfio_type1v3_ops);
	if (ret)
		debugfs_remove(vfio_type1v3_debugfs);
	return ret;
}
module_init(vfio_type1v3_init);

static void __exit vfio_type1v3_exit(void)
{
	vfio_unregister_iommu_driver(&vfio_type1v3_ops);
	debugfs_remove(vfio_type1v3_debugfs);
}
module_exit(vfio_type1v3_exit);

MODULE_DESCRIPTION("VFIO container backend for page-granular DMA mapping");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.2");
MODULE_IMPORT_NS("VFIO_DMA");
MODULE_IMPORT_NS("IOMMUFD");
