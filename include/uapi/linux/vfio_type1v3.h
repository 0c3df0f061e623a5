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

/**
 * define VFIO_TYPE1v3_IOMMU - the number of the backend
 *
 * The argument of VFIO_SET_IOMMU and VFIO_CHECK_EXTENSION.  Kernels of ChromeOS have a
 * backend with the same number that has nothing of what is declared here:
 * %VFIO_IOMMU_TYPE1V3_INFO_CAP_USAGE tells which one it is.  Whether granules and batches
 * as described here can be used, %VFIO_IOMMU_TYPE1V3_INFO_CAP_GRANULE tells.
 */
#define VFIO_TYPE1v3_IOMMU		100001

/**
 * define VFIO_TYPE1v3_PT_IOMMU - the number of the backend without addresses
 *
 * As %VFIO_TYPE1v3_IOMMU, but no user address is recorded: which pages are mapped, the IO
 * page table says.  Metadata takes a fraction of the memory; a call takes about as many
 * instructions where pages are dense, and more where they are far apart.
 *
 * What needs addresses fails with EOPNOTSUPP: a group without an IOMMU (mediated and
 * emulated devices) cannot be added, and VFIO_DMA_UNMAP_FLAG_VADDR and
 * VFIO_DMA_MAP_FLAG_VADDR are refused; VFIO_CHECK_EXTENSION of VFIO_UPDATE_VADDR is 0.
 * When the last group leaves, all is unmapped, as it is with the other.  Everything else
 * is the same.
 */
#define VFIO_TYPE1v3_PT_IOMMU		100002

/**
 * DOC: errno values of a type1v3 container
 *
 * They are those of type1v2 on the newest kernel.  A call that fails has
 * changed nothing, unless stated otherwise below.  VFIO_IOMMU_UNMAP_DMA writes
 * size when it succeeds, and with EINTR and EIO; with any other errno size is as
 * it was, and nothing is unmapped.  The one exception is EFAULT because the argument
 * cannot be written to: then all was done, and size could not be told.
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
 *   is no memory, or a map in a container without an IOMMU has more than 2^20
 *   granules; VFIO_IOMMU_UNMAP_DMA: only with a dirty bitmap, if there is no memory
 *   to read the dirty bits of an IOMMU with
 * - EPERM: VFIO_IOMMU_MAP_DMA: the container's mappings belong to another
 *   process (address space), or it is device memory and the module parameter
 *   disable_device_memory is set; with VFIO_DMA_MAP_FLAG_VADDR: another process
 *   updates, and a page of the container still has its address
 * - EBUSY: VFIO_DMA_UNMAP_FLAG_VADDR in a container with emulated devices; a group
 *   is attached while pages have no address, or while the choice
 *   %VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE is in force and its IOMMU has no dirty bits;
 *   VFIO_IOMMU_DIRTY_PAGES_FLAG_START: tracking is on with another choice
 * - EOPNOTSUPP: VFIO_IOMMU_DIRTY_PAGES_FLAG_START: an IOMMU does not record what
 *   is written to, and it was asked to; %VFIO_TYPE1v3_PT_IOMMU: what needs user addresses
 * - ENOENT: VFIO_DMA_MAP_FLAG_VADDR: nothing is mapped in the range
 * - ENODEV: VFIO_IOMMU_MAP_DMA: the last group left the container during the call
 * - EINTR: a fatal signal; VFIO_IOMMU_UNMAP_DMA may have unmapped a part,
 *   which size tells
 * - EIO: VFIO_IOMMU_UNMAP_DMA: the IOMMU driver failed.  At a cut, all of the superpage at
 *   that end was unmapped, and the call ended; size tells how many bytes were unmapped,
 *   which may be more than was asked for.  Elsewhere, devices may still reach the memory,
 *   which is never freed; its IOVA may be mapped again
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
 * no IOMMU has means the next smaller one, so a granule larger than any IOMMU page is
 * harmless.  EINVAL: @order is above VFIO_DMA_MAP_GRANULE_ORDER_MAX; it is below the
 * min_order of struct vfio_iommu_type1v3_info_cap_granule, that of the smallest IOMMU
 * page; there is a granule together with VFIO_DMA_MAP_FLAG_VADDR or on an unmap.
 */
#define VFIO_DMA_MAP_GRANULE(order)	((1U << 31) | ((__u32)(order) << 25))

/**
 * define VFIO_DMA_MAP_GRANULE_MASK - the bits of the flags that a granule takes
 */
#define VFIO_DMA_MAP_GRANULE_MASK	(0x7fU << 25)

/**
 * VFIO_DMA_MAP_GRANULE_ORDER() - The order of the granule in the flags of a map
 * @flags: flags with a granule in them
 */
#define VFIO_DMA_MAP_GRANULE_ORDER(flags)	(((flags) >> 25) & 0x3f)

/**
 * define VFIO_DMA_MAP_GRANULE_ORDER_MAX - the largest order of a granule
 *
 * It is the same with every IOMMU, and what max_order of
 * struct vfio_iommu_type1v3_info_cap_granule says.
 */
#define VFIO_DMA_MAP_GRANULE_ORDER_MAX	51

/**
 * define VFIO_DMA_MAP_FLAG_SMALL_PAGES - the granule of one CPU page
 *
 * IOMMU pages have the size of the CPU's.  It is EINVAL where the smallest IOMMU page is
 * larger: min_order of struct vfio_iommu_type1v3_info_cap_granule is not 0 there, and
 * VFIO_DMA_MAP_GRANULE(min_order) is the smallest granule.
 */
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
 * little more than one.  An unmap while dirty tracking is on is done, and the dirty bits
 * of its range are lost.
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
 * -ECANCELED are not counted.  Without CONTINUE the number is 0 or 1, but for -EIO:
 * unmaps that continue each other may be one to the IOMMU driver that failed, and then
 * each of them has it.
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

/**
 * define VFIO_IOMMU_TYPE1V3_INFO_CAP_USAGE - capability: what a container holds
 *
 * Id of a capability of VFIO_IOMMU_GET_INFO, a struct
 * vfio_iommu_type1v3_info_cap_usage.  It is there on this backend, since version 0.1, and
 * on no other.
 */
#define VFIO_IOMMU_TYPE1V3_INFO_CAP_USAGE	0x5433

/**
 * struct vfio_iommu_type1v3_info_cap_usage - what a container holds
 * @header: id VFIO_IOMMU_TYPE1V3_INFO_CAP_USAGE, version 2
 * @mapped_pages: pages of IOVA mapped, in units of the CPU's page size
 * @pinned_pages: pages that the container holds pinned, same unit; a page that it holds
 *	at several addresses counts as often
 * @store_bytes: kernel memory the mappings' metadata takes, IO page tables not
 *	included
 * @charged_pages: since version 2: pages charged as locked memory to the owner, the
 *	process that has mapped, for all of its containers together
 * @alone_pages: since version 2: of the pages that those containers hold, the number
 *	charged once for each time they are held, for want of memory
 *
 * The only container of a process is charged for @pinned_pages.  Several containers of
 * one process are charged together, once for each page, however often they hold it;
 * then @charged_pages is less than what they hold.  A page that is held more than 64
 * times is charged again for each further 64.
 */
struct vfio_iommu_type1v3_info_cap_usage {
	struct vfio_info_cap_header header;
	__aligned_u64 mapped_pages;
	__aligned_u64 pinned_pages;
	__aligned_u64 store_bytes;
	__aligned_u64 charged_pages;
	__aligned_u64 alone_pages;
};

/**
 * DOC: choices of VFIO_IOMMU_DIRTY_PAGES
 *
 * VFIO_IOMMU_DIRTY_PAGES_FLAG_START can be joined with one of
 * %VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED and %VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE.
 * Without either, the answer is that of type1, but for what IOMMUs record: see
 * struct vfio_iommu_type1v3_info_cap_dirty.  A choice is in force until
 * VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP, and VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP follows
 * it as well.  START while tracking is on with the same choice changes nothing; with
 * another one it is EBUSY.  STOP forgets all that is dirty, and succeeds also when
 * tracking is off.
 *
 * VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP can be joined with
 * %VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR.  Other combinations are EINVAL.  Without OR, and
 * always for an unmap, the words of the range are overwritten.
 */

/**
 * define VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED - START: pins alone
 *
 * Pages count as dirty that devices have pinned, or written to with the kernel's help.
 * What else devices write to through an IOMMU is not looked for: a program that makes
 * this choice knows it from the devices themselves
 * (VFIO_DEVICE_FEATURE_DMA_LOGGING_START), or has suspended them.
 */
#define VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED	(1U << 16)

/**
 * define VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE - START: pins, and what IOMMUs record
 *
 * EOPNOTSUPP if an IOMMU does not record, or fails to begin: nothing is tracked then.
 * While the choice is in force, a group whose IOMMU does not record is refused with
 * EBUSY when it is to join the container.
 */
#define VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE	(1U << 17)

/**
 * define VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR - GET_BITMAP: bits that are set stay set
 *
 * What other trackers have reported in the bitmap stays.  Nobody else may write to the
 * bitmap during the call.  Bits of pages that are not mapped, and bits behind the end of
 * the range, are left alone.
 */
#define VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR	(1U << 18)

/**
 * define VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY - capability: how dirty pages become known
 *
 * Id of a capability of VFIO_IOMMU_GET_INFO, a struct
 * vfio_iommu_type1v3_info_cap_dirty: where the answer of VFIO_IOMMU_DIRTY_PAGES comes
 * from.  A program can choose to do without dirty tracking where all it would hear is
 * that everything is dirty.
 */
#define VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY	0x5434

/**
 * struct vfio_iommu_type1v3_info_cap_dirty - how dirty pages become known
 * @header: id VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY, version 2
 * @source: one of VFIO_IOMMU_TYPE1V3_DIRTY_PINNED, _ALL and _HARDWARE
 * @flags: since version 2: the flags VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_* that can be used,
 *	whether tracking is on or not: _PINNED and _OR always, _HARDWARE if every IOMMU of
 *	the groups that there are has dirty bits (START can still fail with EOPNOTSUPP if
 *	one fails to begin).  In version 1 it was 0, and no flag was known
 *
 * Groups that come and go change the source, and VFIO_IOMMU_DIRTY_PAGES_FLAG_START does
 * if an IOMMU then fails to record: it becomes %VFIO_IOMMU_TYPE1V3_DIRTY_ALL.  While a
 * choice is in force, that is what @source says.
 */
struct vfio_iommu_type1v3_info_cap_dirty {
	struct vfio_info_cap_header header;
	__u32 source;
	__u32 flags;
};

/**
 * define VFIO_IOMMU_TYPE1V3_DIRTY_PINNED - source: pages that devices pin
 *
 * Every device reaches memory by pinning pages or by copying.  Those pages are
 * reported.
 */
#define VFIO_IOMMU_TYPE1V3_DIRTY_PINNED		0

/**
 * define VFIO_IOMMU_TYPE1V3_DIRTY_ALL - source: none
 *
 * A device writes to memory unseen.  Every mapped page is reported, each time.
 */
#define VFIO_IOMMU_TYPE1V3_DIRTY_ALL		1

/**
 * define VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE - source: the IOMMUs
 *
 * The IOMMUs record what the devices write to that do not pin.  If a part of a
 * superpage was written to, all of its pages are reported.  A superpage that an unmap
 * divides is reported once.
 */
#define VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE	2

/**
 * define VFIO_IOMMU_TYPE1V3_INFO_CAP_GRANULE - capability: granules
 *
 * Id of a capability of VFIO_IOMMU_GET_INFO, a struct
 * vfio_iommu_type1v3_info_cap_granule: VFIO_DMA_MAP_GRANULE() is accepted, and
 * VFIO_IOMMU_TYPE1V3_BATCH as it is described here (since version 0.2).
 */
#define VFIO_IOMMU_TYPE1V3_INFO_CAP_GRANULE	0x5435

/**
 * struct vfio_iommu_type1v3_info_cap_granule - granules that a map can ask for
 * @header: id VFIO_IOMMU_TYPE1V3_INFO_CAP_GRANULE, version 1
 * @min_order: the smallest, that of the smallest IOMMU page
 * @max_order: the largest, VFIO_DMA_MAP_GRANULE_ORDER_MAX
 */
struct vfio_iommu_type1v3_info_cap_granule {
	struct vfio_info_cap_header header;
	__u32 min_order;
	__u32 max_order;
};

#endif /* _UAPI_LINUX_VFIO_TYPE1V3_H */
