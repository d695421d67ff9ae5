// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for completions.

use std::time::{Duration, Instant};

use liburing_shm::{CancelFlags, Errno, Wait};
use sq_conformance::guest::{eventually, sleeps_in, this_thread};

use super::common::{delay, echo, errno, never, reap, ring, wait};

#[test]
fn wait1_ends_when_enough_is_there() {
    let mut ring = ring(8);
    for n in 0..3 {
        ring.submission().push(echo(n)).unwrap();
    }
    ring.submit_and_wait(3).unwrap();
    assert_eq!(ring.completion().ready(), 3);
    ring.submitter().wait(&Wait::new(1)).unwrap();
    assert_eq!(reap(&mut ring).len(), 3);
}

#[test]
fn wait1_ends_by_timeout() {
    let mut ring = ring(8);
    ring.submission().push(never()).unwrap();
    ring.submit().unwrap();
    let start = Instant::now();
    assert_eq!(errno(ring.submitter().wait(&Wait::new(1).timeout(Duration::from_millis(30)))), Errno::ETIME);
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(errno(ring.submitter().wait(&Wait::new(1).timeout(Duration::ZERO))), Errno::ETIME);
}

#[test]
fn bell4_a_completion_from_elsewhere_wakes_the_waiter() {
    let mut ring = ring(8);
    for _ in 0..20 {
        ring.submission().push(delay(Duration::from_millis(2)).user_data(3)).unwrap();
        ring.submit().unwrap();
        wait(ring.submitter(), Wait::new(1)).unwrap();
        let done = reap(&mut ring);
        assert_eq!((done.len(), done[0].user_data(), done[0].result()), (1, 3, Ok(7)));
    }
}

#[test]
fn bell4_a_waiter_for_many_is_woken_once() {
    let mut ring = ring(16);
    for _ in 0..8 {
        ring.submission().push(never()).unwrap();
    }
    ring.submit().unwrap();
    let submitter = ring.submitter().clone();
    let before = submitter.stats().unwrap().wakeups;
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            tell.send(this_thread()).unwrap();
            wait(&submitter, Wait::new(8))
        });
        let id = told.recv().unwrap();
        // In the call, or, in a process, where that sleeps.
        eventually("the waiter sleeps", || matches!(sleeps_in(id), Some(libc::SYS_ioctl | libc::SYS_futex)));
        // The eight come one by one.
        assert_eq!(submitter.cancel(CancelFlags::ANY | CancelFlags::ALL, 0, 0).unwrap(), 8);
        waiter.join().unwrap().unwrap();
    });
    assert_eq!(submitter.stats().unwrap().wakeups - before, 1, "the eight are not eight wake-ups");
    assert_eq!(reap(&mut ring).len(), 8);
}

#[test]
fn wait1_min_wait_takes_what_is_there_in_the_end() {
    let mut ring = ring(8);
    ring.submission().push(echo(1)).unwrap();
    ring.submission().push(never()).unwrap();
    ring.submit().unwrap();
    let start = Instant::now();
    wait(ring.submitter(), Wait::new(2).min_wait(Duration::from_millis(30))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(reap(&mut ring).len(), 1);
    // With nothing there, the timeout decides.
    let short = Wait::new(2).min_wait(Duration::from_millis(5)).timeout(Duration::from_millis(20));
    assert_eq!(errno(ring.submitter().wait(&short)), Errno::ETIME);
}

#[test]
fn wait1_or_idle_ends_when_nothing_can_come() {
    let mut ring = ring(8);
    wait(ring.submitter(), Wait::new(1).or_idle()).unwrap();
    ring.submission().push(delay(Duration::from_millis(10))).unwrap();
    ring.submit().unwrap();
    wait(ring.submitter(), Wait::new(5).or_idle()).unwrap();
    assert_eq!(reap(&mut ring).len(), 1, "one was in flight, five were asked for");
}

#[test]
fn wait1_a_reaper_may_wait_for_another_threads_submission() {
    let (submitter, mut sq, mut cq) = ring(8).split();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            sq.push(echo(1).user_data(1)).unwrap();
            sq.submit().unwrap();
            // Its half is dropped here; the ring lives on with the other.
        });
        wait(&submitter, Wait::new(1)).unwrap();
        assert_eq!(cq.reap().next().unwrap().user_data(), 1);
    });
}

#[test]
fn two_waiters_with_different_goals_are_both_served() {
    let (submitter, mut sq, mut cq) = ring(8).split();
    std::thread::scope(|scope| {
        let waiters: Vec<_> = [1u32, 3]
            .into_iter()
            .map(|goal| {
                let submitter = submitter.clone();
                scope.spawn(move || wait(&submitter, Wait::new(goal)).map(|_| goal))
            })
            .collect();
        for n in 0..3 {
            std::thread::sleep(Duration::from_millis(5));
            sq.push(echo(n)).unwrap();
            sq.submit().unwrap();
        }
        for waiter in waiters {
            waiter.join().unwrap().unwrap();
        }
    });
    assert_eq!(cq.reap().count(), 3);
}
