// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every call of a container, with its first, its second, its third ... allocation
 * failing until it does without one more. A call that fails leaves everything as
 * it was: what the container says of itself, the IO page table, locked and pinned
 * memory; a call that must not fail does not. At the end of each test no object of
 * the caches that the backend uses is left over.
 *
 * Wants a kernel with fault injection (/proc/thread-self/fail-nth); elsewhere all
 * of it is skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "type1v3_harness.h"
#include "type1v3_emulated.h"
#include "type1v3_mock.h"

#define NTH_FILE	"/proc/thread-self/fail-nth"
#define NTH_MAX		2000
#define NPAGES		64
#define NR_ENTRIES	48

/* All that a failed call must leave alone */
struct state {
	struct container_info info;
	long locked, pinned;
	__u64 tables;
	__u64 device_pins;
};

FIXTURE(failnth) {
	struct container c, beside;
	struct nvme nvme;
	struct mem mem;
	int nth_fd, device;
	char *nvme2;
	unsigned long objects;
	unsigned long type;
	bool shared;
	long locked;
	unsigned int alone;	/* calls after which pages were charged on their own */
	int owner[2];		/* sockets: our end, and that of the child who is the owner */
	pid_t child;
	/* arguments of the call under test */
	long page;
	int group;
	__u32 flags;
	struct vfio_iommu_type1v3_batch_entry e[NR_ENTRIES];
	__u8 buf[4 * PAGE];
};

FIXTURE_VARIANT(failnth) {
	bool nvme, emulated;
	unsigned long type;	/* or 0, for that with addresses */
	bool shared;	/* another container holds some of the memory, and shares the charge */
};

FIXTURE_VARIANT_ADD(failnth, nvme) { .nvme = true };
FIXTURE_VARIANT_ADD(failnth, emulated) { .emulated = true };
FIXTURE_VARIANT_ADD(failnth, both) { .nvme = true, .emulated = true };
FIXTURE_VARIANT_ADD(failnth, nvme_pt) { .nvme = true, .type = VFIO_TYPE1v3_PT_IOMMU };
FIXTURE_VARIANT_ADD(failnth, shared) { .nvme = true, .shared = true };
FIXTURE_VARIANT_ADD(failnth, shared_both) { .nvme = true, .emulated = true, .shared = true };

/*
 * Failing the nth allocation
 */

/* Where the backend's code is, if no other module's is in between. */
static int backend_text(unsigned long *start, unsigned long *end)
{
	char line[512], type, module[64];
	unsigned long address;
	bool alone = true;
	FILE *f;

	*start = ULONG_MAX;
	*end = 0;
	f = fopen("/proc/kallsyms", "re");
	if (!f)
		return -errno;
	for (int pass = 0; pass < 2; pass++, rewind(f)) {
		while (fgets(line, sizeof(line), f)) {
			if (sscanf(line, "%lx %c %*s [%63[^]]", &address, &type,
				   module) != 3 || (type | ' ') != 't')
				continue;
			if (!strcmp(module, "vfio_dma") ||
			    !strcmp(module, "vfio_iommu_type1v3")) {
				if (address < *start)
					*start = address;
				if (address >= *end)
					*end = (address | (PAGE - 1)) + 1;
			} else if (pass && address >= *start && address < *end) {
				/* which is there for the tests */
				alone &= !strcmp(module, "vfio_emulated_test") ||
					 !strcmp(module, "vfio_mock_iommu");
			}
		}
	}
	fclose(f);
	return *start < *end && alone ? 0 : -ENOENT;
}

/*
 * Fails what is allocated with the backend in the stack, and no more: what VFIO's
 * core and device drivers make of their failures is for others to test. By default
 * allocations that may wait, or of one page, do not fail.
 */
static int allow_failures(void)
{
	unsigned long start, end;
	char first[32], behind[32];
	const char * const settings[][2] = {
		{ "ignore-gfp-wait", "N" },
		{ "verbose", "0" },
		{ "require-start", first },
		{ "require-end", behind },
	};
	static const char * const attrs[] = { "failslab", "fail_page_alloc" };
	static const char page_alloc[] = "/sys/kernel/debug/fail_page_alloc";
	char path[128];
	int ret;

	ret = backend_text(&start, &end);
	if (ret)
		return ret;
	snprintf(first, sizeof(first), "%#lx", start);
	snprintf(behind, sizeof(behind), "%#lx", end);
	for (size_t i = 0; i < ARRAY_SIZE(attrs); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(settings) && !ret; k++) {
			snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s",
				 attrs[i], settings[k][0]);
			ret = file_write(path, settings[k][1]);
		}
	}
	snprintf(path, sizeof(path), "%s/ignore-gfp-highmem", page_alloc);
	ret = ret ?: file_write(path, "N");
	snprintf(path, sizeof(path), "%s/min-order", page_alloc);
	return ret ?: file_write(path, "0");
}

static void set_nth(FIXTURE_DATA(failnth) * self, unsigned int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", nth);

	if (pwrite(self->nth_fd, text, len, 0) != len)
		abort();
}

/* How many allocations more it would have taken to fail one; ends the counting. */
static unsigned int end_nth(FIXTURE_DATA(failnth) * self)
{
	char text[16] = {};

	if (pread(self->nth_fd, text, sizeof(text) - 1, 0) <= 0)
		abort();
	set_nth(self, 0);
	return atoi(text);
}

/*
 * What must be as before
 */

/* The leaves of the IO page table, where the kernel shows it; a digest of them */
static __u64 table_digest(const char *bdf)
{
	unsigned long long iova, entry[5], leaf;
	char path[128], line[256];
	__u64 digest = 0;
	FILE *f;
	int n;

	snprintf(path, sizeof(path),
		 "/sys/kernel/debug/iommu/intel/%s/domain_translation_struct", bdf);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		n = sscanf(line, "%llx %llx %llx %llx %llx %llx", &iova,
			   &entry[0], &entry[1], &entry[2], &entry[3],
			   &entry[4]);
		if (n < 3)
			continue;
		leaf = iova;
		for (int i = 0; i < n - 1; i++)
			if (entry[i])
				leaf = iova << 8 ^ entry[i] ^ (__u64)i << 60;
		/* each line counts, whatever the order */
		digest += prng(&(__u64){ leaf });
	}
	fclose(f);
	return digest;
}

/* The same of a mock IOMMU: where the tests map anything */
static __u64 mock_digest(int dev)
{
	static const __u64 bases[] = { TEST_IOVA, OTHER_IOVA };
	struct vfio_mock_leaf leaf;
	__u64 digest = 0;

	for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
		for (__u64 off = 0; off < 4 * NPAGES * PAGE; off += PAGE) {
			leaf = mock_leaf(dev, bases[i] + off);
			leaf.prot &= ~VFIO_MOCK_LEAF_DIRTY;
			if (leaf.size)
				digest += prng(&(__u64){ leaf.iova << 16 ^ leaf.size << 40 ^
							 leaf.phys ^ leaf.prot ^ off });
		}
	}
	return digest;
}

static void get_state(FIXTURE_DATA(failnth) * self, bool nvme, struct state *s)
{
	memset(s, 0, sizeof(*s));
	container_info(&self->c, &s->info);
	s->locked = locked_pages();
	s->pinned = pinned_pages();
	if (self->nvme.mock)
		s->tables = mock_digest(self->nvme.fd);
	else if (nvme)
		s->tables = table_digest(getenv(ENV_NVME));
	if (self->device >= 0)
		s->device_pins = emulated_state(self->device).pinned;
}

static void expect_same(struct __test_metadata *_metadata,
			const struct state *a, const struct state *b)
{
	struct container_info info;

	EXPECT_EQ(a->locked, b->locked);
	EXPECT_EQ(a->pinned, b->pinned);
	EXPECT_EQ(a->tables, b->tables);
	EXPECT_EQ(a->device_pins, b->device_pins);
	EXPECT_EQ(a->info.own.mapped_pages, b->info.own.mapped_pages);
	EXPECT_EQ(a->info.own.pinned_pages, b->info.own.pinned_pages);
	EXPECT_EQ(a->info.own.charged_pages, b->info.own.charged_pages);
	EXPECT_EQ(a->info.own.store_bytes, b->info.own.store_bytes);
	/* without memory a hold is not in the ledger, which the charge does not show */
	memcpy(&info, &b->info, sizeof(info));
	info.own.alone_pages = a->info.own.alone_pages;
	EXPECT_EQ(0, memcmp(&a->info, &info, sizeof(info)));
}

/*
 * Container and devices
 */

/* What the other container holds: every second page, and one at two addresses */
static int map_beside(FIXTURE_DATA(failnth) * self)
{
	int ret = dma_map(&self->beside, OTHER_IOVA, self->mem.va, PAGE, RW);

	for (long page = 0; page < 4 * NPAGES && !ret; page += 2)
		ret = dma_map(&self->beside, TEST_IOVA + page * PAGE,
			      self->mem.va + page * PAGE, PAGE, RW);
	return ret;
}

static bool open_all(struct __test_metadata *_metadata, FIXTURE_DATA(failnth) * self, bool nvme,
		     bool emulated)
{
	const char *bdf = getenv(ENV_NVME);
	struct container *c = &self->c;

	EXPECT_EQ(0, container_open(c, 0, NULL));
	if (emulated)
		EXPECT_EQ(0, emulated_attach(c, 0));
	if (nvme)
		EXPECT_EQ(0, container_attach(c, bdf));
	EXPECT_EQ(0, ioctl(c->fd, VFIO_SET_IOMMU, self->type));
	if (emulated) {
		self->device = container_device(c, emulated_name(0));
		EXPECT_LE(0, self->device);
	}
	if (nvme)
		EXPECT_EQ(0, nvme_open(&self->nvme, c, bdf, NVME_IOVA));
	if (self->shared) {
		EXPECT_EQ(0, container_open(&self->beside, VFIO_TYPE1v3_IOMMU,
					    getenv(ENV_NVME2)));
		EXPECT_EQ(0, map_beside(self));
	}
	return __test_passed(_metadata);
}

static void close_all(FIXTURE_DATA(failnth) * self)
{
	nvme_close(&self->nvme);
	nvme_init(&self->nvme);
	if (self->device >= 0)
		close(self->device);
	self->device = -1;
	container_close(&self->c);
	container_close(&self->beside);
}

FIXTURE_SETUP(failnth)
{
	container_init(&self->c);
	container_init(&self->beside);
	nvme_init(&self->nvme);
	self->device = -1;
	self->type = variant->type ?: VFIO_TYPE1v3_IOMMU;
	self->nth_fd = open(NTH_FILE, O_RDWR | O_CLOEXEC);
	if (self->nth_fd < 0)
		SKIP(return, "the kernel injects no faults");
	if (variant->nvme && !need_device(_metadata, ENV_NVME))
		return;
	self->shared = variant->shared;
	if (self->shared && !need_device(_metadata, ENV_NVME2))
		return;
	self->nvme2 = self->shared ? NULL : getenv(ENV_NVME2);
	ASSERT_EQ(0, allow_failures());
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, 4 * NPAGES * PAGE));
	pattern_fill(self->mem.va, self->mem.size, 0);
	memset(self->buf, 0, sizeof(self->buf));

	/* whatever the first one ever leaves behind in caches */
	ASSERT_TRUE(open_all(_metadata, self, variant->nvme, variant->emulated));
	close_all(self);
	slab_drain(false);
	self->objects = slab_objects();
	ASSERT_TRUE(open_all(_metadata, self, variant->nvme, variant->emulated));
}

FIXTURE_TEARDOWN(failnth)
{
	unsigned long objects = 0;

	close_all(self);
	mem_free(&self->mem);
	if (self->nth_fd < 0)
		return;
	close(self->nth_fd);
	/* some are freed by a timer of several seconds */
	for (int i = 0; i < 30; i++) {
		slab_drain(false);
		objects = slab_objects();
		if (objects <= self->objects)
			break;
		nanosleep(&(struct timespec){ .tv_sec = 1 }, NULL);
	}
	EXPECT_GE(self->objects, objects);
}

/**
 * struct op - a call to be tried with failing allocations
 * @name: what the report calls it
 * @call: the call
 * @undo: what takes it back after it succeeded; must itself succeed
 * @want: what @call returns on success
 * @must_succeed: it does so whatever fails
 * @want_failures: at least so many allocations fail it
 * @prepare: what is done before each call, if anything
 */
struct op {
	const char *name;
	__s64 (*call)(FIXTURE_DATA(failnth) * self);
	bool (*undo)(FIXTURE_DATA(failnth) * self);
	__s64 want;
	bool must_succeed;
	unsigned int want_failures;
	bool (*prepare)(FIXTURE_DATA(failnth) * self);
};

/* The call has taken effect when this returns. */
static void fail_each(struct __test_metadata *_metadata, FIXTURE_DATA(failnth) * self, bool nvme,
		      const struct op *op, unsigned int *total)
{
	unsigned int nth, left, failed = 0, survived = 0;
	struct state before, after;
	__s64 ret;

	for (nth = 1; nth < NTH_MAX; nth++) {
		if (op->prepare)
			ASSERT_TRUE(op->prepare(self))
				TH_LOG("%s: before %u", op->name, nth);
		get_state(self, nvme, &before);
		set_nth(self, nth);
		ret = op->call(self);
		left = end_nth(self);
		if (left)
			break;

		if (ret == op->want) {
			survived++;
			ASSERT_TRUE(op->undo(self))
				TH_LOG("%s: undo after %u", op->name, nth);
			continue;
		}
		failed++;
		ASSERT_FALSE(op->must_succeed)
			TH_LOG("%s: %lld, allocation %u", op->name, ret, nth);
		ASSERT_EQ(-ENOMEM, ret)
			TH_LOG("%s: allocation %u", op->name, nth);
		get_state(self, nvme, &after);
		expect_same(_metadata, &before, &after);
		ASSERT_TRUE(__test_passed(_metadata))
			TH_LOG("%s: after allocation %u", op->name, nth);
	}

	ASSERT_EQ(op->want, ret)
		TH_LOG("%s: no allocation failed", op->name);
	EXPECT_GE(failed, op->want_failures)
		TH_LOG("%s", op->name);
	if (total)
		*total += nth - 1;
	else
		TH_LOG("%s: %u allocations failed, %u of them in vain", op->name,
		       nth - 1, survived);
}

/* The device sees the pattern of memory page @page at @iova, or a fault. */
static void expect_dma(struct __test_metadata *_metadata, FIXTURE_DATA(failnth) * self,
		       __u64 iova, long page)
{
	static __u8 buf[PAGE];

	if (self->nvme.fd < 0)
		return;
	if (page < 0) {
		EXPECT_EQ(PROBE_FAULT, nvme_probe_read(&self->nvme, iova));
		return;
	}
	EXPECT_EQ(0, nvme_dma_read(&self->nvme, &iova, 1, buf));
	EXPECT_EQ(-1, pattern_check(buf, PAGE, page * (PAGE / 8)));
}

/*
 * MAP and UNMAP
 */

static __s64 call_map(FIXTURE_DATA(failnth) * self)
{
	return dma_map(&self->c, TEST_IOVA, self->mem.va, NPAGES * PAGE, RW);
}

static __s64 call_unmap(FIXTURE_DATA(failnth) * self)
{
	return dma_unmap(&self->c, TEST_IOVA, NPAGES * PAGE);
}

static bool undo_map(FIXTURE_DATA(failnth) * self)
{
	return call_unmap(self) == NPAGES * PAGE;
}

static bool undo_unmap(FIXTURE_DATA(failnth) * self)
{
	return !call_map(self);
}

static const struct op map_op = { "map", call_map, undo_map, 0, false, 1 };
static const struct op unmap_op = {
	"unmap", call_unmap, undo_unmap, NPAGES * PAGE, true
};

TEST_F_TIMEOUT(failnth, map, 1800)
{
	const long page = variant->nvme ? 5 : -1;

	fail_each(_metadata, self, variant->nvme, &map_op, NULL);
	expect_dma(_metadata, self, TEST_IOVA + 5 * PAGE, page);
	fail_each(_metadata, self, variant->nvme, &unmap_op, NULL);
	if (variant->nvme)
		expect_dma(_metadata, self, TEST_IOVA + 5 * PAGE, -1);
}

/* User memory that is not there yet is allocated by the call, too. */
static __s64 call_map_untouched(FIXTURE_DATA(failnth) * self)
{
	/* this itself allocates nothing */
	if (madvise(self->mem.va, self->mem.size, MADV_DONTNEED))
		return -errno;
	return call_map(self);
}

TEST_F_TIMEOUT(failnth, map_untouched, 1800)
{
	static const struct op op = {
		"map untouched memory", call_map_untouched, undo_map, 0, false, 1
	};

	/* without an IOMMU nothing touches it */
	if (!variant->nvme)
		return;
	fail_each(_metadata, self, variant->nvme, &op, NULL);
	fail_each(_metadata, self, variant->nvme, &unmap_op, NULL);
}

/*
 * Single pages, every one different, so that the store goes through all of its
 * forms: one run, more and more of them, and one level deeper.
 */
static __u64 page_iova(long page)
{
	/* dense to begin with, then farther and farther apart */
	return TEST_IOVA + (page < 80 ? page : page << (page % 13)) * PAGE;
}

static void *page_va(FIXTURE_DATA(failnth) * self, long page)
{
	return self->mem.va + (4 * NPAGES - 1 - page) * PAGE;
}

static __s64 call_map_page(FIXTURE_DATA(failnth) * self)
{
	return dma_map(&self->c, page_iova(self->page),
		       page_va(self, self->page), PAGE, RW);
}

static __s64 call_unmap_page(FIXTURE_DATA(failnth) * self)
{
	return dma_unmap(&self->c, page_iova(self->page), PAGE);
}

static bool undo_map_page(FIXTURE_DATA(failnth) * self)
{
	return call_unmap_page(self) == PAGE;
}

static bool undo_unmap_page(FIXTURE_DATA(failnth) * self)
{
	return !call_map_page(self);
}

TEST_F_TIMEOUT(failnth, page_by_page, 1800)
{
	static const struct op map = {
		"map a page", call_map_page, undo_map_page, 0
	};
	static const struct op unmap = {
		"unmap a page", call_unmap_page, undo_unmap_page, PAGE, true
	};
	const long npages = 130;
	unsigned int total = 0;

	for (self->page = 0; self->page < npages; self->page++)
		fail_each(_metadata, self, variant->nvme, &map, &total);
	EXPECT_LT(npages / 10, total);
	TH_LOG("mapping %ld pages: %u allocations failed", npages, total);
	if (variant->nvme) {
		for (long page = 0; page < npages; page += 9)
			expect_dma(_metadata, self, page_iova(page),
				   4 * NPAGES - 1 - page);
	}

	total = 0;
	for (long i = 0; i < npages; i++) {
		self->page = i * 37 % npages;
		fail_each(_metadata, self, variant->nvme, &unmap, &total);
	}
	TH_LOG("unmapping them: %u allocations failed", total);
}

/* A piece out of the middle of a mapping, of superpages where there are any */
static __s64 call_cut(FIXTURE_DATA(failnth) * self)
{
	return dma_unmap(&self->c, TEST_IOVA + MIB + 5 * PAGE, 7 * PAGE);
}

static bool undo_cut(FIXTURE_DATA(failnth) * self)
{
	return dma_unmap(&self->c, TEST_IOVA, 4 * MIB) == 4 * MIB - 7 * PAGE &&
	       !dma_map(&self->c, TEST_IOVA, self->mem.va, 4 * MIB, RW);
}

TEST_F_TIMEOUT(failnth, cut, 1800)
{
	static const struct op op = {
		"cut", call_cut, undo_cut, 7 * PAGE, true
	};

	mem_free(&self->mem);
	if (!need_mem(_metadata, &self->mem, MEM_THP, 4 * MIB))
		return;
	pattern_fill(self->mem.va, self->mem.size, 0);
	ASSERT_EQ(0, dma_map(&self->c, TEST_IOVA, self->mem.va, 4 * MIB, RW));
	fail_each(_metadata, self, variant->nvme, &op, NULL);
	if (variant->nvme) {
		expect_dma(_metadata, self, TEST_IOVA + MIB + 4 * PAGE, 260);
		expect_dma(_metadata, self, TEST_IOVA + MIB + 5 * PAGE, -1);
		expect_dma(_metadata, self, TEST_IOVA + MIB + 12 * PAGE, 268);
	}
	EXPECT_EQ(-1, pattern_check(self->mem.va, self->mem.size, 0));
	EXPECT_EQ(4 * MIB - 7 * PAGE, dma_unmap(&self->c, TEST_IOVA, 4 * MIB));
}

/* Pages that are all different and not contiguous, every second one */
static bool map_some(FIXTURE_DATA(failnth) * self)
{
	bool ok = true;

	for (self->page = 0; self->page < 80; self->page += 2)
		ok &= !call_map_page(self);
	return ok;
}

static __s64 call_unmap_all(FIXTURE_DATA(failnth) * self)
{
	return dma_unmap_all(&self->c);
}

static bool undo_unmap_all(FIXTURE_DATA(failnth) * self)
{
	return map_some(self) && (self->nvme.fd < 0 || !nvme_map(&self->nvme));
}

TEST_F_TIMEOUT(failnth, unmap_all, 1800)
{
	struct op op = {
		"unmap all", call_unmap_all, undo_unmap_all, 0, true
	};
	struct container_info info;

	ASSERT_TRUE(map_some(self));
	ASSERT_EQ(0, container_info(&self->c, &info));
	op.want = info.own.mapped_pages * PAGE;
	fail_each(_metadata, self, variant->nvme, &op, NULL);
	ASSERT_EQ(0, container_info(&self->c, &info));
	EXPECT_EQ(0, info.own.mapped_pages);
	EXPECT_EQ(0, info.own.store_bytes);
}

/*
 * Dirty pages
 */

static __s64 call_dirty_start(FIXTURE_DATA(failnth) * self)
{
	return dirty_tracking(&self->c, VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
}

static __s64 call_dirty_stop(FIXTURE_DATA(failnth) * self)
{
	return dirty_tracking(&self->c, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
}

static bool undo_dirty_start(FIXTURE_DATA(failnth) * self)
{
	return !call_dirty_stop(self);
}

/* Every third page of a linear mapping, so that clearing it cuts runs. */
static bool make_dirty(FIXTURE_DATA(failnth) * self)
{
	bool ok = true;

	memset(self->buf, 0, sizeof(self->buf));
	for (long i = 0; i < NPAGES && self->device >= 0; i += 3)
		ok &= !emulated_rw(self->device, TEST_IOVA + i * PAGE,
				   self->mem.va + i * PAGE, 8, RW_WRITE);
	return ok;
}

static bool undo_dirty_stop(FIXTURE_DATA(failnth) * self)
{
	return !call_dirty_start(self) && make_dirty(self);
}

static __s64 call_dirty_bitmap(FIXTURE_DATA(failnth) * self)
{
	return dirty_bitmap(&self->c, TEST_IOVA, NPAGES * PAGE, PAGE, self->buf,
			    sizeof(__u64));
}

static __s64 call_unmap_dirty(FIXTURE_DATA(failnth) * self)
{
	return dma_unmap_dirty(&self->c, TEST_IOVA, NPAGES * PAGE, PAGE,
			       self->buf, sizeof(__u64));
}

static bool undo_unmap_dirty(FIXTURE_DATA(failnth) * self)
{
	return !call_map(self) && make_dirty(self);
}

TEST_F_TIMEOUT(failnth, dirty, 1800)
{
	static const struct op start = {
		"start dirty tracking", call_dirty_start, undo_dirty_start, 0, true
	};
	struct op bitmap = {
		"dirty bitmap", call_dirty_bitmap, make_dirty, 0, true
	};
	struct op unmap = {
		"unmap with bitmap", call_unmap_dirty, undo_unmap_dirty,
		NPAGES * PAGE, true
	};
	static const struct op stop = {
		"stop dirty tracking", call_dirty_stop, undo_dirty_stop, 0, true
	};
	__u64 want = variant->emulated ? 0x9249249249249249ULL : 0, bits;
	struct vfio_iommu_type1v3_info_cap_dirty cap;

	ASSERT_EQ(0, call_map(self));
	fail_each(_metadata, self, variant->nvme, &start, NULL);
	ASSERT_EQ(0, info_cap(&self->c, VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY, &cap,
			      sizeof(cap)));
	/* a device that writes unseen makes everything dirty */
	if (cap.source == VFIO_IOMMU_TYPE1V3_DIRTY_ALL)
		want = ~0ULL;
	/* to read what an IOMMU has recorded takes memory */
	bitmap.must_succeed = cap.source != VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE;
	unmap.must_succeed = bitmap.must_succeed;
	ASSERT_TRUE(make_dirty(self));
	fail_each(_metadata, self, variant->nvme, &bitmap, NULL);
	memcpy(&bits, self->buf, sizeof(bits));
	EXPECT_EQ(want, bits);
	ASSERT_TRUE(make_dirty(self));
	fail_each(_metadata, self, variant->nvme, &unmap, NULL);
	memcpy(&bits, self->buf, sizeof(bits));
	EXPECT_EQ(want, bits);
	ASSERT_TRUE(undo_unmap_dirty(self));
	fail_each(_metadata, self, variant->nvme, &stop, NULL);
	EXPECT_EQ(NPAGES * PAGE, call_unmap(self));
}

/*
 * Several containers of a process
 */

/* Nothing is held, so that there is no ledger; then some by one of them */
static bool prepare_activation(FIXTURE_DATA(failnth) * self)
{
	bool ok = dma_unmap_all(&self->beside) >= 0 && dma_unmap_all(&self->c) >= 0 &&
		  !call_map(self);

	for (long page = NPAGES + 2; page < 2 * NPAGES && ok; page += 2)
		ok = !dma_map(&self->c, OTHER_IOVA + page * PAGE,
			      self->mem.va + page * PAGE, PAGE, RW);
	return ok;
}

/* What the first one holds, and a page that it does not */
#define HELD_FIRST	(NPAGES + NPAGES / 2 - 1)

static __s64 call_activate(FIXTURE_DATA(failnth) * self)
{
	return dma_map(&self->beside, OTHER_IOVA, self->mem.va + PAGE, NPAGES * PAGE, RW);
}

/* Each page is charged once or, if there was no memory to find that out, for each hold. */
static bool undo_activate(FIXTURE_DATA(failnth) * self)
{
	long charged = locked_pages() - self->locked;

	self->alone += charged > HELD_FIRST + 1;
	return charged >= HELD_FIRST + 1 && charged <= HELD_FIRST + NPAGES;
}

/* The first map of a second container is where all of the first one are counted. */
TEST_F_TIMEOUT(failnth, activate, 1800)
{
	static const struct op op = {
		"map in another container", call_activate, undo_activate, 0, false, 1,
		prepare_activation,
	};
	struct state before, after;

	if (!variant->shared || variant->emulated)
		return;
	dma_unmap_all(&self->beside);
	dma_unmap_all(&self->c);
	get_state(self, true, &before);
	self->locked = before.locked;
	fail_each(_metadata, self, variant->nvme, &op, NULL);
	EXPECT_EQ(HELD_FIRST + 1, locked_pages() - before.locked);
	EXPECT_LT(0, self->alone);
	TH_LOG("%u times, some or all were charged on their own", self->alone);
	EXPECT_EQ(NPAGES * PAGE, dma_unmap_all(&self->beside));
	EXPECT_LT(0, dma_unmap_all(&self->c));
	get_state(self, true, &after);
	expect_same(_metadata, &before, &after);
}

/* A child that owns the container whenever it is told to */
static void own(FIXTURE_DATA(failnth) * self)
{
	char word;

	while (read(self->owner[1], &word, 1) == 1) {
		word = !(vaddr_invalidate(&self->c, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL) >= 0 &&
			 !vaddr_update(&self->c, TEST_IOVA, self->mem.va, NPAGES * PAGE));
		/* whoever has no container open does not look at this */
		if (write(self->owner[1], &word, 1) != 1)
			break;
	}
	_exit(0);
}

static bool prepare_move(FIXTURE_DATA(failnth) * self)
{
	char word = 0;

	/* a ledger that has found no memory would stay as it is */
	if (dma_unmap_all(&self->beside) < 0 || map_beside(self))
		return false;
	return write(self->owner[0], &word, 1) == 1 &&
	       read(self->owner[0], &word, 1) == 1 && !word &&
	       vaddr_invalidate(&self->c, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL) == NPAGES * PAGE;
}

static __s64 call_move(FIXTURE_DATA(failnth) * self)
{
	return vaddr_update(&self->c, TEST_IOVA, self->mem.va, NPAGES * PAGE);
}

static bool undo_move(FIXTURE_DATA(failnth) * self)
{
	struct container_info info;

	return !container_info(&self->c, &info) && info.own.pinned_pages == NPAGES;
}

/* A container of another process is taken over, and some of it is held here already. */
TEST_F_TIMEOUT(failnth, move, 1800)
{
	static const struct op op = {
		"take a container over", call_move, undo_move, 0, true, 0, prepare_move,
	};
	long locked;

	if (!variant->shared || variant->emulated)
		return;
	nvme_close(&self->nvme);
	nvme_init(&self->nvme);
	dma_unmap_all(&self->beside);
	dma_unmap_all(&self->c);
	locked = locked_pages();
	mem_free(&self->mem);
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_SHARED, 4 * NPAGES * PAGE));
	pattern_fill(self->mem.va, self->mem.size, 0);
	ASSERT_EQ(0, call_map(self));
	ASSERT_EQ(0, map_beside(self));
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, self->owner));
	self->child = fork();
	ASSERT_LE(0, self->child);
	if (!self->child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		own(self);
	}
	fail_each(_metadata, self, variant->nvme, &op, NULL);
	EXPECT_EQ(2 * NPAGES + NPAGES / 2, locked_pages() - locked);
	ASSERT_EQ(0, kill(self->child, SIGKILL));
	waitpid(self->child, NULL, 0);
	EXPECT_EQ(NPAGES * PAGE, call_unmap(self));
	EXPECT_EQ((2 * NPAGES + 1) * PAGE, dma_unmap_all(&self->beside));
	EXPECT_EQ(locked, locked_pages());
}

/*
 * User addresses of a live update
 */

static __s64 call_invalidate(FIXTURE_DATA(failnth) * self)
{
	return vaddr_invalidate(&self->c, TEST_IOVA + 9 * PAGE, 11 * PAGE, 0);
}

static __s64 call_update(FIXTURE_DATA(failnth) * self)
{
	return vaddr_update(&self->c, TEST_IOVA + 9 * PAGE, self->mem.va + MIB / 2,
			    11 * PAGE);
}

static bool undo_invalidate(FIXTURE_DATA(failnth) * self)
{
	return !call_update(self);
}

static bool undo_update(FIXTURE_DATA(failnth) * self)
{
	return call_invalidate(self) == 11 * PAGE;
}

TEST_F_TIMEOUT(failnth, vaddr, 1800)
{
	static const struct op invalidate = {
		"invalidate vaddr", call_invalidate, undo_invalidate, 11 * PAGE,
		true
	};
	static const struct op update = {
		"update vaddr", call_update, undo_update, 0, true
	};

	ASSERT_EQ(0, call_map(self));
	if (variant->emulated) {
		EXPECT_EQ(-EBUSY, call_invalidate(self));
		return;
	}
	if (!has_vaddr(self->type)) {
		EXPECT_EQ(-EOPNOTSUPP, call_invalidate(self));
		EXPECT_EQ(-EOPNOTSUPP, call_update(self));
		return;
	}
	fail_each(_metadata, self, variant->nvme, &invalidate, NULL);
	fail_each(_metadata, self, variant->nvme, &update, NULL);
	EXPECT_EQ(NPAGES * PAGE, call_unmap(self));
}

/*
 * GET_INFO
 */

static __s64 call_info(FIXTURE_DATA(failnth) * self)
{
	struct container_info info;

	return container_info(&self->c, &info);
}

static bool undo_nothing(FIXTURE_DATA(failnth) * self)
{
	return true;
}

TEST_F_TIMEOUT(failnth, info, 1800)
{
	static const struct op op = { "info", call_info, undo_nothing, 0, false, 1 };

	fail_each(_metadata, self, variant->nvme, &op, NULL);
}

/*
 * Batches
 */

static void batch_maps(FIXTURE_DATA(failnth) * self)
{
	/* units of several entries, and single pages far apart */
	for (long i = 0; i < NR_ENTRIES; i++) {
		long page = i < 16 ? i : 2 * i;

		self->e[i] = (struct vfio_iommu_type1v3_batch_entry) {
			.iova = TEST_IOVA + (i < 32 ? page : page << 9) * PAGE,
			.size = PAGE,
			.vaddr = (uintptr_t)self->mem.va + page * PAGE,
			.flags = RW,
			.result = 1,
		};
	}
}

static void batch_unmaps(FIXTURE_DATA(failnth) * self)
{
	batch_maps(self);
	for (long i = 0; i < NR_ENTRIES; i++) {
		self->e[i].vaddr = 0;
		self->e[i].flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP;
	}
}

static __s64 run_batch(FIXTURE_DATA(failnth) * self)
{
	return dma_batch(&self->c, self->flags, NR_ENTRIES, self->e);
}

static __s64 call_batch_unmap(FIXTURE_DATA(failnth) * self)
{
	batch_unmaps(self);
	return run_batch(self);
}

static bool undo_batch_unmap(FIXTURE_DATA(failnth) * self)
{
	batch_maps(self);
	return !run_batch(self);
}

/* A batch can fail in part: every entry's result is true. */
static void batch_in_part(struct __test_metadata *_metadata, FIXTURE_DATA(failnth) * self,
			  bool nvme, __u32 flags)
{
	unsigned int nth, left, done, canceled, failed, unknown;
	struct state before, after;
	__s64 ret;

	self->flags = flags;
	for (nth = 1; nth < NTH_MAX; nth++) {
		get_state(self, nvme, &before);
		batch_maps(self);
		set_nth(self, nth);
		ret = run_batch(self);
		left = end_nth(self);
		ASSERT_TRUE(!ret || (ret >= -ENOMEM && !left))
			TH_LOG("%lld, allocation %u", ret, nth);

		done = 0;
		unknown = 0;
		canceled = 0;
		failed = 0;
		for (int i = 0; i < NR_ENTRIES; i++) {
			if (ret < 0) {
				/* the call itself */
				EXPECT_EQ(-ENOMEM, ret);
				EXPECT_EQ(1, self->e[i].result);
				continue;
			}
			if (!self->e[i].result) {
				done++;
				/* the other container has every second one */
				unknown += (self->e[i].vaddr - (uintptr_t)self->mem.va) /
					   PAGE % 2;
			} else if (self->e[i].result == -ECANCELED) {
				canceled++;
			} else {
				failed++;
				EXPECT_EQ(-ENOMEM, self->e[i].result);
			}
		}
		EXPECT_EQ(ret < 0 ? 0 : ret, failed);
		EXPECT_EQ(!ret, done == NR_ENTRIES);
		EXPECT_TRUE(!canceled || !flags);
		get_state(self, nvme, &after);
		EXPECT_EQ(done, after.info.own.mapped_pages -
				before.info.own.mapped_pages);
		if (nvme && !self->shared)
			EXPECT_EQ(done, after.locked - before.locked);
		if (self->shared) {
			EXPECT_LE(unknown, after.locked - before.locked);
			EXPECT_GE(done, after.locked - before.locked);
		}
		EXPECT_EQ(nvme ? done : 0, after.pinned - before.pinned);

		for (int i = 0; i < NR_ENTRIES; i++) {
			__s64 size = self->e[i].result ? 0 : PAGE;

			EXPECT_EQ(size, dma_unmap(&self->c, self->e[i].iova,
						  PAGE));
		}
		get_state(self, nvme, &after);
		expect_same(_metadata, &before, &after);
		ASSERT_TRUE(__test_passed(_metadata))
			TH_LOG("after allocation %u", nth);
		if (left)
			break;
	}
	EXPECT_LT(nth, NTH_MAX);
	TH_LOG("batch with flags %u: %u allocations failed", flags, nth - 1);
}

TEST_F_TIMEOUT(failnth, batch, 1800)
{
	batch_in_part(_metadata, self, variant->nvme, 0);
	batch_in_part(_metadata, self, variant->nvme,
		      VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE);
}

/* Unmapping fails for want of memory only before it begins. */
TEST_F_TIMEOUT(failnth, batch_unmap, 1800)
{
	static const struct op unmap = {
		"batch of unmaps", call_batch_unmap, undo_batch_unmap, 0
	};

	self->flags = 0;
	ASSERT_TRUE(undo_batch_unmap(self));
	if (variant->nvme)
		expect_dma(_metadata, self, self->e[40].iova, 80);
	fail_each(_metadata, self, variant->nvme, &unmap, NULL);
}

/*
 * Groups
 */

static __s64 call_attach(FIXTURE_DATA(failnth) * self)
{
	return ioctl(self->c.group[self->group].fd, VFIO_GROUP_SET_CONTAINER,
		     &self->c.fd) ? -errno : 0;
}

static __s64 call_detach(FIXTURE_DATA(failnth) * self)
{
	return ioctl(self->c.group[self->group].fd,
		     VFIO_GROUP_UNSET_CONTAINER) ? -errno : 0;
}

static bool undo_attach(FIXTURE_DATA(failnth) * self)
{
	return !call_detach(self);
}

static bool undo_detach(FIXTURE_DATA(failnth) * self)
{
	return !call_attach(self);
}

static const struct op attach_op = {
	"attach", call_attach, undo_attach, 0, false, 1
};

static const struct op detach_op = {
	"detach", call_detach, undo_detach, 0, true
};

/*
 * A group is attached to a container with mappings of all kinds. If it is the
 * first with an IOMMU all that memory has to be pinned.
 */
TEST_F_TIMEOUT(failnth, attach, 1800)
{
	const char *bdf = self->nvme2;

	/* The other container has that device. */
	if (variant->shared)
		return;
	if (!bdf)
		SKIP(return, "needs another device");
	ASSERT_TRUE(map_some(self));
	ASSERT_EQ(0, dma_map(&self->c, OTHER_IOVA, self->mem.va, NPAGES * PAGE,
			     RO));
	if (self->device >= 0)
		ASSERT_EQ(5, emulated_pin(self->device, OTHER_IOVA, 5, PIN_READ,
					  NULL));
	self->group = self->c.ngroups;
	ASSERT_EQ(0, container_attach(&self->c, bdf));
	ASSERT_EQ(0, call_detach(self));
	fail_each(_metadata, self, variant->nvme, &attach_op, NULL);
	fail_each(_metadata, self, variant->nvme, &detach_op, NULL);
	EXPECT_EQ(NPAGES * PAGE, dma_unmap(&self->c, OTHER_IOVA, NPAGES * PAGE));
}

/* One more group without an IOMMU */
TEST_F_TIMEOUT(failnth, attach_emulated, 1800)
{
	static const struct op op = {
		"attach an emulated device", call_attach, undo_attach, 0, false, 1
	};

	ASSERT_EQ(0, call_map(self));
	self->group = self->c.ngroups;
	if (!has_vaddr(self->type)) {
		EXPECT_EQ(-EOPNOTSUPP, emulated_attach(&self->c, 1));
		EXPECT_EQ(NPAGES * PAGE, call_unmap(self));
		return;
	}
	ASSERT_EQ(0, emulated_attach(&self->c, 1));
	ASSERT_EQ(0, call_detach(self));
	fail_each(_metadata, self, variant->nvme, &op, NULL);
	fail_each(_metadata, self, variant->nvme, &detach_op, NULL);
	EXPECT_EQ(NPAGES * PAGE, call_unmap(self));
}

/* SET_IOMMU: opens the backend and attaches the groups */
static __s64 call_set_iommu(FIXTURE_DATA(failnth) * self)
{
	return ioctl(self->c.fd, VFIO_SET_IOMMU, self->type) ? -errno : 0;
}

static bool open_without_backend(FIXTURE_DATA(failnth) * self)
{
	bool ok;

	container_close(&self->c);
	ok = !container_open(&self->c, 0, NULL);
	if (ok && self->flags & 1)
		ok = !container_attach(&self->c, getenv(ENV_NVME));
	if (ok && self->flags & 2)
		ok = !emulated_attach(&self->c, 0);
	return ok;
}

TEST_F_TIMEOUT(failnth, set_iommu, 1800)
{
	static const struct op op = {
		"set iommu", call_set_iommu, open_without_backend, 0, false, 1
	};

	close_all(self);
	self->flags = (variant->nvme ? 1 : 0) | (variant->emulated ? 2 : 0);
	ASSERT_TRUE(open_without_backend(self));
	fail_each(_metadata, self, variant->nvme, &op, NULL);
	EXPECT_EQ(0, call_map(self));
}

/* The last reference goes, with everything mapped and pinned. */
TEST_F_TIMEOUT(failnth, close, 1800)
{
	unsigned int nth, left;
	struct state before;

	get_state(self, false, &before);
	for (nth = 1; nth < NTH_MAX; nth++) {
		ASSERT_TRUE(map_some(self));
		if (variant->emulated)
			ASSERT_EQ(1, emulated_pin(self->device, page_iova(4), 1,
						  PIN_RW, NULL));
		set_nth(self, nth);
		close_all(self);
		left = end_nth(self);
		ASSERT_TRUE(open_all(_metadata, self, variant->nvme,
				     variant->emulated));
		EXPECT_EQ(before.locked, locked_pages());
		EXPECT_EQ(before.pinned, pinned_pages());
		if (left)
			break;
	}
	EXPECT_LT(nth, NTH_MAX);
	TH_LOG("close: %u allocations failed", nth - 1);
}

/*
 * What drivers of emulated devices call
 */

static __s64 call_pin(FIXTURE_DATA(failnth) * self)
{
	return emulated_pin(self->device, TEST_IOVA, NPAGES, PIN_RW, NULL);
}

static __s64 call_unpin(FIXTURE_DATA(failnth) * self)
{
	return emulated_unpin(self->device, TEST_IOVA, NPAGES);
}

static bool undo_pin(FIXTURE_DATA(failnth) * self)
{
	return !call_unpin(self);
}

static bool undo_unpin(FIXTURE_DATA(failnth) * self)
{
	return call_pin(self) == NPAGES;
}

static bool undo_unmap_pinned(FIXTURE_DATA(failnth) * self)
{
	return undo_unmap(self) && undo_unpin(self);
}

TEST_F_TIMEOUT(failnth, pin, 1800)
{
	static const struct op pin = {
		"pin", call_pin, undo_pin, NPAGES
	};
	static const struct op unpin = { "unpin", call_unpin, undo_unpin, 0, true };
	static const struct op unmap = {
		"unmap what is pinned", call_unmap, undo_unmap_pinned,
		NPAGES * PAGE, true
	};

	if (!variant->emulated)
		return;
	ASSERT_EQ(0, call_map(self));
	fail_each(_metadata, self, variant->nvme, &pin, NULL);
	fail_each(_metadata, self, variant->nvme, &unpin, NULL);
	/* and what is unmapped has to be unpinned first */
	ASSERT_EQ(NPAGES, call_pin(self));
	fail_each(_metadata, self, variant->nvme, &unmap, NULL);
	EXPECT_EQ(0, emulated_state(self->device).pinned);
}

static __s64 call_rw(FIXTURE_DATA(failnth) * self)
{
	return emulated_rw(self->device, TEST_IOVA + PAGE - 8, self->buf,
			   2 * PAGE, self->flags);
}

TEST_F_TIMEOUT(failnth, dma_rw, 1800)
{
	static const struct op op = { "dma_rw", call_rw, undo_nothing, 0 };

	if (!variant->emulated)
		return;
	ASSERT_EQ(0, call_map(self));
	ASSERT_EQ(0, call_dirty_start(self));
	for (__u32 flags = 0; flags < 4; flags++) {
		self->flags = flags;
		fail_each(_metadata, self, variant->nvme, &op, NULL);
		/* what was read is written back by the next one */
		EXPECT_EQ(-1, pattern_check(self->buf, 2 * PAGE, PAGE / 8 - 1));
	}
	EXPECT_EQ(-1, pattern_check(self->mem.va, NPAGES * PAGE, 0));
	EXPECT_EQ(NPAGES * PAGE, call_unmap(self));
}

TEST_HARNESS_MAIN
