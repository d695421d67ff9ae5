// SPDX-License-Identifier: MIT OR Apache-2.0
//! The surroundings of a ring in a checker: one thread that plays all of them, and a clock that moves when it is told.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use kmod_sq::{Abilities, Geometry, Host, HostFile, Lock, Mode, Notify, Polled, Poller, Ring, RingRef, Waited};
use sq_driver::{Bound, Driver, Errno};
use sq_uapi::consts::{enter_flags, setup_flags};
use sq_uapi::{KernelMem, SqSetup};

use super::hostile::{Foe, HostileMem};
use super::interleave::{Why, locked, point, unlocked};
use super::world::Mixer;

/// A lock. Nobody else runs while it is held.
pub struct PlainLock<T>(Mutex<T>);

impl<T> Lock<T> for PlainLock<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        point(Why::Point);
        locked(|| f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        locked(|| self.0.try_lock().ok().map(|mut value| f(&mut value)))
    }
}

/// A file, whatever its number.
#[derive(Debug)]
pub struct AnyFile(());

thread_local!(static OPEN: Cell<usize> = const { Cell::new(0) });

impl AnyFile {
    /// Opens one.
    pub(super) fn open() -> Self {
        OPEN.set(OPEN.get() + 1);
        Self(())
    }

    /// Those of this thread that are open.
    #[must_use]
    pub fn count() -> usize {
        OPEN.get()
    }
}

impl Clone for AnyFile {
    fn clone(&self) -> Self {
        Self::open()
    }
}

impl Drop for AnyFile {
    fn drop(&mut self) {
        OPEN.set(OPEN.get() - 1);
    }
}

impl HostFile for AnyFile {
    fn target(&self) -> usize {
        1
    }
}

/// User addresses that can be read and written.
const MAPPED: std::ops::Range<u64> = 0x1000..0xf000;

/// The surroundings.
#[derive(Debug)]
pub struct HostileHost<M = HostileMem> {
    queued: AtomicBool,
    now_ns: AtomicU64,
    alarm_ns: AtomicU64,
    /// The worker runs.
    in_worker: AtomicBool,
    /// Who acts at this moment is the worker, which has no descriptors.
    as_worker: AtomicBool,
    /// Whoever calls was killed.
    killed: AtomicBool,
    eventfd: AtomicBool,
    /// Calls of `notify` for waiters.
    notified: AtomicU64,
    /// And for the eventfd.
    signalled: AtomicU64,
    /// Somebody writes to the ring who does not keep the protocol: sleepers may oversleep what it brings about.
    pub lawless: AtomicBool,
    /// Nobody is ever woken: a bug to plant.
    pub deaf: AtomicBool,
    /// Completions are traced, and so gathered before they are posted: 0 never, 1 always, 2 every second time.
    pub traces: AtomicU32,
    /// The opcode mask that REGISTER finds, if it is not 0.
    pub allow: AtomicU64,
    /// Bytes at user addresses are others at each look.
    looks: AtomicU32,
    mem: PhantomData<fn() -> M>,
}

thread_local!(static ALIVE: Cell<usize> = const { Cell::new(0) });

/// Rings of this thread that are not freed.
#[must_use]
pub fn rings_alive() -> usize {
    ALIVE.get()
}

impl<M> Drop for HostileHost<M> {
    fn drop(&mut self) {
        ALIVE.set(ALIVE.get() - 1);
    }
}

impl<M> Default for HostileHost<M> {
    fn default() -> Self {
        ALIVE.set(ALIVE.get() + 1);
        Self {
            queued: AtomicBool::default(),
            now_ns: AtomicU64::default(),
            alarm_ns: AtomicU64::default(),
            in_worker: AtomicBool::default(),
            as_worker: AtomicBool::default(),
            killed: AtomicBool::default(),
            eventfd: AtomicBool::default(),
            notified: AtomicU64::default(),
            signalled: AtomicU64::default(),
            lawless: AtomicBool::default(),
            deaf: AtomicBool::default(),
            traces: AtomicU32::default(),
            allow: AtomicU64::default(),
            looks: AtomicU32::default(),
            mem: PhantomData,
        }
    }
}

/// A polling thread that is the clock, too: it leaves when an alarm is due. Each look that finds nothing takes a good half of the time after
/// which a ring is idle.
struct Turn<'a, M> {
    host: &'a HostileHost<M>,
    idle_ns: u64,
}

impl<M> Poller for Turn<'_, M> {
    fn busy(&mut self) -> bool {
        true
    }

    fn relax(&mut self) {
        point(Why::Point);
        self.host.now_ns.fetch_add(self.idle_ns / 2 + 1, SeqCst);
    }

    fn leaves(&mut self) -> bool {
        self.host.is_due()
    }
}

impl<M> HostileHost<M> {
    fn is_due(&self) -> bool {
        let at = self.alarm_ns.load(SeqCst);
        at != 0 && at <= self.now_ns.load(SeqCst)
    }
}

impl<M: KernelMem + Send + Sync + 'static> HostileHost<M> {
    /// Does what the worker or the polling thread was asked for. A ring asks again only for a reason, so a hundred times in a row
    /// are too many. Returns whether there was anything.
    ///
    /// # Panics
    ///
    /// If there is no end to it (SEC-1).
    pub fn run_worker(ring: &Ring<Self>) -> bool {
        let host = ring.host();
        if host.in_worker.swap(true, SeqCst) {
            return false;
        }
        let acted = host.as_worker.swap(true, SeqCst);
        let killed = host.killed.swap(false, SeqCst);
        let mut turns = 0;
        while host.queued.swap(false, SeqCst) {
            turns += 1;
            assert!(turns < 100, "SEC-1: the worker is asked for again and again");
            if ring.geometry().mode != Mode::Poll {
                ring.work();
            } else if ring.poll_awake(&mut Turn { host, idle_ns: ring.geometry().idle_ns }) == Polled::Again
                || host.is_due()
            {
                // If it left before the ring was idle, it comes back.
                Self::sleep(ring, 0);
                host.queued.store(true, SeqCst);
            }
        }
        host.killed.store(killed, SeqCst);
        host.as_worker.store(acted, SeqCst);
        host.in_worker.store(false, SeqCst);
        turns > 0
    }

    /// What a thread of the process does, be it in the middle of what the worker does.
    pub fn as_process(ring: &Ring<Self>, does: impl FnOnce()) {
        let acted = ring.host().as_worker.swap(false, SeqCst);
        does();
        ring.host().as_worker.store(acted, SeqCst);
    }

    /// Whether somebody has asked for the worker, who has not come yet, or is at it.
    pub fn is_asked(&self) -> bool {
        self.queued.load(SeqCst) || self.in_worker.load(SeqCst)
    }

    /// Moves the clock on, and calls the alarm if its time has come.
    pub fn sleep(ring: &Ring<Self>, ns: u64) {
        let host = ring.host();
        host.now_ns.fetch_add(ns, SeqCst);
        if host.is_due() {
            host.alarm_ns.store(0, SeqCst);
            ring.alarm();
        }
    }

    /// The alarm goes off, whenever that is, unless it is set for the end of time. Returns whether it was set.
    pub fn ring_alarm(ring: &Ring<Self>) -> bool {
        let host = ring.host();
        let at = host.alarm_ns.load(SeqCst);
        if at == 0 || at > 1 << 62 {
            return false;
        }
        Self::sleep(ring, at.saturating_sub(host.now_ns.load(SeqCst)));
        true
    }

    /// What happens beside a sleeper: the worker has its turn, or an alarm goes off. Returns whether there was anything.
    pub fn time_passes(ring: &Ring<Self>, why: Why) -> bool {
        why == Why::Asleep && (Self::run_worker(ring) || Self::ring_alarm(ring))
    }

    /// The clock.
    pub fn clock_ns(&self) -> u64 {
        self.now_ns.load(SeqCst)
    }

    /// How often the eventfd was signalled.
    pub fn signals(&self) -> u64 {
        self.signalled.load(SeqCst)
    }

    /// The process gets a signal that kills.
    pub fn kill(&self) {
        self.killed.store(true, SeqCst);
    }
}

/// What a user address holds at its `look`th look: descriptors, opcode masks and vectors that often make sense.
pub(super) fn is_odd(bytes: &mut [u8], look: u32) {
    let len = bytes.len();
    let mut mixer = Mixer(look.into());
    for chunk in bytes.chunks_mut(8) {
        let draw = mixer.draw();
        let word = match (len, draw & 7) {
            (4, 0..3) => u64::MAX,
            (4, _) => draw >> 60,
            (8, _) => draw | draw << 13,
            (_, 0) => draw,
            _ => MAPPED.start + (draw >> 8 & 0xfff),
        };
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
}

pub(super) fn is_mapped(addr: u64, len: usize) -> Result<(), Errno> {
    let end = addr.checked_add(len as u64).ok_or(Errno::EFAULT)?;
    if len == 0 || (MAPPED.contains(&addr) && end <= MAPPED.end) { Ok(()) } else { Err(Errno::EFAULT) }
}

impl<M: KernelMem + Send + Sync + 'static> Host for HostileHost<M> {
    const ABILITIES: Abilities =
        Abilities { features: 0, setup_flags: setup_flags::ALL, enter_flags: enter_flags::ALL };

    type Mem = M;
    type Lock<T: Send> = PlainLock<T>;
    type Array<T: Send> = Box<[T]>;
    type File = AnyFile;

    fn array<T: Send>(len: usize, make: impl FnMut(usize) -> T) -> Result<Box<[T]>, Errno> {
        Ok((0..len).map(make).collect())
    }

    /// SNAP-3: something else at each look.
    unsafe fn copy_from_user(&self, dst: *mut u8, addr: u64, len: usize) -> Result<(), Errno> {
        unlocked("user memory is read");
        point(Why::Point);
        is_mapped(addr, len)?;
        // SAFETY: the contract.
        let bytes = unsafe { std::slice::from_raw_parts_mut(dst, len) };
        let allow = self.allow.load(SeqCst);
        if allow == 0 || len != 8 {
            is_odd(bytes, self.looks.fetch_add(1, SeqCst));
        } else {
            bytes.copy_from_slice(&allow.to_le_bytes());
        }
        Ok(())
    }

    unsafe fn copy_to_user(&self, addr: u64, _: *const u8, len: usize) -> Result<(), Errno> {
        unlocked("user memory is written");
        point(Why::Point);
        is_mapped(addr, len)
    }

    fn file(&self, fd: i32) -> Result<AnyFile, Errno> {
        unlocked("a descriptor is looked up");
        point(Why::Point);
        match fd {
            _ if self.as_worker.load(SeqCst) => Err(Errno::EAGAIN),
            0.. => Ok(AnyFile::open()),
            _ => Err(Errno::EBADF),
        }
    }

    fn set_eventfd(&self, fd: Option<i32>) -> Result<(), Errno> {
        match fd {
            Some(i32::MIN..0) => Err(Errno::EBADF),
            Some(_) if self.eventfd.swap(true, SeqCst) => Err(Errno::EBUSY),
            None if !self.eventfd.swap(false, SeqCst) => Err(Errno::ENXIO),
            _ => Ok(()),
        }
    }

    fn notify(&self, whom: Notify) {
        let heard = whom.waiters && !self.deaf.load(SeqCst);
        self.notified.fetch_add(u64::from(heard), SeqCst);
        self.signalled.fetch_add(u64::from(whom.eventfd), SeqCst);
        point(Why::Point);
    }

    fn work(ring: &Ring<Self>) {
        ring.host().queued.store(true, SeqCst);
    }

    fn alarm(ring: &Ring<Self>, at_ns: u64) {
        let alarm = &ring.host().alarm_ns;
        let old = alarm.load(SeqCst);
        alarm.store(if old == 0 { at_ns.max(1) } else { old.min(at_ns.max(1)) }, SeqCst);
    }

    fn now_ns(&self) -> u64 {
        point(Why::Point);
        self.now_ns.load(SeqCst)
    }

    fn pause(&self) -> Result<(), Errno> {
        unlocked("others get the processor");
        point(Why::Point);
        if self.killed.load(SeqCst) { Err(Errno::ECANCELED) } else { Ok(()) }
    }

    /// Others run until one of them wakes this sleeper, or none has anything left to do. Then nothing will ever come.
    fn wait(&self, deadline: Option<u64>, ready: &mut dyn FnMut() -> bool) -> Waited {
        unlocked("a thread sleeps");
        let mut seen = self.notified.load(SeqCst);
        let mut awake = true;
        loop {
            if awake && ready() {
                return Waited::Ready;
            }
            if self.killed.load(SeqCst) {
                return Waited::Signal;
            }
            if deadline.is_some_and(|at| at <= self.now_ns.load(SeqCst)) {
                return Waited::Timeout;
            }
            let somebody_runs = point(Why::Asleep);
            let notified = self.notified.load(SeqCst);
            awake = std::mem::replace(&mut seen, notified) != notified;
            if !somebody_runs && !awake {
                let overslept = !self.lawless.load(SeqCst) && ready();
                assert!(!overslept, "BELL-4: what a sleeper waits for is there, and nobody woke it");
                let Some(at) = deadline else { return Waited::Signal };
                self.now_ns.fetch_max(at, SeqCst);
                return Waited::Timeout;
            }
        }
    }

    fn traces_completions(&self) -> bool {
        match self.traces.load(SeqCst) {
            0 => false,
            1 => true,
            // Somebody switches the tracepoint on, and off, and on.
            n => {
                self.traces.store(5 - n, SeqCst);
                n == 2
            }
        }
    }

    unsafe fn free(ring: NonNull<Ring<Self>>) {
        // SAFETY: rings of this host are leaked boxes, and this was the last reference.
        drop(unsafe { Box::from_raw(ring.as_ptr()) });
    }
}

/// A ring over `mem`, whose pool, if it has one, is at `pool`. `driver` is static, so that it outlives the ring.
///
/// # Errors
///
/// As SETUP.
///
/// # Safety
///
/// The pool is mapped there, as long as `geometry` says, until the ring is freed.
pub unsafe fn ring_over<D: Driver, M: KernelMem + Send + Sync + 'static>(
    geometry: Geometry,
    mem: M,
    pool: usize,
    driver: &'static D,
) -> Result<RingRef<HostileHost<M>>, Errno> {
    // SAFETY: the table is D's own, and the driver is static.
    let bound = unsafe { Bound::new(sq_driver::table::<D>(), std::ptr::from_ref(driver).cast()) }?;
    // SAFETY: the contract.
    unsafe { ring_bound(geometry, mem, pool, bound) }
}

/// As [`ring_over`], of any table.
///
/// # Errors
///
/// As SETUP.
///
/// # Safety
///
/// As there.
pub unsafe fn ring_bound<M: KernelMem + Send + Sync + 'static>(
    geometry: Geometry,
    mem: M,
    pool: usize,
    bound: Bound,
) -> Result<RingRef<HostileHost<M>>, Errno> {
    // SAFETY: the contract, and it is leaked into its place below.
    let ring = unsafe { Ring::new(HostileHost::default(), mem, geometry, pool, bound) }?;
    let ring = NonNull::from(Box::leak(Box::new(ring)));
    // SAFETY: boxed, as `free` expects, and the first reference.
    Ok(unsafe { RingRef::from_raw(ring) })
}

/// A ring without a pool over hostile memory.
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
    // SAFETY: whatever the setup asks for, there is no pool: it would be at address 0, which READ_FIXED is refused for the want of.
    Ok((
        unsafe { ring_over(Geometry { pool: Default::default(), buf_count: 0, ..geometry }, mem.clone(), 0, driver) }?,
        mem,
    ))
}
