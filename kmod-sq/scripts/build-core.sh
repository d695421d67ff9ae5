#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# build-core.sh RUSTC LIBRARY SYSROOT: compiles core with the flags of the modules (SQ_RUSTFLAGS) into a
# sysroot. Half a minute, once per compiler and flags. Safe when several builds want it at the same time.
set -eu
rustc=$1 library=$2 sysroot=$3
lib=lib/rustlib/x86_64-unknown-none/lib
export RUSTC_BOOTSTRAP=1
unset MAKEFLAGS MFLAGS CARGO_MAKEFLAGS # rustc would warn about the jobserver of make -j

mkdir -p "$(dirname "$sysroot")"
exec 9>"$sysroot.lock"
flock 9 2>/dev/null || true # without flock two builds do the work twice; the rename below stays atomic
[ ! -f "$sysroot/$lib/libcore.rlib" ] || exit 0

echo "  RUSTC   core (once, kept in $sysroot)"
work=$(mktemp -d "$sysroot.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/$lib"

# Bitcode only: code is generated when everything is optimised together, as one object per module.
$rustc $SQ_RUSTFLAGS -Clinker-plugin-lto --edition 2024 --cap-lints allow --crate-type rlib \
	--remap-path-prefix "$library=library" --crate-name core -o "$work/$lib/libcore.rlib" "$library/core/src/lib.rs"

# rustc looks for this crate in every sysroot. What it would hold (memcpy and its kin) the kernel has. No bitcode: it would be a
# section of the module when a sanitizer adds a constructor even to this.
printf '#![feature(compiler_builtins)]\n#![compiler_builtins]\n#![no_std]\n' >"$work/compiler_builtins.rs"
$rustc --sysroot "$work" $SQ_RUSTFLAGS -Cembed-bitcode=no --edition 2024 --cap-lints allow --crate-type rlib \
	--crate-name compiler_builtins -o "$work/$lib/libcompiler_builtins.rlib" "$work/compiler_builtins.rs"

rm -rf "$sysroot"
mv "$work" "$sysroot"
