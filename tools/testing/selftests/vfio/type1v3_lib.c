// SPDX-License-Identifier: GPL-2.0-only
/*
 * Containers, memory and counters for the type1v3 selftests.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/limits.h>
#include <linux/membarrier.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "type1v3_lib.h"

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT	26
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

/**
 * is_v3() - Is this the backend under test, and not the control?
 * @type: what VFIO_SET_IOMMU is given
 */
bool is_v3(unsigned long type)
{
	return type == VFIO_TYPE1v3_IOMMU || type == VFIO_TYPE1v3_PT_IOMMU;
}

/**
 * has_vaddr() - Does this backend record user addresses?
 * @type: what VFIO_SET_IOMMU is given
 *
 * Without them, groups without an IOMMU and the update of user addresses are refused.
 */
bool has_vaddr(unsigned long type)
{
	return type != VFIO_TYPE1v3_PT_IOMMU;
}

/**
 * type1_is_old() - Does this kernel's type1 deviate from the newest one?
 *
 * The yardstick of type1v3 is the type1v2 of the newest kernel. Before 6.18
 * type1 differs from it so:
 *
 *  - a range that wraps around is -EINVAL and not -EOVERFLOW;
 *  - the last page of the 64-bit IOVA space can be mapped but never unmapped;
 *  - the nesting type is still an extension.
 *
 * Return: true before 6.18.
 */
bool type1_is_old(void)
{
	unsigned int major = 0, minor = 0;
	struct utsname u;

	uname(&u);
	if (sscanf(u.release, "%u.%u", &major, &minor) != 2)
		return false;
	return major < 6 || (major == 6 && minor < 18);
}

/**
 * wrap_errno() - The errno of a backend for a range that wraps around
 * @type: what VFIO_SET_IOMMU is given
 */
int wrap_errno(unsigned long type)
{
	return is_v3(type) || !type1_is_old() ? -EOVERFLOW : -EINVAL;
}

/**
 * container_init() - Make a container that container_close() accepts
 * @c: container
 */
void container_init(struct container *c)
{
	memset(c, 0, sizeof(*c));
	c->fd = -1;
}

static int group_of(const char *bdf)
{
	char path[PATH_MAX], link[PATH_MAX];
	ssize_t len;

	snprintf(path, sizeof(path), "/sys/bus/%s/devices/%s/iommu_group",
		 strchr(bdf, ':') ? "pci" : "platform", bdf);
	len = readlink(path, link, sizeof(link) - 1);
	if (len < 0)
		return -errno;
	link[len] = '\0';
	return atoi(strrchr(link, '/') + 1);
}

/**
 * container_attach() - Put the group of one more device into a container
 * @c: container
 * @bdf: PCI address of the device, or the name of a platform device
 */
int container_attach(struct container *c, const char *bdf)
{
	int group = group_of(bdf), fd, ret;
	char path[64];

	if (group < 0)
		return group;
	if (c->ngroups == MAX_GROUPS)
		return -E2BIG;

	snprintf(path, sizeof(path), "/dev/vfio/%d", group);
	if (access(path, F_OK))
		snprintf(path, sizeof(path), "/dev/vfio/noiommu-%d", group);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, VFIO_GROUP_SET_CONTAINER, &c->fd)) {
		ret = -errno;
		close(fd);
		return ret;
	}
	c->group[c->ngroups].fd = fd;
	snprintf(c->group[c->ngroups].bdf, sizeof(c->group[0].bdf), "%s", bdf);
	c->ngroups++;
	return 0;
}

static int group_index(struct container *c, const char *bdf)
{
	for (int i = 0; i < c->ngroups; i++) {
		if (!strcmp(c->group[i].bdf, bdf))
			return i;
	}
	return -ENOENT;
}

/**
 * container_detach() - Take the group of a device out of a container
 * @c: container
 * @bdf: PCI address of the device, which must not be open
 */
int container_detach(struct container *c, const char *bdf)
{
	int i = group_index(c, bdf);

	if (i < 0)
		return i;
	if (ioctl(c->group[i].fd, VFIO_GROUP_UNSET_CONTAINER))
		return -errno;
	close(c->group[i].fd);
	c->group[i] = c->group[--c->ngroups];
	return 0;
}

/**
 * container_device() - Open a device
 * @c: container
 * @bdf: PCI address of the device
 *
 * Return: file descriptor of the VFIO device, or a negative errno.
 */
int container_device(struct container *c, const char *bdf)
{
	int i = group_index(c, bdf), fd;

	if (i < 0)
		return i;
	fd = ioctl(c->group[i].fd, VFIO_GROUP_GET_DEVICE_FD, bdf);
	return fd < 0 ? -errno : fd;
}

/**
 * container_open() - Open a container and choose its backend
 * @c: container, to be closed with container_close() even after an error
 * @type: what VFIO_SET_IOMMU is given; 0 to leave the container without
 * @bdf: PCI address of the device whose group goes in, or NULL
 */
int container_open(struct container *c, unsigned long type, const char *bdf)
{
	int ret;

	container_init(c);
	c->fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (c->fd < 0)
		return -errno;
	if (bdf) {
		ret = container_attach(c, bdf);
		if (ret)
			return ret;
	}
	if (type && ioctl(c->fd, VFIO_SET_IOMMU, type))
		return -errno;
	return 0;
}

/**
 * container_close() - Close a container and its groups
 * @c: container
 */
void container_close(struct container *c)
{
	while (c->ngroups)
		close(c->group[--c->ngroups].fd);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

/**
 * container_info() - Ask for VFIO_IOMMU_GET_INFO with every capability
 * @c: container
 * @info: where to
 *
 * Return: 0, a negative errno, or -EPROTO for a chain that is not well formed.
 */
int container_info(struct container *c, struct container_info *info)
{
	union {
		struct vfio_iommu_type1_info info;
		__u8 bytes[4096];
	} u = { .info.argsz = sizeof(u) };
	struct vfio_iommu_type1_info_cap_iova_range *ranges;
	struct vfio_info_cap_header *cap;
	__u32 off, end;

	memset(info, 0, sizeof(*info));
	info->nranges = -1;
	if (ioctl(c->fd, VFIO_IOMMU_GET_INFO, &u))
		return -errno;

	info->flags = u.info.flags;
	info->pgsizes = u.info.iova_pgsizes;
	if (!(info->flags & VFIO_IOMMU_INFO_CAPS))
		return 0;

	end = sizeof(u);
	for (off = u.info.cap_offset; off; off = cap->next) {
		if (off < sizeof(u.info) || off % 8 || off > end - sizeof(*cap))
			return -EPROTO;
		cap = (void *)&u.bytes[off];
		switch (cap->id) {
		case VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE:
			ranges = (void *)cap;
			if (info->nranges >= 0 || ranges->nr_iovas > 16)
				return -EPROTO;
			info->nranges = ranges->nr_iovas;
			memcpy(info->range, ranges->iova_ranges,
			       info->nranges * sizeof(info->range[0]));
			break;
		case VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION:
			info->has_migration = true;
			break;
		case VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL:
			info->has_avail = true;
			info->avail = ((struct vfio_iommu_type1_info_dma_avail *)
				       cap)->avail;
			break;
		case VFIO_IOMMU_TYPE1V3_INFO_CAP_USAGE:
			info->has_own = true;
			memcpy(&info->own, cap, sizeof(info->own));
			break;
		case VFIO_IOMMU_TYPE1V3_INFO_CAP_GRANULE:
			info->has_granule = true;
			memcpy(&info->granule, cap, sizeof(info->granule));
			break;
		}
	}
	return 0;
}

/**
 * dma_map() - VFIO_IOMMU_MAP_DMA
 * @c: container
 * @iova: IO virtual address
 * @vaddr: user memory
 * @size: bytes
 * @flags: VFIO_DMA_MAP_FLAG_*
 */
int dma_map(struct container *c, __u64 iova, const void *vaddr,
	    __u64 size, __u32 flags)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = flags,
		.vaddr = (uintptr_t)vaddr,
		.iova = iova,
		.size = size,
	};

	return ioctl(c->fd, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

static __s64 do_unmap(struct container *c, __u64 iova, __u64 size,
		      __u32 flags)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.flags = flags,
		.iova = iova,
		.size = size,
	};

	return ioctl(c->fd, VFIO_IOMMU_UNMAP_DMA, &unmap) ? -errno :
							    (__s64)unmap.size;
}

/**
 * dma_unmap() - VFIO_IOMMU_UNMAP_DMA
 * @c: container
 * @iova: IO virtual address
 * @size: bytes
 *
 * Return: bytes unmapped, or a negative errno.
 */
__s64 dma_unmap(struct container *c, __u64 iova, __u64 size)
{
	return do_unmap(c, iova, size, 0);
}

/**
 * dma_batch() - VFIO_IOMMU_TYPE1V3_BATCH
 * @c: container
 * @flags: VFIO_IOMMU_TYPE1V3_BATCH_FLAG_*
 * @nr: length of @entries
 * @entries: what to do, and what has become of it
 *
 * Return: how many entries have failed, or a negative errno.
 */
int dma_batch(struct container *c, __u32 flags, __u32 nr,
	      struct vfio_iommu_type1v3_batch_entry *entries)
{
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.flags = flags,
		.nr_entries = nr,
		.entries = (uintptr_t)entries,
	};
	int ret = ioctl(c->fd, VFIO_IOMMU_TYPE1V3_BATCH, &batch);

	return ret < 0 ? -errno : ret;
}

/**
 * dma_unmap_all() - VFIO_IOMMU_UNMAP_DMA with VFIO_DMA_UNMAP_FLAG_ALL
 * @c: container
 *
 * Return: bytes unmapped, or a negative errno.
 */
__s64 dma_unmap_all(struct container *c)
{
	return do_unmap(c, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL);
}

/* Is all of it huge? One line of smaps, of the VMA that holds the address. */
static bool all_thp(const void *va, size_t size)
{
	unsigned long start, end, kib;
	char line[256];
	bool here = false, ret = false;
	FILE *f = fopen("/proc/self/smaps", "re");

	if (!f)
		return false;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (uintptr_t)va && (uintptr_t)va < end;
		else if (here && sscanf(line, "AnonHugePages: %lu kB", &kib) == 1)
			ret = kib * KIB >= size;
	}
	fclose(f);
	return ret;
}

/**
 * mem_alloc() - Allocate zeroed memory of a kind
 * @m: memory, to be freed with mem_free()
 * @kind: kind of memory
 * @size: bytes; for huge pages a multiple of their size
 *
 * Memory is aligned to 2 MiB, or to its page size where that is larger.
 *
 * Return: 0, or a negative errno: -ENOMEM where the machine has no memory of
 * this kind.
 */
int mem_alloc(struct mem *m, enum mem_kind kind, size_t size)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS, fd = -1;

	memset(m, 0, sizeof(*m));
	m->size = size;
	m->len = size + LEAF;
	if (kind == MEM_2M || kind == MEM_1G) {
		flags |= MAP_HUGETLB;
		flags |= __builtin_ctzl(kind == MEM_2M ? LEAF : GIB) << MAP_HUGE_SHIFT;
		m->len = size;
	} else if (kind == MEM_SHARED) {
		flags = MAP_SHARED;
		fd = memfd_create("type1v3", MFD_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (ftruncate(fd, m->len)) {
			close(fd);
			return -errno;
		}
	}

	m->base = mmap(NULL, m->len, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (fd >= 0)
		close(fd);
	if (m->base == MAP_FAILED) {
		m->base = NULL;
		return -errno;
	}
	m->va = (void *)(((uintptr_t)m->base + LEAF - 1) & ~(LEAF - 1));

	if (kind == MEM_4K || kind == MEM_SHARED) {
		madvise(m->base, m->len, MADV_NOHUGEPAGE);
	} else if (kind == MEM_THP) {
		if (madvise(m->va, size, MADV_HUGEPAGE))
			goto none;
		memset(m->va, 0, size);
		madvise(m->va, size, MADV_COLLAPSE);
		if (!all_thp(m->va, size))
			goto none;
	}
	return 0;
none:
	mem_free(m);
	return -ENOMEM;
}

/**
 * mem_free() - Free memory
 * @m: memory
 */
void mem_free(struct mem *m)
{
	if (m->base)
		munmap(m->base, m->len);
	memset(m, 0, sizeof(*m));
}

/* Words of a pattern differ from each other, whatever the distance */
static __u64 pattern_word(__u64 seed, size_t i)
{
	return (seed + i + 1) * 0x9e3779b97f4a7c15ULL;
}

/**
 * uffd_open() - Withhold memory that nobody has touched yet
 * @va: where it begins
 * @size: its size in bytes
 *
 * Who needs a page of it waits for uffd_give().
 *
 * Return: file descriptor, or a negative errno.
 */
int uffd_open(const void *va, size_t size)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)va, size },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	if (!ioctl(fd, UFFDIO_API, &api) && !ioctl(fd, UFFDIO_REGISTER, &reg))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/**
 * uffd_wait() - Wait until somebody waits for memory that is withheld
 * @fd: from uffd_open()
 * @page: the page it must be
 *
 * Return: 0; -EPROTO if it is another page, or something else has happened.
 */
int uffd_wait(int fd, const void *page)
{
	struct uffd_msg msg;

	if (read(fd, &msg, sizeof(msg)) != sizeof(msg) ||
	    msg.event != UFFD_EVENT_PAGEFAULT ||
	    (msg.arg.pagefault.address & ~(PAGE - 1)) != (uintptr_t)page)
		return -EPROTO;
	return 0;
}

/**
 * uffd_give() - Let memory come: it is zero
 * @fd: from uffd_open()
 * @va: where it begins
 * @size: its size in bytes
 *
 * Return: 0 or a negative errno.
 */
int uffd_give(int fd, const void *va, size_t size)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)va, size } };
	int err;

	if (!ioctl(fd, UFFDIO_ZEROPAGE, &zero))
		return 0;
	err = -errno;
	/* nobody has been woken; who still misses a page asks again */
	ioctl(fd, UFFDIO_WAKE, &zero.range);
	return err;
}

/**
 * pattern_fill() - Fill memory with a pattern
 * @va: memory
 * @size: bytes, a multiple of 8
 * @seed: of the pattern; the word at byte offset n of seed s is that at offset
 *	0 of seed s + n / 8
 */
void pattern_fill(void *va, size_t size, __u64 seed)
{
	__u64 *word = va, value = pattern_word(seed, 0);

	for (size_t i = 0; i < size / 8; i++, value += 0x9e3779b97f4a7c15ULL)
		word[i] = value;
}

/**
 * pattern_check() - Compare memory with a pattern
 * @va: memory
 * @size: bytes, a multiple of 8
 * @seed: of the pattern
 *
 * Return: offset of the first word that differs, or -1.
 */
long pattern_check(const void *va, size_t size, __u64 seed)
{
	const __u64 *word = va;
	__u64 value = pattern_word(seed, 0);

	for (size_t i = 0; i < size / 8; i++, value += 0x9e3779b97f4a7c15ULL) {
		if (word[i] != value)
			return i * 8;
	}
	return -1;
}

/**
 * prng() - Next number of a reproducible sequence
 * @state: of the sequence, anything to start with
 */
__u64 prng(__u64 *state)
{
	__u64 x = *state += 0x9e3779b97f4a7c15ULL;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/**
 * scan_file() - Read a number of a file
 * @path: file
 * @key: what is in front of the number, from the beginning of the line
 *
 * Return: the number, or -1.
 */
long scan_file(const char *path, const char *key)
{
	size_t len = strlen(key);
	char line[256];
	long ret = -1;
	FILE *f = fopen(path, "re");

	if (!f)
		return -1;
	while (ret < 0 && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, len))
			ret = atol(line + len);
	}
	fclose(f);
	return ret;
}

/**
 * locked_pages() - Locked memory of this process
 *
 * Return: pages, or -1.
 */
long locked_pages(void)
{
	long kib = scan_file("/proc/self/status", "VmLck:");

	return kib < 0 ? -1 : kib / TYPE1V3_PAGE_KIB;
}

/**
 * pinned_pages() - Pages pinned with FOLL_PIN now, in the whole system
 *
 * Return: pages, or -1 where the kernel does not tell.
 */
long pinned_pages(void)
{
	long acquired, released;
	int fd = open("/proc/sys/vm/stat_refresh", O_WRONLY | O_CLOEXEC);

	/* without a refresh the counters of other CPUs lag by a second */
	if (fd < 0)
		return -1;
	if (write(fd, "1", 1) != 1) {
		close(fd);
		return -1;
	}
	close(fd);

	acquired = scan_file("/proc/vmstat", "nr_foll_pin_acquired ");
	released = scan_file("/proc/vmstat", "nr_foll_pin_released ");
	if (acquired < 0 || released < 0)
		return -1;
	return acquired - released;
}

/**
 * drop_ipc_lock() - Give up CAP_IPC_LOCK, which exempts from RLIMIT_MEMLOCK
 */
int drop_ipc_lock(void)
{
	struct __user_cap_header_struct hdr = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &hdr, data))
		return -errno;
	data[0].effective &= ~(1U << CAP_IPC_LOCK);
	data[0].permitted &= ~(1U << CAP_IPC_LOCK);
	if (syscall(SYS_capset, &hdr, data))
		return -errno;
	return 0;
}

/**
 * task_waits_in() - Does a function of the kernel have a task wait?
 * @tid: process or thread
 * @function: a part of its name
 *
 * It is the one that has called the lock or the scheduler, which are left out of
 * /proc/TID/stack. What a page fault waits for is further in.
 *
 * Return: false, too, while the task runs, and where the kernel does not tell.
 */
bool task_waits_in(int tid, const char *function)
{
	char path[64], line[256] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stack", tid);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	return strstr(line, function);
}

/**
 * test_seed() - Seed of a test's random numbers
 *
 * The same in each run, so that what failed fails again; TYPE1V3_SEED in the
 * environment is for other numbers.
 */
__u64 test_seed(void)
{
	const char *seed = getenv("TYPE1V3_SEED");

	return seed ? strtoull(seed, NULL, 0) : 1;
}

/**
 * kernel_log() - A record in the kernel's log, for who reads it afterwards
 * @what: vm-expect, vm-may or vm-end (tools/testing/vm/messages.awk)
 * @regex: of the messages that it is about
 */
void kernel_log(const char *what, const char *regex)
{
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	char line[512];

	if (fd < 0)
		return;
	/* one write is one record; dprintf() does not like that file */
	snprintf(line, sizeof(line), "%s: %s\n", what, regex);
	if (write(fd, line, strlen(line)) < 0)
		perror("/dev/kmsg");
	close(fd);
}

/**
 * file_write() - Write to a file that is there
 * @path: file
 * @value: text
 */
int file_write(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

/**
 * pci_write() - Write to an attribute of a PCI device
 * @bdf: PCI address
 * @attr: name of the attribute
 * @value: value
 */
int pci_write(const char *bdf, const char *attr, const char *value)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bdf, attr);
	return file_write(path, value);
}

/**
 * pci_rescan_bind() - Find a removed device again and give it to vfio-pci
 * @bdf: PCI address; no other driver may want the device
 */
int pci_rescan_bind(const char *bdf)
{
	int ret = file_write("/sys/bus/pci/rescan", "1");

	if (!ret)
		ret = pci_write(bdf, "driver_override", "vfio-pci");
	if (!ret)
		ret = file_write("/sys/bus/pci/drivers_probe", bdf);
	return ret;
}

/**
 * module_param() - Set a parameter of a module
 * @module: name of the module
 * @name: name of the parameter
 * @value: value
 */
int module_param(const char *module, const char *name, const char *value)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s", module, name);
	return file_write(path, value);
}

/* The caches that type1v3 allocates its records from */
static bool is_our_slab(const char *name)
{
	return !strncmp(name, "kmalloc-cg-", 11) ||
	       !strcmp(name, "radix_tree_node");
}

/**
 * slab_objects() - Objects in the slab caches that type1v3 allocates from
 *
 * Return: their number, in the whole system.
 */
unsigned long slab_objects(void)
{
	unsigned long objects, sum = 0;
	char line[512], name[64];
	FILE *f;

	f = fopen("/proc/slabinfo", "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %lu", name, &objects) == 2 &&
		    is_our_slab(name))
			sum += objects;
	}
	fclose(f);
	return sum;
}

/**
 * slab_drain() - Let objects go that have been freed
 * @all: of all caches, not only of those
 *
 * They may wait for RCU, or be held back to catch who still uses them. Some are
 * freed by a timer, seconds later.
 */
void slab_drain(bool all)
{
	static const char dir[] = "/sys/kernel/slab";
	struct dirent *entry;
	char path[PATH_MAX];
	DIR *d;

	syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
	d = opendir(dir);
	if (!d)
		return;
	while ((entry = readdir(d))) {
		if (!all && !is_our_slab(entry->d_name))
			continue;
		snprintf(path, sizeof(path), "%s/%s/shrink", dir,
			 entry->d_name);
		file_write(path, "1");
	}
	closedir(d);
}

#define IOMMU_TRACE	"/sys/kernel/tracing/instances/type1v3_iommu"

/**
 * iommu_trace() - Record what the IOMMU core is told to map and unmap
 * @on: begin with an empty record, or end and forget it
 *
 * Return: 0 or a negative errno.
 */
int iommu_trace(bool on)
{
	int ret;

	if (rmdir(IOMMU_TRACE) && errno != ENOENT)
		return -errno;
	if (!on)
		return 0;
	if (mkdir(IOMMU_TRACE, 0700))
		return -errno;
	ret = file_write(IOMMU_TRACE "/events/iommu/map/enable", "1");
	return ret ?: file_write(IOMMU_TRACE "/events/iommu/unmap/enable", "1");
}

/**
 * iommu_trace_read() - What has been recorded of a range, which is then forgotten
 * @iova: first address
 * @size: bytes
 * @calls: set to what was mapped and unmapped of it, each call in full
 *
 * Return: 0; -ENOBUFS if there was more than there is room for; or another
 * negative errno.
 */
int iommu_trace_read(__u64 iova, __u64 size, struct iommu_calls *calls)
{
	unsigned long long first, end;
	const char *at, *unmap;
	char line[512];
	int ret = 0, fd;
	FILE *f;

	*calls = (struct iommu_calls){};
	f = fopen(IOMMU_TRACE "/trace", "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		if (strstr(line, "LOST"))
			ret = -ENOBUFS;
		at = strstr(line, "IOMMU: iova=");
		if (!at || sscanf(at, "IOMMU: iova=%llx - %llx", &first, &end) != 2 ||
		    first >= iova + size || end <= iova)
			continue;
		unmap = strstr(at, "unmapped_size=");
		if (unmap)
			calls->unmapped += strtoull(unmap + 14, NULL, 10);
		else
			calls->mapped += end - first;
	}
	fclose(f);
	fd = open(IOMMU_TRACE "/trace", O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	close(fd);
	return ret;
}
