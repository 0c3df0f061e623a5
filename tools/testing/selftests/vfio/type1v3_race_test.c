// SPDX-License-Identifier: GPL-2.0-only
/*
 * All that a container is asked for, asked at the same time: map, unmap, pin,
 * dirty tracking, batches, groups that come and go, and the end of it all, while
 * some of the memory is slow to come. userfaultfd makes it slow: a page that is
 * looked at for the first time comes when a thread of ours says so, and until
 * then whoever pins it waits in the middle of his call.
 *
 * What each call returns depends on who was first, so that only what can never
 * be is wrong. What must hold is that nothing crashes, hangs or is left behind.
 *
 * TYPE1V3_SECONDS in the environment: how long each test goes on, default 5.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "type1v3_emulated.h"
#include "type1v3_harness.h"

#define WINDOW		512UL	/* pages of IOVA that everybody uses */
#define SLOW		64UL	/* pages of slow memory */
#define IOVA(page)	(TEST_IOVA + (page) * PAGE)
#define PRIVATE		OTHER_IOVA	/* nobody unmaps what is here */
#define PRIVATE_PAGES	16

/* A process in which threads race */
struct race {
	struct container c;
	const char *bdf[2];
	bool physical, emulated, last_group;
	__u8 *mem, *slow;
	int uffd, dev;
	bool stop;
	unsigned int bad;	/* results that cannot be */
	unsigned int done;	/* calls */
};

struct racer {
	struct race *r;
	__u64 rng;
};

static unsigned int rnd(struct racer *t, unsigned int below)
{
	return (prng(&t->rng) >> 20) % below;
}

static bool stopped(struct race *r)
{
	return __atomic_load_n(&r->stop, __ATOMIC_RELAXED);
}

/* Each bit of @allowed is an errno; success always is. */
#define ERR(e)	(1ULL << (e))
#define MAY_FAIL (ERR(EEXIST) | ERR(EFAULT) | ERR(EINVAL) | ERR(ENODEV) | ERR(EBUSY))

static void check(struct race *r, const char *what, long ret, __u64 allowed)
{
	/* a child maps when nothing is, and the container is its own */
	if (r->last_group)
		allowed |= ERR(EPERM);
	__atomic_fetch_add(&r->done, 1, __ATOMIC_RELAXED);
	if (ret >= 0 || (ret > -64 && allowed & ERR(-ret)))
		return;
	printf("# %s: %s\n", what, strerror(-ret));
	__atomic_fetch_add(&r->bad, 1, __ATOMIC_RELAXED);
}

/* Memory to be mapped: some of it slow */
static __u8 *some_memory(struct racer *t, unsigned int *npages)
{
	*npages = 1 + rnd(t, rnd(t, 4) ? 8 : 200);
	if (rnd(t, 2))
		return t->r->mem + rnd(t, WINDOW - *npages) * PAGE;
	*npages = *npages % SLOW + 1;
	return t->r->slow + rnd(t, SLOW - *npages + 1) * PAGE;
}

static void *race_map(void *arg)
{
	struct racer *t = arg;
	unsigned int npages;
	__u8 *va;

	while (!stopped(t->r)) {
		va = some_memory(t, &npages);
		check(t->r, "map", dma_map(&t->r->c, IOVA(rnd(t, WINDOW)), va,
					   npages * PAGE, rnd(t, 4) ? RW : RO),
		      MAY_FAIL);
	}
	return NULL;
}

static void *race_unmap(void *arg)
{
	struct racer *t = arg;
	struct race *r = t->r;
	__u64 bits[16];

	while (!stopped(r)) {
		__u64 iova = IOVA(rnd(t, WINDOW));
		__u64 size = (1 + rnd(t, rnd(t, 8) ? 16 : 1024)) * PAGE;

		if (rnd(t, 8))
			check(r, "unmap", dma_unmap(&r->c, iova, size),
			      ERR(EINVAL));
		else
			check(r, "unmap dirty",
			      dma_unmap_dirty(&r->c, iova, size, PAGE, bits,
					      sizeof(bits)), ERR(EINVAL));
		usleep(rnd(t, 500));
	}
	return NULL;
}

static void *race_batch(void *arg)
{
	struct vfio_iommu_type1v3_batch_entry entry[16];
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.entries = (uintptr_t)entry,
	};
	struct racer *t = arg;
	unsigned int npages;

	while (!stopped(t->r)) {
		batch.nr_entries = 1 + rnd(t, 16);
		batch.flags = rnd(t, 3);
		for (unsigned int i = 0; i < batch.nr_entries; i++) {
			bool map = batch.flags == 2 || rnd(t, 3);

			entry[i].vaddr = (uintptr_t)some_memory(t, &npages);
			entry[i].iova = IOVA(rnd(t, WINDOW));
			entry[i].size = npages * PAGE;
			entry[i].flags = RW;
			if (!rnd(t, 4))
				entry[i].flags |= VFIO_IOMMU_TYPE1V3_ENTRY_IF_ABSENT;
			if (!map) {
				entry[i].flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP;
				entry[i].vaddr = 0;
			}
		}
		check(t->r, "batch", ioctl(t->r->c.fd, VFIO_IOMMU_TYPE1V3_BATCH,
					   &batch) ? -errno : 0, MAY_FAIL);
	}
	return NULL;
}

/* Pins that an unmap takes back, and others that only their owner does */
static void *race_pin(void *arg)
{
	struct racer *t = arg;
	struct race *r = t->r;
	__u8 data[64];
	int ret;

	while (!stopped(r) && r->dev >= 0) {
		__u64 iova = IOVA(rnd(t, WINDOW)) + rnd(t, 64) * 8;

		switch (rnd(t, 6)) {
		case 0:
			check(r, "pin", emulated_pin(r->dev, iova, 1 + rnd(t, 8),
						     PIN_READ, NULL),
			      ERR(EINVAL) | ERR(EFAULT) | ERR(EPERM));
			break;
		case 1:
			check(r, "rw", emulated_rw(r->dev, iova, data, 64,
						   rnd(t, 2) * RW_WRITE),
			      ERR(EINVAL) | ERR(EFAULT) | ERR(EPERM));
			break;
		case 3:
			/*
			 * Not where memory is slow: this waits for the kernel thread,
			 * which nobody can kill, and this process would not end.
			 */
			check(r, "rw of a kernel thread",
			      emulated_rw(r->dev, PRIVATE + rnd(t, 64) * 8, data, 64,
					  RW_KTHREAD | rnd(t, 2) * RW_WRITE), 0);
			break;
		case 4:
			check(r, "in the background",
			      emulated_background(r->dev, rnd(t, 2) ?
						  VFIO_EMULATED_TEST_PIN :
						  VFIO_EMULATED_TEST_RW,
						  iova, 1 + rnd(t, 8)), ERR(EBUSY));
			break;
		case 2:
			check(r, "access", emulated_access(r->dev, iova, data, 64, 0),
			      ERR(ENOENT));
			break;
		default:
			ret = emulated_pin(r->dev, PRIVATE, PRIVATE_PAGES, PIN_RW,
					   NULL);
			check(r, "pin mine", ret, 0);
			if (ret > 0)
				emulated_unpin(r->dev, PRIVATE, ret);
		}
	}
	return NULL;
}

static void *race_dirty(void *arg)
{
	struct racer *t = arg;
	struct race *r = t->r;
	struct container_info info;
	__u64 bits[WINDOW / 64];

	while (!stopped(r)) {
		check(r, "start",
		      dirty_tracking(&r->c, VFIO_IOMMU_DIRTY_PAGES_FLAG_START),
		      ERR(EINVAL));
		for (int i = rnd(t, 8); i >= 0; i--)
			check(r, "get",
			      dirty_bitmap(&r->c, IOVA(0), WINDOW * PAGE, PAGE, bits,
					   sizeof(bits)), ERR(EINVAL));
		check(r, "info", container_info(&r->c, &info), ERR(EINVAL));
		if (!rnd(t, 3))
			check(r, "stop",
			      dirty_tracking(&r->c, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP),
			      ERR(EINVAL));
		usleep(rnd(t, 2000));
	}
	return NULL;
}

/* A user address goes and comes back; with emulated devices that is refused. */
static void *race_vaddr(void *arg)
{
	struct racer *t = arg;
	struct race *r = t->r;

	while (!stopped(r)) {
		__u64 iova = IOVA(rnd(t, WINDOW)), size = (1 + rnd(t, 8)) * PAGE;

		check(r, "invalidate", vaddr_invalidate(&r->c, iova, size, 0),
		      ERR(EBUSY) | ERR(EINVAL));
		check(r, "update", vaddr_update(&r->c, iova, r->mem, size),
		      ERR(ENOENT) | ERR(EINVAL));
		usleep(rnd(t, 1000));
	}
	return NULL;
}

/* A child of race_memory() may have the device open for a moment. */
static void detach(struct race *r, const char *name)
{
	int ret;

	while ((ret = container_detach(&r->c, name)) == -EBUSY)
		usleep(1000);
	check(r, "detach", ret, ERR(ENOENT));
}

/*
 * A second physical group, a second emulated one, or the first ones: then
 * mappings gain or lose their domain, or go altogether with the last group.
 */
static void *race_groups(void *arg)
{
	const __u64 may_fail = ERR(EBUSY) | ERR(EFAULT) | ERR(EINVAL) | ERR(ENODEV);
	struct racer *t = arg;
	struct race *r = t->r;
	int dev;

	while (!stopped(r)) {
		switch (rnd(t, 4)) {
		case 0:
			if (container_attach(&r->c, r->bdf[1]))
				break;
			usleep(rnd(t, 3000));
			detach(r, r->bdf[1]);
			break;
		case 1:
			if (emulated_attach(&r->c, 1))
				break;
			dev = container_device(&r->c, emulated_name(1));
			/* without an IOMMU chosen there is no device */
			if (dev >= 0)
				check(r, "second pin",
				      emulated_pin(dev, IOVA(0), 8, PIN_READ, NULL),
				      ERR(EINVAL) | ERR(EFAULT) | ERR(EPERM));
			if (dev >= 0)
				close(dev);
			detach(r, emulated_name(1));
			break;
		case 2:
			if (!r->physical || !(r->emulated || r->last_group))
				break;
			detach(r, r->bdf[0]);
			usleep(rnd(t, 2000));
			check(r, "attach", container_attach(&r->c, r->bdf[0]), may_fail);
			break;
		default:
			usleep(rnd(t, 2000));
		}
		if (r->last_group && !ioctl(r->c.fd, VFIO_SET_IOMMU, VFIO_TYPE1v3_IOMMU))
			__atomic_fetch_add(&r->done, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Children that look at the container, and memory that changes under it */
static void *race_memory(void *arg)
{
	struct racer *t = arg;
	struct race *r = t->r;
	pid_t pid;

	while (!stopped(r)) {
		__u8 *page = r->slow + rnd(t, SLOW) * PAGE;

		switch (rnd(t, 8)) {
		case 0:
			pid = fork();
			if (!pid) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				dma_unmap(&r->c, IOVA(rnd(t, WINDOW)), 4 * PAGE);
				dma_map(&r->c, IOVA(rnd(t, WINDOW)), r->mem, PAGE, RW);
				if (rnd(t, 2))
					execl("/bin/true", "true", NULL);
				_exit(0);
			}
			waitpid(pid, NULL, 0);
			break;
		case 1:
			/* in the middle of what is being pinned */
			if (mprotect(page, PAGE, PROT_READ) ||
			    mprotect(page, PAGE, PROT_READ | PROT_WRITE))
				r->bad++;
			break;
		default:
			/* what has come is missing again */
			if (madvise(page, PAGE, MADV_DONTNEED))
				r->bad++;
			madvise(r->mem + rnd(t, WINDOW) * PAGE, PAGE, MADV_DONTNEED);
		}
		usleep(rnd(t, 1000));
	}
	return NULL;
}

/* Where the slow memory comes from */
static void *slow_memory(void *arg)
{
	struct racer *t = arg;
	struct race *r = t->r;
	struct uffd_msg msg;

	while (read(r->uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		struct uffdio_zeropage zero = { .range.len = PAGE };

		if (msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		if (!stopped(r))
			usleep(rnd(t, 3000));
		zero.range.start = msg.arg.pagefault.address & ~(PAGE - 1);
		ioctl(r->uffd, UFFDIO_ZEROPAGE, &zero);
	}
	return NULL;
}

static int race_open(struct race *r)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int flags = MAP_PRIVATE | MAP_ANONYMOUS, ret;

	r->dev = -1;
	ret = container_open(&r->c, 0, NULL);
	if (!ret && r->emulated)
		ret = emulated_attach(&r->c, 0);
	if (!ret && r->physical)
		ret = container_attach(&r->c, r->bdf[0]);
	if (!ret && ioctl(r->c.fd, VFIO_SET_IOMMU, VFIO_TYPE1v3_IOMMU))
		ret = -errno;
	if (ret)
		return ret;
	if (r->emulated) {
		r->dev = container_device(&r->c, emulated_name(0));
		if (r->dev < 0)
			return r->dev;
	}

	r->mem = mmap(NULL, (WINDOW + PRIVATE_PAGES) * PAGE, PROT_READ | PROT_WRITE,
		      flags, -1, 0);
	r->slow = mmap(NULL, SLOW * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (r->mem == MAP_FAILED || r->slow == MAP_FAILED)
		return -ENOMEM;
	r->uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (r->uffd < 0 || ioctl(r->uffd, UFFDIO_API, &api))
		return -errno;
	reg.range.start = (uintptr_t)r->slow;
	/* it is younger than the device, which waits for its driver's threads */
	reg.range.len = SLOW * PAGE;
	if (ioctl(r->uffd, UFFDIO_REGISTER, &reg))
		return -errno;
	return dma_map(&r->c, PRIVATE, r->mem + WINDOW * PAGE, PRIVATE_PAGES * PAGE, RW);
}

/* How a process that races ends */
enum ending { END_ORDERLY, END_CLOSE, END_KILL, NR_ENDS };

/* One such process, of which this is all: returns what _exit() gets */
static int race_once(struct race *r, enum ending end, __u64 seed, unsigned int ms)
{
	void *(*run[])(void *arg) = {
		race_map, race_map, race_unmap, race_batch, race_pin, race_dirty,
		race_groups, race_memory, r->emulated ? race_pin : race_vaddr,
	};
	struct racer racer[ARRAY_SIZE(run) + 1];
	pthread_t thread[ARRAY_SIZE(run)], slow;
	long locked = locked_pages();
	unsigned int i;
	int ret;

	/* a child of the last process may have the group for a moment */
	for (i = 0; (ret = race_open(r)) == -EBUSY && i < 500; i++) {
		container_close(&r->c);
		usleep(10000);
	}
	if (ret) {
		printf("# cannot begin: %s\n", strerror(-ret));
		return 2;
	}
	for (i = 0; i <= ARRAY_SIZE(run); i++)
		racer[i] = (struct racer){ .r = r, .rng = seed * 100 + i };
	if (pthread_create(&slow, NULL, slow_memory, &racer[ARRAY_SIZE(run)]))
		return 3;
	for (i = 0; i < ARRAY_SIZE(run); i++) {
		if (pthread_create(&thread[i], NULL, run[i], &racer[i]))
			return 3;
	}
	usleep(ms * 1000);
	/* the file descriptors go with calls in progress */
	if (end == END_CLOSE)
		return r->bad != 0;
	if (end == END_KILL)
		pause();

	__atomic_store_n(&r->stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < ARRAY_SIZE(run); i++)
		pthread_join(thread[i], NULL);
	if (r->dev >= 0)
		close(r->dev);
	container_close(&r->c);
	if (locked_pages() != locked) {
		printf("# %ld pages are left locked\n", locked_pages() - locked);
		return 4;
	}
	if (r->done < 10) {
		printf("# only %u calls\n", r->done);
		return 5;
	}
	return r->bad != 0;
}

static long module_users(void)
{
	char text[16] = "";
	int fd = open("/sys/module/vfio_iommu_type1v3/refcnt", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		text[0] = '0';	/* built in: nobody counts */
	close(fd);
	return atol(text);
}

FIXTURE(race) {
	struct race r;
	long pinned, users;
};

FIXTURE_VARIANT(race) { bool physical, emulated, last_group; };

FIXTURE_VARIANT_ADD(race, physical) { .physical = true };
FIXTURE_VARIANT_ADD(race, emulated) { .emulated = true };
FIXTURE_VARIANT_ADD(race, both) { .physical = true, .emulated = true };
FIXTURE_VARIANT_ADD(race, last_group) { .physical = true, .last_group = true };

FIXTURE_SETUP(race)
{
	self->r.bdf[0] = need_device(_metadata, ENV_NVME);
	if (!self->r.bdf[0])
		return;
	self->r.bdf[1] = need_device(_metadata, ENV_NVME2);
	if (!self->r.bdf[1])
		return;
	self->r.physical = variant->physical;
	self->r.emulated = variant->emulated;
	self->r.last_group = variant->last_group;
	self->pinned = pinned_pages();
	self->users = module_users();
}

FIXTURE_TEARDOWN(race) { }

TEST_F_TIMEOUT(race, everything, 3600)
{
	const char *seconds = getenv("TYPE1V3_SECONDS");
	time_t end_time = time(NULL) + (seconds ? atoi(seconds) : 5);
	__u64 seed = time(NULL), rng = seed;
	int status, i;
	pid_t pid;

	TH_LOG("seed %llu", seed);
	for (i = 0; i < NR_ENDS || time(NULL) < end_time; i++) {
		unsigned int ms = 100 + prng(&rng) % 500;
		enum ending end = i % NR_ENDS;

		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			status = race_once(&self->r, end, seed + i, ms);
			fflush(stdout);
			_exit(status);
		}
		if (end == END_KILL) {
			usleep(ms * 1000);
			ASSERT_EQ(0, kill(pid, SIGKILL));
		}
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		if (end == END_KILL && WIFSIGNALED(status))
			status = 0;
		ASSERT_EQ(0, status) TH_LOG("run %d, which ends %d", i, end);
		/* of the process nothing is left; children of it may take a moment */
		for (int wait = 0; wait < 500 && (pinned_pages() != self->pinned ||
						  module_users() != self->users); wait++)
			usleep(10000);
		ASSERT_EQ(self->pinned, pinned_pages());
		ASSERT_EQ(self->users, module_users());
	}
	TH_LOG("%d processes", i);
}

TEST_HARNESS_MAIN
