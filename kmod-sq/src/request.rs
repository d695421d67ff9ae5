// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests: operations that complete later.
//!
//! ```text
//!            spare()            defer()             issued()
//!   FREE ------------> SPARE ------------> ISSUING ------------> HELD <---- (ARMED: multishot, to come)
//!    ^                (by the drain        |   |                 |  |
//!    |                 owner, kept until   |   | complete_after  |  | complete_after
//!    |                 an entry defers)    |   +----> TIMED <----|--+
//!    |                                     |            |        |
//!    |                                     v complete   |        |
//!    |                                    DONE          |        |
//!    |                                     | issued()   |        |
//!    +-------------------------------------+------------+--------+ complete
//!                                   (or the clock, or a cancel)
//!
//!   (LINKED, to come: accepted, waits for its predecessor; between SPARE and ISSUING)
//! ```
//!
//! `HELD`: the driver owns the [`Request`](sq_driver::Request) and `cancel` may name it. `ISSUING` is the same before `issue`
//! has returned: a cancel is noted and delivered afterwards, since the driver may not have filed the request yet, and a completion
//! (`DONE`) is posted afterwards, since until then nobody but the drain owner posts ([`posted`](crate::posted)). `TIMED`:
//! the framework's clock owns it, and a cancel completes it at once. Whoever moves a request to FREE posts its one
//! completion, under the completion lock: there is no other way out, so every request has one outcome (CAN-1).

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use sq_driver::abi::{MAX_SEGMENTS, RawPayload, RawRequest, RequestOps};
use sq_uapi::Errno;

use crate::cancel::Matching;
use crate::host::Host;
use crate::ix;
use crate::posted::Posted;
use crate::ring::Ring;

/// No request.
pub(crate) const NONE: u32 = u32::MAX;

/// Rings take ids in blocks from here, since a driver serves several rings and `cancel` names a request by its id alone.
/// Not one of the ring's words, so no model checker's atomic: only its uniqueness matters.
static ID_BLOCKS: AtomicU64 = AtomicU64::new(1);

/// Ids in a block. Blocks of this size last for 2^48 of them.
const ID_BLOCK: u64 = 1 << 16;

/// Requests looked at under one hold of the lock.
pub(crate) const STRIDE: u32 = 64;

/// The state diagram above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Free { next: u32 },
    Spare,
    Issuing,
    Held,
    Timed { at_ns: u64, res: i32 },
    Done { res: i32, extra: [u64; 2] },
}

/// What the framework knows of a request. Under the completion lock.
pub(crate) struct Meta<H: Host> {
    state: State,
    /// `issue` has not returned.
    issuing: bool,
    id: u64,
    user_data: u64,
    opcode: u8,
    skip_success: bool,
    indefinite: bool,
    canceled: bool,
    file: Option<H::File>,
}

/// What an entry becomes when it is deferred.
pub(crate) struct Identity<F> {
    pub(crate) user_data: u64,
    pub(crate) opcode: u8,
    pub(crate) skip_success: bool,
    /// It may wait without bound (CQ-4).
    pub(crate) indefinite: bool,
    pub(crate) file: Option<F>,
}

/// What is left of a request that completed.
pub(crate) struct Settled<F> {
    pub(crate) user_data: u64,
    pub(crate) skip_success: bool,
    /// To be dropped after the lock.
    pub(crate) file: Option<F>,
}

/// How a request completes.
pub(crate) enum Settle<F> {
    /// Now.
    Now(Settled<F>),
    /// When `issue` has returned.
    Later,
    /// It was not in flight: nothing is owed.
    Not,
}

/// What happened to a request while it was issued.
pub(crate) enum Meanwhile {
    /// Nothing that anybody has to act on.
    Nothing,
    /// A cancel arrived: the driver is told now.
    Canceled(u64),
    /// It completed: it is settled now.
    Done(i32, [u64; 2]),
}

/// What a cancel found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Tell the driver.
    Tell(u64),
    /// The framework's own: complete it.
    Timed(u32),
    /// It is noted, and will be told when `issue` returns.
    Noted,
    /// It was canceled before.
    Already,
}

/// All requests of a ring. Under the completion lock.
pub(crate) struct Requests<H: Host> {
    meta: H::Array<Meta<H>>,
    free: u32,
    /// Requests in flight, or being issued, that may wait without bound.
    indefinite: u32,
    next_id: u64,
}

impl<H: Host> Requests<H> {
    pub(crate) fn new(count: u32) -> Result<Self, Errno> {
        let meta = H::array(ix(count), |i| {
            let next = u32::try_from(i).unwrap_or(NONE).wrapping_add(1);
            Meta {
                state: State::Free { next: if next == count { NONE } else { next } },
                issuing: false,
                id: 0,
                user_data: 0,
                opcode: 0,
                skip_success: false,
                indefinite: false,
                canceled: false,
                file: None,
            }
        })?;
        Ok(Self { meta, free: 0, indefinite: 0, next_id: 0 })
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.meta.len()).unwrap_or(NONE)
    }

    /// Sets a request aside for the drain owner, or returns [`NONE`].
    pub(crate) fn spare(&mut self) -> u32 {
        let index = self.free;
        let Some(meta) = self.meta.get_mut(ix(index)) else { return NONE };
        if let State::Free { next } = meta.state {
            self.free = next;
            meta.state = State::Spare;
        }
        index
    }

    /// SPARE -> ISSUING. Returns the new request's id, or gives `who` back if it may wait without bound and
    /// `most_indefinite` such requests are in flight (CQ-4).
    pub(crate) fn defer(
        &mut self,
        index: u32,
        who: Identity<H::File>,
        most_indefinite: u32,
    ) -> Result<u64, Identity<H::File>> {
        if who.indefinite {
            if self.indefinite >= most_indefinite {
                return Err(who);
            }
            self.indefinite = self.indefinite.saturating_add(1);
        }
        if self.next_id.is_multiple_of(ID_BLOCK) {
            self.next_id = ID_BLOCKS.fetch_add(1, Ordering::Relaxed).wrapping_mul(ID_BLOCK);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        if let Some(meta) = self.meta.get_mut(ix(index)) {
            debug_assert_eq!(meta.state, State::Spare);
            *meta = Meta {
                state: State::Issuing,
                issuing: true,
                id,
                user_data: who.user_data,
                opcode: who.opcode,
                skip_success: who.skip_success,
                indefinite: who.indefinite,
                canceled: false,
                file: who.file,
            };
        }
        Ok(id)
    }

    /// `issue` has returned: the request is in flight, and others may complete it (ISSUING -> HELD). It may have gone on
    /// already.
    pub(crate) fn issued(&mut self, index: u32, posted: &Posted) -> Meanwhile {
        let Some(meta) = self.meta.get_mut(ix(index)) else { return Meanwhile::Nothing };
        posted.began();
        meta.issuing = false;
        match meta.state {
            State::Issuing => meta.state = State::Held,
            State::Done { res, extra } => {
                meta.state = State::Held;
                return Meanwhile::Done(res, extra);
            }
            _ => return Meanwhile::Nothing,
        }
        if meta.canceled { Meanwhile::Canceled(meta.id) } else { Meanwhile::Nothing }
    }

    /// -> TIMED. A request that was canceled before completes at once instead: `Err`.
    pub(crate) fn time(&mut self, index: u32, at_ns: u64, res: i32) -> Result<(), Errno> {
        let Some(meta) = self.meta.get_mut(ix(index)) else { return Ok(()) };
        if meta.canceled {
            return Err(Errno::ECANCELED);
        }
        meta.state = State::Timed { at_ns, res };
        Ok(())
    }

    /// -> FREE, or, while it is issued, -> DONE with this outcome. `ended` is for when what it owes has been posted.
    pub(crate) fn settle(&mut self, index: u32, res: i32, extra: [u64; 2]) -> Settle<H::File> {
        let Some(meta) = self.meta.get_mut(ix(index)) else { return Settle::Not };
        if !matches!(meta.state, State::Issuing | State::Held | State::Timed { .. }) {
            debug_assert!(false, "CAN-1: completed twice");
            return Settle::Not;
        }
        if meta.issuing {
            meta.state = State::Done { res, extra };
            return Settle::Later;
        }
        meta.state = State::Free { next: self.free };
        self.free = index;
        self.indefinite = self.indefinite.saturating_sub(meta.indefinite.into());
        let skip_success = meta.skip_success;
        Settle::Now(Settled { user_data: meta.user_data, skip_success, file: meta.file.take() })
    }

    /// The first request at `from` or after that matches, and what to do about it.
    pub(crate) fn find(&mut self, from: u32, most: u32, matching: &Matching) -> Option<(u32, Found)> {
        let end = from.saturating_add(most).min(self.count());
        for index in from..end {
            let meta = self.meta.get_mut(ix(index))?;
            let found = match meta.state {
                State::Free { .. } | State::Spare => continue,
                _ if !matching.matches(meta.user_data, meta.opcode) => continue,
                // It is completing.
                State::Done { .. } => return Some((index, Found::Already)),
                State::Timed { .. } => Found::Timed(index),
                _ if meta.canceled => Found::Already,
                State::Issuing => Found::Noted,
                State::Held => Found::Tell(meta.id),
            };
            meta.canceled = true;
            if matches!(found, Found::Timed(_)) {
                // Claimed: the clock cannot complete it any more.
                meta.state = State::Held;
            }
            return Some((index, found));
        }
        None
    }

    /// The first timed request at `from` or after that is due at `now_ns`, and its result. It is claimed: TIMED -> HELD by the
    /// clock, which completes it next, so that no cancel gets in between. At most `most` are looked at; `soonest` learns when
    /// those are due that are not.
    pub(crate) fn claim_due(&mut self, from: u32, most: u32, now_ns: u64, soonest: &mut u64) -> Option<(u32, i32)> {
        let end = from.saturating_add(most).min(self.count());
        for index in from..end {
            let meta = self.meta.get_mut(ix(index))?;
            if let State::Timed { at_ns, res } = meta.state {
                if at_ns <= now_ns {
                    meta.state = State::Held;
                    meta.canceled = true;
                    return Some((index, res));
                }
                *soonest = at_ns.min(*soonest);
            }
        }
        None
    }
}

/// The part of a request that its driver sees, and the way back from it.
#[repr(C)]
pub(crate) struct Slot<H: Host> {
    /// First, so that a pointer to one is a pointer to the other.
    raw: UnsafeCell<RawRequest>,
    ring: UnsafeCell<*const Ring<H>>,
    index: u32,
}

// SAFETY: between `defer` and the completion the driver that holds the request is the only one to touch the cells;
// otherwise the drain owner is (the slot is FREE or SPARE, and only it defers).
unsafe impl<H: Host> Send for Slot<H> {}
// SAFETY: as above.
unsafe impl<H: Host> Sync for Slot<H> {}

impl<H: Host> Slot<H> {
    const OPS: RequestOps = RequestOps {
        complete: complete::<H>,
        complete_after: complete_after::<H>,
        copy_from_user: copy_from_user::<H>,
        copy_to_user: copy_to_user::<H>,
        enter_user: enter_user::<H>,
        leave_user: leave_user::<H>,
    };

    pub(crate) fn new(index: usize) -> Self {
        Self {
            raw: UnsafeCell::new(RawRequest { ops: &Self::OPS, id: 0, target: 0, payload: RawPayload::empty() }),
            ring: UnsafeCell::new(ptr::null()),
            index: u32::try_from(index).unwrap_or(NONE),
        }
    }

    /// Makes the slot a request's.
    ///
    /// # Safety
    ///
    /// The caller is the drain owner and the slot is its spare. `ring` is the ring that holds this slot, and a
    /// reference to it has been counted for the request.
    pub(crate) unsafe fn fill(
        &self,
        ring: *const Ring<H>,
        id: u64,
        target: usize,
        payload: &RawPayload,
    ) -> *mut RawRequest {
        // SAFETY: the slot is the drain owner's (contract), so this access is exclusive.
        unsafe { *self.ring.get() = ring };
        let raw = self.raw.get();
        // SAFETY: as above.
        let request = unsafe { &mut *raw };
        request.id = id;
        request.target = target;
        let mine = &mut request.payload;
        (mine.kind, mine.nr, mine.left, mine.at, mine.passed) =
            (payload.kind, payload.nr, payload.left, payload.at, payload.passed);
        let nr = ix(payload.nr).min(MAX_SEGMENTS);
        for (to, from) in mine.segments.iter_mut().zip(payload.segments.iter()).take(nr) {
            *to = *from;
        }
        // The pointer is to the whole slot, so that the way back stays inside its provenance.
        ptr::from_ref(self).cast_mut().cast()
    }
}

/// The ring and index of a request.
///
/// # Safety
///
/// `request` is held by the caller.
unsafe fn home<'a, H: Host>(request: *mut RawRequest) -> (&'a Ring<H>, u32) {
    // SAFETY: `fill` made the pointer from a slot, which lives as long as its ring, which the request keeps.
    let slot = unsafe { &*request.cast::<Slot<H>>() };
    // SAFETY: the field was written before the request was handed out, and is not while it is held.
    let ring = unsafe { *slot.ring.get() };
    // SAFETY: the request's reference keeps the ring.
    (unsafe { &*ring }, slot.index)
}

/// # Safety
///
/// `request` is held by the caller, who gives it up; `extra` is readable.
unsafe extern "C" fn complete<H: Host>(request: *mut RawRequest, res: i32, extra: *const [u64; 2]) {
    // SAFETY: the contract.
    let (ring, index) = unsafe { home::<H>(request) };
    // SAFETY: the contract.
    let extra = unsafe { *extra };
    // The reference goes here, where no borrow of the ring is left: it may be the last.
    drop(ring.settle(index, res, extra));
}

/// # Safety
///
/// `request` is held by the caller, who gives it up.
unsafe extern "C" fn complete_after<H: Host>(request: *mut RawRequest, res: i32, delay_ns: u64) {
    // SAFETY: the contract.
    let (ring, index) = unsafe { home::<H>(request) };
    drop(ring.settle_after(index, res, delay_ns));
}

/// # Safety
///
/// `request` is held by the caller, and `dst` writable for `len` bytes.
unsafe extern "C" fn copy_from_user<H: Host>(request: *mut RawRequest, dst: *mut u8, addr: u64, len: usize) -> i32 {
    // SAFETY: the contract.
    let (ring, _) = unsafe { home::<H>(request) };
    // SAFETY: the contract.
    unsafe { ring.host.copy_from_user(dst, addr, len) }.map_or_else(Errno::to_res, |()| 0)
}

/// # Safety
///
/// `request` is held by the caller, and `src` readable for `len` bytes.
unsafe extern "C" fn copy_to_user<H: Host>(request: *mut RawRequest, addr: u64, src: *const u8, len: usize) -> i32 {
    // SAFETY: the contract.
    let (ring, _) = unsafe { home::<H>(request) };
    // SAFETY: the contract.
    unsafe { ring.host.copy_to_user(addr, src, len) }.map_or_else(Errno::to_res, |()| 0)
}

/// # Safety
///
/// `request` is held by the caller, a thread without user addresses of its own.
unsafe extern "C" fn enter_user<H: Host>(request: *mut RawRequest) -> i32 {
    // SAFETY: the contract.
    let (ring, _) = unsafe { home::<H>(request) };
    ring.host.enter_user().map_or_else(Errno::to_res, |()| 0)
}

/// # Safety
///
/// `request` is held by the caller, a thread in which `enter_user` succeeded for it.
unsafe extern "C" fn leave_user<H: Host>(request: *mut RawRequest) {
    // SAFETY: the contract.
    let (ring, _) = unsafe { home::<H>(request) };
    ring.host.leave_user();
}
