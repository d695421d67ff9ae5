// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ways to wedge a ring, by whoever owns it, on purpose or not: each is closed, whoever drains the ring. Where a test says that the
//! ring goes on by itself, it only looks: it calls nothing that would have the kernel side go on.

use std::collections::HashSet;
use std::ffi::CStr;
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::Duration;

use liburing_shm::opcode::Nop;
use liburing_shm::{
    Backend, Builder, CancelFlags, Completion, Errno, Error, PushError, Ring, SqeFlags, Submitter, Wait,
};
use sq_driver::{Driver, Issued, Op, Opcodes, Request, RequestId, op};

use super::common::{build, delay, echo, errno, never, one, reap, soon, wait};

/// Runs a test on a ring of this shape for each of those who may drain it. What a failed test printed last says who it was.
fn whoever_drains(shape: Builder, test: impl Fn(Ring)) {
    let (worker, poll) = (shape.clone().worker(), shape.clone().poll(Duration::from_millis(2)));
    for (who, builder) in [("its caller", shape), ("a worker", worker), ("a polling thread", poll)] {
        println!("drained by {who}:");
        test(build(builder));
    }
}

/// Looks until so many completions are there.
fn ready(ring: &mut Ring, count: u32) {
    soon("completions come by themselves", || ring.completion().ready() == count);
}

/// Submits what was pushed, and looks until it is consumed.
fn consumed(ring: &mut Ring) {
    ring.submit().unwrap();
    let all = ring.submission().capacity();
    soon("everything is consumed", || ring.submission().room() == all);
}

/// How often who drains found no slot or no request for an entry.
fn stalls(submitter: &Submitter) -> u64 {
    submitter.stats().unwrap().stalls
}

/// Submits what was pushed, and looks until there is no slot for it.
fn blocked(ring: &mut Ring) {
    let before = stalls(ring.submitter());
    ring.submit().unwrap();
    soon("the ring is blocked", || stalls(ring.submitter()) > before);
}

// Slots: taken by successes that are skipped.

#[test]
fn cq1_skipped_successes_do_not_use_up_slots() {
    whoever_drains(Ring::builder(4), |mut ring| {
        for _ in 0..100 {
            for _ in 0..4 {
                ring.submission().push(echo(0).flags(SqeFlags::CQE_SKIP_SUCCESS)).unwrap();
            }
            consumed(&mut ring);
        }
        assert_eq!(one(&mut ring, echo(5)), Ok(5));
    });
}

/// The same with requests: a slot that a skipped success leaves is news to nobody but the kernel side, which goes on by itself.
#[test]
fn cq1_a_skipped_success_that_comes_later_lets_a_blocked_ring_go_on() {
    whoever_drains(Ring::builder(2).cq_entries(2).max_inflight(2), |mut ring| {
        for _ in 0..2 {
            let entry = delay(Duration::from_millis(100)).flags(SqeFlags::CQE_SKIP_SUCCESS);
            ring.submission().push(entry).unwrap();
        }
        consumed(&mut ring);
        ring.submission().push(echo(1).user_data(1)).unwrap();
        ring.submit().unwrap();
        ready(&mut ring, 1);
        assert_eq!(reap(&mut ring)[0].user_data(), 1);
    });
}

// Slots and requests: held by what never ends.

#[test]
fn cq4_requests_without_bound_leave_slots_to_the_others() {
    whoever_drains(Ring::builder(16).cq_entries(16).max_inflight(16), |mut ring| {
        for n in 0..16 {
            ring.submission().push(never().user_data(n)).unwrap();
        }
        ring.submit().unwrap();
        // An eighth of 16 is kept: the last two fail at once, in their own completions.
        ready(&mut ring, 2);
        let done: Vec<_> = reap(&mut ring).iter().map(|done| (done.user_data(), done.result())).collect();
        assert_eq!(done, [(14, Err(Errno::EBUSY)), (15, Err(Errno::EBUSY))]);
        assert_eq!(one(&mut ring, echo(5)), Ok(5), "the ring goes on");
        assert_eq!(ring.submitter().cancel(CancelFlags::USERDATA, 3, 0).unwrap(), 0);
        wait(ring.submitter(), Wait::new(1)).unwrap();
        assert_eq!(reap(&mut ring)[0].user_data(), 3);
        ring.submission().push(never().user_data(99)).unwrap();
        ring.submit().unwrap();
        // If that had failed, its completion would come first.
        assert_eq!(one(&mut ring, echo(6)), Ok(6), "a place came free");
    });
}

#[test]
fn cq4_requests_without_bound_leave_a_request_to_the_others() {
    // By default there are half as many requests as slots: they run out first.
    whoever_drains(Ring::builder(8), |mut ring| {
        for n in 0..8 {
            ring.submission().push(never().user_data(n)).unwrap();
        }
        ring.submit().unwrap();
        ready(&mut ring, 1);
        let done: Vec<_> = reap(&mut ring).iter().map(|done| (done.user_data(), done.result())).collect();
        assert_eq!(done, [(7, Err(Errno::EBUSY))]);
        assert_eq!(one(&mut ring, echo(5)), Ok(5), "the ring goes on");
    });
}

#[test]
fn slots_held_by_slow_requests_are_got_back_by_cancel() {
    whoever_drains(Ring::builder(4).cq_entries(4).max_inflight(4), |mut ring| {
        for _ in 0..4 {
            ring.submission().push(delay(Duration::from_secs(9))).unwrap();
        }
        consumed(&mut ring);
        ring.submission().push(echo(1).user_data(1)).unwrap();
        blocked(&mut ring);
        assert_eq!(ring.submission().room(), 3, "it waits for a slot");
        // SAFETY: the bare doorbell has no argument.
        let stuck = unsafe { ring.submitter().raw_call(sq_uapi::ioctl::ENTER, &mut []) };
        assert_eq!(stuck, Err(Errno::EBUSY), "no slot, and nothing to reap");
        let waits = ring.submitter().wait(&Wait::new(1).timeout(Duration::from_millis(20)));
        assert_eq!(errno(waits), Errno::ETIME, "WAIT-1: a wait goes on, since one of the four will end");
        assert_eq!(ring.submitter().cancel(CancelFlags::ANY, 0, 0).unwrap(), 4);
        wait(ring.submitter(), Wait::new(4)).unwrap();
        let done = reap(&mut ring);
        assert!(done.iter().all(|done| done.result() == Err(Errno::ECANCELED)));
        wait(ring.submitter(), Wait::new(1)).unwrap();
        assert_eq!(reap(&mut ring)[0].user_data(), 1);
    });
}

#[test]
fn life1_quiesce_needs_no_slot() {
    whoever_drains(Ring::builder(4).cq_entries(4).max_inflight(4), |mut ring| {
        for _ in 0..4 {
            // A longer one would count as without bound (CQ-4), and not have the last slot.
            ring.submission().push(delay(Duration::from_secs(9))).unwrap();
        }
        consumed(&mut ring);
        ring.submission().push(echo(1)).unwrap();
        blocked(&mut ring);
        // Before one of them would end by itself.
        ring.submitter().quiesce(Duration::from_secs(5)).unwrap();
        let done: Vec<_> = reap(&mut ring).iter().map(Completion::result).collect();
        assert_eq!(done, [Err(Errno::ECANCELED); 4]);
    });
}

// Waiting for more than can complete.

#[test]
fn wait1_min_complete_is_what_there_can_be_at_most() {
    // Nothing is blocked here that could end the wait: all that can be there is.
    whoever_drains(Ring::builder(4).cq_entries(4), |mut ring| {
        for n in 0..4 {
            ring.submission().push(echo(n)).unwrap();
        }
        ring.submit().unwrap();
        wait(ring.submitter(), Wait::new(u32::MAX)).unwrap();
        assert_eq!(reap(&mut ring).len(), 4);
    });
}

#[test]
fn wait1_a_wait_on_a_blocked_ring_ends() {
    whoever_drains(Ring::builder(4).cq_entries(4), |mut ring| {
        for lap in 0..2 {
            for n in 0..4 {
                ring.submission().push(echo(lap * 4 + n)).unwrap();
            }
            if lap == 0 { consumed(&mut ring) } else { blocked(&mut ring) }
        }
        // min_complete is clamped to the 4 that there can be, and they are there.
        wait(ring.submitter(), Wait::new(100)).unwrap();
        assert_eq!(reap(&mut ring).len(), 4);
        wait(ring.submitter(), Wait::new(4)).unwrap();
        assert_eq!(reap(&mut ring).len(), 4);
    });
}

/// Every slot is held by a request, and an entry waits for one. There is nothing to reap, so that a wait which ended would come again at
/// once, and again.
#[test]
fn wait1_goes_on_while_requests_hold_every_slot() {
    for goal in [1, 2] {
        whoever_drains(Ring::builder(2).cq_entries(2).max_inflight(2), |mut ring| {
            for n in 0..2 {
                ring.submission().push(delay(Duration::from_millis(100 + 50 * n)).user_data(n)).unwrap();
            }
            consumed(&mut ring);
            ring.submission().push(echo(2).user_data(2)).unwrap();
            ring.submit().unwrap();
            let mut seen = Vec::new();
            while seen.len() < 3 {
                let waited = wait(ring.submitter(), Wait::new(goal.min(3 - seen.len() as u32)));
                let done = reap(&mut ring);
                match waited {
                    Ok(_) => assert!(!done.is_empty(), "a wait for {goal} is over, and nothing is there"),
                    Err(error) => {
                        assert_eq!(error.errno(), Some(Errno::EBUSY));
                        assert!(!done.is_empty(), "EBUSY says to reap, and nothing is there");
                    }
                }
                seen.extend(done.iter().map(Completion::user_data));
            }
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2]);
        });
    }
}

/// One slot is held for good, the other by what is not reaped: two there will never be, and the waiter is told to reap.
#[test]
fn wait1_a_wait_for_what_only_reaping_allows_says_so() {
    whoever_drains(Ring::builder(2).cq_entries(2).max_inflight(2), |mut ring| {
        for entry in [never(), echo(1)] {
            ring.submission().push(entry).unwrap();
        }
        consumed(&mut ring);
        ring.submission().push(echo(2)).unwrap();
        ring.submit().unwrap();
        assert_eq!(errno(wait(ring.submitter(), Wait::new(2))), Errno::EBUSY);
        assert_eq!(reap(&mut ring)[0].result(), Ok(1));
        ready(&mut ring, 1);
        assert_eq!(reap(&mut ring)[0].result(), Ok(2));
    });
}

/// The same for a waiter that sleeps already when the ring comes to be blocked.
#[test]
fn wait1_a_waiter_is_woken_when_only_reaping_allows_more() {
    whoever_drains(Ring::builder(2).cq_entries(2).max_inflight(2), |mut ring| {
        ring.submission().push(never()).unwrap();
        consumed(&mut ring);
        let submitter = ring.submitter().clone();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(move || wait(&submitter, Wait::new(2)));
            // Time to fall asleep. Without it the waiter finds the ring blocked.
            std::thread::sleep(Duration::from_millis(20));
            for n in 1..=2 {
                ring.submission().push(echo(n)).unwrap();
            }
            ring.submit().unwrap();
            assert_eq!(errno(waiter.join().unwrap()), Errno::EBUSY);
        });
        assert_eq!(reap(&mut ring)[0].result(), Ok(1));
        ready(&mut ring, 1);
    });
}

// Two submitters, and a drain that stops at its bound: theirs, so that here the caller drains.

/// Whoever issues a command waits at the gate.
struct Gate(Arc<Barrier>);

impl Driver for Gate {
    const NAME: &'static CStr = c"gate";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::NOP).with(op::CMD);

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        if op.entry().opcode() == op::CMD {
            // In, and out.
            self.0.wait();
            self.0.wait();
        }
        op.done(0)
    }

    fn cancel(&self, _: RequestId) {}
}

/// One thread is in its doorbell, and another publishes and rings, until the first has done its share: what comes then is a worker's, since
/// nobody rings any more. In a process also in a guest: it is the driver that says when.
#[test]
fn bell3_two_submitters_leave_nothing_behind() {
    let gate = Arc::new(Barrier::new(2));
    let backend = Backend::embedded(Gate(gate.clone())).unwrap();
    let (_submitter, sq, mut cq) = Ring::builder(2).build(&backend).unwrap().split();
    let sq = sq.share();
    std::thread::scope(|scope| {
        scope.spawn(|| sq.submit(&[echo(0)]).unwrap());
        for next in [echo(1), Nop::new().build()] {
            gate.wait();
            sq.submit(&[next]).unwrap();
            gate.wait();
        }
    });
    soon("the last entry is consumed", || cq.ready() == 3);
}

/// The same in whatever order it comes, with batches.
#[test]
fn bell3_two_busy_submitters_leave_nothing_behind() {
    const ENTRIES: u32 = 64;
    let (_submitter, sq, mut cq) = build(Ring::builder(ENTRIES).cq_entries(2 * ENTRIES)).split();
    let sq = sq.share();
    for _ in 0..1000 {
        std::thread::scope(|scope| {
            for (thread, batch) in [(0, ENTRIES / 2), (1, ENTRIES / 8)] {
                let sq = sq.clone();
                scope.spawn(move || {
                    for n in 0..ENTRIES / batch {
                        let ids = n * batch..(n + 1) * batch;
                        let batch: Vec<_> = ids.map(|n| echo(0).user_data(thread << 32 | u64::from(n))).collect();
                        soon("a submitter finds room", || match sq.submit(&batch) {
                            Ok(()) => true,
                            Err(Error::Push(PushError::Full)) => false,
                            Err(error) => panic!("{error}"),
                        });
                    }
                });
            }
        });
        soon("every entry is consumed", || cq.ready() == 2 * ENTRIES);
        let seen: HashSet<_> = cq.reap().map(|done| done.user_data()).collect();
        assert_eq!(seen.len(), 2 * ENTRIES as usize, "SUB-2: each once");
    }
}

// An entry that takes long, or for ever.

/// A NOP is held until it is canceled. A command waits for that: whoever issues it has come to the gate before.
#[derive(Clone)]
struct Knot(Arc<(Barrier, Mutex<Option<Request>>, Condvar)>);

impl Driver for Knot {
    const NAME: &'static CStr = c"knot";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::NOP).with(op::CMD);

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        let (gate, held, freed) = &*self.0;
        if op.entry().opcode() == op::NOP {
            let (request, issued) = op.defer();
            *held.lock().unwrap() = Some(request);
            return issued;
        }
        gate.wait();
        let long = Duration::from_secs(10);
        let freed = freed.wait_timeout_while(held.lock().unwrap(), long, |held| held.is_some()).unwrap();
        op.done(if freed.1.timed_out() { Errno::ETIME.to_res() } else { 0 })
    }

    fn cancel(&self, _: RequestId) {
        let (_, held, freed) = &*self.0;
        if let Some(request) = held.lock().unwrap().take() {
            request.complete(Err(Errno::ECANCELED));
        }
        freed.notify_all();
    }
}

/// One thread is in its doorbell, in an entry that ends when a request does: QUIESCE cancels that one though the drain is not free. In a
/// process also in a guest, and drained by its caller: no device has such a driver.
#[test]
fn life1_quiesce_needs_no_drain() {
    let knot = Knot(Arc::new((Barrier::new(2), Mutex::new(None), Condvar::new())));
    let backend = Backend::embedded(knot.clone()).unwrap();
    let (submitter, sq, mut cq) = Ring::builder(2).build(&backend).unwrap().split();
    let sq = sq.share();
    std::thread::scope(|scope| {
        scope.spawn(|| sq.submit(&[Nop::new().build().user_data(1), echo(0).user_data(2)]).unwrap());
        knot.0.0.wait();
        submitter.quiesce(Duration::from_secs(20)).unwrap();
    });
    let done: Vec<_> = cq.reap().map(|done| (done.user_data(), done.result())).collect();
    assert_eq!(done, [(1, Err(Errno::ECANCELED)), (2, Ok(0))]);
}

// A reaper that is late.

/// A `Reap` gives its slots back when it is dropped, however long ago it was read to its end: until then the ring stands, says so to who
/// waits, and loses nothing. Its drop is all that it takes to go on.
#[test]
fn cq2_a_reaper_that_publishes_late_holds_the_ring_up_and_no_longer() {
    whoever_drains(Ring::builder(2).cq_entries(2), |ring| {
        let (submitter, mut sq, mut cq) = ring.split();
        let mut push = |from: u64| {
            for n in from..from + 2 {
                sq.push(echo(n).user_data(n)).unwrap();
            }
            sq.submit().unwrap();
        };
        push(0);
        soon("the first are done", || cq.ready() == 2);
        for lap in 1..100 {
            let mut late = cq.reap();
            let seen: Vec<_> = late.by_ref().map(|done| done.user_data()).collect();
            assert_eq!(seen, [2 * lap - 2, 2 * lap - 1]);
            let before = stalls(&submitter);
            push(2 * lap);
            soon("the ring is blocked", || stalls(&submitter) > before);
            assert_eq!(
                submitter.stats().unwrap().completions,
                2 * lap,
                "CQ-1: a slot that is not given back is not used"
            );
            wait(&submitter, Wait::new(2)).unwrap();
            drop(late);
            soon("the ring goes on", || cq.ready() == 2);
        }
    });
}
