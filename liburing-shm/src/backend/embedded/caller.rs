// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doors of a driver in this process.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use kmod_sq::{Caller, Doors};
use sq_driver::Bound;
use sq_uapi::{Errno, ioctl};

use super::host::{ProcessFile, copy_in, copy_out, now_ns};
use crate::backend::Door;

/// Whoever calls: a thread of this process.
pub(super) struct ThisProcess;

/// A flag, and who waits for it.
pub(super) struct Event {
    set: AtomicBool,
    waiter: Thread,
}

impl Caller for ThisProcess {
    type File = ProcessFile;
    /// There is only one process.
    type Memory = ();
    type Event = Event;

    unsafe fn copy_entry(dst: *mut [u64; 8], addr: u64) -> Result<(), Errno> {
        // SAFETY: the contract.
        unsafe { copy_in(dst.cast(), addr, size_of::<[u64; 8]>()) }
    }

    unsafe fn copy_from_user(dst: *mut u8, addr: u64, len: usize) -> Result<(), Errno> {
        // SAFETY: the contract.
        unsafe { copy_in(dst, addr, len) }
    }

    unsafe fn copy_to_user(addr: u64, src: *const u8, len: usize) -> Result<(), Errno> {
        // SAFETY: the contract.
        unsafe { copy_out(addr, src, len) }
    }

    fn file(fd: i32) -> Result<ProcessFile, Errno> {
        ProcessFile::of(fd)
    }

    fn memory() {}

    unsafe fn copy_in((): &(), dst: *mut u8, addr: u64, len: usize) -> Result<(), Errno> {
        // SAFETY: the contract.
        unsafe { copy_in(dst, addr, len) }
    }

    unsafe fn copy_out((): &(), addr: u64, src: *const u8, len: usize) -> Result<(), Errno> {
        // SAFETY: the contract.
        unsafe { copy_out(addr, src, len) }
    }

    unsafe fn event_new(event: *mut Event) {
        // SAFETY: the contract.
        unsafe { event.write(Event { set: AtomicBool::new(false), waiter: thread::current() }) };
    }

    unsafe fn event_set(event: *const Event) {
        // SAFETY: the contract: it is there until the store below.
        let waiter = unsafe { &*event }.waiter.clone();
        // SAFETY: as above. A reference to the flag alone: the event may be gone before the call below has returned, which a
        // reference to an atomic allows.
        let set = unsafe { &(*event).set };
        // Release: partner of the acquire in `event_wait`.
        set.store(true, Ordering::Release);
        waiter.unpark();
    }

    unsafe fn event_wait(event: *const Event, _interruptible: bool) -> bool {
        // SAFETY: the contract.
        let this = unsafe { &*event };
        while !this.set.load(Ordering::Acquire) {
            thread::park();
        }
        // SAFETY: nobody else has it any more, and it is not waited for again. What is dropped is a count of this thread.
        drop(unsafe { (&raw const this.waiter).read() });
        true
    }

    fn now_ns() -> u64 {
        now_ns()
    }

    fn sleep_until(at_ns: u64) -> bool {
        thread::sleep(Duration::from_nanos(at_ns.saturating_sub(now_ns())));
        true
    }
}

/// `SQ_IOC_ISSUE`.
pub(super) fn issue(doors: &Doors, entry: &[u8], allowed: u64) -> Result<u32, Errno> {
    if entry.len() != size_of::<sq_uapi::Sqe>() {
        return Err(Errno::EINVAL);
    }
    let addr = entry.as_ptr().expose_provenance() as u64;
    Errno::from_res(doors.issue::<ThisProcess>(addr, allowed))
}

/// A device that was opened and has no ring.
pub(super) struct Alone {
    doors: Doors,
    /// Keeps what `doors` points to.
    _driver: Arc<dyn Any + Send + Sync>,
}

impl Alone {
    pub(super) fn new(bound: Bound, driver: Arc<dyn Any + Send + Sync>) -> Self {
        Self { doors: Doors::new(bound), _driver: driver }
    }
}

impl fmt::Debug for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Alone").finish_non_exhaustive()
    }
}

impl Door for Alone {
    fn call(&self, number: u32, arg: &mut [u8]) -> Result<u32, Errno> {
        match number {
            ioctl::ISSUE => issue(&self.doors, arg, u64::MAX),
            _ => Err(Errno::ENXIO),
        }
    }
}
