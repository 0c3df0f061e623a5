// SPDX-License-Identifier: GPL-2.0-only
/*
 * Containers: how VFIO finds them, and who owns them
 *
 * VFIO calls ->ioctl() without a lock against ->release(), which another
 * thread causes by removing the last group.  VFIO is therefore given not a
 * pointer but a number to look the container up by: a call that comes too late
 * finds nothing.  No number is used twice.
 *
 * All mappings of a container belong to one address space, the owner, which is
 * why a word of the record needs no pointer to it.  Nothing is mapped or unmapped here.
 */

#include <kunit/visibility.h>
#include <linux/export.h>
#include <linux/module.h>
#include <linux/rculist.h>
#include <linux/sched/task.h>
#include <linux/slab.h>

#include "vfio_dma_container.h"

#define CREATE_TRACE_POINTS
#include "vfio_type1v3_trace.h"

EXPORT_TRACEPOINT_SYMBOL_GPL(type1v3_error);

struct hlist_head vfio_dma_containers[VFIO_DMA_NR_BUCKETS];
static DEFINE_SPINLOCK(containers_lock);
static unsigned long last_id;

/**
 * vfio_dma_container_get() - find a container, and keep it
 * @iommu_data: what vfio_dma_container_open() returned
 *
 * Context: Any.
 * Return: the container, for vfio_dma_container_put(); %NULL if it has been released.
 */
struct vfio_dma_container *vfio_dma_container_get(void *iommu_data)
{
	struct vfio_dma_container *container;

	rcu_read_lock();
	container = vfio_dma_container_find(iommu_data);
	if (container && !refcount_inc_not_zero(&container->users))
		container = NULL;
	rcu_read_unlock();
	return container;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_container_get, "VFIO_DMA");

/**
 * vfio_dma_container_put() - let go of a container
 * @container: the container; the last one who has it frees it
 *
 * Context: Process context, may sleep.
 */
void vfio_dma_container_put(struct vfio_dma_container *container)
{
	struct module *module;

	if (!refcount_dec_and_test(&container->users))
		return;

	module = container->module;
	vfio_xa_dma_destroy(&container->extpins);
	vfio_dma_record_destroy(&container->record);
	vfio_dma_member_quit(&container->member, &container->owner);
	vfio_dma_owner_clear(&container->owner);
	vfio_dma_space_destroy(&container->space);
	mutex_destroy(&container->devices_lock);
	mutex_destroy(&container->lock);
	kfree_rcu(container, rcu);
	/*
	 * VFIO's own reference went with ->release(), a late call has none.  Such a
	 * call returns from here through code that the module may be gone with, as any
	 * call may that VFIO has not made yet when ->release() runs.
	 */
	module_put(module);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_container_put, "VFIO_DMA");

/* Out of line, as mostly the owner stays: that saves 12 instructions of an unmap. */
static noinline void release_owner(struct vfio_dma_container *container)
{
	struct vfio_dma_owner *owner = &container->owner;

	lockdep_assert_held(&container->lock);

	if (trace_type1v3_owner_enabled())
		trace_type1v3_owner(container->id, task_tgid_nr(owner->task), 0,
				    owner->npages);
	vfio_dma_member_quit(&container->member, owner);
	vfio_dma_owner_clear(owner);
}

/**
 * vfio_dma_put_owner() - nobody owns a container without mappings
 * @container: the container
 *
 * The next one to map can be anybody.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_put_owner(struct vfio_dma_container *container)
{
	lockdep_assert_held(&container->lock);

	if (vfio_dma_record_empty(&container->record) && !container->pinning &&
	    container->owner.mm)
		release_owner(container);
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_put_owner);

/* As vfio_dma_become_owner() */
int __vfio_dma_become_owner(struct vfio_dma_container *container)
{
	int ret;

	lockdep_assert_held(&container->lock);

	if (!vfio_dma_has_group(container))
		return -ENODEV;
	if (container->owner.mm)
		return container->owner.mm == current->mm ? 0 : -EPERM;

	vfio_dma_owner_set(&container->owner);
	trace_type1v3_owner(container->id, 0, task_tgid_nr(current), 0);
	ret = vfio_dma_member_join(&container->member, &container->owner);
	if (ret >= 0)
		return ret;
	/* It is charged on its own. */
	trace_type1v3_error(container->id, "ledger", ret);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(__vfio_dma_become_owner);

/**
 * vfio_dma_container_open() - make a container
 * @policy: the personality's parameters
 * @module: the personality, which stays for as long as the container does
 * @kind: what mappings are recorded in
 *
 * Context: Process context, may sleep.
 * Return: what VFIO is to give to all other functions, or ERR_PTR(-ENOMEM).
 */
void *vfio_dma_container_open(const struct vfio_dma_policy *policy,
			      struct module *module,
			      enum vfio_dma_record_kind kind)
{
	struct vfio_dma_container *container;
	int ret;

	container = kzalloc_obj(*container, VFIO_DMA_GFP);
	if (!container)
		return ERR_PTR(-ENOMEM);

	container->policy = policy;
	container->module = module;
	container->member.container = container;
	mutex_init(&container->lock);
	mutex_init(&container->devices_lock);
	refcount_set(&container->users, 1);
	INIT_LIST_HEAD(&container->flights);
	INIT_LIST_HEAD(&container->emulated);
	INIT_LIST_HEAD(&container->devices);
	INIT_LIST_HEAD(&container->releases);
	vfio_xa_dma_init(&container->extpins);
	ret = vfio_dma_record_init(&container->record, kind, &container->space);
	if (ret)
		goto err_free;
	ret = vfio_dma_space_init(&container->space, &container->lock,
				  &container->owner);
	if (ret)
		goto err_record;

	__module_get(module);
	spin_lock(&containers_lock);
	container->id = ++last_id;
	hlist_add_head_rcu(&container->hash,
			   &vfio_dma_containers[container->id % VFIO_DMA_NR_BUCKETS]);
	spin_unlock(&containers_lock);
	return (void *)container->id;

err_record:
	vfio_dma_record_destroy(&container->record);
err_free:
	mutex_destroy(&container->devices_lock);
	mutex_destroy(&container->lock);
	kfree(container);
	return ERR_PTR(ret);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_container_open, "VFIO_DMA");

/**
 * vfio_dma_container_release() - VFIO lets go of a container
 * @iommu_data: what vfio_dma_container_open() returned
 *
 * No group is in it any more.
 *
 * Context: Process context, may sleep.
 */
void vfio_dma_container_release(void *iommu_data)
{
	struct vfio_dma_container *container;

	container = vfio_dma_container_get(iommu_data);
	if (WARN_ON_ONCE(!container))
		return;
	spin_lock(&containers_lock);
	hlist_del_init_rcu(&container->hash);
	spin_unlock(&containers_lock);

	mutex_lock(&container->lock);
	WARN_ON_ONCE(vfio_dma_has_group(container));
	mutex_unlock(&container->lock);

	vfio_dma_container_put(container);
	/* VFIO's own */
	vfio_dma_container_put(container);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_container_release, "VFIO_DMA");
