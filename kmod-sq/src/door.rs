// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doors of a driver that need no ring: one entry at a time.
//!
//! ```text
//!  caller's 64 bytes --one copy--> private words --parse--> Parsed --driver--> result --> return value
//!                                                                 |
//!                                                                 +--> Request ... later --> the caller wakes and returns it
//! ```
//!
//! An entry goes the same way as on a ring: copied once (SNAP-1), checked by the same table, given to the same driver. What only a
//! ring can do is refused with `EINVAL`: links, drains, skipped completions, registered files, pool buffers and `ASYNC_CANCEL`.
//! Everything runs in the caller's context, with its memory and credentials; an entry that completes inline touches no memory but
//! the caller's stack.

mod pool;
mod task;
mod user;
mod wait;

use core::cell::Cell;
use core::ffi::c_void;
use core::sync::atomic::{AtomicU64, Ordering};

use sq_driver::Bound;
use sq_driver::abi::{MAX_SEGMENTS, OpOps, RawOp, RawPayload, RawRequest, RequestOps};
use sq_uapi::consts::op;
use sq_uapi::{Errno, load_entry};

use crate::host::HostFile;
use crate::issue::LEAST;
use crate::parse::{Accepts, Bytes, Parsed, is_bare};
use crate::snapshot::Snapshot;
use crate::{accept, ix};

pub use pool::{Pool, Slot};
pub use task::{Issued, Tasks};

/// What a door needs of the process that calls and of the kernel around it. There is no value of it: it is whoever is running.
pub trait Caller: Sized + 'static {
    /// An open file.
    type File: HostFile;
    /// The caller's memory, to be reached while the caller waits, by whoever completes its request. It does not keep the memory.
    type Memory: Send + Sync;
    /// Something that one thread waits for and another one brings about, once.
    type Event;

    /// Copies an entry from a user address, once, by u64 loads.
    ///
    /// # Safety
    ///
    /// `dst` is writable.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    unsafe fn copy_entry(dst: *mut [u64; 8], addr: u64) -> Result<(), Errno>;

    /// Copies from a user address of the calling process.
    ///
    /// # Safety
    ///
    /// `dst` is writable for `len` bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    unsafe fn copy_from_user(dst: *mut u8, addr: u64, len: usize) -> Result<(), Errno>;

    /// Copies to a user address of the calling process.
    ///
    /// # Safety
    ///
    /// `src` is readable for `len` bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    unsafe fn copy_to_user(addr: u64, src: *const u8, len: usize) -> Result<(), Errno>;

    /// The open file that `fd` names in the calling process.
    ///
    /// # Errors
    ///
    /// `EBADF`, as [`Host::file`](crate::Host::file).
    fn file(fd: i32) -> Result<Self::File, Errno>;

    /// The calling process's memory.
    fn memory() -> Self::Memory;

    /// As [`Caller::copy_from_user`], of that memory, from any context that may sleep.
    ///
    /// # Safety
    ///
    /// `dst` is writable for `len` bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT`, also if the memory is gone.
    unsafe fn copy_in(memory: &Self::Memory, dst: *mut u8, addr: u64, len: usize) -> Result<(), Errno>;

    /// As [`Caller::copy_to_user`], of that memory, from any context that may sleep.
    ///
    /// # Safety
    ///
    /// `src` is readable for `len` bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT`, also if the memory is gone.
    unsafe fn copy_out(memory: &Self::Memory, addr: u64, src: *const u8, len: usize) -> Result<(), Errno>;

    /// Makes that memory the calling thread's own, until [`Caller::leave`]. As [`Host::enter_user`](crate::Host::enter_user).
    ///
    /// # Errors
    ///
    /// `ECANCELED` if the memory is gone.
    fn enter(_: &Self::Memory) -> Result<(), Errno> {
        Ok(())
    }

    /// The end of what [`Caller::enter`] began, in the same thread.
    fn leave(_: &Self::Memory) {}

    /// Makes an event in its place, which it does not leave.
    ///
    /// # Safety
    ///
    /// `event` is writable.
    unsafe fn event_new(event: *mut Self::Event);

    /// Brings it about, from any context. What the caller did before, the waiter sees.
    ///
    /// # Safety
    ///
    /// From [`Caller::event_new`], and this is the first call. The event may be gone as soon as the waiter can see it.
    unsafe fn event_set(event: *const Self::Event);

    /// Sleeps until it has come about, or, if `interruptible`, until a signal arrives: then `false`. Not called again after `true`.
    ///
    /// # Safety
    ///
    /// From [`Caller::event_new`], by the thread that made it.
    unsafe fn event_wait(event: *const Self::Event, interruptible: bool) -> bool;

    /// Monotonic time in nanoseconds.
    fn now_ns() -> u64;

    /// Sleeps until that time, or until a signal arrives: then `false`.
    fn sleep_until(at_ns: u64) -> bool;
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// In an io_uring command, where user space may be writing it.
    Live(&'a [AtomicU64; 8]),
    /// At a user address.
    User(u64),
}

/// The doors of one driver.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    driver: Bound,
    accepts: Accepts,
}

impl Doors {
    /// The doors of `driver`.
    #[must_use]
    pub const fn new(driver: Bound) -> Self {
        Self { driver, accepts: Accepts::alone(driver.opcodes(), driver.files()) }
    }

    /// From the snapshot to the driver's answer.
    #[inline(always)]
    fn start<C: Caller>(
        &self,
        op: &mut RawOp,
        source: Source<'_>,
        allowed: u64,
        file: &Cell<Option<C::File>>,
    ) -> Result<i32, Errno> {
        match source {
            Source::Live(words) => {
                let (first, _) = op.sqe.split_at_mut(8);
                first.copy_from_slice(&load_entry(words));
            }
            // SAFETY: the first half of 16 words.
            Source::User(addr) => unsafe { C::copy_entry((&raw mut op.sqe).cast(), addr) }?,
        }
        let [a, b, c, d, e, f, g, h, ..] = op.sqe;
        if !is_bare(&[a, b, c, d, e, f, g, h], 0) || !self.accepts.with(allowed).bare() {
            self.accept::<C>(op, file, allowed)?;
        }
        self.driver.begin();
        // SAFETY: `framework` is what `ops` expects; `payload` leads to user addresses, which are only copied.
        let res = unsafe { self.driver.issue(op) };
        self.driver.commit();
        Ok(res)
    }

    /// Checks the operation's entry and finds what it is on. `allowed` are the opcodes that the file has not given up.
    fn accept<C: Caller>(&self, op: &mut RawOp, file: &Cell<Option<C::File>>, allowed: u64) -> Result<(), Errno> {
        let snapshot = Snapshot::of_words(&op.sqe);
        let [word0, ..] = snapshot.words();
        if needs_ring(word0 & 0xff) {
            return Err(Errno::EINVAL);
        }
        let parsed = Parsed::new(snapshot, &self.accepts.with(allowed), false)?;
        if parsed.bytes() == Bytes::Pool {
            return Err(Errno::EINVAL);
        }
        if parsed.bytes() != Bytes::None {
            // SAFETY: a slice is writable for its length.
            let copy_in = |dst: &mut [u8], addr| unsafe { C::copy_from_user(dst.as_mut_ptr(), addr, dst.len()) };
            accept::payload(parsed.bytes(), &op.sqe, &mut op.payload, |_, _, _| None, copy_in)?;
        }
        if parsed.target() && self.driver.files() {
            let found = C::file(parsed.fd())?;
            op.target = found.target();
            file.set(Some(found));
        }
        Ok(())
    }
}

/// Opcodes that are about a ring's own requests or buffers.
const fn needs_ring(opcode: u64) -> bool {
    const RING: u64 = 1 << op::READ_FIXED | 1 << op::WRITE_FIXED | 1 << op::ASYNC_CANCEL;
    opcode < 64 && RING >> opcode & 1 != 0
}

/// What a driver's result is to whoever waits for it at a door.
const fn outcome(res: i32) -> i32 {
    match res {
        0.. => res,
        // The kernel's ERESTART family: a system call that returns one may be run again, and the driver has run already.
        -514..=-512 | -516 => Errno::EINTR.to_res(),
        LEAST..=-1 => res,
        _ => Errno::EIO.to_res(),
    }
}

/// An operation without an entry yet. `framework` is what the `defer` of `ops` expects.
const fn empty_op(ops: &'static OpOps, framework: *const c_void) -> RawOp {
    RawOp { sqe: [0; 16], ops, framework, target: 0, extra: [0; 2], payload: RawPayload::empty() }
}

/// The operation as a request.
fn request(op: &RawOp, ops: &'static RequestOps) -> RawRequest {
    let from = &op.payload;
    let mut payload = RawPayload {
        kind: from.kind,
        nr: from.nr,
        left: from.left,
        at: from.at,
        passed: from.passed,
        ..RawPayload::empty()
    };
    for (to, from) in payload.segments.iter_mut().zip(from.segments.iter()).take(ix(from.nr).min(MAX_SEGMENTS)) {
        *to = *from;
    }
    RawRequest { ops, id: next_id(), target: op.target, payload }
}

/// A request's id: apart from those of rings, whose blocks do not come this far.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 63);
    // Relaxed: only its uniqueness matters.
    NEXT.fetch_add(1, Ordering::Relaxed)
}
