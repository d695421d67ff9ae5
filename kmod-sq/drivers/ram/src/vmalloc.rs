// SPDX-License-Identifier: MIT OR Apache-2.0
//! The store of sq_ram.ko: memory of its C half.

use core::ptr::NonNull;

use sq_driver::Shared;

use crate::{Ram, Store};

// kernel/ram.c: constant while the driver is registered.
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

sq_driver::declare_driver!(Ram<Vmalloc>, Ram::new(Vmalloc));
