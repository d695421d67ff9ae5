// SPDX-License-Identifier: MIT OR Apache-2.0
//! The producing end of the submission queue.

use core::fmt;

use sq_uapi::consts::sq_state;
use sq_uapi::{Fence, KernelWord, UserMem, UserWord};

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
pub struct Producer {
    entries: u32,
    /// Entries written, free-running. `sq_tail` is stored from it and never loaded (IDX-2).
    tail: u32,
    /// What has been published of it.
    published: u32,
    /// As of the last look at `sq_head`, an entry can be pushed with no more ado until `tail` is here. On a ring of 128-byte entries
    /// never.
    limit: u32,
    wide: bool,
}

impl Producer {
    /// The producer of a ring of `entries` entries that nobody has used yet; `wide` says that they have 128 bytes.
    #[must_use]
    pub const fn new(entries: u32, wide: bool) -> Self {
        Self { entries, tail: 0, published: 0, limit: 0, wide }
    }

    /// Entries that can be written before the queue is full, as of now.
    pub fn room<M: UserMem>(&mut self, mem: &M) -> u32 {
        let limit = mem.load_kernel(KernelWord::SqHead).wrapping_add(self.entries);
        self.limit = if self.wide { self.tail } else { limit };
        limit.wrapping_sub(self.tail)
    }

    /// Entries written but not published.
    #[must_use]
    pub const fn pending(&self) -> u32 {
        self.tail.wrapping_sub(self.published)
    }

    /// Writes an entry.
    ///
    /// # Errors
    ///
    /// [`Full`] if the kernel side has not consumed enough.
    #[inline]
    pub fn push<M: UserMem>(&mut self, mem: &M, words: [u64; 8]) -> Result<(), Full> {
        if self.tail == self.limit {
            self.prepare(mem)?;
        }
        mem.write_sqe(self.tail, words);
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    #[inline(never)]
    fn prepare<M: UserMem>(&mut self, mem: &M) -> Result<(), Full> {
        if self.room(mem) == 0 {
            return Err(Full);
        }
        if self.wide {
            // The rest of the slot may hold an old entry's.
            mem.write_sqe_tail(self.tail, [0; 8]);
            self.limit = self.tail.wrapping_add(1);
        }
        Ok(())
    }

    /// Writes a 128-byte entry, on a ring that has such.
    ///
    /// # Errors
    ///
    /// [`Full`] if the kernel side has not consumed enough.
    pub fn push_wide<M: UserMem>(&mut self, mem: &M, words: [u64; 8], rest: [u64; 8]) -> Result<(), Full> {
        self.prepare(mem)?;
        mem.write_sqe(self.tail, words);
        mem.write_sqe_tail(self.tail, rest);
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Says how far entries have been written by somebody who wrote them into their slots, for which there was room.
    #[inline]
    pub(crate) fn wrote_to(&mut self, tail: u32) {
        self.tail = tail;
    }

    /// Where the next entry goes.
    pub(crate) const fn tail(&self) -> u32 {
        self.tail
    }

    /// Publishes what was written, once for the batch (IDX-4). Returns how many entries that were.
    #[inline]
    pub fn publish<M: UserMem>(&mut self, mem: &M) -> u32 {
        let fresh = self.pending();
        if fresh > 0 {
            mem.store_user(UserWord::SqTail, self.tail);
            self.published = self.tail;
        }
        fresh
    }

    /// Whether the doorbell has to be rung for what was published (BELL-1). Only for rings that a worker or a polling thread
    /// drains; a ring drained by its caller is always rung.
    #[inline]
    pub fn needs_doorbell<M: UserMem>(&self, mem: &M) -> bool {
        // Either this sees NEED_WAKEUP, or the drain owner, after its own fence, sees the tail.
        mem.user_fence(Fence::BellUser);
        mem.load_kernel(KernelWord::SqState) & sq_state::NEED_WAKEUP != 0
    }
}
