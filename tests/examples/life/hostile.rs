// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that does everything wrong, while a well-behaved one next to it must notice nothing. Run as an ordinary user.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use sq_uapi::consts::{register_op, setup_flags};
use sq_uapi::ioctl;

use crate::proc::{Child, shared_word};
use crate::raw::{self, MODES, Map, NULL, Raw, Res, cancel_any, delay, echo, open, set_up, shape, some_mode};
use crate::{Check, Outcome, Random, joined, long, times, want};

pub(crate) const CHECKS: &[Check] = &[
    ("every call with arguments that are none", || beside_a_good_one(wild_arguments)),
    ("every bit of every argument", || beside_a_good_one(every_bit)),
    ("indices out of their windows", || beside_a_good_one(wild_indices)),
    ("all that user space writes, rewritten during the run", || beside_a_good_one(rewritten)),
    ("calls by several threads on one ring", || beside_a_good_one(crowd)),
];

const CALLS: [(u32, usize); 8] = [
    (ioctl::QUERY, 144),
    (ioctl::SETUP, 192),
    (ioctl::ENTER, 64),
    (ioctl::REGISTER, 40),
    (ioctl::QUIESCE, 32),
    (ioctl::CANCEL, 40),
    (ioctl::STATS, 104),
    (ioctl::ISSUE, 64),
];

/// Runs `check` while another process drives rings of the same device, and sums up what comes back.
fn beside_a_good_one(check: fn() -> Outcome) -> Outcome {
    let stop = shared_word();
    let good = Child::fork(|| match summing_up(stop) {
        Ok(()) => 0,
        Err(why) => {
            println!("the good one: {why}");
            1
        }
    });
    let outcome = check();
    stop.store(1, Ordering::Release);
    want!(good.wait(), 0);
    outcome
}

fn summing_up(stop: &AtomicU32) -> Outcome {
    let (mut mine, mut theirs, mut laps) = (0u64, 0u64, 0u64);
    while laps < 10 || stop.load(Ordering::Acquire) == 0 {
        let mut ring = Raw::new(NULL, shape(16, [0, setup_flags::WORKER][laps as usize % 2]))?;
        for lap in 0..20 {
            for n in 0..16 {
                let value = (laps * 1000 + lap * 16 + n) & 0xffff;
                mine = mine.rotate_left(1) ^ (value << 8 | n);
                ring.push(echo(n, value));
            }
            ring.bell()?;
            want!(ring.wait(16, 20_000), Ok(0));
            for (n, value) in ring.reap() {
                theirs = theirs.rotate_left(1) ^ ((value as u64) << 8 | n);
            }
        }
        want!(theirs, mine);
        laps += 1;
    }
    Ok(())
}

/// What a wild call may answer: an error that it documents, never EIO or a wait.
fn sane(what: &str, result: Res) -> Outcome {
    use libc::{
        E2BIG, EAGAIN, EALREADY, EBADF, EBADFD, EBUSY, EFAULT, EINVAL, EMFILE, ENOENT, ENOMEM, ENOTTY, ENXIO,
        EOPNOTSUPP, ESHUTDOWN,
    };
    let known = [
        E2BIG, EAGAIN, EALREADY, EBADF, EBADFD, EBUSY, EFAULT, EINVAL, EMFILE, ENOENT, ENOMEM, ENOTTY, ENXIO,
        EOPNOTSUPP, ESHUTDOWN,
    ];
    match result {
        Err(errno) if known.contains(&errno) => Ok(()),
        // Nothing on a ring of eight entries counts beyond that.
        Ok(value) if value <= 8 => Ok(()),
        other => Err(format!("{what}: {other:?}").into()),
    }
}

fn wild_arguments() -> Outcome {
    let mut random = Random::new(5);
    let room = vec![0u8; 4 << 20];
    let inside = room.as_ptr().expose_provenance();
    // Null is the bare doorbell, which is no error.
    let wild = [
        0,
        1,
        8,
        0xfff,
        0x7fff_ffff_f000,
        0x7fff_ffff_ffff,
        0x8000_0000_0000,
        0xdead_beef_dead_beef,
        0xffff_8880_0000_0000,
        0xffff_ffff_8100_0000,
        usize::MAX,
        usize::MAX - 7,
    ];
    let (bare, with) = (open(NULL)?, set_up(NULL, &mut shape(8, 0))?);
    // All numbers of our type with the sizes that mean something, and others at random.
    let mut numbers: Vec<u32> = CALLS.iter().map(|(number, _)| *number).collect();
    numbers.extend((0..=255).map(|nr| 0xc000_0000 | 64 << 16 | u32::from(b'q') << 8 | nr));
    numbers.extend((0..200).map(|_| random.next() as u32));
    for fd in [bare.as_raw_fd(), with.as_raw_fd()] {
        for number in &numbers {
            for arg in wild {
                let result = raw::ioctl(fd, *number, arg);
                let ours = CALLS.iter().any(|(call, _)| call == number);
                if !ours {
                    want!(result, Err(libc::ENOTTY));
                } else if arg != 0 {
                    want!(result.is_err(), true);
                }
                sane("a wild address", result)?;
            }
        }
        // Sizes from none to huge, at any alignment; the argument is zero behind its size.
        for (number, _) in CALLS {
            let sizes = (0..=4097).step_by(if long() { 1 } else { 7 }).chain([8192, 1 << 20, 1 << 31, u32::MAX]);
            let others: Vec<u32> = (0..100).map(|_| random.next() as u32).collect();
            for size in sizes.chain(others) {
                let at = inside + random.below(16) as usize;
                let place = std::ptr::with_exposed_provenance_mut::<u32>(at);
                // SAFETY: inside `room`, of which there is no other use during this.
                unsafe { place.write_unaligned(size) };
                sane("a wild size", raw::ioctl(fd, number, at))?;
                // SAFETY: as above: the call may have written its answer.
                unsafe { place.cast::<u8>().write_bytes(0, 4096) };
            }
        }
    }
    drop(room);
    Ok(())
}

/// One bit of an argument set at a time, beyond its size: an answer, and at once.
fn every_bit() -> Outcome {
    for mode in MODES {
        for (number, size) in CALLS {
            let fresh = || if number == ioctl::SETUP { open(NULL) } else { enterable(mode) };
            let mut file = fresh()?;
            let first = if number == ioctl::ISSUE { 0 } else { 32 };
            for bit in first..size * 8 {
                let mut arg = vec![0u64; size / 8];
                // An entry has no size: it is an echo.
                arg[0] = if number == ioctl::ISSUE { echo(0, 0)[0] } else { size as u64 };
                if number == ioctl::ENTER {
                    // A wait that is asked for must end: flags with TIMEOUT.
                    arg[0] |= 1 << 32;
                }
                arg[bit / 64] ^= 1 << (bit % 64);
                if number == ioctl::ENTER && arg[0] & 1 << 32 == 0 {
                    continue;
                }
                // Nobody waits for minutes: the high bits of the timeouts of ENTER (128..256) and QUIESCE (64..128).
                if number == ioctl::ENTER && (arg[2] | arg[3]) >> 27 != 0 {
                    continue;
                }
                let result = raw::call(file.as_raw_fd(), number, &mut arg[0]);
                if number == ioctl::ISSUE && result.is_ok() {
                    continue;
                }
                sane(&format!("bit {bit} of call {number:#x}"), result)?;
                // A ring that was made, quiesced or restricted is another one.
                if result.is_ok() {
                    file = fresh()?;
                }
            }
        }
        // The argument is the same in all modes but for who drains.
        if mode == 0 && !long() {
            break;
        }
    }
    Ok(())
}

fn enterable(mode: u32) -> Result<std::os::fd::OwnedFd, i32> {
    match set_up(NULL, &mut shape(8, mode)) {
        Err(libc::EOPNOTSUPP) => set_up(NULL, &mut shape(8, 0)),
        other => other,
    }
}

fn new_ring(turn: u32) -> Result<Raw, i32> {
    match Raw::new(NULL, shape(8, some_mode(turn))) {
        Err(libc::EOPNOTSUPP) => Raw::new(NULL, shape(8, 0)),
        other => other,
    }
}

fn wild_indices() -> Outcome {
    let mut random = Random::new(6);
    for turn in 0..times(200, 5000) {
        let mut ring = new_ring(turn)?;
        ring.push(delay(1, 1_000_000));
        ring.push(echo(2, 2));
        ring.bell()?;
        want!(ring.wait(1, 5000), Ok(0));
        let offsets = ring.setup.offsets;
        let (word, right) = match random.below(2) {
            0 => (offsets.sq_tail, ring.tail),
            _ => (offsets.cq_head, ring.head),
        };
        let wrong = match random.below(4) {
            0 => right.wrapping_sub(1 + random.below(8) as u32),
            1 => right.wrapping_add(9 + random.below(100) as u32),
            2 => right ^ 1 << (4 + random.below(28)),
            _ => random.next() as u32 | 0x100,
        };
        ring.user.word(word).store(wrong, Ordering::Release);
        // In worker and polling modes somebody else finds out.
        let mut broken = false;
        for _ in 0..2000 {
            let rung = raw::enter(ring.raw(), 1 << 20, 1);
            broken = rung == Err(libc::EBADFD);
            if broken {
                break;
            }
        }
        want!((turn, word, wrong, broken), (turn, word, wrong, true));
        want!(ring.kernel.word(offsets.broken).load(Ordering::Acquire), 1);
        want!(ring.bell(), Err(libc::EBADFD));
        // Setting it right does not mend it.
        ring.user.word(word).store(right, Ordering::Release);
        want!(ring.bell(), Err(libc::EBADFD));
    }
    Ok(())
}

/// A second thread writes over the region as fast as it can: entries, flags, and indices that are right more often than not,
/// so that the ring lives long enough to suffer.
fn rewritten() -> Outcome {
    for turn in 0..times(60, 2000) {
        let ring = Arc::new(new_ring(turn)?);
        let stop = Arc::new(AtomicBool::new(false));
        let writer = thread::spawn({
            let (ring, stop) = (ring.clone(), stop.clone());
            move || scribble(&ring, &stop, turn)
        });
        for n in 0..200 {
            let result = if n % 4 == 0 { raw::enter(ring.raw(), 3, 1) } else { ring.bell() };
            match result {
                Ok(_) | Err(libc::ETIME | libc::EBUSY) => {}
                Err(libc::EBADFD) => break,
                Err(errno) => return Err(format!("turn {turn}: error {errno}").into()),
            }
            if n % 50 == 49 {
                let mut cancel = sq_uapi::SqCancel { size: 40, flags: 4, ..sq_uapi::SqCancel::default() };
                sane("cancel", raw::call(ring.raw(), ioctl::CANCEL, &mut cancel).map(|_| 0))?;
            }
        }
        stop.store(true, Ordering::Relaxed);
        joined(writer);
        // SUB-2: whatever the entries were. A worker may still be at it.
        let adds_up = |stats: sq_uapi::SqStats| stats.completions + stats.skipped + stats.inflight == stats.entries;
        want!(
            (0..5000).any(|_| adds_up(ring.stats()) || {
                crate::proc::sleep_us(1000);
                false
            }),
            true
        );
    }
    Ok(())
}

fn scribble(ring: &Raw, stop: &AtomicBool, turn: u32) {
    let mut random = Random::new(turn.into());
    let offsets = ring.setup.offsets;
    let mut tail = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let at = offsets.sqes as usize + random.below(64) as usize * 8;
        let word = match random.below(6) {
            0 => random.next(),
            // Opcodes and flags that mean something.
            1 => [0, 14, 46, 22][random.below(4) as usize] | random.below(256) << 8 | 0xffff_ffff << 32,
            2 => random.below(5),
            3 => cancel_any(1)[random.below(8) as usize],
            _ => delay(2, random.below(100_000))[random.below(8) as usize],
        };
        ring.user.long(at).store(word, Ordering::Relaxed);
        match random.below(3000) {
            0..1500 => {
                tail = tail.wrapping_add(random.below(3) as u32);
                ring.user.word(offsets.sq_tail).store(tail, Ordering::Release);
            }
            1500..2000 => {
                // Where the kernel is: nothing is waiting, all is reaped.
                tail = ring.kernel.word(offsets.sq_head).load(Ordering::Acquire);
                let posted = ring.kernel.word(offsets.cq_tail).load(Ordering::Acquire);
                ring.user.word(offsets.cq_head).store(posted, Ordering::Release);
            }
            2000..2999 => ring.user.word(offsets.cq_flags).store(random.next() as u32, Ordering::Relaxed),
            _ => ring.user.long(random.below(48) as usize * 8).store(random.next(), Ordering::Relaxed),
        }
    }
}

/// All calls at a time on one ring, by threads that know nothing of each other; then the ring is closed under them.
fn crowd() -> Outcome {
    for turn in 0..times(20, 500) {
        let ring = Arc::new(new_ring(turn)?);
        let threads = [0, 1, 2].map(|seed| {
            let ring = ring.clone();
            thread::spawn(move || {
                let mut random = Random::new(u64::from(turn) << 8 | seed);
                for _ in 0..60 {
                    one_of_all(&ring, &mut random)?;
                }
                Ok(())
            })
        });
        for thread in threads {
            joined::<Outcome>(thread)?;
        }
    }
    Ok(())
}

fn one_of_all(ring: &Raw, random: &mut Random) -> Outcome {
    let fd = ring.raw();
    let word = ring.user.word(ring.setup.offsets.sq_tail);
    let what = random.below(9);
    let result = match what {
        0..3 => {
            // Threads race for the tail: an entry may be anything, the index stays in its window by and large.
            let tail = ring.kernel.word(ring.setup.offsets.sq_head).load(Ordering::Acquire);
            let at = ring.setup.offsets.sqes as usize + (tail & 7) as usize * 64;
            for (i, part) in delay(1, random.below(50_000)).into_iter().enumerate() {
                ring.user.long(at + i * 8).store(part, Ordering::Relaxed);
            }
            word.store(tail.wrapping_add(1), Ordering::Release);
            ring.bell()
        }
        3 => raw::enter(fd, 1, 1).or(Ok(0)),
        4 => {
            let mut cancel = sq_uapi::SqCancel { size: 40, flags: 4, ..sq_uapi::SqCancel::default() };
            raw::call(fd, ioctl::CANCEL, &mut cancel)
        }
        5 => {
            let allowed = u64::MAX;
            raw::register(fd, register_op::ALLOW_OPCODES, raw::address(&allowed), 1)
        }
        6 => raw::stats(fd).map(|_| 0),
        7 => Map::new(fd, ring.setup.kernel, libc::PROT_READ).map(|_| 0),
        _ if random.below(40) == 0 => {
            let mut quiesce = sq_uapi::SqQuiesce { size: 32, timeout_ns: 50_000_000, ..sq_uapi::SqQuiesce::default() };
            raw::call(fd, ioctl::QUIESCE, &mut quiesce)
                .or_else(|errno| if errno == libc::ETIME { Ok(0) } else { Err(errno) })
        }
        _ => Ok(0),
    };
    sane(&format!("call {what}"), result)
}
