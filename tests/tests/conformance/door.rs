// SPDX-License-Identifier: MIT OR Apache-2.0
//! One entry, one call: the door that needs no ring.

use std::time::{Duration, Instant};

use liburing_shm::{Device, Entry, Errno, RawEntry, SqeFlags, opcode};
use sq_uapi::Sqe;
use sq_uapi::consts::op;

use super::common::{delay, echo, fails, null, one, ring};

fn device() -> Device {
    null().open().expect("a device")
}

/// Any entry whatever: the null driver reads and writes no user memory.
fn raw(device: &Device, sqe: Sqe) -> Result<u32, Errno> {
    // SAFETY: the null driver takes no address, and the framework copies from one only for vectors, which it has none of.
    unsafe { device.issue_raw(&RawEntry::of(sqe)) }
}

#[test]
fn its_result_is_the_operations() {
    let device = device();
    assert_eq!(device.issue(&opcode::Nop::new().build()), Ok(0));
    assert_eq!(device.issue(&echo(0x1234_5678).user_data(u64::MAX)), Ok(0x1234_5678));
    for errno in [Errno::EIO, Errno::EAGAIN, Errno::EBUSY, Errno::ECANCELED, Errno::new(4095).unwrap()] {
        assert_eq!(device.issue(&fails(errno)), Err(errno));
    }
    // What asks the kernel to make the call again must not reach it: the operation has been done.
    for restart in [512, 513, 514, 516] {
        assert_eq!(device.issue(&fails(Errno::new(restart).unwrap())), Err(Errno::EINTR), "{restart}");
    }
}

#[test]
fn it_waits_for_what_is_deferred() {
    let device = device();
    for _ in 0..50 {
        assert_eq!(device.issue(&opcode::Nop::new().build().flags(SqeFlags::ASYNC)), Ok(0));
    }
    let (start, time) = (Instant::now(), Duration::from_millis(15));
    assert_eq!(device.issue(&delay(time)), Ok(7));
    assert!(start.elapsed() >= time);
}

#[test]
fn what_needs_a_ring_is_refused() {
    let device = device();
    for bit in 0..8 {
        let flags = 1 << bit;
        let expected = if flags == SqeFlags::ASYNC.bits() { Ok(0) } else { Err(Errno::EINVAL) };
        assert_eq!(raw(&device, Sqe { flags, ..Sqe::NOP }), expected, "flag {flags:#x}");
    }
    for opcode in [op::READ_FIXED, op::WRITE_FIXED, op::ASYNC_CANCEL] {
        assert_eq!(raw(&device, Sqe { opcode, ..Sqe::NOP }), Err(Errno::EINVAL), "opcode {opcode}");
    }
    let fixed = Sqe { opcode: op::CMD, op_flags: 1, ..Sqe::NOP };
    assert_eq!(raw(&device, fixed), Err(Errno::EINVAL));
    // SAFETY: as in `raw`.
    assert_eq!(unsafe { device.issue_raw(&RawEntry::wide(Sqe::NOP, [0; 8])) }, Err(Errno::EINVAL));
}

/// The ring is the oracle: whatever the entry, its flags aside, both ways say the same.
#[test]
fn every_other_entry_has_the_same_answer_as_on_a_ring() {
    let (device, mut ring) = (device(), ring(4));
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut accepted = 0;
    for _ in 0..3000 {
        // Mostly right, with one thing wrong at a time: else nothing gets past the first check.
        let opcode = [op::NOP, op::CMD, op::READ, op::FSYNC, random() as u8][random() as usize % 5];
        let mut words = Sqe { opcode, ..Sqe::NOP }.to_words();
        if opcode == op::CMD {
            // ECHO and RESULT.
            words[1] = random() % 2;
            words[6] = random() % 3000;
        }
        if random() % 2 == 0 {
            words[random() as usize % 8] ^= 1 << (random() % 64);
        }
        let sqe = Sqe { flags: 0, ..Sqe::from_words(words) };
        let waits = sqe.opcode == op::CMD && sqe.off > 1;
        if waits || [op::READ_FIXED, op::WRITE_FIXED, op::ASYNC_CANCEL].contains(&sqe.opcode) || sqe.op_flags != 0 {
            continue;
        }
        // SAFETY: as in `raw`.
        unsafe { ring.submission().push_raw(RawEntry::of(sqe)) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        let by_ring = ring.completion().reap().next().expect("its completion").result();
        assert_eq!(raw(&device, sqe), by_ring, "{sqe:?}");
        accepted += u32::from(by_ring.is_ok());
    }
    assert!(accepted > 300, "{accepted}");
}

#[test]
fn a_file_with_a_ring_has_it_too() {
    let mut ring = ring(4);
    assert_eq!(ring.submitter().issue(&echo(5)), Ok(5));
    ring.submission().push(echo(6)).unwrap();
    assert_eq!(ring.submitter().issue(&echo(7)), Ok(7), "past the queue");
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completion().reap().next().unwrap().result(), Ok(6));
}

#[test]
fn sec3_opcodes_that_the_file_gave_up_are_gone_at_this_door_too() {
    let mut ring = ring(4);
    ring.submitter().allow_opcodes(1 << op::CMD).unwrap();
    assert_eq!(ring.submitter().issue(&echo(1)), Ok(1));
    assert_eq!(ring.submitter().issue(&opcode::Nop::new().build()), Err(Errno::EOPNOTSUPP));
    ring.submitter().allow_opcodes(u64::MAX).unwrap();
    assert_eq!(ring.submitter().issue(&opcode::Nop::new().build()), Err(Errno::EOPNOTSUPP), "it only shrinks");
    assert_eq!(one(&mut ring, opcode::Nop::new().build()), Err(Errno::EOPNOTSUPP));
    assert_eq!(device().issue(&opcode::Nop::new().build()), Ok(0), "another file");
}

#[test]
fn many_threads_issue_on_one_file() {
    let device = device();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let device = &device;
            scope.spawn(move || {
                for n in 0..200u64 {
                    let entry: Entry = match n % 4 {
                        0 => delay(Duration::from_micros(n)),
                        1 => opcode::Nop::new().build().flags(SqeFlags::ASYNC),
                        _ => echo(thread << 16 | n),
                    };
                    let expected = [7, 0, (thread << 16 | n) as u32, (thread << 16 | n) as u32][n as usize % 4];
                    assert_eq!(device.issue(&entry), Ok(expected));
                }
            });
        }
    });
}
