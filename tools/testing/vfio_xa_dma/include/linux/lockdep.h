/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _SHIM_LOCKDEP_H
#define _SHIM_LOCKDEP_H

#include <linux/spinlock.h>

#define lockdep_is_held(lock)	((lock)->locked)
#define lockdep_assert_held(lock)	assert((lock)->locked)

#endif
