// SPDX-License-Identifier: MIT OR Apache-2.0
//! io_uring's commands, as [`kmod_sq::Tasks`] has them, and the edge to the glue (uring.c).

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use kmod_sq::{Doors, Issued, Pool, Slot, Source, Tasks};
use sq_driver::abi::DEFERRED;
use sq_uapi::Errno;
use sq_uapi::consts::features;

use crate::array::{self, Array};
use crate::caller::Current;
use crate::ffi;
use crate::host::KernelRing;
use crate::lock::SpinLock;

/// Room for a `struct sq_task`: uring.c asserts that it fits.
const TASK_BYTES: usize = 192;

/// A `struct sq_task`.
#[repr(C, align(8))]
pub(crate) struct Task(UnsafeCell<[u8; TASK_BYTES]>);

// SAFETY: the glue accesses it as the contracts of `Tasks` order it.
unsafe impl Send for Task {}
// SAFETY: as above.
unsafe impl Sync for Task {}

/// A command being issued.
#[derive(Clone, Copy)]
pub(crate) struct Command {
    cmd: *mut ffi::Cmd,
    issue_flags: u32,
}

/// The glue's name for a place in a cell.
fn raw(task: *const Task) -> *mut ffi::Task {
    task.cast_mut().cast()
}

impl Tasks for Current {
    fn cancelable() -> bool {
        // SAFETY: no precondition.
        unsafe { ffi::sq_uring_features() & features::URING_CANCEL != 0 }
    }

    type Lock<T: Send> = SpinLock<T>;
    type Array<T: Send> = Array<T>;
    type Command = Command;
    type Task = Task;

    fn array<T: Send>(len: usize, make: impl FnMut(usize) -> T) -> Result<Array<T>, Errno> {
        Array::new(len, make)
    }

    fn task() -> Task {
        // `timed` is false.
        Task(UnsafeCell::new([0; TASK_BYTES]))
    }

    fn name(command: Command) -> usize {
        command.cmd.addr()
    }

    unsafe fn hold(task: *const Task, slot: *const Slot<Self>, command: Command, cancelable: bool) {
        // SAFETY: the contract; the command is the one being issued, with io_uring's own flags.
        unsafe { ffi::sq_task_hold(raw(task), slot.cast(), command.cmd, command.issue_flags, cancelable) };
    }

    unsafe fn complete(task: *const Task) {
        // SAFETY: the contract: held, and once.
        unsafe { ffi::sq_task_complete(raw(task)) };
    }

    unsafe fn start_timer(task: *const Task, at_ns: u64) {
        // SAFETY: the contract.
        unsafe { ffi::sq_task_start_timer(raw(task), at_ns) };
    }

    unsafe fn stop_timer(task: *const Task) {
        // SAFETY: the contract; one may sleep.
        unsafe { ffi::sq_task_stop_timer(raw(task)) };
    }
}

/// The requests of an open file, or null.
#[unsafe(no_mangle)]
extern "C" fn sq_pool_new() -> *mut Pool<Current> {
    let Ok(place) = array::place() else { return core::ptr::null_mut() };
    match Pool::new() {
        Ok(pool) => {
            // SAFETY: memory for one pool.
            unsafe { place.write(pool) };
            place.as_ptr()
        }
        Err(_) => {
            // SAFETY: nothing was written there.
            unsafe { array::give_back(place) };
            core::ptr::null_mut()
        }
    }
}

/// # Safety
///
/// `pool` is from `sq_pool_new`, of which no request is in use, and not used again.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_pool_free(pool: NonNull<Pool<Current>>) {
    // SAFETY: the contract.
    unsafe { pool.drop_in_place() };
    // SAFETY: from `array::place`, and empty now.
    unsafe { array::give_back(pool) };
}

/// A command whose entry is at `entry`, in an SQE that user space may be writing. Its result, or `SQ_DEFERRED`.
///
/// # Safety
///
/// As `sq_door_issue`; `pool` is the file's; `cmd` is being issued with `issue_flags`; `entry` is readable for 64 bytes, 8-byte aligned;
/// `extra` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_command_live(
    doors: &Doors,
    pool: &Pool<Current>,
    ring: Option<&KernelRing>,
    cmd: *mut ffi::Cmd,
    issue_flags: u32,
    entry: &[AtomicU64; 8],
    extra: &mut u64,
) -> i32 {
    command(doors, pool, ring, Command { cmd, issue_flags }, Source::Live(entry), extra)
}

/// A command whose entry is at the user address `addr`.
///
/// # Safety
///
/// As `sq_command_live`.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_command_user(
    doors: &Doors,
    pool: &Pool<Current>,
    ring: Option<&KernelRing>,
    cmd: *mut ffi::Cmd,
    issue_flags: u32,
    addr: u64,
    extra: &mut u64,
) -> i32 {
    command(doors, pool, ring, Command { cmd, issue_flags }, Source::User(addr), extra)
}

#[inline]
fn command(
    doors: &Doors,
    pool: &Pool<Current>,
    ring: Option<&KernelRing>,
    command: Command,
    source: Source<'_>,
    extra: &mut u64,
) -> i32 {
    let allowed = ring.map_or(u64::MAX, |ring| ring.allowed());
    match doors.command(pool, command, source, allowed) {
        Issued::Done(res, word) => {
            *extra = word;
            res
        }
        Issued::Later => DEFERRED,
    }
}

/// The request's timer went off.
///
/// # Safety
///
/// By the timer that `sq_task_start_timer` set.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_slot_fired(slot: *const Slot<Current>) {
    // SAFETY: the contract.
    unsafe { Slot::fired(slot) };
}

/// Cancels `cmd`, if the request is still its.
///
/// # Safety
///
/// `cmd` was held with `slot`, and is not completed.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_slot_cancel(slot: *const Slot<Current>, doors: &Doors, cmd: *mut ffi::Cmd) {
    // SAFETY: the contract.
    unsafe { Slot::cancel(slot, doors, cmd.addr()) };
}

/// The result of a request that `sq_task_complete` was called for; it is free afterwards.
///
/// # Safety
///
/// Once for each such call; `extra` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_slot_finish(slot: &Slot<Current>, extra: &mut u64) -> i32 {
    // SAFETY: the contract.
    let (res, word) = unsafe { slot.finish() };
    *extra = word;
    res
}
