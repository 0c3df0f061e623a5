// SPDX-License-Identifier: GPL-2.0-only
/*
 * type1v3_load PCI-ADDRESS: a container in which pages are mapped and unmapped,
 * and now and then something fails, until it is killed. For others to look at.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "type1v3_lib.h"

#define NPAGES		64UL
#define IOVA(page)	(TEST_IOVA + 2 * (page) * PAGE)

static int check(const char *what, long expected, long ret)
{
	if (ret != expected)
		fprintf(stderr, "%s: %s\n", what, strerror(-ret));
	return ret != expected;
}

int main(int argc, char **argv)
{
	struct container c;
	struct mem mem;
	int failed;

	if (argc != 2) {
		fprintf(stderr, "usage: %s PCI-ADDRESS\n", argv[0]);
		return 2;
	}
	failed = check("memory", 0, mem_alloc(&mem, MEM_4K, NPAGES * PAGE)) ||
		 check("container", 0, container_open(&c, VFIO_TYPE1v3_IOMMU, argv[1]));
	for (unsigned long i = 0; !failed && i < NPAGES; i++)
		failed = check("map", 0, dma_map(&c, IOVA(i), mem.va + i * PAGE, PAGE, RW));
	for (unsigned long i = 0; !failed; i = (i + 1) % NPAGES) {
		failed = check("unmap", PAGE, dma_unmap(&c, IOVA(i), PAGE)) ||
			 check("map", 0, dma_map(&c, IOVA(i), mem.va + i * PAGE, PAGE, RW)) ||
			 check("map again", -EEXIST,
			       dma_map(&c, IOVA(i), mem.va + i * PAGE, PAGE, RW));
		usleep(10000);
	}
	return 1;
}
