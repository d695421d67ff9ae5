// SPDX-License-Identifier: MIT OR Apache-2.0
//! ENTER: the doorbell, and waiting for completions.

use sq_uapi::consts::enter_flags;
use sq_uapi::{Errno, KernelMem, SqEnter, UserWord};

use crate::cq::{OutOfWindow, Stall};
use crate::drain::End;
use crate::host::{Host, Lock, Waited};
use crate::ring::{Mode, Ring, stop};

/// Not an outcome of a wait: an entry needs this process, so the waiter drains, and waits on (WAIT-1).
const NEED_ENTER: Errno = Errno::EAGAIN;

impl<H: Host> Ring<H> {
    /// The bare doorbell: entries consumed.
    ///
    /// # Errors
    ///
    /// `EBADFD` if the ring is broken or not enabled, `ESHUTDOWN` if it was quiesced, `EBUSY` if it is blocked and nothing is
    /// there to reap.
    #[inline(always)]
    pub fn doorbell(&self) -> Result<u32, Errno> {
        self.accepting()?;
        let consumed = self.bell();
        if consumed > 0 {
            return Ok(consumed);
        }
        // The look comes first: what it finds reaped is free.
        match self.cq.with(|cq| cq.look(&self.mem).map(|unreaped| unreaped == 0 && cq.is_blocked())) {
            Ok(true) => Err(Errno::EBUSY),
            Ok(false) => Ok(0),
            Err(out) => {
                self.break_ring(out);
                Err(Errno::EBADFD)
            }
        }
    }

    /// The doorbell, and then a wait for completions if `min_complete` asks for it. The number consumed and how the wait ended
    /// are separate: `enter.consumed` and `enter.wait_result`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an unknown flag or a reserved field; `EBADFD`, `ESHUTDOWN` as [`Ring::doorbell`].
    pub fn enter(&self, enter: &mut SqEnter) -> Result<u32, Errno> {
        let has = |flag| enter.flags & flag != 0;
        if enter.flags & !H::ABILITIES.enter_flags != 0
            || enter.resv != 0
            || enter.resv2 != [0; 2]
            || (!has(enter_flags::TIMEOUT) && enter.timeout_ns != 0)
            || (!has(enter_flags::MIN_WAIT) && enter.min_wait_ns != 0)
            || (!has(enter_flags::SIGMASK) && enter.sigmask != 0)
        {
            return Err(Errno::EINVAL);
        }
        self.accepting()?;
        enter.consumed = self.bell();
        enter.wait_result = if enter.min_complete > 0 { self.wait(enter) } else { 0 };
        Ok(enter.consumed)
    }

    fn accepting(&self) -> Result<(), Errno> {
        match self.stopped() {
            0 => Ok(()),
            stopped if stopped & (stop::BROKEN | stop::DISABLED) != 0 => Err(Errno::EBADFD),
            _ => Err(Errno::ESHUTDOWN),
        }
    }

    /// Drains in the caller's context, or wakes who drains.
    #[inline]
    fn bell(&self) -> u32 {
        if self.geometry.mode != Mode::Caller {
            // A waiter rings as well, and wakes nobody if all that was published is consumed.
            if self.count_bell() {
                H::work(self);
            }
            return 0;
        }
        let Some(mut owner) = self.own() else {
            // The owner looks again before it lets go.
            self.count_bell();
            return 0;
        };
        owner.ring_bell();
        let mut bound = self.geometry.sq_entries;
        let mut total = 0u32;
        loop {
            let (consumed, end) = owner.run(bound);
            // At most twice the length of the queue.
            total = total.wrapping_add(consumed);
            if end == End::Empty {
                // Also the way out of CQ_BLOCKED.
                owner.go_idle();
            }
            owner = match owner.release() {
                None if end == End::Bound => break,
                None => return total,
                Some(back) => back,
            };
            // At least 1, so that a storm of doorbells from other threads cannot keep this one here.
            bound = bound.saturating_sub(consumed.max(1));
            if bound == 0 {
                owner.abandon();
                break;
            }
        }
        // BELL-3: entries are left, and this call has done its share.
        H::work(self);
        total
    }

    /// Counts a doorbell. Whether entries are left, as of the last flush.
    fn count_bell(&self) -> bool {
        self.cq.with(|cq| {
            cq.stats.doorbells = cq.stats.doorbells.wrapping_add(1);
            self.mem.load_user(UserWord::SqTail) != cq.sq_head
        })
    }

    fn wait(&self, enter: &SqEnter) -> i32 {
        let has = |flag| enter.flags & flag != 0;
        let goal = enter.min_complete.min(self.geometry.cq_entries);
        let idle_ends = has(enter_flags::WAIT_IDLE);
        let started = if has(enter_flags::TIMEOUT | enter_flags::MIN_WAIT) { self.host.now_ns() } else { 0 };
        let end = has(enter_flags::TIMEOUT).then(|| started.saturating_add(enter.timeout_ns));
        let relax = has(enter_flags::MIN_WAIT).then(|| started.saturating_add(enter.min_wait_ns));
        // Until `relax` all of `goal` are wanted, after it one is enough.
        let first = match (relax, end) {
            (Some(relax), Some(end)) => Some(relax.min(end)),
            (relax, end) => relax.or(end),
        };
        let res = self.sleep(goal, idle_ends, first);
        if res == Err(Errno::ETIME) && relax.is_some() && first == relax {
            return self.sleep(goal.min(1), idle_ends, end).map_or_else(Errno::to_res, |()| 0);
        }
        res.map_or_else(Errno::to_res, |()| 0)
    }

    fn sleep(&self, goal: u32, idle_ends: bool, deadline: Option<u64>) -> Result<(), Errno> {
        loop {
            let mut outcome = None;
            let waited = self.host.wait(deadline, &mut || {
                outcome = self.awaited(goal, idle_ends);
                outcome.is_some()
            });
            // What is there when the time is up counts.
            return match (outcome.or_else(|| self.awaited(goal, idle_ends)), waited) {
                (Some(Err(NEED_ENTER)), _) => {
                    self.work();
                    continue;
                }
                (Some(Err(Errno::EBADFD)), _) => {
                    // Only now: this wakes, and within `wait` the host may hold what waking takes.
                    self.break_ring(OutOfWindow);
                    Err(Errno::EBADFD)
                }
                (Some(outcome), _) => outcome,
                (None, Waited::Timeout) => Err(Errno::ETIME),
                (None, _) => Err(Errno::EINTR),
            };
        }
    }

    /// WAIT-1: whether a wait is over. If not, whoever posts the last completion wanted has been told to wake.
    fn awaited(&self, goal: u32, idle_ends: bool) -> Option<Result<(), Errno>> {
        if self.stopped() != 0 {
            return Some(self.accepting());
        }
        let looked: Result<_, OutOfWindow> = self.cq.with(|cq| {
            let unreaped = cq.look(&self.mem)?;
            if unreaped >= goal {
                return Ok(Some(Ok(())));
            }
            if cq.is_blocked() {
                return Ok(Some(Err(Errno::EBUSY)));
            }
            if cq.stall == Stall::Process {
                // This waiter's from here on, and no other's.
                cq.stall = Stall::None;
                return Ok(Some(Err(NEED_ENTER)));
            }
            if idle_ends {
                // Whether a drain still runs does not matter: it publishes its head together with what it completed, under
                // this lock, so what is not counted here is in flight or done.
                let empty = self.mem.load_user(UserWord::SqTail) == cq.sq_head;
                if empty && cq.requests.inflight() == 0 {
                    return Ok(Some(Ok(())));
                }
                cq.wake_when_idle();
            }
            cq.wake_when(goal);
            Ok(None)
        });
        // The caller breaks the ring.
        looked.unwrap_or(Some(Err(Errno::EBADFD)))
    }
}
