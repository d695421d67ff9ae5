// SPDX-License-Identifier: MIT OR Apache-2.0
//! From an idle ring to its first completion, beside what the kernel offers to wake a thread: an eventfd, a futex.
//!
//! *One way*: the other side sleeps on its processor; it is woken and answers, and the submitter looks on. *Both ways*: the submitter
//! sleeps meanwhile, and has to be woken too. Between two hand-overs there is time to fall asleep, which is not measured.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use hdrhistogram::Histogram;
use liburing_shm::Ring;
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::futex;
use sq_bench::cpu::{self, Pair};

use crate::host::{Group, Home, Host, SYSTEM, THREAD, figure, homes, id};
use crate::queue::Queue;

const GROUP: &str = "wake-up";
/// For a thread to fall asleep in.
const GAP: Duration = Duration::from_micros(100);
/// A polling thread stays awake for a millisecond at least.
const POLL_IDLE: Duration = Duration::from_millis(1);
const POLL_GAP: Duration = Duration::from_millis(5);

/// What is kept of a distribution.
const PERCENTILES: [f64; 12] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

pub(crate) fn rows(c: &mut Criterion, host: &Host) {
    let Some(pair) = host.cpus else { return };
    let mut group = c.benchmark_group(GROUP);
    // With the gaps: some ten thousand hand-overs.
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(1));
    for home in homes(sq_null::Null) {
        let ring = |builder: liburing_shm::Builder| cpu::on(pair.far, || builder.build(&home.backend).expect("a ring"));
        let Home { name, .. } = &home;
        let worker = || ring(Ring::builder(8).worker());
        ours(&mut group, &format!("ring {name} worker one way"), GAP, worker, one_way);
        ours(&mut group, &format!("ring {name} worker both ways"), GAP, worker, both_ways);
        let far = u32::try_from(pair.far).expect("a processor's number is small");
        let poll = || ring(Ring::builder(8).poll(POLL_IDLE).poll_cpu(far));
        ours(&mut group, &format!("ring {name} poll asleep one way"), POLL_GAP, poll, one_way);
    }
    peer(&mut group, "eventfd", || EventFd::new(pair));
    peer(&mut group, "futex", || Futex::new(pair));
    group.finish();
}

fn ours(
    group: &mut Group<'_>,
    name: &str,
    gap: Duration,
    setup: impl FnOnce() -> Ring,
    hand_over: impl FnMut(&mut Ring) -> Duration,
) {
    let mut bells = 0;
    let mut hand_over = hand_over;
    let count = hand_overs(group, name, THREAD, gap, setup, |ring| {
        // A busy host may have kept it from falling asleep.
        while !ring.submission().need_wakeup() {
            std::hint::spin_loop();
        }
        let before = ring.submitter().doorbells().0;
        let time = hand_over(ring);
        bells += ring.submitter().doorbells().0 - before;
        time
    });
    if count > 0 {
        figure(GROUP, &format!("{name} ({THREAD})"), 1, "doorbells/edge", bells as f64 / count as f64);
    }
}

fn one_way(ring: &mut Ring) -> Duration {
    ring.push(1);
    let start = Instant::now();
    Queue::submit(ring);
    while ring.reap() == 0 {
        std::hint::spin_loop();
    }
    start.elapsed()
}

fn both_ways(ring: &mut Ring) -> Duration {
    ring.push(1);
    let start = Instant::now();
    ring.submit_and_wait(1).expect("a null operation is accepted");
    assert_eq!(ring.reap(), 1);
    start.elapsed()
}

/// Something to wake a thread by.
trait Waker {
    /// Wakes the other side, and looks on until it has answered.
    fn one_way(&mut self);
    /// Wakes the other side, and sleeps until it has answered.
    fn both_ways(&mut self);
}

fn peer<W: Waker>(group: &mut Group<'_>, name: &str, mut setup: impl FnMut() -> W) {
    let timed = |work: fn(&mut W)| {
        move |waker: &mut W| {
            let start = Instant::now();
            work(waker);
            start.elapsed()
        }
    };
    let call = format!("{SYSTEM} and {THREAD}");
    hand_overs(group, &format!("{name} one way"), &call, GAP, &mut setup, timed(W::one_way));
    hand_overs(group, &format!("{name} both ways"), &call, GAP, &mut setup, timed(W::both_ways));
}

/// One row: returns how many hand-overs there were.
fn hand_overs<T>(
    group: &mut Group<'_>,
    name: &str,
    crosses: &str,
    gap: Duration,
    setup: impl FnOnce() -> T,
    mut once: impl FnMut(&mut T) -> Duration,
) -> u64 {
    let mut times = Histogram::<u64>::new_with_max(60_000_000_000, 3).expect("bounds that make sense");
    let (mut setup, mut state) = (Some(setup), None);
    group.bench_function(id(name, crosses, 1), |b| {
        let state = state.get_or_insert_with(|| setup.take().expect("it is called once")());
        b.iter_custom(|count| {
            let mut sum = Duration::ZERO;
            for _ in 0..count {
                // Awake: what is measured is how the other side wakes, not this one.
                let start = Instant::now();
                while start.elapsed() < gap {
                    std::hint::spin_loop();
                }
                let time = once(state);
                times.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
                sum += time;
            }
            sum
        });
    });
    // One round, to see that it works, is no distribution.
    if times.len() > 100 {
        for percentile in PERCENTILES {
            let value = times.value_at_percentile(percentile) as f64;
            figure(GROUP, &format!("{name} ({crosses})"), 1, &format!("p{percentile} ns"), value);
        }
    }
    times.len()
}

/// What the two sides of a peer share.
#[derive(Default)]
struct Turn {
    /// The last one that was answered.
    answered: AtomicU32,
    asked: AtomicU32,
}

/// The order to end.
const END: u32 = u32::MAX;
/// In a turn: whoever asked is asleep.
const BOTH: u32 = 1 << 31;

/// The turn after this one: never the same, and without the flag.
fn next(turn: u32) -> u32 {
    (turn + 1) % (BOTH >> 1)
}

struct EventFd {
    turn: Arc<Turn>,
    last: u32,
    there: File,
    back: File,
    other: Option<thread::JoinHandle<()>>,
}

impl EventFd {
    fn new(pair: Pair) -> Self {
        let make = || File::from(eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"));
        let (there, back) = (make(), make());
        let (mut asked, mut answer) = (there.try_clone().expect("a dup"), back.try_clone().expect("a dup"));
        let turn = Arc::<Turn>::default();
        let own = Arc::clone(&turn);
        let other = thread::spawn(move || {
            cpu::pin(pair.far);
            loop {
                take(&mut asked);
                let turn = own.asked.load(Ordering::Acquire);
                own.answered.store(turn & !BOTH, Ordering::Release);
                if turn == END {
                    return;
                }
                if turn & BOTH != 0 {
                    give(&mut answer);
                }
            }
        });
        Self { turn, last: 0, there, back, other: Some(other) }
    }

    fn ask(&mut self, flag: u32) -> u32 {
        self.last = next(self.last);
        self.turn.asked.store(self.last | flag, Ordering::Release);
        give(&mut self.there);
        self.last
    }
}

fn give(eventfd: &mut File) {
    eventfd.write_all(&1u64.to_ne_bytes()).expect("an eventfd takes a count");
}

fn take(eventfd: &mut File) {
    eventfd.read_exact(&mut [0; 8]).expect("an eventfd has a count");
}

impl Waker for EventFd {
    fn one_way(&mut self) {
        let turn = self.ask(0);
        while self.turn.answered.load(Ordering::Acquire) != turn {
            std::hint::spin_loop();
        }
    }

    fn both_ways(&mut self) {
        self.ask(BOTH);
        take(&mut self.back);
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        self.turn.asked.store(END, Ordering::Release);
        give(&mut self.there);
        if let Some(other) = self.other.take() {
            other.join().expect("the other side ends when it is told to");
        }
    }
}

struct Futex {
    turn: Arc<Turn>,
    last: u32,
    other: Option<thread::JoinHandle<()>>,
}

impl Futex {
    fn new(pair: Pair) -> Self {
        let turn = Arc::<Turn>::default();
        let own = Arc::clone(&turn);
        let other = thread::spawn(move || {
            cpu::pin(pair.far);
            let mut seen = 0;
            loop {
                seen = changed(&own.asked, seen);
                own.answered.store(seen & !BOTH, Ordering::Release);
                if seen == END {
                    return;
                }
                if seen & BOTH != 0 {
                    wake(&own.answered);
                }
            }
        });
        Self { turn, last: 0, other: Some(other) }
    }

    fn ask(&mut self, flag: u32) -> u32 {
        self.last = next(self.last);
        self.turn.asked.store(self.last | flag, Ordering::Release);
        wake(&self.turn.asked);
        self.last
    }
}

/// Sleeps until the word is another.
fn changed(word: &AtomicU32, seen: u32) -> u32 {
    loop {
        let now = word.load(Ordering::Acquire);
        if now != seen {
            return now;
        }
        // Woken, interrupted, or too late to sleep: the word says.
        let _ = futex::wait(word, futex::Flags::PRIVATE, seen, None);
    }
}

fn wake(word: &AtomicU32) {
    futex::wake(word, futex::Flags::PRIVATE, 1).expect("a word of one's own can be woken");
}

impl Waker for Futex {
    fn one_way(&mut self) {
        let turn = self.ask(0);
        while self.turn.answered.load(Ordering::Acquire) != turn {
            std::hint::spin_loop();
        }
    }

    fn both_ways(&mut self) {
        let before = self.turn.answered.load(Ordering::Acquire);
        self.ask(BOTH);
        changed(&self.turn.answered, before);
    }
}

impl Drop for Futex {
    fn drop(&mut self) {
        self.turn.asked.store(END, Ordering::Release);
        wake(&self.turn.asked);
        if let Some(other) = self.other.take() {
            other.join().expect("the other side ends when it is told to");
        }
    }
}
