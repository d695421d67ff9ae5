// SPDX-License-Identifier: MIT OR Apache-2.0
//! Typed flag sets over [`consts`](crate::consts).
//!
//! No set declares "all other bits": `from_bits` refuses what it does not know.

use bitflags::bitflags;

use crate::consts::{cancel_flags, cqe_flags, features, fsync_flags, setup_flags, sqe_flags};

bitflags! {
    /// `sqe.flags`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SqeFlags: u8 {
        /// `fd` is an index into the registered files.
        const FIXED_FILE = sqe_flags::FIXED_FILE;
        /// Wait for all earlier requests.
        const IO_DRAIN = sqe_flags::IO_DRAIN;
        /// Link the next entry.
        const IO_LINK = sqe_flags::IO_LINK;
        /// Link the next entry whatever the result.
        const IO_HARDLINK = sqe_flags::IO_HARDLINK;
        /// Defer at once.
        const ASYNC = sqe_flags::ASYNC;
        /// No completion on success.
        const CQE_SKIP_SUCCESS = sqe_flags::CQE_SKIP_SUCCESS;
    }

    /// `cqe.flags`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct CqeFlags: u32 {
        /// More completions of this request follow.
        const F_MORE = cqe_flags::F_MORE;
    }

    /// `sq_setup.flags`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SetupFlags: u32 {
        /// A thread polls the submission queue.
        const SQPOLL = setup_flags::SQPOLL;
        /// The polling thread is bound to a CPU.
        const SQ_AFF = setup_flags::SQ_AFF;
        /// Sizes over the limit are lowered to it.
        const CLAMP = setup_flags::CLAMP;
        /// Nothing is accepted until the ring is enabled.
        const R_DISABLED = setup_flags::R_DISABLED;
        /// 128-byte entries.
        const SQE128 = setup_flags::SQE128;
        /// 32-byte completions.
        const CQE32 = setup_flags::CQE32;
        /// A worker drains the ring.
        const WORKER = setup_flags::WORKER;
    }

    /// Features of a device or ring.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Features: u64 {
        /// The kernel-written region can only be mapped read-only.
        const KERNEL_RDONLY = features::KERNEL_RDONLY;
        /// The ring has a buffer pool.
        const BUF_POOL = features::BUF_POOL;
        /// The driver takes file descriptors.
        const FILES = features::FILES;
        /// The kernel side runs inside this process.
        const EMBEDDED = features::EMBEDDED;
        /// One entry a call, with or without a ring.
        const ISSUE = features::ISSUE;
        /// One entry an io_uring command.
        const URING_CMD = features::URING_CMD;
        /// Such commands may wait without bound.
        const URING_CANCEL = features::URING_CANCEL;
    }

    /// `op_flags` of FSYNC.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct FsyncFlags: u32 {
        /// Data only.
        const DATASYNC = fsync_flags::DATASYNC;
    }

    /// What a cancel matches.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct CancelFlags: u32 {
        /// All that match.
        const ALL = cancel_flags::ALL;
        /// Whatever is in flight.
        const ANY = cancel_flags::ANY;
        /// Match `user_data`.
        const USERDATA = cancel_flags::USERDATA;
        /// Match the opcode.
        const OP = cancel_flags::OP;
    }
}

#[cfg(test)]
mod tests {
    use super::{CancelFlags, SetupFlags, SqeFlags};

    #[test]
    fn unknown_bits_are_refused() {
        assert_eq!(SqeFlags::from_bits(0x80), None);
        assert_eq!(SqeFlags::from_bits(0x20), None);
        assert_eq!(SetupFlags::from_bits(1), None);
        assert_eq!(CancelFlags::from_bits(2), None);
    }
}
