// SPDX-License-Identifier: MIT OR Apache-2.0
//! A queue that never runs dry: the submitter pushes as fast as the other side takes, with at most 256 operations in flight.
//! The submitter is on one processor, the thread that serves it on another, and so for io_uring's.
//!
//! A worker that does nothing but null operations is done with them before the next are pushed, and is not saturated. One that
//! copies 64 KiB for each is.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use io_uring::IoUring;
use liburing_shm::opcode::{ReadFixed, Target};
use liburing_shm::{CompletionQueue, Entry, Error, PushError, Ring, SharedSubmissionQueue, opcode};
use sq_bench::cpu::{self, Pair};

use crate::host::{Group, Home, Host, SYSTEM, THREAD, figure, good, homes, id};
use crate::null::{BATCHES, polled};
use crate::queue::{DEPTH, Queue, steady};

const GROUP: &str = "steady load";

pub(crate) fn rows(c: &mut Criterion, host: &Host) {
    let Some(pair) = host.cpus else { return };
    let mut group = c.benchmark_group(GROUP);
    let homes = homes(sq_null::Null);
    ping_pong(&mut group, pair);
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch.into()));
        for home in &homes {
            let worker = || Ring::builder(2 * DEPTH).worker().build(&home.backend).expect("a ring");
            ours(&mut group, &format!("ring {} worker", home.name), THREAD, batch, || cpu::on(pair.far, worker));
            let poll = || cpu::on(pair.far, || polled(home, pair.far));
            ours(&mut group, &format!("ring {} poll", home.name), THREAD, batch, poll);
            let caller = || Ring::builder(2 * DEPTH).build(&home.backend).expect("a ring");
            ours(&mut group, &format!("ring {} caller", home.name), home.crosses, batch, caller);
        }
        if host.io_uring {
            let cpu = u32::try_from(pair.far).expect("a processor's number is small");
            let mut setup = IoUring::builder();
            setup.setup_sqpoll(1000).setup_sqpoll_cpu(cpu);
            let polling = || setup.build(2 * DEPTH).expect("an io_uring with a polling thread");
            theirs(&mut group, "io_uring SQPOLL NOP", THREAD, batch, polling);
            theirs(&mut group, "io_uring NOP", SYSTEM, batch, || IoUring::new(2 * DEPTH).expect("an io_uring"));
        }
    }
    saturated(&mut group, pair);
    for batch in BATCHES {
        group.throughput(Throughput::Elements(u64::from(batch) * 2));
        for home in &homes {
            two_on_one(&mut group, home, pair, batch);
            two_on_two(&mut group, home, pair, batch);
        }
        if host.io_uring {
            two_on_one_uring(&mut group, pair, batch);
        }
    }
    group.finish();
}

fn theirs(group: &mut Group<'_>, name: &str, crosses: &str, batch: u32, setup: impl FnOnce() -> IoUring) {
    let (mut setup, mut queue) = (Some(setup), None);
    group.bench_function(id(name, crosses, batch), |b| {
        let queue = queue.get_or_insert_with(|| setup.take().expect("it is called once")());
        b.iter_custom(|batches| steady(queue, batch, batches));
    });
}

/// And counts doorbells.
fn ours(group: &mut Group<'_>, name: &str, crosses: &str, batch: u32, setup: impl FnOnce() -> Ring) {
    let (mut setup, mut ring) = (Some(setup), None);
    let (mut batches_done, mut bells) = (0, 0);
    group.bench_function(id(name, crosses, batch), |b| {
        let ring = ring.get_or_insert_with(|| setup.take().expect("it is called once")());
        b.iter_custom(|batches| {
            // The first batch wakes whoever serves it; what is counted is from then on.
            steady(ring, batch, 1);
            let before = ring.submitter().doorbells().0;
            let time = steady(ring, batch, batches);
            bells += ring.submitter().doorbells().0 - before;
            batches_done += batches;
            time
        });
    });
    if batches_done > 0 {
        let row = format!("{name} ({crosses})");
        figure(GROUP, &row, batch, "doorbells/batch", bells as f64 / batches_done as f64);
        figure(GROUP, &row, batch, "doorbells/op", bells as f64 / batches_done as f64 / f64::from(batch));
    }
}

/// A worker that has more to do than there is time for: a round is so many batches that it never catches up.
fn saturated(group: &mut Group<'_>, pair: Pair) {
    const BYTES: u32 = 64 << 10;
    const BATCH: u32 = 32;
    const BATCHES: u64 = 16;
    let per_round = u64::from(BATCH) * BATCHES;
    group.throughput(Throughput::Elements(per_round));
    for home in homes(sq_ram::Ram::in_process(BYTES as usize).expect("a store in this process")) {
        let name = format!("ring {} worker copying 64 KiB", home.name);
        let (mut queue, mut bells, mut rounds_done) = (None, 0, 0);
        group.bench_function(id(&name, THREAD, BATCH), |b| {
            let queue = queue.get_or_insert_with(|| {
                let ring = || Ring::builder(2 * DEPTH).worker().pool(1, BYTES).build(&home.backend).expect("a ring");
                Copying(cpu::on(pair.far, ring), ReadFixed::new(Target::Device, 0, 0, BYTES).build())
            });
            b.iter_custom(|rounds| {
                let before = queue.0.submitter().doorbells().0;
                let time = steady(queue, BATCH, rounds * BATCHES);
                bells += queue.0.submitter().doorbells().0 - before;
                rounds_done += rounds;
                time
            });
        });
        if rounds_done > 0 {
            let each = bells as f64 / (rounds_done * per_round) as f64;
            figure(GROUP, &format!("{name} ({THREAD})"), BATCH, "doorbells/op", each);
        }
    }
}

/// A ring whose operations are this one.
struct Copying(Ring, Entry);

impl Queue for Copying {
    fn push(&mut self, count: u32) -> u32 {
        let sq = self.0.submission();
        (0..count).find(|_| sq.push(self.1).is_err()).unwrap_or(count)
    }

    fn submit(&mut self) {
        Queue::submit(&mut self.0);
    }

    fn reap(&mut self) -> u32 {
        let whole = |done| u32::from(good(&done) > 0);
        self.0.completion().reap().map(whole).sum()
    }
}

/// What moving one cache line to the other processor and back takes.
fn ping_pong(group: &mut Group<'_>, pair: Pair) {
    group.throughput(Throughput::Elements(1));
    group.bench_function(id("cache line there and back", THREAD, 1), |b| {
        b.iter_custom(|rounds| {
            let rounds = u32::try_from(rounds).unwrap_or(u32::MAX / 2);
            let ball = AtomicU32::new(0);
            let wait_for = |turn| {
                while ball.load(Ordering::Acquire) != turn {
                    std::hint::spin_loop();
                }
            };
            thread::scope(|scope| {
                scope.spawn(|| {
                    cpu::pin(pair.far);
                    for turn in 0..=rounds {
                        wait_for(2 * turn + 1);
                        ball.store(2 * turn + 2, Ordering::Release);
                    }
                });
                // The first round waits for the thread.
                ball.store(1, Ordering::Release);
                wait_for(2);
                let start = Instant::now();
                for turn in 1..=rounds {
                    ball.store(2 * turn + 1, Ordering::Release);
                    wait_for(2 * turn + 2);
                }
                start.elapsed()
            })
        });
    });
}

/// Two threads submit to one ring; the first reaps for both.
fn two_on_one(group: &mut Group<'_>, home: &Home, pair: Pair, batch: u32) {
    let name = format!("ring {} caller two submitters", home.name);
    let entries = vec![opcode::Nop::new().build(); batch as usize];
    let mut halves = None;
    group.bench_function(id(name, home.crosses, batch), |b| {
        let (sq, cq) = halves.get_or_insert_with(|| {
            let (_, sq, cq) = Ring::builder(2 * DEPTH).build(&home.backend).expect("a ring").split();
            (sq.share(), cq)
        });
        b.iter_custom(|batches| shared(sq, cq, &entries, batches, pair));
    });
}

fn shared(
    sq: &SharedSubmissionQueue,
    cq: &mut CompletionQueue,
    entries: &[Entry],
    batches: u64,
    pair: Pair,
) -> Duration {
    // Whether it was taken; there may be no room while the other one's are in the way.
    let submit = || match sq.submit(entries) {
        Ok(()) => true,
        Err(Error::Push(PushError::Full)) => false,
        Err(error) => panic!("a null operation is accepted: {error}"),
    };
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            cpu::pin(pair.far);
            for _ in 0..batches {
                while !submit() {
                    std::hint::spin_loop();
                }
            }
        });
        let (mut left, mut unreaped) = (batches, 2 * batches * entries.len() as u64);
        while unreaped > 0 {
            if left > 0 && submit() {
                left -= 1;
            }
            unreaped -= cq.reap().map(|done| u64::from(1 + good(&done))).sum::<u64>();
        }
    });
    start.elapsed()
}

/// Two threads, each with a ring of its own.
fn two_on_two(group: &mut Group<'_>, home: &Home, pair: Pair, batch: u32) {
    let name = format!("two rings {} caller a submitter each", home.name);
    let mut rings = None;
    group.bench_function(id(name, home.crosses, batch), |b| {
        let ring = || Ring::builder(2 * DEPTH).build(&home.backend).expect("a ring");
        let (near, far) = rings.get_or_insert_with(|| (ring(), ring()));
        b.iter_custom(|batches| {
            let start = Instant::now();
            thread::scope(|scope| {
                scope.spawn(|| {
                    cpu::pin(pair.far);
                    steady(far, batch, batches)
                });
                steady(near, batch, batches);
            });
            start.elapsed()
        });
    });
}

/// As [`two_on_one`]: io_uring wants one submitter at a time.
fn two_on_one_uring(group: &mut Group<'_>, pair: Pair, batch: u32) {
    let mut uring = None;
    group.bench_function(id("io_uring NOP two submitters", SYSTEM, batch), |b| {
        let uring = &*uring.get_or_insert_with(|| Mutex::new(IoUring::new(2 * DEPTH).expect("an io_uring")));
        b.iter_custom(|batches| {
            let total = 2 * batches * u64::from(batch);
            let one = |reaped: &mut u64| {
                let mut uring = uring.lock().unwrap_or_else(PoisonError::into_inner);
                assert_eq!(uring.push(batch), batch, "what was submitted before has been taken");
                Queue::submit(&mut *uring);
                *reaped += u64::from(uring.reap());
            };
            let start = Instant::now();
            let run = || {
                let mut reaped = 0;
                (0..batches).for_each(|_| one(&mut reaped));
                reaped
            };
            let reaped = thread::scope(|scope| {
                let far = scope.spawn(|| {
                    cpu::pin(pair.far);
                    run()
                });
                run() + far.join().expect("the other submitter")
            });
            assert_eq!(reaped, total, "a NOP completes in its submission");
            start.elapsed()
        });
    });
}
