/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _CUT_MINMAX_H
#define _CUT_MINMAX_H

#include_next <linux/minmax.h>

#define MAX(a, b)		((a) > (b) ? (a) : (b))
#define min3(a, b, c)		min(min(a, b), c)
#define min_not_zero(a, b)	((a) && ((a) < (b) || !(b)) ? (a) : (b))

#endif
