// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A ring in a 32-bit process: the same structures, the same numbers. Linked with
 * nothing: gcc -m32 -nostdlib -static. The exit code is the line that failed.
 */
#include <sq.h>
#include <sys/syscall.h>

#define PROT_READ	1
#define PROT_WRITE	2
#define MAP_SHARED	1
#define O_RDWR		2

long call(long number, long a, long b, long c, long d, long e, long f);
/* Seven arguments from the stack to registers, and int 0x80. */
__asm__(".globl call\n"
	"call:\n"
	"	push %ebp\n	push %ebx\n	push %esi\n	push %edi\n"
	"	mov 20(%esp), %eax\n	mov 24(%esp), %ebx\n	mov 28(%esp), %ecx\n	mov 32(%esp), %edx\n"
	"	mov 36(%esp), %esi\n	mov 40(%esp), %edi\n	mov 44(%esp), %ebp\n"
	"	int $0x80\n"
	"	pop %edi\n	pop %esi\n	pop %ebx\n	pop %ebp\n	ret\n");

static void leave(int code)
{
	call(SYS_exit, code, 0, 0, 0, 0, 0);
	for (;;)
		;
}

#define WANT(what)			\
	do {				\
		if (!(what))		\
			leave(__LINE__ & 0xff ? __LINE__ & 0xff : 1); \
	} while (0)

static char *map(long fd, const struct sq_region *region, long prot)
{
	/* mmap2 takes pages. */
	long at = call(SYS_mmap2, 0, (long)region->size, prot, MAP_SHARED, fd, (long)(region->offset >> 12));

	WANT((unsigned long)at < -4095UL);
	return (char *)at;
}

static volatile __u32 *word(char *region, __u32 offset)
{
	return (volatile __u32 *)(region + offset);
}

void _start(void)
{
	struct sq_query query = { .size = sizeof(query) };
	struct sq_setup setup = { .size = sizeof(setup), .sq_entries = 8 };
	struct sq_enter enter = { .size = sizeof(enter), .flags = SQ_ENTER_TIMEOUT, .min_complete = 8 };
	struct sq_sqe *sqes;
	struct sq_cqe *cqes;
	char *user, *kernel;
	long fd, i;

	fd = call(SYS_open, (long)"/dev/sqnull", O_RDWR, 0, 0, 0, 0);
	WANT(fd >= 0);
	WANT(call(SYS_ioctl, fd, SQ_IOC_QUERY, (long)&query, 0, 0, 0) == 0);
	WANT(query.abi_version == SQ_ABI_VERSION);
	WANT(call(SYS_ioctl, fd, SQ_IOC_SETUP, (long)&setup, 0, 0, 0) == 0);
	user = map(fd, &setup.user, PROT_READ | PROT_WRITE);
	kernel = map(fd, &setup.kernel, PROT_READ);
	sqes = (struct sq_sqe *)(user + setup.offsets.sqes);
	cqes = (struct sq_cqe *)(kernel + setup.offsets.cqes);
	for (i = 0; i < 8; i++) {
		sqes[i].opcode = SQ_OP_NOP;
		sqes[i].fd = -1;
		sqes[i].user_data = 0x123456789abcdef0ULL + i;
	}
	*word(user, setup.offsets.sq_tail) = 4;
	WANT(call(SYS_ioctl, fd, SQ_IOC_ENTER, 0, 0, 0, 0) == 4);
	*word(user, setup.offsets.sq_tail) = 8;
	enter.timeout_ns = 5000000000ULL;
	WANT(call(SYS_ioctl, fd, SQ_IOC_ENTER, (long)&enter, 0, 0, 0) == 0);
	WANT(enter.consumed == 4 && enter.wait_result == 0);
	WANT(*word(kernel, setup.offsets.cq_tail) == 8);
	for (i = 0; i < 8; i++)
		WANT(cqes[i].user_data == 0x123456789abcdef0ULL + i && cqes[i].res == 0);
	/* No -EFAULT and no -EINVAL for what is wrong in 64 bits only. */
	WANT(call(SYS_ioctl, fd, SQ_IOC_ENTER, -1, 0, 0, 0) == -14);
	leave(0);
}
