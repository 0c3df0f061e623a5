/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * IOMMUs of the module vfio_mock_iommu, and the devices behind them.
 *
 * As in type1v3_lib.h: int is 0 or a negative errno unless stated otherwise.
 */
#ifndef TYPE1V3_MOCK_H
#define TYPE1V3_MOCK_H

#include "type1v3_lib.h"
#include "../../../../drivers/vfio/tests/vfio_mock_iommu.h"

struct mock {
	int fd;
	bool tracks;		/* the kernel has what dirty bits need */
	char name[VFIO_MOCK_IOMMU_MAX_DEVICES][24];
};

/* What several tests are to meet. The first page size is one of the CPU's. */
struct mock_kind {
	const char *name;
	__u64 pgsizes;
	__u32 flags;
};

#define NR_MOCK_KINDS	10
extern const struct mock_kind mock_kinds[NR_MOCK_KINDS];

void mock_init(struct mock *m);
int mock_create(struct mock *m, const struct vfio_mock_iommu_create *config);
void mock_destroy(struct mock *m);
int mock_break(struct mock *m, const struct vfio_mock_iommu_break *how);
struct vfio_mock_iommu_state mock_state(struct mock *m);
int mock_unplug(struct mock *m, int nr);
int mock_plug(struct mock *m, int nr);
bool mock_allow_unsafe(bool allow);
int mock_read(int dev, __u64 iova, void *data, size_t size);
int mock_write(int dev, __u64 iova, const void *data, size_t size);
struct vfio_mock_leaf mock_leaf(int dev, __u64 iova);
int mock_faults(int dev);
int mock_fault(int fd, struct vfio_mock_fault *fault);
int mock_answer(int fd, __u32 id, __u32 code);

#endif
