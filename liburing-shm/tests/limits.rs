// SPDX-License-Identifier: MIT OR Apache-2.0
//! The embedded backend in a process that is short of something. Limits are a process's own: each test is run again in a child.

use std::fs;
use std::process::Command;
use std::time::Duration;

use liburing_shm::opcode::{self, command};
use liburing_shm::{Backend, Errno, Ring, Wait};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Runs the test of this name in a child.
fn in_child(name: &str, test: impl FnOnce()) {
    if std::env::var_os("SQ_LIMITED").is_some() {
        return test();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", name]).env("SQ_LIMITED", "1").output().unwrap();
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(output.status.success() && ran, "{output:?}");
}

fn limit(what: Resource, current: Option<u64>) {
    setrlimit(what, Rlimit { current, ..getrlimit(what) }).unwrap();
}

fn null() -> Backend {
    Backend::embedded(sq_null::Null).unwrap()
}

#[test]
fn a_ring_larger_than_a_file_may_be_is_an_error() {
    in_child("a_ring_larger_than_a_file_may_be_is_an_error", || {
        // Nobody handles SIGXFSZ here: it would end the process.
        limit(Resource::Fsize, Some(512));
        assert_eq!(Ring::builder(8).build(&null()).unwrap_err().errno(), Some(Errno::EFBIG));
    });
}

command! {
    /// `sq_null::cmd::DELAY`
    struct Delay = 2 { ns: u64 }
}

/// Threads that a ring started.
fn workers() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "sq-worker").count()
}

#[test]
fn who_waits_gets_a_thread_for_the_clock_when_there_can_be_one() {
    in_child("who_waits_gets_a_thread_for_the_clock_when_there_can_be_one", || {
        let mut ring = Ring::builder(8).build(&null()).unwrap();
        let submitter = ring.submitter().clone();
        let waiter = std::thread::spawn(move || submitter.wait(&Wait::new(1).timeout(Duration::from_secs(20))));
        std::thread::sleep(Duration::from_millis(100));
        // Enough to go on with, and not for a thread's stack.
        let pages = fs::read_to_string("/proc/self/statm").unwrap();
        let used = pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096;
        limit(Resource::As, Some(used + (1 << 20)));
        ring.submission().push(opcode::Cmd::new(&Delay { ns: 1_000_000 }).build()).unwrap();
        ring.submit().unwrap();
        assert_eq!(workers(), 0, "a thread could be had");
        std::thread::sleep(Duration::from_millis(100));
        limit(Resource::As, getrlimit(Resource::As).maximum);
        waiter.join().unwrap().unwrap();
        assert_eq!(ring.completion().reap().next().unwrap().result(), Ok(0));
    });
}
