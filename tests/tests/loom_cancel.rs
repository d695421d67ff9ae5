// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models of a cancel against what it cancels: every request has one outcome, whichever side wins (CAN-1).
#![cfg(loom)]

use std::sync::Arc;

use liburing_shm::ring::{Consumer, Producer};
use loom::thread;
use sq_conformance::checkers::loom_mem::{LoomMem, Weaken};
use sq_conformance::checkers::loom_run::{explore, matrix};
use sq_conformance::checkers::model_host::{Holder, Model, ModelHost, Shape, nop};
use sq_uapi::consts::{op, sqe_flags};
use sq_uapi::{Cqe, Errno, SqCancel, Sqe};

use kmod_sq::Ring;

/// Preemptive switches that are explored.
const PREEMPTIONS: Option<usize> = Some(3);

const SHAPE: Shape = Shape { sq_entries: 2, cq_entries: 2, max_inflight: 2, flags: 0 };

fn submit(ring: &Ring<ModelHost>, mem: &LoomMem, entry: [u64; 8]) {
    let mut producer = Producer::new(mem.clone());
    producer.push(entry).unwrap();
    producer.publish();
    ring.doorbell().unwrap();
}

fn cancel(ring: &Ring<ModelHost>) -> Result<u32, Errno> {
    ring.cancel(&SqCancel { user_data: 1, ..SqCancel::default() })
}

/// The one completion there is.
fn outcome(mem: &LoomMem) -> i32 {
    let mut consumer = Consumer::new();
    assert_eq!(consumer.ready(mem), 1, "SUB-2");
    let [a, b, ..] = consumer.pop(mem).unwrap();
    let cqe = Cqe::from_words([a, b]);
    assert_eq!(cqe.user_data, 1, "SUB-2");
    cqe.res
}

/// A driver completes a request that another thread cancels.
fn against_completion(weaken: Weaken) {
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(SHAPE, &driver, weaken);
    submit(&ring, &mem, nop(1, sqe_flags::ASYNC));
    let completer = thread::spawn(move || {
        let request = driver.take();
        let won = request.is_some();
        if let Some(request) = request {
            request.complete(Ok(5));
        }
        won
    });
    let canceled = cancel(&ring);
    let won = completer.join().unwrap();
    assert_eq!(outcome(&mem), if won { 5 } else { Errno::ECANCELED.to_res() }, "CAN-1");
    assert!(won || canceled == Ok(0), "CAN-1: {canceled:?}");
    assert!(ring.balanced(), "CQ-5");
}

/// A cancel comes before, while or after a driver files the request that it took: what was found is not forgotten.
fn against_issue(weaken: Weaken) {
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(SHAPE, &driver, weaken);
    let canceler = thread::spawn({
        let ring = ring.clone();
        move || cancel(&ring)
    });
    submit(&ring, &mem, nop(1, sqe_flags::ASYNC));
    match canceler.join().unwrap() {
        Ok(_) => assert_eq!(outcome(&mem), Errno::ECANCELED.to_res(), "CAN-1"),
        Err(errno) => {
            assert_eq!(errno, Errno::ENOENT);
            driver.take().unwrap().complete(Ok(5));
            assert_eq!(outcome(&mem), 5, "SUB-2");
        }
    }
    assert!(ring.balanced(), "CQ-5");
}

/// The framework's clock completes a request that two others cancel.
fn against_clock(weaken: Weaken) {
    let Model { ring, mem, .. } = Model::new(SHAPE, &Arc::new(sq_null::Null), weaken);
    let mut sqe = Sqe { opcode: op::CMD, off: sq_null::cmd::DELAY.into(), user_data: 1, ..Sqe::NOP };
    // 1 ns; the clock of a model is far beyond at its next look.
    sqe.cmd[0] = 1;
    sqe.cmd[8] = 5;
    submit(&ring, &mem, sqe.to_words());
    let clock = thread::spawn({
        let ring = ring.clone();
        move || ring.alarm()
    });
    let canceler = thread::spawn({
        let ring = ring.clone();
        move || cancel(&ring)
    });
    let first = cancel(&ring);
    let second = canceler.join().unwrap();
    clock.join().unwrap();
    assert!(first.is_err() || second.is_err(), "CAN-1: canceled twice");
    let canceled = first.is_ok() || second.is_ok();
    assert_eq!(outcome(&mem), if canceled { Errno::ECANCELED.to_res() } else { 5 }, "CAN-1");
    assert!(ring.balanced(), "CQ-5");
}

/// A cancel that is an entry, in a drain, against a completion from another thread.
fn entry_against_completion(weaken: Weaken) {
    let driver = Arc::new(Holder::default());
    let Model { ring, mem, .. } = Model::new(SHAPE, &driver, weaken);
    let mut producer = Producer::new(mem.clone());
    producer.push(nop(1, sqe_flags::ASYNC)).unwrap();
    producer.publish();
    ring.doorbell().unwrap();
    let completer = thread::spawn(move || {
        if let Some(request) = driver.take() {
            request.complete(Ok(5));
        }
    });
    let cancel = Sqe { opcode: op::ASYNC_CANCEL, addr: 1, user_data: 2, ..Sqe::NOP };
    producer.push(cancel.to_words()).unwrap();
    producer.publish();
    ring.doorbell().unwrap();
    completer.join().unwrap();
    let mut consumer = Consumer::new();
    assert_eq!(consumer.ready(&mem), 2, "SUB-2");
    let sum: u64 = std::iter::from_fn(|| consumer.pop(&mem)).map(|cqe| cqe[0]).sum();
    assert_eq!(sum, 3, "SUB-2");
    assert!(ring.balanced(), "CQ-5");
}

#[test]
fn can_1_against_completion() {
    explore(against_completion, PREEMPTIONS);
}

#[test]
fn can_1_against_issue() {
    explore(against_issue, PREEMPTIONS);
}

#[test]
fn can_1_against_clock() {
    explore(against_clock, PREEMPTIONS);
}

#[test]
fn can_1_entry_against_completion() {
    explore(entry_against_completion, PREEMPTIONS);
}

#[test]
#[ignore = "prints the table for docs/memory-model.md"]
fn matrix_of_weakenings() {
    matrix(&[
        "can_1_against_completion",
        "can_1_against_issue",
        "can_1_against_clock",
        "can_1_entry_against_completion",
    ]);
}
