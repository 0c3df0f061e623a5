/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What vfio_dma_pin.c and its like need of memory management.  Unpinning is counted by the
 * model; pinning and accounting are not tried, and only have to compile.
 */
#ifndef _CUT_MM_H
#define _CUT_MM_H

#include_next <linux/mm.h>
#include <linux/align.h>
#include <linux/bug.h>
#include <linux/minmax.h>
#include <linux/mm_types.h>
#include <linux/slab.h>

#undef PAGE_MASK
#define PAGE_MASK		(~(PAGE_SIZE - 1))
#define PMD_SIZE		(PAGE_SIZE << 9)
#define PFN_PHYS(pfn)		((phys_addr_t)(pfn) << PAGE_SHIFT)
#define PHYS_PFN(phys)		((unsigned long)((phys) >> PAGE_SHIFT))
#define pfn_to_page(pfn)	((struct page *)(((pfn) + 1UL) << PAGE_SHIFT))
#define page_to_pfn(page)	(((unsigned long)(page) >> PAGE_SHIFT) - 1)
#define page_to_phys(page)	PFN_PHYS(page_to_pfn(page))
#define pfn_valid(pfn)		((pfn) > 0)
#define PageReserved(page)	((page) == NULL)

void cut_unpin(unsigned long pfn, unsigned long npages);

static inline void unpin_user_page_range_dirty_lock(struct page *page,
						    unsigned long npages, bool dirty)
{
	cut_unpin(page_to_pfn(page), npages);
}

static inline void unpin_user_pages(struct page **pages, unsigned long npages)
{
	while (npages--)
		cut_unpin(page_to_pfn(*pages++), 1);
}

#define unpin_user_page(page)	cut_unpin(page_to_pfn(page), 1)
#define page_folio(page)	(page)
#define folio_test_dirty(folio)	(page_to_pfn(folio) & 1)
#define unpin_user_pages_dirty_lock(pages, npages, dirty) \
	unpin_user_pages(pages, npages)

/* From here on nothing is ever called. */

#define FOLL_WRITE		1
#define FOLL_LONGTERM		2
#define FOLL_NOFAULT		4
#define FAULT_FLAG_REMOTE	1
#define FAULT_FLAG_WRITE	2
#define VM_PFNMAP		1

typedef struct { unsigned long pgprot; } pgprot_t;

#define pgprot_val(prot)		((prot).pgprot)
#define pgprot_noncached(prot)		((pgprot_t) { pgprot_val(prot) | 1 })
#define pgprot_writecombine(prot)	((pgprot_t) { pgprot_val(prot) | 2 })
#define pgprot_device(prot)		((pgprot_t) { pgprot_val(prot) | 4 })

struct follow_pfnmap_args {
	struct vm_area_struct *vma;
	unsigned long address;
	unsigned long pfn;
	unsigned long addr_mask;
	bool writable;
	pgprot_t pgprot;
};

#define follow_pfnmap_start(args)	({ (void)(args); abort(); 0; })
#define follow_pfnmap_end(args)		abort()
#define fixup_user_fault(mm, addr, flags, unlocked) \
	({ (void)(flags); *(unlocked) = false; abort(); 0; })
#define vma_lookup(mm, addr)		((void)(mm), (struct vm_area_struct *)NULL)
#define find_vma(mm, addr)		((void)(mm), (struct vm_area_struct *)NULL)
#define pin_user_pages_fast(addr, n, flags, pages)	({ (void)(flags); abort(); 0; })
#define pin_user_pages_remote(mm, addr, n, flags, pages, locked) \
	({ (void)(flags); (void)(locked); abort(); 0; })
#define get_user_pages_fast(addr, n, flags, pages)	({ (void)(flags); abort(); 0; })
#define get_user_pages_remote(mm, addr, n, flags, pages, locked) \
	({ (void)(flags); (void)(locked); abort(); 0; })
#define put_page(page)			((void)(page))
#define mmap_read_lock(mm)		({ (void)(mm); abort(); })
#define mmap_read_lock_killable(mm)	({ (void)(mm); abort(); 0; })
#define mmap_read_unlock(mm)		({ (void)(mm); abort(); })
#define mmap_write_lock(mm)		({ (void)(mm); abort(); })
#define mmap_write_lock_killable(mm)	({ (void)(mm); abort(); 0; })
#define mmap_write_unlock(mm)		({ (void)(mm); abort(); })
#define __account_locked_vm(mm, n, inc, task, bypass)	({ (void)(task); abort(); 0; })
#define get_order(size)			({ (void)(size); 0; })
#define alloc_pages(gfp, order)		({ (void)(order); abort(); (struct page *)NULL; })
#define __free_pages(page, order)	abort()
#define __get_free_page(gfp)		({ abort(); 0UL; })
#define free_page(addr)			abort()

#endif
