// SPDX-License-Identifier: MIT OR Apache-2.0
//! What user space has published and what was consumed of it, counted from outside (IDX-3).
//!
//! It knows the two shared words as user space sees them, and no more: not which tail the kernel side has looked at, nor when. So its
//! account is the most that any kernel side may consume, whoever wrote the tail.

/// Both counts, since the ring was made.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    entries: u32,
    published: u64,
    consumed: u64,
}

impl Published {
    /// Of a queue with so many entries.
    #[must_use]
    pub fn new(entries: u32) -> Self {
        Self { entries, published: 0, consumed: 0 }
    }

    /// `sq_tail` is this. Out of its window it publishes nothing.
    pub fn tail_is(&mut self, tail: u32) {
        let ahead = tail.wrapping_sub(self.consumed as u32);
        if ahead <= self.entries {
            self.published = self.published.max(self.consumed + u64::from(ahead));
        }
    }

    /// `sq_head` becomes this, and `sq_tail` is that. A head that moves back has gone all the way round.
    pub fn head_is(&mut self, head: u32, tail: u32) {
        self.consumed += u64::from(head.wrapping_sub(self.consumed as u32));
        self.tail_is(tail);
    }

    /// Entries that were consumed.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// No more was consumed than was published.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.consumed <= self.published
    }
}
