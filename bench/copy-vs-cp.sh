#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Compares `sq-storage copy --no-verify` with `cp --reflink=never --sparse=never`: one large file, warm page cache, the same
# filesystem, the median of interleaved runs. Both end when the bytes are in the page cache: neither flushes.
#
#   bench/copy-vs-cp.sh [-d DIR] [-s SIZE] [-n RUNS] [-o CSV] [-- ARGS of sq-storage copy]
#
#   -d DIR   where the file is made and copied (default: $TMPDIR or /tmp); it takes twice SIZE
#   -s SIZE  of the file, as head -c takes it (default: 2G)
#   -n RUNS  of each (default: 5)
#   -o CSV   keep the raw figures in this file
#
# Other work on the machine decides the result more than anything else: with both CPUs of two busy, there is nothing to
# overlap reading and writing with. The load is printed beside the figures.
set -euo pipefail

dir=${TMPDIR:-/tmp} size=2G runs=5 csv=
while getopts d:s:n:o:h option; do
    case $option in
        d) dir=$OPTARG ;;
        s) size=$OPTARG ;;
        n) runs=$OPTARG ;;
        o) csv=$OPTARG ;;
        *) sed -n '3,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; [ "$option" = h ]; exit ;;
    esac
done
shift $((OPTIND - 1))

root=$(cd "$(dirname "$0")/.." && pwd)
if [ -z "${SQ_STORAGE:-}" ]; then
    cargo build --quiet --release --manifest-path "$root/Cargo.toml" -p sq-storage
    SQ_STORAGE=${CARGO_TARGET_DIR:-$root/target}/release/sq-storage
fi

work=$(mktemp -d "$dir/copy-vs-cp.XXXXXX")
trap 'rm -rf "$work"' EXIT
# Random, so that no filesystem compresses it or finds holes.
head -c "$size" /dev/urandom > "$work/src"

# timed NAME COMMAND...: one line "NAME,seconds,load"
timed() {
    local name=$1 start end
    shift
    rm -f "$work/dst"
    # What the run before left dirty is not this one's burden, and the source is in the cache.
    sync
    cat "$work/src" > /dev/null
    start=$(date +%s%N)
    "$@" > /dev/null
    end=$(date +%s%N)
    awk -v n="$name" -v t=$((end - start)) -v l="$(cut -d' ' -f1 /proc/loadavg)" 'BEGIN { printf "%s,%.3f,%s\n", n, t / 1e9, l }'
}

{
    echo "tool,seconds,load"
    for _ in $(seq "$runs"); do
        timed cp cp --reflink=never --sparse=never "$work/src" "$work/dst"
        timed sq-storage "$SQ_STORAGE" copy --no-verify "$@" "$work/src" "$work/dst"
        cmp --quiet "$work/src" "$work/dst" || { echo "the copy is not the same" >&2; exit 1; }
    done
} | tee "$work/raw.csv"
[ -z "$csv" ] || cp "$work/raw.csv" "$csv"

median() { grep "^$1," "$work/raw.csv" | cut -d, -f2 | sort -n | awk '{ a[NR] = $1 } END { print (a[int((NR + 1) / 2)] + a[int(NR / 2) + 1]) / 2 }'; }
bytes=$(stat -c %s "$work/src")
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
echo
echo "$(nproc) x $cpu, Linux $(uname -r), $(stat -f -c %T "$work"), $(cp --version | head -1)"
awk -v c="$(median cp)" -v s="$(median sq-storage)" -v b="$bytes" 'BEGIN {
    printf "cp          median %.3f s  %.0f MB/s\n", c, b / c / 1e6
    printf "sq-storage  median %.3f s  %.0f MB/s\n", s, b / s / 1e6
    printf "speed of sq-storage: %.2f of cp (wanted: at least 0.95)\n", c / s
}'
