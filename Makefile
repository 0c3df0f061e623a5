# SPDX-License-Identifier: GPL-2.0-only
#
# The modules outside a kernel tree:  make [KDIR=<headers or build directory>]
# Everything else:                    make help

KDIR ?= /lib/modules/$(shell uname -r)/build

modules modules_install clean:
	$(MAKE) -C $(KDIR) M=$(CURDIR) $@

in-tree:
	@test -n "$(KSRC)" || { echo "usage: make in-tree KSRC=<kernel source tree>"; exit 2; }
	scripts/in-tree.sh $(KSRC)

deps:
	scripts/deps.sh

test: deps
	tools/testing/vm/test.sh

demo: deps
	tools/testing/vm/demo.sh

lint: deps
	scripts/lint.sh

help:
	@echo 'make [KDIR=...]         build the modules (default: for the running kernel)'
	@echo 'make modules_install    install them'
	@echo 'make in-tree KSRC=...   copy the sources into a kernel tree and hook them up'
	@echo 'make test               every test, in virtual machines; installs what it needs'
	@echo 'make demo               a guest reads its disk through type1v3'
	@echo 'make lint               checkpatch, sparse, shellcheck, kernel-doc, codespell'
	@echo 'make clean              remove what a build outside a tree leaves here'

.PHONY: modules modules_install clean in-tree deps test demo lint help
