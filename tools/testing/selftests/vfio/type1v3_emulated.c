// SPDX-License-Identifier: GPL-2.0-only
/*
 * Emulated devices, dirty tracking and user addresses for the type1v3 selftests.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "type1v3_emulated.h"

/**
 * emulated_name() - Name of an emulated device, as the library's bdf
 * @nr: number of the device
 */
const char *emulated_name(int nr)
{
	static const char * const names[] = {
		VFIO_EMULATED_TEST_NAME ".0",
		VFIO_EMULATED_TEST_NAME ".1",
		VFIO_EMULATED_TEST_NAME ".2",
	};

	return names[nr];
}

/**
 * emulated_attach() - Put the group of an emulated device into a container
 * @c: container; container_detach() and container_device() work as with others
 * @nr: number of the device
 *
 * Return: 0 or a negative errno; -ENODEV if there is no such device.
 */
int emulated_attach(struct container *c, int nr)
{
	char path[PATH_MAX], link[PATH_MAX];
	int fd, ret = 0;
	ssize_t len;

	snprintf(path, sizeof(path), "/sys/bus/platform/devices/%s/iommu_group",
		 emulated_name(nr));
	len = readlink(path, link, sizeof(link) - 1);
	if (len < 0)
		return -ENODEV;
	link[len] = '\0';
	if (c->ngroups == MAX_GROUPS)
		return -E2BIG;

	snprintf(path, sizeof(path), "/dev/vfio%s", strrchr(link, '/'));
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, VFIO_GROUP_SET_CONTAINER, &c->fd)) {
		ret = -errno;
		close(fd);
		return ret;
	}
	c->group[c->ngroups].fd = fd;
	snprintf(c->group[c->ngroups].bdf, sizeof(c->group[0].bdf), "%s",
		 emulated_name(nr));
	c->ngroups++;
	return 0;
}

/**
 * emulated_open() - Open a container whose only group is an emulated device's
 * @c: container, to be closed with container_close() even after an error
 * @type: what VFIO_SET_IOMMU is given
 * @nr: number of the device
 *
 * Return: file descriptor of the VFIO device, or a negative errno.
 */
int emulated_open(struct container *c, unsigned long type, int nr)
{
	int ret = container_open(c, 0, NULL);

	if (!ret)
		ret = emulated_attach(c, nr);
	if (!ret && ioctl(c->fd, VFIO_SET_IOMMU, type))
		ret = -errno;
	return ret ?: container_device(c, emulated_name(nr));
}

/**
 * emulated_pin() - vfio_pin_pages()
 * @fd: device
 * @iova: IOVA
 * @npages: pages
 * @prot: PIN_*
 * @pfns: where the page frame numbers go, or NULL
 *
 * Return: pages pinned or a negative errno.
 */
int emulated_pin(int fd, __u64 iova, __u32 npages, __u32 prot, __u64 *pfns)
{
	struct vfio_emulated_test_pin pin = {
		.iova = iova,
		.npages = npages,
		.prot = prot,
		.pfns = (uintptr_t)pfns,
	};
	int ret = ioctl(fd, VFIO_EMULATED_TEST_PIN, &pin);

	return ret < 0 ? -errno : ret;
}

/**
 * emulated_unpin() - vfio_unpin_pages()
 * @fd: device
 * @iova: IOVA
 * @npages: pages
 */
int emulated_unpin(int fd, __u64 iova, __u32 npages)
{
	struct vfio_emulated_test_pin pin = { .iova = iova, .npages = npages };

	return ioctl(fd, VFIO_EMULATED_TEST_UNPIN, &pin) ? -errno : 0;
}

static int rw(int fd, unsigned long cmd, __u64 iova, void *data, size_t size,
	      __u32 flags)
{
	struct vfio_emulated_test_rw rw = {
		.iova = iova,
		.data = (uintptr_t)data,
		.size = size,
		.flags = flags,
	};

	return ioctl(fd, cmd, &rw) ? -errno : 0;
}

/**
 * emulated_rw() - vfio_dma_rw()
 * @fd: device
 * @iova: IOVA
 * @data: buffer
 * @size: bytes
 * @flags: RW_*
 */
int emulated_rw(int fd, __u64 iova, void *data, size_t size, __u32 flags)
{
	return rw(fd, VFIO_EMULATED_TEST_RW, iova, data, size, flags);
}

/**
 * emulated_access() - DMA of a device to the pages that it has pinned
 * @fd: device
 * @iova: IOVA
 * @data: buffer
 * @size: bytes
 * @flags: RW_WRITE or 0
 */
int emulated_access(int fd, __u64 iova, void *data, size_t size, __u32 flags)
{
	return rw(fd, VFIO_EMULATED_TEST_ACCESS, iova, data, size, flags);
}

/**
 * emulated_background() - Have a kernel thread call VFIO, and do not wait for it
 * @fd: device
 * @cmd: VFIO_EMULATED_TEST_PIN or VFIO_EMULATED_TEST_RW
 * @iova: IOVA
 * @npages: pages
 *
 * emulated_state() has the result.
 */
int emulated_background(int fd, __u32 cmd, __u64 iova, __u32 npages)
{
	struct vfio_emulated_test_background background = {
		.iova = iova,
		.npages = npages,
		.cmd = cmd,
	};

	return ioctl(fd, VFIO_EMULATED_TEST_BACKGROUND, &background) ? -errno : 0;
}

/**
 * emulated_set() - Choose what a device does when it is told of an unmap
 * @fd: device
 * @ignore: so many notifications it does nothing about, or IGNORE_ALL
 * @delay_ms: so long it takes then to unpin
 */
int emulated_set(int fd, __u32 ignore, __u32 delay_ms)
{
	struct vfio_emulated_test_state state = {
		.ignore = ignore,
		.delay_ms = delay_ms,
		.set = 1,
	};

	return ioctl(fd, VFIO_EMULATED_TEST_STATE, &state) ? -errno : 0;
}

/**
 * emulated_set_objects() - Have what each PIN pins be an object from now on
 * @fd: device
 *
 * When the device is told of an unmap it finds an object by its first page alone, and
 * unpins all of it.
 */
int emulated_set_objects(int fd)
{
	struct vfio_emulated_test_state state = { .objects = 1, .set = 1 };

	return ioctl(fd, VFIO_EMULATED_TEST_STATE, &state) ? -errno : 0;
}

/**
 * emulated_state() - What a device has been told, and what it holds
 * @fd: device
 *
 * Return: its state; all ones if that cannot be had.
 */
struct vfio_emulated_test_state emulated_state(int fd)
{
	struct vfio_emulated_test_state state = {};

	if (ioctl(fd, VFIO_EMULATED_TEST_STATE, &state))
		memset(&state, 0xff, sizeof(state));
	return state;
}

/**
 * dirty_tracking() - VFIO_IOMMU_DIRTY_PAGES without more than flags
 * @c: container
 * @flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_*
 */
int dirty_tracking(struct container *c, __u32 flags)
{
	struct vfio_iommu_type1_dirty_bitmap dirty = {
		.argsz = sizeof(dirty),
		.flags = flags,
	};

	return ioctl(c->fd, VFIO_IOMMU_DIRTY_PAGES, &dirty) ? -errno : 0;
}

/**
 * dirty_bitmap() - VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP
 * @c: container
 * @iova: IO virtual address
 * @size: bytes of IOVA
 * @pgsize: bytes of IOVA per bit
 * @bits: bitmap
 * @bytes: its size
 */
int dirty_bitmap(struct container *c, __u64 iova, __u64 size, __u64 pgsize,
		 void *bits, __u64 bytes)
{
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} u = {
		.dirty.argsz = sizeof(u),
		.dirty.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
		.get.iova = iova,
		.get.size = size,
		.get.bitmap.pgsize = pgsize,
		.get.bitmap.size = bytes,
		.get.bitmap.data = bits,
	};

	return ioctl(c->fd, VFIO_IOMMU_DIRTY_PAGES, &u) ? -errno : 0;
}

/**
 * dma_unmap_dirty() - VFIO_IOMMU_UNMAP_DMA that tells what was dirty
 * @c: container
 * @iova: IO virtual address
 * @size: bytes of IOVA
 * @pgsize: bytes of IOVA per bit
 * @bits: bitmap
 * @bytes: its size
 *
 * Return: bytes unmapped, or a negative errno.
 */
__s64 dma_unmap_dirty(struct container *c, __u64 iova, __u64 size,
		      __u64 pgsize, void *bits, __u64 bytes)
{
	struct {
		struct vfio_iommu_type1_dma_unmap unmap;
		struct vfio_bitmap bitmap;
	} u = {
		.unmap.argsz = sizeof(u),
		.unmap.flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
		.unmap.iova = iova,
		.unmap.size = size,
		.bitmap.pgsize = pgsize,
		.bitmap.size = bytes,
		.bitmap.data = bits,
	};

	return ioctl(c->fd, VFIO_IOMMU_UNMAP_DMA, &u) ? -errno :
							(__s64)u.unmap.size;
}

/**
 * vaddr_invalidate() - VFIO_IOMMU_UNMAP_DMA with VFIO_DMA_UNMAP_FLAG_VADDR
 * @c: container
 * @iova: IO virtual address
 * @size: bytes
 * @flags: more flags
 *
 * Return: bytes whose user address is invalid now, or a negative errno.
 */
__s64 vaddr_invalidate(struct container *c, __u64 iova, __u64 size,
		       __u32 flags)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.flags = VFIO_DMA_UNMAP_FLAG_VADDR | flags,
		.iova = iova,
		.size = size,
	};

	return ioctl(c->fd, VFIO_IOMMU_UNMAP_DMA, &unmap) ? -errno :
							    (__s64)unmap.size;
}

/**
 * vaddr_update() - VFIO_IOMMU_MAP_DMA with VFIO_DMA_MAP_FLAG_VADDR
 * @c: container
 * @iova: IO virtual address
 * @vaddr: where its memory is now
 * @size: bytes
 */
int vaddr_update(struct container *c, __u64 iova, const void *vaddr,
		 __u64 size)
{
	return dma_map(c, iova, vaddr, size, VFIO_DMA_MAP_FLAG_VADDR);
}

/**
 * info_cap() - One capability of VFIO_IOMMU_GET_INFO
 * @c: container
 * @id: of the capability
 * @cap: where to
 * @size: its size in bytes
 *
 * Return: 0, -ENOENT if it is not there, or another negative errno.
 */
int info_cap(struct container *c, __u16 id, void *cap, size_t size)
{
	union {
		struct vfio_iommu_type1_info info;
		__u8 bytes[4096];
	} u = { .info.argsz = sizeof(u) };
	struct vfio_info_cap_header *header;
	__u32 off;

	if (ioctl(c->fd, VFIO_IOMMU_GET_INFO, &u))
		return -errno;
	for (off = u.info.cap_offset; off; off = header->next) {
		header = (void *)&u.bytes[off];
		if (off + size > sizeof(u))
			return -EPROTO;
		if (header->id == id) {
			memcpy(cap, header, size);
			return 0;
		}
	}
	return -ENOENT;
}

/**
 * locked_pages_of() - Locked memory of a process
 * @pid: process
 *
 * Return: pages, or -1.
 */
long locked_pages_of(int pid)
{
	char path[64], line[256];
	long kib = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "VmLck: %ld", &kib) == 1)
			break;
	}
	fclose(f);
	return kib < 0 ? -1 : kib / 4;
}

static bool set_panic_on_warn(bool on)
{
	int fd = open("/proc/sys/kernel/panic_on_warn", O_RDWR | O_CLOEXEC);
	char was = '0';

	if (fd < 0)
		return false;
	if (read(fd, &was, 1) < 0 || pwrite(fd, on ? "1" : "0", 1, 0) < 0)
		perror("panic_on_warn");
	close(fd);
	return was == '1';
}

static bool panicked_on_warn;
static const char *expected;

static void announce(const char *what, const char *regex)
{
	panicked_on_warn = set_panic_on_warn(false);
	file_write("/sys/kernel/debug/clear_warn_once", "1");
	expected = regex;
	kernel_log(what, expected);
}

/**
 * expect_warning() - Tell the kernel and who reads its log of a warning to come
 * @regex: what the message is like; no other warning's fits it
 *
 * Only one at a time, and it must come before expect_no_warning().
 */
void expect_warning(const char *regex)
{
	announce("vm-expect", regex);
}

/**
 * allow_warning() - The same of a warning that may come
 * @regex: what the message is like; no other warning's fits it
 *
 * Such as one that is given once, and was: not every kernel forgets that of what a
 * module has said.
 */
void allow_warning(const char *regex)
{
	announce("vm-may", regex);
}

/**
 * expect_no_warning() - From here on a warning is fatal again, where it was
 */
void expect_no_warning(void)
{
	kernel_log("vm-end", expected);
	set_panic_on_warn(panicked_on_warn);
}
