/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The commands of /dev/sqsample: what is in sqe->cmd. */
#ifndef _SAMPLE_H
#define _SAMPLE_H

#include <linux/types.h>

/* sqe->cmd_op: completes with a + b, or -EOVERFLOW */
#define SAMPLE_ADD	0

struct sample_add {
	__u32	a;
	__u32	b;
};

/* sqe->cmd_op: completes with value after delay_ms, at most 10000 */
#define SAMPLE_LATER	1

struct sample_later {
	__s32	value;
	__u32	delay_ms;
};

#endif /* _SAMPLE_H */
