/* SPDX-License-Identifier: GPL-2.0-only */
/* One function only is ever replaced: vfio_xa_dma_may_alloc(). */
#ifndef _SHIM_STATIC_STUB_H
#define _SHIM_STATIC_STUB_H

extern void *shim_static_stub;

#define KUNIT_STATIC_STUB_REDIRECT(func, ...)				\
	do {								\
		typeof(func) *__stub = shim_static_stub;		\
									\
		if (__stub)						\
			return __stub(__VA_ARGS__);			\
	} while (0)

#endif
