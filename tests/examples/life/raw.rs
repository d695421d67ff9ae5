// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ring without the library, so that everything about it can be wrong.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use sq_uapi::consts::{enter_flags, op, setup_flags};
use sq_uapi::{SqEnter, SqRegion, SqRegister, SqSetup, SqStats, ioctl};

pub(crate) const NULL: &str = "/dev/sqnull";

/// Modes that the module has, by the flags of SETUP.
pub(crate) const MODES: [u32; 3] = [0, setup_flags::WORKER, setup_flags::SQPOLL];

/// Each mode in its turn; the polling thread, which costs as much as all else, less often.
pub(crate) fn some_mode(turn: u32) -> u32 {
    if turn.is_multiple_of(8) { MODES[2] } else { MODES[turn as usize % 2] }
}

/// An errno or a result.
pub(crate) type Res = Result<i32, i32>;

pub(crate) fn last() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub(crate) fn res(value: i32) -> Res {
    if value < 0 { Err(last()) } else { Ok(value) }
}

/// Any ioctl with any argument: what it points to is the test's business.
pub(crate) fn ioctl(fd: RawFd, number: u32, arg: usize) -> Res {
    // SAFETY: a system call. On our files it reads and writes user memory at `arg` as the argument's size says: callers
    // pass what is large enough, or addresses where the process has nothing.
    res(unsafe { libc::ioctl(fd, number.into(), arg) })
}

/// An ioctl with a structure.
pub(crate) fn call<T>(fd: RawFd, number: u32, arg: &mut T) -> Res {
    ioctl(fd, number, ptr::from_mut(arg).expose_provenance())
}

pub(crate) fn open(node: &str) -> Result<OwnedFd, i32> {
    let path = CString::new(node).map_err(|_| libc::EINVAL)?;
    // SAFETY: a NUL-terminated path.
    let fd = res(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) })?;
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// For a field of a structure that the kernel is to follow.
pub(crate) fn address<T>(of: &T) -> u64 {
    ptr::from_ref(of).expose_provenance() as u64
}

/// A shared mapping, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) at: *mut u8,
    pub(crate) len: usize,
}

// SAFETY: a mapping belongs to the process.
unsafe impl Send for Map {}
// SAFETY: as above; its words are accessed as atomics.
unsafe impl Sync for Map {}

impl Map {
    pub(crate) fn new(fd: RawFd, region: SqRegion, prot: i32) -> Result<Self, i32> {
        let len = region.size as usize;
        // SAFETY: a new mapping, where the kernel likes.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, region.offset as i64) };
        if at == libc::MAP_FAILED { Err(last()) } else { Ok(Self { at: at.cast(), len }) }
    }

    pub(crate) fn word(&self, offset: u32) -> &AtomicU32 {
        assert!(offset as usize + 4 <= self.len);
        let place = self.at.wrapping_add(offset as usize).cast();
        // SAFETY: inside the mapping and aligned; both sides of a ring use atomics.
        unsafe { AtomicU32::from_ptr(place) }
    }

    pub(crate) fn long(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + 8 <= self.len);
        let place = self.at.wrapping_add(offset).cast();
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(place) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping; references into it borrow the value.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// A ring. Fields are dropped in order: the file goes last.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) user: Map,
    pub(crate) kernel: Map,
    pub(crate) setup: SqSetup,
    pub(crate) tail: u32,
    pub(crate) head: u32,
    pub(crate) fd: OwnedFd,
}

pub(crate) fn shape(sq_entries: u32, flags: u32) -> SqSetup {
    SqSetup { size: size_of::<SqSetup>() as u32, sq_entries, flags, ..SqSetup::default() }
}

/// SETUP alone.
pub(crate) fn set_up(node: &str, setup: &mut SqSetup) -> Result<OwnedFd, i32> {
    let fd = open(node)?;
    call(fd.as_raw_fd(), ioctl::SETUP, setup)?;
    Ok(fd)
}

impl Raw {
    pub(crate) fn new(node: &str, mut setup: SqSetup) -> Result<Self, i32> {
        let fd = set_up(node, &mut setup)?;
        Self::over(fd, setup)
    }

    /// Maps a ring that was set up.
    pub(crate) fn over(fd: OwnedFd, setup: SqSetup) -> Result<Self, i32> {
        let user = Map::new(fd.as_raw_fd(), setup.user, libc::PROT_READ | libc::PROT_WRITE)?;
        let kernel = Map::new(fd.as_raw_fd(), setup.kernel, libc::PROT_READ)?;
        Ok(Self { user, kernel, setup, tail: 0, head: 0, fd })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Writes an entry and publishes it.
    pub(crate) fn push(&mut self, words: [u64; 8]) {
        let at = self.setup.offsets.sqes as usize + (self.tail & (self.setup.sq_entries - 1)) as usize * 64;
        for (i, word) in words.into_iter().enumerate() {
            self.user.long(at + i * 8).store(word, Ordering::Relaxed);
        }
        self.tail = self.tail.wrapping_add(1);
        self.user.word(self.setup.offsets.sq_tail).store(self.tail, Ordering::Release);
    }

    /// The bare doorbell.
    pub(crate) fn bell(&self) -> Res {
        ioctl(self.raw(), ioctl::ENTER, 0)
    }

    /// Waits for `count` completions; how the wait ended.
    pub(crate) fn wait(&self, count: u32, timeout_ms: u64) -> Res {
        enter(self.raw(), count, timeout_ms)
    }

    pub(crate) fn reap(&mut self) -> Vec<(u64, i32)> {
        let offsets = self.setup.offsets;
        let tail = self.kernel.word(offsets.cq_tail).load(Ordering::Acquire);
        let mut done = Vec::new();
        while self.head != tail {
            let at = offsets.cqes as usize + (self.head & (self.setup.cq_entries - 1)) as usize * 16;
            let user_data = self.kernel.long(at).load(Ordering::Relaxed);
            done.push((user_data, self.kernel.long(at + 8).load(Ordering::Relaxed) as u32 as i32));
            self.head = self.head.wrapping_add(1);
        }
        self.user.word(offsets.cq_head).store(self.head, Ordering::Release);
        done
    }

    /// Of a ring they can always be had, whatever became of it.
    #[track_caller]
    pub(crate) fn stats(&self) -> SqStats {
        stats(self.raw()).unwrap_or_else(|errno| panic!("STATS: error {errno}"))
    }
}

pub(crate) fn stats(fd: RawFd) -> Result<SqStats, i32> {
    let mut stats = SqStats { size: size_of::<SqStats>() as u32, ..SqStats::default() };
    call(fd, ioctl::STATS, &mut stats).map(|_| stats)
}

/// ENTER with a wait: how the wait ended, or how the call did.
pub(crate) fn enter(fd: RawFd, min_complete: u32, timeout_ms: u64) -> Res {
    let mut arg = SqEnter {
        size: size_of::<SqEnter>() as u32,
        flags: enter_flags::TIMEOUT,
        min_complete,
        timeout_ns: timeout_ms * 1_000_000,
        ..SqEnter::default()
    };
    call(fd, ioctl::ENTER, &mut arg)?;
    if arg.wait_result < 0 { Err(-arg.wait_result) } else { Ok(arg.wait_result) }
}

pub(crate) fn register(fd: RawFd, op: u32, arg: u64, nr: u32) -> Res {
    let mut reg = SqRegister { size: size_of::<SqRegister>() as u32, op, arg, nr, ..SqRegister::default() };
    call(fd, ioctl::REGISTER, &mut reg)
}

const NO_FD: u64 = 0xffff_ffff << 32;

pub(crate) fn nop(user_data: u64) -> [u64; 8] {
    [NO_FD, 0, 0, 0, user_data, 0, 0, 0]
}

pub(crate) fn command(op: u32, user_data: u64, first: u64, second: u64) -> [u64; 8] {
    [46 | NO_FD, op.into(), 0, 0, user_data, 0, first, second]
}

pub(crate) fn echo(user_data: u64, value: u64) -> [u64; 8] {
    command(sq_null::cmd::ECHO, user_data, value, 0)
}

pub(crate) fn delay(user_data: u64, ns: u64) -> [u64; 8] {
    command(sq_null::cmd::DELAY, user_data, ns, 0)
}

pub(crate) fn never(user_data: u64) -> [u64; 8] {
    command(sq_null::cmd::NEVER, user_data, 0, 0)
}

/// An ASYNC_CANCEL of everything.
pub(crate) fn cancel_any(user_data: u64) -> [u64; 8] {
    [14 | NO_FD, 0, 0, 4 << 32, user_data, 0, 0, 0]
}

pub(crate) const READ: u64 = op::READ as u64;
pub(crate) const WRITE: u64 = op::WRITE as u64;

/// READ or WRITE of `len` bytes at `addr`, from byte 0 of a target that has no descriptor.
pub(crate) fn transfer(opcode: u64, user_data: u64, addr: u64, len: u64) -> [u64; 8] {
    [opcode | NO_FD, 0, addr, len, user_data, 0, 0, 0]
}
