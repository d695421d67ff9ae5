// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Rust half of sq_null.ko: the driver crate `sq-null`, as a C table.
#![no_std]

mod panic;

use core::ffi::c_void;

use sq_driver::abi::Table;
use sq_null::Null;

static NULL: Null = Null;

/// The table for `sq_driver_register`.
#[unsafe(no_mangle)]
extern "C" fn sq_null_table() -> *const Table {
    sq_driver::table::<Null>()
}

/// The `data` that goes with it.
#[unsafe(no_mangle)]
extern "C" fn sq_null_data() -> *const c_void {
    (&raw const NULL).cast()
}
