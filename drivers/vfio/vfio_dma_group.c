// SPDX-License-Identifier: GPL-2.0-only
/*
 * Groups that come and go
 *
 * A group with an IOMMU shares the domain of a group whose IOMMU is of the same kind,
 * or brings a domain of its own.  A domain is in the container from when it has all
 * translations until they have been taken from it.  Each change counts as an epoch, by
 * which a call that has dropped the mutex learns of it.
 *
 * Nothing is mapped here but by vfio_dma_replay().
 */

#include <kunit/visibility.h>
#include <linux/export.h>
#include <linux/iommu.h>
#include <linux/slab.h>

#include "vfio_dma_group.h"
#include "vfio_dma_iommu.h"
#include "vfio_dma_map.h"
#include "vfio_dma_extpin.h"
#include "vfio_dma_ranges.h"
#include "vfio_dma_replay.h"
#include "vfio_dma_unmap.h"
#include "vfio_type1v3_trace.h"

/**
 * vfio_dma_find_group() - find a group
 * @container: the container
 * @iommu_group: the group
 * @domain: set to the domain it is attached to, %NULL for an emulated group
 *
 * Context: Caller holds the container's mutex.
 * Return: the group, %NULL if it is not in the container.
 */
struct vfio_dma_group *
vfio_dma_find_group(struct vfio_dma_container *container,
		    struct iommu_group *iommu_group,
		    struct vfio_dma_group_domain **domain)
{
	struct vfio_dma_group *group;
	struct vfio_dma_domain *d;

	lockdep_assert_held(&container->lock);

	list_for_each_entry(d, &container->space.domains, next) {
		*domain = to_group_domain(d);
		list_for_each_entry(group, &(*domain)->groups, next)
			if (group->iommu_group == iommu_group)
				return group;
	}

	*domain = NULL;
	list_for_each_entry(group, &container->emulated, next)
		if (group->iommu_group == iommu_group)
			return group;
	return NULL;
}
EXPORT_SYMBOL_IF_KUNIT(vfio_dma_find_group);

/* Move the group to a domain of the same kind, if there is one. */
static struct vfio_dma_group_domain *
share_domain(struct vfio_dma_container *container,
	     struct vfio_dma_group_domain *domain,
	     struct iommu_group *iommu_group, int *ret)
{
	struct vfio_dma_domain *d;

	lockdep_assert_held(&container->lock);

	*ret = 0;
	list_for_each_entry(d, &container->space.domains, next) {
		if (d->domain->ops != domain->dma.domain->ops ||
		    d->domain->dirty_ops != domain->dma.domain->dirty_ops ||
		    to_group_domain(d)->coherent != domain->coherent)
			continue;
		/*
		 * The IOMMU of @d failed to record.  Groups that write only where they
		 * have pinned may stay there, but this one would write unseen.
		 */
		if (container->dirty_tracking == VFIO_DMA_TRACK_HARDWARE &&
		    !d->tracking)
			continue;

		vfio_dma_iommu_detach(domain->dma.domain, iommu_group);
		if (!vfio_dma_iommu_attach(d->domain, iommu_group))
			return to_group_domain(d);
		*ret = vfio_dma_iommu_attach(domain->dma.domain, iommu_group);
		if (*ret)
			return NULL;
	}
	return NULL;
}

/* May the group, whose domain can translate @ranges, join what the container has? */
static int check_domain(struct vfio_dma_container *container,
			const struct vfio_dma_domain *domain,
			struct iommu_group *iommu_group,
			const struct vfio_dma_ranges *ranges)
{
	unsigned long pgsizes = container->space.pgsize_bitmap &
				vfio_dma_domain_pgsizes(domain);

	lockdep_assert_held(&container->lock);

	if (!pgsizes ||
	    !vfio_dma_ranges_hold(container, ranges, pgsizes & -pgsizes))
		return -EINVAL;
	if (ranges->sw_msi &&
	    !vfio_dma_record_tells_apart(&container->record, ranges->msi_base,
					 ranges->msi_size))
		return -EINVAL;

	if (!container->policy->allow_unsafe_interrupts &&
	    !vfio_dma_iommu_isolated_msi(iommu_group)) {
		pr_warn("vfio_iommu_type1v3: no interrupt remapping; the module parameter allow_unsafe_interrupts overrides this check\n");
		return -EPERM;
	}

	/* The promise of the IOMMUs' bits is that each domain can record. */
	if (container->dirty_tracking == VFIO_DMA_TRACK_HARDWARE &&
	    !vfio_dma_domain_can_track(domain))
		return -EBUSY;
	return 0;
}

/* Have a domain that is not shared translate what the container has. */
static int start_domain(struct vfio_dma_container *container,
			struct vfio_dma_domain *domain,
			const struct vfio_dma_ranges *ranges)
{
	dma_addr_t iova;
	int ret;

	lockdep_assert_held(&container->lock);

	/* Nothing can be written to yet. */
	if (vfio_dma_dirty_is_recorded(container))
		vfio_dma_domain_track(domain, true);
	if (container->dirty_tracking == VFIO_DMA_TRACK_HARDWARE &&
	    !domain->tracking)
		return -EBUSY;

	if (vfio_dma_ranges_probe(ranges, domain, &iova) &&
	    !vfio_dma_iommu_probe(domain, iova))
		return -EIO;

	if (ranges->sw_msi) {
		ret = vfio_dma_iommu_msi_cookie(domain->domain, ranges->msi_base);
		if (ret && ret != -ENODEV)
			return ret;
	}
	return vfio_dma_replay(container, domain);
}

/* A domain of its own for a group, which is not attached to it yet */
static struct vfio_dma_group_domain *make_domain(struct iommu_group *iommu_group)
{
	struct vfio_dma_group_domain *domain = kzalloc_obj(*domain, VFIO_DMA_GFP);
	struct iommu_domain *iommu_domain;

	if (!domain)
		return ERR_PTR(-ENOMEM);
	iommu_domain = vfio_dma_iommu_alloc(iommu_group);
	if (IS_ERR_OR_NULL(iommu_domain)) {
		kfree(domain);
		return iommu_domain ? ERR_CAST(iommu_domain) : ERR_PTR(-ENODEV);
	}
	INIT_LIST_HEAD(&domain->groups);
	vfio_dma_domain_init(&domain->dma, iommu_domain);
	return domain;
}

static void free_domain(struct vfio_dma_group_domain *domain)
{
	iommu_domain_free(domain->dma.domain);
	kfree(domain);
}

static struct vfio_dma_group *make_group(struct iommu_group *iommu_group,
					 bool dirties_unseen)
{
	struct vfio_dma_group *group = kzalloc_obj(*group, VFIO_DMA_GFP);

	if (!group)
		return NULL;
	group->iommu_group = iommu_group;
	group->dirties_unseen = dirties_unseen;
	return group;
}

static int attach_physical(struct vfio_dma_container *container,
			   struct iommu_group *iommu_group)
{
	struct vfio_dma_group_domain *domain, *shared;
	struct iommu_domain *iommu_domain;
	struct vfio_dma_ranges ranges;
	struct vfio_dma_group *group;
	int ret;

	lockdep_assert_held(&container->lock);

	group = make_group(iommu_group, true);
	if (!group)
		return -ENOMEM;
	domain = make_domain(iommu_group);
	ret = PTR_ERR_OR_ZERO(domain);
	if (ret)
		goto err_free_group;
	iommu_domain = domain->dma.domain;

	ret = vfio_dma_iommu_attach(iommu_domain, iommu_group);
	if (ret)
		goto err_free_domain;

	ret = vfio_dma_ranges_make(container, iommu_domain, iommu_group,
				   &ranges);
	if (ret)
		goto err_detach;

	ret = check_domain(container, &domain->dma, iommu_group, &ranges);
	if (ret)
		goto err_ranges;

	/* No-snoop transactions of a device bypass what KVM knows of caches. */
	if (iommu_domain->ops->enforce_cache_coherency)
		domain->coherent =
			iommu_domain->ops->enforce_cache_coherency(iommu_domain);

	shared = share_domain(container, domain, iommu_group, &ret);
	if (shared) {
		list_add(&group->next, &shared->groups);
		vfio_dma_ranges_set(container, &ranges);
		free_domain(domain);
		return 0;
	}
	if (ret) {
		kvfree(ranges.ranges);
		goto err_free_domain;
	}

	ret = start_domain(container, &domain->dma, &ranges);
	if (ret)
		goto err_ranges;

	list_add(&group->next, &domain->groups);
	vfio_dma_space_add(&container->space, &domain->dma);
	vfio_dma_ranges_set(container, &ranges);
	return 0;

err_ranges:
	kvfree(ranges.ranges);
err_detach:
	vfio_dma_iommu_detach(iommu_domain, iommu_group);
err_free_domain:
	free_domain(domain);
err_free_group:
	kfree(group);
	return ret;
}

/* An emulated device has no IOMMU and writes only where it has pinned. */
static int attach_emulated(struct vfio_dma_container *container,
			   struct iommu_group *iommu_group)
{
	struct vfio_dma_group *group;

	lockdep_assert_held(&container->lock);

	/* Drivers of emulated devices reach memory by vaddr. */
	if (!vfio_dma_record_has_vaddr(&container->record))
		return -EOPNOTSUPP;
	group = make_group(iommu_group, false);
	if (!group)
		return -ENOMEM;
	list_add(&group->next, &container->emulated);
	return 0;
}

/* Writes of a group that goes, as far as nobody else knows of them, can be anywhere. */
static void keep_dirty(struct vfio_dma_container *container,
		       const struct vfio_dma_group *group,
		       const struct vfio_dma_group_domain *domain)
{
	lockdep_assert_held(&container->lock);

	if (!group->dirties_unseen ||
	    container->dirty_tracking == VFIO_DMA_TRACK_PINNED)
		return;
	/* The IOMMU has recorded them, in an IO page table that stays. */
	if (domain->dma.tracking && !list_is_singular(&domain->groups))
		return;
	vfio_dma_set_dirty(container, 0, VFIO_XA_DMA_LAST_INDEX);
}

static void detach_drops_lock(struct vfio_dma_container *container,
			      struct iommu_group *iommu_group)
{
	struct vfio_dma_ranges ranges = {};
	struct vfio_dma_group_domain *domain;
	struct vfio_dma_group *group;
	bool last_domain = false, last_group;

	lockdep_assert_held(&container->lock);

	group = vfio_dma_find_group(container, iommu_group, &domain);
	if (WARN_ON_ONCE(!group))
		return;

	if (domain)
		last_domain = list_is_singular(&domain->groups) &&
			      list_is_singular(&container->space.domains);
	last_group = domain ? last_domain && list_empty(&container->emulated) :
			      list_is_singular(&container->emulated) &&
				      !vfio_dma_has_domain(container);

	/* Waiting for drivers drops the mutex, so it is first; VFIO holds other groups off. */
	if (last_group)
		vfio_dma_extpin_release_drops_lock(container, 0,
						   VFIO_XA_DMA_LAST_INDEX, false);

	if (domain)
		vfio_dma_iommu_detach(domain->dma.domain, iommu_group);

	keep_dirty(container, group, domain);
	list_del(&group->next);
	kfree(group);

	if (last_domain)
		vfio_dma_flights_unplace(container);
	/* A group is what gives the right to have anything mapped. */
	if (last_group)
		vfio_dma_unmap_all(container);
	else if (last_domain)
		vfio_dma_unplace_upto(container, &container->space,
				      VFIO_XA_DMA_LAST_INDEX);

	if (!domain)
		return;

	if (list_empty(&domain->groups)) {
		if (!last_domain)
			vfio_dma_clear_domain(container, &domain->dma);
		vfio_dma_space_del(&container->space, &domain->dma);
		vfio_dma_record_domain_gone(&container->record);
		free_domain(domain);
	}

	/* Ranges that are narrower than they need to be do no harm. */
	if (!vfio_dma_has_domain(container) ||
	    !vfio_dma_ranges_make(container, NULL, NULL, &ranges))
		vfio_dma_ranges_set(container, &ranges);
}

/**
 * vfio_dma_attach_group() - a group comes
 * @iommu_data: the container
 * @iommu_group: the group
 * @type: whether it has an IOMMU
 *
 * Context: Process context, may sleep.  Takes and releases the container's mutex.
 * Return: 0; -EINVAL if the group is there, or if its IOMMU cannot translate what is
 * mapped; -EBUSY during a live update; -EPERM without interrupt remapping; -ENODEV
 * without a device; -EOPNOTSUPP without an IOMMU, if the record has no addresses; -EIO
 * if its IOMMU failed to unmap pages for trial; -EINTR on a fatal signal; or an errno as
 * vfio_dma_replay().
 */
int vfio_dma_attach_group(void *iommu_data, struct iommu_group *iommu_group,
			  enum vfio_group_type type)
{
	struct vfio_dma_container *container = vfio_dma_container_get(iommu_data);
	struct vfio_dma_group_domain *domain;
	int ret;

	if (!container)
		return -EINVAL;

	ret = -EINTR;
	if (mutex_lock_killable(&container->lock))
		goto out_put;
	/* A replay could need user memory that is gone for the moment. */
	if (container->vaddr_invalid)
		ret = -EBUSY;
	else if (vfio_dma_find_group(container, iommu_group, &domain))
		ret = -EINVAL;
	else if (type == VFIO_EMULATED_IOMMU)
		ret = attach_emulated(container, iommu_group);
	else
		ret = attach_physical(container, iommu_group);
	container->epoch++;
	trace_type1v3_attach(container->id, iommu_group, ret);
	if (ret)
		trace_type1v3_error(container->id, "attach_group", ret);
	mutex_unlock(&container->lock);
out_put:
	vfio_dma_container_put(container);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_attach_group, "VFIO_DMA");

/**
 * vfio_dma_detach_group() - a group goes
 * @iommu_data: the container
 * @iommu_group: a group that is in it
 *
 * Context: Process context, may sleep.  Takes and releases the container's mutex.
 */
void vfio_dma_detach_group(void *iommu_data, struct iommu_group *iommu_group)
{
	struct vfio_dma_container *container = vfio_dma_container_get(iommu_data);

	if (!container)
		return;

	mutex_lock(&container->lock);
	detach_drops_lock(container, iommu_group);
	container->epoch++;
	trace_type1v3_detach(container->id, iommu_group, 0);
	mutex_unlock(&container->lock);
	vfio_dma_container_put(container);
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_detach_group, "VFIO_DMA");

/**
 * vfio_dma_group_iommu_domain() - the IOMMU domain of a group
 * @iommu_data: the container
 * @iommu_group: the group
 *
 * Context: Process context, may sleep.  Takes and releases the container's mutex.
 * Return: the domain; ERR_PTR(-ENODEV) for a group without one, ERR_PTR(-EINVAL) for
 * what is no container.
 */
struct iommu_domain *
vfio_dma_group_iommu_domain(void *iommu_data, struct iommu_group *iommu_group)
{
	struct iommu_domain *iommu_domain = ERR_PTR(-ENODEV);
	struct vfio_dma_group_domain *domain;
	struct vfio_dma_container *container;

	if (!iommu_data || !iommu_group)
		return ERR_PTR(-EINVAL);

	container = vfio_dma_container_get(iommu_data);
	if (!container)
		return ERR_PTR(-EINVAL);

	mutex_lock(&container->lock);
	if (vfio_dma_find_group(container, iommu_group, &domain) && domain)
		iommu_domain = domain->dma.domain;
	mutex_unlock(&container->lock);
	vfio_dma_container_put(container);
	return iommu_domain;
}
EXPORT_SYMBOL_NS_GPL(vfio_dma_group_iommu_domain, "VFIO_DMA");
