# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What ../Makefile and ../driver.mk have in common: which kernel, which compiler, with which flags. They set SQ_NEEDS_RUST to
# nothing if there is no Rust to compile, and give `links` its recipe.

SQ_SRC := $(abspath $(dir $(lastword $(MAKEFILE_LIST)))..)

KDIR ?= /lib/modules/$(shell uname -r)/build
OUT ?= $(CURDIR)/build
OPT ?= 3
SQ_TARGET ?= x86_64-unknown-none
WERROR ?= 0
SQ_CORE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sq
SQ_NEEDS_RUST ?= 1

override OUT := $(abspath $(OUT))

# The kernel's own choices for C, said in rustc's words: no SSE and no red zone (by the target), indirect
# calls and returns through the kernel's thunks, endbr64 at entries, no jump tables (they are indirect
# jumps). C functions are called directly: through the GOT (plt=no) the loader would refuse the relocation.
SQ_RUSTFLAGS := --target $(SQ_TARGET) -Cpanic=abort -Crelocation-model=static -Ccode-model=kernel \
	-Zcf-protection=branch -Zretpoline -Zretpoline-external-thunk -Zfunction-return=thunk-extern \
	-Zplt=yes -Zdirect-access-external-data=yes \
	-Cforce-unwind-tables=n -Cjump-tables=n -Ccodegen-units=1 -Copt-level=$(OPT) \
	-Cdebuginfo=line-tables-only $(SQ_RUSTFLAGS_EXTRA)

# The version is said once, in the workspace's Cargo.toml.
SQ_VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' $(SQ_SRC)/../Cargo.toml | head -1)

# As modules carry it. (Debian's include/config/kernel.release of 6.1 says another.)
SQ_RELEASE = $(shell sed -n 's/^.define UTS_RELEASE "\(.*\)"/\1/p' $(KDIR)/include/generated/utsrelease.h)

export SQ_SRC SQ_RUSTFLAGS SQ_VERSION WERROR

all: modules

ifneq ($(filter all modules check,$(or $(MAKECMDGOALS),all)),)
  # Nothing, or "error: ..."
  SQ_KERNEL_FAULT := $(shell sh $(SQ_SRC)/scripts/check-kernel.sh $(KDIR))
  ifneq ($(SQ_KERNEL_FAULT),)
    $(error $(wordlist 2,$(words $(SQ_KERNEL_FAULT)),$(SQ_KERNEL_FAULT)))
  endif
  ifneq ($(SQ_NEEDS_RUST),)
    # One line: "rustc-path library-path key", or "error: ..."
    SQ_RUST_FOUND := $(shell RUSTC='$(RUSTC)' SQ_RUSTFLAGS='$(SQ_RUSTFLAGS)' sh $(SQ_SRC)/scripts/find-rust.sh)
    ifeq ($(firstword $(SQ_RUST_FOUND)),error:)
      $(error $(wordlist 2,$(words $(SQ_RUST_FOUND)),$(SQ_RUST_FOUND)))
    endif
    export SQ_RUSTC := $(word 1,$(SQ_RUST_FOUND))
    SQ_LIBRARY := $(word 2,$(SQ_RUST_FOUND))
    export SQ_SYSROOT := $(SQ_CORE)/core-$(word 3,$(SQ_RUST_FOUND))
    SQ_CORE_RLIB := $(SQ_SYSROOT)/lib/rustlib/x86_64-unknown-none/lib/libcore.rlib
  endif
endif

# Type information for BPF needs pahole; headers packages do not bring it, and a module loads without.
KBUILD := $(MAKE) -C $(KDIR) M=$(OUT) $(if $(shell command -v pahole),,CONFIG_DEBUG_INFO_BTF_MODULES=)

# Kbuild before 6.13 writes beside the sources it is given: so it is given links to them.
modules: $(SQ_CORE_RLIB) links
	+$(KBUILD) modules

# Does not build: usually run as root, whose compiler and cache are not the ones that built.
modules_install:
	@test -f $(OUT)/modules.order || { echo "nothing built in $(OUT): run make first" >&2; exit 1; }
	+$(KBUILD) modules_install

ifneq ($(SQ_CORE_RLIB),)
$(SQ_CORE_RLIB):
	@sh $(SQ_SRC)/scripts/build-core.sh $(SQ_RUSTC) $(SQ_LIBRARY) $(SQ_SYSROOT)
endif

# Everything that can be known to be missing was looked for above.
check:
	@echo "sq $(SQ_VERSION) can be built for kernel $(SQ_RELEASE)$(if $(SQ_RUSTC), by $(SQ_RUSTC))"

clean:
	rm -rf $(OUT)

.PHONY: all modules modules_install links check clean
