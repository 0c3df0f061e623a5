/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _SHIM_MM_H
#define _SHIM_MM_H

#include <linux/kernel.h>
#include <linux/sizes.h>

#undef PAGE_SHIFT
#ifndef TEST_PAGE_SHIFT
#define TEST_PAGE_SHIFT	12
#endif
#define PAGE_SHIFT	TEST_PAGE_SHIFT
#define PAGE_SIZE	(1UL << PAGE_SHIFT)
#define TASK_SIZE_MAX	((1UL << 47) - PAGE_SIZE)

#define __uninitialized

#endif
