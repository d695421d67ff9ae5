// SPDX-License-Identifier: MIT OR Apache-2.0
//! The producing end of the submission queue.

use core::fmt;

use sq_uapi::consts::sq_state;
use sq_uapi::{Fence, KernelWord, SqeSlots, UserMem, UserWord};

/// The submission queue is full. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the submission queue is full: submit, then push again")
    }
}

impl std::error::Error for Full {}

/// Writes entries and publishes them. There is one for a ring.
#[derive(Debug)]
pub struct Producer<M: UserMem> {
    mem: M,
    /// Slots that can be written with no more ado.
    slots: M::Slots,
    /// The index behind the last of them, free-running. `sq_tail` is stored from it and never loaded (IDX-2).
    end: u32,
    /// What has been published.
    published: u32,
}

impl<M: UserMem> Producer<M> {
    /// The producer of a ring that nobody has used yet.
    #[must_use]
    pub fn new(mem: M) -> Self {
        Self { slots: mem.slots(0, 0), mem, end: 0, published: 0 }
    }

    /// Where the next entry goes.
    #[inline]
    fn tail(&self) -> u32 {
        self.end.wrapping_sub(self.slots.left())
    }

    /// Entries that can be written before the queue is full, as of now.
    pub fn room(&self) -> u32 {
        self.mem.load_kernel(KernelWord::SqHead).wrapping_add(self.mem.sq_entries()).wrapping_sub(self.tail())
    }

    /// Writes an entry.
    ///
    /// # Errors
    ///
    /// [`Full`] if the kernel side has not consumed enough.
    #[inline]
    pub fn push(&mut self, words: [u64; 8]) -> Result<(), Full> {
        if self.slots.is_empty() {
            self.find_slots()?;
        }
        // SAFETY: `mem` gave them for what was room when they were found, and is here; what is published ends before them.
        unsafe { self.slots.write(words) };
        Ok(())
    }

    /// Writes a 128-byte entry, on a ring that has such.
    ///
    /// # Errors
    ///
    /// [`Full`] if the kernel side has not consumed enough.
    pub fn push_wide(&mut self, words: [u64; 8], rest: [u64; 8]) -> Result<(), Full> {
        if self.slots.is_empty() {
            self.find_slots()?;
        }
        // SAFETY: where the next entry goes is published by none but this, later.
        unsafe { self.mem.write_sqe_tail(self.tail(), rest) };
        self.push(words)
    }

    /// Finds slots to write, where none is at hand.
    #[inline(never)]
    fn find_slots(&mut self) -> Result<(), Full> {
        let room = self.room();
        if room == 0 {
            return Err(Full);
        }
        // On a ring of 128-byte entries there is one slot in a row, and the rest of it may hold an old entry's.
        // SAFETY: there is room for it, so that the kernel side is done with its slot.
        unsafe { self.mem.write_sqe_tail(self.end, [0; 8]) };
        self.slots = self.mem.slots(self.end, room);
        self.end = self.end.wrapping_add(self.slots.left());
        Ok(())
    }

    /// Publishes what was written, once for the batch (IDX-4). Returns how many entries that were.
    #[inline]
    pub fn publish(&mut self) -> u32 {
        let tail = self.tail();
        let fresh = tail.wrapping_sub(self.published);
        if fresh > 0 {
            self.mem.store_user(UserWord::SqTail, tail);
            self.published = tail;
        }
        fresh
    }

    /// Whether the doorbell has to be rung for what was published (BELL-1). Only for rings that a worker or a polling thread
    /// drains; a ring drained by its caller is always rung.
    #[inline]
    pub fn needs_doorbell(&self) -> bool {
        // Either this sees NEED_WAKEUP, or the drain owner, after its own fence, sees the tail.
        self.mem.user_fence(Fence::BellUser);
        self.mem.load_kernel(KernelWord::SqState) & sq_state::NEED_WAKEUP != 0
    }
}
