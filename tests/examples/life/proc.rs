// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes, and what the kernel says about what they left.

use std::fs;
use std::sync::atomic::AtomicU32;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Outcome;

/// How many references there are to each of our modules that are no module's.
fn references() -> Vec<(String, u32)> {
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    let ours = modules.lines().filter(|line| line.starts_with("sq"));
    ours.filter_map(|line| {
        // name size count user,user, ..
        let mut words = line.split(' ');
        let (name, count) = (words.next()?, words.nth(1)?.parse::<u32>().ok()?);
        let users = words.next()?.split(',').filter(|user| user.starts_with("sq")).count();
        Some((name.to_owned(), count.saturating_sub(users as u32)))
    })
    .collect()
}

/// References that are no module's: open files, rings and requests. A home pins two modules until all of it is freed.
pub(crate) fn in_use() -> u32 {
    references().iter().map(|(_, count)| count).sum()
}

/// Waits until files, rings, their pages and requests are gone: each of them pins a module.
pub(crate) fn all_given_back() -> Outcome {
    until(10, "still in use", || in_use() == 0).map_err(|why| format!("{why}: {:?}", references()).into())
}

/// Waits for so many seconds until it is `done`.
pub(crate) fn until(seconds: u64, not: &str, done: impl Fn() -> bool) -> Outcome {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > Duration::from_secs(seconds) {
            return Err(not.to_owned().into());
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A process made by fork(): it runs `body`, and its result is its exit code.
pub(crate) struct Child(libc::pid_t);

impl Child {
    /// Only for checks that have no other thread at the moment: the child goes on with this thread alone.
    pub(crate) fn fork(body: impl FnOnce() -> i32) -> Self {
        // SAFETY: no other thread exists, so no lock is left behind locked.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let code = body();
            // SAFETY: leaves without running the parent's destructors.
            unsafe { libc::_exit(code) };
        }
        assert!(pid > 0, "fork failed");
        Self(pid)
    }

    pub(crate) fn kill(&self) {
        // SAFETY: a child that was not waited for yet: the number is its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }

    /// For a child that leads a process group.
    pub(crate) fn kill_group(&self) {
        // SAFETY: as above; the group has no other members than the child and its own.
        unsafe { libc::kill(-self.0, libc::SIGKILL) };
    }

    /// The exit code, or 128 and the signal.
    pub(crate) fn wait(self) -> i32 {
        let mut status = 0;
        // SAFETY: a child of ours, and a place for its status.
        while unsafe { libc::waitpid(self.0, &raw mut status, 0) } < 0 {}
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
    }

    /// Whether it has ended. It must be waited for all the same.
    pub(crate) fn ended(&self, within: Duration) -> bool {
        let end = Instant::now() + within;
        loop {
            // SAFETY: an all-zero siginfo_t is a value.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            // SAFETY: a child of ours, and a place for what is said of it.
            unsafe { libc::waitid(libc::P_PID, self.0.cast_unsigned(), &raw mut info, flags) };
            if info.si_signo != 0 {
                return true;
            }
            if Instant::now() > end {
                return false;
            }
            sleep(Duration::from_millis(1));
        }
    }
}

pub(crate) fn sleep_us(us: u64) {
    sleep(Duration::from_micros(us));
}

/// What a child has to say, as its exit code.
pub(crate) fn code(result: Outcome) -> i32 {
    match result {
        Ok(()) => 0,
        Err(why) => {
            println!("in a child: {why}");
            1
        }
    }
}

/// Gives up root for good, in this process.
pub(crate) fn become_user(uid: u32) -> Outcome {
    // SAFETY: no pointers.
    if uid != 0 && unsafe { libc::setresuid(uid, uid, uid) } < 0 {
        return Err(format!("setresuid: {}", crate::raw::last()).into());
    }
    Ok(())
}

/// A word that a forked child shares. It stays mapped.
pub(crate) fn shared_word() -> &'static AtomicU32 {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, where the kernel likes.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    assert!(at != libc::MAP_FAILED);
    // SAFETY: mapped for good, aligned, zero.
    unsafe { AtomicU32::from_ptr(at.cast()) }
}
