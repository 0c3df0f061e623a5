/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The map/unmap core of VFIO container backends: owner and locked memory,
 * pinning, IOMMU domains.  It does not know where a backend keeps its record
 * of what is mapped.
 */
#ifndef _VFIO_DMA_CORE_H
#define _VFIO_DMA_CORE_H

#include <linux/gfp.h>
#include <linux/iommu.h>
#include <linux/list.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/sizes.h>
#include <linux/slab.h>

struct iova_bitmap;
struct task_struct;

/*
 * How memory is allocated where a failure can be told to user space: charged to
 * the memory cgroup, whose limit is an error then, and not a reason to kill.
 */
#define VFIO_DMA_GFP	(GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/*
 * And where it cannot be told, as in an unmap.  With __GFP_HIGH the memory cgroup is
 * charged beyond its limit, once reclaim has not helped.  __GFP_NOFAIL would have a
 * process of it killed first, so what fails even so is not charged.
 */
#define VFIO_DMA_GFP_OVER_LIMIT	(VFIO_DMA_GFP | __GFP_HIGH)
#define VFIO_DMA_GFP_LAST	(GFP_KERNEL | __GFP_NOFAIL)

static inline void *vfio_dma_kmalloc_nofail(size_t size)
{
	return kmalloc(size, VFIO_DMA_GFP_OVER_LIMIT) ?:
	       kmalloc(size, VFIO_DMA_GFP_LAST);
}

/**
 * struct vfio_dma_owner - the one address space whose memory is mapped
 * @mm: address space (mmgrab()ed), %NULL while nobody owns the mappings
 * @task: its thread group leader, whose RLIMIT_MEMLOCK applies
 * @lock_cap: it had CAP_IPC_LOCK when that was asked last: a hint that it does not
 *	meet the limit
 * @npages: pages charged to @mm's locked_vm
 *
 * @mm and @task change under the backend's mutex, while no mapping exists or is
 * being made, or with all of them by vfio_dma_owner_move(); @lock_cap and @npages
 * change under @mm's mmap_lock held for writing.
 */
struct vfio_dma_owner {
	struct mm_struct *mm;
	struct task_struct *task;
	bool lock_cap;
	unsigned long npages;
};

void vfio_dma_owner_set(struct vfio_dma_owner *owner);
void vfio_dma_owner_clear(struct vfio_dma_owner *owner);
int vfio_dma_owner_move(struct vfio_dma_owner *owner);
int vfio_dma_charge(struct vfio_dma_owner *owner, unsigned long npages);
void vfio_dma_uncharge(struct vfio_dma_owner *owner, unsigned long npages);
void vfio_dma_charge_lost(struct vfio_dma_owner *owner, unsigned long npages,
			  unsigned long charged);

/*
 * An extent does not cross a multiple of this many pages of physical memory, and
 * so no superpage is larger than that.  It bounds what is done between two looks
 * for a fatal signal.
 */
#define VFIO_DMA_EXTENT_MAX	(SZ_1G >> PAGE_SHIFT)

/**
 * struct vfio_dma_extent - physically contiguous memory
 * @pfn: first page frame
 * @npages: length in pages
 * @pfnmap: a VM_PFNMAP mapping (device memory): neither pinned nor charged
 * @mmio: the CPU maps it uncached or write-combining, so it is no memory for the
 *	IOMMU either
 */
struct vfio_dma_extent {
	unsigned long pfn;
	unsigned long npages;
	bool pfnmap;
	bool mmio;
};

/* Pages that a pin holds without allocating memory for their pointers */
#define VFIO_DMA_PIN_INLINE	8

/**
 * struct vfio_dma_pin - state of pinning a range of user memory step by step
 * @mm: whose memory
 * @vaddr: address of the next page to pin
 * @npages: pages left to pin
 * @gup_flags: FOLL_LONGTERM, FOLL_WRITE
 * @pages: pages pinned by the last step
 * @max: room in @pages
 * @size: pages valid in @pages
 * @offset: first page in @pages that is not yet part of @tail
 * @flush_tail: the next page cannot extend @tail
 * @tail: extent that the next page may still extend
 * @inline_pages: @pages of a small request
 *
 * Local to its caller, needs no lock.
 */
struct vfio_dma_pin {
	struct mm_struct *mm;
	unsigned long vaddr;
	unsigned long npages;
	unsigned int gup_flags;
	struct page **pages;
	unsigned int max;
	unsigned int size;
	unsigned int offset;
	bool flush_tail;
	struct vfio_dma_extent tail;
	struct page *inline_pages[VFIO_DMA_PIN_INLINE];
};

void vfio_dma_pin_start(struct vfio_dma_pin *pin, struct mm_struct *mm,
			unsigned long vaddr, unsigned long npages, bool write);
int vfio_dma_pin_step(struct vfio_dma_pin *pin);

/**
 * vfio_dma_pin_held() - pages that are pinned and not taken yet
 * @pin: state
 *
 * Context: Any.
 * Return: their number, device memory not included.
 */
static inline unsigned long vfio_dma_pin_held(const struct vfio_dma_pin *pin)
{
	return (pin->tail.pfnmap ? 0 : pin->tail.npages) + pin->size - pin->offset;
}

bool vfio_dma_pin_extent(struct vfio_dma_pin *pin,
			 struct vfio_dma_extent *extent);
void vfio_dma_pin_finish(struct vfio_dma_pin *pin);
bool vfio_dma_pin_now(unsigned long vaddr, unsigned int npages, bool write,
		      struct page **pages);
bool vfio_dma_pin_present(struct mm_struct *mm, unsigned long vaddr, bool write,
			  struct page **page);

unsigned long vfio_dma_count_pinnable(unsigned long vaddr,
				      unsigned long npages);
void vfio_dma_unpin(unsigned long pfn, unsigned long npages, bool dirty);

/**
 * struct vfio_dma_domain - one IOMMU domain of a space
 * @next: in &vfio_dma_space.domains
 * @domain: the domain
 * @unit_is_call: this IOMMU unmaps only what whole iommu_map() calls made
 * @unsynced: something has been unmapped, or marked clean, since the last IOTLB
 *	synchronisation
 * @tracking: the IOMMU records which pages are written to
 * @gather: what has changed since that synchronisation
 * @lost: blocks that vfio_dma_domain_split() could not map back (struct
 *	vfio_dma_lost)
 */
struct vfio_dma_domain {
	struct list_head next;
	struct iommu_domain *domain;
	bool unit_is_call;
	bool unsynced;
	bool tracking;
	struct iommu_iotlb_gather gather;
	struct list_head lost;
};

/*
 * Pages of a block that one entry of a CPU's page table can map: of such blocks
 * a backend may remember that each was part of one extent.
 */
#define VFIO_DMA_CONTIG		(PMD_SIZE >> PAGE_SHIFT)

/* What vfio_dma_unmap() has to know of the pages */
#define VFIO_DMA_PINNED		BIT(0)
#define VFIO_DMA_DIRTY		BIT(1)
#define VFIO_DMA_IS_CONTIG	BIT(2)

/* Extents that are unmapped between two IOTLB synchronisations */
#define VFIO_DMA_BATCH_EXTENTS	256

/**
 * struct vfio_dma_space - IOMMU domains that hold the same translations
 * @lock: the backend's mutex, which protects every member and every domain
 * @owner: whose memory is mapped; charged for pages that cannot be unpinned
 * @domains: list of struct vfio_dma_domain; the first answers look-ups
 * @pgsize_bitmap: page sizes that all domains have, none below PAGE_SIZE
 * @superpage: the smallest size of a superpage in any domain, 0 if there is none
 * @leaked: an IOMMU driver has failed to unmap pages since that was looked at
 * @nr_batch: extents in @batch
 * @batch: unmapped extents waiting for the IOTLB before they are unpinned; the
 *	top bit of @npages marks pages to be dirtied
 */
struct vfio_dma_space {
	struct mutex *lock;	/* the backend's */
	struct vfio_dma_owner *owner;
	struct list_head domains;
	unsigned long pgsize_bitmap;
	unsigned long superpage;
	bool leaked;
	unsigned int nr_batch;
	struct {
		unsigned long pfn;
		unsigned long npages;
	} *batch;
};

int vfio_dma_space_init(struct vfio_dma_space *space, struct mutex *lock,
			struct vfio_dma_owner *owner);
void vfio_dma_space_destroy(struct vfio_dma_space *space);

void vfio_dma_domain_init(struct vfio_dma_domain *domain,
			  struct iommu_domain *iommu_domain);
void vfio_dma_domain_probe(struct vfio_dma_domain *domain, dma_addr_t iova);
unsigned long vfio_dma_domain_pgsizes(const struct vfio_dma_domain *domain);
void vfio_dma_domain_add(struct vfio_dma_space *space,
			 struct vfio_dma_domain *domain);
void vfio_dma_domain_del(struct vfio_dma_space *space,
			 struct vfio_dma_domain *domain);
int vfio_dma_domain_map(struct vfio_dma_domain *domain, dma_addr_t iova,
			const struct vfio_dma_extent *extent, int prot,
			bool big);
void vfio_dma_domain_unmap(struct vfio_dma_domain *domain, dma_addr_t iova,
			   unsigned long npages);
bool vfio_dma_domain_lookup(struct vfio_dma_domain *domain, dma_addr_t iova,
			    unsigned long npages, bool contig,
			    struct vfio_dma_extent *extent);
bool vfio_dma_domain_linear(struct vfio_dma_domain *domain, dma_addr_t iova,
			    unsigned long npages);
int vfio_dma_domain_split(struct vfio_dma_domain *domain, dma_addr_t iova,
			  unsigned long npages, dma_addr_t first,
			  dma_addr_t end, int prot);

bool vfio_dma_domain_can_track(const struct vfio_dma_domain *domain);
void vfio_dma_domain_track(struct vfio_dma_domain *domain, bool enable);
int vfio_dma_domain_read_dirty(struct vfio_dma_domain *domain, dma_addr_t iova,
			       unsigned long npages, bool clear,
			       struct iova_bitmap *bitmap);
bool vfio_dma_domain_take_dirty(struct vfio_dma_domain *domain, dma_addr_t iova,
				unsigned long npages, dma_addr_t *first,
				dma_addr_t *last);

int vfio_dma_map(struct vfio_dma_space *space, dma_addr_t iova,
		 const struct vfio_dma_extent *extent, int prot, bool big);
int vfio_dma_map_pages(struct vfio_dma_space *space, dma_addr_t iova,
		       struct page **pages, unsigned int npages, int prot,
		       bool big);
unsigned long vfio_dma_unmap(struct vfio_dma_space *space, dma_addr_t iova,
			     unsigned long npages, unsigned int flags);
void vfio_dma_unmap_flush(struct vfio_dma_space *space);
void vfio_dma_forget_lost(struct vfio_dma_space *space);

#endif /* _VFIO_DMA_CORE_H */
