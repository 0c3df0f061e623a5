// SPDX-License-Identifier: GPL-2.0-only
/*
 * The functions of "Using type1v3 containers" that merge several trackers of dirty pages,
 * as they are printed there, on devices that write: one with a tracker of its own beside
 * an emulated one, only such devices, and one such device beside one that is suspended.
 * Needs the modules vfio_mock_iommu and vfio_emulated_test.
 *
 * The library of the other tests has functions of the same names, and is not used.
 */
#include "type1v3_trackers.h"

#include "kselftest_harness.h"
#include "../../../../drivers/vfio/tests/vfio_emulated_test.h"
#include "../../../../drivers/vfio/tests/vfio_mock_iommu.h"

#define IOVA	(128ULL << 30)
#define SIZE	(4ULL << 20)
#define PAGE	4096ULL
#define NPAGES	(SIZE / PAGE)

/* Like type1v2, type1v3 takes such IOMMUs only from who says that they are safe. */
static void allow_unsafe(const char *value)
{
	int fd = open("/sys/module/vfio_iommu_type1v3/parameters/allow_unsafe_interrupts",
		      O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, 1) != 1)
		perror("allow_unsafe_interrupts");
	close(fd);
}

/* The group of a device, as a file */
static int group_open(const char *name)
{
	char path[128], link[128] = "";

	snprintf(path, sizeof(path), "/sys/bus/platform/devices/%s/iommu_group", name);
	if (readlink(path, link, sizeof(link) - 1) < 0)
		return -errno;
	snprintf(path, sizeof(path), "/dev/vfio%s", strrchr(link, '/'));
	return open(path, O_RDWR | O_CLOEXEC);
}

FIXTURE(trackers) {
	int mock, container, group[3], device[3];
	char *memory;
	char was_unsafe[2];
	struct vfio_mock_iommu_create config;
	__u64 bits[NPAGES / 64];
};

FIXTURE_VARIANT(trackers) { unsigned int type; __u32 flags; };

/* Whether the IOMMU has dirty bits makes no difference. */
FIXTURE_VARIANT_ADD(trackers, type1v3) { VFIO_TYPE1v3_IOMMU, 0 };
FIXTURE_VARIANT_ADD(trackers, type1v3_dirty) { VFIO_TYPE1v3_IOMMU, VFIO_MOCK_IOMMU_DIRTY };
FIXTURE_VARIANT_ADD(trackers, type1v3_pt) { VFIO_TYPE1v3_PT_IOMMU, 0 };
FIXTURE_VARIANT_ADD(trackers, type1v3_pt_dirty) { VFIO_TYPE1v3_PT_IOMMU, VFIO_MOCK_IOMMU_DIRTY };

/* Devices that get in: the emulated one does where the record has addresses. */
static int nr_devices(unsigned int type)
{
	return type == VFIO_TYPE1v3_PT_IOMMU ? 2 : 3;
}

/* Two devices behind an IOMMU, and an emulated one */
FIXTURE_SETUP(trackers)
{
	char name[3][24];
	int fd;

	memset(self, 0, sizeof(*self));
	self->mock = -1;
	self->container = -1;
	for (int i = 0; i < 3; i++) {
		self->group[i] = -1;
		self->device[i] = -1;
	}
	self->was_unsafe[0] = 'N';
	fd = open("/sys/module/vfio_iommu_type1v3/parameters/allow_unsafe_interrupts",
		  O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, self->was_unsafe, 1) != 1)
		self->was_unsafe[0] = 'N';
	close(fd);
	allow_unsafe("Y");

	self->config.pgsizes = 4096 | 2 << 20;
	self->config.aperture.last = (1ULL << 48) - 1;
	self->config.flags = variant->flags;
	self->config.nr_devices = 2;
	self->mock = open("/dev/" VFIO_MOCK_IOMMU_NAME, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->mock);
	ASSERT_EQ(0, ioctl(self->mock, VFIO_MOCK_IOMMU_CREATE, &self->config));
	if (!self->config.tracks)
		SKIP(return, "VFIO is built without records of devices");
	for (int i = 0; i < 2; i++) {
		snprintf(name[i], sizeof(name[i]), VFIO_MOCK_DEVICE_NAME ".%u",
			 self->config.device[i]);
		self->group[i] = group_open(name[i]);
	}
	strcpy(name[2], VFIO_EMULATED_TEST_NAME ".0");
	self->group[2] = group_open(name[2]);

	self->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->container);
	for (int i = 0; i < nr_devices(variant->type); i++) {
		ASSERT_LE(0, self->group[i]);
		ASSERT_EQ(0, ioctl(self->group[i], VFIO_GROUP_SET_CONTAINER, &self->container));
	}
	ASSERT_EQ(0, ioctl(self->container, VFIO_SET_IOMMU, variant->type));
	for (int i = 0; i < nr_devices(variant->type); i++) {
		self->device[i] = ioctl(self->group[i], VFIO_GROUP_GET_DEVICE_FD, name[i]);
		ASSERT_LE(0, self->device[i]);
	}
	self->memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->memory);
	ASSERT_EQ(0, dma_map(self->container, IOVA, (unsigned long)self->memory, SIZE, RW));
}

FIXTURE_TEARDOWN(trackers)
{
	for (int i = 0; i < 3; i++)
		close(self->device[i]);
	for (int i = 0; i < 3; i++)
		close(self->group[i]);
	close(self->container);
	close(self->mock);
	munmap(self->memory, SIZE);
	allow_unsafe(self->was_unsafe);
}

/* DMA, or what an emulated device does for it */
static int device_write(struct _test_data_trackers *self, int i, unsigned long page)
{
	__u64 data = page;
	struct vfio_emulated_test_rw arg = {
		.iova = IOVA + page * PAGE,
		.data = (unsigned long)&data,
		.size = sizeof(data),
		.flags = VFIO_EMULATED_TEST_RW_WRITE,
	};

	if (i == 2)
		return ioctl(self->device[i], VFIO_EMULATED_TEST_RW, &arg) ? -errno : 0;
	return pwrite(self->device[i], &data, sizeof(data), IOVA + page * PAGE) < 0 ? -errno : 0;
}

/* A round reports these pages, and no others. */
static void expect_pages(struct __test_metadata *_metadata, struct _test_data_trackers *self,
			 const struct tracked *t, unsigned int n, const unsigned long *pages,
			 unsigned int nr)
{
	unsigned long found = 0;

	memset(self->bits, 0xff, sizeof(self->bits));
	ASSERT_EQ(0, trackers_read(self->container, t, n, IOVA, SIZE, PAGE, self->bits));
	for (unsigned long i = 0; i < NPAGES; i++)
		found += self->bits[i / 64] >> i % 64 & 1;
	EXPECT_EQ(nr, found);
	for (unsigned int i = 0; i < nr; i++) {
		EXPECT_TRUE(self->bits[pages[i] / 64] >> pages[i] % 64 & 1)
			TH_LOG("page %lu", pages[i]);
	}
}

/* START has not been called: there is nothing to ask. */
static bool container_is_idle(struct _test_data_trackers *self)
{
	return dirty_get(self->container, IOVA, SIZE, PAGE, self->bits, 0) == -EINVAL;
}

static __u64 store_bytes(struct _test_data_trackers *self)
{
	struct vfio_iommu_type1_info *info = info_get(self->container);
	struct vfio_iommu_type1v3_info_cap_usage *cap;
	__u64 bytes;

	cap = info_cap(info, VFIO_IOMMU_TYPE1V3_INFO_CAP_USAGE);
	bytes = cap ? cap->store_bytes : -1ULL;
	free(info);
	return bytes;
}

static bool iommu_tracks(struct _test_data_trackers *self)
{
	struct vfio_mock_iommu_state state = {};

	return ioctl(self->mock, VFIO_MOCK_IOMMU_STATE, &state) || state.tracking ||
	       state.errors;
}

TEST_F(trackers, record_and_emulated)
{
	struct tracked t[] = { { self->device[0], RECORDS }, { self->device[2], PINS } };

	if (nr_devices(variant->type) == 2) {
		EXPECT_EQ(-1, ioctl(self->group[2], VFIO_GROUP_SET_CONTAINER,
				    &self->container));
		EXPECT_EQ(EOPNOTSUPP, errno);
		return;
	}
	EXPECT_EQ(0, device_write(self, 0, 1));
	EXPECT_EQ(0, device_write(self, 2, 2));
	ASSERT_EQ(0, trackers_start(self->container, t, 2, IOVA, SIZE, PAGE));
	EXPECT_FALSE(iommu_tracks(self));
	expect_pages(_metadata, self, t, 2, NULL, 0);
	for (unsigned long round = 0; round < 3; round++) {
		unsigned long pages[] = { 5 + round, 70 + round, 1000 + round };

		EXPECT_EQ(0, device_write(self, 0, pages[0]));
		EXPECT_EQ(0, device_write(self, 2, pages[1]));
		EXPECT_EQ(0, device_write(self, 0, pages[2]));
		EXPECT_EQ(0, device_write(self, 2, pages[2]));
		expect_pages(_metadata, self, t, 2, pages, 3);
		expect_pages(_metadata, self, t, 2, NULL, 0);
	}
	trackers_stop(self->container, t, 2);
	EXPECT_TRUE(container_is_idle(self));
}

TEST_F(trackers, records_only)
{
	struct tracked t[] = { { self->device[0], RECORDS }, { self->device[1], RECORDS } };
	static const unsigned long pages[] = { 0, 511, NPAGES - 1 };
	__u64 bytes = store_bytes(self), size = PAGE;

	ASSERT_EQ(0, trackers_start(self->container, t, 2, IOVA, SIZE, PAGE));
	EXPECT_TRUE(container_is_idle(self));
	EXPECT_FALSE(iommu_tracks(self));
	EXPECT_EQ(0, device_write(self, 0, pages[0]));
	EXPECT_EQ(0, device_write(self, 1, pages[1]));
	EXPECT_EQ(0, device_write(self, 0, pages[1]));
	EXPECT_EQ(0, device_write(self, 1, pages[2]));
	/* the container has nothing to do with it, nor anything to lose */
	EXPECT_EQ(bytes, store_bytes(self));
	ASSERT_EQ(0, dma_unmap(self->container, IOVA, &size, 0));
	EXPECT_EQ(PAGE, size);
	expect_pages(_metadata, self, t, 2, pages, 3);
	expect_pages(_metadata, self, t, 2, NULL, 0);
	trackers_stop(self->container, t, 2);
}

TEST_F(trackers, record_and_suspended)
{
	struct tracked t[] = { { self->device[0], RECORDS }, { self->device[1], SUSPENDED } };
	static const unsigned long page = 77;

	EXPECT_EQ(0, device_write(self, 1, 3));
	ASSERT_EQ(0, trackers_start(self->container, t, 2, IOVA, SIZE, PAGE));
	EXPECT_TRUE(container_is_idle(self));
	EXPECT_EQ(0, device_write(self, 0, page));
	EXPECT_EQ(-EBUSY, device_write(self, 1, 4));
	expect_pages(_metadata, self, t, 2, &page, 1);
	trackers_stop(self->container, t, 2);
	EXPECT_EQ(0, device_write(self, 1, 4));
}

TEST_HARNESS_MAIN
