// SPDX-License-Identifier: MIT OR Apache-2.0
//! The polling thread of a loaded module: that it goes, however its process goes. Needs root, for other processes' descriptors.

use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;
use std::{env, fs};

use liburing_shm::{Backend, Errno, Ring, opcode};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use sq_conformance::guest::{eventually, is_child, ready, references, start};
use sq_uapi::consts::setup_flags;
use sq_uapi::{SqSetup, ioctl};

/// A ring with this idle time stays awake for longer than any test.
const AWAKE: Duration = Duration::from_secs(3600);

/// One test at a time: they count threads and references. `None`, and a word about it, without a module.
fn device() -> Option<(Backend, MutexGuard<'static, ()>)> {
    static ONE: Mutex<()> = Mutex::new(());
    if env::var_os("SQ_BACKEND").is_none_or(|value| value != "device") {
        println!("SKIPPED: there is no module here, and no kernel thread");
        return None;
    }
    Some((Backend::device("/dev/sqnull"), ONE.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn ring(backend: &Backend, idle: Duration) -> Ring {
    Ring::builder(8).poll(idle).build(backend).unwrap()
}

/// Completes one entry, after which the thread is awake.
fn use_it(ring: &mut Ring) {
    ring.submission().push(opcode::Nop::new().build()).unwrap();
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completion().reap().count(), 1);
}

/// A ring that gives opcodes up finds its polling thread awake, and may try again until it sleeps: trying does not keep it awake.
#[test]
fn bell1_trying_to_give_opcodes_up_keeps_no_polling_thread_awake() {
    let Some((backend, _one)) = device() else { return };
    let mut ring = ring(&backend, Duration::from_millis(20));
    use_it(&mut ring);
    let mut busy = 0;
    while let Err(error) = ring.submitter().allow_opcodes(1) {
        assert_eq!(error.errno(), Some(Errno::EBUSY));
        busy += 1;
        assert!(busy < 5000, "the thread is awake for good");
        // Shorter than what it stays awake for, whatever came.
        sleep(Duration::from_millis(2));
    }
}

/// Ids of the polling threads of process `pid`'s rings.
fn threads(pid: u32) -> Vec<u32> {
    let name = format!("sq-poll-{pid}\n");
    let tasks = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    tasks.filter(|id| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm == name)).collect()
}

/// Nanoseconds that a thread has run.
fn ran_ns(id: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{id}/schedstat")).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// All threads of `pid` have ended and nothing holds the driver's module.
#[track_caller]
fn nothing_left(pid: u32) {
    eventually("threads end", || threads(pid).is_empty());
    eventually("the module is free", || references("sq_null") == 0);
}

/// Descriptors of this process that are rings.
fn ring_fds() -> Vec<i32> {
    let fds = fs::read_dir("/proc/self/fd").unwrap().map_while(Result::ok);
    fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == "/dev/sqnull"))
        .map(|fd| fd.file_name().to_str().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn busy_child() {
    if !is_child("busy_child") {
        return;
    }
    let (backend, _one) = device().unwrap();
    let mut rings = [ring(&backend, AWAKE), ring(&backend, AWAKE), ring(&backend, Duration::from_millis(1))];
    ready();
    loop {
        for ring in &mut rings {
            while ring.submission().push(opcode::Nop::new().build()).is_ok() {}
            ring.submit().unwrap();
            ring.completion().reap().for_each(drop);
        }
    }
}

#[test]
fn mapped_child() {
    if !is_child("mapped_child") {
        return;
    }
    let (backend, _one) = device().unwrap();
    let mut rings = [ring(&backend, AWAKE), ring(&backend, AWAKE)];
    rings.iter_mut().for_each(use_it);
    for fd in ring_fds() {
        // SAFETY: the rings are not used again, and this process ends without dropping them.
        unsafe { rustix::io::close(fd) };
    }
    ready();
    sleep(AWAKE);
}

#[test]
fn awake_child() {
    if !is_child("awake_child") {
        return;
    }
    let (backend, _one) = device().unwrap();
    let mut ring = ring(&backend, AWAKE);
    use_it(&mut ring);
    ready();
    sleep(AWAKE);
}

#[test]
fn life2_close_ends_an_awake_thread() {
    let Some((backend, _one)) = device() else { return };
    for _ in 0..100 {
        let mut ring = ring(&backend, AWAKE);
        use_it(&mut ring);
        assert_eq!(threads(std::process::id()).len(), 1);
        drop(ring);
        nothing_left(std::process::id());
    }
}

#[test]
fn life2_storms_of_setup_and_close() {
    let Some((backend, _one)) = device() else { return };
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let backend = &backend;
            scope.spawn(move || {
                for lap in 0..100 {
                    let mut ring = ring(backend, if lap % 2 == 0 { AWAKE } else { Duration::from_millis(1) });
                    if (lap + worker) % 3 > 0 {
                        use_it(&mut ring);
                    }
                    // One in three was never woken.
                }
            });
        }
    });
    nothing_left(std::process::id());
}

#[test]
fn life2_kill_with_awake_threads() {
    let Some((_, _one)) = device() else { return };
    for lap in 0..30 {
        let mut child = start("busy_child");
        sleep(Duration::from_millis(lap * 7 % 50));
        child.kill().unwrap();
        child.wait().unwrap();
        nothing_left(child.id());
    }
}

#[test]
fn life2_an_awake_thread_does_not_hold_a_process_that_has_only_mappings() {
    let Some((_, _one)) = device() else { return };
    for _ in 0..10 {
        let mut child = start("mapped_child");
        assert_eq!(threads(child.id()).len(), 2, "a mapping keeps the ring");
        child.kill().unwrap();
        child.wait().unwrap();
        nothing_left(child.id());
    }
}

#[test]
fn life3_a_ring_held_elsewhere_sleeps_once_its_process_is_gone() {
    let Some((_, _one)) = device() else { return };
    if !std::path::Path::new("/proc/self/schedstat").exists() {
        println!("SKIPPED: this kernel has no schedstat");
        return;
    }
    let mut child = start("awake_child");
    let thread = threads(child.id())[0];
    let busy = ran_ns(thread);
    eventually("the thread spins", || ran_ns(thread) > busy + 20_000_000);

    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let fds = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().map_while(Result::ok);
    let theirs: i32 = fds
        .filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == "/dev/sqnull"))
        .map(|fd| fd.file_name().to_str().unwrap().parse().unwrap())
        .next()
        .unwrap();
    let held = pidfd_getfd(&process, theirs, PidfdGetfdFlags::empty()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();

    eventually("the thread sleeps", || {
        let before = ran_ns(thread);
        sleep(Duration::from_millis(200));
        ran_ns(thread) == before
    });
    drop(held);
    nothing_left(child.id());
}

#[test]
fn a_setup_that_fails_leaves_no_thread() {
    let Some((backend, _one)) = device() else { return };
    // Before the thread has ever run: there is no memory for such a pool.
    let pool = Ring::builder(8).poll(AWAKE).pool(4, 1 << 30).build(&backend);
    assert_eq!(pool.unwrap_err().errno(), Some(Errno::ENOMEM));
    nothing_left(std::process::id());

    // After it was started: what was made of the ring cannot be said to an argument that is read-only.
    let file = fs::File::options().read(true).write(true).open("/dev/sqnull").unwrap();
    let setup = SqSetup { size: 192, sq_entries: 8, flags: setup_flags::SQPOLL, ..SqSetup::default() };
    // SAFETY: a new mapping, where the kernel likes.
    let page = unsafe {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0)
    };
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: inside the mapping, which is large enough, aligned and nobody else's.
    unsafe { page.cast::<SqSetup>().write(setup) };
    // SAFETY: the mapping; no Rust object is in it that would be written.
    assert_eq!(unsafe { libc::mprotect(page, 4096, libc::PROT_READ) }, 0);
    for _ in 0..20 {
        // SAFETY: SETUP reads and writes its argument, which the kernel checks.
        let res = unsafe { libc::ioctl(file.as_raw_fd(), ioctl::SETUP.into(), page) };
        assert_eq!((res, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EFAULT)));
        eventually("threads end", || threads(std::process::id()).is_empty());
    }
    drop(file);
    nothing_left(std::process::id());
}

#[test]
fn mem1_threads_are_counted() {
    let Some((backend, _one)) = device() else { return };
    let most: usize = fs::read_to_string("/sys/module/sq/parameters/poll_threads").unwrap().trim().parse().unwrap();
    let build = || Ring::builder(1).poll(AWAKE).build(&backend);
    for _ in 0..2 {
        let rings: Vec<Ring> = (0..most).map(|_| build().unwrap()).collect();
        assert_eq!(build().unwrap_err().errno(), Some(Errno::EAGAIN));
        assert_eq!(threads(std::process::id()).len(), most);
        drop(rings);
        nothing_left(std::process::id());
    }
}
