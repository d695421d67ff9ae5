// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device without a ring.

use sq_uapi::{Errno, ioctl};

use crate::backend::Door;
use crate::entry::{Entry, RawEntry};

/// A device that was opened without a ring: one entry at a time, one call each. Made by [`Backend::open`](crate::Backend::open).
///
/// It is what a plain `ioctl` would be to the driver, with the entries of a ring: the way for the odd operation of a program that has
/// no use for a queue. Any number of threads may issue at the same time.
///
/// ```
/// use liburing_shm::{Backend, opcode};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = Backend::embedded(sq_null::Null)?.open()?;
/// assert_eq!(device.issue(&opcode::Nop::new().build())?, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Device(pub(crate) Box<dyn Door>);

impl Device {
    /// Issues one entry and waits for its result. `user_data` is not looked at.
    ///
    /// # Errors
    ///
    /// The operation's. `EINVAL` for what only a ring can do: pool buffers, registered files, cancels, flags other than
    /// [`ASYNC`](crate::SqeFlags::ASYNC), entries of 128 bytes. `EINTR` if a signal canceled it (a module's device; an embedded one
    /// goes on waiting).
    pub fn issue(&self, entry: &Entry) -> Result<u32, Errno> {
        issue(&*self.0, entry)
    }

    /// Issues one entry with raw addresses and waits for its result. Nothing is read or written there after it has returned.
    ///
    /// # Safety
    ///
    /// During the call the addresses in the entry may be read and written as its opcode says.
    ///
    /// # Errors
    ///
    /// As [`Device::issue`].
    pub unsafe fn issue_raw(&self, entry: &RawEntry) -> Result<u32, Errno> {
        issue(&*self.0, &entry.0)
    }
}

/// An entry as the bytes of a call.
pub(crate) fn issue(door: &dyn Door, entry: &Entry) -> Result<u32, Errno> {
    if entry.rest.is_some() {
        return Err(Errno::EINVAL);
    }
    let mut bytes = [0; size_of::<sq_uapi::Sqe>()];
    for (to, word) in bytes.chunks_exact_mut(8).zip(entry.sqe.to_words()) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    door.call(ioctl::ISSUE, &mut bytes)
}
