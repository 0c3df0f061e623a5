// SPDX-License-Identifier: GPL-2.0-only
/*
 * What mapping costs: time and kernel memory, side by side for type1v2,
 * type1v3, iommufd's own interface and iommufd behind the container interface.
 *
 *	type1v3_bench [-s] [-t DIRECTORY] PCI-ADDRESS
 *		measure; -s: the short form; -t: replay the traces *.trace, too
 *	type1v3_bench -l BACKEND [-c CASE] [-b BATCH] PCI-ADDRESS
 *		map and unmap for ever
 *
 * Time is that of CLOCK_MONOTONIC, in ns. In a virtual machine whose clock
 * counts instructions that is a number of instructions; elsewhere it is noise.
 *
 * Every case gets a new container, and goes through its operations twice. The
 * first time memory is measured, and IO page tables come into being; the second
 * time counts for the time. Memory is what all slab caches, the per-CPU and the
 * vmalloc allocator have given out in the whole system. IO page tables come from
 * none of these.
 *
 * Standard output is CSV: case,measure,backend,value, where measure is map or
 * unmap (ns per page), pin, unpin, read or write (ns per
 * call of an emulated device's driver) or memory (bytes per page).
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/iommufd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "type1v3_emulated.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* iommufd without a container */
#define NATIVE		0UL

struct backend {
	const char *name, *container;
	unsigned long type;
	struct container c;
	int device;
	__u32 ioas;
};

static struct backend backends[] = {
	{ "type1v2", "/dev/vfio/vfio", VFIO_TYPE1v2_IOMMU },
	{ "iommufd", "/dev/iommu", NATIVE },
	{ "compat", "/dev/iommu", VFIO_TYPE1v2_IOMMU },
	{ "type1v3", "/dev/vfio/vfio", VFIO_TYPE1v3_IOMMU },
	{ "type1v3-pt", "/dev/vfio/vfio", VFIO_TYPE1v3_PT_IOMMU },
};

/* The device, and the bus that it is on */
static const char *device_name, *device_bus = "pci";

static bool is_emulated(void)
{
	return strcmp(device_bus, "pci");
}

/* The character device that iommufd wants instead of a group */
static int open_cdev(void)
{
	char path[512];
	glob_t g;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/%s/devices/%s/vfio-dev/vfio*",
		 device_bus, device_name);
	if (glob(path, 0, NULL, &g))
		errx(1, "no %s", path);
	snprintf(path, sizeof(path), "/dev/vfio/devices/%s",
		 strrchr(g.gl_pathv[0], '/') + 1);
	globfree(&g);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

static void backend_open(struct backend *b)
{
	int ret;

	container_init(&b->c);
	b->c.fd = open(b->container, O_RDWR | O_CLOEXEC);
	if (b->c.fd < 0)
		err(1, "%s", b->container);

	if (b->type == NATIVE) {
		struct vfio_device_bind_iommufd bind = {
			.argsz = sizeof(bind),
			.iommufd = b->c.fd,
		};
		struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };
		struct vfio_device_attach_iommufd_pt attach = {
			.argsz = sizeof(attach),
		};

		b->device = open_cdev();
		if (ioctl(b->device, VFIO_DEVICE_BIND_IOMMUFD, &bind) ||
		    ioctl(b->c.fd, IOMMU_IOAS_ALLOC, &alloc))
			err(1, "%s: no address space", b->name);
		b->ioas = alloc.out_ioas_id;
		attach.pt_id = b->ioas;
		if (ioctl(b->device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach))
			err(1, "%s: attach", b->name);
		return;
	}

	ret = is_emulated() ? emulated_attach(&b->c, 0) :
			      container_attach(&b->c, device_name);
	if (!ret && ioctl(b->c.fd, VFIO_SET_IOMMU, b->type))
		ret = -errno;
	/* behind iommufd the device joins only when it is opened */
	if (!ret) {
		b->device = container_device(&b->c, device_name);
		if (b->device < 0)
			ret = b->device;
	}
	if (ret)
		errx(1, "%s: %s", b->name, strerror(-ret));
}

static void backend_close(struct backend *b)
{
	close(b->device);
	container_close(&b->c);
}

static void map(struct backend *b, __u64 iova, void *va, size_t size,
		__u32 flags)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 (flags == RW ? IOMMU_IOAS_MAP_WRITEABLE : 0),
		.ioas_id = b->ioas,
		.user_va = (uintptr_t)va,
		.length = size,
		.iova = iova,
	};
	int ret;

	if (b->type == NATIVE)
		ret = ioctl(b->c.fd, IOMMU_IOAS_MAP, &map) ? -errno : 0;
	else
		ret = dma_map(&b->c, iova, va, size, flags);
	if (ret)
		errx(1, "%s: %zu bytes not mapped at %#llx: %s", b->name, size,
		     iova, strerror(-ret));
}

static bool try_unmap(struct backend *b, __u64 iova, size_t size)
{
	struct iommu_ioas_unmap unmap = {
		.size = sizeof(unmap),
		.ioas_id = b->ioas,
		.iova = iova,
		.length = size,
	};

	if (b->type == NATIVE)
		return !ioctl(b->c.fd, IOMMU_IOAS_UNMAP, &unmap) &&
		       unmap.length == size;
	return dma_unmap(&b->c, iova, size) == (__s64)size;
}

static void unmap(struct backend *b, __u64 iova, size_t size)
{
	if (!try_unmap(b, iova, size))
		errx(1, "%s: %zu bytes not unmapped at %#llx", b->name, size,
		     iova);
}

static __u64 now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void report(const char *name, const char *measure,
		   const struct backend *b, double total, size_t npages)
{
	printf("%s,%s,%s,%.3f\n", name, measure, b->name, total / npages);
	fflush(stdout);
}

/* Give back what nobody uses; what waits for RCU is freed while we sleep */
static void shrink_slabs(void)
{
	static const char all[] = "/sys/kernel/slab/*/shrink";
	glob_t g;

	usleep(100000);
	if (glob(all, 0, NULL, &g))
		errx(1, "no %s", all);
	for (size_t i = 0; i < g.gl_pathc; i++) {
		int fd = open(g.gl_pathv[i], O_WRONLY | O_CLOEXEC);

		if (fd < 0 || write(fd, "1", 1) != 1)
			err(1, "%s", g.gl_pathv[i]);
		close(fd);
	}
	globfree(&g);
}

static double kernel_memory(void)
{
	double bytes = 0, kib, objects, per_slab, pages;
	char line[256];
	FILE *f;

	shrink_slabs();
	shrink_slabs();

	/*
	 * Not whole slabs: a hole that somebody else has left would make an
	 * object cost nothing. Each costs its share of a slab.
	 */
	f = fopen("/proc/slabinfo", "re");
	if (!f)
		err(1, "slabinfo");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*s %lf %*f %*f %lf %lf", &objects,
			   &per_slab, &pages) == 3)
			bytes += objects * pages * PAGE / per_slab;
	}
	fclose(f);

	f = fopen("/proc/meminfo", "re");
	if (!f)
		err(1, "meminfo");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Percpu: %lf", &kib) == 1 ||
		    sscanf(line, "VmallocUsed: %lf", &kib) == 1)
			bytes += kib * KIB;
	}
	fclose(f);
	return bytes;
}

/* The numbers below n in no order */
static __u32 *shuffled(size_t n, __u64 seed)
{
	__u32 *a = calloc(n, sizeof(*a));

	if (!a)
		err(1, "memory");
	for (size_t i = 0; i < n; i++) {
		size_t j = prng(&seed) % (i + 1);

		a[i] = a[j];
		a[j] = i;
	}
	return a;
}

/* What there is to map: as the kernel hands it out, in no order, and huge */
static struct mem small, scattered, huge;

static void alloc_memory(size_t size)
{
	__u32 *order;

	/* huge pages while there are some */
	if (mem_alloc(&huge, MEM_THP, size) ||
	    mem_alloc(&small, MEM_4K, size) ||
	    mem_alloc(&scattered, MEM_4K, 64 * MIB))
		errx(1, "not enough memory");
	for (size_t i = 0; i < size; i += PAGE)
		small.va[i] = 1;
	order = shuffled(scattered.size / PAGE, 1);
	for (size_t i = 0; i < scattered.size / PAGE; i++)
		scattered.va[order[i] * PAGE] = 1;
	free(order);
}

/* What to map or, without memory, to unmap */
struct range {
	__u64 iova;
	void *va;
	size_t size;
};

/* How many ranges each ioctl takes; more than 1 on type1v3 only */
static size_t batch = 1;

static void do_batch(struct backend *b, const struct range *r, size_t n,
		     __u32 flags)
{
	struct vfio_iommu_type1v3_batch_entry entries[VFIO_IOMMU_TYPE1V3_BATCH_MAX];
	int ret;

	for (size_t i = 0; i < n; i++) {
		entries[i] = (struct vfio_iommu_type1v3_batch_entry) {
			.iova = r[i].iova,
			.size = r[i].size,
			.flags = flags,
		};
		if (flags != VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP)
			entries[i].vaddr = (uintptr_t)r[i].va;
	}
	ret = dma_batch(&b->c, 0, n, entries);
	if (ret)
		errx(1, "%s: batch: %d", b->name, ret);
}

static double map_ranges(struct backend *b, const struct range *r, size_t n,
			 __u32 flags)
{
	__u64 start = now();

	for (size_t i = 0; batch == 1 && i < n; i++)
		map(b, r[i].iova, r[i].va, r[i].size, flags);
	for (size_t i = 0; batch > 1 && i < n; i += batch)
		do_batch(b, r + i, n - i < batch ? n - i : batch, flags);
	return now() - start;
}

static double unmap_ranges(struct backend *b, const struct range *r, size_t n)
{
	__u64 start = now();

	for (size_t i = 0; batch == 1 && i < n; i++)
		unmap(b, r[i].iova, r[i].size);
	for (size_t i = 0; batch > 1 && i < n; i += batch)
		do_batch(b, r + i, n - i < batch ? n - i : batch,
			 VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP);
	return now() - start;
}

/*
 * One page with each ioctl
 */

enum {
	SHUFFLED	= 1 << 0,	/* in no order */
	DIFFERENT	= 1 << 1,	/* no two with the same vaddr - IOVA */
	READONLY	= 1 << 2,
	HUGE		= 1 << 3,	/* of huge pages */
	MANY		= 1 << 4,	/* many, so that what is not per page is little */
	BATCH		= 1 << 5,	/* in batches, too */
};

static const struct page_case {
	const char *name;
	unsigned int stride;	/* IOVA pages for each page; 0: a random half */
	unsigned int flags;
} page_cases[] = {
	{ "linear", 1, MANY | BATCH },
	{ "shuffled", 1, SHUFFLED },
	{ "readonly", 1, READONLY },
	{ "huge", 1, HUGE | BATCH },
	{ "different", 1, SHUFFLED | DIFFERENT | MANY | BATCH },
	{ "half", 0, SHUFFLED | DIFFERENT },
	{ "1-in-16", 16, SHUFFLED | DIFFERENT },
	{ "1-in-64", 64, SHUFFLED | DIFFERENT | BATCH },
	{ "1-in-512", 512, SHUFFLED | DIFFERENT },
	{ "1-in-4096", 4096, SHUFFLED | DIFFERENT },
};

static struct range *make_pages(const struct page_case *p, size_t n)
{
	__u32 *order = shuffled(p->stride ? n : 2 * n, 2), *other = shuffled(n, 3);
	struct range *pages = calloc(n, sizeof(*pages));
	const struct mem *m = p->flags & HUGE ? &huge : &small;

	if (!pages)
		err(1, "memory");
	for (size_t i = 0; i < n; i++) {
		size_t slot = p->flags & SHUFFLED ? order[i] : i;

		pages[i].iova = TEST_IOVA + slot * (p->stride ?: 1) * PAGE;
		pages[i].va = m->va + (p->flags & DIFFERENT ? other[i] : slot) * PAGE;
		pages[i].size = PAGE;
	}
	free(order);
	free(other);
	return pages;
}

static void page_case(struct backend *b, const struct page_case *p, size_t n,
		      double cost[2])
{
	size_t many = p->flags & MANY ? 4 * n : n;
	__u32 flags = p->flags & READONLY ? RO : RW;
	struct range *pages = make_pages(p, many);
	double bytes;

	backend_open(b);
	bytes = kernel_memory();
	map_ranges(b, pages, many, flags);
	report(p->name, "memory", b, kernel_memory() - bytes, many);
	unmap_ranges(b, pages, many);
	free(pages);

	/* a few of many in no order would not be dense */
	pages = make_pages(p, n);
	cost[0] = map_ranges(b, pages, n, flags);
	cost[1] = unmap_ranges(b, pages, n);
	report(p->name, "map", b, cost[0], n);
	report(p->name, "unmap", b, cost[1], n);
	backend_close(b);
	free(pages);
}

/*
 * Many pages with each ioctl, where that can be done; what the others are
 * compared by is what they need for the same pages one by one.
 */
static void batch_cases(const struct page_case *p, size_t n,
			double cost[ARRAY_SIZE(backends)][2])
{
	static const size_t sizes[] = { 8, 64, 256, 1024 };
	struct range *pages = make_pages(p, n);
	char name[64];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		snprintf(name, sizeof(name), "%s-batch-%zu", p->name, sizes[i]);
		for (size_t j = 0; j < ARRAY_SIZE(backends); j++) {
			struct backend *b = &backends[j];

			if (is_v3(b->type)) {
				batch = sizes[i];
				backend_open(b);
				map_ranges(b, pages, n, RW);
				unmap_ranges(b, pages, n);
				cost[j][0] = map_ranges(b, pages, n, RW);
				cost[j][1] = unmap_ranges(b, pages, n);
				backend_close(b);
				batch = 1;
			}
			report(name, "map", b, cost[j][0], n);
			report(name, "unmap", b, cost[j][1], n);
		}
	}
	free(pages);
}

/*
 * All with one ioctl
 */

static double map_whole(struct backend *b, const struct mem *m, size_t size)
{
	__u64 start = now();

	map(b, TEST_IOVA, m->va, size, RW);
	return now() - start;
}

static double unmap_whole(struct backend *b, size_t size)
{
	__u64 start = now();

	unmap(b, TEST_IOVA, size);
	return now() - start;
}

static void whole_case(struct backend *b, const char *kind, const struct mem *m,
		       size_t size)
{
	size_t npages = size / PAGE;
	double bytes;
	char name[64];
	__u64 start;

	backend_open(b);
	snprintf(name, sizeof(name), "%zuM-%s", size / MIB, kind);
	bytes = kernel_memory();
	map_whole(b, m, size);
	report(name, "memory", b, kernel_memory() - bytes, npages);
	unmap_whole(b, size);

	report(name, "map", b, map_whole(b, m, size), npages);
	report(name, "unmap", b, unmap_whole(b, size), npages);

	/* page by page, where that can be done at all */
	map_whole(b, m, size);
	start = now();
	if (try_unmap(b, TEST_IOVA, PAGE)) {
		for (size_t i = 1; i < npages; i++)
			unmap(b, TEST_IOVA + i * PAGE, PAGE);
		strcat(name, "-by-page");
		report(name, "unmap", b, now() - start, npages);
	}
	backend_close(b);
}

/*
 * One page, in a container that has many already: every other page of a range,
 * no two with the same vaddr - IOVA. The page goes between two of them.
 */

#define BETWEEN		1024	/* pages that are measured */

/* From *filled pages to as many as @level */
static void fill(struct backend *b, size_t *filled, size_t level, __u64 *seed)
{
	const size_t nsmall = scattered.size / PAGE;

	for (; *filled < level; ++*filled)
		map(b, TEST_IOVA + 2 * *filled * PAGE,
		    scattered.va + prng(seed) % nsmall * PAGE, PAGE, RW);
}

static struct range *pages_between(size_t filled)
{
	struct range *pages = calloc(BETWEEN, sizeof(*pages));
	__u32 *order = shuffled(BETWEEN, 4);

	if (!pages)
		err(1, "memory");
	for (size_t i = 0; i < BETWEEN; i++) {
		size_t slot = order[i] * filled / BETWEEN;

		pages[i].iova = TEST_IOVA + (2 * slot + 1) * PAGE;
		pages[i].va = small.va + i * PAGE;
		pages[i].size = PAGE;
	}
	free(order);
	return pages;
}

static void fill_case(struct backend *b, size_t max)
{
	static const size_t levels[] = { 1 << 10, 1 << 14, 1 << 18, 1 << 20 };
	struct range *pages;
	size_t filled = 0;
	double bytes;
	char name[64];
	__u64 seed = 5;

	backend_open(b);
	bytes = kernel_memory();
	for (size_t i = 0; i < ARRAY_SIZE(levels) && levels[i] <= max; i++) {
		fill(b, &filled, levels[i], &seed);
		snprintf(name, sizeof(name), "filled-%zuk", filled / 1024);
		report(name, "memory", b, kernel_memory() - bytes, filled);

		pages = pages_between(filled);
		map_ranges(b, pages, BETWEEN, RW);
		unmap_ranges(b, pages, BETWEEN);
		report(name, "map", b, map_ranges(b, pages, BETWEEN, RW), BETWEEN);
		report(name, "unmap", b, unmap_ranges(b, pages, BETWEEN), BETWEEN);
		free(pages);
	}
	backend_close(b);
}

/*
 * Maps and unmaps in the order in which programs make them
 */

#define REPLAYED	200000	/* ranges */

struct replay {
	char name[64];
	struct range *r;
	size_t n, room;
	size_t mapped, unmapped;	/* pages, in all */
	size_t weigh, weighed;		/* where memory is measured; pages then */
};

static void replay_add(struct replay *p, __u64 iova, void *va, size_t size)
{
	if (p->n == p->room) {
		p->room = 2 * p->room + 1024;
		p->r = realloc(p->r, p->room * sizeof(*p->r));
		if (!p->r)
			err(1, "memory");
	}
	p->r[p->n++] = (struct range) { .iova = iova, .va = va, .size = size };
	*(va ? &p->mapped : &p->unmapped) += size / PAGE;
}

static void replay_weigh(struct replay *p)
{
	p->weigh = p->n;
	p->weighed = p->mapped - p->unmapped;
}

/* With batches: what there is of one kind in succession */
static void replay_ranges(struct backend *b, const struct range *r, size_t n,
			  double cost[2])
{
	for (size_t i = 0, next; i < n; i = next) {
		for (next = i + 1; next < n && !r[next].va == !r[i].va; next++)
			;
		if (r[i].va)
			cost[0] += map_ranges(b, r + i, next - i, RW);
		else
			cost[1] += unmap_ranges(b, r + i, next - i);
	}
}

static void replay_on(struct backend *b, const struct replay *p, double cost[2])
{
	size_t replays = 2 + REPLAYED / p->n;
	double bytes;

	backend_open(b);
	bytes = kernel_memory();
	replay_ranges(b, p->r, p->weigh, cost);
	/* of fewer pages it is mostly not they that take it */
	if (p->weighed >= 1024)
		report(p->name, "memory", b, kernel_memory() - bytes, p->weighed);
	replay_ranges(b, p->r + p->weigh, p->n - p->weigh, cost);

	/* So short that a timer more or less makes a difference: the one without */
	for (size_t i = 0; i < replays; i++) {
		double once[2] = {};

		replay_ranges(b, p->r, p->n, once);
		for (int j = 0; j < 2; j++) {
			if (!i || once[j] < cost[j])
				cost[j] = once[j];
		}
	}
	backend_close(b);
}

static void replay_case(struct replay *p)
{
	double cost[ARRAY_SIZE(backends)][2] = {};

	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
			struct backend *b = &backends[i];

			if (!pass || is_v3(b->type))
				replay_on(b, p, cost[i]);
			report(p->name, "map", b, cost[i][0], p->mapped);
			report(p->name, "unmap", b, cost[i][1], p->unmapped);
		}
		strcat(p->name, "-batch");
		p->weighed = 0;
		batch = VFIO_IOMMU_TYPE1V3_BATCH_MAX;
	}
	batch = 1;
	free(p->r);
}

/*
 * A trace of bench-record.sh. The guest's memory, which is larger, is folded
 * onto what there is; what continues each other there does so here, too.
 */
static void trace_case(const char *path)
{
	const unsigned long most = 1024, room = small.size / PAGE - most;
	unsigned long iova, pfn, npages;
	struct replay p = {};
	char line[256];
	FILE *f;

	f = fopen(path, "re");
	if (!f)
		err(1, "%s", path);
	snprintf(p.name, sizeof(p.name), "%s", strrchr(path, '/') + 1);
	*strchr(p.name, '.') = '\0';
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "map %lx %lx %lu", &iova, &pfn, &npages) == 3) {
			if (npages > most)
				errx(1, "%s: too large: %s", path, line);
			replay_add(&p, TEST_IOVA + iova * PAGE,
				   small.va + pfn % room * PAGE, npages * PAGE);
			if (p.mapped - p.unmapped > p.weighed)
				replay_weigh(&p);
		} else if (sscanf(line, "unmap %lx %lu", &iova, &npages) == 2) {
			replay_add(&p, TEST_IOVA + iova * PAGE, NULL,
				   npages * PAGE);
		} else if (line[0] != '#') {
			errx(1, "%s: what is %s", path, line);
		}
	}
	fclose(f);
	replay_case(&p);
}

static void trace_cases(const char *directory)
{
	char pattern[512];
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/*.trace", directory);
	if (glob(pattern, 0, NULL, &g))
		errx(1, "no %s", pattern);
	for (size_t i = 0; i < g.gl_pathc; i++)
		trace_case(g.gl_pathv[i]);
	globfree(&g);
}

/*
 * coIOMMU: IOVA = guest physical address; pages are pinned when a request first
 * needs them, and when there are too many the least recently used go, 64 at a
 * time. A guest of 4 * n pages, n of which may be pinned; a fifth of its memory
 * takes four fifths of the requests.
 */
static void coiommu_case(size_t n)
{
	const size_t guest = 4 * n, hot = guest / 5, accesses = 12 * n, most = 8;
	__u32 *queue = calloc(accesses + most, sizeof(*queue));
	__u32 *last = calloc(guest, sizeof(*last));	/* use of the page + 1 */
	struct replay p = { .name = "coiommu" };
	size_t head = 0, tail = 0, left;
	__u64 seed = 6;

	if (!queue || !last)
		err(1, "memory");
	while (tail < accesses) {
		size_t npages = 1 + prng(&seed) % most;
		size_t page = prng(&seed) % (prng(&seed) % 5 ? hot : guest);

		for (; npages && page < guest; npages--, page++) {
			if (!last[page])
				replay_add(&p, TEST_IOVA + page * PAGE,
					   small.va + page * PAGE, PAGE);
			queue[tail] = page;
			last[page] = ++tail;
		}
		if (p.mapped - p.unmapped <= n)
			continue;
		replay_weigh(&p);
		for (left = 64; left; head++) {
			page = queue[head];
			if (last[page] != head + 1)
				continue;
			replay_add(&p, TEST_IOVA + page * PAGE, NULL, PAGE);
			last[page] = 0;
			left--;
		}
	}
	/* the guest goes */
	for (; head < tail; head++) {
		if (last[queue[head]] == head + 1)
			replay_add(&p, TEST_IOVA + queue[head] * PAGE, NULL, PAGE);
	}
	free(queue);
	free(last);
	replay_case(&p);
}

/*
 * A confidential guest: IOVA = guest physical address; private pages are not
 * mapped. All of them are shared, one by one in no order, and made private again
 * in another one. Memory is measured when half of them are shared.
 */
static void confidential_case(size_t n)
{
	struct replay p = { .name = "confidential" };

	for (int private = 0; private < 2; private++) {
		__u32 *order = shuffled(n, 7 + private);

		for (size_t i = 0; i < n; i++) {
			replay_add(&p, TEST_IOVA + order[i] * PAGE,
				   private ? NULL : small.va + order[i] * PAGE,
				   PAGE);
			if (!private && i == n / 2)
				replay_weigh(&p);
		}
		free(order);
	}
	replay_case(&p);
}

/*
 * What an emulated device's driver calls, for single pages that are mapped dense
 * and all different, and not in order
 */
static void emulated_case(struct backend *b, size_t n)
{
	static const struct page_case different = {
		.stride = 1, .flags = SHUFFLED | DIFFERENT,
	};
	struct vfio_emulated_test_time time = {
		.iova = TEST_IOVA, .npages = n, .step = n / 2 + 1, .size = 64,
	};
	struct range *pages = make_pages(&different, n);

	backend_open(b);
	map_ranges(b, pages, n, RW);
	/* the first time is not counted */
	for (int i = 0; i < 2; i++) {
		if (ioctl(b->device, VFIO_EMULATED_TEST_TIME, &time))
			err(1, "%s: emulated device", b->name);
	}
	report("emulated", "pin", b, time.pin_ns, n);
	report("emulated", "unpin", b, time.unpin_ns, n);
	report("emulated", "read", b, time.read_ns, n);
	report("emulated", "write", b, time.write_ns, n);
	unmap_ranges(b, pages, n);
	backend_close(b);
	free(pages);
}

/*
 * The same memory in several containers, with a device each: what it costs to map it in
 * the last one, once the others have it; and what the first map of the second one costs,
 * which has to find out what the first one holds. Memory is that of all of them.
 */

#define SHARED_MAX	4

static void shared_case(const struct backend *backend, const char *name,
			const struct range *pages, size_t nr, size_t n, int members)
{
	static const char *const env[] = {
		"TYPE1V3_BENCH_2", "TYPE1V3_BENCH_3", "TYPE1V3_BENCH_4",
	};
	const char *own = device_name;
	struct backend b[SHARED_MAX];
	char name_of[64];
	double bytes;
	__u64 start;

	for (int i = 0; i < members; i++) {
		b[i] = *backend;
		if (i)
			device_name = getenv(env[i - 1]);
		if (!device_name)
			errx(1, "%s is not set", env[i - 1]);
		backend_open(&b[i]);
	}
	device_name = own;

	bytes = kernel_memory();
	map_ranges(&b[0], pages, nr, RW);
	start = now();
	map(&b[1], OTHER_IOVA, pages[0].va, PAGE, RW);
	snprintf(name_of, sizeof(name_of), "%s-activate", name);
	if (members == 2)
		report(name_of, "map", backend, now() - start, n);
	for (int i = 1; i < members; i++)
		map_ranges(&b[i], pages, nr, RW);
	unmap(&b[1], OTHER_IOVA, PAGE);
	snprintf(name_of, sizeof(name_of), "%s-%d", name, members);
	report(name_of, "memory", backend, kernel_memory() - bytes, n);
	unmap_ranges(&b[members - 1], pages, nr);
	report(name_of, "map", backend, map_ranges(&b[members - 1], pages, nr, RW), n);
	report(name_of, "unmap", backend, unmap_ranges(&b[members - 1], pages, nr), n);
	for (int i = members; i--;)
		backend_close(&b[i]);
}

static const struct page_case shared_page_cases[] = {
	{ "shared-linear", 1 },
	{ "shared-different", 1, SHUFFLED | DIFFERENT },
};

static void shared_cases(size_t n)
{
	const struct page_case *cases = shared_page_cases;
	const struct range whole[] = {
		{ .iova = TEST_IOVA, .va = small.va, .size = 64 * MIB },
		{ .iova = TEST_IOVA, .va = huge.va, .size = 64 * MIB },
	};

	for (size_t j = 0; j < ARRAY_SIZE(backends); j++) {
		struct backend *b = &backends[j];

		if (b->type == NATIVE || strcmp(b->container, "/dev/vfio/vfio"))
			continue;
		for (int members = 2; members <= SHARED_MAX; members += 2) {
			for (size_t i = 0; i < ARRAY_SIZE(shared_page_cases); i++) {
				struct range *pages = make_pages(&cases[i], n);

				shared_case(b, cases[i].name, pages, n, n, members);
				free(pages);
			}
			shared_case(b, "shared-whole", &whole[0], 1, 64 * MIB / PAGE, members);
			shared_case(b, "shared-whole-huge", &whole[1], 1, 64 * MIB / PAGE,
				    members);
		}
	}
}

/*
 * Pages that are pinned again and again count as active ones, and becoming one
 * has its price. Files that are opened for the first time stay in caches.
 */
static void warm_up(void)
{
	const struct mem *mem[] = { &small, &scattered, &huge };
	struct backend *b = &backends[0];

	backend_open(b);
	for (size_t i = 0; i < 3 * ARRAY_SIZE(mem); i++) {
		map_whole(b, mem[i / 3], mem[i / 3]->size);
		unmap_whole(b, mem[i / 3]->size);
	}
	backend_close(b);
	kernel_memory();
}

/* For a profile: the same again and again, from when "steady" is printed */

static void steady(int round)
{
	if (round != 2)
		return;
	puts("steady");
	fflush(stdout);
}

static void loop_pages(struct backend *b, const struct page_case *p, bool shared)
{
	const size_t n = 256;
	struct range *pages = make_pages(p, n);
	const char *own = device_name;
	struct backend other = *b;

	if (shared) {
		device_name = getenv("TYPE1V3_BENCH_2");
		backend_open(&other);
		map_ranges(&other, pages, n, RW);
		device_name = own;
	}
	backend_open(b);
	for (int round = 0;; round++) {
		map_ranges(b, pages, n, p->flags & READONLY ? RO : RW);
		unmap_ranges(b, pages, n);
		steady(round);
	}
}

static void loop_emulated(struct backend *b)
{
	static const struct page_case different = {
		.stride = 1, .flags = SHUFFLED | DIFFERENT,
	};
	struct vfio_emulated_test_time time = {
		.npages = batch, .step = batch / 2 + 1, .size = 64,
	};
	const size_t n = small.size / PAGE;
	struct range *pages = make_pages(&different, n);

	device_bus = "platform";
	device_name = emulated_name(0);
	backend_open(b);
	for (size_t i = 0; i < n; i++)
		map(b, pages[i].iova, pages[i].va, PAGE, RW);
	for (int round = 0;; round++) {
		for (size_t i = 0; i < n; i += batch) {
			time.iova = TEST_IOVA + i * PAGE;
			if (ioctl(b->device, VFIO_EMULATED_TEST_TIME, &time))
				err(1, "%s: emulated device", b->name);
		}
		steady(round);
	}
}

/* 4 MiB with one ioctl, and with one or page by page gone again */
static void loop_whole(struct backend *b, const struct mem *m, bool by_page)
{
	const size_t size = 4 * MIB;

	backend_open(b);
	for (int round = 0;; round++) {
		map_whole(b, m, size);
		for (size_t i = 0; by_page && i < size; i += PAGE)
			unmap(b, TEST_IOVA + i, PAGE);
		if (!by_page)
			unmap_whole(b, size);
		steady(round);
	}
}

/* A page in a container that has @level already */
static void loop_filled(struct backend *b, size_t level)
{
	struct range *pages = pages_between(level);
	size_t filled = 0;
	__u64 seed = 5;

	backend_open(b);
	fill(b, &filled, level, &seed);
	for (int round = 0;; round++) {
		map_ranges(b, pages, BETWEEN, RW);
		unmap_ranges(b, pages, BETWEEN);
		steady(round);
	}
}

static void loop(const char *backend, const char *name)
{
	static const struct { const char *name; const struct mem *m; } whole[] = {
		{ "4M-small", &small }, { "4M-scattered", &scattered }, { "4M-huge", &huge },
	};

	alloc_memory(16 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
		struct backend *b = &backends[i];

		if (strcmp(b->name, backend))
			continue;
		if (!strcmp(name, "emulated"))
			loop_emulated(b);
		if (!strcmp(name, "filled-256k"))
			loop_filled(b, 1 << 18);
		for (size_t j = 0; j < ARRAY_SIZE(page_cases); j++)
			if (!strcmp(page_cases[j].name, name))
				loop_pages(b, &page_cases[j], false);
		for (size_t j = 0; j < ARRAY_SIZE(shared_page_cases); j++)
			if (!strcmp(shared_page_cases[j].name, name))
				loop_pages(b, &shared_page_cases[j], true);
		for (size_t j = 0; j < ARRAY_SIZE(whole); j++) {
			size_t length = strlen(whole[j].name);

			if (!strncmp(whole[j].name, name, length))
				loop_whole(b, whole[j].m, !strcmp(name + length, "-by-page"));
		}
	}
	errx(2, "no such backend or case");
}

int main(int argc, char **argv)
{
	size_t npages = 16384, max_fill = 1024 * 1024, memory = GIB;
	const char *backend = NULL, *name = "linear", *traces = NULL;
	int opt;

	while ((opt = getopt(argc, argv, "st:l:c:b:")) != -1) {
		if (opt == 's') {
			npages = 4096;
			max_fill = 16 * 1024;
			memory = 64 * MIB;
		} else if (opt == 't') {
			traces = optarg;
		} else if (opt == 'l') {
			backend = optarg;
		} else if (opt == 'c') {
			name = optarg;
		} else if (opt == 'b') {
			batch = atoi(optarg);
		} else {
			return 2;
		}
	}
	if (optind != argc - 1 || !batch || batch > 256)
		errx(2, "usage: type1v3_bench [-s] [-t DIR | -l BACKEND ...] PCI-ADDRESS");
	device_name = argv[optind];
	if (backend)
		loop(backend, name);

	alloc_memory(memory);
	warm_up();
	for (size_t i = 0; i < ARRAY_SIZE(page_cases); i++) {
		const struct page_case *p = &page_cases[i];
		double cost[ARRAY_SIZE(backends)][2];

		for (size_t j = 0; j < ARRAY_SIZE(backends); j++)
			page_case(&backends[j], p, npages, cost[j]);
		if (p->flags & BATCH)
			batch_cases(p, npages, cost);
	}
	for (size_t size = 64 * MIB; size <= memory; size *= 4) {
		for (size_t j = 0; j < ARRAY_SIZE(backends); j++) {
			whole_case(&backends[j], "small", &small, size);
			whole_case(&backends[j], "huge", &huge, size);
			if (size == scattered.size)
				whole_case(&backends[j], "scattered", &scattered, size);
		}
	}
	for (size_t j = 0; j < ARRAY_SIZE(backends); j++)
		fill_case(&backends[j], max_fill);

	if (traces)
		trace_cases(traces);
	coiommu_case(npages);
	confidential_case(memory / PAGE);
	if (getenv("TYPE1V3_BENCH_2"))
		shared_cases(npages);

	device_bus = "platform";
	device_name = emulated_name(0);
	for (size_t j = 0; j < ARRAY_SIZE(backends); j++)
		if (backends[j].type != VFIO_TYPE1v3_PT_IOMMU)
			emulated_case(&backends[j], npages);
	return 0;
}
