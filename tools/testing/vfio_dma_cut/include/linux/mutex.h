/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _CUT_MUTEX_H
#define _CUT_MUTEX_H

#include <linux/lockdep.h>

struct mutex {
	bool locked;
};

/* Of a ledger, which no space here has */
#define mutex_init(lock)		((lock)->locked = false)
#define mutex_destroy(lock)		((void)(lock))
#define mutex_lock(lock)		((lock)->locked = true)
#define mutex_lock_killable(lock)	({ (lock)->locked = true; 0; })
#define mutex_unlock(lock)		((lock)->locked = false)

#endif
