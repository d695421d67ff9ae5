// SPDX-License-Identifier: MIT OR Apache-2.0
//! The completion queue: slots, blocking, and giving them back.

use liburing_shm::{Errno, Ring, SqeFlags, Wait, opcode};

use super::common::{SOON, build, delay, echo, errno, never, reap};
use std::time::Duration;

#[test]
fn cq2_a_blocked_ring_goes_on_when_it_is_reaped() {
    let mut ring = build(Ring::builder(4).cq_entries(4));
    for n in 0..4 {
        ring.submission().push(echo(n).user_data(n)).unwrap();
    }
    ring.submit().unwrap();
    // All four slots hold completions; these two have to wait.
    for n in 4..6 {
        ring.submission().push(echo(n).user_data(n)).unwrap();
    }
    ring.submit().unwrap();
    assert_eq!(ring.submission().room(), 2, "the two are not consumed");
    assert_eq!(ring.completion().ready(), 4);
    let seen: Vec<_> = reap(&mut ring).iter().map(|done| done.user_data()).collect();
    assert_eq!(seen, [0, 1, 2, 3], "CQ-1: nothing is lost or overwritten");
    // Reaping rang the doorbell: nobody else had to.
    ring.submitter().wait(&Wait::new(2).timeout(SOON)).unwrap();
    let seen: Vec<_> = reap(&mut ring).iter().map(|done| done.user_data()).collect();
    assert_eq!(seen, [4, 5]);
    assert!(ring.submitter().stats().unwrap().stalls > 0);
}

#[test]
fn wait1_a_wait_on_a_blocked_ring_ends() {
    let mut ring = build(Ring::builder(4).cq_entries(4));
    for lap in 0..2 {
        for n in 0..4 {
            ring.submission().push(echo(lap * 4 + n)).unwrap();
        }
        ring.submit().unwrap();
    }
    // min_complete is clamped to the 4 that there can be, and they are there.
    ring.submitter().wait(&Wait::new(100).timeout(SOON)).unwrap();
    assert_eq!(reap(&mut ring).len(), 4);
    ring.submitter().wait(&Wait::new(4).timeout(SOON)).unwrap();
    assert_eq!(reap(&mut ring).len(), 4);
}

#[test]
fn slots_held_by_slow_requests_are_got_back_by_cancel() {
    let mut ring = build(Ring::builder(4).cq_entries(4).max_inflight(4));
    for _ in 0..4 {
        ring.submission().push(delay(Duration::from_secs(9))).unwrap();
    }
    ring.submit().unwrap();
    ring.submission().push(echo(1).user_data(1)).unwrap();
    ring.submit().unwrap();
    assert_eq!(ring.submission().room(), 3, "it waits for a slot");
    // SAFETY: the bare doorbell has no argument.
    let stuck = unsafe { ring.submitter().raw_call(sq_uapi::ioctl::ENTER, &mut []) };
    assert_eq!(stuck, Err(Errno::EBUSY), "no slot, and nothing to reap");
    let waits = ring.submitter().wait(&Wait::new(1).timeout(Duration::from_millis(20)));
    assert_eq!(errno(waits), Errno::ETIME, "WAIT-1: a wait goes on, since one of the four will end");
    assert_eq!(ring.submitter().cancel(liburing_shm::CancelFlags::ANY, 0, 0).unwrap(), 4);
    ring.submitter().wait(&Wait::new(4).timeout(SOON)).unwrap();
    let done = reap(&mut ring);
    assert!(done.iter().all(|done| done.result() == Err(Errno::ECANCELED)));
    ring.submitter().wait(&Wait::new(1).timeout(SOON)).unwrap();
    assert_eq!(reap(&mut ring)[0].user_data(), 1);
}

#[test]
fn cq4_requests_without_bound_leave_slots_to_the_others() {
    let mut ring = build(Ring::builder(16).cq_entries(16).max_inflight(16));
    for n in 0..16 {
        ring.submission().push(never().user_data(n)).unwrap();
    }
    ring.submit().unwrap();
    // An eighth of 16 is kept: the last two fail at once, in their own completions.
    let done: Vec<_> = reap(&mut ring).iter().map(|done| (done.user_data(), done.result())).collect();
    assert_eq!(done, [(14, Err(Errno::EBUSY)), (15, Err(Errno::EBUSY))]);
    assert_eq!(super::common::one(&mut ring, echo(5)), Ok(5), "the ring goes on");
    assert_eq!(ring.submitter().cancel(liburing_shm::CancelFlags::USERDATA, 3, 0).unwrap(), 0);
    ring.submitter().wait(&Wait::new(1).timeout(SOON)).unwrap();
    assert_eq!(reap(&mut ring)[0].user_data(), 3);
    ring.submission().push(never().user_data(99)).unwrap();
    ring.submit().unwrap();
    assert_eq!(ring.completion().ready(), 0, "a place came free");
}

#[test]
fn entries_beyond_max_inflight_wait_for_a_request() {
    let mut ring = build(Ring::builder(16).max_inflight(2));
    for n in 0..10 {
        ring.submission().push(delay(Duration::from_millis(5)).user_data(n)).unwrap();
    }
    ring.submit().unwrap();
    let mut seen = 0;
    while seen < 10 {
        ring.submitter().wait(&Wait::new(1).timeout(SOON)).unwrap();
        for done in reap(&mut ring) {
            assert_eq!(done.result(), Ok(7));
            seen += 1;
        }
        assert!(ring.submitter().stats().unwrap().inflight <= 2);
    }
    assert_eq!(seen, 10);
}

#[test]
fn cq4_requests_without_bound_leave_a_request_to_the_others() {
    // By default there are half as many requests as slots: they run out first.
    let mut ring = build(Ring::builder(8));
    for n in 0..8 {
        ring.submission().push(never().user_data(n)).unwrap();
    }
    ring.submit().unwrap();
    let done: Vec<_> = reap(&mut ring).iter().map(|done| (done.user_data(), done.result())).collect();
    assert_eq!(done, [(7, Err(Errno::EBUSY))]);
    assert_eq!(super::common::one(&mut ring, echo(5)), Ok(5), "the ring goes on");
}

#[test]
fn an_operation_leaves_nothing_to_the_next() {
    // CQE32: the second half of a completion is its own operation's, also after a skipped success and in a rejection.
    let mut ring = build(Ring::builder(4).wide_completions());
    ring.submission().push(echo(7).flags(SqeFlags::CQE_SKIP_SUCCESS)).unwrap();
    ring.submission().push(opcode::Nop::new().build().flags(SqeFlags::IO_LINK)).unwrap();
    ring.submission().push(opcode::Nop::new().build()).unwrap();
    ring.submit().unwrap();
    let done: Vec<_> = reap(&mut ring).iter().map(|done| (done.result(), done.extra())).collect();
    assert_eq!(done, [(Err(Errno::EINVAL), [0, 0]), (Ok(0), [0, 0])]);
}

#[test]
fn a_leaked_reap_keeps_no_slots() {
    let mut ring = build(Ring::builder(4).cq_entries(4));
    for n in 0..4 {
        ring.submission().push(echo(n).user_data(n)).unwrap();
    }
    ring.submit().unwrap();
    let mut leaked = ring.completion().reap();
    assert_eq!(leaked.next().unwrap().user_data(), 0);
    std::mem::forget(leaked);
    assert_eq!(reap(&mut ring).len(), 0, "none is seen twice");
    for n in 0..4 {
        ring.submission().push(echo(n)).unwrap();
    }
    ring.submit_and_wait(4).unwrap();
    assert_eq!(reap(&mut ring).len(), 4, "all slots came back");
}
