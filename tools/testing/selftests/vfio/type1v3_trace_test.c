// SPDX-License-Identifier: GPL-2.0-only
/*
 * What can be seen of a container from outside: its tracepoints, its files in
 * debugfs, and the table that type1v3-top makes of them.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "type1v3_emulated.h"
#include "type1v3_harness.h"

#define DEBUGFS		"/sys/kernel/debug/vfio_type1v3"
#define TRACEFS		"/sys/kernel/tracing/instances/type1v3_test"

#define IOVA(page)	(TEST_IOVA + (page) * PAGE)
#define NPAGES		256UL
#define BATCH_MAX	VFIO_IOMMU_TYPE1V3_BATCH_MAX

/* What was read last */
static char text[1 << 20];

/* All of a file, as a string; 0 or a negative errno */
static int read_to(const char *path, char *to, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), ret;
	size_t size = 0;
	ssize_t len;

	if (fd < 0)
		return -errno;
	while ((len = read(fd, to + size, room - 1 - size)) > 0)
		size += len;
	ret = len < 0 ? -errno : 0;
	to[size] = '\0';
	close(fd);
	return ret;
}

static int read_own(int id, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), DEBUGFS "/%d/%s", id, name);
	return read_to(path, text, sizeof(text));
}

static int write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

/* Is this one of the lines that have been read, or, of a trace, an end of one? */
static bool has_line(bool whole, const char *fmt, va_list ap)
{
	char line[256];
	const char *at;
	int len;

	len = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	strcpy(line + len, "\n");
	for (at = text; (at = strstr(at, line)); at++) {
		if (!whole || at == text || at[-1] == '\n')
			return true;
	}
	return false;
}

static bool says(const char *fmt, ...)
{
	va_list ap;
	bool ret;

	va_start(ap, fmt);
	ret = has_line(true, fmt, ap);
	va_end(ap);
	return ret;
}

static bool traced(const char *fmt, ...)
{
	va_list ap;
	bool ret;

	va_start(ap, fmt);
	ret = !read_to(TRACEFS "/trace", text, sizeof(text)) &&
	      has_line(false, fmt, ap);
	va_end(ap);
	return ret;
}

/* The end of what has been read, for people to see what is wrong with it */
static const char *tail(void)
{
	size_t len = strlen(text);

	return text + len - (len < 2000 ? len : 2000);
}

#define EXPECT_SAYS(...) do { \
	EXPECT_TRUE(says(__VA_ARGS__)) { \
		TH_LOG(__VA_ARGS__); \
		TH_LOG("is not in: %s", tail()); \
	} \
} while (0)

#define EXPECT_TRACED(...) do { \
	EXPECT_TRUE(traced(__VA_ARGS__)) { \
		TH_LOG(__VA_ARGS__); \
		TH_LOG("is not in: %s", tail()); \
	} \
} while (0)

/* The @nth number of the line of that name, -1 if there is none */
static long number(const char *name, int nth)
{
	size_t len = strlen(name);
	const char *line = text;
	char *end;
	long n;

	while (strncmp(line, name, len) || line[len] != ' ') {
		line = strchr(line, '\n');
		if (!line++)
			return -1;
	}
	line += len;
	do {
		n = strtol(line, &end, 10);
		if (end == line)
			return -1;
		line = end;
	} while (nth--);
	return n;
}

/* The container that was opened last has the highest number. */
static int newest_id(void)
{
	DIR *dir = opendir(DEBUGFS);
	struct dirent *entry;
	int id = -1;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] != '.' && atoi(entry->d_name) > id)
			id = atoi(entry->d_name);
	}
	closedir(dir);
	return id;
}

static int group_number(const char *device)
{
	char link[256];
	ssize_t len = readlink(device, link, sizeof(link) - 1);

	if (len < 0)
		return -errno;
	link[len] = '\0';
	return atoi(strrchr(link, '/') + 1);
}

FIXTURE(eyes) {
	struct container c;
	struct mem mem;
	int dev, id, group;
	struct vfio_iommu_type1v3_batch_entry e[BATCH_MAX];
};

FIXTURE_SETUP(eyes)
{
	container_init(&self->c);
	self->dev = -1;
	/* a test that failed may have left it */
	rmdir(TRACEFS);
	ASSERT_EQ(0, mkdir(TRACEFS, 0700));
	ASSERT_EQ(0, write_file(TRACEFS "/events/vfio_type1v3/enable", "1"));
	self->dev = emulated_open(&self->c, VFIO_TYPE1v3_IOMMU, 0);
	ASSERT_LE(0, self->dev);
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, NPAGES * PAGE));
	self->id = newest_id();
	ASSERT_LT(0, self->id);
	self->group = group_number("/sys/bus/platform/devices/"
				   VFIO_EMULATED_TEST_NAME ".0/iommu_group");
	EXPECT_TRACED("type1v3_attach: id=%d group=%d ret=0", self->id,
		      self->group);
}

FIXTURE_TEARDOWN(eyes)
{
	if (self->dev >= 0)
		close(self->dev);
	container_close(&self->c);
	mem_free(&self->mem);
	EXPECT_TRACED("type1v3_detach: id=%d group=%d ret=0", self->id,
		      self->group);
	EXPECT_EQ(-ENOENT, read_own(self->id, "stat"));
	EXPECT_EQ(0, rmdir(TRACEFS));
}

TEST_F(eyes, events_of_maps)
{
	unsigned long va = (unsigned long)self->mem.va;
	int id = self->id, pid = getpid();

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, 3 * PAGE, RW));
	EXPECT_TRACED("type1v3_owner: id=%d from=0 to=%d pinned=0", id, pid);
	EXPECT_TRACED("type1v3_map: id=%d iova=%#lx size=0x3000 vaddr=%#lx flags=READ|WRITE ret=0",
		      id, IOVA(0), va);
	EXPECT_FALSE(traced("type1v3_error: id=%d call=map_dma ret=%d", id,
			    -EEXIST));

	EXPECT_EQ(-EEXIST, dma_map(&self->c, IOVA(2), self->mem.va, PAGE,
				   RO | VFIO_DMA_MAP_FLAG_SMALL_PAGES));
	EXPECT_TRACED("type1v3_map: id=%d iova=%#lx size=0x1000 vaddr=%#lx flags=%s ret=%d",
		      id, IOVA(2), va, "READ|GRANULE", -EEXIST);
	EXPECT_TRACED("type1v3_error: id=%d call=map_dma ret=%d", id, -EEXIST);

	/* refused before it could be a map */
	EXPECT_EQ(-EINVAL, dma_map(&self->c, IOVA(9), self->mem.va, PAGE, 0));
	EXPECT_TRACED("type1v3_error: id=%d call=map_dma ret=%d", id, -EINVAL);
	EXPECT_EQ(-1, ioctl(self->c.fd, _IO(VFIO_TYPE, VFIO_BASE + 99)));
	EXPECT_TRACED("type1v3_error: id=%d call=unknown ret=%d", id, -ENOTTY);

	/* a hole in what is unmapped */
	EXPECT_EQ(PAGE, dma_unmap(&self->c, IOVA(1), PAGE));
	EXPECT_TRACED("type1v3_unmap: id=%d iova=%#lx size=0x1000 unmapped=0x1000 flags= ret=0",
		      id, IOVA(1));
	EXPECT_EQ(PAGE, dma_unmap(&self->c, IOVA(1), 2 * PAGE));
	EXPECT_TRACED("type1v3_unmap: id=%d iova=%#lx size=0x2000 unmapped=0x1000 flags= ret=0",
		      id, IOVA(1));
	EXPECT_FALSE(traced("type1v3_owner: id=%d from=%d to=0 pinned=0", id,
			    pid));
	EXPECT_EQ(PAGE, dma_unmap_all(&self->c));
	EXPECT_TRACED("type1v3_unmap: id=%d iova=0x0 size=0x0 unmapped=0x1000 flags=ALL ret=0",
		      id);
	EXPECT_TRACED("type1v3_owner: id=%d from=%d to=0 pinned=0", id, pid);
}

TEST_F(eyes, events_of_a_batch)
{
	unsigned long va = (unsigned long)self->mem.va;
	int id = self->id;

	self->e[0] = (struct vfio_iommu_type1v3_batch_entry) {
		.iova = IOVA(0), .size = 2 * PAGE, .vaddr = va, .flags = RW,
	};
	self->e[1] = self->e[0];
	self->e[2] = (struct vfio_iommu_type1v3_batch_entry) {
		.iova = IOVA(1), .size = PAGE,
		.flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP,
	};
	/* an unmap that is malformed: its flags are read as those of an unmap */
	self->e[3] = self->e[2];
	self->e[3].flags |= VFIO_DMA_UNMAP_FLAG_ALL;
	EXPECT_EQ(2, dma_batch(&self->c, VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE, 4,
			       self->e));
	EXPECT_TRACED("type1v3_map: id=%d iova=%#lx size=0x2000 vaddr=%#lx flags=READ|WRITE ret=0",
		      id, IOVA(0), va);
	EXPECT_TRACED("type1v3_map: id=%d iova=%#lx size=0x2000 vaddr=%#lx flags=%s ret=%d",
		      id, IOVA(0), va, "READ|WRITE", -EEXIST);
	EXPECT_TRACED("type1v3_unmap: id=%d iova=%#lx size=0x1000 unmapped=0x1000 flags=%s ret=0",
		      id, IOVA(1), "ENTRY");
	EXPECT_TRACED("type1v3_unmap: id=%d iova=%#lx size=0x1000 unmapped=0x0 flags=%s ret=%d",
		      id, IOVA(1), "ENTRY|ALL", -EINVAL);
	EXPECT_TRACED("type1v3_batch: id=%d entries=4 flags=CONTINUE failed=2", id);

	ASSERT_EQ(0, read_own(id, "stat"));
	EXPECT_SAYS("map 1 1 2");
	EXPECT_SAYS("unmap 1 1 1");
	EXPECT_SAYS("batch 1 0 3");
	EXPECT_SAYS("mapped_pages 1");

	/* One that does nothing has not failed, nor has an entry that was not tried. */
	EXPECT_EQ(1, dma_batch(&self->c, 0, 2, self->e));
	EXPECT_TRACED("type1v3_map: id=%d iova=%#lx size=0x2000 vaddr=%#lx flags=%s ret=%d",
		      id, IOVA(0), va, "READ|WRITE", -EEXIST);
	EXPECT_TRACED("type1v3_map: id=%d iova=%#lx size=0x2000 vaddr=%#lx flags=%s ret=%d",
		      id, IOVA(0), va, "READ|WRITE", -ECANCELED);
	EXPECT_TRACED("type1v3_batch: id=%d entries=2 flags= failed=1", id);
	ASSERT_EQ(0, read_own(id, "stat"));
	EXPECT_SAYS("map 1 2 2");
	EXPECT_SAYS("batch 2 0 3");
}

TEST_F(eyes, events_of_devices)
{
	__u8 bits[NPAGES / 8] = {}, data[PAGE] = {};
	int id = self->id;

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, NPAGES * PAGE,
			     RW));
	ASSERT_EQ(2, emulated_pin(self->dev, IOVA(3), 2, PIN_RW, NULL));
	EXPECT_TRACED("type1v3_pin: id=%d iova=%#lx npages=2 prot=READ|WRITE ret=2",
		      id, IOVA(3));
	ASSERT_EQ(0, read_own(id, "stat"));
	EXPECT_SAYS("device_pages 2");
	EXPECT_LT(0, number("device_bytes", 0));
	EXPECT_SAYS("pinned_pages 2");
	EXPECT_EQ(-EINVAL, emulated_pin(self->dev, IOVA(NPAGES), 1, PIN_READ,
					NULL));
	EXPECT_TRACED("type1v3_pin: id=%d iova=%#lx npages=1 prot=READ ret=%d",
		      id, IOVA(NPAGES), -EINVAL);
	EXPECT_TRACED("type1v3_error: id=%d call=pin_pages ret=%d", id,
		      -EINVAL);
	ASSERT_EQ(0, emulated_unpin(self->dev, IOVA(3), 2));
	EXPECT_TRACED("type1v3_unpin: id=%d iova=%#lx npages=2", id, IOVA(3));

	ASSERT_EQ(0, emulated_rw(self->dev, IOVA(1), data, PAGE, RW_WRITE));
	EXPECT_EQ(-EINVAL, emulated_rw(self->dev, IOVA(NPAGES), data, 1, 0));
	EXPECT_TRACED("type1v3_error: id=%d call=dma_rw ret=%d", id, -EINVAL);

	ASSERT_EQ(0, dirty_tracking(&self->c,
				    VFIO_IOMMU_DIRTY_PAGES_FLAG_START));
	EXPECT_TRACED("type1v3_dirty: id=%d flags=START iova=0x0 size=0x0 ret=0",
		      id);
	ASSERT_EQ(0, read_own(id, "stat"));
	EXPECT_SAYS("dirty_tracking 1");
	ASSERT_EQ(0, dirty_bitmap(&self->c, IOVA(0), NPAGES * PAGE, PAGE, bits,
				  sizeof(bits)));
	EXPECT_TRACED("type1v3_dirty: id=%d flags=GET_BITMAP iova=%#lx size=%#lx ret=0",
		      id, IOVA(0), NPAGES * PAGE);
	ASSERT_EQ(0, dirty_tracking(&self->c,
				    VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP));

	ASSERT_EQ(0, read_own(id, "stat"));
	EXPECT_SAYS("map 1 0 %lu", NPAGES);
	EXPECT_SAYS("pin 1 1 2");
	EXPECT_SAYS("unpin 1 0 2");
	EXPECT_SAYS("rw 1 1 1");
	EXPECT_SAYS("dirty 3 0 %lu", NPAGES);
	EXPECT_SAYS("device_pages 0");
	EXPECT_SAYS("device_bytes 0");
	EXPECT_SAYS("dirty_tracking 0");
}

/* Two containers at a time: each has files and events of its own. */
TEST_F(eyes, two_containers)
{
	struct container other;
	int dev, id;

	dev = emulated_open(&other, VFIO_TYPE1v3_IOMMU, 1);
	ASSERT_LE(0, dev);
	id = newest_id();
	EXPECT_LT(self->id, id);

	ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->mem.va, PAGE, RW));
	ASSERT_EQ(0, dma_map(&other, IOVA(0), self->mem.va, 2 * PAGE, RW));
	EXPECT_TRACED("type1v3_map: id=%d iova=%#lx size=0x1000 vaddr=%#lx flags=READ|WRITE ret=0",
		      self->id, IOVA(0), (unsigned long)self->mem.va);
	EXPECT_TRACED("type1v3_map: id=%d iova=%#lx size=0x2000 vaddr=%#lx flags=READ|WRITE ret=0",
		      id, IOVA(0), (unsigned long)self->mem.va);
	ASSERT_EQ(0, read_own(self->id, "stat"));
	EXPECT_SAYS("mapped_pages 1");
	ASSERT_EQ(0, read_own(id, "stat"));
	EXPECT_SAYS("mapped_pages 2");
	close(dev);
	container_close(&other);
}

/* The files say what VFIO_IOMMU_GET_INFO says. */
TEST_F(eyes, as_get_info)
{
	struct container_info info;

	/* a name that would look like a line of its own */
	ASSERT_EQ(0, prctl(PR_SET_NAME, "a b\nrw 1"));
	for (int i = 0; i < 100; i++) {
		ASSERT_EQ(0, dma_map(&self->c, IOVA(i * 33L), self->mem.va,
				     (1 + i % 2) * PAGE, RW));
	}
	ASSERT_EQ(0, read_own(self->id, "stat"));
	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(150, info.own.mapped_pages);
	EXPECT_EQ((long)info.own.mapped_pages, number("mapped_pages", 0));
	EXPECT_EQ((long)info.own.pinned_pages, number("pinned_pages", 0));
	EXPECT_EQ((long)info.own.charged_pages, number("charged_pages", 0));
	EXPECT_EQ((long)info.own.store_bytes, number("store_bytes", 0));
	EXPECT_EQ(number("store_bytes", 0),
		  number("nodes", 1) + number("arrays", 1));
	EXPECT_LT(0, number("arrays", 0));
	EXPECT_SAYS("# nodes, arrays: number, bytes; map to rw: calls done, calls failed, pages");
	EXPECT_SAYS("owner %d a b\\nrw 1", getpid());
	EXPECT_SAYS("emulated groups %d", self->group);
	EXPECT_EQ(-1, number("domain", 0));

	ASSERT_EQ(150 * PAGE, dma_unmap_all(&self->c));
	ASSERT_EQ(0, read_own(self->id, "stat"));
	EXPECT_SAYS("owner 0");
	EXPECT_SAYS("store_bytes 0");
	EXPECT_SAYS("nodes 0 0");
	EXPECT_SAYS("arrays 0 0");
}

/* With a domain; and the owner changes. */
TEST_F(eyes, physical)
{
	struct container c;
	char path[64];
	const char *bdf;
	pid_t child;
	int status, id;

	bdf = need_device(_metadata, ENV_NVME);
	if (!bdf)
		return;
	ASSERT_EQ(0, container_open(&c, VFIO_TYPE1v3_IOMMU, bdf));
	id = newest_id();
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group",
		 bdf);
	EXPECT_TRACED("type1v3_attach: id=%d group=%d ret=0", id,
		      group_number(path));
	ASSERT_EQ(0, dma_map(&c, IOVA(0), self->mem.va, NPAGES * PAGE, RW));
	ASSERT_EQ(0, read_own(id, "stat"));
	EXPECT_EQ(NPAGES, number("mapped_pages", 0));
	EXPECT_EQ(NPAGES, number("pinned_pages", 0));
	EXPECT_NE(NULL, strstr(text, "\ndomain 0x"));

	/* Few pages are mapped and unmapped in another way than many. */
	ASSERT_EQ(0, dma_map(&c, IOVA(2 * NPAGES), self->mem.va, PAGE, RW));
	EXPECT_TRACED("type1v3_map: id=%d iova=%#lx size=0x1000 vaddr=%#lx flags=READ|WRITE ret=0",
		      id, IOVA(2 * NPAGES), (unsigned long)self->mem.va);
	ASSERT_EQ(PAGE, dma_unmap(&c, IOVA(2 * NPAGES), PAGE));
	EXPECT_TRACED("type1v3_unmap: id=%d iova=%#lx size=0x1000 unmapped=0x1000 flags= ret=0",
		      id, IOVA(2 * NPAGES));
	EXPECT_EQ(-EEXIST, dma_map(&c, IOVA(0), self->mem.va, PAGE, RW));
	ASSERT_EQ(0, read_own(id, "stat"));
	EXPECT_SAYS("map 2 1 %lu", NPAGES + 1);
	EXPECT_SAYS("unmap 1 0 1");

	ASSERT_EQ(NPAGES * PAGE,
		  vaddr_invalidate(&c, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL));
	EXPECT_TRACED("type1v3_unmap: id=%d iova=0x0 size=0x0 unmapped=%#lx flags=ALL|VADDR ret=0",
		      id, NPAGES * PAGE);
	ASSERT_EQ(0, read_own(id, "stat"));
	EXPECT_EQ(NPAGES, number("invalid_pages", 0));
	child = fork();
	ASSERT_LE(0, child);
	if (!child)
		_exit(!!vaddr_update(&c, IOVA(0), self->mem.va, NPAGES * PAGE));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_EQ(0, status);
	EXPECT_TRACED("type1v3_owner: id=%d from=%d to=%d pinned=%lu", id,
		      getpid(), child, NPAGES);
	ASSERT_EQ(0, read_own(id, "stat"));
	EXPECT_EQ(child, number("owner", 0));
	EXPECT_EQ(0, number("invalid_pages", 0));
	EXPECT_SAYS("vaddr 2 0 %lu", 2 * NPAGES);
	container_close(&c);
}

/* The same files of a container whose record is the IO page table */
TEST_F(eyes, page_table)
{
	const char *bdf = need_device(_metadata, ENV_NVME);
	struct container_info info;
	struct container c;
	int id;

	if (!bdf)
		return;
	ASSERT_EQ(0, container_open(&c, VFIO_TYPE1v3_PT_IOMMU, bdf));
	id = newest_id();
	/* pages of which every other one has a word of its own, and regions far apart */
	for (long i = 0; i < 100; i++)
		ASSERT_EQ(0, dma_map(&c, IOVA(i < 60 ? i : i * 1000), self->mem.va, PAGE,
				     i % 2 ? RO : RW));
	EXPECT_EQ(-EEXIST, dma_map(&c, IOVA(7), self->mem.va, PAGE, RW));
	EXPECT_EQ(-EOPNOTSUPP, vaddr_invalidate(&c, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL));
	ASSERT_EQ(0, read_own(id, "stat"));
	ASSERT_EQ(0, container_info(&c, &info));
	EXPECT_EQ(100, info.own.mapped_pages);
	EXPECT_EQ(100, number("mapped_pages", 0));
	EXPECT_EQ(100, number("pinned_pages", 0));
	EXPECT_EQ(100, number("charged_pages", 0));
	EXPECT_EQ((long)info.own.store_bytes, number("store_bytes", 0));
	EXPECT_EQ(number("store_bytes", 0), number("nodes", 1) + number("arrays", 1));
	EXPECT_LT(0, number("store_bytes", 0));
	EXPECT_NE(NULL, strstr(text, "\ndomain 0x"));
	EXPECT_SAYS("map 100 1 100");
	EXPECT_SAYS("vaddr 0 0 0");

	ASSERT_EQ(100 * PAGE, dma_unmap_all(&c));
	ASSERT_EQ(0, read_own(id, "stat"));
	EXPECT_SAYS("mapped_pages 0");
	EXPECT_SAYS("store_bytes 0");
	EXPECT_SAYS("nodes 0 0");
	EXPECT_SAYS("arrays 0 0");
	container_close(&c);
}

static atomic_bool stop_disturbing;

static void ignore(int signal)
{
}

static void *keep_disturbing(void *arg)
{
	while (!stop_disturbing) {
		pthread_kill(*(pthread_t *)arg, SIGUSR1);
		usleep(1000);
	}
	return NULL;
}

TEST_F(eyes, histogram)
{
	struct sigaction action = { .sa_handler = ignore };
	const __u32 small = RW | VFIO_DMA_MAP_GRANULE(0);
	const int batches = 48;
	pthread_t disturber, reader = pthread_self();
	int ret = 0;

	/* more than could be read at the end */
	ASSERT_EQ(0, write_file(TRACEFS "/events/vfio_type1v3/type1v3_map/enable",
				"0"));
	ASSERT_EQ(0, read_own(self->id, "runs"));
	EXPECT_STREQ("# pages of a run: from, to; number of such runs\n", text);
	for (int i = 0; i < batches; i++) {
		for (int k = 0; k < BATCH_MAX; k++) {
			self->e[k] = (struct vfio_iommu_type1v3_batch_entry) {
				.iova = IOVA(2L * (i * BATCH_MAX + k)),
				.size = PAGE,
				.vaddr = (uintptr_t)self->mem.va,
				.flags = RW,
			};
		}
		ASSERT_EQ(0, dma_batch(&self->c, 0, BATCH_MAX, self->e));
	}
	ASSERT_EQ(0, dma_map(&self->c, OTHER_IOVA, self->mem.va, 3 * PAGE, small));
	ASSERT_EQ(0, dma_map(&self->c, OTHER_IOVA + MIB, self->mem.va,
			     64 * PAGE, small));
	/* one run, though two calls have made it: superpages would end between them */
	ASSERT_EQ(0, dma_map(&self->c, OTHER_IOVA + MIB + 64 * PAGE,
			     self->mem.va + 64 * PAGE, 64 * PAGE, small));
	ASSERT_EQ(0, read_own(self->id, "runs"));
	EXPECT_SAYS("1 1 %d", batches * BATCH_MAX);
	EXPECT_SAYS("2 3 1");
	EXPECT_SAYS("128 255 1");
	EXPECT_FALSE(says("64 127 1"));
	ASSERT_EQ(0, read_own(self->id, "stat"));
	EXPECT_SAYS("batch %d 0 %d", batches, batches * BATCH_MAX);

	/* Who reads it is not kept from being killed. */
	stop_disturbing = false;
	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_EQ(0, pthread_create(&disturber, NULL, keep_disturbing, &reader));
	for (int i = 0; i < 200 && ret != -EINTR; i++)
		ret = read_own(self->id, "runs");
	stop_disturbing = true;
	EXPECT_EQ(-EINTR, ret);
	ASSERT_EQ(0, pthread_join(disturber, NULL));
}

/* Somebody reads the files of containers that come and go. */
static atomic_bool stop_reading;

static void *keep_reading(void *arg)
{
	static const char * const names[] = { "stat", "runs" };
	static char buffer[1 << 16];
	long good = 0;
	char path[64];
	int ret;

	for (int i = 0; !stop_reading; i++) {
		snprintf(path, sizeof(path), DEBUGFS "/%d/%s", newest_id(),
			 names[i & 1]);
		ret = read_to(path, buffer, sizeof(buffer));
		if (!ret)
			good++;
		else if (ret != -ENOENT && ret != -EIO)
			return (void *)(long)ret;
	}
	return (void *)good;
}

TEST_F(eyes, come_and_go)
{
	struct container other;
	pthread_t reader;
	void *good;
	int dev;

	stop_reading = false;
	ASSERT_EQ(0, pthread_create(&reader, NULL, keep_reading, NULL));
	for (int i = 0; i < 100; i++) {
		dev = emulated_open(&other, VFIO_TYPE1v3_IOMMU, 1);
		EXPECT_LE(0, dev);
		EXPECT_EQ(0, dma_map(&other, IOVA(0), self->mem.va, PAGE, RW));
		EXPECT_EQ(0, dma_map(&other, IOVA(i + 2), self->mem.va, PAGE,
				     RW));
		close(dev);
		container_close(&other);
	}
	stop_reading = true;
	ASSERT_EQ(0, pthread_join(reader, &good));
	EXPECT_LT(0, (long)good);
}

/* A file that is open keeps neither the container nor what it says of it. */
TEST_F(eyes, kept_open)
{
	struct container other;
	char path[64], c;
	int dev, id, fd;

	dev = emulated_open(&other, VFIO_TYPE1v3_IOMMU, 1);
	ASSERT_LE(0, dev);
	id = newest_id();
	snprintf(path, sizeof(path), DEBUGFS "/%d/stat", id);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(1, read(fd, &c, 1));
	close(dev);
	container_close(&other);
	EXPECT_EQ(-ENOENT, read_own(id, "stat"));
	EXPECT_EQ(-1, read(fd, &c, 1));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(0, close(fd));
}

/* What type1v3-top shows of the container */
TEST_F(eyes, top)
{
	char command[300], owner[32], groups[32], mapped[16], pinned[16];
	char charged[16], metadata[16], type1v2[16], expected[32];
	char *line = NULL, *tool = getenv("TYPE1V3_TOP");
	int id, pid, n = 0, maps = -1;
	size_t size = 0;
	FILE *table;

	if (!tool)
		SKIP(return, "TYPE1V3_TOP is not set: no type1v3-top");
	ASSERT_EQ(0, prctl(PR_SET_NAME, "eyes"));
	for (int i = 0; i < 4; i++) {
		ASSERT_EQ(0, dma_map(&self->c, IOVA(i * 64L),
				     self->mem.va + i * 64L * PAGE, 64 * PAGE,
				     RW | VFIO_DMA_MAP_GRANULE(0)));
	}
	ASSERT_EQ(0, read_own(self->id, "stat"));

	snprintf(command, sizeof(command), "%s -1", tool);
	table = popen(command, "r");
	ASSERT_NE(NULL, table);
	while (getline(&line, &size, table) > 0) {
		int cells = sscanf(line, "%d %d %31s %31s %15s %15s %15s %15s %*s %15s %*s %d",
				   &id, &pid, owner, groups, mapped, pinned,
				   charged, metadata, type1v2, &maps);

		if (cells != 10 || id != self->id)
			continue;
		n++;
		EXPECT_EQ(getpid(), pid);
		EXPECT_STREQ("eyes", owner);
		snprintf(expected, sizeof(expected), "e%d", self->group);
		EXPECT_STREQ(expected, groups);
		EXPECT_STREQ("1.0M", mapped);
		EXPECT_STREQ("0B", pinned);
		EXPECT_STREQ("0B", charged);
		snprintf(expected, sizeof(expected), "%ldB",
			 number("store_bytes", 0));
		EXPECT_STREQ(expected, metadata);
		/* four mappings of 96 bytes */
		EXPECT_STREQ("384B", type1v2);
		EXPECT_EQ(4, maps);
	}
	EXPECT_EQ(1, n);
	EXPECT_EQ(0, pclose(table));

	/* two tables, and how long the runs are */
	snprintf(command, sizeof(command),
		 "%s -b -n 2 -d 0.1 | grep -c ' eyes '", tool);
	table = popen(command, "r");
	ASSERT_NE(NULL, table);
	ASSERT_LT(0, getline(&line, &size, table));
	EXPECT_STREQ("2\n", line);
	EXPECT_EQ(0, pclose(table));
	snprintf(command, sizeof(command), "%s -r %d", tool, self->id);
	table = popen(command, "r");
	ASSERT_NE(NULL, table);
	ASSERT_LT(0, getline(&line, &size, table));
	ASSERT_LT(0, getline(&line, &size, table));
	EXPECT_NE(NULL, strstr(line, " 256..511           1  #"));
	EXPECT_EQ(0, pclose(table));

	/* one that there is not */
	snprintf(command, sizeof(command), "%s -r %d 2>&1", tool, self->id + 1);
	table = popen(command, "r");
	ASSERT_NE(NULL, table);
	ASSERT_LT(0, getline(&line, &size, table));
	snprintf(expected, sizeof(expected), ": no container %d (", self->id + 1);
	EXPECT_NE(NULL, strstr(line, expected)) TH_LOG("%s", line);
	EXPECT_EQ(1, WEXITSTATUS(pclose(table)));
	free(line);
}

TEST_HARNESS_MAIN
