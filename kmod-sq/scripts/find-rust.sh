#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Finds a rustc that has the sources of its own core library, and prints
# "RUSTC LIBRARY KEY" (KEY names a compiled core: compiler and flags), or "error: WHAT TO DO".
# Reads: RUSTC (use this one only), SQ_RUSTFLAGS.
set -u
min=88 # 1.88: edition 2024 and the -Z flags that the kernel's mitigations need
hint="Debian 12: apt install rustc-web rust-web-src. Newer ones, if their rustc is: apt install rustc rust-src. rustup: rustup component add rust-src"
why=""
export RUSTC_BOOTSTRAP=1
unset MAKEFLAGS MFLAGS CARGO_MAKEFLAGS # rustc would warn about the jobserver of make -j

# HOME is not set where DKMS builds at boot.
for rustc in ${RUSTC:-rustc /usr/bin/rustc "${HOME:-}/.cargo/bin/rustc" /usr/local/bin/rustc}; do
	if ! version=$("$rustc" --version 2>/dev/null); then
		[ "${RUSTC:-}" != "$rustc" ] || why="$why $rustc does not run;"
		continue
	fi
	rustc=$(command -v "$rustc")
	minor=$(expr "$version" : 'rustc 1\.\([0-9]*\)' || echo 0)
	if [ "$minor" -lt $min ]; then
		why="$why $rustc is 1.$minor, older than 1.$min;"
		continue
	fi
	library=$("$rustc" --print sysroot)/lib/rustlib/src/rust/library
	if [ ! -f "$library/core/src/lib.rs" ]; then
		why="$why $rustc has no sources at $library;"
		continue
	fi
	# Debian's two packages can drift apart; the directory behind the link carries the version.
	case $(readlink -f "$library") in
	*/rustc-1."$minor".*) ;;
	*/rustc-1.*)
		why="$why $rustc is 1.$minor but its sources are $(readlink -f "$library");"
		continue
		;;
	esac
	if ! refusal=$("$rustc" $SQ_RUSTFLAGS --print cfg 2>&1 >/dev/null); then
		why="$why $rustc refuses a flag ($(echo "$refusal" | head -1));"
		continue
	fi
	key=$({ "$rustc" -vV; echo "$SQ_RUSTFLAGS"; cat "${0%/*}/build-core.sh"; } | sha256sum | cut -c1-16)
	echo "$rustc $library $key"
	exit 0
done
echo "error: no usable rustc (need 1.$min or newer with its library sources).$why $hint"
