// SPDX-License-Identifier: MIT OR Apache-2.0
/* A driver from outside the tree that asks sq.ko for what it refuses: insmod sq_outsider.ko ask=version. */
#include <linux/string.h>
#include <sq_module.h>

static char *ask = "nothing";
module_param(ask, charp, 0444);
MODULE_PARM_DESC(ask, "what to do wrong: version, size, name, flags, cancel or taken (default: nothing)");

static s32 outsider_issue(const void *data, struct sq_op *op)
{
	return 0;
}

static void outsider_cancel(const void *data, u64 id)
{
}

static struct sq_driver_table outsider = {
	.size		= sizeof(outsider),
	.version	= SQ_DRIVER_VERSION,
	.name		= "outsider",
	.opcodes	= 1ULL << SQ_OP_NOP,
	.issue		= outsider_issue,
	.cancel		= outsider_cancel,
};

static int outsider_ask(void)
{
	if (!strcmp(ask, "version"))
		outsider.version++;
	else if (!strcmp(ask, "size"))
		outsider.size -= sizeof(void *);
	else if (!strcmp(ask, "name"))
		outsider.name = "../mem";
	else if (!strcmp(ask, "flags"))
		outsider.flags = ~SQ_DRIVER_FILES;
	else if (!strcmp(ask, "cancel"))
		outsider.cancel = NULL;
	else if (!strcmp(ask, "taken"))
		outsider.name = "null";
	return 0;
}

static void outsider_done(void)
{
}

module_sq_driver_with(&outsider, NULL, outsider_ask, outsider_done);
MODULE_DESCRIPTION("sq driver from outside, for tests of what is refused");
MODULE_VERSION(SQ_VERSION);
MODULE_LICENSE("Dual MIT/GPL");
