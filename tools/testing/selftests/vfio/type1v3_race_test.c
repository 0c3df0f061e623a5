// SPDX-License-Identifier: GPL-2.0-only
/*
 * All that a container is asked for, asked at the same time: map, unmap, pin,
 * dirty tracking, batches, groups that come and go, and the end of it all, while
 * some of the memory is slow to come. userfaultfd makes it slow, or a file system in
 * user space that takes its time: a page that is looked at for the first time
 * comes when a thread of ours says so, and until then whoever pins it waits in the
 * middle of his call.
 *
 * What each call returns depends on who was first, so that only what can never
 * be is wrong. What must hold is that nothing crashes, hangs or is left behind.
 * At the end the same one by one, where it is known what must happen: calls that
 * wait for a page until we let it come, or are killed before.
 *
 * TYPE1V3_SECONDS in the environment: how long each test goes on, default 5.
 */
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <time.h>

#include "type1v3_emulated.h"
#include "type1v3_harness.h"

#define WINDOW		512UL	/* pages of IOVA that everybody uses */
#define SLOW		64UL	/* pages of slow memory */
#define IOVA(page)	(TEST_IOVA + (page) * PAGE)
#define PRIVATE		OTHER_IOVA	/* nobody unmaps what is here */
#define PRIVATE_PAGES	16

/*
 * A file whose pages are slow to come
 *
 * The file system is a thread of this process, so that whoever waits for a page
 * should be another one, or a thread that is not waited for. Pages are read one by
 * one, and asynchronously: he who waits can be killed.
 */
struct slow_file {
	char dir[32];
	int dev;		/* /dev/fuse */
	int fd;
	pthread_t thread;
	bool mounted, running;
	unsigned int max_us;	/* that a page takes */
	pthread_mutex_t lock;
	bool hold;		/* a page comes when slow_file_release() is called */
	struct slow_read {
		__u64 id, page;
	} held[SLOW];
	unsigned int nr_held;
	sem_t asked;		/* up for each page that is held */
};

/* What a page of it has in it: a pattern of pattern_fill() */
#define SLOW_SEED(page)	(1000000 + (page) * PAGE)

static void slow_answer(struct slow_file *f, __u64 id, int error, const void *data,
			size_t size)
{
	struct {
		struct fuse_out_header head;
		__u8 data[PAGE];
	} out = { .head = { sizeof(out.head) + size, error, id } };

	memcpy(out.data, data, size);
	/* nobody may want it any more */
	if (write(f->dev, &out, out.head.len) < 0 && errno != ENOENT && errno != ENODEV)
		perror("/dev/fuse");
}

static void slow_answer_page(struct slow_file *f, const struct slow_read *r)
{
	__u8 data[PAGE];

	pattern_fill(data, PAGE, SLOW_SEED(r->page));
	slow_answer(f, r->id, 0, data, PAGE);
}

static struct fuse_attr slow_attr(__u64 node)
{
	return (struct fuse_attr){
		.ino = node,
		.size = SLOW * PAGE,
		.mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0444,
		.nlink = 1,
		.blksize = PAGE,
	};
}

static void slow_read(struct slow_file *f, __u64 id, const struct fuse_read_in *in)
{
	struct slow_read r = { id, in->offset / PAGE };
	bool hold;

	pthread_mutex_lock(&f->lock);
	hold = f->hold && f->nr_held < SLOW;
	if (hold)
		f->held[f->nr_held++] = r;
	pthread_mutex_unlock(&f->lock);
	if (hold) {
		sem_post(&f->asked);
		return;
	}
	if (f->max_us)
		usleep(id * 7919 % f->max_us);
	slow_answer_page(f, &r);
}

static void *slow_file_system(void *arg)
{
	static union {
		struct fuse_in_header head;
		__u8 bytes[FUSE_MIN_READ_BUFFER + PAGE];
	} in;
	struct slow_file *f = arg;
	const void *args = &in.head + 1;

	while (read(f->dev, &in, sizeof(in)) > 0 || errno == EINTR || errno == ENOENT) {
		const struct fuse_init_in *init = args;
		struct fuse_init_out init_out = {
			.major = FUSE_KERNEL_VERSION,
			.minor = FUSE_KERNEL_MINOR_VERSION,
			.max_readahead = PAGE,
			.flags = FUSE_ASYNC_READ,
			.max_background = SLOW,
			.congestion_threshold = SLOW,
			.max_write = PAGE,
		};
		struct fuse_entry_out entry = {
			.nodeid = 2,
			.entry_valid = 3600,
			.attr_valid = 3600,
			.attr = slow_attr(2),
		};
		struct fuse_attr_out attr = {
			.attr_valid = 3600,
			.attr = slow_attr(in.head.nodeid),
		};
		/* a flush would wait for a server that ends with the same process */
		struct fuse_open_out opened = {
			.open_flags = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH,
		};

		switch (in.head.opcode) {
		case FUSE_INIT:
			if (init->minor < init_out.minor)
				init_out.minor = init->minor;
			slow_answer(f, in.head.unique, 0, &init_out, sizeof(init_out));
			break;
		case FUSE_LOOKUP:
			slow_answer(f, in.head.unique, 0, &entry, sizeof(entry));
			break;
		case FUSE_GETATTR:
			slow_answer(f, in.head.unique, 0, &attr, sizeof(attr));
			break;
		case FUSE_OPEN:
			slow_answer(f, in.head.unique, 0, &opened, sizeof(opened));
			break;
		case FUSE_READ:
			slow_read(f, in.head.unique, args);
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			break;	/* not to be answered */
		default:
			slow_answer(f, in.head.unique, -EOPNOTSUPP, NULL, 0);
		}
	}
	return NULL;
}

static int slow_file_open(struct slow_file *f)
{
	char text[100];

	memset(f, 0, sizeof(*f));
	f->fd = -1;
	pthread_mutex_init(&f->lock, NULL);
	sem_init(&f->asked, 0, 0);
	f->dev = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (f->dev < 0)
		return -errno;
	strcpy(f->dir, "/tmp/type1v3_race.XXXXXX");
	if (!mkdtemp(f->dir))
		return -errno;
	snprintf(text, sizeof(text), "fd=%d,rootmode=40000,user_id=0,group_id=0", f->dev);
	if (mount("type1v3_race", f->dir, "fuse", MS_NOSUID | MS_NODEV, text))
		return -errno;
	f->mounted = true;
	if (pthread_create(&f->thread, NULL, slow_file_system, f))
		return -EAGAIN;
	f->running = true;
	snprintf(text, sizeof(text), "%s/slow", f->dir);
	f->fd = open(text, O_RDONLY | O_CLOEXEC);
	return f->fd < 0 ? -errno : 0;
}

/* What is in memory of it is forgotten, and has to come again. */
static void slow_file_forget(struct slow_file *f, __u64 page, __u64 npages)
{
	posix_fadvise(f->fd, page * PAGE, npages * PAGE, POSIX_FADV_DONTNEED);
}

static void slow_file_hold(struct slow_file *f)
{
	pthread_mutex_lock(&f->lock);
	f->hold = true;
	pthread_mutex_unlock(&f->lock);
}

static void slow_file_release(struct slow_file *f)
{
	pthread_mutex_lock(&f->lock);
	f->hold = false;
	while (f->nr_held)
		slow_answer_page(f, &f->held[--f->nr_held]);
	pthread_mutex_unlock(&f->lock);
}

static void slow_file_close(struct slow_file *f)
{
	slow_file_release(f);
	if (f->fd >= 0)
		close(f->fd);
	if (f->mounted)
		umount2(f->dir, MNT_DETACH);
	if (f->running)
		pthread_join(f->thread, NULL);
	if (f->dev >= 0)
		close(f->dev);
	if (f->dir[0])
		rmdir(f->dir);
}

/* A private mapping: what is written stays here, and it can be pinned. */
static __u8 *slow_file_map(const struct slow_file *f)
{
	return mmap(NULL, SLOW * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, f->fd, 0);
}

/* A process in which threads race */
struct race {
	struct container c;
	const char *bdf[2];
	unsigned long type;
	bool physical, emulated, last_group, others;
	__u8 *mem, *slow;
	struct slow_file *file;	/* where slow memory comes from, or NULL: uffd */
	int uffd, dev;
	bool stop;
	unsigned int bad;	/* results that cannot be */
	unsigned int done;	/* calls */
	unsigned int *succeeded; /* by kind, of all processes: shared with the test */
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

/*
 * Kinds of calls, each of which must succeed again and again, or it was no race
 * with it; and when it is called at all
 */
enum when {
	ALWAYS, IF_EMULATED, IF_VADDR, IF_NO_VADDR, IF_SECOND_PIN, IF_GROUP_LEAVES, IF_OTHERS
};

static const struct kind {
	const char *what;
	enum when when;
	bool positive;	/* 0 is that nothing was there */
	bool rare;	/* the pages it asks for are seldom there: once is enough */
} kinds[] = {
	{ "map" }, { "unmap", .positive = true }, { "unmap dirty", .positive = true },
	{ "batch" }, { "start" }, { "get" }, { "info" }, { "stop" }, { "detach" },
	{ "pin", IF_EMULATED, .positive = true }, { "rw", IF_EMULATED },
	{ "rw of a kernel thread", IF_EMULATED }, { "in the background", IF_EMULATED },
	{ "access", IF_EMULATED }, { "pin mine", IF_EMULATED, .positive = true },
	{ "invalidate", IF_VADDR, .positive = true }, { "update", IF_VADDR },
	{ "refused vaddr", IF_NO_VADDR }, { "refused group", IF_NO_VADDR },
	{ "second pin", IF_SECOND_PIN, .positive = true, .rare = true },
	{ "attach", IF_GROUP_LEAVES },
	{ "open beside", IF_OTHERS }, { "map beside", IF_OTHERS },
	{ "unmap beside", IF_OTHERS, .positive = true },
	{ "leave", IF_OTHERS, .positive = true },
	{ "pin beside", IF_OTHERS, .positive = true },
};

static void count(struct race *r, const char *what, long ret)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(what, kinds[i].what) && (ret > 0 || !kinds[i].positive))
			__atomic_fetch_add(&r->succeeded[i], 1, __ATOMIC_RELAXED);
}

static bool is_called(const struct race *r, const struct kind *kind)
{
	switch (kind->when) {
	case IF_EMULATED:
		return r->emulated;
	case IF_VADDR:
		return !r->emulated && has_vaddr(r->type);
	case IF_NO_VADDR:
		return !has_vaddr(r->type);
	case IF_SECOND_PIN:
		return has_vaddr(r->type);
	case IF_GROUP_LEAVES:
		return r->physical && (r->emulated || r->last_group);
	case IF_OTHERS:
		return r->others;
	default:
		return true;
	}
}

/* The kind that has succeeded too seldom, or NULL */
static const char *too_seldom(const struct race *r, unsigned int times)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(kinds); i++)
		if (is_called(r, &kinds[i]) && r->succeeded[i] < (kinds[i].rare ? 1 : times))
			return kinds[i].what;
	return NULL;
}

static void check(struct race *r, const char *what, long ret, __u64 allowed)
{
	/* a child maps when nothing is, and the container is its own */
	if (r->last_group)
		allowed |= ERR(EPERM);
	__atomic_fetch_add(&r->done, 1, __ATOMIC_RELAXED);
	if (ret >= 0)
		count(r, what, ret);
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
	struct racer *t = arg;
	unsigned int npages;

	while (!stopped(t->r)) {
		const __u32 nr = 1 + rnd(t, 16);
		int failed, counted = 0;

		for (unsigned int i = 0; i < nr; i++) {
			entry[i].vaddr = (uintptr_t)some_memory(t, &npages);
			entry[i].iova = IOVA(rnd(t, WINDOW));
			entry[i].size = npages * PAGE;
			entry[i].flags = RW;
			if (!rnd(t, 3)) {
				entry[i].flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP;
				entry[i].vaddr = 0;
			}
		}
		failed = dma_batch(&t->r->c, rnd(t, 2), nr, entry);
		check(t->r, "batch", failed < 0 ? failed : 0, MAY_FAIL);
		for (unsigned int i = 0; failed >= 0 && i < nr; i++) {
			if (entry[i].result == -ECANCELED)
				continue;
			check(t->r, "entry", entry[i].result, MAY_FAIL);
			counted += !!entry[i].result;
		}
		if (failed >= 0 && counted != failed)
			check(t->r, "count of a batch", -EPROTO, 0);
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

		switch (rnd(t, 5)) {
		case 0:
			check(r, "pin", emulated_pin(r->dev, iova, 1 + rnd(t, 8),
						     PIN_READ, NULL),
			      ERR(EINVAL) | ERR(EFAULT) | ERR(EPERM));
			/* what has been pinned, if nobody has taken it back yet */
			check(r, "access", emulated_access(r->dev, iova, data, 64, 0),
			      ERR(ENOENT));
			break;
		case 1:
			check(r, "rw", emulated_rw(r->dev, iova, data, 64,
						   rnd(t, 2) * RW_WRITE),
			      ERR(EINVAL) | ERR(EFAULT) | ERR(EPERM));
			break;
		case 2:
			/*
			 * Not where memory is slow: this waits for the kernel thread,
			 * which nobody can kill, and this process would not end.
			 */
			check(r, "rw of a kernel thread",
			      emulated_rw(r->dev, PRIVATE + rnd(t, 64) * 8, data, 64,
					  RW_KTHREAD | rnd(t, 2) * RW_WRITE), 0);
			break;
		case 3:
			check(r, "in the background",
			      emulated_background(r->dev, rnd(t, 2) ?
						  VFIO_EMULATED_TEST_PIN :
						  VFIO_EMULATED_TEST_RW,
						  iova, 1 + rnd(t, 8)), ERR(EBUSY));
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

/* What must be refused: 0 if it was */
static __s64 refused(__s64 ret)
{
	return ret == -EOPNOTSUPP ? 0 : ret < 0 ? ret : -EPROTO;
}

/*
 * A user address goes and comes back; with emulated devices that is refused, and where
 * there are none.
 */
static void *race_vaddr(void *arg)
{
	struct racer *t = arg;
	struct race *r = t->r;

	while (!stopped(r)) {
		__u64 iova = IOVA(rnd(t, WINDOW)), size = (1 + rnd(t, 8)) * PAGE;
		__s64 gone = vaddr_invalidate(&r->c, iova, size, 0);
		int back = vaddr_update(&r->c, iova, r->mem, size);

		if (has_vaddr(r->type)) {
			check(r, "invalidate", gone, ERR(EBUSY) | ERR(EINVAL));
			check(r, "update", back, ERR(ENOENT) | ERR(EINVAL));
		} else {
			check(r, "refused vaddr", refused(gone), ERR(EINVAL));
			check(r, "refused vaddr", refused(back), ERR(EINVAL));
		}
		usleep(rnd(t, 1000));
	}
	return NULL;
}

/* Calls of another container: maps, unmaps, and all of it out, so that it has no owner */
static void use_beside(struct racer *t, struct container *c)
{
	unsigned int npages;
	__u8 *va;

	for (int i = rnd(t, 40); i >= 0 && !stopped(t->r); i--) {
		switch (rnd(t, 8)) {
		case 0:
			check(t->r, "leave", dma_unmap_all(c), 0);
			break;
		case 1 ... 3:
			check(t->r, "unmap beside",
			      dma_unmap(c, IOVA(rnd(t, WINDOW)), (1 + rnd(t, 256)) * PAGE),
			      ERR(EINVAL));
			break;
		default:
			va = some_memory(t, &npages);
			check(t->r, "map beside", dma_map(c, IOVA(rnd(t, WINDOW)), va,
							  npages * PAGE, RW), MAY_FAIL);
		}
	}
}

/*
 * Two more containers of the process, which map the same memory: they come while others
 * map, and go with what they have
 */
static void *race_beside(void *arg)
{
	struct racer *t = arg;
	struct race *r = t->r;
	struct container c[2];
	int dev;

	while (!stopped(r)) {
		container_init(&c[0]);
		container_init(&c[1]);
		/* a child of race_memory() may have the group for a moment */
		check(r, "open beside", container_open(&c[0], VFIO_TYPE1v3_IOMMU, r->bdf[1]),
		      ERR(EBUSY));
		/* nothing is pinned for this one, but by its device, which others want too */
		dev = rnd(t, 3) ? -1 : emulated_open(&c[1], VFIO_TYPE1v3_IOMMU, 1);
		if (dev >= 0)
			check(r, "map beside", dma_map(&c[1], IOVA(0), r->mem, 32 * PAGE, RW), 0);
		for (int i = rnd(t, 4); i >= 0 && c[0].ngroups; i--) {
			use_beside(t, &c[0]);
			if (dev >= 0)
				check(r, "pin beside", emulated_pin(dev, IOVA(i), 1 + rnd(t, 16),
								    PIN_READ, NULL), 0);
		}
		if (dev >= 0)
			close(dev);
		container_close(&c[1]);
		container_close(&c[0]);
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
	int dev, ret;

	while (!stopped(r)) {
		switch (rnd(t, 4)) {
		case 0:
			if (container_attach(&r->c, r->bdf[1]))
				break;
			usleep(rnd(t, 3000));
			detach(r, r->bdf[1]);
			break;
		case 1:
			ret = emulated_attach(&r->c, 1);
			/* it can get in while the container has no backend, and no further */
			if (ret && !has_vaddr(r->type))
				check(r, "refused group", refused(ret), may_fail);
			if (ret)
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
		if (r->last_group && !ioctl(r->c.fd, VFIO_SET_IOMMU, r->type))
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
			if (r->file)
				slow_file_forget(r->file, (page - r->slow) / PAGE, 1);
			madvise(r->mem + rnd(t, WINDOW) * PAGE, PAGE, MADV_DONTNEED);
		}
		usleep(rnd(t, 1000));
	}
	return NULL;
}

/* Where the slow memory comes from that is not in a file */
static void *slow_memory(void *arg)
{
	struct racer *t = arg;
	struct race *r = t->r;
	struct uffd_msg msg;

	while (read(r->uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		if (msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		if (!stopped(r))
			usleep(rnd(t, 3000));
		uffd_give(r->uffd, (void *)(msg.arg.pagefault.address & ~(PAGE - 1)), PAGE);
	}
	return NULL;
}

static int race_open(struct race *r)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS, ret;

	r->dev = -1;
	ret = container_open(&r->c, 0, NULL);
	if (!ret && r->emulated)
		ret = emulated_attach(&r->c, 0);
	if (!ret && r->physical)
		ret = container_attach(&r->c, r->bdf[0]);
	if (!ret && ioctl(r->c.fd, VFIO_SET_IOMMU, r->type))
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
	r->slow = r->file ? slow_file_map(r->file) :
			    mmap(NULL, SLOW * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (r->mem == MAP_FAILED || r->slow == MAP_FAILED)
		return -ENOMEM;
	if (r->file)
		goto map;
	/* it is younger than the device, which waits for its driver's threads */
	r->uffd = uffd_open(r->slow, SLOW * PAGE);
	if (r->uffd < 0)
		return r->uffd;
map:
	return dma_map(&r->c, PRIVATE, r->mem + WINDOW * PAGE, PRIVATE_PAGES * PAGE, RW);
}

#define RACE_TIMES	10	/* that each kind of call must have succeeded */

/* How a process that races ends */
enum ending { END_ORDERLY, END_CLOSE, END_KILL, NR_ENDS };

/* One such process, of which this is all: returns what _exit() gets */
static int race_once(struct race *r, enum ending end, __u64 seed, unsigned int ms)
{
	void *(*run[])(void *arg) = {
		race_map, race_map, race_unmap, race_batch, race_pin, race_dirty,
		race_groups, race_memory, r->emulated ? race_pin : race_vaddr,
		race_beside,
	};
	const unsigned int nr = ARRAY_SIZE(run) - !r->others;
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
	if (!r->file && pthread_create(&slow, NULL, slow_memory, &racer[ARRAY_SIZE(run)]))
		return 3;
	for (i = 0; i < nr; i++) {
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
	for (i = 0; i < nr; i++)
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

/* false, and the test skipped, where the kernel has no FUSE */
static bool need_slow_file(struct __test_metadata *_metadata, struct slow_file *f)
{
	int ret = slow_file_open(f);

	if (ret == -ENOENT)
		SKIP(return false, "no /dev/fuse");
	EXPECT_EQ(0, ret);
	return !ret;
}

/* Of a process that has ended nothing is left; children of it may take a moment. */
static bool all_gone(long pinned, long users)
{
	for (int wait = 0; wait < 500; wait++) {
		if (pinned_pages() == pinned && module_users() == users)
			return true;
		usleep(10000);
	}
	printf("# %ld pages are left pinned, %ld users\n", pinned_pages() - pinned,
	       module_users() - users);
	return false;
}

FIXTURE(race) {
	struct race r;
	struct slow_file file;
	long pinned, users;
};

FIXTURE_VARIANT(race) {
	bool physical, emulated, last_group, others;
	unsigned long type;	/* or 0, for that with addresses */
};

FIXTURE_VARIANT_ADD(race, physical) { .physical = true };
FIXTURE_VARIANT_ADD(race, emulated) { .emulated = true };
FIXTURE_VARIANT_ADD(race, both) { .physical = true, .emulated = true };
FIXTURE_VARIANT_ADD(race, last_group) { .physical = true, .last_group = true };
FIXTURE_VARIANT_ADD(race, physical_pt) { .physical = true, .type = VFIO_TYPE1v3_PT_IOMMU };
FIXTURE_VARIANT_ADD(race, last_group_pt)
	{ .physical = true, .last_group = true, .type = VFIO_TYPE1v3_PT_IOMMU };
FIXTURE_VARIANT_ADD(race, others) { .physical = true, .emulated = true, .others = true };

FIXTURE_SETUP(race)
{
	self->r.bdf[0] = need_device(_metadata, ENV_NVME);
	if (!self->r.bdf[0])
		return;
	self->r.bdf[1] = need_device(_metadata, ENV_NVME2);
	if (!self->r.bdf[1])
		return;
	self->r.succeeded = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->r.succeeded);
	self->r.type = variant->type ?: VFIO_TYPE1v3_IOMMU;
	self->r.physical = variant->physical;
	self->r.emulated = variant->emulated;
	self->r.last_group = variant->last_group;
	self->r.others = variant->others;
	self->pinned = pinned_pages();
	self->users = module_users();
	if (need_slow_file(_metadata, &self->file))
		self->file.max_us = 3000;
}

FIXTURE_TEARDOWN(race)
{
	slow_file_close(&self->file);
}

TEST_F_TIMEOUT(race, everything, 3600)
{
	const char *seconds = getenv("TYPE1V3_SECONDS");
	time_t end_time = time(NULL) + (seconds ? atoi(seconds) : 5);
	__u64 seed = test_seed(), rng = seed;
	int status, i;
	pid_t pid;

	TH_LOG("seed %llu", seed);
	/* a slow machine takes longer: the limit is for one where a kind never succeeds */
	for (i = 0; i < NR_ENDS || time(NULL) < end_time ||
	     (too_seldom(&self->r, RACE_TIMES) && time(NULL) < end_time + 1200); i++) {
		unsigned int ms = 100 + prng(&rng) % 500;
		enum ending end = i % NR_ENDS;

		self->r.file = i % 2 ? &self->file : NULL;
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
		ASSERT_TRUE(all_gone(self->pinned, self->users));
	}
	TH_LOG("%d processes", i);
	for (unsigned int k = 0; k < ARRAY_SIZE(kinds); k++)
		if (is_called(&self->r, &kinds[k]))
			TH_LOG("%s: %u", kinds[k].what, self->r.succeeded[k]);
	EXPECT_EQ(NULL, too_seldom(&self->r, RACE_TIMES))
		TH_LOG("%s succeeds too seldom", too_seldom(&self->r, RACE_TIMES));
}

/*
 * One call that waits for a page of a file until we let it come
 */
#define HELD_PAGES	16UL	/* of which the first half is there */

/* The page is not there, and nobody gets it before slow_file_release(). */
static void hold_pages(struct slow_file *f, __u8 *slow)
{
	for (unsigned long i = 0; i < HELD_PAGES / 2; i++)
		pattern_fill(slow + i * PAGE, PAGE, SLOW_SEED(i));
	slow_file_forget(f, 0, SLOW);
	slow_file_hold(f);
}

FIXTURE(held) {
	struct container c;
	struct slow_file file;
	struct nvme nvme;
	struct mem mem;
	const char *bdf[2];
	__u8 *slow;
	pthread_t thread;
	unsigned long npages;
	bool done;
	int ret;
	long locked, pinned;
};

FIXTURE_VARIANT(held) { unsigned long type; };
ADD_V3_TYPES(held);

FIXTURE_SETUP(held)
{
	container_init(&self->c);
	nvme_init(&self->nvme);
	self->bdf[0] = need_device(_metadata, ENV_NVME);
	if (!self->bdf[0])
		return;
	self->bdf[1] = need_device(_metadata, ENV_NVME2);
	if (!self->bdf[1] || !need_slow_file(_metadata, &self->file))
		return;
	self->slow = slow_file_map(&self->file);
	ASSERT_NE(MAP_FAILED, (void *)self->slow);
	hold_pages(&self->file, self->slow);
	ASSERT_EQ(0, mem_alloc(&self->mem, MEM_4K, PAGE));
	ASSERT_EQ(0, container_open(&self->c, variant->type, self->bdf[0]));
	ASSERT_EQ(0, nvme_open(&self->nvme, &self->c, self->bdf[0], NVME_IOVA));
	self->locked = locked_pages();
	self->pinned = pinned_pages();
}

FIXTURE_TEARDOWN(held)
{
	nvme_close(&self->nvme);
	container_close(&self->c);
	if (self->slow)
		munmap(self->slow, SLOW * PAGE);
	mem_free(&self->mem);
	slow_file_close(&self->file);
}

static void *held_map(void *arg)
{
	FIXTURE_DATA(held) * self = arg;
	/* what superpages can be a part of is reserved first, however few they are */
	const __u32 flags = RW | VFIO_DMA_MAP_GRANULE(0);

	self->ret = dma_map(&self->c, IOVA(0), self->slow + (HELD_PAGES - self->npages) *
			    PAGE, self->npages * PAGE, flags);
	__atomic_store_n(&self->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* Returns when it waits, or does not and is done. */
static int held_start(FIXTURE_DATA(held) * self, unsigned long npages)
{
	self->npages = npages;
	if (pthread_create(&self->thread, NULL, held_map, self))
		return -EAGAIN;
	while (sem_trywait(&self->file.asked)) {
		if (__atomic_load_n(&self->done, __ATOMIC_ACQUIRE))
			return self->ret ?: -EALREADY;
		usleep(1000);
	}
	return 0;
}

static int held_finish(FIXTURE_DATA(held) * self)
{
	slow_file_release(&self->file);
	pthread_join(self->thread, NULL);
	return self->ret;
}

/* The range is reserved: nobody gets it, and nobody sees it. */
TEST_F_TIMEOUT(held, others, 900)
{
	static __u8 data[HELD_PAGES * PAGE];
	__u64 iova[HELD_PAGES], bits[2];

	ASSERT_EQ(0, held_start(self, HELD_PAGES));
	EXPECT_EQ(0, dma_map(&self->c, IOVA(100), self->mem.va, PAGE, RW));
	EXPECT_EQ(-EEXIST, dma_map(&self->c, IOVA(0), self->mem.va, PAGE, RW));
	EXPECT_EQ(-EEXIST, dma_map(&self->c, IOVA(HELD_PAGES - 1), self->mem.va, PAGE, RW));
	EXPECT_EQ(0, dirty_tracking(&self->c, VFIO_IOMMU_DIRTY_PAGES_FLAG_START));
	/* an IOMMU that records reports no page without it */
	iova[0] = IOVA(100);
	EXPECT_EQ(0, nvme_dma_write(&self->nvme, iova, 1, data));
	EXPECT_EQ(0, dirty_bitmap(&self->c, IOVA(0), 128 * PAGE, PAGE, bits, sizeof(bits)));
	EXPECT_EQ(0, bits[0]);
	EXPECT_EQ(1ULL << (100 - 64), bits[1]);
	EXPECT_EQ(0, dma_unmap_dirty(&self->c, IOVA(0), HELD_PAGES * PAGE, PAGE, bits,
				     sizeof(bits)));
	EXPECT_EQ(0, dma_unmap(&self->c, IOVA(0), HELD_PAGES * PAGE));
	EXPECT_EQ(PAGE, dma_unmap(&self->c, IOVA(0), 200 * PAGE));
	EXPECT_EQ(0, container_attach(&self->c, self->bdf[1]));
	/* all that has come to its end, and this has not */
	EXPECT_FALSE(__atomic_load_n(&self->done, __ATOMIC_ACQUIRE));

	EXPECT_EQ(0, held_finish(self));
	EXPECT_EQ(HELD_PAGES, locked_pages() - self->locked);
	EXPECT_EQ(HELD_PAGES, pinned_pages() - self->pinned);
	for (unsigned long i = 0; i < HELD_PAGES; i++)
		iova[i] = IOVA(i);
	EXPECT_EQ(0, nvme_dma_read(&self->nvme, iova, HELD_PAGES, data));
	for (unsigned long i = 0; i < HELD_PAGES; i++)
		EXPECT_EQ(-1, pattern_check(data + i * PAGE, PAGE, SLOW_SEED(i)));
	EXPECT_EQ(HELD_PAGES * PAGE, dma_unmap(&self->c, IOVA(0), HELD_PAGES * PAGE));
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
}

/* A few pages are mapped at once or not at all: who comes first gets the range. */
TEST_F_TIMEOUT(held, few, 900)
{
	ASSERT_EQ(0, held_start(self, 4));
	EXPECT_EQ(0, dma_unmap(&self->c, IOVA(0), HELD_PAGES * PAGE));
	EXPECT_EQ(0, dma_map(&self->c, IOVA(3), self->mem.va, PAGE, RW));
	EXPECT_FALSE(__atomic_load_n(&self->done, __ATOMIC_ACQUIRE));
	EXPECT_EQ(-EEXIST, held_finish(self));
	EXPECT_EQ(1, locked_pages() - self->locked);
	EXPECT_EQ(1, pinned_pages() - self->pinned);
	EXPECT_EQ(PAGE, dma_unmap(&self->c, IOVA(0), HELD_PAGES * PAGE));
}

/* The last group goes: there is nothing to map for. */
TEST_F_TIMEOUT(held, detach, 900)
{
	nvme_close(&self->nvme);
	dma_unmap_all(&self->c);
	self->locked = locked_pages();
	self->pinned = pinned_pages();
	ASSERT_EQ(0, held_start(self, HELD_PAGES));
	EXPECT_EQ(0, container_detach(&self->c, self->bdf[0]));
	EXPECT_FALSE(__atomic_load_n(&self->done, __ATOMIC_ACQUIRE));
	EXPECT_EQ(-ENODEV, held_finish(self));
	EXPECT_EQ(self->locked, locked_pages());
	EXPECT_EQ(self->pinned, pinned_pages());
}

/*
 * A process that is killed while it waits: in a container of its own, or on behalf
 * of who owns the container, which is this process. The page never comes before
 * all of it has gone.
 */
enum waits { IN_MAP, IN_MAP_FEW, IN_BATCH, IN_RW, IN_PIN, IN_ATTACH };

FIXTURE(killed_waiting) {
	struct container c;
	struct slow_file file;
	const char *bdf;
	unsigned long type;
	__u8 *slow;
	int dev;
	bool own;
	long locked, pinned, users;
};

FIXTURE_VARIANT(killed_waiting) {
	enum waits in;
	unsigned long type;	/* or 0, for that with addresses */
};

FIXTURE_VARIANT_ADD(killed_waiting, map) { IN_MAP };
FIXTURE_VARIANT_ADD(killed_waiting, map_few) { IN_MAP_FEW };
FIXTURE_VARIANT_ADD(killed_waiting, batch) { IN_BATCH };
FIXTURE_VARIANT_ADD(killed_waiting, map_pt) { IN_MAP, VFIO_TYPE1v3_PT_IOMMU };
FIXTURE_VARIANT_ADD(killed_waiting, map_few_pt) { IN_MAP_FEW, VFIO_TYPE1v3_PT_IOMMU };
FIXTURE_VARIANT_ADD(killed_waiting, batch_pt) { IN_BATCH, VFIO_TYPE1v3_PT_IOMMU };
FIXTURE_VARIANT_ADD(killed_waiting, rw) { IN_RW };
FIXTURE_VARIANT_ADD(killed_waiting, pin) { IN_PIN };
FIXTURE_VARIANT_ADD(killed_waiting, attach) { IN_ATTACH };

/* A container with an emulated device, for which nothing is pinned yet */
static int killed_open(FIXTURE_DATA(killed_waiting) * self)
{
	self->dev = emulated_open(&self->c, VFIO_TYPE1v3_IOMMU, 0);
	if (self->dev < 0)
		return self->dev;
	return dma_map(&self->c, IOVA(0), self->slow, HELD_PAGES * PAGE, RW);
}

FIXTURE_SETUP(killed_waiting)
{
	container_init(&self->c);
	self->dev = -1;
	self->bdf = need_device(_metadata, ENV_NVME);
	if (!self->bdf || !need_slow_file(_metadata, &self->file))
		return;
	self->slow = slow_file_map(&self->file);
	ASSERT_NE(MAP_FAILED, (void *)self->slow);
	hold_pages(&self->file, self->slow);
	self->type = variant->type ?: VFIO_TYPE1v3_IOMMU;
	self->own = variant->in != IN_PIN && variant->in != IN_ATTACH;
	if (!self->own)
		ASSERT_EQ(0, killed_open(self));
	self->locked = locked_pages();
	self->pinned = pinned_pages();
	self->users = module_users();
}

FIXTURE_TEARDOWN(killed_waiting)
{
	if (self->dev >= 0)
		close(self->dev);
	container_close(&self->c);
	if (self->slow)
		munmap(self->slow, SLOW * PAGE);
	slow_file_close(&self->file);
}

/* The call. It returns only if something is wrong. */
static int killed_wait(FIXTURE_DATA(killed_waiting) * self, enum waits in)
{
	struct vfio_iommu_type1v3_batch_entry e[] = {
		{ IOVA(50), 4 * PAGE, (uintptr_t)self->slow, RW },
		{ IOVA(100), HELD_PAGES * PAGE, (uintptr_t)self->slow, RW },
		{ IOVA(200), PAGE, (uintptr_t)self->slow, RW },
	};
	__u8 data[64];
	int ret = 0;

	if (in == IN_RW)
		ret = killed_open(self);
	else if (self->own)
		ret = container_open(&self->c, self->type, self->bdf);
	if (ret)
		return ret;
	switch (in) {
	case IN_MAP:
		return dma_map(&self->c, IOVA(0), self->slow, HELD_PAGES * PAGE, RW);
	case IN_MAP_FEW:
		return dma_map(&self->c, IOVA(0), self->slow + (HELD_PAGES / 2 - 2) * PAGE,
			       4 * PAGE, RW);
	case IN_BATCH:
		return dma_batch(&self->c, 0, ARRAY_SIZE(e), e);
	case IN_RW:
		return emulated_rw(self->dev, IOVA(HELD_PAGES - 1), data, 64, 0);
	case IN_PIN:
		return emulated_pin(self->dev, IOVA(0), HELD_PAGES, PIN_RW, NULL);
	case IN_ATTACH:
		return container_attach(&self->c, self->bdf);
	}
	return 0;
}

TEST_F_TIMEOUT(killed_waiting, all_gone, 900)
{
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		printf("# returned %d\n", killed_wait(self, variant->in));
		fflush(stdout);
		_exit(1);
	}
	while (sem_trywait(&self->file.asked)) {
		ASSERT_EQ(0, waitpid(pid, &status, WNOHANG));
		usleep(1000);
	}
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));
	EXPECT_TRUE(all_gone(self->pinned, self->users));
	EXPECT_EQ(self->locked, locked_pages());

	/* and it can be done again */
	slow_file_release(&self->file);
	if (!has_vaddr(self->type)) {
		ASSERT_EQ(0, container_open(&self->c, self->type, self->bdf));
		ASSERT_EQ(0, dma_map(&self->c, IOVA(0), self->slow, HELD_PAGES * PAGE, RW));
		EXPECT_EQ(HELD_PAGES, locked_pages() - self->locked);
		EXPECT_EQ(HELD_PAGES, pinned_pages() - self->pinned);
		EXPECT_EQ(HELD_PAGES * PAGE, dma_unmap_all(&self->c));
		return;
	}
	if (self->own)
		ASSERT_EQ(0, killed_open(self));
	ASSERT_EQ(0, container_attach(&self->c, self->bdf));
	EXPECT_EQ(HELD_PAGES, locked_pages() - self->locked);
	EXPECT_EQ(HELD_PAGES, pinned_pages() - self->pinned);
	EXPECT_EQ(HELD_PAGES, emulated_pin(self->dev, IOVA(0), HELD_PAGES, PIN_RW, NULL));
	EXPECT_EQ(HELD_PAGES * PAGE, dma_unmap_all(&self->c));
}

struct beside {
	struct container c;
	__u8 *va;
};

static int map_beside(void *arg)
{
	struct beside *b = arg;

	return dma_map(&b->c, IOVA(0), b->va, 2 * PAGE, RW);
}

/*
 * The first map in a second container waits for the first one, which has to be looked
 * through, and is killed: by itself, as it is another process with the same memory.
 */
TEST_F_TIMEOUT(killed_waiting, joining, 900)
{
	static __u64 stack[8 * KIB];
	struct beside b = { .va = self->slow };
	pid_t attacher, mapper;
	const char *bdf;
	int status;

	if (variant->in != IN_ATTACH)
		return;
	bdf = need_device(_metadata, ENV_NVME2);
	if (!bdf)
		return;
	container_init(&b.c);
	ASSERT_EQ(0, container_open(&b.c, VFIO_TYPE1v3_IOMMU, bdf));
	attacher = fork();
	ASSERT_LE(0, attacher);
	if (!attacher) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!container_attach(&self->c, self->bdf))
			pause();
		_exit(1);
	}
	while (sem_trywait(&self->file.asked)) {
		ASSERT_EQ(0, waitpid(attacher, &status, WNOHANG));
		usleep(1000);
	}
	mapper = clone(map_beside, stack + ARRAY_SIZE(stack), CLONE_VM | SIGCHLD, &b);
	ASSERT_LE(0, mapper);
	/* The compiler may make one function of the two. */
	while (!task_waits_in(mapper, "activate") && !task_waits_in(mapper, "enter_others")) {
		ASSERT_EQ(0, waitpid(mapper, &status, WNOHANG));
		usleep(1000);
	}
	ASSERT_EQ(0, kill(mapper, SIGKILL));
	ASSERT_EQ(mapper, waitpid(mapper, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));

	/* It may have mapped before it died, and is charged beside the other one then. */
	dma_unmap_all(&b.c);

	/* The first one goes on, and is looked through the next time. */
	slow_file_release(&self->file);
	while (pinned_pages() - self->pinned != HELD_PAGES) {
		ASSERT_EQ(0, waitpid(attacher, &status, WNOHANG));
		usleep(1000);
	}
	EXPECT_EQ(HELD_PAGES, locked_pages() - self->locked);
	EXPECT_EQ(0, map_beside(&b));
	EXPECT_EQ(HELD_PAGES + 2, pinned_pages() - self->pinned);
	EXPECT_EQ(HELD_PAGES, locked_pages() - self->locked);
	EXPECT_EQ(0, kill(attacher, SIGKILL));
	EXPECT_EQ(attacher, waitpid(attacher, &status, 0));
	EXPECT_EQ(2 * PAGE, dma_unmap_all(&b.c));
	container_close(&b.c);
	EXPECT_EQ(HELD_PAGES * PAGE, dma_unmap_all(&self->c));
	EXPECT_EQ(self->locked, locked_pages());
}

TEST_HARNESS_MAIN
