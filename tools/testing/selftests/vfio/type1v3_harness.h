/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * On top of kselftest_harness.h: every test runs on both records of type1v3 and, as the
 * control, on type1v2.
 */
#ifndef TYPE1V3_HARNESS_H
#define TYPE1V3_HARNESS_H

#include "kselftest_harness.h"
#include "type1v3_lib.h"

/* Seconds: for a test that hangs, not for one that is slow on a debug kernel */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	3600

/*
 * The variants of a fixture that differ in what VFIO_SET_IOMMU is given; and those of a
 * fixture whose variants have more members behind that. V3 is for what type1v2 does not
 * have, or cannot be asked.
 */
#define ADD_V3_TYPES(fixture) \
	FIXTURE_VARIANT_ADD(fixture, type1v3) { VFIO_TYPE1v3_IOMMU }; \
	FIXTURE_VARIANT_ADD(fixture, type1v3_pt) { VFIO_TYPE1v3_PT_IOMMU }

#define ADD_TYPES(fixture) \
	FIXTURE_VARIANT_ADD(fixture, type1v2) { VFIO_TYPE1v2_IOMMU }; \
	ADD_V3_TYPES(fixture)

#define ADD_V3_KIND(fixture, kind, ...) \
	FIXTURE_VARIANT_ADD(fixture, type1v3_##kind) { VFIO_TYPE1v3_IOMMU, __VA_ARGS__ }; \
	FIXTURE_VARIANT_ADD(fixture, type1v3_pt_##kind) { VFIO_TYPE1v3_PT_IOMMU, __VA_ARGS__ }

#define ADD_KIND(fixture, kind, ...) \
	FIXTURE_VARIANT_ADD(fixture, type1v2_##kind) { VFIO_TYPE1v2_IOMMU, __VA_ARGS__ }; \
	ADD_V3_KIND(fixture, kind, __VA_ARGS__)

/*
 * The PCI address in an environment variable; NULL, and the test skipped,
 * without it.
 */
static inline char *need_device(struct __test_metadata *_metadata,
				const char *env)
{
	char *bdf = getenv(env);

	if (!bdf)
		SKIP(return NULL, "%s is not set: no such device", env);
	return bdf;
}

/* Memory of a kind; false, and the test skipped, where there is none. */
static inline bool need_mem(struct __test_metadata *_metadata, struct mem *m,
			    enum mem_kind kind, size_t size)
{
	int err = mem_alloc(m, kind, size);

	if (err == -ENOMEM)
		SKIP(return false, "no memory of kind %d, %zu MiB", kind,
		     size / MIB);
	EXPECT_EQ(0, err);
	return !err;
}

#endif
