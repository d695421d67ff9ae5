// SPDX-License-Identifier: MIT OR Apache-2.0
//! The surroundings of a ring in a process.

use std::any::Any;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use kmod_sq::{Abilities, Host, HostFile, Lock, Notify, Ring, Waited};
use rustix::event::{PollFd, PollFlags};
use rustix::time::{ClockId, clock_gettime};
use sq_uapi::consts::{enter_flags, features, setup_flags};
use sq_uapi::{Errno, Mapped, copy_shared};

use super::background::{self, Background};
use super::memory::Memory;

/// The process around one ring.
pub(super) struct ProcessHost {
    /// Held while somebody decides whether to sleep; see `wait`.
    sleepers: Mutex<()>,
    wake: Condvar,
    eventfd: Mutex<Option<OwnedFd>>,
    background: Background,
    _driver: Arc<dyn Any + Send + Sync>,
    _memory: Arc<Memory>,
}

impl ProcessHost {
    pub(super) fn new(memory: Arc<Memory>, driver: Arc<dyn Any + Send + Sync>) -> Self {
        Self {
            sleepers: Mutex::default(),
            wake: Condvar::new(),
            eventfd: Mutex::default(),
            background: Background::default(),
            _driver: driver,
            _memory: memory,
        }
    }

    pub(super) fn background(&self) -> &Background {
        &self.background
    }
}

/// No code here panics with a lock held; if a callee does, the data is still whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A short lock.
pub(super) struct ShortLock<T>(Mutex<T>);

impl<T> Lock<T> for ShortLock<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut lock(&self.0))
    }

    fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        match self.0.try_lock() {
            Ok(mut value) => Some(f(&mut value)),
            Err(TryLockError::Poisoned(value)) => Some(f(&mut value.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// An open file: a descriptor of its own, so that the application may close or reuse its number meanwhile.
#[derive(Clone, Debug)]
pub(super) struct ProcessFile(Arc<OwnedFd>);

impl ProcessFile {
    pub(super) fn of(fd: i32) -> Result<Self, Errno> {
        if fd < 0 {
            return Err(Errno::EBADF);
        }
        // SAFETY: only lent to fcntl, which checks it.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let own = rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(errno)?;
        Ok(Self(Arc::new(own)))
    }
}

impl HostFile for ProcessFile {
    fn target(&self) -> usize {
        usize::try_from(self.0.as_raw_fd()).map_or(0, |fd| fd.saturating_add(1))
    }
}

/// How often whoever waits tries to start a thread that the ring lacks.
const RETRY_NS: u64 = 50_000_000;

impl Host for ProcessHost {
    /// All but the signal mask: a process cannot sleep and change its mask in one step, without a system call for it.
    const ABILITIES: Abilities = Abilities {
        features: features::EMBEDDED,
        setup_flags: setup_flags::ALL,
        enter_flags: enter_flags::ALL & !enter_flags::SIGMASK,
    };

    type Mem = Mapped;
    type Lock<T: Send> = ShortLock<T>;
    type Array<T: Send> = Box<[T]>;
    type File = ProcessFile;

    fn array<T: Send>(len: usize, make: impl FnMut(usize) -> T) -> Result<Box<[T]>, Errno> {
        let mut items = Vec::new();
        items.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        items.extend((0..len).map(make));
        Ok(items.into_boxed_slice())
    }

    unsafe fn copy_from_user(&self, dst: *mut u8, addr: u64, len: usize) -> Result<(), Errno> {
        // SAFETY: the contract.
        unsafe { copy_in(dst, addr, len) }
    }

    unsafe fn copy_to_user(&self, addr: u64, src: *const u8, len: usize) -> Result<(), Errno> {
        // SAFETY: the contract.
        unsafe { copy_out(addr, src, len) }
    }

    fn file(&self, fd: i32) -> Result<ProcessFile, Errno> {
        ProcessFile::of(fd)
    }

    fn set_eventfd(&self, fd: Option<i32>) -> Result<(), Errno> {
        let own = match fd {
            None => None,
            Some(fd) => {
                let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).map_err(|_| Errno::EBADF)?;
                if link.as_os_str() != "anon_inode:[eventfd]" {
                    return Err(Errno::EINVAL);
                }
                // SAFETY: only lent to fcntl, which checks it.
                let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                Some(rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(errno)?)
            }
        };
        let mut eventfd = lock(&self.eventfd);
        match (&own, &*eventfd) {
            (Some(_), Some(_)) => Err(Errno::EBUSY),
            (None, None) => Err(Errno::ENXIO),
            _ => {
                *eventfd = own;
                Ok(())
            }
        }
    }

    fn notify(&self, whom: Notify) {
        if whom.waiters {
            // Taken, so that a sleeper that has just looked is asleep before it is woken.
            drop(lock(&self.sleepers));
            self.wake.notify_all();
        }
        if whom.eventfd
            && let Some(fd) = &*lock(&self.eventfd)
        {
            // When its counter is full, the reader has enough to wake up to, and a write could block.
            let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut room = [PollFd::new(fd, PollFlags::OUT)];
            if rustix::event::poll(&mut room, Some(&now)).is_ok_and(|n| n == 1) {
                let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
            }
        }
    }

    fn work(ring: &Ring<Self>) {
        background::ring(ring);
    }

    fn alarm(ring: &Ring<Self>, at_ns: u64) {
        background::alarm(ring, at_ns);
    }

    fn now_ns(&self) -> u64 {
        now_ns()
    }

    fn wait(&self, deadline: Option<u64>, ready: &mut dyn FnMut() -> bool) -> Waited {
        let mut guard = lock(&self.sleepers);
        loop {
            // `ready` takes the completion lock; nobody takes `sleepers` with that one held.
            if ready() {
                return Waited::Ready;
            }
            // Nobody says when there can be a thread again.
            let retry = self.background.lacks_thread().then(|| now_ns().saturating_add(RETRY_NS));
            guard = match deadline.into_iter().chain(retry).min() {
                None => self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let now = now_ns();
                    if deadline.is_some_and(|deadline| deadline <= now) {
                        return Waited::Timeout;
                    }
                    let left = at.saturating_sub(now);
                    self.wake.wait_timeout(guard, Duration::from_nanos(left)).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    unsafe fn free(ring: NonNull<Ring<Self>>) {
        // SAFETY: rings of this host are leaked boxes, and this was the last reference.
        drop(unsafe { Box::from_raw(ring.as_ptr()) });
    }
}

/// # Safety
///
/// `dst` is writable for `len` bytes.
pub(super) unsafe fn copy_in(dst: *mut u8, addr: u64, len: usize) -> Result<(), Errno> {
    let src = user_pointer(addr, len)?;
    // SAFETY: an entry with a raw address is pushed by `unsafe` code that vouches for it; `dst` by contract. Either may be
    // written by others meanwhile: the one by the application, the other, if it is a driver's store, through other rings.
    unsafe { copy_shared(dst, src, len) };
    Ok(())
}

/// # Safety
///
/// `src` is readable for `len` bytes.
pub(super) unsafe fn copy_out(addr: u64, src: *const u8, len: usize) -> Result<(), Errno> {
    let dst = user_pointer(addr, len)?;
    // SAFETY: as above.
    unsafe { copy_shared(dst, src, len) };
    Ok(())
}

fn user_pointer(addr: u64, len: usize) -> Result<*mut u8, Errno> {
    let addr = usize::try_from(addr).map_err(|_| Errno::EFAULT)?;
    // The first page is never mapped; beyond that an address is taken at its word.
    if len > 0 && addr < 4096 {
        return Err(Errno::EFAULT);
    }
    Ok(std::ptr::with_exposed_provenance_mut(addr))
}

pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::new(errno.raw_os_error()).unwrap_or(Errno::EIO)
}
