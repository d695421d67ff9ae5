// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rings that end while their completions are due (LIFE-2): the clock, the worker and the last close meet.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use sq_uapi::consts::setup_flags;

use crate::proc::sleep_us;
use crate::raw::{NULL, Raw, delay, never, shape, some_mode};
use crate::{Check, Outcome, Random, joined, times};

pub(crate) const CHECKS: &[Check] = &[
    ("rings closed with completions due, by two threads", storm),
    ("the last reference goes in the clock's own hands", orphans),
];

fn storm() -> Outcome {
    let threads = [1, 2].map(|seed| thread::spawn(move || close_early(seed)));
    for thread in threads {
        joined(thread)?;
    }
    Ok(())
}

fn close_early(seed: u64) -> Outcome {
    let mut random = Random::new(seed);
    for turn in 0..times(300, 20_000) {
        let mode = some_mode(turn);
        let mut ring = match Raw::new(NULL, shape(8, mode)) {
            Ok(ring) => ring,
            Err(libc::EOPNOTSUPP) if mode & setup_flags::SQPOLL != 0 => continue,
            Err(errno) => return Err(errno.into()),
        };
        for n in 0..4 {
            ring.push(delay(n, random.below(300_000)));
        }
        ring.push(never(9));
        ring.bell()?;
        if random.below(2) == 0 {
            sleep_us(random.below(300));
        }
    }
    Ok(())
}

/// The file goes first, then the requests end one by one: not by the close, which cancels what it finds, but so close to it
/// that the clock has claimed them.
fn orphans() -> Outcome {
    let mut random = Random::new(3);
    for _ in 0..times(150, 10_000) {
        let mut setup = shape(64, 0);
        setup.max_inflight = 64;
        let mut ring = Raw::new(NULL, setup)?;
        // All are due at about the time of the close.
        for n in 0..48 {
            ring.push(delay(n, 100_000 + random.below(20_000)));
        }
        ring.bell()?;
        let Raw { user, kernel, fd, .. } = ring;
        drop((user, kernel));
        let closer = thread::spawn(move || close_at(fd, Duration::from_micros(80)));
        joined(closer);
    }
    Ok(())
}

fn close_at(fd: OwnedFd, after: Duration) {
    thread::sleep(after);
    drop(fd);
}
