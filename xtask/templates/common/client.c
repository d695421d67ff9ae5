// SPDX-License-Identifier: MIT OR Apache-2.0
/* A client in C, with nothing but sq.h: a ring of /dev/sqsample, two commands in one batch, two completions. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sq.h>

#include "sample.h"

static void check(int good, const char *what)
{
	if (!good) {
		perror(what);
		exit(1);
	}
}

static char *map(int fd, const struct sq_region *region, int prot)
{
	char *at = mmap(NULL, region->size, prot, MAP_SHARED, fd, region->offset);

	check(at != MAP_FAILED, "mmap");
	return at;
}

static void command(struct sq_sqe *sqe, __u32 cmd_op, const void *payload, size_t bytes, __u64 user_data)
{
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = SQ_OP_CMD;
	sqe->fd = -1;
	sqe->cmd_op = cmd_op;
	sqe->user_data = user_data;
	memcpy(sqe->cmd, payload, bytes);
}

int main(void)
{
	struct sq_setup setup = { .size = sizeof(setup), .sq_entries = 8 };
	struct sq_enter enter = { .size = sizeof(enter), .min_complete = 2 };
	struct sample_later later = { .value = 7, .delay_ms = 10 };
	struct sample_add add = { .a = 40, .b = 2 };
	_Atomic __u32 *sq_tail, *cq_tail, *cq_head;
	__u32 tail = 0, head = 0;
	struct sq_sqe *sqes;
	struct sq_cqe *cqes;
	char *user, *kernel;
	int fd = open("/dev/sqsample", O_RDWR | O_CLOEXEC);

	check(fd >= 0, "/dev/sqsample");
	check(ioctl(fd, SQ_IOC_SETUP, &setup) == 0, "SETUP");
	user = map(fd, &setup.user, PROT_READ | PROT_WRITE);
	kernel = map(fd, &setup.kernel, PROT_READ);
	sqes = (struct sq_sqe *)(user + setup.offsets.sqes);
	cqes = (struct sq_cqe *)(kernel + setup.offsets.cqes);
	sq_tail = (_Atomic __u32 *)(user + setup.offsets.sq_tail);
	cq_head = (_Atomic __u32 *)(user + setup.offsets.cq_head);
	cq_tail = (_Atomic __u32 *)(kernel + setup.offsets.cq_tail);

	command(&sqes[tail++ & (setup.sq_entries - 1)], SAMPLE_LATER, &later, sizeof(later), 1);
	command(&sqes[tail++ & (setup.sq_entries - 1)], SAMPLE_ADD, &add, sizeof(add), 2);
	/* The entries are written before the tail is, and a batch has one doorbell. This one also waits. */
	atomic_store_explicit(sq_tail, tail, memory_order_release);
	check(ioctl(fd, SQ_IOC_ENTER, &enter) == 0 && enter.wait_result == 0, "ENTER");

	while (head != atomic_load_explicit(cq_tail, memory_order_acquire)) {
		const struct sq_cqe *cqe = &cqes[head++ & (setup.cq_entries - 1)];

		printf("%llu: %d\n", (unsigned long long)cqe->user_data, cqe->res);
	}
	atomic_store_explicit(cq_head, head, memory_order_release);
	return head == 2 ? 0 : 1;
}
