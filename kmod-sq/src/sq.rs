// SPDX-License-Identifier: MIT OR Apache-2.0
//! The submission side: consuming a span of entries, slot by slot, and publishing what came of it.

use core::ptr;

use sq_driver::Bound;
use sq_driver::abi::{DEFERRED, OpOps, RawOp, RawPayload};
use sq_uapi::consts::{sq_state, sqe_flags};
use sq_uapi::{Cqe, CqePlace, Errno, Fence, KernelMem, KernelWord, UserWord};

use crate::cq::{CqeWords, OutOfWindow, Stall, cqe_words};
use crate::drain::End;
use crate::geometry::Geometry;
use crate::host::{Event, Host, Lock, Notify};
use crate::issue::{ELSEWHERE, LEAST, LOST, hand_over, issue, issue_short, reject, special};
use crate::ix;
use crate::parse::{Accepts, NOP, Parsed, is_bare};
use crate::posted::low;
use crate::request::NONE;
use crate::ring::{Mode, Ring, count};
use crate::snapshot::Snapshot;

/// Most entries between two publications.
const BATCH: usize = 64;
const BATCH_U32: u32 = 64;

/// `CQE_SKIP_SUCCESS` in word 0 of an entry. A rejected entry's result is negative, so that its flags do not matter.
#[expect(clippy::as_conversions, reason = "widening in a constant")]
pub(crate) const SKIP_SUCCESS: u64 = (sqe_flags::CQE_SKIP_SUCCESS as u64) << 8;

/// The submission side. The drain owner's.
pub(crate) struct Sq {
    /// Entries consumed, free-running; the index is its low half. The shared `sq_head` is written from it and never read (IDX-2).
    pub(crate) head: u64,
    /// Completion slots that are reserved for entries to come.
    stash: u32,
    /// And those that the short way may take: while there are any, nothing of the drain owner's is in its way ([`Sq::open_short`]), and
    /// no request in flight, since only the drain owner makes one.
    room: u32,
    /// Most entries that the short way takes at once: a batch, and no more than the queue has (IDX-3). There may be more room than that.
    longest: u32,
    /// What `sq_state` holds.
    state: u32,
    /// There is more to an entry than the short way knows: it has 128 bytes or its completion 32, the driver wants to know of batches, or
    /// takes no NOP.
    odd: bool,
    intake: Intake,
    /// Inline completions, while the places where they belong are not the drain owner's to write.
    batch: [CqeWords; BATCH],
}

/// What an entry passes on its way to the driver.
#[repr(C)]
pub(crate) struct Intake {
    /// The operation being issued. First, so that it is where the rest is. Unless the ring is `odd` or an entry parked, `op.sqe` is [`NOP`]
    /// but for word 4 whenever the short way is taken, and nothing but that has to be written for such an entry.
    pub(crate) op: RawOp,
    /// What the opcodes and fields must satisfy.
    accepts: Accepts,
    /// The entry at `head` is in `op.sqe` already: it was copied where it could not be issued.
    parked: bool,
    sqe128: bool,
    cqe32: bool,
}

impl Intake {
    /// Makes `op.sqe` what the short way needs.
    fn restore(&mut self) {
        let [_, _, _, _, user_data, ..] = self.op.sqe;
        let (first, _) = self.op.sqe.split_at_mut(8);
        first.copy_from_slice(&NOP);
        // Whoever posts the completion reads it there.
        let [_, _, _, _, kept, ..] = &mut self.op.sqe;
        *kept = user_data;
    }
}

/// How [`consume`] ended.
#[derive(Clone, Copy)]
struct Taken {
    /// What became of the one after them, if that is why it ended: [`DEFERRED`](sq_driver::abi::DEFERRED), [`SKIPPED`], [`LOST`] or [`ELSEWHERE`].
    last: i32,
    /// Entries with an inline completion.
    posted: u32,
}

impl Sq {
    pub(crate) fn new(geometry: &Geometry, driver: &Bound, ops: &'static OpOps) -> Self {
        let mut sqe = [0; 16];
        let (first, _) = sqe.split_at_mut(8);
        first.copy_from_slice(&NOP);
        let mut sq = Self {
            head: 0,
            stash: 0,
            room: 0,
            longest: geometry.sq_entries.min(BATCH_U32),
            state: sq_state::NEED_WAKEUP,
            odd: geometry.sqe128 || geometry.cqe32 || driver.batches(),
            batch: [[0; 4]; BATCH],
            intake: Intake {
                accepts: Accepts::new(driver.opcodes(), driver.files()),
                parked: false,
                sqe128: geometry.sqe128,
                cqe32: geometry.cqe32,
                op: RawOp { sqe, ops, framework: ptr::null(), target: 0, extra: [0; 2], payload: RawPayload::empty() },
            },
        };
        sq.restrict(u64::MAX);
        sq
    }

    /// Opens the short way for next time, if nothing of the drain owner's is in its way.
    pub(crate) fn open_short<H: Host>(&mut self, ring: &Ring<H>) {
        let usual = self.state == sq_state::NEED_WAKEUP && !self.odd && !self.intake.parked;
        if usual && ring.issuing.spare() != NONE && ring.posted.is_owners() {
            self.room = self.room.wrapping_add(core::mem::take(&mut self.stash));
        }
    }

    fn close_short(&mut self) {
        self.stash = self.stash.wrapping_add(core::mem::take(&mut self.room));
    }

    /// Lets go of opcodes for good.
    pub(crate) fn restrict(&mut self, allowed: u64) {
        self.close_short();
        self.intake.accepts = self.intake.accepts.with(allowed);
        self.odd |= !self.intake.accepts.bare();
    }
}

pub(crate) fn set_state<H: Host>(ring: &Ring<H>, sq: &mut Sq, state: u32) {
    if sq.state != state {
        sq.state = state;
        ring.mem.store_kernel(KernelWord::SqState, state);
    }
}

/// A pass in which nothing is in the way: every entry that is published is consumed, and its completion written where it belongs. Returns
/// how many entries that were, and whether it is all of them; 0 is left to [`pass`].
#[inline(always)]
pub(crate) fn short_pass<H: Host>(ring: &Ring<H>, sq: &mut Sq) -> (u32, bool) {
    if ring.stopped() != 0 || ring.host.traces_completions() {
        return (0, false);
    }
    let (head, tail) = (low(sq.head), ring.posted.tail());
    let span = ring.mem.load_user(UserWord::SqTail).wrapping_sub(head);
    // `op.framework` is what the pass before, which opened this way, made it.
    if span == 1 && sq.room > 0 {
        // There is nothing to step through.
        let pair = ring.mem.pair(low(tail), head);
        let taken = consume::<false, H, _>(ring, &mut sq.intake, head, pair.into_iter());
        return short_taken(ring, sq, tail, taken, 1);
    }
    if span == 0 || span > sq.room || span > sq.longest {
        return (0, false);
    }
    let taken = consume_pairs(ring, &mut sq.intake, low(tail), head, span);
    short_taken(ring, sq, tail, taken, span)
}

/// Publishes what came of `span` entries on the short way.
#[inline(always)]
fn short_taken<H: Host>(ring: &Ring<H>, sq: &mut Sq, tail: u64, taken: Taken, span: u32) -> (u32, bool) {
    if taken.last != 0 {
        return (short_ended_early(ring, sq, tail, taken), false);
    }
    sq.room = sq.room.wrapping_sub(taken.posted);
    publish(ring, sq, taken, |_| show(ring, tail, taken));
    (taken.posted, taken.posted == span)
}

/// Makes completions visible that have been written in their places. Nobody else has posted meanwhile.
#[inline(always)]
fn show<H: Host>(ring: &Ring<H>, tail: u64, taken: Taken) {
    ring.posted.show(&ring.mem, tail.wrapping_add(taken.posted.into()));
}

#[inline(never)]
fn short_ended_early<H: Host>(ring: &Ring<H>, sq: &mut Sq, tail: u64, taken: Taken) -> u32 {
    sq.close_short();
    in_place_taken(ring, sq, tail, taken)
}

/// Consumes the published span, or `bound` entries of it: one look at the tail, one publication of head and completions a
/// batch (IDX-4).
#[inline(never)]
pub(crate) fn pass<H: Host>(ring: &Ring<H>, sq: &mut Sq, bound: u32) -> (u32, End) {
    sq.close_short();
    if ring.stopped() != 0 {
        return (0, End::Stopped);
    }
    let span = ring.mem.load_user(UserWord::SqTail).wrapping_sub(low(sq.head));
    if span == 0 {
        // Also if `sq_tail` has moved back behind a parked entry, which still waits for its process.
        return (0, if sq.intake.parked { End::Elsewhere } else { End::Empty });
    }
    if span > ring.geometry.sq_entries {
        ring.break_ring(OutOfWindow);
        return (0, End::Stopped);
    }
    sq.intake.op.framework = ptr::from_ref(ring).cast();
    let most = span.min(bound);
    let end = if most == span { End::Empty } else { End::Bound };
    if sq.odd { odd_pass(ring, sq, most, end) } else { stretches::<false, H>(ring, sq, most, end) }
}

#[inline(never)]
fn odd_pass<H: Host>(ring: &Ring<H>, sq: &mut Sq, most: u32, end: End) -> (u32, End) {
    ring.driver.begin();
    let done = stretches::<true, H>(ring, sq, most, end);
    ring.driver.commit();
    done
}

/// Consumes `most` entries, after which the end is `end`, or as many as there are slots and requests for.
#[inline(always)]
fn stretches<const ODD: bool, H: Host>(ring: &Ring<H>, sq: &mut Sq, most: u32, end: End) -> (u32, End) {
    let mut done = 0u32;
    let end = loop {
        if (sq.stash == 0 || ring.issuing.spare() == NONE) && !stock(ring, sq) {
            break if ring.stopped() != 0 { End::Stopped } else { End::Stalled };
        }
        done = done.wrapping_add(stretch::<ODD, H>(ring, sq, most.wrapping_sub(done)));
        if done >= most {
            break end;
        }
        if sq.intake.parked {
            break End::Elsewhere;
        }
        if ring.stopped() != 0 {
            break End::Stopped;
        }
    };
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

/// Consumes up to `most` entries and publishes what came of them. It ends early where an array does, and with an entry that completes
/// later or needs no completion.
#[inline(always)]
fn stretch<const ODD: bool, H: Host>(ring: &Ring<H>, sq: &mut Sq, most: u32) -> u32 {
    if sq.intake.parked {
        return resume(ring, sq);
    }
    let most = most.min(sq.stash).min(BATCH_U32);
    if may_post(ring) { in_place::<ODD, H>(ring, sq, most) } else { beside_others(ring, sq, most) }
}

/// Whether completions may be written where they belong. While they are traced they are gathered, to be looked at.
#[inline(always)]
fn may_post<H: Host>(ring: &Ring<H>) -> bool {
    ring.posted.is_owners() && !ring.host.traces_completions()
}

/// Consumes up to `most` entries, while nobody else posts. Returns how many.
#[inline(always)]
fn in_place<const ODD: bool, H: Host>(ring: &Ring<H>, sq: &mut Sq, most: u32) -> u32 {
    let (head, tail) = (low(sq.head), ring.posted.tail());
    let taken = if ODD {
        // The place comes first: an entry that has been copied must not be dropped for want of one.
        let places = ring.mem.cqe_run(low(tail), most).zip(ring.mem.sqe_run(head, most));
        consume::<ODD, H, _>(ring, &mut sq.intake, head, places)
    } else {
        consume_pairs(ring, &mut sq.intake, low(tail), head, most)
    };
    in_place_taken(ring, sq, tail, taken)
}

/// What was consumed is published.
#[inline(always)]
fn in_place_taken<H: Host>(ring: &Ring<H>, sq: &mut Sq, tail: u64, taken: Taken) -> u32 {
    sq.stash = sq.stash.wrapping_sub(taken.posted);
    publish(ring, sq, taken, |_| show(ring, tail, taken))
}

/// Apart, so that the loop has the registers to itself.
#[inline(never)]
fn consume_pairs<H: Host>(ring: &Ring<H>, intake: &mut Intake, tail: u32, head: u32, most: u32) -> Taken {
    consume::<false, H, _>(ring, intake, head, ring.mem.pair_run(tail, head, most))
}

/// As [`in_place`], while others post completions too.
#[inline(never)]
fn beside_others<H: Host>(ring: &Ring<H>, sq: &mut Sq, most: u32) -> u32 {
    let head = low(sq.head);
    let places = sq.batch.iter_mut().zip(ring.mem.sqe_run(head, most));
    let taken = consume::<true, H, _>(ring, &mut sq.intake, head, places);
    if !sq.odd && taken.last != ELSEWHERE {
        sq.intake.restore();
    }
    sq.stash = sq.stash.wrapping_sub(taken.posted);
    publish(ring, sq, taken, |sq| post(ring, sq.batch.get(..ix(taken.posted)).unwrap_or_default()))
}

/// Posts completions under the lock.
fn post<H: Host>(ring: &Ring<H>, batch: &[CqeWords]) {
    if !batch.is_empty() {
        ring.cq.with(|cq| cq.post(&ring.mem, &ring.posted, batch));
    }
    if ring.host.traces_completions() {
        for &[user_data, result, ..] in batch {
            ring.host.trace(Event::Complete { user_data, res: Cqe::from_words([user_data, result]).res });
        }
    }
}

/// The path of every entry: slot, snapshot, parsed entry, operation, completion. `ODD` is whether an entry may be more than the
/// short way knows.
#[inline(always)]
fn consume<const ODD: bool, H: Host, P: CqePlace>(
    ring: &Ring<H>,
    intake: &mut Intake,
    head: u32,
    mut places: impl ExactSizeIterator<Item = (P, [u64; 8])>,
) -> Taken {
    let most = places.len();
    // Counted by what is left, not at each step.
    let taken = |places: usize| u32::try_from(most.wrapping_sub(places)).unwrap_or(0);
    while let Some((place, words)) = places.next() {
        let [_, _, _, _, user_data, ..] = words;
        let res = if !ODD && is_bare(&words, ring.issuing.taken_over()) {
            let [_, _, _, _, op4, ..] = &mut intake.op.sqe;
            *op4 = user_data;
            issue_short(ring, intake)
        } else {
            if !ODD && ring.issuing.spare() == NONE {
                // The entry before this one was deferred, and has a result all the same. This one's turn comes again.
                return Taken { posted: taken(places.len()).saturating_sub(2), last: DEFERRED };
            }
            let (first, last) = intake.op.sqe.split_at_mut(8);
            first.copy_from_slice(&words);
            if ODD && intake.sqe128 {
                last.copy_from_slice(&ring.mem.copy_sqe_tail(head.wrapping_add(taken(places.len())).wrapping_sub(1)));
            }
            let res = general(ring, intake);
            if !ODD && res != ELSEWHERE {
                intake.restore();
            }
            res
        };
        if res < LEAST {
            return Taken { posted: taken(places.len()).wrapping_sub(1), last: res };
        }
        // From the private copy: no register need keep it.
        let [_, _, _, _, user_data, ..] = intake.op.sqe;
        let [a, b] = Cqe { user_data, res, flags: 0 }.to_words();
        if ODD && intake.cqe32 {
            let [c, d] = core::mem::take(&mut intake.op.extra);
            place.write_wide([a, b, c, d]);
        } else {
            place.write([a, b]);
        }
    }
    if !ODD && ring.issuing.spare() == NONE {
        return Taken { posted: taken(0).saturating_sub(1), last: DEFERRED };
    }
    Taken { posted: taken(0), last: 0 }
}

/// Publishes what was consumed and, by `show`, its inline completions, and tells who wants to be told. Returns how many entries that
/// were.
#[inline(always)]
fn publish<H: Host>(ring: &Ring<H>, sq: &mut Sq, taken: Taken, show: impl FnOnce(&Sq)) -> u32 {
    let consumed = taken.posted.wrapping_add((taken.last != 0 && taken.last != ELSEWHERE).into());
    let head = sq.head.wrapping_add(consumed.into());
    sq.head = head;
    // First, so that whoever sees a completion finds the place of its entry free.
    ring.mem.store_kernel(KernelWord::SqHead, low(head));
    show(sq);
    if taken.last != 0 {
        ended_early(ring, sq, taken.last);
    }
    // After what came of them: whoever sees these consumed sees that, or a request in flight (WAIT-1).
    ring.posted.consume(head);
    // BELL-4: either whoever watches sees what was posted, or this sees that they watch.
    ring.mem.kernel_fence(Fence::PostKernel);
    if ring.posted.is_watched() {
        tell(ring);
    }
    consumed
}

/// The entry after the posted ones has no inline completion.
#[inline(never)]
fn ended_early<H: Host>(ring: &Ring<H>, sq: &mut Sq, last: i32) {
    match last {
        ELSEWHERE => sq.intake.parked = true,
        // Its slot stays in the stash.
        SKIPPED => count(&ring.tally.skipped),
        LOST => {
            let [_, _, _, _, user_data, ..] = sq.intake.op.sqe;
            sq.intake.op.extra = [0; 2];
            sq.stash = sq.stash.wrapping_sub(1);
            post(ring, &[cqe_words(user_data, Errno::EIO.to_res(), [0; 2])]);
        }
        // The slot and the request that was set aside go with it.
        _ => {
            sq.stash = sq.stash.wrapping_sub(1);
            hand_over(ring, &mut sq.intake);
        }
    }
}

#[inline(never)]
fn tell<H: Host>(ring: &Ring<H>) {
    let notify = ring.cq.with(|cq| cq.whom(&ring.mem, &ring.posted, true));
    if notify.any() {
        ring.host.notify(notify);
    }
}

/// Consumes the entry that was parked, from its private copy: it is not looked at in its slot again (SNAP-1).
#[cold]
fn resume<H: Host>(ring: &Ring<H>, sq: &mut Sq) -> u32 {
    let [_, _, _, _, user_data, ..] = sq.intake.op.sqe;
    let res = general(ring, &mut sq.intake);
    if res == ELSEWHERE {
        return 0;
    }
    sq.intake.parked = false;
    sq.intake.restore();
    ring.cq.with(|cq| {
        if cq.stall == Stall::Process {
            cq.stall = Stall::None;
        }
    });
    set_state(ring, sq, sq_state::NEED_WAKEUP);
    if res < LEAST {
        return publish(ring, sq, Taken { posted: 0, last: res }, |_| ());
    }
    let extra = core::mem::take(&mut sq.intake.op.extra);
    sq.stash = sq.stash.wrapping_sub(1);
    publish(ring, sq, Taken { posted: 1, last: 0 }, |_| post(ring, &[cqe_words(user_data, res, extra)]))
}

/// What [`general`] says of a success that nobody wants to hear of. No result is this: errors are above -4096.
const SKIPPED: i32 = i32::MIN + 1;

/// An entry that is more than its opcode. It is in `intake.op`, which is private: reading it again is no second look at the slot.
#[inline(never)]
fn general<H: Host>(ring: &Ring<H>, intake: &mut Intake) -> i32 {
    let snapshot = Snapshot::of_words(&intake.op.sqe);
    let [word0, ..] = snapshot.words();
    let res = match Parsed::new(snapshot, &intake.accepts, intake.sqe128) {
        Ok(parsed) if parsed.is_plain() => issue(ring, intake),
        Ok(parsed) => special(ring, intake, &parsed),
        Err(errno) => reject(ring, &intake.op, errno),
    };
    if word0 & SKIP_SUCCESS != 0 && res >= 0 {
        intake.op.extra = [0; 2];
        return SKIPPED;
    }
    res
}

/// Makes sure of a completion slot and a request for the next entry. `false`: there is none, somebody else has been charged
/// with going on, and the ring says so (CQ-2).
#[cold]
fn stock<H: Host>(ring: &Ring<H>, sq: &mut Sq) -> bool {
    let awake = if ring.geometry.mode == Mode::Caller { sq_state::NEED_WAKEUP } else { 0 };
    let mut said = false;
    loop {
        let got = ring.cq.with(|cq| {
            if sq.stash == 0 {
                cq.look(&ring.mem, &ring.posted)?;
                sq.stash = cq.reserve_all();
            }
            if ring.issuing.spare() == NONE {
                ring.issuing.set_spare(cq.requests.spare());
            }
            cq.stall = match (sq.stash, ring.issuing.spare()) {
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
                set_state(ring, sq, awake);
                return true;
            }
            Ok(Some(stall)) => {
                if stall == Stall::Request {
                    // That only the kernel side can end.
                    set_state(ring, sq, awake);
                }
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
