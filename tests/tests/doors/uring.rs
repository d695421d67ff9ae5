// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a command answers.

use std::fs::File;
use std::time::{Duration, Instant};

use io_uring::squeue::Flags;
use io_uring::{IoUring, cqueue, opcode, types};
use sq_uapi::Sqe;
use sq_uapi::consts::{limit, op};

use super::common::{NODE, delay, device, echo, never, nothing_left, open, result};
use super::uring_rig::{Inline, Kind, Pointer, Rig, has_cancel, has_commands};

/// Requests of a file, and how many of them may wait without bound.
const POOL: usize = limit::COMMANDS as usize;
const ENDLESS: usize = POOL - POOL / 8;

const ASYNC_NOP: Sqe = Sqe { flags: 16, ..Sqe::NOP };

/// Results that mean something else to io_uring, or to the kernel's system calls, among them.
fn answers<S: Kind>(flags: Flags) {
    let file = open();
    let mut rig = Rig::<S>::new(&file);
    let entries = [
        Sqe::NOP,
        ASYNC_NOP,
        echo(1),
        echo(0x7fff_ffff),
        result(-5),
        result(-11),  // EAGAIN
        result(-125), // ECANCELED
        result(-529), // EIOCBQUEUED
        result(-4095),
        result(-512),  // ERESTARTSYS
        result(-5000), // no errno
        delay(Duration::from_millis(1)),
    ];
    let expected = [0, 0, 1, 0x7fff_ffff, -5, -11, -125, -529, -4095, -4, -5, 7];
    assert_eq!(rig.all(&entries, flags), expected);
    for (sqe, res) in entries.iter().zip(expected) {
        assert_eq!(rig.all(&[*sqe], flags), [res], "{sqe:?}");
    }
}

#[test]
fn inline_entries() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    answers::<Inline>(Flags::empty());
    // By a thread of io_uring's own, from its copy of the SQE.
    answers::<Inline>(Flags::ASYNC);
    nothing_left();
}

/// An operation may be a write.
#[test]
fn a_file_that_is_open_for_reading() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let file = File::open(NODE).unwrap();
    assert_eq!(Rig::<Inline>::new(&file).all(&[Sqe::NOP], Flags::empty()), [-9]);
}

#[test]
fn entries_by_address() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    answers::<Pointer>(Flags::empty());
    answers::<Pointer>(Flags::ASYNC);
    let file = open();
    let mut rig = Rig::<Pointer>::new(&file);
    for at in [0usize, 1, usize::MAX - 63, 0xffff_8880_0000_0000, 1 << 47] {
        let mut cmd = [0; 16];
        cmd[..8].copy_from_slice(&at.to_le_bytes());
        rig.push_raw(opcode::UringCmd16::new(rig.fd, sq_uapi::ioctl::ISSUE).cmd(cmd).build());
        assert_eq!(rig.wait(1), [(0, -14)], "{at:#x}");
    }
}

#[test]
fn what_is_no_entry_for_a_door() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let file = open();
    let mut rig = Rig::<Inline>::new(&file);
    for bit in (0..8).filter(|bit| *bit != 4) {
        assert_eq!(rig.one(&Sqe { flags: 1 << bit, ..Sqe::NOP }), -22, "flag {bit}");
    }
    for opcode in [op::READ_FIXED, op::WRITE_FIXED, op::ASYNC_CANCEL, 63, 200] {
        assert_eq!(rig.one(&Sqe { opcode, ..Sqe::NOP }), -22, "opcode {opcode}");
    }
    assert_eq!(rig.one(&Sqe { opcode: op::READ, ..Sqe::NOP }), -95);
    assert_eq!(rig.one(&Sqe { personality: 1, ..Sqe::NOP }), -22);
    // Another command.
    let nop: &'static Sqe = &Sqe::NOP;
    rig.push_raw(Inline::command(rig.fd, sq_uapi::ioctl::ISSUE + 1, nop).with(Flags::empty(), 3));
    assert_eq!(rig.wait(1), [(3, -25)]);
}

#[test]
fn the_second_half_of_a_wide_completion() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let file = open();
    let mut rig: Rig<Inline, cqueue::Entry32> =
        Rig { uring: IoUring::builder().build(8).unwrap(), fd: types::Fd(std::os::fd::AsRawFd::as_raw_fd(&file)) };
    for (n, value) in [5, 0].into_iter().enumerate() {
        rig.push(&echo(value), Flags::empty(), n as u64);
        rig.submit_for(1);
        let cqe = rig.uring.completion().next().expect("a completion");
        assert_eq!((cqe.result(), cqe.big_cqe()[0]), (value as i32, u64::from(value)));
    }
}

#[test]
fn deferred_commands_complete_when_their_time_comes() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let file = open();
    let mut rig = Rig::<Inline>::new(&file);
    let start = Instant::now();
    for ms in [40, 10, 25] {
        rig.push(&delay(Duration::from_millis(ms)), Flags::empty(), ms);
    }
    assert_eq!(rig.wait(3), [(10, 7), (25, 7), (40, 7)]);
    assert!(start.elapsed() >= Duration::from_millis(40));
    // Linked: each waits for the one before it, and a result above 0 breaks no link.
    let start = Instant::now();
    let linked = [delay(Duration::from_millis(10)), echo(5), delay(Duration::from_millis(10)), Sqe::NOP];
    for (n, sqe) in linked.iter().enumerate() {
        rig.push(sqe, if n < 3 { Flags::IO_LINK } else { Flags::empty() }, n as u64);
    }
    assert_eq!(rig.wait(4), [(0, 7), (1, 5), (2, 7), (3, 0)]);
    assert!(start.elapsed() >= Duration::from_millis(20));
}

#[test]
fn other_kinds_of_io_uring() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let file = open();
    let entries = [Sqe::NOP, echo(4), delay(Duration::from_millis(3)), ASYNC_NOP, result(-11)];
    let expected = [0, 4, 7, 0, -11];
    let mut polled = Rig::<Inline>::shaped(&file, |builder| {
        builder.setup_sqpoll(50);
    });
    assert_eq!(polled.all(&entries, Flags::empty()), expected);
    drop(polled);
    let mut deferring = Rig::<Inline>::shaped(&file, |builder| {
        builder.setup_single_issuer().setup_defer_taskrun();
    });
    assert_eq!(deferring.all(&entries, Flags::empty()), expected);
    let mut busy = Rig::<Inline>::shaped(&file, |builder| {
        builder.setup_iopoll();
    });
    assert_eq!(busy.one(&Sqe::NOP), -95, "there is nothing to poll for");
}

#[test]
fn an_empty_pool_is_busy_and_fills_again() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let file = open();
    let mut rig = Rig::<Inline>::new(&file);
    for lap in 0..3 {
        let mut entries = vec![delay(Duration::from_millis(700)); POOL + 2];
        entries.push(Sqe::NOP);
        let results = rig.all(&entries, Flags::empty());
        assert_eq!(results[..POOL], vec![7; POOL], "lap {lap}");
        assert_eq!(results[POOL..], [-16, -16, -16], "not even what would complete at once");
    }
    // Another file has another pool.
    let (other, more) = (open(), delay(Duration::from_millis(300)));
    for n in 0..POOL as u64 {
        rig.push(&more, Flags::empty(), n);
    }
    rig.submit_for(0);
    let mut beside = Rig::<Inline>::new(&other);
    assert_eq!(beside.one(&ASYNC_NOP), 0);
    assert_eq!(rig.wait(POOL).len(), POOL);
}

#[test]
fn cq4_what_never_ends_leaves_requests_to_the_rest() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let file = open();
    let mut rig = Rig::<Inline>::new(&file);
    if !has_cancel() {
        assert_eq!(rig.one(&never()), -95, "nobody could end it");
        assert_eq!(rig.one(&delay(Duration::from_secs(11))), -95, "too long to be bounded");
        return;
    }
    for n in 0..(ENDLESS + 3) as u64 {
        rig.push(&never(), Flags::empty(), n);
    }
    assert_eq!(rig.wait(3), [ENDLESS, ENDLESS + 1, ENDLESS + 2].map(|n| (n as u64, -16)));
    let bounded = vec![delay(Duration::from_millis(10)); POOL - ENDLESS];
    assert_eq!(rig.all(&bounded, Flags::empty()), vec![7; POOL - ENDLESS]);
    // The end of the io_uring is their end.
    drop(rig);
    drop(file);
    nothing_left();
}
