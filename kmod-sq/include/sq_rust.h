/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The C half of a driver in Rust, whose other half is sq_driver::declare_driver!.
 *
 * All of it, in one C file of the module:
 *
 *	#include <sq_rust.h>
 *	module_sq_rust_driver();
 *	MODULE_LICENSE("GPL");
 */
#ifndef _SQ_RUST_H
#define _SQ_RUST_H

#include <sq_module.h>
#include <sq_panic.h>

/* Made by declare_driver! */
const struct sq_driver_table *sq_module_table(void);
const void *sq_module_data(void);

/* As module_sq_driver() and module_sq_driver_with(), sq_module.h. */
#define module_sq_rust_driver() module_sq_driver(sq_module_table(), sq_module_data())
#define module_sq_rust_driver_with(before, after) \
	module_sq_driver_with(sq_module_table(), sq_module_data(), before, after)

#endif /* _SQ_RUST_H */
