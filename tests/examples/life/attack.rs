// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attack: one thread has an entry consumed again and again, another changes its length meanwhile, between one that fits and one
//! that is refused. Against a module that checks the entry in the shared page and then reads it again (tests/naive), and against a ring.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sq_conformance::checkers::attack::{Attempt, Count, attack};
use sq_uapi::{Errno, SqRegion, SqSetup};

use crate::raw::{Map, Raw, ioctl, open, shape};
use crate::{Check, Outcome, Why, want};

pub(crate) const CHECKS: &[Check] =
    &[("SNAP-1: who looks twice is broken into, and a ring is not", breaks_into_a_second_look_and_not_into_a_ring)];

const NAIVE: &str = "/dev/sq_naive";
/// `_IO('n', 0)`.
const NAIVE_ONE: u32 = 0x6e00;
const PAGE: u32 = 4096;
/// What is there to write to: at the naive module a room of so many bytes, at the ring a buffer of a page.
const FITS: u32 = 64;

const RAM: &str = "/dev/sqram";
const READ_FIXED: u64 = 4;
const PATTERN: u32 = 0xa5a5_a5a5;

/// Attempts against a ring, at least.
const ATTEMPTS: u64 = 100_000;
/// Breaking into the naive module often enough to be no accident.
const WINS: u64 = 10;
/// For the naive module. For the ring, whose attempts take longer, twice as much.
const PATIENCE: Duration = Duration::from_secs(55);

/// Changes `word` from one length to the other.
fn flip(word: &AtomicU32, lengths: [u32; 2]) -> impl Fn() + Sync {
    move || lengths.iter().for_each(|len| word.store(*len, Ordering::Relaxed))
}

fn naive() -> Result<Count, Why> {
    let file: OwnedFd = open(NAIVE)?;
    let shared = Map::new(
        file.as_raw_fd(),
        SqRegion { offset: 0, size: 2 * u64::from(PAGE) },
        libc::PROT_READ | libc::PROT_WRITE,
    )?;
    // The opcode, and bytes that are seen where they do not belong.
    shared.word(0).store(1, Ordering::Relaxed);
    for offset in (PAGE..2 * PAGE).step_by(4) {
        shared.word(offset).store(u32::MAX, Ordering::Relaxed);
    }
    let start = Instant::now();
    let more = |count: &Count| (count.won < WINS || count.attempts() < ATTEMPTS) && start.elapsed() < PATIENCE;
    attack(flip(shared.word(8), [FITS, PAGE]), more, || match ioctl(file.as_raw_fd(), NAIVE_ONE, 0) {
        Ok(0) => Ok(Attempt::Accepted),
        Ok(_) => Ok(Attempt::Won),
        Err(libc::EINVAL) => Ok(Attempt::Refused),
        Err(errno) => Err(errno.into()),
    })
}

/// Reads into a buffer of the ring's pool: a length that was checked, and then became another, would run over into the next buffer.
fn ring(attempts: u64) -> Result<Count, Why> {
    let setup = SqSetup { buf_count: 2, buf_bytes: PAGE, ..shape(1, 0) };
    let mut ring = Raw::new(RAM, setup)?;
    let pool = Map::new(ring.raw(), ring.setup.pool, libc::PROT_READ | libc::PROT_WRITE)?;
    let next = || (PAGE..2 * PAGE).step_by(4).map(|offset| pool.word(offset));
    next().for_each(|word| word.store(PATTERN, Ordering::Relaxed));
    ring.push([READ_FIXED | 0xffff_ffff << 32, 0, 0, FITS.into(), 7, 0, 0, 0]);
    want!((ring.bell(), ring.reap()), (Ok(1), vec![(7, FITS as i32)]));

    let offsets = ring.setup.offsets;
    let len = ring.user.at.wrapping_add(offsets.sqes as usize + 24).cast();
    // SAFETY: a word of the only slot, in the mapping, which `ring` keeps; both sides use atomics.
    let len = unsafe { AtomicU32::from_ptr(len) };
    let too_long = 2 * PAGE;
    let start = Instant::now();
    let count = attack(
        flip(len, [FITS, too_long]),
        |count| count.attempts() < attempts && start.elapsed() < 2 * PATIENCE,
        || {
            ring.tail = ring.tail.wrapping_add(1);
            ring.user.word(offsets.sq_tail).store(ring.tail, Ordering::Release);
            want!(ring.bell(), Ok(1));
            let [(7, res)] = ring.reap()[..] else { return Err("one completion for one entry".to_owned().into()) };
            Ok(match Errno::from_res(res) {
                Ok(bytes) if bytes == FITS => Attempt::Accepted,
                Err(Errno::EFAULT) => Attempt::Refused,
                _ => Attempt::Won,
            })
        },
    )?;
    want!(next().filter(|word| word.load(Ordering::Relaxed) != PATTERN).count(), 0);
    Ok(count)
}

fn breaks_into_a_second_look_and_not_into_a_ring() -> Outcome {
    let naive = naive()?;
    let attempts = naive.attempts().max(ATTEMPTS);
    let ring = ring(attempts)?;
    println!("handler                            attempts   accepted    refused     broken into");
    for (name, count) in [("checks in the shared page, then uses", &naive), ("a ring of sq", &ring)] {
        println!("{name:36} {:8} {:10} {:10} {:10}", count.attempts(), count.accepted, count.refused, count.won);
    }
    if naive.won == 0 {
        return Err(format!("the attacker has not won in {} attempts: it is none", naive.attempts()).into());
    }
    want!(ring.won, 0);
    // Fewer than the attacker took to break in show nothing.
    if ring.attempts() < attempts {
        return Err(format!("only {} of {attempts} attempts against the ring: no attack yet", ring.attempts()).into());
    }
    // It has seen both lengths.
    want!(ring.saw_both(), true);
    Ok(())
}
