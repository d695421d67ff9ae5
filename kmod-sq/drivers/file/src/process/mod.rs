// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of this process.
//!
//! ```text
//!   issue --> FileIo::read, not waiting --> done
//!                 | would wait
//!                 v
//!   queue of the file --> at most 8 threads a file (2 for buffered writes), 64 in all --> FileIo, waiting --> done
//! ```
//!
//! # What an application should know
//!
//! - A write past the process's `RLIMIT_FSIZE` is `-EFBIG` and raises SIGXFSZ in a thread of this process, which ends it unless the
//!   signal is ignored or handled: as with plain `pwrite`. SIGPIPE is not raised: pipes and sockets are refused.
//! - Signals to the process as a whole may be handled on the driver's threads, as on any thread that does not block them; a
//!   call that is interrupted is made again.
//! - A descriptor opened with `O_APPEND` appends, whatever the offset: Linux has it so.
//! - Started I/O cannot be taken back. A canceled operation that was started runs to its end, and its memory is in use until then.
//! - Of a file that hangs (a dead network file system) at most 10 operations hang with it; all others go on.
#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory, and differences of what was compared")]
#![allow(clippy::as_conversions, reason = "usize has 64 bits here: widening")]

mod lanes;
mod system;
mod threads;

use sq_driver::Errno;
use sq_driver::abi::Segment;

use crate::{File, What};

pub use lanes::Limits;
pub use system::System;
pub use threads::Threads;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Device and inode: the same for all descriptors of a file.
    pub key: (u64, u64),
    /// The file system does operations of this kind on it one at a time: more threads would only wait for each other.
    pub in_turn: bool,
    /// Its size when the operation began, 0 if that is not known.
    pub bytes: u64,
}

/// The calls that reach a file: the system's, or a test's.
///
/// `target` is what [`Op::target`](sq_driver::Op::target) is, a descriptor plus 1. The segments are addresses
/// in this process that others may be using, so there are no slices of them here. A call that may not `wait` returns
/// `EAGAIN` where it would; one that may is made on a thread of the driver's, and one that panics there is an `EIO`.
///
/// # Safety
///
/// That of all its functions: they act on numbers, and whoever calls them holds the operation that the numbers are of.
///
/// - *Open*: the descriptor is open during the call, and its owner lent it for that.
/// - *Lent*: the segments are those of the operation's payload, or parts of them: memory that may be written (`read`) or read
///   (`write`) during the call. There may be bad addresses among them if using these is an error and no more, `EFAULT`.
///
/// ```compile_fail,E0133
/// use sq_file::process::{FileIo, System};
/// // Whose descriptor is that?
/// let found = System.look(8, sq_file::What::Read);
/// ```
#[expect(unsafe_code, reason = "descriptors and addresses come as numbers")]
pub trait FileIo: Send + Sync + 'static {
    /// What the target is, for an operation of this kind. Does not wait.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if it is neither a regular file nor a block device, or if operations on it might never end.
    ///
    /// # Safety
    ///
    /// *Open*.
    unsafe fn look(&self, target: usize, what: What) -> Result<Found, Errno>;

    /// Reads from byte `off` of the file. 0 is the end of it.
    ///
    /// # Errors
    ///
    /// Those of `preadv2`.
    ///
    /// # Safety
    ///
    /// *Open*, and *Lent* for writing to `to`.
    unsafe fn read(&self, target: usize, off: u64, to: &[Segment], wait: bool) -> Result<usize, Errno>;

    /// Writes from byte `off` of the file.
    ///
    /// # Errors
    ///
    /// Those of `pwritev2`.
    ///
    /// # Safety
    ///
    /// *Open*, and *Lent* for reading `from`.
    unsafe fn write(&self, target: usize, off: u64, from: &[Segment], wait: bool) -> Result<usize, Errno>;

    /// Flushes. Always waits.
    ///
    /// # Errors
    ///
    /// Those of `fsync`, or with `data_only` of `fdatasync`.
    ///
    /// # Safety
    ///
    /// *Open*.
    unsafe fn sync(&self, target: usize, data_only: bool) -> Result<(), Errno>;
}

impl File<Threads<System>> {
    /// A driver of this process's files, with the default [`Limits`]. It starts no thread before it needs one.
    #[must_use]
    pub fn in_process() -> Self {
        Self::new(Threads::new(System, Limits::default()))
    }
}
