// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who drains: the caller, a worker, a polling thread.

use std::time::Duration;

use liburing_shm::{Builder, Ring, Wait};

use super::common::{SOON, build, echo, never, reap};

fn round_trips(ring: &mut Ring, laps: u64, batch: u64) {
    for lap in 0..laps {
        for n in 0..batch {
            ring.submission().push(echo(lap * batch + n).user_data(n)).unwrap();
        }
        ring.submit().unwrap();
        let mut seen = 0;
        while seen < batch {
            ring.submitter().wait(&Wait::new(1).timeout(SOON)).unwrap();
            for done in reap(ring) {
                assert_eq!((done.user_data(), done.result()), (seen, Ok((lap * batch + seen) as u32)));
                seen += 1;
            }
        }
    }
}

fn poll(entries: u32) -> Builder {
    Ring::builder(entries).poll(Duration::from_millis(2))
}

#[test]
fn caller_mode_has_no_thread() {
    let mut ring = build(Ring::builder(8));
    round_trips(&mut ring, 100, 8);
    assert_eq!(ring.submitter().doorbells().1, 0, "no doorbell is ever spared");
}

#[test]
fn worker_mode() {
    let mut ring = build(Ring::builder(8).worker());
    round_trips(&mut ring, 200, 8);
    round_trips(&mut ring, 200, 1);
}

#[test]
fn polling_mode() {
    let mut ring = build(poll(8));
    round_trips(&mut ring, 200, 8);
}

#[test]
fn bell1_a_poller_that_fell_asleep_is_woken_by_one_doorbell() {
    let mut ring = build(poll(8));
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(10));
        round_trips(&mut ring, 1, 3);
    }
    // Every batch came after the idle time: each found the thread asleep, and rang once.
    let (rung, avoided) = ring.submitter().doorbells();
    assert!(rung > avoided, "{rung} rung, {avoided} avoided");
}

#[test]
fn bell2_a_busy_poller_needs_no_doorbell() {
    let mut ring = build(Ring::builder(8).poll(Duration::from_secs(5)));
    round_trips(&mut ring, 1, 1);
    let mut done = 0;
    for n in 0..100 {
        ring.submission().push(echo(n)).unwrap();
        ring.submit().unwrap();
        while reap(&mut ring).is_empty() {
            std::thread::yield_now();
        }
        done += 1;
    }
    assert_eq!(done, 100);
    let (_, avoided) = ring.submitter().doorbells();
    assert!(avoided >= 100, "only {avoided} doorbells were spared");
}

#[test]
fn cq2_a_blocked_ring_goes_on_in_every_mode() {
    for (builder, what) in [(Ring::builder(4).worker(), "worker"), (poll(4), "polling")] {
        let mut ring = build(builder.cq_entries(4));
        let (mut pushed, mut seen) = (0u64, 0u64);
        while seen < 400 {
            while pushed < 400 && ring.submission().push(echo(pushed).user_data(pushed)).is_ok() {
                pushed += 1;
            }
            ring.submit().unwrap();
            ring.submitter().wait(&Wait::new(1).timeout(SOON)).unwrap();
            for done in reap(&mut ring) {
                assert_eq!(done.user_data(), seen, "{what}");
                seen += 1;
            }
        }
    }
}

#[test]
fn life1_quiesce_and_drop_in_every_mode() {
    for (builder, what) in [(Ring::builder(4).worker(), "worker"), (Ring::builder(4).poll(SOON), "polling")] {
        let mut ring = build(builder);
        ring.submission().push(never()).unwrap();
        ring.submission().push(echo(1)).unwrap();
        ring.submit().unwrap();
        ring.submitter().wait(&Wait::new(1).timeout(SOON)).unwrap();
        ring.submitter().quiesce(SOON).unwrap();
        assert_eq!(reap(&mut ring).len(), 2, "{what}");
        drop(ring);
        // And without being asked to.
        let mut ring = build(Ring::builder(4).worker());
        ring.submission().push(never()).unwrap();
        ring.submit().unwrap();
        drop(ring);
    }
}
