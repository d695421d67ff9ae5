// SPDX-License-Identifier: MIT OR Apache-2.0
//! All that the author of an sq driver imports.
//!
//! A driver is a value that implements [`Driver`]. The framework hands it one operation at a time, [`Op`]: a private
//! copy of the entry, already parsed (what the opcode does not use is known to be zero), and a forward-only cursor over
//! the payload. The driver answers with an [`Issued`]: either the result, or the promise that the owned
//! [`Request`] it took by [`Op::defer`] will be completed later, from any thread or interrupt.
//!
//! ```
//! use sq_driver::{Driver, Issued, Op, Opcodes, RequestId};
//!
//! /// Answers every NOP with 0.
//! struct Null;
//!
//! impl Driver for Null {
//!     const NAME: &'static core::ffi::CStr = c"null";
//!     const OPCODES: Opcodes = Opcodes::NONE.with(sq_driver::op::NOP);
//!
//!     fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
//!         op.done(0)
//!     }
//!
//!     // Every operation completes inline: there is never anything to cancel.
//!     fn cancel(&self, _: RequestId) {}
//! }
//! ```
//!
//! # Where the callbacks run
//!
//! | callback | context | may sleep |
//! |---|---|---|
//! | [`Driver::issue`] | the submitter's, a worker's or the polling thread's; never concurrently for one ring | yes, but it stalls its ring |
//! | [`Driver::cancel`] | any process context; concurrently with everything | no |
//! | [`Driver::begin`], [`Driver::commit`] | around the `issue` calls of one batch | as `issue` |
//! | [`Request::complete`] | called by the driver: any thread, softirq or hard interrupt | does not |
//!
//! A request that an interrupt and a cancel both want lies in a [`Slot`]. docs/driver-guide.md has all of this at length.
//!
//! # A module of it
//!
//! [`declare_driver!`] in the driver's crate, a C file with `module_sq_rust_driver()`, and `kmod-sq/driver.mk`; `cargo xtask
//! new-driver` writes them. In a process the same crate goes to `Backend::embedded`.
//!
//! # What it does not do
//!
//! It never gives out a reference to memory that user space can write (SNAP-2, SNAP-4), and it is not generic over
//! where it runs: the same driver source is linked into a process and into a module. Between the two sides stands the
//! C table in [`abi`], which is also what a driver written in C fills in.
//!
//! A panic in a callback aborts the process, as it stops the kernel.
#![no_std]

pub mod abi;
mod declare;
mod issue;
#[cfg(target_os = "none")]
mod panic;
mod payload;
mod request;
mod slot;
mod sync;
mod table;

pub use issue::{Entry, Issued, Op};
pub use payload::{Payload, Shared};
pub use request::{Request, RequestId};
pub use slot::Slot;
pub use sq_uapi::consts::{fsync_flags, op};
pub use sq_uapi::{Command, Errno, command};
pub use table::{Bound, table};

/// The opcodes that a driver takes, as a set of numbers below 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcodes(u64);

impl Opcodes {
    /// No opcode.
    pub const NONE: Self = Self(0);

    /// This set and `opcode`.
    ///
    /// # Panics
    ///
    /// If `opcode` is 64 or more; in a constant that is a compile error.
    #[must_use]
    pub const fn with(self, opcode: u8) -> Self {
        assert!(opcode < 64, "opcodes are below 64");
        Self(self.0 | 1 << opcode)
    }

    /// The set as bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// A device behind a ring.
///
/// An operation is either *bounded* (it finishes without user space doing anything) or [`Driver::cancel`] makes it
/// finish in finite time. There is no third kind, so `cancel` has no default.
pub trait Driver: Send + Sync + 'static {
    /// Name, at most 15 bytes: the device is `/dev/sqNAME`.
    const NAME: &'static core::ffi::CStr;

    /// The opcodes that [`Driver::issue`] is called with. Others are refused with `-EOPNOTSUPP` before.
    const OPCODES: Opcodes;

    /// Whether `fd` names a file ([`Op::target`]). If not, `fd` must be -1.
    const FILES: bool = false;

    /// Starts an operation.
    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op>;

    /// Makes the deferred request `id` finish in finite time, if this driver still has it.
    ///
    /// The request may be completed concurrently, or be gone already: then there is nothing to do. Whoever holds the
    /// [`Request`] completes it, so it has one outcome whichever side wins (CAN-1).
    fn cancel(&self, id: RequestId);

    /// Called before the first [`Driver::issue`] of a batch, if [`Driver::BATCHES`] says so.
    fn begin(&self) {}

    /// Called after the last [`Driver::issue`] of a batch: the place to ring a device's own doorbell, once.
    fn commit(&self) {}

    /// Whether [`Driver::begin`] and [`Driver::commit`] are called.
    const BATCHES: bool = false;

    /// Bytes of the target, or 0 if it has no size. QUERY reports it.
    fn target_bytes(&self) -> u64 {
        0
    }
}
