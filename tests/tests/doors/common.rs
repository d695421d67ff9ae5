// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device, and entries for the null driver.

use std::env;
use std::fs::{File, OpenOptions};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sq_conformance::guest::{eventually, references};
use sq_uapi::Sqe;
use sq_uapi::consts::op;

pub(crate) const NODE: &str = "/dev/sqnull";

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
    open_node(NODE)
}

pub(crate) fn open_node(node: &str) -> File {
    OpenOptions::new().read(true).write(true).open(node).unwrap()
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

/// Nobody has the device open, and nothing is in flight on it.
#[track_caller]
pub(crate) fn nothing_left() {
    nothing_left_of("sq_null");
}

#[track_caller]
pub(crate) fn nothing_left_of(module: &str) {
    eventually("the module is free", || references(module) == 0);
}

/// While `what` goes on, the module stays.
#[track_caller]
pub(crate) fn stays_loaded(what: &str) {
    let status = Command::new("rmmod").arg("sq_null").stderr(Stdio::null()).status().unwrap();
    assert!(!status.success(), "sq_null went while {what}");
}

/// Numbers that differ from lap to lap and not from run to run.
pub(crate) fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}
