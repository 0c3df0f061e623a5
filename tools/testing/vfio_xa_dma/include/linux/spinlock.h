/* SPDX-License-Identifier: GPL-2.0-only */
/* One thread: a lock is only checked for being taken and released in turn. */
#ifndef _SHIM_SPINLOCK_H
#define _SHIM_SPINLOCK_H

#include <assert.h>
#include <stdbool.h>

typedef struct {
	bool locked;
} spinlock_t;

static inline void spin_lock_init(spinlock_t *lock)
{
	lock->locked = false;
}

static inline void spin_lock(spinlock_t *lock)
{
	assert(!lock->locked);
	lock->locked = true;
}

static inline void spin_unlock(spinlock_t *lock)
{
	assert(lock->locked);
	lock->locked = false;
}

#define __SPIN_LOCK_UNLOCKED(name)		{ false }
#define spin_lock_bh(lock)			spin_lock(lock)
#define spin_unlock_bh(lock)			spin_unlock(lock)
#define spin_lock_irq(lock)			spin_lock(lock)
#define spin_unlock_irq(lock)			spin_unlock(lock)
#define spin_lock_nested(lock, class)		spin_lock(lock)
#define spin_lock_bh_nested(lock, class)	spin_lock(lock)
#define spin_lock_irq_nested(lock, class)	spin_lock(lock)
#define spin_lock_irqsave(lock, flags)		\
	do { (flags) = 0; spin_lock(lock); } while (0)
#define spin_lock_irqsave_nested(lock, flags, class)	spin_lock_irqsave(lock, flags)
#define spin_unlock_irqrestore(lock, flags)	\
	do { (void)(flags); spin_unlock(lock); } while (0)

#endif
