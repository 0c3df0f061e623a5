/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _CUT_MM_TYPES_H
#define _CUT_MM_TYPES_H

#include <linux/types.h>

struct page;

struct mm_struct {
	unsigned long locked_vm;
};

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_flags;
};

#endif
