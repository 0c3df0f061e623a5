/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the type1v3 selftests share: a container with its groups, memory of
 * every kind a program maps, counters of pinned and locked pages, and a small
 * polled NVMe driver that is the DMA engine. A device of vfio_mock_iommu serves as well:
 * the environment then has its name for the PCI address.
 *
 * Functions that return int give 0 or a negative errno unless they say
 * otherwise. None of them prints or fails a test: that is for the tests.
 */
#ifndef TYPE1V3_LIB_H
#define TYPE1V3_LIB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/vfio.h>
#include <linux/vfio_type1v3.h>

#define KIB		1024UL
#define MIB		(1024UL * KIB)
#define GIB		(1024UL * MIB)
#ifndef TYPE1V3_PAGE_KIB
#define TYPE1V3_PAGE_KIB	4	/* of the kernel that is tested */
#endif
#define PAGE		(TYPE1V3_PAGE_KIB * KIB)
#define LEAF		(PAGE / 8 * PAGE)	/* the usual superpage: a table of entries */

#define RW		(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)
#define RO		VFIO_DMA_MAP_FLAG_READ
#define WO		VFIO_DMA_MAP_FLAG_WRITE

/*
 * IOVAs. A 39-bit VT-d has room for all of them, none is near the MSI window,
 * and TEST_IOVA is aligned for every superpage.
 */
#define TEST_IOVA	(128 * GIB)
#define OTHER_IOVA	(256 * GIB)
#define NVME_IOVA	(500 * GIB)
#ifdef __aarch64__
#define MSI_IOVA	0x08000000UL
#else
#define MSI_IOVA	0xfee00000UL
#endif

/* The PCI addresses come from the environment; the run script sets them. */
#define ENV_NVME	"TYPE1V3_NVME0"	/* DMA engine */
#define ENV_NVME2	"TYPE1V3_NVME1"	/* one more, in a group of its own */
#define ENV_STREAM	"TYPE1V3_NVME2"	/* for nvme_stream(): see the run script */
#define ENV_BAR		"TYPE1V3_BAR"	/* device with memory behind BAR 2 */
#define ENV_NOIOMMU	"TYPE1V3_NOIOMMU"	/* a device without an IOMMU */

#define MAX_GROUPS	6

struct container {
	int fd;
	int ngroups;
	struct {
		int fd;
		char bdf[24];
	} group[MAX_GROUPS];
};

/* Every capability of VFIO_IOMMU_GET_INFO, flattened. */
struct container_info {
	__u64 pgsizes;
	__u32 flags;
	bool has_avail, has_migration, has_own, has_granule;
	__u32 avail;
	int nranges;			/* -1: no such capability */
	struct vfio_iova_range range[16];
	struct vfio_iommu_type1v3_info_cap_usage own;
	struct vfio_iommu_type1v3_info_cap_granule granule;
};

bool is_v3(unsigned long type);
bool has_vaddr(unsigned long type);
bool type1_is_old(void);
int wrap_errno(unsigned long type);

void container_init(struct container *c);
int container_open(struct container *c, unsigned long type, const char *bdf);
int container_attach(struct container *c, const char *bdf);
int container_detach(struct container *c, const char *bdf);
int container_device(struct container *c, const char *bdf);
void container_close(struct container *c);
int container_info(struct container *c, struct container_info *info);
int dma_map(struct container *c, __u64 iova, const void *vaddr,
	    __u64 size, __u32 flags);
__s64 dma_unmap(struct container *c, __u64 iova, __u64 size);
int dma_batch(struct container *c, __u32 flags, __u32 nr,
	      struct vfio_iommu_type1v3_batch_entry *entries);
__s64 dma_unmap_all(struct container *c);

enum mem_kind {
	MEM_4K,		/* anonymous, small pages only */
	MEM_THP,	/* anonymous, transparent huge pages only */
	MEM_2M,		/* hugetlbfs, of the size of LEAF */
	MEM_1G,		/* hugetlbfs */
	MEM_SHARED,	/* a shared file, in memory */
};

struct mem {
	__u8 *va;
	size_t size;
	void *base;	/* what to munmap */
	size_t len;
};

int mem_alloc(struct mem *m, enum mem_kind kind, size_t size);
void mem_free(struct mem *m);
int uffd_open(const void *va, size_t size);
int uffd_wait(int fd, const void *page);
int uffd_give(int fd, const void *va, size_t size);
void pattern_fill(void *va, size_t size, __u64 seed);
long pattern_check(const void *va, size_t size, __u64 seed);
__u64 prng(__u64 *state);
__u64 test_seed(void);
bool task_waits_in(int tid, const char *function);

long scan_file(const char *path, const char *key);
long locked_pages(void);
long pinned_pages(void);
int drop_ipc_lock(void);
unsigned long slab_objects(void);
void slab_drain(bool all);
void kernel_log(const char *what, const char *regex);
int file_write(const char *path, const char *value);
int pci_write(const char *bdf, const char *attr, const char *value);
int pci_rescan_bind(const char *bdf);
int module_param(const char *module, const char *name, const char *value);

/* What the IOMMU has been told of a range since the last look, in bytes */
struct iommu_calls {
	__u64 mapped;
	__u64 unmapped;
};

int iommu_trace(bool on);
int iommu_trace_read(__u64 iova, __u64 size, struct iommu_calls *calls);

#define NVME_MAX_PAGES	(512 * KIB / PAGE)	/* of one transfer */

enum probe { PROBE_OK, PROBE_FAULT };

struct nvme_queue {
	__u8 *sq, *cq;
	unsigned int id, tail, head, phase;
};

struct nvme {
	struct container *c;
	int fd;				/* VFIO device */
	__u8 *bar;
	size_t bar_size;
	struct mem mem;			/* queues, PRP list and buffer */
	__u64 iova;			/* of mem */
	unsigned int db_stride;
	struct nvme_queue admin, io;
	__u16 cid;
	unsigned int pending;		/* commands of nvme_stream() */
	bool announced;			/* IOMMU faults */
	bool mock;			/* it is none: reads and writes are its DMA */
};

void nvme_init(struct nvme *n);
int nvme_open(struct nvme *n, struct container *c, const char *bdf,
	      __u64 iova);
int nvme_map(struct nvme *n);
int nvme_reset(struct nvme *n);
void nvme_close(struct nvme *n);
int nvme_dma_write(struct nvme *n, const __u64 *iova, unsigned int npages,
		   const void *data);
int nvme_dma_read(struct nvme *n, const __u64 *iova, unsigned int npages,
		  void *data);
int nvme_stream(struct nvme *n, const __u64 iova[2]);
int nvme_stream_end(struct nvme *n);
int nvme_probe_read(struct nvme *n, __u64 iova);
int nvme_probe_write(struct nvme *n, __u64 iova, void *vaddr);

#endif
