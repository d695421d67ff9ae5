// SPDX-License-Identifier: MIT OR Apache-2.0
//! The completion side: everything that the completion lock protects.
//!
//! Slots of the completion queue are accounted for privately (CQ-5): at every step
//! `free + reserved + unreaped = entries`, where `reserved` counts the slots of requests in flight, of inline
//! completions not yet written, and of the drain owner's stash. `free` is what is left over, never stored.

use sq_uapi::consts::cq_flags;
use sq_uapi::{Cqe, Errno, KernelMem, KernelWord, SqStats, UserWord};

use crate::host::{Host, Notify};
use crate::look::Look;
use crate::request::Requests;

/// Why the drain owner left entries behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    /// It did not.
    None,
    /// No completion slot: the reaper moves it on, or a request that gives its slot back.
    Slot,
    /// No request: the next completion moves it on.
    Request,
    /// The entry needs the ring's own process: an ENTER moves it on.
    Process,
}

/// The user side moved an index where it cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfWindow;

/// A completion as it is written: the last two words are for 32-byte rings.
pub(crate) type CqeWords = [u64; 4];

pub(crate) fn cqe_words(user_data: u64, res: i32, extra: [u64; 2]) -> CqeWords {
    let [a, b] = Cqe { user_data, res, flags: 0 }.to_words();
    let [c, d] = extra;
    [a, b, c, d]
}

/// What the completion lock protects.
pub(crate) struct Cq<H: Host> {
    entries: u32,
    /// Completions posted, free-running. The shared `cq_tail` is written from it and never read (IDX-2).
    tail: u32,
    /// `cq_head` as of the last look, always within `tail - entries ..= tail`.
    head: u32,
    /// Slots that are promised.
    reserved: u32,
    /// Waiters sleep until `tail` reaches this. They set it under the lock that posting holds, so no fence is needed
    /// (BELL-4): either the waiter sees the completion, or the poster sees the waiter.
    wake_at: Option<u32>,
    /// Somebody waits for the ring to be idle.
    idle_waiter: bool,
    /// The ring's file was polled at least once: every batch wakes pollers from then on.
    polled: bool,
    /// An eventfd is registered.
    eventfd: bool,
    /// Whether any of these four is set.
    watched: bool,
    /// Why the drain owner left entries behind, if it did.
    pub(crate) stall: Stall,
    /// Entries consumed, as of the last flush.
    pub(crate) sq_head: u32,
    pub(crate) requests: Requests<H>,
    pub(crate) stats: SqStats,
}

impl<H: Host> Cq<H> {
    pub(crate) fn new(entries: u32, requests: Requests<H>) -> Self {
        Self {
            entries,
            tail: 0,
            head: 0,
            reserved: 0,
            wake_at: None,
            idle_waiter: false,
            polled: false,
            eventfd: false,
            watched: false,
            stall: Stall::None,
            sq_head: 0,
            requests,
            stats: SqStats::default(),
        }
    }

    /// Loads `cq_head`, once, and accepts it if it moved forward within the window (IDX-3). Returns the completions not yet
    /// reaped.
    pub(crate) fn look(&mut self, mem: &H::Mem) -> Result<u32, OutOfWindow> {
        let head = mem.load_user(UserWord::CqHead);
        let moved = head.wrapping_sub(self.head);
        if moved > self.tail.wrapping_sub(self.head) {
            return Err(OutOfWindow);
        }
        self.head = head;
        Ok(self.tail.wrapping_sub(head))
    }

    /// Slots that are neither promised nor unreaped, as of the last look.
    fn free(&self) -> u32 {
        let unreaped = self.tail.wrapping_sub(self.head);
        let free = self.entries.checked_sub(unreaped).and_then(|n| n.checked_sub(self.reserved));
        debug_assert!(free.is_some(), "CQ-5");
        free.unwrap_or(0)
    }

    /// Whether entries wait for slots and, as of the last look, there are none. If there are, the ring is on its way: whoever freed
    /// them saw CQ_BLOCKED and rang.
    pub(crate) fn is_blocked(&self) -> bool {
        self.stall == Stall::Slot && self.free() == 0
    }

    /// Reserves every free slot, as of the last look, and says how many that were.
    pub(crate) fn reserve_all(&mut self) -> u32 {
        let free = self.free();
        self.reserved = self.reserved.saturating_add(free);
        free
    }

    /// Gives a reserved slot back unused.
    pub(crate) fn unreserve(&mut self) {
        debug_assert!(self.reserved > 0, "CQ-5");
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Writes completions into reserved slots. They are not visible before [`Cq::publish`].
    #[inline]
    pub(crate) fn post(&mut self, mem: &H::Mem, completions: &[CqeWords]) {
        mem.write_cqes(self.tail, completions);
        // At most a batch.
        let count = u32::try_from(completions.len()).unwrap_or(0);
        debug_assert!(self.reserved >= count, "CQ-5");
        self.reserved = self.reserved.wrapping_sub(count);
        self.tail = self.tail.wrapping_add(count);
        self.stats.completions = self.stats.completions.wrapping_add(count.into());
    }

    /// Makes what was posted visible, once a batch (IDX-4).
    #[inline]
    pub(crate) fn publish(&mut self, mem: &H::Mem) {
        mem.store_kernel(KernelWord::CqTail, self.tail);
    }

    /// Whom to wake after completions were `posted`, and those who wait for the ring to be idle if they have to `look_idle`. It looks
    /// neither at `cq_head` nor at emptiness (BELL-4).
    #[inline]
    pub(crate) fn whom(&mut self, mem: &H::Mem, posted: bool, look_idle: bool) -> Notify {
        if self.watched { self.watchers(mem, posted, look_idle) } else { Notify::default() }
    }

    #[inline(never)]
    fn watchers(&mut self, mem: &H::Mem, posted: bool, look_idle: bool) -> Notify {
        let mut notify = Notify::default();
        if posted {
            let due = self.wake_at.is_some_and(|at| self.tail.wrapping_sub(at).cast_signed() >= 0);
            if due {
                self.wake_at = None;
                self.stats.wakeups = self.stats.wakeups.wrapping_add(1);
            }
            let eventfd = self.eventfd && mem.load_user(UserWord::CqFlags) & cq_flags::EVENTFD_DISABLED == 0;
            notify = Notify { waiters: due || self.polled, eventfd };
        }
        // They are forgotten: those who go on waiting say so again.
        notify.waiters |= look_idle && core::mem::take(&mut self.idle_waiter);
        self.watch();
        notify
    }

    fn watch(&mut self) {
        self.watched = self.wake_at.is_some() || self.idle_waiter || self.polled || self.eventfd;
    }

    /// Counts an entry that got `errno` from the framework.
    pub(crate) fn count_rejected(&mut self, errno: Errno) {
        let stats = &mut self.stats;
        let cause = match errno {
            Errno::EINVAL => Some(&mut stats.rejected_invalid),
            Errno::EOPNOTSUPP => Some(&mut stats.rejected_opcode),
            _ => None,
        };
        for count in [Some(&mut stats.rejected), cause].into_iter().flatten() {
            *count = count.wrapping_add(1);
        }
    }

    /// Has [`Cq::whom`] name waiters once `unreaped` completions are there. For waiters, who then sleep.
    pub(crate) fn wake_when(&mut self, unreaped: u32) {
        let at = self.head.wrapping_add(unreaped);
        let earlier = self.wake_at.is_none_or(|old| at.wrapping_sub(old).cast_signed() < 0);
        if earlier {
            self.wake_at = Some(at);
        }
        self.watch();
    }

    /// Has [`Cq::whom`] name waiters once, when they have to look.
    pub(crate) fn wake_when_idle(&mut self) {
        self.idle_waiter = true;
        self.watch();
    }

    /// Has every batch wake pollers from now on.
    pub(crate) fn wake_pollers(&mut self) {
        self.polled = true;
        self.watch();
    }

    /// Has every batch signal the eventfd, or none.
    pub(crate) fn signal_eventfd(&mut self, signal: bool) {
        self.eventfd = signal;
        self.watch();
    }

    /// Whether an eventfd is registered.
    pub(crate) const fn has_eventfd(&self) -> bool {
        self.eventfd
    }

    /// The counters.
    pub(crate) fn stats(&self) -> SqStats {
        SqStats { inflight: self.requests.inflight().into(), ..self.stats }
    }

    /// The private indices, for people.
    pub(crate) fn indices(&self, look: Look) -> Look {
        Look { cq_head: self.head, cq_tail: self.tail, reserved: self.reserved, ..look }
    }

    /// Checks CQ-5's parts against each other; for tests.
    pub(crate) fn balanced(&self) -> bool {
        let unreaped = self.tail.wrapping_sub(self.head);
        self.reserved.checked_add(unreaped).is_some_and(|sum| sum <= self.entries)
            && self.requests.inflight() <= self.reserved
    }
}
