/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * As much of KUnit as the suite of the store uses: a suite becomes a program, which runs
 * all of its cases or those named on the command line, and prints a line for each.
 */
#ifndef _SHIM_KUNIT_TEST_H
#define _SHIM_KUNIT_TEST_H

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/slab.h>
#include <kunit/static_stub.h>

struct kunit {
	void *priv, *object;
	bool failed;
	const char *skipped;
	jmp_buf end;
};

struct kunit_case {
	void (*run)(struct kunit *test);
	const char *name;
};

struct kunit_suite {
	const char *name;
	int (*init)(struct kunit *test);
	void (*exit)(struct kunit *test);
	struct kunit_case *test_cases;
};

#define KUNIT_CASE(function)		{ .run = function, .name = #function }
#define KUNIT_CASE_SLOW(function)	KUNIT_CASE(function)

#define kunit_info(test, fmt, ...)	printf("# " fmt "\n", ##__VA_ARGS__)

#define kunit_skip(test, text)						\
	do {								\
		(test)->skipped = text;					\
		longjmp((test)->end, 1);				\
	} while (0)

/* One object a case. */
#define kunit_kzalloc(test, size, gfp)	((test)->object = calloc(1, size))

#define shim_check(test, cond, assert, a, b, op, text, ...)		\
	do {								\
		if (cond)						\
			break;						\
		printf("# %s:%d: " text ": not true: %s %s %s\n", __FILE__,	\
		       __LINE__, ##__VA_ARGS__, a, op, b);		\
		(test)->failed = true;					\
		if (assert)						\
			longjmp((test)->end, 1);			\
	} while (0)

#define shim_compare(test, assert, a, op, b, text, ...)			\
	do {								\
		const typeof(a) __a = (a);				\
		const typeof(b) __b = (b);				\
									\
		shim_check(test, __a op __b, assert, #a, #b, #op,	\
			   "%lld, %lld: " text, (long long)__a, (long long)__b,	\
			   ##__VA_ARGS__);				\
	} while (0)

#define KUNIT_EXPECT_EQ(test, a, b)	shim_compare(test, false, a, ==, b, "")
#define KUNIT_EXPECT_NE(test, a, b)	shim_compare(test, false, a, !=, b, "")
#define KUNIT_EXPECT_LT(test, a, b)	shim_compare(test, false, a, <, b, "")
#define KUNIT_EXPECT_LE(test, a, b)	shim_compare(test, false, a, <=, b, "")
#define KUNIT_EXPECT_GT(test, a, b)	shim_compare(test, false, a, >, b, "")
#define KUNIT_EXPECT_GE(test, a, b)	shim_compare(test, false, a, >=, b, "")
#define KUNIT_EXPECT_TRUE(test, a)	shim_compare(test, false, !!(a), ==, true, "")
#define KUNIT_EXPECT_FALSE(test, a)	shim_compare(test, false, !!(a), ==, false, "")
#define KUNIT_EXPECT_EQ_MSG(test, a, b, ...)	shim_compare(test, false, a, ==, b, __VA_ARGS__)
#define KUNIT_EXPECT_LE_MSG(test, a, b, ...)	shim_compare(test, false, a, <=, b, __VA_ARGS__)
#define KUNIT_EXPECT_GE_MSG(test, a, b, ...)	shim_compare(test, false, a, >=, b, __VA_ARGS__)
#define KUNIT_EXPECT_GT_MSG(test, a, b, ...)	shim_compare(test, false, a, >, b, __VA_ARGS__)

#define KUNIT_ASSERT_EQ(test, a, b)	shim_compare(test, true, a, ==, b, "")
#define KUNIT_ASSERT_NE(test, a, b)	shim_compare(test, true, a, !=, b, "")
#define KUNIT_ASSERT_LT(test, a, b)	shim_compare(test, true, a, <, b, "")
#define KUNIT_ASSERT_GT(test, a, b)	shim_compare(test, true, a, >, b, "")
#define KUNIT_ASSERT_TRUE(test, a)	shim_compare(test, true, !!(a), ==, true, "")
#define KUNIT_ASSERT_FALSE(test, a)	shim_compare(test, true, !!(a), ==, false, "")
#define KUNIT_ASSERT_EQ_MSG(test, a, b, ...)	shim_compare(test, true, a, ==, b, __VA_ARGS__)

#define kunit_activate_static_stub(test, function, replacement)		\
	(shim_static_stub = (replacement))

static inline bool shim_run(const struct kunit_suite *suite, const struct kunit_case *c)
{
	struct kunit test = {};

	if (suite->init && suite->init(&test))
		test.failed = true;
	else if (!setjmp(test.end))
		c->run(&test);
	if (suite->exit && !setjmp(test.end))
		suite->exit(&test);
	free(test.object);
	shim_static_stub = NULL;
	printf("%s - %s: %s%s%s\n", test.failed ? "not ok" : "ok", suite->name, c->name,
	       test.skipped ? " # SKIP " : "", test.skipped ?: "");
	fflush(stdout);
	return !test.failed;
}

static inline int shim_main(const struct kunit_suite *suite, int argc, char **argv)
{
	const struct kunit_case *c;
	bool ok = true, any = false;
	int i;

	for (c = suite->test_cases; c->run; c++) {
		for (i = 1; i < argc && strcmp(argv[i], c->name); i++)
			;
		if (argc > 1 && i == argc)
			continue;
		ok &= shim_run(suite, c);
		any = true;
	}
	if (!any)
		printf("not ok - %s: there is no such case\n", suite->name);
	return !ok || !any;
}

#define kunit_test_suite(suite)						\
	int main(int argc, char **argv)					\
	{								\
		return shim_main(&(suite), argc, argv);			\
	}

#endif
