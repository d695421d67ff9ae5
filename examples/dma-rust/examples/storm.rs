// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors under storms of cancels and closes, on a loaded module: `storm DEVICE DESCRIPTORS`.
//!
//! Several threads, each with rings of its own one after another, on every CPU but the one that takes the engine's interrupts. Each
//! entry must complete once, with a result that its history allows; when all is over the engine must have finished or stopped
//! all that was posted, and must have had no more doorbells than there were batches.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, process, thread};

use liburing_shm::opcode::{AsyncCancel, Cmd};
use liburing_shm::{Backend, CancelFlags, Errno, Ring, Wait};
use sq_dma::{Count, Event, Transfer};

const THREADS: u64 = 3;
const BATCH: u64 = 128;

/// xorshift64*: what happens differs from thread to thread, and is the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % n
    }
}

#[derive(Default)]
struct Totals {
    accepted: AtomicU64,
    batches: AtomicU64,
    finished: AtomicU64,
    canceled: AtomicU64,
    full: AtomicU64,
    closed: AtomicU64,
}

/// Reaps what is there. Returns how many transfers have ended now; in `ended` is which ones have, by `user_data`.
fn reap(ring: &mut Ring, ended: &mut [bool], totals: &Totals) -> u64 {
    let add = |to: &AtomicU64| to.fetch_add(1, Ordering::Relaxed);
    let mut reaped = 0;
    for done in ring.completion().reap() {
        if done.user_data() == u64::MAX {
            continue;
        }
        let ended = ended.get_mut(done.user_data() as usize).expect("a completion of nothing");
        assert!(!*ended, "{} completed twice", done.user_data());
        *ended = true;
        reaped += 1;
        match done.result() {
            Ok(bytes) => {
                assert!(bytes > 0 && bytes <= 900_000_000, "{bytes}");
                add(&totals.finished);
            }
            Err(Errno::ECANCELED) => drop(add(&totals.canceled)),
            Err(Errno::EBUSY) => drop(add(&totals.full)),
            Err(error) => panic!("{error}"),
        }
    }
    reaped
}

/// One ring, used until it is closed: every second one when all has completed, the others with whatever is in flight.
fn ring(backend: &Backend, random: &mut Random, totals: &Totals) -> Result<(), liburing_shm::Error> {
    // Never in want of a slot or a request, so that no batch is drained in two parts: the engine holds fewer than half of these.
    let mut ring = Ring::builder(256).cq_entries(1024).max_inflight(512).build(backend)?;
    let (mut pushed, mut reaped, mut ended) = (0u64, 0u64, Vec::new());
    let add = |to: &AtomicU64| to.fetch_add(1, Ordering::Relaxed);
    for _ in 0..random.below(40) {
        let first = pushed;
        for n in first..first + 1 + random.below(BATCH) {
            // Most end in a tick or two; some would last for a second.
            let bytes = if random.below(8) == 0 { 900_000_000 } else { 1 + random.below(100_000) as u32 };
            if ring.submission().push(Cmd::new(&Transfer { bytes }).build().user_data(n)).is_err() {
                break;
            }
            pushed += 1;
        }
        ended.resize(pushed as usize, false);
        let transfers = pushed - first;
        if transfers > 0 {
            add(&totals.batches);
        }
        // Some of this batch, which then ends before or after it was begun; and some of before.
        for _ in 0..random.below(6) {
            let victim = random.below(pushed + 1);
            let _ = ring.submission().push(AsyncCancel::user_data(victim).build().user_data(u64::MAX));
        }
        ring.submit()?;
        totals.accepted.fetch_add(transfers, Ordering::Relaxed);
        if random.below(4) == 0 {
            cancel_all(&ring)?;
        }
        reaped += reap(&mut ring, &mut ended, totals);
    }
    if random.below(2) == 0 {
        cancel_all(&ring)?;
        while reaped < pushed {
            ring.submitter().wait(&Wait::new(1).timeout(Duration::from_secs(20)))?;
            reaped += reap(&mut ring, &mut ended, totals);
        }
    }
    totals.closed.fetch_add(pushed - reaped, Ordering::Relaxed);
    Ok(())
}

/// The other way to cancel, which needs no entry.
fn cancel_all(ring: &Ring) -> Result<(), liburing_shm::Error> {
    match ring.submitter().cancel(CancelFlags::ANY | CancelFlags::ALL, 0, 0) {
        Err(error) if !matches!(error.errno(), Some(Errno::ENOENT | Errno::EALREADY)) => Err(error),
        _ => Ok(()),
    }
}

fn count(backend: &Backend, event: Event) -> u64 {
    let device = backend.open().expect("the device opens");
    device.issue(&Cmd::new(&Count { event: event as u32 }).build()).expect("a counter").into()
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let [_, device, descriptors] = &arguments[..] else {
        eprintln!("usage: storm DEVICE DESCRIPTORS");
        process::exit(2);
    };
    let wanted: u64 = descriptors.parse().expect("a number of descriptors");
    let backend = Backend::device(device);
    let before = [Event::Posted, Event::Doorbell].map(|event| count(&backend, event));
    let totals = Totals::default();
    thread::scope(|scope| {
        for n in 1..=THREADS {
            let (backend, totals) = (&backend, &totals);
            scope.spawn(move || {
                let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (n << 32));
                // What found the engine full was no descriptor.
                let full = || totals.full.load(Ordering::Relaxed);
                while totals.accepted.load(Ordering::Relaxed).saturating_sub(full()) < wanted {
                    ring(backend, &mut random, totals).expect("a ring works");
                }
            });
        }
    });
    let load = |total: &AtomicU64| total.load(Ordering::Relaxed);
    let posted = count(&backend, Event::Posted);
    let (finished, stopped) = (count(&backend, Event::Finished), count(&backend, Event::Stopped));
    println!(
        "{device}: {} entries: {} finished, {} canceled, {} found the engine full, {} in flight or unreaped at a close",
        load(&totals.accepted),
        load(&totals.finished),
        load(&totals.canceled),
        load(&totals.full),
        load(&totals.closed)
    );
    let doorbells = count(&backend, Event::Doorbell) - before[1];
    println!("engine: {posted} posted, {finished} finished, {stopped} stopped, {doorbells} doorbells");
    assert_eq!(posted, finished + stopped, "something is still in the engine, or was ended twice");
    assert!(finished >= load(&totals.finished) && stopped >= load(&totals.canceled));
    assert!(posted - before[0] + load(&totals.full) <= load(&totals.accepted));
    assert!(doorbells <= load(&totals.batches), "more doorbells than batches");
}
