# SPDX-License-Identifier: GPL-2.0-only
# Rules of the type1v3 selftests. Inside a kernel tree the Makefile of this
# directory includes this file at its end; elsewhere ours does.

TYPE1V3_TESTS := $(addprefix $(OUTPUT)/, \
	type1v3_load \
	type1v3_on_mock \
	type1v3_uapi_test \
	type1v3_limits_test \
	type1v3_memlock_test \
	type1v3_many_test \
	type1v3_dma_test \
	type1v3_cut_test \
	type1v3_batch_test \
	type1v3_emulated_test \
	type1v3_dirty_test \
	type1v3_mock_test \
	type1v3_fault_test \
	type1v3_vaddr_test \
	type1v3_trace_test \
	type1v3_compare_test \
	type1v3_stream_test \
	type1v3_race_test \
	type1v3_failnth_test \
	type1v3_fuzz)
# selfdir comes from ../lib.mk
TYPE1V3_CFLAGS ?= -I$(selfdir)

# The program that the guide consists of
TYPE1V3_GUIDE := ../../../../Documentation/userspace-api/vfio-type1v3.rst
TYPE1V3_EXAMPLE := $(if $(wildcard $(TYPE1V3_GUIDE)),$(addprefix $(OUTPUT)/, \
	type1v3_example type1v3_trackers_test))

TEST_PROGS += run_type1v3_tests.sh
TEST_PROGS_EXTENDED += type1v3_tracers.sh
TEST_GEN_PROGS_EXTENDED += $(TYPE1V3_TESTS) $(TYPE1V3_EXAMPLE)

all: $(TYPE1V3_TESTS) $(TYPE1V3_EXAMPLE)

$(TYPE1V3_TESTS): $(OUTPUT)/%: %.c type1v3_lib.c type1v3_nvme.c type1v3_emulated.c \
		type1v3_mock.c type1v3_lib.h type1v3_emulated.h type1v3_mock.h \
		type1v3_harness.h
	$(CC) -std=gnu11 -O2 -Wall -Werror -D_GNU_SOURCE= $(TYPE1V3_CFLAGS) \
		$(KHDR_INCLUDES) $(filter %.c,$^) -pthread -o $@

# needs nothing but the headers, as a program elsewhere
$(OUTPUT)/type1v3_example: type1v3_samples.sh $(TYPE1V3_GUIDE)
	sh $^ >$@.c
	$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror $(TYPE1V3_CFLAGS) $(KHDR_INCLUDES) $@.c -o $@

# calls some of its functions
$(OUTPUT)/type1v3_trackers_test: type1v3_trackers_test.c type1v3_samples.sh $(TYPE1V3_GUIDE)
	sh type1v3_samples.sh $(TYPE1V3_GUIDE) trackers >$(OUTPUT)/type1v3_trackers.h
	$(CC) -std=gnu11 -O2 -Wall -Werror -Wno-unused-function $(TYPE1V3_CFLAGS) \
		$(KHDR_INCLUDES) -I$(OUTPUT) $< -o $@
