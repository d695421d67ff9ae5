// SPDX-License-Identifier: MIT OR Apache-2.0
//! The consuming end of the completion queue.

use sq_uapi::consts::sq_state;
use sq_uapi::{Fence, KernelWord, UserMem, UserWord};

/// Reads completions and gives their slots back. There is one for a ring.
#[derive(Debug)]
pub struct Consumer {
    /// Completions read, free-running. `cq_head` is stored from it and never loaded (IDX-2).
    head: u32,
    /// What has been published of it.
    published: u32,
    /// `cq_tail` as of the last look.
    tail: u32,
}

impl Default for Consumer {
    fn default() -> Self {
        Self::new()
    }
}

impl Consumer {
    /// The consumer of a ring that nobody has used yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { head: 0, published: 0, tail: 0 }
    }

    /// Completions that can be read, as of now.
    #[inline]
    pub fn ready<M: UserMem>(&mut self, mem: &M) -> u32 {
        self.tail = mem.load_kernel(KernelWord::CqTail);
        self.tail.wrapping_sub(self.head)
    }

    /// Says by `flags` ([`cq_flags`](sq_uapi::consts::cq_flags)) whether the eventfd is wanted. Completions that can be read, as of after
    /// that: nobody signals for them.
    pub fn hint<M: UserMem>(&mut self, mem: &M, flags: u32) -> u32 {
        mem.store_user(UserWord::CqFlags, flags);
        // Either this sees the completion, or whoever posts, after its own fence, sees the flags.
        mem.user_fence(Fence::HintUser);
        self.ready(mem)
    }

    /// Reads the next completion that an earlier [`Consumer::ready`] saw.
    #[inline]
    pub fn pop<M: UserMem>(&mut self, mem: &M) -> Option<[u64; 4]> {
        if self.head == self.tail {
            return None;
        }
        let words = mem.read_cqe(self.head);
        self.head = self.head.wrapping_add(1);
        Some(words)
    }

    /// Counts as read all that an earlier [`Consumer::ready`] saw: from where, and to where.
    #[inline]
    pub(crate) fn take_all(&mut self) -> (u32, u32) {
        (core::mem::replace(&mut self.head, self.tail), self.tail)
    }

    /// Of what was counted as read, nothing from `head` on was.
    #[inline]
    pub(crate) fn give_back(&mut self, head: u32) {
        self.head = head;
    }

    /// Gives the slots of what was read back, once for the batch (IDX-4). Returns whether the doorbell has to be rung because
    /// entries wait for slots (CQ-2), or for this process (WAIT-1).
    #[inline]
    pub fn release<M: UserMem>(&mut self, mem: &M) -> bool {
        if self.head == self.published {
            return mem.load_kernel(KernelWord::SqState) & sq_state::NEED_ENTER != 0;
        }
        mem.store_user(UserWord::CqHead, self.head);
        self.published = self.head;
        // Either this sees CQ_BLOCKED, or the drain owner, after its own fence, sees the head.
        mem.user_fence(Fence::BlockedUser);
        mem.load_kernel(KernelWord::SqState) & (sq_state::CQ_BLOCKED | sq_state::NEED_ENTER) != 0
    }
}
