// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device, other processes, and entries for the null driver.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use sq_uapi::Sqe;
use sq_uapi::consts::op;

pub(crate) const NODE: &str = "/dev/sqnull";
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// One test at a time: they count references and what is in flight. `None`, and a word about it, without a module.
pub(crate) fn device() -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    if env::var_os("SQ_BACKEND").is_none_or(|value| value != "device") {
        println!("SKIPPED: there is no module here");
        return None;
    }
    Some(ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

pub(crate) fn open() -> File {
    OpenOptions::new().read(true).write(true).open(NODE).unwrap()
}

fn command(cmd: u32, first: u64, second: u64) -> Sqe {
    let mut words = Sqe { opcode: op::CMD, off: cmd.into(), ..Sqe::NOP }.to_words();
    (words[6], words[7]) = (first, second);
    Sqe::from_words(words)
}

pub(crate) fn echo(value: u32) -> Sqe {
    command(sq_null::cmd::ECHO, value.into(), 0)
}

pub(crate) fn result(res: i32) -> Sqe {
    command(sq_null::cmd::RESULT, i64::from(res).cast_unsigned(), 0)
}

/// Bounded up to 10 s, by the driver's own account. Its result is 7.
pub(crate) fn delay(time: Duration) -> Sqe {
    command(sq_null::cmd::DELAY, u64::try_from(time.as_nanos()).unwrap(), 7)
}

pub(crate) fn never() -> Sqe {
    command(sq_null::cmd::NEVER, 0, 0)
}

#[track_caller]
pub(crate) fn eventually(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < SOON, "not yet: {what}");
        sleep(Duration::from_millis(5));
    }
}

pub(crate) fn references() -> u32 {
    fs::read_to_string("/sys/module/sq_null/refcnt").unwrap().trim().parse().unwrap()
}

/// Nobody has the device open, and nothing is in flight on it.
#[track_caller]
pub(crate) fn nothing_left() {
    eventually("the module is free", || references() == 0);
}

/// While `what` goes on, the module stays.
#[track_caller]
pub(crate) fn stays_loaded(what: &str) {
    let status = Command::new("rmmod").arg("sq_null").stderr(Stdio::null()).status().unwrap();
    assert!(!status.success(), "sq_null went while {what}");
}

/// This program again, doing nothing but the test `role`, up to the line that it prints by [`ready`].
pub(crate) fn start(role: &str) -> Child {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([role, "--exact", "--nocapture"])
        .env("SQ_ROLE", role)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.into_iter().any(|line| line.ends_with("ready")), "{role} ended early");
    child
}

/// Whether this is the process that [`start`] started for `role`.
pub(crate) fn is_child(role: &str) -> bool {
    env::var_os("SQ_ROLE").is_some_and(|value| value == role)
}

pub(crate) fn ready() {
    println!("ready");
    std::io::stdout().flush().unwrap();
}

/// Numbers that differ from lap to lap and not from run to run.
pub(crate) fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}
