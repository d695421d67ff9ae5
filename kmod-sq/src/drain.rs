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

use core::cell::Cell;
use core::ptr;

use sq_driver::abi::{DEFER_INDEFINITE, DEFERRED, OpOps, RawOp, RawPayload, RawRequest};
use sq_uapi::consts::{sq_state, sqe_flags};
use sq_uapi::{Cqe, Errno, Fence, KernelMem, KernelWord, UserWord};

use crate::cq::{CqeWords, Stall};
use crate::host::{Host, Lock, Notify};
use crate::parse::{Accepts, Bytes, Parsed};
use crate::request::{Identity, NONE};
use crate::ring::{Mode, Ring, stop};
use crate::snapshot::Snapshot;
use crate::sync::{Ordering, at};
use crate::{accept, ix};

pub(crate) const FREE: u32 = 0;
const OWNED: u32 = 1;
const REDRAIN: u32 = 2;

/// Inline completions that are gathered before they are written, under one lock and with one store of `cq_tail`.
const BATCH: usize = 32;

/// Passes over a queue that keeps filling before a worker takes over (BELL-3).
const PASSES: u32 = 8;

/// `CQE_SKIP_SUCCESS` in word 0 of an entry. A rejected entry's result is negative, so that its flags do not matter.
#[expect(clippy::as_conversions, reason = "widening in a constant")]
const SKIP_SUCCESS: u64 = (sqe_flags::CQE_SKIP_SUCCESS as u64) << 8;

/// The submission side. The drain owner's.
pub(crate) struct Sq<H: Host> {
    /// Entries consumed, free-running. The shared `sq_head` is written from it and never read (IDX-2).
    head: u32,
    /// Completion slots that are reserved for entries to come.
    stash: u32,
    /// What `sq_state` holds.
    state: u32,
    /// What the opcodes and fields must satisfy.
    pub(crate) accepts: Accepts,
    batch: [CqeWords; BATCH],
    batched: usize,
    rejected: u64,
    doorbells: u64,
    skipped: u64,
    issuing: Issuing<H>,
    op: RawOp,
}

/// What `defer` needs to know of the entry being issued. Cells, because the driver's call comes back in.
struct Issuing<H: Host> {
    ring: Cell<*const Ring<H>>,
    spare: Cell<u32>,
    file: Cell<Option<H::File>>,
}

/// Why a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The queue was empty at the last look.
    Empty,
    /// The bound was reached, and entries are left.
    Bound,
    /// No slot or no request: whoever frees one goes on.
    Stalled,
    /// Nothing more is accepted: broken, quiesced or disabled.
    Stopped,
}

impl<H: Host> Sq<H> {
    pub(crate) fn new(accepts: Accepts) -> Self {
        Self {
            head: 0,
            stash: 0,
            state: sq_state::NEED_WAKEUP,
            accepts,
            batch: [[0; 4]; BATCH],
            batched: 0,
            rejected: 0,
            doorbells: 0,
            skipped: 0,
            issuing: Issuing { ring: Cell::new(ptr::null()), spare: Cell::new(NONE), file: Cell::new(None) },
            op: RawOp {
                sqe: [0; 16],
                ops: ptr::null(),
                framework: ptr::null(),
                target: 0,
                extra: [0; 2],
                payload: RawPayload::EMPTY,
            },
        }
    }
}

/// The drain owner.
pub(crate) struct Owner<'r, H: Host> {
    ring: &'r Ring<H>,
    sq: &'r mut Sq<H>,
}

impl<H: Host> Ring<H> {
    /// Becomes the drain owner, or leaves word for the one there is.
    pub(crate) fn own(&self) -> Option<Owner<'_, H>> {
        // Acquire: what the last owner did comes before. Partner: the release in `Owner::release`.
        if self.drain.compare_exchange(FREE, OWNED, at!(DrainOwn, Acquire), Ordering::Relaxed).is_err() {
            // Release: the tail that this ENTER is about comes before the word. Partner: the acquire in `release`.
            if self.drain.fetch_or(OWNED | REDRAIN, at!(DrainKnock, AcqRel)) != FREE {
                return None;
            }
            // The owner left meanwhile, so this caller is the owner now, with a word to itself.
        }
        // SAFETY: this call moved `drain` from FREE, so until `release` nobody else gets here.
        let sq = self.sq.with_mut(|sq| unsafe { &mut *sq });
        Some(Owner { ring: self, sq })
    }

    /// Whether nobody owns the drain. If so, whoever owns it next sees what this caller did before. If not, the owner looks
    /// again before it lets go, as after a doorbell, and sees it then.
    pub(crate) fn drain_is_free(&self) -> bool {
        // A load would not do: a next owner could miss what was stored before it, as this the next owner. Release: partner
        // of the acquires in `own` and `release`. No acquire: the completion lock, taken next, orders the last owner's work.
        let knock = |drain| Some(if drain == FREE { FREE } else { drain | REDRAIN });
        self.drain.fetch_update(at!(DrainQuiet, Release), Ordering::Relaxed, knock) == Ok(FREE)
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
                End::Empty => !owner.go_idle(),
                End::Stalled | End::Stopped => false,
            };
            if again && bound > 0 {
                continue;
            }
            match owner.release() {
                None => break,
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

    /// One turn of the polling thread: it owns the drain while it is awake.
    ///
    /// `awake` must be called again and again by one thread; it returns when the ring has been idle for
    /// [`Geometry::idle_ns`](crate::Geometry), has stopped, or `leave` says so. The thread then sleeps until [`Host::work`].
    pub fn poll_awake(&self, mut relax: impl FnMut(), leave: impl Fn() -> bool) -> Polled {
        if self.is_broken() {
            self.cancel_everything();
        }
        let Some(mut owner) = self.own() else { return Polled::Sleep };
        owner.wake();
        let mut idle_since = None;
        loop {
            let (consumed, end) = owner.run(self.geometry.sq_entries);
            if leave() || end == End::Stopped {
                owner.go_idle();
                return owner.leave(Polled::Sleep);
            }
            if consumed > 0 || end == End::Bound {
                idle_since = None;
                continue;
            }
            if end == End::Stalled {
                // Whoever frees a slot or a request calls Host::work; until then there is nothing to poll for.
                return owner.leave(Polled::Sleep);
            }
            let now = self.host.now_ns();
            let since = *idle_since.get_or_insert(now);
            if now.saturating_sub(since) < self.geometry.idle_ns {
                relax();
            } else if owner.go_idle() {
                return owner.leave(Polled::Sleep);
            } else {
                idle_since = None;
            }
        }
    }
}

/// What the polling thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Sleep until [`Host::work`] is called for the ring.
    Sleep,
    /// Call [`Ring::poll_awake`] again at once: somebody rang meanwhile.
    Again,
}

impl<H: Host> Owner<'_, H> {
    /// Counts a doorbell.
    pub(crate) fn ring_bell(&mut self) {
        self.sq.doorbells = self.sq.doorbells.wrapping_add(1);
    }

    /// Lets go of opcodes for good.
    pub(crate) fn restrict(&mut self, allowed: u64) {
        self.sq.accepts.restrict(allowed);
    }

    /// Consumes up to `bound` entries.
    pub(crate) fn run(&mut self, bound: u32) -> (u32, End) {
        let mut total = 0u32;
        for _ in 0..PASSES {
            let (consumed, end) = pass(self.ring, self.sq, bound.saturating_sub(total));
            total = total.saturating_add(consumed);
            if end == End::Stopped && self.ring.stopped() & (stop::BROKEN | stop::QUIESCED) != 0 {
                // What this owner issued meanwhile was too late for the cancel that came with the stop.
                self.ring.cancel_everything();
            }
            if end != End::Bound || total >= bound {
                return (total, end);
            }
        }
        (total, End::Bound)
    }

    /// While a worker or polling thread is awake, submitters need not ring.
    pub(crate) fn wake(&mut self) {
        if self.ring.geometry.mode != Mode::Caller {
            set_state(self.ring, self.sq, 0);
        }
    }

    /// BELL-1: says that the kernel side will sleep, and looks once more. `false`: entries came, stay awake.
    pub(crate) fn go_idle(&mut self) -> bool {
        set_state(self.ring, self.sq, sq_state::NEED_WAKEUP);
        if self.ring.geometry.mode == Mode::Caller {
            return true;
        }
        // Either the submitter, after its fence, sees NEED_WAKEUP and rings, or this sees its tail.
        self.ring.mem.kernel_fence(Fence::BellKernel);
        if self.ring.mem.load_user(UserWord::SqTail) == self.sq.head || self.ring.stopped() != 0 {
            return true;
        }
        set_state(self.ring, self.sq, 0);
        false
    }

    /// Lets go, unless somebody rang meanwhile (BELL-5): then the caller is still the owner and looks again.
    pub(crate) fn release(self) -> Option<Self> {
        // Release: what this owner did comes before the next owner. Acquire, in the swap: the tail (or the stop) of whoever
        // set REDRAIN is visible.
        if self.ring.drain.compare_exchange(OWNED, FREE, at!(DrainRelease, Release), Ordering::Relaxed).is_ok() {
            if self.ring.stopped() & stop::QUIESCED != 0 {
                // QUIESCE waits for the drain to be free.
                self.ring.host.notify(Notify { waiters: true, eventfd: false });
            }
            return None;
        }
        self.ring.drain.swap(OWNED, at!(DrainAgain, Acquire));
        Some(self)
    }

    /// Lets go for good; the caller has a worker look again.
    pub(crate) fn abandon(self) {
        // Release, as in `release`. A swap, not a store: the worker acquires from whoever set REDRAIN, too.
        self.ring.drain.swap(FREE, at!(DrainAbandon, Release));
        if self.ring.stopped() & stop::QUIESCED != 0 {
            self.ring.host.notify(Notify { waiters: true, eventfd: false });
        }
    }

    fn leave(self, done: Polled) -> Polled {
        match self.release() {
            None => done,
            Some(owner) => {
                owner.abandon();
                Polled::Again
            }
        }
    }
}

fn set_state<H: Host>(ring: &Ring<H>, sq: &mut Sq<H>, state: u32) {
    if sq.state != state {
        sq.state = state;
        ring.mem.store_kernel(KernelWord::SqState, state);
    }
}

/// Consumes the published span, or `bound` entries of it: one look at the tail, one publication of head and completions a
/// batch (IDX-4).
fn pass<H: Host>(ring: &Ring<H>, sq: &mut Sq<H>, bound: u32) -> (u32, End) {
    if ring.stopped() != 0 {
        return (0, End::Stopped);
    }
    let span = ring.mem.load_user(UserWord::SqTail).wrapping_sub(sq.head);
    if span == 0 {
        return (0, End::Empty);
    }
    if span > ring.geometry.sq_entries {
        ring.break_ring(crate::cq::OutOfWindow);
        return (0, End::Stopped);
    }
    sq.issuing.ring.set(ring);
    sq.op.framework = (&raw const sq.issuing).cast();
    sq.op.ops = &Issuing::<H>::OPS;
    let most = span.min(bound);
    let mut done = 0u32;
    let mut end = if most == span { End::Empty } else { End::Bound };
    ring.driver.begin();
    while done < most {
        if sq.stash == 0 || sq.issuing.spare.get() == NONE {
            flush(ring, sq);
            if !stock(ring, sq) {
                end = if ring.stopped() != 0 { End::Stopped } else { End::Stalled };
                break;
            }
        }
        done = done.wrapping_add(stretch(ring, sq, most.wrapping_sub(done)));
        if sq.batched == BATCH {
            flush(ring, sq);
            if ring.stopped() != 0 {
                end = End::Stopped;
                break;
            }
        }
    }
    ring.driver.commit();
    flush(ring, sq);
    // Empty means: as of the look at the tail. Looking again is the next pass, or the submitter's next doorbell.
    (done, end)
}

/// Consumes up to `most` entries, as long as there are slots for them, a request, and room in the batch.
///
/// The path of every entry: slot, snapshot, parsed entry, operation, completion.
fn stretch<H: Host>(ring: &Ring<H>, sq: &mut Sq<H>, most: u32) -> u32 {
    let room = u32::try_from(BATCH.wrapping_sub(sq.batched)).unwrap_or(0);
    let (wide, wide_cqe) = (ring.geometry.sqe128, ring.geometry.cqe32);
    // In locals: a driver's call may not write them, but the compiler cannot know.
    let (first, mut head, mut batched) = (sq.head, sq.head, sq.batched);
    let end = head.wrapping_add(most.min(sq.stash).min(room));
    let mut given_back = 0u32;
    while head != end {
        let snapshot = Snapshot::take(&ring.mem, head, wide, &mut sq.op.sqe);
        head = head.wrapping_add(1);
        let [word0, _, _, _, user_data, ..] = snapshot.words();
        let res = match Parsed::new(snapshot, &sq.accepts, wide) {
            Ok(parsed) if parsed.is_plain() => issue(ring, sq),
            Ok(parsed) => special(ring, sq, &parsed),
            Err(errno) => reject(sq, errno),
        };
        if res == DEFERRED {
            // The slot and the request that was set aside went with it.
            break;
        }
        if word0 & SKIP_SUCCESS != 0 && res >= 0 {
            // A success that nobody wants to hear of: its slot goes back where it came from.
            sq.op.extra = [0; 2];
            given_back = given_back.wrapping_add(1);
            continue;
        }
        if let Some(place) = sq.batch.get_mut(batched) {
            let [a, b, c, d] = place;
            [*a, *b] = Cqe { user_data, res, flags: 0 }.to_words();
            if wide_cqe {
                [*c, *d] = core::mem::take(&mut sq.op.extra);
            }
            batched = batched.wrapping_add(1);
        }
    }
    let consumed = head.wrapping_sub(first);
    sq.head = head;
    sq.batched = batched;
    sq.stash = sq.stash.saturating_sub(consumed).saturating_add(given_back);
    sq.skipped = sq.skipped.wrapping_add(given_back.into());
    consumed
}

/// SUB-1: a bad entry gets its own error, and the batch goes on.
#[cold]
fn reject<H: Host>(sq: &mut Sq<H>, errno: Errno) -> i32 {
    sq.rejected = sq.rejected.wrapping_add(1);
    errno.to_res()
}

/// Gives the operation in `sq.op` to the driver. Returns the result, or [`DEFERRED`] if the driver has taken the request.
#[inline]
fn issue<H: Host>(ring: &Ring<H>, sq: &mut Sq<H>) -> i32 {
    let spare = sq.issuing.spare.get();
    let res = ring.driver.issue(&mut sq.op);
    if sq.issuing.spare.get() != spare {
        // The driver holds the request, whatever it returned.
        return deferred(ring, sq, spare);
    }
    // A C driver that says so without having taken the request has lost the operation.
    if res == DEFERRED { Errno::EIO.to_res() } else { res }
}

#[inline(never)]
fn deferred<H: Host>(ring: &Ring<H>, sq: &mut Sq<H>, index: u32) -> i32 {
    sq.op.extra = [0; 2];
    // A cancel that came before `issue` returned reaches the driver now.
    if let Some(id) = ring.cq.with(|cq| cq.requests.issued(index)) {
        ring.driver.cancel(id);
    }
    DEFERRED
}

/// Issues an operation that has bytes or a target, which are found first, and forgotten again afterwards.
#[inline(never)]
fn special<H: Host>(ring: &Ring<H>, sq: &mut Sq<H>, parsed: &Parsed) -> i32 {
    if parsed.opcode() == sq_driver::op::ASYNC_CANCEL {
        // The framework's own.
        return ring.cancel_entry(Snapshot::of_words(&sq.op.sqe)).unwrap_or_else(|errno| reject(sq, errno));
    }
    let res = match found(ring, sq, parsed) {
        Ok(()) => issue(ring, sq),
        Err(errno) => reject(sq, errno),
    };
    sq.op.payload.nr = 0;
    sq.op.payload.left = 0;
    sq.op.target = 0;
    drop(sq.issuing.file.take());
    res
}

/// Finds the bytes and the file that an operation is on.
fn found<H: Host>(ring: &Ring<H>, sq: &mut Sq<H>, parsed: &Parsed) -> Result<(), Errno> {
    if parsed.bytes() != Bytes::None {
        accept::payload(ring, parsed.bytes(), &sq.op.sqe, &mut sq.op.payload)?;
    }
    if parsed.target() && ring.driver.files() {
        let file = accept::file(ring, parsed)?;
        sq.op.target = crate::host::HostFile::target(&file);
        sq.issuing.file.set(Some(file));
    }
    Ok(())
}

/// Publishes what was consumed and what completed inline, and takes free slots into the stash when it runs low.
fn flush<H: Host>(ring: &Ring<H>, sq: &mut Sq<H>) {
    ring.mem.store_kernel(KernelWord::SqHead, sq.head);
    let (notify, broken) = ring.cq.with(|cq| {
        let mut notify = Notify::default();
        if sq.batched > 0 {
            cq.post(&ring.mem, sq.batch.get(..sq.batched).unwrap_or(&[]));
            notify = cq.publish(&ring.mem);
        }
        let stats = &mut cq.stats;
        stats.entries = stats.entries.wrapping_add(sq.head.wrapping_sub(cq.sq_head).into());
        stats.rejected = stats.rejected.wrapping_add(core::mem::take(&mut sq.rejected));
        stats.doorbells = stats.doorbells.wrapping_add(core::mem::take(&mut sq.doorbells));
        stats.skipped = stats.skipped.wrapping_add(core::mem::take(&mut sq.skipped));
        cq.sq_head = sq.head;
        if cq.idle_waiter {
            cq.idle_waiter = false;
            notify.waiters = true;
        }
        let mut broken = None;
        if ix(sq.stash) < BATCH {
            match cq.look(&ring.mem) {
                Ok(_) => sq.stash = sq.stash.saturating_add(cq.reserve_all()),
                Err(out) => broken = Some(out),
            }
        }
        (notify, broken)
    });
    sq.batched = 0;
    if notify.any() {
        ring.host.notify(notify);
    }
    if let Some(out) = broken {
        ring.break_ring(out);
    }
}

/// Makes sure of a completion slot and a request for the next entry. `false`: there is none, somebody else has been charged
/// with going on, and the ring says so (CQ-2).
#[cold]
fn stock<H: Host>(ring: &Ring<H>, sq: &mut Sq<H>) -> bool {
    let mut said = false;
    loop {
        let got = ring.cq.with(|cq| {
            if sq.stash == 0 {
                cq.look(&ring.mem)?;
                sq.stash = cq.reserve_all();
            }
            if sq.issuing.spare.get() == NONE {
                sq.issuing.spare.set(cq.requests.spare());
            }
            cq.stall = match (sq.stash, sq.issuing.spare.get()) {
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

impl<H: Host> Issuing<H> {
    const OPS: OpOps =
        OpOps { defer: defer::<H>, copy_from_user: copy_from_user::<H>, copy_to_user: copy_to_user::<H> };
}

#[expect(clippy::as_conversions, reason = "a byte is cut out of a word by truncation")]
const fn low8(word: u64) -> u8 {
    word as u8
}

/// # Safety
///
/// `op` is the operation being issued. Null if it is called twice for it, or (with `DEFER_INDEFINITE`) by CQ-4.
unsafe extern "C" fn defer<H: Host>(op: *mut RawOp, flags: u32) -> *mut RawRequest {
    // SAFETY: the contract: valid until `issue` returns.
    let op = unsafe { &*op };
    // SAFETY: `pass` set it to the drain owner's `issuing`, and the drain owner is in `issue`.
    let issuing = unsafe { &*op.framework.cast::<Issuing<H>>() };
    let ring_ptr = issuing.ring.get();
    // SAFETY: as above: the ring being drained.
    let ring = unsafe { &*ring_ptr };
    let spare = issuing.spare.get();
    let Some(slot) = ring.slots.get(ix(spare)) else { return ptr::null_mut() };
    let [word0, _, _, _, user_data, ..] = op.sqe;
    let who = Identity {
        user_data,
        opcode: low8(word0),
        skip_success: word0 & SKIP_SUCCESS != 0,
        indefinite: flags & DEFER_INDEFINITE != 0,
        file: issuing.file.take(),
    };
    let most = ring.geometry.most_indefinite();
    let id = match ring.cq.with(|cq| cq.requests.defer(spare, who, most)) {
        Ok(id) => id,
        Err(who) => {
            // Still the drain owner's: it forgets the file when `issue` has returned.
            issuing.file.set(who.file);
            return ptr::null_mut();
        }
    };
    issuing.spare.set(NONE);
    ring.count_ref();
    // SAFETY: this runs inside the drain owner's `issue`, `spare` was its spare, and the reference was counted above.
    unsafe { slot.fill(ring_ptr, id, op.target, &op.payload) }
}

/// # Safety
///
/// `framework` is the operation's, which is being issued; `dst` is writable for `len` bytes.
unsafe extern "C" fn copy_from_user<H: Host>(
    framework: *const core::ffi::c_void,
    dst: *mut u8,
    addr: u64,
    len: usize,
) -> i32 {
    // SAFETY: as in `defer`.
    let issuing = unsafe { &*framework.cast::<Issuing<H>>() };
    // SAFETY: as in `defer`.
    let ring = unsafe { &*issuing.ring.get() };
    // SAFETY: the contract.
    unsafe { ring.host.copy_from_user(dst, addr, len) }.map_or_else(Errno::to_res, |()| 0)
}

/// # Safety
///
/// `framework` is the operation's, which is being issued; `src` is readable for `len` bytes.
unsafe extern "C" fn copy_to_user<H: Host>(
    framework: *const core::ffi::c_void,
    addr: u64,
    src: *const u8,
    len: usize,
) -> i32 {
    // SAFETY: as in `defer`.
    let issuing = unsafe { &*framework.cast::<Issuing<H>>() };
    // SAFETY: as in `defer`.
    let ring = unsafe { &*issuing.ring.get() };
    // SAFETY: the contract.
    unsafe { ring.host.copy_to_user(addr, src, len) }.map_or_else(Errno::to_res, |()| 0)
}
