// SPDX-License-Identifier: GPL-2.0-only
/*
 * How a program uses type1v3: select it, map and unmap in batches, ask what
 * it costs. The guide in Documentation/userspace-api shows parts of this file,
 * which is complete: it runs on a VFIO group whose devices are bound to
 * vfio-pci or have no driver.
 *
 *	type1v3_example [-2] /dev/vfio/GROUP
 *
 * With -2 it asks for type1v2, as a program that does not know type1v3, and
 * says which of the two answered.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <linux/vfio.h>
#include <linux/vfio_type1v3.h>

#define PAGE	4096UL
#define NPAGES	256UL
#define IOVA	0x100000000UL

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* [select] */
static int container_open(const char *group_path, int alias)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	unsigned long type = VFIO_TYPE1v2_IOMMU;
	int container, group;

	container = open("/dev/vfio/vfio", O_RDWR);
	group = open(group_path, O_RDWR);
	if (container < 0 || group < 0)
		die("open");
	if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) ||
	    !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		die("a device of the group has another driver");

	if (!alias && ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v3_IOMMU) > 0)
		type = VFIO_TYPE1v3_IOMMU;
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) ||
	    ioctl(container, VFIO_SET_IOMMU, type))
		die("VFIO_SET_IOMMU");
	return container;
}

/* [select end] */

/* [usage] */
/* What the container holds; -1 if its backend is not type1v3. */
static int container_usage(int container, struct vfio_iommu_type1v3_info_cap_usage *usage)
{
	struct vfio_iommu_type1_info *info, first = { .argsz = sizeof(first) };
	struct vfio_info_cap_header *header;
	__u32 offset;
	int ret = -1;

	if (ioctl(container, VFIO_IOMMU_GET_INFO, &first))
		die("VFIO_IOMMU_GET_INFO");
	info = calloc(1, first.argsz);
	if (!info)
		die("calloc");
	info->argsz = first.argsz;
	if (ioctl(container, VFIO_IOMMU_GET_INFO, info))
		die("VFIO_IOMMU_GET_INFO");
	offset = info->flags & VFIO_IOMMU_INFO_CAPS ? info->cap_offset : 0;
	while (offset && ret) {
		header = (void *)((char *)info + offset);
		if (header->id == VFIO_IOMMU_TYPE1V3_INFO_CAP_USAGE) {
			memcpy(usage, header, sizeof(*usage));
			ret = 0;
		}
		offset = header->next;
	}
	free(info);
	return ret;
}

/* [usage end] */

/* [batch] */
/*
 * Maps or unmaps (buffer is NULL) n pages, each to where a guest may have put
 * it: here, in reverse. Returns how many entries were done. If the ioctl fails
 * none is, and every result is still what it was set to: with ENOTTY, which is
 * the answer of a backend without batches, a program would go on with
 * VFIO_IOMMU_MAP_DMA and VFIO_IOMMU_UNMAP_DMA for each.
 */
static unsigned int batch(int container, char *buffer, unsigned int n)
{
	static struct vfio_iommu_type1v3_batch_entry entries[VFIO_IOMMU_TYPE1V3_BATCH_MAX];
	struct vfio_iommu_type1v3_batch arg = {
		.argsz = sizeof(arg),
		.flags = VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE,
		.nr_entries = n,
		.entries = (unsigned long)entries,
	};
	unsigned int i, done = 0;
	int failed;

	for (i = 0; i < n; i++) {
		entries[i].iova = IOVA + (n - 1 - i) * PAGE;
		entries[i].size = PAGE;
		entries[i].vaddr = buffer ? (unsigned long)buffer + i * PAGE : 0;
		entries[i].flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP;
		if (buffer)
			entries[i].flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
		entries[i].result = -ECANCELED;
	}
	failed = ioctl(container, VFIO_IOMMU_TYPE1V3_BATCH, &arg);
	if (failed < 0)
		fprintf(stderr, "VFIO_IOMMU_TYPE1V3_BATCH: %s\n", strerror(errno));
	else if (failed)
		fprintf(stderr, "%d of %u entries have failed\n", failed, n);
	for (i = 0; i < n; i++) {
		if (!entries[i].result)
			done++;
		else
			fprintf(stderr, "IOVA 0x%llx: %s\n", entries[i].iova,
				strerror(-entries[i].result));
	}
	return done;
}

/* [batch end] */

int main(int argc, char **argv)
{
	struct vfio_iommu_type1v3_info_cap_usage usage;
	int alias = argc > 1 && !strcmp(argv[1], "-2");
	int container;
	char *buffer;

	if (argc != 2 + alias) {
		fprintf(stderr, "usage: %s [-2] /dev/vfio/GROUP\n", argv[0]);
		return 2;
	}
	container = container_open(argv[1 + alias], alias);
	if (container_usage(container, &usage)) {
		printf("type1v2 answers\n");
		return 1;
	}
	printf("type1v3 answers\n");

	buffer = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffer == MAP_FAILED)
		die("mmap");
	if (batch(container, buffer, NPAGES) != NPAGES ||
	    container_usage(container, &usage))
		return 1;
	printf("%llu pages mapped in one call, %llu pinned, recorded in %llu bytes\n",
	       usage.mapped_pages, usage.pinned_pages, usage.store_bytes);
	if (batch(container, NULL, NPAGES) != NPAGES ||
	    container_usage(container, &usage) || usage.mapped_pages)
		return 1;
	printf("and unmapped in one\n");
	return 0;
}
