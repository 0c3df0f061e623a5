// SPDX-License-Identifier: GPL-2.0-only
/*
 * clients-usage PID: what the VFIO container of a process holds, as "MAPPED
 * PINNED BYTES": pages mapped, pages pinned, bytes of metadata. The status is 0
 * if type1v3 answers, 3 if another backend does, 4 if there is no container.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/vfio.h>
#include <linux/vfio_type1v3.h>

/* A container of the process with a backend, as a file of ours; -1 if it has none. */
static int find_container(int pid)
{
	struct vfio_iommu_type1_info info = { .argsz = sizeof(info) };
	char path[64], target[64];
	int fd, process;
	struct dirent *entry;
	ssize_t length;
	DIR *dir;

	process = syscall(SYS_pidfd_open, pid, 0);
	if (process < 0)
		err(1, "pidfd_open");
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir)
		err(1, "%s", path);
	while ((entry = readdir(dir))) {
		length = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		if (length < 0)
			continue;
		target[length] = '\0';
		if (strcmp(target, "/dev/vfio/vfio"))
			continue;
		fd = syscall(SYS_pidfd_getfd, process, atoi(entry->d_name), 0);
		if (fd < 0)
			err(1, "pidfd_getfd");
		if (!ioctl(fd, VFIO_IOMMU_GET_INFO, &info))
			return fd;
		close(fd);
	}
	return -1;
}

int main(int argc, char **argv)
{
	union {
		struct vfio_iommu_type1_info info;
		char bytes[4096];
	} answer = { .info.argsz = sizeof(answer) };
	const struct vfio_iommu_type1v3_info_cap_usage *usage;
	__u32 at;
	int fd;

	if (argc != 2)
		errx(1, "usage: clients-usage PID");
	fd = find_container(atoi(argv[1]));
	if (fd < 0)
		return 4;
	if (ioctl(fd, VFIO_IOMMU_GET_INFO, &answer))
		err(1, "VFIO_IOMMU_GET_INFO");
	if (!(answer.info.flags & VFIO_IOMMU_INFO_CAPS))
		return 3;
	for (at = answer.info.cap_offset; at; at = usage->header.next) {
		usage = (const void *)(answer.bytes + at);
		if (usage->header.id == VFIO_IOMMU_TYPE1V3_INFO_CAP_USAGE)
			break;
	}
	if (!at)
		return 3;
	printf("%llu %llu %llu\n", usage->mapped_pages, usage->pinned_pages, usage->store_bytes);
	return 0;
}
