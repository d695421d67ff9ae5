// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models of a ring that is drained by its callers: two submitters, one drain (BELL-2, BELL-5), and slot reuse (SNAP-1).
#![cfg(loom)]

use std::sync::Arc;

use kmod_sq::RingRef;
use kmod_sq::model::Site;
use liburing_shm::ring::{Consumer, Producer};
use loom::sync::Mutex;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::thread;
use sq_conformance::checkers::loom_mem::{LoomMem, Weaken};
use sq_conformance::checkers::loom_run::{explore, matrix, must_fail};
use sq_conformance::checkers::model_host::{Holder, Model, ModelHost, Shape, lock, nop};
use sq_uapi::{KernelWord, UserWord};

/// Preemptive switches that are explored.
const PREEMPTIONS: Option<usize> = Some(3);

fn reap_all(mem: &LoomMem) -> Vec<u64> {
    let mut consumer = Consumer::new();
    consumer.ready(mem);
    let mut seen: Vec<u64> = std::iter::from_fn(|| consumer.pop(mem)).map(|cqe| cqe[0]).collect();
    seen.sort_unstable();
    seen
}

/// Two submitters share the producer; each publishes one entry and rings once. Both entries complete (SUB-2), whoever
/// drains them: the second ENTER leaves word with the owner (BELL-5). A worker comes last, if one was asked for.
fn two_submitters(sq_entries: u32, bells: u32, weaken: Weaken) {
    let shape = Shape { sq_entries, cq_entries: 2, max_inflight: 1, flags: 0 };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let producer = Arc::new(Mutex::new(Producer::new(mem.clone())));
    let submit = |user_data: u64| {
        let (ring, producer) = (ring.clone(), Arc::clone(&producer));
        move || {
            {
                let mut producer = lock(&producer);
                if producer.push(nop(user_data, 0)).is_err() {
                    return 0;
                }
                producer.publish();
            }
            // The second comes after an owner that let go for good, if it did.
            for _ in 0..bells {
                ring.doorbell().unwrap();
            }
            user_data
        }
    };
    let second = thread::spawn(submit(2));
    let first = submit(1)();
    let second = second.join().unwrap();
    ModelHost::run_late_worker(&ring);
    let mut expected: Vec<u64> = [first, second].into_iter().filter(|n| *n != 0).collect();
    expected.sort_unstable();
    assert_eq!(reap_all(&mem), expected, "SUB-2");
    assert!(ring.balanced(), "CQ-5");
}

fn roomy(weaken: Weaken) {
    two_submitters(2, 1, weaken);
}

/// With one entry the bound of a drain is 1, so that the owner gives up to a worker (BELL-3).
fn tight(weaken: Weaken) {
    two_submitters(1, 2, weaken);
}

/// Two threads ring for nothing, twice each: nobody consumes or fences, so that what one owner did reaches the next by the drain word
/// alone (BELL-5).
fn empty_rounds(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let Model { ring, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let bells = |ring: RingRef<ModelHost>| {
        move || {
            for _ in 0..2 {
                assert_eq!(ring.doorbell(), Ok(0));
            }
        }
    };
    let other = thread::spawn(bells(ring.clone()));
    bells(ring.clone())();
    other.join().unwrap();
    ModelHost::run_late_worker(&ring);
    assert!(ring.balanced(), "CQ-5");
}

/// A ring of one entry, which is published, and a thread that drains it.
fn drained_elsewhere(weaken: Weaken) -> (Model, Producer<LoomMem>, thread::JoinHandle<u32>) {
    let shape = Shape { sq_entries: 1, cq_entries: 2, max_inflight: 1, flags: 0 };
    let model = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let mut producer = Producer::new(model.mem.clone());
    producer.push(nop(1, 0)).unwrap();
    producer.publish();
    let ring = model.ring.clone();
    (model, producer, thread::spawn(move || ring.doorbell().unwrap()))
}

/// One thread drains while another waits for room and writes the same slot again, which it may as soon as `sq_head` says so
/// (SNAP-1).
fn sqe_slot_reuse(weaken: Weaken) {
    let (Model { ring, mem, .. }, mut producer, drainer) = drained_elsewhere(weaken);
    let pushed = producer.push(nop(2, 0)).is_ok();
    producer.publish();
    drainer.join().unwrap();
    ring.doorbell().unwrap();
    ModelHost::run_late_worker(&ring);
    assert_eq!(reap_all(&mem), if pushed { vec![1, 2] } else { vec![1] }, "SUB-2");
}

/// One thread drains while another looks: whoever sees the completion finds the place of its entry free (IDX-4).
fn room_with_completion(weaken: Weaken) {
    let (Model { ring: _ring, mem, .. }, mut producer, drainer) = drained_elsewhere(weaken);
    let mut consumer = Consumer::new();
    if consumer.ready(&mem) == 1 {
        assert!(producer.push(nop(2, 0)).is_ok(), "IDX-4");
    }
    drainer.join().unwrap();
}

/// One thread drains and completes while another reaps what `cq_tail` shows and gives the slot back by `cq_head`.
fn cqe_slot_reuse(weaken: Weaken) {
    let shape = Shape { sq_entries: 1, cq_entries: 1, max_inflight: 1, flags: 0 };
    let Model { ring, mem, .. } = Model::new(shape, &Arc::new(Holder::default()), weaken);
    let reaper = thread::spawn({
        let mem = mem.clone();
        move || {
            let mut consumer = Consumer::new();
            let mut seen = Vec::new();
            for _ in 0..2 {
                consumer.ready(&mem);
                seen.extend(consumer.pop(&mem).map(|cqe| cqe[0]));
                consumer.release(&mem);
            }
            (consumer, seen)
        }
    });
    let mut producer = Producer::new(mem.clone());
    for n in 1..=2 {
        producer.push(nop(n, 0)).unwrap();
        producer.publish();
        // EBUSY: the ring is blocked and the reaper sees a completion to reap, or will ring.
        let _ = ring.doorbell();
    }
    let (mut consumer, mut seen) = reaper.join().unwrap();
    for _ in 0..2 {
        consumer.ready(&mem);
        seen.extend(consumer.pop(&mem).map(|cqe| cqe[0]));
        consumer.release(&mem);
        let _ = ring.doorbell();
    }
    assert_eq!(seen, [1, 2], "SUB-2");
    assert!(ring.balanced(), "CQ-5");
}

#[test]
fn bell_5_two_submitters() {
    explore(roomy, PREEMPTIONS);
}

#[test]
fn bell_5_empty_rounds() {
    explore(empty_rounds, PREEMPTIONS);
}

#[test]
fn bell_3_two_submitters_bounded() {
    explore(tight, PREEMPTIONS);
}

#[test]
fn snap_1_sqe_slot_reuse() {
    explore(sqe_slot_reuse, PREEMPTIONS);
}

#[test]
fn idx_4_room_with_completion() {
    explore(room_with_completion, PREEMPTIONS);
}

#[test]
fn cq_1_cqe_slot_reuse() {
    explore(cqe_slot_reuse, PREEMPTIONS);
}

#[test]
fn weak_sq_tail_is_noticed() {
    must_fail("bell_5_two_submitters", Weaken::UserStore(UserWord::SqTail));
    must_fail("bell_5_two_submitters", Weaken::UserLoad(UserWord::SqTail));
}

#[test]
fn weak_sq_head_is_noticed() {
    must_fail("snap_1_sqe_slot_reuse", Weaken::KernelStore(KernelWord::SqHead));
    must_fail("snap_1_sqe_slot_reuse", Weaken::KernelLoad(KernelWord::SqHead));
}

#[test]
fn weak_cq_tail_is_noticed() {
    must_fail("cq_1_cqe_slot_reuse", Weaken::KernelStore(KernelWord::CqTail));
    must_fail("cq_1_cqe_slot_reuse", Weaken::KernelLoad(KernelWord::CqTail));
}

#[test]
fn weak_cq_head_is_noticed() {
    must_fail("cq_1_cqe_slot_reuse", Weaken::UserStore(UserWord::CqHead));
    must_fail("cq_1_cqe_slot_reuse", Weaken::UserLoad(UserWord::CqHead));
}

#[test]
fn weak_drain_is_noticed() {
    for (site, name) in [
        (Site::DrainOwn, "bell_5_two_submitters"),
        (Site::DrainRelease, "bell_5_empty_rounds"),
        (Site::DrainAgain, "bell_5_two_submitters"),
        (Site::DrainAbandon, "bell_3_two_submitters_bounded"),
    ] {
        must_fail(name, Weaken::Site(site, Relaxed));
    }
    // Both halves are needed.
    must_fail("bell_5_two_submitters", Weaken::Site(Site::DrainKnock, Acquire));
    must_fail("bell_5_two_submitters", Weaken::Site(Site::DrainKnock, Release));
}

#[test]
#[ignore = "prints the table for docs/memory-model.md"]
fn matrix_of_weakenings() {
    matrix(&[
        "bell_5_two_submitters",
        "bell_5_empty_rounds",
        "bell_3_two_submitters_bounded",
        "snap_1_sqe_slot_reuse",
        "idx_4_room_with_completion",
        "cq_1_cqe_slot_reuse",
    ]);
}
