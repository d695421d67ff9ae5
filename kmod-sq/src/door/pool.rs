// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests of commands that are completed later: a pool for each open file, taken when the first command comes.
//!
//! ```text
//!          take()             defer()                 issue returned
//!   free ---------> set aside -------> Issuing(None) ----------------> Held
//!    ^                |                  |                             |  |
//!    |                | no defer()       | given back by the driver    |  | given back, to complete
//!    |<---------------+                  v                             |  | after a time
//!    |                               Issuing(Some)                     |  |
//!    |                                |       | issue returned,        |  |
//!    |                 issue returned |       | after a time           |  |
//!    |                                |       +---------> Timed <------|--+
//!    |                                |                     |          |
//!    |                                |       clock, cancel |          | given back
//!    |                                v                     v          v
//!    +--------- finish() ----------- Done <----------------------------+
//! ```
//!
//! While `issue` runs, a request that is given back is only noted. So the command stays the issuer's, which can make it cancelable (that
//! may sleep) with no completion in between, and answers it at once if it is done by then. Every step is made under the request's
//! lock, and whoever makes a request Done sees to its one completion (CAN-1).

use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use sq_driver::abi::{RawOp, RawRequest, RequestOps};
use sq_uapi::Errno;
use sq_uapi::consts::limit;

use super::user::{self, Reaches};
use super::{Doors, Tasks, outcome, request};
use crate::host::Lock;
use crate::ix;

/// Requests of one file, a multiple of 64.
const POOL: u32 = limit::COMMANDS;

const WORDS: usize = ix(POOL / 64);

/// CQ-4: requests that may wait without bound leave an eighth of the pool to the others.
const MOST_INDEFINITE: u32 = POOL / 8 * 7;

/// How a driver gave a request back.
#[derive(Clone, Copy)]
enum Back {
    Done(i32, u64),
    After { at_ns: u64, res: i32 },
}

/// The diagram above.
#[derive(Clone, Copy)]
enum State {
    Issuing(Option<Back>),
    Held,
    Timed(i32),
    Done(i32, u64),
}

struct Progress {
    state: State,
    /// The command's name, or 0.
    command: usize,
    canceled: bool,
}

/// Where a request is when `issue` has returned.
pub(super) enum Returned {
    /// Somebody else has it, who completes it. If it was canceled meanwhile, its driver does not know yet.
    Away(Option<u64>),
    /// It is Done, and the caller's to complete.
    Done,
}

/// A request of a pool.
#[repr(C)]
pub struct Slot<C: Tasks> {
    /// First, so that a pointer to one is a pointer to the other. Written by `begin`.
    request: UnsafeCell<MaybeUninit<RawRequest>>,
    progress: C::Lock<Progress>,
    pub(super) task: C::Task,
    memory: UnsafeCell<Option<C::Memory>>,
    pub(super) file: Cell<Option<C::File>>,
    pub(super) indefinite: Cell<bool>,
    pool: Cell<*const Pool<C>>,
    index: usize,
}

// SAFETY: the cells belong to whoever has set the slot aside, until it is Held or Timed, and then to whoever finishes it. `request`
// is the driver's while it holds it, but for the id, which is constant; `memory` is only read meanwhile. The lock orders it all.
unsafe impl<C: Tasks> Send for Slot<C> {}
// SAFETY: as above.
unsafe impl<C: Tasks> Sync for Slot<C> {}

/// The requests of one open file. They end before it does: io_uring keeps the file of a command.
pub struct Pool<C: Tasks> {
    slots: C::Array<Slot<C>>,
    /// Bit n: slot n is free.
    free: [AtomicU64; WORDS],
    /// Requests in flight that may wait without bound.
    indefinite: AtomicU32,
}

impl<C: Tasks> Pool<C> {
    /// A pool, to be put in its place before it is used.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Self, Errno> {
        let slots = C::array(ix(POOL), |index| Slot {
            request: UnsafeCell::new(MaybeUninit::uninit()),
            progress: C::Lock::new(Progress { state: State::Done(0, 0), command: 0, canceled: false }),
            task: C::task(),
            memory: UnsafeCell::new(None),
            file: Cell::new(None),
            indefinite: Cell::new(false),
            pool: Cell::new(ptr::null()),
            index,
        })?;
        Ok(Self { slots, free: [const { AtomicU64::new(u64::MAX) }; WORDS], indefinite: AtomicU32::new(0) })
    }

    /// Sets a request aside.
    pub(super) fn take(&self) -> Option<&Slot<C>> {
        for (word, slots) in self.free.iter().zip(self.slots.chunks(64)) {
            // Acquire: what was done with the slot before it was free comes before. Partner: the release in `give_back`.
            let lowest = word.fetch_update(Ordering::Acquire, Ordering::Relaxed, |free| {
                (free != 0).then_some(free & free.wrapping_sub(1))
            });
            if let Ok(free) = lowest {
                let slot = slots.get(usize::try_from(free.trailing_zeros()).unwrap_or(0))?;
                slot.pool.set(self);
                return Some(slot);
            }
        }
        None
    }

    /// The opposite.
    pub(super) fn give_back(&self, slot: &Slot<C>) {
        let bit = 1u64.wrapping_shl(u32::try_from(slot.index).unwrap_or(0) & 63);
        if let Some(word) = self.free.get(slot.index / 64) {
            word.fetch_or(bit, Ordering::Release);
        }
    }
}

impl<C: Tasks> Slot<C> {
    const OPS: RequestOps = user::request_ops::<Self>(complete::<C>, complete_after::<C>);

    fn pool(&self) -> &Pool<C> {
        // SAFETY: `take` set it to the pool that this slot is in.
        unsafe { &*self.pool.get() }
    }

    /// Whether the request, which is set aside, may be one that waits without bound. If so, it is counted as one.
    pub(super) fn may_wait(&self) -> bool {
        // Relaxed: a count, which orders nothing.
        let may = self.pool().indefinite.fetch_add(1, Ordering::Relaxed) < MOST_INDEFINITE;
        self.indefinite.set(may);
        if !may {
            self.pool().indefinite.fetch_sub(1, Ordering::Relaxed);
        }
        may
    }

    /// Makes the slot, which is set aside, the request of an operation and of the command of that name.
    pub(super) fn begin(&self, op: &RawOp, command: usize) -> *mut RawRequest {
        // SAFETY: set aside, and the request is not out yet, so the cells are this thread's.
        unsafe { *self.memory.get() = Some(C::memory()) };
        // SAFETY: as above.
        unsafe { self.request.get().cast::<RawRequest>().write(request(op, &Self::OPS)) };
        self.progress.with(|progress| *progress = Progress { state: State::Issuing(None), command, canceled: false });
        // The pointer is to the whole slot, so that the way back stays inside its provenance.
        ptr::from_ref(self).cast_mut().cast()
    }

    /// `issue` has returned.
    pub(super) fn returned(&self) -> Returned {
        self.progress.with(|progress| match progress.state {
            State::Issuing(Some(back)) => match self.step(progress, back) {
                true => Returned::Done,
                false => Returned::Away(None),
            },
            _ => {
                progress.state = State::Held;
                Returned::Away(progress.canceled.then(|| self.id()))
            }
        })
    }

    /// The request's id. It is in flight.
    fn id(&self) -> u64 {
        // SAFETY: `begin` wrote the request, and nobody writes its id while it is in flight.
        unsafe { (*self.request.get().cast::<RawRequest>()).id }
    }

    /// A request that was given back goes on, under the lock. `true`: it is Done, and the caller has to complete it.
    fn step(&self, progress: &mut Progress, back: Back) -> bool {
        progress.state = match back {
            Back::Done(res, extra) => State::Done(outcome(res), extra),
            Back::After { .. } if progress.canceled => State::Done(Errno::ECANCELED.to_res(), 0),
            Back::After { at_ns, res } => {
                // SAFETY: held by `Tasks::hold`, and given back once.
                unsafe { C::start_timer(&raw const self.task, at_ns) };
                State::Timed(res)
            }
        };
        matches!(progress.state, State::Done(..))
    }

    /// Has the command completed by its task.
    ///
    /// # Safety
    ///
    /// The slot is Done, and the caller made it so. No reference to it is used afterwards: the pool may be gone.
    pub(super) unsafe fn complete(this: *const Self) {
        // SAFETY: the contract: it is there yet.
        let task = unsafe { &raw const (*this).task };
        // SAFETY: the contract.
        unsafe { C::complete(task) };
    }

    /// The request's time has come, if it is still waiting for it.
    ///
    /// # Safety
    ///
    /// Called by the timer that [`Tasks::start_timer`] set.
    pub unsafe fn fired(this: *const Self) {
        // SAFETY: `Tasks::stop_timer` waits for this, and comes before the slot is free.
        let done = unsafe { &*this }.progress.with(|progress| match progress.state {
            State::Timed(res) => {
                progress.state = State::Done(outcome(res), 0);
                true
            }
            _ => false,
        });
        if done {
            // SAFETY: made Done above.
            unsafe { Self::complete(this) };
        }
    }

    /// Cancels the command of that name, if the request is still its.
    ///
    /// # Safety
    ///
    /// The command was held with this slot and is not completed, so that its file, and with it the pool, is there.
    pub unsafe fn cancel(this: *const Self, doors: &Doors, command: usize) {
        enum Then {
            Nothing,
            Tell(u64),
            Complete,
        }
        // SAFETY: the contract.
        let slot = unsafe { &*this };
        let then = slot.progress.with(|progress| {
            if progress.command != command || progress.canceled {
                return Then::Nothing;
            }
            progress.canceled = true;
            match progress.state {
                State::Held => Then::Tell(slot.id()),
                State::Timed(_) => {
                    progress.state = State::Done(Errno::ECANCELED.to_res(), 0);
                    Then::Complete
                }
                // Issuing: noted, for when `issue` has returned.
                State::Issuing(_) | State::Done(..) => Then::Nothing,
            }
        });
        match then {
            Then::Nothing => {}
            // It may be gone by now: ids are never used again, and a driver does not mind one that it does not know.
            Then::Tell(id) => doors.driver.cancel(id),
            // SAFETY: made Done above.
            Then::Complete => unsafe { Self::complete(this) },
        }
    }

    /// The end of a request that is Done: its result, and the first word of the second half of a 32-byte completion. The slot is free
    /// afterwards. May sleep.
    ///
    /// # Safety
    ///
    /// Once, by whoever made it Done, or for the call of [`Tasks::complete`] that it made.
    pub unsafe fn finish(&self) -> (i32, u64) {
        // SAFETY: Done, and no lock is held.
        unsafe { C::stop_timer(&raw const self.task) };
        drop(self.file.take());
        // SAFETY: no driver holds the request any more.
        drop(unsafe { (*self.memory.get()).take() });
        let done = self.progress.with(|progress| {
            progress.command = 0;
            match progress.state {
                State::Done(res, extra) => (res, extra),
                _ => (Errno::EIO.to_res(), 0),
            }
        });
        if self.indefinite.take() {
            self.pool().indefinite.fetch_sub(1, Ordering::Relaxed);
        }
        self.pool().give_back(self);
        done
    }
}

impl<C: Tasks> Reaches for Slot<C> {
    type Caller = C;

    unsafe fn memory<'a>(request: *mut RawRequest) -> Result<&'a C::Memory, Errno> {
        // SAFETY: `begin` made the pointer from a slot, which stays while the request is held.
        let slot = unsafe { &*request.cast_const().cast::<Self>() };
        // SAFETY: written before the request was handed out, and not while it is held.
        unsafe { &*slot.memory.get() }.as_ref().ok_or(Errno::EFAULT)
    }
}

/// # Safety
///
/// `request` is held by the caller, who gives it up; `extra` is readable.
unsafe extern "C" fn complete<C: Tasks>(request: *mut RawRequest, res: i32, extra: *const [u64; 2]) {
    // SAFETY: the contract.
    let [extra, _] = unsafe { *extra };
    // SAFETY: the contract.
    unsafe { give::<C>(request, Back::Done(res, extra)) };
}

/// # Safety
///
/// `request` is held by the caller, who gives it up.
unsafe extern "C" fn complete_after<C: Tasks>(request: *mut RawRequest, res: i32, delay_ns: u64) {
    let at_ns = C::now_ns().saturating_add(delay_ns);
    // SAFETY: the contract.
    unsafe { give::<C>(request, Back::After { at_ns, res }) };
}

/// # Safety
///
/// `request` is held by the caller, who gives it up.
unsafe fn give<C: Tasks>(request: *mut RawRequest, back: Back) {
    let this = request.cast_const().cast::<Slot<C>>();
    // SAFETY: `begin` made the pointer from a slot, whose command is not completed.
    let slot = unsafe { &*this };
    let done = slot.progress.with(|progress| match progress.state {
        State::Issuing(None) => {
            progress.state = State::Issuing(Some(back));
            false
        }
        State::Held => slot.step(progress, back),
        _ => {
            debug_assert!(false, "CAN-1: completed twice");
            false
        }
    });
    if done {
        // SAFETY: made Done above.
        unsafe { Slot::<C>::complete(this) };
    }
}
