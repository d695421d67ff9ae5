// SPDX-License-Identifier: MIT OR Apache-2.0
//! kill -9 at random moments: nothing is left behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sq_uapi::consts::setup_flags;

use crate::proc::{Child, in_use, shared_word, sleep_us, until};
use crate::raw::{NULL, Raw, cancel_any, delay, echo, never, nop, shape, some_mode};
use crate::{Check, Outcome, Random, times, want};

pub(crate) const CHECKS: &[Check] = &[
    ("processes killed at random moments, in every mode", killed),
    ("BELL-3: killed in the middle of a long ENTER", killed_in_a_long_enter),
    ("BELL-3: killed while another drains for long", killed_while_others_drain),
];

fn killed() -> Outcome {
    let mut random = Random::new(4);
    for turn in 0..times(500, 10_000) {
        let seed = random.next();
        let mode = some_mode(turn);
        let child = Child::fork(|| victim(seed, mode));
        // 100 us to 20 ms, short ones as likely as long ones.
        sleep_us(100 << random.below(8));
        sleep_us(random.below(3000));
        child.kill();
        want!(child.wait(), 137);
    }
    Ok(())
}

/// Thirty thousand entries that each look at thirty thousand requests: seconds of work, once the doorbell is rung.
fn work_for_seconds(mode: u32) -> Result<Raw, i32> {
    let mut setup = shape(32768, mode);
    setup.max_inflight = 32768;
    let mut ring = Raw::new(NULL, setup)?;
    for n in 0..32768 {
        ring.push(cancel_any(n));
    }
    Ok(ring)
}

/// In one call, and they end with the caller.
fn killed_in_a_long_enter() -> Outcome {
    let ringing = shared_word();
    let child = Child::fork(|| {
        let Ok(ring) = work_for_seconds(0) else { return 2 };
        ringing.store(1, Ordering::Release);
        i32::from(ring.bell().is_ok())
    });
    until(5, "the child does not ring", || ringing.load(Ordering::Acquire) == 1)?;
    want!(child.ended(Duration::from_millis(700)), false);
    child.kill();
    want!(child.ended(Duration::from_millis(1500)), true);
    want!(child.wait(), 137);
    Ok(())
}

/// A kernel thread that drains has the process's memory, and the ring is mapped there: that keeps the ring, but not its entries. The ring
/// goes with the drain.
fn killed_while_others_drain() -> Outcome {
    for mode in [setup_flags::WORKER, setup_flags::SQPOLL] {
        let rung = shared_word();
        let child = Child::fork(|| {
            let ring = work_for_seconds(mode).and_then(|ring| ring.bell().map(|_| ring));
            rung.store(ring.is_ok().into(), Ordering::Release);
            sleep_us(60_000_000);
            2
        });
        until(5, "the child does not ring", || rung.load(Ordering::Acquire) == 1)?;
        sleep_us(700_000);
        child.kill();
        want!(child.wait(), 137);
        until(2, "the drain goes on without its process", || in_use() == 0)?;
    }
    Ok(())
}

/// Uses rings until it is killed.
fn victim(seed: u64, mode: u32) -> i32 {
    let mut random = Random::new(seed);
    loop {
        let Ok(mut ring) = Raw::new(NULL, shape(16, mode)) else { return 2 };
        for lap in 0..random.below(20) {
            for n in 0..random.below(12) {
                ring.push(match random.below(8) {
                    0 => never(n),
                    1 | 2 => delay(n, random.below(2_000_000)),
                    3 => cancel_any(n),
                    4 => echo(n, lap),
                    _ => nop(n),
                });
            }
            if ring.bell().is_err_and(|errno| errno != libc::EBUSY) {
                return 3;
            }
            let _ = ring.wait(random.below(4) as u32, random.below(3));
            ring.reap();
            if ring.stats().inflight > 4 {
                ring.push(cancel_any(99));
            }
            if ring.tail.wrapping_sub(ring.stats().entries as u32) > 2 {
                // Blocked, or a worker has not come to it yet: a new ring.
                break;
            }
        }
    }
}
