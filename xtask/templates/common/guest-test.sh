#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Runs in the guest, which has loaded sq.ko and sq_sample.ko. An exit code that is not 0 fails; so does dmesg, if it complains.
set -e
printf '2: 42\n1: 7\n' >expected
./client-c >answer
cat answer
cmp answer expected
./client-rust >answer
cat answer
grep -q '^on /dev/sqsample$' answer
tail -n 2 answer | cmp - expected
rmmod sq_sample
[ ! -e /dev/sqsample ]
