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
 *   is no memory; not returned by VFIO_IOMMU_UNMAP_DMA, unless the dirty bits of
 *   an IOMMU are to be read
 * - EPERM: VFIO_IOMMU_MAP_DMA: the container's mappings belong to another
 *   process (address space)
 * - EBUSY: VFIO_DMA_UNMAP_FLAG_VADDR in a container with emulated devices
 * - ENOENT: VFIO_DMA_MAP_FLAG_VADDR: nothing is mapped in the range
 * - ENODEV: VFIO_IOMMU_MAP_DMA: the last group left the container meanwhile; an
 *   atomic batch: the last one behind an IOMMU left, and another came
 * - EINTR: a fatal signal; VFIO_IOMMU_UNMAP_DMA may have unmapped a part,
 *   which size tells
 * - EIO: VFIO_IOMMU_UNMAP_DMA: the IOMMU driver failed; size tells what is no
 *   longer mapped, which may be more than what was asked for
 * - ENOTTY: the ioctl is not known
 */

/*
 * VFIO_IOMMU_MAP_DMA: never use an IOMMU page larger than the smallest one for
 * this range.  Unmapping a part of a larger page takes its translation away
 * for a moment; a range of which parts are to be unmapped while a device uses
 * the rest is mapped with this flag.
 */
#define VFIO_DMA_MAP_FLAG_SMALL_PAGES	(1U << 31)

/**
 * VFIO_IOMMU_TYPE1V3_BATCH - _IO(VFIO_TYPE, VFIO_BASE + 50)
 *
 * Map and unmap many ranges in one call.  The entries are done in the order in
 * which they stand.  Neighbouring entries of the same kind are charged together,
 * and unmapped with one synchronisation of the IOTLB; those that also continue
 * each other, in IOVA and for maps in user memory, cost little more than one.
 *
 * First the arguments of all entries are checked; if any is wrong, none is done.
 * Then, without a flag, the first entry that fails ends the batch.  With
 * VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE the others are done nevertheless.  With
 * VFIO_IOMMU_TYPE1V3_BATCH_FLAG_ATOMIC, which wants all entries to be maps or all
 * to be unmaps, a failure takes back what has been mapped; nobody but a device can
 * have seen it.  The two flags exclude each other.
 *
 * Maps that follow each other reserve their ranges first, each in turn, and then
 * look at their memory, each in turn.  So a range that an earlier one of them has
 * asked for is taken, also if that one fails later.  Whether it satisfies a later
 * one with VFIO_IOMMU_TYPE1V3_ENTRY_IF_ABSENT is not defined.  What satisfies such
 * an entry is not kept from other threads, which may unmap it meanwhile.
 *
 * Return: 0 if all entries succeeded, otherwise -1 and errno is that of the first
 * entry, as they stand, that failed.  Each entry's result is 0 or a negative errno;
 * -ECANCELED if it was not tried or was taken back.  An unmap's size becomes the
 * bytes unmapped.
 * Errors of the call itself, which leave the entries alone: EINVAL (argsz, flags,
 * reserved field, number of entries), EFAULT, ENOMEM, EINTR.  EFAULT when the
 * results cannot be written comes after the fact.
 */
#define VFIO_IOMMU_TYPE1V3_BATCH	_IO(VFIO_TYPE, VFIO_BASE + 50)

/* Entries in a batch */
#define VFIO_IOMMU_TYPE1V3_BATCH_MAX	1024

/**
 * struct vfio_iommu_type1v3_batch_entry - one map or unmap
 * @iova: as in &struct vfio_iommu_type1_dma_map or _unmap
 * @size: bytes; of an unmap, on return the bytes that were unmapped
 * @vaddr: user memory; 0 for an unmap
 * @flags: VFIO_DMA_MAP_FLAG_READ, _WRITE and _SMALL_PAGES for a map,
 *	with VFIO_IOMMU_TYPE1V3_ENTRY_IF_ABSENT it is success if the range is
 *	mapped to this memory with this access already, and its user addresses
 *	are valid (VFIO_DMA_UNMAP_FLAG_VADDR);
 *	VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP alone for an unmap
 * @result: set on return, 0 or a negative errno
 */
struct vfio_iommu_type1v3_batch_entry {
	__aligned_u64 iova;
	__aligned_u64 size;
	__aligned_u64 vaddr;
	__u32 flags;
#define VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP		(1U << 16)
#define VFIO_IOMMU_TYPE1V3_ENTRY_IF_ABSENT	(1U << 17)
	__s32 result;
};

/**
 * struct vfio_iommu_type1v3_batch - argument of VFIO_IOMMU_TYPE1V3_BATCH
 * @argsz: size of this structure
 * @flags: VFIO_IOMMU_TYPE1V3_BATCH_FLAG_*
 * @nr_entries: 1 to VFIO_IOMMU_TYPE1V3_BATCH_MAX
 * @__reserved: 0
 * @entries: address of an array of struct vfio_iommu_type1v3_batch_entry
 */
struct vfio_iommu_type1v3_batch {
	__u32 argsz;
	__u32 flags;
#define VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE	(1U << 0)
#define VFIO_IOMMU_TYPE1V3_BATCH_FLAG_ATOMIC	(1U << 1)
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

#endif /* _UAPI_LINUX_VFIO_TYPE1V3_H */
