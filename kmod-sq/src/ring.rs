// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ring: its parts, its life, and completion from anywhere.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU64};

use sq_driver::Bound;
use sq_uapi::consts::{features, sq_state};
use sq_uapi::{Errno, KernelMem, KernelWord, SqStats};

use crate::cq::{Cq, OutOfWindow, Stall, cqe_words};
use crate::geometry::Geometry;
use crate::host::{Event, Host, Lock, Notify};
use crate::issue::Issuing;
use crate::posted::Posted;
use crate::register::Files;
use crate::request::{Requests, STRIDE, Settle, Slot};
use crate::sq::Sq;
use crate::sync::{AtomicU32, AtomicUsize, Ordering, OwnedCell, at};

/// Who drains the submission queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// ENTER does, in its caller's context: no thread at all.
    Caller,
    /// A worker does; ENTER wakes it.
    Worker,
    /// A thread that polls, and sleeps when the ring has been idle for a while.
    Poll,
}

/// Bits of [`Ring::stop`]: why nothing more is accepted.
pub(crate) mod stop {
    /// Set up disabled and not enabled yet.
    pub(crate) const DISABLED: u32 = 1;
    /// An index left its window. For good.
    pub(crate) const BROKEN: u32 = 2;
    /// Quiesced. For good.
    pub(crate) const QUIESCED: u32 = 4;
    /// Quiesced, and found with nothing in flight and nobody draining, so that nothing comes any more. For good.
    pub(crate) const OVER: u32 = 8;
}

/// Counters that only the drain owner moves, and anybody reads. Not the ring's words, so no model checker's atomics.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) doorbells: AtomicU64,
    pub(crate) avoided: AtomicU64,
    pub(crate) skipped: AtomicU64,
}

/// One more.
#[inline]
pub(crate) fn count(counter: &AtomicU64) {
    // No read-modify-write: there is one writer.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// What `poll` tells of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Completions are there to reap, or may be (`cq_head` left its window); or an entry waits for an ENTER of the ring's
    /// process: `EPOLLIN`.
    pub readable: bool,
    /// An index left its window: `EPOLLERR`.
    pub broken: bool,
    /// It was quiesced and nothing is in flight: no completion comes after those that are there. `EPOLLHUP`.
    pub over: bool,
}

/// The kernel side of one ring.
///
/// It is shared: ENTER, completions, cancels and the worker come from any thread. Three parts have an owner each: the
/// submission side belongs to the *drain owner* (one word, `drain`, says whether there is one), what is decided about
/// completions to the completion lock, the places where they are posted to whom `Posted` says; the rest is constant, or atomic.
pub struct Ring<H: Host> {
    pub(crate) host: H,
    pub(crate) mem: H::Mem,
    pub(crate) geometry: Geometry,
    pub(crate) driver: Bound,
    /// Start of the pool in the kernel side's own mapping.
    pub(crate) pool: usize,
    pub(crate) slots: H::Array<Slot<H>>,
    pub(crate) cq: H::Lock<Cq<H>>,
    pub(crate) posted: Posted,
    /// What the drain owner counts.
    pub(crate) tally: Tally,
    pub(crate) files: H::Lock<Files<H>>,
    /// The drain owner's.
    pub(crate) sq: OwnedCell<Sq>,
    /// The drain owner's too, in cells, since a driver's call comes back to it.
    pub(crate) issuing: Issuing<H>,
    /// Who is the drain owner: see [`drain`](crate::drain).
    pub(crate) drain: AtomicU32,
    /// Bit n: opcode n has not been given up. For other doors of the ring's file; the drain owner has its own copy.
    allowed: AtomicU64,
    /// [`stop`]'s bits.
    stop: AtomicU32,
    /// References: the home's, and one for each request in flight.
    refs: AtomicUsize,
    /// This ring, by the pointer that the home gave: what [`Host::free`] gets must have come from there.
    this: AtomicPtr<Ring<H>>,
}

// SAFETY: `sq` and `issuing` are accessed only by the drain owner (whoever moved `drain` from FREE to OWNED), whose hand-overs are
// acquire and release; its raw pointers lead into this ring. `slots` synchronise as `Slot` says. All else is Sync.
unsafe impl<H: Host> Sync for Ring<H> {}
// SAFETY: as above.
unsafe impl<H: Host> Send for Ring<H> {}

impl<H: Host> Ring<H> {
    /// A ring over memory that its home has set up: zeroed, with the regions of `geometry`. `pool` is where the pool begins in
    /// the kernel side's own mapping (0 without one).
    ///
    /// # Safety
    ///
    /// The pool is mapped there, as long as `geometry` says, until the ring is freed. The ring is put in its place and made a
    /// [`RingRef`] before anything is done with it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub unsafe fn new(host: H, mem: H::Mem, geometry: Geometry, pool: usize, driver: Bound) -> Result<Self, Errno> {
        let count = geometry.max_inflight;
        // A worker sleeps at first, and a caller-driven ring always wants the doorbell.
        mem.store_kernel(KernelWord::SqState, sq_state::NEED_WAKEUP);
        Ok(Self {
            slots: H::array(crate::ix(count), Slot::new)?,
            cq: H::Lock::new(Cq::new(geometry.cq_entries, Requests::new(count)?)),
            posted: Posted::new(),
            tally: Tally::default(),
            files: H::Lock::new(Files::default()),
            sq: OwnedCell::new(Sq::new(&geometry, &driver, &Issuing::<H>::OPS)),
            issuing: Issuing::new(),
            drain: AtomicU32::new(crate::drain::FREE),
            allowed: AtomicU64::new(u64::MAX),
            stop: AtomicU32::new(if geometry.disabled { stop::DISABLED } else { 0 }),
            refs: AtomicUsize::new(1),
            this: AtomicPtr::new(core::ptr::null_mut()),
            host,
            mem,
            geometry,
            driver,
            pool,
        })
    }

    /// The surroundings.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// The shape.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// [`consts::features`](sq_uapi::consts::features) of this ring.
    pub fn features(geometry: &Geometry, driver: &Bound) -> u64 {
        let pool = if geometry.pool.size > 0 { features::BUF_POOL } else { 0 };
        let files = if driver.files() { features::FILES } else { 0 };
        features::KERNEL_RDONLY | features::ISSUE | pool | files | H::ABILITIES.features
    }

    /// Whether user space moved an index out of its window.
    pub fn is_broken(&self) -> bool {
        self.stopped() & stop::BROKEN != 0
    }

    /// The opcodes that the ring's file has not given up, for other doors than the ring (SEC-3).
    pub fn allowed(&self) -> u64 {
        // Relaxed: whoever gives an opcode up and then has another thread try it orders the two.
        self.allowed.load(Ordering::Relaxed)
    }

    pub(crate) fn allow(&self, opcodes: u64) {
        self.allowed.fetch_and(opcodes, Ordering::Relaxed);
    }

    pub(crate) fn stopped(&self) -> u32 {
        self.stop.load(at!(StopLoad, Acquire))
    }

    pub(crate) fn set_stop(&self, bit: u32) -> u32 {
        self.stop.fetch_or(bit, at!(StopSet, AcqRel))
    }

    pub(crate) fn enable(&self) -> Result<(), Errno> {
        let was = self.stop.fetch_and(!stop::DISABLED, at!(StopEnable, AcqRel));
        if was & stop::DISABLED == 0 { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// BROKEN: says so, wakes everybody, and has a worker cancel what is in flight.
    pub(crate) fn break_ring(&self, _: OutOfWindow) {
        if self.set_stop(stop::BROKEN) & stop::BROKEN == 0 {
            self.mem.store_kernel(KernelWord::Broken, 1);
            self.notify_all();
            H::work(self);
        }
    }

    /// Wakes everybody who may be waiting for this ring, whatever it is that they wait for.
    pub(crate) fn notify_all(&self) {
        let eventfd = self.cq.with(|cq| cq.has_eventfd());
        self.host.notify(Notify { waiters: true, eventfd });
    }

    /// Completes a deferred request: posts into the slot it holds (or gives the slot back), frees it, wakes. From any
    /// context. Returns the request's reference to the ring, for the caller to drop last.
    pub(crate) fn settle(&self, index: u32, res: i32, extra: [u64; 2]) -> Option<RingRef<H>> {
        let (settled, quiet, notify, work) = self.cq.with(|cq| {
            // Later: the drain owner calls this again.
            let Settle::Now(settled) = cq.requests.settle(index, res, extra) else { return None };
            let quiet = settled.skip_success && res >= 0;
            if quiet {
                cq.unreserve();
                cq.stats.skipped = cq.stats.skipped.wrapping_add(1);
            } else {
                cq.post(&self.mem, &self.posted, &[cqe_words(settled.user_data, res, extra)]);
            }
            self.posted.ended();
            let idle = self.posted.inflight() == 0;
            let notify = cq.whom(&self.mem, &self.posted, idle);
            // A request is free again, and perhaps a slot: the drain goes on, by a worker.
            let work = matches!(cq.stall, Stall::Slot | Stall::Request);
            if work {
                cq.stall = Stall::None;
            }
            Some((settled, quiet, notify, work))
        })?;
        if !quiet && self.host.traces_completions() {
            self.host.trace(Event::Complete { user_data: settled.user_data, res });
        }
        drop(settled.file);
        if notify.any() {
            self.host.notify(notify);
        }
        if work {
            H::work(self);
        }
        // `defer` counted a reference for this request, and each request gets here once.
        Some(self.counted())
    }

    /// Completes a deferred request with `res` when `delay_ns` have passed. Returns a reference, for the caller to drop last.
    pub(crate) fn settle_after(&self, index: u32, res: i32, delay_ns: u64) -> RingRef<H> {
        let at_ns = self.host.now_ns().saturating_add(delay_ns);
        // Once the clock has the request, it may take the last other reference with it.
        let keep = self.keep();
        let timed = self.cq.with(|cq| cq.requests.time(index, at_ns, res));
        match timed {
            Ok(()) => H::alarm(self, at_ns),
            Err(errno) => drop(self.settle(index, errno.to_res(), [0; 2])),
        }
        keep
    }

    /// Completes what is due, and sets the clock for what is not. Called by the home when an alarm goes off. One walk over the
    /// requests, in strides, so that the lock is held for a bounded time.
    pub fn alarm(&self) {
        let now = self.host.now_ns();
        let mut soonest = u64::MAX;
        let mut from = 0u32;
        while from < self.geometry.max_inflight {
            let _ = self.host.pause();
            let due = self.cq.with(|cq| cq.requests.claim_due(from, STRIDE, now, &mut soonest));
            from = match due {
                Some((index, res)) => {
                    // The caller's reference is another one.
                    drop(self.settle(index, res, [0; 2]));
                    index.saturating_add(1)
                }
                None => from.saturating_add(STRIDE),
            };
        }
        if soonest != u64::MAX {
            H::alarm(self, soonest);
        }
    }

    /// What there is to tell, and from now on every batch wakes pollers. For `poll`, after it has put its caller where
    /// [`Host::notify`] finds it.
    pub fn poll(&self) -> Ready {
        // As QUIESCE waits for it: an owner that is here looks again, and tells when it has gone. Once it was so, who comes and goes
        // finds the ring stopped.
        let stopped = self.stopped();
        let shut = stopped & stop::QUIESCED != 0;
        let known = stopped & stop::OVER != 0;
        let quiet = known || (shut && self.drain_is_free());
        let (looked, over) = self.cq.with(|cq| {
            cq.wake_pollers(&self.mem, &self.posted);
            if shut {
                cq.wake_when_idle(&self.mem, &self.posted);
            }
            let looked = cq.look(&self.mem, &self.posted);
            let readable = looked.map(|unreaped| unreaped > 0 || cq.stall == Stall::Process);
            (readable, quiet && self.posted.inflight() == 0)
        });
        let readable = looked.unwrap_or_else(|out| {
            self.break_ring(out);
            // What is there cannot be counted any more.
            true
        });
        if over && !known {
            self.set_stop(stop::OVER);
        }
        Ready { readable, broken: self.is_broken(), over }
    }

    /// The counters.
    pub fn stats(&self) -> SqStats {
        self.all_stats(self.cq.with(|cq| cq.stats))
    }

    /// `stats` of the completion lock, and what is counted without it.
    pub(crate) fn all_stats(&self, stats: SqStats) -> SqStats {
        let plus = |counter: &AtomicU64, more: u64| counter.load(Ordering::Relaxed).wrapping_add(more);
        SqStats {
            entries: self.posted.consumed(),
            // Not `shown`: whoever asks may have reaped one between the two, and would find it missing.
            completions: self.posted.tail(),
            inflight: self.posted.inflight().into(),
            doorbells: plus(&self.tally.doorbells, stats.doorbells),
            avoided: plus(&self.tally.avoided, stats.avoided),
            skipped: plus(&self.tally.skipped, stats.skipped),
            ..stats
        }
    }

    /// Whether the slots of the completion queue add up (CQ-5). For tests, between operations.
    pub fn balanced(&self) -> bool {
        self.cq.with(|cq| cq.balanced(&self.posted))
    }

    /// A reference of one's own.
    pub fn keep(&self) -> RingRef<H> {
        self.count_ref();
        self.counted()
    }

    /// A reference that has been counted already.
    fn counted(&self) -> RingRef<H> {
        // Set before anybody else had the ring. A ring that is not in its place yet has no references to give.
        RingRef(NonNull::new(self.this.load(Ordering::Relaxed)).unwrap_or(NonNull::from(self)))
    }

    pub(crate) fn count_ref(&self) {
        // Relaxed, as in Arc: the new reference is made from one that keeps the ring already.
        self.refs.fetch_add(1, Ordering::Relaxed);
    }
}

/// A counted reference to a ring.
pub struct RingRef<H: Host>(NonNull<Ring<H>>);

// SAFETY: Ring is Sync and Send.
unsafe impl<H: Host> Send for RingRef<H> {}
// SAFETY: Ring is Sync and Send.
unsafe impl<H: Host> Sync for RingRef<H> {}

impl<H: Host> RingRef<H> {
    /// Takes over one reference.
    ///
    /// # Safety
    ///
    /// `ring` has been put where [`Host::free`] can free it, and the reference that this takes over (the first, from
    /// [`Ring::new`], or one counted since) is nobody else's.
    #[must_use]
    pub unsafe fn from_raw(ring: NonNull<Ring<H>>) -> Self {
        // SAFETY: the contract: the ring is there.
        unsafe { ring.as_ref() }.this.store(ring.as_ptr(), Ordering::Relaxed);
        Self(ring)
    }
}

impl<H: Host> Clone for RingRef<H> {
    fn clone(&self) -> Self {
        self.count_ref();
        Self(self.0)
    }
}

impl<H: Host> core::ops::Deref for RingRef<H> {
    type Target = Ring<H>;

    fn deref(&self) -> &Ring<H> {
        // SAFETY: this reference keeps the ring.
        unsafe { self.0.as_ref() }
    }
}

impl<H: Host> Drop for RingRef<H> {
    fn drop(&mut self) {
        // Release: what this holder did with the ring comes before its end. Partner: the acquire below.
        if self.refs.fetch_sub(1, at!(RefDrop, Release)) == 1 {
            // Acquire: the ends of all other holders come before the memory goes.
            self.refs.load(at!(RefLast, Acquire));
            // SAFETY: this was the last reference.
            unsafe { H::free(self.0) };
        }
    }
}
