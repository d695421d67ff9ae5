// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which processor a thread runs on. Where two threads are decides what a hand-over between them costs, so every figure across
//! threads is of one placement: the submitter on the first processor, whoever serves it on the second.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Two processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The submitter's.
    pub near: usize,
    /// The other side's.
    pub far: usize,
}

impl Pair {
    /// The first two that this thread may run on.
    #[must_use]
    pub fn allowed() -> Option<Self> {
        let set = sched_getaffinity(None).ok()?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
        Some(Self { near: allowed.next()?, far: allowed.next()? })
    }
}

/// Keeps this thread, and those that it starts, on one processor.
///
/// # Panics
///
/// If it may not run there.
pub fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("a processor that was allowed before");
}

/// Does `work` on one processor; threads that it starts stay there.
pub fn on<T>(cpu: usize, work: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).expect("a thread may ask where it may run");
    pin(cpu);
    let done = work();
    sched_setaffinity(None, &before).expect("a thread may go back where it was");
    done
}
