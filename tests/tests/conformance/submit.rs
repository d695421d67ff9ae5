// SPDX-License-Identifier: MIT OR Apache-2.0
//! Submission: what goes in comes out, once, in whatever company.

use std::collections::HashSet;
use std::time::Duration;

use liburing_shm::{CancelFlags, CqeFlags, Errno, PushError, RawEntry, Ring, SqeFlags, Wait, opcode};
use sq_uapi::Sqe;

use super::common::{build, delay, echo, errno, fails, never, one, reap, ring};

#[test]
fn sub2_user_data_is_echoed_bit_for_bit() {
    let mut ring = ring(8);
    for user_data in [0, 1, u64::MAX, 1 << 63, 0x0123_4567_89ab_cdef] {
        ring.submission().push(opcode::Nop::new().build().user_data(user_data)).unwrap();
        ring.submit_and_wait(1).unwrap();
        let done = reap(&mut ring);
        assert_eq!(done.len(), 1);
        assert_eq!((done[0].user_data(), done[0].result(), done[0].flags().bits()), (user_data, Ok(0), 0));
    }
}

#[test]
fn sub2_each_entry_has_one_completion_in_order_over_many_laps() {
    let mut ring = ring(8);
    let mut next = 0u64;
    for lap in 0..1000u64 {
        let batch = lap % 8 + 1;
        for n in 0..batch {
            ring.submission().push(echo(next + n).user_data(next + n)).unwrap();
        }
        assert_eq!(u64::from(ring.submit().unwrap()), batch);
        for done in reap(&mut ring) {
            assert_eq!((done.user_data(), done.result()), (next, Ok(next as u32)));
            next += 1;
        }
    }
    let stats = ring.submitter().stats().unwrap();
    assert_eq!((stats.entries, stats.completions, stats.rejected, stats.inflight), (next, next, 0, 0));
}

#[test]
fn a_full_queue_gives_the_entry_back_untouched() {
    let mut ring = ring(4);
    for n in 0..4 {
        ring.submission().push(echo(n).user_data(n)).unwrap();
    }
    assert_eq!(ring.submission().push(echo(9)), Err(PushError::Full));
    assert_eq!(ring.submission().room(), 0);
    ring.submit_and_wait(4).unwrap();
    assert_eq!(ring.submission().room(), 4);
    let seen: Vec<u64> = reap(&mut ring).iter().map(|done| done.user_data()).collect();
    assert_eq!(seen, [0, 1, 2, 3]);
}

#[test]
fn nothing_is_visible_before_submit() {
    let mut ring = ring(4);
    ring.submission().push(echo(1)).unwrap();
    assert_eq!(ring.completion().ready(), 0);
    assert_eq!(ring.submit().unwrap(), 1);
    assert_eq!(ring.submit().unwrap(), 0, "a second submit has nothing to publish");
    ring.submit_and_wait(1).unwrap();
    assert_eq!(reap(&mut ring).len(), 1);
}

#[test]
fn sub1_a_bad_entry_gets_its_own_error_and_the_batch_goes_on() {
    let mut ring = ring(8);
    let bad = opcode::Nop::new().build().flags(SqeFlags::IO_LINK);
    for (n, entry) in [echo(1), bad, echo(3), fails(Errno::ENOSPC), echo(5)].into_iter().enumerate() {
        ring.submission().push(entry.user_data(n as u64)).unwrap();
    }
    ring.submit_and_wait(5).unwrap();
    let results: Vec<_> = reap(&mut ring).iter().map(|done| done.result()).collect();
    assert_eq!(results, [Ok(1), Err(Errno::EINVAL), Ok(3), Err(Errno::ENOSPC), Ok(5)]);
    assert_eq!(ring.submitter().stats().unwrap().rejected, 1, "the driver's own error is not a rejection");
}

/// Rules that are not kept yet are refused until they are: nobody takes them for kept.
#[test]
fn what_is_not_implemented_is_refused() {
    let mut ring = ring(8);
    for (flag, rule) in [
        (SqeFlags::IO_LINK, "LINK-1: refused until it exists"),
        (SqeFlags::IO_HARDLINK, "LINK-1: refused until it exists"),
        (SqeFlags::IO_DRAIN, "DRAIN-1: refused until it exists"),
        (SqeFlags::FIXED_FILE, "the null driver has no files"),
    ] {
        assert_eq!(one(&mut ring, opcode::Nop::new().build().flags(flag)), Err(Errno::EINVAL), "{rule}");
    }
    let read = opcode::ReadFixed::new(opcode::Target::Device, 0, 0, 0).build();
    assert_eq!(one(&mut ring, read), Err(Errno::EOPNOTSUPP), "the null driver reads nothing");
    assert_eq!(one(&mut ring, opcode::Cmd::new(&super::common::Null::<999>(0, 0)).build()), Err(Errno::EOPNOTSUPP));
    let stats = ring.submitter().stats().unwrap();
    // The last one was the driver's answer.
    assert_eq!((stats.rejected, stats.rejected_invalid, stats.rejected_opcode), (5, 4, 1));
    // TIMEOUT, TIMEOUT_REMOVE, LINK_TIMEOUT.
    for opcode in [11, 12, 15] {
        let timer = RawEntry::of(Sqe { opcode, ..Sqe::NOP });
        // SAFETY: it leads to no memory.
        unsafe { ring.submission().push_raw(timer) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        let results: Vec<_> = reap(&mut ring).iter().map(|done| done.result()).collect();
        assert_eq!(results, [Err(Errno::EINVAL)], "TIME-1: opcode {opcode} is refused until it exists");
    }
}

#[test]
fn no_completion_says_that_more_follow() {
    let mut ring = ring(8);
    let later = opcode::Nop::new().build().flags(SqeFlags::ASYNC);
    for entry in [echo(1), fails(Errno::EIO), later, delay(Duration::from_millis(1)), never()] {
        ring.submission().push(entry).unwrap();
    }
    ring.submit_and_wait(4).unwrap();
    ring.submitter().cancel(CancelFlags::ANY, 0, 0).unwrap();
    ring.submitter().wait(&Wait::new(5)).unwrap();
    let done = reap(&mut ring);
    assert_eq!(done.len(), 5);
    let more = done.iter().any(|done| done.flags().contains(CqeFlags::F_MORE));
    assert!(!more, "CQ-3: there is no F_MORE until there are credits for it");
}

#[test]
fn sub2_a_skipped_success_is_silent_and_a_failure_is_not() {
    let mut ring = ring(8);
    let skip = SqeFlags::CQE_SKIP_SUCCESS;
    ring.submission().push(echo(1).user_data(1).flags(skip)).unwrap();
    ring.submission().push(fails(Errno::EIO).user_data(2).flags(skip)).unwrap();
    ring.submission().push(echo(3).user_data(3).flags(skip | SqeFlags::ASYNC)).unwrap();
    ring.submission().push(echo(4).user_data(4)).unwrap();
    ring.submit_and_wait(2).unwrap();
    let done: Vec<_> = reap(&mut ring).iter().map(|done| (done.user_data(), done.result())).collect();
    assert_eq!(done, [(2, Err(Errno::EIO)), (4, Ok(4))]);
    let stats = ring.submitter().stats().unwrap();
    assert_eq!((stats.entries, stats.completions, stats.skipped), (4, 2, 2));
}

#[test]
fn deferred_operations_complete_too() {
    let mut ring = ring(8);
    assert_eq!(one(&mut ring, opcode::Nop::new().build().flags(SqeFlags::ASYNC)), Ok(0));
    assert_eq!(ring.submitter().stats().unwrap().inflight, 0);
}

#[test]
fn wide_entries_and_completions_carry_more() {
    struct Wide;
    impl opcode::Command for Wide {
        const CMD_OP: u32 = sq_null::cmd::ECHO;
        type Bytes = [u8; 80];
        fn to_bytes(&self) -> [u8; 80] {
            std::array::from_fn(|i| i as u8)
        }
        fn from_bytes(_: [u8; 80]) -> Self {
            Self
        }
    }
    let mut ring = build(Ring::builder(4).wide_entries().wide_completions());
    for _ in 0..10 {
        ring.submission().push(opcode::WideCmd::new(&Wide).build().user_data(1)).unwrap();
        ring.submission().push(echo(2).user_data(2)).unwrap();
        ring.submit_and_wait(2).unwrap();
        let done = reap(&mut ring);
        assert_eq!(done[0].extra(), [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        assert_eq!(done[1].extra(), [2, !2]);
        // A slot that held a wide command may hold a narrow entry later: its tail must be zeros by then.
        assert_eq!(one(&mut ring, opcode::Nop::new().build()), Ok(0));
    }
    let mut narrow = self::ring(4);
    let refused = narrow.submission().push(opcode::WideCmd::new(&Wide).build());
    assert_eq!(refused, Err(PushError::TooWide));
    assert_eq!(narrow.submission().room(), 4);
}

/// Entries one by one and in batches, of which the kernel side makes a short way on rings where both sizes are the usual ones.
#[test]
fn every_shape_has_its_own_bytes() {
    let narrow = || Ring::builder(4).cq_entries(4);
    let shapes = [
        ("64, 16", narrow()),
        ("128, 16", narrow().wide_entries()),
        ("64, 32", narrow().wide_completions()),
        ("128, 32", narrow().wide_entries().wide_completions()),
    ];
    for (what, builder) in shapes {
        let mut ring = build(builder);
        let mut next = 0;
        for lap in 0..40u64 {
            let ids: Vec<_> = (next..next + 1 + lap % 4).collect();
            next += ids.len() as u64;
            // What has no completion differs from lap to lap, so that entries and completions of a pair are not in the same place.
            let skipped = |id: &u64| lap % 5 == 4 && *id == ids[0];
            for id in &ids {
                let entry = if id % 3 == 2 { echo(id + 7) } else { opcode::Nop::new().build() };
                let flags = if skipped(id) { SqeFlags::CQE_SKIP_SUCCESS } else { SqeFlags::empty() };
                ring.submission().push(entry.user_data(*id).flags(flags)).unwrap();
            }
            ring.submit().unwrap();
            let done: Vec<_> = reap(&mut ring).iter().map(|done| (done.user_data(), done.result())).collect();
            let result = |id: u64| (id, Ok(if id % 3 == 2 { id as u32 + 7 } else { 0 }));
            let expected: Vec<_> = ids.iter().filter(|id| !skipped(id)).map(|id| result(*id)).collect();
            assert_eq!(done, expected, "lap {lap} of {what} bytes");
        }
    }
}

#[test]
fn many_threads_submit_and_one_reaps() {
    const THREADS: u64 = 4;
    const EACH: u64 = 500;
    let (submitter, sq, mut cq) = ring(64).split();
    let sq = sq.share();
    let mut seen = HashSet::new();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let sq = sq.clone();
            scope.spawn(move || {
                for n in 0..EACH {
                    let entry = echo(n).user_data(thread << 32 | n);
                    let start = std::time::Instant::now();
                    while let Err(error) = sq.submit(&[entry]) {
                        assert!(start.elapsed() < super::common::SOON, "the queue stays full");
                        assert!(matches!(error, liburing_shm::Error::Push(PushError::Full)), "{error}");
                        std::thread::yield_now();
                    }
                }
            });
        }
        while (seen.len() as u64) < THREADS * EACH {
            submitter.wait(&liburing_shm::Wait::new(1).timeout(super::common::SOON)).unwrap();
            for done in cq.reap() {
                assert!(seen.insert(done.user_data()), "SUB-2: twice: {:x}", done.user_data());
            }
        }
    });
    assert_eq!(cq.ready(), 0);
}

#[test]
fn entries_of_a_batch_larger_than_the_queue_are_refused_whole() {
    let (_, sq, mut cq) = ring(4).split();
    let sq = sq.share();
    let batch = [echo(0); 5];
    assert!(matches!(sq.submit(&batch), Err(liburing_shm::Error::Push(PushError::Full))));
    let wide = opcode::WideCmd::new(&super::common::Null::<{ sq_null::cmd::ECHO }>(1, 0)).build();
    let refused = sq.submit(&[echo(1), wide]);
    assert!(matches!(refused, Err(liburing_shm::Error::Push(PushError::TooWide))));
    sq.submit(&[echo(2)]).unwrap();
    let done: Vec<_> = cq.reap().map(|done| done.result()).collect();
    assert_eq!(done, [Ok(2)], "nothing of a refused batch is left in the queue");
}

#[test]
fn bell2_caller_mode_rings_once_a_batch() {
    let mut ring = ring(64);
    for batch in [1u64, 7, 64] {
        let before = ring.submitter().stats().unwrap().doorbells;
        for n in 0..batch {
            ring.submission().push(echo(n)).unwrap();
        }
        ring.submit().unwrap();
        assert_eq!(reap(&mut ring).len() as u64, batch);
        assert_eq!(ring.submitter().stats().unwrap().doorbells - before, 1);
    }
}

#[test]
fn a_disabled_ring_takes_nothing_until_it_is_enabled() {
    let mut ring = build(Ring::builder(4).disabled());
    ring.submission().push(echo(1)).unwrap();
    assert_eq!(errno(ring.submit()), Errno::EBADFD);
    assert_eq!(ring.completion().ready(), 0);
    ring.submitter().enable().unwrap();
    assert_eq!(errno(ring.submitter().enable()), Errno::EINVAL);
    assert_eq!(ring.submit().unwrap(), 0, "nothing new, but the doorbell that failed is rung again");
    ring.submitter().wait(&liburing_shm::Wait::new(1).timeout(super::common::SOON)).unwrap();
    assert_eq!(reap(&mut ring).len(), 1);
}
