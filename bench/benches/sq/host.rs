// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this host has to measure on, and how a row is made.

use std::fmt::Display;
use std::path::Path;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId};
use io_uring::IoUring;
use liburing_shm::{Backend, Completion};
use sq_bench::baseline;
use sq_bench::cpu::{self, Pair};
use sq_driver::Driver;

pub(crate) type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// What a row's operations cross.
pub(crate) const CALL: &str = "function call";
pub(crate) const THREAD: &str = "thread";
pub(crate) const SYSTEM: &str = "system call";

/// What this host has.
pub(crate) struct Host {
    /// This thread's processor and another; `None` if there is only one.
    pub(crate) cpus: Option<Pair>,
    pub(crate) io_uring: bool,
    /// The plain module of bench/baseline is loaded.
    pub(crate) baseline: bool,
}

impl Host {
    /// Looks, says what is missing, and keeps this thread on its processor.
    pub(crate) fn look() -> Self {
        let cpus = Pair::allowed();
        match cpus {
            Some(pair) => cpu::pin(pair.near),
            None => skip("rows with two threads", "one processor only"),
        }
        let io_uring = match IoUring::new(2) {
            Ok(_) => true,
            Err(error) => {
                skip("io_uring", format_args!("{error}: switched off on this host?"));
                false
            }
        };
        let baseline = Path::new(baseline::NODE).exists();
        if !baseline {
            skip("the plain module's doors", format_args!("no {}: cargo xtask vm bench has it", baseline::NODE));
        }
        Self { cpus, io_uring, baseline }
    }
}

/// Where a kernel side is.
pub(crate) struct Home {
    pub(crate) backend: Backend,
    /// `embedded`, or the device's node.
    pub(crate) name: String,
    /// What entering it crosses.
    pub(crate) crosses: &'static str,
}

/// This process, and the module if it is loaded.
pub(crate) fn homes<D: Driver>(driver: D) -> Vec<Home> {
    let node = format!("/dev/sq{}", D::NAME.to_string_lossy());
    let embedded = Backend::embedded(driver).expect("the project's drivers have short names");
    let mut homes = vec![Home { backend: embedded, name: "embedded".to_owned(), crosses: CALL }];
    if Path::new(&node).exists() {
        homes.push(Home { backend: Backend::device(&node), name: node, crosses: SYSTEM });
    } else {
        skip(&node, "the module is not loaded here: cargo xtask vm bench has it");
    }
    homes
}

pub(crate) fn skip(what: &str, why: impl Display) {
    println!("SKIP: {what}: {why}");
}

/// A figure that is no time an operation.
pub(crate) fn figure(group: &str, row: &str, parameter: impl Display, what: &str, value: f64) {
    println!("figure,{group},{row},{parameter},{what},{value}");
}

pub(crate) fn id(row: impl Display, crosses: &str, parameter: impl Display) -> BenchmarkId {
    BenchmarkId::new(format!("{row} ({crosses})"), parameter)
}

/// One row, a round at a time. `setup` is called when the row is run, and not if it was filtered out.
pub(crate) fn row<T, R>(
    group: &mut Group<'_>,
    id: BenchmarkId,
    setup: impl FnOnce() -> T,
    mut round: impl FnMut(&mut T) -> R,
) {
    let (mut setup, mut state) = (Some(setup), None);
    group.bench_function(id, |b| {
        let state = state.get_or_insert_with(|| setup.take().expect("it is called once")());
        b.iter(|| round(state));
    });
}

/// A completion's result, which is to be a success.
#[inline(always)]
pub(crate) fn good(completion: &Completion) -> u32 {
    completion.result().expect("the operation succeeds")
}
