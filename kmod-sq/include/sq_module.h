/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What makes a module of a driver: its parameter mode=, its init and its exit.
 *
 * In one C file of the module, instead of module_init() and module_exit():
 *
 *	static const struct sq_driver_table blink = { .. };
 *	module_sq_driver(&blink, NULL);
 *	MODULE_LICENSE("GPL");
 *
 * A driver in Rust has its table from declare_driver!: see sq_rust.h.
 */
#ifndef _SQ_MODULE_H
#define _SQ_MODULE_H

#include <linux/err.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <sq_driver.h>

static inline int sq_module_nothing(void)
{
	return 0;
}

/**
 * module_sq_driver_with - a driver that has something to prepare
 * @table:	its table, a pointer
 * @data:	what the table's functions are called with
 * @before:	int before(void), called before the node is there; an error is the module's
 * @after:	called with the node gone, and when it could not be made: undoes @before
 */
#define module_sq_driver_with(table, data, before, after)					\
	static ushort sq_module_mode = 0600;							\
	module_param_named(mode, sq_module_mode, ushort, 0444);					\
	MODULE_PARM_DESC(mode, "permissions of the driver's node (default 0600)");		\
	static struct sq_device *sq_module_device;						\
	static int __init sq_module_init(void)							\
	{											\
		int err = before();								\
												\
		if (err)									\
			return err;								\
		sq_module_device = sq_driver_register(table, data, THIS_MODULE, sq_module_mode);	\
		err = PTR_ERR_OR_ZERO(sq_module_device);					\
		if (err)									\
			after();								\
		return err;									\
	}											\
	module_init(sq_module_init);								\
	static void __exit sq_module_exit(void)							\
	{											\
		sq_driver_unregister(sq_module_device);						\
		after();									\
	}											\
	module_exit(sq_module_exit)

/**
 * module_sq_driver - a driver with nothing to prepare
 * @table:	its table, a pointer
 * @data:	what the table's functions are called with
 */
#define module_sq_driver(table, data) \
	module_sq_driver_with(table, data, sq_module_nothing, sq_module_nothing)

#endif /* _SQ_MODULE_H */
