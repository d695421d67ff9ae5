// SPDX-License-Identifier: MIT OR Apache-2.0
//! The surroundings of a ring in a model, and a driver that holds its requests.
//!
//! There is no time: a wait ends when its condition holds, so a wake-up that is lost is a deadlock, and the checker says so.
//! The clock moves on by two seconds whenever somebody looks at it.

use std::any::Any;
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32 as PlainU32, AtomicU64 as PlainU64, Ordering::SeqCst};

use kmod_sq::{Abilities, Geometry, Host, HostFile, Lock, Notify, Polled, Poller, Ring, RingRef, Waited};
use sq_driver::{Bound, Driver, Errno, Issued, Op, Opcodes, Request, RequestId, op};
use sq_uapi::consts::{enter_flags, setup_flags};
use sq_uapi::{SqSetup, Sqe};

#[cfg(loom)]
pub use super::loom_mem::{LoomMem as ModelMem, Weaken};
use super::model_sync::{Condvar, Mutex, MutexGuard, UnsafeCell};
#[cfg(shuttle)]
pub use super::shuttle_mem::{ShuttleMem as ModelMem, Weaken};

/// Locks. No model goes on after a panic, so no lock is ever poisoned.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// The completion lock.
pub struct ModelLock<T>(Mutex<T>);

impl<T> Lock<T> for ModelLock<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut lock(&self.0))
    }

    fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.try_lock().ok().map(|mut value| f(&mut value))
    }
}

/// No model uses files.
#[derive(Clone, Copy, Debug)]
pub struct NoFile;

impl HostFile for NoFile {
    fn target(&self) -> usize {
        0
    }
}

/// A polling thread lets others run.
struct Yield;

impl Poller for Yield {
    fn busy(&mut self) -> bool {
        true
    }

    fn relax(&mut self) {
        super::model_sync::thread::yield_now();
    }

    fn leaves(&mut self) -> bool {
        false
    }
}

#[derive(Default)]
struct Worker {
    queued: bool,
    ended: bool,
}

/// The surroundings.
pub struct ModelHost {
    sleepers: Mutex<()>,
    wake: Condvar,
    worker: Mutex<Worker>,
    worker_wake: Condvar,
    /// Read by whoever uses the ring, written when it is freed: loom checks that every use comes before.
    alive: UnsafeCell<()>,
    freed: Arc<PlainU32>,
    clock_ns: PlainU64,
    signals: PlainU32,
    #[cfg(shuttle)]
    deaf: bool,
    _driver: Arc<dyn Any + Send + Sync>,
}

// SAFETY: `alive` is a loom cell, which fails the model if two accesses are not ordered.
unsafe impl Send for ModelHost {}
// SAFETY: as above.
unsafe impl Sync for ModelHost {}

impl ModelHost {
    /// What the worker thread of a model does, until [`ModelHost::end_worker`].
    pub fn run_worker(ring: &Ring<Self>) {
        while ring.host().next_work() {
            ring.work();
        }
    }

    /// What a polling thread does, until [`ModelHost::end_worker`].
    pub fn run_poller(ring: &Ring<Self>) {
        while ring.host().next_work() {
            while ring.poll_awake(&mut Yield) == Polled::Again {}
        }
    }

    /// Lets the worker thread end when it has nothing to do.
    pub fn end_worker(&self) {
        lock(&self.worker).ended = true;
        self.worker_wake.notify_all();
    }

    /// Does what was left to a worker, in a model that has no worker thread: the worker that runs last.
    pub fn run_late_worker(ring: &Ring<Self>) {
        while std::mem::take(&mut lock(&ring.host().worker).queued) {
            ring.work();
        }
    }

    /// A use of the ring, to loom: it must come before the ring is freed (LIFE-2).
    pub fn touch(&self) {
        self.alive.with(|_| ());
    }

    /// How often the eventfd was signalled: any registered one.
    pub fn signals(&self) -> u32 {
        self.signals.load(SeqCst)
    }

    fn next_work(&self) -> bool {
        let mut worker = lock(&self.worker);
        loop {
            if std::mem::take(&mut worker.queued) {
                return true;
            }
            if worker.ended {
                return false;
            }
            worker = self.worker_wake.wait(worker).unwrap();
        }
    }
}

impl Host for ModelHost {
    const ABILITIES: Abilities =
        Abilities { features: 0, setup_flags: setup_flags::ALL, enter_flags: enter_flags::ALL };

    type Mem = ModelMem;
    type Lock<T: Send> = ModelLock<T>;
    type Array<T: Send> = Box<[T]>;
    type File = NoFile;

    fn array<T: Send>(len: usize, make: impl FnMut(usize) -> T) -> Result<Box<[T]>, Errno> {
        Ok((0..len).map(make).collect())
    }

    unsafe fn copy_from_user(&self, dst: *mut u8, _: u64, len: usize) -> Result<(), Errno> {
        // SAFETY: the contract: writable for so many bytes.
        unsafe { dst.write_bytes(0, len) };
        Ok(())
    }

    unsafe fn copy_to_user(&self, _: u64, _: *const u8, _: usize) -> Result<(), Errno> {
        Err(Errno::EFAULT)
    }

    fn file(&self, _: i32) -> Result<NoFile, Errno> {
        Err(Errno::EBADF)
    }

    fn set_eventfd(&self, _: Option<i32>) -> Result<(), Errno> {
        Ok(())
    }

    fn notify(&self, whom: Notify) {
        #[cfg(shuttle)]
        if self.deaf {
            return;
        }
        if whom.eventfd {
            self.signals.fetch_add(1, SeqCst);
        }
        if whom.waiters {
            // Taken, so that a sleeper that has just looked is asleep before it is woken.
            drop(lock(&self.sleepers));
            self.wake.notify_all();
        }
    }

    fn work(ring: &Ring<Self>) {
        let host = ring.host();
        lock(&host.worker).queued = true;
        host.worker_wake.notify_all();
    }

    fn alarm(_: &Ring<Self>, _: u64) {}

    fn now_ns(&self) -> u64 {
        self.clock_ns.fetch_add(2_000_000_000, SeqCst)
    }

    fn wait(&self, _: Option<u64>, ready: &mut dyn FnMut() -> bool) -> Waited {
        let mut guard = lock(&self.sleepers);
        while !ready() {
            guard = self.wake.wait(guard).unwrap();
        }
        Waited::Ready
    }

    unsafe fn free(ring: NonNull<Ring<Self>>) {
        // SAFETY: rings of this host are leaked boxes, and this was the last reference.
        let ring = unsafe { Box::from_raw(ring.as_ptr()) };
        ring.host().alive.with_mut(|_| ());
        ring.host().freed.fetch_add(1, SeqCst);
    }
}

/// A ring in a model.
pub struct Model {
    /// The kernel side.
    pub ring: RingRef<ModelHost>,
    /// The user half's memory.
    pub mem: ModelMem,
    /// How often the ring was freed.
    pub freed: Arc<PlainU32>,
}

impl Model {
    /// A ring of `sq_entries` and `cq_entries` over `driver`.
    #[must_use]
    pub fn new<D: Driver>(shape: Shape, driver: &Arc<D>, weaken: Weaken) -> Self {
        let setup = SqSetup {
            sq_entries: shape.sq_entries,
            cq_entries: shape.cq_entries,
            max_inflight: shape.max_inflight,
            flags: shape.flags,
            ..SqSetup::default()
        };
        let geometry = Geometry::new(&setup).unwrap();
        let mem = ModelMem::new(geometry.sq_entries, geometry.cq_entries, weaken);
        let freed = Arc::new(PlainU32::new(0));
        let host = ModelHost {
            sleepers: Mutex::default(),
            wake: Condvar::new(),
            worker: Mutex::default(),
            worker_wake: Condvar::new(),
            alive: UnsafeCell::new(()),
            freed: Arc::clone(&freed),
            clock_ns: PlainU64::new(0),
            signals: PlainU32::new(0),
            #[cfg(shuttle)]
            deaf: weaken == Weaken::Deaf,
            _driver: Arc::<D>::clone(driver),
        };
        // SAFETY: the table is D's own and the host keeps the driver, as long as the ring.
        let bound = unsafe { Bound::new(sq_driver::table::<D>(), Arc::as_ptr(driver).cast()) }.unwrap();
        // SAFETY: there is no pool, and it is leaked into its place below.
        let ring = unsafe { Ring::new(host, mem.clone(), geometry, 0, bound) }.unwrap();
        let ring = NonNull::from(Box::leak(Box::new(ring)));
        // SAFETY: boxed, as `free` expects, and the first reference.
        let ring = unsafe { RingRef::from_raw(ring) };
        Self { ring, mem, freed }
    }
}

/// The shape of a model's ring.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Submission entries.
    pub sq_entries: u32,
    /// Completion entries.
    pub cq_entries: u32,
    /// Requests.
    pub max_inflight: u32,
    /// Setup flags.
    pub flags: u32,
}

/// A driver that answers a NOP at once, or, if the entry says ASYNC, holds it until somebody takes it.
pub struct Holder(Mutex<Vec<Request>>);

impl Default for Holder {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl Holder {
    /// Takes a request that is held.
    pub fn take(&self) -> Option<Request> {
        lock(&self.0).pop()
    }

    fn take_id(&self, id: RequestId) -> Option<Request> {
        let mut held = lock(&self.0);
        let at = held.iter().position(|request| request.id() == id)?;
        Some(held.swap_remove(at))
    }
}

impl Driver for Holder {
    const NAME: &'static CStr = c"holder";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::NOP);

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        if !op.entry().wants_async() {
            return op.done(0);
        }
        let (request, issued) = op.defer();
        lock(&self.0).push(request);
        issued
    }

    fn cancel(&self, id: RequestId) {
        if let Some(request) = self.take_id(id) {
            request.complete(Err(Errno::ECANCELED));
        }
    }
}

/// A NOP as it is pushed.
#[must_use]
pub fn nop(user_data: u64, flags: u8) -> [u64; 8] {
    Sqe { user_data, flags, ..Sqe::NOP }.to_words()
}
