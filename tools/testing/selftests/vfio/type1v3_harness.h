/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * On top of kselftest_harness.h: every test runs on type1v3 and, as the
 * control, on type1v2.
 */
#ifndef TYPE1V3_HARNESS_H
#define TYPE1V3_HARNESS_H

#include "kselftest_harness.h"
#include "type1v3_lib.h"

/* Variants of a fixture whose only parameter is the backend. */
#define BACKENDS(fixture) \
	FIXTURE_VARIANT(fixture) { unsigned long type; }; \
	FIXTURE_VARIANT_ADD(fixture, type1v2) { .type = VFIO_TYPE1v2_IOMMU }; \
	FIXTURE_VARIANT_ADD(fixture, type1v3) { .type = VFIO_TYPE1v3_IOMMU }

/* The PCI address in an environment variable; without it the test is skipped. */
#define NEED_DEVICE(var, env) do { \
	var = getenv(env); \
	if (!var) \
		SKIP(return, "%s is not set: no such device", env); \
} while (0)

#define NEED_MEM(m, kind, size) do { \
	int _err = mem_alloc(m, kind, size); \
	if (_err == -ENOMEM) \
		SKIP(return, "no memory of kind %d, %zu MiB", kind, \
		     (size_t)(size) / MIB); \
	ASSERT_EQ(0, _err); \
} while (0)

#endif
