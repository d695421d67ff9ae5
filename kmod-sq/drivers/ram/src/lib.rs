// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ram driver: a store in memory, read and written at byte offsets like a small block device.
//!
//! | operation | inside | across the end | at the end or past it |
//! |---|---|---|---|
//! | READ, READV, READ_FIXED | bytes asked for | the bytes up to the end | 0 |
//! | WRITE, WRITEV, WRITE_FIXED | bytes given | the bytes up to the end | `-ENOSPC` |
//! | FSYNC | 0: there is nothing behind the memory | | |
//!
//! A transfer of 0 bytes is 0 wherever it is. An offset above `i64::MAX` is `-EINVAL`, as for files: there is no current
//! position that -1 could mean. A bad user address is `-EFAULT`; segments before it may have been transferred, and what a
//! write should have put in the store from the bad one is zeroed in the kernel, where a copy from a user clears what it could not read.
//!
//! Everything is bounded: a copy of at most `limit::TRANSFER_BYTES`, made once, between the payload and the store, with no lock
//! held (LOCK-1). So two operations on the same bytes at the same time may mix, as on a disk. Nothing here can block, so ASYNC
//! has nothing to avoid; such an entry still becomes a request, which completes before `issue` returns.
//!
//! ```
//! # #[cfg(feature = "std")] {
//! let ram = sq_ram::Ram::in_process(1 << 20)?;
//! # }
//! # Ok::<(), sq_driver::Errno>(())
//! ```
//!
//! In the kernel the store is other memory, by an `unsafe` that vouches for it: `Ram::new(unsafe { Shared::new(start, bytes) })`,
//! or a type that frees it when dropped and implements [`Store`].
#![no_std]
#![deny(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "std")]
mod heap;
#[cfg(target_os = "none")]
#[expect(unsafe_code, reason = "vouching for C")]
mod vmalloc;

#[cfg(feature = "std")]
pub use heap::Heap;

use sq_driver::{Driver, Errno, Issued, Op, Opcodes, Payload, RequestId, Shared, op};

/// Where the bytes are.
pub trait Store: Send + Sync + 'static {
    /// All of them: the same ones at every call.
    fn bytes(&self) -> Shared<'_>;
}

/// Memory that stays for good, or that somebody else frees after the driver is gone.
impl Store for Shared<'static> {
    fn bytes(&self) -> Shared<'_> {
        *self
    }
}

/// The driver.
#[derive(Debug)]
pub struct Ram<S>(S);

impl<S: Store> Ram<S> {
    /// A driver of this store, whatever bytes it holds.
    #[must_use]
    pub const fn new(store: S) -> Self {
        Self(store)
    }

    /// Does one operation, at `off`. The payload is its own, or that of the request it has become.
    #[inline(always)]
    fn run(&self, opcode: u8, off: u64, mut payload: Payload<'_>) -> Result<i32, Errno> {
        match opcode {
            op::READ | op::READV | op::READ_FIXED => {
                let window = self.window(off, payload.left())?;
                transferred(payload.write_from(window)?)
            }
            op::WRITE | op::WRITEV | op::WRITE_FIXED => {
                let window = self.window(off, payload.left())?;
                if window.is_empty() && payload.left() > 0 {
                    return Err(Errno::ENOSPC);
                }
                transferred(payload.read_to(window)?)
            }
            op::FSYNC => Ok(0),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// The part of the store that `want` bytes at `off` cover: less than `want` across the end, nothing past it.
    fn window(&self, off: u64, want: u64) -> Result<Shared<'_>, Errno> {
        if i64::try_from(off).is_err() {
            return Err(Errno::EINVAL);
        }
        Ok(self.0.bytes().window(off, want))
    }
}

/// The framework refuses transfers that are longer than an i32.
fn transferred(bytes: usize) -> Result<i32, Errno> {
    i32::try_from(bytes).map_err(|_| Errno::EIO)
}

impl<S: Store> Driver for Ram<S> {
    const NAME: &'static core::ffi::CStr = c"ram";
    const OPCODES: Opcodes = Opcodes::NONE
        .with(op::READ)
        .with(op::WRITE)
        .with(op::READV)
        .with(op::WRITEV)
        .with(op::READ_FIXED)
        .with(op::WRITE_FIXED)
        .with(op::FSYNC);

    fn issue<'op>(&self, mut op: Op<'op>) -> Issued<'op> {
        let (opcode, off) = (op.entry().opcode(), op.entry().off());
        if op.entry().wants_async() {
            let (mut request, issued) = op.defer();
            let result = self.run(opcode, off, request.payload());
            request.complete(result);
            return issued;
        }
        let result = self.run(opcode, off, op.payload());
        op.finish(result)
    }

    // Nothing is held after `issue` has returned.
    fn cancel(&self, _: RequestId) {}

    fn target_bytes(&self) -> u64 {
        u64::try_from(self.0.bytes().len()).unwrap_or(u64::MAX)
    }
}
