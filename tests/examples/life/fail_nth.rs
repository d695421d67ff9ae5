// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each call, again and again: the first thing in it that can fail does, then the second, until none is left. Each time there is
//! an errno, or a result all the same, and nothing stays behind. Run as root, on a kernel with fault injection.
//!
//! The kernel counts these points of one task. So what a worker or a polling thread does is out of reach here: a ring that such a one
//! drains is swept as far as its ENTER goes, and the rest has faults at random in `life syscalls`.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use io_uring::opcode::{UringCmd16, UringCmd80};
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, squeue};
use sq_uapi::consts::{register_op, setup_flags};
use sq_uapi::{SqCancel, SqEnter, SqIovec, SqQuery, SqQuiesce, SqSetup, SqStats, ioctl};

use crate::accounts::on_disk;
use crate::inject::{self, Nth};
use crate::proc::all_given_back;
use crate::raw::{
    self, MODES, Map, NULL, Raw, Res, address, command, delay, echo, last, never, open, res, set_up, shape, transfer,
};
use crate::{Check, Outcome, Why, os, part, unload, want};

pub(crate) const CHECKS: &[Check] = &[
    ("fail-nth: open", opens),
    ("fail-nth: QUERY, STATS", questions),
    ("fail-nth: SETUP", setups),
    ("fail-nth: mmap", maps),
    ("fail-nth: REGISTER", registers),
    ("fail-nth: REGISTER of files", registers_files),
    ("fail-nth: ENTER", enters),
    ("fail-nth: ENTER with transfers", transfers),
    ("fail-nth: ENTER with buffers of the pool", of_the_pool),
    ("fail-nth: ENTER with direct I/O", direct),
    ("fail-nth: ISSUE", issues),
    ("fail-nth: the engines' transfers", engines),
    ("fail-nth: QUIESCE, CANCEL", ends),
    ("fail-nth: poll, epoll", polls),
    ("fail-nth: io_uring's commands", commands),
    ("fail-nth: loading a driver", loads),
];

/// No call has as many points as this.
const LIMIT: u32 = 2000;

const RAM: &str = "/dev/sqram";
const FILE: &str = "/dev/sqfile";
/// The example drivers, in Rust and in C.
const ENGINES: [&str; 2] = ["/dev/sqdma", "/dev/sqdma_c"];

/// Runs `call` on what `prepare` makes, with each of its points failing in turn. At least one of them must make the call fail.
fn sweep<T>(what: &str, prepare: impl Fn() -> Result<T, Why>, call: impl Fn(&mut T) -> Res) -> Outcome {
    let (points, survived) = points(what, prepare, call)?;
    if survived == points { Err(format!("{what}: none of {points} faults was noticed").into()) } else { Ok(()) }
}

/// As `sweep`, of a call that allocates nothing and copies nothing to or from its process (MEM-1): it succeeds, whatever the kernel's own
/// aids are refused.
fn spared<T>(what: &str, prepare: impl Fn() -> Result<T, Why>, call: impl Fn(&mut T) -> Res) -> Outcome {
    let (points, survived) = points(what, prepare, call)?;
    want!((what, survived), (what, points));
    Ok(())
}

/// How many points there are, and how many of them the call survives.
fn points<T>(
    what: &str,
    prepare: impl Fn() -> Result<T, Why>,
    call: impl Fn(&mut T) -> Res,
) -> Result<(u32, u32), Why> {
    let nth_file = Nth::open()?;
    let mut survived = 0;
    for nth in 1..LIMIT {
        let mut place = prepare()?;
        nth_file.arm(nth)?;
        let result = call(&mut place);
        let failed = nth_file.disarm()?;
        drop(place);
        all_given_back().map_err(|why| format!("{what}, point {nth}: {why}"))?;
        if !failed {
            want!((what, result.map(|_| ())), (what, Ok(())));
            println!("        {what}: {} points, {survived} of which the call survived", nth - 1);
            return Ok((nth - 1, survived));
        }
        match result {
            Ok(_) => survived += 1,
            // What a fault can be seen as: no memory, no access, no thread.
            Err(libc::ENOMEM | libc::EFAULT | libc::EAGAIN) => {}
            Err(errno) => return Err(format!("{what}, point {nth}: error {errno}").into()),
        }
    }
    Err(format!("{what} has no end").into())
}

fn ring(node: &str) -> impl Fn() -> Result<Raw, Why> {
    let node = node.to_owned();
    move || Ok(Raw::new(&node, shape(8, 0))?)
}

fn call<T>(fd: RawFd, number: u32, mut arg: T) -> Res {
    raw::call(fd, number, &mut arg)
}

fn size<T>() -> u32 {
    size_of::<T>() as u32
}

fn opens() -> Outcome {
    for node in [NULL, RAM, FILE].into_iter().chain(ENGINES) {
        sweep(
            node,
            || Ok(None),
            |place| {
                *place = Some(open(node)?);
                Ok(0)
            },
        )?;
    }
    Ok(())
}

fn questions() -> Outcome {
    let query = SqQuery { size: size::<SqQuery>(), ..SqQuery::default() };
    sweep("QUERY", || Ok(open(NULL)?), |file| call(file.as_raw_fd(), ioctl::QUERY, query))?;
    // A larger argument than the stack has room for.
    let large = || {
        let mut large = [0u64; 512];
        large[0] = 4096;
        large
    };
    sweep("QUERY of 4096 bytes", || Ok(open(NULL)?), |file| call(file.as_raw_fd(), ioctl::QUERY, large()))?;
    let stats = SqStats { size: size::<SqStats>(), ..SqStats::default() };
    sweep("STATS", ring(NULL), |ring| call(ring.raw(), ioctl::STATS, stats))
}

fn setups() -> Outcome {
    let with_pool = SqSetup { buf_count: 4, buf_bytes: 8192, ..shape(64, 0) };
    let wide = shape(256, setup_flags::SQE128 | setup_flags::CQE32);
    let mut all: Vec<(String, &str, SqSetup)> =
        MODES.iter().map(|m| (format!("mode {m:#x}"), NULL, shape(8, *m))).collect();
    all.push(("with a pool".to_owned(), RAM, with_pool));
    all.push(("wide".to_owned(), FILE, wide));
    all.push(("disabled".to_owned(), NULL, shape(8, setup_flags::R_DISABLED)));
    for (name, node, setup) in all {
        sweep(&format!("SETUP, {name}"), || Ok(open(node)?), |file| call(file.as_raw_fd(), ioctl::SETUP, setup))?;
    }
    Ok(())
}

/// Each time where the process has no page tables yet.
fn maps() -> Outcome {
    let far = AtomicUsize::new(1 << 40);
    let prepare = || {
        let mut setup = SqSetup { buf_count: 4, buf_bytes: 8192, ..shape(256, 0) };
        let file = set_up(RAM, &mut setup)?;
        Ok((file, setup, None))
    };
    for (what, region, prot) in [("user", 0, 3), ("kernel", 1, 1), ("pool", 2, 3)] {
        sweep(&format!("mmap, {what}"), prepare, |(file, setup, map)| {
            let region = [setup.user, setup.kernel, setup.pool][region];
            let (hint, len) = (far.fetch_add(1 << 30, Ordering::Relaxed), region.size as usize);
            let hint = std::ptr::without_provenance_mut(hint);
            // SAFETY: a new mapping: nothing is there, and if it were, the kernel would take another place.
            let at = unsafe { libc::mmap(hint, len, prot, libc::MAP_SHARED, file.as_raw_fd(), region.offset as i64) };
            if at == libc::MAP_FAILED {
                return Err(last());
            }
            *map = Some(Map { at: at.cast(), len });
            Ok(0)
        })?;
    }
    Ok(())
}

fn eventfd() -> Result<OwnedFd, i32> {
    // SAFETY: no precondition.
    let fd = res(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn registers() -> Outcome {
    let with_event = || Ok((Raw::new(NULL, shape(8, 0))?, eventfd()?));
    sweep("EVENTFD", with_event, |(ring, event)| {
        raw::register(ring.raw(), register_op::EVENTFD, address(&event.as_raw_fd()), 1)
    })?;
    let registered = || {
        let (ring, event) = with_event()?;
        raw::register(ring.raw(), register_op::EVENTFD, address(&event.as_raw_fd()), 1)?;
        Ok((ring, event))
    };
    sweep("UNREGISTER_EVENTFD", registered, |(ring, _)| {
        raw::register(ring.raw(), register_op::UNREGISTER_EVENTFD, 0, 0)
    })?;
    sweep("ALLOW_OPCODES", ring(NULL), |ring| {
        raw::register(ring.raw(), register_op::ALLOW_OPCODES, address(&1u64), 1)
    })?;
    let disabled = || Ok(set_up(NULL, &mut shape(8, setup_flags::R_DISABLED))?);
    sweep("ENABLE_RINGS", disabled, |file| raw::register(file.as_raw_fd(), register_op::ENABLE_RINGS, 0, 0))
}

/// A ring of the file driver, and ten files that may be its own.
fn with_files() -> Result<(Raw, Vec<File>), Why> {
    let files = (0..10).map(|_| scratch()).collect::<Result<_, _>>()?;
    Ok((Raw::new(FILE, shape(8, 0))?, files))
}

fn scratch() -> Result<File, Why> {
    // SAFETY: a NUL-terminated name.
    let fd = res(unsafe { libc::memfd_create(c"life".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: just made, and nobody else's.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(65536).map_err(|why| format!("memfd: {why}"))?;
    Ok(file)
}

fn fds(files: &[File]) -> Vec<i32> {
    files.iter().map(AsRawFd::as_raw_fd).collect()
}

fn register_all(ring: &Raw, files: &[File]) -> Res {
    raw::register(ring.raw(), register_op::FILES, address(&fds(files)[0]), files.len() as u32)
}

fn registers_files() -> Outcome {
    sweep("FILES", with_files, |(ring, files)| register_all(ring, files))?;
    let registered = || {
        let (ring, files) = with_files()?;
        register_all(&ring, &files)?;
        Ok((ring, files))
    };
    sweep("FILES_UPDATE", registered, |(ring, files)| {
        raw::register(ring.raw(), register_op::FILES_UPDATE, address(&fds(files)[0]), 4)
    })?;
    sweep("UNREGISTER_FILES", registered, |(ring, _)| raw::register(ring.raw(), register_op::UNREGISTER_FILES, 0, 0))
}

fn enters() -> Outcome {
    let wait =
        SqEnter { size: size::<SqEnter>(), flags: 1, min_complete: 4, timeout_ns: 1 << 30, ..SqEnter::default() };
    for mode in MODES {
        let filled = || {
            let mut ring = Raw::new(NULL, shape(8, mode))?;
            for n in 0..4 {
                ring.push(echo(n, n));
            }
            ring.push(delay(5, 1000));
            ring.push(never(6));
            Ok(ring)
        };
        spared(&format!("ENTER, bare, mode {mode:#x}"), filled, |ring| ring.bell())?;
        sweep(&format!("ENTER, wait, mode {mode:#x}"), filled, |ring| call(ring.raw(), ioctl::ENTER, wait))?;
    }
    Ok(())
}

/// Rings for the one entry that there is, and returns what its completion says. No call but the doorbell is made, so all points are its.
fn done(ring: &mut Raw) -> Res {
    ring.bell()?;
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if let [(_, res)] = ring.reap()[..] {
            return if res < 0 { Err(-res) } else { Ok(res) };
        }
        std::thread::yield_now();
    }
    Err(libc::ETIME)
}

/// A ring whose callers drain it, with a pool of one page, and one entry in it.
fn with_one(node: &str, entry: [u64; 8]) -> Result<Raw, Why> {
    let mut ring = Raw::new(node, SqSetup { buf_count: 1, buf_bytes: 4096, ..shape(8, 0) })?;
    ring.push(entry);
    Ok(ring)
}

/// The same for a file.
fn of_file(file: &File, mut entry: [u64; 8]) -> Result<Raw, Why> {
    entry[0] = entry[0] & 0xffff_ffff | (file.as_raw_fd() as u64) << 32;
    with_one(FILE, entry)
}

/// In the first word of an entry: its driver's threads do it.
const ASYNC: u64 = 1 << 12;

/// Transfers that are good: in and out, vectored, of memory and of files.
fn transfers() -> Outcome {
    let mut page = vec![0u8; 8192];
    let at = page.as_mut_ptr().expose_provenance() as u64;
    let vector = [SqIovec { base: at, len: 100 }, SqIovec { base: at + 4096, len: 200 }];
    let file = scratch()?;
    for (what, opcode) in [("READ", 22), ("WRITE", 23), ("READV", 1), ("WRITEV", 2)] {
        let (addr, len) = if opcode < 10 { (address(&vector), 2) } else { (at, 300) };
        let to_ram = || with_one(RAM, transfer(opcode, 1, addr, len));
        sweep(&format!("{what} of memory"), to_ram, done)?;
        // On the spot, and by the driver's threads.
        for flags in [0, ASYNC] {
            let to_file = || of_file(&file, transfer(opcode | flags, 1, addr, len));
            sweep(&format!("{what} of a file, flags {flags:#x}"), to_file, done)?;
        }
    }
    drop(page);
    Ok(())
}

/// The same with a buffer of the ring's pool, which nothing is copied from or to by way of the process.
fn of_the_pool() -> Outcome {
    let file = scratch()?;
    for (what, opcode) in [("READ_FIXED", 4), ("WRITE_FIXED", 5)] {
        let entry = transfer(opcode, 1, 0, 4096);
        spared(&format!("{what} of memory"), || with_one(RAM, entry), done)?;
        let later = transfer(opcode | ASYNC, 1, 0, 4096);
        sweep(&format!("{what} of a file, by a worker"), || of_file(&file, later), done)?;
    }
    spared("READ_FIXED of a file", || of_file(&file, transfer(4, 1, 0, 4096)), done)?;
    for (what, flags) in [("FSYNC", 0), ("FSYNC, data only", 1)] {
        sweep(&format!("{what} of a file"), || of_file(&file, [3, 0, 0, flags << 32, 1, 0, 0, 0]), done)?;
    }
    // Its bytes are there for its driver, which does not look.
    let mut fixed = echo(1, 7);
    fixed[3] = 1 << 32 | 4096;
    spared("CMD with FIXED", || with_one(NULL, fixed), done)
}

/// Direct I/O that its caller begins lists the pages of a pool buffer, in memory of its own.
fn direct() -> Outcome {
    let path = "/mnt/life-direct";
    if !on_disk() {
        println!("SKIP: direct I/O: no disk at /mnt");
        return Ok(());
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).custom_flags(libc::O_DIRECT);
    std::fs::write(path, [1; 4096]).map_err(os("write"))?;
    let file = options.open(path).map_err(os("O_DIRECT"))?;
    // Else there is something to wait for, which is a worker's.
    file.sync_all().map_err(os("fsync"))?;
    sweep("READ_FIXED of a file, direct", || of_file(&file, transfer(4, 1, 0, 4096)), done)?;
    std::fs::remove_file(path).map_err(os("remove"))
}

fn issues() -> Outcome {
    let mut page = vec![0u8; 4096];
    let at = page.as_mut_ptr().expose_provenance() as u64;
    for (what, entry) in [("echo", echo(1, 1)), ("delay", delay(1, 1000)), ("nop, async", command_async())] {
        spared(&format!("ISSUE, {what}"), || Ok(open(NULL)?), |file| call(file.as_raw_fd(), ioctl::ISSUE, entry))?;
    }
    let read = transfer(22, 1, at, 4096);
    sweep("ISSUE, READ", || Ok(open(RAM)?), |file| call(file.as_raw_fd(), ioctl::ISSUE, read))?;
    for opcode in [22, 23, 3] {
        let with_file = || Ok((open(FILE)?, scratch()?));
        sweep(&format!("ISSUE, opcode {opcode} of a file"), with_file, |(file, target)| {
            let mut entry = if opcode == 3 { [0; 8] } else { transfer(opcode, 1, at, 4096) };
            entry[0] = opcode | (target.as_raw_fd() as u64) << 32;
            call(file.as_raw_fd(), ioctl::ISSUE, entry)
        })?;
    }
    drop(page);
    Ok(())
}

/// Transfers that an interrupt completes: by the ring, and alone.
fn engines() -> Outcome {
    for node in ENGINES {
        let alone = command(0, 1, 1000, 0);
        spared(&format!("ENTER of {node}"), || with_one(node, alone), done)?;
        spared(&format!("ISSUE of {node}"), || Ok(open(node)?), |file| call(file.as_raw_fd(), ioctl::ISSUE, alone))?;
    }
    Ok(())
}

/// A NOP that completes later.
fn command_async() -> [u64; 8] {
    let mut entry = raw::nop(1);
    entry[0] |= 1 << 12;
    entry
}

fn ends() -> Outcome {
    let busy = || {
        let mut ring = Raw::new(NULL, shape(8, 0))?;
        (0..4).for_each(|n| ring.push(never(n)));
        ring.bell()?;
        Ok(ring)
    };
    let cancel = SqCancel { size: size::<SqCancel>(), flags: 4, ..SqCancel::default() };
    sweep("CANCEL", busy, |ring| call(ring.raw(), ioctl::CANCEL, cancel))?;
    let quiesce = SqQuiesce { size: size::<SqQuiesce>(), timeout_ns: 1 << 32, ..SqQuiesce::default() };
    sweep("QUIESCE", busy, |ring| call(ring.raw(), ioctl::QUIESCE, quiesce))
}

fn polls() -> Outcome {
    spared("poll", ring(NULL), |ring| {
        let mut poll = libc::pollfd { fd: ring.raw(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, as said.
        res(unsafe { libc::poll(&raw mut poll, 1, 1) })
    })?;
    let with_epoll = || {
        let ring = Raw::new(NULL, shape(8, 0))?;
        // SAFETY: no precondition.
        let fd = res(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: just made, and nobody else's.
        Ok((ring, unsafe { OwnedFd::from_raw_fd(fd) }))
    };
    sweep("epoll_ctl", with_epoll, |(ring, epoll)| {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: open descriptors, and an event.
        res(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, ring.raw(), &raw mut event) })
    })
}

/// The null driver has no such command.
const BAD: u64 = 77;

fn commands() -> Outcome {
    // The first on a file makes the pool of requests, also for what is refused then.
    let answer = |result, entry: [u64; 8]| match result {
        Err(libc::EOPNOTSUPP) if entry[1] == BAD => Ok(0),
        other => other,
    };
    for (what, entry) in [("echo", echo(1, 1)), ("delay", delay(1, 100_000)), ("bad", command(BAD as u32, 1, 0, 0))] {
        let inline =
            || -> Result<(OwnedFd, IoUring<squeue::Entry128, cqueue::Entry>), Why> { Ok((open(NULL)?, uring()?)) };
        sweep(&format!("command, {what}"), inline, |(file, uring)| {
            let mut cmd = [0; 80];
            cmd.chunks_exact_mut(8).zip(entry).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
            answer(submitted(uring, &UringCmd80::new(Fd(file.as_raw_fd()), ioctl::ISSUE).cmd(cmd).build()), entry)
        })?;
        let pointer =
            || -> Result<(OwnedFd, IoUring<squeue::Entry, cqueue::Entry>), Why> { Ok((open(NULL)?, uring()?)) };
        sweep(&format!("command by pointer, {what}"), pointer, |(file, uring)| {
            let mut cmd = [0; 16];
            cmd[..8].copy_from_slice(&address(&entry).to_le_bytes());
            answer(submitted(uring, &UringCmd16::new(Fd(file.as_raw_fd()), ioctl::ISSUE).cmd(cmd).build()), entry)
        })?;
    }
    Ok(())
}

fn uring<S: squeue::EntryMarker>() -> Result<IoUring<S, cqueue::Entry>, Why> {
    IoUring::builder().build(8).map_err(|why| format!("io_uring: {why}").into())
}

fn submitted<S: squeue::EntryMarker>(uring: &mut IoUring<S, cqueue::Entry>, entry: &S) -> Res {
    // SAFETY: what the command points to lives until its completion is there, which is waited for.
    if unsafe { uring.submission().push(entry) }.is_err() {
        return Err(libc::EBUSY);
    }
    uring.submit_and_wait(1).map_err(|why| why.raw_os_error().unwrap_or(libc::EIO))?;
    let res = uring.completion().next().ok_or(libc::EIO)?.result();
    if res < 0 { Err(-res) } else { Ok(res) }
}

fn loads() -> Outcome {
    if part() {
        println!("SKIP: loading a driver with each of its 91 points failing takes a minute");
        return Ok(());
    }
    unload::unload("sq_null")?;
    let loaded = || Ok(Driver);
    let outcome = sweep("finit_module", loaded, |_| unload::load("sq_null").map(|()| 0).map_err(|_| last()));
    unload::load("sq_null")?;
    std::fs::set_permissions(NULL, PermissionsExt::from_mode(0o666)).map_err(|why| format!("{NULL}: {why}"))?;
    outcome
}

/// Unloads the driver, if that has been loaded.
struct Driver;

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = unload::unload("sq_null");
    }
}

/// Before the checks. False: this kernel has no fault injection.
pub(crate) fn prepare() -> Result<bool, Why> {
    if !inject::available() {
        return Ok(false);
    }
    inject::only_below_us()?;
    Ok(true)
}
