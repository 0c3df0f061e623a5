// SPDX-License-Identifier: GPL-2.0-only
/*
 * Random steps, done to the store and to the model.
 *
 *	model [FIRST-SEED [SEEDS [STEPS]]]
 *
 * Prints a line for each group of seeds; check.sh makes TAP of it.
 */

#include "harness.h"

#define GROUP 25

static int run(struct model *m, u64 seed, unsigned int steps)
{
	unsigned int i;

	model_init(m, seed, NULL, 0);
	for (i = 0; i < steps; i++) {
		if (model_step(m)) {
			printf("# seed %llu, step %u\n", (unsigned long long)seed, i);
			return -EINVAL;
		}
	}
	return model_fini(m);
}

int main(int argc, char **argv)
{
	static struct model m;
	unsigned long first = argc > 1 ? strtoul(argv[1], NULL, 0) : 1;
	unsigned long seeds = argc > 2 ? strtoul(argv[2], NULL, 0) : 200;
	unsigned int steps = argc > 3 ? strtoul(argv[3], NULL, 0) : 500;
	unsigned long seed, i;
	bool ok;

	model_init(&m, 0, NULL, 0);
	ok = !model_shrink_root(&m) && !model_fini(&m);
	printf("%s - model: down to one page in the root\n", ok ? "ok" : "not ok");
	for (seed = first; seed < first + seeds; seed += i) {
		bool group_ok = true;

		for (i = 0; i < GROUP && seed + i < first + seeds; i++)
			if (run(&m, seed + i, steps))
				group_ok = false;
		printf("%s - model: seeds %lu to %lu, %u steps each\n",
		       group_ok ? "ok" : "not ok", seed, seed + i - 1, steps);
		ok &= group_ok;
	}
	return !ok;
}
