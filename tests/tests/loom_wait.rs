// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models of waiters in ENTER against what ends their wait (BELL-4, WAIT-1). A wake-up that is lost is a deadlock.
#![cfg(loom)]

use std::sync::Arc;

use kmod_sq::model::Site;
use liburing_shm::ring::{Consumer, Producer};
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;
use sq_conformance::checkers::loom_mem::{LoomMem, Weaken};
use sq_conformance::checkers::loom_run::{explore, matrix, must_fail};
use sq_conformance::checkers::model_host::{Holder, Model, ModelHost, Shape, nop};
use sq_uapi::consts::{cq_flags, enter_flags, register_op, setup_flags, sqe_flags};
use sq_uapi::{Errno, Fence, SqEnter, SqRegister, UserMem, UserWord};

use kmod_sq::{Ring, RingRef};

/// Preemptive switches that are explored.
const PREEMPTIONS: Option<usize> = Some(3);

/// The worker that a drain hands over to. It ends by `end_worker`.
fn spawn_worker(ring: &RingRef<ModelHost>) -> thread::JoinHandle<()> {
    let ring = ring.clone();
    thread::spawn(move || ModelHost::run_worker(&ring))
}

fn wait_for(ring: &Ring<ModelHost>, min_complete: u32, flags: u32) -> i32 {
    let mut enter = SqEnter { min_complete, flags, ..SqEnter::default() };
    ring.enter(&mut enter).unwrap();
    enter.wait_result
}

fn submit(ring: &Ring<ModelHost>, producer: &mut Producer<LoomMem>, entries: &[[u64; 8]]) {
    for entry in entries {
        producer.push(*entry).unwrap();
    }
    producer.publish();
    let _ = ring.doorbell();
}

/// Completions come from another thread while one waiter wants one of them and another both.
fn two_waiters(weaken: Weaken) {
    let shape = Shape { sq_entries: 2, cq_entries: 2, max_inflight: 2, flags: 0 };
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(shape, &driver, weaken);
    let held = nop(1, sqe_flags::ASYNC);
    submit(&ring, &mut Producer::new(mem), &[held, held]);
    let completer = thread::spawn(move || {
        for _ in 0..2 {
            driver.take().unwrap().complete(Ok(0));
        }
    });
    let other = thread::spawn({
        let ring = ring.clone();
        move || assert_eq!(wait_for(&ring, 1, 0), 0)
    });
    assert_eq!(wait_for(&ring, 2, 0), 0);
    other.join().unwrap();
    completer.join().unwrap();
    assert!(ring.balanced(), "CQ-5");
}

/// One thread waits for a completion that the drain owner posts without the lock, and sees it when it is woken (BELL-4).
fn inline_waiter(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let worker = spawn_worker(&ring);
    let submitter = thread::spawn({
        let (ring, mem) = (ring.clone(), mem.clone());
        move || submit(&ring, &mut Producer::new(mem), &[nop(7, 0)])
    });
    assert_eq!(wait_for(&ring, 1, 0), 0);
    let mut consumer = Consumer::new();
    assert_eq!(consumer.ready(&mem), 1, "WAIT-1: what the wait ended for is there to reap");
    assert_eq!(consumer.pop(&mem).unwrap()[0], 7);
    submitter.join().unwrap();
    ring.host().end_worker();
    worker.join().unwrap();
}

/// One thread waits for the ring to be idle, and then finds what led to it: the completion that another thread's drain posted.
fn idle_waiter_inline(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 2, max_inflight: 1, flags: 0 };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let mut producer = Producer::new(mem.clone());
    producer.push(nop(7, 0)).unwrap();
    producer.publish();
    let worker = spawn_worker(&ring);
    let drainer = thread::spawn({
        let ring = ring.clone();
        move || ring.doorbell().unwrap()
    });
    // More than will come: the wait ends by being idle.
    assert_eq!(wait_for(&ring, 2, enter_flags::WAIT_IDLE), 0);
    assert_eq!(Consumer::new().ready(&mem), 1, "WAIT-1: idle is: consumed, and what came of it is shown");
    drainer.join().unwrap();
    ring.host().end_worker();
    worker.join().unwrap();
}

/// A request completes on another thread, and the drain owner, which then posts without the lock, goes on behind it.
fn right_to_post(weaken: Weaken) {
    let shape = Shape { sq_entries: 2, cq_entries: 4, max_inflight: 2, flags: 0 };
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(shape, &driver, weaken);
    let mut producer = Producer::new(mem.clone());
    // The second has the next request set aside, so that nothing takes the lock before the third.
    submit(&ring, &mut producer, &[nop(1, sqe_flags::ASYNC), nop(2, 0)]);
    let submitter = thread::spawn({
        let ring = ring.clone();
        move || submit(&ring, &mut producer, &[nop(3, 0)])
    });
    driver.take().unwrap().complete(Ok(0));
    submitter.join().unwrap();
    ModelHost::run_late_worker(&ring);
    let mut consumer = Consumer::new();
    assert_eq!(consumer.ready(&mem), 3, "SUB-2");
    let mut seen: Vec<u64> = std::iter::from_fn(|| consumer.pop(&mem)).map(|cqe| cqe[0]).collect();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3], "SUB-2");
    assert!(ring.balanced(), "CQ-5");
}

/// One thread waits for the ring to be idle while another submits what leaves no completion, and drains it.
fn idle_waiter(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let worker = spawn_worker(&ring);
    let submitter = thread::spawn({
        let ring = ring.clone();
        move || submit(&ring, &mut Producer::new(mem), &[nop(1, sqe_flags::CQE_SKIP_SUCCESS)])
    });
    assert_eq!(wait_for(&ring, 1, enter_flags::WAIT_IDLE), 0);
    submitter.join().unwrap();
    ring.host().end_worker();
    worker.join().unwrap();
    assert!(ring.balanced(), "CQ-5");
}

/// The same with a request that another thread completes, without a completion.
fn idle_waiter_deferred(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(shape, &driver, weaken);
    let quiet = nop(1, sqe_flags::CQE_SKIP_SUCCESS | sqe_flags::ASYNC);
    submit(&ring, &mut Producer::new(mem), &[quiet]);
    let completer = thread::spawn(move || driver.take().unwrap().complete(Ok(0)));
    assert_eq!(wait_for(&ring, 1, enter_flags::WAIT_IDLE), 0);
    assert_eq!(ring.stats().inflight, 0, "WAIT-1");
    completer.join().unwrap();
}

/// A waiter wants more than a blocked ring can give: it is told (WAIT-1), also if it sleeps already when the ring blocks.
fn blocked_waiter(flags: u32, weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 2, max_inflight: 1, flags };
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(shape, &driver, weaken);
    let worker = spawn_worker(&ring);
    let submitter = thread::spawn({
        let ring = ring.clone();
        move || {
            let mut producer = Producer::new(mem.clone());
            // One holds its slot for as long as it likes, one completes, the third finds no slot.
            for entry in [nop(1, 0), nop(2, sqe_flags::ASYNC), nop(3, 0)] {
                while producer.room() == 0 {
                    thread::yield_now();
                }
                submit(&ring, &mut producer, &[entry]);
            }
        }
    });
    assert_eq!(wait_for(&ring, 2, 0), Errno::EBUSY.to_res());
    submitter.join().unwrap();
    ring.host().end_worker();
    worker.join().unwrap();
    driver.take().unwrap().complete(Ok(0));
}

/// Requests hold every slot and will end, and an entry waits for one: waiters have nothing to reap, and wait for the requests, however many
/// they are for (WAIT-1). Who is told that the ring is blocked has something to reap.
fn held_slots(goals: [u32; 2], flags: u32, weaken: Weaken) {
    let [_, slots] = goals;
    let shape = Shape { sq_entries: 1, cq_entries: slots, max_inflight: slots, flags };
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(shape, &driver, weaken);
    let mut producer = Producer::new(mem.clone());
    let mut entries = vec![nop(1, sqe_flags::ASYNC); slots as usize];
    entries.push(nop(2, 0));
    for entry in entries {
        submit(&ring, &mut producer, &[entry]);
        ModelHost::run_late_worker(&ring);
    }
    let worker = spawn_worker(&ring);
    let waiter = |goal| {
        let (ring, mem) = (ring.clone(), mem.clone());
        move || match Errno::from_res(wait_for(&ring, goal, 0)) {
            Ok(_) => assert!(Consumer::new().ready(&mem) >= goal, "WAIT-1: what was waited for is there"),
            Err(errno) => {
                assert_eq!(errno, Errno::EBUSY);
                assert!(Consumer::new().ready(&mem) > 0, "WAIT-1: there is something to reap");
            }
        }
    };
    let completer = thread::spawn(move || {
        for _ in 0..slots {
            driver.take().unwrap().complete(Ok(0));
        }
    });
    let [first, second] = goals;
    if first > 0 {
        let other = thread::spawn(waiter(first));
        waiter(second)();
        other.join().unwrap();
    } else {
        waiter(second)();
    }
    completer.join().unwrap();
    ring.host().end_worker();
    worker.join().unwrap();
}

fn caller_held_slots(weaken: Weaken) {
    held_slots([0, 1], 0, weaken);
}

fn worker_held_slots(weaken: Weaken) {
    held_slots([0, 1], setup_flags::WORKER, weaken);
}

fn held_slots_two_goals(weaken: Weaken) {
    held_slots([1, 2], 0, weaken);
}

fn caller_blocked(weaken: Weaken) {
    blocked_waiter(0, weaken);
}

fn worker_blocked(weaken: Weaken) {
    blocked_waiter(setup_flags::WORKER, weaken);
}

/// A ring breaks under its waiter (IDX-3).
fn broken_waiter(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let worker = spawn_worker(&ring);
    let vandal = thread::spawn({
        let ring = ring.clone();
        move || {
            mem.store_user(UserWord::SqTail, 2);
            let _ = ring.doorbell();
        }
    });
    let mut enter = SqEnter { min_complete: 1, ..SqEnter::default() };
    // It is told by the call or by the wait, whichever notices first.
    match ring.enter(&mut enter) {
        Ok(_) => assert_eq!(enter.wait_result, Errno::EBADFD.to_res()),
        Err(errno) => assert_eq!(errno, Errno::EBADFD),
    }
    vandal.join().unwrap();
    ring.host().end_worker();
    worker.join().unwrap();
    assert!(ring.is_broken());
}

/// A reaper wants the eventfd again, after a time in which it did not, and then sleeps on it unless there is something to reap: a
/// deferred completion that comes meanwhile is seen, or signalled.
fn eventfd_wanted_again(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(shape, &driver, weaken);
    ring.register(&SqRegister { op: register_op::EVENTFD, nr: 1, arg: 8, ..SqRegister::default() }).unwrap();
    let mut consumer = Consumer::new();
    assert_eq!(consumer.hint(&mem, cq_flags::EVENTFD_DISABLED), 0);
    submit(&ring, &mut Producer::new(mem.clone()), &[nop(1, sqe_flags::ASYNC)]);
    let completer = thread::spawn(move || driver.take().unwrap().complete(Ok(0)));
    let seen = consumer.hint(&mem, 0);
    completer.join().unwrap();
    assert_ne!((seen, ring.host().signals()), (0, 0), "BELL-4: neither seen nor signalled");
}

/// The same with a completion that the drain owner posts.
fn eventfd_wanted_again_inline(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    ring.register(&SqRegister { op: register_op::EVENTFD, nr: 1, arg: 8, ..SqRegister::default() }).unwrap();
    let mut consumer = Consumer::new();
    assert_eq!(consumer.hint(&mem, cq_flags::EVENTFD_DISABLED), 0);
    let submitter = thread::spawn({
        let (ring, mem) = (ring.clone(), mem.clone());
        move || submit(&ring, &mut Producer::new(mem), &[nop(1, 0)])
    });
    let seen = consumer.hint(&mem, 0);
    submitter.join().unwrap();
    assert_ne!((seen, ring.host().signals()), (0, 0), "BELL-4: neither seen nor signalled");
}

#[test]
fn bell_4_eventfd_wanted_again() {
    explore(eventfd_wanted_again, PREEMPTIONS);
}

#[test]
fn bell_4_eventfd_wanted_again_inline() {
    explore(eventfd_wanted_again_inline, PREEMPTIONS);
}

#[test]
fn an_eventfd_wanted_again_and_not_signalled_is_noticed() {
    must_fail("bell_4_eventfd_wanted_again", Weaken::Fence(Fence::HintKernel));
    must_fail("bell_4_eventfd_wanted_again", Weaken::Fence(Fence::HintUser));
    must_fail("bell_4_eventfd_wanted_again_inline", Weaken::Fence(Fence::HintUser));
}

#[test]
fn bell_4_two_waiters() {
    explore(two_waiters, Some(2));
}

#[test]
fn bell_4_inline_waiter() {
    explore(inline_waiter, PREEMPTIONS);
}

#[test]
fn wait_1_idle_waiter_inline() {
    explore(idle_waiter_inline, PREEMPTIONS);
}

#[test]
fn cq_5_right_to_post() {
    explore(right_to_post, PREEMPTIONS);
}

#[test]
fn a_post_that_overlooks_its_watcher_is_noticed() {
    must_fail("bell_4_inline_waiter", Weaken::Fence(Fence::PostKernel));
    must_fail("bell_4_inline_waiter", Weaken::Fence(Fence::WatchKernel));
}

#[test]
fn weak_counts_of_what_was_posted_are_noticed() {
    for (site, name) in [
        (Site::ShownStore, "bell_4_inline_waiter"),
        (Site::ShownLoad, "bell_4_inline_waiter"),
        (Site::ConsumedStore, "wait_1_idle_waiter_inline"),
        (Site::ConsumedLoad, "wait_1_idle_waiter_inline"),
        (Site::InflightStore, "cq_5_right_to_post"),
        (Site::InflightLoad, "cq_5_right_to_post"),
    ] {
        must_fail(name, Weaken::Site(site, Relaxed));
    }
}

#[test]
fn wait_1_idle_waiter() {
    explore(idle_waiter, PREEMPTIONS);
}

#[test]
fn wait_1_idle_waiter_deferred() {
    explore(idle_waiter_deferred, PREEMPTIONS);
}

#[test]
fn wait_1_blocked_waiter() {
    explore(caller_blocked, Some(2));
    explore(worker_blocked, Some(2));
}

#[test]
fn wait_1_held_slots() {
    explore(caller_held_slots, Some(2));
    explore(worker_held_slots, Some(2));
}

#[test]
fn wait_1_held_slots_two_goals() {
    explore(held_slots_two_goals, Some(1));
}

#[test]
fn wait_1_broken_waiter() {
    explore(broken_waiter, PREEMPTIONS);
}

#[test]
#[ignore = "prints the table for docs/memory-model.md"]
fn matrix_of_weakenings() {
    matrix(&[
        "bell_4_two_waiters",
        "bell_4_inline_waiter",
        "bell_4_eventfd_wanted_again",
        "bell_4_eventfd_wanted_again_inline",
        "wait_1_idle_waiter_inline",
        "cq_5_right_to_post",
        "wait_1_idle_waiter",
        "wait_1_idle_waiter_deferred",
        "wait_1_blocked_waiter",
        "wait_1_held_slots",
        "wait_1_held_slots_two_goals",
        "wait_1_broken_waiter",
    ]);
}
