// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tests of loaded modules have in common: patience, a module's references, sleeping threads, and other processes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

/// Long enough for anything that happens at all, also in an emulated guest.
pub const SOON: Duration = Duration::from_secs(20);

/// Waits until it is done.
///
/// # Panics
///
/// If it is not within [`SOON`].
#[track_caller]
pub fn eventually(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < SOON, "not yet: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// The calling thread's number, as `/proc` has it.
#[must_use]
pub fn this_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// The number of the system call in which thread `id` of this process sleeps. `None` if it runs, or has ended.
#[must_use]
pub fn sleeps_in(id: i32) -> Option<i64> {
    let call = fs::read_to_string(format!("/proc/self/task/{id}/syscall")).ok()?;
    // Else "running".
    call.split_whitespace().next()?.parse().ok()
}

/// How often `module` is in use: by open files, rings and requests, and by modules that need it.
///
/// # Panics
///
/// If it is not loaded.
#[must_use]
pub fn references(module: &str) -> u32 {
    let count = fs::read_to_string(format!("/sys/module/{module}/refcnt")).expect("the module is loaded");
    count.trim().parse().expect("a number")
}

/// This program again, doing nothing but the test `role`, up to its call of [`ready`].
///
/// # Panics
///
/// If it ends before that.
#[must_use]
pub fn start(role: &str) -> Child {
    let mut child = Command::new(env::current_exe().expect("this program has a path"))
        .args([role, "--exact", "--nocapture"])
        .env("SQ_ROLE", role)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be run");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("ready")), "{role} ended early");
    child
}

/// Whether this is the process that [`start`] started for `role`.
#[must_use]
pub fn is_child(role: &str) -> bool {
    env::var_os("SQ_ROLE").is_some_and(|value| value == role)
}

/// Lets [`start`] return.
pub fn ready() {
    println!("ready");
    // Nobody there to read it any more: then nobody waits.
    let _ = std::io::stdout().flush();
}
