/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _SHIM_MM_H
#define _SHIM_MM_H

#include <linux/kernel.h>

#undef PAGE_SHIFT
#define PAGE_SHIFT	12
#define PAGE_SIZE	(1UL << PAGE_SHIFT)
#define TASK_SIZE_MAX	((1UL << 47) - PAGE_SIZE)

#define __uninitialized

#endif
