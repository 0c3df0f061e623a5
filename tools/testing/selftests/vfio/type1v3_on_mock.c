// SPDX-License-Identifier: GPL-2.0-only
/*
 * type1v3_on_mock KIND,KIND PROGRAM [ARG...]: runs one of the tests, in which the devices
 * in the environment are those of two mock IOMMUs. KIND is of mock_kinds in
 * type1v3_mock.c. When the program has ended, nothing may be left in the IOMMUs.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "type1v3_mock.h"

#define NR_MOCK	2

static const char * const names[] = { ENV_NVME, ENV_NVME2 };

static int create(struct mock *m, const char *name, size_t len)
{
	struct vfio_mock_iommu_create config = {};

	for (int i = 0; i < NR_MOCK_KINDS; i++) {
		if (strlen(mock_kinds[i].name) != len || memcmp(mock_kinds[i].name, name, len))
			continue;
		config.pgsizes = mock_kinds[i].pgsizes;
		config.flags = mock_kinds[i].flags;
		return mock_create(m, &config);
	}
	return -ENOENT;
}

/* A program beside this one */
static void run(char **argv)
{
	char self[PATH_MAX] = "", path[2 * PATH_MAX];

	if (readlink("/proc/self/exe", self, sizeof(self) - 1) > 0) {
		snprintf(path, sizeof(path), "%s/%s", dirname(self), argv[0]);
		execv(path, argv);
	}
	fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

int main(int argc, char **argv)
{
	struct vfio_mock_iommu_state state;
	const char *kind = argv[1];
	struct mock m[NR_MOCK];
	int ret, status;
	size_t len;
	pid_t pid;

	if (argc < 3) {
		fprintf(stderr, "usage: %s KIND,KIND PROGRAM [ARG...]\n", argv[0]);
		return 2;
	}
	mock_allow_unsafe(true);
	for (int i = 0; i < NR_MOCK; i++, kind += len + 1) {
		len = strcspn(kind, ",");
		ret = create(&m[i], kind, len);
		if (ret) {
			fprintf(stderr, "%s: %s\n", kind, strerror(-ret));
			return 1;
		}
		setenv(names[i], m[i].name[0], 1);
	}
	unsetenv(ENV_STREAM);
	unsetenv(ENV_BAR);

	pid = fork();
	if (!pid)
		run(argv + 2);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 1;
	ret = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	for (int i = 0; i < NR_MOCK; i++) {
		state = mock_state(&m[i]);
		if (state.errors || state.left || state.leaves || state.domains) {
			printf("# IOMMU %d: %u errors, %llu bytes left, %llu leaves, %u domains\n",
			       i, state.errors, state.left, state.leaves, state.domains);
			ret = 1;
		}
	}
	return ret;
}
