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
    /// More was consumed than was published then: what is published later does not mend it.
    overran: bool,
}

impl Published {
    /// Of a queue with so many entries.
    #[must_use]
    pub fn new(entries: u32) -> Self {
        Self { entries, published: 0, consumed: 0, overran: false }
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
        self.tail_is(tail);
        self.consumed += u64::from(head.wrapping_sub(self.consumed as u32));
        self.overran |= self.consumed > self.published;
    }

    /// Entries that were consumed.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Never was more consumed than was published.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.overran
    }
}

#[cfg(test)]
mod tests {
    use super::Published;

    /// IDX-3: an entry too many is one for good, also when it is published the next moment.
    #[test]
    fn idx_3_an_entry_too_many_is_not_forgotten() {
        let mut published = Published::new(4);
        published.tail_is(2);
        published.head_is(2, 2);
        assert!(published.holds());
        published.head_is(3, 2);
        published.tail_is(5);
        published.head_is(5, 5);
        assert!(!published.holds(), "{published:?}");
    }

    /// A tail out of its window publishes nothing, and a head that moves back has passed entries.
    #[test]
    fn idx_3_what_was_not_published() {
        for (tail, head, holds) in [(2, 2, true), (2, 3, false), (9, 2, false), (u32::MAX, 2, false), (2, 0, false)] {
            let mut published = Published::new(4);
            published.tail_is(1);
            published.head_is(1, 1);
            published.tail_is(tail);
            published.head_is(head, tail);
            assert_eq!(published.holds(), holds, "tail {tail}, head {head}: {published:?}");
        }
    }
}
