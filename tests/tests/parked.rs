// SPDX-License-Identifier: MIT OR Apache-2.0
//! WAIT-1, SEC-3: an entry with a plain descriptor, met by a worker of a caller-driven ring, waits for the ring's own process.
#![cfg(not(loom))]

use std::sync::{Mutex, PoisonError};

use kmod_sq::RingRef;
use liburing_shm::ring::{Consumer, Producer};
use sq_conformance::checkers::hostile::HostileMem;
use sq_conformance::checkers::hostile_host::{HostileHost, hostile_ring};
use sq_conformance::checkers::slots::WriteSqe;
use sq_driver::{Driver, Issued, Op, Opcodes, Request, RequestId};
use sq_uapi::consts::{enter_flags, op, sq_state};
use sq_uapi::{Errno, KernelWord, SqEnter, SqQuiesce, SqSetup, Sqe, UserMem, UserWord};

/// Takes every operation, and ends it when told.
struct Holder(Mutex<Vec<Request>>);

impl Driver for Holder {
    const NAME: &'static core::ffi::CStr = c"holder";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::FSYNC);
    const FILES: bool = true;

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        let (request, issued) = op.defer();
        self.held().push(request);
        issued
    }

    fn cancel(&self, _: RequestId) {}
}

impl Holder {
    fn held(&self) -> std::sync::MutexGuard<'_, Vec<Request>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_one(&self) {
        self.held().pop().expect("one is held").complete(Ok(0));
    }
}

fn fsync(user_data: u64) -> [u64; 8] {
    Sqe { opcode: op::FSYNC, fd: 3, user_data, ..Sqe::from_words([0; 8]) }.to_words()
}

/// A caller-driven ring of four entries and `max_inflight` requests.
fn ring(driver: &'static impl Driver, max_inflight: u32) -> (RingRef<HostileHost>, HostileMem) {
    let setup = SqSetup { sq_entries: 4, cq_entries: 4, max_inflight, ..SqSetup::default() };
    let setup = SqSetup { size: size_of::<SqSetup>() as u32, ..setup };
    let (ring, mem) = hostile_ring(&setup, driver, Box::new(|_, _: &mut _| {})).unwrap();
    mem.may_park();
    (ring, mem)
}

/// A ring with one request, whose second entry is parked: the first had the request, and ended.
fn parked_second(
    driver: &'static impl Driver,
    end_one: impl FnOnce(),
) -> (RingRef<HostileHost>, HostileMem, Producer<HostileMem>) {
    let (ring, mem) = ring(driver, 1);
    let mut producer = Producer::new(mem.clone());
    for n in 1..=2 {
        producer.push(fsync(n)).unwrap();
    }
    producer.publish();
    assert_eq!(ring.doorbell(), Ok(1), "there is one request");
    end_one();
    HostileHost::run_worker(&ring);
    assert_eq!(state(&mem), sq_state::NEED_ENTER);
    (ring, mem, producer)
}

fn state(mem: &HostileMem) -> u32 {
    mem.load_kernel(KernelWord::SqState)
}

#[test]
fn wait1_sec3_a_worker_leaves_plain_descriptors_to_the_process() {
    static HOLDER: Holder = Holder(Mutex::new(Vec::new()));
    let (ring, mem) = ring(&HOLDER, 1);
    let (mut producer, mut consumer) = (Producer::new(mem.clone()), Consumer::new());
    for n in 1..=3 {
        producer.push(fsync(n)).unwrap();
    }
    producer.publish();
    assert_eq!(ring.doorbell(), Ok(1), "there is one request");

    // Its completion has a worker go on, which cannot look the next descriptor up.
    HOLDER.end_one();
    HostileHost::run_worker(&ring);
    assert_eq!((HOLDER.held().len(), state(&mem)), (0, sq_state::NEED_ENTER));
    assert!(ring.poll().readable, "whoever polls is told");
    assert!(consumer.release(&mem), "a reaper of nothing rings, so that nobody sleeps for ever");

    // The entry was copied by the worker: what is in its slot now is another one's (SNAP-1).
    mem.write_sqe(1, fsync(99));
    assert_eq!(ring.doorbell(), Ok(1));
    HOLDER.end_one();
    HostileHost::run_worker(&ring);
    assert_eq!((HOLDER.held().len(), state(&mem)), (0, sq_state::NEED_ENTER));

    // WAIT-1: a waiter drains, too.
    let mut enter = SqEnter { min_complete: 3, flags: enter_flags::TIMEOUT, timeout_ns: 1, ..SqEnter::default() };
    enter.size = size_of::<SqEnter>() as u32;
    ring.enter(&mut enter).unwrap();
    assert_eq!(enter.wait_result, Errno::ETIME.to_res());
    HOLDER.end_one();
    assert_eq!(state(&mem), sq_state::NEED_WAKEUP);

    consumer.ready(&mem);
    let done: Vec<_> = std::iter::from_fn(|| consumer.pop(&mem)).map(|[user_data, res, ..]| (user_data, res)).collect();
    assert_eq!(done, [(1, 0), (2, 0), (3, 0)]);
    assert!(ring.balanced(), "CQ-5");
}

#[test]
fn wait1_what_was_said_of_a_parked_entry_goes_with_it() {
    static HOLDER: Holder = Holder(Mutex::new(Vec::new()));
    let (ring, mem) = ring(&HOLDER, 2);
    let (mut producer, mut consumer) = (Producer::new(mem.clone()), Consumer::new());
    for n in 1..=3 {
        producer.push(fsync(n)).unwrap();
    }
    producer.publish();
    assert_eq!(ring.doorbell(), Ok(2), "there are two requests");
    HOLDER.end_one();
    HostileHost::run_worker(&ring);
    assert_eq!((HOLDER.held().len(), state(&mem)), (1, sq_state::NEED_ENTER));

    assert_eq!(ring.doorbell(), Ok(1));
    assert_eq!((HOLDER.held().len(), state(&mem)), (2, sq_state::NEED_WAKEUP));
    assert_eq!(consumer.ready(&mem), 1);
    consumer.pop(&mem);
    assert!(!consumer.release(&mem), "nobody is asked to ring");
    assert!(!ring.poll().readable, "nor to come");
    HOLDER.end_one();
    HOLDER.end_one();
    assert_eq!((consumer.ready(&mem), ring.balanced()), (2, true));
}

/// What a ring waited for when it was quiesced does not come any more: nobody is asked to ring for it.
#[test]
fn bell1_a_quiesced_ring_is_not_rung_for_what_it_waited_for() {
    static HOLDER: Holder = Holder(Mutex::new(Vec::new()));
    let (ring, mem, _) = parked_second(&HOLDER, || HOLDER.end_one());
    let mut consumer = Consumer::new();
    ring.quiesce(&SqQuiesce { timeout_ns: u64::MAX, ..SqQuiesce::default() }).unwrap();
    assert_eq!(consumer.ready(&mem), 1);
    consumer.pop(&mem);
    assert!(consumer.release(&mem), "as long as no worker has looked");
    HostileHost::run_worker(&ring);
    assert_eq!(state(&mem), sq_state::NEED_WAKEUP);
    assert!(!consumer.release(&mem));
    let ready = ring.poll();
    assert!(ready.over && !ready.readable);
}

/// The same if somebody rings first, who had seen that the ring waits.
#[test]
fn bell1_a_quiesced_ring_that_was_rung_is_not_rung_again() {
    static HOLDER: Holder = Holder(Mutex::new(Vec::new()));
    let (ring, mem, _) = parked_second(&HOLDER, || HOLDER.end_one());
    ring.shut();
    assert_eq!(ring.doorbell(), Err(Errno::ESHUTDOWN));
    ring.quiesce(&SqQuiesce::default()).unwrap();
    HostileHost::run_worker(&ring);
    assert_eq!(state(&mem), sq_state::NEED_WAKEUP);
}

/// Takes NOPs too, and files for what needs one.
struct Both(Mutex<Vec<Request>>);

impl Driver for Both {
    const NAME: &'static core::ffi::CStr = c"both";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::FSYNC).with(op::NOP);
    const FILES: bool = true;

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        if op.entry().opcode() == op::NOP {
            return op.done(0);
        }
        assert_ne!(op.target(), 0, "SEC-3: an operation on a file has one");
        let (request, issued) = op.defer();
        self.0.lock().unwrap().push(request);
        issued
    }

    fn cancel(&self, _: RequestId) {}
}

impl Both {
    fn end_one(&self) {
        self.0.lock().unwrap().pop().expect("one is held").complete(Ok(0));
    }
}

/// An entry that was parked leaves nothing to a bare one after it, of which only `user_data` is looked at.
#[test]
fn sub2_a_parked_entry_leaves_nothing_to_the_next() {
    static BOTH: Both = Both(Mutex::new(Vec::new()));
    let (ring, mem, mut producer) = parked_second(&BOTH, || BOTH.end_one());
    assert_eq!(ring.doorbell(), Ok(1), "the parked one");
    BOTH.end_one();
    for n in 3..=4 {
        producer.push(Sqe { user_data: n, ..Sqe::NOP }.to_words()).unwrap();
        producer.publish();
        assert_eq!(ring.doorbell(), Ok(1));
        assert_eq!(BOTH.0.lock().unwrap().len(), 0, "a NOP is answered at once");
    }
    let completed: Vec<u64> = mem.record().completed.iter().map(|cqe| cqe[0]).collect();
    assert_eq!(completed, [1, 2, 3, 4]);
}

/// While an entry is parked, `sq_tail` moves back behind it, and forward again with a NOP in its slot: what is issued next is the entry
/// that was copied, with its file, and not another in its name.
#[test]
fn snap1_sec3_a_tail_that_moves_back_does_not_unpark_an_entry() {
    static BOTH: Both = Both(Mutex::new(Vec::new()));
    let (ring, mem, _) = parked_second(&BOTH, || BOTH.end_one());
    mem.store_user(UserWord::SqTail, 1);
    let _ = ring.doorbell();
    assert_eq!(state(&mem), sq_state::NEED_ENTER, "the entry still waits");
    mem.write_sqe(1, Sqe { user_data: 99, ..Sqe::NOP }.to_words());
    mem.store_user(UserWord::SqTail, 2);
    assert_eq!(ring.doorbell(), Ok(1));
    BOTH.end_one();
    let completed: Vec<u64> = mem.record().completed.iter().map(|cqe| cqe[0]).collect();
    assert_eq!(completed, [1, 2], "SNAP-1");
    assert!(ring.balanced(), "CQ-5");
}
