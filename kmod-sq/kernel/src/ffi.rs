// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the glue offers: the C half of glue/glue.h.

use core::ffi::c_void;
use core::sync::atomic::AtomicI32;

/// `struct sq_home`.
#[repr(C)]
pub(crate) struct Home {
    opaque: [u8; 0],
}

/// `struct sq_turn`.
#[repr(C)]
pub(crate) struct Turn {
    opaque: [u8; 0],
}

/// `struct file`.
#[repr(C)]
pub(crate) struct File {
    opaque: [u8; 0],
}

/// `struct mm_struct`.
#[repr(C)]
pub(crate) struct Mm {
    opaque: [u8; 0],
}

/// `struct io_uring_cmd`.
#[repr(C)]
pub(crate) struct Cmd {
    opaque: [u8; 0],
}

/// `struct sq_task`.
#[repr(C)]
pub(crate) struct Task {
    opaque: [u8; 0],
}

/// Which region: `enum` beside `struct sq_pages`.
pub(crate) const PAGES_USER: u32 = 0;
pub(crate) const PAGES_KERNEL: u32 = 1;
pub(crate) const PAGES_POOL: u32 = 2;

/// How a wait ended, as home.c says it. Anything else is `SQ_WAIT_SIGNAL`.
pub(crate) const WAIT_READY: u32 = 0;
pub(crate) const WAIT_TIMEOUT: u32 = 1;

unsafe extern "C" {
    pub(crate) fn sq_alloc(size: usize) -> *mut c_void;
    pub(crate) fn sq_free(place: *mut c_void);
    pub(crate) fn sq_pages_new(home: *mut Home, which: u32, offset: u64, bytes: u64) -> *mut u8;
    pub(crate) fn sq_copy_in(home: *mut Home, dst: *mut u8, addr: u64, len: usize) -> i32;
    pub(crate) fn sq_copy_out(home: *mut Home, addr: u64, src: *const u8, len: usize) -> i32;
    pub(crate) fn sq_user_enter(home: *mut Home) -> i32;
    pub(crate) fn sq_user_leave(home: *mut Home);
    pub(crate) fn sq_lock_init(lock: *mut c_void);
    pub(crate) fn sq_lock(lock: *mut c_void) -> usize;
    /// Writes `flags`, for `sq_unlock`, if it returns true.
    pub(crate) fn sq_trylock(lock: *mut c_void, flags: *mut usize) -> bool;
    pub(crate) fn sq_unlock(lock: *mut c_void, flags: usize);
    /// A counted reference, or an error number as a pointer.
    pub(crate) fn sq_file_get(fd: i32) -> *mut File;
    pub(crate) fn sq_file_ref(file: *mut File);
    pub(crate) fn sq_file_put(file: *mut File);
    pub(crate) fn sq_eventfd_set(home: *mut Home, fd: i32) -> i32;
    pub(crate) fn sq_notify(home: *mut Home, waiters: bool, eventfd: bool);
    pub(crate) fn sq_queue_drain(home: *mut Home) -> bool;
    pub(crate) fn sq_set_alarm(home: *mut Home, at_ns: u64);
    pub(crate) fn sq_now_ns() -> u64;
    pub(crate) fn sq_pause() -> i32;
    pub(crate) fn sq_wait(
        home: *mut Home,
        deadline_ns: u64,
        ready: unsafe extern "C" fn(*mut c_void) -> bool,
        context: *mut c_void,
    ) -> u32;
    pub(crate) fn sq_queue_free(home: *mut Home);
    pub(crate) fn sq_copy_entry(dst: *mut [u64; 8], addr: u64) -> i32;
    pub(crate) fn sq_caller_copy_in(dst: *mut u8, addr: u64, len: usize) -> i32;
    pub(crate) fn sq_caller_copy_out(addr: u64, src: *const u8, len: usize) -> i32;
    /// A counted reference to the structure, not to the memory.
    pub(crate) fn sq_caller_mm() -> *mut Mm;
    pub(crate) fn sq_caller_mm_put(mm: *mut Mm);
    pub(crate) fn sq_caller_mm_enter(mm: *mut Mm) -> bool;
    pub(crate) fn sq_caller_mm_leave(mm: *mut Mm);
    pub(crate) fn sq_caller_mm_copy_in(mm: *mut Mm, dst: *mut u8, addr: u64, len: usize) -> i32;
    pub(crate) fn sq_caller_mm_copy_out(mm: *mut Mm, addr: u64, src: *const u8, len: usize) -> i32;
    pub(crate) fn sq_event_new(event: *mut c_void);
    pub(crate) fn sq_event_set(event: *mut c_void);
    pub(crate) fn sq_event_wait(event: *mut c_void, interruptible: bool) -> bool;
    pub(crate) fn sq_sleep_until(at_ns: u64) -> bool;
    pub(crate) fn sq_uring_features() -> u64;
    pub(crate) fn sq_task_hold(task: *mut Task, slot: *const c_void, cmd: *mut Cmd, issue_flags: u32, cancelable: bool);
    pub(crate) fn sq_task_complete(task: *mut Task);
    pub(crate) fn sq_task_start_timer(task: *mut Task, at_ns: u64);
    pub(crate) fn sq_task_stop_timer(task: *mut Task);
    /// The thread of a ring in polling mode, not started yet. `cpu` is -1 for any.
    pub(crate) fn sq_poll_new(home: *mut Home, cpu: i64) -> i32;
    pub(crate) fn sq_poll_wake(home: *mut Home);
    pub(crate) fn sq_poll_busy(turn: *mut Turn) -> bool;
    pub(crate) fn sq_poll_relax(turn: *mut Turn);
    pub(crate) fn sq_poll_leaves(turn: *mut Turn) -> bool;
    pub(crate) fn sq_trace_reject(home: *mut Home, user_data: u64, opcode: u8, res: i32);
    pub(crate) fn sq_trace_complete(home: *mut Home, user_data: u64, res: i32);
    pub(crate) fn sq_trace_stall(home: *mut Home, slots: bool);
    /// Whether anybody traces completions. C writes it.
    pub(crate) static sq_completions_traced: AtomicI32;
}
