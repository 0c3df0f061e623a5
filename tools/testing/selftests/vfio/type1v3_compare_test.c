// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a container shares with its neighbours and with the machine: module
 * parameters, containers without an IOMMU, KVM. The same on both backends.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "type1v3_emulated.h"
#include "type1v3_harness.h"

#define TRACING	"/sys/kernel/tracing/"

FIXTURE(compare) {
	struct container c;
	const char *bdf;
	const char *module;
};

FIXTURE_VARIANT(compare) { unsigned long type; };
ADD_TYPES(compare);

FIXTURE_SETUP(compare)
{
	container_init(&self->c);
	self->bdf = need_device(_metadata, ENV_NVME);
	self->module = is_v3(variant->type) ? "vfio_iommu_type1v3" :
					      "vfio_iommu_type1";
}

FIXTURE_TEARDOWN(compare)
{
	container_close(&self->c);
}

static bool remaps_interrupts(void)
{
	return !access("/sys/class/iommu/dmar0", F_OK) ||
	       !access("/sys/class/iommu/ivhd0", F_OK);
}

/* Without interrupt remapping a group is accepted only if the parameter says so. */
TEST_F(compare, unsafe_interrupts)
{
	const bool safe = remaps_interrupts();

	ASSERT_EQ(0, module_param(self->module, "allow_unsafe_interrupts", "N"));
	EXPECT_EQ(safe ? 0 : -EPERM,
		  container_open(&self->c, variant->type, self->bdf));
	container_close(&self->c);
	ASSERT_EQ(0, module_param(self->module, "allow_unsafe_interrupts", "Y"));
	EXPECT_EQ(0, container_open(&self->c, variant->type, self->bdf));
	if (safe)
		module_param(self->module, "allow_unsafe_interrupts", "N");
}

static int write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return -errno;
	if (*text && write(fd, text, strlen(text)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

/* The largest iommu_map() of the test's IOVAs since the trace was emptied, bytes */
static unsigned long largest_map(void)
{
	FILE *f = fopen(TRACING "trace", "re");
	unsigned long size, largest = 0;
	const char *at;
	char line[256];

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		at = strstr(line, "iova=0x0000002000");
		at = at ? strstr(at, "size=") : NULL;
		if (at && sscanf(at, "size=%lu", &size) == 1 && size > largest)
			largest = size;
	}
	fclose(f);
	return largest;
}

/* With disable_hugepages no call could make a superpage; without, one does. */
TEST_F(compare, disable_hugepages)
{
	static const char * const value[] = { "Y", "N" };
	unsigned long largest;
	struct mem mem;

	if (!need_mem(_metadata, &mem, MEM_THP, 2 * MIB))
		return;
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->bdf));
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, module_param(self->module, "disable_hugepages",
					  value[i]));
		ASSERT_EQ(0, write_to(TRACING "events/iommu/map/enable", "1"));
		ASSERT_EQ(0, write_to(TRACING "trace", ""));
		EXPECT_EQ(0, dma_map(&self->c, TEST_IOVA, mem.va, 2 * MIB, RW));
		largest = largest_map();
		write_to(TRACING "events/iommu/map/enable", "0");
		EXPECT_EQ(2 * MIB, dma_unmap(&self->c, TEST_IOVA, 2 * MIB));
		EXPECT_LE(PAGE, largest);
		EXPECT_EQ(i == 1, largest == 2 * MIB);
	}
	mem_free(&mem);
}

/* What is for containers without an IOMMU does not get in the way, nor we in its. */
TEST_F(compare, noiommu_neighbour)
{
	struct container_info info;

	ASSERT_EQ(0, container_open(&self->c, 0, self->bdf));
	EXPECT_EQ(0, ioctl(self->c.fd, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU));
	EXPECT_EQ(-1, ioctl(self->c.fd, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_EQ(1, ioctl(self->c.fd, VFIO_CHECK_EXTENSION, variant->type));
	ASSERT_EQ(0, ioctl(self->c.fd, VFIO_SET_IOMMU, variant->type));
	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(is_v3(variant->type), info.has_own);
	EXPECT_EQ(VFIO_API_VERSION, ioctl(self->c.fd, VFIO_GET_API_VERSION));
}

/* A device without an IOMMU, in a container of its own at the same time */
TEST_F(compare, noiommu_device)
{
	struct container other;
	const char *bdf;
	struct mem mem;

	bdf = need_device(_metadata, ENV_NOIOMMU);
	if (!bdf)
		return;
	if (module_param("vfio", "enable_unsafe_noiommu_mode", "Y"))
		SKIP(return, "the kernel has no noiommu mode");
	ASSERT_EQ(0, mem_alloc(&mem, MEM_4K, PAGE));
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->bdf));
	ASSERT_EQ(0, pci_write(bdf, "driver_override", "vfio-pci"));
	ASSERT_EQ(0, file_write("/sys/bus/pci/drivers_probe", bdf));

	EXPECT_EQ(-EPERM, container_attach(&self->c, bdf));
	EXPECT_EQ(-ENODEV, container_open(&other, variant->type, bdf));
	EXPECT_EQ(1, ioctl(other.fd, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU));
	EXPECT_EQ(0, ioctl(other.fd, VFIO_CHECK_EXTENSION, variant->type));
	EXPECT_EQ(0, ioctl(other.fd, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU));
	EXPECT_EQ(-ENOTTY, dma_map(&other, TEST_IOVA, mem.va, PAGE, RW));
	EXPECT_EQ(0, dma_map(&self->c, TEST_IOVA, mem.va, PAGE, RW));
	EXPECT_EQ(PAGE, dma_unmap(&self->c, TEST_IOVA, PAGE));

	container_close(&other);
	EXPECT_EQ(0, pci_write(bdf, "driver/unbind", bdf));
	EXPECT_EQ(0, module_param("vfio", "enable_unsafe_noiommu_mode", "N"));
	mem_free(&mem);
}

static int refcount(const char *module)
{
	char path[128];
	int n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/module/%s/refcnt", module);
	f = fopen(path, "re");
	if (!f)
		return -1;
	if (fscanf(f, "%d", &n) != 1)
		n = -1;
	fclose(f);
	return n;
}

/* The module is in use as long as a container has the backend, and no longer. */
TEST_F(compare, module_in_use)
{
	int before = refcount(self->module);

	ASSERT_LE(0, before);
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->bdf));
	EXPECT_LT(before, refcount(self->module));
	EXPECT_EQ(-1, syscall(SYS_delete_module, self->module, O_NONBLOCK));
	EXPECT_EQ(EWOULDBLOCK, errno);
	ASSERT_EQ(0, container_detach(&self->c, self->bdf));
	EXPECT_EQ(before, refcount(self->module));
}

static int kvm_file(int dev, unsigned long attr, int fd)
{
	struct kvm_device_attr a = {
		.group = KVM_DEV_VFIO_GROUP,
		.attr = attr,
		.addr = (uintptr_t)&fd,
	};

	return ioctl(dev, KVM_SET_DEVICE_ATTR, &a) ? -errno : 0;
}

/* KVM is told of a group, before and after it has a container. */
TEST_F(compare, kvm)
{
	struct kvm_create_device create = { .type = KVM_DEV_TYPE_VFIO };
	int kvm, vm, dev;
	struct mem mem;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		SKIP(return, "no /dev/kvm");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	ASSERT_LE(0, vm);
	ASSERT_EQ(0, ioctl(vm, KVM_CREATE_DEVICE, &create));
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->bdf));
	EXPECT_EQ(0, kvm_file(create.fd, KVM_DEV_VFIO_GROUP_ADD,
			      self->c.group[0].fd));
	dev = container_device(&self->c, self->bdf);
	EXPECT_LE(0, dev);
	ASSERT_EQ(0, mem_alloc(&mem, MEM_4K, PAGE));
	EXPECT_EQ(0, dma_map(&self->c, TEST_IOVA, mem.va, PAGE, RW));
	EXPECT_EQ(PAGE, dma_unmap(&self->c, TEST_IOVA, PAGE));
	EXPECT_EQ(0, kvm_file(create.fd, KVM_DEV_VFIO_GROUP_DEL,
			      self->c.group[0].fd));
	close(dev);
	close(create.fd);
	close(vm);
	close(kvm);
	mem_free(&mem);
}

TEST_HARNESS_MAIN
