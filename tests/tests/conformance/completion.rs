// SPDX-License-Identifier: MIT OR Apache-2.0
//! The completion queue: slots, blocking, and giving them back.

use liburing_shm::{CancelFlags, Errno, Ring, SqeFlags, Wait, opcode};

use super::common::{build, delay, echo, never, one, reap, ring, wait};
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
    wait(ring.submitter(), Wait::new(2)).unwrap();
    let seen: Vec<_> = reap(&mut ring).iter().map(|done| done.user_data()).collect();
    assert_eq!(seen, [4, 5]);
    assert!(ring.submitter().stats().unwrap().stalls > 0);
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
        wait(ring.submitter(), Wait::new(1)).unwrap();
        for done in reap(&mut ring) {
            assert_eq!(done.result(), Ok(7));
            seen += 1;
        }
        assert!(ring.submitter().stats().unwrap().inflight <= 2);
    }
    assert_eq!(seen, 10);
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

/// An entry that was consumed while requests were in flight leaves nothing to a bare one, of which only `user_data` is looked at.
#[test]
fn sub2_an_entry_beside_requests_leaves_nothing_to_the_next() {
    let mut ring = ring(4);
    ring.submission().push(never()).unwrap();
    ring.submit().unwrap();
    assert_eq!(one(&mut ring, echo(7)), Ok(7), "beside the request");
    ring.submitter().cancel(CancelFlags::ANY, 0, 0).unwrap();
    wait(ring.submitter(), Wait::new(1)).unwrap();
    assert_eq!(reap(&mut ring).len(), 1);
    // Twice: it is the end of the first drain that opens the short way.
    assert_eq!(one(&mut ring, opcode::Nop::new().build()), Ok(0));
    assert_eq!(one(&mut ring, opcode::Nop::new().build()), Ok(0));
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
