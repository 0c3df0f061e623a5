/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One thread and no readers: what RCU would free later is freed at once, so
 * that the sanitizer sees a use after it.
 */
#ifndef _SHIM_RCUPDATE_H
#define _SHIM_RCUPDATE_H

#define __rcu

struct rcu_head {
	struct rcu_head *next;
	void (*func)(struct rcu_head *head);
};

#define rcu_read_lock()			do { } while (0)
#define rcu_read_unlock()		do { } while (0)
#define rcu_access_pointer(p)		(p)
#define rcu_dereference(p)		(p)
#define rcu_dereference_raw(p)		(p)
#define rcu_dereference_check(p, c)	(p)
#define rcu_dereference_protected(p, c)	(p)
#define rcu_assign_pointer(p, v)	((p) = (v))
#define RCU_INIT_POINTER(p, v)		((p) = (v))

#define call_rcu(head, func)		func(head)
#define rcu_barrier()			do { } while (0)

#endif
