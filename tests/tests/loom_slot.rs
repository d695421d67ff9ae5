// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models of `sq_driver::Slot`: a request that an interrupt and a cancel both want goes to one of them (CAN-1).
#![cfg(loom)]

use std::ffi::CStr;
use std::sync::Arc;

use liburing_shm::ring::{Consumer, Producer};
use loom::thread;
use sq_conformance::checkers::loom_mem::{LoomMem, Weaken};
use sq_conformance::checkers::loom_run::explore;
use sq_conformance::checkers::model_host::{Model, ModelHost, Shape, nop};
use sq_driver::{Driver, Issued, Op, Opcodes, RequestId, Slot, op};
use sq_uapi::consts::sqe_flags;
use sq_uapi::{Cqe, Errno, SqCancel};

use kmod_sq::Ring;

/// Preemptive switches that are explored.
const PREEMPTIONS: Option<usize> = Some(3);

const SHAPE: Shape = Shape { sq_entries: 2, cq_entries: 2, max_inflight: 2, flags: 0 };

/// Holds one request.
#[derive(Default)]
struct Device {
    waiting: Slot,
}

impl Device {
    fn interrupt(&self) {
        if let Some(request) = self.waiting.id().and_then(|id| self.waiting.take(id)) {
            request.complete(Ok(5));
        }
    }
}

impl Driver for Device {
    const NAME: &'static CStr = c"slot";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::NOP);

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        let (request, issued) = op.defer();
        if let Err(second) = self.waiting.put(request) {
            second.complete(Err(Errno::EBUSY));
        }
        issued
    }

    fn cancel(&self, id: RequestId) {
        if let Some(request) = self.waiting.take(id) {
            request.complete(Err(Errno::ECANCELED));
        }
    }
}

fn submit(ring: &Ring<ModelHost>, producer: &mut Producer<LoomMem>, user_data: u64) {
    producer.push(nop(user_data, sqe_flags::ASYNC)).unwrap();
    producer.publish();
    ring.doorbell().unwrap();
}

fn outcomes(mem: &LoomMem) -> Vec<(u64, i32)> {
    let mut consumer = Consumer::new();
    consumer.ready(mem);
    let cqes = std::iter::from_fn(|| consumer.pop(mem)).map(|[a, b, ..]| Cqe::from_words([a, b]));
    let mut outcomes: Vec<_> = cqes.map(|cqe| (cqe.user_data, cqe.res)).collect();
    outcomes.sort_unstable();
    outcomes
}

/// One request, an interrupt that may come before it is there, a cancel.
fn against_cancel(weaken: Weaken) {
    let driver = Arc::new(Device::default());
    let Model { ring, mem, .. } = Model::new(SHAPE, &driver, weaken);
    let interrupt = thread::spawn({
        let driver = Arc::clone(&driver);
        move || driver.interrupt()
    });
    submit(&ring, &mut Producer::new(mem.clone()), 1);
    let canceled = ring.cancel(&SqCancel { user_data: 1, ..SqCancel::default() });
    interrupt.join().unwrap();
    match outcomes(&mem)[..] {
        [(1, 5)] => {}
        [(1, res)] => assert_eq!((res, canceled), (Errno::ECANCELED.to_res(), Ok(0)), "CAN-1"),
        ref other => panic!("SUB-2: {other:?}"),
    }
    assert!(ring.balanced(), "CQ-5");
}

/// The slot is used again while an interrupt looks at it.
fn used_again(weaken: Weaken) {
    let driver = Arc::new(Device::default());
    let Model { ring, mem, .. } = Model::new(SHAPE, &driver, weaken);
    let mut producer = Producer::new(mem.clone());
    submit(&ring, &mut producer, 1);
    let interrupt = thread::spawn({
        let driver = Arc::clone(&driver);
        move || driver.interrupt()
    });
    submit(&ring, &mut producer, 2);
    interrupt.join().unwrap();
    driver.interrupt();
    match outcomes(&mem)[..] {
        [(1, 5), (2, second)] => assert!(second == 5 || second == Errno::EBUSY.to_res(), "{second}"),
        ref other => panic!("SUB-2: {other:?}"),
    }
    assert!(ring.balanced(), "CQ-5");
}

#[test]
fn can_1_slot_against_cancel() {
    explore(against_cancel, PREEMPTIONS);
}

#[test]
fn can_1_slot_used_again() {
    explore(used_again, PREEMPTIONS);
}
