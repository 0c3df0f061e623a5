# SPDX-License-Identifier: GPL-2.0-only
# Rules of the type1v3 selftests. Inside a kernel tree the Makefile of this
# directory includes this file at its end; elsewhere ours does.

TYPE1V3_TESTS := $(addprefix $(OUTPUT)/, \
	type1v3_load \
	type1v3_uapi_test \
	type1v3_limits_test \
	type1v3_many_test \
	type1v3_dma_test \
	type1v3_cut_test \
	type1v3_batch_test \
	type1v3_emulated_test \
	type1v3_dirty_test \
	type1v3_vaddr_test \
	type1v3_trace_test \
	type1v3_compare_test \
	type1v3_stream_test \
	type1v3_race_test \
	type1v3_failnth_test \
	type1v3_fuzz)
# selfdir comes from ../lib.mk
TYPE1V3_CFLAGS ?= -I$(selfdir)

TEST_PROGS += run_type1v3_tests.sh
TEST_PROGS_EXTENDED += type1v3_tracers.sh
TEST_GEN_PROGS_EXTENDED += $(TYPE1V3_TESTS) $(OUTPUT)/type1v3_example

all: $(TYPE1V3_TESTS) $(OUTPUT)/type1v3_example

$(TYPE1V3_TESTS): $(OUTPUT)/%: %.c type1v3_lib.c type1v3_nvme.c type1v3_emulated.c \
		type1v3_lib.h type1v3_emulated.h type1v3_harness.h
	$(CC) -std=gnu11 -O2 -Wall -Werror -D_GNU_SOURCE= $(TYPE1V3_CFLAGS) \
		$(KHDR_INCLUDES) $(filter %.c,$^) -pthread -o $@

# needs nothing but the headers, as a program elsewhere
$(OUTPUT)/type1v3_example: type1v3_example.c
	$(CC) -std=gnu11 -O2 -Wall -Werror $(TYPE1V3_CFLAGS) $(KHDR_INCLUDES) $< -o $@
