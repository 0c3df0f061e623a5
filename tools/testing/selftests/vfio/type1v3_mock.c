// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mock IOMMUs for the type1v3 selftests.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "type1v3_mock.h"

const struct mock_kind mock_kinds[NR_MOCK_KINDS] = {
	{ "4K", 4 * KIB, 0 },
	{ "4K-dirty", 4 * KIB, VFIO_MOCK_IOMMU_DIRTY },
	{ "three", 4 * KIB | 2 * MIB | GIB, 0 },
	{ "three-dirty", 4 * KIB | 2 * MIB | GIB, VFIO_MOCK_IOMMU_DIRTY },
	{ "three-dirty-coherent", 4 * KIB | 2 * MIB | GIB,
	  VFIO_MOCK_IOMMU_DIRTY | VFIO_MOCK_IOMMU_COHERENT },
	{ "close-dirty", 4 * KIB | 64 * KIB | MIB,
	  VFIO_MOCK_IOMMU_DISJOINT | VFIO_MOCK_IOMMU_DIRTY },
	{ "below", KIB | 4 * KIB, VFIO_MOCK_IOMMU_DISJOINT },
	{ "powers-dirty", -4 * KIB, VFIO_MOCK_IOMMU_DIRTY },
	{ "calls", -4 * KIB, VFIO_MOCK_IOMMU_CALLS },
	{ "calls-of-sizes-dirty", 4 * KIB | 2 * MIB | GIB,
	  VFIO_MOCK_IOMMU_CALLS | VFIO_MOCK_IOMMU_DIRTY },
};

/**
 * mock_init() - Make a mock IOMMU that mock_destroy() accepts
 * @m: IOMMU
 */
void mock_init(struct mock *m)
{
	memset(m, 0, sizeof(*m));
	m->fd = -1;
}

/**
 * mock_create() - Make an IOMMU and the devices behind it
 * @m: IOMMU, to be destroyed with mock_destroy() even after an error
 * @config: what it is like; an aperture that ends at 0 is one of 48 bits, and no
 *	devices are one device
 *
 * The library's functions take @m->name of a device for its PCI address.
 */
int mock_create(struct mock *m, const struct vfio_mock_iommu_create *config)
{
	struct vfio_mock_iommu_create create = *config;

	mock_init(m);
	if (!create.aperture.last)
		create.aperture.last = (1ULL << 48) - 1;
	if (!create.nr_devices)
		create.nr_devices = 1;
	m->fd = open("/dev/" VFIO_MOCK_IOMMU_NAME, O_RDWR | O_CLOEXEC);
	if (m->fd < 0)
		return -errno;
	if (ioctl(m->fd, VFIO_MOCK_IOMMU_CREATE, &create))
		return -errno;
	m->tracks = create.tracks;
	for (unsigned int i = 0; i < create.nr_devices; i++)
		snprintf(m->name[i], sizeof(m->name[i]), VFIO_MOCK_DEVICE_NAME ".%u",
			 create.device[i]);
	return 0;
}

/**
 * mock_destroy() - Let go of an IOMMU; it goes when its devices are closed
 * @m: IOMMU
 */
void mock_destroy(struct mock *m)
{
	if (m->fd >= 0)
		close(m->fd);
	m->fd = -1;
}

/**
 * mock_break() - Choose which calls of the driver fail from now on
 * @m: IOMMU
 * @how: which, and how
 */
int mock_break(struct mock *m, const struct vfio_mock_iommu_break *how)
{
	return ioctl(m->fd, VFIO_MOCK_IOMMU_BREAK, how) ? -errno : 0;
}

/**
 * mock_state() - What an IOMMU has been told, and what it translates
 * @m: IOMMU
 *
 * Return: its state; all ones if that cannot be had.
 */
struct vfio_mock_iommu_state mock_state(struct mock *m)
{
	struct vfio_mock_iommu_state state;

	if (ioctl(m->fd, VFIO_MOCK_IOMMU_STATE, &state))
		memset(&state, 0xff, sizeof(state));
	return state;
}

/**
 * mock_unplug() - A device goes, with its group
 * @m: IOMMU
 * @nr: number of the device behind it; nobody may have it open
 */
int mock_unplug(struct mock *m, int nr)
{
	unsigned long id = atol(strchr(m->name[nr], '.') + 1);

	return ioctl(m->fd, VFIO_MOCK_IOMMU_UNPLUG, id) ? -errno : 0;
}

/**
 * mock_plug() - A device comes, in the place of one that has gone
 * @m: IOMMU
 * @nr: number of the device behind it
 */
int mock_plug(struct mock *m, int nr)
{
	int id = ioctl(m->fd, VFIO_MOCK_IOMMU_PLUG);

	if (id < 0)
		return -errno;
	snprintf(m->name[nr], sizeof(m->name[nr]), VFIO_MOCK_DEVICE_NAME ".%d", id);
	return 0;
}

/**
 * mock_allow_unsafe() - May the backends use an IOMMU that does not isolate interrupts?
 * @allow: they may; mock IOMMUs do not isolate any
 *
 * Return: what was so before.
 */
bool mock_allow_unsafe(bool allow)
{
	static const char * const modules[] = {
		"vfio_iommu_type1", "vfio_iommu_type1v3",
	};
	char path[128], was = 'N';
	FILE *f;

	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path),
			 "/sys/module/%s/parameters/allow_unsafe_interrupts",
			 modules[i]);
		f = fopen(path, "re");
		if (f) {
			was = fgetc(f);
			fclose(f);
		}
		file_write(path, allow ? "Y" : "N");
	}
	return was == 'Y';
}

/* DMA that ends halfway has met a fault there. */
static int all_of_it(ssize_t done, size_t size)
{
	if (done < 0)
		return -errno;
	return (size_t)done == size ? 0 : -ENXIO;
}

/**
 * mock_read() - DMA of a device from memory
 * @dev: device
 * @iova: address
 * @data: buffer
 * @size: bytes
 *
 * Return: 0, or a negative errno: see vfio_mock_iommu.h.
 */
int mock_read(int dev, __u64 iova, void *data, size_t size)
{
	return all_of_it(pread(dev, data, size, iova), size);
}

/**
 * mock_write() - DMA of a device to memory
 * @dev: device
 * @iova: address
 * @data: buffer
 * @size: bytes
 *
 * Return: as mock_read()
 */
int mock_write(int dev, __u64 iova, const void *data, size_t size)
{
	return all_of_it(pwrite(dev, data, size, iova), size);
}

/**
 * mock_leaf() - The page table entry that translates an address
 * @dev: device
 * @iova: address
 *
 * Return: the entry; its size is 0 if there is none.
 */
struct vfio_mock_leaf mock_leaf(int dev, __u64 iova)
{
	struct vfio_mock_leaf leaf = { .iova = iova };

	if (ioctl(dev, VFIO_MOCK_LEAF, &leaf))
		memset(&leaf, 0, sizeof(leaf));
	return leaf;
}

/**
 * mock_faults() - A device asks for pages that it misses
 * @dev: device
 *
 * Return: a file descriptor for mock_fault(), or a negative errno.
 */
int mock_faults(int dev)
{
	int fd = ioctl(dev, VFIO_MOCK_FAULTS);

	return fd < 0 ? -errno : fd;
}

/**
 * mock_fault() - Wait for a page request
 * @fd: file descriptor of mock_faults()
 * @fault: filled with the request
 *
 * Return: 1, 0 if the device has been closed, or a negative errno.
 */
int mock_fault(int fd, struct vfio_mock_fault *fault)
{
	ssize_t ret = read(fd, fault, sizeof(*fault));

	if (ret < 0)
		return -errno;
	return ret == sizeof(*fault);
}

/**
 * mock_answer() - Answer a page request
 * @fd: file descriptor of mock_faults()
 * @id: its number
 * @code: VFIO_MOCK_RESPONSE_*
 */
int mock_answer(int fd, __u32 id, __u32 code)
{
	struct vfio_mock_response response = { .id = id, .code = code };

	return write(fd, &response, sizeof(response)) == sizeof(response) ? 0 : -errno;
}
