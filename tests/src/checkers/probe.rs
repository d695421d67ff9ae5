// SPDX-License-Identifier: MIT OR Apache-2.0
//! A driver that does everything a driver can do: files, payload of all kinds, requests that it holds until it is told.
//!
//! It checks what it is given. What it holds belongs to the thread that runs the program, so that one static driver will do.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_void;

use sq_driver::abi::{DEFERRED, RawOp, Table};
use sq_driver::{Driver, Errno, Issued, Op, Opcodes, Payload, Request, RequestId, op};
use sq_uapi::consts::{limit, sqe_flags};

use super::interleave::unlocked;

/// Commands beyond the null driver's.
pub mod cmd {
    /// Is held until [`super::complete_oldest`] or a cancel.
    pub const HOLD: u32 = 4;
    /// The same, without bound.
    pub const HOLD_FOREVER: u32 = 5;
    /// Becomes a request, which is dropped.
    pub const DROP: u32 = 6;
    /// Reads its bytes.
    pub const READ: u32 = 7;
}

/// The result of what [`complete_oldest`] completes.
pub const HELD: i32 = 17;

thread_local! {
    static HOLDS: RefCell<VecDeque<Request>> = const { RefCell::new(VecDeque::new()) };
    /// Where the pool is.
    static POOL: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// The driver, which wants to know of `BATCHES` or does not.
#[derive(Clone, Copy, Debug)]
pub struct Probe<const BATCHES: bool>;

/// What Rust makes of it.
const HONEST: &Table = sq_driver::table::<Probe<false>>();

/// The same driver as if it were in C, where no type keeps it from asking for a request twice, or from returning what is no result. And it sees
/// `user_data`, by which alone one bare NOP differs from another: one in sixteen it takes.
pub const IN_C: &Table = &Table { issue: issue_in_c, ..*HONEST };

/// # Safety
///
/// As the table's `issue`.
unsafe extern "C" fn issue_in_c(data: *const c_void, op: *mut RawOp) -> i32 {
    // SAFETY: the contract: valid and exclusive until this returns.
    let RawOp { sqe, ops, .. } = unsafe { op.read() };
    if sqe[0] as u8 == op::NOP && sqe[4] % 16 == 15 {
        // SAFETY: as above.
        unsafe { (*op).sqe[0] |= u64::from(sqe_flags::ASYNC) << 8 };
    }
    // SAFETY: the contract.
    let res = unsafe { (HONEST.issue)(data, op) };
    // SAFETY: as above.
    unsafe { (*op).sqe[0] = sqe[0] };
    if res == DEFERRED {
        // SAFETY: the contract: they outlive the call.
        let ops = unsafe { &*ops };
        // SAFETY: the contract.
        let second = unsafe { (ops.defer)(op, 0) };
        assert!(second.is_null(), "CAN-1: an operation has one request");
    }
    let is_result = sqe[0] as u8 == op::CMD && sqe[1] as u32 == sq_null::cmd::RESULT;
    if is_result { sqe[6] as u32 as i32 } else { res }
}

/// Says where the pool of this thread's ring is: no payload leads elsewhere in the kernel side.
pub fn pool_is(start: u64, bytes: u64) {
    POOL.set((start, bytes));
}

/// Completes the request that the driver holds longest.
pub fn complete_oldest() {
    let oldest = HOLDS.with_borrow_mut(VecDeque::pop_front);
    if let Some(mut request) = oldest {
        let walked = walk(&mut request.payload());
        request.complete(walked.map(|_| HELD));
    }
}

/// How many it holds.
#[must_use]
pub fn holds() -> usize {
    HOLDS.with_borrow(VecDeque::len)
}

fn hold(request: Request) {
    HOLDS.with_borrow_mut(|holds| holds.push_back(request));
}

/// Goes over the payload, half of it to be read and half to be written.
///
/// SNAP-3: what it leads to was checked in private memory, so it adds up and stays where it may be.
fn walk(payload: &mut Payload<'_>) -> Result<i32, Errno> {
    let segments = payload.segments();
    let mut total = 0u64;
    for segment in segments {
        let end = segment.addr.checked_add(segment.len).expect("SNAP-3: a segment wraps");
        let (start, bytes) = POOL.get();
        let inside = segment.addr >= start && end <= start + bytes;
        assert!(inside || !payload.is_pool(), "SEC-1: a pool segment is outside of the pool");
        total = total.checked_add(segment.len).expect("SNAP-3: the sum of segments wraps");
    }
    assert!(total <= u64::from(limit::TRANSFER_BYTES), "SNAP-3: {total} bytes");
    let mut bytes = [0; 24];
    let read = payload.read(&mut bytes)?;
    let written = payload.write(&bytes)?;
    Ok((read + written) as i32)
}

impl<const BATCHES: bool> Driver for Probe<BATCHES> {
    const NAME: &'static core::ffi::CStr = c"probe";
    const OPCODES: Opcodes = Opcodes::NONE
        .with(op::NOP)
        .with(op::CMD)
        .with(op::READ)
        .with(op::WRITE)
        .with(op::READV)
        .with(op::WRITEV)
        .with(op::READ_FIXED)
        .with(op::WRITE_FIXED)
        .with(op::FSYNC);
    const FILES: bool = true;
    const BATCHES: bool = BATCHES;

    fn issue<'op>(&self, mut op: Op<'op>) -> Issued<'op> {
        unlocked("issue is called");
        let command = if op.entry().opcode() == op::CMD { op.entry().cmd_op() } else { cmd::READ };
        let fresh: u64 = op.payload().segments().iter().map(|segment| segment.len).sum();
        assert_eq!(op.payload().left(), fresh, "SNAP-3: the payload is not the sum of its segments");
        match command {
            _ if op.entry().opcode() == op::NOP => sq_null::Null.issue(op),
            cmd::HOLD | cmd::READ if op.entry().wants_async() || command == cmd::HOLD => {
                let (request, issued) = op.defer();
                hold(request);
                issued
            }
            cmd::HOLD_FOREVER => match op.defer_indefinite() {
                Ok((request, issued)) => {
                    hold(request);
                    issued
                }
                Err(busy) => busy,
            },
            cmd::DROP => op.defer().1,
            cmd::READ => {
                let walked = walk(&mut op.payload());
                op.finish(walked)
            }
            _ => sq_null::Null.issue(op),
        }
    }

    fn cancel(&self, id: RequestId) {
        unlocked("cancel is called");
        let found = HOLDS.with_borrow_mut(|holds| {
            let at = holds.iter().position(|request| request.id() == id)?;
            holds.remove(at)
        });
        if let Some(request) = found {
            request.complete(Err(Errno::ECANCELED));
        }
    }

    fn target_bytes(&self) -> u64 {
        4096
    }
}
