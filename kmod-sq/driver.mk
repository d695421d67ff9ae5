# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Builds a driver that lives outside this tree. All that its Makefile says is what it is made of:
#
#   SQ_NAME := blink            # the module is sq_blink.ko
#   SQ_RUST := src/lib.rs       # root of its crate; leave it out if there is no Rust
#   SQ_C := module.c            # its C files; one of them has module_sq_driver() or module_sq_rust_driver()
#   include $(SQ_DIR)/kmod-sq/driver.mk
#
# SQ_DIR is a checkout of sq, or its sources in /usr/src. Targets: modules (the default), modules_install, load, unload, clean.
#
# Variables, besides those of `make help` in this folder:
#   SQ_OUT    where sq.ko was built for the same kernel; its Module.symvers is needed   (default: $(SQ_DIR)/kmod-sq/build)
#   PARAMS    module parameters for `make load`, such as mode=0666

# First, so that it is the default.
all:

SQ_OUT ?= $(SQ_DIR)/kmod-sq/build
SQ_DRIVER_DIR := $(CURDIR)
SQ_NEEDS_RUST := $(SQ_RUST)
SQ_SYMBOLS := $(abspath $(SQ_OUT))/Module.symvers
# For these alone: what else a driver's Makefile does may well build another module.
modules modules_install: export KBUILD_EXTRA_SYMBOLS = $(SQ_SYMBOLS)
$(foreach name,SQ_NAME SQ_RUST SQ_C SQ_DRIVER_DIR,$(eval modules modules_install: export $(name) := $($(name))))

include $(dir $(lastword $(MAKEFILE_LIST)))scripts/common.mk

ifeq ($(SQ_NAME),)
  $(error SQ_NAME is not set: the driver's name, as in its table)
endif
ifeq ($(SQ_C),)
  $(error SQ_C is not set: the driver's C files, one of which has module_sq_driver() or module_sq_rust_driver())
endif
ifneq ($(filter sq_$(SQ_NAME).c,$(SQ_C)),)
  $(error sq_$(SQ_NAME).c: a module and one of its files cannot have the same name; call the file $(SQ_NAME).c)
endif

# A module of another kernel's sq.ko would build, and not load.
links:
	@test -f $(SQ_SYMBOLS) || { echo "no $(SQ_SYMBOLS): build sq.ko for this kernel first" \
		"(make -C $(SQ_SRC) KDIR=$(KDIR)), or name its folder by SQ_OUT=" >&2; exit 1; }
	@for_kernel=$$(PATH=$$PATH:/sbin modinfo -F vermagic $(SQ_OUT)/sq.ko 2>/dev/null | cut -d' ' -f1); \
	kernel=$(SQ_RELEASE); test "$${for_kernel:-$$kernel}" = "$$kernel" || { \
		echo "$(SQ_OUT)/sq.ko is for kernel $$for_kernel, this is for $$kernel: build it again" \
		"(make -C $(SQ_SRC) KDIR=$(KDIR)), or name another folder by SQ_OUT=" >&2; exit 1; }
	@sh $(SQ_SRC)/scripts/link-sources.sh $(OUT) $(SQ_SRC)/scripts/driver.kbuild $(SQ_DRIVER_DIR) $(SQ_C)

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

load:
	test -d /sys/module/sq || $(SUDO) insmod $(SQ_OUT)/sq.ko || $(SUDO) modprobe sq
	$(SUDO) insmod $(OUT)/sq_$(SQ_NAME).ko $(PARAMS)

unload:
	$(SUDO) rmmod sq_$(SQ_NAME)

.PHONY: load unload
