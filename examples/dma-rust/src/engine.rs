// SPDX-License-Identifier: MIT OR Apache-2.0
//! The simulated engine: descriptors, a doorbell, an interrupt. Nothing here waits or takes a lock.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

use sq_driver::{Errno, Request, RequestId, Slot};

/// Descriptors of the engine.
pub const SLOTS: usize = 256;

/// Between two interrupts, while there is work.
pub(crate) const TICK_NS: u32 = 50_000;

/// `Descriptor::state`: nobody has it.
const FREE: u64 = u64::MAX;
/// `Descriptor::state`: it is being filled in.
const RESERVED: u64 = u64::MAX - 1;
/// `Descriptor::state` from here up to `RESERVED`: it waits for the doorbell, and will take so many ticks. Below: the tick at which
/// it is finished.
const POSTED: u64 = 1 << 63;

/// Calls [`Engine::interrupt`] every 50 us from [`Timer::start`] on, until that says that it is idle.
pub trait Timer: Send + Sync + 'static {
    /// Called once for each idle -> busy edge, in a context that may sleep.
    fn start(&self);
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Descriptors posted.
    Posted,
    /// Descriptors that the engine finished.
    Finished,
    /// Descriptors that were stopped.
    Stopped,
    /// Doorbells with at least one descriptor to start.
    Doorbell,
}

impl Event {
    /// The one that a [`Count`](crate::Count) asks for.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [Self::Posted, Self::Finished, Self::Stopped, Self::Doorbell].into_iter().find(|event| *event as u32 == number)
    }
}

#[derive(Debug)]
struct Descriptor {
    state: AtomicU64,
    bytes: AtomicU32,
    /// Whoever takes it out frees the descriptor.
    request: Slot,
}

/// Index of a descriptor that the caller has reserved.
#[derive(Debug)]
pub(crate) struct Reserved(usize);

/// The device.
#[derive(Debug)]
pub struct Engine<T> {
    pub(crate) timer: T,
    descriptors: [Descriptor; SLOTS],
    busy: AtomicU32,
    /// Descriptors that wait for the doorbell.
    posted: AtomicU32,
    tick: AtomicU64,
    ticking: AtomicBool,
    counts: [AtomicU32; 4],
}

impl<T: Timer> Engine<T> {
    /// An idle one.
    #[must_use]
    pub const fn new(timer: T) -> Self {
        Self {
            timer,
            descriptors: [const {
                Descriptor { state: AtomicU64::new(FREE), bytes: AtomicU32::new(0), request: Slot::new() }
            }; SLOTS],
            busy: AtomicU32::new(0),
            posted: AtomicU32::new(0),
            tick: AtomicU64::new(0),
            ticking: AtomicBool::new(false),
            counts: [const { AtomicU32::new(0) }; 4],
        }
    }

    /// A free descriptor, if there is one.
    pub(crate) fn reserve(&self) -> Option<Reserved> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        let free =
            |d: &Descriptor| d.state.compare_exchange(FREE, RESERVED, Ordering::Acquire, Ordering::Relaxed).is_ok();
        let index = self.descriptors.iter().position(free);
        if index.is_none() {
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
        index.map(Reserved)
    }

    /// Fills it in. Nothing happens before the doorbell.
    pub(crate) fn post(&self, reserved: Reserved, request: Request, bytes: u32) {
        let Some(descriptor) = self.descriptors.get(reserved.0) else { return };
        descriptor.bytes.store(bytes, Ordering::Relaxed);
        let ticks = u64::from(bytes.div_ceil(TICK_NS));
        self.add(Event::Posted);
        // Before the request is there: who takes that out frees the descriptor. An interrupt in between finds an empty slot and
        // looks again; a cancel in between comes again when `issue` has returned.
        descriptor.state.store(POSTED | ticks, Ordering::Release);
        if let Err(request) = descriptor.request.put(request) {
            // A descriptor that is free has an empty slot.
            return request.complete(Err(Errno::EIO));
        }
        self.posted.fetch_add(1, Ordering::Release);
    }

    /// Starts what is posted, by whichever ring.
    pub(crate) fn ring_doorbell(&self) {
        if self.posted.swap(0, Ordering::Acquire) == 0 {
            return;
        }
        self.add(Event::Doorbell);
        let now = self.tick.load(Ordering::Relaxed);
        for descriptor in &self.descriptors {
            let state = descriptor.state.load(Ordering::Acquire);
            if (POSTED..RESERVED).contains(&state) {
                let due = now.saturating_add(state & !POSTED);
                // It fails if the descriptor was stopped, or started by another ring's doorbell.
                let _ = descriptor.state.compare_exchange(state, due, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
        // Pairs with the fence in `interrupt`: either that sees a busy engine, or this sees that nothing ticks.
        fence(Ordering::SeqCst);
        if !self.ticking.swap(true, Ordering::Relaxed) {
            self.timer.start();
        }
    }

    /// The device's interrupt: finishes what is due. Returns whether the timer goes on. Any context.
    pub fn interrupt(&self) -> bool {
        let now = self.tick.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        for descriptor in self.descriptors.iter().filter(|d| d.state.load(Ordering::Acquire) <= now) {
            if let Some(request) = descriptor.request.id().and_then(|id| descriptor.request.take(id)) {
                let bytes = descriptor.bytes.load(Ordering::Relaxed);
                self.free(descriptor);
                self.add(Event::Finished);
                request.complete(i32::try_from(bytes).map_err(|_| Errno::EIO));
            }
        }
        if self.busy.load(Ordering::Relaxed) > 0 {
            return true;
        }
        self.ticking.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.busy.load(Ordering::Relaxed) > 0 && !self.ticking.swap(true, Ordering::Relaxed)
    }

    /// Stops the descriptor of this request, if the interrupt does not have it. Any context.
    pub(crate) fn stop(&self, id: RequestId) {
        for descriptor in &self.descriptors {
            if let Some(request) = descriptor.request.take(id) {
                self.free(descriptor);
                self.add(Event::Stopped);
                return request.complete(Err(Errno::ECANCELED));
            }
        }
    }

    pub(crate) fn count(&self, event: Event) -> i32 {
        let count = self.counts.get(event as usize).map_or(0, |count| count.load(Ordering::Relaxed));
        i32::try_from(count & 0x7fff_ffff).unwrap_or(0)
    }

    fn add(&self, event: Event) {
        if let Some(count) = self.counts.get(event as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The caller has taken its request.
    fn free(&self, descriptor: &Descriptor) {
        descriptor.state.store(FREE, Ordering::Release);
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }
}
