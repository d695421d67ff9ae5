#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# link-sources.sh OUT KBUILD DIR FILE..: OUT gets a link to the file KBUILD, named so, and to each FILE below DIR, so that
# Kbuild's objects land in OUT and the source tree stays clean.
set -eu
out=$1 kbuild=$2 dir=$3
shift 3
mkdir -p "$out"
find "$out" -type l ! -exec test -e {} \; -delete
ln -sf "$kbuild" "$out/Kbuild"
for file in "$@"; do
	mkdir -p "$(dirname "$out/$file")"
	ln -sf "$dir/$file" "$out/$file"
done
