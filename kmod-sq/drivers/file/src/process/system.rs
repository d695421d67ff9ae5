// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system's calls.
#![expect(unsafe_code, reason = "descriptors and addresses come as numbers")]

use core::mem::size_of;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags, fcntl_getfl, fdatasync, fsync, statx};
use rustix::io::{ReadWriteFlags, preadv2, pwritev2};
use sq_driver::Errno;
use sq_driver::abi::{MAX_SEGMENTS, Segment};

use super::{FileIo, Found};
use crate::What;

/// The system's calls, by rustix.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl FileIo for System {
    fn look(&self, target: usize, what: What) -> Result<Found, Errno> {
        // What is cached will do, so that a file system that is slow to answer (a network's) is not asked.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::SIZE;
        let file = descriptor(target)?;
        let found = statx(file, c"", flags, wanted).map_err(errno)?;
        let kind = FileType::from_raw_mode(found.stx_mode.into());
        let bytes = match kind {
            FileType::RegularFile => found.stx_size,
            FileType::BlockDevice => 0,
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let device = u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor);
        // Buffered writes hold the inode's lock from end to end.
        let in_turn = what == What::Write
            && kind == FileType::RegularFile
            && !fcntl_getfl(file).map_err(errno)?.contains(OFlags::DIRECT);
        Ok(Found { key: (device, found.stx_ino), in_turn, bytes })
    }

    fn read(&self, target: usize, off: u64, to: &[Segment], wait: bool) -> Result<usize, Errno> {
        let mut to = Vector::new(to);
        let flags = if wait { ReadWriteFlags::empty() } else { ReadWriteFlags::NOWAIT };
        let file = descriptor(target)?;
        again(|| preadv2(file, to.read(), off, flags))
    }

    /// Not tried without waiting: ext4 and tmpfs refuse `RWF_NOWAIT` for buffered writes, and a copy is faster, where there
    /// is a second CPU, when its writes are made beside its reads (`examples/write_paths.rs`).
    fn write(&self, target: usize, off: u64, from: &[Segment], wait: bool) -> Result<usize, Errno> {
        if !wait {
            return Err(Errno::EAGAIN);
        }
        let from = Vector::new(from);
        let file = descriptor(target)?;
        again(|| pwritev2(file, from.write(), off, ReadWriteFlags::empty()))
    }

    fn sync(&self, target: usize, data_only: bool) -> Result<(), Errno> {
        let file = descriptor(target)?;
        if data_only { again(|| fdatasync(file)) } else { again(|| fsync(file)) }
    }
}

/// The descriptor of an operation in progress.
fn descriptor<'a>(target: usize) -> Result<BorrowedFd<'a>, Errno> {
    let fd = target.checked_sub(1).and_then(|fd| i32::try_from(fd).ok()).ok_or(Errno::EBADF)?;
    // SAFETY: not -1. The framework keeps a descriptor of its own open for the operation (`Op::target`, `Request::target`), and
    // the callers use this only while they hold that.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Makes a call until no signal interrupts it.
fn again<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map_err(errno),
        }
    }
}

fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::new(errno.raw_os_error()).unwrap_or(Errno::EIO)
}

/// Segments as the system's vector. The addresses stay numbers: only the kernel follows them, and reports a bad one.
struct Vector {
    iov: [Segment; MAX_SEGMENTS],
    len: usize,
}

// A segment is laid out as the system's iovec, which is what an IoSlice is guaranteed to be.
const _: () = assert!(size_of::<Segment>() == size_of::<IoSlice<'_>>());
const _: () = assert!(align_of::<Segment>() == align_of::<IoSlice<'_>>());
const _: () = assert!(size_of::<usize>() == size_of::<u64>());

impl Vector {
    fn new(segments: &[Segment]) -> Self {
        let mut iov = [Segment::default(); MAX_SEGMENTS];
        let len = segments.len().min(MAX_SEGMENTS);
        for (to, from) in iov.iter_mut().zip(segments) {
            *to = *from;
        }
        Self { iov, len }
    }

    fn read(&mut self) -> &mut [IoSliceMut<'_>] {
        let start = self.iov.as_mut_ptr().cast();
        // SAFETY: an IoSliceMut has the ABI of an iovec: an address and a length, asserted above; `len` of them are initialised.
        // It holds the address as a raw pointer and is never dereferenced here, only handed to preadv2.
        unsafe { core::slice::from_raw_parts_mut(start, self.len) }
    }

    fn write(&self) -> &[IoSlice<'_>] {
        let start = self.iov.as_ptr().cast();
        // SAFETY: as in `read`, for pwritev2.
        unsafe { core::slice::from_raw_parts(start, self.len) }
    }
}
