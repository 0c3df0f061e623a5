/* SPDX-License-Identifier: GPL-2.0-only */
/* Maps, and those in flight; see vfio_dma_flight.c. */
#ifndef _VFIO_DMA_FLIGHT_H
#define _VFIO_DMA_FLIGHT_H

#include "vfio_dma_container.h"

/**
 * struct vfio_dma_map - a range to be mapped
 * @first: first IOVA page
 * @last: last IOVA page
 * @vaddr: user memory
 * @word: the word that all of its pages will have, START aside
 * @granule: pages of the largest IOMMU page; no IOMMU page spans a multiple
 * @nr_entries: entries of a batch that are treated as one
 *
 * In a batch there is an array of as many as there are entries, of which only those
 * are valid that are where the first entry of a range is: the next is @nr_entries on.
 *
 * Belongs to its caller, and does not change when pages are pinned.
 */
struct vfio_dma_map {
	unsigned long first;
	unsigned long last;
	unsigned long vaddr;
	unsigned long word;
	unsigned long granule;
	unsigned int nr_entries;
};

/**
 * enum vfio_dma_flight_state - where a map in flight is
 * @VFIO_DMA_PLACING: reserved in the record, and in &vfio_dma_container.flights: its
 *	pages are being pinned without the mutex, and placed in the IO page tables with it
 * @VFIO_DMA_UNPLACED: as before, but what had been placed went with the last domain
 * @VFIO_DMA_REPLAYING: mapped in the record, and being placed in the first domain, with
 *	the mutex held all the time
 */
enum vfio_dma_flight_state {
	VFIO_DMA_PLACING,
	VFIO_DMA_UNPLACED,
	VFIO_DMA_REPLAYING,
};

/**
 * struct vfio_dma_flight - a map whose pages are pinned step by step
 * @next: in &vfio_dma_container.flights
 * @map: the range
 * @state: where it is
 * @space: domains that it is placed in
 * @placed: pages from the first one on that are pinned and in the IO page tables
 * @known: those of the last step that other holds are charged for
 * @credit: pages charged for it and not placed yet; below 0 if it has placed more
 * @held: page frame that the ledger holds for the step that is placed, or
 *	VFIO_DMA_NOT_HELD
 * @tight: each step is charged on its own, as there is not enough for all at once
 *
 * Protected by the container's mutex.
 */
struct vfio_dma_flight {
	struct list_head next;
	const struct vfio_dma_map *map;
	enum vfio_dma_flight_state state;
	struct vfio_dma_space *space;
	unsigned long placed;
	unsigned long known;
	long credit;
	unsigned long held;
	bool tight;
};

bool vfio_dma_flight_too_many_granules(const struct vfio_dma_map *map);
int vfio_dma_flight_fill_drops_lock(struct vfio_dma_container *container,
				    struct vfio_dma_flight *flight);
void vfio_dma_flight_undo(struct vfio_dma_container *container,
			  struct vfio_dma_flight *flight);
void vfio_dma_flights_unplace(struct vfio_dma_container *container);
int vfio_dma_flight_replay(struct vfio_dma_container *container,
			   struct vfio_dma_space *space,
			   const struct vfio_xa_dma_run *run);

static inline unsigned long vfio_dma_map_npages(const struct vfio_dma_map *map)
{
	return map->last - map->first + 1;
}

/* The last page that is placed, if one is */
static inline unsigned long
vfio_dma_flight_last(const struct vfio_dma_flight *flight)
{
	return flight->map->first + flight->placed - 1;
}

#endif /* _VFIO_DMA_FLIGHT_H */
