// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one place where the kernel side touches an entry in shared memory (SNAP-1, SNAP-2).

use sq_uapi::KernelMem;

/// An entry in private memory. Nothing decides anything from an entry before it is one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot<'a>(&'a [u64; 16]);

impl<'a> Snapshot<'a> {
    /// Copies the entry at free-running `index` to `private`: each of its words is loaded once. After `sq_head` has passed
    /// it, user space may write the slot again.
    ///
    /// `wide` says that entries have 128 bytes. If they do not, the last 8 words of `private` stay, and must be zeros.
    #[inline]
    pub fn take<M: KernelMem>(mem: &M, index: u32, wide: bool, private: &'a mut [u64; 16]) -> Self {
        let (first, last) = private.split_at_mut(8);
        first.copy_from_slice(&mem.copy_sqe(index));
        if wide {
            last.copy_from_slice(&mem.copy_sqe_tail(index));
        }
        Self(private)
    }

    /// A snapshot of given words, for checkers of what comes after.
    #[must_use]
    pub const fn of_words(words: &'a [u64; 16]) -> Self {
        Self(words)
    }

    /// The first 64 bytes.
    #[inline]
    #[must_use]
    pub const fn words(&self) -> [u64; 8] {
        let [a, b, c, d, e, f, g, h, ..] = *self.0;
        [a, b, c, d, e, f, g, h]
    }

    /// The last 64 bytes of a 128-byte entry, else zeros.
    #[inline]
    #[must_use]
    pub const fn tail(&self) -> [u64; 8] {
        let [.., a, b, c, d, e, f, g, h] = *self.0;
        [a, b, c, d, e, f, g, h]
    }
}
