/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _CUT_ATOMIC_H
#define _CUT_ATOMIC_H

#include_next <linux/atomic.h>

/* Of a ledger, which no space here has */
#define atomic_long_add(n, v)	((void)(n), (void)(v))

#endif
