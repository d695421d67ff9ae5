// SPDX-License-Identifier: MIT OR Apache-2.0
/* sq_ram.ko: the driver is drivers/ram, in Rust. The memory is made here. */
#include <linux/err.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/vmalloc.h>
#include <sq_driver.h>

#include "panic.h"

/* kernel/ram.rs */
const struct sq_driver_table *sq_ram_table(void);
const void *sq_ram_data(void);

static ushort mode = 0600;
module_param(mode, ushort, 0444);
MODULE_PARM_DESC(mode, "permissions of /dev/sqram (default 0600)");

static ulong bytes = 16 << 20;
module_param(bytes, ulong, 0444);
MODULE_PARM_DESC(bytes, "size of /dev/sqram, rounded up to pages, at most half of the memory (default 16 MiB)");

/* kernel/ram.rs reads these. */
void *sq_ram_start;
size_t sq_ram_bytes;

static struct sq_device *sq_ram_device;

static int __init sq_ram_init(void)
{
	int err;

	if (!bytes || bytes > (totalram_pages() << PAGE_SHIFT) / 2) {
		pr_err("sq_ram: bytes=%lu is not 1 to half of the memory\n", bytes);
		return -EINVAL;
	}
	sq_ram_bytes = PAGE_ALIGN(bytes);
	/* Whoever loads the module pays for it. */
	sq_ram_start = __vmalloc(sq_ram_bytes, GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	if (!sq_ram_start)
		return -ENOMEM;
	sq_ram_device = sq_driver_register(sq_ram_table(), sq_ram_data(), THIS_MODULE, mode);
	err = PTR_ERR_OR_ZERO(sq_ram_device);
	if (err)
		vfree(sq_ram_start);
	return err;
}

static void __exit sq_ram_exit(void)
{
	sq_driver_unregister(sq_ram_device);
	vfree(sq_ram_start);
}

module_init(sq_ram_init);
module_exit(sq_ram_exit);
MODULE_DESCRIPTION("sq driver of a store in memory");
MODULE_VERSION(SQ_VERSION);
MODULE_LICENSE("Dual MIT/GPL");
