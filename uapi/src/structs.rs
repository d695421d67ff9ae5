// SPDX-License-Identifier: MIT OR Apache-2.0
//! The arguments of the calls. Each begins with its own size.
//!
//! A caller built against an older or a newer header passes its own size: what the kernel side does not know must be
//! zero (else `-E2BIG`), what the caller does not know is left out. Reserved fields and unknown flags are refused
//! with `-EINVAL`.

/// A part of a ring that is mapped on its own: `struct sq_region`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SqRegion {
    /// Offset to give to `mmap`.
    pub offset: u64,
    /// Bytes to map; 0 if the ring has no such region.
    pub size: u64,
}

/// Where the words and arrays are, in bytes from the start of their region: `struct sq_offsets`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SqOffsets {
    /// User region: free-running count of entries published.
    pub sq_tail: u32,
    /// User region: free-running count of completions reaped.
    pub cq_head: u32,
    /// User region: hints of the reaper.
    pub cq_flags: u32,
    /// User region: the submission entries.
    pub sqes: u32,
    /// Kernel region: free-running count of entries consumed.
    pub sq_head: u32,
    /// Kernel region: state of the submission side.
    pub sq_state: u32,
    /// Kernel region: free-running count of completions posted.
    pub cq_tail: u32,
    /// Kernel region: non-zero once the ring is broken.
    pub broken: u32,
    /// Kernel region: the completions.
    pub cqes: u32,
    /// 0.
    pub resv: [u32; 7],
}

/// Argument of SETUP: `struct sq_setup`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SqSetup {
    /// In: size of this structure.
    pub size: u32,
    /// In: [`consts::setup_flags`](crate::consts::setup_flags).
    pub flags: u32,
    /// In: submission entries wanted, 1 or more. Out: the power of two that was made of it.
    pub sq_entries: u32,
    /// In: completion entries wanted, or 0 for twice `sq_entries`. Out: the power of two that was made of it.
    pub cq_entries: u32,
    /// In: most requests in flight, or 0 for half of `cq_entries`. Out: what was granted.
    pub max_inflight: u32,
    /// In: milliseconds that the polling thread stays awake on an idle ring (`SQPOLL`), or 0 for the default.
    pub sq_thread_idle_ms: u32,
    /// In: CPU of the polling thread (`SQ_AFF`).
    pub sq_thread_cpu: u32,
    /// In: buffers of the ring's pool, or 0 for none.
    pub buf_count: u32,
    /// In: bytes of each buffer, a multiple of the page size.
    pub buf_bytes: u32,
    /// 0.
    pub resv0: u32,
    /// Out: [`consts::features`](crate::consts::features).
    pub features: u64,
    /// Out: what user space writes.
    pub user: SqRegion,
    /// Out: what the kernel writes; it can be mapped read-only only.
    pub kernel: SqRegion,
    /// Out: the pool of buffers.
    pub pool: SqRegion,
    /// Out: where the words are.
    pub offsets: SqOffsets,
    /// 0.
    pub resv: [u64; 4],
}

/// Argument of ENTER: `struct sq_enter`. A null argument is the bare doorbell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SqEnter {
    /// In: size of this structure.
    pub size: u32,
    /// In: [`consts::enter_flags`](crate::consts::enter_flags).
    pub flags: u32,
    /// In: wait until this many completions are unreaped; clamped to `cq_entries`.
    pub min_complete: u32,
    /// 0.
    pub resv: u32,
    /// In: longest wait in nanoseconds (`TIMEOUT`).
    pub timeout_ns: u64,
    /// In: after this many nanoseconds one completion is enough (`MIN_WAIT`).
    pub min_wait_ns: u64,
    /// In: signals blocked while waiting (`SIGMASK`).
    pub sigmask: u64,
    /// Out: entries consumed by this call.
    pub consumed: u32,
    /// Out: 0, or how the wait ended early: -ETIME, -EINTR, -EBUSY (blocked: reap first), -EBADFD (broken), -ESHUTDOWN
    /// (quiesced).
    pub wait_result: i32,
    /// 0.
    pub resv2: [u64; 2],
}

/// Argument of REGISTER: `struct sq_register`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SqRegister {
    /// In: size of this structure.
    pub size: u32,
    /// In: [`consts::register_op`](crate::consts::register_op).
    pub op: u32,
    /// In: address of the operation's argument.
    pub arg: u64,
    /// In: how many the argument holds.
    pub nr: u32,
    /// In: first index (`FILES_UPDATE`).
    pub offset: u32,
    /// 0.
    pub resv: [u64; 2],
}

/// Argument of QUIESCE: `struct sq_quiesce`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SqQuiesce {
    /// In: size of this structure.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// In: longest wait in nanoseconds.
    pub timeout_ns: u64,
    /// 0.
    pub resv: [u64; 2],
}

/// Argument of CANCEL: `struct sq_cancel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SqCancel {
    /// In: size of this structure.
    pub size: u32,
    /// In: [`consts::cancel_flags`](crate::consts::cancel_flags).
    pub flags: u32,
    /// In: what to match.
    pub user_data: u64,
    /// In: what to match (`OP`).
    pub opcode: u32,
    /// 0.
    pub resv0: u32,
    /// 0.
    pub resv: [u64; 2],
}

/// Argument of QUERY: `struct sq_query`. Works on a device without a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SqQuery {
    /// In: size of this structure.
    pub size: u32,
    /// In: 0.
    pub flags: u32,
    /// Out: [`consts::ABI_VERSION`](crate::consts::ABI_VERSION).
    pub abi_version: u32,
    /// Out: `sqe.flags` that are implemented.
    pub sqe_flags: u32,
    /// Out: [`consts::features`](crate::consts::features).
    pub features: u64,
    /// Out: `sq_setup.flags` that are implemented.
    pub setup_flags: u32,
    /// Out: `sq_enter.flags` that are implemented.
    pub enter_flags: u32,
    /// Out: bit n is set if opcode n is accepted.
    pub opcodes: u64,
    /// Out: bit n is set if REGISTER operation n is implemented.
    pub register_ops: u64,
    /// Out: most submission entries.
    pub max_sq_entries: u32,
    /// Out: most completion entries.
    pub max_cq_entries: u32,
    /// Out: most requests in flight.
    pub max_inflight: u32,
    /// Out: most segments of a vectored operation.
    pub max_iov: u32,
    /// Out: longest chain of linked entries; 0 if links are not implemented.
    pub max_chain: u32,
    /// Out: most registered files.
    pub max_files: u32,
    /// Out: most buffers of the pool.
    pub max_bufs: u32,
    /// Out: most bytes of one buffer.
    pub max_buf_bytes: u32,
    /// Out: most bytes of the pool.
    pub max_pool_bytes: u64,
    /// Out: bytes of the driver's target, or 0 if it has no size.
    pub target_bytes: u64,
    /// Out: the driver's name, NUL-terminated.
    pub driver: [u8; 16],
    /// Out: most io_uring commands of a file in flight; 0 if there are none.
    pub max_commands: u32,
    /// 0.
    pub resv0: u32,
    /// 0.
    pub resv: [u64; 3],
}

/// Argument of STATS: `struct sq_stats`. Counters since the ring was set up; each wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SqStats {
    /// In: size of this structure.
    pub size: u32,
    /// In: 0.
    pub flags: u32,
    /// Out: entries consumed.
    pub entries: u64,
    /// Out: entries that got an error from the framework, not from the driver.
    pub rejected: u64,
    /// Out: completions posted.
    pub completions: u64,
    /// Out: successes that posted none (`CQE_SKIP_SUCCESS`).
    pub skipped: u64,
    /// Out: ENTER calls.
    pub doorbells: u64,
    /// Out: times the drain stopped for want of a completion slot or a request.
    pub stalls: u64,
    /// Out: times a waiter was woken for completions.
    pub wakeups: u64,
    /// Out: requests in flight now.
    pub inflight: u64,
    /// Out: of the rejected ones, those that were malformed: `EINVAL`.
    pub rejected_invalid: u64,
    /// Out: of the rejected ones, those whose opcode is not taken: `EOPNOTSUPP`. The others lead to something that is not there.
    pub rejected_opcode: u64,
    /// Out: doorbells avoided: times that an awake worker or polling thread found entries unasked.
    pub avoided: u64,
    /// Out: times that the worker or polling thread found nothing more and went to sleep.
    pub sleeps: u64,
}

/// A segment of a vectored operation: `struct sq_iovec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SqIovec {
    /// User address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
}

/// A structure that begins with its size and travels by value: what the kernel side may make from bytes.
///
/// # Safety
///
/// The type is `repr(C)`, has no padding, every bit pattern is a value of it, and its first field is a `u32`: the size.
pub unsafe trait Argument: Copy + Default {
    /// Size of the first published version: a smaller one is refused.
    const MIN_SIZE: usize;
}

macro_rules! arguments {
    ($($type:ty = $size:literal;)*) => {$(
        // SAFETY: repr(C), integers and arrays of them only; the assertion below shows that there is no padding
        // beyond what the fields add up to in `include/sq.h`, which a test compares field by field.
        unsafe impl Argument for $type {
            const MIN_SIZE: usize = $size;
        }
        const _: () = assert!(size_of::<$type>() == $size);
    )*};
}

arguments! {
    SqSetup = 192;
    SqEnter = 64;
    SqRegister = 40;
    SqQuiesce = 32;
    SqCancel = 40;
    SqQuery = 144;
    SqStats = 104;
}
