#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# link-sources.sh SRC OUT: OUT gets a link to Kbuild and to each file of SRC/kernel/glue, so that Kbuild's
# objects land in OUT and the source tree stays clean.
set -eu
src=$1 out=$2
mkdir -p "$out"
[ ! -d "$out/glue" ] || find "$out/glue" -type l ! -exec test -e {} \; -delete
ln -sf "$src/Kbuild" "$out/Kbuild"
cd "$src/kernel"
find glue -name '*.[ch]' | while read -r file; do
	mkdir -p "$out/${file%/*}"
	ln -sf "$src/kernel/$file" "$out/$file"
done
