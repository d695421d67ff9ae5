// SPDX-License-Identifier: MIT OR Apache-2.0
//! The completion side: everything that the completion lock protects.
//!
//! Slots of the completion queue are accounted for privately (CQ-5): at every step `free + reserved + unreaped = entries`,
//! where `reserved` counts the slots of requests in flight, of inline completions not yet posted, and of the drain owner's stash.
//! What is stored is `promised`, the count at which `tail` arrives when all of them are posted: so posting moves a slot from one to
//! the other by nothing but `tail` ([`Posted`]). `free` is what is left over.

use sq_uapi::consts::cq_flags;
use sq_uapi::{Cqe, CqePlace, Errno, Fence, KernelMem, SqStats, UserWord};

use crate::host::{Host, Notify};
use crate::look::Look;
use crate::posted::{Posted, low};
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
    /// `cq_head` as of the last look, always within `tail - entries ..= tail`.
    head: u32,
    /// `tail` once every slot that is promised has its completion.
    promised: u32,
    /// Waiters sleep until so many completions are shown.
    wake_at: Option<u32>,
    /// Somebody waits for the ring to be idle.
    idle_waiter: bool,
    /// The ring's file was polled at least once: every batch wakes pollers from then on.
    polled: bool,
    /// An eventfd is registered.
    eventfd: bool,
    /// Completions that watchers have been told of.
    told: u32,
    /// Why the drain owner left entries behind, if it did.
    pub(crate) stall: Stall,
    pub(crate) requests: Requests<H>,
    pub(crate) stats: SqStats,
}

impl<H: Host> Cq<H> {
    pub(crate) fn new(entries: u32, requests: Requests<H>) -> Self {
        Self {
            entries,
            head: 0,
            promised: 0,
            wake_at: None,
            idle_waiter: false,
            polled: false,
            eventfd: false,
            told: 0,
            stall: Stall::None,
            requests,
            stats: SqStats::default(),
        }
    }

    /// Loads `cq_head`, once, and accepts it if it moved forward within the window (IDX-3). Returns the completions not yet
    /// reaped.
    pub(crate) fn look(&mut self, mem: &H::Mem, posted: &Posted) -> Result<u32, OutOfWindow> {
        // What is shown is shown to the reaper by now: the count comes first, or reaped ones were counted.
        let shown = low(posted.shown());
        let head = mem.load_user(UserWord::CqHead);
        // After `cq_head`, so that it is not behind an honest one.
        let tail = low(posted.tail());
        if head.wrapping_sub(self.head) > tail.wrapping_sub(self.head) {
            return Err(OutOfWindow);
        }
        self.head = head;
        // A quick reaper may be ahead of `shown`.
        Ok(u32::try_from(shown.wrapping_sub(head).cast_signed()).unwrap_or(0))
    }

    /// Slots that are neither promised nor unreaped, as of the last look.
    fn free(&self) -> u32 {
        let taken = self.promised.wrapping_sub(self.head);
        debug_assert!(taken <= self.entries, "CQ-5");
        self.entries.saturating_sub(taken)
    }

    /// Whether entries wait for slots and, as of the last look, there are none. If there are, the ring is on its way: whoever freed
    /// them saw CQ_BLOCKED and rang.
    pub(crate) fn is_blocked(&self) -> bool {
        self.stall == Stall::Slot && self.free() == 0
    }

    /// Reserves every free slot, as of the last look, and says how many that were.
    pub(crate) fn reserve_all(&mut self) -> u32 {
        let free = self.free();
        self.promised = self.promised.wrapping_add(free);
        free
    }

    /// Gives a reserved slot back unused.
    pub(crate) fn unreserve(&mut self) {
        self.promised = self.promised.wrapping_sub(1);
    }

    /// Posts completions into reserved slots, and makes them visible (IDX-4).
    pub(crate) fn post(&mut self, mem: &H::Mem, posted: &Posted, mut completions: &[CqeWords]) {
        let mut tail = posted.tail();
        while !completions.is_empty() {
            // Up to where the array ends, and then from its start.
            let mut rest = completions.iter();
            for (place, words) in mem.cqe_run(low(tail), u32::MAX).zip(rest.by_ref()) {
                place.write_wide(*words);
                tail = tail.wrapping_add(1);
            }
            completions = rest.as_slice();
        }
        debug_assert!(self.promised.wrapping_sub(low(tail)) <= self.entries, "CQ-5");
        posted.show(mem, tail);
    }

    /// Whom to wake after something may have been posted, and those who wait for the ring to be idle if they have to `look_idle`. It looks
    /// neither at `cq_head` nor at emptiness (BELL-4).
    #[inline]
    pub(crate) fn whom(&mut self, mem: &H::Mem, posted: &Posted, look_idle: bool) -> Notify {
        if posted.is_watched() { self.watchers(mem, posted, look_idle) } else { Notify::default() }
    }

    #[inline(never)]
    fn watchers(&mut self, mem: &H::Mem, posted: &Posted, look_idle: bool) -> Notify {
        let mut notify = Notify::default();
        let shown = low(posted.shown());
        if core::mem::replace(&mut self.told, shown) != shown {
            let due = self.wake_at.is_some_and(|at| shown.wrapping_sub(at).cast_signed() >= 0);
            if due {
                self.wake_at = None;
                self.stats.wakeups = self.stats.wakeups.wrapping_add(1);
            }
            let eventfd = self.eventfd && {
                // Either the reaper, after its fence, sees what was posted, or this sees that it wants to be told again.
                mem.kernel_fence(Fence::HintKernel);
                mem.load_user(UserWord::CqFlags) & cq_flags::EVENTFD_DISABLED == 0
            };
            notify = Notify { waiters: due || self.polled, eventfd };
        }
        // They are forgotten: those who go on waiting say so again.
        notify.waiters |= look_idle && core::mem::take(&mut self.idle_waiter);
        self.watch(posted);
        notify
    }

    /// Says whether anybody watches.
    fn watch(&mut self, posted: &Posted) {
        let watched = self.wake_at.is_some() || self.idle_waiter || self.polled || self.eventfd;
        if watched && !posted.is_watched() {
            // Nobody asked to be told of these.
            self.told = low(posted.shown());
        }
        posted.watch(watched);
    }

    /// Says that somebody watches from now on; what whoever it is looks at afterwards is not older than what is told (BELL-4).
    fn begin_watch(&mut self, mem: &H::Mem, posted: &Posted) {
        self.watch(posted);
        mem.kernel_fence(Fence::WatchKernel);
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

    /// Has [`Cq::whom`] name waiters once `unreaped` completions are there, and, if they want that, once the ring may be idle. For
    /// waiters, who then look again and sleep.
    pub(crate) fn wake_when(&mut self, mem: &H::Mem, posted: &Posted, unreaped: u32, idle: bool) {
        let at = self.head.wrapping_add(unreaped);
        let earlier = self.wake_at.is_none_or(|old| at.wrapping_sub(old).cast_signed() < 0);
        if earlier {
            self.wake_at = Some(at);
        }
        self.idle_waiter |= idle;
        self.begin_watch(mem, posted);
    }

    /// Has [`Cq::whom`] name waiters once, when they have to look whether the ring is idle.
    pub(crate) fn wake_when_idle(&mut self, mem: &H::Mem, posted: &Posted) {
        self.idle_waiter = true;
        self.begin_watch(mem, posted);
    }

    /// Has every batch wake pollers from now on.
    pub(crate) fn wake_pollers(&mut self, mem: &H::Mem, posted: &Posted) {
        self.polled = true;
        self.begin_watch(mem, posted);
    }

    /// Has every batch signal the eventfd, or none.
    pub(crate) fn signal_eventfd(&mut self, mem: &H::Mem, posted: &Posted, signal: bool) {
        self.eventfd = signal;
        self.begin_watch(mem, posted);
    }

    /// Whether an eventfd is registered.
    pub(crate) const fn has_eventfd(&self) -> bool {
        self.eventfd
    }

    /// The private indices, for people.
    pub(crate) fn indices(&self, posted: &Posted, look: Look) -> Look {
        let tail = low(posted.tail());
        Look {
            sq_head: low(posted.consumed()),
            cq_head: self.head,
            cq_tail: tail,
            reserved: self.promised.wrapping_sub(tail),
            ..look
        }
    }

    /// Checks CQ-5's parts against each other; for tests.
    pub(crate) fn balanced(&self, posted: &Posted) -> bool {
        let tail = low(posted.tail());
        let (reserved, unreaped) = (self.promised.wrapping_sub(tail), tail.wrapping_sub(self.head));
        reserved.checked_add(unreaped).is_some_and(|sum| sum <= self.entries) && posted.inflight() <= reserved
    }
}
