// SPDX-License-Identifier: MIT OR Apache-2.0
//! Canceling and quiescing.

use std::time::Duration;

use liburing_shm::{CancelFlags, Errno, Ring, Wait, opcode};

use super::common::{SOON, delay, echo, errno, never, one, reap, ring, wait};

/// A ring with requests in flight, their `user_data` 10, 11, ...
fn with_never(count: u64) -> Ring {
    let mut ring = ring(16);
    for n in 0..count {
        ring.submission().push(never().user_data(10 + n)).unwrap();
    }
    ring.submit().unwrap();
    assert_eq!(ring.submitter().stats().unwrap().inflight, count);
    ring
}

fn canceled(ring: &mut Ring, count: u32) -> Vec<u64> {
    wait(ring.submitter(), Wait::new(count)).unwrap();
    let done = reap(ring);
    assert!(done.iter().all(|done| done.result() == Err(Errno::ECANCELED)), "{done:?}");
    let mut ids: Vec<_> = done.iter().map(|done| done.user_data()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn can1_by_user_data() {
    let mut ring = with_never(3);
    assert_eq!(ring.submitter().cancel(CancelFlags::USERDATA, 11, 0).unwrap(), 0);
    assert_eq!(canceled(&mut ring, 1), [11]);
    assert_eq!(errno(ring.submitter().cancel(CancelFlags::USERDATA, 11, 0)), Errno::ENOENT);
    assert_eq!(ring.submitter().cancel(CancelFlags::empty(), 12, 0).unwrap(), 0, "user_data is the default");
    assert_eq!(canceled(&mut ring, 1), [12]);
}

#[test]
fn can1_all_any_and_by_opcode() {
    let mut ring = with_never(3);
    assert_eq!(ring.submitter().cancel(CancelFlags::ANY, 0, 0).unwrap(), 3);
    assert_eq!(canceled(&mut ring, 3), [10, 11, 12]);

    let mut ring = with_never(3);
    let cmd = sq_null_opcode();
    assert_eq!(ring.submitter().cancel(CancelFlags::OP, 0, cmd).unwrap(), 0, "one of them");
    assert_eq!(canceled(&mut ring, 1).len(), 1);
    assert_eq!(
        errno(ring.submitter().cancel(CancelFlags::OP | CancelFlags::ALL, 0, 0)),
        Errno::ENOENT,
        "no NOP is there"
    );
    assert_eq!(ring.submitter().cancel(CancelFlags::OP | CancelFlags::ALL, 0, cmd).unwrap(), 2);
    assert_eq!(canceled(&mut ring, 2).len(), 2);
}

fn sq_null_opcode() -> u8 {
    sq_uapi::consts::op::CMD
}

#[test]
fn can1_by_an_entry() {
    let mut ring = with_never(3);
    assert_eq!(one_of(&mut ring, opcode::AsyncCancel::user_data(99).build()), Err(Errno::ENOENT));
    assert_eq!(one_of(&mut ring, opcode::AsyncCancel::user_data(10).build()), Ok(0));
    assert_eq!(one_of(&mut ring, opcode::AsyncCancel::any().build()), Ok(2));
    assert_eq!(ring.submitter().stats().unwrap().inflight, 0);
}

/// The result of a cancel entry, in whatever company its victims' completions come.
fn one_of(ring: &mut Ring, entry: liburing_shm::Entry) -> Result<u32, Errno> {
    ring.submission().push(entry.user_data(1)).unwrap();
    ring.submit().unwrap();
    loop {
        wait(ring.submitter(), Wait::new(1)).unwrap();
        if let Some(done) = reap(ring).iter().find(|done| done.user_data() == 1) {
            return done.result();
        }
    }
}

#[test]
fn flags_and_fields_of_a_cancel_are_checked() {
    let ring = with_never(1);
    let cancel = |flags, user_data, opcode| errno(ring.submitter().cancel(flags, user_data, opcode));
    assert_eq!(cancel(CancelFlags::ANY | CancelFlags::OP, 0, 0), Errno::EINVAL);
    assert_eq!(cancel(CancelFlags::ANY | CancelFlags::USERDATA, 0, 0), Errno::EINVAL);
    assert_eq!(cancel(CancelFlags::ANY, 1, 0), Errno::EINVAL, "user_data is not referred to");
    assert_eq!(cancel(CancelFlags::OP, 1, 46), Errno::EINVAL, "user_data is not referred to");
    assert_eq!(cancel(CancelFlags::USERDATA, 1, 1), Errno::EINVAL, "the opcode is not referred to");
    assert_eq!(cancel(CancelFlags::from_bits_retain(2), 1, 0), Errno::EINVAL);
    assert_eq!(cancel(CancelFlags::from_bits_retain(1 << 31), 1, 0), Errno::EINVAL);
}

#[test]
fn can1_cancel_against_completion_has_one_outcome() {
    let mut ring = ring(64);
    for lap in 0..200u64 {
        ring.submission().push(delay(Duration::from_micros(lap * 3)).user_data(5)).unwrap();
        ring.submit().unwrap();
        let found = ring.submitter().cancel(CancelFlags::USERDATA, 5, 0);
        wait(ring.submitter(), Wait::new(1)).unwrap();
        let done = reap(&mut ring);
        assert_eq!(done.len(), 1, "SUB-2");
        match (found, done[0].result()) {
            (Ok(_), Err(Errno::ECANCELED)) | (Err(_), Ok(7)) => {}
            other => panic!("lap {lap}: {other:?}"),
        }
    }
    assert_eq!(ring.completion().ready(), 0);
}

#[test]
fn life1_quiesce_cancels_and_nothing_is_accepted_after_it() {
    let mut ring = with_never(5);
    ring.submitter().quiesce(SOON).unwrap();
    let stats = ring.submitter().stats().unwrap();
    assert_eq!(stats.inflight, 0);
    let done = reap(&mut ring);
    assert_eq!(done.len(), 5, "CQ-1: their completions are there to reap");
    ring.submission().push(echo(1)).unwrap();
    assert_eq!(errno(ring.submit()), Errno::ESHUTDOWN);
    assert_eq!(errno(wait(ring.submitter(), Wait::new(1))), Errno::ESHUTDOWN);
    ring.submitter().quiesce(SOON).unwrap();
}

#[test]
fn life1_quiesce_wakes_waiters() {
    let (submitter, mut sq, _cq) = ring(4).split();
    sq.push(never()).unwrap();
    sq.submit().unwrap();
    std::thread::scope(|scope| {
        let waiting = submitter.clone();
        let waiter = scope.spawn(move || errno(wait(&waiting, Wait::new(4))));
        std::thread::sleep(Duration::from_millis(20));
        submitter.quiesce(SOON).unwrap();
        assert_eq!(waiter.join().unwrap(), Errno::ESHUTDOWN);
    });
}

#[test]
fn dropping_a_ring_with_requests_in_flight_ends_them() {
    for _ in 0..20 {
        drop(with_never(3));
    }
    assert_eq!(one(&mut ring(4), echo(1)), Ok(1));
}
