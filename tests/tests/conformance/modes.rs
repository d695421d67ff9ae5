// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who drains: the caller, a worker, a polling thread.

use std::time::Duration;

use liburing_shm::{Builder, CancelFlags, Errno, Ring, SqStats, Wait};

use super::common::{SOON, build, echo, errno, never, null, reap, soon, wait};

fn round_trips(ring: &mut Ring, laps: u64, batch: u64) {
    for lap in 0..laps {
        for n in 0..batch {
            ring.submission().push(echo(lap * batch + n).user_data(n)).unwrap();
        }
        ring.submit().unwrap();
        let mut seen = 0;
        while seen < batch {
            wait(ring.submitter(), Wait::new(1)).unwrap();
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

/// The bare doorbell, as a program that does not use this library may call it.
fn bell(ring: &Ring) -> Result<u32, Errno> {
    // SAFETY: no argument.
    unsafe { ring.submitter().raw_call(sq_uapi::ioctl::ENTER, &mut []) }
}

#[test]
fn bell2_bell3_ringing_for_nothing_does_nothing() {
    for builder in [Ring::builder(8), Ring::builder(8).worker(), poll(8), Ring::builder(8).poll(SOON)] {
        let mut ring = build(builder);
        round_trips(&mut ring, 1, 8);
        let before = ring.submitter().stats().unwrap();
        for _ in 0..100_000 {
            assert_eq!(bell(&ring), Ok(0));
        }
        let after = ring.submitter().stats().unwrap();
        assert_eq!(after.doorbells - before.doorbells, 100_000);
        // A thread that was awake may have fallen asleep, and once more if the wait for its completion rang too.
        let rest = SqStats { doorbells: before.doorbells, sleeps: before.sleeps, ..after };
        assert_eq!((rest, after.sleeps - before.sleeps <= 2), (before, true));
        round_trips(&mut ring, 1, 8);
    }
}

/// Entries that are published and never rung for harm nobody: they are there for whoever rings later, or the ring ends without them.
#[test]
fn bell2_bell3_never_ringing_harms_nobody() {
    for builder in [Ring::builder(8), Ring::builder(8).worker()] {
        for late in [true, false] {
            let mut ring = build(builder.clone().disabled());
            ring.submission().push(never()).unwrap();
            ring.submission().push(echo(1)).unwrap();
            // This doorbell is refused, and from here on nobody rings.
            assert_eq!(errno(ring.submit()), Errno::EBADFD);
            ring.submitter().enable().unwrap();
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(errno(ring.submitter().cancel(CancelFlags::ANY, 0, 0)), Errno::ENOENT);
            assert_eq!((ring.submission().room(), ring.completion().ready()), (6, 0));
            if late {
                bell(&ring).unwrap();
                wait(ring.submitter(), Wait::new(1)).unwrap();
                assert_eq!(reap(&mut ring)[0].result(), Ok(1));
            }
            ring.submitter().quiesce(SOON).unwrap();
            assert_eq!(reap(&mut ring).len(), late.into(), "what was accepted is canceled, the rest is left");
            assert_eq!(ring.submission().room(), if late { 8 } else { 6 });
        }
    }
}

/// Submits one entry and spins until it is done, so that nobody rings but for the entry.
fn spin_one(ring: &mut Ring) {
    ring.submission().push(echo(1)).unwrap();
    ring.submit().unwrap();
    while reap(ring).is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn bell1_bell2_one_doorbell_for_each_time_that_the_kernel_side_fell_asleep() {
    for builder in [poll(8), Ring::builder(8).worker()] {
        let mut ring = build(builder);
        for lap in 1..=20 {
            spin_one(&mut ring);
            assert_eq!(ring.submitter().doorbells(), (lap, 0), "rung, avoided");
            soon("it falls asleep", || ring.submitter().stats().unwrap().sleeps >= lap);
            assert!(ring.submission().need_wakeup());
        }
        let stats = ring.submitter().stats().unwrap();
        assert_eq!((stats.doorbells, stats.avoided, stats.sleeps), (20, 0, 20));
    }
}

#[test]
fn bell2_a_busy_poller_needs_no_doorbell() {
    let mut ring = build(Ring::builder(8).poll(Duration::from_secs(60)));
    for _ in 0..101 {
        spin_one(&mut ring);
        assert!(!ring.submission().need_wakeup());
    }
    assert_eq!(ring.submitter().doorbells(), (1, 100), "rung, avoided");
    let stats = ring.submitter().stats().unwrap();
    assert_eq!((stats.doorbells, stats.avoided, stats.sleeps), (1, 100, 0));
}

#[test]
fn bell2_a_wait_on_an_idle_ring_wakes_no_thread() {
    let mut ring = build(poll(8));
    round_trips(&mut ring, 1, 1);
    soon("it falls asleep", || ring.submitter().stats().unwrap().sleeps > 0);
    let slept = ring.submitter().stats().unwrap().sleeps;
    for _ in 0..10 {
        let res = ring.submitter().wait(&Wait::new(1).timeout(Duration::from_millis(5)));
        assert_eq!(errno(res), Errno::ETIME);
    }
    // Once more it may wake: the round trip waited, and rang if it found its entry not consumed yet.
    assert!(ring.submitter().stats().unwrap().sleeps <= slept + 1);
}

#[test]
fn a_polling_thread_has_a_cpu_that_its_owner_may_use() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap();
    let cpu = u32::try_from(cpu).unwrap();
    round_trips(&mut build(poll(8).poll_cpu(cpu)), 20, 8);
    // Not there, no number of a CPU, and there but not ours.
    let refused = |cpu| assert_eq!(errno(poll(8).poll_cpu(cpu).build(&null())), Errno::EINVAL);
    refused(8191);
    refused(u32::MAX);
    if allowed.count() < 2 {
        println!("SKIPPED: one CPU, so none to be refused");
        return;
    }
    let other = (cpu + 1..).find(|&cpu| allowed.is_set(cpu as usize)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut one = rustix::thread::CpuSet::new();
            one.set(cpu as usize);
            rustix::thread::sched_setaffinity(None, &one).unwrap();
            refused(other);
            build(poll(8).poll_cpu(cpu));
        });
    });
    build(poll(8).poll_cpu(other));
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
            wait(ring.submitter(), Wait::new(1)).unwrap();
            for done in reap(&mut ring) {
                assert_eq!(done.user_data(), seen, "{what}");
                seen += 1;
            }
        }
    }
}

/// What a ring waited for when it was quiesced does not come any more: nobody is asked to ring for it.
#[test]
fn bell1_a_quiesced_ring_is_not_rung_for_what_it_waited_for() {
    for (builder, what) in [(Ring::builder(2), "caller"), (Ring::builder(2).worker(), "worker"), (poll(2), "polling")] {
        let (submitter, mut sq, mut cq) = build(builder.cq_entries(2)).split();
        for n in 0..3 {
            soon("there is room", || sq.push(echo(n)).is_ok());
            sq.submit().unwrap();
        }
        soon("it is blocked", || submitter.stats().unwrap().stalls > 0);
        assert!(!sq.need_wakeup(), "{what}");
        submitter.quiesce(SOON).unwrap();
        soon("it says that it sleeps", || sq.need_wakeup());
        let rung = submitter.doorbells();
        assert_eq!((cq.reap().count(), submitter.doorbells()), (2, rung), "{what}");
    }
}

#[test]
fn life1_quiesce_and_drop_in_every_mode() {
    for (builder, what) in [(Ring::builder(4).worker(), "worker"), (Ring::builder(4).poll(SOON), "polling")] {
        let mut ring = build(builder);
        ring.submission().push(never()).unwrap();
        ring.submission().push(echo(1)).unwrap();
        ring.submit().unwrap();
        wait(ring.submitter(), Wait::new(1)).unwrap();
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
