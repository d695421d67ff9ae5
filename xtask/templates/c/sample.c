// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The driver of /dev/sqsample: one command that is done at once, and one that completes later. */
#include <linux/overflow.h>
#include <sq_module.h>

#include "sample.h"

static s32 sample_add(const struct sample_add *add)
{
	u32 sum;

	return check_add_overflow(add->a, add->b, &sum) || sum > S32_MAX ? -EOVERFLOW : (s32)sum;
}

static s32 sample_later(struct sq_op *op, const struct sample_later *later)
{
	if (later->value < 0 || later->delay_ms > 10000)
		return -EINVAL;
	/* It ends by itself, so the framework may hold it: its clock completes it, or a cancel does. */
	sq_complete_after(sq_defer(op), later->value, later->delay_ms * NSEC_PER_MSEC);
	return SQ_DEFERRED;
}

static s32 sample_issue(const void *data, struct sq_op *op)
{
	const struct sq_sqe *sqe = sq_op_sqe(op);

	switch (sqe->cmd_op) {
	case SAMPLE_ADD:
		return sample_add((const struct sample_add *)sqe->cmd);
	case SAMPLE_LATER:
		return sample_later(op, (const struct sample_later *)sqe->cmd);
	default:
		return -EOPNOTSUPP;
	}
}

/* What was given to sq_complete_after() the framework cancels. A driver that keeps a request itself completes it here. */
static void sample_cancel(const void *data, u64 id)
{
}

static const struct sq_driver_table sample_table = {
	SQ_DRIVER_TABLE("sample"),
	.opcodes	= BIT_ULL(SQ_OP_CMD),
	.issue		= sample_issue,
	.cancel		= sample_cancel,
};

module_sq_driver(&sample_table, NULL);
MODULE_DESCRIPTION("The driver of /dev/sqsample");
MODULE_LICENSE("Dual MIT/GPL");
