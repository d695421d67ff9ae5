#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What ../../dkms.conf runs around a build, in DKMS's copy of the sources.
#
# dkms.sh check KDIR          fails, and says why, if make would
# dkms.sh keep-symvers DIR    copies Module.symvers of the build to DIR
set -eu
kmod_sq=$(dirname "$0")/..
case $1 in
check) exec make --no-print-directory -C "$kmod_sq" KDIR="$2" check ;;
keep-symvers) exec install -m 644 "$kmod_sq/build/Module.symvers" "$2/Module.symvers" ;;
esac
