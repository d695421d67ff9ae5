// SPDX-License-Identifier: MIT OR Apache-2.0
// Writes to QEMU's isa-debug-exit port: QEMU ends with status (16 << 1) | 1 = 33. Needs root, no libc.

static long call(long number, long a, long b, long c)
{
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return ret;
}

void _start(void)
{
	call(162, 0, 0, 0); /* sync */
	if (call(173, 0xf4, 4, 1) == 0) /* ioperm */
		__asm__ volatile("outl %0, %1" : : "a"(16), "Nd"((unsigned short)0xf4));
	call(60, 1, 0, 0); /* exit: still here, so it did not work */
	for (;;)
		;
}
