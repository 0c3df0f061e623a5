/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _CUT_SCHED_SIGNAL_H
#define _CUT_SCHED_SIGNAL_H

#include <linux/mm_types.h>
#include <linux/sched.h>

struct task_struct {
	struct mm_struct *mm;
	struct task_struct *group_leader;
	unsigned int flags;
};

extern struct task_struct *current;

bool cut_signal(void);

#define fatal_signal_pending(task)	cut_signal()
#define get_task_struct(task)		({ abort(); (task); })
#define put_task_struct(task)		abort()

#endif
