// SPDX-License-Identifier: GPL-2.0-only
/*
 * nested-io sum FILE OFFSET BYTES [NODE]	print a checksum
 * nested-io copy FILE OFFSET BYTES TO [NODE]	copy to another offset
 *
 * On a block device past the page cache, as dd with iflag=direct does, but
 * through a buffer whose neighbouring pages are no neighbours in memory. That
 * is the memory of a guest which has been up for long; in one freshly booted
 * most buffers are contiguous, a mapping covers dozens of pages, and there is
 * little to see.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/mempolicy.h>

#define PAGE_BYTES	4096UL
#define BUFFER_BYTES	(16UL << 20)

static char *scattered_buffer(size_t bytes, const char *node)
{
	unsigned long nodes = node ? 1UL << atoi(node) : 0;
	size_t npages = bytes / PAGE_BYTES, i;
	char *buffer;

	buffer = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffer == MAP_FAILED)
		err(1, "mmap");
	if (node && syscall(SYS_mbind, buffer, BUFFER_BYTES, MPOL_BIND, &nodes,
			    8 * sizeof(nodes), 0))
		err(1, "mbind to node %s", node);
	madvise(buffer, BUFFER_BYTES, MADV_NOHUGEPAGE);
	/* memory comes in the order of the first touches: an odd stride */
	for (i = 0; i < npages; i++)
		buffer[i * 1021 % npages * PAGE_BYTES] = 1;
	return buffer;
}

/* Every word counts, and so does its place. The multiplier is odd: no bit is lost. */
static uint64_t add_up(uint64_t sum, const void *buffer, size_t bytes)
{
	const uint64_t *word = buffer;

	for (; bytes; bytes -= sizeof(*word))
		sum = (sum ^ *word++) * 0x9e3779b97f4a7c15;
	return sum;
}

int main(int argc, char **argv)
{
	off_t from, to = 0;
	uint64_t sum = 0;
	size_t bytes, chunk;
	struct stat st;
	char *buffer;
	int fd, copy;

	copy = argc > 1 && !strcmp(argv[1], "copy");
	if (argc < 5 + copy || argc > 6 + copy || (!copy && strcmp(argv[1], "sum")))
		errx(1, "usage: nested-io sum|copy FILE OFFSET BYTES [TO] [NODE]");
	from = strtoll(argv[3], NULL, 0);
	bytes = strtoull(argv[4], NULL, 0);
	if (copy)
		to = strtoll(argv[5], NULL, 0);
	if (stat(argv[2], &st))
		err(1, "%s", argv[2]);
	fd = open(argv[2], (copy ? O_RDWR : O_RDONLY) | (S_ISBLK(st.st_mode) ? O_DIRECT : 0));
	if (fd < 0)
		err(1, "%s", argv[2]);
	buffer = scattered_buffer(bytes < BUFFER_BYTES ? bytes : BUFFER_BYTES,
				  argc > 5 + copy ? argv[5 + copy] : NULL);

	for (; bytes; bytes -= chunk, from += chunk, to += chunk) {
		chunk = bytes < BUFFER_BYTES ? bytes : BUFFER_BYTES;
		if (pread(fd, buffer, chunk, from) != (ssize_t)chunk)
			err(1, "cannot read %zu bytes at %lld", chunk, (long long)from);
		if (!copy)
			sum = add_up(sum, buffer, chunk);
		else if (pwrite(fd, buffer, chunk, to) != (ssize_t)chunk)
			err(1, "cannot write %zu bytes at %lld", chunk, (long long)to);
	}
	if (copy && fsync(fd))
		err(1, "fsync");
	if (!copy)
		printf("%016llx\n", (unsigned long long)sum);
	return 0;
}
