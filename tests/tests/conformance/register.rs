// SPDX-License-Identifier: MIT OR Apache-2.0
//! REGISTER: eventfd, files, the opcode mask.

use std::os::fd::AsFd;
use std::time::Duration;

use liburing_shm::{CancelFlags, Errno, opcode};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::common::{SOON, delay, echo, errno, one, reap, ring};

fn readable(fd: impl AsFd, within: Duration) -> bool {
    let timeout = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: i64::from(within.subsec_nanos()) };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

fn count(fd: impl AsFd) -> u64 {
    let mut bytes = [0; 8];
    rustix::io::read(fd, &mut bytes).unwrap();
    u64::from_ne_bytes(bytes)
}

#[test]
fn bell4_an_eventfd_is_signalled_once_a_batch() {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let mut ring = ring(8);
    ring.submitter().register_eventfd(event.as_fd()).unwrap();
    for n in 0..5 {
        ring.submission().push(echo(n)).unwrap();
    }
    ring.submit().unwrap();
    assert_eq!(count(&event), 1, "five completions, one batch");
    assert_eq!(reap(&mut ring).len(), 5);
    ring.submission().push(delay(Duration::from_millis(5))).unwrap();
    ring.submit().unwrap();
    assert!(readable(&event, SOON), "a completion from elsewhere signals too");
    assert_eq!(count(&event), 1);
    assert_eq!(reap(&mut ring).len(), 1);
    ring.submitter().unregister_eventfd().unwrap();
    assert_eq!(one(&mut ring, echo(1)).map(|_| ()), Ok(()));
    assert!(!readable(&event, Duration::ZERO));
}

#[test]
fn bell4_an_eventfd_is_quiet_while_it_is_suppressed() {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let mut ring = ring(8);
    ring.submitter().register_eventfd(event.as_fd()).unwrap();
    assert_eq!(ring.completion().suppress_eventfd(true), 0);
    ring.submission().push(echo(1)).unwrap();
    ring.submit().unwrap();
    assert!(!readable(&event, Duration::ZERO));
    assert_eq!(ring.completion().suppress_eventfd(false), 1, "what came meanwhile is there to see");
    ring.submission().push(echo(2)).unwrap();
    ring.submit().unwrap();
    assert_eq!(count(&event), 1);
}

#[test]
fn only_an_eventfd_is_an_eventfd_and_only_one() {
    let ring = ring(8);
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    assert_eq!(errno(ring.submitter().register_eventfd(pipe.as_fd())), Errno::EINVAL);
    assert_eq!(errno(ring.submitter().unregister_eventfd()), Errno::ENXIO);
    ring.submitter().register_eventfd(event.as_fd()).unwrap();
    assert_eq!(errno(ring.submitter().register_eventfd(event.as_fd())), Errno::EBUSY);
    ring.submitter().unregister_eventfd().unwrap();
    ring.submitter().register_eventfd(event.as_fd()).unwrap();
}

#[test]
fn a_driver_without_files_takes_none() {
    let ring = ring(8);
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    assert_eq!(errno(ring.submitter().register_files(&[pipe.as_fd()])), Errno::EOPNOTSUPP);
    assert_eq!(errno(ring.submitter().update_files(0, &[None])), Errno::ENXIO);
    assert_eq!(errno(ring.submitter().unregister_files()), Errno::ENXIO);
}

/// Where NOPs went the short way until now.
#[test]
fn sec3_a_nop_that_was_given_up_is_refused() {
    let mut ring = ring(8);
    let nop = || opcode::Nop::new().build();
    assert_eq!((one(&mut ring, nop()), one(&mut ring, nop())), (Ok(0), Ok(0)));
    ring.submitter().allow_opcodes(1 << sq_uapi::consts::op::CMD).unwrap();
    assert_eq!(one(&mut ring, nop()), Err(Errno::EOPNOTSUPP));
    for _ in 0..2 {
        ring.submission().push(nop()).unwrap();
    }
    ring.submit_and_wait(2).unwrap();
    assert!(ring.completion().reap().all(|done| done.result() == Err(Errno::EOPNOTSUPP)));
    assert_eq!(one(&mut ring, echo(1)), Ok(1));
}

#[test]
fn sec3_the_opcode_mask_only_shrinks() {
    let mut ring = ring(8);
    let nop = 1u64 << sq_uapi::consts::op::NOP;
    assert_eq!(one(&mut ring, echo(1)), Ok(1));
    ring.submitter().allow_opcodes(nop).unwrap();
    assert_eq!(one(&mut ring, echo(1)), Err(Errno::EOPNOTSUPP));
    assert_eq!(one(&mut ring, opcode::Nop::new().build()), Ok(0));
    assert_eq!(one(&mut ring, opcode::AsyncCancel::any().build()), Err(Errno::EOPNOTSUPP));
    ring.submitter().allow_opcodes(u64::MAX).unwrap();
    assert_eq!(one(&mut ring, echo(1)), Err(Errno::EOPNOTSUPP), "what is gone is gone");
    // The CANCEL call is no opcode.
    assert_eq!(errno(ring.submitter().cancel(CancelFlags::ANY, 0, 0)), Errno::ENOENT);
}
