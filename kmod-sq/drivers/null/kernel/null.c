// SPDX-License-Identifier: MIT OR Apache-2.0
#include <sq_rust.h>

module_sq_rust_driver();
MODULE_DESCRIPTION("sq driver that does nothing, on demand slowly");
MODULE_VERSION(SQ_VERSION);
MODULE_LICENSE("Dual MIT/GPL");
