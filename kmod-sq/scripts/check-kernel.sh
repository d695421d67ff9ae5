#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# check-kernel.sh KDIR: prints nothing if modules can be built for the kernel whose build directory KDIR is, else
# "error: WHAT TO DO".
set -eu
kdir=$1
config=$kdir/include/config/auto.conf

fail() {
	echo "error: $*"
	exit 0
}
has() { grep -qx "$1=y" "$config"; }

if [ ! -f "$kdir/Makefile" ]; then
	release=$(expr "$kdir" : '/lib/modules/\([^/]*\)/build$' || uname -r)
	fail "no kernel headers at $kdir. Debian, Ubuntu: apt install linux-headers-$release." \
		"Or name another kernel's: make KDIR=/path/to/build"
fi
release=$(sed -n 's/^#define UTS_RELEASE "\(.*\)"/\1/p' "$kdir/include/generated/utsrelease.h" 2>/dev/null || true)
if [ ! -f "$config" ] || [ -z "$release" ]; then
	fail "$kdir is a kernel's source that is not prepared for modules. In it: make olddefconfig modules_prepare"
fi
major=${release%%.*}
minor=${release#*.}
minor=${minor%%[!0-9]*}
if [ "$major" -lt 6 ] || { [ "$major" -eq 6 ] && [ "$minor" -lt 1 ]; }; then
	fail "$kdir is of kernel $release; sq needs 6.1 or newer. Boot a newer kernel, or name its: make KDIR=/path/to/build"
fi
has CONFIG_X86_64 || fail "$kdir is of a kernel that is not x86-64; sq is for x86-64 only, for now"
has CONFIG_MODULES || fail "$kdir is of a kernel without loadable modules (CONFIG_MODULES)"
# Its indirect calls want a type's hash in front of each function, which the Rust half has not.
if has CONFIG_CFI_CLANG || has CONFIG_CFI; then
	fail "$kdir is of a kernel with CONFIG_CFI_CLANG, which would stop at the first call into Rust; sq has no support for it yet"
fi
