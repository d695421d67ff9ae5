// SPDX-License-Identifier: MIT OR Apache-2.0
//! `SQ_IOC_ISSUE`: signals, kills, and callers that are up to no good.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sq_conformance::guest::{eventually, is_child, ready, start};
use sq_uapi::{Errno, Sqe, ioctl};

use super::common::{delay, device, echo, never, nothing_left, open, random, result, stays_loaded};

/// The call, at any address whatever.
fn issue_at(file: &impl AsRawFd, at: usize) -> Result<u32, Errno> {
    // SAFETY: the kernel checks the address; entries of these tests name no memory of their own.
    let res = unsafe { libc::ioctl(file.as_raw_fd(), libc::c_ulong::from(ioctl::ISSUE), at) };
    if res >= 0 {
        return Ok(res.unsigned_abs());
    }
    Err(std::io::Error::last_os_error().raw_os_error().and_then(Errno::new).unwrap())
}

pub(crate) fn issue(file: &impl AsRawFd, sqe: &Sqe) -> Result<u32, Errno> {
    issue_at(file, (&raw const *sqe).addr())
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

fn handle(flags: libc::c_int) {
    // SAFETY: zeros are a sigaction without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as *const () as usize;
    action.sa_flags = flags;
    // SAFETY: the handler only adds to an atomic.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) }, 0);
}

/// What an operation gives when its thread gets signals, and after what time.
fn interrupted(sqe: Sqe) -> (Result<u32, Errno>, Duration) {
    let file = open();
    let (inside, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            // SAFETY: no precondition.
            inside.store(unsafe { libc::pthread_self() }, Ordering::Release);
            let start = Instant::now();
            let result = issue(&file, &sqe);
            done.store(true, Ordering::Release);
            (result, start.elapsed())
        });
        eventually("the caller runs", || inside.load(Ordering::Acquire) != 0);
        // Again and again: the first may come before the call.
        while !done.load(Ordering::Acquire) {
            sleep(Duration::from_millis(20));
            // SAFETY: the thread has not been joined.
            unsafe { libc::pthread_kill(inside.load(Ordering::Acquire), libc::SIGUSR1) };
        }
        caller.join().unwrap()
    })
}

#[test]
fn a_signal_cancels_and_nothing_is_done_twice() {
    let Some(_one) = device() else { return };
    for flags in [0, libc::SA_RESTART] {
        handle(flags);
        let before = SIGNALS.load(Ordering::Relaxed);
        assert_eq!(interrupted(never()).0, Err(Errno::EINTR), "flags {flags:#x}");
        let (result, time) = interrupted(delay(Duration::from_secs(9)));
        assert_eq!(result, Err(Errno::EINTR), "flags {flags:#x}");
        assert!(time < Duration::from_secs(8), "{time:?}");
        assert!(SIGNALS.load(Ordering::Relaxed) > before);
    }
    nothing_left();
}

#[test]
fn the_child_that_never_returns() {
    if is_child("issue::the_child_that_never_returns") {
        ready();
        let _ = issue(&open(), &never());
    }
}

#[test]
fn the_child_that_issues_all_the_time() {
    if is_child("issue::the_child_that_issues_all_the_time") {
        let file = open();
        std::thread::scope(|scope| {
            for thread in 0..3u64 {
                let file = &file;
                scope.spawn(move || {
                    for n in thread.. {
                        let _ = match n % 4 {
                            0 => issue(file, &delay(Duration::from_micros(n % 300))),
                            1 => issue(file, &Sqe { flags: 16, ..Sqe::NOP }),
                            _ => issue(file, &echo(1)),
                        };
                        if n == thread + 100 && thread == 0 {
                            ready();
                        }
                    }
                });
            }
        });
    }
}

#[test]
fn a_killed_caller_leaves_nothing() {
    let Some(_one) = device() else { return };
    for lap in 0..5 {
        let mut child = start("issue::the_child_that_never_returns");
        sleep(Duration::from_millis(lap * 10));
        if lap == 4 {
            stays_loaded("a caller sleeps in it");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        nothing_left();
    }
    let mut seed = 0x5eed;
    for _ in 0..25 {
        let mut child = start("issue::the_child_that_issues_all_the_time");
        sleep(Duration::from_micros(random(&mut seed) % 5000));
        child.kill().unwrap();
        child.wait().unwrap();
        nothing_left();
    }
}

#[test]
fn addresses_that_cannot_be_read() {
    let Some(_one) = device() else { return };
    let file = open();
    for at in [0, 1, 4095, usize::MAX, usize::MAX - 63, 1 << 63, 0xffff_8880_0000_0000, 0x7fff_ffff_f000, 1 << 47] {
        assert_eq!(issue_at(&file, at), Err(Errno::EFAULT), "{at:#x}");
    }
    // The last page is not there: an entry may end before it, and not a byte later.
    let pages = Pages::new(2);
    pages.drop_last();
    let end = pages.at + Pages::BYTES;
    pages.write(end - 64, &echo(9));
    assert_eq!(issue_at(&file, end - 64), Ok(9));
    for inside in [1, 8, 63] {
        assert_eq!(issue_at(&file, end - inside), Err(Errno::EFAULT), "{inside} bytes of an entry");
    }
    // It need not be aligned.
    pages.write(pages.at + 3, &echo(11));
    assert_eq!(issue_at(&file, pages.at + 3), Ok(11));
}

#[test]
fn the_file_is_closed_by_another_thread() {
    let Some(_one) = device() else { return };
    for lap in 0..20 {
        let file = open();
        let fd = file.as_raw_fd();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // The call has its own reference, or finds no file.
                match issue(&fd, &delay(Duration::from_millis(10))) {
                    Ok(7) | Err(Errno::EBADF) => {}
                    other => panic!("{other:?}"),
                }
            });
            sleep(Duration::from_millis(lap % 10));
            drop(file);
        });
        nothing_left();
    }
}

#[test]
fn a_forked_child_has_the_door_too() {
    let Some(_one) = device() else { return };
    let file = open();
    // SAFETY: the child makes system calls only.
    match unsafe { libc::fork() } {
        0 => {
            let good = issue(&file, &echo(3)) == Ok(3)
                && issue(&file, &result(-17)) == Err(Errno::EEXIST)
                && issue(&file, &delay(Duration::from_millis(1))) == Ok(7);
            // SAFETY: ends the child without running anything of its parent's.
            unsafe { libc::_exit(i32::from(!good)) };
        }
        child => {
            let mut status = 0;
            // SAFETY: `status` is writable.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
}

/// Anonymous memory.
struct Pages {
    at: usize,
    len: usize,
}

impl Pages {
    const BYTES: usize = 4096;

    fn new(count: usize) -> Self {
        let len = count * Self::BYTES;
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping where the kernel likes disturbs nothing.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        Self { at: at.expose_provenance(), len }
    }

    fn drop_last(&self) {
        let last = std::ptr::with_exposed_provenance_mut(self.at + self.len - Self::BYTES);
        // SAFETY: a page of this mapping, of which nothing is made.
        assert_eq!(unsafe { libc::mprotect(last, Self::BYTES, libc::PROT_NONE) }, 0);
    }

    fn write(&self, at: usize, sqe: &Sqe) {
        let place = std::ptr::with_exposed_provenance_mut::<[u64; 8]>(at);
        // SAFETY: the tests write inside the mapping.
        unsafe { place.write_unaligned(sqe.to_words()) };
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.at), self.len) };
    }
}
