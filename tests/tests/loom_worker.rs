// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models of a kernel side that sleeps: worker and polling thread against a submitter (BELL-1), a full completion queue
//! against its reaper (CQ-2). A wake-up that is lost is a deadlock or an entry without completion.
#![cfg(loom)]

use std::sync::Arc;

use liburing_shm::ring::{Consumer, Producer};
use loom::thread;
use sq_conformance::checkers::loom_mem::{LoomMem, Weaken};
use sq_conformance::checkers::loom_run::{explore, matrix, must_fail};
use sq_conformance::checkers::model_host::{Holder, Model, ModelHost, Shape, nop};
use sq_uapi::consts::{register_op, setup_flags};
use sq_uapi::{Fence, SqRegister};

use kmod_sq::{Host, Ring, RingRef};

/// Preemptive switches that are explored.
const PREEMPTIONS: Option<usize> = Some(3);

/// The user half of a ring that somebody else drains: it rings only when it is told to.
struct User<'a> {
    ring: &'a Ring<ModelHost>,
    mem: LoomMem,
    producer: Producer<LoomMem>,
    consumer: Consumer,
    bells: u32,
}

impl<'a> User<'a> {
    fn new(ring: &'a Ring<ModelHost>, mem: &LoomMem) -> Self {
        Self { ring, mem: mem.clone(), producer: Producer::new(mem.clone()), consumer: Consumer::new(), bells: 0 }
    }

    fn ring_bell(&mut self) {
        self.bells += 1;
        // EBUSY: the ring is blocked, and what is there has to be reaped first.
        let _ = self.ring.doorbell();
    }

    fn submit(&mut self, user_data: u64) {
        self.producer.push(nop(user_data, 0)).unwrap();
        self.producer.publish();
        if self.producer.needs_doorbell() {
            self.ring_bell();
        }
    }

    /// Sleeps as poll(2) does: it does not drain, so that nothing makes up for a lost wake-up.
    fn sleep_until_ready(&self) {
        self.ring.host().wait(None, &mut || self.ring.poll().readable);
    }

    fn reap_one(&mut self) -> u64 {
        self.consumer.ready(&self.mem);
        let cqe = self.consumer.pop(&self.mem).unwrap();
        if self.consumer.release(&self.mem) {
            self.ring_bell();
        }
        cqe[0]
    }
}

/// The kernel side that these flags ask for, on a thread of its own.
fn awake(ring: &RingRef<ModelHost>, flags: u32) -> thread::JoinHandle<()> {
    let ring = ring.clone();
    thread::spawn(move || {
        if flags & setup_flags::SQPOLL != 0 {
            ModelHost::run_poller(&ring);
        } else {
            ModelHost::run_worker(&ring);
        }
    })
}

/// A submitter that rings only when it sees NEED_WAKEUP, against a drain that goes idle: neither sleeps while there is work.
fn idle(flags: u32, weaken: Weaken) {
    let shape = Shape { sq_entries: 2, cq_entries: 2, max_inflight: 1, flags };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let worker = awake(&ring, flags);
    let mut user = User::new(&ring, &mem);
    for n in 1..=2 {
        user.submit(n);
        user.sleep_until_ready();
        assert_eq!(user.reap_one(), n, "SUB-2");
    }
    // BELL-2: none while the kernel side is awake, at most one for each time it went idle.
    assert!((1..=2).contains(&user.bells), "BELL-2: {} doorbells", user.bells);
    ring.host().end_worker();
    worker.join().unwrap();
    assert!(ring.balanced(), "CQ-5");
}

/// A kernel side that was woken before its ring is enabled, and looks at it while that happens.
fn enabled(flags: u32, weaken: Weaken) {
    let flags = flags | setup_flags::R_DISABLED;
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    ModelHost::work(&ring);
    let worker = awake(&ring, flags);
    ring.register(&SqRegister { op: register_op::ENABLE_RINGS, ..SqRegister::default() }).unwrap();
    let mut user = User::new(&ring, &mem);
    user.submit(1);
    user.sleep_until_ready();
    assert_eq!(user.reap_one(), 1, "SUB-2");
    ring.host().end_worker();
    worker.join().unwrap();
}

fn worker_enabled(weaken: Weaken) {
    enabled(setup_flags::WORKER, weaken);
}

fn poller_enabled(weaken: Weaken) {
    enabled(setup_flags::SQPOLL, weaken);
}

fn worker_idle(weaken: Weaken) {
    idle(setup_flags::WORKER, weaken);
}

fn poller_idle(weaken: Weaken) {
    idle(setup_flags::SQPOLL, weaken);
}

/// A worker finds no slot while the reaper gives one back: the worker goes on, or the reaper rings.
fn worker_blocked(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: setup_flags::WORKER };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let worker = thread::spawn({
        let ring = ring.clone();
        move || ModelHost::run_worker(&ring)
    });
    let mut user = User::new(&ring, &mem);
    user.submit(1);
    user.sleep_until_ready();
    user.submit(2);
    assert_eq!(user.reap_one(), 1, "SUB-2");
    user.sleep_until_ready();
    assert_eq!(user.reap_one(), 2, "SUB-2");
    ring.host().end_worker();
    worker.join().unwrap();
    assert!(ring.balanced(), "CQ-5");
}

/// The same in a ring that its submitter drains, with a reaper on another thread. Once both have done their part, the second
/// entry is completed if there was a slot for it.
fn caller_blocked(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let reaper = thread::spawn({
        let (ring, mem) = (ring.clone(), mem.clone());
        move || {
            let mut consumer = Consumer::new();
            consumer.ready(&mem);
            let reaped = consumer.pop(&mem).is_some();
            let counted = ring.stats().completions;
            assert!(counted >= u64::from(reaped), "CQ-5: {counted} completions are counted, and one is reaped");
            if consumer.release(&mem) {
                // EBUSY: the slot was taken before this rang.
                let _ = ring.doorbell();
            }
            (consumer, reaped)
        }
    });
    let mut producer = Producer::new(mem.clone());
    for n in 1..=2 {
        producer.push(nop(n, 0)).unwrap();
        producer.publish();
        let _ = ring.doorbell();
    }
    let (mut consumer, reaped) = reaper.join().unwrap();
    ModelHost::run_late_worker(&ring);
    assert_eq!(consumer.ready(&mem), 1, "CQ-2: entry 2 was left behind (reaped: {reaped})");
    assert!(ring.balanced(), "CQ-5");
}

#[test]
fn bell_1_worker_idle() {
    explore(worker_idle, PREEMPTIONS);
}

#[test]
fn bell_1_poller_idle() {
    explore(poller_idle, PREEMPTIONS);
}

#[test]
fn bell_1_worker_enabled() {
    explore(worker_enabled, PREEMPTIONS);
}

#[test]
fn bell_1_poller_enabled() {
    explore(poller_enabled, PREEMPTIONS);
}

#[test]
fn cq_2_worker_blocked() {
    explore(worker_blocked, PREEMPTIONS);
}

#[test]
fn cq_2_caller_blocked() {
    explore(caller_blocked, PREEMPTIONS);
}

#[test]
fn dropped_bell_1_fences_are_noticed() {
    for program in ["bell_1_worker_idle", "bell_1_poller_idle"] {
        must_fail(program, Weaken::Fence(Fence::BellKernel));
        must_fail(program, Weaken::Fence(Fence::BellUser));
    }
}

#[test]
fn dropped_cq_2_fences_are_noticed() {
    for program in ["cq_2_caller_blocked", "cq_2_worker_blocked"] {
        must_fail(program, Weaken::Fence(Fence::BlockedKernel));
        must_fail(program, Weaken::Fence(Fence::BlockedUser));
    }
}

#[test]
#[ignore = "prints the table for docs/memory-model.md"]
fn matrix_of_weakenings() {
    matrix(&[
        "bell_1_worker_idle",
        "bell_1_poller_idle",
        "bell_1_worker_enabled",
        "bell_1_poller_enabled",
        "cq_2_worker_blocked",
        "cq_2_caller_blocked",
    ]);
}
