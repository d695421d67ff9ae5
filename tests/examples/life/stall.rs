// SPDX-License-Identifier: MIT OR Apache-2.0
//! User memory that stalls: pages that a thread of the process itself serves (userfaultfd), as slowly as it likes, under every
//! call. The outcome is exact once the page is there; a process that is killed before goes at once; and no other ring waits.
//!
//! The places where the module touches user memory are also where it sleeps in the middle of something: killing a process at each
//! of them is killing it at each marked point of the glue.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use sq_uapi::consts::{register_op, setup_flags};
use sq_uapi::{SqCancel, SqEnter, SqIovec, SqQuery, SqQuiesce, SqRegister, SqSetup, SqStats, ioctl};

use crate::page::{self, PAGE, Page};
use crate::proc::{Child, in_use};
use crate::raw::{self, MODES, NULL, READ, Raw, Res, WRITE, delay, echo, nop, open, set_up, shape, transfer};
use crate::users::nothing_goes_on;
use crate::{Check, Outcome, Why, joined, pass, want};

const RAM: &str = "/dev/sqram";
const READV: u64 = 1;

pub(crate) const CHECKS: &[Check] = &[
    ("every argument on a page that comes late", arguments),
    ("payload and vector on a page that comes late", payloads),
    ("killed at each touch of user memory", killed_at_each),
    ("LIFE-2: a close waits for the copy that a worker makes", close_waits),
    ("a stranger that closes last does not wait", stranger_closes),
    ("others' rings go on meanwhile", others),
    ("the clock goes on with all workers stalled", all_workers),
];

fn bytes_of<T>(value: &T) -> Vec<u8> {
    let place = ptr::from_ref(value).cast::<u8>();
    // SAFETY: the structures of the ABI have no padding.
    unsafe { std::slice::from_raw_parts(place, size_of::<T>()) }.to_vec()
}

/// A call whose argument is on the page.
struct Late {
    what: &'static str,
    number: u32,
    argument: Vec<u8>,
    expected: Res,
}

fn size_of_u32<T>() -> u32 {
    size_of::<T>() as u32
}

fn calls() -> Vec<Late> {
    let late = |what, number, argument, expected| Late { what, number, argument, expected };
    vec![
        late("query", ioctl::QUERY, bytes_of(&SqQuery { size: size_of_u32::<SqQuery>(), ..SqQuery::default() }), Ok(0)),
        late("setup", ioctl::SETUP, bytes_of(&shape(8, 0)), Ok(0)),
        late("enter", ioctl::ENTER, bytes_of(&SqEnter { size: size_of_u32::<SqEnter>(), ..SqEnter::default() }), Ok(0)),
        late(
            "register",
            ioctl::REGISTER,
            bytes_of(&SqRegister { size: size_of_u32::<SqRegister>(), op: 5, ..SqRegister::default() }),
            Err(libc::ENXIO),
        ),
        late(
            "cancel",
            ioctl::CANCEL,
            bytes_of(&SqCancel { size: size_of_u32::<SqCancel>(), ..SqCancel::default() }),
            Err(libc::ENOENT),
        ),
        late("stats", ioctl::STATS, bytes_of(&SqStats { size: size_of_u32::<SqStats>(), ..SqStats::default() }), Ok(0)),
        late("issue", ioctl::ISSUE, nop(1).iter().flat_map(|word| word.to_le_bytes()).collect(), Ok(0)),
        late(
            "quiesce",
            ioctl::QUIESCE,
            bytes_of(&SqQuiesce { size: size_of_u32::<SqQuiesce>(), ..SqQuiesce::default() }),
            Ok(0),
        ),
    ]
}

/// A file that the call can be made on.
fn file_for(number: u32) -> Result<OwnedFd, i32> {
    let alone = [ioctl::SETUP, ioctl::QUERY, ioctl::ISSUE];
    if alone.contains(&number) { open(NULL) } else { set_up(NULL, &mut shape(8, 0)) }
}

fn arguments() -> Outcome {
    for late in calls() {
        let (page, file) = (Page::new()?, file_for(late.number)?);
        let (fd, number, addr) = (file.as_raw_fd(), late.number, page.addr() as usize);
        let caller = thread::spawn(move || raw::ioctl(fd, number, addr));
        want!(page.touched(), true);
        want!(caller.is_finished(), false);
        page.serve(&late.argument);
        want!((late.what, joined(caller)), (late.what, late.expected));
    }
    // An argument behind the argument.
    let (page, file) = (Page::new()?, set_up(NULL, &mut shape(8, 0))?);
    let (fd, addr) = (file.as_raw_fd(), page.addr());
    let caller = thread::spawn(move || raw::register(fd, register_op::ALLOW_OPCODES, addr, 1));
    want!(page.touched(), true);
    page.serve(&1u64.to_le_bytes());
    want!(joined(caller), Ok(0));
    Ok(())
}

/// A ring on the ram device.
fn ram(mode: u32) -> Result<Raw, Why> {
    Ok(Raw::new(RAM, shape(8, mode))?)
}

fn payloads() -> Outcome {
    for mode in MODES {
        let mut ring = ram(mode)?;
        // (opcode, bytes on the page, expected result)
        let vector = SqIovec { base: ptr::from_ref(&*Box::leak(Box::new([7u8; 64]))) as u64, len: 64 };
        for (opcode, len, bytes, expected) in
            [(WRITE, 100, vec![0x5a; 100], 100), (READ, 100, vec![], 100), (READV, 1, bytes_of(&vector), 64)]
        {
            let page = Page::new()?;
            ring.push(transfer(opcode, opcode, page.addr(), len));
            let fd = ring.raw();
            let caller = thread::spawn(move || raw::ioctl(fd, ioctl::ENTER, 0));
            want!(page.touched(), true);
            // The drain has an owner that sleeps; everything else is open.
            want!(ring.stats().inflight, 0);
            want!(ring.wait(1, 10), Err(libc::ETIME));
            page.serve(&bytes);
            want!(joined(caller).is_ok(), true);
            want!(ring.wait(1, 5000), Ok(0));
            want!(ring.reap(), [(opcode, expected)]);
            if opcode == READ {
                want!([page.byte(0), page.byte(99), page.byte(100)], [0x5a, 0x5a, 0]);
            }
        }
    }
    Ok(())
}

/// A process that is stalled in this call, or in an entry of this mode, is killed there.
fn killed_at_each() -> Outcome {
    let calls = calls();
    for at in 0..calls.len() + 3 * MODES.len() {
        let [ours, theirs] = pass::pair()?;
        let child = Child::fork(|| {
            let Ok(page) = Page::new() else { return 2 };
            let told = || pass::send(&theirs, &page.uffd, &shape(8, 0)).is_ok();
            if let Some(late) = calls.get(at) {
                let Ok(file) = file_for(late.number) else { return 3 };
                if !told() {
                    return 6;
                }
                let _ = raw::ioctl(file.as_raw_fd(), late.number, page.addr() as usize);
                return 4;
            }
            let at = at - calls.len();
            let mut ring = match ram(MODES[at % MODES.len()]) {
                Ok(ring) if told() => ring,
                _ => return 7,
            };
            let opcode = [WRITE, READ, READV][at / MODES.len()];
            for n in 0..4 {
                ring.push(transfer(opcode, n, page.addr(), 16));
            }
            let _ = ring.bell();
            let _ = ring.wait(1, 100_000);
            5
        });
        drop(theirs);
        // Its page is asked for: it is in the middle of the call, or a thread is in its entry. Nobody else keeps the page.
        let stalled = pass::receive(&ours).is_ok_and(|(uffd, _)| page::touched(&uffd));
        child.kill();
        want!(child.ended(Duration::from_secs(5)), true);
        let code = child.wait();
        want!((at, code, stalled), (at, 137, true));
        crate::proc::all_given_back()?;
    }
    Ok(())
}

/// The ring's own process closes while a worker copies to its memory: it waits, and afterwards nothing is written any more.
fn close_waits() -> Outcome {
    let mode = setup_flags::WORKER;
    let (first, second) = (Page::new()?, Page::new()?);
    let mut ring = ram(mode)?;
    ring.push(transfer(READ, 1, first.addr(), 16));
    ring.push(transfer(READ, 2, second.addr(), 16));
    ring.bell()?;
    want!(first.touched(), true);
    let Raw { user, kernel, fd, .. } = ring;
    drop((user, kernel));
    let closer = thread::spawn(move || {
        drop(fd);
        Instant::now()
    });
    thread::sleep(Duration::from_millis(150));
    want!(closer.is_finished(), false);
    let served = Instant::now();
    first.serve(&[1; 16]);
    let closed = joined(closer);
    want!(closed >= served, true);
    // The second entry had no memory to write to any more: its page was never asked for.
    let mut poll = libc::pollfd { fd: second.uffd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd.
    want!(unsafe { libc::poll(&raw mut poll, 1, 100) }, 0);
    Ok(())
}

/// Another process has the descriptor as well, and closes it after the owner has died: it is not held up by a page of the
/// owner's that a third process never serves.
fn stranger_closes() -> Outcome {
    let page = Page::new()?;
    let fd = page.uffd.as_raw_fd();
    let mut ring = ram(setup_flags::WORKER)?;
    ring.push(transfer(READ, 1, page.addr(), 16));
    ring.bell()?;
    want!(page.touched(), true);
    // The child has the file too, and neither mapping nor memory.
    let (go, went) = (pipe()?, ring.raw());
    let child = Child::fork(|| {
        wait_for(&go[0]);
        // SAFETY: this process has it, and nobody here uses it any more.
        unsafe { libc::close(fd) };
        // SAFETY: as above.
        unsafe { libc::close(went) }
    });
    drop(ring);
    // Ours was not the last: the copy still waits, and the close by the child must not.
    drop(go);
    want!(child.ended(Duration::from_secs(5)), true);
    want!(child.wait(), 0);
    // LIFE-4: the file is gone, what the worker is at is not; it keeps the modules.
    want!(in_use() > 0, true);
    page.serve(&[]);
    Ok(())
}

fn pipe() -> Result<[OwnedFd; 2], Why> {
    let mut fds = [0; 2];
    // SAFETY: a place for two descriptors.
    raw::res(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: both were just made.
    Ok(fds.map(|fd: RawFd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Half a second, or until the other end is closed: a forked child has it too.
fn wait_for(fd: &OwnedFd) {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&raw mut poll, 1, 500) };
}

/// Sixteen rings whose workers are all stalled, which is fewer than one user's may be, and some that work.
fn others() -> Outcome {
    let mut stalled = Vec::new();
    // Goes first if the check fails: the rings' closes wait for it.
    let page = Page::new()?;
    for n in 0..16 {
        let mut ring = ram(setup_flags::WORKER)?;
        ring.push(transfer(WRITE, n, page.addr(), 16));
        ring.bell()?;
        stalled.push(ring);
    }
    want!(page.touched_by(stalled.len()), true);
    for mode in [0, setup_flags::WORKER] {
        for device in [NULL, RAM] {
            let mut ring = Raw::new(device, shape(8, mode))?;
            for lap in 0..50 {
                let from = u64::to_le_bytes(lap);
                let mut to = [0; 8];
                if device == NULL {
                    ring.push(echo(1, lap));
                } else {
                    ring.push(transfer(WRITE, 1, from.as_ptr().expose_provenance() as u64, 8));
                    ring.push(transfer(READ, 2, to.as_mut_ptr().expose_provenance() as u64, 8));
                }
                ring.bell()?;
                let count = ring.tail.wrapping_sub(ring.head);
                want!(ring.wait(count, 5000), Ok(0));
                let done = ring.reap();
                if device == NULL {
                    want!(done, [(1, lap as i32)]);
                } else {
                    want!((done, to), (vec![(1, 8), (2, 8)], from));
                }
            }
        }
    }
    page.serve(&[3; 16]);
    for (n, mut ring) in (0..).zip(stalled) {
        want!(ring.wait(1, 5000), Ok(0));
        want!(ring.reap(), [(n, 16)]);
    }
    Ok(())
}

/// More stalled drains than there are workers for (256 on a small machine): completions by the clock, and the ends of rings, have
/// workers of their own.
fn all_workers() -> Outcome {
    let mut stalled = Vec::new();
    // Goes first if the check fails: the rings' closes wait for it.
    let page = Page::new()?;
    for n in 0..300 {
        let mut ring = ram(setup_flags::WORKER)?;
        ring.push(transfer(WRITE, n, page.addr(), 16));
        ring.bell()?;
        stalled.push(ring);
    }
    want!(page.touched(), true);
    nothing_goes_on(Raw::new(NULL, shape(8, setup_flags::WORKER))?, echo(1, 1))?;
    let mut ring = Raw::new(NULL, shape(8, 0))?;
    ring.push(delay(1, 1_000_000));
    ring.bell()?;
    want!(ring.wait(1, 5000), Ok(0));
    want!(ring.reap(), [(1, 0)]);
    page.serve(&[3; 16]);
    for (n, mut ring) in (0..).zip(stalled) {
        want!(ring.wait(1, 10_000), Ok(0));
        want!(ring.reap(), [(n, 16)]);
    }
    Ok(())
}

const _: () = assert!(size_of::<SqSetup>() <= PAGE);
