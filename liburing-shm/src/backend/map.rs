// SPDX-License-Identifier: MIT OR Apache-2.0
//! One shared mapping.

use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use rustix::process::{Pid, getpid};

/// A shared mapping of a part of a file. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Map {
    start: NonNull<u8>,
    len: usize,
    /// Whose it is: in a forked child there is nothing at the address, or by now something else.
    owner: Pid,
}

// SAFETY: a mapping is memory of the process, not of a thread; what may be done with it is up to who uses the address.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `len` bytes at `offset` of `fd`, readable, and writable if `write`.
    pub(crate) fn new(fd: BorrowedFd<'_>, offset: u64, len: usize, write: bool) -> Result<Self, Errno> {
        let prot = if write { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping, at an address that the kernel chooses, aliases nothing.
        let start = unsafe { mmap(ptr::null_mut(), len, prot, MapFlags::SHARED, fd, offset) }?;
        // A mapping is never at 0 unless one asks for it.
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        let map = Self { start, len, owner: getpid() };
        // LIFE-4: a child does not inherit it, so that two processes cannot drive one ring.
        // SAFETY: the range is this mapping, and no Rust object is in it.
        unsafe { madvise(map.start.as_ptr().cast(), len, Advice::LinuxDontFork) }?;
        Ok(map)
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if getpid() != self.owner {
            return;
        }
        // SAFETY: in this process the mapping is this value's own, and who uses the address keeps the value.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}
