// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ring's own buffers.

use std::ptr::NonNull;
use std::sync::Arc;

use sq_uapi::copy_shared;

use crate::queue::Shared;

/// The ring's buffers: `count` of them, `bytes` each, in memory that outlives every request.
///
/// An operation in flight may be writing a buffer at any time, so there is no slice of it here: bytes are copied out and in, and
/// what a copy sees of a buffer in flight is any mix of old and new. For buffers with slices see [`safe`](crate::safe).
#[derive(Clone, Debug)]
pub struct Pool {
    start: NonNull<u8>,
    count: u16,
    bytes: u32,
    _ring: Arc<Shared>,
}

// SAFETY: the bytes are only reached by copies that allow for any concurrent access.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    pub(crate) fn new(start: NonNull<u8>, count: u16, bytes: u32, ring: Arc<Shared>) -> Self {
        Self { start, count, bytes, _ring: ring }
    }

    /// Buffers.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// Bytes of each.
    #[must_use]
    pub const fn buffer_bytes(&self) -> u32 {
        self.bytes
    }

    /// Copies out of buffer `index`, from byte `at`. `None` if that is not all inside; nothing is copied then.
    #[must_use]
    pub fn read(&self, index: u16, at: u32, to: &mut [u8]) -> Option<()> {
        let place = self.place(index, at, to.len())?;
        // SAFETY: `place` is inside the pool, which is mapped while the ring is; `to` is an exclusive slice.
        unsafe { copy_shared(to.as_mut_ptr(), place.as_ptr(), to.len()) };
        Some(())
    }

    /// Copies into buffer `index`, from byte `at`. `None` if that is not all inside; nothing is copied then.
    #[must_use]
    pub fn write(&self, index: u16, at: u32, from: &[u8]) -> Option<()> {
        let place = self.place(index, at, from.len())?;
        // SAFETY: as above; the pool is mapped writable.
        unsafe { copy_shared(place.as_ptr(), from.as_ptr(), from.len()) };
        Some(())
    }

    /// Where byte `at` of buffer `index` is, if `len` bytes from there are inside the buffer.
    pub(crate) fn place(&self, index: u16, at: u32, len: usize) -> Option<NonNull<u8>> {
        let end = usize::try_from(at).ok()?.checked_add(len)?;
        if index >= self.count || end > self.bytes as usize {
            return None;
        }
        let offset = usize::from(index) * self.bytes as usize + at as usize;
        // SAFETY: index < count and at <= bytes, so the place is inside the mapping of count * bytes, or at its end.
        Some(unsafe { self.start.add(offset) })
    }
}
