// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models of the end of a ring: QUIESCE against a drain (LIFE-1), the last reference against a completion (LIFE-2), a ring
//! that breaks under its drain, a ring that is enabled.
#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use kmod_sq::Host;
use kmod_sq::model::Site;
use liburing_shm::ring::{Consumer, Producer};
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;
use sq_conformance::checkers::loom_mem::Weaken;
use sq_conformance::checkers::loom_run::{explore, matrix, must_fail};
use sq_conformance::checkers::model_host::{Holder, Model, ModelHost, Shape, nop};
use sq_uapi::consts::{register_op, setup_flags, sqe_flags};
use sq_uapi::{SqEnter, SqQuiesce, SqRegister, UserMem, UserWord};

/// Preemptive switches that are explored.
const PREEMPTIONS: Option<usize> = Some(3);

/// A ring is quiesced while a drain of it begins, runs or ends. When QUIESCE returns nothing is in flight, and nothing comes
/// in flight afterwards; the end of the drain is not missed.
fn quiesce_against_drain(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(shape, &driver, weaken);
    let submitter = thread::spawn({
        let ring = ring.clone();
        move || {
            let mut producer = Producer::new(mem.clone());
            producer.push(nop(1, sqe_flags::ASYNC)).unwrap();
            producer.publish();
            // ESHUTDOWN: too late.
            let _ = ring.doorbell();
        }
    });
    ring.quiesce(&SqQuiesce::default()).unwrap();
    assert_eq!(ring.stats().inflight, 0, "LIFE-1: at its return");
    assert!(ring.poll().over, "LIFE-1: EPOLLHUP, though somebody looks at the ring once more");
    submitter.join().unwrap();
    assert_eq!(ring.stats().inflight, 0, "LIFE-1: afterwards");
    assert!(driver.take().is_none(), "LIFE-1: the driver has it");
    assert!(ring.balanced(), "CQ-5");
}

/// The same, with a worker that drains.
fn quiesce_against_worker(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: setup_flags::WORKER };
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(shape, &driver, weaken);
    let worker = thread::spawn({
        let ring = ring.clone();
        move || ModelHost::run_worker(&ring)
    });
    let mut producer = Producer::new(mem.clone());
    producer.push(nop(1, sqe_flags::ASYNC)).unwrap();
    producer.publish();
    ring.doorbell().unwrap();
    ring.quiesce(&SqQuiesce::default()).unwrap();
    ring.host().end_worker();
    worker.join().unwrap();
    assert_eq!(ring.stats().inflight, 0, "LIFE-1");
    assert!(ring.balanced(), "CQ-5");
}

/// A ring is shut while a drain of it begins, runs or ends, and its request completes without a completion. Who sleeps as poll(2) does is
/// told of the end, and nothing comes after it.
fn poller_of_the_end(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(shape, &driver, weaken);
    let submitter = thread::spawn({
        let (ring, mem) = (ring.clone(), mem.clone());
        move || {
            let mut producer = Producer::new(mem);
            producer.push(nop(1, sqe_flags::ASYNC | sqe_flags::CQE_SKIP_SUCCESS)).unwrap();
            producer.publish();
            // ESHUTDOWN: too late.
            let _ = ring.doorbell();
            if let Some(request) = driver.take() {
                request.complete(Ok(0));
            }
        }
    });
    ring.shut();
    ring.host().wait(None, &mut || ring.poll().over);
    let (inflight, ready) = (ring.stats().inflight, Consumer::new().ready(&mem));
    assert_eq!(inflight, 0, "LIFE-1: EPOLLHUP says that nothing is in flight");
    submitter.join().unwrap();
    assert_eq!((ring.stats().inflight, Consumer::new().ready(&mem)), (0, ready), "LIFE-1: nor comes afterwards");
}

/// The same where others drain: the ring is quiesced by one thread, drained by a worker or a polling thread, and the third sleeps until it
/// hears that the ring is over. Whatever the order, it hears it, and nothing comes after it.
fn poller_of_the_end_elsewhere(flags: u32, weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let mut producer = Producer::new(mem.clone());
    producer.push(nop(1, sqe_flags::ASYNC | sqe_flags::CQE_SKIP_SUCCESS)).unwrap();
    producer.publish();
    ring.doorbell().unwrap();
    let drainer = thread::spawn({
        let ring = ring.clone();
        move || {
            if flags & setup_flags::SQPOLL != 0 {
                ModelHost::run_poller(&ring);
            } else {
                ModelHost::run_worker(&ring);
            }
        }
    });
    let quiescer = thread::spawn({
        let ring = ring.clone();
        move || ring.quiesce(&SqQuiesce::default()).unwrap()
    });
    ring.host().wait(None, &mut || ring.poll().over);
    let (inflight, ready) = (ring.stats().inflight, Consumer::new().ready(&mem));
    assert_eq!(inflight, 0, "LIFE-1: EPOLLHUP says that nothing is in flight");
    quiescer.join().unwrap();
    ring.host().end_worker();
    drainer.join().unwrap();
    assert_eq!((ring.stats().inflight, Consumer::new().ready(&mem)), (0, ready), "LIFE-1: nor comes afterwards");
}

fn poller_of_the_workers_end(weaken: Weaken) {
    poller_of_the_end_elsewhere(setup_flags::WORKER, weaken);
}

fn poller_of_the_polling_threads_end(weaken: Weaken) {
    poller_of_the_end_elsewhere(setup_flags::SQPOLL, weaken);
}

/// A request is completed by one thread while QUIESCE cancels it and waits for it.
fn quiesce_against_completion(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(shape, &driver, weaken);
    let mut producer = Producer::new(mem.clone());
    producer.push(nop(1, sqe_flags::ASYNC)).unwrap();
    producer.publish();
    ring.doorbell().unwrap();
    let completer = thread::spawn(move || {
        if let Some(request) = driver.take() {
            request.complete(Ok(0));
        }
    });
    ring.quiesce(&SqQuiesce::default()).unwrap();
    let (inflight, ready) = (ring.stats().inflight, Consumer::new().ready(&mem));
    completer.join().unwrap();
    assert_eq!((inflight, ready), (0, 1), "LIFE-1: it has ended, and SUB-2: completed");
}

/// The home lets go of a ring while the last completion arrives: it is freed once, after both.
fn close_against_completion(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, freed } = Model::new(shape, &driver, weaken);
    let mut producer = Producer::new(mem.clone());
    producer.push(nop(1, sqe_flags::ASYNC)).unwrap();
    producer.publish();
    ring.doorbell().unwrap();
    let completer = thread::spawn({
        let driver = Arc::clone(&driver);
        move || {
            if let Some(request) = driver.take() {
                request.complete(Ok(0));
            }
        }
    });
    ring.abandon();
    ring.host().touch();
    drop(ring);
    completer.join().unwrap();
    assert_eq!(freed.load(SeqCst), 1, "LIFE-2");
}

/// The file of a ring is closed while its worker drains: whatever the worker issues is told to end, also what it issued too late for the
/// cancel of the close. No request is left with the driver, which would keep the ring for ever.
fn close_against_worker(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: setup_flags::WORKER };
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(shape, &driver, weaken);
    let worker = thread::spawn({
        let ring = ring.clone();
        move || ModelHost::run_worker(&ring)
    });
    let mut producer = Producer::new(mem);
    producer.push(nop(1, sqe_flags::ASYNC)).unwrap();
    producer.publish();
    ring.doorbell().unwrap();
    ring.abandon();
    ring.host().end_worker();
    worker.join().unwrap();
    assert!(driver.take().is_none(), "LIFE-2: the driver has it, and was not told");
    assert_eq!(ring.stats().inflight, 0, "LIFE-2");
    assert!(ring.balanced(), "CQ-5");
}

/// Two holders let go of a ring, each after a last use.
fn two_holders(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let Model { ring, freed, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let other = thread::spawn({
        let ring = ring.clone();
        move || {
            ring.host().touch();
            drop(ring);
        }
    });
    ring.host().touch();
    drop(ring);
    other.join().unwrap();
    assert_eq!(freed.load(SeqCst), 1, "LIFE-2");
}

/// One thread finds the ring broken while another drains it and defers: whatever is in flight is cancelled.
fn break_against_drain(weaken: Weaken) {
    let shape = Shape { sq_entries: 2, cq_entries: 2, max_inflight: 1, flags: 0 };
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(shape, &driver, weaken);
    let worker = thread::spawn({
        let ring = ring.clone();
        move || ModelHost::run_worker(&ring)
    });
    let vandal = thread::spawn({
        let (ring, mem) = (ring.clone(), mem.clone());
        move || {
            mem.store_user(UserWord::CqHead, 7);
            // A new completion is waited for, so that the broken index is looked at.
            let _ = ring.enter(&mut SqEnter { min_complete: 1, ..SqEnter::default() });
        }
    });
    let mut producer = Producer::new(mem.clone());
    producer.push(nop(1, sqe_flags::ASYNC)).unwrap();
    producer.publish();
    let _ = ring.doorbell();
    vandal.join().unwrap();
    ring.host().end_worker();
    worker.join().unwrap();
    assert!(ring.is_broken(), "IDX-3");
    assert_eq!(ring.stats().inflight, 0, "BROKEN: in-flight requests are cancelled");
    assert!(ring.balanced(), "CQ-5");
}

/// A ring is set up disabled, restricted and enabled by one thread while another already submits (LIFE-3): either it is
/// refused, or what was done before enabling holds.
fn enable_against_submitter(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: setup_flags::R_DISABLED };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let submitter = thread::spawn({
        let (ring, mem) = (ring.clone(), mem.clone());
        move || {
            let mut producer = Producer::new(mem.clone());
            producer.push(nop(1, 0)).unwrap();
            producer.publish();
            ring.doorbell().is_ok()
        }
    });
    ring.register(&SqRegister { op: register_op::ENABLE_RINGS, ..SqRegister::default() }).unwrap();
    let early = submitter.join().unwrap();
    ModelHost::run_late_worker(&ring);
    assert_eq!(Consumer::new().ready(&mem), u32::from(early), "SUB-2");
}

/// A ring gives opcodes up while somebody rings, who may find it owned: the entry is consumed all the same.
fn restrict_against_submitter(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let submitter = thread::spawn({
        let (ring, mem) = (ring.clone(), mem.clone());
        move || {
            let mut producer = Producer::new(mem);
            producer.push(nop(1, 0)).unwrap();
            producer.publish();
            ring.doorbell().unwrap();
        }
    });
    // EBUSY: the submitter drains.
    let _ = ring.register(&SqRegister { op: register_op::ALLOW_OPCODES, nr: 1, arg: 8, ..SqRegister::default() });
    submitter.join().unwrap();
    ModelHost::run_late_worker(&ring);
    assert_eq!(Consumer::new().ready(&mem), 1, "BELL-5");
}

/// A ring that has been told to be over stays so, while others still ring.
fn over_against_doorbell(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let Model { ring, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    ring.quiesce(&SqQuiesce::default()).unwrap();
    let late = thread::spawn({
        let ring = ring.clone();
        move || assert!(ring.doorbell().is_err())
    });
    let (first, second) = (ring.poll().over, ring.poll().over);
    late.join().unwrap();
    assert!(second || !first, "LIFE-1: EPOLLHUP stays");
    assert!(ring.poll().over, "LIFE-1: nothing is in flight, and nobody is there");
}

#[test]
fn life_1_a_ring_that_is_over_stays_so() {
    explore(over_against_doorbell, PREEMPTIONS);
}

#[test]
fn bell_5_restrict_against_submitter() {
    explore(restrict_against_submitter, PREEMPTIONS);
}

#[test]
fn life_1_quiesce_against_drain() {
    explore(quiesce_against_drain, PREEMPTIONS);
}

#[test]
fn life_1_poller_of_the_end() {
    explore(poller_of_the_end, PREEMPTIONS);
}

#[test]
fn life_1_poller_of_the_workers_end() {
    explore(poller_of_the_workers_end, Some(2));
}

#[test]
fn life_1_poller_of_the_polling_threads_end() {
    explore(poller_of_the_polling_threads_end, Some(2));
}

#[test]
fn life_1_quiesce_against_worker() {
    explore(quiesce_against_worker, PREEMPTIONS);
}

#[test]
fn life_1_quiesce_against_completion() {
    explore(quiesce_against_completion, PREEMPTIONS);
}

#[test]
fn life_2_close_against_completion() {
    explore(close_against_completion, PREEMPTIONS);
}

#[test]
fn life_2_close_against_worker() {
    explore(close_against_worker, PREEMPTIONS);
}

#[test]
fn life_2_two_holders() {
    explore(two_holders, PREEMPTIONS);
}

#[test]
fn idx_3_break_against_drain() {
    explore(break_against_drain, PREEMPTIONS);
}

#[test]
fn life_3_enable_against_submitter() {
    explore(enable_against_submitter, PREEMPTIONS);
}

#[test]
fn weak_refs_are_noticed() {
    must_fail("life_2_two_holders", Weaken::Site(Site::RefDrop, Relaxed));
    must_fail("life_2_two_holders", Weaken::Site(Site::RefLast, Relaxed));
}

#[test]
fn weak_quiesce_is_noticed() {
    must_fail("life_1_quiesce_against_drain", Weaken::Site(Site::DrainQuiet, Relaxed));
    must_fail("life_1_quiesce_against_worker", Weaken::Site(Site::DrainQuiet, Relaxed));
}

#[test]
#[ignore = "prints the table for docs/memory-model.md"]
fn matrix_of_weakenings() {
    matrix(&[
        "life_1_quiesce_against_drain",
        "life_1_quiesce_against_worker",
        "life_1_poller_of_the_end",
        "life_1_poller_of_the_workers_end",
        "life_1_poller_of_the_polling_threads_end",
        "life_1_quiesce_against_completion",
        "life_2_close_against_completion",
        "life_2_close_against_worker",
        "life_2_two_holders",
        "idx_3_break_against_drain",
        "life_3_enable_against_submitter",
        "life_1_a_ring_that_is_over_stays_so",
        "bell_5_restrict_against_submitter",
    ]);
}
