// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system's calls.
#![expect(unsafe_code, reason = "descriptors and addresses come as numbers")]

use core::mem::size_of;
use core::sync::atomic::{AtomicU64, Ordering};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, OFlags, Statx, StatxFlags, fcntl_getfl, fdatasync, fstatfs, fsync, statx};
use rustix::io::{ReadWriteFlags, preadv2, pwritev2};
use sq_driver::Errno;
use sq_driver::abi::{MAX_SEGMENTS, Segment};

use super::{FileIo, Found};
use crate::What;
use crate::files::holds_calls;

/// The system's calls, by rustix.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl FileIo for System {
    unsafe fn look(&self, target: usize, what: What) -> Result<Found, Errno> {
        // What is cached will do, so that a file system that is slow to answer (a network's) is not asked.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::SIZE | StatxFlags::BLOCKS | MNT_ID_UNIQUE;
        // SAFETY: open, by the contract.
        let file = unsafe { descriptor(target) }?;
        let found = statx(file, c"", flags, wanted).map_err(errno)?;
        let kind = FileType::from_raw_mode(found.stx_mode.into());
        let bytes = match kind {
            FileType::RegularFile if stored(file, &found)? => found.stx_size,
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

    unsafe fn read(&self, target: usize, off: u64, to: &[Segment], wait: bool) -> Result<usize, Errno> {
        let mut to = Vector::new(to);
        let flags = if wait { ReadWriteFlags::empty() } else { ReadWriteFlags::NOWAIT };
        // SAFETY: open, by the contract.
        let file = unsafe { descriptor(target) }?;
        // SAFETY: lent for writing, by the contract, and only the system call sees the slices.
        let to = unsafe { to.read() };
        again(|| preadv2(file, to, off, flags))
    }

    /// Not tried without waiting: ext4 and tmpfs refuse `RWF_NOWAIT` for buffered writes, and a copy is faster, where there
    /// is a second CPU, when its writes are made beside its reads (`examples/write_paths.rs`).
    unsafe fn write(&self, target: usize, off: u64, from: &[Segment], wait: bool) -> Result<usize, Errno> {
        if !wait {
            return Err(Errno::EAGAIN);
        }
        let from = Vector::new(from);
        // SAFETY: open, by the contract.
        let file = unsafe { descriptor(target) }?;
        // SAFETY: lent for reading, by the contract, and only the system call sees the slices.
        let from = unsafe { from.write() };
        again(|| pwritev2(file, from, off, ReadWriteFlags::empty()))
    }

    unsafe fn sync(&self, target: usize, data_only: bool) -> Result<(), Errno> {
        // SAFETY: open, by the contract.
        let file = unsafe { descriptor(target) }?;
        if data_only { again(|| fdatasync(file)) } else { again(|| fsync(file)) }
    }
}

/// `STATX_MNT_ID_UNIQUE`, since Linux 6.8: ids of mounts that are never given again.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Whether a regular file is one that holds bytes, not a call to the kernel.
///
/// Those have no blocks and no device behind them. Only of a file that is like them the file system is asked what it is, which may
/// mean a server: so the mount that was last found to be good is remembered, if there is an id that stays its own.
fn stored(file: BorrowedFd<'_>, found: &Statx) -> Result<bool, Errno> {
    static GOOD: AtomicU64 = AtomicU64::new(0);
    if found.stx_dev_major != 0 || found.stx_blocks != 0 {
        return Ok(true);
    }
    let unique = found.stx_mask & MNT_ID_UNIQUE.bits() != 0;
    // Relaxed: the id is all there is to know.
    if unique && GOOD.load(Ordering::Relaxed) == found.stx_mnt_id {
        return Ok(true);
    }
    let magic = again(|| fstatfs(file))?.f_type;
    let good = !u64::try_from(magic).is_ok_and(holds_calls);
    if good && unique {
        GOOD.store(found.stx_mnt_id, Ordering::Relaxed);
    }
    Ok(good)
}

/// The descriptor of an operation in progress.
///
/// # Safety
///
/// It is open for 'a.
unsafe fn descriptor<'a>(target: usize) -> Result<BorrowedFd<'a>, Errno> {
    let fd = target.checked_sub(1).and_then(|fd| i32::try_from(fd).ok()).ok_or(Errno::EBADF)?;
    // SAFETY: not -1, and the contract.
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

    /// # Safety
    ///
    /// The segments may be written, and the slices are handed to a system call only: others may be using the bytes.
    unsafe fn read(&mut self) -> &mut [IoSliceMut<'_>] {
        let start = self.iov.as_mut_ptr().cast();
        // SAFETY: an IoSliceMut has the ABI of an iovec: an address and a length, asserted above; `len` of them are initialised.
        // It holds the address as a raw pointer, and nobody follows it in this process (contract).
        unsafe { core::slice::from_raw_parts_mut(start, self.len) }
    }

    /// # Safety
    ///
    /// The segments may be read, and the slices are handed to a system call only.
    unsafe fn write(&self) -> &[IoSlice<'_>] {
        let start = self.iov.as_ptr().cast();
        // SAFETY: as in `read`.
        unsafe { core::slice::from_raw_parts(start, self.len) }
    }
}
