// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands whose io_uring, process or entry does not stay.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use io_uring::squeue::Flags;
use sq_conformance::guest::{SOON, is_child, ready, start};
use sq_uapi::Sqe;

use super::common::{delay, device, echo, never, nothing_left, open, random, stays_loaded};
use super::uring_rig::{Inline, Kind, Pointer, Rig, has_cancel, has_commands};

const ASYNC_NOP: Sqe = Sqe { flags: 16, ..Sqe::NOP };

/// Something of each kind that is in flight for a while.
fn in_flight<S: Kind>(rig: &mut Rig<S>, count: u64) {
    for n in 0..count {
        match n % 4 {
            0 if has_cancel() => rig.push(&never(), Flags::empty(), n),
            1 => rig.push(&delay(Duration::from_millis(n * 3)), Flags::empty(), n),
            2 => rig.push(&delay(Duration::from_micros(n * 7)), Flags::ASYNC, n),
            _ => rig.push(&ASYNC_NOP, Flags::empty(), n),
        }
    }
    rig.submit_for(0);
}

#[test]
fn life2_the_io_uring_is_closed() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let mut seed = 0xabcd;
    for lap in 0..20 {
        let file = open();
        let mut rig = Rig::<Inline>::new(&file);
        in_flight(&mut rig, 40);
        sleep(Duration::from_micros(random(&mut seed) % 3000));
        if lap == 0 {
            stays_loaded("commands are in flight");
        }
        if lap % 2 == 0 {
            // Then only io_uring has the file.
            drop(file);
            drop(rig);
        } else {
            drop(rig);
            drop(file);
        }
        nothing_left();
    }
}

#[test]
fn life2_an_io_uring_goes_while_others_stay() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let file = open();
    let mut stays = Rig::<Inline>::new(&file);
    for _ in 0..10 {
        let mut goes = Rig::<Pointer>::new(&file);
        in_flight(&mut goes, 20);
        assert_eq!(stays.one(&delay(Duration::from_millis(2))), 7);
        drop(goes);
        assert_eq!(stays.one(&echo(2)), 2);
    }
}

#[test]
fn the_child_with_commands() {
    if is_child("uring_end::the_child_with_commands") {
        let file = open();
        let mut rig = Rig::<Inline>::new(&file);
        in_flight(&mut rig, 60);
        ready();
        for n in 0.. {
            let _ = rig.reap();
            rig.push(&delay(Duration::from_micros(n % 500)), Flags::empty(), n);
            rig.submit_for(1);
        }
    }
}

#[test]
fn a_killed_process_leaves_nothing() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let mut seed = 0x1234;
    for _ in 0..20 {
        let mut child = start("uring_end::the_child_with_commands");
        sleep(Duration::from_micros(random(&mut seed) % 20_000));
        child.kill().unwrap();
        child.wait().unwrap();
        nothing_left();
    }
}

/// The thread that submitted has ended; its process has not.
#[test]
fn the_submitting_thread_is_gone() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let file = open();
    for _ in 0..10 {
        let mut rig = Rig::<Inline>::new(&file);
        let mut rig = std::thread::scope(|scope| {
            let submit = scope.spawn(move || {
                rig.push(&delay(Duration::from_millis(20)), Flags::empty(), 5);
                rig.submit_for(0);
                rig
            });
            submit.join().unwrap()
        });
        // io_uring cancels what it can when the thread ends; a delay completes all the same.
        let done = rig.wait(1);
        assert!(matches!(done[..], [(5, 7 | -125)]), "{done:?}");
    }
    drop(file);
    nothing_left();
}

/// io_uring's own memory of entries, which it maps for everybody who has its descriptor.
struct Sqes<'a>(&'a [AtomicU64]);

impl Sqes<'_> {
    fn of(rig: &Rig<Inline>) -> Self {
        const OFFSET: libc::off_t = 0x1000_0000;
        let words = 256 * 128 / 8;
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let fd = rig.uring.as_raw_fd();
        // SAFETY: a new mapping where the kernel likes disturbs nothing.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), words * 8, prot, flags, fd, OFFSET) };
        assert_ne!(at, libc::MAP_FAILED);
        // SAFETY: the mapping, which stays until the process ends; everybody writes it by atomics or in the kernel.
        Self(unsafe { std::slice::from_raw_parts(at.cast(), words) })
    }
}

/// SNAP-1: a thread writes the entries while io_uring and the door read them. Whatever is done was checked.
#[test]
fn snap1_the_live_entry_is_written_meanwhile() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let file = open();
    let mut rig = Rig::<Inline>::new(&file);
    let sqes = Sqes::of(&rig);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sqes = sqes.0;
        let stop = &stop;
        scope.spawn(move || {
            let mut seed = 0xbeef;
            while !stop.load(Ordering::Relaxed) {
                let random = random(&mut seed);
                // The nested entry begins at byte 48 of an SQE: word 6.
                let entry = &sqes[(random % 256) as usize * 16 + 6..][..8];
                match random >> 8 & 3 {
                    0 => entry[1].store(random >> 16 & 1, Ordering::Relaxed),
                    1 => entry[6].store(if random >> 16 & 1 == 0 { 5 } else { 0xffff_fffb }, Ordering::Relaxed),
                    2 => entry[0].store((0x2e * (random >> 16 & 1)) | (0xffff_ffff << 32), Ordering::Relaxed),
                    _ => entry[5].store(random >> 16 & 1, Ordering::Relaxed),
                }
            }
        });
        let mut seen = std::collections::BTreeSet::new();
        let start = Instant::now();
        while seen.len() < 4 || start.elapsed() < Duration::from_secs(2) {
            assert!(start.elapsed() < SOON, "only {seen:?}");
            seen.extend(rig.all(&vec![echo(5); 200], Flags::empty()));
        }
        stop.store(true, Ordering::Relaxed);
        // Only a NOP that was not checked would give 0.
        let possible = [5, 0x7fff_fffb, -5, -22];
        assert!(seen.iter().all(|res| possible.contains(res)), "{seen:?}");
    });
}

/// Many threads, each with an io_uring of its own, on one file and its one pool.
#[test]
fn many_io_urings_share_a_pool() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let file = open();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let file = &file;
            scope.spawn(move || {
                let mut rig = Rig::<Inline>::new(file);
                let mut seed = 0x77 + thread;
                for _ in 0..60 {
                    let entries: Vec<Sqe> = (0..20)
                        .map(|_| match random(&mut seed) % 4 {
                            0 => delay(Duration::from_micros(seed % 400)),
                            1 => ASYNC_NOP,
                            _ => echo((seed & 0xffff) as u32),
                        })
                        .collect();
                    let expected: Vec<i32> = entries
                        .iter()
                        .map(|sqe| match (sqe.opcode, sqe.off) {
                            (0, _) => 0,
                            (_, 2) => 7,
                            _ => i32::from(u16::from_le_bytes([sqe.cmd[0], sqe.cmd[1]])),
                        })
                        .collect();
                    assert_eq!(rig.all(&entries, Flags::empty()), expected);
                }
            });
        }
    });
    drop(file);
    nothing_left();
}
