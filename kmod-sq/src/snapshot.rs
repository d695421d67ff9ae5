// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries in private memory.
//!
//! The kernel side touches an entry in shared memory by what [`KernelMem`](sq_uapi::KernelMem) has for that, and nowhere else: what comes out
//! are values, and there is no way back from them to the slot (SNAP-1, SNAP-2).

/// An entry in private memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot<'a>(&'a [u64; 16]);

impl<'a> Snapshot<'a> {
    /// Of words that have been copied.
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
