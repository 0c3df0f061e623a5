/* SPDX-License-Identifier: GPL-2.0-only */
/* A warning is a failure. */
#ifndef _SHIM_BUG_H
#define _SHIM_BUG_H

#include <stdio.h>
#include <stdlib.h>

#define WARN_ON(cond)							\
	({								\
		if (cond) {						\
			fprintf(stderr, "%s:%d: WARN_ON(%s)\n", __FILE__,	\
				__LINE__, #cond);			\
			abort();					\
		}							\
		0;							\
	})
#define WARN_ON_ONCE(cond)	WARN_ON(cond)
#define WARN_ON_ONCE_GFP(cond, gfp)	WARN_ON(cond)

#endif
