// SPDX-License-Identifier: MIT OR Apache-2.0
//! An idle ring costs no CPU time. Alone in its program, since it measures all of the process's threads, and the kernel's
//! that work for it.

use std::time::Duration;
use std::{env, fs};

use liburing_shm::{Backend, Ring, opcode};
use rustix::time::{ClockId, clock_gettime};

const SPAN: Duration = Duration::from_secs(2);

fn backend() -> Backend {
    if env::var_os("SQ_BACKEND").is_some_and(|value| value == "device") {
        Backend::device("/dev/sqnull")
    } else {
        Backend::embedded(sq_null::Null).unwrap()
    }
}

/// Nanoseconds that this process's threads have run.
fn own_ns() -> u64 {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(own.tv_sec * 1_000_000_000 + own.tv_nsec).unwrap()
}

/// Nanoseconds that polling threads have run in the kernel for this process.
fn kernel_ns() -> u64 {
    let name = format!("sq-poll-{}\n", std::process::id());
    let tasks = fs::read_dir("/proc").unwrap().filter_map(|task| Some(task.ok()?.path()));
    let pollers = tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm == name));
    let theirs = pollers.map(|task| fs::read_to_string(task.join("schedstat")).unwrap());
    theirs.map(|text| text.split_whitespace().next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn bell1_an_idle_ring_uses_less_than_one_per_cent_of_a_cpu() {
    for builder in [Ring::builder(8), Ring::builder(8).worker(), Ring::builder(8).poll(Duration::from_millis(20))] {
        let mut ring = builder.build(&backend()).unwrap();
        for _ in 0..10 {
            ring.submission().push(opcode::Nop::new().build()).unwrap();
            ring.submit_and_wait(1).unwrap();
            assert_eq!(ring.completion().reap().count(), 1);
        }
        // The polling thread spins for its idle time.
        std::thread::sleep(Duration::from_millis(500));
        // Looking at other threads takes time itself: it is outside of what is measured.
        let kernel = kernel_ns();
        let stats = ring.submitter().stats().unwrap();
        let own = own_ns();
        std::thread::sleep(SPAN);
        let used = own_ns() - own;
        let used = used + (kernel_ns() - kernel);
        assert!(u128::from(used) < SPAN.as_nanos() / 100, "{used} ns of {SPAN:?}");
        // Nor does the kernel's worker, whose time is nobody's, look after it.
        assert_eq!(ring.submitter().stats().unwrap(), stats);
    }
}
