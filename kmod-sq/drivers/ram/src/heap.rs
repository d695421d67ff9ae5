// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store on this process's heap.

use core::alloc::Layout;
use core::ptr::NonNull;
use std::alloc::{alloc_zeroed, dealloc};

use sq_driver::{Errno, Shared};

use crate::{Ram, Store};

/// Alignment of the first byte: a page, so that copies of whole blocks are aligned copies.
const ALIGN_BYTES: usize = 4096;

/// Zeroed memory of this process. It is reached by copies only: there is never a reference to its bytes.
#[derive(Debug)]
pub struct Heap {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory belongs to the value, and is only reached through `Shared`, which allows for any concurrent access.
#[expect(unsafe_code, reason = "a raw allocation")]
unsafe impl Send for Heap {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a raw allocation")]
unsafe impl Sync for Heap {}

impl Heap {
    /// `bytes` zero bytes. Pages that were never written take no memory.
    ///
    /// # Errors
    ///
    /// `EINVAL` for 0 bytes, `ENOMEM` if there is not as much address space.
    pub fn new(bytes: usize) -> Result<Self, Errno> {
        let layout = Layout::from_size_align(bytes, ALIGN_BYTES).map_err(|_| Errno::ENOMEM)?;
        if bytes == 0 {
            return Err(Errno::EINVAL);
        }
        // SAFETY: the size is not 0.
        #[expect(unsafe_code, reason = "a raw allocation")]
        let start = unsafe { alloc_zeroed(layout) };
        Ok(Self { start: NonNull::new(start).ok_or(Errno::ENOMEM)?, layout })
    }
}

impl Store for Heap {
    fn bytes(&self) -> Shared<'_> {
        // SAFETY: allocated with this size, freed only when `self` is dropped, and no reference to the bytes is ever made.
        #[expect(unsafe_code, reason = "vouching for the allocation")]
        unsafe {
            Shared::new(self.start, self.layout.size())
        }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout, and a `Shared` of it cannot outlive `self`.
        #[expect(unsafe_code, reason = "a raw allocation")]
        unsafe {
            dealloc(self.start.as_ptr(), self.layout);
        }
    }
}

impl Ram<Heap> {
    /// A driver of `bytes` zero bytes of this process.
    ///
    /// # Errors
    ///
    /// As [`Heap::new`].
    pub fn in_process(bytes: usize) -> Result<Self, Errno> {
        Heap::new(bytes).map(Self::new)
    }
}
