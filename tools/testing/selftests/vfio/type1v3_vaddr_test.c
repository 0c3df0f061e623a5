// SPDX-License-Identifier: GPL-2.0-only
/*
 * Live update: the user addresses of a container's mappings are taken away and
 * replaced, by the same process or by another, while pages stay pinned and the
 * device goes on. Needs the module vfio_emulated_test.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "type1v3_emulated.h"
#include "type1v3_harness.h"

#define IOVA(page)	(TEST_IOVA + (page) * PAGE)
#define NPAGES		64UL
#define BYTES		(NPAGES * PAGE)
#define ENV_EXEC	"TYPE1V3_VADDR_EXEC"

FIXTURE(vaddr) {
	struct container c;
	const char *bdf;
	int memfd;
	__u8 *va;
	long locked, pinned;
};

FIXTURE_VARIANT(vaddr) { unsigned long type; };
FIXTURE_VARIANT_ADD(vaddr, type1v2) { .type = VFIO_TYPE1v2_IOMMU };
FIXTURE_VARIANT_ADD(vaddr, type1v3) { .type = VFIO_TYPE1v3_IOMMU };

static __u8 *map_file(int memfd)
{
	__u8 *va = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memfd,
			0);

	return va == MAP_FAILED ? NULL : va;
}

/* Nothing is mapped at first. The memory is a file, so that others can have it. */
FIXTURE_SETUP(vaddr)
{
	container_init(&self->c);
	self->bdf = need_device(_metadata, ENV_NVME);
	if (!self->bdf)
		return;
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->bdf));
	self->memfd = memfd_create("type1v3", 0);
	ASSERT_LE(0, self->memfd);
	ASSERT_EQ(0, ftruncate(self->memfd, BYTES));
	self->va = map_file(self->memfd);
	ASSERT_NE(NULL, self->va);
	pattern_fill(self->va, BYTES, 0);
	self->locked = locked_pages();
	self->pinned = pinned_pages();
}

FIXTURE_TEARDOWN(vaddr)
{
	container_close(&self->c);
	munmap(self->va, BYTES);
	close(self->memfd);
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
}

#define EXPECT_HELD(charged, held) do { \
	EXPECT_EQ((charged), locked_pages() - self->locked); \
	EXPECT_EQ((held), pinned_pages() - self->pinned); \
} while (0)

/* Addresses change, pages do not, and the device notices nothing. */
TEST_F(vaddr, same_process)
{
	__u64 iova[4] = { IOVA(0), IOVA(1), IOVA(30), IOVA(63) };
	struct mem data;
	struct nvme n;
	__u8 *va;

	nvme_init(&n);
	ASSERT_EQ(0, mem_alloc(&data, MEM_4K, 4 * PAGE));
	ASSERT_EQ(0, nvme_open(&n, &self->c, self->bdf, NVME_IOVA));
	EXPECT_EQ(1, ioctl(self->c.fd, VFIO_CHECK_EXTENSION, VFIO_UPDATE_VADDR));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->va, BYTES / 2, RW));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(NPAGES / 2), self->va + BYTES / 2,
			     BYTES / 2, RW));
	EXPECT_HELD(NPAGES + n.mem.size / PAGE, NPAGES + n.mem.size / PAGE);

	EXPECT_EQ(BYTES + n.mem.size,
		  vaddr_invalidate(&self->c, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL));
	EXPECT_HELD(NPAGES + n.mem.size / PAGE, NPAGES + n.mem.size / PAGE);
	ASSERT_EQ(0, munmap(self->va, BYTES));

	/* the device works while there is no address */
	pattern_fill(data.va, 4 * PAGE, 1000);
	EXPECT_EQ(0, nvme_dma_write(&n, iova, 4, data.va));

	/* other addresses, so that the old ones would be wrong */
	ASSERT_NE(MAP_FAILED, mmap(self->va, BYTES, PROT_NONE, MAP_FIXED |
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	va = map_file(self->memfd);
	ASSERT_NE(NULL, va);
	ASSERT_NE(self->va, va);
	EXPECT_EQ(0, vaddr_update(&self->c, IOVA(0), va, BYTES / 2));
	EXPECT_EQ(0, vaddr_update(&self->c, IOVA(NPAGES / 2), va + BYTES / 2,
				  BYTES / 2));
	EXPECT_EQ(0, vaddr_update(&self->c, n.iova, n.mem.va, n.mem.size));
	EXPECT_HELD(NPAGES + n.mem.size / PAGE, NPAGES + n.mem.size / PAGE);
	munmap(self->va, BYTES);
	self->va = va;

	EXPECT_EQ(0, memcmp(data.va, va, PAGE));
	EXPECT_EQ(0, memcmp(data.va + PAGE, va + PAGE, PAGE));
	EXPECT_EQ(0, memcmp(data.va + 2 * PAGE, va + 30 * PAGE, PAGE));
	EXPECT_EQ(0, memcmp(data.va + 3 * PAGE, va + 63 * PAGE, PAGE));
	EXPECT_EQ(-1, pattern_check(va + 2 * PAGE, 28 * PAGE, 2 * PAGE / 8));
	pattern_fill(data.va, 4 * PAGE, 2000);
	EXPECT_EQ(0, nvme_dma_write(&n, iova, 4, data.va));
	EXPECT_EQ(0, memcmp(data.va, va, PAGE));
	memset(data.va, 0, 4 * PAGE);
	EXPECT_EQ(0, nvme_dma_read(&n, iova, 4, data.va));
	EXPECT_EQ(-1, pattern_check(data.va, 4 * PAGE, 2000));
	EXPECT_EQ(BYTES, dma_unmap(&self->c, IOVA(0), BYTES));
	nvme_close(&n);
	mem_free(&data);
}

/* The new address is what is used from then on. */
TEST_F(vaddr, new_address_used)
{
	__u8 *va = mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	__u64 word = 0;
	int dev;

	ASSERT_NE(MAP_FAILED, va);
	pattern_fill(va, BYTES, 5555);
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->va, BYTES, RW));
	EXPECT_EQ(BYTES, vaddr_invalidate(&self->c, IOVA(0), BYTES, 0));
	EXPECT_EQ(0, vaddr_update(&self->c, IOVA(0), va, BYTES));

	ASSERT_EQ(0, emulated_attach(&self->c, 0));
	dev = container_device(&self->c, emulated_name(0));
	ASSERT_LE(0, dev);
	EXPECT_EQ(0, emulated_rw(dev, IOVA(9), &word, 8, 0));
	EXPECT_EQ(*(__u64 *)(va + 9 * PAGE), word);
	ASSERT_EQ(1, emulated_pin(dev, IOVA(8), 1, PIN_RW, NULL));
	EXPECT_EQ(0, emulated_access(dev, IOVA(8), &word, 8, 0));
	EXPECT_EQ(*(__u64 *)(va + 8 * PAGE), word);
	close(dev);
	munmap(va, BYTES);
}

TEST_F(vaddr, bad_calls)
{
	const __u32 update = VFIO_DMA_MAP_FLAG_VADDR;

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->va, 8 * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(8), self->va, 8 * PAGE, RW));

	/* of what is valid, or not mapped, or mapped in part */
	EXPECT_EQ(-EINVAL, vaddr_update(&self->c, IOVA(0), self->va, 8 * PAGE));
	EXPECT_EQ(-ENOENT, vaddr_update(&self->c, IOVA(99), self->va, PAGE));
	EXPECT_EQ(0, vaddr_invalidate(&self->c, IOVA(99), PAGE, 0));
	EXPECT_EQ(8 * PAGE, vaddr_invalidate(&self->c, IOVA(8), 8 * PAGE, 0));
	EXPECT_EQ(-EINVAL, vaddr_update(&self->c, IOVA(8), self->va, 9 * PAGE));
	EXPECT_EQ(-EINVAL, vaddr_update(&self->c, IOVA(7), self->va, 9 * PAGE));
	EXPECT_EQ(-EINVAL, vaddr_update(&self->c, IOVA(0), self->va, 16 * PAGE));

	/* twice, alone and with others: nothing changes */
	EXPECT_EQ(-EINVAL, vaddr_invalidate(&self->c, IOVA(8), 8 * PAGE, 0));
	EXPECT_EQ(-EINVAL, vaddr_update(&self->c, IOVA(0), self->va, 8 * PAGE));

	/* flags and sizes */
	EXPECT_EQ(-EINVAL, dma_map(&self->c, IOVA(8), self->va, 8 * PAGE,
				   update | RO));
	EXPECT_EQ(-EINVAL, dma_map(&self->c, IOVA(8), self->va, 8 * PAGE,
				   update | WO));
	EXPECT_EQ(-EINVAL, vaddr_update(&self->c, IOVA(8), self->va, 0));
	EXPECT_EQ(-EINVAL, vaddr_update(&self->c, IOVA(8), self->va, 100));
	EXPECT_EQ(-EINVAL, vaddr_update(&self->c, IOVA(8), self->va + 8,
					8 * PAGE));
	EXPECT_EQ(-EINVAL, vaddr_update(&self->c, IOVA(8) + 8, self->va,
					8 * PAGE));
	EXPECT_EQ(wrap_errno(variant->type),
		  vaddr_update(&self->c, IOVA(8), (void *)-PAGE, 8 * PAGE));
	EXPECT_EQ(-EINVAL, vaddr_invalidate(&self->c, IOVA(0), 0, 0));
	EXPECT_EQ(-EINVAL, vaddr_invalidate(&self->c, IOVA(0), 100, 0));
	EXPECT_EQ(-EINVAL, vaddr_invalidate(&self->c, 0, PAGE,
					    VFIO_DMA_UNMAP_FLAG_ALL));
	EXPECT_EQ(-EINVAL,
		  vaddr_invalidate(&self->c, IOVA(0), 8 * PAGE,
				   VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP));

	EXPECT_EQ(0, vaddr_update(&self->c, IOVA(8), self->va, 8 * PAGE));
	EXPECT_EQ(-EINVAL, vaddr_update(&self->c, IOVA(8), self->va, 8 * PAGE));
	EXPECT_HELD(16, 16);
}

/* What -EINVAL for the one that was invalid already must leave of the others. */
TEST_F(vaddr, invalid_twice)
{
	for (int i = 0; i < 4; i++)
		ASSERT_EQ(0, dma_map(&self->c, IOVA(i), self->va + i * PAGE,
				     PAGE, RW));
	/* a later one: type1v2 takes back what it did before it came there */
	EXPECT_EQ(PAGE, vaddr_invalidate(&self->c, IOVA(3), PAGE, 0));
	EXPECT_EQ(-EINVAL, vaddr_invalidate(&self->c, 0, 0,
					    VFIO_DMA_UNMAP_FLAG_ALL));
	for (int i = 0; i < 3; i++)
		EXPECT_EQ(-EINVAL, vaddr_update(&self->c, IOVA(i), self->va,
						PAGE));
	EXPECT_EQ(0, vaddr_update(&self->c, IOVA(3), self->va, PAGE));
	EXPECT_EQ(4 * PAGE, vaddr_invalidate(&self->c, 0, 0,
					     VFIO_DMA_UNMAP_FLAG_ALL));
}

/* Any part of any mapping, whatever calls made it. */
TEST_F(vaddr, any_range)
{
	const bool v3 = is_v3(variant->type);
	__u64 word = 0;
	int dev;

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->va, 16 * PAGE, RW));
	EXPECT_EQ(v3 ? 5 * (__s64)PAGE : -EINVAL,
		  vaddr_invalidate(&self->c, IOVA(3), 5 * PAGE, 0));
	EXPECT_EQ(v3 ? 0 : -EINVAL,
		  vaddr_update(&self->c, IOVA(4), self->va + 40 * PAGE, 2 * PAGE));
	EXPECT_EQ(v3 ? 0 : -EINVAL,
		  vaddr_update(&self->c, IOVA(3), self->va + 3 * PAGE, PAGE));
	EXPECT_EQ(v3 ? 0 : -EINVAL,
		  vaddr_update(&self->c, IOVA(6), self->va + 6 * PAGE, 2 * PAGE));

	/* many at once */
	for (int i = 16; i < 32; i++)
		ASSERT_EQ(0, dma_map(&self->c, IOVA(i), self->va + (i ^ 1) * PAGE,
				     PAGE, RW));
	EXPECT_EQ(16 * PAGE, vaddr_invalidate(&self->c, IOVA(16), 16 * PAGE, 0));
	EXPECT_EQ(v3 ? 0 : -EINVAL,
		  vaddr_update(&self->c, IOVA(16), self->va + 16 * PAGE,
			       16 * PAGE));
	EXPECT_HELD(32, 32);
	if (!v3)
		return;

	ASSERT_EQ(0, emulated_attach(&self->c, 0));
	dev = container_device(&self->c, emulated_name(0));
	ASSERT_LE(0, dev);
	for (int i = 0; i < 32; i++) {
		int page = i == 4 || i == 5 ? i + 36 : i;

		EXPECT_EQ(0, emulated_rw(dev, IOVA(i), &word, 8, 0));
		EXPECT_EQ(*(__u64 *)(self->va + page * PAGE), word);
	}
	close(dev);
	EXPECT_EQ(32 * PAGE, dma_unmap_all(&self->c));
}

/* Meanwhile mappings can come and go, but groups cannot come. */
TEST_F(vaddr, meanwhile)
{
	const char *other;

	other = need_device(_metadata, ENV_NVME2);
	if (!other)
		return;
	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->va, 8 * PAGE, RW));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(8), self->va, 8 * PAGE, RW));
	EXPECT_EQ(16 * PAGE, vaddr_invalidate(&self->c, 0, 0,
					      VFIO_DMA_UNMAP_FLAG_ALL));
	EXPECT_EQ(-EBUSY, container_attach(&self->c, other));
	EXPECT_EQ(-EBUSY, emulated_attach(&self->c, 0));
	EXPECT_EQ(0, dma_map(&self->c, IOVA(32), self->va, PAGE, RW));
	EXPECT_EQ(-EEXIST, dma_map(&self->c, IOVA(8), self->va, PAGE, RW));
	EXPECT_EQ(8 * PAGE, dma_unmap(&self->c, IOVA(0), 8 * PAGE));
	EXPECT_HELD(9, 9);
	EXPECT_EQ(-EBUSY, container_attach(&self->c, other));
	EXPECT_EQ(8 * PAGE, dma_unmap(&self->c, IOVA(8), 8 * PAGE));
	EXPECT_EQ(0, container_attach(&self->c, other));
	EXPECT_EQ(0, container_detach(&self->c, other));
	EXPECT_EQ(0, emulated_attach(&self->c, 0));

	/* with emulated devices there is no update */
	EXPECT_EQ(0, ioctl(self->c.fd, VFIO_CHECK_EXTENSION, VFIO_UPDATE_VADDR));
	EXPECT_EQ(-EBUSY, vaddr_invalidate(&self->c, IOVA(32), PAGE, 0));
	EXPECT_EQ(0, container_detach(&self->c, emulated_name(0)));
	EXPECT_EQ(1, ioctl(self->c.fd, VFIO_CHECK_EXTENSION, VFIO_UPDATE_VADDR));
	EXPECT_EQ(PAGE, vaddr_invalidate(&self->c, IOVA(32), PAGE, 0));
	EXPECT_EQ(0, container_detach(&self->c, self->bdf));
	EXPECT_HELD(0, 0);
}

static int send_fds(int sock, const int *fds, int n)
{
	char byte = 0, control[CMSG_SPACE(8 * sizeof(int))] = {};
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE(n * sizeof(int)),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(cmsg), fds, n * sizeof(int));
	return sendmsg(sock, &msg, 0) == 1 ? 0 : -errno;
}

static int receive_fds(int sock, int *fds, int n)
{
	char byte, control[CMSG_SPACE(8 * sizeof(int))] = {};
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};

	if (recvmsg(sock, &msg, 0) != 1 || !CMSG_FIRSTHDR(&msg))
		return -EIO;
	memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&msg)), n * sizeof(int));
	return 0;
}

/* Wait for the peer, or let it go on. */
static int step(int sock, bool wait)
{
	char byte = 1;

	return (wait ? read(sock, &byte, 1) : write(sock, &byte, 1)) == 1 ? 0 :
									   -EIO;
}

/*
 * The process that takes over, which has nothing but what it is sent. Its exit
 * status is the number of the step that went wrong.
 */
static int take_over(int sock, bool v3)
{
	long before, locked = locked_pages();
	struct container c = { .fd = -1 };
	struct rlimit limit, none;
	int fds[2];
	__u8 *va;

	if (receive_fds(sock, fds, 2))
		return 1;
	c.fd = fds[0];
	va = map_file(fds[1]);
	if (!va)
		return 2;

	/* the first half only: the old owner keeps the other on type1v2 */
	if (vaddr_update(&c, IOVA(0), va, BYTES / 2) != (v3 ? -EPERM : 0))
		return 3;
	if (locked_pages() - locked != (v3 ? 0 : NPAGES / 2))
		return 4;
	/* type1v3: one owner only, so others cannot map; type1v2 does not mind */
	if (dma_map(&c, IOVA(500), va, PAGE, RW) != (v3 ? -EPERM : 0))
		return 5;
	if (!v3 && dma_unmap(&c, IOVA(500), PAGE) != PAGE)
		return 6;
	if (step(sock, false) || step(sock, true))
		return 7;

	/* now all of it is invalid; but not with this limit */
	before = locked_pages();
	if (drop_ipc_lock() || getrlimit(RLIMIT_MEMLOCK, &limit))
		return 8;
	none = limit;
	none.rlim_cur = (before + 1) * PAGE;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_MEMLOCK, &none))
		return 9;
	if (vaddr_update(&c, IOVA(NPAGES / 2), va + BYTES / 2, BYTES / 2) !=
	    -ENOMEM)
		return 10;
	if (locked_pages() != before)
		return 11;
	if (step(sock, false) || step(sock, true))
		return 12;

	limit.rlim_cur = (before + NPAGES) * PAGE;
	if (limit.rlim_max < limit.rlim_cur)
		limit.rlim_max = limit.rlim_cur;
	if (setrlimit(RLIMIT_MEMLOCK, &limit))
		return 13;
	if (vaddr_update(&c, IOVA(NPAGES / 2), va + BYTES / 2, BYTES / 2))
		return 14;
	if (v3 && vaddr_update(&c, IOVA(0), va, BYTES / 2))
		return 15;
	if (locked_pages() - locked != NPAGES)
		return 16;
	if (step(sock, false) || step(sock, true))
		return 17;

	/* it maps and unmaps as if it had done so from the start */
	if (dma_unmap(&c, IOVA(0), BYTES / 2) != BYTES / 2)
		return 18;
	if (dma_map(&c, IOVA(0), va, BYTES / 2, RW))
		return 19;
	return 0;
}

/* The owner moves to a process that is sent the files; so does what is charged. */
TEST_F(vaddr, owner_moves_fd)
{
	int sock[2], status, fds[2] = { self->c.fd, self->memfd };
	const bool v3 = is_v3(variant->type);
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(self->c.fd);
		close(self->memfd);
		munmap(self->va, BYTES);
		_exit(take_over(sock[1], v3));
	}
	close(sock[1]);

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->va, BYTES / 2, RW));
	ASSERT_EQ(0, dma_map(&self->c, IOVA(NPAGES / 2), self->va + BYTES / 2,
			     BYTES / 2, RW));
	EXPECT_EQ(BYTES / 2, vaddr_invalidate(&self->c, IOVA(0), BYTES / 2, 0));
	EXPECT_HELD(NPAGES, NPAGES);
	ASSERT_EQ(0, send_fds(sock[0], fds, 2));
	ASSERT_EQ(0, step(sock[0], true));
	EXPECT_HELD(v3 ? NPAGES : NPAGES / 2, NPAGES);

	EXPECT_EQ(BYTES / 2, vaddr_invalidate(&self->c, IOVA(NPAGES / 2),
					      BYTES / 2, 0));
	ASSERT_EQ(0, step(sock[0], false));
	ASSERT_EQ(0, step(sock[0], true));
	/* -ENOMEM has changed nothing */
	EXPECT_HELD(v3 ? NPAGES : NPAGES / 2, NPAGES);
	ASSERT_EQ(0, step(sock[0], false));
	ASSERT_EQ(0, step(sock[0], true));
	EXPECT_HELD(0, NPAGES);
	EXPECT_EQ(NPAGES, locked_pages_of(pid));
	if (v3)
		EXPECT_EQ(-EPERM, dma_map(&self->c, IOVA(500), self->va, PAGE, RW));
	ASSERT_EQ(0, step(sock[0], false));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status));
	EXPECT_HELD(0, NPAGES);

	/* that one has gone, its mappings have not: this process takes them back */
	EXPECT_EQ(BYTES, vaddr_invalidate(&self->c, 0, 0,
					  VFIO_DMA_UNMAP_FLAG_ALL));
	EXPECT_EQ(0, vaddr_update(&self->c, IOVA(0), self->va, BYTES / 2));
	EXPECT_EQ(0, vaddr_update(&self->c, IOVA(NPAGES / 2),
				  self->va + BYTES / 2, BYTES / 2));
	EXPECT_HELD(NPAGES, NPAGES);
	EXPECT_EQ(BYTES, dma_unmap_all(&self->c));
	EXPECT_HELD(0, 0);
	close(sock[0]);
}

/*
 * What the new program does after exec. It is this program, which is told by its
 * environment, before any test starts.
 */
static void __attribute__((constructor)) after_exec(void)
{
	const char *env = getenv(ENV_EXEC);
	struct container c = {};
	int memfd;
	__u8 *va;

	if (!env)
		return;
	if (sscanf(env, "%d %d", &c.fd, &memfd) != 2)
		_exit(1);
	if (locked_pages())
		_exit(2);
	va = map_file(memfd);
	if (!va)
		_exit(3);
	if (vaddr_update(&c, IOVA(0), va, BYTES))
		_exit(4);
	if (locked_pages() != NPAGES)
		_exit(5);
	if (dma_map(&c, IOVA(NPAGES), va, PAGE, RW))
		_exit(6);
	if (locked_pages() != NPAGES + 1)
		_exit(7);
	if (dma_unmap_all(&c) != BYTES + PAGE)
		_exit(8);
	if (locked_pages())
		_exit(9);
	_exit(0);
}

TEST_F(vaddr, owner_moves_exec)
{
	char env[64];
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (dma_map(&self->c, IOVA(0), self->va, BYTES, RW))
			_exit(100);
		if (vaddr_invalidate(&self->c, IOVA(0), BYTES, 0) != BYTES)
			_exit(101);
		fcntl(self->c.fd, F_SETFD, 0);
		snprintf(env, sizeof(env), "%d %d", self->c.fd, self->memfd);
		setenv(ENV_EXEC, env, 1);
		execl("/proc/self/exe", "type1v3_vaddr_test", NULL);
		_exit(102);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status));
	EXPECT_HELD(0, 0);
	EXPECT_EQ(0, dma_unmap_all(&self->c));
}

TEST_HARNESS_MAIN
