// SPDX-License-Identifier: GPL-2.0-only
/*
 * demo-io read|write DEVICE OFFSET BYTES
 *
 * Copies between a block device and stdout or stdin, past the page cache, as
 * dd with iflag=direct does, but through a buffer whose neighbouring pages are
 * no neighbours in memory. That is the memory of a guest which has been up for
 * long; in one freshly booted most buffers are contiguous, a mapping covers
 * dozens of pages, and there is little to see.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES	4096UL
#define BUFFER_BYTES	(16UL << 20)

/* All of count bytes or nothing: a short transfer is an error here. */
static void copy(ssize_t (*io)(int, void *, size_t), int fd, char *buffer,
		 size_t count, const char *what)
{
	while (count) {
		ssize_t done = io(fd, buffer, count);

		if (done <= 0)
			err(1, "%s", what);
		buffer += done;
		count -= done;
	}
}

static ssize_t do_write(int fd, void *buffer, size_t count)
{
	return write(fd, buffer, count);
}

int main(int argc, char **argv)
{
	size_t npages = BUFFER_BYTES / PAGE_BYTES, i, bytes, chunk;
	int writing, fd;
	char *buffer;

	if (argc != 5)
		errx(1, "usage: demo-io read|write DEVICE OFFSET BYTES");
	writing = !strcmp(argv[1], "write");
	bytes = strtoul(argv[4], NULL, 0);

	fd = open(argv[2], (writing ? O_WRONLY : O_RDONLY) | O_DIRECT);
	if (fd < 0)
		err(1, "%s", argv[2]);
	if (lseek(fd, strtol(argv[3], NULL, 0), SEEK_SET) < 0)
		err(1, "lseek");

	buffer = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffer == MAP_FAILED)
		err(1, "mmap");
	madvise(buffer, BUFFER_BYTES, MADV_NOHUGEPAGE);
	/* memory comes in the order of the first touches: an odd stride */
	for (i = 0; i < npages; i++)
		buffer[i * 1021 % npages * PAGE_BYTES] = 1;

	for (; bytes; bytes -= chunk) {
		chunk = bytes < BUFFER_BYTES ? bytes : BUFFER_BYTES;
		copy(writing ? read : read, writing ? 0 : fd, buffer, chunk, "read");
		copy(do_write, writing ? fd : 1, buffer, chunk, "write");
	}
	if (writing && fsync(fd))
		err(1, "fsync");
	return 0;
}
