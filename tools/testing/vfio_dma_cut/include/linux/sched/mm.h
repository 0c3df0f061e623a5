/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _CUT_SCHED_MM_H
#define _CUT_SCHED_MM_H

#include_next <linux/sched/mm.h>

#define mmgrab(mm)		abort()
#define mmdrop(mm)		abort()
#define mmget_not_zero(mm)	({ abort(); false; })
#define mmput_async(mm)		abort()

#endif
