# SPDX-License-Identifier: GPL-2.0-only
#
# The modules outside a kernel tree:  make [KDIR=<headers or build directory>]
# Everything else:                    make help

KDIR ?= /lib/modules/$(shell uname -r)/build

modules: check-kernel
modules modules_install clean:
	$(MAKE) -C $(KDIR) M=$(CURDIR) $@

# KERNEL_MODULES=<directory>: those of that kernel, if not in /lib/modules
check-kernel:
	compat/check-ops.sh $(KDIR) $(KERNEL_MODULES)

in-tree:
	@test -n "$(KSRC)" || { echo "usage: make in-tree KSRC=<kernel source tree>"; exit 2; }
	scripts/in-tree.sh $(KSRC)

demo:
	scripts/deps.sh demo
	tools/testing/vm/demo.sh

patches:
	@test -n "$(KSRC)" || { echo "usage: make patches KSRC=<kernel source tree>"; exit 2; }
	scripts/patches.sh $(KSRC)

deb:
	scripts/deps.sh deb
	scripts/deb.sh

test:
	scripts/deps.sh test
	tools/testing/vm/test.sh

test-debug:
	scripts/deps.sh test
	tools/testing/vm/test.sh build-debug kunit-debug failnth selftests-debug-vtd \
		selftests-debug-virtio softlockup

kcsan:
	scripts/deps.sh test
	tools/testing/vm/test.sh build-kcsan kcsan

test-all:
	scripts/deps.sh test-all
	tools/testing/vm/test.sh '*'

mutants:
	scripts/deps.sh test
	tools/testing/vm/test.sh mutants mutants-kunit

# with IOMMU=mock the machine's own is not used; RECORD=pt is that of VFIO_TYPE1v3_PT_IOMMU
MACHINE = $(or $(filter-out mock,$(IOMMU)),vtd)
FUZZ = type1v3_fuzz $(if $(filter mock,$(IOMMU)),--mock) $(if $(filter pt,$(RECORD)),--pt)

OPS ?= 100000
fuzz:
	scripts/deps.sh test
	tools/testing/vm/selftests.sh -c 2 -t 36000 lean $(MACHINE) \
		"$(FUZZ) --ops $(OPS) $(if $(SEED),--seed $(SEED)) $(FUZZ_ARGS)"

SECONDS ?= 1800
soak:
	scripts/deps.sh test
	tools/testing/vm/selftests.sh -c 2 -t $$(($(SECONDS) + 1800)) lean $(MACHINE) \
		"$(FUZZ) --soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))"

RACE_SECONDS ?= 60
races:
	scripts/deps.sh test
	TYPE1V3_SECONDS=$(RACE_SECONDS) tools/testing/vm/selftests.sh -c 2 -t 36000 lean vtd \
		type1v3_race_test type1v3_stream_test \
		'type1v3_on_mock three-dirty,close-dirty type1v3_race_test' \
		'type1v3_on_mock calls,below type1v3_race_test'

qemu:
	scripts/deps.sh qemu
	scripts/qemu.sh

bench:
	scripts/deps.sh bench
	tools/testing/vm/bench.sh

docs:
	scripts/deps.sh docs
	scripts/docs.sh

lint:
	scripts/deps.sh test
	scripts/lint.sh
	tools/testing/vm/test.sh in-tree-m

help:
	@echo 'make [KDIR=...]         build the modules (default: for the running kernel)'
	@echo 'make modules_install    install them'
	@echo 'make in-tree KSRC=...   copy the sources into a kernel tree and hook them up'
	@echo 'make patches KSRC=...   a series for git am, in patches/'
	@echo 'make deb                Debian packages for DKMS and for programs, in dist/'
	@echo 'make demo               a guest reads its disk through type1v3'
	@echo 'make test               every test, in virtual machines; installs what it needs'
	@echo 'make test-all           the same, and the tests that take long'
	@echo 'make test-debug         KUnit, kselftests and failing allocations on a debug kernel'
	@echo 'make mutants            do the tests notice mistakes: each of a list of edits must fail one'
	@echo 'make kcsan              the tests with threads on a kernel that looks for data races'
	@echo 'make fuzz [OPS=... SEED=... IOMMU=vtd|virtio|amd|mock RECORD=pt]  random calls against a model'
	@echo 'make soak [SECONDS=... IOMMU=mock RECORD=pt] mixed load for 30 minutes: nothing may grow'
	@echo 'make races [RACE_SECONDS=...]  all calls at once, and a device that never stops'
	@echo 'make qemu               a QEMU that uses granules and batches, and one that does not'
	@echo 'make bench              what mapping costs, beside type1v2 and iommufd'
	@echo 'make docs               the documents as HTML, with the Sphinx set-up of the kernel'
	@echo 'make lint               checkpatch, sparse, W=1, shellcheck, kernel-doc, codespell'
	@echo 'make clean              remove what a build outside a tree leaves here'

.PHONY: modules check-kernel modules_install clean in-tree patches deb demo test test-all test-debug mutants kcsan fuzz soak races qemu bench docs lint help
