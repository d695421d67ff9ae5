// SPDX-License-Identifier: MIT OR Apache-2.0
//! The submission side: consuming a span of entries, slot by slot, and publishing what came of it.

use core::ptr;

use sq_driver::abi::{OpOps, RawOp, RawPayload};
use sq_uapi::consts::{sq_state, sqe_flags};
use sq_uapi::{Cqe, Fence, KernelMem, KernelWord, UserWord};

use crate::cq::{CqeWords, OutOfWindow, Stall, cqe_words};
use crate::drain::End;
use crate::host::{Event, Host, Lock, Notify};
use crate::issue::{ELSEWHERE, LEAST, issue, reject, special};
use crate::ix;
use crate::parse::{Accepts, Parsed, is_bare};
use crate::request::NONE;
use crate::ring::{Mode, Ring};
use crate::snapshot::Snapshot;

/// Inline completions that are gathered before they are written, under one lock and with one store of `cq_tail`.
const BATCH: usize = 64;

/// `CQE_SKIP_SUCCESS` in word 0 of an entry. A rejected entry's result is negative, so that its flags do not matter.
#[expect(clippy::as_conversions, reason = "widening in a constant")]
pub(crate) const SKIP_SUCCESS: u64 = (sqe_flags::CQE_SKIP_SUCCESS as u64) << 8;

/// The submission side. The drain owner's.
pub(crate) struct Sq {
    /// Entries consumed, free-running. The shared `sq_head` is written from it and never read (IDX-2).
    pub(crate) head: u32,
    /// Completion slots that are reserved for entries to come.
    stash: u32,
    /// What `sq_state` holds.
    state: u32,
    batch: [CqeWords; BATCH],
    batched: usize,
    pub(crate) doorbells: u64,
    pub(crate) avoided: u64,
    skipped: u64,
    intake: Intake,
}

/// What an entry passes on its way to the driver.
pub(crate) struct Intake {
    /// What the opcodes and fields must satisfy.
    accepts: Accepted,
    /// The operation being issued. Between two of them all words of `op.sqe` but 0 and 4 are 0, which a bare entry
    /// leaves as they are; but for a parked one.
    pub(crate) op: RawOp,
    /// The entry at `head` is in `op.sqe` already: it was copied where it could not be issued.
    parked: bool,
}

/// The table as this ring has it, and what follows from it for the shortest way.
struct Accepted {
    table: Accepts,
    bare: u64,
}

impl Accepted {
    const fn new(table: Accepts) -> Self {
        Self { table, bare: table.bare() }
    }
}

impl Sq {
    /// Lets go of opcodes for good.
    pub(crate) fn restrict(&mut self, allowed: u64) {
        let mut table = self.intake.accepts.table;
        table.restrict(allowed);
        self.intake.accepts = Accepted::new(table);
    }

    pub(crate) fn new(accepts: Accepts, ops: &'static OpOps) -> Self {
        Self {
            head: 0,
            stash: 0,
            state: sq_state::NEED_WAKEUP,
            batch: [[0; 4]; BATCH],
            batched: 0,
            doorbells: 0,
            avoided: 0,
            skipped: 0,
            intake: Intake {
                accepts: Accepted::new(accepts),
                parked: false,
                op: RawOp {
                    sqe: [0; 16],
                    ops,
                    framework: ptr::null(),
                    target: 0,
                    extra: [0; 2],
                    payload: RawPayload::empty(),
                },
            },
        }
    }
}

pub(crate) fn set_state<H: Host>(ring: &Ring<H>, sq: &mut Sq, state: u32) {
    if sq.state != state {
        sq.state = state;
        ring.mem.store_kernel(KernelWord::SqState, state);
    }
}

/// Consumes the published span, or `bound` entries of it: one look at the tail, one publication of head and completions a
/// batch (IDX-4).
#[inline(always)]
pub(crate) fn pass<H: Host>(ring: &Ring<H>, sq: &mut Sq, bound: u32) -> (u32, End) {
    if ring.stopped() != 0 {
        return (0, End::Stopped);
    }
    let span = ring.mem.load_user(UserWord::SqTail).wrapping_sub(sq.head);
    if span == 0 {
        return (0, End::Empty);
    }
    if span > ring.geometry.sq_entries {
        ring.break_ring(OutOfWindow);
        return (0, End::Stopped);
    }
    sq.intake.op.framework = ptr::from_ref(ring).cast();
    let most = span.min(bound);
    let mut done = 0u32;
    let mut end = if most == span { End::Empty } else { End::Bound };
    ring.driver.begin();
    loop {
        if sq.stash == 0 || ring.issuing.spare.get() == NONE {
            flush(ring, sq);
            if !stock(ring, sq) {
                end = if ring.stopped() != 0 { End::Stopped } else { End::Stalled };
                break;
            }
        }
        let left = most.wrapping_sub(done);
        let consumed = if ring.geometry.sqe128 || ring.geometry.cqe32 {
            stretch::<true, H>(ring, sq, left)
        } else {
            stretch::<false, H>(ring, sq, left)
        };
        done = done.wrapping_add(consumed);
        if done >= most {
            break;
        }
        if sq.intake.parked {
            end = End::Elsewhere;
            break;
        }
        if sq.batched == BATCH {
            flush(ring, sq);
        }
        if ring.stopped() != 0 {
            end = End::Stopped;
            break;
        }
    }
    ring.driver.commit();
    flush(ring, sq);
    if end == End::Elsewhere {
        leave_to_process(ring, sq);
    }
    // Empty means: as of the look at the tail. Looking again is the next pass, or the submitter's next doorbell.
    (done, end)
}

/// WAIT-1: says that the next entry waits for an ENTER of the ring's own process. Whoever waits there or polls is woken when the
/// drain is free.
#[cold]
fn leave_to_process<H: Host>(ring: &Ring<H>, sq: &mut Sq) {
    set_state(ring, sq, sq_state::NEED_ENTER);
    ring.cq.with(|cq| {
        cq.stall = Stall::Process;
        cq.stats.stalls = cq.stats.stalls.wrapping_add(1);
    });
}

/// Consumes up to `most` entries, as long as there are slots for them and room in the batch, and until one completes later or
/// needs no completion.
///
/// The path of every entry: slot, snapshot, parsed entry, operation, completion. Made twice: `WIDE` is whether entries have 128
/// bytes or completions 32, so that the ordinary ring need not ask at each entry.
#[inline(always)]
fn stretch<const WIDE: bool, H: Host>(ring: &Ring<H>, sq: &mut Sq, most: u32) -> u32 {
    let (wide, wide_cqe) = (WIDE && ring.geometry.sqe128, WIDE && ring.geometry.cqe32);
    if sq.intake.parked {
        return resume(ring, sq, wide, wide_cqe);
    }
    let intake = &mut sq.intake;
    // The second half of a 128-byte entry counts too: no such entry is bare.
    let bare = if wide { 0 } else { intake.accepts.bare };
    // In a local: a driver's call may not write it, but the compiler cannot know.
    let mut head = sq.head;
    // Below BATCH, or it would have been flushed: the compiler should know.
    let room = sq.batch.get_mut(sq.batched % BATCH..).unwrap_or_default();
    let most = ix(most.min(sq.stash)).min(room.len());
    let places = room.get_mut(..most).unwrap_or_default();
    let mut without = 0u32;
    for place in places {
        let words = ring.mem.copy_sqe(head);
        let [word0, _, _, _, user_data, ..] = words;
        let res = if is_bare(&words, bare) {
            let [op0, _, _, _, op4, ..] = &mut intake.op.sqe;
            (*op0, *op4) = (word0, user_data);
            issue(ring, intake)
        } else {
            let (first, last) = intake.op.sqe.split_at_mut(8);
            first.copy_from_slice(&words);
            if wide {
                last.copy_from_slice(&ring.mem.copy_sqe_tail(head));
            }
            general(ring, intake, wide)
        };
        if res == ELSEWHERE {
            intake.parked = true;
            break;
        }
        head = head.wrapping_add(1);
        if res < LEAST {
            without = 1;
            if res == SKIPPED {
                // Its slot goes back where it came from.
                sq.stash = sq.stash.saturating_add(1);
                sq.skipped = sq.skipped.wrapping_add(1);
            }
            // Deferred: the slot and the request that was set aside went with it.
            break;
        }
        let [a, b, c, d] = place;
        [*a, *b] = Cqe { user_data, res, flags: 0 }.to_words();
        if wide_cqe {
            [*c, *d] = core::mem::take(&mut intake.op.extra);
        }
    }
    let consumed = head.wrapping_sub(sq.head);
    sq.head = head;
    sq.batched = sq.batched.wrapping_add(ix(consumed.wrapping_sub(without)));
    sq.stash = sq.stash.saturating_sub(consumed);
    consumed
}

/// Consumes the entry that was parked, from its private copy: it is not looked at in its slot again (SNAP-1).
#[cold]
fn resume<H: Host>(ring: &Ring<H>, sq: &mut Sq, wide: bool, wide_cqe: bool) -> u32 {
    let [_, _, _, _, user_data, ..] = sq.intake.op.sqe;
    let res = general(ring, &mut sq.intake, wide);
    if res == ELSEWHERE {
        return 0;
    }
    sq.intake.parked = false;
    ring.cq.with(|cq| {
        if cq.stall == Stall::Process {
            cq.stall = Stall::None;
        }
    });
    set_state(ring, sq, sq_state::NEED_WAKEUP);
    sq.head = sq.head.wrapping_add(1);
    if res == SKIPPED {
        sq.skipped = sq.skipped.wrapping_add(1);
        return 1;
    }
    sq.stash = sq.stash.saturating_sub(1);
    if res >= LEAST
        && let Some(place) = sq.batch.get_mut(sq.batched)
    {
        let extra = if wide_cqe { core::mem::take(&mut sq.intake.op.extra) } else { [0; 2] };
        *place = cqe_words(user_data, res, extra);
        sq.batched = sq.batched.wrapping_add(1);
    }
    1
}

/// What [`general`] says of a success that nobody wants to hear of. No result is this: errors are above -4096.
const SKIPPED: i32 = i32::MIN + 1;

/// An entry that is more than its opcode. It is in `intake.op`, which is private: reading it again is no second look at the slot.
#[inline(never)]
fn general<H: Host>(ring: &Ring<H>, intake: &mut Intake, wide: bool) -> i32 {
    let snapshot = Snapshot::of_words(&intake.op.sqe);
    let [word0, ..] = snapshot.words();
    let res = match Parsed::new(snapshot, &intake.accepts.table, wide) {
        Ok(parsed) if parsed.is_plain() => issue(ring, intake),
        Ok(parsed) => special(ring, intake, &parsed),
        Err(errno) => reject(ring, &intake.op, errno),
    };
    if res == ELSEWHERE {
        return res;
    }
    intake.op.sqe = [0; 16];
    if word0 & SKIP_SUCCESS != 0 && res >= 0 {
        intake.op.extra = [0; 2];
        return SKIPPED;
    }
    res
}

/// Publishes what was consumed and what completed inline, and takes free slots into the stash when it runs low.
#[inline(never)]
fn flush<H: Host>(ring: &Ring<H>, sq: &mut Sq) {
    ring.mem.store_kernel(KernelWord::SqHead, sq.head);
    let (notify, broken) = ring.cq.with(|cq| {
        if sq.batched > 0 {
            cq.post(&ring.mem, sq.batch.get(..sq.batched.min(BATCH)).unwrap_or(&[]));
            cq.publish(&ring.mem);
        }
        let stats = &mut cq.stats;
        stats.entries = stats.entries.wrapping_add(sq.head.wrapping_sub(cq.sq_head).into());
        stats.doorbells = stats.doorbells.wrapping_add(core::mem::take(&mut sq.doorbells));
        if sq.avoided | sq.skipped != 0 {
            stats.avoided = stats.avoided.wrapping_add(core::mem::take(&mut sq.avoided));
            stats.skipped = stats.skipped.wrapping_add(core::mem::take(&mut sq.skipped));
        }
        cq.sq_head = sq.head;
        let notify = cq.whom(&ring.mem, sq.batched > 0, true);
        let mut broken = None;
        if ix(sq.stash) < BATCH {
            match cq.look(&ring.mem) {
                Ok(_) => {
                    sq.stash = sq.stash.saturating_add(cq.reserve_all());
                    if sq.stash > 0 && cq.stall == Stall::Slot {
                        // The reaper came between the pass's last look and this one. It rings: CQ_BLOCKED is still said.
                        cq.stall = Stall::None;
                    }
                }
                Err(out) => broken = Some(out),
            }
        }
        (notify, broken)
    });
    if ring.host.traces_completions() {
        trace_batch(ring, sq);
    }
    sq.batched = 0;
    if notify.any() {
        ring.host.notify(notify);
    }
    if let Some(out) = broken {
        ring.break_ring(out);
    }
}

#[cold]
fn trace_batch<H: Host>(ring: &Ring<H>, sq: &Sq) {
    for &[user_data, result, ..] in sq.batch.iter().take(sq.batched) {
        ring.host.trace(Event::Complete { user_data, res: Cqe::from_words([user_data, result]).res });
    }
}

/// Makes sure of a completion slot and a request for the next entry. `false`: there is none, somebody else has been charged
/// with going on, and the ring says so (CQ-2).
#[cold]
fn stock<H: Host>(ring: &Ring<H>, sq: &mut Sq) -> bool {
    let mut said = false;
    loop {
        let got = ring.cq.with(|cq| {
            if sq.stash == 0 {
                cq.look(&ring.mem)?;
                sq.stash = cq.reserve_all();
            }
            if ring.issuing.spare.get() == NONE {
                ring.issuing.spare.set(cq.requests.spare());
            }
            cq.stall = match (sq.stash, ring.issuing.spare.get()) {
                (0, _) if said => Stall::Slot,
                (0, _) => return Ok(None),
                (_, NONE) => Stall::Request,
                _ => Stall::None,
            };
            if cq.stall != Stall::None {
                cq.stats.stalls = cq.stats.stalls.wrapping_add(1);
            }
            Ok(Some(cq.stall))
        });
        match got {
            // The reaper must be told before it is clear that it has to help: then either it sees the flag after its
            // fence and rings, or the second look, after this fence, sees its cq_head.
            Ok(None) => {
                set_state(ring, sq, sq_state::CQ_BLOCKED);
                ring.mem.kernel_fence(Fence::BlockedKernel);
                said = true;
            }
            Ok(Some(Stall::None)) => {
                let awake = if ring.geometry.mode == Mode::Caller { sq_state::NEED_WAKEUP } else { 0 };
                set_state(ring, sq, awake);
                return true;
            }
            // CQ_BLOCKED stays if it was said; a want of requests only the kernel side can end.
            Ok(Some(stall)) => {
                ring.host.trace(Event::Stall { slots: stall == Stall::Slot });
                if stall == Stall::Slot {
                    // WAIT-1: that the ring is blocked ends a wait.
                    ring.host.notify(Notify { waiters: true, eventfd: false });
                }
                return false;
            }
            Err(out) => {
                ring.break_ring(out);
                return false;
            }
        }
    }
}
