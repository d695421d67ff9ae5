// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the cost of an operation depends on how many rings there are, or how large they are.
//!
//! Memory has its own opinion: a thousand rings are not in the cache. The same walk over bare rings, one of which has as many entries
//! and does nothing but write and read them, shows how much of the difference is that.

use criterion::{Criterion, Throughput};
use liburing_shm::Ring;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sq_bench::bare::{Bare, Snapshot};

use crate::host::{CALL, Group, Host, homes, id, row};
use crate::queue::round;

const RINGS: [usize; 4] = [1, 10, 100, 1000];
const ENTRIES: [u32; 4] = [1, 32, 1024, 32768];
const BATCH: u32 = 32;

pub(crate) fn rows(c: &mut Criterion, _: &Host) {
    raise_limit();
    let homes = homes(sq_null::Null);
    let mut group = c.benchmark_group("many rings");
    group.throughput(Throughput::Elements(BATCH.into()));
    for count in RINGS {
        for home in &homes {
            let ring = || Ring::builder(BATCH).build(&home.backend).expect("a ring");
            let id = id(format_args!("ring {} caller", home.name), home.crosses, count);
            each(&mut group, id, count, ring, |ring| round(ring, BATCH));
        }
        let bare = || Bare::new(BATCH as usize);
        each(&mut group, id("bare ring", CALL, count), count, bare, |ring| {
            ring.round::<Snapshot>(BATCH);
        });
    }
    group.finish();
    for batch in [1, BATCH] {
        let mut group = c.benchmark_group(format!("many entries at batch {batch}"));
        group.throughput(Throughput::Elements(batch.into()));
        for entries in ENTRIES.into_iter().filter(|entries| *entries >= batch) {
            for home in &homes {
                let ring = || Ring::builder(entries).build(&home.backend).expect("a ring");
                let id = id(format_args!("ring {} caller", home.name), home.crosses, entries);
                row(
                    &mut group,
                    id,
                    || touched(ring(), 2 * entries / batch, |ring| round(ring, batch)),
                    |ring| round(ring, batch),
                );
            }
            let bare = || Bare::new(entries as usize);
            let bare_round = |ring: &mut Bare| {
                ring.round::<Snapshot>(batch);
            };
            row(
                &mut group,
                id("bare ring", CALL, entries),
                || touched(bare(), entries / batch, bare_round),
                bare_round,
            );
        }
        group.finish();
    }
}

/// One of `count` after the other.
fn each<T>(
    group: &mut Group<'_>,
    id: criterion::BenchmarkId,
    count: usize,
    make: impl Fn() -> T,
    round: impl Fn(&mut T),
) {
    let all = || ((0..count).map(|_| touched(make(), 2, &round)).collect::<Vec<T>>(), 0);
    row(group, id, all, |(all, next)| {
        round(&mut all[*next]);
        *next = if *next + 1 == count { 0 } else { *next + 1 };
    });
}

/// A ring all of whose pages are there: `rounds` take it once around.
fn touched<T>(mut ring: T, rounds: u32, round: impl Fn(&mut T)) -> T {
    (0..rounds).for_each(|_| round(&mut ring));
    ring
}

/// A device's ring is an open file.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, making the rings fails and says why.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
