// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was posted, and who may post.
//!
//! Completions are posted in the order of their places, so one party at a time may do it:
//!
//! - while no request is in flight, the drain owner: nobody else has anything to post. It needs no lock, and writes a
//!   completion where it belongs as soon as it has the result;
//! - while requests are in flight, whoever holds the completion lock: requests complete on other threads and in interrupts.
//!
//! The right goes over to the lock where the drain owner, under the lock, counts a request as in flight
//! ([`Requests::issued`](crate::request::Requests::issued)): after `issue` has returned, whatever the driver did with the request
//! meanwhile. It comes back with the last completion.
//!
//! Waiters hold the lock while they say what they wait for, and a poster without the lock does not see that. So (BELL-4)
//! it posts, fences, and looks whether anybody watches; a waiter says that it watches, fences, and looks at what was posted again.

use sq_uapi::{KernelMem, KernelWord};

use crate::sync::{AtomicU32, AtomicU64, Ordering, at};

/// The private counts of the completion side that are not the lock's alone. Each has one writer at a time: see the module.
pub(crate) struct Posted {
    /// Completions that the shared `cq_tail` shows or is about to show: stored before it, so that a reaper is never found to be
    /// ahead (IDX-3). Free-running; the index is its low half. The shared word is written from it and never read (IDX-2).
    tail: AtomicU64,
    /// The same, stored after the shared word: what a waiter may count on its program to see.
    shown: AtomicU64,
    /// Entries consumed: what they led to is posted or in flight. The drain owner's.
    consumed: AtomicU64,
    /// Requests in flight. Written under the completion lock.
    inflight: AtomicU32,
    /// Not 0: somebody wants to be told of what is posted. Written under the completion lock.
    watched: AtomicU32,
}

/// The index that a free-running count of 64 bits stands for.
#[expect(clippy::as_conversions, reason = "its low half, by truncation")]
pub(crate) const fn low(count: u64) -> u32 {
    count as u32
}

impl Posted {
    pub(crate) fn new() -> Self {
        Self {
            tail: AtomicU64::new(0),
            shown: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            inflight: AtomicU32::new(0),
            watched: AtomicU32::new(0),
        }
    }

    /// Completions posted. For whoever may post, it is exact. For others it is not behind what they have reaped, or, if they have loaded
    /// `cq_head` before, behind that.
    #[inline]
    pub(crate) fn tail(&self) -> u64 {
        // Relaxed: an honest `cq_head` was stored after `cq_tail` was loaded, which was stored after this.
        self.tail.load(Ordering::Relaxed)
    }

    /// Completions that the program can see.
    pub(crate) fn shown(&self) -> u64 {
        // Acquire: `cq_tail` is what it promises. Partner: the release in `show`.
        self.shown.load(at!(ShownLoad, Acquire))
    }

    /// Entries consumed, for others than the drain owner.
    pub(crate) fn consumed(&self) -> u64 {
        // Acquire: their completions are shown, or their requests counted. Partner: the release in `consume`.
        self.consumed.load(at!(ConsumedLoad, Acquire))
    }

    /// The drain owner has consumed `count` entries, as of now.
    #[inline]
    pub(crate) fn consume(&self, count: u64) {
        self.consumed.store(count, at!(ConsumedStore, Release));
    }

    /// Makes visible what was written up to `tail`, once a batch (IDX-4). For whoever may post.
    #[inline]
    pub(crate) fn show<M: KernelMem>(&self, mem: &M, tail: u64) {
        self.tail.store(tail, Ordering::Relaxed);
        mem.store_kernel(KernelWord::CqTail, low(tail));
        self.shown.store(tail, at!(ShownStore, Release));
    }

    /// Whether posting is the drain owner's, who asks.
    #[inline]
    pub(crate) fn is_owners(&self) -> bool {
        // Acquire: what the last request's completer posted comes before. Partner: the release in `ended`.
        self.inflight.load(at!(InflightLoad, Acquire)) == 0
    }

    /// Requests in flight, under the completion lock.
    pub(crate) fn inflight(&self) -> u32 {
        self.inflight.load(Ordering::Relaxed)
    }

    /// One more request is in flight. Under the completion lock, by the drain owner.
    pub(crate) fn began(&self) {
        // Relaxed: the lock orders it for those who post next.
        self.inflight.store(self.inflight().saturating_add(1), Ordering::Relaxed);
    }

    /// One less, and what it had to post is posted. Under the completion lock.
    pub(crate) fn ended(&self) {
        self.inflight.store(self.inflight().saturating_sub(1), at!(InflightStore, Release));
    }

    /// Whether somebody wants to be told. After a fence, or under the completion lock.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed) != 0
    }

    /// Somebody wants to be told, or nobody any more. Under the completion lock. Before whoever wants it looks again comes a fence.
    pub(crate) fn watch(&self, watched: bool) {
        self.watched.store(watched.into(), Ordering::Relaxed);
    }
}
