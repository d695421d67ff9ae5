// SPDX-License-Identifier: MIT OR Apache-2.0
//! ENTER: the doorbell, and waiting for completions.

use sq_uapi::consts::enter_flags;
use sq_uapi::{Errno, KernelMem, SqEnter, UserWord};

use crate::cq::{Cq, OutOfWindow, Stall};
use crate::drain::{End, Owner};
use crate::host::{Host, Lock, Waited};
use crate::posted::low;
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
        match self.bell()? {
            0 => self.nothing_consumed(),
            consumed => Ok(consumed),
        }
    }

    /// Why a doorbell consumed nothing, if that is an error.
    #[inline(never)]
    fn nothing_consumed(&self) -> Result<u32, Errno> {
        self.accepting()?;
        let look = |cq: &mut Cq<H>| {
            // The look comes first: what it finds reaped is free.
            let unreaped = cq.look(&self.mem, &self.posted)?;
            Ok(unreaped == 0 && cq.is_blocked())
        };
        match self.cq.with(look) {
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
        enter.consumed = self.bell_apart()?;
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
    #[inline(always)]
    fn bell(&self) -> Result<u32, Errno> {
        if self.geometry.mode != Mode::Caller {
            return self.bell_elsewhere();
        }
        let Some(mut owner) = self.own() else {
            // The owner looks again before it lets go.
            self.accepting()?;
            self.count_bell();
            return Ok(0);
        };
        owner.ring_bell();
        let (consumed, all) = owner.run_short();
        if !all {
            return self.drain(owner, consumed);
        }
        match owner.release() {
            None => Ok(consumed),
            Some(owner) => self.drain(owner, consumed),
        }
    }

    #[inline(never)]
    fn bell_apart(&self) -> Result<u32, Errno> {
        self.bell()
    }

    /// The doorbell of a ring that its callers do not drain.
    #[inline(never)]
    fn bell_elsewhere(&self) -> Result<u32, Errno> {
        self.accepting()?;
        // A waiter rings as well, and wakes nobody if all that was published is consumed.
        if self.count_bell() {
            H::work(self);
        }
        Ok(0)
    }

    /// Drains in the caller's context, which has consumed so many already. Returns how many it consumed.
    #[inline(never)]
    fn drain(&self, mut owner: Owner<'_, H>, mut total: u32) -> Result<u32, Errno> {
        if total == 0
            && let Err(errno) = self.accepting()
        {
            // Asked before anything is left undone for it: a ring that is enabled a moment later has not heard this doorbell.
            owner.cancel_late();
            if let Some(back) = owner.leave(End::Stopped) {
                back.abandon();
                H::work(self);
            }
            return Err(errno);
        }
        // At least 1, so that a storm of doorbells from other threads cannot keep this one here.
        let mut bound = self.geometry.sq_entries.saturating_sub(total).max(1);
        loop {
            let (consumed, end) = owner.run(bound);
            // At most twice the length of the queue.
            total = total.wrapping_add(consumed);
            if matches!(end, End::Empty | End::Stopped) {
                // Also the way out of CQ_BLOCKED and NEED_ENTER.
                owner.go_idle();
            }
            owner = match owner.leave(end) {
                None if end == End::Bound => break,
                None => return Ok(total),
                Some(back) => back,
            };
            // As above.
            bound = bound.saturating_sub(consumed.max(1));
            if bound == 0 {
                owner.abandon();
                break;
            }
        }
        // BELL-3: entries are left, and this call has done its share.
        H::work(self);
        Ok(total)
    }

    /// Counts a doorbell. Whether entries are left, as of the last flush.
    fn count_bell(&self) -> bool {
        self.cq.with(|cq| {
            cq.stats.doorbells = cq.stats.doorbells.wrapping_add(1);
            !self.is_drained()
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

    /// Whether every entry is consumed: those that are have a completion by now, or are in flight.
    fn is_drained(&self) -> bool {
        self.mem.load_user(UserWord::SqTail) == low(self.posted.consumed())
    }

    /// WAIT-1: whether a wait is over. If not, whoever posts the last completion wanted has been told to wake.
    fn awaited(&self, goal: u32, idle_ends: bool) -> Option<Result<(), Errno>> {
        if self.stopped() != 0 {
            return Some(self.accepting());
        }
        let over = |cq: &mut Cq<H>| -> Result<_, OutOfWindow> {
            let unreaped = cq.look(&self.mem, &self.posted)?;
            if unreaped >= goal {
                return Ok(Some(Ok(())));
            }
            // With nothing to reap, requests in flight have all the slots, and one of them ends by itself (CQ-4): that is waited for.
            if cq.is_blocked() && unreaped > 0 {
                return Ok(Some(Err(Errno::EBUSY)));
            }
            if cq.stall == Stall::Process {
                // This waiter's from here on, and no other's.
                cq.stall = Stall::None;
                return Ok(Some(Err(NEED_ENTER)));
            }
            // In this order, see `Posted::consumed`. Whether a drain still runs does not matter.
            let idle = idle_ends && self.is_drained() && self.posted.inflight() == 0;
            Ok(idle.then_some(Ok(())))
        };
        let looked = self.cq.with(|cq| {
            if let Some(outcome) = over(cq)? {
                return Ok(Some(outcome));
            }
            // A poster without the lock either sees this, or has shown by now what it posted (BELL-4).
            cq.wake_when(&self.mem, &self.posted, goal, idle_ends);
            over(cq)
        });
        // The caller breaks the ring.
        looked.unwrap_or(Some(Err(Errno::EBADFD)))
    }
}
