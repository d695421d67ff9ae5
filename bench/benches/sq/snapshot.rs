// SPDX-License-Identifier: MIT OR Apache-2.0
//! What it costs to keep an entry still while it is read: by copying it, or by the other ways that there are.
//!
//! All of it on a bare ring in one thread, where little else is to be seen. The two alternatives validate entries in the shared pages
//! while nobody can write them: the pages are made read-only for the time of a batch, or the process's other thread is stopped.
//! Both are as cheap here as they can be: one page, one other thread.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, Barrier};
use std::{ptr, thread};

use criterion::{Criterion, Throughput};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use sq_bench::bare::{Bare, InPlace, Look, Rolled, Snapshot};
use sq_bench::cpu;

use crate::host::{CALL, Group, Host, SYSTEM, THREAD, id, row};

const PAGE: usize = 4096;

pub(crate) fn rows(c: &mut Criterion, host: &Host) {
    let mut group = c.benchmark_group("snapshot");
    for batch in [1, 32] {
        group.throughput(Throughput::Elements(batch.into()));
        bare::<Snapshot>(&mut group, "bare ring with the copy", batch);
        bare::<InPlace>(&mut group, "bare ring without", batch);
        bare::<Rolled>(&mut group, "bare ring with the copy in a loop", batch);
        let pages = || (Bare::new(64), Page::new());
        row(&mut group, id("bare ring page made read-only", SYSTEM, batch), pages, |(ring, page)| {
            ring.push(batch);
            page.flip(|| ring.serve::<InPlace>(batch));
            ring.reap(batch)
        });
        let Some(pair) = host.cpus else { continue };
        // The other thread's processor has to be told of each flip.
        let beside = || (Bare::new(64), Page::new(), Other::start(pair.far));
        row(
            &mut group,
            id("bare ring page made read-only beside a thread", SYSTEM, batch),
            beside,
            |(ring, page, _)| {
                ring.push(batch);
                page.flip(|| ring.serve::<InPlace>(batch));
                ring.reap(batch)
            },
        );
        let stopped = || (Bare::new(64), Other::start(pair.far));
        row(&mut group, id("bare ring other thread stopped", THREAD, batch), stopped, |(ring, other)| {
            ring.push(batch);
            other.stopped(|| ring.serve::<InPlace>(batch));
            ring.reap(batch)
        });
    }
    group.throughput(Throughput::Elements(1));
    row(&mut group, id("full fence", CALL, 1), || (), |()| fence(Ordering::SeqCst));
    let word = || AtomicU32::new(0);
    row(&mut group, id("locked add", CALL, 1), word, |word| word.fetch_add(1, Ordering::Relaxed));
    group.finish();
}

fn bare<L: Look>(group: &mut Group<'_>, name: &str, batch: u32) {
    row(group, id(name, CALL, batch), || Bare::new(64), |ring| ring.round::<L>(batch));
}

/// A page that stands for the entries': the ring itself stays writable, for its other half is this thread.
struct Page(*mut core::ffi::c_void);

impl Page {
    fn new() -> Self {
        // SAFETY: a new mapping where the kernel likes.
        let at = unsafe { mmap_anonymous(ptr::null_mut(), PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED) };
        let page = Self(at.expect("a page"));
        // SAFETY: the page is this value's own. It is written, so that there is something to protect.
        unsafe { page.0.cast::<u8>().write_volatile(1) };
        page
    }

    fn flip(&self, work: impl FnOnce()) {
        self.protect(MprotectFlags::READ);
        work();
        self.protect(MprotectFlags::READ | MprotectFlags::WRITE);
        // SAFETY: writable again. A page that nobody touches would not be worth protecting.
        unsafe { self.0.cast::<u8>().write_volatile(1) };
    }

    fn protect(&self, flags: MprotectFlags) {
        // SAFETY: the page is this value's own, and no reference into it exists.
        unsafe { mprotect(self.0, PAGE, flags) }.expect("a page of one's own can be protected");
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; nothing refers to it any more.
        unsafe { munmap(self.0, PAGE) }.expect("it was mapped");
    }
}

const RUN: u32 = 0;
const STOP: u32 = 1;
const STOPPED: u32 = 2;

/// What the other thread is to do, and does; a signal's handler has no other way to know.
static ORDER: AtomicU32 = AtomicU32::new(RUN);
static END: AtomicBool = AtomicBool::new(false);

/// Another thread of the process, busy.
struct Other(Option<thread::JoinHandle<()>>);

impl Other {
    fn start(cpu: usize) -> Self {
        let handler: extern "C" fn(i32) = stand_still;
        // SAFETY: the handler does what a handler may: it loads and stores atomics.
        let before = unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
        assert_ne!(before, libc::SIG_ERR, "SIGUSR1 can be handled");
        END.store(false, Ordering::Relaxed);
        // A signal that found it on its way there would keep it from arriving, and the next one too: both threads on one processor.
        let there = Arc::new(Barrier::new(2));
        let arrived = Arc::clone(&there);
        let thread = thread::spawn(move || {
            cpu::pin(cpu);
            arrived.wait();
            while !END.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        there.wait();
        Self(Some(thread))
    }

    fn stopped(&self, work: impl FnOnce()) {
        use std::os::unix::thread::JoinHandleExt;

        let thread = self.0.as_ref().expect("it runs until it is dropped").as_pthread_t();
        ORDER.store(STOP, Ordering::Release);
        // SAFETY: the thread has not been joined.
        assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
        while ORDER.load(Ordering::Acquire) != STOPPED {
            std::hint::spin_loop();
        }
        work();
        ORDER.store(RUN, Ordering::Release);
    }
}

extern "C" fn stand_still(_: i32) {
    ORDER.store(STOPPED, Ordering::Release);
    while ORDER.load(Ordering::Acquire) == STOPPED {
        std::hint::spin_loop();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        END.store(true, Ordering::Relaxed);
        if let Some(thread) = self.0.take() {
            thread.join().expect("the other thread only waits");
        }
    }
}
