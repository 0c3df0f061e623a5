/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints of type1v3 containers.  Each event says which container it is of,
 * by the number that is the name of its directory in debugfs.  Sizes and
 * addresses are in bytes, ret is 0 (for a pin, the number of pages) or a
 * negative errno.  An event comes when the outcome is known, and as long as the
 * container's mutex is held: the order is that in which things took effect.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vfio_type1v3

#if !defined(_VFIO_TYPE1V3_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _VFIO_TYPE1V3_TRACE_H

#include <linux/iommu.h>
#include <linux/tracepoint.h>
#include <linux/vfio.h>
#include <uapi/linux/vfio_type1v3.h>

#define type1v3_show_map_flags(flags)					\
	__print_flags(flags, "|",					\
		      { VFIO_DMA_MAP_FLAG_READ, "READ" },		\
		      { VFIO_DMA_MAP_FLAG_WRITE, "WRITE" },		\
		      { VFIO_DMA_MAP_FLAG_VADDR, "VADDR" },		\
		      { VFIO_DMA_MAP_GRANULE(0), "GRANULE" })

/* An unmap in a batch has a flag of its own; a malformed one can have any. */
#define type1v3_show_unmap_flags(flags)					\
	__print_flags(flags, "|",					\
		      { VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP, "ENTRY" },	\
		      { VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP, "DIRTY_BITMAP" }, \
		      { VFIO_DMA_UNMAP_FLAG_ALL, "ALL" },		\
		      { VFIO_DMA_UNMAP_FLAG_VADDR, "VADDR" })

#define type1v3_show_batch_flags(flags)					\
	__print_flags(flags, "|",					\
		      { VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE, "CONTINUE" })

#define type1v3_show_dirty_flags(flags)					\
	__print_flags(flags, "|",					\
		      { VFIO_IOMMU_DIRTY_PAGES_FLAG_START, "START" },	\
		      { VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP, "STOP" },	\
		      { VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP, "GET_BITMAP" },	\
		      { VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED, "PINNED" },	\
		      { VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE, "HARDWARE" },	\
		      { VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR, "OR" })

#define type1v3_show_prot(prot)						\
	__print_flags(prot, "|",					\
		      { IOMMU_READ, "READ" },				\
		      { IOMMU_WRITE, "WRITE" })

/* VFIO_IOMMU_MAP_DMA, or an entry of a batch */
TRACE_EVENT(type1v3_map,
	    TP_PROTO(u32 id, u64 iova, u64 size, u64 vaddr, u32 flags, int ret),
	    TP_ARGS(id, iova, size, vaddr, flags, ret),
	    TP_STRUCT__entry(__field(u64, iova)
			     __field(u64, size)
			     __field(u64, vaddr)
			     __field(u32, id)
			     __field(u32, flags)
			     __field(int, ret)),
	    TP_fast_assign(__entry->iova = iova;
			   __entry->size = size;
			   __entry->vaddr = vaddr;
			   __entry->id = id;
			   __entry->flags = flags;
			   __entry->ret = ret;),
	    TP_printk("id=%u iova=0x%llx size=0x%llx vaddr=0x%llx flags=%s ret=%d",
		      __entry->id, __entry->iova, __entry->size, __entry->vaddr,
		      type1v3_show_map_flags(__entry->flags), __entry->ret)
);

/* VFIO_IOMMU_UNMAP_DMA, or an entry of a batch: what was asked, and what went */
TRACE_EVENT(type1v3_unmap,
	    TP_PROTO(u32 id, u64 iova, u64 size, u64 unmapped, u32 flags, int ret),
	    TP_ARGS(id, iova, size, unmapped, flags, ret),
	    TP_STRUCT__entry(__field(u64, iova)
			     __field(u64, size)
			     __field(u64, unmapped)
			     __field(u32, id)
			     __field(u32, flags)
			     __field(int, ret)),
	    TP_fast_assign(__entry->iova = iova;
			   __entry->size = size;
			   __entry->unmapped = unmapped;
			   __entry->id = id;
			   __entry->flags = flags;
			   __entry->ret = ret;),
	    TP_printk("id=%u iova=0x%llx size=0x%llx unmapped=0x%llx flags=%s ret=%d",
		      __entry->id, __entry->iova, __entry->size, __entry->unmapped,
		      type1v3_show_unmap_flags(__entry->flags), __entry->ret)
);

/* VFIO_IOMMU_TYPE1V3_BATCH, after an event for each entry: how many have failed */
TRACE_EVENT(type1v3_batch,
	    TP_PROTO(u32 id, u32 entries, u32 flags, u32 failed),
	    TP_ARGS(id, entries, flags, failed),
	    TP_STRUCT__entry(__field(u32, id)
			     __field(u32, entries)
			     __field(u32, flags)
			     __field(u32, failed)),
	    TP_fast_assign(__entry->id = id;
			   __entry->entries = entries;
			   __entry->flags = flags;
			   __entry->failed = failed;),
	    TP_printk("id=%u entries=%u flags=%s failed=%u",
		      __entry->id, __entry->entries,
		      type1v3_show_batch_flags(__entry->flags), __entry->failed)
);

/* VFIO_IOMMU_DIRTY_PAGES; iova and size are those of a bitmap */
TRACE_EVENT(type1v3_dirty,
	    TP_PROTO(u32 id, u32 flags, u64 iova, u64 size, int ret),
	    TP_ARGS(id, flags, iova, size, ret),
	    TP_STRUCT__entry(__field(u64, iova)
			     __field(u64, size)
			     __field(u32, id)
			     __field(u32, flags)
			     __field(int, ret)),
	    TP_fast_assign(__entry->iova = iova;
			   __entry->size = size;
			   __entry->id = id;
			   __entry->flags = flags;
			   __entry->ret = ret;),
	    TP_printk("id=%u flags=%s iova=0x%llx size=0x%llx ret=%d", __entry->id,
		      type1v3_show_dirty_flags(__entry->flags), __entry->iova,
		      __entry->size, __entry->ret)
);

/* The driver of an emulated device has pinned pages */
TRACE_EVENT(type1v3_pin,
	    TP_PROTO(u32 id, u64 iova, int npages, int prot, int ret),
	    TP_ARGS(id, iova, npages, prot, ret),
	    TP_STRUCT__entry(__field(u64, iova)
			     __field(u32, id)
			     __field(int, npages)
			     __field(int, prot)
			     __field(int, ret)),
	    TP_fast_assign(__entry->iova = iova;
			   __entry->id = id;
			   __entry->npages = npages;
			   __entry->prot = prot;
			   __entry->ret = ret;),
	    TP_printk("id=%u iova=0x%llx npages=%d prot=%s ret=%d", __entry->id,
		      __entry->iova, __entry->npages,
		      type1v3_show_prot(__entry->prot), __entry->ret)
);

TRACE_EVENT(type1v3_unpin,
	    TP_PROTO(u32 id, u64 iova, int npages),
	    TP_ARGS(id, iova, npages),
	    TP_STRUCT__entry(__field(u64, iova)
			     __field(u32, id)
			     __field(int, npages)),
	    TP_fast_assign(__entry->iova = iova;
			   __entry->id = id;
			   __entry->npages = npages;),
	    TP_printk("id=%u iova=0x%llx npages=%d", __entry->id, __entry->iova,
		      __entry->npages)
);

/* Process IDs, 0 is nobody; pinned is what changes hands, in pages */
TRACE_EVENT(type1v3_owner,
	    TP_PROTO(u32 id, pid_t from, pid_t to, unsigned long pinned),
	    TP_ARGS(id, from, to, pinned),
	    TP_STRUCT__entry(__field(u32, id)
			     __field(pid_t, from)
			     __field(pid_t, to)
			     __field(unsigned long, pinned)),
	    TP_fast_assign(__entry->id = id;
			   __entry->from = from;
			   __entry->to = to;
			   __entry->pinned = pinned;),
	    TP_printk("id=%u from=%d to=%d pinned=%lu", __entry->id, __entry->from,
		      __entry->to, __entry->pinned)
);

/*
 * A container is entered in the ledger of its owner: pages that it holds, those of them
 * that other holds are charged for, and pages that any container holds outside of it
 */
TRACE_EVENT(type1v3_ledger,
	    TP_PROTO(u32 id, unsigned long held, unsigned long known, long alone),
	    TP_ARGS(id, held, known, alone),
	    TP_STRUCT__entry(__field(u32, id)
			     __field(unsigned long, held)
			     __field(unsigned long, known)
			     __field(long, alone)),
	    TP_fast_assign(__entry->id = id;
			   __entry->held = held;
			   __entry->known = known;
			   __entry->alone = alone;),
	    TP_printk("id=%u held=%lu known=%lu alone=%ld", __entry->id, __entry->held,
		      __entry->known, __entry->alone)
);

DECLARE_EVENT_CLASS(type1v3_group,
		    TP_PROTO(u32 id, struct iommu_group *group, int ret),
		    TP_ARGS(id, group, ret),
		    TP_STRUCT__entry(__field(u32, id)
				     __field(int, group)
				     __field(int, ret)),
		    TP_fast_assign(__entry->id = id;
				   __entry->group = iommu_group_id(group);
				   __entry->ret = ret;),
		    TP_printk("id=%u group=%d ret=%d", __entry->id, __entry->group,
			      __entry->ret)
);

DEFINE_EVENT(type1v3_group, type1v3_attach,
	     TP_PROTO(u32 id, struct iommu_group *group, int ret),
	     TP_ARGS(id, group, ret)
);

DEFINE_EVENT(type1v3_group, type1v3_detach,
	     TP_PROTO(u32 id, struct iommu_group *group, int ret),
	     TP_ARGS(id, group, ret)
);

/* Any call that fails, also one that has no event of its own */
TRACE_EVENT(type1v3_error,
	    TP_PROTO(u32 id, const char *call, int ret),
	    TP_ARGS(id, call, ret),
	    TP_STRUCT__entry(__field(u32, id)
			     __field(int, ret)
			     __string(call, call)),
	    TP_fast_assign(__entry->id = id;
			   __entry->ret = ret;
			   __assign_str(call);),
	    TP_printk("id=%u call=%s ret=%d", __entry->id, __get_str(call),
		      __entry->ret)
);

#endif /* _VFIO_TYPE1V3_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE vfio_type1v3_trace
#include <trace/define_trace.h>
