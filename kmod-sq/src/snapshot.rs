// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one place where the kernel side touches an entry in shared memory (SNAP-1, SNAP-2).

use sq_uapi::KernelMem;

/// The words of an entry, in private memory. Nothing decides anything from an entry before it is one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    words: [u64; 8],
    tail: [u64; 8],
}

impl Snapshot {
    /// Copies the entry at free-running `index`: each of its words is loaded once. After `sq_head` has passed it, user
    /// space may write the slot again.
    #[inline]
    pub fn take<M: KernelMem>(mem: &M, index: u32, sqe128: bool) -> Self {
        Self { words: mem.copy_sqe(index), tail: if sqe128 { mem.copy_sqe_tail(index) } else { [0; 8] } }
    }

    /// The first 64 bytes.
    #[inline]
    #[must_use]
    pub const fn words(&self) -> &[u64; 8] {
        &self.words
    }

    /// The last 64 bytes of a 128-byte entry, else zeros.
    #[inline]
    #[must_use]
    pub const fn tail(&self) -> &[u64; 8] {
        &self.tail
    }

    /// A snapshot of given words, for checkers of what comes after.
    #[must_use]
    pub const fn of_words(words: [u64; 8], tail: [u64; 8]) -> Self {
        Self { words, tail }
    }
}
