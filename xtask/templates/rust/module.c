// SPDX-License-Identifier: GPL-2.0 OR MIT
#include <sq_rust.h>

module_sq_rust_driver();
MODULE_DESCRIPTION("The driver of /dev/sqsample");
MODULE_LICENSE("Dual MIT/GPL");
