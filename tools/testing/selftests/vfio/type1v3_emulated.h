/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The devices of the module vfio_emulated_test, and the calls that are of use
 * with them: dirty tracking and the update of user addresses.
 *
 * As in type1v3_lib.h: int is 0 or a negative errno unless stated otherwise.
 */
#ifndef TYPE1V3_EMULATED_H
#define TYPE1V3_EMULATED_H

#include "type1v3_lib.h"
#include "../../../../drivers/vfio/tests/vfio_emulated_test.h"

#define PIN_READ	1
#define PIN_WRITE	2
#define PIN_RW		(PIN_READ | PIN_WRITE)

#define RW_WRITE	VFIO_EMULATED_TEST_RW_WRITE
#define RW_KTHREAD	VFIO_EMULATED_TEST_RW_KTHREAD

#define IGNORE_ALL	UINT32_MAX

const char *emulated_name(int nr);
int emulated_attach(struct container *c, int nr);
int emulated_open(struct container *c, unsigned long type, int nr);

int emulated_pin(int fd, __u64 iova, __u32 npages, __u32 prot, __u64 *pfns);
int emulated_unpin(int fd, __u64 iova, __u32 npages);
int emulated_rw(int fd, __u64 iova, void *data, size_t size, __u32 flags);
int emulated_access(int fd, __u64 iova, void *data, size_t size, __u32 flags);
int emulated_background(int fd, __u32 cmd, __u64 iova, __u32 npages);
/* A delay that lasts until another is set; it ends so that a test that fails does. */
#define EMULATED_HOLD	900000

int emulated_set(int fd, __u32 ignore, __u32 delay_ms);
int emulated_set_objects(int fd);
struct vfio_emulated_test_state emulated_state(int fd);

int dirty_tracking(struct container *c, __u32 flags);
int dirty_bitmap(struct container *c, __u64 iova, __u64 size, __u64 pgsize,
		 void *bits, __u64 bytes);
__s64 dma_unmap_dirty(struct container *c, __u64 iova, __u64 size,
		      __u64 pgsize, void *bits, __u64 bytes);
__s64 vaddr_invalidate(struct container *c, __u64 iova, __u64 size,
		       __u32 flags);
int vaddr_update(struct container *c, __u64 iova, const void *vaddr,
		 __u64 size);
int info_cap(struct container *c, __u16 id, void *cap, size_t size);

long locked_pages_of(int pid);
void expect_warning(const char *regex);
void allow_warning(const char *regex);
void expect_no_warning(void);

#endif
