// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the map and unmap core of VFIO container backends, on IOMMU
 * domains that check every call.
 */

#include "vfio_dma_core_rig.h"
#include "vfio_dma_core_domain.h"
#include "vfio_dma_core_pin.h"
#include "vfio_dma_core_unmap.h"
#include "vfio_dma_core_owner.h"
#include "vfio_dma_core_dirty.h"
#include "vfio_dma_core_ledger.h"

static struct kunit_case core_cases[] = {
	KUNIT_CASE(mock_notices),
	KUNIT_CASE_PARAM(probe, kind_gen_params),
	KUNIT_CASE(page_sizes),
	KUNIT_CASE_PARAM(map_extent, kind_gen_params),
	KUNIT_CASE_PARAM(small_unmaps_anywhere, kind_gen_params),
	KUNIT_CASE_PARAM(map_fails, kind_gen_params),
	KUNIT_CASE_PARAM(map_fails_stuck, kind_gen_params),
	KUNIT_CASE_PARAM(pfn_zero, kind_gen_params),
	KUNIT_CASE_PARAM(cut_pmd, kind_gen_params),
	KUNIT_CASE_SLOW(cut_pud),
	KUNIT_CASE_SLOW(cut_pud_calls),
	KUNIT_CASE_PARAM(cut_one_end, kind_gen_params),
	KUNIT_CASE_PARAM(cut_not_linear, kind_gen_params),
	KUNIT_CASE_PARAM(cut_lost, kind_gen_params),
	KUNIT_CASE(cut_short),
	KUNIT_CASE(cut_stuck),
	KUNIT_CASE_PARAM(two_domains, kind_gen_params),
	KUNIT_CASE_PARAM(pin_extents, pin_order_gen_params),
	KUNIT_CASE(pin_hole),
	KUNIT_CASE(pin_read_only),
	KUNIT_CASE(pin_longterm),
	KUNIT_CASE(pin_pfnmap),
	KUNIT_CASE(pin_mixed),
	KUNIT_CASE_PARAM(unmap_batches, kind_gen_params),
	KUNIT_CASE(unmap_dirties),
	KUNIT_CASE_PARAM(unmap_contig, kind_gen_params),
	KUNIT_CASE(unmap_short),
	KUNIT_CASE(charge),
	KUNIT_CASE(owner_gone),
	KUNIT_CASE(track_take),
	KUNIT_CASE(track_read),
	KUNIT_CASE(track_not),
	KUNIT_CASE(unmap_page_short),
	KUNIT_CASE(uncharge_keeps_users),
	KUNIT_CASE(ledger_counts),
	KUNIT_CASE(ledger_many_holds),
	KUNIT_CASE(ledger_holds),
	KUNIT_CASE(ledger_small),
	KUNIT_CASE(ledger_gives_up),
	KUNIT_CASE_PARAM(ledger_random, ledger_memory_gen_params),
	{}
};

static struct kunit_suite core_suite = {
	.name		= "vfio_dma_core",
	.init		= core_test_init,
	.exit		= core_test_exit,
	.test_cases	= core_cases,
};

kunit_test_suite(core_suite);

MODULE_DESCRIPTION("KUnit tests of the VFIO map and unmap core");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_IMPORT_NS("VFIO_DMA");
MODULE_IMPORT_NS("IOMMUFD");
