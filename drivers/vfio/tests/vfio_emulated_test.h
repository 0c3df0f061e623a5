/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * What user space asks of a device of vfio_emulated_test, on the file
 * descriptor that VFIO_GROUP_GET_DEVICE_FD gives.  Shared by the module and the
 * selftests; not an ABI.
 */
#ifndef VFIO_EMULATED_TEST_H
#define VFIO_EMULATED_TEST_H

#include <linux/types.h>
#include <linux/vfio.h>

/* The devices are platform devices: vfio_emulated.0, vfio_emulated.1, ... */
#define VFIO_EMULATED_TEST_NAME		"vfio_emulated"

/* Pages that one PIN may ask for: twice what VFIO takes at a time, if they are of 16 KiB */
#define VFIO_EMULATED_TEST_MAX_PIN	4096

#define VFIO_EMULATED_TEST_MAX_RW	0x100000

/**
 * struct vfio_emulated_test_pin - argument of PIN and UNPIN
 * @iova: IOVA
 * @npages: pages
 * @prot: IOMMU_READ (1) and IOMMU_WRITE (2); of no meaning to UNPIN
 * @pfns: address of @npages __u64 for the page frame numbers, or 0
 *
 * The ioctl PIN returns what vfio_pin_pages() does.  UNPIN returns 0, pinned or
 * not: the call is handed on as it is.
 */
struct vfio_emulated_test_pin {
	__u64 iova;
	__u32 npages;
	__u32 prot;
	__u64 pfns;
};

#define VFIO_EMULATED_TEST_PIN		_IO(VFIO_TYPE, VFIO_BASE + 100)
#define VFIO_EMULATED_TEST_UNPIN	_IO(VFIO_TYPE, VFIO_BASE + 101)

/**
 * struct vfio_emulated_test_rw - argument of RW and ACCESS
 * @iova: IOVA
 * @data: address of the user's buffer
 * @size: bytes
 * @flags: VFIO_EMULATED_TEST_RW_*
 *
 * RW calls vfio_dma_rw() and returns what that does.  ACCESS reads or writes
 * through the pages that this device has pinned and no others, as a device's
 * own DMA would; -ENOENT if a page is not pinned.
 */
struct vfio_emulated_test_rw {
	__u64 iova;
	__u64 data;
	__u32 size;
	__u32 flags;
#define VFIO_EMULATED_TEST_RW_WRITE	0x1	/* to the IOVA */
#define VFIO_EMULATED_TEST_RW_KTHREAD	0x2	/* from a kernel thread */
};

#define VFIO_EMULATED_TEST_RW		_IO(VFIO_TYPE, VFIO_BASE + 102)
#define VFIO_EMULATED_TEST_ACCESS	_IO(VFIO_TYPE, VFIO_BASE + 103)

/**
 * struct vfio_emulated_test_state - argument of STATE
 * @ignore: how many more notifications of an unmap to do nothing about; ~0 for
 *	all of them
 * @delay_ms: how long to take for each of them
 * @set: not 0 to set @ignore, @delay_ms and @objects, 0 to leave them as they are
 * @objects: not 0: what one PIN pins from now on is an object, which is found by its
 *	first page alone when an unmap is notified, and unpinned as a whole
 * @notified: out: notifications so far
 * @iova: out: range of the last one
 * @size: out: its size in bytes
 * @pinned: out: pins now held, a page pinned twice counting as two
 * @result: out: what the last BACKGROUND returned, -EINPROGRESS until it has
 */
struct vfio_emulated_test_state {
	__u32 ignore;
	__u32 delay_ms;
	__u32 set;
	__u32 objects;
	__u64 notified;
	__u64 iova;
	__u64 size;
	__u64 pinned;
	__s64 result;
};

#define VFIO_EMULATED_TEST_STATE	_IO(VFIO_TYPE, VFIO_BASE + 104)

/* Bytes that TIME reads and writes at most */
#define VFIO_EMULATED_TEST_MAX_TIME	64

/**
 * struct vfio_emulated_test_time - argument of TIME
 * @iova: IOVA of the first page
 * @npages: pages, each of which has a call of its own
 * @step: how many pages further the next one is, modulo @npages; without a
 *	common divisor of the two, so that none is left out
 * @size: bytes that vfio_dma_rw() copies
 * @pin_ns: on return, time of all calls of vfio_pin_pages(), in ns
 * @unpin_ns: of vfio_unpin_pages()
 * @read_ns: of vfio_dma_rw() which reads
 * @write_ns: of vfio_dma_rw() which writes zeroes
 */
struct vfio_emulated_test_time {
	__u64 iova;
	__u32 npages;
	__u32 step;
	__u64 size;
	__u64 pin_ns;
	__u64 unpin_ns;
	__u64 read_ns;
	__u64 write_ns;
};

#define VFIO_EMULATED_TEST_TIME		_IO(VFIO_TYPE, VFIO_BASE + 105)

/**
 * struct vfio_emulated_test_background - argument of BACKGROUND
 * @iova: IOVA
 * @npages: pages
 * @cmd: VFIO_EMULATED_TEST_PIN, to pin them for reading and writing, or _RW, to
 *	read the first of them
 *
 * Has a kernel thread do it that nobody can kill, and does not wait for it; but
 * closing the device does.  There is one at a time: -EBUSY.
 */
struct vfio_emulated_test_background {
	__u64 iova;
	__u32 npages;
	__u32 cmd;
};

#define VFIO_EMULATED_TEST_BACKGROUND	_IO(VFIO_TYPE, VFIO_BASE + 106)

#endif
