// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors, mappings, threads and processes: whose ring it is (LIFE-3), and how long it lasts (LIFE-4). Run as root: some
//! of the processes give that up.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sq_conformance::guest::{sleeps_in, this_thread};
use sq_uapi::consts::{register_op, setup_flags, sqe_flags};
use sq_uapi::{SqCancel, SqQuery, SqQuiesce, SqSetup, ioctl};

use crate::pass::{pair, receive, send};
use crate::poll::events;
use crate::proc::{Child, all_given_back, become_user, code, until};
use crate::raw::{
    self, MODES, Map, NULL, Raw, call, delay, echo, enter, never, register, res, set_up, shape, stats, transfer,
};
use crate::{Check, Outcome, Why, joined, os, want};

pub(crate) const CHECKS: &[Check] = &[
    ("dup: a ring lasts as long as its last descriptor", dup),
    ("fork: the child has neither mapping nor ring", fork),
    ("fork: a child that drops a ring unmaps nothing of its own", dropped_by_child),
    ("privileged setup, hostile peer", || peer(0, 1000)),
    ("hostile setup, privileged peer", || peer(1000, 0)),
    ("enabled by another process: its ring from then on", enabled_elsewhere),
    ("a ring that was mapped is not enabled by another", enabled_after_mapping),
    ("enabled with other credentials", enabled_after_setuid),
    ("its process gone, a ring runs nothing more", bereaved),
    ("munmap and mremap while in use", remapped),
    ("close by another thread while one waits", closed_under_a_wait),
    ("exec", exec),
    ("a thread that submitted exits", thread_exits),
    ("setuid in one thread", setuid_in_one_thread),
    ("LIFE-3: entries run with the ring's credentials, whoever rings", || credentials(false)),
    ("LIFE-3: the other way round", || credentials(true)),
    ("exit with requests that never complete", exits),
    ("eventfds registered by two threads", racing_eventfds),
];

fn ring(flags: u32) -> Result<Raw, Why> {
    Ok(Raw::new(NULL, shape(8, flags))?)
}

/// One entry there and back.
fn works(ring: &mut Raw) -> Outcome {
    ring.push(echo(77, 7));
    ring.bell()?;
    want!(ring.wait(1, 5000), Ok(0));
    want!(ring.reap(), [(77, 7)]);
    Ok(())
}

/// Whether all that a stranger may try on the ring is -EXDEV but for reading its counters, and what is not the ring's works: the other doors
/// with the stranger's own memory, and questions.
fn estranged(fd: RawFd) -> Outcome {
    let map = Map::new(fd, sq_uapi::SqRegion { offset: 0, size: 4096 }, libc::PROT_READ).map(|_| 0);
    let mut quiesce = SqQuiesce { size: 32, ..SqQuiesce::default() };
    let mut cancel = SqCancel { size: 40, ..SqCancel::default() };
    let tried = [
        ("mmap", map),
        ("doorbell", raw::ioctl(fd, ioctl::ENTER, 0)),
        ("enter", enter(fd, 1, 10)),
        ("quiesce", call(fd, ioctl::QUIESCE, &mut quiesce)),
        ("cancel", call(fd, ioctl::CANCEL, &mut cancel)),
        ("register", register(fd, register_op::UNREGISTER_EVENTFD, 0, 0)),
        ("allow", register(fd, register_op::ALLOW_OPCODES, 8, 1)),
        ("enable", register(fd, register_op::ENABLE_RINGS, 0, 0)),
    ];
    for (what, result) in tried {
        if result != Err(libc::EXDEV) {
            return Err(format!("a stranger's {what}: {result:?}").into());
        }
    }
    stats(fd)?;
    // What the owner has at that address, if anything, is no such entry.
    want!(call(fd, ioctl::ISSUE, &mut echo(1, std::process::id().into())), Ok(std::process::id().cast_signed()));
    let mut query = SqQuery { size: size_of::<SqQuery>() as u32, ..SqQuery::default() };
    want!(call(fd, ioctl::QUERY, &mut query), Ok(0));
    // As to its owner: readable, or over if a worker has found its process gone, and never an error.
    let said = events(fd, libc::POLLIN, 0);
    want!((said, said & !(libc::POLLIN | libc::POLLHUP)), (said, 0));
    let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).map_err(os("fdinfo"))?;
    want!((fdinfo.contains("\nRing:\t"), &fdinfo), (true, &fdinfo));
    Ok(())
}

fn dup() -> Outcome {
    let mut ring = ring(0)?;
    ring.push(never(1));
    ring.bell()?;
    let other = ring.fd.try_clone().map_err(|_| libc::EMFILE)?;
    drop(std::mem::replace(&mut ring.fd, other));
    works(&mut ring)?;
    want!(ring.stats().inflight, 1);
    Ok(())
}

fn fork() -> Outcome {
    let mut ring = ring(0)?;
    ring.push(delay(1, 100_000_000));
    ring.bell()?;
    let (at, len) = (ring.user.at, ring.user.len);
    let fd = ring.raw();
    let child = Child::fork(|| {
        // SAFETY: only asks whether something is mapped there.
        let mapped = unsafe { libc::msync(at.cast(), len, libc::MS_ASYNC) };
        code(if mapped == 0 { Err("the mapping is here too".to_owned().into()) } else { estranged(fd) })
    });
    want!(child.wait(), 0);
    want!(ring.wait(1, 5000), Ok(0));
    want!(ring.reap(), [(1, 0)]);
    works(&mut ring)
}

/// A child has a hole where the parent has a ring, and what it maps there is its own, also when it drops the library's ring.
fn dropped_by_child() -> Outcome {
    let backend = liburing_shm::Backend::device(NULL);
    let ring = liburing_shm::Ring::builder(8).pool(1, 4096).build(&backend).map_err(|why| why.to_string())?;
    let text = fs::read_to_string("/proc/self/maps").map_err(os("maps"))?;
    let of_ring = text.lines().filter(|line| line.ends_with(NULL));
    let places: Option<Vec<_>> = of_ring
        .map(|line| {
            let (start, rest) = line.split_once('-')?;
            let number = |digits| usize::from_str_radix(digits, 16).ok();
            let (start, end) = (number(start)?, number(rest.split_once(' ')?.0)?);
            Some((start as *mut libc::c_void, end - start))
        })
        .collect();
    let places = places.ok_or_else(|| text.clone())?;
    want!(places.len(), 3);
    let child = Child::fork(move || {
        code((|| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            for &(at, len) in &places {
                // SAFETY: a new mapping, which replaces none.
                want!(unsafe { libc::mmap(at, len, libc::PROT_READ, flags, -1, 0) }, at);
            }
            drop(ring);
            for &(at, len) in &places {
                // SAFETY: only asks whether something is mapped there.
                want!(res(unsafe { libc::msync(at, len, libc::MS_ASYNC) }), Ok(0));
            }
            Ok(())
        })())
    });
    want!(child.wait(), 0);
    Ok(())
}

/// Two processes of these users: one sets a ring up and passes its descriptor, the other tries to use it, keeps it longer than
/// its owner lives, and closes it last.
fn peer(owner: u32, peer: u32) -> Outcome {
    let [ours, theirs] = pair()?;
    let first = Child::fork(|| {
        code((|| {
            let mut ring = ring(0)?;
            become_user(owner)?;
            ring.push(never(1));
            ring.bell()?;
            send(&ours, &ring.fd, &ring.setup)?;
            // What the peer does meanwhile changes nothing.
            thread::sleep(Duration::from_millis(100));
            works(&mut ring)
        })())
    });
    let second = Child::fork(|| {
        code((|| {
            become_user(peer)?;
            let (fd, _) = receive(&theirs)?;
            estranged(fd.as_raw_fd())?;
            thread::sleep(Duration::from_millis(300));
            // The owner has exited.
            estranged(fd.as_raw_fd())
        })())
    });
    want!(first.wait(), 0);
    want!(second.wait(), 0);
    Ok(())
}

fn disabled() -> Result<(OwnedFd, SqSetup), Why> {
    let mut setup = shape(8, setup_flags::R_DISABLED);
    let fd = set_up(NULL, &mut setup)?;
    Ok((fd, setup))
}

fn enabled_elsewhere() -> Outcome {
    let [ours, theirs] = pair()?;
    let child = Child::fork(|| {
        code((|| {
            become_user(1000)?;
            let (fd, setup) = receive(&theirs)?;
            let refused = |result: raw::Res, what| match result {
                Err(libc::EXDEV) => Ok(()),
                other => Err(Why::from(format!("{what} before the ring is enabled: {other:?}"))),
            };
            refused(Map::new(fd.as_raw_fd(), setup.user, libc::PROT_READ).map(|_| 0), "mmap")?;
            refused(raw::ioctl(fd.as_raw_fd(), ioctl::ENTER, 0), "doorbell")?;
            register(fd.as_raw_fd(), register_op::ENABLE_RINGS, 0, 0)?;
            let mut ring = Raw::over(fd, setup)?;
            works(&mut ring)?;
            // Time for the other side to see that it has lost it.
            thread::sleep(Duration::from_millis(200));
            works(&mut ring)
        })())
    });
    let (fd, setup) = disabled()?;
    want!(raw::ioctl(fd.as_raw_fd(), ioctl::ENTER, 0), Err(libc::EBADFD));
    send(&ours, &fd, &setup)?;
    let end = Instant::now() + Duration::from_secs(5);
    while stats(fd.as_raw_fd())?.completions == 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    estranged(fd.as_raw_fd())?;
    want!(child.wait(), 0);
    Ok(())
}

/// Who has it mapped could write entries that another would run.
fn enabled_after_mapping() -> Outcome {
    let (fd, setup) = disabled()?;
    let map = Map::new(fd.as_raw_fd(), setup.user, libc::PROT_READ | libc::PROT_WRITE);
    want!(map.is_ok(), true);
    let mapped = fd.as_raw_fd();
    want!(Child::fork(|| code(estranged(mapped))).wait(), 0);
    drop(map);
    want!(Child::fork(|| code(estranged(mapped))).wait(), 0);
    register(fd.as_raw_fd(), register_op::ENABLE_RINGS, 0, 0)?;
    works(&mut Raw::over(fd, setup)?)
}

fn enabled_after_setuid() -> Outcome {
    let child = Child::fork(|| {
        code((|| {
            let (fd, setup) = disabled()?;
            become_user(1000)?;
            register(fd.as_raw_fd(), register_op::ENABLE_RINGS, 0, 0)?;
            let again = register(fd.as_raw_fd(), register_op::ENABLE_RINGS, 0, 0);
            if again != Err(libc::EINVAL) {
                return Err(format!("enabled twice: {again:?}").into());
            }
            let mut ring = Raw::over(fd, setup)?;
            works(&mut ring)
        })())
    });
    want!(child.wait(), 0);
    Ok(())
}

/// Eight entries, two requests: the rest waits for a completion, after which a worker goes on. By then the ring's process
/// is gone, and only a stranger keeps the file.
fn bereaved() -> Outcome {
    let [ours, theirs] = pair()?;
    let child = Child::fork(|| {
        let mut setup = shape(8, 0);
        setup.max_inflight = 2;
        let Ok(mut ring) = Raw::new(NULL, setup) else { return 2 };
        for n in 0..8 {
            // Long enough for a stranger on a slow machine to see them in flight.
            ring.push(delay(n, 1_000_000_000));
        }
        let consumed = ring.bell();
        code(send(&ours, &ring.fd, &ring.setup).and_then(|()| match consumed {
            Ok(2) => Ok(()),
            other => Err(format!("not two entries were consumed: {other:?}").into()),
        }))
    });
    let (fd, _) = receive(&theirs)?;
    want!(child.wait(), 0);
    let before = stats(fd.as_raw_fd())?;
    want!((before.entries, before.inflight), (2, 2));
    let mut after = before;
    for _ in 0..100 {
        if after.inflight == 0 {
            break;
        }
        thread::sleep(Duration::from_millis(100));
        after = stats(fd.as_raw_fd())?;
    }
    want!((after.entries, after.completions, after.inflight), (2, 2, 0));
    estranged(fd.as_raw_fd())?;
    // What was completed is there for ever, and nothing comes after it.
    let over = libc::POLLIN | libc::POLLHUP;
    until(10, "poll does not say that it is over", || events(fd.as_raw_fd(), libc::POLLIN, 0) == over)
}

fn remapped() -> Outcome {
    for mode in MODES {
        let mut ring = Raw::new(NULL, shape(8, mode))?;
        ring.push(delay(1, 20_000_000));
        ring.push(delay(2, 30_000_000));
        ring.bell()?;
        // Moved: the same pages elsewhere.
        let (at, len) = (ring.user.at, ring.user.len);
        let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, where the kernel likes.
        let room = unsafe { libc::mmap(std::ptr::null_mut(), len, 0, private, -1, 0) };
        want!(room == libc::MAP_FAILED, false);
        // SAFETY: the mapping is ours, and nothing refers into it; its new place is the one above.
        let moved = unsafe { libc::mremap(at.cast(), len, len, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, room) };
        want!(moved == libc::MAP_FAILED, false);
        ring.user.at = moved.cast();
        // Longer than the region: never.
        // SAFETY: as above; if it is done all the same, the check fails.
        let grown = unsafe { libc::mremap(moved, len, len + 4096, libc::MREMAP_MAYMOVE) };
        want!((grown == libc::MAP_FAILED, raw::last()), (true, libc::EFAULT));
        // Gone: the ring goes on, and what it posts is there for the next mapping.
        let (fd, setup, tail, head) = (ring.raw(), ring.setup, ring.tail, ring.head);
        let Raw { user, kernel, fd: file, .. } = ring;
        drop((user, kernel));
        want!(raw::ioctl(fd, ioctl::ENTER, 0).is_ok(), true);
        want!(enter(fd, 2, 5000), Ok(0));
        let mut ring = Raw { tail, head, ..Raw::over(file, setup)? };
        want!(ring.reap(), [(1, 0), (2, 0)]);
        works(&mut ring)?;
    }
    Ok(())
}

/// A wait holds the file: a close elsewhere neither wakes it nor takes the ring from it.
fn closed_under_a_wait() -> Outcome {
    for mode in [0, setup_flags::WORKER] {
        // If the close came too late, the completion has to come later.
        let mut delays = (0..8).map(|power| 200_000_000 << power);
        loop {
            let Some(delay_ns) = delays.next() else { return Err("nobody closes in time".to_owned().into()) };
            if closed_before(mode, delay_ns)? {
                break;
            }
        }
    }
    Ok(())
}

/// Closes a ring's descriptor while a thread waits for a completion. Whether the completion came after it.
fn closed_before(mode: u32, delay_ns: u64) -> Result<bool, Why> {
    let mut ring = ring(mode)?;
    ring.push(delay(1, delay_ns));
    ring.push(never(2));
    ring.bell()?;
    let fd = ring.raw();
    let closed = Arc::new(AtomicBool::new(false));
    let (is_closed, (tell, told)) = (closed.clone(), mpsc::channel());
    let waiter = thread::spawn(move || {
        let _ = tell.send(this_thread());
        let first = enter(fd, 1, 60_000);
        let before = is_closed.load(Ordering::Acquire);
        while !is_closed.load(Ordering::Acquire) {
            thread::yield_now();
        }
        (before, first, enter(fd, 2, 10))
    });
    let id = told.recv().map_err(|_| "no thread".to_owned())?;
    let over = || ring.stats().completions > 0;
    until(20, "who waits does not sleep", || sleeps_in(id) == Some(libc::SYS_ioctl) || over())?;
    let Raw { user, kernel, fd, .. } = ring;
    drop((user, kernel));
    drop(fd);
    closed.store(true, Ordering::Release);
    let (before, first, second) = joined(waiter);
    // The completion ends the wait; the next call finds no file.
    want!((first, second), (Ok(0), Err(libc::EBADF)));
    all_given_back()?;
    Ok(before)
}

fn exec() -> Outcome {
    // O_CLOEXEC: gone. Else: a stranger's.
    for keep in [false, true] {
        let child = Child::fork(|| {
            let Ok(mut ring) = ring(setup_flags::WORKER) else { return 2 };
            for n in 0..4 {
                ring.push(never(n));
                ring.push(delay(n, 1_000_000));
            }
            if ring.bell().is_err() {
                return 3;
            }
            if keep {
                // SAFETY: no pointers.
                unsafe { libc::fcntl(ring.raw(), libc::F_SETFD, 0) };
            }
            let fd = ring.fd.as_raw_fd().to_string();
            let Ok(this) = std::env::current_exe() else { return 4 };
            use std::os::unix::process::CommandExt;
            let what = if keep { fd } else { "gone".into() };
            println!("exec failed: {}", Command::new(this).args(["stranger", &what]).exec());
            5
        });
        want!(child.wait(), 0);
    }
    Ok(())
}

/// What `exec` becomes.
pub(crate) fn stranger(what: &str) -> ExitCode {
    let result = match what.parse::<RawFd>() {
        Ok(fd) => estranged(fd),
        Err(_) => all_given_back(),
    };
    ExitCode::from(u8::from(code(result) != 0))
}

/// Requests are the ring's, not the thread's.
fn thread_exits() -> Outcome {
    let ring = ring(0)?;
    let submitter = thread::spawn(move || {
        let mut ring = ring;
        ring.push(never(1));
        ring.push(delay(2, 30_000_000));
        ring.bell().map(|_| ring)
    });
    let mut ring = joined(submitter)?;
    want!(ring.wait(1, 5000), Ok(0));
    want!(ring.reap(), [(2, 0)]);
    want!(ring.stats().inflight, 1);
    works(&mut ring)
}

fn setuid_in_one_thread() -> Outcome {
    let ring = ring(0)?;
    let user = thread::spawn(move || {
        let mut ring = ring;
        let done = as_user();
        let worked = works(&mut ring);
        // SAFETY: no pointers.
        let now = unsafe { libc::syscall(libc::SYS_geteuid) };
        (ring, done, now, worked)
    });
    let (mut ring, done, now, worked) = joined(user);
    worked?;
    want!((done, now), (Ok(()), 1000));
    works(&mut ring)
}

/// A write takes the set-user-id bit from a file, unless the writer has root's privileges: whose does an entry have? The ring's,
/// though another thread rings, of a user's ring that is root and of root's ring a user.
fn credentials(of_user: bool) -> Outcome {
    for mode in MODES {
        let path = format!("/tmp/life-suid-{mode}-{of_user}");
        fs::write(&path, b"before").map_err(|_| libc::EIO)?;
        let file = fs::OpenOptions::new().write(true).open(&path).map_err(|_| libc::EIO)?;
        let set = |bits| fs::set_permissions(&path, fs::Permissions::from_mode(bits)).map_err(|_| libc::EIO);
        set(0o4777)?;
        let make = move || {
            let ring = Raw::new("/dev/sqfile", shape(8, mode))?;
            let mut numbers = [file.as_raw_fd()];
            let at = numbers.as_mut_ptr().expose_provenance() as u64;
            register(ring.raw(), register_op::FILES, at, 1)?;
            Ok::<_, i32>((ring, file))
        };
        let write = |(mut ring, file): (Raw, fs::File)| -> Outcome {
            let bytes = *b"after ";
            let mut entry = transfer(23, 1, bytes.as_ptr().expose_provenance() as u64, 6);
            entry[0] = 23 | u64::from(sqe_flags::FIXED_FILE) << 8;
            ring.push(entry);
            ring.bell()?;
            want!(ring.wait(1, 5000), Ok(0));
            want!(ring.reap(), [(1, 6)]);
            drop(file);
            Ok(())
        };
        if of_user {
            write(joined(thread::spawn(move || as_user().and_then(|()| make())))?)?;
        } else {
            let made = make()?;
            joined(thread::spawn(move || {
                as_user()?;
                write(made)
            }))?;
        }
        let bits = fs::metadata(&path).map_err(|_| libc::EIO)?.permissions().mode() & 0o7777;
        want!((mode, bits), (mode, if of_user { 0o777 } else { 0o4777 }));
        let _ = fs::remove_file(&path);
    }
    Ok(())
}

/// This thread alone is user 1000: the system call, not the library's, which changes all threads.
fn as_user() -> Result<(), i32> {
    // SAFETY: no pointers.
    if unsafe { libc::syscall(libc::SYS_setresuid, 1000, 1000, 1000) } < 0 { Err(raw::last()) } else { Ok(()) }
}

fn exits() -> Outcome {
    for mode in MODES {
        let child = Child::fork(|| {
            let Ok(mut ring) = Raw::new(NULL, shape(8, mode)) else { return 0 };
            for n in 0..3 {
                ring.push(never(n));
            }
            let _ = ring.bell();
            std::mem::forget(ring);
            0
        });
        want!(child.wait(), 0);
        all_given_back()?;
    }
    Ok(())
}

/// Whoever wins, there is one eventfd, it is signalled, and it can be forgotten.
fn racing_eventfds() -> Outcome {
    let mut ring = ring(0)?;
    // SAFETY: no pointers.
    let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    // SAFETY: just made.
    let event = unsafe { OwnedFd::from_raw_fd(event) };
    let fd = ring.raw();
    for _ in 0..crate::times(300, 5000) {
        // They spin, so that both are at it within a few hundred nanoseconds.
        let together = Arc::new(AtomicU32::new(0));
        let registers = move |together: Arc<AtomicU32>, mut number: RawFd| {
            together.fetch_add(1, Ordering::AcqRel);
            while together.load(Ordering::Acquire) < 2 {}
            let at = std::ptr::from_mut(&mut number).expose_provenance() as u64;
            register(fd, register_op::EVENTFD, at, 1)
        };
        let (theirs, number) = (together.clone(), event.as_raw_fd());
        let other = thread::spawn(move || registers(theirs, number));
        let mut both = [registers(together, number), joined(other)];
        both.sort();
        want!(both, [Ok(0), Err(libc::EBUSY)]);
        ring.push(echo(1, 1));
        ring.bell()?;
        want!(ring.reap(), [(1, 1)]);
        let mut count = [0; 8];
        // SAFETY: eight bytes.
        let got = unsafe { libc::read(event.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
        want!(got, 8);
        want!(register(fd, register_op::UNREGISTER_EVENTFD, 0, 0), Ok(0));
        want!(register(fd, register_op::UNREGISTER_EVENTFD, 0, 0), Err(libc::ENXIO));
    }
    Ok(())
}
