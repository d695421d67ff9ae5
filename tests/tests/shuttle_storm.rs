// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random schedules of more threads than loom can take: three submitters, a reaper, two waiters, a canceler, whoever completes, who drains, and
//! the end of the ring. A wake-up that is lost is a deadlock; whatever was accepted has one completion (SUB-2).
//!
//! `SQ_LONG` makes it minutes, from another seed each time. A schedule that fails is printed; `SQ_SCHEDULE=STRING` with
//! `storm_of_random_schedules` replays it.
#![cfg(shuttle)]

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::process::Command;
use std::sync::Arc;

use kmod_sq::{Host, Ring, RingRef};
use liburing_shm::ring::{Consumer, Producer};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::{Condvar, Mutex};
use shuttle::{Config, FailurePersistence, Runner, thread};
use sq_conformance::checkers::model_host::{Model, ModelHost, Shape, lock};
use sq_conformance::checkers::shuttle_mem::{ShuttleMem, Weaken};
use sq_driver::{Driver, Errno, Issued, Op, Opcodes, Request, RequestId, op};
use sq_uapi::consts::{cancel_flags, setup_flags, sqe_flags};
use sq_uapi::{Cqe, Fence, SqCancel, SqEnter, SqQuiesce, Sqe};

const SUBMITTERS: u64 = 3;
/// Entries of each. The last wants to hear of no success.
const ENTRIES: u64 = 5;

fn is_quiet(user_data: u64) -> bool {
    user_data % ENTRIES == ENTRIES - 1
}

/// A driver that answers a NOP at once, and holds it if the entry says ASYNC. A command is held until it is canceled.
#[derive(Default)]
struct Holder {
    held: Mutex<Held>,
    wake: Condvar,
    deaf: bool,
}

#[derive(Default)]
struct Held {
    /// These end by themselves,
    bounded: Vec<Request>,
    /// and these do not.
    endless: Vec<Request>,
    ended: bool,
}

impl Holder {
    /// What a thread does that completes what was deferred, in any order.
    fn complete_all(&self) {
        loop {
            let mut held = lock(&self.held);
            while held.bounded.is_empty() {
                if held.ended {
                    return;
                }
                held = self.wake.wait(held).unwrap();
            }
            let at = thread_rng().gen_range(0..held.bounded.len());
            let request = held.bounded.swap_remove(at);
            drop(held);
            request.complete(Ok(1));
        }
    }

    fn end(&self) {
        lock(&self.held).ended = true;
        self.wake.notify_all();
    }
}

impl Driver for Holder {
    const NAME: &'static CStr = c"holder";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::NOP).with(op::CMD);

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        if op.entry().opcode() == op::CMD {
            return match op.defer_indefinite() {
                Ok((request, issued)) => {
                    lock(&self.held).endless.push(request);
                    issued
                }
                Err(busy) => busy,
            };
        }
        if !op.entry().wants_async() {
            return op.done(0);
        }
        let (request, issued) = op.defer();
        lock(&self.held).bounded.push(request);
        self.wake.notify_all();
        issued
    }

    fn cancel(&self, id: RequestId) {
        if self.deaf && id.raw().is_multiple_of(3) {
            return;
        }
        let found = {
            let mut held = lock(&self.held);
            let Held { bounded, endless, .. } = &mut *held;
            [bounded, endless].into_iter().find_map(|requests| {
                let at = requests.iter().position(|request| request.id() == id)?;
                Some(requests.swap_remove(at))
            })
        };
        if let Some(request) = found {
            request.complete(Err(Errno::ECANCELED));
        }
    }
}

/// Anything of it may happen on another thread at any moment.
struct World {
    ring: RingRef<ModelHost>,
    mem: ShuttleMem,
    driver: Arc<Holder>,
    worker: bool,
    /// Ends by being closed in the middle, or when all is done.
    early: bool,
    /// The reaper sleeps in ENTER, not as poll(2) does.
    enters: bool,
    /// The producer, and what was published, in its order.
    producer: Mutex<(Producer<ShuttleMem>, Vec<u64>)>,
}

/// One of the entries that there are.
fn some_entry(user_data: u64, early: bool) -> Sqe {
    let (opcode, flags) = match thread_rng().gen_range(0..7u32) {
        0..=2 => (op::NOP, 0),
        // Only where somebody ends it.
        6 if early => (op::CMD, 0),
        _ => (op::NOP, sqe_flags::ASYNC),
    };
    let quiet = if is_quiet(user_data) { sqe_flags::CQE_SKIP_SUCCESS } else { 0 };
    Sqe { opcode, flags: flags | quiet, user_data, ..Sqe::NOP }
}

/// For those who look again and again.
#[derive(Default)]
struct Patience(u32);

impl Patience {
    /// Lets others have theirs.
    fn turn(&mut self, ring: &Ring<ModelHost>) {
        self.0 += 1;
        assert!(self.0 < 10_000, "BELL-1, CQ-2: it stands still: {:?}", ring.look());
        thread::yield_now();
    }
}

impl World {
    fn new(weaken: Weaken) -> Self {
        let mut random = thread_rng();
        let mode = random.gen_range(0..3usize);
        let flags = [0, setup_flags::WORKER, setup_flags::SQPOLL][mode];
        let sq_entries = 1 << random.gen_range(0..3u32);
        let cq_entries = sq_entries << random.gen_range(0..2u32);
        let max_inflight = random.gen_range(1..=cq_entries);
        let shape = Shape { sq_entries, cq_entries, max_inflight, flags };
        let driver = Arc::new(Holder { deaf: weaken == Weaken::DeafDriver, ..Holder::default() });
        let Model { ring, mem, .. } = Model::new(shape, &driver, weaken);
        mem.flush_setup();
        Self {
            producer: Mutex::new((Producer::new(mem.clone()), Vec::new())),
            ring,
            mem,
            driver,
            worker: mode > 0,
            early: random.gen_range(0..2u32) == 0,
            enters: random.gen_range(0..2u32) == 0,
        }
    }

    fn ring_bell(&self) -> Result<(), Errno> {
        if !self.worker {
            // What takes the drain is a locked operation.
            self.mem.flush_user();
        }
        match self.ring.doorbell() {
            // What is there has to be reaped first.
            Ok(_) | Err(Errno::EBUSY) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn submit(&self, first: u64) {
        let mut left = first..first + ENTRIES;
        let mut patience = Patience::default();
        while !left.is_empty() {
            let bell = {
                let mut guard = lock(&self.producer);
                let (producer, published) = &mut *guard;
                let most = thread_rng().gen_range(1..=3u32).min(producer.room());
                for user_data in left.by_ref().take(most as usize) {
                    producer.push(some_entry(user_data, self.early).to_words()).unwrap();
                    published.push(user_data);
                }
                producer.publish() > 0 && (!self.worker || producer.needs_doorbell())
            };
            if bell && self.ring_bell().is_err() || self.ring.look().stopped != 0 {
                return;
            }
            patience.turn(&self.ring);
        }
    }

    /// BELL-1: also what nobody hears of is consumed, and nobody rings for it once more.
    fn await_consumed(&self) {
        let mut patience = Patience::default();
        while (self.ring.stats().entries as usize) < lock(&self.producer).1.len() {
            patience.turn(&self.ring);
        }
    }

    /// Sleeps until there is something to reap, or the ring is over: that is returned. As poll(2) does it drains nothing, so that nothing
    /// makes up for a doorbell that is lost.
    fn sleep(&self) -> bool {
        if self.enters {
            let mut enter = SqEnter { min_complete: 1, ..SqEnter::default() };
            return self.ring.enter(&mut enter).is_err() || enter.wait_result == Errno::ESHUTDOWN.to_res();
        }
        let mut over = false;
        self.ring.host().wait(None, &mut || {
            let ready = self.ring.poll();
            assert!(!ready.broken, "IDX-3: every index is in its window");
            over = ready.over;
            ready.readable || over
        });
        over
    }

    /// Reaps until there is no more to come.
    fn reap(&self) -> (Consumer, Vec<(u64, i32)>) {
        let (mut consumer, mut heard) = (Consumer::new(), Vec::new());
        let awaited = (0..SUBMITTERS * ENTRIES).filter(|n| !is_quiet(*n)).count();
        while self.early || heard.iter().filter(|(n, _)| !is_quiet(*n)).count() < awaited {
            let over = self.sleep();
            consumer.ready(&self.mem);
            let most = thread_rng().gen_range(1..=4usize);
            heard.extend((0..most).map_while(|_| consumer.pop(&self.mem)).map(result));
            if consumer.release(&self.mem) {
                let _ = self.ring_bell();
            }
            if over {
                break;
            }
        }
        (consumer, heard)
    }

    fn wait(&self) {
        for _ in 0..3 {
            let mut enter = SqEnter { min_complete: thread_rng().gen_range(1..=3), ..SqEnter::default() };
            if self.ring.enter(&mut enter).is_err() {
                return;
            }
            let known = [0, Errno::EBUSY.to_res(), Errno::ESHUTDOWN.to_res()];
            assert!(known.contains(&enter.wait_result), "WAIT-1: {}", enter.wait_result);
            thread::yield_now();
        }
    }

    fn cancel(&self) {
        for _ in 0..3 {
            let (flags, user_data) = match thread_rng().gen_range(0..3u32) {
                0 => (cancel_flags::ANY, 0),
                _ => (0, thread_rng().gen_range(0..SUBMITTERS * ENTRIES)),
            };
            let _ = self.ring.cancel(&SqCancel { flags, user_data, ..SqCancel::default() });
            thread::yield_now();
        }
    }

    /// SUB-2: of those that were consumed each has been heard of once, but for successes that nobody wanted to hear of.
    fn judge(&self, heard: &[(u64, i32)]) {
        let consumed = usize::try_from(self.ring.stats().entries).unwrap();
        let (_, published) = &*lock(&self.producer);
        let consumed_ones = &published[..consumed];
        let seen: BTreeSet<u64> = heard.iter().map(|(user_data, _)| *user_data).collect();
        assert_eq!(seen.len(), heard.len(), "SUB-2: heard of twice: {heard:?}");
        assert!(seen.iter().all(|n| consumed_ones.contains(n)), "SUB-2: {heard:?} of {consumed_ones:?}");
        assert!(
            consumed_ones.iter().all(|n| is_quiet(*n) || seen.contains(n)),
            "SUB-2: {heard:?} of {consumed_ones:?}"
        );
        assert!(heard.iter().all(|(n, res)| !is_quiet(*n) || *res < 0), "SUB-2: a quiet success in {heard:?}");
        let known = [0, 1, Errno::ECANCELED.to_res(), Errno::EBUSY.to_res()];
        assert!(heard.iter().all(|(_, res)| known.contains(res)), "{heard:?}");
        assert!(self.early || consumed == published.len(), "BELL-1: {consumed} of {published:?} are consumed");
    }
}

fn result([user_data, rest, ..]: [u64; 4]) -> (u64, i32) {
    (user_data, Cqe::from_words([user_data, rest]).res)
}

fn storm(weaken: Weaken) {
    let world = Arc::new(World::new(weaken));
    let run = |what: fn(&World)| {
        let world = Arc::clone(&world);
        thread::spawn(move || what(&world))
    };
    let drainer: fn(&Ring<ModelHost>) =
        if world.ring.geometry().mode == kmod_sq::Mode::Poll { ModelHost::run_poller } else { ModelHost::run_worker };
    let background = thread::spawn({
        let ring = world.ring.clone();
        move || drainer(&ring)
    });
    let completer = run(|world| world.driver.complete_all());
    let others = [run(World::wait), run(World::wait), run(World::cancel)];
    let reaper = thread::spawn({
        let world = Arc::clone(&world);
        move || world.reap()
    });
    let submitters: Vec<_> = (0..SUBMITTERS)
        .map(|n| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.submit(n * ENTRIES))
        })
        .collect();

    let close = || world.ring.quiesce(&SqQuiesce::default()).unwrap();
    if world.early {
        (0..thread_rng().gen_range(0..60u32)).for_each(|_| thread::yield_now());
        close();
    }
    submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
    let (mut consumer, mut heard) = reaper.join().unwrap();
    if !world.early {
        world.await_consumed();
        close();
    }
    assert_eq!(world.ring.stats().inflight, 0, "LIFE-1");
    others.into_iter().for_each(|other| other.join().unwrap());
    world.driver.end();
    completer.join().unwrap();
    world.ring.host().end_worker();
    background.join().unwrap();

    consumer.ready(&world.mem);
    heard.extend(std::iter::from_fn(|| consumer.pop(&world.mem)).map(result));
    world.judge(&heard);
    assert!(world.ring.balanced(), "CQ-5");
    let held = lock(&world.driver.held);
    assert_eq!((held.bounded.len(), held.endless.len()), (0, 0), "CAN-1, LIFE-1: the driver has some left");
}

/// In a run of its own, what is wrong.
const VARIABLE: &str = "SQ_SHUTTLE_WEAKEN";
const SCHEDULE: &str = "SQ_SCHEDULE";

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 0x2_0000;
    config.failure_persistence = FailurePersistence::Print;
    config.silence_warnings = true;
    config
}

fn explore(scheduler: impl Scheduler + 'static, weaken: Weaken) {
    Runner::new(scheduler, config()).run(move || storm(weaken));
}

/// Numbers of schedules: what takes seconds, or with `SQ_LONG` minutes.
fn times() -> (u64, usize) {
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64);
    if std::env::var_os("SQ_LONG").is_some() { (seed, 200_000) } else { (1, 6_000) }
}

#[test]
fn storm_of_random_schedules() {
    let weaken = std::env::var(VARIABLE).map_or(Weaken::Nothing, |name| {
        Weaken::ALL.into_iter().find(|weaken| format!("{weaken:?}") == name).expect("unknown weakening")
    });
    if let Ok(schedule) = std::env::var(SCHEDULE) {
        return shuttle::replay(move || storm(weaken), &schedule);
    }
    let (seed, schedules) = times();
    println!("seed {seed}, {schedules} schedules of each kind");
    explore(RandomScheduler::new_from_seed(seed, schedules), weaken);
    explore(PctScheduler::new_from_seed(seed, 5, schedules), weaken);
}

/// What the storm finds, each in a process of its own: the threads of a model that fails are left in the middle of what they did.
#[test]
fn what_is_wrong_is_found() {
    let found = |weaken: Weaken| {
        let mut run = Command::new(std::env::current_exe().unwrap());
        run.args(["--exact", "--nocapture", "storm_of_random_schedules"]).env(VARIABLE, format!("{weaken:?}"));
        let output = run.env("RUST_BACKTRACE", "0").env_remove("SQ_LONG").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let signs = ["deadlock", "BELL-1", "SUB-2", "LIFE-1", "CQ-5"];
        assert!(output.status.success() || signs.iter().any(|sign| text.contains(sign)), "{weaken:?}: {text}");
        !output.status.success()
    };
    let fences = [Fence::BellKernel, Fence::BellUser, Fence::BlockedKernel, Fence::BlockedUser].map(Weaken::Fence);
    for weaken in fences.into_iter().chain([Weaken::Twice, Weaken::Deaf, Weaken::DeafDriver]) {
        assert!(found(weaken), "{weaken:?} goes unnoticed");
        println!("{weaken:?} is noticed");
    }
}
