// SPDX-License-Identifier: GPL-2.0-only
/*
 * Prints by how many thousands this machine's time stamp counter grows in a second.
 * It is that of a guest under TCG, too. A guest that measures it itself goes wrong
 * when this machine has more to do: it has been off by a factor of eight, and all
 * that lasts for a time in there with it.
 */
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

/* Both at one moment: of many attempts the one that took the shortest time */
static void now(unsigned long long *ns, unsigned long long *ticks)
{
	unsigned long long shortest = -1ULL;

	for (int i = 0; i < 1000; i++) {
		unsigned long long before = __rdtsc(), after;
		struct timespec t;

		clock_gettime(CLOCK_MONOTONIC_RAW, &t);
		after = __rdtsc();
		if (after - before >= shortest)
			continue;
		shortest = after - before;
		*ns = t.tv_sec * 1000000000ULL + t.tv_nsec;
		*ticks = before + shortest / 2;
	}
}

int main(void)
{
	unsigned long long ns[2], ticks[2];

	now(&ns[0], &ticks[0]);
	nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
	now(&ns[1], &ticks[1]);
	printf("%.0f\n", (ticks[1] - ticks[0]) * 1e6 / (ns[1] - ns[0]));
	return 0;
}
