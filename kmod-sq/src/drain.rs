// SPDX-License-Identifier: MIT OR Apache-2.0
//! Draining the submission queue.
//!
//! Whoever moves the word `drain` from FREE to OWNED is the drain owner, and the only one to touch [`Sq`]. Nobody waits for it:
//! a second ENTER sets REDRAIN in the same word and goes on, and the owner cannot let go while REDRAIN is set.
//! So BELL-5's "clear owner, fence, look at `redrain`" is one compare-exchange, and a doorbell is never lost.
//!
//! ```text
//!            own()                                 second ENTER
//!   FREE -----------------> OWNED  ------------------------------------> OWNED | REDRAIN
//!     ^                      | ^                                              |
//!     +-------release()------+ +-----------------release(): look again-------+
//! ```

use sq_uapi::consts::sq_state;
use sq_uapi::{Fence, KernelMem, UserWord};

use crate::cq::Stall;
use crate::host::{Host, Lock, Notify};
use crate::posted::low;
use crate::ring::{Mode, Ring, count, stop};
use crate::sq::{Sq, pass, set_state, short_pass};
use crate::sync::{Ordering, at};

pub(crate) const FREE: u32 = 0;
const OWNED: u32 = 1;
const REDRAIN: u32 = 2;

/// Queue lengths that a worker consumes before it gives others a turn (BELL-3).
const PASSES: u32 = 8;

/// Why a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The queue was empty at the last look.
    Empty,
    /// The bound was reached, and entries are left.
    Bound,
    /// No slot or no request: whoever frees one goes on.
    Stalled,
    /// The next entry has to be issued in the ring's own process.
    Elsewhere,
    /// Nothing more is accepted: broken, quiesced or disabled.
    Stopped,
}

/// The drain owner.
pub(crate) struct Owner<'r, H: Host> {
    ring: &'r Ring<H>,
}

impl<H: Host> Ring<H> {
    /// Becomes the drain owner, or leaves word for the one there is.
    pub(crate) fn own(&self) -> Option<Owner<'_, H>> {
        if !self.take_drain() {
            // Release: the tail that this ENTER is about comes before the word. Partner: the acquire in `release`.
            if self.drain.fetch_or(OWNED | REDRAIN, at!(DrainKnock, AcqRel)) != FREE {
                return None;
            }
            // The owner left meanwhile, so this caller is the owner now, with a word to itself.
        }
        let mut owner = Owner { ring: self };
        // Once, so that a model sees whether two owners are ordered.
        owner.sq();
        Some(owner)
    }

    /// Becomes the drain owner if there is none, and leaves no word otherwise.
    pub(crate) fn own_if_free(&self) -> Option<Owner<'_, H>> {
        self.take_drain().then_some(Owner { ring: self })
    }

    #[inline(always)]
    fn take_drain(&self) -> bool {
        // Acquire: what the last owner did comes before. Partner: the release in `Owner::release`.
        self.drain.compare_exchange(FREE, OWNED, at!(DrainOwn, Acquire), Ordering::Relaxed).is_ok()
    }

    /// Whether nobody owns the drain. If so, whoever owns it next sees what this caller did before. If not, the owner looks
    /// again before it lets go, as after a doorbell, and sees it then.
    pub(crate) fn drain_is_free(&self) -> bool {
        // A load would not do: a next owner could miss what was stored before it, as this the next owner. Release: partner
        // of the acquires in `own` and `release`. No acquire: the completion lock, taken next, orders the last owner's work.
        let knock = |drain| Some(if drain == FREE { FREE } else { drain | REDRAIN });
        self.drain.fetch_update(at!(DrainQuiet, Release), Ordering::Relaxed, knock) == Ok(FREE)
    }

    /// QUIESCE waits for the drain to be free, and it is.
    #[cold]
    fn tell_quiescer(&self) {
        self.host.notify(Notify { waiters: true, eventfd: false });
    }

    /// What a worker does: drains until nothing is left, then lets the ring go idle (BELL-1). Also the way on for a
    /// ring that was left with entries, and for a broken one.
    pub fn work(&self) {
        if self.stopped() & (stop::BROKEN | stop::QUIESCED) != 0 {
            self.cancel_everything();
        }
        let Some(mut owner) = self.own() else { return };
        owner.wake();
        let mut bound = self.geometry.sq_entries.saturating_mul(PASSES);
        let mut again;
        loop {
            let (consumed, end) = owner.run(bound);
            // At least 1, so that a storm of doorbells cannot keep this going.
            bound = bound.saturating_sub(consumed.max(1));
            again = match end {
                End::Bound => true,
                // Stopped too: a disabled ring may be enabled yet, or meanwhile, and its submitters have to ring then.
                End::Empty | End::Stopped => {
                    let found = !owner.go_idle();
                    if found {
                        owner.count_avoided();
                    }
                    found
                }
                End::Stalled | End::Elsewhere => false,
            };
            if again && bound > 0 {
                continue;
            }
            match owner.leave(end) {
                None => {
                    if end == End::Elsewhere {
                        // Now that the drain is free for whoever comes.
                        self.notify_all();
                    }
                    break;
                }
                Some(back) if bound > 0 => owner = back,
                Some(back) => {
                    back.abandon();
                    again = true;
                    break;
                }
            }
        }
        if again {
            H::work(self);
        }
    }
}

impl<H: Host> Owner<'_, H> {
    /// The submission side.
    #[inline(always)]
    fn sq(&mut self) -> &mut Sq {
        // SAFETY: whoever made this value moved `drain` from FREE, so until `release`, which takes it, nobody else has one; and the
        // reference borrows it.
        self.ring.sq.with_mut(|sq| unsafe { &mut *sq })
    }

    /// Counts a doorbell.
    #[inline]
    pub(crate) fn ring_bell(&mut self) {
        count(&self.ring.tally.doorbells);
    }

    /// Counts a doorbell that nobody needed: entries are there, and nobody said so.
    pub(crate) fn count_avoided(&mut self) {
        count(&self.ring.tally.avoided);
    }

    /// Lets go of opcodes for good.
    pub(crate) fn restrict(&mut self, allowed: u64) {
        self.sq().restrict(allowed);
    }

    /// Consumes what is published, if nothing is in the way: how much, and whether it is all.
    #[inline(always)]
    pub(crate) fn run_short(&mut self) -> (u32, bool) {
        short_pass(self.ring, self.sq())
    }

    /// Consumes up to `bound` entries.
    pub(crate) fn run(&mut self, bound: u32) -> (u32, End) {
        let (consumed, end) = pass(self.ring, self.sq(), bound);
        if end == End::Stopped {
            self.cancel_late();
        }
        (consumed, end)
    }

    /// What this owner issued meanwhile was too late for the cancel that came with a stop. Nor does anything go on that the ring waits for,
    /// and nobody need ring for it.
    pub(crate) fn cancel_late(&mut self) {
        if self.ring.stopped() & (stop::BROKEN | stop::QUIESCED) != 0 {
            self.ring.cq.with(|cq| cq.stall = Stall::None);
            // With it: who looks next does not see any more that the ring waited.
            set_state(self.ring, self.sq(), sq_state::NEED_WAKEUP);
            self.ring.cancel_everything();
        }
    }

    /// While a worker or polling thread is awake, submitters need not ring.
    pub(crate) fn wake(&mut self) {
        if self.ring.geometry.mode != Mode::Caller {
            set_state(self.ring, self.sq(), 0);
        }
    }

    /// BELL-1: says that the kernel side will sleep, and looks once more. `false`: entries came, stay awake.
    pub(crate) fn go_idle(&mut self) -> bool {
        set_state(self.ring, self.sq(), sq_state::NEED_WAKEUP);
        if self.ring.geometry.mode == Mode::Caller {
            return true;
        }
        // Either the submitter, after its fence, sees NEED_WAKEUP and rings, or this sees its tail.
        self.ring.mem.kernel_fence(Fence::BellKernel);
        if self.is_empty() || self.ring.stopped() != 0 {
            self.ring.cq.with(|cq| cq.stats.sleeps = cq.stats.sleeps.wrapping_add(1));
            return true;
        }
        set_state(self.ring, self.sq(), 0);
        false
    }

    /// Whether no entry is there, as of this look.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.ring.mem.load_user(UserWord::SqTail) == low(self.sq().head)
    }

    /// Lets go, unless somebody rang meanwhile (BELL-5): then the caller is still the owner and looks again. QUIESCE rings too: whoever
    /// has then found the ring stopped tells it, by [`Owner::leave`].
    #[inline]
    pub(crate) fn release(self) -> Option<Self> {
        // Release: what this owner did comes before the next owner. Acquire, in the swap: the tail (or the stop) of whoever
        // set REDRAIN is visible.
        if self.ring.drain.compare_exchange(OWNED, FREE, at!(DrainRelease, Release), Ordering::Relaxed).is_ok() {
            return None;
        }
        self.ring.drain.swap(OWNED, at!(DrainAgain, Acquire));
        Some(self)
    }

    /// As [`Owner::release`], after a look that found `end`.
    pub(crate) fn leave(mut self, end: End) -> Option<Self> {
        let ring = self.ring;
        self.sq().open_short(ring);
        let back = self.release();
        if back.is_none() && end == End::Stopped {
            ring.tell_quiescer();
        }
        back
    }

    /// Lets go for good; the caller has a worker look again.
    pub(crate) fn abandon(self) {
        // Release, as in `release`. A swap, not a store: the worker acquires from whoever set REDRAIN, too.
        self.ring.drain.swap(FREE, at!(DrainAbandon, Release));
        if self.ring.stopped() & stop::QUIESCED != 0 {
            self.ring.tell_quiescer();
        }
    }
}
