// SPDX-License-Identifier: MIT OR Apache-2.0
//! The surroundings of a ring over hostile memory: one thread, a clock that the test moves, and no sleep.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use kmod_sq::{Abilities, Geometry, Host, HostFile, Lock, Notify, Ring, RingRef, Waited};
use sq_driver::{Bound, Driver, Errno};
use sq_uapi::SqSetup;
use sq_uapi::consts::{enter_flags, setup_flags};

use super::hostile::{Foe, HostileMem};

/// A lock.
pub struct PlainLock<T>(Mutex<T>);

impl<T> Lock<T> for PlainLock<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.try_lock().ok().map(|mut value| f(&mut value))
    }
}

/// A file, whatever its number.
#[derive(Clone, Copy, Debug)]
pub struct NoFile;

impl HostFile for NoFile {
    fn target(&self) -> usize {
        0
    }
}

/// The surroundings.
#[derive(Debug, Default)]
pub struct HostileHost {
    queued: AtomicBool,
    now_ns: AtomicU64,
    alarm_ns: AtomicU64,
    /// A worker runs: it has no descriptors.
    in_worker: AtomicBool,
}

impl HostileHost {
    /// Does what a worker was asked for. A ring asks again only for a reason, so a hundred times in a row are too many.
    ///
    /// # Panics
    ///
    /// If there is no end to it (SEC-1).
    pub fn run_worker(ring: &Ring<Self>) {
        let host = ring.host();
        host.in_worker.store(true, SeqCst);
        let turns = (0..100).take_while(|_| host.queued.swap(false, SeqCst)).map(|_| ring.work()).count();
        host.in_worker.store(false, SeqCst);
        assert!(turns < 100, "SEC-1: the worker is asked for again and again");
    }

    /// Moves the clock on, and calls the alarm if its time has come.
    pub fn sleep(ring: &Ring<Self>, ns: u64) {
        let host = ring.host();
        let now = host.now_ns.fetch_add(ns, SeqCst) + ns;
        let at = host.alarm_ns.load(SeqCst);
        if at != 0 && at <= now {
            host.alarm_ns.store(0, SeqCst);
            ring.alarm();
        }
    }
}

impl Host for HostileHost {
    const ABILITIES: Abilities =
        Abilities { features: 0, setup_flags: setup_flags::ALL, enter_flags: enter_flags::ALL };

    type Mem = HostileMem;
    type Lock<T: Send> = PlainLock<T>;
    type Array<T: Send> = Box<[T]>;
    type File = NoFile;

    fn array<T: Send>(len: usize, make: impl FnMut(usize) -> T) -> Result<Box<[T]>, Errno> {
        Ok((0..len).map(make).collect())
    }

    unsafe fn copy_from_user(&self, _: *mut u8, _: u64, _: usize) -> Result<(), Errno> {
        Err(Errno::EFAULT)
    }

    unsafe fn copy_to_user(&self, _: u64, _: *const u8, _: usize) -> Result<(), Errno> {
        Err(Errno::EFAULT)
    }

    fn file(&self, fd: i32) -> Result<NoFile, Errno> {
        match fd {
            _ if self.in_worker.load(SeqCst) => Err(Errno::EAGAIN),
            0.. => Ok(NoFile),
            _ => Err(Errno::EBADF),
        }
    }

    fn set_eventfd(&self, _: Option<i32>) -> Result<(), Errno> {
        Err(Errno::EBADF)
    }

    fn notify(&self, _: Notify) {}

    fn work(ring: &Ring<Self>) {
        ring.host().queued.store(true, SeqCst);
    }

    fn alarm(ring: &Ring<Self>, at_ns: u64) {
        let alarm = &ring.host().alarm_ns;
        let old = alarm.load(SeqCst);
        alarm.store(if old == 0 { at_ns.max(1) } else { old.min(at_ns) }, SeqCst);
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.load(SeqCst)
    }

    fn wait(&self, deadline: Option<u64>, ready: &mut dyn FnMut() -> bool) -> Waited {
        if ready() {
            return Waited::Ready;
        }
        // Nobody else is there to wake it.
        if deadline.is_some() { Waited::Timeout } else { Waited::Signal }
    }

    unsafe fn free(ring: NonNull<Ring<Self>>) {
        // SAFETY: rings of this host are leaked boxes, and this was the last reference.
        drop(unsafe { Box::from_raw(ring.as_ptr()) });
    }
}

/// A ring over hostile memory. `driver` is static, so that it outlives the ring.
///
/// # Errors
///
/// As SETUP.
pub fn hostile_ring<D: Driver>(
    setup: &SqSetup,
    driver: &'static D,
    foe: Box<dyn Foe>,
) -> Result<(RingRef<HostileHost>, HostileMem), Errno> {
    let geometry = Geometry::new(setup)?;
    let mem = HostileMem::new(geometry.sq_entries, geometry.cq_entries, foe);
    // SAFETY: the table is D's own, and the driver is static.
    let bound = unsafe { Bound::new(sq_driver::table::<D>(), std::ptr::from_ref(driver).cast()) }?;
    // SAFETY: there is no pool, and it is leaked into its place below.
    let ring = unsafe { Ring::new(HostileHost::default(), mem.clone(), geometry, 0, bound) }?;
    let ring = NonNull::from(Box::leak(Box::new(ring)));
    // SAFETY: boxed, as `free` expects, and the first reference.
    Ok((unsafe { RingRef::from_raw(ring) }, mem))
}
