// SPDX-License-Identifier: MIT OR Apache-2.0
//! The safe layer stays safe whatever its user drops, leaks, moves or panics in: one test each.

use std::time::Duration;

use liburing_shm::opcode::{Target, command};
use liburing_shm::safe::{self, Reap, Submit};
use liburing_shm::{Backend, CancelFlags, Errno, PushError, Ring};

const BYTES: u32 = 4096;

fn ram() -> Backend {
    Backend::embedded(sq_ram::Ram::in_process(1 << 20).unwrap()).unwrap()
}

fn ring() -> (Submit, Reap) {
    safe::ring(Ring::builder(8).pool(4, BYTES), &ram()).unwrap()
}

fn done(submit: &Submit, reap: &mut Reap) -> safe::Done {
    submit.submit_and_wait(1).unwrap();
    reap.next().expect("a completion")
}

#[test]
fn what_is_written_is_read() {
    let (submit, mut reap) = ring();
    let mut buf = submit.buffer().unwrap();
    buf.fill(0xa5);
    submit.write(Target::Device, 8192, buf, BYTES, 1).unwrap();
    let written = done(&submit, &mut reap);
    assert_eq!((written.token, written.result), (1, Ok(BYTES)));
    let mut buf = written.buf.unwrap();
    buf.fill(0);
    submit.read(Target::Device, 8192, buf, BYTES, 2).unwrap();
    let read = done(&submit, &mut reap);
    assert_eq!((read.token, read.result), (2, Ok(BYTES)));
    assert!(read.buf.unwrap().iter().all(|byte| *byte == 0xa5));
    assert!(reap.next().is_none());
}

#[test]
fn each_buffer_is_in_one_place() {
    let (submit, mut reap) = ring();
    let bufs: Vec<_> = std::iter::from_fn(|| submit.buffer()).collect();
    assert_eq!(bufs.len(), 4);
    let mut starts: Vec<_> = bufs.iter().map(|buf| buf.as_ptr() as usize).collect();
    starts.sort_unstable();
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= BYTES as usize));
    drop(bufs);
    let buf = submit.buffer().unwrap();
    submit.write(Target::Device, 0, buf, 1, 1).unwrap();
    // In flight: three are left, and a fourth when it completes.
    let rest: Vec<_> = std::iter::from_fn(|| submit.buffer()).collect();
    assert_eq!(rest.len(), 3);
    drop(done(&submit, &mut reap));
    assert!(submit.buffer().is_some());
}

#[test]
fn a_refused_operation_gives_its_buffer_back() {
    let (submit, _reap) = ring();
    let (other, _other_reap) = ring();
    let refused = submit.write(Target::Device, 0, other.buffer().unwrap(), 1, 1).unwrap_err();
    assert_eq!(refused.error, PushError::NoBuffer);
    assert!(refused.buf.is_some());
    let refused = submit.write(Target::Device, 0, submit.buffer().unwrap(), BYTES + 1, 1).unwrap_err();
    assert_eq!(refused.error, PushError::NoBuffer);
    for n in 0..8 {
        submit.nop(n).unwrap();
    }
    let refused = submit.write(Target::Device, 0, submit.buffer().unwrap(), 1, 9).unwrap_err();
    assert_eq!(refused.error, PushError::Full);
    assert!(refused.buf.is_some());
}

#[test]
fn nobody_else_gets_at_the_pool() {
    let (submit, _reap) = ring();
    assert!(submit.submitter().pool().is_none());
}

command! {
    /// `sq_null::cmd::NEVER`
    struct Never = 3 {}

    /// `sq_null::cmd::DELAY`
    struct Delay = 2 { ns: u64 }
}

fn null() -> (Submit, Reap) {
    safe::ring(Ring::builder(8).pool(1, BYTES), &Backend::embedded(sq_null::Null).unwrap()).unwrap()
}

/// An entry's `user_data` is the safe layer's own, and no token.
#[test]
fn a_cancel_is_for_who_has_the_token() {
    let (submit, mut reap) = null();
    let ended = |reap: &mut Reap| reap.map(|done| (done.token, done.result)).collect::<Vec<_>>();
    let refused = |token| submit.cancel(token).unwrap_err().errno();
    submit.command(&Never {}, 1).unwrap();
    submit.command(&Never {}, 0).unwrap();
    submit.submit().unwrap();
    submit.cancel(0).unwrap();
    assert_eq!(ended(&mut reap), [(0, Err(Errno::ECANCELED))]);
    assert_eq!((refused(0), refused(2)), (Some(Errno::ENOENT), Some(Errno::ENOENT)));
    // In the place of the one that is gone: a cancel for that one, which looked before it went, is not for this one.
    submit.command(&Never {}, u64::MAX).unwrap();
    submit.submit().unwrap();
    for late in [0, 1] {
        let canceled = submit.submitter().cancel(CancelFlags::USERDATA, late, 0);
        assert_eq!(canceled.is_ok(), late == 0, "the first place has its first operation");
    }
    assert_eq!(ended(&mut reap), [(1, Err(Errno::ECANCELED))]);
    submit.cancel(u64::MAX).unwrap();
    assert_eq!(ended(&mut reap), [(u64::MAX, Err(Errno::ECANCELED))]);
}

#[test]
fn a_cancel_is_for_all_who_have_the_token() {
    let (submit, mut reap) = null();
    for token in [5, 6, 5] {
        submit.command(&Never {}, token).unwrap();
    }
    assert_eq!(submit.cancel(5).unwrap_err().errno(), Some(Errno::ENOENT), "not submitted yet");
    submit.submit().unwrap();
    submit.cancel(5).unwrap();
    assert_eq!(reap.by_ref().map(|done| done.token).collect::<Vec<_>>(), [5, 5]);
    submit.cancel(6).unwrap();
    assert_eq!(reap.next().unwrap().token, 6);
}

#[test]
fn the_ring_is_leaked_with_operations_in_flight() {
    let (submit, reap) = null();
    submit.command(&Delay { ns: 5_000_000 }, 1).unwrap();
    submit.submit().unwrap();
    std::mem::forget(submit);
    std::mem::forget(reap);
    // The completion arrives on memory that is still there.
    std::thread::sleep(Duration::from_millis(20));
}

#[test]
fn a_half_is_leaked_and_the_other_goes_on() {
    let (submit, mut reap) = null();
    submit.command(&Delay { ns: 1_000_000 }, 1).unwrap();
    submit.submit_and_wait(1).unwrap();
    std::mem::forget(submit);
    assert_eq!(reap.next().unwrap().token, 1);

    let (submit, reap) = null();
    std::mem::forget(reap);
    submit.command(&Delay { ns: 1 }, 1).unwrap();
    submit.submit().unwrap();
}

#[test]
fn the_ring_is_dropped_with_operations_in_flight() {
    for _ in 0..20 {
        let (submit, reap) = null();
        submit.command(&Never {}, 1).unwrap();
        submit.command(&Delay { ns: 1_000 }, 2).unwrap();
        submit.submit().unwrap();
        drop(submit);
        drop(reap);
    }
}

/// LIFE-4
#[test]
fn a_buffer_outlives_the_ring_it_is_of() {
    let (submit, reap) = ring();
    let mut buf = submit.buffer().unwrap();
    drop((submit, reap));
    buf.fill(7);
    assert!(buf.iter().all(|byte| *byte == 7));
}

#[test]
fn a_completion_is_leaked() {
    let (submit, mut reap) = ring();
    for _ in 0..4 {
        submit.read(Target::Device, 0, submit.buffer().unwrap(), BYTES, 1).unwrap();
        std::mem::forget(done(&submit, &mut reap));
    }
    assert!(submit.buffer().is_none(), "leaked buffers are lost, not lent twice");
    submit.nop(2).unwrap();
    assert_eq!(done(&submit, &mut reap).token, 2);
}

#[test]
fn a_panic_in_the_middle_of_reaping() {
    let (submit, mut reap) = ring();
    for n in 0..4 {
        submit.read(Target::Device, 0, submit.buffer().unwrap(), BYTES, n).unwrap();
    }
    submit.submit_and_wait(4).unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for done in &mut reap {
            assert_ne!(done.token, 1, "on purpose");
        }
    }));
    assert!(caught.is_err());
    let rest: Vec<_> = reap.by_ref().map(|done| done.token).collect();
    assert_eq!(rest, [2, 3]);
    let all: Vec<_> = std::iter::from_fn(|| submit.buffer()).collect();
    assert_eq!(all.len(), 4, "also those of completions lost in the panic");
}

#[test]
fn many_threads_submit_and_another_reaps() {
    let (submit, mut reap) = safe::ring(Ring::builder(32).pool(8, BYTES), &ram()).unwrap();
    const EACH: u64 = 200;
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let submit = submit.clone();
            scope.spawn(move || {
                let mut n = 0;
                while n < EACH {
                    let Some(mut buf) = submit.buffer() else {
                        std::thread::yield_now();
                        continue;
                    };
                    buf[..8].copy_from_slice(&n.to_le_bytes());
                    let at = (thread * EACH + n) * 8;
                    if submit.write(Target::Device, at, buf, 8, at).is_ok() {
                        submit.submit().unwrap();
                        n += 1;
                    }
                }
            });
        }
        let reaper = scope.spawn(move || {
            let mut seen = 0;
            while seen < 3 * EACH {
                match reap.next() {
                    Some(done) => {
                        assert_eq!(done.result, Ok(8));
                        seen += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
        reaper.join().unwrap();
    });
}

/// CQ-2
#[test]
fn a_reaper_that_takes_one_at_a_time_does_not_block_the_ring() {
    let (submit, mut reap) = ring();
    for n in 0..1000 {
        submit.nop(n).unwrap();
        submit.nop(n).unwrap();
        submit.submit_and_wait(2).unwrap();
        assert_eq!(reap.next().unwrap().token, n);
        assert_eq!(reap.next().unwrap().token, n);
    }
    assert_eq!(submit.submitter().stats().unwrap().stalls, 0);
}

#[test]
fn errors_of_the_device_arrive() {
    let (submit, mut reap) = ring();
    submit.write(Target::Device, 1 << 20, submit.buffer().unwrap(), 1, 1).unwrap();
    assert_eq!(done(&submit, &mut reap).result, Err(Errno::ENOSPC));
    submit.command(&Never {}, 2).unwrap();
    assert_eq!(done(&submit, &mut reap).result, Err(Errno::EOPNOTSUPP), "the ram driver has no commands");
}
