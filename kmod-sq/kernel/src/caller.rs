// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doors without a ring: the process that calls, as [`kmod_sq::Doors`] sees it, and the edge to the glue.

use core::cell::UnsafeCell;
use core::ffi::c_void;

use kmod_sq::{Caller, Doors};
use sq_driver::abi::Table;
use sq_uapi::Errno;

use crate::edge::bind;
use crate::ffi;
use crate::host::{KernelFile, KernelRing, done};

/// Room for a `struct completion`, of any kernel: doors.c asserts that it fits.
const EVENT_BYTES: usize = 128;

/// `struct sq_door` of the glue.
const DOOR_BYTES: usize = 64;
const _: () = assert!(size_of::<Doors>() <= DOOR_BYTES && align_of::<Doors>() <= 8);

/// Whoever runs.
pub(crate) struct Current;

/// A `struct completion`.
#[repr(C, align(8))]
pub(crate) struct Event(UnsafeCell<[u8; EVENT_BYTES]>);

/// A process's memory: its structure is counted, its pages are not.
pub(crate) struct Memory(*mut ffi::Mm);

// SAFETY: the functions that take an mm may be called from any thread.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this value's own reference, which goes with it.
        unsafe { ffi::sq_caller_mm_put(self.0) };
    }
}

impl Caller for Current {
    type File = KernelFile;
    type Memory = Memory;
    type Event = Event;

    #[inline]
    unsafe fn copy_entry(dst: *mut [u64; 8], addr: u64) -> Result<(), Errno> {
        // SAFETY: `dst` by contract; the user address is checked by the kernel.
        done(unsafe { ffi::sq_copy_entry(dst, addr) })
    }

    unsafe fn copy_from_user(dst: *mut u8, addr: u64, len: usize) -> Result<(), Errno> {
        // SAFETY: as above.
        done(unsafe { ffi::sq_caller_copy_in(dst, addr, len) })
    }

    unsafe fn copy_to_user(addr: u64, src: *const u8, len: usize) -> Result<(), Errno> {
        // SAFETY: as above, with `src`.
        done(unsafe { ffi::sq_caller_copy_out(addr, src, len) })
    }

    fn file(fd: i32) -> Result<KernelFile, Errno> {
        KernelFile::of(fd)
    }

    fn memory() -> Memory {
        // SAFETY: no precondition.
        Memory(unsafe { ffi::sq_caller_mm() })
    }

    unsafe fn copy_in(memory: &Memory, dst: *mut u8, addr: u64, len: usize) -> Result<(), Errno> {
        // SAFETY: `memory` counts its mm; `dst` by contract.
        done(unsafe { ffi::sq_caller_mm_copy_in(memory.0, dst, addr, len) })
    }

    unsafe fn copy_out(memory: &Memory, addr: u64, src: *const u8, len: usize) -> Result<(), Errno> {
        // SAFETY: `memory` counts its mm; `src` by contract.
        done(unsafe { ffi::sq_caller_mm_copy_out(memory.0, addr, src, len) })
    }

    fn enter(memory: &Memory) -> Result<(), Errno> {
        // SAFETY: `memory` counts its mm.
        if unsafe { ffi::sq_caller_mm_enter(memory.0) } { Ok(()) } else { Err(Errno::ECANCELED) }
    }

    fn leave(memory: &Memory) {
        // SAFETY: `memory` counts its mm, and `enter` succeeded in this thread (the trait's contract).
        unsafe { ffi::sq_caller_mm_leave(memory.0) };
    }

    unsafe fn event_new(event: *mut Event) {
        // SAFETY: the contract; an event is room enough.
        unsafe { ffi::sq_event_new(event.cast()) };
    }

    unsafe fn event_set(event: *const Event) {
        // SAFETY: the contract. The bytes are in a cell, so that this may write.
        unsafe { ffi::sq_event_set(event.cast_mut().cast()) };
    }

    unsafe fn event_wait(event: *const Event, interruptible: bool) -> bool {
        // SAFETY: the contract. As above.
        unsafe { ffi::sq_event_wait(event.cast_mut().cast(), interruptible) }
    }

    fn now_ns() -> u64 {
        // SAFETY: no precondition.
        unsafe { ffi::sq_now_ns() }
    }

    fn sleep_until(at_ns: u64) -> bool {
        // SAFETY: no precondition; `issue` may sleep.
        unsafe { ffi::sq_sleep_until(at_ns) }
    }
}

/// The doors of a driver, written to the glue's place for them.
///
/// # Safety
///
/// **table**; `place` is writable for a `struct sq_door`.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_door_new(place: *mut Doors, table: *const Table, data: *const c_void) -> i32 {
    // SAFETY: the contract.
    match unsafe { bind(table, data) } {
        Ok(bound) => {
            // SAFETY: the contract; a Doors fits, as asserted above.
            unsafe { place.write(Doors::new(bound)) };
            0
        }
        Err(errno) => errno.to_res(),
    }
}

/// `SQ_IOC_ISSUE`: the entry at `addr`, by the calling process, on a file that has the ring, if it has one.
///
/// # Safety
///
/// `door` is from `sq_door_new`; **reference**, if `ring` is one; the driver's module is pinned by the open file.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_door_issue(door: &Doors, ring: Option<&KernelRing>, addr: u64) -> i64 {
    let allowed = ring.map_or(u64::MAX, |ring| ring.allowed());
    i64::from(door.issue::<Current>(addr, allowed))
}
