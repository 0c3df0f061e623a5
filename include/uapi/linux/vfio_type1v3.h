/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * type1v3: a VFIO container backend for page-granular DMA mapping
 *
 * A container is given this backend with ioctl(container, VFIO_SET_IOMMU,
 * VFIO_TYPE1v3_IOMMU).  From then on it takes the ioctls, structures and flags
 * of the type1 section of <linux/vfio.h>; what is declared here comes on top.
 */
#ifndef _UAPI_LINUX_VFIO_TYPE1V3_H
#define _UAPI_LINUX_VFIO_TYPE1V3_H

#include <linux/types.h>
#include <linux/vfio.h>

/* The argument of VFIO_SET_IOMMU and VFIO_CHECK_EXTENSION */
#define VFIO_TYPE1v3_IOMMU		100001

/**
 * DOC: errno values of a type1v3 container
 *
 * They are those of type1v2 on the newest kernel.  A call that fails has
 * changed nothing, unless stated otherwise below.
 *
 * - EINVAL: argsz too small, a flag that is not known or not allowed in this
 *   combination, size of zero, an address or size that is not a multiple of
 *   the smallest page size, an IOVA outside of the valid ranges
 * - EOVERFLOW: the IOVA range or the range of user memory wraps around
 * - EEXIST: VFIO_IOMMU_MAP_DMA: a page of the IOVA range is mapped, or is
 *   being mapped by another call
 * - EFAULT: the argument cannot be read or written, or user memory to be
 *   mapped is not there or not writable where the device is to write
 * - ENOMEM: RLIMIT_MEMLOCK or the memory cgroup's limit is reached, or there
 *   is no memory, or a map without an IOMMU has more than 2^20 granules; not
 *   returned by VFIO_IOMMU_UNMAP_DMA, unless the dirty bits of an IOMMU are to be
 *   read
 * - EPERM: VFIO_IOMMU_MAP_DMA: the container's mappings belong to another
 *   process (address space), or it is device memory and the module parameter
 *   disable_device_memory is set
 * - EBUSY: VFIO_DMA_UNMAP_FLAG_VADDR in a container with emulated devices
 * - ENOENT: VFIO_DMA_MAP_FLAG_VADDR: nothing is mapped in the range
 * - ENODEV: VFIO_IOMMU_MAP_DMA: the last group left the container meanwhile
 * - EINTR: a fatal signal; VFIO_IOMMU_UNMAP_DMA may have unmapped a part,
 *   which size tells
 * - EIO: VFIO_IOMMU_UNMAP_DMA: the IOMMU driver failed; size tells what is no
 *   longer mapped, which may be more than what was asked for
 * - ENOTTY: the ioctl is not known
 */

/**
 * VFIO_DMA_MAP_GRANULE() - Bound the IOMMU pages of a mapping
 * @order: 0 to VFIO_DMA_MAP_GRANULE_ORDER_MAX
 *
 * A field in the flags of VFIO_IOMMU_MAP_DMA and of a map in a batch.  The IOMMU
 * pages of the range are at most 2^@order CPU pages large.  An unmap that begins
 * and ends at multiples of that size, counted from IOVA 0, takes away no
 * translation but those that it was asked for, at no time: a device can use the
 * rest of the range meanwhile.  Without a granule, and between its multiples, an
 * unmap of a part of a larger IOMMU page takes the page's whole translation away
 * for a moment.
 *
 * The granule is kept when further groups are attached, when user addresses are
 * updated, and when what has been unmapped is mapped again with it.  A size that
 * no IOMMU has means the next smaller one.  EINVAL: @order is above the maximum;
 * the granule is smaller than the smallest IOMMU page; there is a granule together
 * with VFIO_DMA_MAP_FLAG_VADDR or on an unmap.
 */
#define VFIO_DMA_MAP_GRANULE(order)	((1U << 31) | ((__u32)(order) << 25))
#define VFIO_DMA_MAP_GRANULE_MASK	(0x7fU << 25)
#define VFIO_DMA_MAP_GRANULE_ORDER(flags)	(((flags) >> 25) & 0x3f)
#define VFIO_DMA_MAP_GRANULE_ORDER_MAX	51

/* The smallest granule: IOMMU pages of the size of the CPU's */
#define VFIO_DMA_MAP_FLAG_SMALL_PAGES	VFIO_DMA_MAP_GRANULE(0)

/**
 * VFIO_IOMMU_TYPE1V3_BATCH - _IO(VFIO_TYPE, VFIO_BASE + 50)
 *
 * Map and unmap many ranges in one call.  The argument is a
 * struct vfio_iommu_type1v3_batch.
 *
 * The entries are done in order, each as if it were a call of its own: with the
 * errno that VFIO_IOMMU_MAP_DMA or VFIO_IOMMU_UNMAP_DMA would have, and visible to
 * other threads as soon as it is done.  An entry that fails has changed nothing,
 * except for an unmap as those calls' errno values say.  Neighbouring entries of the
 * same kind are charged together, and unmapped with one synchronisation of the IOTLB;
 * those that also continue each other, in IOVA and for maps in user memory, cost
 * little more than one.
 *
 * The first entry that fails, be it malformed or not, ends the batch: those before it
 * are done, those after it are not tried.  With
 * %VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE the others are done nevertheless, unless
 * the failure is a fatal signal.
 *
 * The result of an entry is
 *
 * - 0: the entry is done
 * - -ECANCELED: the entry has not been tried, as the batch had ended
 * - another negative errno: the entry has failed.  A malformed entry, such as one
 *   with an unknown flag, has -EINVAL or -EOVERFLOW.  -EINTR means a fatal signal,
 *   and ends the batch
 *
 * Return: the number of entries that have failed, 0 if all are done.  Entries with
 * -ECANCELED are not counted.  Without CONTINUE the number is 0 or 1.
 *
 * -1 with one of these errno values means that no entry was tried, and no result is
 * set: EINVAL (argsz, flags, reserved field, number of entries), EFAULT (the argument
 * or the entries cannot be read), ENOMEM (no memory for the batch itself), EINTR (a
 * fatal signal before the first entry).  There is one exception: EFAULT is returned
 * after the fact if the results cannot be written.
 *
 * A kernel or backend that does not know the ioctl returns ENOTTY, and sets no result
 * either.
 */
#define VFIO_IOMMU_TYPE1V3_BATCH	_IO(VFIO_TYPE, VFIO_BASE + 50)

/**
 * define VFIO_IOMMU_TYPE1V3_BATCH_MAX - the largest number of entries in a batch
 */
#define VFIO_IOMMU_TYPE1V3_BATCH_MAX	1024

/**
 * define VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP - the entry is an unmap
 *
 * Flag of an entry.  No other flag goes with it.  An entry without it is a map.
 */
#define VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP	(1U << 16)

/**
 * struct vfio_iommu_type1v3_batch_entry - one map or unmap
 * @iova: as in &struct vfio_iommu_type1_dma_map or _unmap
 * @size: bytes.  If an unmap's @result is 0, -EINTR or -EIO, it is set to the bytes
 *	that were unmapped; otherwise it is left alone
 * @vaddr: user memory; 0 for an unmap
 * @flags: VFIO_DMA_MAP_FLAG_READ and _WRITE, at least one of them, and
 *	VFIO_DMA_MAP_GRANULE() for a map; %VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP alone
 *	for an unmap
 * @result: set on return, 0 or a negative errno, see %VFIO_IOMMU_TYPE1V3_BATCH
 */
struct vfio_iommu_type1v3_batch_entry {
	__aligned_u64 iova;
	__aligned_u64 size;
	__aligned_u64 vaddr;
	__u32 flags;
	__s32 result;
};

/**
 * define VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE - do not end at a failure
 *
 * Flag of a batch.  Only a fatal signal ends it before its last entry.
 */
#define VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE	(1U << 0)

/**
 * struct vfio_iommu_type1v3_batch - argument of VFIO_IOMMU_TYPE1V3_BATCH
 * @argsz: size of this structure
 * @flags: 0 or %VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE
 * @nr_entries: 1 to %VFIO_IOMMU_TYPE1V3_BATCH_MAX
 * @__reserved: 0
 * @entries: address of an array of struct vfio_iommu_type1v3_batch_entry
 */
struct vfio_iommu_type1v3_batch {
	__u32 argsz;
	__u32 flags;
	__u32 nr_entries;
	__u32 __reserved;
	__aligned_u64 entries;
};

/*
 * VFIO_IOMMU_GET_INFO capability: the size of the container.  It is there on
 * this backend and on no other.
 */
#define VFIO_IOMMU_TYPE1V3_INFO_CAP_USAGE	0x5433

/**
 * struct vfio_iommu_type1v3_info_cap_usage - what a container holds
 * @header: id VFIO_IOMMU_TYPE1V3_INFO_CAP_USAGE, version 1
 * @mapped_pages: pages of IOVA mapped, in units of the CPU's page size
 * @pinned_pages: pages charged as locked memory to the owner, same unit
 * @store_bytes: kernel memory the mappings' metadata takes, IO page tables not
 *	included
 */
struct vfio_iommu_type1v3_info_cap_usage {
	struct vfio_info_cap_header header;
	__aligned_u64 mapped_pages;
	__aligned_u64 pinned_pages;
	__aligned_u64 store_bytes;
};

/*
 * VFIO_IOMMU_GET_INFO capability: where the answer of VFIO_IOMMU_DIRTY_PAGES
 * comes from.  A program can choose to do without dirty tracking where all it
 * would hear is that everything is dirty.
 */
#define VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY	0x5434

/**
 * struct vfio_iommu_type1v3_info_cap_dirty - how dirty pages become known
 * @header: id VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY, version 1
 * @source: one of VFIO_IOMMU_TYPE1V3_DIRTY_*
 * @__reserved: 0
 *
 * VFIO_IOMMU_TYPE1V3_DIRTY_PINNED: every device reaches memory by pinning pages
 * or by copying; those pages are reported.
 *
 * VFIO_IOMMU_TYPE1V3_DIRTY_ALL: a device writes to memory unseen; every mapped
 * page is reported, each time.
 *
 * VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE: the IOMMUs record what the devices write to
 * that do not pin; of a superpage, all pages are reported if one has been
 * written to, and a superpage that an unmap divides is reported once.
 *
 * Groups that come and go change it, and VFIO_IOMMU_DIRTY_PAGES_FLAG_START does
 * if an IOMMU then fails to record: it becomes VFIO_IOMMU_TYPE1V3_DIRTY_ALL.
 */
struct vfio_iommu_type1v3_info_cap_dirty {
	struct vfio_info_cap_header header;
	__u32 source;
#define VFIO_IOMMU_TYPE1V3_DIRTY_PINNED		0
#define VFIO_IOMMU_TYPE1V3_DIRTY_ALL		1
#define VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE	2
	__u32 __reserved;
};

/*
 * VFIO_IOMMU_GET_INFO capability: VFIO_DMA_MAP_GRANULE() is accepted.
 */
#define VFIO_IOMMU_TYPE1V3_INFO_CAP_GRANULE	0x5435

/**
 * struct vfio_iommu_type1v3_info_cap_granule - granules that a map can ask for
 * @header: id VFIO_IOMMU_TYPE1V3_INFO_CAP_GRANULE, version 1
 * @min_order: the smallest, that of the smallest IOMMU page
 * @max_order: the largest
 */
struct vfio_iommu_type1v3_info_cap_granule {
	struct vfio_info_cap_header header;
	__u32 min_order;
	__u32 max_order;
};

#endif /* _UAPI_LINUX_VFIO_TYPE1V3_H */
