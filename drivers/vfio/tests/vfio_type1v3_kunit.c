// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the type1v3 container, on IOMMU domains that check every call.
 *
 * The container is that of the module, but its groups are not: what it asks the IOMMU
 * core about groups is answered here.  It is used through the operations that VFIO
 * uses, with arguments in user memory.
 *
 * The random tests print the seed which they begin with.  To have others:
 * modprobe vfio_type1v3_kunit seed=<seed>, or seed=0 for one that nobody chose.
 */

#include "vfio_type1v3_rig.h"
#include "vfio_type1v3_memory.h"
#include "vfio_type1v3_cut.h"
#include "vfio_type1v3_attach.h"
#include "vfio_type1v3_dirty.h"
#include "vfio_type1v3_choices.h"
#include "vfio_type1v3_drivers.h"
#include "vfio_type1v3_random.h"
#include "vfio_type1v3_meanwhile.h"
#include "vfio_type1v3_ledger.h"
#include "vfio_type1v3_pt.h"
#include "vfio_pt_record_test.h"

static struct kunit_case container_cases[] = {
	KUNIT_CASE_PARAM(cut, kind_gen_params),
	KUNIT_CASE_PARAM(cut_each_page, kind_gen_params),
	KUNIT_CASE_PARAM(cut_without_memory, kind_gen_params),
	KUNIT_CASE_PARAM(unmap_dirties, kind_gen_params),
	KUNIT_CASE_PARAM(batch_dirties, kind_gen_params),
	KUNIT_CASE_PARAM(detach_dirties, kind_gen_params),
	KUNIT_CASE_PARAM(device_memory, kind_gen_params),
	KUNIT_CASE_SLOW(cut_pud),
	KUNIT_CASE_SLOW(cut_pud_again),
	KUNIT_CASE_PARAM(cut_two_domains, kind_gen_params),
	KUNIT_CASE_PARAM(small_pages, kind_gen_params),
	KUNIT_CASE_PARAM(neighbours, kind_gen_params),
	KUNIT_CASE_PARAM(neighbours_batch, kind_gen_params),
	KUNIT_CASE(map_stuck),
	KUNIT_CASE(unmap_stuck),
	KUNIT_CASE(batch_stuck),
	KUNIT_CASE(split_stuck),
	KUNIT_CASE_PARAM(cut_beside, kind_gen_params),
	KUNIT_CASE_SLOW(neighbours_pud),
	KUNIT_CASE_PARAM(hole_mapped_again, kind_gen_params),
	KUNIT_CASE_PARAM(granule, kind_gen_params),
	KUNIT_CASE(granule_refused),
	KUNIT_CASE_PARAM(unmap_divided_word, kind_gen_params),
	KUNIT_CASE_PARAM(detach_divided_word, kind_gen_params),
	KUNIT_CASE_PARAM(contig_is_forgotten, kind_gen_params),
	KUNIT_CASE_PARAM(pages_come_back, kind_gen_params),
	KUNIT_CASE_PARAM(update_vaddr, kind_gen_params),
	KUNIT_CASE_PARAM(map_fails, kind_gen_params),
	KUNIT_CASE_PARAM(map_hole, kind_gen_params),
	KUNIT_CASE_PARAM(unmap_loses, kind_gen_params),
	KUNIT_CASE_PARAM(attach_fails, kind_gen_params),
	KUNIT_CASE(attach_fails_granule),
	KUNIT_CASE(attach_fails_without_errno),
	KUNIT_CASE(attach_shares),
	KUNIT_CASE(coherency),
	KUNIT_CASE(reserved_regions),
	KUNIT_CASE(narrow_aperture),
	KUNIT_CASE(large_pages),
	KUNIT_CASE_PARAM(hardware_bits, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_borders, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_borders_at_0, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_cut, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_unmap, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_fails, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_unaligned, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_windows, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_large, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_domains, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_shared, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_promise, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(choice_reports, choice_gen_params),
	KUNIT_CASE_PARAM(choice_groups, choice_gen_params),
	KUNIT_CASE_PARAM(choice_unmap, choice_gen_params),
	KUNIT_CASE_PARAM(choice_or, choice_gen_params),
	KUNIT_CASE(choice_start_fails),
	KUNIT_CASE(pin_overflow),
	KUNIT_CASE(release_excludes),
	KUNIT_CASE(release_object),
	KUNIT_CASE(pin_other_page),
	KUNIT_CASE(unpin_dirties),
	KUNIT_CASE(batch_attach),
	KUNIT_CASE(unmap_attach),
	KUNIT_CASE(undo_needs_no_memory),
	KUNIT_CASE(detach_in_progress),
	KUNIT_CASE(pinned_scope),
	KUNIT_CASE(group_iommu_domain),
	KUNIT_CASE_PARAM(random_steps, kind_gen_params),
	KUNIT_CASE_PARAM(random_cuts, kind_gen_params),
	KUNIT_CASE(map_begins_anew),
	KUNIT_CASE(map_is_checked_again),
	KUNIT_CASE(lost_under_pins),
	KUNIT_CASE(pin_missing_again),
	KUNIT_CASE(attach_keeps_users),
	KUNIT_CASE(strangers_keep_users),
	KUNIT_CASE(attach_without_owner),
	KUNIT_CASE(update_vaddr_pinning),
	KUNIT_CASE_PARAM(ledger_orders, kind_gen_params),
	KUNIT_CASE_PARAM(ledger_random, kind_gen_params),
	KUNIT_CASE_PARAM(ledger_aliases, kind_gen_params),
	KUNIT_CASE_PARAM(ledger_remap, kind_gen_params),
	KUNIT_CASE_PARAM(ledger_limit, kind_gen_params),
	KUNIT_CASE_PARAM(ledger_many_pins, kind_gen_params),
	KUNIT_CASE_PARAM(ledger_replay, kind_gen_params),
	KUNIT_CASE_PARAM(ledger_emulated, kind_gen_params),
	KUNIT_CASE_PARAM(ledger_without_memory, kind_gen_params),
	KUNIT_CASE_PARAM(ledger_charged_first, kind_gen_params),
	KUNIT_CASE_PARAM(ledger_killed, kind_gen_params),
	KUNIT_CASE_PARAM(ledger_joins, kind_gen_params),
	KUNIT_CASE(ledger_granules),
	KUNIT_CASE_PARAM(ledger_leak_under_pins, kind_gen_params),
	KUNIT_CASE_PARAM(ledger_device_memory, kind_gen_params),
	{}
};

/* Those that need neither addresses nor a group without an IOMMU */
static struct kunit_case container_pt_cases[] = {
	KUNIT_CASE_PARAM(cut, kind_gen_params),
	KUNIT_CASE_PARAM(cut_each_page, kind_gen_params),
	KUNIT_CASE_PARAM(cut_without_memory, kind_gen_params),
	KUNIT_CASE_PARAM(unmap_dirties, kind_gen_params),
	KUNIT_CASE_PARAM(batch_dirties, kind_gen_params),
	KUNIT_CASE_SLOW(cut_pud),
	KUNIT_CASE_SLOW(cut_pud_again),
	KUNIT_CASE_PARAM(cut_two_domains, kind_gen_params),
	KUNIT_CASE_PARAM(small_pages, kind_gen_params),
	KUNIT_CASE_PARAM(neighbours, kind_gen_params),
	KUNIT_CASE_PARAM(neighbours_batch, kind_gen_params),
	KUNIT_CASE(map_stuck),
	KUNIT_CASE(unmap_stuck),
	KUNIT_CASE(batch_stuck),
	KUNIT_CASE(split_stuck),
	KUNIT_CASE_PARAM(cut_beside, kind_gen_params),
	KUNIT_CASE_SLOW(neighbours_pud),
	KUNIT_CASE_PARAM(hole_mapped_again, kind_gen_params),
	KUNIT_CASE_PARAM(granule, kind_gen_params),
	KUNIT_CASE_PARAM(map_fails, kind_gen_params),
	KUNIT_CASE_PARAM(map_hole, kind_gen_params),
	KUNIT_CASE_PARAM(unmap_loses, kind_gen_params),
	KUNIT_CASE(attach_fails_granule),
	KUNIT_CASE(attach_shares),
	KUNIT_CASE(reserved_regions),
	KUNIT_CASE_PARAM(hardware_borders, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_borders_at_0, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_cut, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_unmap, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_fails, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_unaligned, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_large, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_domains, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_shared, dirty_kind_gen_params),
	KUNIT_CASE_PARAM(hardware_promise, dirty_kind_gen_params),
	KUNIT_CASE(detach_in_progress),
	KUNIT_CASE_PARAM(random_steps, kind_gen_params),
	KUNIT_CASE_PARAM(random_cuts, kind_gen_params),
	KUNIT_CASE(map_is_checked_again),
	KUNIT_CASE(refused),
	KUNIT_CASE(device_stuck),
	KUNIT_CASE(ghost_of_second),
	KUNIT_CASE(unmap_twice),
	KUNIT_CASE(cut_beside_gone),
	KUNIT_CASE(msi_beside),
	KUNIT_CASE(drift),
	KUNIT_CASE(probe_stuck),
	{}
};

static struct kunit_suite container_suite = {
	.name		= "vfio_iommu_type1v3",
	.init		= container_test_init,
	.exit		= container_test_exit,
	.test_cases	= container_cases,
};

static struct kunit_suite container_pt_suite = {
	.name		= "vfio_iommu_type1v3_pt",
	.init		= container_pt_init,
	.exit		= container_test_exit,
	.test_cases	= container_pt_cases,
};

kunit_test_suites(&container_suite, &container_pt_suite, &pt_suite);

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_IMPORT_NS("VFIO_DMA");
MODULE_IMPORT_NS("IOMMUFD");
MODULE_DESCRIPTION("KUnit tests of the type1v3 container");
MODULE_LICENSE("GPL");
