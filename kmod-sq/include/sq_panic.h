/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The end of a Rust panic. Each module with Rust in it includes this in one of its files. */
#ifndef _SQ_PANIC_H
#define _SQ_PANIC_H

#include <linux/bug.h>
#include <linux/printk.h>

void __noreturn sq_panic(const char *file, size_t len, u32 line);

void __noreturn sq_panic(const char *file, size_t len, u32 line)
{
	pr_emerg(KBUILD_MODNAME ": panic at %.*s:%u\n", (int)len, file, line);
	BUG();
}

#endif /* _SQ_PANIC_H */
