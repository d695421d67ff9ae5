// SPDX-License-Identifier: MIT OR Apache-2.0
//! The C boundary between framework and driver: `include/sq_driver.h` in Rust.
//!
//! Only C crosses a module's edge. The framework calls a driver through [`Table`]; a driver calls the framework through the
//! operations that travel with each [`RawOp`] and [`RawRequest`]. Everything here is plain data: the safe types of this
//! crate are made over it.

use core::ffi::{c_char, c_void};
use core::mem::MaybeUninit;

/// Version of this boundary. The framework refuses a table of another version.
pub const TABLE_VERSION: u32 = 1;

/// `Table::flags`: `fd` names a file.
pub const TABLE_FILES: u32 = 1 << 0;

/// What `issue` returns when the driver has taken the request: no operation's result is this.
pub const DEFERRED: i32 = i32::MIN;

/// Flag of [`OpOps::defer`]: the request may wait without bound, until it is canceled.
pub const DEFER_INDEFINITE: u32 = 1 << 0;

/// Most segments of a payload.
pub const MAX_SEGMENTS: usize = sq_uapi::consts::limit::IOV as usize;

/// What a driver is: `struct sq_driver_table`.
#[derive(Debug)]
#[repr(C)]
pub struct Table {
    /// Size of this structure.
    pub size: u32,
    /// [`TABLE_VERSION`].
    pub version: u32,
    /// NUL-terminated, at most 15 bytes.
    pub name: *const c_char,
    /// Bit n: opcode n is taken.
    pub opcodes: u64,
    /// [`TABLE_FILES`].
    pub flags: u32,
    /// 0.
    pub resv: u32,
    /// Starts an operation; returns its result or [`DEFERRED`].
    pub issue: unsafe extern "C" fn(data: *const c_void, op: *mut RawOp) -> i32,
    /// Makes the request finish.
    pub cancel: unsafe extern "C" fn(data: *const c_void, id: u64),
    /// Before a batch; may be null.
    pub begin: Option<unsafe extern "C" fn(data: *const c_void)>,
    /// After a batch; may be null.
    pub commit: Option<unsafe extern "C" fn(data: *const c_void)>,
    /// Bytes of the target; may be null.
    pub target_bytes: Option<unsafe extern "C" fn(data: *const c_void) -> u64>,
}

// SAFETY: a table is immutable; its pointers are to statics and functions.
unsafe impl Sync for Table {}
// SAFETY: as above.
unsafe impl Send for Table {}

/// A piece of payload: `struct sq_segment`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Segment {
    /// A user address, or an address in the ring's pool: see [`RawPayload::kind`].
    pub addr: u64,
    /// Bytes.
    pub len: u64,
}

/// `RawPayload::kind`: user addresses, reached by copying only.
pub const PAYLOAD_USER: u32 = 0;
/// `RawPayload::kind`: addresses in the ring's pool, mapped in the kernel side and shared with user space.
pub const PAYLOAD_POOL: u32 = 1;

/// Where an operation's bytes are: `struct sq_payload`. The cursor only moves forward.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RawPayload {
    /// [`PAYLOAD_USER`] or [`PAYLOAD_POOL`].
    pub kind: u32,
    /// Segments in use.
    pub nr: u32,
    /// Bytes not yet passed by the cursor.
    pub left: u64,
    /// The segment that the cursor is in.
    pub at: u32,
    /// 0.
    pub resv: u32,
    /// Bytes of that segment already passed.
    pub passed: u64,
    /// The first `nr` are there.
    pub segments: [MaybeUninit<Segment>; MAX_SEGMENTS],
}

impl RawPayload {
    /// No payload. A function, so that each use writes the few fields and leaves the segments alone.
    #[inline]
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            kind: PAYLOAD_USER,
            nr: 0,
            left: 0,
            at: 0,
            resv: 0,
            passed: 0,
            segments: [const { MaybeUninit::uninit() }; MAX_SEGMENTS],
        }
    }
}

/// An operation being issued: `struct sq_op`. Valid until `issue` returns.
#[derive(Debug)]
#[repr(C)]
pub struct RawOp {
    /// The private copy of the entry: its bytes are a `struct sq_sqe` (and, on SQE128 rings, 64 more).
    pub sqe: [u64; 16],
    /// What the driver may call.
    pub ops: *const OpOps,
    /// The framework's own.
    pub framework: *const c_void,
    /// The file that `fd` named, or 0. In the kernel a `struct file *`, in a process a descriptor plus 1.
    pub target: usize,
    /// The second half of a 32-byte completion.
    pub extra: [u64; 2],
    /// The payload.
    pub payload: RawPayload,
}

/// What a driver may call on an operation: `struct sq_op_ops`.
#[derive(Debug)]
#[repr(C)]
pub struct OpOps {
    /// Takes the operation out of `issue`: the caller must then return [`DEFERRED`]. At most once. With flags 0 it never fails:
    /// the request was set aside when the entry was accepted. With [`DEFER_INDEFINITE`] it returns null when the ring has
    /// as many such requests as it may (CQ-4); the operation's result is then -EBUSY.
    pub defer: unsafe extern "C" fn(op: *mut RawOp, flags: u32) -> *mut RawRequest,
    /// Copies from a user address to `dst`; 0 or a negative error number.
    pub copy_from_user: unsafe extern "C" fn(framework: *const c_void, dst: *mut u8, addr: u64, len: usize) -> i32,
    /// Copies from `src` to a user address; 0 or a negative error number.
    pub copy_to_user: unsafe extern "C" fn(framework: *const c_void, addr: u64, src: *const u8, len: usize) -> i32,
}

/// A request that a driver holds: the public head of the framework's own structure, `struct sq_request`.
#[derive(Debug)]
#[repr(C)]
pub struct RawRequest {
    /// What the driver may call.
    pub ops: *const RequestOps,
    /// Unique among the requests of all rings, for good.
    pub id: u64,
    /// The file, as in [`RawOp::target`].
    pub target: usize,
    /// The payload, with the cursor where `issue` left it.
    pub payload: RawPayload,
}

/// What a driver may call on a request: `struct sq_request_ops`. `complete` and `complete_after` may be called from an interrupt.
#[derive(Debug)]
#[repr(C)]
pub struct RequestOps {
    /// Completes the request, which is then gone.
    pub complete: unsafe extern "C" fn(request: *mut RawRequest, res: i32, extra: *const [u64; 2]),
    /// Hands the request to the framework's clock, which completes it with `res` after `delay_ns`, or with -ECANCELED
    /// when it is canceled before. The request is gone.
    pub complete_after: unsafe extern "C" fn(request: *mut RawRequest, res: i32, delay_ns: u64),
    /// As [`OpOps::copy_from_user`], in a context that may sleep.
    pub copy_from_user: unsafe extern "C" fn(request: *mut RawRequest, dst: *mut u8, addr: u64, len: usize) -> i32,
    /// As [`OpOps::copy_to_user`], in a context that may sleep.
    pub copy_to_user: unsafe extern "C" fn(request: *mut RawRequest, addr: u64, src: *const u8, len: usize) -> i32,
    /// Makes the user addresses of the payload the calling kernel thread's own (it has no others), so that it may hand them to
    /// the rest of the kernel; 0, or -ECANCELED if they are out of reach. Whoever closes the ring may wait for `leave_user`.
    pub enter_user: unsafe extern "C" fn(request: *mut RawRequest) -> i32,
    /// The end of what a successful `enter_user` began, in the same thread, before the request is completed.
    pub leave_user: unsafe extern "C" fn(request: *mut RawRequest),
}
