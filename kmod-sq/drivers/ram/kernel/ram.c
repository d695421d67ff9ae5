// SPDX-License-Identifier: MIT OR Apache-2.0
/* sq_ram.ko: the driver is in ../src. The memory is made here. */
#include <linux/mm.h>
#include <linux/vmalloc.h>
#include <sq_rust.h>

static ulong bytes = 16 << 20;
module_param(bytes, ulong, 0444);
MODULE_PARM_DESC(bytes, "size of /dev/sqram, rounded up to pages, at most half of the memory (default 16 MiB)");

/* src/vmalloc.rs reads these. */
void *sq_ram_start;
size_t sq_ram_bytes;

static int __init sq_ram_make(void)
{
	if (!bytes || bytes > (totalram_pages() << PAGE_SHIFT) / 2) {
		pr_err("sq_ram: bytes=%lu is not 1 to half of the memory\n", bytes);
		return -EINVAL;
	}
	sq_ram_bytes = PAGE_ALIGN(bytes);
	/* Whoever loads the module pays for it. */
	sq_ram_start = __vmalloc(sq_ram_bytes, GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	return sq_ram_start ? 0 : -ENOMEM;
}

static void sq_ram_free(void)
{
	vfree(sq_ram_start);
}

module_sq_rust_driver_with(sq_ram_make, sq_ram_free);
MODULE_DESCRIPTION("sq driver of a store in memory");
MODULE_VERSION(SQ_VERSION);
MODULE_LICENSE("Dual MIT/GPL");
