#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# The guest's first process: runs /sq/jobs/* in order, then hands /out to the host as a tar over the second UART.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/w TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t debugfs debug /sys/kernel/debug 2>/dev/null
mount -t tracefs trace /sys/kernel/tracing 2>/dev/null
# Who enables a tracepoint would have schedule() patched too, which QEMU before 8.1 may get wrong: see guest.rs.
echo 0 >/sys/kernel/tracing/options/record-cmd 2>/dev/null
ifconfig lo up 2>/dev/null
chmod 1777 /tmp /dev/shm
chmod 0777 /w /w/out
ln -s /proc/self/fd /dev/fd
dmesg -c >/out/boot.dmesg
cd /w

for job in /sq/jobs/*; do
	name=${job##*/}
	out=/out/$name
	mkdir -p "$out"
	cat /proc/uptime >"$out/began"
	echo "sq-job $name $(cat "$job/name")" >/dev/console
	run="sh $job/run"
	[ ! -e "$job/user" ] || run="su -s /bin/sh sq -c 'sh $job/run'"
	eval "timeout -s KILL $(cat "$job/timeout") $run" >"$out/stdout" 2>"$out/stderr" </dev/null
	echo $? >"$out/code"
	cat /proc/uptime >"$out/ended"
	dmesg -c >"$out/dmesg"
done
# What the last one caused may be said a moment later.
[ -e /sq/shell ] || { sleep 1 && dmesg -c >>"$out/dmesg"; }

if [ -e /sq/shell ]; then
	dmesg -n 4
	echo "guest $(uname -r); 'exit' ends it" >/dev/console
	setsid cttyhack sh
else
	cp -r /w/out /out/files
	echo done >/out/done # the host believes nothing else
	stty -F /dev/ttyS1 raw -echo
	tar c -C /out . >/dev/ttyS1
fi
qexit
poweroff -f
