// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Rust half of sq_ram.ko: the driver crate `sq-ram` over memory of the C half, as a C table.
#![no_std]

mod panic;

use core::ffi::c_void;
use core::ptr::NonNull;

use sq_driver::Shared;
use sq_driver::abi::Table;
use sq_ram::{Ram, Store};

// glue/drivers/ram.c: constant while the driver is registered.
unsafe extern "C" {
    static sq_ram_start: NonNull<u8>;
    static sq_ram_bytes: usize;
}

struct Vmalloc;

impl Store for Vmalloc {
    fn bytes(&self) -> Shared<'_> {
        // SAFETY: set before the driver is registered, and nobody calls it before or after that.
        let start = unsafe { sq_ram_start };
        // SAFETY: as above.
        let bytes = unsafe { sq_ram_bytes };
        // SAFETY: so many bytes are there until the driver is gone, and C does not touch them.
        unsafe { Shared::new(start, bytes) }
    }
}

static RAM: Ram<Vmalloc> = Ram::new(Vmalloc);

/// The table for `sq_driver_register`.
#[unsafe(no_mangle)]
extern "C" fn sq_ram_table() -> *const Table {
    sq_driver::table::<Ram<Vmalloc>>()
}

/// The `data` that goes with it.
#[unsafe(no_mangle)]
extern "C" fn sq_ram_data() -> *const c_void {
    (&raw const RAM).cast()
}
