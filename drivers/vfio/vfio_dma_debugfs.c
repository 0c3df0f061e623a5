// SPDX-License-Identifier: GPL-2.0-only
/*
 * debugfs: vfio_type1v3/<number of the container>/
 *
 * Reads containers, and changes nothing.
 */

#include <linux/debugfs.h>
#include <linux/export.h>
#include <linux/iommu.h>
#include <linux/log2.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/string_helpers.h>

#include "vfio_dma_debugfs.h"
#include "vfio_dma_main.h"

static const char *const op_names[] = {
	[VFIO_DMA_OP_MAP] = "map",     [VFIO_DMA_OP_UNMAP] = "unmap",
	[VFIO_DMA_OP_BATCH] = "batch", [VFIO_DMA_OP_DIRTY] = "dirty",
	[VFIO_DMA_OP_VADDR] = "vaddr", [VFIO_DMA_OP_PIN] = "pin",
	[VFIO_DMA_OP_UNPIN] = "unpin", [VFIO_DMA_OP_RW] = "rw",
};

static void show_owner(struct seq_file *m, const struct vfio_dma_owner *owner)
{
	char comm[TASK_COMM_LEN];

	if (!owner->mm) {
		seq_puts(m, "owner 0\n");
		return;
	}
	get_task_comm(comm, owner->task);
	seq_printf(m, "owner %d ", task_tgid_nr(owner->task));
	/* A process chooses its name: it must not look like other lines. */
	seq_escape_str(m, comm, ESCAPE_ANY_NP, NULL);
	seq_putc(m, '\n');
}

static void show_groups(struct seq_file *m, const struct list_head *groups)
{
	struct vfio_dma_group *group;

	list_for_each_entry(group, groups, next)
		seq_printf(m, " %d", iommu_group_id(group->iommu_group));
	seq_putc(m, '\n');
}

/* Containers of one owner that share a ledger show the same. */
static void show_ledger(struct seq_file *m, struct vfio_dma_container *container)
{
	struct vfio_dma_ledger *ledger = container->owner.ledger;

	lockdep_assert_held(&container->lock);

	if (vfio_dma_member_is_alone(&container->member))
		seq_puts(m, "ledger none\n");
	if (!ledger)
		return;
	mutex_lock(&ledger->lock);
	seq_printf(m, "ledger %lu %ld %zu\n", vfio_xa_dma_npages(&ledger->pages),
		   ledger->alone, vfio_xa_dma_footprint(&ledger->pages));
	mutex_unlock(&ledger->lock);
}

static int stat_show(struct seq_file *m, void *unused)
{
	struct vfio_dma_container *container = m->private;
	const struct vfio_dma_op_count *count;
	struct vfio_xa_dma_stats stats;
	struct vfio_dma_domain *domain;
	unsigned int i;

	/* The mutex is held while user space provides memory for a dirty bitmap. */
	if (mutex_lock_interruptible(&container->lock))
		return -ERESTARTSYS;

	seq_puts(m, "# nodes, arrays: number, bytes; map to rw: calls done, calls failed, pages\n");
	seq_puts(m, "# ledger: pages, pages that are not in it, bytes\n");
	show_owner(m, &container->owner);
	list_for_each_entry(domain, &container->space.domains, next) {
		seq_printf(m, "domain %#lx groups",
			   vfio_dma_domain_pgsizes(domain));
		show_groups(m, &to_group_domain(domain)->groups);
	}
	if (!list_empty(&container->emulated)) {
		seq_puts(m, "emulated groups");
		show_groups(m, &container->emulated);
	}

	vfio_dma_record_stats(&container->record, &stats);
	seq_printf(m, "mapped_pages %lu\n",
		   vfio_dma_record_npages(&container->record));
	seq_printf(m, "pinned_pages %lu\n", vfio_dma_held(container));
	seq_printf(m, "charged_pages %lu\n", vfio_dma_charged(container));
	show_ledger(m, container);
	seq_printf(m, "device_pages %lu\n",
		   vfio_xa_dma_npages(&container->extpins));
	seq_printf(m, "device_bytes %zu\n",
		   vfio_xa_dma_footprint(&container->extpins));
	seq_printf(m, "invalid_pages %lu\n", container->vaddr_invalid);
	seq_printf(m, "dirty_tracking %d\n", container->dirty_tracking);
	seq_printf(m, "store_bytes %zu\n",
		   vfio_dma_record_bytes(&container->record));
	seq_printf(m, "nodes %lu %lu\n", stats.nodes, stats.node_bytes);
	seq_printf(m, "arrays %lu %lu\n", stats.arrays, stats.array_bytes);
	for (i = 0; i < VFIO_DMA_NR_OPS; i++) {
		count = &container->counts[i];
		seq_printf(m, "%s %llu %llu %llu\n", op_names[i], count->done,
			   count->failed, count->npages);
	}

	mutex_unlock(&container->lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stat);

/* Runs that are counted before others may have the mutex */
#define RUNS_STEP	1024

/*
 * How many runs there are of each length, from one power of two to the next.
 * Runs that change meanwhile are counted as before or as after the change.
 */
static int runs_show(struct seq_file *m, void *unused)
{
	unsigned long runs[BITS_PER_LONG - PAGE_SHIFT + 1] = {};
	struct vfio_dma_container *container = m->private;
	struct vfio_xa_dma_run run;
	unsigned long first = 0;
	unsigned int i;
	bool more;

	do {
		if (mutex_lock_interruptible(&container->lock))
			return -ERESTARTSYS;
		for (i = 0; i < RUNS_STEP; i++) {
			more = vfio_dma_record_next(&container->record, first,
						    VFIO_XA_DMA_LAST_INDEX,
						    &run);
			if (!more)
				break;
			runs[ilog2(vfio_dma_run_pages(&run))]++;
			more = run.last != VFIO_XA_DMA_LAST_INDEX;
			if (!more)
				break;
			first = run.last + 1;
		}
		mutex_unlock(&container->lock);
		/* An uncontended mutex_lock_interruptible() ignores pending signals. */
		if (signal_pending(current))
			return -ERESTARTSYS;
		cond_resched();
	} while (more);

	seq_puts(m, "# pages of a run: from, to; number of such runs\n");
	for (i = 0; i < ARRAY_SIZE(runs); i++)
		if (runs[i])
			seq_printf(m, "%lu %lu %lu\n", BIT(i),
				   BIT(i) + (BIT(i) - 1), runs[i]);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(runs);

/**
 * vfio_dma_debugfs_add() - show a container
 * @iommu_data: what vfio_dma_container_open() returned
 *
 * Context: Process context, may sleep.
 */
void vfio_dma_debugfs_add(void *iommu_data)
{
	struct vfio_dma_container *container = vfio_dma_container_get(iommu_data);
	char name[21];

	snprintf(name, sizeof(name), "%lu", container->id);
	container->debugfs = debugfs_create_dir(name, vfio_dma_debugfs_root);
	debugfs_create_file("stat", 0400, container->debugfs, container,
			    &stat_fops);
	debugfs_create_file("runs", 0400, container->debugfs, container,
			    &runs_fops);
	vfio_dma_container_put(container);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_debugfs_add, "VFIO_DMA");

/**
 * vfio_dma_debugfs_remove() - show a container no longer
 * @iommu_data: what vfio_dma_container_open() returned; it has not been released
 *
 * Waits for those who are reading, and they may for the container's mutex.
 *
 * Context: Process context, may sleep.
 */
void vfio_dma_debugfs_remove(void *iommu_data)
{
	struct vfio_dma_container *container = vfio_dma_container_get(iommu_data);

	if (!container)
		return;
	debugfs_remove(container->debugfs);
	vfio_dma_container_put(container);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_debugfs_remove, "VFIO_DMA");
