// SPDX-License-Identifier: GPL-2.0-only
/* A coverage-guided fuzzer: its input is read as steps of the model. */

#include "harness.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct model m;

	model_init(&m, 0, data, size);
	while (!model_done(&m))
		if (model_step(&m))
			abort();
	if (model_fini(&m))
		abort();
	return 0;
}
