/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _CUT_MUTEX_H
#define _CUT_MUTEX_H

#include <linux/lockdep.h>

struct mutex {
	bool locked;
};

#endif
