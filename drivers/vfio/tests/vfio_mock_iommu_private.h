/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of vfio_mock_iommu share; vfio_mock_iommu_main.c says what it is.
 */
#ifndef __VFIO_MOCK_IOMMU_PRIVATE_H
#define __VFIO_MOCK_IOMMU_PRIVATE_H

#include <linux/bug.h>
#include <linux/iommu.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/mutex.h>
#include <linux/platform_device.h>
#include <linux/rbtree.h>
#include <linux/rwsem.h>
#include <linux/types.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "vfio_mock_iommu.h"

struct vfio_device;

/**
 * struct mock_iommu - an IOMMU
 * @iommu: what the IOMMU core knows of it
 * @kref: its file and its domains
 * @id: number of its name
 * @config: how it behaves; constant
 * @lock: protects @state, @break_at, and all domains and devices
 * @state: what has been asked of it
 * @break_at: when it fails next
 * @unmap_ends: the next call of unmap_pages() does nothing
 * @devices: the devices behind it, %NULL if they are gone; protected by @control
 * @control: serialises calls of the file
 * @queue: page requests of its devices; %NULL if they make none
 * @work: removes it when the file is closed
 */
struct mock_iommu {
	struct iommu_device iommu;
	struct kref kref;
	int id;
	struct vfio_mock_iommu_create config;
	struct mutex lock;	/* the members up to @unmap_ends; domains, devices */
	struct vfio_mock_iommu_state state;
	struct vfio_mock_iommu_break break_at;
	bool unmap_ends;
	struct mock_device *devices[VFIO_MOCK_IOMMU_MAX_DEVICES];
	struct mutex control;	/* @devices */
	struct iopf_queue *queue;
	struct work_struct work;
};

/**
 * struct mock_device - a device behind an IOMMU
 * @iommu: the IOMMU
 * @pdev: its platform device
 * @domain: where its DMA goes, %NULL is nowhere; protected by the IOMMU's lock
 * @logged: units of VFIO_MOCK_IOMMU_PAGE that it has written to since the last report;
 *	has a lock of its own
 * @logging: it keeps @logged; protected by the IOMMU's lock
 * @suspended: it does no DMA; likewise
 * @waits: struct mock_wait of DMA that waits for a page; likewise
 * @last_request: number of the last request for a page; likewise
 * @armed: protects @faults; held for reading while a request is reported
 * @faults: who answers them, %NULL is nobody
 */
struct mock_device {
	struct mock_iommu *iommu;
	struct platform_device *pdev;
	struct mock_domain *domain;
	struct xarray logged;
	bool logging;
	bool suspended;
	struct list_head waits;
	u32 last_request;
	struct rw_semaphore armed;
	struct mock_faults *faults;
};

/**
 * struct mock_domain - an IO page table
 * @domain: what the IOMMU core knows of it
 * @iommu: whose it is
 * @leaves: struct mock_leaf by address
 * @stale: leaves that are unmapped, until the IOTLB is synchronised
 * @nr_devices: devices whose DMA goes there
 * @nr_leaves: number of @leaves
 * @nr_trials: how many of them map memory of the kernel
 * @tracking: dirty bits are set
 */
struct mock_domain {
	struct iommu_domain domain;
	struct mock_iommu *iommu;
	struct rb_root leaves;
	struct list_head stale;
	unsigned int nr_devices;
	unsigned long nr_leaves;
	unsigned long nr_trials;
	bool tracking;
};

/**
 * struct mock_leaf - an entry of an IO page table
 * @node: in &mock_domain.leaves
 * @stale: in &mock_domain.stale
 * @first: first IOVA
 * @last: last IOVA
 * @phys: what @first translates to
 * @prot: IOMMU_READ, IOMMU_WRITE, IOMMU_MMIO
 * @trial: memory of the kernel
 * @dirty: a device has written to it
 * @clean_unseen: it was dirty, and the IOTLB still takes it for that
 */
struct mock_leaf {
	struct rb_node node;
	struct list_head stale;
	u64 first;
	u64 last;
	phys_addr_t phys;
	int prot;
	bool trial;
	bool dirty;
	bool clean_unseen;
};

/* Whoever is wrong once is so again: a few warnings will do. */
#define mock_error(iommu, fmt, ...)					\
	do {								\
		struct mock_iommu *__iommu = iommu;			\
									\
		lockdep_assert_held(&__iommu->lock);			\
		WARN(__iommu->state.errors++ < 8,			\
		     VFIO_MOCK_IOMMU_NAME ": " fmt "\n", ##__VA_ARGS__);	\
	} while (0)

/* vfio_mock_iommu_domain.c */
extern const struct iommu_domain_ops vfio_mock_domain_ops;
extern const struct iommu_dirty_ops vfio_mock_dirty_ops;
extern struct iommu_domain vfio_mock_blocked_domain;

struct mock_leaf *vfio_mock_leaf_at(struct mock_domain *domain, u64 iova);
u64 vfio_mock_leaf_size(const struct mock_leaf *leaf);
bool vfio_mock_is_memory(phys_addr_t phys, int prot);
bool vfio_mock_is_pinned(phys_addr_t phys, int prot);
struct iommu_domain *vfio_mock_domain_alloc(struct device *dev);

/* vfio_mock_iommu_device.c */
extern struct platform_driver vfio_mock_driver;

/* vfio_mock_iommu_fault.c */
int vfio_mock_page_request(struct mock_device *device, u64 iova, bool write);
void vfio_mock_page_response(struct device *dev, struct iopf_fault *fault,
			     struct iommu_page_response *response);
int vfio_mock_fault_handler(struct iopf_group *group);
int vfio_mock_faults_open(struct vfio_device *vdev, struct mock_device *device);
void vfio_mock_faults_close(struct mock_device *device);

/* vfio_mock_iommu_main.c */
bool vfio_mock_is_ours(struct device *dev);
void vfio_mock_iommu_free(struct kref *kref);

#endif
