// SPDX-License-Identifier: GPL-2.0-only
/*
 * A polled NVMe driver: the DMA engine of the type1v3 selftests.
 *
 * One command is in flight at a time. "The device writes memory" is an NVMe
 * Read into it, "the device reads memory" an NVMe Write from it; the data goes
 * through the first blocks of namespace 1, whose contents are lost.
 *
 * An emulated controller does not report a fault of its data transfers: writes
 * are dropped and reads give anything. Two accesses it does report, and the
 * probes are made of them: the fetch of a PRP list (the command ends with Data
 * Transfer Error) and the posting of a completion (the controller raises
 * CSTS.CFS). Both happen at an address of our choice.
 */
#include <assert.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "type1v3_lib.h"

#define REG_CAP		0x00
#define REG_INTMS	0x0c
#define REG_CC		0x14
#define REG_CSTS	0x1c
#define REG_AQA		0x24
#define REG_ASQ		0x28
#define REG_ACQ		0x30
#define REG_DOORBELL	0x1000

/* pages of our size, entries of 64 and 16 bytes */
#define CC_ENABLE	(1 | (__builtin_ctzl(PAGE) - 12) << 7 | 6 << 16 | 4 << 20)
#define CSTS_RDY	1
#define CSTS_CFS	2

#define ADMIN_DELETE_SQ	0x00
#define ADMIN_CREATE_SQ	0x01
#define ADMIN_DELETE_CQ	0x04
#define ADMIN_CREATE_CQ	0x05
#define CMD_FLUSH	0x00
#define CMD_WRITE	0x01
#define CMD_READ	0x02

#define STATUS_DATA_TRANSFER_ERROR	0x04
#define STATUS_MASK			0x7ff	/* type and code */

#define QUEUE_SIZE	16
#define PROBE_QID	2
#define BLOCK		512

/*
 * What IOMMUs say of DMA to where nothing is mapped. Tests have the device do
 * that, and look at what comes of it: from nvme_open() to nvme_close() it is no
 * surprise.
 */
static const char faults[] =
	"DMAR: .*fault|AMD-Vi: Event|arm-smmu.*: event|virtio_iommu .*fault from EP";

/* Layout of the driver's own memory, in pages */
enum {
	P_ASQ, P_ACQ, P_SQ, P_CQ, P_PROBE_SQ, P_LIST,
	P_BUFFER = 8,
	P_TOTAL = P_BUFFER + NVME_MAX_PAGES,
};

struct command {
	__u8 opcode, flags;
	__u16 cid;
	__u32 nsid;
	__u64 rsvd, mptr, prp1, prp2;
	__u32 cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};

struct completion {
	__u32 result, rsvd;
	__u16 sq_head, sq_id, cid, status;
};

static_assert(sizeof(struct command) == 64, "NVMe submission entry");
static_assert(sizeof(struct completion) == 16, "NVMe completion entry");

static __u32 reg_read(struct nvme *n, unsigned int reg)
{
	return __atomic_load_n((__u32 *)(n->bar + reg), __ATOMIC_RELAXED);
}

static void reg_write(struct nvme *n, unsigned int reg, __u32 value)
{
	__atomic_store_n((__u32 *)(n->bar + reg), value, __ATOMIC_RELAXED);
}

static void reg_write64(struct nvme *n, unsigned int reg, __u64 value)
{
	reg_write(n, reg, value);
	reg_write(n, reg + 4, value >> 32);
}

static __u64 page_iova(struct nvme *n, unsigned int page)
{
	return n->iova + page * PAGE;
}

static void *page_va(struct nvme *n, unsigned int page)
{
	return n->mem.va + page * PAGE;
}

static __u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static void ring(struct nvme *n, unsigned int index, __u32 value)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	reg_write(n, REG_DOORBELL + index * n->db_stride, value);
}

static void queue_init(struct nvme *n, struct nvme_queue *q, unsigned int id,
		       unsigned int sq_page, unsigned int cq_page)
{
	q->sq = page_va(n, sq_page);
	q->cq = page_va(n, cq_page);
	q->id = id;
	q->tail = 0;
	q->head = 0;
	q->phase = 1;
	memset(q->cq, 0, PAGE);
}

static void submit(struct nvme *n, struct nvme_queue *q, struct command *cmd)
{
	cmd->cid = ++n->cid;
	memcpy(q->sq + q->tail * sizeof(*cmd), cmd, sizeof(*cmd));
	q->tail = (q->tail + 1) % QUEUE_SIZE;
	ring(n, 2 * q->id, q->tail);
}

/*
 * Wait until the phase bit of a completion entry shows.  -EIO: the controller
 * could not post it.
 */
static int wait_phase(struct nvme *n, struct completion *cqe,
		      unsigned int phase)
{
	__u64 deadline = now_ms() + 300000;

	for (unsigned int i = 1; ; i++) {
		if ((__atomic_load_n(&cqe->status, __ATOMIC_ACQUIRE) & 1) == phase)
			return 0;
		if (i % 256)
			continue;
		if (reg_read(n, REG_CSTS) & CSTS_CFS)
			return -EIO;
		if (now_ms() > deadline)
			return -ETIMEDOUT;
	}
}

/* Returns the NVMe status, 0 for success, or a negative errno. */
static int execute(struct nvme *n, struct nvme_queue *q, struct command *cmd)
{
	struct completion *cqe = (void *)(q->cq + q->head * sizeof(*cqe));
	int ret;

	submit(n, q, cmd);
	ret = wait_phase(n, cqe, q->phase);
	if (ret)
		return ret;

	if (cqe->cid != n->cid)
		return -EPROTO;
	ret = cqe->status >> 1 & STATUS_MASK;
	q->head = (q->head + 1) % QUEUE_SIZE;
	if (!q->head)
		q->phase ^= 1;
	ring(n, 2 * q->id + 1, q->head);
	return ret;
}

static int create_queues(struct nvme *n, unsigned int id, unsigned int sq_page,
			 __u64 cq_iova)
{
	struct command cq = {
		.opcode = ADMIN_CREATE_CQ,
		.prp1 = cq_iova,
		.cdw10 = id | (QUEUE_SIZE - 1) << 16,
		.cdw11 = 1,
	};
	struct command sq = {
		.opcode = ADMIN_CREATE_SQ,
		.prp1 = page_iova(n, sq_page),
		.cdw10 = id | (QUEUE_SIZE - 1) << 16,
		.cdw11 = 1 | id << 16,
	};

	return execute(n, &n->admin, &cq) ?: execute(n, &n->admin, &sq);
}

static int delete_queues(struct nvme *n, unsigned int id)
{
	struct command sq = { .opcode = ADMIN_DELETE_SQ, .cdw10 = id };
	struct command cq = { .opcode = ADMIN_DELETE_CQ, .cdw10 = id };

	return execute(n, &n->admin, &sq) ?: execute(n, &n->admin, &cq);
}

static int wait_ready(struct nvme *n, __u32 ready)
{
	__u64 deadline = now_ms() + 300000;

	while ((reg_read(n, REG_CSTS) & CSTS_RDY) != ready) {
		if (now_ms() > deadline)
			return -ETIMEDOUT;
	}
	return 0;
}

/**
 * nvme_reset() - Reset the controller and set its queues up
 * @n: controller, also one that has failed fatally
 */
int nvme_reset(struct nvme *n)
{
	int ret;

	reg_write(n, REG_CC, 0);
	ret = wait_ready(n, 0);
	if (ret)
		return ret;

	queue_init(n, &n->admin, 0, P_ASQ, P_ACQ);
	queue_init(n, &n->io, 1, P_SQ, P_CQ);
	reg_write(n, REG_INTMS, ~0);
	reg_write(n, REG_AQA, (QUEUE_SIZE - 1) << 16 | (QUEUE_SIZE - 1));
	reg_write64(n, REG_ASQ, page_iova(n, P_ASQ));
	reg_write64(n, REG_ACQ, page_iova(n, P_ACQ));
	reg_write(n, REG_CC, CC_ENABLE);
	ret = wait_ready(n, CSTS_RDY);
	if (ret)
		return ret;

	ret = create_queues(n, 1, P_SQ, page_iova(n, P_CQ));
	return ret > 0 ? -EPROTO : ret;
}

/**
 * nvme_init() - Make a controller that nvme_close() accepts
 * @n: controller
 */
void nvme_init(struct nvme *n)
{
	memset(n, 0, sizeof(*n));
	n->fd = -1;
}

/**
 * nvme_map() - Map the driver's own memory, once more after an unmap of all
 * @n: controller
 */
int nvme_map(struct nvme *n)
{
	if (n->mock)
		return 0;
	return dma_map(n->c, n->iova, n->mem.va, n->mem.size, RW);
}

static int enable_bus_master(struct nvme *n)
{
	struct vfio_region_info info = {
		.argsz = sizeof(info),
		.index = VFIO_PCI_CONFIG_REGION_INDEX,
	};
	__u16 cmd;

	if (ioctl(n->fd, VFIO_DEVICE_GET_REGION_INFO, &info))
		return -errno;
	if (pread(n->fd, &cmd, 2, info.offset + PCI_COMMAND) != 2)
		return -EIO;
	cmd |= PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY;
	if (pwrite(n->fd, &cmd, 2, info.offset + PCI_COMMAND) != 2)
		return -EIO;
	return 0;
}

/* PCI addresses have colons. */
static bool is_mock(const char *bdf)
{
	return !strchr(bdf, ':');
}

/**
 * nvme_open() - Open a controller and make it ready
 * @n: controller, to be closed with nvme_close() even after an error
 * @c: container that holds the controller's group
 * @bdf: PCI address
 * @iova: where the driver's own memory goes, below 1 MiB of it
 */
int nvme_open(struct nvme *n, struct container *c, const char *bdf,
	      __u64 iova)
{
	struct vfio_region_info info = {
		.argsz = sizeof(info),
		.index = VFIO_PCI_BAR0_REGION_INDEX,
	};
	int ret;

	nvme_init(n);
	n->c = c;
	n->iova = iova;
	n->mock = is_mock(bdf);
	if (n->mock) {
		n->fd = container_device(c, bdf);
		return n->fd < 0 ? n->fd : 0;
	}
	n->announced = true;
	kernel_log("vm-may", faults);
	ret = mem_alloc(&n->mem, MEM_4K, P_TOTAL * PAGE);
	if (ret)
		return ret;
	ret = nvme_map(n);
	if (ret)
		return ret;

	n->fd = container_device(c, bdf);
	if (n->fd < 0)
		return n->fd;
	if (ioctl(n->fd, VFIO_DEVICE_GET_REGION_INFO, &info))
		return -errno;
	n->bar_size = info.size;
	n->bar = mmap(NULL, n->bar_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		      n->fd, info.offset);
	if (n->bar == MAP_FAILED) {
		n->bar = NULL;
		return -errno;
	}
	n->db_stride = 4 << (reg_read(n, REG_CAP + 4) & 0xf);

	ret = enable_bus_master(n);
	return ret ?: nvme_reset(n);
}

/**
 * nvme_close() - Stop a controller and close it
 * @n: controller
 *
 * The driver's own memory stays mapped in the container.
 */
void nvme_close(struct nvme *n)
{
	if (n->bar) {
		reg_write(n, REG_CC, 0);
		wait_ready(n, 0);
		munmap(n->bar, n->bar_size);
	}
	if (n->fd >= 0)
		close(n->fd);
	mem_free(&n->mem);
	if (n->announced)
		kernel_log("vm-end", faults);
	nvme_init(n);
}

/* DMA of a mock device, page by page */
static int mock_transfer(struct nvme *n, const __u64 *iova, unsigned int npages, void *data,
			 bool write)
{
	ssize_t ret;

	for (unsigned int i = 0; i < npages; i++, data += PAGE) {
		ret = write ? pwrite(n->fd, data, PAGE, iova[i]) :
			      pread(n->fd, data, PAGE, iova[i]);
		if (ret != (ssize_t)PAGE)
			return ret < 0 ? -errno : -EIO;
	}
	return 0;
}

/* @done: what a read or a write of a mock device gave */
static int mock_probe(ssize_t done)
{
	if (done > 0)
		return PROBE_OK;
	return errno == ENXIO || errno == EACCES ? PROBE_FAULT : -errno;
}

/* Move @npages between the first blocks and memory at these IOVAs. */
static int transfer(struct nvme *n, __u8 opcode, const __u64 *iova,
		    unsigned int npages)
{
	struct command cmd = {
		.opcode = opcode,
		.nsid = 1,
		.prp1 = iova[0],
		.cdw12 = npages * PAGE / BLOCK - 1,
	};
	int ret;

	if (npages == 2) {
		cmd.prp2 = iova[1];
	} else if (npages > 2) {
		cmd.prp2 = page_iova(n, P_LIST);
		memcpy(page_va(n, P_LIST), iova + 1, (npages - 1) * 8);
	}
	ret = execute(n, &n->io, &cmd);
	return ret > 0 ? -EIO : ret;
}

static int transfer_buffer(struct nvme *n, __u8 opcode, unsigned int npages)
{
	__u64 iova[NVME_MAX_PAGES];

	for (unsigned int i = 0; i < npages; i++)
		iova[i] = page_iova(n, P_BUFFER + i);
	return transfer(n, opcode, iova, npages);
}

/**
 * nvme_dma_write() - Let the device write to memory
 * @n: controller
 * @iova: of each page, aligned
 * @npages: pages, NVME_MAX_PAGES at most
 * @data: what to write, @npages long
 *
 * Return: 0 or a negative errno. Success does not tell that all of it has
 * arrived.
 */
int nvme_dma_write(struct nvme *n, const __u64 *iova, unsigned int npages,
		   const void *data)
{
	if (n->mock)
		return mock_transfer(n, iova, npages, (void *)data, true);
	memcpy(page_va(n, P_BUFFER), data, npages * PAGE);
	return transfer_buffer(n, CMD_WRITE, npages) ?:
	       transfer(n, CMD_READ, iova, npages);
}

/**
 * nvme_dma_read() - Let the device read memory
 * @n: controller
 * @iova: of each page, aligned
 * @npages: pages, NVME_MAX_PAGES at most
 * @data: where what it has read goes, @npages long
 *
 * Return: 0 or a negative errno.
 */
int nvme_dma_read(struct nvme *n, const __u64 *iova, unsigned int npages,
		  void *data)
{
	int ret;

	if (n->mock)
		return mock_transfer(n, iova, npages, data, false);
	ret = transfer(n, CMD_WRITE, iova, npages);
	if (ret)
		return ret;
	memset(page_va(n, P_BUFFER), 0xa5, npages * PAGE);
	ret = transfer_buffer(n, CMD_READ, npages);
	if (!ret)
		memcpy(data, page_va(n, P_BUFFER), npages * PAGE);
	return ret;
}

static int reap(struct nvme *n)
{
	struct nvme_queue *q = &n->io;
	struct completion *cqe = (void *)(q->cq + q->head * sizeof(*cqe));
	int ret = wait_phase(n, cqe, q->phase);

	if (ret)
		return ret;
	n->pending--;
	q->head = (q->head + 1) % QUEUE_SIZE;
	if (!q->head)
		q->phase ^= 1;
	ring(n, 2 * q->id + 1, q->head);
	return 0;
}

/**
 * nvme_stream() - Let the device write to memory without end
 * @n: controller
 * @iova: of two pages, which need not be mapped
 *
 * The device writes what is on the disk. It does so in its own time: only when
 * its queue is full the call waits, for an earlier write. Nothing else may be
 * asked of the controller before nvme_stream_end().
 *
 * Return: 0 or a negative errno.
 */
int nvme_stream(struct nvme *n, const __u64 iova[2])
{
	struct command cmd = {
		.opcode = CMD_READ,
		.nsid = 1,
		.prp1 = iova[0],
		.prp2 = iova[1],
		.cdw12 = 2 * PAGE / BLOCK - 1,
	};

	/* it has nothing of its own time */
	if (n->mock)
		return -EOPNOTSUPP;
	submit(n, &n->io, &cmd);
	n->pending++;
	return n->pending < QUEUE_SIZE - 1 ? 0 : reap(n);
}

/**
 * nvme_stream_end() - Wait until the device has written all
 * @n: controller
 *
 * Return: 0 or a negative errno.
 */
int nvme_stream_end(struct nvme *n)
{
	int ret = 0;

	while (n->pending && !ret)
		ret = reap(n);
	return ret;
}

/**
 * nvme_probe_read() - Can the device read here?
 * @n: controller
 * @iova: aligned
 *
 * The page is used as a PRP list of two entries. What they hold only decides
 * what the device reads next, and that goes nowhere.
 *
 * Return: PROBE_OK, PROBE_FAULT, or a negative errno.
 */
int nvme_probe_read(struct nvme *n, __u64 iova)
{
	struct command cmd = {
		.opcode = CMD_WRITE,
		.nsid = 1,
		.prp1 = page_iova(n, P_BUFFER),
		.prp2 = iova,
		.cdw12 = 3 * PAGE / BLOCK - 1,
	};
	__u8 data[16];
	int ret;

	if (n->mock)
		return mock_probe(pread(n->fd, data, sizeof(data), iova));
	ret = execute(n, &n->io, &cmd);
	if (ret < 0)
		return ret;
	return ret == STATUS_DATA_TRANSFER_ERROR ? PROBE_FAULT : PROBE_OK;
}

/**
 * nvme_probe_write() - Can the device write here?
 * @n: controller
 * @iova: aligned
 * @vaddr: the page that is there, or was, with 16 readable bytes
 *
 * The page is used as a completion queue; its first 16 bytes change and are put
 * back.
 *
 * Return: PROBE_OK, PROBE_FAULT, or a negative errno.
 */
int nvme_probe_write(struct nvme *n, __u64 iova, void *vaddr)
{
	struct nvme_queue q = { .sq = page_va(n, P_PROBE_SQ), .id = PROBE_QID };
	struct command cmd = { .opcode = CMD_FLUSH, .nsid = 1 };
	struct completion *cqe = vaddr;
	struct completion saved;
	int ret;

	memcpy(&saved, vaddr, sizeof(saved));
	if (n->mock)
		return mock_probe(pwrite(n->fd, &saved, sizeof(saved), iova));
	ret = create_queues(n, PROBE_QID, P_PROBE_SQ, iova);
	if (ret)
		return ret > 0 ? -EPROTO : ret;

	/* the phase bit of a fresh queue's first completion is one */
	if (saved.status & 1)
		cqe->status = saved.status & ~1;
	submit(n, &q, &cmd);
	ret = wait_phase(n, cqe, 1);
	if (ret == -EIO) {
		if (saved.status & 1)
			cqe->status = saved.status;
		if (memcmp(vaddr, &saved, sizeof(saved)))
			return -EPROTO;
		ret = nvme_reset(n);
		return ret ?: PROBE_FAULT;
	}
	if (ret)
		return ret;

	memcpy(vaddr, &saved, sizeof(saved));
	ret = delete_queues(n, PROBE_QID);
	return ret ? -EPROTO : PROBE_OK;
}
