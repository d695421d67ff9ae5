// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random programs of system calls on the devices: what no other check thought of. `life syscalls [SEED [PROGRAMS]]`, as root; each
//! program runs as an ordinary user, in a process of its own with three threads and now and then a child.
//!
//! A program follows from its seed, but for what its threads do to each other. The kernel's log has the seed of each; run alone it
//! is `life syscalls SEED 1`. Where the kernel has fault injection, allocations below our functions fail at times.

mod calls;
mod world;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::proc::{Child, all_given_back, become_user, shared_word, sleep_us};
use crate::{Outcome, Random, inject, times, want};
use world::World;

const THREADS: u32 = 3;
/// Of each thread.
const CALLS: u32 = 250;
/// A program that does not get on for so long waits for what never comes. It is killed, which is a test as well.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn main(args: &[String]) -> ExitCode {
    let number = |n: usize, default: u32| args.get(n).and_then(|arg| arg.parse().ok()).unwrap_or(default);
    let (seed, programs) = (number(0, 1), number(1, times(30, 1500)));
    match run(seed, programs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("FAILED  {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(first: u32, programs: u32) -> Outcome {
    if let Some(missing) = calls::NODES.iter().find(|node| !Path::new(node).exists()) {
        return Err(format!("{missing} is missing: load its driver first").into());
    }
    let faults = inject::available();
    if faults {
        inject::only_below_us()?;
    } else {
        println!("        nothing is made to fail: this kernel cannot");
    }
    let done = shared_word();
    let mut killed = 0;
    for seed in first..first.wrapping_add(programs) {
        note(seed);
        if faults {
            // One program in three has none.
            let percent = [0, 2, 10][seed as usize % 3];
            for what in inject::FAILING {
                inject::probability(what, percent)?;
            }
        }
        let child = Child::fork(|| program(seed, done));
        let mut before = done.load(Ordering::Relaxed);
        while !child.ended(PATIENCE) {
            let now = done.load(Ordering::Relaxed);
            if now == before {
                killed += 1;
                break;
            }
            before = now;
        }
        child.kill_group();
        child.wait();
        all_given_back().map_err(|why| format!("seed {seed}: {why}"))?;
    }
    if faults {
        inject::only_below_us()?;
    }
    let (done, planned) = (done.load(Ordering::Relaxed), programs * THREADS * CALLS);
    println!("ok      {programs} programs from seed {first}: {done} of {planned} calls, {killed} programs killed");
    // Else nothing was shown.
    want!(done > planned / 2, true);
    Ok(())
}

/// In the kernel's log, so that it is known whatever happens next.
fn note(seed: u32) {
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = writeln!(log, "life: syscalls seed {seed}");
    }
}

fn program(seed: u32, done: &'static AtomicU32) -> i32 {
    if !become_anybody() {
        return 3;
    }
    let world: &World = Box::leak(Box::new(World::new()));
    let over = &*Box::leak(Box::new(AtomicBool::new(false)));
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            thread::spawn(move || {
                let mut random = Random::new(u64::from(seed) << 8 | u64::from(n));
                calls::run(world, &mut random, CALLS, done);
            })
        })
        .collect();
    // Somebody must wake those who wait for ever.
    let handles: Vec<_> = threads.iter().map(std::os::unix::thread::JoinHandleExt::as_pthread_t).collect();
    let ticker = thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            sleep_us(5000);
            for handle in &handles {
                // SAFETY: the threads are joined after this one.
                unsafe { libc::pthread_kill(*handle, libc::SIGUSR1) };
            }
        }
    });
    while !threads.iter().all(thread::JoinHandle::is_finished) {
        sleep_us(2000);
    }
    over.store(true, Ordering::Relaxed);
    let _ = ticker.join();
    for thread in threads {
        let _ = thread.join();
    }
    0
}

/// A process group of its own, whose children leave by themselves; signals only interrupt calls; an ordinary user.
fn become_anybody() -> bool {
    // SAFETY: an all-zero sigaction is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
    // SAFETY: a handler that does nothing.
    unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    // SAFETY: no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    // SAFETY: no precondition.
    unsafe { libc::setpgid(0, 0) };
    become_user(1000).is_ok()
}

extern "C" fn nothing(_: i32) {}
