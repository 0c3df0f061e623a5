// SPDX-License-Identifier: GPL-2.0-only
/*
 * Valid IOVA ranges: what all IOMMUs of a container can translate
 *
 * Ranges follow from apertures and reserved regions, and change only with groups.  Nothing
 * is mapped here.
 */

#include <linux/iommu.h>
#include <linux/slab.h>

#include "vfio.h"
#include "vfio_dma_iommu.h"
#include "vfio_dma_ranges.h"

static void free_regions(struct list_head *regions)
{
	struct iommu_resv_region *region, *tmp;

	list_for_each_entry_safe(region, tmp, regions, list)
		kfree(region);
}

static void find_sw_msi(struct vfio_dma_ranges *new, struct list_head *regions)
{
	struct iommu_resv_region *region;

	list_for_each_entry(region, regions, list) {
		/* A hardware MSI region makes the other one unnecessary. */
		if (region->type == IOMMU_RESV_MSI) {
			new->sw_msi = false;
			return;
		}
		if (region->type == IOMMU_RESV_SW_MSI) {
			new->sw_msi = true;
			new->msi_base = region->start;
			new->msi_size = region->length;
		}
	}
}

/* Narrow [@start, @end] to what every domain translates, and collect reserved regions. */
static int ask_domains(struct vfio_dma_container *container, u64 *start, u64 *end,
		       struct list_head *regions)
{
	struct vfio_dma_group *group;
	struct vfio_dma_domain *d;
	int ret;

	lockdep_assert_held(&container->lock);

	list_for_each_entry(d, &container->space.domains, next) {
		*start = max(*start, d->domain->geometry.aperture_start);
		*end = min(*end, d->domain->geometry.aperture_end);
		list_for_each_entry(group, &to_group_domain(d)->groups, next) {
			ret = vfio_dma_iommu_resv_regions(group->iommu_group, regions);
			if (ret)
				return ret;
		}
	}
	return 0;
}

/*
 * What reserved regions, sorted by their start, leave of [@start, @end], with room in
 * @ranges for one more than there are regions.  Returns how many ranges that is.
 */
static unsigned int leave_out(const struct list_head *regions, u64 start, u64 end,
			      struct vfio_iova_range *ranges)
{
	struct iommu_resv_region *region;
	unsigned int n = 0;
	u64 last;

	list_for_each_entry(region, regions, list) {
		last = region->start + region->length - 1;
		/* Regions the firmware needs only until an OS takes over */
		if (region->type == IOMMU_RESV_DIRECT_RELAXABLE ||
		    !region->length || last < start)
			continue;
		if (start > end || region->start > end)
			break;
		if (region->start > start) {
			ranges[n].start = start;
			ranges[n++].end = region->start - 1;
		}
		start = last + 1;
		if (!start)
			return n;
	}
	if (start <= end) {
		ranges[n].start = start;
		ranges[n++].end = end;
	}
	return n;
}

/**
 * vfio_dma_ranges_make() - the ranges that are valid
 * @container: the container
 * @domain: a domain that comes in addition, or %NULL
 * @iommu_group: its group
 * @new: set to what every domain can translate, less the reserved regions of every
 *	group
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; -EINVAL if there is none; -ENOMEM; or what the IOMMU core returns.
 */
int vfio_dma_ranges_make(struct vfio_dma_container *container,
			 struct iommu_domain *domain,
			 struct iommu_group *iommu_group,
			 struct vfio_dma_ranges *new)
{
	u64 start = 0, end = U64_MAX;
	LIST_HEAD(regions);
	int ret = 0;

	lockdep_assert_held(&container->lock);

	*new = (struct vfio_dma_ranges){};
	if (domain) {
		start = domain->geometry.aperture_start;
		end = domain->geometry.aperture_end;
		ret = vfio_dma_iommu_resv_regions(iommu_group, &regions);
		find_sw_msi(new, &regions);
	}
	ret = ret ?: ask_domains(container, &start, &end, &regions);
	if (ret)
		goto out_free;

	new->ranges = kvcalloc(list_count_nodes(&regions) + 1, sizeof(*new->ranges),
			       VFIO_DMA_GFP);
	ret = -ENOMEM;
	if (!new->ranges)
		goto out_free;
	new->nr_ranges = leave_out(&regions, start, end, new->ranges);
	ret = 0;
	if (!new->nr_ranges) {
		kvfree(new->ranges);
		ret = -EINVAL;
	}
out_free:
	free_regions(&regions);
	return ret;
}

/**
 * vfio_dma_ranges_set() - from now on these ranges are valid
 * @container: the container
 * @new: the ranges, which it takes
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_ranges_set(struct vfio_dma_container *container,
			 struct vfio_dma_ranges *new)
{
	lockdep_assert_held(&container->lock);

	kvfree(container->ranges);
	container->ranges = new->ranges;
	container->nr_ranges = new->nr_ranges;
}

/**
 * vfio_dma_ranges_hold() - is all that is mapped, or reserved, valid?
 * @container: the container
 * @new: ranges
 * @pgsize: smallest page size, in bytes
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: true if it is within these ranges and this page size.
 */
bool vfio_dma_ranges_hold(struct vfio_dma_container *container,
			  const struct vfio_dma_ranges *new,
			  unsigned long pgsize)
{
	unsigned long mask = (pgsize >> PAGE_SHIFT) - 1, first = 0;
	struct vfio_dma_record *record = &container->record;
	struct vfio_xa_dma_run run;
	unsigned int i;

	lockdep_assert_held(&container->lock);

	for (i = 0; i < new->nr_ranges; i++) {
		const struct vfio_iova_range *range = &new->ranges[i];

		if (range->start >> PAGE_SHIFT > first ||
		    range->start & ~PAGE_MASK) {
			if (vfio_dma_record_next(record, first, (range->start - 1) >>
						 PAGE_SHIFT, &run))
				return false;
		}
		if (range->end == U64_MAX)
			break;
		first = (range->end + 1) >> PAGE_SHIFT;
	}
	if (i == new->nr_ranges &&
	    vfio_dma_record_next(record, first, VFIO_XA_DMA_LAST_INDEX, &run))
		return false;

	/* The IOMMU's smallest page may be larger than the others'. */
	if (!mask)
		return true;
	vfio_dma_record_for_each(record, &run, 0, VFIO_XA_DMA_LAST_INDEX)
		if ((run.first & mask &&
		     !vfio_dma_record_load(record, run.first - 1)) ||
		    (~run.last & mask &&
		     !vfio_dma_record_load(record, run.last + 1)))
			return false;
	return true;
}

/**
 * vfio_dma_ranges_probe() - find somewhere to try a fresh domain out
 * @ranges: what is valid
 * @domain: the domain
 * @iova: set to an address for vfio_dma_domain_probe()
 *
 * Context: Any.
 * Return: false if there is no room.
 */
bool vfio_dma_ranges_probe(const struct vfio_dma_ranges *ranges,
			   const struct vfio_dma_domain *domain,
			   dma_addr_t *iova)
{
	unsigned long sizes = vfio_dma_domain_pgsizes(domain);
	u64 room = 4 * (sizes & -sizes), start, end;
	unsigned int i;

	for (i = 0; i < ranges->nr_ranges; i++) {
		start = ranges->ranges[i].start;
		end = ranges->ranges[i].end;
		if (end - start >= 2 * room) {
			*iova = ALIGN(start, room);
			return true;
		}
	}
	return false;
}
