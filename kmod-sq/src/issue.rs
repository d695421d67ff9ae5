// SPDX-License-Identifier: MIT OR Apache-2.0
//! Giving an operation to its driver, and taking the request out of it if the driver asks for that.

use core::cell::Cell;
use core::ptr;

use sq_driver::abi::{DEFER_INDEFINITE, DEFERRED, OpOps, RawOp, RawRequest};
use sq_uapi::Errno;

use crate::host::{Event, Host, HostFile, Lock};
use crate::parse::{Bytes, Parsed};
use crate::request::{Identity, Meanwhile, NONE};
use crate::ring::Ring;
use crate::snapshot::Snapshot;
use crate::sq::{Intake, SKIP_SUCCESS};
use crate::{accept, ix};

/// What `defer` needs to know of the entry being issued. Cells, because the driver's call comes back in.
pub(crate) struct Issuing<H: Host> {
    /// The request that is set aside. While an operation is issued, [`NONE`] says that `defer` has taken it.
    spare: Cell<u32>,
    /// The request that `defer` took last.
    taken: Cell<u32>,
    /// Not 0: there is no spare. For the short way, which or-s it to the words of an entry.
    taken_over: Cell<u64>,
    file: Cell<Option<H::File>>,
}

/// What [`Host::file`] says where there are no descriptors to look in.
const NOT_HERE: Errno = Errno::EAGAIN;

/// What [`special`] says of an entry that has to be issued in another context. No result is this: errors are above -4096.
pub(crate) const ELSEWHERE: i32 = i32::MIN + 2;

/// A driver in C may return what is no result, or DEFERRED without having taken the request: the operation is lost then.
pub(crate) const LOST: i32 = i32::MIN + 3;

/// The least result there is: -4095.
pub(crate) const LEAST: i32 = 0i32.wrapping_sub(Errno::MAX);

/// SUB-1: a bad entry gets its own error, and the batch goes on.
#[cold]
pub(crate) fn reject<H: Host>(ring: &Ring<H>, op: &RawOp, errno: Errno) -> i32 {
    let [word0, _, _, _, user_data, ..] = op.sqe;
    ring.host.trace(Event::Reject { user_data, opcode: low8(word0), errno });
    ring.cq.with(|cq| cq.count_rejected(errno));
    errno.to_res()
}

/// Gives the operation to the driver. Returns the result, or [`DEFERRED`] if the driver has taken the request.
#[inline]
pub(crate) fn issue<H: Host>(ring: &Ring<H>, intake: &mut Intake) -> i32 {
    // SAFETY: `pass` set the pointers to this ring and its operations; `payload` leads to what `accept` found: user addresses, which
    // are only copied, or bytes of the pool.
    let res = unsafe { ring.driver.issue(&mut intake.op) };
    // Whatever it returned: a driver that has the request completes it.
    if ring.issuing.spare() == NONE {
        return DEFERRED;
    }
    if res < LEAST { LOST } else { res }
}

/// As [`issue`] on the short way, which finds out a batch later about a driver that has taken the request and returned a result.
#[inline(always)]
pub(crate) fn issue_short<H: Host>(ring: &Ring<H>, intake: &mut Intake) -> i32 {
    // SAFETY: as in `issue`; there is no payload.
    let res = unsafe { ring.driver.issue(&mut intake.op) };
    if res >= LEAST {
        return res;
    }
    if ring.issuing.spare() == NONE { DEFERRED } else { LOST }
}

/// `issue` has returned, and the driver has taken the request: others may complete it from here on. What the drain owner had to
/// post before it is posted.
#[inline(never)]
pub(crate) fn hand_over<H: Host>(ring: &Ring<H>, intake: &mut Intake) {
    intake.op.extra = [0; 2];
    let index = ring.issuing.taken.get();
    match ring.cq.with(|cq| cq.requests.issued(index, &ring.posted)) {
        Meanwhile::Nothing => {}
        Meanwhile::Canceled(id) => ring.driver.cancel(id),
        // The drain owner's caller has a reference too.
        Meanwhile::Done(res, extra) => drop(ring.settle(index, res, extra)),
    }
}

/// Issues an operation that has bytes or a target, which are found first, and forgotten again afterwards.
#[inline(always)]
pub(crate) fn special<H: Host>(ring: &Ring<H>, intake: &mut Intake, parsed: &Parsed) -> i32 {
    // BELL-3: each of these may take long, and there may be thousands. Whoever was killed runs no more of them.
    if let Err(errno) = ring.host.pause() {
        return errno.to_res();
    }
    if parsed.opcode() == sq_driver::op::ASYNC_CANCEL {
        // The framework's own.
        return ring
            .cancel_entry(Snapshot::of_words(&intake.op.sqe))
            .unwrap_or_else(|errno| reject(ring, &intake.op, errno));
    }
    let res = match found(ring, &mut intake.op, parsed) {
        Ok(()) => issue(ring, intake),
        Err(NOT_HERE) => return ELSEWHERE,
        Err(errno) => reject(ring, &intake.op, errno),
    };
    intake.op.payload.nr = 0;
    intake.op.payload.left = 0;
    if ring.driver.files() {
        intake.op.target = 0;
        drop(ring.issuing.file.take());
    }
    res
}

/// Finds the bytes and the file that an operation is on.
fn found<H: Host>(ring: &Ring<H>, op: &mut RawOp, parsed: &Parsed) -> Result<(), Errno> {
    if parsed.target() && ring.driver.files() {
        let file = accept::file(ring, parsed)?;
        op.target = file.target();
        ring.issuing.file.set(Some(file));
    }
    if parsed.bytes() != Bytes::None {
        let pool = |index, off, len| widen(ring.pool).checked_add(ring.geometry.pool_offset(index, off, len)?);
        // SAFETY: a slice is writable for its length.
        let copy_in = |dst: &mut [u8], addr| unsafe { ring.host.copy_from_user(dst.as_mut_ptr(), addr, dst.len()) };
        accept::payload(parsed.bytes(), &op.sqe, &mut op.payload, pool, copy_in)?;
    }
    Ok(())
}

impl<H: Host> Issuing<H> {
    pub(crate) const fn new() -> Self {
        Self { spare: Cell::new(NONE), taken_over: Cell::new(1), taken: Cell::new(NONE), file: Cell::new(None) }
    }

    /// Sets a request aside, or [`NONE`].
    pub(crate) fn set_spare(&self, index: u32) {
        self.spare.set(index);
        self.taken_over.set((index == NONE).into());
    }

    /// The request that is set aside.
    #[inline]
    pub(crate) fn spare(&self) -> u32 {
        self.spare.get()
    }

    /// Not 0: no request is set aside.
    #[inline]
    pub(crate) fn taken_over(&self) -> u64 {
        self.taken_over.get()
    }

    pub(crate) const OPS: OpOps =
        OpOps { defer: defer::<H>, copy_from_user: copy_from_user::<H>, copy_to_user: copy_to_user::<H> };
}

#[expect(clippy::as_conversions, reason = "usize has 64 bits here: the same number")]
const fn widen(address: usize) -> u64 {
    address as u64
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
    let ring_ptr = op.framework.cast::<Ring<H>>();
    // SAFETY: `pass` set it to the ring being drained, whose drain owner is in `issue`.
    let ring = unsafe { &*ring_ptr };
    let issuing = &ring.issuing;
    let spare = issuing.spare();
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
    issuing.set_spare(NONE);
    issuing.taken.set(spare);
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
    let ring = unsafe { &*framework.cast::<Ring<H>>() };
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
    let ring = unsafe { &*framework.cast::<Ring<H>>() };
    // SAFETY: the contract.
    unsafe { ring.host.copy_to_user(addr, src, len) }.map_or_else(Errno::to_res, |()| 0)
}
