// SPDX-License-Identifier: GPL-2.0-only
/*
 * Random sequences of everything that a program can do with a container, against
 * a model of which IOVA must translate to which bytes.
 *
 *	type1v3_fuzz [--seed N] [--ops N] [--round N] [--threads N] [--seconds N]
 *		[--only LIST] [--verbose] [--soak] [--mock] [--pt]
 *
 * Operations come in rounds, each in a process and a container of its own. What
 * operation i of a round does follows from the seed of the round and from i
 * alone, so that a round which goes wrong can be repeated with operations left
 * out: it is, until no single one can be, and the command that repeats what
 * remains is printed.
 *
 * With --threads 1 the model knows everything: translations, bytes, errors, dirty
 * pages, counts. With more, each thread owns a window of IOVAs and memory, and
 * the model knows those; three more threads attach and detach groups, fork, map in a
 * second container, and call ioctls with arguments that make no sense, and all that is
 * asked of those is that nothing of it is ever seen, and nothing left behind.
 *
 * A second container of the process maps the same memory, in a window of its own that has
 * no other operations than map and unmap. Containers of a process are charged for a page
 * once: with one thread the model knows for how many pages, and at which limit of locked
 * memory a map fails.
 *
 * With --mock the devices are those of vfio_mock_iommu, behind two IOMMUs that are of
 * other kinds in each round: page sizes, widths, dirty bits, calls that fail or come
 * short. Those check each call that they get, and what they say of their page tables is
 * compared with the model, too.
 *
 * With --pt the container is one of VFIO_TYPE1v3_PT_IOMMU. There is no emulated device in
 * it, nor is a user address updated, and the model knows that all that is refused. What is
 * seen by an emulated device otherwise, a device behind an IOMMU reads then.
 *
 * With --soak the rounds are of both kinds, and what the kernel has allocated must
 * not grow from one to the next: slab, page tables of all kinds, pins.
 *
 * The output is TAP. A warning of the kernel is a failure of the operation
 * before.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/capability.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kselftest.h"
#include "type1v3_emulated.h"
#include "type1v3_mock.h"

#define MAX_WINDOW	3072
#define BLOCK		512	/* pages of a superpage */
#define NR_NVME		2
#define NR_PHYS		3	/* the NVMe controllers, and a device to unplug */
#define UNPLUGGED	2
#define NR_EMULATED	2
#define NR_MOCK		2	/* the second has the device to unplug, too */
#define MAX_THREADS	8
#define NR_CHAOS	3	/* threads besides those that know what they do */
#define MAX_BATCH	24
#define MAX_CHILDREN	3

/* So far from all else that what is unmapped here is not used for anything else */
#define USER_BASE	(16 * 1024 * GIB)

/* Pages of IOVA of the second container */
#define BESIDE_WINDOW	1536

/* As VFIO_DMA_LEDGER_HOLDS of the kernel */
#define HOLDS		64

/* What a page of memory contains; NULL is zeroes. Kept as long as it is used. */
struct object {
	__u8 *data;
	unsigned int users;
	unsigned int holds;	/* while they are counted */
};

/* A page of the address space */
struct user_page {
	struct object *object;
	__u8 prot;		/* PROT_*, 0 if there is nothing */
};

/* A page of IOVA */
struct iova_page {
	bool mapped, invalid, dirty;
	bool written;		/* the IOMMU has recorded it, and not told yet */
	bool near;		/* it was in an IOMMU page in which that is so for another */
	__u8 access;		/* VFIO_DMA_MAP_FLAG_READ, _WRITE */
	int user;		/* page of the address space */
	struct object *dma;	/* what the IOMMU translates to, if there is one */
	struct object *pinned;	/* what emulated devices have, if they have pinned */
	unsigned int pins[NR_EMULATED];
};

/* The second container of the process, and the memory it has mapped */
struct beside {
	struct container c;
	struct object *dma[BESIDE_WINDOW];
	long nr_mapped;
};

/* The container and its devices, which all threads use */
struct machine {
	struct container c;
	struct beside beside;
	bool shared;		/* pages of it are charged as the second one's are: once */
	bool has_iommu;		/* VFIO_SET_IOMMU has been called */
	bool phys[NR_PHYS];
	int device;		/* of the one that is unplugged */
	struct nvme nvme[NR_NVME];
	int emulated[NR_EMULATED];
	bool emulated_in[NR_EMULATED];
	bool tracking;
	__u32 choice;		/* VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_* of START */
	bool records[NR_MOCK];	/* a mock IOMMU has dirty bits */
	__u64 units[NR_MOCK];	/* sizes of what it unmaps as a whole */
	long locked, pinned;	/* before anything was mapped */
	pthread_mutex_t nvme_lock;
	int log;		/* /dev/kmsg */
};

/* A window of IOVAs and memory, and the model of it */
struct world {
	struct machine *m;
	bool exact;		/* nobody else uses the container */
	__u64 iova;
	int npages;		/* of each */
	int thp, shared, huge;	/* where that kind of memory begins */
	__u8 *va;
	int memfd;
	struct user_page user[MAX_WINDOW];
	struct object *file[MAX_WINDOW];
	struct iova_page page[MAX_WINDOW];
	long nr_mapped, nr_pinned, nr_invalid;
	pid_t child[MAX_CHILDREN];
	__u64 rng;
	unsigned int op;
	const char *what;
	pthread_t thread;
	__u64 seed;
	unsigned int nr_ops;
};

static struct {
	__u64 seed;
	unsigned long ops, round, seconds;
	unsigned int threads;
	const char *only;
	bool verbose, soak, mock, pt;
} args = { .ops = 20000, .round = 2000, .threads = 0 };

static struct mock mocks[NR_MOCK], mock_beside;

static void __noreturn __printf(3, 4)
fail(struct world *w, int line, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	printf("# operation %d (%s), line %d: %s\n", (int)w->op, w->what ?: "?", line,
	       text);
	fflush(stdout);
	_exit(1);
}

#define FAIL(w, ...)	fail(w, __LINE__, __VA_ARGS__)
#define WANT(w, expected, seen) do { \
	long _e = (expected), _s = (seen); \
	if (_e != _s) \
		FAIL(w, "%s is %ld (%s), expected %ld (%s)", #seen, _s, \
		     _s < 0 ? strerror(-_s) : "", _e, _e < 0 ? strerror(-_e) : ""); \
} while (0)

static void __printf(2, 3)
tell(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (!args.verbose)
		return;
	printf("# %d %s ", (int)w->op, w->what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static unsigned int rnd(struct world *w, unsigned int below)
{
	return (prng(&w->rng) >> 20) % below;
}

static bool one_in(struct world *w, unsigned int n)
{
	return !rnd(w, n);
}

/*
 * Objects
 */

static struct object *object_new(void)
{
	struct object *o = calloc(1, sizeof(*o));

	if (!o)
		abort();
	return o;
}

static void object_set(struct object **place, struct object *o)
{
	struct object *old = *place;

	if (o)
		o->users++;
	*place = o;
	if (old && !--old->users) {
		free(old->data);
		free(old);
	}
}

static __u8 *object_data(struct object *o)
{
	if (!o->data)
		o->data = calloc(1, PAGE);
	if (!o->data)
		abort();
	return o->data;
}

static bool object_is(const struct object *o, size_t offset, const void *data,
		      size_t size)
{
	static const __u8 zeroes[PAGE];

	return !memcmp(o->data ? o->data + offset : zeroes, data, size);
}

/*
 * What is known of a page
 */

static bool has_domain(const struct machine *m)
{
	return m->phys[0] || m->phys[1] || m->phys[2];
}

static bool has_emulated(const struct machine *m)
{
	return m->emulated_in[0] || m->emulated_in[1];
}

static unsigned long type(void)
{
	return args.pt ? VFIO_TYPE1v3_PT_IOMMU : VFIO_TYPE1v3_IOMMU;
}

static bool has_group(const struct machine *m)
{
	return has_domain(m) || has_emulated(m);
}

static int some_emulated(struct world *w)
{
	int k = rnd(w, NR_EMULATED);

	for (int i = 0; i < NR_EMULATED; i++, k = (k + 1) % NR_EMULATED) {
		if (w->m->emulated[k] >= 0)
			return k;
	}
	return -1;
}

static int some_nvme(struct world *w)
{
	int k = rnd(w, NR_NVME);

	for (int i = 0; i < NR_NVME; i++, k = (k + 1) % NR_NVME) {
		if (w->m->phys[k])
			return k;
	}
	return -1;
}

static __u64 iova_of(const struct world *w, int i)
{
	return w->iova + i * PAGE;
}

static __u8 *va_of(const struct world *w, int u)
{
	return w->va + u * PAGE;
}

static __u64 nvme_iova(int k)
{
	return NVME_IOVA + k * GIB;
}

static long nvme_pages(const struct machine *m)
{
	long n = 0;

	for (int k = 0; k < NR_NVME; k++)
		n += m->phys[k] ? m->nvme[k].mem.size / PAGE : 0;
	return n;
}

/* Can memory be pinned for this access? */
static int pin_error(const struct world *w, int user, __u8 access)
{
	if (!w->user[user].prot)
		return -EFAULT;
	if (access & WO && !(w->user[user].prot & PROT_WRITE))
		return -EFAULT;
	return 0;
}

/* What vfio_dma_rw() says of one page */
static int rw_error(const struct world *w, int i, bool write)
{
	const struct iova_page *p = &w->page[i];

	if (!p->mapped)
		return -EINVAL;
	if (!(p->access & RO) || (write && !(p->access & WO)))
		return -EPERM;
	if (!w->user[p->user].prot ||
	    (write && !(w->user[p->user].prot & PROT_WRITE)))
		return -EFAULT;
	return 0;
}

/* The mock IOMMU of a device */
static int mock_of(int k)
{
	return k ? 1 : 0;
}

/* Who tells which pages are dirty, or would tell if that was asked for now */
static __u32 dirty_source(const struct machine *m, __u32 choice)
{
	if (choice == VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED || !has_domain(m))
		return VFIO_IOMMU_TYPE1V3_DIRTY_PINNED;
	for (int k = 0; k < NR_PHYS; k++)
		if (m->phys[k] && !m->records[mock_of(k)])
			return VFIO_IOMMU_TYPE1V3_DIRTY_ALL;
	return VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE;
}

static void see_dirty(struct world *w, int i, bool reported)
{
	__u32 source = dirty_source(w->m, w->m->choice);
	const struct iova_page *p = &w->page[i];
	bool must, may;

	must = p->dirty || p->pinned || source == VFIO_IOMMU_TYPE1V3_DIRTY_ALL;
	may = must;
	if (source == VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE) {
		must |= p->written;
		may |= p->written || p->near;
	}
	if (reported ? !(p->mapped && may) : p->mapped && must)
		FAIL(w, "the dirty bit of page %d is %d", i, reported);
}

/*
 * Changes of the model
 */

/*
 * Whoever holds nothing is in no ledger; who holds something beside another container
 * is in one, and remains so.
 */
static void model_shared(struct world *w)
{
	struct machine *m = w->m;

	if (!w->nr_mapped && !nvme_pages(m))
		m->shared = false;
	else if (m->beside.nr_mapped)
		m->shared = true;
}

static void model_map(struct world *w, int first, int n, int user, __u8 access)
{
	for (int i = 0; i < n; i++) {
		struct iova_page *p = &w->page[first + i];

		p->mapped = true;
		p->dirty = false;
		p->written = false;
		p->near = false;
		p->invalid = false;
		p->access = access & RW;
		p->user = user + i;
		if (has_domain(w->m))
			object_set(&p->dma, w->user[user + i].object);
	}
	w->nr_mapped += n;
	model_shared(w);
}

static void model_unpinned(struct world *w, struct iova_page *p)
{
	object_set(&p->pinned, NULL);
	memset(p->pins, 0, sizeof(p->pins));
	w->nr_pinned--;
	p->dirty |= w->m->tracking;
}

static void model_release(struct world *w, int first, int n)
{
	for (int i = first; i < first + n; i++) {
		if (w->page[i].pinned)
			model_unpinned(w, &w->page[i]);
	}
}

/* All of [@first, @first + @n) is mapped, and with the same access. */
static bool is_alike(const struct world *w, int first, int n)
{
	if (first + n > w->npages)
		return false;
	for (int i = first; i < first + n; i++)
		if (!w->page[i].mapped || w->page[i].access != w->page[first].access)
			return false;
	return true;
}

/*
 * What could be a superpage across the border before page @at is divided, and counts as
 * dirty if the IOMMU tracks. Where memory is contiguous is not known here.
 */
static void model_cut(struct world *w, int k, int at)
{
	__u64 sizes = w->m->units[k] / (2 * PAGE) * 2;
	int n, block, found = 0;

	for (; sizes; sizes &= sizes - 1) {
		n = sizes & -sizes;
		if (n > w->npages)
			break;
		block = at / n * n;
		if (block == at)
			continue;
		if (!is_alike(w, block, n))
			break;
		found = n;
	}
	for (int i = 0; i < found; i++)
		w->page[at / found * found + i].near = true;
}

static void model_cuts(struct world *w, int first, int n)
{
	struct machine *m = w->m;

	if (!args.mock || !w->exact || !m->tracking ||
	    m->choice == VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED)
		return;
	for (int k = 0; k < NR_MOCK; k++) {
		if (!m->records[k])
			continue;
		model_cut(w, k, first);
		if (first + n < w->npages)
			model_cut(w, k, first + n);
	}
}

/* Returns how many pages were mapped */
static int model_unmap(struct world *w, int first, int n)
{
	int count = 0;

	model_cuts(w, first, n);
	model_release(w, first, n);
	for (int i = first; i < first + n; i++) {
		struct iova_page *p = &w->page[i];

		count += p->mapped;
		w->nr_invalid -= p->invalid;
		object_set(&p->dma, NULL);
		p->mapped = false;
		p->invalid = false;
		p->dirty = false;
		p->written = false;
		p->near = false;
	}
	w->nr_mapped -= count;
	model_shared(w);
	return count;
}

static int model_count(const struct world *w, int first, int n)
{
	int count = 0;

	for (int i = first; i < first + n; i++)
		count += w->page[i].mapped;
	return count;
}

/* All that goes when the last group does */
static void model_no_group(struct world *w)
{
	model_unmap(w, 0, w->npages);
	w->m->tracking = false;
	w->m->choice = 0;
	w->m->has_iommu = false;
}

/* The last domain has gone */
static void model_no_domain(struct world *w)
{
	for (int i = 0; i < w->npages; i++)
		object_set(&w->page[i].dma, NULL);
}

/*
 * A physical group has gone: nobody knows what it has written, unless the IO page table
 * that has recorded it stays, or nobody wants to know.
 */
static void model_detached(struct world *w, int k)
{
	struct machine *m = w->m;
	bool all = m->tracking && m->choice != VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED;

	for (int other = 0; other < NR_PHYS; other++)
		if (m->phys[other] && mock_of(other) == mock_of(k) &&
		    m->records[mock_of(k)])
			all = false;
	for (int i = 0; i < w->npages; i++)
		w->page[i].dirty |= w->page[i].mapped && all;
	if (!has_domain(w->m))
		model_no_domain(w);
	if (!has_group(w->m))
		model_no_group(w);
}

/*
 * Choices
 */

static void some_range(struct world *w, int limit, int *first, int *n)
{
	switch (rnd(w, 16)) {
	case 0 ... 6:
		*n = 1;
		break;
	case 7 ... 11:
		*n = 1 + rnd(w, 8);
		break;
	case 12 ... 13:
		*n = 1 + rnd(w, 64);
		break;
	case 14:
		*n = 512;
		break;
	default:
		*n = 1 + rnd(w, 1200);
	}
	if (*n > limit)
		*n = limit;
	*first = rnd(w, limit - *n + 1);
	if (*n >= 512 && one_in(w, 2))
		*first = *first / 512 * 512;
}

/* Memory for n pages of IOVA; most of the time aligned alike */
static int some_user(struct world *w, int first, int n)
{
	if (rnd(w, 3))
		return first;
	return rnd(w, w->npages - n + 1);
}

static __u32 some_access(struct world *w)
{
	static const __u32 access[] = { RW, RW, RW, RO, WO };

	return access[rnd(w, 5)] |
	       (one_in(w, 3) ? VFIO_DMA_MAP_GRANULE(rnd(w, 12)) : 0);
}

/*
 * Looking
 */

static void see_cpu(struct world *w, int u)
{
	if (w->user[u].prot && !object_is(w->user[u].object, 0, va_of(w, u), PAGE))
		FAIL(w, "page %d of memory has changed", u);
}

static void see_dma(struct world *w, int first, int n);
static void see_fault(struct world *w, int i);

static void see_rw(struct world *w, int i)
{
	int k = some_emulated(w), ret;
	size_t offset = rnd(w, 500) * 8, size = 8 + rnd(w, 8) * 8;
	__u8 data[64];

	/* a controller takes its time, and more for what it cannot reach */
	if (args.pt && (args.mock || one_in(w, 8))) {
		if (w->page[i].mapped)
			see_dma(w, i, 1);
		else if (args.mock)
			see_fault(w, i);
	}
	if (k < 0 || w->nr_invalid)
		return;
	ret = emulated_rw(w->m->emulated[k], iova_of(w, i) + offset, data, size, 0);
	if (ret != rw_error(w, i, false))
		FAIL(w, "reading IOVA page %d: %s, expected %s", i, strerror(-ret),
		     strerror(-rw_error(w, i, false)));
	if (!ret && !object_is(w->user[w->page[i].user].object, offset, data, size))
		FAIL(w, "IOVA page %d is not page %d of memory", i, w->page[i].user);
	if (!w->page[i].pinned || !w->page[i].pins[k])
		return;
	WANT(w, 0, emulated_access(w->m->emulated[k], iova_of(w, i) + offset, data,
				   size, 0));
	if (!object_is(w->page[i].pinned, offset, data, size))
		FAIL(w, "what is pinned at IOVA page %d has changed", i);
}

/* The device reads some of what is mapped. */
static void see_dma(struct world *w, int first, int n)
{
	static __thread __u8 data[NVME_MAX_PAGES * PAGE];
	__u64 iova[NVME_MAX_PAGES];
	int page[NVME_MAX_PAGES], count = 0, k = some_nvme(w), ret;

	if (k < 0)
		return;
	for (int i = first; i < first + n && count < NVME_MAX_PAGES; i++) {
		if (!w->page[i].mapped || !(w->page[i].access & RO))
			continue;
		page[count] = i;
		iova[count++] = iova_of(w, i);
	}
	if (!count)
		return;
	pthread_mutex_lock(&w->m->nvme_lock);
	ret = nvme_dma_read(&w->m->nvme[k], iova, count, data);
	pthread_mutex_unlock(&w->m->nvme_lock);
	WANT(w, 0, ret);
	for (int i = 0; i < count; i++) {
		if (!object_is(w->page[page[i]].dma, 0, data + i * PAGE, PAGE))
			FAIL(w, "the device reads something else at IOVA page %d",
			     page[i]);
	}
}

/* The device finds nothing where nothing is. */
static void see_fault(struct world *w, int i)
{
	int k = some_nvme(w), ret;

	if (k < 0 || w->page[i].mapped)
		return;
	pthread_mutex_lock(&w->m->nvme_lock);
	ret = nvme_probe_read(&w->m->nvme[k], iova_of(w, i));
	pthread_mutex_unlock(&w->m->nvme_lock);
	if (ret != PROBE_FAULT)
		FAIL(w, "the device reaches IOVA page %d: %d", i, ret);
}

/* Pages that are held: what is mapped, and pins of pages that are not mapped there */
static long held_pages(const struct world *w)
{
	long n = w->nr_mapped + nvme_pages(w->m);

	if (!has_domain(w->m))
		return w->nr_pinned;
	for (int i = 0; i < w->npages; i++)
		n += w->page[i].pinned && w->page[i].pinned != w->page[i].dma;
	return n;
}

/* Has one hold more of a page to be charged? */
static bool is_new(const struct object *o)
{
	return o->holds % HOLDS == 0;
}

static long hold(struct object *o)
{
	bool new = is_new(o);

	o->holds++;
	return new;
}

static void count_nothing(struct world *w)
{
	for (int i = 0; i < w->npages; i++) {
		if (w->page[i].dma)
			w->page[i].dma->holds = 0;
		if (w->page[i].pinned)
			w->page[i].pinned->holds = 0;
		if (w->user[i].object)
			w->user[i].object->holds = 0;
	}
	for (int i = 0; i < BESIDE_WINDOW; i++)
		if (w->m->beside.dma[i])
			w->m->beside.dma[i]->holds = 0;
}

/* Pages that are charged; then @holds of each page is what the containers hold of it. */
static long charged_pages(struct world *w)
{
	struct machine *m = w->m;
	long n = 0;

	model_shared(w);
	count_nothing(w);
	for (int i = 0; i < BESIDE_WINDOW; i++)
		n += m->beside.dma[i] ? hold(m->beside.dma[i]) : 0;
	if (!m->shared)
		return n + held_pages(w);
	if (has_domain(m))
		n += nvme_pages(m);
	for (int i = 0; i < w->npages; i++) {
		struct iova_page *p = &w->page[i];

		n += p->dma ? hold(p->dma) : 0;
		n += p->pinned && p->pinned != p->dma ? hold(p->pinned) : 0;
	}
	return n;
}

static void see_counts(struct world *w)
{
	struct machine *m = w->m;
	long mapped = w->nr_mapped + nvme_pages(m);
	struct container_info info;

	if (!w->exact || !m->has_iommu)
		return;
	WANT(w, 0, container_info(&m->c, &info));
	WANT(w, mapped, (long)info.own.mapped_pages);
	WANT(w, held_pages(w), (long)info.own.pinned_pages);
	WANT(w, 0, (long)info.own.alone_pages);
	WANT(w, UINT32_MAX, (long)info.avail);
	WANT(w, has_domain(m), info.nranges > 0);
}

static void see_pins(struct world *w)
{
	struct machine *m = w->m;
	long held = has_domain(m) ? w->nr_mapped + nvme_pages(m) : 0;

	if (!w->exact)
		return;
	WANT(w, charged_pages(w), locked_pages() - m->locked);
	WANT(w, held + w->nr_pinned + m->beside.nr_mapped, pinned_pages() - m->pinned);
}

/* Each page table has what is mapped, and nobody has done what may not be done. */
static void see_mocks(struct world *w)
{
	bool tracking = w->m->tracking &&
			w->m->choice != VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED;
	struct vfio_mock_iommu_state state;
	bool used;

	for (int k = 0; args.mock && k < NR_MOCK; k++) {
		state = mock_state(&mocks[k]);
		WANT(w, 0, (long)state.errors);
		WANT(w, 0, (long)state.left);
		if (!w->exact)
			continue;
		used = k ? w->m->phys[1] || w->m->phys[UNPLUGGED] : w->m->phys[0];
		WANT(w, used, (long)state.domains);
		WANT(w, used && tracking && w->m->records[k], (long)state.tracking);
		WANT(w, used ? w->nr_mapped * (long)PAGE : 0,
		     (long)(state.mapped - state.unmapped));
	}
}

static void see_log(struct world *w)
{
	static const char * const bad[] = {
		"WARNING:", "BUG:", "kernel BUG", "KASAN", "UBSAN", "Oops", "INFO: task",
	};
	char line[8192];
	ssize_t len;

	if (w->m->log < 0)
		return;
	/* EPIPE: some were overwritten */
	while ((len = read(w->m->log, line, sizeof(line) - 1)) > 0 ||
	       (len < 0 && errno == EPIPE)) {
		if (len < 0)
			continue;
		line[len] = '\0';
		/* the kernel has data races of its own: kcsan.awk tells them apart */
		if (strstr(line, ";vm-") || strstr(line, "BUG: KCSAN:"))
			continue;
		for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
			if (strstr(line, bad[i]))
				FAIL(w, "the kernel says: %s", line);
		}
	}
}

static void see_all(struct world *w)
{
	w->what = "everything";
	for (int u = 0; u < w->npages; u++)
		see_cpu(w, u);
	for (int i = 0; i < w->npages; i++)
		see_rw(w, i);
	for (int i = 0; i < w->npages; i += NVME_MAX_PAGES)
		see_dma(w, i, w->npages - i < NVME_MAX_PAGES ? w->npages - i :
							       NVME_MAX_PAGES);
	for (int i = 0; i < 4; i++)
		see_fault(w, rnd(w, w->npages));
	see_counts(w);
	see_pins(w);
	see_mocks(w);
}

/*
 * Operations: mapping
 */

/* One of the mock IOMMUs in use, or -1 */
static int some_mock(struct world *w)
{
	if (!args.mock || !w->exact || !has_domain(w->m))
		return -1;
	if (!w->m->phys[1] && !w->m->phys[UNPLUGGED])
		return 0;
	return w->m->phys[0] ? (int)rnd(w, NR_MOCK) : 1;
}

/* Now and then, one of the next calls that an IOMMU gets fails. Returns which IOMMU. */
static int mock_arm(struct world *w, struct vfio_mock_iommu_break *how)
{
	int k = some_mock(w);

	memset(how, 0, sizeof(*how));
	if (k < 0 || rnd(w, 6))
		return -1;
	/* many calls are for one page or one superpage, so that few follow */
	how->map_at = 1 + rnd(w, rnd(w, 2) ? 2 : 12);
	how->map = rnd(w, 3);
	tell(w, "map call %u of IOMMU %d to fail, %u", how->map_at, k, how->map);
	WANT(w, 0, mock_break(&mocks[k], how));
	return k;
}

/* May a map have failed for it? A call that came short goes on where it ended. */
static bool mock_disarm(struct world *w, int k, const struct vfio_mock_iommu_break *how)
{
	static const struct vfio_mock_iommu_break never;
	bool called;

	if (k < 0)
		return false;
	called = !mock_state(&mocks[k]).map_at;
	WANT(w, 0, mock_break(&mocks[k], &never));
	return called && how->map != VFIO_MOCK_BREAK_SHORT;
}

static void fresh(struct world *w, int u, int n);
static int some_recorder(struct world *w);
static void write_recorded(struct world *w, int k, int i);
static void dirty_look(struct world *w, int first, int n);

static void map(struct world *w, int first, int n, int user, __u32 flags)
{
	struct vfio_mock_iommu_break how;
	int expected = 0, ret, broken;

	if (model_count(w, first, n))
		expected = -EEXIST;
	for (int i = 0; i < n && !expected && has_domain(w->m); i++)
		expected = pin_error(w, user + i, flags);
	tell(w, "%d+%d to %d, flags %x", first, n, user, flags);
	broken = mock_arm(w, &how);
	ret = dma_map(&w->m->c, iova_of(w, first), va_of(w, user), n * PAGE, flags);
	/* what failed may have been tried once more, in another way */
	if (mock_disarm(w, broken, &how) && ret == -ENOMEM)
		expected = ret;
	WANT(w, expected, ret);
	if (!ret)
		model_map(w, first, n, user, flags);
	see_rw(w, first);
	see_rw(w, first + n - 1);
	if (has_domain(w->m) && one_in(w, 8))
		see_dma(w, first, n);
}

static void op_map(struct world *w)
{
	int first, n;

	for (int try = 0; try < 3; try++) {
		some_range(w, w->npages, &first, &n);
		if (!model_count(w, first, n))
			break;
	}
	map(w, first, n, some_user(w, first, n), some_access(w));
}

/* Where memory has huge pages that gives superpages, which others will cut. */
static void op_map_block(struct world *w)
{
	int first = rnd(w, w->npages / BLOCK) * BLOCK;
	int user = rnd(w, w->npages / BLOCK) * BLOCK;

	/* mostly where they are */
	while (rnd(w, 4) && (user < w->thp || (user >= w->shared && user < w->huge)))
		user = rnd(w, w->npages / BLOCK) * BLOCK;
	WANT(w, model_count(w, first, BLOCK) * (long)PAGE,
	     dma_unmap(&w->m->c, iova_of(w, first), BLOCK * PAGE));
	model_unmap(w, first, BLOCK);
	/* what is fresh is whole, once it is written to */
	if (user < w->shared && rnd(w, 4)) {
		fresh(w, user, BLOCK);
		*va_of(w, user) = 1;
		*object_data(w->user[user].object) = 1;
	}
	map(w, first, BLOCK, user, some_access(w));
}

/* What is next to a range */
static void see_around(struct world *w, int first, int n)
{
	int before = first < 16 ? first : 16, behind = w->npages - first - n;

	see_dma(w, first - before, before);
	see_dma(w, first + n, behind < 16 ? behind : 16);
}

static void unmap(struct world *w, int first, int n)
{
	struct vfio_mock_iommu_break how = { .unmap = VFIO_MOCK_BREAK_SHORT };
	int count = model_count(w, first, n), k = some_mock(w);

	tell(w, "%d+%d", first, n);
	if (k >= 0) {
		how.unmap_at = rnd(w, 4);
		WANT(w, 0, mock_break(&mocks[k], &how));
	}
	WANT(w, count * (long)PAGE, dma_unmap(&w->m->c, iova_of(w, first), n * PAGE));
	model_unmap(w, first, n);
	see_mocks(w);
	see_rw(w, first);
	see_rw(w, first + n - 1);
	if (first)
		see_rw(w, first - 1);
	if (first + n < w->npages)
		see_rw(w, first + n);
	if (one_in(w, 4))
		see_around(w, first, n);
	if (one_in(w, 16))
		see_fault(w, first + n / 2);
}

static void op_unmap(struct world *w)
{
	int first, n;

	some_range(w, w->npages, &first, &n);
	unmap(w, first, n);
}

/* May these be one superpage? Of the memory only its kind is known. */
static bool is_block(const struct world *w, int first)
{
	int user = w->page[first].user;

	if (user % BLOCK || user < w->thp || (user >= w->shared && user < w->huge))
		return false;
	for (int i = 0; i < BLOCK; i++) {
		if (!w->page[first + i].mapped || w->page[first + i].user != user + i)
			return false;
	}
	return true;
}

static int find_block(struct world *w)
{
	int nr = w->npages / BLOCK, block = rnd(w, nr);

	for (int i = 0; i < nr; i++, block = (block + 1) % nr) {
		if (is_block(w, block * BLOCK))
			return block;
	}
	return -1;
}

/* From the inside of a superpage, to there, or both */
static void op_cut(struct world *w)
{
	int block = find_block(w), first, end, k = some_recorder(w), page;

	if (block < 0) {
		op_map_block(w);
		block = find_block(w);
	}
	if (block < 0)
		return;
	first = rnd(w, BLOCK - 1);
	end = first + 1 + rnd(w, rnd(w, 2) ? 4 : BLOCK);
	if (end > BLOCK)
		end = BLOCK;
	first += block * BLOCK;
	end += block * BLOCK;
	/* a neighbour may be cut as well, or unmapped whole */
	switch (rnd(w, 6)) {
	case 0:
		first = rnd(w, block * BLOCK + 1);
		break;
	case 1:
		end += rnd(w, w->npages - end + 1);
		break;
	}
	/* what the IOMMU knows of a superpage is not lost with it */
	page = block * BLOCK + rnd(w, BLOCK);
	if (k < 0 || !(w->page[page].access & WO) || rnd(w, 2))
		k = -1;
	else
		write_recorded(w, k, page);
	unmap(w, first, end - first);
	if (k >= 0)
		dirty_look(w, block * BLOCK, BLOCK);
}

/* A range much larger than the window, holes and all */
static void op_unmap_wide(struct world *w)
{
	__u64 start = w->iova - GIB, size = 2 * GIB;
	int first = 0, n = w->npages;

	if (!w->exact)
		return;
	if (one_in(w, 2)) {
		first = rnd(w, n);
		n -= first;
		start = iova_of(w, first);
	}
	tell(w, "%d+%d", first, n);
	WANT(w, model_count(w, first, n) * (long)PAGE,
	     dma_unmap(&w->m->c, start, size));
	model_unmap(w, first, n);
}

static void op_unmap_all(struct world *w)
{
	struct machine *m = w->m;
	long mapped = w->nr_mapped + nvme_pages(m);

	if (!w->exact)
		return;
	tell(w, "%ld pages", mapped);
	WANT(w, mapped * (long)PAGE, dma_unmap_all(&m->c));
	model_unmap(w, 0, w->npages);
	/* before the devices have their own memory mapped again */
	m->shared = false;
	for (int k = 0; k < NR_NVME; k++) {
		if (m->phys[k])
			WANT(w, 0, nvme_map(&m->nvme[k]));
	}
}

/* Ways for an entry to be malformed */
enum { BAD_NOT, BAD_FLAG, BAD_SIZE, BAD_WRAP, NR_BAD };

struct batch_op {
	bool unmap;
	int bad, first, n, user;
	__u32 flags;
};

struct batch_result {
	int expected[MAX_BATCH], pages[MAX_BATCH], failed;
};

/* What an entry gives, done alone, when @mapped says what is mapped */
static int entry_expect(struct world *w, const struct batch_op *op, bool *mapped, int *pages)
{
	int ret = op->bad == BAD_WRAP ? -EOVERFLOW : op->bad ? -EINVAL : 0;

	*pages = 0;
	for (int i = op->first; i < op->first + op->n; i++)
		*pages += mapped[i];
	if (!ret && !op->unmap && *pages)
		ret = -EEXIST;
	for (int i = 0; i < op->n && !ret && !op->unmap && has_domain(w->m); i++)
		ret = pin_error(w, op->user + i, op->flags);
	for (int i = op->first; i < op->first + op->n && !ret; i++)
		mapped[i] = !op->unmap;
	return ret;
}

static void batch_expect(struct world *w, const struct batch_op *op,
			 struct batch_result *r, int nr, __u32 flags)
{
	bool mapped[MAX_WINDOW], end = false;

	for (int i = 0; i < w->npages; i++)
		mapped[i] = w->page[i].mapped;
	r->failed = 0;
	for (int i = 0; i < nr; i++) {
		r->expected[i] = -ECANCELED;
		if (end)
			continue;
		r->expected[i] = entry_expect(w, &op[i], mapped, &r->pages[i]);
		r->failed += !!r->expected[i];
		end = r->expected[i] && !(flags & VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE);
	}
}

static void some_batch(struct world *w, struct batch_op *b, int nr)
{
	bool unmap = one_in(w, 3);
	int base = 0, limit = w->npages;

	/* many entries near each other, so that they meet */
	if (one_in(w, 2)) {
		limit = 64;
		base = rnd(w, w->npages - limit);
	}
	for (int i = 0; i < nr; i++, b++) {
		if (one_in(w, 4))
			unmap = !unmap;
		b->unmap = unmap;
		b->bad = one_in(w, 40) ? 1 + rnd(w, NR_BAD - 1) : BAD_NOT;
		if (i && rnd(w, 3) && b[-1].first + b[-1].n < w->npages - 8) {
			/* what continues the one before */
			b->first = b[-1].first + b[-1].n;
			b->n = 1 + rnd(w, 4);
			b->user = b[-1].user + b[-1].n;
			b->flags = unmap || b[-1].unmap ? some_access(w) : b[-1].flags;
			if (b->user + b->n > w->npages)
				b->user = some_user(w, b->first, b->n);
			continue;
		}
		some_range(w, limit, &b->first, &b->n);
		b->first += base;
		b->user = some_user(w, b->first, b->n);
		b->flags = some_access(w);
	}
}

static void set_entry(struct world *w, struct vfio_iommu_type1v3_batch_entry *entry,
		      const struct batch_op *op)
{
	entry->iova = iova_of(w, op->first);
	entry->size = op->n * PAGE;
	entry->vaddr = op->unmap ? 0 : (uintptr_t)va_of(w, op->user);
	entry->flags = op->unmap ? VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP : op->flags;
	entry->result = 1;
	switch (op->bad) {
	case BAD_FLAG:
		entry->flags |= 1U << 17;
		break;
	case BAD_SIZE:
		entry->size += rnd(w, 2) ? 1 : -entry->size;
		break;
	case BAD_WRAP:
		entry->iova = -PAGE;
		entry->size += PAGE;
		break;
	}
}

static void op_batch(struct world *w)
{
	__u32 nr = 1 + rnd(w, MAX_BATCH);
	__u32 flags = rnd(w, 2) ? VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE : 0;
	struct vfio_iommu_type1v3_batch_entry entry[MAX_BATCH];
	struct batch_op op[MAX_BATCH];
	struct batch_result r;
	__u64 size[MAX_BATCH];
	int ret;

	some_batch(w, op, nr);
	for (unsigned int i = 0; i < nr; i++) {
		set_entry(w, &entry[i], &op[i]);
		size[i] = entry[i].size;
	}
	batch_expect(w, op, &r, nr, flags);
	tell(w, "of %u, flags %x", nr, flags);
	ret = dma_batch(&w->m->c, flags, nr, entry);
	for (unsigned int i = 0; i < nr; i++) {
		tell(w, "  %u: %s %d+%d to %d, flags %x, bad %d: %d, expected %d", i,
		     op[i].unmap ? "unmap" : "map", op[i].first, op[i].n, op[i].user,
		     op[i].flags, op[i].bad, entry[i].result, r.expected[i]);
	}
	WANT(w, r.failed, ret);
	for (unsigned int i = 0; i < nr; i++) {
		if (entry[i].result != r.expected[i])
			FAIL(w, "entry %u gives %d, expected %d", i,
			     entry[i].result, r.expected[i]);
		if (!entry[i].result && op[i].unmap) {
			WANT(w, r.pages[i] * (long)PAGE, (long)entry[i].size);
			model_unmap(w, op[i].first, op[i].n);
			continue;
		}
		WANT(w, (long)size[i], (long)entry[i].size);
		if (!entry[i].result)
			model_map(w, op[i].first, op[i].n, op[i].user, op[i].flags);
	}
	for (int i = 0; i < 4; i++)
		see_rw(w, op[rnd(w, nr)].first);
}

/*
 * Operations: emulated devices
 */

static void op_pin(struct world *w)
{
	int first, n, i, k = some_emulated(w), expected = 0, ret;
	__u32 prot = 1 + rnd(w, 3);

	if (k < 0 || w->nr_invalid)
		return;
	some_range(w, w->npages, &first, &n);
	if (n > 64)
		n = 64;
	tell(w, "%d: %d+%d, prot %u", k, first, n, prot);
	ret = emulated_pin(w->m->emulated[k], iova_of(w, first), n, prot, NULL);
	for (i = 0; i < n && !expected; i++) {
		struct iova_page *p = &w->page[first + i];

		if (!p->mapped)
			expected = -EINVAL;
		else if (prot & ~p->access)
			expected = -EPERM;
		else if (!p->pinned)
			expected = pin_error(w, p->user, p->access);
	}
	WANT(w, expected ?: n, ret);
	/* Of a pin that fails the device has had nothing. */
	for (int j = 0; j < n && !expected; j++) {
		struct iova_page *p = &w->page[first + j];

		if (!p->pinned) {
			object_set(&p->pinned, w->user[p->user].object);
			w->nr_pinned++;
		}
		p->pins[k]++;
	}
}

static void op_unpin(struct world *w)
{
	int k = some_emulated(w), first = rnd(w, w->npages), n;

	if (k < 0)
		return;
	for (n = 0; n < w->npages && !w->page[first].pins[k]; n++)
		first = (first + 1) % w->npages;
	for (n = 0; first + n < w->npages && n < 40 && w->page[first + n].pins[k]; n++)
		;
	if (!n)
		return;
	n = 1 + rnd(w, n);
	tell(w, "%d: %d+%d", k, first, n);
	WANT(w, 0, emulated_unpin(w->m->emulated[k], iova_of(w, first), n));
	for (int i = first; i < first + n; i++) {
		struct iova_page *p = &w->page[i];
		unsigned int left = 0;

		p->pins[k]--;
		for (int j = 0; j < NR_EMULATED; j++)
			left += p->pins[j];
		if (!left)
			model_unpinned(w, p);
	}
}

/* A device writes to what it has pinned. */
static void op_access(struct world *w)
{
	int k = some_emulated(w), i = rnd(w, w->npages), try;
	__u64 word = prng(&w->rng);
	size_t offset = rnd(w, 512) * 8;

	if (k < 0)
		return;
	for (try = 0; try < w->npages && !w->page[i].pins[k]; try++)
		i = (i + 1) % w->npages;
	if (!w->page[i].pins[k] || !(w->page[i].access & WO))
		return;
	tell(w, "%d: %d", k, i);
	WANT(w, 0, emulated_access(w->m->emulated[k], iova_of(w, i) + offset, &word,
				   8, RW_WRITE));
	memcpy(object_data(w->page[i].pinned) + offset, &word, 8);
}

/* vfio_dma_rw(), over several pages and from a kernel thread, too */
static void op_rw(struct world *w)
{
	static __thread __u8 data[9 * PAGE];
	int first, n, k = some_emulated(w), expected = 0, ret;
	size_t offset, size, done = 0;

	if (k < 0 || w->nr_invalid)
		return;
	some_range(w, w->npages, &first, &n);
	if (n > 8)
		n = 8;
	/* how much of it is copied before an error is not to be known */
	for (int i = 0; i < n; i++) {
		if (rw_error(w, first + i, true))
			n = 1;
	}
	expected = rw_error(w, first, true);
	offset = rnd(w, PAGE);
	size = (n - 1) * PAGE + 1 + rnd(w, PAGE - offset);
	pattern_fill(data, sizeof(data), prng(&w->rng));
	tell(w, "%d: %d+%d", k, first, n);
	ret = emulated_rw(w->m->emulated[k], iova_of(w, first) + offset, data, size,
			  RW_WRITE | (one_in(w, 4) ? RW_KTHREAD : 0));
	WANT(w, expected, ret);
	/* it may have been written to before that was noticed */
	if (ret == -EFAULT)
		w->page[first].dirty |= w->m->tracking;
	for (int i = first; !ret && done < size; i++) {
		size_t part = size - done < PAGE - offset ? size - done : PAGE - offset;
		struct object *o = w->user[w->page[i].user].object;

		/* the same memory may be there twice */
		memcpy(object_data(o) + offset, data + done, part);
		w->page[i].dirty |= w->m->tracking;
		done += part;
		offset = 0;
	}
}

/*
 * Operations: a device with an IOMMU
 */

/* The IOMMU of device @k, if it is to, records that page @i was written to. */
static void model_written(struct world *w, int k, int i)
{
	struct machine *m = w->m;
	struct vfio_mock_leaf leaf;
	__u64 first, last;

	if (!m->tracking || m->choice == VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED ||
	    !m->records[mock_of(k)])
		return;
	leaf = mock_leaf(m->nvme[k].fd, iova_of(w, i));
	if (!leaf.size)
		FAIL(w, "no page table entry for page %d", i);
	w->page[i].written = true;
	first = leaf.iova < w->iova ? 0 : (leaf.iova - w->iova) / PAGE;
	last = (leaf.iova + leaf.size - 1 - w->iova) / PAGE;
	for (; first <= last && first < (__u64)w->npages; first++)
		w->page[first].near = true;
}

/* A mock device whose IOMMU records what it writes to, or -1 */
static int some_recorder(struct world *w)
{
	if (!args.mock || !w->exact || !w->m->tracking ||
	    w->m->choice == VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED)
		return -1;
	for (int k = 0; k < NR_NVME; k++)
		if (w->m->phys[k] && w->m->records[mock_of(k)])
			return k;
	return -1;
}

/* Device @k writes to page @i. */
static void write_recorded(struct world *w, int k, int i)
{
	static __thread __u8 data[PAGE];
	__u64 iova = iova_of(w, i);

	tell(w, "device %d writes to %d", k, i);
	pattern_fill(data, PAGE, prng(&w->rng));
	WANT(w, 0, nvme_dma_write(&w->m->nvme[k], &iova, 1, data));
	memcpy(object_data(w->page[i].dma), data, PAGE);
	model_written(w, k, i);
}

static void dirty_look(struct world *w, int first, int n)
{
	__u64 bits[MAX_WINDOW / 64 + 1];

	tell(w, "look at %d+%d", first, n);
	WANT(w, 0, dirty_bitmap(&w->m->c, iova_of(w, first), n * PAGE, PAGE, bits,
				sizeof(bits)));
	for (int i = 0; i < n; i++) {
		see_dirty(w, first + i, bits[i / 64] >> i % 64 & 1);
		w->page[first + i].dirty = false;
		w->page[first + i].written = false;
		w->page[first + i].near = false;
	}
}

/* A page is written to, reported, and written to again: the IOTLB has to know of that. */
static void op_dirty_again(struct world *w)
{
	int k = some_recorder(w), i = rnd(w, w->npages), n = 1 + rnd(w, 64), times;

	for (int try = 0; try < w->npages; try++, i = (i + 1) % w->npages)
		if (w->page[i].mapped && w->page[i].access & WO)
			break;
	if (k < 0 || !w->page[i].mapped || !(w->page[i].access & WO))
		return;
	if (n > w->npages - i)
		n = w->npages - i;
	for (times = 2 + rnd(w, 2); times; times--) {
		write_recorded(w, k, i);
		dirty_look(w, i, n);
	}
}

static void op_dma_write(struct world *w)
{
	static __thread __u8 data[16 * PAGE];
	int page[16], count = 0, k = some_nvme(w), start = rnd(w, w->npages), ret;
	__u64 iova[16], seed = prng(&w->rng);

	if (k < 0)
		return;
	for (int j = 0; j < 200 && count < 16; j++) {
		int i = (start + j) % w->npages;

		if (!w->page[i].mapped || !(w->page[i].access & WO))
			continue;
		page[count] = i;
		iova[count++] = iova_of(w, i);
	}
	if (!count)
		return;
	pattern_fill(data, count * PAGE, seed);
	tell(w, "%d: %d pages from %d", k, count, page[0]);
	pthread_mutex_lock(&w->m->nvme_lock);
	ret = nvme_dma_write(&w->m->nvme[k], iova, count, data);
	pthread_mutex_unlock(&w->m->nvme_lock);
	WANT(w, 0, ret);
	for (int i = 0; i < count; i++)
		model_written(w, k, page[i]);
	/* two of the pages may be one; which came last is not to be known */
	for (int i = 0; i < count; i++) {
		struct object *o = w->page[page[i]].dma;
		bool twice = false;

		for (int j = 0; j < count; j++)
			twice |= j != i && w->page[page[j]].dma == o;
		if (!twice) {
			memcpy(object_data(o), data + i * PAGE, PAGE);
			continue;
		}
		pthread_mutex_lock(&w->m->nvme_lock);
		ret = nvme_dma_write(&w->m->nvme[k], &iova[i], 1, data + i * PAGE);
		pthread_mutex_unlock(&w->m->nvme_lock);
		WANT(w, 0, ret);
		memcpy(object_data(o), data + i * PAGE, PAGE);
	}
}

/*
 * Operations: memory
 */

/* A range of one kind of memory; huge pages are left alone */
static void some_memory(struct world *w, int *u, int *n)
{
	some_range(w, w->huge, u, n);
	if (*u < w->shared && *u + *n > w->shared)
		*n = w->shared - *u;
}

static void op_write(struct world *w)
{
	__u64 seed = prng(&w->rng);
	int u, n;

	some_range(w, w->npages, &u, &n);
	if (n > 16)
		n = 16;
	tell(w, "%d+%d", u, n);
	for (; n--; u++) {
		if (!(w->user[u].prot & PROT_WRITE))
			continue;
		pattern_fill(va_of(w, u), PAGE, seed + u);
		memcpy(object_data(w->user[u].object), va_of(w, u), PAGE);
	}
}

static void op_munmap(struct world *w)
{
	int u, n;

	some_memory(w, &u, &n);
	tell(w, "%d+%d", u, n);
	WANT(w, 0, munmap(va_of(w, u), n * PAGE) ? -errno : 0);
	for (; n--; u++) {
		object_set(&w->user[u].object, NULL);
		w->user[u].prot = 0;
	}
}

static void fresh(struct world *w, int u, int n)
{
	int flags = MAP_FIXED, fd = -1;
	off_t offset = 0;
	void *va;

	if (u >= w->shared) {
		flags |= MAP_SHARED;
		fd = w->memfd;
		offset = (u - w->shared) * PAGE;
	} else {
		flags |= MAP_PRIVATE | MAP_ANONYMOUS;
	}
	va = mmap(va_of(w, u), n * PAGE, PROT_READ | PROT_WRITE, flags, fd, offset);
	WANT(w, (long)va_of(w, u), (long)va);
	madvise(va, n * PAGE, u < w->thp || u >= w->shared ? MADV_NOHUGEPAGE :
							     MADV_HUGEPAGE);
	for (; n--; u++) {
		w->user[u].prot = PROT_READ | PROT_WRITE;
		if (u >= w->shared && !w->file[u])
			object_set(&w->file[u], object_new());
		object_set(&w->user[u].object, u >= w->shared ? w->file[u] : object_new());
	}
}

static void op_mmap(struct world *w)
{
	int u, n;

	some_memory(w, &u, &n);
	if (one_in(w, 2)) {
		/* what is not there */
		for (int i = 0; i < w->huge && w->user[u].prot; i++)
			u = (u + 1) % w->huge;
		if (u + n > w->huge)
			n = w->huge - u;
		if (u < w->shared && u + n > w->shared)
			n = w->shared - u;
	}
	tell(w, "%d+%d", u, n);
	fresh(w, u, n);
}

static void op_mprotect(struct world *w)
{
	int prot = one_in(w, 3) ? PROT_READ : PROT_READ | PROT_WRITE, u, n;

	some_memory(w, &u, &n);
	for (int i = 0; i < n; i++) {
		if (!w->user[u + i].prot)
			n = i;
	}
	if (!n)
		return;
	tell(w, "%d+%d, prot %x", u, n, prot);
	WANT(w, 0, mprotect(va_of(w, u), n * PAGE, prot) ? -errno : 0);
	for (; n--; u++)
		w->user[u].prot = prot;
}

static void op_mremap(struct world *w)
{
	int from, to, n;

	/* one mapping at a time */
	from = rnd(w, w->shared);
	for (n = 0; n < 40 && from + n < w->shared && n <= (int)rnd(w, 40); n++) {
		if (!w->user[from + n].prot)
			break;
	}
	to = rnd(w, w->shared - n);
	if (!n || (to < from + n && from < to + n))
		return;
	tell(w, "%d+%d to %d", from, n, to);
	/* where it spans several VMAs it is refused, which is as good */
	if (mremap(va_of(w, from), n * PAGE, n * PAGE,
		   MREMAP_MAYMOVE | MREMAP_FIXED, va_of(w, to)) == MAP_FAILED) {
		/* what was at the target may be gone all the same */
		munmap(va_of(w, to), n * PAGE);
		for (int i = 0; i < n; i++) {
			object_set(&w->user[to + i].object, NULL);
			w->user[to + i].prot = 0;
		}
		for (int i = 0; i < n; i++) {
			munmap(va_of(w, from + i), PAGE);
			object_set(&w->user[from + i].object, NULL);
			w->user[from + i].prot = 0;
		}
		return;
	}
	for (int i = 0; i < n; i++) {
		object_set(&w->user[to + i].object, w->user[from + i].object);
		w->user[to + i].prot = w->user[from + i].prot;
		object_set(&w->user[from + i].object, NULL);
		w->user[from + i].prot = 0;
	}
}

static void op_madvise(struct world *w)
{
	static const int advice[] = {
		MADV_DONTNEED, MADV_DONTNEED, MADV_REMOVE, MADV_COLD, MADV_PAGEOUT,
		MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_MERGEABLE, 25 /* MADV_COLLAPSE */,
		22 /* MADV_POPULATE_READ */, 23 /* MADV_POPULATE_WRITE */,
	};
	int what = advice[rnd(w, sizeof(advice) / sizeof(*advice))], u, n, ret;

	some_memory(w, &u, &n);
	for (int i = 0; i < n; i++) {
		if (!w->user[u + i].prot)
			n = i;
		/* a hole is made through a mapping that is writable */
		else if (what == MADV_REMOVE && !(w->user[u + i].prot & PROT_WRITE))
			n = i;
	}
	if (!n || (what == MADV_REMOVE && u < w->shared))
		return;
	ret = madvise(va_of(w, u), n * PAGE, what);
	tell(w, "%d: %d+%d: %d", what, u, n, ret);
	if (what != MADV_DONTNEED && what != MADV_REMOVE)
		return;
	WANT(w, 0, ret);
	for (; n--; u++) {
		if (what == MADV_DONTNEED && u >= w->shared)
			continue;
		object_set(&w->user[u].object, object_new());
		if (u >= w->shared)
			object_set(&w->file[u], w->user[u].object);
	}
}

static void reap(struct world *w, int c)
{
	if (w->child[c]) {
		kill(w->child[c], SIGKILL);
		waitpid(w->child[c], NULL, 0);
		w->child[c] = 0;
	}
}

/* A child that shares memory and container, for a while */
static void op_fork(struct world *w)
{
	int c = rnd(w, MAX_CHILDREN), what = rnd(w, 3), first, n, status;
	pid_t pid;

	reap(w, c);
	some_range(w, w->npages, &first, &n);
	tell(w, "%d: %d, %d+%d", c, what, first, n);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		FAIL(w, "fork: %s", strerror(errno));
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (what == 0) {
			for (;;)
				pause();
		}
		if (what == 1) {
			/* file descriptors of the container are closed */
			execl("/bin/true", "true", NULL);
			_exit(1);
		}
		/* no memory of the child gets in, but it may take out */
		if (w->nr_mapped && dma_map(&w->m->c, 64 * GIB, w->va, PAGE, RW) != -EPERM)
			_exit(2);
		if (dma_unmap(&w->m->c, iova_of(w, first), n * PAGE) !=
		    model_count(w, first, n) * (long)PAGE)
			_exit(3);
		_exit(0);
	}
	if (what == 0) {
		w->child[c] = pid;
		return;
	}
	if (waitpid(pid, &status, 0) != pid)
		FAIL(w, "waitpid: %s", strerror(errno));
	WANT(w, 0, status);
	if (what == 2)
		model_unmap(w, first, n);
}

/*
 * Operations: groups
 */

static void set_iommu(struct world *w)
{
	struct machine *m = w->m;

	if (!m->has_iommu)
		WANT(w, 0, ioctl(m->c.fd, VFIO_SET_IOMMU, type()) ? -errno : 0);
	m->has_iommu = true;
}

static const char *phys_name(int k)
{
	if (args.mock)
		return mocks[mock_of(k)].name[k == UNPLUGGED];
	if (k == UNPLUGGED)
		return getenv(ENV_BAR);
	return getenv(k ? ENV_NVME2 : ENV_NVME);
}

static void attach_phys(struct world *w, int k)
{
	struct vfio_mock_iommu_break how;
	const char *bdf = phys_name(k);
	struct machine *m = w->m;
	bool first = !has_domain(m);
	int expected = 0, ret, broken;

	if (!bdf)
		return;
	if (w->nr_invalid || (m->choice == VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE &&
			      !m->records[mock_of(k)]))
		expected = -EBUSY;
	for (int i = 0; i < w->npages && first && w->exact && !expected; i++) {
		if (w->page[i].mapped)
			expected = pin_error(w, w->page[i].user, w->page[i].access);
	}
	tell(w, "%d", k);
	broken = mock_arm(w, &how);
	ret = container_attach(&m->c, bdf);
	/* if it is not the trial of what a call is that fails */
	if (mock_disarm(w, broken, &how) && ret == -ENOMEM)
		expected = ret;
	WANT(w, expected, ret);
	if (expected)
		return;
	set_iommu(w);
	m->phys[k] = true;
	for (int i = 0; i < w->npages && first && w->exact; i++) {
		if (w->page[i].mapped)
			object_set(&w->page[i].dma, w->user[w->page[i].user].object);
	}
	if (k == UNPLUGGED) {
		m->device = container_device(&m->c, bdf);
		WANT(w, true, m->device >= 0);
	} else {
		WANT(w, 0, nvme_open(&m->nvme[k], &m->c, bdf, nvme_iova(k)));
	}
	see_dma(w, rnd(w, w->npages), 1);
}

/* Children have the devices open, too. */
static void reap_all(struct world *w)
{
	for (int c = 0; c < MAX_CHILDREN; c++)
		reap(w, c);
}

static void detach_phys(struct world *w, int k)
{
	struct machine *m = w->m;
	long size;

	tell(w, "%d", k);
	reap_all(w);
	if (k == UNPLUGGED) {
		close(m->device);
	} else {
		size = m->nvme[k].mem.size;
		nvme_close(&m->nvme[k]);
		if (size)
			WANT(w, size, dma_unmap(&m->c, nvme_iova(k), size));
		if (w->exact)
			model_shared(w);
	}
	WANT(w, 0, container_detach(&m->c, phys_name(k)));
	m->phys[k] = false;
	if (!w->exact)
		return;
	model_detached(w, k);
	if (m->tracking && rnd(w, 2))
		dirty_look(w, 0, w->npages);
}

static void attach_emulated(struct world *w, int k)
{
	struct machine *m = w->m;
	int expected = w->nr_invalid ? -EBUSY : 0;

	tell(w, "%d", k);
	if (args.pt) {
		/* refused when the container gets a backend, or when it has it */
		expected = m->has_iommu ? -EOPNOTSUPP : 0;
		WANT(w, expected, emulated_attach(&m->c, k));
		if (expected)
			return;
		WANT(w, -EOPNOTSUPP,
		     ioctl(m->c.fd, VFIO_SET_IOMMU, type()) ? -errno : 0);
		WANT(w, 0, container_detach(&m->c, emulated_name(k)));
		return;
	}
	WANT(w, expected, emulated_attach(&m->c, k));
	if (expected)
		return;
	set_iommu(w);
	m->emulated_in[k] = true;
	m->emulated[k] = container_device(&m->c, emulated_name(k));
	WANT(w, true, m->emulated[k] >= 0);
}

static void detach_emulated(struct world *w, int k)
{
	struct machine *m = w->m;

	tell(w, "%d", k);
	reap_all(w);
	close(m->emulated[k]);
	m->emulated[k] = -1;
	for (int i = 0; i < w->npages && w->exact; i++) {
		struct iova_page *p = &w->page[i];
		unsigned int left = 0;

		p->pins[k] = 0;
		for (int j = 0; j < NR_EMULATED; j++)
			left += p->pins[j];
		if (p->pinned && !left)
			model_unpinned(w, p);
	}
	WANT(w, 0, container_detach(&m->c, emulated_name(k)));
	m->emulated_in[k] = false;
	if (w->exact && !has_group(m))
		model_no_group(w);
}

static void op_group(struct world *w)
{
	struct machine *m = w->m;
	int k = rnd(w, NR_PHYS + NR_EMULATED);

	if (k < NR_PHYS) {
		if (m->phys[k])
			detach_phys(w, k);
		else
			attach_phys(w, k);
		return;
	}
	k -= NR_PHYS;
	if (m->emulated_in[k])
		detach_emulated(w, k);
	else
		attach_emulated(w, k);
}

static void *unplug(void *arg)
{
	if (args.mock)
		return (void *)(intptr_t)mock_unplug(&mocks[mock_of(UNPLUGGED)], 1);
	return (void *)(intptr_t)pci_write(arg, "remove", "1");
}

/* A device is pulled out, which waits until nobody has it open. */
static void op_unplug(struct world *w)
{
	struct machine *m = w->m;
	char *bdf = (char *)phys_name(UNPLUGGED);
	pthread_t thread;
	void *ret;

	if (!m->phys[UNPLUGGED])
		return;
	tell(w, "%s", bdf);
	reap_all(w);
	WANT(w, 0, pthread_create(&thread, NULL, unplug, bdf));
	usleep(rnd(w, 3000));
	if (w->nr_mapped < w->npages)
		op_map(w);
	close(m->device);
	pthread_join(thread, &ret);
	WANT(w, 0, (intptr_t)ret);
	/* the group has left the container; what remains is a file descriptor */
	for (int i = 0; i < m->c.ngroups; i++) {
		if (!strcmp(m->c.group[i].bdf, bdf)) {
			close(m->c.group[i].fd);
			m->c.group[i] = m->c.group[--m->c.ngroups];
		}
	}
	m->phys[UNPLUGGED] = false;
	model_detached(w, UNPLUGGED);
	WANT(w, 0, args.mock ? mock_plug(&mocks[mock_of(UNPLUGGED)], 1) :
			       pci_rescan_bind(bdf));
}

/*
 * Operations: the second container
 */

/* Locked memory is limited to @npages more than there is; -1: it is not. */
static void limit_locked(struct world *w, long npages)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (npages >= 0)
		limit.rlim_cur = (locked_pages() + npages) * PAGE;
	WANT(w, 0, setrlimit(RLIMIT_MEMLOCK, &limit) ? -errno : 0);
	WANT(w, 0, syscall(SYS_capget, &head, data) ? -errno : 0);
	data[0].effective = data[0].permitted;
	if (npages >= 0)
		data[0].effective &= ~(1U << CAP_IPC_LOCK);
	WANT(w, 0, syscall(SYS_capset, &head, data) ? -errno : 0);
}

static void beside_map(struct world *w, int first, int n, int user, __u32 flags)
{
	struct beside *b = &w->m->beside;
	int expected = 0, ret;
	long need = 0;

	for (int i = 0; i < n && !expected; i++)
		expected = b->dma[first + i] ? -EEXIST : 0;
	for (int i = 0; i < n && !expected; i++)
		expected = pin_error(w, user + i, flags);
	/* its attempt is what enters all that the first one holds */
	w->m->shared |= w->nr_mapped || nvme_pages(w->m);
	if (!expected && one_in(w, 3)) {
		charged_pages(w);
		for (int i = 0; i < n; i++)
			need += is_new(w->user[user + i].object);
		/* what the first one has not entered yet is not at the limit by chance */
		if (b->nr_mapped && need && one_in(w, 2)) {
			need--;
			expected = -ENOMEM;
		}
		tell(w, "%ld pages more can be locked", need);
		if (b->nr_mapped)
			limit_locked(w, need);
	}
	tell(w, "map %d+%d to %d, flags %x", first, n, user, flags);
	ret = dma_map(&b->c, OTHER_IOVA + first * PAGE, va_of(w, user), n * PAGE, flags);
	limit_locked(w, -1);
	WANT(w, expected, ret);
	for (int i = 0; i < n && !ret; i++)
		object_set(&b->dma[first + i], w->user[user + i].object);
	b->nr_mapped += ret ? 0 : n;
}

static void beside_unmap(struct world *w, int first, int n)
{
	struct beside *b = &w->m->beside;
	long count = 0;

	for (int i = first; i < first + n; i++) {
		count += !!b->dma[i];
		object_set(&b->dma[i], NULL);
	}
	tell(w, "unmap %d+%d", first, n);
	WANT(w, count * (long)PAGE, n == BESIDE_WINDOW ? dma_unmap_all(&b->c) :
				    dma_unmap(&b->c, OTHER_IOVA + first * PAGE, n * PAGE));
	b->nr_mapped -= count;
}

static void op_beside(struct world *w)
{
	struct beside *b = &w->m->beside;
	int first, n, user;

	if (!b->c.ngroups)
		return;
	model_shared(w);
	some_range(w, BESIDE_WINDOW, &first, &n);
	switch (rnd(w, 16)) {
	case 0:
		/* all of it, so that it has no owner */
		beside_unmap(w, 0, BESIDE_WINDOW);
		break;
	case 1:
		/* more holds of a page than are charged once */
		user = rnd(w, w->npages);
		n = 30 + rnd(w, 100);
		first = rnd(w, BESIDE_WINDOW - n);
		beside_unmap(w, first, n);
		while (n--)
			beside_map(w, first + n, 1, user, RW);
		break;
	case 2 ... 5:
		beside_unmap(w, first, n);
		break;
	default:
		if (rnd(w, 3))
			beside_unmap(w, first, n);
		beside_map(w, first, n, some_user(w, first, n), some_access(w));
	}
	see_pins(w);
}

/*
 * Operations: dirty tracking, user addresses
 */

static void dirty_start(struct world *w)
{
	static const __u32 choices[] = {
		0, VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED, VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE,
	};
	__u32 choice = choices[rnd(w, 3)];
	struct machine *m = w->m;
	int expected = 0;

	/* the same once more, which is no START */
	if (m->tracking && rnd(w, 2))
		choice = m->choice;
	if (m->tracking)
		expected = choice == m->choice ? 0 : -EBUSY;
	else if (choice == VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE &&
		 dirty_source(m, choice) == VFIO_IOMMU_TYPE1V3_DIRTY_ALL)
		expected = -EOPNOTSUPP;
	tell(w, "start, choice %x", choice);
	WANT(w, expected,
	     dirty_tracking(&m->c, VFIO_IOMMU_DIRTY_PAGES_FLAG_START | choice));
	if (expected)
		return;
	m->tracking = true;
	m->choice = choice;
}

static void dirty_stop(struct world *w)
{
	tell(w, "stop");
	WANT(w, 0, dirty_tracking(&w->m->c, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP));
	w->m->tracking = false;
	w->m->choice = 0;
	for (int i = 0; i < w->npages; i++) {
		w->page[i].dirty = false;
		w->page[i].written = false;
		w->page[i].near = false;
	}
}

/* What others have set, and bits behind the end, stay. */
static int dirty_or(struct world *w, int first, int n, __u64 *bits, const __u64 *others,
		    size_t bytes)
{
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} u = {
		.dirty.argsz = sizeof(u),
		.dirty.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP |
			       VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR,
		.get.iova = iova_of(w, first),
		.get.size = n * PAGE,
		.get.bitmap.pgsize = PAGE,
		.get.bitmap.size = bytes,
		.get.bitmap.data = bits,
	};

	memcpy(bits, others, bytes);
	if (ioctl(w->m->c.fd, VFIO_IOMMU_DIRTY_PAGES, &u))
		return -errno;
	for (size_t i = 0; i < bytes * 8; i++) {
		bool was = others[i / 64] >> i % 64 & 1, is = bits[i / 64] >> i % 64 & 1;

		if (was && !is)
			FAIL(w, "the bit of page %zu, which was set, is not", first + i);
		if (i >= (size_t)n && was != is)
			FAIL(w, "bit %zu is set, behind the end", i);
	}
	return 0;
}

static void op_dirty(struct world *w)
{
	__u64 bits[MAX_WINDOW / 64 + 1], others[MAX_WINDOW / 64 + 1] = {};
	struct machine *m = w->m;
	int first, n, ret;
	bool unmap;

	if (!w->exact)
		return;
	switch (rnd(w, 12)) {
	case 0 ... 1:
		dirty_start(w);
		return;
	case 2:
		dirty_stop(w);
		return;
	}
	some_range(w, w->npages, &first, &n);
	unmap = one_in(w, 3);
	tell(w, "%s %d+%d", unmap ? "unmap" : "get", first, n);
	memset(bits, 0xff, sizeof(bits));
	if (unmap) {
		long size = dma_unmap_dirty(&m->c, iova_of(w, first), n * PAGE, PAGE,
					    bits, sizeof(bits));

		WANT(w, m->tracking ? model_count(w, first, n) * (long)PAGE : -EINVAL,
		     size);
		ret = size < 0 ? size : 0;
		/* pins go before the bits are read */
		if (!ret)
			model_release(w, first, n);
	} else if (one_in(w, 3)) {
		for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
			others[i] = prng(&w->rng) & prng(&w->rng);
		ret = dirty_or(w, first, n, bits, others, sizeof(bits));
		WANT(w, m->tracking ? 0 : -EINVAL, ret);
	} else {
		ret = dirty_bitmap(&m->c, iova_of(w, first), n * PAGE, PAGE, bits,
				   sizeof(bits));
		WANT(w, m->tracking ? 0 : -EINVAL, ret);
	}
	for (int i = 0; i < n && !ret; i++) {
		if (!(others[i / 64] >> i % 64 & 1))
			see_dirty(w, first + i, bits[i / 64] >> i % 64 & 1);
		w->page[first + i].dirty = false;
		w->page[first + i].written = false;
		w->page[first + i].near = false;
	}
	if (unmap && !ret)
		model_unmap(w, first, n);
}

static void op_vaddr(struct world *w)
{
	struct machine *m = w->m;
	int first, n, user, count = 0, invalid = 0, expected;

	if (!w->exact)
		return;
	some_range(w, w->npages, &first, &n);
	/* what is invalid does not stay so for long */
	if (w->nr_invalid && rnd(w, 4)) {
		for (int i = 0; i < w->npages && !w->page[first].invalid; i++)
			first = (first + 1) % w->npages;
		for (n = 1; first + n < w->npages && w->page[first + n].invalid; n++)
			;
	}
	for (int i = first; i < first + n; i++) {
		count += w->page[i].mapped;
		invalid += w->page[i].invalid;
	}
	user = some_user(w, first, n);
	if (w->nr_invalid ? rnd(w, 8) : one_in(w, 8)) {
		expected = args.pt ? -EOPNOTSUPP : !count ? -ENOENT :
			   invalid < n ? -EINVAL : 0;
		tell(w, "update %d+%d to %d", first, n, user);
		WANT(w, expected, vaddr_update(&m->c, iova_of(w, first),
					       va_of(w, user), n * PAGE));
		for (int i = 0; i < n && !expected; i++) {
			w->page[first + i].invalid = false;
			w->page[first + i].user = user + i;
		}
		w->nr_invalid -= expected ? 0 : n;
		return;
	}
	expected = args.pt ? -EOPNOTSUPP : has_emulated(m) ? -EBUSY : invalid ? -EINVAL : 0;
	tell(w, "invalidate %d+%d", first, n);
	WANT(w, expected ?: count * (long)PAGE,
	     vaddr_invalidate(&m->c, iova_of(w, first), n * PAGE, 0));
	for (int i = 0; i < n && !expected; i++)
		w->page[first + i].invalid = w->page[first + i].mapped;
	w->nr_invalid += expected ? 0 : count;
}

/*
 * Operations: wrong in one way each, and refused for it
 */

static void bad_map(struct world *w)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = RW,
		.vaddr = (uintptr_t)va_of(w, 0),
		.iova = iova_of(w, 0),
		.size = PAGE,
	};
	int expected = -EINVAL, what = rnd(w, 13), ret;
	void *arg = &map;

	switch (what) {
	case 0:
		map.size = 0;
		break;
	case 1:
		map.size = PAGE + 1 + rnd(w, PAGE - 1);
		break;
	case 2:
		map.iova += 1 + rnd(w, PAGE - 1);
		break;
	case 3:
		map.vaddr += 1 + rnd(w, PAGE - 1);
		break;
	case 4:
		map.iova = -PAGE;
		map.size = 2 * PAGE;
		expected = -EOVERFLOW;
		break;
	case 5:
		map.vaddr = -PAGE;
		map.size = 2 * PAGE;
		expected = -EOVERFLOW;
		break;
	case 6:
		map.flags = 0;
		break;
	case 7:
		map.flags |= 1U << (3 + rnd(w, 28));
		break;
	case 8:
		map.flags |= VFIO_DMA_MAP_FLAG_VADDR;
		break;
	case 9:
		map.argsz -= 1 + rnd(w, 31);
		break;
	case 10:
		map.flags = VFIO_DMA_MAP_FLAG_SMALL_PAGES;
		break;
	case 11:
		arg = (void *)8;
		expected = -EFAULT;
		break;
	default:
		if (!has_domain(w->m))
			return;
		map.iova = MSI_IOVA;
		break;
	}
	tell(w, "map %d", what);
	ret = ioctl(w->m->c.fd, VFIO_IOMMU_MAP_DMA, arg) ? -errno : 0;
	WANT(w, expected, ret);
}

static void bad_unmap(struct world *w)
{
	struct {
		struct vfio_iommu_type1_dma_unmap unmap;
		struct vfio_bitmap bitmap;
	} u = {
		.unmap.argsz = sizeof(u),
		.unmap.iova = iova_of(w, 0),
		.unmap.size = PAGE,
		.bitmap.pgsize = PAGE,
		.bitmap.size = 8,
		.bitmap.data = (void *)8,
	};
	int expected = -EINVAL, what = rnd(w, 9), ret;
	void *arg = &u;

	switch (what) {
	case 0:
		u.unmap.size = 0;
		break;
	case 1:
		u.unmap.size += 1 + rnd(w, PAGE - 1);
		break;
	case 2:
		u.unmap.iova += 1 + rnd(w, PAGE - 1);
		break;
	case 3:
		u.unmap.iova = -PAGE;
		u.unmap.size = 2 * PAGE;
		expected = -EOVERFLOW;
		break;
	case 4:
		u.unmap.flags = 1U << (3 + rnd(w, 29));
		break;
	case 5:
		u.unmap.flags = VFIO_DMA_UNMAP_FLAG_ALL;
		break;
	case 6:
		u.unmap.flags = VFIO_DMA_UNMAP_FLAG_ALL | VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
		break;
	case 7:
		u.unmap.argsz = rnd(w, 24);
		break;
	default:
		u.unmap.flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
		u.bitmap.pgsize = PAGE << 1;
		break;
	}
	tell(w, "unmap %d", what);
	ret = ioctl(w->m->c.fd, VFIO_IOMMU_UNMAP_DMA, arg) ? -errno : 0;
	WANT(w, expected, ret);
}

static void bad_batch(struct world *w)
{
	struct vfio_iommu_type1v3_batch_entry entry[2] = {
		{ .iova = iova_of(w, 0), .size = PAGE, .vaddr = (uintptr_t)va_of(w, 0),
		  .flags = RW, .result = 1 },
		{ .iova = iova_of(w, 0), .size = PAGE, .vaddr = (uintptr_t)va_of(w, 0),
		  .flags = RW, .result = 1 },
	};
	struct vfio_iommu_type1v3_batch batch = {
		.argsz = sizeof(batch),
		.nr_entries = 2,
		.entries = (uintptr_t)entry,
	};
	int expected = -EINVAL, what = rnd(w, 10), ret;

	switch (what) {
	case 0:
		batch.nr_entries = 0;
		break;
	case 1:
		batch.nr_entries = VFIO_IOMMU_TYPE1V3_BATCH_MAX + 1;
		break;
	case 2:
		batch.flags = rnd(w, 2) | 1U << (1 + rnd(w, 31));
		break;
	case 3:
		batch.__reserved = 1;
		break;
	case 4:
		batch.entries = 8;
		expected = -EFAULT;
		break;
	case 5:
		batch.argsz = rnd(w, sizeof(batch));
		break;
	case 6:
		entry[0].size = 0;
		break;
	case 7:
		entry[0].flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP | RO;
		break;
	case 8:
		entry[0].flags |= 1U << (3 + rnd(w, 13));
		break;
	default:
		entry[0].vaddr |= 1;
		break;
	}
	tell(w, "batch %d", what);
	ret = ioctl(w->m->c.fd, VFIO_IOMMU_TYPE1V3_BATCH, &batch);
	/* An entry that is malformed fails, and ends the batch. */
	if (what >= 6) {
		WANT(w, 1, ret);
		WANT(w, -EINVAL, entry[0].result);
		WANT(w, -ECANCELED, entry[1].result);
		return;
	}
	WANT(w, expected, ret < 0 ? -errno : ret);
	WANT(w, 1, entry[0].result);
}

static void bad_other(struct world *w)
{
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} u = {
		.dirty.argsz = sizeof(u),
		.dirty.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
		.get.iova = iova_of(w, 0),
		.get.size = PAGE,
		.get.bitmap.pgsize = PAGE,
		.get.bitmap.size = 8,
		.get.bitmap.data = (void *)8,
	};
	static const __u32 choices[] = {
		VFIO_IOMMU_DIRTY_PAGES_FLAG_START | VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED |
			VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE,
		VFIO_IOMMU_DIRTY_PAGES_FLAG_START | VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR,
		VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP | VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED,
		VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP | VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR,
		VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP |
			VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE,
		VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED, VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR,
	};
	__u32 info[4] = { rnd(w, 16) };
	int what = rnd(w, 8), expected = -EINVAL, ret;
	unsigned long cmd = VFIO_IOMMU_DIRTY_PAGES;
	void *arg = &u;

	switch (what) {
	case 0:
		u.dirty.flags = rnd(w, 2) ? 0 : 3 + rnd(w, 1000) * 8;
		break;
	case 1:
		u.dirty.argsz = rnd(w, 8);
		break;
	case 7:
		u.dirty.flags = choices[rnd(w, sizeof(choices) / sizeof(*choices))];
		break;
	case 2:
		u.get.size = 0;
		break;
	case 3:
		u.get.bitmap.pgsize = 1;
		break;
	case 4:
		cmd = VFIO_IOMMU_GET_INFO;
		arg = info;
		break;
	case 5:
		cmd = _IO(VFIO_TYPE, VFIO_BASE + 51 + rnd(w, 40));
		expected = -ENOTTY;
		break;
	default:
		cmd = VFIO_SET_IOMMU;
		arg = (void *)type();
		break;
	}
	tell(w, "other %d", what);
	ret = ioctl(w->m->c.fd, cmd, arg) ? -errno : 0;
	WANT(w, expected, ret);
}

static void op_bad(struct world *w)
{
	void (*bad[])(struct world *w) = { bad_map, bad_unmap, bad_batch, bad_other };

	bad[rnd(w, 4)](w);
}

static void op_info(struct world *w)
{
	struct machine *m = w->m;
	struct vfio_iommu_type1v3_info_cap_dirty cap;
	__u32 flags = VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED | VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR;

	if (!w->exact)
		return;
	WANT(w, !args.pt && !has_emulated(m),
	     ioctl(m->c.fd, VFIO_CHECK_EXTENSION, VFIO_UPDATE_VADDR));
	WANT(w, 1, ioctl(m->c.fd, VFIO_CHECK_EXTENSION, VFIO_UNMAP_ALL));
	WANT(w, 0, info_cap(&m->c, VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY, &cap, sizeof(cap)));
	WANT(w, dirty_source(m, m->choice), cap.source);
	if (dirty_source(m, 0) != VFIO_IOMMU_TYPE1V3_DIRTY_ALL)
		flags |= VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE;
	WANT(w, flags, cap.flags);
}

static const struct {
	const char *name;
	void (*run)(struct world *w);
	unsigned int weight;	/* of 1000 or so */
	bool alone;		/* only where nobody else uses the container */
} ops[] = {
	{ "map", op_map, 230 },
	{ "map-block", op_map_block, 20 },
	{ "cut", op_cut, 90 },
	{ "unmap", op_unmap, 180 },
	{ "unmap-wide", op_unmap_wide, 3, true },
	{ "unmap-all", op_unmap_all, 2, true },
	{ "batch", op_batch, 80 },
	{ "pin", op_pin, 70 },
	{ "unpin", op_unpin, 60 },
	{ "access", op_access, 20 },
	{ "rw", op_rw, 50 },
	{ "dma-write", op_dma_write, 25 },
	{ "write", op_write, 50 },
	{ "munmap", op_munmap, 15 },
	{ "mmap", op_mmap, 35 },
	{ "mprotect", op_mprotect, 15 },
	{ "mremap", op_mremap, 15 },
	{ "madvise", op_madvise, 25 },
	{ "fork", op_fork, 4, true },
	{ "group", op_group, 8, true },
	{ "unplug", op_unplug, 1, true },
	{ "beside", op_beside, 60, true },
	{ "dirty", op_dirty, 40, true },
	{ "dirty-again", op_dirty_again, 10, true },
	{ "vaddr", op_vaddr, 30, true },
	{ "bad", op_bad, 40 },
	{ "info", op_info, 10, true },
};

#define NR_OPS	(sizeof(ops) / sizeof(*ops))

static void run_op(struct world *w, __u64 seed, unsigned int i)
{
	unsigned int total = 0, pick, k;

	w->rng = seed + i * 0x2545f4914f6cdd1dULL;
	prng(&w->rng);
	w->op = i;
	for (k = 0; k < NR_OPS; k++)
		total += ops[k].weight;
	pick = rnd(w, total);
	for (k = 0; pick >= ops[k].weight; k++)
		pick -= ops[k].weight;
	w->what = ops[k].name;
	if (ops[k].alone && !w->exact)
		return;
	/* without a group all of it is refused, which other tests look at */
	if (!w->m->has_iommu && ops[k].run != op_group)
		return;
	ops[k].run(w);

	see_cpu(w, rnd(w, w->npages));
	if (w->m->has_iommu) {
		see_rw(w, rnd(w, w->npages));
		see_counts(w);
	}
	if (i % 32 == 0)
		see_dma(w, rnd(w, w->npages - 32), 32);
	if (i % 64 == 0)
		see_pins(w);
	if (i % 16 == 0)
		see_mocks(w);
	if (i % 256 == 0)
		see_fault(w, rnd(w, w->npages));
	if (w->exact)
		see_log(w);
}

/*
 * A round
 */

static void world_init(struct world *w, struct machine *m, bool exact, int nr)
{
	memset(w, 0, sizeof(*w));
	w->m = m;
	w->exact = exact;
	w->what = "begin";
	w->npages = exact ? 3072 : 1536;
	w->thp = w->npages / 3;
	w->shared = 2 * w->thp;
	w->huge = exact ? 2560 : w->npages;
	w->iova = TEST_IOVA + nr * GIB;
	w->va = (void *)(USER_BASE + nr * GIB);
	w->memfd = memfd_create("type1v3_fuzz", MFD_CLOEXEC);
	WANT(w, true, w->memfd >= 0);
	WANT(w, 0, ftruncate(w->memfd, (w->huge - w->shared) * PAGE));
	fresh(w, 0, w->thp);
	fresh(w, w->thp, w->shared - w->thp);
	fresh(w, w->shared, w->huge - w->shared);
	if (w->huge < w->npages) {
		void *va = mmap(va_of(w, w->huge), (w->npages - w->huge) * PAGE,
				PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_FIXED,
				-1, 0);

		if (va == MAP_FAILED)	/* no more of them: without */
			WANT(w, (long)va_of(w, w->huge),
			     (long)mmap(va_of(w, w->huge), (w->npages - w->huge) * PAGE,
					PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		for (int u = w->huge; u < w->npages; u++) {
			w->user[u].prot = PROT_READ | PROT_WRITE;
			object_set(&w->user[u].object, object_new());
		}
	}
}

/* IOMMUs of this round, which go with its process */
static void mocks_create(struct machine *m, __u64 seed)
{
	static const int widths[] = { 39, 48, 57 };
	struct vfio_mock_iommu_create config = {
		.reserved = { { MSI_IOVA, MSI_IOVA + MIB - 1 } },
		.nr_devices = 2,
	};
	struct world w = { .m = m, .rng = seed, .what = "begin" };
	unsigned int kind, width;

	for (int k = 0; k < NR_MOCK; k++) {
		kind = rnd(&w, NR_MOCK_KINDS);
		width = widths[rnd(&w, 3)];
		config.pgsizes = mock_kinds[kind].pgsizes;
		config.flags = mock_kinds[kind].flags;
		config.aperture.last = (1ULL << width) - 1;
		tell(&w, "IOMMU %d: %s, %u bits", k, mock_kinds[kind].name, width);
		WANT(&w, 0, mock_create(&mocks[k], &config));
		m->records[k] = mocks[k].tracks && config.flags & VFIO_MOCK_IOMMU_DIRTY;
		m->units[k] = config.flags & VFIO_MOCK_IOMMU_CALLS ? -PAGE : config.pgsizes;
	}
	kind = rnd(&w, NR_MOCK_KINDS);
	config = (struct vfio_mock_iommu_create){
		.pgsizes = mock_kinds[kind].pgsizes,
		.flags = mock_kinds[kind].flags,
	};
	tell(&w, "IOMMU of the second container: %s", mock_kinds[kind].name);
	WANT(&w, 0, mock_create(&mock_beside, &config));
}

static void machine_init(struct machine *m, __u64 seed)
{
	const char *bdf;

	memset(m, 0, sizeof(*m));
	if (args.mock)
		mocks_create(m, seed);
	pthread_mutex_init(&m->nvme_lock, NULL);
	for (int k = 0; k < NR_NVME; k++)
		nvme_init(&m->nvme[k]);
	for (int k = 0; k < NR_EMULATED; k++)
		m->emulated[k] = -1;
	m->locked = locked_pages();
	m->pinned = pinned_pages();
	m->log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (m->log >= 0)
		lseek(m->log, 0, SEEK_END);
	container_init(&m->c);
	m->c.fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	container_init(&m->beside.c);
	bdf = args.mock ? mock_beside.name[0] : getenv(ENV_STREAM);
	if (bdf && container_open(&m->beside.c, VFIO_TYPE1v3_IOMMU, bdf)) {
		printf("# no second container\n");
		exit(1);
	}
}

/* Everything out again, and nothing left of it */
static void round_end(struct world *w)
{
	struct machine *m = w->m;
	long size = nvme_pages(m) * PAGE;

	w->what = "end";
	if (m->has_iommu && w->exact) {
		WANT(w, w->nr_mapped * (long)PAGE + size, dma_unmap_all(&m->c));
		model_unmap(w, 0, w->npages);
	}
	if (m->beside.c.ngroups)
		WANT(w, m->beside.nr_mapped * (long)PAGE, dma_unmap_all(&m->beside.c));
	reap_all(w);
	for (int k = 0; k < NR_NVME; k++)
		nvme_close(&m->nvme[k]);
	for (int k = 0; k < NR_EMULATED; k++) {
		if (m->emulated[k] >= 0)
			close(m->emulated[k]);
	}
	if (m->phys[UNPLUGGED])
		close(m->device);
	container_close(&m->c);
	container_close(&m->beside.c);
	WANT(w, m->locked, locked_pages());
	WANT(w, m->pinned, pinned_pages());
	for (int u = 0; u < w->npages && w->exact; u++)
		see_cpu(w, u);
	for (int k = 0; args.mock && k < NR_MOCK; k++) {
		struct vfio_mock_iommu_state state = mock_state(&mocks[k]);

		WANT(w, 0, (long)state.errors);
		WANT(w, 0, (long)state.left);
		WANT(w, 0, (long)state.leaves);
		WANT(w, 0, (long)state.domains);
	}
	see_log(w);
}

static void round_exact(__u64 seed, const bool *left_out, unsigned int nr)
{
	static struct machine m;
	static struct world w;

	machine_init(&m, seed);
	world_init(&w, &m, true, 0);
	w.rng = seed;
	w.op = -1;
	for (int i = rnd(&w, 3); i >= 0; i--)
		op_group(&w);
	while (!m.has_iommu)
		op_group(&w);
	for (unsigned int i = 0; i < nr; i++) {
		if (!left_out || !left_out[i])
			run_op(&w, seed, i);
	}
	see_all(&w);
	round_end(&w);
}

static void *worker(void *arg)
{
	struct world *w = arg;

	for (unsigned int i = 0; i < w->nr_ops; i++)
		run_op(w, w->seed, i);
	see_all(w);
	w->what = "end";
	WANT(w, w->nr_mapped * (long)PAGE,
	     dma_unmap(&w->m->c, w->iova, w->npages * PAGE));
	model_unmap(w, 0, w->npages);
	return NULL;
}

static bool stop;

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

/* Groups that come and go, children, and memory of nobody else */
static void *chaos_groups(void *arg)
{
	struct world *w = arg;
	struct container *c = &w->m->c;
	struct container one;
	pid_t pid;

	while (!stopped()) {
		switch (rnd(w, 8)) {
		case 0 ... 1:
			/* where there is no other, mappings would change */
			if (w->m->phys[0] && phys_name(1) && !container_attach(c, phys_name(1))) {
				usleep(rnd(w, 2000));
				WANT(w, 0, container_detach(c, phys_name(1)));
			}
			break;
		case 2 ... 3:
			if (!emulated_attach(c, 1)) {
				int fd = container_device(c, emulated_name(1));

				emulated_pin(fd, iova_of(w, 0), 16, PIN_READ, NULL);
				usleep(rnd(w, 2000));
				close(fd);
				WANT(w, 0, container_detach(c, emulated_name(1)));
			}
			break;
		case 4:
			pid = fork();
			if (!pid) {
				execl("/bin/true", "true", NULL);
				_exit(1);
			}
			waitpid(pid, NULL, 0);
			break;
		case 5:
			/* one that never gets a group */
			container_init(&one);
			one.fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
			dma_map(&one, iova_of(w, 0), w->va, PAGE, RW);
			container_close(&one);
			break;
		default:
			dma_map(c, iova_of(w, rnd(w, 64)), w->va, (1 + rnd(w, 64)) * PAGE, RW);
			dma_unmap(c, iova_of(w, rnd(w, 64)), (1 + rnd(w, 600)) * PAGE);
		}
	}
	return NULL;
}

/* Bytes that mean nothing, in calls that reach no further than the window */
static void *chaos_bytes(void *arg)
{
	static const unsigned long cmds[] = {
		VFIO_IOMMU_MAP_DMA, VFIO_IOMMU_MAP_DMA, VFIO_IOMMU_UNMAP_DMA,
		VFIO_IOMMU_DIRTY_PAGES, VFIO_IOMMU_GET_INFO, VFIO_IOMMU_TYPE1V3_BATCH,
		VFIO_CHECK_EXTENSION, VFIO_GET_API_VERSION,
	};
	struct world *w = arg;
	struct vfio_iommu_type1v3_batch_entry entry[8];
	__u64 word[64], bits[MAX_WINDOW / 64];

	while (!stopped()) {
		unsigned long cmd = cmds[rnd(w, 8)];
		struct vfio_iommu_type1_dma_map *map = (void *)word;
		struct vfio_iommu_type1_dma_unmap *unmap = (void *)word;
		struct vfio_iommu_type1v3_batch *batch = (void *)word;
		struct vfio_iommu_type1_dirty_bitmap *dirty = (void *)word;
		struct vfio_iommu_type1_dirty_bitmap_get *get = (void *)dirty->data;
		__u64 iova = iova_of(w, rnd(w, w->npages / 2));
		__u64 size = rnd(w, w->npages / 2) * PAGE;

		for (int i = 0; i < 64; i++)
			word[i] = prng(&w->rng) >> rnd(w, 64);
		if (one_in(w, 8))
			iova += rnd(w, PAGE);
		if (one_in(w, 2))
			map->argsz = 128;
		switch (cmd) {
		case VFIO_IOMMU_MAP_DMA:
			map->iova = iova;
			map->size = size;
			if (rnd(w, 4))
				map->flags = some_access(w);
			if (rnd(w, 4))
				map->vaddr = (uintptr_t)va_of(w, rnd(w, w->npages / 2));
			break;
		case VFIO_IOMMU_UNMAP_DMA:
			unmap->iova = iova;
			unmap->size = size;
			/* neither others' mappings nor others' addresses */
			unmap->flags &= ~(VFIO_DMA_UNMAP_FLAG_ALL | VFIO_DMA_UNMAP_FLAG_VADDR);
			break;
		case VFIO_IOMMU_TYPE1V3_BATCH:
			for (int i = 0; i < 8; i++) {
				entry[i].iova = iova_of(w, rnd(w, w->npages / 2));
				entry[i].size = (1 + rnd(w, 8)) * PAGE;
				entry[i].vaddr = prng(&w->rng) >> rnd(w, 64) & -PAGE;
				if (rnd(w, 2))
					entry[i].vaddr = (uintptr_t)va_of(w, rnd(w, w->npages));
				entry[i].flags = some_access(w);
				if (one_in(w, 3)) {
					entry[i].flags = VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP;
					entry[i].vaddr = 0;
				}
			}
			batch->argsz = sizeof(*batch);
			batch->flags = rnd(w, 3);
			batch->nr_entries = 1 + rnd(w, 8);
			batch->__reserved = one_in(w, 20);
			batch->entries = (uintptr_t)entry;
			break;
		case VFIO_IOMMU_DIRTY_PAGES:
			if (rnd(w, 4))
				dirty->flags = 1 << rnd(w, 3);
			if (one_in(w, 3))
				dirty->flags |= 1U << (16 + rnd(w, 3));
			get->iova = iova;
			get->size = size;
			if (rnd(w, 2))
				get->bitmap.pgsize = PAGE;
			get->bitmap.size = sizeof(bits);
			get->bitmap.data = bits;
			break;
		}
		ioctl(w->m->c.fd, cmd, one_in(w, 50) ? (void *)prng(&w->rng) : word);
	}
	return NULL;
}

/* A second container, which holds what the workers map, and lets go of all of it at times */
static void *chaos_beside(void *arg)
{
	struct world *w = arg;
	struct container *c = &w->m->beside.c;
	int first, n;

	while (!stopped() && c->ngroups) {
		some_range(w, w->npages, &first, &n);
		switch (rnd(w, 16)) {
		case 0:
			dma_unmap_all(c);
			break;
		case 1 ... 5:
			dma_unmap(c, OTHER_IOVA + first * PAGE, n * PAGE);
			break;
		default:
			dma_map(c, OTHER_IOVA + first * PAGE,
				(void *)(USER_BASE + rnd(w, args.threads) * GIB +
					 some_user(w, first, n) * PAGE), n * PAGE, RW);
		}
	}
	dma_unmap_all(c);
	return NULL;
}

static void round_threads(__u64 seed, unsigned int nr)
{
	static void *(* const chaos[])(void *arg) = {
		chaos_groups, chaos_bytes, chaos_beside,
	};
	static struct world w[MAX_THREADS + NR_CHAOS];
	static struct machine m;
	unsigned int n = args.threads;

	machine_init(&m, seed);
	for (unsigned int i = 0; i < n + NR_CHAOS; i++) {
		world_init(&w[i], &m, false, i);
		w[i].seed = seed + i * 7777777;
		w[i].rng = w[i].seed;
		w[i].nr_ops = nr / n;
	}
	attach_emulated(&w[0], 0);
	if (args.pt || rnd(&w[0], 4))
		attach_phys(&w[0], 0);
	if (m.has_iommu) {
		if (rnd(&w[0], 2))
			dirty_tracking(&m.c, VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
		stop = false;
		for (unsigned int i = 0; i < n + NR_CHAOS; i++)
			WANT(&w[i], 0, pthread_create(&w[i].thread, NULL,
						      i < n ? worker : chaos[i - n], &w[i]));
		for (unsigned int i = 0; i < n; i++)
			pthread_join(w[i].thread, NULL);
		__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
		for (unsigned int i = n; i < n + NR_CHAOS; i++)
			pthread_join(w[i].thread, NULL);
	}
	round_end(&w[0]);
}

/*
 * Rounds
 */

#define MEMCG	"/sys/fs/cgroup/type1v3_fuzz"	/* where those of a soak run */

/*
 * Each reset of a device that is opened or closed takes a tenth of a second, in
 * which nothing happens: without them.
 */
static void device_resets(bool on)
{
	for (int k = 0; !args.mock && k < NR_PHYS; k++) {
		if (phys_name(k))
			pci_write(phys_name(k), "reset_method", on ? "default" : "\n");
	}
}

/* A device that a round has lost comes back. */
static void repair(void)
{
	const char *bdf = args.mock ? NULL : getenv(ENV_BAR);
	char path[100];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", bdf ?: "");
	if (bdf && access(path, F_OK))
		pci_rescan_bind(bdf);
	device_resets(false);
	/* a warning that is given once is given again */
	fd = open("/sys/kernel/debug/clear_warn_once", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "1", 1) < 0)
			perror("clear_warn_once");
		close(fd);
	}
}

/* Returns true if the round went well. */
static bool run_round(__u64 seed, const bool *left_out, unsigned int nr, bool exact,
		      bool quiet)
{
	int status, null;
	pid_t pid;

	repair();
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		abort();
	if (!pid) {
		if (quiet) {
			null = open("/dev/null", O_WRONLY);
			dup2(null, 1);
			dup2(null, 2);
		}
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (args.soak && file_write(MEMCG "/cgroup.procs", "0"))
			_exit(2);
		/* no operation takes that long */
		alarm(120 + nr / 10);
		if (exact)
			round_exact(seed, left_out, nr);
		else
			round_threads(seed, nr);
		fflush(stdout);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid)
		abort();
	if (WIFSIGNALED(status) && !quiet)
		printf("# the round died of signal %d\n", WTERMSIG(status));
	return !status;
}

static void print_list(const bool *left_out, unsigned int nr)
{
	const char *comma = "";

	for (unsigned int i = 0; i < nr; i++) {
		unsigned int j = i;

		if (left_out[i])
			continue;
		while (j + 1 < nr && !left_out[j + 1])
			j++;
		if (i == j)
			printf("%s%u", comma, i);
		else
			printf("%s%u-%u", comma, i, j);
		comma = ",";
		i = j;
	}
}

/* Leave out as much as still fails: half, a quarter, ... of what is left */
static void shrink(__u64 seed, unsigned int nr)
{
	bool *out = calloc(nr, 1), *try = calloc(nr, 1);
	time_t end = time(NULL) + 60;
	unsigned int left = nr, n;
	bool progress = true;

	if (!out || !try)
		abort();
	for (n = nr / 2; n && time(NULL) < end; n = progress ? n : n / 2) {
		progress = false;
		if (n > left)
			continue;
		for (unsigned int at = 0; at < nr && time(NULL) < end;) {
			unsigned int k = 0, i;

			memcpy(try, out, nr);
			for (i = at; i < nr && k < n; i++) {
				k += !try[i];
				try[i] = true;
			}
			at = i;
			if (k && !run_round(seed, try, nr, true, true)) {
				memcpy(out, try, nr);
				left -= k;
				progress = true;
			}
		}
		if (n == 1 && !progress)
			break;
	}
	printf("# %u of %u operations are enough; once more, with all that is seen:\n",
	       left, nr);
	args.verbose = true;
	if (run_round(seed, out, nr, true, false))
		printf("# this time it went well\n");
	args.verbose = false;
	printf("# again: make fuzz %s%sSEED=%llu ", args.mock ? "IOMMU=mock " : "",
	       args.pt ? "RECORD=pt " : "", seed);
	printf("FUZZ_ARGS='--threads 1 --round %u --verbose --only ", nr);
	print_list(out, nr);
	printf("'\n");
	free(out);
	free(try);
}

static bool *parse_list(const char *list, unsigned int nr)
{
	bool *out = malloc(nr);

	if (!out)
		abort();
	memset(out, true, nr);
	while (*list) {
		unsigned int from = strtoul(list, (char **)&list, 10), to = from;

		if (*list == '-')
			to = strtoul(list + 1, (char **)&list, 10);
		for (; from <= to && from < nr; from++)
			out[from] = false;
		if (*list)
			list++;
	}
	return out;
}

/* A round has failed: how to have it fail again */
static void explain(__u64 seed, bool exact)
{
	printf("# seed %llu failed\n", seed);
	if (exact && !args.only)
		shrink(seed, args.round);
	else if (!exact)
		printf("# again: make fuzz %s%sSEED=%llu FUZZ_ARGS='%s %u %s %lu'\n",
		       args.mock ? "IOMMU=mock " : "", args.pt ? "RECORD=pt " : "", seed,
		       "--threads", args.threads, "--round", args.round);
}

/* A probe counts how often a superpage is cut in the kernel. */
#define TRACEFS	"/sys/kernel/tracing/"

static void probe_cuts(bool on)
{
	if (!on)
		file_write(TRACEFS "events/kprobes/fuzz_cut/enable", "0");
	file_write(TRACEFS "kprobe_events", on ? "p:fuzz_cut vfio_dma_domain_split" : "");
	if (on)
		file_write(TRACEFS "events/kprobes/fuzz_cut/enable", "1");
}

/* Returns -1 where the kernel does not tell. */
static long nr_cuts(void)
{
	FILE *f = fopen(TRACEFS "kprobe_profile", "re");
	long cuts = -1;

	if (f && fscanf(f, " fuzz_cut %ld", &cuts) != 1)
		cuts = -1;
	if (f)
		fclose(f);
	return cuts;
}

/* Rounds of one kind; returns the number of operations that went well. */
static bool run_rounds(bool exact, unsigned long wanted, time_t end)
{
	unsigned long done = 0, said = 0;
	bool *left_out = NULL;
	long cuts = nr_cuts();
	__u64 seed;

	if (args.only && exact)
		left_out = parse_list(args.only, args.round);
	for (seed = args.seed; done < wanted; seed++, done += args.round) {
		if (end && time(NULL) >= end)
			break;
		if (done - said >= 50000) {
			said = done;
			printf("# %lu operations\n", done);
		}
		if (run_round(seed, left_out, args.round, exact, false))
			continue;
		explain(seed, exact);
		return false;
	}
	free(left_out);
	printf("# %lu operations, seeds %llu to %llu\n", done, args.seed, seed - 1);
	if (cuts < 0)
		return done;
	cuts = nr_cuts() - cuts;
	printf("# %ld superpages were cut\n", cuts);
	/* with so many there are some */
	return done && (cuts || done < 20000);
}

/*
 * Soak
 */

/*
 * What must not grow, and by how much it may all the same. That does not depend on
 * how much the load has done: of whatever one operation leaves behind there is too
 * much soon. The rounds are charged for all that they have the kernel allocate:
 * objects, tables, pages. The other numbers are of the whole system.
 */
static const struct {
	const char *name, *file, *key;
	long slack;
} usage[] = {
	{ "charged to the rounds, bytes", MEMCG "/memory.current", "", 4 * PAGE },
	{ "SUnreclaim, KiB", "/proc/meminfo", "SUnreclaim:", 512 },
	{ "SReclaimable, KiB", "/proc/meminfo", "SReclaimable:", 512 },
	{ "PageTables, KiB", "/proc/meminfo", "PageTables:", 128 },
	{ "SecPageTables, KiB", "/proc/meminfo", "SecPageTables:", 0 },
	{ "pinned pages", NULL, NULL, 0 },
};

#define NR_USAGE	(sizeof(usage) / sizeof(*usage))

/* With nothing mapped. What is in use for a moment does not count. */
static void usage_read(long *least)
{
	long now;

	for (int try = 0; try < 4; try++) {
		file_write("/proc/sys/vm/drop_caches", "3");
		slab_drain(true);
		/* has processors give back what they have been charged in advance */
		file_write(MEMCG "/memory.high", "0");
		file_write(MEMCG "/memory.high", "max");
		usleep(500000);
		for (size_t i = 0; i < NR_USAGE; i++) {
			now = usage[i].file ? scan_file(usage[i].file, usage[i].key) :
					      pinned_pages();
			if (!try || now < least[i])
				least[i] = now;
		}
	}
}

static void usage_print(const char *when, const long *now)
{
	printf("# %s:", when);
	for (size_t i = 0; i < NR_USAGE; i++)
		printf(" %ld", now[i]);
	putchar('\n');
	fflush(stdout);
}

/* Rounds for so long, of both kinds in turn */
static bool soak(unsigned long seconds)
{
	long first[NR_USAGE], now[NR_USAGE];
	__u64 seed = args.seed;
	time_t end = 0, said = 0;
	bool good = true;
	char when[32];
	unsigned long n;

	if (file_write("/sys/fs/cgroup/cgroup.subtree_control", "+memory") ||
	    (mkdir(MEMCG, 0755) && errno != EEXIST)) {
		printf("# no memory cgroup: %s\n", strerror(errno));
		return false;
	}
	for (n = 0; !end || time(NULL) < end; n++, seed++) {
		/* what is allocated once is there after a few */
		if (n == 4) {
			usage_read(first);
			usage_print("first", first);
			said = time(NULL);
			end = said + seconds;
		}
		if (!run_round(seed, NULL, args.round, n % 2, false)) {
			explain(seed, n % 2);
			return false;
		}
		if (n < 4 || time(NULL) < said + 60)
			continue;
		said = time(NULL);
		usage_read(now);
		snprintf(when, sizeof(when), "%lu operations", (n + 1) * args.round);
		usage_print(when, now);
	}
	printf("# %lu operations, seeds %llu to %llu\n", n * args.round, args.seed,
	       seed - 1);
	usage_read(now);
	for (size_t i = 0; i < NR_USAGE; i++) {
		bool ok = first[i] >= 0 && now[i] <= first[i] + usage[i].slack;

		printf("# %-30s first %9ld, last %9ld, slack %6ld: %s\n", usage[i].name,
		       first[i], now[i], usage[i].slack, ok ? "ok" : "GROWS");
		good &= ok;
	}
	rmdir(MEMCG);
	return good;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", 1, NULL, 's' }, { "ops", 1, NULL, 'o' },
		{ "round", 1, NULL, 'r' }, { "threads", 1, NULL, 't' },
		{ "seconds", 1, NULL, 'S' }, { "only", 1, NULL, 'O' },
		{ "verbose", 0, NULL, 'v' }, { "soak", 0, NULL, 'k' },
		{ "mock", 0, NULL, 'm' }, { "pt", 0, NULL, 'p' }, { },
	};
	bool one = true, several = true, ok = true, good;
	char kind[16] = "";
	unsigned int nr = 0;
	time_t now;
	int opt;

	args.seed = test_seed();
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			args.seed = strtoull(optarg, NULL, 0);
			break;
		case 'o':
			args.ops = strtoul(optarg, NULL, 0);
			break;
		case 'r':
			args.round = strtoul(optarg, NULL, 0);
			break;
		case 't':
			args.threads = strtoul(optarg, NULL, 0);
			break;
		case 'S':
			args.seconds = strtoul(optarg, NULL, 0);
			break;
		case 'O':
			args.only = optarg;
			args.ops = 1;
			break;
		case 'k':
			args.soak = true;
			break;
		case 'm':
			args.mock = true;
			break;
		case 'p':
			args.pt = true;
			break;
		case 'v':
			args.verbose = true;
			break;
		default:
			return 2;
		}
	}
	if (!args.round || args.threads > MAX_THREADS || optind < argc)
		return 2;
	if (args.threads) {
		one = args.threads == 1;
		several = !one;
	} else {
		args.threads = 3;
	}

	if (args.mock)
		mock_allow_unsafe(true);
	snprintf(kind, sizeof(kind), "%s%s", args.mock ? "_mock" : "", args.pt ? "_pt" : "");
	printf("TAP version 13\n1..%d\n# seed %llu\n",
	       args.soak ? 1 : one + several, args.seed);
	if (args.soak) {
		ok = soak(args.seconds ?: 60);
		device_resets(true);
		printf("%sok 1 fuzz%s.soak\n", ok ? "" : "not ", kind);
		return !ok;
	}
	probe_cuts(true);
	now = time(NULL);
	if (one) {
		good = run_rounds(true, several ? args.ops * 3 / 4 : args.ops,
				  args.seconds ? now + args.seconds / (1 + several) : 0);
		printf("%sok %u fuzz%s.one_thread\n", good ? "" : "not ", ++nr, kind);
		ok &= good;
	}
	if (several) {
		good = run_rounds(false, one ? args.ops / 4 : args.ops,
				  args.seconds ? now + args.seconds : 0);
		printf("%sok %u fuzz%s.several_threads\n", good ? "" : "not ", ++nr,
		       kind);
		ok &= good;
	}
	probe_cuts(false);
	device_resets(true);
	return !ok;
}
