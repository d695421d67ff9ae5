// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one thread that a ring has when it needs one: worker, polling thread and clock.
//!
//! It is started by the first call that needs it, sleeps while there is nothing to do, and ends when the ring's owner goes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kmod_sq::{Host, Mode, Notify, Polled, Poller, Ring, RingRef};
use rustix::thread::CpuSet;

use super::host::{ProcessHost, lock, now_ns};

/// Turns of the polling thread between two offers of its CPU to others.
const SPINS: u32 = 64;

pub(super) struct Background {
    asked: Mutex<Asked>,
    wake: Condvar,
    /// When the polling thread is to leave its ring: the time of the alarm, 0 to end, [`CALM`] if not. A hint, read without the lock.
    attention: AtomicU64,
}

const CALM: u64 = u64::MAX;

#[derive(Default)]
struct Asked {
    work: bool,
    alarm: Option<u64>,
    stopped: bool,
    thread: Option<JoinHandle<()>>,
    /// The ring, while something is asked for and no thread could be had.
    lacking: Option<RingRef<ProcessHost>>,
}

impl Default for Background {
    fn default() -> Self {
        Self { asked: Mutex::default(), wake: Condvar::new(), attention: AtomicU64::new(CALM) }
    }
}

enum Task {
    Work,
    Alarm,
    Stop,
}

/// Has [`Ring::work`] called soon.
pub(super) fn ring(ring: &Ring<ProcessHost>) {
    ask(ring, |asked| asked.work = true);
}

/// Has [`Ring::alarm`] called at `at_ns`.
pub(super) fn alarm(ring: &Ring<ProcessHost>, at_ns: u64) {
    let attention = &ring.host().background().attention;
    ask(ring, |asked| {
        asked.alarm = Some(asked.alarm.map_or(at_ns, |old| old.min(at_ns)));
        attention.fetch_min(at_ns.max(1), Ordering::Relaxed);
    });
}

/// Starts the thread, for a ring that cannot do without.
pub(super) fn start(ring: &Ring<ProcessHost>) -> io::Result<()> {
    lock(&ring.host().background().asked).start(ring)
}

/// Whether the calling thread, and so one that it starts, may run on `cpu`.
pub(super) fn may_run_on(cpu: u32) -> bool {
    let cpu = cpu as usize;
    cpu < CpuSet::MAX_CPU && rustix::thread::sched_getaffinity(None).is_ok_and(|set| set.is_set(cpu))
}

fn ask(ring: &Ring<ProcessHost>, what: impl FnOnce(&mut Asked)) {
    let background = ring.host().background();
    let mut asked = lock(&background.asked);
    if asked.stopped {
        return;
    }
    what(&mut asked);
    if asked.thread.is_some() {
        background.wake.notify_one();
    } else if asked.start(ring).is_err() {
        // The process is out of resources. The next call that asks tries again, and so does whoever waits meanwhile.
        asked.lacking = Some(ring.keep());
        drop(asked);
        ring.host().notify(Notify { waiters: true, eventfd: false });
    }
}

impl Asked {
    fn start(&mut self, ring: &Ring<ProcessHost>) -> io::Result<()> {
        let own = ring.keep();
        self.thread = Some(std::thread::Builder::new().name("sq-worker".into()).spawn(move || run(&own))?);
        // Not the last reference: the thread has one.
        self.lacking = None;
        Ok(())
    }
}

impl Background {
    /// Whether something is asked for that there is no thread for, and none can be had now either.
    pub(super) fn lacks_thread(&self) -> bool {
        let mut asked = lock(&self.asked);
        let Some(ring) = asked.lacking.take() else { return false };
        if asked.start(&ring).is_ok() {
            return false;
        }
        asked.lacking = Some(ring);
        true
    }

    /// Ends the thread, after what it is doing.
    pub(super) fn stop(&self) {
        let (thread, _lacking) = {
            let mut asked = lock(&self.asked);
            asked.stopped = true;
            self.attention.store(0, Ordering::Relaxed);
            self.wake.notify_one();
            (asked.thread.take(), asked.lacking.take())
        };
        // A ring that is dropped by its own thread (in a driver's completion) cannot wait for it.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }

    fn attention(&self) -> bool {
        let at = self.attention.load(Ordering::Relaxed);
        at != CALM && (at == 0 || at <= now_ns())
    }

    fn next(&self) -> Task {
        let mut asked = lock(&self.asked);
        loop {
            if asked.stopped {
                return Task::Stop;
            }
            let left = asked.alarm.map(|at| at.saturating_sub(now_ns()));
            if left == Some(0) {
                asked.alarm = None;
                self.attention.store(CALM, Ordering::Relaxed);
                return Task::Alarm;
            }
            if std::mem::take(&mut asked.work) {
                return Task::Work;
            }
            asked = match left {
                None => self.wake.wait(asked).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.wake.wait_timeout(asked, Duration::from_nanos(left));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

fn run(ring: &RingRef<ProcessHost>) {
    let background = ring.host().background();
    let poll = ring.geometry().mode == Mode::Poll;
    if let Some(cpu) = ring.geometry().cpu {
        let mut set = CpuSet::new();
        set.set(cpu as usize);
        // It was allowed at setup; one that has gone since is a preference that cannot be met.
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
    loop {
        match background.next() {
            Task::Stop => {
                // What was issued since the ring was quiesced is not canceled yet, and nobody else comes to do it.
                ring.work();
                return;
            }
            Task::Alarm => ring.alarm(),
            Task::Work if poll => poll_until_idle(ring, background),
            Task::Work => ring.work(),
        }
    }
}

/// The thread while it polls. It has the process's memory and credentials anyway.
struct Turn<'b> {
    background: &'b Background,
    spins: u32,
}

impl Poller for Turn<'_> {
    fn busy(&mut self) -> bool {
        true
    }

    fn relax(&mut self) {
        self.spins = self.spins.wrapping_add(1);
        if self.spins.is_multiple_of(SPINS) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }

    fn leaves(&mut self) -> bool {
        self.background.attention()
    }
}

fn poll_until_idle(ring: &Ring<ProcessHost>, background: &Background) {
    if ring.poll_awake(&mut Turn { background, spins: 0 }) == Polled::Again || background.attention() {
        // Somebody rang, or the clock wants its turn first.
        lock(&background.asked).work = true;
    }
}
