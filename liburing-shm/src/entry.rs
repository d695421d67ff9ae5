// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries and completions, as values.

use sq_uapi::flags::{CqeFlags, SqeFlags};
use sq_uapi::{Cqe, Errno, Sqe};

/// An entry that is safe to push: it carries no raw address. Made by [`opcode`](crate::opcode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an entry does nothing until it is pushed"]
pub struct Entry {
    pub(crate) sqe: Sqe,
    /// Bytes 64..128 of a 128-byte entry; `None` for 64-byte ones.
    pub(crate) rest: Option<[u64; 8]>,
}

/// An entry that carries a raw address: pushing it is `unsafe`, because the kernel side will read or write there until the
/// entry's completion has been reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an entry does nothing until it is pushed"]
pub struct RawEntry(pub(crate) Entry);

impl Entry {
    pub(crate) const fn new(sqe: Sqe) -> Self {
        Self { sqe, rest: None }
    }

    /// Sets what the completion will echo, bit for bit.
    pub const fn user_data(mut self, user_data: u64) -> Self {
        self.sqe.user_data = user_data;
        self
    }

    /// Adds flags.
    pub const fn flags(mut self, flags: SqeFlags) -> Self {
        self.sqe.flags |= flags.bits();
        self
    }

    /// The entry as the ABI has it.
    #[must_use]
    pub const fn as_sqe(&self) -> &Sqe {
        &self.sqe
    }
}

impl RawEntry {
    /// An entry of any content whatever, for tests of the kernel side.
    pub const fn of(sqe: Sqe) -> Self {
        Self(Entry::new(sqe))
    }

    /// A 128-byte entry of any content whatever.
    pub const fn wide(sqe: Sqe, rest: [u64; 8]) -> Self {
        Self(Entry { sqe, rest: Some(rest) })
    }

    /// Sets what the completion will echo, bit for bit.
    pub const fn user_data(self, user_data: u64) -> Self {
        Self(self.0.user_data(user_data))
    }

    /// Adds flags.
    pub const fn flags(self, flags: SqeFlags) -> Self {
        Self(self.0.flags(flags))
    }

    /// The entry as the ABI has it.
    #[must_use]
    pub const fn as_sqe(&self) -> &Sqe {
        self.0.as_sqe()
    }
}

impl From<Entry> for RawEntry {
    fn from(entry: Entry) -> Self {
        Self(entry)
    }
}

/// A completion: a copy, taken out of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    cqe: Cqe,
    extra: [u64; 2],
}

impl Completion {
    pub(crate) const fn from_words(words: [u64; 4]) -> Self {
        let [a, b, c, d] = words;
        Self { cqe: Cqe::from_words([a, b]), extra: [c, d] }
    }

    /// What the entry's `user_data` was.
    #[must_use]
    pub const fn user_data(&self) -> u64 {
        self.cqe.user_data
    }

    /// The operation's result.
    ///
    /// # Errors
    ///
    /// The operation's error.
    pub const fn result(&self) -> Result<u32, Errno> {
        Errno::from_res(self.cqe.res)
    }

    /// The flags that are known.
    #[must_use]
    pub const fn flags(&self) -> CqeFlags {
        CqeFlags::from_bits_truncate(self.cqe.flags)
    }

    /// The driver's own results, on rings built with [`wide_completions`](crate::Builder::wide_completions); else 0.
    #[must_use]
    pub const fn extra(&self) -> [u64; 2] {
        self.extra
    }

    /// The completion as the ABI has it.
    #[must_use]
    pub const fn as_cqe(&self) -> &Cqe {
        &self.cqe
    }
}
