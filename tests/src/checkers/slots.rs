// SPDX-License-Identifier: MIT OR Apache-2.0
//! A checker's slots in a row: what `Mapped` does with addresses, by index.

use sq_uapi::SqeSlots;

/// A memory that can be told which entry to write.
pub trait WriteSqe {
    /// Writes the first 64 bytes of the entry at free-running `index`.
    fn write_sqe(&self, index: u32, words: [u64; 8]);
}

/// Slots of a memory.
#[derive(Clone, Debug)]
pub struct Slots<M> {
    mem: M,
    next: u32,
    left: u32,
}

impl<M> Slots<M> {
    /// Of `mem`, whose array of `entries` they do not leave.
    #[must_use]
    pub fn new(mem: M, entries: u32, tail: u32, room: u32) -> Self {
        Self { mem, next: tail, left: room.min(entries - (tail & (entries - 1))) }
    }
}

impl<M: WriteSqe> SqeSlots for Slots<M> {
    fn left(&self) -> u32 {
        self.left
    }

    unsafe fn write(&mut self, words: [u64; 8]) {
        if self.left > 0 {
            self.mem.write_sqe(self.next, words);
            self.next = self.next.wrapping_add(1);
            self.left -= 1;
        }
    }
}
