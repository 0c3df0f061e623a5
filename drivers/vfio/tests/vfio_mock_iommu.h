/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * How programs make IOMMUs of vfio_mock_iommu, and the devices behind them.
 * Shared by the module and the selftests; not an ABI.
 */
#ifndef VFIO_MOCK_IOMMU_H
#define VFIO_MOCK_IOMMU_H

#include <linux/types.h>
#include <linux/vfio.h>

/*
 * A file descriptor of /dev/vfio_mock_iommu is one IOMMU, from CREATE until it is
 * closed.  A test that dies leaves none behind.
 */
#define VFIO_MOCK_IOMMU_NAME		"vfio_mock_iommu"

/* The devices are platform devices: vfio_mock.0, vfio_mock.1, ... */
#define VFIO_MOCK_DEVICE_NAME		"vfio_mock"

#define VFIO_MOCK_IOMMU_MAX_DEVICES	4

/* The unit in which reserved regions and apertures are given */
#define VFIO_MOCK_IOMMU_PAGE		4096

/* The smallest page of an IOMMU, which may be smaller than the CPU's */
#define VFIO_MOCK_IOMMU_MIN_PAGE	1024

/**
 * struct vfio_mock_iommu_range - a range of IOVA
 * @first: first address
 * @last: last address
 */
struct vfio_mock_iommu_range {
	__u64 first;
	__u64 last;
};

/**
 * struct vfio_mock_iommu_create - argument of CREATE
 * @pgsizes: bitmap of page sizes, none smaller than VFIO_MOCK_IOMMU_MIN_PAGE
 * @aperture: addresses that it translates
 * @reserved: ranges of them that it does not; none where @last is 0
 * @flags: VFIO_MOCK_IOMMU_*
 * @nr_devices: devices behind it, each in a group of its own
 * @device: out: numbers of their names
 * @tracks: out: the kernel has what dirty bits need (CONFIG_IOMMUFD_DRIVER)
 * @faults: out: the kernel has what page requests need (CONFIG_IOMMU_IOPF)
 *
 * VFIO_MOCK_IOMMU_CALLS: what one call of the driver maps can only be unmapped as a
 * whole, whatever its length, as behind virtio-iommu.
 *
 * VFIO_MOCK_IOMMU_DIRTY: it has a dirty bit for each entry of the IO page table.
 *
 * VFIO_MOCK_IOMMU_DISJOINT: an unmap that does not adjoin the last one synchronises
 * the IOTLB first.
 *
 * VFIO_MOCK_IOMMU_COHERENT: it can make all transactions of its devices coherent.
 *
 * VFIO_MOCK_IOMMU_FAULTS: its devices can ask for pages: see VFIO_MOCK_FAULTS.  EOPNOTSUPP
 * where @faults says no.
 */
struct vfio_mock_iommu_create {
	__u64 pgsizes;
	struct vfio_mock_iommu_range aperture;
	struct vfio_mock_iommu_range reserved[2];
	__u32 flags;
#define VFIO_MOCK_IOMMU_CALLS		0x1
#define VFIO_MOCK_IOMMU_DIRTY		0x2
#define VFIO_MOCK_IOMMU_DISJOINT	0x4
#define VFIO_MOCK_IOMMU_COHERENT	0x8
#define VFIO_MOCK_IOMMU_FAULTS		0x10
#define VFIO_MOCK_IOMMU_FLAGS		0x1f
	__u32 nr_devices;
	__u32 device[VFIO_MOCK_IOMMU_MAX_DEVICES];
	__u32 tracks;
	__u32 faults;
};

#define VFIO_MOCK_IOMMU_CREATE	_IO(VFIO_TYPE, VFIO_BASE + 110)

/**
 * struct vfio_mock_iommu_break - argument of BREAK: the driver is to fail
 * @map_at: the call of map_pages() that does @map, 1 is the next, 0 is none
 * @map: VFIO_MOCK_BREAK_*
 * @unmap_at: the call of unmap_pages() that does @unmap, likewise
 * @unmap: VFIO_MOCK_BREAK_*
 * @track: set_dirty_tracking() fails
 * @read: read_and_clear_dirty() fails, and has read nothing
 *
 * VFIO_MOCK_BREAK_FAIL: the call does nothing, and says so.
 *
 * VFIO_MOCK_BREAK_HALF: the call does one half.  A map then fails; an unmap says how
 * far it came, and the next one does nothing.
 *
 * VFIO_MOCK_BREAK_SHORT: the call does one half, and says so; the next one goes on.
 *
 * VFIO_MOCK_BREAK_FORGET: an unmap is done, and said to have failed.
 *
 * A page table entry has no halves: HALF of one is none, SHORT of one is all of it.
 */
struct vfio_mock_iommu_break {
	__u32 map_at;
	__u32 map;
	__u32 unmap_at;
	__u32 unmap;
#define VFIO_MOCK_BREAK_FAIL		0
#define VFIO_MOCK_BREAK_HALF		1
#define VFIO_MOCK_BREAK_SHORT		2
#define VFIO_MOCK_BREAK_FORGET		3
	__u32 track;
	__u32 read;
};

#define VFIO_MOCK_IOMMU_BREAK	_IO(VFIO_TYPE, VFIO_BASE + 111)

/**
 * struct vfio_mock_iommu_state - argument of STATE: all of it is set
 * @maps: calls of map_pages() that were asked to map something
 * @unmaps: calls of unmap_pages()
 * @syncs: synchronisations of the IOTLB
 * @mapped: bytes mapped, since CREATE
 * @unmapped: bytes unmapped, since CREATE
 * @left: bytes that were mapped when their domain was freed, counted in @unmapped, too
 * @leaves: entries of all its IO page tables now
 * @domains: IO page tables now
 * @tracking: of which those that set dirty bits
 * @errors: what its user did and may not do; each was a warning in the log
 * @map_at: as in BREAK: 0, the call has been made
 * @unmap_at: likewise
 * @__reserved: 0
 */
struct vfio_mock_iommu_state {
	__u64 maps;
	__u64 unmaps;
	__u64 syncs;
	__u64 mapped;
	__u64 unmapped;
	__u64 left;
	__u64 leaves;
	__u32 domains;
	__u32 tracking;
	__u32 errors;
	__u32 map_at;
	__u32 unmap_at;
	__u32 __reserved;
};

#define VFIO_MOCK_IOMMU_STATE	_IO(VFIO_TYPE, VFIO_BASE + 112)

/**
 * define VFIO_MOCK_IOMMU_UNPLUG - a device goes
 *
 * The argument is the number of its name.  Returns when nobody has it open: not even a
 * signal ends the call earlier, so that its caller may not be the one who has.
 */
#define VFIO_MOCK_IOMMU_UNPLUG	_IO(VFIO_TYPE, VFIO_BASE + 113)

/**
 * define VFIO_MOCK_IOMMU_PLUG - a device comes
 *
 * Returns the number of its name.  ENOSPC if there are VFIO_MOCK_IOMMU_MAX_DEVICES.
 */
#define VFIO_MOCK_IOMMU_PLUG	_IO(VFIO_TYPE, VFIO_BASE + 115)

/*
 * What follows is asked of a device, on the file descriptor that
 * VFIO_GROUP_GET_DEVICE_FD gives.
 *
 * pread() and pwrite() of it are DMA of the device from and to the address that they
 * are given as offset.  They return how far they came; if that is nowhere, they fail
 * with ENXIO (there is no translation), EACCES (the translation does not allow it) or
 * EIO (it is not to memory).
 *
 * It can be suspended: VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE knows STOP and RUNNING, and there
 * is no state to save.  While it is suspended, DMA fails with EBUSY.
 *
 * It keeps a record of what it writes to (VFIO_DEVICE_FEATURE_DMA_LOGGING_START) where the
 * kernel has what that needs; see @tracks.
 *
 * mmap() of it maps physical memory from the offset on, for programs that map
 * what is not memory, or address 0.
 */

/**
 * struct vfio_mock_leaf - argument of LEAF: the page table entry of an address
 * @iova: in: an address; out: the first one that the entry translates
 * @size: out: bytes that it translates
 * @phys: out: what @iova translates to
 * @prot: out: VFIO_MOCK_LEAF_*
 * @__reserved: 0
 *
 * ENXIO if there is none.
 */
struct vfio_mock_leaf {
	__u64 iova;
	__u64 size;
	__u64 phys;
	__u32 prot;
#define VFIO_MOCK_LEAF_READ	0x1
#define VFIO_MOCK_LEAF_WRITE	0x2
#define VFIO_MOCK_LEAF_DIRTY	0x4
	__u32 __reserved;
};

#define VFIO_MOCK_LEAF		_IO(VFIO_TYPE, VFIO_BASE + 114)

/**
 * define VFIO_MOCK_FAULTS - a miss of the device waits for an answer
 *
 * Returns a file descriptor.  Each access of the device that has no translation, or one
 * that does not allow it, becomes a page request: read() of the file descriptor takes
 * struct vfio_mock_fault, one for each call, and write() answers it with struct
 * vfio_mock_response.  Meanwhile pread() or pwrite() of the device waits, and can be killed.
 *
 * When the file descriptor is closed, what is not answered is answered INVALID, and misses
 * fail as they do without it.  VFIO_MOCK_FAULTS can then be asked for again; before, it
 * fails with EBUSY, as it does for a device behind iommufd.  EOPNOTSUPP without
 * VFIO_MOCK_IOMMU_FAULTS, ENXIO where the device has no domain.
 *
 * When the device is closed, read() of the file descriptor returns 0.
 */
#define VFIO_MOCK_FAULTS	_IO(VFIO_TYPE, VFIO_BASE + 116)

/**
 * struct vfio_mock_fault - a page request
 * @iova: address of the page, in units of VFIO_MOCK_IOMMU_PAGE
 * @id: number of the request, for the answer
 * @prot: VFIO_MOCK_LEAF_READ or VFIO_MOCK_LEAF_WRITE: what the device wants to do
 */
struct vfio_mock_fault {
	__u64 iova;
	__u32 id;
	__u32 prot;
};

/**
 * struct vfio_mock_response - the answer
 * @id: number of a request that has been read; ENOENT if there is none
 * @code: VFIO_MOCK_RESPONSE_*
 *
 * VFIO_MOCK_RESPONSE_SUCCESS: the access is tried again, and may miss again.
 *
 * VFIO_MOCK_RESPONSE_INVALID, VFIO_MOCK_RESPONSE_FAILURE: it fails.
 */
struct vfio_mock_response {
	__u32 id;
	__u32 code;
#define VFIO_MOCK_RESPONSE_SUCCESS	0
#define VFIO_MOCK_RESPONSE_INVALID	1
#define VFIO_MOCK_RESPONSE_FAILURE	2
};

#endif
