/* SPDX-License-Identifier: GPL-2.0-only */
/* A warning is a failure, but where an IOMMU has been told to fail. */
#ifndef _CUT_BUG_H
#define _CUT_BUG_H

#include_next <linux/bug.h>

void cut_warn(const char *file, int line, const char *what);

#define WARN_ONCE(cond, fmt, ...)					\
	({								\
		bool __warn = !!(cond);					\
									\
		if (__warn)						\
			cut_warn(__FILE__, __LINE__, #cond);		\
		__warn;							\
	})

#undef WARN_ON_ONCE
#define WARN_ON_ONCE(cond)	WARN_ONCE(cond, "")

#define pr_err_ratelimited	pr_err

#endif
