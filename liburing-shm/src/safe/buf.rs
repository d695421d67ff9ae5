// SPDX-License-Identifier: MIT OR Apache-2.0
//! Buffers of the safe layer.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::lock;
use crate::pool::Pool;
use crate::queue::Shared;

/// The pool, and which of its buffers are free.
pub(super) struct Buffers {
    pool: Pool,
    free: Mutex<Vec<u16>>,
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Buffers {
    /// Takes the pool of a ring that nobody has used yet: from now on only the safe layer hands out its bytes.
    pub(super) fn take(ring: &Arc<Shared>) -> Option<Arc<Self>> {
        let pool = ring.pool();
        ring.pool_taken.store(true, Ordering::Relaxed);
        let pool = pool?;
        let free = (0..pool.count()).rev().collect();
        Some(Arc::new(Self { pool, free: Mutex::new(free) }))
    }

    pub(super) fn get(buffers: &Arc<Self>) -> Option<Buf> {
        let index = lock(&buffers.free).pop()?;
        Some(Buf { buffers: Arc::clone(buffers), index })
    }
}

/// One of the ring's buffers, in the application's hands. Zeros at first; dropped, it is free for the next.
pub struct Buf {
    buffers: Arc<Buffers>,
    index: u16,
}

impl Buf {
    pub(super) const fn index(&self) -> u16 {
        self.index
    }

    pub(super) fn is_of(&self, buffers: &Arc<Buffers>) -> bool {
        Arc::ptr_eq(&self.buffers, buffers)
    }

    fn size(&self) -> usize {
        self.buffers.pool.buffer_bytes() as usize
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some(start) = self.buffers.pool.place(self.index, 0, self.size()) else { return &[] };
        // SAFETY: the place holds `size` initialised bytes, mapped while `buffers` keeps the ring. The index is in this Buf and
        // nowhere else, so no operation has it, and the kernel side leaves it alone; other Bufs are other bytes.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.size()) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let Some(start) = self.buffers.pool.place(self.index, 0, self.size()) else { return &mut [] };
        // SAFETY: as above, and `&mut self` makes it the only slice.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.size()) }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        lock(&self.buffers.free).push(self.index);
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buf").field("index", &self.index).field("bytes", &self.size()).finish()
    }
}
