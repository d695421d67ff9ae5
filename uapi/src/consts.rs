// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every constant of `include/sq.h`, under its C name without the prefix that its module stands for.
//!
//! `IORING_X` and `IOSQE_X` are `SQ_X` with the same value. A number is borrowed only with its meaning; what sq does
//! not implement is refused with `-EINVAL`, never ignored.

/// Version of this ABI. A module with another major number is another device.
pub const ABI_VERSION: u32 = 1;

/// Opcodes: io_uring's numbers.
pub mod op {
    /// Does nothing. `IORING_OP_NOP`.
    pub const NOP: u8 = 0;
    /// Vectored read, `IORING_OP_READV`; the vector is `struct sq_iovec`.
    pub const READV: u8 = 1;
    /// Vectored write, `IORING_OP_WRITEV`.
    pub const WRITEV: u8 = 2;
    /// Flushes to stable storage, `IORING_OP_FSYNC`.
    pub const FSYNC: u8 = 3;
    /// Read into a ring-owned buffer, `IORING_OP_READ_FIXED`: `buf_index` names it, `addr` is an offset inside it.
    pub const READ_FIXED: u8 = 4;
    /// Write from a ring-owned buffer, `IORING_OP_WRITE_FIXED`.
    pub const WRITE_FIXED: u8 = 5;
    /// Cancels requests, `IORING_OP_ASYNC_CANCEL`.
    pub const ASYNC_CANCEL: u8 = 14;
    /// Read, `IORING_OP_READ`.
    pub const READ: u8 = 22;
    /// Write, `IORING_OP_WRITE`.
    pub const WRITE: u8 = 23;
    /// The driver's own command `cmd_op`, `IORING_OP_URING_CMD`.
    pub const CMD: u8 = 46;
}

/// `sqe.flags`: io_uring's bits.
pub mod sqe_flags {
    /// `fd` is an index into the ring's registered files, `IOSQE_FIXED_FILE`.
    pub const FIXED_FILE: u8 = 1 << 0;
    /// Waits for all earlier requests, `IOSQE_IO_DRAIN`.
    pub const IO_DRAIN: u8 = 1 << 1;
    /// Links the next entry, `IOSQE_IO_LINK`.
    pub const IO_LINK: u8 = 1 << 2;
    /// Links the next entry whatever this one's result, `IOSQE_IO_HARDLINK`.
    pub const IO_HARDLINK: u8 = 1 << 3;
    /// Do not try inline: defer at once, `IOSQE_ASYNC`.
    pub const ASYNC: u8 = 1 << 4;
    /// No CQE if the operation succeeds, `IOSQE_CQE_SKIP_SUCCESS`.
    pub const CQE_SKIP_SUCCESS: u8 = 1 << 6;
}

/// `cqe.flags`: io_uring's bits.
pub mod cqe_flags {
    /// More completions of this request follow, `IORING_CQE_F_MORE`.
    pub const F_MORE: u32 = 1 << 1;
}

/// `sqe.op_flags` of `FSYNC`.
pub mod fsync_flags {
    /// Data only, no metadata that a read does not need, `IORING_FSYNC_DATASYNC`.
    pub const DATASYNC: u32 = 1 << 0;
}

/// `sqe.op_flags` of `CMD`.
pub mod cmd_flags {
    /// `buf_index` names a ring-owned buffer, and `addr` is an offset inside it, `IORING_URING_CMD_FIXED`.
    pub const FIXED: u32 = 1 << 0;
}

/// `sqe.op_flags` of `ASYNC_CANCEL` and `flags` of the CANCEL call.
pub mod cancel_flags {
    /// All that match, not only the first, `IORING_ASYNC_CANCEL_ALL`.
    pub const ALL: u32 = 1 << 0;
    /// Whatever is in flight, `IORING_ASYNC_CANCEL_ANY`; implies `ALL`.
    pub const ANY: u32 = 1 << 2;
    /// Match `user_data`, `IORING_ASYNC_CANCEL_USERDATA`; the default when neither `ANY` nor `OP` is set.
    pub const USERDATA: u32 = 1 << 4;
    /// Match the opcode in `len`, `IORING_ASYNC_CANCEL_OP`.
    pub const OP: u32 = 1 << 5;
}

/// `sq_setup.flags`.
pub mod setup_flags {
    /// A kernel thread polls the submission queue, `IORING_SETUP_SQPOLL`.
    pub const SQPOLL: u32 = 1 << 1;
    /// The polling thread is bound to `sq_thread_cpu`, `IORING_SETUP_SQ_AFF`.
    pub const SQ_AFF: u32 = 1 << 2;
    /// Sizes over the limit are lowered to it, `IORING_SETUP_CLAMP`.
    pub const CLAMP: u32 = 1 << 4;
    /// Nothing is accepted until the ring is enabled, `IORING_SETUP_R_DISABLED`.
    pub const R_DISABLED: u32 = 1 << 6;
    /// Entries are 128 bytes, `IORING_SETUP_SQE128`.
    pub const SQE128: u32 = 1 << 10;
    /// Completions are 32 bytes, `IORING_SETUP_CQE32`.
    pub const CQE32: u32 = 1 << 11;
    /// A worker drains the ring; the doorbell only wakes it. sq's own, out of io_uring's range.
    pub const WORKER: u32 = 1 << 30;
    /// Every flag there is.
    pub const ALL: u32 = SQPOLL | SQ_AFF | CLAMP | R_DISABLED | SQE128 | CQE32 | WORKER;
}

/// `sq_query.features` and `sq_setup.features`: properties, not choices.
pub mod features {
    /// The kernel-written region can only be mapped read-only.
    pub const KERNEL_RDONLY: u64 = 1 << 0;
    /// The ring has a pool of buffers that READ_FIXED and WRITE_FIXED take.
    pub const BUF_POOL: u64 = 1 << 1;
    /// The driver takes file descriptors: `fd` is used, and files can be registered.
    pub const FILES: u64 = 1 << 2;
    /// The kernel side runs inside this process: no privilege boundary is crossed.
    pub const EMBEDDED: u64 = 1 << 3;
    /// `SQ_IOC_ISSUE`: one entry a call, with or without a ring.
    pub const ISSUE: u64 = 1 << 4;
    /// io_uring's commands (`IORING_OP_URING_CMD`) with `SQ_IOC_ISSUE` as `cmd_op`: one entry a command.
    pub const URING_CMD: u64 = 1 << 5;
    /// Such commands may wait without bound: the kernel can cancel them.
    pub const URING_CANCEL: u64 = 1 << 6;
}

/// `sq_enter.flags`.
pub mod enter_flags {
    /// `timeout_ns` bounds the wait.
    pub const TIMEOUT: u32 = 1 << 0;
    /// `sigmask` is the signal mask while waiting.
    pub const SIGMASK: u32 = 1 << 1;
    /// The wait also ends when nothing is in flight and the submission queue is empty.
    pub const WAIT_IDLE: u32 = 1 << 2;
    /// `min_wait_ns` is valid: once it has passed, one completion is enough.
    pub const MIN_WAIT: u32 = 1 << 3;
    /// Every flag there is.
    pub const ALL: u32 = TIMEOUT | SIGMASK | WAIT_IDLE | MIN_WAIT;
}

/// `sq_register.op`: io_uring's numbers, and sq's own from 48 on (below 64: QUERY reports them as bits).
pub mod register_op {
    /// `arg` points at `nr` descriptors (`__s32`, -1 leaves a hole), `IORING_REGISTER_FILES`.
    pub const FILES: u32 = 2;
    /// Forgets the registered files, `IORING_UNREGISTER_FILES`. Requests in flight keep theirs.
    pub const UNREGISTER_FILES: u32 = 3;
    /// `arg` points at one eventfd (`__s32`), `IORING_REGISTER_EVENTFD`.
    pub const EVENTFD: u32 = 4;
    /// Forgets the eventfd, `IORING_UNREGISTER_EVENTFD`.
    pub const UNREGISTER_EVENTFD: u32 = 5;
    /// Replaces `nr` registered files from index `offset`, `IORING_REGISTER_FILES_UPDATE`.
    pub const FILES_UPDATE: u32 = 6;
    /// Enables a ring that was set up with `R_DISABLED`, `IORING_REGISTER_ENABLE_RINGS`.
    pub const ENABLE_RINGS: u32 = 12;
    /// `arg` points at one `__u64`: bit n allows opcode n. The mask can only shrink. sq's own number: io_uring's
    /// `IORING_REGISTER_RESTRICTIONS` (11) takes another argument.
    pub const ALLOW_OPCODES: u32 = 48;
}

/// `sq_state`, written by the drain owner.
pub mod sq_state {
    /// The kernel side sleeps: ring the doorbell after publishing entries, `IORING_SQ_NEED_WAKEUP`.
    pub const NEED_WAKEUP: u32 = 1 << 0;
    /// Entries wait for completion slots: ring the doorbell after reaping.
    pub const CQ_BLOCKED: u32 = 1 << 16;
    /// An `IO_DRAIN` entry waits for earlier requests.
    pub const DRAIN_WAIT: u32 = 1 << 17;
    /// The next entry can only be issued in the ring's own process: ring the doorbell, or wait by ENTER.
    pub const NEED_ENTER: u32 = 1 << 18;
}

/// `cq_flags`, written by the reaper.
pub mod cq_flags {
    /// A hint: do not signal the eventfd, `IORING_CQ_EVENTFD_DISABLED`. Clearing it means: fence, and look again.
    pub const EVENTFD_DISABLED: u32 = 1 << 0;
}

/// Limits. QUERY reports them; applications should not hard-code them.
pub mod limit {
    /// Most submission entries of a ring.
    pub const SQ_ENTRIES: u32 = 32_768;
    /// Most completion entries of a ring.
    pub const CQ_ENTRIES: u32 = 65_536;
    /// Most requests in flight on a ring.
    pub const INFLIGHT: u32 = 32_768;
    /// Most segments of a vectored operation.
    pub const IOV: u32 = 16;
    /// Most io_uring commands of a file in flight.
    pub const COMMANDS: u32 = 128;
    /// Most registered files of a ring.
    pub const FILES: u32 = 4096;
    /// Most buffers in a ring's pool.
    pub const BUFS: u32 = 32_768;
    /// Most bytes of one buffer.
    pub const BUF_BYTES: u32 = 1 << 30;
    /// Most bytes of a ring's pool.
    pub const POOL_BYTES: u64 = 1 << 32;
    /// Longest transfer of one operation, as `MAX_RW_COUNT`.
    pub const TRANSFER_BYTES: u32 = 0x7fff_f000;
}
