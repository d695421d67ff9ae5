// SPDX-License-Identifier: MIT OR Apache-2.0
/* sq_null.ko: the driver is drivers/null, in Rust. */
#include <linux/err.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <sq_driver.h>

#include "panic.h"

/* kernel/null.rs */
const struct sq_driver_table *sq_null_table(void);
const void *sq_null_data(void);

static ushort mode = 0600;
module_param(mode, ushort, 0444);
MODULE_PARM_DESC(mode, "permissions of /dev/sqnull (default 0600)");

static struct sq_device *sq_null_device;

static int __init sq_null_init(void)
{
	sq_null_device = sq_driver_register(sq_null_table(), sq_null_data(), THIS_MODULE, mode);
	return PTR_ERR_OR_ZERO(sq_null_device);
}

static void __exit sq_null_exit(void)
{
	sq_driver_unregister(sq_null_device);
}

module_init(sq_null_init);
module_exit(sq_null_exit);
MODULE_DESCRIPTION("sq driver that does nothing, on demand slowly");
MODULE_VERSION(SQ_VERSION);
MODULE_LICENSE("Dual MIT/GPL");
